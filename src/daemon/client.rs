//! One connection: bytes in, messages out of them, replies into a queue, bytes out.
//!
//! A connection has one request under way at a time, because replies come in the order of the
//! requests, or several that are carried out together and answered in one go; what it sends meanwhile
//! waits, first in our buffer and then in the kernel's. So a
//! client that floods us or never reads slows down nobody but itself, and what we keep for it is
//! bounded: [`READ_PER_TURN`] and one message of input, one reply and [`QUEUE_MAX`] of output.
//!
//! A connection that ends because of what came on it is shut down for writing behind the reply, and
//! what still comes is thrown away: a client that is busy writing a message that is too long would
//! else meet an error there, and never get to the reply that says so.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};

use mio::net::UnixStream;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::peer::Peer;
use crate::model::request::OpenFile;
use crate::protocol::frame::{Decoder, FrameError, Terminator};

/// Bytes taken from one connection in one turn of the loop.
pub(super) const READ_PER_TURN: usize = 64 * 1024;
/// Bytes of output after which a connection gets no further request handled and no more events.
pub(super) const QUEUE_MAX: usize = 256 * 1024;
/// Bytes thrown away of a connection that is ending; after these it is closed in any case.
const DISCARD_MAX: usize = 16 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    /// The socket.
    pub stream: UnixStream,
    /// Who is at its other end.
    pub peer: Peer,
    /// What it is waiting for.
    pub state: State,
    decoder: Decoder,
    output: Vec<u8>,
    sent: usize,
    /// Descriptors to be passed on, each with the byte of `output` at which its reply begins.
    files: VecDeque<(usize, OpenFile)>,
    /// The client sends no more.
    eof: bool,
    /// There may be more to read than was read.
    more: bool,
    /// The kernel said that the client's end is in sight.
    last: bool,
    /// Bytes thrown away in [`State::Closing`].
    discarded: usize,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The client's next request.
    Idle,
    /// Our answer. With `silent` it wants none.
    Asked { silent: bool },
    /// Our answers to so many requests that are carried out together.
    Together { open: usize },
    /// Events, for ever. `lost`: some did not fit, so the state is due again.
    Subscribed { lost: bool },
    /// The end: what is queued is sent, what comes is thrown away until the client ends it too.
    Closing,
}

impl Client {
    pub(super) fn new(stream: UnixStream, peer: Peer) -> Client {
        let (state, decoder) = (State::Idle, Decoder::default());
        Client {
            stream,
            peer,
            state,
            decoder,
            output: Vec::new(),
            sent: 0,
            files: VecDeque::new(),
            eof: false,
            more: true,
            last: false,
            discarded: 0,
        }
    }

    /// Reads what has arrived, as much as one turn allows, once there is no whole request left of
    /// what was read before. An error ends the connection.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if !self.decoder.is_empty() && !self.is_closing() {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        let mut budget = READ_PER_TURN;
        while self.more && !self.eof && budget > 0 && (self.wants_input() || self.is_closing()) {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.eof = true,
                Ok(length) => {
                    // Less than there was room for was all there is (epoll(7)), but for an end.
                    self.more = self.last || length == buffer.len();
                    if self.is_closing() {
                        self.discarded += length;
                    } else {
                        self.decoder.push(&buffer[..length]);
                    }
                    budget = budget.saturating_sub(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.more = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The kernel says that there is something to read, and whether the end stands behind it.
    pub(super) fn readable(&mut self, last: bool) {
        self.more = true;
        self.last |= last;
    }

    /// The next request, if it is time for one.
    pub(super) fn next_message(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        if !self.wants_input() {
            return None;
        }
        match self.decoder.take().map(|message| message.map(<[u8]>::to_vec)) {
            Ok(None) if self.eof => {
                self.decoder.finish().map(|message| message.map(<[u8]>::to_vec)).transpose()
            }
            taken => taken.transpose(),
        }
    }

    /// Whether a further turn is due without waiting for the kernel.
    pub(super) fn has_work(&self) -> bool {
        let unread = self.more && !self.eof;
        (self.wants_input() && (unread || !self.decoder.is_empty()))
            || (self.is_closing() && unread)
    }

    /// Whether all is said and done on this connection.
    pub(super) fn is_over(&self) -> bool {
        let nothing_queued = self.sent == self.output.len();
        match self.state {
            State::Closing => nothing_queued && (self.eof || self.discarded > DISCARD_MAX),
            State::Idle => self.eof && nothing_queued,
            State::Asked { .. } | State::Together { .. } | State::Subscribed { .. } => false,
        }
    }

    /// Whether an event would be queued beyond the bound.
    pub(super) fn is_full(&self) -> bool {
        self.queued() > QUEUE_MAX
    }

    /// Bytes of output that the client has not read.
    pub(super) fn queued(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Queues what `write` appends and sends what the socket takes. An error ends the connection.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>, Terminator)) -> io::Result<()> {
        self.send_with(None, write)
    }

    /// The same, and a descriptor with it.
    pub(super) fn send_with(
        &mut self,
        file: Option<&OpenFile>,
        write: impl FnOnce(&mut Vec<u8>, Terminator),
    ) -> io::Result<()> {
        let begin = self.output.len();
        self.files.extend(file.map(|file| (begin, file.clone())));
        write(&mut self.output, self.decoder.terminator());
        self.flush()
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            // What stands before a reply with a descriptor goes before it.
            let file = self.files.front().filter(|(begin, _)| *begin == self.sent);
            let next = self.files.get(usize::from(file.is_some())).map(|(begin, _)| *begin);
            let bytes = &self.output[self.sent..next.unwrap_or(self.output.len())];
            match pass(&self.stream, bytes, file.map(|(_, file)| file)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    if file.is_some() {
                        self.files.pop_front();
                    }
                    self.sent += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A large reply is rare; its memory is given back, not kept for the next.
        self.output = Vec::new();
        self.sent = 0;
        if self.is_closing() {
            // A client that is gone already needs no word of it.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Whether requests of it wait to be carried out together.
    pub(super) fn is_gathering(&self) -> bool {
        matches!(self.state, State::Together { .. })
    }

    fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    fn wants_input(&self) -> bool {
        matches!(self.state, State::Idle | State::Together { .. }) && !self.is_full()
    }
}

/// Sends bytes, and a descriptor with the first of them (SCM_RIGHTS, unix(7)).
fn pass(stream: &UnixStream, bytes: &[u8], file: Option<&OpenFile>) -> io::Result<usize> {
    let descriptor = file.map(|file| [file.as_fd().as_raw_fd()]);
    let rights = descriptor.as_ref().map(|descriptor| ControlMessage::ScmRights(descriptor));
    let (bytes, flags) = ([IoSlice::new(bytes)], MsgFlags::MSG_NOSIGNAL);
    Ok(sendmsg::<()>(stream.as_raw_fd(), &bytes, rights.as_slice(), flags, None)?)
}
