//! A tap in a namespace of others that stands for a link there: what one receives, the other sends.
//!
//! So the hypervisor in the namespace opens a tap by its name, as it would without a namespace, and
//! the guest behind it is at the other end of the link, with its own Ethernet address. The link in
//! the namespace has no address. Redirects take frames before the IP stack of the namespace sees
//! them.
//!
//! The kernel makes a tap in the namespace in which `/dev/net/tun` was opened. So whoever asks for
//! it opens that, too, and passes it on.

use std::fs::File;

use volnet_ffi::tun::{EXCLUSIVE, NO_PI, TAP, Tun, VNET_HDR};

use crate::netlink::rtnl::link::{self, LinkChange, Target};
use crate::netlink::rtnl::{filter, qdisc};
use crate::plan::op::InnerTap;
use crate::plan::reconcile::{Link, LinkKind};

use super::links::{self, index_of, who};
use super::socket::{Error, Socket};
use super::veth::quieten;

/// Makes the tap, and joins it to the link with this index. It lives as long as its descriptor,
/// which [`keep`] changes. Returns it with its index.
pub(super) fn create(
    door: &mut Socket,
    device: &File,
    (tap, alias): (&InnerTap, &str),
    (link, mtu): (u32, u16),
) -> Result<(Tun, u32), Error> {
    remove_left_over(door, alias)?;
    let device = device.try_clone()?;
    let made = Tun::attach(device, &tap.name, TAP | NO_PI | VNET_HDR | EXCLUSIVE)
        .map_err(|error| who(door, error.into(), &tap.name))?;
    let index = index_of(door, &tap.name)?;
    let joined = join(door, &made, tap.owner, (index, alias), (link, mtu));
    joined.inspect_err(|_| {
        // Its caller may have it open still. The first error is more useful.
        let _ = links::remove(door, Target::Index(index));
    })?;
    Ok((made, index))
}

/// Lets a tap outlive its descriptor.
pub(super) fn keep(tap: &Tun) -> Result<(), Error> {
    Ok(tap.set_persistent(true)?)
}

fn join(
    door: &mut Socket,
    tap: &Tun,
    owner: u32,
    (index, alias): (u32, &str),
    (link, mtu): (u32, u16),
) -> Result<(), Error> {
    tap.set_owner(owner)?;
    quieten(door, index)?;
    let (mtu, alias) = (Some(mtu.into()), Some(alias));
    let whole = LinkChange { mtu, alias, up: Some(true), ..LinkChange::default() };
    door.request(5, |writer, sequence| {
        link::set(writer, sequence.take(), Target::Index(index), &whole);
        for (from, to) in [(index, link), (link, index)] {
            qdisc::ingress(writer, sequence.take(), from);
            filter::redirect(writer, sequence.take(), from, to);
        }
    })
}

/// Removes the taps with this alias: their link was deleted, and they lead nowhere.
pub fn remove_left_over(door: &mut Socket, alias: &str) -> Result<(), Error> {
    for link in links::observe(door)? {
        if matches!(link.kind, LinkKind::Tap { .. }) && link.alias.as_deref() == Some(alias) {
            links::remove(door, Target::Index(link.index))?;
        }
    }
    Ok(())
}

/// What differs from a tap of this name and alias that stands for the link with this index.
pub fn differences(
    door: &mut Socket,
    (name, alias): (&str, &str),
    link: u32,
) -> Result<Vec<String>, Error> {
    let found = links::observe(door)?.into_iter().find(|link| link.name == name);
    let is_ours = |link: &Link| {
        matches!(link.kind, LinkKind::Tap { .. }) && link.alias.as_deref() == Some(alias)
    };
    let Some(tap) = found.filter(is_ours) else {
        return Ok(vec![format!("there is no tap {name} of volnet")]);
    };
    let mut differences = Vec::new();
    if !tap.up {
        differences.push(format!("{name} is down"));
    }
    for (from, to, words) in [
        (tap.index, link, format!("what {name} receives is not sent by its link")),
        (link, tap.index, format!("what its link receives is not sent by {name}")),
    ] {
        let redirects = door.dump(
            |writer, sequence| filter::dump(writer, sequence, from),
            |message| filter::redirected(message.payload),
        )?;
        if !redirects.contains(&to) {
            differences.push(words);
        }
    }
    Ok(differences)
}
