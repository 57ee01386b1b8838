//! `ip volnet`: what is routed.
//!
//! What guests of a NATed network send elsewhere is masqueraded, and nothing that begins outside is
//! forwarded to them. A network ends at its bridge: what begins on one of ours is not forwarded to
//! another. Nor is it forwarded to the link-local prefix, where the clouds hand out a host's
//! credentials to whoever asks from it (169.254.169.254): masqueraded, a guest would be the host.
//!
//! Where the host sends bridged frames through these rules too (`bridge-nf-call-iptables`), frames
//! within a network are seen here as coming in and leaving by the same bridge, and pass.

use super::{
    Chain, ChainKind, Family, Field, Hook, Match, NetworkConfig, PacketField, TABLE, Table,
    Verdict, bridge, outside, prefixes, rule, set, within,
};

/// `NF_IP_PRI_NAT_SRC` (linux/netfilter_ipv4.h).
const PRIORITY_SOURCE_NAT: i32 = 100;
/// `NF_IP_PRI_FILTER` (linux/netfilter_ipv4.h).
const PRIORITY_FILTER: i32 = 0;
/// 169.254.0.0/16 (RFC 3927): address and mask.
const LINK_LOCAL: (u64, u64) = (0xa9fe_0000, 0xffff_0000);

pub(super) fn table(networks: &[&NetworkConfig], owned: bool) -> Table {
    use PacketField::{InLink, IpDestination, IpSource, OutLink};
    let all = || networks.iter().copied();
    let nat = || all().filter(|network| network.nat);
    let link_local =
        Match::Is { field: IpDestination, mask: Some(LINK_LOCAL.1), value: LINK_LOCAL.0 };
    let postrouting = vec![rule(
        [within(&[IpSource], "subnets"), outside(&[OutLink], "bridges")],
        Verdict::Masquerade,
    )];
    let forward = vec![
        rule([Match::Established], Verdict::Accept),
        rule([within(&[InLink], "bridges"), link_local], Verdict::Drop),
        rule(
            [
                within(&[InLink], "bridges"),
                within(&[OutLink], "bridges"),
                outside(&[InLink, OutLink], "within"),
            ],
            Verdict::Drop,
        ),
        rule([within(&[OutLink], "natted"), outside(&[InLink], "bridges")], Verdict::Drop),
    ];
    Table {
        family: Family::Ip,
        name: TABLE,
        owned,
        sets: vec![
            set("bridges", &[Field::Link], all().map(|network| vec![bridge(network)]).collect()),
            set(
                "within",
                &[Field::Link, Field::Link],
                all().map(|network| vec![bridge(network), bridge(network)]).collect(),
            ),
            set("natted", &[Field::Link], nat().map(|network| vec![bridge(network)]).collect()),
            prefixes("subnets", nat()),
        ],
        chains: vec![
            Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: PRIORITY_SOURCE_NAT,
                rules: postrouting,
            },
            Chain {
                name: "forward",
                kind: ChainKind::Filter,
                hook: Hook::Forward,
                priority: PRIORITY_FILTER,
                rules: forward,
            },
        ],
    }
}
