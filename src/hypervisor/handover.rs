//! Hands the disks of a VM to the user that only this VM has, and back.
//!
//! A disk for VMs belongs to the user of all hypervisors, and each hypervisor of that user can
//! write to it. When a VM with a user of its own starts, each file that it writes to is given to
//! that user, and nobody else may read it any more. When the VM is deleted, the file goes back.
//!
//! Only a file that belongs to the one user goes to the other: a file is opened with the rights of
//! its owner, and the owner is read from the open file. So nobody gets a file by naming it. Both
//! ways can be gone again, so a crash between two steps does no harm.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use super::user::User;
use crate::model::spec::MachineSpec;

/// The mode of a file that one VM has.
const MODE: u32 = 0o600;
/// Somebody may put a FIFO in the place of a file, and nobody waits for its other end.
#[cfg(target_os = "linux")]
const FLAGS: i32 = libc::O_NONBLOCK;
/// Hypervisors run only on Linux.
#[cfg(not(target_os = "linux"))]
const FLAGS: i32 = 0;

/// Gives what a machine writes to, and `from` has, to `to`. The error names the file.
pub fn hand_over(machine: &MachineSpec, from: &User, to: &User) -> Result<(), String> {
    written(machine).try_for_each(|path| {
        give(path, from, to)
            .map_err(|error| format!("cannot give {} to user {}: {error}", path.display(), to.name))
    })
}

/// Whether a file is given to a VM's own user when the VM starts: it has this owner.
pub fn is_handed(path: &Path, from: &User) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.uid() == from.uid)
}

fn written(machine: &MachineSpec) -> impl Iterator<Item = &Path> {
    let written = machine.disks.iter().filter(|disk| !disk.readonly);
    written.map(|disk| disk.file.path.as_path())
}

fn give(path: &Path, from: &User, to: &User) -> io::Result<()> {
    // A block device stays with its owner, and so does a file that `from` cannot reach.
    if !from.act(|| is_handed(path, from))? {
        return Ok(());
    }
    let open = || File::options().read(true).custom_flags(FLAGS).open(path);
    let file = from.act(open)??;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != from.uid {
        return Ok(());
    }
    // First the mode: after a crash in between, nobody else can read a file of the new owner.
    from.act(|| file.set_permissions(Permissions::from_mode(MODE)))??;
    fchown(&file, Some(to.uid), Some(to.gid))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;
    use crate::model::spec::{Disk, File as FileSpec};
    use crate::store::tests::Scratch;

    fn user(uid: u32) -> User {
        User { name: uid.to_string(), uid, gid: uid, groups: Vec::new() }
    }

    fn machine(paths: &[&Path]) -> MachineSpec {
        let disk = |path: &&Path| Disk {
            file: FileSpec { path: path.to_path_buf(), sha256: None },
            ..Disk::default()
        };
        MachineSpec { disks: paths.iter().map(disk).collect(), ..MachineSpec::default() }
    }

    #[test]
    #[ignore = "needs root"]
    fn a_file_goes_to_one_vm_and_back_and_a_file_of_others_stays() {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o711)).unwrap();
        let [disk, foreign] = ["disk", "foreign"].map(|name| scratch.path().join(name));
        let link = scratch.path().join("link");
        for (path, uid) in [(&disk, 65533), (&foreign, 0)] {
            fs::write(path, "x").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
            chown(path, Some(uid), Some(uid)).unwrap();
        }
        std::os::unix::fs::symlink(&foreign, &link).unwrap();
        let machine = machine(&[&disk, &foreign, &link, Path::new("/nonexistent")]);
        let is = |path: &Path| {
            let file = fs::metadata(path).unwrap();
            (file.uid(), file.gid(), file.mode() & 0o777)
        };
        let (shared, own) = (user(65533), user(1_900_000_000));
        for _ in 0..2 {
            hand_over(&machine, &shared, &own).unwrap();
            assert_eq!(is(&disk), (1_900_000_000, 1_900_000_000, 0o600));
            assert_eq!(is(&foreign), (0, 0, 0o644));
        }
        hand_over(&machine, &own, &shared).unwrap();
        assert_eq!(is(&disk), (65533, 65533, 0o600));
    }
}
