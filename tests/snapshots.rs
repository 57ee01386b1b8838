//! Snapshots by hypervisors that need KVM, played by stand-ins (`tests/vmm`). With
//! `VOLNET_REAL_VMM=1` the programs in `PATH` are used. Real guests, of QEMU, are in `guests.rs`.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{eventually, in_namespace, run, stand_in, vmm_kernel, vmm_program};

const DISK: &[u8] = &[7; 1 << 20];

/// A hypervisor, and what it writes of a guest.
#[derive(Clone, Copy)]
struct Vmm {
    name: &'static str,
    files: &'static [&'static str],
    /// The file with the guest's devices.
    state: &'static str,
    /// What it says of half of that.
    half: &'static str,
    /// What is in the folder of a VM whose guest woke.
    woke: &'static str,
    /// How it is asked whether its guest runs.
    question: &'static str,
}

const FIRECRACKER: Vmm = Vmm {
    name: "firecracker",
    files: &["disk0", "memory", "snapshot.json", "state"],
    state: "state",
    half: "Failed to load snapshot state",
    woke: "load.json",
    question: "/",
};
const CLOUD_HYPERVISOR: Vmm = Vmm {
    name: "cloud-hypervisor",
    files: &["config.json", "disk0", "memory-ranges", "snapshot.json", "state.json"],
    state: "state.json",
    half: "Error deserialising VM state snapshot",
    woke: "config.json",
    question: "/api/v1/vm.info",
};
const VMMS: [Vmm; 2] = [FIRECRACKER, CLOUD_HYPERVISOR];

fn daemon(program: fn(&str) -> String) -> Daemon {
    Daemon::configured(&settings(program))
}

fn settings(program: impl Fn(&str) -> String) -> Value {
    let hypervisors = VMMS.map(|vmm| (vmm.name.into(), json!({ "program": program(vmm.name) })));
    let hypervisors: serde_json::Map<String, Value> = hypervisors.into_iter().collect();
    json!({
        "hypervisor_user": "root",
        "hypervisors": hypervisors,
        "networks": [
            { "name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24" },
            { "name": "six", "bridge": "vbr1", "subnet": "192.168.128.0/24", "ipv6": true },
        ],
    })
}

/// Runs a test for each hypervisor, in a namespace of its own.
fn for_each(test: fn(Vmm)) {
    for vmm in VMMS {
        println!("{}", vmm.name);
        in_namespace(|| test(vmm));
    }
}

/// A VM with a disk of its own.
fn origin(daemon: &Daemon, vmm: Vmm, cmdline: &str) -> Value {
    let disk = daemon.folder.join("origin.img");
    fs::write(&disk, DISK).expect("a disk");
    json!({ "name": "origin", "start": true, "config": {
        "hypervisor": vmm.name,
        "kernel_override": vmm_kernel(),
        "kernel_cmdline": cmdline,
        "resources": { "memory_mb": 128 },
        "rootfs": { "url": disk },
        "vsock": true,
    }})
}

/// A VM that wakes with a copy of that disk.
fn clone(daemon: &Daemon, name: &str, from: &Path) -> Value {
    let disk = daemon.folder.join(format!("{name}.img"));
    fs::copy(from.join("disk0"), &disk).expect("a copy");
    json!({ "name": name, "start": true, "config": { "from": from, "rootfs": { "url": disk } } })
}

fn save(daemon: &Daemon, name: &str, folder: &Path) -> Value {
    daemon.call("Snapshot", json!({ "name": name, "folder": folder }))
}

fn vm(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take()
}

fn vm_folder(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.folder.join("run/vm").join(name)
}

/// Whether its hypervisor says that the guest is in this state.
fn is(daemon: &Daemon, vmm: Vmm, name: &str, state: &str) -> bool {
    let mut api = UnixStream::connect(vm_folder(daemon, name).join("api.sock")).expect("its API");
    let Vmm { question, .. } = vmm;
    write!(api, "GET {question} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    api.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let mut answer = Vec::new();
    // The connection stays open.
    let _ = api.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).contains(&format!("\"state\":\"{state}\""))
}

