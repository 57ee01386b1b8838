//! Hypervisors: which command line starts one, and the process it becomes.
//!
//! The drivers ([`qemu`], [`cloud_hypervisor`], [`firecracker`], [`template`]) are pure: a
//! [`Launch`] in, a [`Command`] out. [`command_line`] chooses among them. [`network_args`] is the
//! network part alone, for people who start their own. [`process`] spawns, watches, adopts and
//! ends; [`user`] is who they run as,
//! [`inputs`] sees to it that what a VM needs is there, `folder` holds its sockets, and [`log`] is what it said, and [`exercise`] the bodies of the fuzz targets.
//!
//! All of them keep to the same places in a VM's folder, which is empty before a start, because a
//! socket that is left over stops most hypervisors:
//!
//! | file | what it is |
//! |---|---|
//! | `serial.sock` | the guest's serial port, where the hypervisor can write it to the log as well |
//! | `qmp.sock`, `api.sock` | how the hypervisor is asked to power its guest off |
//! | `vsock.sock` | vsock as a Unix socket: connect, `CONNECT port\n`, read `OK …\n` |
//! | `vhost-vsock.sock` | between QEMU and its helper |
//! | `fc.json` | Firecracker's configuration |
//!
//! The guest's serial output goes to the VM's log. QEMU gives the serial port a socket too; Cloud
//! Hypervisor has either a socket or a file, and Firecracker only its standard output, so there the
//! log is all there is.
//!
//! The kernel command line is what the hypervisor needs, then what the network needs, then what
//! the VM says. The kernel lets the last of several equal words win, and hands all after `--` to
//! init, so the VM's own words stand last.

pub mod cloud_hypervisor;
pub mod exercise;
pub mod fake;
pub mod firecracker;
#[cfg(target_os = "linux")]
pub mod folder;
pub mod inputs;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod log;
pub mod machine;
mod options;
pub mod process;
pub mod qemu;
pub mod template;
mod text;
pub mod user;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::model::error::Refusal;
use crate::model::mac::Mac;
use crate::model::spec::MachineSpec;

pub use options::{CloudHypervisorOptions, FirecrackerOptions, Options, QemuMachine, QemuOptions};

/// The hypervisors that volnet knows by name.
pub const QEMU: &str = "qemu";
/// See [`QEMU`].
pub const CLOUD_HYPERVISOR: &str = "cloud-hypervisor";
/// See [`QEMU`].
pub const FIRECRACKER: &str = "firecracker";

/// The socket of the guest's serial port in a VM's folder.
pub const SERIAL_SOCKET: &str = "serial.sock";
/// The Unix socket of a VM's vsock in its folder.
pub const VSOCK_SOCKET: &str = "vsock.sock";
/// The longest path of a Unix socket in bytes: `sun_path` less the terminator (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// All that a driver needs to know of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// What runs in it.
    pub machine: &'a MachineSpec,
    /// The guest's kernel.
    pub kernel: &'a Path,
    /// Its place on a network; `None` in vsock mode.
    pub port: Option<LaunchPort<'a>>,
    /// Its vsock context id; given to the hypervisor in vsock mode.
    pub cid: u32,
    /// What volnet adds to the kernel command line; empty unless bridged.
    pub kernel_args: &'a str,
    /// The folder of this VM's sockets and generated files; it exists and is empty.
    pub folder: PathBuf,
    /// The VM's log, to which the hypervisor's own output is appended.
    pub log: &'a Path,
    /// The descriptor by which the hypervisor may inherit the open log.
    pub log_fd: u32,
    /// Whether the host's kernel offers vhost-vsock.
    pub vhost_vsock: bool,
    /// Whether KVM can be used.
    pub kvm: bool,
    /// The host's TSC frequency in kHz, where known (QEMU microvm without KVM needs it).
    pub tsc_khz: Option<u64>,
}

