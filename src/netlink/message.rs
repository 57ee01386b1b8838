//! Messages in a datagram: `struct nlmsghdr` (linux/netlink.h) and, for the answers, `struct
//! nlmsgerr` with the kernel's own words (NETLINK_EXT_ACK).

use neli::consts::nl::{NlmF, Nlmsg, NlmsgerrAttr};

use super::Error;
use super::attr::{Attrs, align};

/// Bytes of a message's header.
pub const HEADER: usize = 16;
/// Where the flags are in it.
pub const FLAGS_OFFSET: usize = 6;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = NlmF::REQUEST.bits();
/// `NLM_F_ACK`.
pub const ACK: u16 = NlmF::ACK.bits();
/// `NLM_F_ECHO`.
pub const ECHO: u16 = NlmF::ECHO.bits();
/// `NLM_F_DUMP_INTR`: objects changed during the dump.
pub const DUMP_INTR: u16 = NlmF::DUMP_INTR.bits();
/// `NLM_F_DUMP`.
pub const DUMP: u16 = NlmF::DUMP.bits();
/// `NLM_F_REPLACE`: put it in the place of what is there.
pub const REPLACE: u16 = NlmF::REPLACE.bits();
/// `NLM_F_EXCL`.
pub const EXCL: u16 = NlmF::EXCL.bits();
/// `NLM_F_CREATE`.
pub const CREATE: u16 = NlmF::CREATE.bits();
/// `NLM_F_APPEND`.
pub const APPEND: u16 = NlmF::APPEND.bits();
/// `NLM_F_CAPPED`: the error does not echo the request.
pub(super) const CAPPED: u16 = NlmF::CAPPED.bits();
/// `NLM_F_ACK_TLVS`: attributes follow the error.
pub(super) const ACK_TLVS: u16 = NlmF::ACK_TLVS.bits();

/// One message, borrowed from its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// The port it is addressed to.
    pub port: u32,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

/// Iterates over the messages in a datagram. After an error it ends.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }

    fn step(&mut self) -> Result<Message<'a>, Error> {
        let length = u32_at(self.rest, 0)? as usize;
        if length < HEADER {
            return Err(Error::TooShort);
        }
        let payload = self.rest.get(HEADER..length).ok_or(Error::Truncated)?;
        let message = Message {
            kind: u16_at(self.rest, 4)?,
            flags: u16_at(self.rest, 6)?,
            sequence: u32_at(self.rest, 8)?,
            port: u32_at(self.rest, 12)?,
            payload,
        };
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Ok(message)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Error>;

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

/// What `NLMSG_ERROR` and `NLMSG_DONE` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// The errno, not negative; 0 is an acknowledgement.
    pub errno: i32,
    /// The kernel's own words, if it sent any.
    pub words: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Reads an acknowledgement or error. The kernel's errno is never positive. If its words are
    /// damaged, the errno still counts.
    pub fn answer(&self) -> Result<Acknowledgement<'a>, Error> {
        let code = i32::from_ne_bytes(array_at(self.payload, 0)?);
        let errno = code.checked_neg().filter(|errno| *errno >= 0).ok_or(Error::Unknown)?;
        Ok(Acknowledgement { errno, words: self.words() })
    }

    /// The kernel's own words. The request is echoed before them unless `NLM_F_CAPPED` says that
    /// it is not.
    fn words(&self) -> Option<&'a str> {
        if self.flags & ACK_TLVS == 0 {
            return None;
        }
        let echoed = match Nlmsg::from(self.kind) {
            Nlmsg::Done => 0,
            _ if self.flags & CAPPED != 0 => HEADER,
            _ => usize::try_from(u32_at(self.payload, 4).ok()?).ok()?.max(HEADER),
        };
        let rest = self.payload.get(4..)?;
        let attrs = rest.get(..echoed).and_then(|_| rest.get(align(echoed)..))?;
        let mut attrs = Attrs::new(attrs).flatten();
        let words = attrs.find(|attr| attr.is(NlmsgerrAttr::Msg))?;
        words.text().ok()
    }
}

/// `N` bytes at `offset`.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Error> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Error::Truncated)
}

