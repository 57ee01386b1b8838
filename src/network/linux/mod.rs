//! The Linux kernel as a backend.
//!
//! [`Linux`] keeps two sockets for its life: one of rtnetlink, for links and addresses, and one of
//! nfnetlink, which owns our tables. Both belong to the network namespace of the thread that made
//! them. /proc/sys/net belongs to the namespace of the calling thread, which is the same thread.
//!
//! One Op is one function here: [`tap`], [`veth`] with [`redirect`], and [`links`] make, change and
//! remove links, [`qdiscs`] limits their rate, [`addresses`] gives them addresses, [`sysctl`] has
//! the switches, and [`nft`] the rules. The exception is to forget an address, which takes
//! [`addresses`] and [`conntrack`]. All of them use a [`socket`]. Slow work is done by the
//! [`worker`]. The daemon itself uses [`monitor`], for changes by others, and [`guests`], which
//! hears by [`packets`] what guests ask.

pub mod addresses;
pub mod arp;
mod bounds;
pub mod conntrack;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod guests;
pub mod holder;
pub mod links;
mod listeners;
pub mod monitor;
pub mod nft;
pub mod overhear;
pub mod packets;
pub mod pool;
pub mod qdiscs;
pub mod redirect;
pub mod socket;
pub mod sysctl;
pub mod tap;
pub mod tracing;
pub mod veth;
pub mod worker;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::doctor::host::{Bounds, Way};
use crate::model::error::{Failure, Refusal};
use crate::model::expose::{HostPort, Listener};
use crate::model::limits::Shaping;
use crate::model::mac::Mac;
use crate::netlink::rtnl::{AF_INET, AF_INET6};
use crate::plan::firewall::{Hindrance, Surroundings};
use crate::plan::op::{Handover, LinkSettings, Op};
use crate::plan::reconcile::{DesiredPort, Link, Observed};
use crate::plan::ruleset::{ALLOWED, DENIED, FORGED, OVERRUN, SPOOFED};
use crate::trace::Told;
use crate::trace::book::{Chains, Rules};

use super::features::Features;
use super::tally::Tally;
use super::{Applied, Cause, Counted, Dropped, Network, Passed, Side};
use arp::Arp;
use conntrack::{Conntrack, FlowSelector};
use monitor::Monitor;
use nft::Nft;
use overhear::Overhearing;
use packets::Sender;
use pool::TapPool;
use socket::{Error, NetlinkFamily, Socket};
use tracing::Tracing;
use veth::Inside;
use worker::Worker;

/// The kernel, as seen from the network namespace of the thread that made this.
#[derive(Debug)]
pub struct Linux {
    route: Socket,
    nft: Nft,
    worker: Worker,
    /// Sockets for ARP by bridge, while all are asked there.
    arp: BTreeMap<String, Arp>,
    /// Sockets for frames of guests, by the index of the tap, while somebody looks.
    overheard: BTreeMap<(u32, Side), Overhearing>,
    /// What is told of traced packets, while somebody looks.
    tracing: Option<Tracing>,
    /// The socket for frames that nobody has asked for, once there was one.
    sender: Option<Sender>,
    pool: TapPool,
    /// Owner and queues of the last new tap, until it is attached.
    fresh: Option<(Option<u32>, bool)>,
    tally: Tally,
    /// The namespace that was entered.
    inside: Option<Inside>,
}

impl Linux {
    /// Opens the sockets. Needs CAP_NET_ADMIN in the namespace. `pool` is the number of taps to
    /// make ahead, once their kind is known.
    pub fn new(pool: usize) -> Result<Linux, Failure> {
        let route = Socket::open(NetlinkFamily::Route)
            .map_err(|error| Failure::kernel("open", "rtnetlink", &error))?;
        let (worker, pool) = (Worker::default(), TapPool::new(pool));
        Ok(Linux {
            route,
            nft: Nft::new()?,
            worker,
            arp: BTreeMap::new(),
            overheard: BTreeMap::new(),
            tracing: None,
            sender: None,
            pool,
            fresh: None,
            tally: Tally::default(),
            inside: None,
        })
    }

