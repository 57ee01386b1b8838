//! Gives VMs their policies, as [`crate::model::policy`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::{Error, Refusal};
use crate::model::name::VmName;
use crate::model::policy::{NONE, Policy};
use crate::model::record::Record;
use crate::model::request::Ticket;

impl Engine {
    /// The same engine, with these policies beside the built-in ones.
    pub fn with_policies(mut self, policies: Vec<Policy>) -> Engine {
        self.policies.extend(policies);
        self
    }

    /// The policy that a VM has; `None` if it has no interface.
    pub(super) fn policy_of<'a>(&'a self, record: &'a Record) -> Option<&'a str> {
        let network = self.network_of(record)?;
        let name = record.policy.as_deref().unwrap_or(&network.policy);
        let known = self.policies.iter().any(|policy| policy.name == name);
        Some(if known { name } else { NONE })
    }

    /// Refuses a policy that there is not, and one for a guest whose address nobody here knows.
    pub(super) fn check_policy(&self, record: &Record, name: &str) -> Result<(), Refusal> {
        let refuse = |reason| Refusal::InvalidConfig { field: "network.policy".into(), reason };
        if !self.policies.iter().any(|policy| policy.name == name) {
            let names: Vec<&str> =
                self.policies.iter().map(|policy| policy.name.as_str()).collect();
            return Err(refuse(format!("there is no policy {name:?}, but {}", names.join(", "))));
        }
        self.check_addressed(record.mode(), record.port.as_ref()).map_err(refuse)
    }

    /// Gives a VM another policy, which holds for all that its guest sends from then on.
    pub(super) fn set_policy(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        policy: &str,
    ) -> Result<Step, Error> {
        let record = &self.vm(name)?.record;
        self.check_policy(record, policy)?;
        let message = format!("VM {name} has the policy {policy}");
        Ok(self.change(ticket, name, message, |record| record.policy = Some(policy.to_string())))
    }
}
