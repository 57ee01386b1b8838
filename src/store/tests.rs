use std::collections::BTreeSet;
use std::fs;

use super::files::Files;
use super::memory::{Memory, Restart, StorageFault, Unsynced};
use super::*;
use crate::model::document::Kept;
use crate::model::mode::Mode;
use crate::model::record::{Action, BootId, FORMAT};
use crate::model::spec::{NetworkSpec, VmSpec};

/// A directory of its own for a test. It is removed with its contents.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("volnet-{}-{count}", std::process::id()));
        // A run with the same pid may have left it when it was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const EVERY_RESTART: [Restart; 5] = [
    Restart::Daemon,
    Restart::Machine { entries: Unsynced::Kept, contents: Unsynced::Kept },
    Restart::Machine { entries: Unsynced::Kept, contents: Unsynced::Lost },
    Restart::Machine { entries: Unsynced::Lost, contents: Unsynced::Kept },
    Restart::Machine { entries: Unsynced::Lost, contents: Unsynced::Lost },
];

fn name(name: &str) -> VmName {
    VmName::new(name).unwrap()
}

fn record(vm: &str, cid: u32) -> Record {
    let vsock = NetworkSpec { mode: Mode::Vsock, ..NetworkSpec::default() };
    Record {
        format: FORMAT,
        name: name(vm),
        spec: VmSpec { networks: vec![vsock], ..VmSpec::default() },
        nics: Vec::new(),
        cid,
        user: None,
        created_at: 1,
        restarts: 0,
        started_at: None,
        kvm: None,
        exit: None,
        last_error: None,
        wanted: false,
        boot: BootId::default(),
    }
}

fn ephemeral(vm: &str, cid: u32) -> Record {
    let mut record = record(vm, cid);
    record.spec.ephemeral = true;
    record
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 7, boot_id: "b".into() }
}

fn in_memory() -> Store<Memory> {
    let mut store = Store::open(Memory::new("/run"), Paths::new("/state", "/run")).unwrap();
    store.begin().unwrap();
    store
}

fn restarted(store: Store<Memory>, restart: Restart) -> Store<Memory> {
    let mut disk = store.into_disk();
    disk.restart(restart);
    Store::open(disk, Paths::new("/state", "/run")).unwrap()
}

fn records(store: &mut Store<impl Storage>) -> Vec<Record> {
    let loaded = store.load().unwrap();
    assert_eq!(loaded.set_aside, []);
    loaded.records
}

#[test]
fn everything_comes_back_from_the_real_disk() {
    let scratch = Scratch::new();
    let paths = Paths::new(scratch.path().join("state"), scratch.path().join("run"));
    let mut store = Store::open(Files, paths.clone()).unwrap();
    assert_eq!(store.load().unwrap(), Loaded::default());
    assert!(store.durable().is_none() && !scratch.path().join("state").exists());
    store.begin().unwrap();
    let durable = store.durable();
    assert!(durable.is_some());
    let intent = Intent { action: Action::Start, record: record("a", 3) };
    let host = HostRecord {
        forwarding_before: true,
        forwarding6_before: Some(false),
        accepted: BTreeSet::from(["eth0".into()]),
        bridges: vec!["vbr0".into()],
        records: durable,
    };
    store.put(&record("a", 3)).unwrap();
    store.put(&ephemeral("b.json", 4)).unwrap();
    store.put_intent(&intent).unwrap();
    store.put_process(&name("a"), &process(12)).unwrap();
    store.put_host(&host).unwrap();
    let network = Kept::new(&serde_json::json!({ "name": "pods", "subnet": "10.9.0.0/24" }));
    store.put_network("pods", Some(&network)).unwrap();
    assert!(scratch.path().join("state/vms/a.json").is_file());
    assert!(scratch.path().join("run/vms/b.json.json").is_file());
    assert_eq!(paths.folder(&name("a")), scratch.path().join("run/vm/a"));

    let mut store = Store::open(Files, paths).unwrap();
    assert_eq!(store.durable(), durable);
    let everything = Loaded {
        records: vec![record("a", 3), ephemeral("b.json", 4)],
        intents: vec![(name("a"), intent)],
        processes: vec![(name("a"), process(12))],
        in_doubt: vec![],
        networks: vec![("pods".into(), network)],
        host: Some(host),
        set_aside: vec![],
    };
    assert_eq!(store.load().unwrap(), everything);
    store.remove(&name("a"), false).unwrap();
    store.remove(&name("a"), false).unwrap();
    store.remove(&name("b.json"), true).unwrap();
    store.clear_intent(&name("a")).unwrap();
    store.remove_process(&name("a")).unwrap();
    store.remove_host().unwrap();
    store.put_network("pods", None).unwrap();
    store.put_network("pods", None).unwrap();
    assert_eq!(store.load().unwrap(), Loaded::default());
}

