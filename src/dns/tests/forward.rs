//! Questions that wait: who is asked when, and what ends them.

use std::rc::Rc;

use proptest::prelude::*;

use crate::dns::DomainName;
use crate::dns::forward::{
    ALL_MAX, Forwarder, Key, Next, PER_VM_MAX, PassedOn, Question, STRAYS_MAX, TCP_MS, TRY_MS,
};
use crate::dns::fuzz::{passing, question};
use crate::dns::query::{DnsQuery, Transport};
use crate::dns::resolvers::Resolver;
use crate::dns::wire::{A, RESPONSE, TRUNCATED};
use crate::model::name::VmName;
use simple_dns::{Packet, RCODE};

/// A question that came by TCP.
fn asked_by_tcp(resolvers: u8) -> Question<u32> {
    Question { transport: Transport::Tcp, ..asked("web", 7, "example.com", resolvers) }
}

fn asked(vm: &str, back: u32, name: &str, resolvers: u8) -> Question<u32> {
    let resolver = |n: u8| Resolver { ip: [192, 0, 2, n].into(), link: None };
    let resolvers: Rc<[Resolver]> = (1..=resolvers).map(resolver).collect();
    let query = DnsQuery::read(&question(name, A, None)).unwrap();
    let domain = DomainName::of_text("volnet").unwrap();
    let passed = PassedOn { query, domain, resolvers };
    Question { vm: VmName::new(vm).unwrap(), back, transport: Transport::Udp, passed }
}

/// The key of a question that is asked, the last byte of the resolver, and how.
fn ask(next: &Next<u32>) -> (Key, u8, Transport) {
    let Next::Ask { key, resolver, by, .. } = next else { panic!("{next:?}") };
    let std::net::IpAddr::V4(ip) = resolver.ip else { panic!() };
    (*key, ip.octets()[3], *by)
}

/// The code of the answer to a guest.
fn reply(next: &Next<u32>) -> (u32, RCODE) {
    let Next::Reply { back, message, .. } = next else { panic!("{next:?}") };
    (*back, Packet::parse(message).unwrap().rcode())
}

/// An empty answer with these flags to what was asked.
fn answer(next: &Next<u32>, flags: u16) -> Vec<u8> {
    let Next::Ask { message, .. } = next else { panic!("{next:?}") };
    let mut answer = message.clone();
    let flags = (RESPONSE | flags).to_be_bytes();
    answer[2..4].copy_from_slice(&flags);
    answer
}

#[test]
fn an_answer_goes_back_once() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 1), 0x1234, 0);
    let (key, server, by) = ask(&first);
    assert_eq!((server, by, forwarder.deadline()), (1, Transport::Udp, Some(TRY_MS)));
    assert_eq!(forwarder.ask(asked("web", 7, "example.com", 1), 5, 1), Next::Wait, "repeated");
    let answer = answer(&first, 0);
    assert_eq!(reply(&forwarder.heard(key, &answer, 0, 1)), (7, RCODE::NoError));
    assert_eq!(forwarder.heard(key, &answer, 0, 1), Next::Wait);
    assert!(forwarder.is_empty() && forwarder.deadline().is_none());
}

#[test]
fn a_resolver_that_says_nothing_is_followed_by_the_next() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 3), 1, 0);
    let (key, ..) = ask(&first);
    assert_eq!(forwarder.due(TRY_MS - 1), None);
    let mut now = 0;
    for server in [2, 3] {
        now += TRY_MS;
        assert_eq!(forwarder.due(now), Some(key));
        let next = forwarder.failed(key, 2, now);
        assert_eq!(ask(&next), (key, server, Transport::Udp));
        // What an earlier one was asked has another number.
        assert_eq!(forwarder.heard(key, &answer(&first, 0), 3, now), Next::Wait);
    }
    assert_eq!(reply(&forwarder.failed(key, 2, now)), (7, RCODE::ServerFailure));
    let alone = forwarder.ask(asked("web", 7, "example.com", 1), 1, now);
    let (key, ..) = ask(&alone);
    assert_eq!(ask(&forwarder.failed(key, 2, now)).1, 1, "the only one is asked again");
    assert_eq!(reply(&forwarder.failed(key, 3, now)).1, RCODE::ServerFailure);
    let nobody = forwarder.ask(asked("web", 7, "example.com", 0), 1, now);
    assert_eq!(reply(&nobody).1, RCODE::ServerFailure);
}

#[test]
fn a_failure_is_told_if_nobody_knows_better() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 2), 1, 0);
    let (key, ..) = ask(&first);
    let next = forwarder.heard(key, &answer(&first, 5), 2, 0);
    assert_eq!(ask(&next), (key, 2, Transport::Udp));
    assert_eq!(reply(&forwarder.failed(key, 3, TRY_MS)).1, RCODE::Refused);
    let first = forwarder.ask(asked("web", 7, "example.com", 2), 1, 0);
    let (key, ..) = ask(&first);
    assert_eq!(reply(&forwarder.heard(key, &answer(&first, 3), 2, 0)).1, RCODE::NameError);
}

