//! Reads chains and rules of other programs: which links they let packets in by, and what they
//! drop.

use super::accept::FILTER;
use crate::netlink::nft::expression::{Expression, Meta};
use crate::netlink::nft::object::{ChainMessage, RuleMessage};
use crate::netlink::nft::{FAMILY_BRIDGE, FAMILY_INET, FAMILY_IP, FAMILY_IP6};
use crate::plan::firewall::{At, Hinders};
use crate::plan::ruleset::{TABLE, TRACE_TABLE};

/// The table of firewalld (`TABLE_NAME` in its `core/nftables.py`). The rules that go to a zone's
/// chains name the links of the zone.
pub const FIREWALLD: &str = "firewalld";
/// The chain in which ufw has the rules of its administrator (`ufw/backend_iptables.py`).
pub const UFW: &str = "ufw-user-input";

/// `NF_INET_PRE_ROUTING` (linux/netfilter.h).
pub const PREROUTING: u32 = 0;
/// `NF_INET_POST_ROUTING` (linux/netfilter.h).
pub const POSTROUTING: u32 = 4;

/// By which link a packet has to come in, as a rule says it.
#[derive(Debug)]
pub enum By {
    /// Its name, or how it begins, with a `*` behind that.
    Name(String),
    /// Its index.
    Index(u32),
    /// One of this set, whose keys begin with a link.
    Set(String),
}

/// What a rule says, as far as it matters here.
#[derive(Debug, Default)]
pub struct Said {
    /// The link by which a packet has to come in; `None` if any will do.
    pub by: Option<By>,
    /// It drops.
    pub drops: bool,
    /// There is no condition.
    pub always: bool,
}

impl Said {
    /// Reads a rule.
    pub fn read(rule: &RuleMessage<'_>) -> Result<Said, crate::netlink::Error> {
        let mut said = Said { always: true, ..Said::default() };
        let mut loaded = None;
        for expression in rule.expressions() {
            match expression? {
                Expression::Neutral | Expression::Comment(_) | Expression::Accept => continue,
                Expression::Drop => {
                    said.drops = true;
                    continue;
                }
                Expression::LinkName(meta) => loaded = Some(meta),
                equals @ Expression::Equals(value) => {
                    said.by = said.by.take().or_else(|| match loaded.take()? {
                        Meta::InName | Meta::InBridge => name(equals, value),
                        Meta::InIndex => {
                            value.try_into().ok().map(u32::from_ne_bytes).map(By::Index)
                        }
                        Meta::InType
                        | Meta::OutName
                        | Meta::Priority
                        | Meta::Protocol
                        | Meta::PacketType
                        | Meta::Trace => None,
                    });
                }
                Expression::InSet(set) => {
                    let of_links = matches!(loaded.take(), Some(Meta::InName | Meta::InBridge));
                    let set = || By::Set(String::from_utf8_lossy(set).into_owned());
                    said.by = said.by.take().or_else(|| of_links.then(set));
                }
                Expression::DestinationPort | Expression::Redirect | Expression::Other => {}
            }
            said.always = false;
        }
        Ok(said)
    }
}

/// A name that is compared whole has its terminator with it.
fn name(equals: Expression<'_>, value: &[u8]) -> Option<By> {
    let name = String::from_utf8_lossy(equals.matched_link()?).into_owned();
    let whole = name.len() < value.len();
    Some(By::Name(if whole { name } else { name + "*" }))
}

/// What a single rule of another program does to packets of guests: it drops all that one link has,
/// or it translates where they go. Rules with further conditions drop some packets on purpose.
pub fn hinders(rule: &RuleMessage<'_>) -> Result<Option<Hinders>, crate::netlink::Error> {
    let (mut link, mut drops, mut further) = (None, false, false);
    let (mut port, mut redirects) = (None, false);
    let mut loaded = None;
    for expression in rule.expressions() {
        match expression? {
            Expression::Neutral | Expression::Comment(_) => {}
            Expression::Drop => drops = true,
            Expression::Redirect => redirects = true,
            load @ (Expression::LinkName(_) | Expression::DestinationPort) => loaded = Some(load),
            equals @ Expression::Equals(value) => match loaded.take() {
                Some(Expression::LinkName(Meta::InName | Meta::OutName)) if link.is_none() => {
                    link = name(equals, value);
                }
                Some(Expression::DestinationPort) => {
                    port = value.try_into().ok().map(u16::from_be_bytes);
                    further = true;
                }
                _ => further = true,
            },
            Expression::Accept | Expression::InSet(_) | Expression::Other => further = true,
        }
    }
    Ok(match link {
        _ if redirects => Some(Hinders::Port(port)),
        Some(By::Name(link)) if drops && !further => Some(Hinders::Link(link)),
        _ => None,
    })
}

/// A base chain of another program that guests' packets meet.
pub struct Met {
    /// Its family, as nf_tables counts them.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Its hook.
    pub at: At,
    /// Whether its policy accepts.
    pub accepts: bool,
}

/// A chain of another program that packets of guests meet.
pub fn met(chain: &ChainMessage<'_>, has_ufw: bool) -> Option<Met> {
    let (b"filter", hook, _) = chain.base? else { return None };
    let at = match hook {
        PREROUTING => At::Prerouting,
        1 => At::Input,
        2 => At::Forward,
        POSTROUTING => At::Postrouting,
        // What the host sends itself, and what one device receives.
        _ => return None,
    };
    let known = match (chain.family, chain.table) {
        (FAMILY_INET, table) => table == FIREWALLD.as_bytes(),
        // Our accept rules are in the first, and ufw has its own finding about the other.
        (FAMILY_IP | FAMILY_IP6, table) if table == FILTER.as_bytes() => {
            chain.name == b"FORWARD" || has_ufw && chain.name == b"INPUT"
        }
        (FAMILY_IP | FAMILY_IP6 | FAMILY_BRIDGE, table) => {
            [TABLE, TRACE_TABLE].iter().any(|name| name.as_bytes() == table)
        }
        _ => true,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (!known).then(|| Met {
        family: chain.family,
        table: text(chain.table),
        chain: text(chain.name),
        at,
        accepts: chain.accepts,
    })
}

/// The name of a family, as `nft` writes it.
pub fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_BRIDGE => "bridge",
        FAMILY_INET => "inet",
        FAMILY_IP6 => "ip6",
        _ => "ip",
    }
}
