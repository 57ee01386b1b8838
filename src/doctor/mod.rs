//! What is wrong with a VM's network, or with the host's: facts become findings.
//!
//! A VM is looked over hop by hop, in the order in which a packet of its guest would go: its
//! process, its tap, the guest itself, the gateway, the rules, the way out. Each hop has a function
//! here, which takes what was seen of it, and gives a line: it is well, or it is wrong, and by
//! which command that is mended. Whoever drives this ([`crate::daemon`]) sees; nothing here looks
//! at anything.
//!
//! ```text
//! process ─▶ tap ─▶ guest, address ─▶ gateway ─▶ forwarding, policy, firewalls ─▶ route, MTU
//!    vm         vm        guest           vm          plan::firewall, others         host
//! ```
//!
//! The guest is asked on its own tap ([`guest`]): by ARP for its IPv4 address, by neighbour
//! discovery for its IPv6 addresses. What it sends by itself meanwhile counts, too. So a guest with
//! another address is told from one that is silent.

pub mod guest;
pub mod host;
#[cfg(test)]
mod tests;
pub mod vm;

use crate::model::view::{Finding, Level};

/// A hop that is as it should be.
pub fn well(check: &str, message: impl Into<String>) -> Finding {
    Finding { check: check.into(), level: Level::Ok, message: message.into(), hint: None }
}

/// A hop that packets do not pass, and what mends it.
pub fn broken(check: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    let (message, hint) = (message.into(), Some(hint.into()));
    Finding { check: check.into(), level: Level::Error, message, hint }
}

/// A hop that some packets may not pass, and what mends it.
pub fn doubtful(check: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..broken(check, message, hint) }
}
