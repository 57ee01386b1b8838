//! When guests are told of their router ([`crate::ndp`]).
//!
//! A guest that asks is answered at once, at a limited rate. What it was told ends some time, so it
//! is told again before: one timer for all guests, [`AGAIN_MS`] apart, so that a guest may miss two
//! of three. The timer runs only while a guest runs that was told. So a host without IPv6 is not
//! woken, and another one four times a day.
//!
//! After the daemon has seen the links of the host for the first time, it knows which guests run.
//! It tells all of them: the settings may be new. A guest whose network has lost its prefix since
//! the last daemon is told that, too: its addresses there are over, and so is its router if the
//! network has no IPv6 any more.
//!
//! A guest that wakes from a snapshot may know its gateway by an Ethernet address of another host.
//! So a guest with an inner identity is told of its gateway by ARP when its hypervisor opens its
//! tap. The message waits there until the guest reads.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::engine::decide::{Decision, Engine, Write};
use crate::model::clock::Now;
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::nic::Nic;
use crate::model::prefix::Prefix;
use crate::model::record::Record;

/// Milliseconds until all guests are told again. It is less than a third of the time that a router
/// counts ([`crate::ndp`]).
pub const AGAIN_MS: u64 = 6 * 3_600_000;

/// The length of the prefix of a network (RFC 4291, 2.5.1).
const PREFIX_LENGTH: u8 = 64;

/// What is to come of advertisements.
#[derive(Debug, Default)]
pub struct Advertisements {
    /// When all guests are told again, by the monotonic clock; `None` while none was told.
    due: Option<u64>,
    /// The prefixes that interfaces have lost: the VM, the index of the interface, and the prefix.
    lost: Vec<(VmName, usize, Prefix<Ipv6Addr>)>,
    /// The taps whose guests are to be told of their gateway.
    gateways: BTreeSet<u32>,
}

/// A guest that is to be told of its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The index of its tap.
    pub ifindex: u32,
    /// The gateway, as the guest is to know it.
    pub mac: Mac,
    pub ip: Ipv4Addr,
}

/// A guest that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its VM.
    pub vm: VmName,
    /// Its network.
    pub network: String,
    /// The Ethernet address of its interface there.
    pub mac: Mac,
    /// The prefix that is over; `None`: it is told what it has.
    pub lost: Option<Prefix<Ipv6Addr>>,
}

impl Advertisements {
    /// When something is due.
    pub(super) fn deadline(&self) -> Option<u64> {
        if self.gateways.is_empty() { self.due } else { Some(0) }
    }
}

impl Engine {
    /// Finds which prefixes a VM has lost between its record and its place now.
    pub(super) fn compare_prefixes(&mut self, written: &Record, placed: &Record) {
        let nics = written.nics.iter().zip(&placed.nics).enumerate();
        let lost = nics.filter_map(|(index, (then, now))| {
            let prefix = Prefix::containing(then.ip6?, PREFIX_LENGTH)?;
            let stands = now.ip6.is_some_and(|ip6| prefix.contains(ip6));
            (!stands).then(|| (written.name.clone(), index, prefix))
        });
        self.agenda.advertisements.lost.extend(lost);
    }

    /// Has all guests told as soon as possible, if there may be one.
    pub(super) fn advertise(&mut self) {
        let vms = &self.state.vms;
        let mut nics = vms.values().flat_map(|vm| &vm.record.nics);
        let agenda = &mut self.agenda.advertisements;
        if nics.any(|nic| nic.ip6.is_some()) || !agenda.lost.is_empty() {
            agenda.due = Some(0);
        }
    }

    /// Somebody has opened the tap of this index. Its guest is told of its gateway, if it has an
    /// inner identity.
    pub(super) fn opened(&mut self, tap: &str, ifindex: u32) {
        let owner = self.state.ledger.owner_of_tap(tap).and_then(|name| self.state.vms.get(name));
        let mut nics = owner.into_iter().flat_map(|vm| &vm.record.nics);
        if nics.any(|nic| nic.tap.as_str() == tap && nic.inner.is_some()) {
            self.agenda.advertisements.gateways.insert(ifindex);
        }
    }

    /// The guests that are to be told of their gateway now.
    pub fn gateways_due(&mut self) -> Vec<Gateway> {
        let due = std::mem::take(&mut self.agenda.advertisements.gateways);
        if due.is_empty() {
            return Vec::new();
        }
        let nics = self.placed().flat_map(|vm| &vm.record.nics);
        let gateway = |nic: &Nic| {
            let ifindex = nic.ifindex.filter(|index| due.contains(index))?;
            let mac = nic.inner.as_ref()?.gateway_mac?;
            let ip = nic.identity(self.network_of(nic)?).ipv4?.gateway;
            Some(Gateway { ifindex, mac, ip })
        };
        nics.filter_map(gateway).collect()
    }

    /// A guest was told because it asked.
    pub fn advertised(&mut self, now: Now) {
        self.agenda.advertisements.due.get_or_insert(now.mono + AGAIN_MS);
    }

    /// The guest of a VM was told which prefix it has lost. From now on its record says what it
    /// has.
    pub fn told_of_lost(&self, name: &VmName) -> Option<Decision> {
        let vm = self.state.vms.get(name)?;
        Some(Decision::of(vm, None, Write::Put, vm.clone()))
    }

    /// The guests that are to be told now. Those that have lost a prefix are told that first.
    pub fn advertisements_due(&mut self, now: Now) -> Vec<Told> {
        if self.agenda.advertisements.due.is_none_or(|due| due > now.mono) {
            return Vec::new();
        }
        let mut told = Vec::new();
        for (vm, index, prefix) in std::mem::take(&mut self.agenda.advertisements.lost) {
            let Some(vm) = self.state.vms.get(&vm) else { continue };
            let nic = vm.record.nics.get(index).filter(|nic| self.runs(vm, nic));
            told.extend(nic.map(|nic| Told {
                vm: vm.record.name.clone(),
                network: nic.network.clone(),
                mac: nic.mac,
                lost: Some(prefix),
            }));
        }
        let nics = self.placed().flat_map(|vm| vm.record.nics.iter().map(move |nic| (vm, nic)));
        let running = nics.filter(|(vm, nic)| nic.ip6.is_some() && self.runs(vm, nic));
        let running: Vec<Told> = running
            .map(|(vm, nic)| Told {
                vm: vm.record.name.clone(),
                network: nic.network.clone(),
                mac: nic.mac,
                lost: None,
            })
            .collect();
        let again = (!running.is_empty()).then(|| now.mono + AGAIN_MS);
        told.extend(running);
        self.agenda.advertisements.due = again;
        told
    }
}
