//! Programs of the host that listen on ports, as /proc/net shows them (proc_pid_net(5)).
//!
//! A socket that is bound to all of IPv6 may hear IPv4 as well, which the file does not tell: it
//! counts for both. A link-local address is not of interest here: no exposed port is there.
//!
//! The kernel hides the descriptors of processes that have rights which the daemon gave up, as many
//! services of root have. Of these only the user is known.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::holder;
use crate::model::expose::{HostPort, Listener, Protocol};

/// The files of this network namespace, with the state of a socket that waits for anybody:
/// `TCP_LISTEN`, and for UDP `TCP_CLOSE`, that of one without a peer (linux/tcp_states.h).
const FILES: [(&str, Protocol, &str); 4] = [
    ("/proc/thread-self/net/tcp", Protocol::Tcp, "0A"),
    ("/proc/thread-self/net/tcp6", Protocol::Tcp, "0A"),
    ("/proc/thread-self/net/udp", Protocol::Udp, "07"),
    ("/proc/thread-self/net/udp6", Protocol::Udp, "07"),
];

/// The programs that listen. Who it is, is looked up for those that meet one of `wanted`.
pub(super) fn observe(wanted: &[HostPort]) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (file, protocol, state) in FILES {
        let text = fs::read_to_string(file).unwrap_or_default();
        for line in text.lines().skip(1) {
            let Some(Line { ip, port, user, inode }) = read(line, state) else { continue };
            let at = HostPort { protocol, port, count: 1, ip };
            let is_wanted = wanted.iter().any(|wanted| wanted.meets(&at));
            let who = match is_wanted.then(|| holder::of_socket(inode)).flatten() {
                Some(holder) => format!("process {} ({}) of this host", holder.pid, holder.name),
                None => format!("a program of user {user} on this host"),
            };
            listeners.push(Listener { at, who });
        }
    }
    listeners
}

/// What a line tells of somebody who listens.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// The address, as in a [`HostPort`].
    ip: Option<IpAddr>,
    port: u16,
    user: u32,
    inode: u64,
}

/// Reads a line; `None` when nobody listens, or by loopback alone.
fn read(line: &str, state: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok().filter(|port| *port != 0)?;
    words.nth(1).filter(|is| *is == state)?;
    let user = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    let ip = match self::address(address)? {
        IpAddr::V4(ip) if ip.is_loopback() => return None,
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unicast_link_local() => return None,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
        ip => Some(ip),
    };
    Some(Line { ip, port, user, inode })
}

/// An address as it is written there: words of the host in hexadecimal digits. An IPv4 address may
/// be written as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    if text.len() == 8 {
        return word(0).map(|octets| Ipv4Addr::from(octets).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let octets: [u8; 16] = words.as_flattened().try_into().ok()?;
    Some(Ipv6Addr::from(octets).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_kernel_are_read() {
        // As written by Linux 6.18.
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address}:07E6 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 \
                 990        0 4711 1 0000000000000000 100 0 0 10 0"
            )
        };
        let read = |address: &str| super::read(&line(address, "0A"), "0A");
        let of = |ip| Some(Line { ip, port: 2022, user: 990, inode: 4711 });
        assert_eq!(read("00000000"), of(Some([0; 4].into())));
        let one = of(Some([192, 168, 1, 10].into()));
        assert_eq!(read("0A01A8C0"), one);
        assert_eq!(read("0000000000000000FFFF00000A01A8C0"), one);
        assert_eq!(read(&"0".repeat(32)), of(None));
        let documented = "2001:db8::1".parse().unwrap();
        assert_eq!(read("B80D0120000000000000000001000000"), of(Some(documented)));
        assert_eq!(read("000080FE000000000000000001000000"), None);
        assert_eq!(read("0100007F"), None);
        assert_eq!(read("00000000000000000000000001000000"), None);
        assert_eq!(super::read(&line("00000000", "01"), "0A"), None);
        assert_eq!(super::read("  sl  local_address rem_address", "0A"), None);
    }
}
