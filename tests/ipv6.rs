//! IPv6 on the real kernel. Guests are namespaces behind their taps.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space};
use common::{eventually, in_namespace, json as tool, run};

/// The world's address, and the host's towards it.
const WORLD: &str = "2001:db8:77::2";
const UPLINK: &str = "2001:db8:77::1";

/// Sends a router advertisement with a prefix by eth0 (RFC 4861, 4.2), for half an hour.
const ROUTER: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:99::")
message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
message += struct.pack("!BBBBIII16s", 3, 4, 64, 0xc0, 1800, 1800, 0, prefix)
s.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"#;

fn configured(ipv6: Value) -> Daemon {
    Daemon::configured(&json!({ "networks": [
        { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24", "ipv6": ipv6 },
    ] }))
}

fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

fn network(daemon: &Daemon) -> Value {
    daemon.call("Networks", json!({}))["parameters"]["networks"][0].take()
}

/// The guest of a VM, with the address that volnet gives it and the host as its router.
fn guest(daemon: &Daemon, vm: &Value) -> Guest {
    Guest::of(vm).with_ipv6(vm, &text(&network(daemon), "host_ip6"))
}

/// The same with one field more.
fn with(object: &Value, field: &str, value: &str) -> Value {
    let mut object = object.clone();
    object[field] = value.into();
    object
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}")).into()
}

/// A world that knows no way to the guests.
fn world() -> Space {
    let world = Space::world();
    world.run(&format!("ip addr add {WORLD}/64 dev eth0 nodad"));
    run(&format!("ip addr add {UPLINK}/64 dev uplink nodad"));
    world
}

/// The link-local address of the bridge.
fn router() -> String {
    let addresses = run("ip -6 -o addr show dev vbr0 scope link");
    addresses.split_whitespace().nth(3).expect("an address").replace("/64", "")
}

fn sysctl(name: &str) -> String {
    run(&format!("sysctl -n {name}")).trim().into()
}

#[test]
fn a_host_is_set_up_and_taken_down() {
    in_namespace(|| {
        run("ip link add uplink type bridge");
        let switches = ["net.ipv6.conf.all.forwarding", "net.ipv6.conf.uplink.accept_ra"];
        let values = || switches.map(sysctl);
        assert_eq!(values(), ["0", "1"]);
        let daemon = configured(json!(true));
        let network = network(&daemon);
        let (subnet, host) = (text(&network, "subnet6"), text(&network, "host_ip6"));
        assert!(subnet.starts_with("fd") && subnet.ends_with("::/64"), "{network}");
        assert_eq!(host, subnet.replace("/64", "1"));
        let addresses = tool("ip -j -6 addr show dev vbr0");
        let mut locals: Vec<&str> = Vec::new();
        for address in addresses[0]["addr_info"].as_array().unwrap() {
            assert_eq!(address["prefixlen"], 64);
            assert!(address["tentative"].is_null(), "{address}");
            locals.push(address["local"].as_str().unwrap());
        }
        assert_eq!(locals.len(), 2, "{addresses}");
        assert!(locals.contains(&host.as_str()) && locals.iter().any(|it| it.starts_with("fe80")));
        assert_eq!(values(), ["1", "2"]);
        let again = daemon.call("Setup", json!({}));
        assert_eq!(again["parameters"]["plan"], json!([]), "a second setup changes nothing");

        // What others change is put right.
        run(&format!("ip addr delete {host}/64 dev vbr0"));
        run("ip addr add fd77::1/64 dev vbr0");
        run("sysctl -qw net.ipv6.conf.all.forwarding=0");
        eventually("the host is as it was", || {
            let addresses = run("ip -6 addr show dev vbr0");
            addresses.contains(&host) && !addresses.contains("fd77::1") && values() == ["1", "2"]
        });
        run("ip link set vbr0 down");
        eventually("a bridge that was down has its addresses", || {
            locals.iter().all(|local| run("ip -6 addr show dev vbr0").contains(local))
        });

        daemon.call("Teardown", json!({}));
        assert_eq!(values(), ["0", "1"]);
        assert_eq!(run("nft list ruleset").trim(), "");
    });
}

