//! The daemon's shell over a kernel, a disk and processes in memory, all of which can fail.
//!
//! The engine is asked here, step by step, so that bytes can choose what goes wrong with each of
//! its decisions. What is decided the daemon's own conductor carries out. The story of an input is
//! what happens with it, in words. With `RUST_LOG=trace` the test that replays the corpus tells
//! more.

use std::collections::BTreeMap;
use std::iter;
use std::net::Ipv6Addr;

use log::trace;

use super::asked;
use crate::config::Settings;
use crate::daemon::host::Insistence;
use crate::daemon::launch::Launcher;
use crate::daemon::saving::Save;
use crate::daemon::shell::{Output, Shell};
use crate::engine::claim::Claimed;
use crate::engine::decide::{Decision, Engine, Step};
use crate::fuzz::Choices;
use crate::hypervisor::fake::{FakeProcesses, Manners};
use crate::hypervisor::process::Processes;
use crate::hypervisor::snapshot::part_of;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Reason};
use crate::model::lease::{Claim, LeaseChange};
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::nic::{Lease, Nic};
use crate::model::record::{Exit, Halt, Heard, Motion, ProcessId, Progress, Record};
use crate::model::request::{Change, Reply, Ticket};
use crate::network::fake::{self, Fake};
use crate::plan::news::News;
use crate::plan::op::Switch;
use crate::store::memory::{Memory, Restart, StorageFault, Unsynced};
use crate::store::{Paths, Store};

/// Decisions that may follow from one another at one moment, and moments until all is at rest.
const MANY: usize = 1000;
/// Milliseconds from what others do to the kernel to its news.
const NEWS_MS: u64 = 50;
/// `EIO` (asm-generic/errno-base.h).
const EIO: i32 = 5;

/// The directories of the disk.
const STATE: &str = "/state";
const RUNTIME: &str = "/run";

/// The daemon.
type Daemon = Shell<Fake, Memory, FakeProcesses>;

/// The daemon, and everything else.
pub(super) struct World<'a> {
    choices: Choices<'a>,
    settings: Settings,
    pub(super) shell: Daemon,
    pub(super) now: Now,
    last_ticket: Ticket,
    /// Who waits for an answer, and to what.
    pub(super) waiting: BTreeMap<Ticket, String>,
    /// What happened.
    story: Vec<String>,
    /// The snapshots that are being taken, and of which process.
    saves: Vec<(Save, Option<ProcessId>)>,
}

