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
use crate::packet::arp::{self, ETHERTYPE, FRAME};

/// Messages that are read at a time. A LAN may have many, and they are read again soon.
const MESSAGES_MAX: usize = 256;

/// A socket for ARP on one bridge.
#[derive(Debug)]
pub struct Arp {
    socket: OwnedFd,
    index: u32,
    mac: Mac,
}

impl Arp {
    /// Listens on a bridge of the calling thread's network namespace. Needs CAP_NET_RAW.
    pub fn open(bridge: &str) -> io::Result<Arp> {
        let index = if_nametoindex(bridge)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        packet::bind(socket.as_fd(), index, ETHERTYPE)?;
        let mac = Mac(packet::own_address(socket.as_fd())?);
        Ok(Arp { socket, index, mac })
    }

    /// Asks all who has this address.
    pub fn ask(&self, ip: Ipv4Addr) -> io::Result<()> {
        packet::send(
            self.socket.as_fd(),
            self.index,
            &arp::question(self.mac, Ipv4Addr::UNSPECIFIED, ip),
        )
    }

    /// Who has said since that it has which address.
    pub fn hear(&self) -> Vec<(Ipv4Addr, Mac)> {
        let mut frame = [0; FRAME];
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

/// The address that the sender of a frame has or wants, and who that is; `None` if the frame says
/// nothing about that, or is ours.
fn claim(frame: &[u8], own: Mac) -> Option<(Ipv4Addr, Mac)> {
    let said = arp::Arp::read(frame).filter(|said| said.mac != own)?;
    let ip = if said.sender.is_unspecified() { said.target } else { said.sender };
    Some((ip, said.mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_an_address_without_one_wants_it() {
        let [own, other] = [1, 9].map(|last| Mac([2, 0, 0, 0, 0, last]));
        let [wanted, had] = [7, 9].map(|last| Ipv4Addr::new(192, 0, 2, last));
        let asked = arp::question(other, Ipv4Addr::UNSPECIFIED, wanted);
        assert_eq!(claim(&asked, own), Some((wanted, other)));
        assert_eq!(claim(&asked, other), None, "it is our own question");
        let said = arp::question(other, had, wanted);
        assert_eq!(claim(&said, own), Some((had, other)));
    }
}
