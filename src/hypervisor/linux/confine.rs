//! The last step before a hypervisor: a process with the daemon's rights takes a user's rights, and
//! the limits that the daemon itself was started with.
//!
//! This is a program of its own that becomes the hypervisor. A process that changes itself
//! between fork and exec cannot be started by vfork: a fork took the daemon's only thread 0.3 to
//! 1.5 ms, depending on its size, and this takes 0.08 ms. The program is the daemon's own
//! (`/proc/self/exe`, which stays the same over an upgrade), with a verb that is not for people.
//!
//! [`super::spawn`] sets its descriptors, process group and environment. It loses the daemon's
//! rights with the change of user: a process that changes from root to another user loses all
//! capabilities. It does not get them back, because the daemon has set `no_new_privs`.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::hypervisor::cgroup;
use crate::hypervisor::user::User;

/// The verb.
pub const VERB: &str = "exec-as";
/// The program.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// The name of the process until it is the hypervisor. For a moment nobody can read its
/// environment.
pub(super) const NAME: &str = "volnet-start";

/// Stands for what stays as it is.
const SAME: &str = "-";

/// The words before the hypervisor's own: its user, its control group, its soft limit of open
/// descriptors, and its directory, as far as these are others than ours.
pub(super) fn words(
    user: Option<&User>,
    cgroup: Option<&Path>,
    descriptors: Option<rlim_t>,
    directory: Option<&Path>,
    program: &Path,
) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let same = || SAME.to_string();
    let groups = |user: &User| user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    vec![
        VERB.into(),
        user.map_or_else(same, |user| user.uid.to_string()),
        user.map_or_else(same, |user| user.gid.to_string()),
        user.map_or_else(same, groups),
        cgroup.map_or_else(same, path),
        descriptors.map_or_else(same, |limit| limit.to_string()),
        directory.map_or_else(same, path),
        "--".into(),
        path(program),
    ]
}

/// Becomes a program of another user, with another limit. `words` are those of [`words`] without
/// the verb, and then the program's own.
pub fn exec(words: &[String]) -> io::Result<Infallible> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "not a user, a limit and a program");
    let [uid, gid, groups, group, descriptors, directory, program, args @ ..] = words else {
        return Err(wrong());
    };
    let number = |word: &str| word.parse::<u32>().map_err(|_| wrong());
    prctl::set_name(&CString::new(NAME)?)?;
    // First, so that all that it does from here on is counted.
    if group != SAME {
        fs::write(Path::new(group).join(cgroup::PROCESSES), "0")?;
    }
    if descriptors != SAME {
        let soft = descriptors.parse().map_err(|_| wrong())?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    }
    if uid != SAME {
        let groups = groups.split(',').filter(|group| !group.is_empty());
        let groups: Vec<Gid> =
            groups.map(|group| number(group).map(Gid::from_raw)).collect::<Result<_, _>>()?;
        let (uid, gid) = (Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        // The daemon reads the environment of a VM's process, with the rights of its user.
        prctl::set_dumpable(true)?;
    }
    if directory != SAME {
        env::set_current_dir(directory)?;
    }
    Err(Command::new(program).args(args).exec())
}
