//! The networks of the host, from their settings: each word by itself ([`word`]), each network,
//! then all together.

mod word;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::document::Kept;
use crate::model::error::Refusal;
use crate::model::expose::Protocol;
use crate::model::inner::InnerSpec;
use crate::model::mac::Mac;
use crate::model::name::{VmName, check_link_name};
use crate::model::net::is_guarded;
use crate::model::net::{AddressRange, Dhcp, Dns, NetworkConfig, Service, Told};
use crate::model::net::{Ipv4Network, Ipv6Network};
use crate::model::policy::Policy;
use crate::model::prefix::Prefix;
use crate::model::traffic::{Traffic, UNGUARDED};
use crate::spec::fields::{Document, Fields, Place};
use crate::spec::{self, MTU_MAX, MTU_MIN, text};

use super::source::{Found, Key, Sources};
use word::IPV6_LENGTH;
pub use word::{PREFIX_LENGTH_MAX, PREFIX_LENGTH_MIN};

/// The most networks of a host.
pub const NETWORKS_MAX: usize = 64;
/// The most services of the host on one network.
pub const SERVICES_MAX: usize = 64;
/// The most prefixes of peers. Each is two rules.
pub const PEERS_MAX: usize = 32;
/// The most entries of addresses that no VM gets.
const RESERVED_MAX: usize = 256;
/// The most domains in which guests look up names, and their bytes in one DHCP option.
const SEARCH_MAX: usize = 16;
const SEARCH_BYTES_MAX: usize = 255;
/// The domain of VMs.
const VM_DOMAIN_DEFAULT: &str = "volnet";
/// The most name servers of a network: a resolver uses so many (`MAXNS`, resolv.h).
const NAME_SERVERS_MAX: usize = 3;
/// The port of a name server (RFC 1035).
const NAME_SERVER: u16 = 53;

/// The most bridges of one network. With 1023 ports each, this is for more VMs than a host can run.
const BRIDGES_MAX: u32 = 64;
/// The longest prefix of a part: it has two addresses for guests.
const PART_LENGTH_MAX: u8 = 29;
const NAME_DEFAULT: &str = "default";
/// The prefix of bridges of networks that are added and name none.
const ADDED_PREFIX: &str = "vn-";
const BRIDGE_DEFAULT: &str = "vbr0";
const SUBNET_DEFAULT: &str = "192.168.127.0/24";
/// The port of a DHCP server (RFC 2131).
const DHCP_SERVER: u16 = 67;
const MTU_DEFAULT: u16 = 1500;
/// The smallest MTU of a link with IPv6 (RFC 8200, 5).
const IPV6_MTU_MIN: u16 = 1280;
/// The fields of `ipv6`.
const IPV6_KNOWN: &[&str] = &["prefix", "nat"];

pub(super) const BRIDGE: Key =
    Key::new("bridge", Some("bridge"), "VOLNET_BRIDGE", Some("VOLANT_BRIDGE"));
pub(super) const SUBNET: Key =
    Key::new("subnet", Some("subnet"), "VOLNET_SUBNET", Some("VOLANT_SUBNET"));
pub(super) const HOST_IP: Key =
    Key::new("host_ip", Some("host-ip"), "VOLNET_HOST_IP", Some("VOLANT_HOST_IP"));

const KNOWN: &[&str] = &[
    "name",
    "bridge",
    "bridges",
    "subnet",
    "host_ip",
    "mtu",
    "nat",
    "isolated",
    "dhcp",
    "dns",
    "domain",
    "antispoof",
    "ipv6",
    "peers",
    "services",
    "host_services",
    "policy",
    "limits",
    "managed",
    "gateway",
    "range",
    "reserve",
    "search",
    "next_server",
    "boot_file",
    "inner",
];

/// A network as it was written.
struct Draft<'a> {
    fields: Option<Fields<'a>>,
    bridge: Option<Found>,
    subnet: Option<Found>,
    host_ip: Option<Found>,
}

