//! Links on the real kernel, read back with `ip`.

#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{eventually, in_namespace, ip_link, json, link_exists, run, try_run};
use volnet::model::mac::Mac;
use volnet::model::prefix::Prefix;
use volnet::netlink::rtnl::link;
use volnet::network::Network;
use volnet::network::linux::monitor::Monitor;
use volnet::network::linux::socket::{Error, NetlinkFamily, Socket};
use volnet::network::linux::{Linux, addresses, links, sysctl, tap};
use volnet::plan::news::News;
use volnet::plan::op::{GuestRoute, LinkSettings, Op, PortSettings};
use volnet::plan::reconcile::{Desired, Link, LinkKind, reconcile};
use volnet::spec::{MTU_MAX, MTU_MIN};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const TAP: tap::Spec<'static> =
    tap::Spec { name: "vttap-web", owner: Some(1234), multi_queue: false, alias: "volnet:web" };

const PORT: PortSettings = PortSettings { isolated: true, hairpin: true, group_forward: 8 };

fn socket() -> Socket {
    Socket::open(NetlinkFamily::Route).unwrap()
}

fn bridge(socket: &mut Socket) -> u32 {
    links::create_bridge(socket, "vbr0", MAC, 1400, "volnet:").unwrap()
}

fn attached() -> LinkSettings {
    LinkSettings {
        master: Some(Some("vbr0".into())),
        up: Some(true),
        mtu: Some(1400),
        no_ipv6: true,
        port: Some(PORT),
        ..LinkSettings::default()
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (i32, String) {
    match result {
        Err(Error::Refused { errno, words, .. }) => (errno, words.unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

fn observed(socket: &mut Socket, name: &str) -> Link {
    links::observe(socket).unwrap().into_iter().find(|link| link.name == name).unwrap()
}

#[test]
fn a_bridge_is_made_as_asked_for() {
    in_namespace(|| {
        let mut socket = socket();
        let index = bridge(&mut socket);
        let shown = ip_link("vbr0");
        assert_eq!(shown["ifindex"], index);
        assert_eq!(shown["linkinfo"]["info_kind"], "bridge");
        assert_eq!(shown["address"], "02:00:00:00:00:09");
        assert_eq!(shown["mtu"], 1400);
        assert_eq!(shown["ifalias"], "volnet:");
        let seen = observed(&mut socket, "vbr0");
        assert_eq!((seen.index, seen.kind, seen.mac), (index, LinkKind::Bridge, MAC));
        assert_eq!((seen.mtu, seen.alias.as_deref()), (1400, Some("volnet:")));
        assert_eq!((&shown["group"], seen.unfinished), (&"default".into(), false));
        let snooping = &shown["linkinfo"]["info_data"]["mcast_snooping"];
        assert_eq!((snooping, seen.snooping), (&0.into(), false));
        let set = LinkSettings { snooping: Some(true), ..LinkSettings::default() };
        links::set(&mut socket, "vbr0", &set).unwrap();
        assert_eq!(ip_link("vbr0")["linkinfo"]["info_data"]["mcast_snooping"], 1);
        assert!(observed(&mut socket, "vbr0").snooping);
    });
}

/// A daemon that ends between the request that makes a bridge and the one that gives it its alias.
#[test]
fn a_bridge_that_was_cut_short_is_made_anew() {
    in_namespace(|| {
        let mut socket = socket();
        let made = socket.request(1, |writer, sequence| {
            link::new_bridge(writer, sequence.take(), "vbr0", MAC.0, Some(links::UNFINISHED));
        });
        made.unwrap();
        let cut_short = ip_link("vbr0")["ifindex"].clone();
        let mut linux = Linux::new(0).unwrap();
        let seen = linux.observe().unwrap();
        assert!(seen.links.iter().any(|link| link.name == "vbr0" && link.unfinished));
        for op in reconcile(&Desired::default(), &seen).plan {
            linux.apply(&op).unwrap();
        }
        assert!(!link_exists("vbr0"), "the name is free at once");
        bridge(&mut socket);
        assert_ne!(ip_link("vbr0")["ifindex"], cut_short);
        run("ip link add vbr1 type bridge");
        let theirs = observed(&mut socket, "vbr1");
        assert!(!theirs.unfinished, "what others make is theirs");
    });
}

#[test]
fn a_bridge_keeps_mac_and_mtu_when_a_port_comes_and_goes() {
    in_namespace(|| {
        let mut socket = socket();
        bridge(&mut socket);
        run("ip link add low type veth peer name high");
        run("ip link set low address 02:00:00:00:00:01 mtu 1500 master vbr0 up");
        run("ip link del low");
        let shown = ip_link("vbr0");
        assert_eq!((&shown["address"], &shown["mtu"]), (&"02:00:00:00:00:09".into(), &1400.into()));
    });
}

#[test]
fn a_tap_is_persistent_owned_and_carries_virtio_headers() {
    in_namespace(|| {
        let mut socket = socket();
        let index = tap::create(&mut socket, &TAP).unwrap();
        let shown = ip_link("vttap-web");
        let tun = &shown["linkinfo"]["info_data"];
        assert_eq!(shown["ifindex"], index);
        assert_eq!(shown["ifalias"], "volnet:web");
        assert_eq!(tun["type"], "tap");
        assert_eq!((&tun["vnet_hdr"], &tun["persist"]), (&true.into(), &true.into()));
        assert_eq!((&tun["pi"], &tun["multi_queue"]), (&false.into(), &false.into()));
        assert_eq!(tun["user"], 1234, "{tun}");
        let kind = LinkKind::Tap {
            vnet_hdr: true,
            multi_queue: false,
            persistent: true,
            owner: Some(1234),
        };
        assert_eq!(observed(&mut socket, "vttap-web").kind, kind);
    });
}

#[test]
fn a_tap_without_a_named_owner_is_ours_and_can_have_many_queues() {
    in_namespace(|| {
        let mut socket = socket();
        let spec = tap::Spec { owner: None, multi_queue: true, ..TAP };
        tap::create(&mut socket, &spec).unwrap();
        let kind =
            LinkKind::Tap { vnet_hdr: true, multi_queue: true, persistent: true, owner: Some(0) };
        assert_eq!(observed(&mut socket, "vttap-web").kind, kind);
    });
}

#[test]
fn a_tap_is_attached_up_and_isolated_in_one_change() {
    in_namespace(|| {
        let mut socket = socket();
        let master = bridge(&mut socket);
        tap::create(&mut socket, &TAP).unwrap();
        links::set(&mut socket, "vttap-web", &attached()).unwrap();
        let shown = ip_link("vttap-web");
        assert_eq!((&shown["master"], &shown["mtu"]), (&"vbr0".into(), &1400.into()));
        assert_eq!(shown["inet6_addr_gen_mode"], "none");
        assert_eq!(shown["linkinfo"]["info_slave_data"]["isolated"], true);
        assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()));
        let seen = observed(&mut socket, "vttap-web");
        assert_eq!((seen.master, seen.up, seen.port), (Some(master), true, PORT));
        assert!(!seen.carrier, "nobody holds it open");

        links::set(&mut socket, "vttap-web", &attached()).expect("twice is as good as once");
        let apart = LinkSettings {
            master: Some(None),
            up: Some(false),
            alias: Some(String::new()),
            ..LinkSettings::default()
        };
        links::set(&mut socket, "vttap-web", &apart).unwrap();
        let seen = observed(&mut socket, "vttap-web");
        assert_eq!((seen.master, seen.up, seen.alias), (None, false, None));
    });
}

#[test]
fn a_link_too_small_for_ipv6_is_attached_all_the_same() {
    in_namespace(|| {
        let mut socket = socket();
        links::create_bridge(&mut socket, "vbr0", MAC, 1000, "volnet:").unwrap();
        tap::create(&mut socket, &TAP).unwrap();
        let settings = LinkSettings { mtu: Some(1000), ..attached() };
        links::set(&mut socket, "vttap-web", &settings).unwrap();
        let seen = observed(&mut socket, "vttap-web");
        assert_eq!((seen.mtu, seen.up, seen.port), (1000, true, PORT));
    });
}

#[test]
fn an_mtu_is_what_a_configuration_may_say() {
    for mtu in [MTU_MIN, MTU_MAX].map(|mtu| mtu as u16) {
        in_namespace(|| {
            let mut socket = socket();
            links::create_bridge(&mut socket, "vbr0", MAC, mtu, "volnet:").unwrap();
            tap::create(&mut socket, &TAP).unwrap();
            let settings = LinkSettings { mtu: Some(mtu), ..attached() };
            links::set(&mut socket, "vttap-web", &settings).unwrap();
            assert_eq!(observed(&mut socket, "vbr0").mtu, u32::from(mtu));
            assert_eq!(observed(&mut socket, "vttap-web").mtu, u32::from(mtu));
        });
    }
}

#[test]
fn a_name_that_is_taken_is_refused_and_left_alone() {
    in_namespace(|| {
        let mut socket = socket();
        run("ip link add vttap-web type veth peer name theirs");
        run("ip link set vttap-web alias theirs");
        run("ip link add vbr0 mtu 1300 type bridge");
        let before = run("ip -d link");

        let (errno, words) = refused(tap::create(&mut socket, &TAP));
        assert_eq!(errno, libc::EBUSY);
        assert!(words.contains("kind veth, alias \"theirs\""), "{words}");

        let (errno, words) =
            refused(links::create_bridge(&mut socket, "vbr0", MAC, 1400, "volnet:"));
        assert_eq!(errno, libc::EEXIST);
        assert!(words.contains("kind bridge"), "{words}");
        assert_eq!(before, run("ip -d link"));
    });
}

#[test]
fn a_tap_that_is_held_names_its_holder() {
    in_namespace(|| {
        let mut socket = socket();
        let file = volnet_ffi::tun::open().unwrap();
        let held = volnet_ffi::tun::Tun::attach(file, "vttap-web", volnet_ffi::tun::TAP).unwrap();
        let (_, words) = refused(tap::create(&mut socket, &TAP));
        let holder = format!("held by process {}", std::process::id());
        assert!(words.contains(&holder), "{words}");
        drop(held);
    });
}

#[test]
fn a_process_that_holds_such_a_tap_elsewhere_is_not_named() {
    const HOLD: &str = "import fcntl, os, struct, sys
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'vttap-far', 0x1002))
print('held', flush=True)
sys.stdin.read()";
    in_namespace(|| {
        // No other test has a tap of this name: its thread would be in another namespace, too.
        let mut elsewhere = Command::new("unshare")
            .args(["--net", "python3", "-c", HOLD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(elsewhere.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        let mut socket = socket();
        run("ip tuntap add vttap-far mode tap");
        let (_, words) = refused(tap::create(&mut socket, &tap::Spec { name: "vttap-far", ..TAP }));
        assert!(!words.contains("held by"), "{words}");
        drop(elsewhere.stdin.take());
        elsewhere.wait().unwrap();
    });
}

#[test]
fn nothing_is_attached_to_what_is_no_bridge() {
    in_namespace(|| {
        let mut socket = socket();
        tap::create(&mut socket, &TAP).unwrap();
        let (errno, _) = refused(links::set(&mut socket, "vttap-web", &attached()));
        assert_eq!(errno, libc::ENODEV, "there is no vbr0");
        run("ip link add vbr0 type veth peer name theirs");
        let (errno, _) = refused(links::set(&mut socket, "vttap-web", &attached()));
        assert_eq!(errno, libc::EOPNOTSUPP);
    });
}

#[test]
fn a_name_that_the_kernel_would_change_makes_no_link() {
    in_namespace(|| {
        let mut socket = socket();
        for name in ["", "vm%d", "vttap-abcdefghij"] {
            let (errno, _) = refused(tap::create(&mut socket, &tap::Spec { name, ..TAP }));
            assert_eq!(errno, libc::ERANGE, "{name:?}");
        }
        // A child that another test forks holds the closed tap for the moment until it executes.
        eventually("the loopback link alone", || links::observe(&mut socket).unwrap().len() == 1);
    });
}

#[test]
fn a_link_is_removed_once_and_then_gone_already() {
    in_namespace(|| {
        let mut socket = socket();
        tap::create(&mut socket, &TAP).unwrap();
        links::delete(&mut socket, "vttap-web").unwrap();
        assert!(!link_exists("vttap-web"));
        links::delete(&mut socket, "vttap-web").unwrap();
    });
}

#[test]
fn a_retired_link_is_cut_off_at_once_and_gone_soon() {
    in_namespace(|| {
        let mut linux = Linux::new(0).unwrap();
        let make = Op::CreateTap {
            name: "vttap-web".into(),
            owner: None,
            multi_queue: false,
            alias: "volnet:web".into(),
        };
        let mut last = 0;
        for _ in 0..100 {
            let index = linux.apply(&make).unwrap().ifindex.unwrap();
            assert!(index > last, "a name is free again before its link is gone");
            last = index;
            linux.apply(&up("vttap-web")).unwrap();
            linux.apply(&remove("vttap-web", index)).unwrap();
            linux.apply(&remove("vttap-web", index)).unwrap();
            assert!(!link_exists("vttap-web"));
            let links = linux.observe().unwrap().links;
            assert!(links.iter().all(|link| link.name == "lo"), "{links:?}");
        }
        linux.flush();
        assert_eq!(run("ip -o link").lines().count(), 1);
    });
}

#[test]
fn a_tap_that_was_made_ahead_is_like_any_other() {
    in_namespace(|| {
        let mut socket = socket();
        links::create_bridge(&mut socket, "vbr0", MAC, 1500, "volnet:").unwrap();
        run("ip link add vbr1 type bridge");
        let mut linux = Linux::new(2).unwrap();
        let make = |linux: &mut Linux, vm: &str, bridge: &str| {
            let name = format!("vttap-{vm}");
            let (owner, alias) = (Some(1234), format!("volnet:{vm}"));
            let tap = Op::CreateTap { name: name.clone(), owner, multi_queue: false, alias };
            let index = linux.apply(&tap).unwrap().ifindex.unwrap();
            let set = LinkSettings { master: Some(Some(bridge.into())), ..attached() };
            linux.apply(&Op::SetLink { name, set, former: LinkSettings::default() }).unwrap();
            index
        };
        let alike = |one: &str, other: &str| {
            let shown = |vm: &str| {
                let tap = format!("vttap-{vm}");
                // The kernel looks at carriers in a thread of its own.
                eventually("no carrier", || ip_link(&tap)["operstate"] == "DOWN");
                shown_link(&tap).replace(&tap, "TAP").replace(&format!("volnet:{vm}"), "ALIAS")
            };
            assert_eq!(shown(one), shown(other));
        };
        assert!(!linux.has_spare_work(), "nobody knows yet what is needed");
        make(&mut linux, "a", "vbr0");
        while linux.has_spare_work() {
            linux.do_spare_work();
        }
        let before = run("ip -o link").lines().count();
        assert_eq!(before, 4 + 2);
        let seen = linux.observe().unwrap().links.len();
        assert_eq!(seen, 4, "what is ready is not shown");
        let ahead = ip_link("vtnew0")["ifindex"].as_u64().unwrap();
        if !can_rename_a_link_that_is_up() {
            assert_ne!(u64::from(make(&mut linux, "b", "vbr0")), ahead);
            alike("a", "b");
            assert!(!linux.has_spare_work(), "taps that cannot be named are not made ahead");
            linux.flush();
            assert_eq!(run("ip -o link").lines().count(), 4 + 1, "and not kept");
            return;
        }
        assert_eq!(u64::from(make(&mut linux, "b", "vbr0")), ahead);
        assert_eq!(run("ip -o link").lines().count(), before);
        alike("a", "b");
        make(&mut linux, "c", "vbr0");
        alike("a", "c");
        make(&mut linux, "d", "vbr0");
        alike("a", "d");
        linux.do_spare_work();
        make(&mut linux, "e", "vbr1");
        assert_eq!(ip_link("vttap-e")["master"], "vbr1", "another kind is made to be so");
        linux.do_spare_work();
        run("ip link del vtnew0");
        make(&mut linux, "f", "vbr1");
        alike("e", "f");
        drop(linux);
        assert!(!run("ip -o link").contains("vtnew") && !run("ip -o link").contains("vtoff"));
    });
}

/// Linux 6.2 and later can.
fn can_rename_a_link_that_is_up() -> bool {
    run("ip link add probe up type bridge");
    let (can, words) = try_run("ip link set probe name probed");
    assert!(can || words.contains("busy"), "{words}");
    run(&format!("ip link del {}", if can { "probed" } else { "probe" }));
    can
}

/// A link as `ip` shows it, without what differs from one making to the next.
fn shown_link(name: &str) -> String {
    let mut link = ip_link(name);
    for volatile in ["ifindex", "address", "operstate"] {
        link.as_object_mut().unwrap().remove(volatile);
    }
    for volatile in ["id", "no", "designated_port", "hold_timer"] {
        let port = link["linkinfo"]["info_slave_data"].as_object_mut().unwrap();
        port.remove(volatile);
    }
    link.to_string()
}

#[test]
fn what_a_dead_daemon_retired_is_found_again() {
    in_namespace(|| {
        run("ip tuntap add vttap-web mode tap");
        run("ip link set vttap-web alias volnet:");
        run("ip link add theirs type bridge");
        let mut linux = Linux::new(0).unwrap();
        let plan = reconcile(&Desired::default(), &linux.observe().unwrap()).plan;
        assert_eq!(plan.len(), 1, "{plan:?}");
        linux.apply(&plan[0]).unwrap();
        drop(linux);
        assert!(!link_exists("vttap-web") && link_exists("theirs"));
    });
}

fn up(name: &str) -> Op {
    let set = LinkSettings { up: Some(true), ..LinkSettings::default() };
    Op::SetLink { name: name.into(), set, former: LinkSettings::default() }
}

fn remove(name: &str, index: u32) -> Op {
    Op::DeleteLink { name: name.into(), index: Some(index) }
}

#[test]
fn an_address_is_given_and_taken_once() {
    in_namespace(|| {
        let mut socket = socket();
        let index = bridge(&mut socket);
        let address = "192.168.127.1".parse().unwrap();
        for _ in 0..2 {
            addresses::add(&mut socket, "vbr0", address, 24).unwrap();
        }
        let shown = json("ip -j addr show dev vbr0");
        assert_eq!(shown[0]["addr_info"][0]["local"], "192.168.127.1");
        assert_eq!(shown[0]["addr_info"][0]["prefixlen"], 24);
        assert_eq!(addresses::observe(&mut socket).unwrap(), [(index, address, 24)]);

        run("ip link set vbr0 up");
        run("ip route add blackhole 10.9.0.0/16");
        let mut routes = addresses::routes(&mut socket).unwrap().all;
        routes.sort_unstable();
        let prefix = |text: &str| text.parse::<Prefix>().unwrap().into();
        let own = (index, prefix("192.168.127.0/24"));
        assert_eq!(routes, [(0, prefix("10.9.0.0/16")), own]);

        for _ in 0..2 {
            addresses::remove(&mut socket, "vbr0", address, 24).unwrap();
        }
        assert!(addresses::observe(&mut socket).unwrap().is_empty());
        addresses::remove(&mut socket, "none", address, 24).expect("the link is gone, too");
        let (errno, _) = refused(addresses::add(&mut socket, "none", address, 24));
        assert_eq!(errno, libc::ENODEV);
    });
}

#[test]
fn an_empty_namespace_has_no_routes() {
    in_namespace(|| assert!(addresses::routes(&mut socket()).unwrap().all.is_empty()));
}

#[test]
fn routes_to_guests_are_known_among_those_of_others() {
    in_namespace(|| {
        let mut socket = socket();
        run("ip link add vbr0 type bridge");
        run("ip link set vbr0 up");
        let index = ip_link("vbr0")["ifindex"].as_u64().unwrap() as u32;
        run("ip addr add 10.0.0.1/24 dev vbr0");
        run("ip addr add fd00::1/64 dev vbr0 nodad");
        run("ip route add 10.0.0.2 dev vbr0 mtu 1300");
        run("ip route add 10.0.0.9 dev vbr0 mtu 1300");
        let route =
            |to: &str, mtu| GuestRoute { link: "vbr0".into(), to: to.parse().unwrap(), mtu };
        let both = [route("10.0.0.2", 1400), route("fd00::2", 1280)];
        for _ in 0..2 {
            both.iter().for_each(|route| addresses::add_route(&mut socket, route).unwrap());
            let found = addresses::routes(&mut socket).unwrap().of_guests;
            assert_eq!(found, both.clone().map(|route| (index, route.to, route.mtu)));
        }
        let shown = run("ip route show proto 118") + &run("ip -6 route show proto 118");
        assert!(shown.starts_with("10.0.0.2 dev vbr0 scope link mtu 1400"), "{shown}");
        assert!(shown.contains("fd00::2 dev vbr0 metric 1024 mtu 1280"), "{shown}");
        for _ in 0..2 {
            both.iter().for_each(|route| addresses::remove_route(&mut socket, route).unwrap());
        }
        addresses::remove_route(&mut socket, &route("10.0.0.9", 1300)).unwrap();
        assert!(run("ip route show").contains("10.0.0.9 dev vbr0"), "it is not ours");
        assert!(addresses::routes(&mut socket).unwrap().of_guests.is_empty());
        run("ip link set vbr0 down");
        assert!(addresses::add_route(&mut socket, &both[0]).is_err());
        let gone = GuestRoute { link: "vbr1".into(), ..both[0].clone() };
        assert!(addresses::add_route(&mut socket, &gone).is_err());
        addresses::remove_route(&mut socket, &gone).unwrap();
    });
}

#[test]
fn forwarding_is_that_of_the_thread_s_namespace() {
    let outside = sysctl::forwarding().unwrap();
    in_namespace(|| {
        for on in [true, false, true] {
            sysctl::set_forwarding(on).unwrap();
            assert_eq!(sysctl::forwarding().unwrap(), on);
            assert_eq!(run("sysctl -n net.ipv4.ip_forward").trim() == "1", on);
        }
    });
    assert_eq!(sysctl::forwarding().unwrap(), outside);
}

#[test]
fn the_last_word_on_each_thing_is_news_and_an_overrun_is_told() {
    in_namespace(|| {
        let mut monitor = Monitor::open(0).unwrap();
        run("ip link add vbr0 type bridge");
        run("ip addr add 10.0.0.1/24 dev vbr0");
        run("ip link add vbr1 type bridge");
        run("ip link del vbr0");
        run("sysctl -qw net.ipv4.ip_forward=1");
        run("nft add table ip volnet");
        let news = monitor.drain();
        let told = |name: &str| news.links.values().find(|(link, _)| link.name == name).unwrap().1;
        assert!(!told("vbr0") && told("vbr1"), "{news:?}");
        assert_eq!(news.addresses.values().collect::<Vec<_>>(), [&false]);
        assert_eq!(news.forwarding, Some(true));
        assert_eq!(news.rules.as_ref().map(|by| by.name.as_str()), Some("nft"));
        assert!(!news.lost);
        run("nft add table ip other");
        let news = monitor.drain();
        assert_eq!(news.others.as_ref().map(|by| by.name.as_str()), Some("nft"));
        assert_eq!(News { others: None, ..news }, News::default());

        let mut socket = socket();
        let mut up = LinkSettings { up: Some(true), ..LinkSettings::default() };
        for round in 0.. {
            assert!(round < 20_000, "no overrun after {round} changes");
            up.alias = Some(format!("volnet:{round}"));
            links::set(&mut socket, "vbr1", &up).unwrap();
            if round % 4000 == 3999 && monitor.drain().lost {
                break;
            }
        }
        assert_eq!(monitor.drain(), News::default());
    });
}

#[test]
fn a_bridge_keeps_its_mtu_when_a_port_has_a_smaller_one() {
    in_namespace(|| {
        let mut socket = socket();
        links::create_bridge(&mut socket, "vbr0", MAC, 1500, "volnet:").unwrap();
        tap::create(&mut socket, &TAP).unwrap();
        links::set(&mut socket, "vttap-web", &attached()).unwrap();
        assert_eq!(ip_link("vttap-web")["mtu"], 1400);
        assert_eq!(ip_link("vbr0")["mtu"], 1500);
    });
}

/// What the kernel can do is asked by requests that change nothing and of which nobody hears. Which
/// it is depends on the kernel; that it is answered does not.
#[test]
fn a_kernel_is_asked_for_features_without_a_trace() {
    in_namespace(|| {
        let mut monitor = Monitor::open(0).unwrap();
        let mut linux = Linux::new(0).unwrap();
        let features = linux.features().unwrap();
        println!("missing: {:?}", features.missing());
        assert_eq!(linux.features().unwrap(), features);
        assert_eq!(run("nft list ruleset").trim(), "");
        assert_eq!(monitor.drain(), News::default());
        run("nft add table bridge t");
        let (made, words) =
            try_run("nft add chain bridge t c { type filter hook input priority 0 ; }");
        assert_eq!(features.bridge_rules, made, "{words}");
        let (made, words) = try_run("tc qdisc add dev lo root tbf rate 1mbit burst 4k latency 1ms");
        assert_eq!(features.token_buckets, made, "{words}");
    });
}
