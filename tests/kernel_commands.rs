//! The commands of a plan do the same as the plan: `sh` runs them in an empty namespace, and `ip`
//! and `nft` read back.

mod common;

use std::process::Command;

use common::room::Room;
use common::{in_namespace, ip_link, json, link_exists, run};
use serde_json::{Value as Json, json};
use volnet::model::limits::Rate;
use volnet::model::mac::Mac;
use volnet::model::name::{TapName, VmName};
use volnet::model::net::NetworkConfig;
use volnet::model::nic::{Nic, NicName};
use volnet::model::spec::NetworkSpec;
use volnet::model::traffic::Traffic;
use volnet::network::linux::redirect;
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::plan::op::{Handover, InnerLink, InnerTap, LinkSettings, Op};
use volnet::plan::reconcile::{DesiredPort, attach_plan, release_plan};
use volnet::plan::ruleset::{
    Accept, Bytes, Chain, ChainKind, Direction, Element, Family, Field, Hook, Layer, Match,
    PacketField, Rule, Set, SetKind, Table, Value, Verdict,
};

/// Runs commands as a person would who pastes them: each must succeed and say nothing.
fn sh(ops: &[Op]) {
    let script: Vec<String> = ops.iter().flat_map(Op::commands).collect();
    let script = script.join("\n");
    let output = Command::new("sh").args(["-e", "-c", &script]).output().expect("sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{script}");
}

fn network() -> NetworkConfig {
    NetworkConfig {
        mtu: 1400,
        traffic: Traffic { isolated: Some(true), ..Traffic::default() },
        ..NetworkConfig::sample("default", "vbr0", "192.168.127.0/24", "192.168.127.1")
    }
}

fn bridge(network: &NetworkConfig) -> Vec<Op> {
    let name = network.bridge.clone();
    let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
    vec![
        Op::CreateBridge {
            name: name.clone(),
            mac: network.mac,
            mtu: network.mtu,
            alias: "volnet:".into(),
        },
        Op::SetLink { name: name.clone(), set: up, former: LinkSettings::default() },
        Op::AddAddress { link: name, address: network.ipv4.unwrap().host.into(), length: 24 },
        Op::SetForwarding { on: true },
    ]
}

#[test]
fn links_are_made_changed_and_removed() {
    in_namespace(|| {
        let network = network();
        sh(&bridge(&network));
        let link = ip_link("vbr0");
        assert_eq!(link["address"], network.mac.to_string());
        assert_eq!((&link["mtu"], &link["ifalias"]), (&json!(1400), &json!("volnet:")));
        let address = &json("ip -j address show dev vbr0")[0]["addr_info"][0];
        assert_eq!(
            (&address["local"], &address["prefixlen"]),
            (&json!("192.168.127.1"), &json!(24))
        );
        assert_eq!(run("sysctl -n net.ipv4.ip_forward").trim(), "1");

        let vm = VmName::new("web-1").unwrap();
        let name = NicName { vm: &vm, index: 0 };
        let tap = TapName::choose(name, |_| false);
        let port = Nic {
            network: "default".into(),
            tap: tap.clone(),
            ifindex: None,
            mac: Mac::of_guest("default", "web-1"),
            ip: None,
            ip6: None,
            inner: None,
            claimed: Vec::new(),
            lease: None,
            exposed: Vec::new(),
            traffic: Traffic::default(),
        };
        let spec = NetworkSpec { queues: Some(2), ..NetworkSpec::default() };
        let port = DesiredPort::new(name, &port, &spec, &network, network.traffic());
        sh(&attach_plan(&[port], vec![], vec![]));
        let link = ip_link(tap.as_str());
        assert_eq!((&link["ifalias"], &link["master"]), (&json!("volnet:web-1"), &json!("vbr0")));
        assert_eq!((&link["mtu"], &link["inet6_addr_gen_mode"]), (&json!(1400), &json!("none")));
        assert!(link["flags"].as_array().unwrap().contains(&json!("UP")));
        let tun = &link["linkinfo"]["info_data"];
        let expected = json!({"vnet_hdr": true, "multi_queue": true, "persist": true, "pi": false});
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&tun[key], value, "{key}");
        }
        assert_eq!((&tun["type"], &tun["user"]), (&json!("tap"), &json!("root")));
        assert_eq!(link["linkinfo"]["info_slave_data"]["isolated"], true);

        let off = LinkSettings {
            master: Some(None),
            up: Some(false),
            mtu: Some(1280),
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            alias: Some("it's; \"$HOME\"".into()),
            ..LinkSettings::default()
        };
        let name = tap.to_string();
        sh(&[Op::SetLink { name, set: off, former: LinkSettings::default() }]);
        let link = ip_link(tap.as_str());
        assert_eq!((&link["ifalias"], &link["master"]), (&json!("it's; \"$HOME\""), &Json::Null));
        assert_eq!((&link["mtu"], &link["address"]), (&json!(1280), &json!("02:00:00:00:00:01")));

        let made =
            DesiredPort { index: link["ifindex"].as_u64().map(|index| index as u32), ..port };
        sh(&release_plan(&[made], vec![], vec![]));
        let undo: Vec<Op> = bridge(&network).iter().rev().filter_map(|op| op.undo(None)).collect();
        sh(&undo);
        assert!(!link_exists(tap.as_str()) && !link_exists("vbr0"));
        assert_eq!(run("sysctl -n net.ipv4.ip_forward").trim(), "0");
    });
}

