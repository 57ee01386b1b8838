//! Asks the kernel for other firewalls and chains: which exist, and for which links they have rules
//! that accept packets.
//!
//! nf_tables shows its own. Rules of iptables-legacy are elsewhere in the kernel. /proc shows that
//! there are some, but their contents are in private tables.

use std::fs;

use crate::netlink::nft::element::{self, Of};
use crate::netlink::nft::object::{self, ChainMessage, RuleMessage, TableMessage};
use crate::netlink::nft::{FAMILY_ANY, FAMILY_INET, FAMILY_IP};
use crate::network::linux::socket::{Error, Socket};
use crate::nftables::accept::FILTER;
use crate::nftables::filters::{
    By, FIREWALLD, Met, POSTROUTING, PREROUTING, Said, UFW, family_name, hinders, met,
};
use crate::plan::firewall::{Barrier, Firewall, FirewallKind, Hinders, Hindrance};
use crate::plan::ruleset::{PRIORITY_DESTINATION_NAT, TABLE};

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

/// A rule of a table in which there is a chain that may drop: its chain, and what it says.
type FilterRule = (Vec<u8>, Said);

/// The chains of others that drop what none of their rules accepts, but for those of firewalls that
/// are known by name, and for the one in which the rules of [`crate::nftables::accept`] are.
/// `name_of` is the name of a link by its index.
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
        let owned = is_owned(socket, &same[0])?;
        barriers.extend(drops.into_iter().map(|chain| Barrier {
            family: family_name(chain.family),
            table: chain.table.clone(),
            chain: chain.chain.clone(),
            at: chain.at,
            links: links.clone(),
            owned,
        }));
    }
    Ok(barriers)
}

/// Whether a process owns the table of this chain.
fn is_owned(socket: &mut Socket, chain: &Met) -> Result<bool, Error> {
    let owned = socket.dump(object::dump_tables, |message| {
        let table = TableMessage::read(message.payload)?;
        let same = table.family == chain.family && table.name == chain.table.as_bytes();
        Ok((same && table.owner.is_some()).then_some(()))
    })?;
    Ok(!owned.is_empty())
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

/// The rules of others that could be in the way: those that drop all that a link has, and those
/// that translate where packets go, in tables that do so before ours.
pub(super) fn hindrances(socket: &mut Socket) -> Result<Vec<Hindrance>, Error> {
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, FAMILY_ANY),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let first = match chain.base {
                Some((b"nat", PREROUTING, priority)) => priority <= PRIORITY_DESTINATION_NAT,
                Some(_) | None => false,
            };
            let ours = chain.table == TABLE.as_bytes();
            Ok((!ours).then(|| (chain.family, text(chain.table), first)))
        },
    )?;
    let mut found = Vec::new();
    for same in chains.chunk_by(|one, other| (one.0, &one.1) == (other.0, &other.1)) {
        let (family, table, _) = &same[0];
        let translates_first = same.iter().any(|(.., first)| *first);
        let rules = socket.dump(
            |writer, sequence| object::dump_rules(writer, sequence, *family, table),
            |message| {
                let rule = RuleMessage::read(message.payload)?;
                let what = hinders(&rule)?
                    .filter(|what| translates_first || matches!(what, Hinders::Link(_)));
                let chain = String::from_utf8_lossy(rule.chain).into_owned();
                Ok(what.map(|what| (chain, rule.handle, what)))
            },
        );
        let rules = match rules {
            // It went while we looked.
            Err(error) if error.errno() == Some(libc::ENOENT) => continue,
            rules => rules?,
        };
        found.extend(rules.into_iter().map(|(chain, handle, what)| Hindrance {
            family: family_name(*family),
            table: table.clone(),
            chain,
            handle,
            what,
        }));
    }
    Ok(found)
}

fn rules(socket: &mut Socket, family: u8, table: &str) -> Result<Vec<FilterRule>, Error> {
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
    rules: &[FilterRule],
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
