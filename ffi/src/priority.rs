//! The priority of a thread.

use std::io;

/// The lowest priority (setpriority(2)).
const LAST: libc::c_int = 19;

/// Gives the calling thread the lowest priority from now on. (In POSIX this is for the process; on
/// Linux it is for the thread.)
pub fn yield_to_others() -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory of ours.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
