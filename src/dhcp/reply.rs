//! Writes the frame that answers a query.

use std::net::{IpAddr, Ipv4Addr};

use super::DhcpQuery;
use super::message::{Head, Kind, Writer, option};
use crate::model::inner::Identity4;
use crate::model::kernel_args::host_name;
use crate::model::lease::Guest;
use crate::model::mac::Mac;
use crate::model::net::Told;
use crate::packet::v4::{CLIENT_PORT, Datagram, Endpoints, SERVER_PORT, build};

/// The content of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpReply {
    /// An offer of this address for `seconds`.
    Offer { address: Ipv4Addr, seconds: u32 },
    /// A lease of this address for `seconds`.
    Ack { address: Ipv4Addr, seconds: u32 },
    /// A refusal.
    Nak,
    /// The settings of the network, for a guest that has its own address.
    Inform,
}

impl DhcpReply {
    /// The frame; `None` if the network of the guest has no IPv4. `servers` are the name servers
    /// for the guest.
    pub fn frame(
        &self,
        guest: &Guest<'_>,
        query: &DhcpQuery<'_>,
        servers: &[IpAddr],
    ) -> Option<Vec<u8>> {
        let ipv4 = guest.identity.ipv4?;
        let payload = self.message(guest, &ipv4, query, servers);
        let (to, destination) = self.receiver(query);
        let (from, source) = (guest.identity.host_mac, ipv4.host);
        Some(build(&Datagram {
            addresses: Endpoints { from, to, source, destination },
            source_port: SERVER_PORT,
            destination_port: CLIENT_PORT,
            payload: &payload,
        }))
    }

    /// The destination (RFC 2131, 4.1): the address that the guest has, otherwise the new one, or
    /// broadcast if the guest asks for it.
    fn receiver(&self, query: &DhcpQuery<'_>) -> (Mac, Ipv4Addr) {
        let Head { broadcast, ciaddr, chaddr, .. } = query.message.head;
        let everybody = (Mac([0xff; 6]), Ipv4Addr::BROADCAST);
        let given = match self {
            DhcpReply::Nak => return everybody,
            DhcpReply::Offer { address, .. } | DhcpReply::Ack { address, .. } => *address,
            DhcpReply::Inform => ciaddr,
        };
        match (ciaddr.is_unspecified(), broadcast) {
            (false, _) => (chaddr, ciaddr),
            (true, true) => everybody,
            (true, false) => (chaddr, given),
        }
    }

    fn message(
        &self,
        guest: &Guest<'_>,
        ipv4: &Identity4,
        query: &DhcpQuery<'_>,
        servers: &[IpAddr],
    ) -> Vec<u8> {
        let asked = query.message.head;
        let (kind, lent) = match self {
            DhcpReply::Offer { address, seconds } => (Kind::Offer, Some((*address, *seconds))),
            DhcpReply::Ack { address, seconds } => (Kind::Ack, Some((*address, *seconds))),
            DhcpReply::Inform => (Kind::Ack, None),
            DhcpReply::Nak => (Kind::Nak, None),
        };
        let head = Head {
            reply: true,
            ciaddr: if kind == Kind::Ack { asked.ciaddr } else { Ipv4Addr::UNSPECIFIED },
            yiaddr: lent.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| address),
            ..asked
        };
        let mut writer = Writer::new(&head, kind);
        writer.address(option::SERVER_ID, ipv4.host);
        if let Some(id) = query.message.option(option::CLIENT_ID) {
            writer.option(option::CLIENT_ID, id);
        }
        if let Some((_, seconds)) = lent {
            writer.number(option::LEASE_TIME, seconds);
            writer.number(option::RENEWAL_TIME, seconds / 2);
            writer.number(option::REBINDING_TIME, seconds - seconds / 8);
        }
        if kind != Kind::Nak {
            configure(&mut writer, guest, ipv4, servers);
        }
        writer.finish()
    }
}

/// The options for every guest of the network. The mask must come before the router (RFC 2132,
/// 3.3).
fn configure(writer: &mut Writer, guest: &Guest<'_>, ipv4: &Identity4, servers: &[IpAddr]) {
    writer.address(option::SUBNET_MASK, ipv4.subnet.netmask());
    writer.address(option::ROUTER, ipv4.gateway);
    let servers = servers.iter().map(|server| guest.identity.server(*server));
    let octets: Vec<u8> = servers.filter_map(v4).flat_map(|ip| ip.octets()).collect();
    if !octets.is_empty() {
        writer.option(option::DNS, &octets);
    }
    writer.option(option::MTU, &guest.mtu.to_be_bytes());
    writer.option(option::HOST_NAME, host_name(guest.vm).as_bytes());
    let Told { next_server, boot_file, .. } = &guest.network.told;
    let search = guest.network.search();
    if let Some(domain) = search.first() {
        writer.option(option::DOMAIN, domain.as_bytes());
        writer.option(option::SEARCH, &search_list(search));
    }
    writer.boot(*next_server, boot_file.as_deref());
}

/// What DHCPv4 can tell of.
fn v4(server: IpAddr) -> Option<Ipv4Addr> {
    match server {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// The domains as names of DNS (RFC 1035, 4.1.4): an end that was written before is a pointer there
/// (RFC 3397, 2).
fn search_list(domains: &[String]) -> Vec<u8> {
    const POINTER: u16 = 0xc000;
    let (mut bytes, mut written) = (Vec::new(), Vec::<(&str, u16)>::new());
    for domain in domains {
        let mut rest = domain.as_str();
        loop {
            if let Some((_, at)) = written.iter().find(|(end, _)| end.eq_ignore_ascii_case(rest)) {
                bytes.extend((POINTER | at).to_be_bytes());
                break;
            }
            written.push((rest, bytes.len() as u16));
            let (label, further) = rest.split_once('.').unwrap_or((rest, ""));
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
            rest = further;
            if rest.is_empty() {
                bytes.push(0);
                break;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_list_is_compressed_as_in_rfc_3397() {
        let list = |domains: &[&str]| {
            search_list(&domains.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        // The example of RFC 3397, 2.
        let expected = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        assert_eq!(list(&["eng.apple.com", "marketing.apple.com"]), expected);
        assert_eq!(list(&["lan", "LAN", "a.lan"]), b"\x03lan\0\xc0\0\x01a\xc0\0");
        assert!(list(&[]).is_empty());
    }
}
