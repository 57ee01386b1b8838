//! The built-in DHCP server on the real kernel: guests that the test plays, and ISC's client.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::guest::{Guest, as_guest};
use common::{eventually, in_namespace, run};
use volnet::dhcp::message::{Kind, option};
use volnet::model::mac::Mac;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);

/// Makes a VM and gives it as the interface shows it.
fn create(daemon: &Daemon, name: &str, network: Value) -> Value {
    let mut answer =
        daemon.call("Create", json!({ "name": name, "config": { "network": network } }));
    assert!(answer["error"].is_null(), "{answer}");
    answer["parameters"]["vm"].take()
}

/// Makes a VM whose guest asks, and gives the guest.
fn asking(daemon: &Daemon, name: &str) -> Guest {
    Guest::of(&create(daemon, name, json!({ "mode": "dhcp" })))
}

/// What is shown of a VM.
fn shown(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take()
}

fn shown_ip(daemon: &Daemon, name: &str) -> Option<Ipv4Addr> {
    shown(daemon, name)["ip"].as_str().map(|ip| ip.parse().unwrap())
}

fn leased(daemon: &Daemon) -> u64 {
    daemon.call("Networks", json!({}))["parameters"]["networks"][0]["leased"].as_u64().unwrap()
}

#[test]
fn a_guest_gets_renews_gives_back_and_gets_again() {
    in_namespace(|| {
        let mut daemon = Daemon::without(&[]);
        let resolvers = daemon.folder.join("resolv.conf");
        std::fs::write(&resolvers, "nameserver 127.0.0.53\nnameserver 192.0.2.7\n").unwrap();
        run(&format!("mount --bind {} /etc/resolv.conf", resolvers.display()));
        let off = json!({ "networks": [{ "dns": "off" }] });
        std::fs::write(daemon.folder.join("config.json"), off.to_string()).unwrap();
        daemon.start_again();
        let findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
        let told = findings.as_array().unwrap().iter().find(|f| f["check"] == "name servers");
        assert_eq!(told.unwrap()["message"], "guests are told the name servers 192.0.2.7");
        let told = create(&daemon, "told", json!({ "ip": "192.168.127.77" }));
        let args = "ip=192.168.127.77::192.168.127.1:255.255.255.0:told:eth0:off:192.0.2.7";
        assert_eq!(told["kernel_args"], args, "name servers of a guest that does not ask");
        daemon.call("Delete", json!({ "name": "told" }));
        let vm = create(&daemon, "web.1_x", json!({ "mode": "dhcp", "mtu": 1400 }));
        assert!(vm["ip"].is_null() && vm["gateway"].is_null(), "{vm}");
        let guest = Guest::of(&vm);
        guest.discover();
        let offer = guest.hear();
        assert_eq!((offer.kind, offer.seconds), (Kind::Offer, Some(3600)));
        assert_eq!((&offer.dns[..], &offer.mtu[..]), (&[192, 0, 2, 7][..], &[5, 120][..]));
        assert_eq!(offer.host_name, "web-1-x");
        assert!(shown(&daemon, "web.1_x")["ip"].is_null(), "an offer is no lease");
        guest.select(offer.ip, SERVER);
        assert_eq!(guest.hear().kind, Kind::Ack);
        let vm = shown(&daemon, "web.1_x");
        let route = format!("{} dev vbr0 scope link mtu 1400", offer.ip);
        assert!(run("ip route show proto 118").starts_with(&route), "the host knows its MTU");
        assert_eq!(vm["ip"], offer.ip.to_string());
        assert_eq!(
            (&vm["gateway"], &vm["netmask"]),
            (&json!("192.168.127.1"), &json!("255.255.255.0"))
        );
        assert_eq!(vm["kernel_args"], "", "the guest asks; nobody tells it");
        let tap = vm["tap"].as_str().unwrap().to_string();
        let may_send = |ip: Ipv4Addr| {
            let element = format!("{{ {tap} . {} . {ip} }}", guest.mac);
            let mut nft = Command::new("nft");
            nft.args(["get", "element", "bridge", "volnet", "guests", &element]);
            nft.output().unwrap().status.success()
        };
        assert!(may_send(offer.ip), "from now on the guest may use it");
        guest.say_as(offer.ip, Kind::Request);
        assert_eq!((guest.hear().kind, leased(&daemon)), (Kind::Ack, 1));

        guest.say_as(offer.ip, Kind::Release);
        eventually("the lease is given back", || shown_ip(&daemon, "web.1_x").is_none());
        assert!(leased(&daemon) == 0 && !may_send(offer.ip));
        let again = guest.get_lease(SERVER);
        assert_eq!(shown_ip(&daemon, "web.1_x"), Some(again));
        let log = daemon.log();
        for words in
            [format!("got the address {}", offer.ip), format!("released the address {}", offer.ip)]
        {
            assert!(log.contains(&words), "{log}");
        }
        drop(guest);
        daemon.call("Delete", json!({ "name": "web.1_x" }));
        assert_eq!(leased(&daemon), 0);
    });
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What dhclient calls with what it got: sets the address, and writes down that it was called.
const SCRIPT: &str = r#"#!/bin/sh
case $reason in
BOUND | REBOOT | RENEW | REBIND) ip addr replace "$new_ip_address/$new_subnet_mask" dev eth0 ;;
RELEASE) ip addr flush dev eth0 ;;
esac
echo "$reason $new_ip_address $new_routers $new_dhcp_server_identifier $new_interface_mtu" \
    "$new_host_name $new_dhcp_lease_time" >>"$(dirname "$0")/said"
