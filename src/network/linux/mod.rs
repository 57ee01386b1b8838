//! The Linux kernel as a backend.

pub mod socket;
