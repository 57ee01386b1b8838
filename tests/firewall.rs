//! Other people's firewalls beside volnet: VMs are reached through them, they stay as they were,
//! and `Check` says what is in the way.

mod common;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::in_namespace;
use common::run;
use common::space::{Guest, Space, WORLD_IP};

fn create(daemon: &Daemon, name: &str) -> Value {
    let mut answer = daemon.call("Create", json!({ "name": name }));
    assert!(answer["error"].is_null(), "{answer}");
    answer["parameters"]["vm"].take()
}

/// What Docker does, and somebody who has rules of his own there.
fn like_docker() {
    run("iptables -P FORWARD DROP");
    run("iptables -N DOCKER-USER");
    run("iptables -A DOCKER-USER -i eth9 -m comment --comment volnet2 -j ACCEPT");
    run("iptables -A DOCKER-USER -j RETURN");
    run("iptables -A FORWARD -j DOCKER-USER");
}

/// What a firewall does that knows nothing of Docker.
fn like_a_firewall() {
    run("iptables -P FORWARD DROP");
    run("iptables -A FORWARD -i eth9 -m comment --comment volnet2 -j ACCEPT");
}

#[test]
fn vms_reach_the_outside_though_others_drop_what_is_forwarded() {
    for (others, chain) in [(like_docker as fn(), "DOCKER-USER"), (like_a_firewall, "FORWARD")] {
        in_namespace(|| {
            let _world = Space::world();
            others();
            let before = run("iptables -S");
            let daemon = Daemon::start(&[]);
            let guest = Guest::of(&create(&daemon, "web"));
            assert!(guest.reaches(WORLD_IP));
            let after = run("iptables -S");
            let ours: Vec<&str> =
                after.lines().filter(|line| line.contains("--comment volnet ")).collect();
            assert_eq!(ours.len(), 2, "{after}");
            assert!(ours.iter().all(|line| line.starts_with(&format!("-A {chain} "))), "{after}");
            assert_eq!(after.lines().count(), before.lines().count() + 2, "{after}");

            // Without them nothing would get through, so it is they that do it.
            run(&format!("iptables -I {chain} -i vbr0 -j DROP"));
            assert!(!guest.reaches(WORLD_IP));
            run(&format!("iptables -D {chain} -i vbr0 -j DROP"));

            let answer = daemon.call("Teardown", json!({ "force": true }));
            assert!(answer["error"].is_null(), "{answer}");
            assert_eq!(run("iptables -S"), before);
        });
    }
}

/// A namespace has this switch where the module br_netfilter is there.
const BRIDGE_NF: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

#[test]
fn guests_reach_each_other_whether_or_not_bridged_frames_pass_iptables() {
    in_namespace(|| {
        let _world = Space::world();
        like_docker();
        let daemon = Daemon::start(&[]);
        let (web, db) = (create(&daemon, "web"), create(&daemon, "db"));
        let (one, _other) = (Guest::of(&web), Guest::of(&db));
        let there = db["ip"].as_str().unwrap();
        for on in ["0", "1"] {
            std::fs::write(BRIDGE_NF, on).expect("modprobe br_netfilter");
            assert!(one.reaches(there), "bridge-nf-call-iptables={on}");
            assert!(one.reaches(WORLD_IP), "bridge-nf-call-iptables={on}");
        }
        run("iptables -I DOCKER-USER -i vbr0 -o vbr0 -j DROP");
        assert!(!one.reaches(there), "they do pass it");
    });
}
