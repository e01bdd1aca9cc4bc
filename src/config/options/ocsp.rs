//! OCSP: proofs that our certificates have not been revoked, and checks of others'.

use std::path::PathBuf;
use std::time::Duration;

use super::super::duration::parse_nanoseconds;
use super::super::value::Value;
use super::report::{Field, Report, in_file_order};
use super::{Options, PeerCertificate, TlsOptions};

/// Which certificates are shown with a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspMode {
    /// Those that ask for it. The server goes on when one is revoked.
    #[default]
    Auto,
    /// All. The server ends when one is revoked.
    Always,
    /// Those that ask for it. The server ends when one is revoked.
    Must,
    /// None.
    Never,
}

/// How our certificates are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OcspOptions {
    /// Which of them with a proof.
    pub mode: OcspMode,
    /// Who is asked for it instead of those that the certificates name.
    pub urls: Vec<String>,
}

/// Whether answers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcspCacheKind {
    /// Responders are asked each time.
    None,
    /// In memory and in a directory.
    #[default]
    Local,
    /// In memory alone; no file asks for it.
    Memory,
}

/// How answers about peers' certificates are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspCacheOptions {
    /// Whether they are.
    pub kind: OcspCacheKind,
    /// Where.
    pub directory: PathBuf,
    /// An answer that says that a certificate is revoked stays when its time is over.
    pub preserve_revoked: bool,
    /// How often they are written down at most.
    pub save_interval: Duration,
}

impl Default for OcspCacheOptions {
    fn default() -> Self {
        Self {
            kind: OcspCacheKind::default(),
            directory: "_rc_".into(),
            preserve_revoked: false,
            save_interval: Duration::from_secs(300),
        }
    }
}

/// How certificates of those who connect are checked, and of servers that we connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspPeerOptions {
    /// Whether they are.
    pub verify: bool,
    /// How long a responder may take.
    pub responder_timeout: Duration,
    /// How far a responder's clock may be off.
    pub clock_skew: Duration,
    /// Nobody is refused; the log tells who would have been.
    pub warn_only: bool,
    /// A responder that does not know a certificate has nothing against it.
    pub unknown_is_good: bool,
    /// When no responder can be reached, who was not revoked before may come in.
    pub allow_when_unreachable: bool,
    /// How long an answer holds that does not say so.
    pub unset_lasts: Duration,
}

impl Default for OcspPeerOptions {
    fn default() -> Self {
        Self {
            verify: false,
            responder_timeout: Duration::from_secs(2),
            clock_skew: Duration::from_secs(30),
            warn_only: false,
            unknown_is_good: false,
            allow_when_unreachable: false,
            unset_lasts: Duration::from_secs(3600),
        }
    }
}

/// `ocsp`: a boolean, or a mode and who is asked.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<OcspOptions> {
    let mut options = OcspOptions::default();
    match field.value() {
        Value::Bool(true) => {}
        Value::Bool(false) => options.mode = OcspMode::Never,
        Value::Map(map) => {
            for member in in_file_order(map) {
                match member.key().as_str() {
                    "mode" => {
                        if let Some(word) = member.string(report) {
                            match mode(&word) {
                                Some(mode) => options.mode = mode,
                                None => member.invalid(
                                    report,
                                    format!(
                                        "error parsing ocsp config: unsupported ocsp mode {word:?}"
                                    ),
                                ),
                            }
                        }
                    }
                    "url" | "urls" => options.urls = member.strings(report).unwrap_or_default(),
                    _ => member.unknown(report),
                }
            }
        }
        _ => {
            field.wrong_type(report, "a boolean or a map");
            return None;
        }
    }
    Some(options)
}

fn mode(word: &str) -> Option<OcspMode> {
    Some(match word.to_ascii_lowercase().as_str() {
        "auto" => OcspMode::Auto,
        "always" => OcspMode::Always,
        "must" => OcspMode::Must,
        "never" => OcspMode::Never,
        _ => return None,
    })
}

