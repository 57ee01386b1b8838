//! When the kernel is observed, and what of the differences is repaired.
//!
//! ```text
//! news ─ heard ─▶ a look is due ─ look ─▶ observed ─ judge ─▶ Repair ─ executed ─▶ events
//!                     ▲                                                    │
//!                     ╰──── something failed: again in a while ────────────╯
//! ```
//!
//! News that could concern us make a look due: one observation of everything, and the one plan that
//! comes out of it, the same as at the start of the daemon. Looks keep [`INTERVAL_MS`] between
//! them, whatever the news. If something fails, there is another look after [`RETRY_MS`]. What is
//! repaired again and again is left alone for a while ([`Patience`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::decide::{Decision, Engine};
use crate::engine::patience::{Judgement, Patience};
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::NicName;
use crate::model::view::{EventKind, Finding, Level};
use crate::plan::drift::{self, Drift};
use crate::plan::firewall::{self, Surroundings};
use crate::plan::news::{Culprit, News};
use crate::plan::op::{Op, Plan};
use crate::plan::reconcile::{self, Observed, Reconciled, reconcile};

/// Milliseconds between two looks.
const INTERVAL_MS: u64 = 50;
/// Milliseconds between a look and one for rules of others, which some change all the time.
const OTHERS_INTERVAL_MS: u64 = 1_000;
/// Milliseconds for which rules of others must stand before an event tells of them. A firewall that
/// reloads drops everything for a moment, or has not made all of its rules.
const SETTLED_MS: u64 = 3_000;
/// Milliseconds after which there is another look if something failed.
const RETRY_MS: u64 = 1_000;
/// What is added to the words of a drift once it is repaired.
const REPAIRED: &str = ": repaired";

/// What is known of drift.
#[derive(Debug, Default)]
pub struct Watch {
    patience: Patience,
    /// Problems that were reported and still exist.
    told: BTreeSet<String>,
    /// Whether one of these is in the way of a VM or a network.
    blocked: bool,
    /// What others have in the way of guests, in words.
    in_the_way: BTreeMap<String, Standing>,
    /// When everything was last observed.
    looked_at: Option<u64>,
    /// When it is to be observed next.
    due: Option<u64>,
    /// Who is said to be behind what the next look finds.
    by: Option<Culprit>,
}

/// Rules of others that are in the way of guests.
#[derive(Debug)]
struct Standing {
    /// The first look that found them.
    since: u64,
    /// Who is said to have made them.
    by: Option<Culprit>,
    /// Whether an event told of them.
    told: bool,
}

/// What a look came to.
#[derive(Debug)]
pub struct Repair {
    /// What is to be executed, step by step, whatever fails.
    pub plan: Plan,
    /// What is wrong, to be told before.
    pub events: Vec<Notice>,
    /// What is told if all of the plan was done.
    repaired: Vec<Notice>,
    by: Option<Culprit>,
}

/// An event without its number and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: EventKind,
    /// The VM that it happened to.
    pub vm: Option<VmName>,
    /// The same in words.
    pub message: String,
    /// Whose doing it was.
    pub by: Option<Culprit>,
}

impl Notice {
    /// Whether it tells of the repair of what this drift told of.
    pub fn mends(&self, drift: &Notice) -> bool {
        self.kind == EventKind::Repaired
            && self.message.strip_suffix(REPAIRED) == Some(&*drift.message)
    }
}

impl Watch {
    /// The next moment at which [`Watch::look`] says yes.
    pub fn deadline(&self) -> Option<u64> {
        self.due.into_iter().chain(self.patience.deadline()).min()
    }

    /// Something may be wrong; `by` is who is said to be behind it. The look keeps `interval_ms`
    /// from the last.
    fn heard(&mut self, by: Option<Culprit>, interval_ms: u64, now: Now) {
        let earliest = self.looked_at.map_or(now.mono, |at| at + interval_ms);
        self.look_by(earliest.max(now.mono));
        self.by = by.or(self.by.take());
    }

    fn look_by(&mut self, at: u64) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether everything is to be observed now. If so, this is the look.
    fn look(&mut self, now: Now) -> bool {
        if self.deadline().is_none_or(|at| now.mono < at) {
            return false;
        }
        self.patience.release(now.mono);
        (self.due, self.looked_at) = (None, Some(now.mono));
        true
    }

