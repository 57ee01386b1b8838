//! What guests do again and again that somebody should know of: events with their causes.
//!
//! - `address_conflict`: ARP of the guest states an address that it does not have, or the guest has
//!   found another machine with its own;
//! - `dhcp_repeated`: the guest asks for its address again and again;
//! - `denied_flood`: its policy denies many packets a second;
//! - `limit_drops`: a limit has dropped packets for minutes.
//!
//! A guest can do all that as fast as it likes. So of each VM, each cause is told at most once in
//! [`QUIET_MS`], and a look at counters tells of [`TOLD_MAX`] things at most; the next look tells
//! of the others.
//!
//! What is about DHCP is known when the guest asks. The others are differences between counters of
//! the kernel. Whoever drives the engine reads these while somebody wants to know
//! ([`Engine::counted`]), so a host that nobody looks at does nothing for them.

use std::collections::BTreeMap;

use crate::engine::decide::Engine;
use crate::engine::watch::Notice;
use crate::model::clock::Now;
use crate::model::name::VmName;
use crate::model::view::EventKind;

/// Milliseconds for which a cause is not told of a VM again.
const QUIET_MS: u64 = 10 * 60 * 1000;
/// The most that one look at counters tells.
const TOLD_MAX: usize = 32;
/// Milliseconds between two looks that are compared, at least.
const SPAN_MS: u64 = 5_000;
/// The same at most: what was in between may have been at any time.
const GAP_MS: u64 = 90_000;
/// Denied packets a second that are a flood.
const DENIED_PER_S: u64 = 100;
/// Frames of ARP with foreign addresses between two looks that are no accident.
const FORGED_MIN: u64 = 2;
/// Milliseconds for which a limit must have dropped packets, at every look.
const DROPS_MS: u64 = 120_000;
/// How often a guest asks for its address in [`QUIET_MS`] before that is told. A guest that boots
/// asks twice; one that has a lease, twice an hour.
const ASKED_MAX: u32 = 20;

/// A cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Two have one address.
    AddressConflict,
    /// It asks for an address again and again.
    DhcpRepeated,
    /// It asks for an address, and its network has none.
    NoAddress,
    /// Its policy denies a flood.
    DeniedFlood,
    /// A limit drops packets for minutes.
    LimitDrops,
}

/// What the kernel has counted of a VM: packets, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Its policy denied them.
    pub denied: u64,
    /// They were ARP that stated addresses of others.
    pub forged: u64,
    /// A limit dropped them, for sending or receiving.
    pub limited: u64,
}

/// What is known of all VMs that had trouble.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<VmName, Record>);

/// What is known of one.
#[derive(Debug, Default)]
struct Record {
    /// When each cause was last told.
    told: BTreeMap<Trouble, u64>,
    /// Since when the guest has asked for its address how often.
    asked: (u64, u32),
    /// The last look at its counters.
    looked: Option<(u64, Counts)>,
    /// Since when each look has found that a limit drops packets.
    drops_since: Option<u64>,
}

impl Record {
    /// Whether a cause may be told now. If so, it counts as told.
    fn is_news(&mut self, trouble: Trouble, now: u64) -> bool {
        let told = self.told.get(&trouble);
        let is_news = told.is_none_or(|at| at + QUIET_MS <= now);
        if is_news {
            self.told.insert(trouble, now);
        }
        is_news
    }

    /// Counts a question for an address. Gives how often it was asked and in how many seconds, if
    /// that is too often.
    fn ask(&mut self, now: u64) -> Option<(u32, u64)> {
        let (since, count) = &mut self.asked;
        if *count == 0 || *since + QUIET_MS <= now {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        let told = (*count, (now - *since).div_ceil(1000));
        (*count >= ASKED_MAX && self.is_news(Trouble::DhcpRepeated, now)).then_some(told)
    }

    /// Takes a look at the counters. Gives what is wrong, in words, unless there is no room for it.
    fn look(&mut self, counts: Counts, now: u64, room: usize) -> Vec<(EventKind, String)> {
        let Some((at, before)) = self.looked else {
            self.looked = Some((now, counts));
            return Vec::new();
        };
        let span = now - at;
        if span < SPAN_MS {
            return Vec::new();
        }
        self.looked = Some((now, counts));
        // A counter that is less than it was began anew.
        let grown = |of: fn(&Counts) -> u64| of(&counts).saturating_sub(of(&before));
        let (denied, forged) = (grown(|it| it.denied), grown(|it| it.forged));
        let drops = grown(|it| it.limited) > 0 && span <= GAP_MS;
        self.drops_since = drops.then(|| self.drops_since.unwrap_or(at));
        let seconds = span.div_ceil(1000);
        let mut wrong = Vec::new();
        let mut tell = |this: &mut Record, trouble, kind, words: String| {
            if wrong.len() < room && this.is_news(trouble, now) {
                wrong.push((kind, words));
            }
        };
        if forged >= FORGED_MIN {
            let words = format!(
                "its guest uses an IPv4 address that it does not have: {forged} frames of ARP were \
                 dropped in {seconds} s"
            );
            tell(self, Trouble::AddressConflict, EventKind::AddressConflict, words);
        }
        if denied * 1000 >= DENIED_PER_S * span {
            let words = format!("its policy has denied {denied} packets in {seconds} s");
            tell(self, Trouble::DeniedFlood, EventKind::DeniedFlood, words);
        }
        if let Some(since) = self.drops_since.filter(|since| since + DROPS_MS <= now) {
            let minutes = (now - since) / 60_000;
            let words = format!("its limits have dropped packets for {minutes} minutes");
            tell(self, Trouble::LimitDrops, EventKind::LimitDrops, words);
        }
        wrong
    }
}

impl Engine {
    /// The guest of a VM has asked for its address. Gives what is told if it does so too often.
    pub fn asked_for_address(&mut self, name: &VmName, now: Now) -> Option<Notice> {
        let (count, seconds) = self.trouble_of(name)?.ask(now.mono)?;
        let words = format!("its guest has asked for its address {count} times in {seconds} s");
        Some(notice(EventKind::DhcpRepeated, name, &words))
    }

