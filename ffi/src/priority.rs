//! Who gets the processor first.

use std::io;

/// The last of all (setpriority(2)).
const LAST: libc::c_int = 19;

/// Lets all others go before the calling thread, from now on. (POSIX has it be the process; on Linux
/// it is the thread.)
pub fn yield_to_others() -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory of ours.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
