//! IPv6 addresses that guests make for themselves, on the real kernel. Guests are namespaces behind
//! their taps, and guests that the test plays frame by frame.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::guest::Guest as Player;
use common::space::{Guest, Space};
use common::{eventually, in_namespace, json as tool, run, try_run};
use volnet::model::mac::Mac;
use volnet::model::nic::CLAIMED_MAX;
use volnet::ndp;

/// Linux makes identifiers at random, and one that changes besides (Documentation/networking/
/// ip-sysctl.rst, `addr_gen_mode` and `use_tempaddr`).
const PRIVACY: [&str; 2] = ["addr_gen_mode=3", "use_tempaddr=2"];
/// How many addresses that makes: a link-local one, one that stays, and a temporary one.
const MADE: usize = 3;
/// The world's address, which knows no way to the guests.
const WORLD: &str = "2001:db8:77::2";
/// Claims of a guest in a flood.
const FLOOD: usize = 300;

fn start() -> Daemon {
    Daemon::configured(&json!({ "networks": [
        { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24", "ipv6": true },
    ] }))
}

fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

fn gateway(daemon: &Daemon) -> String {
    text(&daemon.call("Networks", json!({}))["parameters"]["networks"][0], "host_ip6").into()
}

/// What `get` says that the guest of a VM has made.
fn claimed(daemon: &Daemon, name: &str) -> Vec<String> {
    let vm = daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take();
    assert_eq!(vm["claimed"], vm["nics"][0]["claimed"], "{vm}");
    let all = vm["claimed"].as_array().unwrap_or_else(|| panic!("{vm}"));
    all.iter().map(|one| one.as_str().expect("an address").into()).collect()
}

/// The guest of a VM. Its kernel makes addresses that do not show its Ethernet address.
fn private(vm: &Value) -> Guest {
    let guest = Guest::of(vm);
    guest.space.run("ip link set eth0 down");
    for setting in PRIVACY {
        guest.space.run(&format!("sysctl -qw net.ipv6.conf.eth0.{setting}"));
    }
    guest.space.run("ip link set eth0 up");
    guest
}

/// The IPv6 addresses that the kernel of a guest has, and uses.
fn used(guest: &Guest) -> BTreeSet<String> {
    let lines = guest.space.run("ip -6 -o addr show dev eth0");
    let usable = lines.lines().filter(|line| !line.contains("tentative"));
    let words = usable.filter_map(|line| line.split_whitespace().nth(3));
    words.map(|word| word.split('/').next().expect("an address").to_owned()).collect()
}

/// Waits for the addresses that a guest makes, which are those that volnet knows.
fn made(daemon: &Daemon, name: &str, guest: &Guest) -> Vec<String> {
    eventually("the guest has made its addresses, and volnet knows", || {
        let (used, known) = (used(guest), claimed(daemon, name));
        used.len() == MADE && used == known.into_iter().collect()
    });
    claimed(daemon, name)
}

/// Whether this address answers the guest when it asks from this one.
fn answers(guest: &Guest, from: &str, to: &str) -> bool {
    let on_link = |address: &str| match address.starts_with("fe80") {
        true => format!("{address}%eth0"),
        false => address.to_owned(),
    };
    let mut ping = guest.space.command("ping");
    ping.args(["-6", "-q", "-c", "1", "-W", "1", "-I", &on_link(from), &on_link(to)]);
    ping.output().expect("ping runs").status.success()
}

/// The addresses of a tap in the sets of the rules.
fn in_sets(tap: &str) -> usize {
    let set = tool("nft -j list set bridge volnet guests6");
    let elements = set["nftables"][1]["set"]["elem"].as_array().cloned().unwrap_or_default();
    elements.iter().filter(|element| element["concat"][0] == tap).count()
}

#[test]
fn a_guest_with_private_addresses_is_heard_by_all_of_them_for_as_long_as_its_vm_exists() {
    in_namespace(|| {
        let mut daemon = start();
        let gateway = gateway(&daemon);
        let [one, two] = ["one", "two"].map(|name| create(&daemon, name, json!({})));
        let (guest, other) = (private(&one), private(&two));
        let own = made(&daemon, "one", &guest);
        made(&daemon, "two", &other);
        assert!(own.iter().all(|ip| Mac::of_interface(ip.parse().unwrap()).is_none()), "{own:?}");

        let global = |of: &[String]| -> Vec<String> {
            of.iter().filter(|ip| !ip.starts_with("fe80")).cloned().collect()
        };
        let theirs = claimed(&daemon, "two");
        let all_answer = |when: &str| {
            for from in &global(&own) {
                for to in global(&theirs).iter().chain([&gateway]) {
                    eventually(&format!("{to} answers {from} {when}"), || {
                        answers(&guest, from, to)
                    });
                }
            }
            let link_local = own.iter().find(|ip| ip.starts_with("fe80")).expect("one");
            let to = theirs.iter().find(|ip| ip.starts_with("fe80")).expect("one");
            eventually(&format!("by link-local addresses {when}"), || {
                answers(&guest, link_local, to)
            });
        };
        all_answer("at first");
        daemon.crash();
        all_answer("while no daemon runs");
        // Whatever others take away meanwhile comes back.
        run("nft flush set bridge volnet guests6");
        daemon.start_again();
        all_answer("with the next daemon");
        assert_eq!(
            (claimed(&daemon, "one"), claimed(&daemon, "two")),
            (own.clone(), theirs.clone())
        );

        let tap = text(&one, "tap");
        assert_eq!(in_sets(tap), 2 + MADE);
        daemon.call("Delete", json!({ "name": "one" }));
        eventually("nothing of it is left", || {
            let rules = run("nft list ruleset");
            !own.iter().any(|ip| rules.contains(ip)) && in_sets(tap) == 0
        });
        drop(guest);
        // What is free again is another's who claims it.
        let three = create(&daemon, "three", json!({}));
        let player = Player::of(&three);
        for address in &own {
            let address = address.parse().unwrap();
            player.send(&ndp::fuzz::claim(player.mac, Ipv6Addr::UNSPECIFIED, address));
        }
        eventually("the third VM has them", || claimed(&daemon, "three") == own);
    });
}

#[test]
fn a_guest_that_asks_in_vain_because_no_daemon_runs_is_heard_by_the_next() {
    in_namespace(|| {
        let mut daemon = start();
        let gateway = gateway(&daemon);
        let vm = create(&daemon, "web", json!({}));
        let guest = Guest::of(&vm);
        eventually("the guest knows its router", || {
            guest.space.run("ip -6 route show default").contains("proto ra")
        });
        let prefix = text(&vm, "ip6").parse::<Ipv6Addr>().unwrap().to_bits() >> 64 << 64;
        let own = Ipv6Addr::from_bits(prefix | 0x1234_5678_9abc_def0).to_string();
        daemon.crash();
        guest.space.run(&format!("ip addr add {own}/64 dev eth0"));
        eventually("the guest uses it", || used(&guest).contains(&own));
        assert!(!answers(&guest, &own, &gateway));
        daemon.start_again();
        guest.space.run("ip -6 neigh flush dev eth0");
        eventually("it is heard", || answers(&guest, &own, &gateway));
        assert_eq!(claimed(&daemon, "web"), [own]);
    });
}

#[test]
fn a_guest_that_cannot_have_an_address_is_told_so() {
    in_namespace(|| {
        let daemon = start();
        let [one, two] = ["one", "two"].map(|name| create(&daemon, name, json!({})));
        let (owner, guest) = (private(&one), Guest::of(&two));
        let own = made(&daemon, "one", &owner);
        let prefix = text(&one, "ip6").parse::<Ipv6Addr>().unwrap().to_bits() >> 64 << 64;
        let of_prefix = |id: u64| Ipv6Addr::from_bits(prefix | u128::from(id)).to_string();
        let absent = Mac([0x52, 0x54, 0, 1, 2, 3]).interface_id();
        let mut refused = own.clone();
        // The first VM's own; the host's; as people choose them; of an Ethernet address; reserved.
        refused.push(text(&one, "ip6").into());
        refused.push(gateway(&daemon));
        refused.extend([0x17, absent, 0xfdff_ffff_ffff_ff80].map(of_prefix));
        refused.push("fe80::17".into());
        for address in &refused {
            guest.space.run(&format!("ip addr add {address}/64 dev eth0"));
            eventually(&format!("a neighbour has {address}"), || {
                let shown = guest.space.run("ip -6 -o addr show dev eth0 dadfailed");
                shown.contains(&format!(" {address}/64 "))
            });
            guest.space.run(&format!("ip addr del {address}/64 dev eth0"));
        }
        assert_eq!(claimed(&daemon, "two"), [""; 0]);
        // Whoever does not ask uses them in vain, and takes them from nobody.
        let taken = own.iter().find(|ip| !ip.starts_with("fe80")).unwrap();
        guest.space.run(&format!("ip addr add {taken}/64 dev eth0 nodad"));
        assert!(!answers(&guest, taken, &gateway(&daemon)));
        eventually("its owner is heard", || answers(&owner, taken, &gateway(&daemon)));
        assert_eq!((claimed(&daemon, "one"), claimed(&daemon, "two")), (own, vec![]));
    });
}

#[test]
fn hundreds_of_claims_are_bounded_and_heard_by_no_guest() {
    in_namespace(|| {
        let mut daemon = start();
        let [one, two] = ["one", "two"].map(|name| create(&daemon, name, json!({})));
        let (hostile, other) = (Player::of(&one), Player::of(&two));
        let prefix = text(&one, "ip6").parse::<Ipv6Addr>().unwrap().to_bits() >> 64 << 64;
        let address = |number: usize| Ipv6Addr::from_bits(prefix | (number as u128) << 40 | 1);
        let flood = |guest: &Player, from: usize| {
            for number in from..from + FLOOD {
                let claim = ndp::fuzz::claim(guest.mac, Ipv6Addr::UNSPECIFIED, address(number));
                guest.send(&claim);
            }
        };
        let heard = |guest: &Player| {
            let frames = std::iter::from_fn(|| guest.try_receive());
            frames.filter(|frame| frame[12..14] == [0x86, 0xdd] && frame[54] == 135).count()
        };
        flood(&hostile, 1);
        // Another guest is heard all the same.
        let own = address(1000);
        other.send(&ndp::fuzz::claim(other.mac, Ipv6Addr::UNSPECIFIED, own));
        eventually("the other guest is heard", || claimed(&daemon, "two") == [own.to_string()]);
        let first = claimed(&daemon, "one");
        assert!((1..=CLAIMED_MAX).contains(&first.len()), "{first:?}");
        assert_eq!(in_sets(text(&one, "tap")), 2 + first.len());
        assert_eq!(heard(&other), 0);
        // Whatever it claims, the first three stay.
        daemon.crash();
        flood(&hostile, 2000);
        daemon.start_again();
        assert_eq!(claimed(&daemon, "one"), first);
        assert_eq!(heard(&other), 0);
    });
}

#[test]
fn a_policy_holds_for_addresses_that_a_guest_made_and_counters_count_them() {
    in_namespace(|| {
        let daemon = start();
        let world = Space::world();
        world.run(&format!("ip addr add {WORLD}/64 dev eth0 nodad"));
        run("ip addr add 2001:db8:77::1/64 dev uplink nodad");
        let vm = create(&daemon, "web", json!({ "policy": "none" }));
        let guest = private(&vm);
        let own = made(&daemon, "web", &guest);
        let global = own.iter().find(|ip| !ip.starts_with("fe80")).expect("one");
        assert!(answers(&guest, global, &gateway(&daemon)) && !answers(&guest, global, WORLD));
        daemon.call("SetPolicy", json!({ "name": "web", "policy": "open" }));
        eventually("the world answers", || answers(&guest, global, WORLD));
        let metrics = daemon.call("Metrics", json!({}))["parameters"]["text"].take();
        for verdict in ["allowed", "denied"] {
            let name = format!("volnet_sent_packets_total{{vm=\"web\",verdict=\"{verdict}\"}} ");
            let lines = metrics.as_str().expect("a text").lines();
            let count: Vec<&str> = lines.filter_map(|line| line.strip_prefix(&name)).collect();
            assert!(count.len() == 1 && count[0] != "0", "{verdict}: {metrics}");
        }
    });
}

#[test]
fn the_host_knows_the_mtu_of_addresses_that_a_guest_made() {
    in_namespace(|| {
        let daemon = start();
        let vm = create(&daemon, "web", json!({ "mtu": 1400 }));
        let guest = private(&vm);
        let own = made(&daemon, "web", &guest);
        for address in &own {
            let route = try_run(&format!("ip -6 route show {address}")).1;
            assert_eq!(route.contains("mtu 1400"), !address.starts_with("fe80"), "{route}");
        }
        daemon.call("Delete", json!({ "name": "web" }));
        eventually("no route is left", || !run("ip -6 route").contains("mtu 1400"));
    });
}
