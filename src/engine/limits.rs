//! Gives VMs their limits, as [`crate::model::limits`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::model::error::Error;
use crate::model::limits::Limits;
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::request::Ticket;

impl Engine {
    /// Gives interfaces of a VM other limits, where they are named: one interface, or all.
    pub(super) fn set_limits(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        nic: Option<usize>,
        limits: Limits,
    ) -> Result<Step, Error> {
        let record = &self.placed_vm(name)?.record;
        for nic in self.nics_of(record, nic)? {
            let limits = limits.or(record.nics[nic].traffic.limits);
            self.check_traffic(record, nic, &limits.into())?;
        }
        if record.nics.is_empty() {
            self.check_traffic(record, 0, &limits.into())?;
        }
        let message = format!("VM {name} has other limits");
        let change = |nic: &mut Nic| nic.traffic.limits = limits.or(nic.traffic.limits);
        Ok(self.change_nics(ticket, name, nic, message, change))
    }
}
