//! What one network hands out: addresses, Ethernet addresses, ports, and who has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{BRIDGE_PORTS_MAX, Conflict, HOST_OWNER};
use crate::engine::ipam::{AddressPool, Why};
use crate::model::error::Refusal;
use crate::model::inner::Inner;
use crate::model::kernel_args::host_name;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::{Dhcp, Dns, Ipv4Network, NetworkConfig};
use crate::model::nic::{Nic, NicName};
use crate::model::spec::NetworkSpec;
use crate::model::view::NetworkView;

/// The owner of an address that no VM of its network gets.
const RESERVED_OWNER: &str = "the reserved addresses of its network";

/// Everything that is handed out on one network.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) config: NetworkConfig,
    /// Whether it is not of the settings.
    pub(super) added: bool,
    pub(super) pool: AddressPool,
    /// The owner of each Ethernet address; `None` is the bridge.
    pub(super) macs: BTreeMap<Mac, Option<VmName>>,
    /// The movable addresses, each with the number of interfaces that may use it. In the pool they
    /// are set aside.
    pub(super) movable: BTreeMap<Ipv4Addr, u32>,
    /// The addresses that guests take for their own or their gateway's, each with the number of
    /// interfaces that have it inside. They are leased only to those who name them.
    pub(super) inner: BTreeMap<Ipv4Addr, u32>,
    /// The VM of each leased address.
    pub(super) owners: BTreeMap<Ipv4Addr, VmName>,
    /// The VM of each IPv6 address, the link-local ones included.
    pub(super) owners6: BTreeMap<Ipv6Addr, VmName>,
    /// The VMs by what else they are called than by their names, see [`super::Ledger::called`].
    pub(super) labels: BTreeMap<String, BTreeSet<VmName>>,
    /// Addresses of machines that are no VMs. In the pool they are leased, to nobody.
    pub(super) taken: BTreeSet<Ipv4Addr>,
}

/// Why an address cannot be movable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Immovable {
    /// It is the guests' gateway.
    Gateway,
    /// The pool cannot set it aside.
    Address(Why),
}

impl fmt::Display for Immovable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Immovable::Gateway => f.write_str("it is the gateway"),
            Immovable::Address(why) => why.fmt(f),
        }
    }
}

impl Account {
    /// What a network hands out while nobody has anything. The error is why that cannot be.
    pub(super) fn new(config: NetworkConfig) -> Result<Account, String> {
        let pool = match config.ipv4 {
            Some(Ipv4Network { prefix, host }) => AddressPool::new(prefix, host)
                .map_err(|reason| format!("network {}: {reason}", config.name))?
                .passing_over(&config.passed_over()),
            None => AddressPool::empty(),
        };
        let macs = BTreeMap::from([(config.mac, None)]);
        let (movable, inner, taken) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (owners, owners6, labels) = Default::default();
        let added = false;
        Ok(Account { pool, macs, movable, inner, taken, owners, owners6, labels, config, added })
    }

    /// Whether the network has a free port and the wanted address, or any address. In dhcp mode the
    /// address counts, too, because the guest will ask for one.
    pub(super) fn has_room(&self, wanted: &NetworkSpec) -> bool {
        let all = (self.leased() + self.free()) as usize;
        let asks_us = wanted.mode == Mode::Dhcp && self.config.dhcp == Dhcp::Builtin;
        let has_address = match wanted.ip {
            Some(ip) => self.config.contains(ip.into()),
            None if asks_us => self.ports() < all,
            None => !self.leases(wanted.mode) || self.free() > 0,
        };
        let here = |ip: &Ipv4Addr| self.config.contains((*ip).into());
        let is_here6 = |ip: Ipv6Addr| self.config.contains(ip.into());
        self.ports() < BRIDGE_PORTS_MAX
            && has_address
            && wanted.addresses.iter().all(here)
            && wanted.ip6.is_none_or(is_here6)
    }

    /// Whether an interface in this mode is leased an IPv4 address.
    pub(super) fn leases(&self, mode: Mode) -> bool {
        mode.needs_ip_allocation() && self.config.ipv4.is_some()
    }

    /// Why an IPv4 address is none of the network's.
    fn why_outside(&self, ip: Ipv4Addr) -> String {
        let name = &self.config.name;
        match self.config.ipv4 {
            Some(ipv4) => format!("{ip} is outside of {} of network {name}", ipv4.prefix),
            None => format!("network {name} has no IPv4"),
        }
    }

