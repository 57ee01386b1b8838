//! The way of a guest's packets through the rules of the host, as the kernel tells it.
//!
//! The kernel tells of a traced packet rule by rule and chain by chain. A [`Trace`] puts that
//! together: one kind of packet (a protocol, a destination and a port) has one way, however many
//! packets there are. What a guest sends on its tap is told by the table of bridges,
//! and once more by those of routed packets, where it has another number. So packets are recognised
//! by their number, and otherwise by their addresses, before and after translation.
//!
//! What comes back is not traced: a rule for that would cost each packet to a guest a look-up.
//! Whatever leaves by the guest's tap is overheard instead: an answer, or the error of a router.
//!
//! All of it is bounded: so many ways, so many steps of each. Who drives this bounds the time.

pub mod book;
pub mod flow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::view::{TraceEnd, TraceWay};
use crate::plan::ruleset::TABLE;
use book::Book;
use flow::{Flow, What};

/// The most kinds of packets that are told of.
const WAYS_MAX: usize = 32;
/// The most steps of one way.
const STEPS_MAX: usize = 16;
/// The most numbers of packets that are remembered.
const IDS_MAX: usize = 4096;
/// Milliseconds after which a packet that nobody answered counts as not answered.
const UNANSWERED_MS: u64 = 1_000;
/// How often a way is told at most, if its end changes again and again.
const TOLD_MAX: u32 = 8;

/// What the kernel has done with a packet at one rule, or by the policy of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The family of the table, as nft(8) writes it.
    pub family: &'static str,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The kernel's number of the rule; `None`: the policy of the chain.
    pub rule: Option<u64>,
}

/// What was decided there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet is lost.
    Drop,
    /// It passes the chain.
    Accept,
    /// The next rule is tried.
    Continue,
}

/// What the kernel tells of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where.
    pub place: Place,
    /// What was decided.
    pub outcome: Outcome,
    /// The number of the packet.
    pub id: u32,
    /// The link that it came in by.
    pub in_link: Option<u32>,
    /// The name of the link that it leaves by, once that is known.
    pub out_link: Option<String>,
    /// Its addresses, in the first message of a chain.
    pub flow: Option<Flow>,
}

/// Which packets are to be told of; all by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Their destination.
    pub to: Option<IpAddr>,
    /// Their port.
    pub port: Option<u16>,
}

/// One kind of packet.
#[derive(Clone, Debug)]
struct Way {
    flow: Flow,
    /// Its addresses after translation, and what was told of last before.
    became: Option<(Flow, Place)>,
    packets: u64,
    steps: Vec<(Place, Outcome)>,
    dropped: Option<Place>,
    /// The last place that was told of.
    last: Place,
    out: Option<String>,
    answered: bool,
    /// What a router says of it.
    error: Option<String>,
    /// When it was first looked at.
    since: Option<u64>,
    /// What was last told of it, without the number of packets, and how often something was.
    told: Option<TraceWay>,
    tellings: u32,
}

/// What was told.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    wanted: Wanted,
    /// The indexes of the guest's taps.
    taps: Vec<u32>,
    /// The first place that is told of each packet: that of the rule that marks it.
    first: Option<Place>,
    ways: Vec<Way>,
    /// The way of each packet.
    ids: BTreeMap<u32, usize>,
}

impl Wanted {
    /// ARP is always of interest: without it there is no other packet.
    fn has(&self, flow: &Flow) -> bool {
        flow.what == What::Arp
            || self.to.is_none_or(|to| flow.to == Some(to))
                && self.port.is_none_or(|port| flow.ports.is_some_and(|(_, to)| to == port))
    }
}

impl Trace {
    /// A trace of a guest with these taps.
    pub fn new(taps: Vec<u32>, wanted: Wanted) -> Trace {
        Trace { wanted, taps, ..Trace::default() }
    }

    /// Takes what the kernel tells.
    pub fn take(&mut self, told: &Told) {
        let Some(index) = self.way_of(told) else { return };
        if self.ids.len() >= IDS_MAX {
            self.ids.clear();
        }
        self.ids.insert(told.id, index);
        let way = &mut self.ways[index];
        if let Some(flow) = told.flow.filter(|flow| *flow != way.flow) {
            let same = flow.is_like(&way.flow) && flow.from == way.flow.from;
            let known = way.became.as_ref().is_some_and(|(became, _)| *became == flow);
            if !same && !known {
                way.became = Some((flow, way.last.clone()));
            }
        }
        let step = (told.place.clone(), told.outcome);
        if told.outcome != Outcome::Continue
            && way.steps.len() < STEPS_MAX
            && !way.steps.contains(&step)
        {
            way.steps.push(step);
        }
        if told.outcome == Outcome::Drop {
            way.dropped = Some(told.place.clone());
        }
        way.last = told.place.clone();
        way.out = told.out_link.clone().or(way.out.take());
    }

