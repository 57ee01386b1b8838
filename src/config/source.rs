//! The places where a setting can be written, and which place wins.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::error::Refusal;
use crate::spec::fields::{Document, Fields, Place};

/// The names of one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The field of the configuration file. For a setting of a network, the field of `networks[0]`.
    pub field: &'static str,
    /// The flag, without its dashes.
    pub flag: Option<&'static str>,
    /// The variable.
    pub variable: &'static str,
    /// Volant's variable with the same meaning.
    pub volant: Option<&'static str>,
}

impl Key {
    pub(super) const fn new(
        field: &'static str,
        flag: Option<&'static str>,
        variable: &'static str,
        volant: Option<&'static str>,
    ) -> Key {
        Key { field, flag, variable, volant }
    }
}

/// The flags that were given, by name without dashes. If a flag comes twice, the last wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Sets the flag of a key.
    pub fn set(&mut self, flag: &'static str, value: String) {
        self.0.insert(flag, value);
    }

    /// The given flags, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(flag, value)| (*flag, value.as_str()))
    }
}

/// The rank of a place; the higher wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    File,
    Volant,
    Environment,
    Flag,
}

/// A value that was found, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) rank: Rank,
    /// The name under which it was written.
    pub(super) place: String,
}

impl Found {
    pub(super) fn in_file(text: &str, path: &str) -> Found {
        Found { text: text.into(), rank: Rank::File, place: path.into() }
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) -> Refusal {
        Refusal::InvalidConfig { field: self.place.clone(), reason: reason.into() }
    }

    /// Text that is parsed.
    pub(super) fn parsed<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Refusal> {
        parse(&self.text).map_err(|reason| self.refuse(reason))
    }
}

/// The three places.
pub(super) struct Sources<'a> {
    flags: &'a Flags,
    environment: &'a BTreeMap<String, String>,
    pub(super) file: Fields<'a>,
}

/// The fields of the configuration file.
const KNOWN: &[&str] = &[
    "socket",
    "state_dir",
    "runtime_dir",
    "log_dir",
    "backend",
    "networks",
    "policies",
    "kvm",
    "nft_owner",
    "pool",
    "log_format",
    "log_mb",
    "metrics",
    "expose_ports",
    "hypervisor",
    "hypervisors",
    "hypervisor_user",
    "run_as",
    "vm_uids",
    "cgroup",
    "kernel_bzimage",
    "kernel_vmlinux",
    "net_ip_mask",
];

/// The configuration file as JSON; no file declares nothing.
pub(super) fn parse(text: Option<&str>) -> Result<Value, Refusal> {
    match text {
        None => Ok(Value::Object(Map::new())),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            Place::root(Document::Config).refuse(format!("the file is not JSON: {error}"))
        }),
    }
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        flags: &'a Flags,
        environment: &'a BTreeMap<String, String>,
        document: &'a Value,
    ) -> Result<Sources<'a>, Refusal> {
        let file = Fields::read(Place::root(Document::Config), document, KNOWN)?;
        Ok(Sources { flags, environment, file })
    }

    /// A setting that is text, from the place of the highest rank.
    pub(super) fn text(&self, key: &Key) -> Result<Option<Found>, Refusal> {
        if let Some(found) = self.outside(key) {
            return Ok(Some(found));
        }
        if key.field.is_empty() {
            return Ok(None);
        }
        let text = self.file.text(key.field)?;
        Ok(text.map(|text| Found::in_file(text, key.field)))
    }

    /// A setting that is on or off.
    pub(super) fn switch(&self, key: &Key) -> Result<Option<bool>, Refusal> {
        match self.outside(key) {
            Some(found) => found.parsed(on_or_off).map(Some),
            None => self.file.flag(key.field),
        }
    }

    /// A whole number from 0 to `most`.
    pub(super) fn number(&self, key: &Key, most: usize) -> Result<Option<usize>, Refusal> {
        let parse = |text: &str| match text.parse() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(format!("{text:?} is not a whole number from 0 to {most}")),
        };
        match self.outside(key) {
            Some(found) => found.parsed(parse).map(Some),
            None => {
                Ok(self.file.integer(key.field, 0..=most as u64)?.map(|number| number as usize))
            }
        }
    }

    /// The value from flags or environment. An empty variable does not count.
    pub(super) fn outside(&self, key: &Key) -> Option<Found> {
        if let Some((flag, text)) = key.flag.and_then(|flag| self.flags.0.get_key_value(flag)) {
            let place = format!("--{flag}");
            return Some(Found { text: text.clone(), rank: Rank::Flag, place });
        }
        let variable = |name: &str, rank| {
            let text = self.environment.get(name)?.trim();
            let found = Found { text: text.into(), rank, place: name.into() };
            (!text.is_empty()).then_some(found)
        };
        variable(key.variable, Rank::Environment).or_else(|| {
            let mut found = variable(key.volant?, Rank::Volant)?;
            // Volant's own defaults begin with a tilde, which it expands itself.
            if let (Some(rest), Some(home)) =
                (found.text.strip_prefix("~/"), self.environment.get("HOME"))
            {
                found.text = format!("{}/{rest}", home.trim_end_matches('/'));
            }
            Some(found)
        })
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}