"#;

#[test]
fn the_client_of_isc_gets_renews_gives_back_and_gets_again() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let vm = create(&daemon, "isc", json!({ "mode": "dhcp" }));
        let folder = daemon.folder.join("isc");
        std::fs::create_dir(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        // It renews at once instead of after half of the time.
        std::fs::write(path("conf"), "supersede dhcp-renewal-time 2;").unwrap();
        std::fs::write(path("script"), SCRIPT).unwrap();
        run(&format!("chmod +x {}", path("script")));
        let files = [("-cf", "conf"), ("-lf", "leases"), ("-pf", "pid"), ("-sf", "script")];
        let files = files.map(|(flag, name)| format!("{flag} {}", path(name))).join(" ");
        let dhclient = |words: &str| {
            let line = format!("-4 {files} {words} eth0");
            let mut command = Command::new("dhclient");
            Running(command.args(line.split(' ')).stderr(Stdio::null()).spawn().expect("dhclient"))
        };
        // The first line with this reason that was not there before.
        let mut read = 0;
        let mut said = |reason: &str| {
            let mut found = None;
            eventually(reason, || {
                let text = std::fs::read_to_string(path("said")).unwrap_or_default();
                let mut lines = text.lines().enumerate().skip(read);
                found = lines
                    .find(|(_, line)| line.starts_with(reason))
                    .map(|(at, line)| (at + 1, line.to_string()));
                found.is_some()
            });
            let (at, line) = found.unwrap();
            read = at;
            line
        };
        as_guest(&vm, || {
            let client = dhclient("-d");
            let rest = "192.168.127.1 192.168.127.1 1500 isc";
            let bound = said("BOUND");
            let ip = shown_ip(&daemon, "isc").expect("a lease");
            assert_eq!(bound, format!("BOUND {ip} {rest} 3600"));
            run("ping -c 1 -W 5 192.168.127.1");
            assert!(said("RENEW").starts_with(&format!("RENEW {ip} {rest} 35")), "what is left");
            drop(client);
            assert!(dhclient("-r").0.wait().unwrap().success());
            said("RELEASE");
            eventually("it is given back", || shown_ip(&daemon, "isc").is_none());

            let client = dhclient("-d");
            let bound = said("BOUND");
            let again = shown_ip(&daemon, "isc").expect("a lease");
            assert_eq!(bound, format!("BOUND {again} {rest} 3600"));
            // It ends without a word, and comes back with what it remembers: by now that is
            // written.
            said("RENEW");
            drop(client);
            let _client = dhclient("-d");
            assert!(said("REBOOT").starts_with(&format!("REBOOT {again} {rest}")));
        });
    });
}

#[test]
fn a_rogue_gets_no_answer() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let (victim, rogue) = (asking(&daemon, "victim"), asking(&daemon, "rogue"));
        let ip = victim.get_lease(SERVER);
        let stranger = Mac([2, 9, 9, 9, 9, 9]);
        for (from, chaddr) in [
            (stranger, stranger),
            (victim.mac, victim.mac),
            (rogue.mac, victim.mac),
            (victim.mac, rogue.mac),
            (stranger, rogue.mac),
        ] {
            for kind in [Kind::Discover, Kind::Request, Kind::Inform] {
                rogue.say(from, chaddr, kind, &[(option::REQUESTED_IP, &ip.octets())]);
            }
        }
        for kind in [Kind::Release, Kind::Request] {
            rogue.say_for(victim.mac, ip, kind);
        }
        rogue.say(victim.mac, victim.mac, Kind::Decline, &[(option::REQUESTED_IP, &ip.octets())]);
        // Frames are answered in their order: what comes next is the first answer there is.
        rogue.discover();
        let offer = rogue.hear();
        assert_eq!(offer.kind, Kind::Offer);
        assert_ne!(offer.ip, ip);
        assert_eq!(shown_ip(&daemon, "victim"), Some(ip));
        assert_eq!(leased(&daemon), 2);
        assert_eq!(victim.try_hear(), None, "and nobody is told what he did not ask");
    });
}

