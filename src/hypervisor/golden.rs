//! Every driver in every mode against a whole command line in `tests/golden/hypervisor`, in the
//! syntax of a shell. Files and helpers come after it.

use std::fs;
use std::path::{Path, PathBuf};

use super::template::Template;
use super::*;
use crate::model::spec::{Disk, DiskCache, DiskFormat, DiskLimits, File, Share};

/// The tap of the VM in these tests.
const PORT: LaunchNic = LaunchNic {
    tap: "vttap-web1",
    mac: Mac([2, 0, 0, 0, 0, 5]),
    queues: 1,
    mtu: 1500,
    fds: &[],
    lease: None,
};
const LEASE: (Ipv4Addr, Ipv4Addr) =
    (Ipv4Addr::new(192, 168, 127, 5), Ipv4Addr::new(255, 255, 255, 0));
const KERNEL_ARGS: &str = "ip=192.168.127.5::192.168.127.1:255.255.255.0:web1:eth0:off";

fn file(path: &str) -> File {
    File { path: path.into(), sha256: None }
}

fn disk(path: &str, format: DiskFormat, readonly: bool) -> Disk {
    Disk { file: file(path), format, readonly, ..Disk::default() }
}

/// A VM whose root file system is its initramfs.
fn appliance() -> MachineSpec {
    MachineSpec {
        initramfs: Some(file("/srv/web.cpio.gz")),
        cpus: 1,
        memory_mb: 128,
        ..MachineSpec::default()
    }
}

/// A VM with disks.
fn server() -> MachineSpec {
    MachineSpec {
        initramfs: None,
        disks: vec![
            disk("/srv/root.img", DiskFormat::Raw, false),
            disk("/srv/data.img", DiskFormat::Raw, true),
        ],
        cpus: 2,
        memory_mb: 1024,
        cmdline: "root=/dev/vda rw loglevel=7".into(),
        args: Vec::new(),
        ..appliance()
    }
}

fn launch(machine: &MachineSpec) -> Launch<'_> {
    Launch {
        name: "web1",
        machine,
        kernel: Path::new("/boot/vmlinux"),
        nics: &[PORT],
        cid: 3,
        vsock: false,
        kernel_args: "",
        folder: "/run/volnet/machines/web1".into(),
        vhost_vsock: false,
        architecture: Architecture::X86_64,
        kvm: true,
        tsc_khz: Some(2_100_000),
        memory: None,
        saved: None,
    }
}

fn bridged(machine: &MachineSpec) -> Launch<'_> {
    const LEASED: LaunchNic = LaunchNic { lease: Some(LEASE), ..PORT };
    Launch { nics: &[LEASED], kernel_args: KERNEL_ARGS, ..launch(machine) }
}

fn vsock(machine: &MachineSpec) -> Launch<'_> {
    Launch { nics: &[], ..launch(machine) }
}

fn template() -> Template {
    let group = |words: &[&str]| words.iter().map(|word| String::from(*word)).collect();
    let groups = vec![
        group(&["run", "--name={name}", "--cpus", "{cpus}", "--memory", "{memory_mb}"]),
        group(&["--kernel", "{kernel}", "--append", "{cmdline}", "--log", "{log}"]),
        group(&["--initrd", "{initramfs}"]),
        group(&["--disk", "{disk}:{disk_format}:ro={disk_readonly}"]),
        group(&["--net", "{{tap={tap},mac={mac},queues={queues}}}"]),
        group(&["--lease", "{ip}/{netmask}"]),
        group(&["--vsock", "{vsock_cid}:{vsock_socket}"]),
    ];
    Template::new("other".into(), "/opt/other/vmm".into(), groups, None).unwrap()
}

fn options() -> Options {
    let qemu = QemuOptions::of(QemuMachine::Microvm);
    Options { qemu, templates: vec![template()], ..Options::default() }
}

