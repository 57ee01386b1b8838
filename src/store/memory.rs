//! A disk in memory for tests and simulation. It fails, crashes and loses data on command.
//!
//! Every step that changes something is counted. A fault is set for one step: the step fails with
//! an errno, or the machine stops there and every later call fails until [`Memory::restart`]. If
//! only the daemon stopped, all steps count after the restart. If the machine stopped, directories
//! and contents are as they were last synced or as they were at the end, as the caller chooses: a
//! real disk may do either, and the store must cope with both.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::storage::{ReadError, Storage};
use crate::model::record::DirectoryId;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageFault {
    /// The step fails with this errno; a write gets half of its bytes down first.
    Errno(i32),
    /// The machine stops before the step; a write gets half of its bytes down first.
    Crash,
}

/// What stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The daemon. All its steps count.
    Daemon,
    /// The machine. This becomes of data that was never synced.
    Machine { entries: Unsynced, contents: Unsynced },
}

/// What becomes of data that was never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// It is there.
    Kept,
    /// It is gone.
    Lost,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Inode {
    contents: Vec<u8>,
    synced: Vec<u8>,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    inodes: Vec<Inode>,
    entries: BTreeMap<PathBuf, usize>,
    synced_entries: BTreeMap<PathBuf, usize>,
    directories: BTreeMap<PathBuf, DirectoryId>,
    /// The directories that were ever made.
    made: u64,
    volatile: Option<PathBuf>,
    steps: usize,
    fault: Option<(usize, StorageFault)>,
    stopped: bool,
}

impl Memory {
    /// An empty disk. Everything below `volatile` is gone when the machine stops.
    pub fn new(volatile: impl Into<PathBuf>) -> Memory {
        Memory { volatile: Some(volatile.into()), ..Memory::default() }
    }

    /// How many steps have been taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Sets a fault for the step after the next `after` steps.
    pub fn fail(&mut self, after: usize, fault: StorageFault) {
        self.fault = Some((self.steps + after, fault));
    }

    /// Whether nobody can tell one from the other, whatever is done to both.
    pub fn is_like(&self, other: &Memory) -> bool {
        let Memory {
            inodes,
            entries,
            synced_entries,
            directories,
            made,
            volatile,
            steps: _,
            fault,
            stopped,
        } = self;
        (made, stopped, volatile) == (&other.made, &other.stopped, &other.volatile)
            && (fault, &other.fault) == (&None, &None)
            && *inodes == other.inodes
            && *entries == other.entries
            && *synced_entries == other.synced_entries
            && *directories == other.directories
    }

    /// Removes the fault.
    pub fn disarm(&mut self) {
        self.fault = None;
    }

    /// Starts again with the data that is left, without a fault.
    pub fn restart(&mut self, restart: Restart) {
        self.stopped = false;
        self.fault = None;
        if let Restart::Machine { entries, contents } = restart {
            self.stop(entries, contents);
        }
        self.collect();
    }

    /// The machine stops.
    fn stop(&mut self, entries: Unsynced, contents: Unsynced) {
        if entries == Unsynced::Lost {
            self.entries = self.synced_entries.clone();
        }
        if contents == Unsynced::Lost {
            self.inodes.iter_mut().for_each(|inode| inode.contents = inode.synced.clone());
        }
        if let Some(volatile) = self.volatile.clone() {
            self.wipe(&volatile);
        }
    }

    /// Forgets the files that have no name any more, and numbers the others by their names.
    fn collect(&mut self) {
        let Memory { inodes, entries, synced_entries, .. } = self;
        let (mut numbers, mut kept) = (vec![None; inodes.len()], Vec::new());
        for inode in entries.values_mut().chain(synced_entries.values_mut()) {
            *inode = *numbers[*inode].get_or_insert_with(|| {
                kept.push(std::mem::take(&mut inodes[*inode]));
                kept.len() - 1
            });
        }
        *inodes = kept;
    }

    /// Somebody removes everything below a directory.
    pub fn wipe(&mut self, directory: &Path) {
        self.entries.retain(|path, _| !path.starts_with(directory));
        self.synced_entries.retain(|path, _| !path.starts_with(directory));
        self.directories.retain(|path, _| !path.starts_with(directory));
    }

    /// Somebody removes a file.
    pub fn take_away(&mut self, path: &Path) {
        self.entries.remove(path);
        self.synced_entries.remove(path);
    }

    fn make_directories(&mut self, directory: &Path) {
        for path in directory.ancestors() {
            if !self.directories.contains_key(path) {
                self.made += 1;
                self.directories.insert(path.into(), DirectoryId { device: 0, inode: self.made });
            }
        }
    }

    /// Puts a file there as somebody else would, synced.
    pub fn plant(&mut self, path: impl Into<PathBuf>, contents: &[u8]) {
        let path = path.into();
        self.make_directories(path.parent().unwrap_or(Path::new("/")));
        self.inodes.push(Inode { contents: contents.into(), synced: contents.into() });
        self.entries.insert(path.clone(), self.inodes.len() - 1);
        self.synced_entries.insert(path, self.inodes.len() - 1);
    }

    /// All paths there are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    fn running(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the machine has stopped")) } else { Ok(()) }
    }

    fn step(&mut self) -> io::Result<()> {
        self.running()?;
        let now = self.steps;
        self.steps += 1;
        match self.fault {
            Some((at, StorageFault::Errno(errno))) if at == now => {
                self.fault = None;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some((at, StorageFault::Crash)) if at == now => {
                self.stopped = true;
                self.running()
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Storage for Memory {
    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
        self.running().map_err(ReadError::Host)?;
        Ok(self.entries.get(path).map(|inode| self.inodes[*inode].contents.clone()))
    }

    fn list(&mut self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.running()?;
        let inside = |path: &&PathBuf| path.parent() == Some(directory);
        Ok(self.entries.keys().filter(inside).cloned().collect())
    }

    fn identify(&mut self, directory: &Path) -> io::Result<Option<DirectoryId>> {
        self.running()?;
        Ok(self.directories.get(directory).copied())
    }

    fn make_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.step()?;
        self.make_directories(directory);
        Ok(())
    }

    fn write(&mut self, path: &Path, contents: &[u8], _: bool) -> io::Result<()> {
        self.running()?;
        if path.parent().is_none_or(|parent| !self.directories.contains_key(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // As open(2) does with O_TRUNC: the name keeps the same file.
        let inode = *self.entries.entry(path.into()).or_insert_with(|| {
            self.inodes.push(Inode::default());
            self.inodes.len() - 1
        });
        self.inodes[inode].contents = contents[..contents.len() / 2].into();
        self.step()?;
        self.inodes[inode].contents = contents.into();
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let inode = *self.entries.get(path).ok_or(io::ErrorKind::NotFound)?;
        self.inodes[inode].synced = self.inodes[inode].contents.clone();
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let inode = self.entries.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.entries.insert(to.into(), inode);
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.entries.remove(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        self.step()?;
        self.synced_entries.retain(|path, _| path.parent() != Some(directory));
        let inside = self.entries.iter().filter(|(path, _)| path.parent() == Some(directory));
        self.synced_entries.extend(inside.map(|(path, inode)| (path.clone(), *inode)));
        Ok(())
    }
}
