//! Firecracker.
//!
//! It reads one JSON file (docs/getting-started.md and src/vmm/src/resources.rs of
//! github.com/firecracker-microvm/firecracker). The guest's serial port is its standard output, and
//! its standard input if that is a pipe or a terminal (src/vmm/src/devices/legacy/serial.rs). So
//! its own messages have to go elsewhere. It opens a tap by name, with one queue. It boots ELF
//! kernels, and on arm64 those that Linux's build names `Image`, from raw disks.
//!
//! **Snapshots.** What Firecracker saves of a guest has the paths of its disks and of its vsock's
//! socket, and who wakes from it finds its own there (docs/snapshotting/snapshot-support.md). Only
//! that socket and the taps can be told apart when it wakes (`network_overrides`, version 1.12 and
//! later). So each Firecracker runs in the folder of its VM, and its configuration says `disk0`,
//! `disk1` and `vsock.sock`: links of that folder, and a socket in it. One that wakes a guest is
//! started without a configuration, and is asked to load before all else ([`LOAD`]). The guest then
//! stands still until it is told to go on, as one of QEMU does.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{
    Attachment, Control, FIRECRACKER, FirecrackerOptions, HypervisorCommand, Launch, LaunchNic,
    VSOCK_SOCKET, shares, snapshot, text,
};
use crate::model::error::Refusal;
use crate::model::spec::{Disk, DiskCache, DiskFormat, DiskLimits};

/// The kernel command line of every guest: its console, and to end on a panic or a restart, which
/// are the same for Firecracker. On arm64 the serial port is a 16550, too, and the kernel passes
/// over the keyboard controller by which it would restart a PC.
const CMDLINE: &str = "console=ttyS0 reboot=k panic=1";
/// The socket of its API.
const API_SOCKET: &str = "api.sock";
/// Its configuration, in the VM's folder.
const CONFIGURATION: &str = "fc.json";
/// In the folder of a VM whose guest wakes from a snapshot: the body of the first request.
pub(super) const LOAD: &str = "load.json";
/// How much it says of itself. At its default it writes a line for each request to its API.
const LEVEL: &str = "Warn";
/// Where it says so. Without it this is standard output.
const MESSAGES: &str = "/dev/stderr";
/// The most bytes of its name for itself, which has only letters, digits and dashes
/// (src/utils/src/validators.rs).
const ID_BYTES_MAX: usize = 64;
/// The most virtual CPUs (`MAX_SUPPORTED_VCPUS` in src/vmm/src/vmm_config/machine_config.rs).
const CPUS_MAX: u32 = 32;

/// The command that starts a VM.
pub fn command(
    launch: &Launch,
    options: &FirecrackerOptions,
) -> Result<HypervisorCommand, Refusal> {
    let machine = launch.machine;
    if machine.cpus > CPUS_MAX {
        let reason = format!("firecracker supports at most {CPUS_MAX} CPUs");
        return Err(text::refuse("resources.cpu_cores", reason));
    }
    shares::refuse(&machine.shares, FIRECRACKER)?;
    let api = text::in_folder(&launch.folder, API_SOCKET)?;
    let mut args = words(&["--id", &id(launch.name), "--log-path", MESSAGES, "--level", LEVEL]);
    args.extend(words(&["--api-sock", &api]));
    let (file, contents) = match (&machine.from, launch.memory) {
        (Some(from), Some(_)) => (text::in_folder(&launch.folder, LOAD)?, load(from, launch.nics)?),
        _ => {
            let file = text::in_folder(&launch.folder, CONFIGURATION)?;
            args.extend(words(&["--config-file", &file]));
            (file, configuration(launch)?)
        }
    };
    Ok(HypervisorCommand {
        program: options.program.clone(),
        args,
        files: vec![(file.into(), contents.to_string().into())],
        links: links(launch),
        directory: Some(launch.folder.clone()),
        inherits: Vec::new(),
        helpers: Vec::new(),
        ready: None,
        control: control(&launch.folder)?,
        events: None,
    })
}

/// What a guest boots from.
fn configuration(launch: &Launch) -> Result<Value, Refusal> {
    let machine = launch.machine;
    let mut boot = Map::new();
    let kernel = text::path(launch.kernel, "kernel_override")?;
    boot.insert("kernel_image_path".into(), kernel.into());
    if let Some(initramfs) = &machine.initramfs {
        let path = text::path(&initramfs.path, "initramfs")?;
        boot.insert("initrd_path".into(), path.into());
    }
    boot.insert("boot_args".into(), text::cmdline(CMDLINE, launch)?.into());
    let drives = machine.disks.iter().enumerate().map(|(index, disk)| drive(index, disk));
    let mut config = network(&launch.attachment(), VSOCK_SOCKET)?;
    config.insert("boot-source".into(), boot.into());
    config.insert("drives".into(), drives.collect::<Result<Vec<_>, _>>()?.into());
    let mut resources = json!({"vcpu_count": machine.cpus, "mem_size_mib": machine.memory_mb});
    if machine.hugepages {
        resources["huge_pages"] = "2M".into();
    }
    config.insert("machine-config".into(), resources);
    if machine.balloon {
        config.insert("balloon".into(), balloon());
    }
    if machine.rng {
        config.insert("entropy".into(), json!({}));
    }
    Ok(config.into())
}

