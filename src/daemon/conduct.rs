//! Carries decisions out, in one order, whoever decided.
//!
//! Each step that fails undoes those before it:
//!
//! ```text
//! intent ▶ plan ▶ act ▶ record ▶ intent cleared ▶ commit ▶ events, replies
//!            ╰──────┴──────┴── failure: undone in reverse ▶ abort ▶ error replies
//! ```
//!
//! A delete has the record before the plan, because the end of a link cannot be undone.
//!
//! Several decisions that do not touch each other share the step that costs most, the round of
//! syncs that puts their records on the disk:
//!
//! ```text
//! plan, act ▶ plan, act ▶ … ▶ records, one round ▶ commit, replies ▶ commit, replies …
//!                                    ╰── one not written: that one is undone ▶ abort, error
//! ```
//!
//! Each keeps its own outcome, and nobody is answered before the own record is on the disk.

use std::rc::Rc;

use log::Level;

use super::launch::GuestNetworks;
use super::shell::Shell;
use crate::engine::decide::{Act, Decision, Launched, Outcome, Write};
use crate::engine::ledger::BRIDGE_PORTS_MAX;
use crate::engine::watch::Notice;
use crate::hypervisor::disks;
use crate::hypervisor::process::{Given, Processes};
use crate::hypervisor::user::KVM;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Reason, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Intent, Order, ProcessId, Record};
use crate::model::view::EventKind;
use crate::network::{Applied, Network, execute};
use crate::plan::op::Op;
use crate::plan::reconcile;
use crate::store::storage::Storage;

/// What was done of a decision, but for its record.
struct Begun {
    applied: Vec<Applied>,
    outcome: Outcome,
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Carries out one decision, and says whether it was done.
    pub(super) fn carry_out(&mut self, decision: Decision, now: Now) -> bool {
        self.conduct(vec![decision], now)
    }

    /// Carries out decisions that do not touch each other, and says whether all were done.
    pub(super) fn conduct(&mut self, decisions: Vec<Decision>, now: Now) -> bool {
        let before = self.serving;
        let mut begun = Vec::with_capacity(decisions.len());
        for decision in &decisions {
            self.serving = decision.serves().unwrap_or(before);
            begun.push(self.begin(decision, now));
        }
        let put = decisions.iter().zip(&begun).filter_map(|(decision, begun)| {
            let begun = begun.as_ref().ok().filter(|_| decision.write == Write::Put)?;
            Some(decision.outcome(&begun.outcome, now))
        });
        let records: Vec<Rc<Record>> = put.collect();
        let records: Vec<&Record> = records.iter().map(|record| &**record).collect();
        let mut written = self.store.put_all(&records).into_iter();
        let mut all = true;
        for (decision, begun) in decisions.into_iter().zip(begun) {
            self.serving = decision.serves().unwrap_or(before);
            let result = begun.and_then(|begun| {
                let written = match decision.write {
                    Write::Put => written.next().expect("one for each that was begun"),
                    Write::Nothing | Write::Remove => Ok(()),
                };
                if let Err(failure) = written.and_then(|()| self.lend_to_new(&decision)) {
                    self.take_back(&decision, &begun);
                    return Err(failure.into());
                }
                self.log_written(&decision);
                Ok(begun.outcome)
            });
            all &= result.is_ok();
            self.conclude(decision, result, now);
        }
        self.serving = before;
        all
    }

    fn log_written(&self, decision: &Decision) {
        let (vm, id) = (&decision.subject, self.serving);
        match decision.write {
            Write::Nothing => {}
            Write::Put => log::debug!(vm:%, id:%; "the record is written"),
            Write::Remove => log::debug!(vm:%, id:%; "the record is removed"),
        }
    }

    /// A VM that is new gets the folder of its sockets, if volnet does not start its hypervisor. If
    /// the daemon ends before that, the next one makes it, because it finds the record.
    fn lend_to_new(&mut self, decision: &Decision) -> Result<(), Failure> {
        match decision.write == Write::Put && decision.former_record().is_none() {
            true => self.lend_folder(&decision.record),
            false => Ok(()),
        }
    }

