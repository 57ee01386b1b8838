//! Frames that the test makes, as bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const ARP_REQUEST: u16 = 1;
pub(crate) const ARP_REPLY: u16 = 2;

pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;
pub(crate) const DHCP_OFFER: u8 = 2;
pub(crate) const DHCP_DISCOVER: u8 = 1;
pub(crate) const DHCP_RELEASE: u8 = 7;
pub(crate) const IGMP: u8 = 2;

/// The fragment header of IPv6 (RFC 8200).
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const UDP: u8 = 17;

const ICMP: u8 = 1;
/// The type of ICMP messages that redirect (RFC 792).
const REDIRECT: u8 = 5;
const TCP: u8 = 6;

/// The tag of a frame, which identifies it wherever it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(pub(crate) u16);

/// The first port of those that tell TCP segments apart, which carry no text.
const TCP_PORT_FIRST: u16 = 20_000;
const TEXT: &[u8] = b"volnet attack ";

impl Tag {
    /// The text that a frame carries.
    pub(crate) fn text(self) -> Vec<u8> {
        [TEXT, &self.0.to_be_bytes()].concat()
    }

    /// The tag of bytes that carry one: the text somewhere in them or, in a frame with a TCP
    /// segment, one of the ports. In neighbour discovery it is a number. None in a redirect: it
    /// quotes the packet that somebody had better send by another way.
    pub(crate) fn of(bytes: &[u8]) -> Option<Tag> {
        let carried = bytes.windows(TEXT.len() + 2).find(|bytes| bytes.starts_with(TEXT));
        let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        if (number(12), bytes.get(23), bytes.get(34)) == (Some(IPV4), Some(&ICMP), Some(&REDIRECT))
        {
            return None;
        }
        if let Some(carried) = carried {
            return Some(Tag(u16::from_be_bytes([carried[TEXT.len()], carried[TEXT.len() + 1]])));
        }
        if number(12) == Some(IPV6) {
            // Reserved bytes of neighbour discovery, perhaps behind another header.
            let direct = bytes.get(20) == Some(&ICMP6);
            let of_discovery = |at: &usize| matches!(bytes.get(*at), Some(133 | 135 | 136));
            let at = Some(if direct { 54 } else { 62 }).filter(of_discovery)?;
            return number(at + 6).filter(|number| *number > 0).map(Tag);
        }
        if number(12) != Some(IPV4) || bytes.get(23) != Some(&TCP) {
            return None;
        }
        [34, 36]
            .into_iter()
            .filter_map(number)
            .find(|port| *port >= TCP_PORT_FIRST)
            .map(|port| Tag(port - TCP_PORT_FIRST))
    }
}

pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

pub(crate) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 20];
    // Version and length, time to live, protocol.
    (header[0], header[8], header[9]) = (0x45, 64, protocol);
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&header[..], payload].concat()
}

/// A datagram in its packet, without the checksum that IPv4 lets one leave out.
pub(crate) fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let header = [from.1, to.1, length, 0].map(u16::to_be_bytes).concat();
    ipv4(from.0, to.0, UDP, &[&header[..], payload].concat())
}

/// The first segment of a connection in its packet, from a port that tells it by its tag.
pub(crate) fn syn(from: Ipv4Addr, to: (Ipv4Addr, u16), tag: Tag) -> Vec<u8> {
    let mut segment = [0_u8; 20];
    segment[..2].copy_from_slice(&(TCP_PORT_FIRST + tag.0).to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    // Length of the header in words; SYN; window.
    (segment[12], segment[13], segment[14]) = (5 << 4, 2, 0x20);
    let pseudo = [&from.octets()[..], &to.0.octets(), &[0, TCP, 0, 20]].concat();
    let sum = checksum(&[&pseudo[..], &segment].concat());
    segment[16..18].copy_from_slice(&sum);
    ipv4(from, to.0, TCP, &segment)
}

/// A general query for the members of groups (RFC 2236), with something behind it.
pub(crate) fn igmp_query(tail: &[u8]) -> Vec<u8> {
    igmp(0x11, Ipv4Addr::UNSPECIFIED, tail)
}

/// The report of a member of a group (RFC 2236), with something behind it.
pub(crate) fn igmp_report(group: Ipv4Addr, tail: &[u8]) -> Vec<u8> {
    igmp(0x16, group, tail)
}

fn igmp(kind: u8, group: Ipv4Addr, tail: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 100, 0, 0], &group.octets()[..], tail].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// An echo request in its packet.
pub(crate) fn echo(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0, 0, 1, 0, 1], payload].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    ipv4(from, to, ICMP, &message)
}

