//! The HTTP request that a connection begins with, and what is answered.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::encoder::Shape;

/// The longest request.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;
const KEY_BYTES: usize = 16;
/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Which origins browsers may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Only the server's own.
    pub same: bool,
    /// Only these, as `scheme://host` with an optional port; any when there are none.
    pub allowed: Vec<String>,
}

/// What a listener asks of those who come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Which origins browsers may come from.
    pub origins: Origins,
    /// Whether compression is agreed on where the peer offers it.
    pub compression: bool,
    /// The connection is encrypted.
    pub encrypted: bool,
    /// Further headers of the answer.
    pub headers: Vec<(String, String)>,
}

/// What the path of the request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A client.
    Client,
    /// A leaf node.
    LeafNode,
    /// A client that speaks MQTT.
    Mqtt,
}

/// A request that can be answered with yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// What it asks for.
    pub path: Path,
    /// How its frames will look.
    pub shape: Shape,
    /// What the peer's cookies are.
    pub cookies: Vec<(String, String)>,
    accept: String,
}

/// Why there is no upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// For the log.
    pub reason: &'static str,
}

impl Refusal {
    const fn bad(reason: &'static str) -> Self {
        Self {
            status: 400,
            reason,
        }
    }

    /// The answer.
    pub fn response(&self) -> Vec<u8> {
        let text = match self.status {
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Bad Request",
        };
        format!(
            "HTTP/1.1 {} {text}\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
            self.status,
            text.len() + 1,
        )
        .into_bytes()
    }
}

impl Upgrade {
    /// Reads a request. `None` while it is not whole; else what it asks for, and where it ends.
    pub fn parse(bytes: &[u8], terms: &Terms) -> Result<Option<(Self, usize)>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES_MAX => return Ok(None),
            _ => return Err(Refusal::bad("invalid HTTP request")),
        };
        Self::of(&Headers(request.headers), &request, terms).map(|upgrade| Some((upgrade, length)))
    }

    fn of(
        headers: &Headers<'_, '_>,
        request: &httparse::Request<'_, '_>,
        terms: &Terms,
    ) -> Result<Self, Refusal> {
        if request.method != Some("GET") {
            let reason = "request method must be GET";
            return Err(Refusal {
                status: 405,
                reason,
            });
        }
        let host = headers.get("host").unwrap_or_default();
        if host.is_empty() {
            return Err(Refusal::bad("'Host' missing in request"));
        }
        if !headers.has_token("upgrade", "websocket") {
            return Err(Refusal::bad("invalid value for header 'Upgrade'"));
        }
        if !headers.has_token("connection", "upgrade") {
            return Err(Refusal::bad("invalid value for header 'Connection'"));
        }
        let key = headers.get("sec-websocket-key").unwrap_or_default();
        if !STANDARD
            .decode(key)
            .is_ok_and(|decoded| decoded.len() == KEY_BYTES)
        {
            return Err(Refusal::bad("key missing"));
        }
        if headers.get("sec-websocket-version") != Some("13") {
            return Err(Refusal::bad("invalid version"));
        }
        if let Some(origin) = headers
            .get("origin")
            .or_else(|| headers.get("sec-websocket-origin"))
            && !terms.origins.admit(origin, host, terms.encrypted)
        {
            return Err(Refusal {
                status: 403,
                reason: "origin not allowed",
            });
        }
        let offers = headers.has_token("sec-websocket-extensions", "permessage-deflate");
        let agent = headers.get("user-agent").unwrap_or_default();
        Ok(Self {
            path: match request.path.unwrap_or_default() {
                "/leafnode" => Path::LeafNode,
                "/mqtt" => Path::Mqtt,
                _ => Path::Client,
            },
            shape: Shape {
                compression: terms.compression && offers,
                browser: agent.starts_with("Mozilla/"),
                whole_when_compressed: agent.contains("Version/") && agent.contains("Safari/"),
            },
            cookies: headers.cookies(),
            accept: accept(key),
        })
    }

    /// The answer that begins the connection.
    pub fn response(&self, terms: &Terms) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
            self.accept
        );
        if self.shape.compression {
            text.push_str("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n");
        }
        for (name, value) in &terms.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// The cookie of that name.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut cookies = self.cookies.iter();
        let found = cookies.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(GUID);
    STANDARD.encode(digest.finalize())
}

struct Headers<'a, 'b>(&'a [httparse::Header<'b>]);

impl<'b> Headers<'_, 'b> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'b str> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| Some(std::str::from_utf8(header.value).ok()?.trim()))
    }

    fn get(&self, name: &str) -> Option<&'b str> {
        self.all(name).next()
    }

    /// Whether one of a header's elements begins with that token.
    fn has_token(&self, name: &str, token: &str) -> bool {
        let elements = self.all(name).flat_map(|value| value.split(','));
        let mut tokens = elements.filter_map(|element| element.split(';').next());
        tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
    }

    fn cookies(&self) -> Vec<(String, String)> {
        let pairs = self.all("cookie").flat_map(|value| value.split(';'));
        let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
        pairs
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect()
    }
}

/// Scheme, host and port of an origin.
fn parts(origin: &str) -> Option<(String, String, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    let authority = rest.split('/').next()?;
    let (host, port) = host_and_port(authority, port)?;
    Some((scheme, host, port))
}

