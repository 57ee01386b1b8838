//! The owners of leases, taps, Ethernet addresses, bridge ports and vsock context ids.
//!
//! The [`Ledger`] hands these out and takes them back. It never looks at the kernel. A claim is all
//! or nothing. [`Ledger::restore`] claims the things of a record again. `account` is what one
//! network hands out, and `held` what is kept for VMs that are not taken over.

mod account;
mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use self::account::{Account, refuse_addresses, unwanted};
pub use self::held::Held;
use crate::engine::cid::Cids;
use crate::engine::uids::Uids;
use crate::model::error::Refusal;
use crate::model::mac::Mac;
use crate::model::name::{TapName, VmName};
use crate::model::net::{Dhcp, NetworkConfig};
use crate::model::nic::{Lease, Nic, NicName};
use crate::model::record::Record;
use crate::model::run_as::UIDS_DEFAULT;
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::model::traffic::Traffic;
use crate::model::view::NetworkView;

/// Ports of one Linux bridge: `BR_MAX_PORTS` (net/bridge/br_private.h) less the reserved one.
pub const BRIDGE_PORTS_MAX: usize = 1023;

/// The owner of an address that belongs to the network itself.
pub const HOST_OWNER: &str = "the network itself";

/// Everything that is handed out on this host.
#[derive(Clone, Debug)]
pub struct Ledger {
    networks: Vec<Account>,
    taps: BTreeMap<TapName, VmName>,
    cids: Cids,
    uids: Uids,
    /// Addresses, each with its network, for NICs of VMs that are not made yet. They are leased in
    /// the pool.
    promised: BTreeMap<(VmName, usize), (String, Ipv4Addr)>,
}

/// Why a lease or address cannot be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Another VM has the address. The ledger does not know which one.
    Ip(Ipv4Addr),
    /// Another VM has the Ethernet address.
    Mac(Mac),
    /// The request breaks a rule of its own.
    Refused(Refusal),
}

impl Conflict {
    /// The same, unless it is a NIC of the same VM that has what is wanted: nobody else finds that.
    fn within(self, vm: &VmName, nics: &[Nic]) -> Conflict {
        match self {
            Conflict::Ip(ip) if nics.iter().any(|nic| nic.ip == Some(ip)) => {
                Refusal::AddressInUse { ip: ip.into(), owner: vm.to_string() }.into()
            }
            Conflict::Mac(mac) if nics.iter().any(|nic| nic.mac == mac) => {
                let reason = format!("{mac} belongs to another NIC of this VM");
                Refusal::InvalidConfig { field: "network.mac".into(), reason }.into()
            }
            conflict => conflict,
        }
    }
}

impl From<Refusal> for Conflict {
    fn from(refusal: Refusal) -> Self {
        Conflict::Refused(refusal)
    }
}

impl Ledger {
    /// An empty ledger for these networks. The first is the default. The error names a network that
    /// is not possible.
    pub fn new(networks: Vec<NetworkConfig>) -> Result<Ledger, String> {
        Ok(Ledger {
            networks: networks.into_iter().map(Account::new).collect::<Result<_, String>>()?,
            taps: BTreeMap::new(),
            cids: Cids::default(),
            uids: Uids::new(UIDS_DEFAULT),
            promised: BTreeMap::new(),
        })
    }

    /// Takes the users of VMs from this range. No VM has one yet.
    pub fn keep_uids(&mut self, range: RangeInclusive<u32>) {
        self.uids = Uids::new(range);
    }

    /// The users of VMs.
    pub fn uids(&self) -> &Uids {
        &self.uids
    }

    /// Gives a new VM a user that no other has; `None` if there is none left.
    pub fn claim_uid(&mut self) -> Option<u32> {
        self.uids.take()
    }

    /// The network of that name.
    pub fn network(&self, name: &str) -> Option<&NetworkConfig> {
        self.networks.iter().map(|account| &account.config).find(|config| config.name == name)
    }

    /// Puts a network that is not of the settings in the place of the one of its name, or takes
    /// that away, which has no VMs. What was promised there is not any more. Returns what was
    /// there. The error says why the network cannot be.
    pub fn exchange_network(
        &mut self,
        name: &str,
        to: Option<NetworkConfig>,
    ) -> Result<Option<NetworkConfig>, String> {
        let to = to.map(Account::new).transpose()?;
        let at = self.networks.iter().position(|account| account.config.name == name);
        let former = at.map(|at| self.networks.remove(at).config);
        // It was promised of the pool that goes.
        self.promised.retain(|_, (network, _)| network != name);
        self.networks.extend(to.map(|account| Account { added: true, ..account }));
        Ok(former)
    }

