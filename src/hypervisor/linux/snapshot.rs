//! Takes a snapshot of a guest, and reads the description of one.
//!
//! All of this waits: for a hypervisor that writes gigabytes, for disks that are copied, for the
//! host's disk. So it runs in a thread of its own, never in the daemon's loop.
//!
//! **Rights.** The folder and its files belong to the user of all hypervisors, and the caller names
//! a place where this user may write. The daemon opens them with the rights of that user and hands
//! the hypervisor an open file. So it does not matter whether the VM has a user for itself, and
//! nobody gets a file written by naming it.
//!
//! **Order.** The guest stands still; its memory is saved, then its disks; it goes on. Only then
//! the files are synced, and the folder gets its name. Until then it is `NAME.part`. If a step
//! fails, that folder goes, and the guest goes on. The copy of a disk shares its blocks where the
//! file system can do that (`copy_file_range`), and holes stay holes.
//!
//! QEMU saves a guest by a migration (docs/devel/migration.rst of QEMU) into an open file that it
//! is given (`getfd`). `file:` exists since 8.2, and `exec:` needs a shell. Its state then is
//! `postmigrate`, from which it goes on by `cont`, as from a pause.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Whence, lseek64};
use serde_json::{Value, json};

use super::power::{self, QMP_HELLO};
use super::{confine, failure};
use crate::hypervisor::snapshot::{Copied, MEMORY, Taking, part_of};
use crate::hypervisor::user::User;
use crate::hypervisor::{Control, inputs};
use crate::model::error::{Failure, Refusal};
use crate::rights;
use crate::spec::snapshot::{DESCRIPTION, DESCRIPTION_BYTES_MAX, Snapshot, invalid};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How long QEMU may take for an answer to a command that takes no time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);
/// The most bytes of a line that it writes.
const LINE_MAX: u64 = 1 << 20;
/// How fast it may write, in bytes a second: faster than any disk. By default it holds itself back,
/// because a migration shares the network with others.
const BANDWIDTH: u64 = 1 << 40;
/// How much of a disk is copied at a time, in bytes. In between somebody may call it off. Blocks
/// are shared only where a piece ends at one.
const PIECE: u64 = 64 << 20;
/// The most bytes of a version.
const VERSION_MAX: usize = 256;

/// Removes a folder that did not become whole.
pub fn remove_part(part: &Path, user: Option<&User>) {
    match act(user, || fs::remove_dir_all(part)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => ::log::warn!("cannot remove {}: {error}", part.display()),
    }
}

/// Takes a snapshot. `is_over` says whether nobody wants it any more.
pub fn take(mut taking: Taking, is_over: impl Fn() -> bool) -> Result<(), Failure> {
    let (user, part) = (taking.user.clone(), part_of(&taking.folder));
    let user = user.as_ref();
    taking.snapshot.made_by.version =
        version(&taking.program, user).map_err(|reason| failure(&taking.name, reason))?;
    act(user, || DirBuilder::new().mode(FOLDER_MODE).create(&part))
        .map_err(|error| unwritten(&part, user, &error))?;
    let taken = save(&taking, &part, &is_over).and_then(|files| {
        finish(&taking, &part, files).map_err(|error| unwritten(&taking.folder, user, &error))
    });
    taken.inspect_err(|_| remove_part(&part, user))
}

/// Saves the guest, and lets it go on.
fn save(taking: &Taking, part: &Path, is_over: &impl Fn() -> bool) -> Result<Vec<File>, Failure> {
    let Control::Qmp(socket) = &taking.control else {
        return Err(failure(&taking.name, "volnet cannot ask it for that".into()));
    };
    let mut files = vec![create(taking, part, MEMORY)?];
    let failed = |reason| failure(&taking.name, reason);
    let mut qmp = Qmp::connect(socket).map_err(failed)?;
    let saved = qmp.save(&files[0], is_over).map_err(failed).and_then(|()| {
        for disk in &taking.copies {
            let copy = create(taking, part, &disk.name)?;
            copy_disk(taking, disk, &copy, is_over)?;
            files.push(copy);
        }
        Ok(())
    });
    // A guest that stays paused is not saved further either, if that was called off.
    let ended = qmp.cancel();
    let woken = if taking.stays_paused { ended } else { ended.and_then(|()| qmp.go_on()) };
    saved.and_then(|()| woken.map_err(failed))?;
    Ok(files)
}

