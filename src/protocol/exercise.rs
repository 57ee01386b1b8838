//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::frame::{Decoder, MESSAGE_MAX, Terminator};
use super::{client, reply, request};

/// Bytes that are cut at places which they choose themselves give the messages, and the error,
/// that they give in one piece.
pub fn frame(bytes: &[u8]) {
    let piece = 1 + usize::from(bytes.first().copied().unwrap_or(0));
    let (messages, error) = messages(std::iter::once(bytes));
    assert_eq!(self::messages(bytes.chunks(piece)), (messages.clone(), error));
    for message in messages {
        assert!(message.len() < MESSAGE_MAX);
        request(&message);
    }
}

/// The messages in the pieces of a stream, and what is wrong with what follows them.
fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
    let mut decoder = Decoder::default();
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
    match decoder.finish() {
        Ok(message) => {
            messages.extend(message.map(<[u8]>::to_vec));
            (messages, None)
        }
        Err(error) => (messages, Some(error.to_string())),
    }
}

/// A message is a call or a fault, and a fault can be answered.
pub fn request(bytes: &[u8]) {
    match request::decode(bytes) {
        Ok(call) => {
            call.needs_right();
        }
        Err(rejected) => {
            let answer = written(|out, end| reply::fault(out, &rejected.fault, end));
            client::decode(&answer).expect_err("an error reply");
        }
    }
}

/// What the client understands it understands again when the daemon says it, and an error that
/// both know is told in the same words.
pub fn reply(bytes: &[u8]) {
    match client::decode(bytes) {
        Ok(reply) => {
            let again = written(|out, end| {
                reply::parameters(out, &reply.parameters, reply.continues, end);
            });
            assert_eq!(client::decode(&again), Ok(reply));
        }
        Err(error) => {
            let words = error.to_string();
            let client::NoReply::Error(error) = error else { return };
            if let Some(original) = error.original() {
                let again = written(|out, end| reply::error(out, &original, end));
                let again = client::decode(&again).expect_err("an error reply");
                assert_eq!(again.to_string(), words);
            }
        }
    }
}

/// What is written, without its terminator.
fn written(write: impl FnOnce(&mut Vec<u8>, Terminator)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, Terminator::Nul);
    assert_eq!(out.pop(), Some(0));
    out
}
