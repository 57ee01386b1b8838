//! The words that scripts are made of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use volnet::model::attachment::{Attachment, AttachmentId};
use volnet::model::budget::Budget;
use volnet::model::document::Kept;
use volnet::model::expose::{Expose, Protocol};
use volnet::model::inner::InnerSpec;
use volnet::model::limits::Limits;
use volnet::model::mac::Mac;
use volnet::model::mode::Mode;
use volnet::model::name::VmName;
use volnet::model::record::{Halt, Motion};
use volnet::model::request::{Change, OpenFile, Request, Trace, TraceFrom};
use volnet::model::run_as::RunAs;
use volnet::model::spec::{MachineSpec, NetworkSpec, RestartPolicy, VmSpec};
use volnet::model::traffic::Traffic;

use crate::lease::Word;
use crate::sim::Step;

/// The names of the VMs. Two of them want the same tap.
pub(crate) const NAMES: [&str; 6] = ["a", "web-1", "web1", "c.3", "D", "longer-than-a-tap"];

/// No room for a disk.
pub(crate) const FULL: Motion = Motion::Halted(Halt::Disk { index: None, full: true });

/// The containers whose namespaces are attached. Each has a namespace of its own, but for the last:
/// that is a VM in the namespace of the host.
pub(crate) const CONTAINERS: [&str; 3] =
    ["a", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "of-the-host"];

pub(crate) fn name(name: &str) -> VmName {
    VmName::new(name).expect("a name")
}

/// A bridged, durable VM with a machine.
pub(crate) fn spec() -> VmSpec {
    let machine = MachineSpec { cpus: 1, memory_mb: 64, ..MachineSpec::default() };
    // Each start makes a disk for it, which is in the VM's folder.
    let config = Kept::new(&serde_json::json!({ "cloud_init": {} }));
    VmSpec { machine: Some(Box::new(machine)), config: Some(config), ..VmSpec::default() }
}

/// The same on another network, or on none.
pub(crate) fn on(network: &str, mode: Mode) -> VmSpec {
    VmSpec { networks: vec![network_spec(network, mode)], ..spec() }
}

/// What is asked for of one network, or of none.
pub(crate) fn network_spec(network: &str, mode: Mode) -> NetworkSpec {
    let name = (mode != Mode::Vsock).then(|| network.to_string());
    NetworkSpec { mode, name, ..NetworkSpec::default() }
}

/// The networks of the host.
pub(crate) const NETWORKS: [&str; 3] = ["default", "lab", "six"];

/// Where the first tap is among the links that others go for, by name: the bridges come before.
pub(crate) const TAP: usize = NETWORKS.len();

/// A network that comes and goes.
pub(crate) const ADDED: &str = "pods";

/// Somebody adds it with this subnet.
pub(crate) fn add_network(subnet: &str, replace: bool) -> Step {
    let document = Kept::new(&serde_json::json!({ "name": ADDED, "subnet": subnet }));
    ask(Change::AddNetwork { document, replace })
}

/// Somebody removes it.
pub(crate) fn remove_network() -> Step {
    ask(Change::RemoveNetwork { name: ADDED.into() })
}

/// A VM that is on two networks, and twice on the first: of its three NICs the last asks for its
/// address.
pub(crate) fn thrice() -> VmSpec {
    let networks = [("default", Mode::Bridged), ("lab", Mode::Bridged), ("default", Mode::Dhcp)];
    let networks = networks.map(|(network, mode)| network_spec(network, mode));
    VmSpec { networks: networks.into(), ..spec() }
}

/// An address that several VMs of a network name.
pub(crate) fn movable_address(network: &str) -> Ipv4Addr {
    let third = if network == "lab" { 2 } else { 1 };
    [10, third, 0, 5].into()
}

/// A VM of the first network that may use an address with others, and has a policy.
pub(crate) fn sharing(policy: &str) -> VmSpec {
    let addresses = vec![movable_address("default")];
    let traffic = Traffic { policy: Some(policy.into()), ..Traffic::default() };
    VmSpec {
        networks: vec![NetworkSpec { addresses, traffic, ..NetworkSpec::default() }],
        ..spec()
    }
}

