//! VMs on several networks: a tap, an address and a policy for each, and one life for all. The real
//! daemon on the real kernel; `ip` and `nft` look, and guests send.

#![cfg(target_os = "linux")]

mod common;

use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::shown::shown;
use common::space::{Guest, Space, WORLD_IP};
use common::{eventually, in_namespace, ip_link, json as tool, link_exists, run};

/// Two networks, whose guests volnet gives their addresses.
fn daemon() -> Daemon {
    Daemon::configured(&json!({
        "networks": [
            { "name": "front" },
            { "name": "back", "bridge": "vbr1", "subnet": "10.9.0.0/24", "nat": true },
        ],
        "hypervisors": { "plain": { "program": "sleep", "args": [["100000"]] } },
    }))
}

fn create(daemon: &Daemon, name: &str, config: &Value) -> Value {
    daemon.create(json!({ "name": name, "config": config }))
}

fn get(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take()
}

fn done(answer: &Value) {
    assert!(answer["error"].is_null(), "{answer}");
}

/// Where the error of a request says that it is wrong.
fn refused(answer: &Value) -> (&str, &str) {
    let text = |field: &str| answer["parameters"][field].as_str().unwrap_or_default();
    assert_eq!(answer["error"], "io.volnet.InvalidConfig", "{answer}");
    (text("field"), text("reason"))
}

/// The links that carry the mark of a VM's NIC: name, mark, bridge.
fn taps() -> Vec<[String; 3]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let links = tool("ip -j link show");
    let links = links.as_array().unwrap().iter();
    let taps = links.map(|link| ["ifname", "ifalias", "master"].map(|field| text(&link[field])));
    let mut taps: Vec<_> =
        taps.filter(|[_, alias, _]| alias.starts_with("volnet:") && alias.len() > 7).collect();
    taps.sort_by(|one, other| one[1].cmp(&other[1]));
    taps
}

/// How many addresses and ports are in use, network by network.
fn in_use(daemon: &Daemon) -> Vec<[u64; 2]> {
    let answer = daemon.call("Networks", json!({}));
    let networks = answer["parameters"]["networks"].as_array().unwrap().iter();
    networks.map(|network| ["leased", "ports"].map(|it| network[it].as_u64().unwrap())).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

#[test]
fn a_vm_on_two_networks_has_two_taps_two_addresses_and_a_policy_each() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = daemon();
        run("sysctl -qw net.ipv4.ip_forward=1");
        let networks = json!([{}, { "name": "back", "policy": "none", "mtu": 1400 }]);
        let vm = create(&daemon, "web", &json!({ "networks": networks }));
        let nics = vm["nics"].as_array().unwrap();
        let [front, back] = &nics[..] else { panic!("{vm}") };
        for field in ["network", "tap", "ifindex", "mac", "ip", "netmask", "gateway", "policy"] {
            assert_eq!(vm[field], front[field], "the VM shows its first NIC: {vm}");
            assert!(!back[field].is_null(), "{vm}");
        }
        assert_eq!([text(front, "ip"), text(back, "ip")], ["192.168.127.2", "10.9.0.2"]);
        assert_eq!([text(front, "policy"), text(back, "policy")], ["open", "none"]);
        assert_ne!(front["mac"], back["mac"]);
        let [first, second] = [text(front, "tap"), text(back, "tap")];
        assert_eq!(
            taps(),
            [[first, "volnet:web", "vbr0"], [second, "volnet:web/1", "vbr1"]]
                .map(|tap| tap.map(String::from))
        );
        for (nic, mtu) in [(front, 1500), (back, 1400)] {
            let link = ip_link(text(nic, "tap"));
            assert_eq!((&link["mtu"], &link["ifindex"]), (&json!(mtu), &nic["ifindex"]));
        }
        // The kernel takes the last of several: what it can set by itself is the first NIC's.
        let words = "ip=10.9.0.2:::255.255.255.0:web:eth1:off \
                     ip=192.168.127.2::192.168.127.1:255.255.255.0:web:eth0:off";
        assert!(text(&vm, "kernel_args").starts_with(words), "{vm}");

        let [front, back] = [front, back].map(Guest::of);
        assert!(front.reaches(WORLD_IP) && !back.reaches(WORLD_IP), "each has its own policy");
        let policy = |parameters: Value| done(&daemon.call("SetPolicy", parameters));
        policy(json!({ "name": "web", "nic": 1, "policy": "open" }));
        policy(json!({ "name": "web", "nic": 0, "policy": "none" }));
        assert!(!front.reaches(WORLD_IP) && back.reaches(WORLD_IP), "each can be given another");
        policy(json!({ "name": "web", "policy": "none" }));
        assert!(!front.reaches(WORLD_IP) && !back.reaches(WORLD_IP), "and so can all at once");
    });
}

