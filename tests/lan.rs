//! VMs on a bridge of the host that volnet does not manage, with a LAN behind its uplink.

#![cfg(target_os = "linux")]

mod common;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space};
use common::{in_namespace, link_exists, run};

/// A bridge with the host's address and its default route, and the LAN's router behind its uplink.
fn lan() -> Space {
    run("ip link set lo up");
    let lan = Space::world();
    run("ip addr flush dev uplink");
    run("ip link add br0 type bridge");
    lan
}

/// Joins the host to the LAN.
fn join(lan: &Space) {
    for line in [
        "ip link set uplink mtu 1500 master br0",
        "ip link set uplink up",
        "ip addr add 192.168.50.10/24 dev br0",
        "ip link set br0 up",
        "ip route add default via 192.168.50.1",
    ] {
        run(line);
    }
    for line in [
        "ip addr add 192.168.50.1/24 dev eth0",
        "ip addr add 192.168.50.9/24 dev eth0",
        "ip link set eth0 up",
    ] {
        lan.run(line);
    }
}

fn daemon(managed: bool) -> Daemon {
    let mut daemon = Daemon::without(&[]);
    let settings = json!({ "networks": [{
        "name": "lan", "bridge": "br0", "subnet": "192.168.50.0/24", "host_ip": "192.168.50.10",
        "nat": false, "managed": managed, "gateway": "192.168.50.1",
        "range": "192.168.50.8-192.168.50.20",
        "reserve": ["192.168.50.9", "192.168.50.30-192.168.50.40"],
    }] });
    std::fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("a file");
    daemon.start_again();
    daemon
}

/// All that the host knows of its bridge.
fn bridge() -> Value {
    let words = run("ip -j -d addr show dev br0");
    let mut bridge: Value = serde_json::from_str(&words).expect("JSON of ip");
    let link = bridge[0].take();
    json!([
        link["address"],
        link["mtu"],
        link["operstate"],
        link["ifalias"],
        link["addr_info"],
        link["linkinfo"]["info_data"]["group_fwd_mask"],
    ])
}

/// A bridge takes the address of its ports, so the uplink has one that is lower than no tap's.
fn as_before(what: &str, before: &(Value, String)) {
    assert_eq!((bridge(), run("ip route")), *before, "{what}");
}

#[test]
fn a_bridge_that_is_not_managed_is_used_as_it_is() {
    in_namespace(|| {
        let lan = lan();
        run("ip link set uplink address f6:00:00:00:00:01");
        join(&lan);
        let forwarding = run("sysctl -n net.ipv4.ip_forward");
        let before = (bridge(), run("ip route"));
        let daemon = daemon(false);
        as_before("daemon", &before);
        let create = |name: &str, network: Value| {
            daemon.call("Create", json!({ "name": name, "config": { "network": network } }))
        };
        let vm = create("web", json!({}))["parameters"]["vm"].take();
        assert_eq!((&vm["ip"], &vm["gateway"]), (&json!("192.168.50.8"), &json!("192.168.50.1")));
        as_before("create", &before);
        let guest = Guest::of(&vm);
        assert!(guest.reaches("192.168.50.9") && guest.reaches("192.168.50.10"));

        // 9 is reserved and 10 the host's. Whoever names an address gets any but a reserved one.
        assert_eq!(create("db", json!({}))["parameters"]["vm"]["ip"], "192.168.50.11");
        let named = create("named", json!({ "ip": "192.168.50.100" }));
        assert_eq!(named["parameters"]["vm"]["ip"], "192.168.50.100", "{named}");
        for reserved in ["192.168.50.1", "192.168.50.35"] {
            let answer = create("no", json!({ "ip": reserved }));
            assert_eq!(answer["error"], "io.volnet.AddressInUse", "{answer}");
        }

        // What others do to the bridge is not put right, and is no drift.
        run("ip addr add 10.9.9.9/24 dev br0");
        let setup = daemon.call("Setup", json!({ "dry_run": true }));
        assert_eq!(setup["parameters"]["plan"], json!([]), "{setup}");
        run("ip addr del 10.9.9.9/24 dev br0");

        let answer = daemon.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
        as_before("teardown", &before);
        assert!(!link_exists("vttap-web"));
        assert_eq!(run("sysctl -n net.ipv4.ip_forward"), forwarding);
    });
}

#[test]
fn a_bridge_that_is_not_there_is_not_made() {
    in_namespace(|| {
        let daemon = daemon(false);
        let create = || daemon.call("Create", json!({ "name": "web" }));
        let reason = create()["parameters"]["reason"].to_string();
        assert!(reason.contains("there is no bridge br0"), "{reason}");
        run("ip link add br0 type bridge");
        run("ip link set br0 up");
        let answer = create();
        assert_eq!(answer["parameters"]["vm"]["tap"], "vttap-web", "{answer}");
    });
}

#[test]
fn a_bridge_with_ports_of_others_is_never_deleted() {
    in_namespace(|| {
        let lan = lan();
        join(&lan);
        let daemon = daemon(true);
        let answer = daemon.call("Create", json!({ "name": "web" }));
        let reason = answer["parameters"]["reason"].to_string();
        assert!(reason.contains("managed") && !reason.contains("alias volnet:"), "{reason}");
        run("ip link set dev br0 alias volnet:");
        let answer = daemon.call("Setup", json!({}));
        assert!(answer["error"].is_null(), "{answer}");
        let answer = daemon.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
        assert!(run("ip route").contains("default via 192.168.50.1 dev br0"));
        assert!(run("ip addr show dev br0").contains("192.168.50.10/24"));
    });
}
