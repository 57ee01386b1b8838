//! What the kernel should hold, as the engine's state says.

use std::net::IpAddr;

use crate::engine::attachment::refuse_attachment;
use crate::engine::decide::Engine;
use crate::engine::stranded;
use crate::engine::vm::Vm;
use crate::model::error::Refusal;
use crate::model::inner::Inner;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::net::is_guarded;
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::nic::{Nic, NicName, is_routed};
use crate::model::prefix::Prefix;
use crate::model::record::Record;
use crate::model::spec::NetworkSpec;
use crate::plan::op::{Handover, Op, Plan};
use crate::plan::reconcile::{self, Desired, DesiredPort, Observed};
use crate::plan::ruleset::{self, Element, GuestPort, InnerPort};

impl Engine {
    /// All that should be: every network, and the port of every VM.
    pub fn desired(&self) -> Desired<'_> {
        let networks: Vec<&NetworkConfig> = self.state.ledger.networks().collect();
        let ports = self.placed().flat_map(|vm| self.desired_ports(&vm.record)).collect();
        let elements = self.placed().flat_map(|vm| self.elements(&vm.record));
        let elements = elements.chain(self.elements_of_movable()).collect();
        let parked = self.parked().map(TapName::as_str).collect();
        let owned = self.host.nft_owner;
        let mut tables = ruleset::tables(&networks, &self.host.policies, elements, owned);
        tables.append(&mut self.tracing_tables());
        // What a bridge that is not ours needs of the host is not ours to say.
        let is_routed = |network: &&NetworkConfig| network.managed && network.ipv4.is_some();
        let forwarding = networks.iter().any(is_routed).then_some(true);
        let forwarding6 = self.has_ipv6().then_some(true);
        Desired { networks, ports, parked, tables, forwarding, forwarding6, ..Desired::default() }
    }

    /// Whether a network has IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.state.ledger.networks().any(|network| network.ipv6.is_some())
    }

    /// What gives a new VM its place on its networks.
    pub(super) fn attach_plan(&self, record: &Record) -> Plan {
        let ports: Vec<_> = self.desired_ports(record).collect();
        let (gone, new) = self.differences(None, Some(record));
        let mut plan = self.forget_movable(record, Handover::Assigned);
        plan.append(&mut reconcile::attach_plan(&ports, gone, new));
        plan
    }

    /// What takes a VM's place on its networks away.
    pub(super) fn release_plan(&self, vm: &Vm) -> Plan {
        if vm.stranded.is_some() {
            return self.unpark_plan(vm);
        }
        let ports: Vec<_> = self.desired_ports(&vm.record).collect();
        let (gone, new) = self.differences(Some(&vm.record), None);
        let mut plan = reconcile::release_plan(&ports, gone, new);
        plan.append(&mut self.forget_movable(&vm.record, Handover::Released));
        plan
    }

    /// A network of ours that overlaps with an address or a route that the host has elsewhere.
    pub fn overlap(&self, observed: &Observed) -> Option<String> {
        self.state.ledger.networks().find_map(|network| overlap_of(network, observed))
    }

    /// The tap of a VM's interface, for somebody who opens it. While a hypervisor of ours has it,
    /// nobody else can: a second queue would take frames from the guest.
    pub fn tap_to_open(&self, name: &VmName, nic: usize) -> Result<DesiredPort<'_>, Refusal> {
        let vm = self.placed_vm(name)?;
        refuse_attachment(&vm.record)?;
        let port = self.desired_ports(&vm.record).nth(nic).ok_or_else(|| match nic {
            0 => Refusal::InvalidConfig {
                field: "network.mode".into(),
                reason: "a VM of this mode has no tap".into(),
            },
            _ => self.no_nic(&vm.record, nic),
        })?;
        match vm.life.pid() {
            Some(pid) => Err(Refusal::TapBusy { tap: port.tap.to_string(), pid: Some(pid) }),
            None => Ok(port),
        }
    }

    /// Why a VM has no interface of that index.
    pub(super) fn no_nic(&self, record: &Record, nic: usize) -> Refusal {
        let (name, count) = (&record.name, record.nics.len());
        let reason = format!("VM {name} has no NIC {nic}: it has {count}, counted from 0");
        Refusal::InvalidConfig { field: "nic".into(), reason }
    }

    /// The taps of a VM, one for each of its interfaces.
    pub fn desired_ports<'a>(
        &'a self,
        record: &'a Record,
    ) -> impl Iterator<Item = DesiredPort<'a>> {
        let (user, openers) = &self.host.tap_owner;
        let hypervisor = self.hypervisor_of(record);
        let opens = openers.iter().any(|opener| Some(&**opener) == hypervisor);
        let user = record.user.map_or(*user, |user| user.uid);
        let opened_by = record.spec.owner.map(|owner| owner.uid).or(opens.then_some(user));
        record.interfaces().enumerate().filter_map(move |(index, (nic, spec))| {
            let network = self.state.ledger.network(&nic.network)?;
            let name = NicName { vm: &record.name, index };
            let traffic = self.traffic(nic, spec, network);
            let mut desired = DesiredPort::new(name, nic, spec, network, traffic);
            if let Some(user) = opened_by {
                desired.opened_by(user);
            }
            if let Some(attachment) = &record.spec.attachment {
                desired.attached(attachment, nic, network);
            }
            Some(desired)
        })
    }

    /// What a change of a VM's record means for the kernel: for its sets, in one batch unless
    /// something is to be forgotten between, for how fast the VM's taps send, and for routes to it.
    pub(super) fn exchange_plan(&self, before: &Record, after: &Record) -> Plan {
        let (gone, new) = self.differences(Some(before), Some(after));
        let mut forgotten: Plan = gone.iter().filter_map(Op::forget_flows).collect();
        let (mut shaped, mut routes) = (Plan::new(), Plan::new());
        for (had, has) in self.desired_ports(before).zip(self.desired_ports(after)) {
            forgotten.extend(had.forget(&has, Handover::Released));
            forgotten.extend(has.forget(&had, Handover::Assigned));
            shaped.extend(has.shape(had.shaping));
            let (gone, new) = (had.routes(), has.routes());
            let lost = gone.iter().filter(|route| !new.contains(route)).cloned();
            let added = new.iter().filter(|route| !gone.contains(route)).cloned();
            routes.extend(lost.map(Op::RemoveRoute).chain(added.map(Op::AddRoute)));
        }
        let mut plan = Plan::new();
        if forgotten.is_empty() {
            plan.extend(Op::exchange(gone, new));
        } else {
            plan.extend(Op::exchange(gone, Vec::new()));
            plan.append(&mut forgotten);
            plan.extend(Op::exchange(Vec::new(), new));
        }
        plan.append(&mut shaped);
        plan.append(&mut routes);
        plan
    }

    /// The elements that are there only before a change of a VM's record, and only after it. A VM
    /// without a record is none.
    fn differences(
        &self,
        before: Option<&Record>,
        after: Option<&Record>,
    ) -> (Vec<Element>, Vec<Element>) {
        let moved = before.into_iter().chain(after).flat_map(stranded::movable).collect();
        let of = |record: Option<&Record>| -> Vec<Element> {
            let own = record.into_iter().flat_map(|record| self.elements(record));
            let name = before.or(after).map(|record| &record.name);
            own.chain(self.elements_while(&moved, name, record)).collect()
        };
        apart(&of(before), &of(after))
    }

    /// Whether the host has rules for its bridges.
    pub fn is_guarded(&self) -> bool {
        is_guarded(self.state.ledger.networks())
    }

    /// What a VM is in the sets of our tables.
    pub(super) fn elements(&self, record: &Record) -> Vec<Element> {
        record.interfaces().flat_map(|(nic, spec)| self.elements_of(nic, spec)).collect()
    }

    /// What an interface is in the sets of our tables.
    pub(super) fn elements_of(&self, nic: &Nic, spec: &NetworkSpec) -> Vec<Element> {
        let Some(network) = self.state.ledger.network(&nic.network) else { return Vec::new() };
        let traffic = self.traffic(nic, spec, network);
        let mut elements = Vec::new();
        for address in nic.addresses() {
            elements.extend(ruleset::exposed(address, &nic.exposed));
            elements.extend(network.services.then(|| ruleset::itself(address)));
        }
        for address in nic.all_addresses().filter(|address| is_routed(*address)) {
            elements.extend(ruleset::policy(address, traffic.policy));
        }
        if !self.is_guarded() {
            return elements;
        }
        elements.extend(ruleset::elements(&GuestPort {
            tap: &nic.tap,
            mac: nic.mac,
            ip: nic.address(),
            addresses: &spec.addresses,
            asks_others: spec.mode == Mode::Dhcp && network.dhcp == Dhcp::External,
            antispoof: traffic.antispoof,
            ip6: nic.ip6,
            claimed: &nic.claimed,
            isolated: traffic.isolated,
            limits: traffic.limits,
            inner: nic.inner.as_deref().and_then(|inner| inner_port(inner, network)),
        }));
        elements.extend(self.tracing_elements(nic, spec));
        elements
    }
}

