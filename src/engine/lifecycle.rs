//! Starts, stops, exits and deadlines.
//!
//! An exit is one decision (write down how it ended), and what follows from it (start again,
//! delete) is another, so that each can fail on its own: a restart that fails leaves a VM that has
//! ended, not one that is still stopping.

use crate::engine::decide::{Act, Answer, Answers, Decision, Engine, Step, Write};
use crate::engine::supervise::{self, Escalation, Hatching, Life, Stop, Want};
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::VmName;
use crate::model::record::{Action, Exit};
use crate::model::request::STOP_TIMEOUT_MS;
use crate::model::request::Ticket;
use crate::model::spec::RestartPolicy;
use crate::model::view::EventKind;

/// What is due for a VM after another decision on it.
#[derive(Debug)]
pub(super) enum FollowUp {
    /// Start it again for these callers.
    Start { name: VmName, answers: Vec<(Ticket, Answer)> },
    /// Give everything back.
    Delete { name: VmName, answers: Vec<(Ticket, Answer)> },
    /// End it without asking, and then give everything back.
    KillAndDelete { name: VmName },
}

/// Why a process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// Somebody asked, or autostart did.
    ByRequest,
    /// It had ended, and its policy says that it should not stay so.
    ByPolicy,
}

impl Engine {
    /// The next decision that follows from those already done; ask until there is none.
    pub fn follow_up(&mut self, now: Now) -> Option<Decision> {
        loop {
            if self.follow_ups.is_empty() && !self.teardown.is_empty() {
                // VMs that were made meanwhile go, too.
                self.clear_out();
            }
            match self.follow_ups.pop_front()? {
                FollowUp::Start { name, answers } if self.vms.contains_key(&name) => {
                    let nobody_waits = answers.is_empty();
                    let mut decision = self.begin_start(&name, answers, Started::ByRequest);
                    if let Some(former) = decision.former.as_mut().filter(|_| nobody_waits) {
                        // Nobody is told should it fail: then its policy goes on from there.
                        let policy = former.record.spec.restart;
                        let wait = supervise::restart_after(policy, Exit::Lost, former.in_a_row);
                        former.life = wait
                            .map_or(Life::Idle, |wait| Life::Waiting { until: now.mono + wait });
                    }
                    return Some(decision);
                }
                FollowUp::Delete { name, answers } if self.vms.contains_key(&name) => {
                    return Some(self.begin_delete(&name, answers));
                }
                FollowUp::KillAndDelete { name } if self.vms.contains_key(&name) => {
                    if let Step::Do(decision) = self.begin_stop(None, &name, 0, Want::Deleted, now)
                    {
                        return Some(*decision);
                    }
                }
                FollowUp::Start { .. }
                | FollowUp::Delete { .. }
                | FollowUp::KillAndDelete { .. } => {}
            }
        }
    }

    /// Teardown: refused while VMs exist, unless by force; then they go first.
    pub(super) fn teardown(
        &mut self,
        ticket: Ticket,
        dry_run: bool,
        force: bool,
    ) -> Result<Step, Error> {
        let count = self.vms.len();
        match (count, force) {
            (0, _) => return Ok(Step::Teardown { dry_run }),
            (_, false) => return Err(Refusal::VmsExist { count }.into()),
            (_, true) if dry_run => return Ok(Step::Teardown { dry_run }),
            (_, true) => {}
        }
        self.teardown.push(ticket);
        Ok(Step::Later)
    }

    /// Lets every VM go that is not about to.
    fn clear_out(&mut self) {
        for (name, vm) in &self.vms {
            let name = name.clone();
            self.follow_ups.push_back(match &vm.life {
                Life::Stopping { stop, .. } if stop.wants(Want::Deleted) => continue,
                Life::Running { .. } | Life::Stopping { .. } => FollowUp::KillAndDelete { name },
                Life::Idle | Life::Waiting { .. } => FollowUp::Delete { name, answers: Vec::new() },
            });
        }
    }

    /// Those who wait for a teardown, once no VM stands in its way.
    pub fn teardown_due(&mut self) -> Option<Vec<Ticket>> {
        let due = !self.teardown.is_empty() && self.vms.is_empty();
        due.then(|| std::mem::take(&mut self.teardown))
    }

