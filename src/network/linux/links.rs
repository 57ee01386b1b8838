//! Links: made, changed, removed and read over rtnetlink.
//!
//! A link is addressed by its name if volnet makes it or has just made it, and by its index if
//! another link could have replaced it since. A failed message does not stop the later messages of
//! the same send. So after a message that makes a link, no message addresses it by name if it could
//! hit a foreign link.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use crate::model::mac::Mac;
use crate::netlink::rtnl::link::{
    self, Bridge, LinkChange, LinkMessage, PortChange, Target, TunKind,
};
use crate::netlink::rtnl::netconf::{self, NetconfMessage, Owner};
use crate::netlink::rtnl::stats::{self, StatsMessage};
use crate::network::Passed;
use crate::plan::op::{Filtered, LinkSettings, PortSettings};
use crate::plan::reconcile::{Link, LinkKind};

use super::socket::{DUMPS_TO_LAST, Error, Socket};

/// The group of a bridge or veth between the request that makes it and the request that sets its
/// alias. The kernel accepts no alias when it makes a link, but it accepts a group. If volnet stops
/// between the two, the group shows that the link is ours and unfinished. No other program is
/// likely to use this number.
pub const UNFINISHED: NonZeroU32 = NonZeroU32::new(0x766f_6b00).expect("it is not 0");

/// Makes a bridge and returns its index. The bridge is down. EEXIST when the name is taken: the
/// existing link is not changed. If a later step fails, the bridge is removed. If that fails as
/// well, it stays unfinished, and the next reconciliation removes it.
pub fn create_bridge(
    socket: &mut Socket,
    name: &str,
    mac: Mac,
    mtu: u16,
    alias: &str,
) -> Result<u32, Error> {
    let made = socket.request(1, |writer, sequence| {
        link::new_bridge(writer, sequence.take(), name, mac.0, Some(UNFINISHED));
    });
    let index = match made {
        Ok(()) => unfinished(socket, name)?,
        // No answer came: the bridge may exist.
        Err(error) if error.errno().is_none() => unfinished(socket, name).map_err(|_| error)?,
        Err(error) => return Err(who(socket, error, name)),
    };
    finish(socket, index, mtu, alias).inspect_err(|_| {
        // The index proves that it is ours. If even this fails, the first error is more useful.
        let _ = remove(socket, Target::Index(index));
    })?;
    Ok(index)
}

/// The index of the unfinished link with this name: it has no alias yet.
pub(super) fn unfinished(socket: &mut Socket, name: &str) -> Result<u32, Error> {
    let found = find(socket, Target::Name(name), |link| is_unfinished(link).then_some(link.index))?;
    found.ok_or_else(|| Error::refused(libc::ENODEV, "another link took its name".into()))
}

fn is_unfinished(link: &LinkMessage<'_>) -> bool {
    let is_made_so = link.is_bridge() || link.is_veth();
    is_made_so && link.alias.is_none() && link.group == UNFINISHED.get()
}

/// Gives a bridge its MTU and its alias, and takes it out of the group.
fn finish(socket: &mut Socket, index: u32, mtu: u16, alias: &str) -> Result<(), Error> {
    let target = Target::Index(index);
    let change = LinkChange { mtu: Some(mtu.into()), alias: Some(alias), ..LinkChange::default() };
    // Only an MTU that was set stays; otherwise the bridge follows its lowest port
    // (net/bridge/br_if.c, `br_mtu_auto_adjust`). So set another valid MTU first.
    let other = LinkChange { mtu: Some(u32::from(mtu ^ 1)), ..LinkChange::default() };
    socket.request(2, |writer, sequence| {
        link::set(writer, sequence.take(), target, &other);
        link::set(writer, sequence.take(), target, &change);
    })?;
    leave_group(socket, index)
}

/// Takes a link out of the group of unfinished ones. This comes after the alias, in a request of
/// its own, because the kernel changes the group first.
pub(super) fn leave_group(socket: &mut Socket, index: u32) -> Result<(), Error> {
    let change = LinkChange { group: Some(0), ..LinkChange::default() };
    let target = Target::Index(index);
    socket.request(1, |writer, sequence| link::set(writer, sequence.take(), target, &change))
}

