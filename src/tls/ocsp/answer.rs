//! What a responder says of a certificate, and whether it is to be believed.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
};

use super::link::{Known, Link};
use super::signature::Signed;

/// `1.3.6.1.5.5.7.48.1.1`: the one kind of answers there is.
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
/// `1.3.6.1.5.5.7.3.9`: what a certificate says whose owner may answer for its issuer.
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
/// No answer is larger.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is none, or larger than one is.
    #[error("the OCSP response cannot be read")]
    Unreadable,
    /// The responder does not answer.
    #[error("the OCSP responder says {0:?}")]
    Refused(OcspResponseStatus),
    /// It is about another certificate.
    #[error("the OCSP response is about another certificate")]
    AboutAnother,
    /// Neither the issuer nor somebody it allows to has signed it.
    #[error("the OCSP response is not signed by the issuer or a delegate of it")]
    Signature,
}

/// What is said of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Good,
    Revoked,
    Unknown,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// A believable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) this_update: SystemTime,
    pub(super) next_update: Option<SystemTime>,
}

impl Answer {
    /// Reads what a responder has sent about this link, and checks who has signed it.
    pub(super) fn read(bytes: &[u8], link: &Link, now: SystemTime) -> Result<Self, AnswerError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(AnswerError::Unreadable);
        }
        let unreadable = |_| AnswerError::Unreadable;
        let response = OcspResponse::from_der(bytes).map_err(unreadable)?;
        if response.response_status != OcspResponseStatus::Successful {
            return Err(AnswerError::Refused(response.response_status));
        }
        let body = response.response_bytes.ok_or(AnswerError::Unreadable)?;
        if body.response_type != BASIC {
            return Err(AnswerError::Unreadable);
        }
        let body = body.response.as_bytes();
        let basic = BasicOcspResponse::from_der(body).map_err(unreadable)?;
        let all = &basic.tbs_response_data.responses;
        let one = all
            .iter()
            .find(|one| link.is_called(&one.cert_id))
            .ok_or(AnswerError::AboutAnother)?;
        let signed = Signed::parse(body).ok_or(AnswerError::Unreadable)?;
        if !is_allowed(&signed, &basic, link, now) {
            return Err(AnswerError::Signature);
        }
        let time = |time: &OcspGeneralizedTime| time.0.to_system_time();
        Ok(Self {
            status: match one.cert_status {
                CertStatus::Good(_) => Status::Good,
                CertStatus::Revoked(_) => Status::Revoked,
                CertStatus::Unknown(_) => Status::Unknown,
            },
            this_update: time(&one.this_update),
            next_update: one.next_update.as_ref().map(time),
        })
    }

    /// Whether it holds at this moment, with clocks that differ so much; without an end of its own it holds so long.
    pub(super) fn is_current(&self, now: SystemTime, skew: Duration, unset: Duration) -> bool {
        let end = self.next_update.or(self.this_update.checked_add(unset));
        // What is beyond all time holds.
        let latest = now.checked_add(skew);
        let has_begun = latest.is_none_or(|latest| self.this_update <= latest);
        let end = end.and_then(|end| end.checked_add(skew));
        has_begun && end.is_none_or(|end| end >= now)
    }
}

/// Whether the issuer has signed it, or somebody whom the issuer has given a certificate for that.
fn is_allowed(
    signed: &Signed<'_>,
    basic: &BasicOcspResponse,
    link: &Link,
    now: SystemTime,
) -> bool {
    if signed.is_by(&link.issuer.key()) {
        return true;
    }
    let mut delegates = basic.certs.iter().flatten().filter_map(|certificate| {
        let bytes = CertificateDer::from(certificate.to_der().ok()?);
        Known::parse(&bytes).ok()
    });
    delegates.any(|delegate| {
        let own = &delegate.parsed.tbs_certificate;
        let usage = own.get::<ExtendedKeyUsage>();
        let may_answer = matches!(usage, Ok(Some((_, usage))) if usage.0.contains(&OCSP_SIGNING));
        let (from, until) = (
            own.validity.not_before.to_system_time(),
            own.validity.not_after.to_system_time(),
        );
        may_answer
            && (from..=until).contains(&now)
            && delegate.is_by(&link.issuer)
            && signed.is_by(&delegate.key())
    })
}

/// Reads bytes that may be an answer; for fuzzers.
pub(crate) fn read_anything(bytes: &[u8]) {
    if let Ok(response) = OcspResponse::from_der(bytes)
        && let Some(body) = response.response_bytes
    {
        let _ = BasicOcspResponse::from_der(body.response.as_bytes());
        let _ = Signed::parse(body.response.as_bytes());
    }
    let _ = Known::parse(&CertificateDer::from(bytes)).map(|known| {
        (
            known.responders(),
            known.must_staple(),
            known.is_root(),
            known.names(),
        )
    });
}
