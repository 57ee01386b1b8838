//! `ip6 volnet`: IPv6 packets that are routed, and those to the host.
//!
//! volnet gives no IPv6 addresses and routes nothing. But the host may do so, and it has an address
//! on each bridge. Guests that may speak IPv6 reach the services there that their network lists,
//! and neighbour discovery. Frames of other guests are dropped on the bridge ([`super::bridged`]),
//! or here if that table does not check them. If no network has IPv6, no rule looks at connections,
//! which spares the host's own traffic.

use super::{
    Family, Hook, ICMP6, Match, NetworkConfig, PRIORITY_FILTER, PacketField, Rule, TABLE, Table,
    Verdict, filter, from_elsewhere, is, is_service, keep_apart, policies, rule, shared_sets,
    within,
};
use crate::model::policy::Policy;

/// Types of ICMPv6 (RFC 4443): echo request.
const ECHO: u64 = 128;
/// Multicast listeners report and leave (RFC 2710, RFC 3810), for the bridge; neighbour
/// solicitation and advertisement (RFC 4861).
const NEIGHBOURLY: [u64; 5] = [131, 132, 143, 135, 136];

pub(super) fn table(networks: &[&NetworkConfig], policies: &[Policy], owned: bool) -> Table {
    let spoken = networks.iter().any(|network| network.ipv6);
    let established = || spoken.then(|| rule([Match::Established], Verdict::Accept)).into_iter();
    let mut input = vec![rule([from_elsewhere(networks)], Verdict::Accept)];
    input.extend(established());
    if spoken {
        input.extend(answered());
    }
    input.push(rule([], Verdict::Drop));
    let mut sets = shared_sets(networks);
    sets.extend(policies::sets(policies::IPV6, networks, policies));
    let forward = established().chain(keep_apart()).collect();
    let mut chains = vec![
        filter("forward", Hook::Forward, PRIORITY_FILTER, forward),
        filter("input", Hook::Input, PRIORITY_FILTER, input),
    ];
    chains.extend(spoken.then(|| policies::chain(policies::IPV6, policies)));
    Table { family: Family::Ip6, name: TABLE, owned, sets, chains }
}

fn answered() -> impl Iterator<Item = Rule> {
    let icmp = |kind| [ICMP6, is(PacketField::Icmp6Type, kind)];
    let neighbours = NEIGHBOURLY.map(|kind| rule(icmp(kind), Verdict::Accept));
    let [icmp6, echo] = icmp(ECHO);
    let ping = rule([icmp6, echo, within(&[PacketField::InLink], "pings")], Verdict::Accept);
    neighbours.into_iter().chain([ping, rule([is_service()], Verdict::Accept)])
}