    /// What is to be told of what others have in the way: each thing once, as long as it is there,
    /// and only if it stays.
    fn surrounded(&mut self, found: BTreeSet<String>, now: Now) -> Vec<Notice> {
        self.in_the_way.retain(|message, _| found.contains(message));
        for message in found {
            let (by, since) = (self.by.clone(), now.mono);
            let new = || Standing { since, by, told: false };
            self.in_the_way.entry(message).or_insert_with(new);
        }
        let settled = |standing: &Standing| standing.since + SETTLED_MS;
        let mut notices = Vec::new();
        for (message, standing) in &mut self.in_the_way {
            if !standing.told && settled(standing) <= now.mono {
                standing.told = true;
                let (message, by) = (message.clone(), standing.by.clone());
                notices.push(Notice { kind: EventKind::Drift, vm: None, message, by });
            }
        }
        let untold = self.in_the_way.values().filter(|standing| !standing.told);
        if let Some(at) = untold.map(settled).min() {
            self.look_by(at);
        }
        notices
    }

    /// What is to be done about the differences that a look found, and what is to be told.
    fn judge(&mut self, reconciled: Reconciled, drifts: Vec<Drift>, now: Now) -> Repair {
        let standing: BTreeSet<String> =
            reconciled.problems.iter().map(ToString::to_string).collect();
        let new = standing.difference(&self.told).cloned();
        let problem = |message| Notice { kind: EventKind::Drift, vm: None, message, by: None };
        let mut events: Vec<Notice> = new.map(problem).collect();
        self.told = standing;
        self.blocked = reconciled.problems.iter().any(|problem| !problem.is_left_over());
        let (by, mut repaired) = (self.by.take(), Vec::new());
        // A thing of which several properties are wrong is one repair.
        let mut verdicts = BTreeMap::new();
        for Drift { object, vm, mut message, rules } in drifts {
            let judged = || self.patience.judge(&object, now.mono);
            match *verdicts.entry(object.clone()).or_insert_with(judged) {
                Judgement::Held => continue,
                Judgement::Repair => repaired.push(Notice {
                    kind: EventKind::Repaired,
                    vm: vm.clone(),
                    message: format!("{message}{REPAIRED}"),
                    by: by.clone().filter(|_| rules),
                }),
                Judgement::Hold { for_ms } => {
                    let seconds = for_ms / 1000;
                    message += &format!(
                        "; it was repaired several times, so the next repair is in {seconds} s"
                    );
                }
            }
            let by = by.clone().filter(|_| rules);
            events.push(Notice { kind: EventKind::Drift, vm, message, by });
        }
        let plan = reconciled.plan.into_iter().filter(|op| !self.is_held(op, now)).collect();
        Repair { plan, events, repaired, by }
    }

    /// Whether a step is about something that is left alone, or needs such a thing.
    fn is_held(&self, op: &Op, now: Now) -> bool {
        let (object, needs) = drift::objects(op);
        let held = |object: &str| self.patience.holds(object, now.mono);
        held(&object) || needs.is_some_and(held)
    }
}

impl Engine {
    /// Takes news of the kernel, and has everything observed soon if they could concern us.
    pub fn heard(&mut self, news: News, now: Now) {
        for (link, present) in news.links.values() {
            if !present {
                self.end_with(link);
            }
            self.know_carrier(link, *present);
            self.know_port(link, *present);
        }
        if self.is_drift(&news) {
            self.agenda.watch.heard(news.rules, INTERVAL_MS, now);
        }
        let routes = |bridge: &String| {
            self.configured().any(|network| network.ipv6.is_some() && network.bridge == *bridge)
        };
        let is_ours = |link| self.known.bridges.get(link).is_some_and(routes);
        let no_router = news.routers.iter().any(|(link, on)| !on && is_ours(link));
        if news.others.is_some() || news.closed || no_router {
            self.agenda.watch.heard(news.others, OTHERS_INTERVAL_MS, now);
        }
    }

