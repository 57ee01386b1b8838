//! Whole stories told to the engine, with an executor that always says yes.

mod added;
mod advertise;
mod attachment;
mod claim;
mod crowd;
mod ends;
mod expose;
mod ipv6;
mod lease;
mod pause;
mod probe;

use crate::engine::decide::{Act, Decision, Engine, Launched, Outcome, Step, Write};
use crate::engine::supervise::{CHECK_MAX_MS, RESTARTS_MAX, START_MAX_MS};
use crate::model::clock::Now;
use crate::model::error::{Error, Failure, Refusal};
use crate::model::mac::Mac;
use crate::model::mode::Mode;
use crate::model::name::VmName;
use crate::model::net::{Dhcp, Ipv4Network, NetworkConfig};
use crate::model::nic::Nic;
use crate::model::record::{Exit, Progress, Record};
use crate::model::request::Ticket;
use crate::model::request::{Change, Reply};
use crate::model::spec::{MachineSpec, NetworkSpec, RestartPolicy, VmSpec};
use crate::model::traffic::Traffic;
use crate::model::view::{EventKind, Status, VmView};
use crate::plan::op::{Handover, Op};
use crate::plan::reconcile::Desired;
use crate::plan::ruleset::Family;

type Replies = Vec<(Ticket, Result<Reply, Error>)>;

fn network(name: &str, bridge: &str, subnet: &str, host_ip: &str) -> NetworkConfig {
    NetworkConfig::sample(name, bridge, subnet, host_ip)
}

fn engine() -> Engine {
    let networks = vec![
        network("default", "vbr0", "192.168.127.0/24", "192.168.127.1"),
        network("tiny", "vbr1", "10.9.9.0/30", "10.9.9.1"),
    ];
    Engine::new(networks, "qemu".into(), true).unwrap()
}

fn name(text: &str) -> VmName {
    VmName::new(text).unwrap()
}

fn at(mono: u64) -> Now {
    Now { wall: 1_000_000 + mono, mono, boot: 90_000 + mono }
}

fn machine() -> Option<MachineSpec> {
    Some(MachineSpec { cpus: 1, memory_mb: 128, ..MachineSpec::default() })
}

fn create(text: &str, spec: VmSpec, start: bool) -> Change {
    let (name, spec) = (name(text), Box::new(spec));
    Change::Create { name, spec, start, dry_run: false, notes: Vec::new() }
}

fn with_machine(restart: RestartPolicy) -> VmSpec {
    VmSpec { machine: machine().map(Box::new), restart, ..VmSpec::default() }
}

fn with_ip(ip: &str) -> VmSpec {
    let network = NetworkSpec { ip: Some(ip.parse().unwrap()), ..NetworkSpec::default() };
    VmSpec { networks: vec![network], ..VmSpec::default() }
}

/// Does what a decision says, as if everything worked.
fn done(engine: &mut Engine, decision: Decision, now: Now) -> Replies {
    let made = decision.plan.iter().filter_map(|op| match op {
        Op::CreateTap { name, .. } => Some((name.clone(), 7)),
        _ => None,
    });
    let process = Launched { pid: 4711, kvm: Some(false) };
    let launched = (decision.act == Some(Act::Spawn)).then_some(process);
    let outcome = Outcome { taps: made.collect(), launched };
    engine.commit(decision, &outcome, now)
}

/// Asks, does what is decided and what follows from it, and gives all replies.
fn ask(engine: &mut Engine, ticket: Ticket, request: &Change, now: Now) -> Replies {
    let mut replies = match engine.request(ticket, request, now) {
        Ok(Step::Reply(reply)) => vec![(ticket, Ok(*reply))],
        Ok(Step::Do(decision)) => done(engine, *decision, now),
        Ok(Step::Later) => Vec::new(),
        Ok(
            step @ (Step::Setup { .. }
            | Step::Teardown { .. }
            | Step::AddNetwork { .. }
            | Step::RemoveNetwork { .. }),
        ) => panic!("{step:?}"),
        Err(error) => vec![(ticket, Err(error))],
    };
    replies.append(&mut settle(engine, now));
    replies
}

fn settle(engine: &mut Engine, now: Now) -> Replies {
    let mut replies = Vec::new();
    while let Some(decision) = engine.follow_up(now) {
        replies.append(&mut done(engine, decision, now));
    }
    replies
}

