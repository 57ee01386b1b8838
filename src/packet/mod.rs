//! The packets that guests and volnet exchange beside the IP stack: whole Ethernet frames.
//!
//! [`arp`] has ARP. [`v4`] has UDP over IPv4, for DHCP. [`v6`] has UDP and ICMPv6 over IPv6, for
//! DHCPv6, router advertisements and questions to neighbours. Reading borrows, is bounded, and
//! trusts no length. What is written always has complete checksums: a client may read raw frames,
//! and drops one whose checksum is left to the network card.

pub mod arp;
pub mod v4;
pub mod v6;

use std::fmt;

use crate::model::mac::Mac;

/// Bytes of an Ethernet header: destination, source, EtherType.
const ETHER: usize = 14;
/// Bytes of a UDP header.
const UDP: usize = 8;
/// The number of UDP (IANA, protocol numbers).
const PROTOCOL_UDP: u8 = 17;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A length goes beyond the end of the received bytes.
    Cut,
    /// A checksum is wrong.
    Checksum,
    /// It is another protocol, a fragment, for other hardware, or not a question of a guest.
    NotOurs,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Cut => "the frame is cut short",
            Malformed::Checksum => "the checksum is wrong",
            Malformed::NotOurs => "it is no question of a guest",
        })
    }
}

impl std::error::Error for Malformed {}

/// Whether a frame says that it carries IPv6.
pub fn is_v6(frame: &[u8]) -> bool {
    word(frame, 12) == Ok(v6::ETHERTYPE)
}

/// These domains as names of DNS, one after the other and not compressed: RFC 8106, 5.2, and RFC
/// 8415, 10, ask for that. The settings see to it that all have at most 255 bytes.
pub fn domain_list(domains: &[String]) -> Vec<u8> {
    let mut list = Vec::new();
    for domain in domains {
        for label in domain.split('.') {
            list.push(label.len() as u8);
            list.extend(label.as_bytes());
        }
        list.push(0);
    }
    list
}

/// The sum of the 16-bit words; the last is padded with zero. 64 KiB cannot overflow it.
fn sum(bytes: &[u8]) -> u32 {
    let word =
        |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

/// Adds the carry (RFC 1071).
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The bytes of a field.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Malformed::Cut)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    field(bytes, at).map(u16::from_be_bytes)
}

fn mac(bytes: &[u8], at: usize) -> Result<Mac, Malformed> {
    field(bytes, at).map(Mac)
}
