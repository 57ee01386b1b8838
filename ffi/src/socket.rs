//! Socket calls that no safe crate has: options of netlink (netlink(7)) and of Unix sockets, and
//! the index of a link.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An option at the level of `SOL_NETLINK` that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkOption {
    /// `NETLINK_EXT_ACK`: errors come with the kernel's own words.
    ExtAck,
    /// `NETLINK_CAP_ACK`: errors do not echo the request.
    CapAck,
    /// `NETLINK_GET_STRICT_CHK`: filters of a dump are checked and obeyed.
    StrictCheck,
}

/// Whether descriptors can be sent to a Unix socket (SO_PASSRIGHTS of asm-generic/socket.h, Linux
/// 6.16). libc does not have it.
const SO_PASSRIGHTS: libc::c_int = 83;
/// The most descriptors that are taken with one read.
pub const DESCRIPTORS_MAX: usize = 3;

/// Asks for the network namespace of a socket (linux/sockios.h). libc does not have it.
const SIOCGSKNS: libc::c_int = 0x894c;

/// Switches an option on.
pub fn enable(socket: BorrowedFd<'_>, option: NetlinkOption) -> io::Result<()> {
    let name = match option {
        NetlinkOption::ExtAck => libc::NETLINK_EXT_ACK,
        NetlinkOption::CapAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::StrictCheck => libc::NETLINK_GET_STRICT_CHK,
    };
    set(socket, libc::SOL_NETLINK, name, 1)
}

/// Subscribes to a multicast group by its number (`RTNLGRP_*`, `NFNLGRP_*`).
pub fn join(socket: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    let group = i32::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    set(socket, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
}

/// Makes the kernel refuse descriptors that are sent to a Unix socket, or to the sockets that it
/// accepts from now on. `ENOPROTOOPT` before Linux 6.16.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, 0)
}

/// Lets descriptors be sent to a Unix socket whose listener refuses them. `ENOPROTOOPT` before
/// Linux 6.16, where nobody refuses them.
pub fn accept_descriptors(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, 1)
}

/// Whether a descriptor is a socket of rtnetlink.
pub fn is_rtnetlink(descriptor: BorrowedFd<'_>) -> bool {
    let is = |name, wanted| get(descriptor, name).is_ok_and(|value| value == wanted);
    is(libc::SO_DOMAIN, libc::AF_NETLINK) && is(libc::SO_PROTOCOL, libc::NETLINK_ROUTE)
}

/// The network namespace that a socket belongs to. The caller needs CAP_NET_ADMIN there.
pub fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it, with close-on-exec, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads from a Unix socket without waiting, and takes the descriptors that came with the bytes
/// (SCM_RIGHTS, unix(7)), at most [`DESCRIPTORS_MAX`]. The kernel closes more.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // Control messages are aligned as their header is.
    let mut control = [0_u64; 8];
    // SAFETY: `struct msghdr` is pointers and integers: all zeros is a value of it.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE computes with integers.
    let room = unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<libc::c_int>()) as u32) };
    debug_assert!(room as usize <= size_of_val(&control), "the buffer holds all descriptors");
    message.msg_controllen = room as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to live buffers and has their lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((length as usize, descriptors(&message)))
}

/// The descriptors of a message that was received.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled in the control messages and their length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: it is not null, so it points to a header within the control messages.
        let header = unsafe { &*next };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN computes with integers; CMSG_DATA points behind a valid header.
            let (head, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(next)) };
            let count = (header.cmsg_len as usize - head) / size_of::<libc::c_int>();
            let data = data.cast::<libc::c_int>();
            // SAFETY: the kernel wrote so many descriptors there, each open and ours alone.
            let taken = |at| unsafe { OwnedFd::from_raw_fd(data.add(at).read_unaligned()) };
            descriptors.extend((0..count).map(taken));
        }
        // SAFETY: both point to valid headers of this message.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    descriptors
}

/// The index of the link of that name, by SIOCGIFINDEX (netdevice(7)), which any socket answers;
/// ENODEV when there is none. The name is cut after 15 bytes.
pub fn link_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    // SAFETY: `struct ifreq` is integers and a union of them: all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFINDEX reads and writes one `struct ifreq`, which lives across the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFINDEX fills in the index, and any bits are a valid integer.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
}

/// The name of the link with that index, by SIOCGIFNAME (netdevice(7)), which any socket answers;
/// ENODEV when there is none.
pub fn link_name(socket: BorrowedFd<'_>, index: u32) -> io::Result<String> {
    // SAFETY: `struct ifreq` is integers and a union of them: all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_ifindex = index as libc::c_int;
    // SAFETY: SIOCGIFNAME reads and writes one `struct ifreq`, which lives across the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
    Ok(String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned())
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads no more than
    // the given size from the pointer, which is that of a live integer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An option at the level of `SOL_SOCKET` that is an integer.
fn get(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes no more than
    // the given size to the pointer, which is that of a live integer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
