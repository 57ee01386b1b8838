//! The owners of leases, taps, Ethernet addresses, bridge ports and vsock context ids.
//!
//! The [`Ledger`] hands these out and takes them back. It never looks at the kernel. A claim is all
//! or nothing. [`Ledger::restore`] claims the things of a record again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::engine::cid::Cids;
use crate::engine::ipam::{AddressPool, Why};
use crate::engine::stranded;
use crate::engine::uids::Uids;
use crate::model::error::Refusal;
use crate::model::inner::Inner;
use crate::model::kernel_args::host_name;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::net::{Dhcp, Dns, NetworkConfig};
use crate::model::nic::{Lease, Nic, NicName};
use crate::model::record::Record;
use crate::model::run_as::UIDS_DEFAULT;
use crate::model::spec::{NetworkSpec, VmSpec};
use crate::model::traffic::Traffic;
use crate::model::view::NetworkView;

/// Ports of one Linux bridge: `BR_MAX_PORTS` (net/bridge/br_private.h) less the reserved one.
pub const BRIDGE_PORTS_MAX: usize = 1023;

/// The owner of an address that no VM of its network gets.
const RESERVED_OWNER: &str = "the reserved addresses of its network";
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

/// Everything that is handed out on one network.
#[derive(Clone, Debug)]
struct Account {
    config: NetworkConfig,
    pool: AddressPool,
    /// The owner of each Ethernet address; `None` is the bridge.
    macs: BTreeMap<Mac, Option<VmName>>,
    /// The movable addresses, each with the number of interfaces that may use it. In the pool they
    /// are set aside.
    movable: BTreeMap<Ipv4Addr, u32>,
    /// The addresses that guests take for their own or their gateway's, each with the number of
    /// interfaces that have it inside. They are leased only to those who name them.
    inner: BTreeMap<Ipv4Addr, u32>,
    /// The VM of each leased address.
    owners: BTreeMap<Ipv4Addr, VmName>,
    /// The VM of each IPv6 address, the link-local ones included.
    owners6: BTreeMap<Ipv6Addr, VmName>,
    /// The VMs by what else they are called than by their names, see [`Ledger::called`].
    labels: BTreeMap<String, BTreeSet<VmName>>,
    /// Addresses of machines that are no VMs. In the pool they are leased, to nobody.
    taken: BTreeSet<Ipv4Addr>,
}

/// A thing of a VM that is not taken over, which nobody else gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its context id.
    Cid(u32),
    /// Its user.
    Uid(u32),
    /// The name of a link.
    Tap(TapName),
    /// An Ethernet address on a network.
    Mac(String, Mac),
    /// An address of a network.
    Ip(String, Ipv4Addr),
    /// An IPv6 address of a network.
    Ip6(String, Ipv6Addr),
    /// A movable address of a network.
    Movable(String, Ipv4Addr),
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

