//! The terminal of the user: keys as they are pressed, a screen of our own, and both taken back.
//!
//! However a verb ends (a key, a signal, an error, a panic), the terminal is as it was before.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic;
use std::sync::Mutex;
use std::time::Instant;

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

/// Waits until one of these is ready for what is wanted of it, at most `timeout`, and returns for
/// what each is: nothing if the time is over or a signal came.
pub(super) fn ready<const N: usize>(
    wanted: [(Option<BorrowedFd<'_>>, PollFlags); N],
    timeout: PollTimeout,
) -> io::Result<[PollFlags; N]> {
    let poll_fd = |(fd, events): &(Option<_>, _)| fd.map(|fd| PollFd::new(fd, *events));
    let mut fds: Vec<PollFd> = wanted.iter().filter_map(poll_fd).collect();
    match poll(&mut fds, timeout) {
        Ok(_) => {}
        Err(nix::Error::EINTR) => return Ok([PollFlags::empty(); N]),
        Err(error) => return Err(error.into()),
    }
    let mut events = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLIN));
    Ok(wanted.map(|(fd, _)| fd.and_then(|_| events.next()).unwrap_or(PollFlags::empty())))
}

/// The whole terminal, for a picture that changes, until this is dropped.
pub(super) struct Screen {
    _raw: Raw,
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
        let screen = Screen { _raw: raw, ends, resized, typed: Vec::new() };
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

    /// Waits for a key, a signal or the source, at most until this time.
    pub(super) fn wait(
        &mut self,
        source: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> io::Result<Waited> {
        let stdin = io::stdin();
        if !self.typed.is_empty() {
            return Ok(key(&mut self.typed).map_or(Waited::Time, Waited::Key));
        }
        let fds =
            [Some(stdin.as_fd()), Some(self.ends.as_fd()), Some(self.resized.as_fd()), source];
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
        let timeout = timeout.unwrap_or(PollTimeout::MAX);
        let ready = ready(fds.map(|fd| (fd, PollFlags::POLLIN)), timeout)?;
        let [typed, ends, resized, source] = ready.map(|events| !events.is_empty());
        if ends {
            return Ok(Waited::End);
        }
        if resized {
            let _ = nix::unistd::read(&self.resized, &mut [0; 64]);
            return Ok(Waited::Time);
        }
        if typed {
            let mut bytes = [0; 64];
            let length = nix::unistd::read(&stdin, &mut bytes)?;
            self.typed.extend(&bytes[..length]);
            return Ok(match length {
                0 => Waited::End,
                _ => key(&mut self.typed).map_or(Waited::Time, Waited::Key),
            });
        }
        Ok(if source { Waited::Source } else { Waited::Time })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
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

    /// Runs a program with a terminal of its own, prints what it wrote there, and ends with status
    /// 1 unless the terminal is as it was.
    const TERMINAL: &str = r#"
import os, pty, select, sys, termios
ours, theirs = pty.openpty()
before = termios.tcgetattr(theirs)
pid = os.fork()
if pid == 0:
    for fd in range(3):
        os.dup2(theirs, fd)
    os.execv(sys.argv[1], sys.argv[1:])
ended = False
while True:
    if select.select([ours], [], [], 0.05)[0]:
        sys.stdout.buffer.write(os.read(ours, 4096))
    elif ended:
        break
    else:
        ended = os.waitpid(pid, os.WNOHANG)[0] == pid
sys.exit(termios.tcgetattr(theirs) != before)
"#;

    /// Tells the test below that it is the process with the terminal.
    const INSIDE: &str = "VOLNET_TEST_PANICS";

    fn panic_with_the_screen() {
        // Where a panic ends the process, nothing is dropped.
        std::mem::forget(Screen::open().unwrap().expect("a terminal"));
        let raw = termios::tcgetattr(io::stdin()).unwrap();
        assert!(!raw.local_flags.contains(termios::LocalFlags::ECHO));
        panic!("something went wrong");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        if std::env::var_os(INSIDE).is_some() {
            panic_with_the_screen();
        }
        let ran = std::process::Command::new("python3")
            .args(["-c", TERMINAL])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("cli::terminal::tests::a_panic_gives_the_terminal_back_before_it_is_told")
            .env(INSIDE, "1")
            .output()
            .expect("python3 runs");
        let out = String::from_utf8_lossy(&ran.stdout);
        let at = |words: &str| out.find(words).unwrap_or_else(|| panic!("{words:?}: {out}"));
        assert!(at(OPEN) < at(CLOSE) && at(CLOSE) < at("something went wrong"), "{out:?}");
        assert!(ran.status.success(), "the terminal is not as it was: {out:?}");
    }

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
