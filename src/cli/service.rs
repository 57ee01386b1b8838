//! The files that `setup --service` installs and `teardown --service` takes away.
//!
//! | file | what it is for |
//! |---|---|
//! | `volnet.service` | systemd runs the daemon: this program, with the settings from flags |
//! | `volnet-guests.service` | guests are asked to power off before the host goes down |
//! | `volnet-vms.service` | VMs have control groups below that of this unit |
//! | `10-volnet.network` | systemd-networkd leaves our links alone (systemd.network(5)) |
//! | `90-volnet.conf` | so does NetworkManager (NetworkManager.conf(5)) |
//!
//! A file with other contents is somebody's work: it is replaced or removed only with force. All
//! files are checked before the first is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{CLIENT_KEYS, Flags, KEYS, Key, Settings};

use super::Trouble;
use super::command::Preparation;
use super::session::file;

/// The unit as it is packaged.
const UNIT: &str = include_str!("../../packaging/volnet.service");
/// The unit that stops guests before the host goes down, as it is packaged.
const GUESTS: &str = include_str!("../../packaging/volnet-guests.service");
/// The unit that has the control groups of VMs, as it is packaged.
const VMS: &str = include_str!("../../packaging/volnet-vms.service");
/// The program in the first two that is replaced.
const PROGRAM: &str = "/usr/local/bin/volnet";
/// The verb of the daemon, behind which its settings go.
const SERVE: &str = " serve";
/// The packaged file that keeps systemd-networkd away.
const NETWORKD: &str = include_str!("../../packaging/10-volnet.network");
/// The packaged file that keeps NetworkManager away.
const NETWORK_MANAGER: &str = include_str!("../../packaging/90-volnet.conf");
/// The bridge in these two that is replaced.
const BRIDGE: &str = "vbr0";

/// The result of installing or removing.
#[derive(Default)]
pub(super) struct Done {
    /// The paths of the files.
    pub(super) files: Vec<String>,
    /// The text for the user.
    pub(super) text: String,
}

/// One of the files.
struct Item {
    path: PathBuf,
    text: String,
    /// The command that makes its reader reload it.
    notice: &'static str,
}

/// The state of an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    No,
    Same,
    Other,
}

/// The files, with their present and their desired contents.
pub(super) struct ServiceFiles {
    items: Vec<(Item, Present)>,
    dry_run: bool,
}

impl ServiceFiles {
    /// Checks the files. There are none without `--service`.
    pub(super) fn look(
        how: &Preparation,
        flags: &Flags,
        settings: &Settings,
    ) -> Result<ServiceFiles, Trouble> {
        let mut service = ServiceFiles { items: Vec::new(), dry_run: how.dry_run };
        let Some(root) = &how.service else { return Ok(service) };
        for item in items(root, flags, settings)? {
            let present = item.present()?;
            if present == Present::Other && !how.force {
                let shown = item.path.display();
                let reason =
                    format!("{shown} exists and has other contents; use --force to overrule it");
                return Err(Trouble::Input(reason));
            }
            service.items.push((item, present));
        }
        Ok(service)
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
                    done.tell(item, &format!("is installed; now: {}", item.notice));
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
                    done.tell(item, &format!("is removed; now: {}", item.notice));
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
        match fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => Ok(Present::Same),
            Ok(_) => Ok(Present::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Present::No),
            Err(error) => Err(file("cannot read", &self.path, error)),
        }
    }
}