/// Runs `change` with a crash at each of its steps and each kind of restart. Then passes the loaded
/// state to `judge`, and whether the change was reported as done.
fn crash_everywhere(
    before: impl Fn(&mut Store<Memory>),
    change: impl Fn(&mut Store<Memory>) -> Result<(), Failure>,
    judge: impl Fn(Vec<Record>, bool, Restart),
) {
    for restart in EVERY_RESTART {
        for crash in 0.. {
            let mut store = in_memory();
            before(&mut store);
            store.disk.fail(crash, StorageFault::Crash);
            let done = change(&mut store).is_ok();
            let mut store = restarted(store, restart);
            judge(records(&mut store), done, restart);
            assert!(store.disk.paths().all(|path| !storage::is_temporary(path)));
            if done {
                break;
            }
            assert!(crash < 20, "a change does not take so many steps");
        }
    }
}

#[test]
fn a_crash_while_a_record_is_replaced_leaves_the_old_one_or_the_new_one() {
    let (old, new) = (record("a", 3), record("a", 4));
    crash_everywhere(
        |store| store.put(&old).unwrap(),
        |store| store.put(&new),
        |left, done, restart| {
            assert!(left == [new.clone()] || (left == [old.clone()] && !done), "{restart:?}");
        },
    );
}

#[test]
fn a_crash_while_a_record_is_first_written_leaves_none_or_all_of_it() {
    let new = record("a", 3);
    crash_everywhere(
        |_| {},
        |store| store.put(&new),
        |left, done, restart| {
            assert!(left == [new.clone()] || (left.is_empty() && !done), "{restart:?}");
        },
    );
}

#[test]
fn a_removed_record_does_not_come_back() {
    let old = record("a", 3);
    crash_everywhere(
        |store| store.put(&old).unwrap(),
        |store| store.remove(&old.name, false),
        |left, done, restart| {
            assert!(left.is_empty() || (left == [old.clone()] && !done), "{restart:?}");
        },
    );
}

#[test]
fn an_ephemeral_record_outlives_the_daemon_and_ends_with_the_machine() {
    let (old, new) = (ephemeral("a", 3), ephemeral("a", 4));
    crash_everywhere(
        |store| store.put(&old).unwrap(),
        |store| store.put(&new),
        |left, done, restart| match restart {
            Restart::Daemon => assert!(left == [new.clone()] || (left == [old.clone()] && !done)),
            Restart::Machine { .. } => assert_eq!(left, []),
        },
    );
}

#[test]
fn an_error_at_any_step_is_reported_and_the_store_goes_on() {
    let (old, new) = (record("a", 3), record("a", 4));
    for step in 0..4 {
        let mut store = in_memory();
        store.put(&old).unwrap();
        store.disk.fail(step, StorageFault::Errno(28));
        let failure = store.put(&new).unwrap_err();
        let reason = "cannot write: No space left on device (os error 28)".into();
        assert_eq!(failure, Failure::State { path: "/state/vms/a.json".into(), reason });
        assert!(store.disk.paths().all(|path| !storage::is_temporary(path)), "step {step}");
        let left = records(&mut store);
        assert!(left == [old.clone()] || left == [new.clone()]);
        store.put(&new).unwrap();
        assert_eq!(records(&mut store), std::slice::from_ref(&new));
    }
}