/// `ocsp_cache`: a boolean, or a block.
pub(super) fn cache(field: &Field<'_>, report: &mut Report) -> OcspCacheOptions {
    let mut options = OcspCacheOptions::default();
    match field.value() {
        Value::Bool(true) => {}
        Value::Bool(false) => options.kind = OcspCacheKind::None,
        Value::Map(map) => {
            for member in in_file_order(map) {
                match member.key().as_str() {
                    "type" => match member.string(report).map(|kind| kind.to_ascii_lowercase()) {
                        Some(kind) if kind == "none" => options.kind = OcspCacheKind::None,
                        Some(kind) if kind == "local" => options.kind = OcspCacheKind::Local,
                        Some(kind) => member.invalid(
                            report,
                            format!("error parsing OCSP peer cache config, unknown type [{kind}]"),
                        ),
                        None => {}
                    },
                    "local_store" => {
                        if let Some(directory) = member.string(report) {
                            options.directory = directory.into();
                        }
                    }
                    "preserve_revoked" => {
                        options.preserve_revoked = member.bool(report) == Some(true);
                    }
                    "save_interval" => {
                        if let Some(interval) = seconds(&member, report) {
                            options.save_interval = interval.max(Duration::from_secs(1));
                        }
                    }
                    _ => member.unknown(report),
                }
            }
        }
        _ => field.wrong_type(report, "a boolean or a map"),
    }
    options
}

/// `ocsp_peer` of a `tls` block: a boolean, or a block.
pub(super) fn peer(field: &Field<'_>, report: &mut Report) -> Option<OcspPeerOptions> {
    let mut options = OcspPeerOptions::default();
    match field.value() {
        Value::Bool(verify) => options.verify = *verify,
        Value::Map(map) => {
            for member in in_file_order(map) {
                peer_member(&mut options, &member, report);
            }
        }
        _ => field.wrong_type(report, "a boolean or a map"),
    }
    options.verify.then_some(options)
}

fn peer_member(options: &mut OcspPeerOptions, member: &Field<'_>, report: &mut Report) {
    let switch = |report: &mut Report| member.bool(report) == Some(true);
    match member.key().as_str() {
        "verify" => options.verify = switch(report),
        "warn_only" => options.warn_only = switch(report),
        "unknown_is_good" => options.unknown_is_good = switch(report),
        "allow_when_ca_unreachable" => options.allow_when_unreachable = switch(report),
        "ca_timeout" => {
            // As in the reference, no time at all is the default.
            let timeout = seconds(member, report).filter(|timeout| !timeout.is_zero());
            options.responder_timeout = timeout.unwrap_or(options.responder_timeout);
        }
        "allowed_clockskew" => {
            options.clock_skew = seconds(member, report).unwrap_or(options.clock_skew);
        }
        "cache_ttl_when_next_update_unset" => {
            options.unset_lasts = seconds(member, report).unwrap_or(options.unset_lasts);
        }
        _ => member.unknown(report),
    }
}

/// The longest time that is reckoned with: some 292 years, which is what the reference can say.
const DURATION_MAX: Duration = Duration::from_nanos(i64::MAX as u64);

/// Seconds as a number, or a duration; what is negative changes nothing, as in the reference. What is longer than can be reckoned with is as
/// long as can be.
fn seconds(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    match field.value() {
        Value::Integer(seconds) => {
            let seconds = u64::try_from(*seconds).ok();
            seconds.map(|seconds| Duration::from_secs(seconds).min(DURATION_MAX))
        }
        Value::Float(seconds) if *seconds >= 0.0 => {
            let seconds = Duration::try_from_secs_f64(*seconds);
            Some(seconds.unwrap_or(DURATION_MAX).min(DURATION_MAX))
        }
        Value::Float(_) => None,
        Value::String(text) => match parse_nanoseconds(text) {
            Ok(nanoseconds) => u64::try_from(nanoseconds).ok().map(Duration::from_nanos),
            Err(error) => {
                field.invalid(report, format!("error parsing {}: {error}", field.name));
                None
            }
        },
        _ => {
            field.wrong_type(report, "seconds or a duration");
            None
        }
    }
}

/// Tells the blocks of listeners what is said for all of them.
pub(super) fn spread(options: &mut Options) {
    let store_dir = options.jetstream.store_dir.clone();
    let websocket = options.websocket.as_mut().and_then(|own| own.tls.as_mut());
    let cluster = options.cluster.tls.iter_mut();
    for tls in options.tls.iter_mut().chain(websocket).chain(cluster) {
        tls.ocsp.clone_from(&options.ocsp);
        tls.ocsp_cache.clone_from(&options.ocsp_cache);
        tls.ocsp_store.clone_from(&store_dir);
    }
}

/// Whether the options go together.
pub(super) fn check(options: &Options) -> Result<(), String> {
    let websocket = options.websocket.as_ref().and_then(|own| own.tls.as_ref());
    let checks = |tls: &&TlsOptions| tls.ocsp_peer.is_some();
    let unverified = |tls: &TlsOptions| tls.peer_certificate == PeerCertificate::NotAsked;
    let mut checking = options.tls.iter().chain(websocket).filter(checks);
    if checking.any(unverified) {
        return Err(
            "OCSP peer verification for client connections requires TLS verify (mTLS) to be enabled"
                .into(),
        );
    }
    Ok(())
}
