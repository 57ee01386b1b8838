//! Exposed ports and policies, on the real kernel. Guests are namespaces behind their taps.

#![cfg(target_os = "linux")]

mod common;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::flow::{Flow, Running, ask, serve};
use common::space::{Guest, Space, WORLD_IP};
use common::{eventually, in_namespace, run};

/// The host, as the world and its guests know it.
const HOST: &str = "203.0.113.1";
const GATEWAY: &str = "192.168.127.1";

fn create(daemon: &Daemon, name: &str, config: Value) -> Value {
    daemon.create(json!({ "name": name, "config": config }))
}

/// Runs the command line tool, which must succeed, and gives what it printed.
fn volnet(daemon: &Daemon, line: &str) -> String {
    let output = try_volnet(daemon, line);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_volnet(daemon: &Daemon, line: &str) -> Output {
    let mut command = Command::new(&daemon.program);
    command.args(line.split(' ')).env("VOLNET_SOCKET", daemon.socket());
    command.output().expect("volnet runs")
}

#[test]
fn a_port_of_the_host_leads_to_a_guest_from_everywhere() {
    in_namespace(|| {
        run("ip link set lo up");
        let world = Space::world();
        let mut daemon = Daemon::start(&[]);
        let expose = json!([
            { "port": 80, "host_port": 8080, "name": "web" },
            { "protocol": "udp", "port": 80, "host_port": 5353 }
        ]);
        let vm = create(&daemon, "web", json!({ "expose": expose }));
        assert_eq!(vm["expose"][0]["host_port"], 8080, "{vm}");
        let web = Guest::of(&vm);
        let other = Guest::of(&create(&daemon, "other", json!({})));
        let _server = serve(&web.space, 80);
        let reached = |daemon: &Daemon, bridged: &str| {
            // Whether others have bridged frames go through the rules of what is routed.
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged);
            for (protocol, port) in [("tcp", 8080), ("udp", 5353)] {
                let ask = |from, address| ask(from, protocol, address, port);
                let from = |address: &str| Some(address.to_string());
                let log = || format!("{protocol}\n{}", daemon.log());
                assert_eq!(ask(Some(&world), HOST), from(WORLD_IP), "outside {}", log());
                assert_eq!(ask(None, HOST), from(HOST), "the host {}", log());
                assert_eq!(ask(None, GATEWAY), from(GATEWAY), "the host {}", log());
                for address in [HOST, GATEWAY] {
                    let neighbour = ask(Some(&other.space), address);
                    assert_eq!(neighbour, from(GATEWAY), "a neighbour {}", log());
                    let itself = ask(Some(&web.space), address);
                    // Then the bridge would have to send a frame back to where it came from.
                    let expected = from(GATEWAY).filter(|_| bridged == "0");
                    assert_eq!(itself, expected, "itself {}", log());
                }
                assert_eq!(ask(None, "127.0.0.1"), None, "loopback stays on the host");
            }
        };
        reached(&daemon, "1");
        reached(&daemon, "0");
        // What a guest has to say to others on that port is none of the host's business.
        assert_eq!(ask(Some(&other.space), "tcp", WORLD_IP, 8080), None);
        daemon.crash();
        daemon.start_again();
        reached(&daemon, "0");
    });
}

/// The world and the host by IPv6.
const WORLD_IP6: &str = "2001:db8:77::2";
const HOST6: &str = "2001:db8:77::1";

