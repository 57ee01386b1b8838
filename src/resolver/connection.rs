//! A connection of a guest: questions, each after its length (RFC 1035, 4.2.2), in any number
//! (RFC 7766).
//!
//! A connection reads while it has room: not while an answer waits to be sent, nor while it has
//! [`WAITING_MAX`] questions that wait. It ends [`IDLE_MS`] after its last question or answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::EpollFlags;

use super::Client;
use crate::dns::query::QUESTION_MAX;

/// The most connections.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// The most connections of one VM, or of the host, on one network.
pub(super) const PER_VM_MAX: usize = 8;
/// Questions of one connection that wait for a resolver.
const WAITING_MAX: u16 = 16;
/// How long a connection stays without a question or an answer, in milliseconds.
const IDLE_MS: u64 = 10_000;
/// Bytes that are read at once.
const READ_MAX: usize = 4096;
/// Bytes of the length before a message.
const LENGTH: usize = 2;

#[derive(Debug)]
pub(super) struct Connection {
    /// The network's name.
    pub(super) network: String,
    /// Who is at its other end, and its address.
    pub(super) client: Client,
    pub(super) address: IpAddr,
    /// Questions that wait for a resolver.
    pub(super) waits: u16,
    /// When it ends.
    pub(super) until: u64,
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The other end says no more.
    silent: bool,
    broken: bool,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    pub(super) fn new(
        network: String,
        (client, address): (Client, IpAddr),
        stream: TcpStream,
        now: u64,
    ) -> std::io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            network,
            client,
            address,
            waits: 0,
            until: now + IDLE_MS,
            stream,
            input: Vec::new(),
            output: Vec::new(),
            silent: false,
            broken: false,
        })
    }

    /// What to wait for.
    pub(super) fn wanted(&self) -> EpollFlags {
        match (self.output.is_empty(), self.has_room() && !self.silent) {
            (false, _) => EpollFlags::EPOLLOUT,
            (true, true) => EpollFlags::EPOLLIN,
            (true, false) => EpollFlags::empty(),
        }
    }

    fn has_room(&self) -> bool {
        self.output.is_empty() && self.waits < WAITING_MAX
    }

    /// Sends what waits to be sent, and reads once if there is room.
    pub(super) fn transfer(&mut self) {
        self.flush();
        // The kernel tells of a reset also where volnet waits for nothing.
        self.broken |= !matches!(self.stream.take_error(), Ok(None));
        if self.broken || !self.has_room() || self.silent || self.input.len() >= READ_MAX {
            return;
        }
        let mut buffer = [0; READ_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.silent = true,
            Ok(length) => self.input.extend(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.broken = true,
        }
    }

    /// The next whole question, if there is room for its answer.
    pub(super) fn next_question(&mut self, now: u64) -> Option<Vec<u8>> {
        if !self.has_room() || self.broken {
            return None;
        }
        let (length, rest) = self.input.split_first_chunk::<LENGTH>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length > QUESTION_MAX {
            self.broken = true;
            return None;
        }
        let message = rest.get(..length)?.to_vec();
        self.input.drain(..LENGTH + length);
        self.until = now + IDLE_MS;
        Some(message)
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, message: &[u8], now: u64) {
        let Ok(length) = u16::try_from(message.len()) else { return self.end() };
        self.output.extend(length.to_be_bytes());
        self.output.extend(message);
        self.until = now + IDLE_MS;
        self.flush();
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.broken {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.broken = true,
            }
        }
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.broken = true;
    }

    /// Whether there is nothing more to do on it.
    pub(super) fn has_ended(&self) -> bool {
        self.broken || self.silent && self.waits == 0 && self.output.is_empty()
    }
}
