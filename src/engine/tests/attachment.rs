//! Attachments: their link is their life.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use super::probe::link;
use super::*;
use crate::model::attachment::{Attachment, AttachmentId};
use crate::plan::news::News;
use crate::plan::reconcile::LinkKind;

fn id() -> AttachmentId {
    let [cni, container, ifname] = ["pods", "c1", "eth0"].map(String::from);
    AttachmentId { cni, container, ifname }
}

fn attach() -> Change {
    let labels = BTreeMap::new();
    let attachment = Attachment { id: id(), netns: "/run/netns/c1".into(), tap: None, labels };
    let network = NetworkSpec { mode: Mode::Bridged, ..NetworkSpec::default() };
    let spec = VmSpec {
        networks: vec![network],
        attachment: Some(Box::new(attachment)),
        ephemeral: true,
        ..VmSpec::default()
    };
    let door = OwnedFd::from(File::open("/dev/null").unwrap()).into();
    Change::Attach { name: id().vm_name(), spec: Box::new(spec), door, tun: None, force: false }
}

/// Attaches it; the link gets this index.
fn attached(engine: &mut Engine, index: u32, now: Now) {
    let Ok(Step::Do(decision)) = engine.request(1, &attach(), now) else { panic!("it is new") };
    let made = decision.plan.iter().filter_map(|op| match op {
        Op::CreateVeth { name, .. } => Some((name.clone(), index)),
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
