//! Pairs of links whose inner end is in a network namespace of others.
//!
//! volnet never enters a namespace: that takes CAP_SYS_ADMIN. Whoever asks for a link there opens a
//! door and passes it on: a socket of rtnetlink that root opened inside. The kernel lets a process
//! with CAP_NET_ADMIN set links through it, and says which namespace it belongs to (SIOCGSKNS,
//! linux/sockios.h). An open door keeps the namespace alive, so it is closed before the caller has
//! its answer.
//!
//! The order of the steps matters. A link that is cut short before its alias is in the group of
//! unfinished links, and the next start removes it with its inner end. The inner end is complete
//! before the outer one gets its alias, and the outer one is attached after that. So nothing is on
//! a bridge that is not whole. A tap inside ([`redirect`]) is kept last: until then it ends with
//! its descriptor.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;
use volnet_ffi::socket::{is_rtnetlink, namespace_of};
use volnet_ffi::tun;

use crate::model::attachment::AttachmentId;
use crate::model::error::Refusal;
use crate::model::mac::Mac;
use crate::netlink::rtnl::address::{self, AddressMessage};
use crate::netlink::rtnl::link::{self, LinkChange, Target, Veth};
use crate::netlink::rtnl::route;
use crate::plan::op::InnerLink;
use crate::plan::reconcile::{ALIAS, Link};

use super::links::{self, UNFINISHED, index_of, who};
use super::redirect;
use super::socket::{Error, Socket};

/// The prefix of the names of inner ends that are about to be removed. The index follows.
const ASIDE: &str = "vtoff";

/// A namespace of others that was entered by its door.
#[derive(Debug)]
pub struct Inside {
    door: Socket,
    namespace: OwnedFd,
    /// Where a tap can be made inside, until one is.
    device: Option<File>,
    /// The pair that was made here, if one was.
    made: Option<Made>,
}

/// What was made, by index.
#[derive(Clone, Copy, Debug)]
struct Made {
    outer: u32,
    inner: u32,
    /// The tap that stands for the inner end.
    tap: Option<u32>,
}

/// The properties of a new pair.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The name of the outer end, checked.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: Mac,
    /// MTU of both ends in bytes.
    pub mtu: u16,
    /// The `ifalias` of both ends.
    pub alias: &'a str,
    /// The inner end.
    pub inner: &'a InnerLink,
}

impl Inside {
    /// Checks a door, and the device of a tap inside. `own` is a socket of our own namespace.
    pub fn new(
        door: BorrowedFd<'_>,
        device: Option<BorrowedFd<'_>>,
        own: &Socket,
    ) -> Result<Inside, Refusal> {
        let (namespace, is_ours) = behind(door, own)?;
        if is_ours {
            let reason =
                "the socket belongs to the network namespace of volnet, which needs no link";
            return Err(refuse(reason));
        }
        let device = device.map(|device| device_in(device, &namespace)).transpose()?;
        let door = door.try_clone_to_owned().and_then(Socket::taken_over);
        Ok(Inside { door: door.map_err(refuse)?, namespace, device, made: None })
    }

    /// Frees the names of what was made inside with a pair whose outer end is about to be removed,
    /// if that was made here: who tries again needs them at once. If that fails, the name of the
    /// inner end is free some milliseconds later, when the kernel has removed the pair, and the tap
    /// stays until its namespace ends, or the next one replaces it.
    pub fn undo(&mut self, outer: u32) {
        let Some(made) = self.made.take_if(|made| made.outer == outer) else { return };
        let freed = rename_away(&mut self.door, made.inner);
        let removed =
            made.tap.map_or(Ok(()), |tap| links::remove(&mut self.door, Target::Index(tap)));
        for (operation, index, done) in
            [("rename", made.inner, freed), ("delete", made.tap.unwrap_or_default(), removed)]
        {
            if let Err(error) = done {
                log::info!("{}", error.failure(operation, format!("index {index}")));
            }
        }
    }
}

/// Refuses a door that does not lead to our own namespace. `own` is a socket of that.
pub fn check_own(door: BorrowedFd<'_>, own: &Socket) -> Result<(), Refusal> {
    match behind(door, own)? {
        (_, true) => Ok(()),
        (_, false) => Err(refuse("the socket belongs to another network namespace than volnet's")),
    }
}

