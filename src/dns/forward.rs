//! Questions that wait for the resolvers of the host. It is pure: whoever drives it has the
//! sockets, the clock and the random numbers.
//!
//! ```text
//!        ask ─▶ by UDP ── answer ─▶ reply
//!                 │ ▲ └── cut, or too many strays ─▶ by TCP ── answer ─▶ reply
//!                 ▼ │ no answer in time, none possible, or a failure                │
//!             next resolver ◀──────────────────────────────────────────────────────┘
//!                 └── none left ─▶ the last failure, or that nobody answered
//! ```
//!
//! If TCP gives no answer either, a guest that asked by UDP gets the one that was cut. A guest that
//! asked by TCP never does: it could ask in no other way.
//!
//! **What a forger would have to guess.** Each try has a socket of its own, which the kernel gives
//! a random port and which hears one resolver only, and a random number. What comes on it and is
//! not the answer is a stray. After [`STRAYS_MAX`] of them the question is asked by TCP.
//!
//! **Bounds.** A VM has at most [`PER_VM_MAX`] questions that wait; what it asks beyond them is
//! lost, as on a network that is full. If there are [`ALL_MAX`], the VM with the most loses its
//! oldest. A question ends after some tries of [`TRY_MS`], so nothing waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::name::DomainName;
use super::query::{DnsQuery, ResponseCode, Transport};
use super::resolvers::Resolver;
use super::response::Response;
use crate::model::name::VmName;

/// The most questions of one VM that wait.
pub const PER_VM_MAX: usize = 64;
/// The most questions that wait. Each has a socket.
pub const ALL_MAX: usize = 1024;
/// How long one resolver has for an answer by UDP, in milliseconds.
pub const TRY_MS: u64 = 2_000;
/// How long it has by TCP.
pub const TCP_MS: u64 = 4_000;
/// The tries of a question if there are fewer resolvers.
const TRIES_MIN: usize = 2;
/// Messages on the socket of a question that are not its answer.
pub const STRAYS_MAX: u8 = 8;

/// The key of a question. A later one is greater.
pub type Key = u64;

/// A question that is to be passed on. `B` is where its answer goes.
#[derive(Clone, Debug)]
pub struct Question<B> {
    /// The VM that asks.
    pub vm: VmName,
    /// Where the answer goes.
    pub back: B,
    /// How it came.
    pub transport: Transport,
    /// What was asked.
    pub passed: PassedOn,
}

/// What is asked of whom.
#[derive(Clone, Debug)]
pub struct PassedOn {
    /// The question.
    pub query: DnsQuery,
    /// Our domain, of which no resolver knows anything.
    pub domain: DomainName,
    /// The resolvers.
    pub resolvers: Rc<[Resolver]>,
}

/// The next step of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<B> {
    /// None.
    Wait,
    /// This resolver is asked, by a new socket.
    Ask { key: Key, resolver: Resolver, by: Transport, message: Vec<u8> },
    /// It has ended with this answer, and so does its socket.
    Reply { vm: VmName, back: B, message: Vec<u8> },
}

/// A question that waits.
#[derive(Debug)]
struct Waiting<B> {
    question: Question<B>,
    /// The number of its last try.
    id: u16,
    by: Transport,
    tries: usize,
    strays: u8,
    until: u64,
    /// An answer that was cut, for a guest that can ask again by TCP.
    cut: Option<Vec<u8>>,
    /// The last failure, if no better answer comes.
    failure: Option<Vec<u8>>,
}

/// All questions that wait.
#[derive(Debug)]
pub struct Forwarder<B> {
    last: Key,
    waiting: BTreeMap<Key, Waiting<B>>,
    of_vms: BTreeMap<VmName, BTreeSet<Key>>,
    ends: BTreeSet<(u64, Key)>,
}

impl<B> Default for Forwarder<B> {
    fn default() -> Self {
        let (waiting, of_vms) = (BTreeMap::new(), BTreeMap::new());
        Forwarder { last: 0, waiting, of_vms, ends: BTreeSet::new() }
    }
}

impl<B: Clone + PartialEq> Forwarder<B> {
    /// Begins with a question. `id` is the number of its first try.
    pub fn ask(&mut self, question: Question<B>, id: u16, now: u64) -> Next<B> {
        let own = self.of_vms.get(&question.vm);
        let repeated = |key: &Key| {
            self.waiting.get(key).is_some_and(|it| {
                let it = &it.question;
                it.back == question.back && it.passed.query == question.passed.query
            })
        };
        if own.is_some_and(|own| own.len() >= PER_VM_MAX || own.iter().any(repeated)) {
            return Next::Wait;
        }
        self.last += 1;
        let (key, vm) = (self.last, question.vm.clone());
        let waiting = Waiting {
            question,
            id,
            by: Transport::Udp,
            tries: 0,
            strays: 0,
            until: now,
            cut: None,
            failure: None,
        };
        self.waiting.insert(key, waiting);
        self.of_vms.entry(vm).or_default().insert(key);
        self.ends.insert((now, key));
        self.attempt(key, Transport::Udp, id, now)
    }

