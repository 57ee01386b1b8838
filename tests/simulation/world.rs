//! The world: kernel, disk and processes in memory, with one count of what the daemon does to them.
//!
//! The daemon gets the world as three [`Handle`]s. Every call by which it reaches out is an
//! [`Effect`], and the effects are numbered; a [`Fault`] is set for a number. A crash is a panic
//! that no hook hears: it unwinds the daemon from the very call in which it ends, and the world
//! stays as it is.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use volnet::hypervisor::fake::FakeProcesses;
use volnet::hypervisor::log::Logs;
use volnet::hypervisor::process::{Given, Processes, Streams};
use volnet::hypervisor::{Control, HypervisorCommand};
use volnet::model::error::{Failure, KernelOutcome, Refusal};
use volnet::model::mac::Mac;
use volnet::model::name::VmName;
use volnet::model::record::{DirectoryId, Exit, Heard, Order, ProcessId, Progress};
use volnet::model::spec::Owner;
use volnet::network::fake::{self, Fake};
use volnet::network::features::Features;
use volnet::network::{Applied, Network};
use volnet::plan::op::Op;
use volnet::plan::reconcile::{DesiredPort, LinkKind, Observed};
use volnet::plan::ruleset::Family;
use volnet::store::memory::{self, Memory, Restart};
use volnet::store::storage::{ReadError, Storage};

use crate::fault::{EIO, Effect, Fault, When};
use crate::lan::Lan;

/// The runtime directory.
pub(crate) const RUNTIME: &str = "/run";
/// The state directory.
pub(crate) const STATE: &str = "/state";

/// What a crash unwinds with.
pub(crate) struct Crash;

/// What can go wrong at an effect.
type FaultsOf = fn(Effect<'_>) -> Vec<Fault>;

/// Everything that is not the daemon.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) network: Fake,
    pub(crate) disk: Memory,
    pub(crate) processes: FakeProcesses,
    pub(crate) lan: Lan,
    /// The frames that guests got without asking, each with the index of its link.
    pub(crate) sent: Vec<(u32, Vec<u8>)>,
    /// Effects so far.
    effects: usize,
    /// What goes wrong at which effect.
    faults: BTreeMap<usize, Choice>,
    /// What could have gone wrong at each effect, where that is asked for.
    trace: Option<(FaultsOf, Vec<Vec<Fault>>)>,
    /// What did go wrong, in words.
    pub(crate) struck: Vec<String>,
    /// VMs whose processes a fault ended.
    pub(crate) died: Vec<VmName>,
}

/// Which fault it is: this one; a refusal, where the effect can be refused; a lost answer, where it
/// has one that can be; one of those that can be,
/// by number; or one of those, but none that strikes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    This(Fault),
    Refusal,
    Unheard,
    Any(usize),
    OffDisk(usize),
}

impl World {
    /// A host with an uplink and chains for accept rules, on which volnet has never been.
    pub(crate) fn new(features: Features) -> World {
        World {
            network: bare(features),
            disk: Memory::new(RUNTIME),
            processes: FakeProcesses::default(),
            lan: Lan::default(),
            sent: Vec::new(),
            effects: 0,
            faults: BTreeMap::new(),
            trace: None,
            struck: Vec::new(),
            died: Vec::new(),
        }
    }

    /// Whether no daemon can tell one from the other, whatever it does.
    pub(crate) fn is_like(&self, other: &World) -> bool {
        let World {
            network,
            disk,
            processes,
            lan,
            sent,
            effects: _,
            faults,
            trace: _,
            struck: _,
            died,
        } = self;
        faults.is_empty()
            && other.faults.is_empty()
            && (sent, died) == (&other.sent, &other.died)
            && disk.is_like(&other.disk)
            && network.is_like(&other.network)
            && *processes == other.processes
            && *lan == other.lan
    }

