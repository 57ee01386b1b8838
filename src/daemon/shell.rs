//! Carries decisions out.
//!
//! The shell owns the engine and the three things it acts on: the network, the store and the
//! processes. It knows neither sockets nor clocks: inputs come as calls with the time, what is to
//! be told comes out of [`Shell::take_outputs`]. The event loop drives it in production, the
//! simulation in tests.
//!
//! A decision runs in a fixed order, and each step that fails undoes those before it:
//!
//! ```text
//! intent ▶ plan ▶ act ▶ record ▶ intent cleared ▶ commit ▶ replies, events
//!            ╰──────┴──────┴── failure: undone in reverse ▶ abort ▶ error replies
//! ```
//!
//! A delete has the record before the plan, because the last step of that cannot be undone. Creates
//! that come together share a step, see [`super::together`].

use std::collections::{BTreeMap, BTreeSet};

use super::guests::Resolvers;
use super::launch::Launcher;
use crate::engine::decide::{Act, Answers, Decision, Engine, Step, Write};
use crate::engine::watch::Notice;
use crate::hypervisor::Control;
use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::process::{Descriptors, Processes};
use crate::hypervisor::user::User;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Action, HostRecord, Intent, ProcessId, Record};
use crate::model::request::Ticket;
use crate::model::request::{Reply, Request};
use crate::model::view::{Event, EventKind};
use crate::network::{Applied, Network, execute};
use crate::plan::news::Culprit;
use crate::store::Store;
use crate::store::disk::Disk;

/// `EXFULL` (asm-generic/errno.h): what the kernel says when a bridge has no port left.
const EXFULL: i32 = 54;

/// Milliseconds after which a process that could not be watched, or whose end could not be collected,
/// is looked at.
const WATCH_RETRY_MS: u64 = 1_000;
/// Times that what is due at one moment may make something else due at the same moment: a process
/// that is killed at once is, by whatever is due before it.
const ROUNDS_MAX: usize = 8;

/// The engine and all that it acts on.
pub struct Shell<N, D: Disk, P> {
    pub(super) engine: Engine,
    pub(super) network: N,
    pub(super) store: Store<D>,
    pub(super) processes: P,
    pub(super) launcher: Launcher,
    /// What the host was before setup; `None` while it is not set up.
    pub(super) host: Option<HostRecord>,
    pub(super) sequence: u64,
    /// The name servers that guests are told.
    pub(super) resolvers: Resolvers,
    outputs: Vec<Output>,
    /// VMs whose process is new to whoever watches them.
    pub(super) started: Vec<VmName>,
    /// VMs whose process is not watched, or whose end could not be collected, and when it is looked
    /// at next.
    unwatched: BTreeMap<VmName, u64>,
    /// Bridges that are new, or gone, to whoever listens on them.
    pub(super) bridges: BTreeSet<String>,
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The answer to a request.
    Reply { ticket: Ticket, result: Result<Reply, Error> },
    /// Something happened.
    Event(Event),
}

impl<N: Network, D: Disk, P: Processes> Shell<N, D, P> {
    /// A shell around these, with nothing loaded yet.
    pub fn new(
        engine: Engine,
        network: N,
        store: Store<D>,
        processes: P,
        launcher: Launcher,
    ) -> Self {
        let bridges = engine.configured().map(|network| network.bridge.clone()).collect();
        Shell {
            engine,
            network,
            store,
            processes,
            launcher,
            host: None,
            sequence: 0,
            resolvers: Resolvers::default(),
            outputs: Vec::new(),
            started: Vec::new(),
            unwatched: BTreeMap::new(),
            bridges,
        }
    }

    /// Takes what there is to tell, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Takes the VMs whose processes are to be watched from now on.
    pub fn take_started(&mut self) -> Vec<VmName> {
        std::mem::take(&mut self.started)
    }

