//! Removes links where the wait for it stops nobody.
//!
//! The kernel lets whoever removes a link wait for 12 to 20 ms after it has let go of its lock
//! (net/core/dev.c, `netdev_run_todo`: an RCU barrier). So a link is only *retired* by the caller:
//! it goes down, which ends all traffic on it, gives its name up, loses its VM's name in the alias and
//! joins a group. One thread, the only one that volnet has, removes group after group; until then
//! the link is not among what is observed. Groups are small, because the kernel holds its lock while
//! it removes one.
//!
//! A daemon that dies leaves links without a VM's name; the next one finds and retires them anew.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::engine::reconcile::ALIAS;
use crate::netlink::rtnl::link::{self, LinkChange, Target};

use super::socket::{Error, Protocol, Socket};

/// The first of our groups. Nobody counts up to it, and who chooses one does not choose this: to
/// remove a group removes all that is in it.
const GROUP_FIRST: u32 = 0x766f_6c00;
/// How many groups there are; they are used in turn.
const GROUPS: u32 = 256;
/// What the names of retired links begin with; the index follows, so nobody else has one.
const NAME: &str = "vtoff";
/// Links of one group: some 8 ms of the kernel's lock.
const GROUP_MAX: u32 = 16;

/// The thread, and what it has still to do.
#[derive(Debug, Default)]
pub struct Reaper {
    shared: Arc<Shared>,
    thread: Option<(Sender<Retired>, JoinHandle<()>)>,
    /// How many links were retired so far.
    count: u32,
}

/// A link that is to be removed.
#[derive(Clone, Copy, Debug)]
struct Retired {
    index: u32,
    group: NonZeroU32,
}

/// The indexes of links that are retired and not gone yet.
#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<BTreeSet<u32>>,
    done: Condvar,
}

impl Reaper {
    /// Retires a link, once. One that is gone is as good as retired.
    pub fn retire(&mut self, socket: &mut Socket, index: u32) -> Result<(), Error> {
        if self.shared.lock().contains(&index) {
            return Ok(());
        }
        let number = GROUP_FIRST + self.count / GROUP_MAX % GROUPS;
        let group = NonZeroU32::new(number).expect("the first is not 0");
        let change = LinkChange {
            up: Some(false),
            alias: Some(ALIAS),
            group: Some(number),
            ..LinkChange::default()
        };
        let name = format!("{NAME}{index}");
        let rename = LinkChange { name: Some(&name), ..LinkChange::default() };
        let retired = socket.request(2, |writer, sequence| {
            link::set(writer, sequence.take(), Target::Index(index), &change);
            // Before Linux 6.2 a link must be down for that, so it is a message of its own.
            link::set(writer, sequence.take(), Target::Index(index), &rename);
        });
        match retired {
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(()),
            retired => retired?,
        }
        self.count = self.count.wrapping_add(1);
        let sender = self.thread()?;
        self.shared.lock().insert(index);
        let _ = sender.send(Retired { index, group });
        Ok(())
    }

    /// The links that are retired and not gone yet.
    pub fn pending(&self) -> BTreeSet<u32> {
        self.shared.lock().clone()
    }

    /// Waits until all retired links are gone.
    pub fn flush(&self) {
        let mut pending = self.shared.lock();
        while !pending.is_empty() {
            pending = self.shared.done.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The way to the thread, which is started with the first link that there is for it.
    fn thread(&mut self) -> Result<Sender<Retired>, Error> {
        if let Some((sender, _)) = &self.thread {
            return Ok(sender.clone());
        }
        let socket = Socket::open(Protocol::Route)?;
        let (sender, receiver) = channel();
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(128 * 1024)
            .spawn(move || run(socket, &receiver, &shared))?;
        self.thread = Some((sender.clone(), thread));
        Ok(sender)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes what comes, group by group, until nothing can come any more.
fn run(mut socket: Socket, receiver: &Receiver<Retired>, shared: &Shared) {
    let mut next = receiver.recv().ok();
    while let Some(first) = next {
        let mut indexes = vec![first.index];
        next = receiver.try_recv().ok();
        while let Some(more) = next.filter(|more| more.group == first.group) {
            indexes.push(more.index);
            next = receiver.try_recv().ok();
        }
        remove(&mut socket, first.group, &indexes);
        let mut pending = shared.lock();
        for index in &indexes {
            pending.remove(index);
        }
        drop(pending);
        shared.done.notify_all();
        next = next.or_else(|| receiver.recv().ok());
    }
}

/// Removes a group; where that fails, link by link, so that one that cannot go keeps no other.
fn remove(socket: &mut Socket, group: NonZeroU32, indexes: &[u32]) {
    let gone = |result: Result<(), Error>| match result {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result,
    };
    let removed = socket.request(1, |writer, sequence| {
        link::delete_group(writer, sequence.take(), group);
    });
    if gone(removed).is_ok() {
        return;
    }
    for index in indexes {
        let target = Target::Index(*index);
        let removed =
            socket.request(1, |writer, sequence| link::delete(writer, sequence.take(), target));
        if let Err(error) = gone(removed) {
            log::error!("{}", error.failure("delete link", format!("index {index}")));
        }
    }
}
