//! Whether the certificates of somebody who connects, or of a server that we connect to, have been revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::answer::{Answer, Status};
use super::cache::{Cache, CacheFigures};
use super::fetch::{Method, fetch};
use super::link::{Known, Link};
use super::path::Authorities;
use super::staple::FOLDER;
use crate::config::options::{OcspCacheKind, OcspCacheOptions, OcspPeerOptions};

/// How often at most is written down what is asked in place of proofs: each time, since there are few servers.
const SAVE_INTERVAL: Duration = Duration::ZERO;

/// Who a peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerKind {
    /// A client.
    #[default]
    Client,
    /// Another server, whoever of us has dialled.
    Server,
}

impl PeerKind {
    /// What one is called that is not let in, in the log and in events.
    pub fn refused(self) -> &'static str {
        match self {
            Self::Client => "client not OCSP valid",
            Self::Server => "server not OCSP valid",
        }
    }
}

/// A certificate, for people and their tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CertificateInfo {
    /// Whose it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Who signed it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// The SHA-256 of it, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// It, in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub raw: String,
}

impl CertificateInfo {
    fn of(known: &Known) -> Self {
        let (subject, issuer) = known.names();
        Self {
            subject,
            issuer,
            fingerprint: known.fingerprint(),
            raw: STANDARD.encode(&known.bytes),
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", kind.refused())]
pub struct PeerRefusal {
    /// Who it is.
    pub kind: PeerKind,
    /// The peer's own certificate.
    pub peer: CertificateInfo,
    /// The certificate on the way to its authority that is to blame.
    pub link: CertificateInfo,
    /// What is wrong with it.
    pub reason: String,
}

/// Which certificates are asked about.
#[derive(Debug)]
enum Scope {
    /// Those on the way to the authority that name a responder.
    Chain,
    /// The peer's own, in place of a proof that would be shown with it: somebody has to vouch for it.
    Own {
        /// Who is asked before the responders that it names.
        responders: Vec<String>,
    },
}

/// Checks peers.
#[derive(Debug)]
pub struct PeerCheck {
    peers: PeerKind,
    scope: Scope,
    options: OcspPeerOptions,
    authorities: Authorities,
    cache: Arc<Cache>,
}

/// What came of one certificate: let through, or the reason why not.
type Verdict = Result<(), String>;

impl PeerCheck {
    /// A check as the options say, against these authorities. Reads a file: not for a connection's thread.
    pub(in crate::tls) fn new(
        peers: PeerKind,
        options: &OcspPeerOptions,
        cache: &OcspCacheOptions,
        authorities: &[CertificateDer<'static>],
    ) -> Self {
        Self {
            peers,
            scope: Scope::Chain,
            options: options.clone(),
            authorities: Authorities::new(authorities),
            cache: Cache::shared(cache),
        }
    }

    /// A check of servers that would have to prove that their own certificate has not been revoked, and cannot. The answers are
    /// kept where those about our own are. Reads a file: not for a connection's thread.
    pub(in crate::tls) fn in_place_of_proof(
        responders: &[String],
        store_dir: Option<&Path>,
        authorities: &[CertificateDer<'static>],
    ) -> Self {
        let (kind, directory) = match store_dir {
            Some(store) => (OcspCacheKind::Local, store.join(FOLDER)),
            None => (OcspCacheKind::Memory, PathBuf::new()),
        };
        let cache = OcspCacheOptions {
            kind,
            directory,
            save_interval: SAVE_INTERVAL,
            ..OcspCacheOptions::default()
        };
        Self {
            scope: Scope::Own {
                responders: responders.to_vec(),
            },
            ..Self::new(
                PeerKind::Server,
                &OcspPeerOptions::default(),
                &cache,
                authorities,
            )
        }
    }

    /// How its cache is used.
    pub fn cache_figures(&self) -> CacheFigures {
        self.cache.figures()
    }

    /// Whether a peer that has shown these certificates, its own first, which lead to one of the authorities, may come in.
    pub async fn admits(
        self: &Arc<Self>,
        shown: &[CertificateDer<'static>],
    ) -> Result<(), Box<PeerRefusal>> {
        let (check, shown) = (Arc::clone(self), shown.to_vec());
        // Responders are waited for: not on a connection's thread.
        let checked = tokio::task::spawn_blocking(move || check.check(&shown)).await;
        checked.unwrap_or_else(|_| Err(Box::default()))
    }

    /// The same, on a thread that may wait.
    pub(super) fn check(&self, shown: &[CertificateDer<'_>]) -> Result<(), Box<PeerRefusal>> {
        let refused = |reason: &str| {
            Box::new(PeerRefusal {
                kind: self.peers,
                reason: reason.into(),
                ..PeerRefusal::default()
            })
        };
        let paths = self
            .authorities
            .paths(self.peers, shown, SystemTime::now())
            .map_err(|error| refused(&error.to_string()))?;
        let paths = match self.scope {
            Scope::Chain => asked(paths),
            Scope::Own { .. } => {
                let own = paths.into_iter().find_map(|path| path.into_iter().next());
                vec![vec![own.ok_or_else(|| refused("the issuer is not known"))?]]
            }
        };
        let mut refusal = None;
        for path in paths {
            match self.judge_all(&path) {
                Ok(()) => return Ok(()),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Whether nothing is wrong with the certificates of a way, the peer's own first.
    fn judge_all(&self, path: &[Link]) -> Result<(), Box<PeerRefusal>> {
        let links = path.iter();
        for link in links.filter(|link| self.asks_about(link)) {
            if let Err(reason) = self.judge(link) {
                let peer = path.first().unwrap_or(link);
                return Err(Box::new(PeerRefusal {
                    kind: self.peers,
                    peer: CertificateInfo::of(&peer.certificate),
                    link: CertificateInfo::of(&link.certificate),
                    reason,
                }));
            }
        }
        Ok(())
    }

    fn asks_about(&self, link: &Link) -> bool {
        match self.scope {
            Scope::Chain => !link.certificate.responders().is_empty(),
            Scope::Own { .. } => true,
        }
    }

    fn judge(&self, link: &Link) -> Verdict {
        let subject = link.certificate.names().0;
        let verdict = self.status(link, &subject).and_then(|status| {
            match status {
                Some(Status::Revoked) => Err(Status::Revoked),
                Some(Status::Unknown) if !self.options.unknown_is_good => Err(Status::Unknown),
                _ => Ok(()),
            }
            .map_err(|status| {
                let status = status.name();
                tracing::warn!("OCSP verify fail for [{subject}] with CA status [{status}]");
                format!("Invalid OCSP response status: {status}")
            })
        });
        match verdict {
            Err(_) if self.options.warn_only => {
                tracing::warn!("OCSP verify fail for [{subject}] but WarnOnly is true so allowing");
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// What is said of a certificate; `None` where nobody can be reached and that is good enough.
    fn status(&self, link: &Link, subject: &str) -> Result<Option<Status>, String> {
        let fingerprint = link.certificate.fingerprint();
        let now = SystemTime::now();
        let mut was_revoked = false;
        if let Some(bytes) = self.cache.get(&fingerprint) {
            let found = Answer::read(&bytes, link, now);
            was_revoked = found.is_ok_and(|answer| answer.status == Status::Revoked);
            match found {
                Ok(answer) if self.is_current(&answer, now) => return Ok(Some(answer.status)),
                _ => self.cache.forget(&fingerprint),
            }
        }
        let question = link.question().map_err(|error| error.to_string())?;
        let (responders, methods) = self.whom_to_ask(&link.certificate);
        let timeout = self.options.responder_timeout;
        let bytes = match fetch(&responders, &question, methods, timeout) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(
                    "Attempt to obtain OCSP response from CA responder for [{subject}] failed: {error}"
                );
                return match self.options.allow_when_unreachable {
                    true if !was_revoked => {
                        tracing::warn!(
                            "Failed to obtain OCSP CA response for [{subject}] but AllowWhenCAUnreachable set; no cached revocation so allowing"
                        );
                        Ok(None)
                    }
                    _ => Err("Failed OCSP response fetch".into()),
                };
            }
        };
        let answer = Answer::read(&bytes, link, now).map_err(|error| {
            tracing::error!("Could not parse OCSP CA response for [{subject}]: {error}");
            "Failed OCSP response parse".to_owned()
        })?;
        if !self.is_current(&answer, now) {
            tracing::warn!("New OCSP CA response obtained for [{subject}] but not current");
            return Err("OCSP response not in effectivity window".into());
        }
        self.cache.put(&fingerprint, subject, &answer, &bytes);
        Ok(Some(answer.status))
    }

    /// Who is asked, and how: in place of a proof, as whoever would have to show it asks.
    fn whom_to_ask(&self, certificate: &Known) -> (Vec<String>, &'static [Method]) {
        let named = certificate.responders();
        match &self.scope {
            Scope::Chain => (named, &[Method::Get]),
            Scope::Own { responders } => {
                let all = responders.iter().cloned().chain(named);
                (all.collect(), &[Method::Post, Method::Get])
            }
        }
    }

    fn is_current(&self, answer: &Answer, now: SystemTime) -> bool {
        answer.is_current(now, self.options.clock_skew, self.options.unset_lasts)
    }
}

/// The ways on which a certificate names a responder. As in the reference, the others count only where there are none of these, and one
/// on which all is well is enough.
fn asked(mut paths: Vec<Vec<Link>>) -> Vec<Vec<Link>> {
    paths.retain(|path| {
        path.iter()
            .any(|link| !link.certificate.responders().is_empty())
    });
    paths
}
