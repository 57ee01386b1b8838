//! The sockets of [`crate::dns`]: where guests are heard, and by which the resolvers of the host
//! are asked.
//!
//! All are one source of the daemon's loop: an epoll of their own, whose descriptor becomes
//! readable when one of them is ready. One [`Names::turn`] lets each that is ready take a bounded
//! step.
//!
//! **Who is heard.** A network has its sockets on the host's address there, bound to its bridge
//! ([`listen`]). So no packet of another link reaches them, whatever its addresses. What the host
//! sends to its own address counts as coming by the link that has the address (`rt_iif`,
//! net/ipv4/route.c). Only a VM's address and the host's own are answered. The host is told names
//! of ours and nothing else: its own resolver may ask us.
//!
//! **Who decides** is a [`Directory`]. It reads a question and answers it, or has it passed on;
//! [`crate::dns::forward`] does that, and this room carries out its steps ([`exchange`]). Before an
//! answer leaves, the directory is asked whether its VM still has the address.

mod connection;
mod exchange;
mod listen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::dns::forward::{Forwarder, Key, Next, PassedOn, Question};
use crate::dns::query::{QUESTION_MAX, Transport};
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use connection::{CONNECTIONS_MAX, Connection, PER_VM_MAX};
use exchange::{Exchange, Heard};
use listen::{Listener, Listening};

/// Sockets that take a step in one turn.
const STEPS_PER_TURN: usize = 64;
/// Datagrams that one socket takes in one step.
const DATAGRAMS_PER_STEP: usize = 32;

/// How long a listening socket rests that cannot accept, in milliseconds: it stays ready, for
/// example as long as no file descriptor is free.
const REST_MS: u64 = 1_000;

/// Knows names, and who asks for them.
pub trait Directory {
    /// Decides on what has come to a network from this address.
    fn question(
        &mut self,
        network: &str,
        from: IpAddr,
        transport: Transport,
        message: &[u8],
    ) -> Verdict;

    /// Whose this address is on a network; `None` if it is nobody's that is answered.
    fn client(&self, network: &str, address: IpAddr) -> Option<Client>;
}

/// Who is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// The host itself.
    Host,
    /// A VM.
    Vm(VmName),
}

/// What becomes of a message.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing.
    Ignore,
    /// It is answered.
    Answer(Vec<u8>),
    /// It is passed on for this VM.
    PassOn(VmName, PassedOn),
}

/// The key of a socket in the epoll. None is used twice.
type Token = u64;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// In a datagram from the socket with this key.
    Datagram(Token, SocketAddr),
    /// On the connection with this key.
    Connection(Token),
}

/// All sockets.
#[derive(Debug)]
pub struct Names {
    epoll: Epoll,
    last: Token,
    listening: BTreeMap<Token, Listening>,
    connections: BTreeMap<Token, Connection>,
    exchanges: BTreeMap<Token, (Key, Exchange)>,
    /// The socket of each question that waits.
    asked: BTreeMap<Key, Token>,
    /// Connections of which a question has ended, so that they may have room for the next.
    relieved: BTreeSet<Token>,
    /// Listening sockets that rest, and until when.
    resting: BTreeMap<Token, u64>,
    forwarder: Forwarder<Back>,
}

impl Names {
    /// Nobody is heard yet.
    pub fn new() -> io::Result<Names> {
        Ok(Names {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            last: 0,
            listening: BTreeMap::new(),
            connections: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            asked: BTreeMap::new(),
            relieved: BTreeSet::new(),
            resting: BTreeMap::new(),
            forwarder: Forwarder::default(),
        })
    }

