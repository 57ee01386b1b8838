//! The tables of volnet, and what a VM is in their sets.
//!
//! - `bridge volnet` ([`bridged`]) holds guests to what they are where their frames come in, and
//!   keeps isolated ones apart.
//! - `ip volnet` ([`routed`]) joins the networks to the world, keeps them apart, and guards the
//!   host from guests. `ip6 volnet` ([`routed6`]) does the latter two for IPv6. Ports of the host
//!   lead to guests by maps ([`mod@exposed`]).
//!
//! The rules are the same whatever VMs there are: a VM is elements of sets, a network too. What is
//! dropped is dropped by the kernel alone, so it is dropped while no daemon runs.
//!
//! **Who is a guest.** On a bridge the port tells. A packet on its way to the host has lost it: the
//! link it came in by is the bridge, which may have an uplink behind it as well, with machines that
//! are none of volnet's business. So frames of guests get a priority of their own ([`GUEST`]) as they
//! come in, and the host's own rules look at that. (A mark would do the same, but marks belong to
//! the administrator's routing.) The kernel gives a packet that it forwards another one.
//!
//! **Without the bridge family.** A kernel may have no nf_tables for bridges. Then a host whose
//! networks all say so (`antispoof: false`) has no table `bridge volnet`, its guests are not held to
//! their addresses, and whoever comes from a bridge of ours is a guest to the host.

mod bridged;
mod exposed;
mod policies;
mod routed;
mod routed6;

use std::net::Ipv4Addr;

use super::{
    Bytes, Chain, ChainKind, Element, Family, Field, Hook, Key, Layer, Match, PacketField, Rule,
    Set, SetKind, Table, Unit, Value, Verdict,
};
use crate::model::expose::Expose;
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::name::TapName;
use crate::model::net::is_guarded;
use crate::model::net::{NetworkConfig, Service};
use crate::model::policy::Policy;

/// The name of our tables.
pub const TABLE: &str = "volnet";

/// The priority of what comes from a guest. Queues and maps of priorities go by the last four bits,
/// which are those of any packet.
const GUEST: u32 = u32::from_be_bytes(*b"vol\0");
/// `NF_IP_PRI_FILTER` and `NF_IP6_PRI_FILTER` (linux/netfilter_ipv4.h, linux/netfilter_ipv6.h).
const PRIORITY_FILTER: i32 = 0;

/// Protocols that IP carries (IANA, protocol numbers).
const ICMP: Match = is(PacketField::Protocol, 1);
const IGMP: Match = is(PacketField::Protocol, 2);
const UDP: Match = is(PacketField::Protocol, 17);
const ICMP6: Match = is(PacketField::Protocol, 58);

/// A VM with a tap, as the rules know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest<'a> {
    /// Its link on the host.
    pub tap: &'a TapName,
    /// Its address on the wire.
    pub mac: Mac,
    /// Its address, where it is we who give it one.
    pub ip: Option<Ipv4Addr>,
    /// Whether it asks others for its address.
    pub asks_others: bool,
    /// Whether it is held to its addresses.
    pub antispoof: bool,
    /// Whether it may speak IPv6.
    pub ipv6: bool,
    /// Whether it is kept from other isolated guests.
    pub isolated: bool,
    /// How much it may send.
    pub limits: Limits,
}

/// All tables, with these elements in their sets beside those of the networks.
pub fn tables(
    networks: &[&NetworkConfig],
    policies: &[Policy],
    elements: Vec<Element>,
    owned: bool,
) -> Vec<Table> {
    let mut tables =
        vec![routed::table(networks, policies, owned), routed6::table(networks, owned)];
    if is_guarded(networks.iter().copied()) {
        tables.push(bridged::table(networks, owned));
    }
    for element in elements {
        let table = tables.iter_mut().find(|table| table.family == element.family);
        let sets = table.into_iter().flat_map(|table| &mut table.sets);
        if let Some(set) = sets.into_iter().find(|set| set.name == element.set) {
            set.elements.push(element.key);
        }
    }
    tables
}

/// The key of a set of ours, by its name; `None` where we have no such set.
pub fn key(family: Family, set: &str) -> Option<&'static [Field]> {
    if family == Family::Ip && policies::is_members(set) {
        return Some(policies::MEMBERS);
    }
    let sets = declared().into_iter().find(|table| table.family == family)?.sets;
    sets.iter().find(|declared| declared.name == set).map(|declared| declared.key)
}

/// The keys that our sets have.
pub fn keys() -> Vec<&'static [Field]> {
    declared().iter().flat_map(|table| &table.sets).map(|set| set.key).collect()
}

/// The tables of a host without networks and policies.
fn declared() -> [Table; 3] {
    [routed::table(&[], &[], false), routed6::table(&[], false), bridged::table(&[], false)]
}

