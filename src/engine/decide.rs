//! From a request to a [`Decision`], and from its outcome to the next state.
//!
//! A decision is a transaction. [`Engine::request`] reserves what it needs and says what is to be
//! done; the caller does it, in the order of [`Decision`]'s fields, and reports with
//! [`Engine::commit`] or [`Engine::abort`]. After an abort the engine is as it was before. The
//! caller executes one decision at a time, so no state lies between the two; or several, which make
//! new VMs: these do not touch each other.
//!
//! A new VM is decided on in [`super::create`]. The other inputs (exits, deadlines, recovery) make
//! decisions of the same kind; they are in [`super::lifecycle`] and [`super::recover`].

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::added::Added;
use crate::engine::crowd::{PLACE_MS, starts_at_once};
use crate::engine::ledger::Ledger;
use crate::engine::lifecycle::{self, Started};
use crate::engine::state::{Agenda, Host, Known, State};
use crate::engine::supervise::{Life, Origin, Waking, Want};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::document::Kept;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::expose::{PORTS_DEFAULT, Ports};
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::policy::Policy;
use crate::model::record::{Action, BootId, Order, Record};
use crate::model::request::{Change, Reply, Serving, Ticket};
use crate::model::run_as::RunAs;
use crate::model::view::{EventKind, Status};
use crate::plan::op::Plan;

/// All that volnet knows, and the decisions on it.
#[derive(Debug)]
pub struct Engine {
    /// What the settings say.
    pub(super) host: Host,
    /// What the records say.
    pub(super) state: State,
    /// What is to come.
    pub(super) agenda: Agenda,
    /// What was seen of the host.
    pub(super) known: Known,
}

/// What a request comes to.
#[derive(Debug)]
pub enum Step {
    /// It is answered from what is known.
    Reply(Box<Reply>),
    /// This is to be done, and answers it.
    Do(Box<Decision>),
    /// The host is to be brought to its desired state.
    Setup { dry_run: bool, force: bool },
    /// The host is to be freed of everything.
    Teardown { dry_run: bool, force: bool },
    /// This network is to be added.
    AddNetwork { document: Kept, replace: bool },
    /// An added network is to be removed.
    RemoveNetwork { name: String },
    /// It is answered when a stop that is under way ends.
    Later,
}

/// Something to be done for one VM, whole or not at all.
#[derive(Debug)]
pub struct Decision {
    /// The VM.
    pub subject: VmName,
    /// Its record as it is to be, but for what the kernel and the process add ([`Outcome`]).
    pub record: Rc<Record>,
    /// Written before anything is done, cleared after: where a process is started.
    pub intent: Option<Action>,
    /// Done to the kernel.
    pub plan: Plan,
    /// Done to the process.
    pub act: Option<Act>,
    /// Written of the record when all is done.
    pub write: Write,
    /// Who is answered, and with what.
    pub answers: Vec<(Ticket, Answer)>,
    /// What is told to subscribers.
    pub events: Vec<(EventKind, String)>,
    /// The VM as it was; `None` when this decision made it.
    pub(super) former: Option<Vm>,
}

/// What came of a decision that was carried out: what only the kernel can know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The taps that were made, with their indexes.
    pub taps: Vec<(String, u32)>,
    /// The process that was started.
    pub launched: Option<Launched>,
}

/// A process that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its pid.
    pub pid: u32,
    /// [`Record::kvm`].
    pub kvm: Option<bool>,
}

/// What is done to a VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start it.
    Spawn,
    /// Ask this of the guest.
    Ask(Order),
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// What is written of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Nothing: it did not change.
    Nothing,
    /// The record as the engine has it.
    Put,
    /// The VM is gone, and so is its record.
    Remove,
}

/// How a caller is answered once a decision is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The VM, the commands that would have made it, and the notes about its documents.
    Created { plan: Vec<String>, notes: Vec<String> },
    /// The VM.
    Shown,
    /// The VM of an attachment, with its bridge.
    Attached,
    /// That it is gone.
    Deleted,
    /// That it is gone, to whoever detached it.
    Detached,
    /// That there is no such VM any more: another caller deleted it.
    NotFound,
    /// That its process ended at once.
    Failed(Failure),
}

/// What the engine has to say after a decision.
pub type Answers = Vec<(Ticket, Result<Reply, Error>)>;

impl Decision {
    /// The record as it was; `None` when this decision made the VM.
    pub fn former_record(&self) -> Option<&Record> {
        self.former.as_ref().map(|vm| &*vm.record)
    }

    /// The request that it answers, the first of several; `None` if it answers none.
    pub fn serves(&self) -> Option<Serving> {
        self.answers.first().map(|(ticket, _)| Serving(Some(*ticket)))
    }