/// A VM of the first network whose guest believes what many others do.
pub(crate) fn believing(gateway_mac: Option<Mac>) -> VmSpec {
    let (ip, gateway) = ([172, 16, 0, 2].into(), Some([172, 16, 0, 1].into()));
    let mac = Mac([2, 0, 0, 0, 0, 0xaa]);
    let inner = InnerSpec { mac, ip, prefix: Some(30), gateway, gateway_mac };
    VmSpec {
        networks: vec![NetworkSpec { inner: Some(Box::new(inner)), ..NetworkSpec::default() }],
        ..spec()
    }
}

/// A machine with this number joins the LAN of the first bridge; its answers come so late.
pub(crate) fn machine(last: u8, late: usize) -> Step {
    Step::Machine([10, 1, 0, last].into(), late)
}

/// The same on the LAN of the network that comes and goes, if that has the first of its subnets.
pub(crate) fn machine_of_added(last: u8) -> Step {
    Step::Machine([10, 7, 0, last].into(), 0)
}

/// A VM that wants the same address as others of this kind.
pub(crate) fn fixed() -> VmSpec {
    let ip = Some([10, 1, 0, 3].into());
    VmSpec { networks: vec![NetworkSpec { ip, ..NetworkSpec::default() }], ..spec() }
}

pub(crate) fn ephemeral() -> VmSpec {
    VmSpec { ephemeral: true, ..spec() }
}

/// A VM with a user for itself and a budget.
pub(crate) fn own() -> VmSpec {
    let budget = Budget { cpu_percent: Some(50), ..Budget::default() };
    VmSpec { run_as: Some(RunAs::Own), budget, ..spec() }
}

pub(crate) fn on_failure() -> VmSpec {
    VmSpec { restart: RestartPolicy::OnFailure, ..spec() }
}

pub(crate) fn always() -> VmSpec {
    VmSpec { restart: RestartPolicy::Always, ..spec() }
}

/// A guest with an MTU below that of its network.
pub(crate) fn narrow() -> VmSpec {
    let network = NetworkSpec { mtu: Some(1400), ..NetworkSpec::default() };
    VmSpec { networks: vec![network], ..spec() }
}

pub(crate) fn create(vm: &str, spec: VmSpec) -> Step {
    made(vm, spec, false)
}

pub(crate) fn create_and_start(vm: &str, spec: VmSpec) -> Step {
    made(vm, spec, true)
}

/// Somebody asks this.
pub(crate) fn ask(request: impl Into<Request>) -> Step {
    Step::Ask(request.into())
}

/// Somebody wants to know what a guest sends, for so many seconds.
pub(crate) fn trace(vm: &str, seconds: u32) -> Step {
    ask(Request::Trace(Trace {
        name: name(vm),
        from: (seconds % 3 == 0).then_some(TraceFrom::World),
        to: None,
        port: None,
        seconds,
        more: seconds % 2 == 0,
    }))
}

fn made(vm: &str, spec: VmSpec, start: bool) -> Step {
    let (name, spec, notes) = (name(vm), Box::new(spec), Vec::new());
    ask(Change::Create { name, spec, start, dry_run: false, notes })
}

/// What these ask, at once.
pub(crate) fn together(steps: impl IntoIterator<Item = Step>) -> Step {
    let request = |step| match step {
        Step::Ask(request) => request,
        other => panic!("{other:?} is nothing that is asked"),
    };
    Step::Together(steps.into_iter().map(request).collect())
}

pub(crate) fn start(vm: &str) -> Step {
    ask(Change::Start { name: name(vm) })
}

pub(crate) fn stop(vm: &str, timeout_ms: u64) -> Step {
    ask(Change::Stop { name: name(vm), timeout_ms })
}

pub(crate) fn restart(vm: &str) -> Step {
    ask(Change::Restart { name: name(vm), timeout_ms: 1_000 })
}

pub(crate) fn pause(vm: &str) -> Step {
    ask(Change::Pause { name: name(vm) })
}

pub(crate) fn resume(vm: &str) -> Step {
    ask(Change::Resume { name: name(vm) })
}

/// A snapshot of its guest, in a folder of the VM's name.
pub(crate) fn save(vm: &str) -> Step {
    ask(Change::Snapshot { name: name(vm), folder: format!("/no-such-place/{vm}").into() })
}

/// A VM on a network without IPv6, as guests that are saved have to be.
pub(crate) fn in_lab() -> VmSpec {
    on("lab", Mode::Bridged)
}

