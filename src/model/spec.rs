//! The request for a VM, merged from manifest, configuration and command line.
//!
//! [`crate::spec`] reads it from the documents.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::budget::Budget;
use super::document::Kept;
use super::error::Refusal;
use super::expose::Expose;
use super::inner::InnerSpec;
use super::mac::Mac;
use super::mode::Mode;
use super::name::VmName;
use super::prefix::Prefix;
use super::run_as::RunAs;
use super::traffic::Traffic;

/// The most movable addresses of an interface ([`NetworkSpec::addresses`]).
pub const ADDRESSES_MAX: usize = 16;

/// Stands for the name of a VM in the path of a disk, where many are made at once.
const NAME: &str = "{name}";

/// The most directories that a guest sees.
pub const SHARES_MAX: usize = 8;
/// The most bytes of [`Share::tag`] (`struct virtio_fs_config`, virtio 1.2, 5.11.4).
pub const SHARE_TAG_BYTES_MAX: usize = 36;

/// The request for a VM, merged from manifest, configuration and command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// How it reaches its networks: at least one. In vsock mode it is the only one.
    pub networks: Vec<NetworkSpec>,
    /// The machine; `None` if volnet gives only the network. It is boxed to save memory.
    pub machine: Option<Box<MachineSpec>>,
    /// The record ends when the host reboots, and is not synced to disk.
    pub ephemeral: bool,
    /// Start the hypervisor when the daemon starts.
    pub autostart: bool,
    /// What to do if the hypervisor ends by itself.
    pub restart: RestartPolicy,
    /// Who runs its hypervisor, if volnet does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The namespace of others that has its network; `None`: a guest has. It is boxed to save
    /// memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Box<Attachment>>,
    /// As whom its processes run; `None`: as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<RunAs>,
    /// What its processes may use of the host.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub budget: Budget,
    /// Whether the guest has vsock although it has networks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vsock: bool,
    /// The manifest as the client sent it.
    pub manifest: Option<Kept>,
    /// The configuration as the client sent it.
    pub config: Option<Kept>,
}

impl VmSpec {
    /// Whether the VM has a NIC, and so needs the host to be set up.
    pub fn needs_tap_device(&self) -> bool {
        self.networks.iter().any(|network| network.mode.needs_tap_device())
    }

    /// Whether the guest has vsock.
    pub fn has_vsock(&self) -> bool {
        self.vsock || !self.needs_tap_device()
    }

    /// Whether its hypervisor makes sockets in the folder of the VM, and volnet does not start it:
    /// then the folder is there as long as the VM is.
    pub fn lends_folder(&self) -> bool {
        self.machine.is_none() && self.has_vsock()
    }

    /// The same for one of many VMs: the paths of its disks have its name.
    pub fn one_of_many(&self, name: &VmName) -> VmSpec {
        let mut spec = self.clone();
        for disk in spec.machine.iter_mut().flat_map(|machine| &mut machine.disks) {
            if let Some(path) = disk.file.path.to_str().filter(|path| path.contains(NAME)) {
                disk.file.path = path.replace(NAME, name.as_str()).into();
            }
        }
        spec
    }

    /// A refusal of what is asked for of the network at `index`. Of several networks it names the
    /// right one: `network.ip` becomes `networks[1].ip`.
    pub fn refuse_network(&self, index: usize, refusal: Refusal) -> Refusal {
        let Refusal::InvalidConfig { field, reason } = refusal else { return refusal };
        let field = match field.strip_prefix("network.") {
            Some(rest) if self.networks.len() > 1 => format!("networks[{index}].{rest}"),
            None if index > 0 && field == "expose" => format!("networks[{index}].expose"),
            Some(_) | None => field,
        };
        Refusal::InvalidConfig { field, reason }
    }
}

impl Default for VmSpec {
    /// One interface on the first network, and nothing that runs.
    fn default() -> VmSpec {
        VmSpec {
            networks: vec![NetworkSpec::default()],
            machine: None,
            ephemeral: false,
            autostart: false,
            restart: RestartPolicy::default(),
            owner: None,
            attachment: None,
            run_as: None,
            budget: Budget::default(),
            vsock: false,
            manifest: None,
            config: None,
        }
    }
}

/// The user who runs the hypervisor of a VM that volnet does not start. The taps of the VM and the
/// folder of its sockets are this user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The number of the user.
    pub uid: u32,
    /// The number of the group of the folder.
    pub gid: u32,
}