    /// Removes a question if there would be no room for another one of this VM, and says where its
    /// answer would have gone. Its socket is closed.
    pub fn make_room(&mut self, vm: &VmName) -> Option<(Key, B)> {
        let full = self.waiting.len() >= ALL_MAX;
        let own = self.of_vms.get(vm).map_or(0, BTreeSet::len);
        if !full || own >= PER_VM_MAX {
            return None;
        }
        let most = self.of_vms.values().max_by_key(|keys| keys.len())?;
        let oldest = *most.first()?;
        self.remove(oldest).map(|question| (oldest, question.back))
    }

    /// Something has come on the socket of a question. `id` is the number of its next try.
    pub fn heard(&mut self, key: Key, message: &[u8], id: u16, now: u64) -> Next<B> {
        let Some(waiting) = self.waiting.get_mut(&key) else { return Next::Wait };
        let Question { transport, passed, .. } = &waiting.question;
        let PassedOn { query, domain, .. } = passed;
        let Ok(response) = Response::read(message, query, waiting.id, domain) else {
            waiting.strays += 1;
            return match (waiting.strays < STRAYS_MAX, waiting.by) {
                (true, _) => Next::Wait,
                (false, Transport::Udp) => self.attempt(key, Transport::Tcp, id, now),
                (false, Transport::Tcp) => self.failed(key, id, now),
            };
        };
        if response.is_about_us() {
            let failure = query.fail(ResponseCode::Failure);
            return self.end(key, failure);
        }
        let answer = response.for_guest(query, *transport);
        if response.is_cut() {
            // Who asks by TCP cannot do more, so it gets a whole answer or a failure.
            waiting.cut = (*transport == Transport::Udp).then_some(answer);
            return match waiting.by {
                Transport::Udp => self.attempt(key, Transport::Tcp, id, now),
                Transport::Tcp => self.failed(key, id, now),
            };
        }
        if response.is_failure() {
            waiting.failure = Some(answer);
            return self.next_resolver(key, id, now);
        }
        self.end(key, answer)
    }

    /// A question's socket has failed, or its time is over. `id` is the number of its next try.
    pub fn failed(&mut self, key: Key, id: u16, now: u64) -> Next<B> {
        let Some(waiting) = self.waiting.get_mut(&key) else { return Next::Wait };
        match (waiting.by, &mut waiting.cut) {
            // The resolver has no TCP: the guest gets what it could have.
            (Transport::Tcp, Some(cut)) => {
                let cut = std::mem::take(cut);
                self.end(key, cut)
            }
            (Transport::Tcp, None) | (Transport::Udp, _) => self.next_resolver(key, id, now),
        }
    }

    /// When the time of a question is over.
    pub fn deadline(&self) -> Option<u64> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// A question whose time is over.
    pub fn due(&self, now: u64) -> Option<Key> {
        self.ends.first().filter(|(until, _)| *until <= now).map(|(_, key)| *key)
    }

    /// Forgets questions whose answers nobody waits for, and names them.
    pub fn forget(&mut self, gone: impl Fn(&B) -> bool) -> Vec<Key> {
        let of = self.waiting.iter().filter(|(_, waiting)| gone(&waiting.question.back));
        let keys: Vec<Key> = of.map(|(key, _)| *key).collect();
        for key in &keys {
            self.remove(*key);
        }
        keys
    }

    /// Whether a question waits.
    pub fn waits(&self, key: Key) -> bool {
        self.waiting.contains_key(&key)
    }

    /// How many questions wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next_resolver(&mut self, key: Key, id: u16, now: u64) -> Next<B> {
        let waiting = self.waiting.get_mut(&key).expect("looked up by the caller");
        waiting.tries += 1;
        if waiting.tries < waiting.question.passed.resolvers.len().max(TRIES_MIN) {
            return self.attempt(key, Transport::Udp, id, now);
        }
        let none = waiting.question.passed.query.fail(ResponseCode::Failure);
        let answer = waiting.cut.take().or(waiting.failure.take()).unwrap_or(none);
        self.end(key, answer)
    }

    fn attempt(&mut self, key: Key, by: Transport, id: u16, now: u64) -> Next<B> {
        let waiting = self.waiting.get_mut(&key).expect("looked up by the caller");
        let PassedOn { query, resolvers, .. } = &waiting.question.passed;
        let Some(index) = waiting.tries.checked_rem(resolvers.len()) else {
            let failure = query.fail(ResponseCode::Failure);
            return self.end(key, failure);
        };
        let (resolver, message) = (resolvers[index].clone(), query.to_resolver(id));
        let until = now + if by == Transport::Udp { TRY_MS } else { TCP_MS };
        self.ends.remove(&(waiting.until, key));
        self.ends.insert((until, key));
        (waiting.id, waiting.by, waiting.until, waiting.strays) = (id, by, until, 0);
        Next::Ask { key, resolver, by, message }
    }

    fn end(&mut self, key: Key, message: Vec<u8>) -> Next<B> {
        match self.remove(key) {
            Some(Question { vm, back, .. }) => Next::Reply { vm, back, message },
            None => Next::Wait,
        }
    }

    fn remove(&mut self, key: Key) -> Option<Question<B>> {
        let waiting = self.waiting.remove(&key)?;
        self.ends.remove(&(waiting.until, key));
        let vm = &waiting.question.vm;
        if let Some(keys) = self.of_vms.get_mut(vm) {
            keys.remove(&key);
            if keys.is_empty() {
                self.of_vms.remove(vm);
            }
        }
        Some(waiting.question)
    }
}