    /// The descriptor to wait for.
    pub fn descriptor(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// Hears the guests of a network, whose bridge is there, instead of on an earlier bridge of it.
    /// If not all of its sockets can be had, there are none.
    pub fn listen(&mut self, network: &NetworkConfig) -> io::Result<()> {
        self.close(&network.name);
        let heard = self.hear_by(listen::open(network)?);
        if heard.is_err() {
            self.close(&network.name);
        }
        heard
    }

    fn hear_by(&mut self, sockets: Vec<Listening>) -> io::Result<()> {
        for listening in sockets {
            let token = self.token();
            self.epoll.add(&listening, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
            self.listening.insert(token, listening);
        }
        Ok(())
    }

    /// Hears the guests of a network no more.
    pub fn close(&mut self, network: &str) {
        self.keep(|known| known != network);
    }

    /// Hears the guests of these networks alone.
    pub fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.listening.retain(|_, listening| is_kept(&listening.network));
        self.connections.retain(|_, connection| is_kept(&connection.network));
        self.forget_connections();
    }

    /// Lets sockets that are ready take a step. Says whether there may be more.
    pub fn turn(&mut self, directory: &mut dyn Directory, now: u64) -> bool {
        let mut events = [EpollEvent::empty(); STEPS_PER_TURN];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or_default();
        for event in &events[..count] {
            let token = event.data();
            // A step before this one may have closed the socket.
            if self.listening.contains_key(&token) {
                self.hear(token, directory, now);
            } else if self.connections.contains_key(&token) {
                self.read(token, directory, now);
            } else if self.exchanges.contains_key(&token) {
                self.exchange(token, directory, now);
            }
        }
        self.go_on(directory, now);
        count > 0
    }

    /// When something is due though no socket is ready.
    pub fn deadline(&self) -> Option<u64> {
        let connections = self.connections.values().map(|connection| connection.until);
        let resting = self.resting.values().copied();
        connections.chain(resting).chain(self.forwarder.deadline()).min()
    }

    /// Does what is due. Afterwards the deadline lies ahead.
    pub fn tick(&mut self, directory: &mut dyn Directory, now: u64) {
        while let Some(key) = self.forwarder.due(now) {
            let next = self.forwarder.failed(key, random(), now);
            self.follow(Some(key), next, directory, now);
        }
        self.wake(now);
        let before = self.connections.len();
        self.connections.retain(|_, connection| connection.until > now);
        if self.connections.len() < before {
            self.forget_connections();
        }
        self.go_on(directory, now);
    }

    /// Ends the rest of listening sockets.
    fn wake(&mut self, now: u64) {
        let rested = self.resting.iter().filter(|(_, until)| **until <= now);
        for token in rested.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.resting.remove(&token);
            self.want(token, EpollFlags::EPOLLIN);
        }
    }

    /// Waits for this on a listening socket.
    fn want(&self, token: Token, flags: EpollFlags) {
        let Some(listening) = self.listening.get(&token) else { return };
        if let Err(error) = self.epoll.modify(listening, &mut EpollEvent::new(flags, token)) {
            log::warn!("network {}: cannot wait for questions: {error}", listening.network);
        }
    }

    fn token(&mut self) -> Token {
        self.last += 1;
        self.last
    }

    /// A listening socket is ready.
    fn hear(&mut self, token: Token, directory: &mut dyn Directory, now: u64) {
        let mut buffer = [0; QUESTION_MAX + 1];
        for _ in 0..DATAGRAMS_PER_STEP {
            let Some(Listening { network, listener }) = self.listening.get(&token) else {
                return;
            };
            let network = network.clone();
            match listener {
                Listener::Tcp(listener) => match listener.accept() {
                    Ok((stream, from)) => {
                        if let Some(client) = directory.client(&network, from.ip()) {
                            self.accept(network, client, (stream, from.ip()), now);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) => {
                        log::warn!("network {network}: cannot accept a connection: {error}");
                        self.want(token, EpollFlags::empty());
                        self.resting.insert(token, now + REST_MS);
                        return;
                    }
                },
                Listener::Udp(socket) => {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                    let message = &buffer[..length];
                    let verdict = directory.question(&network, from.ip(), Transport::Udp, message);
                    match verdict {
                        Verdict::Ignore => {}
                        Verdict::Answer(answer) => listen::send(socket, &answer, from),
                        Verdict::PassOn(vm, passed) => {
                            let back = Back::Datagram(token, from);
                            self.pass_on(vm, back, Transport::Udp, passed, directory, now);
                        }
                    }
                }
            }
        }
    }

    /// Takes a connection, but not too many of one client.
    fn accept(
        &mut self,
        network: String,
        client: Client,
        (stream, from): (std::net::TcpStream, IpAddr),
        now: u64,
    ) {
        let same = |it: &&Connection| it.client == client && it.network == network;
        let own = self.connections.values().filter(same).count();
        if own >= PER_VM_MAX || self.connections.len() >= CONNECTIONS_MAX {
            return;
        }
        let token = self.token();
        let connection = Connection::new(network, (client, from), stream, now);
        let Ok(connection) = connection else { return };
        let event = EpollEvent::new(connection.wanted(), token);
        if self.epoll.add(&connection, event).is_ok() {
            self.connections.insert(token, connection);
        }
    }

    /// A connection is ready: what has come on it is handled as far as there is room for answers.
    fn read(&mut self, token: Token, directory: &mut dyn Directory, now: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.transfer();
        self.advance(token, directory, now);
    }

    /// Handles what has come on connections that may have room again.
    fn go_on(&mut self, directory: &mut dyn Directory, now: u64) {
        while let Some(token) = self.relieved.pop_first() {
            self.advance(token, directory, now);
        }
    }

    /// A question of a connection has ended.
    fn relieve(&mut self, token: Token) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(&token)?;
        connection.waits -= 1;
        self.relieved.insert(token);
        Some(connection)
    }

