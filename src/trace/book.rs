//! What rules say and whose they are: ours in words, those of others by table, chain and number.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Place;
use super::flow::{Flow, What};
use crate::model::net::NetworkConfig;
use crate::model::view::TraceEnd;
use crate::plan::ruleset::{Family, TABLE, Table, words};

/// What is said of a packet that is in no later chain, whatever the reason.
pub(super) const NOWHERE: &str = "and it went nowhere: the host has no way there, the packet is \
     too long, or there is no room for one more connection (see volnet doctor)";

/// The base chains, each with whether packets meet it before it is known where they go.
pub type Chains = BTreeMap<(&'static str, String, String), bool>;
/// The tags of rules.
pub type Rules = BTreeMap<Place, u64>;

/// What is known of the rules of the host, and of the networks of the guest that is traced.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// The base chains of all tables.
    pub chains: Chains,
    /// Our rules.
    pub rules: Rules,
    /// Our tables.
    pub tables: Vec<Table>,
    /// The networks of the guest, each with whether it is isolated there.
    pub networks: Vec<(NetworkConfig, bool)>,
}

impl Book {
    /// What a rule, or the policy of a chain, says, and whose it is.
    pub fn words(&self, place: &Place) -> String {
        let Place { family, table, chain, rule } = place;
        let of = match *family {
            "bridge" => Some(Family::Bridge),
            "ip" => Some(Family::Ip),
            "ip6" => Some(Family::Ip6),
            _ => None,
        };
        let tag = self.rules.get(place).copied();
        if let Some((of, tag)) = of.filter(|_| table == TABLE).zip(tag) {
            if let Some(words) = words::of(&self.tables, of, chain, tag) {
                return words;
            }
        }
        let owner = owner(table, chain).map_or(String::new(), |owner| format!(" ({owner})"));
        match rule {
            Some(handle) => {
                format!("rule {handle} in chain {chain} of table {family} {table}{owner}")
            }
            None => format!("the policy of chain {chain} of table {family} {table}{owner}"),
        }
    }

    /// Whether packets meet a chain before it is known where they go. A chain without a hook is
    /// taken for one that they meet later.
    pub fn is_before_routing(&self, place: &Place) -> bool {
        let key = (place.family, place.table.clone(), place.chain.clone());
        self.chains.get(&key).copied().unwrap_or(false)
    }

    /// The last word about a packet that no rule dropped, and that is in no later chain either.
    pub fn lost(&self, flow: &Flow) -> (TraceEnd, String) {
        let within = self.networks.iter().find(|(network, _)| {
            flow.to.is_some_and(|to| network.contains(to) && !network.is_host(to))
        });
        let host = |to: IpAddr| self.networks.iter().any(|(network, _)| network.is_host(to));
        match (within, flow.what) {
            (Some((network, true)), _) => (
                TraceEnd::Lost,
                format!(
                    "it stayed on {}, which gives isolated guests nothing of each other",
                    network.bridge
                ),
            ),
            (Some((network, false)), What::Arp) => {
                (TraceEnd::Unanswered, format!("nobody on {} has the address", network.bridge))
            }
            (Some((network, false)), _) => (
                TraceEnd::Unanswered,
                format!("it was given to {}, and no answer came to the guest", network.bridge),
            ),
            (None, _) if flow.to.is_some_and(host) => {
                (TraceEnd::Unanswered, "it came to the host, and no answer came from it".into())
            }
            (None, _) => (TraceEnd::Lost, format!("no rule dropped it, {NOWHERE}")),
        }
    }
}

/// Whose a table or a chain is, by their names.
fn owner(table: &str, chain: &str) -> Option<&'static str> {
    match (table, chain) {
        (table, _) if table.starts_with("firewalld") => Some("firewalld"),
        (_, chain) if chain.starts_with("ufw") => Some("ufw"),
        (table, chain) if table.starts_with("docker") || chain.starts_with("DOCKER") => {
            Some("Docker")
        }
        (_, chain) if chain.starts_with("KUBE") => Some("Kubernetes"),
        (_, chain) if chain.starts_with("LIBVIRT") => Some("libvirt"),
        ("filter" | "nat" | "mangle" | "raw" | "security", chain)
            if chain.chars().all(|letter| letter.is_ascii_uppercase()) =>
        {
            Some("iptables")
        }
        _ => None,
    }
}
