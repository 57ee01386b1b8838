//! From values of the ruleset to messages.

use crate::engine::ruleset::{
    Chain, ChainKind, Element, Field, Hook, Key, Match, PacketField, Rule, Set, Table, Value,
    Verdict,
};
use crate::netlink::nft::element::{Elements, INTERVAL_END, Of, PER_MESSAGE_MAX};
use crate::netlink::nft::expression::{self, Base, Code, Compare, Meta, REG32_FIRST};
use crate::netlink::nft::object::{self, At, Mark, NewChain, NewRule, NewSet, NewTable};
use crate::netlink::writer::Writer;

use super::number;
use crate::network::linux::socket::Sequence;

/// Bytes of a link name in a register and in a key (`IFNAMSIZ`).
pub(super) const LINK_BYTES: usize = 16;
/// Bits of one type in the type of a concatenation (nftables, `TYPE_BITS`).
const TYPE_BITS: u32 = 6;
/// How nft shows a key: `BYTEORDER_HOST_ENDIAN`, for link names.
const SHOWN_IN_HOST_ORDER: u32 = 1;
/// `BYTEORDER_BIG_ENDIAN`, for addresses.
const SHOWN_IN_NETWORK_ORDER: u32 = 2;

/// Begins a message of elements: adding or removing.
pub(super) type Begin = fn(&mut Writer, u32, Of<'_>) -> Elements;

/// A field of a packet: where it is loaded from, and how many bytes it has.
enum Load {
    Meta(Meta),
    Payload { base: Base, offset: u32, length: u32 },
}

/// Writes a table with all that it holds.
pub(super) fn table(writer: &mut Writer, sequence: &mut Sequence, table: &Table, owned: bool) {
    let family = number(table.family);
    object::new_table(writer, sequence.take(), family, table.name, owned, NewTable::Create);
    for (id, set) in (1..).zip(&table.sets) {
        let new = NewSet {
            family,
            table: table.name,
            name: set.name,
            interval: set.interval,
            key_type: key_type(set.key),
            key_length: set.key.iter().map(|field| field_bytes(*field) as u32).sum(),
            byte_order: match set.key {
                [Field::Link] => SHOWN_IN_HOST_ORDER,
                _ => SHOWN_IN_NETWORK_ORDER,
            },
            id,
        };
        object::new_set(writer, sequence.take(), &new);
    }
    for chain in &table.chains {
        write_chain(writer, sequence, table, chain);
    }
    for set in &table.sets {
        write_set(writer, sequence, table, set);
    }
}

fn write_chain(writer: &mut Writer, sequence: &mut Sequence, table: &Table, chain: &Chain) {
    let (family, kind, hook) =
        (number(table.family), kind_name(chain.kind), hook_number(chain.hook));
    let new = NewChain {
        family,
        table: table.name,
        name: chain.name,
        kind,
        hook,
        priority: chain.priority,
    };
    object::new_chain(writer, sequence.take(), &new);
    for rule in &chain.rules {
        let mark = Mark::Tag(rule.tag());
        let new = NewRule { family, table: table.name, chain: chain.name, at: At::Tail, mark };
        object::new_rule(writer, sequence.take(), &new, |writer| write_rule(writer, rule));
    }
}

fn write_set(writer: &mut Writer, sequence: &mut Sequence, table: &Table, set: &Set) {
    let of = Of { family: number(table.family), table: table.name, set: set.name };
    for keys in set.elements.chunks(PER_MESSAGE_MAX / 2) {
        let begin: Begin = crate::netlink::nft::element::add;
        let mut message = begin(writer, sequence.take(), of);
        for key in keys {
            write_key(writer, &mut message, key);
        }
        message.close(writer);
    }
}

/// Writes elements, those of one set in as few messages as hold them, once for each of `begins`.
pub(super) fn elements(
    writer: &mut Writer,
    sequence: &mut Sequence,
    elements: &[Element],
    begins: &[Begin],
) {
    for same in elements.chunk_by(same_set) {
        let of = Of { family: number(same[0].family), table: same[0].table, set: same[0].set };
        for part in same.chunks(PER_MESSAGE_MAX / 2) {
            for begin in begins {
                let mut message = begin(writer, sequence.take(), of);
                for element in part {
                    write_key(writer, &mut message, &element.key);
                }
                message.close(writer);
            }
        }
    }
}

/// Whether two elements belong to the same set.
pub(super) fn same_set(one: &Element, other: &Element) -> bool {
    (one.family, one.table, one.set) == (other.family, other.table, other.set)
}

/// Writes a key; a prefix as the two ends of an interval, of which the upper is left out where it
/// is the end of all addresses.
fn write_key(writer: &mut Writer, message: &mut Elements, key: &Key) {
    if let [Value::Prefix(prefix)] = key.as_slice() {
        message.element(writer, &prefix.network().octets(), 0);
        if let Some(behind) = prefix.broadcast().to_bits().checked_add(1) {
            message.element(writer, &behind.to_be_bytes(), INTERVAL_END);
        }
        return;
    }
    let mut bytes = [0; KEY_BYTES_MAX];
    let mut length = 0;
    for value in key {
        length += write_value(&mut bytes[length..], value);
    }
    message.element(writer, &bytes[..length], 0);
}

/// The longest key: two links.
const KEY_BYTES_MAX: usize = 2 * LINK_BYTES;

/// Writes a value and gives the bytes that it takes, padded to four.
fn write_value(into: &mut [u8], value: &Value) -> usize {
    match value {
        Value::Link(name) => {
            into[..name.len()].copy_from_slice(name.as_bytes());
            LINK_BYTES
        }
        Value::Ether(mac) => {
            into[..6].copy_from_slice(&mac.0);
            8
        }
        Value::Ipv4(address) => {
            into[..4].copy_from_slice(&address.octets());
            4
        }
        Value::Prefix(prefix) => {
            into[..4].copy_from_slice(&prefix.network().octets());
            4
        }
    }
}

fn write_rule(writer: &mut Writer, rule: &Rule) {
    for condition in &rule.matches {
        match condition {
            Match::InSet { fields, set, negated } => {
                load_all(writer, fields);
                expression::lookup(writer, REG32_FIRST, set, *negated);
            }
            Match::Is { field, mask, value } => {
                let length = load(writer, *field, REG32_FIRST) as usize;
                if let Some(mask) = mask {
                    expression::mask(writer, REG32_FIRST, low_bytes(&mask.to_be_bytes(), length));
                }
                let value = value.to_be_bytes();
                let value = low_bytes(&value, length);
                expression::compare(writer, REG32_FIRST, Compare::Equal, value);
            }
            Match::Established => expression::established(writer),
        }
    }
    match rule.verdict {
        Verdict::Accept => expression::verdict(writer, Code::Accept),
        Verdict::Drop => expression::verdict(writer, Code::Drop),
        Verdict::Masquerade => expression::masquerade(writer),
    }
}

/// Loads fields one behind the other.
fn load_all(writer: &mut Writer, fields: &[PacketField]) {
    let mut register = REG32_FIRST;
    for field in fields {
        register += load(writer, *field, register).div_ceil(4);
    }
}

/// Loads a field and gives the bytes that it has.
fn load(writer: &mut Writer, field: PacketField, register: u32) -> u32 {
    match load_of(field) {
        Load::Meta(key) => {
            expression::meta(writer, key, register);
            LINK_BYTES as u32
        }
        Load::Payload { base, offset, length } => {
            expression::payload(writer, base, offset, length, register);
            length
        }
    }
}

/// The last bytes of a number in network order.
fn low_bytes(bytes: &[u8; 8], length: usize) -> &[u8] {
    &bytes[bytes.len() - length..]
}

/// Offsets are those of `struct ethhdr`, `struct iphdr`, and an ARP packet for Ethernet and IPv4
/// (RFC 826).
fn load_of(field: PacketField) -> Load {
    let payload = |base, offset, length| Load::Payload { base, offset, length };
    match field {
        PacketField::InLink => Load::Meta(Meta::InName),
        PacketField::OutLink => Load::Meta(Meta::OutName),
        PacketField::EtherSource => payload(Base::Link, 6, 6),
        PacketField::EtherType => payload(Base::Link, 12, 2),
        PacketField::IpSource => payload(Base::Network, 12, 4),
        PacketField::IpDestination => payload(Base::Network, 16, 4),
        PacketField::ArpSenderEther => payload(Base::Network, 8, 6),
        PacketField::ArpSenderIp => payload(Base::Network, 14, 4),
    }
}

/// nft's number for the type of a key (nftables, `enum datatypes`).
pub(super) fn key_type(key: &[Field]) -> u32 {
    let number = |field: &Field| match field {
        Field::Ipv4 => 7,
        Field::Ether => 9,
        Field::Link => 41,
    };
    key.iter().fold(0, |all, field| all << TYPE_BITS | number(field))
}

/// Bytes of a field in a key, padded to four.
pub(super) fn field_bytes(field: Field) -> usize {
    match field {
        Field::Link => LINK_BYTES,
        Field::Ether => 8,
        Field::Ipv4 => 4,
    }
}

pub(super) fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

/// `NF_INET_*` (linux/netfilter.h) and `NF_BR_*` (linux/netfilter_bridge.h).
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}
