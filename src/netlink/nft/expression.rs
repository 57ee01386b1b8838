//! The expressions of a rule: they load registers, compare them and give a verdict.
//!
//! There are sixteen 32-bit registers, or four of 16 bytes in the same memory. A concatenation is
//! loaded into consecutive 32-bit registers.

use super::super::Error;
use super::super::attr::{Attr, Attrs};
use super::super::writer::Writer;
use super::FAMILY_IP6;
use super::element;
use super::limit::{self, Limit, Unit};

/// `NFT_REG_VERDICT`.
const REG_VERDICT: u32 = 0;
/// `NFT_REG32_00`: the first of the 32-bit registers.
pub const REG32_FIRST: u32 = 8;

// NFTA_LIST_*, NFTA_EXPR_*, NFTA_DATA_*, NFTA_VERDICT_*.
const LIST_ELEM: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

// NFTA_META_*, NFTA_CT_*.
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
// NFTA_PAYLOAD_*.
const PAYLOAD_DREG: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const PAYLOAD_SREG: u16 = 5;
const PAYLOAD_CSUM_TYPE: u16 = 6;
const PAYLOAD_CSUM_OFFSET: u16 = 7;
const PAYLOAD_CSUM_FLAGS: u16 = 8;
/// `NFT_PAYLOAD_CSUM_INET`, and `NFT_PAYLOAD_L4CSUM_PSEUDOHDR`: that of TCP or UDP, too.
const CSUM_INET: u32 = 1;
const CSUM_PSEUDO_HEADER: u32 = 1;
// NFTA_CMP_*.
const CMP_SREG: u16 = 1;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
// NFTA_BITWISE_*.
const BITWISE_SREG: u16 = 1;
const BITWISE_DREG: u16 = 2;
const BITWISE_LEN: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
// NFTA_LOOKUP_*.
const LOOKUP_SET: u16 = 1;
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const LOOKUP_FLAGS: u16 = 5;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;
// NFTA_IMMEDIATE_*.
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
// NFTA_DYNSET_*.
const DYNSET_SET: u16 = 1;
const DYNSET_OP: u16 = 3;
const DYNSET_SREG_KEY: u16 = 4;
const DYNSET_EXPRESSION: u16 = 7;
/// `NFT_DYNSET_OP_UPDATE`.
const OP_UPDATE: u32 = 1;
// NFTA_MATCH_*.
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;
// NFTA_NAT_*, `NFT_NAT_DNAT`.
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: u16 = 3;
const NAT_PORT: u16 = 5;
const NAT_DESTINATION: u32 = 1;
// NFTA_FIB_*, `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
/// `RTN_LOCAL` (linux/rtnetlink.h).
const LOCAL: u32 = 2;
/// `NFT_CT_STATE`.
const CT_STATE: u32 = 0;
/// `NFT_CT_DIRECTION`, a byte, and `IP_CT_DIR_REPLY`.
const CT_DIRECTION: u32 = 1;
const CT_REPLY: u8 = 1;
/// `NFTA_CT_DIRECTION`, and `IP_CT_DIR_ORIGINAL`.
const CT_WHICH: u16 = 3;
const CT_ORIGINAL: u8 = 0;
/// `NFT_CT_STATUS`.
const CT_STATUS: u32 = 2;
/// `IPS_DST_NAT` (linux/netfilter/nf_conntrack_common.h).
const CT_TRANSLATED: u32 = 1 << 5;
/// `NF_CT_STATE_BIT` of established and related (linux/netfilter/nf_conntrack_common.h).
const CT_ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// The priority of the packet, which is free for other uses; a word of the host.
    Priority = 2,
    /// The type of the link that a packet came in by; two bytes of the host.
    InType = 8,
    /// The name of the link that a packet came in by.
    InName = 6,
    /// The name of the link that it leaves by.
    OutName = 7,
    /// The index of the link that a packet came in by; a word of the host.
    InIndex = 4,
    /// The name of the bridge whose port a frame came in by.
    InBridge = 17,
    /// The protocol that an IP packet carries; a byte.
    Protocol = 16,
    /// For whom a frame is, `PACKET_*` (linux/if_packet.h); a byte.
    PacketType = 19,
    /// Whether the kernel tells of the packet; a byte.
    Trace = 12,
}

