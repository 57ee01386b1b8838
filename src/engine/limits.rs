//! Gives VMs their limits, as [`crate::model::limits`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::{Error, Refusal};
use crate::model::limits::{Limits, UNGUARDED};
use crate::model::name::VmName;
use crate::model::record::Record;
use crate::model::request::Ticket;

impl Engine {
    /// The limits that a VM has; `None` if it has no interface.
    pub(super) fn limits_of(&self, record: &Record) -> Option<Limits> {
        let network = self.network_of(record)?;
        Some(record.limits.or(network.limits).in_force())
    }

    /// Refuses limits that a VM cannot have.
    pub(super) fn check_limits(&self, record: &Record, limits: &Limits) -> Result<(), Refusal> {
        let refuse = |field: &str, reason: &str| {
            Err(Refusal::InvalidConfig { field: field.into(), reason: reason.into() })
        };
        match limits.of_sending() {
            _ if limits.is_empty() => Ok(()),
            _ if record.port.is_none() => {
                refuse("network.limits", "a VM of this mode has no interface")
            }
            Some(field) if !self.is_guarded() => {
                refuse(&format!("network.limits.{field}"), UNGUARDED)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives a VM other limits, where they are named.
    pub(super) fn set_limits(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        limits: Limits,
    ) -> Result<Step, Error> {
        let record = &self.vm(name)?.record;
        let limits = limits.or(record.limits);
        self.check_limits(record, &limits)?;
        let message = format!("VM {name} has new limits");
        Ok(self.change(ticket, name, message, |record| record.limits = limits))
    }
}
