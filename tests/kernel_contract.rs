//! The facts about the kernel that volnet relies on, each with a test. A kernel that differs shows
//! here first.

#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::net::UdpSocket;
use std::time::Duration;

use common::{in_namespace, ip_link, json, link_exists, run, try_run};
use neli::consts::rtnl::Rtm;
use volnet::netlink::attr::Attrs;
use volnet::netlink::conntrack::{self, End, Flows};
use volnet::netlink::message::{ACK, CREATE, EXCL, Messages, REQUEST};
use volnet::netlink::rtnl::link::{self, LinkChange, PortChange, Target};
use volnet::netlink::rtnl::neighbour;
use volnet::netlink::rtnl::qdisc::{self, Bucket, OURS};
use volnet::netlink::writer::Writer;
use volnet::network::Network;
use volnet::network::linux::Linux;
use volnet::network::linux::links;
use volnet::network::linux::socket::{ACKS_MAX, Error, NetlinkFamily, Socket};
use volnet_ffi::tun::{EXCLUSIVE, MULTI_QUEUE, NO_PI, TAP, Tun, VNET_HDR, open};

// IFLA_* and IFLA_INFO_KIND (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;

/// Bytes of a bridge's MAC, chosen by us.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// `BR_PORT_BITS` is 10 (net/bridge/br_private.h), and port 0 is none.
const PORTS_MAX: u32 = 1023;
/// What the bridge answers when it has no port number left.
const EXFULL: i32 = 54;

fn tap(name: &str, flags: i32) -> std::io::Result<Tun> {
    Tun::attach(open().unwrap(), name, TAP | NO_PI | flags)
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn persistent(name: &str, flags: i32) {
    tap(name, flags).unwrap().set_persistent(true).unwrap();
}

fn bridge(socket: &mut Socket, name: &str) -> u32 {
    let made = socket.request(1, |writer, sequence| {
        link::new_bridge(writer, sequence.take(), name, MAC, None);
    });
    made.unwrap();
    links::index_of(socket, name).unwrap()
}

fn attach(socket: &mut Socket, name: &str, master: u32) -> Result<(), Error> {
    let change = LinkChange { master: Some(master), up: Some(true), ..LinkChange::default() };
    socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Name(name), &change);
    })
}

/// netlink(7): a request is executed inside `send` and its answer waits when that returns. The
/// socket never waits, so any answer proves it.
#[test]
fn an_answer_waits_when_send_returns() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        for round in 0..100 {
            bridge(&mut socket, &format!("b{round}"));
        }
    });
}

/// Each message of a send is answered on its own; one that fails does not stop the others.
#[test]
fn a_message_that_fails_does_not_stop_the_next() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let result = socket.request(3, |writer, sequence| {
            link::new_bridge(writer, sequence.take(), "one", MAC, None);
            link::delete(writer, sequence.take(), Target::Name("none"));
            link::new_bridge(writer, sequence.take(), "two", MAC, None);
        });
        let Err(Error::Refused { index: 1, errno: libc::ENODEV, .. }) = result else {
            panic!("{result:?}")
        };
        assert!(link_exists("one") && link_exists("two"));
    });
}

/// The request that makes a link takes a group (net/core/rtnetlink.c, `rtnl_create_link`), but no
/// alias: so the group is what marks a bridge until it has its alias.
#[test]
fn a_link_is_made_with_a_group_and_without_an_alias() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let made = socket.request(1, |writer, sequence| {
            let message =
                writer.message(Rtm::Newlink.into(), REQUEST | CREATE | EXCL | ACK, sequence.take());
            writer.raw(&[0; 16]);
            writer.attr_text(IFLA_IFNAME, "vbr0");
            writer.attr(IFLA_IFALIAS, b"volnet:");
            writer.attr_u32(IFLA_GROUP, 77);
            let info = writer.nest(IFLA_LINKINFO);
            writer.attr_text(IFLA_INFO_KIND, "bridge");
            writer.close(info);
            writer.close_message(message);
        });
        made.unwrap();
        let shown = ip_link("vbr0");
        assert_eq!((&shown["group"], shown.get("ifalias")), (&"77".into(), None));
    });
}

/// An error comes with the kernel's own words (NETLINK_EXT_ACK), where it has any.
#[test]
fn errors_come_with_words() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        bridge(&mut socket, "vbr0");
        let below = LinkChange { mtu: Some(1), ..LinkChange::default() };
        let result = socket.request(1, |writer, sequence| {
            link::set(writer, sequence.take(), Target::Name("vbr0"), &below);
        });
        let Err(Error::Refused { errno: libc::EINVAL, words: Some(words), .. }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(words, "mtu less than device minimum");
    });
}