fn exit(engine: &mut Engine, text: &str, exit: Exit, now: Now) -> Replies {
    let decision = engine.exited(&name(text), exit, Some("last words".into()), now).unwrap();
    let mut replies = done(engine, decision, now);
    replies.append(&mut settle(engine, now));
    replies
}

/// Looks at a process that is starting, and does what is decided.
fn looked_at(engine: &mut Engine, text: &str, progress: Progress, now: Now) -> Replies {
    let decision = engine.looked_at(&name(text), progress, now);
    let mut replies = decision.map(|decision| done(engine, decision, now)).unwrap_or_default();
    replies.append(&mut settle(engine, now));
    replies
}

fn vm(replies: &Replies) -> &VmView {
    match replies.as_slice() {
        [(_, Ok(Reply::Created { vm, .. }))] => vm,
        [(_, Ok(Reply::Vm { vm }))] => vm,
        other => panic!("{other:?}"),
    }
}

fn status(engine: &Engine, text: &str) -> Status {
    engine.vm(&name(text)).unwrap().status()
}

/// A VM that runs and has passed its start-up check.
fn running(engine: &mut Engine, text: &str, restart: RestartPolicy) {
    assert!(ask(engine, 1, &create(text, with_machine(restart), true), at(0)).is_empty());
    assert_eq!(vm(&looked_at(engine, text, Progress::Running, at(5))).status, Status::Running);
}

#[test]
fn each_mode_gets_what_it_needs() {
    let mut engine = engine();
    for (text, mode, has_tap, has_ip) in [
        ("b", Mode::Bridged, true, true),
        ("d", Mode::Dhcp, true, false),
        ("v", Mode::Vsock, false, false),
    ] {
        let network = NetworkSpec { mode, ..NetworkSpec::default() };
        let spec = VmSpec { networks: vec![network], ..VmSpec::default() };
        let replies = ask(&mut engine, 1, &create(text, spec, false), at(0));
        let vm = vm(&replies);
        assert_eq!(
            (vm.tap.is_some(), vm.mac.is_some(), vm.ip.is_some()),
            (has_tap, has_tap, has_ip)
        );
        assert_eq!(vm.kernel_args.is_empty(), !has_ip);
        assert!(vm.cid >= 3);
    }
    let cids: std::collections::BTreeSet<u32> = engine.list(None).map(|vm| vm.cid).collect();
    assert_eq!(cids.len(), 3);
}

#[test]
fn a_leased_address_is_forgotten_before_anything_else_is_done() {
    let mut engine = engine();
    for mode in [Mode::Bridged, Mode::Dhcp, Mode::Vsock] {
        let network = NetworkSpec { mode, ..NetworkSpec::default() };
        let request = create("a", VmSpec { networks: vec![network], ..VmSpec::default() }, false);
        let Ok(Step::Do(decision)) = engine.request(1, &request, at(0)) else { panic!() };
        let forgets = |op: &Op| matches!(op, Op::ForgetAddress { .. });
        assert_eq!(
            decision.plan.iter().filter(|op| forgets(op)).count(),
            usize::from(mode == Mode::Bridged)
        );
        if mode == Mode::Bridged {
            let (link, address) = ("vbr0".into(), "192.168.127.2".parse().unwrap());
            let first = Op::ForgetAddress { link, address, at: Handover::Assigned };
            assert_eq!(decision.plan.first(), Some(&first));
        }
        let failure = Error::Failed(Failure::State { path: "/x".into(), reason: "full".into() });
        engine.abort(*decision, &failure);
    }
}

#[test]
fn creating_the_same_again_returns_it_and_another_is_refused() {
    let mut engine = engine();
    let first = ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0));
    let again = ask(&mut engine, 2, &create("web", VmSpec::default(), false), at(9));
    assert_eq!(vm(&first), vm(&again));
    let other = ask(&mut engine, 3, &create("web", with_ip("192.168.127.9"), false), at(9));
    assert_eq!(other[0].1, Err(Refusal::VmExists { name: "web".into() }.into()));
}

