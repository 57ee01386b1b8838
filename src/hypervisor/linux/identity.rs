//! Identifies processes by `/proc/PID/stat` and by marks in their environment.
//!
//! A pid can be reused, but a pid with its start time cannot, until the next boot. Every process
//! that volnet starts has the VM's name and the runtime directory in its environment. So volnet
//! finds a process whose pid was never recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str;
use std::thread::sleep;
use std::time::{Duration, Instant};

use volnet_ffi::pidfd;

use super::confine;
use crate::model::name::VmName;
use crate::rights;
use crate::store::Paths;

/// The environment variable with the VM's name, in a hypervisor's process.
pub(super) const MARK_VM: &str = "VOLNET_VM";
/// The same in the process of a hypervisor's helper.
pub(super) const MARK_HELPER: &str = "VOLNET_HELPER";
/// The same in the process that keeps the VM's log.
pub(super) const MARK_KEEPER: &str = "VOLNET_KEEPER";
/// The environment variable with the runtime directory: two daemons may have VMs of the same name.
pub(super) const MARK_RUNTIME: &str = "VOLNET_RUNTIME";

/// The longest environment that is searched, in bytes. Ours has three short variables.
const ENVIRONMENT_MAX: u64 = 64 << 10;
/// The longest `/proc/PID/stat` in bytes: 52 numbers of at most 20 digits, and a name.
const STAT_MAX: u64 = 4 << 10;

/// How long a look at all processes waits at most for those that are about to become another
/// program, and how often it looks. Each takes less than a millisecond, but on a busy host there is
/// often one.
const START_MAX: Duration = Duration::from_secs(10);
const START_TURN: Duration = Duration::from_millis(1);

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 3: `R`, `S`, … and `Z` (zombie) or `X` (dead).
    pub(super) state: u8,
    /// Field 5: the process group.
    pub(super) group: u32,
    /// Field 22: clock ticks from boot to its start.
    pub(super) start_time: u64,
    /// Field 52: for a zombie, its status in the form of wait(2).
    pub(super) status: i32,
}

/// Whether a process has a thread whose name begins so (`/proc/PID/task/TID/comm`, proc(5)).
pub(super) fn has_thread(pid: u32, name: &str) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let comm = |thread: fs::DirEntry| fs::read(thread.path().join("comm")).unwrap_or_default();
    threads.flatten().any(|thread| comm(thread).starts_with(name.as_bytes()))
}

impl Stat {
    /// Reads a process's line. If there is no such process, it is an error.
    pub(super) fn read(pid: u32) -> io::Result<Stat> {
        // A reader without the right to inspect a process sees the status 0.
        let line = read(pid, "stat", STAT_MAX)?;
        Stat::parse(&line).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a stat"))
    }

