//! nf_tables over nfnetlink (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h).
//!
//! Changes travel in a batch: [`batch`] frames it, [`object`] writes and reads tables, chains, sets
//! and rules, [`element`] what is in a set, [`expression`] what a rule does, [`limit`] how much may
//! pass. [`notice`] and [`trace`] are what comes unasked. Integers are in network order, but for
//! those that stand for a host's own value in a register.

pub mod batch;
pub mod element;
pub mod expression;
pub mod limit;
pub mod notice;
pub mod object;
pub mod trace;

use super::Error;
use super::message::array_at;
use super::writer::{Open, Writer};

/// Bytes of `struct nfgenmsg`: family, version, resource id.
pub const HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

// NFPROTO_*: linux/netfilter.h.
/// Every family.
pub const FAMILY_ANY: u8 = 0;
/// IPv4 and IPv6 together.
pub const FAMILY_INET: u8 = 1;
/// IPv4.
pub const FAMILY_IP: u8 = 2;
/// IPv6.
pub const FAMILY_IP6: u8 = 10;
/// Frames on a bridge.
pub const FAMILY_BRIDGE: u8 = 7;

/// `NFT_MSG_*`: what a message does or tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewSetElem = 12,
    GetSetElem = 13,
    DelSetElem = 14,
    NewGen = 15,
}

impl Kind {
    /// The message type.
    pub const fn message(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Begins a message of nf_tables.
pub(super) fn begin(
    writer: &mut Writer,
    kind: Kind,
    flags: u16,
    sequence: u32,
    family: u8,
) -> Open {
    let open = writer.message(kind.message(), flags, sequence);
    writer.raw(&[family, 0, 0, 0]);
    open
}

/// The family of a message, and its attributes' bytes.
pub(super) fn split(payload: &[u8]) -> Result<(u8, &[u8]), Error> {
    let [family, ..] = array_at::<HEADER>(payload, 0)?;
    Ok((family, &payload[HEADER..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::same;

    #[test]
    fn numbers_are_the_kernels() {
        same! {
            SUBSYSTEM => libc::NFNL_SUBSYS_NFTABLES,
            FAMILY_ANY => libc::NFPROTO_UNSPEC,
            FAMILY_INET => libc::NFPROTO_INET,
            FAMILY_IP => libc::NFPROTO_IPV4,
            FAMILY_IP6 => libc::NFPROTO_IPV6,
            FAMILY_BRIDGE => libc::NFPROTO_BRIDGE,
            Kind::NewTable => libc::NFT_MSG_NEWTABLE,
            Kind::GetTable => libc::NFT_MSG_GETTABLE,
            Kind::DelTable => libc::NFT_MSG_DELTABLE,
            Kind::NewChain => libc::NFT_MSG_NEWCHAIN,
            Kind::GetChain => libc::NFT_MSG_GETCHAIN,
            Kind::NewRule => libc::NFT_MSG_NEWRULE,
            Kind::GetRule => libc::NFT_MSG_GETRULE,
            Kind::DelRule => libc::NFT_MSG_DELRULE,
            Kind::NewSet => libc::NFT_MSG_NEWSET,
            Kind::GetSet => libc::NFT_MSG_GETSET,
            Kind::NewSetElem => libc::NFT_MSG_NEWSETELEM,
            Kind::GetSetElem => libc::NFT_MSG_GETSETELEM,
            Kind::DelSetElem => libc::NFT_MSG_DELSETELEM,
            Kind::NewGen => libc::NFT_MSG_NEWGEN,
            notice::GROUP => libc::NFNLGRP_NFTABLES,
            trace::GROUP => libc::NFNLGRP_NFTRACE,
            trace::TRACE & 0xff => libc::NFT_MSG_TRACE,
            element::INTERVAL_END => libc::NFT_SET_ELEM_INTERVAL_END,
        }
    }
}
