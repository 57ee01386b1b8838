//! The things of VMs that are not taken over ([`crate::engine::stranded`]): nobody else gets them
//! meanwhile.

use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Ledger;
use crate::engine::stranded;
use crate::model::mac::Mac;
use crate::model::name::TapName;
use crate::model::nic::Nic;
use crate::model::record::Record;

/// A thing of a VM that is not taken over, which nobody else gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its context id.
    Cid(u32),
    /// Its user.
    Uid(u32),
    /// The name of a link.
    Tap(TapName),
    /// An Ethernet address on a network.
    Mac(String, Mac),
    /// An address of a network.
    Ip(String, Ipv4Addr),
    /// An IPv6 address of a network.
    Ip6(String, Ipv6Addr),
    /// A movable address of a network.
    Movable(String, Ipv4Addr),
}

impl Ledger {
    /// Claims those things of a record that are free, so that nobody else gets them.
    pub fn hold(&mut self, record: &Record) -> Vec<Held> {
        let mut held = Vec::new();
        if self.cids.take_exactly(record.cid) {
            held.push(Held::Cid(record.cid));
        }
        if let Some(uid) = record.own_uid().filter(|uid| self.uids.take_exactly(*uid)) {
            held.push(Held::Uid(uid));
        }
        for nic in &record.nics {
            let Nic { tap, mac, network, .. } = nic;
            if !self.taps.contains_key(tap) {
                self.taps.insert(tap.clone(), record.name.clone());
                held.push(Held::Tap(tap.clone()));
            }
            let Some(account) = self.account(network) else { continue };
            if !account.macs.contains_key(mac) {
                account.macs.insert(*mac, Some(record.name.clone()));
                held.push(Held::Mac(network.clone(), *mac));
            }
            for ip in nic.addresses6() {
                if let Entry::Vacant(free) = account.owners6.entry(ip) {
                    free.insert(record.name.clone());
                    held.push(Held::Ip6(network.clone(), ip));
                }
            }
        }
        for (network, ip) in stranded::movable(record) {
            let Some(account) = self.account(network) else { continue };
            if account.first_immovable(&[ip]).is_none() {
                account.join(&[ip]);
                held.push(Held::Movable(network.into(), ip));
            }
        }
        for (network, ip) in stranded::addresses(record) {
            let account = self.account(network);
            if account.is_some_and(|account| account.pool.lease_exactly(ip).is_ok()) {
                held.push(Held::Ip(network.into(), ip));
            }
        }
        held
    }

    /// Releases what was held.
    pub fn let_go(&mut self, held: &[Held]) {
        for one in held {
            match one {
                Held::Cid(cid) => {
                    self.cids.release(*cid);
                }
                Held::Uid(uid) => self.uids.release(*uid),
                Held::Tap(tap) => drop(self.taps.remove(tap)),
                Held::Mac(network, mac) => {
                    self.account(network).and_then(|account| account.macs.remove(mac));
                }
                Held::Ip(network, ip) => {
                    if let Some(account) = self.account(network) {
                        account.pool.release(*ip);
                    }
                }
                Held::Ip6(network, ip) => {
                    self.account(network).and_then(|account| account.owners6.remove(ip));
                }
                Held::Movable(network, ip) => {
                    if let Some(account) = self.account(network) {
                        account.part(&[*ip]);
                    }
                }
            }
        }
    }
}
