//! The rules in the syntax of nft(8).
//!
//! The text has everything except the ownership of a table: a table that nft owned would end with
//! the nft process. It uses only syntax of nftables 1.0.6, which has no `destroy`: to remove an
//! object that may be absent, it is added and deleted in the same batch.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::net::Ipv4Addr;

use super::{
    Bytes, Chain, ChainKind, Element, Family, Field, Hook, Key, LEARNED_MAX, Layer, Match,
    PacketField, Rule, Set, SetKind, Table, Unit, Value, Verdict,
};
use crate::model::limits::Rate;
use crate::model::mac::Mac;

/// Makes a table.
pub fn create_table(table: &Table) -> String {
    let (family, name) = (family(table.family), table.name);
    let mut text = format!("create table {family} {name}\ntable {family} {name} {{\n");
    for set in &table.sets {
        write_set(&mut text, set);
    }
    for chain in &table.chains {
        write_chain(&mut text, chain);
    }
    text.push('}');
    text
}

/// Replaces a table.
pub fn replace_table(table: &Table) -> String {
    format!("{}\n{}", remove_table(table.family, table.name), create_table(table))
}

/// Removes a table.
pub fn remove_table(of: Family, name: &str) -> String {
    let family = family(of);
    format!("add table {family} {name}\ndelete table {family} {name}")
}

/// Adds elements to their sets.
pub fn add_elements(elements: &[Element]) -> String {
    lines(elements, &["add"])
}

/// Removes elements from their sets.
pub fn remove_elements(elements: &[Element]) -> String {
    lines(elements, &["add", "delete"])
}

fn lines(elements: &[Element], verbs: &[&str]) -> String {
    let mut lines = String::new();
    for Element { family: of, table, set, key } in elements {
        for verb in verbs {
            if !lines.is_empty() {
                lines.push('\n');
            }
            for word in [verb, " element ", family(*of), " ", table, " ", set, " { "] {
                lines.push_str(word);
            }
            write_key(&mut lines, key);
            lines.push_str(" }");
        }
    }
    lines
}

fn write_set(text: &mut String, set: &Set) {
    let bytes = set.key.iter().any(|field| matches!(field, Field::Bytes(_)));
    let (word, name): (_, fn(Field) -> Option<String>) =
        if bytes { ("typeof", field_source) } else { ("type", field_type) };
    let fields: Vec<String> = set.key.iter().filter_map(|field| name(*field)).collect();
    let (what, types) = match fields.split_last() {
        Some((to, key)) if set.is_map() => ("map", format!("{} : {to}", key.join(" . "))),
        Some(_) | None => ("set", fields.join(" . ")),
    };
    let _ = write!(text, "\t{what} {} {{\n\t\t{word} {types}\n", set.name);
    match set.kind {
        SetKind::Values => {}
        SetKind::Prefixes => text.push_str("\t\tflags interval\n"),
        SetKind::Counting => text.push_str("\t\tcounter\n"),
        SetKind::Limiting => {
            // What an element has that says nothing.
            let rate = Rate { per_second: u32::MAX, burst: 1 };
            for field in set.key {
                if let Field::Rate(unit) = field {
                    let _ = writeln!(text, "\t\t{}", rate_text(*unit, rate));
                }
            }
        }
        SetKind::Learned { timeout_s } => {
            let _ = writeln!(text, "\t\tsize {LEARNED_MAX}\n\t\tflags dynamic,timeout");
            let _ = writeln!(text, "\t\ttimeout {timeout_s}s");
        }
    }
    if !set.elements.is_empty() {
        let keys: Vec<String> = set.elements.iter().map(key_text).collect();
        let _ = writeln!(text, "\t\telements = {{ {} }}", keys.join(", "));
    }
    text.push_str("\t}\n");
}

fn write_chain(text: &mut String, chain: &Chain) {
    let kind = match chain.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let hook = match chain.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    let (name, priority) = (chain.name, chain.priority);
    let _ = write!(
        text,
        "\tchain {name} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept\n"
    );
    for rule in &chain.rules {
        let _ = writeln!(text, "\t\t{}", self::rule(rule));
    }
    text.push_str("\t}\n");
}

/// A rule.
pub(super) fn rule(rule: &Rule) -> String {
    // Each look at the kernel writes all rules, for their tags: nothing else is allocated.
    let mut text = String::with_capacity(160);
    for condition in &rule.matches {
        write_match(&mut text, condition);
        text.push(' ');
    }
    write_verdict(&mut text, &rule.verdict);
    text
}

