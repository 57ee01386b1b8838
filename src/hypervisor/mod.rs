//! Hypervisors: their command lines and their processes.
//!
//! The drivers ([`qemu`], [`cloud_hypervisor`], [`firecracker`], [`template`]) are pure: they turn
//! a [`Launch`] into a [`HypervisorCommand`]. [`command_line`] chooses among them. [`network_args`]
//! is only the network part, for people who start their own hypervisor. [`shares`] has the helpers
//! that serve directories to guests. [`process`] spawns, watches, adopts and ends processes.
//! [`user`] is their user, [`handover`] gives it the disks, [`cgroup`] limits it, [`snapshot`] is
//! for guests that wake from one, [`inputs`] checks the files of a VM, [`hardware`] says what
//! the host has for it, `folder` has its sockets, [`log`] reads the end of its log, which `bounded`
//! keeps within its bound, and `fuzz` has the bodies of the fuzz targets.
//!
//! All use the same names in a VM's folder. The folder is empty before a start, because an old
//! socket stops most hypervisors:
//!
//! | file | what it is |
//! |---|---|
//! | `qmp.sock`, `api.sock` | how the hypervisor is asked to power its guest off |
//! | `vsock.sock` | vsock as a Unix socket: connect, `CONNECT port\n`, read `OK …\n` |
//! | `vhost-vsock.sock`, `share0.sock` … | between a hypervisor and its helpers |
//! | `events`, `events.sock` | how volnet hears of a reset or a panic of the guest |
//! | `fc.json` | Firecracker's configuration |
//! | `load.json` | what Firecracker is asked first, if its guest wakes from a snapshot |
//! | `disk0` … | links by which Firecracker finds its disks |
//! | `config.json` | how Cloud Hypervisor configures a guest that wakes from a snapshot |
//! | `state.json`, `memory-ranges` | links to what Cloud Hypervisor has saved of it |
//! | `seed.img` | the disk for cloud-init, see [`seed`] |
//!
//! The guest's serial port is the hypervisor's standard input and output, which lead to the VM's
//! log and its console ([`linux::keeper`]). Its own messages go to standard error.
//!
//! The kernel command line has the hypervisor's part, then the network's part, then the VM's own.
//! If a parameter comes twice, the last wins, and the kernel passes everything after `--` to init.
//! So the VM's own part is last.

mod architecture;
#[cfg(unix)]
pub mod bounded;
pub mod cgroup;
pub mod cloud_hypervisor;
#[cfg(unix)]
pub mod disks;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod fat;
pub mod firecracker;
#[cfg(target_os = "linux")]
pub mod folder;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod handover;
pub mod hardware;
pub mod inputs;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod log;
pub mod machine;
mod options;
pub mod own_disks;
pub mod process;
pub mod qemu;
pub mod seed;
pub mod shares;
pub mod snapshot;
pub mod template;
mod text;
pub mod user;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::error::Refusal;
use crate::model::mac::Mac;
use crate::model::spec::{MachineSpec, VmSpec};

pub use architecture::Architecture;
pub use options::{CloudHypervisorOptions, FirecrackerOptions, Options, QemuMachine, QemuOptions};

/// The hypervisors that volnet knows by name.
pub const QEMU: &str = "qemu";
/// See [`QEMU`].
pub const CLOUD_HYPERVISOR: &str = "cloud-hypervisor";
/// See [`QEMU`].
pub const FIRECRACKER: &str = "firecracker";

/// The Unix socket of a VM's vsock in its folder.
pub const VSOCK_SOCKET: &str = "vsock.sock";
/// The MTU of an interface that is told no other.
const ETHERNET_MTU: u16 = 1500;
/// The longest path of a Unix socket in bytes: `sun_path` less the terminator (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest runtime directory in bytes: all sockets of a VM whose name has one letter fit.
pub const RUNTIME_DIR_BYTES_MAX: usize =
    SOCKET_PATH_BYTES_MAX - "/vm/a/".len() - text::LONGEST_OF_VSOCK.len();

