//! Looks the host or a VM over: sees what [`crate::doctor`] decides on.
//!
//! The host is looked over at once. The look at a VM takes as long as its guest needs to answer, at
//! most [`LOOKS`] times [`LOOK_MS`]. Nobody else waits meanwhile: the look is kept here with its
//! caller, and the frames of the guest are taken when the next look is due, so they need no source
//! in the loop. Whatever else is to be said of the VM is seen first, once.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::shell::Shell;
use crate::doctor::guest::{self, Asker, Heard, Interface};
use crate::doctor::host::{self, WORLD, WORLD6};
use crate::doctor::{broken, doubtful, vm};
use crate::engine::decide::Step;
use crate::engine::supervise::Life;
use crate::engine::vm::Vm;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::model::error::Error;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::Nic;
use crate::model::request::{Reply, Ticket};
use crate::model::view::{Finding, Status};
use crate::network::{Network, Side};
use crate::packet::arp::{self, Arp};
use crate::plan::firewall::{self, Hindrance, Surroundings};
use crate::plan::reconcile::{Observed, reconcile};
use crate::store::storage::Storage;

/// Milliseconds between two looks at what a guest has said.
const LOOK_MS: u64 = 50;
/// The most looks: a guest that is busy answers late.
const LOOKS: u32 = 20;
/// The guest is asked at each look of this number.
const ASK_EACH: u32 = 5;

/// A look at a VM that waits for its guest.
pub(super) struct Examination {
    ticket: Ticket,
    name: VmName,
    parts: Vec<Part>,
    looks: u32,
    due: u64,
}

/// A part of what is said of a VM, in the order of its hops.
enum Part {
    /// It is known.
    Known(Finding),
    /// Somebody is asked, and that is waited for.
    Asked { ifindex: u32, questions: Vec<Vec<u8>>, whom: Whom },
}

/// Who is asked.
enum Whom {
    /// The guest, by the name of its interface inside.
    Guest { interface: Interface, inside: String, heard: Heard },
    /// The gateway of a network, if it is another machine.
    Gateway { network: Box<NetworkConfig>, ip: Ipv4Addr, answers: bool },
}

/// What was seen of the host.
struct Seen {
    surroundings: Surroundings,
    observed: Observed,
    hindrances: Vec<Hindrance>,
}

impl Whom {
    fn take(&mut self, frame: &[u8]) {
        match self {
            Whom::Guest { interface, heard, .. } => heard.take(interface, frame),
            Whom::Gateway { ip, answers, .. } => {
                *answers |= Arp::read(frame).is_some_and(|said| said.sender == *ip);
            }
        }
    }

    fn is_enough(&self) -> bool {
        match self {
            Whom::Guest { interface, heard, .. } => heard.is_enough(interface),
            Whom::Gateway { answers, .. } => *answers,
        }
    }

    fn findings(&self, vm: &VmName) -> Vec<Finding> {
        match self {
            Whom::Guest { interface, inside, heard } => {
                guest::findings(vm, interface, heard, inside)
            }
            Whom::Gateway { network, ip, answers } => {
                vec![vm::other_gateway(network, (*ip).into(), *answers)]
            }
        }
    }
}

impl Examination {
    fn is_over(&self) -> bool {
        self.looks >= LOOKS
            || self.parts.iter().all(|part| match part {
                Part::Known(_) => true,
                Part::Asked { whom, .. } => whom.is_enough(),
            })
    }

    fn links(&self) -> impl Iterator<Item = u32> {
        self.parts.iter().filter_map(|part| match part {
            Part::Known(_) => None,
            Part::Asked { ifindex, .. } => Some(*ifindex),
        })
    }
}

impl<N: Network, D: Storage, P: Processes> Shell<N, D, P> {
    /// Looks a VM over, or the host.
    pub(super) fn doctor(
        &mut self,
        ticket: Ticket,
        name: Option<&VmName>,
        now: Now,
    ) -> Result<Step, Error> {
        let Some(name) = name else {
            return Ok(Step::reply(Reply::Findings { findings: self.look_host_over()? }));
        };
        let parts = self.look_over(name, now)?;
        let (name, due) = (name.clone(), now.mono);
        self.examined.push(Examination { ticket, name, parts, looks: 0, due });
        self.examine(now);
        Ok(Step::Later)
    }

    /// When the next look is due.
    pub(super) fn examination_due(&self) -> Option<u64> {
        self.examined.iter().map(|it| it.due).min()
    }

