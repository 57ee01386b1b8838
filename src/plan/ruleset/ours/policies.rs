//! Policies: a chain of `ip volnet` before the one that forwards.
//!
//! A VM's address is in the set of its policy, so the rules of a policy do not depend on its VMs.
//! An allowed packet goes on to the later chains, which keep networks apart. The chain sees each
//! packet of a guest, also those of existing connections. So a changed policy applies at once.
//!
//! The allowed and denied packets of each address are counted by the last look-up before the
//! verdict, in a set whose elements count.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::{
    Chain, Element, Family, Field, Hook, Match, NetworkConfig, PRIORITY_FILTER, PacketField, Rule,
    Set, SetKind, TABLE, Value, Verdict, bridge, filter, is, masked, outside, set, within,
};
use crate::model::policy::{OPEN, Policy, PolicyRule, To};

/// The sets that count.
pub(super) const ALLOWED: &str = "allowed";
pub(super) const DENIED: &str = "denied";

pub(super) fn sets(networks: &[&NetworkConfig], policies: &[Policy]) -> Vec<Set> {
    let counting = |name: &'static str| Set {
        kind: SetKind::Counting,
        ..set(name, &[Field::Ipv4], Vec::new())
    };
    let restricted = networks.iter().filter(|network| network.traffic().policy != OPEN);
    let restricted = restricted.map(|network| vec![bridge(network)]).collect();
    let mut sets =
        vec![counting(ALLOWED), counting(DENIED), set("restricted", &[Field::Link], restricted)];
    sets.extend(
        policies
            .iter()
            .map(|policy| Set { name: members(&policy.name), ..set("", MEMBERS, Vec::new()) }),
    );
    sets
}

/// The prefix and the key of the sets of policies.
const MEMBERS_PREFIX: &str = "policy_";
pub(super) const MEMBERS: &[Field] = &[Field::Ipv4];

/// The set of the addresses with a policy.
fn members(policy: &str) -> Cow<'static, str> {
    format!("{MEMBERS_PREFIX}{policy}").into()
}

/// Whether it is the set of a policy.
pub(super) fn is_members(set: &str) -> bool {
    set.starts_with(MEMBERS_PREFIX)
}

pub(super) fn chain(policies: &[Policy]) -> Chain {
    use PacketField::{InLink, IpSource, OutLink};
    let mut rules = vec![
        Rule { matches: vec![within(&[InLink, OutLink], "within")], verdict: Verdict::Accept },
        Rule { matches: vec![Match::Established, Match::Answer], verdict: Verdict::Accept },
    ];
    for policy in policies {
        rules.extend(policy.rules.iter().map(|rule| of_rule(policy, rule)));
        rules.push(verdict(Vec::new(), policy, false));
    }
    let elsewhere = vec![within(&[InLink], "restricted"), outside(&[IpSource], ALLOWED)];
    rules.push(Rule { matches: elsewhere, verdict: Verdict::Drop });
    filter("policies", Hook::Forward, PRIORITY_FILTER - 1, rules)
}

/// The conditions on the packet come before the look-up of its sender, which takes longer.
fn of_rule(policy: &Policy, rule: &PolicyRule) -> Rule {
    use PacketField::{DestinationPort, IpDestination, Protocol};
    let mut matches = Vec::new();
    match rule.to {
        To::Any => {}
        To::Exposed => matches.push(Match::Translated),
        To::Prefix(prefix) => {
            let number = |address: Ipv4Addr| u64::from(address.to_bits());
            let (mask, value) = (number(prefix.netmask()), number(prefix.network()));
            matches.push(masked(IpDestination, mask, value));
        }
    }
    matches.extend(rule.protocol.map(|protocol| is(Protocol, protocol.into())));
    matches.extend(rule.port.map(|port| is(DestinationPort, port.into())));
    verdict(matches, policy, rule.allow)
}

fn verdict(mut matches: Vec<Match>, policy: &Policy, allow: bool) -> Rule {
    use PacketField::IpSource;
    let (count, verdict) = if allow { (ALLOWED, Verdict::Accept) } else { (DENIED, Verdict::Drop) };
    matches.push(Match::InSet { fields: &[IpSource], set: members(&policy.name), negated: false });
    matches.push(within(&[IpSource], count));
    Rule { matches, verdict }
}

/// The elements of a VM in these sets.
pub(super) fn elements(address: Ipv4Addr, policy: &str) -> Vec<Element> {
    [members(policy), ALLOWED.into(), DENIED.into()]
        .map(|set| Element {
            family: Family::Ip,
            table: TABLE,
            set,
            key: vec![Value::Ipv4(address)],
        })
        .into()
}
