//! Snapshots of a QEMU that is played: what it does amid one, the real one does rarely.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::{open_disk, read, take};
use crate::hypervisor::Control;
use crate::hypervisor::snapshot::{Taking, part_of};
use crate::model::name::VmName;
use crate::spec::snapshot::{DESCRIPTION, FORMAT, Made, Snapshot};
use crate::store::tests::Scratch;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How often it says that it still saves its guest.
const ACTIVE: u32 = 3;

/// What it does amid a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quirk {
    /// It tells events before each answer, and answers to others.
    Chatty,
    /// It answers once only when the next command has come.
    Late,
    /// It refuses to give up, and saves on to the end.
    GoesOn,
    /// It says why it cannot save its guest.
    Fails,
    /// It answers nothing any more.
    Hangs,
    /// It ends.
    Ends,
}

/// A QEMU, as a client sees it.
struct Qemu {
    quirk: Quirk,
    runs: bool,
    /// What `query-migrate` says.
    migration: &'static str,
    /// How often it has said so.
    told: u32,
    /// The answers that it keeps back.
    kept: Vec<Value>,
}

impl Qemu {
    /// Serves one client to its end. Gives whether its guest goes on then.
    fn serve(mut self, listener: &UnixListener) -> bool {
        let (stream, _) = listener.accept().expect("a client");
        let version = json!({ "qemu": { "micro": 0, "minor": 2, "major": 9 }, "package": "" });
        say(&stream, &json!({ "QMP": { "version": version, "capabilities": ["oob"] } }));
        for line in BufReader::new(&stream).lines() {
            let Ok(line) = line else { break };
            let asked: Value = serde_json::from_str(&line).expect("a command");
            let command = asked["execute"].as_str().expect("a name");
            match self.quirk {
                Quirk::Ends if self.migration == "active" => break,
                Quirk::Hangs if self.migration == "active" => continue,
                _ => {}
            }
            let mut answer = self.answer(command, &version);
            if let Some(id) = asked.get("id") {
                answer["id"] = id.clone();
            }
            self.tell(&stream, command, answer);
        }
        self.runs
    }

    fn tell(&mut self, stream: &UnixStream, command: &str, answer: Value) {
        match self.quirk {
            Quirk::Late if command == "query-migrate" && self.kept.is_empty() => {
                self.kept.push(answer);
            }
            Quirk::Late => {
                self.kept.drain(..).for_each(|late| say(stream, &late));
                say(stream, &answer);
            }
            Quirk::Chatty => {
                let time = json!({ "seconds": 1, "microseconds": 2 });
                say(stream, &json!({ "event": "MIGRATION", "data": {}, "timestamp": time }));
                say(stream, &json!({ "return": { "status": "failed" }, "id": "another's" }));
                say(stream, &json!({ "error": { "class": "GenericError", "desc": "" }, "id": 99 }));
                say(stream, &answer);
            }
            Quirk::GoesOn | Quirk::Fails | Quirk::Hangs | Quirk::Ends => say(stream, &answer),
        }
    }

    fn answer(&mut self, command: &str, version: &Value) -> Value {
        let done = json!({ "return": {} });
        let refused = |why| json!({ "error": { "class": "GenericError", "desc": why } });
        match command {
            "qmp_capabilities" | "getfd" | "migrate-set-parameters" => {}
            "query-version" => return json!({ "return": version }),
            "query-status" => {
                let status = match (self.runs, self.migration) {
                    (true, _) => "running",
                    (false, "completed") => "postmigrate",
                    (false, _) => "paused",
                };
                return json!({ "return": { "running": self.runs, "status": status } });
            }
            "stop" => self.runs = false,
            "migrate" => self.migration = "active",
            "query-migrate" => {
                self.told += 1;
                let is_over = self.told > ACTIVE;
                match self.quirk {
                    Quirk::Fails if is_over => self.migration = "failed",
                    _ if is_over => self.migration = "completed",
                    _ => {}
                }
                let why = "No space left on device";
                return json!({ "return": { "status": self.migration, "error-desc": why } });
            }
            "migrate_cancel" if self.quirk == Quirk::GoesOn => return refused("not now"),
            "migrate_cancel" if self.migration == "active" => self.migration = "cancelled",
            "migrate_cancel" => {}
            "cont" if self.migration == "active" => {
                self.told += 1;
                if self.told > ACTIVE {
                    self.migration = "completed";
                }
                return refused("it saves its guest");
            }
            "cont" => self.runs = true,
            other => return refused(other),
        }
        done
    }
}

