//! The codec beside simple-dns, and the rules of what is passed on.

use proptest::prelude::*;
use simple_dns::rdata::{A as Ipv4, NS, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::dns::fuzz::{message, question};
use crate::dns::query::{DnsQuery, NoQuery, RecordData, ResponseCode, Transport};
use crate::dns::wire::{A, AAAA};
use crate::dns::{DomainName, Malformed, Response};

fn query(name: &str, edns: Option<u16>) -> DnsQuery {
    DnsQuery::read(&question(name, A, edns)).unwrap()
}

fn name(text: &str) -> simple_dns::Name<'_> {
    simple_dns::Name::new(text).unwrap()
}

/// The answer of a resolver to what it was asked.
fn answered<'a>(asked: &'a [u8], build: impl FnOnce(&mut Packet<'a>)) -> Vec<u8> {
    let asked = Packet::parse(asked).unwrap();
    let edns = asked.opt().cloned();
    let mut packet = asked.into_reply();
    *packet.opt_mut() = edns;
    packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
    build(&mut packet);
    packet.build_bytes_vec_compressed().unwrap()
}

fn address(owner: &'static str, address: [u8; 4]) -> ResourceRecord<'static> {
    let data = RData::A(Ipv4 { address: u32::from_be_bytes(address) });
    ResourceRecord::new(name(owner), CLASS::IN, 60, data)
}

fn domain() -> DomainName {
    DomainName::of_text("volnet").unwrap()
}

#[test]
fn our_answers_are_read_by_others() {
    let query = query("Web.volnet", Some(4096));
    let addresses =
        ["192.168.127.2", "2001:db8::2"].map(|ip| RecordData::Address(ip.parse().unwrap()));
    let pointer = RecordData::Name(DomainName::of_text("web.volnet").unwrap());
    let answer =
        query.answer(true, ResponseCode::Answered, &[addresses.as_slice(), &[pointer]].concat());
    let packet = Packet::parse(&answer).unwrap();
    assert_eq!((packet.id(), packet.rcode()), (7, RCODE::NoError));
    assert!(packet.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
    assert_eq!(packet.questions[0].qname.to_string(), "Web.volnet", "as it was written");
    assert_eq!(packet.opt().unwrap().udp_packet_size, 1232);
    let records: Vec<String> = packet
        .answers
        .iter()
        .map(|record| match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(aaaa) => std::net::Ipv6Addr::from(aaaa.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(records, ["192.168.127.2", "2001:db8::2", "web.volnet"]);
    assert!(packet.answers.iter().all(|it| it.ttl == 0 && it.name == packet.questions[0].qname));
    let none = query.answer(true, ResponseCode::NoName, &[]);
    assert_eq!(Packet::parse(&none).unwrap().rcode(), RCODE::NameError);
    let cut = query.cut();
    assert!(Packet::parse(&cut).unwrap().has_flags(PacketFlag::TRUNCATION));
}

#[test]
fn a_question_is_passed_on_with_its_options_and_another_number() {
    let mut asked = Packet::new_query(7);
    asked.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::CHECKING_DISABLED);
    asked.questions.push(simple_dns::Question::new(
        name("www.example.com"),
        QTYPE::TYPE(TYPE::AAAA),
        simple_dns::QCLASS::CLASS(CLASS::IN),
        false,
    ));
    *asked.opt_mut() = Some(simple_dns::rdata::OPT {
        opt_codes: vec![simple_dns::rdata::OPTCode { code: 8, data: vec![0, 1, 0, 0].into() }],
        udp_packet_size: 4096,
        version: 0,
    });
    let bytes = asked.build_bytes_vec().unwrap();
    let query = DnsQuery::read(&bytes).unwrap();
    assert_eq!((query.question.kind, query.longest(Transport::Udp)), (AAAA, 1232));
    let passed = query.to_resolver(0x4321);
    let packet = Packet::parse(&passed).unwrap();
    assert_eq!((packet.id(), packet.questions.len()), (0x4321, 1));
    assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::CHECKING_DISABLED));
    let opt = packet.opt().unwrap();
    assert_eq!((opt.udp_packet_size, opt.opt_codes[0].code), (1232, 8));
}

#[test]
fn what_is_no_question_is_told_so_or_ignored() {
    let good = question("web.volnet", A, None);
    let code = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        match DnsQuery::read(&bytes) {
            Err(NoQuery::Answer(answer)) => Ok(Packet::parse(&answer).unwrap().rcode()),
            Err(NoQuery::Ignore(why)) => Err(why),
            Ok(query) => panic!("{query:?}"),
        }
    };
    assert_eq!(code(&|bytes| bytes.truncate(11)), Err(Malformed::Cut));
    assert_eq!(code(&|bytes| bytes[2] |= 0x80), Err(Malformed::Direction));
    assert_eq!(code(&|bytes| bytes[2] |= 0x28), Ok(RCODE::NotImplemented), "an update");
    assert_eq!(code(&|bytes| bytes[5] = 2), Ok(RCODE::FormatError), "two questions");
    assert_eq!(code(&|bytes| bytes[7] = 1), Ok(RCODE::FormatError), "an answer in it");
    assert_eq!(code(&|bytes| bytes.truncate(20)), Ok(RCODE::FormatError));
    assert_eq!(code(&|bytes| bytes.resize(2000, 0)), Ok(RCODE::FormatError), "too long");
}

