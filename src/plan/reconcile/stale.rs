//! Links that carry our mark and are not desired any more.
//!
//! The mark alone is no reason to remove a link. A tap that a process holds open may be that of a
//! VM that runs: of a record that is lost, or under another name than its own. It stays until
//! somebody asks for its end, but it is parked: taken off its bridge, and down. No rule knows a
//! guest there, its address may be another VM's by now, and a port without elements may send
//! anything. A bridge stays as long as it has ports of others.

use std::collections::BTreeSet;

use super::problem::describe;
use super::{Desired, Link, Observed, Problem};

/// What becomes of those links.
pub(super) struct Stale<'a> {
    /// These are removed.
    pub(super) links: Vec<&'a Link>,
    /// These are parked.
    pub(super) held: Vec<&'a Link>,
    /// These stay, and why.
    pub(super) problems: Vec<Problem>,
}

/// Looks for them.
pub(super) fn find<'a>(desired: &Desired<'_>, observed: &'a Observed) -> Stale<'a> {
    let ports = desired.ports.iter().map(|port| port.tap.as_str());
    let taps: BTreeSet<&str> = ports.chain(desired.parked.iter().copied()).collect();
    let bridges: BTreeSet<&str> =
        desired.networks.iter().map(|network| network.bridge.as_str()).collect();
    let held = |link: &Link| {
        link.is_of_nic() && !taps.contains(&*link.name) && link.is_open() && !desired.evict
    };
    // Whoever attached something else to a bridge relies on it, and on the addresses that it has.
    let stays = |port: &&Link| !(port.is_of_nic() || port.is_retired());
    let mut stale = Stale { links: Vec::new(), held: Vec::new(), problems: Vec::new() };
    for link in &observed.links {
        let name = link.name.as_str();
        if held(link) {
            stale.held.push(link);
            stale.problems.push(Problem::TapHeld { tap: link.name.clone(), found: describe(link) });
        } else if link.is_retired() || link.unfinished || link.is_of_nic() && !taps.contains(name) {
            stale.links.push(link);
        } else if link.is_our_bridge() && !bridges.contains(name) {
            let ports = observed.links.iter().filter(|port| port.master == Some(link.index));
            let ports: Vec<_> = ports.filter(stays).map(|port| port.name.clone()).collect();
            match ports.is_empty() {
                true => stale.links.push(link),
                false => {
                    stale.problems.push(Problem::BridgeHeld { bridge: link.name.clone(), ports });
                }
            }
        }
    }
    stale
}
