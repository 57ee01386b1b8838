//! Names on the real kernel: guests in namespaces behind their taps, resolvers of the host that the
//! test plays, and machines that are no guests.

#![cfg(target_os = "linux")]

mod ask;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod stub;

use std::net::{IpAddr, UdpSocket};

use serde_json::{Value, json};
use simple_dns::TYPE;

use ask::{
    GATEWAY, SILENCE, ask, ask_for, ask_of, ask_tcp, ask_tcp_of, create, inside, ip, reverse,
};
use common::daemon::Daemon;
use common::guest::{Guest, as_guest};
use common::{PATIENCE, eventually, in_namespace, run};
use stub::{STUB, Stub, on_a_host};

#[test]
fn guests_find_each_other_as_they_come_and_go() {
    in_namespace(|| {
        let mut daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({}));
        assert!(web["kernel_args"].as_str().unwrap().ends_with(":off:192.168.127.1"), "{web}");
        let db = create(&daemon, "Db.1_x", json!({}));
        let asks = create(&daemon, "asks", json!({ "mode": "dhcp" }));
        let before = inside(&web, || ask("asks.volnet", TYPE::A));
        assert_eq!(before, "", "it has no address yet");
        let lease = Guest::of(&asks).get_lease(GATEWAY);
        let again = inside(&web, || {
            for name in ["Db.1_x.volnet", "db.1_x.VOLNET", "db-1-x.volnet", "db-1-x"] {
                assert_eq!(ask(name, TYPE::A), ip(&db), "{name}");
            }
            assert_eq!(ask("db-1-x.volnet", TYPE::AAAA), "");
            assert_eq!(ask(&reverse(&ip(&db)), TYPE::PTR), "Db.1_x.volnet");
            assert_eq!(ask("gateway.volnet", TYPE::A), GATEWAY.to_string());
            assert_eq!(ask(&reverse(&GATEWAY.to_string()), TYPE::PTR), "gateway.volnet");
            assert_eq!(ask("nobody.volnet", TYPE::A), "no name");
            assert_eq!(ask("asks.volnet", TYPE::A), lease.to_string());
            let names = ["web.volnet", "nobody.volnet", "gateway", "db-1-x"];
            assert_eq!(ask_tcp(&names), [&ip(&web), "no name", &GATEWAY.to_string(), &ip(&db)]);
            daemon.call("Delete", json!({ "name": "Db.1_x" }));
            assert_eq!(ask("db-1-x.volnet", TYPE::A), "no name");
            assert_eq!(ask(&reverse(&ip(&db)), TYPE::PTR), "no name");
            let again = create(&daemon, "db-1-x", json!({}));
            assert_eq!(ask("db-1-x.volnet", TYPE::A), ip(&again));
            again
        });
        daemon.crash();
        daemon.start_again();
        inside(&web, || {
            assert_eq!(ask("db-1-x.volnet", TYPE::A), ip(&again), "after a restart");
            assert_eq!(ask_tcp(&["asks.volnet"]), [lease.to_string()]);
        });
        let host = |name| ask_for(PATIENCE, GATEWAY.into(), name, TYPE::A);
        assert_eq!(host("web.volnet"), Some(ip(&web)), "the host asks");
        assert_eq!(host("www.example.com"), Some("Refused".into()), "it has its own resolver");
        assert_eq!(stub.asked(), [""; 0], "nothing of this left the host");
        daemon.call("Teardown", json!({ "force": true }));
        daemon.call("Setup", json!({}));
        let web = create(&daemon, "web", json!({}));
        inside(&web, || assert_eq!(ask("web.volnet", TYPE::A), ip(&web), "on the new bridge"));
    });
}

