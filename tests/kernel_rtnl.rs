//! The rtnetlink codec against the real kernel, and the assumptions of its requests.

#![cfg(target_os = "linux")]

mod common;

use std::net::IpAddr;

use common::{in_namespace, ip_link, json, run};
use neli::consts::rtnl::Rtm;
use volnet::netlink;
use volnet::netlink::message::{ACK, CREATE, Message, REQUEST};
use volnet::netlink::rtnl::AF_INET;
use volnet::netlink::rtnl::address::{self, AddressMessage};
use volnet::netlink::rtnl::link::{
    self, BridgePort, LinkChange, LinkMessage, PortChange, Target, TunKind,
};
use volnet::netlink::rtnl::neighbour::{self, NeighbourMessage};
use volnet::netlink::rtnl::route::{self, RouteMessage};
use volnet::network::linux::socket::{NetlinkFamily, Socket};

/// IFLA_IFNAME, IFLA_LINKINFO, IFLA_IFALIAS (linux/if_link.h).
const IFNAME: u16 = 3;
const LINKINFO: u16 = 18;
const IFALIAS: u16 = 20;

fn socket() -> Socket {
    Socket::open(NetlinkFamily::Route).unwrap()
}

fn set(socket: &mut Socket, name: &str, change: LinkChange<'_>) -> Option<i32> {
    let request = socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Name(name), &change);
    });
    request.err().map(|error| error.errno().unwrap())
}

#[test]
fn a_tap_is_attached_and_set_in_one_send() {
    in_namespace(|| {
        run("ip link add vbr0 type bridge");
        run("ip tuntap add dev vttap-a mode tap vnet_hdr user 1000");
        let bridge = ip_link("vbr0")["ifindex"].as_u64().unwrap() as u32;
        let mut socket = socket();
        let change = LinkChange {
            master: Some(bridge),
            up: Some(true),
            mtu: Some(1400),
            mac: Some([2, 0, 0, 0, 0, 7]),
            alias: Some("volnet:a"),
            no_ipv6: true,
            group: Some(77),
            name: None,
        };
        let port = PortChange {
            isolated: Some(true),
            hairpin: Some(true),
            guard: Some(true),
            learning: Some(false),
            group_forward: None,
        };
        let target = Target::Name("vttap-a");
        socket
            .request(2, |writer, sequence| {
                link::set(writer, sequence.take(), target, &change);
                link::set_port(writer, sequence.take(), target, &port);
            })
            .unwrap();

        let tap = ip_link("vttap-a");
        assert_eq!((&tap["master"], &tap["mtu"]), (&"vbr0".into(), &1400.into()));
        assert_eq!((&tap["ifalias"], &tap["group"]), (&"volnet:a".into(), &"77".into()));
        assert_eq!(tap["address"], "02:00:00:00:00:07");
        assert_eq!(tap["inet6_addr_gen_mode"], "none");
        let slave = &tap["linkinfo"]["info_slave_data"];
        assert_eq!((&slave["isolated"], &slave["hairpin"]), (&true.into(), &true.into()));
        assert_eq!((&slave["guard"], &slave["learning"]), (&true.into(), &false.into()));

        let read = |message: &Message<'_>| read_tap(message, bridge);
        socket.request_and(1, |w, s| link::get(w, s.take(), target), read).unwrap();
        let group = 77.try_into().unwrap();
        socket.request(1, |w, s| link::delete_group(w, s.take(), group)).unwrap();
        assert!(!common::link_exists("vttap-a") && common::link_exists("vbr0"));
    });
}

/// The tap of the test above, as we read it.
fn read_tap(message: &Message<'_>, bridge: u32) -> Result<(), netlink::Error> {
    let tap = LinkMessage::read(message.payload)?;
    assert_eq!((tap.name, tap.alias), (&b"vttap-a"[..], Some(&b"volnet:a"[..])));
    assert_eq!((tap.master, tap.mtu, tap.group), (Some(bridge), 1400, 77));
    assert_eq!((tap.mac, tap.is_up()), (Some([2, 0, 0, 0, 0, 7]), true));
    let port = BridgePort {
        state: 0,
        isolated: true,
        hairpin: true,
        guard: true,
        learning: false,
        group_forward: 0,
    };
    assert_eq!(tap.port, Some(port));
    let tun = tap.tun.unwrap();
    assert_eq!((tun.kind, tun.owner), (TunKind::Tap, Some(1000)));
    assert!(tun.vnet_hdr && tun.persistent && !tun.multi_queue);
    Ok(())
}