/// The receive queue holds the answers to the largest send, even if each is an error with words.
#[test]
fn the_answers_to_the_largest_send_fit_the_queue() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        bridge(&mut socket, "vbr0");
        let below = LinkChange { mtu: Some(1), ..LinkChange::default() };
        let change = |socket: &mut Socket, last: &LinkChange<'_>| {
            socket.request(ACKS_MAX, |writer, sequence| {
                for _ in 1..ACKS_MAX {
                    link::set(writer, sequence.take(), Target::Name("vbr0"), last);
                }
                link::set(writer, sequence.take(), Target::Name("vbr0"), &below);
            })
        };
        let result = change(&mut socket, &below);
        assert!(matches!(result, Err(Error::Refused { index: 0, .. })), "{result:?}");
        let fine = LinkChange { mtu: Some(1500), ..LinkChange::default() };
        let result = change(&mut socket, &fine);
        let Err(Error::Refused { index, .. }) = result else { panic!("{result:?}") };
        assert_eq!(index, ACKS_MAX - 1);
    });
}

/// Attaching and changing the port takes two messages, of one send if one likes. In one message
/// RTM_SETLINK ignores what is about the port without a word, and RTM_NEWLINK looks for the port
/// before it attaches: EOPNOTSUPP.
#[test]
fn attaching_and_changing_the_port_takes_two_messages() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let master = bridge(&mut socket, "vbr0");
        persistent("t0", VNET_HDR);
        let tap = ip_link("t0")["ifindex"].as_u64().unwrap() as u32;
        let isolated = || ip_link("t0")["linkinfo"]["info_slave_data"]["isolated"].clone();
        let one = attach_isolated(&mut socket, Rtm::Newlink, tap, master);
        assert_eq!(one.unwrap_err().errno(), Some(libc::EOPNOTSUPP));
        attach_isolated(&mut socket, Rtm::Setlink, tap, master).unwrap();
        assert_eq!(isolated(), false);
        run("ip link set t0 nomaster");

        let change = LinkChange { master: Some(master), ..LinkChange::default() };
        let port = PortChange { isolated: Some(true), ..PortChange::default() };
        let two = socket.request(2, |writer, sequence| {
            link::set(writer, sequence.take(), Target::Name("t0"), &change);
            link::set_port(writer, sequence.take(), Target::Name("t0"), &port);
        });
        two.unwrap();
        assert_eq!(isolated(), true);
    });
}

/// All in one message.
fn attach_isolated(socket: &mut Socket, kind: Rtm, tap: u32, master: u32) -> Result<(), Error> {
    // IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_ISOLATED
    // (linux/if_link.h).
    const MASTER: u16 = 10;
    const LINKINFO: u16 = 18;
    const SLAVE_KIND: u16 = 4;
    const SLAVE_DATA: u16 = 5;
    const ISOLATED: u16 = 33;
    socket.request(1, |writer, sequence| {
        let message = writer.message(kind.into(), REQUEST | ACK, sequence.take());
        writer.raw(&[0; 4]);
        writer.raw(&tap.to_ne_bytes());
        writer.raw(&[0; 8]);
        writer.attr_u32(MASTER, master);
        let info = writer.nest(LINKINFO);
        writer.attr_text(SLAVE_KIND, "bridge");
        let data = writer.nest(SLAVE_DATA);
        writer.attr_u8(ISOLATED, 1);
        writer.close(data);
        writer.close(info);
        writer.close_message(message);
    })
}

/// A change of master that fails has detached the port all the same.
#[test]
fn a_failed_change_of_master_detaches() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let master = bridge(&mut socket, "vbr0");
        persistent("t0", VNET_HDR);
        attach(&mut socket, "t0", master).unwrap();
        assert_eq!(ip_link("t0")["master"], "vbr0");
        let loopback = 1;
        attach(&mut socket, "t0", loopback).unwrap_err();
        assert!(ip_link("t0")["master"].is_null());
    });
}

/// Attaching to the bridge that a port is on changes nothing.
#[test]
fn attaching_again_is_no_change() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let master = bridge(&mut socket, "vbr0");
        persistent("t0", VNET_HDR);
        for _ in 0..2 {
            attach(&mut socket, "t0", master).unwrap();
            run("bridge link set dev t0 isolated on");
        }
        attach(&mut socket, "t0", master).unwrap();
        assert_eq!(ip_link("t0")["linkinfo"]["info_slave_data"]["isolated"], true);
    });
}

