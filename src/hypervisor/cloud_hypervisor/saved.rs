//! The configuration of a guest that Cloud Hypervisor has saved, for one that wakes.
//!
//! A snapshot is a folder with `config.json`, the VM as it was configured (`VmConfig` in
//! vmm/src/vm_config.rs), `state.json`, its devices, and `memory-ranges`, its memory
//! (docs/snapshot_restore.md). Who wakes a guest from it makes the devices of `config.json`. So
//! each clone has a folder of its own, with this file changed and links to the two others. Changed
//! is what is outside of the guest: its disks, its taps, the socket of its vsock, and what it boots
//! from if it is reset. What the guest knows stays: its Ethernet address, and the context id of its
//! vsock, to which the host's side gives no meaning.
//!
//! Somebody else may have written the file. So nothing is taken from it by which a guest would
//! reach more than volnet gives it. What volnet says to a guest that boots is written as for that
//! one: its CPUs, its memory, its payload, and of each disk and NIC all that is of the host.
//! Devices and files that volnet does not know are refused. Each part has to be of its type: Cloud
//! Hypervisor also takes a list as an object, with the fields in the order of its sources (serde).

use serde_json::{Map, Value, json};

use super::REFILL_MS;
use crate::hypervisor::{Launch, LaunchNic, VSOCK_SOCKET, text};
use crate::model::error::Refusal;
use crate::model::spec::{Disk, DiskCache, DiskFormat, MachineSpec};
use crate::spec::snapshot::invalid;

/// The configuration of a guest, in the folder of a snapshot.
pub const CONFIGURATION: &str = "config.json";
/// The most bytes of it. A VM with some disks and NICs has three thousand.
pub const CONFIGURATION_BYTES_MAX: u64 = 64 << 10;
/// The state of its devices.
pub const STATE: &str = "state.json";
/// Its memory.
pub const MEMORY: &str = "memory-ranges";

/// The parts of a configuration, beside words and numbers, that volnet has asked for or leaves at
/// their defaults.
const KNOWN: [&str; 13] = [
    "balloon",
    "console",
    "cpus",
    "debug_console",
    "disks",
    "memory",
    "net",
    "payload",
    "platform",
    "rng",
    "rtc",
    "serial",
    "vsock",
];
/// Those that are lists of objects. All others are objects.
const LISTS: [&str; 2] = ["disks", "net"];
/// Where random numbers are from by default.
const RANDOM: &str = "/dev/urandom";
/// The size of its huge pages: those of `hugepage_size=2M`.
const HUGEPAGE_BYTES: u64 = 2 << 20;
/// What stands for a descriptor: its number comes by another way.
const UNTOLD: i32 = -1;

/// A part by which a guest reaches what volnet has not given it.
pub fn foreign(config: &Value) -> Option<String> {
    let is_part = |value: &Value| value.is_object() || value.is_array();
    let parts = config.as_object().into_iter().flatten();
    let mut unknown = parts.filter(|(name, value)| {
        is_part(value) && !is_empty(value) && !KNOWN.contains(&name.as_str())
    });
    if let Some((name, _)) = unknown.next() {
        return Some(name.clone());
    }
    if let Some(part) = KNOWN.into_iter().find(|part| !is_of_its_type(part, &config[*part])) {
        return Some(part.into());
    }
    let says = |part: &str, field: &str, usual: &str| {
        let value = &config[part][field];
        !is_empty(value) && value != usual
    };
    let devices = |part: &str| config[part].as_array().into_iter().flatten();
    let by_others = |part| devices(part).any(|device| !is_empty(&device["vhost_user"]));
    [
        ("memory.zones", !is_empty(&config["memory"]["zones"])),
        ("debug_console", says("debug_console", "mode", "Off")),
        ("rng", says("rng", "src", RANDOM)),
        ("disks.vhost_user", by_others("disks")),
        ("net.vhost_user", by_others("net")),
    ]
    .into_iter()
    .find_map(|(part, is_foreign)| is_foreign.then(|| part.into()))
}

