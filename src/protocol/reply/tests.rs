use super::*;
use crate::model::error::{KernelOutcome, Reason};
use crate::model::expose::{Expose, Protocol};
use crate::model::limits::Limits;
use crate::model::mode::Mode;
use crate::model::name::{TapName, VmName};
use crate::model::view::{EventKind, Level, NicView, Status, TraceEnd, TraceWay, UsageView};
use crate::protocol::client::{self, NoReply};
use crate::protocol::service::VOLNET;

/// One error of every kind, with its reply.
fn errors() -> Vec<(Error, Value)> {
    let s = String::from;
    let refused = |r: Refusal, name: &str, parameters| {
        (r.into(), json!({ "error": name, "parameters": parameters }))
    };
    let failed = |f: Failure, name: &str, parameters| {
        (f.into(), json!({ "error": name, "parameters": parameters }))
    };
    vec![
        refused(
            Refusal::VmExists { name: s("web") },
            "io.volnet.VmExists",
            json!({ "name": "web" }),
        ),
        refused(
            Refusal::AttachmentExists { container: s("c1"), ifname: s("eth0") },
            "io.volnet.AttachmentExists",
            json!({ "container": "c1", "ifname": "eth0" }),
        ),
        refused(
            Refusal::AttachmentNotFound { container: s("c1"), ifname: s("eth0") },
            "io.volnet.AttachmentNotFound",
            json!({ "container": "c1", "ifname": "eth0" }),
        ),
        refused(
            Refusal::NetworkExists { name: s("pods") },
            "io.volnet.NetworkExists",
            json!({ "name": "pods" }),
        ),
        refused(
            Refusal::NetworkNotFound { name: s("pods") },
            "io.volnet.NetworkNotFound",
            json!({ "name": "pods" }),
        ),
        refused(
            Refusal::NetworkInUse { name: s("pods"), vms: 2 },
            "io.volnet.NetworkInUse",
            json!({ "name": "pods", "vms": 2 }),
        ),
        refused(
            Refusal::VmNotFound { name: s("web") },
            "io.volnet.VmNotFound",
            json!({ "name": "web" }),
        ),
        refused(Refusal::VmsExist { count: 3 }, "io.volnet.VmsExist", json!({ "count": 3 })),
        refused(
            Refusal::InvalidName { name: s("../x"), reason: s("no") },
            "io.volnet.InvalidName",
            json!({ "name": "../x", "reason": "no" }),
        ),
        refused(
            Refusal::InvalidManifest { field: s("network.mode"), reason: s("no") },
            "io.volnet.InvalidManifest",
            json!({ "field": "network.mode", "reason": "no" }),
        ),
        refused(
            Refusal::InvalidConfig { field: s("network.ip"), reason: s("no") },
            "io.volnet.InvalidConfig",
            json!({ "field": "network.ip", "reason": "no" }),
        ),
        refused(
            Refusal::NoFreeAddress {
                network: s("default"),
                subnet: "10.0.0.0/30".parse().unwrap(),
            },
            "io.volnet.NoFreeAddress",
            json!({ "network": "default", "subnet": "10.0.0.0/30" }),
        ),
        refused(
            Refusal::AddressInUse { ip: [10, 0, 0, 2].into(), owner: s("db") },
            "io.volnet.AddressInUse",
            json!({ "ip": "10.0.0.2", "owner": "db" }),
        ),
        refused(
            Refusal::BridgeFull { bridge: s("vbr0"), limit: 1023 },
            "io.volnet.BridgeFull",
            json!({ "bridge": "vbr0", "limit": 1023 }),
        ),
        refused(
            Refusal::TapBusy { tap: s("vttap-web"), pid: Some(7) },
            "io.volnet.TapBusy",
            json!({ "tap": "vttap-web", "pid": 7 }),
        ),
        refused(
            Refusal::TapBusy { tap: s("vttap-web"), pid: None },
            "io.volnet.TapBusy",
            json!({ "tap": "vttap-web", "pid": null }),
        ),
        refused(
            Refusal::WrongState { name: s("web"), status: Status::Running, wanted: "stopped" },
            "io.volnet.WrongState",
            json!({ "name": "web", "status": "running", "wanted": "stopped" }),
        ),
        refused(
            Refusal::SnapshotExists { path: s("/s") },
            "io.volnet.SnapshotExists",
            json!({ "path": "/s" }),
        ),
        refused(
            Refusal::InvalidSnapshot { path: s("/s"), reason: s("no") },
            "io.volnet.InvalidSnapshot",
            json!({ "path": "/s", "reason": "no" }),
        ),
        refused(
            Refusal::SnapshotMismatch { path: s("/s"), needs: "disks", reason: s("no") },
            "io.volnet.SnapshotMismatch",
            json!({ "path": "/s", "needs": "disks", "reason": "no" }),
        ),
        refused(
            Refusal::PermissionDenied {
                reason: s("permission denied: only root, the daemon's user and the group volnet \
                     may do this"),
            },
            "org.varlink.service.PermissionDenied",
            json!({}),
        ),
        failed(
            Failure::Kernel {
                operation: "create tap",
                object: s("vttap-web"),
                outcome: KernelOutcome::Refused(Reason::Busy),
                errno: 16,
                message: s("Device or resource busy"),
            },
            "io.volnet.KernelRefused",
            json!({
                "operation": "create tap",
                "object": "vttap-web",
                "errno": 16,
                "message": "Device or resource busy"
            }),
        ),
        failed(
            Failure::State { path: s("/var/lib/volnet"), reason: s("full") },
            "io.volnet.StateNotWritten",
            json!({ "path": "/var/lib/volnet", "reason": "full" }),
        ),
        failed(
            Failure::Hypervisor { name: s("web"), reason: s("exit 1"), log: Some(s("oops")) },
            "io.volnet.HypervisorFailed",
            json!({ "name": "web", "reason": "exit 1", "log": "oops" }),
        ),
    ]
}

