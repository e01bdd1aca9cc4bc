//! Answers that the openssl program has made, as authorities do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

use super::answer::{Answer, AnswerError, Status};
use super::link::{Known, Link};
use super::{PeerCheck, PeerKind};
use crate::config::options::{OcspCacheKind, OcspCacheOptions, OcspPeerOptions};

/// A folder in which openssl is an authority.
struct Authority(TempDir);

const EXTENSIONS: &str = "\
[ca]\nbasicConstraints=critical,CA:true\nkeyUsage=keyCertSign,cRLSign,digitalSignature\n\
[leaf]\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:1/x,caIssuers;URI:http://127.0.0.1:1/ca\n\
[between]\nbasicConstraints=critical,CA:true\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:1/x\n\
[bare]\nextendedKeyUsage=clientAuth,serverAuth\n\
[must]\ntlsfeature=status_request\n\
[delegate]\nextendedKeyUsage=OCSPSigning\n\
[nobody]\nextendedKeyUsage=clientAuth\n";

impl Authority {
    fn new() -> Self {
        let authority = Self(TempDir::new().unwrap());
        authority.write("ext.cnf", EXTENSIONS);
        authority.write("index.txt", "");
        authority.run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca -config /dev/null \
             -addext basicConstraints=critical,CA:true");
        authority
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("openssl is there");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {complaint}");
    }

    /// Signs a certificate with this number and these extensions, and notes it in the index.
    fn sign(&self, name: &str, serial: u32, section: &str, state: &str) {
        self.sign_by("ca", name, serial, section, state);
    }

    fn sign_by(&self, issuer: &str, name: &str, serial: u32, section: &str, state: &str) {
        self.run(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -config /dev/null"
        ));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -set_serial {serial} -days 20 -out {name}.pem -extfile ext.cnf -extensions {section}"
        ));
        let index = std::fs::read_to_string(self.path().join("index.txt")).unwrap();
        let line = match state {
            "V" => format!("V\t351231000000Z\t\t{serial:02X}\tunknown\t/CN={name}\n"),
            "R" => format!("R\t351231000000Z\t250101000000Z\t{serial:02X}\tunknown\t/CN={name}\n"),
            _ => String::new(),
        };
        self.write("index.txt", &format!("{index}{line}"));
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        let path = self.path().join(format!("{name}.pem"));
        CertificateDer::from_pem_file(path).unwrap()
    }

    fn known(&self, name: &str) -> Known {
        Known::parse(&self.certificate(name)).unwrap()
    }

    /// What checks clients with certificates of it.
    fn check(&self) -> PeerCheck {
        let cache = OcspCacheOptions {
            kind: OcspCacheKind::Memory,
            ..OcspCacheOptions::default()
        };
        let options = OcspPeerOptions::default();
        PeerCheck::new(
            PeerKind::Client,
            &options,
            &cache,
            &[self.certificate("ca")],
        )
    }

    fn link(&self, name: &str) -> Link {
        Link {
            certificate: self.known(name),
            issuer: self.known("ca"),
        }
    }

    /// What somebody answers to our own question about a certificate.
    fn answer(&self, about: &str, signer: &str, more: &str) -> Vec<u8> {
        let question = self.link(about).question().unwrap();
        std::fs::write(self.path().join("question.der"), question).unwrap();
        self.run(&format!(
            "ocsp -index index.txt -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -reqin question.der -respout answer.der {more}"
        ));
        std::fs::read(self.path().join("answer.der")).unwrap()
    }

    fn read(&self, about: &str, bytes: &[u8]) -> Result<Answer, AnswerError> {
        Answer::read(bytes, &self.link(about), SystemTime::now())
    }
}

#[test]
fn what_an_authority_says_is_understood() {
    let authority = Authority::new();
    authority.sign("fine", 2, "leaf", "V");
    authority.sign("gone", 3, "leaf", "R");
    authority.sign("strange", 4, "leaf", "");
    for (name, status) in [
        ("fine", Status::Good),
        ("gone", Status::Revoked),
        ("strange", Status::Unknown),
    ] {
        let bytes = authority.answer(name, "ca", "-nmin 10");
        let answer = authority.read(name, &bytes).unwrap();
        assert_eq!(answer.status, status, "{name}");
        let left = answer
            .next_update
            .unwrap()
            .duration_since(SystemTime::now());
        assert!(left.unwrap() <= Duration::from_secs(600));
        let now = SystemTime::now();
        let (skew, unset) = (Duration::from_secs(30), Duration::from_secs(60));
        assert!(answer.is_current(now, skew, unset));
        assert!(!answer.is_current(now + Duration::from_secs(700), skew, unset));
        assert!(!answer.is_current(now - Duration::from_secs(700), skew, unset));
        // About one certificate, and no other.
        let other = if name == "fine" { "gone" } else { "fine" };
        assert_eq!(
            authority.read(other, &bytes),
            Err(AnswerError::AboutAnother)
        );
    }
    let endless = authority.answer("fine", "ca", "");
    let answer = authority.read("fine", &endless).unwrap();
    assert_eq!(answer.next_update, None);
    let later = SystemTime::now() + Duration::from_secs(120);
    assert!(!answer.is_current(later, Duration::ZERO, Duration::from_secs(60)));
    assert!(answer.is_current(later, Duration::ZERO, Duration::MAX));
}

