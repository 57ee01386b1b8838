//! The tables of volnet, and the elements of a VM in their sets.
//!
//! - `bridge volnet` ([`bridged`]) checks the frames of guests where they come in, and keeps
//!   isolated guests apart. It also translates between what a guest believes and what the network
//!   knows ([`inner`]).
//! - `ip volnet` ([`routed`]) connects the networks to the world, keeps them apart, and guards the
//!   host from guests. `ip6 volnet` ([`routed6`]) does the same for IPv6. Exposed ports are maps
//!   ([`mod@exposed`]). What is routed to networks on other hosts has rules of its own ([`peers`]).
//! - `volnet-trace` of each family is there while somebody looks at packets ([`mod@traced`]).
//!
//! The rules do not depend on the VMs: a VM is elements of sets, and so is a network. The kernel
//! alone drops packets, also while no daemon runs.
//!
//! **Who is a guest.** On a bridge, the port shows it. A packet to the host has lost its port: its
//! incoming link is the bridge, which may also have an uplink, with machines that are not volnet's.
//! So frames of guests get a priority of their own ([`GUEST`]) where they come in, and the rules
//! for the host check it. (A mark would do the same, but marks belong to the administrator's
//! routing.) The kernel sets another priority when it forwards a packet.
//!
//! **Without the bridge family.** A kernel may have no nf_tables for bridges. Then all networks
//! must have `antispoof: false`, and there is no table `bridge volnet`. Guests can use any address,
//! and the host treats all packets from our bridges as those of guests.

mod bridged;
mod exposed;
mod inner;
mod peers;
mod policies;
mod routed;
mod routed6;
mod traced;

pub use exposed::PRIORITY_DESTINATION_NAT;
pub use inner::InnerPort;
pub use traced::{ARRIVING, LEAVING, TracedPort};

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Bytes, Chain, ChainKind, Element, Family, Field, Hook, Key, Layer, Match, PacketField, Rule,
    Set, SetKind, Table, Unit, Value, Verdict,
};
use crate::model::expose::{Expose, Protocol};
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::name::TapName;
use crate::model::net::is_guarded;
use crate::model::net::{Dns, NetworkConfig, Service};
use crate::model::policy::Policy;
use crate::model::prefix::Prefix;

/// The name of our tables.
pub const TABLE: &str = "volnet";
/// The name of those that trace.
pub const TRACE_TABLE: &str = "volnet-trace";

/// The priority of packets from guests. Queues and priority maps use only the last four bits, which
/// are the default ones.
const GUEST: u32 = u32::from_be_bytes(*b"vol\0");
/// The priority of a frame by which a guest claims an address.
const CLAIM: u32 = u32::from_be_bytes(*b"voc\0");
/// The priority of a frame from a guest with an inner identity, until it has the outer one.
const INNER: u32 = u32::from_be_bytes(*b"voi\0");
/// It is a frame by which a guest claims an address.
const IS_CLAIM: Match = is(PacketField::Priority, CLAIM as u64);
/// The priority of a frame that does not have its guest's Ethernet address.
const STRANGE: u32 = u32::from_be_bytes(*b"vos\0");
/// It is such a frame.
const IS_STRANGE: Match = is(PacketField::Priority, STRANGE as u64);
/// `NF_IP_PRI_FILTER` and `NF_IP6_PRI_FILTER` (linux/netfilter_ipv4.h, linux/netfilter_ipv6.h).
const PRIORITY_FILTER: i32 = 0;

/// The port of a name server (RFC 1035).
const NAME_SERVER: u16 = 53;
/// Protocols that IP carries (IANA, protocol numbers).
const ICMP: Match = is(PacketField::Protocol, 1);
const IGMP: Match = is(PacketField::Protocol, 2);
const UDP: Match = is(PacketField::Protocol, 17);
const ICMP6: Match = is(PacketField::Protocol, 58);

