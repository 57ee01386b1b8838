//! The way of a guest's packets through the rules of the host, as the kernel tells it.
//!
//! The kernel tells of a traced packet rule by rule and chain by chain. A [`Trace`] puts that
//! together: one kind of packet (a protocol, a sender, a destination and its port) has one way,
//! however many packets there are and whatever port of the sender they have. It is told by the
//! tables of bridges and by those of routed packets, and has another number in each. So packets are
//! recognised by their number, and otherwise by their addresses, before and after translation. The
//! kernel tells each trace also of the packets of the others.
//!
//! A way begins where packets are marked ([`ARRIVING`]): with those that the guest sends, or with
//! those that come to it, as was asked for. What goes the other way are the answers. What drops an
//! answer is told, too. Whether one came to the guest is overheard at its tap, where also the
//! errors of routers are, and those of the host. Whether one left for the world is told by the last
//! chain ([`LEAVING`]).
//!
//! A fragment of IPv4 that is not the first shows no ports. It goes the way of the first, which has
//! the same identification.
//!
//! All of it is bounded: so many ways, so many steps of each. Who drives this bounds the time.

pub mod book;
pub mod flow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::expose::Expose;
use crate::model::view::{TraceEnd, TraceWay};
use crate::plan::ruleset::{ARRIVING, LEAVING, TABLE, TRACE_TABLE};
use book::Book;
use flow::{Flow, Fragment, What};

/// The family of the tables where the ports of bridges are seen.
const BRIDGE: &str = "bridge";
/// The most kinds of packets that are told of.
const WAYS_MAX: usize = 32;
/// The most steps of one way.
const STEPS_MAX: usize = 16;
/// The most numbers of packets that are remembered, and the most packets in fragments.
const IDS_MAX: usize = 4096;
/// Milliseconds after which a packet that nobody answered counts as not answered.
const UNANSWERED_MS: u64 = 1_000;
/// The most translations of one way.
const TRANSLATIONS_MAX: usize = 4;
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

/// Which packets are to be told of; all that the guest sends by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Who sends them.
    pub sender: Sender,
    /// Their destination, as they are sent.
    pub to: Option<IpAddr>,
    /// Their port.
    pub port: Option<u16>,
}

/// Who sends the packets that somebody wants to know of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// The guest.
    #[default]
    Guest,
    /// All others that send to the guest.
    World,
    /// One of them.
    Address(IpAddr),
}

/// A guest as packets know it.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    /// The index and the name of each of its taps.
    pub taps: Vec<(u32, String)>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its exposed ports.
    pub exposed: Vec<Expose>,
}

impl Guest {
    fn has_tap(&self, link: u32) -> bool {
        self.taps.iter().any(|(index, _)| *index == link)
    }

    fn has_tap_of_name(&self, link: &str) -> bool {
        self.taps.iter().any(|(_, name)| name == link)
    }

    fn has_address(&self, flow: &Flow) -> bool {
        flow.to.is_some_and(|to| self.addresses.contains(&to))
    }

    /// Whether one of its exposed ports leads such a packet to it.
    fn exposes(&self, flow: &Flow) -> bool {
        let Some((to, (_, port))) = flow.to.zip(flow.ports) else { return false };
        self.exposed.iter().any(|exposed| {
            let end = u32::from(exposed.host_port) + u32::from(exposed.count);
            let at = exposed.host_ip.filter(|ip| !ip.is_unspecified());
            flow.what == What::Ip(exposed.protocol.number())
                && (u32::from(exposed.host_port)..end).contains(&port.into())
                && at.is_none_or(|at| at == to)
        })
    }
}

/// One kind of packet.
#[derive(Clone, Debug)]
struct Way {
    flow: Flow,
    /// The family of the table that told of it first: it is told by others, too, and counts once.
    family: &'static str,
    became: Vec<Translation>,
    /// The last of its packets as it was before it was known where it goes.
    unrouted: Option<Flow>,
    packets: u64,
    there: Course,
    /// The answers.
    back: Course,
    /// The link that it left by.
    out: Option<String>,
    answered: bool,
    /// Whether an answer has reset a connection of TCP, and whether one was another answer.
    reset: bool,
    accepted: bool,
    /// What a router or its destination says of it.
    error: Option<String>,
    /// When it was first looked at.
    since: Option<u64>,
    /// What was last told of it, without the number of packets, and how often something was.
    told: Option<TraceWay>,
    tellings: u32,
}

