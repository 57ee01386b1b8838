//! The identity that a guest has inside, if that is another than its VM has outside.
//!
//! Guests that wake from one snapshot all believe in the same Ethernet address, the same IPv4
//! address and the same gateway. Outside, each VM has addresses of its own: in leases, policies,
//! ports, names and counters. The rules of the bridge translate between the two
//! (`crate::plan::ruleset`), so the guest need not be changed.
//!
//! An [`InnerSpec`] is what somebody asks for, of a VM or of a network for all its VMs. An
//! [`Inner`] is complete. It is chosen when the VM is made and does not follow the settings
//! afterwards, because the guest does not follow them. [`Identity`] is what a guest is told,
//! whether it has an inner identity or not.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::mac::Mac;
use super::net::{Ipv4Network, NetworkConfig};
use super::nic::Nic;
use super::prefix::Prefix;

/// The Ethernet address of the gateway for a guest whose request names none. It is the same on each
/// host, so a snapshot finds its gateway wherever it wakes. It is locally administered.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0x76, 0x6f, 0x6c, 0x67, 0x77]);

/// The shortest prefix of an inner address.
pub const PREFIX_MIN: u8 = 8;
/// The longest: a point-to-point link (RFC 3021).
pub const PREFIX_MAX: u8 = 31;

/// The inner identity that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InnerSpec {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The length of its prefix; `None`: that of the network.
    pub prefix: Option<u8>,
    /// Its gateway; `None`: that of the network.
    pub gateway: Option<Ipv4Addr>,
    /// The Ethernet address of the gateway; `None`: [`GATEWAY_MAC`].
    pub gateway_mac: Option<Mac>,
}

/// An inner identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The length of its prefix, [`PREFIX_MIN`] to [`PREFIX_MAX`].
    pub prefix: u8,
    /// Its gateway, which is in that prefix.
    pub gateway: Ipv4Addr,
    /// The Ethernet address that the gateway has for it; `None`: the one that it has outside.
    pub gateway_mac: Option<Mac>,
}

/// An interface and its network as the guest knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The guest's Ethernet address.
    pub mac: Mac,
    /// The host's Ethernet address.
    pub host_mac: Mac,
    /// Its IPv4 side; `None` if its network has none.
    pub ipv4: Option<Identity4>,
}

/// The IPv4 side of an [`Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity4 {
    /// The guest's address, as long as its VM exists; `None` in dhcp mode.
    pub ip: Option<Ipv4Addr>,
    /// The prefix of its network.
    pub subnet: Prefix,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// The host's address.
    pub host: Ipv4Addr,
    /// The host's address outside.
    outer_host: Ipv4Addr,
}

impl InnerSpec {
    /// The whole identity on a network. The error names a field and says why it is not possible.
    pub fn on(&self, network: &NetworkConfig) -> Result<Inner, (&'static str, String)> {
        let InnerSpec { mac, ip, .. } = *self;
        let (Some(Ipv4Network { prefix, host }), None) = (network.ipv4, network.ipv6) else {
            let name = &network.name;
            let reason = format!("network {name} has IPv6, and inner identities are IPv4 only");
            return Err(("inner", reason));
        };
        let outer_gateway = network.gateway.unwrap_or(host);
        let length = self.prefix.unwrap_or(prefix.length());
        let within = Prefix::containing(ip, length).filter(|_| is_length(length));
        let Some(within) = within else {
            let reason = format!("/{length} is not from /{PREFIX_MIN} to /{PREFIX_MAX}");
            return Err(("inner.ip", reason));
        };
        if !can_be_hosts(ip, within) {
            return Err(("inner.ip", format!("a host cannot have {ip} in {within}")));
        }
        let gateway = self.gateway.unwrap_or(outer_gateway);
        if !within.contains(gateway) || !can_be_hosts(gateway, within) || gateway == ip {
            let reason = match self.gateway {
                Some(_) => format!("a guest with {ip} cannot have the gateway {gateway}"),
                None => format!("it is missing, and {gateway} of the network is not in {within}"),
            };
            return Err(("inner.gateway", reason));
        }
        let is_host = outer_gateway == host;
        if !is_host && self.gateway_mac.is_some() {
            let reason = "the gateway of the network is not this host".into();
            return Err(("inner.gateway_mac", reason));
        }
        let gateway_mac = is_host.then(|| self.gateway_mac.unwrap_or(GATEWAY_MAC));
        if gateway_mac == Some(mac) || mac == network.mac {
            return Err(("inner.mac", format!("{mac} is the Ethernet address of the gateway")));
        }
        Ok(Inner { mac, ip, prefix: length, gateway, gateway_mac })
    }
}

/// Whether an inner prefix may have this length.
pub fn is_length(length: u8) -> bool {
    (PREFIX_MIN..=PREFIX_MAX).contains(&length)
}

