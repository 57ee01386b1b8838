//! The machines of LANs behind an uplink of the first bridge, and of one that was added. Whoever is
//! asked for its address by ARP answers, at once or some time later.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use volnet::model::mac::Mac;
use volnet::network::fake::Fake;
use volnet::plan::reconcile::LinkKind;

/// The link that leads there, and its bridge: for the addresses of the first network, and for all
/// others.
const UPLINKS: [(&str, &str); 2] = [("eth1", "vbr0"), ("eth2", "vn-pods")];
/// How many looks for answers a machine may let pass, so that the daemon hears it although one of
/// its questions is lost.
const IN_TIME: usize = 1;

/// The machines, by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lan {
    machines: BTreeMap<Ipv4Addr, Machine>,
    /// Answers on their way to a bridge, and how many looks they still need.
    answers: Vec<(usize, String, (Ipv4Addr, Mac))>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    mac: Mac,
    /// How many looks for its answer pass before it comes.
    late: usize,
}

impl Lan {
    /// A machine joins, by an uplink that is made if there is none.
    pub(crate) fn join(&mut self, kernel: &mut Fake, ip: Ipv4Addr, late: usize) {
        let [.., last] = ip.octets();
        self.machines.insert(ip, Machine { mac: Mac([2, 0, 0, 0, 9, last]), late });
        let (uplink, bridge) = uplink(ip);
        let bridge = kernel.link(bridge).map(|link| link.index);
        if kernel.link(uplink).is_none() && bridge.is_some() {
            kernel.add_link(uplink, LinkKind::Other);
            kernel.link_mut(uplink).into_iter().for_each(|link| link.master = bridge);
        }
    }

    /// All are asked on a bridge who has an address.
    pub(crate) fn asked(&mut self, kernel: &Fake, bridge: &str, ip: Ipv4Addr) {
        let (uplink, of_machine) = uplink(ip);
        let leads_there = bridge == of_machine && kernel.link(uplink).is_some();
        if let Some(machine) = self.machines.get(&ip).filter(|_| leads_there) {
            self.answers.push((machine.late, bridge.into(), (ip, machine.mac)));
        }
    }

    /// The answers that have come to a bridge.
    pub(crate) fn heard(&mut self, bridge: &str) -> Vec<(Ipv4Addr, Mac)> {
        let mut come = Vec::new();
        self.answers.retain_mut(|(late, to, said)| {
            let is_there = to == bridge && *late == 0;
            match is_there {
                true => come.push(*said),
                false if to == bridge => *late -= 1,
                false => {}
            }
            !is_there
        });
        come
    }

    /// Nobody looks for answers any more.
    pub(crate) fn end(&mut self) {
        self.answers.clear();
    }

    /// Whether this is the address of a machine that the daemon hears in time.
    pub(crate) fn has(&self, ip: Ipv4Addr) -> bool {
        self.machines.get(&ip).is_some_and(|machine| machine.late <= IN_TIME)
    }
}

/// What leads to the LAN of an address.
fn uplink(ip: Ipv4Addr) -> (&'static str, &'static str) {
    UPLINKS[usize::from(ip.octets()[1] != 1)]
}