/// A VM with a tap, for the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPort<'a> {
    /// Its tap.
    pub tap: &'a TapName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address, if volnet gives it.
    pub ip: Option<Ipv4Addr>,
    /// The movable addresses that it may use besides.
    pub addresses: &'a [Ipv4Addr],
    /// Whether it gets its address from another DHCP server.
    pub asks_others: bool,
    /// Whether it may use only its own addresses.
    pub antispoof: bool,
    /// Its IPv6 address; `None`: it may not speak IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// The IPv6 addresses that it made for itself.
    pub claimed: &'a [Ipv6Addr],
    /// Whether it is kept from other isolated guests.
    pub isolated: bool,
    /// Its limits for sending.
    pub limits: Limits,
    /// What it believes, if that is something else.
    pub inner: Option<InnerPort>,
}

/// All tables but those that trace, with these elements and those of the networks in their sets.
pub fn tables(
    networks: &[&NetworkConfig],
    policies: &[Policy],
    elements: Vec<Element>,
    owned: bool,
) -> Vec<Table> {
    let mut tables =
        vec![routed::table(networks, policies, owned), routed6::table(networks, policies, owned)];
    if is_guarded(networks.iter().copied()) {
        tables.push(bridged::table(networks, owned));
    }
    fill(&mut tables, elements);
    tables
}

/// The tables that trace, with these elements.
pub fn tracing(ipv6: bool, elements: Vec<Element>, owned: bool) -> Vec<Table> {
    let mut tables = traced::tables(ipv6, owned);
    fill(&mut tables, elements);
    tables
}

fn fill(tables: &mut [Table], elements: Vec<Element>) {
    for element in elements {
        let is_its =
            |table: &&mut Table| (table.family, table.name) == (element.family, element.table);
        let sets = tables.iter_mut().find(is_its).into_iter().flat_map(|table| &mut table.sets);
        if let Some(set) = sets.into_iter().find(|set| set.name == element.set) {
            set.elements.push(element.key);
        }
    }
}

/// The key of one of our sets, by its name; `None` if we have no such set.
pub fn key(family: Family, set: &str) -> Option<&'static [Field]> {
    if let Some(key) = policies::key(family, set) {
        return Some(key);
    }
    let tables = declared().into_iter().filter(|table| table.family == family);
    tables.flat_map(|table| table.sets).find(|it| it.name == set).map(|it| it.key)
}

/// The keys of our sets.
pub fn keys() -> Vec<&'static [Field]> {
    declared().iter().flat_map(|table| &table.sets).map(|set| set.key).collect()
}

/// The tables of a host without networks and policies.
fn declared() -> Vec<Table> {
    let routed = [routed::table(&[], &[], false), routed6::table(&[], &[], false)];
    let bridged = [bridged::table(&[], false)];
    routed.into_iter().chain(bridged).chain(traced::tables(true, false)).collect()
}

/// The elements of a VM on a host with `bridge volnet`.
pub fn elements(guest: &GuestPort<'_>) -> Vec<Element> {
    bridged::elements(guest)
}

/// The elements of a VM's interface in the tables that trace. `ipv6`: whether one is for IPv6.
pub fn traced(port: &TracedPort<'_>, ipv6: bool) -> Vec<Element> {
    traced::elements(port, ipv6)
}

/// The map elements of a VM's exposed ports that lead to this address of it.
pub fn exposed(address: IpAddr, ports: &[Expose]) -> Vec<Element> {
    exposed::elements(address, ports)
}

/// The element by which a guest with this address reaches itself by a service.
pub fn itself(address: IpAddr) -> Element {
    exposed::itself(address)
}

/// The elements of a VM with this address in the sets of its policy.
pub fn policy(address: IpAddr, policy: &str) -> Vec<Element> {
    policies::elements(address, policy)
}

/// The sets that count allowed and denied packets of each VM.
pub const ALLOWED: &str = policies::ALLOWED;
pub const DENIED: &str = policies::DENIED;

/// The sets of `bridge volnet` that count frames of guests that were dropped, by port: those that
/// do not come from the guest's own addresses, ARP among these, and those over its limits.
pub const SPOOFED: &str = bridged::SPOOFED;
pub const FORGED: &str = bridged::FORGED;
pub const OVERRUN: &str = bridged::OVERRUN;

