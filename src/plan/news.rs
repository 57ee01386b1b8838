//! News from the kernel.
//!
//! The kernel tells everybody of every change, our own included. [`News`] keeps the last that was
//! said of each thing: what lies between is over, and after changes of our own the last word is
//! what we wanted. `Engine::heard` compares that with what should be, link by link, without
//! looking at anything else. It may err on the side of looking: what is really wrong is found by
//! observing everything, which is done only then.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::op::PortSettings;
use super::reconcile::Link;
use crate::model::limits::Shaping;

/// The reports since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Links by index; `false` for those that are gone.
    pub links: BTreeMap<u32, (Link, bool)>,
    /// Ports by the index of their link, with its name, if there was no other report about the
    /// link.
    pub ports: BTreeMap<u32, (String, PortSettings)>,
    /// The shaping of links, by index, if it changed.
    pub shapings: BTreeMap<u32, Option<Shaping>>,
    /// Addresses by link and prefix length, and whether they exist.
    pub addresses: BTreeMap<(u32, IpAddr, u8), bool>,
    /// Whether IPv4 forwarding is on.
    pub forwarding: Option<bool>,
    /// Whether a link stopped to forward IPv4.
    pub closed: bool,
    /// Whether links are routers of IPv6, by index, if that was said.
    pub routers: BTreeMap<u32, bool>,
    /// Whether IPv6 forwarding is on.
    pub forwarding6: Option<bool>,
    /// The process that changed our rules, or chains with our rules.
    pub rules: Option<Culprit>,
    /// Somebody changed rules elsewhere, which may be in the way of guests.
    pub others: Option<Culprit>,
    /// Whether reports were lost.
    pub lost: bool,
}

/// The process that made a change, if the kernel says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The process.
    pub pid: u32,
    /// The name of its program, as in `/proc/PID/comm`.
    pub name: String,
}
