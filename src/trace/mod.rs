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
use book::Book;
use flow::{Flow, What};

/// The most kinds of packets that are told of.
const WAYS_MAX: usize = 32;
/// The most steps of one way.
const STEPS_MAX: usize = 16;
/// The most numbers of packets that are remembered.
const IDS_MAX: usize = 4096;

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
    /// Its addresses after translation.
    became: Option<Flow>,
    packets: u64,
    steps: Vec<(Place, Outcome)>,
    dropped: Option<Place>,
    /// The last place that was told of.
    last: Place,
    out: Option<String>,
    answered: bool,
    /// What a router says of it.
    error: Option<String>,
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
            way.became = if same { way.became } else { Some(flow) };
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
            way.flow.is_like(&flow) || way.became.is_some_and(|became| became.is_like(&flow))
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
        let over = |way: &Way| way.dropped.is_some() || way.answered || way.error.is_some();
        let asked = self.wanted.to.is_some();
        asked && self.ways.iter().any(|way| way.flow.what != What::Arp && over(way))
    }

    /// What is to be said of each kind of packet.
    pub fn ways(&self, book: &Book) -> Vec<TraceWay> {
        self.ways.iter().map(|way| way.view(book)).collect()
    }
}

impl Way {
    fn view(&self, book: &Book) -> TraceWay {
        let mut steps: Vec<String> = self
            .steps
            .iter()
            .filter(|(place, outcome)| *outcome == Outcome::Accept && place.rule.is_some())
            .map(|(place, _)| format!("passed: {}", book.words(place)))
            .collect();
        steps.extend(self.translated());
        let (end, message) = self.end(book);
        TraceWay { packet: self.flow.to_string(), packets: self.packets, steps, end, message }
    }

    fn translated(&self) -> Option<String> {
        let became = self.became?;
        let changed = |name: &str, (was, is): (Option<IpAddr>, Option<IpAddr>)| {
            let (was, is) = (was?, is.filter(|is| Some(*is) != was)?);
            Some(format!("its {name} {was} became {is}"))
        };
        let source = changed("source", (self.flow.from, became.from));
        let destination = changed("destination", (self.flow.to, became.to));
        let both: Vec<String> = source.into_iter().chain(destination).collect();
        (!both.is_empty()).then(|| format!("translated: {}", both.join(", ")))
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
                book.lost(&self.became.unwrap_or(self.flow))
            }
            None => (TraceEnd::Unanswered, "came to the host, and no answer came from it".into()),
        }
    }
}
