//! Attributes: `struct nlattr` (linux/netlink.h): u16 length with its header, u16 type, value,
//! padding to four bytes. Integers are in host order unless a family says otherwise.

use std::net::IpAddr;

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
    /// Whether it is of this type, such as `neli::consts::rtnl::Ifla::Mtu`. The type becomes a
    /// number when this is compiled. To make neli's type from each number instead, and to match
    /// that, costs almost as much again as the rest of parsing.
    #[inline(always)]
    pub fn is(&self, kind: impl Into<u16>) -> bool {
        self.kind == kind.into()
    }

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

    /// The value as an IP address, in network order. Its length tells the family.
    pub fn address(self) -> Result<IpAddr, Error> {
        let v4 = self.array::<4>().map(IpAddr::from);
        v4.or_else(|_| self.array::<16>().map(IpAddr::from))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        crate::netlink::same! { TYPE_MASK => (libc::NLA_TYPE_MASK as u16) }
    }

    /// An attribute with this length in its header, whatever its value is.
    fn raw(length: u16, kind: u16, value: &[u8]) -> Vec<u8> {
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn all(bytes: &[u8]) -> Vec<Result<(u16, Vec<u8>), Error>> {
        Attrs::new(bytes).map(|attr| attr.map(|attr| (attr.kind, attr.value.to_vec()))).collect()
    }

    fn one(value: &[u8]) -> Attr<'_> {
        Attr { kind: 1, value, depth: 0 }
    }

    #[test]
    fn walks_over_padding_and_masks_the_flags() {
        let bytes = [raw(5, 3, &[7, 0, 0, 0]), raw(8, 0x8000 | 4, &[1, 2, 3, 4])].concat();
        assert_eq!(all(&bytes), [Ok((3, vec![7])), Ok((4, vec![1, 2, 3, 4]))]);
        assert_eq!(all(&[]), []);
    }

    #[test]
    fn the_last_one_may_lack_its_padding() {
        assert_eq!(all(&raw(5, 3, &[7])), [Ok((3, vec![7]))]);
    }

    #[test]
    fn what_does_not_fit_ends_the_walk() {
        let good = raw(8, 1, &[0; 4]);
        for (bad, error) in [
            (vec![8, 0, 1], Error::Truncated),
            (raw(9, 1, &[0; 4]), Error::Truncated),
            (raw(u16::MAX, 1, &[0; 4]), Error::Truncated),
            (raw(3, 1, &[0; 4]), Error::TooShort),
            (raw(0, 1, &[0; 4]), Error::TooShort),
        ] {
            let bytes = [&good[..], &bad, &good].concat();
            let cut = &bytes[..good.len() + bad.len()];
            assert_eq!(all(cut), [Ok((1, vec![0; 4])), Err(error)], "{bad:?}");
        }
        // A length that is wrong is not stepped over, even where something good follows.
        let bytes = [raw(2, 1, &[0; 4]), good].concat();
        assert_eq!(all(&bytes), [Err(Error::TooShort)]);
    }

    #[test]
    fn nests_as_deep_as_allowed_and_no_deeper() {
        let mut bytes = Vec::new();
        for _ in 0..DEPTH_MAX + 1 {
            bytes = raw((HEADER + bytes.len()) as u16, 1, &bytes);
        }
        let mut attrs = Attrs::new(&bytes);
        for _ in 1..DEPTH_MAX {
            attrs = attrs.next().unwrap().unwrap().nested().unwrap();
        }
        assert_eq!(attrs.next().unwrap().unwrap().nested().unwrap_err(), Error::TooDeep);
    }

    #[test]
    fn values_have_the_size_of_their_type() {
        let four = [0, 0, 1, 2];
        assert_eq!(one(&four).be32(), Ok(0x102));
        assert_eq!(one(&four).u32(), Ok(u32::from_ne_bytes(four)));
        assert_eq!(one(&four).u8(), Err(Error::WrongSize));
        assert_eq!(one(&four).u16(), Err(Error::WrongSize));
        assert_eq!(one(&four).be64(), Err(Error::WrongSize));
        assert_eq!(one(&[]).u8(), Err(Error::WrongSize));
        assert_eq!(one(&[1, 2, 3, 4, 5, 6]).array(), Ok([1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn text_ends_at_its_terminator_or_with_the_value() {
        assert_eq!(one(b"vbr0\0").text(), Ok("vbr0"));
        assert_eq!(one(b"vbr0").text(), Ok("vbr0"));
        assert_eq!(one(b"vbr0\0tail").text(), Ok("vbr0"));
        assert_eq!(one(b"").text(), Ok(""));
        assert_eq!(one(b"\0").text(), Ok(""));
        assert_eq!(one(b"v\xff\0").text(), Err(Error::NotText));
        assert_eq!(one(b"v\xff\0").string(), b"v\xff");
    }
}
