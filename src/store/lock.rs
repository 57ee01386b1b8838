//! One daemon at a time.
//!
//! The lock is a `flock` on the file `lock` of a directory. It ends with the process, however the
//! process ends. The file stays. Its text is the holder's pid, for people only. A child has the
//! lock from its start to its exec, because the file is close-on-exec. If the daemon is killed in
//! that moment, the next daemon waits. Both directories are locked: two daemons must share neither
//! the runtime directory nor the state directory, where they would overwrite each other's records.
//!
//! The third lock is that of the network namespace: two daemons in one namespace take each other's
//! links for left over, whatever their directories are. It is a `flock` on the namespace itself, by
//! the file that the kernel has for it (namespaces(7)), so it is the same in every mount namespace.
//! Any process in the namespace may open that file and lock it. A holder that could not change the
//! network is no volnet: it is reported, and the daemon starts without the lock.

use std::fs::{File, OpenOptions, create_dir_all, read_to_string, write};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use super::failure;
use crate::model::error::Failure;

/// The network namespace as a file.
const NAMESPACE: &str = "/proc/self/ns/net";
/// `CAP_NET_ADMIN` (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// How many turns to wait for a lock that another process holds.
const TURNS: u32 = 50;
/// The length of a turn.
const TURN: Duration = Duration::from_millis(10);

/// The right to write the state. Given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

/// The right to change the links and rules of a network namespace. Given back when dropped.
#[derive(Debug)]
pub struct NetworkLock {
    _file: Flock<File>,
}

impl Lock {
    /// Where the lock is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The pid is a hint for people. A stale one only says who it was.
        let _ = write(&self.path, "");
    }
}

/// Takes the lock of a directory, and makes the directory if it is missing. A second daemon is
/// refused, with the pid of the first.
pub fn lock(directory: &Path) -> Result<Lock, Failure> {
    let path = directory.join("lock");
    create_dir_all(directory)
        .map_err(|error| failure(directory, "cannot make the directory", &error))?;
    let file = open(&path).map_err(|error| failure(&path, "cannot open", &error))?;
    match take_soon(file) {
        Ok(file) => {
            // The disk may be full. Then a second daemon is not told the pid of the first.
            let _ = write(&path, format!("{}\n", std::process::id()));
            Ok(Lock { _file: file, path })
        }
        Err((file, Errno::EWOULDBLOCK)) => Err(held(&path, file)),
        Err((_, errno)) => Err(failure(&path, "cannot lock", &errno.into())),
    }
}

/// Takes the lock of the network namespace that we are in. A second daemon is refused, with the pid
/// of the first. `None` where somebody holds it who cannot be a volnet.
pub fn lock_network() -> Result<Option<NetworkLock>, Failure> {
    let path = Path::new(NAMESPACE);
    let file = File::open(path).map_err(|error| failure(path, "cannot open", &error))?;
    match take_soon(file) {
        Ok(file) => Ok(Some(NetworkLock { _file: file })),
        Err((file, Errno::EWOULDBLOCK)) => {
            let holder = holder(&file);
            let (pid, name) = (holder.map(|(pid, _)| pid), holder.map(|(pid, _)| name_of(pid)));
            let who = match (pid, name) {
                (Some(pid), Some(name)) => format!("process {pid} ({name})"),
                (_, _) => "another process".into(),
            };
            if holder.is_some_and(|(_, is_able)| !is_able) {
                log::warn!("{who} holds the lock of the network namespace and is no volnet");
                return Ok(None);
            }
            let reason =
                format!("{who} holds the lock: one volnet runs in this network namespace already");
            Err(Failure::State { path: NAMESPACE.into(), reason })
        }
        Err((_, errno)) => Err(failure(path, "cannot lock", &errno.into())),
    }
}

/// Who holds the lock of a file, and whether that process can change the network: it is root's or
/// ours, or has CAP_NET_ADMIN. `None` if it is in another PID namespace.
fn holder(file: &File) -> Option<(u32, bool)> {
    let of_file = file.metadata().ok()?;
    let (major, minor) = (libc::major(of_file.dev()), libc::minor(of_file.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", of_file.ino());
    let locks = read_to_string("/proc/locks").ok()?;
    // proc_locks(5): number, kind, mode, access, pid, device and inode, start, end.
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let holds = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place.as_str());
        holds.then(|| fields[4].parse::<u32>().ok().filter(|pid| *pid > 0)).flatten()
    })?;
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let user = field("Uid:").and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    let rights = field("CapEff:").and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    let is_able = user.is_none_or(|user: u32| user == 0 || user == geteuid().as_raw())
        || rights.is_none_or(|rights| rights & (1 << CAP_NET_ADMIN) != 0);
    Some((pid, is_able))
}

fn name_of(pid: u32) -> String {
    let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().chars().filter(|letter| !letter.is_control()).collect()
}

/// Takes the lock, or waits for a moment until who holds it gives it back.
fn take_soon(file: File) -> Result<Flock<File>, (File, Errno)> {
    let mut taken = take(file);
    for _ in 1..TURNS {
        let Err((file, Errno::EWOULDBLOCK)) = taken else { break };
        sleep(TURN);
        taken = take(file);
    }
    taken
}

fn take(file: File) -> Result<Flock<File>, (File, Errno)> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
}

/// Opens the file for reading: a file that is open for writing keeps the file system from being
/// remounted read-only. If nothing can be written, the file may be missing, and the directory
/// itself serves as well.
fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().append(true).create(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            File::open(path).or_else(|_| File::open(path.parent().unwrap_or(path)))
        }
        made => made.and_then(|_| File::open(path)),
    }
}

fn held(path: &Path, file: File) -> Failure {
    let mut holder = String::new();
    // The bound is far above the length of a pid. Other contents do not matter.
    let read = file.take(32).read_to_string(&mut holder);
    let who = match holder.trim() {
        pid if read.is_ok() && !pid.is_empty() => format!("process {pid}"),
        _ => "another process".into(),
    };
    Failure::State {
        path: path.display().to_string(),
        reason: format!("{who} holds the lock: another volnet uses this directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let scratch = Scratch::new();
        let first = lock(&scratch.path().join("run")).unwrap();
        let Failure::State { path, reason } = lock(&scratch.path().join("run")).unwrap_err() else {
            panic!("not a state failure");
        };
        assert_eq!(Path::new(&path), first.path());
        assert!(reason.contains(&format!("process {} holds", std::process::id())), "{reason}");
        drop(first);
        lock(&scratch.path().join("run")).unwrap();
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for() {
        let scratch = Scratch::new();
        let first = lock(scratch.path()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(scratch.path()).map(drop));
            sleep(TURN);
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
