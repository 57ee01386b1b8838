//! The command with a daemon whose answers the test chooses: exit status, output, calls, and the
//! terminal of `console`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::{Value, json};

const VOLNET: &str = env!("CARGO_BIN_EXE_volnet");

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("volnet-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("volnet.sock")
    }

    /// The command with the settings of the folder, and nothing of this host.
    fn volnet(&self, line: &str) -> Command {
        let mut command = Command::new(VOLNET);
        command.args(line.split_ascii_whitespace()).current_dir(&self.0).env_clear();
        for (name, value) in [("SOCKET", "volnet.sock"), ("RUNTIME_DIR", "run"), ("LOG_DIR", "log")]
        {
            command.env(format!("VOLNET_{name}"), self.0.join(value));
        }
        let config = self.0.join("config.json");
        if !config.exists() {
            fs::write(&config, "{}").unwrap();
        }
        command.env("VOLNET_CONFIG", config);
        command
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.volnet(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().expect("an exit status"), text(stdout), text(stderr))
    }

    /// Answers one connection after the other, each call with the next reply; returns the calls.
    fn daemon(&self, connections: Vec<Vec<Value>>) -> JoinHandle<Vec<Value>> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let mut calls = Vec::new();
            for replies in connections {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut call = Vec::new();
                reader.read_until(0, &mut call).unwrap();
                calls.push(serde_json::from_slice(&call[..call.len() - 1]).unwrap());
                for reply in replies {
                    stream.write_all(format!("{reply}\0").as_bytes()).unwrap();
                }
            }
            calls
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn vm(name: &str, status: &str) -> Value {
    json!({"name": name, "mode": "bridged", "status": status, "ip": "192.168.127.2",
        "tap": "vttap-web", "cid": 3, "created_at": 0})
}

#[test]
fn without_a_daemon_the_status_is_3() {
    let folder = Folder::new("unreachable");
    let (status, out, err) = folder.run("list");
    assert_eq!((status, out.as_str()), (3, ""));
    let expected = format!(
        "volnet: cannot reach the daemon at {}: No such file or directory (os error 2)\n",
        folder.socket().display()
    );
    assert_eq!(err, expected);
    assert_eq!(folder.run("version").0, 0);
}

#[test]
fn a_daemon_that_hangs_up_is_not_reachable() {
    let folder = Folder::new("hangs-up");
    let daemon = folder.daemon(vec![vec![]]);
    assert_eq!(folder.run("list").0, 3);
    daemon.join().unwrap();
}

#[test]
fn wrong_usage_is_2_and_help_0() {
    let folder = Folder::new("usage");
    let (status, out, err) = folder.run("fly");
    assert_eq!((status, out.as_str()), (2, ""));
    assert_eq!(err, "volnet: there is no verb \"fly\"; see volnet help\n");
    let (status, out, err) = folder.run("run --help");
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.starts_with("Usage: volnet run NAME"));
}

#[test]
fn settings_that_are_wrong_are_refused_by_name() {
    let folder = Folder::new("settings");
    fs::write(folder.0.join("config.json"), r#"{"networks": [{"mtu": 1}]}"#).unwrap();
    let (status, _, err) = folder.run("list");
    assert_eq!(status, 1);
    assert!(err.starts_with("volnet: config: networks[0].mtu: "), "{err}");
}

#[test]
fn a_destination_with_a_port_that_is_none_is_refused() {
    let folder = Folder::new("destination");
    for port in ["99999", "0", "http"] {
        let (status, _, err) = folder.run(&format!("trace web --to 192.0.2.7:{port}"));
        let expected = format!("volnet: --to 192.0.2.7:{port}: {port:?} is not a port\n");
        assert_eq!((status, err), (1, expected));
    }
}

#[test]
fn an_error_is_said_in_one_sentence() {
    let folder = Folder::new("error");
    let reply = json!({"error": "io.volnet.VmExists", "parameters": {"name": "web"}});
    let daemon = folder.daemon(vec![vec![reply]]);
    let (status, out, err) = folder.run("create web");
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(err, "volnet: VM web exists and was made with other arguments\n");
    daemon.join().unwrap();
}

#[test]
fn lists_as_a_table_and_as_json() {
    let folder = Folder::new("list");
    let reply = json!({"parameters": {"vms": [vm("web", "running")]}});
    let daemon = folder.daemon(vec![vec![reply.clone()], vec![reply.clone()]]);
    let (status, out, _) = folder.run("list");
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "NAME  MODE     STATUS   IP             TAP        CID\n\
         web   bridged  running  192.168.127.2  vttap-web  3\n"
    );
    let (_, out, _) = folder.run("list --json");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), reply["parameters"]);
    let call = json!({"method": "io.volnet.List", "parameters": {}});
    assert_eq!(daemon.join().unwrap(), [call.clone(), call]);
}

