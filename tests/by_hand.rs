//! Hypervisors that users start themselves, with what `args` and `exec` print, by a user without
//! rights; and what `check` says of the devices that hypervisors need.
//!
//! QEMU and its guest are real. Cloud Hypervisor and Firecracker are stand-ins (`tests/vmm`), or
//! the programs in `PATH` with `VOLNET_REAL_VMM=1`.

#![cfg(target_os = "linux")]

mod common;
mod lab;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{
    KVM, TUN, copy_devices, eventually, in_namespace, put_device, run, stand_in, vmm_kernel,
    vmm_program,
};
use lab::Lab;

/// The user without rights, and another one.
const NOBODY: u32 = 65534;
const STRANGER: u32 = 65533;

/// Runs `volnet`, which asks this daemon.
fn volnet(daemon: &Daemon, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volnet"));
    let output = command.args(words).env("VOLNET_SOCKET", daemon.socket()).output();
    let output = output.expect("volnet runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process that ends with the test.
struct Started(Child);

impl Started {
    fn assert_runs(&mut self, output: &Path) {
        let ended = self.0.try_wait().unwrap();
        let said = || fs::read_to_string(output).unwrap_or_default();
        assert!(ended.is_none(), "it {}: {}", ended.unwrap(), said());
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a hypervisor as a user, its output in a file.
fn start_as(user: u32, vmm: &str, args: &[String], output: &Path) -> Started {
    let output = fs::File::create(output).expect("a file");
    let user = user.to_string();
    let child = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"])
        .arg(vmm_program(vmm))
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a file"))
        .stderr(output)
        .spawn();
    Started(child.expect("setpriv starts"))
}

/// A folder of this user.
fn folder_of(user: u32, daemon: &Daemon, name: &str) -> PathBuf {
    let folder = daemon.folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(user), Some(user)).unwrap();
    folder
}

/// The network arguments as `volnet args` prints them.
fn args(daemon: &Daemon, vm: &str, vmm: &str) -> Vec<String> {
    let output = volnet(daemon, &["args", vm, "--hypervisor", vmm]);
    output.lines().map(String::from).collect()
}

/// The whole command line of a hypervisor with these network arguments. Its own files are in a
/// folder of its user.
fn command_line(vmm: &str, network: Vec<String>, folder: &Path) -> Vec<String> {
    let (kernel, api) = (vmm_kernel(), folder.join("api.sock"));
    let api = api.to_str().unwrap();
    if vmm == "cloud-hypervisor" {
        let own = ["--api-socket", &format!("path={api}"), "--kernel", &kernel].map(String::from);
        let more =
            ["--serial", "off", "--console", "off", "--memory", "size=128M"].map(String::from);
        return own.into_iter().chain(more).chain(network).collect();
    }
    let mut config: Value = serde_json::from_str(&network[0]).expect("a part of a configuration");
    config["boot-source"] = json!({ "kernel_image_path": kernel });
    config["drives"] = json!([]);
    config["machine-config"] = json!({ "vcpu_count": 1, "mem_size_mib": 128 });
    let file = folder.join("fc.json");
    fs::write(&file, config.to_string()).unwrap();
    ["--api-sock", api, "--config-file", file.to_str().unwrap()].map(String::from).into()
}

/// Lets every user open KVM, and the test replace devices.
fn open_kvm(daemon: &Daemon) {
    copy_devices(&daemon.folder);
    put_device(KVM.0, KVM.1, 0o666, 0);
}

#[test]
fn the_folder_of_the_sockets_is_the_owners_as_long_as_the_vm_is() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        open_kvm(&daemon);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let owner = NOBODY.to_string();
            volnet(&daemon, &["create", vmm, "--mode", "vsock", "--owner", &owner]);
            let folder = daemon.folder.join("run/vm").join(vmm);
            let is_lent = || {
                let found = fs::metadata(&folder).expect("the folder");
                assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY));
                assert_eq!(found.permissions().mode() & 0o777, 0o700);
            };
            is_lent();
            let network = args(&daemon, vmm, vmm);
            let line = command_line(vmm, network, &folder_of(NOBODY, &daemon, "own"));
            let output = daemon.folder.join("output");
            let mut started = start_as(NOBODY, vmm, &line, &output);
            let socket = folder.join("vsock.sock");
            eventually("the socket", || {
                started.assert_runs(&output);
                socket.exists()
            });
            // The next daemon leaves the socket alone.
            daemon.crash();
            daemon.start_again();
            assert!(socket.exists());
            drop(started);
            // Whatever becomes of the runtime directory, the next daemon makes the folder.
            daemon.crash();
            fs::remove_dir_all(daemon.folder.join("run")).unwrap();
            daemon.start_again();
            is_lent();
            daemon.call("Delete", json!({ "name": vmm }));
            assert!(!folder.exists());
            fs::remove_dir_all(daemon.folder.join("own")).unwrap();
        }
    });
}

