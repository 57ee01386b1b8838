//! The user data of a set, by which nft prints its keys.
//!
//! The kernel stores it and does not read it. It consists of nested values: a type, a byte of
//! length, and the bytes (libnftnl, udata.h; nftables, `set_make_key` and the `*_build_udata` of
//! its expressions). Numbers are words of the host.

use crate::plan::ruleset::{Bytes, Field, Layer};

/// `NFTNL_UDATA_SET_KEYBYTEORDER`.
const BYTE_ORDER: u8 = 0;
/// `BYTEORDER_HOST_ENDIAN`, for link names.
const HOST_ORDER: u32 = 1;
/// `BYTEORDER_BIG_ENDIAN`, for all else.
const NETWORK_ORDER: u32 = 2;
/// `NFTNL_UDATA_SET_KEY_TYPEOF`: the key has the types of these expressions.
const TYPE_OF: u8 = 3;
/// The same of the values of a map: `NFTNL_UDATA_SET_DATABYTEORDER` and `.._DATA_TYPEOF`.
const DATA_BYTE_ORDER: u8 = 1;
const DATA_TYPE_OF: u8 = 4;
/// `NFTNL_UDATA_SET_TYPEOF_EXPR`, the expression, and `.._DATA`, its data.
const EXPRESSION: u8 = 0;
const DATA: u8 = 1;
/// `EXPR_PAYLOAD`, `EXPR_META` and `EXPR_CONCAT` (nftables, expression.h).
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CONCATENATION: u32 = 13;
/// `NFT_META_IIFNAME`.
const IN_NAME: u32 = 6;

/// The user data of a set with this key.
pub fn key(key: &[Field]) -> Vec<u8> {
    let alone = matches!(key, [Field::Link] | [Field::Link, Field::Rate(_)]);
    let order = if alone { HOST_ORDER } else { NETWORK_ORDER };
    let mut said = word(BYTE_ORDER, order);
    if let [.., Field::TargetBytes(_)] = key {
        said.extend(word(DATA_BYTE_ORDER, NETWORK_ORDER));
    }
    // The length of a named type follows from its name.
    let named = !key.iter().any(|field| matches!(field, Field::Bytes(_)));
    let fields = key.iter().filter(|field| !field.is_target());
    let fields: Option<Vec<Vec<u8>>> = fields.map(|field| of_field(*field)).collect();
    if let (Some(fields), false) = (fields, named) {
        let fields = (0..).zip(&fields).flat_map(|(number, field)| value(number, field));
        let fields: Vec<u8> = fields.collect();
        let parts = [word(EXPRESSION, CONCATENATION), value(DATA, &fields)].concat();
        said.extend(value(TYPE_OF, &parts));
    }
    if let [.., Field::TargetBytes(bytes)] = key {
        let parts = [word(EXPRESSION, PAYLOAD), value(DATA, &of_bytes(*bytes))].concat();
        said.extend(value(DATA_TYPE_OF, &parts));
    }
    said
}

/// The expression with the type of a field. `None` for fields that no set of ours has beside bytes:
/// nft prints such a set without it.
fn of_field(field: Field) -> Option<Vec<u8>> {
    let (kind, data) = match field {
        Field::Link => (META, word(0, IN_NAME)),
        Field::Bytes(bytes) => (PAYLOAD, of_bytes(bytes)),
        Field::Ether
        | Field::Ipv4
        | Field::Ipv6
        | Field::Protocol
        | Field::Port
        | Field::Target
        | Field::Target6
        | Field::TargetEther
        | Field::TargetIpv4
        | Field::TargetBytes(_)
        | Field::Rate(_) => return None,
    };
    Some([word(EXPRESSION, kind), value(DATA, &data)].concat())
}

/// Header and field by nft's numbers (these have none), then base, offset and length in bits.
fn of_bytes(Bytes { layer, offset, length }: Bytes) -> Vec<u8> {
    let base = match layer {
        Layer::Link => 1,
        Layer::Network => 2,
        Layer::Transport => 3,
    };
    let bits = |bytes: u8| 8 * u32::from(bytes);
    let words = [0, 0, base, bits(offset), bits(length)];
    (0..).zip(words).flat_map(|(kind, number)| word(kind, number)).collect()
}

fn word(kind: u8, number: u32) -> Vec<u8> {
    value(kind, &number.to_ne_bytes())
}

fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind, bytes.len() as u8], bytes].concat()
}
