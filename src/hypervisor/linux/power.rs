//! Asks a guest to power off, by each hypervisor's own means.
//!
//! The request is written to the hypervisor's socket at once, and nobody waits for the answer. If
//! the guest powers off, the pidfd shows it. If it does not, the deadline of the stop passes.
//! Connecting and writing do not block; a full backlog is an error. The connection is kept until
//! the process is reaped, because QEMU drops commands that it has not executed when its client
//! disconnects. The hypervisor's answer and later events stay unread in the socket's buffer.

use std::io::{self, Write};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::pause;
use crate::hypervisor::Control;
use crate::model::record::Order;
use crate::rights;

/// docs/interop/qmp-spec.rst of QEMU: capabilities first, then commands; all may be sent ahead.
pub(super) const QMP_HELLO: &str = "{\"execute\":\"qmp_capabilities\"}\n";
const QMP: &str = "{\"execute\":\"system_powerdown\"}\n";
/// docs/api.md of Cloud Hypervisor: an ACPI power button. It takes HTTP/1.1 without a `Host`.
const CLOUD_HYPERVISOR: &str = "PUT /api/v1/vm.power-button HTTP/1.1\r\nHost: localhost\r\n\
    Accept: */*\r\n\r\n";
/// docs/api_requests/actions.md of Firecracker: the keys by which an x86 guest shuts down. On arm64
/// it is a power button; versions without that refuse it, and the deadline of the stop passes.
const FIRECRACKER: &str = "PUT /actions HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
    Content-Type: application/json\r\nContent-Length: 32\r\n\r\n\
    {\"action_type\":\"SendCtrlAltDel\"}";

/// Asks for the power-off, and before it to go on if the guest is paused. Keep the socket as long
/// as the process lives. `None` if this hypervisor has no way to ask the guest.
pub(super) fn ask(control: &Control, order: Order) -> io::Result<Option<Socket>> {
    let (path, hello, words) = match control {
        Control::Qmp(path) => (path, QMP_HELLO, QMP),
        Control::CloudHypervisor(path) => (path, "", CLOUD_HYPERVISOR),
        Control::Firecracker(path) => (path, "", FIRECRACKER),
        Control::Terminate => return Ok(None),
    };
    let wake = pause::words(control, order).unwrap_or_default();
    send(path, &[hello, wake, words].concat()).map(Some)
}

/// Connects with the rights of the hypervisor's user, who may have put any file there.
fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(path)?;
    rights::act_as_owner(path.parent().unwrap_or(path), || socket.connect(&address))?;
    Ok(socket)
}

/// Sends a request on a connection of its own.
pub(super) fn send(path: &Path, request: &str) -> io::Result<Socket> {
    let mut socket = connect(path)?;
    socket.write_all(request.as_bytes())?;
    Ok(socket)
}
