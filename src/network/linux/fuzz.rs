//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use std::collections::BTreeMap;

use super::{holder, monitor};
use crate::config::{self, Flags};
use crate::engine::decide::Engine;
use crate::model::clock::Now;
use crate::model::name::check_link_name;
use crate::netlink::fuzz::{of_nf_tables, of_rtnetlink};
use crate::plan::news::News;
use crate::plan::op::PortSettings;
use crate::plan::reconcile::Link;

/// Whatever the kernel tells, be it of others' odd links, it is news or lost, and the engine can
/// say whether it is to be looked at.
pub fn news(bytes: &[u8]) {
    let (mut news, mut touched) = (News::default(), monitor::Touched::default());
    let (mut each, mut last) = (News::default(), monitor::LastReport::default());
    of_rtnetlink(bytes, |message| {
        each.lost |= monitor::take_route(message, &mut each).is_none();
        news.lost |= last.take(message, &mut news).is_none();
    });
    news.lost |= last.read(&mut news).is_none();
    let themselves = |news: &News| {
        let alone = |(link, there): &(Link, bool)| {
            (Link { port: PortSettings::default(), ..link.clone() }, *there)
        };
        news.links.values().map(alone).collect::<Vec<_>>()
    };
    assert!(each.lost || (!news.lost && themselves(&each) == themselves(&news)));
    of_nf_tables(bytes, |message| {
        news.lost |= monitor::take_rules(message, &mut news, 1, &mut touched).is_none();
    });
    assert!(!news.links.contains_key(&0));
    let settings = config::resolve(&Flags::default(), &BTreeMap::new(), None, "host");
    let networks = settings.expect("the defaults are right").networks;
    let mut engine = Engine::new(networks, "qemu".into(), true).expect("they can be");
    let (lost, now) = (news.lost, Now::default());
    engine.heard(news, now);
    assert!(engine.look(now) || !lost, "what was lost is looked for");
}

/// Whatever else the fdinfo of a descriptor has, it holds exactly the tap that it names.
pub fn tap_holder(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    if check_link_name(name).is_err() {
        return;
    }
    assert!(holder::names(&format!("pos:\t0\niff:\t{name}\n{rest}"), name));
    assert!(!holder::names(&format!("pos:\t0\niff:\t{name}.\n"), name));
    assert!(!holder::names(&format!("iff:\n{name}\n"), name));
}
