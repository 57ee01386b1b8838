//! What is remembered across a crash, a restart and a reboot.
//!
//! | what | where | written |
//! |---|---|---|
//! | record of a durable VM | `STATE/vms/NAME.json` | temp file, fsync, rename, fsync of the directory |
//! | record of an ephemeral VM | `RUNTIME/vms/NAME.json` | temp file, rename |
//! | intent: a change of this VM is under way | `RUNTIME/intents/NAME.json` | temp file, rename |
//! | process of a VM | `RUNTIME/processes/NAME.json` | temp file, rename |
//! | what the host was before us | `RUNTIME/host.json` | temp file, rename |
//! | which daemon it is that writes all this | `RUNTIME/lock`, `STATE/lock` | flock, see [`lock`] |
//!
//! What describes kernel objects or processes needs no fsync: it has to outlive the daemon, and a
//! reboot ends both it and what it describes. Only what must outlive the host is synced.
//!
//! The daemon takes the locks, [`Store::open`]s, [`Store::load`]s once, and from then on only
//! writes. Every write replaces a whole file, so whatever happens midway a file holds what it held
//! before or what it was to hold. A write that fails is a [`Failure::State`]; it may have come as
//! far as the rename, so whoever undoes the request puts the old record back or removes it. Records
//! that are written together share a round: all files are written, then all synced, then all
//! renamed, and the directory is synced once.

pub mod disk;
pub mod exercise;
#[cfg(target_os = "linux")]
pub mod files;
mod load;
#[cfg(target_os = "linux")]
pub mod lock;
pub mod memory;
mod record;

use std::io;
use std::path::{Path, PathBuf};

pub use load::Loaded;

use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{HostRecord, Intent, ProcessId, Record};
use disk::Disk;

/// The ending of every file that is loaded. Set-aside and temporary files end otherwise.
const ENDING: &str = "json";

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    runtime: PathBuf,
}

/// The files of one daemon on a [`Disk`].
#[derive(Debug)]
pub struct Store<D: Disk> {
    disk: D,
    paths: Paths,
}

impl Paths {
    /// Lays the files out below the state and the runtime directory.
    pub fn new(state_dir: impl Into<PathBuf>, runtime_dir: impl Into<PathBuf>) -> Paths {
        Paths { state: state_dir.into(), runtime: runtime_dir.into() }
    }

    /// The runtime directory itself.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The folder of a VM's sockets and generated files.
    pub fn folder(&self, name: &VmName) -> PathBuf {
        folder_of(&self.runtime, name)
    }

    fn durable_records(&self) -> PathBuf {
        self.state.join("vms")
    }

    fn ephemeral_records(&self) -> PathBuf {
        self.runtime.join("vms")
    }

    fn intents(&self) -> PathBuf {
        self.runtime.join("intents")
    }

    fn processes(&self) -> PathBuf {
        self.runtime.join("processes")
    }

    fn host(&self) -> PathBuf {
        self.runtime.join("host.json")
    }

    fn record(&self, name: &VmName, ephemeral: bool) -> PathBuf {
        let directory = if ephemeral { self.ephemeral_records() } else { self.durable_records() };
        file_of(&directory, name)
    }
}

/// The folder of a VM's sockets and generated files in a runtime directory.
pub fn folder_of(runtime_dir: &Path, name: &VmName) -> PathBuf {
    runtime_dir.join("vm").join(name.as_str())
}

fn file_of(directory: &Path, name: &VmName) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

fn failure(path: &Path, doing: &str, error: &io::Error) -> Failure {
    Failure::State { path: path.display().to_string(), reason: format!("{doing}: {error}") }
}

fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |error| failure(path, "cannot write", &error)
}

impl<D: Disk> Store<D> {
    /// Makes the directories that are missing.
    pub fn open(mut disk: D, paths: Paths) -> Result<Store<D>, Failure> {
        let directories = [
            paths.durable_records(),
            paths.ephemeral_records(),
            paths.intents(),
            paths.processes(),
        ];
        for directory in &directories {
            disk.make_directory(directory)
                .map_err(|error| failure(directory, "cannot make the directory", &error))?;
        }
        Ok(Store { disk, paths })
    }

    /// Where everything lies.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Reads all there is. A file that makes no sense is moved aside and reported, the others
    /// come up; one in a newer format than [`crate::model::record::FORMAT`] fails the load, and
    /// then nothing was moved.
    pub fn load(&mut self) -> Result<Loaded, Failure> {
        load::load(&mut self.disk, &self.paths)
    }

    /// Writes a VM's record. A durable one is on the disk when this returns.
    pub fn put(&mut self, record: &Record) -> Result<(), Failure> {
        if record.spec.ephemeral {
            let path = self.paths.record(&record.name, true);
            return self.replace(&path, &record::encode_record(record));
        }
        self.put_durable(&[record]).pop().expect("one for each")
    }

    /// Writes the records of several durable VMs in one round of syncs. What became of each stands in
    /// their order; those that were written are on the disk when this returns.
    pub fn put_durable(&mut self, records: &[&Record]) -> Vec<Result<(), Failure>> {
        let file = |record: &&Record| {
            (self.paths.record(&record.name, false), record::encode_record(record))
        };
        let files: Vec<_> = records.iter().map(file).collect();
        let results = self.disk.replace_durably(&files).into_iter().zip(&files);
        results.map(|(result, (path, _))| result.map_err(unwritten(path))).collect()
    }

    /// Removes a VM's record. One that is absent is as good as removed.
    pub fn remove(&mut self, name: &VmName, ephemeral: bool) -> Result<(), Failure> {
        self.discard(&self.paths.record(name, ephemeral), !ephemeral)
    }

    /// Writes down that a change of a VM begins.
    pub fn put_intent(&mut self, intent: &Intent) -> Result<(), Failure> {
        let path = file_of(&self.paths.intents(), &intent.record.name);
        self.replace(&path, &record::encode_intent(intent))
    }

    /// Writes down that it has ended.
    pub fn clear_intent(&mut self, name: &VmName) -> Result<(), Failure> {
        self.discard(&file_of(&self.paths.intents(), name), false)
    }

    /// Writes which process a VM's hypervisor is.
    pub fn put_process(&mut self, name: &VmName, process: &ProcessId) -> Result<(), Failure> {
        let path = file_of(&self.paths.processes(), name);
        self.replace(&path, &record::encode_process(name, process))
    }

    /// Forgets it.
    pub fn remove_process(&mut self, name: &VmName) -> Result<(), Failure> {
        self.discard(&file_of(&self.paths.processes(), name), false)
    }

    /// Writes what the host was before volnet changed it.
    pub fn put_host(&mut self, host: &HostRecord) -> Result<(), Failure> {
        self.replace(&self.paths.host(), &record::encode_host(host))
    }

    /// Forgets it: the host is as it was.
    pub fn remove_host(&mut self) -> Result<(), Failure> {
        self.discard(&self.paths.host(), false)
    }

    /// Gives the disk back.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn replace(&mut self, path: &Path, contents: &[u8]) -> Result<(), Failure> {
        self.disk.replace(path, contents).map_err(unwritten(path))
    }

    fn discard(&mut self, path: &Path, durable: bool) -> Result<(), Failure> {
        self.disk.remove(path, durable).map_err(|error| failure(path, "cannot remove", &error))
    }
}

#[cfg(test)]
pub(crate) mod tests;
