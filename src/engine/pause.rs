//! A guest that stands still, and one that goes on.
//!
//! The order is written to the hypervisor's control socket, and nobody waits for the answer: the
//! process is then asked whether its guest runs, as in the start-up check, until it is as it should
//! be. So the caller is answered by what is, whoever has paused the guest or let it go on. What was
//! last said is the status of the VM. It is in no record: the next daemon asks again.
//!
//! A hypervisor may also say by itself that its guest stands still or goes on: somebody else has
//! told it to, or it has stopped the guest because a disk failed. Then the VM is paused, and its
//! last error says why. Both are told, but not without end: a hypervisor may lie.

use crate::engine::decide::{Act, Answer, Decision, Engine, Step, Write};
use crate::engine::lease::Bound;
use crate::engine::lifecycle::failed;
use crate::engine::saving;
use crate::engine::supervise::{self, Life, Waking, Wish};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Halt, Heard, Motion, Order};
use crate::model::request::Ticket;
use crate::model::spec::MachineSpec;
use crate::model::view::EventKind;

/// The limit for what hypervisors say by themselves. Each is an event and a line of the log.
const NEWS: Bound = Bound { at_once: 12, every_ms: 5_000 };

impl Engine {
    /// Pause and Resume.
    pub(super) fn pause(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        paused: bool,
        now: Now,
    ) -> Result<Step, Error> {
        let status = self.vm(name)?.status();
        let wanted = if paused { "running" } else { "paused" };
        let refused = Refusal::WrongState { name: name.to_string(), status, wanted };
        let vm = self.state.vms.get_mut(name).expect("it was looked up");
        let former = vm.clone();
        let Life::Running { check, pause, .. } = &mut vm.life else { return Err(refused.into()) };
        if check.as_ref().is_some_and(|check| !check.origin.was_told()) {
            return Err(refused.into());
        }
        let waits = check.as_ref().is_some_and(|check| check.has_guest_wait(pause.is_paused));
        if pause.saving.is_some() || waits {
            let name = name.to_string();
            return Err(Refusal::WrongState { name, status, wanted: saving::WANTED }.into());
        }
        if let Some(check) = check {
            // From now on it is as this request wants it.
            check.waking = Waking::No;
        }
        match &mut pause.wish {
            Some(wish) if wish.paused == paused => {
                wish.tickets.push(ticket);
                return Ok(Step::Later);
            }
            // The answer to the first would be taken for that to the second.
            Some(_) => return Err(refused.into()),
            None => {}
        }
        let (since, check_at) = (now.mono, now.mono + supervise::until_next_look(0));
        let (was_paused, tickets) = (pause.is_paused, vec![ticket]);
        pause.wish = Some(Wish { paused, was_paused, tickets, since, check_at });
        self.agenda.timed.insert(name.clone());
        let order = if paused { Order::Pause } else { Order::Resume };
        let act = Some(Act::Ask(order));
        Ok(Step::Do(Box::new(Decision::of(vm, act, Write::Nothing, former))))
    }

