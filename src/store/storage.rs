//! Files as the store needs them: each is read and replaced as a whole.
//!
//! An implementation supplies single steps, and a crash can happen after each. The sequence of the
//! steps (temporary file, sync, rename, sync of the directory) is written here once. So the disk in
//! memory, which crashes at every step, tries the same sequence that runs on the real disk.
//!
//! A temporary file is `.NAME.tmp` and a file set aside `NAME.bad-N`. A file of the store begins
//! with a letter or a digit and ends in `.json`, so it cannot be confused with either.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::record::DirectoryId;

/// How many files of one name are kept aside. The last place is reused.
const ASIDE_MAX: usize = 100;

/// Why a file was not read.
#[derive(Debug)]
pub enum ReadError {
    /// The reason is the file itself: the next read would fail as well.
    File(String),
    /// The reason is the host (no file descriptors, no memory) or the administrator (an owner that
    /// is not trusted). It says nothing about the contents: once it is mended, the file can be
    /// read.
    Host(io::Error),
}

/// The real file system, or one in memory that fails and tears writes on command.
pub trait Storage {
    /// Reads a whole file. `Ok(None)` if there is none.
    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ReadError>;

    /// The files in a directory, in no order. A directory that does not exist has none.
    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Which directory has this path; `None` if there is none.
    fn identify(&mut self, directory: &Path) -> io::Result<Option<DirectoryId>>;

    /// Makes a directory and its missing parents, and syncs them.
    fn make_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Step: makes a file, or empties it, and writes it. With `durable`, write-back begins at once,
    /// so that files that are written together reach the disk together.
    fn write(&mut self, path: &Path, contents: &[u8], durable: bool) -> io::Result<()>;

    /// Step: syncs the contents of a file to the disk.
    fn sync(&mut self, path: &Path) -> io::Result<()>;

    /// Step: moves a file over another or to a new name in the same directory.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Step: removes a file. If it is absent, the error is `NotFound`.
    fn unlink(&mut self, path: &Path) -> io::Result<()>;

    /// Step: syncs the entries of a directory to the disk.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Replaces a file. Readers see the old contents or the new, never a part. A power loss may
    /// undo it.
    fn replace(&mut self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        let replaced =
            self.write(&temporary, contents, false).and_then(|()| self.rename(&temporary, path));
        replaced.inspect_err(|_| self.give_up(&temporary))
    }

    /// Replaces different files of one directory durably: after this a power loss keeps the new
    /// contents. The expensive part is shared: the journal commit for the first sync includes the
    /// writes of all. Returns the result of each file, in their order.
    fn replace_durably(&mut self, files: &[(PathBuf, Vec<u8>)]) -> Vec<io::Result<()>> {
        let mut results: Vec<io::Result<()>> = files
            .iter()
            .map(|(path, contents)| self.write(&temporary(path), contents, true))
            .collect();
        let mut each = |step: &mut dyn FnMut(&mut Self, &Path) -> io::Result<()>| {
            for ((path, _), result) in files.iter().zip(&mut results) {
                if result.is_ok() {
                    *result = step(self, path);
                }
            }
        };
        each(&mut |disk, path| disk.sync(&temporary(path)));
        each(&mut |disk, path| disk.rename(&temporary(path), path));
        for ((path, _), _) in files.iter().zip(&results).filter(|(_, result)| result.is_err()) {
            self.give_up(&temporary(path));
        }
        let renamed = files.iter().zip(&results).find(|(_, result)| result.is_ok());
        let synced = renamed.map_or(Ok(()), |((path, _), _)| self.sync_directory(parent(path)));
        if let Err(error) = synced {
            let same = || io::Error::new(error.kind(), error.to_string());
            results.iter_mut().filter(|result| result.is_ok()).for_each(|it| *it = Err(same()));
        }
        results
    }

    /// Removes a temporary file, so that a file that did not fit does not keep the disk full.
    fn give_up(&mut self, temporary: &Path) {
        let _ = self.unlink(temporary);
    }

    /// Removes a file. If it is absent, nothing is to do. With `durable`, a power loss does not
    /// bring it back.
    fn remove(&mut self, path: &Path, durable: bool) -> io::Result<()> {
        match self.unlink(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if durable { self.sync_directory(parent(path)) } else { Ok(()) }
    }

    /// Moves a file aside, so that a person can look at it, and returns its new path.
    fn set_aside(&mut self, path: &Path) -> io::Result<PathBuf> {
        let there = self.list(parent(path))?;
        let place = |n: usize| {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".bad-{n}"));
            path.with_file_name(name)
        };
        let free = (1..ASIDE_MAX).map(place).find(|candidate| !there.contains(candidate));
        let aside = free.unwrap_or_else(|| place(ASIDE_MAX));
        self.rename(path, &aside)?;
        Ok(aside)
    }
}

/// The directory a file is in.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Whether [`Storage::set_aside`] made the file.
pub fn is_aside(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| ending.starts_with("bad-"))
}

/// The temporary file for a file.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Whether a file is a temporary one. A crash left it, because only one daemon writes.
pub fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(b".") && name.ends_with(b".tmp")
}
