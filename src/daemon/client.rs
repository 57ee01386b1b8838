//! One connection: it reads bytes, finds messages, queues replies and writes bytes.
//!
//! A connection has one request in progress at a time, because replies come in the order of the
//! requests. It may have several if they are carried out together. Later bytes wait, first in our
//! buffer and then in the kernel's. So a client that floods us or never reads slows down only
//! itself. Its memory is bounded: [`READ_PER_TURN`] and one message of input, one reply and
//! [`QUEUE_MAX`] of output, with [`FILES_MAX`] descriptors. A reply with all VMs, or with all
//! metrics, is written in parts, the next one when the last is sent, and events wait until it is
//! whole.
//!
//! If a connection ends because of a bad message, it is shut down for writing after the reply, and
//! later bytes are discarded. Otherwise a client that still writes a message that is too long would
//! get a write error, and never read the reply.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Instant;

use mio::net::UnixStream;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::peer::Peer;
use crate::metrics::numbers::Snapshot;
use crate::metrics::text::Text;
use crate::model::name::VmName;
use crate::model::request::OpenFile;
use crate::model::view::VmView;
use crate::protocol::exposition::Format;
use crate::protocol::frame::{Decoder, FrameError, Terminator};
use crate::protocol::text::TextReply;
use crate::protocol::vms::VmsReply;

/// The most bytes that are read from one connection in one turn of the loop.
pub(super) const READ_PER_TURN: usize = 64 * 1024;
/// If a connection has so many bytes of output, it gets no further request handled and no more
/// events.
pub(super) const QUEUE_MAX: usize = 256 * 1024;
/// The most bytes that are discarded from a connection that ends. Then it is closed in any case.
const DISCARD_MAX: usize = 16 << 20;
/// Bytes that nearly all replies have room in.
const REPLY: usize = 2 * 1024;
/// The most descriptors that root may send and that wait for their message. More are closed.
const FILES_MAX: usize = volnet_ffi::socket::DESCRIPTORS_MAX;
/// Bytes of output for which a connection keeps memory.
const OUTPUT_KEPT: usize = 4 * 1024;
/// Bytes after which a part of a reply with all VMs ends, with the VM that reaches them.
pub(super) const PART: usize = 32 * 1024;
/// Bytes that the numbers of a VM take, about.
const NUMBERS: usize = 512;

/// A connection.
#[derive(Debug)]
pub(super) struct Client {
    /// The socket.
    pub stream: UnixStream,
    /// Its peer.
    pub peer: Peer,
    /// Its state.
    pub state: State,
    decoder: Decoder,
    /// The number of bytes that were read.
    received: u64,
    /// Descriptors that were sent to us, each with the number of bytes that were read with it. It
    /// belongs to the message that the last of these bytes is in.
    given: VecDeque<(u64, OpenFile)>,
    output: Vec<u8>,
    sent: usize,
    /// The reply with all VMs that is being sent.
    listing: Option<Listing>,
    /// Descriptors to be passed on, each with the byte of `output` at which its reply begins.
    files: VecDeque<(usize, OpenFile)>,
    /// The client has ended its side.
    eof: bool,
    /// There may be more bytes to read.
    more: bool,
    /// The kernel reported the end of the client's side.
    last: bool,
    /// The discarded bytes in [`State::Closing`].
    discarded: usize,
    /// The methods of the requests that are not answered, and when each was read.
    asked: VecDeque<(&'static str, Instant)>,
}

/// A message, and the descriptors that were sent with it.
pub(super) type GivenMessage = (Vec<u8>, Vec<OpenFile>);

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for the client's next request.
    Idle,
    /// It waits for our answer. With `silent` it wants none.
    Asked { silent: bool },
    /// It waits for our answers to this many requests, which are carried out together.
    Together { open: usize },
    /// It waits for one answer more for each of so many VMs, which one call makes.
    Many { open: u16 },
    /// It gets events. `lost`: some did not fit, so it must get the state again.
    Subscribed { lost: bool },
    /// It ends: the queue is sent, and input is discarded until the client ends, too.
    Closing,
}

