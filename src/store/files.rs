//! The real file system.
//!
//! Our directories are 0700 and our files 0600: a record has kernel command lines, and these often
//! have secrets. Directories above them (`/run/volnet` has the socket, which the group may use) are
//! made 0755 if they are missing. Otherwise they stay as they are.
//!
//! The files say which programs to run, so they must belong to root or to our own user.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::geteuid;

use super::storage::{ReadError, Storage};
use crate::model::record::DirectoryId;

/// The largest file that is read, in bytes. It is many times the largest message.
pub const FILE_MAX: u64 = 1 << 20;

const DIRECTORY_MODE: u32 = 0o700;
const PARENT_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o600;

/// The real file system.
#[derive(Debug, Default)]
pub struct Files;

impl Storage for Files {
    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
        // Check the type before opening: to open a FIFO would wait for a writer.
        let kind = match fs::metadata(path) {
            Ok(kind) => kind,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        if !kind.is_file() {
            return Err(ReadError::File("it is not a regular file".into()));
        }
        let own = geteuid().as_raw();
        if kind.uid() != 0 && kind.uid() != own {
            let reason = format!(
                "it belongs to user {}, not to user {own}: change its owner with chown",
                kind.uid()
            );
            return Err(ReadError::Host(io::Error::new(io::ErrorKind::PermissionDenied, reason)));
        }
        let mut contents = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut contents))
            .map_err(read_error)?;
        if contents.len() as u64 > FILE_MAX {
            return Err(ReadError::File(format!("it is longer than {FILE_MAX} bytes")));
        }
        Ok(Some(contents))
    }

    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                files.push(entry.path());
            }
        }
        Ok(files)
    }

    fn identify(&mut self, directory: &Path) -> io::Result<Option<DirectoryId>> {
        match fs::metadata(directory) {
            Ok(found) => Ok(Some(DirectoryId { device: found.dev(), inode: found.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make_directory(&mut self, directory: &Path) -> io::Result<()> {
        make_directory(directory, DIRECTORY_MODE)
    }

    fn write(&mut self, path: &Path, contents: &[u8], durable: bool) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = options.open(path)?;
        file.write_all(contents)?;
        if durable {
            // Linux begins write-back of pages that it is told to drop (mm/fadvise.c). Without
            // this, ext4 allocates blocks for a file only at its sync, with a journal commit for
            // each file.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    /// This descriptor is not the one that wrote the file. Linux still reports a write error that
    /// nobody has seen yet (Documentation/core-api/errseq.rst).
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// Tells a file that the disk cannot read (`EIO`) from a host that does not let it be read.
fn read_error(error: io::Error) -> ReadError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => ReadError::File(error.to_string()),
        Some(_) | None => ReadError::Host(error),
    }
}

fn make_directory(directory: &Path, mode: u32) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(Path::new("/"));
    make_directory(parent, PARENT_MODE)?;
    match DirBuilder::new().mode(mode).create(directory) {
        Ok(()) => File::open(parent)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::tests::Scratch;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn nobody_else_reads_what_is_written() {
        let scratch = Scratch::new();
        let directory = scratch.path().join("run/vms");
        Files.make_directory(&directory).unwrap();
        Files.make_directory(&directory).unwrap();
        let file = directory.join("a.json");
        assert!(Files.replace_durably(&[(file.clone(), b"one".into())])[0].is_ok());
        Files.replace(&file, b"two").unwrap();
        assert_eq!(Files.read(&file).unwrap().unwrap(), b"two");
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&scratch.path().join("run")), 0o755);
        assert_eq!(mode(&file), 0o600);
        assert_eq!(Files.list(&directory).unwrap(), vec![file.clone()]);
        Files.remove(&file, true).unwrap();
        Files.remove(&file, true).unwrap();
        assert_eq!(Files.read(&file).unwrap(), None);
        assert!(Files.list(&scratch.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_the_old_file() {
        let scratch = Scratch::new();
        let file = scratch.path().join("a.json");
        Files.replace(&file, b"old").unwrap();
        // The kernel's own full disk, where the temporary file is going to be.
        std::os::unix::fs::symlink("/dev/full", scratch.path().join(".a.json.tmp")).unwrap();
        let other = scratch.path().join("b.json");
        let both = [(file.clone(), b"new".into()), (other.clone(), b"new".into())];
        let results = Files.replace_durably(&both);
        assert_eq!(results[0].as_ref().unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        assert!(results[1].is_ok(), "the other one is not kept from it");
        assert_eq!(Files.read(&file).unwrap().unwrap(), b"old");
        assert_eq!(Files.read(&other).unwrap().unwrap(), b"new");
        let mut left = Files.list(scratch.path()).unwrap();
        left.sort();
        assert_eq!(left, [file, other]);
    }

    #[test]
    fn what_is_no_file_or_too_long_is_not_read() {
        let scratch = Scratch::new();
        let fifo = scratch.path().join("fifo.json");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(Files.read(&fifo), Err(ReadError::File(_))));
        let long = scratch.path().join("long.json");
        fs::write(&long, vec![b' '; FILE_MAX as usize + 1]).unwrap();
        assert!(matches!(Files.read(&long), Err(ReadError::File(_))));
    }

    #[test]
    #[ignore = "needs root"]
    fn a_file_of_another_user_is_not_read() {
        let scratch = Scratch::new();
        let theirs = scratch.path().join("theirs.json");
        fs::write(&theirs, "{}").unwrap();
        std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
        let Err(ReadError::Host(error)) = Files.read(&theirs) else { panic!("it was read") };
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("user 12345"), "{error}");
    }
}