/// A word in the syntax of a shell.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A command in the syntax of a shell, one option per line.
fn shown(command: &HypervisorCommand) -> String {
    let mut text = command.program.clone();
    for arg in &command.args {
        text += if arg.starts_with('-') { " \\\n  " } else { " " };
        text += &quoted(arg);
    }
    text += &format!("\n# control: {:?}\n", command.control);
    if let Some(directory) = &command.directory {
        text += &format!("# directory: {}\n", directory.display());
    }
    for (path, target) in &command.links {
        text += &format!("# link {} to {}\n", path.display(), target.display());
    }
    for (path, contents) in &command.files {
        let contents = String::from_utf8_lossy(contents);
        text += &format!("# file {}:\n{contents}\n", path.display());
    }
    for helper in &command.helpers {
        text +=
            &format!("# before it, until {} is there:\n", helper.ready.as_ref().unwrap().display());
        text += &shown(helper);
    }
    text
}

fn check(case: &str, hypervisor: &str, launch: &Launch, options: &Options) {
    let command = command_line(hypervisor, launch, options).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hypervisor");
    let golden = path.join(format!("{hypervisor}-{case}.txt"));
    let expected = fs::read_to_string(&golden).unwrap();
    assert_eq!(shown(&command), expected, "{}", golden.display());
}

#[test]
fn every_driver_in_every_mode() {
    let (appliance, server, options) = (appliance(), server(), options());
    for hypervisor in [QEMU, CLOUD_HYPERVISOR, FIRECRACKER, "other"] {
        for (media, machine) in [("initramfs", &appliance), ("disks", &server)] {
            let check = |mode: &str, launch: &Launch| {
                check(&format!("{mode}-{media}"), hypervisor, launch, &options);
            };
            check("bridged", &bridged(machine));
            check("dhcp", &launch(machine));
            check("vsock", &vsock(machine));
        }
    }
}

#[test]
fn every_driver_with_a_seed_disk() {
    let (mut appliance, options) = (appliance(), options());
    appliance.disks.push(seed::disk(&launch(&appliance).folder));
    for hypervisor in [QEMU, CLOUD_HYPERVISOR, FIRECRACKER, "other"] {
        check("seed", hypervisor, &bridged(&appliance), &options);
    }
}

/// A VM with all that a guest may have beside its files and networks.
fn equipped() -> MachineSpec {
    let share =
        |tag: &str, path: &str, readonly| Share { tag: tag.into(), path: path.into(), readonly };
    let shares = vec![share("data", "/srv/data", false), share("tools", "/srv/tools", true)];
    MachineSpec { hugepages: true, balloon: true, rng: true, shares, ..appliance() }
}

#[test]
fn every_driver_with_all_devices() {
    let (equipped, options) = (equipped(), options());
    for hypervisor in [QEMU, CLOUD_HYPERVISOR] {
        check("devices", hypervisor, &launch(&equipped), &options);
    }
    let shares = MachineSpec { shares: equipped.shares.clone(), ..appliance() };
    refused(FIRECRACKER, &launch(&shares), "shares");
    let others = MachineSpec { shares: Vec::new(), ..equipped };
    check("devices", FIRECRACKER, &launch(&others), &options);
    let of = |cache, limits| MachineSpec {
        disks: vec![Disk { cache, limits, ..disk("/srv/data.img", DiskFormat::Raw, false) }],
        ..appliance()
    };
    let limits = DiskLimits { mb: Some(50), iops: Some(1000) };
    for (hypervisor, cache) in [
        (QEMU, DiskCache::None),
        (CLOUD_HYPERVISOR, DiskCache::None),
        (FIRECRACKER, DiskCache::Unsafe),
    ] {
        check("limited-disk", hypervisor, &launch(&of(cache, limits)), &options);
    }
    let none = DiskLimits::default();
    refused(CLOUD_HYPERVISOR, &launch(&of(DiskCache::Unsafe, none)), "disks.cache");
    refused(FIRECRACKER, &launch(&of(DiskCache::None, none)), "disks.cache");
    for (field, machine) in [
        ("disks.cache", of(DiskCache::None, none)),
        ("disks.limits", of(DiskCache::Writeback, limits)),
        ("resources.hugepages", MachineSpec { hugepages: true, ..appliance() }),
        ("resources.balloon", MachineSpec { balloon: true, ..appliance() }),
        ("rng", MachineSpec { rng: true, ..appliance() }),
        ("shares", shares),
    ] {
        refused("other", &launch(&machine), field);
    }
}

