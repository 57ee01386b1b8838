//! Which file descriptors children inherit.

use std::io;

/// The first descriptor behind standard input, output and error.
const FIRST: libc::c_uint = 3;

/// Marks every descriptor that this process has, but the standard three, as close-on-exec: those
/// it was itself given would otherwise go on to its children (close_range(2), Linux 5.11).
pub fn keep_from_children() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
    // SAFETY: the call sets a flag on descriptors and touches no memory; nothing is closed here.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
