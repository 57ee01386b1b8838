//! Hypervisors: which command line starts one, and the process it becomes.
//!
//! The drivers ([`qemu`], [`cloud_hypervisor`], [`firecracker`], [`template`]) are pure: a
//! [`Launch`] in, a [`Command`] out. [`process`] spawns, watches, adopts and ends.

pub mod process;

use std::path::{Path, PathBuf};

use crate::engine::mac::Mac;
use crate::spec::MachineSpec;

/// The hypervisors that volnet knows by name.
pub const QEMU: &str = "qemu";
/// See [`QEMU`].
pub const CLOUD_HYPERVISOR: &str = "cloud-hypervisor";
/// See [`QEMU`].
pub const FIRECRACKER: &str = "firecracker";

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
    /// Whether the host's kernel offers vhost-vsock.
    pub vhost_vsock: bool,
    /// Whether KVM can be used.
    pub kvm: bool,
    /// The host's TSC frequency in kHz, where known (QEMU microvm without KVM needs it).
    pub tsc_khz: Option<u64>,
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