    /// Whether it has ended and only waits for its parent to notice.
    pub(super) fn is_zombie(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// The name in field 2 may have any character, also `)` and newlines. So fields are counted
    /// from the last `)`.
    pub(super) fn parse(line: &[u8]) -> Option<Stat> {
        let end_of_name = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&line[end_of_name + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // Each `nth` continues after the last field that was read. The first is field 3.
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let start_time = fields.nth(16)?.parse().ok()?;
        let status = fields.nth(29)?.parse().ok()?;
        Some(Stat { state, group, start_time, status })
    }
}

/// Reads a file of a process, with the rights of its user.
fn read(pid: u32, file: &str, most: u64) -> io::Result<Vec<u8>> {
    let folder = folder_of(pid);
    let mut contents = Vec::new();
    rights::act_as_owner(&folder, || {
        File::open(folder.join(file))?.take(most).read_to_end(&mut contents)
    })?;
    Ok(contents)
}

fn folder_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// The id of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// The processes that a look at all of them finds for a VM.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its hypervisor.
    pub(super) hypervisor: Option<(u32, Stat)>,
    /// Its helpers.
    pub(super) helpers: Vec<Helper>,
}

/// A helper of a hypervisor.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

/// Looks for the processes that were started for VMs of a runtime directory, and belong to one of
/// the users of the VM or to the owner of its folder. Children of a VM's process have the marks,
/// too: the hypervisor is the one that started first. `uids` are all of these users.
pub(super) fn find_all(
    runtime_dir: &Path,
    uids: &BTreeSet<u32>,
    users: impl Fn(&VmName) -> [u32; 2],
) -> BTreeMap<VmName, Found> {
    let begin = Instant::now();
    let mut all: BTreeMap<VmName, Found> = BTreeMap::new();
    for pid in numbers() {
        // Processes of other users could keep the daemon from starting.
        let is_of_them = uid_of(pid).is_some_and(|uid| uids.contains(&uid));
        let until = if is_of_them { begin + START_MAX } else { begin };
        let Some((part, name)) = part_of(pid, runtime_dir, until) else { continue };
        let mut marks = Marks::new(part, &name, runtime_dir);
        marks.uids.extend(users(&name));
        // Opened first: if the pid changes hands meanwhile, it is of a process that has ended.
        let pidfd = pidfd::open(pid);
        let Some(stat) = marked(pid, &marks, until) else { continue };
        let found = all.entry(name).or_default();
        if part == MARK_HELPER {
            found.helpers.extend(pidfd.ok().map(|pidfd| Helper { pid, pidfd }));
            continue;
        }
        let earlier = |(other, of): &(u32, Stat)| (of.start_time, *other) < (stat.start_time, pid);
        if !found.hypervisor.as_ref().is_some_and(earlier) {
            found.hypervisor = Some((pid, stat));
        }
    }
    all
}

/// The VM of a runtime directory that the environment of a process names, and by which mark.
fn part_of(pid: u32, runtime_dir: &Path, until: Instant) -> Option<(&'static str, VmName)> {
    let environment = environment(pid, until).ok()?;
    let value = |name: &str| {
        environment.split(|byte| *byte == 0).find_map(|entry| {
            entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        })
    };
    if value(MARK_RUNTIME) != Some(runtime_dir.as_os_str().as_encoded_bytes()) {
        return None;
    }
    let (part, name) =
        [MARK_VM, MARK_HELPER].into_iter().find_map(|part| Some((part, value(part)?)))?;
    Some((part, VmName::new(str::from_utf8(name).ok()?).ok()?))
}

/// The environment of a process. If it is about to become another program, and nobody can read for
/// a moment what it will have, this waits, but not longer than `until`.
fn environment(pid: u32, until: Instant) -> io::Result<Vec<u8>> {
    loop {
        // Asked before, because what is read meanwhile may be of volnet.
        let was_volnet = is_to_become_one(pid);
        let environment = read(pid, "environ", ENVIRONMENT_MAX)?;
        let is_its_own = if environment.is_empty() { has_none(pid) } else { !was_volnet };
        if is_its_own || Instant::now() >= until {
            return Ok(environment);
        }
        sleep(START_TURN);
    }
}

/// Whether a process is volnet itself, which gives up its rights before execve(2).
fn is_to_become_one(pid: u32) -> bool {
    let name = read(pid, "comm", STAT_MAX).unwrap_or_default();
    name.trim_ascii_end() == confine::NAME.as_bytes()
}

/// Whether a process has no environment, and not only none yet: within execve(2) it has a new name
/// already, but neither arguments nor an environment (fs/exec.c, `begin_new_exec` and
/// `create_elf_tables`). Threads of the kernel and processes that have ended have neither, too, but
/// they have no program.
fn has_none(pid: u32) -> bool {
    let has = |file| read(pid, file, 1).is_ok_and(|content| !content.is_empty());
    let folder = folder_of(pid);
    let program = || rights::act_as_owner(&folder, || fs::read_link(folder.join("exe")));
    (has("cmdline") || program().is_err()) && !has("environ")
}

/// The user of a process, if there is one.
fn uid_of(pid: u32) -> Option<u32> {
    Some(fs::metadata(folder_of(pid)).ok()?.uid())
}

/// All processes.
fn numbers() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The process that keeps the log of this VM, which is the daemon's user's.
pub(super) fn keeper(name: &VmName, runtime_dir: &Path) -> Option<u32> {
    let mut marks = Marks::new(MARK_KEEPER, name, runtime_dir);
    marks.uids = vec![nix::unistd::geteuid().as_raw()];
    let until = Instant::now() + START_MAX;
    numbers().find(|pid| marked(*pid, &marks, until).is_some())
}

/// The marks of a VM's processes.
struct Marks {
    environment: [Vec<u8>; 2],
    /// The owner of the VM's folder, and others who may be meant. Processes of other users may have
    /// any variables, and do not count.
    uids: Vec<u32>,
}

impl Marks {
    fn new(part: &str, name: &VmName, runtime_dir: &Path) -> Marks {
        let own = nix::unistd::geteuid().as_raw();
        let uid = fs::metadata(Paths::new("", runtime_dir).folder(name)).map_or(own, |of| of.uid());
        let runtime_dir = runtime_dir.as_os_str().as_encoded_bytes();
        let runtime_dir = [MARK_RUNTIME.as_bytes(), b"=", runtime_dir].concat();
        Marks { environment: [format!("{part}={name}").into_bytes(), runtime_dir], uids: vec![uid] }
    }
}

/// The stat of a running process that has all the marks. [`environment`] says what `until` is for.
fn marked(pid: u32, marks: &Marks, until: Instant) -> Option<Stat> {
    if !marks.uids.contains(&uid_of(pid)?) {
        return None;
    }
    let before = Stat::read(pid).ok()?;
    let environment = environment(pid, until).ok()?;
    let carries = |mark: &Vec<u8>| environment.split(|byte| *byte == 0).any(|entry| entry == mark);
    if !marks.environment.iter().all(carries) {
        return None;
    }
    // Read it again: the pid may belong to another process since the other file was read.
    let after = Stat::read(pid).ok()?;
    (before.start_time == after.start_time && !after.is_zombie()).then_some(after)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    // A line of `cat /proc/self/stat`, with the name of a process that wants to be misread.
    const LINE: &[u8] =
        b"1234 (a) R 1 (b) S 1230 1229 1200 34816 1234 4194304 96 0 0 0 0 0 0 0 20 \
        0 1 0 6012345 3325952 384 18446744073709551615 1 2 3 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 4 5 \
        6 7 8 9 10 256\n";

    /// A process that ends with its test.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn fields_are_counted_from_the_last_bracket() {
        let stat = Stat { state: b'S', group: 1229, start_time: 6_012_345, status: 256 };
        assert_eq!(Stat::parse(LINE), Some(stat));
        for length in 0..LINE.len() - 4 {
            assert_eq!(Stat::parse(&LINE[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn who_has_no_environment_is_not_taken_to_be_in_an_execve() {
        let mut command = Command::new("sleep");
        let mut sleep = Ended(command.arg("600").env_clear().spawn().expect("sleep starts"));
        // It has arguments, once its own execve(2) is over.
        while !has_none(sleep.0.id()) {
            std::thread::yield_now();
        }
        sleep.0.kill().expect("it runs");
        while !Stat::read(sleep.0.id()).is_ok_and(Stat::is_zombie) {
            std::thread::yield_now();
        }
        assert!(has_none(sleep.0.id()), "it has no program any more");
    }

    /// A shell becomes other programs, one after the other, and none is taken to be without marks.
    #[test]
    fn a_process_that_becomes_another_program_keeps_its_marks() {
        let script = "n=$1; [ $n = 0 ] && exec sleep 600; exec sh -c \"$0\" \"$0\" $((n - 1))";
        let mut command = Command::new("sh");
        command.args(["-c", script, script, "300"]).env_clear().env(MARK_VM, "a");
        command.env("PATH", "/usr/bin:/bin");
        let shell = Ended(command.spawn().expect("sh starts"));
        let pid = shell.0.id();
        let name = || read(pid, "comm", STAT_MAX).unwrap_or_default();
        let mut looks = 0;
        while name() != b"sleep\n" {
            let until = Instant::now() + START_MAX;
            let environment = environment(pid, until).expect("it runs");
            let mut entries = environment.split(|byte| *byte == 0);
            assert!(entries.any(|entry| entry == b"VOLNET_VM=a"), "{looks}: {environment:?}");
            looks += 1;
        }
        assert!(looks > 0);
    }

    #[test]
    fn this_process_is_known() {
        let stat = Stat::read(std::process::id()).unwrap();
        assert!(!stat.is_zombie() && stat.start_time > 0);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert_eq!(Stat::read(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