/// How far the packets of one direction came.
#[derive(Clone, Debug, Default)]
struct Course {
    steps: Vec<(Place, Outcome)>,
    dropped: Option<Place>,
    /// The last place that was told of.
    last: Option<Place>,
}

/// A translation: what the packet was, what it became, and what was told of last before that.
#[derive(Clone, Debug)]
struct Translation {
    was: Flow,
    is: Flow,
    by: Option<Place>,
}

/// A packet that is told of.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its way.
    index: usize,
    direction: Direction,
    /// Its addresses as they were told last.
    flow: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

/// What was told.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    wanted: Wanted,
    guest: Guest,
    ways: Vec<Way>,
    /// The packets by their numbers.
    ids: BTreeMap<u32, Known>,
    /// The ways of packets in fragments.
    fragments: BTreeMap<Fragment, usize>,
}

impl Wanted {
    /// Whether it is about what the guest sends.
    fn is_of_guest(self) -> bool {
        self.sender == Sender::Guest
    }

    /// ARP is always of interest: without it there is no other packet.
    fn has(&self, flow: &Flow) -> bool {
        let from = match self.sender {
            Sender::Guest | Sender::World => true,
            Sender::Address(from) => flow.from == Some(from),
        };
        from && (flow.what == What::Arp
            || self.to.is_none_or(|to| flow.to == Some(to))
                && self.port.is_none_or(|port| flow.ports.is_some_and(|(_, to)| to == port)))
    }
}

impl Course {
    fn take(&mut self, told: &Told) {
        let step = (told.place.clone(), told.outcome);
        if told.outcome != Outcome::Continue
            && self.steps.len() < STEPS_MAX
            && !self.steps.contains(&step)
        {
            self.steps.push(step);
        }
        if told.outcome == Outcome::Drop {
            self.dropped = Some(told.place.clone());
        }
        self.last = Some(told.place.clone());
    }

    /// Whether they were told of last before the host looks for their way.
    fn is_before_routing(&self, book: &Book) -> bool {
        self.last.as_ref().is_some_and(|last| book.is_before_routing(last))
    }

    /// The rules that let it pass.
    fn passed(&self, book: &Book) -> impl Iterator<Item = String> {
        let passed = |(place, outcome): &&(Place, Outcome)| {
            *outcome == Outcome::Accept && place.rule.is_some()
        };
        self.steps.iter().filter(passed).map(|(place, _)| book.words(place))
    }
}

impl Trace {
    /// A trace of what a guest sends, or of what comes to it.
    pub fn new(guest: Guest, wanted: Wanted) -> Trace {
        Trace { wanted, guest, ..Trace::default() }
    }

    /// Takes what the kernel tells.
    pub fn take(&mut self, told: &Told) {
        let Some((known, was)) = self.packet_of(told) else { return };
        if self.ids.len() >= IDS_MAX {
            self.ids.clear();
        }
        self.ids.insert(told.id, known);
        let way = &mut self.ways[known.index];
        match known.direction {
            Direction::There => {
                if let Some((was, is)) = was.zip(told.flow) {
                    way.follow(was, is);
                }
                if let Some(is) = told.flow {
                    way.unrouted = told.out_link.is_none().then_some(is);
                }
                way.there.take(told);
                // Bridged packets that pass the rules for routed ones are told of last by these.
                let given = |out: &String| self.guest.has_tap_of_name(out);
                if !way.out.as_ref().is_some_and(given) {
                    way.out = told.out_link.clone().or(way.out.take());
                }
            }
            Direction::Back => {
                if told.flow.is_some_and(|flow| flow.is_error()) {
                    let who = known.flow.from.map_or("somebody".into(), |ip| ip.to_string());
                    way.error = Some(format!("{who} answered with an error: {}", known.flow));
                    return;
                }
                way.hear(told.flow.as_ref());
                way.back.take(told);
                let leaves = told.place.table == TRACE_TABLE && told.place.chain == LEAVING;
                way.answered |= leaves && told.out_link.is_some() && !self.wanted.is_of_guest();
            }
        }
    }

