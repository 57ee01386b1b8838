//! What a kernel can do of what volnet uses where it can.
//!
//! It is asked by requests that change nothing, never told by a version: distributions carry
//! changes back, and build kernels without parts. Where a feature is missing, volnet does the same
//! in another way; where there is none, it refuses what needs the feature before anything is made.

use crate::model::error::Refusal;
use crate::plan::op::{Op, Plan};
use crate::plan::ruleset::Family;

/// What a kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Tables that only their owner can change, and that outlive the owner (Linux 6.9).
    pub owned_tables: bool,
    /// Rules for bridged frames (CONFIG_NF_TABLES_BRIDGE).
    pub bridge_rules: bool,
    /// Limits of what a link sends (the module sch_tbf).
    pub token_buckets: bool,
    /// Tracked connections can be deleted (the module nf_conntrack_netlink).
    pub connections: bool,
    /// They can be deleted by a filter (Linux 6.12).
    pub connection_filter: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Features = Features {
        owned_tables: true,
        bridge_rules: true,
        token_buckets: true,
        connections: true,
        connection_filter: true,
    };

    /// What is missing and what that means, in words.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = [
            (
                self.owned_tables,
                "no owned tables: others can change our rules; volnet repairs them",
            ),
            (self.bridge_rules, "no rules for bridges: guests cannot be held to their addresses"),
            (self.token_buckets, "no token buckets: what guests receive cannot be limited"),
            (
                self.connections,
                "no deletion of connections: those of a deleted VM outlive it until they time out",
            ),
            (
                self.connection_filter || !self.connections,
                "no filter for connections: to delete those of a VM takes longer",
            ),
        ];
        all.into_iter().filter(|(there, _)| !there).map(|(_, words)| words).collect()
    }

    /// Why a plan cannot be done at all on such a kernel.
    pub fn refusal(&self, plan: &[Op]) -> Option<Refusal> {
        plan.iter().find_map(|op| self.refusal_of(op))
    }

    /// Takes out of a plan what cannot be done at all on such a kernel. Gives why, if there is
    /// such.
    pub fn restrict(&self, plan: &mut Plan) -> Option<Refusal> {
        let refusal = self.refusal(plan);
        plan.retain(|op| self.refusal_of(op).is_none());
        refusal
    }

    fn refusal_of(&self, op: &Op) -> Option<Refusal> {
        let (field, reason) = match op {
            Op::CreateTable(table) | Op::ReplaceTable(table)
                if table.family == Family::Bridge && !self.bridge_rules =>
            {
                (
                    "networks",
                    "the kernel has no nf_tables rules for bridges (CONFIG_NF_TABLES_BRIDGE), so \
                     guests cannot be held to their addresses; set antispoof of every network to \
                     false",
                )
            }
            Op::ShapeLink { to: Some(_), .. } if !self.token_buckets => (
                "network.rx_mbit",
                "the kernel has no token buckets (the module sch_tbf), so what a guest receives \
                 cannot be limited",
            ),
            _ => return None,
        };
        Some(Refusal::InvalidConfig { field: field.into(), reason: reason.into() })
    }
}

impl Default for Features {
    fn default() -> Features {
        Features::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_feature_is_told_once() {
        assert_eq!(Features::ALL.missing(), [] as [&str; 0]);
        let none = Features {
            owned_tables: false,
            bridge_rules: false,
            token_buckets: false,
            connections: false,
            connection_filter: false,
        };
        assert_eq!(none.missing().len(), 4, "without connections there is nothing to filter");
        let old = Features { owned_tables: false, connection_filter: false, ..Features::ALL };
        assert!(old.missing()[0].starts_with("no owned tables"));
        assert_eq!(old.missing().len(), 2);
    }
}
