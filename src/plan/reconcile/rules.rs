//! Our tables, and our accept rules in other programs' chains.
//!
//! If the chains, rules and sets of a table are right, only the different elements are changed.
//! Otherwise the whole table is replaced.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Observed, ObservedTable};
use crate::model::net::NetworkConfig;
use crate::plan::op::{Op, Plan};
use crate::plan::ruleset::{Accept, Direction, Element, Family, Key, Set, SetKind, Table, Value};

/// The changes of our tables.
#[derive(Default)]
pub(super) struct Tables {
    /// Elements to remove.
    pub removed_elements: Plan,
    /// The addresses in them.
    pub left: Vec<IpAddr>,
    /// The Ops that delete their connections, if they were exposed ports.
    pub closed: Plan,
    /// Tables to remove.
    pub remove: Plan,
    /// Tables and elements to add.
    pub put: Plan,
}

/// The changes of the accept rules.
pub(super) struct Accepts {
    pub remove: Plan,
    pub add: Plan,
}

/// Compares the tables.
pub(super) fn compare_tables(desired: &[Table], observed: &Observed) -> Tables {
    let mut tables = Tables::default();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    // A kernel without IPv6 may have no tables for it.
    let possible = |table: &&Table| table.family != Family::Ip6 || !observed.without_ipv6;
    let observed = &observed.tables;
    for table in desired.iter().filter(possible) {
        match observed.iter().find(|seen| is_of(seen, table.family, table.name)) {
            None => tables.put.push(Op::CreateTable(Box::new(table.clone()))),
            Some(seen) if is_right(seen, table) => {
                compare_sets(table, seen, &mut added, &mut removed)
            }
            Some(seen) => tables.put.push(Op::ReplaceTable(Box::new(keeping(table, seen)))),
        }
    }
    let wanted =
        |seen: &&ObservedTable| desired.iter().any(|table| is_of(seen, table.family, table.name));
    tables.remove = observed
        .iter()
        .filter(|seen| !wanted(seen))
        .map(|seen| Op::RemoveTable { family: seen.family, name: seen.name })
        .collect();
    if !added.is_empty() {
        tables.put.push(Op::AddElements(added));
    }
    if !removed.is_empty() {
        tables.closed = removed.iter().filter_map(Op::forget_flows).collect();
        let leads = |element: &&Element| Op::forget_flows(element).is_some();
        let of_guests = removed.iter().filter(|element| !leads(element));
        tables.left = of_guests.flat_map(|element| addresses(&element.key)).collect();
        tables.removed_elements.push(Op::RemoveElements(removed));
    }
    tables
}

/// The addresses in a key: those that are values, or an IPv6 address in three parts.
fn addresses(key: &Key) -> impl Iterator<Item = IpAddr> {
    let parts = key.iter().flat_map(|value| match value {
        Value::Bytes(bytes) => &bytes[..],
        _ => &[],
    });
    let parts = <[u8; 16]>::try_from(parts.copied().collect::<Vec<_>>());
    let whole = key.iter().filter_map(|value| match value {
        Value::Address(address) => Some(*address),
        Value::Link(_)
        | Value::Ether(_)
        | Value::Prefix(_)
        | Value::Protocol(_)
        | Value::Port(_)
        | Value::Target(..)
        | Value::TargetEther(_)
        | Value::TargetIpv4(_)
        | Value::TargetBytes(_)
        | Value::Rate(..)
        | Value::Bytes(_) => None,
    });
    whole.chain(parts.ok().map(IpAddr::from))
}

fn is_of(seen: &ObservedTable, family: Family, name: &str) -> bool {
    seen.family == family && seen.name == name
}

fn is_right(seen: &ObservedTable, table: &Table) -> bool {
    seen.owned.is_none_or(|owned| owned == table.owned)
        && seen.fingerprint == Some(table.fingerprint())
}

/// A table with the elements that packets added to the table that it replaces.
fn keeping(table: &Table, seen: &ObservedTable) -> Table {
    let mut table = table.clone();
    for set in table.sets.iter_mut().filter(|set| set.kept) {
        let keys = seen.sets.iter().find(|(name, _)| **name == *set.name);
        set.elements.extend(keys.iter().flat_map(|(_, keys)| keys).cloned());
    }
    table
}

/// Adds the differences between the sets of a table to the two lists.
fn compare_sets(
    table: &Table,
    seen: &ObservedTable,
    added: &mut Vec<Element>,
    removed: &mut Vec<Element>,
) {
    let ours = |set: &&Set| !matches!(set.kind, SetKind::Learned { .. });
    for set in table.sets.iter().filter(ours) {
        let keys = seen.sets.iter().find(|(name, _)| **name == *set.name);
        let present: BTreeSet<&Key> = keys.iter().flat_map(|(_, keys)| keys).collect();
        let wanted: BTreeSet<&Key> = set.elements.iter().collect();
        let element = |key: &&Key| Element {
            family: table.family,
            table: table.name,
            set: set.name.clone(),
            key: (*key).clone(),
        };
        added.extend(wanted.difference(&present).map(element));
        removed.extend(present.difference(&wanted).map(element));
    }
}

/// Compares the accept rules: one for each direction of each bridge, in each family that its
/// network has, if there is a chain for them, and no others.
pub(super) fn compare_accepts(networks: &[&NetworkConfig], observed: &Observed) -> Accepts {
    let wanted: Vec<Accept> = observed
        .accept_chains
        .iter()
        .flat_map(|(family, chain)| {
            let speaks = move |network: &&&NetworkConfig| match family {
                Family::Ip => network.ipv4.is_some(),
                Family::Ip6 => network.ipv6.is_some(),
                Family::Bridge => false,
            };
            let managed = networks.iter().filter(|network| network.managed);
            managed.filter(speaks).map(move |network| (*family, chain, &network.bridge))
        })
        .flat_map(|(family, chain, bridge)| {
            [Direction::In, Direction::Out].map(|direction| Accept {
                family,
                chain: chain.clone(),
                bridge: bridge.clone(),
                direction,
            })
        })
        .collect();
    let count = |accept: &Accept| observed.accepts.iter().filter(|seen| *seen == accept).count();
    let mut unwanted: Vec<&Accept> = Vec::new();
    for accept in &observed.accepts {
        let wrong = !wanted.contains(accept) || count(accept) > 1;
        if wrong && !unwanted.contains(&accept) {
            unwanted.push(accept);
        }
    }
    let missing = wanted.iter().filter(|accept| count(accept) != 1);
    Accepts {
        remove: unwanted.into_iter().cloned().map(Op::RemoveAccept).collect(),
        add: missing.cloned().map(Op::AddAccept).collect(),
    }
}