/// A reply that is sent in parts.
#[derive(Debug)]
struct Listing {
    what: Listed,
    /// Whether more replies to the same call follow it.
    continues: bool,
    /// The replies that come after it.
    after: Vec<u8>,
}

/// What such a reply has, as far as it is not written.
#[derive(Debug)]
enum Listed {
    /// All VMs.
    Vms(VmsReply),
    /// What they have used.
    Usage(VmsReply, Rc<Snapshot>),
    /// All numbers as a text.
    Metrics(TextReply, Text),
}

impl State {
    /// One more answer is there: whether others to the same call follow it, and whether the client
    /// wants none. `None`: it does not wait for any.
    pub(super) fn answer(&mut self) -> Option<(bool, bool)> {
        let (next, continues, silent) = match *self {
            State::Asked { silent } => (State::Idle, false, silent),
            State::Together { open: 0 | 1 } => (State::Idle, false, false),
            State::Together { open } => (State::Together { open: open - 1 }, false, false),
            State::Many { open: 0 | 1 } => (State::Idle, false, false),
            State::Many { open } => (State::Many { open: open - 1 }, true, false),
            subscribed @ State::Subscribed { .. } => (subscribed, true, false),
            State::Idle | State::Closing => return None,
        };
        *self = next;
        Some((continues, silent))
    }
}

impl Client {
    pub(super) fn new(stream: UnixStream, peer: Peer) -> Client {
        let (state, decoder) = (State::Idle, Decoder::default());
        Client {
            stream,
            peer,
            state,
            decoder,
            received: 0,
            given: VecDeque::new(),
            output: Vec::new(),
            sent: 0,
            listing: None,
            files: VecDeque::new(),
            eof: false,
            more: true,
            last: false,
            discarded: 0,
            asked: VecDeque::new(),
        }
    }

    /// A request of this method has begun.
    pub(super) fn asks(&mut self, method: &'static str) {
        self.asked.push_back((method, Instant::now()));
    }

    /// A request is answered: its method, and how many microseconds that took. `None` if the answer
    /// is one more to the same request.
    pub(super) fn answered(&mut self) -> Option<(&'static str, u64)> {
        let (method, since) = self.asked.pop_front()?;
        Some((method, since.elapsed().as_micros() as u64))
    }

