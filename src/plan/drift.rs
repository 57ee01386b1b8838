//! What others changed, in words; and patience with those who do it again and again.
//!
//! [`name`] reads a plan that repairs as what was wrong. A thing that is made anew explains the
//! other steps on it, so it is one drift; so do a bridge for its ports, and a table for what is
//! in it. [`Patience`] lets each thing be repaired at once, a few times; then it is held back for a
//! while, longer each time, so that volnet does not fight for ever with a program that wants it
//! otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::limits::Shaping;
use crate::model::name::VmName;
use crate::plan::op::{LinkSettings, Op};
use crate::plan::reconcile::DesiredPort;
use crate::plan::ruleset::Element;

/// Repairs of one thing within [`WINDOW_MS`] after which the next is put off.
pub const REPAIRS_MAX: u32 = 8;
/// Milliseconds in which repairs are counted together.
pub const WINDOW_MS: u64 = 10_000;
/// Milliseconds for which a thing is held back the first time; doubled each time.
pub const HOLD_FIRST_MS: u64 = 10_000;
/// The longest time in milliseconds.
pub const HOLD_MAX_MS: u64 = 320_000;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What it is: the name of a link, or the first word on something else.
    pub object: String,
    /// The VM it belongs to.
    pub vm: Option<VmName>,
    /// What is wrong, as a sentence without its end.
    pub message: String,
    /// Whether it is rules that are wrong: of these the kernel tells who changed them.
    pub rules: bool,
}

