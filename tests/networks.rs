//! Networks that are added and removed while volnet runs. The kernel is read back with `ip`, `nft`
//! and `ss`, and packets are sent from a namespace on such a network. Each test has a fresh network
//! namespace as its host.

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::room::Room;
use common::{eventually, in_namespace, json, link_exists, run};

fn pods(subnet: &str) -> Value {
    json!({ "name": "pods", "subnet": subnet, "mtu": 1400 })
}

fn add(daemon: &Daemon, network: Value, replace: bool) -> Value {
    daemon.call("AddNetwork", json!({ "network": network, "replace": replace }))
}

/// Whether a client does what it is asked for.
fn done(daemon: &Daemon, args: &[&str]) -> bool {
    let mut command = Command::new(&daemon.program);
    command.args(args).arg("--socket").arg(daemon.socket());
    command.stdout(Stdio::null()).status().expect("volnet runs").success()
}

/// The names of the networks that were added.
fn added(daemon: &Daemon) -> Vec<String> {
    let networks = daemon.call("Networks", json!({}));
    let networks = networks["parameters"]["networks"].as_array().expect("a list").clone();
    let added = networks.into_iter().filter(|network| network["added"] == true);
    added.map(|network| network["name"].as_str().expect("a name").into()).collect()
}

/// Whether a packet comes through, with no trace of earlier ones.
fn reaches(room: &Room, address: &str) -> bool {
    room.run("ip neighbour flush all");
    room.can(&format!("ping -c 1 -W 1 -q {address}"))
}

/// Where the network is written down.
fn record(daemon: &Daemon) -> PathBuf {
    daemon.folder.join("run/networks/pods.json")
}

/// Whether nothing of the network is left: no link, no element of a set, no socket, no file.
fn is_gone(daemon: &Daemon) -> bool {
    let of_rules = run("nft list ruleset").contains("vn-pods");
    let sockets = run("ss -H -l -u -n").contains("10.77.0.1");
    !link_exists("vn-pods") && !of_rules && !sockets && !record(daemon).exists()
}

/// Sockets are closed after the reply.
fn goes(daemon: &Daemon) {
    eventually("nothing of it is left", || is_gone(daemon));
}

#[test]
fn a_network_comes_is_used_outlives_the_daemon_and_goes() {
    in_namespace(|| {
        run("ip link set lo up");
        let mut daemon = Daemon::start(&[]);
        assert!(is_gone(&daemon));
        let reply = add(&daemon, pods("10.77.0.0/24"), false);
        assert_eq!(reply["parameters"]["is_new"], true, "{reply}");
        assert_eq!(reply["parameters"]["network"]["bridge"], "vn-pods");
        let bridge = &json("ip -j address show dev vn-pods")[0];
        assert_eq!((&bridge["mtu"], &bridge["linkinfo"]), (&json!(1400), &Value::Null));
        assert_eq!(bridge["addr_info"][0]["local"], "10.77.0.1");
        assert_eq!(bridge["addr_info"][0]["prefixlen"], 24);
        assert!(run("ss -H -l -u -n").contains("10.77.0.1"), "guests ask for names");
        assert_eq!(added(&daemon), ["pods"]);
        assert!(record(&daemon).exists());
        // What was there before goes on.
        let (room, other) = (Room::new(), Room::new());
        assert!(done(&daemon, &["attach", "a", "--netns", &room.netns(), "--network", "pods"]));
        assert!(done(&daemon, &["attach", "b", "--netns", &other.netns()]));
        assert!(reaches(&room, "10.77.0.1") && reaches(&other, "192.168.127.1"));
        assert_eq!(room.json("ip -j address show dev eth0")[0]["mtu"], 1400);
        // The same again is success. Other values are not, and VMs keep their network.
        assert_eq!(add(&daemon, pods("10.77.0.0/24"), false)["parameters"]["is_new"], false);
        let other_subnet = || pods("10.78.0.0/24");
        assert_eq!(add(&daemon, other_subnet(), false)["error"], "io.volnet.NetworkExists");
        let in_use = add(&daemon, other_subnet(), true);
        assert_eq!(in_use["error"], "io.volnet.NetworkInUse");
        assert_eq!(in_use["parameters"], json!({ "name": "pods", "vms": 1 }));
        let remove = |daemon: &Daemon, name: &str| {
            daemon.call("RemoveNetwork", json!({ "name": name }))["error"].clone()
        };
        assert_eq!(remove(&daemon, "pods"), "io.volnet.NetworkInUse");
        assert_eq!(remove(&daemon, "default"), "io.volnet.NetworkNotFound");
        let lasting = json!({ "name": "v", "config": { "network": { "name": "pods" } } });
        let refused = daemon.call("Create", lasting);
        assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{refused}");
        // The next daemon has it all.
        daemon.crash();
        daemon.start_again();
        assert_eq!(added(&daemon), ["pods"]);
        assert!(reaches(&room, "10.77.0.1"));
        assert!(done(&daemon, &["detach", "a"]));
        let replaced = add(&daemon, other_subnet(), true);
        assert_eq!(replaced["parameters"]["is_new"], true, "{replaced}");
        let bridge = &json("ip -j -4 address show dev vn-pods")[0]["addr_info"];
        assert_eq!(
            (bridge.as_array().map(Vec::len), &bridge[0]["local"]),
            (Some(1), &json!("10.78.0.1"))
        );
        assert_eq!(remove(&daemon, "pods"), Value::Null);
        goes(&daemon);
        assert!(reaches(&other, "192.168.127.1"), "the other network stays");
    });
}

#[test]
fn what_the_host_has_is_not_taken_by_a_network_that_is_added() {
    in_namespace(|| {
        run("ip link set lo up");
        run("ip link add theirs type bridge");
        run("ip link set theirs up");
        run("ip route add 10.79.0.0/16 dev theirs");
        let daemon = Daemon::start(&[]);
        for (network, words) in [
            (pods("10.79.1.0/24"), "the host has a route to 10.79.0.0/16 by theirs"),
            (pods("192.168.127.128/25"), "overlap"),
            (json!({"name": "pods", "subnet": "10.80.0.0/24", "bridge": "theirs"}), "theirs"),
            (json!({"name": "pods", "subnet": "10.80.0.0/24", "bridge": "vbr0"}), "vbr0"),
        ] {
            let refused = add(&daemon, network, false);
            assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{refused}");
            let reason = refused["parameters"]["reason"].as_str().expect("a reason");
            assert!(reason.contains(words), "{reason}");
            goes(&daemon);
        }
        assert_eq!(added(&daemon), [""; 0]);
        // The end of everything is the end of a network that was added, too.
        let reply = add(&daemon, pods("10.77.0.0/24"), false);
        assert_eq!(reply["parameters"]["is_new"], true, "{reply}");
        assert!(done(&daemon, &["teardown"]));
        goes(&daemon);
        assert!(added(&daemon).is_empty());
        assert!(done(&daemon, &["setup"]));
        goes(&daemon);
        assert!(link_exists("vbr0"));
    });
}
