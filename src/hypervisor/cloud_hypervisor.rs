//! Cloud Hypervisor, version 51 or later (`--disk image_type=`).
//!
//! The serial port is `tty`: the hypervisor's standard output, and its standard input if that is a
//! terminal (vmm/src/serial_manager.rs). Its own messages go to standard error. The type of an
//! image is always given: otherwise it is guessed, and a guest could choose it by writing another
//! header to its disk. Each guest has a virtio-rng device, also without `--rng`.
//!
//! `ip=` and `mask=` of `--net` are the host's side of a tap that Cloud Hypervisor makes itself.
//! The guest's address is on the kernel command line; see
//! [`super::CloudHypervisorOptions::net_ip_mask`].
//!
//! A guest that wakes has no arguments of its own. They are in [`saved`], in the VM's folder, and
//! only the descriptors of its taps are told beside it (`--restore`). It stands still until it is
//! told to go on.

pub mod saved;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{
    Architecture, Attachment, CloudHypervisorOptions, Control, EventSource, HypervisorCommand,
    Launch, LaunchNic, VSOCK_SOCKET, shares, text,
};
use crate::model::error::Refusal;
use crate::model::spec::{Disk, DiskCache, MachineSpec};

/// The kernel command line of every guest: its console, and to restart on a panic.
const CMDLINE: &str = "console=ttyS0 reboot=k panic=1";
/// The same on arm64, where the serial port is a PL011 and firmware restarts the machine.
const CMDLINE_AARCH64: &str = "console=ttyAMA0 panic=1";
/// The socket of its API.
const API_SOCKET: &str = "api.sock";
/// The FIFO of its events: `--event-monitor` opens it for writing and never waits for a reader
/// (event_monitor/src/lib.rs).
pub(super) const EVENTS: &str = "events";
/// In how many milliseconds the bucket of a limit is full again: its size is then the rate of a
/// second (docs/io_throttling.md).
const REFILL_MS: u32 = 1000;
/// Characters that a value within an option cannot have: the separators and quotes of the parser.
const SPECIAL: [char; 4] = [',', '"', '[', ']'];

/// Its arguments that say nothing of a guest, beside `-v` and those for D-Bus.
const OF_NO_GUEST: [&str; 6] =
    ["--event-monitor", "--gdb", "--log-file", "--log-format", "--no-shutdown", "--seccomp"];

/// Refuses arguments with which no guest wakes: those of the groups `vm-config` and `vm-payload` in
/// its src/main.rs need a kernel, and a guest with a kernel boots.
pub fn check_waking<'a>(args: impl IntoIterator<Item = &'a String>) -> Result<(), Refusal> {
    let is_of_guest = |arg: &&String| {
        let name = arg.split('=').next().unwrap_or_default();
        let is_of_vmm =
            OF_NO_GUEST.contains(&name) || name.starts_with("--dbus-") || name.starts_with("-v");
        name.starts_with('-') && !is_of_vmm
    };
    match args.into_iter().find(is_of_guest) {
        None => Ok(()),
        Some(arg) => {
            let reason = format!(
                "cloud-hypervisor wakes no guest with {arg:?}: take it out of the VM's args \
                     or of hypervisors.cloud-hypervisor.args in the settings"
            );
            Err(text::refuse("args", reason))
        }
    }
}

