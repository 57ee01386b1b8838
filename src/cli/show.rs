//! Shows replies to people. Fields are in the interface's order, not in that of the reply.

use serde_json::{Map, Value};

use super::table;

const MS_PER_DAY: i64 = 86_400_000;

/// The fields of a VM, in the order in which they are shown.
const VM_FIELDS: [&str; 36] = [
    "name",
    "mode",
    "status",
    "problem",
    "network",
    "ip",
    "netmask",
    "gateway",
    "addresses",
    "ip6",
    "claimed",
    "mac",
    "inner",
    "mtu",
    "policy",
    "limits",
    "expose",
    "tap",
    "ifindex",
    "cid",
    "vsock",
    "kernel_args",
    "ephemeral",
    "owner",
    "attachment",
    "hypervisor",
    "pid",
    "uid",
    "budget",
    "kvm",
    "exit_code",
    "exit_signal",
    "last_error",
    "restarts",
    "created_at",
    "started_at",
];

/// One VM: every field that it has. What is about its first NIC stands among them; the fields of
/// further NICs follow, as `ip/1`.
pub(super) fn vm(vm: &Value) -> String {
    let own = fields(vm).map(|(field, value)| (field.to_string(), value));
    let nics = vm["nics"].as_array().into_iter().flatten().enumerate().skip(1);
    let further = nics.flat_map(|(at, nic)| {
        fields(nic).map(move |(field, value)| (format!("{field}/{at}"), value))
    });
    let all: Vec<(String, String)> = own.chain(further).collect();
    let pairs: Vec<(&str, String)> =
        all.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
    table::pairs(&pairs)
}

/// The fields that a VM or a NIC has, each as text.
fn fields(of: &Value) -> impl Iterator<Item = (&'static str, String)> {
    VM_FIELDS
        .into_iter()
        .filter(|field| !matches!(&of[*field], Value::Null))
        .map(|field| match field {
            "created_at" | "started_at" => (field, time(&of[field])),
            "addresses" | "claimed" => (field, listed(&of[field])),
            "expose" => (field, exposed(&of[field])),
            "limits" => (field, limits(&of[field])),
            "budget" => (field, budget(&of[field])),
            "inner" => (field, inner(&of[field])),
            "attachment" => (field, attachment(&of[field])),
            "owner" => (field, format!("{}:{}", of[field]["uid"], of[field]["gid"])),
            field => (field, text(&of[field])),
        })
        .filter(|(_, value)| !value.is_empty())
}

/// A list of texts as the argument of a flag; nothing if it is empty.
fn listed(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
}

/// A link and its namespace, with what people call it.
fn attachment(of: &Value) -> String {
    let (ifname, netns) = (text(&of["ifname"]), text(&of["netns"]));
    let place = match (of["host"] == true, of["tap"].as_str()) {
        (true, _) => format!("{ifname} of {} by a tap in {netns}", text(&of["container"])),
        (false, Some(tap)) => format!("{ifname} for {tap} in {netns}"),
        (false, None) => format!("{ifname} in {netns}"),
    };
    let labels = of["labels"].as_object().into_iter().flatten();
    labels.fold(place, |words, (key, value)| format!("{words}, {key}={}", text(value)))
}

/// Limits as flags of `limit`; nothing if there are none.
fn limits(limits: &Value) -> String {
    let options = [("rx", "rx_mbit"), ("tx", "tx_mbit"), ("burst", "burst_kb"), ("pps", "pps")];
    let given = options.map(|(flag, field)| (flag, text(&limits[field])));
    let word = |(flag, value): (&str, String)| format!("--{flag} {value}");
    let given = given.into_iter().filter(|(_, value)| !value.is_empty());
    given.map(word).collect::<Vec<_>>().join(" ")
}