    /// The packet that is told of, and what it was when it was told of last.
    fn packet_of(&mut self, told: &Told) -> Option<(Known, Option<Flow>)> {
        // A number may come again, with another packet. So with addresses it is forgotten.
        let Some(flow) = told.flow else {
            return self.ids.get(&told.id).map(|known| (*known, None));
        };
        let known = self.ids.remove(&told.id);
        if self.begins(told, &flow) {
            let index = self.begin(told, flow)?;
            return Some((Known { index, direction: Direction::There, flow }, None));
        }
        if let Some((index, direction)) = self.found(told, &flow, known) {
            let was = known.filter(|known| (known.index, known.direction) == (index, direction));
            return Some((Known { index, direction, flow }, was.map(|known| known.flow)));
        }
        // With another destination, a packet may get another number.
        let led = |was: Flow| told.out_link.is_some() && flow.is_led_elsewhere(&was);
        let index = self.ways.iter().position(|way| way.unrouted.is_some_and(led))?;
        Some((Known { index, direction: Direction::There, flow }, self.ways[index].unrouted))
    }

    /// Whether it is one of the packets that were asked for, where the kernel tells of it first.
    fn begins(&self, told: &Told, flow: &Flow) -> bool {
        let place = &told.place;
        let arrives = place.table == TRACE_TABLE && place.chain == ARRIVING && place.rule.is_some();
        let from_tap = told.in_link.is_some_and(|link| self.guest.has_tap(link));
        let reaches = match place.family {
            BRIDGE => self.guest.has_address(flow),
            _ => self.guest.has_address(flow) || self.guest.exposes(flow),
        };
        let sends = self.wanted.is_of_guest();
        arrives && from_tap == sends && (sends || reaches)
    }

    /// The way of such a packet; `None` if nobody wants to know of it.
    fn begin(&mut self, told: &Told, flow: Flow) -> Option<usize> {
        if let Some(fragment) = flow.fragment.filter(|_| flow.later) {
            if let Some(index) = self.fragments.get(&fragment) {
                return Some(*index);
            }
        }
        let index = match self.ways.iter().position(|way| way.flow.is_like(&flow)) {
            Some(index) => {
                let way = &mut self.ways[index];
                way.packets += u64::from(way.family == told.place.family);
                index
            }
            None if self.ways.len() >= WAYS_MAX || !self.wanted.has(&flow) => return None,
            None => {
                self.ways.push(Way::new(flow, &told.place));
                self.ways.len() - 1
            }
        };
        if let Some(fragment) = flow.fragment.filter(|_| !flow.later) {
            if self.fragments.len() >= IDS_MAX {
                self.fragments.clear();
            }
            self.fragments.insert(fragment, index);
        }
        Some(index)
    }

    /// The way of a packet that was told of before, or is an answer.
    fn found(&self, told: &Told, flow: &Flow, known: Option<Known>) -> Option<(usize, Direction)> {
        let position = |is: fn(&Way, &Flow) -> bool| self.ways.iter().position(|it| is(it, flow));
        let still = known.filter(|known| match known.direction {
            Direction::There => true,
            // Whatever translates an answer makes it one of what was sent.
            Direction::Back => self.ways[known.index].is_answered_by(flow),
        });
        let (index, direction) = still
            .map(|known| (known.index, known.direction))
            .or_else(|| Some((position(Way::is_of)?, Direction::There)))
            .or_else(|| Some((position(Way::is_answered_by)?, Direction::Back)))?;
        // On a bridge, the port says who sends: others may have the same address, or are traced,
        // too.
        let port = told.in_link.filter(|_| told.place.family == BRIDGE);
        let is_of_guest = (direction == Direction::There) == self.wanted.is_of_guest();
        port.is_none_or(|link| self.guest.has_tap(link) == is_of_guest)
            .then_some((index, direction))
    }

    /// Takes a frame that leaves by a tap of the guest.
    pub fn overhear(&mut self, frame: &[u8]) {
        if !self.wanted.is_of_guest() {
            return;
        }
        let Some(heard) = Flow::of_frame(frame) else { return };
        let error = flow::error_of(frame);
        for way in &mut self.ways {
            if heard.answers(&way.flow) {
                way.answered = true;
                way.hear(Some(&heard));
            }
            if let Some((_, words)) = error.filter(|(quoted, _)| quoted.is_quoted_of(&way.flow)) {
                let who = heard.from.map_or("somebody".into(), |ip| ip.to_string());
                way.error = Some(format!("{who} says: {words}"));
            }
        }
    }

    /// Whether the packets that somebody has asked for have come to an end.
    pub fn is_over(&self) -> bool {
        let asked = self.wanted.to.is_some() || matches!(self.wanted.sender, Sender::Address(_));
        asked && self.ways.iter().any(|way| !way.flow.is_of_link() && way.is_over())
    }

