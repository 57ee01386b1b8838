//! Our rules in words, for people who want to know why a packet went no further.

use super::text;
use super::{FORGED, Family, Match, PacketField, Rule, SPOOFED, Table, Verdict};

/// The beginning of the names of the sets of policies.
const POLICY: &str = "policy_";

/// What a rule of ours says, by its tag; `None` if the chain has no such rule.
pub fn of(tables: &[Table], family: Family, chain: &str, tag: u64) -> Option<String> {
    let table = tables.iter().find(|table| table.family == family)?;
    let chain = table.chains.iter().find(|it| it.name == chain)?;
    let rule = chain.rules.iter().find(|rule| rule.tag() == tag)?;
    Some(words(rule, family, chain.name))
}

fn words(rule: &Rule, family: Family, chain: &str) -> String {
    if let Some(policy) = rule.sets().find_map(|set| set.strip_prefix(POLICY)) {
        return of_policy(rule, policy);
    }
    let has = |name: &str| rule.sets().any(|set| set == name);
    let drops = rule.verdict == Verdict::Drop;
    match (family, chain, drops) {
        (Family::Bridge, "prerouting", true) if has("limited") => {
            "limits: the guest sends more bytes a second than it may".into()
        }
        (Family::Bridge, "prerouting", true) if has("paced") => {
            "limits: the guest sends more packets a second than it may".into()
        }
        (Family::Bridge, "prerouting", true) if has("storms") => {
            "the guest sends too many frames to groups and broadcast".into()
        }
        (Family::Bridge, "prerouting", true) if has(FORGED) => {
            "antispoof: the guest's ARP does not state its own addresses".into()
        }
        (Family::Bridge, "prerouting", true) if rule.matches.is_empty() || has(SPOOFED) => {
            "antispoof: the guest may not send this, or not from this address".into()
        }
        (Family::Bridge, "prerouting", false) if has("trusted") => {
            "antispoof is off: the guest may send anything".into()
        }
        (Family::Bridge, "prerouting", false)
            if matches!(rule.verdict, Verdict::Accept | Verdict::Admit(_)) =>
        {
            "antispoof: the guest sends from its own addresses".into()
        }
        (Family::Bridge, _, true) if has("isolated") => {
            "isolated: the other guest is isolated, too".into()
        }
        (Family::Bridge, "inward", true) => {
            "inner identity: the other guest takes the address for its own or its gateway's".into()
        }
        (_, "policies", true) => "policy: the sender has none, and the network is not open".into(),
        (_, "policies", false) if has("within") => "the packet stays in its network".into(),
        (_, "forward", true) if has("within") => {
            "networks are kept apart: this one is another".into()
        }
        (_, "forward", true) if has("natted") => {
            "no connection from outside goes to a network with NAT".into()
        }
        (_, "forward", false) if has("natted") => "a peer of the network may begin it".into(),
        (_, "postrouting", false) if rule.verdict == Verdict::Accept => {
            "a peer of the network: not masqueraded".into()
        }
        (_, "forward", true) => "the metadata service of a cloud is denied".into(),
        (_, "input", true) if has("questions") => "the guest asks for too many names".into(),
        (_, "input", true) if has("answers") => {
            "the host answers its guests only on its address in their network".into()
        }
        (_, "input", true) => "host_services of the network does not have it".into(),
        (_, "input", false) if has("open") => "host_services of the network has any".into(),
        (_, "input", false) if has("services") => "host_services of the network has it".into(),
        (_, _, _) if rule.verdict == Verdict::Masquerade => "masquerade".into(),
        (_, _, _) => text::rule(rule),
    }
}

/// A rule of a policy: what it is about, and whether it allows that.
fn of_policy(rule: &Rule, policy: &str) -> String {
    let about = |condition: &Match| match condition {
        Match::Within { prefix, .. } => Some(prefix.to_string()),
        Match::Translated => Some("an exposed port".into()),
        Match::Is { field: PacketField::Protocol, value, .. } => Some(match value {
            1 | 58 => "icmp".into(),
            6 => "tcp".into(),
            17 => "udp".into(),
            other => format!("protocol {other}"),
        }),
        Match::Is { field: PacketField::DestinationPort, value, .. } => {
            Some(format!("port {value}"))
        }
        _ => None,
    };
    let about: Vec<String> = rule.matches.iter().filter_map(about).collect();
    let done = if rule.verdict == Verdict::Drop { "denied" } else { "allowed" };
    match about.as_slice() {
        [] if rule.verdict == Verdict::Drop => {
            format!("policy {policy}: what no rule allows is denied")
        }
        [] => format!("policy {policy}: everything else is allowed"),
        some => format!("policy {policy}: {} is {done}", some.join(" ")),
    }
}

impl Rule {
    /// The sets in which it looks something up.
    fn sets(&self) -> impl Iterator<Item = &str> {
        self.matches.iter().filter_map(|condition| match condition {
            Match::InSet { set, .. } => Some(&**set),
            Match::Faster { set, .. } | Match::Put { set, .. } => Some(*set),
            Match::Is { .. }
            | Match::Within { .. }
            | Match::Established
            | Match::Translated
            | Match::Answer
            | Match::Local => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::net::NetworkConfig;
    use crate::model::policy::Policy;
    use crate::plan::ruleset::tables;

    #[test]
    fn rules_of_ours_are_told_in_words() {
        let network = NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1");
        let tables = tables(&[&network], &Policy::built_in(), Vec::new(), false);
        let all = |family, chain: &str| -> Vec<String> {
            let table = tables.iter().find(|table| table.family == family).unwrap();
            let found = table.chains.iter().find(|it| it.name == chain).unwrap();
            let tags = found.rules.iter().map(Rule::tag);
            tags.map(|tag| of(&tables, family, chain, tag).unwrap()).collect()
        };
        let policies = all(Family::Ip, "policies");
        for words in [
            "policy internet: 10.0.0.0/8 is denied",
            "policy internet: an exposed port is allowed",
            "policy internet: everything else is allowed",
            "policy open: everything else is allowed",
            "policy none: what no rule allows is denied",
        ] {
            assert!(policies.iter().any(|it| it == words), "{words}: {policies:#?}");
        }
        let bridged = all(Family::Bridge, "prerouting");
        let last = bridged.last().unwrap();
        assert_eq!(last, "antispoof: the guest may not send this, or not from this address");
        let inward = all(Family::Bridge, "inward");
        let hidden = inward.iter().filter(|words| words.starts_with("inner identity: "));
        assert_eq!(hidden.count(), 5, "{inward:#?}");
        let forward = all(Family::Ip, "forward");
        assert!(forward.contains(&"networks are kept apart: this one is another".into()));
        assert_eq!(of(&tables, Family::Ip, "policies", 7), None);
        assert_eq!(of(&tables, Family::Ip, "nowhere", 7), None);
    }
}
