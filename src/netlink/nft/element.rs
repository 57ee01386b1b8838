//! The elements of a set.
//!
//! A key is bytes, each field of a concatenation padded to four. An interval is two elements: its
//! first value, and with a flag the first value behind it. An element of a map has what its key
//! leads to beside it, one of a set that limits its limit.

use std::net::IpAddr;

use super::super::Error;
use super::super::attr::{Attr, Attrs};
use super::super::message::{CREATE, DUMP, REQUEST};
use super::super::writer::{Open, Writer};
use super::limit::{self, Limit};
use super::{Kind, begin, split};

/// The most elements of one message: their nest must stay below 64 KiB.
pub const PER_MESSAGE_MAX: usize = 500;
/// `NFT_SET_ELEM_INTERVAL_END`: the interval ended before this value.
pub const INTERVAL_END: u32 = 1;

// NFTA_SET_ELEM_LIST_*.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
// NFTA_LIST_*, NFTA_SET_ELEM_*, NFTA_DATA_*.
const LIST_ELEM: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const EXPRESSION: u16 = 7;
// NFTA_EXPR_DATA, NFTA_COUNTER_*.
const EXPRESSION_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
const DATA_VALUE: u16 = 1;

/// A message of elements that is being written.
#[derive(Debug)]
#[must_use = "an open message has no length yet"]
pub struct Elements {
    message: Open,
    list: Open,
}

/// What an element has beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With<'a> {
    /// Nothing that is ours to say.
    Nothing,
    /// The value of the key.
    Data(&'a [u8]),
    /// A limit of its own.
    Limit(Limit),
}

/// Which set is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of<'a> {
    /// The family of its table.
    pub family: u8,
    /// Its table.
    pub table: &'a str,
    /// Its name.
    pub set: &'a str,
}

/// Begins a message that adds elements; one that is there already stays as it is.
pub fn add(writer: &mut Writer, sequence: u32, of: Of<'_>) -> Elements {
    open(writer, Kind::NewSetElem, REQUEST | CREATE, sequence, of)
}

/// Begins a message that removes elements, all of which must be there.
pub fn remove(writer: &mut Writer, sequence: u32, of: Of<'_>) -> Elements {
    open(writer, Kind::DelSetElem, REQUEST, sequence, of)
}

fn open(writer: &mut Writer, kind: Kind, flags: u16, sequence: u32, of: Of<'_>) -> Elements {
    let message = begin(writer, kind, flags, sequence, of.family);
    writer.attr_text(LIST_TABLE, of.table);
    writer.attr_text(LIST_SET, of.set);
    Elements { message, list: writer.nest(LIST_ELEMENTS) }
}

impl Elements {
    /// Writes one element.
    pub fn element(&mut self, writer: &mut Writer, key: &[u8], with: With<'_>, flags: u32) {
        let element = writer.nest(LIST_ELEM);
        let nest = writer.nest(KEY);
        writer.attr(DATA_VALUE, key);
        writer.close(nest);
        match with {
            With::Nothing => {}
            With::Data(data) => {
                let nest = writer.nest(DATA);
                writer.attr(DATA_VALUE, data);
                writer.close(nest);
            }
            With::Limit(limit) => {
                let nest = writer.nest(EXPRESSION);
                limit::write(writer, &limit);
                writer.close(nest);
            }
        }
        if flags != 0 {
            writer.attr_be32(FLAGS, flags);
        }
        writer.close(element);
    }

    /// Ends the message.
    pub fn close(self, writer: &mut Writer) {
        writer.close(self.list);
        writer.close_message(self.message);
    }
}

/// Asks for all elements of a set.
pub fn dump(writer: &mut Writer, sequence: u32, of: Of<'_>) {
    let open = begin(writer, Kind::GetSetElem, REQUEST | DUMP, sequence, of.family);
    writer.attr_text(LIST_TABLE, of.table);
    writer.attr_text(LIST_SET, of.set);
    writer.close_message(open);
}

/// Reads the payload of a message of elements: hands `each` the key of every one, what it has
/// beside that, and the flags.
pub fn read(
    payload: &[u8],
    mut each: impl FnMut(&[u8], With<'_>, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    for attr in Attrs::new(split(payload)?.1) {
        let attr = attr?;
        if attr.kind != LIST_ELEMENTS {
            continue;
        }
        for element in attr.nested()? {
            let (mut key, mut with, mut flags) = (None, With::Nothing, 0);
            for attr in element?.nested()? {
                let attr = attr?;
                match attr.kind {
                    KEY => key = Some(value(attr.nested()?)?),
                    DATA => with = With::Data(value(attr.nested()?).unwrap_or_default()),
                    EXPRESSION => with = limit::read(attr)?.map_or(with, With::Limit),
                    FLAGS => flags = attr.be32()?,
                    _ => {}
                }
            }
            each(key.ok_or(Error::Missing)?, with, flags)?;
        }
    }
    Ok(())
}

/// Reads the payload of a message of elements that count, with this for their keys: key, packets
/// and bytes.
pub fn read_counters<K>(
    payload: &[u8],
    read_key: fn(&[u8]) -> Result<K, Error>,
) -> Result<Vec<(K, u64, u64)>, Error> {
    let mut counters = Vec::new();
    for attr in Attrs::new(split(payload)?.1) {
        let attr = attr?;
        if attr.kind != LIST_ELEMENTS {
            continue;
        }
        for element in attr.nested()? {
            let (mut key, mut count) = (None, None);
            for attr in element?.nested()? {
                let attr = attr?;
                match attr.kind {
                    KEY => key = Some(value(attr.nested()?)?),
                    EXPRESSION => count = Some(counter(attr)?),
                    _ => {}
                }
            }
            let key = read_key(key.ok_or(Error::Missing)?)?;
            let (packets, bytes) = count.ok_or(Error::Missing)?;
            counters.push((key, packets, bytes));
        }
    }
    Ok(counters)
}

/// A key that is the name of a link, which zeros follow.
pub fn link(key: &[u8]) -> Result<String, Error> {
    let name = key.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8(name.to_vec()).map_err(|_| Error::WrongSize)
}

/// A key that is an address.
pub fn address(key: &[u8]) -> Result<IpAddr, Error> {
    let v4 = key.try_into().map(|octets: [u8; 4]| IpAddr::from(octets));
    v4.or_else(|_| key.try_into().map(|octets: [u8; 16]| octets.into()))
        .map_err(|_| Error::WrongSize)
}

/// Packets and bytes of the expression of an element that counts.
fn counter(expression: Attr<'_>) -> Result<(u64, u64), Error> {
    let (mut packets, mut bytes) = (None, None);
    for attr in expression.nested()? {
        let attr = attr?;
        if attr.kind != EXPRESSION_DATA {
            continue;
        }
        for attr in attr.nested()? {
            let attr = attr?;
            match attr.kind {
                COUNTER_BYTES => bytes = Some(attr.be64()?),
                COUNTER_PACKETS => packets = Some(attr.be64()?),
                _ => {}
            }
        }
    }
    packets.zip(bytes).ok_or(Error::Missing)
}

/// The value among the attributes of `struct nft_data`.
pub(super) fn value(attrs: Attrs<'_>) -> Result<&[u8], Error> {
    for attr in attrs {
        let attr = attr?;
        if attr.kind == DATA_VALUE {
            return Ok(attr.value);
        }
    }
    Err(Error::Missing)
}
