//! Reads our tables, and our rules in chains of other programs.
//!
//! If a table has an object that cannot be ours, it has no fingerprint, and is replaced.

use std::collections::BTreeMap;

use crate::netlink::nft::element::{self, Of};
use crate::netlink::nft::object::{self, ChainMessage, RuleMessage, SetMessage};
use crate::network::linux::socket::{Error, Socket};
use crate::nftables::accept::{self, CHAINS, FAMILIES, FILTER};
use crate::nftables::decode::{self, SeenSet};
use crate::nftables::number;
use crate::plan::reconcile::ObservedTable;
use crate::plan::ruleset::{Accept, ChainShape, Family, Field, Key, Shape};

/// Reads a table of ours.
pub(super) fn table(
    socket: &mut Socket,
    family: Family,
    name: &'static str,
    owned: Option<bool>,
) -> Result<ObservedTable, Error> {
    let seen = sets(socket, family, name)?;
    let chains = chains(socket, family, name)?;
    let mut all = Vec::with_capacity(seen.len());
    let mut known = Vec::with_capacity(seen.len());
    for set in seen {
        let keys = match set.key {
            Some(key) => keys(socket, (family, name), &set, key)?,
            None => None,
        };
        known.push(keys.is_some().then(|| set.key.map(Vec::from)).flatten());
        all.push((set.name, set.kind, keys.unwrap_or_default()));
    }
    let shapes = all
        .iter()
        .zip(known)
        .map(|((name, kind, _), key)| key.map(|key| (name.clone(), key, *kind)));
    let shape = shapes.collect::<Option<_>>().zip(chains);
    let fingerprint = shape.map(|(sets, chains)| Shape { sets, chains }.fingerprint());
    let sets = all.into_iter().map(|(name, _, keys)| (name, keys)).collect();
    Ok(ObservedTable { family, name, owned, fingerprint, sets })
}

fn sets(socket: &mut Socket, family: Family, table: &str) -> Result<Vec<SeenSet>, Error> {
    socket.dump(
        |writer, sequence| object::dump_sets(writer, sequence, number(family), table),
        |message| {
            let set = SetMessage::read(message.payload)?;
            Ok(Some(SeenSet::of(family, &set)))
        },
    )
}

/// The chains with the tags of their rules; `None` if one of them cannot be ours.
fn chains(
    socket: &mut Socket,
    family: Family,
    table: &str,
) -> Result<Option<Vec<ChainShape>>, Error> {
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, number(family)),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            Ok((chain.table == table.as_bytes()).then(|| decode::shape(&chain)))
        },
    )?;
    let Some(mut chains) = chains.into_iter().collect::<Option<Vec<ChainShape>>>() else {
        return Ok(None);
    };
    let rules = socket.dump(
        |writer, sequence| object::dump_rules(writer, sequence, number(family), table),
        |message| {
            let rule = RuleMessage::read(message.payload)?;
            let ours = rule.table == table.as_bytes();
            Ok(ours.then(|| (String::from_utf8_lossy(rule.chain).into_owned(), rule.tag())))
        },
    )?;
    for (name, tag) in rules {
        if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
            chain.rules.push(tag.unwrap_or_default());
        }
    }
    Ok(Some(chains))
}

/// The elements of a set; `None` if it cannot be ours.
fn keys(
    socket: &mut Socket,
    (family, table): (Family, &str),
    set: &SeenSet,
    fields: &[Field],
) -> Result<Option<Vec<Key>>, Error> {
    let of = Of { family: number(family), table, set: &set.name };
    let elements: Vec<Vec<(Vec<u8>, u32)>> = socket.dump(
        |writer, sequence| element::dump(writer, sequence, of),
        |message| {
            let mut elements = Vec::new();
            element::read(message.payload, |key, with, flags| {
                elements.push((decode::raw(key, with, fields), flags));
                Ok(())
            })?;
            Ok(Some(elements))
        },
    )?;
    let elements: Vec<(Vec<u8>, u32)> = elements.into_iter().flatten().collect();
    Ok(set.keys(fields, &elements))
}

/// The handles of all accept rules with this content.
pub(super) fn accept_handles(socket: &mut Socket, accept: &Accept) -> Result<Vec<u64>, Error> {
    let rules = accept_rules(socket, accept.family)?;
    Ok(rules.into_iter().filter(|(_, seen)| seen == accept).map(|(handle, _)| handle).collect())
}

/// Our accept rules, and the chains for them.
pub(super) fn accepts(
    socket: &mut Socket,
) -> Result<(Vec<Accept>, BTreeMap<Family, String>), Error> {
    let (mut accepts, mut chains) = (Vec::new(), BTreeMap::new());
    for family in FAMILIES {
        if let Some(chain) = accept_chain(socket, family)? {
            let rules = accept_rules(socket, family)?;
            accepts.extend(rules.into_iter().map(|(_, accept)| accept));
            chains.insert(family, chain);
        }
    }
    Ok((accepts, chains))
}

/// The chain of a family for these rules, if there is one.
fn accept_chain(socket: &mut Socket, family: Family) -> Result<Option<String>, Error> {
    let chains = socket.dump(
        |writer, sequence| object::dump_chains(writer, sequence, number(family)),
        |message| {
            let chain = ChainMessage::read(message.payload)?;
            let place = CHAINS.iter().position(|name| name.as_bytes() == chain.name);
            Ok(place.filter(|_| chain.table == FILTER.as_bytes()))
        },
    )?;
    Ok(chains.into_iter().min().map(|place| CHAINS[place].to_string()))
}

/// Our accept rules with their handles.
fn accept_rules(socket: &mut Socket, family: Family) -> Result<Vec<(u64, Accept)>, Error> {
    let rules = socket.dump(
        |writer, sequence| object::dump_rules(writer, sequence, number(family), FILTER),
        |message| {
            let rule = RuleMessage::read(message.payload)?;
            Ok(accept::read(&rule)?.map(|accept| (rule.handle, accept)))
        },
    );
    match rules {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        rules => rules,
    }
}
