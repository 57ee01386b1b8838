//! Makes the disks of a clone, and removes them.
//!
//! A copy takes as long as its disk is large, and so does the removal of a file. So both run in
//! threads. The daemon reads and writes with the rights of the hypervisors' user, who may read the
//! snapshot, and to whom the folder and the files belong.
//!
//! The copy of a disk shares its blocks with the snapshot where the file system can do that. Where
//! it cannot, it leaves the room that records need.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use super::snapshot::{act, copy_file, new_file, open};
use crate::hypervisor::folder;
use crate::hypervisor::own_disks::{Copying, is_folder_of};
use crate::model::error::Failure;
use crate::model::name::VmName;
use crate::store::space::Space;

/// Who knows a name can open what is in a folder, and nobody can list it. So a VM with a user of
/// its own finds the disks that it was given.
const MODE: u32 = 0o711;

/// The disks of a clone, which go when this is dropped, unless a VM has them.
#[derive(Debug)]
pub struct OwnDisks {
    folder: PathBuf,
    is_kept: bool,
}

impl OwnDisks {
    /// An empty folder with a name that none has, nor one that is being removed.
    fn make(copying: &Copying) -> io::Result<OwnDisks> {
        let Copying { name, directory, user, .. } = copying;
        DirBuilder::new().recursive(true).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(MODE))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut number = since.as_millis();
        let folder = loop {
            let folder = directory.join(format!("{name}.{number}"));
            match DirBuilder::new().create(&folder) {
                Ok(()) => break folder,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        };
        let own = OwnDisks { folder, is_kept: false };
        fs::set_permissions(&own.folder, Permissions::from_mode(MODE))?;
        if let Some(user) = user {
            chown(&own.folder, Some(user.uid), Some(user.gid))?;
        }
        Ok(own)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A VM has them now, and they end with it.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for OwnDisks {
    fn drop(&mut self) {
        if !self.is_kept {
            remove(std::mem::take(&mut self.folder));
        }
    }
}

impl Copying {
    /// Makes the copies, and gives their paths. If one fails, nothing is left. `is_over` says
    /// whether nobody wants them any more.
    pub fn copy(&self, is_over: &impl Fn() -> bool) -> Result<(OwnDisks, Vec<PathBuf>), Failure> {
        let failed = |path: &Path, doing: &str, error: &io::Error| {
            let whom = self.user.as_ref();
            let whom = whom.map_or_else(String::new, |user| format!(", for user {}", user.name));
            let reason = format!("{doing}: {error}{whom}");
            Failure::State { path: path.display().to_string(), reason }
        };
        let own = OwnDisks::make(self)
            .map_err(|error| failed(&self.directory, "cannot make a folder for disks", &error))?;
        let mut files = Vec::new();
        for from in &self.from {
            let to = own.folder.join(from.file_name().unwrap_or_default());
            let doing = || format!("cannot copy {}", from.display());
            self.copy_disk(from, &to, is_over).map_err(|error| failed(&to, &doing(), &error))?;
            files.push(to);
        }
        if self.durable {
            let folder = act(self.user.as_ref(), || File::open(own.folder()));
            let synced = folder
                .and_then(|folder| folder.sync_all())
                .and_then(|()| File::open(&self.directory)?.sync_all());
            synced.map_err(|error| failed(own.folder(), "cannot sync", &error))?;
        }
        Ok((own, files))
    }

    fn copy_disk(&self, from: &Path, to: &Path, is_over: &impl Fn() -> bool) -> io::Result<()> {
        let user = self.user.as_ref();
        let (from, to) = (act(user, || open(from))?, act(user, || new_file(to))?);
        copy_file(&from, &to, || match Space::of_file(&to)?.has_room_for(0) {
            _ if is_over() => Err(io::ErrorKind::Interrupted.into()),
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::StorageFull, "the file system is full")),
        })?;
        if self.durable { to.sync_all() } else { Ok(()) }
    }
}

/// Removes a folder of disks, in a thread.
pub fn remove(folder: PathBuf) {
    let name = folder.clone();
    let work = move || {
        if let Err(failure) = folder::remove(&folder) {
            ::log::warn!("{failure}");
        }
    };
    // Without a thread they stay until the daemon starts again.
    if let Err(error) = thread::Builder::new().name("disks".into()).spawn(work) {
        ::log::warn!("cannot remove {}: {error}", name.display());
    }
}

/// Removes the folders that are left over: those that no VM has. `belongs` says whether one is of
/// a VM whose record cannot be read now.
pub fn sweep(directory: &Path, kept: &[PathBuf], belongs: impl Fn(&VmName) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if kept.contains(&path) {
            continue;
        }
        match is_folder_of(&path) {
            Some(name) if !belongs(&name) => {
                ::log::warn!("removing {}: no VM has these disks", path.display());
                remove(path);
            }
            Some(_) | None => {}
        }
    }
}
