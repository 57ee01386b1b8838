//! Supplementary groups of the process at the other end of a Unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// More groups than this are cut off (`NGROUPS_MAX` is 65536, but nobody has so many).
const GROUPS_MAX: usize = 1024;

/// The supplementary groups of the peer when it connected: SO_PEERGROUPS (linux 4.13).
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_MAX];
    let mut length = (GROUPS_MAX * size_of::<u32>()) as libc::socklen_t;
    // SAFETY: the buffer is writable and `length` is its size in bytes; the kernel writes at most
    // that much and stores how much it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(length as usize / size_of::<u32>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn our_own_groups_come_back() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let told = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut expected: Vec<u32> =
            line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let mut groups = peer_groups(ours.as_fd()).unwrap();
        expected.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, expected);
    }
}
