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
//! How each hypervisor is asked to save its guest is in [`qmp`], [`firecracker`] and
//! [`cloud_hypervisor`].

mod api;
mod cloud_hypervisor;
mod firecracker;
mod qmp;

use std::fs::{self, DirBuilder, File, FileType};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::iter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Whence, lseek64};

use serde_json::Value;

use self::cloud_hypervisor::CloudHypervisor;
use self::firecracker::Firecracker;
use self::qmp::Qmp;
use super::{confine, failure, spawn};
use crate::hypervisor::cloud_hypervisor::saved;
use crate::hypervisor::snapshot::{self, Copied, Taking, part_of};
use crate::hypervisor::user::User;
use crate::hypervisor::{Control, inputs};
use crate::model::error::{Failure, Refusal};
use crate::rights;
use crate::spec::snapshot::{DESCRIPTION, DESCRIPTION_BYTES_MAX, Snapshot, invalid};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How long a hypervisor may take for an answer to a command that takes no time.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often it is asked how far it is, and whether somebody called it off.
const LOOK: Duration = Duration::from_millis(20);
/// How much of a disk is copied at a time, in bytes. In between somebody may call it off. Blocks
/// are shared only where a piece ends at one.
const PIECE: u64 = 64 << 20;
/// How often a folder is removed in which a hypervisor makes a file meanwhile: once more than it
/// makes files.
const REMOVALS: u32 = 4;
/// The most bytes of a version.
const VERSION_MAX: u64 = 256;

/// Removes a folder that did not become whole. A hypervisor may still make files there: then it is
/// removed again.
pub fn remove_part(part: &Path, user: Option<&User>) {
    let mut removed = Ok(());
    for _ in 0..REMOVALS {
        removed = act(user, || fs::remove_dir_all(part));
        match &removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Ok(()) | Err(_) => break,
        }
    }
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => ::log::warn!("cannot remove {}: {error}", part.display()),
    }
}

/// Takes a snapshot. The hypervisor has so long for an answer to a command that takes no time;
/// `is_over` says whether nobody wants the snapshot any more.
pub fn take(
    mut taking: Taking,
    answer_max: Duration,
    is_over: impl Fn() -> bool,
) -> Result<(), Failure> {
    let (user, part) = (taking.user.clone(), part_of(&taking.folder));
    let user = user.as_ref();
    let failed = |reason| failure(&taking.name, reason);
    // Before there is a folder: one that still writes a snapshot that was given up finds none.
    let mut saver = Saver::connect(&taking, answer_max).map_err(failed)?;
    // The process is asked, not its program: that may have been upgraded since it was started.
    let version = saver.version().map_err(failed)?;
    taking.snapshot.made_by.version = version;
    act(user, || DirBuilder::new().mode(FOLDER_MODE).create(&part)).map_err(|error| {
        let above = part.parent().filter(|_| error.kind() == io::ErrorKind::NotFound);
        unwritten(above.unwrap_or(&part), user, &error)
    })?;
    let taken = save(&taking, saver, &part, &is_over).and_then(|files| {
        finish(&taking, &part, files, &is_over)
            .map_err(|error| unwritten(&taking.folder, user, &error))
    });
    taken.inspect_err(|_| remove_part(&part, user))
}

/// Saves the guest, and lets it go on.
fn save(
    taking: &Taking,
    mut saver: Saver,
    part: &Path,
    is_over: &impl Fn() -> bool,
) -> Result<Vec<File>, Failure> {
    let failed = |reason| failure(&taking.name, reason);
    let each = |open: fn(&Taking, &Path, &str) -> Result<File, Failure>| {
        let names = snapshot::files(&taking.snapshot.made_by.hypervisor).iter();
        names.map(|name| open(taking, part, name)).collect::<Result<Vec<File>, _>>()
    };
    let makes_files = matches!(saver, Saver::CloudHypervisor(_));
    let mut files = if makes_files { Vec::new() } else { each(create)? };
    let saved = saver.save(part, &files, is_over).map_err(failed).and_then(|()| {
        if makes_files {
            files = each(reopen)?;
        }
        for disk in &taking.copies {
            let copy = create(taking, part, &disk.name)?;
            copy_disk(taking, disk, &copy, is_over)?;
            files.push(copy);
        }
        Ok(())
    });
    let ended = saver.end(taking.stays_paused);
    saved.and_then(|()| ended.map_err(failed))?;
    Ok(files)
}