#[test]
fn names_are_answered_by_ipv6() {
    in_namespace(|| {
        let daemon = on_a_host(
            "nameserver 127.0.0.53\n",
            &json!({ "networks": [{ "ipv6": true },
                { "name": "other", "bridge": "vbr1", "subnet": "10.9.0.0/24", "ipv6": true }] }),
        );
        let stub = Stub::at(STUB);
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let host = |at: usize| networks[at]["host_ip6"].as_str().expect("an address").to_string();
        assert_eq!(networks[0]["name_servers"], json!([GATEWAY.to_string(), host(0)]));
        let [server, elsewhere] = [0, 1].map(|at| host(at).parse::<IpAddr>().unwrap());
        let (web, db) = (create(&daemon, "web", json!({})), create(&daemon, "db", json!({})));
        let ask = |name: &str, kind| ask_of(server, name, kind);
        inside(&web, || {
            assert_eq!(ask("db.volnet", TYPE::A), ip(&db));
            assert_eq!(ask("db.volnet", TYPE::AAAA), db["ip6"]);
            assert_eq!(ask("gateway.volnet", TYPE::AAAA), server.to_string());
            for (address, name) in [(db["ip6"].as_str().unwrap(), "db"), (&host(0), "gateway")] {
                assert_eq!(ask(&reverse(address), TYPE::PTR), format!("{name}.volnet"));
            }
            assert_eq!(ask("nobody.volnet", TYPE::AAAA), "no name");
            assert_eq!(stub.asked(), [""; 0]);
            assert_eq!(ask("www.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask_tcp_of(server, &["db.volnet", "nobody.volnet"]), [&ip(&db), "no name"]);
            let nothing = ask_for(SILENCE, elsewhere, "db.volnet", TYPE::A);
            assert_eq!(nothing, None, "the host answers on its address in the network alone");
        });
        // The host itself.
        assert_eq!(ask("db.volnet", TYPE::AAAA), db["ip6"]);
        assert_eq!(
            ask_tcp_of(elsewhere, &["db.volnet", "gateway.volnet"]),
            ["no name", "10.9.0.1"]
        );
    });
}

#[test]
fn a_question_from_an_address_that_moves_is_answered_if_it_does_not_matter_who_asks() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let moves = "192.168.127.200";
        let one = create(&daemon, "one", json!({ "addresses": [moves] }));
        create(&daemon, "two", json!({ "addresses": [moves] }));
        as_guest(&one, || {
            run(&format!("ip addr add {moves}/24 dev eth0"));
            assert_eq!(ask("one.volnet", TYPE::A), ip(&one));
            daemon.call("SetPolicy", json!({ "name": "two", "policy": "none" }));
            assert_eq!(ask_for(SILENCE, GATEWAY.into(), "one.volnet", TYPE::A), None);
            daemon.call("Delete", json!({ "name": "two" }));
            assert_eq!(ask("one.volnet", TYPE::A), ip(&one));
        });
    });
}

#[test]
fn names_of_the_world_come_from_the_resolvers_of_the_host() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        run("ip link add uplink type veth peer name far");
        run("ip link set uplink up");
        run("ip addr add fe80::53/64 dev uplink nodad");
        let (stub, six) = (Stub::at(STUB), Stub::at("::1"));
        let local = Stub::at("fe80::53%uplink");
        let web = create(&daemon, "web", json!({}));
        create(&daemon, "db", json!({}));
        inside(&web, || {
            assert_eq!(ask("www.world.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask("www.world.example", TYPE::AAAA), "2001:db8::5");
            assert_eq!(stub.asked(), ["udp www.world.example"; 2]);
            assert_eq!(ask("cut.world.example", TYPE::A), "203.0.113.7", "by TCP");
            assert_eq!(stub.asked(), ["udp cut.world.example", "tcp cut.world.example"]);
            assert_eq!(ask("cut.long.example", TYPE::A), "cut", "it does not fit");
            let by_tcp = ask_tcp(&["cut.long.example", "www.world.example"]);
            assert!(by_tcp.iter().any(|it| it.split(' ').count() == 61), "{by_tcp:?}");
            assert!(by_tcp.contains(&"203.0.113.5".into()), "{by_tcp:?}");
            // The host gets another resolver.
            std::fs::write("/etc/resolv.conf", "nameserver ::1\n").unwrap();
            eventually("the new one is asked", || {
                ask("www.world.example", TYPE::A) == "203.0.113.5" && !six.asked().is_empty()
            });
            std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.77\nnameserver ::1\n").unwrap();
            eventually("one that is not there is passed over", || {
                ask("www.world.example", TYPE::A) == "203.0.113.5"
            });
            std::fs::write("/etc/resolv.conf", "nameserver fe80::53%uplink\n").unwrap();
            eventually("one that is known on a link alone is asked", || {
                ask("www.world.example", TYPE::A) == "203.0.113.5" && !local.asked().is_empty()
            });
            std::fs::write("/etc/resolv.conf", "nameserver 192.168.127.1\n").unwrap();
            eventually("we do not ask ourselves", || {
                ask("www.world.example", TYPE::A) == "ServerFailure"
            });
        });
    });
}