/// `NFT_PAYLOAD_*`: where an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The network header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
}

/// The verdicts (linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    Drop = 0,
    Accept = 1,
}

/// Writes one expression: its name, and its data by `data`.
fn expression(writer: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    let element = writer.nest(LIST_ELEM);
    writer.attr_text(NAME, name);
    let nest = writer.nest(DATA);
    data(writer);
    writer.close(nest);
    writer.close(element);
}

fn data_value(writer: &mut Writer, kind: u16, value: &[u8]) {
    let nest = writer.nest(kind);
    writer.attr(DATA_VALUE, value);
    writer.close(nest);
}

/// Loads something about the packet into a register.
pub fn meta(writer: &mut Writer, key: Meta, register: u32) {
    expression(writer, "meta", |writer| {
        writer.attr_be32(META_KEY, key as u32);
        writer.attr_be32(META_DREG, register);
    });
}

/// Sets something about the packet.
pub fn set_meta(writer: &mut Writer, key: Meta, value: &[u8]) {
    expression(writer, "immediate", |writer| {
        writer.attr_be32(IMMEDIATE_DREG, REG32_FIRST);
        data_value(writer, IMMEDIATE_DATA, value);
    });
    expression(writer, "meta", |writer| {
        writer.attr_be32(META_KEY, key as u32);
        writer.attr_be32(META_SREG, REG32_FIRST);
    });
}

/// Loads bytes of the packet into a register.
pub fn payload(writer: &mut Writer, base: Base, offset: u32, length: u32, register: u32) {
    expression(writer, "payload", |writer| {
        writer.attr_be32(PAYLOAD_DREG, register);
        writer.attr_be32(PAYLOAD_BASE, base as u32);
        writer.attr_be32(PAYLOAD_OFFSET, offset);
        writer.attr_be32(PAYLOAD_LEN, length);
    });
}

/// Bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the offset counts from.
    pub base: Base,
    /// Their offset.
    pub offset: u32,
    /// Their number.
    pub length: u32,
}

/// The checksum over bytes of a packet (RFC 1071), which changes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// There is none, or it stays.
    None,
    /// At this offset from the base of the bytes.
    At(u32),
    /// The same, and the bytes are an IP address: that of TCP or UDP changes, too.
    WithTransport(u32),
}

/// Writes a register into the packet.
pub fn store(writer: &mut Writer, place: Place, register: u32, checksum: Checksum) {
    let (offset, flags) = match checksum {
        Checksum::None => (None, 0),
        Checksum::At(offset) => (Some(offset), 0),
        Checksum::WithTransport(offset) => (Some(offset), CSUM_PSEUDO_HEADER),
    };
    expression(writer, "payload", |writer| {
        writer.attr_be32(PAYLOAD_SREG, register);
        writer.attr_be32(PAYLOAD_BASE, place.base as u32);
        writer.attr_be32(PAYLOAD_OFFSET, place.offset);
        writer.attr_be32(PAYLOAD_LEN, place.length);
        if let Some(offset) = offset {
            writer.attr_be32(PAYLOAD_CSUM_TYPE, CSUM_INET);
            writer.attr_be32(PAYLOAD_CSUM_OFFSET, offset);
            writer.attr_be32(PAYLOAD_CSUM_FLAGS, flags);
        }
    });
}

/// Continues only if the comparison of the register with the value holds.
pub fn compare(writer: &mut Writer, register: u32, compare: Compare, value: &[u8]) {
    expression(writer, "cmp", |writer| {
        writer.attr_be32(CMP_SREG, register);
        writer.attr_be32(CMP_OP, compare as u32);
        data_value(writer, CMP_DATA, value);
    });
}

/// Continues only if the key that begins in the register is in the set; `negated`: if it is not.
pub fn lookup(writer: &mut Writer, register: u32, set: &str, negated: bool) {
    expression(writer, "lookup", |writer| {
        writer.attr_text(LOOKUP_SET, set);
        writer.attr_be32(LOOKUP_SREG, register);
        if negated {
            writer.attr_be32(LOOKUP_FLAGS, LOOKUP_INVERTED);
        }
    });
}

/// Puts the key that begins in the register into the set, whose elements must have a timeout. If
/// the key is there already, its timeout begins anew.
pub fn put(writer: &mut Writer, register: u32, set: &str) {
    expression(writer, "dynset", |writer| update(writer, register, set));
}

