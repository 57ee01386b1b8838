//! One daemon at a time.
//!
//! The lock is a `flock` on the file `lock` of a directory. It ends with the process, however the
//! process ends. The file stays. Its text is the holder's pid, for people only. A child has the
//! lock from its start to its exec, because the file is close-on-exec. If the daemon is killed in
//! that moment, the next daemon waits. Both directories are locked: two daemons must share neither
//! the runtime directory nor the state directory, where they would overwrite each other's records.

use std::fs::{File, OpenOptions, create_dir_all, write};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::failure;
use crate::model::error::Failure;

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
    let mut taken = take(file);
    for _ in 1..TURNS {
        let Err((file, Errno::EWOULDBLOCK)) = taken else { break };
        sleep(TURN);
        taken = take(file);
    }
    match taken {
        Ok(file) => {
            // The disk may be full. Then a second daemon is not told the pid of the first.
            let _ = write(&path, format!("{}\n", std::process::id()));
            Ok(Lock { _file: file, path })
        }
        Err((file, Errno::EWOULDBLOCK)) => Err(held(&path, file)),
        Err((_, errno)) => Err(failure(&path, "cannot lock", &errno.into())),
    }
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