#[test]
fn a_policy_decides_what_names_leave_the_host() {
    in_namespace(|| {
        let daemon = on_a_host("nameserver 127.0.0.53\n", &json!({}));
        let stub = Stub::at(STUB);
        let web = create(&daemon, "web", json!({ "policy": "none" }));
        inside(&web, || {
            assert_eq!(ask("web.volnet", TYPE::A), ip(&web));
            assert_eq!(ask("www.world.example", TYPE::A), "Refused");
            assert_eq!(stub.asked(), [""; 0]);
            daemon.call("SetPolicy", json!({ "name": "web", "policy": "internet" }));
            assert_eq!(ask("www.world.example", TYPE::A), "203.0.113.5");
            assert_eq!(ask("db.corp.internal", TYPE::A), "no name");
            assert_eq!(stub.asked(), ["udp www.world.example"]);
            daemon.call("SetPolicy", json!({ "name": "web", "policy": "open" }));
            assert_eq!(ask("db.corp.internal", TYPE::A), "203.0.113.5");
        });
    });
}

#[test]
fn guests_are_told_who_answers() {
    in_namespace(|| {
        let mut daemon = on_a_host(
            "nameserver 127.0.0.53\nnameserver 192.0.2.7\nnameserver 2001:db8::7\n",
            &json!({ "networks": [{ "domain": "vm.example" },
                { "name": "list", "bridge": "vbr1", "subnet": "10.9.0.0/24",
                  "dns": ["192.0.2.53", "2001:db8::53"] },
                { "name": "own", "bridge": "vbr2", "subnet": "10.10.0.0/24",
                  "host_services": ["udp/53"] },
                { "name": "both", "bridge": "vbr3", "subnet": "10.11.0.0/24", "ipv6": true,
                  "dns": "off" }] }),
        );
        let args = |vm: Value| vm["kernel_args"].as_str().unwrap().to_string();
        let told = |daemon: &Daemon, network: &str| {
            let guest = Guest::of(&create(daemon, "x", json!({ "name": network, "mode": "dhcp" })));
            guest.discover();
            let told = guest.hear();
            daemon.call("Delete", json!({ "name": "x" }));
            (told.dns, told.domain)
        };
        assert_eq!(told(&daemon, "default"), (vec![192, 168, 127, 1], "vm.example".into()));
        assert_eq!(told(&daemon, "list"), (vec![192, 0, 2, 53], String::new()));
        assert_eq!(told(&daemon, "own"), (vec![192, 0, 2, 7], String::new()));
        let list = args(create(&daemon, "list", json!({ "name": "list" })));
        assert!(list.ends_with(":off:192.0.2.53"), "{list}");
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let shown =
            |at: usize| (networks[at]["name_servers"].clone(), networks[at]["domain"].clone());
        assert_eq!(shown(0), (json!(["192.168.127.1"]), json!("vm.example")));
        assert_eq!(shown(1), (json!(["192.0.2.53", "2001:db8::53"]), Value::Null));
        assert_eq!(shown(2), (json!(["192.0.2.7"]), Value::Null));
        assert_eq!(shown(3), (json!(["192.0.2.7", "2001:db8::7"]), Value::Null));
        daemon.stop();
        // A name server of the host has the port.
        let taken = UdpSocket::bind(("0.0.0.0", 53)).unwrap();
        daemon.start_again();
        let findings = daemon.call("Check", json!({}))["parameters"]["findings"].to_string();
        assert!(findings.contains("its guests cannot ask volnet for names: port 53"), "{findings}");
        assert_eq!(told(&daemon, "default").0, [192, 0, 2, 7], "they are told what works");
        drop(taken);
    });
}
