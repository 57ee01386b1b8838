//! An IPv4 prefix in CIDR notation (RFC 4632).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network: the address with all host bits zero, and the length of the mask, 0 to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    network: Ipv4Addr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits that `address` lies in. `None` if `length` is over 32.
    pub fn containing(address: Ipv4Addr, length: u8) -> Option<Prefix> {
        let network = Ipv4Addr::from_bits(address.to_bits() & mask(length)?);
        Some(Prefix { network, length })
    }

    /// The first address, all host bits zero.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The last address, all host bits one.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !self.netmask().to_bits())
    }

    /// The mask in dotted form.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.length).unwrap_or(0))
    }

    /// The length of the mask in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether `address` lies in this prefix.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.netmask().to_bits() == self.network.to_bits()
    }

    /// Whether the two prefixes have an address in common.
    pub fn overlaps(self, other: Prefix) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(length: u8) -> Option<u32> {
    match length {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - length)),
        _ => None,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// Reads `a.b.c.d/n`. Host bits that are not zero are an error, because they are probably a
    /// mistake.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) =
            text.split_once('/').ok_or_else(|| format!("{text:?} is not of the form a.b.c.d/n"))?;
        let address: Ipv4Addr =
            address.parse().map_err(|_| format!("{address:?} is not an IPv4 address"))?;
        let prefix = (length.len() <= 2 && length.bytes().all(|b| b.is_ascii_digit()))
            .then(|| length.parse().ok())
            .flatten()
            .and_then(|length| Prefix::containing(address, length))
            .ok_or_else(|| format!("{length:?} is not a prefix length from 0 to 32"))?;
        if prefix.network != address {
            return Err(format!("{text} has host bits set; did you mean {prefix}?"));
        }
        Ok(prefix)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_cidr() {
        let prefix: Prefix = "192.168.127.0/24".parse().unwrap();
        assert_eq!(prefix.to_string(), "192.168.127.0/24");
        assert_eq!(prefix.netmask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(prefix.broadcast(), Ipv4Addr::new(192, 168, 127, 255));
        assert!(prefix.contains(Ipv4Addr::new(192, 168, 127, 9)));
        assert!(!prefix.contains(Ipv4Addr::new(192, 168, 128, 9)));
    }

    #[test]
    fn refuses_what_is_not_a_prefix() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/24", "10.0.0/8", "10.0.0.0/+8"]
        {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_mutual() {
        let wide: Prefix = "10.0.0.0/8".parse().unwrap();
        let narrow: Prefix = "10.1.2.0/24".parse().unwrap();
        let other: Prefix = "11.0.0.0/8".parse().unwrap();
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide));
        assert!(!wide.overlaps(other) && !other.overlaps(narrow));
    }
}
