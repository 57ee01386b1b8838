//! What the next daemon makes of what the last one left: locks, processes that are others by now,
//! records of other formats, and the upgrade of the binary.

mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::{read, write};
use serde_json::{Value, json};
use volnet_ffi::tun::{NO_PI, TAP, Tun, VNET_HDR, open};

use common::agreement::{Agreement, list};
use common::daemon::Daemon;
use common::space::Guest;
use common::{eventually, in_namespace, ip_link, link_exists, run};

/// How many records of `tests/golden/record` are compared with the kernel.
const GOLDEN: usize = 9;

/// A daemon whose hypervisor `plain` sleeps.
fn daemon() -> Daemon {
    Daemon::configured(&json!({ "hypervisors": {
        "plain": { "program": "sleep", "args": [["100000"]] }
    } }))
}

fn create(daemon: &Daemon, name: &str) -> Value {
    let config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname" });
    let mut answer =
        daemon.call("Create", json!({ "name": name, "start": true, "config": config }));
    assert!(answer["error"].is_null(), "{answer}");
    answer["parameters"]["vm"].take()
}

fn get(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take()
}

/// The field of `/proc/PID/stat` that says when a process started (proc_pid_stat(5), 22).
fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let mut fields = stat[stat.rfind(')').expect("a name") + 1..].split_ascii_whitespace();
    fields.nth(19).and_then(|field| field.parse().ok()).expect("a start time")
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn spawn(program: &str, argument: &str) -> Child {
    Command::new(program).arg(argument).stdin(Stdio::null()).spawn().expect("it starts")
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_with_the_holders_pid() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let other = daemon.folder.join("other");
        for verb in ["serve", "setup"] {
            let second = Command::new(&daemon.program)
                .arg(verb)
                .env("VOLNET_CONFIG", daemon.folder.join("config.json"))
                .env("VOLNET_STATE_DIR", daemon.folder.join("state"))
                .env("VOLNET_RUNTIME_DIR", &other)
                .env("VOLNET_LOG_DIR", &other)
                .output()
                .unwrap();
            assert_eq!(second.status.code(), Some(1));
            let words = String::from_utf8_lossy(&second.stderr).into_owned();
            assert!(words.contains(&format!("process {} holds", daemon.pid())), "{words}");
        }
        assert!(list(&daemon).is_empty());
    });
}

/// A daemon with files, bridge and subnet of its own, beside another one.
fn beside() -> Daemon {
    Daemon::without(&["--bridge", "vbr9", "--subnet", "10.99.0.0/24"])
}

#[test]
fn a_second_volnet_in_the_namespace_is_refused_whatever_its_directories_are() {
    in_namespace(|| {
        let daemon = daemon();
        let agreement = Agreement::with(&daemon);
        create(&daemon, "web");
        let before = agreement.check(&daemon);
        let other = beside();
        let flags = ["--bridge", "vbr9", "--subnet", "10.99.0.0/24"];
        for verb in [&["serve"][..], &["setup", "--dry-run"], &["setup"], &["teardown"]] {
            let second = other.volnet(&[verb, &flags[..]].concat());
            let words = String::from_utf8_lossy(&second.stderr).into_owned();
            assert_eq!(second.status.code(), Some(1), "{verb:?}: {words}");
            let holder = format!("process {} (volnet) holds the lock", daemon.pid());
            assert!(words.contains(&holder) && second.stdout.is_empty(), "{words}");
            assert_eq!(agreement.check(&daemon), before);
        }
        in_namespace(|| drop(Daemon::start(&[])));
    });
}

