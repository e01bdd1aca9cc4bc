//! A `tls` block: one kind for everything that listens or connects.

use super::super::duration::parse_nanoseconds;
use super::super::value::Value;
use super::ocsp::{self, OcspCacheOptions, OcspOptions, OcspPeerOptions};
use super::report::{Field, Report, in_file_order};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How long a handshake may take.
pub const TLS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// How long a server with `handshake_first: auto` waits for the peer to begin before it says hello in plain text.
pub const HANDSHAKE_FALLBACK_DEFAULT: Duration = Duration::from_millis(50);

/// The suites that there are to choose from. Those of TLS 1.3 may be named and are always offered, as in the reference.
pub const CIPHER_SUITES: [&str; 11] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// The curves that there are to choose from.
pub const CURVES: [&str; 3] = ["X25519", "CurveP256", "CurveP384"];

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
    /// Further certificates and their keys, chosen among by the host that a peer wants to reach.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Whether a client, or another server, is the user that its certificate names.
    pub maps_users: bool,
    /// Whether another server must have a certificate for one of the hosts that are dialled.
    pub checks_known_hosts: bool,
    /// A peer's key must be one of these (SHA-256 of the SubjectPublicKeyInfo); any when there is none.
    pub pinned_keys: BTreeSet<[u8; 32]>,
    /// The suites of TLS 1.2 that are offered, by name; all when none is named.
    pub cipher_suites: Vec<String>,
    /// The curves that are offered, by name and in this order; all when none is named.
    pub curve_preferences: Vec<String>,
    /// Handshakes that clients may begin within a second; `None` is no limit.
    pub handshakes_per_second_max: Option<u32>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// What a server says first.
    pub handshake_first: HandshakeFirst,
    /// How certificates of those who connect are checked, besides who signed them.
    pub ocsp_peer: Option<OcspPeerOptions>,
    /// How answers for that are kept; said for all blocks.
    pub ocsp_cache: OcspCacheOptions,
    /// Whether our certificate is shown with a proof; said for all blocks.
    pub ocsp: Option<OcspOptions>,
    /// The directory below which proofs are kept.
    pub ocsp_store: Option<PathBuf>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        TlsOptions {
            cert_file: None,
            key_file: None,
            ca_file: None,
            peer_certificate: PeerCertificate::default(),
            certificates: Vec::new(),
            maps_users: false,
            checks_known_hosts: false,
            pinned_keys: BTreeSet::new(),
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
            handshakes_per_second_max: None,
            min_version: TlsVersion::default(),
            timeout: TLS_TIMEOUT_DEFAULT,
            handshake_first: HandshakeFirst::default(),
            ocsp_peer: None,
            ocsp_cache: OcspCacheOptions::default(),
            ocsp: None,
            ocsp_store: None,
        }
    }
}

/// What only the port for clients can do, refused where the block is another listener's.
pub(super) fn refuse_for_clients_only(tls: &TlsOptions, field: &Field<'_>, report: &mut Report) {
    if tls.handshakes_per_second_max.is_some() {
        field.not_supported(report, "only the port for clients limits handshakes");
    }
}

/// What only servers of a cluster can ask of each other.
pub(super) fn refuse_for_servers_only(tls: &TlsOptions, field: &Field<'_>, report: &mut Report) {
    if tls.checks_known_hosts {
        field.invalid(
            report,
            "verify_cert_and_check_known_urls not supported in this context",
        );
    }
}

/// Reads the block of a listener for clients. `None` when it is no block.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<TlsOptions> {
    let options = members(field, report)?;
    check(&options, field, report);
    Some(options)
}

/// Reads the block of servers that dial each other: both sides show a certificate, whatever `verify` says, as in the reference.
/// `None` when it is no block.
pub(super) fn read_mutual(field: &Field<'_>, report: &mut Report) -> Option<TlsOptions> {
    let options = TlsOptions {
        peer_certificate: PeerCertificate::Required,
        ..members(field, report)?
    };
    check(&options, field, report);
    refuse_for_clients_only(&options, field, report);
    Some(options)
}

fn members(field: &Field<'_>, report: &mut Report) -> Option<TlsOptions> {
    let map = field.map(report)?;
    let mut options = TlsOptions::default();
    for member in in_file_order(map) {
        one(&mut options, &member, report);
    }
    Some(options)
}

