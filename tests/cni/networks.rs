//! The networks that configurations describe: made, used, changed.

use std::process::Stdio;

use serde_json::{Value, json};

use super::common::room::Room;
use super::common::{self, eventually, in_namespace, json, run};
use super::{Engine, NONE};

/// The network of this name, as the daemon shows it; null if there is none.
fn network(engine: &Engine, name: &str) -> Value {
    let networks = engine.daemon.call("Networks", json!({}));
    let networks = networks["parameters"]["networks"].as_array().expect("a list").clone();
    networks.into_iter().find(|network| network["name"] == name).unwrap_or(NONE)
}

#[test]
fn a_configuration_of_bridge_and_host_local_needs_another_type_alone() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let (room, other) = (Room::new(), Room::new());
        let ipam = |subnet: &str, start: &str, end: &str, gateway: &str| {
            json!({"type": "host-local", "dataDir": "/var/lib/cni/networks",
                "ranges": [[{"subnet": subnet, "rangeStart": start, "rangeEnd": end,
                    "gateway": gateway}]],
                "routes": [{"dst": "0.0.0.0/0"}]})
        };
        let first = ipam("10.22.0.0/16", "10.22.1.10", "10.22.1.20", "10.22.0.254");
        let fields = engine.conf.as_object_mut().unwrap();
        fields.insert("name".into(), json!("mynet"));
        fields.insert("bridge".into(), json!("cni0"));
        fields.insert("isGateway".into(), json!(true));
        fields.insert("ipMasq".into(), json!(true));
        fields.insert("mtu".into(), json!(1450));
        fields.insert("ipam".into(), first);
        // The network is made by whoever asks for it first.
        assert_eq!(network(&engine, "mynet"), NONE);
        assert_eq!(engine.code("STATUS", "", "", json!({})), 0);
        let made = network(&engine, "mynet");
        assert_eq!((&made["bridge"], &made["nat"]), (&json!("cni0"), &json!(true)), "{made}");
        let added = engine.add("c1", &room);
        assert_eq!(added["ips"][0]["address"], "10.22.1.10/16", "{added}");
        assert_eq!(added["ips"][0]["gateway"], "10.22.0.254");
        assert_eq!(added["interfaces"][0]["name"], "cni0");
        assert_eq!(room.json("ip -j link show dev eth0")[0]["mtu"], 1450);
        assert!(room.can("ping -c 1 -W 1 -q 10.22.0.254"));
        assert_eq!(engine.code("STATUS", "", "", json!({})), 0);
        let outer = added["interfaces"][1]["name"].as_str().expect("a link");
        assert_eq!(common::ip_link(outer)["mtu"], 1450);
        assert_eq!(common::ip_link("cni0")["mtu"], 1450);
        // Another subnet waits until the network is nobody's.
        let second = json!({"ipam": ipam("10.23.0.0/24", "10.23.0.9", "10.23.0.9", "10.23.0.1")});
        assert_eq!(engine.code("ADD", "c2", &other.netns(), second.clone()), 7);
        assert_eq!(engine.code("STATUS", "", "", second.clone()), 7);
        assert_eq!(engine.code("DEL", "c1", &room.netns(), json!({})), 0);
        let (done, added) = engine.ask("ADD", "c2", &other.netns(), second.clone());
        assert!(done, "{added}");
        assert_eq!(added["ips"][0]["address"], "10.23.0.9/24");
        // Its range has one address.
        assert_eq!(engine.code("STATUS", "", "", second.clone()), 50);
        assert_eq!(engine.code("DEL", "c2", &other.netns(), second), 0);
        for (key, value) in [
            ("vlan", json!(7)),
            ("ipam", json!({"type": "dhcp"})),
            ("ipam", json!({"type": "host-local", "subnet": "10.1.0.0/24", "resolvConf": "/x"})),
            (
                "ipam",
                json!({"subnet": "10.1.0.0/24", "routes": [
                {"dst": "10.0.0.0/8", "gw": "10.1.0.9"}]}),
            ),
            ("ipam", json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}]]})),
        ] {
            assert_eq!(engine.code("ADD", "c3", &room.netns(), json!({key: value})), 2, "{value}");
        }
        eventually("nothing is left", || engine.attached() == 0);
        assert!(json("ip -j link show type veth").as_array().is_some_and(Vec::is_empty));
    });
}

#[test]
fn networks_of_templates_and_of_flannel_are_made() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let (room, other) = (Room::new(), Room::new());
        // What containerd makes of {{.PodCIDR}}.
        let pods = json!({"subnet": "10.244.3.0/24", "peers": ["10.244.0.0/16"],
            "host_services": ["any"]});
        let (done, added) = engine.ask("ADD", "c1", &room.netns(), pods);
        assert!(done, "{added}");
        assert_eq!(added["ips"][0]["address"], "10.244.3.2/24");
        let made = network(&engine, "pods");
        assert_eq!(made["peers"], json!(["10.244.0.0/16"]), "{made}");
        assert_eq!((&made["added"], &made["nat"]), (&json!(true), &json!(true)));
        // The daemon ends, and the next one has the network.
        engine.daemon.crash();
        engine.daemon.start_again();
        assert!(room.can("ping -c 1 -W 5 -q 10.244.3.1"));
        // What flannel's plugin gives to its delegate.
        let flannel = json!({"name": "cbr0", "mtu": 1400, "ipMasq": false, "isDefaultGateway": true,
            "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.245.5.0/24"}]],
                "routes": [{"dst": "10.245.0.0/16"}]}});
        let (done, added) = engine.ask("ADD", "c2", &other.netns(), flannel.clone());
        assert!(done, "{added}");
        let made = network(&engine, "cbr0");
        assert_eq!((&made["mtu"], &made["nat"]), (&json!(1400), &json!(false)), "{made}");
        assert_eq!(made["services"], true);
        assert!(other.can("ping -c 1 -W 1 -q 10.245.5.1"));
        assert_eq!(engine.code("DEL", "c2", &other.netns(), flannel), 0);
        // Keys of a network that is of the settings are the settings'.
        let peers = json!({"peers": ["10.244.0.0/16"]});
        assert_eq!(engine.code("ADD", "c3", &other.netns(), peers), 2);
        assert_eq!(engine.code("STATUS", "", "", json!({"network": ""})), 0);
        assert_eq!(engine.code("STATUS", "", "", json!({"network": "none"})), 7);
    });
}

