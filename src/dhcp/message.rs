//! The DHCP message: BOOTP's fixed part and DHCP's options (RFC 2131, RFC 2132).
//!
//! Reading borrows from the frame and allocates nothing. All options are checked when a message is
//! read, so later lookups cannot fail. Writing fills at most [`BYTES_MAX`], which every client must
//! accept. An option that does not fit is left out.

use std::net::Ipv4Addr;

use crate::model::mac::Mac;
use crate::packet::Malformed;

/// The longest message that is written: the 576 bytes that every client must accept (RFC 2131, 2),
/// less the headers of IPv4 and UDP.
pub const BYTES_MAX: usize = 548;
/// The shortest message that is written: the length of BOOTP (RFC 951), which some clients require.
pub const BYTES_MIN: usize = 300;

/// Bytes before the options: the fixed part and the magic cookie.
const HEAD: usize = 240;
/// The two fields that options may continue in, and the cookie.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// The next server (RFC 2131, 2).
const SIADDR: std::ops::Range<usize> = 20..24;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// "10Mb Ethernet" among the hardware types of RFC 1700.
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;

/// Codes of options (RFC 2132; [`option::CLIENT_ID`] in replies: RFC 6842).
pub mod option {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const REQUESTED_IP: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const BOOT_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// The domain search list (RFC 3397).
    pub const SEARCH: u8 = 119;
    pub const END: u8 = 255;
}

/// What a message is for (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

/// The fixed part, without the fields that DHCP does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whether it goes from server to client.
    pub reply: bool,
    /// The client's number for the exchange.
    pub xid: u32,
    /// Whether the client needs the answer by broadcast.
    pub broadcast: bool,
    /// The address at which the client can be reached; otherwise 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// The address that the client is given.
    pub yiaddr: Ipv4Addr,
    /// The relay of the message; 0.0.0.0 if it had none.
    pub giaddr: Ipv4Addr,
    /// The client's Ethernet address.
    pub chaddr: Mac,
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its fixed part.
    pub head: Head,
    /// What it is for.
    pub kind: Kind,
    /// The fields with its options, in the order of reading.
    fields: [&'a [u8]; 3],
}

impl<'a> Message<'a> {
    /// Reads a message. BOOTP without DHCP is [`Malformed::NotOurs`].
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let (fixed, options) = bytes.split_at_checked(HEAD).ok_or(Malformed::Cut)?;
        // Operation, hardware type and length of the hardware address.
        let reply = match fixed[..3] {
            [1, ETHERNET, 6] => false,
            [2, ETHERNET, 6] => true,
            _ => return Err(Malformed::NotOurs),
        };
        if fixed[236..] != COOKIE {
            return Err(Malformed::NotOurs);
        }
        let four = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        let head = Head {
            reply,
            xid: u32::from_be_bytes(four(4)),
            broadcast: u16::from_be_bytes([fixed[10], fixed[11]]) & BROADCAST != 0,
            ciaddr: four(12).into(),
            yiaddr: four(16).into(),
            giaddr: four(24).into(),
            chaddr: Mac([fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]]),
        };
        let mut fields = [options, &[], &[]];
        let overload = find(&fields, option::OVERLOAD)?.and_then(|value| value.first());
        match overload {
            Some(1) => fields[1] = &fixed[FILE],
            Some(2) => fields[1] = &fixed[SNAME],
            Some(3) => (fields[1], fields[2]) = (&fixed[FILE], &fixed[SNAME]),
            Some(_) | None => {}
        }
        let kind = find(&fields, option::KIND)?.ok_or(Malformed::NotOurs)?;
        let kind = Kind::of(kind).ok_or(Malformed::NotOurs)?;
        Options::of(&fields).try_for_each(|option| option.map(drop))?;
        Ok(Message { head, kind, fields })
    }

    /// The value of an option. If it is there twice, the first.
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        find(&self.fields, code).ok().flatten()
    }

    /// The value of an option that is an address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.option(code).and_then(|value| <[u8; 4]>::try_from(value).ok()).map(Ipv4Addr::from)
    }

    /// The value of an option that is a number of 32 bits.
    pub fn number(&self, code: u8) -> Option<u32> {
        self.option(code).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes)
    }
}

