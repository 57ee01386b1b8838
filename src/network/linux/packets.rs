//! The frames that guests send to a DHCP server, and the answers.
//!
//! A packet socket on a bridge receives frames to the host before the IP stack and its rules see
//! them. This is the only way to hear and answer a guest without an address. A filter in the kernel
//! lets only DHCP through, so other frames of guests cost nothing here. An answer goes to the tap
//! of one guest, not over the bridge.
//!
//! If the bridge goes down, the socket reports it once (`ENETDOWN`), and works again when the
//! bridge is up. If the bridge is deleted, the socket is useless.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket, sockopt,
};
use volnet_ffi::packet::{self, Instruction};

use crate::dhcp::frame::SERVER_PORT;

/// Bytes of the receive queue: the first messages of some hundred guests that start together.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// The longest frame that is read, in bytes. A longer one is cut, and so is not a message.
pub const FRAME_MAX: usize = 2048;

/// `ETH_P_IP` (linux/if_ether.h).
const ETHERTYPE_IPV4: u16 = 0x0800;
/// `IPPROTO_UDP` (RFC 1700).
const UDP: u32 = 17;
/// More fragments, and the offset of this one (RFC 791).
const FRAGMENT: u32 = 0x3fff;
/// Bytes of an Ethernet header.
const ETHER: u32 = 14;

/// A socket for the DHCP messages on one bridge.
#[derive(Debug)]
pub struct Packets {
    socket: OwnedFd,
}

impl Packets {
    /// Listens on a bridge of the calling thread's network namespace. Needs CAP_NET_RAW.
    pub fn open(bridge: &str) -> io::Result<Packets> {
        let index = if_nametoindex(bridge)?;
        // Without a protocol, the socket receives nothing before the filter is set.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        packet::filter(socket.as_fd(), &to_a_server())?;
        packet::bind(socket.as_fd(), index, ETHERTYPE_IPV4)?;
        Ok(Packets { socket })
    }

    /// Receives the next frame, if there is one.
    pub fn receive<'a>(&mut self, buffer: &'a mut [u8; FRAME_MAX]) -> io::Result<Option<&'a [u8]>> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Some(&buffer[..length])),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a frame by the tap with this index.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        packet::send(self.socket.as_fd(), ifindex, frame)
    }

    /// The descriptor to wait for.
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The filter accepts frames to this host or broadcast, without a VLAN tag (the kernel treats
/// tagged ones as those of another link), with a whole UDP datagram to the port of a DHCP server.
fn to_a_server() -> [Instruction; 11] {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD,
    };
    use libc::{BPF_LDX, BPF_MSH, BPF_RET, BPF_W, PACKET_BROADCAST};
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let step = |code: u32, k: u32| Instruction { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| Instruction {
        jt,
        jf,
        ..step(BPF_JMP | code | BPF_K, k)
    };
    [
        step(BPF_LD | BPF_W | BPF_ABS, packet_type),
        jump(BPF_JGT, u32::from(PACKET_BROADCAST), 8, 0),
        step(BPF_LD | BPF_B | BPF_ABS, ETHER + 9),
        jump(BPF_JEQ, UDP, 0, 6),
        step(BPF_LD | BPF_H | BPF_ABS, ETHER + 6),
        jump(BPF_JSET, FRAGMENT, 4, 0),
        // Load the length of the IP header, then the two bytes at an offset of 2 after it.
        step(BPF_LDX | BPF_B | BPF_MSH, ETHER),
        step(BPF_LD | BPF_H | BPF_IND, ETHER + 2),
        jump(BPF_JEQ, u32::from(SERVER_PORT), 0, 1),
        step(BPF_RET | BPF_K, FRAME_MAX as u32),
        step(BPF_RET | BPF_K, 0),
    ]
}
