//! Random numbers of the kernel.

use std::io;

/// A number that nobody can guess (getrandom(2)). So few bytes come whole and at once, unless the
/// kernel has none yet: then this waits for them, in the first moments of the host.
pub fn number() -> io::Result<u16> {
    let mut bytes = [0; 2];
    // SAFETY: the pointer and the length are those of an array that lives through the call.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(length) {
        Ok(length) if length == bytes.len() => Ok(u16::from_ne_bytes(bytes)),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
