//! The interfaces of a VM.
//!
//! A VM has one [`Nic`] for each network that it is on; in vsock mode it has none. What is about
//! the network is here: tap, addresses, lease, exposed ports, policy and limits. What was asked for
//! stands in the [`super::spec::NetworkSpec`] of the same index.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Deserializer, Serialize};

use super::expose::{Expose, HostPort};
use super::inner::Inner;
use super::mac::Mac;
use super::mode::Mode;
use super::name::{TapName, VmName};
use super::spec::NetworkSpec;
use super::traffic::Traffic;

/// The most NICs of a VM.
pub const NICS_MAX: usize = 8;

/// The most IPv6 addresses that a guest has on one interface beside the one that volnet gives it. A
/// guest with privacy addresses has up to ten: one a day that it keeps for a week, one that stays,
/// and one that is link-local (RFC 8981, 3.8; RFC 7217).
pub const CLAIMED_MAX: usize = 16;

/// One interface of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The network's name.
    pub network: String,
    /// The host link.
    pub tap: TapName,
    /// Index of the tap once it exists.
    pub ifindex: Option<u32>,
    /// The guest's Ethernet address, as the network knows it.
    pub mac: Mac,
    /// The address that the VM has as long as it exists; `None` in dhcp mode, and if it was made on
    /// a network with IPv6 alone.
    pub ip: Option<Ipv4Addr>,
    /// Its IPv6 address; `None` if its network has no IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// What its guest believes instead of `mac` and `ip`, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Box<Inner>>,
    /// The IPv6 addresses that the guest made for itself, at most [`CLAIMED_MAX`], in the order in
    /// which it claimed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<Ipv6Addr>,
    /// The lease of the guest; `None` unless in dhcp mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// The ports of the host that lead to it: those that were asked for, as they were changed
    /// since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<Expose>,
    /// What is said of its traffic, as far as that can change while the VM exists.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// The lease of an address by the built-in DHCP server. The guest keeps it after its end until
/// another guest needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The address.
    pub ip: Ipv4Addr,
    /// When it ends, in milliseconds since the boot of the host that the record names.
    #[serde(deserialize_with = "since_boot")]
    pub until: u64,
    /// Whether the guest has the lease. If not, it was only offered.
    pub given: bool,
}

/// Reads an end. Before the boot, it is the boot: the lease is over.
fn since_boot<'a, D: Deserializer<'a>>(input: D) -> Result<u64, D::Error> {
    Ok(u64::try_from(i64::deserialize(input)?).unwrap_or(0))
}

/// Whether packets from this address are routed. Link-local ones stay on the link.
pub fn is_routed(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Nic {
    /// The addresses of the guest that volnet gives it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address().map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6))
    }

    /// Those, and the ones that the guest made for itself.
    pub fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().chain(self.claimed.iter().copied().map(IpAddr::V6))
    }

    /// All IPv6 addresses that the guest may use.
    pub fn addresses6(&self) -> impl Iterator<Item = Ipv6Addr> {
        let given = self.ip6.into_iter().flat_map(|ip| [ip, self.mac.link_local()]);
        given.chain(self.claimed.iter().copied())
    }

    /// Whether the guest has an IPv4 address, or will ask for one, as its interface was asked for.
    pub fn has_ipv4(&self, spec: &NetworkSpec) -> bool {
        self.ip.is_some() || spec.mode == Mode::Dhcp
    }

    /// A port of the host that leads to it, at addresses of the families that the guest has.
    pub fn host_port(&self, spec: &NetworkSpec, port: &Expose) -> HostPort {
        port.at().of_families(self.has_ipv4(spec), self.ip6.is_some())
    }

    /// The IPv4 address of the guest, if volnet knows it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.ip.or(self.lease.filter(|lease| lease.given).map(|lease| lease.ip))
    }
}

/// Which interface of which VM: `web` is the first of VM web, `web/1` the next. A VM's name holds
/// no `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicName<'a> {
    /// The VM.
    pub vm: &'a VmName,
    /// The index of the interface, from 0.
    pub index: usize,
}

impl NicName<'_> {
    /// The VM that an interface of this name belongs to.
    pub fn vm_of(name: &str) -> Option<VmName> {
        VmName::new(name.split('/').next()?).ok()
    }
}

impl fmt::Display for NicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => f.write_str(self.vm.as_str()),
            index => write!(f, "{}/{index}", self.vm),
        }
    }
}
