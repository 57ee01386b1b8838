//! A hostile guest, on the real kernel: every forbidden frame is sent from a tap of the test, and
//! reaches nobody. Every allowed frame reaches the right parties.

#![cfg(target_os = "linux")]

mod arena;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod end;
mod forged6;
mod frame;
mod inside;
mod ipv6;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use arena::Party::{Asker, Attacker, Other, Server, Stranger, Victim};
use arena::{Arena, UNLISTED};
use common::{eventually, in_namespace, json, run};
use end::Behind;
use serde_json::Value;

/// Documentation/networking/ip-sysctl.rst, `bridge-nf-call-iptables`.
const BRIDGE_NF: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const BRIDGE_NF6: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
/// With those that the test plays, a thousand guests.
const CROWD: usize = 995;

#[test]
fn forbidden_frames_reach_nobody_and_allowed_ones_whom_they_should() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.check(&cases::all());
        arena.daemon.crash();
        arena.check(&cases::all());
        // Whether bridged frames pass the rules for routed packets, too.
        for on in ["0", "1"].into_iter().filter(|_| Path::new(BRIDGE_NF).exists()) {
            fs::write(BRIDGE_NF, on).unwrap();
            arena.check(&cases::all());
        }
        assert_eq!(leases(), cases::LEASES * usize::from(arena.times()));
    });
}

#[test]
fn services_open_nothing_but_themselves() {
    in_namespace(|| {
        let mut arena = Arena::with_services();
        arena.check(&cases::all());
        arena.check(&forged6::hundreds());
    });
}

#[test]
fn a_namespace_is_held_as_a_guest_is() {
    in_namespace(|| {
        let mut arena = Arena::of_namespaces(Behind::Link);
        arena.check(&cases::all());
        arena.check(&forged6::hundreds());
        arena.daemon.crash();
        arena.check(&cases::all());
    });
}

#[test]
fn a_guest_behind_a_tap_in_a_namespace_is_held_as_any() {
    in_namespace(|| {
        let mut arena = Arena::of_namespaces(Behind::Tap);
        arena.check(&cases::all());
        arena.daemon.crash();
        arena.check(&cases::all());
    });
}

#[test]
fn a_fragment_of_ipv6_shows_what_it_is_or_is_a_later_one() {
    in_namespace(|| {
        // Otherwise the host puts packets together, and passes on what is whole.
        if Path::new(BRIDGE_NF6).exists() {
            fs::write(BRIDGE_NF6, "0").unwrap();
        }
        Arena::new().check(&ipv6::fragments());
    });
}

#[test]
fn hundreds_of_addresses_reach_nobody() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.check(&forged6::hundreds());
        arena.daemon.crash();
        arena.check(&forged6::hundreds());
        // Nor does the host know any of them.
        let known = run("ip -6 neigh show dev vbr1");
        assert!(!known.contains("2001:db8:20:0:1::"), "{known}");
    });
}

/// How many addresses of guests were learned.
fn leases() -> usize {
    let set = json("nft -j list set bridge volnet leases");
    set["nftables"][1]["set"]["elem"].as_array().map_or(0, Vec::len)
}

#[test]
fn the_same_among_a_thousand_guests() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.add_crowd(CROWD);
        arena.check(&cases::all());
        arena.check(&forged6::hundreds());
    });
}

#[test]
fn the_same_from_a_clone() {
    in_namespace(|| {
        let mut arena = Arena::of_clone();
        arena.check(&cases::all());
        arena.daemon.crash();
        arena.check(&cases::all());
    });
}

#[test]
fn what_the_host_begins_is_answered() {
    in_namespace(|| {
        let mut arena = Arena::new();
        arena.check(&[cases::answer(4242, &[])]);
        arena.call(UNLISTED, Attacker, 4242);
        arena.check(&[cases::answer(4242, cases::HOST), cases::answer(4243, &[])]);
    });
}

/// A bridge that looks at who listens keeps what guests say for all that they name.
#[test]
fn groups_that_a_guest_joins_are_kept_nowhere() {
    in_namespace(|| {
        let mut arena = Arena::new();
        let kept = || {
            let table = run("bridge mdb show dev vbr1");
            [" grp 239.9.", " grp ff05::9:"].map(|group| table.matches(group).count())
        };
        for _ in 0..50 {
            arena.check(&ipv6::reports(Stranger, &[Asker, Other, Server]));
        }
        assert_eq!(kept(), [0, 0]);
        arena.daemon.crash();
        run("ip link set vbr1 type bridge mcast_snooping 1");
        arena.check(&ipv6::reports(Stranger, &[Asker, Other, Server]));
        assert_eq!(kept(), [1, 1], "they are what such a bridge keeps");
    });
}

