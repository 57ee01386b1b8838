//! A guest that stands still, and one that goes on.
//!
//! The order is written to the hypervisor's control socket, and nobody waits for the answer: the
//! process is then asked whether its guest runs, as in the start-up check, until it is as it should
//! be. So the caller is answered by what is, whoever has paused the guest or let it go on. What was
//! last said is the status of the VM. It is in no record: the next daemon asks again.

use crate::engine::decide::{Act, Answer, Decision, Engine, Step, Write};
use crate::engine::lifecycle::failed;
use crate::engine::supervise::{self, Life, Wish};
use crate::model::clock::Now;
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::record::Order;
use crate::model::request::Ticket;
use crate::model::view::EventKind;

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
                Answer::Failed(failed(name, reason, None))
            }
        };
        decision.answers = tickets.into_iter().map(|ticket| (ticket, answer.clone())).collect();
        Some(decision)
    }
}
