//! Firewalls of others: that they are there, and by which links their rules let something in.
//!
//! nf_tables shows those that are in it. Rules of iptables-legacy are elsewhere in the kernel, and
//! /proc tells that there are some; for what they say one would have to read its private tables.

use std::fs;

use super::super::socket::{Error, Socket};
use super::accept::FILTER;
use crate::netlink::nft::expression::{Expression, Meta};
use crate::netlink::nft::object::{self, ChainMessage, RuleMessage, TableMessage};
use crate::netlink::nft::{FAMILY_INET, FAMILY_IP};
use crate::plan::firewall::{Firewall, FirewallKind};

/// The table of firewalld (`TABLE_NAME` in its `core/nftables.py`). A link that was put into a zone
/// is named in the rules that go to the zone's chains.
const FIREWALLD: &str = "firewalld";
/// The chain in which ufw has the rules of its administrator (`ufw/backend_iptables.py`).
const UFW: &str = "ufw-user-input";

/// The tables of iptables-legacy that are in use in this namespace, a name a line.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// The firewalls that are there.
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

/// A kernel without these tables has no such file; a namespace that has none has it empty.
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

/// The links that rules of a table name as where a packet comes in.
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

/// The link that a packet has to come in by for this rule.
fn incoming(rule: &RuleMessage<'_>) -> Result<Option<String>, crate::netlink::Error> {
    let mut loaded = false;
    for expression in rule.expressions() {
        match expression? {
            Expression::LinkName(meta) => loaded = meta == Meta::InName,
            equals @ Expression::Equals(_) if loaded => {
                let name = equals.matched_link().map(String::from_utf8_lossy);
                return Ok(name.map(|name| name.into_owned()));
            }
            Expression::Equals(_)
            | Expression::Accept
            | Expression::Counter
            | Expression::Comment(_)
            | Expression::Other => {}
        }
    }
    Ok(None)
}