#[test]
fn a_wanted_address_is_given_or_refused_with_its_owner() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("a", with_ip("192.168.127.50"), false), at(0));
    let refused =
        |engine: &mut Engine, spec| ask(engine, 2, &create("b", spec, false), at(0))[0].1.clone();
    let in_use = |ip: &str, owner: &str| {
        Err(Refusal::AddressInUse { ip: ip.parse().unwrap(), owner: owner.into() }.into())
    };
    assert_eq!(refused(&mut engine, with_ip("192.168.127.50")), in_use("192.168.127.50", "a"));
    assert_eq!(
        refused(&mut engine, with_ip("192.168.127.1")),
        in_use("192.168.127.1", super::ledger::HOST_OWNER)
    );
    assert!(matches!(
        refused(&mut engine, with_ip("10.0.0.1")),
        Err(Error::Refused(Refusal::InvalidConfig { field, .. })) if field == "network.ip"
    ));
    let mac = engine.vm(&name("a")).unwrap().record.nics.first().unwrap().mac;
    let network = NetworkSpec { mac: Some(mac), ..NetworkSpec::default() };
    assert!(matches!(
        refused(&mut engine, VmSpec { networks: vec![network], ..VmSpec::default() }),
        Err(Error::Refused(Refusal::InvalidConfig { field, reason }))
            if field == "network.mac" && reason.ends_with("belongs to a")
    ));
    assert_eq!(engine.networks()[0].leased, 1);
}

#[test]
fn a_network_is_chosen_by_name_prefix_or_gateway_and_can_be_full() {
    let mut engine = engine();
    let tiny =
        NetworkSpec { subnet: Some("10.9.9.0/30".parse().unwrap()), ..NetworkSpec::default() };
    let spec = VmSpec { networks: vec![tiny], ..VmSpec::default() };
    assert_eq!(
        vm(&ask(&mut engine, 1, &create("a", spec.clone(), false), at(0))).ip,
        "10.9.9.2".parse().ok()
    );
    let full = ask(&mut engine, 1, &create("b", spec, false), at(0));
    assert!(matches!(full[0].1, Err(Error::Refused(Refusal::NoFreeAddress { .. }))));
    for network in [
        NetworkSpec { name: Some("nope".into()), ..NetworkSpec::default() },
        NetworkSpec { gateway: "1.2.3.4".parse().ok(), ..NetworkSpec::default() },
    ] {
        let spec = VmSpec { networks: vec![network], ..VmSpec::default() };
        let refused = ask(&mut engine, 1, &create("c", spec, false), at(0));
        assert!(matches!(refused[0].1, Err(Error::Refused(Refusal::InvalidConfig { .. }))));
    }
}

#[test]
fn a_host_without_rules_for_its_bridges_keeps_no_guest_apart() {
    let open = NetworkConfig {
        traffic: Traffic { antispoof: Some(false), ..Traffic::default() },
        ..network("default", "vbr0", "192.168.127.0/24", "192.168.127.1")
    };
    let mut engine = Engine::new(vec![open.clone()], "qemu".into(), true).unwrap();
    let with = |isolated, antispoof: Option<bool>| {
        let traffic = Traffic { isolated, antispoof, ..Traffic::default() };
        let network = NetworkSpec { traffic, ..NetworkSpec::default() };
        let name = if antispoof.is_some() { "db" } else { "web" };
        create(name, VmSpec { networks: vec![network], ..VmSpec::default() }, false)
    };
    let refused = |engine: &mut Engine, request| match engine.request(1, &request, at(0)) {
        Err(Error::Refused(Refusal::InvalidConfig { field, .. })) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut engine, with(Some(true), None)), "network.isolated");
    assert_eq!(refused(&mut engine, with(None, Some(true))), "network.antispoof");
    ask(&mut engine, 1, &with(None, None), at(0));
    let bridged = |desired: &Desired<'_>| {
        let tables = desired.tables.iter().filter(|table| table.family == Family::Bridge);
        tables.flat_map(|table| &table.sets).map(|set| set.elements.len()).sum::<usize>()
    };
    assert_eq!(engine.desired().tables.len(), 2);
    assert_eq!(bridged(&engine.desired()), 0);

    // Where another network has them, a VM can be held to its addresses here, too.
    let networks = vec![open, network("lab", "vbr1", "10.9.9.0/24", "10.9.9.1")];
    let mut engine = Engine::new(networks, "qemu".into(), true).unwrap();
    let before = bridged(&engine.desired());
    ask(&mut engine, 1, &with(None, None), at(0));
    assert_eq!(bridged(&engine.desired()) - before, 2, "a port that is trusted");
    ask(&mut engine, 2, &with(None, Some(true)), at(0));
    assert_eq!(bridged(&engine.desired()) - before, 2 + 6, "one with its addresses");
}

