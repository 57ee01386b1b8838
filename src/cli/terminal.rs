//! The terminal of the user: keys as they are pressed, a screen of our own, and both taken back.
//!
//! However a verb ends (a key, a signal, an error, a panic), the terminal is as it was before.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::low_level::pipe;

/// Another screen, without a cursor; and back (xterm's control sequences, which all terminals of
/// today have).
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// Rows and columns of a terminal that does not say its size.
const SIZE_DEFAULT: (usize, usize) = (24, 80);

/// A stream that becomes readable when a signal asks for the end.
pub(super) fn endings() -> io::Result<UnixStream> {
    signals(&[SIGHUP, SIGINT, SIGTERM])
}

fn signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in signals {
        pipe::register(*signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// The terminal in raw mode, until this is dropped.
pub(super) struct Raw(Option<Termios>);

impl Raw {
    /// Nothing is changed if standard input is not a terminal.
    pub(super) fn enter() -> io::Result<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw(None));
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
        Ok(Raw(Some(before)))
    }

    /// Whether there is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // If the terminal is gone, nothing else can be done.
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, before);
        }
    }
}

/// Waits until one of these is readable, at most `timeout`, and returns which are.
pub(super) fn ready(fds: &[BorrowedFd<'_>], timeout: PollTimeout) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
        Err(nix::Error::EINTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// The whole terminal, for a picture that changes, until this is dropped.
pub(super) struct Screen {
    raw: Raw,
    ends: UnixStream,
    resized: UnixStream,
    /// What was typed and is not taken yet.
    typed: Vec<u8>,
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The time is over, or the terminal has another size.
    Time,
    /// The source has something to read.
    Source,
    /// This key was pressed.
    Key(Key),
    /// A signal or the end of the input.
    End,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(u8),
    Up,
    Down,
    PageUp,
    PageDown,
}

/// How the terminal was, for a panic: nothing is dropped then.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

impl Screen {
    /// Takes the terminal; `None` if standard input or output is none.
    pub(super) fn open() -> io::Result<Option<Screen>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let (ends, resized) = (endings()?, signals(&[SIGWINCH])?);
        let raw = Raw::enter()?;
        if let Ok(mut before) = BEFORE.lock() {
            before.clone_from(&raw.0);
        }
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            restore();
            report(about);
        }));
        let screen = Screen { raw, ends, resized, typed: Vec::new() };
        write(OPEN)?;
        Ok(Some(screen))
    }

    /// Rows and columns.
    pub(super) fn size(&self) -> (usize, usize) {
        match volnet_ffi::terminal::size(io::stdout().as_fd()) {
            Ok((rows, columns)) if rows > 0 && columns > 0 => (rows.into(), columns.into()),
            Ok(_) | Err(_) => SIZE_DEFAULT,
        }
    }

    /// Shows these lines, which fit the screen. Each replaces the one before it in its place, and
    /// all are written at once: nothing flickers.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut picture = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            picture.push_str(if at == 0 { "" } else { "\r\n" });
            picture.push_str(line);
            picture.push_str("\x1b[K");
        }
        picture.push_str("\x1b[J");
        write(&picture)
    }

    /// Waits for a key, a signal or the source, at most so many milliseconds.
    pub(super) fn wait(&mut self, source: Option<BorrowedFd<'_>>, ms: u64) -> io::Result<Waited> {
        let stdin = io::stdin();
        if !self.typed.is_empty() {
            return Ok(key(&mut self.typed).map_or(Waited::Time, Waited::Key));
        }
        let mut fds = vec![stdin.as_fd(), self.ends.as_fd(), self.resized.as_fd()];
        fds.extend(source);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        let ready = ready(&fds, timeout)?;
        if ready[1] {
            return Ok(Waited::End);
        }
        if ready[2] {
            let _ = nix::unistd::read(&self.resized, &mut [0; 64]);
            return Ok(Waited::Time);
        }
        if ready[0] {
            let mut bytes = [0; 64];
            let length = nix::unistd::read(&stdin, &mut bytes)?;
            self.typed.extend(&bytes[..length]);
            return Ok(match length {
                0 => Waited::End,
                _ => key(&mut self.typed).map_or(Waited::Time, Waited::Key),
            });
        }
        Ok(if ready.get(3) == Some(&true) { Waited::Source } else { Waited::Time })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        debug_assert!(self.raw.is_terminal());
        let _ = write(CLOSE);
    }
}

/// Gives the terminal back in the middle of something.
fn restore() {
    let _ = write(CLOSE);
    if let Ok(before) = BEFORE.try_lock() {
        if let Some(before) = &*before {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, before);
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Takes the first key out of what was typed; `None` for a key that has no meaning here.
fn key(typed: &mut Vec<u8>) -> Option<Key> {
    let length = match typed[..] {
        // ECMA-48: up to a byte in this range.
        [b'\x1b', b'[', ref rest @ ..] => {
            let last = rest.iter().position(|byte| matches!(byte, b'@'..=b'~'));
            last.map_or(typed.len(), |at| at + 3)
        }
        [b'\x1b', b'O', _, ..] => 3,
        _ => 1.min(typed.len()),
    };
    let bytes: Vec<u8> = typed.drain(..length).collect();
    match bytes[..] {
        [b'\x1b', b'[' | b'O', b'A'] => Some(Key::Up),
        [b'\x1b', b'[' | b'O', b'B'] => Some(Key::Down),
        [b'\x1b', b'[', b'5', b'~'] => Some(Key::PageUp),
        [b'\x1b', b'[', b'6', b'~'] => Some(Key::PageDown),
        [byte] => Some(Key::Char(byte)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let mut typed = b"q\x1b[A\x1bOB\x1b[6~\x1b[200~\x03\x1b[5~".to_vec();
        let mut keys = Vec::new();
        while !typed.is_empty() {
            keys.extend(key(&mut typed));
        }
        let (quit, interrupt) = (Key::Char(b'q'), Key::Char(3));
        assert_eq!(keys, [quit, Key::Up, Key::Down, Key::PageDown, interrupt, Key::PageUp]);
        for cut in ["\x1b", "\x1b[", "\x1b[5", "\x1bO"] {
            let mut typed = cut.as_bytes().to_vec();
            while !typed.is_empty() {
                key(&mut typed);
            }
        }
    }
}