/// A hypervisor that is asked to save its guest.
enum Saver {
    Qmp(Qmp),
    Firecracker(Firecracker),
    CloudHypervisor(CloudHypervisor),
}

impl Saver {
    fn connect(taking: &Taking, answer_max: Duration) -> Result<Saver, String> {
        match &taking.control {
            Control::Qmp(socket) => Qmp::connect(socket, answer_max).map(Saver::Qmp),
            Control::Firecracker(socket) => {
                Firecracker::connect(socket, answer_max).map(Saver::Firecracker)
            }
            Control::CloudHypervisor(socket) => {
                CloudHypervisor::connect(socket, answer_max).map(Saver::CloudHypervisor)
            }
            Control::Terminate => Err("volnet cannot ask it for that".into()),
        }
    }

    /// The version of its process, in the words in which its program says it ([`version`]).
    fn version(&mut self) -> Result<String, String> {
        match self {
            Saver::Qmp(qmp) => qmp.version(),
            Saver::Firecracker(firecracker) => firecracker.version(),
            Saver::CloudHypervisor(hypervisor) => hypervisor.version(),
        }
    }

    /// Saves the guest, which stands still from then on. `files` are those of its memory and
    /// devices, in the folder `part`.
    fn save(
        &mut self,
        part: &Path,
        files: &[File],
        is_over: &impl Fn() -> bool,
    ) -> Result<(), String> {
        match (self, files) {
            (Saver::Qmp(qmp), [memory, ..]) => qmp.save(memory, is_over),
            (Saver::Qmp(_), []) => Err("it has no file for its memory".into()),
            (Saver::Firecracker(firecracker), _) => firecracker.save(part, is_over),
            (Saver::CloudHypervisor(hypervisor), _) => hypervisor.save(part, is_over),
        }
    }

    /// Lets the guest go on, if it is to, whatever has become of the snapshot.
    fn end(&mut self, stays_paused: bool) -> Result<(), String> {
        match self {
            // A guest that stays paused is not saved further either, if that was called off.
            Saver::Qmp(qmp) if stays_paused => qmp.cancel(),
            Saver::Qmp(qmp) => {
                let ended = qmp.cancel();
                // Whatever has become of that.
                qmp.go_on().map_err(|reason| ended.err().unwrap_or(reason))
            }
            Saver::Firecracker(_) | Saver::CloudHypervisor(_) if stays_paused => Ok(()),
            Saver::Firecracker(firecracker) => firecracker.go_on(),
            Saver::CloudHypervisor(hypervisor) => hypervisor.go_on(),
        }
    }
}

