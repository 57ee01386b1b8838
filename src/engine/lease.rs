//! The leases of guests in dhcp mode.
//!
//! A bridged VM has its address as long as it exists. A VM in dhcp mode gets a lease when its guest
//! asks, from the same pool: first an offer, then the lease, when the guest accepts the offer. Both
//! are written before the guest gets the answer. So a daemon that is killed between the two
//! continues where it was.
//!
//! A lease that has ended is not taken away: nothing wakes up for it, and the guest finds its
//! address again. Only if the pool is empty, the lease that ended longest ago goes to another guest
//! ([`Engine::reclaim`]). A guest that runs keeps its lease in any case: its clock may be another
//! than ours, and it would be cut off.
//!
//! [`crate::dhcp`] decides what a message means for a lease.

use std::net::Ipv4Addr;

use crate::engine::decide::{Decision, Engine, Write};
use crate::engine::vm::Vm;
use crate::model::clock::Now;
use crate::model::lease::{Claim, Guest, LeaseChange};
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::nic::{Lease, Nic};
use crate::model::record::Record;
use crate::model::view::EventKind;

/// The limit for a guest's changes of its lease. Each is a write to the disk.
pub(super) const CHANGES: Bound = Bound { at_once: 12, every_ms: 5_000 };
/// The limit for a guest's messages that are answered, including changes. A DHCP client sends a few
/// when it starts, and then one in some minutes.
const ANSWERS: Bound = Bound { at_once: 30, every_ms: 1_000 };

/// A limit: a burst, and after that one more per interval in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) at_once: u64,
    pub(super) every_ms: u64,
}

/// How much of a [`Bound`] a guest has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When the last request would have been due, if all had come in even steps.
    even_at: u64,
}

impl Pace {
    pub(super) fn allows(&mut self, bound: Bound, now: Now) -> bool {
        let even_at = self.even_at.max(now.mono) + bound.every_ms;
        let allowed = even_at - now.mono <= bound.at_once * bound.every_ms;
        if allowed {
            self.even_at = even_at;
        }
        allowed
    }
}