    /// The guest of a VM has found another machine with its address.
    pub fn in_conflict(&mut self, name: &VmName, words: &str, now: Now) -> Option<Notice> {
        let is_news = self.is_news(name, Trouble::AddressConflict, now);
        is_news.then(|| notice(EventKind::AddressConflict, name, words))
    }

    /// Whether this may be told of a VM now. If so, it counts as told.
    pub fn is_news(&mut self, name: &VmName, trouble: Trouble, now: Now) -> bool {
        self.trouble_of(name).is_some_and(|record| record.is_news(trouble, now.mono))
    }

    /// Takes what the kernel has counted of all VMs, and gives what is told of it.
    pub fn counted<'a>(
        &mut self,
        counts: impl Iterator<Item = (&'a VmName, Counts)>,
        now: Now,
    ) -> Vec<Notice> {
        let vms = &self.state.vms;
        self.known.troubles.0.retain(|name, _| vms.contains_key(name));
        let mut notices = Vec::new();
        for (name, counts) in counts {
            let Some(record) = self.trouble_of(name) else { continue };
            let wrong = record.look(counts, now.mono, TOLD_MAX - notices.len());
            notices.extend(wrong.iter().map(|(kind, words)| notice(*kind, name, words)));
        }
        notices
    }

    /// What is known of a VM; `None` if there is no such VM.
    fn trouble_of(&mut self, name: &VmName) -> Option<&mut Record> {
        self.state.vms.contains_key(name).then_some(())?;
        Some(self.known.troubles.0.entry(name.clone()).or_default())
    }

    /// A VM is gone: the next of its name has no trouble.
    pub(super) fn forget_trouble(&mut self, name: &VmName) {
        self.known.troubles.0.remove(name);
    }
}

fn notice(kind: EventKind, name: &VmName, words: &str) -> Notice {
    Notice { kind, vm: Some(name.clone()), message: format!("VM {name}: {words}"), by: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(record: &mut Record, counts: Counts, now: u64) -> Vec<EventKind> {
        record.look(counts, now, TOLD_MAX).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_flood_is_told_once_in_a_while() {
        let mut record = Record::default();
        let denied = |denied| Counts { denied, ..Counts::default() };
        assert_eq!(kinds(&mut record, denied(1_000_000), 0), [], "it may be of long ago");
        assert_eq!(kinds(&mut record, denied(1_000_499), SPAN_MS), [], "that is no flood");
        assert_eq!(kinds(&mut record, denied(2_000_000), SPAN_MS + 1), [], "too soon to say");
        assert_eq!(kinds(&mut record, denied(2_000_000), 2 * SPAN_MS), [EventKind::DeniedFlood]);
        assert_eq!(kinds(&mut record, denied(0), 3 * SPAN_MS), [], "the table is a new one");
        let (mut told, mut count) = (0, 0);
        for now in (4..).map(|look| look * SPAN_MS).take_while(|now| *now < 3 * QUIET_MS) {
            count += 1_000_000;
            told += kinds(&mut record, denied(count), now).len();
        }
        assert_eq!(told, 2);
    }

    #[test]
    fn a_limit_is_told_of_if_every_look_for_minutes_finds_drops() {
        let limited = |limited| Counts { limited, ..Counts::default() };
        let mut record = Record::default();
        let looks = |record: &mut Record, from: u64, grows: u64| -> Vec<u64> {
            let looks = (0..=8).map(|look| (from + look * 20_000, look * grows));
            let told =
                looks.filter(|(now, count)| !kinds(record, limited(*count), *now).is_empty());
            told.map(|(now, _)| now - from).collect()
        };
        assert_eq!(looks(&mut record, 0, 0), [] as [u64; 0]);
        assert_eq!(looks(&mut record, 1_000_000, 5), [DROPS_MS]);
        // Once it was well in between, and once nobody has looked for a while.
        let mut record = Record::default();
        for (now, count) in [(0, 0), (60_000, 1), (80_000, 1), (140_000, 2), (199_999, 3)] {
            assert_eq!(kinds(&mut record, limited(count), now), [], "{now}");
        }
        let late = 199_999 + GAP_MS + 1;
        assert_eq!(kinds(&mut record, limited(4), late), []);
        assert_eq!(record.drops_since, None);
    }

    #[test]
    fn a_guest_that_boots_asks_for_its_address_in_peace() {
        let mut record = Record::default();
        let asks: Vec<_> = (0..100).filter_map(|second| record.ask(second * 1000)).collect();
        assert_eq!(asks, [(ASKED_MAX, 19)]);
        let mut record = Record::default();
        let half_an_hour = 30 * 60 * 1000;
        assert!((0..1000).all(|time| record.ask(time * half_an_hour).is_none()));
    }

    #[test]
    fn what_has_no_room_is_told_later() {
        let mut record = Record::default();
        let counts = |forged| Counts { forged, ..Counts::default() };
        assert_eq!(record.look(counts(0), 0, 0), []);
        assert_eq!(record.look(counts(10), SPAN_MS, 0), []);
        assert_eq!(kinds(&mut record, counts(20), 2 * SPAN_MS), [EventKind::AddressConflict]);
    }
}