/// What a plan that repairs says was wrong.
pub fn name(plan: &[Op], ports: &[DesiredPort<'_>]) -> Vec<Drift> {
    let owners: BTreeMap<&str, &VmName> =
        ports.iter().map(|port| (port.tap.as_str(), port.vm)).collect();
    let made: BTreeSet<&str> = plan.iter().filter_map(made).collect();
    let mut drifts: Vec<Drift> = Vec::new();
    for op in plan {
        let (object, _) = objects(op);
        let Some(message) = wrong(op, &made) else { continue };
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

/// What an Op is about, and the other thing that it needs.
pub fn objects(op: &Op) -> (String, Option<&str>) {
    match op {
        Op::CreateBridge { name, .. }
        | Op::CreateTap { name, .. }
        | Op::ShapeLink { name, .. }
        | Op::DeleteLink { name, .. } => (name.clone(), None),
        Op::SetLink { name, set, .. } => {
            (name.clone(), set.master.as_ref().and_then(|to| to.as_deref()))
        }
        Op::AddAddress { link, .. }
        | Op::RemoveAddress { link, .. }
        | Op::ForgetAddress { link, .. } => (link.clone(), None),
        Op::ForgetFlows { address, .. } => (format!("connections of {address}"), None),
        Op::SetForwarding { .. } => ("net.ipv4.ip_forward".into(), None),
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
        Op::CreateBridge { name, .. } | Op::CreateTap { name, .. } => Some(name),
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

/// What is wrong when this must be done; `None` for what follows from something else.
fn wrong(op: &Op, made: &BTreeSet<&str>) -> Option<String> {
    let (object, needs) = objects(op);
    let follows = made.contains(object.as_str()) || needs.is_some_and(|needs| made.contains(needs));
    Some(match op {
        Op::CreateBridge { name, .. } => format!("bridge {name} is gone"),
        Op::CreateTap { name, .. } => format!("tap {name} is gone"),
        _ if follows => return None,
        // The address of a tap that is made or gone, the connections of a port that leads nowhere.
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
        Op::SetForwarding { on } => {
            format!("IPv4 forwarding is {}", if *on { "off" } else { "on" })
        }
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
            format!("the accept rule for {} is missing from chain {}", accept.bridge, accept.chain)
        }
        Op::RemoveAccept(accept) => {
            format!("chain {} has too many accept rules for {}", accept.chain, accept.bridge)
        }
    })
}

fn count(elements: &[Element]) -> String {
    match elements {
        [_] => "1 element".into(),
        more => format!("{} elements", more.len()),
    }
}

/// What is wrong with a link that needs these settings in place of the former.
fn settings(set: &LinkSettings, former: &LinkSettings) -> String {
    let mut wrong = Vec::new();
    if let Some(Some(bridge)) = &set.master {
        wrong.push(match &former.master {
            Some(Some(other)) => format!("is a port of {other}, not of {bridge}"),
            Some(None) | None => format!("is not a port of {bridge}"),
        });
    }
    if set.up == Some(true) {
        wrong.push("is down".into());
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
    if let (Some(right), Some(is), None) = (set.port, former.port, &set.master) {
        match (right.isolated, is.isolated) {
            (true, false) => wrong.push("is not isolated".into()),
            (false, true) => wrong.push("is isolated".into()),
            (true, true) | (false, false) => {}
        }
        if right.group_forward != is.group_forward {
            wrong.push("has another group_fwd_mask".into());
        }
    }
    if wrong.is_empty() { "has other settings".into() } else { wrong.join(", ") }
}

/// What is wrong with how fast a link sends.
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

/// How often things were repaired, and which are held back.
#[derive(Debug, Default)]
pub struct Patience {
    things: BTreeMap<String, Repairs>,
}

/// The repairs of one thing.
#[derive(Debug)]
struct Repairs {
    /// When the first of those that count together was made, or the last hold ended.
    since: u64,
    count: u32,
    holds: u32,
    /// After each [`Patience::release`] this lies ahead.
    held_until: Option<u64>,
}

/// What becomes of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Repair,
    /// It is put off for so many milliseconds from now on.
    Hold { for_ms: u64 },
    /// It was put off before, and still is.
    Held,
}

impl Patience {
    /// Ends the holds whose time is over at `now`, milliseconds of the monotonic clock, and forgets
    /// what has been quiet for long. Whoever waited for [`Patience::deadline`] calls this, also if
    /// nothing is wrong any more: somebody else may have put the thing right, or removed it.
    pub fn release(&mut self, now: u64) {
        for repairs in self.things.values_mut() {
            if repairs.held_until.is_some_and(|until| until <= now) {
                (repairs.held_until, repairs.since, repairs.count) = (None, now, 0);
            }
        }
        self.things.retain(|_, repairs| {
            repairs.held_until.is_some() || now < repairs.since.saturating_add(HOLD_MAX_MS)
        });
    }

    /// Judges one repair at `now`.
    pub fn judge(&mut self, object: &str, now: u64) -> Verdict {
        self.release(now);
        let fresh = Repairs { since: now, count: 0, holds: 0, held_until: None };
        let repairs = self.things.entry(object.to_owned()).or_insert(fresh);
        if repairs.held_until.is_some() {
            return Verdict::Held;
        }
        if now - repairs.since > WINDOW_MS {
            (repairs.since, repairs.count) = (now, 0);
        }
        if repairs.count < REPAIRS_MAX {
            repairs.count += 1;
            return Verdict::Repair;
        }
        let for_ms = (HOLD_FIRST_MS << repairs.holds.min(16)).min(HOLD_MAX_MS);
        repairs.holds += 1;
        repairs.held_until = Some(now + for_ms);
        Verdict::Hold { for_ms }
    }

    /// Whether a thing is held back at `now`.
    pub fn holds(&self, object: &str, now: u64) -> bool {
        self.things.get(object).is_some_and(|repairs| repairs.held_until.is_some_and(|at| now < at))
    }

    /// The next moment at which something is held back no more: then [`Patience::release`] is due.
    pub fn deadline(&self) -> Option<u64> {
        self.things.values().filter_map(|repairs| repairs.held_until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_repaired_a_few_times_and_then_held_back_for_longer_and_longer() {
        let mut patience = Patience::default();
        for at in 0..u64::from(REPAIRS_MAX) {
            assert_eq!(patience.judge("vbr0", at), Verdict::Repair);
        }
        assert_eq!(patience.judge("vbr0", 9), Verdict::Hold { for_ms: HOLD_FIRST_MS });
        assert_eq!(patience.judge("vbr0", 10), Verdict::Held);
        assert!(patience.holds("vbr0", 10) && !patience.holds("vbr1", 10));
        assert_eq!(patience.judge("vbr1", 10), Verdict::Repair, "others are none the worse");
        let mut now = patience.deadline().unwrap();
        for hold in 1..8 {
            for _ in 0..REPAIRS_MAX {
                assert_eq!(patience.judge("vbr0", now), Verdict::Repair);
            }
            let for_ms = (HOLD_FIRST_MS << hold).min(HOLD_MAX_MS);
            assert_eq!(patience.judge("vbr0", now), Verdict::Hold { for_ms });
            now += for_ms;
        }
    }

    #[test]
    fn repairs_that_lie_far_apart_do_not_count_together() {
        let mut patience = Patience::default();
        for at in 0..100 {
            assert_eq!(patience.judge("vbr0", at * (WINDOW_MS + 1)), Verdict::Repair);
        }
        patience.release(u64::MAX);
        assert!(patience.things.is_empty());
    }

    #[test]
    fn a_hold_ends_by_itself_when_the_thing_was_put_right_meanwhile() {
        let mut patience = Patience::default();
        while patience.judge("vbr0", 0) == Verdict::Repair {}
        let end = patience.deadline().unwrap();
        patience.release(end - 1);
        assert_eq!(patience.deadline(), Some(end));
        patience.release(end);
        assert_eq!(patience.deadline(), None, "nothing is due any more");
        while patience.judge("vbr0", end) == Verdict::Repair {}
        assert_eq!(patience.deadline(), Some(end + 2 * HOLD_FIRST_MS), "it is not forgotten");
        patience.release(u64::MAX);
        assert_eq!(patience.deadline(), None);
    }
}
