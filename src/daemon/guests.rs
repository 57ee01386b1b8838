//! Answers the frames by which guests ask for addresses and for their router.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::rc::Rc;

use super::shell::Shell;
use crate::dhcp::message::Kind;
use crate::dhcp::{DhcpQuery, Handled, handle};
use crate::dhcp6::{self, Dhcp6Query};
use crate::dns::resolvers::{self, Resolver};
use crate::engine::advertise::Gateway;
use crate::engine::claim::Claimed;
use crate::engine::names::Unheard;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::lease::{Claim, Guest};
use crate::model::mac::Mac;
use crate::model::net::{Dhcp, Dns, NetworkConfig};
use crate::model::view::{Finding, Level};
use crate::ndp::{self, Advertisement, Solicitation};
use crate::network::Network;
use crate::packet::{self, arp};
use crate::store::storage::Storage;

/// The files with the name servers of the host. If the first has only the stub of systemd-resolved,
/// which guests cannot reach, the second has the real ones (systemd-resolved.service(8)).
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// The check of name servers, in findings.
const NAME_SERVERS: &str = "name servers";
/// Milliseconds until the name servers are read again.
const RESOLVERS_MS: u64 = 1_000;
/// The most bytes of such a file that are read.
const RESOLV_CONF_MAX: u64 = 64 * 1024;

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Handles a frame from a guest of this network. Returns the answer, if there is one, and the
    /// index of its tap. The lease in the answer is on the disk.
    pub fn guest_asks(&mut self, network: &str, frame: &[u8], now: Now) -> Option<(u32, Vec<u8>)> {
        if packet::is_v6(frame) {
            return self.guest_asks_by_ipv6(network, frame, now);
        }
        let query = DhcpQuery::read(frame)
            .inspect_err(|reason| log::debug!("network {network}: a frame is ignored: {reason}"))
            .ok()?;
        self.watch_dhcp(network, &query, now);
        if let Some(Guest { vm, claim: Claim::Free(ip), .. }) =
            self.engine.guest(network, query.mac(), query.wanted())
        {
            let vm = vm.clone();
            if self.engine.probe_for_guest(&vm, network, ip, now) {
                log::debug!(vm:%; "{ip} is not offered before it is known to be nobody's");
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
        self.resolve(now);
        let guest = self.engine.guest(network, query.mac(), None)?;
        let servers = self.engine.name_servers(guest.network);
        Some((guest.nic.ifindex?, reply.frame(&guest, &query, &servers)?))
    }

    /// Tells of a guest that asks again and again, or that has found another machine with its
    /// address.
    fn watch_dhcp(&mut self, network: &str, query: &DhcpQuery<'_>, now: Now) {
        let Some(guest) = self.engine.guest(network, query.mac(), None) else { return };
        let vm = guest.vm.clone();
        let notice = match query.kind() {
            Kind::Discover | Kind::Request => self.engine.asked_for_address(&vm, now),
            Kind::Decline => {
                let ip = query.wanted().map(|ip| format!(" {ip}")).unwrap_or_default();
                let words = format!("its guest has found another machine with the address{ip}");
                self.engine.in_conflict(&vm, &words, now)
            }
            Kind::Offer | Kind::Ack | Kind::Nak | Kind::Release | Kind::Inform => None,
        };
        if let Some(notice) = notice {
            self.event(notice, now);
        }
    }

    /// The same for IPv6. What a guest is told follows from its record. Only an address that it
    /// claims is written.
    fn guest_asks_by_ipv6(
        &mut self,
        network: &str,
        frame: &[u8],
        now: Now,
    ) -> Option<(u32, Vec<u8>)> {
        if let Ok(claim) = ndp::Claim::read(frame) {
            return self.guest_claims(network, claim, now);
        }
        match Solicitation::read(frame) {
            Ok(asked) => {
                let (link, frame) =
                    self.answer_guest(network, asked.mac, now, |guest, servers| {
                        let told =
                            Advertisement::of(guest, servers).ok_or("its network has no IPv6")?;
                        Ok(told.frame(asked.mac, asked.source))
                    })?;
                self.engine.advertised(now);
                Some((link, frame))
            }
            Err(_) => {
                let query = Dhcp6Query::read(frame)
                    .inspect_err(|why| log::debug!("network {network}: a frame is ignored: {why}"))
                    .ok()?;
                self.answer_guest(network, query.mac, now, |guest, servers| {
                    Ok(dhcp6::respond(guest, &query)?.frame(guest, &query, servers))
                })
            }
        }
    }

    /// Handles the claim of an address. A guest that cannot have the address is told so.
    fn guest_claims(
        &mut self,
        network: &str,
        claim: ndp::Claim,
        now: Now,
    ) -> Option<(u32, Vec<u8>)> {
        match self.engine.claim(network, claim.mac, claim.address, now) {
            Claimed::Given(decision) => drop(self.carry_out(*decision, now)),
            Claimed::Refused if claim.tentative => {
                let told = |guest: &Guest<'_>, _: &[IpAddr]| Ok(claim.refusal(guest.network.mac));
                return self.answer_guest(network, claim.mac, now, told);
            }
            Claimed::Refused | Claimed::Nothing => {}
        }
        None
    }

    /// The answer to the guest of a network with this Ethernet address, as far as its rate allows,
    /// and the index of its tap.
    fn answer_guest(
        &mut self,
        network: &str,
        mac: Mac,
        now: Now,
        answer: impl FnOnce(&Guest<'_>, &[IpAddr]) -> Result<Vec<u8>, &'static str>,
    ) -> Option<(u32, Vec<u8>)> {
        let vm = self.engine.guest(network, mac, None)?.vm.clone();
        if !self.engine.may_answer(&vm, now) {
            log::debug!(vm:%; "the guest asks too often");
            return None;
        }
        self.resolve(now);
        let guest = self.engine.guest(network, mac, None)?;
        let frame = answer(&guest, &self.engine.name_servers(guest.network))
            .inspect_err(|reason| log::debug!(vm:%; "a question is not answered: {reason}"));
        Some((guest.nic.ifindex?, frame.ok()?))
    }

    /// Tells guests of their routers, as far as that is due.
    pub(super) fn advertise(&mut self, now: Now) {
        for Gateway { ifindex, mac, ip } in self.engine.gateways_due() {
            if let Err(error) = self.network.send_frame(ifindex, &arp::question(mac, ip, ip)) {
                // Its hypervisor may have ended meanwhile.
                log::debug!("link {ifindex}: the guest is not told of its gateway: {error}");
            }
        }
        let due = self.engine.advertisements_due(now);
        if !due.is_empty() {
            self.resolve(now);
        }
        for told in due {
            let Some(guest) = self.engine.guest(&told.network, told.mac, None) else { continue };
            let servers = self.engine.name_servers(guest.network);
            let advertisement = match told.lost {
                Some(prefix) => Some(Advertisement::of_lost(&guest, prefix)),
                None => Advertisement::of(&guest, &servers),
            };
            let (Some(advertisement), Some(link)) = (advertisement, guest.nic.ifindex) else {
                continue;
            };
            let frame = advertisement.frame(told.mac, None);
            if let Err(error) = self.network.send_frame(link, &frame) {
                // It may not read. When it starts anew, it asks.
                log::debug!(vm:% = told.vm; "its guest is not told of its router: {error}");
            }
            if told.lost.is_some() {
                if let Some(decision) = self.engine.told_of_lost(&told.vm) {
                    self.carry_out(decision, now);
                }
            }
        }
    }
}

/// The name servers of the host, from the last read. Guests choose how often they ask, so this
/// limits how often the files are read.
#[derive(Debug, Default)]
pub(super) struct Resolvers {
    read_at: Option<u64>,
    known: HostServers,
}

/// The name servers of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostServers {
    /// Those that guests can reach.
    pub(super) told: Vec<IpAddr>,
    /// Those that the host asks.
    pub(super) asked: Rc<[Resolver]>,
}

impl HostServers {
    /// Reads them from the files of the host, which has these networks.
    pub(super) fn read<'a>(networks: impl Iterator<Item = &'a NetworkConfig>) -> HostServers {
        let [first, second] = RESOLV_CONF;
        let text = text(first);
        let asked = resolvers::resolvers(&text, networks).into();
        HostServers { told: resolvers::told(&text, || self::text(second)), asked }
    }
}

