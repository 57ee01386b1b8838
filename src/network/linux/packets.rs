//! The frames by which guests ask the host for addresses and for their router, and the answers.
//!
//! A packet socket on a bridge receives frames to the host before the IP stack and its rules see
//! them. This is the only way to hear and answer a guest without an address. A filter in the kernel
//! lets only such questions through, so other frames of guests never wake the daemon. An answer
//! goes to the tap of one guest, not over the bridge.
//!
//! The socket asks for all EtherTypes and the filter looks at them, because of what it costs other
//! frames. The kernel gives a frame to sockets for all types before the IP stack, and to those for
//! one type after it (`__netif_receive_skb_core` of Linux). As long as somebody waits for a frame,
//! the stack works on a copy of it: that is more than twice what the filter takes.
//!
//! If the bridge goes down, the socket reports it once (`ENETDOWN`), and works again when the
//! bridge is up. If the bridge is deleted, the socket is useless.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket, sockopt,
};
use socket2::{Domain, Socket, Type};
use volnet_ffi::packet::{self, Instruction};

use crate::packet::{v4, v6};

/// Bytes of the receive queue: the first messages of some hundred guests that start together.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// The longest frame that is read, in bytes. A longer one is cut, and so is not a message.
pub const FRAME_MAX: usize = 2048;

/// `ETH_P_IP` and `ETH_P_IPV6` (linux/if_ether.h).
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
/// Bytes of the two addresses in an Ethernet header, behind which the EtherType is.
const ETHERS: u32 = 12;
/// `IPPROTO_UDP` and `IPPROTO_ICMPV6` (IANA, protocol numbers).
const UDP: u32 = 17;
const ICMP6: u32 = 58;
/// More fragments, and the offset of this one (RFC 791).
const FRAGMENT: u32 = 0x3fff;
/// Bytes of an Ethernet header, and of an IPv6 header (RFC 8200).
const ETHER: u32 = 14;
const IP6: u32 = 40;

/// Which questions of guests are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Questions {
    /// DHCP, for IPv4.
    Dhcp,
    /// Router solicitations, neighbour solicitations to all, and DHCPv6.
    Ipv6,
}

/// A socket for the questions of the guests on one bridge.
#[derive(Debug)]
pub struct Packets {
    socket: OwnedFd,
    /// Keeps the host among the servers of the bridge.
    _member: Option<Socket>,
}

impl Packets {
    /// Listens on a bridge of the calling thread's network namespace. Needs CAP_NET_RAW.
    pub fn open(bridge: &str, questions: Questions) -> io::Result<Packets> {
        let index = if_nametoindex(bridge)?;
        // Without a protocol, the socket receives nothing before the filter is set.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        packet::ignore_outgoing(socket.as_fd())?;
        let member = match questions {
            Questions::Dhcp => {
                packet::filter(socket.as_fd(), &to_a_server())?;
                None
            }
            Questions::Ipv6 => {
                packet::filter(socket.as_fd(), &to_a_router_or_server())?;
                Some(among_servers(index)?)
            }
        };
        packet::bind(socket.as_fd(), index, libc::ETH_P_ALL as u16)?;
        Ok(Packets { socket, _member: member })
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

/// A socket for frames to guests that have not asked. It receives nothing.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Needs CAP_NET_RAW.
    pub fn open() -> io::Result<Sender> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        Ok(Sender { socket: socket(AddressFamily::Packet, SockType::Raw, flags, None)? })
    }

    /// Sends a frame by the link of this index.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        packet::send(self.socket.as_fd(), ifindex, frame)
    }
}

/// A socket that is a member of the group of DHCPv6 servers on a bridge. If somebody on the bridge
/// queries multicast listeners, the bridge passes frames to a group on to its members alone, and a
/// guest that joins the group would be the only one. (A host that forwards is in the group of
/// routers by itself.)
fn among_servers(bridge: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    socket.join_multicast_v6(&v6::ALL_SERVERS, bridge)?;
    Ok(socket)
}

fn step(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { jt, jf, ..step(libc::BPF_JMP | code | libc::BPF_K, k) }
}