/// A budget as flags of `create`; nothing if there is none.
fn budget(budget: &Value) -> String {
    let io = &budget["io"];
    let given = [
        ("cpu-percent", &budget["cpu_percent"]),
        ("memory-max", &budget["memory_max_mb"]),
        ("read-mb", &io["read_mb"]),
        ("write-mb", &io["write_mb"]),
        ("read-iops", &io["read_iops"]),
        ("write-iops", &io["write_iops"]),
    ];
    let given = given.into_iter().map(|(flag, value)| (flag, text(value)));
    let given = given.filter(|(_, value)| !value.is_empty());
    given.map(|(flag, value)| format!("--{flag} {value}")).collect::<Vec<_>>().join(" ")
}

/// An inner identity as the argument of its flag.
fn inner(inner: &Value) -> String {
    let own = format!("{},{}/{}", text(&inner["mac"]), text(&inner["ip"]), inner["prefix"]);
    let gateway = ["gateway", "gateway_mac"].map(|field| (field, text(&inner[field])));
    let gateway = gateway.into_iter().filter(|(_, value)| !value.is_empty());
    gateway.fold(own, |line, (field, value)| format!("{line},{field}={value}"))
}

/// Ports as arguments of `expose`.
fn exposed(ports: &Value) -> String {
    let word = |port: &Value| {
        let range = |field| match (port[field].as_u64(), port["count"].as_u64()) {
            (Some(first), Some(count)) => format!("{first}-{}", first + count - 1),
            _ => text(&port[field]),
        };
        let [host_port, to] = ["host_port", "port"].map(range);
        let host_ip = match text(&port["host_ip"]) {
            six if six.contains(':') => format!("[{six}]"),
            other => other,
        };
        let parts = [text(&port["protocol"]), host_ip, host_port, to];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":")
    };
    ports.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(" ")
}

/// All VMs.
pub(super) fn vms(vms: &Value) -> String {
    let fields = ["name", "mode", "status", "ip", "tap", "cid"];
    let vms = &either(vms, [("ip", "ip6")]);
    let mut out =
        table::rows(&["NAME", "MODE", "STATUS", "IP", "TAP", "CID"], &cells(vms, &fields));
    for vm in vms.as_array().into_iter().flatten().filter(|vm| !vm["problem"].is_null()) {
        let words = format!("{} has no network: {}", text(&vm["name"]), text(&vm["problem"]));
        table::paragraph(&mut out, &words, 0);
    }
    out
}

/// The networks.
pub(super) fn networks(networks: &Value) -> String {
    let heading = ["NAME", "BRIDGE", "SUBNET", "HOST", "MTU", "NAT", "LEASED", "FREE", "PORTS"];
    let fields = ["name", "bridge", "subnet", "host_ip", "mtu", "nat", "leased", "free", "ports"];
    let networks = either(networks, [("subnet", "subnet6"), ("host_ip", "host_ip6")]);
    table::rows(&heading, &cells(&networks, &fields))
}

/// The items, with the IPv6 field in place of the IPv4 one where there is no IPv4.
fn either<const N: usize>(items: &Value, pairs: [(&str, &str); N]) -> Value {
    let mut items = items.clone();
    for item in items.as_array_mut().into_iter().flatten() {
        for (four, six) in pairs {
            if item[four].is_null() {
                item[four] = item[six].take();
            }
        }
    }
    items
}

fn cells(items: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let row = |item: &Value| fields.iter().map(|field| cell(&item[*field])).collect();
    items.as_array().into_iter().flatten().map(row).collect()
}

fn cell(value: &Value) -> String {
    match text(value) {
        empty if empty.is_empty() => "-".into(),
        text => text,
    }
}

/// The findings of Check, each with its hint.
pub(super) fn findings(findings: &Value) -> String {
    const LEVEL: usize = "warning".len() + 2;
    let mut out = String::new();
    for finding in findings.as_array().into_iter().flatten() {
        let level = text(&finding["level"]);
        out.push_str(&format!("{level:LEVEL$}"));
        let words = format!("{}: {}", text(&finding["check"]), text(&finding["message"]));
        table::paragraph(&mut out, &words, LEVEL);
        let hint = text(&finding["hint"]);
        if !hint.is_empty() {
            out.push_str(&" ".repeat(LEVEL));
            table::paragraph(&mut out, &hint, LEVEL);
        }
    }
    out
}

