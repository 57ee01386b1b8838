//! Messages about single packets that are traced (`NFTA_TRACE_*`, linux/netfilter/nf_tables.h): one
//! for each rule that matched, one for the end of each chain that packets come to, and one for the
//! policy of each base chain that decided (net/netfilter/nf_tables_trace.c). The first of a chain
//! has the beginnings of the headers.

use super::super::Error;
use super::super::attr::Attrs;
use super::super::message::Message;
use super::{SUBSYSTEM, split};

/// `NFNLGRP_NFTRACE` (linux/netfilter/nfnetlink.h): the multicast group.
pub const GROUP: u32 = 9;
/// `NFT_MSG_TRACE`.
pub const TRACE: u16 = SUBSYSTEM << 8 | 17;

// NFTA_TRACE_*.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const LINK_HEADER: u16 = 7;
const NETWORK_HEADER: u16 = 8;
const TRANSPORT_HEADER: u16 = 9;
const IN_LINK: u16 = 10;
const OUT_LINK: u16 = 12;
const POLICY: u16 = 16;
/// NFTA_VERDICT_CODE.
const VERDICT_CODE: u16 = 1;
/// `NFT_TRACETYPE_POLICY`, `NFT_TRACETYPE_RETURN` and `NFT_TRACETYPE_RULE`.
const OF_POLICY: u32 = 1;
const OF_END: u32 = 2;
const OF_RULE: u32 = 3;
/// `NF_DROP` and `NF_ACCEPT` (linux/netfilter.h).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// What a rule or a policy has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet is lost.
    Drop,
    /// It may pass the base chain.
    Accept,
    /// The next rule is tried, maybe of another chain.
    Continue,
}

/// A message, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceMessage<'a> {
    /// `NFPROTO_*` of the table.
    pub family: u8,
    /// The table.
    pub table: &'a [u8],
    /// The chain.
    pub chain: &'a [u8],
    /// The kernel's number of the rule; `None`: the end of the chain, or its policy.
    pub rule: Option<u64>,
    /// What was decided.
    pub outcome: Outcome,
    /// A number that stays the same while a packet goes through the hooks of one link.
    pub id: u32,
    /// The index of the link that it came in by, and of the one that it leaves by.
    pub in_link: Option<u32>,
    pub out_link: Option<u32>,
    /// The beginnings of its headers, in the first message of a chain: Ethernet (which may be
    /// absent), network, transport.
    pub headers: [&'a [u8]; 3],
}

impl<'a> TraceMessage<'a> {
    /// Reads a message. `None` if it is about something else.
    pub fn read(message: &Message<'a>) -> Result<Option<TraceMessage<'a>>, Error> {
        if message.kind != TRACE {
            return Ok(None);
        }
        let (family, attrs) = split(message.payload)?;
        let (mut table, mut chain, mut id): (_, &[u8], _) = (None, &[], None);
        let (mut rule, mut kind) = (None, None);
        let (mut verdict, mut policy) = (Outcome::Continue, Outcome::Continue);
        let (mut in_link, mut out_link) = (None, None);
        let mut headers: [&[u8]; 3] = [&[]; 3];
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                TABLE => table = Some(attr.string()),
                CHAIN => chain = attr.string(),
                RULE_HANDLE => rule = Some(attr.be64()?),
                TYPE => kind = Some(attr.be32()?),
                VERDICT => verdict = read_verdict(attr.nested()?)?,
                POLICY => policy = outcome(attr.be32()?),
                ID => id = Some(attr.be32()?),
                LINK_HEADER => headers[0] = attr.value,
                NETWORK_HEADER => headers[1] = attr.value,
                TRANSPORT_HEADER => headers[2] = attr.value,
                IN_LINK => in_link = Some(attr.be32()?),
                OUT_LINK => out_link = Some(attr.be32()?),
                _ => {}
            }
        }
        let (rule, outcome) = match kind {
            // At the end of a chain there is no rule, whatever the type says.
            Some(OF_RULE | OF_END) => (rule, verdict),
            Some(OF_POLICY) => (None, policy),
            Some(_) => return Ok(None),
            None => return Err(Error::Missing),
        };
        let (table, id) = (table.ok_or(Error::Missing)?, id.ok_or(Error::Missing)?);
        let told =
            TraceMessage { family, table, chain, rule, outcome, id, in_link, out_link, headers };
        Ok(Some(told))
    }
}

fn read_verdict(attrs: Attrs<'_>) -> Result<Outcome, Error> {
    for attr in attrs {
        let attr = attr?;
        if attr.kind == VERDICT_CODE {
            return Ok(outcome(attr.be32()?));
        }
    }
    Err(Error::Missing)
}

/// The lower byte is the verdict; a queue may stand above it.
fn outcome(code: u32) -> Outcome {
    match code {
        DROP => Outcome::Drop,
        ACCEPT => Outcome::Accept,
        _ => Outcome::Continue,
    }
}
