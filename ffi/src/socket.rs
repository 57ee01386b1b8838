//! Socket calls that no safe crate has: options of netlink (netlink(7)) and of Unix sockets, and
//! the index of a link.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