#[test]
fn run_sends_documents_and_flags_with_absolute_paths() {
    let folder = Folder::new("run");
    fs::write(folder.0.join("c.json"), r#"{"network": {"mode": "dhcp", "mtu": 1400}}"#).unwrap();
    let daemon = folder.daemon(vec![vec![json!({
        "parameters": {"vm": vm("web", "running"), "plan": []}
    })]]);
    let (status, out, err) =
        folder.run("run web --config c.json --mode bridged --kernel k --disk d.img");
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(
        out.starts_with("name        web\nmode        bridged\nstatus      running\n"),
        "{out}"
    );
    let path = |name| folder.0.join(name).to_str().unwrap().to_owned();
    let expected = json!({
        "name": "web", "start": true, "dry_run": false,
        "config": {"network": {"mode": "bridged", "mtu": 1400}, "kernel_override": path("k")},
        "manifest": {"disks": [{"source": path("d.img"), "format": "raw", "readonly": false}]}
    });
    assert_eq!(daemon.join().unwrap()[0]["parameters"], expected);
}

#[test]
fn notes_about_the_documents_are_warnings() {
    let folder = Folder::new("notes");
    fs::write(folder.0.join("m.json"), r#"{"env": {"A": "b"}}"#).unwrap();
    let daemon = folder.daemon(vec![vec![json!({"parameters": {
        "vm": vm("web", "created"), "plan": [], "notes": ["manifest: env: one", "two\u{1b}[2J"]
    }})]]);
    let (status, out, err) = folder.run("create web --manifest m.json");
    assert_eq!(status, 0);
    assert!(out.starts_with("name        web\n"), "{out}");
    assert_eq!(err, "volnet: warning: manifest: env: one\nvolnet: warning: two?[2J\n");
    daemon.join().unwrap();
}

#[test]
fn a_dry_run_is_a_script() {
    let folder = Folder::new("dry-run");
    let daemon = folder.daemon(vec![vec![json!({
        "parameters": {"vm": vm("web", "created"), "plan": ["ip link add x type dummy"]}
    })]]);
    let (_, out, _) = folder.run("create web --dry-run");
    let (comment, commands): (Vec<&str>, Vec<&str>) =
        out.lines().partition(|line| line.starts_with("# "));
    assert_eq!(comment[0], "# name        web");
    assert_eq!(commands, ["ip link add x type dummy"]);
    daemon.join().unwrap();
}

#[test]
fn one_vm_that_fails_does_not_keep_the_others_from_it() {
    let folder = Folder::new("stop");
    let stopped = |name| json!({"parameters": {"vm": vm(name, "stopped")}});
    let absent = json!({"error": "io.volnet.VmNotFound", "parameters": {"name": "b"}});
    let daemon = folder.daemon(vec![vec![stopped("a")], vec![absent], vec![stopped("c")]]);
    let (status, out, err) = folder.run("stop a b c --timeout 1");
    assert_eq!(status, 1);
    assert_eq!(out, "a: stopped\nc: stopped\n");
    assert_eq!(err, "volnet: there is no VM b\n");
    let calls = daemon.join().unwrap();
    assert_eq!(calls[2]["parameters"], json!({"name": "c", "timeout_ms": 1000}));
}

#[test]
fn check_fails_where_something_is_wrong() {
    let folder = Folder::new("check");
    let reply = |level: &str| {
        let finding = json!({"check": "tun", "level": level, "message": "m", "hint": null});
        vec![json!({"parameters": {"findings": [finding]}})]
    };
    let daemon = folder.daemon(vec![reply("warning"), reply("error")]);
    assert_eq!(folder.run("check"), (0, "warning  tun: m\n".into(), String::new()));
    assert_eq!(folder.run("check"), (1, "error    tun: m\n".into(), String::new()));
    daemon.join().unwrap();
}

#[test]
fn doctor_fails_unless_all_is_well() {
    let folder = Folder::new("doctor");
    let reply = |level: &str| {
        let finding = json!({"check": "tap", "level": level, "message": "m", "hint": "ip a"});
        vec![json!({"parameters": {"findings": [finding]}})]
    };
    let daemon = folder.daemon(vec![reply("ok"), reply("warning"), reply("error")]);
    let shown = |level: &str| format!("{level:9}tap: m\n         ip a\n");
    assert_eq!(folder.run("doctor"), (0, shown("ok"), String::new()));
    assert_eq!(folder.run("doctor web"), (1, shown("warning"), String::new()));
    assert_eq!(folder.run("doctor web"), (1, shown("error"), String::new()));
    let calls = daemon.join().unwrap();
    assert_eq!(calls[0]["method"], "io.volnet.Doctor");
    assert_eq!(calls[1]["parameters"], json!({"name": "web"}));
}

#[test]
fn check_tells_a_user_that_no_daemon_runs() {
    let folder = Folder::new("check-user");
    let program = folder.0.join("volnet");
    fs::copy(VOLNET, &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args("--reuid 65534 --regid 65534 --clear-groups".split(' ')).arg(&program);
    command.args(["check", "--socket"]).arg(folder.socket());
    let output = command.output().expect("setpriv runs");
    let socket = folder.socket();
    let said = format!(
        "volnet: cannot reach the daemon at {}: No such file or directory (os error 2)\n",
        socket.display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn monitor_shows_the_state_and_then_events() {
    let folder = Folder::new("monitor");
    let event = json!({"sequence": 1, "at": 0, "kind": "vm_exited", "vm": "web",
        "message": "status 1", "by_pid": null, "by_name": null});
    let daemon = folder.daemon(vec![vec![
        json!({"parameters": {"vms": []}, "continues": true}),
        json!({"parameters": {"event": event}}),
    ]]);
    let (status, out, _) = folder.run("monitor");
    assert_eq!(status, 0);
    assert_eq!(
        out,
        "NAME  MODE  STATUS  IP  TAP  CID\n1970-01-01 00:00:00Z  vm_exited    web  status 1\n"
    );
    assert_eq!(daemon.join().unwrap()[0]["more"], true);
}

#[test]
fn call_takes_any_method_and_prints_json() {
    let folder = Folder::new("call");
    let answer = vec![json!({"parameters": {"a": 1}})];
    let daemon = folder.daemon(vec![answer.clone(), answer]);
    assert_eq!(folder.run("call Get {\"name\":\"web\"}").1, "{\"a\":1}\n");
    assert_eq!(folder.run("call org.varlink.service.GetInfo").1, "{\"a\":1}\n");
    let calls = daemon.join().unwrap();
    assert_eq!(calls[0], json!({"method": "io.volnet.Get", "parameters": {"name": "web"}}));
    assert_eq!(calls[1]["method"], "org.varlink.service.GetInfo");
    let (status, _, err) = folder.run("call Get [1]");
    assert_eq!(status, 1);
    assert!(err.starts_with("volnet: \"[1]\" is not a JSON object"), "{err}");
}

#[test]
fn logs_are_shown_and_followed_and_stay_in_their_folder() {
    let folder = Folder::new("logs");
    fs::create_dir(folder.0.join("log")).unwrap();
    let log = folder.0.join("log/web.log");
    fs::write(&log, "one\n").unwrap();
    assert_eq!(folder.run("logs web"), (0, "one\n".into(), String::new()));
    assert_eq!(folder.run("logs db").0, 1);
    assert_eq!(folder.run("logs ../web").0, 1);

    let mut follower = folder.volnet("logs -f web").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    assert_eq!(line(), "one");
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"two\n").unwrap();
    assert_eq!(line(), "two");
    fs::write(&log, "new\n").unwrap();
    assert_eq!(line(), "new");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// The console of a VM whose serial port is the returned stream, on a terminal of its own.
fn console(folder: &Folder) -> (std::process::Child, UnixStream, fs::File, OwnedFd) {
    let consoles = folder.0.join("run/console");
    fs::create_dir_all(&consoles).unwrap();
    let listener = UnixListener::bind(consoles.join("web")).unwrap();
    let pty = openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = folder.volnet("console web");
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    let (serial, _) = listener.accept().unwrap();
    let mut screen = fs::File::from(pty.master);
    expect(&mut screen, "Ctrl-] detaches.\r\n");
    (child, serial, screen, pty.slave)
}

/// Reads until this has come.
fn expect(from: &mut impl Read, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut byte = [0];
        assert_eq!(from.read(&mut byte).unwrap(), 1, "only {:?}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
}

/// Whether the terminal does the echo and waits for whole lines, as shells find it.
fn is_cooked(terminal: &OwnedFd) -> bool {
    let flags = tcgetattr(terminal).unwrap().local_flags;
    flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
}

#[test]
fn the_console_carries_every_key_but_one_and_restores_the_terminal() {
    let folder = Folder::new("console");
    let (mut child, mut serial, mut screen, terminal) = console(&folder);
    assert!(!is_cooked(&terminal));
    serial.write_all(b"login: ").unwrap();
    expect(&mut screen, "login: ");
    screen.write_all(b"root\r\x03").unwrap();
    expect(&mut serial, "root\r\x03");
    screen.write_all(b"x\x1dnever").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_cooked(&terminal));
    let mut rest = String::new();
    serial.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "x");
}

#[test]
fn the_terminal_is_restored_when_the_guest_or_a_signal_ends_the_console() {
    let folder = Folder::new("console-end");
    let (mut child, serial, _screen, terminal) = console(&folder);
    drop(serial);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_cooked(&terminal));

    let folder = Folder::new("console-term");
    let (mut child, _serial, _screen, terminal) = console(&folder);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_cooked(&terminal));
}

#[test]
fn a_vm_that_does_not_run_has_no_console() {
    let folder = Folder::new("no-console");
    let (status, _, err) = folder.run("console web");
    assert_eq!(status, 1);
    assert!(err.starts_with("volnet: VM web has no console"), "{err}");
}

#[test]
fn the_service_is_installed_once_and_what_others_wrote_is_replaced_by_force_only() {
    let folder = Folder::new("service");
    let root = folder.0.join("root");
    let files = [
        ("etc/systemd/system/volnet.service", "systemctl daemon-reload"),
        ("etc/systemd/network/10-volnet.network", "networkctl reload, if systemd-networkd runs"),
        (
            "etc/NetworkManager/conf.d/90-volnet.conf",
            "nmcli general reload, if NetworkManager runs",
        ),
        ("etc/systemd/system/volnet-guests.service", "systemctl daemon-reload"),
        ("etc/systemd/system/volnet-vms.service", "systemctl daemon-reload"),
    ];
    let lines = |what: &dyn Fn(&str) -> String| {
        let line = |(path, notice): &(&str, &str)| {
            format!("# {} {}\n", root.join(path).display(), what(notice))
        };
        files.iter().map(line).collect::<String>()
    };
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let ready = || vec![json!({"parameters": {"plan": []}})];
    let daemon = folder.daemon((0..7).map(|_| ready()).collect());
    let line = format!("setup --service --root {} --bridge vmbr9", root.display());

    let dry = folder.run(&format!("{line} --dry-run"));
    assert_eq!(dry, (0, lines(&|_| "would be installed".into()), String::new()));
    assert!(!root.exists());

    let (status, out, _) = folder.run(&line);
    let installed = lines(&|notice| format!("is installed; now: {notice}"));
    assert_eq!((status, out), (0, format!("the host is ready\n{installed}")));
    let unit = text(files[0].0);
    assert!(unit.contains(&format!("\nExecStart={VOLNET} serve --bridge=vmbr9\n")), "{unit}");
    assert!(text(files[1].0).contains("\nName=vmbr9 vttap-*\n"), "{}", text(files[1].0));
    let kept_off = "\nunmanaged-devices+=interface-name:vmbr9,interface-name:vttap-*\n";
    let stop = format!("\nExecStop={VOLNET} stop --all --timeout 60\n");
    assert!(text(files[3].0).contains(&stop), "{}", text(files[3].0));
    assert!(text(files[2].0).contains(kept_off), "{}", text(files[2].0));

    let again = folder.run(&line);
    assert_eq!(again.1, format!("the host is ready\n{}", lines(&|_| "is installed".into())));

    // Refused before the daemon is asked for anything.
    fs::write(root.join(files[0].0), "mine").unwrap();
    assert_eq!(folder.run(&line).0, 1);
    assert_eq!(folder.run(&line.replace("setup", "teardown")).0, 1);
    assert_eq!(text(files[0].0), "mine");
    assert_eq!(folder.run(&format!("{line} --force")).0, 0);
    assert_eq!(text(files[0].0), unit);

    let line = line.replace("setup", "teardown");
    let dry = folder.run(&format!("{line} --dry-run"));
    assert_eq!(dry, (0, lines(&|_| "would be removed".into()), String::new()));
    let removed = lines(&|notice| format!("is removed; now: {notice}"));
    assert_eq!(folder.run(&line), (0, removed, String::new()));
    let none = folder.run(&line);
    assert_eq!(none, (0, "nothing of volnet is here\n".into(), String::new()));
    for (path, _) in files {
        let directory = root.join(path);
        let left = fs::read_dir(directory.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0, "nothing is left beside {path}");
    }
    daemon.join().unwrap();
}

#[test]
fn the_unit_for_systemd_resolved_goes_with_the_service() {
    let folder = Folder::new("resolved");
    let root = folder.0.join("root");
    let unit = root.join("etc/systemd/system/volnet-resolved.service");
    let ready = || vec![json!({"parameters": {"plan": []}})];
    let daemon = folder.daemon((0..4).map(|_| ready()).collect());
    let run = |line: &str| folder.run(&format!("{line} --root {}", root.display()));

    let (status, out, _) = run("setup --resolved --bridge vmbr9");
    assert_eq!((status, out.matches("volnet-resolved.service is installed").count()), (0, 1));
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains("\nExecStart=resolvectl domain vmbr9 ~volnet\n"), "{text}");
    assert_eq!(run("setup --service --bridge vmbr9").0, 0);
    assert!(unit.exists(), "it was not asked for, and stays");
    let (status, out, _) = run("teardown --service --bridge vmbr9");
    assert_eq!((status, out.matches("is removed").count()), (0, 6), "{out}");
    let (status, out, _) = run("teardown --resolved --bridge vmbr9");
    assert_eq!((status, out.as_str()), (0, "nothing of volnet is here\n"));
    let settings = folder.0.join("quiet.json");
    fs::write(&settings, r#"{ "networks": [{ "dns": "off" }] }"#).unwrap();
    let (status, _, error) = run(&format!("setup --resolved --config-file {}", settings.display()));
    assert!(status == 1 && error.contains("--resolved: no network"), "{error}");
    daemon.join().unwrap();
}

#[test]
fn the_plugin_is_installed_beside_what_others_have() {
    let folder = Folder::new("plugin");
    let root = folder.0.join("root");
    let [link, loopback, conflist] =
        ["opt/cni/bin/volnet", "opt/cni/bin/loopback", "etc/cni/net.d/10-volnet.conflist"]
            .map(|path| root.join(path));
    let ready = || vec![json!({"parameters": {"plan": []}})];
    let daemon = folder.daemon((0..7).map(|_| ready()).collect());
    let socket = folder.0.join("volnet.sock").display().to_string();
    let line = format!("setup --cni --root {} --socket {socket}", root.display());
    let lines = |files: &[&PathBuf], what: &str| {
        files.iter().map(|file| format!("# {} {what}\n", file.display())).collect::<String>()
    };
    let all = [&link, &loopback, &conflist];

    let dry = folder.run(&format!("{line} --dry-run"));
    assert_eq!(dry, (0, lines(&all, "would be installed"), String::new()));
    assert!(!root.exists());
    let installed = format!("the host is ready\n{}", lines(&all, "is installed"));
    for _ in 0..2 {
        assert_eq!(folder.run(&line), (0, installed.clone(), String::new()));
    }
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(VOLNET));
    assert_eq!(fs::read_link(&loopback).unwrap(), Path::new(VOLNET));
    let conf: Value = serde_json::from_slice(&fs::read(&conflist).unwrap()).unwrap();
    assert_eq!(conf["plugins"][0]["socket"], socket, "{conf}");

    // Somebody has changed the configuration, and has put a program in place of a link.
    fs::write(&conflist, "mine").unwrap();
    let (status, _, err) = folder.run(&line);
    assert!(status == 1 && err.contains("10-volnet.conflist exists and has other"), "{err}");
    assert_eq!(folder.run(&line.replace("setup", "teardown")).0, 1);
    assert_eq!(fs::read(&conflist).unwrap(), b"mine");
    fs::remove_file(&conflist).unwrap();
    fs::remove_file(&link).unwrap();
    fs::write(&link, "theirs").unwrap();
    assert_eq!(folder.run(&line).0, 1);
    assert!(!conflist.exists(), "all are checked before the first is made");
    assert_eq!(fs::read(&link).unwrap(), b"theirs");
    assert_eq!(folder.run(&format!("{line} --force")).0, 0);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(VOLNET));

    // A loopback plugin of somebody else does as well, with force and without.
    fs::remove_file(&loopback).unwrap();
    fs::write(&loopback, "theirs").unwrap();
    let installed = format!("the host is ready\n{}", lines(&[&link, &conflist], "is installed"));
    assert_eq!(folder.run(&line), (0, installed.clone(), String::new()));
    assert_eq!(folder.run(&format!("{line} --force")), (0, installed, String::new()));
    let line = line.replace("setup", "teardown");
    let removed = lines(&[&link, &conflist], "is removed");
    assert_eq!(folder.run(&line), (0, removed, String::new()));
    assert!(!conflist.exists() && fs::symlink_metadata(&link).is_err());
    assert_eq!(fs::read(&loopback).unwrap(), b"theirs");
    daemon.join().unwrap();
}

