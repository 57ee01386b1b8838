//! Addresses that move between guests, on the real kernel. Guests are namespaces behind their taps.

#![cfg(target_os = "linux")]

mod common;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::space::{Guest, Space, WORLD_IP};
use common::{eventually, in_namespace, run};

/// An address that moves.
const SHARED: &str = "192.168.127.200";

fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.create(json!({ "name": name, "config": config }))
}

/// A VM that may use the address, with its guest.
fn member(daemon: &Daemon, name: &str) -> Guest {
    let vm = create(daemon, name, json!({ "addresses": [SHARED] }));
    assert_eq!(vm["addresses"], json!([SHARED]), "{vm}");
    assert_eq!(vm["nics"][0]["addresses"], json!([SHARED]), "{vm}");
    Guest::of(&vm)
}

/// The guest takes the address and says so to all.
fn take(guest: &Guest) {
    guest.space.run(&format!("ip addr add {SHARED}/32 dev eth0"));
    announce(guest);
}

fn announce(guest: &Guest) {
    guest.space.run_any(&format!("busybox arping -q -U -c 2 -w 3 -I eth0 {SHARED}"));
}

fn leave(guest: &Guest) {
    guest.space.run(&format!("ip addr del {SHARED}/32 dev eth0"));
}

/// Whether the world answers what a guest sends from the address.
fn reaches_from_it(guest: &Guest, address: &str) -> bool {
    guest.space.run_any(&format!("ping -q -c 2 -i 0.2 -W 2 -I {SHARED} {address}")).contains(" 0% ")
}

fn refusal(daemon: &Daemon, name: &str, network: Value) -> Value {
    let config = json!({ "network": network });
    daemon.call("Create", json!({ "name": name, "config": config }))
}

fn elements(family: &str, set: &str) -> usize {
    run(&format!("nft list set {family} volnet {set}")).matches(SHARED).count()
}

#[test]
fn an_address_moves_from_guest_to_guest_with_its_announcement() {
    in_namespace(|| {
        let _world = Space::world();
        let mut daemon = Daemon::start(&["--nft-owner", "no"]);
        let (first, second) = (member(&daemon, "a"), member(&daemon, "b"));
        let third = Guest::of(&create(&daemon, "c", json!({})));
        assert!(!third.reaches(SHARED), "nobody has it yet");
        take(&first);
        eventually("a neighbour reaches the first", || third.reaches(SHARED));
        assert!(reaches_from_it(&first, WORLD_IP), "from the address into the world");
        let of_first = neighbour(&third);

        leave(&first);
        take(&second);
        eventually("the neighbour knows who has it now", || {
            third.reaches(SHARED) && neighbour(&third) != of_first
        });
        assert!(reaches_from_it(&second, WORLD_IP), "from the address into the world");
        eventually("the host knows it, too", || {
            run("ping -q -c 1 -W 2 192.168.127.200").contains(" 0% ")
        });

        // It stays so over a crash of the daemon, and when somebody takes the elements away.
        daemon.crash();
        daemon.start_again();
        assert!(third.reaches(SHARED));
        run("nft flush set bridge volnet guests");
        eventually("the elements are back", || elements("bridge", "guests") == 2);
        assert!(third.reaches(SHARED));
        assert_eq!(run("nft list set ip volnet allowed").matches("192.168.127.").count(), 4);
    });
}

/// Whom a guest takes for the owner of the address.
fn neighbour(guest: &Guest) -> String {
    guest.space.run(&format!("ip neigh get {SHARED} dev eth0"))
}

#[test]
fn who_does_not_name_it_cannot_use_it() {
    in_namespace(|| {
        let _world = Space::world();
        let daemon = Daemon::start(&[]);
        let member = member(&daemon, "a");
        let thief = Guest::of(&create(&daemon, "thief", json!({})));
        let third = Guest::of(&create(&daemon, "c", json!({})));
        take(&member);
        eventually("a neighbour reaches it", || third.reaches(SHARED));
        let of_member = neighbour(&third);
        take(&thief);
        assert!(!reaches_from_it(&thief, WORLD_IP));
        announce(&thief);
        assert!(third.reaches(SHARED) && neighbour(&third) == of_member);
        // Limits and isolation are those of the port. The last VM that names it takes it along.
        daemon.call("Delete", json!({ "name": "a" }));
        assert_eq!(elements("bridge", "guests") + elements("ip", "allowed"), 0);
    });
}

