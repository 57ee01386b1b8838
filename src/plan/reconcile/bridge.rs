//! The bridge of one network: it exists, is up, and has only the address of the configuration.
//!
//! It does not look at who listens to which group (`mcast_snooping`): guests fill the table of that
//! as they like, up to a bound that they share. It would be of no use: a bridge goes by it only
//! while it hears somebody ask for listeners, which guests may not do.

use std::net::IpAddr;

use super::{ALIAS, Link, LinkKind, Links, Observed};
use crate::model::net::NetworkConfig;
use crate::model::prefix::Prefix;
use crate::plan::op::{Filtered, LinkSettings, Op, Plan};

/// The Ops that bring a network's bridge to the desired state. If a link of that name exists, it is
/// ours.
pub(super) fn attend(network: &NetworkConfig, links: &Links<'_>, observed: &Observed) -> Plan {
    if !network.managed {
        return Plan::new();
    }
    match links.by_name.get(network.bridge.as_str()) {
        None => make(network, observed),
        Some(link) => settings(network, link)
            .into_iter()
            .chain(addresses(network, link.index, observed))
            .collect(),
    }
}

/// The addresses that the bridge should have, as far as the kernel speaks their families.
fn wanted(network: &NetworkConfig, observed: &Observed) -> impl Iterator<Item = (IpAddr, u8)> {
    let spoken = |address: &IpAddr| address.is_ipv4() || !observed.without_ipv6;
    network.bridge_addresses().filter(move |(address, _)| spoken(address))
}

fn make(network: &NetworkConfig, observed: &Observed) -> Plan {
    let name = network.bridge.clone();
    let filtered = network.services.then_some(filtered(network));
    let up = LinkSettings { up: Some(true), filtered, ..LinkSettings::default() };
    let mut plan = vec![
        Op::CreateBridge {
            name: name.clone(),
            mac: network.mac,
            mtu: network.mtu,
            alias: ALIAS.to_string(),
        },
        Op::SetLink { name, set: up, former: LinkSettings::default() },
    ];
    let addresses = wanted(network, observed);
    plan.extend(addresses.map(|(address, length)| add(network, address, length)));
    plan
}

/// What the bridge does with bridged frames. Translated addresses are those of the rules for routed
/// packets, so the answers of a service have to pass them, too.
fn filtered(network: &NetworkConfig) -> Filtered {
    Filtered { ipv4: network.services, ipv6: network.services }
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
    if link.snooping {
        (set.snooping, former.snooping) = (Some(false), Some(true));
    }
    let wrong = link.filtered.filter(|is| *is != filtered(network));
    (set.filtered, former.filtered) = (wrong.map(|_| filtered(network)), wrong);
    (!set.is_empty()).then(|| Op::SetLink { name: link.name.clone(), set, former })
}

/// Remove wrong addresses first, in reverse order. If the first IPv4 address of a prefix is
/// deleted, the kernel deletes the others in it. If ours is among them, add it again. The
/// link-local IPv6 addresses that the kernel gives the bridge stay.
fn addresses(network: &NetworkConfig, index: u32, observed: &Observed) -> Plan {
    let present: Vec<(IpAddr, u8)> = observed
        .addresses
        .iter()
        .filter(|(link, ..)| *link == index)
        .map(|&(_, address, length)| (address, length))
        .collect();
    let is_kept = |right: &(IpAddr, u8)| match right.0 {
        IpAddr::V4(_) => {
            let of_subnet = |&&(address, length): &&(IpAddr, u8)| {
                let subnet = network.ipv4.map(|ipv4| ipv4.prefix.into());
                subnet.is_some() && Prefix::containing(address, length) == subnet
            };
            present.iter().find(of_subnet) == Some(right)
        }
        IpAddr::V6(_) => present.contains(right),
    };
    let (kept, missing): (Vec<_>, Vec<_>) = wanted(network, observed).partition(is_kept);
    let of_kernel = |address: &IpAddr| match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let wrong = present.iter().rev().filter(|at| !kept.contains(at) && !of_kernel(&at.0));
    let remove = |&(address, length): &(IpAddr, u8)| Op::RemoveAddress {
        link: network.bridge.clone(),
        address,
        length,
    };
    let missing = missing.into_iter().map(|(address, length)| add(network, address, length));
    wrong.map(remove).chain(missing).collect()
}

fn add(network: &NetworkConfig, address: IpAddr, length: u8) -> Op {
    Op::AddAddress { link: network.bridge.clone(), address, length }
}
