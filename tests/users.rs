//! VMs that have users for themselves. The tests read `/proc`, the owners of files and of taps, and
//! attack one VM with the rights of another. Stand-ins play the hypervisors (`tests/vmm`).

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use common::daemon::Daemon;
use common::{in_namespace, ip_link, run};

/// Who has the files of VMs, and is the user of those hypervisors that have no other.
const SHARED: u32 = 65534;
/// The first user of the range that the tests set.
const FIRST: u32 = 300_000;

/// What a process can do to a VM: its disk, the folder and the socket of its hypervisor, the
/// process itself, and its control group.
const ATTACK: &str = r#"
import errno, json, os, socket, sys
disk, folder, pid, group = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
def tried(act):
    try:
        act()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps([
    tried(lambda: open(disk, "rb")),
    tried(lambda: open(disk, "r+b")),
    tried(lambda: os.listdir(folder)),
    tried(lambda: socket.socket(socket.AF_UNIX).connect(folder + "/api.sock")),
    tried(lambda: os.kill(pid, 0)),
    tried(lambda: open(f"/proc/{pid}/environ").read()),
    tried(lambda: open(group + "/cgroup.procs", "w").write("0")),
    tried(lambda: open(group + "/cgroup.freeze", "w").write("1")),
]))
"#;

/// A daemon with stand-ins, and files in places that every user reaches.
fn daemon(settings: Value) -> Daemon {
    let mut daemon = Daemon::without(&[]);
    let stand_ins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmm");
    for file in ["vmm.py", "firecracker", "cloud-hypervisor"] {
        fs::copy(stand_ins.join(file), daemon.folder.join(file)).expect("a program");
    }
    // The stand-ins take any ELF file for a kernel.
    let kernel = daemon.folder.join("kernel");
    fs::copy("/bin/true", &kernel).expect("a kernel");
    let mut all = json!({
        "hypervisor_user": SHARED.to_string(),
        "vm_uids": format!("{FIRST}-{}", FIRST + 99),
        "kernel_vmlinux": kernel,
        "hypervisors": {
            "firecracker": { "program": daemon.folder.join("firecracker") },
            "cloud-hypervisor": { "program": daemon.folder.join("cloud-hypervisor") },
        },
    });
    let settings = settings.as_object().expect("settings").clone();
    all.as_object_mut().expect("settings").extend(settings);
    fs::write(daemon.folder.join("config.json"), all.to_string()).expect("settings");
    // As most hosts have them: everybody may open them, and a tap has an owner.
    for (name, device, number) in [("tun", "/dev/net/tun", "10 200"), ("kvm", "/dev/kvm", "10 232")]
    {
        let node = daemon.folder.join(name);
        run(&format!("mknod -m 666 {} c {number}", node.display()));
        if Path::new(device).exists() {
            run(&format!("mount --bind {} {device}", node.display()));
        }
    }
    daemon.start_again();
    daemon
}

/// Gives the daemon a control group, which no other test has, for those of its VMs.
fn give_cgroup(daemon: &mut Daemon) -> PathBuf {
    let mount = daemon.folder.join("cgroup");
    fs::create_dir(&mount).expect("a directory");
    run(&format!("mount -t cgroup2 none {}", mount.display()));
    let root = mount.join(daemon.folder.file_name().expect("a name"));
    // The daemon has no right of root's on files, and the whole tree may be somebody else's.
    fs::create_dir(&root).expect("a control group");
    let file = daemon.folder.join("config.json");
    let settings = fs::read_to_string(&file).expect("settings");
    let mut settings: Value = serde_json::from_str(&settings).expect("JSON");
    settings["cgroup"] = json!(root);
    fs::write(&file, settings.to_string()).expect("settings");
    daemon.crash();
    daemon.start_again();
    root
}

/// A disk that belongs to a user, and that everybody may read.
fn disk(daemon: &Daemon, name: &str, uid: u32) -> PathBuf {
    let path = daemon.folder.join(name);
    fs::write(&path, vec![0; 4096]).expect("a disk");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a disk");
    chown(&path, Some(uid), Some(uid)).expect("a disk");
    path
}

fn owner(path: &Path) -> (u32, u32) {
    let file = fs::metadata(path).expect("a file");
    (file.uid(), file.mode() & 0o777)
}

/// The parameters of a VM with a disk, under a hypervisor.
fn machine(name: &str, hypervisor: &str, disk: &Path, run_as: &str) -> Value {
    json!({
        "name": name,
        "start": true,
        "config": {
            "hypervisor": hypervisor,
            "run_as": run_as,
            "initramfs": { "url": "/etc/hostname" },
            "resources": { "memory_mb": 64 },
        },
        "manifest": { "disks": [{ "source": disk }] },
    })
}

/// A field of `/proc/PID/status`.
fn status(pid: &Value, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.expect("a field").trim().to_string()
}