/// The networks of the file, or the default one. Flags and environment set fields of the first.
pub(super) fn resolve(sources: &Sources, machine: &str) -> Result<Vec<NetworkConfig>, Refusal> {
    let items = sources.file.list("networks")?;
    let whole = sources.file.place.field("networks");
    if items.len() > NETWORKS_MAX {
        return Err(whole.refuse(format!("at most {NETWORKS_MAX} networks are allowed")));
    }
    let mut drafts = Vec::new();
    for (place, value) in items {
        let fields = Fields::read(place, value, KNOWN)?;
        drafts.push(Draft {
            bridge: written(&fields, "bridge")?,
            subnet: written(&fields, "subnet")?,
            host_ip: written(&fields, "host_ip")?,
            fields: Some(fields),
        });
    }
    if drafts.is_empty() {
        drafts.push(Draft { fields: None, bridge: None, subnet: None, host_ip: None });
    }
    override_first(&mut drafts[0], sources);
    let mut networks = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let place = whole.element(index);
        networks.extend(parts(network(draft, machine)?, bridges(draft)?, machine, &place)?);
    }
    check_together(&networks, |index| whole.element(index))?;
    Ok(networks)
}

/// A network that is added to those that a host with these policies has, where it takes the place
/// of the one of its name. It is described as one of the settings, but has a name and says of its
/// subnet; without a bridge it has one of its own.
pub fn added<'a>(
    document: &Kept,
    present: impl Iterator<Item = &'a NetworkConfig>,
    policies: &[Policy],
    machine: &str,
) -> Result<NetworkConfig, Refusal> {
    let place = Place::root(Document::Config).field("network");
    let document: Value =
        serde_json::from_str(document.as_str()).map_err(|error| place.refuse(error.to_string()))?;
    let fields = Fields::read(place.clone(), &document, KNOWN)?;
    let missing = |field| place.field(field).refuse("it is missing");
    let name = fields.parsed("name", vm_like)?.ok_or_else(|| missing("name"))?;
    if fields.value("subnet").is_none() && !fields.is_null("subnet") {
        return Err(missing("subnet"));
    }
    let own = || Found::in_file(&bridge_of(&name), place.field("bridge").path());
    let draft = Draft {
        bridge: Some(written(&fields, "bridge")?.unwrap_or_else(own)),
        subnet: written(&fields, "subnet")?,
        host_ip: written(&fields, "host_ip")?,
        fields: Some(fields),
    };
    let network = network(&draft, machine)?;
    for (field, wrong) in [("bridges", bridges(&draft)? > 1), ("managed", !network.managed)] {
        if wrong {
            let reason = "a network that is added has one bridge, which is volnet's";
            return Err(place.field(field).refuse(reason));
        }
    }
    let policy = network.traffic().policy;
    if !policies.iter().any(|known| known.name == policy) {
        return Err(place.field("policy").refuse(format!("there is no policy {policy:?}")));
    }
    let others: Vec<_> = present.filter(|other| other.name != network.name).cloned().collect();
    if others.len() >= NETWORKS_MAX {
        return Err(place.refuse(format!("at most {NETWORKS_MAX} networks are allowed")));
    }
    let networks: Vec<_> = others.into_iter().chain([network.clone()]).collect();
    check_together(&networks, |_| place.clone())?;
    Ok(network)
}

/// The name of a network that has a file: it is also one that a VM can have.
fn vm_like(text: &str) -> Result<String, String> {
    VmName::new(text).map(|name| name.to_string()).map_err(|refusal| refusal.to_string())
}

/// The bridge of a network that names none: after the network, or a hash of its name if that is too
/// long or has what a link cannot have.
fn bridge_of(network: &str) -> String {
    let plain = format!("{ADDED_PREFIX}{network}");
    match check_link_name(&plain) {
        Ok(()) => plain,
        Err(_) => {
            let digest = Sha256::digest(network);
            let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            format!("{ADDED_PREFIX}{hash}")
        }
    }
}

/// The number of bridges of a network.
fn bridges(draft: &Draft) -> Result<u32, Refusal> {
    let Some(fields) = &draft.fields else { return Ok(1) };
    let bridges = fields.integer("bridges", 1..=u64::from(BRIDGES_MAX))?;
    Ok(bridges.map_or(1, |bridges| bridges as u32))
}

