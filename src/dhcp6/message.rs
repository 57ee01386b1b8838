//! The DHCPv6 message: its kind, the number of the exchange, and options (RFC 8415, 8 and 21).
//!
//! Reading borrows from the frame and allocates nothing. The lengths of all options are checked
//! when a message is read, also of those within others, so later lookups cannot fail.

use std::net::Ipv6Addr;

use crate::packet::Malformed;

/// Codes of options (RFC 8415, 21; RFC 3646).
pub mod option {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    /// An association: addresses that are leased, temporary ones, and prefixes.
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const ADDRESS: u16 = 5;
    pub const PREFERENCE: u16 = 7;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    pub const DNS: u16 = 23;
    pub const SEARCH: u16 = 24;
    pub const IA_PD: u16 = 25;
}

/// Bytes of kind and number.
const HEAD: usize = 4;
/// Bytes of an address with its two lifetimes.
const ADDRESS_MIN: usize = 24;

/// What a message is for (RFC 8415, 7.3). Relays and reconfiguration are not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        use Kind::{
            Advertise, Confirm, Decline, InformationRequest, Rebind, Release, Renew, Reply,
            Request, Solicit,
        };
        let all = [
            Solicit,
            Advertise,
            Request,
            Confirm,
            Renew,
            Rebind,
            Reply,
            Release,
            Decline,
            InformationRequest,
        ];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is for.
    pub kind: Kind,
    /// The client's number for the exchange.
    pub xid: [u8; 3],
    options: &'a [u8],
}

/// An association of a message: what a client wants addresses or prefixes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Association<'a> {
    /// [`option::IA_NA`], [`option::IA_TA`] or [`option::IA_PD`].
    pub code: u16,
    /// The client's number for it.
    pub id: [u8; 4],
    options: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (head, options) = bytes.split_at_checked(HEAD).ok_or(Malformed::Cut)?;
        let kind = Kind::of(head[0]).ok_or(Malformed::NotOurs)?;
        for option in Options(options) {
            let (code, value) = option?;
            let Some(fixed) = fixed_part(code) else { continue };
            let inner = value.get(fixed..).ok_or(Malformed::Cut)?;
            for option in Options(inner) {
                let (code, value) = option?;
                if code == option::ADDRESS && value.len() < ADDRESS_MIN {
                    return Err(Malformed::Cut);
                }
            }
        }
        Ok(Message { kind, xid: [head[1], head[2], head[3]], options })
    }

    /// The value of an option. If it is there twice, the first.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        find(self.options, code)
    }

    /// Its associations.
    pub fn associations(&self) -> impl Iterator<Item = Association<'a>> {
        options(self.options).filter_map(|(code, value)| {
            let inner = value.get(fixed_part(code)?..)?;
            Some(Association { code, id: *value.first_chunk()?, options: inner })
        })
    }
}

impl<'a> Association<'a> {
    /// The addresses in it, each with the seconds for which it is preferred and valid.
    pub fn addresses(self) -> impl Iterator<Item = (Ipv6Addr, [u32; 2])> {
        options(self.options).filter(|(code, _)| *code == option::ADDRESS).filter_map(
            |(_, value)| {
                let (address, rest) = value.split_first_chunk::<16>()?;
                let seconds = |at: usize| Some(u32::from_be_bytes(*rest.get(at..)?.first_chunk()?));
                Some(((*address).into(), [seconds(0)?, seconds(4)?]))
            },
        )
    }

    /// The value of an option in it. If it is there twice, the first.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        find(self.options, code)
    }
}

/// Bytes of an association before its options: its number, and for some two times.
fn fixed_part(code: u16) -> Option<usize> {
    match code {
        option::IA_NA | option::IA_PD => Some(12),
        option::IA_TA => Some(4),
        _ => None,
    }
}

/// Options that were checked.
fn options(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    Options(bytes).filter_map(Result::ok)
}

fn find(bytes: &[u8], code: u16) -> Option<&[u8]> {
    options(bytes).find(|(found, _)| *found == code).map(|(_, value)| value)
}

/// Iterates over options. It ends after an error.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        if rest.is_empty() {
            return None;
        }
        let Some((head, rest)) = rest.split_first_chunk::<4>() else {
            return Some(Err(Malformed::Cut));
        };
        let [a, b, c, d] = *head;
        let Some((value, rest)) = rest.split_at_checked(u16::from_be_bytes([c, d]).into()) else {
            return Some(Err(Malformed::Cut));
        };
        self.0 = rest;
        Some(Ok((u16::from_be_bytes([a, b]), value)))
    }
}

/// A message that is being written.
#[derive(Clone, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message.
    pub fn new(kind: Kind, xid: [u8; 3]) -> Writer {
        let [a, b, c] = xid;
        Writer(vec![kind as u8, a, b, c])
    }

    /// Adds an option, which is shorter than 64 KiB.
    pub fn option(&mut self, code: u16, value: &[u8]) -> &mut Writer {
        self.0.extend(code.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self
    }

    /// Adds an association with these times and these options.
    pub fn association(
        &mut self,
        code: u16,
        id: [u8; 4],
        times: [u32; 2],
        options: &[(u16, Vec<u8>)],
    ) -> &mut Writer {
        let mut value = Writer(id.to_vec());
        if code != option::IA_TA {
            value.0.extend(times.map(u32::to_be_bytes).as_flattened());
        }
        for (code, inner) in options {
            value.option(*code, inner);
        }
        self.option(code, &value.0)
    }

    /// The message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// The value of an option with an address, preferred and valid for these seconds.
pub fn address(ip: Ipv6Addr, seconds: [u32; 2]) -> (u16, Vec<u8>) {
    let value = [&ip.octets()[..], seconds.map(u32::to_be_bytes).as_flattened()].concat();
    (option::ADDRESS, value)
}