/// The input of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// The machine.
    pub machine: &'a MachineSpec,
    /// The guest's kernel.
    pub kernel: &'a Path,
    /// Its NICs; none in vsock mode.
    pub nics: &'a [LaunchNic<'a>],
    /// Its vsock context id; given to the hypervisor if the guest has vsock.
    pub cid: u32,
    /// Whether the guest has vsock beside its NICs. Without NICs it always has.
    pub vsock: bool,
    /// volnet's part of the kernel command line; empty unless bridged.
    pub kernel_args: &'a str,
    /// The folder of this VM's sockets and generated files; it exists and is empty.
    pub folder: PathBuf,
    /// Whether the host's kernel offers vhost-vsock.
    pub vhost_vsock: bool,
    /// The host's architecture. Guests have the same, unless QEMU's machine is of another one.
    pub architecture: Architecture,
    /// Whether KVM can be used.
    pub kvm: bool,
    /// The host's TSC frequency in kHz, where known (QEMU microvm without KVM needs it).
    pub tsc_khz: Option<u64>,
    /// The memory of the snapshot from which the guest wakes: an open file that the hypervisor
    /// inherits.
    pub memory: Option<u32>,
    /// How Cloud Hypervisor had configured the guest that it has saved; `None`: it boots, or
    /// another hypervisor wakes it.
    pub saved: Option<&'a Value>,
}

/// The connection of a VM to the network, for its hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// Its NICs; none in vsock mode.
    pub nics: &'a [LaunchNic<'a>],
    /// Its vsock context id.
    pub cid: u32,
    /// Whether the guest has vsock beside its NICs. Without NICs it always has.
    pub vsock: bool,
    /// The folder of its sockets.
    pub folder: &'a Path,
    /// Whether the host's kernel offers vhost-vsock.
    pub vhost_vsock: bool,
    /// The guest's memory in MiB: without vhost-vsock, QEMU has to share it with the helper.
    pub memory_mb: u64,
}

/// A NIC as a hypervisor is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchNic<'a> {
    /// Link name.
    pub tap: &'a str,
    /// The guest's address.
    pub mac: Mac,
    /// Queue pairs.
    pub queues: u16,
    /// The MTU of the tap and of the guest's interface.
    pub mtu: u16,
    /// The open tap that the hypervisor inherits, one descriptor per queue pair. If empty, it opens
    /// the tap by name.
    pub fds: &'a [u32],
    /// The lease and its mask, in bridged mode. Only Cloud Hypervisor gets it, and only if the
    /// settings say so.
    pub lease: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// A command to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HypervisorCommand {
    /// The program: a path, or a name to be found in PATH.
    pub program: String,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Files to be written before it starts.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Links to be made before it starts: each with what it leads to.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// The directory that it runs in; `None`: the daemon's.
    pub directory: Option<PathBuf>,
    /// The descriptors that its arguments name. It inherits only these.
    pub inherits: Vec<u32>,
    /// Helpers that must run beside it and end with it (vhost-device-vsock, virtiofsd); started
    /// first.
    pub helpers: Vec<HypervisorCommand>,
    /// A socket that exists once the program serves. The hypervisor is started after the sockets of
    /// its helpers exist, because it connects to them.
    pub ready: Option<PathBuf>,
    /// How to ask the guest to power off.
    pub control: Control,
    /// How the hypervisor tells what becomes of its guest; `None`: only by its end.
    pub events: Option<EventSource>,
}

/// How a hypervisor tells what becomes of its guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// Cloud Hypervisor writes it to this FIFO, which is made before the start.
    Fifo(PathBuf),
    /// QEMU tells it on this socket of its machine protocol.
    Qmp(PathBuf),
}

/// How to ask a hypervisor to power its guest off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// QEMU's machine protocol on this socket: `system_powerdown`.
    Qmp(PathBuf),
    /// Cloud Hypervisor's API socket: `PUT /api/v1/vm.power-button`.
    CloudHypervisor(PathBuf),
    /// Firecracker's API socket: `SendCtrlAltDel`.
    Firecracker(PathBuf),
    /// Only SIGTERM.
    Terminate,
}

impl HypervisorCommand {
    /// A helper, which serves once this socket exists.
    fn helper(program: &str, args: Vec<String>, socket: PathBuf) -> HypervisorCommand {
        HypervisorCommand {
            program: program.into(),
            args,
            files: Vec::new(),
            links: Vec::new(),
            directory: None,
            inherits: Vec::new(),
            helpers: Vec::new(),
            ready: Some(socket),
            control: Control::Terminate,
            events: None,
        }
    }
}

