//! Threads for what reads or writes whole files, which can be very large: checksums, snapshots that
//! guests wake from, copies of their disks, and snapshots that are taken. Each piece of work has a
//! thread of its own, which ends with it.
//!
//! Work for a request is done before the request is handled: then it is handled as if it had just
//! arrived. It ends with the connection of its caller, and what is done for many VMs of one caller
//! is done by one thread, in their order. So there are no more such threads than connections. They
//! read and write with the rights of the hypervisors' user.
//!
//! A snapshot is taken after its request was handled, because the engine has to know of it. It is
//! called off when the engine wants it no more, and waited for when the daemon ends: its guest
//! stands still meanwhile.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use mio::{Registry, Token, Waker};

use super::saving::{Preparation, Prepared, Save};
use crate::hypervisor::snapshot;
use crate::model::error::{Error, Failure};
use crate::model::name::VmName;
use crate::model::request::Request;
use crate::model::request::Ticket;

/// Bytes of a thread's stack. The read buffer is not on it.
const STACK: usize = 256 * 1024;

/// The requests that wait for their files, and the snapshots that are taken.
#[derive(Debug)]
pub(super) struct Workers {
    waker: Arc<Waker>,
    sender: Sender<Done>,
    done: Receiver<Done>,
    /// The callers that wait, and the flag that stops their thread.
    waiting: HashMap<Ticket, Arc<AtomicBool>>,
    /// The threads that take snapshots, and the flags that stop them.
    saving: HashMap<Ticket, (Arc<AtomicBool>, JoinHandle<()>)>,
}

/// What a thread has done.
#[derive(Debug)]
pub(super) enum Done {
    /// A request was prepared: it is handled as it is now, or refused. `changed`: it is another
    /// one now, which may have files of its own.
    Prepared { ticket: Ticket, result: Result<Prepared, Error>, changed: bool },
    /// A snapshot was taken, or not.
    Saved { name: VmName, ticket: Ticket, result: Result<(), Failure> },
}

impl Workers {
    /// No work yet. `token` becomes ready when [`Workers::take`] has a result.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Workers> {
        let (sender, done) = channel();
        let waker = Arc::new(Waker::new(registry, token)?);
        let (waiting, saving) = (HashMap::new(), HashMap::new());
        Ok(Workers { waker, sender, done, waiting, saving })
    }

    /// Prepares requests, one after the other.
    pub(super) fn prepare(
        &mut self,
        requests: Vec<(Ticket, Request, Preparation)>,
    ) -> io::Result<()> {
        let tickets: Vec<Ticket> = requests.iter().map(|(ticket, ..)| *ticket).collect();
        let flags: Vec<_> = tickets.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        let work = {
            let flags = flags.clone();
            move |tell: &dyn Fn(Done)| {
                for ((ticket, request, preparation), over) in requests.into_iter().zip(flags) {
                    let changed = !matches!(preparation, Preparation::Compare(_));
                    if !changed {
                        // If this fails, the thread only slows down others a little. One that wakes
                        // a guest reads little, and the hypervisor that it asks for its version
                        // would yield, too: on a busy host that took seconds.
                        let _ = volnet_ffi::priority::yield_to_others();
                    }
                    let result = preparation.prepare(request, || over.load(Ordering::Relaxed));
                    tell(Done::Prepared { ticket, result, changed });
                }
            }
        };
        self.begin("prepare", work)?;
        self.waiting.extend(tickets.into_iter().zip(flags));
        Ok(())
    }

    /// Takes a snapshot.
    pub(super) fn save(&mut self, save: Save) -> io::Result<()> {
        let Save { ticket, taking, over } = save;
        let is_over = Arc::clone(&over);
        let work = move |tell: &dyn Fn(Done)| {
            let name = taking.name.clone();
            let result =
                snapshot::take(taking, snapshot::ANSWER_MAX, || is_over.load(Ordering::Relaxed));
            tell(Done::Saved { name, ticket, result });
        };
        let thread = self.begin("snapshot", work)?;
        self.saving.insert(ticket, (over, thread));
        Ok(())
    }

    fn begin(
        &self,
        name: &str,
        work: impl FnOnce(&dyn Fn(Done)) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let work = move || {
            work(&|done| {
                // The receiver has ended with the daemon.
                let _ = sender.send(done);
                let _ = waker.wake();
            });
        };
        thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work)
    }

    /// Nobody waits for this request any more. A snapshot is taken all the same.
    pub(super) fn call_off(&mut self, ticket: Ticket) {
        if let Some(over) = self.waiting.remove(&ticket) {
            over.store(true, Ordering::Relaxed);
        }
    }

    /// Calls all snapshots off, and waits until their guests go on.
    pub(super) fn end_snapshots(&mut self) {
        for (over, _) in self.saving.values() {
            over.store(true, Ordering::Relaxed);
        }
        for (_, (_, thread)) in self.saving.drain() {
            // One that has panicked has told so.
            let _ = thread.join();
        }
    }

    /// Work that was done, if it is for a request whose caller still waits.
    pub(super) fn take(&mut self) -> Option<Done> {
        let (waiting, saving) = (&mut self.waiting, &mut self.saving);
        self.done.try_iter().find(|done| match done {
            Done::Prepared { ticket, .. } => waiting.remove(ticket).is_some(),
            Done::Saved { ticket, .. } => {
                saving.remove(ticket);
                true
            }
        })
    }
}