impl Kind {
    fn of(value: &[u8]) -> Option<Kind> {
        Some(match value {
            [1] => Kind::Discover,
            [2] => Kind::Offer,
            [3] => Kind::Request,
            [4] => Kind::Decline,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            [7] => Kind::Release,
            [8] => Kind::Inform,
            _ => return None,
        })
    }

    fn number(self) -> u8 {
        match self {
            Kind::Discover => 1,
            Kind::Offer => 2,
            Kind::Request => 3,
            Kind::Decline => 4,
            Kind::Ack => 5,
            Kind::Nak => 6,
            Kind::Release => 7,
            Kind::Inform => 8,
        }
    }
}

/// Iterates over options. It ends after an error.
struct Options<'a> {
    fields: [&'a [u8]; 3],
    at: usize,
}

impl<'a> Options<'a> {
    fn of(fields: &[&'a [u8]; 3]) -> Options<'a> {
        Options { fields: *fields, at: 0 }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u8, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let field = self.fields.get_mut(self.at)?;
            let (code, rest) = match field.split_first() {
                Some((&option::PAD, rest)) => {
                    *field = rest;
                    continue;
                }
                // A field may also end without an end option.
                Some((&option::END, _)) | None => {
                    self.at += 1;
                    continue;
                }
                Some((code, rest)) => (*code, rest),
            };
            let value = rest
                .split_first()
                .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
            let Some((value, rest)) = value else {
                self.at = self.fields.len();
                return Some(Err(Malformed::Cut));
            };
            *field = rest;
            return Some(Ok((code, value)));
        }
    }
}

fn find<'a>(fields: &[&'a [u8]; 3], code: u8) -> Result<Option<&'a [u8]>, Malformed> {
    for option in Options::of(fields) {
        match option? {
            (found, value) if found == code => return Ok(Some(value)),
            _ => {}
        }
    }
    Ok(None)
}

