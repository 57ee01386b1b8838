//! The request socket of rtnetlink and nf_tables (netlink(7)).
//!
//! The kernel executes a request inside `send`, and the answer is in the receive queue when `send`
//! returns. So a request is a plain call: write, send once, read until every acknowledgement is
//! there. It never waits: if the queue is empty before the last acknowledgement, the kernel sent
//! none, which is an error.
//!
//! Received bytes are checked: the sender must be the kernel (port 0), the datagram must be
//! complete, and the sequence number must belong to this request. Answers to an earlier request
//! that was given up are skipped, up to a bound.
//!
//! Writing and reading allocate nothing once the buffers have grown. An error allocates its text.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use neli::consts::nl::Nlmsg;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname,
    recvmsg, send, setsockopt, socket, sockopt,
};
use volnet_ffi::socket::{NetlinkOption, enable};

use crate::model::error::{Failure, KernelOutcome, Reason};
use crate::netlink;
use crate::netlink::message::{DUMP_INTR, Message, Messages};
use crate::netlink::writer::{SEND_MAX, Sequence, Writer};

/// The most acknowledged messages of one send. The answers to more would overrun the receive queue,
/// and then it is not known which message failed.
pub const ACKS_MAX: u32 = 128;
/// Bytes of the largest datagram: the kernel fills a dump up to 32 KiB (net/netlink/af_netlink.c,
/// `netlink_dump`).
pub const DATAGRAM_MAX: usize = 32 * 1024;
/// Bytes of the receive queue: the answers to the largest batch, each an error with text.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// Bytes of the send queue: the largest batch, with the kernel's accounting on top.
const SEND_BUFFER: usize = 2 * SEND_MAX;
/// How often a dump is tried if links change meanwhile and the result must be complete.
const DUMPS_MAX: usize = 16;
/// The same if objects may be missing, or can be asked for in another way: each try costs time,
/// above all if others keep the kernel busy.
pub const DUMPS_TO_LAST: usize = 4;
/// How many messages of earlier requests are skipped before the answer to this one.
const FOREIGN_MAX: usize = 1024;

/// The netlink family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkFamily {
    /// rtnetlink: links, addresses, routes, neighbours.
    Route,
    /// nfnetlink: nf_tables, conntrack.
    Netfilter,
}

/// A socket for requests. It is kept for the life of its owner: some objects in the kernel (a table
/// with an owner) depend on it, and closing it can block.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: Sequence,
    writer: Writer,
    buffer: Box<[u8]>,
}

/// The reason why a request was not done, or only in part.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused the message with this number (the first is 0), with this text, if any.
    Refused { index: u32, errno: i32, words: Option<String> },
    /// A call failed before the kernel began the request.
    Io(io::Error),
    /// The request does not fit a message; nothing was sent.
    Unsendable(netlink::Error),
    /// The answer could not be received.
    Unheard(io::Error),
    /// The answer is not well-formed.
    Codec(netlink::Error),
    /// A datagram was longer than any that the kernel should send.
    Truncated,
    /// The queue became empty, or had too many other answers, before the answer came.
    Silent,
    /// Objects changed during every dump.
    Unsettled,
}

/// The result of a dump.
#[derive(Debug)]
pub struct Dumped<T> {
    /// The objects, in the kernel's order.
    pub items: Vec<T>,
    /// No object changed during the dump.
    pub whole: bool,
}

