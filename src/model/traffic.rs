//! The traffic of an interface: what its guest may send, how much, and to whom.
//!
//! A [`Traffic`] is what is said: of a network by the settings, of an interface by the request for
//! its VM, and of the interface again if that was changed since. [`InForce`] merges these. What
//! nobody says has its default there.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::policy::OPEN;

/// Why a guest cannot have what needs rules for bridges.
pub const UNGUARDED: &str = "it needs a network with antispoof, and this host has none";

/// What is said of the traffic of an interface; `None`, or no limit: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// The name of the policy for traffic beyond the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How much the guest may receive and send.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Whether it is kept from other isolated interfaces of its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Whether the guest may use only its own addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub antispoof: Option<bool>,
}

/// The traffic of an interface, or of an interface of which nothing is said, as it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    /// The name of the policy for traffic beyond the network.
    pub policy: &'a str,
    /// How much the guest may receive and send.
    pub limits: Limits,
    /// Whether it is kept from other isolated interfaces of its network.
    pub isolated: bool,
    /// Whether the guest may use only its own addresses.
    pub antispoof: bool,
}

impl Traffic {
    /// The first field of which something is said, by its name in documents.
    pub fn named(&self) -> Option<&'static str> {
        let Traffic { policy, limits, isolated, antispoof } = self;
        let fields = [
            ("policy", policy.is_some()),
            ("limits", !limits.is_empty()),
            ("isolated", isolated.is_some()),
            ("antispoof", antispoof.is_some()),
        ];
        fields.into_iter().find(|(_, named)| *named).map(|(name, _)| name)
    }

    /// The first field that needs rules for bridges, by its path in documents. Without them, guests
    /// reach each other by the gateway, and nothing counts what they send.
    pub fn needs_guard(&self) -> Option<&'static str> {
        let isolated = (self.isolated == Some(true)).then_some("isolated");
        let antispoof = (self.antispoof == Some(true)).then_some("antispoof");
        isolated.or(antispoof).or(self.limits.of_sending())
    }
}

impl From<Limits> for Traffic {
    fn from(limits: Limits) -> Traffic {
        Traffic { limits, ..Traffic::default() }
    }
}

impl<'a> InForce<'a> {
    /// Merges what is said: the first that says something of a field counts.
    pub fn of<const N: usize>(said: [&'a Traffic; N]) -> InForce<'a> {
        let limits = said.iter().fold(Limits::default(), |limits, one| limits.or(one.limits));
        InForce {
            policy: said.iter().find_map(|one| one.policy.as_deref()).unwrap_or(OPEN),
            limits,
            isolated: said.iter().find_map(|one| one.isolated).unwrap_or(false),
            antispoof: said.iter().find_map(|one| one.antispoof).unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_counts_field_by_field() {
        let network = Traffic {
            policy: Some("internet".into()),
            limits: Limits { rx_mbit: Some(100), tx_mbit: Some(50), ..Limits::default() },
            isolated: Some(true),
            antispoof: Some(false),
        };
        let nothing = Traffic::default();
        let whole = InForce::of([&nothing, &network]);
        assert_eq!(whole, InForce::of([&network]));
        assert_eq!((whole.policy, whole.isolated, whole.antispoof), ("internet", true, false));
        let vm = Traffic {
            limits: Limits { rx_mbit: Some(10), ..Limits::default() },
            isolated: Some(false),
            ..Traffic::default()
        };
        let both = InForce::of([&vm, &network]);
        assert_eq!((both.limits.rx_mbit, both.limits.tx_mbit), (Some(10), Some(50)));
        assert_eq!((both.policy, both.isolated), ("internet", false));
        let default = InForce::of([&nothing]);
        assert_eq!((default.policy, default.isolated, default.antispoof), (OPEN, false, true));
    }

    #[test]
    fn what_needs_rules_for_bridges_is_named() {
        let of = |traffic: Traffic| (traffic.named(), traffic.needs_guard());
        let nothing = Traffic::default();
        assert_eq!(of(nothing.clone()), (None, None));
        let apart = Traffic { isolated: Some(true), ..nothing.clone() };
        assert_eq!(of(apart), (Some("isolated"), Some("isolated")));
        let free = Traffic { antispoof: Some(false), ..nothing.clone() };
        assert_eq!(of(free), (Some("antispoof"), None));
        let limits = Limits { pps: Some(9), ..Limits::default() };
        assert_eq!(of(Traffic { limits, ..nothing }), (Some("limits"), Some("limits.pps")));
    }
}
