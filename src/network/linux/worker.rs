//! The background worker: one thread for slow kernel work.
//!
//! Two things take the kernel long. A caller that removes a link waits 12 to 20 ms after the kernel
//! has released its lock (net/core/dev.c, `netdev_run_todo`: an RCU barrier). To find the tracked
//! connections of an address, the kernel walks the table of all connections: half a millisecond for
//! a thousand. No client waits for either:
//!
//! - The caller *retires* a link: the link goes down, which ends all traffic, loses its name and
//!   the VM in its alias, and joins a group. The thread removes group after group. Until then an
//!   observation leaves the link out. Groups are small, because the kernel holds its lock while it
//!   removes one.
//! - The thread deletes connections before it goes on with links. They are gone before a guest can
//!   have booted. Addresses that VMs get are gathered until the caller is done with what it has to
//!   do ([`Worker::settle`]), so that no reply waits for the thread to be woken. And the thread
//!   waits a moment for more ([`WAIT_MIN`]): as long as it worked last time, so that VMs that are
//!   made one after the other cost it no more than half of a processor, if the table has less than
//!   some ten thousand connections. However many these are, the table is walked a bounded number of
//!   times for them ([`WALKS_MAX`]).
//! - For IPv6 addresses the thread reads the whole table, which takes longer. So these wait three
//!   times as long for each other. Those that are released wait for links, too: without its link
//!   nobody can use a connection.
//!
//! The thread removes no links while the links of the host are read ([`Worker::pause`]): a dump
//! must begin again if links change.
//!
//! If the daemon dies, links without a VM stay. The next daemon finds and retires them again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::netlink::rtnl::link::{self, LinkChange, Target};
use crate::plan::reconcile::ALIAS;

use super::conntrack::{Conntrack, FlowSelector};
use super::socket::{Error, NetlinkFamily, Socket};

/// The first of our groups. No other program is likely to use these numbers. This matters because
/// all links of a group are removed with it.
const GROUP_FIRST: u32 = 0x766f_6c00;
/// The number of groups, which are used in turn.
const GROUPS: u32 = 256;
/// The most links of one group: some 4 ms of the kernel's lock.
const GROUP_MAX: u32 = 8;
/// The prefix of the names of retired links. The index follows, so each name is unique.
const NAME: &str = "vtoff";
/// How long the connections of an address that somebody gets wait for those of others, at least
/// and at most; and those of an IPv6 address at most.
const WAIT_MIN: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_millis(20);
const WAIT6_MAX: Duration = Duration::from_millis(40);
/// The most addresses for which the kernel walks the table one by one. To read the whole table
/// takes as long as some 30 to 60 such walks (11 ms with few connections: it locks each bucket).
const WALKS_MAX: usize = 32;
/// Bytes of the thread's stack.
const STACK: usize = 128 * 1024;

/// The thread and its open tasks.
#[derive(Debug, Default)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<(Sender<Task>, JoinHandle<()>)>,
    /// How many links have been retired.
    count: u32,
    /// Addresses that somebody gets, which the thread does not know yet.
    assigned: Vec<IpAddr>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    /// Remove a link, with its group.
    Remove { index: u32, group: NonZeroU32 },
    /// Delete these connections.
    Forget(FlowSelector),
    /// Delete those of addresses that somebody gets.
    ForgetFirst(Vec<IpAddr>),
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// The open tasks.
#[derive(Debug, Default)]
struct Pending {
    /// The indexes of retired links that still exist.
    links: BTreeSet<u32>,
    /// How many deletions of connections are open.
    forgets: usize,
    /// The addresses whose connections could not be forgotten, and why.
    unforgotten: BTreeMap<IpAddr, (i32, String)>,
    /// Links are being read: the thread removes none.
    paused: bool,
    /// Links are being removed.
    removing: bool,
}

/// While this lives, the thread removes no link.
#[derive(Debug)]
pub struct Pause(Arc<Shared>);

