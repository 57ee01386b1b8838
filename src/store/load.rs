//! Reading everything when the daemon starts.
//!
//! First all files are read, then the unreadable ones are moved aside. So a load that is refused
//! because of a newer format has changed nothing, and the newer volnet finds its files.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::record::{self, Unreadable};
use super::storage::{ReadError, Storage, is_temporary};
use super::{ENDING, Paths, failure};
use crate::model::document::Kept;
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::model::record::{FORMAT, HostRecord, Intent, ProcessId, Record};

/// What the store held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The VMs, by name: the durable ones, then the ephemeral ones.
    pub records: Vec<Record>,
    /// The changes that were cut short.
    pub intents: Vec<(VmName, Intent)>,
    /// The processes that ran when the last daemon ended.
    pub processes: Vec<(VmName, ProcessId)>,
    /// VMs that may have left something behind: a file about them cannot be understood.
    pub in_doubt: Vec<VmName>,
    /// The networks that were added, by name, as they were asked for.
    pub networks: Vec<(String, Kept)>,
    /// The state of the host before volnet changed it.
    pub host: Option<HostRecord>,
    /// The files that could not be understood: their new paths, and why.
    pub set_aside: Vec<(PathBuf, String)>,
}

/// Files to be moved aside, and why.
type Bad = Vec<(PathBuf, String)>;

/// Reads all files, then cleans up.
pub(super) fn load(disk: &mut impl Storage, paths: &Paths, new: bool) -> Result<Loaded, Failure> {
    let mut bad = Bad::new();
    let mut records = records(disk, &paths.durable_records(), false, &mut bad)?;
    for record in self::records(disk, &paths.ephemeral_records(), true, &mut bad)? {
        match records.iter().find(|durable| durable.name == record.name) {
            None => records.push(record),
            Some(_) => bad.push((
                paths.record(&record.name, true),
                format!("a durable VM {} exists, too", record.name),
            )),
        }
    }
    let intents = named(disk, &paths.intents(), &mut bad, |bytes| {
        record::decode_intent(bytes).map(|intent| (intent.record.name.clone(), intent))
    })?;
    let processes = named(disk, &paths.processes(), &mut bad, record::decode_process)?;
    let networks = named(disk, &paths.networks(), &mut bad, record::decode_network)?;
    let host = read(disk, &paths.host(), &mut bad, record::decode_host)?;

    let in_doubt = in_doubt(&bad, paths);

    sweep(disk, paths)?;
    let mut set_aside = Vec::new();
    for (path, reason) in bad {
        let aside = disk
            .set_aside(&path)
            .map_err(|error| failure(&path, "cannot move the file aside", &error))?;
        set_aside.push((aside, reason));
    }
    // A durable write or removal of the last daemon may have reached only the page cache. After
    // this sync, callers can rely on it.
    let durable = paths.durable_records();
    if !new {
        disk.sync_directory(&durable).map_err(|error| failure(&durable, "cannot sync", &error))?;
    }
    Ok(Loaded { records, intents, processes, in_doubt, networks, host, set_aside })
}

/// The records in a directory. All must be ephemeral, or all durable, as the directory is.
fn records(
    disk: &mut impl Storage,
    directory: &Path,
    ephemeral: bool,
    bad: &mut Bad,
) -> Result<Vec<Record>, Failure> {
    let pairs = named(disk, directory, bad, |bytes| {
        let record = record::decode_record(bytes)?;
        match record.spec.ephemeral == ephemeral {
            true => Ok((record.name.clone(), record)),
            false if ephemeral => {
                Err(damaged("it is the record of a durable VM among ephemeral ones"))
            }
            false => Err(damaged("it is the record of an ephemeral VM among durable ones")),
        }
    })?;
    Ok(pairs.into_iter().map(|(_, record)| record).collect())
}

fn damaged(reason: &str) -> Unreadable {
    Unreadable::Damaged(reason.into())
}

/// Reads the files of a directory by name. A file must be about the VM, or the network, that it is
/// named after.
fn named<N: Display, T>(
    disk: &mut impl Storage,
    directory: &Path,
    bad: &mut Bad,
    decode: impl Fn(&[u8]) -> Result<(N, T), Unreadable>,
) -> Result<Vec<(N, T)>, Failure> {
    let mut found = Vec::new();
    for path in files(disk, directory)? {
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let here = |bytes: &[u8]| {
            let (name, value) = decode(bytes)?;
            match path.file_stem().is_some_and(|stem| *stem == *name.to_string()) {
                true => Ok((name, value)),
                false => Err(Unreadable::Damaged(format!("it is the record of {name}"))),
            }
        };
        found.extend(read(disk, &path, bad, here)?);
    }
    Ok(found)
}

/// The VMs that the bad files are named after.
fn in_doubt(bad: &Bad, paths: &Paths) -> Vec<VmName> {
    let telling =
        [paths.durable_records(), paths.ephemeral_records(), paths.intents(), paths.processes()];
    let named = |(path, _): &(PathBuf, String)| {
        let of_interest = telling.iter().any(|directory| path.parent() == Some(directory));
        of_interest.then(|| VmName::new(path.file_stem()?.to_str()?).ok()).flatten()
    };
    bad.iter().filter_map(named).collect()
}

/// Reads one file. A file that cannot be used is added to `bad`. A newer format is a failure.
fn read<T>(
    disk: &mut impl Storage,
    path: &Path,
    bad: &mut Bad,
    decode: impl Fn(&[u8]) -> Result<T, Unreadable>,
) -> Result<Option<T>, Failure> {
    let decoded = match disk.read(path) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => decode(&bytes),
        Err(ReadError::File(reason)) => Err(Unreadable::Damaged(reason)),
        Err(ReadError::Host(error)) => return Err(failure(path, "cannot read", &error)),
    };
    match decoded {
        Ok(value) => Ok(Some(value)),
        Err(Unreadable::Damaged(reason)) => {
            bad.push((path.to_owned(), reason));
            Ok(None)
        }
        Err(Unreadable::Newer(format)) => Err(Failure::State {
            path: path.display().to_string(),
            reason: format!(
                "cannot read: it has format {format}, and this volnet knows up to {FORMAT}; \
                 run the volnet that wrote it"
            ),
        }),
    }
}

/// Removes the temporary files that a crash left behind.
fn sweep(disk: &mut impl Storage, paths: &Paths) -> Result<(), Failure> {
    let directories = [
        paths.durable_records(),
        paths.ephemeral_records(),
        paths.intents(),
        paths.processes(),
        paths.networks(),
    ];
    for directory in directories.iter().map(PathBuf::as_path).chain([paths.runtime()]) {
        for path in files(disk, directory)?.into_iter().filter(|path| is_temporary(path)) {
            disk.remove(&path, false).map_err(|error| failure(&path, "cannot remove", &error))?;
        }
    }
    Ok(())
}

fn files(disk: &mut impl Storage, directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = disk
        .list(directory)
        .map_err(|error| failure(directory, "cannot read the directory", &error))?;
    files.sort();
    Ok(files)
}
