//! The Linux kernel as a backend.

pub mod addresses;
pub mod holder;
pub mod links;
pub mod monitor;
pub mod socket;
pub mod sysctl;
pub mod tap;
