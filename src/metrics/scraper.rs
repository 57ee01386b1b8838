//! One scraper: a connection that asks for the metrics, by HTTP.
//!
//! Nothing that a scraper does takes more than its bounds: a head of [`http::HEAD_BYTES_MAX`], an
//! answer that is made in parts of [`PART`], each when the last one is sent, and a time for both.
//! A turn ends with [`Turn::Again`] if it may go on at once.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use socket2::Socket;

use super::numbers::Snapshot;
use super::text::Text;
use crate::model::error::Error;
use crate::protocol::exposition::Format;
use crate::protocol::http::{self, Asked, HEAD_BYTES_MAX, Status};

/// Milliseconds in which a request must be whole, and in which the client must hang up after its
/// answer.
const IDLE_MS: u64 = 5_000;
/// Milliseconds in which an answer must be read to its end.
const ANSWER_MS: u64 = 30_000;
/// Bytes after which a part of an answer ends.
const PART: usize = 32 * 1024;
/// The most bytes that are discarded from a connection that ends. Then it is closed in any case.
const DISCARD_MAX: usize = 64 * 1024;

/// A connection.
#[derive(Debug)]
pub struct Scraper {
    stream: Socket,
    state: State,
    /// When it is closed in any case, in milliseconds of the monotonic clock.
    pub deadline: u64,
}

/// What a connection does.
#[derive(Debug)]
enum State {
    /// It sends its request, of which these bytes have come.
    Asks(Vec<u8>),
    /// Its request is whole, and waits for the numbers.
    Waits(Asked),
    /// It reads the answer.
    Reads(Answer),
    /// The answer is sent, and this many bytes were discarded: a connection that is closed with
    /// unread bytes takes away what the client has not read (RFC 9112, 9.6).
    Ends(usize),
}

/// An answer that is being sent.
#[derive(Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    sent: usize,
    /// What is still to be made, if there is more.
    rest: Option<Text>,
    chunks: bool,
}

/// What becomes of a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It waits for the kernel.
    Waits,
    /// There is more to do.
    Again,
    /// It is over.
    Over,
}

impl Scraper {
    /// A connection that was accepted at `now`.
    pub fn new(stream: Socket, now: u64) -> Scraper {
        Scraper { stream, state: State::Asks(Vec::new()), deadline: now + IDLE_MS }
    }

    /// What is waited for.
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Whether the daemon owes it nothing: its request is not whole, or its answer is sent. The one
    /// with the earliest deadline has been silent for the longest time.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Asks(_) | State::Ends(_))
    }

    /// Its turn. `numbers` are asked for when the request is whole; `None`: they are being read,
    /// and asked for again in the next turn.
    pub fn turn(
        &mut self,
        now: u64,
        numbers: impl FnOnce() -> Option<Result<Rc<Snapshot>, Error>>,
    ) -> Turn {
        let turn = match &mut self.state {
            State::Asks(head) => match read_head(&self.stream, head) {
                Ok(None) => Ok(Turn::Waits),
                Ok(Some(asked)) => {
                    self.deadline = now + ANSWER_MS;
                    self.state = State::Waits(asked);
                    Ok(Turn::Again)
                }
                Err(error) => Err(error),
            },
            State::Waits(asked) => {
                if let Some(answer) = Answer::to(*asked, numbers) {
                    self.state = State::Reads(answer);
                }
                Ok(Turn::Again)
            }
            State::Reads(answer) => match answer.send(&self.stream) {
                Ok(Turn::Over) => {
                    // The client may be gone already.
                    let _ = self.stream.shutdown(Shutdown::Write);
                    self.deadline = now + IDLE_MS;
                    self.state = State::Ends(0);
                    Ok(Turn::Again)
                }
                sent => sent,
            },
            State::Ends(discarded) => discard(&self.stream, discarded),
        };
        turn.unwrap_or(Turn::Over)
    }
}

/// Reads what has come of a request. `None`: it is not whole. An error, also the end of the client,
/// ends the connection.
fn read_head(mut stream: &Socket, head: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    let mut buffer = [0; 1024];
    loop {
        if let Some(asked) = http::read(head) {
            return Ok(Some(asked));
        }
        debug_assert!(head.len() < HEAD_BYTES_MAX);
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => head.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Discards what a client still sends.
fn discard(mut stream: &Socket, discarded: &mut usize) -> io::Result<Turn> {
    let mut buffer = [0; 4096];
    while *discarded < DISCARD_MAX {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Turn::Over),
            Ok(length) => *discarded += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Waits),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Turn::Over)
}

impl Answer {
    /// The answer; `None`: there are no numbers yet.
    fn to(
        asked: Asked,
        numbers: impl FnOnce() -> Option<Result<Rc<Snapshot>, Error>>,
    ) -> Option<Answer> {
        Some(match asked {
            Asked::Refused(status) => Answer::refusal(status),
            Asked::Metrics { format, chunks } => match numbers()? {
                Ok(numbers) => Answer::of(numbers, format, chunks),
                Err(_) => Answer::refusal(Status::Unavailable),
            },
        })
    }

    fn refusal(status: Status) -> Answer {
        let mut answer = Answer::default();
        http::refuse(&mut answer.bytes, status);
        answer
    }

    fn of(numbers: Rc<Snapshot>, format: Format, chunks: bool) -> Answer {
        let rest = Some(Text::new(numbers, format));
        let mut answer = Answer { rest, chunks, ..Answer::default() };
        http::begin(&mut answer.bytes, format, chunks);
        answer
    }

    /// Sends as much as the socket takes of the present part, and makes the next one if all of it
    /// is sent.
    fn send(&mut self, mut stream: &Socket) -> io::Result<Turn> {
        while self.sent < self.bytes.len() {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Waits),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Some(text) = &mut self.rest else { return Ok(Turn::Over) };
        (self.sent, self.bytes) = (0, Vec::new());
        let mut part = Vec::with_capacity(PART + PART / 8);
        let last = text.part(&mut part, PART);
        if self.chunks {
            if !part.is_empty() {
                http::chunk(&mut self.bytes, &part);
            }
            if last {
                http::chunk(&mut self.bytes, b"");
            }
        } else {
            self.bytes = part;
        }
        if last {
            self.rest = None;
        }
        Ok(Turn::Again)
    }
}
