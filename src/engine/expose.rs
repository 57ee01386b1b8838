//! Exposes ports of guests, as [`crate::model::expose`] describes them.

use std::net::IpAddr;

use crate::engine::decide::{Engine, Step};
use crate::engine::vm::Vm;
use crate::model::error::{Error, Refusal};
use crate::model::expose::{EXPOSED_MAX, Expose, HostPort, Listener, Ports};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::request::Reply;
use crate::model::request::Ticket;

impl Engine {
    /// Refuses ports and traffic that a new VM cannot have.
    pub(super) fn check_wishes(&self, record: &Record) -> Result<(), Refusal> {
        for (at, wanted) in record.spec.networks.iter().enumerate() {
            let checked = self
                .check_traffic(record, at, &wanted.traffic)
                .and_then(|()| self.check_inner(record, at))
                .and_then(|()| self.check_reachable(record, at, &wanted.expose));
            checked.map_err(|refusal| record.spec.refuse_network(at, refusal))?;
        }
        self.check_listeners(record.host_ports())?;
        self.check_free(record, record.exposed())
    }

    /// Takes the programs that listen on ports of the host. The next request is decided with that.
    pub fn listened(&mut self, listeners: Vec<Listener>) {
        self.known.listeners = listeners;
    }

    /// Refuses ports on which the host itself listens.
    fn check_listeners(&self, mut wanted: impl Iterator<Item = HostPort>) -> Result<(), Refusal> {
        let listener = |wanted: HostPort| {
            self.known.listeners.iter().find(|listener| listener.at.meets(&wanted))
        };
        match wanted.find_map(listener) {
            Some(Listener { at: HostPort { protocol, port, .. }, who }) => {
                let (protocol, port, owner) = (*protocol, *port, who.clone());
                Err(Refusal::PortInUse { protocol, port, owner })
            }
            None => Ok(()),
        }
    }

    /// Gives a new VM free ports where it asks for any.
    pub(super) fn place_ports(&self, record: &mut Record) -> Result<(), Refusal> {
        let mut taken: Vec<HostPort> = record.exposed().map(Expose::at).collect();
        taken.retain(|at| at.port != 0);
        for nic in &mut record.nics {
            for expose in nic.exposed.iter_mut().filter(|expose| expose.host_port == 0) {
                expose.host_port = self.any_port(expose, &taken)?;
                taken.push(expose.at());
            }
        }
        Ok(())
    }

    /// A port of the host that nobody has, nor one of `taken`.
    fn any_port(&self, expose: &Expose, taken: &[HostPort]) -> Result<u16, Refusal> {
        let given = self.state.vms.values().flat_map(|vm| vm.record.exposed()).map(Expose::at);
        let busy: Vec<HostPort> = given
            .chain(taken.iter().copied())
            .chain(self.known.listeners.iter().map(|listener| listener.at))
            .filter(|at| at.protocol == expose.protocol)
            .collect();
        let is_free = |port| {
            let at = HostPort { port, ..expose.at() };
            !busy.iter().any(|other| other.meets(&at))
        };
        self.host.expose_ports.choose(expose.count, is_free).ok_or_else(|| {
            let Ports { first, last } = self.host.expose_ports;
            let reason = format!("no port of {first}-{last} is free for it");
            Refusal::InvalidConfig { field: "expose".into(), reason }
        })
    }