#[test]
fn a_pair_of_links_is_made_whole_whatever_is_there_already() {
    in_namespace(|| {
        let rooms = [Room::new(), Room::new()];
        // A default route that is there stays.
        rooms[1].run("ip link add other type bridge");
        rooms[1].run("ip link set other up");
        rooms[1].run("ip route add default dev other");
        for (room, kept) in rooms.iter().zip([false, true]) {
            let inner = InnerLink {
                netns: room.netns(),
                name: "eth0".into(),
                mac: Mac::of_guest("default", "c1"),
                addresses: vec![([10, 9, 0, 2].into(), 24), ("fd00::2".parse().unwrap(), 64)],
                gateways: vec![[10, 9, 0, 1].into(), "fd00::1".parse().unwrap()],
                tap: None,
            };
            let mac = inner.mac.highest();
            let (name, alias) = ("vttap-c1".to_string(), "volnet:c1.eth0".to_string());
            sh(&[Op::CreateVeth { name, mac, mtu: 1400, alias, inner }]);
            let outer = ip_link("vttap-c1");
            assert_eq!(outer["address"], mac.to_string());
            assert_eq!(
                (&outer["mtu"], &outer["ifalias"], &outer["inet6_addr_gen_mode"]),
                (&json!(1400), &json!("volnet:c1.eth0"), &json!("none"))
            );
            let inside = &room.json("ip -j -d link show dev eth0")[0];
            assert_eq!(inside["address"], Mac::of_guest("default", "c1").to_string());
            assert_eq!(
                (&inside["mtu"], &inside["ifalias"], &inside["inet6_addr_gen_mode"]),
                (&json!(1400), &json!("volnet:c1.eth0"), &json!("none"))
            );
            let shown = room.json("ip -j address show dev eth0");
            let addresses = shown[0]["addr_info"].as_array().unwrap().iter();
            let addresses: Vec<_> = addresses.map(|it| (&it["local"], &it["prefixlen"])).collect();
            let wanted = [(&json!("10.9.0.2"), &json!(24)), (&json!("fd00::2"), &json!(64))];
            assert_eq!(addresses, wanted);
            let by = if kept { "other" } else { "eth0" };
            assert_eq!(room.json("ip -j route show default")[0]["dev"], by);
            assert_eq!(room.json("ip -6 -j route show default")[0]["gateway"], "fd00::1");
            sh(&[Op::DeleteLink { name: "vttap-c1".into(), index: None }]);
            assert!(!room.can("ip link show dev eth0"));
        }
    });
}

