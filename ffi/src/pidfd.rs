//! Processes by file descriptor (pidfd_open(2)): a pid can be reused, a pidfd cannot.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Opens a process that exists, or is a zombie. `ESRCH` when there is none, `EINVAL` when the
/// number is that of a thread. The descriptor is close-on-exec.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor (it fits an int), and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the process. `ESRCH` when it is gone.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    send(pidfd, signal, 0)
}

/// Sends a signal to every process of the group that this process leads or, if it has ended, led.
/// `EINVAL` before Linux 6.9, `ESRCH` when the group is empty.
pub fn send_signal_to_group(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    send(pidfd, signal, libc::PIDFD_SIGNAL_PROCESS_GROUP)
}

fn send(pidfd: BorrowedFd<'_>, signal: i32, flags: libc::c_uint) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open while borrowed; a null siginfo asks the kernel to fill it in.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the process has ended, after waiting up to `timeout_ms`. A zombie has ended.
pub fn has_ended(pidfd: BorrowedFd<'_>, timeout_ms: u16) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one valid pollfd and lives through the call.
    match unsafe { libc::poll(&mut poll, 1, timeout_ms.into()) } {
        -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(false),
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready > 0),
    }
}

/// Collects the status of a child that has ended; `None` while it runs. `ECHILD` when the process
/// is not our child, or was collected before.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: `info` is valid for writing and lives through the call.
    let result =
        unsafe { libc::waitid(libc::P_PIDFD, id, &mut info, libc::WEXITED | libc::WNOHANG) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid succeeded, so `info` is either as we zeroed it or a filled-in SIGCHLD one.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    // Convert to the form of wait(2), which ExitStatus needs.
    let raw = if info.si_code == libc::CLD_EXITED { (status & 0xff) << 8 } else { status };
    Ok(Some(ExitStatus::from_raw(raw)))
}

/// The status of a process that is another process's child; `None` until its parent has reaped it.
/// Linux 6.15; `ENOTTY` or `EINVAL` before.
pub fn status_of_reaped(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let wanted = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: pidfd_info is plain integers, for which all zeroes is a value.
    let mut info: libc::pidfd_info = unsafe { mem::zeroed() };
    info.mask = wanted;
    // SAFETY: the request number carries the size of `info`, which is valid for reading and
    // writing and lives through the call.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &mut info) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & wanted != 0).then(|| ExitStatus::from_raw(info.exit_code)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
    fn a_childs_status_is_collected_once() {
        let child = Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        while !has_ended(pidfd.as_fd(), 1000).unwrap() {}
        assert_eq!(wait(pidfd.as_fd()).unwrap().unwrap().code(), Some(7));
        assert_eq!(wait(pidfd.as_fd()).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(open(child.id()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        let gone = send_signal(pidfd.as_fd(), libc::SIGTERM).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is waited for by its pidfd")]
    fn a_signal_ends_a_child() {
        let child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        assert_eq!(wait(pidfd.as_fd()).unwrap(), None);
        assert!(!has_ended(pidfd.as_fd(), 0).unwrap());
        send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        while !has_ended(pidfd.as_fd(), 1000).unwrap() {}
        assert_eq!(wait(pidfd.as_fd()).unwrap().unwrap().signal(), Some(libc::SIGKILL));
    }
}
