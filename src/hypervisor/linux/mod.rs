//! The processes of hypervisors on Linux.
//!
//! A process is watched by its pidfd. The pidfd shows when the process ends, and signals go through
//! it, so that they hit this process or none. This daemon spawned the process, which is then our
//! child, or adopted it from an earlier daemon, and then it is init's child. For a child, waitid
//! gives the status. For an adopted process, the pidfd gives the status since Linux 6.15; before
//! that it is read from `/proc` while the process is a zombie. Otherwise it is [`Exit::Lost`].
//!
//! **The group.** A hypervisor leads a process group, or joins the group of its first helper,
//! because helpers start first. This group ends with the VM. A signal to a group by number may hit
//! a later group with the same number. So the signal goes through the pidfd of the leader (Linux
//! 6.9). On older kernels it goes by number, but only while the hypervisor still exists, at least
//! as a zombie, and is in this group: the kernel does not reuse the number of a group that exists.
//! Helpers are ended by their pidfds, too. A crash of the daemon may leave a helper without its
//! hypervisor. The next daemon finds it by its marks and ends it ([`Processes::sweep`]).
//!
//! **Logs and console.** The standard streams of hypervisor and helpers are those of the keeper
//! ([`keeper`]), which bounds the logs and serves the console.
//!
//! **Waits.** The daemon has one thread for all VMs, and it waits for a process in three places
//! only, each with a bound: for the helpers that are started before a hypervisor, until they serve
//! (half a second together); for a killed helper ([`HELPER_END_MS`]), or the keeper of a VM
//! that has ended ([`KEEPER_END_MS`]); for a killed hypervisor whose start is undone
//! ([`KILL_MS`]).
//! Before the loop begins, a new daemon also waits for processes that are about to become
//! hypervisors, ten seconds at most.

pub mod confine;
mod events;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod identity;
pub mod keeper;
pub mod own_disks;
mod pause;
mod power;
mod progress;
pub mod snapshot;
mod spawn;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::resource::rlim_t;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use socket2::Socket;
use volnet_ffi::pidfd;

use self::events::Events;
use self::identity::{Helper, Stat};
use self::keeper::{Keeper, Keeping};
use self::progress::Question;
use self::spawn::{Part, Spawned, Surroundings};
use super::cgroup::Root;
use super::log::Logs;
use super::process::{Given, Processes, Streams};
use super::user::User;
use super::{Control, HypervisorCommand, folder, log};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{Exit, Heard, Order, ProcessId, Progress};
use crate::model::spec::Owner;
use crate::store::Paths;

/// How long to wait for a killed helper in one turn, in milliseconds. It takes one.
const HELPER_END_MS: u16 = 50;

/// How long to wait for a keeper that has nothing more to keep, in milliseconds. It takes one, but
/// on a host that is busy it is the last words of a hypervisor that would be missing.
const KEEPER_END_MS: u16 = 250;

/// How long to wait for a killed hypervisor when its start is undone, in milliseconds.
const KILL_MS: u16 = 2_000;

