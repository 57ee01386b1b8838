//! Parts of a command line that all drivers need.

use std::path::Path;

use super::{Launch, SOCKET_PATH_BYTES_MAX};
use crate::model::error::Refusal;
use crate::spec::CMDLINE_BYTES_MAX;

/// The longest name of a socket in the folder of a VM that has vsock: what a guest that connects to
/// the last port reaches.
pub(super) const LONGEST_OF_VSOCK: &str = "vsock.sock_4294967295";
/// The longest name of a socket in the folder of another VM.
const LONGEST: &str = "events.sock";

/// A refusal of a field of the configuration.
pub(super) fn refuse(field: &str, reason: impl Into<String>) -> Refusal {
    Refusal::InvalidConfig { field: field.into(), reason: reason.into() }
}

/// Whether the paths of all sockets in a VM's folder fit.
pub(super) fn check_folder(folder: &Path, has_vsock: bool) -> Result<(), Refusal> {
    let socket = folder.join(if has_vsock { LONGEST_OF_VSOCK } else { LONGEST });
    let surplus = socket.as_os_str().len().saturating_sub(SOCKET_PATH_BYTES_MAX);
    if surplus == 0 {
        return Ok(());
    }
    let reason = format!(
        "the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes, so {} needs a runtime_dir \
         or a name that is {surplus} bytes shorter",
        socket.display()
    );
    Err(refuse("runtime_dir", reason))
}

/// A path as text. `field` is for the refusal.
pub(super) fn path<'a>(path: &'a Path, field: &str) -> Result<&'a str, Refusal> {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text),
        Some(text) => Err(refuse(field, format!("{text:?} holds a control character"))),
        None => Err(refuse(field, format!("{} is not UTF-8", path.display()))),
    }
}

/// A file in the VM's folder, as text.
pub(super) fn in_folder(folder: &Path, name: &str) -> Result<String, Refusal> {
    Ok(format!("{}/{name}", path(folder, "runtime_dir")?))
}

/// The whole kernel command line: the hypervisor's part, the network's part, the VM's own.
pub(super) fn cmdline(hypervisor: &str, launch: &Launch) -> Result<String, Refusal> {
    let mut line = String::from(hypervisor);
    for part in [launch.kernel_args, &launch.machine.cmdline] {
        if !line.is_empty() && !part.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    if line.len() > CMDLINE_BYTES_MAX {
        let reason = format!(
            "with volnet's part it has {} bytes, more than {CMDLINE_BYTES_MAX}",
            line.len()
        );
        return Err(refuse("kernel_cmdline", reason));
    }
    Ok(line)
}
