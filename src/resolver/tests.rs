//! What becomes of sockets, on those of the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;

use super::*;
use crate::dns::DomainName;
use crate::dns::forward::ALL_MAX;
use crate::dns::query::DnsQuery;
use crate::dns::resolvers::Resolver;

const NETWORK: &str = "default";
const ANSWER: &[u8] = b"an answer";

/// Answers each question with the same.
struct Answers;

impl Directory for Answers {
    fn question(&mut self, _: &str, _: IpAddr, _: Transport, _: &[u8]) -> Verdict {
        Verdict::Answer(ANSWER.to_vec())
    }

    fn client(&self, _: &str, _: IpAddr) -> Option<Client> {
        None
    }
}

fn vm(name: &str) -> VmName {
    VmName::new(name).unwrap()
}

/// `number.example`, as it is passed on to this many resolvers.
fn passed(number: usize, resolvers: u8) -> PassedOn {
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4];
    message.extend(format!("{number:04}").bytes());
    message.extend(b"\x07example\0\0\x01\0\x01");
    let resolver = |n: u8| Resolver { ip: Ipv4Addr::new(192, 0, 2, n).into(), link: None };
    PassedOn {
        query: DnsQuery::read(&message).unwrap(),
        domain: DomainName::of_text("volnet").unwrap(),
        resolvers: (0..resolvers).map(resolver).collect::<Rc<[Resolver]>>(),
    }
}

/// Has this many questions of a VM wait.
fn fill(names: &mut Names, of: &str, back: Back, count: usize) {
    for number in 0..count {
        let (vm, passed) = (vm(of), passed(number, 1));
        let question = Question { vm, back, transport: Transport::Tcp, passed };
        assert!(matches!(names.forwarder.ask(question, 1, 0), Next::Ask { .. }));
    }
}

/// A connection of a VM, and its other end.
fn connected(names: &mut Names, of: &str) -> (Token, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, from) = listener.accept().unwrap();
    names.accept(NETWORK.into(), Client::Vm(vm(of)), (stream, from.ip()), 0);
    (names.last, other)
}

#[test]
fn a_connection_whose_question_is_lost_takes_the_next() {
    let mut names = Names::new().unwrap();
    let (token, mut guest) = connected(&mut names, "greedy");
    // So many wait that it reads no more. Then it is relieved of the oldest.
    fill(&mut names, "greedy", Back::Connection(token), 16);
    names.connections.get_mut(&token).unwrap().waits = 16;
    guest.write_all(b"\0\x01?").unwrap();
    for number in 0..(ALL_MAX - 16) / 12 {
        fill(&mut names, &format!("vm{number}"), Back::Datagram(0, ([0; 4], 0).into()), 12);
    }
    let (late, back) = (vm("late"), Back::Datagram(0, ([0; 4], 0).into()));
    assert_eq!(names.forwarder.len(), ALL_MAX);
    names.pass_on(late, back, Transport::Udp, passed(0, 0), &mut Answers, 0);
    assert_eq!(names.connections[&token].waits, 15);
    names.tick(&mut Answers, 0);
    names.turn(&mut Answers, 0);
    let mut answer = [0; 2 + ANSWER.len()];
    guest.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[2..], ANSWER);
}

#[test]
fn a_socket_that_cannot_accept_rests() {
    let mut names = Names::new().unwrap();
    // A socket that is ready and has nothing to accept, now or later.
    let (ready, other) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(other);
    let listener = Listener::Tcp(std::os::fd::OwnedFd::from(ready).into());
    names.hear_by(vec![Listening { network: NETWORK.into(), listener }]).unwrap();
    for now in [0, REST_MS] {
        names.tick(&mut Answers, now);
        names.turn(&mut Answers, now);
        assert_eq!(names.deadline(), Some(now + REST_MS));
        assert_eq!(names.resting.len(), 1);
    }
}
