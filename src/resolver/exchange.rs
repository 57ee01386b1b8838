//! One question to one resolver of the host, on a socket of its own.
//!
//! The socket is connected: the kernel chooses its port at random, and passes on only what comes
//! from the resolver's address and port.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::epoll::EpollFlags;
use socket2::{Domain, Socket, Type};

use crate::dns::query::Transport;
use crate::dns::resolvers::Resolver;

/// The port of a resolver.
const PORT: u16 = 53;
/// Bytes of the longest datagram that is read. More than was asked for is cut, and so no message.
const DATAGRAM_MAX: usize = 4096;
/// Bytes of the length before a message.
const LENGTH: usize = 2;

#[derive(Debug)]
pub(super) enum Exchange {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// What is still to be sent.
        output: Vec<u8>,
        /// What has come of the answer and its length.
        input: Vec<u8>,
    },
}

/// What has come.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing whole.
    Nothing,
    /// A message.
    Message(Vec<u8>),
    /// That nothing will come.
    Failed,
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Exchange::Udp(socket) => socket.as_fd(),
            Exchange::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

impl Exchange {
    /// Asks a resolver.
    pub(super) fn open(resolver: &Resolver, by: Transport, message: &[u8]) -> io::Result<Exchange> {
        let address = address(resolver)?;
        let kind = if by == Transport::Udp { Type::DGRAM } else { Type::STREAM };
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if by == Transport::Udp {
            let socket = UdpSocket::from(socket);
            socket.send(message)?;
            return Ok(Exchange::Udp(socket));
        }
        let mut output = (message.len() as u16).to_be_bytes().to_vec();
        output.extend(message);
        Ok(Exchange::Tcp { stream: socket.into(), output, input: Vec::new() })
    }

    /// What to wait for.
    pub(super) fn wanted(&self) -> EpollFlags {
        match self {
            Exchange::Tcp { output, .. } if !output.is_empty() => EpollFlags::EPOLLOUT,
            Exchange::Udp(_) | Exchange::Tcp { .. } => EpollFlags::EPOLLIN,
        }
    }

    /// Sends or receives.
    pub(super) fn step(&mut self) -> Heard {
        let outcome = match self {
            Exchange::Udp(socket) => {
                let mut buffer = vec![0; DATAGRAM_MAX];
                socket.recv(&mut buffer).map(|length| {
                    buffer.truncate(length);
                    Some(buffer)
                })
            }
            Exchange::Tcp { stream, output, input } => transfer(stream, output, input),
        };
        match outcome {
            Ok(Some(message)) => Heard::Message(message),
            Ok(None) => Heard::Nothing,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::Failed,
        }
    }
}

/// Sends what is to be sent, then reads what the answer lacks. The connection has one question, and
/// so one answer.
fn transfer(
    stream: &mut TcpStream,
    output: &mut Vec<u8>,
    input: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    while !output.is_empty() {
        let length = stream.write(output)?;
        output.drain(..length);
    }
    let whole = match input.first_chunk::<LENGTH>() {
        Some(length) => LENGTH + usize::from(u16::from_be_bytes(*length)),
        None => LENGTH,
    };
    let had = input.len();
    input.resize(whole, 0);
    let read = stream.read(&mut input[had..]);
    input.truncate(had + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(0) if whole > had => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) if input.len() == whole && whole > LENGTH => Ok(Some(input.split_off(LENGTH))),
        Ok(_) if whole == LENGTH && input[..] == [0, 0] => Err(ErrorKind::InvalidData.into()),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

fn address(resolver: &Resolver) -> io::Result<SocketAddr> {
    Ok(match (resolver.ip, &resolver.link) {
        (IpAddr::V6(ip), Some(link)) => {
            SocketAddrV6::new(ip, PORT, 0, if_nametoindex(link.as_str())?).into()
        }
        (ip, _) => SocketAddr::new(ip, PORT),
    })
}
