//! The traffic of an interface: which settings a VM may have, and which are in force
//! ([`crate::model::traffic`]).

use crate::engine::decide::Engine;
use crate::model::error::Refusal;
use crate::model::mode::Mode;
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::nic::Nic;
use crate::model::policy::NONE;
use crate::model::record::Record;
use crate::model::spec::NetworkSpec;
use crate::model::traffic::{InForce, Traffic, UNGUARDED};

impl Engine {
    /// The traffic of an interface on its network. A policy that the settings no longer have is
    /// [`NONE`].
    pub fn traffic<'a>(
        &self,
        nic: &'a Nic,
        spec: &'a NetworkSpec,
        network: &'a NetworkConfig,
    ) -> InForce<'a> {
        let traffic = InForce::of([&nic.traffic, &spec.traffic, &network.traffic]);
        let known = self.host.policies.iter().any(|policy| policy.name == traffic.policy);
        InForce { policy: if known { traffic.policy } else { NONE }, ..traffic }
    }

    /// Refuses what the interface of that index cannot have.
    pub(super) fn check_traffic(
        &self,
        record: &Record,
        nic: usize,
        wanted: &Traffic,
    ) -> Result<(), Refusal> {
        let refuse = |field: &str, reason: String| {
            Err(Refusal::InvalidConfig { field: format!("network.{field}"), reason })
        };
        if let Some(name) = &wanted.policy {
            self.check_policy(name)
                .and_then(|()| self.check_addressed(record, nic))
                .or_else(|reason| refuse("policy", reason))?;
        }
        if !wanted.limits.is_empty() && record.nics.is_empty() {
            return refuse("limits", "a VM of this mode has no interface".into());
        }
        match wanted.needs_guard() {
            Some(field) if !self.is_guarded() => refuse(field, UNGUARDED.into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses an inner identity without rules for bridges: they translate.
    pub(super) fn check_inner(&self, record: &Record, nic: usize) -> Result<(), Refusal> {
        let has_inner = record.nics.get(nic).is_some_and(|nic| nic.inner.is_some());
        match has_inner && !self.is_guarded() {
            true => Err(Refusal::InvalidConfig {
                field: "network.inner".into(),
                reason: UNGUARDED.into(),
            }),
            false => Ok(()),
        }
    }

    /// Says why a VM cannot have a policy of this name.
    fn check_policy(&self, name: &str) -> Result<(), String> {
        if self.host.policies.iter().any(|policy| policy.name == name) {
            return Ok(());
        }
        let names: Vec<&str> =
            self.host.policies.iter().map(|policy| policy.name.as_str()).collect();
        Err(format!("there is no policy {name:?}, but {}", names.join(", ")))
    }

    /// Says why volnet gives an interface no address, if so it is.
    pub(super) fn check_addressed(&self, record: &Record, nic: usize) -> Result<(), String> {
        let network = record.nics.get(nic).and_then(|nic| self.state.ledger.network(&nic.network));
        let mode = record.spec.networks.get(nic).map_or(Mode::Vsock, |network| network.mode);
        let known = match mode {
            Mode::Bridged => true,
            Mode::Dhcp => network.is_some_and(|network| network.dhcp == Dhcp::Builtin),
            Mode::Vsock => false,
        };
        if known {
            return Ok(());
        }
        Err(format!("volnet leases no address to this VM in {mode} mode"))
    }
}