/// Splits a network into `count` parts. Each has its own bridge and an equal share of the prefix.
/// The first part keeps the name.
fn parts(
    whole: NetworkConfig,
    count: u32,
    machine: &str,
    place: &Place,
) -> Result<Vec<NetworkConfig>, Refusal> {
    if count > 1 && (!whole.managed || whole.gateway.is_some()) {
        let reason = "such a network has one bridge";
        return Err(place.field("bridges").refuse(reason));
    }
    let part = |number: u32| {
        let ipv4 = match whole.ipv4 {
            Some(ipv4) => Some(subnet4(ipv4, number, count, place)?),
            None => None,
        };
        if number == 0 {
            return Ok(NetworkConfig { ipv4, ..whole.clone() });
        }
        let bridge = format!("{}-{}", whole.bridge, number + 1);
        check_link_name(&bridge).map_err(|reason| place.field("bridge").refuse(reason))?;
        Ok(NetworkConfig {
            name: format!("{}-{}", whole.name, number + 1),
            mac: Mac::of_bridge(machine, &bridge),
            bridge,
            ipv4,
            ipv6: whole.ipv6.map(|ipv6| subnet6(ipv6, number)),
            ..whole.clone()
        })
    };
    (0..count).map(part).collect()
}

/// The IPv4 side of a part: an equal share of the prefix. In the first, the host has the address of
/// the whole.
fn subnet4(
    Ipv4Network { prefix, host }: Ipv4Network,
    number: u32,
    count: u32,
    place: &Place,
) -> Result<Ipv4Network, Refusal> {
    let length = prefix.length() + count.next_power_of_two().trailing_zeros() as u8;
    if count > 1 && length > PART_LENGTH_MAX {
        let reason = format!("{prefix} is too small for so many bridges");
        return Err(place.field("bridges").refuse(reason));
    }
    let base = prefix.network().to_bits() + (number << (32 - length));
    let prefix =
        Prefix::containing(Ipv4Addr::from_bits(base), length).expect("a length of 32 at most");
    if number > 0 {
        return Ok(Ipv4Network { prefix, host: Ipv4Addr::from_bits(base + 1) });
    }
    if !prefix.contains(host) || host == prefix.broadcast() {
        let reason = format!("{host} is not in {prefix}, the part of the first bridge");
        return Err(place.field("host_ip").refuse(reason));
    }
    Ok(Ipv4Network { prefix, host })
}

/// The IPv6 side of a part: the prefix with this number.
fn subnet6(Ipv6Network { prefix, nat, .. }: Ipv6Network, number: u32) -> Ipv6Network {
    let first = Ipv6Addr::from_bits(prefix.network().to_bits() | u128::from(number) << 64);
    let prefix = Prefix::containing(first, prefix.length()).expect("a length that a prefix has");
    Ipv6Network::new(prefix, nat)
}

fn written(fields: &Fields, name: &str) -> Result<Option<Found>, Refusal> {
    let place = fields.place.field(name);
    Ok(fields.text(name)?.map(|text| Found::in_file(text, place.path())))
}

/// If the subnet comes from a place of higher rank, a host address from a lower one is ignored: it
/// was written for another subnet.
fn override_first(draft: &mut Draft, sources: &Sources) {
    draft.bridge = sources.outside(&BRIDGE).or(draft.bridge.take());
    let host_ip = sources.outside(&HOST_IP).or(draft.host_ip.take());
    draft.subnet = sources.outside(&SUBNET).or(draft.subnet.take());
    let rank = draft.subnet.as_ref().map(|found| found.rank);
    draft.host_ip = host_ip.filter(|found| rank.is_none_or(|rank| found.rank >= rank));
}

/// What the file says of a network beside its bridge and its addresses. `None` has its default.
#[derive(Default)]
struct Wishes {
    name: Option<String>,
    mtu: Option<u64>,
    nat: Option<bool>,
    dhcp: Option<Dhcp>,
    dns: Option<Dns>,
    domain: Option<String>,
    managed: Option<bool>,
    gateway: Option<Ipv4Addr>,
    range: Option<AddressRange>,
    reserve: Option<Vec<AddressRange>>,
    peers: Option<Vec<Prefix<IpAddr>>>,
    services: Option<bool>,
    host_services: Option<Vec<Service>>,
    traffic: Traffic,
    told: Told,
    inner: Option<InnerSpec>,
}

impl Wishes {
    fn read(fields: &Fields) -> Result<Wishes, Refusal> {
        Ok(Wishes {
            name: fields.parsed("name", text::name)?,
            mtu: fields.integer("mtu", MTU_MIN..=MTU_MAX)?,
            nat: fields.flag("nat")?,
            dhcp: fields.parsed("dhcp", str::parse)?,
            dns: name_servers(fields)?,
            domain: fields.parsed("domain", word::vm_domain)?,
            managed: fields.flag("managed")?,
            gateway: fields.parsed("gateway", word::address)?,
            range: fields.parsed("range", str::parse)?,
            reserve: fields.parsed_list("reserve", RESERVED_MAX, str::parse)?,
            peers: fields.parsed_list("peers", PEERS_MAX, word::peer)?,
            services: fields.flag("services")?,
            host_services: fields.parsed_list("host_services", SERVICES_MAX, word::service)?,
            traffic: spec::traffic(fields)?,
            told: told(fields)?,
            inner: spec::inner(fields)?,
        })
    }

