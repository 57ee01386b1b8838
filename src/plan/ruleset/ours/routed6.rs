//! `ip6 volnet`: IPv6 packets that are routed, and those to the host.
//!
//! The rules are those of [`super::routed`], for the networks that have IPv6. Frames of other
//! guests are dropped on the bridge ([`super::bridged`]), or here if that table does not check
//! them. If no network has IPv6, no rule looks at connections, which spares the host's own traffic.
//!
//! The host answers its guests on its address in their network and on the link-local one, which is
//! that of their router. Neighbour discovery and reports of multicast listeners are for the bridge
//! itself. Clouds give a host's credentials to clients at addresses that are not link-local, too.

use std::net::Ipv6Addr;

use super::routed::{QUESTION_TIMEOUT_S, too_many_questions};
use super::{
    Chain, ChainKind, Family, Field, Hook, ICMP6, IS_CLAIM, Match, NetworkConfig, PRIORITY_FILTER,
    PacketField, Rule, Set, SetKind, TABLE, Table, Value, Verdict, bridge, exposed, filter,
    from_elsewhere, is, is_open, is_service, keep_apart, of_prefix, outside, peers, policies,
    prefixes6, rule, set, shared_sets, within,
};
use crate::model::policy::Policy;

/// `NF_IP6_PRI_NAT_SRC` (linux/netfilter_ipv6.h).
const PRIORITY_SOURCE_NAT: i32 = 100;
/// Types of ICMPv6 (RFC 4443): echo request.
const ECHO: u64 = 128;
/// Multicast listeners report and leave (RFC 2710, RFC 3810), for the bridge; neighbour
/// solicitation and advertisement (RFC 4861).
const NEIGHBOURLY: [u64; 5] = [131, 132, 143, 135, 136];
/// All nodes of a link, which ping is sent to (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The metadata services of clouds by IPv6: those of AWS and of Google.
const METADATA: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

pub(super) fn table(networks: &[&NetworkConfig], policies: &[Policy], owned: bool) -> Table {
    let spoken = networks.iter().any(|network| network.ipv6.is_some());
    // volnet has heard the claims already.
    let mut input =
        vec![rule([IS_CLAIM], Verdict::Drop), rule([from_elsewhere(networks)], Verdict::Accept)];
    let mut forward = Vec::new();
    if spoken {
        input.extend(answered());
        forward.push(rule([Match::Established], Verdict::Accept));
        forward.push(exposed::forwarded());
        forward.extend(METADATA.map(denied));
        forward.extend(peers::let_in(peers::IPV6, networks));
    }
    input.push(rule([], Verdict::Drop));
    forward.extend(keep_apart());
    let mut chains = vec![
        filter("forward", Hook::Forward, PRIORITY_FILTER, forward),
        filter("input", Hook::Input, PRIORITY_FILTER, input),
    ];
    if spoken {
        chains.push(policies::chain(policies::IPV6, policies));
        chains.push(postrouting(networks));
        chains.extend(exposed::chains6());
    }
    Table { family: Family::Ip6, name: TABLE, owned, sets: sets(networks, policies), chains }
}

fn sets(networks: &[&NetworkConfig], policies: &[Policy]) -> Vec<Set> {
    let has_nat = |network: &NetworkConfig| network.ipv6.is_some_and(|ipv6| ipv6.nat);
    let answers = networks.iter().filter_map(|network| Some((network, network.ipv6?)));
    let answers = answers.flat_map(|(network, ipv6)| {
        [ipv6.host, network.mac.link_local(), ALL_NODES]
            .map(|address| vec![bridge(network), Value::Address(address.into())])
    });
    let mut sets = shared_sets(networks, has_nat);
    sets.push(prefixes6("subnets", networks.iter().copied().filter(|network| has_nat(network))));
    sets.extend(exposed::sets6(networks));
    sets.push(set("answers", &[Field::Link, Field::Ipv6], answers.collect()));
    let kind = SetKind::Learned { timeout_s: QUESTION_TIMEOUT_S };
    sets.push(Set { kind, ..set("questions", &[Field::Ether], Vec::new()) });
    sets.extend(policies::sets(policies::IPV6, networks, policies));
    sets
}

fn postrouting(networks: &[&NetworkConfig]) -> Chain {
    use PacketField::{Ip6Destination, Ip6Source, OutLink};
    let masquerade = [within(&[Ip6Source], "subnets"), outside(&[OutLink], "bridges")];
    Chain {
        name: "postrouting",
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: PRIORITY_SOURCE_NAT,
        rules: exposed::masqueraded(&[Ip6Source], &[Ip6Source, Ip6Destination])
            .into_iter()
            .chain(peers::not_masqueraded(peers::IPV6, networks))
            .chain([rule(masquerade, Verdict::Masquerade)])
            .collect(),
    }
}

fn denied(address: Ipv6Addr) -> Rule {
    let to = of_prefix(PacketField::Ip6Destination, (address, 128));
    rule([within(&[PacketField::InLink], "bridges"), to], Verdict::Drop)
}

fn answered() -> Vec<Rule> {
    use PacketField::{InLink, Ip6Destination};
    let icmp = |kind| [ICMP6, is(PacketField::Icmp6Type, kind)];
    let [icmp6, echo] = icmp(ECHO);
    let mut rules = vec![
        rule(too_many_questions(), Verdict::Drop),
        rule([Match::Established], Verdict::Accept),
    ];
    rules.extend(NEIGHBOURLY.map(|kind| rule(icmp(kind), Verdict::Accept)));
    rules.extend([
        rule([is_open()], Verdict::Accept),
        rule([outside(&[InLink, Ip6Destination], "answers")], Verdict::Drop),
        rule([icmp6, echo, within(&[InLink], "pings")], Verdict::Accept),
        rule([is_service()], Verdict::Accept),
    ]);
    rules
}