    /// The process was looked at. If its guest is as it was to be, or its time is over, who asked
    /// is answered. Until then it is looked at again.
    pub(super) fn looked_for_pause(&mut self, name: &VmName, now: Now) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        let Life::Running { pause, .. } = &mut vm.life else { return None };
        let is_paused = pause.is_paused;
        let wish = pause.wish.as_mut()?;
        let (paused, age) = (wish.paused, now.mono.saturating_sub(wish.since));
        if is_paused != paused && age < supervise::PAUSE_MAX_MS {
            wish.check_at = now.mono + supervise::until_next_look(age);
            return None;
        }
        let was_paused = wish.was_paused;
        let tickets = pause.wish.take().map(|wish| wish.tickets).unwrap_or_default();
        let mut decision = Decision::of(vm, None, Write::Nothing, vm.clone());
        let (kind, what) = match paused {
            true => (EventKind::VmPaused, "was paused"),
            false => (EventKind::VmResumed, "goes on"),
        };
        let answer = match is_paused == paused {
            true => {
                if was_paused != paused {
                    decision.events.push((kind, format!("VM {name} {what}")));
                }
                Answer::Shown
            }
            false => {
                let seconds = supervise::PAUSE_MAX_MS / 1000;
                let state = if paused { "is paused" } else { "goes on" };
                let reason = format!("it did not say within {seconds} s that its guest {state}");
                let reason = match decision.former.as_ref().and_then(Vm::halt) {
                    Some(halt) => format!("{reason}; {halt}"),
                    None => reason,
                };
                Answer::Failed(failed(name, reason, None))
            }
        };
        decision.answers = tickets.into_iter().map(|ticket| (ticket, answer.clone())).collect();
        Some(decision)
    }

    /// A hypervisor has said whether its guest goes on.
    pub fn moved(&mut self, name: &VmName, heard: Heard, now: Now) -> Option<Decision> {
        let motion = heard.motion?;
        let vm = self.state.vms.get_mut(name)?;
        let Life::Running { check, pause, .. } = &mut vm.life else { return None };
        if check.as_ref().is_some_and(|check| !check.origin.was_told()) {
            return None;
        }
        if pause.saving.is_some() {
            // It is stopped and goes on for that, which nobody else is told.
            pause.stops = heard.stops;
            return None;
        }
        let (was_paused, before) = (pause.is_paused, (pause.is_paused, pause.halt, pause.stops));
        pause.halt = match motion {
            Motion::Halted(halt) => Some(halt),
            Motion::Goes | Motion::Paused => None,
        };
        (pause.is_paused, pause.stops) = (motion != Motion::Goes, heard.stops);
        if before == (pause.is_paused, pause.halt, pause.stops) {
            return None;
        }
        let (is_halted, is_again) = (pause.halt.is_some(), before.2 != pause.stops);
        // An earlier daemon has told of a pause.
        let is_known = (was_paused == pause.is_paused || check.is_some()) && !is_halted;
        // Who wishes it tells of it, but not of a guest that has gone on and was stopped again.
        let tickets = match &pause.wish {
            Some(wish) if is_again && is_halted && !wish.paused => vm.life.give_up_wish(),
            Some(_) => return None,
            None => Vec::new(),
        };
        let Life::Running { pause, .. } = &mut vm.life else { return None };
        let is_told = !is_known && pause.told.allows(NEWS, now);
        if !is_told && tickets.is_empty() {
            return None;
        }
        let mut decision = Decision::of(vm, None, Write::Nothing, vm.clone());
        let (kind, what) = match (motion, vm.halt()) {
            (Motion::Goes, _) => (EventKind::VmResumed, format!("VM {name} goes on")),
            (_, Some(halt)) => (EventKind::VmPaused, format!("VM {name} stands still: {halt}")),
            (_, None) => (EventKind::VmPaused, format!("VM {name} was paused")),
        };
        let failure = failed(name, vm.halt().unwrap_or_default(), None);
        decision.answers =
            tickets.into_iter().map(|it| (it, Answer::Failed(failure.clone()))).collect();
        decision.events.extend(is_told.then_some((kind, what)));
        Some(decision)
    }
}

impl Vm {
    /// Why its hypervisor has stopped its guest by itself, if it has.
    pub fn halt(&self) -> Option<String> {
        self.halted().map(|halt| halt_in_words(halt, self.record.spec.machine.as_deref()))
    }

    /// Whether its guest stands still and cannot go on.
    pub fn is_broken(&self) -> bool {
        self.halted() == Some(Halt::Broken)
    }

    fn halted(&self) -> Option<Halt> {
        match &self.life {
            Life::Running { pause, .. } => pause.halt,
            Life::Idle | Life::Stopping { .. } | Life::Waiting { .. } => None,
        }
    }
}

/// Why a hypervisor has stopped its guest, and what mends it.
fn halt_in_words(halt: Halt, machine: Option<&MachineSpec>) -> String {
    let (index, full) = match halt {
        Halt::Disk { index, full } => (index, full),
        Halt::Broken => {
            return "its hypervisor cannot go on with its guest (internal-error): restart it"
                .into();
        }
        Halt::Watchdog => return "the watchdog of its guest has run out".into(),
    };
    let disk = index.and_then(|index| machine?.disks.get(index));
    let disk = disk.map_or("a disk".into(), |disk| disk.file.path.display().to_string());
    match full {
        true => format!("the host has no room for {disk}: make room, and resume it"),
        false => format!("{disk} cannot be read or written: mend that, and resume it"),
    }
}