/// Asserts that a VM runs with what is its own: the disk, the tap, the socket of its vsock.
fn assert_has_its_own(daemon: &Daemon, name: &str) {
    let vm = vm(daemon, name);
    assert_eq!(vm["status"], "running", "{vm}");
    let process = PathBuf::from(format!("/proc/{}", vm["pid"]));
    let open = |(folder, read): (&str, fn(&Path) -> String)| -> Vec<String> {
        let files = fs::read_dir(process.join(folder)).expect("its descriptors").flatten();
        files.map(|file| read(&file.path())).collect()
    };
    let files = open(("fd", |link| {
        fs::read_link(link).map_or_else(|_| String::new(), |to| to.display().to_string())
    }));
    let disks: Vec<&String> = files.iter().filter(|file| file.ends_with(".img")).collect();
    let own = daemon.folder.join(format!("{name}.img"));
    assert_eq!(disks, [own.to_str().expect("UTF-8")], "{files:?}");
    let tap = format!("iff:\t{}", vm["tap"].as_str().expect("a tap"));
    let told = open(("fdinfo", |file| fs::read_to_string(file).unwrap_or_default()));
    assert!(told.iter().any(|told| told.contains(&tap)), "{tap}: {told:?}");
    let mut vsock = UnixStream::connect(vm_folder(daemon, name).join("vsock.sock")).expect("vsock");
    vsock.write_all(b"CONNECT 1024\n").expect("a request");
    let mut answer = String::new();
    BufReader::new(vsock).read_line(&mut answer).expect("an answer");
    assert!(answer.starts_with("OK "), "{answer}");
}

#[test]
fn guests_wake_beside_the_original_with_what_is_their_own() {
    for_each(|vmm| {
        let daemon = daemon(vmm_program);
        let first = daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        let part = daemon.folder.join("web.part");
        fs::create_dir(&part).expect("a folder of somebody else");
        let refused = save(&daemon, "origin", &at);
        assert_eq!(refused["error"], "io.volnet.SnapshotExists", "{refused}");
        fs::remove_dir(&part).expect("it is still there");
        let saved = save(&daemon, "origin", &at);
        assert_eq!(saved["error"], Value::Null, "{saved}");
        let mut files: Vec<_> = fs::read_dir(&at).expect("a folder").flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        let names: Vec<_> = files.iter().map(fs::DirEntry::file_name).collect();
        assert_eq!(names, vmm.files);
        assert_eq!(fs::read(at.join("disk0")).expect("a disk"), DISK);
        let memory = vmm.files.iter().find(|name| name.starts_with("memory")).expect("a file");
        assert_eq!(fs::metadata(at.join(memory)).expect("a file").len(), 128 << 20);
        eventually("the original goes on", || vm(&daemon, "origin")["status"] == "running");

        for name in ["one", "two"] {
            let woken = daemon.create(clone(&daemon, name, &at));
            assert_eq!(woken["inner"]["ip"], first["ip"], "{woken}");
            assert_ne!(woken["ip"], first["ip"], "{woken}");
        }
        for name in ["origin", "one", "two"] {
            assert_has_its_own(&daemon, name);
        }
        // One that woke can be saved in turn.
        let again = daemon.folder.join("again");
        assert_eq!(save(&daemon, "one", &again)["error"], Value::Null);
        daemon.create(clone(&daemon, "three", &again));
        assert_has_its_own(&daemon, "three");
        // At a later start it boots.
        let woke = |name: &str| vm_folder(&daemon, name).join(vmm.woke).exists();
        assert!(woke("one") && !woke("origin"));
        daemon.call("Stop", json!({ "name": "one", "timeout_ms": 4000 }));
        daemon.call("Start", json!({ "name": "one" }));
        assert!(!woke("one"));
        assert_has_its_own(&daemon, "one");
    });
}

#[test]
fn a_guest_that_was_paused_is_saved_and_stays_so() {
    for_each(|vmm| {
        let daemon = daemon(vmm_program);
        daemon.create(origin(&daemon, vmm, ""));
        daemon.call("Pause", json!({ "name": "origin" }));
        let at = daemon.folder.join("web");
        let saved = save(&daemon, "origin", &at);
        assert_eq!(saved["error"], Value::Null, "{saved}");
        assert_eq!(vm(&daemon, "origin")["status"], "paused");
        assert!(is(&daemon, vmm, "origin", "Paused"));
        // What wakes from it runs.
        daemon.create(clone(&daemon, "one", &at));
        assert_has_its_own(&daemon, "one");
    });
}

