//! Asks a hypervisor on its HTTP API, and waits for the answer (RFC 9112).
//!
//! Each request has a connection of its own, which is kept until its answer is there: Firecracker
//! drops a request whose client has gone.

use std::cell::Cell;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::LOOK;
use crate::hypervisor::linux::power;

/// The most bytes of an answer. The configuration of a VM has a few thousand.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a hypervisor may go on to write after nobody wants it any more: tens of gigabytes.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// Sends a request with a method, a path and a body, and gives the body of the answer. `is_late`
/// says, after this time, whether nobody waits any longer.
pub(super) fn ask(
    socket: &Path,
    request: &str,
    body: Option<&Value>,
    is_late: impl Fn(Duration) -> bool,
) -> Result<String, String> {
    let failed = |error: io::Error| format!("{request}: {error}");
    let mut stream = send(socket, request, body).map_err(failed)?;
    let begin = Instant::now();
    let mut answer = Vec::new();
    loop {
        if let Some((status, body)) = parse(&answer) {
            return match status {
                200..300 => Ok(body),
                _ => Err(format!("{request}: {}", reason(&body))),
            };
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(format!("it has ended the connection ({request})")),
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(format!("{request}: it answers more than {ANSWER_BYTES_MAX} bytes"));
        }
        if is_late(begin.elapsed()) {
            return Err(format!("it did not answer {request} in time"));
        }
    }
}

/// Asks for what cannot be called off, and waits for its end, with a bound once it is over.
pub(super) fn ask_to_the_end(
    socket: &Path,
    request: &str,
    body: &Value,
    is_over: &impl Fn() -> bool,
) -> Result<(), String> {
    let called_off: Cell<Option<Duration>> = Cell::new(None);
    let is_late = |now: Duration| {
        if called_off.get().is_none() && is_over() {
            called_off.set(Some(now));
        }
        called_off.get().is_some_and(|since| now - since > WRITE_MAX)
    };
    ask(socket, request, Some(body), is_late)?;
    match called_off.get() {
        None => Ok(()),
        Some(_) => Err("it was told to end".into()),
    }
}

fn send(socket: &Path, request: &str, body: Option<&Value>) -> io::Result<UnixStream> {
    let mut text = format!("{request} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n");
    match body.map(Value::to_string) {
        Some(body) => {
            let length = body.len();
            text += &format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
        None => text += "\r\n",
    }
    let stream = UnixStream::from(OwnedFd::from(power::send(socket, &text)?));
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    Ok(stream)
}

/// The status and the body of an answer, once all of it is there.
fn parse(answer: &[u8]) -> Option<(u16, String)> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|window| window == END)?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let body = answer[end + END.len()..].get(..length.unwrap_or(0))?;
    Some((status, String::from_utf8_lossy(body).into_owned()))
}

/// What an answer says of an error: Firecracker has it in a field, and Cloud Hypervisor as a list
/// of causes.
fn reason(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    if let Some(told) = value["fault_message"].as_str() {
        return told.into();
    }
    match value.as_array() {
        Some(causes) => causes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(": "),
        None => body.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_all_of_it_is_there() {
        let answer = b"HTTP/1.1 400 \r\nServer: Firecracker API\r\ncontent-length: 21\r\n\r\n\
            {\"fault_message\":\"a\"}";
        for length in 0..answer.len() {
            assert_eq!(parse(&answer[..length]), None, "{length}");
        }
        let (status, body) = parse(answer).expect("an answer");
        assert_eq!((status, reason(&body).as_str()), (400, "a"));
        assert_eq!(parse(b"HTTP/1.1 204 \r\n\r\n"), Some((204, String::new())));
        assert_eq!(reason("what it says"), "what it says");
        assert_eq!(reason(r#"["the VM","its disk"]"#), "the VM: its disk");
        assert_eq!(parse(b"nonsense\r\n\r\n"), None);
    }
}