impl<'a> World<'a> {
    pub(super) fn new(choices: Choices<'a>) -> World<'a> {
        let settings = asked::settings();
        let mut processes = FakeProcesses::default();
        // Whoever is asked to end does not, so that bytes can choose when it does.
        processes.set_manners(Manners::Stubborn);
        let shell = daemon(&settings, Fake::new(), Memory::new(RUNTIME), processes);
        let now = Now { wall: 1_700_000_000_000, ..Now::default() };
        let (waiting, story, saves) = (BTreeMap::new(), Vec::new(), Vec::new());
        World { choices, settings, shell, now, last_ticket: 0, waiting, story, saves }
    }

    /// Lets one thing happen; false when there is nothing more to come.
    pub(super) fn step(&mut self) -> bool {
        if self.choices.is_empty() {
            return false;
        }
        let kind = self.choices.byte();
        match kind % 36 {
            // It shares a number, so that older inputs stay what they were.
            35 if kind > 143 => self.end_save(),
            0..16 => self.ask(),
            16..21 => self.end(),
            21..25 => self.wait(),
            25 => self.moves(),
            26..29 => self.lease(),
            29 => self.restart(Restart::Daemon),
            30 => {
                let (entries, contents) = (Unsynced::Lost, Unsynced::Lost);
                self.restart(Restart::Machine { entries, contents });
            }
            31 => self.restore_odd(),
            _ => self.meddle(),
        }
        self.tick();
        true
    }

    /// Lets time pass until nobody waits any more and nothing is left alone, with nothing that goes
    /// wrong.
    pub(super) fn come_to_rest(&mut self) {
        self.choices = Choices::new(&[]);
        for _ in 0..MANY {
            self.end_save();
            for name in self.shell.processes.ended() {
                self.exited(&name);
            }
            if self.waiting.is_empty() && self.shell.engine.is_content() {
                return;
            }
            let next = self.shell.deadline().expect("somebody waits for something");
            self.pass(next.saturating_sub(self.now.mono));
            self.tick();
        }
        panic!("{:?} wait for ever", self.waiting);
    }

    fn ask(&mut self) {
        let request = asked::request(&mut self.choices);
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.waiting.insert(ticket, words(&request));
        if let Change::Create { spec, dry_run: false, .. } = &request {
            if spec.needs_tap_device() {
                self.set_up();
            }
        }
        trace!("{}: caller {ticket}: {request:?}", self.now.mono);
        let step = match &request {
            Change::Snapshot { name, folder } => {
                self.shell.begin_saving(ticket, name, folder, self.now)
            }
            _ => self.shell.engine.request(ticket, &request, self.now),
        };
        self.begin_saves();
        match step {
            Ok(Step::Reply(reply)) => self.shell.reply(ticket, Ok(*reply)),
            Ok(Step::Do(decision)) => drop(self.carry_out(*decision)),
            Ok(Step::Setup { dry_run, .. }) => {
                if !dry_run {
                    self.set_up();
                }
                self.shell.reply(ticket, Ok(Reply::Plan { plan: Vec::new() }));
            }
            Ok(Step::Teardown { dry_run, force }) => {
                let torn_down = self.shell.teardown(dry_run, force, self.now);
                self.shell.reply(ticket, torn_down);
            }
            Ok(Step::AddNetwork { document, replace }) => {
                self.let_kernel_fail();
                let result = self.shell.add_network(&document, replace, self.now);
                self.shell.network.heal();
                self.shell.reply(ticket, result);
            }
            Ok(Step::RemoveNetwork { name }) => {
                self.let_kernel_fail();
                let result = self.shell.remove_network(&name, self.now);
                self.shell.network.heal();
                self.shell.reply(ticket, result);
            }
            Ok(Step::Later) => {}
            Err(error) => self.shell.reply(ticket, Err(error)),
        }
        self.settle();
    }

    /// The guests of snapshots that are to be taken stand still.
    fn begin_saves(&mut self) {
        for save in self.shell.take_saves() {
            let processes = &mut self.shell.processes;
            let id = processes.living().find(|(name, _)| **name == save.taking.name);
            let id = id.map(|(_, id)| id.clone());
            // One that is said to be paused stands still already.
            if let Some(id) = id.as_ref().filter(|_| !save.taking.stays_paused) {
                processes.make_part(&part_of(&save.taking.folder));
                processes.still(id);
            }
            self.saves.push((save, id));
        }
    }

    /// A snapshot is taken, or fails. Then its guest may stand still.
    fn end_save(&mut self) {
        if self.saves.is_empty() {
            return;
        }
        let (Save { ticket, taking, .. }, id) = self.saves.remove(0);
        let (name, part, trouble) = (taking.name, part_of(&taking.folder), self.choices.byte());
        let processes = &mut self.shell.processes;
        // Of a process that is gone nothing is heard.
        if let Some(id) = id.filter(|_| !taking.stays_paused && trouble < 192) {
            processes.go_on(&id);
        }
        processes.remove_part(&part);
        let result = match trouble {
            0..128 => Ok(()),
            _ => Err(Failure::State { path: "the snapshot".into(), reason: "told to fail".into() }),
        };
        self.shell.snapshot_taken(&name, ticket, result, self.now);
        self.settle();
    }

    /// A step of what comes next may fail.
    fn let_kernel_fail(&mut self) {
        let trouble = self.choices.byte();
        if trouble >= 192 {
            let fault = fake::KernelFault::Refused(Reason::Denied);
            self.shell.network.fail(usize::from(trouble % 16), fault);
        }
    }

    /// A process ends, by itself or because it was killed.
    fn end(&mut self) {
        let name = asked::name(&mut self.choices);
        let exit = self.choices.one_of(&[Exit::Code(0), Exit::Code(1), Exit::Signal(9)]);
        self.shell.processes.end(&name, exit);
        self.exited(&name);
    }

    /// A hypervisor says whether its guest goes on.
    fn moves(&mut self) {
        let name = asked::name(&mut self.choices);
        let index = self.choices.flag().then_some(0);
        let halt = Halt::Disk { index, full: self.choices.flag() };
        let all = [Motion::Goes, Motion::Paused, Motion::Halted(halt)];
        let motion = self.choices.one_of(&all);
        let stops = u32::from(self.choices.byte());
        let heard = Heard { motion: Some(motion), stops, ..Heard::default() };
        if let Some(decision) = self.shell.engine.moved(&name, heard, self.now) {
            self.carry_out(decision);
        }
        self.settle();
    }

    fn exited(&mut self, name: &VmName) {
        if let Some(exit) = self.shell.processes.reap(name) {
            self.story.push(format!("{name} {exit}"));
            self.shell.forget_process(name);
            if let Some(decision) = self.shell.engine.exited(name, exit, None, self.now) {
                self.carry_out(decision);
            }
        }
        self.settle();
    }

    /// Time passes: a while, or until something is due.
    fn wait(&mut self) {
        let later = match self.choices.byte() {
            0 => self.shell.deadline().unwrap_or_default().saturating_sub(self.now.mono),
            byte => 1 << (byte % 20),
        };
        self.pass(later);
    }

    fn pass(&mut self, later: u64) {
        let Now { wall, mono, boot } = self.now;
        self.now = Now { wall: wall + later, mono: mono + later, boot: boot + later };
    }

    /// Does what is due, as the shell would: until nothing is.
    fn tick(&mut self) {
        for _ in 0..MANY {
            while let Some(decision) = self.shell.engine.due(self.now) {
                self.carry_out(decision);
            }
            while let Some(name) = self.shell.engine.start_check(self.now) {
                let progress = match self.shell.processes.standing().any(|it| *it == name) {
                    true => self.choices.one_of(&[Progress::Paused, Progress::Starting]),
                    false => self.choices.one_of(&[
                        Progress::Running,
                        Progress::Starting,
                        Progress::Untold,
                        Progress::Paused,
                    ]),
                };
                if progress == Progress::Paused {
                    self.story.push(format!("{name} is seen to stand still"));
                }
                if let Some(decision) = self.shell.engine.looked_at(&name, progress, self.now) {
                    self.carry_out(decision);
                }
            }
            self.shell.heal(self.now);
            self.shell.advertise(self.now);
            self.shell.remove_unused(self.now);
            self.settle();
            if self.shell.deadline().is_none_or(|at| self.now.mono < at) {
                return;
            }
        }
        panic!("what is due is done, or put off");
    }

    /// A guest asks for an address, takes it up, or gives it back.
    fn lease(&mut self) {
        let name = asked::name(&mut self.choices);
        let nics = self.shell.engine.vm(&name).map(|vm| vm.record.nics.clone()).unwrap_or_default();
        let at = usize::from(self.choices.byte()) % nics.len().max(1);
        let Some(nic) = nics.into_iter().nth(at) else { return };
        let Some(guest) = self.shell.engine.guest(&nic.network, nic.mac, None) else { return };
        let until = self.now.boot + 3_600_000;
        let lent = |ip, given| LeaseChange::Lease(Lease { ip, given, until });
        let change = match (guest.claim, self.choices.byte() % 4) {
            (Claim::Reserved(_), _) => return self.claim(&nic),
            (Claim::Nothing, _) => {
                if let Some(decision) = self.shell.engine.reclaim(&nic.network, self.now) {
                    self.story.push(format!("{} loses its lease", decision.subject));
                    self.carry_out(decision);
                }
                return;
            }
            (Claim::Free(ip), given) => lent(ip, given == 0),
            (Claim::Leased(lease), 0..2) => lent(lease.ip, true),
            (Claim::Leased(_), 2) => LeaseChange::Release,
            (Claim::Leased(_), _) => LeaseChange::Decline,
        };
        self.story.push(match &change {
            LeaseChange::Lease(Lease { ip, given: false, .. }) => format!("{name} is offered {ip}"),
            LeaseChange::Lease(Lease { ip, .. }) => format!("{name} leases {ip}"),
            LeaseChange::Release => format!("{name} gives its lease back"),
            LeaseChange::Decline => format!("{name} declines its lease"),
        });
        if let Some(decision) = self.shell.engine.change_lease(&name, at, change, self.now) {
            self.carry_out(decision);
        }
    }

    /// A guest claims an IPv6 address: one of few, so that they collide, or that of another guest.
    fn claim(&mut self, nic: &Nic) {
        let network = self.shell.engine.network_of(nic);
        let Some(ipv6) = network.and_then(|network| network.ipv6) else { return };
        let prefix = self.choices.one_of(&[ipv6.prefix.network(), Mac([0; 6]).link_local()]);
        let id = match self.choices.byte() {
            0 => Mac::of_guest(&nic.network, "a").interface_id(),
            number => u64::from(number % 32) << 32 | 7,
        };
        let address = Ipv6Addr::from_bits(prefix.to_bits() >> 64 << 64 | u128::from(id));
        if let Claimed::Given(decision) =
            self.shell.engine.claim(&nic.network, nic.mac, address, self.now)
        {
            self.carry_out(*decision);
        }
    }

    /// Others change something of the kernel, and it tells of that. On a host that is not set up
    /// nothing is volnet's.
    fn meddle(&mut self) {
        if self.shell.host.is_none() {
            return;
        }
        let number = usize::from(self.choices.byte());
        let observed = &mut self.shell.network.kernel.observed;
        let ours = observed.links.iter_mut().filter(|link| link.alias.is_some());
        let names: Vec<String> = ours.map(|link| link.name.clone()).collect();
        let told = match (self.choices.byte() % 4, names.is_empty()) {
            (0, false) => {
                let name = &names[number % names.len()];
                self.shell.network.delete_link(name);
                format!("others delete {name}")
            }
            (1, false) => {
                let name = &names[number % names.len()];
                let link = self.shell.network.link_mut(name);
                link.into_iter().for_each(|link| link.up = false);
                format!("others set {name} down")
            }
            (2, _) => {
                observed.forwarding = !observed.forwarding;
                observed.switches.insert(Switch::Forwarding, observed.forwarding.into());
                format!("others set forwarding to {}", observed.forwarding)
            }
            (_, _) => {
                let sets = observed.tables.iter_mut().flat_map(|table| &mut table.sets);
                sets.for_each(|(_, keys)| keys.clear());
                "others clear all sets".into()
            }
        };
        self.story.push(told);
        self.pass(NEWS_MS);
        self.shell.news(News { lost: true, ..News::default() }, self.now);
        self.told();
    }

    /// The daemon ends, or the host with it, and the next one takes over. Whoever waited has nobody
    /// left to wait for.
    fn restart(&mut self, restart: Restart) {
        self.story.push(match restart {
            Restart::Daemon => "the daemon starts anew".into(),
            Restart::Machine { .. } => "the host starts anew".into(),
        });
        self.waiting.clear();
        self.saves.clear();
        let shell = &self.shell;
        let (mut network, mut disk, mut processes) =
            (shell.network.clone(), shell.store.disk().clone(), shell.processes.clone());
        disk.restart(restart);
        match restart {
            Restart::Daemon => processes.crash(),
            Restart::Machine { .. } => (network, _) = (Fake::new(), processes.reboot()),
        }
        self.shell = daemon(&self.settings, network, disk, processes);
        self.shell.recover(self.now).expect("what was written can be taken over");
        self.told();
    }

    /// What was written of VMs.
    pub(super) fn records(&self) -> BTreeMap<VmName, Record> {
        let disk = self.shell.store.disk().clone();
        let mut store = Store::open(disk, Paths::new(STATE, RUNTIME)).expect("it can be read");
        let loaded = store.load().expect("it can be read");
        assert_eq!(loaded.set_aside, []);
        loaded.records.into_iter().map(|record| (record.name.clone(), record)).collect()
    }

    /// The engine of the next daemon, with these records.
    pub(super) fn next_engine(&self, records: BTreeMap<VmName, Record>) -> Engine {
        let mut engine = engine(&self.settings);
        let known = &self.shell.engine;
        for (name, document) in known.added() {
            let config = known.configured().find(|network| network.name == name);
            let added = config.map(|config| (document.clone(), config.clone()));
            engine.exchange_network(name, added, self.now).expect("it is there");
        }
        for record in records.into_values() {
            engine.restore(record).expect("what was written can be taken over");
        }
        engine
    }

    /// An engine that is given records of which two claim the same thing takes one at most.
    fn restore_odd(&mut self) {
        let mut engine = engine(&self.settings);
        let (from, to) = (asked::name(&mut self.choices), asked::name(&mut self.choices));
        let mut records = self.records();
        let source = records.get(&from).cloned();
        if let (Some(source), Some(odd)) = (source, records.get_mut(&to)) {
            let (nic, odd_nic) = (source.nics.into_iter().next(), odd.nics.first_mut());
            match (nic, odd_nic, self.choices.byte() % 5) {
                (Some(port), Some(odd), 0) => odd.tap = port.tap,
                (Some(port), Some(odd), 1) => (odd.network, odd.mac) = (port.network, port.mac),
                (Some(port), Some(odd), 2) => (odd.network, odd.ip) = (port.network, port.ip),
                (Some(nic), Some(odd), 3) => odd.exposed = nic.exposed,
                _ => odd.cid = source.cid,
            }
        }
        if let Err(error) = records.into_values().try_for_each(|record| engine.restore(record)) {
            self.story.push(format!("two records: {error}"));
        }
        super::check::owners(&engine);
    }

    /// What happened, and what has become of each VM.
    #[cfg(test)]
    pub(super) fn story(&self) -> Vec<String> {
        let vms = self.shell.engine.vms();
        let last = vms.map(|vm| format!("{} is {}", vm.record.name, vm.status()));
        self.story.iter().cloned().chain(last).collect()
    }

    fn set_up(&mut self) {
        self.shell.setup(false, Insistence::Overlaps, self.now).expect("nothing goes wrong");
    }

    /// Carries out what follows, until nothing does, and tells it.
    fn settle(&mut self) {
        let mut rounds = 0..MANY;
        while let Some(decision) = self.shell.engine.follow_up(self.now) {
            self.carry_out(decision);
            rounds.next().expect("what follows comes to an end");
        }
        // Of decisions nothing is left: this is for a teardown that waited for them.
        self.shell.settle(self.now);
        self.told();
    }

    /// Carries a decision out, and lets go wrong with it what a byte says: nothing, a step of its
    /// plan, what is done to the process, or a step of the disk.
    fn carry_out(&mut self, decision: Decision) -> bool {
        let trouble = self.choices.byte();
        trace!("trouble {trouble} with {decision:?}");
        match trouble {
            0..192 => {}
            192..224 if decision.plan.is_empty() => {}
            192..224 => {
                let fault = fake::KernelFault::Refused(Reason::Denied);
                self.shell.network.fail(usize::from(trouble - 192) % decision.plan.len(), fault);
            }
            224..240 => self.shell.processes.refuse_all(true),
            240.. => self
                .shell
                .store
                .disk_mut()
                .fail(usize::from(255 - trouble), StorageFault::Errno(EIO)),
        }
        let subject = decision.subject.clone();
        let done = self.shell.carry_out(decision, self.now);
        if !done {
            self.story.push(format!("what is decided for {subject} fails"));
        }
        self.shell.network.heal();
        self.shell.processes.refuse_all(false);
        self.shell.store.disk_mut().disarm();
        done
    }

    /// Whoever is answered waited for that, and waits no more.
    fn told(&mut self) {
        self.shell.take_started();
        for output in self.shell.take_outputs() {
            if let Output::Reply { ticket, result } = output {
                trace!("answer to {ticket}: {result:?}");
                let Some(request) = self.waiting.remove(&ticket) else {
                    panic!("{ticket} is answered twice: {result:?}")
                };
                self.story.push(format!("{request}: {}", outcome(&result)));
            }
        }
    }
}

fn daemon(settings: &Settings, network: Fake, disk: Memory, processes: FakeProcesses) -> Daemon {
    let store = Store::open(disk, Paths::new(STATE, RUNTIME)).expect("it can be written");
    Shell::new(engine(settings), network, store, processes, Launcher::new(settings, None))
}

fn engine(settings: &Settings) -> Engine {
    let hypervisor = settings.machine.hypervisor.clone();
    Engine::new(settings.networks.clone(), hypervisor, true).expect("the networks can be")
}

/// A request in a few words.
fn words(request: &Change) -> String {
    let subject = request.vm().map(|name| format!(" {name}")).unwrap_or_default();
    let dry = match request {
        Change::Create { dry_run: true, .. } | Change::Teardown { dry_run: true, .. } => {
            " (dry run)"
        }
        _ => "",
    };
    format!("{}{subject}{dry}", request.method())
}

/// An answer in a few words.
fn outcome(result: &Result<Reply, Error>) -> String {
    match result {
        Ok(Reply::Created { vm, .. } | Reply::Vm { vm }) => {
            let nics = vm.nics.iter().map(|nic| match nic.ip {
                Some(ip) => format!(", {} {ip}", nic.tap),
                None => format!(", {}", nic.tap),
            });
            iter::once(vm.status.to_string()).chain(nics).collect()
        }
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}
