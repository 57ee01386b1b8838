//! The kinds of link by which a NIC is joined to its bridge.
//!
//! This is the one place where a kind says how its link is made, known again and removed. All else
//! (the bridge, settings, limits, rules) is the same for each kind.

use super::{ALIAS, Link, LinkKind};
use crate::plan::op::Op;

/// A kind of link, with what is fixed when the link is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicKind {
    /// A persistent TAP device with vnet_hdr, which a hypervisor opens.
    Tap {
        /// It can have more than one queue.
        multi_queue: bool,
        /// The user who may open it; `None`: anyone.
        owner: Option<u32>,
    },
}

impl NicKind {
    /// Makes the link.
    pub(super) fn make(self, name: String, alias: String) -> Op {
        match self {
            NicKind::Tap { multi_queue, owner } => {
                Op::CreateTap { name, owner, multi_queue, alias }
            }
        }
    }

    /// Whether a link of the kernel was made as this one would be. If not, it has to be made anew.
    pub(super) fn fits(self, link: LinkKind) -> bool {
        match (self, link) {
            (
                NicKind::Tap { multi_queue, owner },
                LinkKind::Tap { vnet_hdr: true, multi_queue: is, persistent: true, owner: by },
            ) => (multi_queue, owner) == (is, by),
            (NicKind::Tap { .. }, LinkKind::Tap { .. } | LinkKind::Bridge | LinkKind::Other) => {
                false
            }
        }
    }

    /// Whether an open link has more than one queue.
    pub fn is_multi_queue(self) -> bool {
        match self {
            NicKind::Tap { multi_queue, .. } => multi_queue,
        }
    }
}

impl LinkKind {
    /// Whether links of NICs are of this kind.
    pub(super) fn is_of_nics(self) -> bool {
        match self {
            LinkKind::Tap { .. } => true,
            LinkKind::Bridge | LinkKind::Other => false,
        }
    }
}

impl Link {
    /// Whether it is the link of a NIC that volnet made.
    pub fn is_of_nic(&self) -> bool {
        self.nic().is_some()
    }

    /// The NIC that such a link is marked with: `web`, `web/1`.
    pub fn nic(&self) -> Option<&str> {
        let nic = self.alias.as_deref()?.strip_prefix(ALIAS)?;
        (self.kind.is_of_nics() && !nic.is_empty()).then_some(nic)
    }

    /// Whether it is the link of a NIC that volnet was about to remove: its alias has no VM.
    pub fn is_retired(&self) -> bool {
        self.kind.is_of_nics() && self.alias.as_deref() == Some(ALIAS)
    }
}

/// The name of the link that an Op makes for a NIC, and the name of that NIC.
pub fn made(op: &Op) -> Option<(&str, &str)> {
    match op {
        Op::CreateTap { name, alias, .. } => Some((name, alias.strip_prefix(ALIAS)?)),
        _ => None,
    }
}

/// Removes the link, if it has both the name and the index.
pub fn remove(name: &str, index: u32) -> Op {
    Op::DeleteLink { name: name.to_string(), index: Some(index) }
}
