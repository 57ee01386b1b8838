//! A packet socket on a bridge: the frames of guests that it receives, and the way of its answers.

#![cfg(target_os = "linux")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::guest::Guest;
use common::{in_namespace, run};
use volnet::dhcp6;
use volnet::model::mac::Mac;
use volnet::ndp;
use volnet::network::linux::packets::{FRAME_MAX, Packets, Questions};
use volnet::packet::v4::{Datagram, Endpoints, build};

const BRIDGE: Mac = Mac([2, 0, 0, 0, 0, 9]);
const EVERYBODY: Mac = Mac([0xff; 6]);
/// Offsets in a frame: EtherType, length of the IP header, fragment, protocol.
const ETHERTYPE: usize = 12;
const LENGTH: usize = 14;
const FRAGMENT: usize = 20;
const PROTOCOL: usize = 23;

fn bridge() {
    run("ip link add vbr0 address 02:00:00:00:00:09 type bridge");
    run("ip link set vbr0 up");
    // It would take for itself what is no sound packet, before anybody hears of it.
    let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
}

fn guest(name: &str, last: u8) -> Guest {
    run(&format!("ip tuntap add dev {name} mode tap vnet_hdr"));
    run(&format!("ip link set {name} master vbr0 up"));
    Guest::on(name, Mac([2, 0, 0, 0, 0, last]))
}

fn frame(from: Mac, to: Mac, port: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    build(&Datagram {
        addresses: Endpoints { from, to, source, destination },
        source_port: 68,
        destination_port: port,
        payload,
    })
}

/// The frames that have come. What a guest writes is with the host when the write returns, so
/// nothing has to be waited for.
fn received(packets: &mut Packets) -> Vec<Vec<u8>> {
    let mut buffer = [0; FRAME_MAX];
    let mut next = || packets.receive(&mut buffer).unwrap().map(<[u8]>::to_vec);
    std::iter::from_fn(&mut next).collect()
}

