//! Other programs' firewalls, which packets of guests must pass, and what they need.
//!
//! Our accept works in our own chains and, with two rules of each family, in those of `iptables`
//! and `ip6tables`. A firewall with other chains still drops packets that it does not know. The
//! administrator must tell it about our bridges, in its own commands. Firewalls that are known by
//! name are told apart; of all other rules it is looked which base chains drop what no rule accepts
//! ([`Barrier`]). This is no evaluation of rules: one that names a bridge is taken to let it
//! through.

use crate::model::expose::HostPort;
use crate::model::name::VmName;
use crate::model::view::{Finding, Level};

/// The observed firewalls and settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether bridged frames pass the rules for routed packets (ip-sysctl.rst,
    /// `bridge-nf-call-iptables`).
    pub bridged_filtered: bool,
    /// Links that do not forward IPv4, though the host does (ip-sysctl.rst,
    /// `conf/interface/forwarding`).
    pub closed: Vec<String>,
    /// Links that are no routers of IPv6, though the host is one.
    pub not_routers: Vec<String>,
    /// The firewalls.
    pub firewalls: Vec<Firewall>,
    /// Chains of others.
    pub barriers: Vec<Barrier>,
    /// Tables of others with source NAT: what they translate is forwarded.
    pub translators: Vec<String>,
}

impl Surroundings {
    /// Why packets from guests of a bridge to this host are dropped, as far as that can be seen. If
    /// guests have both families, that is about IPv4.
    pub fn keeps_from_host(&self, bridge: &str, has_ipv4: bool) -> Option<String> {
        let other = if has_ipv4 { IPV6 } else { IPV4 };
        let ignorant = |it: &&Firewall| it.kind != FirewallKind::Legacy && !it.knows(bridge);
        let firewall = self.firewalls.iter().find(ignorant);
        let meets = |it: &&Barrier| matches!(it.at, At::Input | At::Prerouting);
        let barriers = self.barriers.iter().filter(meets).filter(|it| it.family != other);
        let barrier = barriers.into_iter().find(|it| !it.knows(bridge));
        let table = || barrier.map(|it| format!("table {} {}", it.family, it.table));
        let who = firewall.map(|it| it.kind.name().to_string()).or_else(table)?;
        Some(format!("{who} has no rule for {bridge}, and drops what guests send to this host"))
    }

    /// Who else needs this host to forward packets, in words.
    pub fn needs_forwarding(&self) -> Option<String> {
        let legacy = |firewall: &&Firewall| firewall.kind == FirewallKind::Legacy;
        let table = self.translators.first().map(|table| format!("table {table} has source NAT"));
        table.or_else(|| {
            let firewall = self.firewalls.iter().find(legacy)?;
            Some(format!("{} has rules, which may need it", firewall.kind.name()))
        })
    }
}

/// A rule of another program that could be in the way of packets of guests, whatever else its chain
/// does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// The family of its table: `ip`, `ip6`, `inet` or `bridge`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// What it does.
    pub what: Hinders,
}

/// What a rule does to packets of guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hinders {
    /// It drops all that comes in or leaves by this link.
    Link(String),
    /// It translates the destination of packets to this port of the host, before volnet's rules
    /// see them; `None`: of other packets, or of any.
    Port(Option<u16>),
}

impl Hindrance {
    /// The finding about a rule that drops what these bridges have.
    pub fn of_bridges(&self, bridges: &[&str]) -> Option<Finding> {
        let Hinders::Link(link) = &self.what else { return None };
        bridges
            .contains(&link.as_str())
            .then(|| self.finding("firewall", format!("{} drops what {link} has", self.name())))
    }

    /// The finding about a rule that takes the packets of an exposed port, which leads to a VM.
    pub fn of_port(&self, port: &HostPort, vm: &VmName) -> Option<Finding> {
        let Hinders::Port(Some(taken)) = self.what else { return None };
        let last = port.port.saturating_add(port.count - 1);
        (port.port..=last).contains(&taken).then(|| {
            let name = self.name();
            self.finding("ports", format!("{name} takes port {taken}, which leads to VM {vm}"))
        })
    }

