//! What a set says of itself for nft to show its keys by.
//!
//! The kernel keeps it and does not look at it. It is values of a type, a byte of length and as many
//! bytes, one inside the other (libnftnl, udata.h; nftables, `set_make_key` and the `*_build_udata`
//! of its expressions). Numbers are the host's words.

use crate::plan::ruleset::{Bytes, Field, Layer};

/// `NFTNL_UDATA_SET_KEYBYTEORDER`.
const BYTE_ORDER: u8 = 0;
/// `BYTEORDER_HOST_ENDIAN`, for link names.
const HOST_ORDER: u32 = 1;
/// `BYTEORDER_BIG_ENDIAN`, for all else.
const NETWORK_ORDER: u32 = 2;
/// `NFTNL_UDATA_SET_KEY_TYPEOF`: the key is of the types that these expressions have.
const TYPE_OF: u8 = 3;
/// `NFTNL_UDATA_SET_TYPEOF_EXPR`, which expression, and `.._DATA`, what it holds.
const EXPRESSION: u8 = 0;
const DATA: u8 = 1;
/// `EXPR_PAYLOAD`, `EXPR_META` and `EXPR_CONCAT` (nftables, expression.h).
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CONCATENATION: u32 = 13;
/// `NFT_META_IIFNAME`.
const IN_NAME: u32 = 6;

/// What a set with this key says.
pub(super) fn key(key: &[Field]) -> Vec<u8> {
    let alone = matches!(key, [Field::Link] | [Field::Link, Field::Rate(_)]);
    let order = if alone { HOST_ORDER } else { NETWORK_ORDER };
    let mut said = word(BYTE_ORDER, order);
    // Types that have a name tell their own length.
    if key.iter().any(|field| matches!(field, Field::Bytes(_))) {
        let fields = (0..).zip(key).map(|(number, field)| value(number, &of_field(*field)));
        let fields: Vec<u8> = fields.flatten().collect();
        let parts = [word(EXPRESSION, CONCATENATION), value(DATA, &fields)].concat();
        said.extend(value(TYPE_OF, &parts));
    }
    said
}

/// The expression that a field has the type of.
fn of_field(field: Field) -> Vec<u8> {
    let (kind, data) = match field {
        Field::Link => (META, word(0, IN_NAME)),
        Field::Bytes(bytes) => (PAYLOAD, of_bytes(bytes)),
        Field::Ether
        | Field::Ipv4
        | Field::Protocol
        | Field::Port
        | Field::Target
        | Field::Rate(_) => unreachable!("no set of ours has it beside bytes"),
    };
    [word(EXPRESSION, kind), value(DATA, &data)].concat()
}

/// Header and field by nft's numbers, of which these have none, then base, offset and length in
/// bits.
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