/// The ways of packets.
pub(super) fn ways(ways: Option<&Value>) -> String {
    const INDENT: usize = 4;
    let mut out = String::new();
    let all = ways.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for way in all {
        let packets = match way["packets"].as_u64() {
            Some(1) => "1 packet".into(),
            _ => format!("{} packets", way["packets"]),
        };
        table::paragraph(&mut out, &format!("{}, {packets}", text(&way["packet"])), 0);
        let steps = way["steps"].as_array().into_iter().flatten().map(text);
        for line in steps.chain([text(&way["message"])]) {
            out.push_str(&" ".repeat(INDENT));
            table::paragraph(&mut out, &line, INDENT);
        }
    }
    out
}

/// The end of a trace: whether it told of a packet at all, and whether some were lost on the way to
/// us. `outside`: the packets that were asked for come from outside.
pub(super) fn end_of_trace(some: bool, outside: bool, lost: Option<&Value>) -> String {
    let mut out = String::new();
    if !some {
        out.push_str(match outside {
            true => "no such packet came to this host\n",
            false => "the guest sent no such packet\n",
        });
    }
    if lost.is_some_and(|lost| *lost == true) {
        out.push_str("there were so many packets that not all could be read\n");
    }
    out
}

/// An event.
pub(super) fn event(event: &Value) -> String {
    let mut out = format!("{}  {:11}", time(&event["at"]), text(&event["kind"]));
    for field in ["vm", "message"] {
        let text = text(&event[field]);
        if !text.is_empty() {
            out.push_str("  ");
            out.push_str(&text);
        }
    }
    match (text(&event["by_name"]).as_str(), event["by_pid"].as_u64()) {
        ("", None) => {}
        ("", Some(pid)) => out.push_str(&format!("  (by process {pid})")),
        (name, None) => out.push_str(&format!("  (by {name})")),
        (name, Some(pid)) => out.push_str(&format!("  (by {name}, process {pid})")),
    }
    out.push('\n');
    out
}

/// The versions.
pub(super) fn version(version: &Map<String, Value>) -> String {
    let field = |name| version.get(name).map(text).unwrap_or_default();
    let missing = version.get("missing").and_then(Value::as_array).into_iter().flatten();
    let missing: String = missing.map(|words| format!("  {}\n", text(words))).collect();
    format!("volnet {}, {} on {}\n{missing}", field("version"), field("backend"), field("kernel"))
}

/// Commands for a shell, one per line.
pub(super) fn plan(plan: Option<&Value>) -> String {
    let lines = plan.and_then(Value::as_array).into_iter().flatten();
    lines.map(|line| format!("{}\n", text(line))).collect()
}

/// A value without quotes; nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        other => other.to_string(),
    }
}

/// Removes control characters: text of a guest, a hypervisor or a process name must not control the
/// terminal.
pub(super) fn printable(text: &str) -> String {
    let legal = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
    text.chars().map(legal).collect()
}

/// Milliseconds since the epoch as a date and a time of day, UTC.
fn time(value: &Value) -> String {
    let Some(ms) = value.as_i64() else { return text(value) };
    let (days, rest) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY) / 1000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day since 1970-01-01. A year begins in March here, so that the leap day
