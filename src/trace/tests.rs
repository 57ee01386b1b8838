//! Ways from what a kernel would tell.

use super::*;
use crate::model::net::NetworkConfig;

const TAP: u32 = 7;

fn place(chain: &str, rule: Option<u64>) -> Place {
    Place { family: "inet", table: "own".into(), chain: chain.into(), rule }
}

fn flow(to: &str) -> Flow {
    let from = Some("192.0.2.9".parse().unwrap());
    Flow { what: What::Ip(6), from, to: Some(to.parse().unwrap()), ports: Some((4000, 80)) }
}

fn told(chain: &str, outcome: Outcome, id: u32, flow: Option<Flow>) -> Told {
    let in_link = (chain == "first").then_some(TAP);
    Told { place: place(chain, Some(5)), outcome, id, in_link, out_link: None, flow }
}

fn book() -> Book {
    let network = NetworkConfig::sample("default", "vbr0", "192.0.2.0/24", "192.0.2.1");
    let chains = [("first", true), ("forward", false)];
    let key = |chain: &str| ("inet", "own".to_string(), chain.to_string());
    let chains = chains.into_iter().map(|(chain, first)| (key(chain), first)).collect();
    Book { chains, networks: vec![(network, false)], ..Book::default() }
}

fn ends(trace: &Trace) -> Vec<(u64, TraceEnd)> {
    trace.ways(&book()).iter().map(|way| (way.packets, way.end)).collect()
}

#[test]
fn a_packet_is_followed_by_its_number_and_by_its_addresses() {
    let mut trace = Trace::new(vec![TAP], Wanted::default());
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
    assert_eq!(ways[0].steps, ["passed: rule 5 in chain first of table inet own", translated]);
    // What others trace is not told of.
    trace.take(&told("forward", Outcome::Drop, 77, Some(flow("203.0.113.77"))));
    assert_eq!(ends(&trace).len(), 1);
}

#[test]
fn only_what_was_asked_for_is_told_and_it_is_over_when_that_is_known() {
    let to = "203.0.113.2".parse().unwrap();
    let mut trace = Trace::new(vec![TAP], Wanted { to: Some(to), port: Some(80) });
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
fn what_is_new_is_told_once_and_again_if_it_changes() {
    let mut trace = Trace::new(vec![TAP], Wanted::default());
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
    let mut trace = Trace::new(vec![TAP], Wanted::default());
    for number in 0..20_000_u32 {
        let to = std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
        trace.take(&told("first", Outcome::Accept, number, Some(flow(&to))));
        trace.take(&told(&format!("chain{number}"), Outcome::Accept, 3, None));
    }
    assert_eq!(trace.ways.len(), WAYS_MAX);
    assert!(trace.ids.len() <= IDS_MAX);
    assert!(trace.ways.iter().all(|way| way.steps.len() <= STEPS_MAX));
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