#[test]
fn what_is_aborted_was_never_there() {
    let mut engine = engine();
    let request = create("web", VmSpec::default(), false);
    let Ok(Step::Do(decision)) = engine.request(7, &request, at(0)) else { panic!() };
    let failure = Error::Failed(Failure::State { path: "/x".into(), reason: "full".into() });
    assert_eq!(engine.abort(*decision, &failure), [(7, Err(failure))]);
    assert_eq!(engine.list(None).count(), 0);
    let network = &engine.networks()[0];
    assert_eq!((network.leased, network.ports), (0, 0));
}

/// The same create as a dry run.
fn dry(request: Change) -> Change {
    let Change::Create { name, spec, start, notes, .. } = request else { panic!("{request:?}") };
    Change::Create { name, spec, start, dry_run: true, notes }
}

#[test]
fn every_answer_to_a_create_has_the_notes_about_its_documents() {
    let mut engine = engine();
    let noted = |start| {
        let mut request = create("web", with_machine(RestartPolicy::No), start);
        if let Change::Create { notes, .. } = &mut request {
            notes.push("manifest: env: it is left alone".into());
        }
        request
    };
    // As a dry run, made, there already, started, and running already.
    for request in [dry(noted(false)), noted(false), noted(false), noted(true), noted(true)] {
        let replies = ask(&mut engine, 1, &request, at(0));
        let replies = match replies.is_empty() {
            true => looked_at(&mut engine, "web", Progress::Running, at(0)),
            false => replies,
        };
        let [(1, Ok(Reply::Created { notes, .. }))] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(notes, &["manifest: env: it is left alone"], "{request:?}");
    }
}

#[test]
fn a_dry_run_reserves_nothing() {
    let mut engine = engine();
    let request = dry(create("web", VmSpec::default(), false));
    let shown = ask(&mut engine, 1, &request, at(0));
    assert_eq!(vm(&shown).ip, "192.168.127.2".parse().ok());
    assert_eq!(engine.list(None).count(), 0);
    assert_eq!(engine.networks()[0].leased, 0);
    let made = ask(&mut engine, 1, &create("web", VmSpec::default(), false), at(0));
    let mut shown = VmView { ifindex: Some(7), ..vm(&shown).clone() };
    shown.nics[0].ifindex = Some(7);
    assert_eq!(*vm(&made), shown, "and the next create gets what was shown");
}

#[test]
fn a_start_is_answered_after_its_check() {
    let mut engine = engine();
    assert!(
        ask(&mut engine, 1, &create("web", with_machine(RestartPolicy::No), true), at(0))
            .is_empty()
    );
    assert_eq!(engine.start_check(at(9)), None);
    assert_eq!(engine.start_check(at(10)), Some(name("web")));
    assert!(looked_at(&mut engine, "web", Progress::Starting, at(10)).is_empty());
    assert_eq!(engine.deadline(), Some(20));
    assert_eq!(vm(&looked_at(&mut engine, "web", Progress::Running, at(20))).pid, Some(4711));
    assert_eq!(engine.deadline(), None);
}

#[test]
fn a_vm_whose_hypervisor_dies_at_once_is_not_left_behind() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("web", with_machine(RestartPolicy::Always), true), at(0));
    let replies = exit(&mut engine, "web", Exit::Code(1), at(3));
    let [(1, Err(Error::Failed(Failure::Hypervisor { reason, log, .. })))] = replies.as_slice()
    else {
        panic!("{replies:?}")
    };
    assert!(reason.contains("status 1") && log.as_deref() == Some("last words"));
    assert_eq!(engine.list(None).count(), 0);
}

#[test]
fn a_vm_is_not_running_before_its_guest_is() {
    let mut engine = engine();
    let request = create("web", with_machine(RestartPolicy::No), true);
    assert!(ask(&mut engine, 1, &request, at(0)).is_empty());
    assert_eq!(status(&engine, "web"), Status::Created);
    // Whoever wants the same waits for the same.
    assert!(ask(&mut engine, 2, &request, at(1)).is_empty());
    assert!(ask(&mut engine, 3, &Change::Start { name: name("web") }, at(2)).is_empty());
    let replies = looked_at(&mut engine, "web", Progress::Running, at(10));
    let told: Vec<Ticket> = replies.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!((told, status(&engine, "web")), (vec![1, 2, 3], Status::Running));
}

#[test]
fn whoever_waits_for_a_start_is_told_that_it_was_stopped() {
    let mut engine = engine();
    ask(&mut engine, 1, &create("web", with_machine(RestartPolicy::No), true), at(0));
    let delete = Change::Delete { name: name("web"), timeout_ms: 0 };
    let replies = ask(&mut engine, 2, &delete, at(1));
    let [(1, Err(Error::Failed(Failure::Hypervisor { reason, .. })))] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert_eq!(reason, "it was told to end before its guest ran");
}

