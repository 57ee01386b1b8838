//! Gives VMs their policies, as [`crate::model::policy`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::policy::{NONE, Policy};
use crate::model::record::Record;
use crate::model::request::Ticket;

impl Engine {
    /// The same engine, with these policies in addition to the built-in ones.
    pub fn with_policies(mut self, policies: Vec<Policy>) -> Engine {
        self.policies.extend(policies);
        self
    }

    /// The policy that an interface has.
    pub(super) fn policy_of<'a>(&'a self, nic: &'a Nic) -> Option<&'a str> {
        let network = self.network_of(nic)?;
        let name = nic.policy.as_deref().unwrap_or(&network.policy);
        let known = self.policies.iter().any(|policy| policy.name == name);
        Some(if known { name } else { NONE })
    }

    /// Refuses a policy that does not exist, and a policy for a guest whose address volnet does not
    /// know.
    pub(super) fn check_policy(
        &self,
        record: &Record,
        nic: usize,
        name: &str,
    ) -> Result<(), Refusal> {
        let refuse = |reason| Refusal::InvalidConfig { field: "network.policy".into(), reason };
        if !self.policies.iter().any(|policy| policy.name == name) {
            let names: Vec<&str> =
                self.policies.iter().map(|policy| policy.name.as_str()).collect();
            return Err(refuse(format!("there is no policy {name:?}, but {}", names.join(", "))));
        }
        self.check_addressed(record, nic).map_err(refuse)
    }

    /// Gives interfaces of a VM another policy, one or all. It holds for all that the guest sends
    /// by them from then on.
    pub(super) fn set_policy(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        nic: Option<usize>,
        policy: &str,
    ) -> Result<Step, Error> {
        let record = &self.vm(name)?.record;
        for nic in self.nics_of(record, nic)? {
            self.check_policy(record, nic, policy)?;
        }
        if record.nics.is_empty() {
            self.check_policy(record, 0, policy)?;
        }
        let message = format!("VM {name} has the policy {policy}");
        Ok(self.change_nics(ticket, name, nic, message, |nic| nic.policy = Some(policy.into())))
    }
}
