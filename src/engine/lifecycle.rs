//! Starts, stops, exits and deadlines.
//!
//! An exit is one decision (record how the process ended), and its consequence (start again,
//! delete) is another, so that each can fail by itself. A failed restart leaves a VM that has
//! ended, not one that is still stopping.

use std::rc::Rc;

use crate::engine::decide::{Act, Answer, Decision, Engine, Step, Write};
use crate::engine::supervise::{self, Escalation, Life, Origin, StartCheck, Stop, Waking, Want};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Action, Exit, GuestEnd, LAST_ERROR_BYTES_MAX, Order, Progress};
use crate::model::request::STOP_TIMEOUT_MS;
use crate::model::request::Ticket;
use crate::model::spec::RestartPolicy;
use crate::model::view::EventKind;

/// The next decision for a VM, after another one.
#[derive(Debug)]
pub(super) enum FollowUp {
    /// Start it again for these callers.
    Start { name: VmName, answers: Vec<(Ticket, Answer)> },
    /// Release everything.
    Delete { name: VmName, answers: Vec<(Ticket, Answer)> },
    /// This link of an attachment is gone: release the rest.
    Ended { name: VmName, link: Option<u32> },
    /// End it without asking the guest, and then release everything.
    KillAndDelete { name: VmName },
}

/// The reason for the start of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// A request, or autostart.
    ByRequest,
    /// The restart policy, after it had ended.
    ByPolicy,
}

impl Engine {
    /// The next decision that follows from earlier ones. Call it until there is none.
    pub fn follow_up(&mut self, now: Now) -> Option<Decision> {
        loop {
            if self.agenda.follow_ups.is_empty() && !self.agenda.teardown.is_empty() {
                // VMs that were made meanwhile are deleted, too.
                self.clear_out();
            }
            match self.next_follow_up()? {
                FollowUp::Start { name, answers } if self.state.vms.contains_key(&name) => {
                    let nobody_waits = answers.is_empty();
                    let mut decision = self.begin_start(&name, answers, Started::ByRequest);
                    if let Some(former) = decision.former.as_mut().filter(|_| nobody_waits) {
                        // If it fails, there is nobody to tell. Then the restart policy applies.
                        let policy = former.record.spec.restart;
                        let wait = supervise::restart_after(policy, Exit::Lost, former.in_a_row);
                        former.life = wait
                            .map_or(Life::Idle, |wait| Life::Waiting { until: now.mono + wait });
                    }
                    return Some(decision);
                }
                FollowUp::Delete { name, answers } if self.state.vms.contains_key(&name) => {
                    return Some(self.begin_delete(&name, answers));
                }
                FollowUp::KillAndDelete { name } if self.state.vms.contains_key(&name) => {
                    if let Step::Do(decision) = self.begin_stop(None, &name, 0, Want::Deleted, now)
                    {
                        return Some(*decision);
                    }
                }
                FollowUp::Ended { name, link } => {
                    if let Some(decision) = self.begin_end(&name, link) {
                        return Some(decision);
                    }
                }
                FollowUp::Start { .. }
                | FollowUp::Delete { .. }
                | FollowUp::KillAndDelete { .. } => {}
            }
        }
    }

    /// Teardown. It is refused while VMs exist. With force, they are deleted first.
    pub(super) fn teardown(
        &mut self,
        ticket: Ticket,
        dry_run: bool,
        force: bool,
    ) -> Result<Step, Error> {
        let count = self.state.vms.len();
        match (count, force) {
            (0, _) => return Ok(Step::Teardown { dry_run, force }),
            (_, false) => return Err(Refusal::VmsExist { count }.into()),
            (_, true) if dry_run => return Ok(Step::Teardown { dry_run, force }),
            (_, true) => {}
        }
        self.agenda.teardown.push(ticket);
        Ok(Step::Later)
    }

    /// Deletes every VM that is not being deleted already.
    fn clear_out(&mut self) {
        for (name, vm) in &self.state.vms {
            let name = name.clone();
            self.agenda.follow_ups.push_back(match &vm.life {
                Life::Stopping { stop, .. } if stop.wants(Want::Deleted) => continue,
                Life::Running { .. } | Life::Stopping { .. } => FollowUp::KillAndDelete { name },
                Life::Idle | Life::Waiting { .. } => FollowUp::Delete { name, answers: Vec::new() },
            });
        }
    }

