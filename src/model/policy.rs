//! Policies: what guests may send beyond their network.
//!
//! A [`Policy`] is a list of rules. The first rule that matches a packet decides, and a packet
//! without a matching rule is denied. Three policies are built in, others are in the settings. A
//! policy is about packets that leave a network by way of the host. Packets between guests of one
//! network are a matter of isolation, and packets to the host one of `host_services`. A guest's
//! replies to others pass under every policy.
//!
//! A guest is identified by its address, so a policy needs an address that volnet gave. On a
//! network whose policy is not `open`, packets from any other address are dropped.
//!
//! `open` is the default: guests are most often services that need what the host needs, at private
//! addresses, and a packet that is denied is lost without a word. A sandbox wants `internet`, which
//! is one word in the settings. The metadata service of a cloud is always denied.
//!
//! A question for a name can carry data out as well as a packet. So a policy also decides which
//! names are passed on ([`Passed`]).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::prefix::Prefix;

/// The default policy of a network.
pub const OPEN: &str = "open";
/// The policy of a VM whose own policy is no longer in the settings.
pub const NONE: &str = "none";
/// The most policies that the settings can describe.
pub const POLICIES_MAX: usize = 64;
/// The most rules of one.
pub const RULES_MAX: usize = 256;
/// The longest name of one, in bytes.
pub const NAME_MAX: usize = 32;

/// The prefixes that `internet` denies: private, shared, link-local, loopback, for protocols and
/// tests, multicast and reserved (IANA, IPv4 special-purpose address registry), and the address of
/// Azure's host.
const NOT_INTERNET: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
];

/// The same of IPv6 (IANA, IPv6 special-purpose address registry): unspecified, loopback, IPv4 in
/// IPv6, for translation in one network, for discarding, Teredo, for tests, documentation, SRv6,
/// unique local, link-local, site-local and multicast; and those by which private IPv4 addresses
/// can be reached, through translation (RFC 6052) and 6to4 (RFC 3056).
const NOT_INTERNET6: [&str; 37] = [
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "64:ff9b::/104",
    "64:ff9b::a00:0/104",
    "64:ff9b::6440:0/106",
    "64:ff9b::7f00:0/104",
    "64:ff9b::a9fe:0/112",
    "64:ff9b::ac10:0/108",
    "64:ff9b::c000:0/120",
    "64:ff9b::c0a8:0/112",
    "64:ff9b::c612:0/111",
    "64:ff9b::e000:0/100",
    "64:ff9b::f000:0/100",
    "64:ff9b::a83f:8110/128",
    "2002::/24",
    "2002:a00::/24",
    "2002:6440::/26",
    "2002:7f00::/24",
    "2002:a9fe::/32",
    "2002:ac10::/28",
    "2002:c000::/40",
    "2002:c0a8::/32",
    "2002:c612::/31",
    "2002:e000::/20",
    "2002:f000::/20",
    "2002:a83f:8110::/48",
];

/// The prefixes of private networks (RFC 1918).
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
/// UDP (IANA, protocol numbers), and the port of a resolver.
const UDP: u8 = 17;
const NAME_SERVER: u16 = 53;

/// Whether `internet` denies this address.
pub fn is_not_internet(address: IpAddr) -> bool {
    let prefix = |text: &str| text.parse::<Prefix<IpAddr>>().expect("a prefix of ours");
    NOT_INTERNET.iter().chain(&NOT_INTERNET6).any(|text| prefix(text).contains(address))
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Its rules. The first match decides.
    pub rules: Vec<PolicyRule>,
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Whether a matching packet may pass.
    pub allow: bool,
    /// The destination.
    pub to: To,
    /// The protocol by its number in IP; `None`: any.
    pub protocol: Option<u8>,
    /// The destination port; `None`: any.
    pub port: Option<u16>,
}

/// The destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Anywhere.
    Any,
    /// An address of this prefix.
    Prefix(Prefix<IpAddr>),
    /// A port of the host that leads to a guest.
    Exposed,
}