#[test]
fn every_error_has_its_name_and_its_parameters() {
    for (error, expected) in errors() {
        let mut out = Vec::new();
        super::error(&mut out, &error, Terminator::Newline);
        assert_eq!(out.pop(), Some(b'\n'));
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }
}

#[test]
fn every_error_is_declared_with_exactly_these_parameters() {
    for (_, reply) in errors() {
        let Some(name) = reply["error"].as_str().unwrap().strip_prefix("io.volnet.") else {
            continue;
        };
        let declaration = VOLNET
            .lines()
            .find_map(|line| line.strip_prefix(&format!("error {name}(")))
            .unwrap_or_else(|| panic!("{name} is not declared"));
        let mut declared: Vec<&str> = declaration
            .trim_end_matches(')')
            .split(", ")
            .map(|field| field.split(':').next().unwrap())
            .collect();
        declared.sort_unstable();
        let given: Vec<&String> = reply["parameters"].as_object().unwrap().keys().collect();
        assert_eq!(given, declared, "{name}");
    }
}

#[test]
fn a_client_tells_an_error_in_the_words_of_the_service() {
    for (error, reply) in errors() {
        let NoReply::Error(read) = client::decode(reply.to_string().as_bytes()).unwrap_err() else {
            panic!("{reply}");
        };
        assert_eq!(read.to_string(), error.to_string());
    }
}

#[test]
fn faults_are_those_of_every_varlink_service() {
    let s = String::from;
    let table = [
        (
            CallFault::Message { reason: s("no") },
            r#"{"error":"io.volnet.InvalidMessage","parameters":{"reason":"no"}}"#,
        ),
        (
            CallFault::Interface { interface: s("a.b") },
            r#"{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"a.b"}}"#,
        ),
        (
            CallFault::Method { method: s("a.B") },
            r#"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"a.B"}}"#,
        ),
        (
            CallFault::Parameter { parameter: s("x") },
            r#"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"x"}}"#,
        ),
        (
            CallFault::Refused(Refusal::VmNotFound { name: s("web") }),
            r#"{"error":"io.volnet.VmNotFound","parameters":{"name":"web"}}"#,
        ),
    ];
    for (fault, expected) in table {
        let mut out = Vec::new();
        super::fault(&mut out, &fault, Terminator::Nul);
        assert_eq!(out, format!("{expected}\0").as_bytes());
    }
}

fn vm() -> VmView {
    VmView {
        name: VmName::new("web").unwrap(),
        mode: Mode::Bridged,
        status: Status::Created,
        problem: None,
        network: Some("default".into()),
        tap: Some(TapName::try_from(String::from("vttap-web")).unwrap()),
        ifindex: Some(4),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        ip: Some([192, 168, 127, 2].into()),
        netmask: Some([255, 255, 255, 0].into()),
        gateway: Some([192, 168, 127, 1].into()),
        addresses: vec![[192, 168, 127, 200].into()],
        ip6: Some("fd00::2".parse().unwrap()),
        inner: None,
        claimed: vec!["fe80::1".parse().unwrap()],
        mtu: Some(1500),
        policy: Some("open".into()),
        limits: Some(Limits { rx_mbit: Some(100), ..Limits::default() }.into()),
        expose: vec![],
        nics: Box::new([NicView {
            mode: Mode::Bridged,
            network: "default".into(),
            tap: TapName::try_from(String::from("vttap-web")).unwrap(),
            ifindex: Some(4),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            queues: 1,
            ip: Some([192, 168, 127, 2].into()),
            netmask: Some([255, 255, 255, 0].into()),
            gateway: Some([192, 168, 127, 1].into()),
            addresses: vec![],
            ip6: Some("fd00::2".parse().unwrap()),
            inner: None,
            claimed: vec![],
            mtu: 1500,
            policy: Some("open".into()),
            limits: Some(Limits::default().into()),
            expose: vec![],
        }]),
        cid: 3,
        vsock: false,
        kernel_args: "".into(),
        ephemeral: false,
        owner: None,
        attachment: None,
        hypervisor: None,
        pid: None,
        uid: None,
        budget: None,
        kvm: None,
        exit_code: None,
        exit_signal: None,
        last_error: None,
        restarts: 0,
        created_at: 1,
        started_at: None,
    }
}

