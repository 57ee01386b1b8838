//! Real guests of QEMU that wake from a snapshot, on the bridge beside the guest that was saved.

#![cfg(target_os = "linux")]

mod lab;

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use lab::{HYPERVISOR_USER, Lab, UPLINK_IP, WORLD_IP, assert_has_no_rights, guest_file};

/// Has a hypervisor save its guest into a file, by its monitor, and go on.
const SAVE: &str = r#"
import socket, sys
monitor = socket.socket(socket.AF_UNIX)
monitor.settimeout(60)
monitor.connect(sys.argv[1])
def order(line):
    monitor.sendall(line.encode() + b"\n")
    said = b""
    # The line comes back, and after it a prompt.
    while not said.endswith(b"(qemu) ") or b"\n" not in said:
        said += monitor.recv(4096)
while not monitor.recv(4096).endswith(b"(qemu) "):
    pass
order(f'migrate "exec:cat > {sys.argv[2]}"')
order("cont")
"#;

/// Sends so many bytes to a port of an address.
const POUR: &str = r#"
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
peer.sendall(bytes(int(sys.argv[3])))
"#;

/// Sends to a guest what it is to do.
const ORDER: &str = r#"
import socket, sys
peer = socket.create_connection((sys.argv[1], 7000), 30)
peer.sendall(sys.argv[2].encode())
"#;

#[test]
fn guests_of_one_snapshot_work_beside_the_original() {
    let mut lab = Lab::new();
    let inner = "02:aa:aa:aa:aa:aa,172.16.0.2/30,gateway=172.16.0.1";
    let at = |lab: &Lab, file: &str| lab.folder().join(file).to_str().expect("UTF-8").to_string();
    let (monitor, saved) = (at(&lab, "monitor"), at(&lab, "saved"));
    let begin = |lab: &mut Lab, name: &str, more: &[&str]| {
        lab.volnet(&["create", name, "--inner", inner]);
        let (kernel, initramfs) = (guest_file("vmlinux"), guest_file("initramfs"));
        let socket = lab.socket();
        let mut command =
            vec![env!("CARGO_BIN_EXE_volnet"), "exec", "--socket", &socket, name, "--"];
        command.extend("qemu-system-x86_64 -machine q35,accel=tcg -m 128 -nodefaults".split(' '));
        command.extend("-display none -serial stdio -netdev tap,id=net0,fd={fd}".split(' '));
        command.extend(["-device", "virtio-net-pci,netdev=net0,mac={mac},romfile="]);
        command.extend(["-kernel", &kernel, "-initrd", &initramfs, "-append"]);
        command.push("console=ttyS0 quiet {kernel_args} volnet.do=ping:gateway,sink:7000,hold");
        command.extend(more);
        lab.spawn(&command, name);
    };
    let says = |lab: &Lab, name: &str, text: &str| {
        lab.wait_for(&format!("{name} to say {text:?}"), || {
            lab.output_of(name).contains(text).then_some(())
        });
    };
    begin(&mut lab, "origin", &["-monitor", &format!("unix:{monitor},server=on,wait=off")]);
    says(&lab, "origin", "ping 172.16.0.1: ok");
    says(&lab, "origin", "sink 7000");
    lab.on_host(&["python3", "-c", SAVE, &monitor, &saved]);

    let clones = ["clone1", "clone2", "clone3"];
    for name in clones {
        begin(&mut lab, name, &["-incoming", &format!("exec:cat {saved}")]);
    }
    let names = ["origin", "clone1", "clone2", "clone3"];
    let addresses = names.map(|name| lab.vm(name)["ip"].as_str().expect("an address").to_string());
    for (name, ip) in names.iter().zip(&addresses) {
        assert_eq!(lab.vm(name)["inner"]["ip"], "172.16.0.2");
        lab.wait_for(&format!("{name} at {ip}"), || {
            lab.try_on_host(&["ping", "-q", "-c", "1", "-W", "1", ip]).ok()
        });
    }
    // Each gets its own: the addresses are apart outside, and one inside.
    for (bytes, (name, ip)) in (1..).map(|n| n * 100_000).zip(names.iter().zip(&addresses)) {
        lab.on_host(&["python3", "-c", POUR, ip, "7000", &bytes.to_string()]);
        says(&lab, name, &format!("sunk 7000: {bytes}"));
    }
}

