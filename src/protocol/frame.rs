//! Finds the end of each message.
//!
//! The caller pushes bytes as they arrive and takes complete messages out. A message is one JSON
//! object. It ends with the brace that closes it, which is found by counting braces and brackets
//! outside strings. After the brace comes NUL (Varlink) or a newline (scripts). The first
//! terminator on a connection decides how replies on it end. White space, empty lines and extra
//! terminators between messages are skipped, so pretty-printed JSON works, too.
//!
//! Each byte is read once, however the bytes are cut into pieces. Bytes that cannot become a
//! message are an error as soon as that is certain. The error is final: the caller answers it and
//! ends the connection.

use std::fmt;

/// The longest message in bytes, from its first brace to its terminator.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// The deepest nesting of objects and arrays. The message itself is level 1.
pub const DEPTH_MAX: usize = 32;

/// What ends a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminator {
    /// A NUL byte, as Varlink requires.
    Nul,
    /// A newline, for scripts and people.
    #[default]
    Newline,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message does not end within [`MESSAGE_MAX`] bytes.
    TooLong,
    /// Objects and arrays are nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// It does not begin with a brace.
    NotAnObject,
    /// A control character inside a string. JSON forbids this (RFC 8259, 7).
    ControlInString,
    /// NUL before the object was closed.
    Unfinished,
    /// Something other than a terminator after the closing brace.
    NoTerminator,
    /// The connection ended inside a message.
    Truncated,
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a message.
    Between,
    /// Inside the object, outside strings.
    Inside,
    /// Inside a string.
    InString,
    /// After a backslash in a string.
    Escaped,
    /// After the object, before its terminator.
    Closed,
}

/// Finds messages in the bytes of one connection.
///
/// Holds at most one message and the bytes that were pushed with its end. Take all messages before
/// you push more.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// First byte of the message that is being read.
    start: usize,
    /// First byte that has not been looked at.
    next: usize,
    /// One past the brace that closed the message, in [`State::Closed`].
    close: usize,
    state: State,
    depth: usize,
    terminator: Option<Terminator>,
    failed: Option<FrameError>,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            buffer: Vec::new(),
            start: 0,
            next: 0,
            close: 0,
            state: State::Between,
            depth: 0,
            terminator: None,
            failed: None,
        }
    }
}