    /// Subscribes to news about changes by others.
    pub fn monitor(&self) -> Result<Monitor, Failure> {
        Monitor::open(self.nft.port())
    }
}

impl Network for Linux {
    fn enter(&mut self, door: BorrowedFd<'_>, tun: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        self.inside = Some(Inside::new(door, tun, &self.route)?);
        Ok(())
    }

    fn check_own(&mut self, door: BorrowedFd<'_>) -> Result<(), Refusal> {
        veth::check_own(door, &self.route)
    }

    fn leave(&mut self) {
        self.inside = None;
    }

    fn ask_arp(&mut self, bridge: &str, ip: Ipv4Addr) -> io::Result<()> {
        match self.arp.entry(bridge.into()) {
            Entry::Occupied(arp) => arp.get().ask(ip),
            Entry::Vacant(place) => place.insert(Arp::open(bridge)?).ask(ip),
        }
    }

    fn hear_arp(&mut self, bridge: &str) -> Vec<(Ipv4Addr, Mac)> {
        self.arp.get(bridge).map(Arp::hear).unwrap_or_default()
    }

    fn end_arp(&mut self) {
        self.arp.clear();
    }

    fn send_frame(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        match &self.sender {
            Some(sender) => sender.send(ifindex, frame),
            None => self.sender.insert(Sender::open()?).send(ifindex, frame),
        }
    }

