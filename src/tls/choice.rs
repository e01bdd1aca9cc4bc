//! What is offered in a handshake: ciphers, curves, and which of several certificates.

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::PeerIdentity;
use super::ocsp::Stapled;

/// The curve of a name that the options know.
fn curve(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "X25519" => ring::kx_group::X25519,
        "CurveP256" => ring::kx_group::SECP256R1,
        "CurveP384" => ring::kx_group::SECP384R1,
        _ => return None,
    })
}

/// The suite of a name that the options know.
fn suite(name: &str) -> Option<SupportedCipherSuite> {
    use ring::cipher_suite as suite;
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
        | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

/// The ciphers and curves of these names, in their order; all where nothing is named. The suites of TLS 1.3 are no choice, as in
/// the reference.
pub(super) fn provider(suite_names: &[String], curve_names: &[String]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !suite_names.is_empty() {
        let named = suite_names.iter().filter_map(|name| suite(name));
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some());
        for suite in named.filter(|suite| suite.tls13().is_none()) {
            if !provider.cipher_suites.contains(&suite) {
                provider.cipher_suites.push(suite);
            }
        }
    }
    if !curve_names.is_empty() {
        provider.kx_groups = curve_names.iter().filter_map(|name| curve(name)).collect();
    }
    Arc::new(provider)
}

/// A certificate of ours.
#[derive(Debug)]
enum Own {
    Plain(Arc<CertifiedKey>),
    /// With a proof that it has not been revoked.
    Stapled(Stapled),
}

impl Own {
    fn key(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Plain(key) => Some(Arc::clone(key)),
            Self::Stapled(stapled) => stapled.key(),
        }
    }
}

/// Chooses among several certificates by the name that the peer wants to reach.
#[derive(Debug)]
pub(super) struct ByHost {
    /// Each with the hosts that it is for.
    all: Vec<(Vec<String>, Own)>,
}

impl ByHost {
    pub(super) fn new(keys: Vec<(CertifiedKey, Option<Stapled>)>) -> Self {
        let with_hosts = keys.into_iter().map(|(key, stapled)| {
            let identity = key.cert.first().and_then(PeerIdentity::of);
            let own = match stapled {
                Some(stapled) => Own::Stapled(stapled),
                None => Own::Plain(Arc::new(key)),
            };
            (identity.unwrap_or_default().hosts, own)
        });
        Self {
            all: with_hosts.collect(),
        }
    }

    fn pick(&self, wanted: Option<&str>) -> Option<&Own> {
        let fits = |hosts: &Vec<String>| {
            wanted.is_some_and(|wanted| hosts.iter().any(|host| is_for(host, wanted)))
        };
        let found = self.all.iter().find(|(hosts, _)| fits(hosts));
        found.or(self.all.first()).map(|(_, key)| key)
    }
}

impl ResolvesServerCert for ByHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name())?.key()
    }
}

/// Whether a certificate's name stands for a host; `*` is one label.
pub fn is_for(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::tls::{CIPHER_SUITES, CURVES};

    #[test]
    fn named_ciphers_and_curves_are_the_only_ones() {
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let chosen = provider(
            &names(&["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]),
            &names(&["CurveP384", "X25519"]),
        );
        let old: Vec<_> = chosen
            .cipher_suites
            .iter()
            .filter(|suite| suite.tls13().is_none())
            .collect();
        assert_eq!(old.len(), 1);
        assert_eq!(chosen.cipher_suites.len(), 4);
        let curves: Vec<_> = chosen.kx_groups.iter().map(|curve| curve.name()).collect();
        assert_eq!(
            curves,
            [rustls::NamedGroup::secp384r1, rustls::NamedGroup::X25519]
        );
        assert!(CIPHER_SUITES.iter().all(|name| suite(name).is_some()));
        assert!(CURVES.iter().all(|name| curve(name).is_some()));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(is_for("*.nats.io", "a.NATS.io") && is_for("A.io", "a.io"));
        assert!(!is_for("*.nats.io", "a.b.nats.io") && !is_for("*.nats.io", "nats.io"));
    }
}