#[test]
fn a_vm_whose_folder_cannot_be_made_is_not_made() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        fs::write(daemon.folder.join("run/vm"), "no folder").unwrap();
        let parameters = json!({ "name": "vs", "config": { "network": { "mode": "vsock" } } });
        let reply = daemon.call("Create", parameters.clone());
        assert_eq!(reply["error"], "io.volnet.StateNotWritten", "{reply}");
        assert_eq!(daemon.call("List", json!({}))["parameters"]["vms"], json!([]));
        fs::remove_file(daemon.folder.join("run/vm")).unwrap();
        let reply = daemon.call("Create", parameters);
        assert_eq!(reply["parameters"]["vm"]["cid"], 3, "its context id was given back: {reply}");
        assert_eq!(reply["parameters"]["vm"]["owner"], Value::Null);
    });
}

#[test]
fn a_tap_is_opened_by_its_name_by_its_owner_alone() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        open_kvm(&daemon);
        put_device(TUN.0, TUN.1, 0o666, 0);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let vm = &vmm[..2];
            volnet(&daemon, &["create", vm, "--owner", &format!("{NOBODY}:{NOBODY}")]);
            let tap = common::ip_link(&format!("vttap-{vm}"));
            assert_eq!(tap["linkinfo"]["info_data"]["user"], "nobody", "{tap}");
            let network = args(&daemon, vm, vmm);
            for (user, opens) in [(STRANGER, false), (NOBODY, true)] {
                let folder = folder_of(user, &daemon, &format!("{vm}-{user}"));
                let output = daemon.folder.join("output");
                let line = command_line(vmm, network.clone(), &folder);
                let mut started = start_as(user, vmm, &line, &output);
                if opens {
                    eventually("the guest is on its bridge", || {
                        started.assert_runs(&output);
                        run(&format!("ip -o link show dev vttap-{vm}")).contains("LOWER_UP")
                    });
                } else {
                    assert!(!started.0.wait().unwrap().success());
                    let said = fs::read_to_string(&output).unwrap();
                    assert!(said.contains("Operation not permitted"), "{vmm}: {said}");
                }
            }
            daemon.call("Delete", json!({ "name": vm }));
        }
    });
}

/// `{fds}`: Cloud Hypervisor takes the same descriptor twice without a word, and reads one queue.
#[test]
fn cloud_hypervisor_has_a_descriptor_for_each_queue() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        open_kvm(&daemon);
        volnet(&daemon, &["create", "mq", "--queues", "2"]);
        let network = ["--cpus", "boot=2", "--net", "fd=[{fds}],num_queues=4,mac={mac}"];
        let folder = folder_of(NOBODY, &daemon, "own");
        let line = command_line("cloud-hypervisor", network.map(String::from).into(), &folder);
        let output = daemon.folder.join("output");
        let file = fs::File::create(&output).unwrap();
        let user = NOBODY.to_string();
        let child = Command::new(env!("CARGO_BIN_EXE_volnet"))
            .args(["exec", "mq", "--", "setpriv", "--reuid", &user, "--regid", &user])
            .args(["--clear-groups", "--no-new-privs", &vmm_program("cloud-hypervisor")])
            .args(line)
            .env("VOLNET_SOCKET", daemon.socket())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        let mut started = Started(child.expect("volnet starts"));
        let mut descriptors = || {
            started.assert_runs(&output);
            let line = fs::read_to_string(format!("/proc/{}/cmdline", started.0.id())).unwrap();
            // The program itself has the descriptors in its arguments.
            let fds = line.split('\0').find_map(|word| word.strip_prefix("fd=["))?;
            Some(fds.split_once(']')?.0.to_string()).filter(|fds| !fds.starts_with('{'))
        };
        let mut found = None;
        eventually("the program has its taps", || {
            found = descriptors();
            found.is_some()
        });
        let found = found.unwrap();
        let fds: Vec<&str> = found.split(',').collect();
        assert!(fds.len() == 2 && fds[0] != fds[1], "{fds:?}");
        for fd in fds {
            let file = fs::read_link(format!("/proc/{}/fd/{fd}", started.0.id())).unwrap();
            assert_eq!(file, Path::new("/dev/net/tun"));
        }
        eventually("it serves its API", || {
            started.assert_runs(&output);
            folder.join("api.sock").exists()
        });
        let tap = common::ip_link("vttap-mq");
        assert_eq!(tap["linkinfo"]["info_data"]["numqueues"], 2, "{tap}");
    });
}

