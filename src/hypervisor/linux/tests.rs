//! Tests with real processes: `/bin/sh` instead of hypervisors.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;

use super::*;
use crate::store::tests::Scratch;

/// How long a test waits at most. It takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// A runtime directory and a VM whose hypervisor is a shell script.
struct Bench {
    scratch: Scratch,
    name: VmName,
    processes: LinuxProcesses,
}

impl Bench {
    fn new() -> Bench {
        let scratch = Scratch::new();
        let processes = LinuxProcesses::new(scratch.path(), None).unwrap();
        Bench { scratch, name: VmName::new("vm-1").unwrap(), processes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn logs(&self) -> Logs {
        Logs::of(&self.path("logs"), &self.name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn spawn(&mut self, command: &HypervisorCommand) -> Result<ProcessId, Failure> {
        let streams = self.processes.open_streams(&self.name, &self.logs(), false)?;
        self.processes.spawn(
            &self.name,
            command,
            Given { user: None, cgroup: None, streams, taps: Vec::new(), memory: None },
        )
    }

    fn run(&mut self, script: &str) -> ProcessId {
        self.spawn(&shell(script)).unwrap()
    }

    /// Waits for the end of the process and reaps it.
    fn exit(&mut self) -> Exit {
        let mut exit = None;
        until(|| {
            exit = self.processes.reap(&self.name);
            exit.is_some()
        });
        exit.unwrap()
    }

    /// Another daemon takes over. The process stays our child: it is the same test process.
    fn restart(&mut self) {
        self.processes = LinuxProcesses::new(self.scratch.path(), None).unwrap();
    }

    /// The pid that a script wrote to a file.
    fn pid_in(&self, file: &str) -> u32 {
        until(|| self.text(file).ends_with('\n'));
        self.text(file).trim().parse().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.processes.kill(&self.name);
    }
}

fn shell(script: &str) -> HypervisorCommand {
    HypervisorCommand {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        inherits: Vec::new(),
        files: vec![],
        links: vec![],
        directory: None,
        helpers: Vec::new(),
        ready: None,
        control: Control::Terminate,
        events: None,
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "it did not happen in time");
        std::thread::yield_now();
    }
}

/// Whether a process is gone, or is a zombie that init has not reaped yet.
fn is_over(pid: u32) -> bool {
    Stat::read(pid).map_or(true, Stat::is_zombie)
}

/// Starts a process for the VM that is not our child: its parent ends at once. Returns its id.
fn spawn_stranger(bench: &mut Bench, script: &str) -> ProcessId {
    let file = bench.path("stranger");
    let _ = fs::remove_file(&file);
    let inner = format!("echo $$ > {0}.new; mv {0}.new {0}; {script}", file.display());
    // `setsid` gives it a group of its own, as a hypervisor has.
    let outer = shell(&format!("setsid sh -c '{inner}' & exit 0"));
    // Reaping the parent ends its group, but the stranger has left that group.
    bench.spawn(&outer).unwrap();
    let pid = bench.pid_in("stranger");
    assert_eq!(bench.exit(), Exit::Code(0));
    let start_time = Stat::read(pid).unwrap().start_time;
    ProcessId { pid, start_time, boot_id: bench.processes.boot_id.clone() }
}

#[test]
fn a_process_gets_what_is_named_and_nothing_else() {
    let mut bench = Bench::new();
    // Given that the test inherited do not count.
    volnet_ffi::descriptors::keep_from_children().unwrap();
    let script = "env | sort; echo oops >&2; ls /proc/self/fd; cat; cat $0; exit 7";
    let mut command = shell(script);
    let file = bench.path("fc.json");
    command.args.push(file.display().to_string());
    command.files = vec![(file, "{}\n".into())];
    bench.spawn(&command).unwrap();
    assert_eq!(bench.exit(), Exit::Code(7));
    let log = bench.text("logs/vm-1.log");
    let path = env!("PATH");
    let runtime = bench.scratch.path().display();
    // `ls` has 3 open for the directory itself; a shell may set PWD and the like on its own.
    assert!(log.starts_with("--- volnet starts sh\n"), "{log}");
    assert!(log.contains(&format!("PATH={path}\n")) || std::env::var("PATH").unwrap() != path);
    assert!(log.contains(&format!("\nVOLNET_RUNTIME={runtime}\nVOLNET_VM=vm-1\n")), "{log}");
    assert!(log.ends_with("\n0\n1\n2\n3\n{}\n"), "{log}");
    assert!(!log.contains("HOME="), "{log}");
    assert_eq!(bench.logs().tail_of_console().unwrap().lines().last(), Some("{}"));
    assert_eq!(bench.text("logs/hypervisor/vm-1.log"), "--- volnet starts sh\noops\n");
    assert_eq!(bench.logs().tail().as_deref(), Some("oops"));
}

#[test]
fn a_program_that_cannot_be_executed_is_named() {
    let mut bench = Bench::new();
    let text = bench.path("text");
    fs::write(&text, "not a program").unwrap();
    let mut permissions = fs::metadata(&text).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&text, permissions).unwrap();
    let text = text.display().to_string();
    for (program, why) in [
        ("volnet-no-such".to_owned(), "it is not in PATH"),
        ("/etc/passwd".to_owned(), "it is not an executable file"),
        (text, "Exec format error (os error 8)"),
    ] {
        let command = HypervisorCommand { program: program.clone(), ..shell("") };
        let reason = format!("cannot start {program}: {why}");
        let failure = Failure::Hypervisor { name: "vm-1".into(), reason, log: None };
        assert_eq!(bench.spawn(&command).unwrap_err(), failure);
        assert_eq!(bench.processes.pidfd(&bench.name), None);
    }
}

#[test]
fn one_process_at_a_time() {
    let mut bench = Bench::new();
    bench.run("exec sleep 600");
    assert!(bench.spawn(&shell("exit 0")).is_err());
    assert!(bench.processes.pidfd(&bench.name).is_some());
    assert_eq!(bench.processes.reap(&bench.name), None);
    bench.processes.terminate(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGTERM));
    assert!(bench.processes.terminate(&bench.name).is_err());
    bench.run("exit 0");
    assert_eq!(bench.exit(), Exit::Code(0));
}

#[test]
fn kill_takes_the_group() {
    let mut bench = Bench::new();
    let file = bench.path("pid").display().to_string();
    bench.run(&format!("trap '' TERM; sleep 600 & echo $! > {file}; wait; wait"));
    let sleep = bench.pid_in("pid");
    assert!(!is_over(sleep));
    bench.processes.kill(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    until(|| is_over(sleep));
}

#[test]
fn the_group_is_killed_by_number_only_with_its_member() {
    let mut bench = Bench::new();
    let file = bench.path("pid").display().to_string();
    let id = bench.run(&format!("sleep 600 & echo $! > {file}; wait"));
    let sleep = bench.pid_in("pid");
    let watched = bench.processes.watched.get_mut(&bench.name).unwrap();
    watched.kill_number(id.pid + 1);
    watched.id.start_time += 1;
    watched.kill_number(id.pid);
    assert!(!is_over(sleep) && !is_over(id.pid));
    watched.id.start_time -= 1;
    watched.kill_number(id.pid);
    until(|| is_over(sleep));
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
}

#[test]
fn what_a_hypervisor_leaves_in_its_group_ends_with_it() {
    let mut bench = Bench::new();
    let file = bench.path("pid").display().to_string();
    bench.run(&format!("sleep 600 & echo $! > {file}; exit 3"));
    assert_eq!(bench.exit(), Exit::Code(3));
    let sleep = bench.pid_in("pid");
    until(|| is_over(sleep));
}

#[test]
fn a_child_is_adopted_by_the_next_daemon() {
    let mut bench = Bench::new();
    let id = bench.run("sleep 600 & wait; exit 1");
    bench.restart();
    assert_eq!(bench.processes.reap(&bench.name), None);
    assert_eq!(bench.processes.find(&bench.name), Some(id.clone()));
    assert!(bench.processes.adopt(&bench.name, &id).unwrap());
    bench.processes.kill(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    assert!(!bench.processes.adopt(&bench.name, &id).unwrap());
    until(|| bench.processes.find(&bench.name).is_none());
}

/// volnet goes on from vfork(2) as soon as execve(2) has replaced the memory of its child, and the
/// child shows no environment until that is filled.
#[test]
fn a_process_is_found_in_the_moment_of_its_execve() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let id = bench.run("exec sleep 600");
        bench.restart();
        assert_eq!(bench.processes.find(&bench.name), Some(id.clone()));
        assert!(bench.processes.adopt(&bench.name, &id).unwrap());
        bench.processes.kill(&bench.name).unwrap();
        assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    }
}

#[test]
fn a_strangers_status_is_known() {
    let mut bench = Bench::new();
    let go = bench.path("go").display().to_string();
    let script = format!("while ! [ -e {go} ]; do sleep 0.01; done; exit 9");
    let id = spawn_stranger(&mut bench, &script);
    assert!(bench.processes.adopt(&bench.name, &id).unwrap());
    assert_eq!(bench.processes.reap(&bench.name), None);
    fs::write(&go, "").unwrap();
    assert_eq!(bench.exit(), Exit::Code(9));

    let id = spawn_stranger(&mut bench, "exec sleep 600");
    assert!(bench.processes.adopt(&bench.name, &id).unwrap());
    bench.processes.terminate(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGTERM));
}

