//! Starts and ends of hypervisors, as callers, subscribers and `Get` are told of them.
//!
//! Cloud Hypervisor and Firecracker need KVM, so stand-ins play them (`tests/vmm`): each says what
//! it was seen to do. With `VOLNET_REAL_VMM=1` the programs in `PATH` are used, and the kernel of
//! `make guest`. Tests that need a slow boot, or a guest that does something, have stand-ins all
//! the same. QEMU is real.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use common::daemon::{Connection, Daemon};
use common::{
    Device, KVM, TUN, copy_devices, eventually, in_namespace, put_device, stand_in, vmm_kernel,
    vmm_program,
};

const VMMS: [&str; 3] = ["cloud-hypervisor", "firecracker", "qemu"];
/// How often each start that must fail is tried: one that is told wrongly is a matter of luck.
const ROUNDS: usize = 20;

/// A daemon with these programs. QEMU does without KVM, and the stand-ins need none.
fn daemon(program: fn(&str) -> String) -> Daemon {
    daemon_for("", program)
}

/// A daemon for VMs of this hypervisor.
fn daemon_for(vmm: &str, program: fn(&str) -> String) -> Daemon {
    daemon_of("root", vmm, program)
}

/// The same, and hypervisors run as this user.
fn daemon_of(user: &str, vmm: &str, program: fn(&str) -> String) -> Daemon {
    Daemon::configured(&json!({
        "hypervisor_user": user,
        "kvm": vmm != "qemu",
        "hypervisors": {
            "cloud-hypervisor": { "program": program("cloud-hypervisor") },
            "firecracker": { "program": program("firecracker") }
        }
    }))
}

/// A daemon on a host with these devices, whose hypervisors run as this user.
fn daemon_in(vmm: &str, user: &str, devices: &[(Device, u32)]) -> Daemon {
    let daemon = daemon_of(user, vmm, vmm_program);
    copy_devices(&daemon.folder);
    for ((path, numbers), mode) in devices {
        put_device(path, *numbers, *mode, 0);
    }
    daemon
}

/// A kernel for QEMU that halts the processor and does nothing else: a boot sector and one more
/// (Documentation/arch/x86/boot.rst of Linux).
fn idle_kernel() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let mut image = [0; 4096];
        for (at, bytes) in [
            (0x1f1, &[1][..]),                  // setup_sects
            (0x1fe, &[0x55, 0xaa]),             // boot_flag
            (0x200, &[0xeb, 0x64]),             // jmp 0x266
            (0x202, b"HdrS\x0c\x02"),           // header, version
            (0x211, &[1]),                      // loadflags: LOADED_HIGH
            (0x22c, &[0xff, 0xff, 0xff, 0x37]), // initrd_addr_max
            (0x238, &[0xff, 0x07]),             // cmdline_size
            (0x266, &[0xfa, 0xf4, 0xeb, 0xfd]), // cli; hlt; jmp 0x267
        ] {
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("idle-kernel");
        let new = file.with_extension(std::process::id().to_string());
        fs::write(&new, image).and_then(|()| fs::rename(&new, &file)).expect("a kernel");
        file
    })
}

/// A kernel that this hypervisor boots.
fn kernel_of(vmm: &str) -> PathBuf {
    if vmm == "qemu" { idle_kernel().into() } else { vmm_kernel().into() }
}

/// A configuration of a VM that boots.
fn config(vmm: &str, cmdline: &str) -> Value {
    json!({
        "hypervisor": vmm,
        "kernel_override": kernel_of(vmm),
        "kernel_cmdline": cmdline,
        "resources": { "memory_mb": 128 },
        "network": { "mode": "bridged" }
    })
}

/// The same, with a kernel that is none.
fn broken(daemon: &Daemon, vmm: &str, cmdline: &str) -> Value {
    let kernel = daemon.folder.join("no-kernel");
    fs::write(&kernel, "tcpmux 1/tcp # TCP port service multiplexer\n".repeat(20)).unwrap();
    let mut config = config(vmm, cmdline);
    config["kernel_override"] = json!(kernel);
    config
}