    /// The findings about what others have in the way of packets.
    pub fn firewalls(&self, surroundings: &Surroundings) -> Vec<Finding> {
        let bridges = |speaks: fn(&NetworkConfig) -> bool| -> Vec<&str> {
            let managed = self.configured().filter(|network| network.managed && speaks(network));
            managed.map(|network| &*network.bridge).collect()
        };
        let ipv4 = bridges(|network| network.ipv4.is_some());
        let ipv6 = bridges(|network| network.ipv6.is_some());
        firewall::findings(surroundings, &ipv4, &ipv6)
    }

    /// Takes what others have in the way of packets, and gives what is to be told of it.
    pub fn surrounded(&mut self, surroundings: &Surroundings, now: Now) -> Vec<Notice> {
        self.names_kept(surroundings);
        let wrong = self.firewalls(surroundings).into_iter();
        let wrong = wrong
            .filter(|finding| finding.level != Level::Ok)
            .map(|finding| format!("{}: {}", finding.check, finding.message));
        self.agenda.watch.surrounded(wrong.collect(), now)
    }

    /// Whether everything is to be observed now. If so, [`Engine::judge`] is due with what was
    /// seen, or [`Engine::look_again`] if nothing was.
    pub fn look(&mut self, now: Now) -> bool {
        self.agenda.watch.look(now)
    }

    /// Something failed, or its undoing may have: everything is observed in a while.
    pub fn look_again(&mut self, now: Now) {
        self.agenda.watch.look_by(now.mono + RETRY_MS);
    }

    /// Whether no look is due and nothing is left alone: what is wrong now was not told yet.
    pub fn is_content(&self) -> bool {
        self.agenda.watch.deadline().is_none()
    }

    /// The host is free of everything: what was known of it is forgotten, and no look is due.
    pub fn forget_drift(&mut self) {
        self.agenda.watch = Watch::default();
    }

    /// Whether the last look found problems that are not ours to solve, and that are in the way of
    /// a VM or a network.
    pub fn has_problems(&self) -> bool {
        self.agenda.watch.blocked
    }

    /// Compares what was observed with what should be.
    pub fn judge(&mut self, observed: &Observed, now: Now) -> Repair {
        self.observed(&observed.links);
        let desired = self.desired();
        let reconciled = reconcile(&desired, observed);
        let drifts = drift::name(&reconciled.plan, &desired.ports);
        self.agenda.watch.judge(reconciled, drifts, now)
    }

    /// A repair was executed. Gives what is told of it; if a step failed, that is another look.
    pub fn repaired(&mut self, repair: Repair, failed: bool, now: Now) -> Vec<Notice> {
        if failed {
            self.agenda.watch.by = repair.by;
            self.look_again(now);
            return Vec::new();
        }
        repair.repaired
    }

