//! Ports of a guest that the host has as its own.
//!
//! An [`Expose`] is one of them: what comes to this port of the host goes to that port of the guest,
//! from wherever it comes. The host is meant by each of its addresses but 127.0.0.0/8, or by the one
//! that is named. To have loopback lead out of the host, the kernel would have to take packets for
//! 127.0.0.1 from the bridge as well (`route_localnet`), and with them each service that relies on
//! being reached from the host alone.
//!
//! A VM's ports live as elements of maps for as long as its guest has an address: a guest that asks
//! for its address by DHCP is reached once it has one.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most ports of one VM.
pub const EXPOSED_MAX: usize = 64;

/// A protocol that has ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A port of a guest, and the port of the host that leads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The protocol.
    pub protocol: Protocol,
    /// The guest's port.
    pub port: u16,
    /// The host's port.
    pub host_port: u16,
    /// The address of the host that is meant; `None`: each that it has, but those of loopback.
    pub host_ip: Option<Ipv4Addr>,
    /// What it is called, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where the host is reached: what two exposed ports cannot have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address; `None`: each.
    pub ip: Option<Ipv4Addr>,
}

impl Protocol {
    /// The protocol as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// Its number in IP (IANA, protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
            .ok_or_else(|| format!("{text:?} is neither tcp nor udp"))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Expose {
    /// Where the host is reached.
    pub fn at(&self) -> HostPort {
        HostPort { protocol: self.protocol, port: self.host_port, ip: self.host_ip }
    }
}

impl HostPort {
    /// Whether a packet can be meant for both.
    pub fn meets(&self, other: &HostPort) -> bool {
        let same = (self.protocol, self.port) == (other.protocol, other.port);
        same && self.ip.zip(other.ip).is_none_or(|(one, other)| one == other)
    }
}

impl fmt::Display for HostPort {
    /// "tcp 8080", or "tcp 8080 of 203.0.113.1".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)?;
        self.ip.map_or(Ok(()), |ip| write!(f, " of {ip}"))
    }
}