#[test]
fn guests_reach_the_host_each_other_and_the_world() {
    in_namespace(|| {
        let (world, daemon) = (world(), configured(json!(true)));
        let (one, two) = (create(&daemon, "one", json!({})), create(&daemon, "two", json!({})));
        let (first, second) = (guest(&daemon, &one), guest(&daemon, &two));
        let host = text(&network(&daemon), "host_ip6");
        assert!(first.reaches(&host) && first.reaches(&format!("{}%eth0", router())));
        assert!(first.reaches(&text(&two, "ip6")) && second.reaches(&text(&one, "ip6")));
        assert!(first.reaches(WORLD), "masqueraded: the world knows no way back");
        // Nobody reaches them from outside.
        world.run(&format!("ip -6 route add default via {UPLINK}"));
        assert!(!world.reaches(&text(&one, "ip6")));
        assert!(!first.reaches(UPLINK), "the host answers on its address in the network alone");
        // What one had is forgotten before another has it.
        let neighbour = || run("ip -6 neigh show dev vbr0");
        assert!(neighbour().contains(&text(&one, "ip6")));
        drop(first);
        daemon.call("Delete", json!({ "name": "one" }));
        assert!(!neighbour().contains(&text(&one, "ip6")), "{}", neighbour());
        assert!(!run("nft list set bridge volnet guests6").contains("vttap-one"));
    });
}

#[test]
fn a_network_may_have_ipv6_alone() {
    in_namespace(|| {
        run("sysctl -qw net.ipv4.ip_forward=0");
        let _world = world();
        let settings = json!({ "networks": [{ "subnet": null, "ipv6": true }] });
        let mut daemon = Daemon::configured(&settings);
        let on = network(&daemon);
        assert!(on["subnet"].is_null() && on["host_ip"].is_null() && on["nat"] == true, "{on}");
        assert_eq!((&on["dhcp"], &on["free"]), (&json!("off"), &json!(0)));
        assert_eq!(on["name_servers"], json!([on["host_ip6"]]));
        assert_eq!(run("ip -4 -o addr show dev vbr0"), "");
        assert_eq!(sysctl("net.ipv4.ip_forward"), "0", "it is not needed");

        let (one, two) = (create(&daemon, "one", json!({})), create(&daemon, "two", json!({})));
        for field in ["ip", "netmask", "gateway"] {
            assert!(one[field].is_null(), "{one}");
        }
        assert_eq!(one["kernel_args"], "");
        let (first, second) = (Guest::of(&one), Guest::of(&two));
        let (host, other) = (text(&on, "host_ip6"), text(&two, "ip6"));
        let works = || first.reaches(&host) && first.reaches(&other) && first.reaches(WORLD);
        assert!(works());
        // IPv4 goes nowhere, not even between its guests.
        first.space.run("ip addr add 10.0.0.2/24 dev eth0");
        second.space.run("ip addr add 10.0.0.3/24 dev eth0");
        assert!(!first.reaches("10.0.0.3"));
        // A port of the host leads there by IPv6.
        let port = json!({ "name": "one", "port": 80, "host_port": 8080 });
        let by_ipv4 = daemon.call("Expose", with(&port, "host_ip", "0.0.0.0"));
        assert_eq!(by_ipv4["parameters"]["field"], "expose", "{by_ipv4}");
        assert!(daemon.call("Expose", port)["error"].is_null());
        let listener = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                first.space.enter();
                TcpListener::bind("[::]:80").expect("port 80")
            });
            inside.join().expect("it listens")
        });
        let mut caller = TcpStream::connect(format!("[{UPLINK}]:8080")).expect("it leads there");
        caller.write_all(b"hello").expect("to send");
        let (mut called, _) = listener.accept().expect("a caller");
        let mut heard = [0; 5];
        called.read_exact(&mut heard).expect("to hear");
        assert_eq!(&heard, b"hello");

        for (wish, value) in [("ip", json!("10.0.0.2")), ("mode", json!("dhcp"))] {
            let config = json!({ "network": { wish: value } });
            let refused = daemon.call("Create", json!({ "name": "new", "config": config }));
            assert_eq!(refused["parameters"]["field"], format!("network.{wish}"), "{refused}");
        }
        let shown = |args: &[&str]| {
            let mut client = Command::new(&daemon.program);
            let output = client.args(args).arg("--socket").arg(daemon.socket()).output();
            String::from_utf8_lossy(&output.expect("volnet runs").stdout).into_owned()
        };
        let list = shown(&["list"]);
        assert!(list.contains(&text(&one, "ip6")), "{list}");
        let said = shown(&["doctor", "one"]);
        let has = format!("the guest has {}", text(&one, "ip6"));
        assert!(!said.contains("IPv4") && said.contains(&has), "{said}");

        daemon.crash();
        daemon.start_again();
        assert!(works());
        let again = daemon.call("Setup", json!({}));
        assert_eq!(again["parameters"]["plan"], json!([]), "{again}");
        daemon.call("Teardown", json!({ "force": true }));
        assert_eq!(run("nft list ruleset").trim(), "");
    });
}

