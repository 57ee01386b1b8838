//! Packets of a guest through NAT.
//!
//! The benchmark holds a VM's tap and plays its guest: it writes an ICMP echo request to a machine
//! behind the host's uplink and reads the reply. The kernel does all between in the system call of
//! the one and has the reply ready for the other: forwarding, masquerading, the veth pair, the far
//! machine's answer, and the way back. Nobody else is woken, so the time is that of the path.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{read, write};
use serde_json::Value;
use volnet::model::mac::Mac;
use volnet::network::linux::sysctl;
use volnet_ffi::tun::{self, NO_PI, TAP, Tun, VNET_HDR};

use crate::SUBNET;
use crate::floor::ipv4;
use crate::record::Record;
use crate::stage::{Stage, run};

/// The machine behind the uplink, and the host's address on it.
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const UPLINK: &str = "198.51.100.1/24";
/// Bytes of `struct virtio_net_hdr` in front of each frame; all zeros means nothing special.
const VNET_HDR_BYTES: usize = 10;
/// Bytes of Ethernet, IPv4 and ICMP headers.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const ICMP: usize = 8;
/// Bytes of a frame as the tap takes it, with 56 bytes of payload, as ping(8) has them.
const FRAME: usize = VNET_HDR_BYTES + ETHERNET + IPV4 + ICMP + 56;
/// The longest that one reply may take; after that the packet is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many packets may be lost before the first reply: the kernel opens a port of a bridge some
/// time after the tap has found its reader.
const FIRST_LOST_MAX: u16 = 10;

/// Gives a host an uplink with a machine behind it, which has no way back to the guests: what it
/// answers was masqueraded, unless `route` says how to reach them.
pub(crate) fn add_world(host: &Stage, route: Option<&str>) {
    let world = Stage::new(&format!("{}-world", host.name()));
    let (host, world) = (host.name(), world.name());
    run(&format!("ip -n {host} link add uplink type veth peer name host netns {world}"));
    run(&format!("ip -n {host} addr add {UPLINK} dev uplink"));
    run(&format!("ip -n {host} link set uplink up"));
    run(&format!("ip -n {world} addr add {WORLD}/24 dev host"));
    run(&format!("ip -n {world} link set host up"));
    if let Some(guests) = route {
        let gateway = UPLINK.trim_end_matches("/24");
        run(&format!("ip -n {world} route add {guests} via {gateway}"));
    }
}

/// The same packets where the host forwards without a rule, or conntrack, or a daemon.
pub(crate) fn plain(packets: usize, record: &mut Record) {
    let host = Stage::new("plain");
    add_world(&host, Some(SUBNET));
    host.enter();
    let ipv4 = ipv4();
    run("ip link add vbr0 type bridge");
    run(&format!("ip addr add {}/{} dev vbr0", ipv4.host, ipv4.prefix.length()));
    run("ip link set vbr0 up");
    run("ip tuntap add vttap-guest mode tap vnet_hdr");
    run("ip link set vttap-guest master vbr0 up");
    sysctl::set_forwarding(true).expect("to forward");
    let ip = Ipv4Addr::from_bits(ipv4.host.to_bits() + 1);
    let mut guest = Guest::new("vttap-guest", Mac::of_guest("default", "guest").0, ip);
    guest.measure("no rules", 1, packets, record);
}

/// A guest, played.
pub(crate) struct Guest {
    tap: Tun,
    frame: [u8; FRAME],
}

impl Guest {
    /// Opens the tap in the namespace where this thread is. The bridge learns of nobody else.
    pub(crate) fn new(tap: &str, mac: [u8; 6], ip: Ipv4Addr) -> Guest {
        let bridge: Value = serde_json::from_str(&run("ip -j link show vbr0")).expect("JSON");
        let bridge = bytes_of(bridge[0]["address"].as_str().expect("a bridge"));
        let colons = mac.map(|byte| format!("{byte:02x}")).join(":");
        run(&format!("ip neigh replace {ip} lladdr {colons} dev vbr0 nud permanent"));
        let file = tun::open().expect("to open /dev/net/tun");
        let tap = Tun::attach(file, tap, TAP | NO_PI | VNET_HDR).expect("the VM's tap");
        let mut guest = Guest { tap, frame: frame(bridge, mac, ip) };
        let answered = (0..FIRST_LOST_MAX).any(|number| guest.echo(0, number).is_some());
        assert!(answered, "{WORLD} does not answer");
        guest
    }

    /// Measures packets of one flow, which conntrack knows already, and then the first packets of
    /// new ones: to conntrack each identifier is a connection, which gets a port of the uplink's
    /// address.
    pub(crate) fn measure(&mut self, who: &str, vms: usize, packets: usize, record: &mut Record) {
        self.echo(1, 0);
        let one: Vec<Duration> =
            (1..=packets).filter_map(|number| self.echo(1, number as u16)).collect();
        record.times("packet to the world and back", who, vms, &one);
        let many: Vec<Duration> =
            (2..2 + packets / 4).filter_map(|flow| self.echo(flow as u16, 0)).collect();
        record.times("first packet of a flow and back", who, vms, &many);
    }

    /// The time that one packet takes to the world and back; `None` when it is lost.
    pub(crate) fn echo(&mut self, identifier: u16, number: u16) -> Option<Duration> {
        set_echo(&mut self.frame, identifier, number);
        let start = Instant::now();
        write(self.tap.as_fd(), &self.frame).expect("to write a frame");
        let mut answer = [0; 2048];
        while start.elapsed() < PATIENCE {
            match read(self.tap.as_fd(), &mut answer) {
                Ok(length) if is_reply(&answer[..length], identifier, number) => {
                    return Some(start.elapsed());
                }
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => panic!("to read a frame: {error}"),
            }
        }
        None
    }
}

fn frame(bridge: [u8; 6], mac: [u8; 6], ip: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (ethernet, packet) = frame[VNET_HDR_BYTES..].split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&bridge);
    ethernet[6..12].copy_from_slice(&mac);
    ethernet[12..].copy_from_slice(&[0x08, 0x00]);
    // Version and length, time to live, protocol.
    (packet[0], packet[8], packet[9]) = (0x45, 64, 1);
    packet[2..4].copy_from_slice(&((FRAME - VNET_HDR_BYTES - ETHERNET) as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&ip.octets());
    packet[16..20].copy_from_slice(&WORLD.octets());
    let sum = checksum(&packet[..IPV4]);
    packet[10..12].copy_from_slice(&sum);
    packet[IPV4] = 8;
    frame
}

/// Numbers the echo request in a frame.
fn set_echo(frame: &mut [u8; FRAME], identifier: u16, number: u16) {
    let icmp = &mut frame[VNET_HDR_BYTES + ETHERNET + IPV4..];
    icmp[2..4].fill(0);
    icmp[4..6].copy_from_slice(&identifier.to_be_bytes());
    icmp[6..8].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum);
}

/// Whether a frame is the reply to this echo request.
fn is_reply(frame: &[u8], identifier: u16, number: u16) -> bool {
    let Some(packet) = frame.get(VNET_HDR_BYTES + ETHERNET..FRAME) else { return false };
    let icmp = &packet[IPV4..];
    let echo = [identifier.to_be_bytes(), number.to_be_bytes()].concat();
    packet[9] == 1 && packet[12..16] == WORLD.octets() && icmp[0] == 0 && icmp[4..8] == echo[..]
}

/// The checksum of the Internet (RFC 1071) over an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
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
