//! Whether somebody else has an address already (RFC 5227).
//!
//! A bridge may have ports of others: the uplink into a LAN. There, machines have addresses that no
//! record knows. So before an address is leased on such a bridge, all are asked by ARP who has it:
//! [`PROBES`] times, [`INTERVAL_MS`] apart. Nobody else waits meanwhile:
//!
//! ```text
//! create ─ probe_for ─▶ the address is promised to this VM ─ probes_due ─▶ asked ─┐
//!    ▲                                          │ somebody_has                    │ nobody has it
//!    │                                          ▼                                 │
//!    └── decided ◀── the next address ── it is taken for a while         decided ◀┘
//! ```
//!
//! A promise is in the pool, so that creates at the same time are promised different addresses. It
//! is nowhere else: after a crash there is nothing to undo. An address that was asked for by name
//! and is somebody's is a refusal. A guest that asks by DHCP gets no offer until it is known that
//! the address is nobody's, and asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::engine::decide::Engine;
use crate::engine::watch::Notice;
use crate::model::clock::Now;
use crate::model::error::Refusal;
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::NicName;
use crate::model::spec::VmSpec;
use crate::model::view::EventKind;
use crate::plan::reconcile::Link;

/// How often all are asked, as RFC 5227 says.
const PROBES: u32 = 3;
/// Milliseconds between two questions, and after the last. RFC 5227 takes seconds, because a host
/// that starts may be on any kind of link. A bridge and a switch answer in a few milliseconds.
const INTERVAL_MS: u64 = 150;
/// How long an address that nobody had is not asked for again, in milliseconds: a guest needs that
/// time to ask again.
const CLEAR_MS: u64 = 60_000;
/// How long an address that somebody had is not leased, in milliseconds.
const TAKEN_MS: u64 = 600_000;
/// The most addresses that are asked for at a time. More are leased without a question.
const RUNNING_MAX: usize = 256;

/// What is known of the addresses of others.
#[derive(Debug, Default)]
pub struct Probes {
    /// The links that others have put on a bridge, with the index of that.
    foreign: BTreeMap<u32, u32>,
    running: BTreeMap<Ipv4Addr, Probe>,
    /// Addresses that nobody had, and until when that counts.
    clear: BTreeMap<Ipv4Addr, u64>,
    /// Addresses that somebody had: their network, who, and until when that counts.
    taken: BTreeMap<Ipv4Addr, (String, Mac, u64)>,
}

#[derive(Debug)]
struct Probe {
    network: String,
    sent: u32,
    /// When the next is due, by the monotonic clock.
    due: u64,
}

impl Probes {
    /// All links are about to be told anew.
    pub(super) fn forget_ports(&mut self) {
        self.foreign.clear();
    }

    /// A network is gone, or another one has its name: what is known of its addresses counts no
    /// more. Whoever waits for one of them is decided on anew.
    pub(super) fn forget_network(&mut self, name: &str) {
        self.running.retain(|_, probe| probe.network != name);
        self.taken.retain(|_, (network, ..)| network != name);
        // Whose network those were is not known. To ask once more harms nobody.
        self.clear.clear();
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.running.values().map(|probe| probe.due).min()
    }
}

impl Engine {
    /// Takes over whose port a link is.
    pub(super) fn know_port(&mut self, link: &Link, present: bool) {
        match link.master.filter(|_| present && !link.is_of_nic() && !link.is_retired()) {
            Some(master) => drop(self.known.probes.foreign.insert(link.index, master)),
            None => drop(self.known.probes.foreign.remove(&link.index)),
        }
    }

    /// The networks whose bridges have ports of others.
    pub(super) fn shared(&self) -> BTreeSet<String> {
        let masters = self.known.probes.foreign.values();
        let bridges: BTreeSet<&String> =
            masters.filter_map(|it| self.known.bridges.get(it)).collect();
        let shared =
            self.state.ledger.networks().filter(|network| bridges.contains(&network.bridge));
        shared.map(|network| network.name.clone()).collect()
    }