/// How a VM is joined to the world: what a hypervisor has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// Its place on a network; `None` in vsock mode.
    pub port: Option<LaunchPort<'a>>,
    /// Its vsock context id.
    pub cid: u32,
    /// The folder of its sockets.
    pub folder: &'a Path,
    /// Whether the host's kernel offers vhost-vsock.
    pub vhost_vsock: bool,
    /// The guest's memory in MiB: without vhost-vsock, QEMU has to share it with the helper.
    pub memory_mb: u64,
}

/// A tap as a hypervisor opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchPort<'a> {
    /// Link name.
    pub tap: &'a str,
    /// The guest's address.
    pub mac: Mac,
    /// Queue pairs.
    pub queues: u16,
    /// The open tap as the hypervisor inherits it, one descriptor a queue pair; empty: it opens the
    /// tap by name.
    pub fds: &'a [u32],
    /// The lease and its mask, in bridged mode. Only Cloud Hypervisor is told, and only on request.
    pub lease: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// What is to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program: a path, or a name to be found in PATH.
    pub program: String,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Files to be written before it starts.
    pub files: Vec<(PathBuf, String)>,
    /// The descriptors of which its arguments speak: it inherits these, and no others.
    pub inherits: Vec<u32>,
    /// A helper that must run beside it and ends with it (vhost-device-vsock); started first.
    pub helper: Option<Box<Command>>,
    /// The socket that is there once it serves. A helper's is waited for before the hypervisor,
    /// which connects to it, is started.
    pub ready: Option<PathBuf>,
    /// How the guest is asked to power off.
    pub control: Control,
}

/// How a hypervisor is asked to power its guest off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// QEMU's machine protocol on this socket: `system_powerdown`.
    Qmp(PathBuf),
    /// Cloud Hypervisor's API socket: `PUT /api/v1/vm.power-button`.
    CloudHypervisor(PathBuf),
    /// Firecracker's API socket: `SendCtrlAltDel`.
    Firecracker(PathBuf),
    /// Nothing but SIGTERM.
    Terminate,
}

impl Launch<'_> {
    /// How the VM is joined to the world.
    pub fn attachment(&self) -> Attachment<'_> {
        Attachment {
            port: self.port,
            cid: self.cid,
            folder: &self.folder,
            vhost_vsock: self.vhost_vsock,
            memory_mb: self.machine.memory_mb,
        }
    }
}

/// The command that starts the VM under the hypervisor of that name.
pub fn command_line(
    hypervisor: &str,
    launch: &Launch,
    options: &Options,
) -> Result<Command, Refusal> {
    text::check_folder(&launch.folder)?;
    match hypervisor {
        QEMU => qemu::command(launch, &options.qemu),
        CLOUD_HYPERVISOR => cloud_hypervisor::command(launch, &options.cloud_hypervisor),
        FIRECRACKER => firecracker::command(launch, &options.firecracker),
        name => template::command(launch, options.template(name)?),
    }
}

/// How the hypervisor of that name is asked to power its guest off.
pub fn control(hypervisor: &str, folder: &Path) -> Result<Control, Refusal> {
    match hypervisor {
        QEMU => qemu::control(folder),
        CLOUD_HYPERVISOR => cloud_hypervisor::control(folder),
        FIRECRACKER => firecracker::control(folder),
        _ => Ok(Control::Terminate),
    }
}

/// Whether the hypervisor of that name is handed its tap open. Others open it by name.
pub fn takes_open_tap(hypervisor: &str) -> bool {
    matches!(hypervisor, QEMU | CLOUD_HYPERVISOR)
}

/// The arguments that give a VM's network to the hypervisor of that name, each as one element;
/// Firecracker's is one JSON object, the network part of its configuration.
pub fn network_args(
    hypervisor: &str,
    attachment: &Attachment,
    options: &Options,
) -> Result<Vec<String>, Refusal> {
    text::check_folder(attachment.folder)?;
    match hypervisor {
        QEMU => qemu::network_args(attachment, &options.qemu),
        CLOUD_HYPERVISOR => cloud_hypervisor::network_args(attachment, &options.cloud_hypervisor),
        FIRECRACKER => firecracker::network_args(attachment),
        name => template::network_args(attachment, options.template(name)?),
    }
}

#[cfg(test)]
mod golden;
