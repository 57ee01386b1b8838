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
//! `open` is the default. A sandbox wants `internet`. But the host's DNS resolver often has a
//! private address, which the built-in DHCP server gives to guests. `internet` would block it, and
//! running guests would lose name resolution. So `internet` is one word in the settings: `"policy":
//! "internet"`. The metadata service of a cloud is always denied.

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
        let denied = NOT_INTERNET.iter().map(|prefix| read(&format!("deny {prefix}")));
        let allowed = std::iter::once(read("allow exposed"));
        let internet = allowed.chain(denied).chain([read("allow any")]).collect();
        let policy = |name: &str, rules| Policy { name: name.into(), rules };
        vec![
            policy(OPEN, vec![read("allow any")]),
            policy("internet", internet),
            policy(NONE, Vec::new()),
        ]
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