    fn backend(&self) -> &'static str {
        "linux"
    }

    fn observe(&mut self) -> Result<Observed, Failure> {
        let began = Instant::now();
        let observed = self.observe_all();
        self.tally.observed(began.elapsed().as_micros() as u64, &observed);
        observed
    }

    fn surroundings(&mut self) -> Result<Surroundings, Failure> {
        let surroundings = self.observe_others();
        self.tally.asked(&surroundings);
        surroundings
    }

    fn bounds(&mut self) -> Bounds {
        bounds::observe()
    }

    fn way(&mut self, bridge: &str, from: IpAddr, to: IpAddr) -> Result<Way, Failure> {
        match addresses::way(&mut self.route, bridge, from, to) {
            Ok(None) => Ok(Way::Unknown),
            Ok(Some((index, of_route))) => {
                let (link, of_link) =
                    links::name_and_mtu(&mut self.route, index).map_err(unread("a link"))?;
                Ok(Way::By { link, mtu: of_route.map_or(of_link, |mtu| mtu.min(of_link)) })
            }
            Err(error) => match error.errno() {
                Some(errno) => Ok(Way::None(nix::errno::Errno::from_raw(errno).desc().into())),
                None => Err(unread("a route")(error)),
            },
        }
    }

    fn hindrances(&mut self) -> Result<Vec<Hindrance>, Failure> {
        self.nft.hindrances().map_err(unread("nf_tables"))
    }

    fn overhear(&mut self, ifindex: u32, side: Side) -> io::Result<()> {
        if let Entry::Vacant(place) = self.overheard.entry((ifindex, side)) {
            place.insert(Overhearing::open(ifindex, side)?);
        }
        Ok(())
    }

    fn overheard(&mut self, ifindex: u32, side: Side) -> Vec<Vec<u8>> {
        self.overheard.get(&(ifindex, side)).map(Overhearing::take).unwrap_or_default()
    }

    fn end_overhearing(&mut self, ifindex: u32, side: Side) {
        self.overheard.remove(&(ifindex, side));
    }

    fn begin_tracing(&mut self) -> Result<(), Failure> {
        if self.tracing.is_none() {
            let failed = |error| Failure::kernel("subscribe to", "traced packets", &error);
            self.tracing = Some(Tracing::open().map_err(failed)?);
        }
        Ok(())
    }

    fn book(&mut self) -> Result<(Chains, Rules), Failure> {
        self.nft.book().map_err(unread("nf_tables"))
    }

    fn traced(&mut self) -> (Vec<Told>, bool) {
        let route = &self.route;
        self.tracing.as_mut().map(|it| it.take(route)).unwrap_or_default()
    }

    fn end_tracing(&mut self) {
        self.tracing = None;
    }

    fn listeners(&mut self, wanted: &[HostPort]) -> Vec<Listener> {
        listeners::observe(wanted)
    }

    fn features(&mut self) -> Result<Features, Failure> {
        let connections = self.nft.connections().map_err(unread("what connections allow"))?;
        Ok(Features {
            owned_tables: self.nft.has_owned_tables(),
            bridge_rules: self.nft.has_bridge_rules().map_err(unread("what nf_tables allows"))?,
            token_buckets: qdiscs::is_possible(&mut self.route),
            connections: connections != Conntrack::Never,
            connection_filter: connections == Conntrack::Filter,
        })
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, Failure> {
        let (route, nft) = (&mut self.route, &mut self.nft);
        let made = match op {
            Op::CreateBridge { name, mac, mtu, alias } => {
                links::create_bridge(route, name, *mac, *mtu, alias).map(Some)
            }
            Op::CreateTap { name, owner, multi_queue, alias } => {
                let spec = tap::Spec { name, owner: *owner, multi_queue: *multi_queue, alias };
                self.create_tap(&spec).map(Some)
            }
            Op::CreateVeth { name, mac, mtu, alias, inner } => {
                let spec = veth::Spec { name, mac: *mac, mtu: *mtu, alias, inner };
                veth::create(route, self.inside.as_mut(), &spec).map(Some)
            }
            Op::SetLink { name, set, former: _ } => none(self.set_link(name, set)),
            Op::ShapeLink { name, to, former } => none(qdiscs::shape(route, name, *to, *former)),
            Op::DeleteLink { name, index: None } => none(links::delete(route, name)),
            Op::DeleteLink { name: _, index: Some(index) } => {
                if let Some(inside) = &mut self.inside {
                    inside.undo(*index);
                }
                none(self.worker.retire(route, *index))
            }
            Op::AddAddress { link, address, length } => {
                none(addresses::add(route, link, *address, *length))
            }
            Op::RemoveAddress { link, address, length } => {
                none(addresses::remove(route, link, *address, *length))
            }
            Op::AddRoute(to) => none(addresses::add_route(route, to)),
            Op::RemoveRoute(to) => none(addresses::remove_route(route, to)),
            Op::SetForwarding { on } => none(sysctl::set_forwarding(*on).map_err(Error::from)),
            Op::SetSwitch { switch, to, former: _ } => {
                none(sysctl::set_switch(switch, *to).map_err(Error::from))
            }
            Op::CreateTable(table) => none(nft.create_table(table)),
            Op::ReplaceTable(table) => none(nft.replace_table(table)),
            Op::RemoveTable { family, name } => none(nft.remove_table(*family, name)),
            Op::AddElements(elements) => none(nft.add_elements(elements)),
            Op::ExchangeElements { gone, new } => none(nft.exchange_elements(gone, new)),
            Op::RemoveElements(elements) => none(nft.remove_elements(elements)),
            Op::AddAccept(accept) => none(nft.add_accept(accept)),
            Op::RemoveAccept(accept) => none(nft.remove_accept(accept)),
            Op::ForgetAddress { link, address, at } => {
                none(self.forget_address(link, *address, *at))
            }
            Op::ForgetFlows { protocol, host_port, address, port } => {
                let (protocol, host_port) = (*protocol, *host_port);
                let (address, port) = (*address, *port);
                none(self.worker.forget(FlowSelector::Led { protocol, host_port, address, port }))
            }
        };
        let applied = made.map(|ifindex| Applied { ifindex }).map_err(|error| {
            let (operation, object) = op.describe();
            error.failure(operation, object)
        });
        self.tally.changed(op.operation(), &applied);
        applied
    }

    fn open_tap(&mut self, port: &DesiredPort<'_>) -> Result<OwnedFd, Failure> {
        let name = port.tap.as_str();
        let opened = tap::open(&self.route, name, port.index, port.kind.is_multi_queue())
            .map_err(|error| error.failure("open tap", name));
        self.tally.asked(&opened);
        opened
    }

    fn settle(&mut self) {
        self.worker.settle();
    }

    fn has_spare_work(&self) -> bool {
        self.pool.is_wanting()
    }

    fn do_spare_work(&mut self) {
        if let Err(error) = self.pool.make(&mut self.route) {
            log::info!("{}", error.failure("make", "a tap ahead"));
        }
    }

    fn counted(&mut self) -> Result<Vec<Counted>, Failure> {
        let counted = self.read_counters();
        self.tally.asked(&counted);
        counted
    }

    fn dropped(&mut self) -> Result<Vec<Dropped>, Failure> {
        let dropped = self.read_dropped();
        self.tally.asked(&dropped);
        dropped
    }

    fn passed(&mut self) -> Result<Vec<Passed>, Failure> {
        let passed = self.read_passed();
        self.tally.asked(&passed);
        passed
    }

    fn tally(&self) -> Option<&Tally> {
        Some(&self.tally)
    }

    fn flush(&mut self) {
        let spare = self.pool.empty();
        self.retire_all(&spare);
        self.worker.flush();
    }
}

