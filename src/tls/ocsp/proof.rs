//! The proof that another server has to show with its certificate when we dial it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, OtherError};

use super::answer::{Answer, AnswerError, Status};
use super::link::{Known, Link, issuer};
use crate::config::options::OcspPeerOptions;
use crate::tls::pins::signatures_as_inside;

/// Why a proof is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ProofError {
    #[error("peer missing OCSP Staple")]
    Missing,
    #[error("failed to get issuer certificate for peer")]
    NoIssuer,
    #[error("failed to parse OCSP response from peer: {0}")]
    Answer(#[from] AnswerError),
    #[error("OCSP staple from peer not current")]
    NotCurrent,
    #[error("bad status for OCSP Staple from peer: {0}")]
    Status(&'static str),
}

/// Checks as another does, and that the certificate is shown with a proof that it has not been revoked.
#[derive(Debug)]
pub(in crate::tls) struct ProofDemanded {
    inner: Arc<dyn ServerCertVerifier>,
    authorities: Vec<Known>,
    /// How far a responder's clock may be off.
    clock_skew: Duration,
    /// How long an answer holds that does not say so.
    unset_lasts: Duration,
}

impl ProofDemanded {
    pub(in crate::tls) fn new(
        inner: Arc<dyn ServerCertVerifier>,
        authorities: &[CertificateDer<'static>],
    ) -> Self {
        let defaults = OcspPeerOptions::default();
        Self {
            inner,
            authorities: Known::all(authorities),
            clock_skew: defaults.clock_skew,
            unset_lasts: defaults.unset_lasts,
        }
    }

    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        proof: &[u8],
        now: SystemTime,
    ) -> Result<(), ProofError> {
        if proof.is_empty() {
            return Err(ProofError::Missing);
        }
        let certificate = Known::parse(certificate).map_err(|_| ProofError::NoIssuer)?;
        let shown = Known::all(intermediates);
        let issuer = issuer(&certificate, shown.iter().chain(&self.authorities));
        let issuer = issuer.ok_or(ProofError::NoIssuer)?.clone();
        let link = Link {
            certificate,
            issuer,
        };
        let answer = Answer::read(proof, &link, now)?;
        if !answer.is_current(now, self.clock_skew, self.unset_lasts) {
            return Err(ProofError::NotCurrent);
        }
        match answer.status {
            Status::Good => Ok(()),
            status => Err(ProofError::Status(status.name())),
        }
    }
}

impl ServerCertVerifier for ProofDemanded {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        proof: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner
                .verify_server_cert(certificate, intermediates, name, proof, now)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match self.check(certificate, intermediates, proof, time) {
            Ok(()) => Ok(verified),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    signatures_as_inside!();
}
