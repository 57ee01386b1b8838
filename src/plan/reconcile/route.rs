//! The routes that tell the host which guests have an MTU below that of their bridge.

use std::collections::BTreeSet;

use super::port::DesiredPort;
use super::{Links, Observed};
use crate::plan::op::{GuestRoute, Op, Plan};

/// The routes that should be, as far as the kernel speaks their families.
pub(super) fn wanted<'a>(
    ports: impl Iterator<Item = &'a DesiredPort<'a>>,
    observed: &Observed,
) -> BTreeSet<GuestRoute> {
    let spoken = |route: &GuestRoute| route.to.is_ipv4() || !observed.without_ipv6;
    ports.flat_map(DesiredPort::routes).filter(spoken).collect()
}

/// The Ops that remove those of ours that should not be.
pub(super) fn left_over(
    wanted: &BTreeSet<GuestRoute>,
    links: &Links<'_>,
    observed: &Observed,
) -> Plan {
    present(links, observed).difference(wanted).cloned().map(Op::RemoveRoute).collect()
}

/// The Ops that add those that are missing. A bridge that is changed may lose all of its routes:
/// the kernel removes them when it goes down, and with its last address.
pub(super) fn missing(
    wanted: &BTreeSet<GuestRoute>,
    changed: &BTreeSet<&str>,
    links: &Links<'_>,
    observed: &Observed,
) -> Plan {
    let present = present(links, observed);
    let is_missing =
        |route: &&GuestRoute| !present.contains(route) || changed.contains(route.link.as_str());
    wanted.iter().filter(is_missing).cloned().map(Op::AddRoute).collect()
}

/// Those of ours on links that stay.
fn present(links: &Links<'_>, observed: &Observed) -> BTreeSet<GuestRoute> {
    let present = observed.guest_routes.iter().filter_map(|&(index, to, mtu)| {
        let link = links.names.get(&index)?;
        Some(GuestRoute { link: (*link).to_string(), to, mtu })
    });
    present.collect()
}