/// The same, whose guest wakes from a snapshot.
pub(crate) fn waking() -> VmSpec {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    // It is opened as a file of the real disk, and never written.
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated-snapshot");
        fs::create_dir_all(&folder).expect("a folder");
        File::options().append(true).create(true).open(folder.join("memory")).expect("a file");
        folder
    });
    let machine = MachineSpec {
        hypervisor: Some("qemu".into()),
        from: Some(folder.clone()),
        cpus: 1,
        memory_mb: 64,
        ..MachineSpec::default()
    };
    VmSpec { machine: Some(Box::new(machine)), config: None, ..in_lab() }
}

pub(crate) fn delete(vm: &str, timeout_ms: u64) -> Step {
    ask(Change::Delete { name: name(vm), timeout_ms })
}

/// A port of the host that leads to a guest.
pub(crate) fn port(host_port: u16) -> Expose {
    Expose { protocol: Protocol::Tcp, port: 80, host_port, count: 1, host_ip: None, name: None }
}

pub(crate) fn exposed(ports: &[u16]) -> VmSpec {
    let expose = ports.iter().copied().map(port).collect();
    VmSpec { networks: vec![NetworkSpec { expose, ..NetworkSpec::default() }], ..spec() }
}

pub(crate) fn expose(vm: &str, nic: Option<usize>, host_port: u16) -> Step {
    ask(Change::Expose { name: name(vm), nic, port: port(host_port), force: false })
}

pub(crate) fn unexpose(vm: &str, host_port: u16) -> Step {
    ask(Change::Unexpose { name: name(vm), at: port(host_port).at() })
}

pub(crate) fn lease(vm: &str, word: Word) -> Step {
    Step::Lease(name(vm), word)
}

pub(crate) fn set_policy(vm: &str, nic: Option<usize>, policy: &str) -> Step {
    ask(Change::SetPolicy { name: name(vm), nic, policy: policy.into() })
}

/// A VM whose guest receives so much.
pub(crate) fn limited(rx_mbit: u32) -> VmSpec {
    let limits = Limits { rx_mbit: Some(rx_mbit), tx_mbit: Some(50), ..Limits::default() };
    VmSpec {
        networks: vec![NetworkSpec { traffic: limits.into(), ..NetworkSpec::default() }],
        ..spec()
    }
}

/// It receives and sends so much from now on.
pub(crate) fn set_limits(vm: &str, nic: Option<usize>, rx_mbit: u32, tx_mbit: u32) -> Step {
    let (rx_mbit, tx_mbit) = (Some(rx_mbit), Some(tx_mbit));
    let limits = Limits { rx_mbit, tx_mbit, ..Limits::default() };
    ask(Change::SetLimits { name: name(vm), nic, limits })
}

pub(crate) fn attach(container: &str, network: &str) -> Step {
    let (id, netns) = (container_id(container), format!("/run/netns/{container}"));
    // The second one is for a VM in its namespace.
    let tap = (container == CONTAINERS[1]).then(|| "tap0".to_string());
    let (tun, host) = (tap.is_some().then(any_descriptor), container == CONTAINERS[2]);
    let attachment = Attachment { id, netns, tap, host, labels: BTreeMap::new() };
    let spec = VmSpec {
        networks: vec![network_spec(network, Mode::Bridged)],
        ephemeral: true,
        attachment: Some(Box::new(attachment)),
        ..VmSpec::default()
    };
    let (name, door) = (container_id(container).vm_name(), any_descriptor());
    ask(Change::Attach { name, spec: Box::new(spec), door, tun, force: false })
}

fn any_descriptor() -> OpenFile {
    OwnedFd::from(File::open("/dev/null").expect("any descriptor")).into()
}

pub(crate) fn detach(container: &str) -> Step {
    ask(Change::Detach { id: container_id(container) })
}

fn container_id(container: &str) -> AttachmentId {
    let (cni, container, ifname) = ("pods".into(), container.into(), "eth0".into());
    AttachmentId { cni, container, ifname }
}

pub(crate) fn setup() -> Step {
    ask(Change::Setup { dry_run: false, force: false })
}

pub(crate) fn teardown() -> Step {
    ask(Change::Teardown { dry_run: false, force: true })
}