fn update(writer: &mut Writer, register: u32, set: &str) {
    writer.attr_be32(DYNSET_SREG_KEY, register);
    writer.attr_be32(DYNSET_OP, OP_UPDATE);
    writer.attr_text(DYNSET_SET, set);
}

/// Continues only if packets with the same key in the register exceed a rate and a burst. The set
/// counts them, as in [`put`].
pub fn faster(writer: &mut Writer, register: u32, set: &str, per_second: u32, burst: u32) {
    expression(writer, "dynset", |writer| {
        update(writer, register, set);
        let limit = writer.nest(DYNSET_EXPRESSION);
        limit::write(writer, &Limit { unit: Unit::Packets, per_second, burst });
        writer.close(limit);
    });
}

/// Clears the bits of a register that are not in the mask. The length of the mask is the number of
/// bytes.
pub fn mask(writer: &mut Writer, register: u32, mask: &[u8]) {
    expression(writer, "bitwise", |writer| {
        writer.attr_be32(BITWISE_SREG, register);
        writer.attr_be32(BITWISE_DREG, register);
        writer.attr_be32(BITWISE_LEN, mask.len() as u32);
        data_value(writer, BITWISE_MASK, mask);
        data_value(writer, BITWISE_XOR, &[0; 16][..mask.len()]);
    });
}

/// Continues only if the connection is established or related.
pub fn established(writer: &mut Writer) {
    connection(writer, CT_STATE, CT_ESTABLISHED_OR_RELATED);
}

/// Continues only if the destination of the connection was translated.
pub fn translated(writer: &mut Writer) {
    connection(writer, CT_STATUS, CT_TRANSLATED);
}

/// Continues only if the packet is a reply in its connection.
pub fn answer(writer: &mut Writer) {
    expression(writer, "ct", |writer| {
        writer.attr_be32(META_KEY, CT_DIRECTION);
        writer.attr_be32(META_DREG, REG32_FIRST);
    });
    compare(writer, REG32_FIRST, Compare::Equal, &[CT_REPLY]);
}

/// Whose address [`beginner`] loads: `NFT_CT_SRC_IP` and `NFT_CT_SRC_IP6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Beginner {
    Ip = 19,
    Ip6 = 21,
}

/// Loads the address of who began the connection into a register. A packet of the other family, or
/// one that is of no connection, goes no further in the rule.
pub fn beginner(writer: &mut Writer, key: Beginner, register: u32) {
    expression(writer, "ct", |writer| {
        writer.attr_be32(META_KEY, key as u32);
        writer.attr_be32(META_DREG, register);
        writer.attr(CT_WHICH, &[CT_ORIGINAL]);
    });
}

/// Continues only if one of these bits is set, in a word of the host.
fn connection(writer: &mut Writer, key: u32, bits: u32) {
    expression(writer, "ct", |writer| {
        writer.attr_be32(META_KEY, key);
        writer.attr_be32(META_DREG, REG32_FIRST);
    });
    mask(writer, REG32_FIRST, &bits.to_ne_bytes());
    compare(writer, REG32_FIRST, Compare::NotEqual, &[0; 4]);
}

/// Continues only if the destination is an address of the host. The type is a word of the host.
pub fn local(writer: &mut Writer) {
    expression(writer, "fib", |writer| {
        writer.attr_be32(FIB_DREG, REG32_FIRST);
        writer.attr_be32(FIB_RESULT, FIB_ADDRESS_TYPE);
        writer.attr_be32(FIB_FLAGS, FIB_OF_DESTINATION);
    });
    compare(writer, REG32_FIRST, Compare::Equal, &LOCAL.to_ne_bytes());
}

/// Continues only if the map has the key that begins in the register. The value replaces the key.
pub fn follow(writer: &mut Writer, register: u32, map: &str) {
    expression(writer, "lookup", |writer| {
        writer.attr_text(LOOKUP_SET, map);
        writer.attr_be32(LOOKUP_SREG, register);
        writer.attr_be32(LOOKUP_DREG, register);
    });
}

