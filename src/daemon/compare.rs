//! Checksums, compared aside: whole files are read for them, and a file can be as large as somebody
//! likes. Each request that needs it has a thread, which ends with the file, or with the connection
//! of whoever asked; so there are no more of them than connections. They read with the rights of the
//! user of hypervisors, and leave the processor to everybody else.
//!
//! A request comes back when its files are what they should be, and is handled then as if it had come
//! then.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use mio::{Registry, Token, Waker};

use crate::hypervisor::inputs::Checksum;
use crate::hypervisor::user::{self, User};
use crate::model::error::Refusal;
use crate::model::request::Request;
use crate::model::request::Ticket;

/// Bytes of a thread's stack; what is read is not on it.
const STACK: usize = 128 * 1024;

/// The requests that wait for their files.
#[derive(Debug)]
pub(super) struct Comparisons {
    user: Option<User>,
    waker: Arc<Waker>,
    sender: Sender<Compared>,
    done: Receiver<Compared>,
    /// Who waits, and how their thread is told that they do not any more.
    waiting: HashMap<Ticket, Arc<AtomicBool>>,
}

/// A request whose files were compared.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) result: Result<(), Refusal>,
}

impl Comparisons {
    /// None yet. `token` becomes ready when there is something to [`Comparisons::take`].
    pub(super) fn new(
        registry: &Registry,
        token: Token,
        user: Option<User>,
    ) -> io::Result<Comparisons> {
        let (sender, done) = channel();
        let waker = Arc::new(Waker::new(registry, token)?);
        Ok(Comparisons { user, waker, sender, done, waiting: HashMap::new() })
    }

    /// Has the files of a request compared.
    pub(super) fn begin(
        &mut self,
        ticket: Ticket,
        request: &Request,
        files: Vec<Checksum>,
    ) -> io::Result<()> {
        let over = Arc::new(AtomicBool::new(false));
        let (request, user, is_over) = (request.clone(), self.user.clone(), Arc::clone(&over));
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let work = move || {
            // Where this fails, others wait for it a little.
            let _ = volnet_ffi::priority::yield_to_others();
            let result = compare(&files, user.as_ref(), &is_over);
            // Whoever would take it has ended with the daemon.
            let _ = sender.send(Compared { ticket, request, result });
            let _ = waker.wake();
        };
        thread::Builder::new().name("compare".into()).stack_size(STACK).spawn(work)?;
        self.waiting.insert(ticket, over);
        Ok(())
    }

    /// Nobody waits for this one any more.
    pub(super) fn call_off(&mut self, ticket: Ticket) {
        if let Some(over) = self.waiting.remove(&ticket) {
            over.store(true, Ordering::Relaxed);
        }
    }

    /// A request that was compared and that somebody waits for.
    pub(super) fn take(&mut self) -> Option<Compared> {
        let waiting = &mut self.waiting;
        self.done.try_iter().find(|compared| waiting.remove(&compared.ticket).is_some())
    }
}

fn compare(files: &[Checksum], user: Option<&User>, over: &AtomicBool) -> Result<(), Refusal> {
    let compare =
        || files.iter().try_for_each(|file| file.compare(|| over.load(Ordering::Relaxed)));
    match user {
        None => compare(),
        Some(user) => user.act(compare).unwrap_or_else(|error| {
            Err(Refusal::InvalidConfig { field: user::FIELD.into(), reason: error.to_string() })
        }),
    }
}
