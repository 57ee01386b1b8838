//! The files that outlive a crash, a restart and a reboot.
//!
//! | what | where | written |
//! |---|---|---|
//! | record of a durable VM | `STATE/vms/NAME.json` | fsync, rename, fsync of the directory |
//! | record of an ephemeral VM | `RUNTIME/vms/NAME.json` | temp file, rename |
//! | disks that a clone did not name | `STATE/disks/NAME.NUMBER/` | by a thread, and synced |
//! | intent: a change of this VM has begun | `RUNTIME/intents/NAME.json` | temp file, rename |
//! | process of a VM | `RUNTIME/processes/NAME.json` | temp file, rename |
//! | a network that was added | `RUNTIME/networks/NAME.json` | temp file, rename |
//! | the state of the host before volnet changed it | `RUNTIME/host.json` | temp file, rename |
//! | the lock of the daemon | `RUNTIME/lock`, `STATE/lock` | flock, see [`lock`] |
//!
//! A file about kernel objects or processes needs no fsync: it must outlive the daemon, but a
//! reboot ends the objects as well as the file. Only a file that must outlive a reboot is synced.
//!
//! The daemon takes the locks, calls [`Store::open`] and [`Store::load`] once, and only writes
//! after that. Every write replaces a whole file, so at any moment a file has its old or its new
//! contents. A failed write is a [`Failure::State`]. It may have got as far as the rename, so
//! whoever undoes the request writes the old record again or removes it. Records that are written
//! together share a round: all files are written, then all are synced, then all are renamed, and
//! the directory is synced once.

#[cfg(target_os = "linux")]
pub mod files;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod load;
#[cfg(target_os = "linux")]
pub mod lock;
#[cfg(any(test, feature = "testing", not(target_os = "linux")))]
pub mod memory;
mod record;
#[cfg(target_os = "linux")]
pub mod space;
pub mod storage;
mod upgrade;

use std::io;
use std::path::{Path, PathBuf};

pub use load::Loaded;

use crate::model::attachment::AttachmentId;
use crate::model::document::Kept;
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{DirectoryId, HostRecord, Intent, ProcessId, Record};
use storage::Storage;

/// The ending of every file that is loaded. Set-aside and temporary files end otherwise.
const ENDING: &str = "json";
/// The directory of disks that volnet makes, in the state directory.
pub const DISKS: &str = "disks";

/// The paths of all files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    runtime: PathBuf,
}

/// The files of one daemon on a [`Storage`].
#[derive(Debug)]
pub struct Store<D: Storage> {
    disk: D,
    paths: Paths,
    /// The directory of the durable records; `None` if there is none yet.
    durable: Option<DirectoryId>,
}

impl Paths {
    /// The paths below the state and the runtime directory.
    pub fn new(state_dir: impl Into<PathBuf>, runtime_dir: impl Into<PathBuf>) -> Paths {
        Paths { state: state_dir.into(), runtime: runtime_dir.into() }
    }

    /// The runtime directory itself.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The state directory itself.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder of a VM's sockets and generated files.
    pub fn folder(&self, name: &VmName) -> PathBuf {
        folder_of(&self.runtime, name)
    }

    /// The socket of a VM's console.
    pub fn console(&self, name: &VmName) -> PathBuf {
        self.runtime.join("console").join(name.as_str())
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

    fn networks(&self) -> PathBuf {
        self.runtime.join("networks")
    }

    fn network(&self, name: &str) -> PathBuf {
        self.networks().join(format!("{name}.{ENDING}"))
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

/// The attachment that the record of a VM says it is, in this runtime directory: for those who
/// cannot ask the daemon. `None`: it has no such record, or it is no attachment.
pub fn attached(runtime_dir: &Path, name: &VmName) -> Option<AttachmentId> {
    let path = file_of(&Paths::new("", runtime_dir).ephemeral_records(), name);
    let record = record::decode_record(&std::fs::read(path).ok()?).ok()?;
    record.spec.attachment.map(|attachment| attachment.id)
}

fn file_of(directory: &Path, name: &VmName) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

fn failure(path: &Path, doing: &str, error: &io::Error) -> Failure {
    Failure::State { path: path.display().to_string(), reason: format!("{doing}: {error}") }
}

fn identify(disk: &mut impl Storage, directory: &Path) -> Result<Option<DirectoryId>, Failure> {
    disk.identify(directory)
        .map_err(|error| failure(directory, "cannot look at the directory", &error))
}

fn unwritten(path: &Path) -> impl FnOnce(io::Error) -> Failure + '_ {
    |error| failure(path, "cannot write", &error)
}

impl<D: Storage> Store<D> {
    /// The disk: what goes wrong with it.
    #[cfg(any(test, feature = "testing"))]
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The disk: what is on it.
    #[cfg(any(test, feature = "testing"))]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Makes the directories of the runtime directory that are missing. That of the durable records
    /// is left to [`Store::begin`].
    pub fn open(mut disk: D, paths: Paths) -> Result<Store<D>, Failure> {
        let durable = identify(&mut disk, &paths.durable_records())?;
        let mut store = Store { disk, paths, durable };
        for directory in
            [store.paths.ephemeral_records(), store.paths.intents(), store.paths.processes()]
        {
            store.make_directory(&directory)?;
        }
        Ok(store)
    }

    /// The directory of the durable records. There is none in a new state directory, which may be
    /// one whose file system is not mounted.
    pub fn durable(&self) -> Option<DirectoryId> {
        self.durable
    }

    /// Makes the directory of the durable records, if it is missing.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if self.durable.is_none() {
            let directory = self.paths.durable_records();
            self.make_directory(&directory)?;
            self.durable = identify(&mut self.disk, &directory)?;
        }
        Ok(())
    }

