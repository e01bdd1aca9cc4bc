//! Servers of a cluster whose certificates may have been revoked: what each demands of the other. The openssl program is the authority.

mod common;

use std::io::Read;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Authority, Server, ServerOptions, Wire, eventually, free_port, http_get};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection,
    SignatureScheme,
};
use serde_json::Value;

/// Connections between two servers: a pool of three and the system account's own.
const ROUTES_EACH: u64 = 4;
const READY: &str =
    r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#;

/// The configuration of a server of the cluster that shows the certificate `certificate` and dials `seeds`.
fn config(
    authority: &Authority,
    (name, certificate): (&str, &str),
    seeds: &[u16],
    block: &str,
    beside: &str,
) -> String {
    let folder = authority.path("").display().to_string();
    let routes: Vec<_> = seeds
        .iter()
        .map(|port| format!("'nats-route://127.0.0.1:{port}'"))
        .collect();
    format!(
        "server_name: {name}\n{beside}\n\
         cluster {{ name: c, listen: '127.0.0.1:-1', routes: [{}]\n\
         tls {{ cert_file: '{folder}{certificate}.pem', key_file: '{folder}{certificate}.key', ca_file: '{folder}ca.pem', timeout: 30\n{block} }} }}",
        routes.join(", ")
    )
}

/// A server that is called as the certificate that it shows.
fn member(
    authority: &Authority,
    name: &str,
    seeds: &[&Server],
    block: &str,
    beside: &str,
) -> Server {
    let seeds: Vec<_> = seeds.iter().map(|seed| route_port(seed)).collect();
    ServerOptions::default()
        .config(&config(authority, (name, name), &seeds, block, beside))
        .monitoring()
        .start()
}

fn route_port(server: &Server) -> u16 {
    let line = server.wait_for_log("Listening for route connections on");
    line.rsplit(':').next().unwrap().trim().parse().unwrap()
}

