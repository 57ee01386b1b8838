//! Gives VMs their policies, as [`crate::model::policy`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::Error;
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::policy::Policy;
use crate::model::request::Ticket;
use crate::model::traffic::Traffic;

impl Engine {
    /// The same engine, with these policies in addition to the built-in ones.
    pub fn with_policies(mut self, policies: Vec<Policy>) -> Engine {
        self.host.policies.extend(policies);
        self
    }

    /// A policy by its name.
    pub fn policy_named(&self, name: &str) -> Option<&Policy> {
        self.host.policies.iter().find(|policy| policy.name == name)
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
        let record = &self.placed_vm(name)?.record;
        let wanted = Traffic { policy: Some(policy.into()), ..Traffic::default() };
        for nic in self.nics_of(record, nic)? {
            self.check_traffic(record, nic, &wanted)?;
        }
        if record.nics.is_empty() {
            self.check_traffic(record, 0, &wanted)?;
        }
        let message = format!("VM {name} has the policy {policy}");
        let change = |nic: &mut Nic| nic.traffic.policy.clone_from(&wanted.policy);
        Ok(self.change_nics(ticket, name, nic, message, change))
    }
}
