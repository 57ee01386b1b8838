//! What the kernel should hold, as the engine's state says.

use crate::engine::decide::Engine;
use crate::model::error::Refusal;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::is_guarded;
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::record::Record;
use crate::plan::op::{Handover, Op, Plan};
use crate::plan::reconcile::{self, Desired, DesiredPort, Observed, Problem};
use crate::plan::ruleset::{self, Element, Guest};

impl Engine {
    /// All that should be: every network, and the port of every VM.
    pub fn desired(&self) -> Desired<'_> {
        let networks: Vec<&NetworkConfig> = self.ledger.networks().collect();
        let ports = self.vms.values().filter_map(|vm| self.desired_port(&vm.record)).collect();
        let elements = self.vms.values().flat_map(|vm| self.elements(&vm.record)).collect();
        let tables = ruleset::tables(&networks, &self.policies, elements, self.nft_owner);
        Desired { networks, ports, tables, forwarding: Some(true) }
    }

    /// What gives a new VM its place on the network.
    pub(super) fn attach_plan(&self, record: &Record) -> Result<Plan, Problem> {
        match self.desired_port(record) {
            Some(port) => reconcile::attach_plan(&port, None, self.elements(record)),
            None => Ok(Plan::new()),
        }
    }

    /// What takes a VM's place on the network away.
    pub(super) fn release_plan(&self, record: &Record) -> Plan {
        match self.desired_port(record) {
            Some(port) => reconcile::release_plan(&port, self.elements(record)),
            None => Plan::new(),
        }
    }

    /// A network of ours that overlaps with an address or a route that the host has elsewhere.
    pub fn overlap(&self, observed: &Observed) -> Option<String> {
        self.ledger.networks().find_map(|network| {
            let ours = |index: &u32| {
                let link = observed.links.iter().find(|link| link.index == *index);
                link.is_some_and(|link| link.name == network.bridge)
            };
            let (index, prefix) = observed.routes.iter().find(|(index, prefix)| {
                prefix.length() > 0 && prefix.overlaps(network.subnet) && !ours(index)
            })?;
            let link = observed.links.iter().find(|link| link.index == *index);
            let link = link.map_or("another link", |link| &link.name);
            Some(format!(
                "network {} overlaps: the host has a route to {prefix} by {link}",
                network.name
            ))
        })
    }

    /// The tap of a VM, for somebody who opens it. While a hypervisor of ours has it, nobody else
    /// can: a second queue would take frames from the guest.
    pub fn tap_to_open(&self, name: &VmName) -> Result<DesiredPort<'_>, Refusal> {
        let vm = self.vm(name)?;
        let port = self.desired_port(&vm.record).ok_or_else(|| {
            let reason = "a VM of this mode has no tap".into();
            Refusal::InvalidConfig { field: "network.mode".into(), reason }
        })?;
        match vm.life.pid() {
            Some(pid) => Err(Refusal::TapBusy { tap: port.tap.to_string(), pid: Some(pid) }),
            None => Ok(port),
        }
    }

    /// The port that a record gives its VM.
    pub fn desired_port<'a>(&'a self, record: &'a Record) -> Option<DesiredPort<'a>> {
        let port = record.port.as_ref()?;
        let network = self.ledger.network(&port.network)?;
        let mut desired = DesiredPort::new(&record.name, port, &record.spec.network, network);
        let (user, is_handed) = self.tap_owner;
        if self.hypervisor_of(record).is_some_and(|hypervisor| !is_handed(hypervisor)) {
            desired.owner = Some(user);
        }
        desired.shaping = record.limits.or(network.limits).shaping();
        Some(desired)
    }

    /// What a change of a VM's record means for the kernel: for its sets, in one batch unless something
    /// is to be forgotten between, and for how fast the VM's tap sends.
    pub(super) fn exchange_plan(&self, before: &Record, after: &Record) -> Plan {
        let (had, has) = (self.desired_port(before), self.desired_port(after));
        let same = had.map(|port| port.address) == has.map(|port| port.address);
        let forget = |port: Option<DesiredPort<'_>>, at| port.filter(|_| !same)?.forget(at);
        let (gone, new) = self.differences(before, after);
        let mut forgotten: Plan = gone.iter().filter_map(Op::forget_flows).collect();
        forgotten.extend(forget(had, Handover::Released));
        forgotten.extend(forget(has, Handover::Assigned));
        let mut plan = Plan::new();
        match (gone.is_empty(), new.is_empty()) {
            (false, false) if forgotten.is_empty() => {
                plan.push(Op::ExchangeElements { gone, new });
            }
            (nothing_gone, nothing_new) => {
                plan.extend((!nothing_gone).then_some(Op::RemoveElements(gone)));
                plan.extend(forgotten);
                plan.extend((!nothing_new).then_some(Op::AddElements(new)));
            }
        }
        plan.extend(has.and_then(|port| port.shape(had.and_then(|had| had.shaping))));
        plan
    }

    /// The elements that only one of two records has: those of the first, those of the second.
    fn differences(&self, before: &Record, after: &Record) -> (Vec<Element>, Vec<Element>) {
        let (before, after) = (self.elements(before), self.elements(after));
        let without = |these: &[Element], those: &[Element]| -> Vec<Element> {
            these.iter().filter(|element| !those.contains(element)).cloned().collect()
        };
        (without(&before, &after), without(&after, &before))
    }

    /// Whether the host has rules for its bridges.
    pub(super) fn is_guarded(&self) -> bool {
        is_guarded(self.ledger.networks())
    }

    /// What a VM is in the sets of our tables.
    pub(super) fn elements(&self, record: &Record) -> Vec<Element> {
        let Some(port) = &record.port else { return Vec::new() };
        let Some(network) = self.ledger.network(&port.network) else { return Vec::new() };
        let mut elements = ruleset::exposed(port.address(), &record.exposed);
        if let Some((address, policy)) = port.address().zip(self.policy_of(record)) {
            elements.extend(ruleset::policy(address, policy));
        }
        if !self.is_guarded() {
            return elements;
        }
        let (spec, given) = (&record.spec.network, port.lease.filter(|lease| lease.given));
        elements.extend(ruleset::elements(&Guest {
            tap: &port.tap,
            mac: port.mac,
            ip: port.ip.or(given.map(|lease| lease.ip)),
            asks_others: spec.mode == Mode::Dhcp && network.dhcp == Dhcp::External,
            antispoof: spec.antispoof.unwrap_or(network.antispoof),
            ipv6: network.ipv6,
            isolated: spec.isolated.unwrap_or(network.isolated),
            limits: record.limits.or(network.limits),
        }));
        elements
    }
}