/// A bridge has the lowest MAC of its ports until it was given one.
#[test]
fn a_bridge_without_a_mac_of_its_own_takes_that_of_a_port() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        bridge(&mut socket, "set");
        run("ip link add unset type bridge");
        for (port, bridge, mac) in
            [("a", "set", "02:00:00:00:00:01"), ("b", "unset", "02:00:00:00:00:02")]
        {
            run(&format!("ip link add dev {port} type veth peer name {port}-peer"));
            run(&format!("ip link set dev {port} address {mac} master {bridge}"));
        }
        assert_eq!(ip_link("set")["address"], "02:00:00:00:00:09");
        assert_eq!(ip_link("unset")["address"], "02:00:00:00:00:02");
    });
}

/// A bridge has 1023 ports; the next is refused with EXFULL.
#[test]
fn a_full_bridge_says_exfull() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let master = bridge(&mut socket, "vbr0");
        let mut taps = Vec::new();
        for port in 0..=PORTS_MAX {
            let name = format!("t{port}");
            taps.push(tap(&name, VNET_HDR).unwrap());
            let result = attach(&mut socket, &name, master);
            if port < PORTS_MAX {
                result.unwrap();
            } else {
                assert_eq!(result.unwrap_err().errno(), Some(EXFULL));
            }
        }
        // All at once; by their descriptors each would make us wait.
        run("ip link set vbr0 down");
        for name in taps.iter().map(Tun::name) {
            let change = LinkChange { group: Some(7), ..LinkChange::default() };
            let group = socket.request(1, |writer, sequence| {
                link::set(writer, sequence.take(), Target::Name(name), &change);
            });
            group.unwrap();
        }
        let group = 7.try_into().unwrap();
        socket
            .request(1, |writer, sequence| {
                link::delete_group(writer, sequence.take(), group);
            })
            .unwrap();
        assert!(!link_exists("t0"));
    });
}

/// IFF_TUN_EXCL: one that exists is EBUSY, be it held or not; without it, it is opened.
#[test]
fn an_exclusive_tap_is_new_or_busy() {
    in_namespace(|| {
        persistent("t0", VNET_HDR | EXCLUSIVE);
        assert_eq!(errno(tap("t0", VNET_HDR | EXCLUSIVE)), Some(libc::EBUSY));
        let held = tap("t0", VNET_HDR).unwrap();
        assert_eq!(errno(tap("t0", VNET_HDR)), Some(libc::EBUSY));
        drop(held);
        tap("t0", VNET_HDR).unwrap();
    });
}

/// The kernel cuts a name to 15 bytes, and so hits another tap; "" and "%d" are templates.
#[test]
fn a_name_is_cut_and_filled_in() {
    in_namespace(|| {
        persistent("vttap-abcdefghi", VNET_HDR);
        let other = tap("vttap-abcdefghijk", VNET_HDR).unwrap();
        assert_eq!(other.name(), "vttap-abcdefghi");
        assert_eq!(tap("vm%d", VNET_HDR).unwrap().name(), "vm0");
        assert_eq!(tap("", VNET_HDR).unwrap().name(), "tap0");
    });
}

/// A persistent tap outlives its descriptors, another goes with the last.
#[test]
fn only_a_persistent_tap_stays() {
    in_namespace(|| {
        persistent("stays", VNET_HDR);
        drop(tap("goes", VNET_HDR).unwrap());
        assert!(link_exists("stays") && !link_exists("goes"));
    });
}

/// Opening a persistent tap without IFF_VNET_HDR succeeds and changes it.
#[test]
fn opening_without_vnet_hdr_takes_it_away() {
    in_namespace(|| {
        persistent("t0", VNET_HDR);
        let vnet_hdr = || ip_link("t0")["linkinfo"]["info_data"]["vnet_hdr"].clone();
        assert_eq!(vnet_hdr(), true);
        drop(tap("t0", 0).unwrap());
        assert_eq!(vnet_hdr(), false);
        let again = tap("t0", VNET_HDR).unwrap();
        assert_eq!(vnet_hdr(), true);
        assert_eq!(again.flags().unwrap() & VNET_HDR, VNET_HDR);
    });
}

/// Opening with another IFF_MULTI_QUEUE than the tap has is EINVAL.
#[test]
fn queues_must_match() {
    in_namespace(|| {
        persistent("one", VNET_HDR);
        persistent("many", VNET_HDR | MULTI_QUEUE);
        assert_eq!(errno(tap("one", VNET_HDR | MULTI_QUEUE)), Some(libc::EINVAL));
        assert_eq!(errno(tap("many", VNET_HDR)), Some(libc::EINVAL));
        let queues = [tap("many", VNET_HDR | MULTI_QUEUE), tap("many", VNET_HDR | MULTI_QUEUE)];
        assert!(queues.iter().all(Result::is_ok));
    });
}

