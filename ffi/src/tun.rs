//! TUN/TAP devices (linux/if_tun.h, Documentation/networking/tuntap.rst).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

/// Frames, not packets.
pub const TAP: i32 = libc::IFF_TAP;
/// No four bytes of flags and protocol before each frame.
pub const NO_PI: i32 = libc::IFF_NO_PI;
/// A virtio-net header before each frame.
pub const VNET_HDR: i32 = libc::IFF_VNET_HDR;
/// More than one queue can be opened.
pub const MULTI_QUEUE: i32 = libc::IFF_MULTI_QUEUE;
/// Make a device or fail: EBUSY where one of that name exists.
pub const EXCLUSIVE: i32 = libc::IFF_TUN_EXCL;
/// Only among the flags read back: the device outlives its descriptors.
pub const PERSISTENT: i32 = libc::IFF_PERSIST;

/// Where devices are made.
pub const PATH: &str = "/dev/net/tun";

/// Opens [`PATH`], non-blocking and closed on exec.
pub fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(PATH)
}

/// The numbers of [`PATH`] (Documentation/networking/tuntap.rst).
const NUMBERS: (u32, u32) = (10, 200);

/// Whether a descriptor is one of [`open`], and no device was made or opened with it.
pub fn is_unused(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let file = File::from(descriptor.try_clone_to_owned()?);
    let kind = file.metadata()?;
    let numbers = (libc::major(kind.rdev()), libc::minor(kind.rdev()));
    if !kind.file_type().is_char_device() || numbers != NUMBERS {
        return Ok(false);
    }
    match read_back(&file) {
        Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(true),
        read => read.map(|_| false),
    }
}

/// One queue of a device, held open. Closing it removes a device that is not persistent.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Makes or opens a device on a file of [`open`].
    ///
    /// The kernel cuts a name silently after 15 bytes and fills in a `%d`: compare [`Tun::name`]
    /// with the requested name.
    pub fn attach(file: File, name: &str, flags: i32) -> io::Result<Tun> {
        let mut request = request(name, flags);
        // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which lives across the call.
        let result =
            unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        check(result)?;
        Ok(Tun { file, name: name_of(&request)? })
    }

    /// The name that the kernel gave the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allows this user to open the device without further rights. Anyone who can open
    /// `/dev/net/tun` can open a device without an owner.
    pub fn set_owner(&self, uid: u32) -> io::Result<()> {
        // SAFETY: TUNSETOWNER takes its argument by value.
        check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOWNER as _, libc::c_ulong::from(uid))
        })
    }

    /// Lets the device outlive its descriptors, or not.
    pub fn set_persistent(&self, on: bool) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes its argument by value.
        check(unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST as _, libc::c_ulong::from(on))
        })
    }

    /// The flags as the device has them now.
    pub fn flags(&self) -> io::Result<i32> {
        read_back(&self.file)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Tun> for OwnedFd {
    fn from(tun: Tun) -> OwnedFd {
        tun.file.into()
    }
}

/// The flags of the device of a file; EBADFD if it has none.
fn read_back(file: &File) -> io::Result<i32> {
    let mut request = request("", 0);
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which lives across the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) };
    check(result)?;
    // SAFETY: TUNGETIFF fills in the flags, and any bits are a valid short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags as u16))
}

/// A request with flags and a name, which is cut if it does not fit.
fn request(name: &str, flags: i32) -> libc::ifreq {
    // SAFETY: `struct ifreq` is integers and a union of them: all zeros is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    request
}

/// The name in an answer of the kernel. It is UTF-8 if the requested name was.
fn name_of(request: &libc::ifreq) -> io::Result<String> {
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|&c| c as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
