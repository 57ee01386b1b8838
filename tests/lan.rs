//! VMs on a bridge of the host that volnet does not manage, with a LAN behind its uplink.

#![cfg(target_os = "linux")]

mod common;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space};
use common::{eventually, in_namespace, link_exists, run};

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
    eventually("the bridge has its IPv6 address", || {
        !run("ip -6 addr show dev br0").contains("tentative")
    });
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

/// A network of volnet's own bridge, into which somebody put the uplink into a LAN with these
/// addresses.
fn with_uplink(addresses: &[&str]) -> (Daemon, Space) {
    run("ip link set lo up");
    let lan = Space::world();
    run("ip addr flush dev uplink");
    let daemon = Daemon::configured(&json!({ "networks": [
        { "name": "lan", "bridge": "vbr1", "subnet": "192.168.50.0/24", "nat": false,
          "host_ip": "192.168.50.10", "dhcp": "builtin" },
        { "name": "own", "bridge": "vbr2", "subnet": "10.7.0.0/24" },
    ] }));
    run("ip link set uplink mtu 1500 master vbr1");
    for address in addresses {
        lan.run(&format!("ip addr add {address}/24 dev eth0"));
    }
    lan.run("ip link set eth0 up");
    eventually("the LAN is joined", || lan.reaches("192.168.50.10"));
    (daemon, lan)
}

#[test]
fn an_address_that_somebody_has_is_not_leased_and_nobody_else_waits() {
    in_namespace(|| {
        let (daemon, lan) = with_uplink(&["192.168.50.1", "192.168.50.3", "192.168.50.77"]);
        let link: Value = serde_json::from_str(&lan.run("ip -j link show eth0")).expect("JSON");
        let mac = link[0]["address"].as_str().expect("an address").to_string();
        let mut clients = [daemon.connect(), daemon.connect(), daemon.connect()];
        for (client, name) in clients.iter_mut().zip(["a", "b", "c"]) {
            let create = json!({ "method": "io.volnet.Create", "parameters": { "name": name } });
            client.send(format!("{create}\n").as_bytes());
        }
        // Creates elsewhere are answered before those.
        let config = json!({ "network": { "name": "own" } });
        let own = daemon.call("Create", json!({ "name": "own", "config": config }));
        assert_eq!(own["parameters"]["vm"]["ip"], "10.7.0.2", "{own}");
        assert_eq!(
            daemon.call("List", json!({}))["parameters"]["vms"].as_array().unwrap().len(),
            1
        );
        let mut got = clients.map(|mut client| {
            let answer = client.receive().expect("an answer");
            answer["parameters"]["vm"]["ip"].as_str().expect("an address").to_string()
        });
        got.sort();
        assert_eq!(got, ["192.168.50.2", "192.168.50.4", "192.168.50.5"]);
        assert!(daemon.log().contains("192.168.50.1 of network lan is the address of"));

        let named = |ip: &str| {
            let config = json!({ "network": { "ip": ip } });
            daemon.call("Create", json!({ "name": "named", "config": config }))
        };
        let refused = named("192.168.50.77");
        assert_eq!(refused["error"], "io.volnet.AddressInUse", "{refused}");
        let owner = refused["parameters"]["owner"].as_str().expect("an owner");
        assert!(owner.contains(&mac), "{owner}");
        assert_eq!(named("192.168.50.78")["parameters"]["vm"]["ip"], "192.168.50.78");
    });
}

#[test]
fn a_create_that_waits_leaves_nothing_if_the_daemon_is_killed() {
    in_namespace(|| {
        let (mut daemon, _lan) = with_uplink(&["192.168.50.1"]);
        let mut client = daemon.connect();
        client.send(b"{\"method\":\"io.volnet.Create\",\"parameters\":{\"name\":\"a\"}}\n");
        // The daemon has read that when it has answered this.
        daemon.call("List", json!({}));
        daemon.crash();
        daemon.start_again();
        assert!(!link_exists("vttap-a"));
        let networks = daemon.call("Networks", json!({}));
        assert_eq!(networks["parameters"]["networks"][0]["leased"], 0, "{networks}");
        let answer = daemon.call("Create", json!({ "name": "a" }));
        assert_eq!(answer["parameters"]["vm"]["ip"], "192.168.50.2", "{answer}");
    });
}

#[test]
fn a_create_whose_caller_hangs_up_while_it_waits_is_not_carried_out() {
    in_namespace(|| {
        let (daemon, _lan) = with_uplink(&["192.168.50.200"]);
        let mut client = daemon.connect();
        client.send(b"{\"method\":\"io.volnet.Create\",\"parameters\":{\"name\":\"a\"}}\n");
        // The daemon has read that when it has answered this.
        daemon.call("List", json!({}));
        drop(client);
        // This one waits as long, and began later.
        daemon.call("Create", json!({ "name": "b" }));
        let list = daemon.call("List", json!({}));
        let vms = list["parameters"]["vms"].as_array().expect("a list");
        assert_eq!((vms.len(), &vms[0]["name"]), (1, &json!("b")), "{list}");
        let networks = daemon.call("Networks", json!({}));
        assert_eq!(networks["parameters"]["networks"][0]["leased"], 1, "{networks}");
    });
}

#[test]
fn a_guest_that_asks_is_not_offered_the_address_of_somebody() {
    in_namespace(|| {
        let (daemon, _lan) = with_uplink(&["192.168.50.1", "192.168.50.2"]);
        let config = json!({ "network": { "mode": "dhcp" } });
        let vm = daemon.call("Create", json!({ "name": "asks", "config": config }));
        let guest = common::guest::Guest::of(&vm["parameters"]["vm"]);
        let mut offer = None;
        eventually("an offer", || {
            guest.discover();
            offer = guest.try_hear();
            offer.is_some()
        });
        assert_eq!(offer.expect("an offer").ip.to_string(), "192.168.50.3");
    });
}