impl Engine {
    /// The guest of a network with this Ethernet address. `wanted` is the address that it asks for.
    pub fn guest(&self, network: &str, mac: Mac, wanted: Option<Ipv4Addr>) -> Option<Guest<'_>> {
        let vm = self.state.vms.get(self.state.ledger.owner_of_mac(network, mac)?)?;
        let record = &vm.record;
        if vm.stranded.is_some() {
            return None;
        }
        let mut nics = record.nics.iter();
        let index = nics.position(|nic| nic.mac == mac && nic.network == network)?;
        let (nic, network) = (&record.nics[index], self.state.ledger.network(network)?);
        let identity = nic.identity(network);
        let spec = &record.spec.networks[index];
        let claim = match (nic.ip, record.lease(nic, self.host.boot)) {
            (Some(ip), _) => Claim::Reserved(identity.ip().unwrap_or(ip)),
            (None, Some(lease)) => Claim::Leased(lease),
            // A bridged VM that was made with IPv6 alone.
            (None, None) if spec.mode != Mode::Dhcp => Claim::Nothing,
            (None, None) => match self.state.ledger.candidate(&network.name, wanted) {
                Some(ip) => Claim::Free(ip),
                None => Claim::Nothing,
            },
        };
        let mtu = spec.mtu.unwrap_or(network.mtu);
        Some(Guest { vm: &record.name, index, nic, network, identity, mtu, claim })
    }

    /// Whether another message of a guest may be answered. A guest that asks without end is
    /// answered at a limited rate, whatever it asks.
    pub fn may_answer(&mut self, name: &VmName, now: Now) -> bool {
        self.state.vms.get_mut(name).is_some_and(|vm| {
            let allowed = vm.answers.allows(ANSWERS, now);
            vm.answered = if allowed { Some(now.mono) } else { vm.answered };
            allowed
        })
    }

    /// Changes a guest's lease. `None` if it has asked for too many changes, or if the address
    /// belongs to another VM now.
    pub fn change_lease(
        &mut self,
        name: &VmName,
        nic: usize,
        change: LeaseChange,
        now: Now,
    ) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        if !vm.changes.allows(CHANGES, now) {
            log::debug!(vm:% = name; "the guest changes its lease too often");
            return None;
        }
        let before = vm.record.nics.get(nic)?.lease;
        let ended = |words: &dyn Fn(Ipv4Addr) -> String| {
            before.map(|before| (EventKind::LeaseEnded, words(before.ip)))
        };
        let (lease, event) = match change {
            LeaseChange::Lease(lease) => {
                let had = before.is_some_and(|before| before.given && before.ip == lease.ip);
                let words = || format!("VM {name} got the address {}", lease.ip);
                let new = lease.given && !had;
                (Some(lease), new.then(|| (EventKind::LeaseGiven, words())))
            }
            LeaseChange::Release => {
                (None, ended(&|ip| format!("VM {name} released the address {ip}")))
            }
            LeaseChange::Decline => {
                (None, ended(&|ip| format!("VM {name} declined {ip}: another machine uses it")))
            }
        };
        let mut decision = self.put_lease(name, nic, lease)?;
        decision.events.extend(event);
        Some(decision)
    }

    /// Makes room on a network whose pool is empty: takes back the lease that ended longest ago.
    /// `None` if no lease has ended but those of guests that run.
    pub fn reclaim(&mut self, network: &str, now: Now) -> Option<Decision> {
        let nics =
            self.state.vms.values().flat_map(|vm| {
                vm.record.nics.iter().enumerate().map(move |(at, nic)| (vm, at, nic))
            });
        let here = nics.filter(|(_, _, nic)| nic.network == network);
        let over = here.filter_map(|(vm, at, nic)| {
            let lease = vm.record.lease(nic, self.host.boot).filter(|it| it.until <= now.boot)?;
            let kept = lease.given && self.runs(vm, nic);
            (!kept).then_some((&vm.record.name, at, lease))
        });
        let (name, at, lease) = over.min_by_key(|(.., lease)| lease.until)?;
        let name = name.clone();
        let mut decision = self.put_lease(&name, at, None)?;
        if lease.given {
            let message = format!("VM {name} has {} no more: its time was over", lease.ip);
            decision.events.push((EventKind::LeaseEnded, message));
        }
        Some(decision)
    }

    /// Whether there may be a guest: a hypervisor runs, or somebody has the link open.
    pub(super) fn runs(&self, vm: &Vm, nic: &Nic) -> bool {
        vm.life.pid().is_some()
            || nic.ifindex.is_some_and(|index| self.known.carriers.contains(&index))
    }

    /// A decision that makes this the lease of an interface.
    fn put_lease(&mut self, name: &VmName, nic: usize, lease: Option<Lease>) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        let had = vm.record.nics.get(nic)?;
        if !self.state.ledger.exchange(&had.network, name, address(had.lease), address(lease)) {
            return None;
        }
        let former = vm.clone();
        let record = vm.edit();
        record.count_leases_from(self.host.boot);
        record.nics[nic].lease = lease;
        let vm = self.state.vms.get(name)?;
        let plan = self.exchange_plan(&former.record, &vm.record);
        Some(Decision { plan, ..Decision::of(vm, None, Write::Put, former) })
    }

    /// Restores the ledger to the former record after a failed decision.
    pub(super) fn take_addresses_back(&mut self, former: &Record) {
        let Some(vm) = self.state.vms.get(&former.name) else { return };
        let name = &former.name;
        for (now, former) in vm.record.nics.iter().zip(&former.nics) {
            let (had, has) = (address(now.lease), address(former.lease));
            self.state.ledger.exchange(&former.network, name, had, has);
            self.state.ledger.exchange6(name, now, former);
        }
    }
}

fn address(lease: Option<Lease>) -> Option<Ipv4Addr> {
    lease.map(|lease| lease.ip)
}