/// The user of the hypervisors gets a folder or a file.
fn give(path: &Path) {
    let user = HYPERVISOR_USER.parse().expect("a number");
    chown(path, Some(user), Some(user)).expect("a file of the hypervisors' user");
}

/// Sends as many random bytes to each guest, all at once, while it sends them back, and compares.
const ECHO: &str = r#"
import hashlib, os, socket, sys, threading
size = int(sys.argv[1])
told = {}
def talk(ip):
    sent, heard = os.urandom(size), hashlib.sha256()
    peer = socket.create_connection((ip, 7000), 60)
    peer.settimeout(600)
    threading.Thread(target=peer.sendall, args=[sent], daemon=True).start()
    left = size
    while left and (part := peer.recv(65536)):
        heard.update(part)
        left -= len(part)
    told[ip] = not left and heard.digest() == hashlib.sha256(sent).digest()
talks = [threading.Thread(target=talk, args=[ip]) for ip in sys.argv[2:]]
[talk.start() for talk in talks]
[talk.join() for talk in talks]
print(sum(told.values()), "of", len(talks), "whole")
sys.exit(0 if len(told) == len(talks) and all(told.values()) else 1)
"#;

/// By hand it takes more: `VOLNET_CLONES=20 VOLNET_CLONE_MIB=16`.
#[test]
fn many_that_wake_from_one_snapshot_are_reached_at_once_while_the_original_runs() {
    let number = |name: &str, usual: usize| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (count, mib) = (number("VOLNET_CLONES", 3), number("VOLNET_CLONE_MIB", 1));
    let lab = Lab::new();
    let folder = lab.folder().join("snapshots");
    std::fs::create_dir(&folder).expect("a folder");
    give(&folder);
    let at = folder.join("web");
    let at = at.to_str().expect("UTF-8");
    lab.run_guest("origin", &[], "volnet.do=ping:gateway,echo:7000,hold");
    lab.wait_for_line("origin", "GUEST echo 7000");
    lab.volnet(&["snapshot", "origin", at]);
    lab.volnet(&["run", "clone", "--from", at, "--count", &count.to_string()]);
    let clones = (1..=count).map(|number| format!("clone-{number}"));
    let names: Vec<String> = clones.chain(["origin".into()]).collect();
    let address = |name: &String| lab.vm(name)["ip"].as_str().expect("an address").to_string();
    let addresses: Vec<String> = names.iter().map(address).collect();
    for ip in &addresses {
        lab.wait_for(ip, || lab.try_on_host(&["ping", "-q", "-c", "1", "-W", "5", ip]).ok());
    }
    let size = (mib << 20).to_string();
    let mut words = vec!["python3", "-c", ECHO, &size];
    words.extend(addresses.iter().map(String::as_str));
    let told = lab.on_host(&words);
    println!("{count} clones and the original, {mib} MiB both ways: {told:?}");
    for name in &names {
        lab.wait_for_line(name, "GUEST echoed 7000");
        assert_eq!(lab.vm(name)["status"], "running");
    }
}

