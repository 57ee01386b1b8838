//! Commands that do the same as an Op, for people to read and for `sh` to run.
//!
//! They use ip(8), tc(8), nft(8), sysctl(8) and conntrack(8). Each command is one element of the
//! list; one for nft may have several lines. Commands cannot do two things: give a tap its alias
//! while it is made, and own tables. The inner end of a veth is set by nsenter(1).

use super::{
    Filtered, GuestRoute, InnerLink, InnerTap, LinkSettings, Op, PortSettings, ROUTE_PROTOCOL,
    table_name,
};
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::plan::ruleset::text;
use crate::plan::ruleset::{Accept, Direction};

/// The family and table of other programs' chains.
const FILTER: &str = "filter";
/// The handle of our queueing discipline.
const SHAPED: &str = "766f";

impl Op {
    /// The commands that do the same as this Op.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Op::CreateBridge { name, mac, mtu, alias } => {
                let (name, alias) = (quoted(name), quoted(alias));
                vec![
                    format!("ip link add name {name} address {mac} type bridge mcast_snooping 0"),
                    // Only an MTU that was set stays; otherwise the bridge follows its lowest port.
                    format!("ip link set dev {name} mtu {}", mtu - 1),
                    format!("ip link set dev {name} mtu {mtu} alias {alias}"),
                ]
            }
            Op::CreateTap { name, owner, multi_queue, alias } => {
                let (name, alias) = (quoted(name), quoted(alias));
                let owner = owner.map_or(String::new(), |owner| format!(" user {owner}"));
                let queues = if *multi_queue { " multi_queue" } else { "" };
                vec![
                    format!("ip tuntap add dev {name} mode tap{owner} vnet_hdr{queues}"),
                    format!("ip link set dev {name} alias {alias}"),
                ]
            }
            Op::CreateVeth { name, mac, mtu, alias, inner } => {
                veth(&quoted(name), *mac, *mtu, &quoted(alias), inner)
            }
            Op::SetLink { name, set, .. } => settings(&quoted(name), set),
            Op::ShapeLink { name, to, .. } => vec![shape(&quoted(name), *to)],
            Op::DeleteLink { name, .. } => vec![format!("ip link delete dev {}", quoted(name))],
            Op::AddAddress { link, address, length } => {
                let nodad = if address.is_ipv6() { " nodad" } else { "" };
                vec![format!("ip address add {address}/{length} dev {}{nodad}", quoted(link))]
            }
            Op::RemoveAddress { link, address, length } => {
                vec![format!("ip address delete {address}/{length} dev {}", quoted(link))]
            }
            Op::AddRoute(GuestRoute { link, to, mtu }) => {
                let link = quoted(link);
                vec![format!("ip route replace {to} dev {link} mtu {mtu} proto {ROUTE_PROTOCOL}")]
            }
            Op::RemoveRoute(GuestRoute { link, to, .. }) => {
                let link = quoted(link);
                vec![if_there(&format!("ip route delete {to} dev {link} proto {ROUTE_PROTOCOL}"))]
            }
            Op::SetForwarding { on } => {
                vec![format!("sysctl -q -w net.ipv4.ip_forward={}", u8::from(*on))]
            }
            // With dots, the name of a link may have none: sysctl(8) takes slashes, too.
            Op::SetSwitch { switch, to, .. } => {
                vec![format!("sysctl -q -w {}={to}", quoted(&switch.path()))]
            }
            Op::CreateTable(table) => vec![nft(&text::create_table(table))],
            Op::ReplaceTable(table) => vec![nft(&text::replace_table(table))],
            Op::RemoveTable { family, name } => vec![nft(&text::remove_table(*family, name))],
            Op::AddElements(elements) => vec![nft(&text::add_elements(elements))],
            Op::RemoveElements(elements) => vec![nft(&text::remove_elements(elements))],
            Op::ExchangeElements { gone, new } => {
                let parts = [text::remove_elements(gone), text::add_elements(new)];
                vec![nft(&parts.join("\n"))]
            }
            Op::AddAccept(accept) => {
                let (table, rule) = (table_name(accept.family, FILTER), accept_rule(accept));
                vec![nft(&format!("insert rule {table} {} {rule}", accept.chain))]
            }
            Op::RemoveAccept(accept) => vec![remove_accept(accept)],
            Op::ForgetAddress { link, address, .. } => vec![
                if_there(&format!("ip neighbour delete {address} dev {}", quoted(link))),
                if_there(&format!("conntrack -D -s {address}")),
                if_there(&format!("conntrack -D -r {address}")),
            ],
            Op::ForgetFlows { protocol, host_port, address, port } => vec![if_there(&format!(
                "conntrack -D -p {protocol} --orig-port-dst {host_port} -r {address} \
                 --reply-port-src {port}"
            ))],
        }
    }
}