/// Whether a known part is an object or a list of objects, as it should be, or is not there.
fn is_of_its_type(part: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(devices) => LISTS.contains(&part) && devices.iter().all(Value::is_object),
        Value::Object(_) => !LISTS.contains(&part),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The configuration with which the guest of this VM wakes. `cmdline` is the command line of its
/// kernel.
pub fn configuration(launch: &Launch, saved: &Value, cmdline: &str) -> Result<Value, Refusal> {
    let from = launch.machine.from.as_deref().unwrap_or(&launch.folder);
    let wrong = |reason: String| invalid(from, format!("{CONFIGURATION}: {reason}"));
    let mut config = saved.as_object().cloned().ok_or_else(|| wrong("it is no object".into()))?;
    if let Some(part) = foreign(saved) {
        return Err(wrong(format!("volnet gives no guest what its {part} says")));
    }
    exchange(&mut config, "disks", &launch.machine.disks, disk).map_err(&wrong)?;
    exchange(&mut config, "net", launch.nics, nic).map_err(&wrong)?;
    if let Some(Value::Object(vsock)) = config.get_mut("vsock") {
        vsock.insert("socket".into(), text::in_folder(&launch.folder, VSOCK_SOCKET)?.into());
    }
    let initramfs = launch.machine.initramfs.as_ref();
    let initramfs = initramfs.map(|file| text::path(&file.path, "initramfs")).transpose()?;
    let kernel = text::path(launch.kernel, "kernel_override")?;
    let payload = json!({ "kernel": kernel, "cmdline": cmdline, "initramfs": initramfs });
    config.insert("payload".into(), payload);
    config.insert("cpus".into(), cpus(launch.machine));
    config.insert("memory".into(), memory(launch.machine));
    config.insert("serial".into(), json!({ "mode": "Tty" }));
    config.insert("console".into(), json!({ "mode": "Off" }));
    Ok(config.into())
}

/// Exchanges each device of a list for the one in its place.
fn exchange<T>(
    config: &mut Map<String, Value>,
    list: &str,
    ours: &[T],
    change: impl Fn(&mut Map<String, Value>, usize, &T) -> Result<(), String>,
) -> Result<(), String> {
    let mut none = Vec::new();
    let devices = config.get_mut(list).and_then(Value::as_array_mut).unwrap_or(&mut none);
    if devices.len() != ours.len() {
        return Err(format!("it has {} {list} in place of {}", devices.len(), ours.len()));
    }
    for (index, (device, ours)) in devices.iter_mut().zip(ours).enumerate() {
        let device = device.as_object_mut().ok_or_else(|| format!("{list} has no objects"))?;
        change(device, index, ours)?;
    }
    Ok(())
}

/// What `--cpus` says ([`super::boot_args`]).
fn cpus(machine: &MachineSpec) -> Value {
    json!({ "boot_vcpus": machine.cpus, "max_vcpus": machine.cpus, "nested": false })
}

/// What `--memory` says. A guest with shared directories is not saved.
fn memory(machine: &MachineSpec) -> Value {
    let mut memory = json!({ "size": machine.memory_mb << 20, "hugepages": machine.hugepages });
    if machine.hugepages {
        memory["hugepage_size"] = HUGEPAGE_BYTES.into();
    }
    memory
}

/// What `--disk` says. The names of formats are those of `ImageType` (block/src/lib.rs).
fn disk(device: &mut Map<String, Value>, _: usize, disk: &Disk) -> Result<(), String> {
    let path = disk.file.path.to_str().ok_or("the path of a disk is not UTF-8")?;
    let format = match disk.format {
        DiskFormat::Raw => "Raw",
        DiskFormat::Qcow2 => "Qcow2",
    };
    let bucket = |size: u64| json!({ "size": size, "one_time_burst": 0, "refill_time": REFILL_MS });
    let bytes = disk.limits.bytes().map(bucket);
    let ops = disk.limits.iops.map(u64::from).map(bucket);
    let limits = match disk.limits.is_empty() {
        true => Value::Null,
        false => json!({ "bandwidth": bytes, "ops": ops }),
    };
    device.extend(fields([
        ("path", path.into()),
        ("readonly", disk.readonly.into()),
        ("direct", (disk.cache == DiskCache::None).into()),
        ("image_type", format.into()),
        ("backing_files", false.into()),
        ("rate_limiter_config", limits),
        ("rate_limit_group", Value::Null),
        ("queue_affinity", Value::Null),
    ]));
    Ok(())
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> [(String, Value); N] {
    fields.map(|(name, value)| (name.into(), value))
}

/// A NIC is given its tap as at its start: open, with descriptors for its id, or by its name.
fn nic(device: &mut Map<String, Value>, index: usize, nic: &LaunchNic) -> Result<(), String> {
    let id = super::nic_id(index);
    if device.get("id").and_then(Value::as_str) != Some(&id) {
        return Err(format!("one of its NICs is not {id}"));
    }
    let (tap, fds) = match nic.fds {
        [] => (nic.tap.into(), Value::Null),
        fds => (Value::Null, vec![UNTOLD; fds.len()].into()),
    };
    device.extend(fields([
        ("tap", tap),
        ("fds", fds),
        ("num_queues", (nic.queues * 2).into()),
        // What the host's side of the tap is given is volnet's.
        ("ip", Value::Null),
        ("mask", Value::Null),
        ("host_mac", Value::Null),
        ("mtu", Value::Null),
        ("rate_limiter_config", Value::Null),
    ]));
    Ok(())
}

/// Whether a value is what it is if nobody has said anything.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}
