//! Ways from what a kernel would tell.

use super::*;
use crate::model::expose::Protocol;
use crate::model::net::NetworkConfig;

const TAP: u32 = 7;

/// `first` is where packets are marked.
fn place(chain: &str, rule: Option<u64>) -> Place {
    let (table, chain) = match chain {
        "first" => (TRACE_TABLE, ARRIVING),
        chain => ("own", chain),
    };
    Place { family: "inet", table: table.into(), chain: chain.into(), rule }
}

fn guest(tap: u32) -> Guest {
    Guest { taps: vec![(tap, format!("tap{tap}"))], ..Guest::default() }
}

fn flow(to: &str) -> Flow {
    let from = Some("192.0.2.9".parse().unwrap());
    let to = Some(to.parse().unwrap());
    Flow {
        what: What::Ip(6),
        from,
        to,
        ports: Some((4000, 80)),
        kind: 0,
        reset: false,
        fragment: None,
        later: false,
    }
}

fn told(chain: &str, outcome: Outcome, id: u32, flow: Option<Flow>) -> Told {
    let in_link = (chain == "first").then_some(TAP);
    Told { place: place(chain, Some(5)), outcome, id, in_link, out_link: None, flow }
}

fn book() -> Book {
    let network = NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1");
    let chains = [("first", true), ("forward", false)];
    let key = |chain: &str| {
        let Place { family, table, chain, .. } = place(chain, None);
        (family, table, chain)
    };
    let chains = chains.into_iter().map(|(chain, first)| (key(chain), first)).collect();
    Book { chains, networks: vec![(network, false)], ..Book::default() }
}

fn ends(trace: &Trace) -> Vec<(u64, TraceEnd)> {
    trace.ways(&book()).iter().map(|way| (way.packets, way.end)).collect()
}

#[test]
fn a_packet_is_followed_by_its_number_and_by_its_addresses() {
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    let there = flow("203.0.113.2");
    for id in [1, 2] {
        trace.take(&told("first", Outcome::Accept, id, Some(there)));
    }
    assert_eq!(ends(&trace), [(2, TraceEnd::Lost)]);
    // Behind the bridge it has another number.
    trace.take(&told("nat", Outcome::Continue, 9, Some(there)));
    trace.take(&told("forward", Outcome::Drop, 9, Some(flow("198.51.100.1"))));
    let ways = trace.ways(&book());
    assert_eq!(ways.len(), 1, "{ways:#?}");
    assert_eq!(ways[0].packet, "tcp from 192.0.2.9 to 203.0.113.2:80");
    assert_eq!(ways[0].end, TraceEnd::Dropped);
    assert_eq!(ways[0].message, "dropped by rule 5 in chain forward of table inet own");
    let translated = "translated: its destination 203.0.113.2 became 198.51.100.1, by rule 5 in \
                      chain nat of table inet own";
    let marked = "passed: rule 5 in chain arriving of table inet volnet-trace";
    assert_eq!(ways[0].steps, [marked, translated]);
    // What others trace is not told of.
    trace.take(&told("forward", Outcome::Drop, 77, Some(flow("203.0.113.77"))));
    assert_eq!(ends(&trace).len(), 1);
}

#[test]
fn only_what_was_asked_for_is_told_and_it_is_over_when_that_is_known() {
    let to = "203.0.113.2".parse().unwrap();
    let mut trace =
        Trace::new(guest(TAP), Wanted { to: Some(to), port: Some(80), ..Wanted::default() });
    trace.take(&told("first", Outcome::Drop, 1, Some(flow("203.0.113.3"))));
    let arp = Flow { what: What::Arp, ports: None, ..flow("192.0.2.1") };
    trace.take(&told("first", Outcome::Drop, 2, Some(arp)));
    assert!(!trace.is_over());
    trace.take(&told("first", Outcome::Accept, 3, Some(flow("203.0.113.2"))));
    assert!(!trace.is_over());
    trace.take(&told("forward", Outcome::Drop, 3, None));
    assert!(trace.is_over());
    assert_eq!(ends(&trace), [(1, TraceEnd::Dropped), (1, TraceEnd::Dropped)]);
}

