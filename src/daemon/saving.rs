//! Snapshots: what is prepared before a thread takes one, and before a guest wakes from one.
//!
//! The engine knows that a snapshot is under way, and nothing of files. An intent on the disk says
//! so, too: if the daemon ends meanwhile, the next one removes the folder that is not whole, and
//! lets the guest go on.

use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::launch::Launcher;
use super::shell::Shell;
use crate::engine::decide::Step;
use crate::engine::supervise::Waking;
use crate::hypervisor::inputs::Checksum;
#[cfg(target_os = "linux")]
use crate::hypervisor::own_disks::OwnDisks;
use crate::hypervisor::own_disks::{self, Copying};
use crate::hypervisor::process::Processes;
use crate::hypervisor::snapshot::{Taking, part_of};
use crate::model::clock::Now;
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
    /// The disks of the snapshot, which the guest gets copies of.
    Copy(Box<Copying>),
}

/// A request that was prepared.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Prepared {
    /// The request as it is now.
    pub(super) request: Request,
    /// The disks that were made for it.
    pub(super) disks: Option<OwnDisks>,
}

#[cfg(target_os = "linux")]
impl Preparation {
    /// Does it, which takes time.
    pub(super) fn prepare(
        &self,
        mut request: Request,
        is_over: impl Fn() -> bool,
    ) -> Result<Prepared, Error> {
        let mut made = None;
        match (self, &mut request) {
            (Preparation::Compare(files), _) => {
                files.iter().try_for_each(|file| file.compare(&is_over))?;
            }
            (Preparation::Wake(launcher), Request::Change(Change::Create { spec, .. })) => {
                **spec = launcher.wake(spec)?;
            }
            (Preparation::Copy(copying), Request::Change(Change::Create { spec, .. })) => {
                let (disks, files) = copying.copy(&is_over)?;
                made = Some(disks);
                let machine = spec.machine.as_deref_mut();
                let copied = machine.into_iter().flat_map(own_disks::uncopied);
                copied.zip(files).for_each(|(disk, file)| disk.file.path = file);
            }
            (Preparation::Wake(_) | Preparation::Copy(_), _) => {}
        }
        Ok(Prepared { request, disks: made })
    }
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// What has to be done before a request is handled: the caller does that, because it takes
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

    /// The disks that a new VM is to have copies of, if it names none of its own. One that exists
    /// has its own: the request names them from now on.
    #[cfg(target_os = "linux")]
    pub(super) fn copies(&self, request: &mut Request) -> Option<Preparation> {
        let Request::Change(Change::Create { name, spec, dry_run, .. }) = request else {
            return None;
        };
        match self.engine.vm(name) {
            Err(_) if *dry_run => None,
            Err(_) => {
                let copying = self.launcher.copying(name, spec)?;
                Some(Preparation::Copy(Box::new(copying)))
            }
            Ok(vm) => {
                let folder = self.launcher.own_disks(&vm.record)?;
                for disk in own_disks::uncopied(spec.machine.as_deref_mut()?) {
                    disk.file.path = folder.join(disk.file.path.file_name().unwrap_or_default());
                }
                None
            }
        }
    }

    /// Whether a VM has these disks.
    #[cfg(target_os = "linux")]
    pub(super) fn has_disks(&self, folder: &Path) -> bool {
        let vm = own_disks::is_folder_of(folder).and_then(|name| self.engine.vm(&name).ok());
        vm.is_some_and(|vm| self.launcher.own_disks(&vm.record) == Some(folder))
    }

    /// Removes the disks that volnet has made for a VM that is gone.
    pub(super) fn remove_disks(&self, record: &Record) {
        if let Some(folder) = self.launcher.own_disks(record) {
            own_disks::remove(folder.into());
        }
    }

    /// Removes disks that were made for VMs and that no VM has: the daemon before this one ended
    /// while it made them, or the host has rebooted. Those of a VM whose record cannot be read
    /// stay, and all if the state directory is in doubt.
    #[cfg(target_os = "linux")]
    pub(super) fn sweep_disks(&mut self) {
        if self.state.doubt().is_some() {
            return;
        }
        let records = self.engine.vms().filter_map(|vm| self.launcher.own_disks(&vm.record));
        let kept: Vec<PathBuf> = records.map(Path::to_path_buf).collect();
        let aside = self.store.set_aside();
        let belongs = |name: &VmName| {
            let record = format!("{name}.json.");
            let is_of = |path: &PathBuf| {
                path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&record))
            };
            self.strays.contains_key(name) || aside.iter().any(is_of)
        };
        own_disks::sweep(self.launcher.disks(), &kept, belongs);
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
        let (part, stays_paused) = (part_of(folder), taking.stays_paused);
        let action = Action::Snapshot { part, stays_paused };
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
        // If it failed, nobody may have seen the guest go on.
        self.await_guest(name.clone());
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

    /// What an earlier daemon began and did not end may have left a guest that stands still, and is
    /// to go on: one that wakes, or one that was being saved. False if there is none.
    pub(super) fn has_guest_go_on(&mut self, Intent { action, record }: &Intent) -> bool {
        let name = &record.name;
        match action {
            Action::Create | Action::Start => {
                record.wakes_from().is_some() && self.engine.await_waking(name, Waking::Asleep)
            }
            Action::Snapshot { part, stays_paused } => {
                self.processes.remove_part(part);
                // If it stays paused, its hypervisor writes the rest to a file that is gone.
                let goes_on = !stays_paused && self.engine.was_cut_short(name);
                if goes_on {
                    self.give_up_snapshot(record);
                }
                goes_on
            }
        }
    }

    /// Whatever the hypervisor is about to do for the snapshot, it lets its guest go on after that.
    /// If it is not heard now, or refuses it, it is asked again.
    fn give_up_snapshot(&mut self, record: &Record) {
        let name = &record.name;
        let control = self.launcher.control(record, self.store.paths());
        let asked = control
            .and_then(|control| Ok(self.processes.ask(name, &control, Order::GiveUpSnapshot)?));
        if let Err(error) = asked {
            log::warn!(vm:% = name; "it stands still: a snapshot was cut short: {error}");
        }
    }

    /// A guest that stands still until it is told to go on. Its intent says so until it does.
    pub(super) fn await_guest(&mut self, name: VmName) {
        self.waking.push(name);
    }

    /// Removes the intents of guests that go on, or have ended.
    pub(super) fn end_waking(&mut self) {
        for name in std::mem::take(&mut self.waking) {
            if self.engine.is_waking(&name) {
                self.waking.push(name);
            } else if !self.saving.iter().any(|saving| saving.name == name) {
                if let Err(failure) = self.store.clear_intent(&name) {
                    log::warn!("{failure}");
                }
            }
        }
    }
}
