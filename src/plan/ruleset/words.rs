//! Our rules in words, for people who want to know why a packet went no further.

use super::text;
use super::{FORGED, Family, Match, PacketField, Rule, TABLE, Table, Verdict};

/// The beginning of the names of the sets of policies.
const POLICY: &str = "policy_";
/// The ports of DHCP (RFC 2131) and of clients of DHCPv6 (RFC 8415).
const DHCP_SERVER: u64 = 67;
const DHCP_CLIENT: u64 = 68;
const DHCP6_CLIENT: u64 = 546;

/// What a rule of ours says, by its tag; `None` if the chain has no such rule.
pub fn of(tables: &[Table], family: Family, chain: &str, tag: u64) -> Option<String> {
    let table = tables.iter().find(|it| (it.family, it.name) == (family, TABLE))?;
    let chain = table.chains.iter().find(|it| it.name == chain)?;
    let rule = chain.rules.iter().find(|rule| rule.tag() == tag)?;
    Some(words(rule, family, chain.name))
}

fn words(rule: &Rule, family: Family, chain: &str) -> String {
    if let Some(policy) = rule.sets().find_map(|set| set.strip_prefix(POLICY)) {
        return of_policy(rule, policy);
    }
    match family {
        Family::Bridge => bridged(rule, chain),
        Family::Ip | Family::Ip6 => routed(rule, chain),
    }
}

/// A rule for frames.
fn bridged(rule: &Rule, chain: &str) -> String {
    let has = |name: &str| rule.sets().any(|set| set == name);
    let on = |field| rule.fields().any(|of| of == field);
    match (chain, rule.verdict == Verdict::Drop) {
        ("prerouting", true) if has("limited") => {
            "limits: the guest sends more bytes a second than it may".into()
        }
        ("prerouting", true) if has("paced") => {
            "limits: the guest sends more packets a second than it may".into()
        }
        ("prerouting", true) if has("storms") => {
            "the guest sends too many frames to groups and broadcast".into()
        }
        ("prerouting", true) if has("claims") => {
            "the guest asks too often for IPv6 addresses of its own".into()
        }
        ("prerouting", true) if has("macs") => {
            "antispoof: the guest asks for DHCP with another's Ethernet address".into()
        }
        ("prerouting", true) if has(FORGED) => {
            "antispoof: the guest's ARP does not state its own addresses".into()
        }
        ("prerouting", true) if rule.fields().next().is_none() => {
            "antispoof: the guest may not send this, or not from this address".into()
        }
        ("prerouting", true) => by_field(rule),
        ("postrouting", true) if on(PacketField::Priority) => {
            "an IPv6 address that the guest wants for itself: volnet alone hears of it".into()
        }
        ("postrouting", false) => "an answer of a DHCP server that the guest asked".into(),
        ("outward" | "inward", false) => "the guest has no inner identity".into(),
        ("prerouting", false) if has("trusted") => {
            "antispoof is off: the guest may send anything".into()
        }
        ("prerouting", false) if matches!(rule.verdict, Verdict::Accept | Verdict::Admit(_)) => {
            "antispoof: the guest sends from its own addresses".into()
        }
        (_, true) if has("isolated") => "isolated: the other guest is isolated, too".into(),
        ("inward", true) => {
            "inner identity: the other guest takes the address for its own or its gateway's".into()
        }
        (_, _) => text::rule(rule),
    }
}

/// A rule for routed packets.
fn routed(rule: &Rule, chain: &str) -> String {
    let has = |name: &str| rule.sets().any(|set| set == name);
    let on = |field| rule.fields().any(|of| of == field);
    let is = |wanted: &Match| rule.matches.contains(wanted);
    match (chain, rule.verdict == Verdict::Drop) {
        ("policies", true) => "policy: the sender has none, and the network is not open".into(),
        ("policies", false) if has("within") => "the packet stays in its network".into(),
        ("forward", true) if has("within") => "networks are kept apart: this one is another".into(),
        ("forward", true) if has("natted") => {
            "no connection from outside goes to a network with NAT".into()
        }
        ("forward", false) if has("natted") => "a peer of the network may begin it".into(),
        ("postrouting", false) if rule.verdict == Verdict::Accept => {
            "a peer of the network: not masqueraded".into()
        }
        ("forward", true) => "the metadata service of a cloud is denied".into(),
        ("input", true) if has("questions") => "the guest asks for too many names".into(),
        ("input", true) if has("answers") => {
            "the host answers its guests only on its address in their network".into()
        }
        ("input", true) => "host_services of the network does not have it".into(),
        ("policies" | "forward" | "input", false) if is(&Match::Established) => {
            "it belongs to a connection that was allowed".into()
        }
        ("forward", false) if is(&Match::Translated) => "an exposed port".into(),
        ("input", false) if on(PacketField::Priority) => "it is not from a guest".into(),
        ("input", false) if has("pings") => "the host answers ping".into(),
        ("exposed_output", false) => "it stays on the host".into(),
        ("input", false) if has("open") => "host_services of the network has any".into(),
        ("input", false) if has("services") => "host_services of the network has it".into(),
        (_, _) if rule.verdict == Verdict::Masquerade => "masquerade".into(),
        (_, _) if matches!(rule.verdict, Verdict::Translate { .. }) => {
            "an exposed port leads to its guest".into()
        }
        (_, _) => text::rule(rule),
    }
}

/// What a guest must not send, by the field that tells it.
fn by_field(rule: &Rule) -> String {
    let is = |field, value| {
        rule.matches.iter().any(|condition| {
            matches!(condition, Match::Is { field: of, value: is, negated: false, .. }
                if *of == field && *is == value)
        })
    };
    let on = |field| rule.fields().any(|of| of == field);
    let told = if is(PacketField::DestinationPort, DHCP_SERVER) {
        "DHCP in fragments, of which nobody can see whose it is"
    } else if is(PacketField::SourcePort, DHCP_SERVER)
        || is(PacketField::DestinationPort, DHCP_CLIENT)
        || is(PacketField::DestinationPort, DHCP6_CLIENT)
    {
        "antispoof: a guest does not answer DHCP"
    } else if on(PacketField::IgmpType) {
        "antispoof: a guest does not ask who listens to groups"
    } else if on(PacketField::Priority) {
        "antispoof: the frame has another's Ethernet address"
    } else if on(PacketField::EtherDestination) {
        "frames to link-local groups are for bridges"
    } else {
        return text::rule(rule);
    };
    told.into()
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
    /// The fields that it compares with values.
    fn fields(&self) -> impl Iterator<Item = PacketField> {
        self.matches.iter().filter_map(|condition| match condition {
            Match::Is { field, .. } => Some(*field),
            _ => None,
        })
    }

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

    /// A trace tells what has dropped a packet, and what has let it pass.
    #[test]
    fn each_rule_that_decides_has_words() {
        let network = NetworkConfig {
            peers: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:9::/48".parse().unwrap()],
            ..NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1")
        };
        let tables = tables(&[&network], &Policy::built_in(), Vec::new(), false);
        let decides = |rule: &&Rule| {
            matches!(rule.verdict, Verdict::Accept | Verdict::Drop | Verdict::Admit(_))
        };
        for table in &tables {
            for chain in &table.chains {
                for rule in chain.rules.iter().filter(decides) {
                    let words = words(rule, table.family, chain.name);
                    assert_ne!(words, text::rule(rule), "{:?} {}", table.family, chain.name);
                }
            }
        }
    }

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