/// The processes of one runtime directory.
#[derive(Debug)]
pub struct LinuxProcesses {
    runtime_dir: PathBuf,
    /// The user of those VMs that have no other; `None`: the daemon's.
    user: Option<User>,
    /// Their soft limit of open descriptors; `None`: the daemon's.
    descriptors: Option<rlim_t>,
    /// The control group that the groups of VMs are in.
    cgroup: Option<Root>,
    boot_id: String,
    watched: BTreeMap<VmName, Watched>,
    /// How logs and consoles are kept. `None`: hypervisors write to their logs themselves, and
    /// there are no consoles.
    keeping: Option<Keeping>,
    /// The keepers that we started, which end with their VMs.
    keepers: BTreeMap<VmName, OwnedFd>,
    /// The helpers that were found, of VMs whose hypervisors are not watched yet.
    found: BTreeMap<VmName, Vec<Helper>>,
    /// The helpers that were found without a hypervisor.
    abandoned: Vec<Helper>,
    /// Helpers that were killed, and keepers that have nothing more to keep, which have not been
    /// waited for.
    ending: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Watched {
    id: ProcessId,
    pidfd: OwnedFd,
    group: ProcessGroup,
    /// What it writes about its guest.
    events: Option<Events>,
    /// The question whether its guest runs, while it is open.
    question: Option<Question>,
    /// The connection by which the guest was asked to power off.
    asked: Option<Socket>,
}

#[derive(Debug)]
enum ProcessGroup {
    /// The hypervisor leads it.
    Own,
    /// The first of its helpers does.
    Helpers(Vec<Helper>),
    /// It is in another group, which is not ours.
    Foreign,
}

impl LinuxProcesses {
    /// Watches no process yet. New processes are marked with the runtime directory.
    pub fn new(
        runtime_dir: impl Into<PathBuf>,
        user: Option<User>,
    ) -> Result<LinuxProcesses, Failure> {
        let boot_id = identity::boot_id()
            .map_err(|error| Failure::kernel("read", "/proc/sys/kernel/random/boot_id", &error))?;
        let runtime_dir = runtime_dir.into();
        Ok(LinuxProcesses {
            runtime_dir,
            user,
            descriptors: None,
            cgroup: None,
            boot_id,
            watched: BTreeMap::new(),
            keeping: None,
            keepers: BTreeMap::new(),
            found: BTreeMap::new(),
            abandoned: Vec::new(),
            ending: Vec::new(),
        })
    }

    /// Keeps each log within this bound, in bytes, and has consoles, which the members of a group
    /// may use. For this the program that runs must be volnet.
    pub fn with_keepers(self, bound: u64, group: Option<u32>) -> LinuxProcesses {
        LinuxProcesses { keeping: Some(Keeping { bound, group }), ..self }
    }

    /// Removes control groups of VMs in this one when their processes have ended.
    pub fn with_cgroup(self, cgroup: Option<Root>) -> LinuxProcesses {
        LinuxProcesses { cgroup, ..self }
    }

    /// Gives new processes this soft limit of open descriptors instead of the daemon's.
    pub fn with_descriptors(self, descriptors: Option<rlim_t>) -> LinuxProcesses {
        LinuxProcesses { descriptors, ..self }
    }