    /// The callers that wait for a teardown, after the last VM is gone.
    pub fn teardown_due(&mut self) -> Option<Vec<Ticket>> {
        let due = !self.agenda.teardown.is_empty() && self.state.vms.is_empty();
        due.then(|| std::mem::take(&mut self.agenda.teardown))
    }

    /// The next moment of the monotonic clock at which [`Engine::due`], [`Engine::start_check`] or
    /// [`Engine::look`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let vms = self.agenda.timed.iter().filter_map(|name| self.state.vms.get(name));
        // Who waits for a place has it when another start has been looked at.
        let may_start = self.may_start();
        vms.filter(|vm| may_start || !matches!(vm.life, Life::Waiting { .. }))
            .filter_map(|vm| vm.life.deadline())
            .chain(self.agenda.watch.deadline())
            .chain(self.agenda.advertisements.deadline())
            .chain(self.known.probes.deadline())
            .chain(self.unused_deadline())
            .min()
    }

    /// A decision that is due. Call it until there is none.
    pub fn due(&mut self, now: Now) -> Option<Decision> {
        let may_start = self.may_start();
        let vms = &self.state.vms;
        let deadline = |name: &VmName| vms.get(name).and_then(|vm| vm.life.deadline());
        self.agenda.timed.retain(|name| deadline(name).is_some());
        let due = |name: &&VmName| {
            deadline(name).is_some_and(|at| at <= now.mono)
                && match vms[*name].life {
                    Life::Running { .. } => false,
                    Life::Waiting { .. } => may_start,
                    Life::Idle | Life::Stopping { .. } => true,
                }
        };
        let name = self.agenda.timed.iter().find(due)?.clone();
        let vm = self.state.vms.get_mut(&name)?;
        let mut former = vm.clone();
        if let Life::Stopping { stop, .. } = &mut former.life {
            stop.put_off(now.mono);
        }
        match &mut vm.life {
            Life::Stopping { stop, .. } => {
                let act = match stop.escalate(now.mono)? {
                    Escalation::Terminate => Act::Terminate,
                    Escalation::Kill => Act::Kill,
                };
                Some(Decision::of(vm, Some(act), Write::Nothing, former))
            }
            Life::Waiting { .. } => {
                vm.edit().restarts += 1;
                vm.in_a_row += 1;
                // A failed restart counts as an exit: the restart policy applies again.
                let policy = vm.record.spec.restart;
                let wait = supervise::restart_after(policy, Exit::Lost, vm.in_a_row);
                vm.life = wait.map_or(Life::Idle, |wait| Life::Waiting { until: now.mono + wait });
                Some(self.begin_start(&name, Vec::new(), Started::ByPolicy))
            }
            Life::Idle | Life::Running { .. } => None,
        }
    }

    /// Delays the answers to a start until the end of the start-up check.
    pub(super) fn begin_check(
        &mut self,
        name: &VmName,
        answers: Vec<(Ticket, Answer)>,
        origin: Origin,
        now: Now,
    ) {
        if let Some(Life::Running { check, .. }) =
            self.state.vms.get_mut(name).map(|vm| &mut vm.life)
        {
            let check_at = now.mono + supervise::until_next_look(0);
            let (has_place, waking) = (!origin.was_told(), Waking::No);
            let (since, late) = (now.mono, false);
            *check = Some(StartCheck { answers, origin, since, check_at, late, has_place, waking });
            self.agenda.timed.insert(name.clone());
        }
    }

    /// Another caller wants a VM to run that is starting. False if it is not starting.
    pub(super) fn join_check(&mut self, name: &VmName, ticket: Ticket, answer: Answer) -> bool {
        self.keep(name);
        match self.state.vms.get_mut(name).map(|vm| &mut vm.life) {
            // One that was adopted runs, as far as anybody was told.
            Some(Life::Running { check: Some(check), .. }) if !check.origin.was_told() => {
                check.answers.push((ticket, answer));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Another caller was told that the VM exists. So it stays even if its process fails the
    /// start-up check.
    pub(super) fn keep(&mut self, name: &VmName) {
        if let Some(Life::Running { check: Some(check), .. }) =
            self.state.vms.get_mut(name).map(|vm| &mut vm.life)
        {
            if check.origin == Origin::Made {
                check.origin = Origin::Started;
            }
        }
    }

    /// A VM whose process should be looked at now: in its start-up check, or because its guest is
    /// to be paused or to go on. Call it until there is none.
    pub fn start_check(&self, now: Now) -> Option<VmName> {
        let due = |name: &&VmName| {
            let life = self.state.vms.get(*name).map(|vm| &vm.life);
            life.is_some_and(|life| {
                matches!(life, Life::Running { .. })
                    && life.deadline().is_some_and(|at| at <= now.mono)
            })
        };
        self.agenda.timed.iter().find(due).cloned()
    }

    /// The process was checked. If its guest runs, its callers are answered. If its time is over,
    /// it is killed, and its callers are answered at its end. Until then it is checked again.
    pub fn looked_at(&mut self, name: &VmName, progress: Progress, now: Now) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        let Life::Running { check: slot, pause, .. } = &mut vm.life else { return None };
        match progress {
            Progress::Running => (pause.is_paused, pause.halt) = (false, None),
            Progress::Paused => pause.is_paused = true,
            Progress::Starting | Progress::Untold => {}
        }
        let Some(check) = slot.as_mut() else { return self.looked_for_pause(name, now) };
        let age = now.mono.saturating_sub(check.since);
        let in_time = age < check.most_ms();
        if progress == Progress::Paused && !check.late {
            match check.waking {
                Waking::Asleep => return Some(self.call(name, Waking::Called, age, now)),
                // It may still write what nobody wants any more.
                Waking::CutShort if in_time => {
                    return Some(self.call(name, Waking::CutShort, age, now));
                }
                Waking::No | Waking::Called | Waking::CutShort => {}
            }
        }
        let passes = match progress {
            Progress::Running => !check.late,
            Progress::Paused => {
                !check.late && matches!(check.waking, Waking::No | Waking::CutShort)
            }
            Progress::Untold => age >= supervise::UNTOLD_MS,
            Progress::Starting => !in_time && check.origin.was_told(),
        };
        if passes {
            let (origin, answers) = (check.origin, std::mem::take(&mut check.answers));
            *slot = None;
            let mut decision = Decision::of(vm, None, Write::Nothing, vm.clone());
            if origin == Origin::Known {
                return None;
            }
            decision.answers = answers;
            let how = match vm.record.restarts {
                0 => "started",
                _ => "started again by its restart policy",
            };
            decision.events.push((EventKind::VmStarted, format!("VM {name} was {how}")));
            return Some(decision);
        }
        check.check_at = now.mono + supervise::until_next_look(age);
        check.has_place &= age < self.host.place_ms;
        if in_time {
            return None;
        }
        (check.late, check.check_at) = (true, now.mono + supervise::SIGNAL_RETRY_MS);
        Some(Decision::of(vm, Some(Act::Kill), Write::Nothing, vm.clone()))
    }

    /// A guest stands still for a snapshot: it is told to go on, and waits as `next` from then on.
    /// If that fails, it is tried again.
    fn call(&mut self, name: &VmName, next: Waking, age: u64, now: Now) -> Decision {
        let vm = self.state.vms.get_mut(name).expect("looked up by the caller");
        if let Life::Running { check: Some(check), .. } = &mut vm.life {
            check.check_at = now.mono + supervise::until_next_look(age);
        }
        let former = vm.clone();
        if let Life::Running { check: Some(check), .. } = &mut vm.life {
            check.waking = next;
        }
        let order = match next {
            Waking::CutShort => Order::GiveUpSnapshot,
            Waking::No | Waking::Asleep | Waking::Called => Order::Resume,
        };
        Decision::of(vm, Some(Act::Ask(order)), Write::Nothing, former)
    }

    /// The process of a VM has ended. `log` is the end of its log.
    pub fn exited(
        &mut self,
        name: &VmName,
        exit: Exit,
        log: Option<String>,
        now: Now,
    ) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        let mut life = std::mem::take(&mut vm.life);
        let wishes = life.give_up_wish();
        // We ended it only to restart it. Record `Lost`, so that the restart policy still applies
        // if the daemon dies before the restart.
        let made = matches!(&life, Life::Stopping { stop, .. } if stop.is_nobodys());
        let exit = match &life {
            Life::Stopping { stop, .. } if stop.is_the_guests() && exit != Exit::Panicked => {
                Exit::Code(0)
            }
            _ => exit,
        };
        let reason = reason(&life, exit);
        let record = vm.edit();
        if life.has_never_woken() {
            // Its disks are as they were saved, so the next start wakes it.
            (record.started_at, record.kvm) = (None, None);
        }
        record.exit = Some(if made { Exit::Lost } else { exit });
        record.last_error = reason.as_ref().map(|reason| last_error(reason, log.as_deref()));
        if matches!(life, Life::Running { since, .. } if supervise::is_steady(since, now.mono)) {
            vm.in_a_row = 0;
        }
        let mut decision = Decision::of(vm, None, Write::Put, vm.clone());
        let mut message = match &vm.record.last_error {
            Some(error) => format!("VM {name}: {error}"),
            None => format!("VM {name} {exit}"),
        };
        match life {
            Life::Stopping { stop, .. } if !stop.is_the_guests() => {
                self.ended_on_request(&mut decision, stop);
            }
            Life::Running { check: Some(check), .. } if !check.answers.is_empty() => {
                self.start_failed(&mut decision, check, reason.unwrap_or_default(), log);
            }
            Life::Running { .. } | Life::Stopping { .. } | Life::Idle | Life::Waiting { .. } => {
                let policy = vm.record.spec.restart;
                let again = supervise::restart_after(policy, exit, vm.in_a_row);
                if let Some(wait) = again.filter(|_| vm.stranded.is_none()) {
                    vm.life = Life::Waiting { until: now.mono + wait };
                    self.agenda.timed.insert(name.clone());
                    message =
                        format!("{message}; it is started again in {} s", wait.div_ceil(1000));
                }
                decision.former = Some(vm.clone());
            }
        }
        let failure = failed(name, "it has ended".into(), None);
        decision.answers.extend(wishes.into_iter().map(|it| (it, Answer::Failed(failure.clone()))));
        decision.events.push((EventKind::VmExited, message));
        Some(decision)
    }

    /// The guest has reset itself or panicked, and its hypervisor goes on: it boots the guest
    /// again, or the guest hangs. The hypervisor is ended, so that the end of a guest means the
    /// same under each hypervisor, and the restart policy decides. One whose guest is off ends by
    /// itself, and is ended if it does not. During the start-up check nothing is done: the shell
    /// asks again after it.
    pub fn guest_ended(&mut self, name: &VmName, end: GuestEnd, now: Now) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        let former = vm.clone();
        let Life::Running { pid, since, check: None, .. } = vm.life else { return None };
        let wishes = vm.life.give_up_wish();
        if supervise::is_steady(since, now.mono) {
            vm.in_a_row = 0;
        }
        let (stop, act) = match end.over {
            true => (Stop::after_guest(now.mono), Some(Act::Terminate)),
            false => (Stop::after_power_off(now.mono), None),
        };
        vm.life = Life::Stopping { pid, stop };
        self.agenda.timed.insert(name.clone());
        let mut decision = Decision::of(vm, act, Write::Nothing, former);
        let failure = failed(name, "its guest has ended".into(), None);
        decision.answers =
            wishes.into_iter().map(|it| (it, Answer::Failed(failure.clone()))).collect();
        if end.over {
            let what = if end.panicked { "has panicked" } else { "has reset itself" };
            let message = format!("the guest of VM {name} {what}: its hypervisor is ended");
            decision.events.push((EventKind::VmStopping, message));
        }
        Some(decision)
    }

    /// The VM's tap was made anew. If its hypervisor runs, its open tap is dead. Only a restart
    /// mends that, if the restart policy allows it.
    pub fn tap_lost(&mut self, name: &VmName, now: Now) -> Option<Decision> {
        let vm = self.state.vms.get(name)?;
        if !matches!(vm.life, Life::Running { .. }) {
            return None;
        }
        let lost = format!("the hypervisor of VM {name} has lost its tap");
        if vm.record.spec.restart == RestartPolicy::No {
            let mut decision = Decision::of(vm, None, Write::Nothing, vm.clone());
            let hint = format!("{lost}; its guest has no network until it is restarted");
            decision.events.push((EventKind::Drift, hint));
            return Some(decision);
        }
        let stop = self.begin_stop(None, name, STOP_TIMEOUT_MS, Want::Restarted, now);
        let events = vec![(EventKind::VmStopping, format!("{lost}: it is restarted"))];
        stop.decision().map(|decision| Decision { events, ..decision })
    }

    /// Stop, Restart and Delete. All end the process first, if there is one.
    pub(super) fn stop(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        timeout_ms: u64,
        want: Want,
        now: Now,
    ) -> Result<Step, Error> {
        if want == Want::Restarted {
            self.placed_vm(name)?;
        }
        let vm = self.vm(name)?;
        match vm.life {
            Life::Running { .. } | Life::Stopping { .. } => {
                Ok(self.begin_stop(Some(ticket), name, timeout_ms, want, now))
            }
            Life::Idle | Life::Waiting { .. } => self.stop_idle(ticket, name, want),
        }
    }

    /// The decision for a VM without a process: there is nothing to end, but perhaps a restart to
    /// cancel.
    fn stop_idle(&mut self, ticket: Ticket, name: &VmName, want: Want) -> Result<Step, Error> {
        let vm = self.vm(name)?;
        let decision = match want {
            Want::Deleted => self.begin_delete(name, vec![(ticket, Answer::Deleted)]),
            Want::Restarted if vm.record.spec.machine.is_some() => {
                // Not before those who wait already.
                let answers = vec![(ticket, Answer::Shown)];
                self.agenda.follow_ups.push_back(FollowUp::Start { name: name.clone(), answers });
                return Ok(Step::Later);
            }
            Want::Stopped if vm.life != Life::Idle || self.is_to_start(name) => {
                self.call_off(ticket, name)
            }
            Want::Stopped | Want::Restarted => {
                let (name, status) = (name.to_string(), vm.status());
                return Err(Refusal::WrongState { name, status, wanted: "running" }.into());
            }
        };
        Ok(Step::Do(Box::new(decision)))
    }

    /// A VM that waits for its restart is stopped: it keeps its last exit.
    fn call_off(&mut self, ticket: Ticket, name: &VmName) -> Decision {
        let started = failed(name, "it was told to end before its guest ran".into(), None);
        let starts = self.take_start(name);
        let vm = self.state.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        vm.life = Life::Idle;
        vm.edit().wanted = false;
        let mut decision = Decision::of(vm, None, Write::Put, former);
        decision.answers =
            starts.into_iter().map(|(it, _)| (it, Answer::Failed(started.clone()))).collect();
        decision.answers.push((ticket, Answer::Shown));
        decision
    }

    pub(super) fn begin_stop(
        &mut self,
        ticket: Option<Ticket>,
        name: &VmName,
        timeout_ms: u64,
        want: Want,
        now: Now,
    ) -> Step {
        let vm = self.state.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        let mut wish = Stop::new(now.mono, timeout_ms);
        wish.waiters.push((ticket, want));
        vm.edit().wanted = want == Want::Restarted;
        match &mut vm.life {
            Life::Stopping { stop, .. } => {
                if want == Want::Stopped {
                    // A stop by a user cancels a restart that volnet itself wanted.
                    stop.waiters.retain(|waiter| *waiter != (None, Want::Restarted));
                }
                stop.waiters.append(&mut wish.waiters);
                stop.hasten(wish);
                Step::Later
            }
            life @ (Life::Running { .. } | Life::Idle | Life::Waiting { .. }) => {
                let pid = life.pid().unwrap_or_default();
                wish.asleep = life.has_never_woken();
                let wishes = life.give_up_wish();
                let (callers, order) = match std::mem::take(life) {
                    Life::Running { check, pause, .. } => {
                        let callers = check.map(|check| check.answers).unwrap_or_default();
                        let is_paused = pause.is_paused;
                        let order =
                            if is_paused { Order::WakeAndPowerOff } else { Order::PowerOff };
                        (callers, order)
                    }
                    Life::Idle | Life::Waiting { .. } | Life::Stopping { .. } => {
                        (Vec::new(), Order::PowerOff)
                    }
                };
                // That one is told to go on first.
                wish.asleep &= timeout_ms == 0 || order != Order::WakeAndPowerOff;
                *life = Life::Stopping { pid, stop: wish };
                self.agenda.timed.insert(name.clone());
                let act = if timeout_ms == 0 { None } else { Some(Act::Ask(order)) };
                // Nothing is written: if the daemon ends now, the request ends with it, unanswered.
                let mut decision = Decision::of(vm, act, Write::Nothing, former);
                let started = failed(name, "it was told to end before its guest ran".into(), None);
                let wished = failed(name, "it was told to end".into(), None);
                let starts =
                    callers.into_iter().map(|(it, _)| (it, Answer::Failed(started.clone())));
                let wishes = wishes.into_iter().map(|it| (it, Answer::Failed(wished.clone())));
                decision.answers = starts.chain(wishes).collect();
                decision.events.push((EventKind::VmStopping, format!("VM {name} is stopping")));
                Step::Do(Box::new(decision))
            }
        }
    }

    /// A decision that starts the VM's process. Its port exists already.
    pub(super) fn begin_start(
        &mut self,
        name: &VmName,
        mut answers: Vec<(Ticket, Answer)>,
        started: Started,
    ) -> Decision {
        answers.append(&mut self.take_start(name));
        let vm = self.state.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        if started == Started::ByRequest {
            vm.edit().restarts = 0;
            vm.in_a_row = 0;
        }
        let record = vm.edit();
        record.wanted = true;
        (record.exit, record.last_error) = (None, None);
        vm.life = Life::Idle;
        Decision {
            intent: Some(Action::Start),
            answers,
            ..Decision::of(vm, Some(Act::Spawn), Write::Put, former)
        }
    }

    pub(super) fn begin_delete(
        &mut self,
        name: &VmName,
        mut answers: Vec<(Ticket, Answer)>,
    ) -> Decision {
        answers.extend(self.take_start(name).into_iter().map(|(it, _)| (it, Answer::NotFound)));
        let vm = &self.state.vms[name];
        Decision {
            plan: self.release_plan(vm),
            answers,
            events: vec![(EventKind::VmDeleted, format!("VM {name} was deleted"))],
            ..Decision::of(vm, None, Write::Remove, vm.clone())
        }
    }

    /// The callers that started it get the error. If the same request made the VM, it is deleted.
    fn start_failed(
        &mut self,
        decision: &mut Decision,
        check: StartCheck,
        reason: String,
        log: Option<String>,
    ) {
        let name = decision.subject.clone();
        let failure = failed(&name, reason, log);
        for (ticket, _) in check.answers {
            decision.answers.push((ticket, Answer::Failed(failure.clone())));
        }
        if check.origin == Origin::Made {
            self.agenda.follow_ups.push_back(FollowUp::Delete { name, answers: Vec::new() });
        }
    }

    /// The callers that waited for the end are answered now, or by the next decision.
    fn ended_on_request(&mut self, decision: &mut Decision, stop: Stop) {
        let want = stop.waiters.iter().map(|(_, want)| *want).max();
        let name = decision.subject.clone();
        let mut follow = Vec::new();
        for (ticket, wanted) in stop.waiters {
            let Some(ticket) = ticket else { continue };
            match (wanted, want) {
                (Want::Stopped, _) => decision.answers.push((ticket, Answer::Shown)),
                (Want::Restarted, Some(Want::Deleted)) => follow.push((ticket, Answer::NotFound)),
                (Want::Restarted, _) => follow.push((ticket, Answer::Shown)),
                (Want::Deleted, _) => follow.push((ticket, Answer::Deleted)),
            }
        }
        match want {
            Some(Want::Deleted) => {
                self.agenda.follow_ups.push_back(FollowUp::Delete { name, answers: follow });
            }
            Some(Want::Restarted) => {
                self.agenda.follow_ups.push_back(FollowUp::Start { name, answers: follow });
            }
            Some(Want::Stopped) | None => {}
        }
    }
}

