//! The names of VMs, as the guests of their network see them.
//!
//! A VM is called by its name and by its host name ([`host_name`]), in upper or lower case. Of
//! several VMs that are called the same, the one whose very name it is in lower case has it, then
//! the first by name. So a name leads to the same VM as long as that exists. [`GATEWAY`] is the
//! host, also if a VM has this name.
//!
//! All follows from the records and the ledger: a VM has its names from its create to its end, and
//! its addresses from the moment in which it has them. The bridges of one network have their names
//! in common.

use std::net::IpAddr;

use crate::engine::decide::Engine;
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::kernel_args::host_name;
use crate::model::name::VmName;
use crate::model::net::{Dns, NetworkConfig};
use crate::model::nic::Nic;
use crate::model::policy::{Passed, Policy};
use crate::model::spec::NetworkSpec;
use crate::plan::firewall::Surroundings;

/// What the host is called.
pub const GATEWAY: &str = "gateway";

/// Who asks for names.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// The host itself.
    Host,
    /// A guest of the network.
    Guest {
        /// Its VM.
        vm: &'a VmName,
        /// Whether it knows of no other VM.
        isolated: bool,
        /// What it may send beyond its network; `None`: nothing.
        policy: Option<&'a Policy>,
    },
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The host.
    Host,
    /// A VM.
    Vm(&'a VmName),
    /// Nobody, but it is an address of the network.
    Nobody,
    /// It is not an address of the network.
    Elsewhere,
}

impl Asker<'_> {
    /// Whether it may know of this VM.
    fn sees(&self, other: &VmName) -> bool {
        match self {
            Asker::Guest { vm, isolated: true, .. } => *vm == other,
            Asker::Host | Asker::Guest { isolated: false, .. } => true,
        }
    }
}

/// Why volnet does not hear the questions of the guests of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It does not have the port.
    Port(String),
    /// A firewall drops what they send to the host.
    Firewall(String),
}

