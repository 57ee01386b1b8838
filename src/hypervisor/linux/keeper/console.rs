//! The console of a guest: people see what the guest prints, and type.
//!
//! Nobody here waits for anybody. Who does not read misses output, and is told how much. What is
//! typed and the guest does not read stays with whoever types it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

/// How many may look at a time.
const VIEWERS_MAX: usize = 8;
/// What one more is told.
const FULL: &[u8] = b"volnet: this console has as many readers as it takes\r\n";
/// The most bytes that were typed and that the guest has not read, beside what its hypervisor has.
const TYPED_BYTES_MAX: usize = 4 << 10;
/// How long nobody is let in after a failure: the kernel lacks memory or descriptors, and the
/// connection would be reported again and again.
const PAUSE: Duration = Duration::from_secs(1);

/// The console, and the people at it.
pub(super) struct Console {
    /// `None`: the guest is over.
    listener: Option<UnixListener>,
    /// Until when nobody is let in.
    pause: Option<Instant>,
    /// The hypervisor's input. `None`: it does not read any more.
    keys: Option<File>,
    /// What was typed and not passed on.
    typed: Vec<u8>,
    viewers: Vec<Viewer>,
}

/// Somebody at the console.
struct Viewer {
    stream: UnixStream,
    /// Whether more may be typed.
    types: bool,
    /// How many bytes were not shown, because nobody read those before.
    missed: u64,
    /// Whether the connection is over.
    gone: bool,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Listener,
    Keys,
    Viewer(usize),
}

impl Console {
    /// A console with a socket and the hypervisor's input, neither of which blocks.
    pub(super) fn new(listener: OwnedFd, keys: OwnedFd) -> io::Result<Console> {
        Ok(Console {
            listener: Some(listener.into()),
            pause: None,
            keys: Some(keys.into()),
            typed: Vec::new(),
            viewers: Vec::new(),
        })
    }

    /// What to wait for.
    pub(super) fn sources(&self) -> impl Iterator<Item = (Source, PollFd<'_>)> {
        let wanted = |wants: bool, events| if wants { events } else { PollFlags::empty() };
        let listener = self.listener.iter().filter(|_| self.pause.is_none());
        let listener =
            listener.map(|of| (Source::Listener, PollFd::new(of.as_fd(), PollFlags::POLLIN)));
        let writes = wanted(!self.typed.is_empty(), PollFlags::POLLOUT);
        let keys = self.keys.iter();
        let keys = keys.map(move |of| (Source::Keys, PollFd::new(of.as_fd(), writes)));
        let takes = self.typed.len() < TYPED_BYTES_MAX;
        let viewers = self.viewers.iter().enumerate().map(move |(index, viewer)| {
            let reads = wanted(viewer.types && takes, PollFlags::POLLIN);
            (Source::Viewer(index), PollFd::new(viewer.stream.as_fd(), reads))
        });
        listener.chain(keys).chain(viewers)
    }

    /// How long to wait at most.
    pub(super) fn patience(&self) -> PollTimeout {
        let Some(until) = self.pause else { return PollTimeout::NONE };
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        left.try_into().unwrap_or(PollTimeout::NONE)
    }

    /// Does what a source is ready for.
    pub(super) fn turn(&mut self, source: Source, events: PollFlags) {
        let over = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        match source {
            Source::Listener => self.admit(),
            Source::Keys if over => self.keys = None,
            Source::Keys => {}
            Source::Viewer(index) => {
                if let Some(viewer) = self.viewers.get_mut(index) {
                    let came = events.contains(PollFlags::POLLIN) && viewer.read(&mut self.typed);
                    viewer.gone |= over && !came;
                }
            }
        }
    }

    /// Passes on what was typed, and forgets those who are gone. To be called after each round.
    pub(super) fn tidy(&mut self) {
        self.viewers.retain(|viewer| !viewer.gone);
        self.pause = self.pause.filter(|until| Instant::now() < *until);
        let Some(keys) = &mut self.keys else {
            self.typed.clear();
            return;
        };
        while !self.typed.is_empty() {
            match keys.write(&self.typed) {
                Ok(0) => return,
                Ok(length) => drop(self.typed.drain(..length)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.keys = None;
                    return;
                }
            }
        }
    }

    /// Shows to all what the guest has printed.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        for viewer in &mut self.viewers {
            viewer.show(bytes);
        }
    }

    /// The guest is over: nobody will see or type anything.
    pub(super) fn end(&mut self) {
        (self.listener, self.keys) = (None, None);
        self.viewers.clear();
    }

    fn admit(&mut self) {
        let Some(listener) = &self.listener else { return };
        match listener.accept() {
            Ok((mut stream, _)) => {
                let full = self.viewers.len() >= VIEWERS_MAX;
                if stream.set_nonblocking(true).is_err() {
                    return;
                }
                if full {
                    let _ = stream.write(FULL);
                    return;
                }
                self.viewers.push(Viewer { stream, types: true, missed: 0, gone: false });
            }
            // Whoever connected may be gone.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            Err(_) => self.pause = Some(Instant::now() + PAUSE),
        }
    }
}

impl Viewer {
    /// Reads what was typed. False at its end.
    fn read(&mut self, typed: &mut Vec<u8>) -> bool {
        let mut keys = [0; TYPED_BYTES_MAX];
        let room = TYPED_BYTES_MAX.saturating_sub(typed.len());
        match self.stream.read(&mut keys[..room]) {
            Ok(0) => {
                self.types = room == 0;
                self.types
            }
            Ok(length) => {
                typed.extend_from_slice(&keys[..length]);
                true
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                true
            }
            Err(_) => {
                self.gone = true;
                false
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        if self.missed > 0 {
            let note = format!("\r\n--- volnet: {} bytes are only in the log\r\n", self.missed);
            if self.send(note.as_bytes()) == 0 {
                self.missed += bytes.len() as u64;
                return;
            }
            self.missed = 0;
        }
        self.missed = (bytes.len() - self.send(bytes)) as u64;
    }

    /// Sends as much as there is room for. Gives its length.
    fn send(&mut self, bytes: &[u8]) -> usize {
        loop {
            match self.stream.write(bytes) {
                Ok(length) => return length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.gone |= error.kind() != ErrorKind::WouldBlock;
                    return 0;
                }
            }
        }
    }
}
