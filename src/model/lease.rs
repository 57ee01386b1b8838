//! What a guest that asks for its address has, could have, and gets.
//!
//! The DHCP server speaks of these with the engine, which decides (`crate::engine::lease`).

use std::net::Ipv4Addr;

use super::name::VmName;
use super::net::NetworkConfig;
use super::nic::{Lease, Nic};

/// A guest that asks for its address, and what it has.
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
    /// What it has, or could have.
    pub claim: Claim,
}

/// What a guest has, or could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This address is its own.
    Reserved(Ipv4Addr),
    /// This lease is its own.
    Leased(Lease),
    /// It has none and would get this address.
    Free(Ipv4Addr),
    /// It has none and there is none.
    Nothing,
}

/// What is to become of a guest's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is this one from now on.
    Lease(Lease),
    /// The guest gives it back.
    Release,
    /// The guest found the address in use by somebody else.
    Decline,
}