#[test]
fn a_tap_stands_for_the_inner_end_of_a_pair() {
    in_namespace(|| {
        let room = Room::new();
        let inner = InnerLink {
            netns: room.netns(),
            name: "eth0".into(),
            mac: Mac::of_guest("default", "c1"),
            addresses: Vec::new(),
            gateways: Vec::new(),
            tap: Some(InnerTap { name: "tap0".into(), owner: 12345 }),
        };
        let (name, alias) = ("vttap-c1".to_string(), "volnet:c1.eth0".to_string());
        sh(&[Op::CreateVeth { name, mac: inner.mac.highest(), mtu: 1400, alias, inner }]);
        let tap = &room.json("ip -j -d link show dev tap0")[0];
        assert_eq!((&tap["mtu"], &tap["ifalias"]), (&json!(1400), &json!("volnet:c1.eth0")));
        assert_eq!(tap["linkinfo"]["info_data"]["user"], 12345);
        let link = room.json("ip -j link show dev eth0")[0]["ifindex"].as_u64().unwrap() as u32;
        let mut door = room.opened(|| Socket::open(NetlinkFamily::Route).expect("a socket"));
        let differences = |door: &mut Socket| {
            redirect::differences(door, ("tap0", "volnet:c1.eth0"), link).expect("it is read")
        };
        assert_eq!(differences(&mut door), [""; 0]);
        room.run("tc filter delete dev eth0 ingress");
        assert_eq!(differences(&mut door).len(), 1);
    });
}

const ETHER: Bytes = Bytes { layer: Layer::Link, offset: 6, length: 6 };
const SOURCE: Bytes = Bytes { layer: Layer::Network, offset: 12, length: 4 };

/// Rules for frames, with what they say when `nft` shows them.
fn shown_rules() -> Vec<(Rule, &'static str)> {
    use PacketField::*;
    let is = |field, mask, value| Match::Is { field, mask, value, negated: false };
    let ether_type = |value| is(EtherType, None, value);
    let drop = |matches| Rule { matches, verdict: Verdict::Drop };
    let in_set = |fields, set: &'static str, negated| {
        let set = set.into();
        Match::InSet { fields, set, negated }
    };
    let rewrite = |field, map| Rule {
        matches: vec![],
        verdict: Verdict::Rewrite { link: InLink, field, map },
    };
    let lease: &[PacketField] = &[InLink, PacketField::Bytes(ETHER), PacketField::Bytes(SOURCE)];
    let rate = Rate { per_second: 100, burst: 50 };
    vec![
        (
            Rule {
                matches: vec![in_set(&[InLink, EtherSource, IpSource], "guests", false)],
                verdict: Verdict::Accept,
            },
            "iifname . ether saddr . ip saddr @guests accept",
        ),
        (
            // nft does not show the EtherType that the fields of ARP or IPv4 imply.
            drop(vec![
                ether_type(0x0806),
                in_set(&[InLink, ArpSenderEther, ArpSenderIp], "guests", true),
            ]),
            "iifname . arp saddr ether . arp saddr ip != @guests drop",
        ),
        (drop(vec![ether_type(0x86dd)]), "ether type ip6 drop"),
        (
            drop(vec![is(IpDestination, Some(0xffff_0000), 0xa9fe_0000)]),
            "ip daddr 169.254.0.0/16 drop",
        ),
        (
            drop(vec![is(EtherDestination, Some(1 << 40), 1 << 40)]),
            "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop",
        ),
        (
            drop(vec![Match::Is {
                field: IpFragment,
                mask: Some(0x3fff),
                value: 0,
                negated: true,
            }]),
            "ip frag-off & 16383 != 0 drop",
        ),
        (drop(vec![is(Protocol, None, 17), is(SourcePort, None, 67)]), "udp sport 67 drop"),
        (
            drop(vec![in_set(&[InLink, Protocol, DestinationPort], "services", true)]),
            "iifname . meta l4proto . th dport != @services drop",
        ),
        (
            drop(vec![in_set(&[InLink, PacketField::Bytes(ETHER)], "macs", true)]),
            "iifname . ether saddr != @macs drop",
        ),
        (
            drop(vec![Match::Faster { fields: &[InLink], set: "storms", rate }]),
            "update @storms { iifname limit rate over 100/second burst 50 packets } drop",
        ),
        (
            Rule {
                matches: vec![ether_type(0x0800), Match::Put { fields: lease, set: "leases" }],
                verdict: Verdict::Accept,
            },
            "update @leases { iifname . ether saddr . ip saddr } accept",
        ),
        (
            Rule { matches: vec![], verdict: Verdict::SetPriority(0x0010_0020) },
            "meta priority set 10:20",
        ),
        (drop(vec![is(Priority, None, 0x0010_0020)]), "meta priority 10:20 drop"),
        (rewrite(IpSource, "ips"), "ip saddr set iifname . ip saddr map @ips"),
        (
            rewrite(ArpTargetEther, "ethers"),
            "arp daddr ether set iifname . arp daddr ether map @ethers",
        ),
        (rewrite(QuotedSource, "quoted"), "@th,160,32 set iifname . @th,160,32 map @quoted"),
        (
            Rule { matches: vec![], verdict: Verdict::Deliver { map: "ethers" } },
            "ether daddr set iifname . ether daddr map @ethers meta pkttype set host",
        ),
    ]
}

