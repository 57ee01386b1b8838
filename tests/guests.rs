//! Real Linux guests in QEMU, in each mode, under the real daemon.

#![cfg(target_os = "linux")]

mod lab;
#[path = "common/vmconf.rs"]
mod vmconf;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use lab::{Lab, UPLINK_IP, WORLD_IP, WORLD_PORT, assert_has_no_rights, guest_file};
use vmconf::vmconf;

#[test]
fn bridged_the_guest_has_its_lease_and_reaches_the_world() {
    let lab = Lab::new();
    let orders = format!("volnet.do=ping:gateway,get:{WORLD_IP}:{WORLD_PORT},hold");
    lab.run_guest("web", &[], &orders);
    lab.wait_for_line("web", "GUEST ready");
    let vm = lab.vm("web");
    let (ip, mac) = (vm["ip"].as_str().unwrap(), vm["mac"].as_str().unwrap());
    assert_eq!(vm["status"], "running");
    assert_has_no_rights(&vm["pid"]);
    let console = lab.console("web");
    assert!(
        console.contains(&format!("eth0 mac {mac} address {ip}/24 gateway 192.168.127.1 host web"))
    );
    assert!(console.contains("GUEST ping 192.168.127.1: ok"), "{console}");
    let seen = format!("GUEST get {WORLD_IP}:{WORLD_PORT}: you are {UPLINK_IP}");
    assert!(console.contains(&seen), "{console}");
    lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", ip]);

    lab.volnet(&["stop", "web"]);
    let stopped = lab.vm("web");
    assert_eq!((&stopped["status"], stopped["exit_code"].as_i64()), (&"stopped".into(), Some(0)));
    lab.wait_for_line("web", "GUEST power button: powering off");

    lab.volnet(&["start", "web"]);
    assert_eq!(lab.vm("web")["ip"], ip, "the lease is the VM's until it is deleted");
    lab.volnet(&["delete", "web", "--timeout", "1"]);
    assert!(!lab.on_host(&["ip", "-o", "link"]).contains("vttap-"));
}

#[test]
fn two_guests_reach_each_other_and_outlive_the_daemon() {
    let mut lab = Lab::new();
    lab.run_guest("one", &[], "volnet.do=hold");
    lab.wait_for_line("one", "GUEST ready");
    let first = lab.vm("one");
    let ip = first["ip"].as_str().unwrap().to_owned();
    lab.stop_daemon();
    lab.on_host(&["ping", "-c", "1", "-W", "5", &ip]);
    lab.start_daemon();
    assert_eq!(lab.vm("one")["pid"], first["pid"], "adopted");
    lab.run_guest("two", &[], &format!("volnet.do=ping:{ip},hold"));
    lab.wait_for_line("two", &format!("GUEST ping {ip}: ok"));
    lab.volnet(&["stop", "one", "--timeout", "1"]);
    assert_eq!(lab.vm("one")["status"], "stopped", "an adopted process is watched like a child");
    lab.volnet(&["teardown", "--force"]);
    assert_eq!(lab.on_host(&["nft", "list", "ruleset"]).trim(), "");
}

