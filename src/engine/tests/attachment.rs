//! Attachments: their link is their life.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::probe::link;
use super::*;
use crate::model::attachment::{Attachment, AttachmentId};
use crate::plan::news::News;
use crate::plan::reconcile::{LinkKind, Observed, reconcile};

fn id() -> AttachmentId {
    let [cni, container, ifname] = ["pods", "c1", "eth0"].map(String::from);
    AttachmentId { cni, container, ifname }
}

fn attach() -> Change {
    attach_to(false)
}

/// The namespace is that of the host, or it is not.
fn attach_to(host: bool) -> Change {
    let labels = BTreeMap::new();
    let netns = "/run/netns/c1".into();
    let attachment = Attachment { id: id(), netns, tap: None, host, labels };
    let network = NetworkSpec { mode: Mode::Bridged, ..NetworkSpec::default() };
    let spec = VmSpec {
        networks: vec![network],
        attachment: Some(Box::new(attachment)),
        ephemeral: true,
        ..VmSpec::default()
    };
    // Nobody uses it: any descriptor will do.
    let door = io::stdin().as_fd().try_clone_to_owned().unwrap().into();
    Change::Attach { name: id().vm_name(), spec: Box::new(spec), door, tun: None, force: false }
}

/// Attaches it; the link gets this index.
fn attached(engine: &mut Engine, index: u32, now: Now) {
    attached_by(engine, &attach(), index, now);
}

fn attached_by(engine: &mut Engine, change: &Change, index: u32, now: Now) {
    let Ok(Step::Do(decision)) = engine.request(1, change, now) else { panic!("it is new") };
    let made = decision.plan.iter().filter_map(|op| match op {
        Op::CreateVeth { name, .. } | Op::CreateTap { name, .. } => Some((name.clone(), index)),
        _ => None,
    });
    let outcome = Outcome { taps: made.collect(), launched: None };
    engine.commit(*decision, &outcome, now);
}

/// The kernel tells that the link of this index is gone.
fn gone(engine: &mut Engine, index: u32, now: Now) {
    let name = engine.vm(&id().vm_name()).unwrap().record.nics[0].tap.to_string();
    let link = link(index, &name, LinkKind::Veth, Some("volnet:c1.eth0"), None);
    let news = News { links: BTreeMap::from([(index, (link, false))]), ..News::default() };
    engine.heard(news, now);
}

#[test]
fn the_end_of_a_link_does_not_end_the_next_attachment_of_that_name() {
    let mut engine = engine();
    attached(&mut engine, 7, at(0));
    let again = engine.request(2, &attach(), at(1));
    let (container, ifname) = ("c1".into(), "eth0".into());
    assert_eq!(again.err(), Some(Refusal::AttachmentExists { container, ifname }.into()));
    // Before what follows from that is done, its engine says the same and attaches it again.
    gone(&mut engine, 7, at(2));
    let Ok(Step::Do(decision)) = engine.request(3, &Change::Detach { id: id() }, at(2)) else {
        panic!("it is there")
    };
    done(&mut engine, *decision, at(2));
    attached(&mut engine, 9, at(2));
    settle(&mut engine, at(2));
    assert_eq!(engine.vm(&id().vm_name()).unwrap().record.nics[0].ifindex, Some(9));
    // News of the former link is none of this one; its own link is.
    gone(&mut engine, 7, at(3));
    settle(&mut engine, at(3));
    assert!(engine.vm(&id().vm_name()).is_ok());
    gone(&mut engine, 9, at(4));
    settle(&mut engine, at(4));
    assert!(engine.vm(&id().vm_name()).is_err());
}

#[test]
fn a_tap_that_was_attached_is_not_made_anew() {
    let mut engine = engine();
    attached_by(&mut engine, &attach_to(true), 7, at(0));
    let observed = Observed::default();
    let made = |engine: &Engine| {
        let plan = reconcile(&engine.desired(), &observed).plan;
        plan.iter().any(|op| matches!(op, Op::CreateTap { .. } | Op::CreateVeth { .. }))
    };
    assert!(!made(&engine));
    engine.observed(&observed.links);
    settle(&mut engine, at(1));
    assert!(engine.vm(&id().vm_name()).is_err());
}

#[test]
fn what_is_asked_about_is_where_the_next_attachment_is() {
    let part = |name: &str, bridge: &str, subnet: &str, host: &str| NetworkConfig {
        whole: "lab".into(),
        ..NetworkConfig::sample(name, bridge, subnet, host)
    };
    // The first part has one address for guests, and the second as well.
    let networks = vec![
        part("lab", "vbr0", "10.1.0.0/30", "10.1.0.1"),
        part("lab-2", "vbr0-2", "10.1.0.4/30", "10.1.0.5"),
    ];
    let mut engine = Engine::new(networks, "qemu".into(), true).unwrap();
    let lab = NetworkSpec { name: Some("lab".into()), ..NetworkSpec::default() };
    for (number, full) in [(0, false), (1, false), (2, true)] {
        for wanted in [&lab, &NetworkSpec::default()] {
            let reason = engine.unready(wanted, at(0)).unwrap();
            assert_eq!(reason.is_some(), full, "{number}: {reason:?}");
        }
        if !full {
            let (name, notes) = (VmName::new(&format!("vm{number}")).unwrap(), Vec::new());
            let spec = Box::new(VmSpec::default());
            let change = Change::Create { name, spec, start: false, dry_run: false, notes };
            let Ok(Step::Do(decision)) = engine.request(1, &change, at(0)) else { panic!() };
            done(&mut engine, *decision, at(0));
        }
    }
    let other = NetworkSpec { subnet: Some("10.9.0.0/24".parse().unwrap()), ..lab };
    assert!(engine.unready(&other, at(0)).is_err());
}

#[test]
fn a_network_with_ipv6_alone_has_room() {
    let prefix = "fd00:1::/64".parse().unwrap();
    let six = NetworkConfig {
        ipv4: None,
        ipv6: Some(crate::model::net::Ipv6Network::new(prefix, true)),
        ..NetworkConfig::sample("six", "vbr6", "10.1.0.0/29", "10.1.0.1")
    };
    let mut engine = Engine::new(vec![six], "qemu".into(), true).unwrap();
    assert_eq!(engine.unready(&NetworkSpec::default(), at(0)), Ok(None));
}
