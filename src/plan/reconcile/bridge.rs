//! The bridge of one network: it exists, is up, and has only the address of the configuration.

use std::net::IpAddr;

use super::{ALIAS, Link, LinkKind, Links, Observed};
use crate::model::net::NetworkConfig;
use crate::model::prefix::Prefix;
use crate::plan::op::{LinkSettings, Op, Plan};

/// The Ops that bring a network's bridge to the desired state. If a link of that name exists, it is
/// ours.
pub(super) fn attend(network: &NetworkConfig, links: &Links<'_>, observed: &Observed) -> Plan {
    if !network.managed {
        return Plan::new();
    }
    match links.by_name.get(network.bridge.as_str()) {
        None => make(network),
        Some(link) => settings(network, link)
            .into_iter()
            .chain(addresses(network, link.index, observed))
            .collect(),
    }
}

fn make(network: &NetworkConfig) -> Plan {
    let name = network.bridge.clone();
    let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
    vec![
        Op::CreateBridge {
            name: name.clone(),
            mac: network.mac,
            mtu: network.mtu,
            alias: ALIAS.to_string(),
        },
        Op::SetLink { name, set: up, former: LinkSettings::default() },
        add_address(network),
    ]
}

/// Whether the bridge has the desired settings. This does not include its addresses.
pub fn is_right(network: &NetworkConfig, link: &Link) -> bool {
    match network.managed {
        true => link.is_our_bridge() && settings(network, link).is_none(),
        false => link.kind == LinkKind::Bridge,
    }
}

/// One Op for all settings that are wrong.
fn settings(network: &NetworkConfig, link: &Link) -> Option<Op> {
    let mut set = LinkSettings::default();
    let mut former = LinkSettings::default();
    if !link.up {
        (set.up, former.up) = (Some(true), Some(false));
    }
    if link.mac != network.mac {
        (set.mac, former.mac) = (Some(network.mac), Some(link.mac));
    }
    if link.mtu != u32::from(network.mtu) {
        (set.mtu, former.mtu) = (Some(network.mtu), u16::try_from(link.mtu).ok());
    }
    (!set.is_empty()).then(|| Op::SetLink { name: link.name.clone(), set, former })
}

/// Remove wrong addresses first, in reverse order. If the first address of a prefix is deleted, the
/// kernel deletes the others in it. If ours is among them, add it again.
fn addresses(network: &NetworkConfig, index: u32, observed: &Observed) -> Plan {
    let right = (network.host_ip.into(), network.subnet.length());
    let present: Vec<(IpAddr, u8)> = observed
        .addresses
        .iter()
        .filter(|(link, ..)| *link == index)
        .map(|&(_, address, length)| (address, length))
        .collect();
    let of_subnet = |&(address, length): &(IpAddr, u8)| {
        Prefix::containing(address, length) == Some(network.subnet.into())
    };
    let kept = present.iter().position(of_subnet).filter(|&first| present[first] == right);
    let remove = |(_, &(address, length)): (usize, &(IpAddr, u8))| Op::RemoveAddress {
        link: network.bridge.clone(),
        address,
        length,
    };
    let wrong = present.iter().enumerate().rev().filter(|(at, _)| Some(*at) != kept);
    let mut plan: Plan = wrong.map(remove).collect();
    if kept.is_none() {
        plan.push(add_address(network));
    }
    plan
}

fn add_address(network: &NetworkConfig) -> Op {
    Op::AddAddress {
        link: network.bridge.clone(),
        address: network.host_ip.into(),
        length: network.subnet.length(),
    }
}
