//! Where the attacks take place: a host with volnet on it, and everybody whom a frame may reach.
//!
//! The test holds the taps of some VMs and plays their guests, and two taps that are not volnet's:
//! one is another port of the default network's bridge, one the uplink. What is written to a tap the
//! kernel carries all the way within that call. Still nothing is taken for lost before a frame that
//! was sent behind it has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use nix::unistd::{read, write};
use serde_json::{Value, json};
use volnet_ffi::tun::{self, NO_PI, TAP, Tun, VNET_HDR};

use crate::common::daemon::Daemon;
use crate::common::{eventually, ip_link, run};
use crate::frame::{IPV4, Mac, Tag, ethernet, udp};

/// Who can send and receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A guest on the default network that means harm.
    Attacker,
    /// Another guest there.
    Victim,
    /// Two guests there that are isolated.
    Left,
    Right,
    /// A guest on another network, which is routed and not NATed.
    Stranger,
    /// A port of the default network's bridge that is not volnet's.
    Wire,
    /// A machine behind the host's uplink.
    World,
    /// The host itself, by the sockets that are bound there.
    Host,
}

use Party::{Attacker, Host, Left, Right, Stranger, Victim, Wire, World};

const GUESTS: [(Party, &str, &str); 5] = [
    (Attacker, "attacker", r#"{}"#),
    (Victim, "victim", r#"{}"#),
    (Left, "left", r#"{"isolated": true}"#),
    (Right, "right", r#"{"isolated": true}"#),
    (Stranger, "stranger", r#"{"name": "lab"}"#),
];

/// The address of the world, and that of the host towards it.
const WORLD_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const UPLINK_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const WORLD_MAC: Mac = [0x02, 0, 0, 0, 0, 0x77];
/// The host's address on the default network.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The ports on which the host listens.
const HOST_PORTS: [u16; 2] = [67, 7777];
/// Bytes of `struct virtio_net_hdr` in front of each frame; all zeros means nothing special.
const VNET_HDR_BYTES: usize = 10;
const FRAME_BYTES_MAX: usize = 2048;

/// A frame and whom it may reach.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) from: Party,
    pub(crate) frame: Box<Make>,
    /// Who receives it, or an answer to it; empty: nobody.
    pub(crate) to: &'static [Party],
}

type Make = dyn Fn(&Cast, Tag) -> Vec<u8>;

/// The addresses of everybody.
pub(crate) struct Cast(BTreeMap<Party, (Mac, Ipv4Addr)>);

impl Cast {
    pub(crate) fn mac(&self, party: Party) -> Mac {
        self.0[&party].0
    }

    pub(crate) fn ip(&self, party: Party) -> Ipv4Addr {
        self.0[&party].1
    }
}

pub(crate) struct Arena {
    pub(crate) daemon: Daemon,
    cast: Cast,
    taps: BTreeMap<Party, Tun>,
    sockets: Vec<UdpSocket>,
    sent: u16,
}

impl Arena {
    /// A host with two networks and the guests of [`GUESTS`], all of them open.
    pub(crate) fn new() -> Arena {
        run("ip link set lo up");
        let daemon = Daemon::configured(&json!({ "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "10.10.0.0/16" },
            { "name": "lab", "bridge": "vbr1", "subnet": "10.20.0.0/16", "nat": false },
        ] }));
        let mut arena = Arena {
            daemon,
            cast: Cast(BTreeMap::new()),
            taps: BTreeMap::new(),
            sockets: HOST_PORTS.map(bind).into(),
            sent: 0,
        };
        arena.add_uplink();
        arena.add_wire();
        for (party, name, network) in GUESTS {
            arena.add_guest(party, name, network);
        }
        arena.cast.0.insert(Host, (mac_of("vbr0"), GATEWAY));
        arena.wait_for_ports();
        arena
    }

    fn add_uplink(&mut self) {
        run("ip tuntap add uplink mode tap vnet_hdr");
        run(&format!("ip addr add {UPLINK_IP}/24 dev uplink"));
        run("ip link set uplink up");
        run(&format!("ip route add default via {WORLD_IP}"));
        know(WORLD_IP, WORLD_MAC, "uplink");
        self.cast.0.insert(World, (mac_of("uplink"), WORLD_IP));
        self.taps.insert(World, open("uplink"));
    }

    fn add_wire(&mut self) {
        run("ip tuntap add wire mode tap vnet_hdr");
        run("ip link set wire master vbr0 addrgenmode none up");
        self.cast.0.insert(Wire, ([0x02, 0, 0, 0, 0, 0x88], Ipv4Addr::new(10, 10, 250, 250)));
        self.taps.insert(Wire, open("wire"));
    }

    fn add_guest(&mut self, party: Party, name: &str, network: &str) {
        let network: Value = serde_json::from_str(network).expect("JSON");
        let answer =
            self.daemon.call("Create", json!({ "name": name, "config": { "network": network } }));
        let vm = &answer["parameters"]["vm"];
        let text = |field: &str| vm[field].as_str().unwrap_or_else(|| panic!("{answer}"));
        let (mac, ip) = (bytes_of(text("mac")), text("ip").parse().expect("an address"));
        know(ip, mac, if vm["network"] == "lab" { "vbr1" } else { "vbr0" });
        self.cast.0.insert(party, (mac, ip));
        self.taps.insert(party, open(text("tap")));
    }

    /// A bridge opens a port some time after its tap has found a reader, and learns where somebody
    /// is when he speaks.
    fn wait_for_ports(&mut self) {
        for case in couriers() {
            eventually("the ports are open", || {
                let tag = self.send(&case);
                case.to.iter().all(|to| self.receive().contains(&(tag, *to)))
            });
        }
    }

    /// More guests on the first network, whom nobody plays.
    pub(crate) fn add_crowd(&mut self, count: usize) {
        let mut connection = self.daemon.connect();
        for number in 0..count {
            let name = format!("crowd{number}");
            let answer = connection.call("Create", json!({ "name": name, "config": {} }));
            assert!(answer["error"].is_null(), "{answer}");
        }
    }

    /// Sends the frames of all cases, and gives those who received them, or an answer to them, by
    /// the number of the case.
    fn run(&mut self, cases: &[Case]) -> BTreeSet<(usize, Party)> {
        let sent: Vec<Tag> = cases.iter().map(|case| self.send(case)).collect();
        let mut missing = BTreeSet::new();
        for courier in couriers() {
            let tag = self.send(&courier);
            missing.extend(courier.to.iter().map(|to| (tag, *to)));
        }
        let mut seen = BTreeSet::new();
        eventually("the couriers have arrived", || {
            seen.extend(self.receive());
            missing.is_subset(&seen)
        });
        let number = |tag| sent.iter().position(|sent| *sent == tag);
        seen.into_iter().filter_map(|(tag, by)| Some((number(tag)?, by))).collect()
    }

    fn send(&mut self, case: &Case) -> Tag {
        self.sent += 1;
        let tag = Tag(self.sent);
        let frame = (case.frame)(&self.cast, tag);
        let bytes = [&[0; VNET_HDR_BYTES][..], &frame].concat();
        write(self.taps[&case.from].as_fd(), &bytes).expect("to write a frame");
        tag
    }

    /// Sends the frames of the cases and compares whom they reached with whom they should.
    pub(crate) fn check(&mut self, cases: &[Case]) {
        let seen = self.run(cases);
        let mut wrong = String::new();
        for (number, Case { name, from, to, .. }) in cases.iter().enumerate() {
            let by: Vec<Party> =
                seen.iter().filter(|(of, _)| *of == number).map(|(_, by)| *by).collect();
            let mut to = to.to_vec();
            to.sort();
            if by != to {
                wrong += &format!("{name}, from {from:?}: reached {by:?}, not {to:?}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}{}", run("nft list ruleset"));
    }

    /// Reads everything that has arrived anywhere.
    fn receive(&self) -> BTreeSet<(Tag, Party)> {
        let mut seen = BTreeSet::new();
        let mut bytes = [0; FRAME_BYTES_MAX];
        for (party, tap) in &self.taps {
            while let Ok(length) = read(tap.as_fd(), &mut bytes) {
                let tag = Tag::of(&bytes[VNET_HDR_BYTES..length]);
                seen.extend(tag.map(|tag| (tag, *party)));
            }
        }
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(&mut bytes) {
                seen.extend(Tag::of(&bytes[..length]).map(|tag| (tag, Host)));
            }
        }
        seen
    }
}

/// Datagrams that every rule lets pass: from each, and to each.
fn couriers() -> Vec<Case> {
    let courier = |from, hop, to: &'static [Party]| {
        let frame = move |cast: &Cast, tag: Tag| {
            let packet = udp((cast.ip(from), 9), (cast.ip(to[0]), HOST_PORTS[0]), &tag.text());
            let hop = match hop {
                Hop::None => cast.mac(to[0]),
                Hop::Bridge(name) => mac_of(name),
            };
            ethernet(hop, cast.mac(from), IPV4, &packet)
        };
        Case { name: "courier", from, frame: Box::new(frame), to }
    };
    vec![
        courier(Attacker, Hop::None, &[Wire]),
        courier(Victim, Hop::None, &[Wire]),
        courier(Left, Hop::None, &[Wire]),
        courier(Right, Hop::None, &[Wire]),
        courier(Wire, Hop::None, &[Attacker]),
        courier(Wire, Hop::None, &[Victim]),
        courier(Wire, Hop::None, &[Left]),
        courier(Wire, Hop::None, &[Right]),
        courier(Wire, Hop::None, &[Host]),
        courier(Stranger, Hop::Bridge("vbr1"), &[World]),
        courier(World, Hop::Bridge("uplink"), &[Stranger]),
    ]
}

/// By way of whom something is sent.
#[derive(Clone, Copy)]
enum Hop {
    None,
    Bridge(&'static str),
}

fn open(tap: &str) -> Tun {
    let file = tun::open().expect("to open /dev/net/tun");
    Tun::attach(file, tap, TAP | NO_PI | VNET_HDR).expect("the tap")
}

fn bind(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port of the host");
    socket.set_nonblocking(true).expect("a socket that does not wait");
    socket
}

/// Lets the host know an address, so that it need not ask.
fn know(ip: Ipv4Addr, mac: Mac, link: &str) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    run(&format!("ip neigh replace {ip} lladdr {mac} dev {link} nud permanent"));
}

/// The address of a link of the host.
pub(crate) fn mac_of(link: &str) -> Mac {
    bytes_of(ip_link(link)["address"].as_str().expect("a link with an address"))
}

fn bytes_of(mac: &str) -> Mac {
    let byte = |text| u8::from_str_radix(text, 16).expect("a byte");
    mac.split(':').map(byte).collect::<Vec<u8>>().try_into().expect("six bytes")
}
