//! Starts one process, and decides what it inherits.
//!
//! The process runs as the user of hypervisors, if there is one, and with the limits that the
//! daemon was started with (see [`confine`]). It gets the VM's streams, `PATH` and the marks as
//! environment, and a process group. A helper gets an empty input, and prints messages only. All
//! other descriptors of volnet are close-on-exec; the process gets only those that its arguments
//! name. They are open for whoever is started meanwhile, so one process is started at a time
//! ([`with_open`]). It does not inherit volnet's signal mask. The program is looked up here,
//! because the standard library forks instead of using vfork if it must search a `PATH` that it
//! also sets.

use std::env;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::rlim_t;
use volnet_ffi::pidfd;

use super::confine;
use super::identity::{MARK_HELPER, MARK_RUNTIME, MARK_VM, Stat};
use crate::hypervisor::process::Streams;
use crate::hypervisor::user::User;
use crate::hypervisor::{HypervisorCommand, inputs};
use crate::model::name::VmName;
use crate::rights;

const FILE_MODE: u32 = 0o600;
const LOG_MODE: u32 = 0o640;
const LOG_DIRECTORY_MODE: u32 = 0o750;

/// How long all helpers of a VM may take to be ready, in turns of one millisecond. Each takes 5.
const READY_TURNS: u32 = 500;

/// The VM and the environment of a process.
pub(super) struct Surroundings<'a> {
    /// The VM.
    pub(super) name: &'a VmName,
    /// The daemon's runtime directory.
    pub(super) runtime_dir: &'a Path,
    /// The user of the process; `None`: the daemon's.
    pub(super) user: Option<&'a User>,
    /// The directory of its control group; `None`: the daemon's.
    pub(super) cgroup: Option<&'a Path>,
    /// The soft limit of its open descriptors; `None`: the daemon's.
    pub(super) descriptors: Option<rlim_t>,
    /// The standard streams of the VM's hypervisor.
    pub(super) streams: &'a Streams,
    /// The descriptors that its arguments may name: the VM's taps, the memory that it wakes with.
    pub(super) open: &'a [OwnedFd],
}

/// Who is about to start a process, in whatever thread.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process for which these descriptors are open across exec, and for no other one. All
/// processes are started here.
pub(super) fn with_open<'a>(
    command: &mut process::Command,
    descriptors: impl Iterator<Item = BorrowedFd<'a>> + Clone,
) -> io::Result<Child> {
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let set = |flags| -> io::Result<()> {
        for descriptor in descriptors.clone() {
            fcntl(descriptor, FcntlArg::F_SETFD(flags))?;
        }
        Ok(())
    };
    let started = set(FdFlag::empty()).and_then(|()| command.spawn());
    // It fails for nobody: the same was done a moment ago.
    let _ = set(FdFlag::FD_CLOEXEC);
    started
}

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It is the hypervisor. If it has a helper, it joins the helper's group.
    Hypervisor { group: Option<u32> },
    /// It helps the hypervisor. The first helper leads the group.
    Helper { group: Option<u32> },
}

/// A process of ours.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) stat: Stat,
}

