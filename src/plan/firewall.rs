//! What there is around volnet that packets of guests have to get through, and what it needs.
//!
//! An accept of ours holds in our own chains and, by two rules, in those of `iptables`. A firewall
//! with chains elsewhere drops all the same what it does not know; it has to be told of our bridges,
//! in its own words, by the administrator.

use crate::model::view::{Finding, Level};

/// What was seen of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether bridged frames pass the rules for routed packets (ip-sysctl.rst,
    /// `bridge-nf-call-iptables`).
    pub bridged_filtered: bool,
    /// The firewalls.
    pub firewalls: Vec<Firewall>,
}

/// A firewall that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// Which one.
    pub kind: FirewallKind,
    /// The links that its rules let something in by.
    pub links: Vec<String>,
}

/// The firewalls that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallKind {
    /// firewalld, by its own table of nf_tables.
    Firewalld,
    /// ufw, by its chains in `ip filter`.
    Ufw,
    /// Rules of the old `iptables-legacy`, which are not in nf_tables and cannot be seen there.
    Legacy,
}

impl FirewallKind {
    fn name(self) -> &'static str {
        match self {
            FirewallKind::Firewalld => "firewalld",
            FirewallKind::Ufw => "ufw",
            FirewallKind::Legacy => "iptables-legacy",
        }
    }

    /// What may be lost where it does not let in what comes by these bridges.
    fn message(self, bridges: &str) -> String {
        match self {
            FirewallKind::Firewalld => {
                format!("it has no rule for {bridges}: it may reject packets from and to guests")
            }
            FirewallKind::Ufw => {
                format!("it has no rule for {bridges}: it drops packets from guests to this host")
            }
            FirewallKind::Legacy => "it has rules that volnet cannot see; if they drop a packet, \
                no rule of volnet can accept it"
                .into(),
        }
    }

    /// The command that tells it of a bridge.
    fn command(self, bridge: &str) -> String {
        match self {
            FirewallKind::Firewalld => {
                format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge}")
            }
            FirewallKind::Ufw => format!("ufw allow in on {bridge}"),
            FirewallKind::Legacy => format!(
                "iptables-legacy -I FORWARD -i {bridge} -j ACCEPT && \
                 iptables-legacy -I FORWARD -o {bridge} -j ACCEPT"
            ),
        }
    }

    /// The command that puts those in force.
    fn last(self) -> Option<&'static str> {
        match self {
            FirewallKind::Firewalld => Some("firewall-cmd --reload"),
            FirewallKind::Ufw | FirewallKind::Legacy => None,
        }
    }
}

/// What is to be said of it.
pub fn findings(surroundings: &Surroundings, bridges: &[&str]) -> Vec<Finding> {
    let mut findings = vec![bridged(surroundings.bridged_filtered)];
    findings.extend(surroundings.firewalls.iter().map(|firewall| firewall.finding(bridges)));
    findings
}

/// Frames from guest to guest come in and leave by the same bridge, which our rules let pass in our
/// chains and in those of `iptables`.
fn bridged(filtered: bool) -> Finding {
    let message = match filtered {
        false => "bridged frames do not pass the rules for routed packets",
        true => "bridged frames pass the rules for routed packets, and volnet's rules accept them",
    };
    Finding { check: "bridge-nf".into(), level: Level::Ok, message: message.into(), hint: None }
}

impl Firewall {
    fn finding(&self, bridges: &[&str]) -> Finding {
        let unknown: Vec<&str> =
            bridges.iter().copied().filter(|bridge| !self.knows(bridge)).collect();
        let check = self.kind.name().into();
        if unknown.is_empty() {
            let message = format!("it has rules for {}", bridges.join(", "));
            return Finding { check, level: Level::Ok, message, hint: None };
        }
        let message = self.kind.message(&unknown.join(", "));
        let commands = unknown.iter().map(|bridge| self.kind.command(bridge));
        let commands: Vec<String> = commands.chain(self.kind.last().map(str::to_owned)).collect();
        Finding { check, level: Level::Warning, message, hint: Some(commands.join(" && ")) }
    }

    fn knows(&self, bridge: &str) -> bool {
        self.links.iter().any(|link| link == bridge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall(kind: FirewallKind, links: &[&str]) -> Surroundings {
        let links = links.iter().map(|link| (*link).to_string()).collect();
        Surroundings { bridged_filtered: false, firewalls: vec![Firewall { kind, links }] }
    }

    #[test]
    fn a_firewall_that_knows_every_bridge_needs_nothing() {
        for kind in [FirewallKind::Firewalld, FirewallKind::Ufw] {
            let findings = findings(&firewall(kind, &["eth0", "vbr1", "vbr0"]), &["vbr0", "vbr1"]);
            assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        }
    }

    #[test]
    fn the_hint_is_for_the_bridges_that_it_does_not_know() {
        let surroundings = firewall(FirewallKind::Firewalld, &["vbr0"]);
        let finding = findings(&surroundings, &["vbr0", "vbr1"]).pop().unwrap();
        assert_eq!((finding.check.as_str(), finding.level), ("firewalld", Level::Warning));
        assert!(finding.message.starts_with("it has no rule for vbr1: "), "{finding:?}");
        let hint = "firewall-cmd --permanent --zone=trusted --add-interface=vbr1 && \
                    firewall-cmd --reload";
        assert_eq!(finding.hint.as_deref(), Some(hint));
    }
}