/// An ARP packet (RFC 826), with something behind it that the tag fits in.
pub(crate) fn arp(kind: u16, sender: (Mac, Ipv4Addr), target: Ipv4Addr, tail: &[u8]) -> Vec<u8> {
    let fixed = [0, 1, 0x08, 0, 6, 4];
    let parts: [&[u8]; 7] = [
        &fixed,
        &kind.to_be_bytes(),
        &sender.0,
        &sender.1.octets(),
        &[0; 6],
        &target.octets(),
        tail,
    ];
    parts.concat()
}

/// A frame with a tag of a virtual network (IEEE 802.1Q) around it.
pub(crate) fn tagged(kind: u16, frame: &[u8]) -> Vec<u8> {
    let tag = [kind, 1].map(u16::to_be_bytes).concat();
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// A frame of IEEE 802.3, with a length in place of an EtherType and the header of LLC behind it.
pub(crate) fn llc(to: Mac, from: Mac, header: [u8; 3], payload: &[u8]) -> Vec<u8> {
    let body = [&header[..], payload].concat();
    ethernet(to, from, body.len() as u16, &body)
}

/// The first of two fragments of a packet, with so many bytes of payload; they go in eights.
pub(crate) fn first_fragment(packet: &[u8], length: usize) -> Vec<u8> {
    let mut packet = packet[..20 + length].to_vec();
    packet[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
    // More fragments follow.
    packet[6] = 0x20;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// A message of DHCP (RFC 2131): of a client if `client` is the address that asks, with what a
/// server gives it.
pub(crate) fn dhcp(kind: u8, client: Mac, yours: Ipv4Addr, tail: &[u8]) -> Vec<u8> {
    let mut message = [0_u8; 240];
    let reply = matches!(kind, DHCP_OFFER);
    // Operation, hardware type, length of its addresses.
    (message[0], message[1], message[2]) = (if reply { 2 } else { 1 }, 1, 6);
    message[16..20].copy_from_slice(&yours.octets());
    message[28..34].copy_from_slice(&client);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    [&message[..], &[53, 1, kind, 255], tail].concat()
}

pub(crate) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 40];
    // Version, next header, hop limit.
    (header[0], header[6], header[7]) = (0x60, protocol, 255);
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
    [&header[..], payload].concat()
}

/// A message of ICMPv6 in its packet.
pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0][..], body].concat();
    ipv6(from, to, ICMP6, &with_sum(from, to, ICMP6, message, 2))
}

/// A datagram in its packet.
pub(crate) fn udp6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let header = [from.1, to.1, 8 + payload.len() as u16, 0].map(u16::to_be_bytes).concat();
    let datagram = with_sum(from.0, to.0, UDP, [&header, payload].concat(), 6);
    ipv6(from.0, to.0, UDP, &datagram)
}

/// A fragment of a packet (RFC 8200, 4.5), which is not the last: what begins with this header, at
/// this place of the payload. Fragments go in eights.
pub(crate) fn fragment6(
    (from, to): (Ipv6Addr, Ipv6Addr),
    header: u8,
    at: u16,
    bytes: &[u8],
) -> Vec<u8> {
    assert!(at % 8 == 0 && bytes.len() % 8 == 0);
    let [high, low] = (at | 1).to_be_bytes();
    ipv6(from, to, FRAGMENT, &[&[header, 0, high, low, 0, 0, 0, 7], bytes].concat())
}

/// A payload of IPv6 with its checksum (RFC 8200, 8.1), which is at this place of it.
fn with_sum(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, protocol]].concat();
    let sum = checksum(&[&pseudo[..], &bytes].concat());
    bytes[at..at + 2].copy_from_slice(&sum);
    bytes
}

/// The checksum of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