#[test]
fn a_vm_on_two_networks_is_healed_and_deleted_as_one() {
    in_namespace(|| {
        let mut daemon = daemon();
        let empty = shown();
        let back = json!({ "name": "back", "limits": { "rx_mbit": 100, "tx_mbit": 50 } });
        let config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname",
            "networks": [{}, back, { "name": "back", "mode": "dhcp" }] });
        let vm = create(&daemon, "web", &config);
        assert_eq!(in_use(&daemon), [[1, 1], [1, 2]]);
        done(&daemon.call("Start", json!({ "name": "web" })));
        let nics = vm["nics"].as_array().unwrap();
        let taps: Vec<&str> = nics.iter().map(|nic| text(nic, "tap")).collect();
        let whole = shown();

        // What is broken under a daemon is mended by it, and told of.
        let mut events = subscribe(&daemon);
        for (change, words) in [
            (format!("ip link set {} nomaster", taps[1]), "is not a port of vbr1"),
            (format!("ip link set {} down", taps[2]), "is down"),
            (
                format!("ip link set {} alias volnet:web", taps[1]),
                "does not have the alias volnet:web/1",
            ),
            (format!("tc qdisc del dev {} root", taps[1]), "is not limited to 12500000 bytes/s"),
        ] {
            run(&change);
            let drift = next(&mut events, "drift");
            assert!(text(&drift, "message").contains(words), "{change}: {drift}");
            assert_eq!(drift["vm"], "web", "{change}: {drift}");
            eventually(&change, || shown() == whole);
        }

        // What is broken while none runs is mended by the next, and what is left is removed.
        let pid = get(&daemon, "web")["pid"].clone();
        daemon.crash();
        run(&format!("ip link set {} nomaster", taps[0]));
        run(&format!("ip link set {} alias volnet:somebody", taps[2]));
        run("ip tuntap add vttap-left mode tap vnet_hdr");
        run("ip link set vttap-left alias volnet:web/7");
        daemon.start_again();
        assert!(!link_exists("vttap-left"));
        assert_eq!(shown(), whole);
        let healed = get(&daemon, "web");
        assert_eq!((&healed["nics"], &healed["pid"]), (&vm["nics"], &pid), "{healed}");

        // A tap that has to be made anew takes none of the others along.
        daemon.crash();
        run(&format!("ip link del {}", taps[1]));
        daemon.start_again();
        let healed = get(&daemon, "web");
        for (nic, tap) in healed["nics"].as_array().unwrap().iter().zip(&taps) {
            assert_eq!(ip_link(tap)["ifindex"], nic["ifindex"], "{healed}");
        }
        assert_eq!(healed["nics"][0]["ifindex"], vm["nics"][0]["ifindex"]);
        assert_ne!(healed["nics"][1]["ifindex"], vm["nics"][1]["ifindex"]);

        done(&daemon.call("Delete", json!({ "name": "web", "timeout_ms": 0 })));
        assert_eq!(in_use(&daemon), [[0, 0], [0, 0]]);
        eventually("all is gone", || shown() == empty);
    });
}

#[test]
fn what_one_nic_cannot_have_leaves_nothing_of_the_others() {
    in_namespace(|| {
        let daemon = daemon();
        let two = json!({ "networks": [{}, { "name": "back" }] });
        let plan = daemon.call("Create", json!({ "name": "web", "config": two, "dry_run": true }));
        let second = text(&plan["parameters"]["vm"]["nics"][1], "tap").to_string();
        assert_eq!(in_use(&daemon), [[0, 0], [0, 0]]);
        let before = shown();

        // Somebody has a link of that name.
        run(&format!("ip link add {second} type bridge"));
        let answer = daemon.call("Create", json!({ "name": "web", "config": two }));
        assert_eq!(answer["error"], "io.volnet.KernelRefused", "{answer}");
        assert_eq!(answer["parameters"]["object"], second, "{answer}");
        run(&format!("ip link del {second}"));
        assert_eq!((shown(), in_use(&daemon)), (before.clone(), vec![[0, 0], [0, 0]]));

        for (networks, field) in [
            (json!([{}, { "name": "nowhere" }]), "networks[1].name"),
            (json!([{}, { "name": "back", "ip": "192.168.127.9" }]), "networks[1].ip"),
            (json!([{}, { "name": "back", "mtu": 9000 }]), "networks[1].mtu"),
            (json!([{}, { "name": "back", "policy": "nothing" }]), "networks[1].policy"),
            (json!([{}, { "mode": "vsock" }]), "networks[1].mode"),
            (json!([{ "mode": "vsock" }, {}]), "networks[0].mode"),
        ] {
            let config = json!({ "networks": networks });
            let answer = daemon.call("Create", json!({ "name": "web", "config": config }));
            assert_eq!(refused(&answer).0, field, "{networks}: {answer}");
        }
        let both = json!({ "network": {}, "networks": [{}] });
        let answer = daemon.call("Create", json!({ "name": "web", "config": both }));
        assert_eq!(refused(&answer).0, "networks", "{answer}");
        // The second of two on one network wants what the first has got.
        for (wish, value, error) in [
            ("mac", "02:00:00:00:00:01", "io.volnet.InvalidConfig"),
            ("ip", "192.168.127.7", "io.volnet.AddressInUse"),
        ] {
            let config = json!({ "networks": [{ wish: value }, { wish: value }] });
            let answer = daemon.call("Create", json!({ "name": "web", "config": config }));
            assert_eq!(answer["error"], error, "{answer}");
        }
        assert_eq!((shown(), in_use(&daemon)), (before, vec![[0, 0], [0, 0]]));

        let vm = create(&daemon, "web", &two);
        for method in ["SetPolicy", "SetLimits", "OpenTap", "Expose"] {
            let mut parameters = json!({ "name": "web", "nic": 2 });
            match method {
                "SetPolicy" => parameters["policy"] = "none".into(),
                "SetLimits" => parameters["rx_mbit"] = 1.into(),
                "Expose" => parameters["port"] = 80.into(),
                _ => {}
            }
            let answer = daemon.call(method, parameters);
            let reason = &answer["parameters"]["reason"];
            assert_eq!(reason, "VM web has no NIC 2: it has 2, counted from 0", "{method}");
        }
        assert_eq!(get(&daemon, "web"), vm);
    });
}