/// Which names a guest may ask the resolvers of the host for, through volnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// All.
    All,
    /// Those of the internet, and none of networks that are not.
    Internet,
    /// None.
    Nothing,
}

impl FromStr for PolicyRule {
    type Err = String;

    /// Reads `allow 10.1.0.0/16 tcp/5432`: `allow` or `deny`, then `any`, `exposed` or a prefix,
    /// then optionally `tcp`, `udp` or `icmp`, the first two optionally with a port.
    fn from_str(text: &str) -> Result<PolicyRule, String> {
        let mut words = text.split_ascii_whitespace();
        let wrong = || format!("{text:?} is not a rule such as \"allow 10.1.0.0/16 tcp/5432\"");
        let allow = match words.next() {
            Some("allow") => true,
            Some("deny") => false,
            _ => return Err(wrong()),
        };
        let to = match words.next() {
            Some("any") => To::Any,
            Some("exposed") => To::Exposed,
            Some(prefix) => To::Prefix(prefix.parse().map_err(|_| wrong())?),
            None => return Err(wrong()),
        };
        let (mut protocol, mut port) = (None, None);
        if let Some(word) = words.next() {
            let (name, number) = word.split_once('/').map_or((word, None), |(a, b)| (a, Some(b)));
            protocol = Some(match (name, number) {
                ("tcp", _) => 6,
                ("udp", _) => 17,
                ("icmp", None) => 1,
                _ => return Err(wrong()),
            });
            port = number.map(|number| number.parse().map_err(|_| wrong())).transpose()?;
        }
        match (words.next(), port) {
            (None, None | Some(1..)) => Ok(PolicyRule { allow, to, protocol, port }),
            (Some(_), _) | (None, Some(0)) => Err(wrong()),
        }
    }
}

impl Policy {
    /// The built-in policies.
    pub fn built_in() -> Vec<Policy> {
        let read = |text: &str| text.parse::<PolicyRule>().expect("a rule of ours");
        let denied =
            NOT_INTERNET.iter().chain(&NOT_INTERNET6).map(|prefix| read(&format!("deny {prefix}")));
        let allowed = std::iter::once(read("allow exposed"));
        let internet = allowed.chain(denied).chain([read("allow any")]).collect();
        let policy = |name: &str, rules| Policy { name: name.into(), rules };
        vec![
            policy(OPEN, vec![read("allow any")]),
            policy("internet", internet),
            policy(NONE, Vec::new()),
        ]
    }

    /// Which names a guest with this policy may ask for. `resolvers` are those of the host that a
    /// guest could ask itself.
    ///
    /// Who may send something anywhere may ask for names of the internet, and if it may send
    /// something to a private address, for all names. Who may ask a resolver of the host itself may
    /// ask it for all names here, too. Nobody else can send anything out by a question.
    pub fn passed(&self, resolvers: &[IpAddr]) -> Passed {
        let anywhere = |rule: &PolicyRule| rule.allow && rule.to == To::Any;
        match self.rules.iter().any(anywhere) {
            true if PRIVATE.iter().any(|prefix| self.reaches(prefix)) => Passed::All,
            true => Passed::Internet,
            false if resolvers.iter().any(|ip| self.may_ask(*ip)) => Passed::All,
            false => Passed::Nothing,
        }
    }

    /// Whether a packet may go to some address of a prefix.
    fn reaches(&self, prefix: &str) -> bool {
        let prefix: Prefix<IpAddr> = prefix.parse().expect("a prefix of ours");
        let some = |rule: &&PolicyRule| match rule.to {
            To::Any => true,
            To::Prefix(to) => to.overlaps(prefix),
            To::Exposed => false,
        };
        let all = |rule: &PolicyRule| {
            let covers = match rule.to {
                To::Any => true,
                To::Prefix(to) => to.length() <= prefix.length() && to.overlaps(prefix),
                To::Exposed => false,
            };
            covers && rule.protocol.is_none()
        };
        let mut rules = self.rules.iter().filter(some);
        rules.find(|rule| rule.allow || all(rule)).is_some_and(|rule| rule.allow)
    }

