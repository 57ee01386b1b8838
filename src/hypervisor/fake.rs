//! Processes in memory, for tests and simulation. They start, end, or fail on command.
//!
//! The processes belong to the world, and the watching to the daemon. [`FakeProcesses::crash`]
//! forgets the watching and keeps the processes, as the end of a daemon does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::log::Logs;
use super::process::{Given, Processes, Streams};
use super::{Control, HypervisorCommand};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{Exit, GuestEnd, Halt, Heard, Motion, Order, ProcessId, Progress};
use crate::model::spec::Owner;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// What it takes to end a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manners {
    /// Asking the guest.
    #[default]
    Polite,
    /// SIGTERM.
    Deaf,
    /// SIGKILL.
    Stubborn,
}

/// What is known of the guest of a VM that was to wake from a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    /// It has never gone on.
    Asleep,
    /// It has gone on.
    Awake,
    /// Nobody knows: the daemon ended meanwhile, or somebody else has let it go on.
    Unknown,
}

/// An action on a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Asked,
    Paused,
    Resumed,
    Terminated,
    Killed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    owner: Option<VmName>,
    id: ProcessId,
    manners: Manners,
    exit: Option<Exit>,
    /// Whether a living daemon is its parent and will get its status.
    child: bool,
    /// Whether its guest goes on.
    motion: Motion,
    /// Whether its guest stands still for a snapshot, and nobody has paused it.
    for_snapshot: bool,
}

/// The processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeProcesses {
    boot: u32,
    clock: u64,
    world: BTreeMap<u32, Process>,
    watched: BTreeMap<VmName, ProcessId>,
    unwilling: BTreeSet<VmName>,
    /// Whether all that is done to a process fails, and every start.
    refuses_all: bool,
    /// What hypervisors have said of their guests.
    heard: BTreeMap<VmName, Heard>,
    /// Of whose guests there is something to hear.
    news: BTreeSet<VmName>,
    /// Whether no guest gets as far as to run.
    hangs: bool,
    /// The VMs that have a folder.
    folders: BTreeSet<VmName>,
    /// The VMs that have a log.
    logs: BTreeSet<VmName>,
    /// The VMs that have a control group.
    cgroups: BTreeSet<VmName>,
    /// The folders of snapshots that are not whole.
    parts: BTreeSet<PathBuf>,
    /// The VMs whose guests were to wake.
    sleepers: BTreeMap<VmName, Sleep>,
    manners: Manners,
    deeds: Vec<(VmName, Deed)>,
}

impl FakeProcesses {
    /// Makes every spawn for this VM fail from now on, or succeed again.
    pub fn refuse(&mut self, name: &VmName, refuse: bool) {
        if refuse {
            self.unwilling.insert(name.clone());
        } else {
            self.unwilling.remove(name);
        }
    }

    /// Lets all that is done to a process, and every start, fail from now on, or succeed again.
    pub fn refuse_all(&mut self, refuse: bool) {
        self.refuses_all = refuse;
    }

    /// A guest ends like this, and its hypervisor says so and goes on. False if it does not run.
    pub fn end_guest(&mut self, name: &VmName, end: GuestEnd) -> bool {
        let runs = self.running(name).is_some();
        if runs {
            self.heard.entry(name.clone()).or_default().end = end;
        }
        runs
    }

    /// A hypervisor stops its guest by itself. False if it does not run.
    pub fn halt(&mut self, name: &VmName, halt: Halt) -> bool {
        self.move_to(name, Motion::Halted(halt))
    }

    /// Somebody else pauses a guest, or lets it go on. False if it does not run.
    pub fn move_to(&mut self, name: &VmName, motion: Motion) -> bool {
        let sleep = self.sleepers.get_mut(name).filter(|sleep| **sleep == Sleep::Asleep);
        if let Some(sleep) = sleep.filter(|_| motion == Motion::Goes) {
            *sleep = Sleep::Unknown;
        }
        self.set_motion(name, motion)
    }

