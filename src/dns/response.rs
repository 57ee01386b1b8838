//! Answers of resolvers.

use super::query::{DnsQuery, Transport};
use super::wire::{
    AUTHENTIC_DATA, AUTHORITATIVE, CHECKING_DISABLED, CODE, Edns, HEADER, Header, OPCODE, OPT,
    RECURSION_AVAILABLE, RECURSION_DESIRED, RESPONSE, ResourceRecord, TRUNCATED,
};
use super::{DomainName, Malformed};

/// The answer of a resolver to a question, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    header: Header,
    /// The records of the answer and authority sections, as they came.
    records: &'a [u8],
    edns: Option<Edns>,
    /// A record of ours is among the others.
    ours: bool,
}

/// Codes that say that another resolver may know more.
const FAILURES: [u16; 4] = [1, 2, 4, 5];

impl<'a> Response<'a> {
    /// Reads what a resolver has sent, as the answer to a question that it was asked with this
    /// number. Anything else is an error. `domain` is ours.
    pub fn read(
        message: &'a [u8],
        query: &DnsQuery,
        id: u16,
        domain: &DomainName,
    ) -> Result<Response<'a>, Malformed> {
        let header = Header::read(message)?;
        if header.flags & RESPONSE == 0 || header.flags & OPCODE != 0 || header.id != id {
            return Err(Malformed::Direction);
        }
        // The question must stand there as we wrote it, only its case may differ: then the records'
        // pointers into it stay true.
        let question = query.question.bytes();
        let begin = HEADER + question.len();
        let echo = message.get(HEADER..begin).ok_or(Malformed::Cut)?;
        if header.counts[0] != 1 || !echo.eq_ignore_ascii_case(&question) {
            return Err(Malformed::Sections);
        }
        let (mut at, mut ours) = (begin, false);
        let [_, answers, authorities, additional] = header.counts;
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            let (record, next) = ResourceRecord::read(message, at)?;
            if record.kind == OPT {
                return Err(Malformed::Sections);
            }
            ours |= record.owner.below(domain).is_some();
            at = next;
        }
        let records = &message[begin..at];
        let edns = Edns::among(message, at, additional)?;
        Ok(Response { header, records, edns, ours })
    }

    /// Whether only TCP gives the whole answer.
    pub fn is_cut(&self) -> bool {
        self.header.flags & TRUNCATED != 0
    }

    /// Whether the resolver could not answer, so that another one may.
    pub fn is_failure(&self) -> bool {
        FAILURES.contains(&(self.header.flags & CODE))
    }

    /// Whether it claims to know names of ours, which nobody else can.
    pub fn is_about_us(&self) -> bool {
        self.ours
    }

    /// The answer as the guest gets it, or that it is too long.
    pub fn for_guest(&self, query: &DnsQuery, transport: Transport) -> Vec<u8> {
        let kept = AUTHORITATIVE
            | TRUNCATED
            | RECURSION_DESIRED
            | RECURSION_AVAILABLE
            | AUTHENTIC_DATA
            | CHECKING_DISABLED
            | CODE;
        let edns = self.edns.as_ref().filter(|_| query.has_edns());
        let [_, answers, authorities, _] = self.header.counts;
        let counts = [1, answers, authorities, edns.is_some().into()];
        let flags = RESPONSE | self.header.flags & kept;
        let mut message = Header { id: query.id, flags, counts }.write();
        message.extend(query.question.bytes());
        message.extend(self.records);
        message.extend(edns.map(Edns::bytes).unwrap_or_default());
        match message.len() <= query.longest(transport) {
            true => message,
            false => query.cut(),
        }
    }
}
