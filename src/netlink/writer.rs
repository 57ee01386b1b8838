//! The buffer that requests are written into.
//!
//! A [`Writer`] is kept and reused, so that writing a request allocates nothing once it has grown
//! to its working size. After the first thing that could not be written it writes nothing more and
//! remembers why, so that callers write in one go and ask once, in [`Writer::finish`].

use std::net::IpAddr;

use super::Error;
use super::attr;
use super::message;

/// The most bytes of one send: tables with the elements of ten thousand VMs, be they limited. The
/// socket's send buffer must take it.
pub const SEND_MAX: usize = 4 * 1024 * 1024;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A bounded buffer of messages.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    fault: Option<Error>,
}

/// Where an open message or attribute begins; closing it writes its length there.
#[derive(Debug)]
#[must_use = "an open message or attribute has no length yet"]
pub struct Open(usize);

/// The source of sequence numbers. Each message of a request takes one.
#[derive(Clone, Debug, Default)]
pub struct Sequence(u32);

impl Sequence {
    /// Begins with this number.
    pub fn new(first: u32) -> Sequence {
        Sequence(first)
    }

    /// How many numbers were taken since it was as `earlier`.
    pub fn since(&self, earlier: &Sequence) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The next number.
    pub fn take(&mut self) -> u32 {
        let taken = self.0;
        self.0 = self.0.wrapping_add(1);
        taken
    }
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fault = None;
    }

    /// What was written, if all of it could be.
    pub fn finish(&self) -> Result<&[u8], Error> {
        self.fault.map_or(Ok(&self.bytes), Err)
    }

    /// What was to be written must not be: nothing more is, and [`Writer::finish`] says why.
    pub fn refuse(&mut self, why: Error) {
        self.fault.get_or_insert(why);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Begins a message: `struct nlmsghdr`, its length left open.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32) -> Open {
        let open = Open(self.bytes.len());
        self.last = open.0;
        self.raw(&[0; 4]);
        self.raw(&kind.to_ne_bytes());
        self.raw(&flags.to_ne_bytes());
        self.raw(&sequence.to_ne_bytes());
        self.raw(&[0; 4]);
        open
    }

    /// Ends a message.
    pub fn close_message(&mut self, open: Open) {
        if self.fault.is_none() {
            let length = self.bytes.len() - open.0;
            debug_assert!(length >= message::HEADER, "a message is open from its header on");
            self.bytes[open.0..open.0 + 4].copy_from_slice(&(length as u32).to_ne_bytes());
            self.pad();
        }
    }

    /// Adds flags to those of the last message.
    pub fn add_flags(&mut self, flags: u16) {
        let place = self.last + message::FLAGS_OFFSET;
        if let Some(slot) = self.bytes.get_mut(place..place + 2) {
            let all = u16::from_ne_bytes([slot[0], slot[1]]) | flags;
            slot.copy_from_slice(&all.to_ne_bytes());
        }
    }

    /// Begins an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16) -> Open {
        let open = Open(self.bytes.len());
        self.raw(&[0; 2]);
        self.raw(&(kind | NESTED).to_ne_bytes());
        open
    }

    /// Ends a nested attribute. One longer than 65535 bytes is refused: its length would wrap.
    pub fn close(&mut self, open: Open) {
        if self.fault.is_none() {
            match u16::try_from(self.bytes.len() - open.0) {
                Ok(length) => {
                    self.bytes[open.0..open.0 + 2].copy_from_slice(&length.to_ne_bytes());
                }
                Err(_) => self.fault = Some(Error::Full),
            }
        }
    }

    /// Writes an attribute with this value.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        self.attr_parts(kind, value, &[]);
    }

    /// Writes an attribute that holds a terminated string. Text with a NUL in it is refused: the
    /// kernel would take what stands before for the whole, and so mean another object.
    pub fn attr_text(&mut self, kind: u16, text: &str) {
        if text.as_bytes().contains(&0) {
            self.fault.get_or_insert(Error::NotText);
        }
        self.attr_parts(kind, text.as_bytes(), &[0]);
    }

    /// Writes an attribute that holds one byte.
    pub fn attr_u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }

    /// Writes an attribute that holds a 16-bit integer in host order.
    pub fn attr_u16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Writes an attribute that holds a 32-bit integer in host order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// An attribute whose value is an IP address, in network order.
    pub fn attr_address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attr(kind, &address.octets()),
            IpAddr::V6(address) => self.attr(kind, &address.octets()),
        }
    }

    /// Writes an attribute that holds a 32-bit integer in network order, as nf_tables has them.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes fixed fields (`struct ifinfomsg` and the like) as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > SEND_MAX {
            self.fault.get_or_insert(Error::Full);
        }
        if self.fault.is_none() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn attr_parts(&mut self, kind: u16, value: &[u8], end: &[u8]) {
        let Ok(length) = u16::try_from(attr::HEADER + value.len() + end.len()) else {
            self.fault.get_or_insert(Error::Full);
            return;
        };
        self.raw(&length.to_ne_bytes());
        self.raw(&kind.to_ne_bytes());
        self.raw(value);
        self.raw(end);
        self.pad();
    }

    /// Fills up to the alignment of netlink.
    fn pad(&mut self) {
        let padding = attr::align(self.bytes.len()) - self.bytes.len();
        self.raw(&[0; 3][..padding]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attr::Attrs;
    use crate::netlink::message::Messages;

    #[test]
    fn numbers_are_the_kernels() {
        crate::netlink::same! { NESTED => libc::NLA_F_NESTED }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::new();
        for sequence in [1, 2] {
            let open = writer.message(16, message::ACK, sequence);
            writer.raw(&[1, 2, 3, 4]);
            writer.attr_text(3, "vbr0");
            let nest = writer.nest(18);
            writer.attr_u8(33, 1);
            writer.attr_u32(4, 1400);
            writer.close(nest);
            writer.close_message(open);
        }
        let messages: Vec<_> =
            Messages::new(writer.finish().unwrap()).map(Result::unwrap).collect();
        assert_eq!((messages.len(), messages[1].sequence), (2, 2));
        let attrs: Vec<_> = Attrs::new(&messages[1].payload[4..]).map(Result::unwrap).collect();
        assert_eq!((attrs[0].kind, attrs[0].text()), (3, Ok("vbr0")));
        let inner: Vec<_> = attrs[1].nested().unwrap().map(Result::unwrap).collect();
        assert_eq!((inner[0].u8(), inner[1].u32(), inner.len()), (Ok(1), Ok(1400), 2));
    }

    #[test]
    fn a_message_after_a_ragged_one_is_aligned() {
        let mut writer = Writer::new();
        for _ in 0..2 {
            let open = writer.message(16, 0, 1);
            writer.raw(&[1]);
            writer.close_message(open);
        }
        let payloads = Messages::new(writer.finish().unwrap()).map(|found| found.unwrap().payload);
        assert_eq!(payloads.collect::<Vec<_>>(), [&[1], &[1]]);
    }

    #[test]
    fn what_does_not_fit_is_remembered_until_cleared() {
        let mut writer = Writer::new();
        let room = SEND_MAX - message::HEADER;
        writer.raw(&vec![0; room + 8]);
        // Half of a header would fit; none of it is written, and closing it harms nothing.
        let open = writer.message(16, 0, 1);
        let nest = writer.nest(1);
        writer.attr_u32(2, 3);
        writer.close(nest);
        writer.close_message(open);
        assert_eq!(writer.finish(), Err(Error::Full));
        assert!(writer.len() <= SEND_MAX);
        writer.clear();
        assert_eq!(writer.finish(), Ok(&[][..]));
    }

    #[test]
    fn an_attribute_is_at_most_what_its_length_can_say() {
        let most = usize::from(u16::MAX) - attr::HEADER;
        let mut writer = Writer::new();
        writer.attr(1, &vec![0; most]);
        let bytes = writer.finish().unwrap();
        assert_eq!(Attrs::new(bytes).next().unwrap().unwrap().value.len(), most);
        writer.attr(1, &vec![0; most + 1]);
        assert_eq!(writer.finish(), Err(Error::Full));
    }

    #[test]
    fn a_nest_that_would_wrap_is_refused() {
        let mut writer = Writer::new();
        let nest = writer.nest(1);
        for _ in 0..2 {
            writer.attr(1, &[0; 32 * 1024]);
        }
        writer.close(nest);
        assert_eq!(writer.finish(), Err(Error::Full));
    }

    #[test]
    fn text_with_a_nul_in_it_is_refused() {
        let mut writer = Writer::new();
        writer.attr_text(3, "vbr0\0x");
        writer.attr_u32(4, 1);
        assert_eq!(writer.finish(), Err(Error::NotText));
    }
}
