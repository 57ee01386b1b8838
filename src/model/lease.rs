//! The leases of guests in dhcp mode.
//!
//! The DHCP server and the engine exchange these values. The engine decides
//! (`crate::engine::lease`).
//!
//! **Time.** A lease ends by the clock that counts from the boot of the host, also while the host
//! is suspended. Nobody can set this clock. A host without a battery starts years back until it
//! hears the time, and then all leases would be over at once. How long a host was off, nobody
//! knows. So what was promised before a boot counts from the boot.

use std::net::Ipv4Addr;

use super::inner::Identity;
use super::name::VmName;
use super::net::NetworkConfig;
use super::nic::{Lease, Nic};
use super::record::{BootId, Record};

/// The length of a lease in milliseconds.
pub const LEASE_MS: u64 = 3_600_000;
/// How long a guest that was told its IPv6 address may use it without being told again, in seconds:
/// a week. The address is the VM's for as long as that exists, so this only bounds how long no
/// daemon may run, and how soon a guest asks again.
pub const ADDRESS6_S: u32 = 7 * 24 * 3600;
/// How long an offer stands, in milliseconds.
pub const OFFER_MS: u64 = 60_000;

/// A guest in dhcp mode, and its lease.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The VM.
    pub vm: &'a VmName,
    /// The index of the interface by which it asks.
    pub index: usize,
    /// That interface.
    pub nic: &'a Nic,
    /// The network.
    pub network: &'a NetworkConfig,
    /// Both, as the guest knows them.
    pub identity: Identity,
    /// MTU of its link in bytes.
    pub mtu: u16,
    /// Its lease, or the address that it could get.
    pub claim: Claim,
}

/// The lease of a guest, or the address that it could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A fixed address, as the guest knows it.
    Reserved(Ipv4Addr),
    /// A lease.
    Leased(Lease),
    /// It has no lease, and would get this address.
    Free(Ipv4Addr),
    /// It has no lease, and the pool is empty.
    Nothing,
}

/// A change of a guest's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The guest gets this lease.
    Lease(Lease),
    /// The guest releases it.
    Release,
    /// The guest declines the address, because another machine uses it.
    Decline,
}

impl Record {
    /// The lease of an interface, which ends by the clock of this boot of the host.
    pub fn lease(&self, nic: &Nic, boot: BootId) -> Option<Lease> {
        nic.lease.map(|lease| match lease.given {
            _ if self.boot == boot => lease,
            true => Lease { until: LEASE_MS, ..lease },
            false => Lease { until: OFFER_MS, ..lease },
        })
    }

    /// Has all leases end by the clock of this boot.
    pub fn count_leases_from(&mut self, boot: BootId) {
        let leases: Vec<_> = self.nics.iter().map(|nic| self.lease(nic, boot)).collect();
        for (nic, lease) in self.nics.iter_mut().zip(leases) {
            nic.lease = lease;
        }
        self.boot = boot;
    }
}