    fn make_directory(&mut self, directory: &Path) -> Result<(), Failure> {
        self.disk
            .make_directory(directory)
            .map_err(|error| failure(directory, "cannot make the directory", &error))
    }

    /// The paths of all files.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Reads all files. A file that cannot be understood is moved aside and reported, and the
    /// others load. A file in a newer format than [`crate::model::record::FORMAT`] fails the load;
    /// then nothing was moved.
    pub fn load(&mut self) -> Result<Loaded, Failure> {
        load::load(&mut self.disk, &self.paths, self.durable.is_none())
    }

    /// The records that were moved aside when they were loaded, by this daemon or an earlier one.
    pub fn set_aside(&mut self) -> Vec<PathBuf> {
        let directories = [self.paths.durable_records(), self.paths.ephemeral_records()];
        let files = directories.iter().flat_map(|at| self.disk.list(at).unwrap_or_default());
        let mut aside: Vec<PathBuf> = files.filter(|path| storage::is_aside(path)).collect();
        aside.sort();
        aside
    }

    /// Writes a VM's record. A durable one is on the disk when this returns.
    pub fn put(&mut self, record: &Record) -> Result<(), Failure> {
        self.put_all(&[record]).pop().expect("one for each")
    }

    /// Writes the records of several VMs, those of durable ones in one round of syncs. Returns the
    /// result of each, in their order. The written durable records are on the disk when this
    /// returns.
    pub fn put_all(&mut self, records: &[&Record]) -> Vec<Result<(), Failure>> {
        let durable: Vec<&Record> =
            records.iter().copied().filter(|record| !record.spec.ephemeral).collect();
        let mut round = self.put_durable(&durable).into_iter();
        let put = |record: &&Record| match record.spec.ephemeral {
            true => {
                let path = self.paths.record(&record.name, true);
                self.replace(&path, &record::encode_record(record))
            }
            false => round.next().expect("one for each"),
        };
        records.iter().map(put).collect()
    }

    fn put_durable(&mut self, records: &[&Record]) -> Vec<Result<(), Failure>> {
        if records.is_empty() {
            return Vec::new();
        }
        if let Err(failure) = self.begin() {
            return vec![Err(failure); records.len()];
        }
        let file = |record: &&Record| {
            (self.paths.record(&record.name, false), record::encode_record(record))
        };
        let files: Vec<_> = records.iter().map(file).collect();
        let results = self.disk.replace_durably(&files).into_iter().zip(&files);
        results.map(|(result, (path, _))| result.map_err(unwritten(path))).collect()
    }

    /// Removes a VM's record. If it is absent, nothing is to do.
    pub fn remove(&mut self, name: &VmName, ephemeral: bool) -> Result<(), Failure> {
        self.discard(&self.paths.record(name, ephemeral), !ephemeral)
    }

    /// Records that a change of a VM begins.
    pub fn put_intent(&mut self, intent: &Intent) -> Result<(), Failure> {
        let path = file_of(&self.paths.intents(), &intent.record.name);
        self.replace(&path, &record::encode_intent(intent))
    }

    /// Records that the change has ended.
    pub fn clear_intent(&mut self, name: &VmName) -> Result<(), Failure> {
        self.discard(&file_of(&self.paths.intents(), name), false)
    }

    /// Writes the process of a VM's hypervisor.
    pub fn put_process(&mut self, name: &VmName, process: &ProcessId) -> Result<(), Failure> {
        let path = file_of(&self.paths.processes(), name);
        self.replace(&path, &record::encode_process(name, process))
    }

    /// Forgets it.
    pub fn remove_process(&mut self, name: &VmName) -> Result<(), Failure> {
        self.discard(&file_of(&self.paths.processes(), name), false)
    }

    /// Writes a network that is added, as it was asked for; `None` removes the record, if there is
    /// one. The name is one that a VM can have. Few hosts have such a network, so the directory is
    /// made with the first.
    pub fn put_network(&mut self, name: &str, document: Option<&Kept>) -> Result<(), Failure> {
        let path = self.paths.network(name);
        match document {
            Some(document) => self.replace(&path, &record::encode_network(name, document)),
            None => self.discard(&path, false),
        }
    }

    /// Writes the state of the host before volnet changed it.
    pub fn put_host(&mut self, host: &HostRecord) -> Result<(), Failure> {
        self.replace(&self.paths.host(), &record::encode_host(host))
    }

    /// Removes that file: the host is as it was.
    pub fn remove_host(&mut self) -> Result<(), Failure> {
        self.discard(&self.paths.host(), false)
    }

    /// Returns the disk.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Replaces a file of the runtime directory. Others clear `/run`: its directories come back.
    fn replace(&mut self, path: &Path, contents: &[u8]) -> Result<(), Failure> {
        let replaced = match (self.disk.replace(path, contents), path.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory(directory)?;
                self.disk.replace(path, contents)
            }
            (replaced, _) => replaced,
        };
        replaced.map_err(unwritten(path))
    }

    fn discard(&mut self, path: &Path, durable: bool) -> Result<(), Failure> {
        self.disk.remove(path, durable).map_err(|error| failure(path, "cannot remove", &error))
    }
}

#[cfg(test)]
pub(crate) mod tests;
