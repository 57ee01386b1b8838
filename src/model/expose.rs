//! Exposed ports: ports of the host that lead to a guest.
//!
//! An [`Expose`] is one of them: packets to this port of the host go to that port of the guest,
//! wherever they come from. This holds for all addresses of the host except 127.0.0.0/8, or for one
//! given address. For loopback, the kernel would have to accept packets for 127.0.0.1 from the
//! bridge (`route_localnet`). Then guests could reach every service that trusts the host itself.
//!
//! A VM's ports are elements of maps as long as its guest has an address. In dhcp mode, a guest is
//! reached once it has a lease.

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
    /// The address of the host; `None`: all its addresses except loopback.
    pub host_ip: Option<Ipv4Addr>,
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The host's side of an exposed port. Two exposed ports must not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address; `None`: all.
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
    /// The host's side.
    pub fn at(&self) -> HostPort {
        HostPort { protocol: self.protocol, port: self.host_port, ip: self.host_ip }
    }
}

impl HostPort {
    /// Whether a packet can match both.
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
