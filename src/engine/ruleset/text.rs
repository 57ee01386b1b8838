//! The rules as nft(8) reads them.
//!
//! The text holds everything but the ownership of a table: a table that nft owned would end with
//! the nft that made it. It keeps to what nftables 1.0.6 understands, which has no `destroy`:
//! adding a thing before it is deleted, in the same batch, removes it whether it was there or not.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::{
    Chain, ChainKind, Element, Family, Field, Hook, Key, Match, PacketField, Rule, Set, Table,
    Value, Verdict,
};
use crate::engine::mac::Mac;

/// A table that is not there yet.
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

/// A table in place of what is there.
pub fn replace_table(table: &Table) -> String {
    format!("{}\n{}", remove_table(table.family, table.name), create_table(table))
}

/// No table of that name.
pub fn remove_table(of: Family, name: &str) -> String {
    let family = family(of);
    format!("add table {family} {name}\ndelete table {family} {name}")
}

/// These elements in their sets.
pub fn add_elements(elements: &[Element]) -> String {
    lines(elements, &["add"])
}

/// These elements no longer in their sets.
pub fn remove_elements(elements: &[Element]) -> String {
    lines(elements, &["add", "delete"])
}

fn lines(elements: &[Element], verbs: &[&str]) -> String {
    let mut lines = Vec::new();
    for Element { family: of, table, set, key } in elements {
        for verb in verbs {
            let (family, key) = (family(*of), key_text(key));
            lines.push(format!("{verb} element {family} {table} {set} {{ {key} }}"));
        }
    }
    lines.join("\n")
}

fn write_set(text: &mut String, set: &Set) {
    let fields: Vec<&str> = set.key.iter().map(|field| field_type(*field)).collect();
    let _ = write!(text, "\tset {} {{\n\t\ttype {}\n", set.name, fields.join(" . "));
    if set.interval {
        text.push_str("\t\tflags interval\n");
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
        let _ = writeln!(text, "\t\t{}", rule_text(rule));
    }
    text.push_str("\t}\n");
}

fn rule_text(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(match_text).collect();
    words.push(
        match rule.verdict {
            Verdict::Accept => "accept",
            Verdict::Drop => "drop",
            Verdict::Masquerade => "masquerade",
        }
        .to_string(),
    );
    words.join(" ")
}

fn match_text(condition: &Match) -> String {
    match condition {
        Match::InSet { fields, set, negated } => {
            let fields: Vec<&str> = fields.iter().map(|field| packet_field(*field)).collect();
            format!("{} {}@{set}", fields.join(" . "), if *negated { "!= " } else { "" })
        }
        Match::Is { field, mask, value } => {
            let name = packet_field(*field);
            let value = value_text(*field, *value);
            match mask {
                Some(mask) => format!("{name} & {} == {value}", value_text(*field, *mask)),
                None => format!("{name} {value}"),
            }
        }
        Match::Established => "ct state established,related".to_string(),
    }
}

fn packet_field(field: PacketField) -> &'static str {
    match field {
        PacketField::InLink => "iifname",
        PacketField::OutLink => "oifname",
        PacketField::EtherType => "ether type",
        PacketField::EtherSource => "ether saddr",
        PacketField::IpSource => "ip saddr",
        PacketField::IpDestination => "ip daddr",
        PacketField::ArpSenderIp => "arp saddr ip",
        PacketField::ArpSenderEther => "arp saddr ether",
    }
}

/// A value that a field is compared with, as nft takes it for that field.
fn value_text(field: PacketField, value: u64) -> String {
    match field {
        PacketField::IpSource | PacketField::IpDestination | PacketField::ArpSenderIp => {
            Ipv4Addr::from_bits(value as u32).to_string()
        }
        PacketField::EtherType => format!("{value:#06x}"),
        PacketField::EtherSource | PacketField::ArpSenderEther => {
            let [_, _, mac @ ..] = value.to_be_bytes();
            Mac(mac).to_string()
        }
        PacketField::InLink | PacketField::OutLink => unreachable!("no value of 8 bytes"),
    }
}

fn field_type(field: Field) -> &'static str {
    match field {
        Field::Link => "ifname",
        Field::Ether => "ether_addr",
        Field::Ipv4 => "ipv4_addr",
    }
}

fn key_text(key: &Key) -> String {
    let values: Vec<String> = key
        .iter()
        .map(|value| match value {
            Value::Link(name) => format!("\"{name}\""),
            Value::Ether(mac) => mac.to_string(),
            Value::Ipv4(address) => address.to_string(),
            Value::Prefix(prefix) => prefix.to_string(),
        })
        .collect();
    values.join(" . ")
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Ip => "ip",
        Family::Bridge => "bridge",
    }
}
