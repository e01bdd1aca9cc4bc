//! Pinned certificates: a peer's key must be one of a list, whoever has signed its certificate.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};

use super::identity::{KeyHash, key_hash};

/// Checks as another does, and that the key is pinned.
#[derive(Debug)]
pub(super) struct Pinned<V: ?Sized> {
    pub(super) keys: Arc<BTreeSet<KeyHash>>,
    pub(super) inner: Arc<V>,
}

impl<V: ?Sized> Pinned<V> {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match key_hash(certificate) {
            Some(hash) if self.keys.contains(&hash) => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

/// A signature is checked as `inner` does: what else is checked of a peer is about its certificate.
macro_rules! signatures_as_inside {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.inner
                .verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.inner
                .verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}
pub(in crate::tls) use signatures_as_inside;

impl ClientCertVerifier for Pinned<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(certificate, intermediates, now)?;
        self.check(certificate)?;
        Ok(verified)
    }

    signatures_as_inside!();
}

impl ServerCertVerifier for Pinned<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.inner
                .verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        self.check(certificate)?;
        Ok(verified)
    }

    signatures_as_inside!();
}
