//! The keeper of a VM: a small process between the VM's hypervisor, its logs, and the people at its
//! console.
//!
//! ```text
//! hypervisor ── output ─▶ keeper ─▶ log of the console
//!                           ├─────▶ people (`console`)
//!            ◀─ input ──────┘◀─────
//! hypervisor, helpers ── errors ─▶ keeper ─▶ log of messages
//! ```
//!
//! The daemon cannot do this: it may be restarted, or be gone, while its VMs run and print. A limit
//! of the kernel (`RLIMIT_FSIZE`) would hit the disks of the VM as well, and it keeps the oldest
//! part. So each hypervisor has a keeper. The keeper is started before it and ends when nobody has
//! the other ends of output and errors any more, which is when the hypervisor and all that it
//! started have ended. The next daemon need not know of it.
//!
//! The keeper is volnet's own program with a verb that is not for people. It has its ends of the
//! streams, the logs and the socket of [`console`], and no capabilities, opens nothing, and lets
//! signals that ask it to end pass: what the hypervisor prints at its end is often the reason. A
//! hypervisor cannot reach it, because it belongs to the daemon's user. If it is killed, the output
//! of its VM is lost, the hypervisor gets `EPIPE`, and its input is at its end.
//!
//! The input is a pipe or a terminal. Cloud Hypervisor reads the console from a terminal only. A
//! host has few of these (`kernel.pty.max`), so other hypervisors get a pipe. The output is always
//! a pipe: it holds more, and Firecracker drops what finds no room.

mod console;
mod socket;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;
use nix::sys::prctl;
use nix::sys::termios::{self, SetArg};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use volnet_ffi::{capabilities, descriptors, pidfd};

use self::console::Console;
use super::identity::{MARK_KEEPER, MARK_RUNTIME};
use super::{confine, spawn};
use crate::hypervisor::bounded::BoundedLog;
use crate::hypervisor::log::Logs;
use crate::hypervisor::process::Streams;
use crate::hypervisor::user::User;
use crate::model::name::VmName;
use crate::store::Paths;
use crate::store::space::Space;

pub(super) use self::socket::remove as remove_socket;

/// The verb.
pub const VERB: &str = "keep-log";

/// How much is read at a time, in bytes.
const CHUNK: usize = 16 << 10;
/// The most that the log of messages takes, in bytes.
const MESSAGES_BYTES_MAX: u64 = 1 << 20;

/// A keeper, and the streams of those that it keeps.
pub(super) struct Keeper {
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Streams,
}

/// How logs and consoles are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// The bound of a log in bytes.
    pub(super) bound: u64,
    /// The group whose members may use consoles; `None`: only root may.
    pub(super) group: Option<u32>,
}

/// Lets a user open the output by its names in `/proc`, as programs do with `/dev/stdout`.
pub(super) fn hand_over(streams: &Streams, user: &User) -> io::Result<()> {
    for stream in [&streams.console, &streams.messages] {
        fchown(stream, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    }
    Ok(())
}

/// Starts a keeper.
pub(super) fn start(
    keeping: Keeping,
    name: &VmName,
    logs: &Logs,
    runtime_dir: &Path,
    terminal: bool,
) -> Result<Keeper, String> {
    let console_log = spawn::open_log(&logs.console)?;
    let messages_log = spawn::open_log(&logs.messages)?;
    let cannot = |error: io::Error| format!("cannot start the keeper of its log: {error}");
    let socket = Paths::new("", runtime_dir).console(name);
    let listener = socket::listen(&socket, keeping.group)
        .map_err(|error| format!("cannot make the console {}: {error}", socket.display()))?;
    let (typed, keys) = input(terminal, name).map_err(cannot)?;
    let piped = || pipe2(OFlag::O_CLOEXEC).map_err(|error| cannot(error.into()));
    let (console, messages) = (piped()?, piped()?);
    // In the order of `Inherited`.
    let inherited = [messages.0, messages_log.into(), typed, listener.into()];
    let mut command = Command::new(confine::PROGRAM);
    command
        .args([VERB, &keeping.bound.to_string()])
        .args(inherited.iter().map(|descriptor| descriptor.as_raw_fd().to_string()))
        .env_clear()
        .env(MARK_KEEPER, name.as_str())
        .env(MARK_RUNTIME, runtime_dir)
        .stdin(console.0)
        .stdout(console_log)
        .stderr(Stdio::null())
        .process_group(0);
    let inherited = inherited.iter().map(AsFd::as_fd);
    let mut child = spawn::with_open(&mut command, inherited).map_err(cannot)?;
    let streams = Streams { keys, console: console.1, messages: messages.1 };
    match pidfd::open(child.id()) {
        Ok(pidfd) => Ok(Keeper { pidfd, streams }),
        Err(error) => {
            // It would end by itself, but nobody would wait for it.
            drop(streams);
            let _ = child.wait();
            Err(cannot(error))
        }
    }
}

/// The two ends of a hypervisor's input: the one to write to, and its own. A guest runs also if
/// nobody can type on its console.
fn input(terminal: bool, name: &VmName) -> io::Result<(OwnedFd, OwnedFd)> {
    let ends = match terminal.then(raw_terminal) {
        Some(Ok(ends)) => ends,
        Some(Err(error)) => {
            log::warn!(vm:% = name; "nobody can type on its console, it has no terminal: {error}");
            pipe()?
        }
        None => pipe()?,
    };
    fcntl(&ends.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(ends)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (keys, typed) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((typed, keys))
}

/// A terminal that passes on each byte as it is.
fn raw_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let pty = openpty(None, None)?;
    let mut raw = termios::tcgetattr(&pty.slave)?;
    termios::cfmakeraw(&mut raw);
    termios::tcsetattr(&pty.slave, SetArg::TCSANOW, &raw)?;
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((pty.master, pty.slave))
}

/// What a keeper inherits beside the console and its log, which are standard input and output.
struct Inherited {
    bound: u64,
    messages: OwnedFd,
    messages_log: OwnedFd,
    typed: OwnedFd,
    listener: OwnedFd,
}

impl Inherited {
    fn take(words: &[String]) -> io::Result<Inherited> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let word = |index: usize| words.get(index).map_or("", String::as_str);
        let take = |index| descriptors::take(word(index).parse::<RawFd>().map_err(wrong)?);
        Ok(Inherited {
            bound: word(0).parse().map_err(wrong)?,
            messages: take(1)?,
            messages_log: take(2)?,
            typed: take(3)?,
            listener: take(4)?,
        })
    }
}

