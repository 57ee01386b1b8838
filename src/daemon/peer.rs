//! The other end of a connection, and its rights.
//!
//! The kernel says who connected (SO_PEERCRED and SO_PEERGROUPS, unix(7)); the client's own word
//! does not count. Root, the daemon's own user and members of the group `volnet` may call
//! everything. Anybody else whom the socket's mode admits may only look. If hypervisors run as
//! root, who names files for them can read all files of the host. So only root and the daemon's
//! user may do so.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt};

/// The group whose members may change things.
pub const GROUP: &str = "volnet";
/// Where groups are listed (group(5)). Read directly: a static binary cannot ask NSS.
const GROUP_FILE: &str = "/etc/group";

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process, for the log.
    pub pid: i32,
    /// Whether it is root or the daemon's own user.
    pub is_root: bool,
    /// Whether it may call methods that change the state.
    pub may_change: bool,
}

impl Peer {
    /// Asks the kernel for the peer of `socket`.
    pub fn of(socket: &impl AsFd) -> io::Result<Peer> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        let uid = credentials.uid();
        let is_root = uid == 0 || uid == nix::unistd::geteuid().as_raw();
        let may_change =
            is_root || group().is_some_and(|group| is_member(socket, credentials.gid(), group));
        Ok(Peer { uid, pid: credentials.pid(), is_root, may_change })
    }
}

fn is_member(socket: &impl AsFd, gid: u32, group: u32) -> bool {
    gid == group
        || volnet_ffi::peer::peer_groups(socket.as_fd()).is_ok_and(|groups| groups.contains(&group))
}

/// The id of that group, if the host has it.
pub(super) fn group() -> Option<u32> {
    group_id(&fs::read_to_string(GROUP_FILE).unwrap_or_default(), GROUP)
}

/// The id of a group in a file of the form `name:password:id:members`.
pub(super) fn group_id(file: &str, name: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        if fields.next()? != name {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let file = "root:x:0:\nvolnets:x:7:\nvolnet:x:998:ann,bob\n";
        assert_eq!(group_id(file, "volnet"), Some(998));
        assert_eq!(group_id(file, "vol"), None);
        assert_eq!(group_id("volnet:x:\nvolnet", "volnet"), None);
    }

    #[test]
    fn ourselves_may_change_things() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.uid, nix::unistd::getuid().as_raw());
        assert!(peer.may_change);
    }
}