    /// Lets the effect after `after` more ones go wrong.
    pub(crate) fn arm(&mut self, after: usize, choice: Choice) {
        self.faults.insert(self.effects + after, choice);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn disarm(&mut self) {
        self.faults.clear();
    }

    /// Notes from now on what could go wrong.
    pub(crate) fn record(&mut self, faults: FaultsOf) {
        self.trace = Some((faults, Vec::new()));
    }

    /// What could have gone wrong at each effect since [`World::record`].
    pub(crate) fn recorded(&mut self) -> Vec<Vec<Fault>> {
        self.trace.take().map(|(_, trace)| trace).unwrap_or_default()
    }

    /// The daemon ends; the world goes on.
    pub(crate) fn crash(&mut self) {
        self.end();
        self.disarm();
    }

    /// The same, and what is to go wrong still does.
    pub(crate) fn end(&mut self) {
        // Nobody asks what the daemon did.
        self.network.log.clear();
        self.processes.crash();
        self.disk.restart(Restart::Daemon);
    }

    /// The host starts anew.
    pub(crate) fn reboot(&mut self, restart: Restart) {
        self.processes.reboot();
        self.disk.restart(restart);
        self.network = bare(self.network.kernel.features);
        self.disarm();
    }

    /// Counts an effect and says what goes wrong with it.
    fn next(&mut self, effect: Effect<'_>) -> Option<Fault> {
        let now = self.effects;
        self.effects += 1;
        if let Some((faults, trace)) = &mut self.trace {
            trace.push(faults(effect));
        }
        let fault = match self.faults.remove(&now)? {
            Choice::This(fault) => fault,
            Choice::Refusal => effect.faults().into_iter().find(|fault| fault.is_refusal())?,
            Choice::Unheard => effect.faults().into_iter().find(|fault| fault.is_unheard())?,
            Choice::OffDisk(_) if effect.is_of_disk() => return None,
            Choice::Any(number) | Choice::OffDisk(number) => {
                let faults = effect.faults();
                faults[number % faults.len()]
            }
        };
        self.struck.push(format!("{fault:?} at effect {now}, {effect:?}"));
        Some(fault)
    }
}

/// Where accept rules belong beside Docker.
pub(crate) fn docker_user() -> BTreeMap<Family, String> {
    [Family::Ip, Family::Ip6].map(|family| (family, "DOCKER-USER".to_string())).into()
}

/// A kernel with an uplink and chains for accept rules.
fn bare(features: Features) -> Fake {
    let mut network = Fake::new();
    network.kernel.features = features;
    network.add_link("eth0", LinkKind::Other);
    network.kernel.observed.accept_chains = docker_user();
    network
}

/// The world as the daemon has it.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Rc<RefCell<World>>);

impl Handle {
    fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// Does an effect, or what becomes of it. `refuse` makes the error of a fault.
    fn effect<T>(
        &self,
        effect: Effect<'_>,
        perform: impl FnOnce(&mut World) -> T,
        refuse: impl FnOnce(&mut World, Fault) -> T,
    ) -> T {
        let mut world = self.world();
        let fault = world.next(effect);
        match fault {
            None => perform(&mut world),
            Some(Fault::Crash(When::Before)) => end(world),
            Some(Fault::Crash(When::After)) => {
                let _ = perform(&mut world);
                end(world)
            }
            Some(fault @ Fault::Crash(When::Torn)) => {
                let _ = refuse(&mut world, fault);
                end(world)
            }
            Some(fault) => refuse(&mut world, fault),
        }
    }

    /// An effect of the disk that is one step.
    fn step<T>(
        &self,
        effect: Effect<'_>,
        perform: impl FnOnce(&mut Memory) -> io::Result<T>,
    ) -> io::Result<T> {
        self.effect(
            effect,
            |world| perform(&mut world.disk),
            |_, fault| match fault {
                Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
                other => unreachable!("{other:?} of a step of the disk"),
            },
        )
    }

    /// An effect on a process that is done or refused.
    fn deed<T>(
        &self,
        name: &VmName,
        effect: Effect<'_>,
        perform: impl FnOnce(&mut FakeProcesses) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.effect(
            effect,
            |world| perform(&mut world.processes),
            |_, _| Err(failure(name, "told to fail")),
        )
    }
}

/// Ends the daemon.
fn end(world: RefMut<'_, World>) -> ! {
    drop(world);
    panic::resume_unwind(Box::new(Crash))
}

fn failure(name: &VmName, reason: &str) -> Failure {
    Failure::Hypervisor { name: name.to_string(), reason: reason.into(), log: None }
}

/// What the daemon is told by a kernel that did not do something, or does not say whether it did.
fn told(operation: &'static str, object: &str, fault: Fault) -> Failure {
    let outcome = match fault {
        Fault::Kernel(reason) => KernelOutcome::Refused(reason),
        Fault::Lost => KernelOutcome::Unknown,
        other => unreachable!("{other:?} of a call that changes nothing"),
    };
    let (object, message) = (object.into(), "told to fail".into());
    Failure::Kernel { operation, object, outcome, errno: 0, message }
}

/// What the event loop and its threads do to the world.
impl Handle {
    /// The process of a VM whose guest a thread is about to save.
    pub(crate) fn process(&self, name: &VmName) -> Option<ProcessId> {
        let world = self.world();
        let mut living = world.processes.living();
        living.find(|(owner, _)| *owner == name).map(|(_, id)| id.clone())
    }

