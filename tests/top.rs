//! `volnet top` and `volnet list --watch` in a real terminal: tmux, read back by `capture-pane`.

mod common;

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use common::daemon::Daemon;
use common::{eventually, in_namespace, run};

/// A terminal with a shell in it.
struct Terminal(String);

impl Terminal {
    fn open(columns: u16, rows: u16) -> Terminal {
        let name = format!("volnet-{}-{columns}-{rows}", std::process::id());
        let terminal = Terminal(name);
        let size = [columns, rows].map(|length| length.to_string());
        let shell = "PS1='$ ' exec sh";
        terminal.tmux(&["new-session", "-d", "-x", &size[0], "-y", &size[1], shell]);
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        // Its server is ours alone.
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(words);
        let output = command.output().expect("tmux (make deps)");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// The process that the shell runs.
    fn program(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = std::fs::read_to_string(children).expect("a shell");
        Pid::from_raw(children.trim().parse().expect("one child"))
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a command line.
    fn enter(&self, line: &str) {
        self.press(&[line, "Enter"]);
    }

    fn shows(&self, text: &str) {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(text, || {
                last = self.screen();
                last.contains(text)
            });
        }));
        assert!(seen.is_ok(), "{text:?} is not on the screen:\n{last}");
    }

    /// Whether the shell has the terminal, which is as it was: its own screen, with a cursor.
    fn is_given_back(&self, settings: &str) {
        eventually("the terminal is as it was", || {
            self.tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]).trim() == "01"
        });
        self.enter("clear; stty -g");
        self.shows(settings);
    }

    /// The settings of the terminal, which a shell changes as well while it reads a line.
    fn settings(&self) -> String {
        self.enter("clear; stty -g");
        let is = |line: &&str| line.contains(':') && !line.contains('$');
        let mut found = String::new();
        eventually("the settings of the terminal", || {
            found = self.screen().lines().find(is).unwrap_or_default().trim().to_owned();
            !found.is_empty()
        });
        found
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.0, "kill-server"]).output();
    }
}

/// Runs a verb in the terminal.
fn volnet(daemon: &Daemon, words: &str) -> String {
    format!("{} {words} --socket {}", env!("CARGO_BIN_EXE_volnet"), daemon.socket().display())
}

/// Opens a tap and reads what comes, as a guest does.
const GUEST: &str = r#"
import fcntl, os, struct, sys
tap = open('/dev/net/tun', 'r+b', buffering=0)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x5002))
while True:
    os.read(tap.fileno(), 65536)
"#;

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(program: &str, words: &[&str]) -> Ended {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ended(command.spawn().expect(program))
}

#[test]
fn top_shows_rates_and_gives_the_terminal_back() {
    in_namespace(|| {
        run("ip link set lo up");
        let daemon = Daemon::start(&[]);
        for name in ["web", "db", "a-name-that-is-longer-than-its-column-on-a-narrow-terminal"] {
            daemon.create(json!({ "name": name }));
        }
        let tap = daemon.call("Get", json!({"name": "web"}))["parameters"]["vm"]["tap"].take();
        let _guest = child("python3", &["-c", GUEST, tap.as_str().expect("a tap")]);
        let _sender = child("ping", &["-b", "-i", "0.01", "-s", "1000", "192.168.127.255"]);

        let terminal = Terminal::open(100, 24);
        let settings = terminal.settings();
        terminal.enter(&volnet(&daemon, "top"));
        terminal.shows("3 VMs, 0 running");
        terminal.shows("by received  n:name r:received");
        // A hundred packets a second of a kilobyte.
        eventually("the rate of web", || {
            let screen = terminal.screen();
            let row = screen.lines().find(|line| line.starts_with("web "));
            let words: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
            words.get(3).is_some_and(|rate| rate.ends_with('K')) && words.get(4) == Some(&"0")
        });
        // The busiest comes first, until another key sorts.
        let first = |terminal: &Terminal| {
            let screen = terminal.screen();
            let mut after = screen.lines().skip_while(|line| !line.starts_with("NAME"));
            after.nth(1).unwrap_or_default().to_owned()
        };
        eventually("web first", || first(&terminal).starts_with("web "));
        terminal.press(&["n"]);
        terminal.shows("by name");
        eventually("a first", || first(&terminal).starts_with("a-name"));
        // Another size: all of it fits.
        terminal.tmux(&["resize-window", "-x", "90", "-y", "6"]);
        eventually("a small picture", || {
            let screen = terminal.screen();
            let lines: Vec<&str> = screen.lines().collect();
            lines.len() == 6 && lines[5].starts_with("by name") && lines[4].starts_with("web ")
        });
        terminal.press(&["q"]);
        terminal.is_given_back(&settings);

        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            terminal.enter(&format!("clear; {}", volnet(&daemon, "top")));
            terminal.shows("by received");
            kill(terminal.program(), signal).expect("it runs");
            terminal.is_given_back(&settings);
        }
    });
}