/// The root directory that a jailer makes for a VM's Firecracker, with what its guest boots and the
/// folder of its sockets. A Firecracker that is no static program also gets its libraries.
fn jail(daemon: &Daemon, vm: &str) -> PathBuf {
    let program = vmm_program("firecracker");
    let jail = daemon.folder.join("jailer/firecracker").join(vm).join("root");
    fs::create_dir_all(&jail).unwrap();
    fs::copy(vmm_kernel(), jail.join("vmlinux")).unwrap();
    let folder = daemon.folder.join("run/vm").join(vm);
    let inside = jail.join(folder.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    run(&format!("mount --bind {} {}", folder.display(), inside.display()));
    if common::is_real() {
        let script = "for l in $(ldd \"$(command -v $0)\" | grep -o '/[^ ]*'); do \
                      install -D $l $1$l; done";
        let copied = Command::new("sh").args(["-c", script, &program]).arg(&jail).status();
        assert!(copied.unwrap().success());
    }
    jail
}

/// What `docs/SCRIPTS.md` says of the jailer: the tap by its name, the sockets where volnet says.
#[test]
fn a_jailed_firecracker_has_its_tap_and_its_sockets() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        open_kvm(&daemon);
        put_device(TUN.0, TUN.1, 0o600, 0);
        let program = match common::is_real() {
            true => run("which firecracker").trim().to_string(),
            false => stand_in("firecracker"),
        };
        for (vm, owner, user) in [("a", 300_001, 300_001), ("b", 300_002, 300_003)] {
            volnet(&daemon, &["create", vm, "--vsock", "--owner", &owner.to_string()]);
            let jail = jail(&daemon, vm);
            let mut config: Value =
                serde_json::from_str(&args(&daemon, vm, "firecracker")[0]).expect("JSON");
            config["boot-source"] = json!({ "kernel_image_path": "/vmlinux" });
            config["drives"] = json!([]);
            config["machine-config"] = json!({ "vcpu_count": 1, "mem_size_mib": 128 });
            fs::write(jail.join("fc.json"), config.to_string()).unwrap();
            let (output, user) = (daemon.folder.join("output"), user.to_string());
            let file = fs::File::create(&output).unwrap();
            let child = Command::new(vmm_program("jailer"))
                .args(["--id", vm, "--uid", &user, "--gid", &user, "--exec-file", &program])
                .arg("--chroot-base-dir")
                .arg(daemon.folder.join("jailer"))
                .args(["--", "--config-file", "/fc.json"])
                .stdin(Stdio::null())
                .stdout(file.try_clone().unwrap())
                .stderr(file)
                .spawn();
            let mut started = Started(child.expect("the jailer starts"));
            if vm == "b" {
                assert!(!started.0.wait().unwrap().success(), "it has the tap of another user");
                let said = fs::read_to_string(&output).unwrap();
                assert!(said.contains("Operation not permitted"), "{said}");
                continue;
            }
            let socket = daemon.folder.join("run/vm/a/vsock.sock");
            eventually("the guest is on its bridge", || {
                started.assert_runs(&output);
                run("ip -o link show dev vttap-a").contains("LOWER_UP") && socket.exists()
            });
            assert_eq!(fs::metadata(&socket).unwrap().uid(), owner);
            assert!(jail.join("run/firecracker.socket").exists(), "its API");
            let status = fs::read_to_string(format!("/proc/{}/status", started.0.id())).unwrap();
            assert!(status.contains(&format!("Uid:\t{owner}\t{owner}\t{owner}")), "{status}");
            // It sees its jail: the device that everybody else may not open is its own there.
            let of_jail = fs::metadata(jail.join("dev/net/tun")).unwrap();
            assert_eq!((of_jail.uid(), of_jail.permissions().mode() & 0o777), (owner, 0o600));
            // Nobody else's is the folder: the VM is gone with it.
            drop(started);
            run(&format!("umount {}{}", jail.display(), socket.parent().unwrap().display()));
            daemon.call("Delete", json!({ "name": vm }));
            assert!(!socket.parent().unwrap().exists());
        }
    });
}