#[test]
fn a_holder_that_cannot_change_the_network_keeps_no_daemon_from_starting() {
    in_namespace(|| {
        // As nobody it can open the namespace and lock it, and do nothing else to it.
        let words = "setpriv --reuid 65534 --clear-groups --inh-caps=-all \
            flock --no-fork /proc/self/ns/net sleep 100000";
        let mut words = words.split_ascii_whitespace();
        let mut squatter = Command::new(words.next().unwrap()).args(words).spawn().unwrap();
        let locked = || fs::read_to_string("/proc/locks").unwrap();
        let pid = squatter.id().to_string();
        eventually("it holds the lock", || {
            locked().lines().any(|line| line.split_ascii_whitespace().nth(4) == Some(&pid))
        });
        let daemon = Daemon::start(&[]);
        assert!(daemon.log().contains("holds the lock of the network namespace and is no volnet"));
        squatter.kill().unwrap();
        squatter.wait().unwrap();
    });
}

#[test]
fn a_state_directory_that_is_not_there_is_a_finding_and_not_an_order() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        create(&daemon, "web");
        let answer = daemon.call("Create", json!({ "name": "still" }));
        assert!(answer["error"].is_null(), "{answer}");
        let before = agreement.check(&daemon);
        let rules = run("nft list ruleset");
        daemon.stop();
        let (state, away) = (daemon.folder.join("state"), daemon.folder.join("away"));
        fs::rename(&state, &away).unwrap();
        for is_used in [false, false, true] {
            // Where it is mounted, a daemon may have run before it was.
            if is_used {
                fs::create_dir(state.join("vms")).unwrap();
            }
            daemon.start_again();
            assert!(link_exists("vttap-web") && link_exists("vttap-still"));
            assert_eq!(run("nft list ruleset"), rules);
            let check = daemon.call("Check", json!({}));
            let findings = check["parameters"]["findings"].as_array().unwrap();
            let found = findings.iter().find(|found| found["check"] == "state_dir").unwrap();
            assert_eq!(found["level"], "error", "{found}");
            for (method, parameters) in [
                ("Create", json!({ "name": "new" })),
                ("Setup", json!({})),
                ("Teardown", json!({})),
            ] {
                let refused = daemon.call(method, parameters);
                assert_eq!(refused["parameters"]["field"], "state_dir", "{method}: {refused}");
            }
            daemon.stop();
        }
        // The disk is mounted again, and everything is as it was.
        fs::remove_dir_all(&state).unwrap();
        fs::rename(&away, &state).unwrap();
        daemon.start_again();
        assert_eq!(agreement.check(&daemon), before);

        // Or it is gone for good, and somebody says so.
        daemon.stop();
        fs::remove_dir_all(&state).unwrap();
        for (_, group) in daemon.hypervisors() {
            run(&format!("kill -9 {group}"));
        }
        daemon.start_again();
        let forced = daemon.call("Setup", json!({ "force": true }));
        assert!(forced["error"].is_null(), "{forced}");
        assert!(agreement.check(&daemon).is_empty());
    });
}

#[test]
fn a_hypervisor_is_found_when_the_runtime_directory_was_wiped() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        let config = json!({
            "hypervisor": "plain", "kernel_override": "/etc/hostname", "restart": "always"
        });
        let create = |name: &str, ephemeral: bool| {
            let mut config = config.clone();
            config["ephemeral"] = ephemeral.into();
            daemon.call("Create", json!({ "name": name, "start": true, "config": config }))
        };
        let answer = create("db", false);
        let pid = answer["parameters"]["vm"]["pid"].as_u64().expect("it runs");
        let answer = create("passing", true);
        let stray = answer["parameters"]["vm"]["pid"].as_u64().expect("it runs");
        daemon.crash();
        fs::remove_dir_all(daemon.folder.join("run")).unwrap();
        daemon.start_again();
        assert_eq!(get(&daemon, "db")["pid"], pid, "{}", daemon.log());

        // That of the ephemeral VM has no record any more.
        let words = format!("process {stray} runs for VM passing, of which there is no record");
        let check = daemon.call("Check", json!({}));
        assert!(check.to_string().contains(&words), "{check}");
        let create = || daemon.call("Create", json!({ "name": "passing" }));
        let answer = create();
        assert_eq!(answer["error"], "io.volnet.HypervisorFailed", "{answer}");
        assert!(answer.to_string().contains(&words), "{answer}");
        run(&format!("kill -9 {stray}"));
        eventually("its name is free", || create()["error"].is_null());
        assert!(!daemon.call("Check", json!({})).to_string().contains(&words));

        let answer = daemon.call("Delete", json!({ "name": "db", "timeout_ms": 0 }));
        assert!(answer["error"].is_null(), "{answer}");
        let gone = !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid as u32);
        assert!(gone && daemon.hypervisors().is_empty());
        assert_eq!(agreement.check(&daemon).len(), 1);
    });
}

