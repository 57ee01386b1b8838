//! Encodes values of the ruleset as messages.

use std::net::IpAddr;

use crate::model::limits::Rate;
use crate::netlink::nft::element::{Elements, INTERVAL_END, Of, PER_MESSAGE_MAX, With};
use crate::netlink::nft::expression::{
    self, Base, Beginner, Checksum, Code, Compare, Meta, Place, REG32_FIRST,
};
use crate::netlink::nft::limit::{self, Limit};
use crate::netlink::nft::object::{self, At, Filled, Mark, NewChain, NewRule, NewSet, NewTable};
use crate::netlink::writer::{Sequence, Writer};
use crate::plan::ruleset::{
    Bytes, Chain, ChainKind, Element, Field, Hook, Key, LEARNED_MAX, Layer, Match, PacketField,
    Rule, Set, SetKind, Table, Unit, Value, Verdict,
};

use super::{number, userdata};

/// Bytes of a link name in a register and in a key (`IFNAMSIZ`).
pub const LINK_BYTES: usize = 16;
/// Bits of one type in the type of a concatenation (nftables, `TYPE_BITS`).
const TYPE_BITS: u32 = 6;

/// Begins a message of elements: adding or removing.
pub type Begin = fn(&mut Writer, u32, Of<'_>) -> Elements;

/// A field of a packet: its place and its length in bytes.
enum Load {
    Meta(Meta, u32),
    Payload { base: Base, offset: u32, length: u32 },
    Beginner(Beginner, u32),
}

/// Writes a table with its content.
pub fn table(writer: &mut Writer, sequence: &mut Sequence, table: &Table, owned: bool) {
    let family = number(table.family);
    object::new_table(writer, sequence.take(), family, table.name, owned, NewTable::Create);
    for (id, set) in (1..).zip(&table.sets) {
        let new = NewSet {
            family,
            table: table.name,
            name: &set.name,
            filled: filled(set),
            size: matches!(set.kind, SetKind::Learned { .. }).then_some(LEARNED_MAX),
            key_type: key_type(set.key),
            key_length: length(set.key),
            data: set.key.last().and_then(|last| Some((target(*last)?, field_bytes(*last) as u32))),
            userdata: &userdata::key(set.key),
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

/// Bytes of an Ethernet address.
const ETHER_BYTES: u32 = 6;

/// Bytes of a key. What stands alone is not padded.
fn length(key: &[Field]) -> u32 {
    if matches!(key, [Field::Ether]) {
        return ETHER_BYTES;
    }
    key.iter()
        .filter(|field| !field.is_target() && !matches!(field, Field::Rate(_)))
        .map(|field| field_bytes(*field) as u32)
        .sum()
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
    let of = Of { family: number(table.family), table: table.name, set: &set.name };
    for keys in set.elements.chunks(PER_MESSAGE_MAX / 2) {
        let begin: Begin = crate::netlink::nft::element::add;
        let mut message = begin(writer, sequence.take(), of);
        for key in keys {
            write_key(writer, &mut message, key);
        }
        message.close(writer);
    }
}

/// Writes elements, in as few messages per set as possible, once for each of `begins`.
pub fn elements(
    writer: &mut Writer,
    sequence: &mut Sequence,
    elements: &[Element],
    begins: &[Begin],
) {
    for same in elements.chunk_by(same_set) {
        let of = Of { family: number(same[0].family), table: same[0].table, set: &same[0].set };
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
pub fn same_set(one: &Element, other: &Element) -> bool {
    (one.family, one.table, &one.set) == (other.family, other.table, &other.set)
}

/// Writes a key. A prefix is the two ends of an interval; the upper one is left out if it is the
/// end of all addresses.
fn write_key(writer: &mut Writer, message: &mut Elements, key: &Key) {
    if let [Value::Prefix(prefix)] = key.as_slice() {
        message.element(writer, &octets(prefix.network()), With::Nothing, 0);
        let behind = match prefix.last() {
            IpAddr::V4(last) => last.to_bits().checked_add(1).map(|at| at.to_be_bytes().to_vec()),
            IpAddr::V6(last) => last.to_bits().checked_add(1).map(|at| at.to_be_bytes().to_vec()),
        };
        if let Some(behind) = behind {
            message.element(writer, &behind, With::Nothing, INTERVAL_END);
        }
        return;
    }
    let mut bytes = [0; KEY_BYTES_MAX];
    let length =
        key.iter().fold(0, |length, value| length + write_value(&mut bytes[length..], value));
    let bytes = &bytes[..length];
    let target = match key.last() {
        Some(Value::Target(IpAddr::V4(_), _)) => field_bytes(Field::Target),
        Some(Value::Target(IpAddr::V6(_), _)) => field_bytes(Field::Target6),
        Some(Value::TargetEther(_)) => field_bytes(Field::TargetEther),
        Some(Value::TargetIpv4(_)) => field_bytes(Field::TargetIpv4),
        Some(Value::TargetBytes(bytes)) => bytes.len(),
        Some(_) | None => 0,
    };
    let (key, with) = match key.last() {
        Some(Value::Rate(unit, rate)) => (bytes, With::Limit(limit(*unit, *rate))),
        Some(_) if target > 0 => {
            let (key, data) = bytes.split_at(length - target);
            (key, With::Data(data))
        }
        Some(_) | None => (bytes, With::Nothing),
    };
    message.element(writer, key, with, 0);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn limit(counted: Unit, Rate { per_second, burst }: Rate) -> Limit {
    Limit { unit: unit(counted), per_second, burst }
}

fn unit(unit: Unit) -> limit::Unit {
    match unit {
        Unit::Packets => limit::Unit::Packets,
        Unit::Bytes => limit::Unit::Bytes,
    }
}

/// The longest key: an IPv6 address, a protocol and a port that lead to an address and a port.
const KEY_BYTES_MAX: usize = 16 + 4 + 4 + 16 + 4;

/// Writes a value and returns its length in bytes, padded to four.
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
        Value::Address(address) => write_address(into, *address),
        Value::Prefix(prefix) => write_address(into, prefix.network()),
        Value::Protocol(protocol) => {
            into[0] = *protocol;
            4
        }
        Value::Port(port) => {
            into[..2].copy_from_slice(&port.to_be_bytes());
            4
        }
        Value::Target(address, port) => {
            let length = write_address(into, *address);
            into[length..length + 2].copy_from_slice(&port.to_be_bytes());
            length + 4
        }
        Value::TargetEther(mac) => {
            into[..6].copy_from_slice(&mac.0);
            6
        }
        Value::TargetIpv4(address) => write_address(into, (*address).into()),
        Value::TargetBytes(bytes) => {
            into[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }
        // It is not in the key.
        Value::Rate(..) => 0,
        Value::Bytes(bytes) => {
            into[..bytes.len()].copy_from_slice(bytes);
            bytes.len().next_multiple_of(4)
        }
    }
}

fn write_address(into: &mut [u8], address: IpAddr) -> usize {
    let octets = octets(address);
    into[..octets.len()].copy_from_slice(&octets);
    octets.len()
}

fn write_rule(writer: &mut Writer, rule: &Rule) {
    for condition in &rule.matches {
        match condition {
            Match::InSet { fields, set, negated } => {
                load_all(writer, fields);
                expression::lookup(writer, REG32_FIRST, set, *negated);
            }
            Match::Is { field, mask, value, negated } => {
                load(writer, *field, REG32_FIRST);
                if let Some(mask) = mask {
                    expression::mask(writer, REG32_FIRST, &number_of(*field, *mask));
                }
                let how = if *negated { Compare::NotEqual } else { Compare::Equal };
                expression::compare(writer, REG32_FIRST, how, &number_of(*field, *value));
            }
            Match::Within { field, prefix } => {
                load(writer, *field, REG32_FIRST);
                expression::mask(writer, REG32_FIRST, &octets(prefix.mask()));
                let network = octets(prefix.network());
                expression::compare(writer, REG32_FIRST, Compare::Equal, &network);
            }
            Match::Put { fields, set } => {
                load_all(writer, fields);
                expression::put(writer, REG32_FIRST, set);
            }
            Match::Faster { fields, set, rate } => {
                load_all(writer, fields);
                expression::faster(writer, REG32_FIRST, set, rate.per_second, rate.burst);
            }
            Match::Established => expression::established(writer),
            Match::Translated => expression::translated(writer),
            Match::Answer => expression::answer(writer),
            Match::Local => expression::local(writer),
        }
    }
    match rule.verdict {
        Verdict::Accept => expression::verdict(writer, Code::Accept),
        Verdict::Drop => expression::verdict(writer, Code::Drop),
        Verdict::Masquerade => expression::masquerade(writer),
        Verdict::Translate { family, fields, map } => {
            load_all(writer, fields);
            expression::follow(writer, REG32_FIRST, map);
            expression::translate(writer, number(family), REG32_FIRST);
        }
        Verdict::SetPriority(value) => {
            expression::set_meta(writer, Meta::Priority, &value.to_ne_bytes());
        }
        Verdict::Admit(value) => {
            expression::set_meta(writer, Meta::Priority, &value.to_ne_bytes());
            expression::verdict(writer, Code::Accept);
        }
        Verdict::Trace => expression::set_meta(writer, Meta::Trace, &[1]),
        Verdict::Rewrite { link, field, map } => rewrite(writer, link, field, map),
        Verdict::Deliver { map } => {
            rewrite(writer, PacketField::InLink, PacketField::EtherDestination, map);
            expression::set_meta(writer, Meta::PacketType, &[TO_HOST]);
        }
    }
}

/// `PACKET_HOST` (linux/if_packet.h).
const TO_HOST: u8 = 0;

/// Writes into a field what a map has for a link and the field.
fn rewrite(writer: &mut Writer, link: PacketField, field: PacketField, map: &str) {
    load_all(writer, &[link, field]);
    expression::follow(writer, REG32_FIRST, map);
    if let Load::Payload { base, offset, length } = load_of(field) {
        let place = Place { base, offset, length };
        expression::store(writer, place, REG32_FIRST, checksum(field));
    }
}

/// The checksum that a field is under: its offset in the header of the field.
fn checksum(field: PacketField) -> Checksum {
    match field {
        // Those of TCP and UDP count the addresses, too.
        PacketField::IpSource | PacketField::IpDestination => Checksum::WithTransport(10),
        // That of the quoted header, behind the eight bytes of ICMP. The sum over both stays.
        PacketField::QuotedSource | PacketField::QuotedDestination => Checksum::At(8 + 10),
        _ => Checksum::None,
    }
}

/// Loads fields into consecutive registers.
fn load_all(writer: &mut Writer, fields: &[PacketField]) {
    let mut register = REG32_FIRST;
    for field in fields {
        register += load(writer, *field, register).div_ceil(4);
    }
}

/// Loads a field and returns its length in bytes.
fn load(writer: &mut Writer, field: PacketField, register: u32) -> u32 {
    match load_of(field) {
        Load::Meta(key, length) => {
            expression::meta(writer, key, register);
            length
        }
        Load::Payload { base, offset, length } => {
            expression::payload(writer, base, offset, length, register);
            length
        }
        Load::Beginner(key, length) => {
            expression::beginner(writer, key, register);
            length
        }
    }
}

/// A number in the byte order of its field: network order for fields of the packet, host order for
/// others.
fn number_of(field: PacketField, number: u64) -> Vec<u8> {
    match load_of(field) {
        Load::Meta(_, 1) => vec![number as u8],
        Load::Meta(_, 2) => (number as u16).to_ne_bytes().to_vec(),
        Load::Meta(..) => (number as u32).to_ne_bytes().to_vec(),
        Load::Payload { length, .. } | Load::Beginner(_, length) => {
            number.to_be_bytes()[8 - length as usize..].to_vec()
        }
    }
}

/// Offsets are those of `struct ethhdr`, `struct iphdr`, and an ARP packet for Ethernet and IPv4
/// (RFC 826).
fn load_of(field: PacketField) -> Load {
    let payload = |base, offset, length| Load::Payload { base, offset, length };
    match field {
        PacketField::InLink => Load::Meta(Meta::InName, LINK_BYTES as u32),
        PacketField::InType => Load::Meta(Meta::InType, 2),
        PacketField::OutLink => Load::Meta(Meta::OutName, LINK_BYTES as u32),
        PacketField::Priority => Load::Meta(Meta::Priority, 4),
        PacketField::Protocol => Load::Meta(Meta::Protocol, 1),
        PacketField::Beginner => Load::Beginner(Beginner::Ip, 4),
        PacketField::Beginner6 => Load::Beginner(Beginner::Ip6, 16),
        PacketField::EtherDestination => payload(Base::Link, 0, 6),
        PacketField::EtherSource => payload(Base::Link, 6, 6),
        PacketField::EtherType => payload(Base::Link, 12, 2),
        PacketField::IpFragment => payload(Base::Network, 6, 2),
        PacketField::IpSource => payload(Base::Network, 12, 4),
        PacketField::IpDestination => payload(Base::Network, 16, 4),
        PacketField::Ip6Source => payload(Base::Network, 8, 16),
        PacketField::Ip6Destination => payload(Base::Network, 24, 16),
        PacketField::ArpHardware => payload(Base::Network, 0, 2),
        PacketField::ArpProtocol => payload(Base::Network, 2, 2),
        PacketField::ArpHardwareLength => payload(Base::Network, 4, 1),
        PacketField::ArpProtocolLength => payload(Base::Network, 5, 1),
        PacketField::ArpSenderEther => payload(Base::Network, 8, 6),
        PacketField::ArpSenderIp => payload(Base::Network, 14, 4),
        PacketField::ArpTargetEther => payload(Base::Network, 18, 6),
        PacketField::ArpTargetIp => payload(Base::Network, 24, 4),
        PacketField::SourcePort => payload(Base::Transport, 0, 2),
        PacketField::DestinationPort => payload(Base::Transport, 2, 2),
        PacketField::IcmpType | PacketField::Icmp6Type | PacketField::IgmpType => {
            payload(Base::Transport, 0, 1)
        }
        // Behind the header of ICMP (RFC 792).
        PacketField::QuotedSource => payload(Base::Transport, 8 + 12, 4),
        PacketField::QuotedDestination => payload(Base::Transport, 8 + 16, 4),
        PacketField::Bytes(Bytes { layer, offset, length }) => {
            payload(base(layer), offset.into(), length.into())
        }
    }
}

fn base(layer: Layer) -> Base {
    match layer {
        Layer::Link => Base::Link,
        Layer::Network => Base::Network,
        Layer::Transport => Base::Transport,
    }
}

fn filled(set: &Set) -> Filled {
    match set.kind {
        SetKind::Values => Filled::Values,
        SetKind::Prefixes => Filled::Intervals,
        SetKind::Counting => Filled::Counting,
        SetKind::Limiting => limited(set.key).map_or(Filled::Values, Filled::Limiting),
        SetKind::Learned { timeout_s } => {
            Filled::ByPackets { timeout_ms: 1000 * u64::from(timeout_s) }
        }
    }
}

/// The unit of the rates in a set that limits.
pub fn limited(key: &[Field]) -> Option<limit::Unit> {
    match key.last() {
        Some(Field::Rate(counted)) => Some(unit(*counted)),
        Some(_) | None => None,
    }
}

// nft's numbers for types (nftables, `enum datatypes`).
const TYPE_INTEGER: u32 = 4;
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_ETHERADDR: u32 = 9;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_IFNAME: u32 = 41;

/// nft's number for the type of a key. The kernel stores it and does not read it.
///
/// Bytes have the type of a value of their length. nft writes "integer" for them, which has no
/// length, and takes their expressions from the user data. Before 1.0, nft does not know these
/// expressions, and an integer in a key ends it with a failed assertion.
pub fn key_type(key: &[Field]) -> u32 {
    of_types(key, |bytes| match bytes.length {
        1 => TYPE_INET_PROTOCOL,
        2 => TYPE_INET_SERVICE,
        4 => TYPE_IPADDR,
        6 => TYPE_ETHERADDR,
        _ => TYPE_INTEGER,
    })
}

/// The same, as nft writes it.
fn key_type_of_nft(key: &[Field]) -> u32 {
    of_types(key, |_| TYPE_INTEGER)
}

/// Whether a set with this type of key can be one of ours, made by us or by nft from our text.
pub fn is_key_type(key: &[Field], number: u32) -> bool {
    number == key_type(key) || number == key_type_of_nft(key)
}

fn of_types(key: &[Field], of_bytes: impl Fn(&Bytes) -> u32) -> u32 {
    let number = |field: &Field| match field {
        Field::Ipv4 => Some(TYPE_IPADDR),
        Field::Ipv6 => Some(TYPE_IP6ADDR),
        Field::Ether => Some(TYPE_ETHERADDR),
        Field::Link => Some(TYPE_IFNAME),
        Field::Protocol => Some(TYPE_INET_PROTOCOL),
        Field::Port => Some(TYPE_INET_SERVICE),
        Field::Bytes(bytes) => Some(of_bytes(bytes)),
        // It is not in the key.
        Field::Target
        | Field::Target6
        | Field::TargetEther
        | Field::TargetIpv4
        | Field::TargetBytes(_)
        | Field::Rate(_) => None,
    };
    key.iter().filter_map(number).fold(0, |all, number| all << TYPE_BITS | number)
}

/// The type of the value of a map; `None` if the field is in the key.
pub fn target(field: Field) -> Option<u32> {
    match field {
        Field::Target => Some(TYPE_IPADDR << TYPE_BITS | TYPE_INET_SERVICE),
        Field::Target6 => Some(TYPE_IP6ADDR << TYPE_BITS | TYPE_INET_SERVICE),
        Field::TargetEther => Some(TYPE_ETHERADDR),
        Field::TargetIpv4 => Some(TYPE_IPADDR),
        Field::TargetBytes(_) => Some(TYPE_INTEGER),
        _ => None,
    }
}

/// Bytes of a field in a key, padded to four. The value of a map is not padded, unless it has two
/// fields.
pub fn field_bytes(field: Field) -> usize {
    match field {
        Field::Link => LINK_BYTES,
        Field::Ether => 8,
        Field::TargetEther => 6,
        Field::TargetIpv4 => 4,
        Field::Ipv4 | Field::Protocol | Field::Port => 4,
        Field::Ipv6 => 16,
        Field::Target | Field::Rate(_) => 8,
        Field::Target6 => 20,
        Field::Bytes(bytes) => usize::from(bytes.length).next_multiple_of(4),
        Field::TargetBytes(bytes) => bytes.length.into(),
    }
}

pub fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

/// `NF_INET_*` (linux/netfilter.h) and `NF_BR_*` (linux/netfilter_bridge.h).
pub fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}
