//! Certificates and keys from files, and what a `tls` block means for each side of a connection.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::choice::{self, ByHost};
use super::identity::KeyHash;
use super::ocsp::{self, OcspError, PeerCheck, PeerKind, ProofDemanded};
use super::pins::Pinned;
use crate::config::options::{PeerCertificate, TlsOptions, TlsVersion};

/// Why a `tls` block cannot be put to use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A server has nothing to show to its peers.
    #[error("missing 'cert_file' and 'key_file' in TLS configuration")]
    NoCertificate,
    /// A file cannot be read, or is no PEM.
    #[error("error reading {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file that should hold certificates holds none.
    #[error("failed to parse a certificate from {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The certificate and the key do not belong together, or cannot be used.
    #[error("error parsing X509 certificate/key pair {cert_file} and {key_file}: {source}")]
    Pair {
        /// The certificate.
        cert_file: PathBuf,
        /// Its key.
        key_file: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// An authority's certificate cannot be used.
    #[error("failed to parse root ca certificate from {path}: {source}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// No file of authorities is named, and the system knows none either.
    #[error("'ca_file' is missing in TLS configuration and the system trusts no authority")]
    NoAuthorities,
    /// What checks peers cannot be made of these authorities.
    #[error("cannot check certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Nothing can be shown with a certificate that asks for it.
    #[error("bad OCSP status update for certificate at '{cert_file}': {source}")]
    Ocsp {
        /// The certificate.
        cert_file: PathBuf,
        /// Why.
        source: OcspError,
    },
    /// The versions and the ciphers do not go together.
    #[error("TLS cannot be set up: {0}")]
    Versions(rustls::Error),
}

/// What a listener needs. Reads files, and may ask a responder: not for a connection's thread.
pub fn server_config(options: &TlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(listening(options)?.0)
}

/// The same, and whether a certificate of ours is shown with a proof that it has not been revoked.
pub(super) fn listening(options: &TlsOptions) -> Result<(Arc<ServerConfig>, bool), TlsError> {
    let provider = provider(options);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(options.min_version))
        .map_err(TlsError::Versions)?;
    let builder = match options.peer_certificate {
        PeerCertificate::NotAsked => builder.with_no_client_auth(),
        PeerCertificate::Required => {
            let authorities = Arc::new(authorities(options)?);
            let provider = Arc::clone(&provider);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(authorities, provider).build()?;
            builder.with_client_cert_verifier(match pins(options) {
                None => verifier,
                Some(keys) => Arc::new(Pinned::<dyn ClientCertVerifier> {
                    keys,
                    inner: verifier,
                }),
            })
        }
    };
    let own = OwnCertificate::load_all(options)?;
    if own.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let issuers = match &options.ca_file {
        Some(path) => certificates(path)?,
        None => Vec::new(),
    };
    let mut all = Vec::with_capacity(own.len());
    for own in &own {
        let key = own.certified(&provider)?;
        let (ocsp, store) = (options.ocsp.as_ref(), options.ocsp_store.as_deref());
        let stapled = ocsp::staple(ocsp, store, &own.cert_file, &key, &issuers);
        let stapled = stapled.map_err(|source| TlsError::Ocsp {
            cert_file: own.cert_file.clone(),
            source,
        })?;
        all.push((key, stapled));
    }
    let is_proven = all.iter().any(|(_, stapled)| stapled.is_some());
    let config = builder.with_cert_resolver(Arc::new(ByHost::new(all)));
    Ok((Arc::new(config), is_proven))
}

/// When the certificate ends that a listener shows first; `None` where it cannot be read. Reads a file: not for a connection's thread.
pub fn not_after(options: &TlsOptions) -> Option<SystemTime> {
    let listed = options.certificates.first().map(|(cert, _)| cert);
    let own = certificates(options.cert_file.as_ref().or(listed)?).ok()?;
    ocsp::not_after(own.first()?)
}

