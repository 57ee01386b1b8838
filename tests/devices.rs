//! What guests have beside files and networks: devices, memory, and disks with limits. QEMU and its
//! guests are real.

#![cfg(target_os = "linux")]

mod lab;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use lab::{HYPERVISOR_USER, Lab, WORLD_IP};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

/// The port that opens in the world when a guest is to go on.
const GO: &str = "9";

/// The memory of a process that is resident, in MiB.
fn resident(pid: &serde_json::Value) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a field");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn a_guest_has_random_numbers_and_gives_memory_back() {
    let mut lab = Lab::new();
    let orders = format!("volnet.do=rng,fill:64,ping-until:{WORLD_IP}:{GO},free,hold");
    lab.run_guest("web", &["--rng", "--balloon", "--memory", "256"], &orders);
    let rng = lab.wait_for_line("web", "GUEST rng");
    assert!(rng.contains("rng virtio_rng.0: 16 bytes"), "{rng}");
    lab.wait_for_line("web", "GUEST pinging");
    let pid = lab.vm("web")["pid"].clone();
    let before = resident(&pid);
    lab.open_in_world(GO);
    lab.wait_for_line("web", "GUEST freed");
    lab.wait_for("half of it", || (resident(&pid) + 32 <= before).then_some(()));
}

/// docs/interop/qmp-spec.rst of QEMU: capabilities first, then commands.
const QUERY_BLOCK: &str = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-block\"}\n";

#[test]
fn a_disk_is_read_within_its_limit() {
    let lab = Lab::new();
    let disk = lab.folder().join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(16 << 20)).expect("a disk");
    chown(&disk, Some(HYPERVISOR_USER.parse().expect("a number")), None).expect("a disk");
    let words = format!("{},mb=4,iops=1000", disk.display());
    lab.run_guest("web", &["--disk", &words], "volnet.do=read:vda:12,hold");
    lab.wait_for_line("web", "GUEST read vda 12 from");
    // The guest's clock may stand still on a busy host, so QEMU is asked what it keeps to.
    let path = lab.folder().join("run/vm/web/qmp.sock");
    let mut socket = UnixStream::connect(path).expect("a socket");
    socket.write_all(QUERY_BLOCK.as_bytes()).expect("a request");
    let answers = BufReader::new(&socket).lines().map(|line| line.expect("an answer"));
    let told = answers.into_iter().find(|line| line.contains("disk0")).expect("the disk");
    for limit in [r#""bps": 4000000"#, r#""iops": 1000"#] {
        assert!(told.contains(limit), "{told}");
    }
}

/// A file system of its own, in memory.
struct Small(PathBuf);

impl Small {
    fn new(path: PathBuf) -> Small {
        fs::create_dir(&path).expect("a directory");
        Small::mount(&path, MsFlags::empty(), "size=4m,mode=755");
        Small(path)
    }

    fn grow(&self) {
        Small::mount(&self.0, MsFlags::MS_REMOUNT, "size=64m");
    }

    fn mount(path: &Path, flags: MsFlags, options: &str) {
        mount(Some("small"), path, Some("tmpfs"), flags, Some(options)).expect("a file system");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_guest_whose_disk_has_no_room_is_paused_and_goes_on_when_there_is_some() {
    let mut lab = Lab::new();
    lab.stop_daemon();
    let small = Small::new(lab.folder().join("small"));
    lab.start_daemon();
    let disk = small.0.join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(16 << 20)).expect("a disk");
    chown(&disk, Some(HYPERVISOR_USER.parse().expect("a number")), None).expect("a disk");
    let disk = disk.display().to_string();
    lab.run_guest("web", &["--disk", &disk], "volnet.do=overwrite:vda:8,hold");
    let full = format!("the host has no room for {disk}: make room, and resume it");
    let await_halt = |lab: &Lab| {
        lab.wait_for("the halt", || (lab.vm("web")["last_error"] == *full).then_some(()));
        assert_eq!(lab.vm("web")["status"], "paused");
    };
    await_halt(&lab);
    assert!(lab.volnet(&["list"]).contains("paused"));
    let warning = "WARN  volnet::daemon::report: VM web stands still";
    let told = |lab: &Lab| lab.output_of("daemon").matches(warning).count();
    assert_eq!(told(&lab), 1, "{}", lab.output_of("daemon"));
    // The next daemon finds it so.
    lab.crash_daemon();
    lab.start_daemon();
    await_halt(&lab);
    // Without room it tries again. The answer may come before that has failed.
    let tried = lab.run(&["resume", "web"]);
    let error = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success() || error.contains(&full), "{error}");
    lab.wait_for("the next try", || (told(&lab) == 3).then_some(()));
    await_halt(&lab);
    small.grow();
    assert!(lab.volnet(&["resume", "web"]).contains("web: running"));
    lab.wait_for_line("web", "GUEST overwrote vda 8");
    let vm = lab.vm("web");
    assert_eq!((&vm["status"], &vm["last_error"]), (&"running".into(), &Value::Null), "{vm}");
    lab.volnet(&["delete", "web", "--timeout", "1"]);
}