impl Decoder {
    /// Adds bytes in the order in which they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        // Never more bytes are moved than were taken out. So each byte moves once on average.
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.next -= self.start;
            self.close = self.close.saturating_sub(self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next complete message, without its terminator. `None`: more bytes are needed.
    /// After an error every call gives that error again.
    pub fn take(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while let Some(&byte) = self.buffer.get(self.next) {
            self.next += 1;
            match self.step(byte) {
                Ok(None) => {}
                Ok(Some(terminator)) => return Ok(Some(self.complete(terminator))),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Takes the last message after the end of the stream, which ends it as a newline does.
    pub fn finish(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.state {
            State::Between => Ok(None),
            State::Closed => Ok(Some(self.complete(Terminator::Newline))),
            State::Inside | State::InString | State::Escaped => {
                self.failed = Some(FrameError::Truncated);
                Err(FrameError::Truncated)
            }
        }
    }

    /// Whether every byte that was pushed has been looked at.
    pub fn is_empty(&self) -> bool {
        self.next == self.buffer.len()
    }

    /// The number of bytes that were pushed and belong to no message that was taken.
    pub fn rest(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// How replies on this connection end.
    pub fn terminator(&self) -> Terminator {
        self.terminator.unwrap_or_default()
    }

    /// Looks at one byte; the terminator if it ended a message.
    fn step(&mut self, byte: u8) -> Result<Option<Terminator>, FrameError> {
        if self.state != State::Between && self.next - self.start > MESSAGE_MAX {
            return Err(FrameError::TooLong);
        }
        match self.state {
            State::Between => match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0 => self.start = self.next,
                b'{' => (self.state, self.depth) = (State::Inside, 1),
                _ => return Err(FrameError::NotAnObject),
            },
            State::Inside => self.inside(byte)?,
            State::InString => match byte {
                b'"' => self.state = State::Inside,
                b'\\' => self.state = State::Escaped,
                0..0x20 => return Err(FrameError::ControlInString),
                _ => {}
            },
            State::Escaped => match byte {
                0..0x20 => return Err(FrameError::ControlInString),
                _ => self.state = State::InString,
            },
            State::Closed => match byte {
                0 => return Ok(Some(Terminator::Nul)),
                b'\n' => return Ok(Some(Terminator::Newline)),
                b' ' | b'\t' | b'\r' => {}
                _ => return Err(FrameError::NoTerminator),
            },
        }
        Ok(None)
    }

    /// A byte of the object outside of strings. The JSON parser checks which bracket closes which.
    fn inside(&mut self, byte: u8) -> Result<(), FrameError> {
        match byte {
            b'"' => self.state = State::InString,
            b'{' | b'[' if self.depth == DEPTH_MAX => return Err(FrameError::TooDeep),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    (self.state, self.close) = (State::Closed, self.next);
                }
            }
            0 => return Err(FrameError::Unfinished),
            _ => {}
        }
        Ok(())
    }

    /// Returns the closed message and begins the next.
    fn complete(&mut self, terminator: Terminator) -> &[u8] {
        self.terminator.get_or_insert(terminator);
        let message = self.start..self.close;
        self.start = self.next;
        self.state = State::Between;
        &self.buffer[message]
    }
}

impl Terminator {
    /// The byte itself.
    pub fn byte(self) -> u8 {
        match self {
            Terminator::Nul => 0,
            Terminator::Newline => b'\n',
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong => write!(f, "the message is longer than {MESSAGE_MAX} bytes"),
            FrameError::TooDeep => write!(f, "the message is nested deeper than {DEPTH_MAX}"),
            FrameError::NotAnObject => f.write_str("the message does not begin with {"),
            FrameError::ControlInString => {
                f.write_str("the message has a control character inside a string")
            }
            FrameError::Unfinished => f.write_str("NUL before the end of the message"),
            FrameError::NoTerminator => {
                f.write_str("the message is followed by neither NUL nor a newline")
            }
            FrameError::Truncated => f.write_str("the connection ended inside a message"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::fuzz::messages;

    fn good(bytes: &[u8]) -> (Vec<String>, Terminator) {
        let (found, error, terminator) = messages([bytes]);
        assert_eq!(error, None, "{:?}", String::from_utf8_lossy(bytes));
        let text = |m: Vec<u8>| String::from_utf8(m).unwrap();
        (found.into_iter().map(text).collect(), terminator)
    }

    fn bad(bytes: &[u8]) -> FrameError {
        messages([bytes]).1.expect("an error")
    }

    #[test]
    fn the_first_terminator_decides() {
        assert_eq!(good(b"{}\0{}\n"), (vec!["{}".into(), "{}".into()], Terminator::Nul));
        assert_eq!(good(b"{}\n{}\0"), (vec!["{}".into(), "{}".into()], Terminator::Newline));
        assert_eq!(good(b"\n\n \r\n{}\0"), (vec!["{}".into()], Terminator::Nul));
        assert_eq!(good(b""), (vec![], Terminator::Newline));
    }

    #[test]
    fn the_end_is_found_by_counting_outside_strings() {
        let pretty = "{\n  \"a\": [\n    {\"b\": \"}\\\"]{\"}\n  ]\n}";
        assert_eq!(good(format!("{pretty}\n{{}}\n").as_bytes()).0, [pretty, "{}"]);
        assert_eq!(good(format!("{pretty} \t\r\0").as_bytes()).0, [pretty]);
    }

    #[test]
    fn the_end_of_the_stream_ends_a_complete_message_only() {
        assert_eq!(good(b"{\"a\":1}").0, ["{\"a\":1}"]);
        assert_eq!(bad(b"{\"a\":1"), FrameError::Truncated);
        assert_eq!(bad(b"{\"a"), FrameError::Truncated);
    }

    #[test]
    fn what_is_no_message_is_an_error_at_once() {
        assert_eq!(bad(b"GET / HTTP/1.1\n"), FrameError::NotAnObject);
        assert_eq!(bad(b"[]\n"), FrameError::NotAnObject);
        assert_eq!(bad(b"\xff\xfe\n"), FrameError::NotAnObject);
        assert_eq!(bad(b"{\"a\":\0"), FrameError::Unfinished);
        assert_eq!(bad(b"{\"a\0"), FrameError::ControlInString);
        assert_eq!(bad(b"{\"a\\\n"), FrameError::ControlInString);
        assert_eq!(bad(b"{}{}\n"), FrameError::NoTerminator);
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = Decoder::default();
        decoder.push(b"x");
        assert_eq!(decoder.take(), Err(FrameError::NotAnObject));
        decoder.push(b"{}\n");
        assert_eq!(decoder.take(), Err(FrameError::NotAnObject));
        assert_eq!(decoder.finish(), Err(FrameError::NotAnObject));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}\n", "[".repeat(n), "]".repeat(n));
        assert_eq!(good(nested(DEPTH_MAX - 1).as_bytes()).0.len(), 1);
        assert_eq!(bad(nested(DEPTH_MAX).as_bytes()), FrameError::TooDeep);
    }

    #[test]
    fn length_is_bounded_wherever_the_bytes_stand() {
        let filled = |n: usize| format!("{{\"a\":\"{}\"}}\n", "x".repeat(n - 9));
        assert_eq!(good(filled(MESSAGE_MAX).as_bytes()).0.len(), 1);
        assert_eq!(bad(filled(MESSAGE_MAX + 1).as_bytes()), FrameError::TooLong);
        assert_eq!(bad(format!("{{}}{}", " ".repeat(MESSAGE_MAX)).as_bytes()), FrameError::TooLong);
        // Space between messages is not kept.
        assert_eq!(good(format!("{}{{}}\n", " ".repeat(2 * MESSAGE_MAX)).as_bytes()).0, ["{}"]);
    }

    #[test]
    fn the_buffer_does_not_grow_with_the_messages_that_passed() {
        let mut decoder = Decoder::default();
        for _ in 0..10_000 {
            decoder.push(b"{\"method\":\"io.volnet.List\"}\n");
            assert!(decoder.take().unwrap().is_some());
            assert!(decoder.take().unwrap().is_none());
        }
        assert!(decoder.buffer.capacity() < 1024, "{}", decoder.buffer.capacity());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{}", "{\"a\":1}", "{\"a\":\"\\\"}\"}", "{\n\"b\": [1, {\"c\": 2}]\n}", " ",
                    "{", "}", "\"", "\\", "\n", "\n", "\0", "\r\n", "[", "]", "x",
                ]), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let bytes = parts.concat().into_bytes();
            let whole = messages([&bytes[..]]);
            prop_assert_eq!(&messages(bytes.chunks(1)), &whole);

            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            prop_assert_eq!(&messages(at.windows(2).map(|w| &bytes[w[0]..w[1]])), &whole);
        }
    }
}