#[test]
fn a_port_leads_to_both_addresses_of_a_guest_or_to_one() {
    in_namespace(|| {
        run("ip link set lo up");
        let world = Space::world();
        world.run(&format!("ip addr add {WORLD_IP6}/64 dev eth0 nodad"));
        run(&format!("ip addr add {HOST6}/64 dev uplink nodad"));
        let mut daemon = Daemon::configured(&json!({ "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24", "ipv6": true },
            { "name": "old", "bridge": "vbr1", "subnet": "192.168.128.0/24" },
        ] }));
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let gateway6 = networks[0]["host_ip6"].as_str().expect("an address").to_string();
        let guest = |name: &str, config: Value| {
            let vm = create(&daemon, name, config);
            Guest::of(&vm).with_ipv6(&vm, &gateway6)
        };
        let expose = json!([
            { "port": 80, "host_port": 8080 },
            { "port": 80, "host_port": 5353, "protocol": "udp" },
            { "port": 80, "host_port": 8081, "host_ip": "::" },
            { "port": 80, "host_port": 8082, "host_ip": "0.0.0.0" },
            { "port": 80, "host_port": 8083, "host_ip": HOST6 },
        ]);
        let web = guest("web", json!({ "expose": expose, "network": { "policy": "none" } }));
        let other = guest("other", json!({ "network": { "isolated": true } }));
        let _server = serve(&web.space, 80);
        // Otherwise a guest does not reach itself, as by IPv4.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
        let reached = |daemon: &Daemon| {
            let from = |address: &str| Some(address.to_string());
            for (protocol, port) in [("tcp", 8080), ("udp", 5353), ("tcp", 8081), ("tcp", 8083)] {
                let ask = |from, address: &str| ask(from, protocol, address, port);
                let log = || format!("{protocol} {port}\n{}", daemon.log());
                assert_eq!(ask(Some(&world), HOST6), from(WORLD_IP6), "outside {}", log());
                assert_eq!(ask(None, HOST6), from(HOST6), "the host {}", log());
                for neighbour in [&other, &web] {
                    let known_as = ask(Some(&neighbour.space), HOST6);
                    assert_eq!(known_as, from(&gateway6), "a guest {}", log());
                }
                let at_gateway = from(&gateway6).filter(|_| port != 8083);
                assert_eq!(ask(None, &gateway6), at_gateway, "the host {}", log());
                assert_eq!(ask(None, "::1"), None, "loopback stays on the host");
            }
            let by_ipv4 = [8080, 8081, 8082, 8083].map(|port| ask(Some(&world), "tcp", HOST, port));
            assert_eq!(by_ipv4, [from(WORLD_IP), None, from(WORLD_IP), None]);
            assert_eq!(ask(Some(&world), "tcp", HOST6, 8082), None);
        };
        reached(&daemon);
        daemon.crash();
        run("nft flush map ip6 volnet exposed");
        daemon.start_again();
        assert_eq!(run("nft list map ip6 volnet exposed").matches(" : fd").count(), 3);
        reached(&daemon);

        // Who has a port, and who listens on it, is refused.
        let sshd = std::net::TcpListener::bind(format!("[{HOST6}]:22")).unwrap();
        for line in [
            "expose other [::]:8080:80",
            "expose other [2001:db8:77::9]:8081:80",
            "expose other 22",
            "expose other [::]:22:22",
            "expose other [::1]:9090:80",
            "expose other [fe80::1]:9090:80",
        ] {
            assert!(!try_volnet(&daemon, line).status.success(), "{line}");
        }
        volnet(&daemon, "expose other 0.0.0.0:22:22");
        volnet(&daemon, "unexpose other 0.0.0.0:22:22");
        volnet(&daemon, "create old --network old --expose 22");
        let refused = try_volnet(&daemon, "expose old [::]:9090:80");
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(words.contains("the VM has no IPv6 address"), "{words}");
        drop(sshd);

        // A port that is taken back takes its connections along.
        let flow = |from, host| Flow::open(from, "tcp", host, 8080);
        let mut flows = [flow(Some(&world), HOST6), flow(Some(&world), HOST), flow(None, HOST6)];
        for flow in &mut flows {
            assert_eq!(flow.echo("hello"), "hello", "{:?}", flow.known_as);
        }
        let shown = volnet(&daemon, "unexpose web tcp:8080:80");
        assert!(shown.contains("tcp:[::]:8081:80 tcp:0.0.0.0:8082:80"), "{shown}");
        let tracked = || ["ipv4", "ipv6"].map(|of| run(&format!("conntrack -L -f {of} -p tcp")));
        eventually("its connections are gone", || {
            !tracked().iter().any(|flows| flows.contains("dport=8080 "))
        });
        for flow in &mut flows {
            let echo = flow.echo("still there?");
            assert!(echo.starts_with("gone") || echo == "end", "{echo}");
        }
        assert_eq!(ask(Some(&world), "tcp", HOST6, 8080), None);
        volnet(&daemon, "delete web");
        assert_eq!(run("nft list map ip6 volnet exposed").matches(" : fd").count(), 0);
    });
}

