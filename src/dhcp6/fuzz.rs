//! The other side of DHCPv6, for fuzzing and tests: clients.

use std::net::{IpAddr, Ipv6Addr};

use super::message::{Kind, Message, option};
use super::respond::{ASSOCIATIONS_MAX, server_id};
use super::{Dhcp6Query, respond};
use crate::dhcp::fuzz::Host;
use crate::model::lease::ADDRESS6_S;
use crate::model::mac::Mac;
use crate::model::net::Told;
use crate::model::spec::NetworkSpec;
use crate::ndp::fuzz::{SERVER, host};
use crate::packet::v6::{
    self, ALL_SERVERS, CLIENT_PORT, Content, Endpoints, PACKET_MAX, Packet, SERVER_PORT,
};

/// The frame of a guest with this message.
pub fn ask(mac: Mac, payload: &[u8]) -> Vec<u8> {
    v6::build(&Packet {
        addresses: Endpoints {
            from: mac,
            to: Mac([0x33, 0x33, 0, 1, 0, 2]),
            source: mac.link_local(),
            destination: ALL_SERVERS,
        },
        hop_limit: 1,
        content: Content::Udp { source_port: CLIENT_PORT, destination_port: SERVER_PORT, payload },
    })
}

/// Takes the frame of a guest and returns the frame that answers it.
pub(super) fn hear(host: &Host, frame: &[u8]) -> Option<Vec<u8>> {
    let query = Dhcp6Query::read(frame).ok()?;
    let guest = host.engine.guest("default", query.mac, None)?;
    let reply = respond(&guest, &query).ok()?;
    Some(reply.frame(&guest, &query, &[IpAddr::V6(SERVER)]))
}

/// The message in the frame of an answer.
pub fn message(frame: &[u8]) -> (Message<'_>, Endpoints) {
    let packet = v6::parse(frame).expect("a packet");
    let Content::Udp { source_port: SERVER_PORT, destination_port: CLIENT_PORT, payload } =
        packet.content
    else {
        panic!("{packet:?}")
    };
    (Message::read(payload).expect("a message"), packet.addresses)
}

/// Takes any bytes as a frame, and as messages of two guests: each has a byte for its guest and two
/// for its length. An answer must be a valid answer, and has no address but the guest's own. The
/// fuzzer and the test of its corpus call this.
pub fn conversation(bytes: &[u8]) {
    let mut host = host(Told { search: vec!["a".repeat(63); 3], ..Told::default() });
    let macs = ["a", "b"].map(|name| host.create(name, NetworkSpec::default()));
    check(&host, bytes);
    let mut rest = bytes;
    while let Some((&[who, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
        let (payload, behind) = behind.split_at(length);
        rest = behind;
        check(&host, &ask(macs[usize::from(who) % macs.len()], payload));
    }
}

fn check(host: &Host, frame: &[u8]) {
    let Some(answer) = hear(host, frame) else { return };
    assert!(answer.len() <= 14 + PACKET_MAX, "{} bytes", answer.len());
    let asked = Dhcp6Query::read(frame).expect("it was answered");
    let guest = host.engine.guest("default", asked.mac, None).expect("it was answered");
    let own = guest.nic.ip6.expect("the network has IPv6");
    let (message, addresses) = message(&answer);
    assert_eq!((addresses.to, addresses.destination), (guest.nic.mac, asked.source));
    assert_eq!((addresses.from, addresses.source), (guest.network.mac, bridge(host)));
    assert_eq!(message.xid, asked.message.xid);
    assert_eq!(message.option(option::CLIENT_ID), asked.client());
    assert_eq!(message.option(option::SERVER_ID), Some(&server_id(guest.network.mac)[..]));
    let asks = asked.message.kind == Kind::Solicit;
    let is_rapid = asked.message.option(option::RAPID_COMMIT).is_some();
    let kind = if asks && !is_rapid { Kind::Advertise } else { Kind::Reply };
    assert_eq!(message.kind, kind);
    assert!(message.associations().count() <= ASSOCIATIONS_MAX);
    let lent = message.associations().flat_map(|it| it.addresses());
    let lent: Vec<_> = lent.filter(|(_, seconds)| *seconds != [0, 0]).collect();
    assert!(lent.len() <= 1, "{lent:?}");
    assert!(lent.iter().all(|it| *it == (own, [ADDRESS6_S, ADDRESS6_S])), "{lent:?}");
}

/// The address of the guests' router.
fn bridge(host: &Host) -> Ipv6Addr {
    host.engine.configured().next().expect("a network").mac.link_local()
}
