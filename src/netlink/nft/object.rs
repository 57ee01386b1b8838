//! Tables, chains, sets and rules.

use super::super::Error;
use super::super::attr::{Attr, Attrs};
use super::super::message::{APPEND, CREATE, DUMP, EXCL, REQUEST};
use super::super::writer::Writer;
use super::expression::Expression;
use super::limit::{self, Limit, Unit};
use super::{FAMILY_ANY, Kind, begin, split};

/// `NFT_TABLE_F_OWNER`: only the socket that made it may change it.
const TABLE_OWNER: u32 = 2;
/// `NFT_TABLE_F_PERSIST`: it outlives that socket.
const TABLE_PERSIST: u32 = 4;
/// `NFT_SET_INTERVAL`.
const SET_INTERVAL: u32 = 4;
/// `NFT_SET_MAP`.
const SET_MAP: u32 = 8;
/// `NFT_SET_TIMEOUT`.
const SET_HAS_TIMEOUT: u32 = 0x10;
/// `NFT_SET_EVAL`.
const SET_DYNAMIC: u32 = 0x20;
/// `NF_ACCEPT`, as the policy of a chain.
const POLICY_ACCEPT: u32 = 1;

// NFTA_TABLE_*.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNED_BY: u16 = 7;
// NFTA_CHAIN_*, NFTA_HOOK_*.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
// NFTA_SET_*.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_TIMEOUT: u16 = 11;
const SET_USERDATA: u16 = 13;
const SET_EXPRESSION: u16 = 17;
// NFTA_EXPR_*.
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DESC_SIZE: u16 = 1;
// NFTA_RULE_*.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl, udata.h): a rule's comment, with its terminator.
const UDATA_COMMENT: u8 = 0;
/// The tag of our rules. libnftnl does not know this type, so nft ignores it.
const UDATA_TAG: u8 = 0x76;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMessage<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its name.
    pub name: &'a [u8],
    /// Whether it outlives the socket that owns it, or owned it: the kernel takes OWNER away when
    /// that is closed, and leaves PERSIST.
    pub persistent: bool,
    /// The port of the socket that owns it now.
    pub owner: Option<u32>,
}

impl<'a> TableMessage<'a> {
    /// Reads the payload of `NFT_MSG_NEWTABLE`.
    pub fn read(payload: &'a [u8]) -> Result<TableMessage<'a>, Error> {
        let (family, attrs) = split(payload)?;
        let (mut name, mut flags, mut owner) = (None, 0, None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                TABLE_NAME => name = Some(attr.string()),
                TABLE_FLAGS => flags = attr.be32()?,
                TABLE_OWNED_BY => owner = Some(attr.be32()?),
                _ => {}
            }
        }
        let persistent = flags & TABLE_PERSIST != 0;
        Ok(TableMessage { family, name: name.ok_or(Error::Missing)?, persistent, owner })
    }
}

/// How a table is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTable {
    /// It must not be there.
    Create,
    /// It may be there; one without an owner that had one is adopted.
    Adopt,
}

/// Makes a table, owned by this socket and persistent if `owned`.
pub fn new_table(
    writer: &mut Writer,
    sequence: u32,
    family: u8,
    name: &str,
    owned: bool,
    how: NewTable,
) {
    let exclusive = match how {
        NewTable::Create => EXCL,
        NewTable::Adopt => 0,
    };
    let open = begin(writer, Kind::NewTable, REQUEST | CREATE | exclusive, sequence, family);
    writer.attr_text(TABLE_NAME, name);
    writer.attr_be32(TABLE_FLAGS, if owned { TABLE_OWNER | TABLE_PERSIST } else { 0 });
    writer.close_message(open);
}

/// Removes a table with all that it holds. ENOENT when there is none.
pub fn delete_table(writer: &mut Writer, sequence: u32, family: u8, name: &str) {
    let open = begin(writer, Kind::DelTable, REQUEST, sequence, family);
    writer.attr_text(TABLE_NAME, name);
    writer.close_message(open);
}

/// Asks for the tables of all families.
pub fn dump_tables(writer: &mut Writer, sequence: u32) {
    let open = begin(writer, Kind::GetTable, REQUEST | DUMP, sequence, FAMILY_ANY);
    writer.close_message(open);
}

/// A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainMessage<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Type, hook and priority of a base chain.
    pub base: Option<(&'a [u8], u32, i32)>,
    /// Whether a packet that no rule decides on passes.
    pub accepts: bool,
}

