//! A certificate with its issuer: what a responder is asked about.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::AuthorityInfoAccessSyntax;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest, Version};

use super::OcspError;
use super::signature::Signed;
use crate::tls::name::written;

/// `1.3.14.3.2.26`: the hash that every responder knows.
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
/// `2.16.840.1.101.3.4.2.1`
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// `1.3.6.1.5.5.7.48.1`: where a certificate names its responder.
const RESPONDER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
/// `1.3.6.1.5.5.7.1.24`: what a certificate demands of those who show it (RFC 7633).
const TLS_FEATURES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");
/// That it comes with an answer about itself.
const STATUS_REQUEST: u16 = 5;

/// A certificate in both forms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) bytes: CertificateDer<'static>,
    pub(super) parsed: Certificate,
}

impl Known {
    pub(super) fn parse(bytes: &CertificateDer<'_>) -> Result<Self, OcspError> {
        let parsed = Certificate::from_der(bytes).map_err(|_| OcspError::Certificate)?;
        Ok(Self {
            bytes: bytes.clone().into_owned(),
            parsed,
        })
    }

    /// Those of them that can be read.
    pub(super) fn all(certificates: &[CertificateDer<'_>]) -> Vec<Self> {
        let known = certificates.iter().map(Self::parse);
        known.filter_map(Result::ok).collect()
    }

    /// The key, with its kind.
    pub(super) fn key(&self) -> Vec<u8> {
        let key = &self.parsed.tbs_certificate.subject_public_key_info;
        key.to_der().unwrap_or_default()
    }

    /// Whether that one has signed this one.
    pub(super) fn is_by(&self, issuer: &Known) -> bool {
        let (own, theirs) = (&self.parsed.tbs_certificate, &issuer.parsed.tbs_certificate);
        own.issuer == theirs.subject
            && Signed::parse(&self.bytes).is_some_and(|signed| signed.is_by(&issuer.key()))
    }

    /// Whether it has signed itself.
    pub(super) fn is_root(&self) -> bool {
        self.is_by(self)
    }

    /// Who can be asked about it, over HTTP.
    pub(super) fn responders(&self) -> Vec<String> {
        let named = self
            .parsed
            .tbs_certificate
            .get::<AuthorityInfoAccessSyntax>();
        let Ok(Some((_, access))) = named else {
            return Vec::new();
        };
        let urls = access
            .0
            .iter()
            .filter_map(|one| match &one.access_location {
                GeneralName::UniformResourceIdentifier(url) if one.access_method == RESPONDER => {
                    Some(url.as_str().to_owned())
                }
                _ => None,
            });
        urls.filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .collect()
    }

    /// Whether it demands that an answer is shown with it.
    pub(super) fn must_staple(&self) -> bool {
        let extensions = self.parsed.tbs_certificate.extensions.iter().flatten();
        let mut features = extensions.filter(|extension| extension.extn_id == TLS_FEATURES);
        features.any(|extension| {
            Vec::<u16>::from_der(extension.extn_value.as_bytes())
                .is_ok_and(|features| features.contains(&STATUS_REQUEST))
        })
    }

    /// What tells it apart from all others.
    pub(super) fn fingerprint(&self) -> String {
        STANDARD.encode(Sha256::digest(&self.bytes))
    }

    /// The same as it names files.
    pub(super) fn file_name(&self) -> String {
        let hash = Sha256::digest(&self.bytes);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its subject and its issuer, for people.
    pub(super) fn names(&self) -> (String, String) {
        let own = &self.parsed.tbs_certificate;
        let text = |name: &x509_cert::name::Name| written(&name.to_der().unwrap_or_default()).0;
        (text(&own.subject), text(&own.issuer))
    }
}

/// Who of them has signed a certificate; an authority that has signed itself is nobody's.
pub(super) fn issuer<'a>(
    certificate: &Known,
    mut candidates: impl Iterator<Item = &'a Known>,
) -> Option<&'a Known> {
    match certificate.is_root() {
        true => None,
        false => candidates.find(|candidate| certificate.is_by(candidate)),
    }
}

/// A certificate and who signed it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    pub(super) certificate: Known,
    pub(super) issuer: Known,
}

impl Link {
    /// The question about it, in the form that responders take.
    pub(super) fn question(&self) -> Result<Vec<u8>, OcspError> {
        let unwritable = |_| OcspError::Certificate;
        let request = OcspRequest {
            tbs_request: TbsRequest {
                version: Version::V1,
                requestor_name: None,
                request_list: vec![Request {
                    req_cert: self.id().map_err(unwritable)?,
                    single_request_extensions: None,
                }],
                request_extensions: None,
            },
            optional_signature: None,
        };
        request.to_der().map_err(unwritable)
    }

    /// How it is called in questions.
    fn id(&self) -> Result<CertId, x509_cert::der::Error> {
        let (name, key) = self.hashed();
        Ok(CertId {
            hash_algorithm: AlgorithmIdentifierOwned {
                oid: SHA1,
                parameters: Some(Null.into()),
            },
            issuer_name_hash: OctetString::new(Sha1::digest(&name).to_vec())?,
            issuer_key_hash: OctetString::new(Sha1::digest(&key).to_vec())?,
            serial_number: self.serial().clone(),
        })
    }

    /// Whether an answer that calls a certificate so is about this one.
    pub(super) fn is_called(&self, id: &CertId) -> bool {
        let (name, key) = self.hashed();
        let (name, key) = match id.hash_algorithm.oid {
            SHA1 => (Sha1::digest(&name).to_vec(), Sha1::digest(&key).to_vec()),
            SHA256 => (
                Sha256::digest(&name).to_vec(),
                Sha256::digest(&key).to_vec(),
            ),
            _ => return false,
        };
        id.serial_number == *self.serial()
            && id.issuer_name_hash.as_bytes() == name
            && id.issuer_key_hash.as_bytes() == key
    }

    fn serial(&self) -> &x509_cert::serial_number::SerialNumber {
        &self.certificate.parsed.tbs_certificate.serial_number
    }

    /// What is hashed of the issuer: its name and the bits of its key.
    fn hashed(&self) -> (Vec<u8>, Vec<u8>) {
        let issuer = &self.issuer.parsed.tbs_certificate;
        let key = &issuer.subject_public_key_info.subject_public_key;
        (
            issuer.subject.to_der().unwrap_or_default(),
            key.raw_bytes().to_vec(),
        )
    }
}
