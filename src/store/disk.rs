//! Files as the store needs them: read whole, replaced whole.

use std::io;
use std::path::{Path, PathBuf};

/// A file system that can be the real one, or one in memory that fails and tears on command.
pub trait Disk {
    /// Reads a file whole. `Ok(None)` when there is none.
    fn read(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// The files in a directory, in no order; none when there is no such directory.
    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// Replaces a file: readers see the old contents or the new, never a part. With `durable` the
    /// new contents have reached the disk when this returns.
    fn replace(&mut self, path: &Path, contents: &[u8], durable: bool) -> io::Result<()>;

    /// Removes a file; one that is absent is as good as removed.
    fn remove(&mut self, path: &Path, durable: bool) -> io::Result<()>;

    /// Moves a file aside, so that a person can look at it.
    fn set_aside(&mut self, path: &Path) -> io::Result<PathBuf>;
}
