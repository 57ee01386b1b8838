//! Other firewalls beside volnet: VMs are reached through them, they are not changed, and `Check`
//! reports them.

mod common;

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space, WORLD_IP};
use common::{eventually, in_namespace, run};

fn create(daemon: &Daemon, name: &str) -> Value {
    daemon.create(json!({ "name": name }))
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

/// What `iptables-persistent` does at a shutdown and at the next boot.
#[test]
fn rules_that_iptables_saved_and_put_back_are_still_volnets() {
    for others in [like_docker as fn(), like_a_firewall] {
        in_namespace(|| {
            others();
            let before = run("iptables -S");
            let daemon = Daemon::start(&[]);
            let chain = if before.contains("DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
            let ours = || {
                let rules = run("iptables -S");
                rules.lines().filter(|line| line.contains("--comment volnet ")).count()
            };
            assert_eq!(ours(), 2);
            let file = daemon.folder.join("saved");
            std::fs::write(&file, run("iptables-save")).expect("a file");
            run(&format!("iptables-restore {}", file.display()));
            assert_eq!(check(&daemon, "drift"), []);
            // Somebody restores twice, or appends what he saved.
            run(&format!("iptables-restore -n {}", file.display()));
            eventually("there is one of each", || ours() == 2);
            // A rule that says more than ours is not ours, whatever its comment.
            let theirs = format!("{chain} -i vbr0 -p tcp -m comment --comment volnet -j DROP");
            run(&format!("iptables -A {theirs}"));
            assert_eq!(check(&daemon, "drift"), []);
            run(&format!("iptables -D {theirs}"));

            let answer = daemon.call("Teardown", json!({ "force": true }));
            assert!(answer["error"].is_null(), "{answer}");
            let left = run("iptables -S");
            assert!(!left.contains("--comment volnet "), "{left}");
        });
    }
}

/// Policies, ports, limits, and sets that packets fill: all that a listing can have in it.
fn used_in_every_way() -> (Daemon, Guest) {
    let daemon = Daemon::configured(&json!({
        "nft_owner": false,
        "policies": { "web": ["allow 192.0.2.0/24 tcp/443"] },
    }));
    let network = json!({
        "policy": "web",
        "limits": { "rx_mbit": 100, "tx_mbit": 100, "pps": 10000 },
    });
    let config = json!({ "network": network, "expose": [{ "port": 80, "host_port": 8080 }] });
    let mut answer = daemon.call("Create", json!({ "name": "web", "config": config }));
    assert!(answer["error"].is_null(), "{answer}");
    let asks = json!({ "network": { "mode": "dhcp", "isolated": true } });
    let other = daemon.call("Create", json!({ "name": "asks", "config": asks }));
    assert!(other["error"].is_null(), "{other}");
    // Its ARP is a broadcast, and puts it into the set that counts those.
    let guest = Guest::of(&answer["parameters"]["vm"].take());
    nft("add element bridge volnet leases { \"vttap-asks\" . 0x00010203 . 0xc0a8 . 0x7f63 }");
    (daemon, guest)
}

#[test]
fn a_saved_ruleset_is_read_back_and_the_next_daemon_has_its_way() {
    in_namespace(|| {
        let (daemon, _guest) = used_in_every_way();
        let listing = run("nft list ruleset");
        assert!(listing.contains("limit rate over 250/second burst 250 packets expires"));
        let saved = daemon.folder.join("saved.nft");
        let filter = "table inet filter {\nchain input {\ntype filter hook input priority 0\n}\n}";
        std::fs::write(&saved, format!("flush ruleset\n{filter}\n{listing}")).expect("a file");
        in_namespace(|| {
            run(&format!("nft -f {}", saved.display()));
            let tables = run("nft list tables");
            for table in ["inet filter", "ip volnet", "ip6 volnet", "bridge volnet"] {
                assert!(tables.contains(&format!("table {table}\n")), "{tables}");
            }
            // The copy is of a host with other VMs than those of the daemon that finds it.
            let daemon = Daemon::start(&[]);
            assert_eq!(check(&daemon, "drift"), []);
            let guest = Guest::of(&create(&daemon, "db"));
            assert!(guest.reaches("192.168.127.1"));
            let ports = run("nft list set bridge volnet ports");
            assert!(ports.contains("vttap-db") && !ports.contains("vttap-web"), "{ports}");
        });
    });
}

#[test]
fn what_packets_put_into_sets_is_no_drift() {
    in_namespace(|| {
        let (daemon, _guest) = used_in_every_way();
        let tables = || run("nft -a list tables");
        let (before, storms) = (tables(), run("nft list set bridge volnet storms"));
        assert!(storms.contains("vttap-web"), "{storms}");
        assert_eq!(check(&daemon, "drift"), []);
        let setup = daemon.call("Setup", json!({ "dry_run": true }));
        assert_eq!(setup["parameters"]["plan"], json!([]));
        // A repair of something else leaves them, and what they counted, alone.
        run("sysctl -qw net.ipv4.ip_forward=0");
        eventually("it is on again", || run("sysctl -n net.ipv4.ip_forward").trim() == "1");
        run("ip link set vttap-web down");
        eventually("it is up", || run("ip -br link show vttap-web").contains(" UP "));
        assert_eq!(tables(), before);
    });
}

/// Chains of an administrator's own, what is lost by them, and what else lets a bridge through.
const BARRIERS: &[(&str, &str, &str)] = &[
    (
        "add chain inet filter own { type filter hook forward priority 0; policy drop; }",
        "guests do not reach the world",
        "add rule inet filter own iifname \"vbr*\" accept",
    ),
    (
        "add chain inet filter own { type filter hook forward priority 0; }
         add rule inet filter own ct state established accept
         add rule inet filter own counter reject with icmpx admin-prohibited",
        "guests do not reach the world",
        "insert rule inet filter own iifname { \"eth7\", \"vbr0\" } accept",
    ),
    (
        "add chain ip filter own { type filter hook input priority 0; policy drop; }",
        "guests do not reach this host",
        "insert rule ip filter own iif vbr0 accept",
    ),
    (
        "add chain bridge filter own { type filter hook prerouting priority 0; policy drop; }",
        "frames of guests are lost",
        // The kernel may know no name of a bridge here (CONFIG_NFT_BRIDGE_META).
        "",
    ),
];

#[test]
fn chains_that_drop_what_they_do_not_know_are_named() {
    for (theirs, lost, mended) in BARRIERS {
        in_namespace(|| {
            let _world = Space::world();
            let daemon = Daemon::start(&[]);
            let guest = Guest::of(&create(&daemon, "web"));
            let through = || guest.reaches("192.168.127.1") && guest.reaches(WORLD_IP);
            assert!(through());
            let mut events = daemon.connect();
            let call = json!({ "method": "io.volnet.Monitor", "more": true });
            events.send(format!("{call}\n").as_bytes());
            events.receive().expect("the state");
            let table = theirs.split_ascii_whitespace().skip(2).take(2);
            let table = table.collect::<Vec<_>>().join(" ");
            let make = format!("add table {table}\n{theirs}");

            // It comes later, and is told of with who made it.
            nft(&make);
            let event = events.receive().expect("an event")["parameters"]["event"].take();
            let message = event["message"].as_str().unwrap();
            assert!(message.contains(&format!("table {table} drops")), "{event}");
            assert!(message.ends_with(&format!("names vbr0: {lost}")), "{event}");
            assert_eq!(event["by_name"], "nft");
            assert!(!through(), "{theirs}");
            let [(level, hint)] = &check(&daemon, "firewall")[..] else { panic!("{theirs}") };
            assert_eq!(level, "warning");

            if mended.is_empty() {
                assert_eq!(hint, "nft insert rule bridge filter own ibrname vbr0 accept");
                return;
            }
            // The hint mends it.
            hint.split(" && ").for_each(|command| drop(run(command)));
            assert!(through(), "{hint}");
            assert_eq!(check(&daemon, "firewall"), [], "{hint}");
            // So do words of the administrator's own.
            nft(&format!("delete table {table}\n{make}\n{mended}"));
            assert_eq!(check(&daemon, "firewall"), [], "{mended}");
        });
    }
}

/// A daemon whose network has IPv6 or not.
fn with_ipv6(ipv6: bool) -> Daemon {
    let network = json!({ "subnet": "192.168.127.0/24", "ipv6": ipv6 });
    Daemon::configured(&json!({ "networks": [network] }))
}

/// The world with an IPv6 address, which is also the host's way there.
fn world_of_ipv6() -> Space {
    let world = Space::world();
    world.run("ip addr add 2001:db8:77::2/64 dev eth0 nodad");
    run("ip addr add 2001:db8:77::1/64 dev uplink nodad");
    world
}

/// What Docker does to IPv6, if that is on.
fn like_docker_with_ipv6() {
    run("ip6tables -P FORWARD DROP");
    run("ip6tables -N DOCKER-USER");
    run("ip6tables -A DOCKER-USER -j RETURN");
    run("ip6tables -A FORWARD -j DOCKER-USER");
}

#[test]
fn vms_reach_the_outside_by_ipv6_though_others_drop_what_is_forwarded() {
    let drops = || drop(run("ip6tables -P FORWARD DROP"));
    for (others, chain) in [(like_docker_with_ipv6 as fn(), "DOCKER-USER"), (drops, "FORWARD")] {
        in_namespace(|| {
            let _world = world_of_ipv6();
            others();
            let before = run("ip6tables -S");
            let daemon = with_ipv6(true);
            let vm = create(&daemon, "web");
            let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
            let gateway = networks[0]["host_ip6"].as_str().expect("an address");
            let guest = Guest::of(&vm).with_ipv6(&vm, gateway);
            assert!(guest.reaches("2001:db8:77::2"));
            assert_eq!(check(&daemon, "firewall"), []);
            let ours = || {
                let rules = run("ip6tables -S");
                let ours = rules.lines().filter(|line| line.contains("--comment volnet "));
                ours.filter(|line| line.starts_with(&format!("-A {chain} "))).count()
            };
            assert_eq!((ours(), run("iptables -S").matches("volnet").count()), (2, 0));
            // Somebody takes them away, and they come back.
            run(&format!("ip6tables -D {chain} 1"));
            eventually("both are there", || ours() == 2);
            let answer = daemon.call("Teardown", json!({ "force": true }));
            assert!(answer["error"].is_null(), "{answer}");
            assert_eq!(run("ip6tables -S"), before);
        });
    }
    in_namespace(|| {
        like_docker_with_ipv6();
        let before = run("ip6tables -S");
        let _daemon = with_ipv6(false);
        assert_eq!(run("ip6tables -S"), before, "no guest speaks IPv6");
    });
}

#[test]
fn chains_that_drop_ipv6_are_named_if_a_network_has_ipv6() {
    in_namespace(|| {
        run("ip6tables -t mangle -P FORWARD DROP");
        assert_eq!(check(&with_ipv6(false), "firewall"), []);
    });
    in_namespace(|| {
        run("ip6tables -t mangle -P FORWARD DROP");
        let _world = world_of_ipv6();
        let daemon = with_ipv6(true);
        let vm = create(&daemon, "web");
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let gateway = networks[0]["host_ip6"].as_str().expect("an address");
        let guest = Guest::of(&vm).with_ipv6(&vm, gateway);
        assert!(guest.reaches(gateway) && !guest.reaches("2001:db8:77::2"));
        let [(level, hint)] = &check(&daemon, "firewall")[..] else { panic!("one finding") };
        assert_eq!(level, "warning");
        hint.split(" && ").for_each(|command| drop(run(command)));
        assert!(guest.reaches("2001:db8:77::2"), "{hint}");
        assert_eq!(check(&daemon, "firewall"), [], "{hint}");
    });
}

/// What firewalld makes in its panic mode. It owns its other table while it runs.
#[test]
fn what_only_its_owner_can_mend_has_no_rule_to_type() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let drops = "chain drops { type filter hook prerouting priority -310; policy drop; }";
        nft(&format!("table inet firewalld_policy_drop {{ {drops}; }}"));
        assert_eq!(check(&daemon, "firewall"), warning("firewall-cmd --panic-off"));
        nft("delete table inet firewalld_policy_drop");
        assert_eq!(check(&daemon, "firewall"), []);

        let mut owner = std::process::Command::new("nft");
        let owner = owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null());
        let mut owner = owner.spawn().expect("nft");
        let table = format!("add table inet own {{ flags owner; {drops}; }}\n");
        owner.stdin.as_mut().unwrap().write_all(table.as_bytes()).expect("nft reads");
        eventually("the table is there", || check(&daemon, "firewall") == warning(""));
        drop(owner.stdin.take());
        owner.wait().expect("nft ends");
        assert_eq!(check(&daemon, "firewall"), []);
    });
}

