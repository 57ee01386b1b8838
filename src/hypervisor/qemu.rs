//! QEMU.
//!
//! The machine is `microvm` (virtio-mmio, no PCI) unless the settings say `q35`; on arm64 it is
//! `virt`. QEMU has only the devices of its arguments: no default devices, no configuration of the
//! user.
//!
//! On `virt`, virtio is on PCI: the kernel finds its virtio-mmio devices last to first, and a guest
//! with two disks or NICs would have their names swapped.
//!
//! Without KVM the kernel command line must have the TSC's frequency: a microvm has neither HPET
//! nor PM timer to measure it, and some boots hang. KVM runs only guests of the host's
//! architecture; a machine of another one is emulated.
//!
//! The guest's serial port is standard input and output. QEMU's own messages go to standard error.
//!
//! With `vhost=on`, QEMU 7.2 aborts if it cannot open `/dev/vhost-net`. So vhost-net is a setting,
//! and a host that lacks it is refused before.
//!
//! vsock needs vhost-vsock in the host's kernel. Without it, a helper speaks vhost-user. So do the
//! helpers of [`shares`]. QEMU shares the guest's memory with helpers.

use std::path::Path;

use super::{
    Architecture, Attachment, Control, EventSource, HypervisorCommand, Launch, LaunchNic,
    QemuMachine, QemuOptions, VSOCK_SOCKET, shares, text,
};
use crate::model::error::Refusal;
use crate::model::spec::{Disk, DiskCache, Share};

/// The kernel command line of every guest: its console, and to end on a panic or a restart instead
/// of hanging (with `-no-reboot`, QEMU ends, too).
const CMDLINE: &str = "console=ttyS0 reboot=t panic=-1";
/// The same on arm64, where the serial port is a PL011 and firmware restarts the machine.
const CMDLINE_AARCH64: &str = "console=ttyAMA0 panic=-1";
/// The socket of its machine protocol.
const QMP_SOCKET: &str = "qmp.sock";
/// The socket of its machine protocol on which it tells of events. Others have a client of their
/// own on the first one.
pub(super) const EVENTS_SOCKET: &str = "events.sock";
/// The socket between QEMU and the vsock helper.
const HELPER_SOCKET: &str = "vhost-vsock.sock";
/// The id of the memory that is not QEMU's own.
const MEMORY: &str = "mem0";
/// Memory as a helper needs it: QEMU shares it with others.
const SHARED: &str = ",share=on";
/// Huge pages. All are taken at the start: if the host has too few, it fails then and not later.
const HUGE: &str = ",hugetlb=on,hugetlbsize=2M,prealloc=on";

/// The command that starts a VM.
pub fn command(launch: &Launch, options: &QemuOptions) -> Result<HypervisorCommand, Refusal> {
    let machine = launch.machine;
    let qmp = text::in_folder(&launch.folder, QMP_SOCKET)?;
    let mut args = words(&["-name", launch.name, "-machine", &machine_option(launch, options)]);
    args.extend(words(&["-cpu", cpu(launch, options)]));
    args.extend(["-smp".into(), machine.cpus.to_string()]);
    args.extend(["-m".into(), format!("{}M", machine.memory_mb)]);
    args.extend(words(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]));
    args.extend(words(&["-chardev", "stdio,id=serial0,signal=off", "-serial", "chardev:serial0"]));
    let events = text::in_folder(&launch.folder, EVENTS_SOCKET)?;
    for socket in [&qmp, &events] {
        args.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", escaped(socket))]);
    }
    args.extend(words(&["-device", pvpanic(options.machine)]));
    args.extend(words(&["-kernel", text::path(launch.kernel, "kernel_override")?]));
    if let Some(initramfs) = &machine.initramfs {
        args.extend(words(&["-initrd", text::path(&initramfs.path, "initramfs")?]));
    }
    args.extend(["-append".into(), cmdline(launch, options)?]);
    for (index, disk) in machine.disks.iter().enumerate() {
        args.extend(disk_args(index, disk, options)?);
    }
    if machine.balloon {
        // It stays empty. By it the guest tells which pages it has freed.
        let balloon = device("virtio-balloon", options.machine);
        args.extend(["-device".into(), format!("{balloon},free-page-reporting=on")]);
    }
    if machine.rng {
        args.extend(["-device".into(), device("virtio-rng", options.machine)]);
    }
    let attachment = launch.attachment();
    let mut helpers: Vec<_> = vsock_helper(&attachment, options)?.into_iter().collect();
    helpers.extend(shares::helpers(&machine.shares, &launch.folder, &options.share_helper)?);
    if !helpers.is_empty() || machine.hugepages {
        args.extend(memory_args(machine.memory_mb, !helpers.is_empty(), machine.hugepages));
    }
    for (index, share) in machine.shares.iter().enumerate() {
        args.extend(share_args(index, share, launch, options)?);
    }
    args.extend(nic_args(&attachment, options));
    args.extend(vsock_args(&attachment, options)?);
    if let Some(memory) = launch.memory {
        // The guest stood still when it was saved, and does so when it wakes.
        args.extend(["-incoming".into(), format!("fd:{memory}")]);
    }
    let taps = launch.nics.iter().flat_map(|nic| nic.fds);
    Ok(HypervisorCommand {
        program: options.program.clone(),
        args,
        files: Vec::new(),
        links: Vec::new(),
        directory: None,
        inherits: taps.copied().chain(launch.memory).collect(),
        helpers,
        ready: None,
        control: control(&launch.folder)?,
        events: Some(EventSource::Qmp(events.into())),
    })
}