    /// Whether a question may go to a resolver.
    fn may_ask(&self, resolver: IpAddr) -> bool {
        let matches = |rule: &&PolicyRule| {
            let to = match rule.to {
                To::Any => true,
                To::Prefix(to) => to.contains(resolver),
                To::Exposed => false,
            };
            let udp = rule.protocol.is_none_or(|it| it == UDP);
            to && udp && rule.port.is_none_or(|port| port == NAME_SERVER)
        };
        self.rules.iter().find(matches).is_some_and(|rule| rule.allow)
    }

    /// Checks a name. It becomes part of the name of a set.
    pub fn check_name(name: &str) -> Result<(), String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(legal) {
            return Err(format!("{name:?} is not 1 to {NAME_MAX} letters, digits, _ and -"));
        }
        Ok(())
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_passed_on_to_those_who_may_go_there() {
        let passed = |rules: &[&str], resolvers: &[[u8; 4]]| {
            let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
            let resolvers: Vec<_> = resolvers.iter().map(|ip| IpAddr::from(*ip)).collect();
            Policy { name: "x".into(), rules }.passed(&resolvers)
        };
        let of = |name: &str| {
            let policy = Policy::built_in().into_iter().find(|policy| policy.name == name);
            policy.unwrap().passed(&[[10, 0, 0, 2].into(), [9, 9, 9, 9].into()])
        };
        assert_eq!(of(OPEN), Passed::All);
        assert_eq!(of("internet"), Passed::Internet);
        assert_eq!(of(NONE), Passed::Nothing);
        let lan = [[10, 0, 0, 2]];
        for (rules, resolvers, expected) in [
            (&["allow any tcp/443"][..], &[][..], Passed::All),
            (
                &["deny 10.0.0.0/8", "deny 172.16.0.0/12", "deny 192.168.0.0/16", "allow any"],
                &[],
                Passed::Internet,
            ),
            (&["deny 10.0.0.0/8 tcp", "allow any"], &[], Passed::All),
            (
                &["allow 10.1.0.5/32 tcp/5432", "deny 10.0.0.0/8", "allow any tcp/443"],
                &lan,
                Passed::All,
            ),
            (&["allow 10.1.0.5/32 tcp/5432"], &lan, Passed::Nothing),
            (&["allow 10.0.0.2/32 udp/53"], &lan, Passed::All),
            (&["allow 10.0.0.2/32 udp/53"], &[], Passed::Nothing),
            (&["deny 10.0.0.2/32 udp", "allow 10.0.0.0/8"], &lan, Passed::Nothing),
            (&["allow exposed"], &lan, Passed::Nothing),
        ] {
            assert_eq!(passed(rules, resolvers), expected, "{rules:?}");
        }
    }

    #[test]
    fn rules_are_read_as_written() {
        let rule = |text: &str| text.parse::<PolicyRule>();
        let prefix = To::Prefix("10.1.0.0/16".parse().unwrap());
        for (text, allow, to, protocol, port) in [
            ("allow any", true, To::Any, None, None),
            (" deny  10.1.0.0/16 ", false, prefix, None, None),
            ("allow 10.1.0.0/16 tcp/5432", true, prefix, Some(6), Some(5432)),
            ("deny exposed udp", false, To::Exposed, Some(17), None),
            ("allow any icmp", true, To::Any, Some(1), None),
        ] {
            assert_eq!(rule(text), Ok(PolicyRule { allow, to, protocol, port }), "{text}");
        }
        for text in [
            "",
            "allow",
            "permit any",
            "allow 10.0.0.1/8",
            "allow any sctp",
            "allow any tcp/0",
            "allow any tcp/65536",
            "allow any icmp/8",
            "allow any tcp 80",
            "allow any tcp/",
        ] {
            assert!(rule(text).is_err(), "{text}");
        }
    }
}
