//! How long what others change stays changed: from the end of the change to the news that all is as
//! before.

use std::time::{Duration, Instant};

use volnet::network::linux::monitor::Monitor;
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::network::linux::{addresses, links, sysctl};
use volnet::plan::news::News;
use volnet::plan::op::LinkSettings;

use crate::contender::Contender;
use crate::daemon::Daemon;
use crate::record::Record;
use crate::traffic::BRIDGE;

/// How often each thing is changed; the daemon lets itself be provoked a little more often.
const ROUNDS: usize = 6;
/// How long a repair may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two changes: the daemon looks at everything at most every 50 ms.
const PAUSE: Duration = Duration::from_millis(100);

/// Changes links, an address and forwarding, and waits each time until that is undone.
pub(crate) fn repairs(daemon: &Daemon, vms: usize, record: &mut Record) {
    daemon.stage.enter();
    let mut socket = Socket::open(NetlinkFamily::Route).expect("a socket");
    let index = links::index_of(&socket, BRIDGE).expect("a bridge");
    let (_, address, length) = addresses::observe(&mut socket)
        .expect("addresses")
        .into_iter()
        .find(|(link, ..)| *link == index)
        .expect("an address");
    let down = LinkSettings { up: Some(false), ..LinkSettings::default() };
    let alone = LinkSettings { master: Some(None), ..LinkSettings::default() };

    let mut change = |what: &str, make: &mut dyn FnMut(usize), undone: &dyn Fn(&News) -> bool| {
        let mut monitor = Monitor::open(0).expect("news");
        let times: Vec<Duration> = (0..ROUNDS)
            .map(|round| {
                std::thread::sleep(PAUSE);
                make(round);
                wait(&mut monitor, undone)
            })
            .collect();
        record.times(&format!("repaired: {what}"), daemon.name(), vms, &times);
    };
    let is = |news: &News, right: &dyn Fn(&volnet::plan::reconcile::Link) -> bool| {
        let taps = || news.links.values().filter(|(link, _)| link.name.starts_with("vttap-"));
        taps().count() > 0 && taps().all(|(link, _)| right(link))
    };
    let tap = |round: usize| format!("vttap-vm{round}");
    change(
        "tap down",
        &mut |round| links::set(&mut socket, &tap(round), &down).expect("a tap"),
        &|news| is(news, &|link| link.up),
    );
    change(
        "tap off its bridge",
        &mut |round| links::set(&mut socket, &tap(round), &alone).expect("a tap"),
        &|news| is(news, &|link| link.master.is_some()),
    );
    change(
        "address of the bridge gone",
        &mut |_| addresses::remove(&mut socket, BRIDGE, address, length).expect("an address"),
        &|news| news.addresses.get(&(index, address, length)) == Some(&true),
    );
    change("forwarding off", &mut |_| sysctl::set_forwarding(false).expect("a switch"), &|news| {
        news.forwarding == Some(true)
    });
}

fn wait(monitor: &mut Monitor, undone: &dyn Fn(&News) -> bool) -> Duration {
    let start = Instant::now();
    while !undone(&monitor.drain()) {
        assert!(start.elapsed() < PATIENCE, "nothing is repaired");
        std::thread::yield_now();
    }
    start.elapsed()
}
