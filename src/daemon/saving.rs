//! Snapshots: what is prepared before a thread takes one, and before a guest wakes from one.
//!
//! The engine knows that a snapshot is under way, and nothing of files. An intent on the disk says
//! so, too: if the daemon ends meanwhile, the next one removes the folder that is not whole, and
//! lets the guest go on.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::launch::Launcher;
use super::shell::Shell;
use crate::engine::decide::Step;
use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::process::Processes;
use crate::hypervisor::snapshot::{self, Taking, part_of};
use crate::model::clock::Now;
#[cfg(target_os = "linux")]
use crate::model::error::Refusal;
use crate::model::error::{Error, Failure};
use crate::model::name::VmName;
use crate::model::record::{Action, Intent, Order, Record};
use crate::model::request::{Change, Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

/// A snapshot for a thread to take.
#[derive(Debug)]
pub struct Save {
    /// Who asked for it.
    pub ticket: Ticket,
    /// What it is.
    pub taking: Taking,
    /// Set when nobody wants it any more.
    pub over: Arc<AtomicBool>,
}

/// A snapshot that a thread takes.
#[derive(Debug)]
pub(super) struct Saving {
    name: VmName,
    ticket: Ticket,
    over: Arc<AtomicBool>,
}

/// What is read before a request is handled.
#[derive(Debug)]
pub enum Preparation {
    /// Files, whose checksums are compared.
    Compare(Vec<Checksum>),
    /// A snapshot, from which the guest wakes.
    Wake(Box<Launcher>),
}

#[cfg(target_os = "linux")]
impl Preparation {
    /// Reads it, which takes time. Gives the request as it is now.
    pub(super) fn prepare(
        &self,
        request: Request,
        is_over: impl Fn() -> bool,
    ) -> Result<Request, Refusal> {
        match (self, request) {
            (Preparation::Compare(files), request) => {
                files.iter().try_for_each(|file| file.compare(&is_over))?;
                Ok(request)
            }
            (
                Preparation::Wake(launcher),
                Request::Change(Change::Create { name, spec, start, dry_run, notes }),
            ) => {
                let spec = Box::new(launcher.wake(&spec)?);
                Ok(Change::Create { name, spec, start, dry_run, notes }.into())
            }
            (Preparation::Wake(_), request) => Ok(request),
        }
    }
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// What has to be read before a request is handled: the caller does that, because it takes
    /// time. It asks again with the request as it is then.
    pub fn preparation(&mut self, request: &Request) -> Option<Preparation> {
        if let Request::Change(Change::Create { spec, .. }) = request {
            let machine = spec.machine.as_ref();
            if machine.is_some_and(|it| it.from.is_some() && it.hypervisor.is_none()) {
                return Some(Preparation::Wake(Box::new(self.launcher.clone())));
            }
        }
        let files = self.checksums(request);
        (!files.is_empty()).then_some(Preparation::Compare(files))
    }

    /// Takes the snapshots that are to be taken from now on.
    pub fn take_saves(&mut self) -> Vec<Save> {
        std::mem::take(&mut self.saves)
    }

    /// The request for a snapshot, which a thread is to take.
    pub(super) fn begin_saving(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        folder: &Path,
        now: Now,
    ) -> Result<Step, Error> {
        let record = Rc::clone(&self.engine.vm(name)?.record);
        self.launcher.refuse_unasked(&record, self.store.paths())?;
        let networks = self.engine.networks_of(&record);
        let mut taking = self.launcher.taking(&record, &networks, folder, self.store.paths())?;
        taking.stays_paused = self.engine.begin_snapshot(ticket, name)?;
        self.processes.hang_up(name);
        let action = Action::Snapshot { part: part_of(folder) };
        let intent = Intent { action, record: Record::clone(&record) };
        if let Err(failure) = self.store.put_intent(&intent) {
            self.snapshot_taken(name, ticket, Err(failure), now);
            return Ok(Step::Later);
        }
        let over = Arc::new(AtomicBool::new(false));
        self.saving.push(Saving { name: name.clone(), ticket, over: Arc::clone(&over) });
        self.saves.push(Save { ticket, taking, over });
        Ok(Step::Later)
    }

    /// A snapshot was taken, or could not be.
    pub fn snapshot_taken(
        &mut self,
        name: &VmName,
        ticket: Ticket,
        result: Result<(), Failure>,
        now: Now,
    ) {
        self.saving.retain(|saving| saving.ticket != ticket);
        if let Err(failure) = self.store.clear_intent(name) {
            log::warn!("{failure}");
        }
        if let Err(failure) = &result {
            log::warn!(vm:% = name; "no snapshot was taken: {failure}");
        }
        if let Some(decision) = self.engine.snapshot_ended(name, ticket, result, now) {
            self.carry_out(decision, now);
        }
        self.settle(now);
    }

    /// Calls snapshots off that the engine does not want any more: their VMs end.
    pub(super) fn call_off_snapshots(&self) {
        for Saving { name, ticket, over } in &self.saving {
            if !self.engine.is_saving(name, *ticket) {
                over.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The daemon before this one ended while it took a snapshot.
    pub(super) fn give_up_snapshot(&mut self, record: &Record, part: &Path) {
        snapshot::remove_part(part, self.launcher.user());
        let name = &record.name;
        if self.engine.vm(name).is_ok_and(|vm| vm.life.pid().is_some()) {
            let control = self.launcher.control(record, self.store.paths());
            let asked = control.and_then(|control| {
                Ok(self.processes.ask(name, &control, Order::GiveUpSnapshot)?)
            });
            if let Err(error) = asked {
                log::error!(vm:% = name; "it stands still: a snapshot was cut short: {error}");
            }
        }
    }
}