    /// A step was executed beside a decision. If it made the tap of a VM anew, this takes over the
    /// index that the kernel gave it. A hypervisor that had the former tap open has a dead
    /// descriptor, and the decision says what becomes of it.
    pub fn remade(&mut self, op: &Op, ifindex: Option<u32>, now: Now) -> Option<Decision> {
        let (tap, nic) = reconcile::made(op)?;
        let name = NicName::vm_of(nic)?;
        let vm = self.state.vms.get_mut(&name).filter(|_| ifindex.is_some());
        let nics = vm.into_iter().flat_map(|vm| &mut vm.edit().nics);
        for nic in nics.filter(|nic| nic.tap.as_str() == tap) {
            nic.ifindex = ifindex;
        }
        self.tap_lost(&name, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::patience::REPAIRS_MAX;

    fn at(mono: u64) -> Now {
        Now { mono, ..Now::default() }
    }

    fn culprit() -> Option<Culprit> {
        Some(Culprit { pid: 7, name: "nft".into() })
    }

    /// A link of which two things are wrong, and a rule.
    fn drifts() -> Vec<Drift> {
        let drift = |object: &str, message: &str, rules| Drift {
            object: object.into(),
            vm: None,
            message: message.into(),
            rules,
        };
        vec![
            drift("vbr0", "link vbr0 is down", false),
            drift("vbr0", "bridge vbr0 has no address", false),
            drift("table", "a rule is gone", true),
        ]
    }

    #[test]
    fn looks_keep_their_distance_and_news_bring_none_forward() {
        let mut watch = Watch::default();
        assert!(!watch.look(at(0)));
        watch.heard(None, INTERVAL_MS, at(0));
        assert!(watch.look(at(0)) && !watch.look(at(0)));
        watch.heard(None, INTERVAL_MS, at(10));
        watch.heard(None, INTERVAL_MS, at(20));
        assert_eq!(watch.deadline(), Some(INTERVAL_MS));
        assert!(!watch.look(at(INTERVAL_MS - 1)) && watch.look(at(INTERVAL_MS)));
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn what_others_change_all_the_time_is_looked_at_once_a_second() {
        let mut engine = Engine::new(Vec::new(), "qemu".into(), true).unwrap();
        let mut looks = 0;
        for ms in 0..10 * OTHERS_INTERVAL_MS {
            engine.heard(News { others: culprit(), ..News::default() }, at(ms));
            looks += u64::from(engine.look(at(ms)));
        }
        assert_eq!(looks, 10);
    }

    #[test]
    fn what_is_in_the_way_is_told_once_if_it_stays() {
        let found = || BTreeSet::from(["firewalld: it drops".to_string()]);
        let mut watch = Watch { by: culprit(), ..Watch::default() };
        // A reload: it is gone before it counts, and is back.
        assert_eq!(watch.surrounded(found(), at(0)), []);
        assert_eq!(watch.deadline(), Some(SETTLED_MS));
        assert_eq!(watch.surrounded(BTreeSet::new(), at(SETTLED_MS - 2)), []);
        assert_eq!(watch.surrounded(found(), at(SETTLED_MS - 1)), []);
        // Who made it is told, though others were heard of since.
        watch.by = None;
        assert!(watch.look(at(SETTLED_MS)));
        assert_eq!(watch.surrounded(found(), at(SETTLED_MS)), []);
        assert_eq!(watch.deadline(), Some(2 * SETTLED_MS - 1));
        assert!(watch.look(at(2 * SETTLED_MS - 1)));
        let told = watch.surrounded(found(), at(2 * SETTLED_MS - 1));
        assert_eq!((told.len(), told[0].by.clone()), (1, culprit()));
        assert_eq!(watch.deadline(), None);
        assert_eq!(watch.surrounded(found(), at(3 * SETTLED_MS)), []);
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn a_thing_counts_once_in_a_look_whatever_is_wrong_with_it() {
        let mut watch = Watch::default();
        for round in 0..u64::from(REPAIRS_MAX) {
            let repair = watch.judge(Reconciled::default(), drifts(), at(round));
            assert_eq!((repair.events.len(), repair.repaired.len()), (3, 3), "{round}");
        }
        let repair = watch.judge(Reconciled::default(), drifts(), at(100));
        assert!(repair.events.iter().all(|event| event.message.contains("next repair is in 10 s")));
        assert_eq!(repair.repaired, []);
        assert_eq!(watch.judge(Reconciled::default(), drifts(), at(101)).events, []);
        assert!(watch.look(at(100 + 10_000)), "the hold is over");
    }

    #[test]
    fn who_is_behind_it_is_told_of_rules_alone_and_outlives_a_failure() {
        let networks = Vec::new();
        let mut engine = Engine::new(networks, "qemu".into(), true).unwrap();
        let news = News { rules: culprit(), ..News::default() };
        engine.heard(news, at(0));
        assert!(engine.look(at(0)));
        let repair = engine.agenda.watch.judge(Reconciled::default(), drifts(), at(0));
        let by: Vec<_> = repair.events.iter().map(|event| event.by.clone()).collect();
        assert_eq!(by, [None, None, culprit()]);
        assert_eq!(engine.repaired(repair, true, at(0)), []);
        assert_eq!(engine.deadline(), Some(RETRY_MS));
        assert!(engine.look(at(RETRY_MS)));
        let repair = engine.agenda.watch.judge(Reconciled::default(), drifts(), at(RETRY_MS));
        assert_eq!(repair.by, culprit());
        assert_eq!(engine.repaired(repair, false, at(RETRY_MS)).len(), 3);
        assert_eq!(engine.agenda.watch.by, None);
    }
}