/// The pair, with its inner end complete. A default route may be there already.
fn veth(name: &str, mac: Mac, mtu: u16, alias: &str, inner: &InnerLink) -> Vec<String> {
    let (netns, inside) = (quoted(&inner.netns), quoted(&inner.name));
    let enter = format!("nsenter --net={netns} ip");
    let mut commands = vec![
        format!(
            "ip link add name {name} address {mac} mtu {mtu} type veth \
             peer name {inside} address {} mtu {mtu} netns {netns}",
            inner.mac
        ),
        format!("ip link set dev {name} addrgenmode none"),
        format!("{enter} link set dev {inside} addrgenmode none"),
    ];
    for (address, length) in &inner.addresses {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        commands.push(format!("{enter} address add {address}/{length} dev {inside}{nodad}"));
    }
    commands.push(format!("{enter} link set dev {inside} alias {alias} up"));
    if let Some(tap) = &inner.tap {
        commands.extend(redirects(&netns, &inside, tap, mtu, alias));
    }
    for gateway in &inner.gateways {
        let family = if gateway.is_ipv6() { "-6 " } else { "" };
        let route = format!("{family}route add default via {gateway} dev {inside}");
        commands.push(if_there(&format!("{enter} {route}")));
    }
    commands.push(format!("ip link set dev {name} alias {alias}"));
    commands
}

/// The tap inside, and the redirects between it and the link.
fn redirects(netns: &str, link: &str, tap: &InnerTap, mtu: u16, alias: &str) -> Vec<String> {
    let enter = format!("nsenter --net={netns}");
    let (name, owner) = (quoted(&tap.name), tap.owner);
    let mut commands = vec![
        format!("{enter} ip tuntap add dev {name} mode tap user {owner} vnet_hdr"),
        format!("{enter} ip link set dev {name} addrgenmode none"),
        format!("{enter} ip link set dev {name} mtu {mtu} alias {alias} up"),
    ];
    for (from, to) in [(name.as_str(), link), (link, name.as_str())] {
        commands.push(format!("{enter} tc qdisc add dev {from} ingress"));
        commands.push(format!(
            "{enter} tc filter add dev {from} parent ffff: protocol all prio 1 u32 \
             match u32 0 0 action mirred egress redirect dev {to}"
        ));
    }
    commands
}

/// At most four commands: the settings before the link comes up, the link's settings, and its
/// settings as a bridge and as a port.
fn settings(name: &str, set: &LinkSettings) -> Vec<String> {
    let mut words = String::new();
    match &set.master {
        Some(Some(bridge)) => words.push_str(&format!(" master {}", quoted(bridge))),
        Some(None) => words.push_str(" nomaster"),
        None => {}
    }
    if let Some(mtu) = set.mtu {
        words.push_str(&format!(" mtu {mtu}"));
    }
    if let Some(mac) = set.mac {
        words.push_str(&format!(" address {mac}"));
    }
    if let Some(alias) = &set.alias {
        words.push_str(&format!(" alias {}", quoted(alias)));
    }
    if let Some(up) = set.up {
        words.push_str(if up { " up" } else { " down" });
    }
    let mut commands = Vec::new();
    if set.no_ipv6 {
        commands.push(format!("ip link set dev {name} addrgenmode none"));
    }
    if !words.is_empty() {
        commands.push(format!("ip link set dev {name}{words}"));
    }
    if let Some(snooping) = set.snooping {
        let snooping = u8::from(snooping);
        commands.push(format!("ip link set dev {name} type bridge mcast_snooping {snooping}"));
    }
    if let Some(Filtered { ipv4, ipv6 }) = set.filtered {
        let (ipv4, ipv6) = (u8::from(ipv4), u8::from(ipv6));
        commands.push(format!(
            "ip link set dev {name} type bridge nf_call_iptables {ipv4} nf_call_ip6tables {ipv6}"
        ));
    }
    if let Some(PortSettings { isolated, hairpin, group_forward }) = set.port {
        let [isolated, hairpin] = [isolated, hairpin].map(|on| if on { "on" } else { "off" });
        commands.push(format!(
            "ip link set dev {name} type bridge_slave isolated {isolated} \
             hairpin {hairpin} group_fwd_mask {group_forward}"
        ));
    }
    commands
}

/// The handle marks it as ours. `bps` in tc means bytes a second.
fn shape(name: &str, to: Option<Shaping>) -> String {
    match to {
        Some(Shaping { rate, burst_kb, queue }) => format!(
            "tc qdisc replace dev {name} root handle {SHAPED}: tbf rate {rate}bps \
             burst {burst_kb}kb limit {queue}b"
        ),
        None => if_there(&format!("tc qdisc delete dev {name} root")),
    }
}

fn accept_rule(accept: &Accept) -> String {
    let direction = match accept.direction {
        Direction::In => "iifname",
        Direction::Out => "oifname",
    };
    format!("{direction} \"{}\" accept comment \"volnet\"", accept.bridge)
}

/// nft deletes rules only by handle, so the command asks for the handles first.
fn remove_accept(accept: &Accept) -> String {
    let rule = accept_rule(accept).replace('.', "\\.");
    let (chain, find) = (quoted(&accept.chain), quoted(&format!("/{rule}/s/.*# handle //p")));
    let table = table_name(accept.family, FILTER);
    format!(
        "nft -a list chain {table} {chain} | sed -n {find} | \
         xargs -r -n1 nft delete rule {table} {chain} handle"
    )
}

/// A command that deletes an object that may be absent. For ip and conntrack that is a failure.
fn if_there(command: &str) -> String {
    format!("{command} >/dev/null 2>&1 || :")
}

fn nft(script: &str) -> String {
    format!("nft {}", quoted(script))
}

/// A word quoted for `sh`.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:,@%+=".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests;