#[test]
fn guests_wake_from_a_snapshot_beside_the_original_that_runs_on() {
    let mut lab = Lab::new();
    let folder = lab.folder().join("snapshots");
    std::fs::create_dir(&folder).expect("a folder");
    let disk = folder.join("disk.img");
    std::fs::write(&disk, vec![7; 3 << 20]).expect("a disk");
    let saved = folder.join("web");
    let [at, disk_at] = [&saved, &disk].map(|path| path.to_str().expect("UTF-8"));
    give(&disk);
    lab.run_guest("origin", &["--disk", disk_at], "volnet.do=ping:gateway,sink:7000,hold");
    lab.wait_for_line("origin", "GUEST sink 7000");
    let fails = |lab: &Lab, words: &[&str], reason: &str| {
        let said = String::from_utf8(lab.run(words).stderr).expect("text");
        assert!(said.contains(reason), "{words:?}: {said}");
    };
    // It cannot be written there: nothing is left, and the guest goes on.
    fails(&lab, &["snapshot", "origin", at], "Permission denied (os error 13), for user nobody");
    give(&folder);
    let first = lab.vm("origin");
    assert_eq!(first["status"], "running");
    assert!(!saved.exists() && !folder.join("web.part").exists());

    lab.volnet(&["snapshot", "origin", at]);
    fails(&lab, &["snapshot", "origin", at], "exists");
    lab.wait_for("the guest to go on", || (lab.vm("origin")["status"] == "running").then_some(()));
    let mut files: Vec<_> = std::fs::read_dir(&saved).expect("a folder").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let names = files.iter().map(|file| file.file_name().into_string().expect("UTF-8"));
    assert_eq!(names.collect::<Vec<_>>(), ["disk0", "memory", "snapshot.json"]);
    for file in &files {
        let file = file.metadata().expect("a file");
        assert_eq!((file.uid(), file.mode() & 0o777), (65534, 0o600));
    }
    assert_eq!(std::fs::read(saved.join("disk0")).expect("a disk"), vec![7; 3 << 20]);

    fails(
        &lab,
        &["run", "clone", "--from", "/nonexistent"],
        "snapshot /nonexistent: snapshot.json: No such file",
    );
    fails(
        &lab,
        &["run", "clone", "--from", at, "--memory", "256"],
        "resources.memory_mb: the guest",
    );
    let two = ["run", "clone", "--from", at, "--disk", disk_at, "--disk", disk_at];
    fails(&lab, &two, "disks: the guest writes to 1, and 2 are given");
    let clones = ["clone-1", "clone-2", "clone-3"];
    let many = ["run", "clone", "--from", at, "--count", "3"];
    let told = lab.volnet(&many);
    assert_eq!(told.matches(": running 192.168.127.").count(), 3, "{told}");
    let disks = || -> Vec<_> {
        let folders = std::fs::read_dir(lab.folder().join("state/disks")).expect("a folder");
        folders.map(|folder| folder.expect("a folder").path().join("disk0")).collect()
    };
    let owners = disks().into_iter().map(|disk| {
        let file = disk.metadata().expect("a disk");
        (file.uid(), file.mode() & 0o777, file.len())
    });
    assert_eq!(owners.collect::<Vec<_>>(), [(65534, 0o600, 3 << 20); 3]);
    for name in clones {
        let vm = lab.vm(name);
        assert_eq!((&vm["inner"]["ip"], &vm["inner"]["mac"]), (&first["ip"], &first["mac"]));
        assert_has_no_rights(&vm["pid"]);
    }
    let names = ["origin", "clone-1", "clone-2", "clone-3"];
    let addresses = names.map(|name| lab.vm(name)["ip"].as_str().expect("an address").to_string());
    for (bytes, (name, ip)) in (1..).map(|n| n * 100_000).zip(names.iter().zip(&addresses)) {
        lab.on_host(&["python3", "-c", POUR, ip, "7000", &bytes.to_string()]);
        lab.wait_for_line(name, &format!("GUEST sunk 7000: {bytes}"));
    }
    // One that is paused stays so, and is saved once: QEMU cannot do it again before it went on.
    let paused = folder.join("paused");
    lab.volnet(&["pause", "origin"]);
    lab.volnet(&["snapshot", "origin", paused.to_str().expect("UTF-8")]);
    let second = folder.join("second");
    let words = ["snapshot", "origin", second.to_str().expect("UTF-8")];
    fails(&lab, &words, "resume it first");
    assert!(paused.exists() && !second.exists());
    assert_eq!(lab.vm("origin")["status"], "paused");
    lab.volnet(&["resume", "origin"]);
    // A daemon that ends amid a snapshot leaves neither half of one nor a guest that stands still.
    let half = folder.join("half");
    let (program, socket) = (env!("CARGO_BIN_EXE_volnet"), lab.socket());
    let half_at = half.to_str().expect("UTF-8");
    lab.spawn(&[program, "snapshot", "--socket", &socket, "origin", half_at], "half");
    let part = folder.join("half.part");
    lab.wait_for("a snapshot that begins", || (part.exists() || half.exists()).then_some(()));
    lab.crash_daemon();
    lab.start_daemon();
    assert!(!part.exists());
    for name in names {
        lab.wait_for(name, || (lab.vm(name)["status"] == "running").then_some(()));
    }
    lab.on_host(&["ping", "-c", "1", "-W", "5", &addresses[0]]);
    lab.volnet(&["delete", "clone-1", "--timeout", "1"]);
    // One of three can be made again. The others exist with the same arguments, and are shown.
    assert_eq!(lab.volnet(&many).matches(": running 192.168.127.").count(), 3);
    lab.volnet(&["delete", "clone-1", "--timeout", "1"]);

    let description = saved.join("snapshot.json");
    let text = std::fs::read_to_string(&description).expect("a description");
    std::fs::write(&description, text.replace("QEMU emulator", "Another")).expect("a description");
    let words = ["run", "other", "--from", at, "--disk", disk_at];
    fails(&lab, &words, "version: it was made by Another version");
    assert_eq!(lab.run(&["get", "other"]).status.code(), Some(1));
}

