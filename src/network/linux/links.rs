//! Links: made, changed, removed and read over rtnetlink.
//!
//! A link is named by its name where volnet has just made it or is about to, and by its index where
//! it could have been replaced by another of the same name meanwhile. A message that fails does not
//! stop those after it in the same send: nothing that could hit a foreign link stands behind a
//! message that makes the name ours.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use crate::model::mac::Mac;
use crate::netlink::rtnl::link::{
    self, LOWER_UP, LinkChange, LinkMessage, PortChange, Target, TunKind,
};
use crate::plan::op::{LinkSettings, PortSettings};
use crate::plan::reconcile::{Link, LinkKind};

use super::socket::{DUMPS_TO_LAST, Error, Socket};

/// The group of a bridge between the request that makes it and the one that gives it its alias. The
/// kernel takes no alias when it makes a link, but a group: whatever stops us between the two, the
/// bridge says that it is ours and unfinished. Nobody counts up to this number.
pub const UNFINISHED: NonZeroU32 = NonZeroU32::new(0x766f_6b00).expect("it is not 0");

/// Makes a bridge and returns its index. The bridge is down. EEXIST when the name is taken: the link
/// that has it is left as it is. If a step behind the first fails, the bridge is removed; if that
/// fails as well, it stays unfinished and is removed by the next reconciliation.
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
        // Its answer did not come: the bridge may be there.
        Err(error) if error.errno().is_none() => unfinished(socket, name).map_err(|_| error)?,
        Err(error) => return Err(who(socket, error, name)),
    };
    finish(socket, index, mtu, alias).inspect_err(|_| {
        // It is ours by its index; should even this fail, the first error says more.
        let _ = remove(socket, Target::Index(index));
    })?;
    Ok(index)
}

/// The index of the bridge of this name that was made and has no alias yet.
fn unfinished(socket: &mut Socket, name: &str) -> Result<u32, Error> {
    let found = find(socket, Target::Name(name), |link| is_unfinished(link).then_some(link.index))?;
    found.ok_or_else(|| Error::refused(libc::ENODEV, "another link took its name".into()))
}

fn is_unfinished(link: &LinkMessage<'_>) -> bool {
    link.is_bridge() && link.alias.is_none() && link.group == UNFINISHED.get()
}

/// Gives a bridge its MTU and its alias, and takes it out of the group.
fn finish(socket: &mut Socket, index: u32, mtu: u16, alias: &str) -> Result<(), Error> {
    let target = Target::Index(index);
    let change = LinkChange { mtu: Some(mtu.into()), alias: Some(alias), ..LinkChange::default() };
    // Only an MTU that was changed stays; else the bridge follows its lowest port
    // (net/bridge/br_if.c, `br_mtu_auto_adjust`). The other is as legal as the right one.
    let other = LinkChange { mtu: Some(u32::from(mtu ^ 1)), ..LinkChange::default() };
    socket.request(2, |writer, sequence| {
        link::set(writer, sequence.take(), target, &other);
        link::set(writer, sequence.take(), target, &change);
    })?;
    // Behind the alias: the kernel changes the group first.
    let change = LinkChange { group: Some(0), ..LinkChange::default() };
    socket.request(1, |writer, sequence| link::set(writer, sequence.take(), target, &change))
}

/// Changes a link: what is about the link in one message, what is about its place on the bridge in
/// a second one of the same send.
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
        group_forward: settings.port.map(|port| port.group_forward),
        ..PortChange::default()
    };
    match send(socket, name, &change, &port) {
        // There is no IPv6 on this link (not in the kernel, or the MTU is below that of IPv6), so
        // the kernel will not give it addresses either.
        Err(error) if change.no_ipv6 && error.errno() == Some(libc::EAFNOSUPPORT) => {
            send(socket, name, &LinkChange { no_ipv6: false, ..change }, &port)
        }
        result => result,
    }
}

fn send(
    socket: &mut Socket,
    name: &str,
    change: &LinkChange<'_>,
    port: &PortChange,
) -> Result<(), Error> {
    let (about_link, about_port) =
        (*change != LinkChange::default(), *port != PortChange::default());
    let acks = u32::from(about_link) + u32::from(about_port);
    if acks == 0 {
        return Ok(());
    }
    socket.request(acks, |writer, sequence| {
        if about_link {
            link::set(writer, sequence.take(), Target::Name(name), change);
        }
        if about_port {
            link::set_port(writer, sequence.take(), Target::Name(name), port);
        }
    })
}

/// Removes the link of that name. One that is gone is as good as removed. The kernel lets the caller
/// of this wait for 12 to 20 ms.
pub fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    remove(socket, Target::Name(name))
}

fn remove(socket: &mut Socket, target: Target<'_>) -> Result<(), Error> {
    match socket.request(1, |writer, sequence| link::delete(writer, sequence.take(), target)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// Reads all links.
///
/// Where others make and remove links without end, no dump comes to its end undisturbed. Then what
/// several dumps told counts together. One of them can lack a link that was there all the time: before
/// Linux 6.9 the kernel counts its way through the links of a hash bucket, and skips one if another of
/// that bucket goes between two datagrams (net/core/rtnetlink.c, `rtnl_dump_ifinfo`). That all of them
/// lack the same link is next to impossible. Links that the last dump does not tell are asked for one
/// by one.
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

/// The index of a link; ENODEV when there is none of that name.
pub fn index_of(socket: &Socket, name: &str) -> Result<u32, Error> {
    volnet_ffi::socket::link_index(socket.as_fd(), name).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENODEV) => Error::refused(libc::ENODEV, format!("there is no link {name}")),
            _ => error.into(),
        }
    })
}

/// Says what has taken a name, in place of the kernel's bare errno.
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
fn find<T>(
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

/// A link as a value of its own.
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
        _ => LinkKind::Other,
    };
    Link {
        index: link.index,
        name: text(link.name),
        alias: link.alias.map(text),
        kind,
        master: link.master,
        up: link.is_up(),
        carrier: link.flags & LOWER_UP != 0,
        mtu: link.mtu,
        mac: Mac(link.mac.unwrap_or([0; 6])),
        port: link.port.as_ref().map(port_settings).unwrap_or_default(),
        shaping: None,
        unfinished: is_unfinished(link),
    }
}

/// What we care about of a port.
pub(super) fn port_settings(port: &link::Port) -> PortSettings {
    PortSettings { isolated: port.isolated, group_forward: port.group_forward }
}