/// Changes a link: one message has the settings of the link, and others in the same send have its
/// settings as a bridge and as a port of one.
pub fn set(socket: &mut Socket, name: &str, settings: &LinkSettings) -> Result<(), Error> {
    let master = match &settings.master {
        None => None,
        Some(None) => Some(0),
        Some(Some(bridge)) => Some(index_of(socket, bridge)?),
    };
    let change = LinkChange {
        master,
        up: settings.up,
        mtu: settings.mtu.map(u32::from),
        mac: settings.mac.map(|mac| mac.0),
        alias: settings.alias.as_deref(),
        no_ipv6: settings.no_ipv6,
        ..LinkChange::default()
    };
    let port = PortChange {
        isolated: settings.port.map(|port| port.isolated),
        hairpin: settings.port.map(|port| port.hairpin),
        group_forward: settings.port.map(|port| port.group_forward),
        ..PortChange::default()
    };
    let filtered = settings.filtered.map(|Filtered { ipv4, ipv6 }| link::Filtered { ipv4, ipv6 });
    let bridge = Bridge { snooping: settings.snooping, filtered };
    match send(socket, name, &change, bridge, &port) {
        // This link has no IPv6 (the kernel has none, or the MTU is too small), so the kernel does
        // not give it addresses either.
        Err(error) if change.no_ipv6 && error.errno() == Some(libc::EAFNOSUPPORT) => {
            send(socket, name, &LinkChange { no_ipv6: false, ..change }, bridge, &port)
        }
        result => result,
    }
}

fn send(
    socket: &mut Socket,
    name: &str,
    change: &LinkChange<'_>,
    bridge: Bridge,
    port: &PortChange,
) -> Result<(), Error> {
    let about_link = *change != LinkChange::default();
    let about_bridge = bridge != Bridge::default();
    let about_port = *port != PortChange::default();
    let acks = [about_link, about_bridge, about_port].map(u32::from).iter().sum();
    if acks == 0 {
        return Ok(());
    }
    socket.request(acks, |writer, sequence| {
        if about_link {
            link::set(writer, sequence.take(), Target::Name(name), change);
        }
        if about_bridge {
            link::set_bridge(writer, sequence.take(), Target::Name(name), bridge);
        }
        if about_port {
            link::set_port(writer, sequence.take(), Target::Name(name), port);
        }
    })
}

/// Removes the link with that name. If it is gone, that is success. The kernel makes the caller
/// wait 12 to 20 ms.
pub fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    remove(socket, Target::Name(name))
}

pub(super) fn remove(socket: &mut Socket, target: Target<'_>) -> Result<(), Error> {
    match socket.request(1, |writer, sequence| link::delete(writer, sequence.take(), target)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// Reads all links.
///
/// If others make and remove links without end, links change during every dump. Then several dumps
/// count together. One of them can lack a link that existed all the time: before Linux 6.9 the
/// kernel counts the links of a hash bucket, and skips one if another of the bucket is removed
/// between two datagrams (net/core/rtnetlink.c, `rtnl_dump_ifinfo`). It is very unlikely that all
/// dumps lack the same link. Links that the last dump does not have are requested one by one.
pub fn observe(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut seen = BTreeMap::new();
    let mut missing: Vec<u32> = Vec::new();
    for _ in 0..DUMPS_TO_LAST {
        let dumped = socket.dump_once(link::dump, |message| {
            LinkMessage::read(message.payload).map(|link| Some(owned(&link)))
        })?;
        if dumped.whole {
            return Ok(dumped.items);
        }
        let told: BTreeSet<u32> = dumped.items.iter().map(|link| link.index).collect();
        seen.extend(dumped.items.into_iter().map(|link| (link.index, link)));
        missing = seen.keys().copied().filter(|index| !told.contains(index)).collect();
    }
    for index in missing {
        match find(socket, Target::Index(index), owned) {
            Ok(link) => drop(seen.insert(index, link)),
            Err(error) if error.errno() == Some(libc::ENODEV) => drop(seen.remove(&index)),
            Err(error) => return Err(error),
        }
    }
    Ok(seen.into_values().collect())
}

/// Reads what went through links. One that comes or goes meanwhile may be missing.
pub fn passed(socket: &mut Socket) -> Result<Vec<Passed>, Error> {
    let dumped = socket.dump_or_last(stats::dump, |message| {
        let StatsMessage { index, packets, bytes, unsent } = StatsMessage::read(message.payload)?;
        Ok(Some(Passed { index, packets, bytes, unread: unsent, shaped: 0 }))
    })?;
    Ok(dumped.items)
}

/// The index of a link; ENODEV when there is none of that name.
pub fn index_of(socket: &Socket, name: &str) -> Result<u32, Error> {
    volnet_ffi::socket::link_index(socket.as_fd(), name).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENODEV) => Error::refused(libc::ENODEV, format!("there is no link {name}")),
            _ => error.into(),
        }
    })
}

