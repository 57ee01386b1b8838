//! From a word of a network's settings to its value, or to what is wrong with the word. Each word
//! is judged alone; what words mean together is judged in [`super`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::expose::Protocol;
use crate::model::name::{TAP_PREFIX, VM_NAME_MAX, check_link_name};
use crate::model::net::Service;
use crate::model::prefix::Prefix;

/// The widest prefix of a network.
pub const PREFIX_LENGTH_MIN: u8 = 8;
/// The narrowest prefix of a network: the host and one guest.
pub const PREFIX_LENGTH_MAX: u8 = 30;
/// The length of a prefix for stateless autoconfiguration by EUI-64 (RFC 4291, 2.5.1).
pub(super) const IPV6_LENGTH: u8 = 64;
/// The longest domain name (RFC 1035, 2.3.4, without the length of its first label and the root).
const DOMAIN_BYTES_MAX: usize = 253;
/// The longest domain of VMs: the longest name of a VM in it is a domain name, too.
const VM_DOMAIN_BYTES_MAX: usize = DOMAIN_BYTES_MAX - VM_NAME_MAX - 1;
/// The longest boot file: the field of BOOTP with its end (RFC 951).
const BOOT_FILE_BYTES_MAX: usize = 127;

pub(super) fn subnet(text: &str) -> Result<Prefix, String> {
    let prefix: Prefix = text.parse()?;
    if !(PREFIX_LENGTH_MIN..=PREFIX_LENGTH_MAX).contains(&prefix.length()) {
        return Err(format!(
            "the prefix length of {prefix} is not from {PREFIX_LENGTH_MIN} to {PREFIX_LENGTH_MAX}"
        ));
    }
    // RFC 6890: this network and loopback. RFC 5771 and above it: multicast and reserved addresses.
    match prefix.network().octets()[0] {
        0 | 127 | 224.. => Err(format!("hosts cannot have addresses in {prefix}")),
        _ => Ok(prefix),
    }
}

/// The host's address on its bridge, alone or with a slash and the length of the subnet.
pub(super) fn host_ip(text: &str, subnet: Prefix) -> Result<Ipv4Addr, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: Ipv4Addr =
        address.parse().map_err(|_| format!("{address:?} is not an IPv4 address"))?;
    if length.is_some_and(|length| length != subnet.length().to_string()) {
        return Err(format!("the prefix length in {text} is not that of the subnet {subnet}"));
    }
    if !subnet.contains(address) {
        return Err(format!("{address} is not in the subnet {subnet}"));
    }
    if address == subnet.network() || address == subnet.broadcast() {
        return Err(format!("{address} is the network or the broadcast address of {subnet}"));
    }
    Ok(address)
}

/// A prefix that hosts can have: unique local (RFC 4193) or global unicast (RFC 4291, 2.4).
pub(super) fn prefix6(text: &str) -> Result<Prefix<Ipv6Addr>, String> {
    let prefix: Prefix<Ipv6Addr> = text.parse()?;
    if prefix.length() != IPV6_LENGTH {
        return Err(format!("the prefix length of {prefix} is not {IPV6_LENGTH}"));
    }
    match prefix.network().segments()[0] {
        0x2000..=0x3fff | 0xfc00..=0xfdff => Ok(prefix),
        _ => Err(format!("hosts cannot have addresses in {prefix}")),
    }
}

pub(super) fn bridge(text: &str) -> Result<String, String> {
    check_link_name(text)?;
    if text.starts_with(TAP_PREFIX) {
        return Err(format!("{text:?} is the name of a tap: those begin with {TAP_PREFIX}"));
    }
    Ok(text.into())
}

pub(super) fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv4 address"))
}

/// The prefix of networks on other hosts. The whole world is not one: that is a network without
/// NAT.
pub(super) fn peer(text: &str) -> Result<Prefix<IpAddr>, String> {
    let prefix: Prefix<IpAddr> = text.parse()?;
    match prefix.length() {
        0 => Err(format!("{prefix} is the whole world: write \"nat\": false for that")),
        _ => Ok(prefix),
    }
}

/// `any`, `ping`, or a protocol and a port as `tcp/22`.
pub(super) fn service(text: &str) -> Result<Service, String> {
    let wrong = || format!("{text:?} is neither any, ping nor a port such as tcp/22 or udp/53");
    match text {
        "any" => return Ok(Service::Any),
        "ping" => return Ok(Service::Ping),
        _ => {}
    }
    let (protocol, port) = text.split_once('/').ok_or_else(wrong)?;
    let protocol: Protocol = protocol.parse().map_err(|_| wrong())?;
    match port.parse() {
        Ok(port) if port != 0 => Ok(Service::Port(protocol, port)),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// The address of a name server that guests can reach.
pub(super) fn name_server(text: &str) -> Result<IpAddr, String> {
    let server: Option<IpAddr> = text.parse().ok();
    server
        .filter(|it| !it.is_unspecified() && !it.is_loopback() && !it.is_multicast())
        .ok_or_else(|| format!("{text:?} is not the address of a name server"))
}

/// A domain name (RFC 1035, 2.3.1).
pub(super) fn domain(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
    match text.len() <= DOMAIN_BYTES_MAX && text.split('.').all(is_label) {
        true => Ok(text.into()),
        false => Err(format!("{text:?} is not a domain name")),
    }
}

/// The domain of VMs.
pub(super) fn vm_domain(text: &str) -> Result<String, String> {
    match domain(text)? {
        name if name.len() <= VM_DOMAIN_BYTES_MAX => Ok(name),
        name => Err(format!("{name:?} is longer than {VM_DOMAIN_BYTES_MAX} bytes")),
    }
}

pub(super) fn boot_file(text: &str) -> Result<String, String> {
    match text.len() <= BOOT_FILE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.into()),
        false => Err(format!("{text:?} is not at most {BOOT_FILE_BYTES_MAX} printable bytes")),
    }
}