/// People change a configuration. What it says holds when nobody has the network.
#[test]
fn a_network_takes_the_values_of_its_configuration_when_it_is_nobodys() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let (room, other) = (Room::new(), Room::new());
        engine.conf["subnet"] = json!("10.244.3.0/24");
        engine.conf["mtu"] = json!(1450);
        assert_eq!(engine.code("STATUS", "", "", json!({})), 0);
        let of = |engine: &Engine| {
            let made = network(engine, "pods");
            (made["mtu"].as_u64(), made["peers"].as_array().map(Vec::len))
        };
        assert_eq!(of(&engine), (Some(1450), Some(0)));
        // Nobody has it yet.
        let changed = json!({"mtu": 1400, "peers": ["10.244.0.0/16"]});
        assert_eq!(engine.code("ADD", "c1", &room.netns(), changed), 0);
        assert_eq!(of(&engine), (Some(1400), Some(1)));
        assert_eq!(json("ip -j link show dev vn-pods")[0]["mtu"], 1400);
        // Now somebody does: it goes on as it is, and a lower MTU holds for the new one.
        let mtu = || other.json("ip -j link show dev eth0")[0]["mtu"].clone();
        for (asked, has) in [(1300, 1300), (1500, 1400)] {
            let changed = json!({ "mtu": asked });
            assert_eq!(engine.code("STATUS", "", "", changed.clone()), 0);
            assert_eq!(engine.code("ADD", "c2", &other.netns(), changed), 0);
            assert_eq!(mtu(), has);
            assert!(other.can("ping -c 1 -W 5 -q 10.244.3.1"));
            assert_eq!(of(&engine), (Some(1400), Some(1)));
            assert_eq!(engine.code("DEL", "c2", &other.netns(), json!({})), 0);
        }
        let mut child =
            engine.command("STATUS", "", "").stderr(Stdio::piped()).spawn().expect("it runs");
        serde_json::to_writer(child.stdin.take().expect("a pipe"), &engine.conf).expect("it reads");
        let said = child.wait_with_output().expect("it is ours");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("network pods has VMs, so it keeps its values"), "{said}");
        assert_eq!(engine.code("DEL", "c1", &room.netns(), json!({})), 0);
        assert_eq!(engine.code("STATUS", "", "", json!({"mtu": 1500})), 0);
        assert_eq!(of(&engine), (Some(1500), Some(0)));
    });
}

#[test]
fn a_network_without_an_mtu_has_that_of_the_way_to_the_world() {
    in_namespace(|| {
        let engine = Engine::new();
        run("ip link add uplink mtu 1420 type veth peer name far");
        run("ip address add 203.0.113.1/24 dev uplink");
        run("ip link set far up");
        run("ip link set uplink up");
        let mtu = |wanted: Value| {
            assert_eq!(engine.code("STATUS", "", "", wanted), 0);
            network(&engine, "pods")["mtu"].as_u64().expect("a number")
        };
        let subnet = || json!({"subnet": "10.244.3.0/24"});
        assert_eq!(mtu(subnet()), 1500, "there is no such way");
        run("ip route add default via 203.0.113.2");
        assert_eq!(mtu(subnet()), 1420);
        assert_eq!(mtu(json!({"subnet": "10.244.3.0/24", "mtu": 1400})), 1400);
    });
}

#[test]
fn a_configuration_may_have_ipv6_alone() {
    in_namespace(|| {
        let mut engine = Engine::new();
        let (room, other) = (Room::new(), Room::new());
        engine.conf["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "fd00:7::/64"}]],
            "routes": [{"dst": "::/0"}]});
        assert_eq!(engine.code("STATUS", "", "", json!({})), 0);
        let ips = json!({"runtimeConfig": {"ips": ["fd00:7::77/64"]}});
        let (done, added) = engine.ask("ADD", "c1", &room.netns(), ips);
        assert!(done, "{added}");
        assert_eq!(added["ips"].as_array().map(Vec::len), Some(1), "{added}");
        assert_eq!(added["ips"][0]["address"], "fd00:7::77/64");
        assert_eq!(added["routes"], json!([{"dst": "::/0", "gw": "fd00:7::1"}]));
        assert!(room.can("ping -c 1 -W 2 -q fd00:7::1"));
        assert_eq!(engine.code("CHECK", "c1", &room.netns(), json!({"prevResult": added})), 0);
        engine.add("c2", &other);
        assert!(other.can("ping -c 1 -W 2 -q fd00:7::77"));
        // Another prefix is another network, and this one has containers.
        let another = json!({"ipam": {"ranges": [[{"subnet": "fd00:8::/64"}]]}});
        assert_eq!(engine.code("STATUS", "", "", another.clone()), 7);
        for container in ["c1", "c2"] {
            assert_eq!(engine.code("DEL", container, "", json!({})), 0);
        }
        assert_eq!(engine.code("STATUS", "", "", another), 0);
        assert_eq!(network(&engine, "pods")["subnet6"], "fd00:8::/64");
    });
}
