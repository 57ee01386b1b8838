//! Self-healing: what others change is noticed, named and put right.
//!
//! News of the kernel's come from its monitor sockets. Those that could concern us lead to one
//! observation of everything and the one plan that comes out of it, the same as at the start of the
//! daemon. Observations keep [`INTERVAL_MS`] between them, whatever the news; what fails is tried
//! again after [`RETRY_MS`]. What is put right again and again is held back
//! ([`crate::plan::drift::Patience`]).

use std::collections::BTreeSet;

use super::shell::Shell;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::view::EventKind;
use crate::network::{Applied, Network, execute};
use crate::plan::drift::{self, Drift, Patience, Verdict};
use crate::plan::news::{Culprit, News};
use crate::plan::op::{Op, Plan};
use crate::plan::reconcile::{ALIAS, Problem, reconcile};
use crate::store::disk::Disk;

/// Milliseconds between two observations.
const INTERVAL_MS: u64 = 50;
/// Milliseconds after which what could not be repaired is tried again.
const RETRY_MS: u64 = 1_000;

/// What the shell remembers of the drift that it saw.
#[derive(Debug, Default)]
pub(super) struct Healing {
    patience: Patience,
    /// Problems that were told and still stand.
    told: BTreeSet<String>,
    /// When everything was last observed.
    observed_at: Option<u64>,
    /// When it is to be observed next, and who is said to be behind it.
    due: Option<(u64, Option<Culprit>)>,
}

impl Healing {
    /// The next moment at which [`Shell::heal`] is due.
    pub(super) fn deadline(&self) -> Option<u64> {
        let due = self.due.as_ref().map(|(at, _)| *at);
        due.into_iter().chain(self.patience.deadline()).min()
    }

    /// Something failed, or its undoing may have: the kernel is looked at in a while.
    pub(super) fn retry(&mut self, now: Now) {
        let by = self.due.take().and_then(|(_, by)| by);
        self.due = Some((now.mono + RETRY_MS, by));
    }

    /// Nothing is to be looked at any more.
    pub(super) fn forget(&mut self) {
        *self = Healing::default();
    }
}

impl<N: Network, D: Disk, P: Processes> Shell<N, D, P> {
    /// Takes news of the kernel's. What they call for is done at once, or as soon as may be.
    pub fn news(&mut self, news: News, now: Now) {
        if self.host.is_none() || !self.engine.is_drift(&news) {
            return;
        }
        let earliest = self.healing.observed_at.map_or(now.mono, |at| at + INTERVAL_MS);
        let at = earliest.max(now.mono);
        let culprit = news.rules;
        match &mut self.healing.due {
            Some((due, known)) => {
                *due = at.min(*due);
                *known = culprit.or(known.take());
            }
            due @ None => *due = Some((at, culprit)),
        }
        self.heal(now);
    }

    /// Observes, and repairs what is to be repaired, if that is due.
    pub(super) fn heal(&mut self, now: Now) {
        if self.healing.deadline().is_none_or(|at| now.mono < at) {
            return;
        }
        let by = self.healing.due.take().and_then(|(_, by)| by);
        self.healing.patience.release(now.mono);
        self.healing.observed_at = Some(now.mono);
        let healed = match self.host {
            Some(_) => self.repair(by.as_ref(), now),
            None => self.resume(now),
        };
        if let Err(failure) = healed {
            log::error!("{failure}");
            self.healing.due = Some((now.mono + RETRY_MS, by));
        }
        self.settle(now);
    }

    fn repair(&mut self, by: Option<&Culprit>, now: Now) -> Result<(), Failure> {
        let observed = self.network.observe()?;
        self.engine.observed(&observed.links);
        let desired = self.engine.desired();
        let reconciled = reconcile(&desired, &observed);
        let drifts = drift::name(&reconciled.plan, &desired.ports);
        self.tell_problems(&reconciled.problems, now);
        let drifts = self.judge(drifts, by, now);
        let plan: Plan = reconciled.plan.into_iter().filter(|op| !self.is_held(op, now)).collect();
        let failed = self.apply_all(&plan, now);
        if failed {
            self.healing.due = Some((now.mono + RETRY_MS, by.cloned()));
            return Ok(());
        }
        for drift in drifts {
            let message = format!("{}: repaired", drift.message);
            self.event(EventKind::Repaired, drift.vm, message, None, now);
        }
        Ok(())
    }

    /// Tells what is wrong, and keeps what is repaired now.
    fn judge(&mut self, drifts: Vec<Drift>, by: Option<&Culprit>, now: Now) -> Vec<Drift> {
        let mut kept = Vec::new();
        for drift in drifts {
            let mut message = drift.message.clone();
            match self.healing.patience.judge(&drift.object, now.mono) {
                Verdict::Held => continue,
                Verdict::Repair => {}
                Verdict::Hold { for_ms } => {
                    let seconds = for_ms / 1000;
                    message += &format!(
                        "; it was repaired several times, so the next repair is in {seconds} s"
                    );
                }
            }
            let by = by.filter(|_| drift.rules);
            self.event(EventKind::Drift, drift.vm.clone(), message, by, now);
            if !self.healing.patience.holds(&drift.object, now.mono) {
                kept.push(drift);
            }
        }
        kept
    }

    fn is_held(&self, op: &Op, now: Now) -> bool {
        let (object, needs) = drift::objects(op);
        let held = |object: &str| self.healing.patience.holds(object, now.mono);
        held(&object) || needs.is_some_and(held)
    }

    /// Applies what can be applied, and says whether something failed.
    pub(super) fn apply_all(&mut self, plan: &[Op], now: Now) -> bool {
        let results = execute::execute_all(&mut self.network, plan);
        for (op, applied) in plan.iter().zip(&results) {
            if let Ok(applied) = applied {
                self.remade(op, *applied, now);
            }
        }
        results.iter().any(Result::is_err)
    }

    /// A tap that was made anew has another index, and a hypervisor that had the old one open has a
    /// dead descriptor. So has whoever listens on a bridge.
    pub(super) fn remade(&mut self, op: &Op, applied: Applied, now: Now) {
        if let Op::CreateBridge { name, .. } = op {
            self.bridges.insert(name.clone());
        }
        let Op::CreateTap { alias, .. } = op else { return };
        let Some(Ok(vm)) = alias.strip_prefix(ALIAS).map(VmName::new) else { return };
        if let Some(ifindex) = applied.ifindex {
            self.engine.attached(&vm, ifindex);
        }
        if let Some(decision) = self.engine.tap_lost(&vm, now) {
            self.carry_out(decision, now);
        }
    }

    /// Tells what is wrong and not ours to change, once as long as it stands.
    fn tell_problems(&mut self, problems: &[Problem], now: Now) {
        let standing: BTreeSet<String> = problems.iter().map(Problem::to_string).collect();
        for problem in standing.difference(&std::mem::take(&mut self.healing.told)) {
            self.event(EventKind::Drift, None, problem.clone(), None, now);
        }
        self.healing.told = standing;
    }
}