/// What somebody who has taken over the hypervisor of one VM can do to another.
fn attack(daemon: &Daemon, uid: &Value, disk: &Path, victim: &Value, group: &Path) -> Value {
    let output = Command::new("setpriv")
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={uid}"))
        .args(["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .args(["/usr/bin/python3", "-c", ATTACK])
        .args([disk, &folder(daemon, victim)])
        .arg(victim["pid"].to_string())
        .arg(group)
        .output()
        .expect("setpriv runs");
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}

fn folder(daemon: &Daemon, vm: &Value) -> PathBuf {
    daemon.folder.join("run/vm").join(vm["name"].as_str().expect("a name"))
}

#[test]
fn a_hypervisor_reaches_its_own_vm_and_no_other() {
    in_namespace(|| {
        let mut daemon = daemon(json!({}));
        let root = give_cgroup(&mut daemon);
        let disks = ["a.img", "b.img"].map(|name| disk(&daemon, name, SHARED));
        let vms = [("a", "firecracker"), ("b", "cloud-hypervisor")].map(|(name, hypervisor)| {
            let disk = &disks[usize::from(name == "b")];
            daemon.create(machine(name, hypervisor, disk, "own"))
        });
        let uids = vms.each_ref().map(|vm| vm["uid"].clone());
        assert_eq!(uids, [json!(FIRST), json!(FIRST + 1)]);
        let check = |daemon: &Daemon, vms: &[Value; 2]| {
            for (at, vm) in vms.iter().enumerate() {
                let (uid, other) = (&uids[at], &uids[1 - at]);
                assert_eq!(status(&vm["pid"], "Uid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
                assert_eq!(status(&vm["pid"], "Gid"), format!("{uid}\t{uid}\t{uid}\t{uid}"));
                assert_eq!(status(&vm["pid"], "CapPrm"), "0000000000000000");
                assert_eq!(owner(&disks[at]), (uid.as_u64().unwrap() as u32, 0o600));
                assert_eq!(owner(&folder(daemon, vm)).0, owner(&disks[at]).0);
                let group = root.join(format!("vm-{}", vm["name"].as_str().expect("a name")));
                let members = fs::read_to_string(group.join("cgroup.procs")).expect("a group");
                assert_eq!(members, format!("{}\n", vm["pid"]), "alone in a group of its own");
                let attack = |uid: &Value| attack(daemon, uid, &disks[at], vm, &group);
                // What fails for the others works for itself. Its group is nobody's but root's.
                let works = ["ok", "ok", "ok", "ok", "ok", "ok", "EACCES", "EACCES"];
                assert_eq!(attack(uid), json!(works));
                let denied =
                    ["EACCES", "EACCES", "EACCES", "EACCES", "EPERM", "EACCES", "EACCES", "EACCES"];
                for attacker in [other, &json!(SHARED)] {
                    assert_eq!(attack(attacker), json!(denied), "{attacker}");
                }
            }
        };
        check(&daemon, &vms);
        // Firecracker opens its tap by name, so its user has it. Others are handed theirs open.
        let tap = |name: &str| ip_link(name)["linkinfo"]["info_data"]["user"].clone();
        assert_eq!((tap("vttap-a"), tap("vttap-b")), (json!(FIRST), json!("root")));

        daemon.crash();
        daemon.start_again();
        let shown =
            |name: &str| daemon.call("Get", json!({ "name": name }))["parameters"]["vm"].take();
        let again = [shown("a"), shown("b")];
        assert_eq!(again.each_ref().map(|vm| &vm["pid"]), vms.each_ref().map(|vm| &vm["pid"]));
        check(&daemon, &again);
        for name in ["a", "b"] {
            daemon.call("Delete", json!({ "name": name, "timeout_ms": 0 }));
        }
        fs::remove_dir(&root).expect("no group is left in it");
    });
}

#[test]
fn a_disk_is_one_vms_until_that_is_deleted() {
    in_namespace(|| {
        let mut daemon = daemon(json!({ "run_as": "own" }));
        let disk = disk(&daemon, "disk.img", SHARED);
        let named = |name: &str, run_as: &str| machine(name, "firecracker", &disk, run_as);
        let mut says_nothing = named("a", "own");
        says_nothing["config"].as_object_mut().unwrap().remove("run_as");
        assert_eq!(daemon.create(says_nothing)["uid"], FIRST, "the settings say so");
        daemon.call("Stop", json!({ "name": "a", "timeout_ms": 1000 }));
        assert_eq!(owner(&disk).0, FIRST, "while the VM exists, it has its disk");
        for run_as in ["own", "shared"] {
            let answer = daemon.call("Create", named("b", run_as));
            assert_eq!(answer["parameters"]["field"], "disks", "{answer}");
        }
        daemon.crash();
        daemon.start_again();
        daemon.call("Delete", json!({ "name": "a" }));
        assert_eq!(owner(&disk), (SHARED, 0o600));
        let next = daemon.create(named("b", "own"));
        assert_eq!(next["uid"], FIRST + 1, "the one that was given back last comes last");
        daemon.call("Delete", json!({ "name": "b", "timeout_ms": 0 }));
        let shared = daemon.create(named("d", "shared"));
        assert!(shared["uid"].is_null(), "{shared}");
        assert_eq!(status(&shared["pid"], "Uid").split('\t').next(), Some("65534"));
    });
}

/// A file of others is not given to a VM because somebody names it.
#[test]
fn a_disk_of_others_stays_theirs() {
    in_namespace(|| {
        let daemon = daemon(json!({}));
        let (theirs, link) = (disk(&daemon, "theirs", 1234), daemon.folder.join("link"));
        std::os::unix::fs::symlink(&theirs, &link).expect("a link");
        for path in [&theirs, &link] {
            let answer = daemon.call("Create", machine("a", "firecracker", path, "own"));
            assert_eq!(answer["parameters"]["field"], "disks", "{answer}");
            assert_eq!(owner(&theirs), (1234, 0o644));
        }
        let fixed = daemon.create(machine("b", "firecracker", &theirs, "1234"));
        assert_eq!(fixed["uid"], 1234);
        daemon.call("Delete", json!({ "name": "b", "timeout_ms": 0 }));
        assert_eq!(owner(&theirs), (1234, 0o644), "it was theirs before");
        for (run_as, word) in
            [("root", "would have the host"), ("nobody-at-all", "no user"), ("300005", "vm_uids")]
        {
            let answer = daemon.call("Create", machine("c", "firecracker", &theirs, run_as));
            assert_eq!(answer["parameters"]["field"], "run_as", "{answer}");
            assert!(answer["parameters"]["reason"].as_str().unwrap().contains(word), "{answer}");
        }
    });
}
