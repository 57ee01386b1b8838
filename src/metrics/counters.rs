//! What the kernel has counted, brought to the interfaces that it is about.

use std::collections::HashMap;
use std::net::IpAddr;

use super::numbers::NicNumbers;
use crate::model::nic::Nic;
use crate::network::{Cause, Counted, Dropped, Passed};

/// Counters that were read, until their interface takes them.
#[derive(Debug, Default)]
pub struct Counters {
    /// What went through links, by their index.
    passed: HashMap<u32, Passed>,
    /// Packets and bytes that policies allowed or denied, by the address of the guest.
    verdicts: HashMap<(IpAddr, bool), (u64, u64)>,
    /// Frames that were dropped, by the tap that they came from.
    dropped: HashMap<String, NicNumbers>,
}

impl Counters {
    /// Those of links.
    pub fn of_links(&mut self, passed: Vec<Passed>) {
        self.passed = passed.into_iter().map(|it| (it.index, it)).collect();
    }

    /// Those of policies.
    pub fn of_policies(&mut self, counted: Vec<Counted>) {
        for Counted { address, allowed, packets, bytes } in counted {
            add(self.verdicts.entry((address, allowed)).or_default(), (packets, bytes));
        }
    }

    /// Those of ports.
    pub fn of_ports(&mut self, dropped: Vec<Dropped>) {
        for Dropped { tap, cause, packets } in dropped {
            let nic = self.dropped.entry(tap).or_default();
            match cause {
                Cause::Spoofed => nic.spoofed = Some(packets),
                Cause::Forged => nic.forged = Some(packets),
                Cause::Overrun => nic.overrun = Some(packets),
            }
        }
    }

    /// Takes those of an interface. What is counted for an address of several is the first one's.
    pub fn take(&mut self, nic: &Nic) -> NicNumbers {
        let passed = nic.ifindex.and_then(|index| self.passed.remove(&index));
        let dropped = self.dropped.remove(nic.tap.as_str()).unwrap_or_default();
        let mut numbers = NicNumbers { passed, ..dropped };
        for address in nic.all_addresses() {
            for (allowed, sum) in [(true, &mut numbers.allowed), (false, &mut numbers.denied)] {
                if let Some(counted) = self.verdicts.remove(&(address, allowed)) {
                    add(sum.get_or_insert_default(), counted);
                }
            }
        }
        numbers
    }
}

fn add(sum: &mut (u64, u64), (packets, bytes): (u64, u64)) {
    *sum = (sum.0 + packets, sum.1 + bytes);
}