/// The command that starts a VM.
pub fn command(
    launch: &Launch,
    options: &CloudHypervisorOptions,
) -> Result<HypervisorCommand, Refusal> {
    let machine = launch.machine;
    if launch.nics.iter().any(|nic| u32::from(nic.queues) > machine.cpus) {
        let reason =
            format!("cloud-hypervisor supports at most one queue pair per CPU ({})", machine.cpus);
        return Err(text::refuse("network.queues", reason));
    }
    let api = text::in_folder(&launch.folder, API_SOCKET)?;
    let events = text::in_folder(&launch.folder, EVENTS)?;
    let mut args = vec!["--api-socket".into(), format!("path={}", plain(&api, "runtime_dir")?)];
    args.extend(["--event-monitor".into(), format!("path={}", plain(&events, "runtime_dir")?)]);
    let (mut files, mut links) = (Vec::new(), Vec::new());
    match (&machine.from, launch.saved) {
        (Some(from), Some(saved)) => {
            args.extend(["--restore".into(), restore_value(launch)?]);
            files.push(saved_file(launch, saved)?);
            links.extend(saved_links(launch, from));
        }
        _ => args.extend(boot_args(launch, options)?),
    }
    Ok(HypervisorCommand {
        program: options.program.clone(),
        args,
        files,
        links,
        directory: None,
        inherits: launch.nics.iter().flat_map(|nic| nic.fds).copied().collect(),
        helpers: shares::helpers(&machine.shares, &launch.folder, &options.share_helper)?,
        ready: None,
        control: control(&launch.folder)?,
        events: Some(EventSource::Fifo(events.into())),
    })
}

/// The arguments with which a guest boots.
fn boot_args(launch: &Launch, options: &CloudHypervisorOptions) -> Result<Vec<String>, Refusal> {
    let machine = launch.machine;
    let mut args = Vec::new();
    let mut option = |name: &str, value: String| args.extend([name.into(), value]);
    option("--kernel", text::path(launch.kernel, "kernel_override")?.into());
    if let Some(initramfs) = &machine.initramfs {
        option("--initramfs", text::path(&initramfs.path, "initramfs")?.into());
    }
    option("--cmdline", cmdline(launch)?);
    // The guest gets no virtualisation of its own, which is a large part of the host's kernel. On
    // by default (vmm/src/vm_config.rs).
    option("--cpus", format!("boot={},nested=off", machine.cpus));
    option("--memory", memory_value(machine));
    if machine.balloon {
        // It stays empty. By it the guest tells which pages it has freed (docs/balloon.md).
        option("--balloon", "size=0,deflate_on_oom=on,free_page_reporting=on".into());
    }
    option("--serial", "tty".into());
    option("--console", "off".into());
    // By this device the guest says that it panics.
    args.push("--pvpanic".into());
    if !machine.disks.is_empty() {
        args.push("--disk".into());
    }
    for disk in &machine.disks {
        args.push(disk_value(disk)?);
    }
    if !machine.shares.is_empty() {
        args.push("--fs".into());
    }
    for (index, share) in machine.shares.iter().enumerate() {
        let socket = shares::socket(&launch.folder, index)?;
        args.push(format!("tag={},socket={}", share.tag, plain(&socket, "runtime_dir")?));
    }
    args.extend(network_args(&launch.attachment(), options)?);
    Ok(args)
}

fn cmdline(launch: &Launch) -> Result<String, Refusal> {
    let cmdline = match launch.architecture {
        Architecture::X86_64 => CMDLINE,
        Architecture::Aarch64 => CMDLINE_AARCH64,
    };
    text::cmdline(cmdline, launch)
}

/// From where a guest wakes, and with which descriptors (`RestoreConfig` in vmm/src/config.rs).
fn restore_value(launch: &Launch) -> Result<String, Refusal> {
    let folder = plain(text::path(&launch.folder, "runtime_dir")?, "runtime_dir")?;
    let open = launch.nics.iter().enumerate().filter(|(_, nic)| !nic.fds.is_empty());
    let open: Vec<String> =
        open.map(|(index, nic)| format!("{}@{}", nic_id(index), list(nic.fds))).collect();
    let mut value = format!("source_url=file://{folder}");
    if !open.is_empty() {
        value += &format!(",net_fds=[{}]", open.join(","));
    }
    Ok(value)
}

fn saved_file(launch: &Launch, saved: &Value) -> Result<(PathBuf, Vec<u8>), Refusal> {
    let config = saved::configuration(launch, saved, &cmdline(launch)?)?;
    Ok((launch.folder.join(saved::CONFIGURATION), config.to_string().into()))
}

/// What is read as it was saved.
fn saved_links(launch: &Launch, from: &Path) -> [(PathBuf, PathBuf); 2] {
    [saved::STATE, saved::MEMORY].map(|name| (launch.folder.join(name), from.join(name)))
}

