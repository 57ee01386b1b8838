//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use serde_json::{Value, json};

use super::template::Template;
use super::*;
use crate::model::spec::{Disk, File, NetworkSpec};
use crate::spec;

/// The name of the hypervisor of the template.
const TEMPLATE: &str = "other";
const KERNEL_ARGS: &str = "ip=10.0.0.2::10.0.0.1:255.255.255.0:web:eth0:off";

/// Every hypervisor makes a command line from a VM's configuration, or refuses it. In each command
/// line the paths of the disks mean exactly those files, and each shared directory has a helper.
pub fn launch(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(spec) = spec::resolve(None, Some(&config)) else { return };
    let Some(machine) = &spec.machine else { return };
    let nics = spec.networks.iter().filter(|network| network.mode.needs_tap_device());
    let nic = |network: &NetworkSpec| LaunchNic {
        tap: "vttap-web",
        mac: Mac([2, 0, 0, 0, 0, 5]),
        queues: network.queues.unwrap_or(1),
        mtu: network.mtu.unwrap_or(1500),
        fds: &[],
        lease: None,
    };
    let nics: Vec<LaunchNic> = nics.map(nic).collect();
    let addressed = spec.networks.iter().any(|network| network.mode.needs_ip_allocation());
    let kernel_args = if addressed { KERNEL_ARGS } else { "" };
    let launch = Launch { nics: &nics, kernel_args, ..plain(machine) };
    let options = options();
    for hypervisor in [QEMU, CLOUD_HYPERVISOR, FIRECRACKER, TEMPLATE] {
        let Ok(command) = command_line(hypervisor, &launch, &options) else { continue };
        assert!(!command.args.iter().any(|arg| arg.contains(char::is_control)), "{command:?}");
        let wanted = machine.disks.iter().map(|disk| disk.file.path.to_str().unwrap());
        assert!(disks(hypervisor, &command).iter().eq(wanted), "{command:?}");
        let wanted = machine.shares.iter().map(|share| share.path.to_str().unwrap());
        let served = command.helpers.iter().filter_map(shared_directory);
        assert!(served.eq(wanted), "{command:?}");
    }
}

/// Whatever the configuration in the folder of a snapshot says, a guest of Cloud Hypervisor wakes
/// with what is its own, or is refused.
pub fn waking(bytes: &[u8]) {
    let Ok(saved) = serde_json::from_slice::<Value>(bytes) else { return };
    let disk = |path: &str, readonly| {
        let file = File { path: path.into(), sha256: None };
        Disk { file, readonly, ..Disk::default() }
    };
    let machine = MachineSpec {
        disks: vec![disk("/srv/own.img", false), disk("/srv/data.img", true)],
        cpus: 2,
        memory_mb: 1024,
        from: Some("/srv/web".into()),
        ..MachineSpec::default()
    };
    let nic = LaunchNic {
        tap: "vttap-web",
        mac: Mac([2, 0, 0, 0, 0, 5]),
        queues: 1,
        mtu: 1500,
        fds: &[],
        lease: None,
    };
    let folder = PathBuf::from("/run/volnet/vm/web");
    for fds in [&[][..], &[9]] {
        let launch = Launch {
            nics: &[LaunchNic { fds, ..nic }],
            folder: folder.clone(),
            saved: Some(&saved),
            ..plain(&machine)
        };
        let Ok(command) = command_line(CLOUD_HYPERVISOR, &launch, &Options::default()) else {
            continue;
        };
        let [(path, config)] = command.files.as_slice() else { panic!("one file: {command:?}") };
        assert_eq!(*path, folder.join(cloud_hypervisor::saved::CONFIGURATION));
        let config: Value = serde_json::from_slice(config).expect("a configuration is JSON");
        assert_eq!(cloud_hypervisor::saved::foreign(&config), None, "{config}");
        let all = |list: &str, field: &str| -> Vec<Value> {
            config[list].as_array().unwrap().iter().map(|it| it[field].clone()).collect()
        };
        assert_eq!(all("disks", "path"), ["/srv/own.img", "/srv/data.img"]);
        assert_eq!(all("disks", "readonly"), [false, true]);
        match fds {
            [] => assert_eq!(all("net", "tap"), [nic.tap]),
            fds => {
                assert_eq!(all("net", "tap"), [Value::Null]);
                assert_eq!(config["net"][0]["fds"].as_array().unwrap().len(), fds.len());
            }
        }
        let vsock = &config["vsock"]["socket"];
        assert!(vsock.is_null() || vsock == folder.join(VSOCK_SOCKET).to_str().unwrap());
        assert_eq!(all("disks", "backing_files"), [false, false]);
        assert_eq!(all("disks", "image_type"), ["Raw", "Raw"]);
        assert_eq!(config["serial"], json!({ "mode": "Tty" }));
        let cpus = json!({ "boot_vcpus": 2, "max_vcpus": 2, "nested": false });
        assert_eq!(config["cpus"], cpus);
        assert_eq!(config["memory"], json!({ "size": 1 << 30, "hugepages": false }));
        let payload = config["payload"].as_object().expect("an object");
        assert!(payload.keys().eq(["cmdline", "initramfs", "kernel"]), "{payload:?}");
        assert_eq!(payload["initramfs"], Value::Null);
        // A list would be read as an object, with fields that nobody has looked at.
        for (part, value) in config.as_object().expect("an object") {
            assert!(!value.is_array() || ["disks", "net"].contains(&part.as_str()), "{config}");
        }
    }
}

