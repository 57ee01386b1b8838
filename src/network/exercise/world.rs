//! The engine and what it decides about: a kernel, a disk and processes, all of which can fail.
//!
//! The order in which a decision is carried out is that of the daemon's shell. With RUST_LOG=trace the
//! test that replays the corpus tells the story.

use std::collections::{BTreeMap, BTreeSet};

use log::trace;

use super::asked;
use crate::engine::decide::{Act, Answers, Decision, Engine, Outcome, Step, Write};
use crate::exercise::Choices;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Reason};
use crate::model::lease::{Change, Claim};
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Lease;
use crate::model::record::{Exit, Record};
use crate::model::request::Ticket;
use crate::model::request::{Reply, Request};
use crate::network::Applied;
use crate::network::execute::{execute, execute_all, undo};
use crate::network::fake::{Fake, Fault};
use crate::plan::op::Op;
use crate::plan::reconcile::{Desired, reconcile};

/// Decisions that may follow from one another at one moment, and moments until all is at rest.
const MANY: usize = 1000;

/// The engine, and everything else.
pub(super) struct World<'a> {
    choices: Choices<'a>,
    networks: Vec<NetworkConfig>,
    pub(super) engine: Engine,
    pub(super) kernel: Fake,
    /// Whether the host is set up.
    pub(super) set_up: bool,
    pub(super) disk: BTreeMap<VmName, Record>,
    /// Processes by VM, and whether they were killed.
    pub(super) processes: BTreeMap<VmName, (u32, bool)>,
    pub(super) now: Now,
    last_pid: u32,
    last_ticket: Ticket,
    /// Who waits for an answer.
    pub(super) waiting: BTreeSet<Ticket>,
}

/// What goes wrong with a decision.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// The step of this number of its plan.
    Plan(u8),
    Act,
    Write,
}

impl<'a> World<'a> {
    pub(super) fn new(choices: Choices<'a>) -> World<'a> {
        let networks = asked::networks();
        World {
            choices,
            engine: engine(&networks),
            networks,
            kernel: Fake::new(),
            set_up: false,
            disk: BTreeMap::new(),
            processes: BTreeMap::new(),
            now: Now { wall: 1_700_000_000_000, mono: 0 },
            last_pid: 0,
            last_ticket: 0,
            waiting: BTreeSet::new(),
        }
    }

    /// Lets one thing happen; false when there is nothing more to come.
    pub(super) fn step(&mut self) -> bool {
        if self.choices.is_empty() {
            return false;
        }
        match self.choices.byte() % 32 {
            0..16 => self.ask(),
            16..21 => self.end(),
            21..26 => self.wait(),
            26..29 => self.lease(),
            29 => self.restart(),
            30 => self.reboot(),
            _ => self.restore_odd(),
        }
        self.tick();
        true
    }

    /// Lets time pass until nobody waits any more, with nothing that goes wrong.
    pub(super) fn come_to_rest(&mut self) {
        self.choices = Choices::new(&[]);
        for _ in 0..MANY {
            let killed = self.processes.iter().filter(|(_, (_, killed))| *killed);
            for name in killed.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.exited(&name, Exit::Signal(9));
            }
            if self.waiting.is_empty() {
                return;
            }
            let next = self.engine.deadline().expect("somebody waits for something");
            self.now.mono = self.now.mono.max(next);
            self.tick();
        }
        panic!("{:?} wait for ever", self.waiting);
    }

    fn ask(&mut self) {
        let request = asked::request(&mut self.choices);
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.waiting.insert(ticket);
        if let Request::Create { spec, dry_run: false, .. } = &request {
            if spec.needs_tap_device() {
                self.set_up();
            }
        }
        trace!("{}: caller {ticket}: {request:?}", self.now.mono);
        match self.engine.request(ticket, &request, self.now) {
            Ok(Step::Reply(reply)) => self.answer(vec![(ticket, Ok(*reply))]),
            Ok(Step::Do(decision)) => self.carry_out(*decision),
            Ok(Step::Setup { dry_run, .. }) => {
                if !dry_run {
                    self.set_up();
                }
                self.answer(vec![(ticket, Ok(Reply::Plan { plan: Vec::new() }))]);
            }
            Ok(Step::Teardown { dry_run }) => {
                if !dry_run {
                    self.tear_down();
                }
                self.answer(vec![(ticket, Ok(Reply::Plan { plan: Vec::new() }))]);
            }
            Ok(Step::Later) => {}
            Err(error) => self.answer(vec![(ticket, Err(error))]),
        }
        self.settle();
    }

