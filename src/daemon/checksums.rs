//! Compares checksums in threads of their own, because whole files are read, and a file can be very
//! large. Each request with checksums has a thread, which ends with the file or with the connection
//! of its caller. So there are no more threads than connections. They read with the rights of the
//! VM's user, and with the lowest priority.
//!
//! A request is handled after its checksums are right, as if it had just arrived.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mio::{Registry, Token, Waker};

use crate::hypervisor::inputs::Checksum;
use crate::model::error::Refusal;
use crate::model::request::Request;
use crate::model::request::Ticket;

/// Bytes of a thread's stack. The read buffer is not on it.
const STACK: usize = 128 * 1024;

/// The requests that wait for their files.
#[derive(Debug)]
pub(super) struct ChecksumWorkers {
    waker: Arc<Waker>,
    sender: Sender<Compared>,
    done: Receiver<Compared>,
    /// The callers that wait, and the flag that stops their thread.
    waiting: HashMap<Ticket, Arc<AtomicBool>>,
}

/// A request whose files were compared.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) result: Result<(), Refusal>,
}

impl ChecksumWorkers {
    /// No comparisons yet. `token` becomes ready when [`ChecksumWorkers::take`] has a result.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<ChecksumWorkers> {
        let (sender, done) = channel();
        let waker = Arc::new(Waker::new(registry, token)?);
        Ok(ChecksumWorkers { waker, sender, done, waiting: HashMap::new() })
    }

    /// Compares the files of a request.
    pub(super) fn begin(
        &mut self,
        ticket: Ticket,
        request: &Request,
        files: Vec<Checksum>,
    ) -> io::Result<()> {
        let over = Arc::new(AtomicBool::new(false));
        let (request, is_over) = (request.clone(), Arc::clone(&over));
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let work = move || {
            // If this fails, the thread only slows down others a little.
            let _ = volnet_ffi::priority::yield_to_others();
            let result = compare(&files, &is_over);
            // The receiver has ended with the daemon.
            let _ = sender.send(Compared { ticket, request, result });
            let _ = waker.wake();
        };
        thread::Builder::new().name("compare".into()).stack_size(STACK).spawn(work)?;
        self.waiting.insert(ticket, over);
        Ok(())
    }

    /// Nobody waits for this request any more.
    pub(super) fn call_off(&mut self, ticket: Ticket) {
        if let Some(over) = self.waiting.remove(&ticket) {
            over.store(true, Ordering::Relaxed);
        }
    }

    /// A request that was compared and whose caller still waits.
    pub(super) fn take(&mut self) -> Option<Compared> {
        let waiting = &mut self.waiting;
        self.done.try_iter().find(|compared| waiting.remove(&compared.ticket).is_some())
    }
}

fn compare(files: &[Checksum], over: &AtomicBool) -> Result<(), Refusal> {
    files.iter().try_for_each(|file| file.compare(|| over.load(Ordering::Relaxed)))
}
