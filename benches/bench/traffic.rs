//! Packets of a guest through NAT.
//!
//! The benchmark holds a VM's tap and plays its guest: it writes an echo request of ICMP or ICMPv6
//! to a machine behind the host's uplink and reads the reply. The kernel does all between in the
//! system call of the one and has the reply ready for the other: forwarding, masquerading, the veth
//! pair, the far machine's answer, and the way back. Nobody else is woken, so the time is that of
//! the path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{read, write};
use serde_json::Value;
use volnet::model::mac::Mac;
use volnet::network::linux::sysctl;
use volnet::plan::op::Switch;
use volnet_ffi::tun::{self, NO_PI, TAP, Tun, VNET_HDR};

use crate::SUBNET;
use crate::floor::ipv4;
use crate::record::Record;
use crate::stage::{Stage, run};

/// The machine behind the uplink, and the host's address on it.
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const UPLINK: &str = "198.51.100.1/24";
/// The same by IPv6.
const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x100, 0, 0, 0, 2);
const UPLINK6: &str = "2001:db8:0:100::1/64";
/// The prefix of guests where there is no daemon, the host's address in it and the guest's.
const SUBNET6: &str = "fd00:0:0:1::/64";
const HOST6: &str = "fd00:0:0:1::1/64";
const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2);
/// The bridge that volnet makes.
pub(crate) const BRIDGE: &str = "vbr0";
/// Bytes of `struct virtio_net_hdr` in front of each frame; all zeros means nothing special.
const VNET_HDR_BYTES: usize = 10;
/// Bytes of the headers of Ethernet, IPv4 and IPv6.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// Bytes of an echo request with 56 bytes of payload, as ping(8) has them.
const ECHO: usize = 8 + 56;
/// Bytes of the largest frame as the tap takes it.
const FRAME: usize = VNET_HDR_BYTES + ETHERNET + IPV6 + ECHO;
/// The longest that one reply may take; after that the packet is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many packets of one guest follow each other before another guest has its turn.
const TURN: usize = 100;
/// How many packets may be lost before the first reply: the kernel opens a port of a bridge some
/// time after the tap has found its reader.
const FIRST_LOST_MAX: u16 = 10;

/// Gives a host an uplink with a machine behind it, which has no way back to the guests: what it
/// answers was masqueraded, unless the guests are known to it.
pub(crate) fn add_world(host: &Stage, knows_guests: bool) {
    let world = Stage::new(&format!("{}-world", host.name()));
    let (host, world) = (host.name(), world.name());
    run(&format!("ip -n {host} link add uplink type veth peer name host netns {world}"));
    run(&format!("ip -n {host} link set uplink up"));
    run(&format!("ip -n {world} link set host up"));
    for (uplink, world_is, length, guests) in
        [(UPLINK, IpAddr::V4(WORLD), 24, SUBNET), (UPLINK6, WORLD6.into(), 64, SUBNET6)]
    {
        run(&format!("ip -n {host} addr add {uplink} dev uplink{}", nodad(uplink)));
        run(&format!("ip -n {world} addr add {world_is}/{length} dev host{}", nodad(uplink)));
        if knows_guests {
            let gateway = uplink.trim_end_matches(&format!("/{length}"));
            run(&format!("ip -n {world} route add {guests} via {gateway}"));
        }
    }
}

