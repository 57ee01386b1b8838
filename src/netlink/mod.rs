//! The netlink codec: bytes to values and back, with no socket and no allocation on the way in.
//!
//! Layers: [`message`] frames messages in a datagram (`struct nlmsghdr`, linux/netlink.h), [`attr`]
//! walks and writes attributes (`struct nlattr`), [`writer`] is the bounded buffer that both write
//! into. On top of them [`rtnl`] speaks links, addresses, neighbours and routes, [`nft`] speaks
//! nf_tables, [`conntrack`] tracked connections. Nothing here trusts a length: what does not fit is
//! an [`Error`], and every loop consumes at least a header a turn.
//!
//! A message never leaves the machine, so its words are in the machine's own byte order
//! (netlink(7)): they are read and written as `ne`, words of packets and of nf_tables as `be`, and
//! nothing is cast onto memory. So no length of a pointer and no byte order is taken for granted,
//! and a message of a machine with another order cannot come. The golden messages of
//! `tests/netlink` are of a machine with the least significant byte first, and are compared on such
//! ones.
//!
//! Flags, types of messages and attributes come from `neli::consts` where it has them; the others
//! stand here, next to their use.

pub mod attr;
pub mod conntrack;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod message;
pub mod nft;
pub mod rtnl;
pub mod writer;

use std::fmt;

/// Compares numbers of ours with those of the kernel's headers, as `libc` and `linux-raw-sys` have
/// them. Numbers that neither has are compared with bytes of other programs, in `tests/netlink`.
#[cfg(test)]
macro_rules! same {
    ($($ours:expr => $theirs:expr),* $(,)?) => {
        $(assert_eq!($ours as i64, $theirs as i64, stringify!($theirs));)*
    };
}
#[cfg(test)]
use same;

/// Why bytes are not a message, or a message does not fit its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A header or a value reaches past the end of what was received.
    Truncated,
    /// A length is smaller than the header that holds it.
    TooShort,
    /// A value has another size than its type.
    WrongSize,
    /// A string has no terminator where one is due, or is not UTF-8.
    NotText,
    /// Attributes are nested deeper than [`attr::DEPTH_MAX`].
    TooDeep,
    /// An attribute that must be there is missing.
    Missing,
    /// A value that this code does not know.
    Unknown,
    /// The buffer is full, or an attribute would be longer than its 16-bit length can say.
    Full,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Truncated => "message is cut short",
            Error::TooShort => "length is smaller than its header",
            Error::WrongSize => "value has the wrong size",
            Error::NotText => "string is not valid",
            Error::TooDeep => "attributes are nested too deep",
            Error::Missing => "attribute is missing",
            Error::Unknown => "value is not known",
            Error::Full => "message does not fit",
        })
    }
}

impl std::error::Error for Error {}
