//! The daemon's socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;

use super::peer::{GROUP, GROUP_FILE, group_id};
use crate::model::error::Failure;

/// The mode of the socket: the owner and the group may connect.
const MODE: u32 = 0o660;

/// The socket's file, removed when the daemon ends.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at `path`. The caller holds the lock, so a killed daemon left an existing socket behind.
/// Any other file of that name is not removed.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, SocketFile), Failure> {
    let failed =
        |error: io::Error| Failure::kernel("listen on", path.display().to_string(), &error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let is_socket =
        |metadata: &fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type());
    if fs::symlink_metadata(path).is_ok_and(|metadata| is_socket(&metadata)) {
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    refuse_descriptors(&listener);
    let file = SocketFile(path.into());
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    let groups = fs::read_to_string(GROUP_FILE).unwrap_or_default();
    if let Some(group) = group_id(&groups, GROUP) {
        chown(path, None, Some(group)).map_err(failed)?;
    }
    Ok((listener, file))
}

/// Makes the kernel refuse descriptors that clients send. volnet needs none, and closing one can
/// take long, for example that of a connection that lingers (SO_LINGER, socket(7)). Before Linux
/// 6.16 they are closed while a message is read.
fn refuse_descriptors(listener: &UnixListener) {
    if let Err(error) = volnet_ffi::socket::refuse_descriptors(listener.as_fd()) {
        log::debug!("cannot keep clients from sending descriptors, which are closed: {error}");
    }
}
