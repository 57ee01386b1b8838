//! The buffer that requests are written into.
//!
//! A [`Writer`] is kept and reused, so that writing a request allocates nothing once it has grown
//! to its working size. After the first thing that could not be written it writes nothing more and
//! remembers why, so that callers write in one go and ask once, in [`Writer::finish`].

use super::Error;
use super::attr;
use super::message;

/// The most bytes of one send: the kernel's default send buffer (net.core.wmem_default) takes it.
pub const SEND_MAX: usize = 200 * 1024;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// A bounded buffer of messages.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    fault: Option<Error>,
}

/// Where an open message or attribute begins; closing it writes its length there.
#[derive(Debug)]
#[must_use = "an open message or attribute has no length yet"]
pub struct Open(usize);

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

    /// Writes an attribute that holds a 32-bit integer in host order.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
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