impl Linux {
    /// Reads everything of ours, and what it could collide with.
    fn observe_all(&mut self) -> Result<Observed, Failure> {
        let _still = self.worker.pause();
        // This comes before the dump: a link that is deleted meanwhile is in neither.
        let mut hidden = self.worker.retired();
        hidden.extend(self.pool.ready());
        let seen = self.nft.observe().map_err(unread("nf_tables"))?;
        let mut links = links::observe(&mut self.route).map_err(unread("links"))?;
        links.retain(|link| !hidden.contains(&link.index));
        self.observe_shaping(&mut links)?;
        let others = links.iter().filter(|link| !link.is_of_nic() && !link.is_our_bridge());
        let routes = addresses::routes(&mut self.route).map_err(unread("routes"))?;
        let switches = sysctl::switches(others.map(|link| link.name.as_str()));
        Ok(Observed {
            switches,
            links,
            addresses: addresses::observe(&mut self.route).map_err(unread("addresses"))?,
            routes: routes.all,
            guest_routes: routes.of_guests,
            forwarding: sysctl::forwarding()
                .map_err(|error| Failure::kernel("read", "net.ipv4.ip_forward", &error))?,
            without_ipv6: !sysctl::has_ipv6(),
            without_bridge_filter: !sysctl::has_bridge_filter(),
            tables: seen.tables,
            accepts: seen.accepts,
            accept_chains: seen.chains,
        })
    }

    /// Reads what others have that is in the way of guests.
    fn observe_others(&mut self) -> Result<Surroundings, Failure> {
        let bridged_filtered = sysctl::bridged_frames_are_filtered().map_err(|error| {
            Failure::kernel("read", "net.bridge.bridge-nf-call-iptables", &error)
        })?;
        let firewalls = self.nft.firewalls().map_err(unread("nf_tables"))?;
        let name_of = |index| links::name_of(&self.route, index);
        let barriers = self.nft.barriers(name_of).map_err(unread("nf_tables"))?;
        let translators = self.nft.translators().map_err(unread("nf_tables"))?;
        let mut closed =
            |family| links::closed(&mut self.route, family).map_err(unread("what links forward"));
        let not_routers = if sysctl::has_ipv6() { closed(AF_INET6)? } else { Vec::new() };
        let closed = closed(AF_INET)?;
        Ok(Surroundings { bridged_filtered, closed, not_routers, firewalls, barriers, translators })
    }

    /// Reads the counters of policies.
    fn read_counters(&mut self) -> Result<Vec<Counted>, Failure> {
        let mut all = Vec::new();
        for (set, allowed) in [(ALLOWED, true), (DENIED, false)] {
            let counted = self.nft.counted(set).map_err(unread("what was counted"))?;
            all.extend(counted.into_iter().map(|(address, packets, bytes)| Counted {
                address,
                allowed,
                packets,
                bytes,
            }));
        }
        Ok(all)
    }

