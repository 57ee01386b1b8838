//! What a hypervisor tells about its guest while it runs.
//!
//! | hypervisor | way | what it tells |
//! |---|---|---|
//! | Cloud Hypervisor | a FIFO, `--event-monitor` | a reset, a power-off, a panic, a pause |
//! | QEMU | a socket of its machine protocol | a panic, why it ends, a pause, a stop by itself |
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
//! power-off. If somebody ends only the guest on its API, it says so as well, and does not end.
//!
//! QEMU stops its guest by itself if it cannot write to a disk because the host has no room
//! (`werror=enospc`, its default); the others give the guest an error. It says `STOP`, as after
//! somebody's `stop`, and answers `query-status` and `query-block` why. It is asked so after each
//! `STOP` and at the beginning, on the same connection. So events and answers come in their order,
//! the last of them holds, and the next daemon learns it, too.
//!
//! The FIFO is in the VM's folder. It is made before the process and opened for reading first, so
//! that nobody waits for the other. The socket is connected while the guest starts. It is not the
//! socket that the guest is asked to power off by, because QEMU serves one client on each. QEMU
//! tells nothing before it has answered, so a start is over only then: if a signal ends QEMU at
//! once, that is told, too. FIFO and socket stay when the daemon ends, and the next one opens them
//! again. What was told meanwhile is lost.

mod said;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use socket2::Socket;

use self::said::{Objects, Said};
use super::power::{self, QMP_HELLO};
use crate::hypervisor::{EventSource, cloud_hypervisor, qemu};
use crate::model::record::{Halt, Heard, Motion};
use crate::rights;

/// Which disk failed, and then whether the guest goes on (docs/interop/qemu-qmp-ref of QEMU).
const QMP_WHY: &str = "{\"execute\":\"query-block\"}\n{\"execute\":\"query-status\"}\n";

/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Chunks that are read in one look: a hypervisor that writes for ever does not keep the loop.
const CHUNKS_MAX: usize = 16;
/// Looks at what one that has ended had to say. A FIFO or a socket holds less.
const LAST_LOOKS_MAX: usize = 16;