/// The state of reading answers.
struct AnswerReader {
    first: u32,
    messages: u32,
    acks: u32,
    foreign: usize,
    error: Option<Error>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(family: NetlinkFamily) -> io::Result<Socket> {
        let fd = open(family)?;
        enable(fd.as_fd(), NetlinkOption::CapAck)?;
        enable(fd.as_fd(), NetlinkOption::ExtAck)?;
        enable(fd.as_fd(), NetlinkOption::StrictCheck)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER)?;
        Ok(Socket {
            fd,
            sequence: Sequence::new(1),
            writer: Writer::new(),
            buffer: vec![0; DATAGRAM_MAX].into(),
        })
    }

    /// Takes a socket of rtnetlink that somebody else has opened and has not used.
    pub fn taken_over(fd: OwnedFd) -> io::Result<Socket> {
        enable(fd.as_fd(), NetlinkOption::CapAck)?;
        enable(fd.as_fd(), NetlinkOption::ExtAck)?;
        Ok(Socket {
            fd,
            sequence: Sequence::new(1),
            writer: Writer::new(),
            buffer: vec![0; DATAGRAM_MAX].into(),
        })
    }

    /// The port by which the kernel knows this socket.
    pub fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.fd.as_raw_fd())?.pid())
    }

    /// Sends the messages that `build` writes, and reads the answers. `acks` is the number of
    /// acknowledgements on success: one per message that asks for it, at most [`ACKS_MAX`]. The
    /// error is that of the first message that the kernel refused. The other messages of a plain
    /// request are still done; those of an nf_tables batch are not.
    pub fn request(
        &mut self,
        acks: u32,
        build: impl FnOnce(&mut Writer, &mut Sequence),
    ) -> Result<(), Error> {
        self.request_and(acks, build, |_| Ok(()))
    }

    /// As [`Socket::request`], and passes the messages before an acknowledgement to `each`: the
    /// requested object, or an echo of the new one.
    pub fn request_and(
        &mut self,
        acks: u32,
        build: impl FnOnce(&mut Writer, &mut Sequence),
        mut each: impl FnMut(&Message<'_>) -> Result<(), netlink::Error>,
    ) -> Result<(), Error> {
        debug_assert!((1..=ACKS_MAX).contains(&acks), "the queue holds the answers");
        let mut answers = self.send(build)?;
        self.read_acks(acks, &mut answers, &mut each)?;
        answers.error.map_or(Ok(()), Err)
    }

    /// Runs the dump that `build` requests, and returns the objects that `read` makes from its
    /// messages. If objects changed during the dump, it may lack unchanged ones, so it is tried
    /// again, up to a bound.
    pub fn dump<T>(
        &mut self,
        build: impl Fn(&mut Writer, u32),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, netlink::Error>,
    ) -> Result<Vec<T>, Error> {
        let last = self.dump_until(DUMPS_MAX, build, read)?;
        if last.whole { Ok(last.items) } else { Err(Error::Unsettled) }
    }

    /// As [`Socket::dump`], but if objects changed during every dump, returns the last one. It is
    /// for objects that may be missing.
    pub fn dump_or_last<T>(
        &mut self,
        build: impl Fn(&mut Writer, u32),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, netlink::Error>,
    ) -> Result<Dumped<T>, Error> {
        self.dump_until(DUMPS_TO_LAST, build, read)
    }

    fn dump_until<T>(
        &mut self,
        most: usize,
        build: impl Fn(&mut Writer, u32),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, netlink::Error>,
    ) -> Result<Dumped<T>, Error> {
        for _ in 1..most {
            match self.dump_once(&build, &read) {
                Ok(dumped) if !dumped.whole => {}
                Err(Error::Unheard(_)) => {}
                ended => return ended,
            }
        }
        self.dump_once(build, read)
    }

    /// Runs a dump once.
    pub fn dump_once<T>(
        &mut self,
        build: impl Fn(&mut Writer, u32),
        read: impl Fn(&Message<'_>) -> Result<Option<T>, netlink::Error>,
    ) -> Result<Dumped<T>, Error> {
        let mut items = Vec::new();
        let mut answers = self.send(|writer, sequence| build(writer, sequence.take()))?;
        let interrupted = self.read_dump(&mut answers, &mut |message| {
            items.extend(read(message)?);
            Ok(())
        })?;
        match answers.error {
            Some(error) => Err(error),
            None => Ok(Dumped { items, whole: !interrupted }),
        }
    }

    /// Writes and sends a request.
    fn send(
        &mut self,
        build: impl FnOnce(&mut Writer, &mut Sequence),
    ) -> Result<AnswerReader, Error> {
        let mut before = self.sequence.clone();
        self.writer.clear();
        build(&mut self.writer, &mut self.sequence);
        let bytes = self.writer.finish().map_err(Error::Unsendable)?;
        send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from)?;
        let messages = self.sequence.since(&before);
        Ok(AnswerReader { first: before.take(), messages, acks: 0, foreign: 0, error: None })
    }

    /// Reads until all acknowledgements are there, of which an error is one. After an error of a
    /// batch, of which not each message has an answer, it reads until the queue is empty: there may
    /// be any number of errors.
    fn read_acks(
        &mut self,
        acks: u32,
        answers: &mut AnswerReader,
        each: &mut dyn FnMut(&Message<'_>) -> Result<(), netlink::Error>,
    ) -> Result<(), Error> {
        let is_batch = acks != answers.messages;
        while answers.acks < acks || (is_batch && answers.error.is_some()) {
            let Some(datagram) = receive(&self.fd, &mut self.buffer)? else {
                return if answers.error.is_some() { Ok(()) } else { Err(Error::Silent) };
            };
            for message in Messages::new(datagram) {
                let message = message?;
                if !answers.own(&message)? {
                    continue;
                }
                match Nlmsg::from(message.kind) {
                    Nlmsg::Error => answers.take(&message)?,
                    _ => answers.keep(each(&message)),
                }
            }
        }
        Ok(())
    }

    /// Reads until the dump ends, even after an error: the kernel begins no other dump before.
    /// Returns whether objects changed during the dump.
    fn read_dump(
        &mut self,
        answers: &mut AnswerReader,
        each: &mut dyn FnMut(&Message<'_>) -> Result<(), netlink::Error>,
    ) -> Result<bool, Error> {
        let mut interrupted = false;
        loop {
            let datagram = match receive(&self.fd, &mut self.buffer) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(answers.error.take().unwrap_or(Error::Silent)),
                Err(error) => {
                    answers.pass_over()?;
                    answers.error.get_or_insert(error);
                    continue;
                }
            };
            for message in Messages::new(datagram) {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        answers.keep(Err(error));
                        break;
                    }
                };
                if !answers.own(&message)? {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTR != 0;
                match Nlmsg::from(message.kind) {
                    Nlmsg::Done | Nlmsg::Error => {
                        answers.take(&message)?;
                        return Ok(interrupted);
                    }
                    _ => answers.keep(each(&message)),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AnswerReader {
    /// Whether the message answers this request.
    fn own(&mut self, message: &Message<'_>) -> Result<bool, Error> {
        if message.sequence.wrapping_sub(self.first) < self.messages {
            return Ok(true);
        }
        self.pass_over()?;
        Ok(false)
    }

    /// Counts a message or a datagram that is not about this request.
    fn pass_over(&mut self) -> Result<(), Error> {
        self.foreign += 1;
        if self.foreign > FOREIGN_MAX { Err(Error::Silent) } else { Ok(()) }
    }

    /// Takes an acknowledgement or an error; the first error stays.
    fn take(&mut self, message: &Message<'_>) -> Result<(), Error> {
        let answer = message.answer()?;
        self.acks += 1;
        if answer.errno != 0 {
            let index = message.sequence.wrapping_sub(self.first);
            let words = answer.words.map(str::to_owned);
            self.error.get_or_insert(Error::Refused { index, errno: answer.errno, words });
        }
        Ok(())
    }

    /// Keeps the error of a reader, if it is the first.
    fn keep(&mut self, read: Result<(), netlink::Error>) {
        if let Err(error) = read {
            self.error.get_or_insert(Error::Codec(error));
        }
    }
}

impl Error {
    /// A refusal with our text, for cases in which the kernel's text says too little.
    pub fn refused(errno: i32, words: String) -> Error {
        Error::Refused { index: 0, errno, words: Some(words) }
    }

    /// The errno, if the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Io(error) => error.raw_os_error(),
            Error::Unsendable(_) => None,
            Error::Unheard(_)
            | Error::Codec(_)
            | Error::Truncated
            | Error::Silent
            | Error::Unsettled => None,
        }
    }

    /// Whether the kernel may have executed the request: it was sent, and the kernel executes it
    /// inside `send`.
    pub fn is_unknown(&self) -> bool {
        match self {
            Error::Refused { .. } | Error::Io(_) | Error::Unsendable(_) => false,
            Error::Unheard(_)
            | Error::Codec(_)
            | Error::Truncated
            | Error::Silent
            | Error::Unsettled => true,
        }
    }

    /// The failure in words: the operation, its object, and the kernel's own text if there is one.
    /// An error of the conversation itself is shown as EPROTO.
    pub fn failure(self, operation: &'static str, object: impl Into<String>) -> Failure {
        let object = object.into();
        let refused = |object, error: &io::Error| match error.raw_os_error() {
            Some(errno) => Failure::refused(operation, object, reason(errno), error),
            None => Failure::kernel(operation, object, error),
        };
        let message = match self {
            Error::Refused { errno, words: None, .. } => {
                return refused(object, &io::Error::from_raw_os_error(errno));
            }
            Error::Io(error) => return refused(object, &error),
            Error::Refused { errno, words: Some(message), .. } => {
                let outcome = KernelOutcome::Refused(reason(errno));
                return Failure::Kernel { operation, object, outcome, errno, message };
            }
            Error::Unsendable(error) => {
                let (outcome, errno) = (KernelOutcome::Refused(Reason::Invalid), libc::EMSGSIZE);
                let message = error.to_string();
                return Failure::Kernel { operation, object, outcome, errno, message };
            }
            Error::Unheard(error) => format!("the kernel's answer cannot be received: {error}"),
            Error::Codec(error) => error.to_string(),
            Error::Truncated => "the kernel's answer is longer than expected".into(),
            Error::Silent => "the kernel gave no answer".into(),
            Error::Unsettled => "the kernel's state changes faster than it can be read".into(),
        };
        let (outcome, errno) = (KernelOutcome::Unknown, libc::EPROTO);
        Failure::Kernel { operation, object, outcome, errno, message }
    }
}

/// Why the kernel refused something.
pub fn reason(errno: i32) -> Reason {
    match errno {
        libc::ENODEV => Reason::NoLink,
        libc::EXFULL => Reason::Full,
        libc::ERANGE => Reason::OutOfRange,
        libc::ELOOP => Reason::Loop,
        errno => Reason::of(io::Error::from_raw_os_error(errno).kind()),
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        Error::Codec(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

/// Opens and binds a socket. An unbound one never receives multicast.
pub fn open(family: NetlinkFamily) -> io::Result<OwnedFd> {
    let protocol = match family {
        NetlinkFamily::Route => SockProtocol::NetlinkRoute,
        NetlinkFamily::Netfilter => SockProtocol::NetlinkNetFilter,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(fd)
}

/// Receives one complete datagram from the kernel; `None` if the queue is empty. Datagrams from
/// other senders are dropped.
pub fn receive<'a>(fd: &OwnedFd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
    for _ in 0..FOREIGN_MAX {
        let mut into = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = match recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut into, None, flags) {
            Ok(received) => received,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(errno) => return Err(Error::Unheard(errno.into())),
        };
        let (length, cut) = (received.bytes, received.flags.contains(MsgFlags::MSG_TRUNC));
        if received.address.is_none_or(|sender| sender.pid() != 0) {
            continue;
        }
        return if cut { Err(Error::Truncated) } else { Ok(Some(&buffer[..length])) };
    }
    Err(Error::Silent)
}
