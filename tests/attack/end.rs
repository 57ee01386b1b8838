//! Where the test sends and receives the frames of a party: at its tap, as a hypervisor does, here
//! or in a namespace, or at the link inside of its namespace, as whoever has all rights there can.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use nix::unistd::{read, write};
use serde_json::Value;
use volnet_ffi::packet::{self, Instruction};
use volnet_ffi::tun::{self, NO_PI, TAP, Tun, VNET_HDR};

use crate::common::daemon::Daemon;
use crate::common::room::Room;

/// Bytes of `struct virtio_net_hdr` in front of each frame; all zeros means nothing special.
const VNET_HDR_BYTES: usize = 10;
/// The longest frame that a test sends, with that header.
pub(crate) const FRAME_BYTES_MAX: usize = 2048;
/// All EtherTypes (linux/if_ether.h, `ETH_P_ALL`).
const ALL_TYPES: u16 = 3;
/// The name of a tap in a namespace.
const INNER_TAP: &str = "tap0";
/// What a socket holds of frames that are not read yet, in bytes.
const UNREAD_BYTES: usize = 16 << 20;
/// Lets pass what is not sent by the link itself: loads its kind, compares it with
/// `PACKET_OUTGOING` (linux/if_packet.h), drops, passes (linux/filter.h).
const OF_OTHERS: [Instruction; 4] = [
    Instruction { code: 0x30, jt: 0, jf: 0, k: 0xffff_f004 },
    Instruction { code: 0x15, jt: 0, jf: 1, k: 4 },
    Instruction { code: 0x06, jt: 0, jf: 0, k: 0 },
    Instruction { code: 0x06, jt: 0, jf: 0, k: u32::MAX },
];

/// What there is in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Its link alone.
    Link,
    /// A tap, which stands for the link.
    Tap,
}

/// One of the three.
pub(crate) enum End {
    Tap(Tun),
    Room { socket: OwnedFd, _room: Room },
    InnerTap { tap: Tun, _room: Room },
}

impl End {
    /// A tap.
    pub(crate) fn tap(name: &str) -> End {
        let file = tun::open().expect("to open /dev/net/tun");
        End::Tap(Tun::attach(file, name, TAP | NO_PI | VNET_HDR).expect("the tap"))
    }

    /// A new namespace that is attached with these flags, and its VM. The kernel there says nothing
    /// of its own.
    pub(crate) fn room(daemon: &Daemon, name: &str, flags: &[String]) -> (End, Value) {
        let room = Room::new();
        let vm = attach(daemon, name, &room, flags);
        room.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        room.run("ip address flush dev eth0");
        room.run("ip link set eth0 arp off");
        let socket = room.opened(|| {
            let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_NONBLOCK);
            let socket = socket(family, SockType::Raw, flags, None).expect("a packet socket");
            let index = nix::net::if_::if_nametoindex("eth0").expect("the link");
            setsockopt(&socket, sockopt::RcvBufForce, &UNREAD_BYTES).expect("we are root");
            packet::filter(socket.as_fd(), &OF_OTHERS).expect("a packet socket");
            packet::bind(socket.as_fd(), index, ALL_TYPES).expect("the link");
            socket
        });
        (End::Room { socket, _room: room }, vm)
    }

    /// The tap of a new namespace that is attached with these flags, and its VM.
    pub(crate) fn inner_tap(daemon: &Daemon, name: &str, flags: &[String]) -> (End, Value) {
        let room = Room::new();
        let flags = [flags, &["--tap", INNER_TAP].map(String::from)].concat();
        let vm = attach(daemon, name, &room, &flags);
        let file = room.opened(|| tun::open().expect("to open /dev/net/tun"));
        let tap = Tun::attach(file, INNER_TAP, TAP | NO_PI | VNET_HDR).expect("the tap");
        (End::InnerTap { tap, _room: room }, vm)
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = match self {
            End::Tap(tap) | End::InnerTap { tap, .. } => {
                write(tap.as_fd(), &[&[0; VNET_HDR_BYTES][..], frame].concat())
            }
            End::Room { socket, .. } => write(socket, frame),
        };
        sent.expect("to send a frame");
    }

    /// The next frame that has arrived.
    pub(crate) fn receive<'a>(&self, bytes: &'a mut [u8; FRAME_BYTES_MAX]) -> Option<&'a [u8]> {
        let (file, header) = match self {
            End::Tap(tap) | End::InnerTap { tap, .. } => (tap.as_fd(), VNET_HDR_BYTES),
            End::Room { socket, .. } => (socket.as_fd(), 0),
        };
        let length = read(file, bytes).ok()?;
        bytes.get(header..length)
    }
}

/// Attaches a namespace, and gives its VM.
pub(crate) fn attach(daemon: &Daemon, name: &str, room: &Room, flags: &[String]) -> Value {
    let output = Command::new(&daemon.program)
        .args(["attach", name, "--json", "--netns", &room.netns(), "--socket"])
        .arg(daemon.socket())
        .args(flags)
        .output()
        .expect("volnet runs");
    assert!(output.status.success(), "{output:?}");
    let mut reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    reply["vm"].take()
}