/// Puts all of it on the disk, and gives the folder its name.
fn finish(taking: &Taking, part: &Path, files: Vec<File>) -> io::Result<()> {
    let user = taking.user.as_ref();
    let text = serde_json::to_vec_pretty(&taking.snapshot)?;
    files.iter().try_for_each(File::sync_all)?;
    act(user, || {
        let mut file = new_file(&part.join(DESCRIPTION))?;
        file.write_all(&text)?;
        file.sync_all()?;
        File::open(part)?.sync_all()?;
        fs::rename(part, &taking.folder)?;
        File::open(taking.folder.parent().unwrap_or(part))?.sync_all()
    })
}

fn create(taking: &Taking, part: &Path, name: &str) -> Result<File, Failure> {
    let (user, path) = (taking.user.as_ref(), part.join(name));
    act(user, || new_file(&path)).map_err(|error| unwritten(&path, user, &error))
}

fn new_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Copies a disk, hole by hole.
fn copy_disk(
    taking: &Taking,
    disk: &Copied,
    copy: &File,
    is_over: &impl Fn() -> bool,
) -> Result<(), Failure> {
    let failed = |error: io::Error| unwritten(&disk.from, taking.reader.as_ref(), &error);
    let mut from = act(taking.reader.as_ref(), || File::open(&disk.from)).map_err(failed)?;
    let mut to = copy;
    let mut copied = || -> io::Result<()> {
        let length = from.seek(SeekFrom::End(0))?;
        to.set_len(length)?;
        let mut at = 0;
        while let Some((begin, end)) = data_from(&from, at, length)? {
            from.seek(SeekFrom::Start(begin))?;
            to.seek(SeekFrom::Start(begin))?;
            at = end.min(begin + PIECE);
            if io::copy(&mut (&from).take(at - begin), &mut to)? < at - begin {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    };
    copied().map_err(failed)
}

/// The next bytes of a file that are no hole. A block device has none.
fn data_from(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |at: u64, whence, otherwise| match lseek64(file, at as i64, whence) {
        Ok(found) => Ok(Some(found as u64)),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(nix::Error::EINVAL) => Ok(Some(otherwise)),
        Err(error) => Err(io::Error::from(error)),
    };
    if at >= length {
        return Ok(None);
    }
    let Some(begin) = seek(at, Whence::SeekData, at)? else { return Ok(None) };
    Ok(seek(begin, Whence::SeekHole, length)?.map(|end| (begin, end)))
}

/// Reads the description of a snapshot, and sees that its memory is there.
pub fn read(folder: &Path, user: Option<&User>) -> Result<Snapshot, Refusal> {
    let (description, memory) = (folder.join(DESCRIPTION), folder.join(MEMORY));
    let text = act(user, || {
        let mut text = Vec::new();
        open(&description)?.take(DESCRIPTION_BYTES_MAX).read_to_end(&mut text)?;
        open(&memory)?;
        Ok(text)
    });
    let whom = user.map_or_else(String::new, |user| format!(", for user {}", user.name));
    let text = text.map_err(|error| invalid(folder, format!("{error}{whom}")))?;
    Snapshot::read(&text).map_err(|reason| invalid(folder, reason))
}

/// Opens the memory of a snapshot.
pub fn open_memory(folder: &Path, user: Option<&User>) -> Result<OwnedFd, Refusal> {
    let opened = act(user, || open(&folder.join(MEMORY)));
    opened.map(OwnedFd::from).map_err(|error| invalid(folder, format!("{MEMORY}: {error}")))
}

/// Opens a regular file. Whatever else somebody has put in its place is not waited for.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// What a program says of its version: its first line. It runs as the user of hypervisors.
pub fn version(program: &str, user: Option<&User>) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot ask {program} for its version: {error}");
    let found = act(user, || Ok(inputs::find_program(program))).map_err(cannot)??;
    let mut command = match user {
        None => Command::new(&found),
        Some(_) => {
            let mut command = Command::new(confine::PROGRAM);
            command.args(confine::words(user, None, None, &found));
            command
        }
    };
    command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let said = command.output().map_err(cannot)?.stdout;
    let text = String::from_utf8_lossy(&said);
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.chars().take(VERSION_MAX).collect()),
        None => Err(format!("{program} does not say its version")),
    }
}

