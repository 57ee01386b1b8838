//! What is routed between a network with NAT and networks like it on other hosts.
//!
//! Guests of both know each other by their own addresses: what they send to each other is not
//! masqueraded, and each may begin a connection. All others outside are masqueraded to and shut out
//! as before. The rules depend on the networks alone: two for each prefix of a network.

use std::net::IpAddr;

use super::{Match, NetworkConfig, PacketField, Rule, Verdict, outside, rule, within};
use crate::model::prefix::Prefix;

/// How packets of a family have their addresses.
#[derive(Clone, Copy)]
pub(super) struct Side {
    source: PacketField,
    destination: PacketField,
    /// The prefix of a network, if it has NAT.
    subnet: fn(&NetworkConfig) -> Option<Prefix<IpAddr>>,
}

pub(super) const IPV4: Side = Side {
    source: PacketField::IpSource,
    destination: PacketField::IpDestination,
    subnet: |network| network.ipv4.filter(|_| network.nat).map(|ipv4| ipv4.prefix.into()),
};
pub(super) const IPV6: Side = Side {
    source: PacketField::Ip6Source,
    destination: PacketField::Ip6Destination,
    subnet: |network| network.ipv6.filter(|ipv6| ipv6.nat).map(|ipv6| ipv6.prefix.into()),
};

/// The prefixes of networks with their peers of the same family.
fn pairs(
    side: Side,
    networks: &[&NetworkConfig],
) -> impl Iterator<Item = (Prefix<IpAddr>, Prefix<IpAddr>)> {
    networks.iter().flat_map(move |network| {
        let subnet = (side.subnet)(network);
        let peers = network.peers.iter().filter_map(move |peers| Some((subnet?, *peers)));
        peers.filter(|(subnet, peers)| subnet.network().is_ipv4() == peers.network().is_ipv4())
    })
}

/// What guests send to peers leaves as it is.
pub(super) fn not_masqueraded(side: Side, networks: &[&NetworkConfig]) -> Vec<Rule> {
    let rules = pairs(side, networks).map(|(subnet, peers)| {
        let from = Match::Within { field: side.source, prefix: subnet };
        rule([from, Match::Within { field: side.destination, prefix: peers }], Verdict::Accept)
    });
    rules.collect()
}

/// Peers may begin a connection, if they come from outside.
pub(super) fn let_in(side: Side, networks: &[&NetworkConfig]) -> Vec<Rule> {
    let rules = pairs(side, networks).map(|(subnet, peers)| {
        let matches = [
            within(&[PacketField::OutLink], "natted"),
            outside(&[PacketField::InLink], "bridges"),
            Match::Within { field: side.source, prefix: peers },
            Match::Within { field: side.destination, prefix: subnet },
        ];
        rule(matches, Verdict::Accept)
    });
    rules.collect()
}
