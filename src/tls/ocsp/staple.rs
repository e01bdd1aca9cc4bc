//! An answer about our own certificate, shown with it, so that whoever connects need not ask the authority.
//!
//! A thread keeps it fresh: it asks again when half of the answer's time is over. The thread ends when the certificate is no longer
//! used, as after a reload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::OcspError;
use super::answer::{Answer, Status};
use super::fetch::{Method, fetch};
use super::file;
use super::link::{Known, Link, issuer};
use crate::config::duration::format_duration;
use crate::config::options::{OcspMode, OcspOptions};

/// How long a responder may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// When an answer without an end is asked for again.
const AGAIN_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// When it is asked again after an answer whose time is over.
const AGAIN_LATE: Duration = Duration::from_secs(2 * 60);
/// Not sooner than this, however short an answer's time is.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The folder below the store directory that answers are kept in.
pub(super) const FOLDER: &str = "ocsp";

/// A certificate with an answer about it.
#[derive(Debug)]
pub(in crate::tls) struct Stapled {
    shown: Arc<ArcSwap<Shown>>,
    /// The thread ends when this is gone.
    _kept_fresh: Sender<()>,
}

#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    /// Its answer's time is over then.
    until: Option<SystemTime>,
}

impl Stapled {
    /// The certificate with its answer; `None` when the answer's time is over: who connects would be shown a promise that is not
    /// kept.
    pub(in crate::tls) fn key(&self) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown.load();
        let is_over = shown.until.is_some_and(|until| until < SystemTime::now());
        (!is_over).then(|| Arc::clone(&shown.key))
    }
}

/// What keeps the answer fresh.
struct Keeper {
    key: CertifiedKey,
    link: Link,
    responders: Vec<String>,
    file: Option<PathBuf>,
    /// For the log.
    named: String,
    ends_when_revoked: bool,
}