#[test]
fn a_snapshot_that_cannot_be_read_is_told() {
    for_each(|vmm| {
        let daemon = daemon(vmm_program);
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        let state = at.join(vmm.state);
        let whole = fs::read(&state).expect("the devices");
        fs::write(&state, &whole[..whole.len() / 2]).expect("half of them");
        let refused = daemon.call("Create", clone(&daemon, "one", &at));
        assert_eq!(refused["error"], "io.volnet.HypervisorFailed", "{refused}");
        assert!(refused.to_string().contains(vmm.half), "{refused}");
        // One that was made before wakes as soon as the snapshot can be read.
        let mut made = clone(&daemon, "two", &at);
        made["start"] = false.into();
        daemon.create(made);
        let refused = daemon.call("Start", json!({ "name": "two" }));
        assert_eq!(refused["error"], "io.volnet.HypervisorFailed", "{refused}");
        fs::write(&state, &whole).expect("the devices");
        let started = daemon.call("Start", json!({ "name": "two" }));
        assert_eq!(started["error"], Value::Null, "{started}");
        assert!(vm_folder(&daemon, "two").join(vmm.woke).exists());
        fs::remove_file(&state).expect("a file");
        let refused = daemon.call("Create", clone(&daemon, "one", &at));
        assert_eq!(refused["error"], "io.volnet.InvalidSnapshot", "{refused}");
        let missing = format!("{}: No such file", vmm.state);
        assert!(refused.to_string().contains(&missing), "{refused}");
        assert_eq!(vm(&daemon, "one"), Value::Null);
    });
}

/// A package is upgraded while its hypervisors run.
#[test]
fn a_snapshot_has_the_version_of_the_process_that_took_it() {
    for_each(|vmm| {
        let mut daemon = Daemon::without(&[]);
        let programs = daemon.folder.join("programs");
        fs::create_dir(&programs).expect("a folder");
        for file in [vmm.name, "vmm.py"] {
            fs::copy(stand_in(file), programs.join(file)).expect("a copy");
        }
        let program = programs.join(vmm.name);
        let settings = settings(|name| programs.join(name).display().to_string());
        fs::write(daemon.folder.join("config.json"), settings.to_string()).expect("settings");
        daemon.start_again();
        daemon.create(origin(&daemon, vmm, ""));

        let old = fs::read_to_string(&program).expect("a program");
        let new = old.replace("VERSION = \"", "VERSION = \"99.");
        assert_ne!(new, old);
        fs::write(&program, new).expect("a program");
        let at = daemon.folder.join("web");
        let saved = save(&daemon, "origin", &at);
        assert_eq!(saved["error"], Value::Null, "{saved}");
        let refused = daemon.call("Create", clone(&daemon, "one", &at));
        assert_eq!(refused["error"], "io.volnet.SnapshotMismatch", "{refused}");
        assert!(refused["parameters"]["reason"].to_string().contains("99."), "{refused}");
        fs::write(&program, old).expect("a program");
        daemon.create(clone(&daemon, "one", &at));
        assert_has_its_own(&daemon, "one");
    });
}