fn run(name: &str, config: &Value) -> Value {
    json!({ "name": name, "config": config, "start": true })
}

/// A connection that is told of events. What is there already is read.
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

fn vm(daemon: &Daemon, name: &str) -> Value {
    daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take()
}

/// What a hypervisor says when it is given a kernel that is none.
fn words_of(vmm: &str) -> &'static str {
    match vmm {
        "cloud-hypervisor" => "Cannot load the kernel",
        "firecracker" => "Cannot load kernel",
        _ => "kernel",
    }
}

/// Asserts that somebody was told why a start failed.
fn assert_tells(vmm: &str, told: &Value) {
    assert_told(vmm, told, words_of(vmm));
}

/// The same, for these words.
fn assert_told(vmm: &str, told: &Value, words: &str) {
    let text = told.to_string();
    assert!(text.contains("before its guest ran") && text.contains(words), "{vmm}: {text}");
}

#[test]
fn a_guest_that_cannot_boot_was_never_running() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon_for(vmm, vmm_program);
            let mut events = subscribe(&daemon);
            for round in 0..ROUNDS {
                let (name, config) = (format!("{vmm}-{round}"), broken(&daemon, vmm, ""));
                let reply = daemon.call("Create", run(&name, &config));
                assert_eq!(reply["error"], "io.volnet.HypervisorFailed", "{reply}");
                assert_tells(vmm, &reply);
                let exited = next(&mut events, "vm_exited");
                assert_eq!(exited["vm"], name.as_str(), "and nothing was said to run: {exited}");
                assert_tells(vmm, &exited["message"]);
            }
            assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
        });
    }
}

/// Holds a lock on the whole of a file, as hypervisors do on parts of it (fcntl(2), open file
/// description locks).
fn lock(file: &Path) -> fs::File {
    let file = fs::File::options().create(true).write(true).truncate(false).open(file).unwrap();
    file.set_len(1 << 20).unwrap();
    let whole = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)).expect("a lock");
    file
}

/// Asserts that each of many starts of this VM fails, and is told with these words.
fn assert_never_runs(daemon: &Daemon, vmm: &str, config: &Value, words: &str) {
    let mut events = subscribe(daemon);
    for round in 0..ROUNDS {
        let reply = daemon.call("Create", run(&format!("{vmm}-{round}"), config));
        assert_eq!(reply["error"], "io.volnet.HypervisorFailed", "{reply}");
        let exited = next(&mut events, "vm_exited")["message"].take();
        assert_told(vmm, &reply, words);
        assert_told(vmm, &exited, words);
    }
    assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
}

#[test]
fn a_memory_that_the_host_cannot_give_is_told() {
    for (vmm, words) in [
        ("cloud-hypervisor", "Failed to create user memory"),
        ("firecracker", "Cannot set the memory regions"),
        ("qemu", "cannot set up guest memory"),
    ] {
        in_namespace(|| {
            let daemon = daemon_for(vmm, vmm_program);
            let mut config = config(vmm, "");
            config["resources"]["memory_mb"] = json!(16 << 20);
            assert_never_runs(&daemon, vmm, &config, words);
        });
    }
}

/// Those that lock their disks, and what they say of one that somebody else has locked.
const LOCKERS: [(&str, &str); 2] =
    [("cloud-hypervisor", "The file is already locked"), ("qemu", "lock")];

/// Firecracker locks no disks. That two VMs of volnet write to one is refused before (`disks.rs`).
#[test]
fn a_disk_that_somebody_else_has_locked_is_told() {
    for (vmm, words) in LOCKERS {
        in_namespace(|| {
            let daemon = daemon_for(vmm, vmm_program);
            let disk = daemon.folder.join("disk.img");
            let _lock = lock(&disk);
            let mut config = config(vmm, "");
            config["rootfs"] = json!({ "url": disk, "format": "raw" });
            assert_never_runs(&daemon, vmm, &config, words);
        });
    }
}

