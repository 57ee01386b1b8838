//! What the kernel remembers of guests that talk: neighbours and connections, by address.
//!
//! Who gets an address after another must not get what the kernel kept of that one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use volnet::model::view::VmView;

use crate::world::World;

/// Somebody on the other side.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Who talked last from each address: the moment at which that VM was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Talk(BTreeMap<Ipv4Addr, u64>);

impl Talk {
    /// A guest talks to the host and to the world.
    pub(crate) fn talk(&mut self, world: &mut World, vm: &VmView) {
        for nic in &vm.nics {
            let Some(ip) = nic.ip else { continue };
            let port = nic.ifindex.and_then(|index| {
                world.network.kernel.observed.links.iter().find(|link| link.index == index)
            });
            let Some(bridge) = port.and_then(|port| port.master) else { continue };
            world.network.kernel.neighbours.insert((bridge, ip.into()));
            world.network.kernel.flows.extend([(ip.into(), PEER), (PEER, ip.into())]);
            self.0.insert(ip, vm.created_at);
        }
    }

    /// Finds what is left of another VM's.
    pub(crate) fn check(&self, world: &World, views: &[VmView], wrong: &mut Vec<String>) {
        let kernel = &world.network.kernel;
        for vm in views {
            for ip in vm.nics.iter().filter_map(|nic| nic.ip) {
                let known = kernel.neighbours.iter().any(|(_, neighbour)| *neighbour == ip)
                    || kernel.flows.iter().any(|(began, answers)| *began == ip || *answers == ip);
                if known && self.0.get(&ip) != Some(&vm.created_at) {
                    wrong.push(format!("{} has got what the kernel kept of another {ip}", vm.name));
                }
            }
        }
    }
}
