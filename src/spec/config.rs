//! The configuration of a VM: Volant's fields and volnet's own.
//!
//! Source of Volant's: `internal/server/orchestrator/vmconfig/config.go` of
//! github.com/volantvm/volant. There a configuration comes alone or with its version beside it
//! ([`content`]). volnet's own are `hypervisor`, `ephemeral`, `autostart`, `restart`, `owner`,
//! `args`, `run_as`, `vsock`, `rng`, `shares`, `from`, `networks` and, in `network` or each of
//! `networks`, `name`, `ip`, `mac`, `addresses`, `mtu`, `queues`, `policy`, `limits`, `expose`,
//! `isolated` and `antispoof`.

use std::path::PathBuf;

use serde_json::Value;

use super::cloud_init::{self, CloudInit};
use super::fields::{Document, Fields, Place};
use super::manifest::{self, Manifest};
use super::sections::{self, FileSource, Network, Resources, Unnamed};
use super::text;
use crate::model::budget::Budget;
use crate::model::error::Refusal;
use crate::model::expose::Expose;
use crate::model::run_as::RunAs;
use crate::model::spec::{Owner, RestartPolicy, Share};

const KNOWN: &[&str] = &[
    "image",
    "plugin",
    "runtime",
    "kernel_cmdline",
    "kernel_override",
    "resources",
    "api",
    "manifest",
    "devices",
    "metadata",
    "expose",
    "cloud_init",
    "network",
    "networks",
    "initramfs",
    "rootfs",
    "hypervisor",
    "ephemeral",
    "autostart",
    "restart",
    "owner",
    "args",
    "vsock",
    "rng",
    "shares",
    "run_as",
    "from",
];

/// The fields that volnet uses.
#[derive(Clone, Debug, Default)]
pub(super) struct Config<'a> {
    /// The networks, of which each is a NIC. Empty: none is declared.
    pub(super) networks: Vec<Network>,
    pub(super) resources: Resources,
    pub(super) initramfs: Option<FileSource<'a>>,
    pub(super) rootfs: Option<FileSource<'a>>,
    pub(super) kernel: Option<PathBuf>,
    pub(super) cmdline: Option<String>,
    pub(super) hypervisor: Option<String>,
    pub(super) args: Vec<String>,
    pub(super) ephemeral: bool,
    pub(super) autostart: bool,
    pub(super) restart: RestartPolicy,
    pub(super) owner: Option<Owner>,
    pub(super) run_as: Option<RunAs>,
    pub(super) budget: Budget,
    pub(super) vsock: bool,
    pub(super) rng: bool,
    /// The folder of the snapshot from which the guest wakes.
    pub(super) from: Option<PathBuf>,
    pub(super) shares: Vec<Share>,
    /// The ports that stand beside the networks; `None`: nothing is said of ports there.
    pub(super) expose: Option<Vec<Expose>>,
    pub(super) cloud_init: Option<CloudInit>,
    /// The manifest inside it. It counts only if no other is given.
    pub(super) manifest: Option<Manifest<'a>>,
}

/// What a configuration says: `config`, if that stands in the document beside its `version`, or the
/// document itself. Paths in refusals begin there.
pub(super) fn content(value: &Value) -> Result<&Value, Refusal> {
    const KNOWN: &[&str] = &["id", "version", "updated_at", "config"];
    if !is_versioned(value) {
        return Ok(value);
    }
    let fields = Fields::read(Place::root(Document::Config), value, KNOWN)?;
    fields.integer("id", 0..=u64::MAX)?;
    fields.integer("version", 0..=u64::MAX)?;
    fields.text("updated_at")?;
    Ok(&value["config"])
}

/// What a configuration says, unchecked, to be changed.
pub fn content_mut(value: &mut Value) -> &mut Value {
    if is_versioned(value) { &mut value["config"] } else { value }
}

/// Whether a configuration has its version beside it, and so stands in a field `config`.
fn is_versioned(value: &Value) -> bool {
    value.get("config").is_some()
}

/// Reads a configuration, and checks the form of the other fields.
pub(super) fn read(value: &Value) -> Result<Config<'_>, Refusal> {
    let fields = Fields::read(Place::root(Document::Config), value, KNOWN)?;
    fields.text("image")?;
    fields.text("plugin")?;
    fields.text("runtime")?;
    fields.table("metadata")?;
    if let Some(api) = fields.section("api", &["host", "port"])? {
        api.text("host")?;
        api.text("port")?;
    }
    sections::check_devices(&fields)?;
    let embedded = fields.value("manifest");
    Ok(Config {
        networks: sections::config_networks(&fields)?,
        resources: sections::config_resources(&fields)?,
        budget: sections::budget(&fields)?,
        vsock: fields.flag("vsock")?.unwrap_or_default(),
        rng: fields.flag("rng")?.unwrap_or_default(),
        from: fields.parsed("from", text::location)?,
        shares: sections::shares(&fields)?,
        initramfs: sections::initramfs(&fields)?,
        rootfs: sections::rootfs(&fields)?,
        kernel: fields.parsed("kernel_override", text::location)?,
        cmdline: fields.parsed("kernel_cmdline", text::cmdline)?,
        hypervisor: fields.parsed("hypervisor", text::name)?,
        args: sections::extra_args(&fields)?,
        ephemeral: fields.flag("ephemeral")?.unwrap_or_default(),
        autostart: fields.flag("autostart")?.unwrap_or_default(),
        restart: fields.parsed("restart", text::restart)?.unwrap_or_default(),
        owner: sections::owner(&fields)?,
        run_as: fields.parsed("run_as", str::parse)?,
        expose: sections::expose(&fields, Unnamed::Same)?,
        cloud_init: cloud_init::read(&fields)?,
        manifest: embedded.map(|(place, value)| manifest::read(place, value)).transpose()?,
    })
}