/// QEMU does without KVM, and that is told (`privileges.rs`).
#[test]
fn a_kvm_that_hypervisors_may_not_open_is_told() {
    for vmm in ["cloud-hypervisor", "firecracker"] {
        in_namespace(|| {
            let daemon = daemon_in(vmm, "nobody", &[(KVM, 0o600)]);
            assert_never_runs(&daemon, vmm, &config(vmm, ""), "Permission denied");
        });
    }
}

/// Firecracker opens its tap by name, and so do templates with `{tap}`.
#[test]
fn check_tells_whose_guests_do_not_run_without_the_tun_device() {
    in_namespace(|| {
        let template = |args: Value| json!({ "program": "sleep", "args": args });
        let daemon = Daemon::configured(&json!({
            "hypervisor_user": "nobody",
            "hypervisors": {
                "firecracker": { "program": vmm_program("firecracker") },
                "named": template(json!(["9", ["{tap}"]])),
                "open": template(json!(["9", ["{tap}", "{fd}"]])),
                "absent": { "program": "no-such-program", "args": [["{tap}"]] },
            }
        }));
        copy_devices(&daemon.folder);
        let tun = |mode: u32| {
            put_device(TUN.0, TUN.1, mode, 0);
            let mut findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
            let findings = findings.as_array_mut().expect("findings");
            let found = findings.iter_mut().find(|it| it["check"] == TUN.0).expect("the device");
            (found["level"].take(), found["message"].take())
        };
        let named = "user nobody may not open it: guests of named, firecracker do not run";
        assert_eq!(tun(0o600), (json!("warning"), json!(named)));
        assert_eq!(tun(0o666), (json!("ok"), json!("it can be opened")));
    });
}

#[test]
fn a_tun_device_that_firecracker_may_not_open_is_told() {
    in_namespace(|| {
        let daemon = daemon_in("firecracker", "nobody", &[(TUN, 0o600), (KVM, 0o666)]);
        let words = "Couldn't open /dev/net/tun";
        assert_never_runs(&daemon, "firecracker", &config("firecracker", ""), words);
    });
}

#[test]
fn why_a_vm_does_not_run_is_shown_until_it_is_started() {
    for vmm in VMMS {
        in_namespace(|| {
            let mut daemon = daemon_for(vmm, vmm_program);
            let config = broken(&daemon, vmm, "");
            daemon.call("Create", json!({ "name": vmm, "config": config }));
            let reply = daemon.call("Start", json!({ "name": vmm }));
            assert_eq!(reply["error"], "io.volnet.HypervisorFailed", "{reply}");
            assert_tells(vmm, &reply);
            let shown = vm(&daemon, vmm);
            assert_eq!((&shown["status"], &shown["pid"]), (&json!("crashed"), &Value::Null));
            assert_tells(vmm, &shown["last_error"]);
            daemon.crash();
            daemon.start_again();
            assert_tells(vmm, &vm(&daemon, vmm)["last_error"]);
        });
    }
}

/// A VM that runs is killed after this trouble has begun. Asserts that its restart by policy fails,
/// is told with these words, and succeeds when the trouble is over.
fn assert_restarts<T>(
    daemon: &Daemon,
    (vmm, mut config, words): (&str, Value, &str),
    begin: impl FnOnce() -> T,
    end: impl FnOnce(T),
) {
    config["restart"] = json!("on-failure");
    let pid = daemon.create(run(vmm, &config))["pid"].as_i64().expect("it runs");
    let mut events = subscribe(daemon);
    let trouble = begin();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let killed = next(&mut events, "vm_exited")["message"].take();
    assert!(killed.to_string().contains("was ended by signal 9"), "{killed}");
    let failed = next(&mut events, "vm_exited")["message"].take();
    assert_told(vmm, &failed, words);
    assert!(failed.to_string().contains("it is started again in 2 s"), "{failed}");
    let shown = vm(daemon, vmm);
    assert_eq!((&shown["status"], &shown["restarts"]), (&json!("crashed"), &json!(1)));
    assert_told(vmm, &shown["last_error"], words);
    end(trouble);
    let started = next(&mut events, "vm_started")["message"].take();
    assert!(started.to_string().contains("again by its restart policy"), "{started}");
    let shown = vm(daemon, vmm);
    assert_eq!((&shown["status"], &shown["restarts"]), (&json!("running"), &json!(2)));
    assert_eq!(shown["last_error"], Value::Null);
    daemon.call("Delete", json!({ "name": vmm, "timeout_ms": 0 }));
}

