//! The hops of a VM on its host: its process, its tap, its gateway, what it may send.

use std::net::IpAddr;

use super::{broken, doubtful, well};
use crate::model::attachment::Attachment;
use crate::model::expose::Expose;
use crate::model::name::VmName;
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::nic::Nic;
use crate::model::policy::{OPEN, Policy};
use crate::model::record::Record;
use crate::model::traffic::InForce;
use crate::model::view::{Finding, Status};
use crate::plan::firewall::Hindrance;
use crate::plan::reconcile::{Link, Observed};

/// `BR_STATE_FORWARDING` (linux/if_bridge.h).
const FORWARDING: u8 = 3;
/// The other states of a port, by their numbers there.
const STATES: [&str; 5] = ["disabled", "listening", "learning", "forwarding", "blocking"];

/// What is known of a VM's process.
#[derive(Clone, Copy, Debug)]
pub struct Process<'a> {
    /// The VM.
    pub vm: &'a VmName,
    /// Its status.
    pub status: Status,
    /// Its process, if it has one.
    pub pid: Option<u32>,
    /// Whether volnet can start one.
    pub can_start: bool,
    /// Whether it is started again soon.
    pub waits: bool,
    /// Why it does not run.
    pub last_error: Option<&'a str>,
    /// Why its hypervisor has stopped its guest by itself, if it has.
    pub halt: Option<&'a str>,
    /// Whether its guest cannot go on.
    pub is_broken: bool,
    /// Whether all its taps are open.
    pub is_held: bool,
}

/// Whether somebody runs the guest.
pub fn process(process: &Process<'_>) -> Finding {
    let Process { vm, status, pid, .. } = *process;
    let well = |message: String| well("process", message);
    match (status, pid) {
        (Status::Paused, Some(pid)) => {
            let why = process.halt.map_or(String::new(), |words| format!(": {words}"));
            let verb = if process.is_broken { "restart" } else { "resume" };
            broken(
                "process",
                format!("process {pid} runs, but its guest is paused{why}"),
                format!("volnet {verb} {vm}"),
            )
        }
        (Status::Stopping, Some(pid)) => broken(
            "process",
            format!("process {pid} was asked to end"),
            format!("volnet start {vm}, when it has ended"),
        ),
        (Status::Running, Some(pid)) => well(format!("process {pid} runs")),
        (_, Some(pid)) => doubtful(
            "process",
            format!("process {pid} starts, and its guest does not run yet"),
            format!("volnet logs {vm}"),
        ),
        (_, None) if !process.can_start && process.is_held => {
            well("volnet does not run it, and somebody has its tap open".into())
        }
        (_, None) if !process.can_start => broken(
            "process",
            "volnet does not run it, and nobody has its tap open",
            format!("volnet args {vm}, and start a hypervisor with that"),
        ),
        (_, None) => {
            let why = process.last_error.and_then(|words| words.lines().next());
            let why = why.map_or(String::new(), |words| format!(": {words}"));
            match process.waits {
                true => doubtful(
                    "process",
                    format!("its hypervisor has ended, and is started again soon{why}"),
                    format!("volnet logs {vm}"),
                ),
                false => broken(
                    "process",
                    format!("its hypervisor does not run{why}"),
                    format!("volnet start {vm}"),
                ),
            }
        }
    }
}

/// The namespace of an attachment, which has no process: the other end of its link is there and up.
pub fn namespace(attachment: &Attachment, is_joined: bool) -> Finding {
    let Attachment { id, netns, .. } = attachment;
    let link = &id.ifname;
    match is_joined {
        true => well("namespace", format!("{link} in {netns} is up")),
        false => broken(
            "namespace",
            format!("{link} in {netns} is down"),
            format!("nsenter --net={netns} ip link set {link} up"),
        ),
    }
}

/// The tap of a VM: there, up, open, and a port of its bridge that forwards.
pub fn tap(name: &str, network: &NetworkConfig, mtu: u16, seen: &Observed) -> Finding {
    const REPAIR: &str = "volnet setup";
    let bridge = &network.bridge;
    let find = |name: &str| seen.links.iter().find(|link| link.name == name);
    let Some(link) = find(name) else {
        return broken("tap", format!("there is no link {name}"), REPAIR);
    };
    if !link.up {
        return broken("tap", format!("{name} is down"), format!("ip link set {name} up"));
    }
    if find(bridge).map(|bridge| bridge.index) != link.master {
        let command = format!("ip link set {name} master {bridge}");
        return broken("tap", format!("{name} is not a port of {bridge}"), command);
    }
    if !link.carrier {
        let message = format!("{name} has no carrier: no process has it open");
        return broken("tap", message, "see the first line");
    }
    if link.mtu != u32::from(mtu) {
        let message = format!("{name} has an MTU of {}, not of {mtu}", link.mtu);
        return doubtful("tap", message, format!("ip link set {name} mtu {mtu}"));
    }
    port(link, bridge)
}

/// The state of a port.
fn port(link: &Link, bridge: &str) -> Finding {
    let name = &link.name;
    match link.state {
        None | Some(FORWARDING) => {
            well("tap", format!("{name} is up, open, and a port of {bridge} that forwards"))
        }
        Some(state) => broken(
            "tap",
            format!(
                "as a port of {bridge}, {name} is {}: the bridge runs the spanning tree protocol",
                STATES.get(usize::from(state)).unwrap_or(&"in an unknown state")
            ),
            format!("ip link set {bridge} type bridge stp_state 0"),
        ),
    }
}

