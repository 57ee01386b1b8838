//! The machines of a LAN behind an uplink of the first bridge. Whoever is asked for its address by
//! ARP answers, at once or some time later.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use volnet::model::mac::Mac;
use volnet::network::fake::Fake;
use volnet::plan::reconcile::LinkKind;

/// The link that leads there, and its bridge.
const UPLINK: &str = "eth1";
const BRIDGE: &str = "vbr0";
/// How many looks for answers a machine may let pass, so that the daemon hears it although one of
/// its questions is lost.
const IN_TIME: usize = 1;

/// The machines, by their addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lan {
    machines: BTreeMap<Ipv4Addr, Machine>,
    /// Answers on their way, and how many looks they still need.
    answers: Vec<(usize, Ipv4Addr, Mac)>,
}

#[derive(Clone, Copy, Debug)]
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
        let bridge = kernel.link(BRIDGE).map(|link| link.index);
        if kernel.link(UPLINK).is_none() && bridge.is_some() {
            kernel.add_link(UPLINK, LinkKind::Other);
            kernel.link_mut(UPLINK).into_iter().for_each(|link| link.master = bridge);
        }
    }

    /// All are asked on a bridge who has an address.
    pub(crate) fn asked(&mut self, kernel: &Fake, bridge: &str, ip: Ipv4Addr) {
        let leads_there = bridge == BRIDGE && kernel.link(UPLINK).is_some();
        if let Some(machine) = self.machines.get(&ip).filter(|_| leads_there) {
            self.answers.push((machine.late, ip, machine.mac));
        }
    }

    /// The answers that have come.
    pub(crate) fn heard(&mut self) -> Vec<(Ipv4Addr, Mac)> {
        let (come, late) = std::mem::take(&mut self.answers).into_iter().partition(|it| it.0 == 0);
        self.answers = late;
        self.answers.iter_mut().for_each(|(late, ..)| *late -= 1);
        let come: Vec<(usize, Ipv4Addr, Mac)> = come;
        come.into_iter().map(|(_, ip, mac)| (ip, mac)).collect()
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
