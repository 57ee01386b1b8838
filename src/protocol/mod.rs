//! The wire: Varlink over a Unix socket, with a newline allowed in place of NUL.
//!
//! [`frame`] finds messages in bytes, [`request`] makes a [`crate::engine::request::Request`] of
//! one, [`reply`] makes bytes of the answer, [`service`] answers `org.varlink.service`. [`client`]
//! is the other side. None of them reads or writes anything: bytes in, bytes out.

pub mod client;
pub mod frame;
pub mod reply;
pub mod request;
pub mod service;

/// Body of a fuzz target: any bytes, cut at places that they choose themselves, give the messages
/// and the error that they give in one piece.
pub fn exercise_frame(bytes: &[u8]) {
    fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
        let mut decoder = frame::Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            loop {
                match decoder.take() {
                    Ok(Some(message)) => messages.push(message.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (messages, Some(error.to_string())),
                }
            }
        }
        let error = match decoder.finish() {
            Ok(message) => {
                messages.extend(message.map(<[u8]>::to_vec));
                None
            }
            Err(error) => Some(error.to_string()),
        };
        (messages, error)
    }
    let piece = 1 + usize::from(bytes.first().copied().unwrap_or(0));
    let (messages, error) = decode(std::iter::once(bytes));
    assert_eq!(decode(bytes.chunks(piece)), (messages.clone(), error));
    for message in messages {
        assert!(message.len() < frame::MESSAGE_MAX);
        exercise_request(&message);
    }
}

/// Body of a fuzz target: any bytes give a call or a fault, and a fault can be answered.
pub fn exercise_request(bytes: &[u8]) {
    match request::decode(bytes) {
        Ok(call) => {
            call.needs_right();
        }
        Err(rejected) => {
            let mut out = Vec::new();
            reply::fault(&mut out, &rejected.fault, frame::Terminator::Nul);
            assert_eq!(out.pop(), Some(0));
            client::decode(&out).expect_err("an error reply");
        }
    }
}
