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
/// More fragments, and the offset of this one.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// The types of what ping(8) sends (RFC 792, RFC 4443).
const ECHO: u8 = 8;
const ECHO6: u8 = 128;
/// Operations of ARP (RFC 826).
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
/// Protocols that IP carries (IANA, protocol numbers).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;
/// The byte of a header of TCP that has its flags, and the one that resets a connection (RFC 9293).
const TCP_FLAGS: usize = 13;
const RESET: u8 = 4;

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
    /// What a message of ICMP or ARP is: its type, or its operation. 0 for anything else.
    pub kind: u8,
    /// Whether it ends a connection of TCP at once, or says that there will be none.
    pub reset: bool,
    /// Of which packet it is a part.
    pub fragment: Option<Fragment>,
    /// Whether another part has the header with the ports.
    pub later: bool,
}

/// A packet of IPv4 that came in fragments: sender, receiver, protocol, and identification (RFC
/// 791, 3.2).
pub type Fragment = (IpAddr, IpAddr, u8, u16);

impl Flow {
    /// Reads headers as they are told: Ethernet if there is one, network, transport.
    pub fn of_headers([ether, network, transport]: [&[u8]; 3]) -> Option<Flow> {
        let version = network.first()? >> 4;
        let ethertype = ether.get(12..14).map(|two| u16::from_be_bytes([two[0], two[1]]));
        match ethertype {
            Some(IPV4 | IPV6) | None => {}
            Some(ARP) => {
                let arp = Arp::read(&[ether, network].concat())?;
                let [from, to] = [arp.sender, arp.target].map(|ip| Some(IpAddr::V4(ip)));
                let kind = if arp.is_reply { ARP_REPLY } else { ARP_REQUEST };
                return Some(Flow { from, to, kind, ..Flow::of(What::Arp) });
            }
            Some(other) => return Some(Flow::of(What::Other(other))),
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
        let (is_part, later) = match version {
            4 => (part_of(network)? != 0, part_of(network)? & OFFSET != 0),
            _ => (false, false),
        };
        let identification = network.get(4..6).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let fragment = identification.filter(|_| is_part).map(|it| (from, to, protocol, it));
        let transport = if later { &[] } else { transport };
        let port =
            |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
        let ports = match protocol {
            TCP | UDP | SCTP => port(0).zip(port(2)),
            _ => None,
        };
        let kind = match protocol {
            ICMP | ICMP6 => transport.first().copied().unwrap_or(0),
            _ => 0,
        };
        let flags = transport.get(TCP_FLAGS).filter(|_| protocol == TCP);
        let reset = flags.is_some_and(|flags| flags & RESET != 0);
        let (what, from, to) = (What::Ip(protocol), Some(from), Some(to));
        Some(Flow { what, from, to, ports, kind, reset, fragment, later })
    }

    /// Nothing but what it carries.
    fn of(what: What) -> Flow {
        let (from, to, ports, fragment) = (None, None, None, None);
        Flow { what, from, to, ports, kind: 0, reset: false, fragment, later: false }
    }

    /// Whether it is an error about another packet (RFC 792, RFC 4443).
    pub fn is_error(&self) -> bool {
        match self.what {
            What::Ip(ICMP) => matches!(self.kind, 3 | 11 | 12),
            What::Ip(ICMP6) => (1..=4).contains(&self.kind),
            What::Arp | What::Ip(_) | What::Other(_) => false,
        }
    }

    /// Reads a whole frame.
    pub fn of_frame(frame: &[u8]) -> Option<Flow> {
        let (ether, packet) = frame.split_at_checked(ETHER)?;
        Flow::of_headers([ether, packet, transport(packet).unwrap_or_default()])
    }

    /// Whether it only prepares the way for others: ARP, or what IPv6 has in its place (RFC 4861).
    pub fn is_of_link(&self) -> bool {
        match self.what {
            What::Arp => true,
            What::Ip(ICMP6) => (133..=137).contains(&self.kind),
            What::Ip(_) | What::Other(_) => false,
        }
    }

    /// Whether it is of the same kind: whatever the port of the sender.
    pub fn is_like(&self, other: &Flow) -> bool {
        let all =
            |flow: &Flow| (flow.what, flow.kind, flow.from, flow.to, flow.ports.map(|(_, to)| to));
        all(self) == all(other)
    }

    /// Whether it is what another becomes by a translation of its destination.
    pub fn is_led_elsewhere(&self, was: &Flow) -> bool {
        let sender =
            |flow: &Flow| (flow.what, flow.kind, flow.from, flow.ports.map(|(from, _)| from));
        sender(self) == sender(was) && !self.is_like(was)
    }

    /// Whether it answers a packet like the other.
    pub fn answers(&self, other: &Flow) -> bool {
        (self.what, self.from, self.to) == (other.what, other.to, other.from)
            && self.ports.map(|(from, _)| from) == other.ports.map(|(_, to)| to)
            && other.kind_of_answer().is_none_or(|kind| kind == self.kind)
    }

    /// What an answer to a message of ICMP or ARP is; `None` if that does not matter.
    fn kind_of_answer(&self) -> Option<u8> {
        match (self.what, self.kind) {
            (What::Arp, _) => Some(ARP_REPLY),
            (What::Ip(ICMP), ECHO) => Some(0),
            // A question for the time.
            (What::Ip(ICMP), 13) => Some(14),
            (What::Ip(ICMP6), ECHO6) => Some(129),
            // Those for routers and for neighbours (RFC 4861).
            (What::Ip(ICMP6), 133) => Some(134),
            (What::Ip(ICMP6), 135) => Some(136),
            // Nothing answers it.
            (What::Ip(ICMP | ICMP6), _) => Some(u8::MAX),
            (What::Ip(_) | What::Other(_), _) => None,
        }
    }

    /// Whether it, which an error quotes, is a packet like the other, as far as it is quoted.
    pub fn is_quoted_of(&self, other: &Flow) -> bool {
        let quoted = Flow { ports: self.ports.or(other.ports), ..*self };
        quoted.is_like(other)
    }
}

/// The flag that more fragments follow, and the offset of this one (RFC 791).
fn part_of(network: &[u8]) -> Option<u16> {
    let flags = u16::from_be_bytes([*network.get(6)?, *network.get(7)?]);
    Some(flags & (MORE | OFFSET))
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

/// What the error of a router or of a host says (RFC 792, RFC 4443), and the packet that it quotes:
/// its network header and at least 8 bytes of what that carries.
pub fn error_of(frame: &[u8]) -> Option<(Flow, &'static str)> {
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
    let about = Flow::of_headers([&[], inner, transport(inner).unwrap_or_default()])?;
    Some((about, words))
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Arp => f.write_str("arp")?,
            What::Ip(ICMP) if self.kind == ECHO => f.write_str("icmp")?,
            What::Ip(ICMP6) if self.kind == ECHO6 => f.write_str("icmp")?,
            What::Ip(ICMP | ICMP6) => write!(f, "icmp type {}", self.kind)?,
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
