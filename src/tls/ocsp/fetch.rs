//! Asking a responder, over plain HTTP: answers are signed.
//!
//! # Invariant
//! A responder is a stranger's server: it is waited for no longer than said, whatever it sends, and never believed to send more than
//! an answer's length.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::OcspError;
use super::answer::ANSWER_BYTES_MAX;

/// The head of an answer is no longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How the question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// In the body; any length.
    Post,
    /// In the path; what caches on the way understand.
    Get,
}

/// Asks the responders one after the other until one answers: the answer's bytes, which nobody has checked. Blocks the thread, for each
/// question no longer than `at_most`.
pub(super) fn fetch(
    responders: &[String],
    question: &[u8],
    methods: &[Method],
    at_most: Duration,
) -> Result<Vec<u8>, OcspError> {
    let mut last = OcspError::NoResponders;
    for url in responders {
        for method in methods {
            match ask(url, question, *method, at_most) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    tracing::debug!("OCSP: {error}");
                    last = error;
                }
            }
        }
    }
    Err(last)
}

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Nothing of a certificate may end a line of the request.
        let is_sound = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        (!host.is_empty() && is_sound(url) && !host.contains('@')).then_some(Self {
            host,
            port,
            path: path.trim_end_matches('/'),
        })
    }
}

fn ask(
    url: &str,
    question: &[u8],
    method: Method,
    at_most: Duration,
) -> Result<Vec<u8>, OcspError> {
    let place = Place::parse(url).ok_or_else(|| OcspError::Url {
        url: url.to_owned(),
    })?;
    let failed = |source| OcspError::Network {
        url: url.to_owned(),
        source,
    };
    let until = Instant::now() + at_most;
    let answer = exchange(&place, question, method, until).map_err(failed)?;
    match parse(&answer) {
        Some((200, body)) => Ok(body),
        Some((status, _)) => Err(OcspError::Status {
            url: url.to_owned(),
            status,
        }),
        None => Err(failed(io::ErrorKind::InvalidData.into())),
    }
}

/// Sends the question and takes all that comes.
fn exchange(
    place: &Place<'_>,
    question: &[u8],
    method: Method,
    until: Instant,
) -> io::Result<Vec<u8>> {
    let mut stream = dial(place, until)?;
    let (host, port) = (place.host, place.port);
    let mut request = Vec::new();
    match method {
        Method::Post => {
            let path = if place.path.is_empty() {
                "/"
            } else {
                place.path
            };
            write!(
                request,
                "POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/ocsp-request\r\n\
                 Accept: application/ocsp-response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                question.len()
            )?;
            request.extend_from_slice(question);
        }
        Method::Get => write!(
            request,
            "GET {}/{} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/ocsp-response\r\n\
             Connection: close\r\n\r\n",
            place.path,
            escaped(&STANDARD.encode(question))
        )?,
    }
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // The time is for all of it, not for each read: who dribbles is not waited for.
        stream.set_read_timeout(Some(left(until)?))?;
        let count = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if count == 0 || is_whole(&answer) {
            return Ok(answer);
        }
        if answer.len() > HEAD_BYTES_MAX + ANSWER_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer is too long",
            ));
        }
    }
}

fn dial(place: &Place<'_>, until: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (place.host, place.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// What base64 and a path do not agree about.
fn escaped(base64: &str) -> String {
    base64
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
}

/// Whether no more is to be waited for.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = Head::parse(answer) else {
        return false;
    };
    let body = answer.get(head.bytes..).unwrap_or_default();
    match head.length {
        Some(length) => body.len() >= length,
        None => head.chunked && unchunk(body).is_some(),
    }
}

/// The status and the body.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = Head::parse(answer)?;
    let body = answer.get(head.bytes..)?;
    let body = match (head.chunked, head.length) {
        (true, _) => unchunk(body)?,
        (false, Some(length)) => body.get(..length)?.to_vec(),
        (false, None) => body.to_vec(),
    };
    (body.len() <= ANSWER_BYTES_MAX).then_some((head.status, body))
}

/// What the head of an answer says.
struct Head {
    bytes: usize,
    status: u16,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    fn parse(answer: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let bytes = match response.parse(answer) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            _ => return None,
        };
        let header = |name: &str| {
            let mut all = response.headers.iter();
            let found = all.find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        let chunked = header("transfer-encoding");
        Some(Self {
            bytes,
            status: response.code?,
            length: header("content-length").and_then(|length| length.trim().parse().ok()),
            chunked: chunked.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")),
        })
    }
}

/// A body in chunks, put together; `None` while the last is missing.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (begin, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            _ => return None,
        };
        let length = usize::try_from(length).ok()?;
        if length == 0 {
            return Some(body);
        }
        let end = begin.checked_add(length)?;
        body.extend_from_slice(rest.get(begin..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

/// Reads bytes that may be an answer over HTTP; for fuzzers.
pub(crate) fn read_anything(bytes: &[u8]) {
    let _ = is_whole(bytes);
    let _ = parse(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_nonsense_is_none() {
        let place = |host, port, path| Some(Place { host, port, path });
        assert_eq!(Place::parse("http://h"), place("h", 80, ""));
        assert_eq!(Place::parse("http://h:81/"), place("h", 81, ""));
        assert_eq!(
            Place::parse("http://[::1]:81/a/b"),
            place("::1", 81, "/a/b")
        );
        assert_eq!(Place::parse("http://[::1]/a"), place("::1", 80, "/a"));
        for nonsense in [
            "https://h",
            "http://",
            "http://h:x",
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://u:p@h/",
            "h",
        ] {
            assert_eq!(Place::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn an_answer_ends_by_its_length_its_chunks_or_the_connection() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_whole(whole) && !is_whole(&whole[..whole.len() - 1]));
        assert_eq!(parse(whole), Some((200, b"abc".to_vec())));
        let chunks =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert!(is_whole(chunks));
        assert_eq!(parse(chunks), Some((200, b"abc".to_vec())));
        let open = b"HTTP/1.0 404 no\r\n\r\nabc";
        assert!(!is_whole(open));
        assert_eq!(parse(open), Some((404, b"abc".to_vec())));
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            None
        );
        let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab";
        assert_eq!(parse(huge), None);
    }
}
