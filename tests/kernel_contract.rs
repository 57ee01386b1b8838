//! What volnet believes of the kernel, each belief with its test: when a kernel is different, this
//! is where it shows first.

#![cfg(target_os = "linux")]

mod common;

use common::in_namespace;
use volnet::netlink::rtnl::link::{self, LinkMessage, Target};
use volnet::network::linux::socket::{Error, Protocol, Socket};

/// netlink(7): a request is executed inside `send` and its answer waits when that returns. The
/// socket never waits, so any answer proves it.
#[test]
fn an_answer_waits_when_send_returns() {
    in_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        for round in 0..100 {
            let name = format!("b{round}");
            let mut index = None;
            socket
                .request_and(
                    1,
                    |writer, sequence| link::new_bridge(writer, sequence.take(), &name, [2; 6]),
                    |message| {
                        index = Some(LinkMessage::read(message.payload)?.index);
                        Ok(())
                    },
                )
                .unwrap();
            assert!(index.is_some(), "NLM_F_ECHO gives the new link before the acknowledgement");
        }
    });
}

/// Each message of a send is answered on its own; one that fails does not stop the others.
#[test]
fn a_message_that_fails_does_not_stop_the_next() {
    in_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let error = socket
            .request(3, |writer, sequence| {
                link::new_bridge(writer, sequence.take(), "one", [2; 6]);
                link::delete(writer, sequence.take(), Target::Name("none"));
                link::new_bridge(writer, sequence.take(), "two", [2; 6]);
            })
            .unwrap_err();
        let Error::Refused { index: 1, errno: libc::ENODEV, .. } = error else {
            panic!("{error:?}")
        };
        assert!(common::link_exists("one") && common::link_exists("two"));
    });
}