#[test]
fn a_packet_of_another_that_is_traced_is_not_mixed_in() {
    const OTHER: u32 = 8;
    let mut traces = [TAP, OTHER].map(|tap| Trace::new(guest(tap), Wanted::default()));
    let own = flow("203.0.113.2");
    let theirs = Flow { from: Some("192.0.2.10".parse().unwrap()), ..own };
    let bridged = |link, id, flow| {
        let place = Place { family: "bridge", ..place("first", Some(1)) };
        let outcome = Outcome::Accept;
        Told { place, outcome, id, in_link: Some(link), out_link: None, flow: Some(flow) }
    };
    let routed =
        |id, outcome, flow| Told { in_link: Some(3), ..told("forward", outcome, id, Some(flow)) };
    for told in [
        bridged(TAP, 1, own),
        bridged(OTHER, 2, theirs),
        routed(11, Outcome::Accept, own),
        routed(12, Outcome::Drop, theirs),
        // Another with the same address on its tap, which a rule translates; and the number of a
        // packet that was told of.
        bridged(OTHER, 3, own),
        told("first", Outcome::Drop, 3, None),
        bridged(OTHER, 1, own),
        told("first", Outcome::Drop, 1, None),
    ] {
        traces[0].take(&told);
        traces[1].take(&told);
    }
    assert_eq!(ends(&traces[0]), [(1, TraceEnd::Unanswered)]);
    assert_eq!(ends(&traces[1]), [(1, TraceEnd::Dropped), (2, TraceEnd::Dropped)]);
    // The guest has two addresses.
    traces[0].take(&bridged(TAP, 4, theirs));
    let ways = traces[0].ways(&book());
    let packets: Vec<&str> = ways.iter().map(|way| &*way.packet).collect();
    assert_eq!(packets[1], "tcp from 192.0.2.10 to 203.0.113.2:80");
    assert!(!format!("{ways:?}").contains("translated"), "{ways:#?}");
}

#[test]
fn a_packet_is_followed_behind_each_of_its_translations() {
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    let own = flow("203.0.113.2");
    let led = Flow { to: Some("198.51.100.1".parse().unwrap()), ..own };
    let hidden = Flow { from: Some("198.51.100.9".parse().unwrap()), ..led };
    for told in [
        told("first", Outcome::Accept, 1, Some(own)),
        told("nat", Outcome::Accept, 11, Some(own)),
        // A number that nobody knows: its addresses could be anybody's.
        told("forward", Outcome::Drop, 21, Some(led)),
        told("forward", Outcome::Accept, 11, Some(led)),
        told("out", Outcome::Accept, 11, Some(hidden)),
    ] {
        trace.take(&told);
    }
    assert_eq!(ends(&trace), [(1, TraceEnd::Unanswered)]);
    // From now on they are known.
    trace.take(&told("forward", Outcome::Drop, 99, Some(led)));
    let ways = trace.ways(&book());
    let destination = "its destination 203.0.113.2 became 198.51.100.1";
    let source = "its source 192.0.2.9 became 198.51.100.9";
    let told: Vec<&str> =
        ways[0].steps.iter().filter_map(|step| step.strip_prefix("translated: ")).collect();
    assert!(told[0].starts_with(destination) && told[1].starts_with(source), "{told:?}");
    assert_eq!((told.len(), ways.len(), ways[0].end), (2, 1, TraceEnd::Dropped));
}

/// A frame of IPv4 to the guest.
fn frame(from: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(0x0800_u16.to_be_bytes());
    frame.extend(packet(from, "192.0.2.9", protocol, rest));
    frame
}

fn packet(from: &str, to: &str, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    (packet[0], packet[9]) = (0x45, protocol);
    for (at, address) in [(12, from), (16, to)] {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        packet[at..at + 4].copy_from_slice(&address.octets());
    }
    packet.extend(rest);
    packet
}

fn ports(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat()
}

