//! The Volant plugin manifest, schema version 1.
//!
//! Source of the format: `docs/6_reference` and `internal/imagespec` of github.com/volantvm/volant.
//! volnet also accepts fields that the published examples have beyond the schema: `description`,
//! `health_check.interval_ms`, `health_check.retries`, and the name of a file system as the format
//! of a root file system. Only the fields that a VM needs to start are required.
//!
//! The builder of these manifests (`internal/builder` of github.com/volantvm/fledge) writes some
//! fields in other forms than that reference has: `workload.entrypoint` as one text beside
//! `workload.args`, `env` beside the workload, the `format` of an initramfs, and
//! `cloud_init.meta_data` as an object of its own keys. Both forms are read.

use serde_json::Value;

use super::cloud_init::{self, CloudInit};
use super::fields::{Fields, Place};
use super::sections::{self, FileSource, Network, Resources};
use crate::model::error::Refusal;

/// The versions that volnet reads. Examples that are older than the numbers have a date.
const SCHEMA_VERSIONS: [&str; 4] = ["1", "1.0", "v1", "2024-09"];
/// The longest time in milliseconds that a probe or an action may ask for: a day.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

const KNOWN: &[&str] = &[
    "$schema",
    "schema_version",
    "name",
    "version",
    "description",
    "runtime",
    "enabled",
    "image",
    "image_digest",
    "openapi",
    "labels",
    "resources",
    "rootfs",
    "initramfs",
    "disks",
    "network",
    "workload",
    "env",
    "actions",
    "health_check",
    "cloud_init",
    "devices",
];

/// The fields that volnet uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Manifest<'a> {
    pub(super) network: Network,
    pub(super) resources: Resources,
    pub(super) initramfs: Option<FileSource<'a>>,
    pub(super) rootfs: Option<FileSource<'a>>,
    pub(super) disks: Vec<FileSource<'a>>,
    pub(super) cloud_init: Option<CloudInit>,
}

/// Reads a manifest at `place`, and checks the form of the other fields.
pub(super) fn read(place: Place, value: &Value) -> Result<Manifest<'_>, Refusal> {
    let fields = Fields::read(place, value, KNOWN)?;
    fields.parsed("schema_version", schema_version)?;
    for name in
        ["$schema", "name", "version", "description", "runtime", "image", "image_digest", "openapi"]
    {
        fields.text(name)?;
    }
    fields.flag("enabled")?;
    fields.check_text_table("labels")?;
    fields.check_text_table("env")?;
    check_workload(&fields)?;
    check_actions(&fields)?;
    check_health_check(&fields)?;
    sections::check_devices(&fields)?;
    Ok(Manifest {
        network: sections::manifest_network(&fields)?,
        resources: sections::resources(&fields)?,
        initramfs: sections::initramfs(&fields)?,
        rootfs: sections::rootfs(&fields)?,
        disks: sections::disks(&fields)?,
        cloud_init: cloud_init::read(&fields)?,
    })
}

fn schema_version(text: &str) -> Result<(), String> {
    if SCHEMA_VERSIONS.contains(&text) {
        Ok(())
    } else {
        Err(format!("{text:?} is not a version that volnet reads; it reads 1.0"))
    }
}

fn check_workload(fields: &Fields) -> Result<(), Refusal> {
    let known = &["type", "base_url", "entrypoint", "args", "env", "workdir"];
    let Some(fields) = fields.section("workload", known)? else { return Ok(()) };
    for name in ["type", "base_url", "workdir"] {
        fields.text(name)?;
    }
    fields.check_words("entrypoint")?;
    fields.check_texts("args")?;
    fields.check_text_table("env")
}

fn check_actions(fields: &Fields) -> Result<(), Refusal> {
    for (place, value) in fields.table("actions")? {
        let fields = Fields::read(place, value, &["description", "method", "path", "timeout_ms"])?;
        for name in ["description", "method", "path"] {
            fields.text(name)?;
        }
        fields.integer("timeout_ms", 0..=TIMEOUT_MS_MAX)?;
    }
    Ok(())
}

fn check_health_check(fields: &Fields) -> Result<(), Refusal> {
    let known = &["endpoint", "timeout_ms", "interval_ms", "retries"];
    let Some(fields) = fields.section("health_check", known)? else { return Ok(()) };
    fields.text("endpoint")?;
    fields.integer("timeout_ms", 0..=TIMEOUT_MS_MAX)?;
    fields.integer("interval_ms", 0..=TIMEOUT_MS_MAX)?;
    fields.integer("retries", 0..=u64::from(u32::MAX))?;
    Ok(())
}
