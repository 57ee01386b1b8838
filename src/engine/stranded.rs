//! VMs that have lost their place on their networks.
//!
//! A record says which network, address and link a VM has. The settings may have changed since the
//! daemon ran last: a network is gone, or its subnet is another one. And two records may claim the
//! same thing. Such a VM is *stranded*. It does not keep the daemon from starting:
//!
//! - it is shown with the reason, by `list`, `get` and `check`;
//! - its record stays as it is. When the settings are right again, the next daemon takes it over;
//! - it can be stopped and deleted, and nothing else;
//! - its hypervisor runs on. Its links stay, because the hypervisor has them open, but they are
//!   *parked*: on no bridge, and down. No rule of ours knows the guest there, so it must not send;
//! - no other VM gets its addresses and names, unless another VM has them already ([`Held`]).

use std::net::Ipv4Addr;

use crate::engine::decide::Engine;
use crate::engine::ledger::Held;
use crate::engine::vm::Vm;
use crate::model::error::Refusal;
use crate::model::name::{TapName, VmName};
use crate::model::record::Record;
use crate::plan::op::Plan;
use crate::plan::reconcile;

/// Why a VM is stranded, and what is kept for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// Why, as a sentence about the VM without a full stop.
    pub reason: String,
    /// What nobody else gets.
    pub held: Vec<Held>,
}

impl Engine {
    /// Keeps a VM that cannot be taken over.
    pub(super) fn strand(&mut self, record: Record, reason: String) {
        let held = self.state.ledger.hold(&record);
        let stranded = Some(Box::new(Stranded { reason, held }));
        self.state.vms.insert(record.name.clone(), Vm { stranded, ..Vm::idle(record) });
    }

    /// The VMs that have their place on their networks.
    pub(super) fn placed(&self) -> impl Iterator<Item = &Vm> {
        self.state.vms.values().filter(|vm| vm.stranded.is_none())
    }

    /// The others, each with the reason.
    pub fn stranded(&self) -> impl Iterator<Item = (&VmName, &str)> {
        let stranded = |vm: &&Vm| vm.stranded.is_some();
        self.state.vms.values().filter(stranded).map(|vm| {
            let reason = vm.stranded.as_ref().map_or("", |stranded| &*stranded.reason);
            (&vm.record.name, reason)
        })
    }

    /// A VM by name, for what only one that has its place can do.
    pub fn placed_vm(&self, name: &VmName) -> Result<&Vm, Refusal> {
        let vm = self.vm(name)?;
        match &vm.stranded {
            None => Ok(vm),
            Some(stranded) => {
                let reason = format!("VM {name} cannot be taken over: {}", stranded.reason);
                Err(Refusal::InvalidConfig { field: "networks".into(), reason })
            }
        }
    }

    /// The links of stranded VMs, which are not another VM's.
    pub(super) fn parked(&self) -> impl Iterator<Item = &TapName> {
        let stranded = self.state.vms.values().filter(|vm| vm.stranded.is_some());
        stranded.flat_map(|vm| self.parked_of(vm).map(|(tap, _)| tap))
    }

    /// Whether this is one of them, by name.
    pub(super) fn is_of_stranded(&self, tap: &str) -> bool {
        let owner = self.state.ledger.owner_of_tap(tap).and_then(|name| self.state.vms.get(name));
        owner.is_some_and(|vm| {
            vm.stranded.is_some() && self.parked_of(vm).any(|(its, _)| its.as_str() == tap)
        })
    }

    fn parked_of<'a>(&'a self, vm: &'a Vm) -> impl Iterator<Item = (&'a TapName, Option<u32>)> {
        let is_its = |tap: &TapName| self.state.ledger.owner_of_tap(tap.as_str());
        let nics = vm.record.nics.iter();
        let its = nics.filter(move |nic| is_its(&nic.tap) == Some(&vm.record.name));
        its.map(|nic| (&nic.tap, nic.ifindex))
    }

    /// What removes the links of a stranded VM.
    pub(super) fn unpark_plan(&self, vm: &Vm) -> Plan {
        let links = self.parked_of(vm);
        links.filter_map(|(tap, index)| Some(reconcile::remove(tap.as_str(), index?))).collect()
    }
}

/// The addresses of a record.
pub(super) fn addresses(record: &Record) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    record.nics.iter().flat_map(|nic| {
        let all = nic.ip.into_iter().chain(nic.lease.map(|lease| lease.ip));
        all.map(|ip| (&*nic.network, ip))
    })
}

/// The movable addresses of a record.
pub(super) fn movable(record: &Record) -> impl Iterator<Item = (&str, Ipv4Addr)> {
    record.interfaces().flat_map(|(nic, spec)| spec.addresses.iter().map(|ip| (&*nic.network, *ip)))
}
