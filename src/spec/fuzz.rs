//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

use serde_json::Value;

use super::*;
use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::nic::NICS_MAX;
use crate::model::spec::{ADDRESSES_MAX, VmSpec};

/// A manifest makes the same VM each time it is read, or the refusal names the wrong field.
pub fn manifest(bytes: &[u8]) {
    let notes_of = |value: &Value, spec: &VmSpec| notes(Some(value), None, spec);
    document(bytes, |value| resolve(Some(value), None), notes_of, |spec| spec.manifest.as_ref());
}

/// So does a configuration.
pub fn vm_config(bytes: &[u8]) {
    let notes_of = |value: &Value, spec: &VmSpec| notes(None, Some(value), spec);
    document(bytes, |value| resolve(None, Some(value)), notes_of, |spec| spec.config.as_ref());
}

fn document(
    bytes: &[u8],
    resolve: fn(&Value) -> Result<VmSpec, Refusal>,
    notes: fn(&Value, &VmSpec) -> Vec<String>,
    kept: fn(&VmSpec) -> Option<&Kept>,
) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    match resolve(&value) {
        Ok(spec) => {
            check(&spec);
            for note in notes(&value, &spec) {
                let field = note.split(": ").nth(1).expect("it names the field");
                assert!(is_somewhere(field, &value), "{note:?} is nowhere in {value}");
            }
            // A start reads the texts out of what was kept.
            cloud_init(&spec).expect("what was accepted is read again");
            let written = serde_json::to_vec(&spec).expect("a record can be written");
            assert_eq!(serde_json::from_slice::<VmSpec>(&written).unwrap(), spec);
            let kept = kept(&spec).map_or(Value::Null, |kept| kept.as_str().parse().unwrap());
            assert_eq!(resolve(&kept), Ok(spec));
        }
        Err(Refusal::InvalidManifest { field, .. } | Refusal::InvalidConfig { field, .. }) => {
            assert!(is_somewhere(&field, &value), "{field:?} is nowhere in {value}");
        }
        Err(refusal) => panic!("{refusal:?}"),
    }
}

/// The properties that other code relies on.
fn check(spec: &VmSpec) {
    assert!((1..=NICS_MAX).contains(&spec.networks.len()));
    for network in &spec.networks {
        let has_tap = network.mode.needs_tap_device();
        assert!(has_tap || spec.networks.len() == 1);
        assert!(network.ip.is_none() || network.mode.needs_ip_allocation());
        assert!(network.addresses.is_empty() || has_tap);
        assert!(network.addresses.len() <= ADDRESSES_MAX);
        assert!(network.mac.is_none_or(|mac| mac.is_usable() && has_tap));
        assert!(network.mtu.is_none_or(|mtu| (MTU_MIN..=MTU_MAX).contains(&mtu.into())));
        assert!(network.queues.is_none_or(|queues| (1..=QUEUES_MAX).contains(&queues.into())));
    }
    let Some(machine) = &spec.machine else { return };
    assert!((1..=CPUS_MAX).contains(&machine.cpus.into()));
    assert!((MEMORY_MB_MIN..=MEMORY_MB_MAX).contains(&machine.memory_mb));
    assert!(machine.disks.len() <= DISKS_MAX);
    let disks = machine.disks.iter().map(|disk| &disk.file);
    for file in disks.chain(&machine.kernel).chain(&machine.initramfs) {
        assert!(file.path.is_absolute() && file.path.as_os_str().len() <= PATH_BYTES_MAX);
        assert!(file.sha256.as_ref().is_none_or(|digits| digits.len() == 64));
    }
}

/// Whether a field is a place inside a document, or in the configuration that stands in it.
fn is_somewhere(field: &str, value: &Value) -> bool {
    let inner = value.get("config");
    leads_somewhere(field, "", value) || inner.is_some_and(|it| leads_somewhere(field, "", it))
}

/// Whether a field is a place inside the value at `path`, or is missing from an object there.
fn leads_somewhere(field: &str, path: &str, value: &Value) -> bool {
    let joined = |name: &str| if path.is_empty() { name.into() } else { format!("{path}.{name}") };
    let below = |(path, value): (String, &Value)| {
        field.starts_with(&path) && leads_somewhere(field, &path, value)
    };
    let here = field == path || path.is_empty() && field == "(document)";
    here || match value {
        Value::Object(map) => {
            let lacks = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            map.iter().map(|(name, value)| (joined(name), value)).any(below)
                || field.strip_prefix(&joined("")).is_some_and(lacks)
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, value)| (format!("{path}[{index}]"), value)).any(below)
        }
        _ => false,
    }
}
