//! Which file descriptors children inherit, and taking over those that were inherited.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The first descriptor behind standard input, output and error.
const FIRST: libc::c_uint = 3;
/// Where a process finds its own descriptors.
const OWN: &str = "/proc/self/fd";

/// Marks every descriptor of this process except the standard three as close-on-exec. Otherwise
/// children would inherit the descriptors that the process itself inherited. Uses close_range(2)
/// since Linux 5.11; before, it marks them one by one.
pub fn keep_from_children() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
    // SAFETY: the call sets a flag on descriptors and touches no memory; nothing is closed here.
    match unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        // The call is of Linux 5.9, the flag of 5.11.
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                keep_one_by_one()
            }
            error => Err(error),
        },
    }
}

fn keep_one_by_one() -> io::Result<()> {
    // List all before marking any: the listing has a descriptor of its own.
    let own: Vec<_> = fs::read_dir(OWN)?.collect::<io::Result<_>>()?;
    let numbers = own.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for descriptor in numbers.filter(|number: &libc::c_int| *number >= FIRST as libc::c_int) {
        // SAFETY: the call takes integers and touches no memory of ours.
        let marked = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        match (marked, io::Error::last_os_error()) {
            (0.., _) => {}
            // The descriptor of the listing is closed by now.
            (_, error) if error.raw_os_error() == Some(libc::EBADF) => {}
            (_, error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes over a descriptor that this process inherited under a number that it was told. `EBADF` if
/// it inherited none: what it has opened itself is close-on-exec, and what it has taken is from
/// then on. So a descriptor has one owner.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    let bad = || io::Error::from_raw_os_error(libc::EBADF);
    if number < FIRST as libc::c_int {
        return Err(bad());
    }
    // SAFETY: the call takes integers and touches no memory of ours.
    match unsafe { libc::fcntl(number, libc::F_GETFD) } {
        -1 => return Err(io::Error::last_os_error()),
        flags if flags & libc::FD_CLOEXEC != 0 => return Err(bad()),
        _ => {}
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nobody else owns it: an owner would have opened it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn every_descriptor_is_kept_in_both_ways() {
        for keep in [keep_from_children, keep_one_by_one] {
            let file = File::open("/dev/null").unwrap();
            let flags = || {
                // SAFETY: the call takes integers and touches no memory of ours.
                unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }
            };
            // SAFETY: as above.
            assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
            assert_eq!(flags(), 0);
            keep().unwrap();
            assert_eq!(flags(), libc::FD_CLOEXEC);
        }
    }

    #[test]
    fn what_was_inherited_is_taken_once() {
        let number = File::open("/dev/null").unwrap().into_raw_fd();
        assert_eq!(take(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
        // SAFETY: the call takes integers and touches no memory of ours.
        assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }, 0);
        let taken = take(number).unwrap();
        assert_eq!(take(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
        drop(taken);
        for number in [number, 0, -1] {
            assert_eq!(take(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }
}