    /// Whether a new VM has to wait until it is known that its addresses are nobody's. An address
    /// that it names and that somebody has is refused.
    pub fn probe_for(&mut self, name: &VmName, spec: &VmSpec, now: Now) -> Result<bool, Refusal> {
        self.end_memories(now);
        let shared = self.shared();
        if shared.is_empty() {
            return Ok(false);
        }
        let mut waits = false;
        for (index, wanted) in spec.networks.iter().enumerate() {
            if let Some((ip, (_, mac, _))) =
                wanted.ip.and_then(|ip| self.known.probes.taken.get_key_value(&ip))
            {
                let owner = format!("the machine with the Ethernet address {mac}");
                return Err(Refusal::AddressInUse { ip: (*ip).into(), owner });
            }
            let promised = self.state.ledger.promise(NicName { vm: name, index }, wanted, &shared);
            if let Some((network, ip)) = promised {
                waits |= self.begin_probe(&network, ip, now);
            }
        }
        Ok(waits)
    }

    /// Whether a guest of a network has to wait until it is known that an address is nobody's.
    pub fn probe_for_guest(&mut self, vm: &VmName, network: &str, ip: Ipv4Addr, now: Now) -> bool {
        self.end_memories(now);
        if self.known.probes.clear.contains_key(&ip) || !self.shared().contains(network) {
            return false;
        }
        if !self.known.probes.running.contains_key(&ip) && self.may_answer(vm, now) {
            self.begin_probe(network, ip, now);
        }
        true
    }

    /// Has it found out who has an address. False if it is known that nobody has it.
    fn begin_probe(&mut self, network: &str, ip: Ipv4Addr, now: Now) -> bool {
        if self.known.probes.running.contains_key(&ip) {
            return true;
        }
        if self.known.probes.clear.contains_key(&ip)
            || self.known.probes.running.len() >= RUNNING_MAX
        {
            return false;
        }
        let probe = Probe { network: network.into(), sent: 0, due: now.mono };
        self.known.probes.running.insert(ip, probe);
        true
    }

    /// Whether a VM that is to be made still waits.
    pub fn is_probed(&self, name: &VmName) -> bool {
        self.state.ledger.promised(name).any(|ip| self.known.probes.running.contains_key(&ip))
    }

    /// A VM was made or refused: what is promised to it still is not any more.
    pub fn end_promises(&mut self, name: &VmName) {
        self.state.ledger.end_promises(name);
    }

    /// The networks on whose bridges all are asked.
    pub fn probed(&self) -> Vec<NetworkConfig> {
        let names: BTreeSet<&String> =
            self.known.probes.running.values().map(|it| &it.network).collect();
        names.into_iter().filter_map(|name| self.state.ledger.network(name)).cloned().collect()
    }

    /// The addresses for which all are to be asked now.
    pub fn probes_due(&mut self, now: Now) -> Vec<(NetworkConfig, Ipv4Addr)> {
        let mut asked = Vec::new();
        let Probes { running, clear, .. } = &mut self.known.probes;
        running.retain(|ip, probe| {
            if probe.due > now.mono {
                return true;
            }
            if probe.sent == PROBES {
                clear.insert(*ip, now.mono + CLEAR_MS);
                return false;
            }
            (probe.sent, probe.due) = (probe.sent + 1, now.mono + INTERVAL_MS);
            asked.push((probe.network.clone(), *ip));
            true
        });
        let network = |name: &str| self.state.ledger.network(name).cloned();
        asked.into_iter().filter_map(|(name, ip)| Some((network(&name)?, ip))).collect()
    }

    /// Somebody on the bridge of a network has said that it has an address. If that was asked for
    /// there, nobody is leased it for a while.
    pub fn somebody_has(
        &mut self,
        network: &str,
        (ip, mac): (Ipv4Addr, Mac),
        now: Now,
    ) -> Option<Notice> {
        let running = &mut self.known.probes.running;
        running.get(&ip).filter(|probe| probe.network == network)?;
        let Probe { network, .. } = running.remove(&ip)?;
        if self.state.ledger.take_away(&network, ip) {
            let taken = (network.clone(), mac, now.mono + TAKEN_MS);
            self.known.probes.taken.insert(ip, taken);
        }
        let message = format!(
            "{ip} of network {network} is the address of {mac}, which is no VM: not leased"
        );
        Some(Notice { kind: EventKind::Drift, vm: None, message, by: None })
    }

    /// Forgets what was known long ago.
    fn end_memories(&mut self, now: Now) {
        self.known.probes.clear.retain(|_, until| *until > now.mono);
        let ledger = &mut self.state.ledger;
        self.known.probes.taken.retain(|ip, (network, _, until)| {
            let stays = *until > now.mono;
            if !stays {
                ledger.give_back(network, *ip);
            }
            stays
        });
    }
}
