//! Carries decisions out.
//!
//! The shell owns the engine and the three things it acts on: the network, the store and the
//! processes. It knows neither sockets nor clocks. Inputs are calls that have the time. Replies and
//! events come out of [`Shell::take_outputs`]. The event loop drives it in production, the
//! simulation in tests.
//!
//! [`super::conduct`] carries out one decision, and [`super::group_commit`] several requests
//! together. [`super::report`] tells what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::rc::Rc;

use super::doctor::Examination;
use super::doubt::State;
use super::guests::{HostServers, Resolvers};
use super::host::Insistence;
use super::launch::Launcher;
use super::numbers::{Reading, Recent};
use super::saving::{Save, Saving};
use super::trace::Tracing;
use super::troubles::Watched;
use crate::engine::decide::{Answers, Engine, Step};
#[cfg(target_os = "linux")]
use crate::engine::names::Unheard;
use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::process::Processes;
use crate::hypervisor::user::User;
use crate::metrics::tally::Tally;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure};
use crate::model::name::VmName;
#[cfg(target_os = "linux")]
use crate::model::net::NetworkConfig;
use crate::model::record::{Exit, HostRecord, ProcessId, Progress};
use crate::model::request::{Change, NOBODY, Query, Reply, Request, Serving, Ticket};
use crate::model::run_as::RunAs;
use crate::model::spec::VmSpec;
use crate::model::view::Event;
use crate::network::Network;
use crate::network::features::Features;
use crate::store::Store;
use crate::store::storage::Storage;

/// Milliseconds until the shell looks again at a process that it could not watch, or whose exit
/// status it could not read.
const WATCH_RETRY_MS: u64 = 1_000;
/// How often in a row a task may make another task due at the same moment. An example is a stop
/// whose process is to be killed at once.
const ROUNDS_MAX: usize = 8;

/// The engine, and the network, the files and the processes that it acts on.
pub struct Shell<N, D: Storage, P> {
    pub(super) engine: Engine,
    pub(super) network: N,
    pub(super) store: Store<D>,
    pub(super) processes: P,
    pub(super) launcher: Launcher,
    /// The state of the host before setup; `None` while it is not set up.
    pub(super) host: Option<HostRecord>,
    /// The features of the kernel, after it was asked.
    pub(super) features: Option<Features>,
    /// Whether nothing failed when the host was last observed.
    pub(super) sound: bool,
    /// Whether the state directory is the right one.
    pub(super) state: State,
    /// Processes that were started for VMs that have no record.
    pub(super) strays: BTreeMap<VmName, ProcessId>,
    pub(super) sequence: u64,
    pub(super) tally: Tally,
    /// Why metrics are not served though they should be.
    pub(super) unserved: Option<Failure>,
    /// The last numbers for scrapers and for `Usage`.
    pub(super) recent: Option<Recent>,
    /// The next ones, while they are read.
    pub(super) reading: Option<Reading>,
    /// The name servers that guests are told.
    pub(super) resolvers: Resolvers,
    /// Creates that wait until ARP has shown that nobody has their addresses.
    pub(super) waiting: Vec<(Ticket, Change)>,
    /// Looks at VMs that wait for their guests.
    pub(super) examined: Vec<Examination>,
    /// Guests of whose packets somebody wants to know.
    pub(super) traced: Vec<Tracing>,
    /// Whether somebody subscribes to events.
    pub(super) watched: Watched,
    /// Whose request is being carried out.
    pub(super) serving: Serving,
    /// Snapshots that threads are to take, and those that they take.
    pub(super) saves: Vec<Save>,
    pub(super) saving: Vec<Saving>,
    /// The VMs whose guests stand still until they are told to go on.
    pub(super) waking: Vec<VmName>,
    pub(super) outputs: Vec<Output>,
    /// VMs whose process the event loop does not watch yet.
    pub(super) started: Vec<VmName>,
    /// VMs whose process is not watched, or whose exit status could not be read, and when the shell
    /// looks at it next.
    unwatched: BTreeMap<VmName, u64>,
    /// Bridges that the event loop has to open or close a packet socket for.
    pub(super) bridges: BTreeSet<String>,
}