/// The certificate with an answer about it, when the options or the certificate itself ask for one. Asks the responder, if there is no
/// answer of before: not for a connection's thread.
pub(in crate::tls) fn staple(
    options: Option<&OcspOptions>,
    store_dir: Option<&Path>,
    named: &Path,
    key: &CertifiedKey,
    authorities: &[CertificateDer<'static>],
) -> Result<Option<Stapled>, OcspError> {
    let own = key.cert.first().ok_or(OcspError::Certificate)?;
    let Ok(certificate) = Known::parse(own) else {
        // It cannot ask for one, either.
        return match options.map(|options| options.mode) {
            Some(OcspMode::Always) => Err(OcspError::Certificate),
            _ => Ok(None),
        };
    };
    let asks = certificate.must_staple();
    let ends_when_revoked = match options.map(|options| options.mode) {
        Some(OcspMode::Never) => {
            if asks {
                let named = named.display();
                tracing::warn!("Certificate at '{named}' has MustStaple but OCSP is disabled");
            }
            return Ok(None);
        }
        Some(OcspMode::Always) => true,
        Some(OcspMode::Must) if asks => true,
        _ if asks => false,
        _ => return Ok(None),
    };
    let (shown, authorities) = (Known::all(&key.cert), Known::all(authorities));
    let candidates = shown.iter().skip(1).chain(&authorities);
    let issuer = issuer(&certificate, candidates).ok_or(OcspError::NoIssuer)?;
    let issuer = issuer.clone();
    let overriding = options.map_or(&[][..], |options| &options.urls);
    let responders = match overriding {
        [] => certificate.responders(),
        urls => urls.to_vec(),
    };
    let file_name = certificate.file_name();
    let keeper = Keeper {
        key: key.clone(),
        link: Link {
            certificate,
            issuer,
        },
        responders,
        file: store_dir.map(|directory| directory.join(FOLDER).join(file_name)),
        named: named.display().to_string(),
        ends_when_revoked,
    };
    keeper.start().map(Some)
}

impl Keeper {
    fn start(self) -> Result<Stapled, OcspError> {
        let (bytes, answer) = match self.remembered() {
            Some(found) => found,
            None => self.ask()?,
        };
        if answer.status != Status::Good && self.ends_when_revoked {
            return Err(OcspError::NotGood {
                status: answer.status.name(),
            });
        }
        let shown = Arc::new(ArcSwap::from_pointee(self.shown(bytes, &answer)));
        let (kept_fresh, ended) = channel();
        let next = next_time(&answer);
        self.tell("Found", &answer, next);
        let target = Arc::clone(&shown);
        let thread = std::thread::Builder::new().name("ocsp".into());
        thread
            .spawn(move || self.keep_fresh(&target, &ended, next))
            .map_err(|source| OcspError::Network {
                url: "the thread that keeps a staple fresh".into(),
                source,
            })?;
        Ok(Stapled {
            shown,
            _kept_fresh: kept_fresh,
        })
    }

    fn shown(&self, bytes: Vec<u8>, answer: &Answer) -> Shown {
        Shown {
            key: Arc::new(CertifiedKey {
                ocsp: Some(bytes),
                ..self.key.clone()
            }),
            until: answer.next_update,
        }
    }

    fn tell(&self, verb: &str, answer: &Answer, next: Duration) {
        let (named, status) = (&self.named, answer.status.name());
        match answer.status {
            Status::Good => tracing::info!(
                "{verb} OCSP status for certificate at '{named}': {status}, checking again in {}",
                format_duration(next)
            ),
            _ => tracing::error!("{verb} OCSP status for certificate at '{named}': {status}"),
        }
    }

    /// The answer that an earlier run has left, as long as its time is not over.
    fn remembered(&self) -> Option<(Vec<u8>, Answer)> {
        let bytes = std::fs::read(self.file.as_ref()?).ok()?;
        let answer = self.checked(&bytes).ok()?;
        Some((bytes, answer))
    }

    /// Asks the responders, and remembers the answer.
    fn ask(&self) -> Result<(Vec<u8>, Answer), OcspError> {
        let question = self.link.question()?;
        let methods = [Method::Post, Method::Get];
        let bytes = fetch(&self.responders, &question, &methods, PATIENCE)?;
        let answer = self.checked(&bytes)?;
        if let Some(path) = &self.file {
            file::replace(path, &bytes).map_err(|source| OcspError::Store {
                path: path.clone(),
                source,
            })?;
        }
        Ok((bytes, answer))
    }

    fn checked(&self, bytes: &[u8]) -> Result<Answer, OcspError> {
        let now = SystemTime::now();
        let answer = Answer::read(bytes, &self.link, now)?;
        match answer.is_current(now, Duration::ZERO, Duration::MAX) {
            true => Ok(answer),
            false => Err(OcspError::NotCurrent),
        }
    }

    fn keep_fresh(&self, target: &ArcSwap<Shown>, ended: &Receiver<()>, first: Duration) {
        let mut next = first;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(next) {
            match self.ask() {
                Ok((bytes, answer)) => {
                    next = next_time(&answer);
                    self.tell("Received", &answer, next);
                    target.store(Arc::new(self.shown(bytes, &answer)));
                    if answer.status != Status::Good {
                        if self.ends_when_revoked {
                            // As an operator would: everything ends in its order.
                            let own = rustix::process::getpid();
                            let signal = rustix::process::Signal::INT;
                            let _ = rustix::process::kill_process(own, signal);
                        }
                        return;
                    }
                }
                Err(error) => {
                    let until = target.load().until;
                    next = until_half(until, SystemTime::now());
                    tracing::error!(
                        "Bad OCSP status update for certificate '{}': {error}, trying again in {}",
                        self.named,
                        format_duration(next)
                    );
                }
            }
        }
    }
}

fn next_time(answer: &Answer) -> Duration {
    until_half(answer.next_update, SystemTime::now())
}

/// How long until half of the time that is left is over.
fn until_half(end: Option<SystemTime>, now: SystemTime) -> Duration {
    match end.map(|end| end.duration_since(now)) {
        None => AGAIN_DEFAULT,
        Some(Ok(left)) => (left / 2).max(AGAIN_MIN),
        Some(Err(_)) => AGAIN_LATE,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn an_answer_is_asked_for_again_when_half_of_its_time_is_over() {
        let now = SystemTime::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert_eq!(until_half(Some(now + minutes(60)), now), minutes(30));
        assert_eq!(until_half(Some(now), now), AGAIN_MIN);
        assert_eq!(until_half(Some(now - minutes(1)), now), AGAIN_LATE);
        assert_eq!(until_half(None, now), AGAIN_DEFAULT);
    }
}
