//! The folder of a VM's sockets and generated files, `RUNTIME/vm/NAME`.
//!
//! It is made anew before each start: a socket that an earlier hypervisor left behind keeps the
//! next one from starting. It is removed with the VM.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::Failure;

const MODE: u32 = 0o700;

/// Makes the folder, empty.
pub fn renew(folder: &Path) -> Result<(), Failure> {
    remove(folder)?;
    DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(folder)
        .map_err(|error| failure(folder, "cannot make the folder", &error))
}

/// Removes the folder with all that is in it; links in it are removed, never followed.
pub fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
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
        renew(&folder).unwrap();
        drop(UnixListener::bind(folder.join("vsock.sock")).unwrap());
        fs::write(scratch.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(scratch.path(), folder.join("link")).unwrap();
        renew(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        remove(&folder).unwrap();
        remove(&folder).unwrap();
        assert!(!folder.exists() && scratch.path().join("precious").exists());
    }
}