    fn name(&self) -> String {
        let Hindrance { family, table, chain, handle, .. } = self;
        format!("rule {handle} in chain {chain} of table {family} {table}")
    }

    fn finding(&self, check: &str, message: String) -> Finding {
        let Hindrance { family, table, chain, handle, .. } = self;
        let hint = format!("nft delete rule {family} {table} {chain} handle {handle}");
        Finding { check: check.into(), level: Level::Error, message, hint: Some(hint) }
    }
}

/// A base chain that drops what none of its rules accepts: by its policy, or by its last rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The family of its table: `ip`, `ip6`, `inet` or `bridge`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// What meets it.
    pub at: At,
    /// The links that rules of its table let something in by. One that ends with `*` stands for all
    /// that begin so.
    pub links: Vec<String>,
    /// A process owns the table, and nobody else can change it.
    pub owned: bool,
}

/// What meets a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// All packets that come in.
    Prerouting,
    /// What is for the host.
    Input,
    /// What goes through it.
    Forward,
    /// All packets that go out.
    Postrouting,
}

/// A firewall that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// Which one.
    pub kind: FirewallKind,
    /// The links for which it has rules that accept packets.
    pub links: Vec<String>,
}

/// The firewalls that volnet recognises.
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

    /// The consequence if it does not accept packets from these bridges.
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

    /// The command that adds a bridge to it.
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

    /// The command that applies the others.
    fn last(self) -> Option<&'static str> {
        match self {
            FirewallKind::Firewalld => Some("firewall-cmd --reload"),
            FirewallKind::Ufw | FirewallKind::Legacy => None,
        }
    }
}

/// The findings about them for these bridges: those with IPv4, and those with IPv6.
pub fn findings(surroundings: &Surroundings, ipv4: &[&str], ipv6: &[&str]) -> Vec<Finding> {
    let alone = ipv6.iter().filter(|bridge| !ipv4.contains(bridge));
    let bridges: &[&str] = &ipv4.iter().chain(alone).copied().collect::<Vec<_>>();
    let mut findings = vec![bridged(surroundings.bridged_filtered)];
    findings.extend(surroundings.firewalls.iter().map(|firewall| firewall.finding(bridges)));
    findings.extend(surroundings.barriers.iter().filter_map(|barrier| {
        barrier.finding(match barrier.family {
            IPV4 => ipv4,
            IPV6 => ipv6,
            _ => bridges,
        })
    }));
    let closed = surroundings.closed.iter().filter(|_| !ipv4.is_empty());
    findings.extend(closed.map(|link| closed_finding(link)));
    let not_routers = surroundings.not_routers.iter().filter(|link| ipv6.contains(&link.as_str()));
    findings.extend(not_routers.map(|bridge| no_router_finding(bridge)));
    findings
}

/// Somebody switched forwarding off for a link: that may be meant, so volnet lets it be.
fn closed_finding(link: &str) -> Finding {
    let message = format!(
        "net.ipv4.conf.{link}.forwarding is off: packets that come in by {link} reach this host \
         and nobody else"
    );
    // With slashes, because the name of a link may have dots.
    let hint = Some(format!("sysctl -w net/ipv4/conf/{link}/forwarding=1"));
    Finding { check: "forwarding".into(), level: Level::Warning, message, hint }
}

/// Linux forwards IPv6 all the same, but does not say any more that it is a router, and whoever
/// asks for its address forgets the routes by it (RFC 4861, 7.2.5). Of other links that may be
/// meant: the host finds its own router there.
fn no_router_finding(bridge: &str) -> Finding {
    let message = format!(
        "net.ipv6.conf.{bridge}.forwarding is off: guests of {bridge} do not take this host for \
         their router any more"
    );
    let hint = Some(format!("sysctl -w net/ipv6/conf/{bridge}/forwarding=1"));
    Finding { check: "forwarding".into(), level: Level::Warning, message, hint }
}

