//! Clients that do not know volnet: Varlink's own for Python, and `nc`.

#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::daemon::Daemon;
use common::in_namespace;

/// Introspection, calls, an error of the interface, and a call with more than one reply.
const SCRIPT: &str = r#"
import sys, varlink
client = varlink.Client(address="unix:" + sys.argv[1])
client.get_interfaces()
print("interfaces:", *sorted(client.info["interfaces"]))
with client.open("io.volnet") as volnet:
    vm = volnet.Create(name="web", config={"network": {"mode": "dhcp"}})["vm"]
    print("created:", vm["tap"], vm["mode"], vm.get("ip"))
    print("listed:", [vm["name"] for vm in volnet.List()["vms"]])
    try:
        volnet.Get("nobody")
    except varlink.VarlinkError as error:
        print("error:", error.error(), dict(error.parameters()))
    for reply in volnet.Monitor(_more=True):
        print("monitor:", [vm["name"] for vm in reply["vms"]])
        break
with client.open("io.volnet") as volnet:
    print("deleted:", volnet.Delete("web"))
"#;

const EXPECTED: &str = "\
interfaces: io.volnet org.varlink.service
created: vttap-web dhcp None
listed: ['web']
error: io.volnet.VmNotFound {'name': 'nobody'}
monitor: ['web']
deleted: {}
";

#[test]
fn the_varlink_client_of_python_drives_it() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/varlink/bin/python3");
    assert!(python.exists(), "run scripts/varlink-client.sh first");
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let output = Command::new(python)
            .args(["-c", SCRIPT])
            .arg(daemon.socket())
            .output()
            .expect("python runs");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out, EXPECTED, "{err}");
    });
}

#[test]
fn nc_gets_one_line_for_one_line() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let socket = daemon.socket();
        let line = r#"echo '{"method":"io.volnet.List"}' | nc -N -U "$0""#;
        let output = Command::new("sh")
            .args(["-c", line])
            .arg(socket)
            .stdin(Stdio::null())
            .output()
            .expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"parameters\":{\"vms\":[]}}\n");
    });
}