#[test]
fn a_restart_by_policy_that_fails_for_its_kernel_is_told_and_goes_on() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon_for(vmm, vmm_program);
            let kernel = daemon.folder.join("kernel");
            let put = || assert_ne!(fs::copy(kernel_of(vmm), &kernel).unwrap(), 0);
            put();
            let mut config = config(vmm, "");
            config["kernel_override"] = json!(kernel);
            let spoil = || fs::write(&kernel, "no kernel any more".repeat(100)).unwrap();
            assert_restarts(&daemon, (vmm, config, words_of(vmm)), spoil, |()| put());
        });
    }
}

#[test]
fn a_restart_by_policy_that_fails_for_its_disk_is_told_and_goes_on() {
    for (vmm, words) in LOCKERS {
        in_namespace(|| {
            let daemon = daemon_for(vmm, vmm_program);
            let (disk, other) = (daemon.folder.join("disk.img"), daemon.folder.join("other.img"));
            drop(lock(&disk));
            let mut config = config(vmm, "");
            config["rootfs"] = json!({ "url": disk, "format": "raw" });
            let begin = || {
                let locked = lock(&other);
                fs::rename(&other, &disk).unwrap();
                locked
            };
            assert_restarts(&daemon, (vmm, config, words), begin, drop);
        });
    }
}

#[test]
fn a_restart_by_policy_that_fails_for_a_device_is_told_and_goes_on() {
    for (vmm, (path, numbers), words) in [
        ("cloud-hypervisor", KVM, "Permission denied"),
        ("firecracker", KVM, "Permission denied"),
        ("firecracker", TUN, "Couldn't open /dev/net/tun"),
    ] {
        in_namespace(|| {
            let daemon = daemon_in(vmm, "nobody", &[(TUN, 0o666), (KVM, 0o666)]);
            let allow = |mode| put_device(path, numbers, mode, 0);
            let vm = (vmm, config(vmm, ""), words);
            assert_restarts(&daemon, vm, || allow(0o600), |()| allow(0o666));
        });
    }
}

/// A request to a hypervisor on its own API.
fn send(daemon: &Daemon, name: &str, request: &str) -> UnixStream {
    let socket = daemon.folder.join("run/vm").join(name).join("api.sock");
    let mut stream = UnixStream::connect(socket).expect("the API");
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// Asks a hypervisor on its own API.
fn api(daemon: &Daemon, name: &str, path: &str) -> String {
    let mut stream = send(daemon, name, &format!("GET {path}"));
    let mut answer = String::new();
    while !answer.contains('}') {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).expect("an answer");
        assert_ne!(length, 0, "an answer");
        answer += std::str::from_utf8(&chunk[..length]).expect("text");
    }
    answer
}

#[test]
fn whoever_starts_a_vm_is_answered_when_its_guest_runs() {
    in_namespace(|| {
        let daemon = daemon(vmm_program);
        let mut events = subscribe(&daemon);
        for (vmm, path) in [("cloud-hypervisor", "/api/v1/vm.info"), ("firecracker", "/")] {
            let reply = daemon.call("Create", run(vmm, &config(vmm, "")));
            let shown = &reply["parameters"]["vm"];
            assert_eq!((&shown["status"], &shown["last_error"]), (&json!("running"), &Value::Null));
            let says = api(&daemon, vmm, path);
            assert!(says.contains("\"state\":\"Running\""), "{says}");
            assert_eq!(next(&mut events, "vm_started")["vm"], vmm);
        }
    });
}