    fn set_motion(&mut self, name: &VmName, motion: Motion) -> bool {
        let process = self.running(name);
        let runs = process.is_some_and(|process| {
            (process.motion, process.for_snapshot) = (motion, false);
            true
        });
        if runs {
            let heard = self.heard.entry(name.clone()).or_default();
            heard.motion = Some(motion);
            heard.stops += u32::from(motion != Motion::Goes);
            self.news.insert(name.clone());
        }
        runs
    }

    /// A VM of whose guest there is something new to hear: its descriptor would be readable.
    pub fn take_news(&mut self) -> Option<VmName> {
        self.news.pop_first()
    }

    /// Whether a VM's guest goes on; `None` if it has no process.
    pub fn motion(&self, name: &VmName) -> Option<Motion> {
        let mut all = self.world.values();
        all.find(|process| process.runs_for(name)).map(|process| process.motion)
    }

    /// Makes the folder of a snapshot. False if it is there.
    pub fn make_part(&mut self, part: &Path) -> bool {
        self.parts.insert(part.into())
    }

    /// The folder of a snapshot is whole. False if it is not there any more.
    pub fn finish_part(&mut self, part: &Path) -> bool {
        self.parts.remove(part)
    }

    /// The folders of snapshots that are not whole.
    pub fn parts(&self) -> impl Iterator<Item = &PathBuf> {
        self.parts.iter()
    }

    /// The guest of this process stands still for a snapshot. False if it does not run.
    pub fn still(&mut self, id: &ProcessId) -> bool {
        let process = self.world.get_mut(&id.pid).filter(|process| process.id == *id);
        let Some(process) = process.filter(|process| process.exit.is_none()) else { return false };
        let Some(name) = process.owner.clone() else { return false };
        if process.motion == Motion::Goes {
            self.set_motion(&name, Motion::Paused);
            self.running(&name).into_iter().for_each(|process| process.for_snapshot = true);
        }
        true
    }

    /// The guest of this process goes on after its snapshot. False if it does not run.
    pub fn go_on(&mut self, id: &ProcessId) -> bool {
        let process = self.world.get_mut(&id.pid).filter(|process| process.id == *id);
        let Some(process) = process.filter(|process| process.exit.is_none()) else { return false };
        let name = process.owner.clone();
        name.is_some_and(|name| self.set_motion(&name, Motion::Goes))
    }

    /// The VMs whose guests stand still for a snapshot, and nobody has paused them.
    pub fn standing(&self) -> impl Iterator<Item = &VmName> {
        let all = self.world.values().filter(|it| it.exit.is_none() && it.for_snapshot);
        all.filter_map(|process| process.owner.as_ref())
    }

    /// Lets guests hang in their start from now on, or run.
    pub fn hang(&mut self, hang: bool) {
        self.hangs = hang;
    }

    /// Sets what ends the processes that are started from now on.
    pub fn set_manners(&mut self, manners: Manners) {
        self.manners = manners;
    }

    /// Ends a VM's process. False if it has no running process.
    pub fn end(&mut self, name: &VmName, exit: Exit) -> bool {
        match self.running(name) {
            Some(process) => {
                process.exit = Some(exit);
                true
            }
            None => false,
        }
    }

    /// The daemon ends and another one starts: no process is watched, and all processes run on.
    pub fn crash(&mut self) {
        self.lose_sight();
        self.watched.clear();
        self.news.clear();
        self.world.retain(|_, process| process.exit.is_none());
        self.world.values_mut().for_each(|process| process.child = false);
    }

    /// The host reboots: no process runs. The folder of a snapshot that was being taken is left,
    /// and is here as if somebody had removed it: nothing says whose it is. Logs are forgotten
    /// here, because that of an ephemeral VM stays where the VM does not, until the next one of its
    /// name is created.
    pub fn reboot(&mut self) {
        self.lose_sight();
        self.watched.clear();
        self.news.clear();
        self.heard.clear();
        self.world.clear();
        self.folders.clear();
        self.logs.clear();
        self.cgroups.clear();
        self.parts.clear();
        self.boot += 1;
    }

    /// The next daemon does not know what this one has told guests that were to wake.
    fn lose_sight(&mut self) {
        let asleep = self.sleepers.values_mut().filter(|sleep| **sleep == Sleep::Asleep);
        asleep.for_each(|sleep| *sleep = Sleep::Unknown);
    }