impl<'a> ChainMessage<'a> {
    /// Reads the payload of `NFT_MSG_NEWCHAIN`.
    pub fn read(payload: &'a [u8]) -> Result<ChainMessage<'a>, Error> {
        let (family, attrs) = split(payload)?;
        let (mut table, mut name, mut kind, mut hook) = (None, None, None, None);
        let mut accepts = true;
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                CHAIN_TABLE => table = Some(attr.string()),
                CHAIN_NAME => name = Some(attr.string()),
                CHAIN_TYPE => kind = Some(attr.string()),
                CHAIN_HOOK => hook = Some(read_hook(attr)?),
                CHAIN_POLICY => accepts = attr.be32()? == POLICY_ACCEPT,
                _ => {}
            }
        }
        let base = kind.zip(hook).map(|(kind, (number, priority))| (kind, number, priority));
        let (table, name) = (table.ok_or(Error::Missing)?, name.ok_or(Error::Missing)?);
        Ok(ChainMessage { family, table, name, base, accepts })
    }
}

fn read_hook(attr: Attr<'_>) -> Result<(u32, i32), Error> {
    let (mut number, mut priority) = (None, None);
    for attr in attr.nested()? {
        let attr = attr?;
        match attr.kind {
            HOOK_NUMBER => number = Some(attr.be32()?),
            HOOK_PRIORITY => priority = Some(attr.be32()? as i32),
            _ => {}
        }
    }
    number.zip(priority).ok_or(Error::Missing)
}

/// A base chain that is made, with policy accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewChain<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `filter` or `nat`.
    pub kind: &'a str,
    /// `NF_INET_*` or `NF_BR_*`, which are the same for those we use.
    pub hook: u32,
    /// The order among the chains of a hook.
    pub priority: i32,
}

/// Makes a base chain.
pub fn new_chain(writer: &mut Writer, sequence: u32, chain: &NewChain<'_>) {
    let open = begin(writer, Kind::NewChain, REQUEST | CREATE, sequence, chain.family);
    writer.attr_text(CHAIN_TABLE, chain.table);
    writer.attr_text(CHAIN_NAME, chain.name);
    let hook = writer.nest(CHAIN_HOOK);
    writer.attr_be32(HOOK_NUMBER, chain.hook);
    writer.attr_be32(HOOK_PRIORITY, chain.priority as u32);
    writer.close(hook);
    writer.attr_be32(CHAIN_POLICY, POLICY_ACCEPT);
    writer.attr_text(CHAIN_TYPE, chain.kind);
    writer.close_message(open);
}

/// Asks for the chains of a family.
pub fn dump_chains(writer: &mut Writer, sequence: u32, family: u8) {
    let open = begin(writer, Kind::GetChain, REQUEST | DUMP, sequence, family);
    writer.close_message(open);
}

/// A set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetMessage<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// How it is filled.
    pub filled: Filled,
    /// The types of its key, six bits each, the last field lowest; nft's numbers.
    pub key_type: u32,
    /// The types of its values, if it is a map.
    pub data_type: Option<u32>,
}

/// How a set is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// By requests, with single values.
    Values,
    /// By requests, with intervals.
    Intervals,
    /// By requests, with single values that count the packets that they were found for.
    Counting,
    /// By requests, with single values each of which has a limit of its own, in this unit: it is
    /// found for what is over that.
    Limiting(Unit),
    /// By packets. Elements have a timeout in milliseconds.
    ByPackets { timeout_ms: u64 },
}

impl<'a> SetMessage<'a> {
    /// Reads the payload of `NFT_MSG_NEWSET`.
    pub fn read(payload: &'a [u8]) -> Result<SetMessage<'a>, Error> {
        let (family, attrs) = split(payload)?;
        let (mut table, mut name, mut flags, mut key_type) = (None, None, 0, 0);
        let (mut timeout_ms, mut data_type, mut each) = (0, None, None);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                SET_TABLE => table = Some(attr.string()),
                SET_NAME => name = Some(attr.string()),
                SET_FLAGS => flags = attr.be32()?,
                SET_KEY_TYPE => key_type = attr.be32()?,
                SET_DATA_TYPE => data_type = Some(attr.be32()?),
                SET_EXPRESSION => {
                    let limiting = |limit: Limit| Filled::Limiting(limit.unit);
                    each = Some(limit::read(attr)?.map_or(Filled::Counting, limiting));
                }
                SET_TIMEOUT => timeout_ms = attr.be64()?,
                _ => {}
            }
        }
        let (table, name) = (table.ok_or(Error::Missing)?, name.ok_or(Error::Missing)?);
        let filled = match flags & (SET_INTERVAL | SET_DYNAMIC) {
            0 => each.unwrap_or(Filled::Values),
            SET_INTERVAL => Filled::Intervals,
            _ => Filled::ByPackets { timeout_ms },
        };
        let data_type = data_type.filter(|_| flags & SET_MAP != 0);
        Ok(SetMessage { family, table, name, filled, key_type, data_type })
    }
}

