//! The arena of the attacks: a host with volnet, and everybody whom a frame may reach.
//!
//! The test holds the taps of some VMs and plays their guests, or whoever has all rights in their
//! namespaces. It also holds two taps that are not
//! volnet's: another port of the default network's bridge, and the uplink. The kernel delivers a
//! frame within the call that writes it. Still, a frame counts as lost only after a later frame has
//! arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::common::daemon::Daemon;
use crate::common::{eventually, ip_link, run};
use crate::end::{Behind, End, FRAME_BYTES_MAX};
use crate::frame::{ARP, ARP_REQUEST, IPV4, IPV6, Mac, Tag, arp, ethernet, udp, udp6};

/// A party that can send and receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// The attacker: a guest on the default network.
    Attacker,
    /// Another guest there.
    Victim,
    /// Two guests there that are isolated.
    Left,
    Right,
    /// A guest there that has no address yet.
    Fresh,
    /// A guest there with `antispoof: false`.
    Trusted,
    /// A guest on another network, which is routed and not NATed, and has IPv6.
    Stranger,
    /// Two guests there that use another DHCP server.
    Asker,
    Other,
    /// That server: a port of that network's bridge that is not volnet's.
    Server,
    /// A port of the default network's bridge that is not volnet's.
    Wire,
    /// A machine behind the host's uplink.
    World,
    /// The host itself, with its sockets.
    Host,
}

use Party::{
    Asker, Attacker, Fresh, Host, Left, Other, Right, Server, Stranger, Trusted, Victim, Wire,
    World,
};