fn bridge_rules() -> Vec<Rule> {
    shown_rules().into_iter().map(|(rule, _)| rule).collect()
}

/// A table in which every kind of set, match and verdict stands once.
fn tables() -> [Table; 2] {
    let in_set = |fields, set: &'static str, negated| {
        let set = set.into();
        Match::InSet { fields, set, negated }
    };
    let mac = Mac::of_guest("default", "web");
    let tap = Value::Link("vttap-web".into());
    let address = Value::Address([192, 168, 127, 2].into());
    let ip = Table {
        family: Family::Ip,
        name: "volnet",
        owned: false,
        sets: vec![
            Set {
                name: "bridges".into(),
                key: &[Field::Link],
                kind: SetKind::Values,
                kept: false,
                elements: vec![vec![Value::Link("vbr0".into())]],
            },
            Set {
                name: "subnets".into(),
                key: &[Field::Ipv4],
                kind: SetKind::Prefixes,
                kept: false,
                elements: vec![vec![Value::Prefix("192.168.127.0/24".parse().unwrap())]],
            },
        ],
        chains: vec![
            Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: 100,
                rules: vec![Rule {
                    matches: vec![
                        in_set(&[PacketField::IpSource], "subnets", false),
                        in_set(&[PacketField::OutLink], "bridges", true),
                    ],
                    verdict: Verdict::Masquerade,
                }],
            },
            Chain {
                name: "forward",
                kind: ChainKind::Filter,
                hook: Hook::Forward,
                priority: -1,
                rules: vec![Rule {
                    matches: vec![
                        Match::Established,
                        in_set(&[PacketField::IpDestination], "subnets", false),
                    ],
                    verdict: Verdict::Accept,
                }],
            },
        ],
    };
    let set = |name: &'static str, key, kind, elements| Set {
        name: name.into(),
        key,
        kind,
        kept: false,
        elements,
    };
    let learned = SetKind::Learned { timeout_s: 60 };
    let bridge = Table {
        family: Family::Bridge,
        name: "volnet",
        owned: false,
        sets: vec![
            set(
                "guests",
                &[Field::Link, Field::Ether, Field::Ipv4],
                SetKind::Values,
                vec![vec![tap.clone(), Value::Ether(mac), address]],
            ),
            set(
                "services",
                &[Field::Link, Field::Protocol, Field::Port],
                SetKind::Values,
                vec![vec![tap.clone(), Value::Protocol(17), Value::Port(53)]],
            ),
            set(
                "macs",
                &[Field::Link, Field::Bytes(ETHER)],
                SetKind::Values,
                vec![vec![tap, Value::Bytes(mac.0.to_vec())]],
            ),
            set(
                "leases",
                &[Field::Link, Field::Bytes(ETHER), Field::Bytes(SOURCE)],
                learned,
                vec![],
            ),
            set("storms", &[Field::Link], learned, vec![]),
            set("ips", &[Field::Link, Field::Ipv4, Field::TargetIpv4], SetKind::Values, vec![]),
            set(
                "ethers",
                &[Field::Link, Field::Ether, Field::TargetEther],
                SetKind::Values,
                vec![],
            ),
            set(
                "quoted",
                &[Field::Link, Field::Bytes(SOURCE), Field::TargetBytes(SOURCE)],
                SetKind::Values,
                vec![],
            ),
        ],
        chains: vec![Chain {
            name: "prerouting",
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: -300,
            rules: bridge_rules(),
        }],
    };
    [ip, bridge]
}

/// Elements of a set as `nft` shows them; none when there is no such set.
fn elements(family: &str, set: &str) -> Json {
    let list = json(&format!("nft -j list set {family} volnet {set}"));
    list["nftables"][1]["set"]["elem"].clone()
}

