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
//! [`super::files`] installs them and takes them away.

use std::path::Path;

use crate::config::{CLIENT_KEYS, Flags, KEYS, Key, Settings};

use super::Trouble;
use super::files::{Contents, Item};

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

/// The files, below a root, for this program.
pub(super) fn items(
    root: &Path,
    program: &Path,
    flags: &Flags,
    settings: &Settings,
) -> Result<[Item; 5], Trouble> {
    let bridges: Vec<&str> =
        settings.networks.iter().map(|network| network.bridge.as_str()).collect();
    let item = |path: &str, text: String, notice| {
        let (path, contents) = (root.join(path), Contents::Text(text));
        Item { path, contents, notice, yields: false }
    };
    Ok([
        item("etc/systemd/system/volnet.service", unit(program, flags)?, "systemctl daemon-reload"),
        item(
            "etc/systemd/network/10-volnet.network",
            NETWORKD.replace(BRIDGE, &bridges.join(" ")),
            "networkctl reload, if systemd-networkd runs",
        ),
        item(
            "etc/NetworkManager/conf.d/90-volnet.conf",
            NETWORK_MANAGER.replace(BRIDGE, &bridges.join(",interface-name:")),
            "nmcli general reload, if NetworkManager runs",
        ),
        item(
            "etc/systemd/system/volnet-guests.service",
            guests(program, flags)?,
            "systemctl daemon-reload",
        ),
        item("etc/systemd/system/volnet-vms.service", VMS.into(), "systemctl daemon-reload"),
    ])
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
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-,:+=@~".contains(c);
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