/// A tap has a carrier from when somebody opens it until nobody has it open, also while it is down:
/// `IFLA_CARRIER` says so. Without a carrier its port is disabled.
#[test]
fn an_opener_is_the_carrier() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let master = bridge(&mut socket, "vbr0");
        run("ip link set vbr0 up");
        persistent("t0", VNET_HDR);
        attach(&mut socket, "t0", master).unwrap();
        let state = || ip_link("t0")["linkinfo"]["info_slave_data"]["state"].clone();
        // The kernel looks at carriers in a thread of its own.
        common::eventually("a port without a carrier", || state() == "disabled");
        let held = tap("t0", VNET_HDR).unwrap();
        common::eventually("a port that forwards", || state() == "forwarding");
        let mut has_carrier = || {
            let links = links::observe(&mut socket).unwrap();
            links.iter().any(|link| link.name == "t0" && link.carrier)
        };
        for change in ["down", "up"] {
            run(&format!("ip link set t0 {change}"));
            assert!(has_carrier(), "{change}");
        }
        drop(held);
        for change in ["down", "up"] {
            run(&format!("ip link set t0 {change}"));
            assert!(!has_carrier(), "{change}");
        }
    });
}

/// A tap in use can be deleted; its holder is told with EBADFD.
#[test]
fn deleting_a_tap_in_use_cuts_its_holder_off() {
    in_namespace(|| {
        let held = tap("t0", 0).unwrap();
        run("ip link set t0 up");
        run("ip link del t0");
        let mut file =
            std::fs::File::from(std::os::fd::AsFd::as_fd(&held).try_clone_to_owned().unwrap());
        assert_eq!(errno(file.write(&[0; 64])), Some(libc::EBADFD));
    });
}

/// A tap cannot be made over rtnetlink.
#[test]
fn no_tap_over_rtnetlink() {
    in_namespace(|| assert!(!try_run("ip link add t0 type tun").0));
}

/// The conntrack table of a namespace, as `conntrack` lists it.
fn tracked() -> usize {
    run("conntrack -L").lines().filter(|line| line.contains("src=")).count()
}

/// Linux 6.12 deletes connections by a filter. The acknowledgement comes once they are gone, and
/// only where it was asked for. An older kernel refuses it and deletes nothing, also not those that
/// the rest of the message would name.
#[test]
fn connections_are_deleted_by_a_filter() {
    in_namespace(|| {
        for guest in ["10.0.0.2", "10.0.0.3"] {
            run(&format!("conntrack -I -p udp -t 600 -s {guest} -d 10.0.1.1 --sport 5 --dport 6"));
        }
        let mut socket = Socket::open(NetlinkFamily::Netfilter).unwrap();
        let delete = |socket: &mut Socket, address: &str| {
            socket.request(1, |writer, sequence| {
                for end in End::BOTH {
                    let address = address.parse().unwrap();
                    conntrack::delete_all(writer, sequence.take(), Flows::At(end, address));
                }
                writer.add_flags(ACK);
            })
        };
        if !Linux::new(0).unwrap().features().unwrap().connection_filter {
            for address in ["10.0.0.2", "10.0.1.1"] {
                let refused = delete(&mut socket, address).unwrap_err();
                assert_eq!(refused.errno(), Some(libc::EINVAL));
            }
            assert_eq!(tracked(), 2);
            return;
        }
        delete(&mut socket, "10.0.0.4").unwrap();
        assert_eq!(tracked(), 2);
        delete(&mut socket, "10.0.0.2").unwrap();
        assert_eq!(tracked(), 1);
        // Both end there.
        delete(&mut socket, "10.0.1.1").unwrap();
        assert_eq!(tracked(), 0);
    });
}

