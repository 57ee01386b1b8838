//! Decodes sets, chains and elements to values of the ruleset.
//!
//! What cannot be ours (a chain that is not a base chain, a key of another type) is `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::encode;
use crate::model::limits::Rate;
use crate::model::mac::Mac;
use crate::model::prefix::Prefix;
use crate::netlink::nft::element::{INTERVAL_END, With};
use crate::netlink::nft::object::{ChainMessage, Filled, SetMessage};
use crate::plan::ruleset::{self, ChainKind, ChainShape, Family, Field, Hook, Key, SetKind, Value};

const KINDS: [ChainKind; 2] = [ChainKind::Filter, ChainKind::Nat];
const HOOKS: [Hook; 5] =
    [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

/// An observed set.
pub struct SeenSet {
    /// Its name.
    pub name: String,
    /// The fields of its keys, if it is a set of ours.
    pub key: Option<&'static [Field]>,
    /// How it is filled.
    pub kind: SetKind,
}

impl SeenSet {
    /// A set of our table of this family.
    pub fn of(family: Family, set: &SetMessage<'_>) -> SeenSet {
        let of_type = |key: &&'static [Field]| {
            let limits = match set.filled {
                Filled::Limiting(unit) => Some(unit),
                _ => None,
            };
            encode::is_key_type(key, set.key_type)
                && set.data_type == key.last().and_then(|last| encode::target(*last))
                && encode::limited(key) == limits
        };
        let name = String::from_utf8_lossy(set.name).into_owned();
        let key = ruleset::key(family, &name).filter(of_type);
        let kind = match set.filled {
            Filled::Values => SetKind::Values,
            Filled::Intervals => SetKind::Prefixes,
            Filled::Counting => SetKind::Counting,
            Filled::Limiting(_) => SetKind::Limiting,
            Filled::ByPackets { timeout_ms } => {
                SetKind::Learned { timeout_s: (timeout_ms / 1000) as u32 }
            }
        };
        SeenSet { name, key, kind }
    }

    /// Its elements, of their bytes and flags; `None` if one cannot be ours.
    pub fn keys(&self, fields: &[Field], elements: &[(Vec<u8>, u32)]) -> Option<Vec<Key>> {
        match self.kind {
            SetKind::Prefixes => prefixes(*fields.first()?, elements),
            SetKind::Values | SetKind::Counting | SetKind::Limiting | SetKind::Learned { .. } => {
                elements.iter().map(|(key, _)| read_key(key, fields)).collect()
            }
        }
    }
}

/// A base chain without its rules; `None` if it cannot be ours.
pub fn shape(chain: &ChainMessage<'_>) -> Option<ChainShape> {
    let (kind, hook, priority) = chain.base.filter(|_| chain.accepts)?;
    Some(ChainShape {
        name: String::from_utf8_lossy(chain.name).into_owned(),
        kind: KINDS.into_iter().find(|known| encode::kind_name(*known).as_bytes() == kind)?,
        hook: HOOKS.into_iter().find(|known| encode::hook_number(*known) == hook)?,
        priority,
        rules: Vec::new(),
    })
}

/// A key, followed by its value or rate, if the set has such a field. Otherwise they are the
/// kernel's: an element that packets added has the rate of its rule.
pub fn raw(key: &[u8], with: With<'_>, fields: &[Field]) -> Vec<u8> {
    match (with, fields.last()) {
        (With::Data(data), Some(last)) if last.is_target() => [key, data].concat(),
        (With::Limit(limit), Some(Field::Rate(_))) => {
            [key, &limit.per_second.to_be_bytes(), &limit.burst.to_be_bytes()].concat()
        }
        (With::Nothing | With::Data(_) | With::Limit(_), _) => key.to_vec(),
    }
}