#[test]
fn a_tap_that_somebody_holds_open_is_not_deleted_at_start() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        let answer = daemon.call("Create", json!({ "name": "guest" }));
        assert!(answer["error"].is_null(), "{answer}");
        // Without any record left, the whole directory would be in doubt.
        let answer = daemon.call("Create", json!({ "name": "other" }));
        assert!(answer["error"].is_null(), "{answer}");
        daemon.stop();
        let held = Tun::attach(open().unwrap(), "vttap-guest", TAP | NO_PI | VNET_HDR).unwrap();
        run("ip link set vttap-guest down");
        fs::remove_file(daemon.folder.join("state/vms/guest.json")).unwrap();
        daemon.start_again();
        assert!(link_exists("vttap-guest"));
        let answer = daemon.call("Delete", json!({ "name": "other" }));
        assert!(answer["error"].is_null(), "{answer}");
        let refused = daemon.call("Teardown", json!({}));
        assert_eq!(refused["parameters"]["field"], "force", "{refused}");
        assert!(link_exists("vttap-guest"));
        let words = "tap vttap-guest belongs to no VM and a process holds it open";
        assert!(daemon.log().contains(words), "{}", daemon.log());
        drop(held);
        daemon.stop();
        daemon.start_again();
        assert!(daemon.log().contains("removing link vttap-guest: it has our mark"));
        assert!(agreement.check(&daemon).is_empty());
    });
}

fn tun_of(name: &str) -> Tun {
    Tun::attach(open().expect("tun"), name, TAP | NO_PI | VNET_HDR).expect("a tap")
}

/// A frame in which this Ethernet address says by ARP that it has this address (RFC 5227), behind
/// an empty `struct virtio_net_hdr`.
fn announcement(mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    let ethernet = [&[0xff; 6][..], &mac, &[0x08, 0x06]].concat();
    let arp = [&[0, 1, 0x08, 0, 6, 4, 0, 1][..], &mac, &ip, &[0; 6], &ip].concat();
    [&[0; 10][..], &ethernet, &arp].concat()
}

#[test]
fn a_guest_whose_record_is_lost_sends_nothing() {
    in_namespace(|| {
        let mut daemon = daemon();
        let made = ["guest", "other"].map(|name| {
            let answer = daemon.call("Create", json!({ "name": name }));
            let vm = &answer["parameters"]["vm"];
            let text = |field: &str| vm[field].as_str().expect("text").to_string();
            let mac: Vec<u8> = text("mac")
                .split(':')
                .map(|it| u8::from_str_radix(it, 16).expect("a byte"))
                .collect();
            let ip: Ipv4Addr = text("ip").parse().expect("an address");
            let held = tun_of(&text("tap"));
            (held, <[u8; 6]>::try_from(mac).expect("six bytes"), ip.octets())
        });
        run("ip tuntap add wire mode tap vnet_hdr");
        run("ip link set wire master vbr0 up");
        let wire = tun_of("wire");
        let [(guest, mac, ip), (other, other_mac, other_ip)] = made;
        let (own, stolen) = (announcement(mac, ip), announcement(mac, [192, 168, 127, 99]));
        let theirs = announcement(other_mac, other_ip);
        // What has come to the wire since, up to a frame of the other guest's.
        let arrived = || {
            let mut seen = Vec::new();
            eventually("the other guest is heard", || {
                let _ = write(other.as_fd(), &theirs);
                let mut frame = [0; 2048];
                while let Ok(length) = read(wire.as_fd(), &mut frame) {
                    seen.push(frame[..length].to_vec());
                }
                seen.contains(&theirs)
            });
            seen
        };
        let send = |frame: &Vec<u8>| write(guest.as_fd(), frame).is_ok();
        eventually("the guest is heard", || send(&own) && arrived().contains(&own));
        assert!(send(&stolen) && !arrived().contains(&stolen), "antispoof");

        daemon.stop();
        fs::remove_file(daemon.folder.join("state/vms/guest.json")).unwrap();
        daemon.start_again();
        for frame in [&own, &stolen] {
            send(frame);
            assert!(!arrived().contains(frame), "{}", run("ip -d link show vttap-guest"));
        }
        let findings = daemon.call("Check", json!({})).to_string();
        assert!(findings.contains("tap vttap-guest belongs to no VM"), "{findings}");
        assert!(link_exists("vttap-guest"), "whoever has it open keeps it");
        // A name of another's is no way around it.
        run("ip link set vttap-other down");
        run("ip link set vttap-other name strange");
        run("ip link set strange up");
        eventually("it is off the bridge", || ip_link("strange")["master"].is_null());
    });
}