#[test]
fn a_daemon_that_ends_leaves_the_terminal_as_it_was() {
    in_namespace(|| {
        let mut daemon = Daemon::start(&[]);
        let terminal = Terminal::open(90, 20);
        let settings = terminal.settings();
        terminal.enter(&volnet(&daemon, "top"));
        terminal.shows("0 VMs");
        daemon.stop();
        terminal.shows("cannot reach the daemon");
        terminal.is_given_back(&settings);
    });
}

#[test]
fn keys_and_signals_are_heard_also_while_the_daemon_is_late() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let id = Pid::from_raw(daemon.pid() as i32);
        let terminal = Terminal::open(90, 16);
        let settings = terminal.settings();
        let end_by_key = || terminal.press(&["q"]);
        let end_by_signal = || kill(terminal.program(), Signal::SIGTERM).expect("it runs");
        for end in [&end_by_key as &dyn Fn(), &end_by_signal] {
            terminal.enter(&format!("clear; {}", volnet(&daemon, "top")));
            terminal.shows("0 VMs");
            kill(id, Signal::SIGSTOP).expect("it runs");
            eventually("a request that waits", || {
                let sockets = common::run("ss --unix --no-header --numeric state established");
                let socket = daemon.socket().display().to_string();
                let mut ours = sockets.lines().filter(|line| line.contains(&socket));
                ours.any(|line| line.split_whitespace().nth(1).is_some_and(|queued| queued != "0"))
            });
            end();
            terminal.is_given_back(&settings);
            kill(id, Signal::SIGCONT).expect("it runs");
        }
    });
}

#[test]
fn a_thousand_vms_are_shown_a_page_at_a_time_and_printed_whole() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        let mut connection = daemon.connect();
        for vm in 0..1000 {
            let config = json!({"network": {"mode": "vsock"}, "ephemeral": true});
            connection.call("Create", json!({"name": format!("vm-{vm:04}"), "config": config}));
        }
        let terminal = Terminal::open(80, 20);
        terminal.enter(&volnet(&daemon, "top --sort name"));
        terminal.shows("1000 VMs");
        terminal.shows("vm-0016");
        terminal.press(&["PPage", "NPage", "x"]);
        terminal.shows("vm-0033");
        terminal.press(&["Up"]);
        terminal.shows("vm-0016");
        terminal.press(&["q"]);

        let printed = Command::new("sh").args(["-c", &volnet(&daemon, "top --once")]).output();
        let printed = String::from_utf8(printed.expect("it runs").stdout).expect("text");
        assert_eq!(printed.lines().count(), 1001, "{printed}");
        assert!(printed.starts_with("NAME "), "{printed}");
        assert!(printed.lines().all(|line| line.len() <= 80), "{printed}");
    });
}

#[test]
fn a_watched_list_follows_what_happens() {
    in_namespace(|| {
        let daemon = Daemon::start(&[]);
        daemon.create(json!({"name": "web"}));
        let terminal = Terminal::open(90, 12);
        let settings = terminal.settings();
        terminal.enter(&volnet(&daemon, "list --watch"));
        terminal.shows("web ");
        for name in ["db", "cache"] {
            daemon.create(json!({ "name": name }));
            terminal.shows(&format!("{name} "));
        }
        daemon.call("Delete", json!({"name": "db"}));
        eventually("db is gone", || !terminal.screen().contains("db "));
        terminal.press(&["q"]);
        terminal.is_given_back(&settings);
    });
}