impl Engine {
    /// Who has this address of a network; `None` if neither the host nor a VM has it.
    pub fn asker(&self, network: &NetworkConfig, address: IpAddr) -> Option<Asker<'_>> {
        if network.is_host(address) {
            return Some(Asker::Host);
        }
        let Some(vm) = self.vm_at(network, address) else {
            let IpAddr::V4(ip) = address else { return None };
            return self.movable_asker(network, ip);
        };
        let (nic, spec) = vm.record.interfaces().find(|(nic, _)| has(nic, network, address))?;
        let own = self.state.ledger.network(&nic.network)?;
        let traffic = self.traffic(nic, spec, own);
        let policy = self.host.policies.iter().find(|policy| policy.name == traffic.policy);
        Some(Asker::Guest { vm: &vm.record.name, isolated: traffic.isolated, policy })
    }

    /// A guest asks for a name.
    pub fn asked_for_name(&mut self, vm: &VmName, now: Now) {
        if let Some(vm) = self.state.vms.get_mut(vm) {
            vm.named = Some(now.mono);
        }
    }

    /// The addresses of what is called `label` on a network. They are none while a guest has not
    /// asked for one. `None`: nobody that the asker may know of is called that.
    pub fn addresses_of(
        &self,
        network: &NetworkConfig,
        asker: Asker<'_>,
        label: &str,
    ) -> Option<Vec<IpAddr>> {
        let label = label.to_ascii_lowercase();
        if label == GATEWAY {
            return Some(network.host_addresses().collect());
        }
        let named = VmName::new(&label).ok();
        let named = named.as_ref().and_then(|name| self.state.vms.get(name));
        let called = self.state.ledger.called(&network.whole, &label);
        let called = called.filter_map(|name| self.state.vms.get(name));
        let mut vms = named.into_iter().chain(called);
        vms.find_map(|vm| {
            let nics: Vec<_> = self.nics_on(vm, network).collect();
            let known = !nics.is_empty() && asker.sees(&vm.record.name);
            known.then(|| nics.into_iter().flat_map(|(nic, _)| nic.addresses()).collect())
        })
    }

    /// Who has this address on a network, as far as the asker may know.
    pub fn owner_of_address(
        &self,
        network: &NetworkConfig,
        asker: Asker<'_>,
        address: IpAddr,
    ) -> Owner<'_> {
        let parts = || self.parts(network).filter(|part| part.contains(address));
        if parts().next().is_none() {
            return Owner::Elsewhere;
        }
        if parts().any(|part| part.is_host(address)) {
            return Owner::Host;
        }
        let vm = parts().find_map(|part| self.vm_at(part, address));
        match vm.map(|vm| &vm.record.name).filter(|name| asker.sees(name)) {
            Some(name) => Owner::Vm(name),
            None => Owner::Nobody,
        }
    }

    /// The name servers that the guests of a network are told.
    pub fn name_servers(&self, network: &NetworkConfig) -> Vec<IpAddr> {
        match &network.dns {
            Dns::Builtin if self.why_unheard(network).is_none() => {
                network.host_addresses().collect()
            }
            Dns::Servers(servers) => servers.clone(),
            Dns::Builtin | Dns::Off => {
                let speaks = |ip: &IpAddr| match ip {
                    IpAddr::V4(_) => network.ipv4.is_some(),
                    IpAddr::V6(_) => network.ipv6.is_some(),
                };
                self.known.resolvers.iter().copied().filter(speaks).collect()
            }
        }
    }

    /// Which names a guest with this policy may ask the resolvers of the host for.
    pub fn passed(&self, policy: &Policy) -> Passed {
        policy.passed(&self.known.resolvers)
    }

    /// Questions of the guests of a network are heard, or not, for this reason. Until that is
    /// known, they are.
    pub fn names_unheard(&mut self, network: &str, reason: Option<Unheard>) {
        match reason {
            None => self.known.unheard.remove(network),
            Some(reason) => self.known.unheard.insert(network.into(), reason),
        };
    }

    /// Why volnet does not hear the questions of the guests of a network.
    pub fn why_unheard(&self, network: &NetworkConfig) -> Option<&Unheard> {
        self.known.unheard.get(&network.name)
    }

    /// Takes which firewalls keep questions from the host, as they come and go.
    pub fn names_kept(&mut self, surroundings: &Surroundings) {
        let asked = self.configured().filter(|network| network.dns == Dns::Builtin);
        let kept = asked.map(|it| {
            (it.name.clone(), surroundings.keeps_from_host(&it.bridge, it.ipv4.is_some()))
        });
        for (network, reason) in kept.collect::<Vec<_>>() {
            if !matches!(self.known.unheard.get(&network), Some(Unheard::Port(_))) {
                self.names_unheard(&network, reason.map(Unheard::Firewall));
            }
        }
    }

    /// The VM that has this address on this network.
    fn vm_at(&self, network: &NetworkConfig, address: IpAddr) -> Option<&Vm> {
        let ledger = &self.state.ledger;
        let owner = match address {
            IpAddr::V4(ip) => ledger.owner_of_ip(&network.name, ip),
            IpAddr::V6(ip) => ledger.owner_of_ip6(&network.name, ip),
        };
        let vm = self.state.vms.get(owner?)?;
        // An address that is only offered is nobody's yet.
        vm.record.nics.iter().any(|nic| has(nic, network, address)).then_some(vm)
    }

    /// The interfaces of a VM on a whole network; none if the VM has no place there.
    fn nics_on<'a>(
        &'a self,
        vm: &'a Vm,
        network: &'a NetworkConfig,
    ) -> impl Iterator<Item = (&'a Nic, &'a NetworkSpec)> {
        let placed = vm.stranded.is_none();
        vm.record.interfaces().filter(move |(nic, _)| {
            placed && self.network_of(nic).is_some_and(|on| on.whole == network.whole)
        })
    }

    /// The networks that one network is made of.
    fn parts<'a>(&'a self, network: &'a NetworkConfig) -> impl Iterator<Item = &'a NetworkConfig> {
        self.state.ledger.networks().filter(|part| part.whole == network.whole)
    }
}

/// The name by which a VM is shown to those who have its address: its own, unless that is not a
/// name of DNS.
pub fn shown(vm: &VmName) -> String {
    match vm.as_str().split('.').any(str::is_empty) {
        true => host_name(vm),
        false => vm.to_string(),
    }
}

fn has(nic: &Nic, network: &NetworkConfig, address: IpAddr) -> bool {
    nic.network == network.name && nic.all_addresses().any(|own| own == address)
}