#[test]
fn a_link_is_detached_and_its_alias_taken_away() {
    in_namespace(|| {
        run("ip link add vbr0 type bridge");
        run("ip tuntap add dev vttap-a mode tap");
        run("ip link set dev vttap-a master vbr0 alias volnet:a up");
        let change = LinkChange {
            master: Some(0),
            up: Some(false),
            alias: Some(""),
            ..LinkChange::default()
        };
        assert_eq!(set(&mut socket(), "vttap-a", change), None);
        let tap = ip_link("vttap-a");
        assert!(tap["master"].is_null() && tap["ifalias"].is_null());
        assert!(!tap["flags"].as_array().unwrap().contains(&"UP".into()));
    });
}

#[test]
fn an_alias_for_a_link_not_yet_made_is_ignored() {
    in_namespace(|| {
        let request = socket().request(1, |writer, sequence| {
            let open = writer.message(Rtm::Newlink.into(), REQUEST | ACK | CREATE, sequence.take());
            writer.raw(&[0; 16]);
            writer.attr_text(IFNAME, "vbr0");
            writer.attr(IFALIAS, b"volnet:");
            let info = writer.nest(LINKINFO);
            writer.attr_text(1, "bridge");
            writer.close(info);
            writer.close_message(open);
        });
        request.unwrap();
        assert!(ip_link("vbr0")["ifalias"].is_null());
        let change = LinkChange { alias: Some("volnet:"), ..LinkChange::default() };
        assert_eq!(set(&mut socket(), "vbr0", change), None);
        assert_eq!(ip_link("vbr0")["ifalias"], "volnet:");
    });
}

#[test]
fn a_bridge_keeps_its_mtu_only_when_that_was_set_after_it_was_made() {
    in_namespace(|| {
        run("ip link add made mtu 1400 type bridge");
        run("ip link add changed type bridge");
        let change = LinkChange { mtu: Some(1400), ..LinkChange::default() };
        assert_eq!(set(&mut socket(), "changed", change), None);
        for (bridge, tap, mtu) in [("made", "tap0", 1300), ("changed", "tap1", 1400)] {
            run(&format!("ip tuntap add dev {tap} mode tap"));
            run(&format!("ip link set dev {tap} mtu 1300 master {bridge}"));
            assert_eq!(ip_link(bridge)["mtu"], mtu, "{bridge}");
        }
    });
}

#[test]
fn a_change_meant_for_a_link_that_is_gone_reaches_no_other() {
    in_namespace(|| {
        run("ip link add other group 77 type bridge");
        let change = LinkChange { mtu: Some(1300), group: Some(77), ..LinkChange::default() };
        assert_eq!(set(&mut socket(), "gone", change), Some(libc::ENODEV));
        assert_eq!(ip_link("other")["mtu"], 1500);
    });
}

#[test]
fn addresses_of_both_families_come_and_go() {
    in_namespace(|| {
        run("ip link add vbr0 type bridge");
        let index = ip_link("vbr0")["ifindex"].as_u64().unwrap() as u32;
        let mut socket = socket();
        let read = |message: &Message<'_>| read_kind(message, Rtm::Newaddr, AddressMessage::read);
        for (text, length, family) in [("192.168.127.1", 24, "-4"), ("fd00::1", 64, "-6")] {
            let address = AddressMessage { index, address: text.parse().unwrap(), length };
            socket.request(1, |w, s| address::add(w, s.take(), &address)).unwrap();
            let again = socket.request(1, |w, s| address::add(w, s.take(), &address)).unwrap_err();
            assert_eq!(again.errno(), Some(libc::EEXIST));
            let shown = &json(&format!("ip -j {family} address show dev vbr0"))[0]["addr_info"][0];
            assert_eq!((&shown["local"], &shown["prefixlen"]), (&text.into(), &length.into()));

            let seen = socket.dump(|w, n| address::dump(w, n, AF_INET), read).unwrap();
            assert_eq!(seen, if family == "-4" { vec![address] } else { vec![] });
            socket.request(1, |w, s| address::delete(w, s.take(), &address)).unwrap();
            let again = socket.request(1, |w, s| address::delete(w, s.take(), &address));
            assert_eq!(again.unwrap_err().errno(), Some(libc::EADDRNOTAVAIL));
            assert!(socket.dump(|w, n| address::dump(w, n, AF_INET), read).unwrap().is_empty());
        }
    });
}

