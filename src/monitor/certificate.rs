//! What is shown of a certificate that a peer has presented.
//!
//! Only the outline of X.509 (RFC 5280, section 4.1) is read here; whether a certificate can be trusted was decided in the
//! handshake. Bytes that have another outline show their hash and nothing else.

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A certificate at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShownCertificate {
    #[serde(skip_serializing_if = "String::is_empty")]
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    spki_sha256: String,
    cert_sha256: String,
}

impl ShownCertificate {
    /// That of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        let outline = Outline::read(der);
        Self {
            subject: outline
                .as_ref()
                .and_then(|outline| name(outline.subject))
                .unwrap_or_default(),
            spki_sha256: outline.map_or(String::new(), |outline| hash(outline.public_key)),
            cert_sha256: hash(der),
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
/// The tag of the version, which certificates of the first version do not have.
const VERSION: u8 = 0xa0;

/// The parts of a certificate that matter here.
struct Outline<'a> {
    /// What stands within the name.
    subject: &'a [u8],
    /// The whole element, header included: that is what pins are made of.
    public_key: &'a [u8],
}

impl<'a> Outline<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let certificate = Element::first(der)?.within(SEQUENCE)?;
        let mut rest = Element::first(certificate)?.within(SEQUENCE)?;
        let mut next = || -> Option<Element<'a>> {
            let element = Element::first(rest)?;
            rest = rest.get(element.whole.len()..)?;
            Some(element)
        };
        let mut element = next()?;
        if element.tag == VERSION {
            element = next()?;
        }
        // That was the serial number; behind it stand the signature's algorithm, the issuer and the validity.
        let _serial = element;
        for _ in 0..3 {
            next()?;
        }
        Some(Self {
            subject: next()?.within(SEQUENCE)?,
            public_key: next()?.whole,
        })
    }
}

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The element that the bytes begin with.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, header_bytes) = match first {
            0..=0x7f => (usize::from(first), 2),
            // More than four bytes of length are no certificate's.
            0x81..=0x84 => {
                let digits = rest.get(..usize::from(first & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0, |length: usize, digit| length << 8 | usize::from(*digit));
                (length, 2 + digits.len())
            }
            _ => return None,
        };
        let end = header_bytes.checked_add(length)?;
        Some(Self {
            tag,
            content: bytes.get(header_bytes..end)?,
            whole: bytes.get(..end)?,
        })
    }

    fn within(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }
}

fn elements(mut bytes: &[u8]) -> impl Iterator<Item = Element<'_>> {
    std::iter::from_fn(move || {
        let element = Element::first(bytes)?;
        bytes = bytes.get(element.whole.len()..)?;
        Some(element)
    })
}

/// A distinguished name as RFC 2253 writes it: the last part first.
fn name(content: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    for set in elements(content) {
        let mut attributes = Vec::new();
        for attribute in elements(set.within(SET)?) {
            let mut pair = elements(attribute.within(SEQUENCE)?);
            let kind = pair.next()?.within(OBJECT_ID)?;
            attributes.push(attribute_text(kind, &pair.next()?));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

fn attribute_text(kind: &[u8], value: &Element<'_>) -> String {
    let short = match kind {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 5] => "SERIALNUMBER",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 9] => "STREET",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x55, 4, 17] => "POSTALCODE",
        _ => return format!("{}=#{}", dotted(kind), hex(value.whole)),
    };
    format!(
        "{short}={}",
        escape(&String::from_utf8_lossy(value.content))
    )
}

/// An object id with dots.
fn dotted(bytes: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number: u64 = 0;
    for byte in bytes {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match numbers.is_empty() {
                // The first two numbers share a place.
                true => numbers.extend([(number / 40).min(2), number - 40 * (number / 40).min(2)]),
                false => numbers.push(number),
            }
            number = 0;
        }
    }
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    texts.join(".")
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        let is_special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (character == ' ' && (at == 0 || at == last))
            || (character == '#' && at == 0);
        if is_special {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Ours, Inc");
        params.distinguished_name.push(DnType::CommonName, "a b ");
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_name_is_written_as_rfc_2253_says() {
        let shown = ShownCertificate::of(&certificate());
        assert_eq!(shown.subject, "CN=a b\\ ,O=Ours\\, Inc");
        assert_eq!(shown.spki_sha256.len(), 64);
        assert_ne!(shown.spki_sha256, shown.cert_sha256);
        assert_eq!(
            dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
            "1.2.840.113549.1.9.1"
        );
    }

    #[test]
    fn bytes_that_are_no_certificate_show_their_hash_only() {
        let whole = certificate();
        for cut in 0..whole.len() {
            let shown = ShownCertificate::of(&whole[..cut]);
            assert_eq!(
                (shown.subject.as_str(), shown.spki_sha256.as_str()),
                ("", "")
            );
            assert_eq!(shown.cert_sha256.len(), 64);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            ShownCertificate::of(&flipped);
        }
    }
}
