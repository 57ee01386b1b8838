//! Questions of guests, and our own answers.

use std::net::IpAddr;

use super::wire::{
    A, AAAA, AUTHENTIC_DATA, AUTHORITATIVE, CHECKING_DISABLED, EDNS_MAX, Edns, HEADER, Header,
    OPCODE, PTR, Question, RECURSION_AVAILABLE, RECURSION_DESIRED, RESPONSE, TRUNCATED, UDP_MAX,
};
use super::{DomainName, Malformed};

/// The longest question in bytes: a name of full length, with room for EDNS options.
pub const QUESTION_MAX: usize = 1024;

/// How a question came, and with it how long the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuery {
    /// The number by which the guest knows the answer.
    pub id: u16,
    /// The flags that an answer repeats or a resolver is told.
    flags: u16,
    /// The question.
    pub question: Question,
    /// What it says beside its header, if it does.
    edns: Option<Edns>,
}

/// How a question ends (RFC 1035, 4.1.1; RFC 6895, 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// It has an answer, which may be empty.
    Answered = 0,
    /// It is not a question.
    Format = 1,
    /// Nobody could answer it now.
    Failure = 2,
    /// There is no such name.
    NoName = 3,
    /// Something else than a question is asked for.
    NotImplemented = 4,
    /// It is not answered to this guest.
    Refused = 5,
    /// It has a version of EDNS that is not known.
    Version = 16,
}

/// What a record of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(DomainName),
}

/// Bytes that are not a question that is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoQuery {
    /// They get no answer.
    Ignore(Malformed),
    /// They get this one.
    Answer(Vec<u8>),
}

impl DnsQuery {
    /// Reads what a guest has sent.
    pub fn read(message: &[u8]) -> Result<DnsQuery, NoQuery> {
        let header = Header::read(message).map_err(NoQuery::Ignore)?;
        if header.flags & RESPONSE != 0 {
            return Err(NoQuery::Ignore(Malformed::Direction));
        }
        let refuse = |code: ResponseCode| {
            let flags = RESPONSE | header.flags & (OPCODE | RECURSION_DESIRED) | code as u16;
            NoQuery::Answer(Header { id: header.id, flags, counts: [0; 4] }.write())
        };
        if header.flags & OPCODE != 0 {
            return Err(refuse(ResponseCode::NotImplemented));
        }
        let query = DnsQuery::of(&header, message).map_err(|_| refuse(ResponseCode::Format))?;
        match query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            true => Err(NoQuery::Answer(query.fail(ResponseCode::Version))),
            false => Ok(query),
        }
    }

    fn of(header: &Header, message: &[u8]) -> Result<DnsQuery, Malformed> {
        let [1, 0, 0, additional] = header.counts else { return Err(Malformed::Sections) };
        if message.len() > QUESTION_MAX {
            return Err(Malformed::Sections);
        }
        let (question, at) = Question::read(message, HEADER)?;
        let edns = Edns::among(message, at, additional)?;
        Ok(DnsQuery { id: header.id, flags: header.flags, question, edns })
    }

    /// The longest answer in bytes.
    pub fn longest(&self, transport: Transport) -> usize {
        match (transport, &self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.size).clamp(UDP_MAX, EDNS_MAX),
            (Transport::Udp, None) => UDP_MAX,
        }
    }

    /// Whether the guest can read EDNS.
    pub fn has_edns(&self) -> bool {
        self.edns.is_some()
    }

    /// Our own answer. `authoritative` says that nobody else knows better. An answer has no time to
    /// live, because VMs come and go, and an empty one names no authority, which would give it one
    /// (RFC 2308, 3).
    pub fn answer(
        &self,
        authoritative: bool,
        code: ResponseCode,
        records: &[RecordData],
    ) -> Vec<u8> {
        let own = if authoritative { AUTHORITATIVE } else { 0 };
        let mut message = self.begin(own | code as u16 & 0xf, records.len() as u16);
        for record in records {
            // The owner is the question's name, which is the first after the header.
            message.extend((0xc000 | HEADER as u16).to_be_bytes());
            let (kind, data) = match record {
                RecordData::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                RecordData::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                RecordData::Name(name) => (PTR, name.bytes().to_vec()),
            };
            message.extend(kind.to_be_bytes());
            message.extend(self.question.class.to_be_bytes());
            message.extend([0; 4]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        self.end(message, code)
    }

    /// The answer that there is none.
    pub fn fail(&self, code: ResponseCode) -> Vec<u8> {
        self.answer(false, code, &[])
    }

    /// The answer that the whole one does not fit, and is to be asked for by TCP.
    pub fn cut(&self) -> Vec<u8> {
        let message = self.begin(TRUNCATED, 0);
        self.end(message, ResponseCode::Answered)
    }

    fn begin(&self, flags: u16, answers: u16) -> Vec<u8> {
        let kept = self.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        let flags = RESPONSE | RECURSION_AVAILABLE | kept | flags;
        let counts = [1, answers, 0, self.edns.is_some().into()];
        let mut message = Header { id: self.id, flags, counts }.write();
        message.extend(self.question.bytes());
        message
    }

    fn end(&self, mut message: Vec<u8>, code: ResponseCode) -> Vec<u8> {
        if let Some(edns) = &self.edns {
            // Of the flags, only the wish for DNSSEC is repeated (RFC 3225, 3).
            let flags = [(code as u16 >> 4) as u8, 0, edns.flags[2] & 0x80, 0];
            let own = Edns { size: EDNS_MAX as u16, flags, options: Vec::new() };
            message.extend(own.bytes());
        }
        message
    }

    /// The question as a resolver is asked, with another number. A resolver may answer only what
    /// we can pass on by UDP in one piece.
    pub fn to_resolver(&self, id: u16) -> Vec<u8> {
        let flags = self.flags & (RECURSION_DESIRED | CHECKING_DISABLED | AUTHENTIC_DATA);
        let counts = [1, 0, 0, self.edns.is_some().into()];
        let mut message = Header { id, flags, counts }.write();
        message.extend(self.question.bytes());
        if let Some(edns) = &self.edns {
            let size = edns.size.clamp(UDP_MAX as u16, EDNS_MAX as u16);
            message.extend(Edns { size, ..edns.clone() }.bytes());
        }
        message
    }
}