/// Frames from guest to guest come in and leave by the same bridge. Our rules accept them in our
/// chains and in those of `iptables`.
fn bridged(filtered: bool) -> Finding {
    let message = match filtered {
        false => "bridged frames pass no rules for routed packets, but where services need it",
        true => "bridged frames pass the rules for routed packets, and volnet's rules accept them",
    };
    Finding { check: "bridge-nf".into(), level: Level::Ok, message: message.into(), hint: None }
}

/// The table by which firewalld drops everything: before routing in its panic mode, and where
/// packets are filtered while it reloads (`build_set_policy_rules` of its `core/nftables.py`).
const FIREWALLD_DROPS: &str = "firewalld_policy_drop";
/// The families of tables that only IPv4 and only IPv6 meet.
const IPV4: &str = "ip";
const IPV6: &str = "ip6";
/// The tables of `iptables` (iptables(8)).
const IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

impl Barrier {
    /// `None` when it lets all of these bridges through.
    fn finding(&self, bridges: &[&str]) -> Option<Finding> {
        let unknown: Vec<&str> =
            bridges.iter().copied().filter(|bridge| !self.knows(bridge)).collect();
        if unknown.is_empty() {
            return None;
        }
        let lost = match (self.family, self.at) {
            ("bridge", _) => "frames of guests are lost",
            (IPV6, At::Forward) => "guests do not reach the world by IPv6",
            (IPV6, At::Input) => "guests do not reach this host by IPv6",
            (_, At::Forward) => "guests do not reach the world",
            (_, At::Input) => "guests do not reach this host",
            (_, At::Prerouting | At::Postrouting) => "packets of guests are lost",
        };
        let message = format!(
            "chain {} of table {} {} drops what no rule accepts, and no rule names {}: {lost}{}",
            self.chain,
            self.family,
            self.table,
            unknown.join(", "),
            if self.owned { "; only the process that owns the table can change it" } else { "" }
        );
        Some(Finding {
            check: "firewall".into(),
            level: Level::Warning,
            message,
            hint: self.hint(&unknown),
        })
    }

    /// The commands that let these bridges through, if there are some.
    fn hint(&self, bridges: &[&str]) -> Option<String> {
        match (self.table.as_str(), self.at) {
            (FIREWALLD_DROPS, At::Prerouting) => Some("firewall-cmd --panic-off".into()),
            (FIREWALLD_DROPS, _) => Some("firewall-cmd --reload".into()),
            _ if self.owned => None,
            _ => {
                let commands = bridges.iter().flat_map(|bridge| self.commands(bridge));
                Some(commands.collect::<Vec<_>>().join(" && "))
            }
        }
    }

    /// The commands that let a bridge through, in each direction that meets the chain.
    fn commands(&self, bridge: &str) -> Vec<String> {
        let Barrier { family, table, chain, .. } = self;
        let directions: &[(&str, &str)] = match self.at {
            At::Forward => &[("-i", "i"), ("-o", "o")],
            At::Input | At::Prerouting => &[("-i", "i")],
            At::Postrouting => &[("-o", "o")],
        };
        let command = |(option, letter): &(&str, &str)| {
            let iptables = match *family {
                IPV4 => Some("iptables"),
                IPV6 => Some("ip6tables"),
                _ => None,
            };
            let of_iptables = IPTABLES.contains(&table.as_str())
                && chain.chars().all(|letter| letter.is_ascii_uppercase());
            if let Some(program) = iptables.filter(|_| of_iptables) {
                return format!("{program} -t {table} -I {chain} {option} {bridge} -j ACCEPT");
            }
            let link = if *family == "bridge" { "brname" } else { "ifname" };
            format!("nft insert rule {family} {table} {chain} {letter}{link} {bridge} accept")
        };
        directions.iter().map(command).collect()
    }

