//! Persistent taps.
//!
//! A tap begins as one that goes with its descriptor. It becomes persistent last, when it has its
//! owner and its alias: whatever fails or dies before leaves nothing behind, and whatever stays
//! says whose it is.

use nix::unistd::geteuid;
use volnet_ffi::tun::{self, EXCLUSIVE, MULTI_QUEUE, NO_PI, TAP, Tun, VNET_HDR};

use crate::error::Failure;
use crate::netlink::rtnl::link::{self, LinkChange, LinkMessage, Target};

use super::holder;
use super::links;
use super::socket::{Error, Socket};

/// What a tap is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// Its name, checked.
    pub name: &'a str,
    /// The user who may open it; our own where none is named, because a tap without an owner can
    /// be opened by anyone.
    pub owner: Option<u32>,
    /// Whether it has more than one queue.
    pub multi_queue: bool,
    /// Its `ifalias`.
    pub alias: &'a str,
}

/// Makes a tap and returns its index. It has vnet_hdr, is down and on no bridge. EBUSY when the
/// name is taken: what there is, is left as it is.
pub fn create(socket: &mut Socket, spec: &Spec<'_>) -> Result<u32, Failure> {
    const CREATE: &str = "create tap";
    let name = spec.name;
    let failed = |error: &std::io::Error| Failure::kernel(CREATE, name, error);
    let file = tun::open().map_err(|error| Failure::kernel("open", tun::PATH, &error))?;
    let queues = if spec.multi_queue { MULTI_QUEUE } else { 0 };
    let tap = Tun::attach(file, name, TAP | NO_PI | VNET_HDR | EXCLUSIVE | queues)
        .map_err(|error| taken(socket, name, failed(&error)))?;
    if tap.name() != name {
        let message = format!("the kernel named it {:?}", tap.name());
        return Err(Failure::Kernel {
            operation: CREATE,
            object: name.into(),
            errno: libc::EINVAL,
            message,
        });
    }
    tap.set_owner(spec.owner.unwrap_or_else(|| geteuid().as_raw()))
        .map_err(|error| failed(&error))?;
    let index = mark(socket, name, spec.alias).map_err(|error| error.failure(CREATE, name))?;
    tap.set_persistent(true).map_err(|error| failed(&error))?;
    Ok(index)
}

/// Gives the tap its alias and asks for its index, in one send.
fn mark(socket: &mut Socket, name: &str, alias: &str) -> Result<u32, Error> {
    let mut index = None;
    let change = LinkChange { alias: Some(alias), ..LinkChange::default() };
    socket.request_and(
        2,
        |writer, sequence| {
            link::set(writer, sequence.take(), Target::Name(name), &change);
            link::get(writer, sequence.take(), Target::Name(name));
        },
        |message| {
            index = Some(LinkMessage::read(message.payload)?.index);
            Ok(())
        },
    )?;
    index.ok_or(Error::Silent)
}

/// Puts who it is into the kernel's bare "Device or resource busy".
fn taken(socket: &mut Socket, name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Kernel { operation, object, errno: libc::EBUSY, message } => {
            let mut message = links::describe(socket, name).unwrap_or(message);
            if let Some(holder) = holder::of(name) {
                message.push_str(&format!(", held by process {} ({})", holder.pid, holder.name));
            }
            Failure::Kernel { operation, object, errno: libc::EBUSY, message }
        }
        failure => failure,
    }
}