/// How to ask it to power its guest off.
pub fn control(folder: &Path) -> Result<Control, Refusal> {
    Ok(Control::Qmp(text::in_folder(folder, QMP_SOCKET)?.into()))
}

/// The arguments that connect a VM to its network.
pub fn network_args(
    attachment: &Attachment,
    options: &QemuOptions,
) -> Result<Vec<String>, Refusal> {
    let mut args = nic_args(attachment, options);
    if vsock_helper(attachment, options)?.is_some() {
        args.extend(memory_args(attachment.memory_mb, true, false));
    }
    args.extend(vsock_args(attachment, options)?);
    Ok(args)
}

fn nic_args(attachment: &Attachment, options: &QemuOptions) -> Vec<String> {
    let nics = attachment.nics.iter().enumerate();
    nics.flat_map(|(index, nic)| tap_args(index, nic, options)).collect()
}

fn tap_args(index: usize, nic: &LaunchNic, options: &QemuOptions) -> Vec<String> {
    let mut netdev = format!("tap,id=net{index},");
    netdev += &match nic.fds {
        // QEMU refuses the script options with a descriptor, and needs them with a name.
        [] => format!("ifname={},script=no,downscript=no", nic.tap),
        [fd] => format!("fd={fd}"),
        fds => format!("fds={}", fds.iter().map(u32::to_string).collect::<Vec<_>>().join(":")),
    };
    if options.vhost_net {
        netdev += ",vhost=on";
    }
    let mut device =
        format!("{},netdev=net{index},mac={}", device("virtio-net", options.machine), nic.mac);
    if let Some(mtu) = nic.odd_mtu() {
        device += &format!(",host_mtu={mtu}");
    }
    if nic.queues > 1 {
        if nic.fds.is_empty() {
            netdev += &format!(",queues={}", nic.queues);
        }
        device += ",mq=on";
    }
    match options.machine {
        QemuMachine::Microvm => {}
        // No boot ROM: nothing is booted from the network.
        QemuMachine::Q35 | QemuMachine::Virt => device += ",romfile=",
    }
    vec!["-netdev".into(), netdev, "-device".into(), device]
}

fn vsock_args(attachment: &Attachment, options: &QemuOptions) -> Result<Vec<String>, Refusal> {
    if !attachment.has_vsock() {
        return Ok(Vec::new());
    }
    if attachment.vhost_vsock {
        let device = device("vhost-vsock", options.machine);
        return Ok(vec!["-device".into(), format!("{device},guest-cid={}", attachment.cid)]);
    }
    let socket = text::in_folder(attachment.folder, HELPER_SOCKET)?;
    Ok(vec![
        "-chardev".into(),
        format!("socket,id=vsock0,path={}", escaped(&socket)),
        "-device".into(),
        format!("{},chardev=vsock0", device("vhost-user-vsock", options.machine)),
    ])
}

/// The guest's memory as an object of its own.
fn memory_args(mib: u64, shared: bool, huge: bool) -> Vec<String> {
    let (shared, huge) = (if shared { SHARED } else { "" }, if huge { HUGE } else { "" });
    vec![
        "-object".into(),
        format!("memory-backend-memfd,id={MEMORY},size={mib}M{shared}{huge}"),
        "-machine".into(),
        format!("memory-backend={MEMORY}"),
    ]
}