    /// A step of the thread that takes a snapshot. False if it fails.
    pub(crate) fn save(&self, step: impl FnOnce(&mut FakeProcesses) -> bool) -> bool {
        self.effect(Effect::Save, |world| step(&mut world.processes), |_, _| false)
    }

    /// The guest that it has saved, or not, goes on. False if its process has ended.
    pub(crate) fn go_on(&self, id: &ProcessId) -> bool {
        self.effect(Effect::GoOn, |world| world.processes.go_on(id), |_, _| false)
    }

    /// Has the kernel say when this VM's process ends. False if it refuses to.
    pub(crate) fn watch(&self) -> bool {
        self.effect(Effect::Watch, |_| true, |_, _| false)
    }
}

impl Network for Handle {
    fn backend(&self) -> &'static str {
        "simulation"
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        self.effect(
            Effect::Observe,
            |world| world.network.observe(),
            |_, fault| Err(told("read", "links", fault)),
        )
    }

    fn features(&mut self) -> Result<Features, Failure> {
        self.world().network.features()
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        self.effect(
            Effect::Apply(op),
            |world| world.network.apply(op),
            |world, fault| {
                let fault = match fault {
                    Fault::Kernel(reason) => fake::KernelFault::Refused(reason),
                    Fault::Lost => fake::KernelFault::Done,
                    Fault::Undone => fake::KernelFault::Lost,
                    Fault::CutShort | Fault::Crash(When::Torn) => fake::KernelFault::CutShort,
                    other => unreachable!("{other:?} of an Op"),
                };
                world.network.fail(0, fault);
                world.network.apply(op)
            },
        )
    }

    fn enter(&mut self, door: BorrowedFd<'_>, tun: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        self.world().network.enter(door, tun)
    }

    fn leave(&mut self) {
        self.world().network.leave();
    }

    fn ask_arp(&mut self, bridge: &str, ip: Ipv4Addr) -> io::Result<()> {
        self.effect(
            Effect::AskArp,
            |world| {
                world.lan.asked(&world.network, bridge, ip);
                Ok(())
            },
            |_, fault| match fault {
                Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
                Fault::Lost => Ok(()),
                other => unreachable!("{other:?} of a question"),
            },
        )
    }

    fn send_frame(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.effect(
            Effect::SendFrame,
            |world| {
                world.sent.push((ifindex, frame.to_vec()));
                Ok(())
            },
            |_, fault| match fault {
                Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
                other => unreachable!("{other:?} of a frame"),
            },
        )
    }

    fn hear_arp(&mut self, bridge: &str) -> Vec<(Ipv4Addr, Mac)> {
        self.world().lan.heard(bridge)
    }

    fn end_arp(&mut self) {
        self.world().lan.end();
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        self.effect(
            Effect::OpenTap,
            |world| world.network.open_tap(port),
            |_, fault| Err(told("open tap", port.tap.as_str(), fault)),
        )
    }
}

impl Storage for Handle {
    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
        self.effect(
            Effect::Read,
            |world| world.disk.read(path),
            |_, fault| match fault {
                Fault::Errno(EIO) => Err(ReadError::File("told to fail".into())),
                Fault::Errno(errno) => Err(ReadError::Host(io::Error::from_raw_os_error(errno))),
                other => unreachable!("{other:?} of a read"),
            },
        )
    }

    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.step(Effect::List, |disk| disk.list(directory))
    }

    fn identify(&mut self, directory: &Path) -> io::Result<Option<DirectoryId>> {
        self.step(Effect::List, |disk| disk.identify(directory))
    }

    fn make_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.step(Effect::MakeDirectory, |disk| disk.make_directory(directory))
    }

    fn write(&mut self, path: &Path, contents: &[u8], durable: bool) -> io::Result<()> {
        self.effect(
            Effect::Write,
            |world| world.disk.write(path, contents, durable),
            |world, fault| {
                let fault = match fault {
                    Fault::Errno(errno) => memory::StorageFault::Errno(errno),
                    Fault::Crash(When::Torn) => memory::StorageFault::Crash,
                    other => unreachable!("{other:?} of a write"),
                };
                world.disk.fail(0, fault);
                world.disk.write(path, contents, durable)
            },
        )
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.step(Effect::Sync, |disk| disk.sync(path))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Effect::Rename, |disk| disk.rename(from, to))
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.step(Effect::Unlink, |disk| disk.unlink(path))
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.step(Effect::SyncDirectory, |disk| disk.sync_directory(directory))
    }
}

