//! `ip volnet`: packets that are routed, and packets to the host.
//!
//! Packets from guests of a network with NAT to other networks are masqueraded, and connections
//! from outside are not forwarded to them. A connection from one of our bridges is not forwarded to
//! another bridge. Nor is it forwarded to the link-local prefix: clouds give a host's credentials
//! to clients there (169.254.169.254), and a masqueraded guest would look like the host. If bridged
//! frames pass these rules (`bridge-nf-call-iptables`), frames within a network come in and leave
//! by the same bridge, and pass.
//!
//! The host answers its guests on its address in their network, and there only the services that
//! the network lists, and names; on all its addresses, if the network lists `any`. The rate of a
//! guest's questions for names is limited, because all guests share one queue. A guest is known
//! there by its Ethernet address, because it may have many others. Replies to connections of the
//! host pass. Everything else from a guest is dropped silently, so that a guest cannot see what
//! exists.

use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Family, Field, Hook, ICMP, Match, NAME_SERVER, NetworkConfig,
    PRIORITY_FILTER, PacketField, Rule, Set, SetKind, TABLE, Table, UDP, Value, Verdict, bridge,
    exposed, filter, from_elsewhere, is, is_open, is_service, keep_apart, masked, outside, peers,
    policies, prefixes, rule, set, shared_sets, within,
};

use crate::model::limits::Rate;
use crate::model::policy::Policy;

/// `NF_IP_PRI_NAT_SRC` (linux/netfilter_ipv4.h).
const PRIORITY_SOURCE_NAT: i32 = 100;
/// 169.254.0.0/16 (RFC 3927).
const LINK_LOCAL: Match = masked(PacketField::IpDestination, 0xffff_0000, 0xa9fe_0000);
/// Questions for names by UDP (RFC 1035, 4.2.1).
const TO_NAME_SERVER: Match = is(PacketField::DestinationPort, NAME_SERVER as u64);
/// `ARPHRD_ETHER` (linux/if_arp.h).
const BY_ETHERNET: Match = is(PacketField::InType, 1);
/// Questions a second that one guest may ask the host. All guests of a network share a queue.
const QUESTION_RATE: Rate = Rate { per_second: 1000, burst: 1000 };
/// How long a guest that asks nothing is kept.
pub(super) const QUESTION_TIMEOUT_S: u32 = 10;
/// `ICMP_ECHO` (linux/icmp.h).
const ECHO: Match = is(PacketField::IcmpType, 8);

pub(super) fn table(networks: &[&NetworkConfig], policies: &[Policy], owned: bool) -> Table {
    use PacketField::{IpDestination, IpSource, OutLink};
    let nat = networks.iter().copied().filter(|network| network.nat);
    let masquerade =
        rule([within(&[IpSource], "subnets"), outside(&[OutLink], "bridges")], Verdict::Masquerade);
    let answers = networks.iter().filter_map(|network| Some((network, network.ipv4?)));
    let answers = answers.flat_map(|(network, ipv4)| {
        [ipv4.host, ipv4.prefix.broadcast(), Ipv4Addr::BROADCAST]
            .map(|address| vec![bridge(network), Value::Address(address.into())])
    });
    let mut sets = shared_sets(networks, |network| network.nat);
    sets.push(prefixes("subnets", nat));
    sets.extend(exposed::sets(networks));
    sets.extend(policies::sets(policies::IPV4, networks, policies));
    let kind = SetKind::Learned { timeout_s: QUESTION_TIMEOUT_S };
    sets.push(Set { kind, ..set("questions", &[Field::Ether], Vec::new()) });
    sets.push(set("answers", &[Field::Link, Field::Ipv4], answers.collect()));
    let mut chains = vec![
        Chain {
            name: "postrouting",
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority: PRIORITY_SOURCE_NAT,
            rules: exposed::masqueraded(&[IpSource], &[IpSource, IpDestination])
                .into_iter()
                .chain(peers::not_masqueraded(peers::IPV4, networks))
                .chain([masquerade])
                .collect(),
        },
        policies::chain(policies::IPV4, policies),
        filter("forward", Hook::Forward, PRIORITY_FILTER, forwarded(networks)),
        filter("input", Hook::Input, PRIORITY_FILTER, to_host(networks)),
    ];
    chains.extend(exposed::chains());
    Table { family: Family::Ip, name: TABLE, owned, sets, chains }
}

fn forwarded(networks: &[&NetworkConfig]) -> Vec<Rule> {
    let mut rules = vec![
        rule([Match::Established], Verdict::Accept),
        exposed::forwarded(),
        rule([within(&[PacketField::InLink], "bridges"), LINK_LOCAL], Verdict::Drop),
    ];
    rules.extend(peers::let_in(peers::IPV4, networks));
    rules.extend(keep_apart());
    rules
}

fn to_host(networks: &[&NetworkConfig]) -> Vec<Rule> {
    use PacketField::{InLink, IpDestination};
    vec![
        rule([from_elsewhere(networks)], Verdict::Accept),
        rule(too_many_questions(), Verdict::Drop),
        rule([Match::Established], Verdict::Accept),
        rule([is_open()], Verdict::Accept),
        rule([outside(&[InLink, IpDestination], "answers")], Verdict::Drop),
        rule([ICMP, ECHO, within(&[InLink], "pings")], Verdict::Accept),
        rule([is_service()], Verdict::Accept),
        rule([], Verdict::Drop),
    ]
}

/// More questions for names than a guest may ask.
pub(super) fn too_many_questions() -> [Match; 4] {
    let fields = &[PacketField::EtherSource];
    let faster = Match::Faster { fields, set: "questions", rate: QUESTION_RATE };
    [UDP, TO_NAME_SERVER, BY_ETHERNET, faster]
}
