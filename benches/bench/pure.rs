//! What costs nothing but time: addresses, links and requests, in nanoseconds.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use volnet::engine::ipam::AddressPool;
use volnet::netlink::rtnl::link::{self, LinkMessage};
use volnet::network::linux::socket::{NetlinkFamily, Socket};
use volnet::protocol::frame::Decoder;
use volnet::protocol::request;

use crate::client;
use crate::record::Record;
use crate::stage::Stage;

/// How many operations are timed together, to be longer than the clock is coarse.
const TOGETHER: usize = 1000;
/// How many such samples are taken.
const SAMPLES: usize = 200;
/// Addresses of a /8 that are left free: about one in ten thousand.
const LEFT_FREE: usize = 1600;

/// Measures all three; `crowded` is a namespace with `links` VMs.
pub(crate) fn measure(crowded: &Stage, links: usize, record: &mut Record) {
    addresses(record);
    parsed_links(crowded, links, record);
    requests(record);
}

fn time(what: &str, vms: Option<usize>, record: &mut Record, mut body: impl FnMut()) {
    for _ in 0..TOGETHER {
        body();
    }
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TOGETHER {
                body();
            }
            start.elapsed().as_nanos() as f64 / TOGETHER as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    record.value(what, "volnet", vms, samples[SAMPLES / 2], "ns");
}

/// A pool in which only a few addresses, far apart, are free.
fn addresses(record: &mut Record) {
    let prefix = "10.0.0.0/8".parse().expect("a prefix");
    let mut pool = AddressPool::new(prefix, Ipv4Addr::new(10, 0, 0, 1)).expect("a pool");
    let mut leased = Vec::new();
    while let Some(address) = pool.lease(&[]) {
        leased.push(address);
    }
    let mut held: Vec<Ipv4Addr> =
        leased.iter().copied().step_by(leased.len() / LEFT_FREE).collect();
    for address in &held {
        pool.release(*address);
    }
    held.clear();
    time("lease and release an address in a full /8", None, record, || {
        held.push(pool.lease(&[]).expect("a free address"));
        if held.len() > LEFT_FREE / 2 {
            pool.release(held.swap_remove(0));
        }
    });
}

fn parsed_links(crowded: &Stage, links: usize, record: &mut Record) {
    crowded.enter();
    let mut socket = Socket::open(NetlinkFamily::Route).expect("rtnetlink");
    let payloads = socket
        .dump(link::dump, |message| Ok(Some(message.payload.to_vec())))
        .expect("a dump of all links");
    let mut next = payloads.iter().cycle();
    time("parse a link", Some(links), record, || {
        let payload = next.next().expect("a link");
        black_box(LinkMessage::read(black_box(payload)).expect("a link"));
    });
}

fn requests(record: &mut Record) {
    let message = client::create("web-1", false);
    let mut decoder = Decoder::default();
    time("frame a request", None, record, || {
        decoder.push(black_box(&message));
        black_box(decoder.take().expect("a message").expect("all of it"));
    });
    time("decode a request", None, record, || {
        assert!(request::decode(black_box(&message)).is_ok());
    });
}
