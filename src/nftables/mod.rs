//! The ruleset as messages of nf_tables, and back; without I/O.
//!
//! [`encode`] writes values of [`crate::plan::ruleset`], [`decode`] reads them back, and
//! [`userdata`] says how `nft` prints the keys of a set. [`accept`] does both for our rules in
//! chains of other programs, and [`filters`] reads the rules of other programs.

pub mod accept;
pub mod decode;
pub mod encode;
pub mod filters;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod userdata;

use crate::netlink::nft::{FAMILY_BRIDGE, FAMILY_IP, FAMILY_IP6};
use crate::plan::ruleset::Family;

/// The kernel's number of a family.
pub fn number(family: Family) -> u8 {
    match family {
        Family::Ip => FAMILY_IP,
        Family::Ip6 => FAMILY_IP6,
        Family::Bridge => FAMILY_BRIDGE,
    }
}
