//! Addresses that move between VMs, such as the virtual address of keepalived.
//!
//! Each VM that may use such an address names it (`network.addresses`). Several VMs of a network
//! may name the same, and nobody gets it as a lease. volnet does not decide which guest has it:
//! the guests agree on that, and whoever has it announces it by ARP. In terms of the rules:
//!
//! - the address is one of the guest's own on the bridge, for each VM that names it. All other
//!   guests are kept from using it;
//! - limits and isolation are those of the port, whatever address a packet has;
//! - a policy is found by the sender's address, and by that alone nobody can say which of the VMs
//!   sent a packet. So the VMs of one address should have the same policy. As long as they do not,
//!   the address has the policy [`NONE`], and `check` says so;
//! - a question for names from the address is answered if it makes no difference which VM asks;
//! - the kernel's memory of the address is deleted when its first VM comes and when its last one
//!   goes. In between it belongs to the same service.
//!
//! So what the kernel should hold of an address depends on all VMs that name it, not on one. The
//! functions here look at all, with the record of one VM as it was or as it is to be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::engine::decide::Engine;
use crate::engine::names::Asker;
use crate::engine::stranded;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::policy::NONE;
use crate::model::record::Record;
use crate::model::traffic::InForce;
use crate::plan::op::{Handover, Op, Plan};
use crate::plan::ruleset::{self, Element};

/// The policies and VMs of each movable address, by its network and itself.
type Movers<'a> = BTreeMap<(&'a str, Ipv4Addr), Vec<(&'a str, &'a VmName)>>;

impl Engine {
    /// What all movable addresses are in the sets of our tables, besides those of the ports.
    pub(super) fn elements_of_movable(&self) -> Vec<Element> {
        elements(&self.movers(self.placed().map(|vm| &*vm.record)))
    }

    /// What these addresses would be there if the VM of that name had this record.
    pub(super) fn elements_while(
        &self,
        addresses: &BTreeSet<(&str, Ipv4Addr)>,
        name: Option<&VmName>,
        record: Option<&Record>,
    ) -> Vec<Element> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let mut users = self.movers(self.others(name).chain(record));
        users.retain(|address, _| addresses.contains(address));
        elements(&users)
    }

    /// The movable addresses whose VMs have different policies, each with its VMs.
    pub fn disputed(&self) -> Vec<(Ipv4Addr, Vec<&VmName>)> {
        let users = self.movers(self.placed().map(|vm| &*vm.record));
        let disputed = users.into_iter().filter(|(_, users)| policy(users) == NONE);
        let disputed =
            disputed.filter(|(_, users)| users.iter().any(|(policy, _)| *policy != NONE));
        let named = |((_, ip), users): (_, Vec<(_, _)>)| {
            (ip, users.into_iter().map(|(_, name)| name).collect())
        };
        disputed.map(named).collect()
    }

    /// Who asks from a movable address. One of its VMs does, and nobody can say which. So it counts
    /// as the first by name if that makes no difference: all have the same policy, and each may
    /// know of all others. If not, nobody asks.
    pub(super) fn movable_asker(&self, network: &NetworkConfig, ip: Ipv4Addr) -> Option<Asker<'_>> {
        let ledger = &self.state.ledger;
        let own = ledger.network(&network.name).filter(|own| ledger.is_movable(&own.name, ip))?;
        let interfaces =
            self.placed().flat_map(|vm| vm.record.interfaces().map(move |it| (vm, it)));
        let users = interfaces
            .filter(|(_, (nic, spec))| nic.network == own.name && spec.addresses.contains(&ip));
        let mut askers =
            users.map(|(vm, (nic, spec))| (&vm.record.name, self.traffic(nic, spec, own)));
        let (vm, first) = askers.next()?;
        let is_alone = |(other, traffic): (&VmName, InForce<'_>)| {
            other == vm || traffic.policy == first.policy && !traffic.isolated && !first.isolated
        };
        let policy = self.host.policies.iter().find(|policy| policy.name == first.policy);
        askers.all(is_alone).then_some(Asker::Guest { vm, isolated: first.isolated, policy })
    }

    /// What deletes the kernel's memory of those movable addresses of a VM that no other VM names.
    pub(super) fn forget_movable(&self, record: &Record, at: Handover) -> Plan {
        let others = || self.others(Some(&record.name)).flat_map(stranded::movable);
        let alone = stranded::movable(record).filter(|own| others().all(|other| other != *own));
        let forget = |(network, ip): (&str, Ipv4Addr)| {
            let link = self.state.ledger.network(network)?.bridge.clone();
            Some(Op::ForgetAddress { link, address: IpAddr::V4(ip), at })
        };
        alone.filter_map(forget).collect()
    }

    /// The records of all VMs that have their place, but the named one.
    fn others<'a>(&'a self, name: Option<&'a VmName>) -> impl Iterator<Item = &'a Record> {
        let others = self.placed().filter(move |vm| Some(&vm.record.name) != name);
        others.map(|vm| &*vm.record)
    }

    fn movers<'a>(&'a self, records: impl Iterator<Item = &'a Record>) -> Movers<'a> {
        let mut users = Movers::new();
        for record in records {
            for (nic, spec) in record.interfaces().filter(|(_, spec)| !spec.addresses.is_empty()) {
                let Some(network) = self.state.ledger.network(&nic.network) else { continue };
                let policy = self.traffic(nic, spec, network).policy;
                for ip in &spec.addresses {
                    let user = (policy, &record.name);
                    users.entry((&nic.network, *ip)).or_default().push(user);
                }
            }
        }
        users
    }
}

/// What these addresses are in the sets of their policies.
fn elements(users: &Movers<'_>) -> Vec<Element> {
    users.iter().flat_map(|((_, ip), users)| ruleset::policy((*ip).into(), policy(users))).collect()
}

/// The policy of an address with these users.
fn policy<'a>(users: &[(&'a str, &VmName)]) -> &'a str {
    match users {
        [(first, _), others @ ..] if others.iter().all(|(policy, _)| policy == first) => first,
        _ => NONE,
    }
}