/// A bridge is a router of IPv6, or its guests lose their way. Of an uplink it is no matter.
#[test]
fn a_bridge_that_is_no_router_of_ipv6_is_named() {
    in_namespace(|| {
        let _world = world_of_ipv6();
        let daemon = with_ipv6(true);
        let mut events = daemon.connect();
        let call = json!({ "method": "io.volnet.Monitor", "more": true });
        events.send(format!("{call}\n").as_bytes());
        events.receive().expect("the state");
        run("sysctl -qw net.ipv6.conf.uplink.forwarding=0");
        run("sysctl -qw net.ipv6.conf.vbr0.forwarding=0");
        let event = events.receive().expect("an event")["parameters"]["event"].take();
        let message = event["message"].as_str().unwrap_or_default();
        assert!(message.contains("net.ipv6.conf.vbr0.forwarding is off"), "{event}");
        let hint = "sysctl -w net/ipv6/conf/vbr0/forwarding=1";
        assert_eq!(check(&daemon, "forwarding"), warning(hint));
        run(hint);
        assert_eq!(check(&daemon, "forwarding"), []);
    });
    in_namespace(|| {
        let daemon = with_ipv6(false);
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        run("sysctl -qw net.ipv6.conf.vbr0.forwarding=0");
        assert_eq!(check(&daemon, "forwarding"), [], "no guest speaks IPv6");
    });
}

