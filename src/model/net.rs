//! The networks of the host, as the settings describe them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::expose::Protocol;
use super::inner::{Inner, InnerSpec};
use super::mac::Mac;
use super::prefix::Prefix;
use super::traffic::{InForce, Traffic};

/// The first half of link-local addresses (RFC 4291, 2.5.6).
const LINK_LOCAL: u64 = 0xfe80_0000_0000_0000;
/// The length of the link-local prefix of a link.
const LINK_LOCAL_LENGTH: u8 = 64;

/// The anycast address of all routers (RFC 4291, 2.6.1), the identifiers of IANA's own Ethernet
/// addresses, among them that of proxies (RFC 6543), and other anycast addresses (RFC 2526).
const RESERVED_IDS: [RangeInclusive<u64>; 3] = [
    0..=0,
    0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff,
    0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff,
];

/// One network of the host: a bridge, its prefix and its connection to the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Its name in requests and replies.
    pub name: String,
    /// The name of the whole network that this is a part of. It is its own name if it is the whole.
    pub whole: String,
    /// The bridge link, at most 15 bytes.
    pub bridge: String,
    /// Its IPv4 prefix. `None`: its VMs have IPv6 alone.
    pub ipv4: Option<Ipv4Network>,
    /// MTU of the bridge in bytes. It is also the MTU of the taps, unless a VM has its own.
    pub mtu: u16,
    /// Whether IPv4 traffic that leaves the prefix is masqueraded.
    pub nat: bool,
    /// What is said of the traffic of VMs on it. A VM can override this.
    pub traffic: Traffic,
    /// Who answers guests that ask for an address by DHCP.
    pub dhcp: Dhcp,
    /// Who answers guests that ask for names.
    pub dns: Dns,
    /// The domain of the names of its VMs.
    pub domain: String,
    /// Its IPv6 prefix. `None`: its VMs may not speak IPv6. It has one of the two at least.
    pub ipv6: Option<Ipv6Network>,
    /// Prefixes of networks like this one on other hosts. They are routed to: what guests send
    /// there is not masqueraded, and connections from there come in.
    pub peers: Vec<Prefix<IpAddr>>,
    /// Whether what the host translates is so between its guests, too: a guest reaches another, or
    /// itself, by a service of kube-proxy.
    pub services: bool,
    /// The services of the host for VMs on it.
    pub host_services: Vec<Service>,
    /// Whether the bridge is volnet's. A bridge that is not is used as it is: it gets ports, rules
    /// and leases, and volnet neither makes, changes nor removes it.
    pub managed: bool,
    /// The gateway of the guests, if it is not the host.
    pub gateway: Option<Ipv4Addr>,
    /// The addresses to choose from for VMs that name none; `None`: all of the prefix.
    pub range: Option<AddressRange>,
    /// Addresses that no VM gets.
    pub reserve: Vec<AddressRange>,
    /// What its guests are told by DHCP besides.
    pub told: Told,
    /// The identity that each of its guests has inside, unless its VM names another.
    pub inner: Option<InnerSpec>,
    /// The bridge's MAC, pinned so that it does not follow the lowest port.
    pub mac: Mac,
}

/// The IPv4 side of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Network {
    /// The prefix that leases come from.
    pub prefix: Prefix,
    /// The host's own address on the bridge: the guests' gateway, unless they have another.
    pub host: Ipv4Addr,
}

/// The IPv6 side of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Network {
    /// The prefix, of 64 bits.
    pub prefix: Prefix<Ipv6Addr>,
    /// The host's own address on the bridge.
    pub host: Ipv6Addr,
    /// Whether traffic that leaves the prefix is masqueraded.
    pub nat: bool,
}

impl Ipv6Network {
    /// The network with this prefix. The host has its first address.
    pub fn new(prefix: Prefix<Ipv6Addr>, nat: bool) -> Ipv6Network {
        let host = Ipv6Addr::from_bits(prefix.network().to_bits() | 1);
        Ipv6Network { prefix, host, nat }
    }