    /// Reads what was dropped of frames of guests.
    fn read_dropped(&mut self) -> Result<Vec<Dropped>, Failure> {
        let mut all = Vec::new();
        let causes =
            [(SPOOFED, Cause::Spoofed), (FORGED, Cause::Forged), (OVERRUN, Cause::Overrun)];
        for (set, cause) in causes {
            let counted = self.nft.counted_by_port(set).map_err(unread("what was dropped"))?;
            all.extend(counted.into_iter().map(|(tap, packets)| Dropped { tap, cause, packets }));
        }
        Ok(all)
    }

    /// Reads what went through links, and what limits held back.
    fn read_passed(&mut self) -> Result<Vec<Passed>, Failure> {
        let shaped = qdiscs::dropped(&mut self.route).map_err(unread("queueing disciplines"))?;
        let shaped: BTreeMap<u32, u32> = shaped.into_iter().collect();
        let passed = links::passed(&mut self.route).map_err(unread("what went through links"))?;
        let with_shaped = |passed: Passed| {
            let shaped = shaped.get(&passed.index).copied().unwrap_or_default();
            Passed { shaped: shaped.into(), ..passed }
        };
        Ok(passed.into_iter().map(with_shaped).collect())
    }

    /// Makes a tap, or takes one from the pool.
    fn create_tap(&mut self, spec: &tap::Spec<'_>) -> Result<u32, Error> {
        match self.pool.take(&mut self.route, spec) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => {}
            Err(spoilt) => self.retire_all(&spoilt),
        }
        let index = tap::create(&mut self.route, spec)?;
        self.fresh = Some((spec.owner, spec.multi_queue));
        Ok(index)
    }

    /// Deletes the neighbour entry and the connections of an address. The second is tried even if
    /// the first fails.
    fn forget_address(&mut self, link: &str, address: IpAddr, at: Handover) -> Result<(), Error> {
        let neighbour = addresses::forget_neighbour(&mut self.route, link, address);
        let connections = match at {
            Handover::Assigned => self.worker.forget_first(address),
            Handover::Released => self.worker.forget(FlowSelector::Of(address)),
        };
        neighbour?;
        connections
    }

    /// Adds the shaping to the observed links.
    fn observe_shaping(&mut self, links: &mut [Link]) -> Result<(), Failure> {
        let shaped = qdiscs::observe(&mut self.route).map_err(unread("queueing disciplines"))?;
        let shaped: BTreeMap<u32, Shaping> = shaped.into_iter().collect();
        for link in links {
            link.shaping = shaped.get(&link.index).copied();
        }
        Ok(())
    }

    /// Retires links that belonged to no VM.
    fn retire_all(&mut self, indexes: &[u32]) {
        for index in indexes {
            if let Err(error) = self.worker.retire(&mut self.route, *index) {
                log::warn!("{}", error.failure("delete link", format!("index {index}")));
            }
        }
    }

    /// Changes a link. If a bridge is full, the ports of the pool are removed first.
    fn set_link(&mut self, name: &str, set: &LinkSettings) -> Result<(), Error> {
        if self.pool.is_done(name, set) {
            return Ok(());
        }
        let fresh = self.fresh.take();
        match links::set(&mut self.route, name, set) {
            Err(error) if error.errno() == Some(libc::EXFULL) => {
                self.flush();
                links::set(&mut self.route, name, set)
            }
            Err(error) => Err(error),
            Ok(()) => {
                let spare = self.pool.learn(fresh, set);
                self.retire_all(&spare);
                Ok(())
            }
        }
    }
}

impl Drop for Linux {
    /// The taps of the pool belong to nobody.
    fn drop(&mut self) {
        let spare = self.pool.empty();
        self.retire_all(&spare);
    }
}

/// The result of an Op that makes no link.
fn none(result: Result<(), Error>) -> Result<Option<u32>, Error> {
    result.map(|()| None)
}

fn unread(what: &'static str) -> impl FnOnce(Error) -> Failure {
    move |error| error.failure("read", what)
}