#[test]
fn a_port_is_exposed_and_taken_back_while_the_guest_runs() {
    in_namespace(|| {
        run("ip link set lo up");
        let world = Space::world();
        let daemon = Daemon::start(&[]);
        let web = Guest::of(&create(&daemon, "web", json!({})));
        let other = Guest::of(&create(&daemon, "other", json!({})));
        let _server = serve(&web.space, 80);
        assert_eq!(ask(Some(&world), "tcp", HOST, 8080), None);
        let rules = || run("nft list ruleset").matches(" accept").count();
        let before = rules();

        let shown = volnet(&daemon, "expose web tcp:8080:80");
        assert!(shown.contains("expose       tcp:8080:80\n"), "{shown}");
        volnet(&daemon, "expose web udp:203.0.113.1:5353:80");
        assert_eq!(volnet(&daemon, "expose web tcp:8080:80").lines().count(), {
            shown.lines().count()
        });
        assert_eq!(ask(Some(&world), "udp", HOST, 5353).as_deref(), Some(WORLD_IP));
        assert_eq!(ask(None, "udp", GATEWAY, 5353), None, "not of this address");
        assert_eq!(rules(), before);

        let taken = try_volnet(&daemon, "expose other tcp:203.0.113.1:8080:22");
        let words = String::from_utf8_lossy(&taken.stderr).into_owned();
        assert_eq!(taken.status.code(), Some(1));
        assert!(words.contains("tcp port 8080 of the host belongs to web"), "{words}");
        let config = json!({ "expose": [{ "port": 8080 }] });
        let answer = daemon.call("Create", json!({ "name": "third", "config": config }));
        assert_eq!(answer["error"], "io.volnet.PortInUse", "{answer}");
        assert_eq!(answer["parameters"]["owner"], "web");

        let flow = |from| Flow::open(from, "tcp", HOST, 8080);
        let mut flows = [flow(Some(&world)), flow(None), flow(Some(&other.space))];
        for flow in &mut flows {
            assert!(flow.known_as.is_some());
            assert_eq!(flow.echo("hello"), "hello");
        }
        let shown = volnet(&daemon, "unexpose web tcp:8080:80");
        assert!(shown.contains("expose       udp:203.0.113.1:5353:80\n"), "{shown}");
        let tracked = || run("conntrack -L -p tcp").contains("dport=8080 ");
        eventually("its connections are gone", || !tracked());
        for flow in &mut flows {
            let echo = flow.echo("still there?");
            assert!(echo.starts_with("gone") || echo == "end", "{echo}");
        }
        for from in [Some(&world), None, Some(&other.space)] {
            assert_eq!(ask(from, "tcp", HOST, 8080), None);
        }
        assert_eq!(ask(Some(&world), "udp", HOST, 5353).as_deref(), Some(WORLD_IP));
        volnet(&daemon, "expose other tcp:8080:22");
        volnet(&daemon, "delete web");
        assert_eq!(run("nft -j list map ip volnet exposed_at").matches("elem").count(), 0);
    });
}