/// An older kernel does not know the filter, and what is left of the message names one connection
/// in part: EINVAL, and nothing is deleted. So does a kernel without ctnetlink answer.
#[test]
fn what_older_kernels_make_of_a_filter_is_einval() {
    /// An attribute that no kernel knows, in the place of CTA_FILTER.
    const UNKNOWN: u16 = 0x3fff;
    /// A subsystem that none has.
    const NOBODY: u16 = 0x77 << 8;
    in_namespace(|| {
        run("conntrack -I -p udp -t 600 -s 10.0.0.2 -d 10.0.1.1 --sport 5 --dport 6");
        let mut socket = Socket::open(NetlinkFamily::Netfilter).unwrap();
        for end in End::BOTH {
            let mut known = Writer::new();
            conntrack::delete_all(&mut known, 0, Flows::At(end, [10, 0, 0, 2].into()));
            let known = Messages::new(known.finish().unwrap()).next().unwrap().unwrap();
            for (kind, filter) in [(known.kind, UNKNOWN), (NOBODY, 25)] {
                let refused = socket.request(1, |writer, sequence| {
                    let open = writer.message(kind, REQUEST | ACK, sequence.take());
                    writer.raw(&known.payload[..4]);
                    for attr in Attrs::new(&known.payload[4..]).map(Result::unwrap) {
                        let nest = writer.nest(if attr.kind == 25 { filter } else { attr.kind });
                        writer.raw(attr.value);
                        writer.close(nest);
                    }
                    writer.close_message(open);
                });
                assert_eq!(refused.unwrap_err().errno(), Some(libc::EINVAL));
            }
        }
        assert_eq!(tracked(), 1);
    });
}

/// A permanent neighbour is forgotten like any other; one that is not there is ENOENT, one behind
/// a link that is not there ENODEV.
#[test]
fn a_permanent_neighbour_can_be_forgotten() {
    in_namespace(|| {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let index = bridge(&mut socket, "vbr0");
        run("ip link set vbr0 up");
        run("ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 nud permanent dev vbr0");
        let mut forget = |index| {
            let gone = socket.request(1, |writer, sequence| {
                neighbour::delete(writer, sequence.take(), index, [10, 0, 0, 2].into());
            });
            gone.err().and_then(|error| error.errno())
        };
        assert_eq!(forget(index), None);
        assert_eq!(run("ip -4 neigh show dev vbr0"), "");
        assert_eq!(forget(index), Some(libc::ENOENT));
        assert_eq!(forget(index + 1), Some(libc::ENODEV));
    });
}

/// Two ends of UDP on the loopback, whose packets can be of 64 KiB.
fn datagrams() -> (UdpSocket, UdpSocket) {
    run("ip link set lo up");
    let [one, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    one.connect(other.local_addr().unwrap()).unwrap();
    other.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    (one, other)
}

/// net/netfilter/nft_limit.c, `nft_limit_init`: a rate of bytes lets a second's worth more come at
/// once than its burst.
#[test]
fn a_rate_of_bytes_holds_a_second_beside_its_burst() {
    in_namespace(|| {
        let (one, _other) = datagrams();
        run("nft add table ip t");
        run("nft add chain ip t c { type filter hook output priority 0 ; }");
        run("nft add rule ip t c limit rate over 1000000 bytes/second burst 65536 bytes drop");
        run("nft add rule ip t c counter");
        for _ in 0..2000 {
            let _ = one.send(&[0; 1000]);
        }
        let rules = json("nft -j list chain ip t c");
        let passed = rules["nftables"][3]["rule"]["expr"][0]["counter"]["bytes"].as_u64().unwrap();
        assert!((1_065_000..1_900_000).contains(&passed), "{passed}");
    });
}

/// net/sched/sch_tbf.c, `tbf_change`: what waits in a bucket stays as it is. A packet that is
/// larger than the burst has become is never sent, nor is what is behind it; another bucket in its
/// place drops both.
#[test]
fn a_bucket_that_shrinks_is_stuck_and_another_one_is_not() {
    in_namespace(|| {
        let (one, other) = datagrams();
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        let mut set = |handle, burst| {
            let bucket = Bucket { rate: 1_000_000, burst, queue: 1 << 20 };
            let set = |writer: &mut Writer, sequence: u32| {
                qdisc::set(writer, sequence, 1, handle, &bucket);
            };
            socket.request(1, |writer, sequence| set(writer, sequence.take())).unwrap();
        };
        let mut buffer = vec![0; 1 << 16];
        let mut receive = || other.recv(&mut buffer).ok();
        set(OURS[0], 128 << 10);
        for _ in 0..8 {
            one.send(&[0; 60_000]).unwrap();
        }
        set(OURS[0], 32 << 10);
        one.send(&[1]).unwrap();
        while receive().is_some_and(|length| length > 1) {}
        let waits = || json("tc -s -j qdisc show dev lo")[0]["backlog"].as_u64().unwrap();
        let stuck = waits();
        assert!(stuck > 60_000, "{stuck} bytes wait for ever");
        set(OURS[1], 32 << 10);
        assert_eq!(waits(), 0);
        one.send(&[2]).unwrap();
        assert_eq!(receive(), Some(1));
    });
}
