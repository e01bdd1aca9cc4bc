//! A `tls` block: one kind for everything that listens or connects.

use super::super::duration::parse_nanoseconds;
use super::super::value::Value;
use super::report::{Field, Report, in_file_order};
use std::path::PathBuf;
use std::time::Duration;

/// How long a handshake may take.
pub const TLS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// How long a server with `handshake_first: auto` waits for the peer to begin before it says hello in plain text.
pub const HANDSHAKE_FALLBACK_DEFAULT: Duration = Duration::from_millis(50);

/// The oldest version of the protocol that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether a peer that connects must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerCertificate {
    /// It is not asked for one.
    #[default]
    NotAsked,
    /// It must show one that the authorities have signed.
    Required,
}

/// What a server says first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO in plain text, then the handshake.
    #[default]
    No,
    /// The handshake; INFO is encrypted.
    Always,
    /// The handshake, when the peer begins it within this time; else INFO in plain text.
    Within(Duration),
}

/// What a `tls` block says. Paths are as written: relative ones are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Our certificate, with what leads to its authority, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities whose certificates are believed, in PEM; the system's without it.
    pub ca_file: Option<PathBuf>,
    /// Whether a peer that connects must show a certificate.
    pub peer_certificate: PeerCertificate,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// What a server says first.
    pub handshake_first: HandshakeFirst,
}

impl Default for TlsOptions {
    fn default() -> Self {
        TlsOptions {
            cert_file: None,
            key_file: None,
            ca_file: None,
            peer_certificate: PeerCertificate::default(),
            min_version: TlsVersion::default(),
            timeout: TLS_TIMEOUT_DEFAULT,
            handshake_first: HandshakeFirst::default(),
        }
    }
}

/// Reads the block. `None` when it is no block.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<TlsOptions> {
    let map = field.map(report)?;
    let mut options = TlsOptions::default();
    for member in in_file_order(map) {
        one(&mut options, &member, report);
    }
    match (&options.cert_file, &options.key_file) {
        (Some(_), None) => field.invalid(report, "missing 'key_file' in TLS configuration"),
        (None, Some(_)) => field.invalid(report, "missing 'cert_file' in TLS configuration"),
        _ => {}
    }
    Some(options)
}

fn one(options: &mut TlsOptions, field: &Field<'_>, report: &mut Report) {
    let key = field.key();
    match key.as_str() {
        "cert_file" => options.cert_file = path(field, report),
        "key_file" => options.key_file = path(field, report),
        "ca_file" => options.ca_file = path(field, report),
        "verify" => {
            options.peer_certificate = match field.bool(report) {
                Some(true) => PeerCertificate::Required,
                _ => PeerCertificate::NotAsked,
            };
        }
        "min_version" => {
            if let Some(version) = version(field, report) {
                options.min_version = version;
            }
        }
        "timeout" => {
            if let Some(timeout) = timeout(field, report) {
                options.timeout = timeout;
            }
        }
        "handshake_first" | "first" | "immediate" => {
            if let Some(first) = handshake_first(field, report) {
                options.handshake_first = first;
            }
        }
        _ => match not_built(&key) {
            Some(_) if *field.value() == Value::Bool(false) => {}
            Some(what) => field.not_supported(report, what),
            None => field.unknown(report),
        },
    }
}

/// What the reference's remaining keys of this block would do.
fn not_built(key: &str) -> Option<&'static str> {
    Some(match key {
        "certs" | "certificates" => "choosing among several certificates is not built",
        "insecure" => "a certificate is always checked",
        "verify_and_map" => "knowing users by their certificates is not built",
        "verify_cert_and_check_known_urls" => {
            "checking certificates against known URLs is not built"
        }
        "cipher_suites" | "allow_insecure_cipher_suites" | "curve_preferences" => {
            "the choice of ciphers and curves is not built; all that are offered are secure"
        }
        "connection_rate_limit" => "a limit on handshakes per second is not built",
        "pinned_certs" => "pinned certificates are not built",
        "cert_store"
        | "cert_match_by"
        | "cert_match"
        | "ca_certs_match"
        | "cert_match_skip_invalid" => "the certificate store of Windows is not built",
        "ocsp_peer" => "OCSP is not built",
        _ => return None,
    })
}

fn path(field: &Field<'_>, report: &mut Report) -> Option<PathBuf> {
    let text = field.string(report).filter(|text| !text.is_empty())?;
    Some(PathBuf::from(text))
}

fn version(field: &Field<'_>, report: &mut Report) -> Option<TlsVersion> {
    match field.string(report)?.as_str() {
        "1.2" => Some(TlsVersion::Tls12),
        "1.3" => Some(TlsVersion::Tls13),
        "1.0" | "1.1" => {
            field.invalid(report, "unsupported TLS version, the minimum is 1.2");
            None
        }
        other => {
            field.invalid(report, format!("unknown TLS version {other:?}"));
            None
        }
    }
}

/// Seconds as a number, or a duration.
fn timeout(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    let timeout = match field.value() {
        Value::Integer(seconds) => Duration::try_from_secs_f64(*seconds as f64).ok(),
        Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Value::String(text) => match parse_nanoseconds(text) {
            Ok(nanoseconds) => u64::try_from(nanoseconds).ok().map(Duration::from_nanos),
            Err(error) => {
                field.invalid(
                    report,
                    format!("error parsing tls config, 'timeout' {error}"),
                );
                return None;
            }
        },
        _ => {
            field.wrong_type(report, "seconds or a duration");
            return None;
        }
    };
    if timeout.is_none() {
        field.invalid(report, "timeout is out of range");
    }
    timeout.filter(|timeout| !timeout.is_zero())
}

fn handshake_first(field: &Field<'_>, report: &mut Report) -> Option<HandshakeFirst> {
    match field.value() {
        Value::Bool(true) => Some(HandshakeFirst::Always),
        Value::Bool(false) => Some(HandshakeFirst::No),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(HandshakeFirst::Always),
            "false" | "off" => Some(HandshakeFirst::No),
            "auto" | "auto_fallback" => Some(HandshakeFirst::Within(HANDSHAKE_FALLBACK_DEFAULT)),
            _ => {
                let fallback = field.duration(report)?;
                Some(match fallback.is_zero() {
                    true => HandshakeFirst::Always,
                    false => HandshakeFirst::Within(fallback),
                })
            }
        },
        _ => {
            field.wrong_type(report, "a boolean, 'auto' or a duration");
            None
        }
    }
}
