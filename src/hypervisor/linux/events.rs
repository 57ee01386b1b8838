//! What a hypervisor tells about its guest while it runs.
//!
//! | hypervisor | way | what it tells |
//! |---|---|---|
//! | Cloud Hypervisor | a FIFO, `--event-monitor` | a reset, a panic |
//! | QEMU | a socket of its machine protocol | a panic, why it ends (docs/interop/qemu-qmp-ref) |
//! | Firecracker | none | |
//!
//! After a reset, Cloud Hypervisor boots the guest again within the same process (vmm/src/lib.rs,
//! `vm_reboot`); the others end. Both have a pvpanic device, by which the guest's kernel says that
//! it panics (docs/specs/pvpanic.txt of QEMU): with a crash kernel it goes on for a while, without
//! one it is over, also if it would hang for ever.
//!
//! QEMU ends with status 0 for each reason but its own failure, and says which it was. A power-off
//! and a reset of the guest, and somebody's `quit`, are an end with status 0. A panic and a signal
//! are not. Cloud Hypervisor ends with status 0 after SIGTERM, too, and says the same as after a
//! power-off.
//!
//! The FIFO is in the VM's folder. It is made before the process and opened for reading first, so
//! that nobody waits for the other. The socket is connected when the guest runs. It is not the one
//! that the guest is asked to power off by, because QEMU serves one client on each. Both stay when
//! the daemon ends, and the next one opens them again; what was told meanwhile is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::Socket;

use super::power::{self, QMP_HELLO};
use crate::hypervisor::{EventSource, cloud_hypervisor, qemu};
use crate::model::record::GuestEnd;
use crate::rights;

/// What ends the guest, and what says that it panicked.
const OVER: GuestEnd = GuestEnd { over: true, panicked: false, signalled: false };
const PANICKED: GuestEnd = GuestEnd { over: true, panicked: true, signalled: false };
/// A crash kernel runs in place of the guest's, and resets the guest at its end.
const CRASHES: GuestEnd = GuestEnd { over: false, panicked: true, signalled: false };
/// The hypervisor ends at once by itself.
const SIGNALLED: GuestEnd = GuestEnd { over: false, panicked: false, signalled: true };