#[test]
fn two_hundred_and_fifty_guests_at_once() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let guests: Vec<Guest> = (0..250)
            .map(|n| {
                let config = json!({ "network": { "mode": "dhcp" }, "ephemeral": true });
                let vm = json!({ "name": format!("g{n}"), "config": config });
                Guest::of(&daemon.call("Create", vm)["parameters"]["vm"])
            })
            .collect();
        for guest in &guests {
            guest.discover();
        }
        let offers: Vec<Ipv4Addr> = guests.iter().map(|guest| guest.hear().ip).collect();
        for (guest, offer) in guests.iter().zip(&offers) {
            guest.select(*offer, SERVER);
        }
        for (guest, offer) in guests.iter().zip(&offers) {
            let ack = guest.hear();
            assert_eq!((ack.kind, ack.ip), (Kind::Ack, *offer));
        }
        assert_eq!(offers.iter().collect::<BTreeSet<_>>().len(), guests.len());
        assert_eq!(leased(&daemon), 250);
        let vms = daemon.call("List", json!({}))["parameters"]["vms"].take();
        let listed: BTreeSet<Ipv4Addr> = vms
            .as_array()
            .unwrap()
            .iter()
            .map(|vm| vm["ip"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(listed, offers.into_iter().collect());
    });
}

#[test]
fn a_daemon_that_is_killed_keeps_its_promises() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        let (one, two) = (asking(&daemon, "one"), asking(&daemon, "two"));
        let held = one.get_lease(SERVER);
        two.discover();
        let offer = two.hear();
        daemon.crash();
        // What is asked meanwhile is asked in vain; a client asks again.
        two.select(offer.ip, SERVER);
        daemon.start_again();
        let third = asking(&daemon, "three");
        assert!(![held, offer.ip].contains(&third.get_lease(SERVER)));
        two.select(offer.ip, SERVER);
        let ack = two.hear();
        assert_eq!((ack.kind, ack.ip), (Kind::Ack, offer.ip));
        assert_eq!(shown_ip(&daemon, "one"), Some(held));
        one.say_as(held, Kind::Request);
        assert_eq!((one.hear().kind, leased(&daemon)), (Kind::Ack, 3));
    });
}

#[test]
fn a_guest_that_runs_keeps_its_address_when_its_lease_is_over() {
    in_namespace(|| {
        // The network has one address for guests.
        let mut daemon = Daemon::start(&["--subnet", "10.44.0.0/30"]);
        let server = Ipv4Addr::new(10, 44, 0, 1);
        let one = asking(&daemon, "one");
        let ip = one.get_lease(server);
        let two = asking(&daemon, "two");
        daemon.stop();
        let path = daemon.folder.join("state/vms/one.json");
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(record["boot"], boot.trim());
        let until = &mut record["nics"][0]["lease"]["until"];
        let left = until.as_f64().unwrap() / 1000.0 - uptime();
        assert!((3400.0..3700.0).contains(&left), "{left} s are left");
        *until = (-25 * 365 * 86_400_000_i64).into();
        std::fs::write(&path, record.to_string()).unwrap();
        daemon.start_again();
        two.discover();
        eventually("it is told that none is free", || {
            daemon.log().contains("network default has no free address for its guest vm=two")
        });
        assert_eq!(shown_ip(&daemon, "one"), Some(ip));
        one.say_as(ip, Kind::Request);
        assert_eq!(one.hear().kind, Kind::Ack);

        daemon.stop();
        std::fs::write(&path, record.to_string()).unwrap();
        daemon.start_again();
        drop(one);
        let mut offer = None;
        eventually("nobody has the link open, and the address is free", || {
            two.discover();
            offer = two.try_hear();
            offer.is_some()
        });
        assert_eq!(offer.map(|told| told.ip), Some(ip));
        assert_eq!(shown_ip(&daemon, "one"), None);
    });
}

/// Seconds since the host was booted, while it was suspended, too.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_bridge_that_went_and_came_back_is_listened_to_again() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let guest = asking(&daemon, "web");
        let ip = guest.get_lease(SERVER);
        run("ip link set vbr0 down");
        eventually("the bridge is up", || daemon.log().contains("link vbr0 is down: repaired"));
        assert_eq!(guest.get_lease(SERVER), ip);
        run("ip link del vbr0");
        eventually("the bridge is back", || daemon.log().contains("bridge vbr0 is gone: repaired"));
        let mut heard = None;
        eventually("the guest is heard", || {
            guest.discover();
            heard = guest.try_hear();
            heard.is_some()
        });
        assert_eq!(heard.map(|told| told.ip), Some(ip));
    });
}

