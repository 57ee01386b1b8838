//! Finds the process that holds a tap, or a socket, open. The kernel shows it only in /proc: `iff:`
//! in the fdinfo of a descriptor of /dev/net/tun (drivers/net/tun.c, `tun_chr_show_fdinfo`). That
//! is a name, and another network namespace may have a tap of the same name: only processes with a
//! thread in ours count. The search reads all descriptors of all processes, so it is only for error
//! messages, and it is bounded. The kernel hides processes that have rights which we do not have.

use std::fs;
use std::path::{Path, PathBuf};

use volnet_ffi::tun;

use crate::rights;

/// The most descriptors to look at; this takes some 100 ms.
const LOOKS_MAX: usize = 100_000;

/// A process that has a tap open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// The name of its program, as the kernel has it (at most 15 bytes).
    pub name: String,
}

/// The process that has the tap open, if it is found.
pub fn of(tap: &str) -> Option<Holder> {
    let ours = fs::read_link("/proc/thread-self/ns/net").ok()?;
    find(|pid, descriptor, path| {
        path == Path::new(tun::PATH) && is(tap, pid, descriptor) && is_in(&ours, pid)
    })
}

/// The process that has the socket of this inode open, if it is found.
pub(super) fn of_socket(inode: u64) -> Option<Holder> {
    let name = format!("socket:[{inode}]");
    find(|_, _, path| path == Path::new(&name))
}

/// The first process that has a wanted descriptor: it is told pid, number, and what it is.
fn find(wanted: impl Fn(u32, &str, &Path) -> bool) -> Option<Holder> {
    let mut looks = LOOKS_MAX;
    let mut processes = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    let pid = processes.find(|&pid| holds(pid, &wanted, &mut looks))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder { pid, name: name.trim_end().into() })
}

fn holds(pid: u32, wanted: impl Fn(u32, &str, &Path) -> bool, looks: &mut usize) -> bool {
    if *looks == 0 {
        return false;
    }
    let process = PathBuf::from(format!("/proc/{pid}"));
    let looked = rights::act_as_owner(&process, || {
        let descriptors = fs::read_dir(process.join("fd"))?;
        Ok(descriptors.flatten().any(|entry| {
            *looks = looks.saturating_sub(1);
            *looks > 0
                && fs::read_link(entry.path())
                    .is_ok_and(|path| wanted(pid, &entry.file_name().to_string_lossy(), &path))
        }))
    });
    looked.unwrap_or(false)
}

fn is(tap: &str, pid: u32, descriptor: &str) -> bool {
    let path = format!("/proc/{pid}/fdinfo/{descriptor}");
    fs::read_to_string(path).is_ok_and(|info| names(&info, tap))
}

/// Whether a thread of the process is in this network namespace.
fn is_in(namespace: &Path, pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| fs::read_link(thread.path().join("ns/net")).ok();
    threads.filter_map(of_thread).any(|other| other == namespace)
}

/// Whether the fdinfo of a descriptor names the tap.
pub(super) fn names(info: &str, tap: &str) -> bool {
    info.lines().any(|line| line.strip_prefix("iff:").is_some_and(|name| name.trim() == tap))
}
