//! `ip6 volnet`: IPv6 that is routed, and what of it is for the host.
//!
//! volnet gives no IPv6 addresses and routes nothing, but the host may, and has an address of its
//! own on each bridge. Guests that may speak IPv6 find there what their network lists, and beyond
//! that the neighbour discovery without which nobody is found. Those that may not are not heard on
//! the bridge ([`super::bridged`]), and if they are not held to that, not here either. Without a
//! network that has IPv6 there is no look at connections, for the sake of the host's own traffic.

use super::{
    Family, Hook, ICMP6, Match, NetworkConfig, PRIORITY_FILTER, PacketField, Rule, TABLE, Table,
    Verdict, filter, from_elsewhere, is, is_service, keep_apart, rule, shared_sets, within,
};

/// Types of ICMPv6 (RFC 4443): echo request.
const ECHO: u64 = 128;
/// Multicast listeners report and leave (RFC 2710, RFC 3810), which is for the bridge to hear;
/// neighbours are asked for and answer (RFC 4861).
const NEIGHBOURLY: [u64; 5] = [131, 132, 143, 135, 136];

pub(super) fn table(networks: &[&NetworkConfig], owned: bool) -> Table {
    let spoken = networks.iter().any(|network| network.ipv6);
    let established = || spoken.then(|| rule([Match::Established], Verdict::Accept)).into_iter();
    let mut input = vec![rule([from_elsewhere(networks)], Verdict::Accept)];
    input.extend(established());
    if spoken {
        input.extend(answered());
    }
    input.push(rule([], Verdict::Drop));
    Table {
        family: Family::Ip6,
        name: TABLE,
        owned,
        sets: shared_sets(networks),
        chains: vec![
            filter(
                "forward",
                Hook::Forward,
                PRIORITY_FILTER,
                established().chain(keep_apart()).collect(),
            ),
            filter("input", Hook::Input, PRIORITY_FILTER, input),
        ],
    }
}

fn answered() -> impl Iterator<Item = Rule> {
    let icmp = |kind| [ICMP6, is(PacketField::Icmp6Type, kind)];
    let neighbours = NEIGHBOURLY.map(|kind| rule(icmp(kind), Verdict::Accept));
    let [icmp6, echo] = icmp(ECHO);
    let ping = rule([icmp6, echo, within(&[PacketField::InLink], "pings")], Verdict::Accept);
    neighbours.into_iter().chain([ping, rule([is_service()], Verdict::Accept)])
}