#[test]
fn a_process_that_is_another_by_now_is_neither_adopted_nor_touched() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        let pid = create(&daemon, "web")["pid"].as_u64().unwrap();
        daemon.crash();
        run(&format!("kill -9 {pid}"));
        let file = daemon.folder.join("run/processes/web.json");
        let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let boot = &written["process"]["boot_id"];
        let mut bystander = spawn("sleep", "100000");
        let mut zombie = spawn("sleep", "0");
        eventually("it has ended", || is_zombie(zombie.id()));
        let (alive, dead) = (bystander.id(), zombie.id());
        for (pid, start, boot) in [
            (alive, &written["process"]["start_time"], boot),
            (alive, &json!(start_time(alive)), &json!("00000000-0000-0000-0000-000000000000")),
            (dead, &json!(start_time(dead)), boot),
        ] {
            let mut record = written.clone();
            record["process"] = json!({ "pid": pid, "start_time": start, "boot_id": boot });
            fs::write(&file, record.to_string()).unwrap();
            daemon.start_again();
            let vm = get(&daemon, "web");
            assert_eq!((&vm["status"], &vm["pid"]), (&json!("crashed"), &Value::Null), "{vm}");
            assert!(bystander.try_wait().unwrap().is_none(), "it was somebody else's");
            agreement.check(&daemon);
            daemon.crash();
        }
        for child in [&mut bystander, &mut zombie] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn links_that_carry_our_alias_and_belong_to_nobody_go_and_others_stay() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        create(&daemon, "web");
        let before = agreement.check(&daemon);
        daemon.stop();
        for link in ["vttap-ghost", "vttap-mine"] {
            run(&format!("ip tuntap add {link} mode tap vnet_hdr"));
        }
        run("ip link add vbr7 type bridge");
        run("ip link set vttap-ghost alias volnet:ghost master vbr0 up");
        run("ip link set vbr7 alias volnet:");
        daemon.start_again();
        assert!(!link_exists("vttap-ghost") && !link_exists("vbr7"));
        run("ip link del vttap-mine");
        assert_eq!(agreement.check(&daemon), before);
    });
}

/// Another build of the binary: it has other bytes and does the same.
fn build(path: &Path) {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_volnet")).unwrap();
    bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
    fs::write(path, bytes).unwrap();
    run(&format!("chmod 755 {}", path.display()));
}

#[test]
fn vms_run_on_over_an_upgrade() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        daemon.stop();
        daemon.program = daemon.folder.join("volnet");
        build(&daemon.program);
        daemon.start_again();
        create(&daemon, "web");
        create(&daemon, "db");
        let before = agreement.check(&daemon);
        // With the handles, which things that are made anew do not keep.
        let rules = run("nft -a list ruleset");

        let new = daemon.folder.join("volnet.new");
        build(&new);
        fs::rename(&new, &daemon.program).unwrap();
        assert_eq!(list(&daemon), before, "the old one does not mind");
        daemon.stop();
        daemon.start_again();
        assert_eq!(agreement.check(&daemon), before);
        assert_eq!(run("nft -a list ruleset"), rules, "the rules were never gone");
        let answer = daemon.call("Delete", json!({ "name": "web", "timeout_ms": 1000 }));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(agreement.check(&daemon).len(), 1);
    });
}