    /// A process ends, by itself or because it was killed.
    fn end(&mut self) {
        let name = asked::name(&mut self.choices);
        let exit = self.choices.one_of(&[Exit::Code(0), Exit::Code(1), Exit::Signal(9)]);
        self.exited(&name, exit);
    }

    fn exited(&mut self, name: &VmName, exit: Exit) {
        trace!("{}: {name} {exit}", self.now.mono);
        if self.processes.remove(name).is_some() {
            if let Some(decision) = self.engine.exited(name, exit, None, self.now) {
                self.carry_out(decision);
            }
        }
        self.settle();
    }

    /// Time passes: a while, or until something is due.
    fn wait(&mut self) {
        let later = match self.choices.byte() {
            0 => self.engine.deadline().unwrap_or_default().saturating_sub(self.now.mono),
            byte => 1 << (byte % 20),
        };
        self.now = Now { wall: self.now.wall + later, mono: self.now.mono + later };
    }

    fn tick(&mut self) {
        let mut rounds = 0..MANY;
        while let Some(decision) = self.engine.due(self.now) {
            self.carry_out(decision);
            rounds.next().expect("what is due is done, or put off");
        }
        while let Some(name) = self.engine.hatching(self.now) {
            let ready = self.choices.flag();
            let answers = self.engine.looked_at(&name, ready, self.now);
            self.answer(answers);
        }
        self.settle();
    }

    /// A guest asks for an address, takes it up, or gives it back.
    fn lease(&mut self) {
        let name = asked::name(&mut self.choices);
        let nics = self.engine.vm(&name).map(|vm| vm.record.nics.clone()).unwrap_or_default();
        let at = usize::from(self.choices.byte()) % nics.len().max(1);
        let Some(port) = nics.into_iter().nth(at) else { return };
        let Some(guest) = self.engine.guest(&port.network, port.mac, None) else { return };
        let until = self.now.wall + 3_600_000;
        let lent = |ip, given| Change::Lease(Lease { ip, given, until });
        let change = match (guest.claim, self.choices.byte() % 4) {
            (Claim::Reserved(_), _) => return,
            (Claim::Nothing, _) => {
                if let Some(decision) = self.engine.reclaim(&port.network, self.now) {
                    self.carry_out(decision);
                }
                return;
            }
            (Claim::Free(ip), given) => lent(ip, given == 0),
            (Claim::Leased(lease), 0..2) => lent(lease.ip, true),
            (Claim::Leased(_), 2) => Change::Release,
            (Claim::Leased(_), _) => Change::Decline,
        };
        if let Some(decision) = self.engine.change_lease(&name, at, change, self.now) {
            self.carry_out(decision);
        }
    }

    /// The daemon starts anew; whoever waited has nobody left to wait for.
    fn restart(&mut self) {
        trace!("{}: the daemon starts anew", self.now.mono);
        self.waiting.clear();
        self.engine = self.next_engine();
        for name in self.disk.keys().cloned().collect::<Vec<_>>() {
            let decision = match self.processes.get(&name) {
                Some((pid, _)) => self.engine.adopted(&name, *pid, self.now),
                None => self.engine.lost(&name, self.now),
            };
            if let Some(decision) = decision {
                self.carry_out(decision);
            }
        }
        self.set_up();
        self.engine.autostart();
        self.settle();
    }

    /// The host starts anew, and the daemon with it.
    fn reboot(&mut self) {
        self.kernel = Fake::new();
        self.processes.clear();
        self.disk.retain(|_, record| !record.spec.ephemeral);
        self.restart();
    }

    /// The engine of the next daemon, with what was written.
    pub(super) fn next_engine(&self) -> Engine {
        let mut engine = engine(&self.networks);
        for record in self.disk.values() {
            engine.restore(record.clone()).expect("what was written can be taken over");
        }
        engine
    }

    /// An engine that is given records of which two claim the same thing takes one at most.
    fn restore_odd(&mut self) {
        let mut engine = engine(&self.networks);
        let (from, to) = (asked::name(&mut self.choices), asked::name(&mut self.choices));
        let mut records = self.disk.clone();
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
        let _ = records.into_values().try_for_each(|record| engine.restore(record));
        super::check::owners(&engine);
    }

    /// Brings the kernel to what the engine wants.
    fn set_up(&mut self) {
        self.set_up = true;
        let plan = reconcile(&self.engine.desired(), &self.kernel.kernel.observed).plan;
        assert!(execute_all(&mut self.kernel, &plan).iter().all(Result::is_ok), "{plan:?}");
        self.engine.observed(&self.kernel.kernel.observed.links);
    }

