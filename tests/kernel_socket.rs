//! The request socket distrusts what it receives.

#![cfg(target_os = "linux")]

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use common::in_namespace;
use neli::consts::nl::Nlmsg;
use neli::consts::rtnl::Rtm;
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, send, sendto};
use volnet::netlink::message::{DUMP, REQUEST};
use volnet::netlink::rtnl::AF_UNSPEC;
use volnet::netlink::rtnl::link::{self, LinkMessage, Target};
use volnet::netlink::writer::Writer;
use volnet::network::linux::socket::{Error, NetlinkFamily, Socket, open};
use volnet::network::linux::worker::Worker;
use volnet::network::linux::{addresses, links, tap};

fn socket() -> Socket {
    Socket::open(NetlinkFamily::Route).unwrap()
}

/// Asks for the loopback link, which is there in every namespace.
fn ask(socket: &mut Socket) -> Result<bool, Error> {
    let mut found = false;
    socket
        .request_and(
            1,
            |writer, sequence| link::get(writer, sequence.take(), Target::Name("lo")),
            |message| {
                found = LinkMessage::read(message.payload)?.name == b"lo";
                Ok(())
            },
        )
        .map(|()| found)
}

/// An error or acknowledgement as the kernel would send it.
fn forged(sequence: u32, errno: i32) -> Vec<u8> {
    let mut writer = Writer::new();
    let message = writer.message(Nlmsg::Error.into(), 0, sequence);
    writer.raw(&(-errno).to_ne_bytes());
    writer.raw(&[0; 16]);
    writer.close_message(message);
    writer.finish().unwrap().to_vec()
}

#[test]
fn what_another_process_sends_is_no_answer() {
    in_namespace(|| {
        let mut socket = socket();
        let address: NetlinkAddr = getsockname(socket.as_fd().as_raw_fd()).unwrap();
        let stranger = open(NetlinkFamily::Route).unwrap();
        for sequence in 0..100 {
            let bytes = forged(sequence, libc::EPERM);
            let to = NetlinkAddr::new(address.pid(), 0);
            sendto(stranger.as_raw_fd(), &bytes, &to, MsgFlags::empty()).unwrap();
        }
        assert!(ask(&mut socket).unwrap());
    });
}

#[test]
fn the_answer_to_an_earlier_request_is_passed_over() {
    in_namespace(|| {
        let mut socket = socket();
        assert!(ask(&mut socket).unwrap());
        // A request beside the socket's own, never read: what one that was given up leaves behind.
        let mut writer = Writer::new();
        link::delete(&mut writer, 1, Target::Name("none"));
        let raw = socket.as_fd().as_raw_fd();
        send(raw, writer.finish().unwrap(), MsgFlags::empty()).unwrap();
        assert!(ask(&mut socket).unwrap());
    });
}