/// The text of a file of the host; none if it cannot be read.
fn text(path: &str) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|it| it.take(RESOLV_CONF_MAX).read_to_string(&mut text));
    read.map(|_| text).unwrap_or_default()
}

impl Resolvers {
    /// Those that the host asks, from the last read.
    #[cfg(target_os = "linux")]
    pub(super) fn asked(&self) -> Rc<[Resolver]> {
        Rc::clone(&self.known.asked)
    }

    /// The name servers. They are read again after [`RESOLVERS_MS`].
    pub(super) fn known(&mut self, now: Now, read: impl FnOnce() -> HostServers) -> &HostServers {
        if self.read_at.is_none_or(|at| at + RESOLVERS_MS <= now.mono) {
            (self.read_at, self.known) = (Some(now.mono), read());
        }
        &self.known
    }
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// The name servers that the host asks, in words.
    pub(super) fn host_servers(&self) -> Vec<String> {
        let known = HostServers::read(self.engine.configured());
        known.asked.iter().map(|it| it.ip.to_string()).collect()
    }

    /// Whether the guests of a network can ask volnet for names, if they are to.
    pub(super) fn names_of(&self, network: &NetworkConfig, asked: &[String]) -> Option<Finding> {
        let name = &network.name;
        match (&network.dns, self.engine.why_unheard(network)) {
            (Dns::Builtin, Some(Unheard::Port(reason))) => Some(warning(
                format!("network {name}: its guests cannot ask volnet for names: {reason}"),
                "mend that and restart volnet, or set dns of the network to off; see \
                 docs/NAMES.md",
            )),
            // The finding about the firewall has the command.
            (Dns::Builtin, Some(Unheard::Firewall(reason))) => {
                let words = "its guests cannot ask volnet for names";
                let message = format!("network {name}: {words}: {reason}");
                Some(Finding { hint: None, ..warning(message, "") })
            }
            (Dns::Builtin, None) if asked.is_empty() => Some(warning(
                format!("network {name}: volnet has no name server to ask"),
                "add one to /etc/resolv.conf that is not volnet itself",
            )),
            (Dns::Builtin, None) => {
                let servers = asked.join(", ");
                Some(well(format!("guests of network {name} ask volnet, and it asks {servers}")))
            }
            (Dns::Off | Dns::Servers(_), _) => None,
        }
    }