#[test]
fn records_that_are_written_together_share_a_sync_of_their_directory() {
    let (a, b, c) = (record("a", 3), record("b", 4), record("c", 5));
    let mut store = in_memory();
    let before = store.disk.steps();
    assert_eq!(store.put_durable(&[&a, &b, &c]), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(store.disk.steps() - before, 3 * 3 + 1, "written, synced, renamed; and once more");
    assert_eq!(store.put_durable(&[]), []);
    assert_eq!(records(&mut store), [a, b, c]);
}

#[test]
fn a_crash_while_records_are_written_together_leaves_each_old_or_new() {
    let (old, new) = ([record("a", 3), record("b", 4)], [record("a", 5), record("b", 6)]);
    crash_everywhere(
        |store| old.iter().for_each(|record| store.put(record).unwrap()),
        |store| store.put_durable(&[&new[0], &new[1]]).into_iter().collect(),
        |left, done, restart| {
            assert_eq!(left.len(), 2);
            for (left, (old, new)) in left.iter().zip(old.iter().zip(&new)) {
                assert!(left == new || (left == old && !done), "{restart:?}");
            }
        },
    );
}

#[test]
fn of_records_that_are_written_together_one_that_fails_fails_alone() {
    let (a, b) = (record("a", 3), record("b", 4));
    // Written, synced, renamed: a's and b's in turn.
    for step in 0..6 {
        let mut store = in_memory();
        store.disk.fail(step, StorageFault::Errno(28));
        let results = store.put_durable(&[&a, &b]);
        let (failed, done) = if step % 2 == 0 { (0, &b) } else { (1, &a) };
        assert!(results[failed].is_err() && results[1 - failed].is_ok(), "step {step}");
        assert!(store.disk.paths().all(|path| !storage::is_temporary(path)), "step {step}");
        let mut store = restarted(store, EVERY_RESTART[4]);
        assert_eq!(records(&mut store), std::slice::from_ref(done), "step {step}");
    }
    let mut store = in_memory();
    store.disk.fail(6, StorageFault::Errno(28));
    assert!(store.put_durable(&[&a, &b]).iter().all(Result::is_err), "the directory is theirs");
}

#[test]
fn unreadable_files_are_moved_aside_and_the_others_come_up() {
    let mut store = in_memory();
    store.put(&record("good", 3)).unwrap();
    let text = record::encode_record(&record("x", 5));
    let unknown = String::from_utf8(text.clone()).unwrap().replace("\"cid\"", "\"sid\"");
    let disk = &mut store.disk;
    disk.plant("/state/vms/torn.json", &text[..text.len() / 2]);
    disk.plant("/state/vms/empty.json", b"");
    disk.plant("/state/vms/other.json", &text);
    disk.plant("/state/vms/x.json", unknown.as_bytes());
    disk.plant("/state/vms/zero.json", b"{\"format\":0}");
    disk.plant("/run/vms/x.json", &text);
    disk.plant("/run/vms/good.json", &record::encode_record(&ephemeral("good", 9)));
    disk.plant("/run/host.json", b"[]");
    disk.plant("/state/vms/README", b"not ours");
    disk.plant("/state/vms/torn.json.bad-1", b"an earlier one");
    disk.plant("/state/vms/.good.json.tmp", b"{");
    let loaded = store.load().unwrap();
    assert_eq!(loaded.records, [record("good", 3)]);
    assert_eq!(loaded.host, None);
    let mut set_aside: Vec<_> =
        loaded.set_aside.iter().map(|(path, why)| (path.to_str().unwrap(), why.as_str())).collect();
    set_aside.sort();
    let paths: Vec<_> = set_aside.iter().map(|(path, _)| *path).collect();
    let expected = [
        "/run/host.json.bad-1",
        "/run/vms/good.json.bad-1",
        "/run/vms/x.json.bad-1",
        "/state/vms/empty.json.bad-1",
        "/state/vms/other.json.bad-1",
        "/state/vms/torn.json.bad-2",
        "/state/vms/x.json.bad-1",
        "/state/vms/zero.json.bad-1",
    ];
    assert_eq!(paths, expected);
    assert_eq!(set_aside[1].1, "a durable VM good exists, too");
    assert_eq!(set_aside[2].1, "it is the record of a durable VM among ephemeral ones");
    assert_eq!(set_aside[4].1, "it is the record of x");
    assert!(set_aside[6].1.starts_with("unknown field `sid`"), "{}", set_aside[6].1);
    assert_eq!(store.load().unwrap().set_aside, []);
    assert!(store.disk.paths().all(|path| !storage::is_temporary(path)));
}

#[test]
fn a_newer_format_refuses_the_load_and_moves_nothing() {
    let mut store = in_memory();
    store.disk.plant("/state/vms/a.json", b"not JSON");
    store.disk.plant("/state/vms/b.json", b"{\"format\":5,\"what\":\"nobody knows\"}");
    let before: Vec<PathBuf> = store.disk.paths().map(PathBuf::from).collect();
    let Failure::State { path, reason } = store.load().unwrap_err() else {
        panic!("not a state failure");
    };
    assert_eq!(path, "/state/vms/b.json");
    assert!(reason.contains("format 5") && reason.contains("up to 4"), "{reason}");
    assert!(store.disk.paths().eq(before.iter().map(PathBuf::as_path)));
}