    /// The address of the VM with this Ethernet address: the one that it gives itself by stateless
    /// autoconfiguration with a modified EUI-64 (RFC 4862, RFC 4291 appendix A).
    pub fn address_of(&self, mac: Mac) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.prefix.network().to_bits() | u128::from(mac.interface_id()))
    }

    /// Whether a machine on the link can have this address: it is of the prefix, or link-local.
    pub fn is_on_link(&self, address: Ipv6Addr) -> bool {
        self.prefix.contains(address) || (address.to_bits() >> 64) as u64 == LINK_LOCAL
    }

    /// Whether no VM may have this address: the host has it, or its interface identifier is
    /// reserved (IANA, reserved IPv6 interface identifiers; RFC 5453).
    pub fn is_reserved(&self, address: Ipv6Addr) -> bool {
        let id = address.to_bits() as u64;
        address == self.host || RESERVED_IDS.iter().any(|reserved| reserved.contains(&id))
    }
}

/// What the built-in DHCP server tells guests besides their address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The domains in which they look up names. The first is their own.
    pub search: Vec<String>,
    /// The server that they load their boot file from.
    pub next_server: Option<Ipv4Addr>,
    /// The boot file, at most 127 bytes.
    pub boot_file: Option<String>,
}

/// Addresses from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, which is not below the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// One address.
    pub fn of(address: Ipv4Addr) -> AddressRange {
        AddressRange { first: address, last: address }
    }

    /// Whether this address is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl FromStr for AddressRange {
    type Err = String;

    /// Reads `192.0.2.10-192.0.2.99`, or one address.
    fn from_str(text: &str) -> Result<AddressRange, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let both = first.trim().parse().ok().zip(last.trim().parse().ok());
        both.map(|(first, last)| AddressRange { first, last })
            .filter(|addresses| addresses.first <= addresses.last)
            .ok_or_else(|| {
                format!("{text:?} is neither an address nor a range such as 10.0.0.10-10.0.0.99")
            })
    }
}

impl NetworkConfig {
    /// A network for tests: what the settings leave out has its default, but guests ask nobody for
    /// names.
    ///
    /// # Panics
    ///
    /// If `subnet` is no prefix or `host_ip` is no address.
    #[cfg(any(test, feature = "testing"))]
    pub fn sample(name: &str, bridge: &str, subnet: &str, host_ip: &str) -> NetworkConfig {
        NetworkConfig {
            name: name.into(),
            whole: name.into(),
            bridge: bridge.into(),
            ipv4: Some(Ipv4Network {
                prefix: subnet.parse().expect("a prefix"),
                host: host_ip.parse().expect("an address"),
            }),
            mtu: 1500,
            nat: true,
            traffic: Traffic::default(),
            dhcp: Dhcp::Builtin,
            dns: Dns::Off,
            domain: "volnet".into(),
            ipv6: None,
            peers: Vec::new(),
            services: false,
            host_services: vec![Service::Ping],
            managed: true,
            gateway: None,
            range: None,
            reserve: Vec::new(),
            told: Told::default(),
            inner: None,
            mac: Mac::of_bridge("host", bridge),
        }
    }

