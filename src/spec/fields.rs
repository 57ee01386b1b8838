//! Reads a JSON document field by field, so that every refusal names the path of the wrong value.
//!
//! A [`Place`] is a path in one of the two documents. [`Fields`] is an object at a place; it
//! refuses unknown fields before any field is read. Every getter treats `null`, and text that is
//! empty after trimming, as absent. [`Fields::is_null`] is for the field whose `null` says more.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::model::error::Refusal;

/// The two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest,
    Config,
}

/// A path in a document, such as `network.mode` or `disks[1].source`. The root is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    document: Document,
    path: String,
}

/// The fields of an object.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) place: Place,
    map: &'a Map<String, Value>,
    known: &'static [&'static str],
}

impl Place {
    pub(crate) fn root(document: Document) -> Place {
        Place { document, path: String::new() }
    }

    /// The field `name` of the object here.
    pub(crate) fn field(&self, name: &str) -> Place {
        let dot = if self.path.is_empty() { "" } else { "." };
        Place { document: self.document, path: format!("{}{dot}{name}", self.path) }
    }

    /// The element `index` of the array here.
    pub(crate) fn element(&self, index: usize) -> Place {
        Place { document: self.document, path: format!("{}[{index}]", self.path) }
    }

    /// The path itself.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// A note about the value here, for people: the document, the path and the reason.
    pub(crate) fn note(&self, reason: &str) -> String {
        let document = match self.document {
            Document::Manifest => "manifest",
            Document::Config => "config",
        };
        format!("{document}: {}: {reason}", self.path)
    }

    /// A refusal of the value here.
    pub(crate) fn refuse(&self, reason: impl Into<String>) -> Refusal {
        let field = if self.path.is_empty() { "(document)".into() } else { self.path.clone() };
        let reason = reason.into();
        match self.document {
            Document::Manifest => Refusal::InvalidManifest { field, reason },
            Document::Config => Refusal::InvalidConfig { field, reason },
        }
    }
}

