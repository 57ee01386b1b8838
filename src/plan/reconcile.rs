//! From what should be and what is, to what is to be done.
//!
//! [`reconcile`] compares everything; the plan that it makes is empty when nothing is wrong.
//! Setup, recovery at start, repair of drift and teardown (nothing desired) are this one function.
//! Making and removing one VM is its restriction to one port, [`attach_plan`] and [`release_plan`],
//! which take the same steps without looking at the rest of the host.
//!
//! What is ours is told by the alias that we give it when we make it, never by its name: `volnet:`
//! on a bridge, `volnet:` and the VM's name on a tap. Whatever else has a name that we need is
//! somebody's: it is never changed or deleted, it is a [`Problem`] that says what was found. That
//! holds for a bridge which the administrator made before us, too; giving it the alias hands it
//! over, and then its settings and addresses are those of the configuration.
//!
//! Order of a plan: what must go goes first, taps before bridges; then links, so that rules and
//! elements never name one that is missing; forwarding is switched on when the rules stand.

mod bridge;
mod port;
mod problem;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub use self::bridge::is_right as bridge_is_right;
pub use self::port::{DesiredPort, GROUP_FORWARD, Seen, attach_plan, release_plan};
pub use self::problem::Problem;
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::model::net::NetworkConfig;
use crate::plan::op::{Handover, Op, Plan, PortSettings};
use crate::plan::ruleset::{Accept, Family, Key, Table};

/// What the alias of everything that is ours begins with.
pub const ALIAS: &str = "volnet:";

/// What should be. The default is nothing at all.
#[derive(Clone, Debug, Default)]
pub struct Desired<'a> {
    /// The networks.
    pub networks: Vec<&'a NetworkConfig>,
    /// The ports of all VMs that have one.
    pub ports: Vec<DesiredPort<'a>>,
    /// The tables, with the elements of all VMs.
    pub tables: Vec<Table>,
    /// IPv4 forwarding; `None` leaves it as it is.
    pub forwarding: Option<bool>,
}

