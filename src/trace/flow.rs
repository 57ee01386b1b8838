//! Which packet it is: protocol, addresses, ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::arp::Arp;

/// EtherTypes (linux/if_ether.h).
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Bytes of an Ethernet header and of an IPv6 header.
const ETHER: usize = 14;
const IP6: usize = 40;
/// Protocols that IP carries (IANA, protocol numbers).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A question for an Ethernet address.
    Arp,
    /// A protocol of IP.
    Ip(u8),
    /// Another EtherType.
    Other(u16),
}

/// A packet by its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// What it carries.
    pub what: What,
    /// Its sender and its receiver; for ARP who asks, and for whom.
    pub from: Option<IpAddr>,
    pub to: Option<IpAddr>,
    /// Its ports.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// Reads headers as they are told: Ethernet if there is one, network, transport.
    pub fn of_headers([ether, network, transport]: [&[u8]; 3]) -> Option<Flow> {
        let version = network.first()? >> 4;
        let ethertype = ether.get(12..14).map(|two| u16::from_be_bytes([two[0], two[1]]));
        match ethertype {
            Some(IPV4 | IPV6) | None => {}
            Some(ARP) => {
                let arp = Arp::read(&[ether, network].concat())?;
                let both = [arp.sender, arp.target].map(|ip| Some(IpAddr::V4(ip)));
                return Some(Flow { what: What::Arp, from: both[0], to: both[1], ports: None });
            }
            Some(other) => {
                let (from, to, ports) = (None, None, None);
                return Some(Flow { what: What::Other(other), from, to, ports });
            }
        }
        let (protocol, from, to) = match version {
            4 => {
                let ip = |at| Some(IpAddr::V4(<[u8; 4]>::into(four(network, at)?)));
                (*network.get(9)?, ip(12)?, ip(16)?)
            }
            6 => {
                let ip = |at: usize| {
                    let octets: [u8; 16] = network.get(at..at + 16)?.try_into().ok()?;
                    Some(IpAddr::V6(Ipv6Addr::from(octets)))
                };
                (*network.get(6)?, ip(8)?, ip(24)?)
            }
            _ => return None,
        };
        let port =
            |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
        let ports = match protocol {
            TCP | UDP | SCTP => port(0).zip(port(2)),
            _ => None,
        };
        Some(Flow { what: What::Ip(protocol), from: Some(from), to: Some(to), ports })
    }

    /// Reads a whole frame.
    pub fn of_frame(frame: &[u8]) -> Option<Flow> {
        let (ether, packet) = frame.split_at_checked(ETHER)?;
        Flow::of_headers([ether, packet, transport(packet).unwrap_or_default()])
    }

    /// Whether it is of the same kind: whatever the sender and its port.
    pub fn is_like(&self, other: &Flow) -> bool {
        let kind = |flow: &Flow| (flow.what, flow.to, flow.ports.map(|(_, to)| to));
        kind(self) == kind(other)
    }

    /// Whether it answers the other.
    pub fn answers(&self, other: &Flow) -> bool {
        (self.what, self.from, self.to) == (other.what, other.to, other.from)
            && self.ports.map(|(from, to)| (to, from)) == other.ports
    }
}

fn four(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..at + 4)?.try_into().ok()
}

/// What an IP packet carries, right behind its header.
fn transport(packet: &[u8]) -> Option<&[u8]> {
    match packet.first()? >> 4 {
        4 => packet.get(usize::from(packet[0] & 15) * 4..),
        6 => packet.get(IP6..),
        _ => None,
    }
}

/// What the error of a router or of a host says (RFC 792, RFC 4443), and the destination of the
/// packet that it is about.
pub fn error_of(frame: &[u8]) -> Option<(IpAddr, &'static str)> {
    let packet = frame.get(ETHER..)?;
    let message = transport(packet)?;
    let what = Flow::of_frame(frame)?.what;
    let words = match (what, *message.first()?, *message.get(1)?) {
        (What::Ip(ICMP), 3, 4) | (What::Ip(ICMP6), 2, _) => "the packet is too long for a link",
        (What::Ip(ICMP), 3, 3) | (What::Ip(ICMP6), 1, 4) => "nobody listens on the port",
        (What::Ip(ICMP), 3, 9 | 10 | 13) | (What::Ip(ICMP6), 1, 1) => "it is forbidden",
        (What::Ip(ICMP), 3, _) | (What::Ip(ICMP6), 1, _) => "there is no way to the destination",
        (What::Ip(ICMP), 11, _) | (What::Ip(ICMP6), 3, _) => "it went in a circle",
        _ => return None,
    };
    let inner = message.get(8..)?;
    let about = Flow::of_headers([&[], inner, &[]])?;
    Some((about.to?, words))
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Arp => f.write_str("arp")?,
            What::Ip(ICMP | ICMP6) => f.write_str("icmp")?,
            What::Ip(TCP) => f.write_str("tcp")?,
            What::Ip(UDP) => f.write_str("udp")?,
            What::Ip(SCTP) => f.write_str("sctp")?,
            What::Ip(other) => write!(f, "protocol {other}")?,
            What::Other(ethertype) => write!(f, "ethertype {ethertype:#06x}")?,
        }
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if let Some(from) = self.from.filter(|from| *from != unspecified) {
            write!(f, " from {from}")?;
        }
        let Some(to) = self.to else { return Ok(()) };
        match (self.what, self.ports) {
            (What::Arp, _) => write!(f, " for {to}"),
            (_, Some((_, port))) if to.is_ipv6() => write!(f, " to [{to}]:{port}"),
            (_, Some((_, port))) => write!(f, " to {to}:{port}"),
            (_, None) => write!(f, " to {to}"),
        }
    }
}