/// Decodes a key. `None` if volnet could not have written it: it could not be removed again.
pub fn read_key(mut bytes: &[u8], fields: &[Field]) -> Option<Key> {
    let mut key = Vec::with_capacity(fields.len());
    for field in fields {
        let (value, rest) = bytes.split_at_checked(encode::field_bytes(*field))?;
        key.push(match field {
            Field::Link => {
                let (name, end) = value.split_at(value.iter().position(|&byte| byte == 0)?);
                Value::Link(std::str::from_utf8(name).ok().filter(|_| is_padding(end))?.into())
            }
            Field::Ether => {
                Value::Ether(Mac(*value.first_chunk().filter(|_| is_padding(&value[6..]))?))
            }
            Field::Ipv4 => Value::Address(IpAddr::from(*value.first_chunk::<4>()?)),
            Field::Ipv6 => Value::Address(IpAddr::from(*value.first_chunk::<16>()?)),
            Field::Protocol => Value::Protocol(*value.first().filter(|_| is_padding(&value[1..]))?),
            Field::Port => Value::Port(port(value)?),
            Field::Target => {
                Value::Target(IpAddr::from(*value.first_chunk::<4>()?), port(&value[4..])?)
            }
            Field::Target6 => {
                Value::Target(IpAddr::from(*value.first_chunk::<16>()?), port(&value[16..])?)
            }
            Field::Rate(unit) => {
                let word = |at| value.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
                Value::Rate(*unit, Rate { per_second: word(0)?, burst: word(4)? })
            }
            Field::TargetEther => Value::TargetEther(Mac(*value.first_chunk()?)),
            Field::TargetIpv4 => Value::TargetIpv4((*value.first_chunk::<4>()?).into()),
            Field::TargetBytes(_) => Value::TargetBytes(value.to_vec()),
            Field::Bytes(bytes) => {
                let (bytes, end) = value.split_at(bytes.length.into());
                Value::Bytes(is_padding(end).then(|| bytes.to_vec())?)
            }
        });
        bytes = rest;
    }
    bytes.is_empty().then_some(key)
}

/// A port, padded to four bytes.
fn port(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().filter(|_| is_padding(&bytes[2..])).map(|port| u16::from_be_bytes(*port))
}

fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Joins the ends of intervals of addresses. `None` if one is not a prefix.
pub fn prefixes(field: Field, elements: &[(Vec<u8>, u32)]) -> Option<Vec<Key>> {
    let mut ends = Vec::with_capacity(elements.len());
    for (key, flags) in elements {
        let at = match field {
            Field::Ipv6 => u128::from_be_bytes(*key.first_chunk()?),
            _ => u32::from_be_bytes(*key.first_chunk()?).into(),
        };
        // If one interval ends where the next begins, the end comes first.
        ends.push((at, flags & INTERVAL_END == 0));
    }
    ends.sort_unstable();
    let mut keys = Vec::new();
    let mut open = None;
    for (at, begins) in ends {
        match (open, begins) {
            (None, true) => open = Some(at),
            // nft marks the lowest address as an end, to close the interval before it.
            (None, false) => {}
            (Some(_), true) => return None,
            (Some(start), false) => {
                keys.push(vec![Value::Prefix(prefix(field, start, at - 1)?)]);
                open = None;
            }
        }
    }
    if let Some(start) = open {
        let last = if field == Field::Ipv6 { u128::MAX } else { u32::MAX.into() };
        keys.push(vec![Value::Prefix(prefix(field, start, last)?)]);
    }
    Some(keys)
}

fn prefix(field: Field, first: u128, last: u128) -> Option<Prefix<IpAddr>> {
    let address = |at: u128| match field {
        Field::Ipv6 => Some(IpAddr::V6(Ipv6Addr::from_bits(at))),
        _ => Some(IpAddr::V4(Ipv4Addr::from_bits(at.try_into().ok()?))),
    };
    let bits = if field == Field::Ipv6 { Ipv6Addr::BITS } else { Ipv4Addr::BITS };
    let length = bits - (u128::BITS - (first ^ last).leading_zeros());
    let prefix = Prefix::containing(address(first)?, length as u8)?;
    (prefix.network() == address(first)? && prefix.last() == address(last)?).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_become_prefixes() {
        let end = |text: &str, flags| match text.parse().unwrap() {
            IpAddr::V4(address) => (address.octets().to_vec(), flags),
            IpAddr::V6(address) => (address.octets().to_vec(), flags),
        };
        let text = |field, elements: &[(Vec<u8>, u32)]| -> Vec<String> {
            let prefix = |key: &Key| match key.as_slice() {
                [Value::Prefix(prefix)] => prefix.to_string(),
                other => panic!("{other:?}"),
            };
            prefixes(field, elements).unwrap().iter().map(prefix).collect()
        };
        let elements = [
            end("10.0.1.0", 0),
            end("10.0.2.0", INTERVAL_END),
            end("10.0.1.0", INTERVAL_END),
            end("10.0.0.0", 0),
            end("0.0.0.0", INTERVAL_END),
            end("255.255.255.0", 0),
        ];
        assert_eq!(
            text(Field::Ipv4, &elements),
            ["10.0.0.0/24", "10.0.1.0/24", "255.255.255.0/24"]
        );
        let elements = [
            end("fd00:1::", 0),
            end("fd00:1:0:1::", INTERVAL_END),
            end("::", INTERVAL_END),
            end("ff00::", 0),
        ];
        assert_eq!(text(Field::Ipv6, &elements), ["fd00:1::/64", "ff00::/8"]);
        let odd = [end("10.0.0.1", 0), end("10.0.0.9", INTERVAL_END)];
        assert_eq!(prefixes(Field::Ipv4, &odd), None);
    }
}
