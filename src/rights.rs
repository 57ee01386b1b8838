//! The rights of the daemon, and how it acts with another user's rights.
//!
//! When the daemon starts, it keeps only the capabilities of [`KEPT`], for itself and for its
//! children. Its children cannot gain rights (`no_new_privs`, PR_SET_NO_NEW_PRIVS(2const)), and it
//! is in no group except its own.
//!
//! Files of a hypervisor (its folder, its sockets, its files in `/proc`) and files that callers
//! name (kernels, disks) are opened only with the rights of the hypervisor's user. So a link in
//! their place leads to no file that this user cannot open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid, setgroups};
use volnet_ffi::capabilities;

/// It is also needed to leave groups.
const CAP_SETGID: u32 = 6;

/// The capabilities that the daemon keeps: numbers and names of linux/capability.h, each with its
/// purpose. The unit in packaging/ has the same ones.
pub const KEPT: [(u32, &str); 7] = [
    // Links, addresses, rules, tracked connections, forwarding, taps.
    (12, "CAP_NET_ADMIN"),
    // The DHCP sockets, for guests without an address.
    (13, "CAP_NET_RAW"),
    // Port 53, for guests that ask for names.
    (10, "CAP_NET_BIND_SERVICE"),
    // The folder of a VM gets its hypervisor as owner, and the socket gets the group.
    (0, "CAP_CHOWN"),
    // A hypervisor changes to its user, and its files are opened as that user.
    (7, "CAP_SETUID"),
    (CAP_SETGID, "CAP_SETGID"),
    // Signals to a hypervisor of another user.
    (5, "CAP_KILL"),
];

/// An additional capability if hypervisors run as root, for files of other users, such as disks of
/// VMs. Hypervisors inherit it from the daemon.
pub const KEPT_FOR_ROOT: (u32, &str) = (1, "CAP_DAC_OVERRIDE");

/// Gives up all other rights. This is for the calling thread and its later threads, so it comes
/// first.
pub fn give_up(hypervisors_are_root: bool) -> io::Result<()> {
    let kept = KEPT.iter().chain(hypervisors_are_root.then_some(&KEPT_FOR_ROOT));
    let bits = kept.fold(0, |bits, (number, _)| bits | 1 << number);
    if geteuid().is_root() && capabilities::permitted()? & 1 << CAP_SETGID != 0 {
        setgroups(&[])?;
    }
    prctl::set_no_new_privs()?;
    capabilities::keep(bits)
}

/// A value that no id has. Setting it only returns the present id (setfsuid(2)).
const ASK: u32 = u32::MAX;

/// Acts with only a user's rights on files and processes: the kernel removes root's rights on files
/// meanwhile (capabilities(7), "Effect of user ID changes"). This is only for the calling thread.
/// It is an error if we may not act as that user.
pub fn act_as<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let own = Own { uid: geteuid(), gid: getegid() };
    if own.uid.as_raw() == uid {
        return Ok(act());
    }
    // The drop restores the rights, also after a panic.
    let _own = own;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    if (setfsuid(Uid::from_raw(ASK)), setfsgid(Gid::from_raw(ASK))) != (uid, gid) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(act())
}

/// Acts with the rights of the owner of a file. For a link, it is the link's owner.
pub fn act_as_owner<T>(path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let owner = fs::symlink_metadata(path)?;
    act_as(owner.uid(), owner.gid(), act)?
}

/// The ids to restore.
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