#[test]
fn a_hypervisor_that_never_says_that_its_guest_runs_is_ended() {
    let mut engine = engine();
    running(&mut engine, "web", RestartPolicy::OnFailure);
    exit(&mut engine, "web", Exit::Code(1), at(10));
    let restart = at(engine.deadline().unwrap());
    let decision = engine.due(restart).unwrap();
    done(&mut engine, decision, restart);
    let mut now = restart.mono;
    while now < restart.mono + START_MAX_MS {
        assert!(engine.looked_at(&name("web"), Progress::Starting, at(now)).is_none());
        let next = engine.deadline().unwrap();
        assert!(next > now && next <= now + CHECK_MAX_MS, "{next} after {now}");
        now = next;
    }
    let killed = engine.looked_at(&name("web"), Progress::Starting, at(now)).unwrap();
    assert_eq!(killed.act, Some(Act::Kill));
    done(&mut engine, killed, at(now));
    assert!(engine.deadline().unwrap() > now);
    exit(&mut engine, "web", Exit::Signal(9), at(now + 5));
    let shown = engine.show(engine.vm(&name("web")).unwrap());
    let error = "it did not say within 30 s that its guest runs, and was killed: last words";
    assert_eq!(shown.last_error.as_deref(), Some(error));
    assert_eq!((shown.status, shown.restarts), (Status::Crashed, 1));
    assert!(engine.deadline().unwrap() > now + 5, "its restart policy goes on");
}

#[test]
fn an_adopted_process_is_asked_again_and_told_of_if_it_is_new() {
    for (age, told) in [(100, true), (START_MAX_MS, false)] {
        let mut engine = engine();
        running(&mut engine, "web", RestartPolicy::No);
        let record = Record::clone(&engine.vm(&name("web")).unwrap().record);
        let started_at = record.started_at.unwrap();
        let mut next = self::engine();
        next.restore(record).unwrap();
        let now = Now { wall: started_at + age, ..at(0) };
        assert!(next.adopted(&name("web"), 4711, now).is_none());
        assert!(next.deadline().is_some(), "it may be paused");
        // Somebody else may use its socket: it is not ended for that.
        let late = Now { wall: now.wall, ..at(START_MAX_MS) };
        let decision = next.looked_at(&name("web"), Progress::Starting, late);
        assert_eq!(decision.is_some_and(|decision| decision.act.is_none()), told);
        assert!(next.deadline().is_none() && status(&next, "web") == Status::Running);
    }
}

#[test]
fn a_stop_ends_as_stopped_and_a_crash_as_crashed() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    running(&mut engine, "b", RestartPolicy::No);
    let stop = Change::Stop { name: name("a"), timeout_ms: 30_000 };
    assert!(ask(&mut engine, 2, &stop, at(100)).is_empty());
    assert_eq!(status(&engine, "a"), Status::Stopping);
    let replies = exit(&mut engine, "a", Exit::Signal(15), at(200));
    let stopped = vm(&replies);
    assert_eq!((stopped.status, stopped.exit_signal), (Status::Stopped, Some(15)));
    exit(&mut engine, "b", Exit::Signal(11), at(300));
    assert_eq!(status(&engine, "b"), Status::Crashed);
    let again = ask(&mut engine, 3, &stop, at(400));
    assert!(matches!(again[0].1, Err(Error::Refused(Refusal::WrongState { .. }))));
}

#[test]
fn a_stop_escalates_and_a_second_caller_can_hasten_it() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 2, &Change::Stop { name: name("a"), timeout_ms: 30_000 }, at(0));
    assert_eq!(engine.deadline(), Some(25_000));
    ask(&mut engine, 3, &Change::Delete { name: name("a"), timeout_ms: 1_000 }, at(0));
    let acts: Vec<Act> =
        [500, 1_000].into_iter().map(|mono| engine.due(at(mono)).unwrap().act.unwrap()).collect();
    assert_eq!(acts, [Act::Terminate, Act::Kill]);
    let replies = exit(&mut engine, "a", Exit::Signal(9), at(1_001));
    assert!(matches!(replies[0], (2, Ok(Reply::Vm { .. }))));
    assert_eq!(replies[1], (3, Ok(Reply::Deleted)));
    assert_eq!(engine.list(None).count(), 0);
}

