//! What callers are shown of VMs and networks.

use std::net::IpAddr;
use std::ops::Bound;

use crate::engine::decide::Engine;
use crate::engine::vm::{self, Vm};
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::record::Record;
use crate::model::spec::NetworkSpec;
use crate::model::view::{NetworkView, NicView, VmView};

impl Engine {
    /// The VMs in the order of their names; only those after `last`, if it is given.
    pub fn list<'a>(&'a self, last: Option<&VmName>) -> impl Iterator<Item = VmView> + use<'a> {
        self.vms_after(last).map(|vm| self.show(vm))
    }

    /// The VMs after one, in the order of their names; without one, all.
    pub fn vms_after<'a>(
        &'a self,
        last: Option<&VmName>,
    ) -> impl Iterator<Item = &'a Vm> + use<'a> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let vms = self.state.vms.range::<VmName, _>((from, Bound::Unbounded));
        vms.map(|(_, vm)| vm)
    }

    /// All networks, the default one first.
    pub fn networks(&self) -> Vec<NetworkView> {
        let mut views = self.state.ledger.views();
        for (view, network) in views.iter_mut().zip(self.state.ledger.networks()) {
            view.name_servers = self.name_servers(network);
        }
        views
    }

    /// What is added to the kernel command line of a VM's guest; a namespace has none.
    pub fn kernel_args(&self, record: &Record) -> String {
        if record.spec.attachment.as_ref().is_some_and(|attachment| !attachment.is_for_guest()) {
            return String::new();
        }
        let networks = self.networks_of(record);
        let servers = networks.first().map(|network| self.name_servers(network));
        vm::kernel_args_of(record, &networks, &servers.unwrap_or_default())
    }

    /// Takes the name servers of the host, as far as guests can reach them.
    pub fn resolved(&mut self, resolvers: &[IpAddr]) {
        if self.known.resolvers != resolvers {
            self.known.resolvers = resolvers.into();
        }
    }

    /// A VM as the interface shows it.
    pub fn show(&self, vm: &Vm) -> VmView {
        let record = &vm.record;
        let nics = record.interfaces().filter_map(|(nic, spec)| self.show_nic(nic, spec)).collect();
        let kernel_args = match vm.stranded {
            Some(_) => String::new(),
            None => self.kernel_args(record),
        };
        vm.view(nics, kernel_args.into(), &self.host.hypervisor)
    }

    fn show_nic(&self, nic: &Nic, spec: &NetworkSpec) -> Option<NicView> {
        let network = self.network_of(nic)?;
        let ip = nic.address();
        let traffic = self.traffic(nic, spec, network);
        Some(NicView {
            mode: spec.mode,
            network: nic.network.clone(),
            tap: nic.tap.clone(),
            ifindex: nic.ifindex,
            mac: nic.mac,
            queues: spec.queues.unwrap_or(1),
            ip,
            netmask: ip.and(network.ipv4).map(|ipv4| ipv4.prefix.netmask()),
            gateway: ip.and(network.gateway()),
            addresses: spec.addresses.clone(),
            ip6: nic.ip6,
            inner: nic.inner.clone(),
            claimed: nic.claimed.clone(),
            mtu: spec.mtu.unwrap_or(network.mtu),
            policy: Some(traffic.policy.into()),
            limits: Some(Box::new(traffic.limits.in_force())),
            expose: nic.exposed.clone(),
        })
    }
}
