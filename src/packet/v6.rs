//! UDP and ICMPv6 in their frames: Ethernet and IPv6 (IEEE 802.3, RFC 8200, RFC 4443, RFC 768).
//!
//! The header of UDP or ICMPv6 stands right behind that of IPv6. A packet with extension headers is
//! not read: no guest needs them for what volnet answers.

use std::net::Ipv6Addr;

use super::{ETHER, Malformed, PROTOCOL_UDP, UDP, field, fold, mac, sum, word};
use crate::model::mac::Mac;

/// The ports that DHCPv6 servers and their clients listen on (RFC 8415, 7.2).
pub const SERVER_PORT: u16 = 547;
pub const CLIENT_PORT: u16 = 546;
/// All nodes of a link (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All its routers.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All its DHCPv6 servers and relays (RFC 8415, 7.1).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Types of ICMPv6 (RFC 4861, 4.1 to 4.4).
pub const ROUTER_SOLICITATION: u8 = 133;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The shortest MTU of IPv6 (RFC 8200, 5): no packet that is written is longer, in bytes.
pub const PACKET_MAX: usize = 1280;
/// The longest message of UDP or ICMPv6 with its header, in bytes.
pub const BODY_MAX: usize = PACKET_MAX - IP;

pub(super) const ETHERTYPE: u16 = 0x86dd;
const IP: usize = 40;
const PROTOCOL_ICMP6: u8 = 58;

/// The addresses of sender and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender on the wire.
    pub from: Mac,
    /// The receiver on the wire.
    pub to: Mac,
    /// The sender's address.
    pub source: Ipv6Addr,
    /// The receiver's address.
    pub destination: Ipv6Addr,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A message of ICMPv6 (RFC 4443, 2.1).
    Icmp {
        /// Its type and its code.
        kind: u8,
        code: u8,
        /// What follows its checksum.
        body: &'a [u8],
    },
    /// A UDP datagram.
    Udp { source_port: u16, destination_port: u16, payload: &'a [u8] },
}

/// A packet in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its sender and receiver.
    pub addresses: Endpoints,
    /// Through how many routers it may still go.
    pub hop_limit: u8,
    /// What it carries.
    pub content: Content<'a>,
}

/// Finds the packet in a frame.
pub fn parse(frame: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (ether, packet) = frame.split_at_checked(ETHER).ok_or(Malformed::Cut)?;
    if word(ether, 12)? != ETHERTYPE {
        return Err(Malformed::NotOurs);
    }
    let (header, rest) = packet.split_at_checked(IP).ok_or(Malformed::Cut)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::NotOurs);
    }
    let body = rest.get(..usize::from(word(header, 4)?)).ok_or(Malformed::Cut)?;
    let (source, destination) = (field(header, 8)?.into(), field(header, 24)?.into());
    let sums = |body: &[u8], protocol| pseudo(source, destination, protocol, body.len());
    let content = match header[6] {
        PROTOCOL_ICMP6 => {
            is_intact(sums(body, PROTOCOL_ICMP6), body, 2)?;
            Content::Icmp { kind: body[0], code: body[1], body: &body[4..] }
        }
        PROTOCOL_UDP => {
            let body = body.get(..usize::from(word(body, 4)?)).ok_or(Malformed::Cut)?;
            let payload = body.get(UDP..).ok_or(Malformed::Cut)?;
            is_intact(sums(body, PROTOCOL_UDP), body, 6)?;
            let (source_port, destination_port) = (word(body, 0)?, word(body, 2)?);
            Content::Udp { source_port, destination_port, payload }
        }
        _ => return Err(Malformed::NotOurs),
    };
    let addresses = Endpoints { from: mac(ether, 6)?, to: mac(ether, 0)?, source, destination };
    Ok(Packet { addresses, hop_limit: header[7], content })
}