impl Worker {
    /// Retires a link once. If it is gone, nothing is to do.
    pub fn retire(&mut self, socket: &mut Socket, index: u32) -> Result<(), Error> {
        if self.shared.lock().links.contains(&index) {
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
            // Before Linux 6.2 only a link that is down can be renamed, so this is a message of its
            // own.
            link::set(writer, sequence.take(), Target::Index(index), &rename);
        });
        match retired {
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(()),
            retired => retired?,
        }
        self.count = self.count.wrapping_add(1);
        self.give(Task::Remove { index, group })
    }

    /// Has connections deleted. A failure is logged, and remembered of an address: nobody gets it
    /// before [`Worker::forget_first`] has succeeded.
    pub fn forget(&mut self, flows: FlowSelector) -> Result<(), Error> {
        self.give(Task::Forget(flows))
    }

    /// Has the connections of an address deleted that somebody is about to get, at the next
    /// [`Worker::settle`]. Waits for that only if it failed when it was last tried: then this fails
    /// if it fails again.
    pub fn forget_first(&mut self, address: IpAddr) -> Result<(), Error> {
        self.start()?;
        self.assigned.push(address);
        if !self.shared.lock().unforgotten.contains_key(&address) {
            return Ok(());
        }
        self.settle();
        let pending = self.shared.wait_while(self.shared.lock(), |pending| pending.forgets > 0);
        match pending.unforgotten.get(&address) {
            Some((errno, words)) => Err(Error::refused(*errno, words.clone())),
            None => Ok(()),
        }
    }

    /// Stops the thread from removing links as long as the result lives, so that our own work does
    /// not disturb a dump of links. Waits until the present group is gone.
    pub fn pause(&self) -> Pause {
        let mut pending = self.shared.lock();
        pending.paused = true;
        drop(self.shared.wait_while(pending, |pending| pending.removing));
        Pause(Arc::clone(&self.shared))
    }

    /// The retired links that still exist.
    pub fn retired(&self) -> BTreeSet<u32> {
        self.shared.lock().links.clone()
    }

    /// Tells the thread of the addresses that were gathered.
    pub fn settle(&mut self) {
        if !self.assigned.is_empty() {
            let addresses = std::mem::take(&mut self.assigned);
            self.send(Task::ForgetFirst(addresses));
        }
    }

    /// Waits until all tasks are done.
    pub fn flush(&mut self) {
        self.settle();
        let is_busy = |pending: &Pending| !pending.links.is_empty() || pending.forgets > 0;
        drop(self.shared.wait_while(self.shared.lock(), is_busy));
    }

    /// Gives the thread a task. The first task starts the thread.
    fn give(&mut self, task: Task) -> Result<(), Error> {
        self.start()?;
        self.send(task);
        Ok(())
    }

    fn start(&mut self) -> Result<(), Error> {
        if self.thread.is_none() {
            self.thread = Some(start(Arc::clone(&self.shared))?);
        }
        Ok(())
    }

    fn send(&mut self, task: Task) {
        let mut pending = self.shared.lock();
        match &task {
            Task::Remove { index, .. } => drop(pending.links.insert(*index)),
            Task::Forget(_) => pending.forgets += 1,
            Task::ForgetFirst(addresses) => pending.forgets += addresses.len(),
        }
        drop(pending);
        if let Some((sender, _)) = &self.thread {
            // The thread ends only when this end is dropped.
            let _ = sender.send(task);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.settle();
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

impl Pending {
    /// Connections were deleted, or could not be.
    fn forgot(&mut self, flows: FlowSelector, forgotten: Result<(), Error>) {
        self.forgets -= 1;
        let left = forgotten.err().map(|error| {
            let errno = error.errno().unwrap_or(libc::EPROTO);
            let failure = error.failure("delete connections", flows.to_string());
            log::warn!("{failure}");
            (errno, failure.to_string())
        });
        match (flows, left) {
            (FlowSelector::Of(address), Some(left)) => drop(self.unforgotten.insert(address, left)),
            (FlowSelector::Of(address), None) => drop(self.unforgotten.remove(&address)),
            (FlowSelector::Led { .. }, _) => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        pending: MutexGuard<'a, Pending>,
        is_so: impl Fn(&Pending) -> bool,
    ) -> MutexGuard<'a, Pending> {
        let waited = self.changed.wait_while(pending, |pending| is_so(pending));
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.lock().paused = false;
        self.0.changed.notify_all();
    }
}

fn start(shared: Arc<Shared>) -> Result<(Sender<Task>, JoinHandle<()>), Error> {
    let mut worker = Thread {
        route: Socket::open(NetlinkFamily::Route)?,
        netfilter: Socket::open(NetlinkFamily::Netfilter)?,
        conntrack: Conntrack::default(),
        wait: WAIT_MIN,
        wait6: WAIT_MIN,
        forgets: Vec::new(),
        reads: Vec::new(),
        due: None,
        links: VecDeque::new(),
        shared,
    };
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("worker".into()).stack_size(STACK);
    Ok((sender, thread.spawn(move || worker.run(&receiver))?))
}

/// The state of the thread.
struct Thread {
    route: Socket,
    netfilter: Socket,
    conntrack: Conntrack,
    /// How long addresses that somebody gets wait for others, and IPv6 addresses.
    wait: Duration,
    wait6: Duration,
    /// Connections to delete.
    forgets: Vec<FlowSelector>,
    /// Those of IPv6 addresses, for which the table is read, and when at the latest. `None`: when
    /// nothing else is to do.
    reads: Vec<FlowSelector>,
    due: Option<Instant>,
    links: VecDeque<(u32, NonZeroU32)>,
    shared: Arc<Shared>,
}

impl Thread {
    /// Works until no more task can come.
    fn run(&mut self, receiver: &Receiver<Task>) {
        loop {
            let task = match self.due {
                None => receiver.recv().map_err(RecvTimeoutError::from),
                Some(due) => receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            if let Ok(Task::ForgetFirst(_)) = task {
                // Asleep, it is not woken for each of the others.
                std::thread::sleep(self.wait);
            }
            let is_over = task == Err(RecvTimeoutError::Disconnected);
            task.into_iter().for_each(|task| self.take(task));
            self.work(receiver);
            if is_over {
                return self.read();
            }
        }
    }

    /// Works until nothing is to do now.
    fn work(&mut self, receiver: &Receiver<Task>) {
        loop {
            receiver.try_iter().for_each(|task| self.take(task));
            if self.due.is_some_and(|due| due <= Instant::now()) {
                self.read();
            } else if !self.forgets.is_empty() {
                self.forget();
            } else if !self.links.is_empty() {
                self.remove_group();
            } else if self.due.is_none() && !self.reads.is_empty() {
                self.read();
            } else {
                break;
            }
        }
    }

    fn take(&mut self, task: Task) {
        let is_ipv6 = |flows: &FlowSelector| matches!(flows, FlowSelector::Of(IpAddr::V6(_)));
        match task {
            Task::Forget(flows) if is_ipv6(&flows) => self.reads.push(flows),
            Task::Forget(flows) => self.forgets.push(flows),
            Task::ForgetFirst(addresses) => {
                let (reads, forgets): (Vec<_>, Vec<_>) =
                    addresses.into_iter().map(FlowSelector::Of).partition(is_ipv6);
                if !reads.is_empty() {
                    self.due.get_or_insert_with(|| Instant::now() + self.wait6);
                }
                self.reads.extend(reads);
                self.forgets.extend(forgets);
            }
            Task::Remove { index, group } => self.links.push_back((index, group)),
        }
    }

    /// Deletes connections. If the table is read for them, those of IPv6 addresses go with them.
    fn forget(&mut self) {
        let mut flows = std::mem::take(&mut self.forgets);
        if flows.len() > WALKS_MAX {
            flows.append(&mut self.reads);
            self.due = None;
        }
        self.wait = self.delete(flows).clamp(WAIT_MIN, WAIT_MAX);
    }

    /// Reads the table for the connections of IPv6 addresses, and deletes them.
    fn read(&mut self) {
        let flows = std::mem::take(&mut self.reads);
        self.due = None;
        self.wait6 = (self.delete(flows) * 3).clamp(WAIT_MIN, WAIT6_MAX);
    }

    /// Deletes connections: those of several addresses together where that saves time, and what
    /// that did not do one by one, so that one that fails does not hold the others. Returns how
    /// long it took.
    fn delete(&mut self, tasks: Vec<FlowSelector>) -> Duration {
        let start = Instant::now();
        let addresses: BTreeSet<IpAddr> = tasks.iter().filter_map(|it| it.address()).collect();
        let together = self.conntrack.together(addresses, WALKS_MAX);
        let are_done = !together.is_empty()
            && self.conntrack.forget_all(&mut self.netfilter, &together).is_ok();
        for flows in tasks {
            let is_done = are_done && flows.address().is_some_and(|it| together.contains(&it));
            let forgotten = if is_done { Ok(()) } else { self.forget_one(flows) };
            self.shared.lock().forgot(flows, forgotten);
            self.shared.changed.notify_all();
        }
        start.elapsed()
    }

    fn forget_one(&mut self, flows: FlowSelector) -> Result<(), Error> {
        match self.conntrack.forget(&mut self.netfilter, flows) {
            Err(error) if error.is_unknown() => self.conntrack.forget(&mut self.netfilter, flows),
            forgotten => forgotten,
        }
    }

    /// Removes the first links, as far as they are of one group.
    fn remove_group(&mut self) {
        let Some(&(_, group)) = self.links.front() else { return };
        let count = self.links.iter().take_while(|(_, of)| *of == group).count();
        let indexes: Vec<u32> = self.links.drain(..count).map(|(index, _)| index).collect();
        self.shared.wait_while(self.shared.lock(), |pending| pending.paused).removing = true;
        self.remove(group, &indexes);
        let mut pending = self.shared.lock();
        pending.links.retain(|index| !indexes.contains(index));
        pending.removing = false;
        drop(pending);
        self.shared.changed.notify_all();
    }

    /// Removes a group. If that fails, it removes link by link, so that one bad link does not keep
    /// the others.
    fn remove(&mut self, group: NonZeroU32, indexes: &[u32]) {
        let gone = |result: Result<(), Error>| match result {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        };
        let removed = self.route.request(1, |writer, sequence| {
            link::delete_group(writer, sequence.take(), group);
        });
        if gone(removed).is_ok() {
            return;
        }
        for index in indexes {
            let removed = self.route.request(1, |writer, sequence| {
                link::delete(writer, sequence.take(), Target::Index(*index));
            });
            if let Err(error) = gone(removed) {
                log::error!("{}", error.failure("delete link", format!("index {index}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_until_its_connections_are_forgotten() {
        let mut pending = Pending { forgets: 3, ..Pending::default() };
        let address = IpAddr::from([10, 0, 0, 2]);
        let others = FlowSelector::Led { protocol: 6, host_port: 80, address, port: 80 };
        let fails = || Err(Error::refused(libc::EPERM, "no".into()));
        pending.forgot(others, fails());
        assert_eq!(pending.unforgotten.len(), 0, "no packet begins a connection by that port");
        pending.forgot(FlowSelector::Of(address), fails());
        assert_eq!(pending.unforgotten[&address].0, libc::EPERM);
        pending.forgot(FlowSelector::Of(address), Ok(()));
        assert_eq!((pending.unforgotten.len(), pending.forgets), (0, 0));
    }
}
