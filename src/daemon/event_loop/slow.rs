//! Slow work: what takes milliseconds each, and may come in crowds.
//!
//! To start a process is a tap, two processes and a record on the disk; the end of one is a record,
//! and perhaps the start of the next. A hundred clients may each start a VM in the same moment. So
//! such work waits here in its order, and each round of the loop does a slice of it. Whoever asks
//! for something else is answered between two slices.
//!
//! Nor are more hypervisors on their way at a time than the engine allows
//! ([`crate::engine::crowd`]). Starts beyond that stay here, in their order, and ends pass them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::EventLoop;
use crate::daemon::sources::Key;
use crate::hypervisor::process::Processes;
use crate::model::request::{Request, Ticket};
use crate::network::Network;
use crate::store::storage::Storage;

/// How long a slice of slow work goes on. The last piece may take it beyond that.
const SLICE: Duration = Duration::from_millis(10);

/// A piece of slow work.
#[derive(Debug)]
pub(super) enum Slow {
    /// A request that starts a process.
    Start(Ticket, Request),
    /// A process has ended.
    End(Key),
}

/// Slow work in its order.
pub(super) type SlowWork = VecDeque<Slow>;

impl<N: Network, D: Storage, P: Processes> EventLoop<N, D, P> {
    /// Does a slice of the slow work, at least one piece.
    pub(super) fn do_slow_work(&mut self) {
        let begin = Instant::now();
        while let Some(piece) = self.next_slow().and_then(|at| self.slow.remove(at)) {
            match piece {
                Slow::Start(ticket, request) => self.shell.request(ticket, &request, self.now()),
                Slow::End(key) => self.process_ended(key),
            }
            self.tell();
            if begin.elapsed() >= SLICE {
                return;
            }
        }
    }

    /// The place of the next piece that may be done now.
    pub(super) fn next_slow(&self) -> Option<usize> {
        let may_start = self.shell.engine().may_start();
        self.slow.iter().position(|piece| may_start || matches!(piece, Slow::End(_)))
    }
}