/// Loads how a frame came: to this host, broadcast, multicast, or otherwise.
fn load_packet_type() -> Instruction {
    load(libc::SKF_AD_PKTTYPE)
}

/// Loads what the kernel knows of a frame (linux/filter.h).
fn load(ancillary: libc::c_int) -> Instruction {
    let at = (libc::SKF_AD_OFF + ancillary) as u32;
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

/// How a filter begins: other EtherTypes than this go to the instruction `refused`, counted from
/// behind these, and frames with a VLAN tag, which the kernel has taken off, go there too.
fn untagged(ethertype: u32, refused: u8) -> [Instruction; 4] {
    use libc::{BPF_ABS, BPF_H, BPF_JEQ, BPF_LD};
    [
        step(BPF_LD | BPF_H | BPF_ABS, ETHERS),
        jump(BPF_JEQ, ethertype, 0, refused + 2),
        load(libc::SKF_AD_VLAN_TAG_PRESENT),
        jump(BPF_JEQ, 0, 0, refused),
    ]
}

/// The filter accepts frames to this host or broadcast, without a VLAN tag (the kernel treats
/// tagged ones as those of another link), with a whole UDP datagram to the port of a DHCP server.
fn to_a_server() -> Vec<Instruction> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JGT, BPF_JSET, BPF_K, BPF_LD};
    use libc::{BPF_LDX, BPF_MSH, BPF_RET, PACKET_BROADCAST};
    let questions = [
        load_packet_type(),
        jump(BPF_JGT, u32::from(PACKET_BROADCAST), 8, 0),
        step(BPF_LD | BPF_B | BPF_ABS, ETHER + 9),
        jump(BPF_JEQ, UDP, 0, 6),
        step(BPF_LD | BPF_H | BPF_ABS, ETHER + 6),
        jump(BPF_JSET, FRAGMENT, 4, 0),
        // Load the length of the IP header, then the two bytes at an offset of 2 after it.
        step(BPF_LDX | BPF_B | BPF_MSH, ETHER),
        step(BPF_LD | BPF_H | BPF_IND, ETHER + 2),
        jump(BPF_JEQ, u32::from(v4::SERVER_PORT), 0, 1),
        step(BPF_RET | BPF_K, FRAME_MAX as u32),
        step(BPF_RET | BPF_K, 0),
    ];
    [&untagged(ETHERTYPE_IPV4, 10)[..], &questions].concat()
}

/// The filter accepts frames to this host or multicast, without a VLAN tag, with a router
/// solicitation or a UDP datagram to the port of a DHCPv6 server right behind the IPv6 header. A
/// neighbour solicitation must be multicast: a guest that looks whether its router is still there
/// asks the router alone, again and again.
fn to_a_router_or_server() -> Vec<Instruction> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JGT, BPF_K, BPF_LD, BPF_RET, PACKET_MULTICAST};
    let questions = [
        load_packet_type(),
        jump(BPF_JGT, u32::from(PACKET_MULTICAST), 11, 0),
        step(BPF_LD | BPF_B | BPF_ABS, ETHER + 6),
        jump(BPF_JEQ, UDP, 6, 0),
        jump(BPF_JEQ, ICMP6, 0, 8),
        step(BPF_LD | BPF_B | BPF_ABS, ETHER + IP6),
        jump(BPF_JEQ, u32::from(v6::ROUTER_SOLICITATION), 5, 0),
        jump(BPF_JEQ, u32::from(v6::NEIGHBOUR_SOLICITATION), 0, 5),
        load_packet_type(),
        jump(BPF_JEQ, u32::from(PACKET_MULTICAST), 2, 3),
        step(BPF_LD | BPF_H | BPF_ABS, ETHER + IP6 + 2),
        jump(BPF_JEQ, u32::from(v6::SERVER_PORT), 0, 1),
        step(BPF_RET | BPF_K, FRAME_MAX as u32),
        step(BPF_RET | BPF_K, 0),
    ];
    [&untagged(ETHERTYPE_IPV6, 13)[..], &questions].concat()
}
