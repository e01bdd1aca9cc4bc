//! OCSP (RFC 6960): whether a certificate has been revoked, as its authority says.
//!
//! [`link`] is a certificate with its issuer, what is asked about; [`answer`] is what a responder says of it and whether that is to be believed;
//! [`fetch`] asks. With these, [`staple`] keeps an answer about our own certificate to show with it, [`proof`] demands the same of servers
//! that we dial, and [`peer`] asks about the certificates of others on the ways that [`path`] finds to their authorities, with answers
//! that [`cache`] keeps. [`file`](self::file) is how answers are written down.
//!
//! # Invariant
//! An answer is used only after its signature has been checked, wherever it comes from: also out of our own files.

pub(crate) mod answer;
mod cache;
pub(crate) mod fetch;
mod file;
mod link;
mod path;
mod peer;
mod proof;
mod signature;
mod staple;
#[cfg(test)]
mod tests;

pub use cache::CacheFigures;
pub use peer::{CertificateInfo, PeerCheck, PeerKind, PeerRefusal};
pub(super) use proof::ProofDemanded;
pub(super) use staple::{Stapled, staple};

use std::io;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

/// When a certificate ends; `None` when it is none.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let known = link::Known::parse(certificate).ok()?;
    let validity = known.parsed.tbs_certificate.validity;
    Some(validity.not_after.to_system_time())
}

/// Why nothing is known of a certificate.
#[derive(Debug, thiserror::Error)]
pub enum OcspError {
    /// A certificate cannot be read.
    #[error("a certificate cannot be read")]
    Certificate,
    /// Nobody is known who signed it.
    #[error("the issuer of the certificate is not known")]
    NoIssuer,
    /// It names nobody to ask, and the options do not either.
    #[error("no available ocsp servers")]
    NoResponders,
    /// A responder's address is no URL that can be asked.
    #[error("{url:?} is not http://host:port/path, with http or https")]
    Url {
        /// What it says.
        url: String,
    },
    /// A responder cannot be reached, or breaks off.
    #[error("{url}: {source}")]
    Network {
        /// Who was asked.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// A responder answers with an error.
    #[error("{url}: bad OCSP responder http status: [{status}]")]
    Status {
        /// Who was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// What came is no answer that can be believed.
    #[error(transparent)]
    Answer(#[from] answer::AnswerError),
    /// An answer of another time.
    #[error("OCSP response not in effectivity window")]
    NotCurrent,
    /// The certificate is not to be used.
    #[error("found existing OCSP status: {status}")]
    NotGood {
        /// What its authority says of it.
        status: &'static str,
    },
    /// It cannot be kept.
    #[error("could not write the OCSP status {path}: {source}")]
    Store {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
