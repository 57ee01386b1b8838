//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

use super::frame::{Decoder, FrameError, MESSAGE_MAX, Terminator};
use super::{client, http, reply, request};

/// Bytes that arrive in pieces give the same messages and the same error as in one piece. The bytes
/// choose where they are cut.
pub fn frame(bytes: &[u8]) {
    let piece = 1 + usize::from(bytes.first().copied().unwrap_or(0));
    let whole = messages([bytes]);
    assert_eq!(messages(bytes.chunks(piece)), whole);
    for message in whole.0 {
        assert!(message.len() < MESSAGE_MAX);
        request(&message);
    }
}

/// The messages of a stream, the error that ended them, and how replies to them end.
pub(super) type Messages = (Vec<Vec<u8>>, Option<FrameError>, Terminator);

/// Takes all messages out of the pieces of a stream.
pub(super) fn messages<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Messages {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    let decode = || {
        for piece in pieces {
            decoder.push(piece);
            while let Some(message) = decoder.take()? {
                messages.push(message.to_vec());
            }
        }
        messages.extend(decoder.finish()?.map(<[u8]>::to_vec));
        Ok(())
    };
    let error = decode().err();
    (messages, error, decoder.terminator())
}

/// The head of a request means the same whatever comes after it, and less of it means nothing yet.
pub fn http(bytes: &[u8]) {
    let Some(asked) = http::read(bytes) else {
        assert!(bytes.len() < http::HEAD_BYTES_MAX);
        return;
    };
    let more = [bytes, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(http::read(&more), Some(asked));
    for cut in 0..bytes.len().min(http::HEAD_BYTES_MAX) {
        assert!(http::read(&bytes[..cut]).is_none_or(|less| less == asked), "{cut}");
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
