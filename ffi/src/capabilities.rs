//! Capabilities of the calling thread (capabilities(7), linux/capability.h), as bits of their
//! numbers.

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits each.
const VERSION: u32 = 0x2008_0522;
/// No kernel has a capability of this number or above; they end with `EINVAL` before it.
const NUMBERS: u32 = 64;

/// `struct __user_cap_header_struct`; a pid of 0 is the caller.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The permitted capabilities of the thread.
pub fn permitted() -> io::Result<u64> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: of this version the kernel reads one header and writes two words of data, all of
    // which live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(result)?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// Gives up every capability except these, for itself and for later programs. Of these, the thread
/// keeps those that it has. The bounding set stays as it is if the thread may not change it.
pub fn keep(wanted: u64) -> io::Result<()> {
    let kept = permitted()? & wanted;
    for number in (0..NUMBERS).filter(|number| kept >> number & 1 == 0) {
        // SAFETY: the call takes integers and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    }
    // SAFETY: as above. It is of no use without inheritable ones, which go below in any case.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let words = [kept as u32, (kept >> 32) as u32];
    let data = words.map(|word| Data { effective: word, permitted: word, inheritable: 0 });
    let mut header = Header { version: VERSION, pid: 0 };
    // SAFETY: of this version the kernel reads one header and two words of data, all of which live
    // through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn what_is_kept_is_what_is_left() {
        // A thread of its own: what it gives up is gone for it alone.
        std::thread::spawn(|| {
            let before = permitted().unwrap();
            assert_eq!(before, status("CapPrm"));
            // CAP_CHOWN, CAP_NET_ADMIN, and one that there is not.
            let wanted = 1 << 0 | 1 << 12 | 1 << 63;
            keep(wanted).unwrap();
            for field in ["CapPrm", "CapEff"] {
                assert_eq!(status(field), before & wanted, "{field}");
            }
            if before >> 8 & 1 == 1 {
                // CAP_SETPCAP.
                assert_eq!(status("CapBnd"), before & wanted);
            }
            assert_eq!((status("CapInh"), status("CapAmb")), (0, 0));
        })
        .join()
        .unwrap();
    }
}