    /// The first of these addresses that cannot be movable, and why.
    pub(super) fn first_immovable(&self, addresses: &[Ipv4Addr]) -> Option<(Ipv4Addr, Immovable)> {
        addresses.iter().find_map(|&ip| {
            let why = match self.pool.why_not(ip) {
                _ if self.config.gateway == Some(ip) => Immovable::Gateway,
                None => return None,
                Some(Why::Leased) if self.movable.contains_key(&ip) => return None,
                Some(why) => Immovable::Address(why),
            };
            Some((ip, why))
        })
    }

    /// Refuses movable addresses that an interface cannot have.
    pub(super) fn check_addresses(&self, wanted: &NetworkSpec) -> Result<(), Conflict> {
        if let Some(ip) = wanted.ip.filter(|ip| wanted.addresses.contains(ip)) {
            return Err(refuse_addresses(format!("{ip} is the VM's own address")).into());
        }
        match self.first_immovable(&wanted.addresses) {
            None => Ok(()),
            Some((ip, Immovable::Address(Why::Leased))) => Err(Conflict::Ip(ip)),
            Some((ip, Immovable::Address(Why::Outside))) => {
                Err(refuse_addresses(self.why_outside(ip)).into())
            }
            Some((ip, Immovable::Gateway | Immovable::Address(_))) => {
                Err(Refusal::AddressInUse { ip: ip.into(), owner: HOST_OWNER.into() }.into())
            }
        }
    }

    /// Notes what an interface has, whose addresses are leased, and the movable ones checked.
    pub(super) fn enter(&mut self, vm: &VmName, nic: &Nic, movable: &[Ipv4Addr]) {
        self.join(movable);
        self.believe(nic.inner.as_deref());
        self.macs.insert(nic.mac, Some(vm.clone()));
        self.call(vm);
        self.owners.extend(leased(nic).map(|ip| (ip, vm.clone())));
        self.own6(vm, nic);
    }

    /// Takes all that back, and releases its addresses.
    pub(super) fn leave(&mut self, vm: Option<&VmName>, nic: &Nic, movable: &[Ipv4Addr]) {
        self.part(movable);
        self.believe_no_more(nic.inner.as_deref());
        self.macs.remove(&nic.mac);
        if let Some(vm) = vm {
            self.call_no_more(vm);
        }
        for ip in leased(nic) {
            self.pool.release(ip);
            self.owners.remove(&ip);
        }
        for ip in nic.addresses6() {
            self.owners6.remove(&ip);
        }
    }

    /// Leases the address of a record again. The error says why it cannot be.
    pub(super) fn lease_again(&mut self, ip: Ipv4Addr) -> Result<(), String> {
        self.pool.lease_exactly(ip).map_err(|why| match why {
            Why::Outside => match self.config.ipv4 {
                Some(ipv4) => format!("its address {ip} is outside of {}", ipv4.prefix),
                None => format!("its address is {ip}, and {}", self.why_outside(ip)),
            },
            Why::Network | Why::Broadcast | Why::Host => {
                format!("its address {ip} is reserved in its network")
            }
            Why::Leased => format!("its address {ip} belongs to another VM"),
        })
    }

    /// One more interface may use these addresses, which were checked.
    pub(super) fn join(&mut self, addresses: &[Ipv4Addr]) {
        for ip in addresses {
            let users = self.movable.entry(*ip).or_default();
            if *users == 0 {
                // It is free: that was checked.
                let _ = self.pool.set_aside(*ip);
            }
            *users += 1;
        }
    }

    /// One interface less may use them. If it was the last, they are free.
    pub(super) fn part(&mut self, addresses: &[Ipv4Addr]) {
        for ip in addresses {
            let Some(users) = self.movable.get_mut(ip) else { continue };
            *users -= 1;
            if *users == 0 {
                self.movable.remove(ip);
                self.pool.release(*ip);
            }
        }
    }

    /// The addresses that are leased to VMs.
    pub(super) fn leased(&self) -> u32 {
        self.pool.leased() - (self.movable.len() + self.taken.len()) as u32
    }

    /// Ports in use: one Ethernet address per port, and one for the bridge itself.
    pub(super) fn ports(&self) -> usize {
        self.macs.len() - 1
    }