/// What is looked for, without white space. A text in JSON cannot have these bytes, because its
/// quotes are escaped.
type Words = [(&'static [u8], GuestEnd)];

/// event_monitor/src/lib.rs and devices/src/pvpanic.rs of Cloud Hypervisor.
const CLOUD_HYPERVISOR: &Words = &[
    (b"\"source\":\"vm\",\"event\":\"rebooting\"", OVER),
    (b"\"source\":\"guest\",\"event\":\"panic\",\"properties\":{\"event\":\"panic\"}", PANICKED),
    (
        b"\"source\":\"guest\",\"event\":\"panic\",\"properties\":{\"event\":\"crash_loaded\"}",
        CRASHES,
    ),
];
/// qapi/run-state.json of QEMU. The reasons are those of the event `SHUTDOWN`.
const QMP: &Words = &[
    (b"\"event\":\"GUEST_PANICKED\"", PANICKED),
    (b"\"event\":\"GUEST_CRASHLOADED\"", CRASHES),
    (b"\"reason\":\"guest-panic\"", PANICKED),
    (b"\"reason\":\"host-signal\"", SIGNALLED),
];

/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Chunks that are read in one look: a hypervisor that writes for ever does not keep the loop.
const CHUNKS_MAX: usize = 16;

/// The reading end.
#[derive(Debug)]
pub(super) struct Events {
    source: Source,
    /// The end of what was read, without white space.
    kept: Vec<u8>,
    /// What was told so far.
    told: GuestEnd,
}

#[derive(Debug)]
enum Source {
    Fifo(File),
    Socket(Socket),
    /// Nobody is connected to this socket.
    Unconnected(PathBuf),
}

impl Events {
    /// Makes what a new hypervisor writes to.
    pub(super) fn make(source: &EventSource) -> Result<Events, String> {
        let path = match source {
            EventSource::Qmp(path) => return Ok(Events::of(Source::Unconnected(path.clone()))),
            EventSource::Fifo(path) => path,
        };
        let folder = path.parent().unwrap_or(path);
        let make = || Ok(mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let made = rights::act_as_owner(folder, make).and_then(|()| open_fifo(path));
        let fifo = made.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Events::of(Source::Fifo(fifo)))
    }

    /// Opens in a VM's folder what an earlier daemon made there.
    pub(super) fn find(folder: &Path) -> Events {
        if let Ok(fifo) = open_fifo(&folder.join(cloud_hypervisor::EVENTS)) {
            return Events::of(Source::Fifo(fifo));
        }
        let mut events = Events::of(Source::Unconnected(folder.join(qemu::EVENTS_SOCKET)));
        events.connect();
        events
    }

    fn of(source: Source) -> Events {
        Events { source, kept: Vec::new(), told: GuestEnd::default() }
    }

    /// Connects to a hypervisor that serves by now. Without a connection its guest runs all the
    /// same.
    pub(super) fn connect(&mut self) {
        if let Source::Unconnected(path) = &self.source {
            if let Ok(socket) = power::send(path, QMP_HELLO) {
                self.source = Source::Socket(socket);
            }
        }
    }

    /// The descriptor that becomes readable when something is told.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match &self.source {
            Source::Fifo(fifo) => Some(fifo.as_raw_fd()),
            Source::Socket(socket) => Some(socket.as_raw_fd()),
            Source::Unconnected(_) => None,
        }
    }

    /// What was told about the guest's end until now.
    pub(super) fn hear(&mut self) -> GuestEnd {
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS_MAX {
            let (read, words) = match &mut self.source {
                Source::Fifo(fifo) => (fifo.read(&mut chunk), CLOUD_HYPERVISOR),
                Source::Socket(socket) => (socket.read(&mut chunk), QMP),
                Source::Unconnected(_) => break,
            };
            match read {
                Ok(length) if length > 0 => self.search(&chunk[..length], words),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.told
    }

    fn search(&mut self, bytes: &[u8], words: &Words) {
        self.kept.extend(bytes.iter().filter(|byte| !byte.is_ascii_whitespace()));
        for (word, end) in words {
            if self.kept.windows(word.len()).any(|window| window == *word) {
                self.told.over |= end.over;
                self.told.panicked |= end.panicked;
                self.told.signalled |= end.signalled;
            }
        }
        let longest = words.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
        let surplus = self.kept.len().saturating_sub(longest);
        self.kept.drain(..surplus);
    }
}

/// Opens a FIFO that somebody made. The hypervisor's user may have put another file there.
fn open_fifo(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    let open = || options.open(path);
    let fifo = rights::act_as_owner(path.parent().unwrap_or(path), open)?;
    match fifo.metadata()?.file_type().is_fifo() {
        true => Ok(fifo),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a FIFO")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::store::tests::Scratch;

    const NOTHING: GuestEnd = GuestEnd { over: false, panicked: false, signalled: false };

    fn event(source: &str, event: &str, properties: &str) -> String {
        format!(
            "{{\n  \"timestamp\": {{\n    \"secs\": 0,\n    \"nanos\": 1\n  }},\n  \
             \"source\": \"{source}\",\n  \"event\": \"{event}\",\n  \
             \"properties\": {properties}\n}}\n\n"
        )
    }

    fn panic(event: &str) -> String {
        format!("{{\n    \"event\": \"{event}\"\n  }}")
    }

    #[test]
    fn an_end_of_the_guest_is_heard_in_any_cut() {
        let scratch = Scratch::new();
        let path = scratch.path().join("events");
        let source = EventSource::Fifo(path.clone());
        for (event, end) in [
            (event("vm", "rebooting", "null"), OVER),
            (event("vm", "rebooted", "null"), NOTHING),
            (event("guest", "panic", &panic("panic")), PANICKED),
            (event("guest", "panic", &panic("crash_loaded")), CRASHES),
            (event("guest", "panic", &panic("unknown_event")), NOTHING),
        ] {
            let word = event.find("\"event\"").unwrap();
            for cut in [0, 1, word, word + 4, word + 12] {
                let mut events = Events::make(&source).unwrap();
                assert_eq!(events.hear(), NOTHING, "nobody writes");
                let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
                writer.write_all(&event.as_bytes()[..cut]).unwrap();
                assert_eq!(events.hear(), NOTHING);
                writer.write_all(&event.as_bytes()[cut..]).unwrap();
                assert_eq!(events.hear(), end, "{event}");
                drop(writer);
                assert_eq!(events.hear(), end, "it stays so");
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn another_file_in_its_place_is_not_read() {
        let scratch = Scratch::new();
        assert_eq!(Events::find(scratch.path()).descriptor(), None);
        std::fs::write(scratch.path().join(cloud_hypervisor::EVENTS), "").unwrap();
        assert_eq!(Events::find(scratch.path()).descriptor(), None);
    }

    #[test]
    fn a_panic_is_heard_of_qemu_also_when_it_has_ended() {
        let scratch = Scratch::new();
        let path = scratch.path().join(qemu::EVENTS_SOCKET);
        let mut early = Events::make(&EventSource::Qmp(path.clone())).unwrap();
        early.connect();
        assert_eq!((early.descriptor(), early.hear()), (None, NOTHING), "it does not serve yet");
        let listener = UnixListener::bind(&path).unwrap();
        early.connect();
        assert!(early.descriptor().is_some());
        let (mut qemu, _) = listener.accept().unwrap();
        let mut hello = [0; QMP_HELLO.len()];
        qemu.read_exact(&mut hello).unwrap();
        assert_eq!(hello, QMP_HELLO.as_bytes());
        qemu.write_all(b"{\"return\": {}}\r\n{\"event\": \"RTC_CHANGE\", \"data\": {}}\r\n")
            .unwrap();
        assert_eq!(early.hear(), NOTHING);
        qemu.write_all(b"{\"timestamp\": {}, \"event\": \"GUEST_PANICKED\"}\r\n").unwrap();
        drop(qemu);
        assert_eq!(early.hear(), PANICKED);
        assert!(Events::find(scratch.path()).descriptor().is_some(), "the next daemon connects");
    }

    /// The events are those that QEMU 7.2 was seen to send, but for their times.
    #[test]
    fn the_reason_of_qemu_is_told() {
        for (reason, guest, end) in [
            ("guest-shutdown", true, NOTHING),
            ("guest-reset", true, NOTHING),
            ("host-qmp-quit", false, NOTHING),
            ("host-signal", false, SIGNALLED),
            ("guest-panic", true, PANICKED),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut events = Events::of(Source::Socket(OwnedFd::from(ours).into()));
            let data = format!("{{\"guest\": {guest}, \"reason\": \"{reason}\"}}");
            let event = format!("\"event\": \"SHUTDOWN\", \"data\": {data}");
            writeln!(theirs, "{{\"timestamp\": {{\"seconds\": 1}}, {event}}}\r").unwrap();
            drop(theirs);
            assert_eq!(events.hear(), end, "{reason}");
        }
    }
}