/// As `IPv4Forwarding=no` in a file of systemd-networkd has it.
#[test]
fn a_link_that_does_not_forward_is_named_and_the_command_mends_it() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = Daemon::start(&[]);
        let guest = Guest::of(&create(&daemon, "web"));
        let mut events = daemon.connect();
        let call = json!({ "method": "io.volnet.Monitor", "more": true });
        events.send(format!("{call}\n").as_bytes());
        events.receive().expect("the state");
        for link in ["uplink", "vbr0"] {
            run(&format!("sysctl -qw net.ipv4.conf.{link}.forwarding=0"));
            assert!(!guest.reaches(WORLD_IP), "{link}");
            let event = events.receive().expect("an event")["parameters"]["event"].take();
            let message = event["message"].as_str().unwrap();
            assert!(
                message.contains(&format!("net.ipv4.conf.{link}.forwarding is off")),
                "{event}"
            );
            let hint = format!("sysctl -w net/ipv4/conf/{link}/forwarding=1");
            assert_eq!(check(&daemon, "forwarding"), warning(&hint));
            run(&hint);
            assert!(guest.reaches(WORLD_IP), "{link}");
            assert_eq!(check(&daemon, "forwarding"), []);
        }
        // A tap is a port: what comes in by it is the bridge's.
        run("sysctl -qw net.ipv4.conf.vttap-web.forwarding=0");
        assert!(guest.reaches(WORLD_IP));
        assert_eq!(check(&daemon, "forwarding"), []);
    });
}