/// A set that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSet<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a str,
    /// Its name.
    pub name: &'a str,
    /// How it is filled.
    pub filled: Filled,
    /// The most elements that packets put into it.
    pub size: Option<u32>,
    /// As in [`SetMessage::key_type`].
    pub key_type: u32,
    /// Bytes of a key.
    pub key_length: u32,
    /// Types and bytes of its values, if it is a map.
    pub data: Option<(u32, u32)>,
    /// By what nft knows how to show the key (libnftnl, udata.h).
    pub userdata: &'a [u8],
    /// A number by which the same batch could name it; the kernel wants one.
    pub id: u32,
}

/// Makes a set.
pub fn new_set(writer: &mut Writer, sequence: u32, set: &NewSet<'_>) {
    let open = begin(writer, Kind::NewSet, REQUEST | CREATE, sequence, set.family);
    writer.attr_text(SET_TABLE, set.table);
    writer.attr_text(SET_NAME, set.name);
    let (flags, timeout_ms) = match set.filled {
        Filled::Values => (0, None),
        Filled::Intervals => (SET_INTERVAL, None),
        Filled::Counting | Filled::Limiting(_) => (0, None),
        Filled::ByPackets { timeout_ms } => (SET_DYNAMIC | SET_HAS_TIMEOUT, Some(timeout_ms)),
    };
    writer.attr_be32(SET_FLAGS, flags | if set.data.is_some() { SET_MAP } else { 0 });
    writer.attr_be32(SET_KEY_TYPE, set.key_type);
    writer.attr_be32(SET_KEY_LEN, set.key_length);
    if let Some((data_type, length)) = set.data {
        writer.attr_be32(SET_DATA_TYPE, data_type);
        writer.attr_be32(SET_DATA_LEN, length);
    }
    writer.attr_be32(SET_ID, set.id);
    if let Some(size) = set.size {
        let description = writer.nest(SET_DESC);
        writer.attr_be32(DESC_SIZE, size);
        writer.close(description);
    }
    if let Some(timeout_ms) = timeout_ms {
        writer.attr(SET_TIMEOUT, &timeout_ms.to_be_bytes());
    }
    writer.attr(SET_USERDATA, set.userdata);
    match set.filled {
        Filled::Counting => {
            let nest = writer.nest(SET_EXPRESSION);
            writer.attr_text(EXPRESSION_NAME, "counter");
            let data = writer.nest(EXPRESSION_DATA);
            writer.close(data);
            writer.close(nest);
        }
        // The type of an element without a value.
        Filled::Limiting(unit) => {
            let nest = writer.nest(SET_EXPRESSION);
            limit::write(writer, &Limit { unit, per_second: u32::MAX, burst: 1 });
            writer.close(nest);
        }
        Filled::Values | Filled::Intervals | Filled::ByPackets { .. } => {}
    }
    writer.close_message(open);
}

/// Asks for the sets of a table.
pub fn dump_sets(writer: &mut Writer, sequence: u32, family: u8, table: &str) {
    let open = begin(writer, Kind::GetSet, REQUEST | DUMP, sequence, family);
    writer.attr_text(SET_TABLE, table);
    writer.close_message(open);
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleMessage<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a [u8],
    /// Its chain.
    pub chain: &'a [u8],
    /// The kernel's number for it.
    pub handle: u64,
    expressions: Option<Attr<'a>>,
    userdata: &'a [u8],
}

