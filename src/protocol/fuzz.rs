//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

use super::frame::{Decoder, MESSAGE_MAX, Terminator};
use super::{client, reply, request};

/// Bytes that arrive in pieces give the same messages and the same error as in one piece. The bytes
/// choose where they are cut.
pub fn frame(bytes: &[u8]) {
    let piece = 1 + usize::from(bytes.first().copied().unwrap_or(0));
    let (messages, error) = messages(std::iter::once(bytes));
    assert_eq!(self::messages(bytes.chunks(piece)), (messages.clone(), error));
    for message in messages {
        assert!(message.len() < MESSAGE_MAX);
        request(&message);
    }
}

/// The messages in the pieces of a stream, and the error after them.
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

/// A message decodes to a call or to a fault, and volnet can answer a fault.
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

/// If the client decodes a reply, it also decodes the daemon's encoding of it. Both print the same
/// text for an error that both know.
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

/// The written message, without its terminator.
fn written(write: impl FnOnce(&mut Vec<u8>, Terminator)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, Terminator::Nul);
    assert_eq!(out.pop(), Some(0));
    out
}
