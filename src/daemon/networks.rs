//! Networks that are added and removed while volnet runs.
//!
//! The record of an added network is written before the kernel is changed, and removed before the
//! network is. So a change that was cut short is completed by the next daemon: it makes what a
//! record says, and removes bridges that none names. The kernel is changed by the plan of
//! `reconcile`, as at setup. If a step fails, record and engine are as before, and the next look
//! at the kernel finds the rest.

use super::host::Insistence;
use super::shell::Shell;
use crate::config;
use crate::engine::added::{Adding, Addition};
use crate::engine::watch::Notice;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::document::Kept;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::net::NetworkConfig;
use crate::model::request::Reply;
use crate::model::view::EventKind;
use crate::network::{Network, execute};
use crate::plan::op::Op;
use crate::plan::reconcile::Observed;
use crate::store::storage::Storage;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Adds a network, or has the one that is there used until now.
    pub(super) fn add_network(
        &mut self,
        document: &Kept,
        replace: bool,
        now: Now,
    ) -> Result<Reply, Error> {
        self.refuse_in_doubt()?;
        let network = self.described(document)?;
        let name = network.name.clone();
        let is_new = self.engine.adding(&network, replace)? == Adding::New;
        match is_new {
            false => self.engine.network_used(&name, now),
            true => {
                if self.host.is_none() {
                    self.setup(false, Insistence::Overlaps, now)?;
                }
                let words = format!("network {name} was added: {}", network.in_words());
                self.exchange_network(&name, Some((document.clone(), network)), now)?;
                self.tell_of_network(EventKind::NetworkAdded, words, now);
            }
        }
        Ok(self.engine.network_reply(&name, is_new)?)
    }

    /// Removes a network that was added.
    pub(super) fn remove_network(&mut self, name: &str, now: Now) -> Result<Reply, Error> {
        self.refuse_in_doubt()?;
        self.engine.removing(name)?;
        self.exchange_network(name, None, now)?;
        self.tell_of_network(EventKind::NetworkRemoved, format!("network {name} was removed"), now);
        Ok(Reply::Deleted)
    }

    /// Removes the networks that nobody has used for a while. What cannot be removed now counts as
    /// used, so it is tried again as late as it was now.
    pub(super) fn remove_unused(&mut self, now: Now) {
        while let Some(name) = self.engine.unused_network(now) {
            if let Err(error) = self.remove_network(&name, now) {
                log::warn!("network {name}: nobody uses it, and it cannot be removed: {error}");
                self.engine.network_used(&name, now);
            }
        }
    }

    /// Takes over the networks that an earlier daemon added. The settings may be new: a network
    /// that cannot be beside theirs is gone, and VMs on it are not taken over.
    pub(super) fn load_networks(&mut self, networks: Vec<(String, Kept)>, now: Now) {
        for (name, document) in networks {
            let taken = self
                .described(&document)
                .and_then(|network| self.engine.take_over_network(&name, (document, network), now));
            if let Err(refusal) = taken {
                let message = format!("network {name} cannot be taken over: {refusal}");
                self.tell_of_network(EventKind::Drift, message, now);
                if let Err(failure) = self.store.put_network(&name, None) {
                    log::warn!("{failure}");
                }
            }
        }
    }

    /// Forgets the networks that were added, with their records: the host is free of everything.
    pub(super) fn forget_networks(&mut self, now: Now) -> Result<(), Failure> {
        let names: Vec<String> = self.engine.added().map(|(name, _)| name.into()).collect();
        for name in names {
            self.store.put_network(&name, None)?;
            let _ = self.engine.exchange_network(&name, None, now);
        }
        Ok(())
    }

    /// What a document describes, beside the networks that the host has.
    fn described(&self, document: &Kept) -> Result<NetworkConfig, Refusal> {
        let engine = &self.engine;
        config::added(document, engine.configured(), engine.policies(), engine.machine())
    }

    /// Puts an added network in the place of the one of its name, or takes that away.
    fn exchange_network(
        &mut self,
        name: &str,
        to: Option<Addition>,
        now: Now,
    ) -> Result<(), Error> {
        let observed = self.network.observe()?;
        if self.is_in_doubt(&observed) {
            self.refuse_in_doubt()?;
        }
        let former = self.engine.exchange_network(name, to.clone(), now)?;
        let bridges = [&former, &to].into_iter().flatten().map(|(_, it)| it.bridge.clone());
        let bridges: Vec<String> = bridges.collect();
        let plan = self.engine.network_plan(&bridges, to.as_ref(), &observed);
        let plan = plan.map_err(Error::from).and_then(|plan| {
            let refusal = self.features()?.refusal(&plan);
            refusal.map_or(Ok(plan), |refusal| Err(refusal.into()))
        });
        let (result, stands) = match plan {
            Ok(plan) => self.change_network(name, [&to, &former], (&plan, &observed), now),
            Err(error) => (Err(error), false),
        };
        if !stands {
            let _ = self.engine.exchange_network(name, former, now);
        }
        // Their sockets are opened, or closed.
        self.bridges.extend(bridges);
        result
    }

    /// Writes the record and executes the plan. If that fails, the record is as before. The second
    /// value says whether the change stands: if the record cannot be put back, the next look at the
    /// kernel completes what the record says.
    fn change_network(
        &mut self,
        name: &str,
        [to, former]: [&Option<Addition>; 2],
        (plan, observed): (&[Op], &Observed),
        now: Now,
    ) -> (Result<(), Error>, bool) {
        let written = self.store.put_network(name, to.as_ref().map(|it| &it.0));
        let is_written = written.is_ok();
        let done = written.and_then(|()| self.remember_host(observed)).and_then(|()| {
            self.tally.planned(plan.len());
            execute::execute(&mut self.network, plan, self.serving)
        });
        match done {
            Ok(applied) => {
                for (op, applied) in plan.iter().zip(applied) {
                    self.remade(op, applied, now);
                }
                (Ok(()), true)
            }
            Err(failure) => {
                let back = self.store.put_network(name, former.as_ref().map(|it| &it.0));
                if let Err(failure) = &back {
                    log::error!("while undoing: {failure}");
                }
                self.undo_setup(false, now);
                (Err(failure.into()), is_written && back.is_err())
            }
        }
    }

    fn tell_of_network(&mut self, kind: EventKind, message: String, now: Now) {
        self.event(Notice { kind, vm: None, message, by: None }, now);
    }
}
