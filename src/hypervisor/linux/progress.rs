//! Asks a hypervisor whether its guest runs, or is paused.
//!
//! Each answers in its own way (Cloud Hypervisor v53.0-246-gae44c2971, Firecracker 1.17.0-dev
//! 81b38b9da, QEMU 7.2; milliseconds after exec, with a kernel of 53 MB):
//!
//! | hypervisor | question | its socket accepts | `Running` |
//! |---|---|---|---|
//! | Cloud Hypervisor | `GET /api/v1/vm.info` | at 3 to 10 | at 59 to 101 |
//! | Firecracker | `GET /` | at 2 to 5 | at 60 to 70 |
//! | QEMU | `query-status` | after its arguments | when its main loop runs |
//!
//! Cloud Hypervisor first says `Created` (5 to 8). Asked again, it answers when the guest has
//! booted. Firecracker answers only then.
//!
//! If a guest cannot be started, Cloud Hypervisor ends with status 1 at 20 to 25, Firecracker at 12
//! to 36. Both write why to the log. But if Firecracker fails while a request is open, its thread
//! for the API ends it by SIGABRT, mostly before it has written why. So it is not asked before it
//! has made the threads that run the guest, which it does last (`build_microvm_for_boot` in
//! src/vmm/src/builder.rs).
//!
//! A Firecracker that is to wake a guest has no such threads, and none before it is asked to load
//! the snapshot. So that is its first question, which is in the VM's folder: also a later daemon
//! finds it there. It reads all of it at once, maps the memory, and says what is wrong before it
//! ends (`load_snapshot` in src/vmm/src/rpc_interface.rs). A second request is refused and does no
//! harm.
//!
//! Nothing here waits. A question is kept between two looks. If its answer has come and the guest
//! does not run, the next look asks again. Only the last bytes of an answer are kept, so its length
//! does not matter.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use socket2::Socket;

use super::{identity, pause, power};
use crate::hypervisor::{Control, firecracker};
use crate::model::record::{Order, Progress};
use crate::rights;

/// docs/interop/qemu-qmp-ref of QEMU.
const QMP: &str = "{\"execute\":\"query-status\"}\n";
/// vmm/src/api/openapi/cloud-hypervisor.yaml of Cloud Hypervisor, `VmInfo`.
const CLOUD_HYPERVISOR: &str = "GET /api/v1/vm.info HTTP/1.1\r\nHost: localhost\r\n\
    Accept: */*\r\n\r\n";
/// src/firecracker/swagger/firecracker.yaml of Firecracker, `InstanceInfo`.
const FIRECRACKER: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";

/// The same, `SnapshotLoadParams`.
const FIRECRACKER_LOAD: &str = "PUT /snapshot/load HTTP/1.1\r\nHost: localhost\r\n\
    Accept: */*\r\nContent-Type: application/json\r\n";
/// The most bytes of what it is asked to load. It takes 51,200 in a request
/// (`HTTP_MAX_PAYLOAD_SIZE` in src/vmm/src/lib.rs).
const LOAD_BYTES_MAX: u64 = 51_200;

/// What the names of its threads that run the guest begin with (src/vmm/src/vstate/vcpu.rs).
const FIRECRACKER_VCPUS: &str = "fc_vcpu";

/// What is looked for in an answer, without spaces. A text in JSON cannot have these bytes, because
/// its quotes are escaped.
struct Speech {
    /// The guest runs.
    runs: &'static [u8],
    /// It stands still, and goes on if it is told to.
    paused: &'static [&'static [u8]],
    /// Any answer to the question has this.
    answer: &'static [u8],
}

const HTTP_SPEECH: Speech = Speech {
    runs: b"\"state\":\"Running\"",
    paused: &[b"\"state\":\"Paused\""],
    answer: b"HTTP/1.",
};
/// docs/interop/qemu-qmp-ref of QEMU, `StatusInfo` and `RunState`. It stops a guest by itself if
/// its disk has no room (`io-error`), and leaves one that was saved as it was then
/// (`postmigrate`).
const QMP_SPEECH: Speech = Speech {
    runs: b"\"status\":\"running\"",
    paused: &[b"\"status\":\"paused\"", b"\"status\":\"io-error\"", b"\"status\":\"postmigrate\""],
    answer: b"\"status\":",
};

