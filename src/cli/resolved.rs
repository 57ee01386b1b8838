//! The unit that `setup --resolved` installs and `teardown` takes away: the host's own programs
//! find VMs by their names, by systemd-resolved.
//!
//! systemd-resolved is told by D-Bus, for a link: a setting of its own for all links would have it
//! ask volnet for every name. It keeps what it is told of a link until that is gone, and only
//! systemd-networkd, which leaves volnet's links alone, could say more about one. So the unit is
//! wanted by the device of each bridge: it runs whenever udev shows a new bridge, at boot, after
//! `setup`, and when volnet puts back one that others deleted. Neither a restart of volnet nor one
//! of systemd-resolved needs it.
//!
//! [`super::files`] installs it and takes it away.

use std::fmt::Write;
use std::path::Path;

use crate::config::Settings;
use crate::model::net::{Dns, NetworkConfig};

use super::Trouble;
use super::files::{Contents, Item};
use super::service::quote;

/// The unit as it is packaged.
const UNIT: &str = include_str!("../../packaging/volnet-resolved.service");
/// What is written for each network in place of these of the packaged unit.
const COMMANDS: &str = "ExecStart=resolvectl domain vbr0 ~volnet\n\
                        ExecStart=resolvectl dns vbr0 192.168.127.1\n";
/// The device of the packaged unit, which is replaced by those of all bridges.
const DEVICE: &str = "sys-subsystem-net-devices-vbr0.device";

/// The unit, below a root, for these networks.
pub(super) fn item(root: &Path, settings: &Settings) -> Item {
    let path = root.join("etc/systemd/system/volnet-resolved.service");
    let contents = Contents::Text(unit(&named(settings)));
    Item { path, contents, notice: "systemctl daemon-reload", yields: false }
}

/// Checks that there is something to install.
pub(super) fn check(settings: &Settings) -> Result<(), Trouble> {
    if named(settings).is_empty() {
        let reason = "--resolved: no network on a bridge of volnet's has names (dns: builtin)";
        return Err(Trouble::Input(reason.into()));
    }
    Ok(())
}

/// The networks whose names volnet answers. What others manage the bridge of they tell
/// systemd-resolved themselves, and it does not listen to anybody else.
fn named(settings: &Settings) -> Vec<&NetworkConfig> {
    let is_named = |network: &&NetworkConfig| network.managed && network.dns == Dns::Builtin;
    settings.networks.iter().filter(is_named).collect()
}

fn unit(networks: &[&NetworkConfig]) -> String {
    let mut commands = String::new();
    for network in networks {
        let bridge = quote(&network.bridge);
        let domain = quote(&format!("~{}", network.domain));
        let servers: Vec<_> = network.host_addresses().map(|ip| ip.to_string()).collect();
        let servers = servers.join(" ");
        let _ = writeln!(commands, "ExecStart=resolvectl domain {bridge} {domain}");
        let _ = writeln!(commands, "ExecStart=resolvectl dns {bridge} {servers}");
    }
    let devices: Vec<_> = networks.iter().map(|network| device(&network.bridge)).collect();
    UNIT.replace(COMMANDS, &commands).replace(DEVICE, &devices.join(" "))
}

/// The name that systemd has for a link (systemd.unit(5), "String escaping").
fn device(link: &str) -> String {
    let mut name = String::from("sys-subsystem-net-devices-");
    for byte in link.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b':' | b'_' | b'.' => name.push(byte.into()),
            byte => {
                let _ = write!(name, "\\x{byte:02x}");
            }
        }
    }
    name + ".device"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn settings(networks: &str) -> Settings {
        let flags = config::Flags::default();
        config::resolve(&flags, &Default::default(), Some(networks), "host").unwrap()
    }

    #[test]
    fn the_packaged_unit_is_that_of_the_default_network() {
        assert_eq!(unit(&named(&settings("{}"))), UNIT);
    }

    #[test]
    fn each_network_with_names_has_its_lines() {
        let settings = settings(
            r#"{"networks": [
                {"subnet": "10.0.0.0/24", "domain": "lab.example",
                 "ipv6": {"prefix": "fd00:0:0:1::/64"}},
                {"name": "other", "bridge": "br-x", "subnet": "10.0.1.0/24"},
                {"name": "quiet", "bridge": "br2", "subnet": "10.0.2.0/24", "dns": "off"}
            ]}"#,
        );
        let unit = unit(&named(&settings));
        let lines: Vec<_> = unit
            .lines()
            .filter(|line| line.starts_with("ExecStart") || line.starts_with("WantedBy"))
            .collect();
        let expected = [
            "ExecStart=resolvectl domain vbr0 ~lab.example",
            "ExecStart=resolvectl dns vbr0 10.0.0.1 fd00:0:0:1::1",
            "ExecStart=resolvectl domain br-x ~volnet",
            "ExecStart=resolvectl dns br-x 10.0.1.1",
            "WantedBy=sys-subsystem-net-devices-vbr0.device \
             sys-subsystem-net-devices-br\\x2dx.device",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn without_names_there_is_nothing_to_tell() {
        assert!(check(&settings("{}")).is_ok());
        assert!(check(&settings(r#"{"networks": [{"dns": "off"}]}"#)).is_err());
    }
}
