//! The little of HTTP (RFC 9112) that a scraper of metrics needs: the head of a request, which is
//! read, and the head of an answer, which is written.
//!
//! There is one resource, `/metrics`, and one method, GET. A connection has one request: the answer
//! says that it ends with it. Nobody knows the length of an answer before it is whole, so it comes
//! in chunks, and a client of HTTP/1.1 notices if its end is missing.

use super::exposition::Format;

/// The most bytes of the head of a request. A scraper needs a few hundred.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The one resource.
const PATH: &str = "/metrics";
/// What a client names that takes OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A request, as its head has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The metrics, in this format. With `chunks` the client reads chunks; without, the answer ends
    /// with the connection (HTTP/1.0).
    Metrics { format: Format, chunks: bool },
    /// Something else, which has this answer.
    Refused(Status),
}

/// Why a request gets no metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is not a request.
    Bad,
    /// There is no such resource.
    NotFound,
    /// The method is not GET.
    NotGet,
    /// The head has more than [`HEAD_BYTES_MAX`].
    TooLong,
    /// The version of the protocol is another one.
    Version,
    /// The host could not be asked.
    Unavailable,
}

impl Status {
    /// The status code and its words (RFC 9110, 15), and what the client is told.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Status::Bad => ("400 Bad Request", "this is not a request"),
            Status::NotFound => ("404 Not Found", "there is only /metrics"),
            Status::NotGet => ("405 Method Not Allowed", "there is only GET"),
            Status::TooLong => ("431 Request Header Fields Too Large", "the request is too long"),
            Status::Version => ("505 HTTP Version Not Supported", "there is only HTTP/1.1"),
            Status::Unavailable => ("503 Service Unavailable", "the kernel did not answer"),
        }
    }
}

/// Reads the head of a request. `None`: it is not whole yet.
pub fn read(bytes: &[u8]) -> Option<Asked> {
    let within = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    match end_of_head(within) {
        Some(end) => Some(of_head(&within[..end])),
        None if bytes.len() >= HEAD_BYTES_MAX => Some(Asked::Refused(Status::TooLong)),
        None => None,
    }
}

/// Where the empty line ends that ends a head. A line ends with CRLF, or with LF alone (RFC 9112,
/// 2.2).
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut begin = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if begin > 0 && matches!(&bytes[begin..at], [] | [b'\r']) {
            return Some(at + 1);
        }
        begin = at + 1;
    }
    None
}

fn of_head(head: &[u8]) -> Asked {
    let Ok(text) = std::str::from_utf8(head) else { return Asked::Refused(Status::Bad) };
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Asked::Refused(Status::Bad);
    };
    let chunks = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Asked::Refused(Status::Version),
        _ => return Asked::Refused(Status::Bad),
    };
    if method != "GET" {
        return Asked::Refused(Status::NotGet);
    }
    if target.split('?').next() != Some(PATH) {
        return Asked::Refused(Status::NotFound);
    }
    Asked::Metrics { format: format(lines), chunks }
}

/// The format that the client wants: OpenMetrics if it names that, and otherwise the one that all
/// scrapers read.
fn format<'a>(fields: impl Iterator<Item = &'a str>) -> Format {
    let accepted = fields.filter_map(|line| line.split_once(':'));
    let mut accepted = accepted.filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
    match accepted.any(|(_, value)| value.to_ascii_lowercase().contains(OPEN_METRICS)) {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    }
}

/// Writes the head of an answer with metrics. The metrics follow: with `chunks` as chunks.
pub fn begin(out: &mut Vec<u8>, format: Format, chunks: bool) {
    let kind = format.content_type();
    let chunks = if chunks { "Transfer-Encoding: chunked\r\n" } else { "" };
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{chunks}Connection: close\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
}

/// Writes a chunk (RFC 9112, 7.1); one without bytes ends the answer.
pub fn chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes an answer without metrics.
pub fn refuse(out: &mut Vec<u8>, status: Status) {
    let (status, text) = status.words();
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n{allow}Connection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    out.extend_from_slice(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(format: Format, chunks: bool) -> Option<Asked> {
        Some(Asked::Metrics { format, chunks })
    }

    #[test]
    fn a_scraper_says_what_it_reads() {
        let head = b"GET /metrics HTTP/1.1\r\nHost: a\r\naccept: text/plain;q=0.5,\
            Application/OpenMetrics-Text; version=1.0.0\r\n\r\n";
        assert_eq!(read(head), metrics(Format::OpenMetrics, true));
        assert_eq!(read(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), metrics(Format::Prometheus, false));
        assert_eq!(read(b"GET /metrics HTTP/1.1\nHost: a\n\n"), metrics(Format::Prometheus, true));
    }

    #[test]
    fn everything_else_is_refused() {
        for (line, status) in [
            ("POST /metrics HTTP/1.1", Status::NotGet),
            ("HEAD /metrics HTTP/1.1", Status::NotGet),
            ("GET / HTTP/1.1", Status::NotFound),
            ("GET /metrics/ HTTP/1.1", Status::NotFound),
            ("GET /metrics HTTP/2.0", Status::Version),
            ("GET /metrics", Status::Bad),
            ("GET  /metrics HTTP/1.1", Status::Bad),
            ("GET /metrics SPDY/1", Status::Bad),
            ("\u{1}", Status::Bad),
        ] {
            let head = format!("{line}\r\n\r\n");
            assert_eq!(read(head.as_bytes()), Some(Asked::Refused(status)), "{line}");
        }
        assert_eq!(read(b"\xff\r\n\r\n"), Some(Asked::Refused(Status::Bad)));
    }

    #[test]
    fn a_head_is_waited_for_up_to_its_bound() {
        let head = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..head.len() - 1 {
            assert_eq!(read(&head[..cut]), None, "{cut}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(&long.as_bytes()[..HEAD_BYTES_MAX - 1]), None);
        let refused = Some(Asked::Refused(Status::TooLong));
        assert_eq!(read(&long.as_bytes()[..HEAD_BYTES_MAX]), refused);
        assert_eq!(read(format!("{long}\r\n\r\n").as_bytes()), refused);
    }

    #[test]
    fn an_answer_says_how_it_ends() {
        let mut out = Vec::new();
        refuse(&mut out, Status::NotGet);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(head.contains("Allow: GET"), "{head}");
        let mut out = Vec::new();
        chunk(&mut out, &[b'a'; 17]);
        chunk(&mut out, b"");
        assert_eq!(out, b"11\r\naaaaaaaaaaaaaaaaa\r\n0\r\n\r\n");
    }
}
