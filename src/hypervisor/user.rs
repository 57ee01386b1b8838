//! The user of the hypervisors.
//!
//! A hypervisor is the barrier between a guest and the host, so it runs as a user without rights.
//! This user must be able to open all files that a VM names (kernel, disks), and a VM cannot get
//! other files by naming them. All VMs of a host have the same user, or each has its own, which is
//! not listed anywhere ([`crate::model::run_as`]).

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::model::error::Refusal;
use crate::model::run_as::VmUser;

/// The default user, if it exists.
pub const DEFAULT: &str = "volnet-vm";
/// The setting.
pub const FIELD: &str = "hypervisor_user";
/// Where users are listed (passwd(5)). Read directly: a static binary cannot ask NSS.
const PASSWD: &str = "/etc/passwd";

/// Hardware virtualisation (Documentation/virt/kvm/api.rst of Linux).
pub const KVM: &str = "/dev/kvm";
/// The device through which a tap is opened by name.
pub const TUN: &str = "/dev/net/tun";
/// Frames of QEMU's guests, carried by the host's kernel.
pub const VHOST_NET: &str = "/dev/vhost-net";
/// vsock of the host's kernel for guests of QEMU.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, or the number where it has none.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The main group.
    pub gid: u32,
    /// The groups that devices need. The user's other groups do not count.
    pub groups: Vec<u32>,
}

/// What a user needs to use a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nothing.
    Free,
    /// This group.
    Group(u32),
    /// It needs rights that the user cannot get.
    None,
}

impl User {
    /// The user that the settings name, or the default. `None`: hypervisors run as the daemon's
    /// user, because the settings say so (`root`), or because this host has no such user.
    pub fn configured(setting: Option<&str>) -> Result<Option<User>, Refusal> {
        let refuse = |reason: String| Refusal::InvalidConfig { field: FIELD.into(), reason };
        let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
        let found = find(&passwd, setting.unwrap_or(DEFAULT));
        match (found, setting) {
            (Some(user), _) => Ok((user.uid != 0).then_some(user)),
            (None, None) => Ok(None),
            (None, Some(name)) => Err(refuse(format!("there is no user {name:?} in {PASSWD}"))),
        }
    }

    /// The user of one VM.
    pub fn of_vm(VmUser { uid, gid, .. }: VmUser) -> User {
        User { name: uid.to_string(), uid, gid, groups: Vec::new() }
    }

    /// A user of the host by name or number.
    pub fn named(wanted: &str) -> Option<VmUser> {
        let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
        find(&passwd, wanted).map(|user| VmUser { uid: user.uid, gid: user.gid, own: false })
    }

    /// Acts with the user's rights, see [`crate::rights::act_as`].
    #[cfg(target_os = "linux")]
    pub fn act<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        crate::rights::act_as(self.uid, self.gid, act)
    }

    /// Hypervisors run only on Linux, so there is nothing to do elsewhere.
    #[cfg(not(target_os = "linux"))]
    pub fn act<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        Ok(act())
    }

    /// The user with the groups of the devices that this host has now. The module of a device may
    /// be loaded long after the daemon began.
    pub fn with_devices(&self) -> User {
        let mut user = self.clone();
        for device in [KVM, VHOST_NET, VHOST_VSOCK, TUN] {
            user.reaches(device);
        }
        user
    }

    /// Gives the user the group of a device, if the device exists and the group is needed. Returns
    /// whether the user can use the device.
    pub fn reaches(&mut self, device: &str) -> bool {
        match fs::metadata(device).map(|device| self.reach(&device)) {
            Ok(Reach::Free) => true,
            Ok(Reach::Group(group)) => {
                if !self.groups.contains(&group) {
                    self.groups.push(group);
                }
                true
            }
            Ok(Reach::None) | Err(_) => false,
        }
    }

    fn reach(&self, device: &Metadata) -> Reach {
        let may = |shift: u32| device.mode() >> shift & 0o6 == 0o6;
        if device.uid() == self.uid {
            return if may(6) { Reach::Free } else { Reach::None };
        }
        let in_group = device.gid() == self.gid || self.groups.contains(&device.gid());
        match (in_group, may(3), may(0)) {
            (true, true, _) | (false, _, true) => Reach::Free,
            // root's group can open more than one device.
            (false, true, false) if device.gid() != 0 => Reach::Group(device.gid()),
            (true, false, _) | (false, _, false) => Reach::None,
        }
    }
}

/// A user by name or number. A number need not be listed.
fn find(passwd: &str, wanted: &str) -> Option<User> {
    let number = wanted.parse::<u32>().ok().filter(|uid| *uid != u32::MAX);
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let is_wanted = name == wanted || number == Some(uid);
        is_wanted.then(|| User { name: name.into(), uid, gid, groups: Vec::new() })
    });
    let unlisted = |uid| User { name: wanted.into(), uid, gid: uid, groups: Vec::new() };
    listed.or_else(|| number.map(unlisted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nvm:x:990:991::/:/bin/false\n";
        let ids = |wanted| find(passwd, wanted).map(|user| (user.name, user.uid, user.gid));
        assert_eq!(ids("vm"), Some(("vm".into(), 990, 991)));
        assert_eq!(ids("990"), Some(("vm".into(), 990, 991)));
        assert_eq!(ids("70000"), Some(("70000".into(), 70000, 70000)));
        assert_eq!(ids("v"), None);
        assert_eq!(ids("4294967295"), None);
        assert_eq!(ids("-1"), None);
    }

    #[test]
    fn root_is_nobody_else() {
        assert_eq!(User::configured(Some("0")), Ok(None));
        let Err(Refusal::InvalidConfig { field, .. }) = User::configured(Some("no such user"))
        else {
            panic!("there is none");
        };
        assert_eq!(field, FIELD);
    }

    #[test]
    fn a_device_may_take_a_group() {
        let mut user = find("", "70000").unwrap();
        assert!(user.reaches("/dev/null"));
        assert!(user.groups.is_empty());
        // root:root 0600 at most, wherever this runs.
        assert!(!user.reaches("/proc/1/mem"));
        assert!(!user.reaches("/nonexistent"));
    }
}
