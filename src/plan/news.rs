//! News of the kernel.
//!
//! The kernel tells everybody of every change, our own included. [`News`] keeps the last that was
//! said of each thing: what lies between is over, and after changes of our own the last word is
//! what we wanted. `Engine::heard` compares that with what should be, link by link, without
//! looking at anything else. It may err on the side of looking: what is really wrong is found by
//! observing everything, which is done only then.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::op::PortSettings;
use super::reconcile::Link;
use crate::model::limits::Shaping;

/// What was told since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Links by index, as they are; `false` for those that are gone, as they were.
    pub links: BTreeMap<u32, (Link, bool)>,
    /// Ports by index of their link, with its name, where nothing else was told of the link.
    pub ports: BTreeMap<u32, (String, PortSettings)>,
    /// How fast links send, by index, where that changed.
    pub shapings: BTreeMap<u32, Option<Shaping>>,
    /// Addresses by link and length of the prefix, and whether they are there.
    pub addresses: BTreeMap<(u32, Ipv4Addr, u8), bool>,
    /// Whether IPv4 is forwarded.
    pub forwarding: Option<bool>,
    /// Somebody else changed rules of ours, or where rules of ours are.
    pub rules: Option<Culprit>,
    /// Somebody changed rules elsewhere, which may be in the way of guests.
    pub others: Option<Culprit>,
    /// Some were lost.
    pub lost: bool,
}

/// Who changed something, where the kernel says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The process.
    pub pid: u32,
    /// The name of its program, as in `/proc/PID/comm`.
    pub name: String,
}
