//! ARP on a bridge: asks who has an address, and hears who says so (RFC 826, RFC 5227).
//!
//! The question has the sender address 0.0.0.0, so that nobody learns anything from it. Whoever has
//! the address answers to the Ethernet address of the bridge. An announcement, or the question of
//! somebody who wants the same address, counts as an answer, too.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use volnet_ffi::packet;

use crate::model::mac::Mac;

/// `ETH_P_ARP` (linux/if_ether.h).
const ETHERTYPE_ARP: u16 = 0x0806;
/// The header: Ethernet and IPv4, addresses of 6 and 4 bytes (RFC 826).
const HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of an Ethernet header, and of the ARP message after it.
const ETHER: usize = 14;
const MESSAGE: usize = 28;
/// Messages that are read at a time. A LAN may have many, and they are read again soon.
const MESSAGES_MAX: usize = 256;

/// A socket for ARP on one bridge.
#[derive(Debug)]
pub struct Arp {
    socket: OwnedFd,
    index: u32,
    mac: [u8; 6],
}

impl Arp {
    /// Listens on a bridge of the calling thread's network namespace. Needs CAP_NET_RAW.
    pub fn open(bridge: &str) -> io::Result<Arp> {
        let index = if_nametoindex(bridge)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        packet::bind(socket.as_fd(), index, ETHERTYPE_ARP)?;
        let mac = packet::own_address(socket.as_fd())?;
        Ok(Arp { socket, index, mac })
    }

    /// Asks all who has this address.
    pub fn ask(&self, ip: Ipv4Addr) -> io::Result<()> {
        packet::send(self.socket.as_fd(), self.index, &question(self.mac, ip))
    }

    /// Who has said since that it has which address.
    pub fn hear(&self) -> Vec<(Ipv4Addr, Mac)> {
        let mut frame = [0; ETHER + MESSAGE];
        let mut heard = Vec::new();
        for _ in 0..MESSAGES_MAX {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => heard.extend(claim(&frame[..length], self.mac)),
                Err(_) => break,
            }
        }
        heard
    }
}

/// The frame that asks who has an address.
fn question(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend(HEADER);
    // A request, from this Ethernet address and no other.
    frame.extend([0, 1]);
    frame.extend(mac);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame
}

/// The address that the sender of a frame has or wants, and who that is; `None` if the frame says
/// nothing about that, or is ours.
fn claim(frame: &[u8], own: [u8; 6]) -> Option<(Ipv4Addr, Mac)> {
    let message = frame.get(ETHER..ETHER + MESSAGE)?;
    let (header, rest) = message.split_at(HEADER.len());
    let mac: [u8; 6] = rest[2..8].try_into().ok()?;
    let four = |at: usize| Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]);
    let (sender, target) = (four(8), four(18));
    let ip = if sender.is_unspecified() { target } else { sender };
    (header == HEADER && mac != own).then_some((ip, Mac(mac)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn who_asks_for_an_address_without_one_wants_it() {
        let ip = Ipv4Addr::new(192, 0, 2, 7);
        let asked = question(OTHER, ip);
        assert_eq!(asked.len(), ETHER + MESSAGE);
        assert_eq!(claim(&asked, OWN), Some((ip, Mac(OTHER))));
        assert_eq!(claim(&asked, OTHER), None, "it is our own question");
        let mut said = asked.clone();
        let has = Ipv4Addr::new(192, 0, 2, 9);
        said[ETHER + 14..ETHER + 18].copy_from_slice(&has.octets());
        assert_eq!(claim(&said, OWN), Some((has, Mac(OTHER))));
        for length in 0..asked.len() {
            assert_eq!(claim(&asked[..length], OWN), None, "{length}");
        }
        said[ETHER] = 9;
        assert_eq!(claim(&said, OWN), None, "it is no Ethernet");
    }
}