#[test]
fn a_signal_that_cannot_be_sent_is_tried_again_later() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 2, &Change::Stop { name: name("a"), timeout_ms: 0 }, at(0));
    let decision = engine.due(at(0)).unwrap();
    assert_eq!(decision.act, Some(Act::Kill));
    let failure = Failure::Hypervisor { name: "a".into(), reason: "no".into(), log: None };
    assert!(engine.abort(decision, &failure.into()).is_empty());
    assert!(engine.due(at(0)).is_none(), "the loop goes on with other things");
    assert_eq!(engine.deadline(), Some(1_000));
    assert_eq!(engine.due(at(1_000)).unwrap().act, Some(Act::Kill));
}

#[test]
fn a_restart_starts_again_after_the_end() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 2, &Change::Restart { name: name("a"), timeout_ms: 9_000 }, at(0));
    assert!(exit(&mut engine, "a", Exit::Code(0), at(50)).is_empty());
    assert_eq!(vm(&looked_at(&mut engine, "a", Progress::Running, at(60))).status, Status::Running);
}

#[test]
fn a_restart_policy_backs_off_and_gives_up() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::OnFailure);
    let mut mono = 10_000;
    for round in 0..RESTARTS_MAX {
        exit(&mut engine, "a", Exit::Code(1), at(mono));
        assert_eq!(status(&engine, "a"), Status::Crashed);
        let due = engine.deadline().unwrap();
        assert_eq!(due, mono + (1_000 << round).min(60_000));
        let decision = engine.due(at(due)).unwrap();
        assert_eq!(decision.act, Some(Act::Spawn));
        done(&mut engine, decision, at(due));
        let runs = engine.looked_at(&name("a"), Progress::Running, at(due)).unwrap();
        assert_eq!(runs.events[0].0, EventKind::VmStarted);
        done(&mut engine, runs, at(due));
        assert_eq!(engine.list(None).next().unwrap().restarts, round + 1);
        mono = due + 10;
    }
    exit(&mut engine, "a", Exit::Code(1), at(mono));
    assert_eq!((status(&engine, "a"), engine.deadline()), (Status::Crashed, None));
}

#[test]
fn a_vm_that_waits_for_its_restart_can_be_stopped_and_deleted() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::Always);
    exit(&mut engine, "a", Exit::Code(0), at(100));
    let stopped = ask(&mut engine, 2, &Change::Stop { name: name("a"), timeout_ms: 1 }, at(200));
    assert_eq!(vm(&stopped).status, Status::Stopped);
    assert_eq!(engine.deadline(), None);
    let deleted = ask(&mut engine, 3, &Change::Delete { name: name("a"), timeout_ms: 1 }, at(300));
    assert_eq!(deleted, [(3, Ok(Reply::Deleted))]);
}

#[test]
fn an_address_is_free_only_after_the_process_and_the_link_are_gone() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 2, &Change::Delete { name: name("a"), timeout_ms: 1_000 }, at(0));
    assert_eq!(engine.networks()[0].leased, 1);
    let decision = engine.exited(&name("a"), Exit::Code(0), None, at(10)).unwrap();
    done(&mut engine, decision, at(10));
    assert_eq!(engine.networks()[0].leased, 1);
    let decision = engine.follow_up(at(10)).unwrap();
    assert_eq!(decision.write, Write::Remove);
    let [
        Op::DeleteLink { .. },
        Op::RemoveElements(_),
        Op::ForgetAddress { at: Handover::Released, .. },
    ] = decision.plan.as_slice()
    else {
        panic!("{:?}", decision.plan)
    };
    done(&mut engine, decision, at(10));
    assert_eq!(engine.networks()[0].leased, 0);
}

#[test]
fn teardown_waits_for_every_vm_and_only_by_force() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 1, &create("b", VmSpec::default(), false), at(0));
    let teardown = |force| Change::Teardown { dry_run: false, force };
    let refused = ask(&mut engine, 2, &teardown(false), at(0));
    assert_eq!(refused[0].1, Err(Refusal::VmsExist { count: 2 }.into()));
    assert!(ask(&mut engine, 3, &teardown(true), at(0)).is_empty());
    assert_eq!(engine.teardown_due(), None);
    assert_eq!(engine.due(at(0)).unwrap().act, Some(Act::Kill));
    exit(&mut engine, "a", Exit::Signal(9), at(5));
    assert_eq!(engine.teardown_due(), Some(vec![3]));
    assert_eq!(engine.teardown_due(), None);
}

