//! A daemon for one test: the real binary, with its files in a temporary folder.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::eventually;

/// How long a reply may take before the test fails.
const REPLY_MAX: Duration = Duration::from_secs(60);

/// A daemon in the caller's network namespace.
pub(crate) struct Daemon {
    /// Its folder: `state`, `run`, `log`, `volnet.sock`, `daemon.log`.
    pub(crate) folder: PathBuf,
    /// The binary that the next start runs.
    pub(crate) program: PathBuf,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
    _guard: Guard,
}

/// Kills a daemon and its hypervisors if this program is killed and cannot do that itself: then the
/// guard's input ends.
struct Guard(Child);

impl Guard {
    /// The argument is the folder of the daemon, which is in its arguments and in the environments
    /// of its hypervisors.
    const SCRIPT: &str = r#"
        read -r _
        grep -lzxF -e "$0/volnet.sock" -e "VOLNET_RUNTIME=$0/run" \
            /proc/[0-9]*/cmdline /proc/[0-9]*/environ | cut -d/ -f3 | xargs -r kill -9
    "#;

    fn new(folder: &Path) -> Guard {
        let child = Command::new("sh")
            .args(["-c", Guard::SCRIPT])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Guard(child.expect("sh starts"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // This closes its input.
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// Starts a daemon with these further flags and waits until it answers.
    pub(crate) fn start(flags: &[&str]) -> Daemon {
        let mut daemon = Daemon::without(flags);
        daemon.start_again();
        daemon
    }

    /// Starts a daemon with this configuration file.
    pub(crate) fn configured(configuration: &Value) -> Daemon {
        let mut daemon = Daemon::without(&[]);
        let file = daemon.folder.join("config.json");
        std::fs::write(file, configuration.to_string()).expect("a configuration");
        daemon.start_again();
        daemon
    }

    /// The files of a daemon that has not been started.
    pub(crate) fn without(flags: &[&str]) -> Daemon {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = format!("volnet-test-{}-{count}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            match std::fs::create_dir(&folder) {
                Ok(()) => break folder,
                // A test that was killed has left it, and had the same process id.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", folder.display()),
            }
        };
        std::fs::write(folder.join("config.json"), "{}").expect("a configuration");
        let flags = flags.iter().map(|flag| (*flag).to_string()).collect();
        let program = env!("CARGO_BIN_EXE_volnet").into();
        let variables = Vec::new();
        Daemon { _guard: Guard::new(&folder), folder, program, flags, variables, child: None }
    }

    /// Sets a variable of its environment, for the starts from now on.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.into(), value.into()));
    }

    /// Starts the daemon on the files that are there, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
        eventually("the daemon answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", self.log());
            // A connection alone may be to what is left of the daemon before this one.
            self.answers()
        });
    }

    /// Whether it answers.
    fn answers(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok_and(|mut stream| {
            let sent = stream.write_all(b"{\"method\":\"io.volnet.List\"}\n");
            sent.is_ok() && stream.read(&mut [0; 1]).is_ok_and(|length| length > 0)
        })
    }

    /// Starts the daemon and does not wait for it. The one before it must have ended: else nobody
    /// would end it, and what is asked of the next daemon would be answered by it.
    pub(crate) fn spawn(&mut self) {
        let ended = |child: &mut Child| child.try_wait().expect("it is ours").is_some();
        assert!(self.child.as_mut().is_none_or(ended), "it runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("daemon.log"))
            .expect("a log");
        let child = self
            .command(&["serve"])
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    /// The command line tool, pointed at this daemon.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("VOLNET_CONFIG", self.folder.join("config.json"));
        for (flag, path) in [
            ("--socket", "volnet.sock"),
            ("--state-dir", "state"),
            ("--runtime-dir", "run"),
            ("--log-dir", "log"),
        ] {
            command.arg(flag).arg(self.folder.join(path));
        }
        command
    }

    /// Runs the command line tool and gives what came of it.
    pub(crate) fn volnet(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("volnet runs")
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("volnet.sock")
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default()
    }

    /// The process groups of its hypervisors, with their VMs, as the marks in their environments
    /// tell. Those that have ended and wait to be collected do not count.
    pub(crate) fn hypervisors(&self) -> BTreeSet<(String, u32)> {
        let run = format!("VOLNET_RUNTIME={}", self.folder.join("run").display());
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
            let mut entries = environment.split('\0');
            let vm = entries.clone().find_map(|entry| entry.strip_prefix("VOLNET_VM="))?;
            if !entries.any(|entry| entry == run) {
                return None;
            }
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
            let (state, group) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            (state != "Z").then_some((vm.to_string(), group))
        })
        .collect()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::to(&self.socket())
    }

    /// Calls a method on a connection of its own.
    pub(crate) fn call(&self, method: &str, parameters: Value) -> Value {
        self.connect().call(method, parameters)
    }

    /// Makes a VM and gives it as the interface shows it. Fails the test if it is refused.
    pub(crate) fn create(&self, parameters: Value) -> Value {
        let mut answer = self.call("Create", parameters);
        assert!(answer["error"].is_null(), "{answer}");
        answer["parameters"]["vm"].take()
    }

    /// Kills it, as a crash would.
    pub(crate) fn crash(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends it as the service manager would.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
            child.wait().expect("it is ours");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon.log\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (_, group) in self.hypervisors() {
            let _ = killpg(Pid::from_raw(group as i32), Signal::SIGKILL);
        }
        // A test may have mounted a file system there.
        let _ = umount2(&self.folder.join("state"), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection that speaks in lines.
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects to a socket.
    pub(crate) fn to(socket: &Path) -> Connection {
        let stream = UnixStream::connect(socket).expect("the daemon listens");
        stream.set_read_timeout(Some(REPLY_MAX)).expect("a timeout");
        Connection(BufReader::new(stream))
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the daemon reads");
    }

    /// The next line, parsed; `None` at the end of the connection, even if that is not a clean one.
    pub(crate) fn try_receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("a line of JSON"))
    }

    /// What comes up to a byte, without it.
    pub(crate) fn receive_until(&mut self, end: u8) -> String {
        let mut bytes = Vec::new();
        self.0.read_until(end, &mut bytes).expect("the daemon answers in time");
        assert_eq!(bytes.pop(), Some(end));
        String::from_utf8(bytes).expect("text")
    }

    /// The next line, parsed; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the daemon answers in time");
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("a line of JSON"))
    }

    /// Calls a method and gives its whole answer.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        let call = json!({ "method": format!("io.volnet.{method}"), "parameters": parameters });
        self.send(format!("{call}\n").as_bytes());
        self.receive().expect("an answer")
    }
}