    fn way_of(&mut self, told: &Told) -> Option<usize> {
        let known = self.ids.get(&told.id).copied();
        let Some(flow) = told.flow else { return known };
        let from_tap = told.in_link.is_some_and(|link| self.taps.contains(&link));
        if from_tap && self.first.is_none() {
            self.first = Some(told.place.clone());
        }
        // A number may come again, with another packet.
        let begins = from_tap && self.first.as_ref() == Some(&told.place);
        let like = |way: &Way| {
            let became = way.became.as_ref().is_some_and(|(became, _)| became.is_like(&flow));
            way.flow.is_like(&flow) || became
        };
        let found = known.filter(|_| !begins).or_else(|| self.ways.iter().position(like));
        if let Some(index) = found {
            self.ways[index].packets += u64::from(begins);
            return found;
        }
        if !begins || self.ways.len() >= WAYS_MAX || !self.wanted.has(&flow) {
            return None;
        }
        self.ways.push(Way {
            flow,
            became: None,
            packets: 1,
            steps: Vec::new(),
            dropped: None,
            last: told.place.clone(),
            out: None,
            answered: false,
            error: None,
            since: None,
            told: None,
            tellings: 0,
        });
        Some(self.ways.len() - 1)
    }

    /// Takes a frame that leaves by a tap of the guest.
    pub fn overhear(&mut self, frame: &[u8]) {
        let Some(heard) = Flow::of_frame(frame) else { return };
        let error = flow::error_of(frame);
        for way in &mut self.ways {
            way.answered |= heard.answers(&way.flow);
            if let Some((_, words)) = error.filter(|(to, _)| Some(*to) == way.flow.to) {
                let who = heard.from.map_or("somebody".into(), |ip| ip.to_string());
                way.error = Some(format!("{who} says: {words}"));
            }
        }
    }

    /// Whether the packets that somebody has asked for have come to an end.
    pub fn is_over(&self) -> bool {
        let asked = self.wanted.to.is_some();
        asked && self.ways.iter().any(|way| way.flow.what != What::Arp && way.is_over())
    }

    /// The ways of which there is something to say that was not said: what became of the packets is
    /// known, or is another end than was told, or nothing was heard of them for a while. `now` is
    /// in milliseconds.
    pub fn news(&mut self, book: &Book, now: u64) -> Vec<TraceWay> {
        let settled = |way: &mut Way| {
            let since = *way.since.get_or_insert(now);
            way.is_over() || since + UNANSWERED_MS <= now
        };
        let told = |way: &mut Way| settled(way).then(|| way.tell(book)).flatten();
        self.ways.iter_mut().filter_map(told).collect()
    }

    /// The ways of which not all was said, whatever became of the packets so far.
    pub fn rest(&mut self, book: &Book) -> Vec<TraceWay> {
        self.ways.iter_mut().filter_map(|way| way.tell(book)).collect()
    }

    /// What is to be said of each kind of packet.
    pub fn ways(&self, book: &Book) -> Vec<TraceWay> {
        self.ways.iter().map(|way| way.view(book)).collect()
    }
}

impl Way {
    /// Whether it is known what became of it.
    fn is_over(&self) -> bool {
        self.dropped.is_some() || self.answered || self.error.is_some()
    }

    /// What is to be said of it, if that was not said.
    fn tell(&mut self, book: &Book) -> Option<TraceWay> {
        if self.tellings >= TOLD_MAX {
            return None;
        }
        let view = self.view(book);
        let bare = TraceWay { packets: 0, ..view.clone() };
        if self.told.as_ref() == Some(&bare) {
            return None;
        }
        (self.told, self.tellings) = (Some(bare), self.tellings + 1);
        Some(view)
    }

    fn view(&self, book: &Book) -> TraceWay {
        let mut steps: Vec<String> = self
            .steps
            .iter()
            .filter(|(place, outcome)| *outcome == Outcome::Accept && place.rule.is_some())
            .map(|(place, _)| format!("passed: {}", book.words(place)))
            .collect();
        steps.extend(self.translated(book));
        let (end, message) = self.end(book);
        TraceWay { packet: self.flow.to_string(), packets: self.packets, steps, end, message }
    }

    /// How it was translated, and by whom if it was somebody else.
    fn translated(&self, book: &Book) -> Option<String> {
        let (became, place) = self.became.as_ref()?;
        let changed = |name: &str, (was, is): (Option<IpAddr>, Option<IpAddr>)| {
            let (was, is) = (was?, is.filter(|is| Some(*is) != was)?);
            Some(format!("its {name} {was} became {is}"))
        };
        let source = changed("source", (self.flow.from, became.from));
        let destination = changed("destination", (self.flow.to, became.to));
        let both: Vec<String> = source.into_iter().chain(destination).collect();
        let by = match place.rule {
            Some(_) if place.table != TABLE => format!(", by {}", book.words(place)),
            Some(_) | None => String::new(),
        };
        (!both.is_empty()).then(|| format!("translated: {}{by}", both.join(", ")))
    }

    /// The last word.
    fn end(&self, book: &Book) -> (TraceEnd, String) {
        if let Some(place) = &self.dropped {
            let some = if self.answered { "answered, and some of them " } else { "" };
            return (TraceEnd::Dropped, format!("{some}dropped by {}", book.words(place)));
        }
        if self.answered {
            return (TraceEnd::Answered, "delivered, and answered".into());
        }
        if let Some(error) = &self.error {
            return (TraceEnd::Refused, error.clone());
        }
        match &self.out {
            Some(link) => {
                (TraceEnd::Unanswered, format!("left by {link}, and no answer came to the guest"))
            }
            None if book.is_before_routing(&self.last) => {
                book.lost(self.became.as_ref().map_or(&self.flow, |(became, _)| became))
            }
            None => (TraceEnd::Unanswered, "came to the host, and no answer came from it".into()),
        }
    }
}
