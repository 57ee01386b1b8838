//! Tells of the packets of a guest: has them marked, reads what the kernel says of them, and
//! answers with what [`crate::trace`] makes of that.
//!
//! What marks them are tables, which the engine wants as long as somebody looks. They go when the
//! time is over, when the packet that was asked for has come to its end, when the caller hangs up,
//! and when the daemon ends. After a crash, the next daemon finds tables that it does not want.
//! What the kernel says is read every [`LOOK_MS`], so it needs no source in the loop.

use std::net::IpAddr;

use super::shell::{Output, Shell};
use crate::engine::decide::Step;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::name::{TapName, VmName};
use crate::model::request::{self, Reply, Ticket, TraceFrom};
use crate::network::{Network, Side, execute};
use crate::store::storage::Storage;
use crate::trace::book::{Book, Chains, Rules};
use crate::trace::{Guest, Sender, Trace, Wanted};

/// Milliseconds between two looks at what the kernel has told.
const LOOK_MS: u64 = 100;
/// Milliseconds from the last word about a packet that was asked for to the reply: more may come.
const SETTLE_MS: u64 = 300;
/// The most guests that are traced at a time.
const TRACED_MAX: usize = 8;

/// A trace that runs.
pub(super) struct Tracing {
    ticket: Ticket,
    taps: Vec<TapName>,
    links: Vec<u32>,
    book: Book,
    trace: Trace,
    /// Whether the caller is told of each way as soon as it is known.
    more: bool,
    lost: bool,
    /// When it ends.
    until: u64,
    due: u64,
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Begins to tell of the packets of a guest.
    pub(super) fn trace(
        &mut self,
        ticket: Ticket,
        asked: &request::Trace,
        now: Now,
    ) -> Result<Step, Error> {
        let refuse = |reason: &str| {
            let (field, reason) = ("name".into(), reason.into());
            Err(Refusal::InvalidConfig { field, reason }.into())
        };
        let record = &self.engine.placed_vm(&asked.name)?.record;
        let nics = record.interfaces().filter(|(nic, _)| nic.ifindex.is_some());
        let (mut networks, mut taps, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut guest = Guest::default();
        for (nic, spec) in nics {
            let Some(network) = self.engine.network_of(nic) else { continue };
            let isolated = self.engine.traffic(nic, spec, network).isolated;
            networks.push((network.clone(), isolated));
            taps.push(nic.tap.clone());
            links.extend(nic.ifindex);
            guest.taps.extend(nic.ifindex.map(|index| (index, nic.tap.to_string())));
            guest.addresses.extend(nic.all_addresses());
            guest.addresses.extend(spec.addresses.iter().copied().map(IpAddr::V4));
            guest.exposed.extend(nic.exposed.iter().cloned());
        }
        if taps.is_empty() {
            return refuse("the VM has no tap");
        }
        if !self.engine.is_guarded() {
            return refuse("packets cannot be traced: no network has antispoof");
        }
        if self.traced.len() >= TRACED_MAX {
            return refuse("so many guests are traced already, that one has to end first");
        }
        let (chains, rules) = match self.listen_and_mark(&asked.name, &taps, &links) {
            Ok(book) => book,
            Err(failure) => {
                self.end_trace(&taps, &links, now);
                // The tables may be there in spite of that.
                self.engine.look_again(now);
                return Err(failure.into());
            }
        };
        let tables = self.engine.desired().tables;
        let book = Book { chains, rules, tables, networks };
        let sender = match asked.from {
            None => Sender::Guest,
            Some(TraceFrom::World) => Sender::World,
            Some(TraceFrom::Address(from)) => Sender::Address(from),
        };
        let trace = Trace::new(guest, Wanted { sender, to: asked.to, port: asked.port });
        let until = now.mono + u64::from(asked.seconds) * 1000;
        let due = now.mono + LOOK_MS;
        let (more, lost) = (asked.more, false);
        self.traced.push(Tracing { ticket, taps, links, book, trace, more, lost, until, due });
        Ok(Step::Later)
    }

    /// Listens first: what comes between the two is told, too. Gives the book of all rules.
    fn listen_and_mark(
        &mut self,
        vm: &VmName,
        taps: &[TapName],
        links: &[u32],
    ) -> Result<(Chains, Rules), Failure> {
        for link in links {
            if let Err(error) = self.network.overhear(*link, Side::Received) {
                log::debug!(vm:% = vm; "answers are not heard: {error}");
            }
        }
        self.network.begin_tracing()?;
        let plan = self.engine.trace(taps);
        execute::execute(&mut self.network, &plan, self.serving)?;
        self.network.book()
    }

    /// When the kernel is to be read next.
    pub(super) fn trace_due(&self) -> Option<u64> {
        self.traced.iter().map(|it| it.due).min()
    }

    /// Reads what the kernel has told, and answers those whose time is over.
    pub(super) fn look_at_traces(&mut self, now: Now) {
        if self.trace_due().is_none_or(|due| due > now.mono) {
            return;
        }
        let (told, lost) = self.network.traced();
        for it in &mut self.traced {
            told.iter().for_each(|told| it.trace.take(told));
            it.lost |= lost;
            it.due = now.mono + LOOK_MS;
        }
        let mut links: Vec<u32> = self.traced.iter().flat_map(|it| it.links.clone()).collect();
        links.sort_unstable();
        links.dedup();
        for link in links {
            let frames = self.network.overheard(link, Side::Received);
            for it in self.traced.iter_mut().filter(|it| it.links.contains(&link)) {
                frames.iter().for_each(|frame| it.trace.overhear(frame));
            }
        }
        for it in &mut self.traced {
            if it.trace.is_over() {
                it.until = it.until.min(now.mono + SETTLE_MS);
            }
        }
        let (over, mut rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.traced).into_iter().partition(|it| it.until <= now.mono);
        for it in rest.iter_mut().filter(|it| it.more) {
            let (ticket, ways) = (it.ticket, it.trace.news(&it.book, now.mono));
            if !ways.is_empty() {
                let reply = Reply::Ways { ways, lost: it.lost };
                self.outputs.push(Output::More { ticket, reply });
            }
        }
        self.traced = rest;
        for mut it in over {
            let ways = if it.more { it.trace.rest(&it.book) } else { it.trace.ways(&it.book) };
            let lost = it.lost;
            self.reply(it.ticket, Ok(Reply::Ways { ways, lost }));
            self.end_trace(&it.taps, &it.links, now);
        }
    }

    /// A caller has hung up: nobody wants to know of what it asked for.
    #[cfg(target_os = "linux")]
    pub(super) fn end_trace_for(&mut self, ticket: Ticket, now: Now) {
        let (gone, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.traced).into_iter().partition(|it| it.ticket == ticket);
        self.traced = rest;
        gone.iter().for_each(|it| self.end_trace(&it.taps, &it.links, now));
    }

    /// The daemon ends: nothing is told of any more.
    #[cfg(target_os = "linux")]
    pub(super) fn end_traces(&mut self, now: Now) {
        for it in std::mem::take(&mut self.traced) {
            self.end_trace(&it.taps, &it.links, now);
        }
    }

    /// Marks and hears these no more, unless somebody else wants it.
    fn end_trace(&mut self, taps: &[TapName], links: &[u32], now: Now) {
        let plan = self.engine.end_trace(taps);
        if execute::execute_all(&mut self.network, &plan, self.serving).iter().any(Result::is_err) {
            self.engine.look_again(now);
        }
        for link in links {
            if !self.traced.iter().any(|other| other.links.contains(link)) {
                self.network.end_overhearing(*link, Side::Received);
            }
        }
        if self.traced.is_empty() {
            self.network.end_tracing();
        }
    }
}
