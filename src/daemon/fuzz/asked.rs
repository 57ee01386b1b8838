//! Requests from bytes. There are few names and few addresses, so that they collide.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{self, Flags, Settings};
use crate::fuzz::Choices;
use crate::hypervisor::QEMU;
use crate::model::document::Kept;
use crate::model::expose::{Expose, Protocol};
use crate::model::inner::InnerSpec;
use crate::model::limits::Limits;
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::request::Change;
use crate::model::run_as::RunAs;
use crate::model::spec::{MachineSpec, NetworkSpec, RestartPolicy, VmSpec};
use crate::model::traffic::Traffic;
use crate::protocol::request::STOP_TIMEOUT_MAX_MS;

/// The names of VMs. Some of them want the same tap.
const NAMES: [&str; 6] = ["a", "web1", "web-1", "WEB_1", "longer-than-a-tap", "longer-than-a-tap2"];
/// Networks with few addresses. One has two bridges and isolates its guests, and one IPv6 alone.
const SETTINGS: &str = r#"{"hypervisor": "qemu", "kernel_vmlinux": "/bin/sh", "kvm": false,
    "hypervisors": {"qemu": {"program": "/bin/sh"}}, "networks": [
    {"name": "default", "bridge": "vbr0", "subnet": "10.1.0.0/29", "services": true},
    {"name": "lab", "bridge": "vbr1", "subnet": "10.2.0.0/28", "bridges": 2, "isolated": true,
     "ipv6": true},
    {"name": "tiny", "bridge": "vbr2", "subnet": "10.3.0.0/30", "nat": false, "dhcp": "builtin",
     "ipv6": {"prefix": "2001:db8:3::/64"}},
    {"name": "six", "bridge": "vbr3", "subnet": null, "ipv6": true}
]}"#;
const NETWORKS: [&str; 6] = ["default", "lab", "lab-2", "tiny", "six", ADDED];
/// Where snapshots are to be: nothing is written there.
const SNAPSHOTS: &str = "/no-such-place";
/// The folder of a snapshot. Its memory is opened, and nobody reads it.
const SAVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot");
/// The network that comes and goes.
const ADDED: &str = "pods";

pub(super) fn settings() -> Settings {
    let settings = config::resolve(&Flags::default(), &BTreeMap::new(), Some(SETTINGS), "host");
    settings.expect("they can be")
}

pub(super) fn name(choices: &mut Choices<'_>) -> VmName {
    VmName::new(choices.one_of(&NAMES)).expect("a name")
}

/// Any change.
pub(super) fn request(choices: &mut Choices<'_>) -> Change {
    let name = name(choices);
    let timeout_ms = choices.one_of(&[30_000, 0, 1, 3_000, STOP_TIMEOUT_MAX_MS]);
    let kind = choices.byte();
    // A snapshot shares a number with a start, so that older inputs stay what they were.
    match kind % 16 {
        0..7 => create(name, choices),
        8 if kind > 127 => {
            Change::Snapshot { folder: Path::new(SNAPSHOTS).join(name.as_str()), name }
        }
        7..9 => Change::Start { name },
        9 => Change::Stop { name, timeout_ms },
        10 if choices.flag() => Change::Restart { name, timeout_ms },
        10 if choices.flag() => Change::Pause { name },
        10 => Change::Resume { name },
        11..13 => Change::Delete { name, timeout_ms },
        13 if choices.flag() => Change::Expose {
            name,
            nic: nic(choices),
            port: exposed(choices),
            force: choices.flag(),
        },
        13 => Change::Unexpose { name, at: exposed(choices).at() },
        14 if choices.flag() => {
            Change::SetLimits { name, nic: nic(choices), limits: limits(choices) }
        }
        14 => Change::Setup { dry_run: choices.flag(), force: choices.flag() },
        15 if choices.flag() => network_change(choices),
        _ => Change::Teardown { dry_run: choices.flag(), force: choices.flag() },
    }
}

/// The network that comes and goes, with one of two subnets, or with one of another network.
fn network_change(choices: &mut Choices<'_>) -> Change {
    let subnet = choices.one_of(&["10.4.0.0/29", "10.4.0.0/29", "10.5.0.0/29", "10.1.0.0/30"]);
    match choices.flag() {
        true => Change::RemoveNetwork { name: choices.one_of(&[ADDED, ADDED, "default"]).into() },
        false => Change::AddNetwork {
            document: Kept::new(&serde_json::json!({ "name": ADDED, "subnet": subnet })),
            replace: choices.flag(),
        },
    }
}

/// A NIC that most VMs do not have, or none.
fn nic(choices: &mut Choices<'_>) -> Option<usize> {
    choices.one_of(&[None, Some(0), Some(1)])
}