#[test]
fn guests_that_woke_reach_each_other_and_the_world_and_are_reached_from_there() {
    let identity =
        r#"{ "mac": "02:aa:aa:aa:aa:aa", "ip": "172.16.0.2/30", "gateway": "172.16.0.1" }"#;
    let lab = Lab::configured(&format!(r#"{{ "networks": [{{ "inner": {identity} }}] }}"#));
    let folder = lab.folder().join("snapshots");
    std::fs::create_dir(&folder).expect("a folder");
    give(&folder);
    let at = folder.join("web");
    let at = at.to_str().expect("UTF-8");
    lab.run_guest("origin", &[], "volnet.do=lease:get,orders:7000");
    lab.wait_for_line("origin", "GUEST orders 7000");
    lab.volnet(&["snapshot", "origin", at]);
    lab.volnet(&["run", "clone", "--from", at, "--count", "2"]);
    // The way to the world takes less than guests send.
    lab.on_host(&["ip", "link", "set", "uplink", "mtu", "1300"]);
    assert_eq!(lab.try_in_world(&["ip", "link", "set", "hosts", "mtu", "1300"]), Ok(()));

    let names = ["origin", "clone-1", "clone-2"];
    let addresses = names.map(|name| lab.vm(name)["ip"].as_str().expect("an address").to_string());
    let order = |number: usize, words: &str| {
        lab.on_host(&["python3", "-c", ORDER, &addresses[number], words]);
    };
    for (number, name) in names.iter().enumerate() {
        let (host_port, bytes) = (8000 + number, 1000 * (number + 1));
        let (host_port, bytes) = (host_port.to_string(), bytes.to_string());
        let (next, after) = ((number + 1) % 3, &addresses[(number + 1) % 3]);
        // It renews its lease, and hears what routers say of what it sends.
        let words = format!("lease:renew,ping:{after},long-ping:{WORLD_IP},way:{WORLD_IP}");
        order(number, &words);
        lab.wait_for_line(name, &format!("GUEST way {WORLD_IP}: 172.16.0.1 {WORLD_IP}"));
        let said = lab.console(name);
        let ping = format!("GUEST ping {after}: ok");
        let long = format!("GUEST long ping {WORLD_IP}: ok");
        for line in ["GUEST renewed 172.16.0.2", &ping, &long] {
            assert!(said.contains(line), "{name}: {line:?} in {said}");
        }
        // It sends to the next one.
        order(next, "sink:7001");
        lab.wait_for_line(names[next], "GUEST sink 7001");
        order(number, &format!("pour:{after}:7001:{bytes}"));
        lab.wait_for_line(names[next], &format!("GUEST sunk 7001: {bytes}"));
        // The world sends to it.
        lab.volnet(&["expose", name, &format!("{host_port}:7002")]);
        order(number, "sink:7002");
        lab.wait_for_line(name, "GUEST sink 7002");
        let pour = ["python3", "-c", POUR, UPLINK_IP, &host_port, &bytes];
        assert_eq!(lab.try_in_world(&pour), Ok(()));
        lab.wait_for_line(name, &format!("GUEST sunk 7002: {bytes}"));
    }
}
