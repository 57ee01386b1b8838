//! `cloud_init`: the texts for cloud-init in the guest.
//!
//! Both documents may have the section. A text of the configuration wins over the same text of the
//! manifest, as in Volant (`mergeCloudInit` in `internal/server/orchestrator` there). A text is an
//! object with `content`; only meta-data may also be an object of its own keys. The daemon reads no
//! files for them: the command replaces a `path` by what the file holds.

use serde_json::{Map, Value};

use super::fields::{Document, Fields, Place};
use super::{config, manifest};
use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::spec::VmSpec;

/// The fields of a text.
const TEXT: &[&str] = &["inline", "content", "path"];

/// The texts that the documents give. What is missing is volnet's to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudInit {
    /// What the guest is to do.
    pub user_data: Option<String>,
    /// What the guest is.
    pub meta_data: Option<MetaData>,
    /// How the guest is to set up its network.
    pub network_config: Option<String>,
}

/// Meta-data of a guest.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaData {
    /// As it is to be on the disk.
    Text(String),
    /// By key.
    Keys(Map<String, Value>),
}

impl CloudInit {
    /// These texts, and those of `other` where there is none.
    fn or(self, other: CloudInit) -> CloudInit {
        CloudInit {
            user_data: self.user_data.or(other.user_data),
            meta_data: self.meta_data.or(other.meta_data),
            network_config: self.network_config.or(other.network_config),
        }
    }
}

/// What a VM's documents, as its record keeps them, say for cloud-init; `None`: nothing.
pub fn cloud_init(spec: &VmSpec) -> Result<Option<CloudInit>, Refusal> {
    let parse = |kept: &Kept| serde_json::from_str(kept.as_str()).ok();
    let manifest: Option<Value> = spec.manifest.as_ref().and_then(parse);
    let config: Option<Value> = spec.config.as_ref().and_then(parse);
    let mut config = config.as_ref().map(config::read).transpose()?.unwrap_or_default();
    let place = Place::root(Document::Manifest);
    let given = manifest.as_ref().map(|value| manifest::read(place, value)).transpose()?;
    let manifest = given.or(config.manifest.take()).unwrap_or_default();
    Ok(match (config.cloud_init, manifest.cloud_init) {
        (Some(config), Some(manifest)) => Some(config.or(manifest)),
        (config, manifest) => config.or(manifest),
    })
}

/// The section, if there is one.
pub(super) fn read(fields: &Fields) -> Result<Option<CloudInit>, Refusal> {
    const KNOWN: &[&str] = &["datasource", "seed_mode", "user_data", "meta_data", "network_config"];
    let Some(fields) = fields.section("cloud_init", KNOWN)? else { return Ok(None) };
    fields.text("datasource")?;
    fields.text("seed_mode")?;
    Ok(Some(CloudInit {
        user_data: text(&fields, "user_data")?,
        meta_data: meta_data(&fields)?,
        network_config: text(&fields, "network_config")?,
    }))
}

fn meta_data(fields: &Fields) -> Result<Option<MetaData>, Refusal> {
    let own = |map: &&Map<String, Value>| map.keys().any(|key| !TEXT.contains(&key.as_str()));
    let value = fields.value("meta_data").and_then(|(_, value)| value.as_object());
    match value.filter(own) {
        Some(keys) => Ok(Some(MetaData::Keys(keys.clone()))),
        None => Ok(text(fields, "meta_data")?.map(MetaData::Text)),
    }
}

/// A text as it is, with a newline at its end. An empty one that is `inline` is one, too.
fn text(fields: &Fields, name: &str) -> Result<Option<String>, Refusal> {
    let Some(fields) = fields.section(name, TEXT)? else { return Ok(None) };
    let inline = fields.flag("inline")?.unwrap_or_default();
    fields.text("path")?;
    let is_blank = fields.text("content")?.is_none();
    let content = fields.value("content").and_then(|(_, value)| value.as_str());
    Ok(match content.unwrap_or_default() {
        _ if is_blank => inline.then(String::new),
        text if text.ends_with('\n') => Some(text.into()),
        text => Some(format!("{text}\n")),
    })
}
