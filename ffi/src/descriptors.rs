//! Which file descriptors children inherit.

use std::fs;
use std::io;

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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

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
}