    fn knows(&self, bridge: &str) -> bool {
        self.links.iter().any(|link| match link.strip_suffix('*') {
            Some(beginning) => bridge.starts_with(beginning),
            None => link == bridge,
        })
    }
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
        Surroundings { firewalls: vec![Firewall { kind, links }], ..Surroundings::default() }
    }

    #[test]
    fn a_firewall_keeps_guests_from_the_host_if_it_does_not_know_their_bridge() {
        let keeps = |it: &Surroundings| it.keeps_from_host("vbr0", true).is_some();
        for kind in [FirewallKind::Firewalld, FirewallKind::Ufw] {
            assert!(keeps(&firewall(kind, &["vbr1"])) && !keeps(&firewall(kind, &["vbr0"])));
        }
        assert!(!keeps(&firewall(FirewallKind::Legacy, &[])), "nobody can tell");
        for (at, expected) in [
            (At::Prerouting, true),
            (At::Input, true),
            (At::Forward, false),
            (At::Postrouting, false),
        ] {
            let (table, chain) = ("filter".into(), "x".into());
            let links = Vec::new();
            let barrier = Barrier { family: "inet", table, chain, at, links, owned: false };
            let one = Surroundings { barriers: vec![barrier.clone()], ..Surroundings::default() };
            assert_eq!(keeps(&one), expected, "{at:?}");
            let links = vec!["vbr*".into()];
            let barriers = vec![Barrier { links, ..barrier }];
            assert!(!keeps(&Surroundings { barriers, ..Surroundings::default() }));
        }
    }

    #[test]
    fn a_firewall_that_knows_every_bridge_needs_nothing() {
        for kind in [FirewallKind::Firewalld, FirewallKind::Ufw] {
            let findings =
                findings(&firewall(kind, &["eth0", "vbr1", "vbr0"]), &["vbr0", "vbr1"], &[]);
            assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
        }
    }

    #[test]
    fn the_hint_is_for_the_bridges_that_it_does_not_know() {
        let surroundings = firewall(FirewallKind::Firewalld, &["vbr0"]);
        let finding = findings(&surroundings, &["vbr0", "vbr1"], &[]).pop().unwrap();
        assert_eq!((finding.check.as_str(), finding.level), ("firewalld", Level::Warning));
        assert!(finding.message.starts_with("it has no rule for vbr1: "), "{finding:?}");
        let hint = "firewall-cmd --permanent --zone=trusted --add-interface=vbr1 && \
                    firewall-cmd --reload";
        assert_eq!(finding.hint.as_deref(), Some(hint));
    }

    #[test]
    fn a_link_that_does_not_forward_is_named_with_the_command() {
        let closed = vec!["eth0.5".to_string()];
        let surroundings = Surroundings { closed, ..Surroundings::default() };
        let finding = findings(&surroundings, &["vbr0"], &[]).pop().unwrap();
        assert_eq!((finding.check.as_str(), finding.level), ("forwarding", Level::Warning));
        let hint = "sysctl -w net/ipv4/conf/eth0.5/forwarding=1";
        assert_eq!(finding.hint.as_deref(), Some(hint));
        // Nobody is served.
        assert!(findings(&surroundings, &[], &[]).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn a_chain_of_ipv6_is_about_bridges_with_ipv6() {
        let barrier = barrier("ip6", "filter", At::Forward, &["vbr1"]);
        let barriers = vec![Barrier { chain: "FORWARD".into(), ..barrier }];
        let surroundings = Surroundings { barriers, ..Surroundings::default() };
        let finding = |ipv6: &[&str]| findings(&surroundings, &["vbr0", "vbr1"], ipv6).pop();
        let hint = |ipv6: &[&str]| finding(ipv6).and_then(|finding| finding.hint);
        assert_eq!((hint(&[]), hint(&["vbr1"])), (None, None));
        assert_eq!(
            hint(&["vbr0", "vbr1"]).as_deref(),
            Some(
                "ip6tables -t filter -I FORWARD -i vbr0 -j ACCEPT && \
                 ip6tables -t filter -I FORWARD -o vbr0 -j ACCEPT"
            )
        );
        assert_eq!(surroundings.keeps_from_host("vbr0", true), None);
    }

    #[test]
    fn a_bridge_with_ipv6_alone_is_kept_from_the_host_by_a_chain_of_ipv6() {
        let of = |family| Surroundings {
            barriers: vec![barrier(family, "filter", At::Input, &[])],
            ..Surroundings::default()
        };
        let keeps = |family, has_ipv4| of(family).keeps_from_host("vbr0", has_ipv4).is_some();
        let families = ["ip", "ip6", "inet"];
        assert_eq!(families.map(|family| keeps(family, true)), [true, false, true]);
        assert_eq!(families.map(|family| keeps(family, false)), [false, true, true]);
        let count = |family| findings(&of(family), &[], &["vbr0"]).len();
        assert_eq!(families.map(count), [1, 2, 2], "the first is about bridged frames");
    }

    fn barrier(family: &'static str, table: &str, at: At, links: &[&str]) -> Barrier {
        let chain = if family == "ip" { "INPUT" } else { "own" };
        let links = links.iter().map(|link| (*link).to_string()).collect();
        Barrier { family, table: table.into(), chain: chain.into(), at, links, owned: false }
    }

    #[test]
    fn a_chain_that_drops_is_named_with_the_rule_to_add() {
        let forward = barrier("inet", "filter", At::Forward, &["eth0"]).finding(&["vbr0"]);
        let finding = forward.expect("a finding");
        assert_eq!((finding.check.as_str(), finding.level), ("firewall", Level::Warning));
        assert_eq!(
            finding.message,
            "chain own of table inet filter drops what no rule accepts, and no rule names vbr0: \
             guests do not reach the world"
        );
        let hint = |barrier: Barrier| barrier.finding(&["vbr0"]).and_then(|finding| finding.hint);
        assert_eq!(
            finding.hint.as_deref(),
            Some(
                "nft insert rule inet filter own iifname vbr0 accept && \
                 nft insert rule inet filter own oifname vbr0 accept"
            )
        );
        let hints = [
            (
                barrier("ip", "mangle", At::Input, &[]),
                "iptables -t mangle -I INPUT -i vbr0 -j ACCEPT",
            ),
            (
                barrier("ip", "mine", At::Input, &[]),
                "nft insert rule ip mine INPUT iifname vbr0 accept",
            ),
            (
                barrier("bridge", "b", At::Prerouting, &[]),
                "nft insert rule bridge b own ibrname vbr0 accept",
            ),
        ];
        for (barrier, wanted) in hints {
            assert_eq!(hint(barrier).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_table_that_only_its_owner_can_change_has_no_rule_to_add() {
        let of = |table: &str, at: At| {
            let owned = Barrier { owned: true, ..barrier("inet", table, at, &[]) };
            owned.finding(&["vbr0"]).expect("a finding")
        };
        let finding = of("own", At::Forward);
        let lost = "guests do not reach the world";
        let owned = "only the process that owns the table can change it";
        assert!(finding.message.ends_with(&format!("{lost}; {owned}")), "{finding:?}");
        assert_eq!(finding.hint, None);
        let panic = of("firewalld_policy_drop", At::Prerouting);
        assert_eq!(panic.hint.as_deref(), Some("firewall-cmd --panic-off"));
    }

    #[test]
    fn a_chain_that_names_every_bridge_is_not_in_the_way() {
        for links in [&["vbr0", "vbr1"][..], &["vbr*"], &["*"]] {
            let barrier = barrier("inet", "filter", At::Forward, links);
            assert_eq!(barrier.finding(&["vbr0", "vbr1"]), None, "{links:?}");
        }
        let barrier = barrier("inet", "filter", At::Forward, &["vbr1"]);
        assert!(barrier.finding(&["vbr0", "vbr1"]).is_some_and(|f| f.message.contains(" vbr0:")));
    }
}