/// What asks whether the certificates of peers have been revoked, when that is to be. Reads files: not for a connection's thread.
pub fn peer_check(
    options: &TlsOptions,
    peers: PeerKind,
) -> Result<Option<Arc<PeerCheck>>, TlsError> {
    let Some(check) = &options.ocsp_peer else {
        return Ok(None);
    };
    let authorities = authority_certificates(options)?;
    let check = PeerCheck::new(peers, check, &options.ocsp_cache, &authorities);
    Ok(Some(Arc::new(check)))
}

/// What asks about the certificates of servers that have to prove that they have not been revoked, and cannot. Reads files: not for a
/// connection's thread.
pub(super) fn check_without_proof(options: &TlsOptions) -> Result<PeerCheck, TlsError> {
    let urls = options.ocsp.as_ref().map_or(&[][..], |ocsp| &ocsp.urls);
    let authorities = authority_certificates(options)?;
    let store = options.ocsp_store.as_deref();
    Ok(PeerCheck::in_place_of_proof(urls, store, &authorities))
}

/// What a connection to another server needs: the other side's certificate is always checked against the authorities,
/// and ours is shown when there is one. Reads files: not for a connection's thread.
pub fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
    dialling(options, false)
}

/// The same; the other side may have to prove that its certificate has not been revoked.
pub(super) fn dialling(
    options: &TlsOptions,
    demands_proof: bool,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider(options);
    let authorities = Arc::new(authorities(options)?);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider)).build()?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(options.min_version))
        .map_err(TlsError::Versions)?;
    let mut verifier: Arc<dyn ServerCertVerifier> = verifier;
    if let Some(keys) = pins(options) {
        let inner = verifier;
        verifier = Arc::new(Pinned::<dyn ServerCertVerifier> { keys, inner });
    }
    if demands_proof {
        let authorities = authority_certificates(options)?;
        verifier = Arc::new(ProofDemanded::new(verifier, &authorities));
    }
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match OwnCertificate::load_all(options)?.first() {
        Some(own) => builder
            .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
            .map_err(|source| own.refused(source))?,
        None => builder.with_no_client_auth(),
    };
    // A session that goes on is not looked at again: whoever has been revoked since would not be noticed.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider(options: &TlsOptions) -> Arc<CryptoProvider> {
    choice::provider(&options.cipher_suites, &options.curve_preferences)
}

/// The keys that a peer must have one of, when there are such.
fn pins(options: &TlsOptions) -> Option<Arc<BTreeSet<KeyHash>>> {
    let pins = &options.pinned_keys;
    (!pins.is_empty()).then(|| Arc::new(pins.clone()))
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static TLS13_ONLY: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match least {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &TLS13_ONLY,
    }
}

/// What we show to a peer.
struct OwnCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl OwnCertificate {
    /// The certificate of the block, or those that it lists.
    fn load_all(options: &TlsOptions) -> Result<Vec<Self>, TlsError> {
        let own = options
            .cert_file
            .as_deref()
            .zip(options.key_file.as_deref());
        let listed = options
            .certificates
            .iter()
            .map(|(cert, key)| (&**cert, &**key));
        own.into_iter().chain(listed).map(Self::load).collect()
    }

    fn load((cert_file, key_file): (&Path, &Path)) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::File {
            path: key_file.to_owned(),
            source,
        })?;
        Ok(Self {
            cert_file: cert_file.to_owned(),
            key_file: key_file.to_owned(),
            chain: certificates(cert_file)?,
            key,
        })
    }

    /// What a listener shows; the certificate and the key must belong together.
    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider)
            .map_err(|source| self.refused(source))
    }

    fn refused(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair {
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            source,
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    match certificates.is_empty() {
        true => Err(TlsError::Empty {
            path: path.to_owned(),
        }),
        false => Ok(certificates),
    }
}

/// The certificates of the authorities of the file, or of those of the system.
fn authority_certificates(options: &TlsOptions) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match &options.ca_file {
        Some(path) => certificates(path),
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

/// The authorities of the file, or those of the system.
fn authorities(options: &TlsOptions) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|source| TlsError::Authority {
                        path: path.clone(),
                        source,
                    })?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(store)
}