impl Processes for Handle {
    fn open_streams(
        &mut self,
        name: &VmName,
        logs: &Logs,
        terminal: bool,
    ) -> Result<Streams, Failure> {
        let open = |processes: &mut FakeProcesses| processes.open_streams(name, logs, terminal);
        self.deed(name, Effect::OpenStreams, open)
    }

    fn spawn(
        &mut self,
        name: &VmName,
        command: &HypervisorCommand,
        given: Given,
    ) -> Result<ProcessId, Failure> {
        let given = Cell::new(Some(given));
        let spawn = |world: &mut World| {
            world.processes.spawn(name, command, given.take().expect("started once"))
        };
        self.effect(Effect::Spawn, spawn, |world, fault| match fault {
            Fault::Dies => {
                let id = spawn(world)?;
                world.processes.end(name, Exit::Code(1));
                Ok(id)
            }
            _ => Err(failure(name, "told not to start")),
        })
    }

    fn adopt(&mut self, name: &VmName, id: &ProcessId) -> Result<bool, Failure> {
        self.effect(
            Effect::Adopt,
            |world| world.processes.adopt(name, id),
            |world, fault| match fault {
                Fault::Dies => {
                    world.processes.end(name, Exit::Code(1));
                    world.died.push(name.clone());
                    world.processes.adopt(name, id)
                }
                _ => Err(failure(name, "told not to be watched")),
            },
        )
    }

    fn find_all(&mut self, users: &BTreeMap<VmName, u32>) -> BTreeMap<VmName, ProcessId> {
        self.effect(Effect::Find, |world| world.processes.find_all(users), |_, _| BTreeMap::new())
    }

    fn ask(&mut self, name: &VmName, control: &Control, order: Order) -> Result<(), Failure> {
        self.deed(name, Effect::Ask, |processes| processes.ask(name, control, order))
    }

    fn hang_up(&mut self, _name: &VmName) {}

    fn hear(&mut self, name: &VmName) -> Heard {
        self.world().processes.hear(name)
    }

    fn events(&self, _: &VmName) -> Option<RawFd> {
        None
    }

    fn progress(&mut self, name: &VmName, control: &Control) -> Progress {
        let ask = |world: &mut World| world.processes.progress(name, control);
        self.effect(Effect::Ready, ask, |_, _| Progress::Starting)
    }

    fn terminate(&mut self, name: &VmName) -> Result<(), Failure> {
        self.deed(name, Effect::Terminate, |processes| processes.terminate(name))
    }

    fn kill(&mut self, name: &VmName) -> Result<(), Failure> {
        self.deed(name, Effect::Kill, |processes| processes.kill(name))
    }

    /// Refused, the process was killed and has not ended in time.
    fn kill_and_reap(&mut self, name: &VmName) -> Result<(), Failure> {
        self.effect(
            Effect::KillAndReap,
            |world| world.processes.kill_and_reap(name),
            |world, _| {
                world.processes.kill(name)?;
                Err(failure(name, "it was killed and has not ended yet"))
            },
        )
    }

    fn lend_folder(&mut self, name: &VmName, owner: Option<Owner>) -> Result<(), Failure> {
        self.deed(name, Effect::Lend, |processes| processes.lend_folder(name, owner))
    }

    fn clean(&mut self, name: &VmName) {
        self.effect(Effect::Clean, |world| world.processes.clean(name), |_, _| ());
    }

    fn sweep(&mut self) {
        self.world().processes.sweep();
    }

    fn remove_part(&mut self, part: &Path) {
        let remove = |world: &mut World| world.processes.remove_part(part);
        self.effect(Effect::RemovePart, remove, |_, _| ());
    }

    fn leave(&mut self) {
        self.world().processes.leave();
    }

    fn remove_logs(&mut self, name: &VmName, logs: &Logs) {
        self.effect(Effect::Clean, |world| world.processes.remove_logs(name, logs), |_, _| ());
    }

    fn reap(&mut self, name: &VmName) -> Option<Exit> {
        self.effect(Effect::Reap, |world| world.processes.reap(name), |_, _| None)
    }

    fn pidfd(&self, name: &VmName) -> Option<RawFd> {
        self.world().processes.pidfd(name)
    }
}
