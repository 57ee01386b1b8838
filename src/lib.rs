//! volnet gives the microVMs of one host their network and runs their hypervisors.
//!
//! Each module is a room, and a room imports from those before it only (`tests/rooms.rs`):
//!
//! 1. [`model`]: words and values;
//! 2. [`packet`]: frames beside the IP stack; [`plan`]: what the kernel should hold; [`netlink`]:
//!    the kernel's messages; [`nftables`]: the one as the other;
//! 3. [`engine`]: the decisions;
//! 4. [`spec`], [`config`], [`protocol`], [`store`], [`dhcp`], [`dhcp6`], [`ndp`], [`dns`]: what is
//!    read and written;
//! 5. [`network`], [`resolver`], [`hypervisor`], [`metrics`]: the kernel, the sockets for names,
//!    the processes, what is counted;
//! 6. [`daemon`], [`cli`]: the programs.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub mod doctor;
pub mod engine;
#[cfg(any(test, feature = "testing"))]
mod fuzz;
pub mod hypervisor;
pub mod metrics;
pub mod model;
pub mod ndp;
#[cfg(target_os = "linux")]
pub mod netlink;
pub mod network;
#[cfg(target_os = "linux")]
pub mod nftables;
pub mod packet;
pub mod plan;
pub mod protocol;
#[cfg(target_os = "linux")]
pub mod resolver;
#[cfg(target_os = "linux")]
pub mod rights;
pub mod spec;
pub mod store;
pub mod trace;
