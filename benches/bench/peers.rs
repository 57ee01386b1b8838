//! What else attaches guests to a bridge with NAT, as Debian has it: the best that a script can do,
//! plugins of CNI ([`plugins`]), netavark. Each is run the way its users run it, a process a call.
//!
//! The last two know no taps: they make a veth pair into a network namespace, which the benchmark
//! makes beforehand and does not count.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use volnet::model::mac::Mac;
use volnet::model::policy::Policy;
use volnet::network::linux::nft::Nft;
use volnet::plan::ruleset;

use crate::contender::{Contender, Detached};
use crate::floor::{ipv4, network};
use crate::plugins;
use crate::record::Record;
use crate::stage::{Stage, output_of, run};

/// Where Debian puts netavark, unless the variable `NETAVARK` names another.
const NETAVARK_PATH: &str = "/usr/lib/podman/netavark";

/// Everybody who is there; the record says who is not.
pub(crate) fn all(record: &mut Record, slow_most: usize) -> Vec<Box<dyn Contender>> {
    let mut peers: Vec<Box<dyn Contender>> = vec![Box::new(Script::new())];
    peers.extend(plugins::all(record, slow_most));
    let netavark = std::env::var("NETAVARK").unwrap_or_else(|_| NETAVARK_PATH.into());
    if Path::new(&netavark).exists() {
        peers.push(Box::new(Plugin::netavark(netavark, slow_most)));
    } else {
        record.missing("attach", "netavark", "netavark is not installed");
    }
    peers
}

/// One `ip -batch` and one `nft` a VM, on the bridge and the sets that volnet has.
struct Script {
    stage: Stage,
    attached: u32,
    filled: usize,
    /// The address of each VM that is there.
    there: BTreeMap<String, Ipv4Addr>,
}

impl Script {
    fn new() -> Script {
        let stage = Stage::new("script");
        stage.enter();
        let network = network();
        run("ip link add vbr0 type bridge");
        run(&format!("ip addr add {}/16 dev vbr0", ipv4().host));
        run("ip link set vbr0 up");
        let mut rules = Nft::new().expect("nf_tables");
        for table in ruleset::tables(&[&network], &Policy::built_in(), Vec::new(), false) {
            rules.create_table(&table).expect("a table");
        }
        Script { stage, attached: 0, filled: 0, there: BTreeMap::new() }
    }

    fn run(verb: &str, vm: &str, ip: Ipv4Addr, links: &str) -> Duration {
        let mac = Mac::of_guest("default", vm);
        let rules = format!(
            "{verb} element bridge volnet guests {{ vttap-{vm} . {mac} . {ip} }}
             {verb} element bridge volnet ports {{ vttap-{vm} }}"
        );
        let start = Instant::now();
        feed(Command::new("ip").args(["-batch", "-"]), links);
        feed(Command::new("nft").args(["-f", "-"]), &rules);
        start.elapsed()
    }
}

impl Contender for Script {
    fn name(&self) -> &str {
        "script (ip -batch, nft)"
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.stage.enter();
        self.attached += 1;
        let ip = Ipv4Addr::from_bits(ipv4().host.to_bits() + self.attached);
        self.there.insert(vm.into(), ip);
        let links = format!(
            "tuntap add dev vttap-{vm} mode tap user 0 vnet_hdr
             link set vttap-{vm} addrgenmode none alias volnet:{vm} mtu 1500 master vbr0 up
             link set vttap-{vm} type bridge_slave isolated off"
        );
        Script::run("add", vm, ip, &links)
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.stage.enter();
        let ip = self.there.remove(vm).expect("a VM that is there");
        let gone = Script::run("delete", vm, ip, &format!("link del vttap-{vm}"));
        Detached { answered: gone, gone }
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let numbers = self.filled..vms;
        self.filled = self.filled.max(vms);
        numbers.map(|number| self.attach(&format!("vm{number}"))).sum()
    }
}

/// A program that is called once to add and once to delete.
struct Plugin {
    name: String,
    /// The most VMs that it is measured with.
    most: usize,
    stage: Stage,
    /// The namespace of the VM that comes and goes.
    guest: Stage,
    attached: u32,
    /// The address of each VM, for those who must be told.
    there: BTreeMap<String, Ipv4Addr>,
    /// VMs that stay, in namespaces of their own.
    filled: HashSet<String>,
    call: Box<Calling>,
}

/// How it is called: the command, and what is written to it.
type Calling = dyn Fn(&Call<'_>) -> (Command, Value);

/// What it is called for.
struct Call<'a> {
    add: bool,
    vm: &'a str,
    namespace: String,
    ip: Ipv4Addr,
}

impl Plugin {
    /// What podman uses.
    fn netavark(program: String, most: usize) -> Plugin {
        let version = run(&format!("{program} version"));
        let version: Value = serde_json::from_str(&version).expect("JSON");
        let name = format!("netavark {}", version["version"].as_str().unwrap_or("?"));
        Plugin::new(&name, "netavark", most, move |call| {
            let mut command = Command::new(&program);
            command.args(["--config", "/run/netavark"]);
            command.args([if call.add { "setup" } else { "teardown" }, &call.namespace]);
            let document = json!({
                "container_id": call.vm, "container_name": call.vm,
                "networks": { "bench": { "interface_name": "eth0", "static_ips": [call.ip] } },
                "network_info": { "bench": {
                    "name": "bench", "id": "be".repeat(32), "driver": "bridge",
                    "network_interface": "vbr0", "internal": false, "ipv6_enabled": false,
                    "dns_enabled": false, "ipam_options": { "driver": "host-local" },
                    "subnets": [{
                        "subnet": ipv4().prefix.to_string(), "gateway": ipv4().host,
                    }],
                } },
            });
            (command, document)
        })
    }

    fn new(
        name: &str,
        stage: &str,
        most: usize,
        call: impl Fn(&Call<'_>) -> (Command, Value) + 'static,
    ) -> Plugin {
        let (stage, guest) = (Stage::new(stage), Stage::new(&format!("{stage}-guest")));
        let (there, filled) = (BTreeMap::new(), HashSet::new());
        Plugin {
            name: name.into(),
            most,
            stage,
            guest,
            attached: 0,
            there,
            filled,
            call: Box::new(call),
        }
    }

    fn run(&self, add: bool, vm: &str) -> Duration {
        self.stage.enter();
        let namespace = match self.filled.contains(vm) {
            true => format!("{}-{vm}", self.guest.path()),
            false => self.guest.path(),
        };
        let (mut command, document) = (self.call)(&Call { add, vm, namespace, ip: self.there[vm] });
        let start = Instant::now();
        feed(&mut command, &document.to_string());
        start.elapsed()
    }
}

impl Contender for Plugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn most(&self) -> usize {
        self.most
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.attached += 1;
        let ip = Ipv4Addr::from_bits(ipv4().host.to_bits() + self.attached);
        self.there.insert(vm.into(), ip);
        self.run(true, vm)
    }

    fn detach(&mut self, vm: &str) -> Detached {
        let gone = self.run(false, vm);
        self.there.remove(vm);
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

/// Runs a command on this input; it must succeed. Gives what it printed.
pub(crate) fn feed(command: &mut Command, input: &str) -> String {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    // It all fits the pipe, so nobody waits.
    File::from(writer).write_all(input.as_bytes()).expect("to write into a pipe");
    output_of(command.stdin(Stdio::from(reader)))
}