#[test]
fn it_is_leased_to_nobody_and_a_lease_is_not_taken() {
    in_namespace(|| {
        let mut daemon = Daemon::configured(&json!({ "networks": [{
            "subnet": "192.168.127.0/29", "reserve": ["192.168.127.6"]
        }] }));
        let vm = create(&daemon, "a", json!({ "addresses": ["192.168.127.2", "192.168.127.6"] }));
        assert_eq!(vm["ip"], "192.168.127.3", "{vm}");
        create(&daemon, "b", json!({ "addresses": ["192.168.127.2"], "mode": "dhcp" }));
        let networks = daemon.call("Networks", json!({}));
        let network = &networks["parameters"]["networks"][0];
        assert_eq!((&network["leased"], &network["free"]), (&json!(1), &json!(2)), "{networks}");
        for again in [false, true] {
            if again {
                daemon.crash();
                daemon.start_again();
            }
            for (network, name, field) in [
                (json!({ "ip": "192.168.127.2" }), "AddressInUse", ("owner", "a")),
                (json!({ "addresses": ["192.168.127.3"] }), "AddressInUse", ("owner", "a")),
                (
                    json!({ "addresses": ["192.168.127.1"] }),
                    "AddressInUse",
                    ("owner", "the network itself"),
                ),
                (
                    json!({ "addresses": ["10.0.0.1"] }),
                    "InvalidConfig",
                    ("field", "network.addresses"),
                ),
                (
                    json!({ "addresses": ["192.168.127.4"], "ip": "192.168.127.4" }),
                    "InvalidConfig",
                    ("field", "network.addresses"),
                ),
                (
                    json!({ "addresses": ["192.168.127.4"], "mode": "vsock" }),
                    "InvalidConfig",
                    ("field", "config: network.addresses"),
                ),
            ] {
                let answer = refusal(&daemon, "x", network.clone());
                assert_eq!(answer["error"], format!("io.volnet.{name}"), "{network}: {answer}");
                let said = answer["parameters"][field.0].as_str().unwrap_or_default();
                assert!(field.1.ends_with(said) && !said.is_empty(), "{network}: {answer}");
            }
        }
        daemon.call("Delete", json!({ "name": "a" }));
        let answer = refusal(&daemon, "x", json!({ "ip": "192.168.127.2" }));
        assert_eq!(answer["parameters"]["owner"], "b", "{answer}");
        daemon.call("Delete", json!({ "name": "b" }));
        create(&daemon, "x", json!({ "ip": "192.168.127.2" }));
    });
}

#[test]
fn it_has_the_policy_of_its_vms_or_none() {
    in_namespace(|| {
        let world = Space::world();
        world.run("ip addr add 10.99.0.1/32 dev lo");
        run("ip route add 10.99.0.1/32 via 203.0.113.2");
        let daemon = Daemon::start(&[]);
        let vm = create(&daemon, "a", json!({ "addresses": [SHARED], "policy": "internet" }));
        let guest = Guest::of(&vm);
        take(&guest);
        assert!(reaches_from_it(&guest, WORLD_IP) && !reaches_from_it(&guest, "10.99.0.1"));
        create(&daemon, "b", json!({ "addresses": [SHARED] }));
        assert!(!reaches_from_it(&guest, WORLD_IP), "two policies");
        let findings = daemon.call("Check", json!({})).to_string();
        assert!(findings.contains("a and b have different policies"), "{findings}");
        daemon.call("SetPolicy", json!({ "name": "a", "policy": "open" }));
        assert!(reaches_from_it(&guest, WORLD_IP) && reaches_from_it(&guest, "10.99.0.1"));
        daemon.call("SetPolicy", json!({ "name": "b", "policy": "none" }));
        assert!(!reaches_from_it(&guest, WORLD_IP), "two policies");
        daemon.call("Delete", json!({ "name": "b" }));
        assert!(reaches_from_it(&guest, WORLD_IP), "the one that is left");
    });
}