    /// The record as it is once this has come of the decision at `now`.
    pub fn outcome(&self, outcome: &Outcome, now: Now) -> Rc<Record> {
        let mut record = Rc::clone(&self.record);
        outcome.add_to(&mut record, now);
        record
    }
}

impl Outcome {
    fn add_to(&self, record: &mut Rc<Record>, now: Now) {
        for (tap, index) in &self.taps {
            let nics = Rc::make_mut(record).nics.iter_mut();
            for nic in nics.filter(|nic| nic.tap.as_str() == tap) {
                nic.ifindex = Some(*index);
            }
        }
        if let Some(Launched { kvm, .. }) = self.launched {
            let record = Rc::make_mut(record);
            (record.started_at, record.kvm) = (Some(now.wall), kvm);
        }
    }
}

impl Step {
    /// An answer.
    pub fn reply(reply: Reply) -> Step {
        Step::Reply(Box::new(reply))
    }

    /// What is to be done for one VM, if it is that.
    pub fn decision(self) -> Option<Decision> {
        match self {
            Step::Do(decision) => Some(*decision),
            Step::Reply(_)
            | Step::Setup { .. }
            | Step::Teardown { .. }
            | Step::AddNetwork { .. }
            | Step::RemoveNetwork { .. }
            | Step::Later => None,
        }
    }

    /// The answer to a create, with the notes about its documents.
    fn noted(mut self, notes: &[String]) -> Step {
        match &mut self {
            Step::Reply(reply) => reply.note(notes),
            Step::Do(decision) => {
                for (_, answer) in &mut decision.answers {
                    answer.note(notes);
                }
            }
            Step::Setup { .. }
            | Step::Teardown { .. }
            | Step::AddNetwork { .. }
            | Step::RemoveNetwork { .. }
            | Step::Later => {}
        }
        self
    }
}

impl Answer {
    /// The answer to a create, with the notes about its documents.
    pub(super) fn created(plan: Vec<String>, notes: &[String]) -> Answer {
        Answer::Created { plan, notes: notes.into() }
    }

    fn note(&mut self, about: &[String]) {
        if let Answer::Created { notes, .. } = self {
            *notes = about.into();
        }
    }
}

impl Engine {
    /// An engine that knows these networks and no VM. `hypervisor` is that of a VM that names
    /// none; with `nft_owner` nobody else may change our tables, where the kernel can see to that.
    /// The error says which network cannot be.
    pub fn new(
        networks: Vec<NetworkConfig>,
        hypervisor: String,
        nft_owner: bool,
    ) -> Result<Engine, String> {
        Ok(Engine {
            host: Host {
                hypervisor,
                nft_owner,
                policies: Policy::built_in(),
                tap_owner: (0, Vec::new()),
                run_as: RunAs::Shared,
                expose_ports: PORTS_DEFAULT,
                starts_at_once: starts_at_once(1),
                place_ms: PLACE_MS,
                boot: BootId::default(),
                machine: String::new(),
            },
            state: State {
                ledger: Ledger::new(networks)?,
                added: Added::default(),
                vms: BTreeMap::new(),
            },
            agenda: Agenda::default(),
            known: Known::default(),
        })
    }

    /// Gives ports of this range to those who ask for any.
    pub fn with_expose_ports(mut self, expose_ports: Ports) -> Engine {
        self.host.expose_ports = expose_ports;
        self
    }

    /// Leases count from this boot of the host.
    pub fn with_boot(mut self, boot: BootId) -> Engine {
        self.host.boot = boot;
        self
    }

    /// Derives the Ethernet addresses of bridges from this identifier of the host.
    pub fn with_machine(mut self, machine: String) -> Engine {
        self.host.machine = machine;
        self
    }

    /// Lets this user open the taps of those VMs whose hypervisors are not handed theirs open,
    /// unless a VM has a user of its own. All others are root's.
    pub fn with_tap_owner(mut self, uid: u32, openers: Vec<String>) -> Engine {
        self.host.tap_owner = (uid, openers);
        self
    }

    /// The hypervisor of a VM by name; `None` where volnet starts none.
    pub(super) fn hypervisor_of<'a>(&'a self, record: &'a Record) -> Option<&'a str> {
        let machine = record.spec.machine.as_ref()?;
        Some(machine.hypervisor.as_deref().unwrap_or(&self.host.hypervisor))
    }