    /// Takes what guests have said, asks them again, and answers who waits no longer.
    pub(super) fn examine(&mut self, now: Now) {
        let mut examined = std::mem::take(&mut self.examined);
        let due = |it: &&mut Examination| it.due <= now.mono;
        let links: BTreeSet<u32> =
            examined.iter_mut().filter(due).flat_map(|it| it.links().collect::<Vec<_>>()).collect();
        for link in links {
            let frames = self.network.overheard(link, Side::Sent);
            let parts = examined.iter_mut().flat_map(|it| &mut it.parts);
            for part in parts {
                let Part::Asked { ifindex, whom, .. } = part else { continue };
                if *ifindex == link {
                    frames.iter().for_each(|frame| whom.take(frame));
                }
            }
        }
        for it in examined.iter_mut().filter(due) {
            if it.looks % ASK_EACH == 0 {
                self.ask(it);
            }
            (it.looks, it.due) = (it.looks + 1, now.mono + LOOK_MS);
        }
        let (over, rest): (Vec<_>, Vec<_>) = examined.into_iter().partition(Examination::is_over);
        self.examined = rest;
        for it in over {
            self.answer_examined(it);
        }
    }

    fn ask(&mut self, examination: &Examination) {
        for part in &examination.parts {
            let Part::Asked { ifindex, questions, .. } = part else { continue };
            for question in questions {
                if let Err(error) = self.network.send_frame(*ifindex, question) {
                    log::debug!(vm:% = examination.name; "a question is lost: {error}");
                }
            }
        }
    }

    fn answer_examined(&mut self, examination: Examination) {
        for link in examination.links() {
            if !self.examined.iter().any(|other| other.links().any(|it| it == link)) {
                self.network.end_overhearing(link, Side::Sent);
            }
        }
        let Examination { ticket, name, parts, .. } = examination;
        let findings = parts.into_iter().flat_map(|part| match part {
            Part::Known(finding) => vec![finding],
            Part::Asked { whom, .. } => whom.findings(&name),
        });
        let findings = findings.collect();
        self.reply(ticket, Ok(Reply::Findings { findings }));
    }

    /// What is to be said of the host: all that Check says, and what all VMs share.
    fn look_host_over(&mut self) -> Result<Vec<Finding>, Error> {
        let mut findings = self.check_findings()?;
        let networks: Vec<NetworkConfig> = self.engine.configured().cloned().collect();
        for network in networks.iter().filter(|network| network.gateway.is_none()) {
            findings.extend(self.ways(network, network.a_guest(), network.mtu)?);
        }
        findings.extend(host::bounds(&self.network.bounds(), self.engine.expose_ports()));
        let hindrances = self.network.hindrances()?;
        let bridges: Vec<&str> = networks.iter().map(|network| &*network.bridge).collect();
        findings.extend(hindrances.iter().filter_map(|rule| rule.of_bridges(&bridges)));
        findings.extend(self.engine.vms().flat_map(|vm| vm::shadowed(&vm.record, &hindrances)));
        Ok(findings)
    }

    /// What is to be said of a VM, and who has to be asked for the rest.
    fn look_over(&mut self, name: &VmName, now: Now) -> Result<Vec<Part>, Error> {
        let seen = Seen {
            surroundings: self.network.surroundings()?,
            observed: self.network.observe()?,
            hindrances: self.network.hindrances()?,
        };
        self.engine.names_kept(&seen.surroundings);
        let vm = self.engine.vm(name)?.clone();
        let mut parts = vec![Part::Known(self.process_of(&vm, &seen.observed))];
        if let Some(stranded) = &vm.stranded {
            let message = format!("it has no network: {}", stranded.reason);
            let hint = format!("undo that and restart volnet, or volnet delete {name}");
            parts.push(Part::Known(broken("network", message, hint)));
            return Ok(parts);
        }
        for index in 0..vm.record.nics.len() {
            self.look_nic_over(&vm, index, &seen, now, &mut parts)?;
        }
        let shared = self.shared_by(&vm, &seen)?;
        parts.extend(shared.into_iter().map(Part::Known));
        Ok(parts)
    }

