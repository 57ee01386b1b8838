//! Domain names (RFC 1035, 3.1 and 4.1.4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Malformed;
use super::wire::HEADER;

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
pub struct DomainName(Box<[u8]>);

impl DomainName {
    /// Reads the name at an offset of a message, and gives the offset after it. A pointer leads to
    /// a place before the labels that it ends, so a name is read in bounded time. It does not lead
    /// into the header: that of a message that is passed on is another one.
    pub fn read(message: &[u8], at: usize) -> Result<(DomainName, usize), Malformed> {
        let mut name = Vec::new();
        let (mut begin, mut next, mut end) = (at, at, None);
        // A name that a pointer leads to ends before the pointer. Else it could reach beyond its
        // own record, into a part that is not passed on.
        let mut readable = message;
        loop {
            let length = *readable.get(next).ok_or(Malformed::Cut)?;
            match length & POINTER {
                0 => {
                    let after = next + 1 + usize::from(length);
                    name.extend(readable.get(next..after).ok_or(Malformed::Cut)?);
                    if name.len() > NAME_MAX {
                        return Err(Malformed::Name);
                    }
                    if length == 0 {
                        return Ok((DomainName(name.into()), end.unwrap_or(after)));
                    }
                    next = after;
                }
                POINTER => {
                    let low = *readable.get(next + 1).ok_or(Malformed::Cut)?;
                    let target = usize::from(u16::from_be_bytes([length & !POINTER, low]));
                    if !(HEADER..begin).contains(&target) {
                        return Err(Malformed::Name);
                    }
                    end = end.or(Some(next + 2));
                    readable = &readable[..next];
                    (begin, next) = (target, target);
                }
                _ => return Err(Malformed::Name),
            }
        }
    }

    /// The name with these labels; `None` if one of them is empty or too long, or all are too long
    /// together.
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<DomainName> {
        let mut name = Vec::new();
        for label in labels {
            if label.is_empty() || label.len() > LABEL_MAX {
                return None;
            }
            name.push(label.len() as u8);
            name.extend(label);
        }
        name.push(0);
        (name.len() <= NAME_MAX).then(|| DomainName(name.into()))
    }

    /// The name that a text with dots between its labels stands for.
    pub fn of_text(text: &str) -> Option<DomainName> {
        DomainName::of_labels(text.split('.').map(str::as_bytes))
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
    pub fn below(&self, domain: &DomainName) -> Option<Vec<&[u8]>> {
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

impl PartialEq for DomainName {
    fn eq(&self, other: &DomainName) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for DomainName {
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

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_and_leads_back_or_is_none() {
        let after_header = |bytes: &[u8]| [&[0; HEADER], bytes].concat();
        // F.ISI.ARPA, FOO.F.ISI.ARPA and ARPA (RFC 1035, 4.1.4), 8 bytes earlier than there.
        let message = after_header(b"\x01F\x03ISI\x04ARPA\0\x03FOO\xc0\x0c\xc0\x12");
        let read = |at| DomainName::read(&message, at).map(|(name, end)| (name.to_string(), end));
        assert_eq!(read(12), Ok(("F.ISI.ARPA".into(), 24)));
        assert_eq!(read(24), Ok(("FOO.F.ISI.ARPA".into(), 30)));
        assert_eq!(read(30), Ok(("ARPA".into(), 32)));
        assert_eq!(read(23), Ok((String::new(), 24)), "the root");
        for (bytes, wrong) in [
            (&b""[..], Malformed::Cut),
            (b"\x03ab", Malformed::Cut),
            (b"\x01a", Malformed::Cut),
            (b"\xc0", Malformed::Cut),
            (b"\xc0\x00", Malformed::Name),
            (b"\xc0\x0b", Malformed::Name),
            (b"\xc0\x0c", Malformed::Name),
            (b"\x01a\xc0\x0c", Malformed::Name),
            (b"\x01a\xc0\x10\xc0\x0c", Malformed::Name),
            (b"\x41a", Malformed::Name),
            (b"\x80a", Malformed::Name),
        ] {
            let message = after_header(bytes);
            assert_eq!(DomainName::read(&message, HEADER).unwrap_err(), wrong, "{bytes:?}");
        }
        // The same label again and again: each pointer leads back, and the name grows too long.
        let mut long = after_header(&[]);
        for n in 0..5 {
            let before = long.len().saturating_sub(66) as u16;
            long.push(63);
            long.extend([b'x'; 63]);
            long.extend(if n == 0 { 0_u16 } else { 0xc000 | before }.to_be_bytes());
        }
        let last = long.len() - 66;
        assert_eq!(DomainName::read(&long, last).unwrap_err(), Malformed::Name);
        assert!(DomainName::read(&long, last - 2 * 66).is_ok());
    }

    #[test]
    fn names_are_compared_without_case_and_cut_at_their_domain() {
        let name = |text| DomainName::of_text(text).unwrap();
        assert_eq!(name("Web.VOLNET"), name("web.volnet"));
        assert_ne!(name("web.volnet"), name("web.volnet2"));
        let below = |text, domain| name(text).below(&name(domain)).map(|labels| labels.len());
        assert_eq!(below("a.b.Volnet", "volnet"), Some(2));
        assert_eq!(below("volnet", "volnet"), Some(0));
        assert_eq!(below("xvolnet", "volnet"), None);
        assert_eq!(below("volnet", "lan.volnet"), None);
        assert_eq!(below("a.lan.volnet", "lan.volnet"), Some(1));
        for text in ["", ".", "a..b", "a.", &"x".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(DomainName::of_text(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_read_of_its_name() {
        let address = |text: &str| DomainName::of_text(text).unwrap().address();
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