/// An address of IPv6 can be used at once.
fn nodad(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// The same packets where the host forwards without a rule, or conntrack, or a daemon.
pub(crate) fn plain(packets: usize, record: &mut Record) {
    let host = Stage::new("plain");
    add_world(&host, true);
    host.enter();
    let ipv4 = ipv4();
    run("ip link add vbr0 type bridge");
    run(&format!("ip addr add {}/{} dev vbr0", ipv4.host, ipv4.prefix.length()));
    run(&format!("ip addr add {HOST6} dev vbr0 nodad"));
    run("ip link set vbr0 up");
    run("ip tuntap add vttap-guest mode tap vnet_hdr");
    run("ip link set vttap-guest master vbr0 up");
    sysctl::set_forwarding(true).expect("to forward");
    sysctl::set_switch(&Switch::Forwarding, 1).expect("to forward IPv6");
    let ip = Ipv4Addr::from_bits(ipv4.host.to_bits() + 1);
    let mac = Mac::of_guest("default", "guest").0;
    for ip in [ip.into(), GUEST6.into()] {
        set_neighbour(BRIDGE, mac, ip);
        let guest = Guest::new("vttap-guest", &Place { mac, ip, gateway: bridge() });
        measure(vec![("no rules".into(), guest)], 1, packets, record);
    }
}

/// Measures packets of one flow of each guest, which conntrack knows already, and then the first
/// packets of new ones: to conntrack each identifier is a connection, which gets a port of the
/// uplink's address. The guests take turns.
pub(crate) fn measure(
    mut guests: Vec<(String, Guest)>,
    vms: usize,
    packets: usize,
    record: &mut Record,
) {
    let mut one = vec![Vec::new(); guests.len()];
    let mut many = one.clone();
    for first in (0..packets).step_by(TURN) {
        for ((_, guest), times) in guests.iter_mut().zip(&mut one) {
            guest.echo(1, 0);
            times.extend((first..first + TURN).filter_map(|at| guest.echo(1, at as u16 + 1)));
        }
    }
    for first in (0..packets / 4).step_by(TURN) {
        for ((_, guest), times) in guests.iter_mut().zip(&mut many) {
            times.extend((first..first + TURN).filter_map(|at| guest.echo(at as u16 + 2, 0)));
        }
    }
    for (what, times) in
        [("packet to the world and back", one), ("first packet of a flow and back", many)]
    {
        for ((who, guest), times) in guests.iter().zip(times) {
            let family = if guest.frame.is_ipv6() { ", IPv6" } else { "" };
            record.times(&format!("{what}{family}"), who, vms, &times);
        }
    }
}

/// The Ethernet address of the bridge where this thread is.
pub(crate) fn bridge() -> [u8; 6] {
    let bridge: Value =
        serde_json::from_str(&run(&format!("ip -j link show {BRIDGE}"))).expect("JSON");
    bytes_of(bridge[0]["address"].as_str().expect("a bridge"))
}

/// The host need not ask for the Ethernet address of a guest.
pub(crate) fn set_neighbour(link: &str, mac: [u8; 6], ip: IpAddr) {
    let colons = mac.map(|byte| format!("{byte:02x}")).join(":");
    run(&format!("ip neigh replace {ip} lladdr {colons} dev {link} nud permanent"));
}

/// What a guest believes of its addresses.
pub(crate) struct Place {
    pub(crate) mac: [u8; 6],
    pub(crate) ip: IpAddr,
    /// The Ethernet address of its gateway.
    pub(crate) gateway: [u8; 6],
}

/// A guest, played.
pub(crate) struct Guest {
    tap: Tun,
    frame: Frame,
}

impl Guest {
    /// Opens the tap in the namespace where this thread is.
    pub(crate) fn new(tap: &str, place: &Place) -> Guest {
        let file = tun::open().expect("to open /dev/net/tun");
        let tap = Tun::attach(file, tap, TAP | NO_PI | VNET_HDR).expect("the VM's tap");
        let mut guest = Guest { tap, frame: Frame::new(place) };
        let answered = (0..FIRST_LOST_MAX).any(|number| guest.echo(0, number).is_some());
        assert!(answered, "the world does not answer {}", place.ip);
        guest
    }

    /// The time that one packet takes to the world and back; `None` when it is lost.
    pub(crate) fn echo(&mut self, identifier: u16, number: u16) -> Option<Duration> {
        self.frame.number(identifier, number);
        let start = Instant::now();
        write(self.tap.as_fd(), self.frame.bytes()).expect("to write a frame");
        let mut answer = [0; 2048];
        while start.elapsed() < PATIENCE {
            match read(self.tap.as_fd(), &mut answer) {
                Ok(length) if self.frame.is_answered_by(&answer[..length]) => {
                    return Some(start.elapsed());
                }
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => panic!("to read a frame: {error}"),
            }
        }
        None
    }
}

/// An echo request in its frame, as the tap takes it.
struct Frame {
    bytes: [u8; FRAME],
    /// Where the echo request begins.
    echo: usize,
    /// The sum of what its checksum counts besides: none by IPv4, addresses and length by IPv6.
    besides: u32,
}

impl Frame {
    fn new(&Place { mac, ip, gateway }: &Place) -> Frame {
        let mut bytes = [0; FRAME];
        let (ethernet, packet) = bytes[VNET_HDR_BYTES..].split_at_mut(ETHERNET);
        ethernet[..6].copy_from_slice(&gateway);
        ethernet[6..12].copy_from_slice(&mac);
        let (header, besides) = match ip {
            IpAddr::V4(ip) => {
                ethernet[12..].copy_from_slice(&[0x08, 0x00]);
                // Version and length, time to live, protocol.
                (packet[0], packet[8], packet[9], packet[IPV4]) = (0x45, 64, 1, 8);
                packet[2..4].copy_from_slice(&((IPV4 + ECHO) as u16).to_be_bytes());
                packet[12..16].copy_from_slice(&ip.octets());
                packet[16..20].copy_from_slice(&WORLD.octets());
                let sum = checksum(sum(&packet[..IPV4]));
                packet[10..12].copy_from_slice(&sum);
                (IPV4, 0)
            }
            IpAddr::V6(ip) => {
                ethernet[12..].copy_from_slice(&[0x86, 0xdd]);
                // Version, next header, hop limit.
                (packet[0], packet[6], packet[7], packet[IPV6]) = (0x60, 58, 64, 128);
                packet[4..6].copy_from_slice(&(ECHO as u16).to_be_bytes());
                packet[8..24].copy_from_slice(&ip.octets());
                packet[24..IPV6].copy_from_slice(&WORLD6.octets());
                (IPV6, sum(&packet[8..IPV6]) + ECHO as u32 + 58)
            }
        };
        Frame { bytes, echo: VNET_HDR_BYTES + ETHERNET + header, besides }
    }

    fn is_ipv6(&self) -> bool {
        self.echo + ECHO == FRAME
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.echo + ECHO]
    }

    /// Numbers the request.
    fn number(&mut self, identifier: u16, number: u16) {
        let echo = &mut self.bytes[self.echo..self.echo + ECHO];
        echo[2..4].fill(0);
        echo[4..6].copy_from_slice(&identifier.to_be_bytes());
        echo[6..8].copy_from_slice(&number.to_be_bytes());
        let sum = checksum(self.besides + sum(echo));
        echo[2..4].copy_from_slice(&sum);
    }

    /// Whether a frame has the reply to it.
    fn is_answered_by(&self, frame: &[u8]) -> bool {
        if frame.len() != self.bytes().len() {
            return false;
        }
        let (packet, echo) = frame.split_at(self.echo);
        let (kind, source) = match self.is_ipv6() {
            true => (129, packet[self.echo - 32..self.echo - 16] == WORLD6.octets()),
            false => (0, packet[self.echo - 8..self.echo - 4] == WORLD.octets()),
        };
        source && echo[0] == kind && echo[4..8] == self.bytes[self.echo + 4..self.echo + 8]
    }
}

/// The sum of the Internet (RFC 1071) of an even number of bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

/// The checksum that such a sum leads to.
fn checksum(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The bytes of an Ethernet address in text.
pub(crate) fn bytes_of(mac: &str) -> [u8; 6] {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("an Ethernet address"))
        .collect();
    bytes.try_into().expect("six bytes")
}