/// A 16-bit integer in host order at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, Error> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

/// A 32-bit integer in host order at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Error> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with this length in its header, whatever its payload is.
    fn raw(length: u32, kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([7_u32.to_ne_bytes(), 9_u32.to_ne_bytes()].concat());
        bytes.extend(payload);
        bytes
    }

    fn answer(kind: Nlmsg, flags: u16, payload: &[u8]) -> Result<(i32, Option<String>), Error> {
        let message = Message { kind: kind.into(), flags, sequence: 1, port: 0, payload };
        message.answer().map(|answer| (answer.errno, answer.words.map(str::to_owned)))
    }

    /// `NLMSGERR_ATTR_MSG` that says "no".
    const NO: [u8; 8] = [7, 0, 1, 0, b'n', b'o', 0, 0];

    #[test]
    fn walks_over_padding() {
        let bytes = [raw(17, 16, 2, &[5, 0, 0, 0]), raw(16, 3, 0, &[])].concat();
        let messages: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
        let first = Message { kind: 16, flags: 2, sequence: 7, port: 9, payload: &[5] };
        assert_eq!(messages[0], first);
        assert_eq!((messages[1].kind, messages[1].payload, messages.len()), (3, &[][..], 2));
    }

    #[test]
    fn what_does_not_fit_ends_the_walk() {
        for (bytes, error) in [
            (raw(16, 16, 0, &[])[..3].to_vec(), Error::Truncated),
            (raw(16, 16, 0, &[])[..15].to_vec(), Error::Truncated),
            (raw(21, 16, 0, &[0; 4]), Error::Truncated),
            (raw(u32::MAX, 16, 0, &[0; 4]), Error::Truncated),
            (raw(15, 16, 0, &[0; 4]), Error::TooShort),
            (raw(0, 16, 0, &[0; 4]), Error::TooShort),
        ] {
            let found: Vec<_> = Messages::new(&bytes).collect();
            assert_eq!(found, [Err(error)], "{bytes:?}");
        }
    }

    #[test]
    fn finds_the_words_after_the_echoed_request() {
        let errno = (-17_i32).to_ne_bytes();
        let no = |found| assert_eq!(found, Ok((17, Some("no".to_owned()))));
        let capped = [&errno[..], &raw(64, 16, 0, &[]), &NO].concat();
        no(answer(Nlmsg::Error, ACK_TLVS | CAPPED, &capped));
        let echoed = [&errno[..], &raw(18, 16, 0, &[1, 2, 0, 0]), &NO].concat();
        no(answer(Nlmsg::Error, ACK_TLVS, &echoed));
        no(answer(Nlmsg::Done, ACK_TLVS, &[&errno[..], &NO].concat()));
        assert_eq!(answer(Nlmsg::Error, CAPPED, &capped), Ok((17, None)));
    }

    #[test]
    fn damaged_words_do_not_hide_the_errno() {
        let errno = (-17_i32).to_ne_bytes();
        let header = raw(u32::MAX, 16, 0, &[]);
        for rest in [
            &header[..],
            &header[..8],
            &[],
            &[&raw(16, 16, 0, &[])[..], &[7, 0, 1, 0, 0xff, 0xff, 0, 0]].concat(),
            &[&raw(16, 16, 0, &[])[..], &[99, 0, 1, 0]].concat(),
        ] {
            let payload = [&errno[..], rest].concat();
            assert_eq!(answer(Nlmsg::Error, ACK_TLVS, &payload), Ok((17, None)), "{rest:?}");
        }
    }

    #[test]
    fn what_is_not_an_errno_is_not_an_acknowledgement() {
        assert_eq!(answer(Nlmsg::Error, 0, &i32::MIN.to_ne_bytes()), Err(Error::Unknown));
        assert_eq!(answer(Nlmsg::Error, 0, &1_i32.to_ne_bytes()), Err(Error::Unknown));
        assert_eq!(answer(Nlmsg::Error, 0, &[0; 3]), Err(Error::Truncated));
        assert_eq!(answer(Nlmsg::Error, 0, &[0; 4]), Ok((0, None)));
    }
}
