//! Frames of the test's own making: bytes, as they would be on a wire.

use std::net::Ipv4Addr;

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const ARP_REQUEST: u16 = 1;
pub(crate) const ARP_REPLY: u16 = 2;

const ICMP: u8 = 1;
/// The type of ICMP messages that redirect (RFC 792).
const REDIRECT: u8 = 5;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What tells one frame from all others, wherever it turns up.
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
    /// segment, one of the ports. None in a redirect: it quotes the packet that somebody had better
    /// send by another way.
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

/// The checksum of the Internet (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