#[test]
fn a_guest_that_somebody_pauses_at_its_hypervisor_is_paused() {
    let lab = Lab::new();
    lab.run_guest("web", &[], "volnet.do=hold");
    let mut socket =
        UnixStream::connect(lab.folder().join("run/vm/web/qmp.sock")).expect("a socket");
    socket.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").expect("a request");
    for (order, status) in [("stop", "paused"), ("cont", "running"), ("stop", "paused")] {
        writeln!(socket, "{{\"execute\":\"{order}\"}}").expect("a request");
        lab.wait_for(status, || (lab.vm("web")["status"] == status).then_some(()));
        assert_eq!(lab.vm("web")["last_error"], Value::Null);
    }
}

/// The processes with a mark of this VM, by their names.
fn helpers_of(lab: &Lab, vm: &str) -> Vec<(u32, String)> {
    let runtime = format!("VOLNET_RUNTIME={}/run", lab.folder().display());
    let mark = format!("VOLNET_HELPER={vm}");
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let has = |word: &str| environment.split(|byte| *byte == 0).any(|it| it == word.as_bytes());
        has(&mark) && has(&runtime)
    };
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.filter(marked).map(|pid| (pid, name(pid).trim_end().to_string())).collect()
}

#[test]
fn a_guest_reads_and_writes_directories_of_the_host() {
    let settings = r#"{ "hypervisors": { "qemu": { "share_helper": "virtiofsd" } } }"#;
    let mut lab = Lab::configured(settings);
    let user: u32 = HYPERVISOR_USER.parse().expect("a number");
    for folder in ["data", "tools"] {
        let folder = lab.folder().join(folder);
        fs::create_dir(&folder).expect("a directory");
        fs::write(folder.join("of-the-host"), "").expect("a file");
        chown(&folder, Some(user), Some(user)).expect("a directory");
    }
    let share = |tag: &str, more: &str| format!("{tag}={}/{tag}{more}", lab.folder().display());
    let (data, tools) = (share("data", ""), share("tools", ",readonly"));
    let orders = "volnet.do=mount:data,write:/data/new,mount:tools,write:/tools/new,hold";
    lab.run_guest("web", &["--share", &data, "--share", &tools], orders);
    lab.wait_for_line("web", "GUEST data has /data/of-the-host");
    lab.wait_for_line("web", "GUEST wrote /data/new");
    lab.wait_for_line("web", "GUEST tools has /tools/of-the-host");
    lab.wait_for_line("web", "GUEST write /tools/new: FAILED");
    let written = lab.folder().join("data/new");
    assert_eq!(fs::read_to_string(&written).expect("a file"), "guest\n");
    assert_eq!(fs::metadata(&written).expect("a file").uid(), user);

    // The helpers are as the hypervisor is, and outlive the daemon.
    let helpers = helpers_of(&lab, "web");
    let names: Vec<&str> = helpers.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["virtiofsd", "virtiofsd"]);
    for (pid, _) in &helpers {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        for line in
            [format!("Uid:\t{user}\t{user}\t{user}\t{user}"), "CapPrm:\t0000000000000000".into()]
        {
            assert!(status.lines().any(|it| it == line), "{status}");
        }
    }
    lab.crash_daemon();
    lab.start_daemon();
    assert_eq!(helpers_of(&lab, "web"), helpers);
    lab.volnet(&["delete", "web", "--timeout", "1"]);
    assert_eq!(helpers_of(&lab, "web"), []);
}

/// Also where the hypervisor ends while no daemon runs.
#[test]
fn helpers_end_with_their_hypervisor() {
    let settings = r#"{ "hypervisors": { "qemu": { "share_helper": "virtiofsd" } } }"#;
    let mut lab = Lab::configured(settings);
    let share = format!("data={}", lab.folder().display());
    lab.run_guest("web", &["--share", &share], "volnet.do=mount:data,hold");
    lab.wait_for_line("web", "GUEST ready");
    let pid = lab.vm("web")["pid"].to_string();
    assert_eq!(helpers_of(&lab, "web").len(), 1);
    lab.crash_daemon();
    lab.on_host(&["kill", "-9", &pid]);
    lab.start_daemon();
    assert_eq!((&lab.vm("web")["status"], helpers_of(&lab, "web")), (&"crashed".into(), vec![]));
    let nowhere = lab.run(&[
        "run",
        "other",
        "--hypervisor",
        "qemu",
        "--kernel",
        &lab::guest_file("vmlinux"),
        "--share",
        "data=/nowhere",
    ]);
    let error = String::from_utf8_lossy(&nowhere.stderr);
    assert!(error.contains("shares: /nowhere: No such file or directory"), "{error}");
}

#[test]
fn a_host_without_so_many_huge_pages_is_told_of() {
    let lab = Lab::new();
    let (kernel, initramfs) = (lab::guest_file("vmlinux"), lab::guest_file("initramfs"));
    // More than any host has.
    let command = ["run", "web", "--hypervisor", "qemu", "--hugepages", "--memory", "16777216"];
    let files = ["--kernel", &kernel, "--initramfs", &initramfs];
    let output = lab.run(&[&command[..], &files].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    assert!(
        error.contains("the VM needs 8388608 huge pages of 2 MiB, and the host has"),
        "{error}"
    );
}