#[test]
fn nothing_is_let_through_but_whole_datagrams_for_a_dhcp_server() {
    in_namespace(|| {
        bridge();
        let guest = guest("vttap-web", 1);
        let mut packets = Packets::open("vbr0", Questions::Dhcp).unwrap();
        let changed = |at: usize, bytes: &[u8]| {
            let mut frame = frame(guest.mac, EVERYBODY, 67, b"changed");
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let good = [
            frame(guest.mac, EVERYBODY, 67, b"to everybody"),
            frame(guest.mac, BRIDGE, 67, b"to the bridge"),
            // An IP header of six words puts the port four bytes further.
            {
                let mut long = changed(LENGTH, &[0x46]);
                long.splice(34..34, [1, 1, 1, 1]);
                long
            },
        ];
        let tagged = {
            let mut tagged = frame(guest.mac, EVERYBODY, 67, b"tagged");
            tagged.splice(12..12, [0x81, 0, 0, 7]);
            tagged
        };
        let bad = [
            frame(guest.mac, EVERYBODY, 68, b"to a client"),
            frame(guest.mac, Mac([2, 0, 0, 0, 0, 3]), 67, b"to somebody else"),
            changed(ETHERTYPE, &[0x86, 0xdd]),
            changed(FRAGMENT, &[0x20, 0]),
            changed(FRAGMENT, &[0, 9]),
            changed(PROTOCOL, &[6]),
            tagged,
        ];
        for (good, bad) in good.iter().cycle().zip(&bad) {
            guest.send(bad);
            guest.send(good);
            assert_eq!(received(&mut packets), std::slice::from_ref(good), "{bad:x?}");
        }
        // What is too long for a message is cut.
        run("ip link set vttap-web mtu 9000");
        guest.send(&frame(guest.mac, EVERYBODY, 67, &[7; 3000]));
        assert_eq!(received(&mut packets).iter().map(Vec::len).collect::<Vec<_>>(), [FRAME_MAX]);
    });
}

#[test]
fn of_ipv6_only_questions_for_a_router_and_dhcp_and_claims_are_let_through() {
    in_namespace(|| {
        bridge();
        let guest = guest("vttap-web", 1);
        let mut packets = Packets::open("vbr0", Questions::Ipv6).unwrap();
        let own = guest.mac.link_local();
        let router = || ndp::fuzz::ask(guest.mac, own, &[0; 4]);
        let server = || dhcp6::fuzz::ask(guest.mac, b"solicit");
        let claim = || ndp::fuzz::claim(guest.mac, Ipv6Addr::UNSPECIFIED, own);
        let changed = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let to_bridge = changed(router(), 0, &BRIDGE.0);
        let tagged = {
            let mut tagged = router();
            tagged.splice(12..12, [0x81, 0, 0, 7]);
            tagged
        };
        let bad = [
            // The types of advertisements, a question to one neighbour, and another port.
            changed(router(), 54, &[134]),
            changed(claim(), 54, &[136]),
            changed(claim(), 0, &BRIDGE.0),
            changed(server(), 56, &[2, 34]),
            // TCP, and options before the message.
            changed(server(), 20, &[6]),
            changed(router(), 20, &[0]),
            changed(router(), 0, &[2, 0, 0, 0, 0, 3]),
            tagged,
        ];
        let good = [router(), server(), to_bridge, claim()];
        for (good, bad) in good.iter().cycle().zip(&bad) {
            guest.send(bad);
            guest.send(good);
            let heard = received(&mut packets);
            let heard: Vec<_> = heard.iter().filter(|it| it[6..12] == guest.mac.0).collect();
            assert_eq!(heard, [good], "{bad:x?}");
        }
    });
}

#[test]
fn a_bridge_that_goes_down_is_told_once_and_heard_again_when_it_is_up() {
    in_namespace(|| {
        bridge();
        let guest = guest("vttap-web", 1);
        let mut packets = Packets::open("vbr0", Questions::Dhcp).unwrap();
        let errno = |packets: &mut Packets| {
            packets.receive(&mut [0; FRAME_MAX]).unwrap_err().raw_os_error()
        };
        run("ip link set vbr0 down");
        assert_eq!(errno(&mut packets), Some(libc::ENETDOWN));
        assert!(received(&mut packets).is_empty());
        run("ip link set vbr0 up");
        common::eventually("the guest is heard", || {
            guest.send(&frame(guest.mac, EVERYBODY, 67, b"again"));
            !received(&mut packets).is_empty()
        });
        run("ip link del vbr0");
        assert_eq!(errno(&mut packets), Some(libc::ENETDOWN));
        let gone = Packets::open("vbr0", Questions::Dhcp).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    });
}

#[test]
fn an_answer_goes_out_of_one_tap_alone() {
    in_namespace(|| {
        bridge();
        let (one, other) = (guest("vttap-one", 1), guest("vttap-other", 2));
        let packets = Packets::open("vbr0", Questions::Dhcp).unwrap();
        let index = |name: &str| {
            let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
            index.trim().parse::<u32>().unwrap()
        };
        let answer = |text: &[u8]| frame(BRIDGE, EVERYBODY, 68, text);
        let heard = |guest: &Guest| loop {
            let frame = guest.try_receive().expect("it is there when the send returns");
            // The kernel has words of its own for a new link.
            if frame.starts_with(&EVERYBODY.0) {
                return frame;
            }
        };
        packets.send(index("vttap-one"), &answer(b"for one")).unwrap();
        packets.send(index("vttap-other"), &answer(b"for the other")).unwrap();
        assert_eq!(heard(&one), answer(b"for one"));
        assert_eq!(heard(&other), answer(b"for the other"));
        let gone = packets.send(index("vttap-one") + 1000, &answer(b"for nobody"));
        assert_eq!(gone.unwrap_err().raw_os_error(), Some(libc::ENXIO));
    });
}