#[test]
fn a_prefix_that_is_written_is_routed() {
    in_namespace(|| {
        let world = world();
        world.run(&format!("ip -6 route add default via {UPLINK}"));
        let daemon = configured(json!({ "prefix": "2001:db8:1:2::/64" }));
        let vm = create(&daemon, "web", json!({ "mac": "02:00:00:00:00:09" }));
        assert_eq!(vm["ip6"], "2001:db8:1:2:0:ff:fe00:9");
        let guest = guest(&daemon, &vm);
        assert!(guest.reaches(WORLD) && world.reaches("2001:db8:1:2:0:ff:fe00:9"));
    });
}

#[test]
fn a_chosen_address_is_that_of_one_vm() {
    in_namespace(|| {
        let mut daemon = configured(json!({ "prefix": "2001:db8:1:2::/64" }));
        let chosen = json!({ "ip6": "2001:db8:1:2::10" });
        let vm = create(&daemon, "web", chosen.clone());
        assert_eq!(vm["ip6"], "2001:db8:1:2::10");
        let refused = |ip6: &str| {
            let config = json!({ "network": { "ip6": ip6 } });
            daemon.call("Create", json!({ "name": "new", "config": config }))
        };
        let answer = refused("2001:db8:1:2::10");
        assert_eq!(answer["error"], "io.volnet.AddressInUse", "{answer}");
        assert_eq!(answer["parameters"]["owner"], "web");
        assert_eq!(refused("2001:db8:1:2::1")["error"], "io.volnet.AddressInUse");
        let answer = refused("2001:db8:9::10");
        assert_eq!(answer["parameters"]["field"], "network.ip6", "{answer}");

        let (web, other) =
            (guest(&daemon, &vm), guest(&daemon, &create(&daemon, "other", json!({}))));
        let host = text(&network(&daemon), "host_ip6");
        assert!(web.reaches(&host) && other.reaches("2001:db8:1:2::10"));
        daemon.crash();
        daemon.start_again();
        assert_eq!(
            daemon.call("Get", json!({ "name": "web" }))["parameters"]["vm"]["ip6"],
            vm["ip6"]
        );
        drop(web);
        assert!(!other.reaches("2001:db8:1:2::10"));
        other.space.run("ip addr add 2001:db8:1:2::10/64 dev eth0 nodad");
        let said = other.space.run_any(&format!("ping -q -c 2 -W 1 -I 2001:db8:1:2::10 {host}"));
        assert!(said.contains("100% packet loss"), "{said}");
        daemon.call("Delete", json!({ "name": "web" }));
        assert_eq!(create(&daemon, "next", chosen)["ip6"], "2001:db8:1:2::10");
    });
}

