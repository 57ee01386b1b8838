//! The two tables of volnet, and what a VM is in their sets.
//!
//! `ip volnet` joins the networks to the world and keeps them apart ([`routed`]), `bridge volnet`
//! keeps guests honest where their frames come in and go out ([`bridged`]). Both hold the same rules
//! whatever VMs there are: a VM is elements of their sets, a network too.

mod bridged;
mod routed;

use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Element, Family, Field, Hook, Key, Match, PacketField, Rule, Set, Table,
    Value, Verdict,
};
use crate::engine::mac::Mac;
use crate::engine::name::TapName;
use crate::engine::state::NetworkConfig;

/// The name of both tables.
pub const TABLE: &str = "volnet";

/// A VM with a tap, as the rules know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest<'a> {
    /// Its link on the host.
    pub tap: &'a TapName,
    /// Its address on the wire.
    pub mac: Mac,
    /// Its lease; `None` where nobody has told us its address.
    pub ip: Option<Ipv4Addr>,
    /// Whether it is kept from other isolated guests.
    pub isolated: bool,
}

/// Both tables, with these elements in their sets beside those of the networks.
pub fn tables(networks: &[&NetworkConfig], elements: Vec<Element>, owned: bool) -> Vec<Table> {
    let mut tables = vec![routed::table(networks, owned), bridged::table(networks, owned)];
    for element in elements {
        let table = tables.iter_mut().find(|table| table.family == element.family);
        let sets = table.into_iter().flat_map(|table| &mut table.sets);
        if let Some(set) = sets.into_iter().find(|set| set.name == element.set) {
            set.elements.push(element.key);
        }
    }
    tables
}

/// What a VM is in the sets.
pub fn elements(guest: &Guest<'_>) -> Vec<Element> {
    bridged::elements(guest)
}

fn set(name: &'static str, key: &'static [Field], elements: Vec<Key>) -> Set {
    Set { name, key, interval: false, elements }
}

/// A set of prefixes.
fn prefixes<'a>(name: &'static str, networks: impl Iterator<Item = &'a NetworkConfig>) -> Set {
    let elements = networks.map(|network| vec![Value::Prefix(network.subnet)]).collect();
    Set { name, key: &[Field::Ipv4], interval: true, elements }
}

/// The link name of a network's bridge.
fn bridge(network: &NetworkConfig) -> Value {
    Value::Link(network.bridge.clone())
}

fn rule<const N: usize>(matches: [Match; N], verdict: Verdict) -> Rule {
    Rule { matches: matches.into(), verdict }
}

fn within(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set, negated: false }
}

fn outside(fields: &'static [PacketField], set: &'static str) -> Match {
    Match::InSet { fields, set, negated: true }
}

const fn is(field: PacketField, value: u64) -> Match {
    Match::Is { field, mask: None, value }
}