#[test]
fn a_port_on_which_the_host_listens_is_not_taken_from_it() {
    in_namespace(|| {
        run("ip link set lo up");
        let world = Space::world();
        let daemon = Daemon::start(&[]);
        let vm = create(&daemon, "web", json!({}));
        let guest = Guest::of(&vm);
        let _service = serve(&guest.space, 2022);
        let by_loopback = std::net::TcpListener::bind("127.0.0.1:2023").unwrap();
        let mut sshd = Command::new("setpriv");
        sshd.args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "nc", "-lk", "2022"]);
        let sshd = Running(sshd.stdin(Stdio::piped()).spawn().expect("setpriv"));
        eventually("it listens", || run("ss -Hltn").contains(":2022 "));
        for line in ["expose web 2022", "create db --expose 2022", "expose web tcp:2020-2029"] {
            let refused = try_volnet(&daemon, line);
            let words = String::from_utf8_lossy(&refused.stderr).into_owned();
            let who = format!("process {} (", sshd.0.id());
            assert!(!refused.status.success() && words.contains(&who), "{line}: {words}");
        }
        let of_root = std::net::TcpListener::bind("[::]:2024").unwrap();
        let refused = try_volnet(&daemon, "expose web 2024");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("on this host"), "{refused:?}");
        drop(of_root);
        let refused = try_volnet(&daemon, "expose web 127.0.0.1:8080:80");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("host_ip"));
        volnet(&daemon, "expose web 2023:2022");
        drop(by_loopback);
        assert_eq!(ask(Some(&world), "tcp", HOST, 2023).as_deref(), Some(WORLD_IP));

        volnet(&daemon, "expose web 2022 --force");
        assert_eq!(ask(Some(&world), "tcp", HOST, 2022).as_deref(), Some(WORLD_IP));
        let findings = daemon.call("Check", json!({}))["parameters"]["findings"].to_string();
        assert!(findings.contains("listens on tcp 2022, which leads to VM web"), "{findings}");
        assert!(findings.contains("\"volnet unexpose web tcp:2022:2022\""), "{findings}");
        drop(sshd);
        let findings = daemon.call("Check", json!({}))["parameters"]["findings"].to_string();
        assert!(!findings.contains("tcp 2022"), "{findings}");
    });
}

/// What Docker does for a container that publishes the port.
#[test]
fn an_exposed_port_leads_to_the_guest_whoever_else_translates_it() {
    let publish = || {
        for chain in ["PREROUTING", "OUTPUT"] {
            run(&format!(
                "iptables -t nat -A {chain} -p tcp --dport 8080 -m addrtype --dst-type LOCAL \
                 -j REDIRECT --to-ports 9"
            ));
        }
    };
    for earlier in [true, false] {
        in_namespace(|| {
            run("ip link set lo up");
            let world = Space::world();
            if earlier {
                publish();
            }
            let daemon = Daemon::start(&[]);
            let expose = json!([{ "port": 80, "host_port": 8080 }]);
            let web = Guest::of(&create(&daemon, "web", json!({ "expose": expose })));
            let _server = serve(&web.space, 80);
            if !earlier {
                publish();
            }
            assert_eq!(ask(Some(&world), "tcp", HOST, 8080).as_deref(), Some(WORLD_IP));
            assert_eq!(ask(None, "tcp", HOST, 8080).as_deref(), Some(HOST));
            volnet(&daemon, "unexpose web tcp:8080:80");
            assert_eq!(ask(Some(&world), "tcp", HOST, 8080), None);
        });
    }
}

#[test]
fn a_range_of_ports_leads_to_a_range_of_the_guest() {
    in_namespace(|| {
        let world = Space::world();
        let daemon = Daemon::start(&[]);
        let ports = json!([
            { "protocol": "udp", "port": 5000, "host_port": 30000, "count": 200 },
            { "protocol": "sctp", "port": 2905 },
            { "port": 5199, "host_port": 0 },
        ]);
        let vm = create(&daemon, "web", json!({ "expose": ports }));
        let guest = Guest::of(&vm);
        let _service = serve(&guest.space, 5199);
        assert_eq!(ask(Some(&world), "udp", HOST, 30199).as_deref(), Some(WORLD_IP));
        let any = vm["expose"][2]["host_port"].as_u64().unwrap();
        assert_eq!(ask(Some(&world), "tcp", HOST, any as u16).as_deref(), Some(WORLD_IP));
        assert!(run("nft list map ip volnet exposed").contains("sctp . 2905"));
        volnet(&daemon, "unexpose web udp:30000-30199:5000-5199");
        assert_eq!(ask(Some(&world), "udp", HOST, 30199), None);
        assert_eq!(ask(Some(&world), "tcp", HOST, any as u16).as_deref(), Some(WORLD_IP));
    });
}