    /// Reads the bytes that have arrived, as many as one turn allows, if no complete request is
    /// left of the earlier bytes. An error ends the connection.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if !self.decoder.is_empty() && !self.is_closing() {
            return Ok(());
        }
        let mut buffer = [0; 16 * 1024];
        let mut budget = READ_PER_TURN;
        while self.more && !self.eof && budget > 0 && (self.wants_input() || self.is_closing()) {
            match self.receive(&mut buffer) {
                Ok((0, _)) => self.eof = true,
                Ok((length, with_files)) => {
                    // A short read means that there is no more (epoll(7)), except for the end, and
                    // for what follows a descriptor.
                    self.more = self.last || with_files || length == buffer.len();
                    self.received += length as u64;
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

    /// Reads once, and says whether descriptors came with the bytes. Those of root alone are taken.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        if !self.peer.is_root {
            return Ok((self.stream.read(buffer)?, false));
        }
        let (length, files) = volnet_ffi::socket::receive(self.stream.as_fd(), buffer)?;
        let end = self.received + length as u64;
        let with_files = !files.is_empty();
        let room = FILES_MAX.saturating_sub(self.given.len());
        let files = files.into_iter().take(room).map(|file| (end, file.into()));
        self.given.extend(files);
        Ok((length, with_files))
    }

    /// The descriptors that belong to the message that was just taken.
    fn files(&mut self) -> Vec<OpenFile> {
        let end = self.received - self.decoder.rest() as u64;
        let count = self.given.iter().take_while(|(at, _)| *at <= end).count();
        self.given.drain(..count).map(|(_, file)| file).collect()
    }

    /// The kernel reports bytes to read, and whether the end comes after them.
    pub(super) fn readable(&mut self, last: bool) {
        self.more = true;
        self.last |= last;
    }

    /// The next request, if the client may have one handled, and the descriptors that belong to it.
    pub(super) fn next_message(&mut self) -> Option<Result<GivenMessage, FrameError>> {
        if !self.wants_input() {
            return None;
        }
        let taken = match self.decoder.take().map(|message| message.map(<[u8]>::to_vec)) {
            Ok(None) if self.eof => {
                self.decoder.finish().map(|message| message.map(<[u8]>::to_vec)).transpose()
            }
            taken => taken.transpose(),
        };
        Some(taken?.map(|message| (message, self.files())))
    }

    /// Whether the client needs another turn without an event from the kernel.
    pub(super) fn has_work(&self) -> bool {
        let unread = self.more && !self.eof;
        (self.wants_input() && (unread || !self.decoder.is_empty()))
            || (self.is_closing() && unread)
            || (self.is_listing() && self.is_sent())
    }

    /// Whether this connection is finished.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Closing => self.is_sent() && (self.eof || self.discarded > DISCARD_MAX),
            // A client may end its side before its requests are handled.
            State::Idle => {
                self.eof && self.decoder.is_empty() && self.is_sent() && !self.is_listing()
            }
            State::Asked { .. }
            | State::Together { .. }
            | State::Many { .. }
            | State::Subscribed { .. } => false,
        }
    }

    /// Whether the queue has no room for an event.
    pub(super) fn is_full(&self) -> bool {
        self.queued() > QUEUE_MAX
    }

    /// Bytes of output that the client has not read, and that it has us keep.
    pub(super) fn queued(&self) -> usize {
        let listing = self.listing.as_ref().map_or(0, Listing::bytes);
        self.output.len() - self.sent + listing
    }

    /// Begins a reply with all VMs; [`Client::list`] writes it. `continues`: more replies to the
    /// same call follow.
    pub(super) fn begin_listing(&mut self, continues: bool) {
        self.begin(Listed::Vms(VmsReply::default()), continues);
    }

    /// The same with what all VMs have used, at this time in milliseconds.
    pub(super) fn begin_usage(&mut self, at_ms: u64, numbers: Rc<Snapshot>) {
        self.begin(Listed::Usage(VmsReply::usage(at_ms), numbers), false);
    }

    /// The same with the text of these numbers.
    pub(super) fn begin_metrics(&mut self, numbers: Rc<Snapshot>) {
        let text = Text::new(numbers, Format::OpenMetrics);
        self.begin(Listed::Metrics(TextReply::default(), text), false);
    }

    fn begin(&mut self, what: Listed, continues: bool) {
        self.listing = Some(Listing { what, continues, after: Vec::new() });
    }

    /// Whether a reply of this kind is not yet written to its end.
    pub(super) fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// Sends the next part of it, if the last one is sent. `vms` gives the VMs after one, or all.
    pub(super) fn list<I>(&mut self, vms: impl FnOnce(Option<&VmName>) -> I) -> io::Result<()>
    where
        I: Iterator<Item = VmView>,
    {
        if !self.is_sent() {
            return Ok(());
        }
        let Some(listing) = &mut self.listing else { return Ok(()) };
        self.output.reserve(PART);
        if listing.what.part(&mut self.output, vms) {
            let Listing { what, continues, mut after } = self.listing.take().expect("it is there");
            what.end(&mut self.output, continues, self.decoder.terminator());
            self.output.append(&mut after);
        }
        self.flush()
    }

    /// Queues the bytes that `write` appends, and sends what the socket accepts. They come after a
    /// reply with all VMs that is not whole. An error ends the connection.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>, Terminator)) -> io::Result<()> {
        self.send_with(None, write)
    }

    /// The same, with a descriptor.
    pub(super) fn send_with(
        &mut self,
        file: Option<&OpenFile>,
        write: impl FnOnce(&mut Vec<u8>, Terminator),
    ) -> io::Result<()> {
        if let Some(listing) = &mut self.listing {
            debug_assert!(file.is_none(), "only a subscriber gets replies during a list");
            write(&mut listing.after, self.decoder.terminator());
            return Ok(());
        }
        let begin = self.output.len();
        self.output.reserve(REPLY);
        self.files.extend(file.map(|file| (begin, file.clone())));
        write(&mut self.output, self.decoder.terminator());
        self.flush()
    }

    /// Sends the queue, as far as the socket accepts it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            // The bytes before a reply with a descriptor are sent first.
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
        // A large reply is rare. Its memory is freed.
        match self.is_listing() || self.output.capacity() <= OUTPUT_KEPT {
            true => self.output.clear(),
            false => self.output = Vec::new(),
        }
        self.sent = 0;
        if self.is_closing() {
            // The client may be gone already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Whether it has requests that wait to be carried out together.
    pub(super) fn is_gathering(&self) -> bool {
        matches!(self.state, State::Together { .. })
    }

    /// Whether the socket has taken all output that there is.
    fn is_sent(&self) -> bool {
        self.sent == self.output.len()
    }

    fn is_closing(&self) -> bool {
        self.state == State::Closing
    }

    fn wants_input(&self) -> bool {
        matches!(self.state, State::Idle | State::Together { .. })
            && !self.is_full()
            && !self.is_listing()
    }
}

