//! Snapshots of guests.
//!
//! To save the memory of a guest takes seconds. So a thread does it, and the engine knows only that
//! it goes on: the guest counts as paused, and is neither paused, resumed nor saved otherwise. A
//! stop, a delete and the end of the process win: who asked for the snapshot is told, and the shell
//! sees that the engine knows of it no more, and calls the thread off.
//!
//! A guest also stands still when it wakes from a snapshot, and when the daemon ended while it was
//! saved. The start-up check of its process has it go on.

use crate::engine::decide::{Answer, Decision, Engine, Write};
use crate::engine::supervise::{Life, Origin, Saving, Waking};
use crate::model::clock::Now;
use crate::model::error::{Failure, Refusal};
use crate::model::name::VmName;
use crate::model::request::Ticket;
use crate::model::view::EventKind;

/// What a VM is to be for a request that waits for no snapshot.
pub(super) const WANTED: &str = "done with its snapshot";

impl Engine {
    /// A snapshot of a guest begins. Gives whether the guest is paused, and stays so.
    pub fn begin_snapshot(&mut self, ticket: Ticket, name: &VmName) -> Result<bool, Refusal> {
        let status = self.vm(name)?.status();
        let refused = |wanted| Err(Refusal::WrongState { name: name.to_string(), status, wanted });
        let vm = self.state.vms.get_mut(name).expect("it was looked up");
        let Life::Running { check, pause, .. } = &mut vm.life else { return refused("running") };
        if check.as_ref().is_some_and(|check| !check.origin.was_told()) || pause.wish.is_some() {
            return refused("running");
        }
        let waits = check.as_ref().is_some_and(|check| check.has_guest_wait(pause.is_paused));
        if pause.saving.is_some() || waits {
            return refused(WANTED);
        }
        // What it would ask is what the snapshot asks of its control socket.
        *check = None;
        let was_paused = pause.is_paused;
        pause.saving = Some(Saving { ticket, was_paused });
        pause.is_paused = true;
        Ok(was_paused)
    }

    /// Whether this snapshot is still wanted.
    pub fn is_saving(&self, name: &VmName, ticket: Ticket) -> bool {
        let life = self.state.vms.get(name).map(|vm| &vm.life);
        life.and_then(Life::saving).is_some_and(|saving| saving.ticket == ticket)
    }

    /// A snapshot was taken, or could not be. `None`: nobody waits for it any more. The hypervisor
    /// is asked whether its guest goes on.
    pub fn snapshot_ended(
        &mut self,
        name: &VmName,
        ticket: Ticket,
        result: Result<(), Failure>,
        now: Now,
    ) -> Option<Decision> {
        if !self.is_saving(name, ticket) {
            return None;
        }
        let Life::Running { pause, .. } = &mut self.state.vms.get_mut(name)?.life else {
            return None;
        };
        let saving = pause.saving.take()?;
        pause.is_paused = saving.was_paused;
        self.begin_check(name, Vec::new(), Origin::Known, now);
        if result.is_err() && !saving.was_paused {
            // Nobody may have seen it go on.
            self.await_waking(name, Waking::CutShort);
        }
        let vm = &self.state.vms[name];
        let mut decision = Decision::of(vm, None, Write::Nothing, vm.clone());
        let answer = match result {
            Ok(()) => {
                let message = format!("a snapshot of VM {name} was taken");
                decision.events.push((EventKind::VmSaved, message));
                Answer::Shown
            }
            Err(failure) => Answer::Failed(failure),
        };
        decision.answers.push((ticket, answer));
        Some(decision)
    }

    /// The guest of a process in its start-up check stands still for this. False if none does.
    pub fn await_waking(&mut self, name: &VmName, waking: Waking) -> bool {
        match self.state.vms.get_mut(name).map(|vm| &mut vm.life) {
            Some(Life::Running { check: Some(check), .. }) => {
                check.waking = waking;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The last daemon ended while the guest of this process was saved. It counts as paused until
    /// it goes on, as it did then. False if there is no such process.
    pub fn was_cut_short(&mut self, name: &VmName) -> bool {
        let waits = self.await_waking(name, Waking::CutShort);
        if let Some(Life::Running { pause, .. }) =
            self.state.vms.get_mut(name).map(|vm| &mut vm.life)
        {
            pause.is_paused |= waits;
        }
        waits
    }

    /// Whether a guest that stood still is still to be told to go on, has not done so, or is ended
    /// before.
    pub fn is_waking(&self, name: &VmName) -> bool {
        match self.state.vms.get(name).map(|vm| &vm.life) {
            Some(Life::Running { check, .. }) => {
                check.as_ref().is_some_and(|check| check.waking != Waking::No)
            }
            // If the daemon ends meanwhile, the next one does not know of the stop.
            Some(Life::Stopping { .. }) => true,
            Some(Life::Idle | Life::Waiting { .. }) | None => false,
        }
    }
}