/// What a guest wakes from (src/firecracker/swagger/firecracker.yaml, `SnapshotLoadParams`). Its
/// memory is that file as long as it does not write: nobody may change it.
fn load(from: &Path, nics: &[LaunchNic]) -> Result<Value, Refusal> {
    let file = |name: &str| text::in_folder(from, name);
    let taps = nics.iter().enumerate();
    let taps: Vec<Value> = taps
        .map(|(index, nic)| json!({"iface_id": interface_id(index), "host_dev_name": nic.tap}))
        .collect();
    Ok(json!({
        "snapshot_path": file(snapshot::STATE)?,
        "mem_backend": {"backend_path": file(snapshot::MEMORY)?, "backend_type": "File"},
        "network_overrides": taps,
    }))
}

/// By these it finds its disks.
fn links(launch: &Launch) -> Vec<(PathBuf, PathBuf)> {
    let disks = launch.machine.disks.iter().enumerate();
    disks
        .map(|(index, disk)| (launch.folder.join(disk_id(index)), disk.file.path.clone()))
        .collect()
}

fn disk_id(index: usize) -> String {
    format!("disk{index}")
}

fn interface_id(index: usize) -> String {
    format!("net{index}")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| String::from(*word)).collect()
}

/// A balloon that stays empty, and by which the guest tells which pages it has freed
/// (docs/ballooning.md).
fn balloon() -> Value {
    json!({"amount_mib": 0, "deflate_on_oom": true, "free_page_reporting": true})
}

/// What it calls itself in its log: the VM's name, with dashes for what it does not take.
fn id(name: &str) -> String {
    let plain = |byte: char| if byte.is_ascii_alphanumeric() { byte } else { '-' };
    name.chars().take(ID_BYTES_MAX).map(plain).collect()
}

/// How to ask it to power its guest off.
pub fn control(folder: &Path) -> Result<Control, Refusal> {
    Ok(Control::Firecracker(text::in_folder(folder, API_SOCKET)?.into()))
}

/// The network part of the configuration, as one JSON object.
pub fn network_args(attachment: &Attachment) -> Result<Vec<String>, Refusal> {
    let uds = text::in_folder(attachment.folder, VSOCK_SOCKET)?;
    Ok(vec![Value::Object(network(attachment, &uds)?).to_string()])
}

fn network(attachment: &Attachment, uds: &str) -> Result<Map<String, Value>, Refusal> {
    let mut config = Map::new();
    if attachment.has_vsock() {
        config.insert("vsock".into(), json!({"guest_cid": attachment.cid, "uds_path": uds}));
    }
    if attachment.nics.is_empty() {
        return Ok(config);
    }
    let nics = attachment.nics.iter().enumerate();
    let interfaces: Vec<Value> =
        nics.map(|(index, nic)| interface(index, nic)).collect::<Result<_, _>>()?;
    config.insert("network-interfaces".into(), interfaces.into());
    Ok(config)
}

fn interface(index: usize, nic: &LaunchNic) -> Result<Value, Refusal> {
    if nic.queues > 1 {
        let reason = "firecracker has one queue pair an interface";
        return Err(text::refuse("network.queues", reason));
    }
    if !nic.fds.is_empty() {
        let reason = "firecracker opens a tap by name and takes no descriptor";
        return Err(text::refuse("hypervisor", reason));
    }
    let mut interface = json!({
        "iface_id": interface_id(index),
        "guest_mac": nic.mac.to_string(),
        "host_dev_name": nic.tap
    });
    if let Some(mtu) = nic.odd_mtu() {
        interface["mtu"] = mtu.into();
    }
    Ok(interface)
}

/// Buckets that are full again after a second (src/firecracker/swagger/firecracker.yaml).
fn rate_limiter(limits: &DiskLimits) -> Option<Value> {
    let bucket = |size: u64| json!({"size": size, "refill_time": 1000});
    let mut limiter = Map::new();
    limiter.extend(limits.bytes().map(|bytes| ("bandwidth".into(), bucket(bytes))));
    limiter.extend(limits.iops.map(|iops| ("ops".into(), bucket(iops.into()))));
    (!limiter.is_empty()).then(|| limiter.into())
}

/// A disk. No disk is the root device, because Firecracker would add a `root=` of its own to ours.
fn drive(index: usize, disk: &Disk) -> Result<Value, Refusal> {
    match disk.format {
        DiskFormat::Raw => {
            let mut drive = json!({
                "drive_id": disk_id(index),
                "path_on_host": disk_id(index),
                "is_root_device": false,
                "is_read_only": disk.readonly,
            });
            match disk.cache {
                // Otherwise it offers no flush to the guest (docs/api_requests/block-caching.md):
                // data that the guest has synced would be lost if the host dies.
                DiskCache::Writeback if !disk.readonly => drive["cache_type"] = "Writeback".into(),
                DiskCache::Writeback => {}
                DiskCache::Unsafe => drive["cache_type"] = "Unsafe".into(),
                DiskCache::None => {
                    let reason = "firecracker has no cache `none`; it has `writeback` and `unsafe`";
                    return Err(text::refuse("disks.cache", reason));
                }
            }
            if let Some(limiter) = rate_limiter(&disk.limits) {
                drive["rate_limiter"] = limiter;
            }
            Ok(drive)
        }
        DiskFormat::Qcow2 => {
            let path = disk.file.path.display();
            Err(text::refuse("disks", format!("firecracker cannot use a qcow2 disk: {path}")))
        }
    }
}
