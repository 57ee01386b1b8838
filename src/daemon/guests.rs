//! Answers the DHCP frames of guests.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;

use super::shell::Shell;
use crate::dhcp::resolvers::resolvers;
use crate::dhcp::{DhcpQuery, Handled, handle};
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::lease::{Claim, Guest};
use crate::model::view::{Finding, Level};
use crate::network::Network;
use crate::store::storage::Storage;

/// The files with the name servers of the host. If the first has only the stub of systemd-resolved,
/// which guests cannot reach, the second has the real ones (systemd-resolved.service(8)).
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Milliseconds until the name servers are read again.
const RESOLVERS_MS: u64 = 1_000;
/// The most bytes of such a file that are read.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Handles a frame from a guest of this network. Returns the answer, if there is one, and the
    /// index of its tap. The lease in the answer is on the disk.
    pub fn guest_asks(&mut self, network: &str, frame: &[u8], now: Now) -> Option<(u32, Vec<u8>)> {
        let query = DhcpQuery::read(frame)
            .inspect_err(|reason| log::debug!("network {network}: a frame is ignored: {reason}"))
            .ok()?;
        if let Some(Guest { vm, claim: Claim::Free(ip), .. }) =
            self.engine.guest(network, query.mac(), query.wanted())
        {
            let vm = vm.clone();
            if self.engine.probe_for_guest(&vm, network, ip, now) {
                log::debug!("VM {vm}: {ip} is not offered before it is known to be nobody's");
                return None;
            }
        }
        let reply = loop {
            match handle(&mut self.engine, network, &query, now) {
                Handled::Nothing => return None,
                Handled::MakeRoom(decision) => {
                    if !self.carry_out(decision, now) {
                        return None;
                    }
                }
                Handled::Do { decision, reply } => {
                    if decision.is_some_and(|decision| !self.carry_out(decision, now)) {
                        return None;
                    }
                    break reply?;
                }
            }
        };
        let guest = self.engine.guest(network, query.mac(), None)?;
        let resolvers = self.resolvers.known(now, resolvers_of_the_host);
        Some((guest.nic.ifindex?, reply.frame(&guest, &query, resolvers)))
    }
}

/// The name servers of the host, from the last read. Guests choose how often they ask, so this
/// limits how often the files are read.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    read_at: Option<u64>,
    known: Vec<Ipv4Addr>,
}

impl Resolvers {
    /// The name servers. They are read again after [`RESOLVERS_MS`].
    pub(super) fn known(&mut self, now: Now, read: impl FnOnce() -> Vec<Ipv4Addr>) -> &[Ipv4Addr] {
        if self.read_at.is_none_or(|at| at + RESOLVERS_MS <= now.mono) {
            (self.read_at, self.known) = (Some(now.mono), read());
        }
        &self.known
    }
}

/// Whether the host has a name server for guests.
pub(super) fn name_servers() -> Finding {
    let known: Vec<String> = resolvers_of_the_host().iter().map(Ipv4Addr::to_string).collect();
    let (level, message, hint) = match known.as_slice() {
        [] => (
            Level::Warning,
            "guests get no name server by DHCP: the host has none that guests can reach".into(),
            Some("add one to /etc/resolv.conf".into()),
        ),
        some => (Level::Ok, format!("guests get {} by DHCP", some.join(", ")), None),
    };
    Finding { check: "name servers".into(), level, message, hint }
}

pub(super) fn resolvers_of_the_host() -> Vec<Ipv4Addr> {
    let read = |path: &&str| {
        let mut text = String::new();
        File::open(path).ok()?.take(RESOLV_CONF_MAX).read_to_string(&mut text).ok()?;
        Some(resolvers(&text)).filter(|found| !found.is_empty())
    };
    RESOLV_CONF.iter().find_map(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_that_ask_without_end_have_the_name_servers_read_once_a_second() {
        let (mut resolvers, mut reads) = (Resolvers::default(), 0);
        for mono in 0..10 * RESOLVERS_MS {
            let known = resolvers.known(Now { mono, ..Now::default() }, || {
                reads += 1;
                vec![Ipv4Addr::new(192, 0, 2, reads)]
            });
            assert_eq!(known.len(), 1);
        }
        assert_eq!(reads, 10);
        assert_eq!(resolvers.known, [Ipv4Addr::new(192, 0, 2, 10)], "and they are new then");
    }
}
