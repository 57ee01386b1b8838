//! The socket client: one call after the other.

use std::io::{self, Read, Write};
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::poll::{PollFlags, PollTimeout};
#[cfg(target_os = "linux")]
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde_json::Value;

use crate::protocol::client::{self, ReplyMessage};

use super::Trouble;
#[cfg(target_os = "linux")]
use super::terminal;

/// The longest reply in bytes: some 100000 VMs.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// The most bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// A connection to the daemon.
pub(super) struct Connection {
    stream: UnixStream,
    socket: PathBuf,
    /// Received bytes that were not returned yet.
    buffer: Vec<u8>,
    /// The number of these bytes that have no terminator.
    searched: usize,
}

impl Connection {
    /// Connects.
    pub(super) fn open(socket: &Path) -> Result<Connection, Trouble> {
        let unreachable = |error| Trouble::Unreachable { socket: socket.into(), error };
        let stream = UnixStream::connect(socket).map_err(unreachable)?;
        Ok(Connection { stream, socket: socket.into(), buffer: Vec::new(), searched: 0 })
    }

    /// Connects for a caller that cannot wait for ever.
    #[cfg(target_os = "linux")]
    pub(super) fn open_for(socket: &Path, patience: Duration) -> Result<Connection, Trouble> {
        let connection = Connection::open(socket)?;
        let stream = &connection.stream;
        let set = stream.set_read_timeout(Some(patience));
        set.and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(|error| connection.lost(error))?;
        Ok(connection)
    }

    /// Connects if a daemon runs.
    pub(super) fn open_if_served(socket: &Path) -> Result<Option<Connection>, Trouble> {
        match Connection::open(socket) {
            Ok(connection) => Ok(Some(connection)),
            Err(Trouble::Unreachable { error, .. })
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// What is to be waited for.
    #[cfg(target_os = "linux")]
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether a reply has come, or the beginning of one.
    #[cfg(target_os = "linux")]
    pub(super) fn has_more(&self) -> io::Result<bool> {
        let wanted = [(Some(self.descriptor()), PollFlags::POLLIN)];
        let [ready] = terminal::ready(wanted, PollTimeout::ZERO)?;
        Ok(!self.buffer.is_empty() || !ready.is_empty())
    }

    /// Calls a method and waits for its reply.
    pub(super) fn call(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<ReplyMessage, Trouble> {
        self.send(method, parameters, false)?;
        self.receive()
    }

    /// Calls a method that returns a descriptor. The descriptor stays open across execve(2).
    #[cfg(target_os = "linux")]
    pub(super) fn call_for_descriptor(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<RawFd, Trouble> {
        self.send(method, parameters, false)?;
        // The descriptor comes with the first byte of the reply, the first byte on this connection.
        let descriptor = self.read_with_descriptor().map_err(|error| self.lost(error))?;
        self.receive()?;
        descriptor.ok_or_else(|| {
            let reason = "it has no file descriptor".into();
            Trouble::NoReply(client::NoReply::Garbled(reason))
        })
    }

    /// Calls a method with descriptors. From Linux 6.16 on, the daemon is sent none before it has
    /// accepted the connection, so another call comes first.
    #[cfg(target_os = "linux")]
    pub(super) fn call_with_descriptors(
        &mut self,
        method: &str,
        parameters: Value,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<ReplyMessage, Trouble> {
        self.call("org.varlink.service.GetInfo", serde_json::json!({}))?;
        let mut message = client::call(method, parameters, false);
        message.push(0);
        let rights: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let (socket, bytes) = (self.stream.as_raw_fd(), [io::IoSlice::new(&message)]);
        let sent = sendmsg::<()>(
            socket,
            &bytes,
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        let sent = sent.map_err(|errno| self.lost(errno.into()))?;
        self.stream.write_all(&message[sent..]).map_err(|error| self.lost(error))?;
        self.receive()
    }

    #[cfg(target_os = "linux")]
    fn read_with_descriptor(&mut self) -> io::Result<Option<RawFd>> {
        let mut piece = [0; READ_BYTES];
        let mut room = nix::cmsg_space!([RawFd; 1]);
        let mut bytes = [io::IoSliceMut::new(&mut piece)];
        let (socket, flags) = (self.stream.as_raw_fd(), MsgFlags::empty());
        let message = recvmsg::<()>(socket, &mut bytes, Some(&mut room), flags)?;
        let descriptor = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        let length = message.bytes;
        self.buffer.extend_from_slice(&piece[..length]);
        Ok(descriptor)
    }

    /// Sends a call. With `more`, the caller accepts more than one reply.
    pub(super) fn send(
        &mut self,
        method: &str,
        parameters: Value,
        more: bool,
    ) -> Result<(), Trouble> {
        let mut message = client::call(method, parameters, more);
        message.push(0);
        match self.stream.write_all(&message) {
            // If the daemon has sent an error and hung up, receive reads it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome.map_err(|error| self.lost(error)),
        }
    }

    /// Waits for the next reply.
    pub(super) fn receive(&mut self) -> Result<ReplyMessage, Trouble> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == 0) {
                let end = self.searched + end;
                let reply = client::decode(&self.buffer[..end]);
                self.buffer.drain(..=end);
                self.searched = 0;
                return reply.map_err(Trouble::NoReply);
            }
            self.searched = self.buffer.len();
            if self.searched > REPLY_BYTES_MAX {
                let reason = format!("it is longer than {REPLY_BYTES_MAX} bytes");
                return Err(Trouble::NoReply(client::NoReply::Garbled(reason)));
            }
            let mut piece = [0; READ_BYTES];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.buffer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    fn lost(&self, error: io::Error) -> Trouble {
        let error = match error.kind() {
            // What the kernel says of a time that is over, socket(7).
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        };
        Trouble::Unreachable { socket: self.socket.clone(), error }
    }
}