#[test]
fn an_error_is_of_the_packets_that_it_quotes_and_no_answer() {
    let there = "203.0.113.2";
    let tcp = flow(there);
    let udp = Flow { what: What::Ip(17), ports: Some((4000, 53)), ..tcp };
    let echo = Flow { what: What::Ip(1), ports: None, kind: 8, ..tcp };
    let all = || {
        let mut trace = Trace::new(guest(TAP), Wanted::default());
        for (id, flow) in (1..).zip([tcp, udp, echo]) {
            let routed = told("forward", Outcome::Accept, id, None);
            trace.take(&told("first", Outcome::Accept, id, Some(flow)));
            trace.take(&routed);
        }
        trace
    };
    let ends = |trace: &Trace| ends(trace).into_iter().map(|(_, end)| end).collect::<Vec<_>>();
    let (open, refused) = (TraceEnd::Unanswered, TraceEnd::Refused);
    let error = |protocol, quoted: &[u8]| {
        let inner = packet("192.0.2.9", there, protocol, quoted);
        frame(there, 1, &[&[3, 3, 0, 0, 0, 0, 0, 0], &*inner].concat())
    };
    for (protocol, quoted, expected) in [
        (17, ports(4000, 53), [open, refused, open]),
        (17, ports(4000, 54), [open, open, open]),
        (6, ports(4001, 80), [refused, open, open]),
        (1, vec![8, 0, 0, 0], [open, open, refused]),
        // It quotes no more than addresses.
        (6, vec![], [refused, open, open]),
    ] {
        let mut trace = all();
        trace.overhear(&error(protocol, &quoted));
        assert_eq!(ends(&trace), expected, "{protocol} {quoted:?}");
    }
    let mut trace = all();
    // It asks, too.
    trace.overhear(&frame(there, 1, &[8, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(ends(&trace), [open; 3]);
    trace.overhear(&frame(there, 1, &[0; 8]));
    assert_eq!(ends(&trace), [open, open, TraceEnd::Answered]);
}

#[test]
fn an_answer_to_any_port_of_the_guest_counts() {
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    let first = flow("203.0.113.2");
    let again = Flow { ports: Some((4001, 80)), ..first };
    for (id, flow) in [(1, first), (2, again)] {
        trace.take(&told("first", Outcome::Accept, id, Some(flow)));
    }
    trace.overhear(&frame("203.0.113.2", 6, &ports(443, 4001)));
    trace.overhear(&frame("203.0.113.3", 6, &ports(80, 4001)));
    assert_eq!(ends(&trace), [(2, TraceEnd::Lost)]);
    trace.overhear(&frame("203.0.113.2", 6, &ports(80, 4001)));
    assert_eq!(ends(&trace), [(2, TraceEnd::Answered)]);
}

#[test]
fn what_is_new_is_told_once_and_again_if_it_changes() {
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    let there = flow("203.0.113.2");
    let news = |trace: &mut Trace, now: u64| -> Vec<(u64, TraceEnd)> {
        trace.news(&book(), now).iter().map(|way| (way.packets, way.end)).collect()
    };
    trace.take(&told("first", Outcome::Accept, 1, Some(there)));
    assert_eq!(news(&mut trace, 0), [], "it may be answered yet");
    assert_eq!(news(&mut trace, UNANSWERED_MS - 1), []);
    assert_eq!(news(&mut trace, UNANSWERED_MS), [(1, TraceEnd::Lost)]);
    trace.take(&told("first", Outcome::Accept, 2, Some(there)));
    assert_eq!(news(&mut trace, 2 * UNANSWERED_MS), [], "another packet is nothing new");
    trace.take(&told("forward", Outcome::Drop, 2, None));
    assert_eq!(news(&mut trace, 2 * UNANSWERED_MS + 1), [(2, TraceEnd::Dropped)]);
    let other = flow("203.0.113.3");
    trace.take(&told("first", Outcome::Accept, 3, Some(other)));
    let rest: Vec<TraceEnd> = trace.rest(&book()).iter().map(|way| way.end).collect();
    assert_eq!(rest, [TraceEnd::Lost], "only what was not told");
}

#[test]
fn what_a_guest_can_make_grow_is_bounded() {
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    for number in 0..20_000_u32 {
        let to = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        trace.take(&told("first", Outcome::Accept, number, Some(flow(&to))));
        trace.take(&told(&format!("chain{number}"), Outcome::Accept, 3, None));
    }
    assert_eq!(trace.ways.len(), WAYS_MAX);
    assert!(trace.ids.len() <= IDS_MAX);
    assert!(trace.ways.iter().all(|way| way.there.steps.len() <= STEPS_MAX));
}

#[test]
fn headers_that_are_cut_anywhere_are_no_flow_and_no_harm() {
    let frame = crate::packet::arp::question(
        crate::model::mac::Mac([2; 6]),
        "192.0.2.9".parse().unwrap(),
        "192.0.2.1".parse().unwrap(),
    );
    assert_eq!(Flow::of_frame(&frame).unwrap().to_string(), "arp from 192.0.2.9 for 192.0.2.1");
    for length in 0..frame.len() {
        assert_eq!(Flow::of_frame(&frame[..length]), None, "{length}");
        assert_eq!(flow::error_of(&frame[..length]), None);
    }
}

#[test]
fn what_comes_to_a_guest_begins_where_it_arrives_and_its_answers_where_the_guest_sends() {
    let exposed = Expose {
        protocol: Protocol::Tcp,
        port: 8,
        host_port: 80,
        count: 1,
        host_ip: None,
        name: None,
    };
    let addresses = vec!["192.0.2.9".parse().unwrap()];
    let guest = Guest { addresses, exposed: vec![exposed], ..guest(TAP) };
    let world = Wanted { sender: Sender::World, ..Wanted::default() };
    let asked = flow("198.51.100.1");
    let asked = Flow { from: Some("203.0.113.2".parse().unwrap()), ..asked };
    let led = Flow { to: Some("192.0.2.9".parse().unwrap()), ports: Some((4000, 8)), ..asked };
    let answer = |flow: Flow| Flow {
        from: flow.to,
        to: flow.from,
        ports: flow.ports.map(|(from, to)| (to, from)),
        ..flow
    };
    let from = |link, told: Told| Told { in_link: Some(link), ..told };
    let by = |link: &str, told: Told| Told { out_link: Some(link.into()), ..told };
    let leaves = |link: &str, id, flow| {
        let place = Place { table: TRACE_TABLE.into(), chain: LEAVING.into(), ..place("", None) };
        by(link, Told { place, ..told("", Outcome::Continue, id, Some(flow)) })
    };
    let to_guest = [
        from(3, told("first", Outcome::Continue, 1, Some(asked))),
        // Its number changes with its destination.
        by("vbr0", from(3, told("forward", Outcome::Accept, 2, Some(led)))),
        leaves("tap7", 2, led),
    ];
    let all = |more: &[Told]| {
        let mut trace = Trace::new(guest.clone(), world);
        to_guest.iter().chain(more).for_each(|told| trace.take(told));
        trace.ways(&book())
    };
    let ways = all(&[]);
    assert_eq!(ways[0].packet, "tcp from 203.0.113.2 to 198.51.100.1:80");
    let became = "its destination 198.51.100.1:80 became 192.0.2.9:8";
    assert!(ways[0].steps.iter().any(|step| step.contains(became)), "{ways:#?}");
    assert_eq!((ways.len(), ways[0].end), (1, TraceEnd::Unanswered));
    let spoken = from(TAP, told("first", Outcome::Continue, 5, Some(answer(led))));
    let dropped = [spoken.clone(), told("forward", Outcome::Drop, 5, None)];
    assert_eq!(all(&dropped)[0].end, TraceEnd::Dropped);
    assert_eq!(all(std::slice::from_ref(&spoken))[0].end, TraceEnd::Lost);
    let left = [spoken, leaves("uplink", 5, answer(asked))];
    assert_eq!(all(&left)[0].end, TraceEnd::Answered);
    let error = Flow { what: What::Ip(1), ports: None, kind: 3, ..answer(led) };
    let refused = from(TAP, told("first", Outcome::Continue, 6, Some(error)));
    assert_eq!(all(&[refused])[0].end, TraceEnd::Refused);
    // For another port, and from somebody else than was asked for.
    let other = Flow { ports: Some((4000, 81)), ..asked };
    let told = from(3, told("first", Outcome::Continue, 9, Some(other)));
    assert_eq!(all(&[told]).len(), 1);
    let somebody = Wanted { sender: Sender::Address("203.0.113.3".parse().unwrap()), ..world };
    let mut trace = Trace::new(guest.clone(), somebody);
    to_guest.iter().for_each(|told| trace.take(told));
    assert_eq!(trace.ways(&book()), []);
}

#[test]
fn a_fragment_goes_the_way_of_the_first_and_another_port_of_the_sender_is_told() {
    let part = |identification: u16, flags: u16, ports: &[u8]| {
        let mut packet = packet("192.0.2.9", "203.0.113.2", 17, ports);
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        Flow::of_headers([&[], &packet, &packet[20..]])
    };
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    trace.take(&told("first", Outcome::Continue, 1, part(7, 0x2000, &ports(4000, 53))));
    for (id, flags) in [(2, 0x20b9), (3, 0x0172)] {
        trace.take(&told("first", Outcome::Continue, id, part(7, flags, &ports(1, 2))));
        trace.take(&told("forward", Outcome::Accept, id, None));
    }
    let ways = trace.ways(&book());
    assert_eq!((ways.len(), ways[0].packets), (1, 1), "{ways:#?}");
    // Its first part was not seen.
    trace.take(&told("first", Outcome::Continue, 4, part(8, 0x0172, &ports(1, 2))));
    assert_eq!(trace.ways(&book())[1].packet, "udp from 192.0.2.9 to 203.0.113.2");

    let own = flow("203.0.113.2");
    let mut trace = Trace::new(guest(TAP), Wanted::default());
    for (id, port, became) in [(1, 4000, 1024), (2, 4001, 1025)] {
        let own = Flow { ports: Some((port, 80)), ..own };
        trace.take(&told("first", Outcome::Accept, id, Some(own)));
        let became = Flow { ports: Some((became, 80)), ..own };
        trace.take(&told("out", Outcome::Accept, id, Some(became)));
    }
    let steps = trace.ways(&book()).remove(0).steps;
    let translated: Vec<&String> =
        steps.iter().filter(|step| step.starts_with("translated")).collect();
    assert_eq!(translated, ["translated: its source 192.0.2.9:4000 became 192.0.2.9:1024"]);
}
