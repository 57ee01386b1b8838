//! Persistent taps.
//!
//! At first a tap lives only as long as its descriptor. It becomes persistent last, after it has
//! its owner and alias. So a failure or a crash before that leaves no tap behind, and a tap that
//! stays has a mark.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::unistd::geteuid;
use volnet_ffi::tun::{self, EXCLUSIVE, MULTI_QUEUE, NO_PI, TAP, Tun, VNET_HDR};

use crate::netlink::rtnl::link::{self, LinkChange, Target};

use super::holder::{self, Holder};
use super::links::{index_of, who};
use super::socket::{Error, Socket};

/// The properties of a new tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name, checked.
    pub name: &'a str,
    /// The user who may open it. The default is our own user, because anyone can open a tap without
    /// an owner.
    pub owner: Option<u32>,
    /// Whether it has more than one queue.
    pub multi_queue: bool,
    /// Its `ifalias`.
    pub alias: &'a str,
}

/// Makes a tap and returns its index. It has vnet_hdr, is down and on no bridge. EBUSY when the
/// name is taken: the existing link is not changed.
pub fn create(socket: &mut Socket, spec: &Spec<'_>) -> Result<u32, Error> {
    let tap = make(socket, spec)?;
    if tap.name() != spec.name {
        // The error of rtnetlink for a name that is too long.
        let words = format!("the kernel named it {:?}", tap.name());
        return Err(Error::refused(libc::ERANGE, words));
    }
    keep(socket, &tap, spec)
}

/// As [`create`], but the kernel makes the name from the pattern in `spec`, which has a `%d`.
/// Returns the name, too.
pub fn create_any(socket: &mut Socket, spec: &Spec<'_>) -> Result<(u32, String), Error> {
    let tap = make(socket, spec)?;
    Ok((keep(socket, &tap, spec)?, tap.name().to_owned()))
}

fn make(socket: &mut Socket, spec: &Spec<'_>) -> Result<Tun, Error> {
    let name = spec.name;
    Tun::attach(device()?, name, flags(spec.multi_queue) | EXCLUSIVE)
        .map_err(|error| held(who(socket, error.into(), name), name))
}

/// Gives a tap its owner and alias, and then makes it persistent.
fn keep(socket: &mut Socket, tap: &Tun, spec: &Spec<'_>) -> Result<u32, Error> {
    tap.set_owner(spec.owner.unwrap_or_else(|| geteuid().as_raw()))?;
    let index = index_of(socket, tap.name())?;
    let change = LinkChange { alias: Some(spec.alias), ..LinkChange::default() };
    socket.request(1, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Index(index), &change);
    })?;
    tap.set_persistent(true)?;
    Ok(index)
}

/// Opens one queue of a persistent tap with this name and index. The kernel opens only by name, and
/// makes a missing tap. So the index is compared before, to leave other links alone, and after,
/// when the tap can no longer be replaced.
pub fn open(
    socket: &Socket,
    name: &str,
    index: Option<u32>,
    multi_queue: bool,
) -> Result<OwnedFd, Error> {
    let is_there = || match index_of(socket, name)? {
        found if Some(found) == index => Ok(()),
        _ => Err(Error::refused(libc::ENODEV, "another link took its name".into())),
    };
    is_there()?;
    let tap = Tun::attach(device()?, name, flags(multi_queue)).map_err(|error| {
        let words = error.to_string();
        held(Error::refused(error.raw_os_error().unwrap_or(0), words), name)
    })?;
    is_there()?;
    Ok(tap.into())
}

fn device() -> Result<File, Error> {
    tun::open().map_err(|error| {
        Error::refused(error.raw_os_error().unwrap_or(0), format!("{}: {error}", tun::PATH))
    })
}

fn flags(multi_queue: bool) -> i32 {
    TAP | NO_PI | VNET_HDR | if multi_queue { MULTI_QUEUE } else { 0 }
}

/// Adds the process that holds the link with this name, if there is one.
fn held(error: Error, name: &str) -> Error {
    match error {
        Error::Refused { errno: libc::EBUSY, words: Some(words), .. } => match holder::of(name) {
            Some(Holder { pid, name }) => {
                Error::refused(libc::EBUSY, format!("{words}, held by process {pid} ({name})"))
            }
            None => Error::refused(libc::EBUSY, words),
        },
        error => error,
    }
}