/// Translates the destination to the address of the family and the port in consecutive registers.
pub fn translate(writer: &mut Writer, family: u8, register: u32) {
    expression(writer, "nat", |writer| {
        writer.attr_be32(NAT_TYPE, NAT_DESTINATION);
        writer.attr_be32(NAT_FAMILY, family.into());
        writer.attr_be32(NAT_ADDRESS, register);
        let words = if family == FAMILY_IP6 { 4 } else { 1 };
        writer.attr_be32(NAT_PORT, register + words);
    });
}

/// Ends the rule with this verdict.
pub fn verdict(writer: &mut Writer, code: Code) {
    expression(writer, "immediate", |writer| {
        writer.attr_be32(IMMEDIATE_DREG, REG_VERDICT);
        let data = writer.nest(IMMEDIATE_DATA);
        let nest = writer.nest(DATA_VERDICT);
        writer.attr_be32(VERDICT_CODE, code as u32);
        writer.close(nest);
        writer.close(data);
    });
}

/// Translates the source to the address of the outgoing link.
pub fn masquerade(writer: &mut Writer) {
    expression(writer, "masq", |_| {});
}

/// An expression of a rule that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    /// Loads the name of a link, or its index.
    LinkName(Meta),
    /// Looks what was loaded up in a set of this name.
    InSet(&'a [u8]),
    /// Compares for equality with this value.
    Equals(&'a [u8]),
    /// Ends the rule with accept.
    Accept,
    /// Ends the rule with drop, or rejects the packet.
    Drop,
    /// Counts, or writes to a log.
    Neutral,
    /// Says something, in the form of iptables: a match that always holds
    /// (linux/netfilter/xt_comment.h).
    Comment(&'a [u8]),
    /// Loads the port that a packet goes to.
    DestinationPort,
    /// Translates the destination, or redirects the packet to this host.
    Redirect,
    /// Anything else.
    Other,
}

impl<'a> Expression<'a> {
    /// Reads one element of a rule's list.
    pub(super) fn read(attr: Attr<'a>) -> Result<Expression<'a>, Error> {
        let (mut name, mut data) = (None, None);
        for attr in attr.nested()? {
            let attr = attr?;
            match attr.kind {
                NAME => name = Some(attr.string()),
                DATA => data = Some(attr),
                _ => {}
            }
        }
        let attrs = || data.ok_or(Error::Missing).and_then(Attr::nested);
        match name.ok_or(Error::Missing)? {
            b"meta" => read_meta(attrs()?),
            b"cmp" => read_compare(attrs()?),
            b"immediate" => read_immediate(attrs()?),
            b"counter" | b"log" => Ok(Expression::Neutral),
            b"reject" => Ok(Expression::Drop),
            b"lookup" => read_lookup(attrs()?),
            b"match" => read_match(attrs()?),
            b"payload" => read_payload(attrs()?),
            b"nat" => read_nat(attrs()?),
            b"redir" => Ok(Expression::Redirect),
            _ => Ok(Expression::Other),
        }
    }

    /// The link whose name it compares with, without the padding.
    pub fn matched_link(self) -> Option<&'a [u8]> {
        match self {
            Expression::Equals(value) => value.split(|&byte| byte == 0).next(),
            Expression::LinkName(_)
            | Expression::Accept
            | Expression::InSet(_)
            | Expression::Drop
            | Expression::Neutral
            | Expression::Comment(_)
            | Expression::DestinationPort
            | Expression::Redirect
            | Expression::Other => None,
        }
    }
}

fn read_meta<'a>(attrs: Attrs<'a>) -> Result<Expression<'a>, Error> {
    for attr in attrs {
        let attr = attr?;
        if attr.kind == META_KEY {
            let key = attr.be32()?;
            let links = [Meta::InName, Meta::OutName, Meta::InIndex, Meta::InBridge];
            let link = links.into_iter().find(|link| *link as u32 == key);
            return Ok(link.map_or(Expression::Other, Expression::LinkName));
        }
    }
    Ok(Expression::Other)
}

fn read_compare(attrs: Attrs<'_>) -> Result<Expression<'_>, Error> {
    let (mut equal, mut value) = (false, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            CMP_OP => equal = attr.be32()? == Compare::Equal as u32,
            CMP_DATA => value = Some(element::value(attr.nested()?)?),
            _ => {}
        }
    }
    Ok(value.filter(|_| equal).map_or(Expression::Other, Expression::Equals))
}

