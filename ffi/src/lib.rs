//! The system calls of volnet that need `unsafe`, behind safe functions.
//!
//! All calls into C are here, and, for C's own library, its copies of bytes. Each function makes
//! one call, checks its arguments before, and returns an owned value or an `io::Error`.

#![cfg(target_os = "linux")]

pub mod capabilities;
pub mod descriptors;
pub mod heap;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod memcpy;
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod priority;
pub mod random;
pub mod socket;
pub mod terminal;
pub mod tun;