    /// The ways of which there is something to say that was not said: what became of the packets is
    /// known, or is another end than was told, or nothing was heard of them for a while. `now` is
    /// in milliseconds.
    pub fn news(&mut self, book: &Book, now: u64) -> Vec<TraceWay> {
        let settled = |way: &mut Way| {
            let since = *way.since.get_or_insert(now);
            way.is_over() || since + UNANSWERED_MS <= now
        };
        let told = |way: &mut Way| settled(way).then(|| way.tell(&self.guest, self.wanted, book));
        self.ways.iter_mut().filter_map(told).flatten().collect()
    }

    /// The ways of which not all was said, whatever became of the packets so far.
    pub fn rest(&mut self, book: &Book) -> Vec<TraceWay> {
        let tell = |way: &mut Way| way.tell(&self.guest, self.wanted, book);
        self.ways.iter_mut().filter_map(tell).collect()
    }

    /// What is to be said of each kind of packet.
    pub fn ways(&self, book: &Book) -> Vec<TraceWay> {
        self.ways.iter().map(|way| way.view(&self.guest, self.wanted, book)).collect()
    }
}

impl Way {
    fn new(flow: Flow, place: &Place) -> Way {
        Way {
            flow,
            family: place.family,
            became: Vec::new(),
            unrouted: None,
            packets: 1,
            there: Course::default(),
            back: Course::default(),
            out: None,
            answered: false,
            reset: false,
            accepted: false,
            error: None,
            since: None,
            told: None,
            tellings: 0,
        }
    }

    /// Its addresses before and after each translation.
    fn flows(&self) -> impl Iterator<Item = &Flow> {
        std::iter::once(&self.flow).chain(self.became.iter().map(|became| &became.is))
    }

    /// Whether a packet is of this kind, before or after a translation.
    fn is_of(&self, flow: &Flow) -> bool {
        self.flows().any(|it| it.is_like(flow))
    }

    /// Whether a packet answers it, or is an error about it.
    fn is_answered_by(&self, flow: &Flow) -> bool {
        let is_error = |it: &Flow| flow.is_error() && (flow.from, flow.to) == (it.to, it.from);
        self.flows().any(|it| flow.answers(it) || is_error(it))
    }

    /// Takes what an answer says of itself.
    fn hear(&mut self, answer: Option<&Flow>) {
        self.reset |= answer.is_some_and(|answer| answer.reset);
        self.accepted |= answer.is_some_and(|answer| !answer.reset);
    }

    /// Takes what a packet was and what it is now.
    fn follow(&mut self, was: Flow, is: Flow) {
        let by_source = was.is_like(&is) && was.ports != is.ports;
        let is_new = match by_source {
            true => !self.became.iter().any(|became| became.is.is_like(&is)),
            false => !self.is_of(&is),
        };
        if is_new && !is.later && self.became.len() < TRANSLATIONS_MAX {
            self.became.push(Translation { was, is, by: self.there.last.clone() });
        }
    }

    /// Its addresses as they were told last.
    fn now(&self) -> &Flow {
        self.became.last().map_or(&self.flow, |became| &became.is)
    }

    /// Whether it is known what became of it.
    fn is_over(&self) -> bool {
        let dropped = self.there.dropped.is_some() || self.back.dropped.is_some();
        dropped || self.answered || self.error.is_some()
    }

    /// What is to be said of it, if that was not said.
    fn tell(&mut self, guest: &Guest, wanted: Wanted, book: &Book) -> Option<TraceWay> {
        if self.tellings >= TOLD_MAX {
            return None;
        }
        let view = self.view(guest, wanted, book);
        let bare = TraceWay { packets: 0, ..view.clone() };
        if self.told.as_ref() == Some(&bare) {
            return None;
        }
        (self.told, self.tellings) = (Some(bare), self.tellings + 1);
        Some(view)
    }

    fn view(&self, guest: &Guest, wanted: Wanted, book: &Book) -> TraceWay {
        let mut steps: Vec<String> =
            self.there.passed(book).map(|words| format!("passed: {words}")).collect();
        steps.extend(self.became.iter().filter_map(|became| became.words(book)));
        steps.extend(self.back.passed(book).map(|words| format!("the answer passed: {words}")));
        let (end, message) = self.end(guest, wanted, book);
        TraceWay { packet: self.flow.to_string(), packets: self.packets, steps, end, message }
    }