#[test]
fn tables_and_elements_are_made_and_removed() {
    in_namespace(|| {
        let [ip, bridge] = tables();
        sh(&[Op::CreateTable(Box::new(ip.clone())), Op::CreateTable(Box::new(bridge.clone()))]);
        // nft 1.1 shows masks in hexadecimal.
        let listed =
            || run("nft list ruleset").replace("0x3fff", "16383").replace("!= 0x0", "!= 0");
        let text = listed();
        for line in [
            "ip saddr @subnets oifname != @bridges masquerade",
            "ct state established,related ip daddr @subnets accept",
        ]
        .into_iter()
        .chain(shown_rules().into_iter().map(|(_, shown)| shown))
        {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(elements("ip", "bridges"), json!(["vbr0"]));
        assert_eq!(
            elements("ip", "subnets"),
            json!([{"prefix": {"addr": "192.168.127.0", "len": 24}}])
        );

        let key = bridge.sets[0].elements[0].clone();
        let element =
            Element { family: Family::Bridge, table: "volnet", set: "guests".into(), key };
        let remove = Op::RemoveElements(vec![element.clone()]);
        sh(&[remove.clone(), remove]);
        assert_eq!(elements("bridge", "guests"), Json::Null);
        let add = Op::AddElements(vec![element]);
        sh(&[add.clone(), add]);
        assert_eq!(elements("bridge", "guests").as_array().map(Vec::len), Some(1));

        sh(&[Op::ReplaceTable(Box::new(ip)), Op::ReplaceTable(Box::new(bridge))]);
        assert_eq!(listed(), text);
        let remove = |family| Op::RemoveTable { family, name: "volnet" };
        sh(&[remove(Family::Ip), remove(Family::Bridge), remove(Family::Ip)]);
        assert_eq!(listed(), "");
    });
}

#[test]
fn accept_rules_come_first_and_go_however_many_there_are() {
    in_namespace(|| come_first_and_go(Family::Ip, "ip"));
    in_namespace(|| come_first_and_go(Family::Ip6, "ip6"));
}

fn come_first_and_go(family: Family, word: &str) {
    run(&format!("nft add table {word} filter"));
    run(&format!("nft add chain {word} filter DOCKER-USER"));
    run(&format!("nft add rule {word} filter DOCKER-USER counter return"));
    let before = run("nft list ruleset");
    let accept = |direction| {
        let (chain, bridge) = ("DOCKER-USER".into(), "v.br0".into());
        Accept { family, chain, bridge, direction }
    };
    let add = [Direction::In, Direction::Out].map(|way| Op::AddAccept(accept(way)));
    sh(&[add[0].clone(), add[1].clone(), add[0].clone()]);
    let list = json(&format!("nft -j list chain {word} filter DOCKER-USER"));
    let rules: Vec<&Json> =
        list["nftables"].as_array().unwrap().iter().filter(|o| o.get("rule").is_some()).collect();
    assert_eq!(rules.len(), 4);
    assert!(rules[..3].iter().all(|rule| rule["rule"]["comment"] == "volnet"));
    let remove = [Direction::In, Direction::Out].map(|way| Op::RemoveAccept(accept(way)));
    sh(&remove);
    sh(&remove);
    assert_eq!(run("nft list ruleset"), before);
}

#[test]
fn an_address_is_forgotten_be_there_anything_or_not() {
    in_namespace(|| {
        run("ip link add vbr0 type bridge");
        run("ip link set vbr0 up");
        let (link, address) = ("vbr0".into(), [10, 0, 0, 2].into());
        let forget = Op::ForgetAddress { link, address, at: Handover::Assigned };
        sh(std::slice::from_ref(&forget));
        for (address, mac) in [("10.0.0.2", "02:00:00:00:00:02"), ("10.0.0.3", "02:00:00:00:00:03")]
        {
            run(&format!("ip neigh add {address} lladdr {mac} dev vbr0"));
            run(&format!(
                "conntrack -I -p udp -t 600 -s {address} -d 10.0.1.1 --sport 5 --dport 6"
            ));
            run(&format!(
                "conntrack -I -p udp -t 600 -s 10.0.1.1 -d {address} --sport 5 --dport 6"
            ));
        }
        sh(&[forget]);
        let shown = json("ip -j neigh show dev vbr0");
        assert_eq!((shown.as_array().unwrap().len(), &shown[0]["dst"]), (1, &json!("10.0.0.3")));
        let tracked = run("conntrack -L");
        assert_eq!(tracked.matches(" src=").count(), 4, "two connections: {tracked}");
        assert!(!tracked.contains("10.0.0.2 "), "{tracked}");
    });
}
