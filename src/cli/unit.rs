//! The systemd unit that `setup --service` installs.
//!
//! It runs the program that installs it, with the settings that were given as flags. A unit that
//! stands there and says something else is somebody's work, and is replaced only by force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Flags;

use super::Trouble;
use super::command::Setup;
use super::session::file;

/// The unit as it is packaged.
const UNIT: &str = include_str!("../../packaging/volnet.service");
/// The command in it that is replaced.
const COMMAND: &str = "/usr/local/bin/volnet serve";
/// The name of the unit.
const NAME: &str = "volnet.service";
/// Where the administrator's own units are (systemd.unit(5)).
const DIRECTORY: &str = "/etc/systemd/system";

/// What was or would be done.
pub(super) struct Installed {
    /// The unit's path.
    pub(super) path: String,
    /// What to tell about it.
    pub(super) text: String,
}

/// Installs the unit.
pub(super) fn install(setup: &Setup, flags: &Flags) -> Result<Installed, Trouble> {
    let program = std::env::current_exe()
        .map_err(|error| file("cannot tell the program", Path::new("volnet"), error))?;
    let unit = unit(&program, flags)?;
    let directory = setup.unit_dir.clone().unwrap_or_else(|| DIRECTORY.into());
    let path = directory.join(NAME);
    let present = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(file("cannot read", &path, error)),
    };
    let shown = path.display().to_string();
    let text = match present {
        Some(present) if present == unit => format!("# {shown} is installed\n"),
        Some(_) if !setup.force => {
            let reason = format!("{shown} exists and is another unit; --force replaces it");
            return Err(Trouble::Input(reason));
        }
        _ if setup.dry_run => format!("# {shown} would be installed\n"),
        _ => {
            write(&path, &unit)?;
            format!("# {shown} is installed; now: systemctl daemon-reload\n")
        }
    };
    Ok(Installed { path: shown, text })
}

/// Readers see the old unit or the new one, never a part.
fn write(path: &PathBuf, unit: &str) -> Result<(), Trouble> {
    let temporary = path.with_extension("service.new");
    fs::write(&temporary, unit).map_err(|error| file("cannot write", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        file("cannot write", path, error)
    })
}

/// The unit for this program and these settings.
fn unit(program: &Path, flags: &Flags) -> Result<String, Trouble> {
    let program = program.to_str().ok_or_else(|| {
        Trouble::Input(format!("a unit cannot name {}: it is not UTF-8", program.display()))
    })?;
    let mut command = format!("{} serve", quote(program));
    for (flag, value) in flags.iter() {
        command.push_str(&format!(" --{flag}={}", quote(value)));
    }
    Ok(UNIT.replace(COMMAND, &command))
}

/// A word of a command line as systemd reads it (systemd.service(5), "Command lines").
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
    fn the_packaged_unit_has_the_command() {
        assert_eq!(UNIT.matches(COMMAND).count(), 1);
    }
}