/// A device that speaks to its helper on a socket.
fn share_args(
    index: usize,
    share: &Share,
    launch: &Launch,
    options: &QemuOptions,
) -> Result<Vec<String>, Refusal> {
    let socket = escaped(&shares::socket(&launch.folder, index)?);
    let device = device("vhost-user-fs", options.machine);
    Ok(vec![
        "-chardev".into(),
        format!("socket,id=share{index},path={socket}"),
        "-device".into(),
        format!("{device},chardev=share{index},tag={}", share.tag),
    ])
}

/// The helper for the guest's vsock, if the host's kernel has none.
fn vsock_helper(
    attachment: &Attachment,
    options: &QemuOptions,
) -> Result<Option<HypervisorCommand>, Refusal> {
    if !attachment.has_vsock() || attachment.vhost_vsock {
        return Ok(None);
    }
    let socket = text::in_folder(attachment.folder, HELPER_SOCKET)?;
    let uds = text::in_folder(attachment.folder, VSOCK_SOCKET)?;
    let cid = attachment.cid.to_string();
    let args = words(&["--guest-cid", &cid, "--socket", &socket, "--uds-path", &uds]);
    Ok(Some(HypervisorCommand::helper(&options.vsock_helper, args, socket.into())))
}

fn machine_option(launch: &Launch, options: &QemuOptions) -> String {
    let machine = match options.machine {
        QemuMachine::Microvm => "microvm",
        QemuMachine::Q35 => "q35",
        // By default it has an interrupt controller for at most eight processors.
        QemuMachine::Virt => "virt,gic-version=max",
    };
    format!("{machine},accel={}", if has_kvm(launch, options) { "kvm" } else { "tcg" })
}

/// Whether the guest runs by KVM.
fn has_kvm(launch: &Launch, options: &QemuOptions) -> bool {
    launch.kvm && launch.architecture == options.machine.architecture()
}

fn cpu(launch: &Launch, options: &QemuOptions) -> &'static str {
    match (has_kvm(launch, options), options.machine.architecture()) {
        (true, _) => "host",
        (false, Architecture::X86_64) => "max",
        // The architecture's own algorithm to sign pointers takes most of the time to emulate.
        (false, Architecture::Aarch64) => "max,pauth-impdef=on",
    }
}

fn cmdline(launch: &Launch, options: &QemuOptions) -> Result<String, Refusal> {
    match (options.machine.architecture(), launch.tsc_khz) {
        (Architecture::X86_64, Some(khz)) if !has_kvm(launch, options) => {
            text::cmdline(&format!("{CMDLINE} tsc_early_khz={khz}"), launch)
        }
        (Architecture::X86_64, _) => text::cmdline(CMDLINE, launch),
        (Architecture::Aarch64, _) => text::cmdline(CMDLINE_AARCH64, launch),
    }
}

fn disk_args(index: usize, disk: &Disk, options: &QemuOptions) -> Result<Vec<String>, Refusal> {
    let path = escaped(text::path(&disk.file.path, "disks")?);
    let format = disk.format.as_str();
    let mut drive = format!("if=none,id=disk{index},format={format},file={path}");
    if disk.readonly {
        drive += ",read-only=on";
    }
    if disk.cache != DiskCache::Writeback {
        drive += &format!(",cache={}", disk.cache.as_str());
    }
    if let Some(bytes) = disk.limits.bytes() {
        drive += &format!(",throttling.bps-total={bytes}");
    }
    if let Some(iops) = disk.limits.iops {
        drive += &format!(",throttling.iops-total={iops}");
    }
    let device = format!("{},drive=disk{index}", device("virtio-blk", options.machine));
    Ok(words(&["-drive", &drive, "-device", &device]))
}

/// The name of a device on the machine's bus.
fn device(name: &str, machine: QemuMachine) -> String {
    match machine {
        QemuMachine::Microvm => format!("{name}-device"),
        QemuMachine::Q35 | QemuMachine::Virt => format!("{name}-pci"),
    }
}

/// The device by which the guest says that it panics. The older one needs no PCI, and is known to
/// older guests.
fn pvpanic(machine: QemuMachine) -> &'static str {
    match machine {
        QemuMachine::Microvm | QemuMachine::Q35 => "pvpanic",
        QemuMachine::Virt => "pvpanic-pci",
    }
}

/// A value within an option. QEMU reads a doubled comma as a comma of the value.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| String::from(*word)).collect()
}
