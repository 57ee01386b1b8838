//! Self-healing: changes by others are noticed, reported and repaired.
//!
//! The engine decides when to observe everything, and which differences to repair
//! ([`crate::engine::watch`]). This module does it.

use super::doubt::State;
use super::report;
use super::shell::Shell;
use crate::engine::watch::{Notice, Repair};
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Failure;
use crate::network::{Applied, Network, execute};
use crate::plan::news::News;
use crate::plan::op::Op;
use crate::plan::reconcile::Observed;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Takes news of the kernel. If they show a difference, everything is observed, at once or as
    /// soon as the pace allows.
    pub fn news(&mut self, news: News, now: Now) {
        if self.host.is_some() && self.state.doubt().is_none() {
            self.engine.heard(news, now);
            self.settle(now);
            self.heal(now);
        }
    }

    /// Observes everything and repairs the differences, if that is due.
    pub(super) fn heal(&mut self, now: Now) {
        if !self.engine.look(now) {
            return;
        }
        let healed = match (&self.host, &self.state) {
            (Some(_), State::Trusted) => self.repair(now),
            (_, _) => self.resume(now),
        };
        if let Err(failure) = healed {
            log::error!("{failure}");
            self.engine.look_again(now);
        }
        self.settle(now);
    }

    fn repair(&mut self, now: Now) -> Result<(), Failure> {
        let observed = self.network.observe()?;
        self.look_around(now);
        let mut repair = self.engine.judge(&observed, now);
        let drifts = std::mem::take(&mut repair.events);
        drifts.iter().for_each(|drift| self.tell(drift.clone(), now));
        let mended = self.mend(repair, &observed, now);
        report::log_repair(&drifts, mended.as_deref().unwrap_or_default());
        mended?.into_iter().for_each(|repaired| self.tell(repaired, now));
        Ok(())
    }

    /// Carries out a repair, and gives what is told of it.
    fn mend(
        &mut self,
        mut repair: Repair,
        observed: &Observed,
        now: Now,
    ) -> Result<Vec<Notice>, Failure> {
        let refusal = self.features()?.restrict(&mut repair.plan);
        self.remember_host(observed)?;
        repair.plan.iter().for_each(|op| self.tally.repaired(op.operation()));
        let failed = self.apply_all(&repair.plan, now);
        self.sound = !failed && !self.engine.has_problems() && refusal.is_none();
        Ok(self.engine.repaired(repair, failed, now))
    }

    /// Reports firewalls of others that drop packets of guests. If this fails, the repair goes on.
    pub(super) fn look_around(&mut self, now: Now) {
        match self.network.surroundings() {
            Ok(surroundings) => {
                for notice in self.engine.surrounded(&surroundings, now) {
                    self.event(notice, now);
                }
            }
            Err(failure) => log::warn!("{failure}"),
        }
    }

    /// Executes all steps, also after a failure. Returns whether one failed.
    pub(super) fn apply_all(&mut self, plan: &[Op], now: Now) -> bool {
        self.tally.planned(plan.len());
        let results = execute::execute_all(&mut self.network, plan, self.serving);
        for (op, applied) in plan.iter().zip(&results) {
            if let Ok(applied) = applied {
                self.remade(op, *applied, now);
            }
        }
        results.iter().any(Result::is_err)
    }

    /// After a step that may have made a tap or a bridge again: others may have the former one
    /// open.
    pub(super) fn remade(&mut self, op: &Op, applied: Applied, now: Now) {
        if let Op::CreateBridge { name, .. } = op {
            self.bridges.insert(name.clone());
        }
        if let Some(decision) = self.engine.remade(op, applied.ifindex, now) {
            self.carry_out(decision, now);
        }
    }
}
