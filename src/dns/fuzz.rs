//! The codec on any bytes, and names beside records, for fuzzing and tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::forward::{ALL_MAX, Forwarder, Key, Next, PER_VM_MAX, PassedOn, Question as Asked};
use super::query::{DnsQuery, NoQuery, ResponseCode, Transport};
use super::wire::{A, Edns, HEADER, Header, IN, Question, RESPONSE, ResourceRecord};
use super::{DomainName, Response};

use super::resolvers::Resolver;
use crate::engine::decide::Engine;
use crate::engine::names::{Asker, GATEWAY, Owner};
use crate::model::name::VmName;

/// Addresses of a network that are looked at.
const ADDRESSES_MAX: u32 = 32;
/// The number of the question that a resolver is asked.
const ID: u16 = 0x1234;

/// A question of a guest, as it is sent.
pub(super) fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let name = DomainName::of_text(name).expect("a name");
    let counts = [1, 0, 0, edns.is_some().into()];
    let mut message = Header { id: 7, flags: 0x0100, counts }.write();
    message.extend(Question { name, kind, class: IN }.bytes());
    let record = |size| Edns { size, flags: [0; 4], options: Vec::new() }.bytes();
    message.extend(edns.map(record).unwrap_or_default());
    message
}

/// Takes any bytes as what a guest sends, and as what a resolver sends after the number of the
/// question that it was asked. What comes of them has to be a message. The fuzzer and the test of
/// its corpus call this.
pub fn message(bytes: &[u8]) {
    match DnsQuery::read(bytes) {
        Ok(query) => {
            for transport in [Transport::Udp, Transport::Tcp] {
                assert!(query.longest(transport) >= 512);
            }
            let passed = DnsQuery::read(&query.to_resolver(ID)).expect("it is a question still");
            assert_eq!((passed.id, &passed.question), (ID, &query.question));
            assert_eq!(passed.has_edns(), query.has_edns());
            check(&query.fail(ResponseCode::Failure), &query);
            check(&query.cut(), &query);
        }
        Err(NoQuery::Answer(answer)) => {
            let header = Header::read(&answer).expect("a header");
            assert!(header.flags & RESPONSE != 0 && answer[..2] == bytes[..2]);
        }
        Err(NoQuery::Ignore(_)) => {}
    }
    let domain = DomainName::of_text("volnet").expect("a name");
    for edns in [None, Some(4096)] {
        let asked = question("www.example.com", A, edns);
        let query = DnsQuery::read(&asked).expect("a question");
        let Some((head, rest)) = bytes.split_at_checked(8) else { continue };
        let echo = &asked[HEADER..HEADER + query.question.bytes().len()];
        let answer = [&ID.to_be_bytes()[..], &head[..2], &[0, 1], &head[2..], echo, rest].concat();
        let Ok(response) = Response::read(&answer, &query, ID, &domain) else { continue };
        let _ = (response.is_cut(), response.is_failure(), response.is_about_us());
        for transport in [Transport::Udp, Transport::Tcp] {
            let passed = response.for_guest(&query, transport);
            assert!(passed.len() <= query.longest(transport));
            check(&passed, &query);
        }
    }
}

/// Reads an answer to a guest to its end.
fn check(answer: &[u8], query: &DnsQuery) {
    let header = Header::read(answer).expect("a header");
    assert!(header.flags & RESPONSE != 0 && header.id == query.id && header.counts[0] == 1);
    assert_eq!(header.counts[3], u16::from(header.counts[3] > 0), "EDNS at most");
    assert!(query.has_edns() || header.counts[3] == 0, "and to those who know it");
    let (question, mut at) = Question::read(answer, HEADER).expect("a question");
    assert_eq!(question, query.question);
    let records: u32 = header.counts[1..].iter().map(|count| u32::from(*count)).sum();
    for _ in 0..records {
        at = ResourceRecord::read(answer, at).expect("a record").1;
    }
    assert_eq!(at, answer.len(), "nothing else");
}