    /// Decides on a change that `ticket` asks for.
    pub fn request(&mut self, ticket: Ticket, change: &Change, now: Now) -> Result<Step, Error> {
        match change {
            Change::Create { name, spec, start: true, dry_run: false, notes }
                if self.state.vms.get(name).is_some_and(|vm| vm.record.spec == **spec)
                    && self.join_check(name, ticket, Answer::created(Vec::new(), notes)) =>
            {
                Ok(Step::Later)
            }
            Change::Create { name, spec, start, dry_run, notes } => {
                let step = self.create(ticket, name, spec, *start, *dry_run, now)?;
                Ok(step.noted(notes))
            }
            Change::Start { name } => self.start(ticket, name, Answer::Shown),
            Change::Stop { name, timeout_ms } => {
                self.stop(ticket, name, *timeout_ms, Want::Stopped, now)
            }
            Change::Restart { name, timeout_ms } => {
                self.stop(ticket, name, *timeout_ms, Want::Restarted, now)
            }
            Change::Pause { name } => self.pause(ticket, name, true, now),
            Change::Resume { name } => self.pause(ticket, name, false, now),
            Change::Snapshot { name, folder: _ } => {
                self.begin_snapshot(ticket, name)?;
                Ok(Step::Later)
            }
            Change::Delete { name, timeout_ms } => {
                self.stop(ticket, name, *timeout_ms, Want::Deleted, now)
            }
            Change::Expose { name, nic, port, force } => {
                self.expose(ticket, name, *nic, port, *force)
            }
            Change::SetPolicy { name, nic, policy } => self.set_policy(ticket, name, *nic, policy),
            Change::SetLimits { name, nic, limits } => self.set_limits(ticket, name, *nic, *limits),
            Change::Unexpose { name, at } => self.unexpose(ticket, name, *at),
            Change::Attach { name, spec, .. } => self.attach(ticket, name, spec, now),
            Change::Detach { id } => Ok(self.detach(ticket, id)),
            Change::Setup { dry_run, force } => {
                Ok(Step::Setup { dry_run: *dry_run, force: *force })
            }
            Change::Teardown { dry_run, force } => self.teardown(ticket, *dry_run, *force),
            Change::AddNetwork { document, replace } => {
                Ok(Step::AddNetwork { document: document.clone(), replace: *replace })
            }
            Change::RemoveNetwork { name } => Ok(Step::RemoveNetwork { name: name.clone() }),
        }
    }

    /// A VM by name.
    pub fn vm(&self, name: &VmName) -> Result<&Vm, Refusal> {
        self.state.vms.get(name).ok_or_else(|| Refusal::VmNotFound { name: name.to_string() })
    }

    /// All VMs.
    pub fn vms(&self) -> impl Iterator<Item = &Vm> {
        self.state.vms.values()
    }

    /// The network that an interface is on.
    pub fn network_of(&self, nic: &Nic) -> Option<&NetworkConfig> {
        self.state.ledger.network(&nic.network)
    }

    /// The networks of a VM's interfaces, one each.
    pub fn networks_of(&self, record: &Record) -> Vec<&NetworkConfig> {
        record.nics.iter().filter_map(|nic| self.network_of(nic)).collect()
    }

    /// The configured networks.
    pub fn configured(&self) -> impl Iterator<Item = &NetworkConfig> {
        self.state.ledger.networks()
    }

    /// The ports of the host that are given to those who ask for any.
    pub fn expose_ports(&self) -> Ports {
        self.host.expose_ports
    }

    /// The decision is done, and this came of it: takes the state over and gives the answers. Who
    /// started a process is answered later, after the start-up check.
    pub fn commit(&mut self, decision: Decision, outcome: &Outcome, now: Now) -> Answers {
        let wakes = decision.record.wakes_from().is_some();
        // Shared no more, so what is changed now is not copied.
        drop(decision.record);
        if let Some(vm) = self.state.vms.get_mut(&decision.subject) {
            outcome.add_to(&mut vm.record, now);
            if let Some(Launched { pid, .. }) = outcome.launched {
                vm.life = Life::running(pid, now.mono);
            }
        }
        let gone = match decision.write {
            Write::Remove => {
                self.forget_trouble(&decision.subject);
                self.state.vms.remove(&decision.subject)
            }
            Write::Nothing | Write::Put => None,
        };
        match &gone {
            Some(Vm { stranded: Some(stranded), .. }) => self.state.ledger.let_go(&stranded.held),
            Some(vm) => self.state.ledger.release(&vm.record),
            None => {}
        }
        if let Some(vm) = &gone {
            self.networks_used(&vm.record, now);
        }
        if decision.act == Some(Act::Spawn) {
            let made = decision.former.is_none();
            let origin = if made { Origin::Made } else { Origin::Started };
            self.begin_check(&decision.subject, decision.answers, origin, now);
            if wakes {
                self.await_waking(&decision.subject, Waking::Asleep);
            }
            return Vec::new();
        }
        self.answers(&decision.subject, decision.answers)
    }