/// Whoever can write to the folder of a snapshot gives a guest no device of the host.
#[test]
fn a_configuration_that_asks_for_more_than_volnet_gives_is_refused() {
    in_namespace(|| {
        let daemon = daemon(vmm_program);
        daemon.create(origin(&daemon, CLOUD_HYPERVISOR, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        let file = at.join("config.json");
        let whole: Value = serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        let changes: [(&str, Value, &str); 3] = [
            ("devices", json!([{ "path": "/sys/bus/pci/devices/0000:01:00.0" }]), "its devices"),
            ("net", json!([{ "id": "net7", "tap": "lo" }]), "is not net0"),
            ("disks", Value::Null, "0 disks in place of 1"),
        ];
        for (field, value, told) in changes {
            let mut config = whole.clone();
            config[field] = value;
            fs::write(&file, config.to_string()).expect("a configuration");
            let refused = daemon.call("Create", clone(&daemon, "one", &at));
            assert_eq!(refused["error"], "io.volnet.InvalidSnapshot", "{refused}");
            assert!(refused.to_string().contains(told), "{refused}");
            assert_eq!(vm(&daemon, "one"), Value::Null);
        }
    });
}

#[test]
fn what_cannot_be_saved_is_refused_by_its_field() {
    for_each(|vmm| {
        let daemon = daemon(stand_in);
        let hugepages = ("resources", json!({ "hugepages": true }));
        let six = ("network", json!({ "name": "six" }));
        let mut fields = vec![("run_as", json!("own")), six];
        // Cloud Hypervisor takes other huge pages where it wakes the guest.
        if vmm.name == FIRECRACKER.name {
            fields.push(hugepages);
        } else {
            fields.push(("args", json!(["-v", "--watchdog"])));
        }
        for (field, value) in fields {
            let mut asked = origin(&daemon, vmm, "");
            asked["start"] = false.into();
            asked["config"][field] = value.clone();
            daemon.create(asked);
            let refused = save(&daemon, "origin", &daemon.folder.join("web"));
            assert_eq!(refused["error"], "io.volnet.InvalidConfig", "{refused}");
            let told = refused["parameters"]["field"].as_str().expect("a field");
            assert!(told.starts_with(field), "{refused}");
            daemon.call("Delete", json!({ "name": "origin" }));
        }
        // Nor does a guest wake where it would have IPv6.
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        let mut asked = clone(&daemon, "one", &at);
        asked["config"]["network"] = json!({ "name": "six" });
        let refused = daemon.call("Create", asked);
        assert_eq!(refused["parameters"]["field"], "network.inner", "{refused}");
    });
}

/// The daemon dies while a snapshot is taken, and the next one leaves no half of it.
fn crash_amid_snapshot(daemon: &mut Daemon, vmm: Vmm) {
    let (at, part) = (daemon.folder.join("web"), daemon.folder.join("web.part"));
    let mut caller = daemon.connect();
    let parameters = json!({ "name": "origin", "folder": at });
    let call = json!({ "method": "io.volnet.Snapshot", "parameters": parameters });
    caller.send(format!("{call}\n").as_bytes());
    eventually("it is being saved", || part.join(vmm.state).metadata().is_ok_and(|f| f.len() > 0));
    daemon.crash();
    daemon.start_again();
    assert!(!part.exists() && !at.exists());
}

/// The words of the command line make the stand-in slow.
#[test]
fn a_daemon_that_ends_amid_a_snapshot_leaves_neither_half_of_one_nor_a_guest() {
    for_each(|vmm| {
        let mut daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, "save=1200 boot=700"));
        crash_amid_snapshot(&mut daemon, vmm);
        eventually("the guest goes on", || vm(&daemon, "origin")["status"] == "running");

        // The same while a guest wakes: the next daemon lets it go on.
        let at = daemon.folder.join("web");
        let saved = save(&daemon, "origin", &at);
        assert_eq!(saved["error"], Value::Null, "{saved}");
        let mut caller = daemon.connect();
        let call =
            json!({ "method": "io.volnet.Create", "parameters": clone(&daemon, "one", &at) });
        caller.send(format!("{call}\n").as_bytes());
        eventually("it is waking", || vm_folder(&daemon, "one").join("api.sock").exists());
        daemon.crash();
        daemon.start_again();
        // One that was adopted counts as running, as far as anybody was told.
        eventually("it has woken", || is(&daemon, vmm, "one", "Running"));
        eventually("it is known", || vm(&daemon, "one")["status"] == "running");
        assert_has_its_own(&daemon, "one");
    });
}

#[test]
fn a_guest_that_was_paused_stays_so_if_the_daemon_ends_amid_its_snapshot() {
    for_each(|vmm| {
        let mut daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, "save=1200"));
        daemon.call("Pause", json!({ "name": "origin" }));
        crash_amid_snapshot(&mut daemon, vmm);
        eventually("it is known", || vm(&daemon, "origin")["status"] == "paused");
        eventually("it stands still", || is(&daemon, vmm, "origin", "Paused"));
    });
}

#[test]
fn a_vm_that_ends_amid_its_snapshot_ends_and_nothing_is_left() {
    for_each(|vmm| {
        let daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, "save=1200"));
        let (at, part) = (daemon.folder.join("web"), daemon.folder.join("web.part"));
        let saved = thread::scope(|scope| {
            let saved = scope.spawn(|| save(&daemon, "origin", &at));
            eventually("it is being saved", || part.exists());
            let deleted = daemon.call("Delete", json!({ "name": "origin", "timeout_ms": 0 }));
            assert_eq!(deleted["error"], Value::Null, "{deleted}");
            saved.join().expect("a reply")
        });
        assert_eq!(saved["error"], "io.volnet.HypervisorFailed", "{saved}");
        eventually("nothing is left", || !part.exists() && !at.exists());
    });
}

