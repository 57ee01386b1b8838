//! Files as the store needs them: read whole, replaced whole.
//!
//! An implementation supplies single steps, each of which a crash can fall behind; what is made of
//! them (the order of temp file, sync, rename and sync of the directory) stands here once, so the
//! disk in memory that crashes at every step tries the very sequence that runs on the real one.
//!
//! A temporary file is `.NAME.tmp` and a file set aside `NAME.bad-N`. Neither can be mistaken for
//! a file of the store, which begins with a letter or a digit and ends in `.json`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// How many files of one name are kept aside; the last place is used over and over.
const ASIDE_MAX: usize = 100;

/// A file system that can be the real one, or one in memory that fails and tears on command.
pub trait Disk {
    /// Reads a file whole. `Ok(None)` when there is none.
    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// The files in a directory, in no order; none when there is no such directory.
    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a directory and those above it, where missing, so that a power loss keeps them.
    fn make_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Step: makes a file, or empties it, and writes it. One that is to be `durable` is on its way
    /// to the disk, so that those that are written together arrive together.
    fn write(&mut self, path: &Path, contents: &[u8], durable: bool) -> io::Result<()>;

    /// Step: the contents of a file have reached the disk when this returns.
    fn sync(&mut self, path: &Path) -> io::Result<()>;

    /// Step: moves a file over another or to a new name in the same directory.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;

    /// Step: removes a file. An absent one is an error of kind `NotFound`.
    fn unlink(&mut self, path: &Path) -> io::Result<()>;

    /// Step: after this, a power loss keeps the directory's entries as they are.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;

    /// Replaces a file: readers see the old contents or the new, never a part. A power
    /// loss may undo that.
    fn replace(&mut self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let temporary = temporary(path);
        let replaced =
            self.write(&temporary, contents, false).and_then(|()| self.rename(&temporary, path));
        replaced.inspect_err(|_| self.give_up(&temporary))
    }

    /// Replaces files of one directory, each another, so that a power loss keeps the new contents
    /// when this returns. What is dear is shared: a journal that is committed for the first sync has
    /// what was written for all. What became of each stands in their order.
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

    /// Removes a temporary file: a full disk must not be kept full by what did not fit on it.
    fn give_up(&mut self, temporary: &Path) {
        let _ = self.unlink(temporary);
    }

    /// Removes a file; one that is absent is as good as removed. With `durable` a power loss does
    /// not bring it back.
    fn remove(&mut self, path: &Path, durable: bool) -> io::Result<()> {
        match self.unlink(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if durable { self.sync_directory(parent(path)) } else { Ok(()) }
    }

    /// Moves a file aside, so that a person can look at it, and says where it is now.
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

/// The temporary file that a file is written by.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Whether a file is a temporary one: what a crash left behind, since only one daemon writes.
pub fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(b".") && name.ends_with(b".tmp")
}
