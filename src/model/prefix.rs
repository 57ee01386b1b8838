//! Prefixes of IP addresses in CIDR notation (RFC 4632, RFC 4291 section 2.3).
//!
//! A [`Prefix`] is of the addresses of one family, or of [`IpAddr`], which is either. Guests lease
//! IPv4 addresses, so a prefix is of these unless its type says otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network: the address with all host bits zero, and the length of the mask, 0 to the bits of an
/// address of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix<A = Ipv4Addr> {
    network: A,
    length: u8,
}

/// An address that has prefixes.
pub trait Address: Copy + Eq {
    /// What it is, in words.
    const NAME: &str;
    /// The longest prefix.
    const BITS: u8;

    /// The address with all bits behind the first `length` zero. `None` if it has fewer bits.
    fn masked(self, length: u8) -> Option<Self>;

    /// The address with all bits behind the first `length` one.
    fn filled(self, length: u8) -> Self;

    /// An address of the same family whose first `length` bits are one, and no others.
    fn mask(self, length: u8) -> Self;
}

impl Address for Ipv4Addr {
    const NAME: &str = "an IPv4 address";
    const BITS: u8 = 32;

    fn masked(self, length: u8) -> Option<Ipv4Addr> {
        let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        (length <= <Self as Address>::BITS).then(|| Ipv4Addr::from_bits(self.to_bits() & !behind))
    }

    fn filled(self, length: u8) -> Ipv4Addr {
        let behind = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.to_bits() | behind)
    }

    fn mask(self, length: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(!Ipv4Addr::UNSPECIFIED.filled(length).to_bits())
    }
}

impl Address for Ipv6Addr {
    const NAME: &str = "an IPv6 address";
    const BITS: u8 = 128;

    fn masked(self, length: u8) -> Option<Ipv6Addr> {
        let behind = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        (length <= <Self as Address>::BITS).then(|| Ipv6Addr::from_bits(self.to_bits() & !behind))
    }

    fn filled(self, length: u8) -> Ipv6Addr {
        let behind = u128::MAX.checked_shr(length.into()).unwrap_or(0);
        Ipv6Addr::from_bits(self.to_bits() | behind)
    }

    fn mask(self, length: u8) -> Ipv6Addr {
        Ipv6Addr::from_bits(!Ipv6Addr::UNSPECIFIED.filled(length).to_bits())
    }
}

impl Address for IpAddr {
    const NAME: &str = "an IP address";
    const BITS: u8 = 128;

    fn masked(self, length: u8) -> Option<IpAddr> {
        match self {
            IpAddr::V4(address) => address.masked(length).map(IpAddr::V4),
            IpAddr::V6(address) => address.masked(length).map(IpAddr::V6),
        }
    }

    fn filled(self, length: u8) -> IpAddr {
        match self {
            IpAddr::V4(address) => address.filled(length).into(),
            IpAddr::V6(address) => address.filled(length).into(),
        }
    }

    fn mask(self, length: u8) -> IpAddr {
        match self {
            IpAddr::V4(address) => address.mask(length).into(),
            IpAddr::V6(address) => address.mask(length).into(),
        }
    }
}

impl<A: Address> Prefix<A> {
    /// The prefix of `length` bits that `address` lies in. `None` if an address has fewer bits.
    pub fn containing(address: A, length: u8) -> Option<Prefix<A>> {
        Some(Prefix { network: address.masked(length)?, length })
    }

    /// The first address, all host bits zero.
    pub fn network(self) -> A {
        self.network
    }

    /// The length of the mask in bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The last address, all host bits one.
    pub fn last(self) -> A {
        self.network.filled(self.length)
    }

    /// The mask: an address whose first `length` bits are one.
    pub fn mask(self) -> A {
        self.network.mask(self.length)
    }

    /// Whether `address` lies in this prefix.
    pub fn contains(self, address: A) -> bool {
        address.masked(self.length) == Some(self.network)
    }

    /// Whether the two prefixes have an address in common.
    pub fn overlaps(self, other: Prefix<A>) -> bool {
        let length = self.length.min(other.length);
        self.network.masked(length) == other.network.masked(length)
    }
}

impl Prefix {
    /// The broadcast address.
    pub fn broadcast(self) -> Ipv4Addr {
        self.last()
    }

    /// The mask in dotted form.
    pub fn netmask(self) -> Ipv4Addr {
        self.mask()
    }
}

impl From<Prefix> for Prefix<IpAddr> {
    fn from(Prefix { network, length }: Prefix) -> Prefix<IpAddr> {
        Prefix { network: network.into(), length }
    }
}

impl From<Prefix<Ipv6Addr>> for Prefix<IpAddr> {
    fn from(Prefix { network, length }: Prefix<Ipv6Addr>) -> Prefix<IpAddr> {
        Prefix { network: network.into(), length }
    }
}

impl<A: fmt::Display> Serialize for Prefix<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, A: Address + FromStr + fmt::Display> Deserialize<'de> for Prefix<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Prefix<A>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl<A: fmt::Display> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl<A: Address + FromStr + fmt::Display> FromStr for Prefix<A> {
    type Err = String;

    /// Reads an address, a slash and a length. Host bits that are not zero are an error, because
    /// they are probably a mistake.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is not {}, a slash and a length", A::NAME))?;
        let address: A = address.parse().map_err(|_| format!("{address:?} is not {}", A::NAME))?;
        let prefix = (length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit()))
            .then(|| length.parse().ok())
            .flatten()
            .and_then(|length| Prefix::containing(address, length))
            .ok_or_else(|| format!("{length:?} is not a prefix length from 0 to {}", A::BITS))?;
        if prefix.network != address {
            return Err(format!("{text} has host bits set; did you mean {prefix}?"));
        }
        Ok(prefix)
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
    #[test]
    fn each_family_has_prefixes_and_none_of_the_other() {
        let of =
            |address: &str, length| Prefix::containing(address.parse::<IpAddr>().unwrap(), length);
        let (four, six) = (of("10.1.2.3", 24).unwrap(), of("2001:db8::1:2", 64).unwrap());
        assert_eq!(
            (four.to_string(), six.to_string()),
            ("10.1.2.0/24".into(), "2001:db8::/64".into())
        );
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(four.contains(at("10.1.2.9")) && !four.contains(at("10.1.3.9")));
        assert!(six.contains(at("2001:db8::ff")) && !six.contains(at("2001:db8:1::ff")));
        assert!(!six.contains(at("10.1.2.9")) && !four.contains(at("::")));
        let (all_four, all_six) = (of("0.0.0.0", 0).unwrap(), of("::", 0).unwrap());
        assert!(all_six.overlaps(six) && !all_six.overlaps(four) && !all_four.overlaps(all_six));
        assert_eq!((of("10.1.2.3", 33), of("::1", 129)), (None, None));
        assert_eq!(Prefix::from("10.1.2.0/24".parse::<Prefix>().unwrap()), four);
    }
}
