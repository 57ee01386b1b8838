//! Compares news from the kernel with the desired state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::engine::decide::Engine;
use crate::model::limits::Shaping;
use crate::model::net::NetworkConfig;
use crate::plan::news::News;
use crate::plan::reconcile::{self, DesiredPort, Link, Seen};

impl Engine {
    /// Whether something may differ from the desired state.
    pub(super) fn is_drift(&mut self, news: &News) -> bool {
        for (link, _) in news.links.values().filter(|(_, present)| *present) {
            self.know_bridge(link);
        }
        news.lost
            || news.rules.is_some()
            || news.forwarding == Some(false)
            || news.forwarding6 == Some(false) && self.has_ipv6()
            || news.links.values().any(|(link, present)| !self.is_link_right(link, *present))
            || news.ports.values().any(|(name, is)| {
                self.owner_of(name).is_some_and(|port| port.port_settings() != *is)
            })
            || self.is_shaping_wrong(&news.shapings)
            || news
                .addresses
                .iter()
                .any(|(address, present)| self.is_address_wrong(address, *present))
    }

    /// Takes over the indexes of our links from the kernel.
    pub fn observed(&mut self, links: &[Link]) {
        self.end_missing(links);
        let taps: BTreeMap<&str, u32> = links
            .iter()
            .filter(|link| link.is_of_nic())
            .map(|link| (link.name.as_str(), link.index))
            .collect();
        for nic in self.state.vms.values_mut().flat_map(|vm| &mut vm.edit().nics) {
            if let Some(index) = taps.get(nic.tap.as_str()) {
                nic.ifindex = Some(*index);
            }
        }
        self.known.bridges.clear();
        let known = std::mem::take(&mut self.known.carriers);
        self.known.probes.forget_ports();
        for link in links {
            self.know_bridge(link);
            self.know_port(link, true);
        }
        // Who had his tap open before has been told what there is to tell.
        self.known.carriers = known;
        for link in links {
            self.know_carrier(link, true);
        }
        let present: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        self.known.carriers.retain(|index| present.contains(index));
        // A guest without a process of ours is known by its carrier only, so not before this.
        if !std::mem::replace(&mut self.known.links_seen, true) {
            self.advertise();
        }
    }

    /// Takes over whether somebody has a link of ours open.
    pub(super) fn know_carrier(&mut self, link: &Link, present: bool) {
        if present && link.carrier && link.is_of_nic() {
            if self.known.carriers.insert(link.index) {
                self.opened(&link.name, link.index);
            }
        } else {
            self.known.carriers.remove(&link.index);
        }
    }

    fn know_bridge(&mut self, link: &Link) {
        let used = |network: &NetworkConfig| !network.managed && network.bridge == link.name;
        if link.is_our_bridge() || self.state.ledger.networks().any(used) {
            self.known.bridges.insert(link.index, link.name.clone());
        }
    }

    fn is_link_right(&self, link: &Link, present: bool) -> bool {
        if let Some(network) =
            self.state.ledger.networks().find(|network| network.bridge == link.name)
        {
            return present && reconcile::bridge_is_right(network, link);
        }
        match self.owner_of(&link.name) {
            // The former link of this name may be gone.
            _ if self.is_of_stranded(&link.name) => !present || reconcile::is_parked(link),
            // An attachment ends with its link, which is decided when that is heard.
            Some(port) if !present => port.index != Some(link.index) || !port.is_remade,
            Some(port) => {
                let master = link.master.and_then(|index| self.known.bridges.get(&index));
                port.is_right(Seen { link, master: master.map(String::as_str) })
            }
            None => !present || !(link.is_our_bridge() || link.is_of_nic() || link.unfinished),
        }
    }

    /// The port that has the tap of that name.
    fn owner_of(&self, tap: &str) -> Option<DesiredPort<'_>> {
        let vm = self.state.vms.get(self.state.ledger.owner_of_tap(tap)?)?;
        self.desired_ports(&vm.record)
            .filter(|_| vm.stranded.is_none())
            .find(|port| port.tap.as_str() == tap)
    }

    fn is_shaping_wrong(&self, told: &BTreeMap<u32, Option<Shaping>>) -> bool {
        !told.is_empty()
            && self.placed().any(|vm| {
                let mut indexes = vm.record.nics.iter().filter_map(|nic| nic.ifindex);
                indexes.any(|index| told.contains_key(&index))
                    && self.desired_ports(&vm.record).any(|port| {
                        let is = port.index.and_then(|index| told.get(&index));
                        is.is_some_and(|is| port.shaping != *is)
                    })
            })
    }

    fn is_address_wrong(&self, (link, address, length): &(u32, IpAddr, u8), present: bool) -> bool {
        let Some(bridge) = self.known.bridges.get(link) else { return false };
        if self.state.ledger.networks().any(|network| !network.managed && network.bridge == *bridge)
        {
            return false;
        }
        let wanted = self.state.ledger.networks().any(|network| {
            network.bridge == *bridge
                && network.bridge_addresses().any(|wanted| wanted == (*address, *length))
        });
        // The kernel gives it link-local addresses.
        let of_kernel = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
        wanted != present && (wanted || !of_kernel)
    }
}
