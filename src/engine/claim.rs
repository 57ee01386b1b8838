//! Addresses of IPv6 that guests make for themselves: privacy addresses, stable ones that are not
//! of the Ethernet address, and link-local ones.
//!
//! First come, first served (RFC 6620): before a guest uses an address, it asks whether a neighbour
//! has it (RFC 4862, 5.4). That question is a claim. It reaches volnet and nobody else, so no other
//! guest can answer it. If the address is nobody's, the guest has it from then on, as long as its
//! VM exists. It is in the record, and so in the sets of the rules, whether the daemon runs or not.
//! If the guest cannot have the address, volnet answers that a neighbour has it: the guest says so
//! to its users, and makes another.
//!
//! A guest whose claim was not heard, because no daemon ran, uses the address in vain. Then its
//! router does not answer it, and it asks for its router from that address. That is a claim, too.
//!
//! A guest has at most [`CLAIMED_MAX`] such addresses on an interface. One more takes the place of
//! the oldest behind the first [`KEPT`]: when a guest starts, it makes those that it keeps. If a
//! guest still uses an address that it lost, it claims it again when its router does not answer.
//!
//! **What nobody can claim.** A guest could take the address of a VM that is yet to be made, which
//! would then be refused. So it cannot have addresses as people choose them, nor those of Ethernet
//! addresses but its own. One random identifier in 65,536 is like that. And on a bridge with ports
//! of others, volnet does not know whose an address is: there nobody claims.

use std::net::Ipv6Addr;

use crate::engine::decide::{Decision, Engine, Write};
use crate::engine::lease::CHANGES;
use crate::model::clock::Now;
use crate::model::lease::Guest;
use crate::model::mac::Mac;
use crate::model::name::VmName;
use crate::model::net::NetworkConfig;
use crate::model::nic::CLAIMED_MAX;

/// How many of the addresses that a guest claimed first it keeps for good: a link-local one, a
/// stable one, and the first temporary one, which may come before the stable one.
const KEPT: usize = 3;

/// What becomes of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The guest gets the address.
    Given(Box<Decision>),
    /// The guest cannot have the address.
    Refused,
    /// Nothing: nobody claims, or the guest has the address already.
    Nothing,
}

impl Engine {
    /// Decides on the claim of an address by the guest of this network with this Ethernet address.
    pub fn claim(&mut self, network: &str, mac: Mac, address: Ipv6Addr, now: Now) -> Claimed {
        let Some(guest) = self.guest(network, mac, None) else { return Claimed::Nothing };
        let (name, index) = (guest.vm.clone(), guest.index);
        if self.may_use(&guest, address) {
            return Claimed::Nothing;
        }
        if let Some(reason) = self.unclaimable(guest.network, mac, address) {
            log::debug!(vm:% = name; "the guest cannot have {address}: {reason}");
            return Claimed::Refused;
        }
        match self.give_claimed(&name, index, address, now) {
            Some(decision) => Claimed::Given(Box::new(decision)),
            None => Claimed::Nothing,
        }
    }

    /// Whether the guest may use this address already.
    fn may_use(&self, guest: &Guest<'_>, address: Ipv6Addr) -> bool {
        let record = self.state.vms.get(guest.vm).map(|vm| &vm.record);
        let spec = record.and_then(|record| record.spec.networks.get(guest.index));
        let trusted =
            spec.is_some_and(|spec| !self.traffic(guest.nic, spec, guest.network).antispoof);
        trusted || guest.nic.addresses6().any(|own| own == address)
    }

    /// A decision that gives an interface this address. `None` if its guest claims too often.
    fn give_claimed(
        &mut self,
        name: &VmName,
        index: usize,
        address: Ipv6Addr,
        now: Now,
    ) -> Option<Decision> {
        let vm = self.state.vms.get_mut(name)?;
        if !vm.changes.allows(CHANGES, now) {
            log::debug!(vm:% = name; "the guest claims addresses too often");
            return None;
        }
        let former = vm.clone();
        let nic = vm.edit().nics.get_mut(index)?;
        if nic.claimed.len() >= CLAIMED_MAX {
            nic.claimed.remove(KEPT);
        }
        nic.claimed.push(address);
        self.state.ledger.exchange6(name, &former.record.nics[index], nic);
        log::debug!(vm:% = name; "the guest made itself the address {address}");
        let vm = self.state.vms.get(name)?;
        let plan = self.exchange_plan(&former.record, &vm.record);
        Some(Decision { plan, ..Decision::of(vm, None, Write::Put, former) })
    }

    /// Why a guest of this network cannot make this address for itself.
    fn unclaimable(&self, network: &NetworkConfig, mac: Mac, address: Ipv6Addr) -> Option<String> {
        let Some(ipv6) = network.ipv6 else { return Some("its network has no IPv6".into()) };
        if let Some(owner) = self.state.ledger.owner_of_ip6(&network.name, address) {
            return Some(format!("it is VM {owner}'s"));
        }
        let reason = if self.shared().contains(&network.name) {
            "machines that are no VMs share its bridge"
        } else if !ipv6.is_on_link(address) {
            "it is of no prefix of the network"
        } else if ipv6.is_reserved(address) {
            "it is the network's"
        } else if is_chosen_by_hand(address) {
            "it is for VMs whose addresses people choose"
        } else if Mac::of_interface(address).is_some_and(|other| other != mac) {
            "it is that of another Ethernet address"
        } else {
            return None;
        };
        Some(reason.into())
    }
}

/// Whether the address looks like one that people choose: the first half of its identifier is zero.
fn is_chosen_by_hand(address: Ipv6Addr) -> bool {
    let identifier = address.to_bits() as u64;
    identifier >> 32 == 0
}