    /// Checks what depends on other fields.
    fn check(&self, place: &Place, ipv4: Option<Ipv4Network>) -> Result<(), Refusal> {
        self.check_services(place)?;
        let Some(Ipv4Network { prefix: subnet, .. }) = ipv4 else {
            return self.check_ipv6_alone(place);
        };
        if self.managed == Some(false) && self.nat == Some(true) {
            let reason = "a bridge that is not managed is not masqueraded";
            return Err(place.field("nat").refuse(reason));
        }
        if self.managed == Some(false) && self.peers.is_some() {
            let reason = "packets of a bridge that is not managed are not the host's to route";
            return Err(place.field("peers").refuse(reason));
        }
        let inside = |address: &Ipv4Addr| subnet.contains(*address);
        if let Some(address) = self.gateway.filter(|address| !inside(address)) {
            let reason = format!("{address} is not in the subnet {subnet}");
            return Err(place.field("gateway").refuse(reason));
        }
        let outside = |range: &AddressRange| !inside(&range.first) || !inside(&range.last);
        if self.range.as_ref().is_some_and(outside) {
            let reason = format!("it is not in the subnet {subnet}");
            return Err(place.field("range").refuse(reason));
        }
        Ok(())
    }

    /// Refuses services where they cannot be.
    fn check_services(&self, place: &Place) -> Result<(), Refusal> {
        let reason = match (self.services, self.managed, self.traffic.isolated) {
            (Some(true), Some(false), _) => "the settings of a bridge that is not managed stay",
            (Some(true), _, Some(true)) => "its guests are isolated, and so reach no service",
            _ => return Ok(()),
        };
        Err(place.field("services").refuse(reason))
    }

    /// Refuses what is about IPv4.
    fn check_ipv6_alone(&self, place: &Place) -> Result<(), Refusal> {
        let serves = self.dhcp.is_some_and(|dhcp| dhcp != Dhcp::Off);
        let about_ipv4 = [
            ("nat", self.nat.is_some()),
            ("dhcp", serves),
            ("gateway", self.gateway.is_some()),
            ("range", self.range.is_some()),
            ("reserve", self.reserve.is_some()),
            ("next_server", self.told.next_server.is_some()),
            ("boot_file", self.told.boot_file.is_some()),
        ];
        match about_ipv4.into_iter().find(|(_, is_written)| *is_written) {
            None => Ok(()),
            Some((field, _)) => Err(place.field(field).refuse(WITHOUT_IPV4)),
        }
    }
}

/// Why a network without a subnet cannot have what is about IPv4.
const WITHOUT_IPV4: &str = "it is for IPv4, and the subnet of the network is null";

fn network(draft: &Draft, machine: &str) -> Result<NetworkConfig, Refusal> {
    let bridge = match &draft.bridge {
        Some(found) => found.parsed(word::bridge)?,
        None => BRIDGE_DEFAULT.into(),
    };
    let ipv4 = ipv4(draft)?;
    let wishes = match &draft.fields {
        Some(fields) => Wishes::read(fields)?,
        None => Wishes::default(),
    };
    if let Some(fields) = &draft.fields {
        wishes.check(&fields.place, ipv4)?;
    }
    let managed = wishes.managed.unwrap_or(true);
    let nat = wishes.nat.unwrap_or(managed && ipv4.is_some());
    let dhcp = wishes.dhcp.unwrap_or(match nat {
        _ if ipv4.is_none() => Dhcp::Off,
        true => Dhcp::Builtin,
        // A network without NAT has an uplink, with a DHCP server behind it.
        false => Dhcp::External,
    });
    let name = wishes.name.unwrap_or_else(|| NAME_DEFAULT.into());
    let host_services = wishes.host_services.unwrap_or_else(|| services(dhcp));
    // Somebody's name server may run on the host itself.
    let served = host_services.iter().any(|it| matches!(it, Service::Port(_, NAME_SERVER)));
    // Guests with IPv6 alone are told by router advertisements.
    let by_us = (dhcp == Dhcp::Builtin || ipv4.is_none()) && managed && !served;
    let mut network = NetworkConfig {
        whole: name.clone(),
        name,
        mac: Mac::of_bridge(machine, &bridge),
        bridge,
        ipv4,
        mtu: wishes.mtu.map_or(MTU_DEFAULT, |mtu| mtu as u16),
        nat,
        dhcp,
        dns: wishes.dns.unwrap_or(if by_us { Dns::Builtin } else { Dns::Off }),
        domain: wishes.domain.unwrap_or_else(|| VM_DOMAIN_DEFAULT.into()),
        ipv6: None,
        peers: wishes.peers.unwrap_or_default(),
        services: wishes.services.unwrap_or(false),
        traffic: wishes.traffic,
        managed,
        gateway: wishes.gateway,
        range: wishes.range,
        reserve: wishes.reserve.unwrap_or_default(),
        told: wishes.told,
        inner: wishes.inner,
        host_services,
    };
    if let Some(fields) = &draft.fields {
        network.ipv6 = ipv6(fields, machine, &network.name)?;
        if network.ipv4.is_none() && network.ipv6.is_none() {
            let reason = "without a subnet, the network needs ipv6";
            return Err(fields.place.field("subnet").refuse(reason));
        }
        check_ipv6(&network, fields, bridges(draft)?)?;
        check_inner(&network, &fields.place)?;
    }
    Ok(network)
}

