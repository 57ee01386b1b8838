//! What all VMs of a host share: the rules that hold guests, what the kernel has room for, and the
//! way to the world.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{broken, doubtful, well};
use crate::model::expose::Ports;
use crate::model::net::NetworkConfig;
use crate::model::prefix::Prefix;
use crate::model::view::Finding;
use crate::plan::op::Switch;
use crate::plan::reconcile::{Desired, Observed, Reconciled};
use crate::plan::ruleset::{Family, TABLE};

/// Addresses of the world, to ask the kernel which way leads there. Nothing is sent to them. No
/// host has a route to them but its default one.
pub const WORLD: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));
pub const WORLD6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111));
/// A table with this share in use is nearly full, in percent.
const NEARLY_FULL: u64 = 90;
/// A table with this share in use is full, in percent. Entries come and go: a table that drops new
/// ones is at its bound at most moments, not at each.
const FULL: u64 = 99;
/// A neighbour table holds at least so many.
const NEIGHBOURS_MIN: u64 = 1024;

/// How much of something is in use, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// In use.
    pub now: u64,
    /// At most.
    pub most: u64,
}

impl Used {
    fn is_nearly_full(self) -> bool {
        self.has(NEARLY_FULL)
    }

    fn is_full(self) -> bool {
        self.has(FULL)
    }

    /// Whether at least so many percent are in use.
    fn has(self, percent: u64) -> bool {
        self.now.saturating_mul(100) >= self.most.saturating_mul(percent)
    }
}

/// Whether guests can use only their own addresses, as the present rules show, and on which
/// networks they are not checked.
pub fn antispoof(desired: &Desired<'_>, observed: &Observed) -> Vec<Finding> {
    let without = desired.networks.iter().filter(|network| !network.traffic().antispoof);
    let without = without.map(|network| {
        let message = format!("guests of network {} may send from any address", network.name);
        let hint = "set its antispoof to true, if the kernel has nf_tables for bridges";
        doubtful("antispoof", message, hint)
    });
    let is_there = observed.tables.iter().any(|it| is_guard(it.family, it.name));
    let of_others = is_wanted(desired).then(|| match is_there {
        true => well("antispoof", "guests can use only their own addresses"),
        false => broken(
            "antispoof",
            "table bridge volnet is missing: guests can use any address",
            "volnet setup says why; if the kernel has no nf_tables for bridges \
             (CONFIG_NF_TABLES_BRIDGE), set antispoof of every network to false",
        ),
    });
    without.chain(of_others).collect()
}

/// The traffic of guests that cannot be limited on this kernel. `can_shape`: it has token buckets.
pub fn limits(can_shape: bool, desired: &Desired<'_>) -> Finding {
    match (can_shape, is_wanted(desired)) {
        (true, true) => well("limits", "the rates of guests can be limited"),
        (false, _) => doubtful(
            "limits",
            "the receive rate of guests cannot be limited: the kernel has no token buckets",
            "load the module sch_tbf",
        ),
        (true, false) => doubtful(
            "limits",
            "the send rate of guests cannot be limited: no network has antispoof",
            "set antispoof of one network to true, if the kernel has nf_tables for bridges",
        ),
    }
}

/// Whether there is to be the table that checks and counts what guests send.
fn is_wanted(desired: &Desired<'_>) -> bool {
    desired.tables.iter().any(|it| is_guard(it.family, it.name))
}

/// Whether this is that table.
fn is_guard(family: Family, name: &str) -> bool {
    (family, name) == (Family::Bridge, TABLE)
}

/// What the kernel has room for; `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Tracked connections.
    pub connections: Option<Used>,
    /// IPv4 neighbours.
    pub neighbours: Option<Used>,
    /// IPv6 neighbours.
    pub neighbours6: Option<Used>,
    /// Ports that the kernel gives to connections of the host (ip-sysctl.rst,
    /// `ip_local_port_range`).
    pub local_ports: Option<Ports>,
}

/// The way that packets take from a network to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out by this link, which takes packets of so many bytes.
    By { link: String, mtu: u32 },
    /// There is none; in the kernel's words.
    None(String),
    /// That cannot be asked.
    Unknown,
}

/// Whether the host forwards the families that its networks have.
pub fn forwarding(desired: &Desired<'_>, observed: &Observed) -> Vec<Finding> {
    let has = |is_of: fn(&NetworkConfig) -> bool| desired.networks.iter().any(|it| is_of(it));
    let four = has(|network| network.ipv4.is_some()).then_some(observed.forwarding);
    let six = observed.switches.get(&Switch::Forwarding).map(|value| *value > 0);
    let six = six.filter(|_| has(|network| network.ipv6.is_some()));
    let of_family = [
        ("IPv4", four, "sysctl -w net.ipv4.ip_forward=1"),
        ("IPv6", six, "sysctl -w net.ipv6.conf.all.forwarding=1"),
    ];
    let finding = |(family, forwards, repair): (_, Option<bool>, _)| {
        Some(match forwards? {
            true => well("forwarding", format!("the host forwards {family}")),
            false => {
                let reason = "guests do not reach the world";
                broken(
                    "forwarding",
                    format!("the host does not forward {family}: {reason}"),
                    repair,
                )
            }
        })
    };
    of_family.into_iter().filter_map(finding).collect()
}