    /// The decision could not be carried out and everything it did is undone: goes back to the
    /// state before it, and tells those who wait. Who waited before it still does.
    pub fn abort(&mut self, decision: Decision, error: &Error) -> Answers {
        let name = decision.subject;
        let mut waiting: Vec<Ticket> = decision.answers.iter().map(|(it, _)| *it).collect();
        waiting.extend(self.state.vms.get(&name).into_iter().flat_map(|vm| vm.life.tickets()));
        match decision.former {
            Some(mut vm) => {
                let still = vm.life.tickets();
                waiting.retain(|ticket| !still.contains(ticket));
                self.take_addresses_back(&vm.record);
                self.agenda.timed.insert(name.clone());
                if decision.act == Some(Act::Spawn) {
                    // Written with the next change.
                    vm.edit().last_error = Some(lifecycle::last_error(&error.to_string(), None));
                }
                self.state.vms.insert(name, vm);
            }
            None => {
                if let Some(vm) = self.state.vms.remove(&name) {
                    self.state.ledger.release(&vm.record);
                }
            }
        }
        if decision.write == Write::Remove {
            // The VM stays, and so does the host as it is.
            waiting.append(&mut self.agenda.teardown);
        }
        waiting.into_iter().map(|ticket| (ticket, Err(error.clone()))).collect()
    }

    /// The replies to those who wait for `name`.
    pub(super) fn answers(&self, name: &VmName, answers: Vec<(Ticket, Answer)>) -> Answers {
        let reply = |(ticket, answer)| (ticket, self.answer(name, answer));
        answers.into_iter().map(reply).collect()
    }

    fn answer(&self, name: &VmName, answer: Answer) -> Result<Reply, Error> {
        match answer {
            Answer::Deleted => Ok(Reply::Deleted),
            Answer::Detached => Ok(Reply::Detached { released: true }),
            Answer::NotFound => Err(Refusal::VmNotFound { name: name.to_string() }.into()),
            Answer::Attached => Ok(self.attached(self.vm(name)?)?),
            Answer::Shown => Ok(Reply::Vm { vm: Box::new(self.show(self.vm(name)?)) }),
            Answer::Created { plan, notes } => {
                Ok(Reply::Created { vm: Box::new(self.show(self.vm(name)?)), plan, notes })
            }
            Answer::Failed(failure) => Err(failure.into()),
        }
    }

    /// Starts a VM. If it is starting already, the caller waits for the same process.
    pub(super) fn start(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        answer: Answer,
    ) -> Result<Step, Error> {
        let vm = self.placed_vm(name)?;
        if vm.record.spec.machine.is_none() {
            return Err(no_machine().into());
        }
        match vm.status() {
            Status::Created if self.join_check(name, ticket, answer.clone()) => {
                return Ok(Step::Later);
            }
            Status::Created | Status::Stopped | Status::Crashed => {}
            status @ (Status::Running | Status::Paused | Status::Stopping) => {
                let name = name.to_string();
                return Err(Refusal::WrongState { name, status, wanted: "stopped" }.into());
            }
        }
        Ok(Step::Do(Box::new(self.begin_start(name, vec![(ticket, answer)], Started::ByRequest))))
    }

    /// The indexes of the interfaces that a request is about: the named one, or all.
    pub(super) fn nics_of(
        &self,
        record: &Record,
        nic: Option<usize>,
    ) -> Result<std::ops::Range<usize>, Refusal> {
        match nic {
            None => Ok(0..record.nics.len()),
            Some(nic) if nic < record.nics.len() => Ok(nic..nic + 1),
            Some(nic) => Err(self.no_nic(record, nic)),
        }
    }

    /// Changes interfaces of a VM, the named one or all, and the kernel with them.
    pub(super) fn change_nics(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        nic: Option<usize>,
        message: String,
        change: impl Fn(&mut Nic),
    ) -> Step {
        let vm = self.state.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        let nics = vm.edit().nics.iter_mut().enumerate();
        for (_, nic) in nics.filter(|(at, _)| nic.is_none_or(|nic| nic == *at)) {
            change(nic);
        }
        let vm = &self.state.vms[name];
        if vm.record == former.record {
            return Step::reply(Reply::Vm { vm: Box::new(self.show(vm)) });
        }
        let plan = self.exchange_plan(&former.record, &vm.record);
        Step::Do(Box::new(Decision {
            plan,
            answers: vec![(ticket, Answer::Shown)],
            events: vec![(EventKind::VmChanged, message)],
            ..Decision::of(vm, None, Write::Put, former)
        }))
    }
}

pub(super) fn no_machine() -> Refusal {
    let reason = "the VM was created without a hypervisor, so there is nothing to start".into();
    Refusal::InvalidConfig { field: "hypervisor".into(), reason }
}
