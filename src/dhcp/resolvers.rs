//! The name servers of the host, for its guests (resolv.conf(5)).

use std::net::Ipv4Addr;

/// The most name servers for guests: a resolver uses so many (`MAXNS`, resolv.h).
pub const RESOLVERS_MAX: usize = 3;

/// The IPv4 name servers of a resolv.conf. A server on loopback, such as a stub resolver, is left
/// out: guests cannot reach it.
pub fn resolvers(text: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address: Ipv4Addr = match (words.next(), words.next()) {
            (Some("nameserver"), Some(word)) => word.parse().ok()?,
            _ => return None,
        };
        let reachable = !address.is_loopback()
            && !address.is_unspecified()
            && !address.is_multicast()
            && !address.is_broadcast();
        reachable.then_some(address)
    };
    text.lines().filter_map(address).take(RESOLVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_get_the_name_servers_that_they_can_reach() {
        let text = "# nameserver 9.9.9.9\nsearch lan\n nameserver\t192.0.2.1 \n\
                    nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n\
                    nameserver 0.0.0.0\nnameserver\nnameserver 192.0.2.2\noptions ndots:1\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(resolvers(text), expected.map(|ip| ip.parse::<Ipv4Addr>().unwrap()));
        assert!(resolvers("").is_empty());
    }
}
