//! The folder of a VM's sockets and generated files, `RUNTIME/vm/NAME`.
//!
//! It is made anew before each start: a socket that an earlier hypervisor left behind keeps the
//! next one from starting. It is removed when the hypervisor has ended. It belongs to the user of
//! the hypervisor, and volnet uses only that user's rights in it. If somebody else starts the
//! hypervisor, the folder is lent: it is made with the VM, and that user removes what an earlier
//! hypervisor left.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use super::user::User;
use crate::model::error::Failure;
use crate::model::spec::Owner;
use crate::rights;

const MODE: u32 = 0o700;
/// The mode of the parent folder: who knows a name can open its folder, and nobody can list the
/// names.
const PARENT_MODE: u32 = 0o711;

/// Makes the folder, empty, and gives it to a user if one is named.
pub fn renew(folder: &Path, user: Option<&User>) -> Result<(), Failure> {
    remove(folder)?;
    let owner = user.map(|user| Owner { uid: user.uid, gid: user.gid });
    make(folder, owner).map_err(|error| failure(folder, "cannot make the folder", &error))
}

/// Makes the folder and gives it to an owner. If it is there, it stays as it is: somebody may use
/// the sockets in it.
pub fn lend(folder: &Path, owner: Option<Owner>) -> Result<(), Failure> {
    if fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    make(folder, owner).map_err(|error| failure(folder, "cannot make the folder", &error))
}

fn make(folder: &Path, owner: Option<Owner>) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    DirBuilder::new().recursive(true).create(parent)?;
    fs::set_permissions(parent, Permissions::from_mode(PARENT_MODE))?;
    DirBuilder::new().mode(MODE).create(folder)?;
    owner.map_or(Ok(()), |owner| chown(folder, Some(owner.uid), Some(owner.gid)))
}

/// Removes the folder and its contents. Links in it are removed, never followed.
pub fn remove(folder: &Path) -> Result<(), Failure> {
    // The owner may empty the folder, but not remove it from its parent. The removal shows if
    // anything is left.
    let _ = rights::act_as_owner(folder, || fs::remove_dir_all(folder));
    match fs::remove_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure(folder, "cannot remove the folder", &error)),
    }
}

fn failure(folder: &Path, doing: &str, error: &io::Error) -> Failure {
    Failure::State { path: folder.display().to_string(), reason: format!("{doing}: {error}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn stale_sockets_go_and_what_links_point_to_stays() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("vm/a");
        renew(&folder, None).unwrap();
        drop(UnixListener::bind(folder.join("vsock.sock")).unwrap());
        fs::write(scratch.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(scratch.path(), folder.join("link")).unwrap();
        renew(&folder, None).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists() && scratch.path().join("precious").exists());
    }

    #[test]
    #[ignore = "needs root"]
    fn a_users_folder_goes_with_what_the_user_put_there() {
        let scratch = Scratch::new();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o711)).unwrap();
        let folder = scratch.path().join("vm/a");
        let uid = 65534;
        let user = User { name: "nobody".into(), uid, gid: uid, groups: Vec::new() };
        renew(&folder, Some(&user)).unwrap();
        let put = || {
            fs::create_dir(folder.join("deep"))?;
            fs::write(folder.join("deep/file"), "x")?;
            std::os::unix::fs::symlink("/etc/passwd", folder.join("link"))
        };
        rights::act_as_owner(&folder, put).unwrap();
        renew(&folder, Some(&user)).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        remove(&folder).unwrap();
        assert!(!folder.exists() && Path::new("/etc/passwd").exists());
    }
}
