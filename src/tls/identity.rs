//! Who a peer is by its certificate: the names in it, and the hash of its key.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::der::{BIT_STRING, BOOLEAN, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE, Value};
use super::name::{DistinguishedName, written};

/// `2.5.29.17`: other names of the subject.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// The kinds of other names that say who somebody is.
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
/// Where a certificate says its version, and its extensions.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// The hash of a public key with its kind (SubjectPublicKeyInfo).
pub type KeyHash = [u8; 32];

/// Who a peer is by its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Addresses of electronic mail.
    pub emails: Vec<String>,
    /// Host names.
    pub hosts: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
    /// The subject; `None` when it has attributes that nobody could write.
    pub subject: Option<DistinguishedName>,
    /// The subject as text.
    pub subject_text: String,
    /// The same with the parts of its domain, when it has any.
    pub subject_text_with_domain: Option<String>,
}

/// The parts of a certificate that say who it is for.
struct Parts<'a> {
    subject: &'a [u8],
    key: &'a [u8],
    /// The names beside the subject, as the extension holds them.
    names: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Reader(certificate).expect(SEQUENCE)?.inside();
        let mut fields = signed.expect(SEQUENCE)?.inside();
        fields.expect(VERSION);
        // Serial number, signature's algorithm, issuer and validity.
        for _ in 0..4 {
            fields.next()?;
        }
        let subject = fields.expect(SEQUENCE)?.whole;
        let key = fields.expect(SEQUENCE)?.whole;
        let mut names = None;
        while let Some(field) = fields.next() {
            if field.tag == EXTENSIONS {
                names = alternative_names(field);
            }
        }
        Some(Self {
            subject,
            key,
            names,
        })
    }
}

fn alternative_names(extensions: Value<'_>) -> Option<&[u8]> {
    let mut all = extensions.inside().expect(SEQUENCE)?.inside();
    while let Some(extension) = all.expect(SEQUENCE) {
        let mut extension = extension.inside();
        let kind = extension.expect(OBJECT_IDENTIFIER)?.content;
        extension.expect(BOOLEAN);
        let content = extension.expect(OCTET_STRING)?.content;
        if kind == SUBJECT_ALT_NAME {
            return Some(content);
        }
    }
    None
}

impl PeerIdentity {
    /// Reads a certificate that has been verified; `None` when it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parts = Parts::of(certificate)?;
        let (subject_text, subject_text_with_domain) = written(parts.subject);
        let mut identity = Self {
            subject: DistinguishedName::of_subject(parts.subject),
            subject_text,
            subject_text_with_domain,
            ..Self::default()
        };
        let mut names = parts
            .names
            .and_then(|names| Some(Reader(names).expect(SEQUENCE)?.inside()))
            .unwrap_or(Reader(&[]));
        while let Some(name) = names.next() {
            let list = match name.tag {
                EMAIL => &mut identity.emails,
                DNS => &mut identity.hosts,
                URI => &mut identity.uris,
                _ => continue,
            };
            list.extend(String::from_utf8(name.content.to_vec()));
        }
        Some(identity)
    }

    /// The names that may be a user's, in the order in which they are tried before the subject.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let all = self.emails.iter().chain(&self.hosts).chain(&self.uris);
        all.map(String::as_str)
    }

    /// The texts of the subject that may be a user's name, in the order in which they are tried.
    pub fn subject_texts(&self) -> impl Iterator<Item = &str> {
        let with_domain = self.subject_text_with_domain.iter();
        with_domain
            .chain([&self.subject_text])
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}

/// The hash of a certificate's public key; `None` when it is no certificate.
pub fn key_hash(certificate: &CertificateDer<'_>) -> Option<KeyHash> {
    Some(Sha256::digest(Parts::of(certificate)?.key).into())
}

/// Reads bytes that may be a certificate; for fuzzers.
pub(crate) fn read_anything(bytes: &[u8]) {
    let certificate = CertificateDer::from(bytes);
    let _ = PeerIdentity::of(&certificate);
    let _ = key_hash(&certificate);
    let mut bits = Reader(bytes);
    let _ = bits.expect(BIT_STRING);
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName as Name, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(
        names: &[(DnType, &str)],
        others: Vec<SanType>,
    ) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = Name::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = others;
        (params.self_signed(&key).unwrap().der().clone(), key)
    }

    #[test]
    fn a_certificate_says_who_it_is_for() {
        let (der, key) = certificate(
            &[
                (DnType::CountryName, "CH"),
                (DnType::OrganizationName, "Synadia, Inc"),
                (DnType::CommonName, "localhost"),
            ],
            vec![
                SanType::DnsName("host.example".try_into().unwrap()),
                SanType::Rfc822Name("derek@nats.io".try_into().unwrap()),
                SanType::URI("spiffe://a/b".try_into().unwrap()),
            ],
        );
        let identity = PeerIdentity::of(&der).unwrap();
        let names: Vec<&str> = identity.names().collect();
        assert_eq!(names, ["derek@nats.io", "host.example", "spiffe://a/b"]);
        let text = "CN=localhost,O=Synadia\\, Inc,C=CH";
        assert_eq!(identity.subject_texts().collect::<Vec<_>>(), [text]);
        let subject = identity.subject.unwrap();
        assert!(subject.is_same(&DistinguishedName::parse(text).unwrap()));
        assert_eq!(
            key_hash(&der),
            Some(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)).into())
        );
    }

    #[test]
    fn parts_of_a_domain_stand_behind_the_rest() {
        let domain = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]);
        let (der, _) = certificate(&[(domain, "example"), (DnType::CommonName, "n")], vec![]);
        let identity = PeerIdentity::of(&der).unwrap();
        let texts: Vec<&str> = identity.subject_texts().collect();
        assert_eq!(texts, ["CN=n,DC=example", "CN=n"]);
        let written = DistinguishedName::parse("CN=n,DC=example").unwrap();
        assert!(identity.subject.unwrap().is_same(&written));
    }

    #[test]
    fn what_is_cut_off_is_no_certificate() {
        let (der, _) = certificate(&[(DnType::CommonName, "n")], vec![]);
        for length in 0..der.len().min(120) {
            assert_eq!(
                PeerIdentity::of(&CertificateDer::from(&der[..length])),
                None
            );
        }
    }
}
