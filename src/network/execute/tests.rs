use super::*;
use crate::model::error::Reason;
use crate::model::request::NOBODY;
use crate::network::fake::{Fake, Kernel, KernelFault};
use crate::plan::op::Plan;
use crate::plan::reconcile::tests::{Host, bare_kernel};
use crate::plan::reconcile::{DesiredPort, attach_plan, reconcile, release_plan};

/// Why the kernel may refuse one of our requests.
const REASONS: [Reason; 8] = [
    Reason::Denied,
    Reason::Missing,
    Reason::Busy,
    Reason::Exists,
    Reason::NoLink,
    Reason::Invalid,
    Reason::Full,
    Reason::Other,
];

/// A kernel without the order in which it lists addresses and elements.
fn unordered(mut kernel: Kernel) -> Kernel {
    kernel.observed.addresses.sort_unstable();
    for (_, keys) in kernel.observed.tables.iter_mut().flat_map(|table| &mut table.sets) {
        keys.sort_unstable();
    }
    kernel
}

/// Lets a plan fail at every step in every way, and expects the kernel to be as before.
fn fails_without_a_trace(fake: &Fake, plan: &Plan) {
    assert!(!plan.is_empty());
    for step in 0..plan.len() {
        for reason in REASONS {
            let failure = fails_at(fake, plan, step, KernelFault::Refused(reason));
            assert_eq!(failure.reason(), Some(reason));
        }
        // Whoever makes a link finds out what became of it.
        let makes_link = matches!(plan[step], Op::CreateBridge { .. } | Op::CreateTap { .. });
        for fault in [KernelFault::Lost, KernelFault::Done].into_iter().filter(|_| !makes_link) {
            let failure = fails_at(fake, plan, step, fault);
            assert_eq!(failure.outcome(), Some(KernelOutcome::Unknown));
        }
    }
    let mut whole = fake.clone();
    let done = execute(&mut whole, plan, NOBODY).unwrap();
    undo(&mut whole, plan, &done, NOBODY);
    assert_eq!(unordered(whole.kernel), unordered(fake.kernel.clone()));
}

/// One step fails, and where its answer is lost and it is asked for once more, that time as well.
fn fails_at(fake: &Fake, plan: &Plan, step: usize, fault: KernelFault) -> Failure {
    let mut fake = fake.clone();
    let before = fake.kernel.clone();
    fake.fail(step, fault);
    if !matches!(fault, KernelFault::Refused(_)) && plan[step].is_repeatable() {
        fake.fail(step + 1, fault);
    }
    let failure = execute(&mut fake, plan, NOBODY).unwrap_err();
    assert_eq!(unordered(fake.kernel), unordered(before), "step {step}: {failure}");
    failure
}

#[test]
fn what_may_have_been_done_is_asked_for_once_more() {
    let host = Host::with_vms(1);
    let mut fake = host.kernel();
    let elements = host.elements(0);
    for fault in [KernelFault::Lost, KernelFault::Done] {
        let before = fake.log.len();
        fake.fail(0, fault);
        execute(&mut fake, &[Op::RemoveElements(elements.clone())], NOBODY).unwrap();
        assert_eq!(fake.log.len() - before, 2);
    }
}

#[test]
fn a_create_that_fails_leaves_nothing_behind() {
    let host = Host::with_vms(3);
    let mut fake = host.kernel();
    fake.delete_link("vttap-vm2");
    let lost = host.elements(2);
    fake.apply(&Op::RemoveElements(lost.clone())).unwrap();
    let plan = attach_plan(&[host.port(2)], vec![], lost);
    assert_eq!(plan.len(), 4);
    fails_without_a_trace(&fake, &plan);
}