    /// Makes the folder of a VM whose hypervisor somebody else starts, if it makes sockets there.
    pub(super) fn lend_folder(&mut self, record: &Record) -> Result<(), Failure> {
        match record.spec.lends_folder() {
            true => self.processes.lend_folder(&record.name, record.spec.owner),
            false => Ok(()),
        }
    }

    /// Does what comes before the record. What fails is undone.
    fn begin(&mut self, decision: &Decision, now: Now) -> Result<Begun, Error> {
        if let Some(action) = &decision.intent {
            let record = Record::clone(&decision.record);
            self.store.put_intent(&Intent { action: action.clone(), record })?;
        }
        if decision.write == Write::Remove {
            self.remove(decision)?;
            return Ok(Begun { applied: Vec::new(), outcome: Outcome::default() });
        }
        if decision.write == Write::Put && decision.former_record().is_none() {
            // That of an ephemeral VM is left where the host was started anew.
            let name = &decision.subject;
            self.processes.remove_logs(name, &self.launcher.logs_of(name));
        }
        let applied = self.apply(decision)?;
        let outcome = Outcome { taps: taps(&decision.plan, &applied), launched: None };
        let mut begun = Begun { applied, outcome };
        match self.act(decision, &begun.outcome, now) {
            Ok(launched) => begun.outcome.launched = launched,
            Err(error) => {
                self.undo(decision, &begun);
                return Err(error);
            }
        }
        Ok(begun)
    }

    /// The record is removed first: a record can be restored, but a link cannot.
    fn remove(&mut self, decision: &Decision) -> Result<(), Error> {
        let name = &decision.subject;
        self.launcher.take_back(&decision.record);
        self.clean(name);
        let removed = self.store.remove(name, decision.record.spec.ephemeral);
        self.tally.planned(decision.plan.len());
        removed
            .and_then(|()| {
                execute::execute(&mut self.network, &decision.plan, self.serving).map(drop)
            })
            .inspect_err(|_| self.write_back(decision))?;
        self.remove_disks(&decision.record);
        Ok(())
    }

    /// Removes what is left of the processes of a VM that does not exist. Its logs end with it:
    /// the next one of its name belongs to somebody else.
    pub(super) fn clean(&mut self, name: &VmName) {
        self.processes.clean(name);
        self.processes.remove_logs(name, &self.launcher.logs_of(name));
    }

    /// Runs the plan on the kernel.
    fn apply(&mut self, decision: &Decision) -> Result<Vec<Applied>, Error> {
        self.stand(&decision.plan)?;
        self.tally.planned(decision.plan.len());
        let applied = execute::execute(&mut self.network, &decision.plan, self.serving);
        applied.map_err(|failure| self.named(&decision.record, failure))
    }

    /// A kernel error that has its own name in the interface.
    fn named(&self, record: &Record, failure: Failure) -> Error {
        // The first word is the link that was to be attached.
        let link = failure.object().and_then(|object| object.split(' ').next());
        let failed = record.nics.iter().find(|nic| link == Some(nic.tap.as_str()));
        match (failure.reason(), failed.and_then(|nic| self.engine.network_of(nic))) {
            (Some(Reason::Full), Some(network)) => {
                let bridge = network.bridge.clone();
                Refusal::BridgeFull { bridge, limit: BRIDGE_PORTS_MAX }.into()
            }
            (_, _) => failure.into(),
        }
    }