/// A message to clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The answer to a request.
    Reply { ticket: Ticket, result: Result<Reply, Error> },
    /// A reply to a request that gets at least one more.
    More { ticket: Ticket, reply: Reply },
    /// Something happened.
    Event(Event),
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
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
            features: None,
            sound: false,
            state: State::default(),
            strays: BTreeMap::new(),
            sequence: 0,
            tally: Tally::default(),
            unserved: None,
            recent: None,
            reading: None,
            resolvers: Resolvers::default(),
            waiting: Vec::new(),
            examined: Vec::new(),
            traced: Vec::new(),
            watched: Watched::default(),
            serving: NOBODY,
            saves: Vec::new(),
            saving: Vec::new(),
            waking: Vec::new(),
            outputs: Vec::new(),
            started: Vec::new(),
            unwatched: BTreeMap::new(),
            bridges,
        }
    }

    /// Takes the messages to clients, in order.
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

    /// The next moment, by the monotonic clock, at which [`Shell::tick`] has work.
    pub fn deadline(&self) -> Option<u64> {
        let unwatched = self.unwatched.values().copied().min();
        let looks = self.examination_due().into_iter().chain(self.trace_due());
        let looks = looks.chain(self.counters_due());
        self.engine.deadline().into_iter().chain(unwatched).chain(looks).min()
    }

    /// The processes, for the event loop to watch.
    pub fn processes(&self) -> &P {
        &self.processes
    }

    /// The network, for tests and for the event loop.
    pub fn network(&mut self) -> &mut N {
        &mut self.network
    }

    /// The engine, for reading.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The files that have to be compared before a request is handled: the caller does that,
    /// because it takes time. None where one of them is missing, which the request is told.
    pub(super) fn checksums(&mut self, request: &Request) -> Vec<Checksum> {
        request.change().and_then(|change| self.checksums_of(change)).unwrap_or_default()
    }

    fn checksums_of(&mut self, change: &Change) -> Option<Vec<Checksum>> {
        let record;
        let (name, spec) = match change {
            Change::Create { name, spec, start, dry_run, .. } if *start || *dry_run => {
                (name, &**spec)
            }
            Change::Start { name } => {
                record = Rc::clone(&self.engine.vm(name).ok()?.record);
                (name, &record.spec)
            }
            _ => return None,
        };
        let machine = spec.machine.as_ref()?;
        self.know_user(spec);
        let user = self.engine.user_for(name, spec).ok()?;
        let checksums = self.launcher.checksums(machine, user).ok()?;
        if checksums.is_empty() || self.launcher.verify(name, spec, user).is_err() {
            return None;
        }
        Some(checksums)
    }

    /// Has the engine know the user that a VM names.
    fn know_user(&mut self, spec: &VmSpec) {
        self.engine.know_user(match &spec.run_as {
            Some(RunAs::User(name)) => User::named(name),
            Some(RunAs::Own | RunAs::Shared) | None => None,
        });
    }

    /// The user of the hypervisors; `None`: the daemon's.
    pub fn hypervisor_user(&self) -> Option<&User> {
        self.launcher.user()
    }

    /// Handles one request, whose checksums were compared. The reply is among the outputs, now or
    /// later if the request has to wait.
    pub fn request(&mut self, ticket: Ticket, request: &Request, now: Now) {
        self.resolve(now);
        self.serving = Serving(Some(ticket));
        let step = match request {
            Request::Query(query) => self.query(ticket, query, now),
            Request::Trace(asked) => self.trace(ticket, asked, now),
            Request::OpenTap { name, nic } => {
                self.open_tap(name, nic.unwrap_or_default()).map(Step::reply)
            }
            Request::Change(change) => self.step(ticket, change, now),
        };
        match step {
            Ok(Step::Reply(reply)) => self.reply(ticket, Ok(*reply)),
            Ok(Step::Do(decision)) => {
                self.carry_out(*decision, now);
            }
            Ok(Step::Setup { dry_run, force }) => {
                let insistence = if force { Insistence::Forced } else { Insistence::None };
                let result = self.setup(dry_run, insistence, now);
                self.reply(ticket, result);
            }
            Ok(Step::Teardown { dry_run, force }) => {
                let result = self.teardown(dry_run, force, now);
                self.reply(ticket, result);
            }
            Ok(Step::AddNetwork { document, replace }) => {
                let result = self.add_network(&document, replace, now);
                self.reply(ticket, result);
            }
            Ok(Step::RemoveNetwork { name }) => {
                let result = self.remove_network(&name, now);
                self.reply(ticket, result);
            }
            Ok(Step::Later) => {}
            Err(error) => self.reply(ticket, Err(error)),
        }
        self.network.leave();
        self.serving = NOBODY;
        self.settle(now);
    }

    /// A process of [`Shell::take_started`] cannot be watched. The shell looks at it later, and
    /// then [`Shell::take_started`] returns it again.
    pub fn watch_later(&mut self, name: &VmName, now: Now) {
        self.unwatched.insert(name.clone(), now.mono + WATCH_RETRY_MS);
    }

    /// Looks at processes that nobody watches. Those that run are returned by
    /// [`Shell::take_started`] again.
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

    /// The event loop was told that a watched process has ended.
    pub fn exited(&mut self, name: &VmName, now: Now) {
        if !self.collect(name, now) && self.processes.pidfd(name).is_some() {
            // It runs, or cannot be asked now. The end of a process is reported only once.
            self.watch_later(name, now);
        }
    }

    /// A hypervisor has written about its guest. Returns whether there is more to hear.
    pub fn heard_of(&mut self, name: &VmName, now: Now) -> bool {
        let heard = self.processes.hear(name);
        let decision = match heard.end.over || heard.end.off {
            true => self.engine.guest_ended(name, heard.end, now),
            false => self.engine.moved(name, heard, now),
        };
        if let Some(decision) = decision {
            self.carry_out(decision, now);
            self.settle(now);
        }
        heard.more
    }

    /// Reads the exit status of a process that has ended. Returns whether there was one.
    fn collect(&mut self, name: &VmName, now: Now) -> bool {
        let Some(exit) = self.processes.reap(name) else { return false };
        // A guest that panics resets itself. Then its hypervisor ends with status 0.
        let logs = self.launcher.logs_of(name);
        let panicked = exit == Exit::Code(0) && logs.tell_of_panic();
        let exit = if panicked { Exit::Panicked } else { exit };
        self.forget_process(name);
        let log = if exit == Exit::Panicked { logs.tail_of_console() } else { logs.tail() };
        if let Some(decision) = self.engine.exited(name, exit, log, now) {
            self.carry_out(decision, now);
        }
        self.settle(now);
        true
    }

    /// A caller has hung up: what it waits for is not done for it any more.
    #[cfg(target_os = "linux")]
    pub(super) fn hung_up(&mut self, ticket: Ticket, now: Now) {
        self.end_waiting_for_address(ticket);
        self.end_waiting_for_numbers(ticket);
        self.end_trace_for(ticket, now);
    }

    /// Does all that is due, also what becomes due meanwhile. Afterwards [`Shell::deadline`] is in
    /// the future: a deadline in the past would keep the event loop busy.
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
        while let Some(name) = self.engine.start_check(now) {
            if self.unwatched.contains_key(&name) && self.collect(&name, now) {
                continue;
            }
            let progress = self.progress(&name);
            if let Some(decision) = self.engine.looked_at(&name, progress, now) {
                self.carry_out(decision, now);
            }
            if matches!(progress, Progress::Running | Progress::Paused) {
                // From now on there may be a descriptor for it.
                self.started.push(name.clone());
                self.heard_of(&name, now);
            }
        }
        self.heal(now);
        // What waits for an address there is decided on anew.
        self.remove_unused(now);
        self.probe(now);
        self.examine(now);
        self.look_at_traces(now);
        self.look_at_counters(now);
        self.advertise(now);
        self.settle(now);
    }

    /// The progress of the start of a process.
    fn progress(&mut self, name: &VmName) -> Progress {
        let Ok(vm) = self.engine.vm(name) else { return Progress::Starting };
        match self.launcher.control(&vm.record, self.store.paths()) {
            Ok(control) => self.processes.progress(name, &control),
            Err(_) => Progress::Untold,
        }
    }

    /// Carries out the decisions that follow from the last ones, until none is left.
    pub(super) fn settle(&mut self, now: Now) {
        while let Some(decision) = self.engine.follow_up(now) {
            self.carry_out(decision, now);
        }
        self.call_off_snapshots();
        self.end_waking();
        if let Some(tickets) = self.engine.teardown_due() {
            let result = self.teardown(false, true, now);
            for ticket in tickets {
                self.reply(ticket, result.clone());
            }
        }
    }

    /// Tells the engine the name servers of the host that guests can reach.
    pub(super) fn resolve(&mut self, now: Now) {
        let networks = self.engine.configured();
        let known = self.resolvers.known(now, || HostServers::read(networks));
        self.engine.resolved(&known.told);
    }

    /// Why packets of the guests of a network do not reach the host, if so it seems.
    #[cfg(target_os = "linux")]
    pub(super) fn kept_from_host(&mut self, network: &NetworkConfig) -> Option<String> {
        let surroundings = self.network.surroundings();
        let surroundings = surroundings.inspect_err(|failure| log::warn!("{failure}")).ok()?;
        surroundings.keeps_from_host(&network.bridge, network.ipv4.is_some())
    }

    /// Questions of the guests of a network are heard from now on, or not, for this reason.
    #[cfg(target_os = "linux")]
    pub(super) fn names_unheard(&mut self, network: &str, reason: Option<Unheard>) {
        self.engine.names_unheard(network, reason);
    }

    /// Has the engine know what a change may need of the host: the user that it names, and which
    /// ports the host listens on itself, if the change wants some. A VM that exists has its ports
    /// already.
    pub(super) fn know(&mut self, change: &Change) {
        if let Change::Create { spec, .. } = change {
            self.know_user(spec);
        }
        let wanted = match change {
            change if change.makes().is_some_and(|name| self.engine.vm(name).is_ok()) => Vec::new(),
            change => change.exposes(),
        };
        let listeners = match wanted.is_empty() {
            true => Vec::new(),
            false => self.network.listeners(&wanted),
        };
        self.engine.listened(listeners);
    }

    fn query(&mut self, ticket: Ticket, query: &Query, now: Now) -> Result<Step, Error> {
        Ok(Step::reply(match query {
            Query::Get { name } => {
                Reply::Vm { vm: Box::new(self.engine.show(self.engine.vm(name)?)) }
            }
            Query::List | Query::Monitor => Reply::Vms,
            Query::Networks => Reply::Networks { networks: self.engine.networks() },
            Query::Args { name, hypervisor } => self.args(name, hypervisor.as_deref())?,
            Query::Version => self.version()?,
            Query::Check => self.check()?,
            Query::Metrics => return Ok(self.metrics(ticket)),
            Query::Usage => return self.usage(ticket, now),
            Query::Doctor { name } => return self.doctor(ticket, name.as_ref(), now),
            Query::Verify { id } => self.verify(id)?,
            Query::Ready { wanted } => self.ready(wanted, now)?,
        }))
    }

    fn open_tap(&mut self, name: &VmName, nic: usize) -> Result<Reply, Error> {
        let tap = self.engine.tap_to_open(name, nic)?;
        Ok(Reply::Tap { file: self.network.open_tap(&tap)?.into() })
    }

    /// Looks up and checks, before the engine decides, what the engine cannot know.
    fn step(&mut self, ticket: Ticket, change: &Change, now: Now) -> Result<Step, Error> {
        self.know(change);
        if let Change::Snapshot { name, folder } = change {
            return self.begin_saving(ticket, name, folder, now);
        }
        self.check_change(change, now)?;
        if self.probes_for(change, now)? {
            self.waiting.push((ticket, change.clone()));
            return Ok(Step::Later);
        }
        self.engine.request(ticket, change, now)
    }

    /// Whether a machine of a LAN is asked for the address of a new VM first.
    fn probes_for(&mut self, change: &Change, now: Now) -> Result<bool, Error> {
        if let Change::Create { name, spec, dry_run: false, .. }
        | Change::Attach { name, spec, .. } = change
        {
            return Ok(self.engine.vm(name).is_err() && self.engine.probe_for(name, spec, now)?);
        }
        Ok(false)
    }

    /// Refuses what the host cannot have, and sets it up for a new VM.
    fn check_change(&mut self, change: &Change, now: Now) -> Result<(), Error> {
        match change {
            Change::Create { name, spec, start, dry_run, .. } => {
                self.refuse_in_doubt()?;
                self.refuse_stray(name)?;
                let user = self.engine.user_for(name, spec)?;
                match *start || *dry_run {
                    true => self.launcher.verify(name, spec, user)?,
                    false => self.launcher.accept(name, spec, user)?,
                }
                if spec.needs_tap_device() && !dry_run && self.host.is_none() {
                    self.setup(false, Insistence::Overlaps, now)?;
                }
            }
            Change::Attach { spec, door, tun, .. } => {
                self.refuse_in_doubt()?;
                match spec.attachment.as_ref().is_some_and(|attachment| attachment.host) {
                    true => self.network.check_own(door.as_fd())?,
                    false => self.network.enter(door.as_fd(), tun.as_ref().map(AsFd::as_fd))?,
                }
                if self.host.is_none() {
                    self.setup(false, Insistence::Overlaps, now)?;
                }
            }
            Change::Start { name } => {
                let record = &self.engine.vm(name)?.record;
                self.launcher.verify(name, &record.spec, record.user)?;
            }
            Change::Pause { name } | Change::Resume { name } => {
                let record = &self.engine.vm(name)?.record;
                self.launcher.refuse_unasked(record, self.store.paths())?;
            }
            Change::Snapshot { .. }
            | Change::Setup { .. }
            | Change::Teardown { .. }
            | Change::Stop { .. }
            | Change::Restart { .. }
            | Change::Delete { .. }
            | Change::Expose { .. }
            | Change::Unexpose { .. }
            | Change::SetPolicy { .. }
            | Change::SetLimits { .. }
            | Change::Detach { .. }
            | Change::AddNetwork { .. }
            | Change::RemoveNetwork { .. } => {}
        }
        Ok(())
    }

    pub(super) fn forget_process(&mut self, name: &VmName) {
        if let Err(failure) = self.store.remove_process(name) {
            log::warn!("{failure}");
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, result: Result<Reply, Error>) {
        self.outputs.push(Output::Reply { ticket, result });
    }

    pub(super) fn answer(&mut self, answers: Answers) {
        let replies = answers.into_iter().map(|(ticket, result)| Output::Reply { ticket, result });
        self.outputs.extend(replies);
    }
}