const GUESTS: [(Party, &str, &str); 9] = [
    (Attacker, "attacker", r#"{}"#),
    (Victim, "victim", r#"{"addresses": ["10.10.200.1"]}"#),
    (Left, "left", r#"{"isolated": true, "addresses": ["10.10.200.1"]}"#),
    (Right, "right", r#"{"isolated": true}"#),
    (Fresh, "fresh", r#"{"mode": "dhcp"}"#),
    (Trusted, "trusted", r#"{"antispoof": false}"#),
    (Stranger, "stranger", r#"{"name": "lab"}"#),
    (Asker, "asker", r#"{"name": "lab", "mode": "dhcp"}"#),
    (Other, "other", r#"{"name": "lab", "mode": "dhcp"}"#),
];

/// The address of the world, and that of the host towards it.
/// How many of the crowd are made at the same time.
const CREATES_TOGETHER: usize = 100;
const WORLD_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const UPLINK_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const WORLD_MAC: Mac = [0x02, 0, 0, 0, 0, 0x77];
/// The host's addresses on the two networks, and one that it has besides.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
pub(crate) const LAB_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// The lab's IPv6 prefix, of 64 bits.
const LAB_PREFIX6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, 0);
pub(crate) const OTHER_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// An address that the victim and the left one may use besides their own.
pub(crate) const MOVABLE_IP: Ipv4Addr = Ipv4Addr::new(10, 10, 200, 1);
/// The world and the host towards it by IPv6, and where clouds hand out credentials there.
pub(crate) const WORLD_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2);
const UPLINK_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
pub(crate) const METADATA6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
/// What a clone takes for its own, and for the host.
const INNER: (Mac, Ipv4Addr) =
    ([0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa], Ipv4Addr::new(10, 10, 222, 2));
const INNER_HOST: Mac = [0x02, 0x76, 0x6f, 0x6c, 0x67, 0x77];
/// Where clouds hand out credentials.
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// A port of the host that the default network lists, and one that no network does.
pub(crate) const LISTED: u16 = 7000;
pub(crate) const UNLISTED: u16 = 7777;
/// The ports on which the host listens.
const HOST_PORTS: [u16; 3] = [67, LISTED, UNLISTED];

/// A frame, and the parties that it may reach.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) from: Party,
    pub(crate) frame: Box<Make>,
    /// The parties that receive it, or an answer to it.
    pub(crate) to: &'static [Party],
}

type Make = dyn Fn(&Cast, Tag) -> Vec<u8>;

/// The addresses of all parties.
#[derive(Clone, Default)]
pub(crate) struct Cast {
    addresses: BTreeMap<Party, (Mac, Ipv4Addr)>,
    /// How often the cases were tried: what is given by DHCP is another address each time.
    pub(crate) time: u8,
}

impl Cast {
    pub(crate) fn mac(&self, party: Party) -> Mac {
        self.addresses[&party].0
    }

    pub(crate) fn ip(&self, party: Party) -> Ipv4Addr {
        self.addresses[&party].1
    }
}

/// How the host of an arena is guarded.
struct Guard {
    antispoof: bool,
    /// Where guests with an address are, if that is in namespaces.
    behind: Option<Behind>,
    services: bool,
    /// What the attacker takes for its own, and for the host's Ethernet address.
    inner: Option<((Mac, Ipv4Addr), Mac)>,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { antispoof: true, behind: None, services: false, inner: None }
    }
}

pub(crate) struct Arena {
    pub(crate) daemon: Daemon,
    cast: Cast,
    /// The same, as the attacker knows it.
    believed: Cast,
    ends: BTreeMap<Party, End>,
    sockets: Vec<UdpSocket>,
    sent: u16,
    /// Each port sends frames to groups back, to whoever sent them.
    echoes: bool,
}

impl Arena {
    /// A host with two networks and the guests of [`GUESTS`].
    pub(crate) fn new() -> Arena {
        Arena::guarded(Guard::default())
    }

    /// The same, where the attacker is a clone: it knows other addresses of itself and of the host
    /// than others do.
    pub(crate) fn of_clone() -> Arena {
        Arena::guarded(Guard { inner: Some((INNER, INNER_HOST)), ..Guard::default() })
    }

    /// The same, where services of kube-proxy would work: bridged frames pass the rules for routed
    /// packets, and each port sends frames back.
    pub(crate) fn with_services() -> Arena {
        Arena::guarded(Guard { services: true, ..Guard::default() })
    }

    /// The same, where guests with an address are namespaces, or are behind taps in namespaces.
    /// Frames of a pair of links are queued, each processor has a queue of its own, and so they
    /// keep their order on one processor alone.
    pub(crate) fn of_namespaces(behind: Behind) -> Arena {
        let mut one = CpuSet::new();
        one.set(sched_getcpu().expect("a processor")).expect("it is one");
        sched_setaffinity(Pid::from_raw(0), &one).expect("it is one of ours");
        Arena::guarded(Guard { behind: Some(behind), ..Guard::default() })
    }

    /// The same without rules for bridges: guests may use any address, and none is isolated.
    pub(crate) fn unguarded() -> Arena {
        Arena::guarded(Guard { antispoof: false, ..Guard::default() })
    }

    fn guarded(Guard { antispoof, behind, services, inner }: Guard) -> Arena {
        run("ip link set lo up");
        let daemon = Daemon::configured(&json!({ "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "10.10.0.0/16",
              "antispoof": antispoof, "services": services,
              "host_services": ["ping", format!("tcp/{LISTED}"), format!("udp/{LISTED}")] },
            { "name": "lab", "bridge": "vbr1", "subnet": "10.20.0.0/16", "nat": false,
              "antispoof": antispoof, "services": services,
              "ipv6": { "prefix": format!("{LAB_PREFIX6}/64") } },
        ] }));
        let mut arena = Arena {
            daemon,
            cast: Cast::default(),
            believed: Cast::default(),
            ends: BTreeMap::new(),
            sockets: HOST_PORTS.map(bind).into(),
            sent: 0,
            echoes: services,
        };
        arena.add_uplink();
        arena.add_wire(Wire, "wire", "vbr0", Ipv4Addr::new(10, 10, 250, 250));
        arena.add_wire(Server, "server", "vbr1", Ipv4Addr::new(10, 20, 250, 250));
        for (party, name, network) in GUESTS {
            let mut network: Value = serde_json::from_str(network).expect("JSON");
            if !antispoof {
                network.as_object_mut().expect("an object").remove("isolated");
            }
            if let (Attacker, Some(((mac, ip), host))) = (party, inner) {
                let [mac, host] = [mac, host].map(text_of);
                network["inner"] = json!({ "mac": mac, "ip": ip, "gateway_mac": host });
            }
            match behind.filter(|_| is_attached(&network)) {
                Some(behind) => arena.add_room(party, name, &network, behind),
                None => arena.add_guest(party, name, &network),
            }
        }
        arena.cast.addresses.insert(Host, (mac_of("vbr0"), GATEWAY));
        arena.believed = arena.cast.clone();
        if let Some((attacker, host)) = inner {
            arena.believed.addresses.extend([(Attacker, attacker), (Host, (host, GATEWAY))]);
        }
        arena.wait_for_ports();
        arena
    }

    fn add_uplink(&mut self) {
        run("ip tuntap add uplink mode tap vnet_hdr");
        run(&format!("ip addr add {UPLINK_IP}/24 dev uplink"));
        run(&format!("ip addr add {OTHER_IP}/16 dev uplink"));
        run("ip link set uplink up");
        run(&format!("ip route add default via {WORLD_IP}"));
        know(WORLD_IP, WORLD_MAC, "uplink");
        know(METADATA, WORLD_MAC, "uplink");
        run(&format!("ip addr add {UPLINK_IP6}/64 dev uplink nodad"));
        run(&format!("ip -6 route add default via {WORLD_IP6}"));
        know(WORLD_IP6, WORLD_MAC, "uplink");
        self.cast.addresses.insert(World, (mac_of("uplink"), WORLD_IP));
        self.ends.insert(World, End::tap("uplink"));
    }

    fn add_wire(&mut self, party: Party, name: &str, bridge: &str, ip: Ipv4Addr) {
        run(&format!("ip tuntap add {name} mode tap vnet_hdr"));
        run(&format!("ip link set {name} master {bridge} addrgenmode none up"));
        self.cast.addresses.insert(party, ([0x02, 0, 0, 0, 0x88, party as u8], ip));
        self.ends.insert(party, End::tap(name));
    }

    fn add_guest(&mut self, party: Party, name: &str, network: &Value) {
        let answer =
            self.daemon.call("Create", json!({ "name": name, "config": { "network": network } }));
        let vm = &answer["parameters"]["vm"];
        let tap = vm["tap"].as_str().unwrap_or_else(|| panic!("{answer}"));
        self.add(party, vm, End::tap(tap));
    }

    /// The same as an attachment.
    fn add_room(&mut self, party: Party, name: &str, network: &Value, behind: Behind) {
        let mut flags = Vec::new();
        for (key, value) in network.as_object().expect("an object") {
            let value = value.as_str().or(value[0].as_str()).unwrap_or_default();
            let flag = if key == "name" { "network" } else { key };
            flags.push(format!("--{flag}"));
            flags.extend((!value.is_empty()).then(|| value.to_string()));
        }
        let (end, vm) = match behind {
            Behind::Link => End::room(&self.daemon, name, &flags),
            Behind::Tap => End::inner_tap(&self.daemon, name, &flags),
        };
        self.add(party, &vm, end);
    }

    fn add(&mut self, party: Party, vm: &Value, end: End) {
        let text = |field: &str| vm[field].as_str().unwrap_or_else(|| panic!("{vm}"));
        let mac = bytes_of(text("mac"));
        let ip = match vm["ip"].as_str() {
            Some(ip) => ip.parse().expect("an address"),
            None => Ipv4Addr::UNSPECIFIED,
        };
        if !ip.is_unspecified() {
            know(ip, mac, if vm["network"] == "lab" { "vbr1" } else { "vbr0" });
        }
        if !vm["ip6"].is_null() {
            know(global(mac), mac, "vbr1");
        }
        self.cast.addresses.insert(party, (mac, ip));
        self.ends.insert(party, end);
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

    /// More guests on the two networks, which the test does not play.
    pub(crate) fn add_crowd(&mut self, count: usize) {
        let numbers: Vec<usize> = (0..count).collect();
        // There is a wire on the bridge, so each address is asked for before it is leased.
        for together in numbers.chunks(CREATES_TOGETHER) {
            let create = |number: &usize| {
                let network = ["default", "lab"][number % 2];
                let config = json!({ "network": { "name": network } });
                let parameters = json!({ "name": format!("crowd{number}"), "config": config });
                let call = json!({ "method": "io.volnet.Create", "parameters": parameters });
                let mut connection = self.daemon.connect();
                connection.send(format!("{call}\n").as_bytes());
                connection
            };
            let asked: Vec<_> = together.iter().map(create).collect();
            for mut connection in asked {
                let answer = connection.receive().expect("an answer");
                assert!(answer["error"].is_null(), "{answer}");
            }
            // The questions do not stay in the queues, where frames of the test would be lost.
            self.receive();
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
        let frame = (case.frame)(self.known_to(case.from), tag);
        self.ends[&case.from].send(&frame);
        tag
    }

    /// The addresses that a party knows.
    fn known_to(&self, party: Party) -> &Cast {
        if party == Attacker { &self.believed } else { &self.cast }
    }

    /// Sends the frames of the cases and compares whom they reached with whom they should.
    pub(crate) fn check(&mut self, cases: &[Case]) {
        self.cast.time += 1;
        self.believed.time = self.cast.time;
        let seen = self.run(cases);
        let mut wrong = String::new();
        for (number, Case { name, from, to, .. }) in cases.iter().enumerate() {
            let own = |by: &Party| self.echoes && by == from && !to.contains(by);
            let of_case = seen.iter().filter(|(of, _)| *of == number).map(|(_, by)| *by);
            let by: Vec<Party> = of_case.filter(|by| !own(by)).collect();
            let mut to = to.to_vec();
            to.sort();
            if by != to {
                wrong += &format!("{name}, from {from:?}: reached {by:?}, not {to:?}\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}{}", run("nft list ruleset"));
    }

    /// How often cases were tried.
    pub(crate) fn times(&self) -> u8 {
        self.cast.time
    }

    /// Sends a frame again and again, and gives how often it reached somebody.
    pub(crate) fn repeat(&mut self, case: &Case, times: usize, to: Party) -> usize {
        let tag = self.send(case);
        let frame = (case.frame)(self.known_to(case.from), tag);
        let (mut arrived, mut bytes) = (0, [0; FRAME_BYTES_MAX]);
        for sent in 1..=times {
            while let Some(frame) = self.ends[&to].receive(&mut bytes) {
                arrived += usize::from(Tag::of(frame) == Some(tag));
            }
            if sent < times {
                self.ends[&case.from].send(&frame);
            }
        }
        arrived
    }

    /// Lets the host send a datagram from a port of its own.
    pub(crate) fn call(&self, port: u16, to: Party, to_port: u16) {
        let at = HOST_PORTS.iter().position(|bound| *bound == port).expect("a port of the host");
        self.sockets[at].send_to(b"hello", (self.cast.ip(to), to_port)).expect("to send");
    }

    /// Reads everything that has arrived anywhere.
    fn receive(&self) -> BTreeSet<(Tag, Party)> {
        let mut seen = BTreeSet::new();
        let mut bytes = [0; FRAME_BYTES_MAX];
        for (party, end) in &self.ends {
            while let Some(frame) = end.receive(&mut bytes) {
                seen.extend(Tag::of(frame).map(|tag| (tag, *party)));
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
    let courier = |from, frame: Box<Make>, to| Case { name: "courier", from, frame, to };
    let by = |hop: fn(&Cast) -> Mac, from, to: &'static [Party]| {
        let frame = move |cast: &Cast, tag: Tag| {
            let packet = udp((cast.ip(from), 9), (cast.ip(to[0]), LISTED), &tag.text());
            ethernet(hop(cast), cast.mac(from), IPV4, &packet)
        };
        courier(from, Box::new(frame), to)
    };
    // Who has no address asks whether somebody has one.
    let asks = |from, to: &'static [Party; 1]| {
        let frame = move |cast: &Cast, tag: Tag| {
            let sender = (cast.mac(from), Ipv4Addr::UNSPECIFIED);
            let packet = arp(ARP_REQUEST, sender, Ipv4Addr::new(10, 9, 9, 9), &tag.text());
            let [to] = to;
            ethernet(cast.mac(*to), cast.mac(from), ARP, &packet)
        };
        courier(from, Box::new(frame), to)
    };
    vec![
        by(|cast| cast.mac(Wire), Attacker, &[Wire]),
        by(|cast| cast.mac(Wire), Victim, &[Wire]),
        by(|cast| cast.mac(Wire), Left, &[Wire]),
        by(|cast| cast.mac(Wire), Right, &[Wire]),
        by(|cast| cast.mac(Wire), Trusted, &[Wire]),
        asks(Fresh, &[Wire]),
        by(|cast| cast.mac(Attacker), Wire, &[Attacker]),
        by(|cast| cast.mac(Victim), Wire, &[Victim]),
        by(|cast| cast.mac(Left), Wire, &[Left]),
        by(|cast| cast.mac(Right), Wire, &[Right]),
        by(|cast| cast.mac(Fresh), Wire, &[Fresh]),
        by(|cast| cast.mac(Trusted), Wire, &[Trusted]),
        by(|cast| cast.mac(Host), Wire, &[Host]),
        by(|cast| cast.mac(Server), Stranger, &[Server]),
        asks(Asker, &[Server]),
        asks(Other, &[Server]),
        by(|cast| cast.mac(Asker), Server, &[Asker]),
        by(|cast| cast.mac(Other), Server, &[Other]),
        courier(Stranger, Box::new(to_lab_gateway6), &[Host]),
        by(|_| mac_of("vbr1"), Stranger, &[World]),
        by(|_| mac_of("uplink"), World, &[Stranger]),
    ]
}

/// The link-local address of whoever has this Ethernet address (RFC 4291, appendix A).
pub(crate) fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    let pair = |high: u8, low: u8| u16::from(high) << 8 | u16::from(low);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

/// The address in the lab of whoever has this Ethernet address.
pub(crate) fn global(mac: Mac) -> Ipv6Addr {
    let identifier = link_local(mac).to_bits() & u128::from(u64::MAX);
    Ipv6Addr::from_bits(LAB_PREFIX6.to_bits() | identifier)
}

/// One of many addresses in the lab that are nobody's.
pub(crate) fn lab_address6(number: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(LAB_PREFIX6.to_bits() | 1 << 48 | u128::from(number))
}

/// The host, as guests of the lab know it by IPv6.
pub(crate) fn lab_gateway6() -> Ipv6Addr {
    link_local(mac_of("vbr1"))
}

/// A datagram of IPv6 to a port that the lab lists.
fn to_lab_gateway6(cast: &Cast, tag: Tag) -> Vec<u8> {
    let from = link_local(cast.mac(Stranger));
    let packet = udp6((from, 9), (lab_gateway6(), HOST_PORTS[0]), &tag.text());
    ethernet(mac_of("vbr1"), cast.mac(Stranger), IPV6, &packet)
}

/// Whether a guest with this network can be an attachment, which has an address and whose frames
/// are checked.
fn is_attached(network: &Value) -> bool {
    network["mode"] != "dhcp" && network["antispoof"] != false
}

/// A socket of IPv6, which takes IPv4 as well.
fn bind(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port of the host");
    socket.set_nonblocking(true).expect("a socket that does not wait");
    socket
}

/// Lets the host know an address, so that it need not ask.
fn know(ip: impl Into<IpAddr>, mac: Mac, link: &str) {
    let ip: IpAddr = ip.into();
    let mac = text_of(mac);
    run(&format!("ip neigh replace {ip} lladdr {mac} dev {link} nud permanent"));
}

fn text_of(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address of a link of the host.
pub(crate) fn mac_of(link: &str) -> Mac {
    bytes_of(ip_link(link)["address"].as_str().expect("a link with an address"))
}

fn bytes_of(mac: &str) -> Mac {
    let byte = |text| u8::from_str_radix(text, 16).expect("a byte");
    mac.split(':').map(byte).collect::<Vec<u8>>().try_into().expect("six bytes")
}
