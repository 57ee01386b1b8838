//! `attach` and `detach`: a network namespace of the caller gets a place on a network, and loses
//! it.
//!
//! The daemon has no way into a namespace. So the door is opened here, by root, and passed on: see
//! [`crate::network::linux::veth`].

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::command::{Attach, Detach};
use super::session::{Session, file};
use super::{DONE, Trouble, document, show};
use crate::network::linux::socket::{NetlinkFamily, Socket};
use crate::network::linux::veth;

/// What these verbs have as the name of a configuration.
const BY_HAND: &str = "volnet";

/// `attach`.
pub(super) fn attach(session: &mut Session, attach: &Attach) -> Result<u8, Trouble> {
    let base = std::env::current_dir()
        .map_err(|e| file("cannot find the current directory", Path::new("."), e))?;
    let mut given =
        document::parameters(&attach.create, None, None, &base).map_err(Trouble::Input)?;
    let parameters = json!({
        "attachment": {
            "cni": BY_HAND, "container": attach.create.name, "ifname": attach.ifname,
            "netns": attach.netns
        },
        "config": given["config"].take(),
        "door": 0,
        "force": attach.force
    });
    let mut connection = session.connect()?;
    let door = open_door(&attach.netns)?;
    let reply = connection.call_with_descriptor("io.volnet.Attach", parameters, door.as_fd())?;
    session.show(&reply.parameters, |reply| show::vm(reply.get("vm").unwrap_or(&Value::Null)))?;
    Ok(DONE)
}

/// `detach`. If the namespace is named, its link has another name at once, and so the name is free.
pub(super) fn detach(session: &mut Session, detach: &Detach) -> Result<u8, Trouble> {
    let id = json!({ "cni": BY_HAND, "container": detach.name, "ifname": detach.ifname });
    let reply = session.call("io.volnet.Detach", id)?;
    session.show(&reply, |_| format!("{}: detached\n", detach.name))?;
    if let Some(netns) = &detach.netns {
        let mut door = open_door(netns)?;
        veth::put_aside(&mut door, &detach.ifname)
            .map_err(|error| Trouble::Here(error.failure("rename", &*detach.ifname).into()))?;
    }
    Ok(DONE)
}

/// Enters a namespace and opens a socket of rtnetlink there.
pub(super) fn open_door(netns: &str) -> Result<Socket, Trouble> {
    let failed = |error| Trouble::File { what: format!("cannot enter {netns}"), error };
    let namespace = File::open(netns).map_err(failed)?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    Socket::open(NetlinkFamily::Route).map_err(failed)
}
