//! The network mode of a VM, and its consequences.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The network mode of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A tap on the host's bridge and an address leased by the host.
    #[default]
    Bridged,
    /// A tap on the host's bridge; the guest asks for its address by DHCP.
    Dhcp,
    /// No tap and no address, only a vsock context id.
    Vsock,
}

impl Mode {
    /// Whether the VM gets a tap on the bridge.
    pub fn needs_tap_device(self) -> bool {
        match self {
            Mode::Bridged | Mode::Dhcp => true,
            Mode::Vsock => false,
        }
    }

    /// Whether the host leases the VM an address.
    pub fn needs_ip_allocation(self) -> bool {
        match self {
            Mode::Bridged => true,
            Mode::Dhcp | Mode::Vsock => false,
        }
    }

    /// The mode as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Bridged => "bridged",
            Mode::Dhcp => "dhcp",
            Mode::Vsock => "vsock",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    /// Reads a mode. Case and surrounding white space do not matter. An empty string means bridged.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.trim();
        if word.is_empty() {
            return Ok(Mode::default());
        }
        [Mode::Bridged, Mode::Dhcp, Mode::Vsock]
            .into_iter()
            .find(|mode| word.eq_ignore_ascii_case(mode.as_str()))
            .ok_or_else(|| format!("{word:?} is not a mode; the modes are bridged, dhcp and vsock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modes_as_people_write_them() {
        for (text, expected) in [
            ("", Some(Mode::Bridged)),
            (" \t\n", Some(Mode::Bridged)),
            ("bridged", Some(Mode::Bridged)),
            (" Bridged ", Some(Mode::Bridged)),
            ("BRIDGED", Some(Mode::Bridged)),
            ("dhcp", Some(Mode::Dhcp)),
            ("DHCP\n", Some(Mode::Dhcp)),
            ("vsock", Some(Mode::Vsock)),
            ("VSOCK", Some(Mode::Vsock)),
            ("bridge", None),
            ("bridged,dhcp", None),
            ("none", None),
            ("v sock", None),
            ("dhcp\0", None),
        ] {
            assert_eq!(text.parse::<Mode>().ok(), expected, "{text:?}");
        }
        let words = "tun".parse::<Mode>().unwrap_err();
        assert_eq!(words, "\"tun\" is not a mode; the modes are bridged, dhcp and vsock");
    }

    #[test]
    fn each_mode_needs_what_it_needs() {
        for (mode, tap, address) in
            [(Mode::Bridged, true, true), (Mode::Dhcp, true, false), (Mode::Vsock, false, false)]
        {
            assert_eq!((mode.needs_tap_device(), mode.needs_ip_allocation()), (tap, address));
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }
}