    /// The last word.
    fn end(&self, guest: &Guest, wanted: Wanted, book: &Book) -> (TraceEnd, String) {
        if let Some(place) = &self.there.dropped {
            let some = if self.answered { "answered, and some of them " } else { "" };
            return (TraceEnd::Dropped, format!("{some}dropped by {}", book.words(place)));
        }
        if let Some(place) = &self.back.dropped {
            let some = if self.answered { "some answers were" } else { "the answer was" };
            let words = book.words(place);
            return (TraceEnd::Dropped, format!("delivered, but {some} dropped by {words}"));
        }
        if self.answered && self.reset && !self.accepted {
            return (TraceEnd::Refused, self.refusal(wanted));
        }
        if self.answered {
            return (TraceEnd::Answered, "delivered, and answered".into());
        }
        if let Some(error) = &self.error {
            return (TraceEnd::Refused, error.clone());
        }
        match wanted.is_of_guest() {
            true => self.end_elsewhere(book),
            false => self.end_at(guest, book),
        }
    }

    /// The last word about a connection that the other end resets.
    fn refusal(&self, wanted: Wanted) -> String {
        let who = match (wanted.is_of_guest(), self.flow.to) {
            (true, Some(to)) => to.to_string(),
            (true, None) | (false, _) => "the guest".into(),
        };
        format!(
            "delivered, and refused by {who}: nobody listens on the port, or a rule there says so"
        )
    }

    /// The last word about what a guest sends, if nothing came of it.
    fn end_elsewhere(&self, book: &Book) -> (TraceEnd, String) {
        match &self.out {
            Some(link) => {
                (TraceEnd::Unanswered, format!("left by {link}, and no answer came to the guest"))
            }
            None if self.there.is_before_routing(book) => book.lost(self.now()),
            None => (TraceEnd::Unanswered, "came to the host, and no answer came from it".into()),
        }
    }

    /// The same about what is sent to a guest.
    fn end_at(&self, guest: &Guest, book: &Book) -> (TraceEnd, String) {
        match &self.out {
            Some(link) if guest.has_tap_of_name(link) => match self.back.last {
                None => (
                    TraceEnd::Unanswered,
                    format!("given to the guest by {link}, and no answer came from it"),
                ),
                Some(_) => (TraceEnd::Lost, format!("the guest answered, {}", book::NOWHERE)),
            },
            Some(link) if book.networks.iter().any(|(it, _)| it.bridge == *link) => (
                TraceEnd::Unanswered,
                format!(
                    "given to {link}, where the guest does not say that the address is its own"
                ),
            ),
            Some(link) => (TraceEnd::Lost, format!("it left by {link}, which is not the guest's")),
            None if self.there.is_before_routing(book) => {
                (TraceEnd::Lost, format!("no rule dropped it, {}", book::NOWHERE))
            }
            None => (TraceEnd::Lost, "it came to the host, and nothing led it to the guest".into()),
        }
    }
}

impl Translation {
    /// How it was translated, and by whom if it was somebody else.
    fn words(&self, book: &Book) -> Option<String> {
        let (was, is) = (&self.was, &self.is);
        let ports = |flow: &Flow| flow.ports.map_or((None, None), |(a, b)| (Some(a), Some(b)));
        let ((from_was, to_was), (from_is, to_is)) = (ports(was), ports(is));
        let source = changed("source", (was.from, from_was), (is.from, from_is));
        let destination = changed("destination", (was.to, to_was), (is.to, to_is));
        let both: Vec<String> = source.into_iter().chain(destination).collect();
        let others = |place: &&Place| ![TABLE, TRACE_TABLE].contains(&&*place.table);
        let by = match self.by.as_ref().filter(others) {
            Some(place) if place.rule.is_some() => format!(", by {}", book.words(place)),
            Some(_) | None => String::new(),
        };
        (!both.is_empty()).then(|| format!("translated: {}{by}", both.join(", ")))
    }
}

/// What one end of a packet was and is, with its port if that has changed.
fn changed(
    name: &str,
    was: (Option<IpAddr>, Option<u16>),
    is: (Option<IpAddr>, Option<u16>),
) -> Option<String> {
    let ((was, port_was), (is, port_is)) = ((was.0?, was.1), (is.0?, is.1));
    let (was, is) = match port_was.zip(port_is).filter(|(was, is)| was != is) {
        Some((from, to)) => {
            (SocketAddr::new(was, from).to_string(), SocketAddr::new(is, to).to_string())
        }
        None => (was.to_string(), is.to_string()),
    };
    (was != is).then(|| format!("its {name} {was} became {is}"))
}
