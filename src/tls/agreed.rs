//! What two sides have agreed on in a handshake.

use bytes::Bytes;
use rustls::{Connection, ProtocolVersion};

/// What two sides have agreed on in a TLS handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encryption {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA calls it.
    pub cipher: String,
    /// The certificates the peer has shown, in DER, its own first.
    pub certificates: Vec<Bytes>,
    /// Whether the handshake came before anything was said in plain text.
    pub first: bool,
}

impl Encryption {
    /// What a session whose handshake is over says of itself.
    pub(super) fn of(session: &Connection) -> Self {
        let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
        let certificates = session.peer_certificates().unwrap_or_default();
        Self {
            version: match session.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                _ => "",
            },
            cipher: suite.map_or(String::new(), |suite| iana_name(&format!("{suite:?}"))),
            certificates: certificates
                .iter()
                .map(|certificate| Bytes::copy_from_slice(certificate))
                .collect(),
            first: false,
        }
    }
}

/// rustls puts the version into the names of suites that IANA calls `TLS_` only.
fn iana_name(name: &str) -> String {
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::iana_name;

    #[test]
    fn suites_are_called_as_iana_calls_them() {
        assert_eq!(
            iana_name("TLS13_AES_128_GCM_SHA256"),
            "TLS_AES_128_GCM_SHA256"
        );
        let older = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        assert_eq!(iana_name(older), older);
    }
}
