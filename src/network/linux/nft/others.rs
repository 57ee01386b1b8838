//! Other firewalls: which exist, and for which links they have rules that accept packets. So with
//! chains of others that drop.
//!
//! nf_tables shows its own. Rules of iptables-legacy are elsewhere in the kernel. /proc shows that
//! there are some, but their contents are in private tables.

use std::fs;

use super::super::socket::{Error, Socket};
use super::accept::FILTER;
use crate::netlink::nft::element::{self, Of};
use crate::netlink::nft::expression::{Expression, Meta};
use crate::netlink::nft::object::{self, ChainMessage, RuleMessage, TableMessage};
use crate::netlink::nft::{FAMILY_ANY, FAMILY_BRIDGE, FAMILY_INET, FAMILY_IP};
use crate::plan::firewall::{At, Barrier, Firewall, FirewallKind};
use crate::plan::ruleset::TABLE;

/// The table of firewalld (`TABLE_NAME` in its `core/nftables.py`). The rules that go to a zone's
/// chains name the links of the zone.
const FIREWALLD: &str = "firewalld";
/// The chain in which ufw has the rules of its administrator (`ufw/backend_iptables.py`).
const UFW: &str = "ufw-user-input";

/// `NF_INET_POST_ROUTING` (linux/netfilter.h).
const POSTROUTING: u32 = 4;
/// The tables of iptables-legacy in use in this namespace, one name per line.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// The firewalls that exist.
pub(super) fn observe(socket: &mut Socket) -> Result<Vec<Firewall>, Error> {
    let mut firewalls = Vec::new();
    if has_firewalld(socket)? {
        let links = links(socket, FAMILY_INET, FIREWALLD, |_| true)?;
        firewalls.push(Firewall { kind: FirewallKind::Firewalld, links });
    }
    if has_ufw(socket)? {
        let links = links(socket, FAMILY_IP, FILTER, |rule| rule.chain == UFW.as_bytes())?;
        firewalls.push(Firewall { kind: FirewallKind::Ufw, links });
    }
    if has_legacy() {
        firewalls.push(Firewall { kind: FirewallKind::Legacy, links: Vec::new() });
    }
    Ok(firewalls)
}

/// A kernel without these tables has no such file. In a namespace without them the file is empty.
fn has_legacy() -> bool {
    fs::read_to_string(LEGACY_TABLES).is_ok_and(|tables| !tables.trim().is_empty())
}

fn has_firewalld(socket: &mut Socket) -> Result<bool, Error> {
    let tables = socket.dump(object::dump_tables, |message| {
        let table = TableMessage::read(message.payload)?;
        let there = table.family == FAMILY_INET && table.name == FIREWALLD.as_bytes();
        Ok(there.then_some(()))
    })?;
    Ok(!tables.is_empty())
}

fn has_ufw(socket: &mut Socket) -> Result<bool, Error> {
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, FAMILY_IP),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            let there = chain.table == FILTER.as_bytes() && chain.name == UFW.as_bytes();
            Ok(there.then_some(()))
        },
    )?;
    Ok(!chains.is_empty())
}

/// The incoming links that rules of a table name.
fn links(
    socket: &mut Socket,
    family: u8,
    table: &str,
    wanted: impl Fn(&RuleMessage<'_>) -> bool,
) -> Result<Vec<String>, Error> {
    socket.dump(
        |writer, sequence| object::dump_rules(writer, sequence, family, table),
        |message| {
            let rule = RuleMessage::read(message.payload)?;
            Ok(if wanted(&rule) { incoming(&rule)? } else { None })
        },
    )
}

/// The incoming link that this rule requires.
fn incoming(rule: &RuleMessage<'_>) -> Result<Option<String>, crate::netlink::Error> {
    Ok(match Said::read(rule)?.by {
        Some(By::Name(name)) => Some(name),
        Some(By::Index(_) | By::Set(_)) | None => None,
    })
}

/// By which link a packet has to come in, as a rule says it.
#[derive(Debug)]
enum By {
    /// Its name, or how it begins, with a `*` behind that.
    Name(String),
    /// Its index.
    Index(u32),
    /// One of this set, whose keys begin with a link.
    Set(String),
}

/// What a rule says, as far as it matters here.
#[derive(Debug, Default)]
struct Said {
    by: Option<By>,
    drops: bool,
    /// There is no condition.
    always: bool,
}

impl Said {
    fn read(rule: &RuleMessage<'_>) -> Result<Said, crate::netlink::Error> {
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
                        Meta::OutName | Meta::Priority | Meta::Protocol => None,
                    });
                }
                Expression::InSet(set) => {
                    let of_links = matches!(loaded.take(), Some(Meta::InName | Meta::InBridge));
                    let set = || By::Set(String::from_utf8_lossy(set).into_owned());
                    said.by = said.by.take().or_else(|| of_links.then(set));
                }
                Expression::Other => {}
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

/// A rule of a table in which there is a chain that may drop: its chain, and what it says.
type Rule = (Vec<u8>, Said);

/// Base chains of others that guests' packets meet, with whether their policy accepts.
struct Met {
    family: u8,
    table: String,
    chain: String,
    at: At,
    accepts: bool,
}