/// A message that is being written.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a message.
    pub fn new(head: &Head, kind: Kind) -> Writer {
        let mut bytes = vec![0; HEAD];
        bytes[..3].copy_from_slice(&[if head.reply { 2 } else { 1 }, ETHERNET, 6]);
        bytes[4..8].copy_from_slice(&head.xid.to_be_bytes());
        if head.broadcast {
            bytes[10..12].copy_from_slice(&BROADCAST.to_be_bytes());
        }
        for (at, address) in [(12, head.ciaddr), (16, head.yiaddr), (24, head.giaddr)] {
            bytes[at..at + 4].copy_from_slice(&address.octets());
        }
        bytes[28..34].copy_from_slice(&head.chaddr.0);
        bytes[236..].copy_from_slice(&COOKIE);
        let mut writer = Writer { bytes };
        writer.option(option::KIND, &[kind.number()]);
        writer
    }

    /// Adds an option. It is left out if it does not fit or is too long for its length field.
    pub fn option(&mut self, code: u8, value: &[u8]) -> &mut Writer {
        let fits = self.bytes.len() + 2 + value.len() < BYTES_MAX;
        if let Some(length) = u8::try_from(value.len()).ok().filter(|_| fits) {
            self.bytes.extend([code, length]);
            self.bytes.extend(value);
        }
        self
    }

    /// Adds an option that is an address.
    pub fn address(&mut self, code: u8, address: Ipv4Addr) -> &mut Writer {
        self.option(code, &address.octets())
    }

    /// Adds an option that is a number of 32 bits.
    pub fn number(&mut self, code: u8, number: u32) -> &mut Writer {
        self.option(code, &number.to_be_bytes())
    }

    /// Names the server and the file to boot from, in BOOTP's fields and as options: clients read
    /// the one or the other.
    pub fn boot(&mut self, server: Option<Ipv4Addr>, file: Option<&str>) -> &mut Writer {
        if let Some(server) = server {
            self.bytes[SIADDR].copy_from_slice(&server.octets());
            self.option(option::BOOT_SERVER, server.to_string().as_bytes());
        }
        // The field ends with a zero.
        if let Some(file) = file.filter(|file| file.len() < FILE.len()) {
            self.bytes[FILE][..file.len()].copy_from_slice(file.as_bytes());
            self.option(option::BOOT_FILE, file.as_bytes());
        }
        self
    }

    /// Ends the message.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(option::END);
        let length = self.bytes.len().max(BYTES_MIN);
        self.bytes.resize(length, option::PAD);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            reply: false,
            xid: 0x1234_5678,
            broadcast: true,
            ciaddr: Ipv4Addr::new(10, 0, 0, 9),
            yiaddr: Ipv4Addr::new(10, 0, 0, 8),
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr: Mac([2, 1, 2, 3, 4, 5]),
        }
    }

    fn written(options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(&head(), Kind::Request);
        for (code, value) in options {
            writer.option(*code, value);
        }
        writer.finish()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes =
            written(&[(option::REQUESTED_IP, &[10, 0, 0, 7]), (option::LEASE_TIME, &[0, 0, 1, 0])]);
        let message = Message::read(&bytes).unwrap();
        assert_eq!((message.head, message.kind), (head(), Kind::Request));
        assert_eq!(message.address(option::REQUESTED_IP), Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(message.number(option::LEASE_TIME), Some(256));
        assert_eq!(message.option(option::CLIENT_ID), None);
        assert_eq!(message.address(option::KIND), None, "it is not four bytes long");
        assert_eq!(bytes.len(), BYTES_MIN);
    }

    #[test]
    fn a_message_that_is_cut_is_an_error_or_has_lost_only_padding() {
        let bytes = written(&[(option::CLIENT_ID, &[7; 200])]);
        let whole = Message::read(&bytes).unwrap();
        for length in 0..bytes.len() {
            match Message::read(&bytes[..length]) {
                Err(_) => {}
                Ok(message) => assert_eq!(
                    (message.kind, message.option(option::CLIENT_ID).is_none()),
                    (whole.kind, length == HEAD + 3),
                    "{length}"
                ),
            }
        }
    }

    #[test]
    fn options_may_go_on_in_file_and_sname() {
        let mut bytes = written(&[(option::OVERLOAD, &[3])]);
        bytes[FILE.start..FILE.start + 6].copy_from_slice(&[50, 4, 10, 0, 0, 6]);
        bytes[SNAME.start..SNAME.start + 7].copy_from_slice(&[0, 54, 4, 10, 0, 0, 1]);
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.address(option::REQUESTED_IP), Some(Ipv4Addr::new(10, 0, 0, 6)));
        assert_eq!(message.address(option::SERVER_ID), Some(Ipv4Addr::new(10, 0, 0, 1)));
        bytes[SNAME.end - 1] = 0;
        bytes[SNAME.end - 2] = 12;
        bytes[SNAME.start..SNAME.end - 2].fill(0);
        assert!(Message::read(&bytes).is_ok(), "an empty option");
        bytes[SNAME.end - 1] = 1;
        assert_eq!(Message::read(&bytes), Err(Malformed::Cut));
    }

    #[test]
    fn what_is_not_dhcp_over_ethernet_is_not_ours() {
        let good = written(&[]);
        // Operation, hardware type and length, cookie, and option 53 with its value.
        for (at, byte) in [(0, 3), (1, 6), (2, 16), (236, 0), (HEAD, 12), (HEAD + 2, 9)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Message::read(&bytes), Err(Malformed::NotOurs), "{at}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let bytes = written(&[(61, &[1; 255]), (12, &[2; 63]), (99, &[3; 4]), (98, &[4; 256])]);
        assert!(bytes.len() <= BYTES_MAX);
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.option(61).map(<[u8]>::len), Some(255));
        assert!(message.option(12).is_none() && message.option(98).is_none());
        assert_eq!(message.option(99), Some(&[3; 4][..]));
    }
}