/// A record as format 1 held it, which knew one network a VM.
fn as_format_1(record: &Value) -> Value {
    let mut former = record.clone();
    let fields = former.as_object_mut().unwrap();
    let mut nics = fields.remove("nics").unwrap();
    let mut nic = nics.get_mut(0).map(Value::take).unwrap_or_default();
    fields.insert("format".into(), json!(1));
    for field in ["exposed", "policy", "limits"] {
        if let Some(value) = nic.as_object_mut().and_then(|nic| nic.remove(field)) {
            fields.insert(field.into(), value);
        }
    }
    fields.insert("port".into(), nic);
    let spec = fields["spec"].as_object_mut().unwrap();
    let mut networks = spec.remove("networks").unwrap();
    let mut network = networks[0].take();
    if let Some(expose) = network.as_object_mut().and_then(|network| network.remove("expose")) {
        spec.insert("expose".into(), expose);
    }
    spec.insert("network".into(), network);
    former
}

#[test]
fn vms_run_on_over_an_upgrade_from_records_of_format_1() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        let config = |more: Value| {
            let mut config = json!({ "hypervisor": "plain", "kernel_override": "/etc/hostname" });
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            config
        };
        let ports = json!([{ "port": 80, "host_port": 8080 }]);
        let web =
            config(json!({ "network": { "policy": "internet", "mtu": 1400 }, "expose": ports }));
        let ask = |daemon: &Daemon, name: &str, config: &Value, start: bool| {
            let parameters = json!({ "name": name, "config": config, "start": start });
            let answer = daemon.call("Create", parameters);
            assert!(answer["error"].is_null(), "{answer}");
            answer
        };
        ask(&daemon, "web", &web, true);
        ask(&daemon, "asks", &config(json!({ "network": { "mode": "dhcp" } })), true);
        ask(&daemon, "quiet", &config(json!({ "network": { "mode": "vsock" } })), true);
        ask(&daemon, "passing", &config(json!({ "ephemeral": true })), true);
        let before = agreement.check(&daemon);
        let rules = run("nft -a list ruleset");
        daemon.crash();
        let mut records = Vec::new();
        for (home, name) in
            [("state", "web"), ("state", "asks"), ("state", "quiet"), ("run", "passing")]
        {
            let file = daemon.folder.join(format!("{home}/vms/{name}.json"));
            let record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            fs::write(&file, as_format_1(&record).to_string()).unwrap();
            records.push((file, record));
        }
        daemon.start_again();
        assert_eq!(agreement.check(&daemon), before, "all are there, with their processes");
        assert_eq!(run("nft -a list ruleset"), rules, "the rules were never gone");
        // Who asks for the same gets the same VM; what changes is written as it is held now.
        let answer = ask(&daemon, "web", &web, true);
        assert_eq!(answer["parameters"]["vm"]["pid"], before[3]["pid"], "{answer}");
        for name in ["web", "asks", "quiet", "passing"] {
            let stopped = daemon.call("Stop", json!({ "name": name, "timeout_ms": 0 }));
            assert!(stopped["error"].is_null(), "{stopped}");
            let started = daemon.call("Start", json!({ "name": name }));
            assert!(started["error"].is_null(), "{started}");
        }
        for (file, former) in &records {
            let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            for field in ["format", "nics", "spec"] {
                assert_eq!(record[field], former[field], "{}", file.display());
            }
        }
        agreement.check(&daemon);
    });
}