    /// Starts the helpers, if there are some, and then the hypervisor.
    fn start(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<(Spawned, ProcessGroup, Option<Events>), String> {
        let Given { user, cgroup, streams, taps, memory } = given;
        if let Some(group) = &cgroup {
            group.make()?;
        }
        let cgroup = cgroup.as_ref().map(|group| group.path.as_path());
        folder::renew(&self.folder(name), user.as_ref()).map_err(|failure| failure.to_string())?;
        let events = command.events.as_ref().map(Events::make).transpose()?;
        spawn::write_files(command)?;
        if let (Some(user), Some(_)) = (&user, self.keeping) {
            keeper::hand_over(&streams, user).map_err(|error| error.to_string())?;
        }
        for log in [&streams.console, &streams.messages] {
            let header =
                || writeln!(File::from(log.try_clone()?), "{}{}", log::HEADER, command.program);
            header().map_err(|error: io::Error| format!("cannot write to the log: {error}"))?;
        }
        let open: Vec<OwnedFd> = taps.into_iter().chain(memory).collect();
        let (runtime_dir, open) = (self.runtime_dir.as_path(), open.as_slice());
        let user = user.as_ref().map(User::with_devices);
        let (user, descriptors) = (user.as_ref(), self.descriptors);
        let streams = &streams;
        let place = Surroundings { name, runtime_dir, user, cgroup, descriptors, streams, open };
        let mut helpers = Vec::new();
        let spawned = start_helpers(&command.helpers, &place, &mut helpers).and_then(|()| {
            let group = helpers.first().map(|helper| helper.pid);
            spawn::spawn(command, Part::Hypervisor { group }, &place)
        });
        let helpers: Vec<Helper> =
            helpers.into_iter().map(|Spawned { pid, pidfd, .. }| Helper { pid, pidfd }).collect();
        match spawned {
            Ok(spawned) if helpers.is_empty() => Ok((spawned, ProcessGroup::Own, events)),
            Ok(spawned) => Ok((spawned, ProcessGroup::Helpers(helpers), events)),
            Err(reason) => {
                self.end_helpers(helpers);
                Err(reason)
            }
        }
    }

    fn folder(&self, name: &VmName) -> PathBuf {
        Paths::new("", &self.runtime_dir).folder(name)
    }

    /// Watches a process that an earlier daemon has started, if it still runs.
    fn watch(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure> {
        if id.boot_id != self.boot_id {
            return Ok(false);
        }
        // Open the descriptor first. If it held another process, that process would have started
        // later, and the next read would show it.
        let pidfd = match pidfd::open(id.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {
                return Ok(false);
            }
            Err(error) => {
                return Err(Failure::kernel("open", format!("process {}", id.pid), &error));
            }
        };
        let Ok(stat) = Stat::read(id.pid) else { return Ok(false) };
        if stat.start_time != id.start_time || stat.is_zombie() {
            return Ok(false);
        }
        let group = self.group_of(name, id.pid, stat);
        let events = Some(Events::find(&self.folder(name)));
        let watched = Watched { id: id.clone(), pidfd, group, events, question: None, asked: None };
        self.watched.insert(name.clone(), watched);
        Ok(true)
    }

    /// The group that an adopted process is in.
    fn group_of(&mut self, name: &VmName, pid: u32, stat: Stat) -> ProcessGroup {
        match self.found.remove(name) {
            Some(helpers) => ProcessGroup::Helpers(helpers),
            None if stat.group == pid => ProcessGroup::Own,
            None => ProcessGroup::Foreign,
        }
    }

    /// Ends helpers, and waits for them.
    fn end_helpers(&mut self, helpers: Vec<Helper>) {
        for helper in &helpers {
            helper.kill();
        }
        for helper in helpers {
            self.collect(helper.pidfd, HELPER_END_MS);
        }
    }

    /// Waits for a helper or a keeper that is about to end, now or in a later turn.
    fn collect(&mut self, helper: OwnedFd, most_ms: u16) {
        // Whether it has ended in time is seen by the wait below.
        let _ = pidfd::has_ended(helper.as_fd(), most_ms);
        self.ending.push(helper);
        // If waiting is an error, the helper is not our child, and init waits for it.
        self.ending.retain(|helper| matches!(pidfd::wait(helper.as_fd()), Ok(None)));
    }

    /// Waits for the keeper of a VM whose processes have ended: then all that they printed is in
    /// the log.
    fn collect_keeper(&mut self, name: &VmName) {
        if let Some(keeper) = self.keepers.remove(name) {
            self.collect(keeper, KEEPER_END_MS);
        }
    }

    /// Has the keeper of an earlier daemon waited for, too.
    fn know_keeper(&mut self, name: &VmName) {
        if self.keeping.is_none() || self.keepers.contains_key(name) {
            return;
        }
        let keeper = identity::keeper(name, &self.runtime_dir);
        if let Some(Ok(pidfd)) = keeper.map(pidfd::open) {
            self.keepers.insert(name.clone(), pidfd);
        }
    }

    fn remove_cgroup(&self, name: &VmName) {
        if let Some(root) = &self.cgroup {
            root.remove(name);
        }
    }

    fn watched(&self, name: &VmName) -> Result<&Watched, Failure> {
        self.watched.get(name).ok_or_else(|| no_process(name))
    }
}

impl Processes for LinuxProcesses {
    fn open_streams(
        &mut self,
        name: &VmName,
        logs: &Logs,
        terminal: bool,
    ) -> Result<Streams, Failure> {
        self.collect_keeper(name);
        let Some(keeping) = self.keeping else {
            return unkept(logs).map_err(|reason| failure(name, reason));
        };
        let Keeper { pidfd, streams } =
            keeper::start(keeping, name, logs, &self.runtime_dir, terminal)
                .map_err(|reason| failure(name, reason))?;
        self.keepers.insert(name.clone(), pidfd);
        Ok(streams)
    }

    fn spawn(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<ProcessId, Failure> {
        if let Some(watched) = self.watched.get(name) {
            return Err(failure(name, format!("its process {} still exists", watched.id.pid)));
        }
        let (spawned, group, events) = self.start(name, command, given).map_err(|reason| {
            self.collect_keeper(name);
            self.clean(name);
            failure(name, reason)
        })?;
        let id = ProcessId {
            pid: spawned.pid,
            start_time: spawned.stat.start_time,
            boot_id: self.boot_id.clone(),
        };
        let watched = Watched {
            id: id.clone(),
            pidfd: spawned.pidfd,
            group,
            events,
            question: None,
            asked: None,
        };
        self.watched.insert(name.clone(), watched);
        Ok(id)
    }

    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure> {
        let adopted = self.watch(name, id)?;
        if !adopted {
            self.abandoned.extend(self.found.remove(name).unwrap_or_default());
        }
        Ok(adopted)
    }

    fn find_all(&mut self, users: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId> {
        let own = nix::unistd::geteuid().as_raw();
        let shared = self.user.as_ref().map_or(own, |user| user.uid);
        let uids = users.values().copied().chain([own, shared]).collect();
        let users = |name: &VmName| [own, users.get(name).copied().unwrap_or(shared)];
        (self.found, self.abandoned) = Default::default();
        let mut processes = BTreeMap::new();
        for (name, found) in identity::find_all(&self.runtime_dir, &uids, users) {
            let is_watched = self.watched.contains_key(&name);
            let Some((pid, stat)) = found.hypervisor else {
                self.abandoned.extend(found.helpers.into_iter().filter(|_| !is_watched));
                continue;
            };
            if !is_watched && !found.helpers.is_empty() {
                self.found.insert(name.clone(), found.helpers);
            }
            let (start_time, boot_id) = (stat.start_time, self.boot_id.clone());
            processes.insert(name, ProcessId { pid, start_time, boot_id });
        }
        processes
    }

    fn ask(&mut self, name: &VmName, control: &Control, order: Order) -> Result<(), Failure> {
        let watched = self.watched.get_mut(name).ok_or_else(|| no_process(name))?;
        // QEMU serves one client at a time.
        watched.question = None;
        let cannot = |error| failure(name, format!("cannot ask it to {}: {error}", what(order)));
        match order {
            Order::PowerOff | Order::WakeAndPowerOff => {
                watched.asked = power::ask(control, order).map_err(cannot)?;
                if watched.asked.is_none() { self.terminate(name) } else { Ok(()) }
            }
            Order::Pause | Order::Resume | Order::GiveUpSnapshot => {
                watched.question = Some(progress::order(control, order).map_err(cannot)?);
                Ok(())
            }
        }
    }

    fn progress(&mut self, name: &VmName, control: &Control) -> Progress {
        match self.watched.get_mut(name) {
            Some(watched) => {
                // Both connections are answered at about the same time.
                if let Some(events) = &mut watched.events {
                    events.connect();
                }
                let progress = progress::look(control, watched.id.pid, &mut watched.question);
                match progress {
                    Progress::Starting | Progress::Untold => progress,
                    _ if watched.events.as_mut().is_none_or(Events::tells) => progress,
                    // If it ended now, nobody would be told why.
                    Progress::Running | Progress::Paused => Progress::Starting,
                }
            }
            None => Progress::Starting,
        }
    }

    fn hang_up(&mut self, name: &VmName) {
        if let Some(watched) = self.watched.get_mut(name) {
            watched.question = None;
        }
    }

    fn hear(&mut self, name: &VmName) -> Heard {
        let events = self.watched.get_mut(name).and_then(|watched| watched.events.as_mut());
        events.map(Events::hear).unwrap_or_default()
    }

    fn events(&self, name: &VmName) -> Option<RawFd> {
        let watched = self.watched.get(name)?;
        watched.events.as_ref().and_then(Events::descriptor)
    }

    fn terminate(&mut self, name: &VmName) -> Result<(), Failure> {
        signal(name, "terminate", self.watched(name)?, libc::SIGTERM)
    }

    fn kill(&mut self, name: &VmName) -> Result<(), Failure> {
        let watched = self.watched(name)?;
        watched.kill_group();
        signal(name, "kill", watched, libc::SIGKILL)
    }

    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure> {
        self.kill(name)?;
        let ended = pidfd::has_ended(self.watched(name)?.pidfd.as_fd(), KILL_MS);
        if !matches!(ended, Ok(true)) {
            return Err(failure(name, "it was killed and has not ended yet".into()));
        }
        self.reap(name);
        Ok(())
    }

    fn lend_folder(&mut self, name: &VmName, owner: Option<Owner>) -> Result<(), Failure> {
        folder::lend(&self.folder(name), owner)
    }

    fn sweep(&mut self) {
        let abandoned = std::mem::take(&mut self.abandoned);
        self.end_helpers(abandoned);
        if let Some(root) = &self.cgroup {
            root.sweep();
        }
    }

    fn remove_part(&mut self, part: &Path) {
        snapshot::remove_part(part, self.user.as_ref());
    }

    fn leave(&mut self) {
        if let Some(root) = &self.cgroup {
            root.end();
        }
    }

    fn clean(&mut self, name: &VmName) {
        let helpers = self.found.remove(name).unwrap_or_default();
        self.end_helpers(helpers);
        self.remove_cgroup(name);
        if let Err(failure) = folder::remove(&self.folder(name)) {
            ::log::warn!("{failure}");
        }
        let console = Paths::new("", &self.runtime_dir).console(name);
        if let Err(error) = keeper::remove_socket(&console) {
            ::log::warn!(vm:% = name; "cannot remove {}: {error}", console.display());
        }
    }

    fn remove_logs(&mut self, name: &VmName, logs: &Logs) {
        self.collect_keeper(name);
        for path in [&logs.console, &logs.messages] {
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    ::log::warn!(vm:% = name; "cannot remove {}: {error}", path.display())
                }
            }
        }
    }

    fn reap(&mut self, name: &VmName) -> Option<Exit> {
        let watched = self.watched.get_mut(name)?;
        if !matches!(pidfd::has_ended(watched.pidfd.as_fd(), 0), Ok(true)) {
            return None;
        }
        let heard = watched.events.as_mut().map(Events::hear_all).unwrap_or_default();
        let told = heard.end;
        // Before the wait: as a zombie it still keeps the group's number.
        watched.kill_group();
        let exit = match pidfd::wait(watched.pidfd.as_fd()) {
            Ok(Some(status)) => exit_of(status),
            Ok(None) => return None,
            Err(_) => watched.exit_of_stranger(),
        };
        if let Some(Watched { group: ProcessGroup::Helpers(helpers), .. }) =
            self.watched.remove(name)
        {
            self.end_helpers(helpers);
        }
        // One that has left the group holds the keeper's streams open, and would be waited for.
        if let Some(root) = &self.cgroup {
            root.kill(name);
        }
        self.know_keeper(name);
        self.collect_keeper(name);
        let starved = self.cgroup.as_ref().is_some_and(|root| root.lacked_memory(name));
        self.clean(name);
        Some(match exit {
            // Whatever ended the hypervisor of a guest that has panicked.
            _ if told.panicked => Exit::Panicked,
            // QEMU does not say which signal it was.
            Exit::Code(0) if told.signalled => Exit::Signal(libc::SIGTERM),
            Exit::Signal(libc::SIGKILL) if starved => Exit::OutOfMemory,
            exit => exit,
        })
    }

    fn pidfd(&self, name: &VmName) -> Option<RawFd> {
        self.watched.get(name).map(|watched| watched.pidfd.as_raw_fd())
    }
}

impl Watched {
    /// Ends all processes of the group. If this fails, the process itself can still be reached by
    /// its own pidfd.
    fn kill_group(&self) {
        match &self.group {
            ProcessGroup::Own => self.kill_group_of(self.id.pid, self.pidfd.as_fd()),
            ProcessGroup::Helpers(helpers) => {
                for helper in helpers {
                    // No group has the number of one that does not lead it.
                    self.kill_group_of(helper.pid, helper.pidfd.as_fd());
                    helper.kill();
                }
            }
            ProcessGroup::Foreign => {}
        }
    }

    fn kill_group_of(&self, number: u32, leader: BorrowedFd<'_>) {
        match pidfd::send_signal_to_group(leader, libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.kill_number(number),
            Ok(()) | Err(_) => {}
        }
    }

    /// The same for kernels before 6.9, see the top of this module.
    fn kill_number(&self, number: u32) {
        let Ok(stat) = Stat::read(self.id.pid) else { return };
        if let (true, Ok(group)) =
            (stat.start_time == self.id.start_time && stat.group == number, number.try_into())
        {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }

    /// The exit of a process that has ended and is not our child.
    fn exit_of_stranger(&self) -> Exit {
        let reaped = || pidfd::status_of_reaped(self.pidfd.as_fd()).ok().flatten();
        let zombie = || {
            let stat = Stat::read(self.id.pid).ok()?;
            (stat.start_time == self.id.start_time && stat.is_zombie())
                .then(|| ExitStatus::from_raw(stat.status))
        };
        // Ask again at the end: its parent may have reaped it between the two questions.
        reaped().or_else(zombie).or_else(reaped).map_or(Exit::Lost, exit_of)
    }
}

impl Helper {
    fn kill(&self) {
        // If it fails, it has ended.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// The streams of a hypervisor that writes to its logs itself, and whose console nobody can use.
fn unkept(logs: &Logs) -> Result<Streams, String> {
    let keys =
        File::open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
    let (console, messages) = (spawn::open_log(&logs.console)?, spawn::open_log(&logs.messages)?);
    Ok(Streams { keys: keys.into(), console: console.into(), messages: messages.into() })
}

/// Starts helpers one after the other, and waits until all of them serve. `started` has those that
/// run, also after an error.
fn start_helpers(
    commands: &[HypervisorCommand],
    place: &Surroundings<'_>,
    started: &mut Vec<Spawned>,
) -> Result<(), String> {
    for command in commands {
        spawn::write_files(command)?;
        let group = started.first().map(|first| first.pid);
        started.push(spawn::spawn(command, Part::Helper { group }, place)?);
    }
    spawn::await_ready(started.iter().zip(commands))
}

/// Sends a signal to a hypervisor, unless it has ended.
fn signal(name: &VmName, verb: &str, watched: &Watched, signal: i32) -> Result<(), Failure> {
    match pidfd::send_signal(watched.pidfd.as_fd(), signal) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        Err(error) => Err(cannot_signal(name, verb, watched.id.pid, &error)),
    }
}

fn cannot_signal(name: &VmName, verb: &str, pid: u32, error: &io::Error) -> Failure {
    failure(name, format!("cannot {verb} process {pid}: {error}"))
}

/// What a guest is asked to do.
fn what(order: Order) -> &'static str {
    match order {
        Order::PowerOff | Order::WakeAndPowerOff => "power off",
        Order::Pause => "pause",
        Order::Resume | Order::GiveUpSnapshot => "go on",
    }
}

fn no_process(name: &VmName) -> Failure {
    failure(name, "it has no process".into())
}

fn failure(name: &VmName, reason: String) -> Failure {
    Failure::Hypervisor { name: name.to_string(), reason, log: None }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}

#[cfg(test)]
mod tests;