/// Whether the kernel has what it should have.
pub fn rules(reconciled: &Reconciled) -> Finding {
    let difference = reconciled.plan.iter().flat_map(|op| op.commands()).next();
    match (reconciled.problems.first(), difference) {
        (Some(problem), _) => broken("rules", problem.to_string(), "volnet check"),
        (None, Some(command)) => {
            let message = format!("the host differs from what volnet wants: {command}");
            broken("rules", message, "volnet setup")
        }
        (None, None) => well("rules", "bridge, addresses, taps and rules are as they should be"),
    }
}

/// What is to be said of the bounds. `exposed` are the ports that volnet gives to who asks for any.
pub fn bounds(bounds: &Bounds, exposed: Ports) -> Vec<Finding> {
    let connections = bounds.connections.map(|used| {
        let Used { now, most } = used;
        let more = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(2));
        match (used.is_full(), used.is_nearly_full()) {
            (true, _) => broken(
                "conntrack",
                format!("the table of connections is full ({now} of {most}): new ones are dropped"),
                more,
            ),
            (false, true) => doubtful(
                "conntrack",
                format!("{now} of {most} connections are tracked: the table is nearly full"),
                more,
            ),
            (false, false) => well("conntrack", format!("{now} of {most} connections are tracked")),
        }
    });
    let tables = [("ipv4", "IPv4", bounds.neighbours), ("ipv6", "IPv6", bounds.neighbours6)];
    let neighbours = tables.into_iter().filter_map(|(key, family, used)| {
        let used = used?;
        let (now, most) = (used.now, used.most);
        let message = format!("{now} of {most} {family} neighbours are known");
        Some(match used.is_nearly_full() {
            false => well("neighbours", message),
            true => doubtful(
                "neighbours",
                format!("{message}: no more guests can be reached soon"),
                format!(
                    "sysctl -w net.{key}.neigh.default.gc_thresh3={}",
                    most.saturating_mul(2).max(NEIGHBOURS_MIN)
                ),
            ),
        })
    });
    let ports = bounds.local_ports.map(|local| ports(local, exposed));
    connections.into_iter().chain(neighbours).chain(ports).collect()
}

/// Whether the kernel gives ports to connections of the host that volnet gives to guests.
fn ports(local: Ports, exposed: Ports) -> Finding {
    let both = format!("{}-{} for guests", exposed.first, exposed.last);
    if local.first > exposed.last || exposed.first > local.last {
        return well("port range", format!("{both}, {}-{} for the host", local.first, local.last));
    }
    // The larger part of what is left.
    let (below, above) =
        (exposed.first.saturating_sub(local.first), local.last.saturating_sub(exposed.last));
    let (first, last) = match above >= below {
        true => (exposed.last.saturating_add(1), local.last),
        false => (local.first, exposed.first.saturating_sub(1)),
    };
    let message = format!(
        "{both} overlap with {}-{}, which the kernel gives to connections of the host",
        local.first, local.last
    );
    doubtful(
        "port range",
        message,
        format!("sysctl -w net.ipv4.ip_local_port_range=\"{first} {last}\""),
    )
}

/// What is to be said of the way from a network to the world, and of the longest packets on it.
/// `mtu` is that of the guests.
pub fn way(network: &NetworkConfig, family: &str, way: &Way, mtu: u16) -> Vec<Finding> {
    let name = &network.name;
    match way {
        Way::Unknown => Vec::new(),
        Way::None(words) => {
            let option = if family == "IPv6" { "-6 " } else { "" };
            vec![broken(
                "route",
                format!("the host has no way to the world for network {name} by {family}: {words}"),
                format!("ip {option}route add default via ROUTER, the address of your router"),
            )]
        }
        Way::By { link, mtu: most } => {
            let leaves = format!("{family} from network {name} to the world leaves by {link}");
            vec![well("route", leaves), longest(network, link, *most, mtu)]
        }
    }
}

/// What is wrong with the way from a network to its peers.
pub fn peers(network: &NetworkConfig, peers: Prefix<IpAddr>, way: &Way) -> Option<Finding> {
    let name = &network.name;
    match way {
        Way::Unknown => None,
        Way::None(words) => Some(doubtful(
            "peers",
            format!("network {name}: the host has no route to the peers {peers}: {words}"),
            "add a route to them, or start what connects the hosts",
        )),
        Way::By { mtu, .. } if *mtu >= network.mtu.into() => None,
        Way::By { link, mtu } => Some(doubtful(
            "peers",
            format!(
                "network {name}: guests send {} bytes, and {link} takes {mtu} to the peers \
                 {peers}: longer packets are lost where the host's ICMP is",
                network.mtu
            ),
            format!("set mtu of network {name} to {mtu}, and restart volnet and the VMs"),
        )),
    }
}

/// Whether the packets of guests fit.
fn longest(network: &NetworkConfig, link: &str, most: u32, mtu: u16) -> Finding {
    if most >= mtu.into() {
        return well("mtu", format!("guests send {mtu} bytes, and {link} takes {most}"));
    }
    doubtful(
        "mtu",
        format!(
            "guests send {mtu} bytes, and {link} takes {most}: longer packets are lost where the \
             host's ICMP is"
        ),
        format!("set mtu of network {} to {most}, and restart volnet and the VMs", network.name),
    )
}