/// Three VMs ask, resolvers answer or do not, forgers guess, and time passes, as any bytes say,
/// four for each step. Every question that is passed on ends, once, and none is overdue. The fuzzer
/// and the test of its corpus call this.
pub fn passing(bytes: &[u8]) {
    let mut forwarder = Forwarder::default();
    let (mut now, mut asked, mut ended) = (0, 0, 0);
    // The last message of each question that waits.
    let mut open: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    for step in bytes.chunks_exact(4) {
        let [kind, who, what, how] = [step[0], step[1], step[2], step[3]];
        let key = open.keys().nth(usize::from(who) % open.len().max(1)).copied();
        let id = u16::from_be_bytes([what, how]);
        let next = match (kind % 4, key) {
            (0, _) | (_, None) => {
                let vm = VmName::new(&format!("vm{}", who % 3)).expect("a name");
                if let Some((key, _)) = forwarder.make_room(&vm) {
                    open.remove(&key);
                    asked -= 1;
                }
                let resolver = |n| Resolver { ip: [192, 0, 2, n].into(), link: None };
                let passed = PassedOn {
                    query: DnsQuery::read(&question("www.example.com", A, None)).expect("one"),
                    domain: DomainName::of_text("volnet").expect("a name"),
                    resolvers: (0..how % 4).map(resolver).collect(),
                };
                let (back, transport) = ((who, what), Transport::Udp);
                let next = forwarder.ask(Asked { vm, back, transport, passed }, id, now);
                asked += u32::from(next != Next::Wait);
                next
            }
            (1, Some(key)) => {
                let mut answer = open[&key].clone();
                answer[2] |= 0x80 | how & 0x02;
                answer[3] |= what & 0x0f;
                forwarder.heard(key, &answer, id, now)
            }
            (2, Some(key)) => forwarder.heard(key, step, id, now),
            (_, Some(key)) => {
                now += u64::from(how) * 10;
                match forwarder.due(now) {
                    Some(due) => forwarder.failed(due, id, now),
                    None => forwarder.failed(key, id, now),
                }
            }
        };
        ended += keep(&mut open, next);
        while let Some(due) = forwarder.due(now) {
            ended += keep(&mut open, forwarder.failed(due, id, now));
        }
        assert!(forwarder.deadline().is_none_or(|at| at > now), "overdue");
        assert!(forwarder.len() <= ALL_MAX && forwarder.len() <= 3 * PER_VM_MAX);
        open.retain(|key, _| forwarder.waits(*key));
        assert_eq!((open.len(), asked), (forwarder.len(), ended + forwarder.len() as u32));
    }
}

/// Notes the next message of a question; one, if it has ended.
fn keep(open: &mut BTreeMap<Key, Vec<u8>>, next: Next<(u8, u8)>) -> u32 {
    match next {
        Next::Wait => 0,
        Next::Ask { key, message, .. } => {
            open.insert(key, message);
            0
        }
        Next::Reply { .. } => 1,
    }
}

/// Says where names and records differ: who has an address is found by it and asks from it, nobody
/// else is or does, and a VM is found by its name.
pub fn disagreement(engine: &Engine) -> Option<String> {
    let placed: Vec<_> = engine.vms().filter(|vm| vm.stranded.is_none()).collect();
    for network in engine.configured() {
        let nics = placed.iter().flat_map(|vm| {
            vm.record.nics.iter().map(|nic| (&vm.record.name, nic.network.as_str(), nic.address()))
        });
        let here = nics.filter(|(_, on, _)| *on == network.name);
        let held: BTreeMap<Ipv4Addr, &VmName> =
            here.filter_map(|(name, _, address)| Some((address?, name))).collect();
        let first = network.ipv4.map(|ipv4| ipv4.prefix.network().to_bits());
        let first = first.into_iter().flat_map(|first| first..first + ADDRESSES_MAX);
        for address in first.map(Ipv4Addr::from_bits) {
            let owner = match held.get(&address) {
                _ if !network.contains(address.into()) => break,
                _ if network.is_host(address.into()) => Owner::Host,
                Some(name) => Owner::Vm(name),
                None => Owner::Nobody,
            };
            let found = engine.owner_of_address(network, Asker::Host, address.into());
            let asks = match engine.asker(network, address.into()) {
                None => Owner::Nobody,
                Some(Asker::Host) => Owner::Host,
                Some(Asker::Guest { vm, .. }) => Owner::Vm(vm),
            };
            // Of an address that moves, one of the VMs that may use it asks.
            let may_move = |vm: &VmName| {
                let named = placed.iter().find(|it| it.record.name == *vm);
                named.is_some_and(|vm| {
                    vm.record.interfaces().any(|(nic, spec)| {
                        nic.network == network.name && spec.addresses.contains(&address)
                    })
                })
            };
            let moves = matches!(asks, Owner::Vm(vm) if may_move(vm));
            if found != owner || asks != owner && !(owner == Owner::Nobody && moves) {
                return Some(format!(
                    "{address} is {owner:?}, not {found:?}, and asks as {asks:?}"
                ));
            }
        }
        for (address, name) in held {
            let label = name.as_str();
            let plain = label != GATEWAY && label == label.to_ascii_lowercase();
            let found = engine.addresses_of(network, Asker::Host, label).unwrap_or_default();
            if plain && !found.contains(&IpAddr::V4(address)) {
                return Some(format!("{name} leads to {found:?}, not to {address}"));
            }
        }
    }
    None
}