#[test]
fn a_guest_is_paused_and_goes_on_and_the_next_daemon_knows() {
    in_namespace(|| {
        let mut daemon = daemon(vmm_program);
        for (vmm, path) in [("cloud-hypervisor", "/api/v1/vm.info"), ("firecracker", "/")] {
            daemon.call("Create", run(vmm, &config(vmm, "")));
            let mut events = subscribe(&daemon);
            for (method, status, state, kind) in [
                ("Pause", "paused", "Paused", Some("vm_paused")),
                // That it is so already is no error, although Cloud Hypervisor refuses it.
                ("Pause", "paused", "Paused", None),
                ("Resume", "running", "Running", Some("vm_resumed")),
                ("Resume", "running", "Running", None),
                ("Pause", "paused", "Paused", Some("vm_paused")),
            ] {
                let reply = daemon.call(method, json!({ "name": vmm }));
                assert_eq!(reply["parameters"]["vm"]["status"], status, "{reply}");
                let says = api(&daemon, vmm, path);
                assert!(says.contains(&format!("\"state\":\"{state}\"")), "{says}");
                if let Some(kind) = kind {
                    assert_eq!(next(&mut events, kind)["vm"], vmm);
                }
            }
            // It cannot answer, so it is not asked.
            let reply = daemon.call("Doctor", json!({ "name": vmm }));
            let looked = reply["parameters"]["findings"].as_array().expect("a list").iter();
            let of = |check: &str| looked.clone().filter(|it| it["check"] == check).count();
            assert_eq!((of("process"), of("tap"), of("guest")), (1, 1, 0), "{reply}");
            daemon.crash();
            daemon.start_again();
            eventually("it is known", || vm(&daemon, vmm)["status"] == "paused");
            let reply = daemon.call("Stop", json!({ "name": vmm, "timeout_ms": 4000 }));
            assert_eq!(reply["parameters"]["vm"]["status"], "stopped", "{reply}");
            let refused = daemon.call("Pause", json!({ "name": vmm }));
            assert_eq!(refused["error"], "io.volnet.WrongState", "{refused}");
        }
    });
}

/// QEMU is in `guests.rs`.
#[test]
fn a_signal_by_somebody_is_a_crash_where_the_hypervisor_tells_and_nothing_is_left() {
    in_namespace(|| {
        let daemon = daemon(vmm_program);
        for (vmm, signal, status, code, number) in [
            ("firecracker", Signal::SIGTERM, "crashed", Value::Null, json!(15)),
            ("firecracker", Signal::SIGKILL, "crashed", Value::Null, json!(9)),
            ("cloud-hypervisor", Signal::SIGTERM, "stopped", json!(0), Value::Null),
            ("cloud-hypervisor", Signal::SIGKILL, "crashed", Value::Null, json!(9)),
        ] {
            let reply = daemon.call("Create", run(vmm, &config(vmm, "")));
            let pid = reply["parameters"]["vm"]["pid"].as_i64().expect("it runs");
            let folder = daemon.folder.join("run/vm").join(vmm);
            assert!(folder.join("api.sock").exists());
            let mut events = subscribe(&daemon);
            kill(Pid::from_raw(pid as i32), signal).unwrap();
            next(&mut events, "vm_exited");
            let shown = vm(&daemon, vmm);
            assert_eq!(shown["status"], status, "{shown}");
            assert_eq!((&shown["exit_code"], &shown["exit_signal"]), (&code, &number), "{shown}");
            assert!(!folder.exists(), "its sockets");
            daemon.call("Delete", json!({ "name": vmm }));
        }
    });
}