/// Acts with the rights of a user; `None`: with the daemon's.
fn act<T>(user: Option<&User>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match user {
        None => act(),
        Some(user) => rights::act_as(user.uid, user.gid, act)?,
    }
}

/// The failure of a file, for the user that was to have it.
fn unwritten(path: &Path, user: Option<&User>, error: &io::Error) -> Failure {
    let reason = match user {
        None => error.to_string(),
        Some(user) => format!("{error}, for user {}", user.name),
    };
    Failure::State { path: path.display().to_string(), reason }
}

/// A connection to QEMU's machine protocol that waits for answers.
struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    fn connect(path: &Path) -> Result<Qmp, String> {
        let socket =
            power::send(path, QMP_HELLO).map_err(|error| format!("its socket: {error}"))?;
        let stream = UnixStream::from(OwnedFd::from(socket));
        stream.set_nonblocking(false).map_err(|error| error.to_string())?;
        let mut qmp = Qmp { stream: BufReader::new(stream) };
        qmp.answer("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Saves the guest, which stands still from then on.
    fn save(&mut self, memory: &File, is_over: &impl Fn() -> bool) -> Result<(), String> {
        self.ask("stop", &json!({}))?;
        self.give("snapshot", memory)?;
        self.ask("migrate-set-parameters", &json!({ "max-bandwidth": BANDWIDTH }))?;
        self.ask("migrate", &json!({ "uri": "fd:snapshot" }))?;
        loop {
            let told = self.ask("query-migrate", &json!({}))?;
            match told["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = told["error-desc"].as_str().unwrap_or("it does not say why");
                    return Err(format!("it cannot save its guest: {why}"));
                }
                _ if is_over() => return Err("it was told to end".into()),
                _ => thread::sleep(LOOK),
            }
        }
    }

    /// Ends a migration, if one goes on.
    fn cancel(&mut self) -> Result<(), String> {
        self.ask("migrate_cancel", &json!({})).map(drop)
    }

    /// Lets the guest go on, whatever has become of the snapshot.
    fn go_on(&mut self) -> Result<(), String> {
        let end = Instant::now() + ANSWER_MAX;
        loop {
            // While a migration ends, it is refused.
            let refused = self.ask("cont", &json!({})).err();
            if self.ask("query-status", &json!({}))?["running"] == true {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("its guest does not go on: {}", refused.unwrap_or_default()));
            }
            thread::sleep(LOOK);
        }
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let message = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        let written = self.stream.get_mut().write_all(message.as_bytes());
        written.map_err(|error| format!("{command}: {error}"))?;
        self.answer(command)
    }

    /// Gives it an open file under a name.
    fn give(&mut self, name: &str, file: &File) -> Result<(), String> {
        let message = json!({ "execute": "getfd", "arguments": { "fdname": name } }).to_string();
        let message = message + "\n";
        let descriptors = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let bytes = [IoSlice::new(message.as_bytes())];
        let socket = self.stream.get_ref().as_raw_fd();
        sendmsg::<()>(socket, &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(|error| format!("getfd: {error}"))?;
        self.answer("getfd").map(drop)
    }

    /// The answer to a command. What it tells meanwhile is for others.
    fn answer(&mut self, command: &str) -> Result<Value, String> {
        let end = Instant::now() + ANSWER_MAX;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("it did not answer {command} in time"));
            }
            let mut line = Vec::new();
            let stream = self.stream.get_ref();
            let read = stream
                .set_read_timeout(Some(left))
                .and_then(|()| (&mut self.stream).take(LINE_MAX).read_until(b'\n', &mut line));
            match read {
                Ok(0) => return Err(format!("it has ended the connection ({command})")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(format!("{command}: {error}")),
                Ok(_) => {}
            }
            let mut answer: Value =
                serde_json::from_slice(&line).map_err(|error| format!("{command}: {error}"))?;
            if let Some(error) = answer.get("error") {
                let why = error["desc"].as_str().unwrap_or_default();
                return Err(format!("{command}: {why}"));
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }
}
