//! `console`: connects the terminal to the serial port of a guest, by the keeper of its VM.
//!
//! The terminal is raw meanwhile, so that the guest gets every key and echoes it. One key is
//! special: Ctrl-] detaches. However it ends (that key, the guest's power-off, SIGTERM, SIGHUP, an
//! error), the terminal is restored. A serial port cannot pass on the size of the window: use `stty
//! rows R cols C` in the guest.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFlags, PollTimeout};

use crate::config::Settings;
use crate::model::name::VmName;
use crate::store::Paths;

use super::session::file;
use super::terminal::{Raw, endings, ready};
use super::{DONE, Trouble};

/// The key for detaching: Ctrl-].
const DETACH: u8 = 0x1d;
/// The most bytes that are copied at once.
const CHUNK_BYTES: usize = 4096;

/// Connects the terminal to a VM's serial port.
pub(super) fn console(settings: &Settings, name: &str) -> Result<u8, Trouble> {
    let name = VmName::new(name)?;
    let socket = Paths::new(&settings.state_dir, &settings.runtime_dir).console(&name);
    let serial = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Trouble::Input(format!(
            "VM {name} has no console: it is not running, or an older volnet has started it"
        )),
        _ => file("cannot connect to", &socket, error),
    })?;
    let terminal = |error| Trouble::File { what: "terminal".into(), error };
    let ends = endings().map_err(terminal)?;
    let outcome = {
        let raw = Raw::enter().map_err(terminal)?;
        if raw.is_terminal() {
            eprint!("Ctrl-] detaches.\r\n");
        }
        carry(&serial, &ends)
    };
    if io::stdin().is_terminal() {
        // The cursor may be in the middle of a line.
        let _ = writeln!(io::stderr());
    }
    outcome.map(|()| DONE).map_err(|error| file("lost", &socket, error))
}

/// Copies bytes both ways until one side or a signal ends it.
fn carry(mut serial: &UnixStream, ends: &UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    serial.set_nonblocking(true)?;
    let (mut typed, mut keys_end) = (Vec::new(), false);
    loop {
        // A standard input at its end is always readable, so it is not polled any more. More keys
        // wait until the guest has read those before.
        let keys = (!keys_end && typed.is_empty()).then(|| stdin.as_fd());
        let writes = if typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let wanted = [
            (keys, PollFlags::POLLIN),
            (Some(serial.as_fd()), PollFlags::POLLIN | writes),
            (Some(ends.as_fd()), PollFlags::POLLIN),
        ];
        let [pressed, serves, ended] = ready(wanted, PollTimeout::NONE)?;
        let over = serves.difference(PollFlags::POLLOUT);
        if !ended.is_empty() || (!over.is_empty() && !print(serial)?) {
            return Ok(());
        }
        let mut detaches = false;
        if !pressed.is_empty() {
            match type_in(&mut typed)? {
                Typed::Some => {}
                Typed::End => keys_end = true,
                Typed::Detach => detaches = true,
            }
        }
        if !typed.is_empty() {
            match serial.write(&typed) {
                Ok(length) => drop(typed.drain(..length)),
                Err(error) if has_time(&error) => {}
                // The guest is over, and what it has printed last is still to be read.
                Err(error) if is_end(&error) => (typed, keys_end) = (Vec::new(), true),
                Err(error) => return Err(error),
            }
        }
        if detaches {
            return Ok(());
        }
    }
}

/// Copies from the guest to the terminal; false at the end.
fn print(mut serial: &UnixStream) -> io::Result<bool> {
    let mut bytes = [0; CHUNK_BYTES];
    let length = match serial.read(&mut bytes) {
        Ok(length) => length,
        Err(error) if has_time(&error) => return Ok(true),
        // Keys were on their way when the guest ended.
        Err(error) if is_end(&error) => 0,
        Err(error) => return Err(error),
    };
    let mut out = io::stdout().lock();
    out.write_all(&bytes[..length])?;
    out.flush()?;
    Ok(length > 0)
}

fn has_time(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Input from the keyboard.
enum Typed {
    Some,
    End,
    Detach,
}

/// Reads from the keyboard what is for the guest.
fn type_in(typed: &mut Vec<u8>) -> io::Result<Typed> {
    let mut bytes = [0; CHUNK_BYTES];
    // This bypasses the buffer of std::io::stdin, which poll does not see.
    let length = nix::unistd::read(io::stdin(), &mut bytes)?;
    let keys = &bytes[..length];
    let detach = keys.iter().position(|key| *key == DETACH);
    typed.extend_from_slice(&keys[..detach.unwrap_or(length)]);
    Ok(match (detach, length) {
        (Some(_), _) => Typed::Detach,
        (None, 0) => Typed::End,
        (None, _) => Typed::Some,
    })
}