/// `vm.shutdown` ends only the guest, and Cloud Hypervisor goes on without one.
#[test]
fn who_is_ended_on_its_api_has_stopped_and_is_started_again_only_if_it_always_is() {
    in_namespace(|| {
        let daemon = daemon(vmm_program);
        for (restart, shown_as, again) in
            [("on-failure", "stopped", false), ("always", "running", true)]
        {
            for request in ["vm.shutdown", "vmm.shutdown"] {
                let mut config = config("cloud-hypervisor", "");
                config["restart"] = json!(restart);
                let pid = daemon.create(run("web", &config))["pid"].clone();
                let mut events = subscribe(&daemon);
                let connection = send(&daemon, "web", &format!("PUT /api/v1/{request}"));
                // Nobody has to be told that it is ended: it says so itself.
                let exited = loop {
                    let event = events.receive().expect("an event")["parameters"]["event"].take();
                    assert_ne!(event["kind"], "vm_stopping", "{event}");
                    if event["kind"] == "vm_exited" {
                        break event["message"].to_string();
                    }
                };
                drop(connection);
                assert!(exited.contains("VM web ended with status 0"), "{exited}");
                assert_eq!(exited.contains("it is started again"), again, "{exited}");
                if again {
                    next(&mut events, "vm_started");
                }
                let shown = vm(&daemon, "web");
                assert_eq!(shown["status"], shown_as, "{shown}");
                assert_ne!(shown["pid"], pid);
                daemon.call("Delete", json!({ "name": "web", "timeout_ms": 0 }));
            }
        }
    });
}

#[test]
fn devices_and_limits_of_disks_are_taken() {
    in_namespace(|| {
        for (vmm, cache) in [("cloud-hypervisor", "none"), ("firecracker", "unsafe")] {
            let daemon = daemon_for(vmm, vmm_program);
            let disk = daemon.folder.join("disk");
            fs::File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("a disk");
            let mut config = config(vmm, "");
            config["rng"] = true.into();
            config["resources"]["balloon"] = true.into();
            let limits = json!({ "mb": 50, "iops": 1000 });
            let disks = json!([{ "source": disk, "cache": cache, "limits": limits }]);
            let mut parameters = run("web", &config);
            parameters["manifest"] = json!({ "disks": disks });
            let vm = daemon.create(parameters);
            assert_eq!(vm["status"], "running", "{vm}");
            daemon.call("Delete", json!({ "name": "web", "timeout_ms": 0 }));
        }
    });
}

#[test]
fn others_are_served_while_a_guest_boots() {
    in_namespace(|| {
        let daemon = daemon(stand_in);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let starts = thread::scope(|scope| {
                let started =
                    scope.spawn(|| daemon.call("Create", run(vmm, &config(vmm, "boot=1500"))));
                let mut seen = 0;
                while !started.is_finished() {
                    let listed = daemon.call("List", json!({}))["parameters"]["vms"].take();
                    let of = listed.as_array().into_iter().flatten().find(|vm| vm["name"] == vmm);
                    let Some(of) = of else { continue };
                    if of["status"] == "created" {
                        assert!(of["pid"].is_u64(), "it is starting: {of}");
                        seen += 1;
                    } else {
                        // The start may be answered a moment before this thread sees it.
                        assert_eq!(of["status"], "running");
                    }
                }
                assert!(seen > 0, "{vmm} was seen to start");
                started.join().expect("a reply")
            });
            assert_eq!(starts["parameters"]["vm"]["status"], "running", "{starts}");
        }
    });
}

/// How many VMs are started at once.
const CROWD: usize = 100;

/// A hundred clients start a VM each, at the same moment. The guests of some cannot boot. Meanwhile
/// others are answered, again and again: what they see is the crowd on its way. (How long they wait
/// is measured by `make bench`.)
#[test]
fn a_crowd_that_starts_at_once_is_answered_truthfully_and_keeps_nobody() {
    for vmms in [["cloud-hypervisor", "firecracker"], ["qemu"; 2]] {
        assert_crowd_starts(vmms);
    }
}