/// A failure of a VM's hypervisor.
pub(super) fn failed(name: &VmName, reason: String, log: Option<String>) -> Failure {
    Failure::Hypervisor { name: name.to_string(), reason, log }
}

/// Why a process ended that was to run, as a sentence about it. `None` if that is no fault.
fn reason(life: &Life, exit: Exit) -> Option<String> {
    match life {
        Life::Running { check: Some(check), .. } if check.late => {
            let seconds = check.most_ms() / 1000;
            Some(format!("it did not say within {seconds} s that its guest runs, and was killed"))
        }
        Life::Running { check: Some(_), .. } if exit != Exit::Panicked => {
            Some(format!("it {exit} before its guest ran"))
        }
        Life::Running { .. } | Life::Idle | Life::Waiting { .. } => {
            (exit != Exit::Code(0)).then(|| format!("it {exit}"))
        }
        Life::Stopping { stop, .. } if stop.is_the_guests() => {
            (exit != Exit::Code(0)).then(|| format!("it {exit}"))
        }
        Life::Stopping { .. } => None,
    }
}

/// A reason with the end of the hypervisor's log, cut to its bound.
pub(super) fn last_error(reason: &str, log: Option<&str>) -> Box<str> {
    let text = match log {
        Some(log) => format!("{reason}: {log}"),
        None => reason.into(),
    };
    let end =
        (0..=text.len().min(LAST_ERROR_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or_default()].into()
}

impl Decision {
    /// A decision that changes only the process and the record.
    pub(super) fn of(vm: &Vm, act: Option<Act>, write: Write, former: Vm) -> Decision {
        Decision {
            subject: vm.record.name.clone(),
            record: Rc::clone(&vm.record),
            intent: None,
            plan: Vec::new(),
            act,
            write,
            answers: Vec::new(),
            events: Vec::new(),
            former: Some(former),
        }
    }
}