/// Puts all of it on the disk, and gives the folder its name.
fn finish(
    taking: &Taking,
    part: &Path,
    files: Vec<File>,
    is_over: &impl Fn() -> bool,
) -> io::Result<()> {
    let user = taking.user.as_ref();
    let text = serde_json::to_vec_pretty(&taking.snapshot)?;
    for file in files {
        file.sync_all()?;
        if is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
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

/// Opens what a hypervisor has made.
fn reopen(taking: &Taking, part: &Path, name: &str) -> Result<File, Failure> {
    let (user, path) = (taking.user.as_ref(), part.join(name));
    act(user, || open(&path)).map_err(|error| unwritten(&path, user, &error))
}

pub(super) fn new_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

fn copy_disk(
    taking: &Taking,
    disk: &Copied,
    copy: &File,
    is_over: &impl Fn() -> bool,
) -> Result<(), Failure> {
    let failed = |error: io::Error| unwritten(&disk.from, taking.reader.as_ref(), &error);
    let from = act(taking.reader.as_ref(), || open_disk(&disk.from)).map_err(failed)?;
    let look = || match is_over() {
        true => Err(io::ErrorKind::Interrupted.into()),
        false => Ok(()),
    };
    copy_file(&from, copy, look).map_err(failed)
}

/// Copies a disk, hole by hole, and looks after each piece whether to go on.
pub(super) fn copy_file(
    mut from: &File,
    mut to: &File,
    look: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let length = from.seek(SeekFrom::End(0))?;
    to.set_len(length)?;
    let mut at = 0;
    while let Some((begin, end)) = data_from(from, at, length)? {
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        at = end.min(begin + PIECE);
        if io::copy(&mut from.take(at - begin), &mut to)? < at - begin {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        look()?;
    }
    Ok(())
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

/// Reads the description of a snapshot, and sees that what its hypervisor wrote is there.
pub fn read(folder: &Path, user: Option<&User>) -> Result<Snapshot, Refusal> {
    let wrong = |name: &str, error: &io::Error| unopened(folder, name, user, error);
    let text = act(user, || {
        let mut text = Vec::new();
        open(&folder.join(DESCRIPTION))?.take(DESCRIPTION_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    });
    let text = text.map_err(|error| wrong(DESCRIPTION, &error))?;
    let snapshot = Snapshot::read(&text).map_err(|reason| invalid(folder, reason))?;
    for name in snapshot::files(&snapshot.made_by.hypervisor) {
        act(user, || open(&folder.join(name))).map_err(|error| wrong(name, &error))?;
    }
    Ok(snapshot)
}

/// Opens the memory of a snapshot of this hypervisor, as this user.
pub fn open_memory(
    folder: &Path,
    hypervisor: &str,
    user: Option<&User>,
) -> Result<OwnedFd, Refusal> {
    let name = snapshot::files(hypervisor)[0];
    let opened = act(user, || open(&folder.join(name)));
    opened.map(OwnedFd::from).map_err(|error| unopened(folder, name, user, &error))
}

/// Reads how Cloud Hypervisor had configured a guest that it has saved, as this user.
pub fn read_configuration(folder: &Path, user: Option<&User>) -> Result<Value, Refusal> {
    let mut text = Vec::new();
    let read = act(user, || {
        let file = open(&folder.join(saved::CONFIGURATION))?;
        file.take(saved::CONFIGURATION_BYTES_MAX).read_to_end(&mut text)
    });
    read.map_err(|error| unopened(folder, saved::CONFIGURATION, user, &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| invalid(folder, format!("{}: {error}", saved::CONFIGURATION)))
}

fn unopened(folder: &Path, name: &str, user: Option<&User>, error: &io::Error) -> Refusal {
    let whom = user.map_or_else(String::new, |user| format!(", for user {}", user.name));
    invalid(folder, format!("{name}: {error}{whom}"))
}

/// Opens a regular file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_if(path, FileType::is_file, "it is not a regular file")
}

/// Opens a disk.
fn open_disk(path: &Path) -> io::Result<File> {
    let is_disk = |kind: &FileType| kind.is_file() || kind.is_block_device();
    open_if(path, is_disk, "it is neither a regular file nor a block device")
}

/// Opens a file of that kind. Whatever else somebody has put in its place is not waited for.
fn open_if(path: &Path, is_right: fn(&FileType) -> bool, otherwise: &str) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match is_right(&file.metadata()?.file_type()) {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, otherwise)),
    }
}

/// What a program says of its version: its first line. It runs as the user of hypervisors, and is
/// ended when it has said that, or nothing for a while.
pub fn version(program: &str, user: Option<&User>) -> Result<String, String> {
    let cannot = |error: io::Error| format!("cannot ask {program} for its version: {error}");
    let found = act(user, || Ok(inputs::find_program(program))).map_err(cannot)??;
    let mut command = match user {
        None => Command::new(&found),
        Some(_) => {
            let mut command = Command::new(confine::PROGRAM);
            command.args(confine::words(user, None, None, None, &found));
            command
        }
    };
    // A read of a socket can have an end, that of a pipe cannot.
    let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
    ours.set_read_timeout(Some(ANSWER_MAX)).map_err(cannot)?;
    command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(OwnedFd::from(theirs));
    let mut child = spawn::with_open(&mut command, iter::empty()).map_err(cannot)?;
    // Its end of the socket is now the program's alone.
    drop(command);
    let mut line = Vec::new();
    let said = BufReader::new(ours).take(VERSION_MAX).read_until(b'\n', &mut line);
    let _ = child.kill().and_then(|()| child.wait());
    match String::from_utf8_lossy(&line).trim() {
        "" => Err(match said.err() {
            Some(error) => cannot(error),
            None => format!("{program} does not say its version"),
        }),
        line => Ok(line.into()),
    }
}

/// Acts with the rights of a user; `None`: with the daemon's.
pub(super) fn act<T>(user: Option<&User>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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

#[cfg(test)]
mod tests;