#[test]
fn an_owner_is_for_hypervisors_that_others_start() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let refused = |config: Value| {
            let reply = daemon.call("Create", json!({ "name": "web", "config": config }));
            assert_eq!(reply["error"], "io.volnet.InvalidConfig", "{reply}");
            reply["parameters"]["field"].as_str().unwrap().to_string()
        };
        let machine = json!({ "hypervisor": "qemu", "owner": { "uid": 1000 } });
        assert_eq!(refused(machine), "owner");
        assert_eq!(refused(json!({ "owner": { "gid": 1000 } })), "owner.uid");
        assert_eq!(refused(json!({ "owner": { "uid": u32::MAX } })), "owner.uid");
        let shown = volnet(&daemon, &["create", "web", "--owner", "1000:50"]);
        assert!(shown.contains("owner        1000:50\n"), "{shown}");
    });
}

/// What `check` says of a device: its level and its message.
fn checked(daemon: &Daemon, device: &str) -> (String, String) {
    let findings = daemon.call("Check", json!({}))["parameters"]["findings"].take();
    let of = findings.as_array().unwrap().iter().find(|finding| finding["check"] == device);
    let of = of.unwrap_or_else(|| panic!("nothing of {device}: {findings}"));
    (of["level"].as_str().unwrap().into(), of["message"].as_str().unwrap().into())
}

#[test]
fn check_looks_at_devices_with_the_rights_of_hypervisors() {
    for (mode, group, level, words) in [
        (0o600, 0, "warning", "user nobody may not open it"),
        (0o660, 6789, "ok", "it can be opened"),
        (0o666, 0, "ok", "it can be opened"),
    ] {
        in_namespace(|| {
            let daemon = Daemon::configured(&json!({
                "hypervisor_user": "nobody",
                "hypervisors": { "firecracker": { "program": stand_in("firecracker") } }
            }));
            copy_devices(&daemon.folder);
            for (device, numbers) in [TUN, KVM] {
                // A device without a driver cannot be opened by anyone.
                let numbers = if device == KVM.0 { (1, 3) } else { numbers };
                put_device(device, numbers, mode, group);
                let (is, message) = checked(&daemon, device);
                assert_eq!(is, level, "{device}: {message}");
                assert!(message.contains(words), "{device}: {message}");
            }
        });
    }
}

#[test]
fn a_hypervisor_that_needs_kvm_is_refused_where_the_settings_forbid_it() {
    in_namespace(|| {
        let daemon = Daemon::start(&["--kvm", "no"]);
        for vmm in ["cloud-hypervisor", "firecracker"] {
            let kernel = env!("CARGO_BIN_EXE_volnet");
            let config = json!({ "hypervisor": vmm, "kernel_override": kernel });
            let made = daemon.call("Create", json!({ "name": vmm, "config": config }));
            assert_eq!(made["error"], Value::Null, "{made}");
            let started = daemon.call("Start", json!({ "name": vmm }));
            assert_eq!(started["error"], "io.volnet.InvalidConfig", "{started}");
            assert!(started.to_string().contains("the settings say kvm: false"), "{started}");
            assert_eq!(started["parameters"]["field"], "hypervisor");
        }
    });
}

