//! Messages to the multicast group of nf_tables: each object of a change, then the new generation
//! and the process that made it (net/netfilter/nf_tables_api.c, `nf_tables_commit`).

use super::super::Error;
use super::super::attr::Attrs;
use super::super::message::Message;
use super::batch::Generation;
use super::{Kind, SUBSYSTEM, split};

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h): the multicast group of changes.
pub const GROUP: u32 = 7;

/// The first attribute of every object: the table that it is, or is in.
const TABLE: u16 = 1;

/// A message of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// Something of this table was made, changed or removed; `elements`: what is in a set of it.
    Touched { family: u8, table: &'a [u8], elements: bool },
    /// That was all of one change.
    Generation(Generation<'a>),
}

impl<'a> Notice<'a> {
    /// Reads a message. `None` for other subsystems, and for objects without a table.
    pub fn read(message: &Message<'a>) -> Result<Option<Notice<'a>>, Error> {
        if message.kind >> 8 != SUBSYSTEM {
            return Ok(None);
        }
        if message.kind == Kind::NewGen.message() {
            return Generation::read(message.payload).map(|made| Some(Notice::Generation(made)));
        }
        let (family, attrs) = split(message.payload)?;
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            if attr.kind == TABLE {
                let elements = [Kind::NewSetElem, Kind::DelSetElem]
                    .iter()
                    .any(|kind| kind.message() == message.kind);
                return Ok(Some(Notice::Touched { family, table: attr.string(), elements }));
            }
        }
        Ok(None)
    }
}
