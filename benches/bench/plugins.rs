//! Plugins of CNI, and volnet as one of them: ADD and DEL as engines call them, a process for each
//! plugin of the list. Each makes a pair of links into a network namespace, which the benchmark
//! makes beforehand and does not count.
//!
//! The floor of these is a pair of links of the bare system calls, by sockets that are open.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use volnet::model::mac::Mac;
use volnet::netlink::rtnl::link::{self, LinkChange, PortChange, Target};
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::network::linux::veth::{self, Inside};
use volnet::plan::op::InnerLink;
use volnet::plan::reconcile::GROUP_FORWARD;

use crate::contender::{Contender, Detached};
use crate::daemon::{BINARY, Daemon};
use crate::floor::{Floor, ipv4};
use crate::peers::feed;
use crate::record::Record;
use crate::stage::{Stage, run};

/// Where Debian puts the plugins of CNI.
const CNI_PATH: &str = "/usr/lib/cni";
/// What they are called here.
const BRIDGE: &str = "CNI bridge, host-local, ipMasq";
const CHAIN: &str = "CNI bridge, host-local, portmap, bandwidth";
const VOLNET: &str = "volnet as CNI plugin, port and limits";
/// The first port of the host that leads to a container.
const FIRST_PORT: u32 = 10_000;

/// All of them; the record says who is not there.
pub(crate) fn all(record: &mut Record, slow_most: usize) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> =
        vec![Box::new(Pairs::new()), Box::new(volnet(slow_most))];
    let bridge = json!({
        "type": "bridge", "bridge": "vbr0", "isGateway": true, "ipMasq": true,
        "ipam": {
            "type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{ "subnet": ipv4().prefix.to_string() }]],
        },
    });
    let lists = [
        (BRIDGE, "cni", vec![bridge.clone()]),
        (CHAIN, "chain", vec![bridge, json!({"type": "portmap"}), json!({"type": "bandwidth"})]),
    ];
    for (name, stage, list) in lists {
        let is_there = |plugin: &Value| {
            Path::new(CNI_PATH).join(plugin["type"].as_str().expect("a name")).exists()
        };
        match list.iter().all(is_there) {
            true => all.push(Box::new(Plugins::new(name, stage, list, slow_most))),
            false => record.missing("attach", name, "containernetworking-plugins is not installed"),
        }
    }
    all
}

/// volnet with its daemon, and with all that the chain has.
fn volnet(slow_most: usize) -> Plugins {
    let daemon = Daemon::new(VOLNET, Stage::new("plugin"), true, "{}");
    let list = vec![json!({ "type": "volnet", "socket": daemon.socket() })];
    Plugins { daemon: Some(daemon), ..Plugins::new(VOLNET, "called", list, slow_most) }
}

/// The plugins of one list.
struct Plugins {
    name: &'static str,
    /// The configuration of each, in their order.
    list: Vec<Value>,
    /// The most VMs that it is measured with.
    most: usize,
    /// Where they run, and the namespace of the container that comes and goes.
    stage: Stage,
    guest: Stage,
    /// The result of each container that is there, and its port of the host.
    there: BTreeMap<String, (Value, u32)>,
    attached: u32,
    /// Containers that stay, in namespaces of their own.
    filled: HashSet<String>,
    /// volnet's daemon.
    daemon: Option<Daemon>,
}

impl Plugins {
    fn new(name: &'static str, stage: &str, list: Vec<Value>, most: usize) -> Plugins {
        let (stage, guest) = (Stage::new(stage), Stage::new(&format!("{stage}-guest")));
        let (there, filled) = (BTreeMap::new(), HashSet::new());
        Plugins { name, list, most, stage, guest, there, attached: 0, filled, daemon: None }
    }