/// What a comparison comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// What is to be done; empty when all is as it should be.
    pub plan: Plan,
    /// What is wrong and not ours to change.
    pub problems: Vec<Problem>,
}

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link of the namespace.
    pub links: Vec<Link>,
    /// Every IPv4 address: index of its link, the address, length of its prefix.
    pub addresses: Vec<(u32, Ipv4Addr, u8)>,
    /// Destinations of the host's IPv4 routes in the main table, with the index of the link.
    pub routes: Vec<(u32, crate::model::prefix::Prefix)>,
    /// Whether IPv4 forwarding is on.
    pub forwarding: bool,
    /// Whether the kernel does not speak IPv6.
    pub without_ipv6: bool,
    /// The tables of ours that are there.
    pub tables: Vec<ObservedTable>,
    /// Accept rules of ours in other people's chains.
    pub accepts: Vec<Accept>,
    /// The chain in `ip filter` that our accept rules belong into, if there is one.
    pub accept_chain: Option<String>,
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ifalias`, how ownership is marked.
    pub alias: Option<String>,
    /// What it is.
    pub kind: LinkKind,
    /// Index of the bridge it is attached to.
    pub master: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// It has a carrier (`IFF_LOWER_UP`, linux/if.h): of a tap that is up, somebody has it open.
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// What it is as a port of that bridge.
    pub port: PortSettings,
    /// To what we hold it back. News of a link do not tell, but others do.
    pub shaping: Option<Shaping>,
    /// It is a bridge that volnet made and did not come to give its alias.
    pub unfinished: bool,
}

/// The kinds of link that volnet tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A TAP device, with its flags.
    Tap { vnet_hdr: bool, multi_queue: bool, persistent: bool, owner: Option<u32> },
    /// Anything else.
    Other,
}

/// A table of ours as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Whether it is owned and persistent.
    pub owned: bool,
    /// Whether chains, rules and sets are exactly those that this binary makes
    /// (see [`super::ruleset::Table::fingerprint`]).
    pub fingerprint: Option<u64>,
    /// The sets with their elements.
    pub sets: Vec<(String, Vec<Key>)>,
}

impl Link {
    /// It is taken off its bridge, and with that loses what it was as a port.
    pub fn leave(&mut self) {
        (self.master, self.port) = (None, PortSettings::default());
    }

    /// Whether it is a bridge that volnet made.
    pub fn is_our_bridge(&self) -> bool {
        self.kind == LinkKind::Bridge && self.alias.as_deref() == Some(ALIAS)
    }

    /// Whether it is a tap that volnet made.
    pub fn is_our_tap(&self) -> bool {
        let vm = self.alias.as_deref().and_then(|alias| alias.strip_prefix(ALIAS));
        matches!(self.kind, LinkKind::Tap { .. }) && vm.is_some_and(|vm| !vm.is_empty())
    }

    /// Whether it is a tap that volnet was about to remove: it has no VM's name any more.
    pub fn is_retired(&self) -> bool {
        matches!(self.kind, LinkKind::Tap { .. }) && self.alias.as_deref() == Some(ALIAS)
    }
}

/// Compares, and plans what makes the two the same.
pub fn reconcile(desired: &Desired<'_>, observed: &Observed) -> Reconciled {
    let stale = stale(desired, observed);
    let links = Links::of(observed, &stale);
    let mut problems = Vec::new();
    let taken: BTreeSet<&str> = desired
        .networks
        .iter()
        .filter_map(|network| links.taken(network))
        .map(|link| {
            problems.push(Problem::bridge_taken(link));
            link.name.as_str()
        })
        .collect();
    let free = |bridge: &str| !taken.contains(bridge);
    let networks: Vec<_> =
        desired.networks.iter().copied().filter(|network| free(&network.bridge)).collect();

    let tables = rules::compare_tables(&desired.tables, observed);
    let accepts = rules::compare_accepts(&networks, observed);
    let forgotten = forgotten(desired, &tables.left);
    let mut plan = tables.removed_elements;
    let remove = |link: &&Link| port::remove(&link.name, link.index);
    plan.extend(stale.iter().filter(|link| !link.is_our_bridge()).map(remove));
    plan.extend(tables.closed);
    plan.extend(forgotten);
    plan.extend(accepts.remove);
    plan.extend(tables.remove);
    plan.extend(forwarding(desired, observed, false));
    plan.extend(stale.iter().filter(|link| link.is_our_bridge()).map(remove));
    for network in networks {
        plan.extend(bridge::attend(network, &links, observed));
    }
    for port in desired.ports.iter().filter(|port| free(port.bridge)) {
        match port::attach(port, links.seen(port.tap.as_str())) {
            Ok(ops) => plan.extend(ops),
            Err(problem) => problems.push(problem),
        }
    }
    plan.extend(tables.put);
    plan.extend(forwarding(desired, observed, true));
    plan.extend(accepts.add);
    Reconciled { plan, problems }
}

/// The links of ours that nobody wants any more.
fn stale<'a>(desired: &Desired<'_>, observed: &'a Observed) -> Vec<&'a Link> {
    let bridges: BTreeSet<&str> =
        desired.networks.iter().map(|network| network.bridge.as_str()).collect();
    let taps: BTreeSet<&str> = desired.ports.iter().map(|port| port.tap.as_str()).collect();
    let unwanted = |link: &&Link| {
        let name = link.name.as_str();
        link.is_retired()
            || link.unfinished
            || link.is_our_bridge() && !bridges.contains(name)
            || link.is_our_tap() && !taps.contains(name)
    };
    observed.links.iter().filter(unwanted).collect()
}

/// What has the kernel forget the addresses that VMs had and none has now. Which those are only our
/// sets tell; links do not.
fn forgotten(desired: &Desired<'_>, left: &[Ipv4Addr]) -> Plan {
    let leased: BTreeSet<Ipv4Addr> = desired.ports.iter().filter_map(|port| port.address).collect();
    let of_network = |&address: &Ipv4Addr| {
        let network = desired.networks.iter().find(|network| network.subnet.contains(address))?;
        Some(port::forget(&network.bridge, address, Handover::Released))
    };
    left.iter().filter(|address| !leased.contains(address)).filter_map(of_network).collect()
}

/// The switch of forwarding, if it has to be turned to `on`.
fn forwarding(desired: &Desired<'_>, observed: &Observed, on: bool) -> Option<Op> {
    (desired.forwarding == Some(on) && observed.forwarding != on)
        .then_some(Op::SetForwarding { on })
}

/// The links that stay, by name and by index.
struct Links<'a> {
    by_name: BTreeMap<&'a str, &'a Link>,
    names: BTreeMap<u32, &'a str>,
}

impl<'a> Links<'a> {
    fn of(observed: &'a Observed, stale: &[&Link]) -> Links<'a> {
        let gone: BTreeSet<u32> = stale.iter().map(|link| link.index).collect();
        let links = observed.links.iter().filter(|link| !gone.contains(&link.index));
        Links {
            by_name: links.clone().map(|link| (link.name.as_str(), link)).collect(),
            names: links.map(|link| (link.index, link.name.as_str())).collect(),
        }
    }

    /// A link by name, with the name of the one that it is attached to.
    fn seen(&self, name: &str) -> Option<Seen<'a>> {
        let link = *self.by_name.get(name)?;
        Some(Seen { link, master: link.master.and_then(|index| self.names.get(&index).copied()) })
    }

    /// The link that has the name of a network's bridge and is not ours.
    fn taken(&self, network: &NetworkConfig) -> Option<&'a Link> {
        self.by_name.get(network.bridge.as_str()).copied().filter(|link| !link.is_our_bridge())
    }
}

#[cfg(test)]
pub(crate) mod tests;