    fn advance(&mut self, token: Token, directory: &mut dyn Directory, now: u64) {
        while let Some(connection) = self.connections.get_mut(&token) {
            let Some(message) = connection.next_question(now) else { break };
            let (network, from) = (connection.network.clone(), connection.address);
            match directory.question(&network, from, Transport::Tcp, &message) {
                Verdict::Ignore => connection.end(),
                Verdict::Answer(answer) => connection.answer(&answer, now),
                Verdict::PassOn(vm, passed) => {
                    let back = Back::Connection(token);
                    self.pass_on(vm, back, Transport::Tcp, passed, directory, now);
                }
            }
        }
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if connection.has_ended() {
            self.connections.remove(&token);
            self.forget_connections();
            return;
        }
        let mut event = EpollEvent::new(connection.wanted(), token);
        if self.epoll.modify(&*connection, &mut event).is_err() {
            self.connections.remove(&token);
            self.forget_connections();
        }
    }

    fn pass_on(
        &mut self,
        vm: VmName,
        back: Back,
        transport: Transport,
        passed: PassedOn,
        directory: &mut dyn Directory,
        now: u64,
    ) {
        if let Some((key, lost)) = self.forwarder.make_room(&vm) {
            self.close_exchange(key);
            if let Back::Connection(token) = lost {
                self.relieve(token);
            }
        }
        let next = self.forwarder.ask(Question { vm, back, transport, passed }, random(), now);
        // Otherwise it is lost.
        if let (Next::Ask { .. } | Next::Reply { .. }, Back::Connection(token)) = (&next, back) {
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.waits += 1;
            }
        }
        self.follow(None, next, directory, now);
    }

    /// Carries out the next steps of a question, until it waits or has ended.
    fn follow(
        &mut self,
        key: Option<Key>,
        next: Next<Back>,
        directory: &mut dyn Directory,
        now: u64,
    ) {
        let (mut key, mut next) = (key, next);
        loop {
            match next {
                Next::Wait => return,
                Next::Reply { vm, back, message } => {
                    if let Some(key) = key {
                        self.close_exchange(key);
                    }
                    return self.reply(&vm, back, &message, directory, now);
                }
                Next::Ask { key: asked, resolver, by, message } => {
                    self.close_exchange(asked);
                    key = Some(asked);
                    let token = self.token();
                    let opened = Exchange::open(&resolver, by, &message).and_then(|exchange| {
                        self.epoll.add(&exchange, EpollEvent::new(exchange.wanted(), token))?;
                        Ok(exchange)
                    });
                    match opened {
                        Ok(exchange) => {
                            self.asked.insert(asked, token);
                            self.exchanges.insert(token, (asked, exchange));
                            return;
                        }
                        Err(error) => {
                            log::debug!("cannot ask the resolver {}: {error}", resolver.ip);
                            next = self.forwarder.failed(asked, random(), now);
                        }
                    }
                }
            }
        }
    }

    /// The socket of a question is ready.
    fn exchange(&mut self, token: Token, directory: &mut dyn Directory, now: u64) {
        for _ in 0..DATAGRAMS_PER_STEP {
            let Some((key, exchange)) = self.exchanges.get_mut(&token) else { return };
            let key = *key;
            let next = match exchange.step() {
                Heard::Nothing => {
                    let mut event = EpollEvent::new(exchange.wanted(), token);
                    match self.epoll.modify(&*exchange, &mut event) {
                        Ok(()) => return,
                        Err(_) => self.forwarder.failed(key, random(), now),
                    }
                }
                Heard::Message(message) => self.forwarder.heard(key, &message, random(), now),
                Heard::Failed => self.forwarder.failed(key, random(), now),
            };
            self.follow(Some(key), next, directory, now);
        }
    }

    fn close_exchange(&mut self, key: Key) {
        if let Some(token) = self.asked.remove(&key) {
            self.exchanges.remove(&token);
        }
    }

    /// Sends an answer, if its VM still has the address that asked.
    fn reply(
        &mut self,
        vm: &VmName,
        back: Back,
        message: &[u8],
        directory: &mut dyn Directory,
        now: u64,
    ) {
        match back {
            Back::Datagram(token, to) => {
                let Some(Listening { network, listener, .. }) = self.listening.get(&token) else {
                    return;
                };
                let Listener::Udp(socket) = listener else { return };
                if directory.client(network, to.ip()) == Some(Client::Vm(vm.clone())) {
                    listen::send(socket, message, to);
                }
            }
            Back::Connection(token) => {
                let Some(connection) = self.relieve(token) else { return };
                let owner = directory.client(&connection.network, connection.address);
                match owner == Some(Client::Vm(vm.clone())) {
                    true => connection.answer(message, now),
                    false => connection.end(),
                }
            }
        }
    }

    /// Forgets the questions of connections that are gone.
    fn forget_connections(&mut self) {
        let connections = &self.connections;
        let listening = &self.listening;
        let gone = |back: &Back| match back {
            Back::Connection(token) => !connections.contains_key(token),
            Back::Datagram(token, _) => !listening.contains_key(token),
        };
        for key in self.forwarder.forget(gone) {
            self.close_exchange(key);
        }
    }
}

/// A number that nobody can guess.
fn random() -> u16 {
    volnet_ffi::random::number().expect("Linux has getrandom(2) since 3.17")
}