/// Whatever a hypervisor or its guest writes, callers see a few lines of plain text from the last
/// start.
pub fn log_tail(bytes: &[u8]) {
    for cut in [false, true] {
        let shown = log::last_lines(bytes, cut).unwrap_or_default();
        assert!(shown.lines().count() <= log::TAIL_LINES);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        let again = format!("{}\n{}qemu\nbye\n", String::from_utf8_lossy(bytes), log::HEADER);
        assert_eq!(log::last_lines(again.as_bytes(), cut).as_deref(), Some("bye"));
    }
}

/// A VM that is not on any network.
fn plain(machine: &MachineSpec) -> Launch<'_> {
    Launch {
        name: "web",
        machine,
        kernel: machine.kernel.as_ref().map_or(Path::new("/boot/vmlinux"), |file| &file.path),
        nics: &[],
        cid: 3,
        vsock: false,
        kernel_args: "",
        folder: "/run/volnet/vm/web".into(),
        vhost_vsock: false,
        architecture: Architecture::HOST,
        kvm: false,
        tsc_khz: Some(2_100_000),
        memory: None,
        saved: None,
    }
}

/// The directory that a helper serves; `None` if it serves none.
fn shared_directory(helper: &HypervisorCommand) -> Option<&str> {
    let at = helper.args.iter().position(|arg| arg == "--shared-dir")?;
    helper.args.get(at + 1).map(String::as_str)
}

fn options() -> Options {
    let groups = vec![vec!["{disk}".into()]];
    let template =
        Template::new(TEMPLATE.into(), "/other".into(), groups, None).expect("a template");
    Options { templates: vec![template], ..Options::default() }
}

/// The paths of the disks as the hypervisor reads them.
fn disks(hypervisor: &str, command: &HypervisorCommand) -> Vec<String> {
    match hypervisor {
        // A comma ends a field. Two commas are one comma of the value.
        QEMU => {
            let unescaped = |text: &str| text.replace(",,", "\0");
            let drives = command.args.windows(2).filter(|pair| pair[0] == "-drive");
            let paths = drives.map(|pair| field(&unescaped(&pair[1]), "file"));
            paths.map(|path| path.replace('\0', ",")).collect()
        }
        CLOUD_HYPERVISOR => {
            let disks = command.args.iter().skip_while(|arg| *arg != "--disk").skip(1);
            let disks = disks.take_while(|arg| !arg.starts_with("--"));
            disks.map(|disk| field(disk, "path")).collect()
        }
        FIRECRACKER => {
            let config: Value =
                serde_json::from_slice(&command.files[0].1).expect("a configuration is JSON");
            let drives = config["drives"].as_array().expect("drives is an array");
            let named = drives.iter().map(|drive| drive["path_on_host"].as_str().unwrap());
            named.map(|name| led_to(command, name)).collect()
        }
        _ => command.args.clone(),
    }
}

/// Where a link of the directory that a hypervisor runs in leads to.
fn led_to(command: &HypervisorCommand, name: &str) -> String {
    let link = command.directory.as_ref().expect("it runs in a directory").join(name);
    let (_, target) = command.links.iter().find(|(from, _)| *from == link).expect("a link");
    target.to_str().unwrap().into()
}

/// The one value of a field.
fn field(option: &str, name: &str) -> String {
    let named = |field: &str| field.strip_prefix(name)?.strip_prefix('=').map(String::from);
    let values: Vec<String> = option.split(',').filter_map(named).collect();
    let [value] = values.try_into().expect("one value");
    value
}
