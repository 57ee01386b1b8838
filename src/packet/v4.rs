//! The frame around a message: Ethernet, IPv4 and UDP (IEEE 802.3, RFC 791, RFC 768).
//!
//! A socket of the IP stack cannot reach a client without an address, so volnet reads and writes
//! whole frames.

use std::net::Ipv4Addr;

use super::{ETHER, Malformed, PROTOCOL_UDP, UDP, field, fold, mac, sum, word};
use crate::model::mac::Mac;

/// The port that DHCP servers listen on (RFC 2131).
pub const SERVER_PORT: u16 = 67;
/// The port that their clients listen on.
pub const CLIENT_PORT: u16 = 68;

const ETHERTYPE_IPV4: u16 = 0x0800;
/// An IPv4 header without options.
const IP: usize = 20;
/// Bytes around the payload of a frame that [`build`] makes.
const AROUND: usize = ETHER + IP + UDP;
/// More fragments, and the offset of this one.
const FRAGMENT: u16 = 0x3fff;
const HOPS: u8 = 64;

/// The addresses of sender and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender on the wire.
    pub from: Mac,
    /// The receiver on the wire.
    pub to: Mac,
    /// The sender's address.
    pub source: Ipv4Addr,
    /// The receiver's address.
    pub destination: Ipv4Addr,
}

/// A UDP datagram in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Its sender and receiver.
    pub addresses: Endpoints,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The payload.
    pub payload: &'a [u8],
}

/// Finds the datagram in a frame. Fragments are refused: no message is that long.
pub fn parse(frame: &[u8]) -> Result<Datagram<'_>, Malformed> {
    let (ether, packet) = frame.split_at_checked(ETHER).ok_or(Malformed::Cut)?;
    if word(ether, 12)? != ETHERTYPE_IPV4 {
        return Err(Malformed::NotOurs);
    }
    let first = *packet.first().ok_or(Malformed::Cut)?;
    let header_length = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_length < IP {
        return Err(Malformed::NotOurs);
    }
    let header = packet.get(..header_length).ok_or(Malformed::Cut)?;
    if header[9] != PROTOCOL_UDP || word(header, 6)? & FRAGMENT != 0 {
        return Err(Malformed::NotOurs);
    }
    if fold(sum(header)) != u16::MAX {
        return Err(Malformed::Checksum);
    }
    let total = usize::from(word(header, 2)?);
    let segment = packet.get(header_length..total).ok_or(Malformed::Cut)?;
    let (source, destination) = (ip(header, 12)?, ip(header, 16)?);
    let length = usize::from(word(segment, 4)?);
    let segment = segment.get(..length).ok_or(Malformed::Cut)?;
    let payload = segment.get(UDP..).ok_or(Malformed::Cut)?;
    if !is_intact(source, destination, segment)? {
        return Err(Malformed::Checksum);
    }
    Ok(Datagram {
        addresses: Endpoints { from: mac(ether, 6)?, to: mac(ether, 0)?, source, destination },
        source_port: word(segment, 0)?,
        destination_port: word(segment, 2)?,
        payload,
    })
}

/// Makes a frame around a payload, which is much shorter than 64 KiB.
pub fn build(datagram: &Datagram<'_>) -> Vec<u8> {
    let Endpoints { from, to, source, destination } = datagram.addresses;
    let segment_length = (UDP + datagram.payload.len()) as u16;
    let mut frame = Vec::with_capacity(AROUND + datagram.payload.len());
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend(ETHERTYPE_IPV4.to_be_bytes());

    // Version and length of the header; then type of service.
    frame.extend([0x45, 0]);
    frame.extend((IP as u16 + segment_length).to_be_bytes());
    // No identification, "don't fragment"; then the checksum's place.
    frame.extend([0, 0, 0x40, 0, HOPS, PROTOCOL_UDP, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    let checksum = !fold(sum(&frame[ETHER..]));
    frame[ETHER + 10..ETHER + 12].copy_from_slice(&checksum.to_be_bytes());

    let start = frame.len();
    frame.extend(datagram.source_port.to_be_bytes());
    frame.extend(datagram.destination_port.to_be_bytes());
    frame.extend(segment_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(datagram.payload);
    let checksum = !fold(pseudo(source, destination, segment_length) + sum(&frame[start..]));
    // Zero means that there is no checksum, so a sum of zero is written as all ones.
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    frame[start + 6..start + 8].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Whether a segment has no checksum, a right one, or an incomplete one. A guest's kernel leaves
/// the checksum to the network card, and a tap does not fill it in. An incomplete one is the sum
/// over the pseudo header (`CHECKSUM_PARTIAL`, linux/skbuff.h).
fn is_intact(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> Result<bool, Malformed> {
    let around = pseudo(source, destination, segment.len() as u16);
    let stands = word(segment, 6)?;
    Ok(stands == 0 || stands == fold(around) || fold(around + sum(segment)) == u16::MAX)
}

/// The sum over the pseudo header of a UDP segment (RFC 768).
fn pseudo(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> u32 {
    sum(&source.octets()) + sum(&destination.octets()) + u32::from(PROTOCOL_UDP) + u32::from(length)
}

fn ip(bytes: &[u8], at: usize) -> Result<Ipv4Addr, Malformed> {
    field(bytes, at).map(|four: [u8; 4]| four.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            addresses: Endpoints {
                from: Mac([2, 0, 0, 0, 0, 1]),
                to: Mac([0xff; 6]),
                source: Ipv4Addr::new(192, 168, 127, 1),
                destination: Ipv4Addr::BROADCAST,
            },
            source_port: SERVER_PORT,
            destination_port: CLIENT_PORT,
            payload,
        }
    }

    #[test]
    fn what_is_built_is_read_back() {
        for payload in [&b""[..], b"x", b"xy", &[0xff; 548]] {
            let frame = build(&datagram(payload));
            assert_eq!(parse(&frame), Ok(datagram(payload)));
            // Ethernet pads short frames. The padding is not part of the datagram.
            let padded = [&frame[..], &[0; 18]].concat();
            assert_eq!(parse(&padded), Ok(datagram(payload)));
        }
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_an_error() {
        let frame = build(&datagram(b"hello"));
        for length in 0..frame.len() {
            assert!(parse(&frame[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn every_bit_of_the_packet_is_under_a_checksum() {
        let frame = build(&datagram(b"hello"));
        for at in ETHER..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(parse(&changed), Ok(datagram(b"hello")), "{at} {bit}");
                assert!(parse(&changed).is_err(), "{at} {bit}");
            }
        }
    }

    #[test]
    fn a_checksum_may_be_absent_or_left_to_the_card() {
        let mut frame = build(&datagram(b"hello"));
        let at = ETHER + IP + 6;
        frame[at..at + 2].copy_from_slice(&[0, 0]);
        assert!(parse(&frame).is_ok());
        let Endpoints { source, destination, .. } = datagram(b"").addresses;
        let partial = fold(pseudo(source, destination, (UDP + 5) as u16));
        frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        assert!(parse(&frame).is_ok());
        frame[at] ^= 1;
        assert_eq!(parse(&frame), Err(Malformed::Checksum));
    }

    #[test]
    fn fragments_and_other_protocols_are_not_ours() {
        let whole = build(&datagram(b"hello"));
        for (at, byte) in
            [(12, 0x86), (ETHER, 0x65), (ETHER, 0x44), (ETHER + 6, 0x60), (ETHER + 9, 6)]
        {
            let mut frame = whole.clone();
            frame[at] = byte;
            assert_eq!(parse(&frame), Err(Malformed::NotOurs), "{at}");
        }
    }
}