/// Refuses IPv6 where it cannot be.
fn check_ipv6(network: &NetworkConfig, fields: &Fields, bridges: u32) -> Result<(), Refusal> {
    let is_written = fields.value("ipv6").is_some_and(|(_, value)| value.is_object());
    let reason = match network.mtu {
        _ if network.ipv6.is_none() => return Ok(()),
        _ if is_written && bridges > 1 => {
            "each bridge needs a prefix of its own: write true".to_string()
        }
        _ if !network.managed => "a bridge that is not managed has no IPv6 from volnet".into(),
        mtu @ ..IPV6_MTU_MIN => {
            format!("IPv6 needs an MTU of {IPV6_MTU_MIN} or more (RFC 8200), not {mtu}")
        }
        _ => return Ok(()),
    };
    Err(fields.place.field("ipv6").refuse(reason))
}

/// Refuses an inner identity that is not possible on the network.
fn check_inner(network: &NetworkConfig, place: &Place) -> Result<(), Refusal> {
    let Some(inner) = &network.inner else { return Ok(()) };
    inner.on(network).map(drop).map_err(|(field, reason)| {
        let place = place.clone();
        field.split('.').fold(place, |place, part| place.field(part)).refuse(reason)
    })
}

/// The IPv4 side of a network: the subnet that is written, or the default one. `None` if it is
/// null.
fn ipv4(draft: &Draft) -> Result<Option<Ipv4Network>, Refusal> {
    let is_null = draft.fields.as_ref().is_some_and(|fields| fields.is_null("subnet"));
    let prefix = match (&draft.subnet, &draft.host_ip) {
        (Some(found), _) => found.parsed(word::subnet)?,
        (None, Some(found)) if is_null => found.parsed(|_| Err(WITHOUT_IPV4.into()))?,
        (None, None) if is_null => return Ok(None),
        (None, _) => SUBNET_DEFAULT.parse().expect("the default is a prefix"),
    };
    let host = match &draft.host_ip {
        Some(found) => found.parsed(|text| word::host_ip(text, prefix))?,
        None => Ipv4Addr::from_bits(prefix.network().to_bits() + 1),
    };
    Ok(Some(Ipv4Network { prefix, host }))
}

/// The IPv6 side of a network: off, a prefix of its own behind NAT, or the prefix that is written.
fn ipv6(fields: &Fields, machine: &str, name: &str) -> Result<Option<Ipv6Network>, Refusal> {
    let written = match fields.value("ipv6") {
        None => return Ok(None),
        Some((_, value)) if value.is_boolean() => {
            let own = || Ipv6Network::new(unique_local(machine, name), true);
            return Ok(fields.flag("ipv6")?.filter(|on| *on).map(|_| own()));
        }
        Some((place, value)) if value.is_object() => Fields::read(place, value, IPV6_KNOWN)?,
        Some((place, _)) => {
            return Err(place.refuse("it is neither true, false nor an object with a prefix"));
        }
    };
    let Some(prefix) = written.parsed("prefix", word::prefix6)? else {
        return Err(written.place.field("prefix").refuse("it is missing"));
    };
    Ok(Some(Ipv6Network::new(prefix, written.flag("nat")?.unwrap_or(false))))
}