#[test]
fn a_teardown_takes_what_is_made_meanwhile() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    ask(&mut engine, 2, &Change::Teardown { dry_run: false, force: true }, at(0));
    ask(&mut engine, 3, &create("b", VmSpec::default(), false), at(0));
    exit(&mut engine, "a", Exit::Signal(9), at(5));
    assert_eq!((engine.list(None).count(), engine.teardown_due()), (0, Some(vec![2])));
}

#[test]
fn a_failure_is_told_to_those_whom_it_concerns() {
    let failure = Error::Failed(Failure::State { path: "/x".into(), reason: "full".into() });
    let told = vec![(3, Err(failure.clone()))];
    let fails = |engine: &mut Engine, request| match engine.request(3, &request, at(0)) {
        Ok(Step::Do(decision)) => engine.abort(*decision, &failure),
        other => panic!("{other:?}"),
    };
    let mut engine = engine();
    ask(&mut engine, 1, &create("a", with_machine(RestartPolicy::No), true), at(0));
    let stop = Change::Stop { name: name("a"), timeout_ms: 1 };
    assert_eq!(fails(&mut engine, stop), told, "not to who waits for its start");
    assert_eq!(looked_at(&mut engine, "a", Progress::Running, at(5)).len(), 1);
    ask(&mut engine, 2, &Change::Teardown { dry_run: false, force: true }, at(9));
    let create = create("b", VmSpec::default(), false);
    assert_eq!(fails(&mut engine, create), told, "not to who tears the host down");
}

#[test]
fn no_two_records_claim_the_same_thing() {
    let mut engine = engine();
    for text in ["a", "b"] {
        ask(&mut engine, 1, &create(text, VmSpec::default(), false), at(0));
    }
    let records: Vec<_> = engine.vms().map(|vm| Record::clone(&vm.record)).collect();
    let [a, b] = records.as_slice() else { panic!("{records:?}") };
    let port = a.nics[0].clone();
    let claims: [fn(&mut Nic, &Nic); 3] = [
        |own, other| own.tap = other.tap.clone(),
        |own, other| own.mac = other.mac,
        |own, other| own.ip = other.ip,
    ];
    for claim in claims {
        let mut odd = b.clone();
        claim(&mut odd.nics[0], &port);
        let mut next = self::engine();
        next.restore(a.clone()).unwrap();
        next.restore(odd).unwrap_err();
        let ports = || next.desired().ports.iter().map(|port| port.vm.clone()).collect::<Vec<_>>();
        assert_eq!(ports(), [name("a")]);
        delete(&mut next, "b");
        assert_eq!(next.networks(), only(a).networks(), "nothing of it is kept");
    }
}

fn delete(engine: &mut Engine, text: &str) {
    let delete = Change::Delete { name: name(text), timeout_ms: 0 };
    assert_eq!(ask(engine, 1, &delete, at(0)), [(1, Ok(Reply::Deleted))]);
}

/// An engine that knows this VM alone.
fn only(record: &Record) -> Engine {
    let mut engine = self::engine();
    engine.restore(record.clone()).unwrap();
    engine
}

/// The engine with the first network changed, which has taken over `records`.
fn changed(records: &[Record], change: impl Fn(&mut NetworkConfig)) -> Engine {
    let mut first = network("default", "vbr0", "192.168.127.0/24", "192.168.127.1");
    change(&mut first);
    let second = network("tiny", "vbr1", "10.9.9.0/30", "10.9.9.1");
    let mut engine = Engine::new(vec![first, second], "qemu".into(), true).unwrap();
    for record in records {
        let _ = engine.restore(record.clone());
    }
    engine
}