fn assert_crowd_starts(vmms: [&'static str; 2]) {
    in_namespace(|| {
        let daemon = daemon_for(vmms[0], stand_in);
        let good = |at: usize| at % 4 < 2;
        let vmm = |at: usize| vmms[at % 2];
        let mut callers: Vec<Connection> = (0..CROWD).map(|_| daemon.connect()).collect();
        for (at, caller) in callers.iter_mut().enumerate() {
            let config = if good(at) { config(vmm(at), "") } else { broken(&daemon, vmm(at), "") };
            let parameters = run(&format!("vm{at}"), &config);
            let call = json!({ "method": "io.volnet.Create", "parameters": parameters });
            caller.send(format!("{call}\n").as_bytes());
        }
        let mut other = daemon.connect();
        thread::scope(|scope| {
            let answers = scope.spawn(|| {
                callers.iter_mut().map(|caller| caller.receive().expect("an answer")).collect()
            });
            let (mut asked, mut seen) = (0, BTreeSet::new());
            while !answers.is_finished() {
                let listed = other.call("List", json!({}))["parameters"]["vms"].take();
                let vms = listed.as_array().expect("VMs");
                seen.insert(vms.iter().filter(|vm| vm["status"] == "running").count());
                asked += 1;
            }
            let answers: Vec<Value> = answers.join().expect("answers");
            for (at, answer) in answers.iter().enumerate() {
                match good(at) {
                    true => assert_eq!(answer["parameters"]["vm"]["status"], "running", "{answer}"),
                    false => assert_tells(vmm(at), answer),
                }
            }
            assert!(asked >= CROWD / 10, "others were answered {asked} times");
            assert!(seen.len() > 2, "the crowd was seen on its way: {seen:?}");
        });
        let listed = daemon.call("List", json!({}))["parameters"]["vms"].take();
        let listed = listed.as_array().expect("VMs");
        assert_eq!(listed.len(), (0..CROWD).filter(|at| good(*at)).count());
        for vm in listed.iter().filter(|vm| vm["hypervisor"] != "qemu") {
            let path = if vm["hypervisor"] == "firecracker" { "/" } else { "/api/v1/vm.info" };
            let says = api(&daemon, vm["name"].as_str().expect("a name"), path);
            assert!(says.contains("\"state\":\"Running\""), "{says}");
        }
    });
}

#[test]
fn a_start_outlives_the_daemon_that_made_it() {
    in_namespace(|| {
        let mut daemon = daemon(stand_in);
        let slow = "boot=1500";
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let (good, bad) = (format!("{vmm}-good"), format!("{vmm}-bad"));
            let configs = [(&good, config(vmm, slow)), (&bad, broken(&daemon, vmm, slow))];
            let callers = configs.map(|(name, config)| {
                let mut caller = daemon.connect();
                let call =
                    json!({ "method": "io.volnet.Create", "parameters": run(name, &config) });
                caller.send(format!("{call}\n").as_bytes());
                caller
            });
            for name in [&good, &bad] {
                eventually("it is starting", || vm(&daemon, name)["pid"].is_u64());
            }
            let pid = vm(&daemon, &good)["pid"].clone();
            daemon.crash();
            drop(callers);
            daemon.start_again();
            assert_eq!(vm(&daemon, &good)["pid"], pid, "adopted");
            eventually("it runs", || vm(&daemon, &good)["status"] == "running");
            eventually("it has ended", || vm(&daemon, &bad)["status"] == "crashed");
            assert_tells(vmm, &vm(&daemon, &bad)["last_error"]);
        }
    });
}