    /// Calls one of them, and gives what it printed.
    fn call(&self, verb: &str, vm: &str, plugin: &Value, port: u32, before: &Value) -> String {
        let kind = plugin["type"].as_str().expect("a name");
        let namespace = match self.filled.contains(vm) {
            true => format!("{}-{vm}", self.guest.path()),
            false => self.guest.path(),
        };
        let mut conf = plugin.clone();
        (conf["cniVersion"], conf["name"]) = ("1.0.0".into(), self.stage.name().into());
        // The bridge alone is told of neither.
        if self.list.len() > 1 || self.daemon.is_some() {
            conf["runtimeConfig"] = json!({
                "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}],
                "bandwidth": {
                    "ingressRate": 100_000_000, "ingressBurst": 8_000_000,
                    "egressRate": 100_000_000, "egressBurst": 8_000_000
                },
            });
        }
        if !before.is_null() {
            conf["prevResult"] = before.clone();
        }
        let program = if kind == "volnet" { BINARY.into() } else { format!("{CNI_PATH}/{kind}") };
        let mut command = Command::new(program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", vm)
            .env("CNI_NETNS", namespace)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", CNI_PATH);
        feed(&mut command, &conf.to_string())
    }
}

impl Contender for Plugins {
    fn name(&self) -> &str {
        self.name
    }

    fn most(&self) -> usize {
        self.most
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.stage.enter();
        self.attached += 1;
        let (port, mut result) = (FIRST_PORT + self.attached, Value::Null);
        let start = Instant::now();
        for plugin in &self.list {
            let printed = self.call("ADD", vm, plugin, port, &result);
            result = serde_json::from_str(&printed).expect("a result");
        }
        let took = start.elapsed();
        self.there.insert(vm.into(), (result, port));
        took
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.stage.enter();
        let (result, port) = self.there.remove(vm).expect("a container that is there");
        let start = Instant::now();
        for plugin in self.list.iter().rev() {
            self.call("DEL", vm, plugin, port, &result);
        }
        let gone = start.elapsed();
        Detached { answered: gone, gone }
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let mut took = Duration::ZERO;
        for number in self.filled.len()..vms {
            let vm = format!("vm{number}");
            run(&format!("ip netns add {}-{vm}", self.guest.name()));
            self.filled.insert(vm.clone());
            took += self.attach(&vm);
        }
        took
    }
}

/// The floor: pairs of links on a bridge with volnet's rules.
struct Pairs {
    floor: Floor,
    inside: Inside,
    attached: u32,
    filled: usize,
}

impl Pairs {
    fn new() -> Pairs {
        let guest = Stage::new("pairs-guest");
        guest.enter();
        let door = Socket::open(NetlinkFamily::Route).expect("rtnetlink");
        let floor = Floor::new("floor, a pair of links", Stage::new("pairs"), None);
        let inside = Inside::new(door.as_fd(), None, &floor.links).expect("another namespace");
        Pairs { floor, inside, attached: 0, filled: 0 }
    }

    /// The pair, complete inside; then the port, up, as one send.
    fn make(&mut self, tap: &str, alias: &str, number: u32) {
        let ip = Ipv4Addr::from_bits(ipv4().host.to_bits() + number);
        let mac = Mac::of_guest("default", tap);
        let inner = InnerLink {
            netns: "pairs-guest".into(),
            name: format!("eth{number}"),
            tap: None,
            mac,
            addresses: vec![(ip.into(), ipv4().prefix.length())],
            gateways: vec![ipv4().host.into()],
        };
        let spec = veth::Spec { name: tap, mac: mac.highest(), mtu: 1500, alias, inner: &inner };
        let links = &mut self.floor.links;
        let index = veth::create(links, Some(&mut self.inside), &spec).expect("a pair");
        let (master, up) = (Some(self.floor.bridge), Some(true));
        let change = LinkChange { master, up, ..LinkChange::default() };
        let (isolated, group_forward) = (Some(false), Some(GROUP_FORWARD));
        let port = PortChange { isolated, group_forward, ..PortChange::default() };
        links
            .request(2, |writer, sequence| {
                link::set(writer, sequence.take(), Target::Index(index), &change);
                link::set_port(writer, sequence.take(), Target::Index(index), &port);
            })
            .expect("to attach");
    }
}

impl Contender for Pairs {
    fn name(&self) -> &str {
        self.floor.name()
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.floor.stage.enter();
        self.attached += 1;
        let (vm, number) = (self.floor.vm(vm, self.attached), self.attached);
        let start = Instant::now();
        self.make(&vm.tap, &vm.alias, number);
        self.floor.add(vm);
        start.elapsed()
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.floor.detach(vm)
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let numbers = self.filled..vms;
        self.filled = self.filled.max(vms);
        numbers.map(|number| self.attach(&format!("vm{number}"))).sum()
    }
}