    /// Who has the other end of its links.
    fn process_of(&self, vm: &Vm, observed: &Observed) -> Finding {
        let nics = &vm.record.nics;
        let open = |nic: &Nic| {
            let links = &mut observed.links.iter();
            links.any(|link| link.carrier && link.name == nic.tap.as_str())
        };
        let is_held = !nics.is_empty() && nics.iter().all(open);
        if let Some(attachment) = vm.record.spec.attachment.as_ref().filter(|it| !it.host) {
            return vm::namespace(attachment, is_held);
        }
        let (last_error, halt) = (vm.last_error(), vm.halt());
        vm::process(&vm::Process {
            vm: &vm.record.name,
            status: vm.status(),
            pid: vm.life.pid(),
            can_start: vm.record.spec.machine.is_some(),
            waits: matches!(vm.life, Life::Waiting { .. }),
            last_error: last_error.as_deref(),
            halt: halt.as_deref(),
            is_broken: vm.is_broken(),
            is_held,
        })
    }

    /// The hops of one interface.
    fn look_nic_over(
        &mut self,
        vm: &Vm,
        index: usize,
        seen: &Seen,
        now: Now,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let (nic, spec) = (&vm.record.nics[index], &vm.record.spec.networks[index]);
        let Some(network) = self.engine.network_of(nic).cloned() else { return Ok(()) };
        let mtu = spec.mtu.unwrap_or(network.mtu);
        parts.push(Part::Known(vm::tap(nic.tap.as_str(), &network, mtu, &seen.observed)));
        parts.extend(self.guest_of(vm, index, &network, seen));
        let lately = |at: Option<u64>| at.map(|at| now.mono.saturating_sub(at) / 1000);
        if spec.mode == Mode::Dhcp {
            parts.push(Part::Known(vm::lease(nic, index, &network.dhcp, lately(vm.answered))));
        }
        parts.push(self.gateway_of(&network, seen));
        let servers = self.host_servers();
        let mut known: Vec<Finding> = self.names_of(&network, &servers).into_iter().collect();
        known.extend(lately(vm.named).map(vm::names));
        known.extend(self.policy_of(vm, index, &network)?);
        let bridge = [network.bridge.as_str()];
        if network.managed {
            let of = |speaks: bool| if speaks { &bridge[..] } else { &[] };
            let (ipv4, ipv6) = (of(network.ipv4.is_some()), of(network.ipv6.is_some()));
            known.extend(firewall::findings(&seen.surroundings, ipv4, ipv6));
        }
        known.extend(seen.hindrances.iter().filter_map(|rule| rule.of_bridges(&bridge)));
        if network.gateway.is_none() {
            known.push(vm::nat(&network));
            let from = nic.address().or(network.a_guest());
            known.extend(self.ways(&network, from, mtu)?);
        }
        parts.extend(known.into_iter().map(Part::Known));
        Ok(())
    }

    /// The guest of an interface, who is asked if somebody has its tap open. One that is paused
    /// cannot answer.
    fn guest_of(
        &mut self,
        vm: &Vm,
        index: usize,
        network: &NetworkConfig,
        seen: &Seen,
    ) -> Option<Part> {
        if vm.status() == Status::Paused {
            return None;
        }
        let (nic, spec) = (&vm.record.nics[index], &vm.record.spec.networks[index]);
        let find = |name: &str| seen.observed.links.iter().find(|link| link.name == name);
        let tap = find(nic.tap.as_str()).filter(|tap| tap.carrier)?;
        let identity = nic.identity(network);
        let ip = identity.ip().or(nic.address()).zip(identity.ipv4);
        let interface = Interface {
            tap: tap.name.clone(),
            mac: identity.mac,
            ip: ip.map(|(ip, ipv4)| (ip, ipv4.subnet.length())),
            ip6: nic.ip6,
            movable: spec.addresses.clone(),
            antispoof: self.engine.traffic(nic, spec, network).antispoof,
        };
        let of_bridge = find(&network.bridge).map_or(network.mac, |bridge| bridge.mac);
        let mac = nic.inner.as_ref().and_then(|it| it.gateway_mac).unwrap_or(of_bridge);
        let ip = identity.ipv4.map_or(Ipv4Addr::UNSPECIFIED, |ipv4| ipv4.host);
        let questions = interface.questions(Asker { mac, ip });
        let (inside, heard) = (format!("eth{index}"), Heard::default());
        let whom = Whom::Guest { interface, inside, heard };
        Some(self.part(tap.index, questions, whom))
    }

