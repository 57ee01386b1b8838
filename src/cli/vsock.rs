//! `vsock`: connects standard input and output to a port of a guest.
//!
//! Cloud Hypervisor, Firecracker and the helper of QEMU have a Unix socket for the ports of a
//! guest: `CONNECT PORT\n` is answered by `OK ...\n`, or the connection ends if nobody listens
//! (docs/vsock.md of Firecracker). With vhost-vsock the host's kernel connects (vsock(7)).
//!
//! The kernel ends one direction alone. The others do not: when they read the end of what somebody
//! sends, they end the connection in both (`recv_pkt` in src/vmm/src/devices/virtio/vsock/csm of
//! Firecracker, and what Cloud Hypervisor and vhost-device-vsock have of it), and an answer that
//! is on its way is lost. So there the end of the input is held back until the guest has had time
//! to answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use serde_json::{Value, json};
use socket2::Socket;

use crate::hypervisor::VSOCK_SOCKET;
use crate::model::name::VmName;
use crate::store::Paths;

use super::session::{Session, file};
use super::{DONE, Trouble};

/// The most bytes of the answer to `CONNECT`: `OK`, a number and a newline.
const ANSWER_BYTES_MAX: usize = 32;

/// How long the guest may be silent after the end of the input, in seconds.
const WAIT_S: u32 = 5;

/// Connects to a port of a VM's guest until the guest ends the connection. The end of standard
/// input is passed on: at once if that ends one direction alone, else when the guest has been
/// silent for so long.
pub(super) fn vsock(
    session: &Session,
    name: &str,
    port: u32,
    wait: Option<u32>,
) -> Result<u8, Trouble> {
    let wait = Duration::from_secs(wait.unwrap_or(WAIT_S).into());
    let name = VmName::new(name)?;
    let settings = &session.settings;
    let folder = Paths::new(&settings.state_dir, &settings.runtime_dir).folder(&name);
    let path = folder.join(VSOCK_SOCKET);
    let (guest, wait) = match UnixStream::connect(&path) {
        Ok(stream) => {
            let guest = ask(Socket::from(std::os::fd::OwnedFd::from(stream)), port)
                .map_err(|error| trouble(&name, port, &path, error))?;
            (guest, wait)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            (by_kernel(session, &name, port)?, Duration::ZERO)
        }
        Err(error) => return Err(file("cannot connect to", &path, error)),
    };
    carry(guest, wait).map_err(|error| file("lost", &path, error))?;
    Ok(DONE)
}

/// Asks for a port.
fn ask(mut socket: Socket, port: u32) -> io::Result<Socket> {
    socket.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut answer = Vec::new();
    // What follows the line is the guest's.
    while answer.last() != Some(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        let mut byte = [0];
        if socket.read(&mut byte)? == 0 {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        answer.extend(byte);
    }
    match answer.starts_with(b"OK ") {
        true => Ok(socket),
        false => Err(ErrorKind::ConnectionRefused.into()),
    }
}

/// Connects by the host's kernel, which knows the guest by its context id.
fn by_kernel(session: &Session, name: &VmName, port: u32) -> Result<Socket, Trouble> {
    let reply = session.call("io.volnet.Get", json!({ "name": name.as_str() }))?;
    let vm = reply.get("vm").unwrap_or(&Value::Null);
    if vm["vsock"] != true || vm["pid"].is_null() {
        let words = "it is not running, or it was created without vsock";
        return Err(Trouble::Input(format!("VM {name} has no vsock: {words}")));
    }
    let cid = vm["cid"].as_u64().and_then(|cid| cid.try_into().ok()).unwrap_or_default();
    let connected = || -> io::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &VsockAddr::new(cid, port))?;
        Ok(socket.into())
    };
    connected().map_err(|error| trouble(name, port, Path::new("vsock"), error))
}

fn trouble(name: &VmName, port: u32, path: &Path, error: io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
            Trouble::Input(format!("nobody listens on port {port} in the guest of VM {name}"))
        }
        _ => file("cannot connect by", path, error),
    }
}

/// Copies both ways until the guest ends the connection.
fn carry(guest: Socket, wait: Duration) -> io::Result<()> {
    let mut to_guest = guest.try_clone()?;
    let heard = Heard::new();
    let last = heard.clone();
    // It may wait for input for ever, and ends with the program.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut to_guest);
        last.await_silence(wait);
        let _ = to_guest.shutdown(Shutdown::Write);
    });
    let (mut guest, mut out) = (guest, io::stdout().lock());
    let mut chunk = [0; 4096];
    loop {
        match guest.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                heard.now();
                out.write_all(&chunk[..length])?;
                out.flush()?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// When the guest was last heard.
#[derive(Clone)]
struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    fn new() -> Heard {
        Heard(Arc::new(Mutex::new(Instant::now())))
    }

    fn now(&self) {
        *self.last() = Instant::now();
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the guest has been silent for so long from now on.
    fn await_silence(&self, wait: Duration) {
        let from = Instant::now();
        loop {
            let since = from.max(*self.last());
            match wait.saturating_sub(since.elapsed()) {
                Duration::ZERO => return,
                left => thread::sleep(left),
            }
        }
    }
}