/// is its last day.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    let days = days + EPOCH;
    let (era, day) = (days.div_euclid(DAYS_PER_400_YEARS), days.rem_euclid(DAYS_PER_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, each five months have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era, (month + 2) % 12 + 1);
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_vm() {
        let web = json!({
            "name": "web", "mode": "bridged", "status": "running", "network": "default",
            "tap": "vttap-web", "ifindex": 12,
            "limits": {"rx_mbit": 100, "tx_mbit": null, "burst_kb": null, "pps": 5000},
            "expose": [
                {"protocol": "tcp", "port": 80, "host_port": 8080, "host_ip": null},
                {"protocol": "udp", "port": 53, "host_port": 53, "host_ip": "203.0.113.1"}
            ], "mac": "02:5a:00:11:22:33", "ip": "192.168.127.2",
            "netmask": "255.255.255.0", "gateway": "192.168.127.1", "mtu": 1500, "cid": 3,
            "addresses": ["192.168.127.200", "192.168.127.201"],
            "claimed": ["fe80::7", "fd00::7"],
            "kernel_args": "ip=192.168.127.2::192.168.127.1:255.255.255.0:web:eth0:off",
            "ephemeral": false, "hypervisor": "qemu", "pid": 4711, "kvm": false, "exit_code": null,
            "exit_signal": null, "last_error": null, "restarts": 0,
            "created_at": 1767225600000_i64,
            "started_at": 1767225601999_i64
        });
        assert_eq!(
            vm(&web),
            "\
name         web
mode         bridged
status       running
network      default
ip           192.168.127.2
netmask      255.255.255.0
gateway      192.168.127.1
addresses    192.168.127.200,192.168.127.201
claimed      fe80::7,fd00::7
mac          02:5a:00:11:22:33
mtu          1500
limits       --rx 100 --pps 5000
expose       tcp:8080:80 udp:203.0.113.1:53:53
tap          vttap-web
ifindex      12
cid          3
kernel_args  ip=192.168.127.2::192.168.127.1:255.255.255.0:web:eth0:off
ephemeral    no
hypervisor   qemu
pid          4711
kvm          no
restarts     0
created_at   2026-01-01 00:00:00Z
started_at   2026-01-01 00:00:01Z
"
        );
    }

    #[test]
    fn all_vms() {
        let list = json!([
            {"name": "web", "mode": "bridged", "status": "running", "ip": "192.168.127.2",
             "tap": "vttap-web", "cid": 3},
            {"name": "vault", "mode": "vsock", "status": "created", "ip": null, "tap": null,
             "cid": 4}
        ]);
        assert_eq!(
            vms(&list),
            "\
NAME   MODE     STATUS   IP             TAP        CID
web    bridged  running  192.168.127.2  vttap-web  3
vault  vsock    created  -              -          4
"
        );
    }

    #[test]
    fn all_networks() {
        let list = json!([
            {"name": "default", "bridge": "vbr0", "subnet": "192.168.127.0/24",
             "host_ip": "192.168.127.1", "mtu": 1500, "nat": true, "leased": 2, "free": 251,
             "ports": 3, "ports_free": 1020}
        ]);
        let table = networks(&list);
        assert_eq!(
            table,
            "\
NAME     BRIDGE  SUBNET            HOST           MTU   NAT  LEASED  FREE  PORTS
default  vbr0    192.168.127.0/24  192.168.127.1  1500  yes  2       251   3
"
        );
        assert!(table.lines().all(|line| line.len() <= table::WIDTH));
    }

    #[test]
    fn what_check_found() {
        let list = json!([
            {"check": "kvm", "level": "ok", "message": "/dev/kvm can be used", "hint": null},
            {"check": "forward", "level": "warning",
             "message": "the policy of ip filter FORWARD is drop and there is no rule of \
                        volnet in it",
             "hint": "volnet setup"}
        ]);
        assert_eq!(
            findings(&list),
            "\
ok       kvm: /dev/kvm can be used
warning  forward: the policy of ip filter FORWARD is drop and there is no rule
         of volnet in it
         volnet setup
"
        );
    }

    #[test]
    fn events() {
        let drift = json!({
            "sequence": 7, "at": 951_782_400_000_i64, "kind": "drift", "vm": null,
            "message": "table ip volnet is gone", "by_pid": 7, "by_name": "nft"
        });
        assert_eq!(
            event(&drift),
            "2000-02-29 00:00:00Z  drift        table ip volnet is gone  (by nft, process 7)\n"
        );
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }

    #[test]
    fn what_a_guest_wrote_commands_no_terminal() {
        assert_eq!(text(&"a\u{1b}[2Jb\n\tc".into()), "a?[2Jb\n\tc");
    }
}
