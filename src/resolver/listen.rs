//! The sockets on which the guests of a network are heard.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use crate::model::net::NetworkConfig;

/// The port of a name server (RFC 1035, 4.2).
const PORT: u16 = 53;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Bytes of the receive queue of a network. The kernel doubles it (socket(7)) and counts some 800
/// for a question. So it has room for what several guests may ask at once.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;

/// A socket of a network.
#[derive(Debug)]
pub(super) struct Listening {
    /// The network's name.
    pub(super) network: String,
    pub(super) listener: Listener,
}

/// The socket itself.
#[derive(Debug)]
pub(super) enum Listener {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.listener {
            Listener::Udp(socket) => socket.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// The sockets of a network. Needs CAP_NET_BIND_SERVICE.
pub(super) fn open(network: &NetworkConfig) -> io::Result<Vec<Listening>> {
    let listening = |ip, kind| {
        let listener = listener(network, ip, kind)?;
        Ok(Listening { network: network.name.clone(), listener })
    };
    let addresses = network.host_addresses();
    addresses.flat_map(|ip| [Type::DGRAM, Type::STREAM].map(|kind| listening(ip, kind))).collect()
}

fn listener(network: &NetworkConfig, ip: IpAddr, kind: Type) -> io::Result<Listener> {
    let address = SocketAddr::from((ip, PORT));
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::BindToDevice, &network.bridge.as_str().into())?;
    // The address may come a moment later, or be removed and put back. This is so for an IPv6
    // socket, too (net/ipv6/ipv6_sockglue.c passes `SOL_IP` on).
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    if kind == Type::DGRAM {
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        socket.bind(&address.into())?;
        return Ok(Listener::Udp(socket.into()));
    }
    // Connections of a daemon before this one may still be about to end.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Listener::Tcp(socket.into()))
}

/// Sends an answer. If it is lost, the guest asks again.
pub(super) fn send(socket: &UdpSocket, message: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(message, to) {
        log::debug!("cannot answer {to}: {error}");
    }
}
