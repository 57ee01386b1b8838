//! The daemon's sockets: for its clients, and for scrapers of metrics.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::peer;
use crate::config::MetricsAt;
use crate::model::error::Failure;

/// The mode of the socket: the owner and the group may connect.
const MODE: u32 = 0o660;
/// Connections of scrapers that wait to be accepted.
const BACKLOG: i32 = 16;

/// The socket's file, removed when the daemon ends.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens for scrapers of metrics. An address that the host does not have yet is no error.
pub(super) fn listen_for_scrapers(at: &MetricsAt) -> Result<(Socket, Option<SocketFile>), Failure> {
    match at {
        MetricsAt::Unix(path) => {
            let (listener, file) = listen(path)?;
            Ok((Socket::from(OwnedFd::from(listener)), Some(file)))
        }
        MetricsAt::Tcp(at) => {
            let listener = listen_by_tcp(*at);
            let failed = |error| Failure::kernel("listen on", at.to_string(), &error);
            Ok((listener.map_err(failed)?, None))
        }
    }
}

fn listen_by_tcp(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    // Connections of a daemon before this one may still be about to end.
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
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
    if let Some(group) = peer::group() {
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