/// Makes a frame around a packet, which is at most [`PACKET_MAX`] bytes long.
pub fn build(packet: &Packet<'_>) -> Vec<u8> {
    let Endpoints { from, to, source, destination } = packet.addresses;
    let (protocol, at, mut body) = match packet.content {
        Content::Icmp { kind, code, body } => {
            (PROTOCOL_ICMP6, 2, [&[kind, code, 0, 0], body].concat())
        }
        Content::Udp { source_port, destination_port, payload } => {
            let length = (UDP + payload.len()) as u16;
            let words = [source_port, destination_port, length, 0].map(u16::to_be_bytes);
            (PROTOCOL_UDP, 6, [words.as_flattened(), payload].concat())
        }
    };
    let checksum = !fold(pseudo(source, destination, protocol, body.len()) + sum(&body));
    // Zero means that a UDP datagram has no checksum, so a sum of zero is written as all ones.
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(ETHER + IP + body.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    // The version; no traffic class and flow label.
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([protocol, packet.hop_limit]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(body);
    frame
}

/// Checks that a message has a right checksum there, or an incomplete one. A guest's kernel leaves
/// the checksum of UDP to the network card, and a tap does not fill it in. An incomplete one is the
/// sum over the pseudo header (`CHECKSUM_PARTIAL`, linux/skbuff.h).
fn is_intact(around: u32, body: &[u8], at: usize) -> Result<(), Malformed> {
    let stands = word(body, at)?;
    match stands == fold(around) || fold(around + sum(body)) == u16::MAX {
        true => Ok(()),
        false => Err(Malformed::Checksum),
    }
}

/// The sum over the pseudo header (RFC 8200, 8.1).
fn pseudo(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: usize) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(protocol) + length as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn packet(content: Content<'_>) -> Packet<'_> {
        let addresses = Endpoints {
            from: GUEST,
            to: Mac([0x33, 0x33, 0, 1, 0, 2]),
            source: GUEST.link_local(),
            destination: ALL_SERVERS,
        };
        Packet { addresses, hop_limit: 1, content }
    }

    fn both(payload: &[u8]) -> [Packet<'_>; 2] {
        [
            packet(Content::Icmp { kind: ROUTER_SOLICITATION, code: 0, body: payload }),
            packet(Content::Udp { source_port: 546, destination_port: 547, payload }),
        ]
    }

    #[test]
    fn what_is_built_is_read_back() {
        for payload in [&b""[..], b"x", b"xy", &[0xff; BODY_MAX - UDP]] {
            for packet in both(payload) {
                let frame = build(&packet);
                assert!(frame.len() <= ETHER + PACKET_MAX && super::super::is_v6(&frame));
                assert_eq!(parse(&frame), Ok(packet));
                // Ethernet pads short frames. The padding is not part of the packet.
                assert_eq!(parse(&[&frame[..], &[0; 18]].concat()), Ok(packet));
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_an_error() {
        for packet in both(b"hello") {
            let frame = build(&packet);
            for length in 0..frame.len() {
                assert_eq!(parse(&frame[..length]), Err(Malformed::Cut), "{length}");
            }
        }
    }

    #[test]
    fn addresses_and_messages_are_under_a_checksum() {
        for packet in both(b"hello") {
            let frame = build(&packet);
            for at in ETHER + 8..frame.len() {
                for bit in 0..8 {
                    let mut changed = frame.clone();
                    changed[at] ^= 1 << bit;
                    assert!(parse(&changed).is_err(), "{at} {bit}");
                }
            }
        }
    }

    #[test]
    fn a_checksum_may_be_left_to_the_card_and_not_be_absent() {
        let [_, packet] = both(b"hello");
        let mut frame = build(&packet);
        let at = ETHER + IP + 6;
        let Endpoints { source, destination, .. } = packet.addresses;
        let partial = fold(pseudo(source, destination, PROTOCOL_UDP, UDP + 5));
        frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        assert_eq!(parse(&frame), Ok(packet));
        frame[at..at + 2].copy_from_slice(&[0, 0]);
        assert_eq!(parse(&frame), Err(Malformed::Checksum));
    }

    #[test]
    fn other_headers_and_protocols_are_not_ours() {
        let whole = build(&both(b"hello")[1]);
        // The EtherType, the version, and hop-by-hop options, a fragment, TCP behind the header.
        for (at, byte) in [(13, 0), (14, 0x40), (20, 0), (20, 44), (20, 6)] {
            let mut frame = whole.clone();
            frame[at] = byte;
            assert_eq!(parse(&frame), Err(Malformed::NotOurs), "{at}");
        }
    }
}
