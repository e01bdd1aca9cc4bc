//! The `websocket` block.

use super::authorization::{Authorization, read as read_authorization};
use super::cluster::parse_advertise;
use super::report::{Field, Report, in_file_order};
use super::tls::{TlsOptions, read as read_tls, refuse_for_clients_only, refuse_for_servers_only};
use super::{Options, Port};
use std::time::Duration;

/// Names of cookies that carry credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialCookies {
    /// A user's JWT.
    pub jwt: Option<String>,
    /// A user's name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
}

/// Where WebSocket clients connect, and on which terms.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketOptions {
    /// Host; the client listener's when the file does not name one.
    pub host: Option<String>,
    /// Port.
    pub port: Port,
    /// What clients are told instead of host and port.
    pub advertise: Option<(String, Option<u16>)>,
    /// How connections are encrypted.
    pub tls: Option<TlsOptions>,
    /// They need not be.
    pub no_tls: bool,
    /// Browsers come from this server's own origin only.
    pub same_origin: bool,
    /// Browsers come from these origins only; from anywhere when there are none.
    pub allowed_origins: Vec<String>,
    /// How long TLS and the upgrade may take; `None` is no limit of their own.
    pub handshake_timeout: Option<Duration>,
    /// Compression is agreed on with peers that offer it.
    pub compression: bool,
    /// Who may connect here; whoever may connect elsewhere, when nothing is said.
    pub authorization: Authorization,
    /// Where credentials are looked for that CONNECT does not hold.
    pub cookies: CredentialCookies,
    /// Further headers of the answer to an upgrade.
    pub headers: Vec<(String, String)>,
    /// Between the server's pings; as for other clients without it.
    pub ping_interval: Option<Duration>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            host: None,
            port: Port::Fixed(0),
            advertise: None,
            tls: None,
            no_tls: false,
            same_origin: false,
            allowed_origins: Vec::new(),
            handshake_timeout: None,
            compression: false,
            authorization: Authorization::default(),
            cookies: CredentialCookies::default(),
            headers: Vec::new(),
            ping_interval: None,
        }
    }
}

impl WebSocketOptions {
    /// Whether there is a listener; port 0 is none.
    pub fn is_enabled(&self) -> bool {
        self.port != Port::Fixed(0)
    }
}

/// Reads the block.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> WebSocketOptions {
    let mut options = WebSocketOptions::default();
    for member in field.map(report).map(in_file_order).unwrap_or_default() {
        one(&mut options, &member, report);
    }
    options
}

fn one(options: &mut WebSocketOptions, field: &Field<'_>, report: &mut Report) {
    match field.key().as_str() {
        "listen" => {
            if let Some((host, port)) = field.listen(report) {
                options.host = host.or(options.host.take());
                options.port = port;
            }
        }
        "host" | "net" => options.host = field.string(report),
        "port" => {
            let port = field.integer(report).and_then(|n| field.port(report, n));
            options.port = port.unwrap_or(options.port);
        }
        "advertise" => {
            if let Some(place) = text(field, report) {
                options.advertise = parse_advertise(&place);
                if options.advertise.is_none() {
                    field.invalid(report, format!("{place:?} is not host or host:port"));
                }
            }
        }
        "no_tls" => options.no_tls = field.bool(report).unwrap_or_default(),
        "tls" => {
            options.tls = read_tls(field, report);
            if let Some(tls) = &options.tls {
                refuse_for_clients_only(tls, field, report);
                refuse_for_servers_only(tls, field, report);
            }
        }
        "same_origin" => options.same_origin = field.bool(report).unwrap_or_default(),
        "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins"
        | "origin" => options.allowed_origins = field.strings(report).unwrap_or_default(),
        "handshake_timeout" => options.handshake_timeout = positive(field, report),
        "compress" | "compression" => options.compression = field.bool(report).unwrap_or_default(),
        "authorization" | "authentication" => {
            read_authorization(&mut options.authorization, field, report);
            let several = &options.authorization;
            if !several.users.is_empty() || !several.nkeys.is_empty() {
                field.invalid(
                    report,
                    "websocket authorization does not support users: use user and password, or token",
                );
            }
        }
        "jwt_cookie" => options.cookies.jwt = text(field, report),
        "user_cookie" => options.cookies.user = text(field, report),
        "pass_cookie" => options.cookies.password = text(field, report),
        "token_cookie" => options.cookies.token = text(field, report),
        "no_auth_user" => options.authorization.no_auth_user = text(field, report),
        "headers" => options.headers = headers(field, report),
        "ping_interval" => options.ping_interval = positive(field, report),
        _ => field.unknown(report),
    }
}

fn text(field: &Field<'_>, report: &mut Report) -> Option<String> {
    field.string(report).filter(|text| !text.is_empty())
}

fn positive(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    let duration = field.duration(report);
    duration.filter(|duration| !duration.is_zero())
}

/// Names and values that can stand in an answer as they are.
fn headers(field: &Field<'_>, report: &mut Report) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for member in field.map(report).map(in_file_order).unwrap_or_default() {
        let Some(value) = member.string(report) else {
            continue;
        };
        let name = member.name;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte));
        if is_name && value.bytes().all(|byte| byte >= b' ' && byte != 0x7f) {
            headers.push((name.to_owned(), value));
        } else {
            member.invalid(report, "not a header that HTTP can carry");
        }
    }
    headers
}

/// Whether the parts go together.
pub(super) fn check(options: &Options) -> Result<(), String> {
    let Some(websocket) = &options.websocket else {
        return Ok(());
    };
    if !websocket.is_enabled() {
        return Ok(());
    }
    if websocket.tls.is_none() && !websocket.no_tls {
        return Err("websocket requires TLS configuration".into());
    }
    if let Some(tls) = &websocket.tls
        && tls.cert_file.is_none()
    {
        return Err("missing 'cert_file' in TLS configuration of websocket".into());
    }
    websocket.authorization.check()?;
    for origin in &websocket.allowed_origins {
        if !origin.contains("://") {
            return Err(format!("unable to parse allowed origin: {origin:?}"));
        }
    }
    Ok(())
}