/// One of few ports of the host, at one of its addresses or at all of them.
fn exposed(choices: &mut Choices<'_>) -> Expose {
    Expose {
        protocol: choices.one_of(&[Protocol::Tcp, Protocol::Udp]),
        port: choices.one_of(&[80, 81]),
        host_port: choices.one_of(&[8080, 8081, 0]),
        count: choices.one_of(&[1, 2]),
        host_ip: choices.one_of(&[None, Some([192, 0, 2, 1].into()), Some([0; 16].into())]),
        name: None,
    }
}

/// Few limits, and none.
fn limits(choices: &mut Choices<'_>) -> Limits {
    const SOME: [Option<u32>; 4] = [None, Some(0), Some(100), Some(200)];
    Limits {
        rx_mbit: choices.one_of(&SOME),
        tx_mbit: choices.one_of(&SOME),
        burst_kb: choices.one_of(&[None, Some(64)]),
        pps: choices.one_of(&SOME),
    }
}

/// A VM. Its guest boots, or wakes from a snapshot, as it is asked for once that was read.
fn create(name: VmName, choices: &mut Choices<'_>) -> Change {
    let networks = wanted(choices);
    let kind = choices.byte();
    let wakes = kind % 8 == 6 && kind > 127;
    let machine = MachineSpec {
        hypervisor: wakes.then(|| QEMU.into()),
        from: wakes.then(|| SAVED.into()),
        cpus: 1,
        memory_mb: 64,
        ..MachineSpec::default()
    };
    let spec = VmSpec {
        networks,
        machine: (kind % 8 != 7).then(|| Box::new(machine)),
        ephemeral: choices.flag(),
        autostart: choices.flag(),
        restart: choices.one_of(&[
            RestartPolicy::No,
            RestartPolicy::OnFailure,
            RestartPolicy::Always,
        ]),
        run_as: choices.flag().then_some(RunAs::Own),
        config: (!wakes).then(|| Kept::new(&serde_json::json!({ "cloud_init": {} }))),
        ..VmSpec::default()
    };
    let (start, dry_run) = (choices.flag(), choices.byte() % 8 == 7);
    Change::Create { name, spec: Box::new(spec), start, dry_run, notes: Vec::new() }
}

/// One network in most cases, else two.
fn wanted(choices: &mut Choices<'_>) -> Vec<NetworkSpec> {
    let first = network(choices);
    if choices.byte() % 4 != 3 || !first.mode.needs_tap_device() {
        return vec![first];
    }
    let mode = choices.one_of(&[Mode::Bridged, Mode::Dhcp]);
    let mut second = NetworkSpec { mode, ..network(choices) };
    // One port of the host leads to one place: that is seen to where a configuration is read.
    second.expose.retain(|port| !first.expose.iter().any(|other| other.at().meets(&port.at())));
    vec![first, second]
}

/// What a guest may take for its own: in its network, beside it, or impossible.
fn inner(choice: u8) -> InnerSpec {
    let beside = choice % 16 == 7;
    InnerSpec {
        mac: Mac([2, 0, 0, 0, 1, choice / 64]),
        ip: if beside { [172, 16, 0, 2] } else { [10, 1, 0, choice / 16] }.into(),
        prefix: beside.then_some(30),
        gateway: beside.then(|| [172, 16, 0, 1].into()),
        gateway_mac: (choice > 127).then_some(Mac([2, 0, 0, 0, 1, 0])),
    }
}

/// Values that a configuration can declare, and some that it cannot.
fn network(choices: &mut Choices<'_>) -> NetworkSpec {
    let mode = choices.one_of(&[Mode::Bridged, Mode::Dhcp, Mode::Vsock]);
    // Each setting has a bit that says whether it is declared.
    let declared = choices.byte();
    let is = |bit: u8| declared & 1 << bit != 0;
    let (name, host, mtu) = (choices.one_of(&NETWORKS), choices.byte(), choices.byte());
    let address = [10, 1 + host / 16 % 3, 0, host % 16];
    NetworkSpec {
        mode,
        name: is(0).then(|| name.into()),
        subnet: is(1).then(|| "10.3.0.0/30".parse().expect("a prefix")),
        gateway: is(2).then(|| [10, 2, 0, 1].into()),
        ip: is(3).then(|| address.into()),
        addresses: if host % 8 == 5 { vec![[10, 1, 0, 13].into()] } else { Vec::new() },
        ip6: (host % 8 == 6).then(|| [0x2001, 0xdb8, 3, 0, 0, 0, 0, u16::from(host / 8)].into()),
        mac: is(4).then_some(Mac([2, 0, 0, 0, 0, host])),
        inner: (host % 8 == 7).then(|| Box::new(inner(host))),
        mtu: is(5).then(|| 68 + u16::from(mtu) * 8),
        queues: is(6).then_some(2),
        traffic: Traffic {
            policy: None,
            limits: if is(5) { limits(choices) } else { Limits::default() },
            isolated: is(7).then_some(true),
            antispoof: (host > 127).then_some(false),
        },
        expose: if host % 4 == 3 { vec![exposed(choices)] } else { Vec::new() },
    }
}