    /// Takes the bridges that may have been made or removed since this was last asked.
    pub fn take_bridges(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.bridges)
    }

    /// The next moment of the monotonic clock at which [`Shell::tick`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let unwatched = self.unwatched.values().copied().min();
        self.engine.deadline().into_iter().chain(unwatched).min()
    }

    /// The processes, for the event loop to watch.
    pub fn processes(&self) -> &P {
        &self.processes
    }

    /// The network, for tests and for the event loop.
    pub fn network(&mut self) -> &mut N {
        &mut self.network
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The files that have to be compared before a request is handled: the caller does that, because
    /// it takes time. None where one of them is missing, which the request is told.
    pub fn checksums(&self, request: &Request) -> Vec<Checksum> {
        let machine = match request {
            Request::Create { spec, start, dry_run, .. } if *start || *dry_run => {
                spec.machine.as_ref()
            }
            Request::Start { name } => {
                self.engine.vm(name).ok().and_then(|vm| vm.record.spec.machine.as_ref())
            }
            _ => None,
        };
        let Some(machine) = machine else { return Vec::new() };
        let checksums = self.launcher.checksums(machine).unwrap_or_default();
        if checksums.is_empty() || self.launcher.verify(machine).is_err() {
            return Vec::new();
        }
        checksums
    }

    /// Who hypervisors run as; `None`: as the daemon.
    pub fn hypervisor_user(&self) -> Option<&User> {
        self.launcher.user()
    }

    /// Handles one request, whose checksums were compared. The reply is among the outputs, now or when what it waits for is done.
    pub fn request(&mut self, ticket: Ticket, request: &Request, now: Now) {
        match self.step(ticket, request, now) {
            Ok(Step::Reply(reply)) => self.reply(ticket, Ok(*reply)),
            Ok(Step::Do(decision)) => {
                self.carry_out(*decision, now);
            }
            Ok(Step::Setup { dry_run, force }) => {
                let result = self.setup(dry_run, force, now);
                self.reply(ticket, result);
            }
            Ok(Step::Teardown { dry_run }) => {
                let result = self.teardown(dry_run, now);
                self.reply(ticket, result);
            }
            Ok(Step::Later) => {}
            Err(error) => self.reply(ticket, Err(error)),
        }
        self.settle(now);
    }

    /// A process of [`Shell::take_started`] cannot be watched. It is looked at in a while, and is
    /// among those again then.
    pub fn watch_later(&mut self, name: &VmName, now: Now) {
        self.unwatched.insert(name.clone(), now.mono + WATCH_RETRY_MS);
    }

    /// Looks at processes that nobody watches, and has those that run watched again.
    fn look_at_unwatched(&mut self, now: Now) {
        let due = |(_, at): &(&VmName, &u64)| **at <= now.mono;
        while let Some((name, _)) = self.unwatched.iter().find(due) {
            let name = name.clone();
            self.unwatched.remove(&name);
            if !self.collect(&name, now) && self.processes.pidfd(&name).is_some() {
                self.started.push(name);
            }
        }
    }

    /// A watched process is said to have ended.
    pub fn exited(&mut self, name: &VmName, now: Now) {
        if !self.collect(name, now) && self.processes.pidfd(name).is_some() {
            // It runs, or cannot be asked now. Whoever said that it has ended says so only once.
            self.watch_later(name, now);
        }
    }

    /// Collects a process that has ended, and says whether there was one.
    fn collect(&mut self, name: &VmName, now: Now) -> bool {
        let Some(exit) = self.processes.reap(name) else { return false };
        self.forget_process(name);
        let log = self.launcher.tail_of_log(name);
        if let Some(decision) = self.engine.exited(name, exit, log, now) {
            self.carry_out(decision, now);
        }
        self.settle(now);
        true
    }

    /// Does what is due, and what becomes due by that: afterwards [`Shell::deadline`] lies ahead. A
    /// deadline that did not would keep the event loop awake, with a processor of its own.
    pub fn tick(&mut self, now: Now) {
        for _ in 0..ROUNDS_MAX {
            self.tick_once(now);
            if self.deadline().is_none_or(|at| now.mono < at) {
                return;
            }
        }
        debug_assert!(false, "due at {:?}, and it is {}", self.deadline(), now.mono);
    }

    fn tick_once(&mut self, now: Now) {
        self.look_at_unwatched(now);
        while let Some(decision) = self.engine.due(now) {
            self.carry_out(decision, now);
        }
        while let Some(name) = self.engine.hatching(now) {
            if self.unwatched.contains_key(&name) && self.collect(&name, now) {
                continue;
            }
            let ready = self.is_ready(&name);
            let answers = self.engine.looked_at(&name, ready, now);
            self.answer(answers);
        }
        self.heal(now);
        self.settle(now);
    }

    /// Whether a process that was just started has got through its arguments.
    fn is_ready(&mut self, name: &VmName) -> bool {
        let control = self.control(name);
        control.is_ok_and(|control| self.processes.is_ready(name, &control))
    }

    /// Carries out what follows from what was done, until nothing does.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(decision) = self.engine.follow_up(now) {
            self.carry_out(decision, now);
        }
        if let Some(tickets) = self.engine.teardown_due() {
            let result = self.teardown(false, now);
            for ticket in tickets {
                self.reply(ticket, result.clone());
            }
        }
    }

    /// What the engine cannot answer is looked up or checked here, before it decides.
    fn step(&mut self, ticket: Ticket, request: &Request, now: Now) -> Result<Step, Error> {
        match request {
            Request::Version => Ok(Step::reply(self.version())),
            Request::Check => Ok(Step::reply(self.check()?)),
            Request::Metrics => Ok(Step::reply(self.metrics()?)),
            Request::Args { name, hypervisor } => {
                Ok(Step::reply(self.args(name, hypervisor.as_deref())?))
            }
            Request::OpenTap { name } => {
                let file = self.network.open_tap(&self.engine.tap_to_open(name)?)?.into();
                Ok(Step::reply(Reply::Tap { file }))
            }
            Request::Create { spec, start, dry_run, .. } => {
                if let Some(machine) = spec.machine.as_ref().filter(|_| *start || *dry_run) {
                    self.launcher.verify(machine)?;
                }
                if spec.network.mode.needs_tap_device() && !dry_run && self.host.is_none() {
                    self.setup(false, true, now)?;
                }
                self.engine.request(ticket, request, now)
            }
            Request::Start { name } => {
                if let Some(machine) = &self.engine.vm(name)?.record.spec.machine {
                    self.launcher.verify(machine)?;
                }
                self.engine.request(ticket, request, now)
            }
            Request::Setup { .. }
            | Request::Teardown { .. }
            | Request::Stop { .. }
            | Request::Restart { .. }
            | Request::Delete { .. }
            | Request::Expose { .. }
            | Request::Unexpose { .. }
            | Request::SetPolicy { .. }
            | Request::SetLimits { .. }
            | Request::Get { .. }
            | Request::List
            | Request::Networks
            | Request::Monitor => self.engine.request(ticket, request, now),
        }
    }

    /// Runs a decision from its intent to its answers, and says whether it was done.
    pub(super) fn carry_out(&mut self, decision: Decision, now: Now) -> bool {
        let result = self.run(&decision, now);
        self.conclude(decision, result, now)
    }

    /// Takes over what became of a decision and tells it, and says whether it was done.
    pub(super) fn conclude(
        &mut self,
        mut decision: Decision,
        result: Result<(), Error>,
        now: Now,
    ) -> bool {
        let done = result.is_ok();
        let answers = match result {
            Ok(()) => {
                let name = decision.subject.clone();
                for (kind, message) in std::mem::take(&mut decision.events) {
                    let vm = Some(name.clone());
                    self.event(Notice { kind, vm, message, by: None }, now);
                }
                self.engine.commit(decision, now)
            }
            Err(error) => {
                log::warn!("VM {}: {error}", decision.subject);
                if !decision.plan.is_empty() && self.host.is_some() {
                    // Should its undoing have failed as well, this finds what was left.
                    self.engine.look_again(now);
                }
                self.engine.abort(decision, &error)
            }
        };
        self.answer(answers);
        done
    }

    fn run(&mut self, decision: &Decision, now: Now) -> Result<(), Error> {
        let name = &decision.subject;
        if let Some(action) = decision.intent {
            let record = self.record(name)?;
            self.store.put_intent(&Intent { action, record })?;
        }
        let result = match decision.write {
            Write::Remove => self.remove(decision),
            Write::Nothing | Write::Put => self.steps(decision, now),
        };
        if decision.intent.is_some() {
            if let Err(failure) = self.store.clear_intent(name) {
                // An intent that stays behind is looked at, and found done or undone, at the next
                // start.
                log::warn!("{failure}");
            }
        }
        result
    }

    fn steps(&mut self, decision: &Decision, now: Now) -> Result<(), Error> {
        let applied = self.apply(decision)?;
        let result = self.act(decision, now).and_then(|()| self.write(decision));
        if result.is_err() {
            execute::undo(&mut self.network, &decision.plan, &applied);
            if decision.intent == Some(Action::Create) {
                self.processes.clean(&decision.subject);
            }
        }
        result
    }

    /// Does to the kernel what is to be done.
    pub(super) fn apply(&mut self, decision: &Decision) -> Result<Vec<Applied>, Error> {
        let name = &decision.subject;
        let applied = execute::execute(&mut self.network, &decision.plan)
            .map_err(|failure| self.named(name, failure))?;
        if let Some(ifindex) = applied.iter().find_map(|applied| applied.ifindex) {
            self.engine.attached(name, ifindex);
        }
        Ok(applied)
    }

    /// The record goes first: to put it back is possible, to bring a link back is not.
    fn remove(&mut self, decision: &Decision) -> Result<(), Error> {
        self.write(decision)?;
        if let Err(failure) = execute::execute(&mut self.network, &decision.plan) {
            self.write_back(decision);
            return Err(failure.into());
        }
        Ok(())
    }

    fn act(&mut self, decision: &Decision, now: Now) -> Result<(), Error> {
        let name = &decision.subject;
        match decision.act {
            None => Ok(()),
            Some(Act::Spawn) => self.spawn(name, now),
            Some(Act::Ask) => {
                let asked = self
                    .control(name)
                    .and_then(|control| Ok(self.processes.ask(name, &control)?));
                if let Err(error) = asked {
                    // A guest that cannot be asked is not waited for.
                    log::info!(
                        "VM {name}: cannot ask the guest to power off, ending its hypervisor: {error}"
                    );
                    self.processes.terminate(name)?;
                }
                Ok(())
            }
            Some(Act::Terminate) => Ok(self.processes.terminate(name)?),
            Some(Act::Kill) => Ok(self.processes.kill(name)?),
        }
    }

    fn control(&self, name: &VmName) -> Result<Control, Error> {
        let record = &self.engine.vm(name)?.record;
        self.launcher.control(record, self.store.paths())
    }

    fn spawn(&mut self, name: &VmName, now: Now) -> Result<(), Error> {
        let id = self.begin(name).map_err(|error| match error {
            Error::Failed(Failure::Hypervisor { name: vm, reason, log: None }) => {
                let log = self.launcher.tail_of_log(name);
                Failure::Hypervisor { name: vm, reason, log }.into()
            }
            error => error,
        })?;
        self.engine.spawned(name, id.pid, now);
        self.started.push(name.clone());
        if let Err(failure) = self.store.put_process(name, &id) {
            self.end_spawned(name);
            return Err(failure.into());
        }
        Ok(())
    }

    /// Starts a VM's process, with what is open for it.
    fn begin(&mut self, name: &VmName) -> Result<ProcessId, Error> {
        let record = self.record(name)?;
        let mut taps = Vec::new();
        for _ in 0..self.launcher.taps_of(&record) {
            taps.push(self.network.open_tap(&self.engine.tap_to_open(name)?)?);
        }
        let log = self.processes.open_log(name, &self.launcher.log(name))?;
        let given = Descriptors { log, taps };
        let network = self.engine.network_of(&record);
        let command = self.launcher.command(&record, network, self.store.paths(), &given)?;
        Ok(self.processes.spawn(name, &command, given)?)
    }

    fn write(&mut self, decision: &Decision) -> Result<(), Error> {
        let name = &decision.subject;
        let written = match decision.write {
            Write::Nothing => Ok(()),
            Write::Put => self.record(name).and_then(|record| Ok(self.store.put(&record)?)),
            Write::Remove => self.record(name).and_then(|record| {
                self.processes.clean(name);
                Ok(self.store.remove(name, record.spec.ephemeral)?)
            }),
        };
        if written.is_err() {
            if decision.act == Some(Act::Spawn) {
                self.end_spawned(name);
            }
            self.write_back(decision);
        }
        written
    }

    /// Undoes a write, which may have come as far as the name of the file before it failed.
    pub(super) fn write_back(&mut self, decision: &Decision) {
        let name = &decision.subject;
        let written = match (decision.former_record(), self.engine.vm(name)) {
            (Some(former), _) => self.store.put(former),
            (None, Ok(vm)) => self.store.remove(name, vm.record.spec.ephemeral),
            (None, Err(_)) => Ok(()),
        };
        if let Err(failure) = written {
            log::error!("while undoing: {failure}");
        }
    }

    /// Undoes a spawn: the process is killed and collected before anything else goes on.
    fn end_spawned(&mut self, name: &VmName) {
        if let Err(failure) = self.processes.kill_and_reap(name) {
            log::error!("VM {name}: {failure}");
        }
        self.forget_process(name);
    }

    pub(super) fn forget_process(&mut self, name: &VmName) {
        if let Err(failure) = self.store.remove_process(name) {
            log::warn!("{failure}");
        }
    }

    fn record(&self, name: &VmName) -> Result<Record, Error> {
        Ok(Record::clone(&self.engine.vm(name)?.record))
    }

    /// A kernel error that has a name of its own in the interface.
    fn named(&self, name: &VmName, failure: Failure) -> Error {
        let network = self.engine.vm(name).ok().and_then(|vm| self.engine.network_of(&vm.record));
        match (failure.errno(), network) {
            (Some(EXFULL), Some(network)) => {
                let limit = crate::engine::ledger::BRIDGE_PORTS_MAX;
                Refusal::BridgeFull { bridge: network.bridge.clone(), limit }.into()
            }
            (_, _) => failure.into(),
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, result: Result<Reply, Error>) {
        self.outputs.push(Output::Reply { ticket, result });
    }

    fn answer(&mut self, answers: Answers) {
        let replies = answers.into_iter().map(|(ticket, result)| Output::Reply { ticket, result });
        self.outputs.extend(replies);
    }

    /// Tells that something happened.
    pub(super) fn event(&mut self, notice: Notice, now: Now) {
        let event = self.next_event(notice, now);
        self.outputs.push(Output::Event(event));
    }

    /// The event that tells a subscriber that it missed some.
    pub fn resync_event(&mut self, now: Now) -> Event {
        let message = "events were lost; the state follows".into();
        self.next_event(Notice { kind: EventKind::Resync, vm: None, message, by: None }, now)
    }

    fn next_event(&mut self, notice: Notice, now: Now) -> Event {
        self.sequence += 1;
        let (sequence, at) = (self.sequence, now.wall);
        let Notice { kind, vm, message, by } = notice;
        let (by_pid, by_name) = by.map(|Culprit { pid, name }| (pid, name)).unzip();
        Event { sequence, at, kind, vm, message, by_pid, by_name }
    }
}
