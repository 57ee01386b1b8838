//! volnet gives the microVMs of one host their network and runs their hypervisors.
//!
//! The modules stand in the order in which data flows: what people write becomes a request, the
//! engine decides, the network executes, the store remembers, the daemon ties them together.
//! Dependencies point one way, from the bottom of this list to its top.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod dhcp;
pub mod engine;
mod exercise;
pub mod hypervisor;
pub mod model;
pub mod netlink;
pub mod network;
pub mod plan;
pub mod protocol;
#[cfg(target_os = "linux")]
pub mod rights;
pub mod spec;
pub mod store;
