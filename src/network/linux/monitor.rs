//! News from the kernel, by multicast.
//!
//! There are two sockets: rtnetlink reports links, addresses and the switches of forwarding, and
//! nfnetlink reports rules. The daemon waits until one becomes readable, and then drains both. The
//! result is a digest: the last report about each object. If news arrive faster than they are read,
//! the kernel drops some and reports it once. This, and news that make no sense, count as lost:
//! then everything must be observed again.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use neli::consts::rtnl::Rtm;
use nix::sys::socket::{setsockopt, sockopt};

use crate::model::error::Failure;
use crate::netlink::message::{Message, Messages};
use crate::netlink::nft::{self, FAMILY_BRIDGE, FAMILY_IP, FAMILY_IP6};
use crate::netlink::rtnl::netconf::Owner;
use crate::netlink::rtnl::qdisc::ROOT;
use crate::netlink::rtnl::{
    AF_BRIDGE, AF_INET6, AF_UNSPEC, GROUP_ADDRESS, GROUP_ADDRESS6, GROUP_LINK, GROUP_NETCONF,
    GROUP_NETCONF6, GROUP_QDISC, Notice,
};
use crate::nftables::accept::FILTER;
use crate::plan::news::{Culprit, News};
use crate::plan::ruleset::{TABLE, TRACE_TABLE};

use super::links::{owned, port_settings};
use super::qdiscs;
use super::socket::{DATAGRAM_MAX, NetlinkFamily, open, receive};

/// Bytes of each receive queue: news about some thousand links in one turn of the loop.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// The most datagrams that are read from each socket at a time. More count as lost.
const DATAGRAMS_MAX: usize = 1 << 16;

/// The subscriptions.
#[derive(Debug)]
pub struct Monitor {
    route: OwnedFd,
    rules: OwnedFd,
    /// The port of the socket by which we change rules. Its changes are ignored.
    own: u32,
    /// What was touched in the change of rules that is being told.
    touched: Touched,
    buffer: Box<[u8]>,
}

/// What a change of rules touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// A table of ours, or the one in which we have rules.
    ours: bool,
    /// Tables, chains or rules of others. What is in their sets changes all the time.
    others: bool,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread. Changes by the port `own` are
    /// ignored.
    pub fn open(own: u32) -> Result<Monitor, Failure> {
        let subscribe = |protocol, groups: &[u32]| {
            let fd = open(protocol)?;
            setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            for group in groups {
                volnet_ffi::socket::join(fd.as_fd(), *group)?;
            }
            Ok(fd)
        };
        let failed =
            |what| move |error: std::io::Error| Failure::kernel("subscribe to", what, &error);
        let groups =
            [GROUP_LINK, GROUP_ADDRESS, GROUP_ADDRESS6, GROUP_NETCONF, GROUP_NETCONF6, GROUP_QDISC];
        Ok(Monitor {
            route: subscribe(NetlinkFamily::Route, &groups).map_err(failed("news of links"))?,
            rules: subscribe(NetlinkFamily::Netfilter, &[nft::notice::GROUP])
                .map_err(failed("news of rules"))?,
            own,
            touched: Touched::default(),
            buffer: vec![0; DATAGRAM_MAX].into(),
        })
    }

    /// The descriptors that become readable when there are news.
    pub fn descriptors(&self) -> [RawFd; 2] {
        [self.route.as_raw_fd(), self.rules.as_raw_fd()]
    }

    /// Reads all news.
    pub fn drain(&mut self) -> News {
        let mut news = News::default();
        let mut last = LastReport::default();
        drain(&self.route, &mut self.buffer, &mut news, |message, news| last.take(message, news));
        news.lost |= last.read(&mut news).is_none();
        let (own, touched) = (self.own, &mut self.touched);
        drain(&self.rules, &mut self.buffer, &mut news, |message, news| {
            take_rules(message, news, own, touched)
        });
        news
    }
}

