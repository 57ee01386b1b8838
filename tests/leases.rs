//! The next owner of an address gets nothing of the last one: the daemon on the real kernel, guests
//! that the test plays on their taps, and `ip neigh` and `conntrack` to look.

#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;

use common::daemon::Daemon;
use common::{eventually, in_namespace, ip_link, json as tool, run};
use volnet_ffi::tun::{NO_PI, TAP, Tun, VNET_HDR, open};

/// The host on the only network of ours.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// The host outside, and somebody there.
const OUTSIDE: &str = "203.0.113.1";
const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Bytes of `struct virtio_net_hdr` (linux/virtio_net.h), all zero here.
const VNET_HEADER: usize = 10;
/// The longest frame that anybody sends here.
const FRAME_MAX: usize = 2048;
const BROADCAST: [u8; 6] = [0xff; 6];
// linux/if_ether.h, linux/in.h.
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A guest: its tap, opened, and its addresses.
struct Guest {
    tap: File,
    mac: [u8; 6],
    ip: Ipv4Addr,
    gateway: [u8; 6],
}

impl Guest {
    /// Has the daemon make a VM with this address and opens its tap.
    fn create(daemon: &Daemon, name: &str, ip: &str) -> Guest {
        let config = json!({ "network": { "ip": ip } });
        let answer = daemon.call("Create", json!({ "name": name, "config": config }));
        let vm = &answer["parameters"]["vm"];
        assert_eq!(vm["ip"], ip, "{answer}");
        let tap = vm["tap"].as_str().unwrap();
        let tap = Tun::attach(open().unwrap(), tap, TAP | NO_PI | VNET_HDR).unwrap();
        let tap = File::from(tap.as_fd().try_clone_to_owned().unwrap());
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Guest {
            tap,
            mac: mac(vm["mac"].as_str().unwrap()),
            ip: ip.parse().unwrap(),
            gateway: mac(ip_link("vbr0")["address"].as_str().unwrap()),
        }
    }

    fn send(&mut self, to: [u8; 6], kind: [u8; 2], payload: &[u8]) {
        let frame = [&[0; VNET_HEADER][..], &to, &self.mac, &kind, payload].concat();
        self.tap.write_all(&frame).expect("a tap that is up");
    }

    /// Asks who has the gateway's address, as a guest does that boots; the host remembers who
    /// asked.
    fn ask_for_gateway(&mut self) {
        let arp = self.arp(1, [0; 6], GATEWAY);
        self.send(BROADCAST, ARP, &arp);
    }

    /// An ARP packet (RFC 826): 1 asks, 2 answers.
    fn arp(&self, operation: u8, mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &self.mac, &self.ip.octets(), &mac, &ip.octets()].concat()
    }

    /// Sends an empty datagram, or the first segment of a connection, to the world.
    fn speak(&mut self, protocol: u8, from: u16, to: u16) {
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        match protocol {
            UDP => segment.extend([0, 8, 0, 0]),
            _ => {
                // Sequence 0, no acknowledgement, five words of header, SYN, a window.
                segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
                let [high, low] = (segment.len() as u16).to_be_bytes();
                let pseudo = [0, protocol, high, low];
                let whole = [&self.ip.octets()[..], &WORLD.octets(), &pseudo, &segment].concat();
                segment[16..18].copy_from_slice(&checksum(&whole));
            }
        }
        let [high, low] = (20 + segment.len() as u16).to_be_bytes();
        let mut header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0].to_vec();
        header.extend(self.ip.octets());
        header.extend(WORLD.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        self.send(self.gateway, IPV4, &[header, segment].concat());
    }

    /// The next frame that comes, without what the driver puts before it.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        let length = self.tap.read(&mut frame).ok()?;
        Some(frame[VNET_HEADER..length].to_vec())
    }

    /// Reads what comes, tells whoever asks that it has its address, and gives the address that the
    /// first IPv4 packet for it was sent to.
    fn addressed_as(&mut self) -> Option<[u8; 6]> {
        while let Some(frame) = self.receive() {
            let asked = frame[12..14] == ARP && frame[21] == 1 && frame[38..42] == self.ip.octets();
            if asked {
                let reply = self.arp(2, self.gateway, GATEWAY);
                self.send(self.gateway, ARP, &reply);
            } else if frame[12..14] == IPV4 && frame[30..34] == self.ip.octets() {
                return frame[..6].try_into().ok();
            }
        }
        None
    }
}

fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The connections that an address has a part in, as `conntrack` lists them.
fn flows(ip: &str) -> Vec<String> {
    let lines = run("conntrack -L");
    let of = |line: &&str| line.split(' ').any(|word| word.ends_with(&format!("={ip}")));
    lines.lines().filter(of).map(str::to_string).collect()
}

/// The Ethernet addresses that the host has for an address behind the bridge.
fn neighbours(ip: &str) -> Vec<String> {
    let shown = tool(&format!("ip -j neigh show to {ip} dev vbr0 nud all"));
    let entries = shown.as_array().unwrap().iter();
    entries.map(|entry| entry["lladdr"].as_str().unwrap_or("none").to_string()).collect()
}

/// An uplink with nobody at its other end.
fn uplink() {
    run("ip link add uplink type veth peer name nobody");
    run("ip link set nobody up");
    run(&format!("ip addr add {OUTSIDE}/24 dev uplink"));
    run("ip link set uplink up");
    run(&format!("ip neigh add {WORLD} lladdr 02:00:00:00:00:99 dev uplink nud permanent"));
}

/// Lets a guest speak until the host knows it and tracks what it began.
fn make_known(guest: &mut Guest) {
    let ip = guest.ip.to_string();
    let began = || {
        let of = |flow: &String| flow.contains(&format!(" src={ip} dst={WORLD} "));
        flows(&ip).into_iter().filter(of).collect::<Vec<_>>()
    };
    eventually("a guest that the host knows", || {
        guest.ask_for_gateway();
        guest.speak(UDP, 40000, 53);
        guest.speak(TCP, 40001, 443);
        began().len() == 2 && neighbours(&ip).len() == 1
    });
    let tracked = began().join("\n");
    assert!(tracked.contains("tcp ") && tracked.contains("udp "), "{tracked}");
    assert_eq!(tracked.matches(&format!("dst={OUTSIDE} ")).count(), 2, "masqueraded: {tracked}");
}

#[test]
fn what_a_vm_leaves_in_the_kernel_goes_with_it() {
    in_namespace(|| {
        uplink();
        let daemon = Daemon::start(&[]);
        let mut gone = Guest::create(&daemon, "gone", "192.168.127.7");
        let mut stays = Guest::create(&daemon, "stays", "192.168.127.8");
        make_known(&mut gone);
        make_known(&mut stays);
        let before = (flows("192.168.127.8").len(), neighbours("192.168.127.8"));
        let answer = daemon.call("Delete", json!({ "name": "gone" }));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(neighbours("192.168.127.7"), [""; 0]);
        eventually("its flows are gone", || flows("192.168.127.7").is_empty());
        assert_eq!((flows("192.168.127.8").len(), neighbours("192.168.127.8")), before);
    });
}

#[test]
fn what_others_left_does_not_meet_the_next_owner_of_an_address() {
    in_namespace(|| {
        uplink();
        let daemon = Daemon::start(&[]);
        drop(Guest::create(&daemon, "first", "192.168.127.7"));
        daemon.call("Delete", json!({ "name": "first" }));

        // Its neighbours and what it says would go astray by these; who speaks to it, too.
        run("ip neigh add 192.168.127.7 lladdr 02:00:00:00:00:66 dev vbr0 nud permanent");
        run("ip neigh add 192.168.127.8 lladdr 02:00:00:00:00:67 dev vbr0 nud permanent");
        let plant = |flow: &str| run(&format!("conntrack -I -p udp -t 600 {flow}"));
        plant("-s 192.168.127.7 -d 203.0.113.2 --sport 40000 --dport 53 --src-nat 192.0.2.99");
        plant("-s 203.0.113.2 -d 192.168.127.7 --sport 53 --dport 40002");
        plant("-s 192.168.127.8 -d 203.0.113.2 --sport 40000 --dport 53");
        let mut next = Guest::create(&daemon, "next", "192.168.127.7");
        assert_eq!(neighbours("192.168.127.7"), [""; 0]);
        eventually("the flows are gone", || flows("192.168.127.7").is_empty());
        assert_eq!(flows("192.168.127.8").len(), 1);
        assert_eq!(neighbours("192.168.127.8"), ["02:00:00:00:00:67"]);

        let host = UdpSocket::bind((GATEWAY, 0)).unwrap();
        host.connect((next.ip, 53)).unwrap();
        let mut addressed = None;
        eventually("a packet for the guest", || {
            // The guest may not be listening yet: the first is lost while its port comes up.
            let _ = host.send(b"hello");
            addressed = addressed.or(next.addressed_as());
            addressed.is_some()
        });
        assert_eq!(addressed, Some(next.mac), "not to the last owner");
        make_known(&mut next);
    });
}