const VM: &str = concat!(
    r#"{"name":"web","mode":"bridged","status":"created","problem":null,"#,
    r#""network":"default","tap":"vttap-web","#,
    r#""ifindex":4,"mac":"02:00:00:00:00:01","ip":"192.168.127.2","netmask":"255.255.255.0","#,
    r#""gateway":"192.168.127.1","addresses":["192.168.127.200"],"ip6":"fd00::2","inner":null,"#,
    r#""claimed":["fe80::1"],"mtu":1500,"policy":"open","#,
    r#""limits":{"rx_mbit":100,"tx_mbit":null,"burst_kb":null,"pps":null},"expose":[],"#,
    r#""nics":[{"mode":"bridged","network":"default","tap":"vttap-web","ifindex":4,"#,
    r#""mac":"02:00:00:00:00:01","queues":1,"ip":"192.168.127.2","netmask":"255.255.255.0","#,
    r#""gateway":"192.168.127.1","addresses":[],"ip6":"fd00::2","inner":null,"claimed":[],"#,
    r#""mtu":1500,"#,
    r#""policy":"open","#,
    r#""limits":{"rx_mbit":null,"tx_mbit":null,"burst_kb":null,"pps":null},"expose":[]}],"#,
    r#""cid":3,"vsock":false,"kernel_args":"","ephemeral":false,"owner":null,"attachment":null,"#,
    r#""hypervisor":null,"pid":null,"uid":null,"budget":null,"#,
    r#""kvm":null,"exit_code":null,"exit_signal":null,"#,
    r#""last_error":null,"restarts":0,"created_at":1,"started_at":null}"#,
);