#[test]
fn another_process_with_the_same_pid_is_told_apart() {
    let mut bench = Bench::new();
    let id = bench.run("exec sleep 600");
    let (other, pids) = (id.clone(), bench.processes.boot_id.clone());
    assert_eq!(other.boot_id, pids);
    let later = ProcessId { start_time: id.start_time + 1, ..id.clone() };
    let reboot = ProcessId { boot_id: "another".into(), ..id.clone() };
    let nobody = ProcessId { pid: i32::MAX as u32, ..id.clone() };
    let no_pid = ProcessId { pid: u32::MAX, ..id };
    let name = VmName::new("vm-2").unwrap();
    for id in [later, reboot, nobody, no_pid] {
        assert!(!bench.processes.adopt(&name, &id).unwrap(), "{id:?}");
        assert_eq!(bench.processes.pidfd(&name), None);
    }
}

#[test]
fn a_zombie_is_told_apart() {
    let mut bench = Bench::new();
    let id = bench.run("exit 0");
    until(|| Stat::read(id.pid).unwrap().is_zombie());
    let mut next = LinuxProcesses::new(bench.scratch.path(), None).unwrap();
    assert!(!next.adopt(&bench.name, &id).unwrap());
    assert_eq!(next.find(&bench.name), None);
    assert_eq!(bench.exit(), Exit::Code(0));
}