#[test]
fn a_port_of_the_host_leads_to_the_nic_that_is_named() {
    in_namespace(|| {
        let daemon = daemon();
        let config = json!({
            "networks": [{}, { "name": "back", "expose": [{ "port": 80, "host_port": 8081 }] }],
            "expose": [{ "port": 80, "host_port": 8080 }],
        });
        let vm = create(&daemon, "web", &config);
        let host_ports = |vm: &Value| -> Vec<Vec<u64>> {
            let ports = |nic: &Value| {
                let ports = nic["expose"].as_array().unwrap().iter();
                ports.map(|port| port["host_port"].as_u64().unwrap()).collect()
            };
            vm["nics"].as_array().unwrap().iter().map(ports).collect()
        };
        assert_eq!(host_ports(&vm), [vec![8080], vec![8081]]);
        let expose = json!({ "name": "web", "nic": 1, "port": 443, "host_port": 8443 });
        done(&daemon.call("Expose", expose.clone()));
        done(&daemon.call("Expose", expose));
        let other = json!({ "name": "web", "nic": 0, "port": 443, "host_port": 8443 });
        assert_eq!(daemon.call("Expose", other)["error"], "io.volnet.PortInUse");
        done(&daemon.call("Unexpose", json!({ "name": "web", "host_port": 8081 })));
        assert_eq!(host_ports(&get(&daemon, "web")), [vec![8080], vec![8443]]);
        let led: Vec<String> =
            tool("nft -j list map ip volnet exposed")["nftables"][1]["map"]["elem"]
                .as_array()
                .unwrap()
                .iter()
                .map(|led| led.to_string())
                .collect();
        assert_eq!(led.len(), 2, "{led:?}");
        for (port, ip) in [("8080", "192.168.127.2"), ("8443", "10.9.0.2")] {
            let leads = |led: &&String| led.contains(port) && led.contains(ip);
            assert_eq!(led.iter().filter(leads).count(), 1, "{port} leads to {ip}: {led:?}");
        }
    });
}

#[test]
fn a_guest_asks_on_each_network_for_an_address_of_its_own() {
    in_namespace(|| {
        let mut daemon = daemon();
        let networks = json!([{ "mode": "dhcp" }, { "name": "back", "mode": "dhcp" }, {}]);
        let vm = create(&daemon, "web", &json!({ "networks": networks }));
        assert_eq!(vm["nics"][2]["ip"], "192.168.127.2");
        assert_eq!(in_use(&daemon), [[1, 2], [0, 1]], "nobody has asked yet");
        let mut wanted = vm.clone();
        for (at, server) in [(1, [10, 9, 0, 1]), (0, [192, 168, 127, 1])] {
            let guest = common::guest::Guest::of(&vm["nics"][at]);
            let ip = guest.get_lease(server.into());
            wanted["nics"][at]["ip"] = ip.to_string().into();
        }
        let nics = |vm: &Value| -> Vec<Value> {
            vm["nics"].as_array().unwrap().iter().map(|nic| nic["ip"].clone()).collect()
        };
        assert_eq!(nics(&get(&daemon, "web")), nics(&wanted));
        assert_eq!(in_use(&daemon), [[2, 2], [1, 1]]);
        daemon.crash();
        daemon.start_again();
        assert_eq!(nics(&get(&daemon, "web")), nics(&wanted), "both are written down");
        done(&daemon.call("Delete", json!({ "name": "web" })));
        assert_eq!(in_use(&daemon), [[0, 0], [0, 0]]);
    });
}

/// A connection that is told of events. The state is read already.
fn subscribe(daemon: &Daemon) -> Connection {
    let mut events = daemon.connect();
    let call = json!({ "method": "io.volnet.Monitor", "more": true });
    events.send(format!("{call}\n").as_bytes());
    events.receive().expect("the state");
    events
}

/// The next event of this kind.
fn next(events: &mut Connection, kind: &str) -> Value {
    loop {
        let event = events.receive().expect("an event")["parameters"]["event"].take();
        if event["kind"] == kind {
            return event;
        }
    }
}