/// Writes the files that a command needs, and makes its links.
pub(super) fn write_files(command: &HypervisorCommand) -> Result<(), String> {
    for (path, contents) in &command.files {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let write = || options.open(path)?.write_all(contents);
        rights::act_as_owner(path.parent().unwrap_or(path), write)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    for (path, target) in &command.links {
        rights::act_as_owner(path.parent().unwrap_or(path), || symlink(target, path))
            .map_err(|error| format!("cannot make the link {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Opens a VM's log for reading and appending, and makes its directory if it is missing.
pub(super) fn open_log(path: &Path) -> Result<File, String> {
    let open = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(LOG_DIRECTORY_MODE).create(directory)?;
        }
        // If the log is not a regular file, somebody put it there: a link would lead elsewhere, and
        // a FIFO would block.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut options = OpenOptions::new();
        let log = options
            .read(true)
            .append(true)
            .create(true)
            .mode(LOG_MODE)
            .custom_flags(flags)
            .open(path)?;
        match log.metadata()?.is_file() {
            true => Ok(log),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        }
    };
    open().map_err(|error: io::Error| format!("cannot open the log {}: {error}", path.display()))
}

/// Starts a process. It is our child, so nobody else gets its pid until we wait for it.
pub(super) fn spawn(
    command: &HypervisorCommand,
    part: Part,
    place: &Surroundings<'_>,
) -> Result<Spawned, String> {
    let cannot = |error: io::Error| format!("cannot start {}: {error}", command.program);
    let find = || inputs::find_program(&command.program);
    let program = match place.user {
        None => find()?,
        Some(user) => user.act(find).map_err(cannot)??,
    };
    let (mark, group) = match part {
        Part::Hypervisor { group } => (MARK_VM, group.unwrap_or(0)),
        Part::Helper { group } => (MARK_HELPER, group.unwrap_or(0)),
    };
    let group = i32::try_from(group).map_err(|_| "a process group is not a pid".to_owned())?;
    let named = |fd: &&OwnedFd| command.inherits.contains(&(fd.as_raw_fd() as u32));
    let inherited = place.open.iter().filter(named).map(AsFd::as_fd);
    let clone = |stream: &OwnedFd| stream.try_clone().map(Stdio::from).map_err(cannot);
    let Streams { keys, console, messages } = place.streams;
    let (input, output) = match part {
        Part::Hypervisor { .. } => (clone(keys)?, clone(console)?),
        Part::Helper { .. } => (Stdio::null(), clone(messages)?),
    };
    let errors = clone(messages)?;
    // The standard library may fork instead of using vfork for a directory, too.
    let directory = command.directory.as_deref();
    let mut start = match (place.user, place.cgroup, place.descriptors, directory) {
        (None, None, None, None) => process::Command::new(&program),
        (user, cgroup, descriptors, directory) => {
            let mut start = process::Command::new(confine::PROGRAM);
            start.args(confine::words(user, cgroup, descriptors, directory, &program));
            start
        }
    };
    start
        .args(&command.args)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_else(|| inputs::DEFAULT_PATH.into()))
        .env(mark, place.name.as_str())
        .env(MARK_RUNTIME, place.runtime_dir)
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .process_group(group);
    let mut child = with_open(&mut start, inherited).map_err(cannot)?;
    let pid = child.id();
    let watched = pidfd::open(pid).and_then(|pidfd| Ok((pidfd, Stat::read(pid)?)));
    match watched {
        Ok((pidfd, stat)) => Ok(Spawned { pid, pidfd, stat }),
        Err(error) => {
            // No descriptor is free. A process that cannot be watched must not run.
            let _ = child.kill().and_then(|()| child.wait());
            Err(cannot(error))
        }
    }
}

/// Waits until all helpers serve, see "Waits" in [`super`]. One that works takes milliseconds.
pub(super) fn await_ready<'a>(
    helpers: impl Iterator<Item = (&'a Spawned, &'a HypervisorCommand)>,
) -> Result<(), String> {
    let mut turns = READY_TURNS;
    for (helper, command) in helpers {
        let Some(socket) = &command.ready else { continue };
        let folder = socket.parent().unwrap_or(socket);
        while !rights::act_as_owner(folder, || socket.try_exists()).unwrap_or(false) {
            match pidfd::has_ended(helper.pidfd.as_fd(), 1) {
                Ok(false) if turns > 0 => turns -= 1,
                Ok(false) => {
                    let socket = socket.display();
                    return Err(format!("{} did not make {socket} in time", command.program));
                }
                Ok(true) => return Err(format!("{} ended at once", command.program)),
                Err(error) => return Err(format!("cannot watch {}: {error}", command.program)),
            }
        }
    }
    Ok(())
}
