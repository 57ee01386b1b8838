//! Self-healing: what others change is noticed, told and put right.
//!
//! The engine says when everything is to be observed, and what of the differences is repaired
//! ([`crate::engine::watch`]). Here that is done.

use super::doubt::State;
use super::shell::Shell;
use crate::engine::watch::Notice;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Failure;
use crate::network::{Applied, Network, execute};
use crate::plan::news::News;
use crate::plan::op::Op;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Takes news of the kernel. What they call for is done at once, or as soon as may be.
    pub fn news(&mut self, news: News, now: Now) {
        if self.host.is_some() && self.state.doubt().is_none() {
            self.engine.heard(news, now);
            self.heal(now);
        }
    }

    /// Observes, and repairs what is to be repaired, if that is due.
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
        self.notify(std::mem::take(&mut repair.events), now);
        let refusal = self.features()?.restrict(&mut repair.plan);
        let failed = self.apply_all(&repair.plan, now);
        self.sound = !failed && !self.engine.has_problems() && refusal.is_none();
        let repaired = self.engine.repaired(repair, failed, now);
        self.notify(repaired, now);
        Ok(())
    }

    /// Tells what others have in the way of packets. A failure keeps nothing from being repaired.
    pub(super) fn look_around(&mut self, now: Now) {
        match self.network.surroundings() {
            Ok(surroundings) => {
                let notices = self.engine.surrounded(&surroundings, now);
                self.notify(notices, now);
            }
            Err(failure) => log::warn!("{failure}"),
        }
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

    /// A step was executed that may have made something anew that others have open: a tap, or a
    /// bridge on which guests are heard.
    pub(super) fn remade(&mut self, op: &Op, applied: Applied, now: Now) {
        if let Op::CreateBridge { name, .. } = op {
            self.bridges.insert(name.clone());
        }
        if let Some(decision) = self.engine.remade(op, applied.ifindex, now) {
            self.carry_out(decision, now);
        }
    }

    fn notify(&mut self, notices: Vec<Notice>, now: Now) {
        for notice in notices {
            self.event(notice, now);
        }
    }
}