fn items(root: &Path, flags: &Flags, settings: &Settings) -> Result<[Item; 5], Trouble> {
    let program = std::env::current_exe().map_err(|error| {
        file("cannot find the path of this program", Path::new("volnet"), error)
    })?;
    let bridges: Vec<&str> =
        settings.networks.iter().map(|network| network.bridge.as_str()).collect();
    let path = |path: &str| root.join(path);
    Ok([
        Item {
            path: path("etc/systemd/system/volnet.service"),
            text: unit(&program, flags)?,
            notice: "systemctl daemon-reload",
        },
        Item {
            path: path("etc/systemd/network/10-volnet.network"),
            text: NETWORKD.replace(BRIDGE, &bridges.join(" ")),
            notice: "networkctl reload, if systemd-networkd runs",
        },
        Item {
            path: path("etc/NetworkManager/conf.d/90-volnet.conf"),
            text: NETWORK_MANAGER.replace(BRIDGE, &bridges.join(",interface-name:")),
            notice: "nmcli general reload, if NetworkManager runs",
        },
        Item {
            path: path("etc/systemd/system/volnet-guests.service"),
            text: guests(&program, flags)?,
            notice: "systemctl daemon-reload",
        },
        Item {
            path: path("etc/systemd/system/volnet-vms.service"),
            text: VMS.into(),
            notice: "systemctl daemon-reload",
        },
    ])
}

/// Replaces a file. Readers see the old contents or the new, never a part.
fn write(item: &Item) -> Result<(), Trouble> {
    let Item { path, text, .. } = item;
    let mut temporary = path.clone().into_os_string();
    temporary.push(".new");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .map_err(|error| file("cannot make the directory", directory, error))?;
    }
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        file("cannot write", path, error)
    })
}

/// The unit for this program and these settings.
fn unit(program: &Path, flags: &Flags) -> Result<String, Trouble> {
    let command = word(program)? + SERVE + &settings(flags, &KEYS);
    Ok(UNIT.replace(&format!("{PROGRAM}{SERVE}"), &command))
}

/// The unit that stops guests, by the socket of these settings.
fn guests(program: &Path, flags: &Flags) -> Result<String, Trouble> {
    let (stop, clients) = (" stop", settings(flags, &CLIENT_KEYS));
    let command = word(program)? + stop + &clients;
    Ok(GUESTS.replace(&format!("{PROGRAM}{stop}"), &command))
}

/// The flags of some settings, for a command line of a unit.
fn settings(flags: &Flags, keys: &[Key]) -> String {
    let known = |name| keys.iter().any(|key| key.flag == Some(name));
    let given = flags.iter().filter(|(name, _)| known(*name));
    given.map(|(name, value)| format!(" --{name}={}", quote(value))).collect()
}

/// A program as a word of a unit.
fn word(program: &Path) -> Result<String, Trouble> {
    let text = program.to_str().ok_or_else(|| {
        Trouble::Input(format!("a unit cannot name {}: it is not UTF-8", program.display()))
    })?;
    Ok(quote(text))
}

/// A word in the syntax of systemd's command lines (systemd.service(5), "Command lines").
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-,:+=@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '$' => quoted.push_str("$$"),
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_packaged_unit_gives_the_daemon_what_it_keeps() {
        use crate::rights::{KEPT, KEPT_FOR_ROOT};
        let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let kept = KEPT.iter().chain([&KEPT_FOR_ROOT]).map(|(_, name)| *name);
        assert!(line.unwrap().split(' ').eq(kept), "{line:?}");
    }

    #[test]
    fn the_unit_runs_this_program_with_these_settings() {
        let mut flags = Flags::default();
        flags.set("bridge", "br 0%".into());
        flags.set("subnet", "10.0.0.0/8".into());
        let unit = unit(Path::new("/opt/volnet/bin/volnet"), &flags).unwrap();
        let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        let expected =
            "ExecStart=/opt/volnet/bin/volnet serve --bridge=\"br 0%%\" --subnet=10.0.0.0/8";
        assert_eq!(line, expected);
        assert!(unit.contains("KillMode=process") && unit.contains("Type=notify"));
    }

    #[test]
    fn what_is_packaged_has_what_is_replaced() {
        assert_eq!(UNIT.matches(&format!("{PROGRAM}{SERVE}")).count(), 1);
        assert_eq!(GUESTS.matches(&format!("{PROGRAM} stop")).count(), 1);
        assert_eq!(NETWORKD.matches(BRIDGE).count(), 1);
        assert_eq!(NETWORK_MANAGER.matches(&format!("interface-name:{BRIDGE}")).count(), 1);
        assert_eq!(NETWORK_MANAGER.matches(BRIDGE).count(), 1);
    }
}