#[test]
fn a_guest_uses_its_own_addresses_alone() {
    in_namespace(|| {
        let (_world, daemon) = (world(), configured(json!(true)));
        let (one, two) = (create(&daemon, "one", json!({})), create(&daemon, "two", json!({})));
        let (first, second) = (guest(&daemon, &one), guest(&daemon, &two));
        let (host, victim) = (text(&network(&daemon), "host_ip6"), text(&two, "ip6"));
        let router = router();
        let reaches_from = |address: &str, to: &str| {
            first.space.run_any(&format!("ping -q -c 2 -i 0.2 -W 1 -I {address} {to}"))
        };
        assert!(reaches_from(&text(&one, "ip6"), &host).contains(" 0% packet loss"));
        let whole = first.space.run_any(&format!("ping -q -c 2 -i 0.2 -W 1 -s 4000 {host}"));
        assert!(whole.contains(" 0% packet loss"), "in fragments: {whole}");
        let own = first.space.run("ip -6 -o addr show dev eth0 scope link");
        let own = own.split_whitespace().nth(3).expect("an address").replace("/64", "%eth0");
        assert!(reaches_from(&own, &format!("{router}%eth0")).contains(" 0% packet loss"));
        for stolen in [victim.as_str(), "fd77::9", "fe80::77"] {
            first.space.run(&format!("ip addr add {stolen}/64 dev eth0 nodad"));
            let (from, to) = match stolen.starts_with("fe80") {
                true => (format!("{stolen}%eth0"), format!("{router}%eth0")),
                false => (stolen.to_string(), host.clone()),
            };
            let said = reaches_from(&from, &to);
            assert!(said.contains("100% packet loss"), "{stolen}: {said}");
            first.space.run(&format!("ip addr delete {stolen}/64 dev eth0"));
        }
        // Its neighbours and the host know the victim by its own Ethernet address.
        assert!(second.reaches(&host));
        let known = tool(&format!("ip -j -6 neigh show {victim} dev vbr0"));
        assert_eq!(known[0]["lladdr"], two["mac"]);
    });
}

#[test]
fn policies_and_isolation_hold_for_both_families() {
    in_namespace(|| {
        let (world, daemon) = (world(), configured(json!(true)));
        world.run("ip addr add 2606:4700::1111/128 dev lo nodad");
        world.run("ip addr add 64:ff9b::a00:1/128 dev lo nodad");
        for address in ["2606:4700::1111", "64:ff9b::a00:1"] {
            run(&format!("ip -6 route add {address} via {WORLD}"));
        }
        let reaches = |name: &str, network: Value| {
            let guest = guest(&daemon, &create(&daemon, name, network));
            ["2606:4700::1111", WORLD, "64:ff9b::a00:1"].map(|to| guest.reaches(to))
        };
        assert_eq!(reaches("open", json!({})), [true, true, true]);
        // The world is in a prefix for documentation; the last is 10.0.0.1 by translation.
        assert_eq!(reaches("web", json!({ "policy": "internet" })), [true, false, false]);
        assert_eq!(reaches("box", json!({ "policy": "none" })), [false, false, false]);
        let counters = daemon.call("Metrics", json!({}))["parameters"]["text"].to_string();
        assert!(counters.contains("volnet_sent_packets_total{vm=\\\"box\\\",verdict=\\\"denied"));

        let isolated = json!({ "isolated": true });
        let (one, two) =
            (create(&daemon, "one", isolated.clone()), create(&daemon, "two", isolated));
        let (first, _second) = (guest(&daemon, &one), guest(&daemon, &two));
        let (host, other) = (text(&network(&daemon), "host_ip6"), text(&two, "ip6"));
        assert!(first.reaches(&host) && !first.reaches(&other));
        first.space.run(&format!("ip -6 route add {other}/128 via {host}"));
        assert!(!first.reaches(&other), "nor by the gateway");
    });
}

#[test]
fn a_default_route_by_router_advertisement_stays() {
    in_namespace(|| {
        let world = Space::world();
        let default = || run("ip -6 route show default").contains("proto ra");
        // It fails until the world's link is ready.
        let advertise = || {
            let mut router = world.command("python3");
            router.args(["-c", ROUTER]).stderr(Stdio::null()).status().expect("python3 runs");
        };
        eventually("a router for the host", || {
            advertise();
            default()
        });
        let mut daemon = configured(json!(true));
        assert_eq!(sysctl("net.ipv6.conf.all.forwarding"), "1");
        assert!(default(), "setup");
        daemon.crash();
        assert!(default(), "a crash");
        daemon.start_again();
        assert!(default(), "a restart");
        run("ip -6 route flush default");
        eventually("it hears routers", || {
            advertise();
            default()
        });
        daemon.call("Teardown", json!({}));
        assert!(default(), "teardown");
        assert_eq!(sysctl("net.ipv6.conf.uplink.accept_ra"), "1");
    });
}