#[test]
fn an_answer_holds_for_clocks_that_may_differ_without_end() {
    let now = SystemTime::now();
    let later = Answer {
        status: Status::Good,
        this_update: now + Duration::from_secs(3600),
        next_update: Some(now + Duration::from_secs(7200)),
    };
    assert!(!later.is_current(now, Duration::ZERO, Duration::ZERO));
    assert!(later.is_current(now, Duration::MAX, Duration::MAX));
    let endless = Answer {
        next_update: None,
        ..later
    };
    assert!(endless.is_current(now, Duration::MAX, Duration::MAX));
}

#[test]
fn an_answer_is_believed_only_with_the_issuers_word_for_it() {
    let authority = Authority::new();
    authority.sign("fine", 2, "leaf", "V");
    authority.sign("delegate", 5, "delegate", "V");
    authority.sign("nobody", 6, "nobody", "V");
    let delegated = authority.answer("fine", "delegate", "-nmin 10");
    assert_eq!(
        authority.read("fine", &delegated).unwrap().status,
        Status::Good
    );
    for signer in ["nobody", "fine"] {
        let forged = authority.answer("fine", signer, "-nmin 10");
        assert_eq!(
            authority.read("fine", &forged),
            Err(AnswerError::Signature),
            "{signer}"
        );
    }
    // Somebody else with the same name.
    let other = Authority::new();
    other.sign("fine", 2, "leaf", "V");
    let forged = other.answer("fine", "ca", "-nmin 10");
    assert!(authority.read("fine", &forged).is_err());

    // Whatever is changed, it is not believed, or says the same.
    let bytes = authority.answer("fine", "ca", "-nmin 10");
    let honest = authority.read("fine", &bytes).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        if let Ok(answer) = authority.read("fine", &changed) {
            assert_eq!(answer, honest, "byte {at}");
        }
    }
    for length in 0..bytes.len() {
        assert!(authority.read("fine", &bytes[..length]).is_err());
    }
    assert_eq!(
        authority.read("fine", &[0x30, 0x03, 0x0a, 0x01, 0x06]),
        Err(AnswerError::Refused(
            x509_ocsp::OcspResponseStatus::Unauthorized
        ))
    );
}

#[test]
fn a_certificate_says_whom_to_ask_and_what_it_demands() {
    let authority = Authority::new();
    authority.sign("fine", 2, "leaf", "V");
    authority.sign("must", 3, "must", "V");
    let fine = authority.known("fine");
    assert_eq!(fine.responders(), ["http://127.0.0.1:1/x"]);
    assert!(!fine.must_staple() && authority.known("must").must_staple());
    assert!(fine.is_by(&authority.known("ca")) && !fine.is_root());
    assert!(authority.known("ca").is_root());
    assert!(!fine.is_by(&Authority::new().known("ca")));
    assert_eq!(fine.names(), ("CN=fine".into(), "CN=ca".into()));
}

#[test]
fn a_forged_twin_of_an_intermediate_does_not_keep_it_from_being_asked_about() {
    let authority = Authority::new();
    authority.sign("between", 2, "between", "R");
    authority.sign_by("between", "peer", 3, "bare", "V");
    let (peer, between) = (
        authority.certificate("peer"),
        authority.certificate("between"),
    );
    let check = authority.check();
    let refusal = |shown: &[CertificateDer<'static>]| check.check(shown).unwrap_err();
    // Nobody can be reached who knows, which is as bad as a revocation.
    let honest = refusal(&[peer.clone(), between.clone()]);
    assert_eq!(honest.link.subject, "CN=between");
    // The same name and key, and a signature of nobody.
    let mut bytes = between.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let twin = CertificateDer::from(bytes);
    let hidden = refusal(&[peer.clone(), twin.clone(), between.clone()]);
    assert_eq!(*hidden, *honest);
    // One with the same name and key that has signed itself.
    authority.run(
        "req -x509 -key between.key -out own.pem -days 30 -subj /CN=between -config /dev/null \
         -addext basicConstraints=critical,CA:true",
    );
    let own = authority.certificate("own");
    assert_eq!(*refusal(&[peer.clone(), own, between]), *honest);
    let nowhere = refusal(&[peer, twin]);
    assert_eq!(
        nowhere.reason,
        "the certificate leads to no authority that is known"
    );
}

#[test]
fn who_comes_with_a_certificate_of_an_unreadable_authority_is_refused() {
    let authority = Authority::new();
    authority.sign("peer", 2, "bare", "V");
    let shown = [authority.certificate("peer")];
    // It names no responder: nobody has to be asked.
    assert!(authority.check().check(&shown).is_ok());
    let unreadable = PeerCheck::new(
        PeerKind::Client,
        &OcspPeerOptions::default(),
        &OcspCacheOptions {
            kind: OcspCacheKind::Memory,
            ..OcspCacheOptions::default()
        },
        &[CertificateDer::from(vec![0x30, 0])],
    );
    let refusal = unreadable.check(&shown).unwrap_err();
    assert!(refusal.reason.contains("no authority"), "{refusal}");
}