#[test]
fn an_answer_is_that_to_the_question_or_none() {
    let query = query("www.example.com", None);
    let asked = query.to_resolver(99);
    let good = answered(&asked, |packet| {
        packet.answers.push(address("www.example.com", [192, 0, 2, 1]));
    });
    let read = |bytes: &[u8], id| Response::read(bytes, &query, id, &domain()).err();
    assert_eq!(read(&good, 99), None);
    assert_eq!(read(&good, 98), Some(Malformed::Direction), "another number");
    assert_eq!(read(&asked, 99), Some(Malformed::Direction), "our own question");
    let other = DnsQuery::read(&question("www.example.org", A, None)).unwrap();
    let other = answered(&other.to_resolver(99), |_| {});
    assert_eq!(read(&other, 99), Some(Malformed::Sections), "another question");
    let other = DnsQuery::read(&question("www.example.com", AAAA, None)).unwrap();
    let other = answered(&other.to_resolver(99), |_| {});
    assert_eq!(read(&other, 99), Some(Malformed::Sections), "another type");
    let shouted = answered(
        &DnsQuery::read(&question("WWW.example.COM", A, None)).unwrap().to_resolver(99),
        |_| {},
    );
    assert_eq!(read(&shouted, 99), None, "case is no difference");
    for end in 0..good.len() {
        assert!(read(&good[..end], 99).is_some(), "cut at {end}");
    }
}

#[test]
fn what_nobody_asked_for_is_left_out() {
    let query = query("www.example.com", Some(4096));
    let asked = query.to_resolver(99);
    let poisoned = answered(&asked, |packet| {
        packet.answers.push(address("www.example.com", [192, 0, 2, 1]));
        let server = RData::NS(NS(name("ns.example.com")));
        let server = ResourceRecord::new(name("example.com"), CLASS::IN, 60, server);
        packet.name_servers.push(server);
        packet.additional_records.push(address("ns.example.com", [192, 0, 2, 2]));
        packet.additional_records.push(address("other.volnet", [6, 6, 6, 6]));
        packet.additional_records.push(address("www.bank.example", [6, 6, 6, 6]));
    });
    let response = Response::read(&poisoned, &query, 99, &domain()).unwrap();
    assert!(!response.is_about_us() && !response.is_cut() && !response.is_failure());
    let passed = response.for_guest(&query, Transport::Udp);
    let packet = Packet::parse(&passed).unwrap();
    assert_eq!((packet.id(), packet.answers.len(), packet.name_servers.len()), (7, 1, 1));
    assert!(packet.additional_records.is_empty() && packet.opt().is_some());
    assert_eq!(packet.name_servers[0].name, name("example.com"), "pointers lead where they did");

    let ours = answered(&asked, |packet| {
        packet.answers.push(address("other.volnet", [6, 6, 6, 6]));
    });
    assert!(Response::read(&ours, &query, 99, &domain()).unwrap().is_about_us());
}

#[test]
fn an_answer_that_is_too_long_is_to_be_asked_for_by_tcp() {
    let many = |count, edns: Option<u16>, transport| {
        let query = query("www.example.com", edns);
        let asked = query.to_resolver(99);
        let answer = answered(&asked, |packet| {
            packet.answers.extend((0..count).map(|n| address("www.example.com", [10, 0, 0, n])));
        });
        let response = Response::read(&answer, &query, 99, &domain()).unwrap();
        let passed = response.for_guest(&query, transport);
        Packet::parse(&passed).unwrap().has_flags(PacketFlag::TRUNCATION)
    };
    assert!(!many(20, None, Transport::Udp));
    assert!(many(40, None, Transport::Udp));
    assert!(!many(40, Some(1232), Transport::Udp));
    assert!(many(100, Some(65535), Transport::Udp), "no more than passes in one piece");
    assert!(!many(100, None, Transport::Tcp));
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        message(&bytes);
    }

    /// Bytes changed here and there in a message that is one.
    #[test]
    fn damaged_messages_do_no_harm(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        count in 0_u8..5,
    ) {
        let asked = query("www.example.com", Some(1232)).to_resolver(7);
        let mut answer = answered(&asked, |packet| {
            packet.answers.extend((0..count).map(|n| address("a.example.com", [10, 0, 0, n])));
        });
        for (index, byte) in changes {
            let at = index.index(answer.len());
            answer[at] = byte;
        }
        message(&answer);
        // As the fuzz takes it: flags and counts, then what comes after the question.
        let behind = &answer[12 + 21.min(answer.len() - 12)..];
        message(&[&answer[2..4], &answer[6..12], behind].concat());
    }

    #[test]
    fn names_are_as_others_read_them(
        labels in proptest::collection::vec("[a-z0-9]{1,20}", 1..6)
    ) {
        let text = labels.join(".");
        let own = DomainName::of_text(&text).unwrap();
        let theirs = name(&text);
        prop_assert_eq!(own.to_string(), theirs.to_string());
        let asked = question(&text, A, None);
        let packet = Packet::parse(&asked).unwrap();
        prop_assert_eq!(packet.questions[0].qname.to_string(), text);
    }
}