    /// What guests are told of name servers, and whether that is of use.
    pub(super) fn name_servers(&self) -> Vec<Finding> {
        let asked = self.host_servers();
        let networks = || self.engine.configured();
        let mut findings: Vec<Finding> =
            networks().filter_map(|network| self.names_of(network, &asked)).collect();
        let told = networks().any(|network| {
            let unheard = self.engine.why_unheard(network).is_some();
            let tells = network.dhcp == Dhcp::Builtin || network.ipv6.is_some();
            tells && (network.dns == Dns::Off || unheard)
        });
        let known = HostServers::read(networks());
        let servers: Vec<String> = known.told.iter().map(IpAddr::to_string).collect();
        findings.extend(told.then(|| match &servers[..] {
            [] => warning(
                "guests are told no name server: the host has none that guests can reach".into(),
                "add one to /etc/resolv.conf",
            ),
            some => well(format!("guests are told the name servers {}", some.join(", "))),
        }));
        findings
    }
}

fn well(message: String) -> Finding {
    Finding { check: NAME_SERVERS.into(), level: Level::Ok, message, hint: None }
}

fn warning(message: String, hint: &str) -> Finding {
    let hint = Some(hint.into());
    Finding { check: NAME_SERVERS.into(), level: Level::Warning, message, hint }
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
                HostServers { told: vec![[192, 0, 2, reads].into()], ..HostServers::default() }
            });
            assert_eq!(known.told.len(), 1);
        }
        assert_eq!(reads, 10);
        assert_eq!(resolvers.known.told, [IpAddr::from([192, 0, 2, 10])], "and they are new then");
    }
}