/// The reading end.
#[derive(Debug)]
pub(super) struct Events {
    source: Source,
    objects: Objects,
    /// What was told so far.
    heard: Heard,
    /// The disk that failed, as QEMU said last.
    disk: Option<Halt>,
    /// Whether QEMU has answered. It tells nothing before.
    answered: bool,
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
        let (objects, heard) = (Objects::default(), Heard::default());
        Events { source, objects, heard, disk: None, answered: false }
    }

    /// Connects to a hypervisor that serves by now. Without a connection its guest runs all the
    /// same.
    pub(super) fn connect(&mut self) {
        if let Source::Unconnected(path) = &self.source {
            if let Ok(socket) = power::send(path, &[QMP_HELLO, QMP_WHY].concat()) {
                self.source = Source::Socket(socket);
            }
        }
    }

    /// Whether it tells of all that happens from now on. If nobody can connect, it never will, and
    /// nobody waits for that.
    pub(super) fn tells(&mut self) -> bool {
        self.connect();
        if let Source::Socket(_) = self.source {
            self.hear();
            return self.answered;
        }
        true
    }

    /// The descriptor that becomes readable when something is told.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        match &self.source {
            Source::Fifo(fifo) => Some(fifo.as_raw_fd()),
            Source::Socket(socket) => Some(socket.as_raw_fd()),
            Source::Unconnected(_) => None,
        }
    }

    /// What was told until now.
    pub(super) fn hear(&mut self) -> Heard {
        let mut chunk = [0; CHUNK];
        self.heard.more = true;
        for _ in 0..CHUNKS_MAX {
            let read = match &mut self.source {
                Source::Fifo(fifo) => fifo.read(&mut chunk),
                Source::Socket(socket) => socket.read(&mut chunk),
                Source::Unconnected(_) => Ok(0),
            };
            match read {
                Ok(length) if length > 0 => self.listen(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.heard.more = false;
                    break;
                }
            }
        }
        self.heard
    }

    /// What one told that has ended.
    pub(super) fn hear_all(&mut self) -> Heard {
        for _ in 0..LAST_LOOKS_MAX {
            if !self.hear().more {
                break;
            }
        }
        self.heard
    }

    fn listen(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Some(message) = self.objects.take(*byte) else { continue };
            self.answered |= message.get("return").is_some();
            let said = match &self.source {
                Source::Fifo(_) => said::by_cloud_hypervisor(&message),
                Source::Socket(_) | Source::Unconnected(_) => said::by_qmp(&message),
            };
            match said {
                Some(Said::End(end)) => self.heard.end.add(end),
                Some(Said::Stopped) => self.ask_why(),
                Some(Said::Disk(disk)) => self.disk = disk,
                Some(Said::Moves(Motion::Halted(Halt::Disk { index, full }))) => {
                    let halt = self.disk.unwrap_or(Halt::Disk { index, full });
                    self.heard.motion = Some(Motion::Halted(halt));
                }
                Some(Said::Moves(motion)) => self.heard.motion = Some(motion),
                None => {}
            }
        }
    }

    /// Asks QEMU why it has stopped its guest. If it does not read, nobody learns why.
    fn ask_why(&mut self) {
        self.heard.motion = None;
        self.heard.stops = self.heard.stops.wrapping_add(1);
        if let Source::Socket(socket) = &mut self.source {
            let _ = socket.write_all(QMP_WHY.as_bytes());
        }
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

    use super::said::{CRASHES, SIGNALLED};
    use super::*;
    use crate::model::record::GuestEnd;
    use crate::store::tests::Scratch;

    const NOTHING: GuestEnd = GuestEnd { over: false, ..GuestEnd::RESET };

    /// One that is connected to QEMU, and QEMU.
    fn connected() -> (Events, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Events::of(Source::Socket(OwnedFd::from(ours).into())), theirs)
    }

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
            (event("vm", "rebooting", "null"), GuestEnd::RESET),
            (event("vm", "rebooted", "null"), NOTHING),
            (event("vm", "shutdown", "null"), GuestEnd::OFF),
            (event("guest", "panic", &panic("panic")), GuestEnd::PANIC),
            (event("guest", "panic", &panic("crash_loaded")), CRASHES),
            (event("guest", "panic", &panic("unknown_event")), NOTHING),
        ] {
            let word = event.find("\"event\"").unwrap();
            for cut in [0, 1, word, word + 4, word + 12] {
                let mut events = Events::make(&source).unwrap();
                assert_eq!(events.hear().end, NOTHING, "nobody writes");
                let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
                writer.write_all(&event.as_bytes()[..cut]).unwrap();
                assert_eq!(events.hear().end, NOTHING);
                writer.write_all(&event.as_bytes()[cut..]).unwrap();
                assert_eq!(events.hear().end, end, "{event}");
                drop(writer);
                assert_eq!(events.hear().end, end, "it stays so");
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
        let heard = (early.descriptor(), early.tells(), early.hear().end);
        assert_eq!(heard, (None, true, NOTHING), "it does not serve yet");
        let listener = UnixListener::bind(&path).unwrap();
        early.connect();
        assert!(early.descriptor().is_some());
        assert!(!early.tells());
        let (mut qemu, _) = listener.accept().unwrap();
        let mut hello = [0; QMP_HELLO.len()];
        qemu.read_exact(&mut hello).unwrap();
        assert_eq!(hello, QMP_HELLO.as_bytes());
        qemu.write_all(b"{\"return\": {}}\r\n{\"event\": \"RTC_CHANGE\", \"data\": {}}\r\n")
            .unwrap();
        assert!(early.tells());
        assert_eq!(early.hear().end, NOTHING);
        qemu.write_all(b"{\"timestamp\": {}, \"event\": \"GUEST_PANICKED\"}\r\n").unwrap();
        drop(qemu);
        assert_eq!(early.hear().end, GuestEnd::PANIC);
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
            ("guest-panic", true, GuestEnd::PANIC),
        ] {
            let (mut events, mut theirs) = connected();
            let data = format!("{{\"guest\": {guest}, \"reason\": \"{reason}\"}}");
            let event = format!("\"event\": \"SHUTDOWN\", \"data\": {data}");
            writeln!(theirs, "{{\"timestamp\": {{\"seconds\": 1}}, {event}}}\r").unwrap();
            drop(theirs);
            assert_eq!(events.hear().end, end, "{reason}");
        }
    }

    /// The messages are those of QEMU 7.2 for a disk that has no room, but for their times and for
    /// what is not read.
    #[test]
    fn qemu_is_asked_why_it_has_stopped_its_guest() {
        let (mut events, mut theirs) = connected();
        let mut tell = |words: &str| {
            theirs.write_all(words.as_bytes()).unwrap();
            (events.hear().motion, events.hear().more)
        };
        tell("{\"return\": {\"status\": \"running\", \"singlestep\": false}}\r\n");
        let io_error = "{\"timestamp\": {}, \"event\": \"BLOCK_IO_ERROR\", \"data\": {\"device\": \
            \"disk1\", \"nospace\": true, \"reason\": \"No space left on device\", \
            \"action\": \"stop\"}}\r\n";
        assert_eq!(tell(io_error), (Some(Motion::Goes), false));
        assert_eq!(tell("{\"timestamp\": {}, \"event\": \"STOP\"}\r\n"), (None, false));
        let disks = "{\"return\": [{\"io-status\": \"ok\", \"device\": \"disk0\"}, \
            {\"io-status\": \"nospace\", \"device\": \"disk1\"}]}\r\n";
        assert_eq!(tell(disks), (None, false));
        let status = "{\"return\": {\"status\": \"io-error\", \"running\": false}}\r\n";
        let halt = Motion::Halted(Halt::Disk { index: Some(1), full: true });
        assert_eq!(tell(status), (Some(halt), false));
        assert_eq!(tell("{\"event\": \"RESUME\"}\r\n"), (Some(Motion::Goes), false));
        assert_eq!(tell("{\"event\": \"STOP\"}\r\n"), (None, false));
        assert_eq!(
            tell("{\"return\": {\"status\": \"paused\"}}\r\n"),
            (Some(Motion::Paused), false)
        );
        let mut asked = vec![0; 2 * QMP_WHY.len()];
        theirs.read_exact(&mut asked).unwrap();
        assert_eq!(asked, QMP_WHY.repeat(2).as_bytes());
    }

    #[test]
    fn a_pause_is_heard_of_cloud_hypervisor() {
        let scratch = Scratch::new();
        let path = scratch.path().join("events");
        let mut events = Events::make(&EventSource::Fifo(path.clone())).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        for (word, motion) in [
            ("pausing", None),
            ("paused", Some(Motion::Paused)),
            ("resuming", Some(Motion::Paused)),
            ("resumed", Some(Motion::Goes)),
        ] {
            writer.write_all(event("vm", word, "null").as_bytes()).unwrap();
            assert_eq!(events.hear().motion, motion, "{word}");
        }
    }

    #[test]
    fn a_hypervisor_that_writes_much_is_heard_in_parts() {
        let (mut events, mut theirs) = connected();
        let word = "{\"event\": \"RTC_CHANGE\"}\r\n";
        theirs.write_all(word.repeat(CHUNK * CHUNKS_MAX / word.len()).as_bytes()).unwrap();
        theirs.write_all(b"{\"event\": \"RESUME\"}\r\n").unwrap();
        let heard = [events.hear(), events.hear()].map(|heard| (heard.motion, heard.more));
        assert_eq!(heard, [(None, true), (Some(Motion::Goes), false)]);
    }
}