/// Whether what is said goes together.
fn check(options: &TlsOptions, field: &Field<'_>, report: &mut Report) {
    match (&options.cert_file, &options.key_file) {
        (Some(_), None) => field.invalid(report, "missing 'key_file' in TLS configuration"),
        (None, Some(_)) => field.invalid(report, "missing 'cert_file' in TLS configuration"),
        _ => {}
    }
    if !options.certificates.is_empty() && options.cert_file.is_some() {
        field.invalid(
            report,
            "error parsing tls config, cannot combine 'cert_file' option with 'certs' option",
        );
    }
    if !options.pinned_keys.is_empty() && options.peer_certificate == PeerCertificate::NotAsked {
        field.invalid(
            report,
            "pinned_certs needs 'verify': a client that is not asked for a certificate shows none",
        );
    }
}

fn one(options: &mut TlsOptions, field: &Field<'_>, report: &mut Report) {
    let key = field.key();
    match key.as_str() {
        "cert_file" => options.cert_file = path(field, report),
        "key_file" => options.key_file = path(field, report),
        "ca_file" => options.ca_file = path(field, report),
        "verify" => match field.bool(report) {
            Some(true) => options.peer_certificate = PeerCertificate::Required,
            _ if options.maps_users || options.checks_known_hosts => {}
            _ => options.peer_certificate = PeerCertificate::NotAsked,
        },
        "verify_and_map" => {
            options.maps_users = field.bool(report) == Some(true);
            if options.maps_users {
                options.peer_certificate = PeerCertificate::Required;
            }
        }
        "verify_cert_and_check_known_urls" => {
            options.checks_known_hosts = field.bool(report) == Some(true);
            if options.checks_known_hosts {
                options.peer_certificate = PeerCertificate::Required;
            }
        }
        "certs" | "certificates" => options.certificates = certificates(field, report),
        "pinned_certs" => options.pinned_keys = pinned_keys(field, report),
        "cipher_suites" => {
            options.cipher_suites = names(field, report, &CIPHER_SUITES, "cipher");
        }
        "curve_preferences" => {
            options.curve_preferences = names(field, report, &CURVES, "curve");
        }
        "connection_rate_limit" => {
            let most = i64::from(i32::MAX);
            let limit = field.within::<u32>(report, 0, most);
            options.handshakes_per_second_max = limit.filter(|limit| *limit > 0);
        }
        "ocsp_peer" => options.ocsp_peer = ocsp::peer(field, report),
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
        "insecure" => "a certificate is always checked",
        "allow_insecure_cipher_suites" => "there are no insecure ciphers",
        "cert_store"
        | "cert_match_by"
        | "cert_match"
        | "ca_certs_match"
        | "cert_match_skip_invalid" => "the certificate store of Windows is not built",
        _ => return None,
    })
}

/// A list of certificates with their keys.
fn certificates(field: &Field<'_>, report: &mut Report) -> Vec<(PathBuf, PathBuf)> {
    let mut pairs = Vec::new();
    let Value::Array(items) = field.value() else {
        field.wrong_type(report, "a list of certificates with their keys");
        return pairs;
    };
    for node in items {
        let name = field.name;
        let entry = Field { name, node };
        let Some(map) = entry.map(report) else {
            continue;
        };
        let (mut certificate, mut key) = (None, None);
        for member in in_file_order(map) {
            match member.key().as_str() {
                "cert_file" => certificate = path(&member, report),
                "key_file" => key = path(&member, report),
                _ => member.unknown(report),
            }
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => pairs.push((certificate, key)),
            _ => entry.invalid(
                report,
                "error parsing certs config: both 'cert_file' and 'key_file' options are required",
            ),
        }
    }
    pairs
}

/// Hashes of keys in hexadecimal digits.
fn pinned_keys(field: &Field<'_>, report: &mut Report) -> BTreeSet<[u8; 32]> {
    let mut keys = BTreeSet::new();
    let Value::Array(_) = field.value() else {
        field.invalid(report, "error parsing tls config, expected 'pinned_certs' to be a list of hex-encoded sha256 of DER encoded SubjectPublicKeyInfo");
        return keys;
    };
    for text in field.strings(report).unwrap_or_default() {
        match hash(&text) {
            Some(key) => {
                keys.insert(key);
            }
            None => {
                let text = text.to_ascii_lowercase();
                let reason = format!(
                    "error parsing tls config, 'pinned_certs' key {text} does not look like hex-encoded sha256 of DER encoded SubjectPublicKeyInfo"
                );
                field.invalid(report, reason);
            }
        }
    }
    keys
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    let bytes: Vec<u8> = digits?
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// Names of what can be offered.
fn names(field: &Field<'_>, report: &mut Report, known: &[&str], what: &str) -> Vec<String> {
    let names = field.strings(report).unwrap_or_default();
    if names.is_empty() {
        let reason = format!("error parsing tls config, '{}' cannot be empty", field.name);
        field.invalid(report, reason);
    }
    for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
        field.invalid(report, format!("{what} {name:?} is not known here"));
    }
    names
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
