//! The fields of messages, and their numbers (RFC 1035, 4.1; IANA, Domain Name System parameters).

use super::{DomainName, Malformed};

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Bytes of an answer by UDP that everybody takes (RFC 1035, 4.2.1).
pub const UDP_MAX: usize = 512;
/// Bytes of an answer by UDP that pass most paths in one piece (dnsflagday.net, 2020).
pub const EDNS_MAX: usize = 1232;

/// Flags of a header, in its third and fourth byte.
pub const RESPONSE: u16 = 0x8000;
pub const OPCODE: u16 = 0x7800;
pub const AUTHORITATIVE: u16 = 0x0400;
pub const TRUNCATED: u16 = 0x0200;
pub const RECURSION_DESIRED: u16 = 0x0100;
pub const RECURSION_AVAILABLE: u16 = 0x0080;
pub const AUTHENTIC_DATA: u16 = 0x0020;
pub const CHECKING_DISABLED: u16 = 0x0010;
pub const CODE: u16 = 0x000f;

/// Types of records.
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const OPT: u16 = 41;
/// A question for a part of a zone or a whole one (RFC 1995, RFC 5936).
pub const IXFR: u16 = 251;
pub const AXFR: u16 = 252;
pub const ANY: u16 = 255;
/// The class of the internet.
pub const IN: u16 = 1;

/// The number at an offset.
pub(super) fn number(message: &[u8], at: usize) -> Result<u16, Malformed> {
    match message.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(Malformed::Cut),
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number by which an answer is known.
    pub id: u16,
    /// Flags, operation and code.
    pub flags: u16,
    /// Questions, and records of the other three sections.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the beginning of a message.
    pub fn read(message: &[u8]) -> Result<Header, Malformed> {
        let field = |index: usize| number(message, index * 2);
        let counts = [field(2)?, field(3)?, field(4)?, field(5)?];
        Ok(Header { id: field(0)?, flags: field(1)?, counts })
    }

    /// Begins a message.
    pub fn write(&self) -> Vec<u8> {
        let [a, b, c, d] = self.counts;
        [self.id, self.flags, a, b, c, d].iter().flat_map(|field| field.to_be_bytes()).collect()
    }
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name that is asked about.
    pub name: DomainName,
    /// The type of the records.
    pub kind: u16,
    /// Their class.
    pub class: u16,
}

impl Question {
    /// Reads the question at an offset, and gives the offset after it.
    pub fn read(message: &[u8], at: usize) -> Result<(Question, usize), Malformed> {
        let (name, at) = DomainName::read(message, at)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        Ok((Question { name, kind, class }, at + 4))
    }

    /// Its bytes, without compression.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.name.bytes().to_vec();
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        bytes
    }
}

/// A record, without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceRecord<'a> {
    /// Whose it is.
    pub owner: DomainName,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// The four bytes that are the time to live, but in OPT.
    pub ttl: [u8; 4],
    /// What it says. Names in it may point to what stands before it in the message.
    pub data: &'a [u8],
}

impl<'a> ResourceRecord<'a> {
    /// Reads the record at an offset, and gives the offset after it.
    pub fn read(message: &'a [u8], at: usize) -> Result<(ResourceRecord<'a>, usize), Malformed> {
        let (owner, at) = DomainName::read(message, at)?;
        let (kind, class) = (number(message, at)?, number(message, at + 2)?);
        let ttl = message.get(at + 4..at + 8).and_then(|ttl| ttl.try_into().ok());
        let ttl = ttl.ok_or(Malformed::Cut)?;
        let (begin, length) = (at + 10, usize::from(number(message, at + 8)?));
        let data = message.get(begin..begin + length).ok_or(Malformed::Cut)?;
        Ok((ResourceRecord { owner, kind, class, ttl, data }, begin + length))
    }
}

/// What a message says of itself beside its header (RFC 6891, 6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest answer by UDP that the sender takes, in bytes.
    pub size: u16,
    /// The high bits of the code, the version, and the flags.
    pub flags: [u8; 4],
    /// Options, as they came.
    pub options: Vec<u8>,
}

impl Edns {
    /// Reads so many additional records at an offset, of which one at most is an OPT record.
    pub fn among(message: &[u8], mut at: usize, count: u16) -> Result<Option<Edns>, Malformed> {
        let mut edns = None;
        for _ in 0..count {
            let (record, next) = ResourceRecord::read(message, at)?;
            if record.kind == OPT && edns.replace(Edns::of(&record)).is_some() {
                return Err(Malformed::Sections);
            }
            at = next;
        }
        Ok(edns)
    }

    /// Takes an OPT record.
    fn of(record: &ResourceRecord<'_>) -> Edns {
        Edns { size: record.class, flags: record.ttl, options: record.data.into() }
    }

    /// The version, which is 0.
    pub fn version(&self) -> u8 {
        self.flags[1]
    }

    /// The record.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(OPT.to_be_bytes());
        bytes.extend(self.size.to_be_bytes());
        bytes.extend(self.flags);
        bytes.extend((self.options.len() as u16).to_be_bytes());
        bytes.extend(&self.options);
        bytes
    }
}