    /// The next moment of the monotonic clock at which [`Engine::due`], [`Engine::hatching`] or
    /// [`Engine::look`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        let vms = self.timed.iter().filter_map(|name| self.vms.get(name));
        vms.filter_map(|vm| vm.life.deadline()).chain(self.watch.deadline()).min()
    }

    /// A decision whose time has come; ask until there is none.
    pub fn due(&mut self, now: Now) -> Option<Decision> {
        let vms = &self.vms;
        let deadline = |name: &VmName| vms.get(name).and_then(|vm| vm.life.deadline());
        self.timed.retain(|name| deadline(name).is_some());
        let due = |name: &&VmName| {
            deadline(name).is_some_and(|at| at <= now.mono)
                && !matches!(vms[*name].life, Life::Running { .. })
        };
        let name = self.timed.iter().find(due)?.clone();
        let vm = self.vms.get_mut(&name)?;
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
                Some(Decision::of(name, Some(act), Write::Nothing, former))
            }
            Life::Waiting { .. } => {
                vm.record.restarts += 1;
                vm.in_a_row += 1;
                // A restart that fails is a failure like any other: the policy goes on from there.
                let policy = vm.record.spec.restart;
                let wait = supervise::restart_after(policy, Exit::Lost, vm.in_a_row);
                vm.life = wait.map_or(Life::Idle, |wait| Life::Waiting { until: now.mono + wait });
                Some(self.begin_start(&name, Vec::new(), Started::ByPolicy))
            }
            Life::Idle | Life::Running { .. } => None,
        }
    }

    /// Puts off the answers to a start until the process has hatched.
    pub(super) fn hatch(
        &mut self,
        name: &VmName,
        answers: Vec<(Ticket, Answer)>,
        made: bool,
        now: Now,
    ) {
        if let Some(Life::Running { hatching, .. }) = self.vms.get_mut(name).map(|vm| &mut vm.life)
        {
            let check_at = now.mono + supervise::HATCH_CHECK_MS;
            let until = now.mono + supervise::HATCH_MAX_MS;
            *hatching = Some(Hatching { answers, made, check_at, until });
            self.timed.insert(name.clone());
        }
    }

    /// Somebody else was told that the VM is there: it stays even if its process does not hatch.
    pub(super) fn keep(&mut self, name: &VmName) {
        if let Some(Life::Running { hatching: Some(hatching), .. }) =
            self.vms.get_mut(name).map(|vm| &mut vm.life)
        {
            hatching.made = false;
        }
    }

    /// A VM whose process is to be looked at now; ask until there is none.
    pub fn hatching(&self, now: Now) -> Option<VmName> {
        let due = |name: &&VmName| {
            matches!(self.vms.get(*name).map(|vm| &vm.life),
                Some(Life::Running { hatching: Some(hatching), .. })
                    if hatching.check_at <= now.mono)
        };
        self.timed.iter().find(due).cloned()
    }

    /// The process was looked at. Once it is `ready`, or has had its time, its callers are told.
    pub fn looked_at(&mut self, name: &VmName, ready: bool, now: Now) -> Answers {
        let Some(Life::Running { hatching, .. }) = self.vms.get_mut(name).map(|vm| &mut vm.life)
        else {
            return Vec::new();
        };
        let waits = |waiting: &&mut Hatching| !ready && now.mono < waiting.until;
        if let Some(waiting) = hatching.as_mut().filter(waits) {
            waiting.check_at = now.mono + supervise::HATCH_CHECK_MS;
            return Vec::new();
        }
        let hatched = hatching.take();
        self.answers(name, hatched.map(|hatched| hatched.answers).unwrap_or_default())
    }

    /// The process of a VM has ended. `log` is the end of what it wrote.
    pub fn exited(
        &mut self,
        name: &VmName,
        exit: Exit,
        log: Option<String>,
        now: Now,
    ) -> Option<Decision> {
        let vm = self.vms.get_mut(name)?;
        let life = std::mem::take(&mut vm.life);
        // An end that was made so that it starts again is none of its own: should that be cut short,
        // its policy goes on from there.
        let made = matches!(&life, Life::Stopping { stop, .. } if stop.is_nobodys());
        vm.record.exit = Some(if made { Exit::Lost } else { exit });
        let steady = matches!(life, Life::Running { since, .. }
            if now.mono.saturating_sub(since) >= supervise::STEADY_MS);
        if steady {
            vm.in_a_row = 0;
        }
        let mut decision = Decision::of(name.clone(), None, Write::Put, vm.clone());
        let mut message = format!("VM {name} {exit}");
        match life {
            Life::Stopping { stop, .. } => self.ended_on_request(&mut decision, stop),
            Life::Running { hatching: Some(hatching), .. } => {
                let reason = format!("it {exit} right after its start");
                self.never_hatched(&mut decision, hatching, reason, log);
            }
            Life::Running { hatching: None, .. } | Life::Idle | Life::Waiting { .. } => {
                let policy = vm.record.spec.restart;
                if let Some(wait) = supervise::restart_after(policy, exit, vm.in_a_row) {
                    vm.life = Life::Waiting { until: now.mono + wait };
                    self.timed.insert(name.clone());
                    message =
                        format!("{message}; it is started again in {} s", wait.div_ceil(1000));
                }
                decision.former = Some(vm.clone());
            }
        }
        decision.events.push((EventKind::VmExited, message));
        Some(decision)
    }

    /// The VM's tap was made anew; what its hypervisor has open, if it runs, is dead. Nothing but a
    /// new start mends that, which its restart policy may allow.
    pub fn tap_lost(&mut self, name: &VmName, now: Now) -> Option<Decision> {
        let vm = self.vms.get(name)?;
        if !matches!(vm.life, Life::Running { .. }) {
            return None;
        }
        let lost = format!("the hypervisor of VM {name} has lost its tap");
        if vm.record.spec.restart == RestartPolicy::No {
            let mut decision = Decision::of(name.clone(), None, Write::Nothing, vm.clone());
            let hint = format!("{lost}; its guest has no network until it is restarted");
            decision.events.push((EventKind::Drift, hint));
            return Some(decision);
        }
        match self.begin_stop(None, name, STOP_TIMEOUT_MS, Want::Restarted, now) {
            Step::Do(mut decision) => {
                decision.events = vec![(EventKind::VmStopping, format!("{lost}: it is restarted"))];
                Some(*decision)
            }
            Step::Reply(_) | Step::Setup { .. } | Step::Teardown { .. } | Step::Later => None,
        }
    }

    /// Stop, Restart and Delete: all end the process first, if there is one.
    pub(super) fn stop(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        timeout_ms: u64,
        want: Want,
        now: Now,
    ) -> Result<Step, Error> {
        let vm = self.vm(name)?;
        match vm.life {
            Life::Running { .. } | Life::Stopping { .. } => {
                Ok(self.begin_stop(Some(ticket), name, timeout_ms, want, now))
            }
            Life::Idle | Life::Waiting { .. } => self.stop_idle(ticket, name, want),
        }
    }

    /// What stands for a VM without a process: nothing to end, but perhaps a restart to call off.
    fn stop_idle(&mut self, ticket: Ticket, name: &VmName, want: Want) -> Result<Step, Error> {
        let vm = self.vm(name)?;
        let decision = match want {
            Want::Deleted => self.begin_delete(name, vec![(ticket, Answer::Deleted)]),
            Want::Restarted if vm.record.spec.machine.is_some() => {
                self.begin_start(name, vec![(ticket, Answer::Shown)], Started::ByRequest)
            }
            Want::Stopped if vm.life != Life::Idle => self.call_off(ticket, name),
            Want::Stopped | Want::Restarted => {
                let (name, status) = (name.to_string(), vm.status());
                return Err(Refusal::WrongState { name, status, wanted: "running" }.into());
            }
        };
        Ok(Step::Do(Box::new(decision)))
    }

    /// A VM that waits for its restart is stopped: it stays as it ended.
    fn call_off(&mut self, ticket: Ticket, name: &VmName) -> Decision {
        let vm = self.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        vm.life = Life::Idle;
        vm.record.wanted = false;
        let mut decision = Decision::of(name.clone(), None, Write::Put, former);
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
        let vm = self.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        let mut wish = Stop::new(now.mono, timeout_ms);
        wish.waiters.push((ticket, want));
        vm.record.wanted = want == Want::Restarted;
        match &mut vm.life {
            Life::Stopping { stop, .. } => {
                if want == Want::Stopped {
                    // A restart that nobody asked for is not made against somebody's will.
                    stop.waiters.retain(|waiter| *waiter != (None, Want::Restarted));
                }
                stop.waiters.append(&mut wish.waiters);
                stop.hasten(wish);
                Step::Later
            }
            life @ (Life::Running { .. } | Life::Idle | Life::Waiting { .. }) => {
                let pid = life.pid().unwrap_or_default();
                let hatching = match std::mem::take(life) {
                    Life::Running { hatching, .. } => hatching,
                    Life::Idle | Life::Waiting { .. } | Life::Stopping { .. } => None,
                };
                *life = Life::Stopping { pid, stop: wish };
                self.timed.insert(name.clone());
                let act = if timeout_ms == 0 { None } else { Some(Act::Ask) };
                // Nothing is written: should the daemon end now, so has the request, unanswered.
                let mut decision = Decision::of(name.clone(), act, Write::Nothing, former);
                decision.answers = hatching.map(|hatching| hatching.answers).unwrap_or_default();
                decision.events.push((EventKind::VmStopping, format!("VM {name} is stopping")));
                Step::Do(Box::new(decision))
            }
        }
    }

    /// A decision that starts the VM's process. Its port stands already.
    pub(super) fn begin_start(
        &mut self,
        name: &VmName,
        answers: Vec<(Ticket, Answer)>,
        started: Started,
    ) -> Decision {
        let vm = self.vms.get_mut(name).expect("looked up by the caller");
        let former = vm.clone();
        let message = match started {
            Started::ByPolicy => format!("VM {name} was started again by its restart policy"),
            Started::ByRequest => {
                vm.record.restarts = 0;
                vm.in_a_row = 0;
                format!("VM {name} was started")
            }
        };
        vm.record.wanted = true;
        vm.record.exit = None;
        vm.life = Life::Idle;
        Decision {
            intent: Some(Action::Start),
            answers,
            events: vec![(EventKind::VmStarted, message)],
            ..Decision::of(name.clone(), Some(Act::Spawn), Write::Put, former)
        }
    }

    pub(super) fn begin_delete(
        &mut self,
        name: &VmName,
        answers: Vec<(Ticket, Answer)>,
    ) -> Decision {
        let vm = &self.vms[name];
        Decision {
            plan: self.release_plan(&vm.record),
            answers,
            events: vec![(EventKind::VmDeleted, format!("VM {name} was deleted"))],
            ..Decision::of(name.clone(), None, Write::Remove, vm.clone())
        }
    }

    /// Those who started it are told why it did not work; a VM that was made for it goes too.
    fn never_hatched(
        &mut self,
        decision: &mut Decision,
        hatching: Hatching,
        reason: String,
        log: Option<String>,
    ) {
        let name = decision.subject.clone();
        let failure = Failure::Hypervisor { name: name.to_string(), reason, log };
        for (ticket, _) in hatching.answers {
            decision.answers.push((ticket, Answer::Failed(failure.clone())));
        }
        if hatching.made {
            self.follow_ups.push_back(FollowUp::Delete { name, answers: Vec::new() });
        }
    }

    /// Those who waited for the end are answered now, or by the decision that follows from it.
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
                self.follow_ups.push_back(FollowUp::Delete { name, answers: follow });
            }
            Some(Want::Restarted) => {
                self.follow_ups.push_back(FollowUp::Start { name, answers: follow });
            }
            Some(Want::Stopped) | None => {}
        }
    }
}

impl Decision {
    /// A decision that touches only the process and the record.
    pub(super) fn of(
        subject: VmName,
        act: Option<Act>,
        write: Write,
        former: super::vm::Vm,
    ) -> Decision {
        Decision {
            subject,
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
