//! Attributes: `struct nlattr` (linux/netlink.h): u16 length with its header, u16 type, value,
//! padding to four bytes. Integers are in host order unless a family says otherwise.

use super::Error;

/// Bytes of an attribute's header.
pub const HEADER: usize = 4;
/// How many levels of attributes there may be, the outermost included; nf_tables needs six.
pub const DEPTH_MAX: usize = 8;
/// The bits of the type field that are the type; the two above mark nesting and byte order.
const TYPE_MASK: u16 = 0x3fff;

/// Rounds up to the alignment of netlink.
pub(crate) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// One attribute: its type and its value, borrowed from the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// The type, without the flag bits.
    pub kind: u16,
    /// The value, without padding.
    pub value: &'a [u8],
    depth: usize,
}

/// Iterates over the attributes in a run of bytes. After an error it ends.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Attrs<'a> {
    /// The attributes in `bytes`, at the outermost level.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attrs { rest: bytes, depth: 0 }
    }

    fn step(&mut self) -> Result<Attr<'a>, Error> {
        let header = self.rest.get(..HEADER).ok_or(Error::Truncated)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        if length < HEADER {
            return Err(Error::TooShort);
        }
        let value = self.rest.get(HEADER..length).ok_or(Error::Truncated)?;
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Ok(Attr { kind, value, depth: self.depth })
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

impl<'a> Attr<'a> {
    /// The attributes nested in this one.
    pub fn nested(self) -> Result<Attrs<'a>, Error> {
        if self.depth + 1 >= DEPTH_MAX {
            return Err(Error::TooDeep);
        }
        Ok(Attrs { rest: self.value, depth: self.depth + 1 })
    }

    /// The value as `N` bytes.
    pub fn array<const N: usize>(self) -> Result<[u8; N], Error> {
        self.value.try_into().map_err(|_| Error::WrongSize)
    }

    /// The value as one byte.
    pub fn u8(self) -> Result<u8, Error> {
        self.array().map(u8::from_ne_bytes)
    }

    /// The value as a 16-bit integer in host order.
    pub fn u16(self) -> Result<u16, Error> {
        self.array().map(u16::from_ne_bytes)
    }

    /// The value as a 32-bit integer in host order.
    pub fn u32(self) -> Result<u32, Error> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The value as a 32-bit integer in network order, as nf_tables has them.
    pub fn be32(self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// The value as a 64-bit integer in network order.
    pub fn be64(self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// The value as a string of bytes, up to its terminator if it has one.
    pub fn string(self) -> &'a [u8] {
        let end = self.value.iter().position(|&byte| byte == 0).unwrap_or(self.value.len());
        &self.value[..end]
    }

    /// The value as text, up to its terminator if it has one.
    pub fn text(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.string()).map_err(|_| Error::NotText)
    }
}