    /// Notes what a VM is called, if that is not its name.
    fn call(&mut self, vm: &VmName) {
        for label in other_labels(vm) {
            self.labels.entry(label).or_default().insert(vm.clone());
        }
    }

    fn call_no_more(&mut self, vm: &VmName) {
        for label in other_labels(vm) {
            if let Some(called) = self.labels.get_mut(&label) {
                called.remove(vm);
                if called.is_empty() {
                    self.labels.remove(&label);
                }
            }
        }
    }

    pub(super) fn view(&self) -> NetworkView {
        let NetworkConfig {
            name,
            bridge,
            ipv4,
            mtu,
            nat,
            dhcp,
            dns,
            domain,
            ipv6,
            peers,
            services,
            ..
        } = self.config.clone();
        let ports = self.ports() as u32;
        let ports_free = (BRIDGE_PORTS_MAX as u32).saturating_sub(ports);
        let (leased, free) = (self.leased(), self.pool.free());
        NetworkView {
            name,
            bridge,
            subnet: ipv4.map(|ipv4| ipv4.prefix),
            host_ip: ipv4.map(|ipv4| ipv4.host),
            subnet6: ipv6.map(|ipv6| ipv6.prefix),
            host_ip6: ipv6.map(|ipv6| ipv6.host),
            mtu,
            nat: if ipv4.is_some() { nat } else { ipv6.is_some_and(|ipv6| ipv6.nat) },
            dhcp,
            // The engine knows them.
            name_servers: Vec::new(),
            domain: (dns == Dns::Builtin).then_some(domain),
            peers,
            added: self.added,
            services,
            leased,
            free,
            ports,
            ports_free,
        }
    }