#[test]
fn a_vm_whose_network_was_changed_is_stranded_and_comes_right_with_it() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::Always);
    let records = [Record::clone(&engine.vm(&name("a")).unwrap().record)];
    let changes: [fn(&mut NetworkConfig); 3] = [
        |network| (network.name, network.whole) = ("other".into(), "other".into()),
        |network| {
            let prefix = "10.7.0.0/24".parse().unwrap();
            network.ipv4 = Some(Ipv4Network { prefix, host: "10.7.0.1".parse().unwrap() });
        },
        |network| network.ipv4.as_mut().unwrap().host = "192.168.127.2".parse().unwrap(),
    ];
    for change in changes {
        let mut next = changed(&records, change);
        next.adopted(&name("a"), 4711, at(START_MAX_MS));
        let shown = next.list(None).next().unwrap();
        assert!(shown.problem.is_some_and(|problem| problem.starts_with("its ")));
        assert_eq!(
            (shown.status, shown.pid, &*shown.kernel_args),
            (Status::Running, Some(4711), "")
        );
        assert!(next.desired().ports.is_empty());
        assert_eq!(next.desired().parked, ["vttap-a"].into());
        let sets = next.desired().tables.into_iter().flat_map(|table| table.sets);
        assert!(sets.filter(|set| set.name == "guests").all(|set| set.elements.is_empty()));

        // It can be ended, and nothing else. What it has is nobody else's.
        let nobody = |request: Change, engine: &mut Engine| {
            let replies = ask(engine, 1, &request, at(0));
            let [(1, Err(Error::Refused(Refusal::InvalidConfig { field, .. })))] = &replies[..]
            else {
                panic!("{replies:?}")
            };
            assert_eq!(field, "networks");
        };
        let (vm, timeout_ms, nic) = (name("a"), 0, None);
        nobody(Change::Restart { name: vm.clone(), timeout_ms }, &mut next);
        nobody(Change::SetPolicy { name: vm, nic, policy: "none".into() }, &mut next);
        ask(&mut next, 2, &create("b", VmSpec::default(), false), at(0));
        assert_ne!(next.vm(&name("b")).unwrap().record.cid, records[0].cid);
        exit(&mut next, "a", Exit::Code(1), at(0));
        assert!(next.deadline().is_none(), "its policy does not start it");
        nobody(Change::Start { name: name("a") }, &mut next);

        let left = Record::clone(&next.vm(&name("a")).unwrap().record);
        let again = changed(std::slice::from_ref(&left), |_| ());
        let shown = again.list(None).next().unwrap();
        assert_eq!((shown.problem, shown.ip), (None, left.nics[0].ip));
        delete(&mut next, "a");
        assert!(next.desired().parked.is_empty());
    }
}

#[test]
fn what_was_recorded_is_taken_over() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    running(&mut engine, "b", RestartPolicy::Always);
    let records: Vec<_> = engine.vms().map(|vm| Record::clone(&vm.record)).collect();
    let mut next = self::engine();
    for record in records.clone() {
        next.restore(record).unwrap();
    }
    assert!(next.restore(records[0].clone()).is_err(), "the same address twice");
    let now = at(START_MAX_MS);
    assert!(next.adopted(&name("a"), 4711, now).is_none());
    assert!(next.adopted(&name("b"), 4712, now).is_none());
    assert_eq!(next.start_check(at(START_MAX_MS + 10)), Some(name("a")));
    assert!(looked_at(&mut next, "a", Progress::Running, now).is_empty());
    assert_eq!(next.start_check(at(START_MAX_MS + 10)), None, "one after another");
    let decision = next.lost(&name("b"), now).unwrap();
    done(&mut next, decision, now);
    assert_eq!((status(&next, "a"), status(&next, "b")), (Status::Running, Status::Crashed));
    assert!(next.deadline().is_some(), "its policy starts it again");
    assert_eq!(next.networks()[0].leased, 2);
}

#[test]
fn a_start_that_was_cut_short_is_completed() {
    let mut engine = engine();
    running(&mut engine, "a", RestartPolicy::No);
    exit(&mut engine, "a", Exit::Code(1), at(0));
    let record = Record::clone(&engine.vm(&name("a")).unwrap().record);
    let mut next = self::engine();
    next.restore(record).unwrap();
    let decision = next.adopted(&name("a"), 4711, at(9)).unwrap();
    assert_eq!(decision.write, Write::Put);
    done(&mut next, decision, at(9));
    let record = &next.vm(&name("a")).unwrap().record;
    assert_eq!((record.started_at, record.exit, record.wanted), (Some(1_000_009), None, true));
}

#[test]
fn a_restart_that_was_due_when_the_daemon_ended_is_made_by_the_next() {
    for (policy, exit_code, started) in [
        (RestartPolicy::No, 1, false),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::Always, 0, true),
    ] {
        let mut engine = engine();
        running(&mut engine, "a", policy);
        exit(&mut engine, "a", Exit::Code(exit_code), at(0));
        let mut next = self::engine();
        next.restore(Record::clone(&engine.vm(&name("a")).unwrap().record)).unwrap();
        assert!(next.lost(&name("a"), at(0)).is_none(), "its end is known");
        next.autostart();
        let act = next.follow_up(at(0)).and_then(|decision| decision.act);
        assert_eq!(act, started.then_some(Act::Spawn), "{policy:?} {exit_code}");
    }
}