#[test]
fn a_release_goes_on_when_an_address_cannot_be_forgotten() {
    let host = Host::with_vms(1);
    let mut fake = host.kernel();
    let index = fake.link("vttap-vm0").map(|link| link.index);
    let port = DesiredPort { index, ..host.port(0) };
    let plan = release_plan(&[port], host.elements(0), vec![]);
    let forget = plan.len() - 1;
    assert!(plan[forget].can_wait() && !plan[..forget].iter().any(Op::can_wait));
    fake.fail(forget, KernelFault::Refused(Reason::Denied));
    assert_eq!(execute(&mut fake, &plan, NOBODY).unwrap().len(), plan.len());
    assert!(fake.link("vttap-vm0").is_none());
    let again = attach_plan(&[host.port(0)], vec![], host.elements(0));
    fake.fail(0, KernelFault::Refused(Reason::Denied));
    let failure = execute(&mut fake, &again, NOBODY).unwrap_err();
    assert_eq!(failure.to_string(), "delete neighbour 10.0.0.2 on vbr0: refused: Denied");
}

#[test]
fn a_setup_that_fails_leaves_nothing_behind() {
    let fake = bare_kernel();
    let plan = reconcile(&Host::with_vms(3).desired(), &fake.kernel.observed).plan;
    fails_without_a_trace(&fake, &plan);
}

#[test]
fn settings_that_were_changed_come_back() {
    let host = Host::with_vms(2);
    let mut fake = host.kernel();
    for name in ["vbr0", "vttap-vm0", "vttap-vm1"] {
        let link = fake.link_mut(name).unwrap();
        (link.up, link.mtu) = (false, 1280);
        link.leave();
    }
    fake.kernel.observed.forwarding = false;
    let address = fake.kernel.observed.addresses[0];
    fake.kernel.observed.addresses[0] = (address.0, "192.0.2.1".parse().unwrap(), 24);
    fake.kernel.observed.accepts.truncate(1);
    let plan = reconcile(&host.desired(), &fake.kernel.observed).plan;
    fails_without_a_trace(&fake, &plan);
}

#[test]
fn an_undo_that_fails_does_not_keep_the_others_from_theirs() {
    let mut fake = bare_kernel();
    let plan = reconcile(&Host::new().desired(), &fake.kernel.observed).plan;
    let last = plan.len() - 1;
    fake.fail(last, KernelFault::Refused(Reason::Missing));
    fake.fail(last + 1, KernelFault::Refused(Reason::Denied));
    let failure = execute(&mut fake, &plan, NOBODY).unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::Missing), "the first failure is told");
    assert_eq!(fake.kernel.observed.accepts.len(), 1, "its undo failed");
    assert_eq!(fake.kernel.observed.links, bare_kernel().kernel.observed.links);
}

#[test]
fn undo_takes_only_the_link_that_was_made() {
    let mut fake = bare_kernel();
    let create = |name: &str| Op::CreateTap {
        name: name.into(),
        owner: None,
        multi_queue: false,
        alias: "volnet:x".into(),
    };
    let taken = [create("vttap-x"), create("vttap-x")];
    fake.add_link("vttap-y", crate::plan::reconcile::LinkKind::Other);
    assert_eq!(
        execute(&mut fake, &[create("vttap-y")], NOBODY).unwrap_err().reason(),
        Some(Reason::Busy)
    );
    assert!(fake.link("vttap-y").is_some(), "it was there before");
    assert_eq!(execute(&mut fake, &taken, NOBODY).unwrap_err().reason(), Some(Reason::Busy));
    let made = Op::DeleteLink { name: "vttap-x".into(), index: Some(3) };
    assert_eq!(fake.log.last(), Some(&made), "removed by name and index");
}

#[test]
fn cleaning_goes_on_behind_a_failure() {
    let host = Host::with_vms(3);
    let mut fake = host.kernel();
    let plan = reconcile(&Default::default(), &fake.kernel.observed).plan;
    fake.fail(1, KernelFault::Refused(Reason::Denied));
    let results = execute_all(&mut fake, &plan, NOBODY);
    assert_eq!(results.len(), plan.len());
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    let left: Vec<_> = fake.kernel.observed.links.iter().map(|link| &*link.name).collect();
    assert_eq!(left, ["eth0", "vttap-vm1"]);
}