    /// Does to the process what is to be done. Gives the process that was started.
    fn act(
        &mut self,
        decision: &Decision,
        outcome: &Outcome,
        now: Now,
    ) -> Result<Option<Launched>, Error> {
        let name = &decision.subject;
        if let Some(act) = decision.act {
            log::debug!(vm:% = name, id:% = self.serving; "its process: {act:?}");
        }
        match decision.act {
            None => {}
            Some(Act::Spawn) => {
                let launched = self.spawn(&decision.outcome(outcome, now))?;
                if self.launcher.is_slow(launched.kvm) {
                    let message = format!("VM {name} runs without KVM: {KVM} cannot be used");
                    let vm = Some(name.clone());
                    self.event(Notice { kind: EventKind::VmSlow, vm, message, by: None }, now);
                }
                return Ok(Some(launched));
            }
            Some(Act::Ask(order @ (Order::PowerOff | Order::WakeAndPowerOff))) => {
                self.ask_to_power_off(decision, order)?;
            }
            Some(Act::Ask(order @ (Order::Pause | Order::Resume | Order::GiveUpSnapshot))) => {
                let control = self.launcher.control(&decision.record, self.store.paths())?;
                self.processes.ask(name, &control, order)?;
            }
            Some(Act::Terminate) => self.processes.terminate(name)?,
            Some(Act::Kill) => self.processes.kill(name)?,
        }
        Ok(None)
    }

    /// Asks a guest to power off. One that cannot be asked is not waited for.
    fn ask_to_power_off(&mut self, decision: &Decision, order: Order) -> Result<(), Failure> {
        let name = &decision.subject;
        let control = self.launcher.control(&decision.record, self.store.paths());
        let asked = control.and_then(|control| Ok(self.processes.ask(name, &control, order)?));
        if let Err(error) = asked {
            log::info!(
                vm:% = name;
                "cannot ask the guest to power off, ending its hypervisor: {error}"
            );
            self.processes.terminate(name)?;
        }
        Ok(())
    }

    fn spawn(&mut self, record: &Record) -> Result<Launched, Error> {
        let name = &record.name;
        let kvm = self.launcher.kvm_for(record);
        let id = self.launch(record, kvm).map_err(|error| match error {
            Error::Failed(Failure::Hypervisor { name: vm, reason, log: None }) => {
                let log = self.launcher.logs_of(name).tail();
                Failure::Hypervisor { name: vm, reason, log }.into()
            }
            error => error,
        })?;
        self.started.push(name.clone());
        if let Err(failure) = self.store.put_process(name, &id) {
            self.end_spawned(name);
            return Err(failure.into());
        }
        Ok(Launched { pid: id.pid, kvm })
    }

    /// Starts a VM's process with its open descriptors.
    fn launch(&mut self, record: &Record, kvm: Option<bool>) -> Result<ProcessId, Error> {
        let name = &record.name;
        self.refuse_shared_disks(record)?;
        let ports: Vec<_> = self.engine.desired_ports(record).collect();
        let mut taps = Vec::new();
        for nic in self.launcher.taps_of(record) {
            taps.push(self.network.open_tap(&ports[nic])?);
        }
        self.launcher.hand_over(record)?;
        let (logs, terminal) = (self.launcher.logs_of(name), self.launcher.needs_terminal(record));
        let streams = self.processes.open_streams(name, &logs, terminal)?;
        let user = self.launcher.user_of(record.user);
        let cgroup = self.launcher.cgroup_of(name, &record.spec, record.user)?;
        let memory = self.launcher.memory_of(record)?;
        let given = Given { user, cgroup, streams, taps, memory };
        let networks = self.engine.networks_of(record);
        let servers = networks.first().map(|network| self.engine.name_servers(network));
        let told = GuestNetworks {
            networks: &networks,
            kernel_args: &self.engine.kernel_args(record),
            servers: &servers.unwrap_or_default(),
        };
        let paths = self.store.paths();
        let command = self.launcher.command(record, &told, paths, &given, kvm)?;
        Ok(self.processes.spawn(name, &command, given)?)
    }

    /// A disk that one of two running VMs writes to is not given to both.
    fn refuse_shared_disks(&self, record: &Record) -> Result<(), Refusal> {
        let Some(machine) = &record.spec.machine else { return Ok(()) };
        let others = self.engine.vms().filter(|vm| vm.life.pid().is_some()).map(|vm| &vm.record);
        let others = others.filter(|other| other.name != record.name);
        disks::refuse_shared(
            machine,
            others.filter_map(|other| Some((&other.name, &**other.spec.machine.as_ref()?))),
        )
    }