/// The namespace behind a door, and whether it is our own.
fn behind(door: BorrowedFd<'_>, own: &Socket) -> Result<(OwnedFd, bool), Refusal> {
    if !is_rtnetlink(door) {
        return Err(refuse("the descriptor is not a socket of rtnetlink"));
    }
    let namespace = namespace_of(door).map_err(refuse)?;
    let ours = namespace_of(own.as_fd()).map_err(refuse)?;
    let is_ours = is_same(&namespace, &ours).map_err(refuse)?;
    Ok((namespace, is_ours))
}

/// Refuses a door.
fn refuse(reason: impl ToString) -> Refusal {
    Refusal::InvalidConfig { field: "door".into(), reason: reason.to_string() }
}

/// Checks a device that no tap was made of, and which makes one in this namespace.
fn device_in(device: BorrowedFd<'_>, namespace: &OwnedFd) -> Result<File, Refusal> {
    let refuse = |reason: String| Refusal::InvalidConfig { field: "tun".into(), reason };
    let failed = |error: std::io::Error| refuse(error.to_string());
    if !tun::is_unused(device).map_err(failed)? {
        return Err(refuse(format!("the descriptor is not {}, just opened", tun::PATH)));
    }
    let theirs = namespace_of(device).map_err(failed)?;
    if !is_same(namespace, &theirs).map_err(failed)? {
        return Err(refuse("it was opened in another network namespace than the door".into()));
    }
    Ok(device.try_clone_to_owned().map_err(failed)?.into())
}

/// Whether two descriptors are of one namespace.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> std::io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Makes a pair and returns the index of its outer end, which is down and on no bridge. The inner
/// end is up and has its addresses. EEXIST when one of the names is taken: the existing link is not
/// changed. If a later step fails, the pair is removed, which makes the caller wait 20 ms. If that
/// fails as well, it stays unfinished, and the next reconciliation removes it.
pub fn create(
    socket: &mut Socket,
    inside: Option<&mut Inside>,
    spec: &Spec<'_>,
) -> Result<u32, Error> {
    let Some(Inside { door, namespace, device, made: whole }) = inside else {
        return Err(Error::refused(libc::ENOENT, "no network namespace was entered".into()));
    };
    let (name, inner) = (spec.name, spec.inner);
    let made = socket.request(1, |writer, sequence| {
        let veth = Veth {
            mtu: spec.mtu.into(),
            name,
            mac: spec.mac.0,
            group: UNFINISHED,
            peer: &inner.name,
            peer_mac: inner.mac.0,
            netns: namespace.as_fd(),
        };
        link::new_veth(writer, sequence.take(), &veth);
    });
    let index = match made {
        Ok(()) => links::unfinished(socket, name)?,
        // No answer came: the pair may exist.
        Err(error) if error.errno().is_none() => {
            links::unfinished(socket, name).map_err(|_| error)?
        }
        Err(error) => return Err(whose(socket, door, error, spec)),
    };
    let finished = finish(socket, door, device.take().as_ref(), (index, spec));
    *whole = Some(finished.inspect_err(|_| {
        // The index proves that it is ours. If even this fails, the first error is more useful.
        let _ = links::remove(socket, Target::Index(index));
    })?);
    Ok(index)
}

/// Describes the link that has taken one of the names.
fn whose(socket: &mut Socket, door: &mut Socket, error: Error, spec: &Spec<'_>) -> Error {
    let is_taken = error.errno() == Some(libc::EEXIST);
    if is_taken && index_of(socket, spec.name).is_err() && index_of(door, &spec.inner.name).is_ok()
    {
        let words = format!("the network namespace has a link {} already", spec.inner.name);
        return Error::refused(libc::EEXIST, words);
    }
    who(socket, error, spec.name)
}

/// Completes the inner end, with the tap that stands for it if there is one, and gives all their
/// alias.
fn finish(
    socket: &mut Socket,
    door: &mut Socket,
    device: Option<&File>,
    (outer, spec): (u32, &Spec<'_>),
) -> Result<Made, Error> {
    quieten(socket, outer)?;
    let inner = furnish(door, spec)?;
    let tap = match &spec.inner.tap {
        None => None,
        Some(tap) => {
            let device = device.ok_or_else(|| {
                Error::refused(libc::ENOENT, "no device for a tap is open".into())
            })?;
            Some(redirect::create(door, device, (tap, spec.alias), (inner, spec.mtu))?)
        }
    };
    let change = LinkChange { alias: Some(spec.alias), ..LinkChange::default() };
    let named = socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Index(outer), &change);
    });
    named.and_then(|()| links::leave_group(socket, outer))?;
    let Some((tap, index)) = tap else { return Ok(Made { outer, inner, tap: None }) };
    redirect::keep(&tap)?;
    Ok(Made { outer, inner, tap: Some(index) })
}

