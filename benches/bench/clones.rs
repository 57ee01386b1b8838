//! Guests that wake from one snapshot and all believe in one address: by volnet, and as others do
//! it.
//!
//! The other way is that of Firecracker's `docs/snapshotting/network-for-clones.md`: each clone has
//! a network namespace with a tap, a pair of links to the host, and rules of iptables that
//! translate its address. [`Namespaces`] does that as fast as a script can: one shell for each
//! clone, `ip -batch`, `iptables-restore`, and one rule of the host that masquerades for all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use serde_json::Value;
use volnet::network::linux::monitor::Monitor;

use crate::contender::{Contender, Detached};
use crate::daemon::wait_until_gone;
use crate::floor::ipv4;
use crate::peers::feed;
use crate::record::Record;
use crate::stage::{Stage, run};
use crate::traffic::{self, Guest, Place, bytes_of};

/// The configuration of a volnet whose VMs are all clones.
pub(crate) const CONFIGURATION: &str = r#"{ "networks": [{ "inner": {
    "mac": "02:aa:aa:aa:aa:aa", "ip": "192.168.241.2/29", "gateway": "192.168.241.1" } }] }"#;
/// What each guest believes of its address.
const INNER_MAC: [u8; 6] = [0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa];
const INNER_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 241, 2);
/// The first network between the host and a namespace; each has four addresses.
const BETWEEN: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// Sees that the rules of a volnet do not depend on how many VMs there are.
pub(crate) fn count_rules(stage: &Stage, who: &str, vms: usize, record: &mut Record) -> usize {
    stage.enter();
    let list: Value = serde_json::from_str(&run("nft -j -t list ruleset")).expect("JSON");
    let objects = list["nftables"].as_array().expect("a list");
    let rules = objects.iter().filter(|object| object["rule"].is_object()).count();
    record.value("rules of nf_tables", who, Some(vms), rules as f64, "count");
    rules
}

/// A namespace for each clone.
pub(crate) struct Namespaces {
    stage: Stage,
    attached: u32,
    filled: usize,
    /// The number of each clone that is there.
    there: BTreeMap<String, u32>,
}

impl Namespaces {
    /// A host that masquerades for clones.
    pub(crate) fn new() -> Namespaces {
        let stage = Stage::new("clones-ns");
        stage.enter();
        traffic::add_world(&stage, false);
        run("sysctl -qw net.ipv4.ip_forward=1");
        run("iptables -t nat -A POSTROUTING -o uplink -j MASQUERADE");
        Namespaces { stage, attached: 0, filled: 0, there: BTreeMap::new() }
    }

    /// Plays the guest of a clone that is there.
    pub(crate) fn guest(&self, vm: &str) -> Guest {
        Stage::at(&namespace(self.there[vm])).enter();
        let tap: Value = serde_json::from_str(&run("ip -j link show vmtap0")).expect("JSON");
        let gateway = bytes_of(tap[0]["address"].as_str().expect("an address"));
        let place = Place { mac: INNER_MAC, ip: INNER_IP.into(), gateway };
        traffic::set_neighbour("vmtap0", INNER_MAC, place.ip);
        Guest::new("vmtap0", &place)
    }
}

fn namespace(number: u32) -> String {
    format!("fc{number}")
}

/// The ends of the pair of links of a clone: the host's, and that in the namespace.
fn ends(number: u32) -> [Ipv4Addr; 2] {
    [1, 2].map(|end| Ipv4Addr::from_bits(BETWEEN.to_bits() + 4 * number + end))
}

impl Contender for Namespaces {
    fn name(&self) -> &str {
        "clone by namespace, veth, iptables"
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn attach(&mut self, vm: &str) -> Duration {
        self.stage.enter();
        self.attached += 1;
        let number = self.attached;
        self.there.insert(vm.into(), number);
        let namespace = namespace(number);
        let ([host, inside], veth) = (ends(number), format!("veth{number}"));
        let outer = Ipv4Addr::from_bits(ipv4().host.to_bits() + number);
        let script = format!(
            "set -e
ip netns add {namespace}
ip -batch - <<END
link add name {veth} type veth peer name veth0 netns {namespace}
addr add {host}/30 dev {veth}
link set {veth} up
route add {outer} via {inside}
END
nsenter --net=/run/netns/{namespace} sh -e <<'OUTER'
echo 1 >/proc/sys/net/ipv4/ip_forward
ip -batch - <<END
tuntap add name vmtap0 mode tap vnet_hdr
addr add 192.168.241.1/29 dev vmtap0
link set vmtap0 up
addr add {inside}/30 dev veth0
link set veth0 up
route add default via {host}
END
iptables-restore <<END
*nat
-A PREROUTING -i veth0 -d {outer} -j DNAT --to {INNER_IP}
-A POSTROUTING -o veth0 -s {INNER_IP} -j SNAT --to {outer}
COMMIT
END
OUTER
"
        );
        let start = Instant::now();
        feed(&mut Command::new("sh"), &script);
        start.elapsed()
    }

    fn detach(&mut self, vm: &str) -> Detached {
        self.stage.enter();
        let number = self.there.remove(vm).expect("a clone that is there");
        let link = if_nametoindex(format!("veth{number}").as_str()).expect("a link");
        let mut monitor = Monitor::open(0).expect("news of links");
        let start = Instant::now();
        run(&format!("ip netns del {}", namespace(number)));
        let answered = start.elapsed();
        wait_until_gone(&mut monitor, link);
        Detached { answered, gone: start.elapsed() }
    }

    fn fill(&mut self, vms: usize) -> Duration {
        let numbers = self.filled..vms;
        self.filled = self.filled.max(vms);
        numbers.map(|number| self.attach(&format!("vm{number}"))).sum()
    }
}
