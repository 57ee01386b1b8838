//! ARP in its frames, for IPv4 on Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use super::{ETHER, field, word};
use crate::model::mac::Mac;

/// `ETH_P_ARP` (linux/if_ether.h).
pub const ETHERTYPE: u16 = 0x0806;
/// The header: Ethernet and IPv4, addresses of 6 and 4 bytes (RFC 826).
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of the message after the Ethernet header.
const MESSAGE: usize = 28;
/// Bytes of a whole frame.
pub const FRAME: usize = ETHER + MESSAGE;
/// The operations.
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Whether it is a reply. Otherwise it is a question.
    pub is_reply: bool,
    /// Who says it.
    pub mac: Mac,
    /// The address that the sender says it has; unspecified if it has none yet.
    pub sender: Ipv4Addr,
    /// The address that it is about.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads a frame; `None` if it is no such message.
    pub fn read(frame: &[u8]) -> Option<Arp> {
        let message = frame.get(ETHER..FRAME)?;
        let (header, rest) = message.split_at(HEADER.len());
        if word(frame, 12) != Ok(ETHERTYPE) || header != HEADER {
            return None;
        }
        let ip = |at| field::<4>(rest, at).map(Ipv4Addr::from).ok();
        let is_reply = match word(rest, 0).ok()? {
            REQUEST => false,
            REPLY => true,
            _ => return None,
        };
        Some(Arp { is_reply, mac: field(rest, 2).map(Mac).ok()?, sender: ip(8)?, target: ip(18)? })
    }
}

/// The frame that asks all who has an address. Without a sender (unspecified), nobody learns
/// anything from it.
pub fn question(from: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(HEADER);
    frame.extend(REQUEST.to_be_bytes());
    frame.extend(from.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_question_is_read_back_and_a_cut_one_is_not() {
        let [sender, target] = [1, 7].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let frame = question(MAC, sender, target);
        assert_eq!(frame.len(), FRAME);
        assert_eq!(Arp::read(&frame), Some(Arp { is_reply: false, mac: MAC, sender, target }));
        for length in 0..frame.len() {
            assert_eq!(Arp::read(&frame[..length]), None, "{length}");
        }
        // The EtherType, the hardware, the operation.
        for (at, byte) in [(13, 0), (ETHER + 1, 9), (ETHER + 7, 3)] {
            let mut other = frame.clone();
            other[at] = byte;
            assert_eq!(Arp::read(&other), None, "{at}");
        }
        let mut reply = frame;
        reply[ETHER + 7] = 2;
        assert!(Arp::read(&reply).is_some_and(|arp| arp.is_reply));
    }
}