    /// The traffic of a VM on it that says nothing of its own.
    pub fn traffic(&self) -> InForce<'_> {
        InForce::of([&self.traffic])
    }

    /// The host's addresses for its guests.
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let four = self.ipv4.map(|ipv4| ipv4.host.into());
        four.into_iter().chain(self.ipv6.map(|ipv6| ipv6.host.into()))
    }

    /// Its prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix<IpAddr>> {
        let four = self.ipv4.map(|ipv4| ipv4.prefix.into());
        four.into_iter().chain(self.ipv6.map(|ipv6| ipv6.prefix.into()))
    }

    /// Its prefixes and its bridge, for people.
    pub fn in_words(&self) -> String {
        let prefixes: Vec<String> = self.prefixes().map(|prefix| prefix.to_string()).collect();
        format!("{} on bridge {}", prefixes.join(" and "), self.bridge)
    }

    /// An IPv4 address that a guest could have: not the host's.
    pub fn a_guest(&self) -> Option<Ipv4Addr> {
        let Ipv4Network { prefix, host } = self.ipv4?;
        let last = u32::from(prefix.broadcast());
        let mut below = (1..=2).map(|down| Ipv4Addr::from(last.saturating_sub(down)));
        below.find(|ip| *ip != host)
    }

    /// Whether it is one of these.
    pub fn is_host(&self, address: IpAddr) -> bool {
        self.host_addresses().any(|own| own == address)
    }

    /// Whether this address is of one of its prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|ipv4| ipv4.prefix.contains(address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|ipv6| ipv6.prefix.contains(address)),
        }
    }

    /// An address behind these peers, to ask the kernel which way leads there: not one of this
    /// network, which may be a part of the prefix.
    pub fn an_address_of(&self, peers: Prefix<IpAddr>) -> Option<IpAddr> {
        let behind = |first: IpAddr, last: IpAddr| match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let [up, down] =
                    [first.to_bits().saturating_add(1), last.to_bits().saturating_sub(1)];
                [Ipv4Addr::from_bits(up).into(), Ipv4Addr::from_bits(down).into()]
            }
            (_, _) => [first, last],
        };
        let found = behind(peers.network(), peers.last()).into_iter();
        found.into_iter().find(|address| peers.contains(*address) && !self.contains(*address))
    }

    /// The addresses of the bridge, each with the length of its prefix. The link-local one is that
    /// of the guests' router.
    pub fn bridge_addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let six = self.ipv6.into_iter().flat_map(|ipv6| {
            let link_local = (self.mac.link_local().into(), LINK_LOCAL_LENGTH);
            [link_local, (ipv6.host.into(), ipv6.prefix.length())]
        });
        let four = self.ipv4.map(|ipv4| (ipv4.host.into(), ipv4.prefix.length()));
        four.into_iter().chain(six)
    }

    /// The IPv4 gateway that guests are told.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway.or(self.ipv4.map(|ipv4| ipv4.host))
    }

    /// The domains in which guests are told to look up names: those of the settings, or its own.
    pub fn search(&self) -> &[String] {
        match (&self.told.search[..], &self.dns) {
            ([], Dns::Builtin) => std::slice::from_ref(&self.domain),
            (search, _) => search,
        }
    }

    /// Whether no VM may have this address.
    pub fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.gateway == Some(address)
            || self.reserve.iter().any(|reserved| reserved.contains(address))
    }

    /// The addresses that are not chosen for VMs that name none.
    pub fn passed_over(&self) -> Vec<AddressRange> {
        let mut passed = self.reserve.clone();
        passed.extend(self.gateway.map(AddressRange::of));
        // Who has one of them cannot reach the guests that take it for their own.
        let inner = self.inner.and_then(|inner| inner.on(self).ok());
        passed.extend(inner.iter().flat_map(Inner::addresses).map(AddressRange::of));
        if let Some((range, Ipv4Network { prefix, .. })) = self.range.zip(self.ipv4) {
            let (first, last) = (prefix.network(), prefix.broadcast());
            let below = range.first.to_bits().checked_sub(1).map(Ipv4Addr::from_bits);
            let above = range.last.to_bits().checked_add(1).map(Ipv4Addr::from_bits);
            passed.extend(below.map(|last| AddressRange { first, last }));
            passed.extend(above.map(|first| AddressRange { first, last }));
        }
        passed.retain(|addresses| addresses.first <= addresses.last);
        passed
    }
}

/// A service of the host for its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// All that the host has, on any of its addresses.
    Any,
    /// Echo requests.
    Ping,
    /// A port, 1 to 65535.
    Port(Protocol, u16),
}

/// Who answers the guests of a network that ask for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dhcp {
    /// volnet, from the network's pool.
    Builtin,
    /// A server that others run on the bridge or behind its uplink.
    External,
    /// Nobody: there are no VMs in dhcp mode on the network.
    Off,
}

impl Dhcp {
    /// The word in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Dhcp::Builtin => "builtin",
            Dhcp::External => "external",
            Dhcp::Off => "off",
        }
    }
}

impl FromStr for Dhcp {
    type Err = String;

    fn from_str(text: &str) -> Result<Dhcp, String> {
        [Dhcp::Builtin, Dhcp::External, Dhcp::Off]
            .into_iter()
            .find(|dhcp| text == dhcp.as_str())
            .ok_or_else(|| format!("{text:?} is none of builtin, external and off"))
    }
}

/// Who answers the guests of a network that ask for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// volnet, on the host's address there.
    Builtin,
    /// Nobody: guests are told the name servers of the host.
    Off,
    /// These servers, which guests are told.
    Servers(Vec<IpAddr>),
}

/// Whether the host has a table for its bridges.
pub fn is_guarded<'a>(mut networks: impl Iterator<Item = &'a NetworkConfig>) -> bool {
    networks.any(|network| network.traffic().antispoof)
}
