//! What guests have beside files and networks: devices, memory, and disks with limits. QEMU and its
//! guests are real.

#![cfg(target_os = "linux")]

mod lab;

use std::fs::{self, File};
use std::os::unix::fs::chown;

use lab::{HYPERVISOR_USER, Lab, WORLD_IP};

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

#[test]
fn a_disk_is_read_no_faster_than_its_limit() {
    let lab = Lab::new();
    let disk = lab.folder().join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(16 << 20)).expect("a disk");
    chown(&disk, Some(HYPERVISOR_USER.parse().expect("a number")), None).expect("a disk");
    let words = format!("{},mb=4,iops=1000", disk.display());
    lab.run_guest("web", &["--disk", &words], "volnet.do=read:vda:12,hold");
    let line = lab.wait_for_line("web", "GUEST read vda 12 from");
    let seconds: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [_, from, to] = seconds.try_into().unwrap_or_else(|_| panic!("{line}"));
    // It may begin with a tenth of a second's worth.
    assert!(to - from > 2.5, "12 MiB at 4 MB/s: {line}");
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
    assert!(!output.status.success() && error.contains("ended with status 1"), "{error}");
    assert!(error.contains("memory"), "{error}");
}