    /// A guest wakes once, because it writes to its disks from then on, and does not boot before.
    fn note_start(&mut self, name: &VmName, wakes: bool) {
        let sleep = self.sleepers.get(name);
        if wakes {
            assert_ne!(sleep, Some(&Sleep::Awake), "{name} wakes twice");
            self.sleepers.insert(name.clone(), Sleep::Asleep);
        } else {
            assert_ne!(sleep, Some(&Sleep::Asleep), "{name} boots, and has not woken");
            self.sleepers.remove(name);
        }
    }

    /// A VM's process is gone, and a foreign process has its pid.
    pub fn reuse_pid(&mut self, name: &VmName) {
        self.clock += 1;
        let start_time = self.clock;
        if let Some(process) = self.running(name) {
            process.owner = None;
            process.id.start_time = start_time;
        }
    }

    /// The watched VMs whose process has ended: those whose pidfd would be readable.
    pub fn ended(&self) -> Vec<VmName> {
        let ended = |(_, id): &(&VmName, &ProcessId)| match self.world.get(&id.pid) {
            Some(process) if process.id == **id => process.exit.is_some(),
            Some(_) | None => true,
        };
        self.watched.iter().filter(ended).map(|(name, _)| name.clone()).collect()
    }

    /// How many processes run, watched or not.
    pub fn count(&self, name: &VmName) -> usize {
        self.world.values().filter(|process| process.runs_for(name)).count()
    }

    /// All running processes and their VMs, watched or not.
    pub fn living(&self) -> impl Iterator<Item = (&VmName, &ProcessId)> {
        let living = self.world.values().filter(|process| process.exit.is_none());
        living.filter_map(|process| Some((process.owner.as_ref()?, &process.id)))
    }

    /// The VMs that have a folder.
    pub fn folders(&self) -> impl Iterator<Item = &VmName> {
        self.folders.iter()
    }

    /// The VMs that have a log.
    pub fn logs(&self) -> impl Iterator<Item = &VmName> {
        self.logs.iter()
    }

    /// The VMs that have a control group.
    pub fn cgroups(&self) -> impl Iterator<Item = &VmName> {
        self.cgroups.iter()
    }

    /// All actions on processes, in order.
    pub fn deeds(&self) -> &[(VmName, Deed)] {
        &self.deeds
    }

    fn running(&mut self, name: &VmName) -> Option<&mut Process> {
        self.world.values_mut().find(|process| process.runs_for(name))
    }

    /// Acts on a VM's watched process, which ends if the action suffices.
    fn act(&mut self, name: &VmName, deed: Deed) -> Result<(), Failure> {
        let Some(id) = self.watched.get(name) else {
            return Err(failure(name, "it has no process"));
        };
        if self.refuses_all {
            return Err(failure(name, "told to fail"));
        }
        self.deeds.push((name.clone(), deed));
        let process = self.world.get_mut(&id.pid).filter(|process| process.id == *id);
        let Some(process) = process else { return Ok(()) };
        let (enough, exit) = match deed {
            Deed::Paused => {
                process.for_snapshot = false;
                if process.motion == Motion::Goes {
                    self.set_motion(name, Motion::Paused);
                }
                return Ok(());
            }
            Deed::Resumed => {
                if let Some(sleep) = self.sleepers.get_mut(name) {
                    *sleep = Sleep::Awake;
                }
                self.set_motion(name, Motion::Goes);
                return Ok(());
            }
            // It does not hear it.
            Deed::Asked if process.motion != Motion::Goes => return Ok(()),
            Deed::Asked => (Manners::Polite, Exit::Code(0)),
            Deed::Terminated => (Manners::Deaf, Exit::Signal(SIGTERM)),
            Deed::Killed => (Manners::Stubborn, Exit::Signal(SIGKILL)),
        };
        if process.manners <= enough {
            process.exit.get_or_insert(exit);
        }
        Ok(())
    }
}

impl Process {
    fn runs_for(&self, name: &VmName) -> bool {
        self.owner.as_ref() == Some(name) && self.exit.is_none()
    }
}