#[test]
fn a_guest_on_two_networks_has_both_addresses_and_a_policy_on_each() {
    let mut lab = Lab::configured(
        r#"{ "networks": [{}, { "name": "back", "bridge": "vbr1", "subnet": "10.9.0.0/24" }] }"#,
    );
    let config = lab.folder().join("vm.json");
    let networks = r#"{ "networks": [{ "policy": "none" }, { "name": "back", "queues": 2 }] }"#;
    std::fs::write(&config, networks).unwrap();
    let orders = format!("volnet.do=ping:gateway,ping:10.9.0.1,get:{WORLD_IP}:{WORLD_PORT},hold");
    lab.run_guest("both", &["--config", config.to_str().unwrap(), "--cpus", "2"], &orders);
    lab.wait_for_line("both", "GUEST ready");
    let vm = lab.vm("both");
    let console = lab.console("both");
    for (link, nic) in vm["nics"].as_array().unwrap().iter().enumerate() {
        let (mac, ip) = (nic["mac"].as_str().unwrap(), nic["ip"].as_str().unwrap());
        let has = format!("eth{link} mac {mac} address {ip}/24 gateway 192.168.127.1 host both");
        assert!(console.contains(&has), "{has:?} in {console}");
        let gateway = nic["gateway"].as_str().unwrap();
        assert!(console.contains(&format!("GUEST ping {gateway}: ok")), "{console}");
        lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", ip]);
    }
    let world = format!("GUEST get {WORLD_IP}:{WORLD_PORT}: ");
    assert!(console.lines().any(|line| line == world.trim_end() || line == world), "{console}");

    // The guest and its two links are one VM to the next daemon, too.
    lab.crash_daemon();
    lab.on_host(&["ip", "link", "set", vm["nics"][1]["tap"].as_str().unwrap(), "nomaster"]);
    lab.start_daemon();
    assert_eq!(lab.vm("both")["nics"], vm["nics"]);
    assert_eq!(lab.vm("both")["pid"], vm["pid"], "adopted");
    for nic in vm["nics"].as_array().unwrap() {
        lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", nic["ip"].as_str().unwrap()]);
    }
    lab.volnet(&["delete", "both", "--timeout", "1"]);
    assert!(!lab.on_host(&["ip", "-o", "link"]).contains("vttap-"));
}

/// Waits until a guest has sent some more.
fn wait_for_packets(lab: &Lab, tap: &str) {
    let file = format!("/sys/class/net/{tap}/statistics/rx_packets");
    let count = || lab.on_host(&["cat", &file]).trim().parse::<u64>().unwrap();
    let before = count();
    lab.wait_for("packets", || (count() >= before + 10).then_some(()));
}

#[test]
fn no_packet_is_lost_over_restarts_crashes_and_an_upgrade() {
    const STOP: &str = "8";
    let mut lab = Lab::new();
    lab.run_guest("pings", &[], &format!("volnet.do=ping-until:{WORLD_IP}:{STOP},hold"));
    lab.wait_for_line("pings", "GUEST pinging");
    let before = lab.vm("pings");
    for _ in 0..3 {
        let stops: [fn(&mut Lab); 2] = [Lab::stop_daemon, Lab::crash_daemon];
        for stop in stops {
            wait_for_packets(&lab, "vttap-pings");
            stop(&mut lab);
            wait_for_packets(&lab, "vttap-pings");
            lab.start_daemon();
        }
    }
    // Another binary, which even wants other rules: the table that belonged to the daemon becomes
    // everybody's.
    let upgraded = lab.folder().join("volnet");
    std::fs::copy(&lab.program, &upgraded).unwrap();
    lab.program = upgraded;
    lab.flags = vec!["--nft-owner", "no"];
    wait_for_packets(&lab, "vttap-pings");
    lab.stop_daemon();
    lab.start_daemon();
    wait_for_packets(&lab, "vttap-pings");
    assert!(!lab.on_host(&["nft", "list", "ruleset"]).contains("owner"));
    lab.open_in_world(STOP);
    let line = lab.wait_for_line("pings", "GUEST pinged");
    let counts: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [received, sent] = counts[..] else { panic!("{line}") };
    assert!(received == sent && sent >= 200, "{line}");
    assert_eq!(lab.vm("pings")["pid"], before["pid"], "the guest is the same");
}

/// Pings so often, a hundred times a second, all of which must be answered. The times of the
/// quickest, the mean and the slowest, in milliseconds.
fn ping(lab: &Lab, ip: &str, count: u32) -> [f64; 3] {
    let count = count.to_string();
    let told = lab.on_host(&["ping", "-q", "-i", "0.01", "-W", "5", "-c", &count, ip]);
    assert!(told.contains(" 0% packet loss"), "{told}");
    let times = told.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let mut times = times.expect("a summary").split('/').map(|time| time.parse().unwrap());
    std::array::from_fn(|_| times.next().expect("three times"))
}

