//! `attach` and `detach`: a network namespace of the caller gets a place on a network, and loses
//! it.
//!
//! The daemon has no way into a namespace. So the door is opened here, by root, and passed on: see
//! [`crate::network::linux::veth`].

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use serde_json::{Map, Value, json};

use volnet_ffi::tun;

use super::command::{Attach, Detach};
use super::connection::Connection;
use super::session::{Session, file};
use super::{DONE, Trouble, document, show};
use crate::model::attachment::AttachmentId;
use crate::network::linux::socket::{Error, NetlinkFamily, Socket};
use crate::network::linux::{redirect, veth};
use crate::protocol::client::ReplyMessage;

/// What these verbs have as the name of a configuration.
const BY_HAND: &str = "volnet";
/// The namespace of this process (namespaces(7)).
const OWN: &str = "/proc/thread-self/ns/net";

/// `attach`.
pub(super) fn attach(session: &mut Session, attach: &Attach) -> Result<u8, Trouble> {
    let base = std::env::current_dir()
        .map_err(|e| file("cannot find the current directory", Path::new("."), e))?;
    let mut given =
        document::parameters(&attach.create, None, None, &base).map_err(Trouble::Input)?;
    let parameters = json!({
        "attachment": {
            "cni": BY_HAND, "container": attach.create.name, "ifname": attach.ifname,
            "netns": attach.netns, "tap": attach.tap
        },
        "config": given["config"].take(),
        "force": attach.force
    });
    let mut connection = session.connect()?;
    let door = open_door(&attach.netns)?;
    let reply = call(&mut connection, parameters, &door)?;
    session.show(&reply.parameters, |reply| show::vm(reply.get("vm").unwrap_or(&Value::Null)))?;
    Ok(DONE)
}

/// Calls Attach with a door. This process is in its namespace since the door was opened, and so is
/// what it opens for a tap.
pub(super) fn call(
    connection: &mut Connection,
    mut parameters: Value,
    door: &Socket,
) -> Result<ReplyMessage, Trouble> {
    parameters["door"] = 0.into();
    let mut doors = vec![door.as_fd()];
    let device = match parameters["attachment"]["tap"].is_string() {
        true => {
            Some(tun::open().map_err(|error| file("cannot open", Path::new(tun::PATH), error))?)
        }
        false => None,
    };
    if let Some(device) = &device {
        parameters["tun"] = doors.len().into();
        doors.push(device.as_fd());
    }
    connection.call_with_descriptors("io.volnet.Attach", parameters, &doors)
}

/// `detach`. If the namespace is named, its link has another name at once, and so the name is free.
pub(super) fn detach(session: &mut Session, detach: &Detach) -> Result<u8, Trouble> {
    let id = AttachmentId {
        cni: BY_HAND.into(),
        container: detach.name.clone(),
        ifname: detach.ifname.clone(),
    };
    let reply = session.call("io.volnet.Detach", json!(id))?;
    session.show(&reply, |_| format!("{}: detached\n", detach.name))?;
    if let Some(netns) = detach.netns.as_ref().filter(|_| has_released(&reply)) {
        let mut door = open_door(netns)?;
        put_aside(&mut door, &id)
            .map_err(|error| Trouble::Here(error.failure("rename", &*detach.ifname).into()))?;
    }
    Ok(DONE)
}

/// Whether Detach has released something. If not, a link of that name is not for us to touch.
pub(super) fn has_released(reply: &Map<String, Value>) -> bool {
    reply.get("released") == Some(&json!(true))
}

/// Frees the names that an attachment has in its namespace, once it is released.
pub(super) fn put_aside(door: &mut Socket, id: &AttachmentId) -> Result<(), Error> {
    veth::put_aside(door, id)?;
    redirect::remove_left_over(door, &veth::alias(id))
}

/// Whether a path is that of the namespace in which this process is.
pub(super) fn is_own(netns: &str) -> bool {
    let file = |path: &str| fs::metadata(path).map(|it| (it.dev(), it.ino()));
    file(netns).is_ok_and(|theirs| file(OWN).is_ok_and(|own| own == theirs))
}

/// Enters a namespace and opens a socket of rtnetlink there.
pub(super) fn open_door(netns: &str) -> Result<Socket, Trouble> {
    let failed = |error| Trouble::File { what: format!("cannot enter {netns}"), error };
    let namespace = File::open(netns).map_err(failed)?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    Socket::open(NetlinkFamily::Route).map_err(failed)
}