#[test]
fn teardown_leaves_forwarding_to_those_who_came_to_need_it() {
    in_namespace(|| {
        let forwarding = || run("sysctl -n net.ipv4.ip_forward").trim().to_string();
        run("sysctl -qw net.ipv4.ip_forward=0");
        let daemon = Daemon::start(&[]);
        assert_eq!(forwarding(), "1");
        run("iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE");
        let teardown = || daemon.call("Teardown", json!({ "force": true }));
        let plan = teardown()["parameters"]["plan"].to_string();
        assert!(plan.contains("IPv4 forwarding stays on: table ip nat has source NAT"), "{plan}");
        assert_eq!(forwarding(), "1");
        // Nobody needs it any more. What it is then, is as it was before the first of two setups.
        run("iptables -t nat -F");
        run("sysctl -qw net.ipv4.ip_forward=0");
        assert!(daemon.call("Setup", json!({}))["error"].is_null());
        assert_eq!(forwarding(), "1");
        let plan = teardown()["parameters"]["plan"].to_string();
        assert!(!plan.contains("stays on"), "{plan}");
        assert_eq!(forwarding(), "0");
    });
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

/// The findings of `Check` on one thing: level and hint of each.
fn check(daemon: &Daemon, what: &str) -> Vec<(String, String)> {
    let answer = daemon.call("Check", json!({}));
    let findings =
        answer["parameters"]["findings"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let of_interest = findings.iter().filter(|finding| finding["check"] == what);
    of_interest.map(|finding| (text(&finding["level"]), text(&finding["hint"]))).collect()
}

fn warning(hint: &str) -> Vec<(String, String)> {
    vec![("warning".into(), hint.into())]
}

fn fine() -> Vec<(String, String)> {
    vec![("ok".into(), String::new())]
}

fn nft(script: &str) {
    let output = std::process::Command::new("nft").arg(script).output().expect("nft");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn firewalld_is_seen_with_what_it_needs() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = Daemon::start(&[]);
        let guest = Guest::of(&create(&daemon, "web"));
        assert!(guest.reaches(WORLD_IP));
        assert_eq!(check(&daemon, "firewalld"), []);
        // What firewalld 1.3 makes of a zone `public` for the uplink, as far as it matters here.
        nft("add table inet firewalld
            add chain inet firewalld filter_FORWARD {
                type filter hook forward priority filter + 10; }
            add chain inet firewalld filter_FORWARD_ZONES
            add chain inet firewalld filter_FWD_public
            add chain inet firewalld filter_FWD_trusted { accept; }
            add rule inet firewalld filter_FORWARD ct state { established, related } accept
            add rule inet firewalld filter_FORWARD iifname \"lo\" accept
            add rule inet firewalld filter_FORWARD jump filter_FORWARD_ZONES
            add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited
            add rule inet firewalld filter_FORWARD_ZONES iifname \"uplink\" goto filter_FWD_public
            add rule inet firewalld filter_FORWARD_ZONES goto filter_FWD_public");
        assert!(!guest.reaches(WORLD_IP));
        let hint = "firewall-cmd --permanent --zone=trusted --add-interface=vbr0 && \
                    firewall-cmd --reload";
        assert_eq!(check(&daemon, "firewalld"), warning(hint));
        // What these commands come to.
        nft("insert rule inet firewalld filter_FORWARD_ZONES iifname \"vbr0\" \
             goto filter_FWD_trusted");
        assert!(guest.reaches(WORLD_IP));
        assert_eq!(check(&daemon, "firewalld"), fine());
    });
}

#[test]
fn ufw_is_seen_with_what_it_needs() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = Daemon::start(&[]);
        let guest = Guest::of(&create(&daemon, "web"));
        assert_eq!(check(&daemon, "ufw"), []);
        // What `ufw enable` makes, as far as it matters here.
        for words in [
            "-P INPUT DROP",
            "-P FORWARD DROP",
            "-N ufw-user-input",
            "-N ufw-user-forward",
            "-A INPUT -j ufw-user-input",
            "-A FORWARD -j ufw-user-forward",
            "-A ufw-user-input -p tcp --dport 22 -j ACCEPT",
        ] {
            run(&format!("iptables {words}"));
        }
        eventually("volnet's rules are there", || guest.reaches(WORLD_IP));
        assert!(!guest.reaches("192.168.127.1"));
        assert_eq!(check(&daemon, "ufw"), warning("ufw allow in on vbr0"));
        run("iptables -A ufw-user-input -i vbr0 -j ACCEPT");
        assert!(guest.reaches("192.168.127.1"));
        assert_eq!(check(&daemon, "ufw"), fine());
    });
}

#[test]
fn rules_of_iptables_legacy_are_seen() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = Daemon::start(&[]);
        let guest = Guest::of(&create(&daemon, "web"));
        assert!(guest.reaches(WORLD_IP));
        assert_eq!(check(&daemon, "iptables-legacy"), []);
        run("iptables-legacy -P FORWARD DROP");
        assert!(!guest.reaches(WORLD_IP));
        let found = check(&daemon, "iptables-legacy");
        let hint = found[0].1.clone();
        assert_eq!(found, warning(&hint));
        // The hint mends it.
        hint.split(" && ").for_each(|command| drop(run(command)));
        assert!(guest.reaches(WORLD_IP), "{hint}");
    });
}