#[test]
fn the_traffic_of_a_guest_goes_on_while_500_vms_come_and_go() {
    const ROUNDS: usize = 5;
    let lab = Lab::new();
    lab.run_guest("stays", &[], "volnet.do=hold");
    lab.wait_for_line("stays", "GUEST ready");
    let ip = lab.vm("stays")["ip"].as_str().unwrap().to_owned();
    println!("alone: min, mean, max {:?} ms", ping(&lab, &ip, 500));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for _ in 0..ROUNDS {
                let names: Vec<String> = (0..100).map(|number| format!("vm{number}")).collect();
                names.iter().for_each(|name| drop(lab.volnet(&["create", name])));
                names.iter().for_each(|name| drop(lab.volnet(&["delete", name])));
            }
        });
        while !others.is_finished() {
            println!("others come and go: {:?} ms", ping(&lab, &ip, 100));
        }
    });
}

/// The folder of a VM's sockets and generated files.
fn folder_of(lab: &Lab, vm: &str) -> std::path::PathBuf {
    lab.folder().join("run/vm").join(vm)
}

#[test]
fn cloud_init_the_guest_reads_its_network_from_a_disk() {
    let mut lab = Lab::configured(
        r#"{ "networks": [{}, { "name": "back", "bridge": "vbr1", "subnet": "10.9.0.0/24",
                                "mtu": 1400 }] }"#,
    );
    let folder = lab.folder();
    std::fs::write(folder.join("user-data"), "#cloud-config\nruncmd: [\"true\"]\n").unwrap();
    let (user, config) = (folder.join("user-data"), folder.join("vm.json"));
    let networks = r#"{ "networks": [{}, { "name": "back", "mode": "dhcp" }] }"#;
    std::fs::write(&config, networks).unwrap();
    let (user, config) = (user.to_str().unwrap(), config.to_str().unwrap());
    let orders = format!("volnet.seed volnet.do=ping:gateway,get:{WORLD_IP}:{WORLD_PORT},hold");
    lab.run_guest("seeded", &["--cloud-init", user, "--config", config], &orders);
    lab.wait_for_line("seeded", "GUEST ready");
    let vm = lab.vm("seeded");
    let console = lab.console("seeded");
    let has = |line: &str| assert!(console.contains(line), "{line:?} in {console}");
    has("GUEST seed /dev/vda read-only 1");
    has("GUEST user-data: runcmd: [\"true\"]");
    has(&format!("GUEST meta-data: instance-id: \"seeded-{}\"", vm["created_at"]));
    has("GUEST network-config:     mtu: 1400");
    for (at, nic) in vm["nics"].as_array().unwrap().iter().enumerate() {
        let (mac, ip) = (nic["mac"].as_str().unwrap(), nic["ip"].as_str().unwrap());
        has(&format!("eth{at} mac {mac} address {ip}/24 gateway 192.168.127.1 host seeded"));
        lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", ip]);
    }
    has(&format!("GUEST get {WORLD_IP}:{WORLD_PORT}: you are {UPLINK_IP}"));

    // The next daemon leaves the disk of a running guest where it is, and each start makes it anew.
    let seed = folder_of(&lab, "seeded").join("seed.img");
    let first = std::fs::read(&seed).unwrap();
    lab.crash_daemon();
    lab.start_daemon();
    assert_eq!(lab.vm("seeded")["pid"], vm["pid"], "adopted");
    assert_eq!(std::fs::read(&seed).unwrap(), first);
    std::fs::write(&seed, "spoilt").unwrap();
    lab.volnet(&["restart", "seeded", "--timeout", "1"]);
    lab.wait_for("the second start", || {
        (lab.console("seeded").matches("GUEST ready").count() == 2).then_some(())
    });
    assert_eq!(std::fs::read(&seed).unwrap(), first, "the instance stays the same");
    lab.volnet(&["delete", "seeded", "--timeout", "1"]);
    assert!(!folder_of(&lab, "seeded").exists());
}

#[test]
fn cloud_init_works_without_a_network() {
    let lab = Lab::new();
    let config = lab.folder().join("vm.json");
    let own = r##"{ "cloud_init": { "meta_data": { "instance-id": "i-1" } } }"##;
    std::fs::write(&config, own).unwrap();
    let words = ["--mode", "vsock", "--config", config.to_str().unwrap()];
    lab.run_guest("alone", &words, "volnet.seed volnet.do=hold");
    lab.wait_for_line("alone", "GUEST ready");
    let console = lab.console("alone");
    assert!(console.contains("GUEST meta-data:   \"instance-id\": \"i-1\""), "{console}");
    assert!(console.contains("GUEST user-data: #cloud-config"), "{console}");
    assert!(!console.contains("GUEST network-config"), "{console}");
}

