//! Whether the certificates of somebody who connects have been revoked.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::answer::{Answer, Status};
use super::cache::{Cache, CacheFigures};
use super::fetch::{Method, fetch};
use super::link::{Known, Link};
use crate::config::options::{OcspCacheOptions, OcspPeerOptions};

/// Certificates from a peer's own to its authority; longer chains are not followed.
const LINKS_MAX: usize = 10;
/// What a peer is told to be, in the log and in events.
pub const REASON: &str = "client not OCSP valid";

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
#[error("client not OCSP valid: {reason}")]
pub struct PeerRefusal {
    /// The peer's own certificate.
    pub peer: CertificateInfo,
    /// The certificate on the way to its authority that is to blame.
    pub link: CertificateInfo,
    /// What is wrong with it.
    pub reason: String,
}

/// Checks those who connect.
#[derive(Debug)]
pub struct PeerCheck {
    options: OcspPeerOptions,
    authorities: Vec<Known>,
    cache: Cache,
}

/// What came of one certificate: let through, or the reason why not.
type Verdict = Result<(), String>;

impl PeerCheck {
    /// A check as the options say, against these authorities. Reads a file: not for a connection's thread.
    pub(in crate::tls) fn new(
        options: &OcspPeerOptions,
        cache: &OcspCacheOptions,
        authorities: &[CertificateDer<'static>],
    ) -> Self {
        let authorities = authorities.iter();
        Self {
            options: options.clone(),
            authorities: authorities
                .filter_map(|one| Known::parse(one).ok())
                .collect(),
            cache: Cache::open(cache),
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
        let unreadable = || {
            Box::new(PeerRefusal {
                reason: "the certificate cannot be read".into(),
                ..PeerRefusal::default()
            })
        };
        let shown: Result<Vec<Known>, _> = shown.iter().map(Known::parse).collect();
        let shown = shown.map_err(|_| unreadable())?;
        let peer = shown.first().ok_or_else(unreadable)?;
        for link in self.links(&shown) {
            if let Err(reason) = self.judge(&link) {
                let refusal = PeerRefusal {
                    peer: CertificateInfo::of(peer),
                    link: CertificateInfo::of(&link.certificate),
                    reason,
                };
                return Err(Box::new(refusal));
            }
        }
        Ok(())
    }

    /// The certificates from the peer's own to its authority that name a responder, each with its issuer. An authority answers for
    /// nobody but itself.
    fn links(&self, shown: &[Known]) -> Vec<Link> {
        let mut links = Vec::new();
        let mut current = shown.first();
        for _ in 0..LINKS_MAX {
            let Some(certificate) = current.filter(|certificate| !certificate.is_root()) else {
                break;
            };
            let mut candidates = shown.iter().skip(1).chain(&self.authorities);
            let issuer = candidates.find(|candidate| certificate.is_by(candidate));
            if let Some(issuer) = issuer
                && !certificate.responders().is_empty()
            {
                links.push(Link {
                    certificate: certificate.clone(),
                    issuer: issuer.clone(),
                });
            }
            // What is trusted without being a root ends the way, too.
            let is_authority = issuer.is_some_and(|issuer| {
                let mut all = self.authorities.iter();
                all.any(|authority| authority.bytes == issuer.bytes)
            });
            current = issuer.filter(|_| !is_authority);
        }
        links
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
        let responders = link.certificate.responders();
        let timeout = self.options.responder_timeout;
        let bytes = match fetch(&responders, &question, &[Method::Get], timeout) {
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

    fn is_current(&self, answer: &Answer, now: SystemTime) -> bool {
        answer.is_current(now, self.options.clock_skew, self.options.unset_lasts)
    }
}