/// The folders of disks that volnet has made.
fn own_disks(daemon: &Daemon) -> Vec<PathBuf> {
    let entries = fs::read_dir(daemon.folder.join("state/disks")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn disk_of(daemon: &Daemon, name: &str) -> PathBuf {
    let folder = own_disks(daemon).into_iter().find(|folder| {
        let file = folder.file_name().expect("a name").to_string_lossy();
        file.rsplit_once('.').is_some_and(|(of, _)| of == name)
    });
    folder.unwrap_or_else(|| panic!("disks of {name}")).join("disk0")
}

#[test]
fn a_clone_that_names_no_disks_gets_copies_that_end_with_it() {
    for_each(|vmm| {
        let mut daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        let bare = |name: &str, more: Value| {
            let mut asked = json!({ "name": name, "start": true, "config": { "from": at } });
            asked.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
            asked
        };
        daemon.create(bare("one", json!({})));
        let disk = disk_of(&daemon, "one");
        assert_eq!(fs::read(&disk).expect("a copy"), DISK);
        fs::write(&disk, b"its own").expect("to write");
        assert_eq!(fs::read(at.join("disk0")).expect("a disk"), DISK);
        // A dry run makes nothing, nor does the same once more, and what is refused leaves nothing.
        daemon.create(bare("dry", json!({ "dry_run": true })));
        assert_eq!(daemon.create(bare("one", json!({})))["pid"], vm(&daemon, "one")["pid"]);
        let config = json!({ "from": at, "network": { "ip": "10.1.2.3" } });
        let another = json!({ "from": at, "autostart": true });
        for (asked, why) in [
            (bare("one", json!({ "config": another })), "VmExists"),
            (bare("two", json!({ "config": config })), "network.ip"),
        ] {
            let refused = daemon.call("Create", asked);
            assert!(refused.to_string().contains(why), "{refused}");
        }
        eventually("nothing is left", || own_disks(&daemon).len() == 1);

        // Of many, each has its own. They outlive a daemon, and a later start.
        let mut caller = daemon.connect();
        let parameters = json!({ "name": "many", "count": 3, "config": { "from": at } });
        let call =
            json!({ "method": "io.volnet.CreateMany", "parameters": parameters, "more": true });
        caller.send(format!("{call}\n").as_bytes());
        for _ in 0..3 {
            let reply = caller.receive().expect("a reply");
            assert_eq!(reply["error"], Value::Null, "{reply}");
        }
        daemon.crash();
        daemon.start_again();
        let disks = ["one", "many-1", "many-2", "many-3"].map(|name| disk_of(&daemon, name));
        assert!(disks.iter().all(|disk| disk.exists()) && own_disks(&daemon).len() == 4);
        daemon.call("Stop", json!({ "name": "one", "timeout_ms": 4000 }));
        daemon.call("Start", json!({ "name": "one" }));
        assert_eq!(vm(&daemon, "one")["status"], "running");
        assert_eq!(fs::read(&disk).expect("its disk"), b"its own");
        for name in ["one", "many-1", "many-2", "many-3"] {
            let deleted = daemon.call("Delete", json!({ "name": name, "timeout_ms": 0 }));
            assert_eq!(deleted["error"], Value::Null, "{deleted}");
        }
        eventually("they end with their VMs", || own_disks(&daemon).is_empty());
    });
}

#[test]
fn what_a_crash_leaves_of_the_disks_of_a_clone_is_removed_and_what_has_a_record_is_not() {
    for_each(|vmm| {
        let mut daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        for name in ["one", "two"] {
            let woken = daemon.create(json!({ "name": name, "config": { "from": at } }));
            assert_eq!(woken["inner"]["ip"], "192.168.127.2", "{woken}");
        }
        // A start that fails leaves no VM and no disks.
        let state = at.join(vmm.state);
        let whole = fs::read(&state).expect("the devices");
        fs::write(&state, &whole[..whole.len() / 2]).expect("half of them");
        let asked = json!({ "name": "bad", "start": true, "config": { "from": at } });
        let refused = daemon.call("Create", asked);
        assert_eq!(refused["error"], "io.volnet.HypervisorFailed", "{refused}");
        eventually("nothing is left", || own_disks(&daemon).len() == 2);

        daemon.crash();
        let disks = daemon.folder.join("state/disks");
        let cut_short = disks.join("three.17");
        fs::create_dir(&cut_short).expect("a folder");
        fs::write(cut_short.join("disk0"), b"half").expect("half of a disk");
        fs::create_dir(disks.join("of-somebody")).expect("a folder");
        // Nobody can read the record of one, for now.
        let record = daemon.folder.join("state/vms/two.json");
        let text = fs::read(&record).expect("its record");
        fs::write(&record, &text[..text.len() / 2]).expect("half of it");
        daemon.start_again();
        eventually("what no VM has is gone", || !cut_short.exists());
        assert!(disk_of(&daemon, "one").exists() && disk_of(&daemon, "two").exists());
        assert!(disks.join("of-somebody").exists());
    });
}

#[test]
fn a_clone_whose_disks_find_no_room_is_not_made_and_leaves_none() {
    for_each(|vmm| {
        let daemon = daemon(stand_in);
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        let disks = daemon.folder.join("state/disks");
        fs::create_dir(&disks).expect("a folder");
        run(&format!("mount -t tmpfs -o size=512k disks {}", disks.display()));
        let asked = json!({ "name": "one", "start": true, "config": { "from": at } });
        let refused = daemon.call("Create", asked.clone());
        assert_eq!(refused["error"], "io.volnet.StateNotWritten", "{refused}");
        let said = refused["parameters"]["reason"].as_str().expect("words");
        let words = format!("cannot copy {}: No space left on device", at.join("disk0").display());
        assert!(said.starts_with(&words), "{said}");
        eventually("nothing is left", || own_disks(&daemon).is_empty());
        assert_eq!(vm(&daemon, "one"), Value::Null);
        run(&format!("mount -o remount,size=16m {}", disks.display()));
        daemon.create(asked);
        assert_eq!(fs::read(disk_of(&daemon, "one")).expect("a copy"), DISK);
        run(&format!("umount --lazy {}", disks.display()));
    });
}

/// Another build of the binary: it has other bytes and does the same.
fn build(path: &Path) {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_volnet")).expect("the binary");
    bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
    fs::write(path, bytes).expect("another build");
    run(&format!("chmod 755 {}", path.display()));
}

#[test]
fn clones_run_on_over_an_upgrade_and_go_without_a_trace() {
    for_each(|vmm| {
        let mut daemon = daemon(stand_in);
        daemon.stop();
        daemon.program = daemon.folder.join("volnet");
        build(&daemon.program);
        daemon.start_again();
        daemon.create(origin(&daemon, vmm, ""));
        let at = daemon.folder.join("web");
        assert_eq!(save(&daemon, "origin", &at)["error"], Value::Null);
        // Counters count on.
        let rules = || run("nft --stateless --handle list ruleset");
        let links = || -> Vec<String> {
            let shown = run("ip -o link show type tun");
            shown.lines().filter_map(|line| Some(line.split(':').nth(1)?.to_string())).collect()
        };
        let (bare, bare_links) = (rules(), links());
        daemon.create(clone(&daemon, "one", &at));
        let expose = json!([{ "port": 80, "host_port": 8080 }]);
        let config = json!({ "from": at, "expose": expose });
        daemon.create(json!({ "name": "two", "start": true, "config": config }));
        let names = ["origin", "one", "two"];
        let seen = |daemon: &Daemon| (names.map(|name| vm(daemon, name)), rules(), links());
        let before = seen(&daemon);
        for clone in &before.0[1..] {
            assert_eq!(clone["inner"]["ip"], before.0[0]["ip"], "{clone}");
            let ip = clone["ip"].as_str().expect("an address");
            assert!(before.1.contains(ip), "{ip} in {}", before.1);
        }
        let own = disk_of(&daemon, "two");

        let new = daemon.folder.join("volnet.new");
        build(&new);
        fs::rename(&new, &daemon.program).expect("an upgrade");
        daemon.stop();
        daemon.start_again();
        eventually("all are known", || {
            names.iter().all(|name| vm(&daemon, name)["status"] == "running")
        });
        assert_eq!(seen(&daemon), before);
        assert_has_its_own(&daemon, "one");
        assert!(own.exists() && own_disks(&daemon).len() == 1);
        daemon.create(clone(&daemon, "three", &at));
        assert_has_its_own(&daemon, "three");

        for name in ["one", "two", "three"] {
            let deleted = daemon.call("Delete", json!({ "name": name, "timeout_ms": 0 }));
            assert_eq!(deleted["error"], Value::Null, "{deleted}");
            assert!(!vm_folder(&daemon, name).exists());
        }
        assert_eq!(rules(), bare);
        eventually("nothing is left", || links() == bare_links && own_disks(&daemon).is_empty());
        assert_has_its_own(&daemon, "origin");
    });
}