impl Listing {
    /// Bytes that are kept for it. Others may keep the same numbers, but need not.
    fn bytes(&self) -> usize {
        let vms = match &self.what {
            Listed::Vms(_) => 0,
            Listed::Usage(_, numbers) => numbers.vms.len(),
            Listed::Metrics(_, text) => text.vms(),
        };
        self.after.len() + vms * NUMBERS
    }
}

impl Listed {
    /// Appends the next part. Returns whether it was the last one.
    fn part<I>(&mut self, out: &mut Vec<u8>, vms: impl FnOnce(Option<&VmName>) -> I) -> bool
    where
        I: Iterator<Item = VmView>,
    {
        match self {
            Listed::Vms(reply) => {
                let vms = vms(reply.last());
                reply.part(out, vms, PART)
            }
            Listed::Usage(reply, numbers) => {
                let last = reply.last().cloned();
                reply.part(out, numbers.usage_after(last.as_ref()), PART)
            }
            Listed::Metrics(reply, text) => {
                let mut part = Vec::with_capacity(PART);
                let is_last = text.part(&mut part, PART);
                reply.part(&String::from_utf8_lossy(&part), out);
                is_last
            }
        }
    }

    fn end(self, out: &mut Vec<u8>, continues: bool, end: Terminator) {
        match self {
            Listed::Vms(reply) | Listed::Usage(reply, _) => reply.end(out, continues, end),
            Listed::Metrics(reply, _) => reply.end(out, end),
        }
    }
}

/// Sends bytes, and a descriptor with the first of them (SCM_RIGHTS, unix(7)).
fn pass(stream: &UnixStream, bytes: &[u8], file: Option<&OpenFile>) -> io::Result<usize> {
    let descriptor = file.map(|file| [file.as_fd().as_raw_fd()]);
    let rights = descriptor.as_ref().map(|descriptor| ControlMessage::ScmRights(descriptor));
    let (bytes, flags) = ([IoSlice::new(bytes)], MsgFlags::MSG_NOSIGNAL);
    Ok(sendmsg::<()>(stream.as_raw_fd(), &bytes, rights.as_slice(), flags, None)?)
}