/// The condition that a packet to the host does not come from a guest.
fn from_elsewhere(networks: &[&NetworkConfig]) -> Match {
    match is_guarded(networks.iter().copied()) {
        true => is_not(PacketField::Priority, GUEST.into()),
        false => outside(&[PacketField::InLink], "bridges"),
    }
}

/// Sets that IPv4 and IPv6 share: bridges, pairs of bridges, and the ports of the host that guests
/// reach there.
fn shared_sets(networks: &[&NetworkConfig], has_nat: fn(&NetworkConfig) -> bool) -> Vec<Set> {
    let pairs = networks.iter().flat_map(|network| {
        let parts = networks.iter().filter(|other| other.whole == network.whole);
        parts.map(|part| vec![bridge(network), bridge(part)])
    });
    let bridges = networks.iter().map(|network| vec![bridge(network)]);
    let nat = networks.iter().filter(|network| has_nat(network));
    let pings = networks.iter().filter(|network| network.host_services.contains(&Service::Ping));
    let open = networks.iter().filter(|network| network.host_services.contains(&Service::Any));
    let services = networks.iter().flat_map(|network| {
        services(network).into_iter().map(|(protocol, port)| {
            vec![bridge(network), Value::Protocol(protocol), Value::Port(port)]
        })
    });
    vec![
        set("bridges", &[Field::Link], bridges.collect()),
        set("within", &[Field::Link, Field::Link], pairs.collect()),
        set("natted", &[Field::Link], nat.map(|network| vec![bridge(network)]).collect()),
        set("open", &[Field::Link], open.map(|network| vec![bridge(network)]).collect()),
        set("pings", &[Field::Link], pings.map(|network| vec![bridge(network)]).collect()),
        set("services", &[Field::Link, Field::Protocol, Field::Port], services.collect()),
    ]
}

/// The ports of the services of a network, and of volnet's own name server, each with the number of
/// its protocol.
fn services(network: &NetworkConfig) -> BTreeSet<(u8, u16)> {
    let services = network.host_services.iter().filter_map(|service| match service {
        Service::Any | Service::Ping => None,
        Service::Port(protocol, port) => Some((protocol.number(), *port)),
    });
    let named = [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol.number(), NAME_SERVER));
    let own = named.into_iter().filter(|_| network.dns == Dns::Builtin);
    services.chain(own).collect()
}

/// A connection from one of our bridges is not forwarded to another. A connection from outside is
/// not forwarded to a network with NAT.
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

/// The bridge of a network for whose guests all of the host is open.
fn is_open() -> Match {
    within(&[PacketField::InLink], "open")
}

/// A port of the host that is listed for the packet's bridge.
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

/// A set of IPv6 prefixes.
fn prefixes6<'a>(name: &'static str, networks: impl Iterator<Item = &'a NetworkConfig>) -> Set {
    let networks = networks.filter_map(|network| network.ipv6);
    let elements = networks.map(|ipv6| vec![Value::Prefix(ipv6.prefix.into())]).collect();
    Set { name: name.into(), key: &[Field::Ipv6], kind: SetKind::Prefixes, kept: false, elements }
}

/// A set of IPv4 prefixes.
fn prefixes<'a>(name: &'static str, networks: impl Iterator<Item = &'a NetworkConfig>) -> Set {
    let networks = networks.filter_map(|network| network.ipv4);
    let elements = networks.map(|ipv4| vec![Value::Prefix(ipv4.prefix.into())]).collect();
    Set { name: name.into(), key: &[Field::Ipv4], kind: SetKind::Prefixes, kept: false, elements }
}

/// The link name of a network's bridge.
fn bridge(network: &NetworkConfig) -> Value {
    Value::Link(network.bridge.clone())
}

/// The address in this field is of this prefix.
fn of_prefix(field: PacketField, (address, length): (Ipv6Addr, u8)) -> Match {
    let prefix = Prefix::containing(IpAddr::V6(address), length).expect("a length");
    Match::Within { field, prefix }
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
