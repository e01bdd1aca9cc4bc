//! Whether somebody has signed something.

use std::sync::LazyLock;

use rustls::crypto::{WebPkiSupportedAlgorithms, ring};

use crate::tls::der::{BIT_STRING, Reader, SEQUENCE};

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| ring::default_provider().signature_verification_algorithms);

/// What certificates and answers have in common: something that is signed, how, and the signature.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    content: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes it apart.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = Reader(bytes).expect(SEQUENCE)?.inside();
        let content = parts.expect(SEQUENCE)?.whole;
        let algorithm = parts.expect(SEQUENCE)?.content;
        let signature = bits(parts.expect(BIT_STRING)?.content)?;
        Some(Self {
            content,
            algorithm,
            signature,
        })
    }

    /// Whether the owner of this key (a SubjectPublicKeyInfo) has signed it.
    pub(super) fn is_by(&self, key: &[u8]) -> bool {
        self.checked(key).is_some()
    }

    fn checked(&self, key: &[u8]) -> Option<()> {
        let mut parts = Reader(key).expect(SEQUENCE)?.inside();
        let kind = parts.expect(SEQUENCE)?.content;
        let public = bits(parts.expect(BIT_STRING)?.content)?;
        let fitting = ALGORITHMS.all.iter().filter(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind
                && algorithm.signature_alg_id().as_ref() == self.algorithm
        });
        let mut fitting = fitting
            .map(|algorithm| algorithm.verify_signature(public, self.content, self.signature));
        fitting.any(|verified| verified.is_ok()).then_some(())
    }
}

/// The bytes of a string of bits, of which none is left over.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content.split_first()? {
        (0, bytes) => Some(bytes),
        _ => None,
    }
}