    /// What the guest of an interface may send, and how much of what it sent was denied.
    fn policy_of(
        &mut self,
        vm: &Vm,
        index: usize,
        network: &NetworkConfig,
    ) -> Result<Vec<Finding>, Error> {
        let (nic, spec) = (&vm.record.nics[index], &vm.record.spec.networks[index]);
        let (mut denied, addresses) = (0, nic.all_addresses().collect::<Vec<_>>());
        for counted in self.network.counted()? {
            let own = !counted.allowed && addresses.contains(&counted.address);
            denied += if own { counted.packets } else { 0 };
        }
        let traffic = self.engine.traffic(nic, spec, network);
        Ok(vm::policy(&traffic, self.engine.policy_named(traffic.policy), denied))
    }

    /// Somebody is asked, if that is possible.
    fn part(&mut self, ifindex: u32, questions: Vec<Vec<u8>>, whom: Whom) -> Part {
        match self.network.overhear(ifindex, Side::Sent) {
            Ok(()) => Part::Asked { ifindex, questions, whom },
            Err(error) => Part::Known(doubtful(
                "guest",
                format!("nobody can be asked on link {ifindex}: {error}"),
                "volnet check",
            )),
        }
    }

    fn gateway_of(&mut self, network: &NetworkConfig, seen: &Seen) -> Part {
        let bridge = seen.observed.links.iter().find(|link| link.name == network.bridge);
        match (network.gateway, bridge) {
            (Some(ip), Some(bridge)) => {
                let question = arp::question(bridge.mac, Ipv4Addr::UNSPECIFIED, ip);
                let network = Box::new(network.clone());
                let whom = Whom::Gateway { network, ip, answers: false };
                self.part(bridge.index, vec![question], whom)
            }
            (_, _) => Part::Known(vm::gateway(network, &seen.observed)),
        }
    }

    /// The ways from a guest of a network to the world, one of each family that it has.
    fn ways(
        &mut self,
        network: &NetworkConfig,
        from: Option<Ipv4Addr>,
        mtu: u16,
    ) -> Result<Vec<Finding>, Error> {
        let from6 = network.ipv6.map(|ipv6| IpAddr::V6(ipv6.address_of(network.mac)));
        let of_family = [("IPv4", from.map(IpAddr::V4), WORLD), ("IPv6", from6, WORLD6)];
        let mut findings = Vec::new();
        for (family, from, to) in of_family {
            let Some(from) = from else { continue };
            let way = self.network.way(&network.bridge, from, to)?;
            findings.extend(host::way(network, family, &way, mtu));
        }
        Ok(findings)
    }

    /// What is wrong with the ways from networks to their peers.
    pub(super) fn ways_to_peers(&mut self) -> Result<Vec<Finding>, Error> {
        let networks: Vec<NetworkConfig> = self.engine.configured().cloned().collect();
        let mut findings = Vec::new();
        for network in &networks {
            let from6 = network.ipv6.map(|ipv6| IpAddr::V6(ipv6.address_of(network.mac)));
            for peers in &network.peers {
                let from = match peers.network() {
                    IpAddr::V4(_) => network.a_guest().map(IpAddr::V4),
                    IpAddr::V6(_) => from6,
                };
                let ends = from.zip(network.an_address_of(*peers));
                let Some((from, to)) = ends else { continue };
                let way = self.network.way(&network.bridge, from, to)?;
                findings.extend(host::peers(network, *peers, &way));
            }
        }
        Ok(findings)
    }

    /// What a VM has in common with others: the rules, its ports of the host, the bounds, the disk.
    fn shared_by(&mut self, vm: &Vm, seen: &Seen) -> Result<Vec<Finding>, Error> {
        let desired = self.engine.desired();
        let mut findings = host::forwarding(&desired, &seen.observed);
        let reconciled = reconcile(&desired, &seen.observed);
        findings.push(host::rules(&reconciled));
        let shadowed = vm::shadowed(&vm.record, &seen.hindrances);
        let unheard = self.unheard(Some(&vm.record.name));
        if shadowed.is_empty() && unheard.is_empty() {
            findings.extend(vm.record.exposed().map(vm::exposed));
        }
        findings.extend(shadowed);
        findings.extend(unheard);
        findings.extend(host::bounds(&self.network.bounds(), self.engine.expose_ports()));
        #[cfg(target_os = "linux")]
        {
            let short = self.short_of_space();
            let room =
                short.is_empty().then(|| crate::doctor::well("disk", "records and logs have room"));
            findings.extend(short.into_iter().chain(room));
        }
        Ok(findings)
    }
}