/// Reads a socket until it would block, and passes every message to `take`. If it returns `None`,
/// the message counts as lost.
fn drain(
    fd: &OwnedFd,
    buffer: &mut [u8],
    news: &mut News,
    mut take: impl FnMut(&Message<'_>, &mut News) -> Option<()>,
) {
    for _ in 0..DATAGRAMS_MAX {
        match receive(fd, buffer) {
            Ok(None) => return,
            Ok(Some(datagram)) => {
                for message in Messages::new(datagram) {
                    let taken = message.ok().and_then(|message| take(&message, news));
                    news.lost |= taken.is_none();
                }
            }
            // ENOBUFS, or a datagram that was cut: the next may be good.
            Err(_) => news.lost = true,
        }
    }
    news.lost = true;
}

/// The last report about the link that is reported about, unread. To make a link and attach it
/// causes a dozen reports about it, one after the other, and to read them takes longer than to
/// receive them. Only the last of each kind matters.
#[derive(Debug, Default)]
pub(super) struct LastReport {
    index: u32,
    /// About the link itself, if there is one. It comes before `port`.
    link: Vec<u8>,
    /// About it as a port of its bridge.
    port: Vec<u8>,
}

impl LastReport {
    /// Takes the next message. Reports about a link may wait until [`LastReport::read`]. `None` if
    /// a message makes no sense.
    pub(super) fn take(&mut self, message: &Message<'_>, news: &mut News) -> Option<()> {
        let payload = message.payload;
        let is_link = Rtm::from(message.kind) == Rtm::Newlink;
        let about = is_link.then(|| index_of(payload)).flatten();
        let waiting = match about {
            Some(index) if index == self.index => Some(()),
            _ => self.read(news),
        };
        match (about, payload.first()) {
            (Some(index), Some(&AF_UNSPEC)) => {
                self.index = index;
                self.port.clear();
                self.link.clear();
                self.link.extend_from_slice(payload);
                waiting
            }
            (Some(index), Some(&AF_BRIDGE)) => {
                self.index = index;
                self.port.clear();
                self.port.extend_from_slice(payload);
                waiting
            }
            (_, _) => take_route(message, news).and(waiting),
        }
    }

    /// Reads what waits.
    pub(super) fn read(&mut self, news: &mut News) -> Option<()> {
        let mut all = Some(());
        let kind = Rtm::Newlink.into();
        for payload in [&mut self.link, &mut self.port] {
            if !payload.is_empty() {
                let message =
                    Message { kind, flags: 0, sequence: 0, port: 0, payload: &payload[..] };
                all = take_route(&message, news).and(all);
                payload.clear();
            }
        }
        self.index = 0;
        all
    }
}

/// The index of the link in `struct ifinfomsg`.
fn index_of(payload: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?))
}

pub(super) fn take_route(message: &Message<'_>, news: &mut News) -> Option<()> {
    match Notice::read(message).ok()? {
        Some(Notice::Link(link)) => {
            news.ports.remove(&link.index);
            news.links.insert(link.index, (owned(&link), true));
        }
        Some(Notice::LinkGone(link)) => {
            news.ports.remove(&link.index);
            news.links.insert(link.index, (owned(&link), false));
        }
        Some(Notice::Port(told)) => match news.links.get_mut(&told.index) {
            Some((link, _)) => link.port = port_settings(&told.port),
            None => {
                let name = String::from_utf8_lossy(told.name).into_owned();
                news.ports.insert(told.index, (name, port_settings(&told.port)));
            }
        },
        Some(Notice::Address(at)) => {
            news.addresses.insert((at.index, at.address, at.length), true);
        }
        Some(Notice::AddressGone(at)) => {
            news.addresses.insert((at.index, at.address, at.length), false);
        }
        Some(Notice::Netconf(netconf)) => match (netconf.family, netconf.of) {
            (AF_INET6, Owner::Namespace) => {
                news.forwarding6 = netconf.forwarding.or(news.forwarding6);
            }
            (_, Owner::Namespace) => news.forwarding = netconf.forwarding.or(news.forwarding),
            (AF_INET6, Owner::Link(link)) => {
                news.routers.extend(netconf.forwarding.map(|on| (link, on)));
            }
            (_, Owner::Later) => {}
            (_, Owner::Link(_)) => news.closed |= netconf.forwarding == Some(false),
        },
        Some(Notice::Qdisc(told)) if told.parent == ROOT => {
            news.shapings.insert(told.index, qdiscs::shaping(&told));
        }
        Some(Notice::QdiscGone(told)) if told.parent == ROOT => {
            news.shapings.insert(told.index, None);
        }
        Some(
            Notice::Qdisc(_)
            | Notice::QdiscGone(_)
            | Notice::Neighbour(_)
            | Notice::NeighbourGone(_)
            | Notice::Route(_)
            | Notice::RouteGone(_),
        )
        | None => {}
    }
    Some(())
}

pub(super) fn take_rules(
    message: &Message<'_>,
    news: &mut News,
    own: u32,
    touched: &mut Touched,
) -> Option<()> {
    match nft::notice::Notice::read(message).ok()? {
        Some(nft::notice::Notice::Touched { family, table, elements }) => {
            let ours = matches!(family, FAMILY_IP | FAMILY_IP6 | FAMILY_BRIDGE)
                && [TABLE, TRACE_TABLE].iter().any(|name| name.as_bytes() == table);
            let accepts = matches!(family, FAMILY_IP | FAMILY_IP6) && table == FILTER.as_bytes();
            touched.ours |= ours || accepts;
            touched.others |= !ours && !elements;
        }
        Some(nft::notice::Notice::Generation(made)) => {
            let touched = std::mem::take(touched);
            if message.port != own {
                let (pid, name) = (made.pid.unwrap_or(0), made.name.unwrap_or_default().into());
                let culprit = Culprit { pid, name };
                news.others = touched.others.then(|| culprit.clone()).or(news.others.take());
                news.rules = touched.ours.then_some(culprit).or(news.rules.take());
            }
        }
        None => {}
    }
    Some(())
}
