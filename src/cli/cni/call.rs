//! What an engine says: the environment, and the configuration on standard input.
//!
//! Keys of a configuration are matched without case: some engines write `portMappings`, others
//! `PortMappings`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{CniError, DECODING, ENVIRONMENT, VERSION};
use crate::model::attachment::AttachmentId;

/// The versions that are spoken, the newest last.
pub(super) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version of a configuration that names none (SPEC.md of 0.1.0).
const OLDEST: &str = "0.1.0";

/// The environment of a plugin. What is empty counts as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment(pub(super) BTreeMap<String, String>);

/// A configuration, as far as it is the same for all verbs.
#[derive(Clone, Debug)]
pub(super) struct Conf {
    pub(super) version: String,
    pub(super) name: String,
    pub(super) fields: Map<String, Value>,
}

impl Environment {
    /// The variables of this process that are for a plugin.
    pub(super) fn of_process() -> Environment {
        let own = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Environment(own.filter(|(name, _)| name.starts_with("CNI_")).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, CniError> {
        self.get(name).ok_or_else(|| CniError::new(ENVIRONMENT, format!("{name} is not set")))
    }

    /// The attachment that a verb is about.
    pub(super) fn attachment(&self, conf: &Conf) -> Result<AttachmentId, CniError> {
        let id = AttachmentId {
            cni: conf.name.clone(),
            container: self.required("CNI_CONTAINERID")?.into(),
            ifname: self.required("CNI_IFNAME")?.into(),
        };
        id.check().map_err(|refusal| CniError::new(ENVIRONMENT, refusal.to_string()))?;
        Ok(id)
    }

    /// The pairs of CNI_ARGS, `KEY=VALUE;KEY=VALUE`. What volnet does not know is ignored.
    pub(super) fn args(&self) -> Result<BTreeMap<&str, &str>, CniError> {
        let pairs = self.get("CNI_ARGS").into_iter().flat_map(|args| args.split(';'));
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let wrong = || CniError::new(ENVIRONMENT, format!("CNI_ARGS: {pair:?} has no value"));
            pair.split_once('=').ok_or_else(wrong)
        });
        pairs.collect()
    }
}

impl Conf {
    /// Reads a configuration. Its version is the one that it names.
    pub(super) fn read(bytes: &[u8]) -> Result<Conf, CniError> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
            CniError::new(DECODING, format!("standard input is not a JSON object: {error}"))
        })?;
        let text = |name: &str| match find(&fields, name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(CniError::new(DECODING, format!("{name} is not a text"))),
        };
        let version = text("cniVersion")?.unwrap_or_else(|| OLDEST.into());
        let name = text("name")?.unwrap_or_default();
        Ok(Conf { version, name, fields })
    }

    /// Refuses a version that is not spoken, or in which there is no such verb.
    pub(super) fn check_version(&self, oldest: &str) -> Result<(), CniError> {
        let place = |version| VERSIONS.iter().position(|known| *known == version);
        match (place(self.version.as_str()), place(oldest)) {
            (Some(is), Some(least)) if is >= least => Ok(()),
            (None, _) => {
                let words = format!("cniVersion {} is not among {VERSIONS:?}", self.version);
                Err(CniError::new(VERSION, words))
            }
            (Some(_), _) => {
                let words = format!("cniVersion {} has no such verb", self.version);
                Err(CniError::new(VERSION, words))
            }
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        find(&self.fields, name)
    }
}

/// A field, whatever the case of its key. One that is null counts as absent.
pub(super) fn find<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = fields.get(name);
    let found = || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    exact.or_else(|| found().map(|(_, value)| value)).filter(|value| !value.is_null())
}