/// What bash offers where the last of these words is being typed.
fn offered(words: &[&str]) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source packaging/volnet.bash; COMP_WORDS=({}); COMP_CWORD={}; _volnet; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words.len() - 1
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    assert_eq!(offered(&["volnet", "li"]), ["limit", "list"]);
    assert_eq!(offered(&["volnet", "--json", "li"]), ["limit", "list"]);
    assert_eq!(offered(&["volnet", "doc"]), ["doctor"]);
    assert_eq!(offered(&["volnet", "run", "web", "--mo"]), ["--mode"]);
    assert_eq!(offered(&["volnet", "run", "web", "--mode", "v"]), ["vsock"]);
    // bash makes a word of its own of the sign.
    assert_eq!(offered(&["volnet", "run", "web", "--mode", "=", "v"]), ["vsock"]);
    assert_eq!(offered(&["volnet", "run", "--mode", "="]), ["bridged", "dhcp", "vsock"]);
    assert_eq!(offered(&["volnet", "--json", "stop", "--ti"]), ["--timeout"]);
    assert_eq!(offered(&["volnet", "completion", "z"]), ["zsh"]);
    // One flag has another value for another verb.
    let is_path = |verb: &str| {
        offered(&["volnet", verb, "a", "--from", "/etc/host"]).contains(&"/etc/hosts".to_string())
    };
    assert!(is_path("run") && is_path("create") && !is_path("trace"));
}
