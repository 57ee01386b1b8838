//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::{accept, decode, encode};
use crate::netlink::fuzz::of_nf_tables;
use crate::netlink::message::Messages;
use crate::netlink::nft::element;
use crate::netlink::nft::object::{ChainMessage, RuleMessage};
use crate::netlink::writer::{Sequence, Writer};
use crate::plan::ruleset::{self, Element, Family, Field, Key, TABLE};

/// An observed element: its key and its flags.
type Raw = (Vec<u8>, u32);

/// Elements that others put into our tables are decoded or count as foreign. A decoded element can
/// be encoded again: this is how it is removed.
pub fn ruleset(bytes: &[u8]) {
    let mut raw = Vec::new();
    of_nf_tables(bytes, |message| {
        let _ = ChainMessage::read(message.payload).map(|chain| decode::shape(&chain));
        if let Ok(Ok(Some(rule))) =
            RuleMessage::read(message.payload).map(|rule| accept::read(&rule))
        {
            accept::write(&mut Writer::new(), 1, &rule);
        }
        raw.push(message.payload.to_vec());
    });
    let elements = |fields: &[Field]| -> Vec<Raw> {
        raw.iter().flat_map(|payload| elements(payload, fields)).collect()
    };
    for fields in ruleset::keys() {
        for (bytes, _) in elements(fields) {
            let read = decode::read_key(&bytes, fields);
            let same = |key| written(&[key], fields) == [(bytes.clone(), 0)];
            assert!(read.is_none_or(same), "{bytes:?}");
        }
    }
    for field in [Field::Ipv4, Field::Ipv6] {
        let raw = elements(&[field]);
        if let Some(keys) = decode::prefixes(field, &raw) {
            assert_eq!(decode::prefixes(field, &written(&keys, &[field])), Some(keys));
        }
    }
}

fn elements(payload: &[u8], fields: &[Field]) -> Vec<Raw> {
    let mut elements = Vec::new();
    let _ = element::read(payload, |key, with, flags| {
        elements.push((decode::raw(key, with, fields), flags));
        Ok(())
    });
    elements
}

/// The encoded keys.
fn written(keys: &[Key], fields: &[Field]) -> Vec<Raw> {
    let of = |key: &Key| Element {
        family: Family::Ip,
        table: TABLE,
        set: "set".into(),
        key: key.clone(),
    };
    let keys: Vec<Element> = keys.iter().map(of).collect();
    let mut writer = Writer::new();
    encode::elements(&mut writer, &mut Sequence::default(), &keys, &[element::add]);
    let messages = Messages::new(writer.finish().expect("all of it fits"));
    messages
        .flat_map(|message| elements(message.expect("it was written").payload, fields))
        .collect()
}
