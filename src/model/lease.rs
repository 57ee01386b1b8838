//! The leases of guests in dhcp mode.
//!
//! The DHCP server and the engine exchange these values. The engine decides
//! (`crate::engine::lease`).

use std::net::Ipv4Addr;

use super::name::VmName;
use super::net::NetworkConfig;
use super::nic::{Lease, Nic};

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
    /// MTU of its link in bytes.
    pub mtu: u16,
    /// Its lease, or the address that it could get.
    pub claim: Claim,
}

/// The lease of a guest, or the address that it could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A fixed address.
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
pub enum Change {
    /// The guest gets this lease.
    Lease(Lease),
    /// The guest releases it.
    Release,
    /// The guest declines the address, because another machine uses it.
    Decline,
}
