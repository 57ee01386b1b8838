//! Exposes ports of guests, as [`crate::model::expose`] describes them.

use crate::engine::decide::{Engine, Step};
use crate::engine::vm::Vm;
use crate::model::error::{Error, Refusal};
use crate::model::expose::{EXPOSED_MAX, Expose, HostPort};
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::Dhcp;
use crate::model::record::{Port, Record};
use crate::model::request::Reply;
use crate::model::request::Ticket;

impl Engine {
    /// Refuses what a new VM cannot have of the host's ports, and a policy and limits that cannot be.
    pub(super) fn check_traffic(&self, record: &Record) -> Result<(), Refusal> {
        if let Some(policy) = &record.policy {
            self.check_policy(record, policy)?;
        }
        self.check_limits(record, &record.limits)?;
        if record.exposed.is_empty() {
            return Ok(());
        }
        self.check_reachable(record.mode(), record.port.as_ref())?;
        self.check_free(&record.name, &record.exposed)
    }

    /// Refuses ports that others have.
    pub(super) fn check_free(&self, name: &VmName, wanted: &[Expose]) -> Result<(), Refusal> {
        let others = self.vms.values().filter(|vm| vm.record.name != *name);
        for Vm { record, .. } in others {
            let taken = |wanted: &&Expose| {
                record.exposed.iter().any(|other| other.at().meets(&wanted.at()))
            };
            if let Some(Expose { protocol, host_port, .. }) = wanted.iter().find(taken) {
                let (protocol, port) = (*protocol, *host_port);
                return Err(Refusal::PortInUse { protocol, port, owner: record.name.to_string() });
            }
        }
        Ok(())
    }

    /// Refuses ports of a guest whose address nobody here knows.
    fn check_reachable(&self, mode: Mode, port: Option<&Port>) -> Result<(), Refusal> {
        let refuse = |reason| Refusal::InvalidConfig { field: "expose".into(), reason };
        self.check_addressed(mode, port).map_err(refuse)
    }

    /// Says why volnet gives a guest no address, if so it is.
    pub(super) fn check_addressed(&self, mode: Mode, port: Option<&Port>) -> Result<(), String> {
        let network = port.and_then(|port| self.ledger.network(&port.network));
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

    /// Makes a port of a VM one of the host's. To do it again changes nothing.
    pub(super) fn expose(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        wanted: &Expose,
    ) -> Result<Step, Error> {
        let record = &self.vm(name)?.record;
        self.check_reachable(record.mode(), record.port.as_ref())?;
        if record.exposed.iter().any(|there| (there.at(), there.port) == (wanted.at(), wanted.port))
        {
            return Ok(Step::reply(Reply::Vm { vm: self.show(self.vm(name)?) }));
        }
        if record.exposed.iter().any(|there| there.at().meets(&wanted.at())) {
            let (protocol, port) = (wanted.protocol, wanted.host_port);
            let owner = name.to_string();
            return Err(Refusal::PortInUse { protocol, port, owner }.into());
        }
        if record.exposed.len() >= EXPOSED_MAX {
            let reason = format!("a VM may have at most {EXPOSED_MAX} exposed ports");
            return Err(Refusal::InvalidConfig { field: "expose".into(), reason }.into());
        }
        self.check_free(name, std::slice::from_ref(wanted))?;
        let message =
            format!("VM {name}: {} of the host now leads to its port {}", wanted.at(), wanted.port);
        Ok(self.change(ticket, name, message, |record| record.exposed.push(wanted.clone())))
    }

    /// Takes a port back; the connections through it end. One that is not there is as good as taken.
    pub(super) fn unexpose(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        at: HostPort,
    ) -> Result<Step, Error> {
        self.vm(name)?;
        let message = format!("VM {name}: {at} of the host no longer leads to it");
        Ok(self.change(ticket, name, message, |record| {
            record.exposed.retain(|there| there.at() != at);
        }))
    }
}