/// Keeps the kernel from giving an end IPv6 addresses of its own making. An end has a carrier, and
/// so such an address, as soon as both are up, so this comes before.
pub(super) fn quieten(socket: &mut Socket, index: u32) -> Result<(), Error> {
    let quiet = LinkChange { no_ipv6: true, ..LinkChange::default() };
    let quietened = socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Index(index), &quiet);
    });
    match quietened {
        // The namespace has no IPv6, or the MTU is too small for it.
        Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
        quietened => quietened,
    }
}

/// Gives the inner end its addresses, and the namespace its default routes. Returns its index.
fn furnish(door: &mut Socket, spec: &Spec<'_>) -> Result<u32, Error> {
    let InnerLink { name, addresses, gateways, .. } = spec.inner;
    let index = index_of(door, name)?;
    let target = Target::Index(index);
    let set = |door: &mut Socket, change: &LinkChange<'_>| {
        door.request(1, |writer, sequence| link::set(writer, sequence.take(), target, change))
    };
    quieten(door, index)?;
    for (address, length) in addresses {
        let (address, length) = (*address, *length);
        let message = AddressMessage { index, address, length };
        door.request(1, |writer, sequence| address::add(writer, sequence.take(), &message))
            .map_err(|error| named(error, address))?;
    }
    set(door, &LinkChange { up: Some(true), alias: Some(spec.alias), ..LinkChange::default() })?;
    for gateway in gateways {
        let added = door.request(1, |writer, sequence| {
            route::add_default(writer, sequence.take(), *gateway, index);
        });
        match added {
            // Another link of the namespace has it.
            Err(error) if error.errno() == Some(libc::EEXIST) => {}
            added => added.map_err(|error| named(error, *gateway))?,
        }
    }
    Ok(index)
}

/// Adds the address that a step was about.
fn named(error: Error, address: IpAddr) -> Error {
    match error {
        Error::Refused { index, errno, words } => {
            let words =
                words.unwrap_or_else(|| std::io::Error::from_raw_os_error(errno).to_string());
            Error::Refused { index, errno, words: Some(format!("{address}: {words}")) }
        }
        error => error,
    }
}

/// What the links of an attachment are marked with, on both sides.
pub fn alias(id: &AttachmentId) -> String {
    format!("{ALIAS}{}", id.vm_name())
}

/// Takes the inner end of an attachment down and away from its name, if there is one. It is for
/// whoever has released the link: the kernel takes some milliseconds more to remove it, and the
/// name may be needed again at once.
pub fn put_aside(door: &mut Socket, id: &AttachmentId) -> Result<(), Error> {
    match inner(door, id)? {
        Some(Link { index, .. }) => rename_away(door, index),
        None => Ok(()),
    }
}

/// Takes a link down and gives it another name.
fn rename_away(door: &mut Socket, index: u32) -> Result<(), Error> {
    let target = Target::Index(index);
    let aside = format!("{ASIDE}{index}");
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    let rename = LinkChange { name: Some(&aside), ..LinkChange::default() };
    let renamed = door.request(2, |writer, sequence| {
        link::set(writer, sequence.take(), target, &down);
        link::set(writer, sequence.take(), target, &rename);
    });
    match renamed {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        renamed => renamed,
    }
}

/// Removes the link of an attachment by its inner end, if there is one. The kernel removes the
/// other end with it, and makes the caller wait 20 ms.
pub fn remove_inner(door: &mut Socket, id: &AttachmentId) -> Result<(), Error> {
    match inner(door, id)? {
        Some(link) => links::remove(door, Target::Index(link.index)),
        None => Ok(()),
    }
}

/// Takes any link up.
pub fn bring_up(door: &mut Socket, name: &str) -> Result<(), Error> {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    door.request(1, |writer, sequence| link::set(writer, sequence.take(), Target::Name(name), &up))
}

/// The inner end of an attachment. A link of that name may be somebody else's, or another
/// attachment's: its alias tells.
pub fn inner(door: &mut Socket, id: &AttachmentId) -> Result<Option<Link>, Error> {
    let alias = alias(id);
    match links::find(door, Target::Name(&id.ifname), links::owned) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        found => Ok(Some(found?).filter(|link| link.alias.as_deref() == Some(&*alias))),
    }
}