impl<'a> Fields<'a> {
    /// The object at `place`. Fields other than the `known` ones are refused.
    pub(crate) fn read(
        place: Place,
        value: &'a Value,
        known: &'static [&'static str],
    ) -> Result<Fields<'a>, Refusal> {
        let map = object(&place, value)?;
        match map.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(place.field(name).refuse("unknown field")),
            None => Ok(Fields { place, map, known }),
        }
    }

    /// The value of a field; `None` if it is absent or null.
    fn get(&self, name: &str) -> Option<&'a Value> {
        debug_assert!(self.known.contains(&name), "{name} is taken but not known");
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there and null, where that is not the same as absent.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        debug_assert!(self.known.contains(&name), "{name} is taken but not known");
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// Trimmed text; `None` if nothing is left.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = string(&self.place.field(name), value)?.trim();
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Text that is parsed.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).map_err(|reason| self.place.field(name).refuse(reason))
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &self,
        name: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(self.place.field(name).refuse(format!(
                "{value} is not a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            ))),
        }
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => {
                Err(self.place.field(name).refuse(format!("{} is not true or false", kind(value))))
            }
        }
    }

    /// An object. Fields other than the `known` ones are refused.
    pub(crate) fn section(
        &self,
        name: &str,
        known: &'static [&'static str],
    ) -> Result<Option<Fields<'a>>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        Fields::read(self.place.field(name), value, known).map(Some)
    }

    /// A value as it is, with its place.
    pub(crate) fn value(&self, name: &str) -> Option<(Place, &'a Value)> {
        Some((self.place.field(name), self.get(name)?))
    }

    /// The elements of an array, each with its place; none if the array is absent.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<(Place, &'a Value)>, Refusal> {
        let Some((place, value)) = self.value(name) else { return Ok(Vec::new()) };
        let Some(items) = value.as_array() else {
            return Err(place.refuse(format!("{} is not an array", kind(value))));
        };
        Ok(items.iter().enumerate().map(|(index, item)| (place.element(index), item)).collect())
    }

    /// The values of an object whose field names are free, each with its place.
    pub(crate) fn table(&self, name: &str) -> Result<Vec<(Place, &'a Value)>, Refusal> {
        let entries = self.entries(name)?;
        Ok(entries.into_iter().map(|(place, _, value)| (place, value)).collect())
    }

    /// The same with the field names.
    pub(crate) fn entries(&self, name: &str) -> Result<Vec<(Place, &'a str, &'a Value)>, Refusal> {
        let Some((place, value)) = self.value(name) else { return Ok(Vec::new()) };
        let map = object(&place, value)?;
        Ok(map.iter().map(|(key, value)| (place.field(key), key.as_str(), value)).collect())
    }

    /// An array of at most `most` values, each with its place.
    fn short_list(&self, name: &str, most: usize) -> Result<Vec<(Place, &'a Value)>, Refusal> {
        let items = self.list(name)?;
        if items.len() > most {
            return Err(too_many(&self.place.field(name), most));
        }
        Ok(items)
    }

    /// An array of at most `most` texts or arrays of texts, unparsed. A text is a group of one.
    pub(crate) fn text_groups(&self, name: &str, most: usize) -> Result<Vec<Vec<String>>, Refusal> {
        let items = self.short_list(name, most)?;
        let group = |(place, value): &(Place, &Value)| match value.as_array() {
            Some(texts) => texts
                .iter()
                .enumerate()
                .map(|(index, text)| string(&place.element(index), text).map(String::from))
                .collect(),
            None => Ok(vec![string(place, value)?.into()]),
        };
        items.iter().map(group).collect()
    }

    /// An array of at most `most` texts that are parsed; `None` if it is absent.
    pub(crate) fn parsed_list<T>(
        &self,
        name: &str,
        most: usize,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, Refusal> {
        if self.get(name).is_none() {
            return Ok(None);
        }
        let items = self.short_list(name, most)?;
        let item = |(place, value): &(Place, &Value)| {
            parse(string(place, value)?.trim()).map_err(|reason| place.refuse(reason))
        };
        items.iter().map(item).collect::<Result<_, _>>().map(Some)
    }

    /// A text or an array of texts, checked for form.
    pub(crate) fn check_words(&self, name: &str) -> Result<(), Refusal> {
        match self.get(name) {
            Some(Value::String(_)) => Ok(()),
            _ => self.check_texts(name),
        }
    }

    /// An array of texts, checked for form.
    pub(crate) fn check_texts(&self, name: &str) -> Result<(), Refusal> {
        self.list(name)?.iter().try_for_each(|(place, value)| string(place, value).map(drop))
    }

    /// An object of texts, checked for form.
    pub(crate) fn check_text_table(&self, name: &str) -> Result<(), Refusal> {
        self.table(name)?.iter().try_for_each(|(place, value)| string(place, value).map(drop))
    }
}

fn too_many(place: &Place, most: usize) -> Refusal {
    place.refuse(format!("at most {most} entries are allowed"))
}

/// An array of at most `most` texts, each with its place.
pub(crate) fn texts<'a>(
    place: &Place,
    value: &'a Value,
    most: usize,
) -> Result<Vec<(Place, &'a str)>, Refusal> {
    let Some(items) = value.as_array() else {
        return Err(place.refuse(format!("{} is not an array", kind(value))));
    };
    if items.len() > most {
        return Err(too_many(place, most));
    }
    let text = |(index, item)| {
        let place = place.element(index);
        string(&place, item).map(|text| (place.clone(), text))
    };
    items.iter().enumerate().map(text).collect()
}

fn object<'a>(place: &Place, value: &'a Value) -> Result<&'a Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| place.refuse(format!("{} is not an object", kind(value))))
}

fn string<'a>(place: &Place, value: &'a Value) -> Result<&'a str, Refusal> {
    value.as_str().ok_or_else(|| place.refuse(format!("{} is not text", kind(value))))
}

/// The type of a value, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
