//! The disks of clones that volnet makes: `STATE/disks/NAME.NUMBER/disk0`, `disk1` …
//!
//! A clone that names no disks gets copies of those in the snapshot. They are made before the
//! clone is, so they have names that no other has, and `NUMBER` is the time. The record of the VM
//! names them like any other disk. They go with the VM: whoever has a record has its disks. Until
//! there is a record, a value in memory has them, and they go with that. So a crash leaves folders
//! that no record names, and the next daemon removes these.
//!
//! Whether a disk is still one of the snapshot shows in its path: a guest never writes to a file
//! of a snapshot.

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
pub use super::linux::own_disks::{OwnDisks, remove, sweep};
use super::user::User;
use crate::model::name::VmName;
use crate::model::record::Record;
use crate::model::spec::{Disk, MachineSpec};

/// Copies that are to be made of the disks of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    /// The VM that is to have them.
    pub name: VmName,
    /// The directory of the folders of all VMs.
    pub directory: PathBuf,
    /// Whose they are; `None`: the daemon's.
    pub user: Option<User>,
    /// Whether they outlive a power loss.
    pub durable: bool,
    /// The disks of the snapshot.
    pub from: Vec<PathBuf>,
}

/// The disks of a machine that its guest writes to and that are still those of the snapshot.
pub fn uncopied(machine: &mut MachineSpec) -> impl Iterator<Item = &mut Disk> {
    let from = machine.from.as_deref();
    machine
        .disks
        .iter_mut()
        .filter(move |disk| !disk.readonly && from.is_some() && disk.file.path.parent() == from)
}

/// The folder of the disks that volnet has made for a VM, if it has.
pub fn folder_of<'a>(directory: &Path, record: &'a Record) -> Option<&'a Path> {
    let machine = record.spec.machine.as_ref().filter(|machine| machine.from.is_some())?;
    let mut folders = machine.disks.iter().filter_map(|disk| disk.file.path.parent());
    folders.find(|folder| {
        folder.parent() == Some(directory) && is_folder_of(folder).as_ref() == Some(&record.name)
    })
}

/// The VM that a folder was made for.
pub fn is_folder_of(folder: &Path) -> Option<VmName> {
    let (name, number) = folder.file_name()?.to_str()?.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| VmName::new(name).ok()).flatten()
}

/// Hypervisors run only on Linux, so there is nothing to do elsewhere.
#[cfg(not(target_os = "linux"))]
pub fn remove(_folder: PathBuf) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::File;

    fn disk(path: &str, readonly: bool) -> Disk {
        Disk { file: File { path: path.into(), sha256: None }, readonly, ..Disk::default() }
    }

    #[test]
    fn a_folder_is_of_the_vm_whose_name_it_has() {
        let name = |path: &str| is_folder_of(Path::new(path)).map(|name| name.to_string());
        assert_eq!(name("/s/disks/db.1.1764414000123").as_deref(), Some("db.1"));
        for other in ["/s/disks/db", "/s/disks/db.", "/s/disks/db.x1", "/s/disks/.1", "/"] {
            assert_eq!(name(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_a_guest_writes_in_the_folder_of_the_snapshot_is_copied() {
        let disks = vec![disk("/s/disk0", false), disk("/s/disk1", true), disk("/t/disk2", false)];
        let mut machine = MachineSpec { disks, from: Some("/s".into()), ..MachineSpec::default() };
        let copied: Vec<_> = uncopied(&mut machine).map(|disk| disk.file.path.clone()).collect();
        assert_eq!(copied, [Path::new("/s/disk0")]);
        machine.from = None;
        assert_eq!(uncopied(&mut machine).count(), 0);
    }
}
