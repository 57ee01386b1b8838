//! The name servers that the host itself asks (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr};

use crate::model::net::NetworkConfig;

/// The most name servers that are asked: a resolver uses so many (`MAXNS`, resolv.h).
pub const RESOLVERS_MAX: usize = 3;
/// The most bytes of the name of the link of a server.
const LINK_MAX: usize = 15;

/// A name server of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Its address.
    pub ip: IpAddr,
    /// The link that it is on, if its address is true only there (RFC 4007, 11).
    pub link: Option<String>,
}

impl Resolver {
    /// Reads an address as `192.0.2.1`, `2001:db8::1` or `fe80::1%eth0`.
    fn read(word: &str) -> Option<Resolver> {
        let (ip, link) = word.split_once('%').map_or((word, None), |(ip, link)| (ip, Some(link)));
        let ip: IpAddr = ip.parse().ok()?;
        let link = link.map(String::from);
        let fits = link.as_ref().is_none_or(|link| (1..=LINK_MAX).contains(&link.len()));
        (fits && !ip.is_multicast()).then_some(Resolver { ip, link })
    }
}

/// The name servers of a resolv.conf. Without any, it is one on the host itself. Those at our own
/// addresses are left out: they would ask us what we ask them.
pub fn resolvers<'a>(
    text: &str,
    networks: impl Iterator<Item = &'a NetworkConfig>,
) -> Vec<Resolver> {
    let own: Vec<IpAddr> = networks.flat_map(NetworkConfig::host_addresses).collect();
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(word)) => Resolver::read(word),
            _ => None,
        }
    };
    let all: Vec<Resolver> = text.lines().filter_map(server).take(RESOLVERS_MAX).collect();
    match all.is_empty() {
        true => vec![Resolver { ip: Ipv4Addr::LOCALHOST.into(), link: None }],
        false => all.into_iter().filter(|it| !own.contains(&it.ip)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Flags};

    #[test]
    fn the_host_asks_its_servers_of_both_families() {
        let settings = config::resolve(&Flags::default(), &Default::default(), Some("{}"), "host");
        let networks = settings.unwrap().networks;
        let read = |text: &str| -> Vec<String> {
            let shown = |it: Resolver| match it.link {
                Some(link) => format!("{}%{link}", it.ip),
                None => it.ip.to_string(),
            };
            resolvers(text, networks.iter()).into_iter().map(shown).collect()
        };
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53\n\
                    nameserver\tfe80::1%eth0\nnameserver ff02::fb\nnameserver x\nnameserver\n\
                    nameserver 2001:db8::1 # ours\nnameserver 192.0.2.4\n";
        assert_eq!(read(text), ["127.0.0.53", "fe80::1%eth0", "2001:db8::1"]);
        assert_eq!(read(""), ["127.0.0.1"]);
        assert_eq!(read("nameserver 192.168.127.1\nnameserver 192.0.2.1\n"), ["192.0.2.1"]);
        assert!(read("nameserver 192.168.127.1\n").is_empty(), "we do not ask ourselves");
    }
}