/// A stream and the log that it goes to.
struct Kept {
    stream: File,
    log: BoundedLog,
}

impl Kept {
    fn new(stream: OwnedFd, log: OwnedFd, bound: u64) -> io::Result<Kept> {
        // Whoever has the other end may read from it, too, if it opens it by its name in /proc. So
        // what was ready may be gone, and nobody waits for more.
        fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // A file that is open for appending cannot be written elsewhere (pwrite(2), BUGS).
        fcntl(&log, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok(Kept { stream: stream.into(), log: BoundedLog::new(log.into(), bound) })
    }

    /// Appends to the log what has come, and gives it. `None` at the end.
    fn turn<'a>(&mut self, chunk: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let has_room =
            |file: &File, more| Space::of_file(file).map_or(true, |space| space.has_room_for(more));
        match self.stream.read(chunk) {
            Ok(0) => Ok(None),
            Ok(length) => {
                let bytes = &chunk[..length];
                // Nobody can be told of an error here, and the hypervisor must not wait for it.
                let _ = self.log.append(bytes, has_room);
                Ok(Some(bytes))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(Some(&[]))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Output,
    Messages,
    Console(console::Source),
}

/// Keeps what a hypervisor prints, and serves its console, until both of its streams end. `words`
/// are a bound and the numbers of descriptors.
pub fn keep(words: &[String]) -> io::Result<()> {
    prctl::set_name(c"volnet-log")?;
    capabilities::keep(0)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let inherited = Inherited::take(words)?;
    let standard = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    let (output, log) = (standard(io::stdin().as_fd())?, standard(io::stdout().as_fd())?);
    let bound = inherited.bound;
    let mut output = Some(Kept::new(output, log, bound)?);
    let messages_bound = bound.min(MESSAGES_BYTES_MAX);
    let messages = Kept::new(inherited.messages, inherited.messages_log, messages_bound)?;
    let mut messages = Some(messages);
    let mut console = Console::new(inherited.listener, inherited.typed)?;
    let mut chunk = [0; CHUNK];
    while output.is_some() || messages.is_some() {
        for (source, events) in wait(output.as_ref(), messages.as_ref(), &console)? {
            match (source, &mut output, &mut messages) {
                (Source::Output, Some(kept), _) => match kept.turn(&mut chunk)? {
                    Some(bytes) => console.show(bytes),
                    None => {
                        output = None;
                        console.end();
                    }
                },
                (Source::Messages, _, Some(kept)) => {
                    if kept.turn(&mut chunk)?.is_none() {
                        messages = None;
                    }
                }
                (Source::Console(source), _, _) => console.turn(source, events),
                (Source::Output | Source::Messages, _, _) => {}
            }
        }
        console.tidy();
    }
    Ok(())
}

/// Waits until something is to be done, and tells for what.
fn wait(
    output: Option<&Kept>,
    messages: Option<&Kept>,
    console: &Console,
) -> io::Result<Vec<(Source, PollFlags)>> {
    let kept = [(Source::Output, output), (Source::Messages, messages)];
    let kept = kept.into_iter().filter_map(|(source, kept)| {
        Some((source, PollFd::new(kept?.stream.as_fd(), PollFlags::POLLIN)))
    });
    let people = console.sources().map(|(source, fd)| (Source::Console(source), fd));
    let (sources, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = kept.chain(people).unzip();
    match poll(&mut fds, console.patience()) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let events = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    Ok(sources.into_iter().zip(events).filter(|(_, events)| !events.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn what_somebody_else_has_read_is_not_waited_for() {
        let scratch = Scratch::new();
        let mut options = File::options();
        let log = options.read(true).write(true).create(true).truncate(false);
        let log = log.open(scratch.path().join("log")).unwrap();
        let (stream, output) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut kept = Kept::new(stream, log.into(), 1 << 20).unwrap();
        let mut chunk = [0; CHUNK];
        assert_eq!(kept.turn(&mut chunk).unwrap(), Some(&b""[..]));
        let mut output = File::from(output);
        output.write_all(b"a line\n").unwrap();
        let mut thief = File::open(format!("/proc/self/fd/{}", output.as_raw_fd())).unwrap();
        assert_eq!(thief.read(&mut [0; 64]).unwrap(), 7);
        assert_eq!(kept.turn(&mut chunk).unwrap(), Some(&b""[..]));
        output.write_all(b"another\n").unwrap();
        assert_eq!(kept.turn(&mut chunk).unwrap(), Some(&b"another\n"[..]));
        drop((output, thief));
        assert_eq!(kept.turn(&mut chunk).unwrap(), None);
    }
}
