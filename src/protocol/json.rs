//! JSON, appended to a buffer (RFC 8259): a serializer with the output of serde_json's compact one.
//!
//! That one writes to anything, and each key in five pieces, with which a list of many VMs spends
//! most of its time. This one appends a key at once and looks through a text only for what has to
//! be escaped.

use std::fmt;

use serde::ser::{
    Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, Serializer,
};

/// A place for one value.
pub(super) struct Json<'a>(pub(super) &'a mut Vec<u8>);

/// The inside of an array or an object.
pub(super) struct Items<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
    end: u8,
}

/// Appends a value.
///
/// # Panics
///
/// If it has what no reply has: bytes, enums with several fields, keys that are no text.
pub(super) fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    value.serialize(Json(out)).expect("a reply is made of what JSON has");
}

impl<'a> Json<'a> {
    fn items(self, begin: u8, end: u8) -> Items<'a> {
        self.0.push(begin);
        Items { out: self.0, is_first: true, end }
    }

    fn unsigned(self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
    }

    fn text(self, text: &str) {
        self.0.reserve(text.len() + 2);
        self.0.push(b'"');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(has_escape) {
            self.0.extend_from_slice(&rest.as_bytes()[..at]);
            escape(self.0, rest.as_bytes()[at]);
            rest = &rest[at + 1..];
        }
        self.0.extend_from_slice(rest.as_bytes());
        self.0.push(b'"');
    }
}

fn has_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Appends a byte that may not stand in a text.
fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

impl<'a> Serializer for Json<'a> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Impossible<(), fmt::Error>;
    type SerializeTupleVariant = Impossible<(), fmt::Error>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Impossible<(), fmt::Error>;

    fn serialize_bool(self, value: bool) -> fmt::Result {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> fmt::Result {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> fmt::Result {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> fmt::Result {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> fmt::Result {
        if value < 0 {
            self.0.push(b'-');
        }
        self.unsigned(value.unsigned_abs());
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> fmt::Result {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> fmt::Result {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> fmt::Result {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> fmt::Result {
        self.unsigned(value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> fmt::Result {
        self.serialize_f64(value.into())
    }

    /// No reply has one; a client that sends a reply on may.
    fn serialize_f64(self, value: f64) -> fmt::Result {
        serde_json::to_writer(self.0, &value).map_err(|_| fmt::Error)
    }

    fn serialize_char(self, value: char) -> fmt::Result {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> fmt::Result {
        self.text(value);
        Ok(())
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> fmt::Result {
        self.serialize_str(&value.to_string())
    }

    fn serialize_bytes(self, _: &[u8]) -> fmt::Result {
        Err(fmt::Error)
    }

    fn serialize_none(self) -> fmt::Result {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    fn serialize_unit(self) -> fmt::Result {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> fmt::Result {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &str, _: u32, variant: &'static str) -> fmt::Result {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &str, value: &T) -> fmt::Result {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> fmt::Result {
        let mut object = self.items(b'{', b'}');
        SerializeStruct::serialize_field(&mut object, variant, value)?;
        SerializeStruct::end(object)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, fmt::Error> {
        Ok(self.items(b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, fmt::Error> {
        Ok(self.items(b'[', b']'))
    }

    fn serialize_tuple_struct(
        self,
        _: &str,
        _: usize,
    ) -> Result<Impossible<(), fmt::Error>, fmt::Error> {
        Err(fmt::Error)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), fmt::Error>, fmt::Error> {
        Err(fmt::Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'a>, fmt::Error> {
        Ok(self.items(b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, fmt::Error> {
        Ok(self.items(b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), fmt::Error>, fmt::Error> {
        Err(fmt::Error)
    }
}

impl Items<'_> {
    /// Appends what stands before an item.
    fn next(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
    }

    fn close(self) -> fmt::Result {
        self.out.push(self.end);
        Ok(())
    }
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.next();
        value.serialize(Json(self.out))
    }

    fn end(self) -> fmt::Result {
        self.close()
    }
}

impl SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> fmt::Result {
        self.close()
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> fmt::Result {
        self.next();
        let at = self.out.len();
        key.serialize(Json(self.out))?;
        match self.out[at] {
            b'"' => Ok(()),
            _ => Err(fmt::Error),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        self.out.push(b':');
        value.serialize(Json(self.out))
    }

    fn end(self) -> fmt::Result {
        self.close()
    }
}

impl SerializeStruct for Items<'_> {
    type Ok = ();
    type Error = fmt::Error;

    /// The name of a field is one of Rust's, and has nothing to be escaped.
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> fmt::Result {
        self.out.reserve(key.len() + 4);
        let is_first = std::mem::take(&mut self.is_first);
        self.out.extend_from_slice(if is_first { b"\"" } else { b",\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.serialize(Json(self.out))
    }

    fn end(self) -> fmt::Result {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    fn written<T: Serialize>(value: &T) -> String {
        let mut out = Vec::new();
        append(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[derive(Serialize)]
    enum Kind {
        Plain,
        With(i8),
    }

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct All<'a> {
        numbers: (u8, i16, i32, u64, i64, f32, f64, u16, u32),
        texts: [&'a str; 3],
        letter: char,
        nothing: Option<bool>,
        something: Option<bool>,
        unit: Unit,
        kinds: Vec<Kind>,
        map: BTreeMap<String, Vec<bool>>,
    }

    #[test]
    fn it_writes_what_serde_json_writes() {
        let all = All {
            numbers: (0, -7, i32::MIN, u64::MAX, i64::MIN, 0.5, 1e300, 9, 10),
            texts: ["", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}", "é\u{2028}𝄞"],
            letter: '"',
            nothing: None,
            something: Some(false),
            unit: Unit,
            kinds: vec![Kind::Plain, Kind::With(-1)],
            map: [("\n".to_string(), vec![]), ("b".to_string(), vec![true, false])].into(),
        };
        assert_eq!(written(&all), serde_json::to_string(&all).unwrap());
    }

    #[test]
    fn a_key_that_is_no_text_is_an_error() {
        let map = BTreeMap::from([(1, 2)]);
        assert!(map.serialize(Json(&mut Vec::new())).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_what_serde_json_writes(value in values()) {
            prop_assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
        }
    }
}
