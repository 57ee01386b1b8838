//! Domain names (RFC 1035, 3.1 and 4.1.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Malformed;

/// The longest name in bytes, with the lengths of its labels and the root (RFC 1035, 2.3.4).
pub const NAME_MAX: usize = 255;
/// The longest label in bytes.
pub const LABEL_MAX: usize = 63;

/// The two high bits of a length that say that the rest of the name stands elsewhere.
const POINTER: u8 = 0xc0;
/// The longest text of an address in `ip6.arpa`: 32 labels.
const NIBBLES: usize = 32;

/// A domain name: labels, each after its length, and the root. Upper and lower case are the same
/// in comparisons, and kept.
#[derive(Clone, Eq)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Reads the name at an offset of a message, and gives the offset after it. A pointer leads to
    /// a place before the labels that it ends. So a name is read in bounded time.
    pub fn read(message: &[u8], at: usize) -> Result<(Name, usize), Malformed> {
        let mut name = Vec::new();
        let (mut begin, mut next, mut end) = (at, at, None);
        loop {
            let length = *message.get(next).ok_or(Malformed::Cut)?;
            match length & POINTER {
                0 => {
                    let after = next + 1 + usize::from(length);
                    name.extend(message.get(next..after).ok_or(Malformed::Cut)?);
                    if name.len() > NAME_MAX {
                        return Err(Malformed::Name);
                    }
                    if length == 0 {
                        return Ok((Name(name.into()), end.unwrap_or(after)));
                    }
                    next = after;
                }
                POINTER => {
                    let low = *message.get(next + 1).ok_or(Malformed::Cut)?;
                    let target = usize::from(u16::from_be_bytes([length & !POINTER, low]));
                    if target >= begin {
                        return Err(Malformed::Name);
                    }
                    end = end.or(Some(next + 2));
                    (begin, next) = (target, target);
                }
                _ => return Err(Malformed::Name),
            }
        }
    }

    /// The name with these labels; `None` if one of them is empty or too long, or all are too long
    /// together.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Name> {
        let mut name = Vec::new();
        for label in labels {
            if label.is_empty() || label.len() > LABEL_MAX {
                return None;
            }
            name.push(label.len() as u8);
            name.extend(label);
        }
        name.push(0);
        (name.len() <= NAME_MAX).then(|| Name(name.into()))
    }

    /// The name that a text with dots between its labels stands for.
    pub fn of_text(text: &str) -> Option<Name> {
        Name::of_labels(text.split('.').map(str::as_bytes))
    }

    /// The bytes on the wire, without compression.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, the root not among them.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at(usize::from(*length));
            rest = behind;
            (*length > 0).then_some(label)
        })
    }

    /// The labels before those of a domain that it ends with. None are left if it is the domain.
    pub fn below(&self, domain: &Name) -> Option<Vec<&[u8]>> {
        let labels: Vec<&[u8]> = self.labels().collect();
        let before = labels.len().checked_sub(domain.labels().count())?;
        let (own, end) = labels.split_at(before);
        let same = end.iter().zip(domain.labels()).all(|(a, b)| a.eq_ignore_ascii_case(b));
        same.then(|| own.to_vec())
    }

    /// The address whose name is asked for by this name below `in-addr.arpa` (RFC 1035, 3.5) or
    /// `ip6.arpa` (RFC 3596, 2.5).
    pub fn address(&self) -> Option<IpAddr> {
        let labels: Vec<&[u8]> = self.labels().collect();
        let (arpa, rest) = labels.split_last()?;
        let (family, own) = rest.split_last()?;
        if !arpa.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        if family.eq_ignore_ascii_case(b"in-addr") && own.len() == 4 {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().zip(own.iter().rev()) {
                *octet = std::str::from_utf8(label).ok()?.parse().ok()?;
            }
            return Some(Ipv4Addr::from(octets).into());
        }
        if family.eq_ignore_ascii_case(b"ip6") && own.len() == NIBBLES {
            let mut bits = 0;
            for label in own.iter().rev() {
                let [digit] = label else { return None };
                bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            return Some(Ipv6Addr::from_bits(bits).into());
        }
        None
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Name {
    /// Bytes that are not printable are escaped as in RFC 1035, 5.1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.labels().enumerate() {
            f.write_str(if index > 0 { "." } else { "" })?;
            for byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                    b if b.is_ascii_graphic() => write!(f, "{}", char::from(*b))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_and_leads_back_or_is_none() {
        // F.ISI.ARPA, FOO.F.ISI.ARPA and ARPA (RFC 1035, 4.1.4), 20 bytes later than here.
        let message = b"\x01F\x03ISI\x04ARPA\0\x03FOO\xc0\0\xc0\x06";
        let read = |at| Name::read(message, at).map(|(name, end)| (name.to_string(), end));
        assert_eq!(read(0), Ok(("F.ISI.ARPA".into(), 12)));
        assert_eq!(read(12), Ok(("FOO.F.ISI.ARPA".into(), 18)));
        assert_eq!(read(18), Ok(("ARPA".into(), 20)));
        assert_eq!(read(11), Ok((String::new(), 12)), "the root");
        for (bytes, at, wrong) in [
            (&b""[..], 0, Malformed::Cut),
            (b"\x03ab", 0, Malformed::Cut),
            (b"\x01a", 0, Malformed::Cut),
            (b"\xc0", 0, Malformed::Cut),
            (b"\xc0\x00", 0, Malformed::Name),
            (b"\x01a\xc0\x00", 0, Malformed::Name),
            (b"\x01a\xc0\x04\xc0\x00", 0, Malformed::Name),
            (b"\x41a", 0, Malformed::Name),
            (b"\x80a", 0, Malformed::Name),
        ] {
            assert_eq!(Name::read(bytes, at).unwrap_err(), wrong, "{bytes:?}");
        }
        // The same label again and again: each pointer leads back, and the name grows too long.
        let mut long = vec![63];
        long.extend([b'x'; 63]);
        long.push(0);
        for _ in 0..4 {
            let before = long.len() - if long.len() == 65 { 65 } else { 66 };
            long.push(63);
            long.extend([b'y'; 63]);
            long.extend((0xc000 | before as u16).to_be_bytes());
        }
        let at = long.len() - 66;
        assert_eq!(Name::read(&long, at).unwrap_err(), Malformed::Name);
    }

    #[test]
    fn names_are_compared_without_case_and_cut_at_their_domain() {
        let name = |text| Name::of_text(text).unwrap();
        assert_eq!(name("Web.VOLNET"), name("web.volnet"));
        assert_ne!(name("web.volnet"), name("web.volnet2"));
        let below = |text, domain| name(text).below(&name(domain)).map(|labels| labels.len());
        assert_eq!(below("a.b.Volnet", "volnet"), Some(2));
        assert_eq!(below("volnet", "volnet"), Some(0));
        assert_eq!(below("xvolnet", "volnet"), None);
        assert_eq!(below("volnet", "lan.volnet"), None);
        assert_eq!(below("a.lan.volnet", "lan.volnet"), Some(1));
        for text in ["", ".", "a..b", "a.", &"x".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(Name::of_text(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_read_of_its_name() {
        let address = |text: &str| Name::of_text(text).unwrap().address();
        let v4 = "2.127.168.192.IN-addr.arpa";
        assert_eq!(address(v4), Some("192.168.127.2".parse().unwrap()));
        let v6 = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(address(v6), Some("2001:db8::567:89ab".parse().unwrap()));
        for text in
            ["127.168.192.in-addr.arpa", "256.0.0.1.in-addr.arpa", "x.0.0.1.in-addr.arpa", "arpa"]
        {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
