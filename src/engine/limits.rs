//! Gives VMs their limits, as [`crate::model::limits`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::{Error, Refusal};
use crate::model::limits::{Limits, UNGUARDED};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::request::Ticket;

impl Engine {
    /// The limits that an interface has.
    pub(super) fn limits_of(&self, nic: &Nic) -> Option<Limits> {
        let network = self.network_of(nic)?;
        Some(nic.limits.or(network.limits).in_force())
    }

    /// Refuses limits that a VM cannot have.
    pub(super) fn check_limits(&self, record: &Record, limits: &Limits) -> Result<(), Refusal> {
        let refuse = |field: &str, reason: &str| {
            Err(Refusal::InvalidConfig { field: field.into(), reason: reason.into() })
        };
        match limits.of_sending() {
            _ if limits.is_empty() => Ok(()),
            _ if record.nics.is_empty() => {
                refuse("network.limits", "a VM of this mode has no interface")
            }
            Some(field) if !self.is_guarded() => {
                refuse(&format!("network.limits.{field}"), UNGUARDED)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives interfaces of a VM other limits, where they are named: one interface, or all.
    pub(super) fn set_limits(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        nic: Option<usize>,
        limits: Limits,
    ) -> Result<Step, Error> {
        let record = &self.vm(name)?.record;
        for nic in self.nics_of(record, nic)? {
            self.check_limits(record, &limits.or(record.nics[nic].limits))?;
        }
        if record.nics.is_empty() {
            self.check_limits(record, &limits)?;
        }
        let message = format!("VM {name} has other limits");
        Ok(self.change_nics(ticket, name, nic, message, |nic| nic.limits = limits.or(nic.limits)))
    }
}
