//! Takes the frames of one guest at its tap: what it sends, before any rule sees it, or what it
//! receives, behind all rules.
//!
//! The kernel copies the beginning of each such frame, as long as there is room in the
//! receive queue. So a guest that sends without end costs a bounded amount, and only as long as
//! somebody looks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket};
use volnet_ffi::packet::{self, Instruction};

use crate::network::Side;

/// Bytes of a frame that are taken: neighbour discovery with an option, and more.
const FRAME_MAX: usize = 128;
/// Frames that are read at a time.
const FRAMES_MAX: usize = 256;
/// Bytes of the receive queue: some hundred frames.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// A socket for frames of a guest.
#[derive(Debug)]
pub struct Overhearing {
    socket: OwnedFd,
}

impl Overhearing {
    /// Listens on the tap of this index. Needs CAP_NET_RAW.
    pub fn open(ifindex: u32, side: Side) -> io::Result<Overhearing> {
        // Without a protocol, the socket receives nothing before the filter is set.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
        packet::filter(socket.as_fd(), &of_side(side))?;
        packet::bind(socket.as_fd(), ifindex, libc::ETH_P_ALL as u16)?;
        Ok(Overhearing { socket })
    }

    /// The beginnings of the frames that came.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut frame = [0; FRAME_MAX];
        let mut frames = Vec::new();
        for _ in 0..FRAMES_MAX {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => frames.push(frame[..length].to_vec()),
                Err(_) => break,
            }
        }
        frames
    }
}

/// The filter accepts the beginning of each frame that leaves by the link, or of each other one:
/// what leaves by a tap is what its guest receives.
fn of_side(side: Side) -> [Instruction; 4] {
    let step = |code: u32, k: u32| Instruction { code: code as u16, jt: 0, jf: 0, k };
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let leaves = u32::from(libc::PACKET_OUTGOING);
    let jump = step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, leaves);
    let (jt, jf) = match side {
        Side::Sent => (0, 1),
        Side::Received => (1, 0),
    };
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, packet_type),
        Instruction { jt, jf, ..jump },
        step(libc::BPF_RET | libc::BPF_K, 0),
        step(libc::BPF_RET | libc::BPF_K, FRAME_MAX as u32),
    ]
}
