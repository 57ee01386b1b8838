//! Files that `setup` installs beside the network, and `teardown` takes away: those of the service
//! ([`super::service`]), the one for systemd-resolved ([`super::resolved`]), and those for engines
//! of containers ([`super::plugin`]).
//!
//! A file with other contents is somebody's work: it is replaced or removed only with force. All
//! files are checked before the first is changed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::config::{Flags, Settings};

use super::command::Preparation;
use super::session::file;
use super::{Trouble, plugin, resolved, service};

/// The result of installing or removing.
#[derive(Default)]
pub(super) struct Done {
    /// The paths of the files.
    pub(super) files: Vec<String>,
    /// The text for the user.
    pub(super) text: String,
}

/// One of the files.
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    /// The command that makes its reader reload it; empty, if none is needed.
    pub(super) notice: &'static str,
    /// Whether what somebody else has in its place does as well, and stays.
    pub(super) yields: bool,
}

/// What is in its place.
#[derive(PartialEq, Eq)]
pub(super) enum Contents {
    /// A file with this text.
    Text(String),
    /// A symbolic link that leads there.
    Link(PathBuf),
}

/// The state of an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    No,
    Same,
    Other,
}

/// The files, with their present and their desired contents.
pub(super) struct Files {
    items: Vec<(Item, Present)>,
    dry_run: bool,
}

impl Files {
    /// Checks the files. There are none without a flag that asks for them.
    pub(super) fn look(
        how: &Preparation,
        flags: &Flags,
        settings: &Settings,
    ) -> Result<Files, Trouble> {
        let mut files = Files { items: Vec::new(), dry_run: how.dry_run };
        let program = std::env::current_exe().map_err(|error| {
            file("cannot find the path of this program", Path::new("volnet"), error)
        })?;
        let mut items = Vec::new();
        if how.service {
            items.extend(service::items(&how.root, &program, flags, settings)?);
        }
        if how.resolved {
            items.push(resolved::item(&how.root, settings));
        }
        if how.cni {
            items.extend(plugin::items(&how.root, &program, flags));
        }
        for item in items {
            let present = item.present()?;
            if present == Present::Other && item.yields {
                continue;
            }
            if present == Present::Other && !how.force {
                let shown = item.path.display();
                let reason =
                    format!("{shown} exists and has other contents; use --force to overrule it");
                return Err(Trouble::Input(reason));
            }
            files.items.push((item, present));
        }
        Ok(files)
    }

    /// Installs the missing files.
    pub(super) fn install(&self) -> Result<Done, Trouble> {
        let mut done = Done::default();
        for (item, present) in &self.items {
            match present {
                Present::Same => done.tell(item, "is installed"),
                Present::No | Present::Other if self.dry_run => {
                    done.tell(item, "would be installed");
                }
                Present::No | Present::Other => {
                    write(item)?;
                    done.tell(item, &format!("is installed{}", item.now()));
                }
            }
        }
        Ok(done)
    }

    /// Removes the files.
    pub(super) fn remove(&self) -> Result<Done, Trouble> {
        let mut done = Done::default();
        for (item, present) in &self.items {
            match present {
                Present::No => {}
                Present::Same | Present::Other if self.dry_run => {
                    done.tell(item, "would be removed");
                }
                Present::Same | Present::Other => {
                    fs::remove_file(&item.path)
                        .map_err(|error| file("cannot remove", &item.path, error))?;
                    done.tell(item, &format!("is removed{}", item.now()));
                }
            }
        }
        Ok(done)
    }
}

impl Done {
    /// Adds a file and its result.
    fn tell(&mut self, item: &Item, what: &str) {
        let path = item.path.display().to_string();
        self.text += &format!("# {path} {what}\n");
        self.files.push(path);
    }
}

impl Item {
    fn present(&self) -> Result<Present, Trouble> {
        let read = match &self.contents {
            Contents::Text(_) => fs::read_to_string(&self.path).map(Contents::Text),
            Contents::Link(_) => fs::read_link(&self.path).map(Contents::Link),
        };
        match read {
            Ok(contents) if contents == self.contents => Ok(Present::Same),
            Ok(_) => Ok(Present::Other),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => Ok(Present::No),
                // It is no link, or no text.
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Ok(Present::Other),
                _ => Err(file("cannot read", &self.path, error)),
            },
        }
    }

    /// What is to be done after a change.
    fn now(&self) -> String {
        match self.notice {
            "" => String::new(),
            notice => format!("; now: {notice}"),
        }
    }
}

/// Replaces a file. Readers see the old contents or the new, never a part.
fn write(item: &Item) -> Result<(), Trouble> {
    let Item { path, contents, .. } = item;
    let mut temporary = path.clone().into_os_string();
    temporary.push(".new");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| file("cannot make the directory", directory, error))?;
    }
    let made = match contents {
        Contents::Text(text) => fs::write(&temporary, text),
        Contents::Link(to) => symlink(to, &temporary),
    };
    let written = made.and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        file("cannot write", path, error)
    })
}