/// The destination port stands behind the source port in TCP, UDP and SCTP (RFC 9293, RFC 768, RFC
/// 9260).
fn read_payload<'a>(attrs: Attrs<'a>) -> Result<Expression<'a>, Error> {
    let (mut base, mut offset, mut length) = (0, 0, 0);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            PAYLOAD_BASE => base = attr.be32()?,
            PAYLOAD_OFFSET => offset = attr.be32()?,
            PAYLOAD_LEN => length = attr.be32()?,
            _ => {}
        }
    }
    let is_port = (base, offset, length) == (Base::Transport as u32, 2, 2);
    Ok(if is_port { Expression::DestinationPort } else { Expression::Other })
}

fn read_nat<'a>(attrs: Attrs<'a>) -> Result<Expression<'a>, Error> {
    for attr in attrs {
        let attr = attr?;
        if attr.kind == NAT_TYPE && attr.be32()? == NAT_DESTINATION {
            return Ok(Expression::Redirect);
        }
    }
    Ok(Expression::Other)
}

fn read_lookup(attrs: Attrs<'_>) -> Result<Expression<'_>, Error> {
    let (mut set, mut plain): (&[u8], bool) = (&[], true);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            LOOKUP_SET => set = attr.string(),
            LOOKUP_FLAGS => plain = attr.be32()? & LOOKUP_INVERTED == 0,
            _ => {}
        }
    }
    Ok(if plain { Expression::InSet(set) } else { Expression::Other })
}

fn read_match(attrs: Attrs<'_>) -> Result<Expression<'_>, Error> {
    let (mut name, mut info): (&[u8], &[u8]) = (&[], &[]);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            MATCH_NAME => name = attr.string(),
            MATCH_INFO => info = attr.value,
            _ => {}
        }
    }
    let text = info.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(if name == b"comment" { Expression::Comment(text) } else { Expression::Other })
}

fn read_immediate<'a>(attrs: Attrs<'a>) -> Result<Expression<'a>, Error> {
    for attr in attrs {
        let attr = attr?;
        if attr.kind != IMMEDIATE_DATA {
            continue;
        }
        for attr in attr.nested()? {
            let attr = attr?;
            if attr.kind != DATA_VERDICT {
                continue;
            }
            for attr in attr.nested()? {
                let attr = attr?;
                if attr.kind == VERDICT_CODE {
                    return Ok(match attr.be32()? {
                        accept if accept == Code::Accept as u32 => Expression::Accept,
                        drop if drop == Code::Drop as u32 => Expression::Drop,
                        _ => Expression::Other,
                    });
                }
            }
        }
    }
    Ok(Expression::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            REG_VERDICT => libc::NFT_REG_VERDICT,
            REG32_FIRST => libc::NFT_REG32_00,
            LOOKUP_INVERTED => libc::NFT_LOOKUP_F_INV,
            OP_UPDATE => libc::NFT_DYNSET_OP_UPDATE,
            NAT_DESTINATION => libc::NFT_NAT_DNAT,
            LOCAL => libc::RTN_LOCAL,
            CT_STATE => libc::NFT_CT_STATE,
            Beginner::Ip => libc::NFT_CT_SRC_IP,
            Beginner::Ip6 => libc::NFT_CT_SRC_IP6,
            CT_DIRECTION => libc::NFT_CT_DIRECTION,
            CT_STATUS => libc::NFT_CT_STATUS,
            Meta::Priority => libc::NFT_META_PRIORITY,
            Meta::InName => libc::NFT_META_IIFNAME,
            Meta::OutName => libc::NFT_META_OIFNAME,
            Meta::InIndex => libc::NFT_META_IIF,
            Meta::InBridge => libc::NFT_META_BRI_IIFNAME,
            Meta::Protocol => libc::NFT_META_L4PROTO,
            Meta::PacketType => libc::NFT_META_PKTTYPE,
            CSUM_INET => libc::NFT_PAYLOAD_CSUM_INET,
            Meta::Trace => libc::NFT_META_NFTRACE,
            Base::Link => libc::NFT_PAYLOAD_LL_HEADER,
            Base::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
            Base::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
            Compare::Equal => libc::NFT_CMP_EQ,
            Compare::NotEqual => libc::NFT_CMP_NEQ,
            Code::Drop => libc::NF_DROP,
            Code::Accept => libc::NF_ACCEPT,
        }
    }
}
