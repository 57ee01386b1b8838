//! A new VM: what it asks for is claimed, and the plan that makes its network.

use std::rc::Rc;

use crate::engine::decide::{Act, Answer, Decision, Engine, Step, Write, no_machine};
use crate::engine::ledger::{Conflict, HOST_OWNER};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::record::{Action, FORMAT, Record};
use crate::model::request::{Reply, Ticket};
use crate::model::spec::VmSpec;
use crate::model::view::EventKind;
use crate::plan::op::Plan;

impl Engine {
    /// Makes a VM, or shows the one that is there if it was made with the same arguments.
    pub(super) fn create(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        spec: &VmSpec,
        start: bool,
        dry_run: bool,
        now: Now,
    ) -> Result<Step, Error> {
        if self.state.vms.contains_key(name) {
            return self.create_again(ticket, name, spec, start, dry_run);
        }
        if start && spec.machine.is_none() {
            return Err(no_machine().into());
        }
        if dry_run {
            return self.try_create(name, spec, start, now);
        }
        let record = self.place(name, spec, start, now)?;
        let plan = self.attach_plan(&record);
        let commands = commands(&plan);
        let vm = Vm::idle(record);
        let record = Rc::clone(&vm.record);
        self.state.vms.insert(name.clone(), vm);
        let events = vec![(EventKind::VmCreated, format!("VM {name} was created"))];
        Ok(Step::Do(Box::new(Decision {
            subject: name.clone(),
            record,
            intent: start.then_some(Action::Create),
            plan,
            act: start.then_some(Act::Spawn),
            write: Write::Put,
            answers: vec![(ticket, Answer::created(commands, &[]))],
            events,
            former: None,
        })))
    }

    /// Somebody asks for a VM that is there.
    fn create_again(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        spec: &VmSpec,
        start: bool,
        dry_run: bool,
    ) -> Result<Step, Error> {
        let vm = self.vm(name)?;
        if vm.record.spec != *spec {
            return Err(Refusal::VmExists { name: name.to_string() }.into());
        }
        if !start || dry_run || vm.life.pid().is_some() {
            let vm = self.show(vm);
            if !dry_run {
                self.keep(name);
            }
            return Ok(Step::reply(Reply::created(vm, Vec::new())));
        }
        self.start(ticket, name, Answer::created(Vec::new(), &[]))
    }

    /// Shows what a create would get. It is what the next one gets, so the pool does not move on.
    fn try_create(
        &mut self,
        name: &VmName,
        spec: &VmSpec,
        start: bool,
        now: Now,
    ) -> Result<Step, Error> {
        let before = self.state.ledger.clone();
        let placed = self.place(name, spec, start, now);
        let shown = placed.map(|record| {
            let commands = commands(&self.attach_plan(&record));
            Reply::created(self.show(&Vm::idle(record)), commands)
        });
        self.state.ledger = before;
        Ok(Step::reply(shown?))
    }

    /// Claims all that a new VM asks for, or nothing.
    fn place(
        &mut self,
        name: &VmName,
        spec: &VmSpec,
        start: bool,
        now: Now,
    ) -> Result<Record, Refusal> {
        let (nics, cid) = self
            .state
            .ledger
            .claim(name, spec)
            .map_err(|(nic, conflict)| spec.refuse_network(nic, self.named(conflict)))?;
        let mut record = Record {
            format: FORMAT,
            name: name.clone(),
            spec: spec.clone(),
            nics,
            cid,
            user: None,
            created_at: now.wall,
            restarts: 0,
            started_at: None,
            kvm: None,
            exit: None,
            last_error: None,
            wanted: start,
            boot: self.host.boot,
        };
        let placed = self
            .claim_user(&mut record)
            .and_then(|()| self.place_ports(&mut record))
            .and_then(|()| self.check_wishes(&record));
        match placed {
            Ok(()) => Ok(record),
            Err(refusal) => {
                self.state.ledger.release(&record);
                Err(refusal)
            }
        }
    }

    /// Adds the owner's name to a conflict. The ledger knows only that something is taken, so the
    /// search is made when it is needed, not prepared for at every create.
    fn named(&self, conflict: Conflict) -> Refusal {
        let owner = |holds: &dyn Fn(&Record) -> bool| {
            let vm = self.state.vms.values().find(|vm| holds(&vm.record));
            vm.map_or(HOST_OWNER.to_string(), |vm| vm.record.name.to_string())
        };
        match conflict {
            Conflict::Refused(refusal) => refusal,
            Conflict::Ip(ip) => {
                let holds = |record: &Record| {
                    let held = |nic: &Nic| nic.ip.or(nic.lease.map(|lease| lease.ip));
                    let mut nics = record.interfaces();
                    nics.any(|(nic, spec)| held(nic) == Some(ip) || spec.addresses.contains(&ip))
                };
                Refusal::AddressInUse { ip: ip.into(), owner: owner(&holds) }
            }
            Conflict::Mac(mac) => {
                let holds = |record: &Record| record.nics.iter().any(|nic| nic.mac == mac);
                let reason = format!("{mac} belongs to {}", owner(&holds));
                Refusal::InvalidConfig { field: "network.mac".into(), reason }
            }
        }
    }
}

/// A plan as the commands that would do the same.
pub fn commands(plan: &Plan) -> Vec<String> {
    plan.iter().flat_map(|op| op.commands()).collect()
}