#[test]
fn neighbours_are_listed_by_link_and_forgotten() {
    in_namespace(|| {
        for (bridge, address) in [("vbr0", "10.0.0.9"), ("vbr1", "10.0.1.9")] {
            run(&format!("ip link add {bridge} type bridge"));
            run(&format!("ip link set dev {bridge} up"));
            run(&format!("ip neigh add {address} lladdr 02:00:00:00:00:09 dev {bridge}"));
        }
        let index = ip_link("vbr1")["ifindex"].as_u64().unwrap() as u32;
        let mut socket = socket();
        let read =
            |message: &Message<'_>| read_kind(message, Rtm::Newneigh, NeighbourMessage::read);
        let mut found = socket.dump(|w, s| neighbour::dump(w, s, index), read).unwrap();
        // A link that comes up tells the groups that it is in, and those are neighbours for it.
        found.retain(|neighbour| !neighbour.address.is_multicast());
        let guest = IpAddr::from([10, 0, 1, 9]);
        let mac = Some([2, 0, 0, 0, 0, 9]);
        assert_eq!(found, [NeighbourMessage { index, address: guest, mac, state: 128 }]);
        socket.request(1, |w, s| neighbour::delete(w, s.take(), index, guest)).unwrap();
        let again = socket.request(1, |w, s| neighbour::delete(w, s.take(), index, guest));
        assert_eq!(again.unwrap_err().errno(), Some(libc::ENOENT));
        assert!(json("ip -j neigh show dev vbr1").as_array().unwrap().is_empty());

        run("ip neigh add fd00::9 lladdr 02:00:00:00:00:09 dev vbr1");
        let guest = "fd00::9".parse().unwrap();
        socket.request(1, |w, s| neighbour::delete(w, s.take(), index, guest)).unwrap();
        let again = socket.request(1, |w, s| neighbour::delete(w, s.take(), index, guest));
        assert_eq!(again.unwrap_err().errno(), Some(libc::ENOENT));
        assert!(json("ip -j neigh show dev vbr1").as_array().unwrap().is_empty());
    });
}

#[test]
fn routes_are_those_of_the_main_table() {
    in_namespace(|| {
        let mut socket = socket();
        let read = |message: &Message<'_>| read_kind(message, Rtm::Newroute, RouteMessage::read);
        let fresh = socket.dump(|w, n| route::dump(w, n, AF_INET), read).unwrap_err();
        assert_eq!(fresh.errno(), Some(libc::ENOENT), "a table that was never used");
        run("ip link add vbr0 type bridge");
        run("ip link set dev vbr0 up");
        run("ip address add 10.0.0.1/24 dev vbr0");
        run("ip route add 10.5.0.0/16 dev vbr0 table 100");
        let routes = socket.dump(|w, n| route::dump(w, n, AF_INET), read).unwrap();
        let index = ip_link("vbr0")["ifindex"].as_u64().unwrap() as u32;
        let destination = IpAddr::from([10, 0, 0, 0]);
        let link = Some(index);
        let table = route::TABLE_MAIN;
        // `RTPROT_KERNEL`.
        let (protocol, mtu) = (2, None);
        let own = RouteMessage { table, destination, length: 24, link, protocol, mtu };
        assert_eq!(routes, [own]);
    });
}

/// Reads a message of a dump that must be of this kind.
fn read_kind<T>(
    message: &Message<'_>,
    kind: Rtm,
    read: impl Fn(&[u8]) -> Result<T, netlink::Error>,
) -> Result<Option<T>, netlink::Error> {
    assert_eq!(Rtm::from(message.kind), kind);
    read(message.payload).map(Some)
}
