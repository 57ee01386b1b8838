//! Exposed ports: ports of the host that lead to a guest.
//!
//! An [`Expose`] is one of them: packets to this port of the host go to that port of the guest,
//! wherever they come from. This holds for all addresses of the host except loopback, or for one
//! given address. The guest's IPv4 address gets what comes by IPv4, and its IPv6 address what comes
//! by IPv6. `0.0.0.0` and `::` are all addresses of one family. For loopback, the kernel would have
//! to accept packets for 127.0.0.1 from the bridge (`route_localnet`). Then guests could reach
//! every service that trusts the host itself. A loopback address as the one address is refused.
//!
//! It may be a range: so many ports in a row of the host lead to as many in a row of the guest. A
//! host port of 0 asks for any that is free, of the settings' range ([`Ports`]).
//!
//! Packets for an exposed port no longer reach a program of the host that listens on it
//! ([`Listener`]), be it the one by which the host is administered. Such a port is refused.
//!
//! A VM's ports are elements of maps as long as its guest has an address. In dhcp mode, a guest is
//! reached once it has a lease.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most ports of one VM: each is an element of a map.
pub const EXPOSED_MAX: usize = 1024;

/// Ports of the host that are given to those who ask for any: below those that the kernel gives to
/// connections (ip-sysctl.rst, `ip_local_port_range`: from 32768).
pub const PORTS_DEFAULT: Ports = Ports { first: 30_000, last: 32_767 };

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
    /// SCTP.
    Sctp,
}

/// Ports from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first, which is not 0.
    pub first: u16,
    /// The last, which is not below the first.
    pub last: u16,
}

/// A program of the host that listens on a port, not by loopback alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub at: HostPort,
    /// Who, in words.
    pub who: String,
}

/// A port of a guest, and the port of the host that leads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// The protocol.
    pub protocol: Protocol,
    /// The guest's port.
    pub port: u16,
    /// The host's port. In what is asked for, 0 means any that is free.
    pub host_port: u16,
    /// How many ports there are, of the guest and of the host, from these on.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
    /// The address of the host; `None`: all its addresses except loopback. The unspecified address
    /// of a family means all of that family.
    pub host_ip: Option<IpAddr>,
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
    /// How many there are, from this one on.
    pub count: u16,
    /// The address; `None`: all. The unspecified address of a family means all of that family.
    pub ip: Option<IpAddr>,
}

impl Protocol {
    /// The protocol as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Its number in IP (IANA, protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(protocol.as_str()))
            .ok_or_else(|| format!("{text:?} is none of tcp, udp and sctp"))
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
        let Expose { protocol, host_port: port, count, host_ip: ip, .. } = *self;
        HostPort { protocol, port, count, ip }
    }

    /// Each port of the host, with the guest's port that it leads to.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let (host_port, port) = (self.host_port, self.port);
        (0..self.count).map(move |at| (host_port.saturating_add(at), port.saturating_add(at)))
    }

    /// Says what is wrong with it, by the name of the field.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let fits = |port: u16| u32::from(port) + u32::from(self.count) <= 1 + u32::from(u16::MAX);
        if self.count == 0 || !fits(self.port) || !fits(self.host_port) {
            let reason = format!("{} ports from there on are too many", self.count);
            return Err(("count", reason));
        }
        let of_host = |reason: &str| Err(("host_ip", reason.to_string()));
        match self.host_ip {
            Some(ip) if ip.is_loopback() => {
                of_host("a port of a loopback address cannot lead to a guest")
            }
            Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
                of_host("a port of a link-local address cannot lead to a guest")
            }
            Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                of_host("write it as an IPv4 address")
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Ports {
    /// The first `count` ports in a row that are free.
    pub fn choose(self, count: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let last = self.last.checked_sub(count.checked_sub(1)?)?;
        (self.first..=last).find(|&first| is_free(first))
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let ports = text.split_once('-').and_then(|(first, last)| {
            Some(Ports { first: first.parse().ok()?, last: last.parse().ok()? })
        });
        ports
            .filter(|ports| 0 < ports.first && ports.first <= ports.last)
            .ok_or_else(|| format!("{text:?} is no range of ports such as 30000-32767"))
    }
}