/// Bytes that are read at a time.
const CHUNK: usize = 4096;
/// Chunks that are read in one look: a hypervisor that sends for ever does not keep the loop.
const CHUNKS_MAX: usize = 16;
/// Bytes of an answer that are kept between two reads. More than each of the states has.
const KEPT: usize = 32;

/// A question that was sent.
#[derive(Debug)]
pub(super) struct Question {
    connection: Socket,
    /// The end of what was answered, without spaces.
    kept: Vec<u8>,
    /// Whether something has been answered.
    heard: bool,
}

/// How far a start is. `question` is kept between two looks.
pub(super) fn look(control: &Control, pid: u32, question: &mut Option<Question>) -> Progress {
    let speech = match control {
        Control::Qmp(_) => &QMP_SPEECH,
        Control::CloudHypervisor(_) | Control::Firecracker(_) => &HTTP_SPEECH,
        Control::Terminate => return Progress::Untold,
    };
    if question.is_none() {
        // It may not serve yet.
        *question = Question::first(control, pid).ok().flatten();
    }
    let Some(open) = question else { return Progress::Starting };
    match open.hear(speech) {
        Some(Progress::Starting) => Progress::Starting,
        answered => {
            // The connection ends: QEMU serves one client at a time.
            *question = None;
            answered.unwrap_or(Progress::Starting)
        }
    }
}

/// Asks it to let its guest stand still or go on, and then whether the guest does. An order that it
/// refuses is answered alike, with what is.
pub(super) fn order(control: &Control, order: Order) -> io::Result<Question> {
    let words = pause::words(control, order).ok_or(ErrorKind::Unsupported)?;
    Question::send(control, words)
}

/// What Firecracker is asked to load, if it is to wake a guest. Its user has the file.
fn load(socket: &Path) -> io::Result<String> {
    let path = socket.with_file_name(firecracker::LOAD);
    let open = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let mut body = String::new();
    rights::act_as_owner(path.parent().unwrap_or(&path), open)?
        .take(LOAD_BYTES_MAX)
        .read_to_string(&mut body)?;
    Ok(format!("{FIRECRACKER_LOAD}Content-Length: {}\r\n\r\n{body}", body.len()))
}

impl Question {
    /// Sends the question that does no harm by now, if there is one.
    fn first(control: &Control, pid: u32) -> io::Result<Option<Question>> {
        match control {
            Control::Firecracker(path) if !identity::has_thread(pid, FIRECRACKER_VCPUS) => {
                match load(path) {
                    Ok(words) => power::send(path, &words).map(Question::on).map(Some),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Control::Qmp(_)
            | Control::CloudHypervisor(_)
            | Control::Firecracker(_)
            | Control::Terminate => Question::send(control, "").map(Some),
        }
    }

    fn on(connection: Socket) -> Question {
        Question { connection, kept: Vec::new(), heard: false }
    }

    /// Sends it, behind an order.
    fn send(control: &Control, order: &str) -> io::Result<Question> {
        let (path, hello, question) = match control {
            Control::Qmp(path) => (path, power::QMP_HELLO, QMP),
            Control::CloudHypervisor(path) => (path, "", CLOUD_HYPERVISOR),
            Control::Firecracker(path) => (path, "", FIRECRACKER),
            Control::Terminate => return Err(ErrorKind::Unsupported.into()),
        };
        power::send(path, &[hello, order, question].concat()).map(Question::on)
    }

    /// Reads what has come of the answer. `None` if it has come, and the guest does not run.
    fn hear(&mut self, speech: &Speech) -> Option<Progress> {
        let mut chunk = [0; CHUNK];
        let before = std::mem::take(&mut self.heard);
        for _ in 0..CHUNKS_MAX {
            match (&self.connection).read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => {
                    self.kept.extend(chunk[..length].iter().filter(|byte| **byte != b' '));
                    let has =
                        |word: &[u8]| self.kept.windows(word.len()).any(|window| window == word);
                    if speech.paused.iter().any(|state| has(state)) {
                        return Some(Progress::Paused);
                    }
                    if has(speech.runs) {
                        return Some(Progress::Running);
                    }
                    self.heard |= has(speech.answer);
                    let surplus = self.kept.len().saturating_sub(KEPT);
                    self.kept.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        // An answer is written at once. If nothing more has come since the last look, this was it.
        (self.heard || !before).then_some(Progress::Starting)
    }
}