/// The name of a link; none if there is no link with that index.
pub fn name_of(socket: &Socket, index: u32) -> Option<String> {
    volnet_ffi::socket::link_name(socket.as_fd(), index).ok()
}

/// The name and the MTU of the link with this index; ENODEV when there is none.
pub fn name_and_mtu(socket: &mut Socket, index: u32) -> Result<(String, u32), Error> {
    find(socket, Target::Index(index), |link| {
        (String::from_utf8_lossy(link.name).into_owned(), link.mtu)
    })
}

/// Reads the names of the links that do not forward packets of a family (`AF_*`) though the
/// namespace does. Ports of bridges do not count: what comes in by them is the bridge's. A link
/// that comes or goes meanwhile may be missing.
pub fn closed(socket: &mut Socket, family: u8) -> Result<Vec<String>, Error> {
    let ask = |writer: &mut _, sequence| netconf::dump(writer, sequence, family);
    let dumped = socket.dump_or_last(ask, |message| {
        let switch = NetconfMessage::read(message.payload)?;
        Ok((switch.forwarding == Some(false)).then_some(switch.of))
    })?;
    if dumped.items.contains(&Owner::Namespace) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for of in dumped.items {
        let Owner::Link(index) = of else { continue };
        match find(socket, Target::Index(index), owned) {
            Ok(link) if link.master.is_none() => names.push(link.name),
            Ok(_) => {}
            Err(error) if error.errno() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// Describes the link that has taken a name, instead of the kernel's bare errno.
pub fn who(socket: &mut Socket, error: Error, name: &str) -> Error {
    let Some(errno @ (libc::EEXIST | libc::EBUSY)) = error.errno() else {
        return error;
    };
    let describe = |link: &LinkMessage<'_>| {
        let kind = link.kind.map_or("hardware".into(), String::from_utf8_lossy);
        let alias = link.alias.map_or_else(String::new, |alias| {
            format!(", alias {:?}", String::from_utf8_lossy(alias))
        });
        format!("a link of this name exists: index {}, kind {kind}{alias}", link.index)
    };
    match find(socket, Target::Name(name), describe) {
        Ok(words) => Error::refused(errno, words),
        Err(_) => error,
    }
}

/// Asks for one link and returns what `read` makes of it.
pub(super) fn find<T>(
    socket: &mut Socket,
    target: Target<'_>,
    read: impl Fn(&LinkMessage<'_>) -> T,
) -> Result<T, Error> {
    let mut found = None;
    socket.request_and(
        1,
        |writer, sequence| link::get(writer, sequence.take(), target),
        |message| {
            found = Some(read(&LinkMessage::read(message.payload)?));
            Ok(())
        },
    )?;
    found.ok_or(Error::Silent)
}

/// A link as an owned value.
pub fn owned(link: &LinkMessage<'_>) -> Link {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match link.tun {
        Some(tun) if tun.kind == TunKind::Tap => LinkKind::Tap {
            vnet_hdr: tun.vnet_hdr,
            multi_queue: tun.multi_queue,
            persistent: tun.persistent,
            owner: tun.owner,
        },
        _ if link.is_bridge() => LinkKind::Bridge,
        _ if link.is_veth() => LinkKind::Veth,
        _ => LinkKind::Other,
    };
    Link {
        index: link.index,
        name: text(link.name),
        alias: link.alias.map(text),
        kind,
        master: link.master,
        up: link.is_up(),
        carrier: link.carrier,
        mtu: link.mtu,
        mac: Mac(link.mac.unwrap_or([0; 6])),
        filtered: link.bridge.filtered.map(|link::Filtered { ipv4, ipv6 }| Filtered { ipv4, ipv6 }),
        port: link.port.as_ref().map(port_settings).unwrap_or_default(),
        state: link.port.map(|port| port.state),
        snooping: link.bridge.snooping.unwrap_or(false),
        shaping: None,
        unfinished: is_unfinished(link),
    }
}

/// The settings of a port that we use.
pub(super) fn port_settings(port: &link::BridgePort) -> PortSettings {
    let link::BridgePort { isolated, hairpin, group_forward, .. } = *port;
    PortSettings { isolated, hairpin, group_forward }
}
