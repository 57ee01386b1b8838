//! Notes: what the documents say that volnet accepts and does not act on.
//!
//! A field that only describes (`name`, `labels`, `metadata` …) gets no note. A field from which
//! its author expects something gets one, unless it is blank: a program that writes Go's zero
//! values writes fields that say nothing.

use serde_json::Value;

use super::config;
use super::fields::{Document, Place};
use crate::model::spec::VmSpec;

/// A field that volnet leaves alone: its path, when it is worth a note, and the note. An element of
/// the path that ends with `[]` stands for each element of an array.
type Left = (&'static str, fn(&Value) -> bool, &'static str);

/// Of both documents.
const OF_BOTH: &[Left] = &[
    ("network.auto_assign", is_denied, "in bridged mode volnet always assigns an address"),
    ("cloud_init.datasource", is_other_datasource, "volnet makes a disk for NoCloud"),
    ("cloud_init.seed_mode", is_other_mode, "volnet makes a disk with a FAT file system"),
    ("cloud_init.user_data.path", is_said, NOT_READ),
    ("cloud_init.meta_data.path", is_said, NOT_READ),
    ("cloud_init.network_config.path", is_said, NOT_READ),
    ("devices", is_said, "volnet passes no devices of the host on to guests"),
];
const NOT_READ: &str = "the daemon reads no files for it; `volnet create` puts their text here";

/// Of a manifest.
const OF_MANIFEST: &[Left] = &[
    ("enabled", is_denied, "volnet makes VMs of disabled manifests, too"),
    ("workload", is_said, "volnet starts nothing in the guest; its init has to"),
    ("env", is_said, "volnet sets no variables in the guest; its init has to"),
    ("actions", is_said, "volnet calls nothing in the guest"),
    ("health_check", is_said, "volnet does not probe guests"),
    ("disks[].target", is_said, "the guest gets its disks in the order of the manifest"),
];

/// Of a configuration.
const OF_CONFIG: &[Left] = &[
    ("api", is_said, "volnet speaks to no agent in the guest"),
    ("expose[].mode", is_said, "volnet exposes ports by the mode of the network"),
    ("network.expose[].mode", is_said, "volnet exposes ports by the mode of the network"),
];

/// Files that a VM can have are missing.
const NO_FILES: &str = "volnet has no images; name the files of the VM by `rootfs` or `initramfs`";
/// Ports of a manifest have no meaning.
const NO_PORTS: &str = "a VM in vsock mode has no ports";
/// Nobody starts the hypervisor.
const NO_START: &str = "volnet makes its disk for hypervisors that it starts, and this VM has none";

/// The notes about documents that were resolved to `spec`.
pub fn notes(manifest: Option<&Value>, config: Option<&Value>, spec: &VmSpec) -> Vec<String> {
    let mut notes = Vec::new();
    let config = config.and_then(|config| config::content(config).ok());
    let manifest = manifest.filter(|manifest| !manifest.is_null());
    let (place, carried) = (Place::root(Document::Config), config.map(|it| &it["manifest"]));
    let manifest = match (manifest, carried) {
        (Some(manifest), _) => Some((Place::root(Document::Manifest), manifest)),
        (None, carried) => carried.map(|carried| (place.field("manifest"), carried)),
    };
    if let Some((place, manifest)) = manifest {
        add(&mut notes, OF_MANIFEST, &place, manifest);
        add(&mut notes, OF_BOTH, &place, manifest);
        notes.extend(without_machine(spec, &place, manifest));
        let ports = place.field("network").field("expose");
        if !spec.needs_tap_device() && is_said(&manifest["network"]["expose"]) {
            notes.push(ports.note(NO_PORTS));
        }
    }
    if let Some(config) = config {
        add(&mut notes, OF_CONFIG, &place, config);
        add(&mut notes, OF_BOTH, &place, config);
        notes.extend(without_machine(spec, &place, config));
        let named = ["image", "plugin"].into_iter().find(|name| is_said(&config[*name]));
        if let (Some(name), None) = (named, &spec.machine) {
            notes.push(place.field(name).note(NO_FILES));
        }
    }
    notes
}

/// The note about a `cloud_init` that nobody will read.
fn without_machine(spec: &VmSpec, place: &Place, document: &Value) -> Option<String> {
    let is_left = spec.machine.is_none() && document["cloud_init"].is_object();
    is_left.then(|| place.field("cloud_init").note(NO_START))
}

fn add(notes: &mut Vec<String>, left: &[Left], place: &Place, value: &Value) {
    for (path, is_worth, note) in left {
        visit(place, value, path, &mut |place, value| {
            if is_worth(value) {
                notes.push(place.note(note));
            }
        });
    }
}

/// Visits the values at a path. What is absent or null says nothing, and is most of what may be
/// there.
fn visit(place: &Place, value: &Value, path: &str, then: &mut impl FnMut(&Place, &Value)) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = first.strip_suffix("[]").unwrap_or(first);
    let found = &value[name];
    if found.is_null() {
        return;
    }
    let place = place.field(name);
    let mut go_on = |place: &Place, value: &Value| match rest {
        "" => then(place, value),
        rest => visit(place, value, rest, &mut *then),
    };
    if name.len() == first.len() {
        return go_on(&place, found);
    }
    for (index, item) in found.as_array().into_iter().flatten().enumerate() {
        go_on(&place.element(index), item);
    }
}