#[test]
fn what_was_cut_is_asked_for_by_tcp() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 2), 1, 0);
    let (key, ..) = ask(&first);
    let next = forwarder.heard(key, &answer(&first, TRUNCATED), 2, 10);
    assert_eq!(ask(&next), (key, 1, Transport::Tcp), "the same resolver");
    assert_eq!(forwarder.deadline(), Some(10 + TCP_MS));
    assert_eq!(reply(&forwarder.heard(key, &answer(&next, 0), 3, 20)), (7, RCODE::NoError));
    // It has no TCP: the guest gets what there is.
    let first = forwarder.ask(asked("web", 7, "example.com", 2), 1, 0);
    let (key, ..) = ask(&first);
    forwarder.heard(key, &answer(&first, TRUNCATED), 2, 10);
    let Next::Reply { message, .. } = forwarder.failed(key, 3, 20) else { panic!() };
    assert_eq!(message[2] & 0x02, 0x02, "cut");
}

#[test]
fn a_failure_does_not_keep_others_from_being_asked() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 3), 1, 0);
    let (key, ..) = ask(&first);
    let second = forwarder.heard(key, &answer(&first, 2), 2, 0);
    for _ in 1..STRAYS_MAX {
        assert_eq!(forwarder.heard(key, b"stray", 3, 0), Next::Wait);
    }
    assert_eq!(ask(&second), (key, 2, Transport::Udp));
    assert_eq!(ask(&forwarder.heard(key, b"stray", 3, 0)), (key, 2, Transport::Tcp));
    let third = forwarder.failed(key, 4, 0);
    assert_eq!(ask(&third), (key, 3, Transport::Udp));
    assert_eq!(reply(&forwarder.heard(key, &answer(&third, 0), 5, 0)), (7, RCODE::NoError));
}

#[test]
fn who_asks_by_tcp_gets_no_answer_that_is_cut() {
    // Whether the resolver has no TCP, or cuts there, too.
    for cuts in [false, true] {
        let mut forwarder = Forwarder::default();
        let mut next = forwarder.ask(asked_by_tcp(2), 1, 0);
        for server in [1, 2] {
            let (key, asked, by) = ask(&next);
            assert_eq!((asked, by), (server, Transport::Udp));
            next = forwarder.heard(key, &answer(&next, TRUNCATED), 2, 0);
            assert_eq!(ask(&next), (key, server, Transport::Tcp));
            next = match cuts {
                true => forwarder.heard(key, &answer(&next, TRUNCATED), 3, 0),
                false => forwarder.failed(key, 3, 0),
            };
        }
        let Next::Reply { message, .. } = &next else { panic!("{next:?}") };
        assert_eq!(message[2] & 0x02, 0, "not cut");
        assert_eq!(reply(&next), (7, RCODE::ServerFailure));
    }
}

#[test]
fn who_guesses_gets_few_guesses() {
    let mut forwarder = Forwarder::default();
    let first = forwarder.ask(asked("web", 7, "example.com", 1), 0x4242, 0);
    let (key, ..) = ask(&first);
    let mut forged = answer(&first, 0);
    for n in 1..STRAYS_MAX {
        forged[0] = n;
        assert_eq!(forwarder.heard(key, &forged, 1, 0), Next::Wait);
    }
    let next = forwarder.heard(key, &forged, 2, 0);
    assert_eq!(ask(&next).2, Transport::Tcp);
    assert_eq!(reply(&forwarder.heard(key, &answer(&next, 0), 3, 0)).1, RCODE::NoError);
}

#[test]
fn nobody_waits_without_bound() {
    let mut forwarder = Forwarder::default();
    for n in 0..10 * PER_VM_MAX as u32 {
        let next = forwarder.ask(asked("greedy", n, "example.com", 1), 1, 0);
        assert_eq!(matches!(next, Next::Ask { .. }), n < PER_VM_MAX as u32);
    }
    let mut others = 0;
    while forwarder.len() < ALL_MAX {
        others += 1;
        let vm = format!("vm{}", others % 40);
        assert_eq!(forwarder.make_room(&VmName::new(&vm).unwrap()), None);
        ask(&forwarder.ask(asked(&vm, others, "example.com", 1), 1, 0));
    }
    // The greediest gives way, with its oldest.
    for expected in 1..=10 {
        let vm = VmName::new("late").unwrap();
        assert_eq!(forwarder.make_room(&vm), Some((expected, expected as u32 - 1)));
        ask(&forwarder.ask(asked("late", expected as u32, "example.com", 1), 1, 0));
        assert_eq!(forwarder.len(), ALL_MAX);
    }
    let gone = forwarder.forget(|back| *back < 20);
    assert!(gone.len() > 10 && forwarder.len() == ALL_MAX - gone.len());
    let mut now = 0;
    while let Some(deadline) = forwarder.deadline() {
        assert!(deadline > now);
        now = deadline;
        while let Some(key) = forwarder.due(now) {
            forwarder.failed(key, 1, now);
        }
    }
    assert!(forwarder.is_empty() && now == 2 * TRY_MS);
}

proptest! {
    #[test]
    fn every_question_ends_once(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        passing(&bytes);
    }
}