fn host_and_port(authority: &str, port: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The last group of an IPv6 address is no port.
        Some((host, text)) if !text.contains(']') => (host, text.parse().ok()?),
        _ => (authority, port),
    };
    Some((host.to_ascii_lowercase(), port))
}

impl Origins {
    /// Whether a browser may come from there to this host.
    fn admit(&self, origin: &str, host: &str, encrypted: bool) -> bool {
        if !self.same && self.allowed.is_empty() {
            return true;
        }
        let Some(from) = parts(origin) else {
            return false;
        };
        if self.same {
            let port = if encrypted { 443 } else { 80 };
            let here = host_and_port(host, port);
            let (_, origin_host, origin_port) = &from;
            let is_same =
                here.is_some_and(|(host, port)| host == *origin_host && port == *origin_port);
            if !is_same {
                return false;
            }
        }
        let mut allowed = self.allowed.iter();
        self.allowed.is_empty() || allowed.any(|origin| parts(origin).as_ref() == Some(&from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: nats.example:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn parse(text: &str, terms: &Terms) -> Result<Upgrade, Refusal> {
        let parsed = Upgrade::parse(text.as_bytes(), terms)?;
        let (upgrade, length) = parsed.expect("the request is whole");
        assert_eq!(length, text.len());
        Ok(upgrade)
    }

    fn with(line: &str) -> String {
        REQUEST.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let terms = Terms {
            headers: vec![("X-Own".to_owned(), "value".to_owned())],
            ..Terms::default()
        };
        let upgrade = parse(REQUEST, &terms).unwrap();
        let response = String::from_utf8(upgrade.response(&terms)).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "));
        assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(response.contains("\r\nX-Own: value\r\n"));
        for cut in 0..REQUEST.len() {
            let parsed = Upgrade::parse(&REQUEST.as_bytes()[..cut], &terms);
            assert_eq!(parsed, Ok(None));
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused_with_its_status() {
        let cases = [
            (REQUEST.replace("GET", "POST"), 405),
            (REQUEST.replace("Host: nats.example:8080\r\n", ""), 400),
            (REQUEST.replace("Upgrade: websocket", "Upgrade: other"), 400),
            (REQUEST.replace("keep-alive, Upgrade", "keep-alive"), 400),
            (REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
            (REQUEST.replace("Version: 13", "Version: 8"), 400),
            ("\u{1}\r\n\r\n".to_owned(), 400),
        ];
        for (request, status) in cases {
            let refusal = parse(&request, &Terms::default()).unwrap_err();
            assert_eq!(refusal.status, status, "{request}");
            let start = format!("HTTP/1.1 {status} ");
            assert!(refusal.response().starts_with(start.as_bytes()));
        }
    }

    #[test]
    fn browsers_come_from_where_they_may() {
        let terms = |same, allowed: &[&str]| Terms {
            origins: Origins {
                same,
                allowed: allowed.iter().map(|text| (*text).to_owned()).collect(),
            },
            ..Terms::default()
        };
        let from =
            |origin: &str, terms: &Terms| parse(&with(&format!("Origin: {origin}")), terms).is_ok();
        assert!(from("http://elsewhere", &terms(false, &[])));
        let same = terms(true, &[]);
        assert!(from("http://nats.example:8080", &same));
        assert!(!from("http://nats.example", &same));
        assert!(!from("http://elsewhere:8080", &same));
        assert!(!from("null", &same));
        let listed = terms(false, &["http://a.example", "https://b.example:444"]);
        assert!(from("http://a.example:80", &listed));
        assert!(from("https://b.example:444", &listed));
        assert!(!from("https://a.example", &listed));
        assert!(!from("https://b.example", &listed));
        // Whoever is no browser says no origin.
        assert!(parse(REQUEST, &listed).is_ok());
    }

    #[test]
    fn compression_browser_and_cookies_are_seen() {
        let extension =
            with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits");
        let compressing = Terms {
            compression: true,
            ..Terms::default()
        };
        let upgrade = parse(&extension, &compressing).unwrap();
        assert!(upgrade.shape.compression);
        let response = String::from_utf8(upgrade.response(&compressing)).unwrap();
        assert!(response.contains(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        ));
        assert!(
            !parse(&extension, &Terms::default())
                .unwrap()
                .shape
                .compression
        );
        let safari = with("User-Agent: Mozilla/5.0 (Mac) Version/17.0 Safari/605.1");
        let shape = parse(&safari, &Terms::default()).unwrap().shape;
        assert!(shape.browser && shape.whole_when_compressed);
        let cookies = with("Cookie: jwt=abc; user=\"me\"");
        let upgrade = parse(&cookies, &Terms::default()).unwrap();
        assert_eq!(upgrade.cookie("jwt"), Some("abc"));
        assert_eq!(upgrade.cookie("user"), Some("me"));
        assert_eq!(upgrade.cookie("pass"), None);
    }

    #[test]
    fn the_path_says_what_comes() {
        for (path, kind) in [
            ("/anything", Path::Client),
            ("/leafnode", Path::LeafNode),
            ("/mqtt", Path::Mqtt),
        ] {
            let request = REQUEST.replace("GET / ", &format!("GET {path} "));
            assert_eq!(parse(&request, &Terms::default()).unwrap().path, kind);
        }
    }
}