/// A prefix of unique local addresses (RFC 4193): always the same for a host and a network.
fn unique_local(machine: &str, network: &str) -> Prefix<Ipv6Addr> {
    let mut hash = Sha256::new();
    for word in ["ula", machine, network] {
        hash.update((word.len() as u32).to_be_bytes());
        hash.update(word);
    }
    let digest = hash.finalize();
    let global = digest[..5].iter().fold(0xfd, |bits: u64, byte| bits << 8 | u64::from(*byte));
    let first = Ipv6Addr::from_bits(u128::from(global) << 80);
    Prefix::containing(first, IPV6_LENGTH).expect("a length of 64")
}

/// What guests are told by DHCP.
fn told(fields: &Fields) -> Result<Told, Refusal> {
    let search = fields.parsed_list("search", SEARCH_MAX, word::domain)?.unwrap_or_default();
    let bytes: usize = search.iter().map(|domain| domain.len() + 2).sum();
    if bytes > SEARCH_BYTES_MAX {
        let reason = format!("together they have more than {SEARCH_BYTES_MAX} bytes");
        return Err(fields.place.field("search").refuse(reason));
    }
    let next_server = fields.parsed("next_server", word::address)?;
    Ok(Told { search, next_server, boot_file: fields.parsed("boot_file", word::boot_file)? })
}

/// Who answers guests that ask for names: a word, or a list of servers.
fn name_servers(fields: &Fields) -> Result<Option<Dns>, Refusal> {
    let word = |text: &str| match text {
        "builtin" => Ok(Dns::Builtin),
        "off" => Ok(Dns::Off),
        _ => Err(format!("{text:?} is neither builtin, off nor a list of addresses")),
    };
    match fields.value("dns") {
        Some((_, value)) if value.is_array() => {
            let servers = fields.parsed_list("dns", NAME_SERVERS_MAX, word::name_server)?;
            Ok(servers.map(Dns::Servers))
        }
        _ => fields.parsed("dns", word),
    }
}

/// The default services. Somebody's DHCP server may run on the host itself.
fn services(dhcp: Dhcp) -> Vec<Service> {
    match dhcp {
        Dhcp::External => vec![Service::Ping, Service::Port(Protocol::Udp, DHCP_SERVER)],
        Dhcp::Builtin | Dhcp::Off => vec![Service::Ping],
    }
}

/// Refuses networks that share a name, a bridge or an address. If the host has no rules for its
/// bridges, it also refuses isolation, because the way by the gateway would be open, and limits for
/// sending.
fn check_together(
    networks: &[NetworkConfig],
    place_of: impl Fn(usize) -> Place,
) -> Result<(), Refusal> {
    let guarded = is_guarded(networks.iter());
    if let (Some(index), false) = (networks.iter().position(|it| !it.managed), guarded) {
        let reason = "such a bridge has machines that are no guests, and without antispoof of some \
                      network nothing tells them apart";
        return Err(place_of(index).field("managed").refuse(reason));
    }
    for (index, network) in networks.iter().enumerate() {
        let inner = network.inner.map(|_| "inner");
        if let (Some(field), false) = (network.traffic.needs_guard().or(inner), guarded) {
            let network = place_of(index);
            let field = field.split('.').fold(network, |place, part| place.field(part));
            return Err(field.refuse(UNGUARDED));
        }
        for other in &networks[..index] {
            let place = place_of(index);
            if network.name == other.name {
                let reason = format!("another network has the name {:?}", network.name);
                return Err(place.field("name").refuse(reason));
            }
            if network.bridge == other.bridge {
                let reason = format!("{} is the bridge of {:?}", network.bridge, other.name);
                return Err(place.field("bridge").refuse(reason));
            }
            if let (Some(one), Some(two)) = (other.ipv4, network.ipv4) {
                if one.prefix.overlaps(two.prefix) {
                    let reason = format!(
                        "{} of {:?} and {} of {:?} overlap",
                        one.prefix, other.name, two.prefix, network.name
                    );
                    return Err(place.field("subnet").refuse(reason));
                }
            }
            if let (Some(one), Some(two)) = (other.ipv6, network.ipv6) {
                if one.prefix.overlaps(two.prefix) {
                    let reason = format!("{} is the prefix of {:?}", two.prefix, other.name);
                    return Err(place.field("ipv6").refuse(reason));
                }
            }
        }
    }
    Ok(())
}