    /// The network that a new interface would be on, and why it has no room there, if that is so.
    pub fn room(&self, wanted: &NetworkSpec) -> Result<(String, Option<String>), Refusal> {
        let account = &self.networks[self.chosen(wanted)?];
        let NetworkConfig { name, bridge, .. } = &account.config;
        let full = || match account.ports() >= BRIDGE_PORTS_MAX {
            true => format!("bridge {bridge} has no free port"),
            false => format!("network {name} has no free address"),
        };
        Ok((name.clone(), (!account.has_room(wanted)).then(full)))
    }

    /// Whether nobody has anything on a network.
    pub fn is_idle(&self, name: &str) -> bool {
        let account = self.networks.iter().find(|account| account.config.name == name);
        account.is_some_and(|account| account.ports() == 0)
    }

    /// All networks, the default one first.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkConfig> {
        self.networks.iter().map(|account| &account.config)
    }

    /// The networks, with the used and free addresses and ports of each.
    pub fn views(&self) -> Vec<NetworkView> {
        self.networks.iter().map(Account::view).collect()
    }

    /// Gives a new VM what its modes need: its interfaces, and a context id.
    /// The error says of which network it speaks.
    pub fn claim(
        &mut self,
        vm: &VmName,
        spec: &VmSpec,
    ) -> Result<(Vec<Nic>, u32), (usize, Conflict)> {
        let mut nics: Vec<Nic> = Vec::with_capacity(spec.networks.len());
        for (index, wanted) in spec.networks.iter().enumerate() {
            let fits = match (spec.attachment.is_some(), spec.ephemeral) {
                (true, _) => self.refuse_inner(wanted),
                (false, false) => self.refuse_lasting(wanted),
                (false, true) => Ok(()),
            };
            match fits.and_then(|()| self.claim_nic(NicName { vm, index }, wanted)) {
                Ok(nic) => nics.extend(nic),
                Err(conflict) => {
                    self.release_nics(&nics, spec);
                    return Err((index, conflict.within(vm, &nics)));
                }
            }
        }
        match self.cids.take() {
            Some(cid) => Ok((nics, cid)),
            None => {
                self.release_nics(&nics, spec);
                let reason = "every vsock context id is in use".into();
                Err((0, Refusal::InvalidConfig { field: "network.mode".into(), reason }.into()))
            }
        }
    }

    /// Claims all things of a record again, or none. The error names the obstacle. Only the lease
    /// of a guest in dhcp mode may be lost: if it is not possible any more, it is dropped from the
    /// record, and the guest asks for another.
    pub fn restore(&mut self, record: &mut Record) -> Result<(), String> {
        if !self.cids.take_exactly(record.cid) {
            return Err(format!("its context id {} belongs to another VM", record.cid));
        }
        if let Some(uid) = record.own_uid().filter(|uid| !self.uids.take_exactly(*uid)) {
            self.cids.release(record.cid);
            return Err(format!("its user {uid} belongs to another VM"));
        }
        for at in 0..record.nics.len() {
            let Some(spec) = record.spec.networks.get(at) else { continue };
            if let Err(reason) = self.restore_nic(&record.name, &mut record.nics[at], spec) {
                self.release_nics(&record.nics[..at], &record.spec);
                self.release_own(record);
                return Err(reason);
            }
        }
        Ok(())
    }

    fn restore_nic(
        &mut self,
        vm: &VmName,
        port: &mut Nic,
        spec: &NetworkSpec,
    ) -> Result<(), String> {
        let addresses = &spec.addresses[..];
        if let Some(owner) = self.taps.get(&port.tap) {
            return Err(format!("its tap {} belongs to VM {owner}", port.tap));
        }
        let account = self
            .account(&port.network)
            .ok_or_else(|| format!("its network {} is not configured", port.network))?;
        if account.macs.contains_key(&port.mac) {
            return Err(format!("its Ethernet address {} belongs to another VM", port.mac));
        }
        if let Some((ip, why)) = account.first_immovable(addresses) {
            return Err(format!("it cannot use the address {ip}: {why}"));
        }
        if port.ip.is_none() && spec.mode.needs_ip_allocation() && account.config.ipv6.is_none() {
            return Err(format!("its addresses are of IPv6, and {} has none", port.network));
        }
        if port.inner.is_some() && account.config.ipv6.is_some() {
            return Err(format!("its guest has an inner identity, and {} has IPv6", port.network));
        }
        let ip6 = account.choose_ip6(port.mac, spec.ip6).map_err(|why| match why {
            Refusal::InvalidConfig { reason, .. } => reason,
            other => other.to_string(),
        })?;
        if let Some(ip) = port.ip {
            if addresses.contains(&ip) {
                return Err(format!("it cannot use its address {ip} twice"));
            }
            account.lease_again(ip)?;
        }
        let served = account.config.dhcp == Dhcp::Builtin;
        let held = |lease: &Lease| served && account.pool.lease_exactly(lease.ip).is_ok();
        port.lease = port.lease.filter(held);
        // It follows from the settings, which may be new.
        port.ip6 = ip6;
        let ipv6 = account.config.ipv6;
        let is_here = |ip: &Ipv6Addr| ipv6.is_some_and(|ipv6| ipv6.is_on_link(*ip));
        port.claimed.retain(|ip| is_here(ip) && !account.owners6.contains_key(ip));
        account.enter(vm, port, addresses);
        self.taps.insert(port.tap.clone(), vm.clone());
        Ok(())
    }

    /// Promises an interface of a VM that is not made yet the address that it would get, if its
    /// network is among `shared`. The promise stands until the VM is made or it is ended.
    pub fn promise(
        &mut self,
        name: NicName<'_>,
        wanted: &NetworkSpec,
        shared: &BTreeSet<String>,
    ) -> Option<(String, Ipv4Addr)> {
        let key = (name.vm.clone(), name.index);
        if let Some(promised) = self.promised.get(&key) {
            return Some(promised.clone());
        }
        let chosen = self.chosen(wanted).ok()?;
        if !self.networks[chosen].leases(wanted.mode) {
            return None;
        }
        let Account { config, pool, inner, .. } = &mut self.networks[chosen];
        if !shared.contains(&config.name) {
            return None;
        }
        let ip = match wanted.ip {
            Some(ip) => Some(ip).filter(|ip| !config.is_reserved(*ip))?,
            None => pool.peek(&unwanted(inner, &wanted.addresses))?,
        };
        pool.lease_exactly(ip).ok()?;
        let promised = (config.name.clone(), ip);
        self.promised.insert(key, promised.clone());
        Some(promised)
    }

    /// The addresses that are promised to a VM.
    pub fn promised(&self, vm: &VmName) -> impl Iterator<Item = Ipv4Addr> {
        let of_vm = self.promised.iter().filter(move |((of, _), _)| of == vm);
        of_vm.map(|(_, (_, ip))| *ip)
    }

    /// Ends what is promised to a VM.
    pub fn end_promises(&mut self, vm: &VmName) {
        let of_vm = |((of, _), promised): (&(VmName, usize), &(String, Ipv4Addr))| {
            (of == vm).then(|| promised.clone())
        };
        let ended: Vec<_> = self.promised.iter().filter_map(of_vm).collect();
        self.promised.retain(|(of, _), _| of != vm);
        for (network, ip) in ended {
            self.give_back(&network, ip);
        }
    }

    /// Leases an address to nobody, whomever it was promised to. False if a VM has it.
    pub fn take_away(&mut self, network: &str, ip: Ipv4Addr) -> bool {
        let promised = self.promised.len();
        self.promised.retain(|_, (_, other)| *other != ip);
        let was_promised = self.promised.len() < promised;
        let Some(account) = self.account(network) else { return false };
        let is_nobodys = was_promised || account.pool.lease_exactly(ip).is_ok();
        if is_nobodys {
            account.taken.insert(ip);
        }
        is_nobodys
    }

    /// Releases an address that is leased to nobody.
    pub fn give_back(&mut self, network: &str, ip: Ipv4Addr) {
        if let Some(account) = self.account(network) {
            account.taken.remove(&ip);
            account.pool.release(ip);
        }
    }

    fn account(&mut self, network: &str) -> Option<&mut Account> {
        self.networks.iter_mut().find(|account| account.config.name == network)
    }

    /// The VM that has the tap of that name.
    pub fn owner_of_tap(&self, name: &str) -> Option<&VmName> {
        self.taps.get(name)
    }

    /// Releases all things of a record. Call it only after its process and its link are gone.
    pub fn release(&mut self, record: &Record) {
        self.release_nics(&record.nics, &record.spec);
        self.release_own(record);
    }

    fn release_own(&mut self, record: &Record) {
        self.cids.release(record.cid);
        if let Some(uid) = record.own_uid() {
            self.uids.release(uid);
        }
    }

    fn release_nics(&mut self, nics: &[Nic], spec: &VmSpec) {
        for (nic, wanted) in nics.iter().zip(&spec.networks) {
            let vm = self.taps.remove(&nic.tap);
            if let Some(account) = self.account(&nic.network) {
                account.leave(vm.as_ref(), nic, &wanted.addresses);
            }
        }
    }

    /// The VM whose port on this network has this Ethernet address.
    pub fn owner_of_mac(&self, network: &str, mac: Mac) -> Option<&VmName> {
        let account = self.networks.iter().find(|account| account.config.name == network)?;
        account.macs.get(&mac)?.as_ref()
    }

    /// The VM that has this address on this network, or is offered it.
    pub fn owner_of_ip(&self, network: &str, ip: Ipv4Addr) -> Option<&VmName> {
        let account = self.networks.iter().find(|account| account.config.name == network)?;
        account.owners.get(&ip)
    }

    /// Exchanges the IPv6 addresses of an interface. Those that it has now are free.
    pub fn exchange6(&mut self, vm: &VmName, from: &Nic, to: &Nic) {
        if let Some(account) = self.account(&from.network) {
            for ip in from.addresses6() {
                account.owners6.remove(&ip);
            }
            account.own6(vm, to);
        }
    }

    /// The VM that has this IPv6 address on this network.
    pub fn owner_of_ip6(&self, network: &str, ip: Ipv6Addr) -> Option<&VmName> {
        let account = self.networks.iter().find(|account| account.config.name == network)?;
        account.owners6.get(&ip)
    }

    /// Whether this address of a network is movable.
    pub fn is_movable(&self, network: &str, ip: Ipv4Addr) -> bool {
        let account = self.networks.iter().find(|account| account.config.name == network);
        account.is_some_and(|account| account.movable.contains_key(&ip))
    }

    /// The VMs with an interface on a whole network that are called `label`, in lower case, but
    /// have another name: it differs in case, or has a dot or underscore where the label has a
    /// hyphen ([`crate::model::kernel_args::host_name`]). In the order of their names.
    pub fn called<'a>(
        &'a self,
        whole: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = &'a VmName> {
        let parts = self.networks.iter().filter(move |account| account.config.whole == whole);
        let called: BTreeSet<_> =
            parts.filter_map(move |account| account.labels.get(label)).flatten().collect();
        called.into_iter()
    }

    /// The address that a guest of this network would get: the wanted one if it is free, or the
    /// next.
    pub fn candidate(&self, network: &str, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let account = self.networks.iter().find(|account| account.config.name == network)?;
        let Account { pool, inner, .. } = account;
        let is_free = |ip: &Ipv4Addr| pool.is_free(*ip) && !inner.contains_key(ip);
        wanted.filter(is_free).or_else(|| pool.peek(&unwanted(inner, &[])))
    }

    /// Exchanges the lease of a VM on this network. If the new address is not free, it returns
    /// false and changes nothing.
    pub fn exchange(
        &mut self,
        network: &str,
        vm: &VmName,
        from: Option<Ipv4Addr>,
        to: Option<Ipv4Addr>,
    ) -> bool {
        let Some(Account { pool, owners, .. }) = self.account(network) else { return false };
        if from == to {
            return true;
        }
        if to.is_some_and(|to| pool.lease_exactly(to).is_err()) {
            return false;
        }
        if let Some(from) = from {
            pool.release(from);
            owners.remove(&from);
        }
        owners.extend(to.map(|to| (to, vm.clone())));
        true
    }

    /// Refuses an inner identity for an attachment: the link in its namespace has addresses of its
    /// own.
    fn refuse_inner(&self, wanted: &NetworkSpec) -> Result<(), Conflict> {
        let config = &self.networks[self.chosen(wanted)?].config;
        if wanted.inner.is_none() && config.inner.is_none() {
            return Ok(());
        }
        let reason = format!(
            "an inner identity is for guests that woke from a snapshot; choose a network without \
             one, not {}",
            config.name
        );
        Err(Refusal::InvalidConfig { field: "network.inner".into(), reason }.into())
    }

    /// Refuses a VM that outlives its network.
    fn refuse_lasting(&self, wanted: &NetworkSpec) -> Result<(), Conflict> {
        if !wanted.mode.needs_tap_device() {
            return Ok(());
        }
        let account = &self.networks[self.chosen(wanted)?];
        match account.added {
            false => Ok(()),
            true => {
                let field = "network.name".into();
                let name = &account.config.name;
                let reason =
                    format!("{name} ends with the host's uptime, so a VM on it is ephemeral");
                Err(Refusal::InvalidConfig { field, reason }.into())
            }
        }
    }

    /// The interface that a VM asks for; `None` in vsock mode.
    fn claim_nic(
        &mut self,
        name: NicName<'_>,
        wanted: &NetworkSpec,
    ) -> Result<Option<Nic>, Conflict> {
        let mode = wanted.mode;
        if wanted.ip.is_some() && !mode.needs_ip_allocation() {
            let reason =
                format!("a VM in {mode} mode has no address of its own; that is mode bridged");
            return Err(Refusal::InvalidConfig { field: "network.ip".into(), reason }.into());
        }
        if !mode.needs_tap_device() {
            return match wanted.addresses.is_empty() {
                true => Ok(None),
                false => {
                    Err(refuse_addresses(format!("a VM in {mode} mode has no interface")).into())
                }
            };
        }
        let chosen = self.chosen(wanted)?;
        let account = &mut self.networks[chosen];
        account.check_room()?;
        account.check_mtu(wanted)?;
        account.check_mode(mode)?;
        let mac = account.choose_mac(name, wanted)?;
        let inner = account.choose_inner(wanted)?;
        let ip6 = account.choose_ip6(mac, wanted.ip6)?;
        account.check_addresses(wanted)?;
        let network = account.config.name.clone();
        let ip = match mode.needs_ip_allocation() {
            true => self.choose_ip(name, wanted, chosen)?,
            false => None,
        };
        let tap = TapName::choose(name, |tap| self.taps.contains_key(tap));
        self.taps.insert(tap.clone(), name.vm.clone());
        let nic = Nic {
            network,
            tap,
            ifindex: None,
            mac,
            ip,
            ip6,
            inner: inner.map(Box::new),
            claimed: Vec::new(),
            lease: None,
            exposed: wanted.expose.clone(),
            traffic: Traffic {
                policy: wanted.traffic.policy.clone(),
                limits: wanted.traffic.limits,
                ..Traffic::default()
            },
        };
        self.networks[chosen].enter(name.vm, &nic, &wanted.addresses);
        Ok(Some(nic))
    }

    /// The address of a NIC on the chosen network: what was promised to it there, or another.
    fn choose_ip(
        &mut self,
        name: NicName<'_>,
        wanted: &NetworkSpec,
        chosen: usize,
    ) -> Result<Option<Ipv4Addr>, Conflict> {
        let account = &mut self.networks[chosen];
        let key = (name.vm.clone(), name.index);
        let promised = self.promised.get(&key).filter(|it| it.0 == account.config.name);
        match promised.map(|(_, ip)| *ip) {
            Some(ip) => {
                self.promised.remove(&key);
                Ok(Some(ip))
            }
            None => account.lease(wanted),
        }
    }

    /// The index of the network that a VM asks for: by name, prefix or gateway, or the first. If
    /// the network has parts, it is the first part with room, or the first.
    fn chosen(&self, wanted: &NetworkSpec) -> Result<usize, Refusal> {
        let refuse = |field: &str, reason: String| {
            Err(Refusal::InvalidConfig { field: format!("network.{field}"), reason })
        };
        let fits = |config: &NetworkConfig| {
            wanted.name.as_ref().is_none_or(|name| *name == config.name || *name == config.whole)
                && wanted
                    .subnet
                    .is_none_or(|subnet| Some(subnet) == config.ipv4.map(|ipv4| ipv4.prefix))
                && wanted.gateway.is_none_or(|gateway| Some(gateway) == config.gateway())
        };
        let first = self.networks.iter().position(|account| fits(&account.config));
        let with_room = first.and_then(|first| {
            let whole = &self.networks[first].config.whole;
            let part = |account: &Account| {
                account.config.whole == *whole && fits(&account.config) && account.has_room(wanted)
            };
            self.networks.iter().position(part)
        });
        match (with_room.or(first), wanted) {
            (Some(index), _) => Ok(index),
            (None, NetworkSpec { name: Some(name), .. }) if self.network(name).is_none() => {
                refuse("name", format!("there is no network {name}"))
            }
            (None, NetworkSpec { subnet: Some(subnet), .. }) => {
                refuse("subnet", format!("no matching network has the subnet {subnet}"))
            }
            (None, NetworkSpec { gateway: Some(gateway), .. }) => {
                refuse("gateway", format!("no matching network has the gateway {gateway}"))
            }
            (None, _) => refuse("name", "no network is configured".into()),
        }
    }
}