#[test]
fn a_request_without_an_answer_is_an_error_and_not_a_wait() {
    in_namespace(|| {
        let mut socket = socket();
        let result = socket.request(1, |writer, sequence| {
            // A change that asks for no acknowledgement.
            let message = writer.message(Rtm::Setlink.into(), REQUEST, sequence.take());
            writer.raw(&[AF_UNSPEC, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            writer.close_message(message);
        });
        assert!(matches!(result, Err(Error::Silent)), "{result:?}");
        let failure = result.unwrap_err().failure("ask", "nobody");
        assert_eq!(failure.to_string(), "ask nobody: the kernel gave no answer (errno 71)");
        assert!(ask(&mut socket).unwrap(), "the socket is good for the next");
    });
}

#[test]
fn a_request_that_does_not_fit_is_not_sent() {
    in_namespace(|| {
        let mut socket = socket();
        let long = "x".repeat(70_000);
        let result = socket.request(1, |writer, sequence| {
            link::delete(writer, sequence.take(), Target::Name(&long));
        });
        assert!(matches!(result, Err(Error::Unsendable(_))), "{result:?}");
        assert!(ask(&mut socket).unwrap());
    });
}

#[test]
fn an_answer_that_cannot_be_read_leaves_the_socket_usable() {
    in_namespace(|| {
        let mut socket = socket();
        let unreadable = volnet::netlink::Error::Unknown;
        let dumped = socket.dump::<()>(link::dump, |_| Err(unreadable));
        assert!(matches!(dumped, Err(Error::Codec(error)) if error == unreadable));
        let asked = socket.request_and(
            1,
            |writer, sequence| link::get(writer, sequence.take(), Target::Name("lo")),
            |_| Err(unreadable),
        );
        assert!(matches!(asked, Err(Error::Codec(error)) if error == unreadable));
        assert!(ask(&mut socket).unwrap());
        assert_eq!(socket.dump(link::dump, |_| Ok(Some(()))).unwrap().len(), 1);
    });
}

fn make_bridges(socket: &mut Socket, count: usize) {
    for number in 0..count {
        let made = socket.request(1, |writer, sequence| {
            let name = format!("stable{number}");
            link::new_bridge(writer, sequence.take(), &name, [2; 6], None);
        });
        made.unwrap();
    }
}

/// Makes and removes links as fast as it can until it is told to stop.
fn churn(stop: &AtomicBool, name: &str) {
    let mut other = socket();
    while !stop.load(Ordering::Relaxed) {
        let churn = other.request(2, |writer, sequence| {
            link::new_bridge(writer, sequence.take(), name, [2; 6], None);
            link::delete(writer, sequence.take(), Target::Name(name));
        });
        churn.unwrap();
    }
}

/// However fast others make and remove links, reading them comes to an end, and none is missing
/// that was there all the time.
#[test]
fn links_are_read_while_others_change_them_without_end() {
    const STABLE: usize = 400;
    const CHURNING: [&str; 4] = ["churn0", "churn1", "churn2", "churn3"];
    in_namespace(|| {
        let mut socket = socket();
        make_bridges(&mut socket, STABLE);
        let stop = AtomicBool::new(false);
        let mut overtaken = 0;
        let read = std::thread::scope(|scope| {
            for name in CHURNING {
                let stop = &stop;
                scope.spawn(move || churn(stop, name));
            }
            let read = (0..10).try_for_each(|round| {
                let dumped = socket.dump_once(link::dump, |_| Ok(Some(()))).map_err(|e| (round, e));
                overtaken += usize::from(!dumped?.whole);
                let links = links::observe(&mut socket).map_err(|error| (round, error))?;
                let stable = links.iter().filter(|link| link.name.starts_with("stable")).count();
                assert_eq!(stable, STABLE);
                addresses::observe(&mut socket).map_err(|error| (round, error))?;
                addresses::routes(&mut socket).map_err(|error| (round, error)).map(drop)
            });
            // A panic before this would leave the others running for ever.
            stop.store(true, Ordering::Relaxed);
            read
        });
        read.unwrap();
        assert!(overtaken > 0, "nobody was in the way");
    });
}

/// A dump is not overtaken by the links that we remove ourselves.
#[test]
fn links_that_we_remove_wait_for_whoever_reads() {
    const RETIRED: u32 = 64;
    const STABLE: usize = 200;
    in_namespace(|| {
        let (mut socket, mut worker) = (socket(), Worker::default());
        make_bridges(&mut socket, STABLE);
        for number in 0..RETIRED {
            let name = format!("vttap-{number}");
            let alias = format!("volnet:{number}");
            let spec = tap::Spec { name: &name, owner: None, multi_queue: false, alias: &alias };
            let index = tap::create(&mut socket, &spec).unwrap();
            worker.retire(&mut socket, index).unwrap();
        }
        for _ in 0..20 {
            let still = worker.pause();
            let dumped = socket.dump_once(link::dump, |_| Ok(Some(()))).unwrap();
            assert!(dumped.whole);
            drop(still);
        }
        worker.flush();
        assert_eq!(links::observe(&mut socket).unwrap().len(), 1 + STABLE);
    });
}

#[test]
fn a_dump_that_the_kernel_refuses_ends_with_its_words() {
    in_namespace(|| {
        let mut socket = socket();
        let refused = socket.dump::<()>(
            |writer, sequence| {
                let message = writer.message(Rtm::Getlink.into(), REQUEST | DUMP, sequence);
                writer.raw(&[0xff; 16]);
                writer.close_message(message);
            },
            |_| Ok(None),
        );
        let Err(Error::Refused { words: Some(words), .. }) = refused else { panic!("{refused:?}") };
        assert!(words.contains("nvalid"), "NETLINK_GET_STRICT_CHK is on: {words}");
    });
}