#[test]
fn every_driver_with_several_nics() {
    const SECOND: LaunchNic =
        LaunchNic { tap: "vttap-web1f0", mac: Mac([2, 0, 0, 0, 0, 6]), lease: None, ..PORT };
    const BOTH: [LaunchNic; 2] = [LaunchNic { lease: Some(LEASE), ..PORT }, SECOND];
    let (appliance, server, options) = (appliance(), server(), options());
    let launch = Launch { nics: &BOTH, ..bridged(&appliance) };
    for hypervisor in [QEMU, CLOUD_HYPERVISOR, FIRECRACKER, "other"] {
        check("two-nics", hypervisor, &launch, &options);
    }
    let open = [LaunchNic { fds: &[9], ..PORT }, LaunchNic { queues: 2, fds: &[10, 11], ..SECOND }];
    let launch = Launch { nics: &open, ..bridged(&server) };
    for hypervisor in [QEMU, CLOUD_HYPERVISOR] {
        check("two-nics-by-descriptor", hypervisor, &launch, &options);
    }
}

#[test]
fn every_driver_that_wakes_a_guest() {
    let machine = MachineSpec { from: Some("/srv/snapshots/web".into()), ..server() };
    let launch = Launch { memory: Some(12), vsock: true, ..bridged(&machine) };
    for hypervisor in [QEMU, FIRECRACKER] {
        check("waking", hypervisor, &launch, &options());
    }
    let saved = fs::read("fuzz/corpus/waking/server.json").unwrap();
    let saved = serde_json::from_slice(&saved).unwrap();
    let nics = [LaunchNic { fds: &[9], ..PORT }];
    let launch = Launch { nics: &nics, saved: Some(&saved), ..launch };
    check("waking", CLOUD_HYPERVISOR, &launch, &options());
}