    /// Refuses one interface more than the bridge has ports.
    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        if self.ports() < BRIDGE_PORTS_MAX {
            return Ok(());
        }
        let bridge = self.config.bridge.clone();
        Err(Refusal::BridgeFull { bridge, limit: BRIDGE_PORTS_MAX })
    }

    /// Refuses an interface that nobody would give an address.
    pub(super) fn check_mode(&self, mode: Mode) -> Result<(), Refusal> {
        if mode != Mode::Dhcp || self.config.dhcp != Dhcp::Off {
            return Ok(());
        }
        let reason = format!("dhcp is off on the network {}", self.config.name);
        Err(Refusal::InvalidConfig { field: "network.mode".into(), reason })
    }

    pub(super) fn check_mtu(&self, wanted: &NetworkSpec) -> Result<(), Refusal> {
        match wanted.mtu {
            Some(mtu) if mtu > self.config.mtu => Err(Refusal::InvalidConfig {
                field: "network.mtu".into(),
                reason: format!("{mtu} is more than the MTU of the network, {}", self.config.mtu),
            }),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn choose_mac(
        &self,
        name: NicName<'_>,
        wanted: &NetworkSpec,
    ) -> Result<Mac, Conflict> {
        let own = || Mac::of_guest(&self.config.name, &name.to_string());
        let mac = wanted.mac.unwrap_or_else(own);
        if self.macs.contains_key(&mac) {
            return Err(Conflict::Mac(mac));
        }
        Ok(mac)
    }

    /// The identity that the guest of an interface has inside: the wanted one, or that of its
    /// network.
    pub(super) fn choose_inner(&self, wanted: &NetworkSpec) -> Result<Option<Inner>, Refusal> {
        let refuse = |field: &str, reason: String| {
            Err(Refusal::InvalidConfig { field: format!("network.{field}"), reason })
        };
        let Some(spec) = wanted.inner.as_deref().or(self.config.inner.as_ref()) else {
            return Ok(None);
        };
        if wanted.mode != Mode::Bridged {
            let reason = format!(
                "network {} has an inner identity for each guest, which is for mode bridged: there \
                 a guest that asks by DHCP is answered, too",
                self.config.name
            );
            return refuse("mode", reason);
        }
        match spec.on(&self.config) {
            Err((field, reason)) => refuse(field, reason),
            Ok(inner) => match inner.addresses().iter().find(|ip| wanted.addresses.contains(ip)) {
                Some(ip) => refuse("addresses", format!("{ip} is an inner address of the guest")),
                None => Ok(Some(inner)),
            },
        }
    }

    /// One more interface has these addresses inside.
    fn believe(&mut self, inner: Option<&Inner>) {
        for ip in inner.into_iter().flat_map(Inner::addresses) {
            *self.inner.entry(ip).or_default() += 1;
        }
    }

    fn believe_no_more(&mut self, inner: Option<&Inner>) {
        for ip in inner.into_iter().flat_map(Inner::addresses) {
            if let Some(count) = self.inner.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    self.inner.remove(&ip);
                }
            }
        }
    }

    /// How many addresses can be leased to those who name none.
    pub(super) fn free(&self) -> u32 {
        let inner = self.inner.keys().filter(|ip| self.pool.is_free(**ip)).count();
        self.pool.free().saturating_sub(inner as u32)
    }

    /// The IPv6 address of an interface: the wanted one, or that of its Ethernet address.
    pub(super) fn choose_ip6(
        &self,
        mac: Mac,
        wanted: Option<Ipv6Addr>,
    ) -> Result<Option<Ipv6Addr>, Refusal> {
        let refuse = |reason| Err(Refusal::InvalidConfig { field: "network.ip6".into(), reason });
        let NetworkConfig { name, ipv6, .. } = &self.config;
        let (ipv6, ip) = match (ipv6, wanted) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return refuse(format!("network {name} has no IPv6")),
            (Some(ipv6), wanted) => (ipv6, wanted.unwrap_or_else(|| ipv6.address_of(mac))),
        };
        let owner = match self.owners6.get(&ip) {
            _ if !ipv6.prefix.contains(ip) => {
                return refuse(format!("{ip} is outside of {} of network {name}", ipv6.prefix));
            }
            _ if ipv6.is_reserved(ip) => HOST_OWNER.into(),
            Some(owner) => owner.to_string(),
            None => return Ok(Some(ip)),
        };
        Err(Refusal::AddressInUse { ip: ip.into(), owner })
    }

    /// Notes whose the IPv6 addresses of an interface are.
    pub(super) fn own6(&mut self, vm: &VmName, nic: &Nic) {
        self.owners6.extend(nic.addresses6().map(|ip| (ip, vm.clone())));
    }

    /// Leases the address of an interface: the wanted one, or any. `None` if the network has no
    /// IPv4.
    pub(super) fn lease(&mut self, wanted: &NetworkSpec) -> Result<Option<Ipv4Addr>, Conflict> {
        let Some(ip) = wanted.ip else {
            let Some(Ipv4Network { prefix, .. }) = self.config.ipv4 else { return Ok(None) };
            let leased = self.pool.lease(&unwanted(&self.inner, &wanted.addresses));
            let network = || self.config.name.clone();
            let none = || Refusal::NoFreeAddress { network: network(), subnet: prefix };
            return leased.map(Some).ok_or_else(|| none().into());
        };
        if self.config.is_reserved(ip) {
            return Err(
                Refusal::AddressInUse { ip: ip.into(), owner: RESERVED_OWNER.into() }.into()
            );
        }
        match self.pool.lease_exactly(ip) {
            Ok(()) => Ok(Some(ip)),
            Err(Why::Leased) => Err(Conflict::Ip(ip)),
            Err(Why::Network | Why::Broadcast | Why::Host) => {
                Err(Refusal::AddressInUse { ip: ip.into(), owner: HOST_OWNER.into() }.into())
            }
            Err(Why::Outside) => {
                let reason = self.why_outside(ip);
                Err(Refusal::InvalidConfig { field: "network.ip".into(), reason }.into())
            }
        }
    }
}

/// The addresses of an interface that are leased from the pool.
fn leased(nic: &Nic) -> impl Iterator<Item = Ipv4Addr> {
    nic.ip.into_iter().chain(nic.lease.map(|lease| lease.ip))
}

/// The addresses that are not chosen for an interface that names these addresses.
pub(super) fn unwanted(inner: &BTreeMap<Ipv4Addr, u32>, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    inner.keys().chain(addresses).copied().collect()
}

/// Refuses the movable addresses of an interface.
pub(super) fn refuse_addresses(reason: String) -> Refusal {
    Refusal::InvalidConfig { field: "network.addresses".into(), reason }
}

/// What a VM is called in lower case, other than its name.
fn other_labels(vm: &VmName) -> BTreeSet<String> {
    let labels = [vm.as_str().to_ascii_lowercase(), host_name(vm).to_ascii_lowercase()];
    labels.into_iter().filter(|label| label != vm.as_str()).collect()
}
