//! The socket of a VM's console, `RUNTIME/console/NAME`.
//!
//! The directory belongs to the daemon's user, and no hypervisor can write to it. Whoever may use
//! the daemon's socket may use this one. The daemon makes it, and removes it when the VM ends.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

/// Who knows a name can connect, and nobody can list the names.
const DIRECTORY_MODE: u32 = 0o711;
/// The owner and the group may connect.
const MODE: u32 = 0o660;
/// How many may wait to be let in.
const BACKLOG: i32 = 8;

/// Listens in place of an earlier keeper.
pub(super) fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let directory = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    remove(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    if let Some(group) = group {
        chown(path, None, Some(group))?;
    }
    // Where the kernel can: the keeper needs none, and would have to close them.
    let _ = volnet_ffi::socket::refuse_descriptors(socket.as_fd());
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

/// Removes the socket, if there is one.
pub(in crate::hypervisor::linux) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
