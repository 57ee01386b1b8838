//! Directories of the host that a guest sees (virtio-fs): virtiofsd serves each by vhost-user, as a
//! helper of the hypervisor (gitlab.com/virtio-fs/virtiofsd, version 1.11 or later).
//!
//! It runs as the VM's user, so a guest can do with the files what this user can. It is to make no
//! namespaces (`--sandbox none`), which needs rights that this user does not have. It has a filter
//! of system calls.

use std::path::Path;

use super::{HypervisorCommand, text};
use crate::model::error::Refusal;
use crate::model::spec::Share;

/// The field of a configuration.
pub const FIELD: &str = "shares";

/// The socket between the hypervisor and the helper of a share.
pub(super) fn socket(folder: &Path, index: usize) -> Result<String, Refusal> {
    text::in_folder(folder, &format!("share{index}.sock"))
}

/// The helpers for these shares.
pub(super) fn helpers(
    shares: &[Share],
    folder: &Path,
    program: &str,
) -> Result<Vec<HypervisorCommand>, Refusal> {
    let helper = |(index, share): (usize, &Share)| {
        let socket = socket(folder, index)?;
        let path = text::path(&share.path, FIELD)?;
        let mut args = vec!["--socket-path", &socket, "--shared-dir", path, "--sandbox", "none"];
        // It needs a right for these, and says at each start that it lacks it.
        args.push("--inode-file-handles=never");
        if share.readonly {
            args.push("--readonly");
        }
        let args = args.into_iter().map(String::from).collect();
        Ok(HypervisorCommand::helper(program, args, socket.into()))
    };
    shares.iter().enumerate().map(helper).collect()
}

/// Refuses the shares of a VM whose hypervisor has none.
pub(super) fn refuse(shares: &[Share], hypervisor: &str) -> Result<(), Refusal> {
    match shares {
        [] => Ok(()),
        _ => Err(text::refuse(FIELD, format!("{hypervisor} has no virtio-fs"))),
    }
}
