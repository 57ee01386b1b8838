//! The last step before a hypervisor: a process with the daemon's rights takes a user's rights.
//!
//! This is a program of its own that becomes the hypervisor. A process that changes its user
//! between fork and exec cannot be started by vfork: a fork took the daemon's only thread 0.3 to
//! 1.5 ms, depending on its size, and this takes 0.08 ms. The program is the daemon's own
//! (`/proc/self/exe`, which stays the same over an upgrade), with a verb that is not for people.
//!
//! [`super::spawn`] sets its descriptors, process group and environment. It loses the daemon's
//! rights with the change of user: a process that changes from root to another user loses all
//! capabilities. It does not get them back, because the daemon has set `no_new_privs`.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::hypervisor::user::User;

/// The verb.
pub const VERB: &str = "exec-as";
/// The program.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// The name of the process until it is the hypervisor. For a moment nobody can read its
/// environment.
pub(super) const NAME: &str = "volnet-start";

/// The words before the hypervisor's own.
pub(super) fn words(user: &User, program: &Path) -> Vec<String> {
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let program = program.display().to_string();
    vec![
        VERB.into(),
        user.uid.to_string(),
        user.gid.to_string(),
        groups.join(","),
        "--".into(),
        program,
    ]
}

/// Becomes a program of another user. `words` are those of [`words`] without the verb, and then the
/// program's own.
pub fn exec(words: &[String]) -> io::Result<Infallible> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "not a user and a program");
    let [uid, gid, groups, program, args @ ..] = words else { return Err(wrong()) };
    let number = |word: &str| word.parse::<u32>().map_err(|_| wrong());
    let groups = groups.split(',').filter(|group| !group.is_empty());
    let groups: Vec<Gid> =
        groups.map(|group| number(group).map(Gid::from_raw)).collect::<Result<_, _>>()?;
    let (uid, gid) = (Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?));
    prctl::set_name(&CString::new(NAME)?)?;
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // The daemon reads the environment of a VM's process, with the rights of its user.
    prctl::set_dumpable(true)?;
    Err(Command::new(program).args(args).exec())
}