#[test]
fn records_of_each_format_are_read() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        let agreement = Agreement::with(&daemon);
        daemon.stop();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/record");
        let mut names = Vec::new();
        for entry in fs::read_dir(golden).unwrap() {
            let record = fs::read(entry.unwrap().path()).unwrap();
            let value: Value = serde_json::from_slice(&record).unwrap();
            let nic = &value["nics"][0];
            // This host has one network, and what it expects of a VM knows no inner identity.
            if nic["network"] == "six" || !nic["inner"].is_null() {
                continue;
            }
            let home = if value["spec"]["ephemeral"] == true { "run" } else { "state" };
            let name = value["name"].as_str().unwrap();
            fs::write(daemon.folder.join(format!("{home}/vms/{name}.json")), record).unwrap();
            names.push((name.to_string(), value));
        }
        daemon.start_again();
        let vms = agreement.check(&daemon);
        // The namespace of one is gone, and so is that VM.
        assert_eq!((vms.len(), names.len()), (GOLDEN - 1, GOLDEN));
        names.retain(|(_, record)| record["spec"]["attachment"].is_null());
        assert_eq!(names.len(), vms.len());
        for (name, record) in names {
            let vm = vms.iter().find(|vm| vm["name"] == name).unwrap();
            let nic = if record["format"] == 1 { &record["port"] } else { &record["nics"][0] };
            let lease = &nic["lease"];
            let ip = if lease["given"] == true { &lease["ip"] } else { &nic["ip"] };
            assert_eq!((&vm["tap"], &vm["mac"], &vm["ip"]), (&nic["tap"], &nic["mac"], ip), "{vm}");
            assert_eq!((&vm["cid"], &vm["status"]), (&record["cid"], &json!("created")), "{vm}");
        }
    });
}