#[test]
fn a_map_that_others_change_is_put_right() {
    in_namespace(|| {
        let world = Space::world();
        let daemon = Daemon::start(&["--nft-owner", "no"]);
        let expose = json!([{ "port": 80, "host_port": 8080 }]);
        let web = Guest::of(&create(&daemon, "web", json!({ "expose": expose })));
        let _server = serve(&web.space, 80);
        let reached = |port| ask(Some(&world), "tcp", HOST, port).is_some();
        for change in [
            "nft delete element ip volnet exposed { tcp . 8080 }",
            "nft flush map ip volnet exposed",
            "nft delete table ip volnet",
        ] {
            assert!(reached(8080), "before {change}");
            run(change);
            eventually("it is reached again", || reached(8080));
        }
        run("nft add element ip volnet exposed { tcp . 9090 : 192.168.127.2 . 80 }");
        eventually("nothing more leads there", || !reached(9090));
    });
}

/// What the world has beside its own address: private, shared, and where clouds have their
/// metadata.
const PRIVATE: &str = "10.9.9.9";
const SHARED: &str = "100.64.0.9";
const METADATA: &str = "169.254.169.254";

/// A world that has all of these addresses, and a server on each.
fn wide_world() -> (Space, Running) {
    let world = Space::world();
    for address in [PRIVATE, SHARED, METADATA] {
        world.run(&format!("ip addr add {address}/32 dev lo"));
        run(&format!("ip route add {address}/32 via {WORLD_IP}"));
    }
    let server = serve(&world, 80);
    (world, server)
}

/// Packets that a VM was allowed and denied.
fn counted(daemon: &Daemon, vm: &str) -> (u64, u64) {
    let answer = daemon.call("Metrics", json!({}));
    let text = answer["parameters"]["text"].as_str().expect("a text").to_string();
    let count = |verdict: &str| {
        let name = format!("volnet_sent_packets_total{{vm=\"{vm}\",verdict=\"{verdict}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().expect("a number")
    };
    (count("allowed"), count("denied"))
}

#[test]
fn a_policy_says_where_a_guest_gets() {
    in_namespace(|| {
        run("ip link set lo up");
        let (world, _server) = wide_world();
        let daemon = Daemon::configured(&json!({
            "policies": {
                "list": [
                    "deny 203.0.113.2/32 tcp/80", "allow 10.0.0.0/8", "allow 203.0.113.0/24 udp/80"
                ]
            }
        }));
        let vm = create(&daemon, "web", json!({}));
        assert_eq!(vm["policy"], "open");
        let web = Guest::of(&vm);
        let expose = json!([{ "port": 80, "host_port": 8080 }]);
        let other = Guest::of(&create(&daemon, "other", json!({ "expose": expose })));
        let other_ip = daemon.call("Get", json!({ "name": "other" }));
        let other_ip = other_ip["parameters"]["vm"]["ip"].as_str().expect("an address").to_string();
        let _other = serve(&other.space, 80);
        let _web = serve(&web.space, 80);
        let rules = || run("nft list chain ip volnet policies");
        let before = rules();
        for (policy, world_ip, private, shared) in [
            ("open", true, true, true),
            ("internet", true, false, false),
            ("none", false, false, false),
            ("list", false, true, false),
        ] {
            volnet(&daemon, &format!("policy web {policy}"));
            for bridged in ["0", "1"] {
                let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged);
                let reaches = |address: &str| ask(Some(&web.space), "tcp", address, 80).is_some();
                assert_eq!(reaches(WORLD_IP), world_ip, "{policy}: the world\n{}", rules());
                assert_eq!(reaches(PRIVATE), private, "{policy}: what is private\n{}", rules());
                assert_eq!(reaches(SHARED), shared, "{policy}: what is shared");
                assert!(!reaches(METADATA), "{policy}: the metadata service");
                assert!(reaches(&other_ip), "{policy}: a neighbour");
            }
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            assert!(web.reaches(GATEWAY), "{policy}: the gateway");
            let through = ask(Some(&web.space), "tcp", HOST, 8080).is_some();
            // From one port of a bridge to another it stays within the network.
            assert!(through, "{policy}: what a neighbour exposes");
            // Answers to others pass.
            volnet(&daemon, "expose web tcp:8081:80");
            assert!(ask(Some(&world), "tcp", HOST, 8081).is_some(), "{policy}: from outside");
        }
        assert!(ask(Some(&web.space), "udp", WORLD_IP, 80).is_some(), "by protocol and port");
        assert_eq!(before.lines().count(), rules().lines().count());
        let answer = daemon.call("SetPolicy", json!({ "name": "web", "policy": "nonesuch" }));
        assert_eq!(answer["parameters"]["field"], "network.policy", "{answer}");
    });
}

