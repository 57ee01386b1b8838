//! Makes a plan from the desired and the observed state.
//!
//! [`reconcile`] compares everything; its plan is empty if nothing is wrong. Setup, recovery at
//! start, repair of drift and teardown (nothing desired) are this one function. [`attach_plan`] and
//! [`release_plan`] make and remove one VM: they take the same steps for one port, without
//! comparing the rest of the host.
//!
//! Our links are recognised by the alias that we give them when we make them, never by their name:
//! `volnet:` on a bridge, `volnet:` and the VM's name on a tap or veth. Any other link with a name
//! that we need belongs to somebody else: it is never changed or deleted, and it is a [`Problem`]
//! that describes it. This is also so for a bridge that the administrator made before. If the
//! administrator gives it the alias, it becomes ours, and gets the settings and addresses of the
//! configuration.
//!
//! Order of a plan: removals come first, taps before bridges. Then come bridges, rules, taps,
//! routes to guests, and forwarding.
//!
//! A port of a bridge that is in none of our sets is nobody's, and may send anything. So a tap is
//! attached after its elements were added, and it is gone or off its bridge before they are
//! removed. Elements may name a link that does not exist.

mod bridge;
mod kind;
mod port;
mod problem;
mod route;
mod rules;
mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use self::bridge::is_right as bridge_is_right;
pub use self::kind::{Behind, InnerAddress, NicKind, VethEnds, made, remove};
pub use self::port::{DesiredPort, GROUP_FORWARD, Seen, attach_plan, is_parked, release_plan};
pub use self::problem::Problem;
use self::stale::Stale;
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::model::net::NetworkConfig;
use crate::model::prefix::Prefix;
use crate::plan::op::{Filtered, Handover, Op, Plan, PortSettings, Switch};
use crate::plan::ruleset::{Accept, Family, Key, Table};

/// The prefix of the aliases of our links.
pub const ALIAS: &str = "volnet:";

/// `accept_ra` of a link that accepts router advertisements unless the host forwards.
pub const ACCEPT_RA: u8 = 1;
/// `accept_ra` of a link that accepts them always.
const ACCEPT_RA_ALWAYS: u8 = 2;

/// The desired state. The default is empty.
#[derive(Clone, Debug, Default)]
pub struct Desired<'a> {
    /// The networks.
    pub networks: Vec<&'a NetworkConfig>,
    /// The ports of all VMs that have one.
    pub ports: Vec<DesiredPort<'a>>,
    /// Links of ours that stay, but are on no bridge and down.
    pub parked: BTreeSet<&'a str>,
    /// The tables, with the elements of all VMs.
    pub tables: Vec<Table>,
    /// IPv4 forwarding; `None` leaves it as it is.
    pub forwarding: Option<bool>,
    /// IPv6 forwarding; `None` leaves it as it is.
    pub forwarding6: Option<bool>,
    /// Links that accepted router advertisements while the host did not forward. They do again when
    /// it does not any more.
    pub accepted: BTreeSet<String>,
    /// Whether taps are removed that no VM has, but a process holds open.
    pub evict: bool,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The plan; empty if nothing is wrong.
    pub plan: Plan,
    /// Problems: differences that volnet may not change.
    pub problems: Vec<Problem>,
}

/// The observed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every link of the namespace.
    pub links: Vec<Link>,
    /// Every address: index of its link, the address, length of its prefix.
    pub addresses: Vec<(u32, IpAddr, u8)>,
    /// Destinations of the host's routes in the main table, with the index of the link.
    pub routes: Vec<(u32, Prefix<IpAddr>)>,
    /// Routes of ours to guests: index of the link, the guest's address, the MTU.
    pub guest_routes: Vec<(u32, IpAddr, u16)>,
    /// Whether IPv4 forwarding is on.
    pub forwarding: bool,
    /// Switches of IPv6: forwarding, and `accept_ra` of links of others where it is on.
    pub switches: BTreeMap<Switch, u8>,
    /// Whether the kernel does not speak IPv6.
    pub without_ipv6: bool,
    /// Whether bridged frames cannot pass the rules for routed packets: the module br_netfilter is
    /// not loaded.
    pub without_bridge_filter: bool,
    /// Our tables.
    pub tables: Vec<ObservedTable>,
    /// Our accept rules in other programs' chains.
    pub accepts: Vec<Accept>,
    /// The chains for our accept rules, in the tables `filter` of these families.
    pub accept_chains: BTreeMap<Family, String>,
}