#[test]
fn a_record_of_a_newer_format_is_refused_and_vms_run_on() {
    in_namespace(|| {
        let mut daemon = daemon();
        let agreement = Agreement::with(&daemon);
        create(&daemon, "web");
        let before = agreement.check(&daemon);
        daemon.stop();
        let rules = run("nft list ruleset");
        let newer = daemon.folder.join("state/vms/db.json");
        fs::write(&newer, r#"{ "format": 99, "what": "nobody knows" }"#).unwrap();
        let refused = daemon.volnet(&["serve"]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(words.contains("db.json") && words.contains("format 99"), "{words}");
        assert!(newer.exists() && link_exists("vttap-web"));
        assert_eq!(ip_link("vttap-web")["ifindex"], before[0]["ifindex"]);
        assert_eq!(run("nft list ruleset"), rules);
        assert_eq!(daemon.hypervisors().len(), 1);

        fs::remove_file(newer).unwrap();
        daemon.start_again();
        assert_eq!(agreement.check(&daemon), before);
    });
}

/// Two networks, of which the second is on this bridge and has this subnet.
fn networks(bridge: &str, subnet: &str) -> Value {
    json!({
        "networks": [{}, { "name": "lab", "bridge": bridge, "subnet": subnet }],
        "hypervisors": { "plain": { "program": "sleep", "args": [["100000"]] } },
    })
}

fn restart_with(daemon: &mut Daemon, settings: &Value) {
    daemon.stop();
    fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
    daemon.start_again();
}

fn on_lab(daemon: &Daemon, name: &str) -> Value {
    let config = json!({ "network": { "name": "lab" } });
    daemon.create(json!({ "name": name, "config": config }))
}

#[test]
fn a_network_that_was_changed_strands_its_vms_until_it_is_as_it_was() {
    in_namespace(|| {
        run("ip link set lo up");
        let before = networks("vbr1", "10.20.0.0/24");
        let mut daemon = Daemon::configured(&before);
        create(&daemon, "good");
        let odd = on_lab(&daemon, "odd");
        let guest = Guest::of(&odd);
        assert!(guest.reaches("10.20.0.1"));
        let without = json!({ "hypervisors": before["hypervisors"] });
        for (settings, reason, lives) in [
            (
                networks("vbr1", "10.21.0.0/24"),
                "its address 10.20.0.2 is outside of 10.21.0.0/24",
                true,
            ),
            (without, "its network lab is not configured", false),
        ] {
            restart_with(&mut daemon, &settings);
            assert_eq!(get(&daemon, "good")["problem"], Value::Null);
            assert!(create(&daemon, "good")["pid"].is_u64());
            let shown = get(&daemon, "odd");
            assert_eq!(shown["problem"], reason);
            let mut list = Command::new(&daemon.program);
            let list = list.arg("list").env("VOLNET_SOCKET", daemon.socket()).output();
            let list = String::from_utf8(list.expect("volnet runs").stdout).expect("text");
            let list = list.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            assert!(list.contains(&format!("odd has no network: {reason}")), "{list}");
            let findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
            let told = findings.as_array().expect("a list").iter().any(|finding| {
                let message = finding["message"].as_str().expect("words");
                finding["level"] == "error" && message.contains(reason)
            });
            assert!(told, "{findings}");

            // Its link is there as before, and leads nowhere. That is no drift.
            let link = ip_link("vttap-odd");
            assert_eq!((&link["ifindex"], &link["master"]), (&odd["ifindex"], &Value::Null));
            assert!(!link["flags"].as_array().expect("a list").contains(&json!("UP")), "{link}");
            let setup = daemon.call("Setup", json!({ "dry_run": true }));
            assert_eq!(setup["parameters"]["plan"], json!([]), "{setup}");
            run("ip link set vttap-odd up");
            eventually("it is down again", || {
                daemon.log().contains("link vttap-odd is up: repaired")
            });
            let started = daemon.call("Start", json!({ "name": "odd" }));
            assert_eq!(started["parameters"]["field"], "networks", "{started}");
            if lives {
                assert_eq!(on_lab(&daemon, "new")["ip"], "10.21.0.2");
                let deleted = daemon.call("Delete", json!({ "name": "new" }));
                assert!(deleted["error"].is_null(), "{deleted}");
            } else {
                assert!(!link_exists("vbr1"));
            }
        }

        // Nobody has opened the tap anew.
        restart_with(&mut daemon, &before);
        let shown = get(&daemon, "odd");
        assert_eq!((&shown["problem"], &shown["ifindex"]), (&Value::Null, &odd["ifindex"]));
        eventually("the guest is back", || guest.reaches("10.20.0.1"));

        // Another bridge is no other network.
        restart_with(&mut daemon, &networks("vbr7", "10.20.0.0/24"));
        assert_eq!(get(&daemon, "odd")["problem"], Value::Null);
        assert!(!link_exists("vbr1"));
        // It has another Ethernet address, which a guest learns in its own time.
        guest.space.run("ip neigh flush all");
        eventually("the guest is on the other bridge", || guest.reaches("10.20.0.1"));

        restart_with(&mut daemon, &networks("vbr7", "10.21.0.0/24"));
        let deleted = daemon.call("Delete", json!({ "name": "odd" }));
        assert!(deleted["error"].is_null(), "{deleted}");
        assert!(!link_exists("vttap-odd"));
        restart_with(&mut daemon, &before);
        assert_eq!(on_lab(&daemon, "odd")["ip"], "10.20.0.2");
    });
}

#[test]
fn a_record_that_cannot_be_read_is_told_until_somebody_looks_at_it() {
    in_namespace(|| {
        let mut daemon = daemon();
        create(&daemon, "good");
        daemon.stop();
        let path = daemon.folder.join("state/vms/odd.json");
        fs::write(&path, "{ \"format\": 2").expect("a file");
        daemon.start_again();
        daemon.stop();
        daemon.start_again();
        assert_eq!(list(&daemon).len(), 1);
        let aside = path.with_file_name("odd.json.bad-1");
        let told = || {
            let findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
            let aside = aside.display().to_string();
            findings
                .as_array()
                .expect("a list")
                .iter()
                .any(|finding| finding["message"].as_str().expect("words").contains(&aside))
        };
        assert!(told());
        fs::remove_file(&aside).expect("a file");
        assert!(!told());
    });
}