/// What a VM is in the sets of a host that is guarded.
pub fn elements(guest: &Guest<'_>) -> Vec<Element> {
    bridged::elements(guest)
}

/// What the ports of the host that lead to a VM are in the maps, while its address is known.
pub fn exposed(address: Option<Ipv4Addr>, ports: &[Expose]) -> Vec<Element> {
    address.map(|address| exposed::elements(address, ports)).unwrap_or_default()
}

/// What a VM that has this address is in the sets of its policy.
pub fn policy(address: Ipv4Addr, policy: &str) -> Vec<Element> {
    policies::elements(address, policy)
}

/// The sets that count what was allowed, and denied, of each VM.
pub const ALLOWED: &str = policies::ALLOWED;
pub const DENIED: &str = policies::DENIED;

/// The condition that a packet for the host does not come from a guest.
fn from_elsewhere(networks: &[&NetworkConfig]) -> Match {
    match is_guarded(networks.iter().copied()) {
        true => is_not(PacketField::Priority, GUEST.into()),
        false => outside(&[PacketField::InLink], "bridges"),
    }
}

/// Sets that IPv4 and IPv6 have alike: bridges by themselves and in pairs, and what the host
/// answers there.
fn shared_sets(networks: &[&NetworkConfig]) -> Vec<Set> {
    let pairs = networks.iter().flat_map(|network| {
        let parts = networks.iter().filter(|other| other.whole == network.whole);
        parts.map(|part| vec![bridge(network), bridge(part)])
    });
    let bridges = networks.iter().map(|network| vec![bridge(network)]);
    let nat = networks.iter().filter(|network| network.nat);
    let pings = networks.iter().filter(|network| network.host_services.contains(&Service::Ping));
    let services = networks.iter().flat_map(|network| {
        network.host_services.iter().filter_map(|service| match service {
            Service::Ping => None,
            Service::Port(protocol, port) => {
                let protocol = Value::Protocol(protocol.number());
                Some(vec![bridge(network), protocol, Value::Port(*port)])
            }
        })
    });
    vec![
        set("bridges", &[Field::Link], bridges.collect()),
        set("within", &[Field::Link, Field::Link], pairs.collect()),
        set("natted", &[Field::Link], nat.map(|network| vec![bridge(network)]).collect()),
        set("pings", &[Field::Link], pings.map(|network| vec![bridge(network)]).collect()),
        set("services", &[Field::Link, Field::Protocol, Field::Port], services.collect()),
    ]
}

/// What begins on one of our bridges is not forwarded to another, and nothing that begins outside
/// is forwarded to a NATed network.
fn keep_apart() -> [Rule; 2] {
    use PacketField::{InLink, OutLink};
    [
        rule(
            [
                within(&[InLink], "bridges"),
                within(&[OutLink], "bridges"),
                outside(&[InLink, OutLink], "within"),
            ],
            Verdict::Drop,
        ),
        rule([within(&[OutLink], "natted"), outside(&[InLink], "bridges")], Verdict::Drop),
    ]
}

/// A port of the host that is listed for the bridge that the packet came in by.
fn is_service() -> Match {
    use PacketField::{DestinationPort, InLink, Protocol};
    within(&[InLink, Protocol, DestinationPort], "services")
}

fn filter(name: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Filter, hook, priority, rules }
}

fn set(name: &'static str, key: &'static [Field], elements: Vec<Key>) -> Set {
    Set { name: name.into(), key, kind: SetKind::Values, kept: false, elements }
}

/// A set of prefixes.
fn prefixes<'a>(name: &'static str, networks: impl Iterator<Item = &'a NetworkConfig>) -> Set {
    let elements = networks.map(|network| vec![Value::Prefix(network.subnet)]).collect();
    Set { name: name.into(), key: &[Field::Ipv4], kind: SetKind::Prefixes, kept: false, elements }
}

/// The link name of a network's bridge.
fn bridge(network: &NetworkConfig) -> Value {
    Value::Link(network.bridge.clone())
}

fn rule<const N: usize>(matches: [Match; N], verdict: Verdict) -> Rule {
    Rule { matches: matches.into(), verdict }
}

fn within(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set: set.into(), negated: false }
}

fn outside(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set: set.into(), negated: true }
}

const fn is(field: PacketField, value: u64) -> Match {
    Match::Is { field, mask: None, value, negated: false }
}

const fn is_not(field: PacketField, value: u64) -> Match {
    Match::Is { field, mask: None, value, negated: true }
}

const fn masked(field: PacketField, mask: u64, value: u64) -> Match {
    Match::Is { field, mask: Some(mask), value, negated: false }
}