fn varz(server: &Server) -> Value {
    let answer = http_get(server.monitor_address(), "/varz").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

fn routes(server: &Server) -> u64 {
    let answer = http_get(server.monitor_address(), "/routez").unwrap();
    let routez: Value = serde_json::from_str(&answer.body).unwrap();
    routez["num_routes"].as_u64().unwrap()
}

#[track_caller]
fn wait_for_routes(server: &Server, count: u64) {
    eventually("all routes stand", || {
        (routes(server) == count).then_some(())
    });
}

/// An authority that has signed certificates with these names, and whose numbers begin with 2.
fn authority(kind: &str, names: &[&str]) -> Authority {
    let authority = Authority::new();
    for (serial, name) in (2..).zip(names) {
        authority.sign(name, serial, kind);
    }
    let states: Vec<_> = (2..).zip(names).map(|(serial, _)| (serial, "V")).collect();
    authority.say(&states);
    authority
}

#[test]
fn servers_that_prove_their_certificates_are_a_cluster() {
    for (kind, beside) in [
        ("must", ""),
        ("plain", "ocsp { mode: always }"),
        ("bare", "ocsp { mode: always, url: '@URL@' }"),
    ] {
        let authority = authority(kind, &["one", "two", "three"]);
        let beside = beside.replace("@URL@", &authority.url());
        let beside = format!("jetstream {{ store_dir: '@DIR@/store' }}\n{beside}");
        // With JetStream a server has to dial somebody.
        let one = config(&authority, ("one", "one"), &[free_port()], "", &beside);
        let one = ServerOptions::default().config(&one).monitoring().start();
        let two = member(&authority, "two", &[&one], "", &beside);
        let three = member(&authority, "three", &[&one], "", &beside);
        for server in [&one, &two, &three] {
            wait_for_routes(server, 2 * ROUTES_EACH);
        }
        assert_eq!(varz(&one)["cluster"]["tls_verify"], true);
        // Links, over which servers replicate, are encrypted alike.
        let mut client = Wire::ready(two.address(), READY);
        client.send("SUB in 1\r\n");
        let create = r#"{"name":"S","subjects":["s"],"num_replicas":3,"storage":"file"}"#;
        eventually("a stream has its replicas", || {
            client.send(format!(
                "PUB $JS.API.STREAM.CREATE.S in {}\r\n{create}\r\n",
                create.len()
            ));
            client
                .read_until(Duration::from_secs(1), |bytes, _| {
                    let text = String::from_utf8_lossy(bytes);
                    text.contains(r#""num_replicas":3"#)
                })
                .then_some(())
        });
        client.send("PUB s in 5\r\nhello\r\n");
        client.expect(r#"{"stream":"S","seq":1"#);
    }
}

#[test]
fn a_server_that_shows_no_proof_is_not_dialled_and_one_that_cannot_is_asked_about() {
    let authority = authority("must", &["one", "two"]);
    let silent = member(&authority, "two", &[], "", "ocsp: false");
    let one = member(&authority, "one", &[&silent], "", "");
    one.wait_for_log("peer missing OCSP Staple");
    assert_eq!(routes(&one), 0);
    drop(one);
    // The other way round its responder says what it does not show.
    let one = member(&authority, "one", &[], "", "");
    let before = authority.asked.load(Ordering::SeqCst);
    let silent = member(&authority, "two", &[&one], "", "ocsp: false");
    wait_for_routes(&one, ROUTES_EACH);
    wait_for_routes(&silent, ROUTES_EACH);
    assert!(authority.asked.load(Ordering::SeqCst) > before);
}

#[test]
fn a_server_with_a_revoked_certificate_is_neither_let_in_nor_dialled() {
    let authority = authority("must", &["good", "bad"]);
    authority.say(&[(2, "V"), (3, "R")]);
    // Nothing says that it has to end with its certificate.
    let bad = member(&authority, "bad", &[], "", "");
    let good = member(&authority, "good", &[&bad], "", "");
    good.wait_for_log("bad status for OCSP Staple from peer: revoked");
    drop((bad, good));
    let good = member(&authority, "good", &[], "", "");
    let bad = member(&authority, "bad", &[&good], "", "");
    good.wait_for_log("server not OCSP valid: Invalid OCSP response status: revoked");
    bad.wait_for_log("Error trying to connect to route");
    assert_eq!(routes(&good), 0);
}

#[test]
fn who_is_connected_stays_and_who_comes_later_sees_what_has_been_revoked() {
    let authority = authority("must", &["one", "two", "three", "new"]);
    let mut one = member(&authority, "one", &[], "", "");
    let two = member(&authority, "two", &[&one], "", "");
    wait_for_routes(&two, ROUTES_EACH);
    authority.say(&[(2, "R"), (3, "V"), (4, "V"), (5, "V")]);
    let again = config(&authority, ("one", "one"), &[], "", "");
    one.reload(&again);
    let three = member(&authority, "three", &[&one], "", "");
    three.wait_for_log("bad status for OCSP Staple from peer: revoked");
    assert_eq!((routes(&one), routes(&two)), (ROUTES_EACH, ROUTES_EACH));
    let renewed = config(&authority, ("one", "new"), &[], "", "");
    one.reload(&renewed);
    for server in [&one, &two, &three] {
        wait_for_routes(server, 2 * ROUTES_EACH);
    }
}

#[test]
fn a_reload_may_begin_and_end_to_demand_proofs() {
    let authority = authority("plain", &["one", "two", "three"]);
    let mut one = member(&authority, "one", &[], "", "");
    let two = member(&authority, "two", &[&one], "", "");
    wait_for_routes(&two, ROUTES_EACH);
    assert_eq!(authority.asked.load(Ordering::SeqCst), 0);
    let port = route_port(&two);
    let always = "ocsp { mode: always }";
    authority.say(&[(2, "V"), (3, "V"), (4, "R")]);
    one.reload(&config(&authority, ("one", "one"), &[port], "", always));
    one.wait_for_log("peer missing OCSP Staple");
    assert_eq!((routes(&one), routes(&two)), (ROUTES_EACH, ROUTES_EACH));
    let three = member(&authority, "three", &[&one], "", "");
    one.wait_for_log("server not OCSP valid: Invalid OCSP response status: revoked");
    one.reload(&config(&authority, ("one", "one"), &[port], "", ""));
    wait_for_routes(&three, 2 * ROUTES_EACH);
}

#[test]
fn what_a_responder_said_of_other_servers_is_remembered_over_a_restart() {
    let authority = authority("must", &["one", "two"]);
    let store = "store_dir: '@DIR@/store'";
    let mut one = member(&authority, "one", &[], "", store);
    let mut two = member(&authority, "two", &[&one], "", store);
    wait_for_routes(&two, ROUTES_EACH);
    let asked = authority.asked.load(Ordering::SeqCst);
    one.stop();
    two.stop();
    authority.silent.store(true, Ordering::SeqCst);
    one.start_again();
    let seeds = [route_port(&one)];
    two.write_config(&config(&authority, ("two", "two"), &seeds, "", store));
    two.start_again();
    wait_for_routes(&two, ROUTES_EACH);
    assert_eq!(authority.asked.load(Ordering::SeqCst), asked);
}

#[test]
fn an_operator_may_have_the_responders_of_other_servers_asked() {
    let authority = authority("plain", &["one", "two"]);
    authority.say(&[(2, "V"), (3, "R")]);
    let cache = "ocsp_cache: false";
    // Whoever dials.
    let two = member(&authority, "two", &[], "", "");
    let one = member(&authority, "one", &[&two], "ocsp_peer: true", cache);
    one.wait_for_log("server not OCSP valid: Invalid OCSP response status: revoked");
    assert_eq!(routes(&one), 0);
    drop(one);
    let one = member(&authority, "one", &[], "ocsp_peer: true", cache);
    let two = member(&authority, "two", &[&one], "", "");
    one.wait_for_log("server not OCSP valid: Invalid OCSP response status: revoked");
    assert_eq!(routes(&two), 0);
    drop(one);
    let lenient = "ocsp_peer { verify: true, warn_only: true }";
    let one = member(&authority, "one", &[], lenient, cache);
    let two = member(&authority, "two", &[&one], "", "");
    wait_for_routes(&two, ROUTES_EACH);
    assert!(one.log().contains("WarnOnly is true so allowing"));
}

/// A server that takes nobody's certificate when it is dialled, as the reference takes none without a proof.
fn refuse_all(authority: &Authority, name: &str) -> u16 {
    let provider = Arc::new(ring::default_provider());
    let path = |kind: &str| authority.path(&format!("{name}.{kind}"));
    let chain = CertificateDer::from_pem_file(path("pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(TakesNone))
        .with_single_cert_with_ocsp(vec![chain], key, authority.proof(name))
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
            assert!(session.complete_io(&mut stream).is_err());
            // What is left unread would take the alert with it.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[derive(Debug)]
struct TakesNone;

impl ClientCertVerifier for TakesNone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        // The alert is that of the reference, `bad_certificate`.
        Err(CertificateError::BadEncoding.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::BadSignature.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn a_server_that_wants_a_proof_that_cannot_be_shown_is_left_to_dial() {
    let authority = authority("must", &["one", "two"]);
    let strict = refuse_all(&authority, "two");
    let text = config(&authority, ("one", "one"), &[strict], "", "");
    let one = ServerOptions::default().config(&text).start();
    one.wait_for_log("it has to dial this server");
}

#[test]
fn a_server_ends_when_the_certificate_of_its_cluster_is_revoked_where_that_is_said() {
    let authority = authority("must", &["one"]);
    authority.say(&[(2, "R")]);
    for beside in ["ocsp { mode: must }", "ocsp { mode: always }"] {
        let text = config(&authority, ("one", "one"), &[], "", beside);
        let refused = ServerOptions::default().config(&text).try_start();
        let refused = refused.err().unwrap();
        assert!(
            refused.contains("found existing OCSP status: revoked"),
            "{refused}"
        );
    }
}
