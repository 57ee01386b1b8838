//! The system calls of volnet that need `unsafe`, behind safe functions.
//!
//! Everything that crosses into C lives here and nothing else does: each function does one call,
//! checks what it can before, and turns the outcome into an owned value or an `io::Error`.

#![cfg(target_os = "linux")]

pub mod capabilities;
pub mod descriptors;
pub mod heap;
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod priority;
pub mod socket;
pub mod tun;
