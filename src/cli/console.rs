//! `console`: connects the terminal to the serial port of a guest.
//!
//! The terminal is raw meanwhile, so that the guest gets every key and echoes it. One key is
//! special: Ctrl-] detaches. However it ends (that key, the guest's power-off, SIGTERM, SIGHUP, an
//! error), the terminal is restored. A serial port cannot pass on the size of the window: use `stty
//! rows R cols C` in the guest.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::Settings;
use crate::hypervisor::SERIAL_SOCKET;
use crate::model::name::VmName;
use crate::store::Paths;

use super::session::file;
use super::{DONE, Trouble};

/// The key for detaching: Ctrl-].
const DETACH: u8 = 0x1d;
/// The most bytes that are copied at once.
const CHUNK_BYTES: usize = 4096;

/// Connects the terminal to a VM's serial port.
pub(super) fn console(settings: &Settings, name: &str) -> Result<u8, Trouble> {
    let name = VmName::new(name)?;
    let folder = Paths::new(&settings.state_dir, &settings.runtime_dir).folder(&name);
    let socket = folder.join(SERIAL_SOCKET);
    let serial = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::Input(format!(
            "VM {name} has no console: it is not running, or its hypervisor has none"
        )),
        _ => file("cannot connect to", &socket, error),
    })?;
    let terminal = |error| Trouble::File { what: "terminal".into(), error };
    let ends = endings().map_err(terminal)?;
    let outcome = {
        let _raw = Raw::enter().map_err(terminal)?;
        carry(&serial, &ends)
    };
    if io::stdin().is_terminal() {
        // The cursor may be in the middle of a line.
        let _ = writeln!(io::stderr());
    }
    outcome.map(|()| DONE).map_err(|error| file("lost", &socket, error))
}

/// A stream that becomes readable when a signal ends the session.
fn endings() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// The terminal in raw mode, until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    /// `None` if standard input is not a terminal.
    fn enter() -> io::Result<Raw> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Raw(None));
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
        eprint!("Ctrl-] detaches.\r\n");
        Ok(Raw(Some(before)))
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

/// Copies bytes both ways until one side or a signal ends it.
fn carry(serial: &UnixStream, ends: &UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    let mut keys_end = false;
    loop {
        let [typed, printed, ended] = ready(
            // A standard input at its end is always readable, so it is not polled any more.
            if keys_end { None } else { Some(stdin.as_fd()) },
            serial.as_fd(),
            ends.as_fd(),
        )?;
        if ended || (printed && !print(serial)?) {
            return Ok(());
        }
        if typed {
            match type_in(serial)? {
                Typed::Some => {}
                Typed::End => keys_end = true,
                Typed::Detach => return Ok(()),
            }
        }
    }
}

/// Waits until one of the three is readable, and returns which are.
fn ready(stdin: Option<BorrowedFd>, serial: BorrowedFd, ends: BorrowedFd) -> io::Result<[bool; 3]> {
    let poll_fd = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds = vec![poll_fd(serial), poll_fd(ends)];
    fds.extend(stdin.map(poll_fd));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let any = |fd: &PollFd| fd.any().unwrap_or(true);
    Ok([fds.get(2).is_some_and(any), any(&fds[0]), any(&fds[1])])
}

/// Copies from the guest to the terminal; false at the end.
fn print(mut serial: &UnixStream) -> io::Result<bool> {
    let mut bytes = [0; CHUNK_BYTES];
    let length = serial.read(&mut bytes)?;
    let mut out = io::stdout().lock();
    out.write_all(&bytes[..length])?;
    out.flush()?;
    Ok(length > 0)
}

/// Input from the keyboard.
enum Typed {
    Some,
    End,
    Detach,
}

/// Copies from the keyboard to the guest.
fn type_in(mut serial: &UnixStream) -> io::Result<Typed> {
    let mut bytes = [0; CHUNK_BYTES];
    // This bypasses the buffer of std::io::stdin, which poll does not see.
    let length = nix::unistd::read(io::stdin(), &mut bytes)?;
    let keys = &bytes[..length];
    let detach = keys.iter().position(|key| *key == DETACH);
    serial.write_all(&keys[..detach.unwrap_or(length)])?;
    Ok(match (detach, length) {
        (Some(_), _) => Typed::Detach,
        (None, 0) => Typed::End,
        (None, _) => Typed::Some,
    })
}