/// To a querier a bridge that looks at who listens sends whatever goes to groups.
#[test]
fn a_guest_is_no_querier_of_multicast() {
    in_namespace(|| {
        let mut arena = Arena::new();
        let routers = || json("bridge -j -d mdb show")[0]["router"].to_string();
        arena.check(&ipv6::queries(Stranger, &[]));
        // As a bridge of the host may be.
        arena.daemon.crash();
        run("ip link set vbr1 type bridge mcast_snooping 1");
        arena.check(&ipv6::queries(Stranger, &[]));
        assert_eq!(routers(), "{}");
        // A machine that is no guest may be one, as on any bridge.
        arena.check(&ipv6::queries(Server, &[Asker, Other, Stranger]));
        eventually("a querier", || routers().contains("server"));
    });
}

/// A table of the test counts the frames of each port before and behind the rules for guests. What
/// is in between was dropped, and volnet has counted it, whichever rule it was.
#[test]
fn what_is_dropped_is_counted_by_port() {
    in_namespace(|| {
        let mut arena = Arena::new();
        run("nft add table bridge seen");
        for (seen, priority) in [("before", -301), ("behind", -299)] {
            run(&format!("nft add set bridge seen {seen} {{ type ifname; flags dynamic; }}"));
            let hook = format!("type filter hook prerouting priority {priority};");
            run(&format!("nft add chain bridge seen of_{seen} {{ {hook} }}"));
            run(&format!("nft add rule bridge seen of_{seen} add @{seen} {{ iifname counter }}"));
        }
        let counted = |table: &str, set: &str| -> BTreeMap<String, u64> {
            let shown = json(&format!("nft -j list set bridge {table} {set}"));
            let elements = shown["nftables"][1]["set"]["elem"].as_array().cloned();
            let of = |it: &Value| {
                let packets = it["elem"]["counter"]["packets"].as_u64().expect("a counter");
                (it["elem"]["val"].as_str().expect("a link").to_owned(), packets)
            };
            elements.unwrap_or_default().iter().map(of).collect()
        };
        let told = || -> BTreeMap<String, u64> {
            let mut spoofed = counted("volnet", "spoofed");
            for (link, packets) in counted("volnet", "forged") {
                *spoofed.get_mut(&link).expect("it is in both") += packets;
            }
            spoofed
        };
        let already = told();
        arena.check(&cases::all());
        arena.check(&forged6::hundreds());
        arena.repeat(&cases::question(Attacker), STORM, Victim);
        let (before, behind) = (counted("seen", "before"), counted("seen", "behind"));
        let dropped = |link: &String| {
            before.get(link).unwrap_or(&0) - behind.get(link).unwrap_or(&0) + already[link]
        };
        let expected = told().keys().map(|link| (link.clone(), dropped(link))).collect();
        assert_eq!(told(), expected, "{}", run("nft list table bridge volnet"));
        assert!(dropped(&"vttap-attacker".into()) > STORM as u64 / 2);
        assert!(dropped(&"vttap-stranger".into()) > 100, "{expected:?}");
    });
}

/// Frames that go to everybody, in a storm.
const STORM: usize = 5000;
/// How many of them may come at once, and how many a second.
const BURST: usize = 250;
const PER_SECOND: f64 = 250.0;

#[test]
fn a_storm_is_bounded_for_its_port_and_for_no_other() {
    in_namespace(|| storm(Arena::new()));
    in_namespace(|| storm(Arena::of_namespaces(Behind::Link)));
}

fn storm(mut arena: Arena) {
    let began = Instant::now();
    let arrived = arena.repeat(&cases::question(Attacker), STORM, Victim);
    let most = BURST + 1 + (began.elapsed().as_secs_f64() * PER_SECOND) as usize;
    assert!((BURST / 2..=most).contains(&arrived), "{arrived} of at most {most}");
    // The others shout as before, and the one who shouted too much can speak.
    let arrived = arena.repeat(&cases::question(Victim), BURST / 2, Attacker);
    assert_eq!(arrived, BURST / 2);
    let arrived = arena.repeat(&cases::word(Attacker, Victim), STORM, Victim);
    assert_eq!(arrived, STORM);
}

#[test]
fn without_rules_for_bridges_the_host_is_guarded_all_the_same() {
    in_namespace(|| {
        let mut arena = Arena::unguarded();
        assert!(!run("nft list tables").contains("bridge"));
        arena.check(&cases::without_antispoof());
        let check = arena.daemon.call("Check", serde_json::json!({})).to_string();
        assert!(check.contains("guests of network default may send from any address"), "{check}");
    });
}