#[test]
fn vhost_net_that_cannot_be_had_is_refused_and_told_by_check() {
    in_namespace(|| {
        let daemon = Daemon::configured(&json!({
            "hypervisor_user": "nobody",
            "hypervisors": { "qemu": { "vhost_net": true } }
        }));
        copy_devices(&daemon.folder);
        // A device without a driver cannot be opened by anyone.
        put_device("/dev/vhost-net", (1, 3), 0o600, 0);
        let (level, message) = checked(&daemon, "/dev/vhost-net");
        assert_eq!(level, "warning", "{message}");
        assert!(message.contains("user nobody may not open it"), "{message}");
        let config = json!({ "hypervisor": "qemu", "kernel_override": "/etc/hostname" });
        let parameters = json!({ "name": "web", "start": true, "config": config });
        let refused = daemon.call("Create", parameters);
        assert_eq!(refused["parameters"]["field"], "hypervisor", "{refused}");
        let reason = refused["parameters"]["reason"].as_str().unwrap();
        assert!(reason.contains("user nobody cannot open /dev/vhost-net"), "{reason}");
        // A guest without a network needs none. It is not refused for that, but for its kernel.
        let config = json!({
            "hypervisor": "qemu",
            "kernel_override": "/nonexistent",
            "network": { "mode": "vsock" },
        });
        let parameters = json!({ "name": "web", "start": true, "config": config });
        let refused = daemon.call("Create", parameters);
        assert_eq!(refused["parameters"]["field"], "kernel_override", "{refused}");
        put_device("/dev/vhost-net", (1, 3), 0o666, 0);
        assert_eq!(checked(&daemon, "/dev/vhost-net").0, "ok");
    });
}

/// The frequency of the processor in kHz, without which some guests hang in emulation.
fn tsc() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = cpuinfo.lines().find(|line| line.starts_with("cpu MHz"));
    let mhz = line.and_then(|line| line.split(':').nth(1)?.trim().parse::<f64>().ok());
    mhz.map(|mhz| format!("tsc_early_khz={}", (mhz * 1000.0) as u64)).unwrap_or_default()
}

/// What the documentation says of a hypervisor of one's own, word for word.
#[test]
fn a_guest_of_a_user_without_rights_has_its_address_and_both_queues() {
    let mut lab = Lab::new();
    lab.volnet(&["create", "db", "--queues", "2"]);
    let ip = lab.vm("db")["ip"].as_str().unwrap().to_string();
    let kernel_args = lab.volnet(&["args", "db", "--kernel-args"]);
    assert_eq!(kernel_args.trim(), lab.vm("db")["kernel_args"]);
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/guest");
    let (kernel, initramfs) = (guest.join("vmlinux"), guest.join("initramfs"));
    let cmdline = format!(
        "console=ttyS0 quiet panic=-1 {} {{kernel_args}} volnet.do=ping:gateway,hold",
        tsc()
    );
    let socket = format!("{}/run/volnet.sock", lab.folder().display());
    let nobody = NOBODY.to_string();
    let volnet = [env!("CARGO_BIN_EXE_volnet"), "exec", "db", "--socket", &socket, "--"];
    let user = ["setpriv", "--reuid", &nobody, "--regid", &nobody, "--clear-groups"];
    let qemu = ["--no-new-privs", "qemu-system-x86_64", "-machine", "microvm,accel=tcg"];
    let machine = ["-cpu", "max", "-m", "128M", "-smp", "2", "-nodefaults", "-no-user-config"];
    let output = ["-no-reboot", "-display", "none", "-serial", "stdio"];
    let files =
        ["-kernel", kernel.to_str().unwrap(), "-initrd", initramfs.to_str().unwrap(), "-append"];
    let network = [
        &cmdline,
        "-netdev",
        "tap,id=net0,fds={fd0}:{fd1}",
        "-device",
        "virtio-net-device,netdev=net0,mac={mac},mq=on",
    ];
    let words = [&volnet[..], &user, &qemu, &machine, &output, &files, &network].concat();
    lab.spawn(&words, "guest");
    lab.wait_for("the guest", || lab.output_of("guest").contains("GUEST ready").then_some(()));
    let said = lab.output_of("guest");
    assert!(said.contains("GUEST ping 192.168.127.1: ok"), "{said}");
    lab.on_host(&["ping", "-c", "2", "-i", "0.2", "-W", "5", &ip]);
    let queues = lab.on_host(&["ip", "-d", "-j", "link", "show", "dev", "vttap-db"]);
    let queues: Value = serde_json::from_str(&queues).unwrap();
    assert_eq!(queues[0]["linkinfo"]["info_data"]["numqueues"], 2, "{queues}");
}