    /// Undoes all of a decision whose record could not be written.
    fn take_back(&mut self, decision: &Decision, begun: &Begun) {
        if begun.outcome.launched.is_some() {
            self.end_spawned(&decision.subject);
        }
        self.write_back(decision);
        self.undo(decision, begun);
    }

    /// Undoes what was done to the kernel, and what a start that failed left.
    fn undo(&mut self, decision: &Decision, begun: &Begun) {
        execute::undo(&mut self.network, &decision.plan, &begun.applied, self.serving);
        if decision.former_record().is_none() {
            self.launcher.take_back(&decision.record);
            self.clean(&decision.subject);
        }
    }

    /// Undoes a write. It may have got as far as the rename before it failed.
    fn write_back(&mut self, decision: &Decision) {
        let written = match decision.former_record() {
            Some(former) => self.store.put(former).and_then(|()| self.lend_folder(former)),
            None => self.store.remove(&decision.subject, decision.record.spec.ephemeral),
        };
        if let Err(failure) = written {
            log::error!("while undoing: {failure}");
        }
    }

    /// Undoes a spawn: the process is killed and reaped before anything else.
    fn end_spawned(&mut self, name: &VmName) {
        if let Err(failure) = self.processes.kill_and_reap(name) {
            log::error!(vm:% = name; "{failure}");
        }
        self.forget_process(name);
    }

    /// Takes over what became of a decision, and tells it.
    fn conclude(&mut self, decision: Decision, result: Result<Outcome, Error>, now: Now) {
        if result.is_ok()
            && decision.act == Some(Act::Spawn)
            && decision.record.wakes_from().is_some()
        {
            self.await_guest(decision.subject.clone());
        } else if decision.intent.is_some() {
            if let Err(failure) = self.store.clear_intent(&decision.subject) {
                // An intent that stays is checked at the next start, and found done or undone.
                log::warn!("{failure}");
            }
        }
        let answers = match result {
            Ok(outcome) => {
                for (kind, message) in &decision.events {
                    let (kind, vm, message) =
                        (*kind, Some(decision.subject.clone()), message.clone());
                    let notice = Notice { kind, vm, message, by: None };
                    match self.is_grave(kind, &decision) {
                        true => self.event_at(Level::Warn, notice, now),
                        false => self.event(notice, now),
                    }
                }
                self.engine.commit(decision, &outcome, now)
            }
            Err(error) => {
                if decision.act == Some(Act::Spawn) {
                    let (kind, vm) = (EventKind::VmExited, Some(decision.subject.clone()));
                    let message = format!("VM {} was not started: {error}", decision.subject);
                    let notice = Notice { kind, vm, message, by: None };
                    self.event_at(Level::Warn, notice, now);
                } else if matches!(error, Error::Failed(_)) || decision.answers.is_empty() {
                    // A caller who is refused is told why, and nothing is wrong with the host.
                    let (vm, id) = (&decision.subject, self.serving);
                    log::warn!(vm:%, id:%; "{error}");
                }
                if !decision.plan.is_empty() && self.host.is_some() {
                    // If the undo failed as well, this finds the rest.
                    self.engine.look_again(now);
                }
                self.engine.abort(decision, &error)
            }
        };
        self.answer(answers);
    }

    /// Whether somebody may have to act: a hypervisor has failed, or has stopped its guest, also if
    /// a caller is told of that.
    fn is_grave(&self, kind: EventKind, decision: &Decision) -> bool {
        let vm = || self.engine.vm(&decision.subject);
        match kind {
            EventKind::VmExited => decision.record.last_error.is_some(),
            EventKind::VmPaused => vm().is_ok_and(|vm| vm.last_error().is_some()),
            _ => false,
        }
    }
}

/// The taps that were made, with their indexes.
fn taps(plan: &[Op], applied: &[Applied]) -> Vec<(String, u32)> {
    let tap = |(op, applied): (&Op, &Applied)| {
        let (name, _) = reconcile::made(op)?;
        Some((name.to_string(), applied.ifindex?))
    };
    plan.iter().zip(applied).filter_map(tap).collect()
}