/// The chains of others that drop what none of their rules accepts, but for those of firewalls that
/// are known by name, and for the one in which the rules of [`super::accept`] are. `name_of` is the
/// name of a link by its index.
pub(super) fn barriers(
    socket: &mut Socket,
    name_of: impl Fn(u32) -> Option<String>,
) -> Result<Vec<Barrier>, Error> {
    let has_ufw = has_ufw(socket)?;
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, FAMILY_ANY),
        |message| Ok(met(&ChainMessage::read(message.payload)?, has_ufw)),
    )?;
    let mut barriers = Vec::new();
    for same in
        chains.chunk_by(|one, other| (one.family, &one.table) == (other.family, &other.table))
    {
        let rules = match rules(socket, same[0].family, &same[0].table) {
            // It went while we looked.
            Err(error) if error.errno() == Some(libc::ENOENT) => continue,
            rules => rules?,
        };
        let of = |chain: &Met| {
            let mut rules = rules.iter().filter(|(name, _)| *name == chain.chain.as_bytes());
            let last = rules.next_back().is_some_and(|(_, said)| said.always && said.drops);
            !chain.accepts || last
        };
        let drops: Vec<&Met> = same.iter().filter(|chain| of(chain)).collect();
        if drops.is_empty() {
            continue;
        }
        let links = let_in(socket, &same[0], &rules, &name_of)?;
        barriers.extend(drops.into_iter().map(|chain| Barrier {
            family: family_name(chain.family),
            table: chain.table.clone(),
            chain: chain.chain.clone(),
            at: chain.at,
            links: links.clone(),
        }));
    }
    Ok(barriers)
}

/// The tables of others with rules for source NAT.
pub(super) fn translators(socket: &mut Socket) -> Result<Vec<String>, Error> {
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, FAMILY_ANY),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            let ours = chain.family == FAMILY_IP && chain.table == TABLE.as_bytes();
            let translates = matches!(chain.base, Some((b"nat", POSTROUTING, _)));
            let known = matches!(chain.family, FAMILY_IP | FAMILY_INET);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok((translates && known && !ours)
                .then(|| (chain.family, text(chain.table), text(chain.name))))
        },
    )?;
    let mut tables = Vec::new();
    for (family, table, chain) in chains {
        let rules = rules(socket, family, &table)?;
        if rules.iter().any(|(of, _)| *of == chain.as_bytes()) {
            tables.push(format!("{} {table}", family_name(family)));
        }
    }
    Ok(tables)
}

/// A chain of somebody else's that packets of guests meet.
fn met(chain: &ChainMessage<'_>, has_ufw: bool) -> Option<Met> {
    let (b"filter", hook, _) = chain.base? else { return None };
    let at = match hook {
        0 => At::Prerouting,
        1 => At::Input,
        2 => At::Forward,
        POSTROUTING => At::Postrouting,
        // What the host sends itself, and what one device receives.
        _ => return None,
    };
    let known = match (chain.family, chain.table) {
        (FAMILY_INET, table) => table == FIREWALLD.as_bytes(),
        (FAMILY_IP, table) if table == FILTER.as_bytes() => {
            chain.name == b"FORWARD" || has_ufw && chain.name == b"INPUT"
        }
        (FAMILY_IP | FAMILY_BRIDGE, table) => table == TABLE.as_bytes(),
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

fn rules(socket: &mut Socket, family: u8, table: &str) -> Result<Vec<Rule>, Error> {
    socket.dump(
        |writer, sequence| object::dump_rules(writer, sequence, family, table),
        |message| {
            let rule = RuleMessage::read(message.payload)?;
            Ok(Some((rule.chain.to_vec(), Said::read(&rule)?)))
        },
    )
}

/// The links that rules let something in by: those that they name and do not drop.
fn let_in(
    socket: &mut Socket,
    of: &Met,
    rules: &[Rule],
    name_of: impl Fn(u32) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let mut links = Vec::new();
    for (_, said) in rules.iter().filter(|(_, said)| !said.drops) {
        match &said.by {
            Some(By::Name(name)) => links.push(name.clone()),
            Some(By::Index(index)) => links.extend(name_of(*index)),
            Some(By::Set(set)) => {
                let of = Of { family: of.family, table: &of.table, set };
                links.extend(links_of(socket, of)?);
            }
            None => {}
        }
    }
    Ok(links)
}

/// The links that the keys of a set begin with.
fn links_of(socket: &mut Socket, of: Of<'_>) -> Result<Vec<String>, Error> {
    let keys: Result<Vec<Vec<String>>, Error> = socket.dump(
        |writer, sequence| element::dump(writer, sequence, of),
        |message| {
            let mut links = Vec::new();
            element::read(message.payload, |key, _, _| {
                let name = key.split(|&byte| byte == 0).next().unwrap_or_default();
                links.push(String::from_utf8_lossy(name).into_owned());
                Ok(())
            })?;
            Ok(Some(links))
        },
    );
    match keys {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        keys => Ok(keys?.concat()),
    }
}

fn family_name(family: u8) -> &'static str {
    match family {
        FAMILY_BRIDGE => "bridge",
        FAMILY_INET => "inet",
        _ => "ip",
    }
}
