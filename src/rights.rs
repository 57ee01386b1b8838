//! The rights of the daemon, and acting with those of others.
//!
//! Of root's capabilities the daemon keeps those of [`KEPT`] and gives the others up when it starts,
//! for itself and for all that it starts. Nothing that it starts gains rights
//! (`no_new_privs`, PR_SET_NO_NEW_PRIVS(2const)), and it is in no group but its own.
//!
//! What belongs to a hypervisor (its folder, its sockets, what `/proc` says of it) and what callers
//! name (kernels, disks) is opened with the rights of the user as which the hypervisor runs, and so
//! with no more than that user has: a link that somebody put there leads nowhere else.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid, setgroups};
use volnet_ffi::capabilities;

/// What it takes to leave groups, too.
const CAP_SETGID: u32 = 6;

/// What the daemon keeps: numbers and names of linux/capability.h. Each stands here for what it is
/// needed for; the unit in packaging/ has the same ones.
pub const KEPT: [(u32, &str); 6] = [
    // Links, addresses, rules, tracked connections, forwarding, taps.
    (12, "CAP_NET_ADMIN"),
    // The sockets on which the DHCP server hears guests that have no address yet.
    (13, "CAP_NET_RAW"),
    // The folder of a VM becomes its hypervisor's, the socket the group's.
    (0, "CAP_CHOWN"),
    // A hypervisor becomes its user; its files are opened as that user.
    (7, "CAP_SETUID"),
    (CAP_SETGID, "CAP_SETGID"),
    // A hypervisor of another user is told to end.
    (5, "CAP_KILL"),
];

/// What it keeps besides where hypervisors run as root, for files that belong to others: disks of
/// VMs, say. Hypervisors have it from the daemon.
pub const KEPT_FOR_ROOT: (u32, &str) = (1, "CAP_DAC_OVERRIDE");

/// Gives up all rights but those that are kept. Concerns the calling thread and those that it starts
/// from now on, so it comes first.
pub fn give_up(hypervisors_are_root: bool) -> io::Result<()> {
    let kept = KEPT.iter().chain(hypervisors_are_root.then_some(&KEPT_FOR_ROOT));
    let bits = kept.fold(0, |bits, (number, _)| bits | 1 << number);
    if geteuid().is_root() && capabilities::permitted()? & 1 << CAP_SETGID != 0 {
        setgroups(&[])?;
    }
    prctl::set_no_new_privs()?;
    capabilities::keep(bits)
}

/// A value that no id has: to set it only asks what the id is (setfsuid(2)).
const ASK: u32 = u32::MAX;

/// Does something with the rights that a user has on files and processes, and no others: the kernel
/// takes away what root may do to files meanwhile (capabilities(7), "Effect of user ID changes").
/// Concerns the calling thread alone. An error when we may not act as that user.
pub fn act_as<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let own = Own { uid: geteuid(), gid: getegid() };
    if own.uid.as_raw() == uid {
        return Ok(act());
    }
    // Dropped, and so undone, whatever comes.
    let _own = own;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    if (setfsuid(Uid::from_raw(ASK)), setfsgid(Gid::from_raw(ASK))) != (uid, gid) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(act())
}

/// Does something with the rights of the owner of a file; of a link's, if it is one.
pub fn act_as_owner<T>(path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let owner = fs::symlink_metadata(path)?;
    act_as(owner.uid(), owner.gid(), act)?
}

/// What this process acts as otherwise.
struct Own {
    uid: Uid,
    gid: Gid,
}

impl Drop for Own {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    #[ignore = "needs root"]
    fn others_have_no_more_than_their_rights_and_we_get_ours_back() {
        let scratch = Scratch::new();
        let secret = scratch.path().join("secret");
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&secret).unwrap();
        let denied = act_as(65534, 65534, || File::open(&secret)).unwrap().unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        assert!(act_as(65534, 65534, || File::open("/etc/passwd")).unwrap().is_ok());
        File::open(&secret).unwrap();
        let caught = std::panic::catch_unwind(|| act_as(65534, 65534, || panic!("undone")));
        assert!(caught.is_err());
        File::open(&secret).unwrap();
        act_as_owner(&secret, || File::open(&secret)).unwrap();
    }
}
