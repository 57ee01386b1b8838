//! What others changed, in words.
//!
//! [`name`] reads a plan that repairs as what was wrong. A thing that is made anew explains the
//! other steps on it, so it is one drift; so do a bridge for its ports, and a table for what is
//! in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::limits::Shaping;
use crate::model::name::VmName;
use crate::plan::op::{LinkSettings, Op, Switch, table_name};
use crate::plan::reconcile::DesiredPort;
use crate::plan::ruleset::{Accept, Element};

/// One difference from the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The object: the name of a link, or words for another object.
    pub object: String,
    /// Its VM.
    pub vm: Option<VmName>,
    /// The difference, as a sentence without a full stop.
    pub message: String,
    /// Whether it is about rules: for these the kernel says who changed them.
    pub rules: bool,
}

/// The differences that a plan of repairs removes.
pub fn name(plan: &[Op], ports: &[DesiredPort<'_>]) -> Vec<Drift> {
    let owners: BTreeMap<&str, &VmName> =
        ports.iter().map(|port| (port.tap.as_str(), port.vm)).collect();
    let made: BTreeSet<&str> = plan.iter().filter_map(made).collect();
    let is_route = |op: &&Op| matches!(op, Op::AddRoute(_) | Op::RemoveRoute(_));
    let changed: BTreeSet<&str> =
        plan.iter().filter(|op| !is_route(op)).filter_map(Op::link).collect();
    let mut drifts: Vec<Drift> = Vec::new();
    for op in plan {
        let (object, _) = objects(op);
        let Some(message) = wrong(op, &made) else { continue };
        if matches!(op, Op::AddRoute(route) if changed.contains(route.link.as_str())) {
            // The kernel drops routes of a link that goes down or loses its addresses.
            continue;
        }
        if drifts.last().is_some_and(|last| last.message == message) {
            continue;
        }
        drifts.push(Drift {
            vm: owners.get(object.as_str()).map(|vm| (*vm).clone()),
            rules: is_of_rules(op),
            object,
            message,
        });
    }
    drifts
}

/// The object of an Op, and the other object that it needs.
pub fn objects(op: &Op) -> (String, Option<&str>) {
    match op {
        Op::CreateBridge { name, .. }
        | Op::CreateTap { name, .. }
        | Op::CreateVeth { name, .. }
        | Op::ShapeLink { name, .. }
        | Op::DeleteLink { name, .. } => (name.clone(), None),
        Op::SetLink { name, set, .. } => {
            (name.clone(), set.master.as_ref().and_then(|to| to.as_deref()))
        }
        Op::AddAddress { link, .. }
        | Op::RemoveAddress { link, .. }
        | Op::ForgetAddress { link, .. } => (link.clone(), None),
        Op::AddRoute(route) | Op::RemoveRoute(route) => {
            (format!("route to {}", route.to), Some(&route.link))
        }
        Op::ForgetFlows { address, .. } => (format!("connections of {address}"), None),
        Op::SetForwarding { .. } => ("net.ipv4.ip_forward".into(), None),
        Op::SetSwitch { switch, .. } => (switch.to_string(), None),
        Op::CreateTable(_) | Op::ReplaceTable(_) | Op::RemoveTable { .. } => {
            (op.describe().1, None)
        }
        Op::AddElements(elements)
        | Op::RemoveElements(elements)
        | Op::ExchangeElements { new: elements, .. } => {
            let table = elements.first().map_or("", |element| element.table);
            (format!("elements of {table}"), None)
        }
        Op::AddAccept(accept) | Op::RemoveAccept(accept) => {
            (format!("accept rules of {}", accept.bridge), None)
        }
    }
}

/// The link that an Op makes.
fn made(op: &Op) -> Option<&str> {
    match op {
        Op::CreateBridge { name, .. }
        | Op::CreateTap { name, .. }
        | Op::CreateVeth { name, .. } => Some(name),
        _ => None,
    }
}

fn is_of_rules(op: &Op) -> bool {
    matches!(
        op,
        Op::CreateTable(_)
            | Op::ReplaceTable(_)
            | Op::RemoveTable { .. }
            | Op::AddElements(_)
            | Op::RemoveElements(_)
            | Op::ExchangeElements { .. }
            | Op::AddAccept(_)
            | Op::RemoveAccept(_)
    )
}

/// The difference that this Op removes; `None` if it follows from another Op.
fn wrong(op: &Op, made: &BTreeSet<&str>) -> Option<String> {
    let (object, needs) = objects(op);
    let follows = made.contains(object.as_str()) || needs.is_some_and(|needs| made.contains(needs));
    Some(match op {
        Op::CreateBridge { name, .. } => format!("bridge {name} is gone"),
        Op::CreateTap { name, .. } => format!("tap {name} is gone"),
        Op::CreateVeth { name, .. } => format!("veth {name} is gone"),
        _ if follows => return None,
        // These are about a tap that is made or gone, or a port that leads nowhere.
        Op::ForgetAddress { .. } | Op::ForgetFlows { .. } => return None,
        Op::DeleteLink { name, .. } => format!("link {name} is left over"),
        Op::SetLink { name, set, former } => format!("link {name} {}", settings(set, former)),
        Op::ShapeLink { name, to, former } => format!("link {name} {}", shaping(*to, *former)),
        Op::AddAddress { link, address, length } => {
            format!("bridge {link} has lost its address {address}/{length}")
        }
        Op::RemoveAddress { link, address, length } => {
            format!("bridge {link} has the address {address}/{length}, which is not volnet's")
        }
        Op::AddRoute(route) => {
            format!("the route to {} with the MTU {} is gone", route.to, route.mtu)
        }
        Op::RemoveRoute(route) => {
            format!("the route to {} with the MTU {} is left over", route.to, route.mtu)
        }
        Op::SetForwarding { on } => {
            format!("IPv4 forwarding is {}", if *on { "off" } else { "on" })
        }
        Op::SetSwitch { switch: Switch::Forwarding, to, .. } => {
            format!("IPv6 forwarding is {}", if *to == 1 { "off" } else { "on" })
        }
        Op::SetSwitch { switch, to, former } => format!("{switch} is {former}, not {to}"),
        Op::CreateTable(_) => format!("table {object} is gone"),
        Op::ReplaceTable(_) => format!("table {object} was changed"),
        Op::RemoveTable { .. } => format!("table {object} is left over"),
        Op::AddElements(elements) => {
            format!("table {} lacks {}", elements[0].table, count(elements))
        }
        Op::ExchangeElements { new, .. } => {
            format!("table {} has other values for {}", new[0].table, count(new))
        }
        Op::RemoveElements(elements) => {
            format!("table {} has {} too many", elements[0].table, count(elements))
        }
        Op::AddAccept(accept) => {
            let Accept { family, bridge, chain, .. } = accept;
            let table = table_name(*family, "filter");
            format!("the accept rule for {bridge} is missing from chain {chain} of table {table}")
        }
        Op::RemoveAccept(accept) => {
            let Accept { family, bridge, chain, .. } = accept;
            let table = table_name(*family, "filter");
            format!("chain {chain} of table {table} has too many accept rules for {bridge}")
        }
    })
}

fn count(elements: &[Element]) -> String {
    match elements {
        [_] => "1 element".into(),
        more => format!("{} elements", more.len()),
    }
}

/// The differences of a link that needs these settings instead of the former.
fn settings(set: &LinkSettings, former: &LinkSettings) -> String {
    let mut wrong = Vec::new();
    if let Some(Some(bridge)) = &set.master {
        wrong.push(match &former.master {
            Some(Some(other)) => format!("is a port of {other}, not of {bridge}"),
            Some(None) | None => format!("is not a port of {bridge}"),
        });
    }
    if let (Some(None), Some(Some(other))) = (&set.master, &former.master) {
        wrong.push(format!("is a port of {other}"));
    }
    match set.up {
        Some(true) => wrong.push("is down".into()),
        Some(false) => wrong.push("is up".into()),
        None => {}
    }
    if let (Some(right), Some(is)) = (set.mtu, former.mtu) {
        wrong.push(format!("has the MTU {is}, not {right}"));
    }
    if let (Some(right), Some(is)) = (set.mac, former.mac) {
        wrong.push(format!("has the address {is}, not {right}"));
    }
    if let Some(alias) = &set.alias {
        wrong.push(format!("does not have the alias {alias}"));
    }
    match set.snooping {
        Some(false) => wrong.push("has mcast_snooping on".into()),
        Some(true) => wrong.push("has mcast_snooping off".into()),
        None => {}
    }
    if let (Some(right), Some(is)) = (set.filtered, former.filtered) {
        let pairs = [(right.ipv4, is.ipv4, "IPv4"), (right.ipv6, is.ipv6, "IPv6")];
        for (right, _, family) in pairs.into_iter().filter(|(right, is, _)| right != is) {
            let does = if right { "does not pass" } else { "passes" };
            wrong.push(format!("{does} {family} frames through the rules for routed packets"));
        }
    }
    if let (Some(right), Some(is), None) = (set.port, former.port, &set.master) {
        match (right.isolated, is.isolated) {
            (true, false) => wrong.push("is not isolated".into()),
            (false, true) => wrong.push("is isolated".into()),
            (true, true) | (false, false) => {}
        }
        match (right.hairpin, is.hairpin) {
            (true, false) => wrong.push("sends no frame back by its port".into()),
            (false, true) => wrong.push("sends frames back by their port".into()),
            (true, true) | (false, false) => {}
        }
        if right.group_forward != is.group_forward {
            wrong.push("has another group_fwd_mask".into());
        }
    }
    if wrong.is_empty() { "has other settings".into() } else { wrong.join(", ") }
}

/// The difference of a link's shaping.
fn shaping(right: Option<Shaping>, is: Option<Shaping>) -> String {
    match (right, is) {
        (Some(right), None) => format!("is not limited to {} bytes/s", right.rate),
        (Some(right), Some(is)) if right.rate != is.rate => {
            format!("is limited to {} bytes/s, not {}", is.rate, right.rate)
        }
        (Some(_), Some(_)) => "has another burst".into(),
        (None, _) => "has a limit that it should not have".into(),
    }
}