fn one() -> u16 {
    1
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

impl HostPort {
    /// Whether they begin at the same place.
    pub fn is_at(&self, other: &HostPort) -> bool {
        (self.protocol, self.port, self.ip) == (other.protocol, other.port, other.ip)
    }

    /// Whether a packet can match both.
    pub fn meets(&self, other: &HostPort) -> bool {
        let begins_in = |one: &HostPort, other: &HostPort| {
            other.port.checked_sub(one.port).is_some_and(|at| at < one.count)
        };
        let same =
            self.protocol == other.protocol && (begins_in(self, other) || begins_in(other, self));
        let both = |one: IpAddr, other: IpAddr| {
            let all = one.is_unspecified() || other.is_unspecified();
            one == other || all && one.is_ipv4() == other.is_ipv4()
        };
        same && self.ip.zip(other.ip).is_none_or(|(one, other)| both(one, other))
    }

    /// The same for a guest that has addresses of these families alone.
    pub fn of_families(self, ipv4: bool, ipv6: bool) -> HostPort {
        let ip = match (self.ip, ipv4, ipv6) {
            (None, true, false) => Some(Ipv4Addr::UNSPECIFIED.into()),
            (None, false, true) => Some(Ipv6Addr::UNSPECIFIED.into()),
            (ip, _, _) => ip,
        };
        HostPort { ip, ..self }
    }
}

impl fmt::Display for HostPort {
    /// "tcp 8080", "tcp 8080 of 203.0.113.1", or "tcp 8080-8089".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)?;
        if self.count > 1 {
            write!(f, "-{}", self.port.saturating_add(self.count - 1))?;
        }
        match self.ip {
            None => Ok(()),
            Some(IpAddr::V4(ip)) if ip.is_unspecified() => f.write_str(" of all IPv4 addresses"),
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => f.write_str(" of all IPv6 addresses"),
            Some(ip) => write!(f, " of {ip}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16, count: u16, ip: Option<[u8; 4]>) -> HostPort {
        HostPort { protocol: Protocol::Udp, port, count, ip: ip.map(IpAddr::from) }
    }

    #[test]
    fn an_unspecified_address_is_all_of_its_family() {
        let of = |ip: &str| HostPort { ip: Some(ip.parse().unwrap()), ..at(53, 1, None) };
        let all = [at(53, 1, None), of("0.0.0.0"), of("10.0.0.1"), of("::"), of("2001:db8::1")];
        let meets = |one: &HostPort| all.map(|other| one.meets(&other));
        assert_eq!(meets(&all[0]), [true; 5]);
        assert_eq!(meets(&all[1]), [true, true, true, false, false]);
        assert_eq!(meets(&all[2]), [true, true, true, false, false]);
        assert_eq!(meets(&all[3]), [true, false, false, true, true]);
        assert_eq!(meets(&of("2001:db8::2")), [true, false, false, true, false]);
        assert_eq!(all[0].of_families(true, true), all[0]);
        assert_eq!(all[0].of_families(true, false), all[1]);
        assert_eq!(all[4].of_families(true, false), all[4]);
        assert_eq!(all[3].to_string(), "udp 53 of all IPv6 addresses");
    }

    #[test]
    fn ranges_meet_where_they_have_a_port_in_common() {
        let range = at(30_000, 200, None);
        for (port, count, meets) in
            [(29_999, 1, false), (29_999, 2, true), (30_199, 1, true), (30_200, 1, false)]
        {
            let other = at(port, count, Some([10, 0, 0, 1]));
            assert_eq!((range.meets(&other), other.meets(&range)), (meets, meets), "{port}");
        }
        assert!(!range.meets(&HostPort { protocol: Protocol::Sctp, ..range }));
        assert_eq!(range.to_string(), "udp 30000-30199");
        assert!(at(u16::MAX, 1, None).meets(&at(u16::MAX, 1, None)));
    }

    #[test]
    fn free_ports_are_chosen_in_a_row() {
        let ports: Ports = "30000-30009".parse().unwrap();
        assert_eq!(ports.choose(1, |_| true), Some(30_000));
        assert_eq!(ports.choose(3, |port| port > 30_004), Some(30_005));
        assert_eq!(ports.choose(10, |_| true), Some(30_000));
        assert_eq!(ports.choose(11, |_| true), None);
        for wrong in ["0-9", "9-8", "8", "8-", "a-b", "1-65536"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }
}
