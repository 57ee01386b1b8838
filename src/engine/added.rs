//! Networks that are added and removed while volnet runs.
//!
//! Such a network is like one of the settings, but for its end: that comes when somebody says so,
//! when nobody has used it for [`UNUSED_MS`], and with the uptime of the host. So its VMs are
//! ephemeral. What can be used is decided here. Whoever asks does the rest: the record and the
//! kernel.

use std::collections::BTreeMap;

use crate::engine::decide::Engine;
use crate::engine::desire::overlap_of;
use crate::model::clock::Now;
use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::net::NetworkConfig;
use crate::model::policy::Policy;
use crate::model::record::Record;
use crate::model::request::Reply;
use crate::plan::op::Plan;
use crate::plan::reconcile::{Observed, Problem, Reconciled, reconcile};

/// Milliseconds after which an added network that nobody uses is removed.
pub const UNUSED_MS: u64 = 15 * 60 * 1000;

/// The added networks by name.
#[derive(Debug, Default)]
pub(super) struct Added(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    /// As it was asked for.
    document: Kept,
    /// When it was used last.
    used_at: u64,
}

/// A network as it was asked for, and what that means on this host.
pub type Addition = (Kept, NetworkConfig);

/// What adding a network comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adding {
    /// It is there already.
    Known,
    /// It is new, or takes the place of another one of its name.
    New,
}

impl Engine {
    /// The identifier of the host that the Ethernet addresses of bridges are derived from.
    pub fn machine(&self) -> &str {
        &self.host.machine
    }

    /// The policies that a network can name.
    pub fn policies(&self) -> &[Policy] {
        &self.host.policies
    }

    /// Whether a network can be added. One of its name with other values is refused, unless that
    /// may be replaced, was added as well, and is nobody's.
    pub fn adding(&self, network: &NetworkConfig, replace: bool) -> Result<Adding, Refusal> {
        let name = network.name.clone();
        let Some(known) = self.state.ledger.network(&name) else { return Ok(Adding::New) };
        match self.state.added.0.contains_key(&name) {
            true if known == network => Ok(Adding::Known),
            true if replace => self.refuse_in_use(&name).map(|()| Adding::New),
            true | false => Err(Refusal::NetworkExists { name }),
        }
    }

    /// Refuses to remove a network that was not added, or that has VMs.
    pub fn removing(&self, name: &str) -> Result<(), Refusal> {
        match self.state.added.0.contains_key(name) {
            true => self.refuse_in_use(name),
            false => Err(Refusal::NetworkNotFound { name: name.into() }),
        }
    }

    fn refuse_in_use(&self, name: &str) -> Result<(), Refusal> {
        let is_on_it = |record: &Record| record.nics.iter().any(|nic| nic.network == name);
        match self.state.vms.values().filter(|vm| is_on_it(&vm.record)).count() {
            0 => Ok(()),
            vms => Err(Refusal::NetworkInUse { name: name.into(), vms }),
        }
    }

    /// Puts an added network in the place of the one of its name, or takes that away. Returns what
    /// was there, to be put back. If the network cannot be, nothing changes.
    pub fn exchange_network(
        &mut self,
        name: &str,
        to: Option<Addition>,
        now: Now,
    ) -> Result<Option<Addition>, Refusal> {
        let (document, config) = to.unzip();
        let former = self.state.ledger.exchange_network(name, config).map_err(refuse)?;
        let entry = self.state.added.0.remove(name);
        if let Some(document) = document {
            self.state.added.0.insert(name.into(), Entry { document, used_at: now.mono });
        }
        self.known.unheard.remove(name);
        self.known.probes.forget_network(name);
        Ok(entry.map(|entry| entry.document).zip(former))
    }

    /// The answer to whoever adds this network.
    pub fn network_reply(&self, name: &str, is_new: bool) -> Result<Reply, Refusal> {
        let lost = || Refusal::NetworkNotFound { name: name.into() };
        let view = self.networks().into_iter().find(|view| view.name == name).ok_or_else(lost)?;
        Ok(Reply::Network { network: Box::new(view), is_new })
    }

    /// Takes over a network that an earlier daemon added, from its record.
    pub fn take_over_network(
        &mut self,
        name: &str,
        addition: Addition,
        now: Now,
    ) -> Result<(), Refusal> {
        if addition.1.name != name {
            return Err(refuse(format!("its record is that of {}", addition.1.name)));
        }
        self.adding(&addition.1, false)?;
        self.exchange_network(name, Some(addition), now).map(drop)
    }

    /// The steps to what is desired now, after a change of an added network with these bridges.
    /// They are refused if one of the bridges is somebody else's, or if the network overlaps with
    /// what the host has.
    pub fn network_plan(
        &self,
        bridges: &[String],
        to: Option<&Addition>,
        observed: &Observed,
    ) -> Result<Plan, Refusal> {
        let Reconciled { plan, problems } = reconcile(&self.desired(), observed);
        let in_the_way = problems.iter().find(|problem| match problem {
            Problem::BridgeTaken { bridge, .. }
            | Problem::BridgeMissing { bridge }
            | Problem::BridgeHeld { bridge, .. } => bridges.contains(bridge),
            Problem::NoIpv6 { network } | Problem::NoBridgeFilter { network } => {
                to.is_some_and(|(_, to)| to.name == *network)
            }
            Problem::TapTaken { .. } | Problem::TapInUse { .. } | Problem::TapHeld { .. } => false,
        });
        let overlap = || to.and_then(|(_, network)| overlap_of(network, observed));
        match in_the_way.map(Problem::to_string).or_else(overlap) {
            Some(reason) => Err(refuse(reason)),
            None => Ok(plan),
        }
    }

    /// The added networks, as they were asked for.
    pub fn added(&self) -> impl Iterator<Item = (&str, &Kept)> {
        self.state.added.0.iter().map(|(name, entry)| (name.as_str(), &entry.document))
    }

    /// Somebody has a use for a network now, if it was added.
    pub fn network_used(&mut self, name: &str, now: Now) {
        if let Some(entry) = self.state.added.0.get_mut(name) {
            entry.used_at = now.mono;
        }
    }

    /// The networks of a record are used until now.
    pub(super) fn networks_used(&mut self, record: &Record, now: Now) {
        for nic in &record.nics {
            self.network_used(&nic.network, now);
        }
    }

    /// When the next added network is to be removed because nobody uses it.
    pub(super) fn unused_deadline(&self) -> Option<u64> {
        self.idle().map(|(_, at)| at).min()
    }

    /// An added network that nobody has used for a while.
    pub fn unused_network(&self, now: Now) -> Option<String> {
        self.idle().find(|(_, at)| *at <= now.mono).map(|(name, _)| name.to_string())
    }

    /// The added networks without VMs, and when each is to be removed.
    fn idle(&self) -> impl Iterator<Item = (&str, u64)> {
        let idle = self.state.added.0.iter().filter(|(name, _)| self.state.ledger.is_idle(name));
        idle.map(|(name, entry)| (name.as_str(), entry.used_at.saturating_add(UNUSED_MS)))
    }
}

fn refuse(reason: String) -> Refusal {
    Refusal::InvalidConfig { field: "network".into(), reason }
}