fn write_verdict(text: &mut String, verdict: &Verdict) {
    // A String takes all that is written to it.
    let _ = match *verdict {
        Verdict::Accept => text.write_str("accept"),
        Verdict::Drop => text.write_str("drop"),
        Verdict::Masquerade => text.write_str("masquerade"),
        Verdict::Trace => text.write_str("meta nftrace set 1"),
        Verdict::SetPriority(value) => write!(text, "meta priority set {}", Handle(value.into())),
        Verdict::Admit(value) => write!(text, "meta priority set {} accept", Handle(value.into())),
        Verdict::Translate { family: of, fields, map } => {
            write!(text, "dnat {} to {} map @{map}", family(of), Fields(fields))
        }
        Verdict::Rewrite { link, field, map } => write_rewrite(text, link, field, map),
        Verdict::Deliver { map } => {
            write_rewrite(text, PacketField::InLink, PacketField::EtherDestination, map)
                .and_then(|()| text.write_str(" meta pkttype set host"))
        }
    };
}

fn write_rewrite(
    text: &mut String,
    link: PacketField,
    field: PacketField,
    map: &str,
) -> fmt::Result {
    write!(text, "{} set {} map @{map}", packet_field(field), Fields(&[link, field]))
}

fn write_match(text: &mut String, condition: &Match) {
    let _ = match condition {
        Match::InSet { fields, set, negated } => {
            write!(text, "{} {}@{set}", Fields(fields), if *negated { "!= " } else { "" })
        }
        Match::Is { field, mask, value, negated } => {
            text.push_str(&packet_field(*field));
            if let Some(mask) = mask {
                let _ = write!(text, " & {}", Literal(*field, *mask));
            }
            let how = if *negated { "!=" } else { "==" };
            write!(text, " {how} {}", Literal(*field, *value))
        }
        Match::Within { field, prefix } => {
            let (name, mask) = (packet_field(*field), prefix.mask());
            write!(text, "{name} & {mask} == {}", prefix.network())
        }
        Match::Put { fields, set } => write!(text, "update @{set} {{ {} }}", Fields(fields)),
        Match::Faster { fields, set, rate } => {
            let rate = rate_text(Unit::Packets, *rate);
            write!(text, "update @{set} {{ {} {rate} }}", Fields(fields))
        }
        Match::Established => text.write_str("ct state established,related"),
        Match::Translated => text.write_str("ct status dnat"),
        Match::Answer => text.write_str("ct direction reply"),
        Match::Local => text.write_str("fib daddr type local"),
    };
}

/// A match for packets over a rate.
fn rate_text(unit: Unit, Rate { per_second, burst }: Rate) -> String {
    match unit {
        Unit::Packets => format!("limit rate over {per_second}/second burst {burst} packets"),
        Unit::Bytes => format!("limit rate over {per_second} bytes/second burst {burst} bytes"),
    }
}

/// The fields of a key, concatenated.
struct Fields<'a>(&'a [PacketField]);

impl Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " . " })?;
            f.write_str(&packet_field(*field))?;
        }
        Ok(())
    }
}

fn packet_field(field: PacketField) -> Cow<'static, str> {
    Cow::Borrowed(match field {
        PacketField::InLink => "iifname",
        PacketField::InType => "meta iiftype",
        PacketField::OutLink => "oifname",
        PacketField::Priority => "meta priority",
        PacketField::Protocol => "meta l4proto",
        PacketField::EtherType => "ether type",
        PacketField::EtherDestination => "ether daddr",
        PacketField::Beginner => "ct original ip saddr",
        PacketField::Beginner6 => "ct original ip6 saddr",
        PacketField::IpFragment => "ip frag-off",
        PacketField::EtherSource => "ether saddr",
        PacketField::IpSource => "ip saddr",
        PacketField::IpDestination => "ip daddr",
        PacketField::Ip6Source => "ip6 saddr",
        PacketField::Ip6Destination => "ip6 daddr",
        PacketField::ArpHardware => "arp htype",
        PacketField::ArpProtocol => "arp ptype",
        PacketField::ArpHardwareLength => "arp hlen",
        PacketField::ArpProtocolLength => "arp plen",
        PacketField::ArpSenderIp => "arp saddr ip",
        PacketField::ArpSenderEther => "arp saddr ether",
        PacketField::ArpTargetIp => "arp daddr ip",
        PacketField::ArpTargetEther => "arp daddr ether",
        PacketField::SourcePort => "th sport",
        PacketField::DestinationPort => "th dport",
        PacketField::IcmpType => "icmp type",
        PacketField::Icmp6Type => "icmpv6 type",
        PacketField::IgmpType => "igmp type",
        PacketField::QuotedSource => "@th,160,32",
        PacketField::QuotedDestination => "@th,192,32",
        PacketField::Bytes(bytes) => return Cow::Owned(bytes_text(bytes)),
    })
}