/// An observed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ifalias`, which marks the owner.
    pub alias: Option<String>,
    /// Its kind.
    pub kind: LinkKind,
    /// Index of the bridge it is attached to.
    pub master: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// It has a carrier (`IFLA_CARRIER`, linux/if_link.h): a tap has one while a process has it
    /// open, up or down (drivers/net/tun.c, `tun_set_iff` and `__tun_detach`).
    pub carrier: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Mac,
    /// What it does with bridged frames; `None` if it is no bridge, or the kernel cannot.
    pub filtered: Option<Filtered>,
    /// Its settings as a port of that bridge.
    pub port: PortSettings,
    /// Its state as that port (`BR_STATE_*`, linux/if_bridge.h), which follows from its carrier and
    /// the spanning tree protocol.
    pub state: Option<u8>,
    /// Whether it is a bridge that looks at who listens to which group of IPv4 and IPv6.
    pub snooping: bool,
    /// Its shaping by us. News about a link does not have it, but other news does.
    pub shaping: Option<Shaping>,
    /// It is a bridge or a veth that volnet made, but had not given its alias yet.
    pub unfinished: bool,
}

/// The kinds of link that volnet distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// A TAP device, with its flags.
    Tap { vnet_hdr: bool, multi_queue: bool, persistent: bool, owner: Option<u32> },
    /// One end of a pair of Ethernet links (veth(4)).
    Veth,
    /// Anything else.
    Other,
}

/// One of our tables, observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
    /// Whether it is owned and persistent; `None` where the kernel has no such tables.
    pub owned: Option<bool>,
    /// Whether chains, rules and sets are exactly those of this binary (see
    /// [`super::ruleset::Table::fingerprint`]).
    pub fingerprint: Option<u64>,
    /// The sets with their elements.
    pub sets: Vec<(String, Vec<Key>)>,
}

impl Link {
    /// It leaves its bridge, and loses its settings as a port.
    pub fn leave(&mut self) {
        (self.master, self.port, self.state) = (None, PortSettings::default(), None);
    }

    /// Whether it is a bridge that volnet made.
    pub fn is_our_bridge(&self) -> bool {
        self.kind == LinkKind::Bridge && self.alias.as_deref() == Some(ALIAS)
    }
}

/// Compares the two, and plans the steps that make them equal.
pub fn reconcile(desired: &Desired<'_>, observed: &Observed) -> Reconciled {
    let Stale { links: stale, held, mut problems } = stale::find(desired, observed);
    let links = Links::of(observed, &stale);
    let taken: BTreeSet<&str> = desired
        .networks
        .iter()
        .filter_map(|network| links.problem(network).map(|problem| (network, problem)))
        .map(|(network, problem)| {
            problems.push(problem);
            network.bridge.as_str()
        })
        .collect();
    let speaks = desired.networks.iter().find(|network| network.ipv6.is_some());
    if let (Some(network), true) = (speaks, observed.without_ipv6) {
        problems.push(Problem::NoIpv6 { network: network.name.clone() });
    }
    let serves = desired.networks.iter().find(|network| network.services);
    if let (Some(network), true) = (serves, observed.without_bridge_filter) {
        problems.push(Problem::NoBridgeFilter { network: network.name.clone() });
    }
    let free = |bridge: &str| !taken.contains(bridge);
    let networks: Vec<_> =
        desired.networks.iter().copied().filter(|network| free(&network.bridge)).collect();

    let ports = || desired.ports.iter().filter(|port| free(port.bridge));
    let wanted = route::wanted(ports(), observed);
    let tables = rules::compare_tables(&desired.tables, observed);
    let accepts = rules::compare_accepts(&networks, observed);
    let forgotten = forgotten(desired, &tables.left);
    let mut plan = park(desired, &held, &links);
    let remove = |link: &&Link| kind::remove(&link.name, link.index);
    plan.extend(stale.iter().filter(|link| !link.is_our_bridge()).map(remove));
    plan.extend(tables.removed_elements);
    plan.extend(tables.closed);
    plan.extend(forgotten);
    plan.extend(route::left_over(&wanted, &links, observed));
    plan.extend(accepts.remove);
    plan.extend(tables.remove);
    plan.extend(forwarding(desired, observed, false));
    plan.extend(switches(desired, observed, false));
    plan.extend(stale.iter().filter(|link| link.is_our_bridge()).map(remove));
    let mut attended = BTreeSet::new();
    for network in networks {
        let attend = bridge::attend(network, &links, observed);
        attended.extend((!attend.is_empty()).then_some(network.bridge.as_str()));
        plan.extend(attend);
    }
    plan.extend(ports().flat_map(|it| port::forget_past(it, links.seen(it.tap.as_str()))));
    plan.extend(tables.put);
    for port in ports() {
        match port::attach(port, links.seen(port.tap.as_str())) {
            Ok(ops) => plan.extend(ops),
            Err(problem) => problems.push(problem),
        }
    }
    plan.extend(route::missing(&wanted, &attended, &links, observed));
    plan.extend(forwarding(desired, observed, true));
    plan.extend(switches(desired, observed, true));
    plan.extend(accepts.add);
    Reconciled { plan, problems }
}