/// QEMU is one whose guest waits for somebody to let it begin.
#[test]
fn a_vm_that_is_deleted_while_it_starts_was_never_running() {
    for vmm in VMMS {
        in_namespace(|| {
            let daemon = daemon_for(vmm, stand_in);
            let mut config = config(vmm, "boot=9000");
            if vmm == "qemu" {
                config["args"] = json!(["-S"]);
            }
            let reply = thread::scope(|scope| {
                let started = scope.spawn(|| daemon.call("Create", run(vmm, &config)));
                eventually("it is starting", || vm(&daemon, vmm)["pid"].is_u64());
                let deleted = daemon.call("Delete", json!({ "name": vmm, "timeout_ms": 0 }));
                assert_eq!(deleted["error"], Value::Null, "{deleted}");
                started.join().expect("a reply")
            });
            assert_eq!(reply["error"], "io.volnet.HypervisorFailed", "{reply}");
            assert!(reply.to_string().contains("told to end before its guest ran"), "{reply}");
        });
    }
}

#[test]
fn each_end_of_a_guest_is_the_same_under_each_hypervisor() {
    in_namespace(|| {
        let mut daemon = daemon(stand_in);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            for (guest, status, code, error) in [
                ("poweroff,1000", "stopped", json!(0), Value::Null),
                ("reset,1000", "stopped", json!(0), Value::Null),
                ("panic,1000", "crashed", Value::Null, json!("ended because its guest panicked")),
            ] {
                let name = format!("{vmm}-{guest}").replace(',', "-");
                let mut events = subscribe(&daemon);
                daemon.call("Create", run(&name, &config(vmm, &format!("guest={guest}"))));
                next(&mut events, "vm_started");
                let exited = next(&mut events, "vm_exited");
                let shown = vm(&daemon, &name);
                assert_eq!((&shown["status"], &shown["exit_code"]), (&json!(status), &code));
                assert_eq!((&shown["pid"], &shown["restarts"]), (&Value::Null, &json!(0)));
                let told = [&exited["message"], &shown["last_error"]].map(Value::to_string);
                match error.as_str() {
                    None => assert_eq!(shown["last_error"], error, "{shown}"),
                    Some(error) => {
                        assert!(told.iter().all(|told| told.contains(error)), "{told:?}");
                        assert!(told[1].contains("Unable to mount root fs"), "{told:?}");
                    }
                }
            }
        }
        // A panic that no console tells of, and that no reset follows.
        let mut events = subscribe(&daemon);
        daemon.call("Create", run("silent", &config("cloud-hypervisor", "guest=silent,1000")));
        let stopping = next(&mut events, "vm_stopping")["message"].take();
        assert_eq!(stopping, "the guest of VM silent has panicked: its hypervisor is ended");
        next(&mut events, "vm_exited");
        assert_eq!(vm(&daemon, "silent")["last_error"], "it ended because its guest panicked");
        // The next daemon hears of it, too.
        let reply =
            daemon.call("Create", run("late", &config("cloud-hypervisor", "guest=reset,2000")));
        assert_eq!(reply["parameters"]["vm"]["status"], "running", "{reply}");
        daemon.crash();
        daemon.start_again();
        eventually("it is ended", || vm(&daemon, "late")["status"] == "stopped");
    });
}

#[test]
fn a_guest_that_panics_for_ever_is_backed_off_and_told() {
    in_namespace(|| {
        let daemon = daemon(stand_in);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let mut config = config(vmm, "guest=panic,1000");
            config["restart"] = json!("on-failure");
            let mut events = subscribe(&daemon);
            daemon.call("Create", run(vmm, &config));
            for (count, seconds) in [(0, 1), (1, 2), (2, 4)] {
                let exited = next(&mut events, "vm_exited")["message"].take().to_string();
                let again = format!("it is started again in {seconds} s");
                assert!(exited.contains("guest panicked") && exited.contains(&again), "{exited}");
                let shown = vm(&daemon, vmm);
                assert_eq!(
                    (&shown["status"], &shown["restarts"]),
                    (&json!("crashed"), &json!(count))
                );
            }
            daemon.call("Delete", json!({ "name": vmm }));
        }
    });
}
