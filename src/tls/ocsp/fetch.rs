//! Asking a responder over HTTP, encrypted where its URL says so. What is believed are the signatures of answers; encryption only hides what is asked.
//!
//! # Invariant
//! A responder is a stranger's server: it is waited for no longer than said, whatever it sends, and never believed to send more than
//! an answer's length.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

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

/// How bytes reach a responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// A URL in its parts.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    scheme: Scheme,
    /// Host and port as the URL has them.
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, port, rest) = match url.strip_prefix("http://") {
            Some(rest) => (Scheme::Http, 80, rest),
            None => (Scheme::Https, 443, url.strip_prefix("https://")?),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Nothing of a certificate may end a line of the request.
        let is_sound = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        (!host.is_empty() && is_sound(url) && !host.contains('@')).then_some(Self {
            scheme,
            authority,
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
    let answer = exchange(&place, question, method, until, trusting_the_system).map_err(failed)?;
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
    encryption: impl FnOnce() -> io::Result<Arc<ClientConfig>>,
) -> io::Result<Vec<u8>> {
    let request = request(place, question, method)?;
    let tcp = dial(place, until)?;
    let mut timed = Timed { tcp, until };
    match place.scheme {
        Scheme::Http => talk(&mut timed, &request),
        Scheme::Https => {
            let name = ServerName::try_from(place.host.to_owned()).map_err(io::Error::other)?;
            let session = ClientConnection::new(encryption()?, name).map_err(io::Error::other)?;
            talk(&mut StreamOwned::new(session, timed), &request)
        }
    }
}

/// As the reference: a responder's certificate is to be one that an authority of the system has signed.
fn trusting_the_system() -> io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons = found.errors;
        let none = format!("the system has no authorities: {reasons:?}");
        return Err(io::Error::other(none));
    }
    let config = Arc::new(trusting(roots)?);
    // Files of the system are not read for each question.
    Ok(Arc::clone(CONFIG.get_or_init(|| config)))
}

fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// A connection that ends when its time is over. The time is for all of it, not for each read: who dribbles is not waited for.
struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(left(self.until)?))?;
        self.tcp.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(left(self.until)?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// The question as it is sent.
fn request(place: &Place<'_>, question: &[u8], method: Method) -> io::Result<Vec<u8>> {
    let host = place.authority;
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
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/ocsp-request\r\n\
                 Accept: application/ocsp-response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                question.len()
            )?;
            request.extend_from_slice(question);
        }
        Method::Get => write!(
            request,
            "GET {}/{} HTTP/1.1\r\nHost: {host}\r\nAccept: application/ocsp-response\r\n\
             Connection: close\r\n\r\n",
            place.path,
            escaped(&STANDARD.encode(question))
        )?,
    }
    Ok(request)
}

/// Says it, and takes all that is answered.
fn talk(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
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
    use std::net::TcpListener;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    #[test]
    fn urls_are_taken_apart_and_nonsense_is_none() {
        let place = |authority, host, port, path| {
            Some(Place {
                scheme: Scheme::Http,
                authority,
                host,
                port,
                path,
            })
        };
        assert_eq!(Place::parse("http://h"), place("h", "h", 80, ""));
        assert_eq!(Place::parse("http://h:81/"), place("h:81", "h", 81, ""));
        assert_eq!(
            Place::parse("http://[::1]:81/a/b"),
            place("[::1]:81", "::1", 81, "/a/b")
        );
        assert_eq!(
            Place::parse("http://[::1]/a"),
            place("[::1]", "::1", 80, "/a")
        );
        let encrypted = Place::parse("https://h/a").unwrap();
        assert_eq!((encrypted.scheme, encrypted.port), (Scheme::Https, 443));
        assert_eq!(Place::parse("https://h:80").unwrap().port, 80);
        for nonsense in [
            "ftp://h",
            "https://",
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
    fn a_responder_is_called_as_its_url_calls_it() {
        for (url, host) in [
            ("http://[::1]:81/a", "[::1]:81"),
            ("http://[::1]", "[::1]"),
            ("https://h:82/", "h:82"),
        ] {
            let place = Place::parse(url).unwrap();
            for method in [Method::Post, Method::Get] {
                let request = request(&place, b"x", method).unwrap();
                let request = String::from_utf8(request).unwrap();
                let line = format!("\r\nHost: {host}\r\n");
                assert!(request.contains(&line), "{request}");
            }
        }
    }

    /// A responder that answers one question with what it was asked, encrypted with a certificate of an authority, which is given back.
    fn encrypting_responder(listener: TcpListener) -> RootCertStore {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let session = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
                let mut stream = StreamOwned::new(session, tcp.unwrap());
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\nquestion") {
                    let mut byte = [0];
                    // Whoever does not trust it goes.
                    match stream.read(&mut byte) {
                        Ok(1) => asked.push(byte[0]),
                        _ => break,
                    }
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", asked.len());
                let _ = stream.write_all(&[head.as_bytes(), &asked].concat());
            }
        });
        roots
    }

    #[test]
    fn a_responder_is_asked_over_https_if_it_is_known_to_be_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/x", listener.local_addr().unwrap());
        let roots = encrypting_responder(listener);
        let place = Place::parse(&url).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let ask = |roots: RootCertStore| {
            exchange(&place, b"question", Method::Post, until, || {
                trusting(roots).map(Arc::new)
            })
        };
        let (status, body) = parse(&ask(roots).unwrap()).unwrap();
        assert_eq!(status, 200);
        assert!(body.starts_with(b"POST /x HTTP/1.1\r\n"));
        let error = ask(RootCertStore::empty()).unwrap_err();
        assert!(
            error.to_string().contains("invalid peer certificate"),
            "{error}"
        );
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