#[test]
fn dhcp_the_guest_asks_and_volnet_answers() {
    let lab = Lab::new();
    let orders =
        "ip=dhcp volnet.do=ping:gateway,lease:get,lease:renew,lease:release,lease:get,hold";
    lab.run_guest("asks", &["--mode", "dhcp"], orders);
    lab.wait_for_line("asks", "GUEST ready");
    let console = lab.console("asks");
    let said = |words: &str| -> Vec<&str> {
        let lines = console.lines().filter_map(|line| line.strip_prefix(words));
        lines.map(|line| line.trim()).collect()
    };
    // Once at boot, and once by a client that stays; then given back and asked for anew.
    let leases = said("GUEST lease ");
    assert_eq!(leases.len(), 3, "{console}");
    assert!(leases.iter().all(|lease| {
        lease.ends_with("/24 router 192.168.127.1 server 192.168.127.1 mtu 1500 name asks")
    }));
    let ip = leases[0].split('/').next().unwrap();
    assert!(leases.iter().all(|lease| lease.starts_with(ip)), "it asks for what it had: {console}");
    assert_eq!(said("GUEST renewed "), [ip]);
    assert_eq!(said("GUEST gave back"), [""]);
    assert!(console.contains("GUEST ping 192.168.127.1: ok"), "{console}");
    let vm = lab.vm("asks");
    assert_eq!((&vm["ip"], &vm["kernel_args"]), (&ip.into(), &"".into()));
    lab.on_host(&["ping", "-c", "1", "-W", "5", ip]);
}

#[test]
fn names_lead_to_guests_and_to_the_world() {
    let mut lab = Lab::new();
    lab.resolve();
    lab.run_guest("other", &[], "volnet.do=hold");
    let other = lab.vm("other")["ip"].as_str().unwrap().to_string();
    let names =
        ["other.volnet", "other", "gateway.volnet", "www.world.example", "nobody.volnet", &other];
    let words: Vec<String> = names.iter().map(|name| format!("lookup:{name}")).collect();
    let orders = format!("volnet.do={},hold", words.join(","));
    lab.run_guest("told", &[], &orders);
    lab.run_guest("asks", &["--mode", "dhcp"], &format!("ip=dhcp {orders}"));
    for vm in ["told", "asks"] {
        lab.wait_for_line(vm, "GUEST ready");
        let console = lab.console(vm);
        let found = [&other, &other, "192.168.127.1", WORLD_IP, "NXDOMAIN", "other.volnet"];
        for (name, found) in names.iter().zip(found) {
            let line = format!("GUEST lookup {name}: {found} ");
            assert!(console.contains(&line), "{line:?} in {console}");
        }
    }
    lab.volnet(&["delete", "other", "--timeout", "1"]);
    lab.crash_daemon();
    lab.start_daemon();
    lab.run_guest("late", &[], "volnet.do=lookup:other.volnet,lookup:told.volnet,hold");
    lab.wait_for_line("late", "GUEST ready");
    let (console, told) = (lab.console("late"), lab.vm("told"));
    assert!(console.contains("GUEST lookup other.volnet: NXDOMAIN "), "{console}");
    let line = format!("GUEST lookup told.volnet: {} ", told["ip"].as_str().unwrap());
    assert!(console.contains(&line), "{line:?} in {console}");
}

