//! Scrapers of metrics: accepted, served in turns, closed.

use std::io;

use mio::Interest;

use super::EventLoop;
use crate::daemon::source::Source;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::metrics::scraper::{Scraper, Turn};
use crate::network::Network;
use crate::store::storage::Storage;

/// The most scrapers at a time. There are one or two.
const SCRAPERS_MAX: usize = 16;
/// The most connections that are accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Accepts waiting connections.
    pub(super) fn accept_scrapers(&mut self, key: Key) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Source::Metrics(listener)) = self.sources.get_mut(key) else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // As for clients: it waits in the kernel, and the next one wakes us again.
                    self.refusals.log(self.now().mono, format_args!("a scraper: {error}"));
                    return;
                }
            };
            self.make_room_for_scraper();
            match self.admit_scraper(stream) {
                // Its request is there in most cases.
                Ok(key) => self.scrape(key),
                Err(error) => {
                    self.refusals.log(self.now().mono, format_args!("a scraper: {error}"))
                }
            }
        }
        self.come_back(key);
    }

    fn admit_scraper(&mut self, stream: socket2::Socket) -> io::Result<Key> {
        stream.set_nonblocking(true)?;
        let scraper = Scraper::new(stream, self.now().mono);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.add(scraper.descriptor(), both, Source::Scraper(Box::new(scraper)))
    }

    /// If there are as many as there may be, one gives way: of those that are idle the one that has
    /// been silent for the longest time, or else the one whose answer began first. So connections
    /// that want nothing, or do not read what they wanted, keep nobody out.
    fn make_room_for_scraper(&mut self) {
        if self.sources.scrapers().count() < SCRAPERS_MAX {
            return;
        }
        let scrapers = self.sources.scrapers();
        let first = scrapers.min_by_key(|(_, scraper)| (!scraper.is_idle(), scraper.deadline));
        if let Some((key, _)) = first {
            self.sources.remove(key);
        }
    }

    /// The turn of a scraper: it reads at most a part of its answer.
    pub(super) fn scrape(&mut self, key: Key) {
        let now = self.now();
        let Some(Source::Scraper(scraper)) = self.sources.get_mut(key) else { return };
        let (shell, refusals) = (&mut self.shell, &mut self.refusals);
        let numbers = || {
            let numbers = shell.recent_snapshot(now)?;
            let told = |error: &_| refusals.log(now.mono, format_args!("a scraper: {error}"));
            Some(numbers.inspect_err(told))
        };
        match scraper.turn(now.mono, numbers) {
            Turn::Waits => {}
            Turn::Again => self.come_back(key),
            // Closing it also removes it from the poll.
            Turn::Over => drop(self.sources.remove(key)),
        }
    }

    /// Closes those whose time is over.
    pub(super) fn tick_scrapers(&mut self, now: u64) {
        let over = self.sources.scrapers().filter(|(_, scraper)| scraper.deadline <= now);
        let over: Vec<Key> = over.map(|(key, _)| key).collect();
        for key in over {
            self.sources.remove(key);
        }
    }
}