/// Bytes in the syntax of nft, by bits.
fn bytes_text(Bytes { layer, offset, length }: Bytes) -> String {
    let layer = match layer {
        Layer::Link => "ll",
        Layer::Network => "nh",
        Layer::Transport => "th",
    };
    format!("@{layer},{},{}", 8 * u32::from(offset), 8 * u32::from(length))
}

/// A value in the syntax of nft for its field.
struct Literal(PacketField, u64);

impl Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Literal(field, value) = *self;
        match field {
            PacketField::IpSource
            | PacketField::IpDestination
            | PacketField::ArpSenderIp
            | PacketField::ArpTargetIp => write!(f, "{}", Ipv4Addr::from_bits(value as u32)),
            PacketField::EtherType | PacketField::ArpProtocol => write!(f, "{value:#06x}"),
            PacketField::EtherDestination
            | PacketField::EtherSource
            | PacketField::ArpSenderEther
            | PacketField::ArpTargetEther => {
                let [_, _, mac @ ..] = value.to_be_bytes();
                write!(f, "{}", Mac(mac))
            }
            PacketField::Priority => write!(f, "{}", Handle(value)),
            PacketField::InType
            | PacketField::Protocol
            | PacketField::IpFragment
            | PacketField::ArpHardware
            | PacketField::ArpHardwareLength
            | PacketField::ArpProtocolLength
            | PacketField::SourcePort
            | PacketField::DestinationPort
            | PacketField::IcmpType
            | PacketField::Icmp6Type
            | PacketField::IgmpType => write!(f, "{value}"),
            PacketField::InLink
            | PacketField::OutLink
            | PacketField::Beginner
            | PacketField::Beginner6
            | PacketField::Ip6Source
            | PacketField::Ip6Destination
            | PacketField::QuotedSource
            | PacketField::QuotedDestination
            | PacketField::Bytes(_) => write!(f, "{value:#x}"),
        }
    }
}

/// A priority, which nft writes as the handle of a traffic class (tc(8)).
struct Handle(u64);

impl Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.0 >> 16, self.0 & 0xffff)
    }
}

/// The type of a field; `None` if it is not in the key.
fn field_type(field: Field) -> Option<String> {
    Some(match field {
        Field::Link => "ifname".into(),
        Field::Ether => "ether_addr".into(),
        Field::Ipv4 => "ipv4_addr".into(),
        Field::Ipv6 => "ipv6_addr".into(),
        Field::Protocol => "inet_proto".into(),
        Field::Port => "inet_service".into(),
        Field::Target => "ipv4_addr . inet_service".into(),
        Field::Target6 => "ipv6_addr . inet_service".into(),
        Field::TargetEther => "ether_addr".into(),
        Field::TargetIpv4 => "ipv4_addr".into(),
        Field::Rate(_) => return None,
        Field::Bytes(bytes) | Field::TargetBytes(bytes) => bytes_text(bytes),
    })
}

/// A field of a key, by an expression of its type.
fn field_source(field: Field) -> Option<String> {
    match field {
        Field::Link => Some(packet_field(PacketField::InLink).into()),
        _ => field_type(field),
    }
}

fn key_text(key: &Key) -> String {
    let mut text = String::new();
    write_key(&mut text, key);
    text
}

fn write_key(text: &mut String, key: &Key) {
    for (at, value) in key.iter().enumerate() {
        text.push_str(match value {
            _ if at == 0 => "",
            Value::Target(..)
            | Value::TargetEther(_)
            | Value::TargetIpv4(_)
            | Value::TargetBytes(_) => " : ",
            Value::Rate(..) => " ",
            _ => " . ",
        });
        // A String takes all that is written to it.
        let _ = match value {
            Value::Link(name) => write!(text, "\"{name}\""),
            Value::Ether(mac) | Value::TargetEther(mac) => write!(text, "{mac}"),
            Value::Address(address) => write!(text, "{address}"),
            Value::TargetIpv4(address) => write!(text, "{address}"),
            Value::Prefix(prefix) => write!(text, "{prefix}"),
            Value::Protocol(protocol) => write!(text, "{protocol}"),
            Value::Port(port) => write!(text, "{port}"),
            Value::Target(address, port) => write!(text, "{address} . {port}"),
            Value::Rate(unit, rate) => text.write_str(&rate_text(*unit, *rate)),
            Value::Bytes(bytes) | Value::TargetBytes(bytes) => {
                text.push_str("0x");
                bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
            }
        };
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
        Family::Bridge => "bridge",
    }
}