#[test]
fn a_vm_of_the_same_name_in_another_runtime_directory_is_not_found() {
    let mut bench = Bench::new();
    let id = bench.run("exec sleep 600");
    let mut other = LinuxProcesses::new("/another", None).unwrap();
    assert_eq!(other.find(&bench.name), None);
    assert_eq!(bench.processes.find(&VmName::new("vm-10").unwrap()), None);
    assert_eq!(bench.processes.find(&bench.name), Some(id));
}

/// A hypervisor with a helper that writes its pid to `helper` and makes the file `ready`.
fn helped(bench: &Bench, script: &str) -> HypervisorCommand {
    let (pid, ready) = (bench.path("helper"), bench.path("ready"));
    let (pid, made) = (pid.display(), ready.display());
    let helper = shell(&format!("echo $$ > {pid}; echo > {made}; exec sleep 600"));
    let helper = HypervisorCommand { ready: Some(ready), ..helper };
    HypervisorCommand { helpers: vec![helper], ..shell(script) }
}

#[test]
fn a_helper_lives_as_long_as_its_hypervisor() {
    let mut bench = Bench::new();
    let ready = bench.path("ready").display().to_string();
    let command = helped(&bench, &format!("[ -e {ready} ] && exit 4"));
    bench.spawn(&command).unwrap();
    let helper = bench.pid_in("helper");
    assert_eq!(bench.exit(), Exit::Code(4));
    until(|| is_over(helper));
    assert!(Stat::read(helper).is_err(), "the helper is a zombie");

    fs::remove_file(bench.path("helper")).unwrap();
    let id = bench.spawn(&helped(&bench, "exec sleep 600")).unwrap();
    let helper = bench.pid_in("helper");
    assert_eq!(Stat::read(id.pid).unwrap().group, helper);
    bench.restart();
    assert_eq!(bench.processes.find(&bench.name), Some(id.clone()));
    assert!(bench.processes.adopt(&bench.name, &id).unwrap());
    bench.processes.kill(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    until(|| is_over(helper));
}

#[test]
fn all_helpers_end_with_the_hypervisor_also_where_the_first_has_ended() {
    let mut bench = Bench::new();
    let mut command = helped(&bench, "exec sleep 600");
    let pid = bench.path("second");
    let second = shell(&format!("echo $$ > {}; exec sleep 600", pid.display()));
    command.helpers.push(second);
    let id = bench.spawn(&command).unwrap();
    let [first, second] = ["helper", "second"].map(|file| bench.pid_in(file));
    let group = |pid| Stat::read(pid).unwrap().group;
    assert_eq!([group(id.pid), group(second)], [first, first]);
    kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
    until(|| is_over(first));
    bench.restart();
    assert_eq!(bench.processes.find(&bench.name), Some(id.clone()));
    assert!(bench.processes.adopt(&bench.name, &id).unwrap());
    bench.processes.sweep();
    assert!(!is_over(second), "its hypervisor runs");
    bench.processes.kill(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    until(|| is_over(second));
}

/// The daemon may crash after it has started a helper, or the hypervisor may end while no daemon
/// runs.
#[test]
fn a_helper_without_its_hypervisor_is_ended_by_the_next_daemon() {
    for is_known in [true, false] {
        let mut bench = Bench::new();
        let id = bench.spawn(&helped(&bench, "exec sleep 600")).unwrap();
        let helper = bench.pid_in("helper");
        if is_known {
            bench.restart();
            assert_eq!(bench.processes.find(&bench.name), Some(id.clone()));
        }
        kill(Pid::from_raw(id.pid as i32), Signal::SIGKILL).unwrap();
        until(|| is_over(id.pid));
        if is_known {
            assert!(!bench.processes.adopt(&bench.name, &id).unwrap());
        } else {
            bench.restart();
            assert_eq!(bench.processes.find(&bench.name), None);
        }
        assert!(!is_over(helper));
        bench.processes.sweep();
        assert!(is_over(helper));
    }
}

#[test]
fn a_helper_that_fails_is_the_start_that_fails() {
    let mut bench = Bench::new();
    let mut command = shell("exec sleep 600");
    let ready = Some(bench.path("never"));
    let helper = HypervisorCommand { ready, ..shell("echo no such socket; exit 1") };
    command.helpers = vec![helper];
    let reason = "sh ended at once".into();
    let failure = Failure::Hypervisor { name: "vm-1".into(), reason, log: None };
    assert_eq!(bench.spawn(&command).unwrap_err(), failure);
    let said = bench.logs().tail();
    assert_eq!(said.as_deref(), Some("no such socket"));

    let mut command = helped(&bench, "");
    command.program = "/nonexistent".into();
    bench.spawn(&command).unwrap_err();
    let helper = bench.pid_in("helper");
    assert!(Stat::read(helper).is_err(), "the helper still exists");
}

/// Asks a process whose control socket is ours, and returns the bytes that were sent to it.
fn asked(control: impl Fn(PathBuf) -> Control, order: Order, length: usize) -> String {
    let mut bench = Bench::new();
    let socket = bench.path("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    bench.run("exec sleep 600");
    bench.processes.ask(&bench.name, &control(socket), order).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut request = vec![0; length];
    stream.read_exact(&mut request).unwrap();
    // Nothing follows and the connection is kept: QEMU would forget what it has not executed.
    stream.set_nonblocking(true).unwrap();
    let more = stream.read(&mut [0]).unwrap_err();
    assert_eq!(more.kind(), io::ErrorKind::WouldBlock);
    bench.processes.kill(&bench.name).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGKILL));
    // A process that another test starts has all descriptors until it calls execve(2).
    stream.set_nonblocking(false).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    String::from_utf8(request).unwrap()
}

#[test]
fn each_hypervisor_is_asked_in_its_own_way() {
    let qmp = asked(Control::Qmp, Order::PowerOff, 62);
    let commands: Vec<_> = qmp.lines().collect();
    let expected = ["{\"execute\":\"qmp_capabilities\"}", "{\"execute\":\"system_powerdown\"}"];
    assert_eq!((commands.as_slice(), qmp.ends_with('\n')), (expected.as_slice(), true));

    let http = asked(Control::CloudHypervisor, Order::PowerOff, 70);
    assert!(http.starts_with("PUT /api/v1/vm.power-button HTTP/1.1\r\n"), "{http}");
    assert!(http.ends_with("\r\n\r\n"), "{http}");

    let http = asked(Control::Firecracker, Order::PowerOff, 139);
    let (head, body) = http.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("PUT /actions HTTP/1.1\r\n"), "{head}");
    assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    assert_eq!(body, "{\"action_type\":\"SendCtrlAltDel\"}");
}

