//! Snapshots of guests: what a thread needs to take one, and what is in the folder of one.
//!
//! | file | what it is |
//! |---|---|
//! | `snapshot.json` | what the snapshot needs, see [`crate::spec::snapshot`] |
//! | `memory` | the guest's memory, as its hypervisor writes it; with QEMU its devices, too |
//! | `state` | its devices, with Firecracker |
//! | `memory-ranges`, `state.json` | its memory, and its devices, with Cloud Hypervisor |
//! | `config.json` | how Cloud Hypervisor had configured it |
//! | `disk0`, `disk1` … | the disks that the guest writes to, and that for cloud-init |
//!
//! The memory is in a form of the hypervisor's own, so the same one has to wake the guest. How a
//! snapshot is taken is in `linux::snapshot`.

#[cfg(not(target_os = "linux"))]
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[cfg(not(target_os = "linux"))]
use serde_json::Value;

use super::cloud_hypervisor::saved;
use super::user::User;
use super::{CLOUD_HYPERVISOR, Control, FIRECRACKER};
#[cfg(not(target_os = "linux"))]
use crate::model::error::Refusal;
use crate::model::inner::Inner;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::spec::{MachineSpec, NetworkSpec};
use crate::spec::snapshot::{SavedNic, Snapshot};

#[cfg(target_os = "linux")]
pub use super::linux::snapshot::{
    ANSWER_MAX, open_memory, read, read_configuration, take, version,
};

/// The guest's memory, in the folder of a snapshot of QEMU or Firecracker.
pub const MEMORY: &str = "memory";
/// Its devices, if the hypervisor writes them to a file of their own.
pub const STATE: &str = "state";
/// What the name of a folder ends with as long as it is not whole.
const PART: &str = ".part";

/// A snapshot that is to be taken.
#[derive(Clone, Debug)]
pub struct Taking {
    /// The VM.
    pub name: VmName,
    /// How its hypervisor is asked.
    pub control: Control,
    /// Whose the folder is; `None`: the daemon's.
    pub user: Option<User>,
    /// Who can read the VM's disks; `None`: the daemon.
    pub reader: Option<User>,
    /// Where it is to be.
    pub folder: PathBuf,
    /// Its description, without the version.
    pub snapshot: Snapshot,
    /// The disks that are copied.
    pub copies: Vec<Copied>,
    /// Whether the guest is paused, and stays so.
    pub stays_paused: bool,
}

/// A disk that is copied into the folder of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The disk.
    pub from: PathBuf,
    /// Its name in the folder.
    pub name: String,
}

/// What the guest of a VM believes of its NICs.
pub fn nics<'a>(record: &'a Record, networks: &[&NetworkConfig]) -> Vec<SavedNic<'a>> {
    let saved = |((nic, spec), network): ((&'a Nic, &NetworkSpec), &&NetworkConfig)| {
        let identity = nic.identity(network);
        let ipv4 = identity.ipv4?;
        let is_host = ipv4.gateway == ipv4.host;
        let inner = nic.inner.as_deref().copied().unwrap_or(Inner {
            mac: identity.mac,
            ip: ipv4.ip?,
            prefix: ipv4.subnet.length(),
            gateway: ipv4.gateway,
            gateway_mac: is_host.then_some(identity.host_mac),
        });
        let mtu = spec.mtu.unwrap_or(network.mtu);
        Some(SavedNic { network: &nic.network, inner, mtu, queues: spec.queues.unwrap_or(1) })
    };
    record.interfaces().zip(networks).filter_map(saved).collect()
}

/// The disks of a machine that are copied, and for each disk its name in the folder: what the guest
/// writes to, and what is in the VM's own folder and goes with it.
pub fn copies(machine: &MachineSpec, folder: &Path) -> (Vec<Copied>, Vec<Option<String>>) {
    let (mut copies, mut names) = (Vec::new(), Vec::new());
    for (index, disk) in machine.disks.iter().enumerate() {
        let from = &disk.file.path;
        let is_copied = !disk.readonly || from.starts_with(folder);
        let name = is_copied.then(|| format!("disk{index}"));
        copies.extend(name.iter().cloned().map(|name| Copied { from: from.clone(), name }));
        names.push(name);
    }
    (copies, names)
}

/// What the hypervisor of that name writes of a guest, each in a file of its own: its memory first.
pub fn files(hypervisor: &str) -> &'static [&'static str] {
    match hypervisor {
        FIRECRACKER => &[MEMORY, STATE],
        // It gives them their names itself.
        CLOUD_HYPERVISOR => &[saved::MEMORY, saved::STATE, saved::CONFIGURATION],
        _ => &[MEMORY],
    }
}

/// The folder of a snapshot as long as it is not whole.
pub fn part_of(folder: &Path) -> PathBuf {
    // Without a slash at its end: beside the folder, not in it.
    let mut name = folder.components().collect::<PathBuf>().into_os_string();
    name.push(PART);
    name.into()
}

/// Elsewhere no guest wakes.
#[cfg(not(target_os = "linux"))]
pub fn open_memory(
    folder: &Path,
    _hypervisor: &str,
    _user: Option<&User>,
) -> Result<OwnedFd, Refusal> {
    Err(crate::spec::snapshot::invalid(folder, NOT_HERE.into()))
}

/// Elsewhere no guest wakes.
#[cfg(not(target_os = "linux"))]
pub fn read_configuration(folder: &Path, _user: Option<&User>) -> Result<Value, Refusal> {
    Err(crate::spec::snapshot::invalid(folder, NOT_HERE.into()))
}

#[cfg(not(target_os = "linux"))]
const NOT_HERE: &str = "guests run on Linux only";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_beside_the_folder() {
        for folder in ["/s/web", "/s/web/", "/s//web//"] {
            assert_eq!(part_of(Path::new(folder)), Path::new("/s/web.part"));
        }
    }
}