    /// Refuses ports that other VMs have.
    pub(super) fn check_free<'a>(
        &self,
        record: &Record,
        wanted: impl Iterator<Item = &'a Expose> + Clone,
    ) -> Result<(), Refusal> {
        if wanted.clone().next().is_none() {
            return Ok(());
        }
        let others = self.state.vms.values().filter(|vm| vm.record.name != record.name);
        for Vm { record, .. } in others {
            let taken =
                |wanted: &&Expose| record.exposed().any(|other| other.at().meets(&wanted.at()));
            if let Some(Expose { protocol, host_port, .. }) = wanted.clone().find(taken) {
                let (protocol, port) = (*protocol, *host_port);
                return Err(Refusal::PortInUse { protocol, port, owner: record.name.to_string() });
            }
        }
        Ok(())
    }

    /// Refuses ports of a guest whose address volnet does not know.
    fn check_reachable(
        &self,
        record: &Record,
        nic: usize,
        ports: &[Expose],
    ) -> Result<(), Refusal> {
        let refuse = |reason| Refusal::InvalidConfig { field: "expose".into(), reason };
        if ports.is_empty() {
            return Ok(());
        }
        self.check_addressed(record, nic).map_err(refuse)?;
        let interface = record.interfaces().nth(nic);
        let has_ipv4 = interface.is_some_and(|(nic, spec)| nic.has_ipv4(spec));
        let has_ipv6 = interface.is_some_and(|(nic, _)| nic.ip6.is_some());
        let lacks = |ip: IpAddr| match ip {
            IpAddr::V4(_) => (!has_ipv4).then_some("IPv4"),
            IpAddr::V6(_) => (!has_ipv6).then_some("IPv6"),
        };
        let lacking = |port: &Expose| Some((port.at(), lacks(port.host_ip?)?));
        match ports.iter().find_map(lacking) {
            Some((at, family)) => Err(refuse(format!("{at}: the VM has no {family} address"))),
            None => Ok(()),
        }
    }

    /// Exposes a port of a VM. Doing it again changes nothing.
    pub(super) fn expose(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        nic: Option<usize>,
        wanted: &Expose,
        force: bool,
    ) -> Result<Step, Error> {
        let record = &self.placed_vm(name)?.record;
        let at = nic.unwrap_or_default();
        if at > 0 && record.nics.get(at).is_none() {
            return Err(self.no_nic(record, at).into());
        }
        self.check_reachable(record, at, std::slice::from_ref(wanted))?;
        let nics = record.nics.iter().enumerate();
        let mut there = nics.flat_map(|(at, nic)| nic.exposed.iter().map(move |it| (at, it)));
        if let Some((owner, port)) = there.find(|(_, port)| port.at().meets(&wanted.at())) {
            let same = port.at() == wanted.at() && port.port == wanted.port;
            if owner == at && same {
                return Ok(Step::reply(Reply::Vm {
                    vm: Box::new(self.show(self.placed_vm(name)?)),
                }));
            }
            let (protocol, port) = (wanted.protocol, wanted.host_port);
            let owner = name.to_string();
            return Err(Refusal::PortInUse { protocol, port, owner }.into());
        }
        let count = record.exposed().chain([wanted]).map(|port| usize::from(port.count));
        if count.sum::<usize>() > EXPOSED_MAX {
            let reason = format!("there may be at most {EXPOSED_MAX} of one VM");
            return Err(Refusal::InvalidConfig { field: "expose".into(), reason }.into());
        }
        let mut wanted = wanted.clone();
        if wanted.host_port == 0 {
            wanted.host_port = self.any_port(&wanted, &[])?;
        }
        if !force {
            let at = record.interfaces().nth(at).map(|(nic, spec)| nic.host_port(spec, &wanted));
            self.check_listeners(at.into_iter())?;
        }
        self.check_free(record, std::iter::once(&wanted))?;
        let message = format!("VM {name}: {} leads to its port {}", wanted.at(), wanted.port);
        let push = |nic: &mut Nic| nic.exposed.push(wanted.clone());
        Ok(self.change_nics(ticket, name, Some(at), message, push))
    }

    /// Takes a port back, and its connections end. If the port is not exposed, nothing is to do.
    pub(super) fn unexpose(
        &mut self,
        ticket: Ticket,
        name: &VmName,
        at: HostPort,
    ) -> Result<Step, Error> {
        self.placed_vm(name)?;
        let message = format!("VM {name}: {at} of the host no longer leads to it");
        let take = |nic: &mut Nic| nic.exposed.retain(|there| !there.at().is_at(&at));
        Ok(self.change_nics(ticket, name, None, message, take))
    }
}