/// Takes the links that are to be parked off their bridges.
fn park(desired: &Desired<'_>, held: &[&Link], links: &Links<'_>) -> Plan {
    let names = desired.parked.iter().copied().chain(held.iter().map(|link| link.name.as_str()));
    let seen = names.filter_map(|name| links.seen(name));
    seen.filter(|seen| seen.link.is_of_nic()).filter_map(port::park).collect()
}

/// What removes the bridges whose making was cut short.
pub fn remove_unfinished(observed: &Observed) -> Plan {
    let unfinished = observed.links.iter().filter(|link| link.unfinished);
    unfinished.map(|link| kind::remove(&link.name, link.index)).collect()
}

/// The Ops that delete the kernel's memory of addresses that no VM has any more. Only our sets have
/// these addresses; links do not.
fn forgotten(desired: &Desired<'_>, left: &[IpAddr]) -> Plan {
    let movable = desired.ports.iter().flat_map(|port| port.movable).copied().map(IpAddr::V4);
    let own = desired.ports.iter().flat_map(DesiredPort::addresses);
    let leased: BTreeSet<IpAddr> = own.chain(movable).collect();
    let of_network = |&address: &IpAddr| {
        let network = desired.networks.iter().find(|network| network.contains(address))?;
        // The gateway is in elements of guests with an inner identity.
        let is_gateway =
            network.is_host(address) || network.gateway().map(IpAddr::V4) == Some(address);
        (!is_gateway).then(|| port::forget(&network.bridge, address, Handover::Released))
    };
    left.iter().filter(|address| !leased.contains(address)).filter_map(of_network).collect()
}

/// The Op that switches forwarding to `on`, if needed.
fn forwarding(desired: &Desired<'_>, observed: &Observed, on: bool) -> Option<Op> {
    (desired.forwarding == Some(on) && observed.forwarding != on)
        .then_some(Op::SetForwarding { on })
}

/// The Ops that switch forwarding of IPv6 to `on`. A host that forwards accepts no router
/// advertisements on links with `accept_ra` 1, and would lose the routes that it has from them. So
/// these links get 2 before. If the host forwards already, they are left as they are.
fn switches(desired: &Desired<'_>, observed: &Observed, on: bool) -> Plan {
    if desired.forwarding6 != Some(on) {
        return Plan::new();
    }
    let set = |(switch, former): (&Switch, &u8), to: u8| {
        let (switch, former) = (switch.clone(), *former);
        (former != to).then_some(Op::SetSwitch { switch, to, former })
    };
    let forwarding = observed.switches.get_key_value(&Switch::Forwarding);
    let forwarding = forwarding.and_then(|known| set(known, on.into()));
    let to = if on { ACCEPT_RA_ALWAYS } else { ACCEPT_RA };
    let is_switched = forwarding.is_some();
    let accept = observed.switches.iter().filter_map(|(switch, value)| match switch {
        Switch::AcceptRa(_) if on => set((switch, value), to).filter(|_| is_switched),
        Switch::AcceptRa(link) if desired.accepted.contains(link) => set((switch, value), to),
        Switch::AcceptRa(_) | Switch::Forwarding => None,
    });
    match on {
        true => accept.chain(forwarding).collect(),
        false => forwarding.into_iter().chain(accept).collect(),
    }
}

/// The links that stay, by name and index.
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

    /// A link by name, with the name of its bridge.
    fn seen(&self, name: &str) -> Option<Seen<'a>> {
        let link = *self.by_name.get(name)?;
        Some(Seen { link, master: link.master.and_then(|index| self.names.get(&index).copied()) })
    }

    /// Why nothing can be attached to a network's bridge: a managed one is not ours, another one
    /// does not exist.
    fn problem(&self, network: &NetworkConfig) -> Option<Problem> {
        match self.by_name.get(network.bridge.as_str()) {
            Some(link) if network.managed => {
                (!link.is_our_bridge()).then(|| Problem::bridge_taken(link))
            }
            Some(link) if link.kind == LinkKind::Bridge => None,
            None if network.managed => None,
            Some(_) | None => Some(Problem::BridgeMissing { bridge: network.bridge.clone() }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