#[test]
fn by_ipv6_the_guest_finds_its_address_its_router_neighbours_names_and_the_world() {
    const WORLD_IP6: &str = "2001:db8:77::2";
    let lab = Lab::configured(r#"{ "networks": [{ "ipv6": true }] }"#);
    let address = |of: &'static str| [of, "/64"].concat();
    lab.on_host(&["ip", "addr", "add", &address("2001:db8:77::1"), "dev", "uplink", "nodad"]);
    let world = ["ip", "addr", "add", &address(WORLD_IP6), "dev", "hosts", "nodad"];
    lab.try_in_world(&world).unwrap();
    let networks: Value = serde_json::from_str(&lab.volnet(&["networks", "--json"])).unwrap();
    let host = networks["networks"][0]["host_ip6"].as_str().expect("an address").to_owned();

    lab.run_guest("other", &[], "volnet.do=ipv6,hold");
    lab.wait_for_line("other", "GUEST ready");
    let other = lab.vm("other")["ip6"].as_str().expect("an address").to_owned();
    let pings = [&*host, &other, WORLD_IP6].map(|to| format!("ping6:{to}")).join(",");
    lab.run_guest("web", &[], &format!("volnet.do=ipv6,{pings},lookup6:other.volnet@{host},hold"));
    lab.wait_for_line("web", "GUEST ready");
    let console = lab.console("web");
    let own = lab.vm("web")["ip6"].as_str().expect("an address").to_owned();
    let router = lab.on_host(&["ip", "-6", "-o", "addr", "show", "dev", "vbr0", "scope", "link"]);
    let router = router.split_whitespace().nth(3).expect("an address").replace("/64", "");
    let has = format!("GUEST eth0 ipv6 {own}/64 router {router}");
    assert!(console.contains(&has), "{has:?} in {console}");
    // The world has no way back to the guests: what it answers is masqueraded.
    for to in [&*host, &other, WORLD_IP6] {
        assert!(console.contains(&format!("GUEST ping {to}: ok")), "{to} in {console}");
    }
    let found = console.lines().find(|line| line.starts_with("GUEST lookup other.volnet: "));
    assert!(found.is_some_and(|line| line.split(' ').any(|word| word == other)), "{console}");
    lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", &own]);
}

#[test]
fn dhcp_the_guest_asks_and_a_server_beside_volnet_answers() {
    let mut lab = Lab::configured(r#"{ "networks": [{ "dhcp": "external" }] }"#);
    let leases = lab.folder().join("leases").display().to_string();
    let lease_file = format!("--dhcp-leasefile={leases}");
    lab.spawn(
        &[
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=vbr0",
            "--bind-interfaces",
            "--no-ping",
            "--dhcp-range=192.168.127.100,192.168.127.150,1h",
            &lease_file,
            "--user=root",
        ],
        "dnsmasq",
    );
    lab.run_guest("asks", &["--mode", "dhcp"], "ip=dhcp volnet.do=ping:gateway,hold");
    lab.wait_for_line("asks", "GUEST ready");
    let vm = lab.vm("asks");
    assert!(vm["ip"].is_null() && vm["tap"].is_string() && vm["kernel_args"] == "");
    let lease = lab.wait_for_line("asks", "GUEST lease 192.168.127.1");
    let ip = lease.split(['/', ' ']).nth(2).unwrap().to_owned();
    assert!(lab.console("asks").contains("GUEST ping 192.168.127.1: ok"));
    lab.on_host(&["ping", "-c", "1", "-W", "5", &ip]);
}

#[test]
fn vsock_bytes_go_both_ways_without_a_network() {
    let lab = Lab::new();
    lab.run_guest("other", &["--mode", "vsock"], "volnet.do=hold");
    lab.run_guest(
        "quiet",
        &["--mode", "vsock"],
        "volnet.do=vsock-serve:5000,vsock-send:2:6000,hold",
    );
    let (one, other) = (lab.vm("quiet"), lab.vm("other"));
    assert!(one["tap"].is_null() && one["ip"].is_null() && one["cid"].as_u64() >= Some(3));
    assert_ne!(one["cid"], other["cid"]);
    // What a guest sends to port N of the host goes to the socket's path and _N.
    let socket = lab.folder().join("run/vm/quiet/vsock.sock");
    let to_host = format!("{}_6000", socket.display());
    let listener = UnixListener::bind(&to_host).unwrap();
    // It is the hypervisor's user who connects.
    std::fs::set_permissions(&to_host, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (mut from_guest, _) = listener.accept().unwrap();
    let mut line = [0; 64];
    let length = from_guest.read(&mut line).unwrap();
    assert!(String::from_utf8_lossy(&line[..length]).starts_with("hello from the guest"));
    from_guest.write_all(b"hello from the host\n").unwrap();
    drop(from_guest);
    lab.wait_for_line("quiet", "GUEST ready");

    let mut to_guest = UnixStream::connect(&socket).unwrap();
    to_guest.write_all(b"CONNECT 5000\n").unwrap();
    let length = to_guest.read(&mut line).unwrap();
    assert!(line[..length].starts_with(b"OK "));
    to_guest.write_all(b"are you there\n").unwrap();
    let length = to_guest.read(&mut line).unwrap();
    assert!(length > 0, "the guest answers");
}

#[test]
fn vsock_stands_beside_a_network() {
    let lab = Lab::new();
    lab.run_guest("both", &["--vsock"], "volnet.do=ping:gateway,vsock-serve:5000,hold");
    lab.wait_for_line("both", "GUEST ping 192.168.127.1: ok");
    lab.wait_for_line("both", "listening on 5000");
    let volnet = env!("CARGO_BIN_EXE_volnet");
    let run = format!("{}/run", lab.folder().display());
    let asks = format!("echo hello | {volnet} vsock both 5000 --runtime-dir {run}");
    let answer = lab.on_host(&["sh", "-c", &asks]);
    assert!(answer.contains("hello"), "{answer}");
}

#[test]
fn a_guest_that_fails_is_started_again() {
    let lab = Lab::new();
    // The kernel that cannot find its init panics, and QEMU ends; its status is 0, so the policy
    // that restarts whatever the status is asked for.
    lab.run_guest("loop", &["--restart", "always"], "panic=-1 rdinit=/nonexistent root=/dev/none");
    lab.wait_for("a restart", || (lab.vm("loop")["restarts"].as_u64() >= Some(1)).then_some(()));
    lab.volnet(&["delete", "loop", "--timeout", "1"]);
}

#[test]
fn an_mtu_holds_end_to_end_whether_a_network_has_it_or_a_vm() {
    const SENDS: &str = "import socket, sys
to = socket.create_connection((sys.argv[1], 7000))
to.sendall(b'x' * 300000)
to.close()";
    // One datagram that the guest cannot get, and the answer to it.
    const IS_TOLD: &str = "import errno, select, socket, sys
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
to.connect((sys.argv[1], 9000))
to.send(b'x' * 1373)
select.select([to], [], [], 20)
assert to.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
assert to.getsockopt(socket.IPPROTO_IP, 14) == 1400  # IP_MTU";
    // Of the network, or of the VM alone.
    for (network, own) in [("1400", &[][..]), ("1500", &["--mtu", "1400"][..])] {
        let lab = Lab::configured(&format!(r#"{{ "networks": [{{ "mtu": {network} }}] }}"#));
        let flags = [own, &["--expose", "udp:9000"]].concat();
        lab.run_guest("small", &flags, "volnet.do=big-ping:gateway,sink:7000,hold");
        // The guest is told.
        lab.wait_for_line("small", "host small mtu 1400");
        lab.wait_for_line("small", "GUEST big ping 192.168.127.1: ok");
        lab.wait_for_line("small", "GUEST sink 7000");
        let vm = lab.vm("small");
        let ip = vm["ip"].as_str().unwrap();
        // The host's TCP sends segments that fit, and much of them.
        lab.on_host(&["python3", "-c", SENDS, ip]);
        lab.wait_for_line("small", "GUEST sunk 7000: 300000");
        // The host is told of what does not fit, and sends what may be cut in pieces.
        let ping = |extra: &[&str], bytes: &str| {
            let all = [&["ping", "-c", "2", "-i", "0.2", "-W", "5"], extra, &["-s", bytes, ip]];
            lab.try_on_host(&all.concat())
        };
        assert_eq!(ping(&["-M", "do"], "1372"), Ok(()));
        let told = ping(&["-M", "do"], "1373").unwrap_err();
        assert!(told.contains("mtu=1400") || told.contains("mtu = 1400"), "{told}");
        assert_eq!(ping(&[], "4000"), Ok(()));
        // So is whoever it forwards for.
        assert_eq!(lab.try_in_world(&["python3", "-c", IS_TOLD, UPLINK_IP]), Ok(()));
    }
}

#[test]
fn a_panic_is_told_by_the_guest_also_where_it_hangs_and_says_nothing() {
    let mut lab = Lab::new();
    // Nothing on the console is of the kernel, and it would hang for ever.
    lab.run_guest("mute", &[], "loglevel=0 panic=0 volnet.do=panic");
    lab.wait_for("the end", || (lab.vm("mute")["status"] == "crashed").then_some(()));
    let vm = lab.vm("mute");
    let told = vm["last_error"].as_str().unwrap();
    assert!(told.starts_with("it ended because its guest panicked"), "{told}");
    assert!(vm["exit_code"].is_null() && vm["pid"].is_null(), "{vm}");

    // The next daemon hears of it, too.
    lab.run_guest(
        "late",
        &[],
        &format!("loglevel=0 panic=0 volnet.do=ping-until:{WORLD_IP}:9,panic"),
    );
    lab.wait_for_line("late", "GUEST pinging");
    lab.crash_daemon();
    lab.start_daemon();
    assert_eq!(lab.vm("late")["status"], "running");
    lab.open_in_world("9");
    lab.wait_for("the end", || (lab.vm("late")["status"] == "crashed").then_some(()));
}

#[test]
fn who_ended_qemu_is_told_apart_and_its_folder_ends_with_it() {
    let lab = Lab::new();
    lab.run_guest("told", &[], "volnet.do=hold");
    let folder = folder_of(&lab, "told");
    assert!(folder.join("qmp.sock").exists());
    let pid = lab.vm("told")["pid"].to_string();
    lab.on_host(&["kill", "-TERM", &pid]);
    lab.wait_for("the end", || (lab.vm("told")["status"] == "crashed").then_some(()));
    let vm = lab.vm("told");
    assert_eq!((&vm["exit_code"], &vm["exit_signal"]), (&Value::Null, &json!(15)), "{vm}");
    assert!(!folder.exists());

    lab.volnet(&["start", "told"]);
    let mut qmp = UnixStream::connect(folder.join("qmp.sock")).expect("QEMU serves it");
    qmp.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}").unwrap();
    lab.wait_for("the end", || (lab.vm("told")["status"] == "stopped").then_some(()));
    assert_eq!(lab.vm("told")["exit_code"], 0);
    assert!(!folder.exists());
}

#[test]
fn a_paused_guest_answers_nobody_until_it_goes_on() {
    let mut lab = Lab::new();
    lab.run_guest("calm", &[], "volnet.do=hold");
    lab.wait_for_line("calm", "GUEST ready");
    let ip = lab.vm("calm")["ip"].as_str().unwrap().to_string();
    let answers = |lab: &Lab| lab.try_on_host(&["ping", "-c", "1", "-W", "2", &ip]).is_ok();
    assert!(answers(&lab));
    assert!(lab.volnet(&["pause", "calm"]).contains("calm: paused"));
    assert!(!answers(&lab));
    lab.crash_daemon();
    lab.start_daemon();
    lab.wait_for("the status", || (lab.vm("calm")["status"] == "paused").then_some(()));
    assert!(!answers(&lab));
    assert!(lab.volnet(&["resume", "calm"]).contains("calm: running"));
    assert!(answers(&lab));
    // It powers off although it was paused.
    lab.volnet(&["pause", "calm"]);
    lab.volnet(&["stop", "calm", "--timeout", "60"]);
    let vm = lab.vm("calm");
    assert_eq!((&vm["status"], &vm["exit_code"]), (&json!("stopped"), &json!(0)), "{vm}");
    assert!(
        lab.console("calm").contains("GUEST power button: powering off"),
        "{}",
        lab.console("calm")
    );
}

#[test]
fn a_guest_that_resets_for_ever_is_backed_off_and_told() {
    let lab = Lab::new();
    lab.run_guest("again", &["--restart", "always"], "volnet.do=reset");
    lab.wait_for("restarts", || (lab.vm("again")["restarts"].as_u64() >= Some(2)).then_some(()));
    let said = lab.output_of("daemon");
    for seconds in [1, 2] {
        let again = format!("VM again ended with status 0; it is started again in {seconds} s");
        assert!(said.contains(&again), "{said}");
    }
    lab.volnet(&["delete", "again", "--timeout", "1"]);
}

#[test]
fn the_console_is_used_through_a_terminal() {
    let lab = Lab::new();
    lab.run_guest("shell", &[], "volnet.do=shell");
    lab.wait_for_line("shell", "GUEST ready");
    let tmux = lab.folder().join("tmux").display().to_string();
    let tmux =
        |words: &[&str]| lab.on_host(&[&["tmux", "-S", &tmux, "-f", "/dev/null"], words].concat());
    let screen = || tmux(&["capture-pane", "-p"]);
    let shows = |text: &str| {
        lab.wait_for(&format!("the screen to show {text:?}"), || {
            screen().contains(text).then_some(())
        });
    };
    tmux(&["new-session", "-d", "-x", "80", "-y", "24", "sh"]);
    let command = format!(
        "PS1='host> '; {} console shell --runtime-dir {}/run; echo status $?",
        env!("CARGO_BIN_EXE_volnet"),
        lab.folder().display()
    );
    tmux(&["send-keys", &command, "Enter"]);
    // Typed until the console is there to read it.
    lab.wait_for("the guest to answer", || {
        tmux(&["send-keys", "echo in the guest: $((6*7))", "Enter"]);
        screen().contains("in the guest: 42").then_some(())
    });
    tmux(&["resize-window", "-x", "100", "-y", "30"]);
    tmux(&["send-keys", "echo still $((40+2))", "Enter"]);
    shows("still 42");
    tmux(&["send-keys", "C-]"]);
    shows("status 0");
    tmux(&["send-keys", "echo back $((1+1))", "Enter"]);
    shows("back 2");
    tmux(&["kill-server"]);
    assert_eq!(lab.vm("shell")["status"], "running", "the console's end is not the guest's");
}

#[test]
fn a_guest_in_a_namespace_starts_with_what_a_cni_plugin_said() {
    let mut lab = Lab::new();
    let netns = lab.make_room();
    let conf = json!({
        "cniVersion": "1.0.0", "name": "vms", "type": "volnet", "attach": "vm",
        "socket": lab.socket()
    });
    let vm = vmconf(&lab.cni("ADD", "vm1", &netns, &conf), "vm1");
    let (kernel, initramfs) = (guest_file("vmlinux"), guest_file("initramfs"));
    let orders = format!("volnet.do=ping:gateway,get:{WORLD_IP}:{WORLD_PORT},hold");
    let append = format!("console=ttyS0 quiet {} {orders}", vm.boot);
    let netdev = format!("tap,id=net0,ifname={},script=no,downscript=no", vm.tap);
    let device = format!("virtio-net-pci,netdev=net0,mac={},host_mtu={},romfile=", vm.mac, vm.mtu);
    let namespace = format!("--net={}", vm.netns);
    let mut command = vec!["nsenter", namespace.as_str()];
    command.extend("qemu-system-x86_64 -machine q35,accel=tcg -m 128 -nodefaults".split(' '));
    command.extend(["-display", "none", "-no-reboot", "-serial", "stdio", "-netdev", &netdev]);
    command.extend(["-device", &device, "-kernel", &kernel, "-initrd", &initramfs]);
    command.extend(["-append", &append]);
    lab.spawn(&command, "guest");
    lab.wait_for("the guest", || lab.output_of("guest").contains("GUEST ready").then_some(()));
    let said = lab.output_of("guest");
    let ip = lab.vm("vm1.eth0")["ip"].as_str().expect("an address").to_string();
    let has = format!("eth0 mac {} address {ip}/24 gateway 192.168.127.1 host vm1", vm.mac);
    assert!(said.contains(&has), "{has:?} in {said}");
    assert!(said.contains("GUEST ping 192.168.127.1: ok"), "{said}");
    let seen = format!("GUEST get {WORLD_IP}:{WORLD_PORT}: you are {UPLINK_IP}");
    assert!(said.contains(&seen), "{said}");
    lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", &ip]);
    // It goes on without the daemon, and its network is taken away while it runs.
    lab.crash_daemon();
    lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", &ip]);
    lab.start_daemon();
    lab.cni("DEL", "vm1", &netns, &conf);
    assert!(lab.try_on_host(&["ping", "-c", "1", "-W", "1", &ip]).is_err());
}
