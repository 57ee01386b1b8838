//! Ports of a guest that the host has as its own.
//!
//! An [`Expose`] is one of them: what comes to this port of the host goes to that port of the guest,
//! from wherever it comes. The host is meant by each of its addresses but 127.0.0.0/8, or by the one
//! that is named. To have loopback lead out of the host, the kernel would have to take packets for
//! 127.0.0.1 from the bridge as well (`route_localnet`), and with them each service that relies on
//! being reached from the host alone.
//!
//! A VM's ports live as elements of maps for as long as its guest has an address: a guest that asks
//! for its address by DHCP is reached once it has one.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::engine::decide::{Engine, Step};
use crate::engine::supervise::Ticket;
use crate::engine::vm::Vm;
use crate::model::error::{Error, Refusal};
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::record::{Dhcp, Port, Record};
use crate::model::request::Reply;

/// The most ports of one VM.
pub const EXPOSED_MAX: usize = 64;

/// A protocol that has ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a guest, and the port of the host that leads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The protocol.
    pub protocol: Protocol,
    /// The guest's port.
    pub port: u16,
    /// The host's port.
    pub host_port: u16,
    /// The address of the host that is meant; `None`: each that it has, but those of loopback.
    pub host_ip: Option<Ipv4Addr>,
    /// What it is called, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where the host is reached: what two exposed ports cannot have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address; `None`: each.
    pub ip: Option<Ipv4Addr>,
}

impl Protocol {
    /// The protocol as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// Its number in IP (IANA, protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
            .ok_or_else(|| format!("{text:?} is neither tcp nor udp"))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Expose {
    /// Where the host is reached.
    pub fn at(&self) -> HostPort {
        HostPort { protocol: self.protocol, port: self.host_port, ip: self.host_ip }
    }
}

impl HostPort {
    /// Whether a packet can be meant for both.
    pub fn meets(&self, other: &HostPort) -> bool {
        let same = (self.protocol, self.port) == (other.protocol, other.port);
        same && self.ip.zip(other.ip).is_none_or(|(one, other)| one == other)
    }
}

impl fmt::Display for HostPort {
    /// "tcp 8080", or "tcp 8080 of 203.0.113.1".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)?;
        self.ip.map_or(Ok(()), |ip| write!(f, " of {ip}"))
    }
}

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
            let reason = format!("there may be at most {EXPOSED_MAX} of one VM");
            return Err(Refusal::InvalidConfig { field: "expose".into(), reason }.into());
        }
        self.check_free(name, std::slice::from_ref(wanted))?;
        let message = format!("VM {name}: {} leads to its port {}", wanted.at(), wanted.port);
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
        let message = format!("VM {name}: {at} leads to it no more");
        Ok(self.change(ticket, name, message, |record| {
            record.exposed.retain(|there| there.at() != at);
        }))
    }
}