/// Whether a host may have this address in its prefix.
fn can_be_hosts(ip: Ipv4Addr, within: Prefix) -> bool {
    let first = ip.octets()[0];
    let ends = within.length() < PREFIX_MAX;
    let is_end = ip == within.network() || ip == within.broadcast();
    first != 0 && first != 127 && first < 224 && !(ends && is_end)
}

impl Inner {
    /// The addresses that the guest takes for its own and its gateway's, whoever has them outside.
    pub fn addresses(&self) -> [Ipv4Addr; 2] {
        [self.ip, self.gateway]
    }
}

impl Nic {
    /// The interface and its network as the guest knows them.
    pub fn identity(&self, network: &NetworkConfig) -> Identity {
        let inner = self.inner.as_deref();
        let ipv4 = network.ipv4.map(|Ipv4Network { prefix: subnet, host }| {
            let gateway = network.gateway.unwrap_or(host);
            match inner {
                None => Identity4 { ip: self.ip, subnet, gateway, host, outer_host: host },
                Some(inner) => Identity4 {
                    ip: Some(inner.ip),
                    subnet: Prefix::containing(inner.ip, inner.prefix).unwrap_or(subnet),
                    gateway: inner.gateway,
                    host: if gateway == host { inner.gateway } else { host },
                    outer_host: host,
                },
            }
        });
        Identity {
            mac: inner.map_or(self.mac, |inner| inner.mac),
            host_mac: inner.and_then(|inner| inner.gateway_mac).unwrap_or(network.mac),
            ipv4,
        }
    }
}

impl Identity {
    /// The guest's IPv4 address, as long as its VM exists.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.ipv4?.ip
    }

    /// A server, as the guest reaches it.
    pub fn server(&self, server: IpAddr) -> IpAddr {
        match self.ipv4 {
            Some(ipv4) if server == IpAddr::V4(ipv4.outer_host) => ipv4.host.into(),
            Some(_) | None => server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);

    fn spec(ip: &str, prefix: Option<u8>, gateway: Option<&str>) -> InnerSpec {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        InnerSpec { mac: MAC, ip: ip.parse().unwrap(), prefix, gateway, gateway_mac: None }
    }

    fn network() -> NetworkConfig {
        NetworkConfig::sample("default", "vbr0", "10.0.0.0/24", "10.0.0.1")
    }

    #[test]
    fn what_is_left_out_is_that_of_the_network() {
        let inner = spec("10.0.0.2", None, None).on(&network()).unwrap();
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!((inner.prefix, inner.gateway), (24, gateway));
        assert_eq!(inner.gateway_mac, Some(GATEWAY_MAC), "it is the same on each host");
        let inner = spec("172.16.0.2", Some(30), Some("172.16.0.1")).on(&network()).unwrap();
        assert_eq!((inner.prefix, inner.gateway), (30, Ipv4Addr::new(172, 16, 0, 1)));
    }

    #[test]
    fn what_no_guest_can_have_is_refused_by_its_field() {
        let field = |spec: InnerSpec, network: &NetworkConfig| match spec.on(network) {
            Ok(inner) => panic!("{inner:?}"),
            Err((field, _)) => field,
        };
        let here = network();
        for (wrong, expected) in [
            (spec("172.16.0.2", Some(30), None), "inner.gateway"),
            (spec("172.16.0.2", Some(30), Some("172.16.0.3")), "inner.gateway"),
            (spec("172.16.0.2", Some(30), Some("172.16.0.2")), "inner.gateway"),
            (spec("172.16.0.2", Some(30), Some("172.16.1.1")), "inner.gateway"),
            (spec("172.16.0.0", Some(30), Some("172.16.0.1")), "inner.ip"),
            (spec("127.0.0.2", Some(8), Some("127.0.0.1")), "inner.ip"),
            (spec("10.0.0.2", Some(32), None), "inner.ip"),
            (InnerSpec { mac: here.mac, ..spec("10.0.0.2", None, None) }, "inner.mac"),
            (InnerSpec { mac: GATEWAY_MAC, ..spec("10.0.0.2", None, None) }, "inner.mac"),
        ] {
            assert_eq!(field(wrong, &here), expected, "{wrong:?}");
        }
        let routed = NetworkConfig { gateway: Some(Ipv4Addr::new(10, 0, 0, 254)), ..network() };
        let named = InnerSpec { gateway_mac: Some(MAC), ..spec("10.0.0.2", None, None) };
        assert_eq!(field(named, &routed), "inner.gateway_mac");
        let inner = spec("10.0.0.2", None, None).on(&routed).unwrap();
        assert_eq!(inner.gateway_mac, None, "it is not this host's to say");
        let pair = spec("172.16.0.2", Some(31), Some("172.16.0.3")).on(&here);
        assert!(pair.is_ok(), "{pair:?}");
    }
}