#[test]
fn a_guest_is_told_an_mtu_that_it_would_not_take() {
    let appliance = appliance();
    let small = [LaunchNic { mtu: 1400, ..PORT }];
    let launch = Launch { nics: &small, ..launch(&appliance) };
    let whole = |name: &str| {
        let command = command_line(name, &launch, &options()).unwrap();
        let files = command
            .files
            .into_iter()
            .map(|(_, contents)| String::from_utf8(contents).expect("text"));
        command.args.into_iter().chain(files).collect::<Vec<_>>().join(" ")
    };
    assert!(whole(QEMU).contains("mac=02:00:00:00:00:05,host_mtu=1400"));
    assert!(whole(FIRECRACKER).contains(r#""mtu":1400"#));
    // It reads the tap's.
    assert!(!whole(CLOUD_HYPERVISOR).contains("1400"));
}

#[test]
fn qemu_as_the_host_has_it() {
    let (appliance, server, mut options) = (appliance(), server(), options());
    let no_kvm = Launch { kvm: false, ..bridged(&appliance) };
    check("no-kvm", QEMU, &no_kvm, &options);
    let vhost = Launch { vhost_vsock: true, ..vsock(&appliance) };
    check("vhost-vsock", QEMU, &vhost, &options);
    let fd = Launch { nics: &[LaunchNic { fds: &[9], ..PORT }], ..launch(&appliance) };
    check("tap-by-descriptor", QEMU, &fd, &options);
    let queues = LaunchNic { queues: 2, ..PORT };
    check("queues", QEMU, &Launch { nics: &[queues], ..launch(&server) }, &options);
    let fds = LaunchNic { queues: 2, fds: &[9, 10], ..PORT };
    check("queues-by-descriptor", QEMU, &Launch { nics: &[fds], ..launch(&server) }, &options);
    let vhost_net = Options {
        qemu: QemuOptions { vhost_net: true, ..options.qemu.clone() },
        ..options.clone()
    };
    let opened = Launch { nics: &[LaunchNic { queues: 2, fds: &[9, 10], ..PORT }], ..fd.clone() };
    check("vhost-net", QEMU, &opened, &vhost_net);
    options.qemu.machine = QemuMachine::Q35;
    check("q35", QEMU, &bridged(&server), &options);
    check("q35-vsock", QEMU, &vsock(&server), &options);
}

#[test]
fn every_driver_on_arm64() {
    let (appliance, server, mut options) = (appliance(), server(), options());
    options.qemu = QemuOptions::of(QemuMachine::Virt);
    let on_arm64 = |launch| Launch { architecture: Architecture::Aarch64, tsc_khz: None, ..launch };
    for hypervisor in [QEMU, CLOUD_HYPERVISOR, FIRECRACKER] {
        check("arm64", hypervisor, &on_arm64(bridged(&server)), &options);
    }
    check("arm64-vsock", QEMU, &on_arm64(vsock(&server)), &options);
    let no_kvm = Launch { kvm: false, ..bridged(&appliance) };
    check("arm64-no-kvm", QEMU, &on_arm64(no_kvm.clone()), &options);
    // A host of another architecture emulates it, whether it has KVM or not.
    check("arm64-no-kvm", QEMU, &bridged(&appliance), &options);
}

#[test]
fn cloud_hypervisor_with_what_it_can_be_given() {
    let (appliance, server, mut options) = (appliance(), server(), options());
    let port = LaunchNic { queues: 2, fds: &[9, 10], ..PORT };
    let queues = Launch { nics: &[port], ..launch(&server) };
    check("queues-by-descriptor", CLOUD_HYPERVISOR, &queues, &options);
    options.cloud_hypervisor.net_ip_mask = true;
    check("net-ip-mask", CLOUD_HYPERVISOR, &bridged(&appliance), &options);
    check("net-ip-mask-dhcp", CLOUD_HYPERVISOR, &launch(&appliance), &options);
}

#[test]
fn the_network_part_alone() {
    let (machine, options) = (appliance(), options());
    let (bridged, vsock) = (bridged(&machine), vsock(&machine));
    let args = |hypervisor, launch: &Launch| {
        network_args(hypervisor, &launch.attachment(), &options).unwrap().join(" ")
    };
    for (hypervisor, on_a_bridge, by_vsock) in [
        (
            CLOUD_HYPERVISOR,
            "--net tap=vttap-web1,mac=02:00:00:00:00:05,id=net0",
            "--vsock cid=3,socket=/run/volnet/machines/web1/vsock.sock",
        ),
        (
            FIRECRACKER,
            concat!(
                r#"{"network-interfaces":[{"guest_mac":"02:00:00:00:00:05","#,
                r#""host_dev_name":"vttap-web1","iface_id":"net0"}]}"#
            ),
            r#"{"vsock":{"guest_cid":3,"uds_path":"/run/volnet/machines/web1/vsock.sock"}}"#,
        ),
        (
            QEMU,
            "-netdev tap,id=net0,ifname=vttap-web1,script=no,downscript=no \
             -device virtio-net-device,netdev=net0,mac=02:00:00:00:00:05",
            "-object memory-backend-memfd,id=mem0,size=128M,share=on -machine memory-backend=mem0 \
             -chardev socket,id=vsock0,path=/run/volnet/machines/web1/vhost-vsock.sock \
             -device vhost-user-vsock-device,chardev=vsock0",
        ),
        (
            "other",
            "--net {tap=vttap-web1,mac=02:00:00:00:00:05,queues=1} \
             --lease 192.168.127.5/255.255.255.0",
            "--vsock 3:/run/volnet/machines/web1/vsock.sock",
        ),
    ] {
        assert_eq!(args(hypervisor, &bridged), on_a_bridge);
        assert_eq!(args(hypervisor, &vsock), by_vsock);
    }
}

#[test]
fn paths_are_escaped_or_refused() {
    let odd = MachineSpec {
        initramfs: Some(file("/srv/a,b.cpio")),
        disks: vec![disk("/srv/a,b.img", DiskFormat::Raw, false)],
        ..appliance()
    };
    let launch = launch(&odd);
    let qemu = command_line(QEMU, &launch, &options()).unwrap();
    assert!(qemu.args.iter().any(|arg| arg.ends_with("file=/srv/a,,b.img")), "{qemu:?}");
    assert!(qemu.args.iter().any(|arg| arg == "/srv/a,b.cpio"), "{qemu:?}");
    refused(CLOUD_HYPERVISOR, &launch, "disks");
}

/// Checks that a launch is refused at `field`.
fn refused(hypervisor: &str, launch: &Launch, expected: &str) {
    match command_line(hypervisor, launch, &options()) {
        Err(Refusal::InvalidConfig { field, .. }) => assert_eq!(field, expected),
        other => panic!("{hypervisor}: {other:?}"),
    }
}

#[test]
fn what_a_hypervisor_cannot_do_is_refused() {
    let appliance = appliance();
    let two = &[LaunchNic { queues: 2, ..PORT }];
    refused("bochs", &launch(&appliance), "hypervisor");
    refused(FIRECRACKER, &Launch { nics: two, ..launch(&appliance) }, "network.queues");
    refused(CLOUD_HYPERVISOR, &Launch { nics: two, ..launch(&appliance) }, "network.queues");
    let fd = &[LaunchNic { fds: &[9], ..PORT }];
    refused(FIRECRACKER, &Launch { nics: fd, ..launch(&appliance) }, "hypervisor");
    let cpus = MachineSpec { cpus: 33, ..appliance.clone() };
    refused(FIRECRACKER, &launch(&cpus), "resources.cpu_cores");
    let qcow2 =
        MachineSpec { disks: vec![disk("/d", DiskFormat::Qcow2, false)], ..appliance.clone() };
    refused(FIRECRACKER, &launch(&qcow2), "disks");
    let long = MachineSpec { cmdline: "x".repeat(2040), ..appliance.clone() };
    refused(QEMU, &launch(&long), "kernel_cmdline");
    let folder = PathBuf::from(format!("/run/{}", "x".repeat(90)));
    let short = Launch { folder: folder.clone(), ..launch(&appliance) };
    assert!(command_line(QEMU, &short, &options()).is_ok(), "its sockets have short names");
    refused(QEMU, &Launch { folder, ..vsock(&appliance) }, "runtime_dir");
}

#[test]
fn vsock_stands_beside_a_network() {
    let machine = appliance();
    let both = Launch { vsock: true, ..bridged(&machine) };
    let has = |args: &[String], word: &str| args.iter().any(|arg| arg.contains(word));
    let options = options();
    for (hypervisor, network, vsock) in [
        (QEMU, "-netdev", "vhost-user-vsock-device,chardev=vsock0"),
        (CLOUD_HYPERVISOR, "--net", "--vsock"),
    ] {
        let command = command_line(hypervisor, &both, &options).unwrap();
        assert!(has(&command.args, network) && has(&command.args, vsock), "{command:?}");
        assert_eq!(command.helpers.len(), usize::from(hypervisor == QEMU));
        let alone = command_line(hypervisor, &bridged(&machine), &options).unwrap();
        assert!(!has(&alone.args, vsock) && alone.helpers.is_empty(), "{alone:?}");
    }
    let kernels = Launch { vhost_vsock: true, ..both.clone() };
    let command = command_line(QEMU, &kernels, &options).unwrap();
    assert!(has(&command.args, "vhost-vsock-device,guest-cid=3") && command.helpers.is_empty());
}

#[test]
fn templates_are_checked_when_they_are_read() {
    let group = |word: &str| vec![vec![String::from(word)]];
    let new = |word: &str| Template::new("t".into(), "p".into(), group(word), None);
    for word in ["{tap}", "a{{b}}c", "{{{tap}}}", ""] {
        assert!(new(word).is_ok(), "{word}");
    }
    for word in ["{nothing}", "{", "}", "{tap", "tap}", "{}"] {
        assert!(new(word).is_err(), "{word}");
    }
}
