//! Packet sockets (packet(7)): whole frames, from one link and to any link.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An instruction of a classic BPF program (Documentation/networking/filter.rst of Linux).
pub type Instruction = libc::sock_filter;

/// Filters a socket: it gets only frames for which the program returns a length.
pub fn filter(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let length =
        program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel only reads: one
    // `struct sock_fprog`, and as many instructions as that says, which live across the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })
}

/// Spares a socket what the host sends (Linux 4.20): the kernel does not even copy it.
pub fn ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads no more than
    // the given size from the pointer, which is that of a live integer.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

/// Linux's number (linux/if_packet.h), which libc does not have.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// Binds a packet socket to the link of this index and to this EtherType.
pub fn bind(socket: BorrowedFd<'_>, ifindex: u32, ethertype: u16) -> io::Result<()> {
    let address = address(ifindex, ethertype)?;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads no more than
    // the given size from the pointer, which is that of a live address.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), SIZE) })
}

/// Sends a frame by the link of this index.
pub fn send(socket: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = address(ifindex, 0)?;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel only reads: from the
    // frame and from the address, no more than their sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            SIZE,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The Ethernet address of the link that a packet socket is bound to.
pub fn own_address(socket: BorrowedFd<'_>) -> io::Result<[u8; 6]> {
    let mut own = address(0, 0)?;
    let mut size = SIZE;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more than
    // the given size to the pointer, which is that of a live address.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut own).cast(), &raw mut size) })?;
    let [a, b, c, d, e, f, ..] = own.sll_addr;
    Ok([a, b, c, d, e, f])
}

/// Bytes of an address.
const SIZE: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn address(ifindex: u32, ethertype: u16) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: `struct sockaddr_ll` is integers and an array of them: all zeros is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex =
        ifindex.try_into().map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok(address)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