impl LaunchNic<'_> {
    /// The MTU, if the guest has to be told: without `VIRTIO_NET_F_MTU` it takes 1500 (virtio 1.2,
    /// 5.1.4). Cloud Hypervisor reads it from the tap.
    fn odd_mtu(&self) -> Option<u16> {
        (self.mtu != ETHERNET_MTU).then_some(self.mtu)
    }
}

impl Attachment<'_> {
    /// Whether the guest has vsock.
    fn has_vsock(&self) -> bool {
        self.vsock || self.nics.is_empty()
    }
}

impl Launch<'_> {
    /// The connection of the VM to the network.
    pub fn attachment(&self) -> Attachment<'_> {
        Attachment {
            nics: self.nics,
            cid: self.cid,
            vsock: self.vsock,
            folder: &self.folder,
            vhost_vsock: self.vhost_vsock,
            memory_mb: self.machine.memory_mb,
        }
    }
}

/// Refuses a VM whose folder would have sockets with paths that are too long.
pub fn check_folder(folder: &Path, spec: &VmSpec) -> Result<(), Refusal> {
    match spec.machine.is_some() || spec.has_vsock() {
        true => text::check_folder(folder, spec.has_vsock()),
        false => Ok(()),
    }
}

/// The command that starts the VM under the hypervisor of that name.
pub fn command_line(
    hypervisor: &str,
    launch: &Launch,
    options: &Options,
) -> Result<HypervisorCommand, Refusal> {
    text::check_folder(&launch.folder, launch.attachment().has_vsock())?;
    let mut command = match hypervisor {
        QEMU => qemu::command(launch, &options.qemu),
        CLOUD_HYPERVISOR => cloud_hypervisor::command(launch, &options.cloud_hypervisor),
        FIRECRACKER => firecracker::command(launch, &options.firecracker),
        name => template::command(launch, options.template(name)?),
    }?;
    if launch.saved.is_some() {
        check_waking(hypervisor, launch.machine, options)?;
    }
    command.args.extend_from_slice(options.args(hypervisor));
    command.args.extend_from_slice(&launch.machine.args);
    Ok(command)
}

/// Refuses a machine that the hypervisor of that name could not wake for its arguments.
pub fn check_waking(
    hypervisor: &str,
    machine: &MachineSpec,
    options: &Options,
) -> Result<(), Refusal> {
    match hypervisor {
        CLOUD_HYPERVISOR => {
            cloud_hypervisor::check_waking(options.args(hypervisor).iter().chain(&machine.args))
        }
        _ => Ok(()),
    }
}

/// Whether the hypervisor of that name reads its guest's console only from a terminal. Of a
/// template nobody knows.
pub fn needs_terminal(hypervisor: &str) -> bool {
    !matches!(hypervisor, QEMU | FIRECRACKER)
}

/// How to ask the hypervisor of that name to power its guest off.
pub fn control(hypervisor: &str, folder: &Path, options: &Options) -> Result<Control, Refusal> {
    match hypervisor {
        QEMU => qemu::control(folder),
        CLOUD_HYPERVISOR => cloud_hypervisor::control(folder),
        FIRECRACKER => firecracker::control(folder),
        name => template::control(folder, options.template(name)?),
    }
}

/// The network arguments of the hypervisor of that name, each as one element. For Firecracker it is
/// one JSON object, the network part of its configuration.
pub fn network_args(
    hypervisor: &str,
    attachment: &Attachment,
    options: &Options,
) -> Result<Vec<String>, Refusal> {
    if attachment.has_vsock() {
        text::check_folder(attachment.folder, true)?;
    }
    match hypervisor {
        QEMU => qemu::network_args(attachment, &options.qemu),
        CLOUD_HYPERVISOR => cloud_hypervisor::network_args(attachment, &options.cloud_hypervisor),
        FIRECRACKER => firecracker::network_args(attachment),
        name => template::network_args(attachment, options.template(name)?),
    }
}

#[cfg(test)]
mod golden;