#[test]
fn a_bridged_guest_that_asks_is_told_what_it_has() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let vm = create(&daemon, "own", json!({ "ip": "192.168.127.77" }));
        let guest = Guest::of(&vm);
        guest.say_as(Ipv4Addr::new(192, 168, 127, 77), Kind::Request);
        let ack = guest.hear();
        assert_eq!((ack.kind, ack.ip.to_string().as_str()), (Kind::Ack, "192.168.127.77"));
    });
}

#[test]
fn only_a_network_that_is_to_is_served() {
    in_namespace(|| {
        let network = |name: &str, n: u8, dhcp: &str| {
            json!({ "name": name, "bridge": format!("vbr{n}"), "subnet": format!("10.0.{n}.0/24"),
                    "dhcp": dhcp })
        };
        let daemon = Daemon::configured(&json!({ "networks": [
            network("in", 0, "builtin"), network("ext", 1, "external"), network("off", 2, "off")
        ] }));
        let networks = daemon.call("Networks", json!({}))["parameters"]["networks"].take();
        let shown: Vec<&str> =
            networks.as_array().unwrap().iter().map(|n| n["dhcp"].as_str().unwrap()).collect();
        assert_eq!(shown, ["builtin", "external", "off"]);
        let refused =
            json!({ "name": "no", "config": { "network": { "mode": "dhcp", "name": "off" } } });
        let answer = daemon.call("Create", refused);
        assert_eq!(answer["parameters"]["field"], "network.mode", "{answer}");
        let external = Guest::of(&create(&daemon, "ext", json!({ "mode": "dhcp", "name": "ext" })));
        external.discover();
        let inner = asking(&daemon, "in");
        assert!(inner.get_lease(Ipv4Addr::new(10, 0, 0, 1)).to_string().starts_with("10.0.0."));
        let packets = run("ss -0 -n -l");
        assert!(packets.contains("vbr0") && !packets.contains("vbr1"), "{packets}");
        assert!(!packets.contains("vbr2"), "{packets}");
        let answer = daemon.call("Teardown", json!({ "force": true }));
        assert!(answer["error"].is_null(), "{answer}");
        eventually("nobody listens on what is not there", || !run("ss -0 -n -l").contains("p_raw"));
    });
}

/// What the clients call: it writes their words down, one on a line, by the names that they have.
const WORDS: &str = r#"#!/bin/sh
case ${reason:-$1} in
BOUND | bound) ;;
*) exit 0 ;;
esac
cat >"$(dirname "$0")/told.new" <<END
domain ${new_domain_name:-$domain}
search ${new_domain_search:-$search}
server ${new_tftp_server_name:-$tftp}
file ${new_bootfile_name:-$bootfile}
header ${new_next_server:-$siaddr} ${new_filename:-$boot_file}
END
mv "$(dirname "$0")/told.new" "$(dirname "$0")/told"
"#;

#[test]
fn the_clients_of_isc_and_busybox_are_told_where_to_look_up_names_and_what_to_boot() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({ "networks": [{
            "search": ["lab.example.org", "example.org"],
            "next_server": "192.168.127.9", "boot_file": "ipxe.efi"
        }] }));
        let conf = "request subnet-mask, routers, domain-name, domain-search, tftp-server-name, \
            bootfile-name;";
        for (name, client) in [
            ("isc", "dhclient -4 -d -cf @/conf -lf @/leases -pf @/pid -sf @/script eth0"),
            (
                "busybox",
                "busybox udhcpc -f -i eth0 -s @/script -O domain -O search -O tftp -O bootfile",
            ),
        ] {
            let vm = create(&daemon, name, json!({ "mode": "dhcp" }));
            let folder = daemon.folder.join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("conf"), conf).unwrap();
            std::fs::write(folder.join("script"), WORDS).unwrap();
            run(&format!("chmod +x {}", folder.join("script").display()));
            as_guest(&vm, || {
                let line = client.replace('@', &folder.display().to_string());
                let (program, words) = line.split_once(' ').unwrap();
                let mut command = Command::new(program);
                command.args(words.split(' '));
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let _client = Running(command.spawn().expect("a client"));
                let mut told = String::new();
                eventually("it is told", || {
                    told = std::fs::read_to_string(folder.join("told")).unwrap_or_default();
                    !told.is_empty()
                });
                let expected = "domain lab.example.org\nsearch lab.example.org example.org\n\
                    server 192.168.127.9\nfile ipxe.efi\nheader 192.168.127.9 ipxe.efi\n";
                // dhclient ends each domain with a dot.
                assert_eq!(told.replace(".org. ", ".org ").replace(".org.\n", ".org\n"), expected);
            });
        }
    });
}