#[test]
fn every_reply_has_the_parameters_of_its_method() {
    use request::Reply;
    let s = String::from;
    let event = Event {
        sequence: 1,
        at: 2,
        kind: EventKind::VmCreated,
        vm: None,
        message: s("m"),
        by_pid: None,
        by_name: None,
    };
    let finding = Finding { check: s("kvm"), level: Level::Ok, message: s("m"), hint: None };
    let way = TraceWay {
        packet: s("arp"),
        packets: 1,
        steps: vec![s("dropped: x")],
        end: TraceEnd::Dropped,
        message: s("m"),
    };
    let version = Reply::Version {
        version: s("1"),
        kernel: s("6"),
        backend: s("linux"),
        missing: vec![s("no owned tables")],
    };
    let table = [
        (Reply::Plan { plan: vec![s("a")] }, s(r#"{"plan":["a"]}"#)),
        (
            Reply::Created { vm: Box::new(vm()), plan: vec![], notes: vec![] },
            format!(r#"{{"vm":{VM},"plan":[]}}"#),
        ),
        (
            Reply::Created { vm: Box::new(vm()), plan: vec![], notes: vec![s("n")] },
            format!(r#"{{"vm":{VM},"plan":[],"notes":["n"]}}"#),
        ),
        (Reply::Vm { vm: Box::new(vm()) }, format!(r#"{{"vm":{VM}}}"#)),
        (Reply::Deleted, s("{}")),
        (Reply::Detached { released: true }, s(r#"{"released":true}"#)),
        (Reply::Vms, s(r#"{"vms":[]}"#)),
        (
            Reply::Args { args: vec![s("-x")], kernel_args: s("ip=") },
            s(r#"{"args":["-x"],"kernel_args":"ip="}"#),
        ),
        (Reply::Networks { networks: vec![] }, s(r#"{"networks":[]}"#)),
        (
            version,
            s(r#"{"version":"1","kernel":"6","backend":"linux","missing":["no owned tables"]}"#),
        ),
        (
            Reply::Findings { findings: vec![finding] },
            s(r#"{"findings":[{"check":"kvm","level":"ok","message":"m","hint":null}]}"#),
        ),
        (
            Reply::Ways { ways: vec![way], lost: false },
            s(concat!(
                r#"{"ways":[{"packet":"arp","packets":1,"steps":["dropped: x"],"#,
                r#""end":"dropped","message":"m"}],"lost":false}"#
            )),
        ),
        (
            Reply::Event { event },
            s(concat!(
                r#"{"event":{"sequence":1,"at":2,"kind":"vm_created","vm":null,"message":"m","#,
                r#""by_pid":null,"by_name":null}}"#
            )),
        ),
        (Reply::Metrics, s(r#"{"text":""}"#)),
        (Reply::Usage { at_ms: 7 }, s(r#"{"at_ms":7,"vms":[]}"#)),
    ];
    for (answer, parameters) in table {
        let mut out = Vec::new();
        reply(&mut out, &answer, false, Terminator::Newline);
        assert_eq!(out, format!("{{\"parameters\":{parameters}}}\n").as_bytes());
    }
}

#[test]
fn replies_that_continue_say_so() {
    let mut out = Vec::new();
    reply(&mut out, &request::Reply::Vms, true, Terminator::Nul);
    assert_eq!(out, b"{\"parameters\":{\"vms\":[]},\"continues\":true}\0");
    let read = client::decode(&out[..out.len() - 1]).unwrap();
    assert!(read.continues);
}

/// However long the parts of a reply with all VMs are, together they are the same bytes.
#[test]
fn a_reply_in_parts_is_the_whole_reply() {
    let named = |name: &str| VmView { name: VmName::new(name).unwrap(), ..vm() };
    let all = ["a", "web", "z"].map(named);
    for size in [1, 1000, 2000, usize::MAX] {
        let (mut list, mut out, mut parts) = (VmsReply::default(), Vec::new(), 0);
        loop {
            let last = list.last().cloned();
            let rest = all.iter().filter(|vm| last.as_ref().is_none_or(|last| *last < vm.name));
            let mut part = Vec::new();
            let is_last = list.part(&mut part, rest.cloned(), size);
            (out, parts) = ([out, part].concat(), parts + 1);
            if is_last {
                break;
            }
        }
        list.end(&mut out, true, Terminator::Nul);
        let read = client::decode(&out[..out.len() - 1]).unwrap();
        let expected = serde_json::to_value(&all).unwrap();
        assert_eq!((&read.parameters["vms"], read.continues), (&expected, true));
        assert_eq!(parts == 1, size == usize::MAX);
        let mut whole = Vec::new();
        VmsReply::default().whole(&mut whole, all.clone(), true, Terminator::Nul);
        assert_eq!(out, whole);
    }
    let mut out = Vec::new();
    VmsReply::default().whole(&mut out, [vm()], false, Terminator::Newline);
    assert_eq!(out, format!("{{\"parameters\":{{\"vms\":[{VM}]}}}}\n").as_bytes());
}

/// The fields of a type, as the interface declares it.
fn declared(name: &str) -> Vec<&'static str> {
    let (_, rest) = VOLNET.split_once(&format!("\ntype {name} (")).expect("a type");
    let (fields, _) = rest.split_once("\n)").expect("its end");
    let lines = fields.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split_once(':')?.0)).collect()
}

#[test]
fn the_interface_declares_what_replies_have() {
    let port = Expose {
        protocol: Protocol::Sctp,
        port: 80,
        host_port: 8080,
        count: 2,
        host_ip: Some([192, 0, 2, 1].into()),
        name: Some("web".into()),
    };
    let mut vm = serde_json::to_value(vm()).expect("JSON");
    let exposed = serde_json::to_value(port).expect("JSON");
    assert!(VOLNET.contains("(tcp, udp, sctp)"), "the protocol {}", exposed["protocol"]);
    let limits = serde_json::to_value(Limits::default().in_force()).expect("JSON");
    let nic = vm["nics"][0].take();
    let usage = serde_json::to_value(UsageView {
        name: VmName::new("web").unwrap(),
        status: Status::Running,
        ip: None,
        pid: None,
        rx_bytes: 1,
        rx_packets: 2,
        tx_bytes: 3,
        tx_packets: 4,
        denied: 5,
        limited: 6,
        unread: 7,
        overrun: 8,
        spoofed: 9,
        cpu_us: None,
        memory_bytes: None,
    });
    let usage = usage.expect("JSON");
    for (name, value) in
        [("Vm", &vm), ("Nic", &nic), ("Expose", &exposed), ("Limits", &limits), ("VmUsage", &usage)]
    {
        let (declared, fields) = (declared(name), value.as_object().expect("an object"));
        let strange = fields.keys().find(|field| !declared.contains(&field.as_str()));
        assert_eq!(strange, None, "{name} has {declared:?}");
    }
}
