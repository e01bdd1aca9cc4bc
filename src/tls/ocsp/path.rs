//! The ways from a peer's certificate to the authorities.
//!
//! # Invariant
//! A way is one that the handshake may have taken: found by the same code, all signatures of it checked, its end an authority. What a
//! peer shows beside it decides nothing: a forged twin of an intermediate certificate is on no way, and hides none.

use std::cell::RefCell;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert};

use super::link::{Known, Link};
use super::peer::PeerKind;

/// Ways that are looked at; a peer that shows certificates for more of them gains nothing by it.
const PATHS_MAX: usize = 8;

/// Why it is not known whom to ask about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    /// One of the certificates is none.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No way leads to an authority, or only to such as cannot be read.
    #[error("the certificate leads to no authority that is known")]
    NoAuthority,
}

/// Who is trusted, in both forms.
#[derive(Debug)]
pub(super) struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    /// The certificates of the anchors, in the same order.
    known: Vec<Known>,
}

impl Authorities {
    /// Those of them that can be read. Who comes with a certificate of another is refused, since nobody could be asked about it.
    pub(super) fn new(certificates: &[CertificateDer<'static>]) -> Self {
        let (mut anchors, mut known) = (Vec::new(), Vec::new());
        for certificate in certificates {
            match (
                anchor_from_trusted_cert(certificate),
                Known::parse(certificate),
            ) {
                (Ok(anchor), Ok(parsed)) => {
                    anchors.push(anchor.to_owned());
                    known.push(parsed);
                }
                _ => tracing::warn!(
                    "OCSP: an authority's certificate cannot be read; whoever shows one of its certificates is refused"
                ),
            }
        }
        Self { anchors, known }
    }

    /// The ways from a peer's own certificate, the first of those that it shows, to the authorities: at least one, each with its
    /// links from the peer's own on. A certificate that is trusted itself has no links.
    pub(super) fn paths(
        &self,
        peers: PeerKind,
        shown: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<Vec<Vec<Link>>, PathError> {
        let (own, others) = shown.split_first().ok_or(PathError::Unreadable)?;
        let end = EndEntityCert::try_from(own).map_err(|_| PathError::Unreadable)?;
        let peer = Known::parse(own).map_err(|_| PathError::Unreadable)?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let time = UnixTime::since_unix_epoch(since.unwrap_or_default());
        let found = RefCell::new(Vec::new());
        // Refuses each way, to be shown the next.
        let collect = |path: &VerifiedPath<'_>| {
            let mut found = found.borrow_mut();
            // One may be shown twice, or be good for both usages.
            let new = self.links(&peer, path).filter(|way| !found.contains(way));
            if found.len() < PATHS_MAX {
                found.extend(new);
            }
            Err(webpki::Error::UnknownIssuer)
        };
        let algorithms = ring::default_provider().signature_verification_algorithms;
        for usage in usages(peers) {
            // It ends with an error, whatever it found.
            let _ = end.verify_for_usage(
                algorithms.all,
                &self.anchors,
                others,
                time,
                *usage,
                None,
                Some(&collect),
            );
        }
        let found = found.into_inner();
        match found.is_empty() {
            true => Err(PathError::NoAuthority),
            false => Ok(found),
        }
    }

    /// The links of a way; `None` where a certificate on it cannot be asked about.
    fn links(&self, peer: &Known, path: &VerifiedPath<'_>) -> Option<Vec<Link>> {
        let mut anchors = self.anchors.iter().zip(&self.known);
        let (_, authority) = anchors.find(|(anchor, _)| *anchor == path.anchor())?;
        if peer.is_root() {
            return Some(Vec::new());
        }
        let mut links = Vec::new();
        let mut certificate = peer.clone();
        for issuer in path.intermediate_certificates() {
            let issuer = Known::parse(&issuer.der()).ok()?;
            links.push(Link {
                certificate: std::mem::replace(&mut certificate, issuer.clone()),
                issuer,
            });
        }
        links.push(Link {
            certificate,
            issuer: authority.clone(),
        });
        Some(links)
    }
}

/// What the handshake may have wanted the certificate to be for: another server may have dialled, or been dialled.
fn usages(peers: PeerKind) -> &'static [KeyUsage] {
    const CLIENT: KeyUsage = KeyUsage::client_auth();
    const SERVER: KeyUsage = KeyUsage::server_auth();
    match peers {
        PeerKind::Client => &[CLIENT],
        PeerKind::Server => &[CLIENT, SERVER],
    }
}
