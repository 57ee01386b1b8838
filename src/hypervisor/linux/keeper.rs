//! The keeper of a VM's log: a small process that writes what the VM's hypervisor prints to the
//! log, and keeps the log within its bound.
//!
//! ```text
//! hypervisor, helper ─ pipe ─▶ keeper ─▶ log
//! ```
//!
//! The daemon cannot do this: it may be restarted, or be gone, while its VMs run and print. A limit
//! of the kernel (`RLIMIT_FSIZE`) would hit the disks of the VM as well, and it keeps the oldest
//! part. So each hypervisor has a keeper. The keeper is started before it and ends when nobody has
//! the other end of the pipe any more, which is when the hypervisor and all that it started have
//! ended. The next daemon need not know of it.
//!
//! The keeper is volnet's own program with a verb that is not for people. It has the pipe and the
//! log, and no capabilities, opens nothing, and lets signals that ask it to end pass: what the
//! hypervisor prints at its end is often the reason. A hypervisor cannot reach it, because it
//! belongs to the daemon's user. If it is killed, the output of its VM is lost, and the hypervisor
//! gets `EPIPE`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, fchown, pipe2};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use volnet_ffi::{capabilities, pidfd};

use super::confine;
use super::identity::{MARK_KEEPER, MARK_RUNTIME};
use crate::hypervisor::bounded::BoundedLog;
use crate::hypervisor::user::User;
use crate::model::name::VmName;
use crate::store::space::Space;

/// The verb.
pub const VERB: &str = "keep-log";

/// How much is read at a time, in bytes.
const CHUNK: usize = 16 << 10;

/// A keeper, and the end of the pipe for those whose output it keeps.
pub(super) struct Keeper {
    pub(super) pidfd: OwnedFd,
    pub(super) input: OwnedFd,
}

/// Lets a user open the end of the pipe by its name in `/proc`, as programs do with `/dev/stdout`.
pub(super) fn hand_over(input: &OwnedFd, user: &User) -> io::Result<()> {
    Ok(fchown(input, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?)
}

/// Starts a keeper of a log with this bound in bytes.
pub(super) fn start(
    log: File,
    bound: u64,
    name: &VmName,
    runtime_dir: &std::path::Path,
) -> io::Result<Keeper> {
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    let mut child = Command::new(confine::PROGRAM)
        .args([VERB, &bound.to_string()])
        .env_clear()
        .env(MARK_KEEPER, name.as_str())
        .env(MARK_RUNTIME, runtime_dir)
        .stdin(output)
        .stdout(log)
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    match pidfd::open(child.id()) {
        Ok(pidfd) => Ok(Keeper { pidfd, input }),
        Err(error) => {
            // It would end by itself, but nobody would wait for it.
            drop(input);
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Keeps the log that is standard output within its bound, until standard input ends.
pub fn keep(bound: &str) -> io::Result<()> {
    let bound = bound.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    prctl::set_name(c"volnet-log")?;
    capabilities::keep(0)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let log = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // A file that is open for appending cannot be written elsewhere (pwrite(2), BUGS).
    fcntl(&log, FcntlArg::F_SETFL(OFlag::empty()))?;
    let log = BoundedLog::new(log, bound);
    let has_room =
        |file: &File, more| Space::of_file(file).map_or(true, |space| space.has_room_for(more));
    let mut chunk = [0; CHUNK];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok(()),
            // Nobody can be told of an error here, and the hypervisor must not wait for it.
            Ok(length) => drop(log.append(&chunk[..length], has_room)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