    fn tear_down(&mut self) {
        self.set_up = false;
        let nothing = Desired { forwarding: Some(false), ..Desired::default() };
        let plan = reconcile(&nothing, &self.kernel.kernel.observed).plan;
        assert!(execute_all(&mut self.kernel, &plan).iter().all(Result::is_ok), "{plan:?}");
    }

    /// Carries out what follows, until nothing does.
    fn settle(&mut self) {
        let mut rounds = 0..MANY;
        while let Some(decision) = self.engine.follow_up(self.now) {
            self.carry_out(decision);
            rounds.next().expect("what follows comes to an end");
        }
        if let Some(tickets) = self.engine.teardown_due() {
            self.tear_down();
            let answers = tickets.into_iter().map(|ticket| (ticket, Ok(Reply::Deleted)));
            self.answer(answers.collect());
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        let trouble = match self.choices.byte() {
            0..192 => Trouble::None,
            byte @ 192..224 => Trouble::Plan(byte - 192),
            224..240 => Trouble::Act,
            _ => Trouble::Write,
        };
        trace!("trouble {trouble:?} with {decision:?}");
        let answers = match self.run(&decision, trouble) {
            Ok(outcome) => self.engine.commit(decision, &outcome, self.now),
            Err(error) => self.engine.abort(decision, &error),
        };
        self.answer(answers);
    }

    fn run(&mut self, decision: &Decision, trouble: Trouble) -> Result<Outcome, Error> {
        if decision.write == Write::Remove {
            self.write(decision, &decision.record, trouble)?;
            if let Err(error) = self.execute(decision, trouble) {
                let former = decision.former_record().expect("what is removed was there").clone();
                self.disk.insert(former.name.clone(), former);
                return Err(error);
            }
            return Ok(Outcome::default());
        }
        let applied = self.execute(decision, trouble)?;
        let tap = |(op, applied): (&Op, &Applied)| match op {
            Op::CreateTap { name, .. } => Some((name.clone(), applied.ifindex?)),
            _ => None,
        };
        let taps = decision.plan.iter().zip(&applied).filter_map(tap).collect();
        let done = self.act(decision, trouble).and_then(|pid| {
            let outcome = Outcome { taps, pid };
            let record = decision.outcome(&outcome, self.now);
            let written = self.write(decision, &record, trouble);
            if written.is_err() && decision.act == Some(Act::Spawn) {
                self.processes.remove(&decision.subject);
            }
            written.map(|()| outcome)
        });
        if done.is_err() {
            undo(&mut self.kernel, &decision.plan, &applied);
        }
        done
    }

    fn execute(&mut self, decision: &Decision, trouble: Trouble) -> Result<Vec<Applied>, Error> {
        if let (Trouble::Plan(at), false) = (trouble, decision.plan.is_empty()) {
            self.kernel.fail(usize::from(at) % decision.plan.len(), Fault::Refused(Reason::Denied));
        }
        Ok(execute(&mut self.kernel, &decision.plan)?)
    }

    fn act(&mut self, decision: &Decision, trouble: Trouble) -> Result<Option<u32>, Error> {
        let name = &decision.subject;
        match (decision.act, trouble) {
            (None, _) => {}
            (Some(_), Trouble::Act) => return Err(failure("signal")),
            (Some(Act::Spawn), _) => {
                self.last_pid += 1;
                let former = self.processes.insert(name.clone(), (self.last_pid, false));
                assert_eq!(former, None, "{name} has a process");
                return Ok(Some(self.last_pid));
            }
            (Some(Act::Ask | Act::Terminate | Act::Kill), _) => {
                let (_, killed) = self.processes.get_mut(name).expect("a process to be ended");
                *killed |= decision.act == Some(Act::Kill);
            }
        }
        Ok(None)
    }

    fn write(
        &mut self,
        decision: &Decision,
        record: &Record,
        trouble: Trouble,
    ) -> Result<(), Error> {
        match (decision.write, trouble) {
            (Write::Nothing, _) => {}
            (Write::Put | Write::Remove, Trouble::Write) => return Err(failure("write")),
            (Write::Put, _) => {
                self.disk.insert(decision.subject.clone(), record.clone());
            }
            (Write::Remove, _) => drop(self.disk.remove(&decision.subject)),
        }
        Ok(())
    }

    fn answer(&mut self, answers: Answers) {
        for (ticket, result) in answers {
            trace!("answer to {ticket}: {result:?}");
            assert!(self.waiting.remove(&ticket), "{ticket} is answered twice: {result:?}");
        }
    }
}

fn engine(networks: &[NetworkConfig]) -> Engine {
    Engine::new(networks.to_vec(), "qemu".into(), true).expect("the networks can be")
}

fn failure(what: &str) -> Error {
    Failure::State { path: what.into(), reason: "it was chosen to fail".into() }.into()
}
