//! A document as the client sent it. It is kept to show it and to compare requests.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A JSON document as compact text, with sorted objects: equal documents are equal texts, and the
/// text needs little memory. In a record it is JSON inside JSON, not quoted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(Box<str>);

impl Kept {
    /// Keeps a document.
    pub fn new(value: &Value) -> Kept {
        Kept(value.to_string().into())
    }

    /// The document as compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Kept::new(&value))
    }
}