/// Whoever asked may have gone.
fn say(mut stream: &UnixStream, what: &Value) {
    let _ = stream.write_all(format!("{what}\r\n").as_bytes());
}

/// A QEMU, and where a snapshot of it is to be.
struct Scene {
    _scratch: Scratch,
    taking: Taking,
    qemu: JoinHandle<bool>,
}

impl Scene {
    fn with(quirk: Quirk) -> Scene {
        let scratch = Scratch::new();
        let socket = scratch.path().join("qmp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let qemu = Qemu { quirk, runs: true, migration: "none", told: 0, kept: Vec::new() };
        let made_by = Made {
            hypervisor: "qemu".into(),
            version: String::new(),
            machine: Some("q35".into()),
            architecture: "x86_64".into(),
            kvm: false,
        };
        let taking = Taking {
            name: VmName::new("a").unwrap(),
            control: Control::Qmp(socket),
            user: None,
            reader: None,
            folder: scratch.path().join("web"),
            snapshot: Snapshot { format: FORMAT, made_by, config: json!({}), disks: Vec::new() },
            copies: Vec::new(),
            stays_paused: false,
        };
        Scene { _scratch: scratch, taking, qemu: thread::spawn(move || qemu.serve(&listener)) }
    }

    /// Takes a snapshot that fails, because it is called off or not, and sees that nothing is left.
    /// Gives the reason, whether the guest goes on, and how long it took.
    fn fails(self, is_over: bool) -> (String, bool, Duration) {
        let (folder, begin) = (self.taking.folder.clone(), Instant::now());
        let taken = take(self.taking, ANSWER_MAX, || is_over);
        let took = begin.elapsed();
        let goes_on = self.qemu.join().expect("it serves to the end");
        assert!(!part_of(&folder).exists() && !folder.exists());
        (taken.expect_err("it fails").to_string(), goes_on, took)
    }
}

#[test]
fn answers_are_found_among_events_and_those_of_others() {
    // It may refuse to give up what is done.
    for quirk in [Quirk::Chatty, Quirk::GoesOn] {
        let Scene { _scratch, taking, qemu } = Scene::with(quirk);
        let folder = taking.folder.clone();
        take(taking, ANSWER_MAX, || false).unwrap_or_else(|failure| panic!("{quirk:?}: {failure}"));
        assert!(qemu.join().unwrap(), "{quirk:?}: its guest goes on");
        let text = fs::read(folder.join(DESCRIPTION)).unwrap();
        let version = Snapshot::read(&text).unwrap().made_by.version;
        assert_eq!(version, "QEMU emulator version 9.2.0");
    }
}

#[test]
fn whatever_it_does_amid_a_snapshot_there_is_an_end_with_words_and_nothing_is_left() {
    // Each of four commands may wait for its answer to the end.
    let bound = ANSWER_MAX * 5;
    for (quirk, is_over, words, goes_on) in [
        (Quirk::Chatty, true, "it was told to end", true),
        (Quirk::GoesOn, true, "it was told to end", true),
        (Quirk::Late, false, "it did not answer query-migrate in time", true),
        (Quirk::Fails, false, "it cannot save its guest: No space left on device", true),
        // Nobody can have it go on. The engine asks again and again.
        (Quirk::Hangs, false, "it did not answer query-migrate in time", false),
        (Quirk::Ends, false, "it has ended the connection (query-migrate)", false),
    ] {
        let (why, went_on, took) = Scene::with(quirk).fails(is_over);
        assert!(why.contains(words), "{quirk:?}: {why}");
        assert_eq!(went_on, goes_on, "{quirk:?}");
        assert!(took < bound, "{quirk:?}: {took:?}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let mut scene = Scene::with(Quirk::Chatty);
    let above = scene.taking.folder.with_file_name("none");
    scene.taking.folder = above.join("web");
    let (why, goes_on, _) = scene.fails(false);
    assert_eq!(why, format!("{}: No such file or directory (os error 2)", above.display()));
    assert!(goes_on);
    let scratch = Scratch::new();
    let why = read(scratch.path(), None).expect_err("there is no snapshot").to_string();
    assert!(why.contains(&format!(": {DESCRIPTION}: No such file")), "{why}");
}

#[test]
fn a_fifo_in_place_of_a_disk_is_not_waited_for() {
    let scratch = Scratch::new();
    let path = scratch.path().join("disk");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let refused = open_disk(&path).unwrap_err();
    assert_eq!(refused.to_string(), "it is neither a regular file nor a block device");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "disk").unwrap();
    open_disk(&path).unwrap();
}