/// What this network overlaps with: an address or a route that the host has elsewhere.
pub fn overlap_of(network: &NetworkConfig, observed: &Observed) -> Option<String> {
    let ours = |index: &u32| {
        let link = observed.links.iter().find(|link| link.index == *index);
        link.is_some_and(|link| link.name == network.bridge || link.is_our_bridge())
    };
    let is_in_it = |prefix: &Prefix<IpAddr>| network.prefixes().any(|own| prefix.overlaps(own));
    // Ours is more specific than a route to all of its peers.
    let to_peers = |prefix: &Prefix<IpAddr>| {
        let own = match prefix.network() {
            IpAddr::V4(_) => network.ipv4.map_or(0, |ipv4| ipv4.prefix.length()),
            IpAddr::V6(_) => network.ipv6.map_or(0, |ipv6| ipv6.prefix.length()),
        };
        let is_of =
            |peers: &Prefix<IpAddr>| peers.length() <= prefix.length() && peers.overlaps(*prefix);
        prefix.length() < own && network.peers.iter().any(is_of)
    };
    let (index, prefix) = observed.routes.iter().find(|(index, prefix)| {
        prefix.length() > 0 && is_in_it(prefix) && !to_peers(prefix) && !ours(index)
    })?;
    let link = observed.links.iter().find(|link| link.index == *index);
    let link = link.map_or("another link", |link| &link.name);
    Some(format!("network {} overlaps: the host has a route to {prefix} by {link}", network.name))
}

/// The elements that are only in the first list, and those that are only in the second.
pub(super) fn apart(before: &[Element], after: &[Element]) -> (Vec<Element>, Vec<Element>) {
    let without = |these: &[Element], those: &[Element]| -> Vec<Element> {
        these.iter().filter(|element| !those.contains(element)).cloned().collect()
    };
    (without(before, after), without(after, before))
}

/// An inner identity, and what it stands for on its network.
fn inner_port(inner: &Inner, network: &NetworkConfig) -> Option<InnerPort> {
    Some(InnerPort {
        mac: inner.mac,
        ip: inner.ip,
        gateway: [inner.gateway, network.gateway()?],
        gateway_mac: inner.gateway_mac.map(|mac| [mac, network.mac]),
    })
}