/// Whether a value says anything.
fn is_said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => items.iter().any(is_said),
        Value::Object(map) => map.values().any(is_said),
    }
}

/// Whether it is another source of data than NoCloud.
fn is_other_datasource(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|name| !name.trim().is_empty() && !name.trim().eq_ignore_ascii_case("nocloud"))
}

/// Whether it asks for something else than a FAT file system on a disk.
fn is_other_mode(value: &Value) -> bool {
    value.as_str().is_some_and(|mode| {
        let mode = mode.trim().to_ascii_lowercase();
        !["", "vfat", "disk"].contains(&mode.as_str())
    })
}

/// Whether a value is `false`.
fn is_denied(value: &Value) -> bool {
    *value == Value::Bool(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::resolve;

    fn of(manifest: Option<Value>, config: Option<Value>) -> Vec<String> {
        let (manifest, config) = (manifest.as_ref(), config.as_ref());
        let spec = resolve(manifest, config).unwrap();
        notes(manifest, config, &spec)
    }

    /// The documents and paths of the notes.
    fn paths(notes: &[String]) -> Vec<&str> {
        let path = |note: &'_ String| note.match_indices(": ").nth(1).map(|(at, _)| at).unwrap();
        notes.iter().map(|note| &note[..path(note)]).collect()
    }

    #[test]
    fn what_has_an_effect_elsewhere_and_none_here_is_said() {
        let manifest = json!({
            "schema_version": "v1", "name": "m", "labels": {"a": "b"}, "enabled": false,
            "workload": {"entrypoint": "/bin/x", "args": ["y"]},
            "env": {"A": "b"},
            "actions": {"go": {"method": "POST", "path": "/"}},
            "health_check": {"endpoint": "/", "timeout_ms": 1},
            "disks": [{"source": "/a"}, {"source": "/b", "target": "vdb"}],
            "network": {"mode": "bridged", "auto_assign": false},
            "devices": {"pci_passthrough": ["0000:01:00.0"]}
        });
        let expected = [
            "manifest: enabled",
            "manifest: workload",
            "manifest: env",
            "manifest: actions",
            "manifest: health_check",
            "manifest: disks[1].target",
            "manifest: network.auto_assign",
            "manifest: devices",
        ];
        assert_eq!(paths(&of(Some(manifest.clone()), None)), expected);
        let carried = of(None, Some(json!({ "manifest": manifest, "api": {"host": "h"} })));
        let carried = paths(&carried);
        assert_eq!(carried[1], "config: manifest.workload");
        assert_eq!(carried[expected.len()..], ["config: api"]);
        // The manifest inside does not count beside another one.
        let beside = of(Some(json!({})), Some(json!({ "manifest": manifest })));
        assert!(beside.is_empty(), "{beside:?}");
    }

    #[test]
    fn what_says_nothing_needs_no_note() {
        let manifest = json!({
            "name": "m", "version": "1", "enabled": true, "rootfs": {"url": ""},
            "initramfs": {"url": "/i", "checksum": "ab".repeat(32), "format": "cpio.gz"},
            "health_check": {"endpoint": "", "timeout_ms": 0},
            "workload": {"type": " "}, "actions": {}, "devices": {"allowlist": []},
            "network": {"expose": [{"port": 80}]}
        });
        let config = json!({ "image": "m", "api": {}, "metadata": {"a": 1}, "devices": null });
        assert_eq!(of(Some(manifest), Some(config)), Vec::<String>::new());
        assert_eq!(of(None, None), Vec::<String>::new());
    }

    #[test]
    fn a_disk_for_cloud_init_that_is_not_as_it_was_asked_for_is_said() {
        let manifest = |cloud_init: Value| {
            Some(json!({ "initramfs": {"url": "/i"}, "cloud_init": cloud_init }))
        };
        let usual = json!({"datasource": "nocloud", "seed_mode": "vfat", "user_data": {}});
        assert_eq!(of(manifest(usual), None), Vec::<String>::new());
        let other = json!({
            "datasource": "ConfigDrive", "seed_mode": "iso9660", "user_data": {"path": "/u"}
        });
        let expected = [
            "manifest: cloud_init.datasource",
            "manifest: cloud_init.seed_mode",
            "manifest: cloud_init.user_data.path",
        ];
        assert_eq!(paths(&of(manifest(other), None)), expected);
        // Nobody but volnet makes the disk, and it starts nothing here.
        assert_eq!(paths(&of(None, Some(json!({"cloud_init": {}})))), ["config: cloud_init"]);
    }

    #[test]
    fn what_comes_to_nothing_by_the_rest_is_said() {
        let image = json!({ "image": "web", "expose": [{"port": 80, "mode": "bridged"}] });
        assert_eq!(paths(&of(None, Some(image))), ["config: expose[0].mode", "config: image"]);
        let ports = json!({ "network": {"mode": "vsock", "expose": [{"port": 80}]} });
        let notes = of(Some(ports), None);
        assert_eq!(notes, ["manifest: network.expose: a VM in vsock mode has no ports"]);
        let versioned = json!({ "version": 3, "config": {"image": "web"} });
        assert_eq!(paths(&of(None, Some(versioned))), ["config: image"]);
    }
}