/// Why an address cannot be movable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Immovable {
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
        let account = |config: NetworkConfig| {
            let pool = AddressPool::new(config.subnet, config.host_ip)
                .map_err(|reason| format!("network {}: {reason}", config.name))?
                .passing_over(&config.passed_over());
            let macs = BTreeMap::from([(config.mac, None)]);
            let (movable, inner, taken) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
            let (owners, owners6, labels) = Default::default();
            Ok(Account { pool, macs, movable, inner, taken, owners, owners6, labels, config })
        };
        Ok(Ledger {
            networks: networks.into_iter().map(account).collect::<Result<_, String>>()?,
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
            if spec.attachment.is_some() {
                self.refuse_inner(wanted).map_err(|conflict| (index, conflict))?;
            }
            match self.claim_nic(NicName { vm, index }, wanted) {
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
            account.pool.lease_exactly(ip).map_err(|why| match why {
                Why::Outside => {
                    format!("its address {ip} is outside of {}", account.config.subnet)
                }
                Why::Network | Why::Broadcast | Why::Host => {
                    format!("its address {ip} is reserved in its network")
                }
                Why::Leased => format!("its address {ip} belongs to another VM"),
            })?;
        }
        let served = account.config.dhcp == Dhcp::Builtin;
        let held = |lease: &Lease| served && account.pool.lease_exactly(lease.ip).is_ok();
        port.lease = port.lease.filter(held);
        account.join(addresses);
        account.believe(port.inner.as_deref());
        // It follows from the settings, which may be new.
        port.ip6 = ip6;
        let ipv6 = account.config.ipv6;
        let is_here = |ip: &Ipv6Addr| ipv6.is_some_and(|ipv6| ipv6.is_on_link(*ip));
        port.claimed.retain(|ip| is_here(ip) && !account.owners6.contains_key(ip));
        account.own6(vm, port);
        account.macs.insert(port.mac, Some(vm.clone()));
        account.call(vm);
        let addresses = port.ip.into_iter().chain(port.lease.map(|lease| lease.ip));
        account.owners.extend(addresses.map(|ip| (ip, vm.clone())));
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
        if !wanted.mode.needs_ip_allocation() {
            return None;
        }
        let chosen = self.chosen(wanted).ok()?;
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

    /// Claims those things of a record that are free, so that nobody else gets them.
    pub fn hold(&mut self, record: &Record) -> Vec<Held> {
        let mut held = Vec::new();
        if self.cids.take_exactly(record.cid) {
            held.push(Held::Cid(record.cid));
        }
        if let Some(uid) = record.own_uid().filter(|uid| self.uids.take_exactly(*uid)) {
            held.push(Held::Uid(uid));
        }
        for nic in &record.nics {
            let Nic { tap, mac, network, .. } = nic;
            if !self.taps.contains_key(tap) {
                self.taps.insert(tap.clone(), record.name.clone());
                held.push(Held::Tap(tap.clone()));
            }
            let Some(account) = self.account(network) else { continue };
            if !account.macs.contains_key(mac) {
                account.macs.insert(*mac, Some(record.name.clone()));
                held.push(Held::Mac(network.clone(), *mac));
            }
            for ip in nic.addresses6() {
                if let Entry::Vacant(free) = account.owners6.entry(ip) {
                    free.insert(record.name.clone());
                    held.push(Held::Ip6(network.clone(), ip));
                }
            }
        }
        for (network, ip) in stranded::movable(record) {
            let Some(account) = self.account(network) else { continue };
            if account.first_immovable(&[ip]).is_none() {
                account.join(&[ip]);
                held.push(Held::Movable(network.into(), ip));
            }
        }
        for (network, ip) in stranded::addresses(record) {
            let account = self.account(network);
            if account.is_some_and(|account| account.pool.lease_exactly(ip).is_ok()) {
                held.push(Held::Ip(network.into(), ip));
            }
        }
        held
    }

    /// Releases what was held.
    pub fn let_go(&mut self, held: &[Held]) {
        for one in held {
            match one {
                Held::Cid(cid) => {
                    self.cids.release(*cid);
                }
                Held::Uid(uid) => self.uids.release(*uid),
                Held::Tap(tap) => drop(self.taps.remove(tap)),
                Held::Mac(network, mac) => {
                    self.account(network).and_then(|account| account.macs.remove(mac));
                }
                Held::Ip(network, ip) => {
                    if let Some(account) = self.account(network) {
                        account.pool.release(*ip);
                    }
                }
                Held::Ip6(network, ip) => {
                    self.account(network).and_then(|account| account.owners6.remove(ip));
                }
                Held::Movable(network, ip) => {
                    if let Some(account) = self.account(network) {
                        account.leave(&[*ip]);
                    }
                }
            }
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
                account.macs.remove(&nic.mac);
                if let Some(vm) = vm {
                    account.call_no_more(&vm);
                }
                for ip in nic.ip.into_iter().chain(nic.lease.map(|lease| lease.ip)) {
                    account.pool.release(ip);
                    account.owners.remove(&ip);
                }
                for ip in nic.addresses6() {
                    account.owners6.remove(&ip);
                }
                account.leave(&wanted.addresses);
                account.believe_no_more(nic.inner.as_deref());
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
    /// hyphen ([`host_name`]). In the order of their names.
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
        let promised = self.promised.get(&(name.vm.clone(), name.index)).cloned();
        let account = &mut self.networks[chosen];
        if account.ports() >= BRIDGE_PORTS_MAX {
            let bridge = account.config.bridge.clone();
            return Err(Refusal::BridgeFull { bridge, limit: BRIDGE_PORTS_MAX }.into());
        }
        account.check_mtu(wanted)?;
        if mode == Mode::Dhcp && account.config.dhcp == Dhcp::Off {
            let reason = format!("dhcp is off on the network {}", account.config.name);
            return Err(Refusal::InvalidConfig { field: "network.mode".into(), reason }.into());
        }
        let mac = account.choose_mac(name, wanted)?;
        let inner = account.choose_inner(wanted)?;
        let ip6 = account.choose_ip6(mac, wanted.ip6)?;
        account.check_addresses(wanted)?;
        let ip = match mode.needs_ip_allocation() {
            true => Some(match promised.filter(|(network, _)| *network == account.config.name) {
                Some((_, ip)) => {
                    self.promised.remove(&(name.vm.clone(), name.index));
                    ip
                }
                None => account.lease(wanted)?,
            }),
            false => None,
        };
        account.join(&wanted.addresses);
        account.believe(inner.as_ref());
        account.macs.insert(mac, Some(name.vm.clone()));
        account.call(name.vm);
        account.owners.extend(ip.map(|ip| (ip, name.vm.clone())));
        let network = account.config.name.clone();
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
        self.networks[chosen].own6(name.vm, &nic);
        Ok(Some(nic))
    }

    /// The index of the network that a VM asks for: by name, prefix or gateway, or the first. If
    /// the network has parts, it is the first part with room, or the first.
    fn chosen(&self, wanted: &NetworkSpec) -> Result<usize, Refusal> {
        let refuse = |field: &str, reason: String| {
            Err(Refusal::InvalidConfig { field: format!("network.{field}"), reason })
        };
        let fits = |config: &NetworkConfig| {
            wanted.name.as_ref().is_none_or(|name| *name == config.name || *name == config.whole)
                && wanted.subnet.is_none_or(|subnet| subnet == config.subnet)
                && wanted.gateway.is_none_or(|gateway| gateway == config.gateway())
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

impl Account {
    /// Whether the network has a free port and the wanted address, or any address. In dhcp mode the
    /// address counts, too, because the guest will ask for one.
    fn has_room(&self, wanted: &NetworkSpec) -> bool {
        let all = (self.leased() + self.free()) as usize;
        let asks_us = wanted.mode == Mode::Dhcp && self.config.dhcp == Dhcp::Builtin;
        let has_address = match wanted.ip {
            Some(ip) => self.config.subnet.contains(ip),
            None if asks_us => self.ports() < all,
            None => !wanted.mode.needs_ip_allocation() || self.free() > 0,
        };
        let here = |ip: &Ipv4Addr| self.config.subnet.contains(*ip);
        let is_here6 = |ip: Ipv6Addr| self.config.contains(ip.into());
        self.ports() < BRIDGE_PORTS_MAX
            && has_address
            && wanted.addresses.iter().all(here)
            && wanted.ip6.is_none_or(is_here6)
    }

    /// The first of these addresses that cannot be movable, and why.
    fn first_immovable(&self, addresses: &[Ipv4Addr]) -> Option<(Ipv4Addr, Immovable)> {
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
    fn check_addresses(&self, wanted: &NetworkSpec) -> Result<(), Conflict> {
        let NetworkConfig { name, subnet, .. } = &self.config;
        if let Some(ip) = wanted.ip.filter(|ip| wanted.addresses.contains(ip)) {
            return Err(refuse_addresses(format!("{ip} is the VM's own address")).into());
        }
        match self.first_immovable(&wanted.addresses) {
            None => Ok(()),
            Some((ip, Immovable::Address(Why::Leased))) => Err(Conflict::Ip(ip)),
            Some((ip, Immovable::Address(Why::Outside))) => {
                let reason = format!("{ip} is outside of {subnet} of network {name}");
                Err(refuse_addresses(reason).into())
            }
            Some((ip, Immovable::Gateway | Immovable::Address(_))) => {
                Err(Refusal::AddressInUse { ip: ip.into(), owner: HOST_OWNER.into() }.into())
            }
        }
    }

    /// One more interface may use these addresses, which were checked.
    fn join(&mut self, addresses: &[Ipv4Addr]) {
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
    fn leave(&mut self, addresses: &[Ipv4Addr]) {
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
    fn leased(&self) -> u32 {
        self.pool.leased() - (self.movable.len() + self.taken.len()) as u32
    }

    /// Ports in use: one Ethernet address per port, and one for the bridge itself.
    fn ports(&self) -> usize {
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

    fn view(&self) -> NetworkView {
        let NetworkConfig {
            name, bridge, subnet, host_ip, mtu, nat, dhcp, dns, domain, ipv6, ..
        } = self.config.clone();
        let ports = self.ports() as u32;
        let ports_free = (BRIDGE_PORTS_MAX as u32).saturating_sub(ports);
        let (leased, free) = (self.leased(), self.pool.free());
        NetworkView {
            name,
            bridge,
            subnet,
            host_ip,
            subnet6: ipv6.map(|ipv6| ipv6.prefix),
            host_ip6: ipv6.map(|ipv6| ipv6.host),
            mtu,
            nat,
            dhcp,
            // The engine knows them.
            name_servers: Vec::new(),
            domain: (dns == Dns::Builtin).then_some(domain),
            leased,
            free,
            ports,
            ports_free,
        }
    }

    fn check_mtu(&self, wanted: &NetworkSpec) -> Result<(), Refusal> {
        match wanted.mtu {
            Some(mtu) if mtu > self.config.mtu => Err(Refusal::InvalidConfig {
                field: "network.mtu".into(),
                reason: format!("{mtu} is more than the MTU of the network, {}", self.config.mtu),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn choose_mac(&self, name: NicName<'_>, wanted: &NetworkSpec) -> Result<Mac, Conflict> {
        let own = || Mac::of_guest(&self.config.name, &name.to_string());
        let mac = wanted.mac.unwrap_or_else(own);
        if self.macs.contains_key(&mac) {
            return Err(Conflict::Mac(mac));
        }
        Ok(mac)
    }

    /// The identity that the guest of an interface has inside: the wanted one, or that of its
    /// network.
    fn choose_inner(&self, wanted: &NetworkSpec) -> Result<Option<Inner>, Refusal> {
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
    fn free(&self) -> u32 {
        let inner = self.inner.keys().filter(|ip| self.pool.is_free(**ip)).count();
        self.pool.free().saturating_sub(inner as u32)
    }

    /// The IPv6 address of an interface: the wanted one, or that of its Ethernet address.
    fn choose_ip6(&self, mac: Mac, wanted: Option<Ipv6Addr>) -> Result<Option<Ipv6Addr>, Refusal> {
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
    fn own6(&mut self, vm: &VmName, nic: &Nic) {
        self.owners6.extend(nic.addresses6().map(|ip| (ip, vm.clone())));
    }

    fn lease(&mut self, wanted: &NetworkSpec) -> Result<Ipv4Addr, Conflict> {
        let NetworkConfig { name, subnet, .. } = &self.config;
        let Some(ip) = wanted.ip else {
            return self.pool.lease(&unwanted(&self.inner, &wanted.addresses)).ok_or_else(|| {
                Refusal::NoFreeAddress { network: name.clone(), subnet: *subnet }.into()
            });
        };
        if self.config.is_reserved(ip) {
            return Err(
                Refusal::AddressInUse { ip: ip.into(), owner: RESERVED_OWNER.into() }.into()
            );
        }
        match self.pool.lease_exactly(ip) {
            Ok(()) => Ok(ip),
            Err(Why::Leased) => Err(Conflict::Ip(ip)),
            Err(Why::Network | Why::Broadcast | Why::Host) => {
                Err(Refusal::AddressInUse { ip: ip.into(), owner: HOST_OWNER.into() }.into())
            }
            Err(Why::Outside) => {
                let reason = format!("{ip} is outside of {subnet} of network {name}");
                Err(Refusal::InvalidConfig { field: "network.ip".into(), reason }.into())
            }
        }
    }
}

/// The addresses that are not chosen for an interface that names these addresses.
fn unwanted(inner: &BTreeMap<Ipv4Addr, u32>, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    inner.keys().chain(addresses).copied().collect()
}

/// Refuses the movable addresses of an interface.
fn refuse_addresses(reason: String) -> Refusal {
    Refusal::InvalidConfig { field: "network.addresses".into(), reason }
}

/// What a VM is called in lower case, other than its name.
fn other_labels(vm: &VmName) -> BTreeSet<String> {
    let labels = [vm.as_str().to_ascii_lowercase(), host_name(vm).to_ascii_lowercase()];
    labels.into_iter().filter(|label| label != vm.as_str()).collect()
}