#[test]
fn a_paused_guest_is_let_go_on_before_it_is_asked_to_power_off() {
    let qmp = asked(Control::Qmp, Order::WakeAndPowerOff, 81);
    let words = qmp.lines().map(|line| line.split('"').nth(3).unwrap()).collect::<Vec<_>>();
    assert_eq!(words, ["qmp_capabilities", "cont", "system_powerdown"]);
    let qmp = asked(Control::Qmp, Order::Pause, 77);
    let words = qmp.lines().map(|line| line.split('"').nth(3).unwrap()).collect::<Vec<_>>();
    assert_eq!(words, ["qmp_capabilities", "stop", "query-status"]);

    let http = asked(Control::Firecracker, Order::WakeAndPowerOff, 262);
    let resume = "\r\nContent-Length: 19\r\n\r\n{\"state\":\"Resumed\"}PUT /actions HTTP/1.1\r\n";
    assert!(http.starts_with("PATCH /vm HTTP/1.1\r\n") && http.contains(resume), "{http}");
    let http = asked(Control::Firecracker, Order::Pause, 170);
    let pause = "\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}GET / HTTP/1.1\r\n";
    assert!(http.starts_with("PATCH /vm HTTP/1.1\r\n") && http.contains(pause), "{http}");
}

#[test]
fn one_that_cannot_be_asked_is_an_error_at_once() {
    let mut bench = Bench::new();
    bench.run("exec sleep 600");
    let socket = bench.path("control.sock");
    let ask = |bench: &mut Bench| {
        let control = Control::Qmp(bench.path("control.sock"));
        match bench.processes.ask(&bench.name, &control, Order::PowerOff).unwrap_err() {
            Failure::Hypervisor { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let absent = ask(&mut bench);
    assert!(absent.ends_with("No such file or directory (os error 2)"), "{absent}");
    // A listener that never accepts: its backlog is full after a few connections.
    let _listener = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
        .and_then(|listener| {
            listener.bind(&socket2::SockAddr::unix(&socket)?)?;
            listener.listen(0)?;
            Ok(listener)
        })
        .unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let full = ask(&mut bench);
    assert!(full.ends_with("Resource temporarily unavailable (os error 11)"), "{full}");
    bench.processes.ask(&bench.name, &Control::Terminate, Order::PowerOff).unwrap();
    assert_eq!(bench.exit(), Exit::Signal(libc::SIGTERM));
}

#[test]
fn a_log_that_is_a_link_or_a_fifo_is_not_written_to() {
    let mut bench = Bench::new();
    fs::create_dir(bench.path("logs")).unwrap();
    fs::write(bench.path("precious"), "precious").unwrap();
    let log = bench.path("logs/vm-1.log");
    std::os::unix::fs::symlink(bench.path("precious"), &log).unwrap();
    assert!(bench.spawn(&shell("echo overwritten")).is_err());
    fs::remove_file(&log).unwrap();
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(bench.spawn(&shell("echo overwritten")).is_err());
    assert_eq!(bench.text("precious"), "precious");
}
