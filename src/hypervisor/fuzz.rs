//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use serde_json::Value;

use super::template::Template;
use super::*;
use crate::model::spec::NetworkSpec;
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
    let launch = Launch {
        name: "web",
        machine,
        kernel: machine.kernel.as_ref().map_or(Path::new("/boot/vmlinux"), |file| &file.path),
        nics: &nics,
        cid: 3,
        vsock: false,
        kernel_args: if addressed { KERNEL_ARGS } else { "" },
        folder: "/run/volnet/vm/web".into(),
        vhost_vsock: false,
        architecture: Architecture::HOST,
        kvm: false,
        tsc_khz: Some(2_100_000),
        memory: None,
    };
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
            drives.iter().map(|drive| drive["path_on_host"].as_str().unwrap().into()).collect()
        }
        _ => command.args.clone(),
    }
}

/// The one value of a field.
fn field(option: &str, name: &str) -> String {
    let named = |field: &str| field.strip_prefix(name)?.strip_prefix('=').map(String::from);
    let values: Vec<String> = option.split(',').filter_map(named).collect();
    let [value] = values.try_into().expect("one value");
    value
}