/// The gateway of a network, if that is the host: the bridge is up and has the address.
pub fn gateway(network: &NetworkConfig, seen: &Observed) -> Finding {
    let bridge = &network.bridge;
    let repair = |command: String| if network.managed { "volnet setup".into() } else { command };
    let Some(link) = seen.links.iter().find(|link| link.name == *bridge) else {
        let command = repair(format!("ip link add {bridge} type bridge"));
        return broken("gateway", format!("there is no bridge {bridge}"), command);
    };
    if !link.up {
        let command = repair(format!("ip link set {bridge} up"));
        return broken("gateway", format!("{bridge} is down"), command);
    }
    let has =
        |ip: IpAddr| seen.addresses.iter().any(|(at, own, _)| *at == link.index && *own == ip);
    let mut addresses = network.bridge_addresses().filter(|(ip, _)| network.is_host(*ip));
    match addresses.find(|(ip, _)| !has(*ip)) {
        None => {
            let own: Vec<String> = network.host_addresses().map(|ip| ip.to_string()).collect();
            let verb = if own.len() > 1 { "are" } else { "is" };
            let message = format!("{} {verb} the host's, on {bridge}", own.join(" and "));
            well("gateway", message)
        }
        Some((ip, length)) => {
            let command = repair(format!("ip address add {ip}/{length} dev {bridge}"));
            broken("gateway", format!("the host does not have {ip} on {bridge}"), command)
        }
    }
}

/// The gateway of a network, if that is another machine, which was asked.
pub fn other_gateway(network: &NetworkConfig, gateway: IpAddr, answers: bool) -> Finding {
    let bridge = &network.bridge;
    match answers {
        true => well("gateway", format!("{gateway} answers on {bridge}")),
        false => broken(
            "gateway",
            format!("{gateway}, the gateway of network {}, does not answer", network.name),
            format!("look for its machine: bridge link shows the ports of {bridge}"),
        ),
    }
}

/// What a guest may send beyond its network, and to whom in it. `denied` is how many packets its
/// policy has dropped.
pub fn policy(traffic: &InForce<'_>, policy: Option<&Policy>, denied: u64) -> Vec<Finding> {
    let name = traffic.policy;
    let mut message = match policy {
        _ if name == OPEN => format!("{name}: the guest may send anywhere"),
        Some(policy) if policy.rules.is_empty() => {
            format!("{name}: the guest may send nothing beyond its network")
        }
        Some(_) | None => format!("{name}: the guest may send what its rules allow"),
    };
    if denied > 0 {
        message += &format!("; {denied} packets were denied (volnet trace says which)");
    }
    let apart = "isolated: other isolated guests of its network do not get what it sends";
    let apart = traffic.isolated.then(|| well("policy", apart));
    [well("policy", message)].into_iter().chain(apart).collect()
}

/// The lease of the interface of this number, whose guest asks for its address and was last
/// answered so many seconds ago.
pub fn lease(nic: &Nic, index: usize, dhcp: &Dhcp, answered_s: Option<u64>) -> Finding {
    let lately = answered_s.map_or(String::new(), |seconds| format!("; {}", lately(seconds)));
    match (dhcp, nic.lease.filter(|lease| lease.given)) {
        (Dhcp::Builtin, Some(lease)) => well("dhcp", format!("volnet leased {}{lately}", lease.ip)),
        (Dhcp::Builtin, None) => broken(
            "dhcp",
            format!("the guest has not asked volnet for an address{lately}"),
            format!("in the guest: udhcpc -i eth{index}, or another client"),
        ),
        (_, _) => well("dhcp", "another server gives the guest its address"),
    }
}

/// A guest that was answered a name so many seconds ago.
pub fn names(answered_s: u64) -> Finding {
    well("names", lately(answered_s))
}

fn lately(answered_s: u64) -> String {
    format!("the guest was last answered {answered_s} s ago")
}

/// Whether guests of a network have the host's address in the world.
pub fn nat(network: &NetworkConfig) -> Finding {
    let four = network.ipv4.filter(|_| !network.nat).map(|ipv4| ipv4.prefix.to_string());
    let six = network.ipv6.filter(|ipv6| !ipv6.nat).map(|ipv6| ipv6.prefix.to_string());
    let routed: Vec<String> = four.into_iter().chain(six).collect();
    if routed.is_empty() {
        return well("nat", "what guests send to the world has the address of the host");
    }
    let prefixes = routed.join(" and to ");
    well("nat", format!("there is none: the world has to know the way to {prefixes}"))
}

/// An exposed port that nothing is in the way of.
pub fn exposed(port: &Expose) -> Finding {
    well("ports", format!("{} {} of the host leads there", port.protocol, port.host_port))
}

/// The rules of others that take what is for the exposed ports of a VM.
pub fn shadowed(record: &Record, hindrances: &[Hindrance]) -> Vec<Finding> {
    let ports = record.host_ports();
    let name = &record.name;
    let taken =
        ports.flat_map(|port| hindrances.iter().filter_map(move |rule| rule.of_port(&port, name)));
    taken.collect()
}
