//! Ethernet addresses, and the ones volnet derives.
//!
//! Every derived address is `02:` (locally administered, unicast; IEEE 802) and five bytes of a
//! SHA-256 over its owner. So a VM always has the same address.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A local address above those of nearly all devices, made of this one.
    pub fn highest(self) -> Mac {
        let Mac([_, rest @ ..]) = self;
        let [b, c, d, e, f] = rest;
        Mac([0xfe, b, c, d, e, f])
    }

    /// The address of a guest's interface.
    pub fn of_guest(network: &str, vm: &str) -> Mac {
        derived(&["guest", network, vm])
    }

    /// The address of a bridge. `host` (the machine id) makes it differ between hosts on one
    /// segment.
    pub fn of_bridge(host: &str, bridge: &str) -> Mac {
        derived(&["bridge", host, bridge])
    }

    /// The modified EUI-64 of it: an interface identifier of IPv6 (RFC 4291, appendix A).
    pub fn interface_id(self) -> u64 {
        let Mac([a, b, c, d, e, f]) = self;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The Ethernet address whose identifier an address has. `None` if it is no modified EUI-64.
    pub fn of_interface(address: Ipv6Addr) -> Option<Mac> {
        let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else { return None };
        Some(Mac([a ^ 2, b, c, d, e, f]))
    }

    /// The link-local address with that identifier (RFC 4291, 2.5.6).
    pub fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(self.interface_id()))
    }

    /// Whether a guest can have it: it is unicast and not zero.
    pub fn is_usable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

/// Hashes the parts with their lengths, so that different lists never have the same input.
fn derived(parts: &[&str]) -> Mac {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    Mac([2, digest[0], digest[1], digest[2], digest[3], digest[4]])
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (place, byte) in text.chunks_mut(3).zip(self.0) {
            place[0] = DIGITS[usize::from(byte >> 4)];
            place[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).expect("digits and colons"))
    }
}

impl FromStr for Mac {
    type Err = String;

    /// Reads six pairs of hexadecimal digits, separated by colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not of the form aa:bb:cc:dd:ee:ff");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Mac(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_addresses_are_stable_and_distinct() {
        let one = Mac::of_guest("default", "web-1");
        assert_eq!(one, Mac::of_guest("default", "web-1"));
        assert_ne!(one, Mac::of_guest("default", "web1"));
        assert_ne!(one, Mac::of_guest("defaultw", "eb-1"));
        assert_ne!(one, Mac::of_bridge("default", "web-1"));
        assert!(one.is_usable() && one.0[0] == 2);
    }

    #[test]
    fn the_identifier_is_a_modified_eui_64() {
        // ip link add d0 address 34:56:78:9a:bc:de type dummy; RFC 4291, appendix A.
        let mac = Mac([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        assert_eq!(mac.link_local().to_string(), "fe80::3656:78ff:fe9a:bcde");
        assert_eq!(Mac::of_interface(mac.link_local()), Some(mac));
        assert_eq!(Mac::of_interface("fe80::1".parse().unwrap()), None);
        assert_eq!(Mac([2, 0, 0, 0, 0, 1]).link_local().to_string(), "fe80::ff:fe00:1");
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let mac: Mac = "02:ab:CD:00:10:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:cd:00:10:ff");
        for text in
            ["", "02:ab:cd:00:10", "02:ab:cd:00:10:ff:00", "2:ab:cd:00:10:ff", "+2:ab:cd:00:10:ff"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
