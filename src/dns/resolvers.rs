//! The name servers of the host (resolv.conf(5)): those that it asks itself, and those that its
//! guests can ask.

use std::net::{IpAddr, Ipv4Addr};

use crate::model::net::NetworkConfig;

/// The most name servers that are asked, or told of each family: a resolver uses so many (`MAXNS`,
/// resolv.h).
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

/// The name servers of a resolv.conf, in their order.
fn listed(text: &str) -> impl Iterator<Item = Resolver> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(word)) => Resolver::read(word),
            _ => None,
        }
    })
}

/// The name servers that guests are told, those of IPv4 first. If guests can reach none of a family
/// of the first resolv.conf, they are told those of the second one.
pub fn told(first: &str, second: impl FnOnce() -> String) -> Vec<IpAddr> {
    let mut told = reachable(first);
    let has = |told: &[IpAddr], is_of: fn(&IpAddr) -> bool| told.iter().any(is_of);
    let (four, six) = (has(&told, IpAddr::is_ipv4), has(&told, IpAddr::is_ipv6));
    if !four || !six {
        told.extend(reachable(&second()).iter().filter(|it| match it {
            IpAddr::V4(_) => !four,
            IpAddr::V6(_) => !six,
        }));
        told.sort_by_key(IpAddr::is_ipv6);
    }
    told
}

/// The name servers of a resolv.conf that guests can reach, those of IPv4 first. One on loopback,
/// such as a stub resolver, is left out, and one whose address is true on one link alone.
pub fn reachable(text: &str) -> Vec<IpAddr> {
    let own = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let elsewhere = |ip: &IpAddr| !own(ip) && !ip.is_loopback() && !ip.is_unspecified();
    let of_family = |is_of: fn(&IpAddr) -> bool| {
        let all = listed(text).filter(|it| it.link.is_none()).map(|it| it.ip.to_canonical());
        all.filter(elsewhere).filter(is_of).take(RESOLVERS_MAX)
    };
    of_family(IpAddr::is_ipv4).chain(of_family(IpAddr::is_ipv6)).collect()
}

/// The name servers that the host asks. Without any, it is one on the host itself. Those at our own
/// addresses are left out: they would ask us what we ask them.
pub fn resolvers<'a>(
    text: &str,
    networks: impl Iterator<Item = &'a NetworkConfig>,
) -> Vec<Resolver> {
    let own: Vec<IpAddr> = networks.flat_map(NetworkConfig::host_addresses).collect();
    let all: Vec<Resolver> = listed(text).take(RESOLVERS_MAX).collect();
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

    #[test]
    fn guests_get_the_name_servers_that_they_can_reach() {
        let text = "# nameserver 9.9.9.9\nsearch lan\n nameserver\t192.0.2.1 \n\
                    nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n\
                    nameserver ::1\nnameserver ::\nnameserver fe80::1\nnameserver ff02::fb\n\
                    nameserver 0.0.0.0\nnameserver\nnameserver 192.0.2.2\noptions ndots:1\n\
                    nameserver ::ffff:127.0.0.1\nnameserver ::ffff:192.0.2.3\n\
                    nameserver 192.0.2.4\nnameserver fd00::53\n";
        let expected = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "fd00::53"];
        assert_eq!(reachable(text), expected.map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert!(reachable("").is_empty());
    }

    #[test]
    fn guests_are_told_servers_of_each_family_that_some_file_has() {
        let told = |first: &[&str], second: &[&str]| -> Vec<String> {
            let file = |ips: &[&str]| {
                ips.iter().map(|ip| format!("nameserver {ip}\n")).collect::<String>()
            };
            let told = super::told(&file(first), || file(second));
            told.iter().map(IpAddr::to_string).collect()
        };
        let (four, six) = ("192.0.2.53", "2001:db8::53");
        assert_eq!(told(&["127.0.0.53"], &[six, four]), [four, six]);
        assert_eq!(told(&["127.0.0.53", six], &[four, "2001:db8::1"]), [four, six]);
        assert_eq!(told(&[four], &["192.0.2.1", six]), [four, six]);
        assert_eq!(told(&[four, six], &["192.0.2.1"]), [four, six]);
    }
}