#[test]
fn a_network_has_a_policy_for_vms_that_have_none_of_their_own() {
    in_namespace(|| {
        let (_world, _server) = wide_world();
        let daemon = Daemon::configured(&json!({
            "networks": [
                { "policy": "internet" },
                {
                    "name": "theirs", "bridge": "vbr1", "subnet": "192.168.130.0/24",
                    "nat": false, "dhcp": "external"
                }
            ]
        }));
        let vm = create(&daemon, "web", json!({}));
        assert_eq!(vm["policy"], "internet");
        let web = Guest::of(&vm);
        let own = json!({ "network": { "policy": "open" } });
        let other = Guest::of(&create(&daemon, "other", own));
        let reaches =
            |guest: &Guest, address| ask(Some(&guest.space), "tcp", address, 80).is_some();
        assert!(reaches(&web, WORLD_IP) && !reaches(&web, PRIVATE));
        assert!(reaches(&other, WORLD_IP) && reaches(&other, PRIVATE));
        // By an address that nobody knows beforehand a guest cannot be told.
        let config = json!({ "network": { "name": "theirs", "mode": "dhcp", "policy": "none" } });
        let answer = daemon.call("Create", json!({ "name": "asks", "config": config }));
        assert_eq!(answer["parameters"]["field"], "network.policy", "{answer}");
    });
}

#[test]
fn a_policy_that_changes_holds_for_connections_that_stand_and_is_counted() {
    in_namespace(|| {
        let (world, _server) = wide_world();
        let mut daemon = Daemon::start(&[]);
        let config = json!({ "network": { "policy": "internet" } });
        let web = Guest::of(&create(&daemon, "web", config));
        let other = Guest::of(&create(&daemon, "other", json!({})));
        let mut flow = Flow::open(Some(&web.space), "tcp", WORLD_IP, 80);
        assert_eq!(flow.echo("hello"), "hello");
        eventually("the guest has acknowledged all, and sends nothing more", || {
            let sockets = world.run("ss -Hnt state established sport = :80");
            // Recv-Q, Send-Q, the addresses.
            sockets.lines().count() == 1 && sockets.split_whitespace().nth(1) == Some("0")
        });
        let (allowed, denied) = counted(&daemon, "web");
        assert!(allowed >= 4 && denied == 0, "{allowed} {denied}");
        assert_eq!(counted(&daemon, "other"), (0, 0));

        volnet(&daemon, "policy web none");
        assert!(flow.echo("still there?").starts_with("gone"));
        assert_eq!(counted(&daemon, "web").0, allowed);
        assert!(counted(&daemon, "web").1 >= 1);
        // Of an answer nothing is counted, and one that is not let out has none.
        for (policy, to, count) in
            [("open", WORLD_IP, (1, 0)), ("internet", PRIVATE, (1, 1)), ("none", WORLD_IP, (1, 2))]
        {
            volnet(&daemon, &format!("policy other {policy}"));
            let answered = ask(Some(&other.space), "udp", to, 80).is_some();
            assert_eq!(answered, policy == "open");
            assert_eq!(counted(&daemon, "other"), count, "{policy}");
        }
        daemon.crash();
        daemon.start_again();
        assert!(ask(Some(&web.space), "tcp", WORLD_IP, 80).is_none());
        volnet(&daemon, "policy web open");
        assert!(ask(Some(&web.space), "tcp", PRIVATE, 80).is_some());
        volnet(&daemon, "delete web");
        for set in ["policy_none", "allowed", "denied"] {
            let list = run(&format!("nft list set ip volnet {set}"));
            assert_eq!(list.matches("192.168.127.").count(), 1, "{list}");
        }
    });
}