impl Processes for FakeProcesses {
    fn open_streams(&mut self, name: &VmName, _: &Logs, _: bool) -> Result<Streams, Failure> {
        self.logs.insert(name.clone());
        let open = || File::open("/dev/null").map(OwnedFd::from);
        let streams = || Ok(Streams { keys: open()?, console: open()?, messages: open()? });
        streams().map_err(|_: io::Error| failure(name, "no log"))
    }

    /// The files of the command have to be in the VM's folder, so that they go with it.
    fn spawn(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<ProcessId, Failure> {
        let is_inside = |path: &Path| {
            path.parent().and_then(Path::file_name) == Some(OsStr::new(name.as_str()))
        };
        let outside = command.files.iter().find(|(path, _)| !is_inside(path));
        assert_eq!(outside, None, "it stays when {name} is gone");
        if self.refuses_all || self.unwilling.contains(name) {
            return Err(failure(name, "cannot start it: told to fail"));
        }
        if self.watched.contains_key(name) {
            return Err(failure(name, "its process still exists"));
        }
        self.clock += 1;
        let pid = (1..).find(|pid| !self.world.contains_key(pid)).expect("pids do not run out");
        let boot_id = format!("boot-{}", self.boot);
        let id = ProcessId { pid, start_time: self.clock, boot_id };
        let wakes = given.memory.is_some();
        self.note_start(name, wakes);
        let process = Process {
            owner: Some(name.clone()),
            id: id.clone(),
            manners: self.manners,
            exit: None,
            child: true,
            motion: if wakes { Motion::Paused } else { Motion::Goes },
            for_snapshot: wakes,
        };
        self.folders.insert(name.clone());
        self.heard.remove(name);
        if given.cgroup.is_some() {
            self.cgroups.insert(name.clone());
        }
        self.world.insert(pid, process);
        self.watched.insert(name.clone(), id.clone());
        Ok(id)
    }

    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure> {
        let runs = |process: &Process| process.id == *id && process.exit.is_none();
        let found = self.world.get(&id.pid).filter(|process| runs(process));
        if let Some(process) = found {
            // The next daemon asks.
            self.heard.entry(name.clone()).or_default().motion = Some(process.motion);
            self.news.insert(name.clone());
            self.watched.insert(name.clone(), id.clone());
        }
        Ok(found.is_some())
    }

    fn find_all(&mut self, _: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId> {
        self.living().map(|(name, id)| (name.clone(), id.clone())).collect()
    }

    fn ask(&mut self, name: &VmName, control: &Control, order: Order) -> Result<(), Failure> {
        match (order, control) {
            (Order::PowerOff | Order::WakeAndPowerOff, Control::Terminate) => self.terminate(name),
            (Order::PowerOff, _) => self.act(name, Deed::Asked),
            (Order::WakeAndPowerOff, _) => {
                self.act(name, Deed::Resumed)?;
                self.act(name, Deed::Asked)
            }
            (Order::Pause, _) => self.act(name, Deed::Paused),
            (Order::Resume | Order::GiveUpSnapshot, _) => self.act(name, Deed::Resumed),
        }
    }

    fn terminate(&mut self, name: &VmName) -> Result<(), Failure> {
        self.act(name, Deed::Terminated)
    }

    fn kill(&mut self, name: &VmName) -> Result<(), Failure> {
        self.act(name, Deed::Killed)
    }

    fn progress(&mut self, name: &VmName, control: &Control) -> Progress {
        let (is_watched, hangs) = (self.watched.contains_key(name), self.hangs);
        match (control, self.running(name).filter(|_| is_watched && !hangs)) {
            (Control::Terminate, _) => Progress::Untold,
            (_, None) => Progress::Starting,
            (_, Some(process)) if process.motion != Motion::Goes => Progress::Paused,
            (_, Some(_)) => Progress::Running,
        }
    }

    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure> {
        self.kill(name)?;
        self.reap(name);
        Ok(())
    }

    fn lend_folder(&mut self, name: &VmName, _: Option<Owner>) -> Result<(), Failure> {
        self.folders.insert(name.clone());
        Ok(())
    }

    fn clean(&mut self, name: &VmName) {
        self.folders.remove(name);
    }

    fn sweep(&mut self) {
        let living: BTreeSet<VmName> = self.living().map(|(name, _)| name.clone()).collect();
        self.cgroups.retain(|name| living.contains(name));
    }

    fn remove_part(&mut self, part: &Path) {
        self.parts.remove(part);
    }

    fn leave(&mut self) {}

    fn remove_logs(&mut self, name: &VmName, _: &Logs) {
        self.logs.remove(name);
        // The next one of this name is another VM.
        self.sleepers.remove(name);
    }

    fn hang_up(&mut self, _name: &VmName) {}

    fn hear(&mut self, name: &VmName) -> Heard {
        self.heard.get(name).copied().unwrap_or_default()
    }

    fn events(&self, _: &VmName) -> Option<RawFd> {
        None
    }

    fn reap(&mut self, name: &VmName) -> Option<Exit> {
        let id = self.watched.get(name)?;
        let exit = match self.world.get(&id.pid) {
            Some(process) if process.id == *id => match process.exit? {
                exit if process.child => exit,
                _ => Exit::Lost,
            },
            Some(_) | None => Exit::Lost,
        };
        let panicked = self.heard.remove(name).is_some_and(|heard| heard.end.panicked);
        let exit = if panicked { Exit::Panicked } else { exit };
        if self.world.get(&id.pid).is_some_and(|process| process.id == *id) {
            self.world.remove(&id.pid);
        }
        self.watched.remove(name);
        self.cgroups.remove(name);
        self.folders.remove(name);
        Some(exit)
    }

    /// No descriptor, but as one would, a number that only this process has, while it is watched.
    fn pidfd(&self, name: &VmName) -> Option<RawFd> {
        self.watched.get(name).map(|id| id.start_time as RawFd)
    }
}

fn failure(name: &VmName, reason: &str) -> Failure {
    Failure::Hypervisor { name: name.to_string(), reason: reason.to_owned(), log: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(processes: &mut FakeProcesses, name: &VmName) -> ProcessId {
        let command = HypervisorCommand {
            inherits: Vec::new(),
            program: "fake".into(),
            args: vec![],
            files: vec![],
            links: vec![],
            directory: None,
            helpers: Vec::new(),
            ready: None,
            control: Control::Qmp("/qmp".into()),
            events: None,
        };
        let logs = Logs::of(Path::new("/log"), name);
        let streams = processes.open_streams(name, &logs, false).unwrap();
        processes
            .spawn(
                name,
                &command,
                Given { user: None, cgroup: None, streams, taps: Vec::new(), memory: None },
            )
            .unwrap()
    }

    #[test]
    fn it_ends_as_its_manners_are() {
        let name = VmName::new("a").unwrap();
        let mut processes = FakeProcesses::default();
        processes.set_manners(Manners::Deaf);
        start(&mut processes, &name);
        processes.ask(&name, &Control::Qmp("/qmp".into()), Order::PowerOff).unwrap();
        assert_eq!((processes.reap(&name), processes.ended()), (None, vec![]));
        processes.terminate(&name).unwrap();
        assert_eq!(processes.ended(), std::slice::from_ref(&name));
        assert_eq!(processes.reap(&name), Some(Exit::Signal(SIGTERM)));
        assert_eq!(processes.reap(&name), None);
        let deeds = [(name.clone(), Deed::Asked), (name.clone(), Deed::Terminated)];
        assert_eq!(processes.deeds(), deeds);
        assert!(processes.kill(&name).is_err());
    }

    #[test]
    fn a_process_outlives_the_daemon_and_its_pid_outlives_the_process() {
        let name = VmName::new("a").unwrap();
        let mut processes = FakeProcesses::default();
        let id = start(&mut processes, &name);
        processes.crash();
        assert_eq!(processes.find(&name), Some(id.clone()));
        assert!(processes.adopt(&name, &id).unwrap());
        assert!(processes.end(&name, Exit::Code(1)));
        assert_eq!(processes.reap(&name), Some(Exit::Lost));

        let id = start(&mut processes, &name);
        processes.crash();
        processes.reuse_pid(&name);
        assert!(!processes.adopt(&name, &id).unwrap());
        assert_eq!(processes.count(&name), 0);
        processes.refuse(&name, true);
        processes.reboot();
        assert_eq!(processes.find(&name), None);
    }
}