fn nic_id(index: usize) -> String {
    format!("net{index}")
}

/// Several numbers as one value.
fn list(numbers: &[u32]) -> String {
    format!("[{}]", numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

fn memory_value(machine: &MachineSpec) -> String {
    let mut value = format!("size={}M", machine.memory_mb);
    if machine.hugepages {
        value += ",hugepages=on,hugepage_size=2M";
    }
    if !machine.shares.is_empty() {
        // With the helpers.
        value += ",shared=on";
    }
    value
}

/// How to ask it to power its guest off.
pub fn control(folder: &Path) -> Result<Control, Refusal> {
    Ok(Control::CloudHypervisor(text::in_folder(folder, API_SOCKET)?.into()))
}

/// The arguments that connect a VM to its network.
pub fn network_args(
    attachment: &Attachment,
    options: &CloudHypervisorOptions,
) -> Result<Vec<String>, Refusal> {
    let mut args = Vec::new();
    if !attachment.nics.is_empty() {
        args.push("--net".into());
    }
    let nics = attachment.nics.iter().enumerate();
    args.extend(nics.map(|(index, nic)| net_value(index, nic, options)));
    if attachment.has_vsock() {
        let socket = text::in_folder(attachment.folder, VSOCK_SOCKET)?;
        let socket = plain(&socket, "runtime_dir")?;
        args.extend(["--vsock".into(), format!("cid={},socket={socket}", attachment.cid)]);
    }
    Ok(args)
}

fn net_value(index: usize, nic: &LaunchNic, options: &CloudHypervisorOptions) -> String {
    let mut value = match nic.fds {
        [] => format!("tap={}", nic.tap),
        fds => format!("fd={}", list(fds)),
    };
    value += &format!(",mac={},id={}", nic.mac, nic_id(index));
    if nic.queues > 1 {
        // Cloud Hypervisor counts receive and transmit queues, not pairs.
        value += &format!(",num_queues={}", nic.queues * 2);
    }
    if let (true, Some((ip, mask))) = (options.net_ip_mask, nic.lease) {
        value += &format!(",ip={ip},mask={mask}");
    }
    value
}

fn disk_value(disk: &Disk) -> Result<String, Refusal> {
    let path = plain(text::path(&disk.file.path, "disks")?, "disks")?;
    let readonly = if disk.readonly { "on" } else { "off" };
    let mut value = format!("path={path},readonly={readonly},image_type={}", disk.format.as_str());
    match disk.cache {
        DiskCache::Writeback => {}
        DiskCache::None => value += ",direct=on",
        DiskCache::Unsafe => {
            let reason = "cloud-hypervisor has no cache `unsafe`; it has `writeback` and `none`";
            return Err(text::refuse("disks.cache", reason));
        }
    }
    if let Some(bytes) = disk.limits.bytes() {
        value += &format!(",bw_size={bytes},bw_refill_time={REFILL_MS}");
    }
    if let Some(iops) = disk.limits.iops {
        value += &format!(",ops_size={iops},ops_refill_time={REFILL_MS}");
    }
    Ok(value)
}

/// A value within an option, which must not need quoting.
fn plain<'a>(value: &'a str, field: &str) -> Result<&'a str, Refusal> {
    if value.contains(SPECIAL) || value.trim() != value {
        let reason = format!(
            "cloud-hypervisor cannot take {value:?}: it has ',', '\"', '[', ']' or an outer space"
        );
        return Err(text::refuse(field, reason));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_nothing_of_a_guest_is_given_to_one_that_wakes() {
        let check = |words: &[&str]| {
            check_waking(&words.iter().map(|word| (*word).into()).collect::<Vec<String>>())
        };
        for words in [&["-v"][..], &["-vv", "--log-file=/x"], &["--seccomp", "log"], &[]] {
            assert_eq!(check(words), Ok(()), "{words:?}");
        }
        // It knows no `--verbose`, and restores from one place.
        for word in ["--watchdog", "--device=path=/x", "--kernel", "--restore", "--verbose", "-V"] {
            assert!(check(&["-v", word]).is_err(), "{word}");
        }
    }
}
