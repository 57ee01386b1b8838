//! `ip volnet`: what is routed, and what is for the host.
//!
//! What guests of a NATed network send elsewhere is masqueraded, and nothing that begins outside is
//! forwarded to them. A network ends at its bridge: what begins on one of ours is not forwarded to
//! another. Nor is it forwarded to the link-local prefix, where the clouds hand out a host's
//! credentials to whoever asks from it (169.254.169.254): masqueraded, a guest would be the host.
//! Where the host sends bridged frames through these rules too (`bridge-nf-call-iptables`), frames
//! within a network are seen here as coming in and leaving by the same bridge, and pass.
//!
//! The host answers its guests on its address of their network, and there only what that network
//! lists. What the host began itself is answered. Everything else that comes from a guest is
//! dropped without a word, so that a guest cannot tell what there is.

use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Family, Field, Hook, ICMP, Match, NetworkConfig, PRIORITY_FILTER,
    PacketField, Rule, TABLE, Table, Value, Verdict, bridge, exposed, filter, from_elsewhere, is,
    is_service, keep_apart, masked, outside, policies, prefixes, rule, set, shared_sets, within,
};

use crate::model::policy::Policy;

/// `NF_IP_PRI_NAT_SRC` (linux/netfilter_ipv4.h).
const PRIORITY_SOURCE_NAT: i32 = 100;
/// 169.254.0.0/16 (RFC 3927).
const LINK_LOCAL: Match = masked(PacketField::IpDestination, 0xffff_0000, 0xa9fe_0000);
/// `ICMP_ECHO` (linux/icmp.h).
const ECHO: Match = is(PacketField::IcmpType, 8);

pub(super) fn table(networks: &[&NetworkConfig], policies: &[Policy], owned: bool) -> Table {
    use PacketField::{IpSource, OutLink};
    let nat = networks.iter().copied().filter(|network| network.nat);
    let masquerade =
        rule([within(&[IpSource], "subnets"), outside(&[OutLink], "bridges")], Verdict::Masquerade);
    let answers = networks.iter().flat_map(|network| {
        [network.host_ip, network.subnet.broadcast(), Ipv4Addr::BROADCAST]
            .map(|address| vec![bridge(network), Value::Ipv4(address)])
    });
    let mut sets = shared_sets(networks);
    sets.push(prefixes("subnets", nat));
    sets.extend(exposed::sets(networks));
    sets.extend(policies::sets(networks, policies));
    sets.push(set("answers", &[Field::Link, Field::Ipv4], answers.collect()));
    Table {
        family: Family::Ip,
        name: TABLE,
        owned,
        sets,
        chains: vec![
            Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: PRIORITY_SOURCE_NAT,
                rules: vec![exposed::masqueraded(), masquerade],
            },
            policies::chain(policies),
            filter("forward", Hook::Forward, PRIORITY_FILTER, forwarded()),
            filter("input", Hook::Input, PRIORITY_FILTER, to_host(networks)),
            exposed::prerouting(),
            exposed::output(),
        ],
    }
}

fn forwarded() -> Vec<Rule> {
    let mut rules = vec![
        rule([Match::Established], Verdict::Accept),
        exposed::forwarded(),
        rule([within(&[PacketField::InLink], "bridges"), LINK_LOCAL], Verdict::Drop),
    ];
    rules.extend(keep_apart());
    rules
}

fn to_host(networks: &[&NetworkConfig]) -> Vec<Rule> {
    use PacketField::{InLink, IpDestination};
    vec![
        rule([from_elsewhere(networks)], Verdict::Accept),
        rule([Match::Established], Verdict::Accept),
        rule([outside(&[InLink, IpDestination], "answers")], Verdict::Drop),
        rule([ICMP, ECHO, within(&[InLink], "pings")], Verdict::Accept),
        rule([is_service()], Verdict::Accept),
        rule([], Verdict::Drop),
    ]
}