impl<'a> RuleMessage<'a> {
    /// Reads the payload of `NFT_MSG_NEWRULE`.
    pub fn read(payload: &'a [u8]) -> Result<RuleMessage<'a>, Error> {
        let (family, attrs) = split(payload)?;
        let (mut table, mut chain, mut handle) = (None, None, None);
        let (mut expressions, mut userdata): (_, &[u8]) = (None, &[]);
        for attr in Attrs::new(attrs) {
            let attr = attr?;
            match attr.kind {
                RULE_TABLE => table = Some(attr.string()),
                RULE_CHAIN => chain = Some(attr.string()),
                RULE_HANDLE => handle = Some(attr.be64()?),
                RULE_EXPRESSIONS => expressions = Some(attr),
                RULE_USERDATA => userdata = attr.value,
                _ => {}
            }
        }
        let (table, chain) = (table.ok_or(Error::Missing)?, chain.ok_or(Error::Missing)?);
        let handle = handle.ok_or(Error::Missing)?;
        Ok(RuleMessage { family, table, chain, handle, expressions, userdata })
    }

    /// What it does, in order.
    pub fn expressions(&self) -> impl Iterator<Item = Result<Expression<'a>, Error>> + use<'a> {
        let nested = self.expressions.and_then(|attr| attr.nested().ok());
        nested.into_iter().flatten().map(|attr| attr.and_then(Expression::read))
    }

    /// Its comment, as nft stores it.
    pub fn comment(&self) -> Option<&'a [u8]> {
        self.user_value(UDATA_COMMENT).and_then(|value| value.strip_suffix(&[0]))
    }

    /// The tag that [`new_rule`] gave it.
    pub fn tag(&self) -> Option<u64> {
        let value = self.user_value(UDATA_TAG)?;
        value.try_into().ok().map(u64::from_ne_bytes)
    }

    /// The value of this type among the user data: a byte of type, a byte of length, the value.
    fn user_value(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.userdata;
        while let [kind, length, tail @ ..] = rest {
            let value = tail.get(..usize::from(*length))?;
            if *kind == wanted {
                return Some(value);
            }
            rest = &tail[value.len()..];
        }
        None
    }
}

/// The mark of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// A number that only volnet reads.
    Tag(u64),
    /// A comment of at most 250 bytes, which nft and iptables show.
    Comment(&'a str),
}

/// Where a rule is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before all others of its chain.
    Head,
    /// Behind them.
    Tail,
}

/// A rule that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRule<'a> {
    /// `NFPROTO_*`.
    pub family: u8,
    /// Its table.
    pub table: &'a str,
    /// Its chain.
    pub chain: &'a str,
    /// Where in it.
    pub at: At,
    /// Its mark.
    pub mark: Mark<'a>,
}

/// Makes a rule of the expressions that `body` writes.
pub fn new_rule(
    writer: &mut Writer,
    sequence: u32,
    rule: &NewRule<'_>,
    body: impl FnOnce(&mut Writer),
) {
    let place = match rule.at {
        At::Head => 0,
        At::Tail => APPEND,
    };
    let open = begin(writer, Kind::NewRule, REQUEST | CREATE | place, sequence, rule.family);
    writer.attr_text(RULE_TABLE, rule.table);
    writer.attr_text(RULE_CHAIN, rule.chain);
    let list = writer.nest(RULE_EXPRESSIONS);
    body(writer);
    writer.close(list);
    match rule.mark {
        Mark::Tag(tag) => {
            let mut userdata = [0; 10];
            userdata[..2].copy_from_slice(&[UDATA_TAG, 8]);
            userdata[2..].copy_from_slice(&tag.to_ne_bytes());
            writer.attr(RULE_USERDATA, &userdata);
        }
        Mark::Comment(text) => {
            let length = text.len() as u8 + 1;
            let userdata = [&[UDATA_COMMENT, length], text.as_bytes(), &[0]].concat();
            writer.attr(RULE_USERDATA, &userdata);
        }
    }
    writer.close_message(open);
}

/// Removes a rule by its handle.
pub fn delete_rule(writer: &mut Writer, sequence: u32, of: (u8, &str, &str), handle: u64) {
    let (family, table, chain) = of;
    let open = begin(writer, Kind::DelRule, REQUEST, sequence, family);
    writer.attr_text(RULE_TABLE, table);
    writer.attr_text(RULE_CHAIN, chain);
    writer.attr(RULE_HANDLE, &handle.to_be_bytes());
    writer.close_message(open);
}

/// Asks for the rules of a table.
pub fn dump_rules(writer: &mut Writer, sequence: u32, family: u8, table: &str) {
    let open = begin(writer, Kind::GetRule, REQUEST | DUMP, sequence, family);
    writer.attr_text(RULE_TABLE, table);
    writer.close_message(open);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            SET_INTERVAL => libc::NFT_SET_INTERVAL,
            SET_MAP => libc::NFT_SET_MAP,
            SET_HAS_TIMEOUT => libc::NFT_SET_TIMEOUT,
            SET_DYNAMIC => libc::NFT_SET_EVAL,
            POLICY_ACCEPT => libc::NF_ACCEPT,
        }
    }
}
