//! Policies: a chain of `ip volnet`, and one of `ip6 volnet`, before those that forward.
//!
//! A VM's addresses are in the sets of its policy, so the rules of a policy do not depend on its
//! VMs. An allowed packet goes on to the later chains, which keep networks apart. The chain sees
//! each packet of a guest, also those of existing connections. So a changed policy applies at once.
//! A rule with a prefix is in the chain of its family; all other rules are in both.
//!
//! The allowed and denied packets of each address are counted by the last look-up before the
//! verdict, in a set whose elements count.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{
    Chain, Element, Family, Field, Hook, Match, NetworkConfig, PRIORITY_FILTER, PacketField, Rule,
    Set, SetKind, TABLE, Value, Verdict, bridge, filter, is, outside, set, within,
};
use crate::model::policy::{OPEN, Policy, PolicyRule, To};

/// The sets that count.
pub(super) const ALLOWED: &str = "allowed";
pub(super) const DENIED: &str = "denied";

/// How policies look at the packets of one family.
#[derive(Clone, Copy)]
pub(super) struct Side {
    /// The key of the sets.
    key: &'static [Field],
    /// The address of the sender.
    source: &'static [PacketField],
    destination: PacketField,
    /// The protocol of `icmp` (IANA, protocol numbers).
    icmp: u8,
}

pub(super) const IPV4: Side = Side {
    key: &[Field::Ipv4],
    source: &[PacketField::IpSource],
    destination: PacketField::IpDestination,
    icmp: ICMP,
};
pub(super) const IPV6: Side = Side {
    key: &[Field::Ipv6],
    source: &[PacketField::Ip6Source],
    destination: PacketField::Ip6Destination,
    icmp: 58,
};

/// `icmp` in a rule.
const ICMP: u8 = 1;

impl Side {
    /// Whether this prefix is of the family.
    fn has(self, prefix: IpAddr) -> bool {
        prefix.is_ipv4() == (self.key == IPV4.key)
    }
}

pub(super) fn sets(side: Side, networks: &[&NetworkConfig], policies: &[Policy]) -> Vec<Set> {
    let counting =
        |name: &'static str| Set { kind: SetKind::Counting, ..set(name, side.key, Vec::new()) };
    let restricted = networks.iter().filter(|network| network.traffic().policy != OPEN);
    let restricted = restricted.map(|network| vec![bridge(network)]).collect();
    let mut sets =
        vec![counting(ALLOWED), counting(DENIED), set("restricted", &[Field::Link], restricted)];
    sets.extend(
        policies
            .iter()
            .map(|policy| Set { name: members(&policy.name), ..set("", side.key, Vec::new()) }),
    );
    sets
}

/// The prefix of the sets of policies.
const MEMBERS_PREFIX: &str = "policy_";

/// The set of the addresses with a policy.
fn members(policy: &str) -> Cow<'static, str> {
    format!("{MEMBERS_PREFIX}{policy}").into()
}

/// The key of the set of a policy; `None` if it is another set.
pub(super) fn key(family: Family, set: &str) -> Option<&'static [Field]> {
    let side = match family {
        Family::Ip => IPV4,
        Family::Ip6 => IPV6,
        Family::Bridge => return None,
    };
    set.starts_with(MEMBERS_PREFIX).then_some(side.key)
}

pub(super) fn chain(side: Side, policies: &[Policy]) -> Chain {
    use PacketField::{InLink, OutLink};
    // The answers first: for them, nothing has to be looked up.
    let mut rules = vec![
        Rule { matches: vec![Match::Established, Match::Answer], verdict: Verdict::Accept },
        Rule { matches: vec![within(&[InLink, OutLink], "within")], verdict: Verdict::Accept },
    ];
    for policy in policies {
        rules.extend(policy.rules.iter().filter_map(|rule| of_rule(side, policy, rule)));
        rules.push(verdict(side, Vec::new(), policy, false));
    }
    let elsewhere = vec![within(&[InLink], "restricted"), outside(side.source, ALLOWED)];
    rules.push(Rule { matches: elsewhere, verdict: Verdict::Drop });
    filter("policies", Hook::Forward, PRIORITY_FILTER - 1, rules)
}

/// The conditions on the packet come before the look-up of its sender, which takes longer. `None`
/// if it is about the other family.
fn of_rule(side: Side, policy: &Policy, rule: &PolicyRule) -> Option<Rule> {
    use PacketField::{DestinationPort, Protocol};
    let mut matches = Vec::new();
    match rule.to {
        To::Any => {}
        To::Exposed => matches.push(Match::Translated),
        To::Prefix(prefix) if side.has(prefix.network()) => {
            matches.push(Match::Within { field: side.destination, prefix });
        }
        To::Prefix(_) => return None,
    }
    let number = |protocol| if protocol == ICMP { side.icmp } else { protocol };
    matches.extend(rule.protocol.map(|protocol| is(Protocol, number(protocol).into())));
    matches.extend(rule.port.map(|port| is(DestinationPort, port.into())));
    Some(verdict(side, matches, policy, rule.allow))
}

fn verdict(side: Side, mut matches: Vec<Match>, policy: &Policy, allow: bool) -> Rule {
    let (count, verdict) = if allow { (ALLOWED, Verdict::Accept) } else { (DENIED, Verdict::Drop) };
    let fields = side.source;
    matches.push(Match::InSet { fields, set: members(&policy.name), negated: false });
    matches.push(within(fields, count));
    Rule { matches, verdict }
}

/// The elements of a VM in these sets.
pub(super) fn elements(address: IpAddr, policy: &str) -> Vec<Element> {
    let family = if address.is_ipv4() { Family::Ip } else { Family::Ip6 };
    [members(policy), ALLOWED.into(), DENIED.into()]
        .map(|set| Element { family, table: TABLE, set, key: vec![Value::Address(address)] })
        .into()
}
