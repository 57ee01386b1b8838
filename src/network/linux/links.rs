//! Links: made, changed, removed and read over rtnetlink.
//!
//! A link is named by its name where volnet has just made it or is about to, and by its index where
//! it could have been replaced by another of the same name meanwhile. A message that fails does not
//! stop those after it in the same send: nothing that could hit a foreign link stands behind a
//! message that makes the name ours.

use std::io;

use crate::engine::mac::Mac;
use crate::engine::plan::LinkSettings;
use crate::engine::reconcile::{Link, LinkKind};
use crate::error::Failure;
use crate::netlink::rtnl::link::{
    self, LOWER_UP, LinkChange, LinkMessage, PortChange, Target, TunKind,
};

use super::socket::{Error, Socket};

/// Makes a bridge and returns its index. Down, as the kernel makes it.
pub fn create_bridge(
    socket: &mut Socket,
    name: &str,
    mac: Mac,
    mtu: u16,
    alias: &str,
) -> Result<u32, Failure> {
    const CREATE: &str = "create bridge";
    let mut index = None;
    let made = socket.request_and(
        1,
        |writer, sequence| link::new_bridge(writer, sequence.take(), name, mac.0),
        |message| {
            index = Some(LinkMessage::read(message.payload)?.index);
            Ok(())
        },
    );
    made.map_err(|error| taken(socket, error, name).failure(CREATE, name))?;
    let index = index.ok_or(Error::Silent).map_err(|error| error.failure(CREATE, name))?;
    let change = LinkChange { mtu: Some(mtu.into()), alias: Some(alias), ..LinkChange::default() };
    let set = socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Index(index), &change);
    });
    if let Err(error) = set {
        // It is ours by its index; if even this fails, the first error says more than the second.
        let _ = remove(socket, Target::Index(index));
        return Err(error.failure(CREATE, name));
    }
    Ok(index)
}

/// Changes a link: what is about the link in one message, what is about its place on the bridge in
/// a second one of the same send.
pub fn set(socket: &mut Socket, name: &str, settings: &LinkSettings) -> Result<(), Failure> {
    let operation = match &settings.master {
        Some(Some(_)) => "attach",
        Some(None) => "detach",
        None => "change",
    };
    let master = match &settings.master {
        None => None,
        Some(None) => Some(0),
        Some(Some(bridge)) => Some(index_of_bridge(socket, bridge, operation, name)?),
    };
    let change = LinkChange {
        master,
        up: settings.up,
        mtu: settings.mtu.map(u32::from),
        mac: settings.mac.map(|mac| mac.0),
        alias: settings.alias.as_deref(),
        no_ipv6: settings.no_ipv6,
        group: None,
    };
    let port = PortChange { isolated: settings.isolated, ..PortChange::default() };
    let result = match send(socket, name, &change, &port) {
        // There is no IPv6 on this link (not in the kernel, or the MTU is below that of IPv6), so
        // the kernel will not give it addresses either.
        Err(error) if change.no_ipv6 && error.errno() == Some(libc::EAFNOSUPPORT) => {
            send(socket, name, &LinkChange { no_ipv6: false, ..change }, &port)
        }
        result => result,
    };
    result.map_err(|error| error.failure(operation, name))
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

/// Removes a link: the one of that name, or with an index the one that has both. One that is gone
/// is as good as removed. The kernel lets the caller of this wait for 12 to 20 ms.
pub fn delete(socket: &mut Socket, name: &str, index: Option<u32>) -> Result<(), Failure> {
    let target = match index {
        None => Target::Name(name),
        Some(index) => {
            match find(socket, Target::Index(index), |link| link.name == name.as_bytes()) {
                Ok(Some(true)) => Target::Index(index),
                Ok(Some(false) | None) => return Ok(()),
                Err(error) => return Err(error.failure("delete", name)),
            }
        }
    };
    remove(socket, target).map_err(|error| error.failure("delete", name))
}

fn remove(socket: &mut Socket, target: Target<'_>) -> Result<(), Error> {
    match socket.request(1, |writer, sequence| link::delete(writer, sequence.take(), target)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// Reads all links.
pub fn observe(socket: &mut Socket) -> Result<Vec<Link>, Failure> {
    socket
        .dump(link::dump, |message| {
            LinkMessage::read(message.payload).map(|link| Some(owned(&link)))
        })
        .map_err(|error| error.failure("read", "links"))
}

/// The index of a link; `None` when there is none of that name.
pub fn index_of(socket: &mut Socket, name: &str) -> Result<Option<u32>, Error> {
    find(socket, Target::Name(name), |link| link.index)
}

/// Describes the link that has taken a name, for people.
pub fn describe(socket: &mut Socket, name: &str) -> Option<String> {
    let describe = |link: &LinkMessage<'_>| {
        let kind = link.kind.map_or("hardware".into(), String::from_utf8_lossy);
        let mut text = format!("a link of this name exists: index {}, kind {kind}", link.index);
        if let Some(alias) = link.alias {
            text.push_str(&format!(", alias {:?}", String::from_utf8_lossy(alias)));
        }
        text
    };
    find(socket, Target::Name(name), describe).ok().flatten()
}

/// Asks for one link and returns what `read` makes of it; `None` when it is not there.
fn find<T>(
    socket: &mut Socket,
    target: Target<'_>,
    read: impl Fn(&LinkMessage<'_>) -> T,
) -> Result<Option<T>, Error> {
    let mut found = None;
    let asked = socket.request_and(
        1,
        |writer, sequence| link::get(writer, sequence.take(), target),
        |message| {
            found = Some(read(&LinkMessage::read(message.payload)?));
            Ok(())
        },
    );
    match asked {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        asked => asked.map(|()| found),
    }
}

fn index_of_bridge(
    socket: &mut Socket,
    bridge: &str,
    operation: &'static str,
    object: &str,
) -> Result<u32, Failure> {
    match index_of(socket, bridge) {
        Ok(Some(index)) => Ok(index),
        Ok(None) => {
            let error = io::Error::from_raw_os_error(libc::ENODEV);
            Err(Failure::kernel(operation, format!("{object} to {bridge}"), &error))
        }
        Err(error) => Err(error.failure(operation, object)),
    }
}

/// Puts who it is into the kernel's bare "File exists".
fn taken(socket: &mut Socket, error: Error, name: &str) -> Error {
    match error {
        Error::Refused { index, errno: libc::EEXIST, words: None } => {
            Error::Refused { index, errno: libc::EEXIST, words: describe(socket, name) }
        }
        error => error,
    }
}

fn owned(link: &LinkMessage<'_>) -> Link {
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
        isolated: link.port.is_some_and(|port| port.isolated),
    }
}