/// What was asked for of one interface: a `network` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The mode.
    pub mode: Mode,
    /// The name of the network. If it is missing, `subnet` or `gateway` choose the network, or it
    /// is the first.
    pub name: Option<String>,
    /// The network that has this prefix.
    pub subnet: Option<Prefix>,
    /// The network whose host address this is.
    pub gateway: Option<Ipv4Addr>,
    /// The address to lease.
    pub ip: Option<Ipv4Addr>,
    /// The addresses that the guest may use besides its own, at most [`ADDRESSES_MAX`]. Other VMs
    /// of the network may name them too, so they can move from guest to guest. They are leased to
    /// nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Ipv4Addr>,
    /// The IPv6 address that it gets; `None`: that of its Ethernet address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// The guest's Ethernet address.
    pub mac: Option<Mac>,
    /// The identity that the guest has inside; `None`: that of the network, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<InnerSpec>>,
    /// MTU in bytes, 68 to the network's.
    pub mtu: Option<u16>,
    /// Queue pairs of the guest's interface, 1 to 16; more than one needs a multi-queue tap.
    pub queues: Option<u16>,
    /// What is said of its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// The ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<Expose>,
}

/// The machine that the hypervisor runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// `qemu`, `cloud-hypervisor`, `firecracker` or the name of a template; `None`: the host's.
    pub hypervisor: Option<String>,
    /// The guest's kernel; `None`: the host's (see `crate::hypervisor::machine`).
    pub kernel: Option<File>,
    /// The initial RAM file system.
    pub initramfs: Option<File>,
    /// Disks, in the order of the guest. The root file system is the first.
    pub disks: Vec<Disk>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Whether its memory is huge pages of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hugepages: bool,
    /// Whether memory that the guest frees goes back to the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub balloon: bool,
    /// Whether the guest has random numbers from the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rng: bool,
    /// The directories of the host that the guest sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// The VM's part of the kernel command line. It comes after the parts of the hypervisor and the
    /// network, and so wins over them.
    pub cmdline: String,
    /// Arguments of the hypervisor after volnet's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The folder of the snapshot that its guest wakes from when it is first started. All else of
    /// the machine is then as the snapshot says, but for the disks that the guest writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

/// A directory of the host that the guest sees (virtio-fs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// By which name the guest mounts it: at most [`SHARE_TAG_BYTES_MAX`].
    pub tag: String,
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Whether the guest may not change it.
    pub readonly: bool,
}

/// A file and its checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// SHA-256 as 64 lower-case hexadecimal digits.
    pub sha256: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The image.
    pub file: File,
    /// Its format.
    pub format: DiskFormat,
    /// Whether the guest may not write to it.
    pub readonly: bool,
    /// What becomes of what the guest writes.
    #[serde(default, skip_serializing_if = "DiskCache::is_default")]
    pub cache: DiskCache,
    /// How much of it the guest may read and write, together.
    #[serde(default, skip_serializing_if = "DiskLimits::is_empty")]
    pub limits: DiskLimits,
}

/// What becomes of what a guest writes to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskCache {
    /// It is in the host's cache, and on the host's disk when the guest has synced it.
    #[default]
    Writeback,
    /// It goes past the host's cache (`O_DIRECT`).
    None,
    /// It is on the host's disk when the host likes, whatever the guest has synced.
    Unsafe,
}

/// How much of a disk a guest may read and write, together. What is named is a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskLimits {
    /// MB a second.
    #[serde(default)]
    pub mb: Option<u32>,
    /// Reads and writes a second.
    #[serde(default)]
    pub iops: Option<u32>,
}

/// The format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The bytes of the disk.
    #[default]
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl DiskFormat {
    /// The format in documents and for hypervisors.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        }
    }
}

impl DiskCache {
    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskCache::Writeback => "writeback",
            DiskCache::None => "none",
            DiskCache::Unsafe => "unsafe",
        }
    }

    fn is_default(&self) -> bool {
        *self == DiskCache::default()
    }
}

impl DiskLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == DiskLimits::default()
    }

    /// The limit in bytes a second.
    pub fn bytes(&self) -> Option<u64> {
        self.mb.map(|mb| u64::from(mb) * 1_000_000)
    }
}

/// What to do if a hypervisor ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Nothing.
    #[default]
    No,
    /// Start it again if it ended with a status other than 0 or by a signal.
    OnFailure,
    /// Start it again in any case.
    Always,
}
