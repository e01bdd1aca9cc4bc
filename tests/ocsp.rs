//! Certificates that may have been revoked: proofs that are shown with the server's own, and checks of clients'.
//! The openssl program is the authority.

mod common;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::ConnectOptions;
use common::{Authority, Server, ServerOptions, eventually, http_get};
use futures_util::StreamExt;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn options(authority: &Authority, block: &str, beside: &str) -> ServerOptions {
    let folder = authority.path("").display().to_string();
    let config = format!(
        "tls {{ cert_file: '{folder}/server.pem', key_file: '{folder}/server.key', ca_file: '{folder}/ca.pem', timeout: 30\n {block} }}\n\
             accounts {{ A {{ users: [{{user: a, password: a}}] }}, SYS {{ users: [{{user: admin, password: admin}}] }} }}\n\
             system_account: SYS\n{beside}"
    );
    ServerOptions::default().config(&config).monitoring()
}

fn client(authority: &Authority, user: &str, name: &str) -> ConnectOptions {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    ConnectOptions::with_user_and_password(user.into(), user.into())
        .add_root_certificates(authority.path("ca.pem"))
        .require_tls(true)
        .add_client_certificate(authority.path(&certificate), authority.path(&key))
}
/// What openssl's client says of what a server shows.
fn shown(server: &Server) -> String {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-status",
            "-connect",
            &server.address().to_string(),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("openssl is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_certificate_is_shown_with_a_proof_where_it_asks_for_one() {
    let authority = Authority::new();
    authority.sign("server", 2, "must");
    authority.say(&[(2, "V")]);
    let store = "jetstream { store_dir: '@DIR@/store' }";
    // Also without a word about it: the certificate demands it.
    for beside in [
        "",
        "ocsp: true",
        "ocsp { mode: must }",
        "ocsp { mode: always }",
    ] {
        let server = options(
            &authority,
            "handshake_first: true",
            &format!("{store}\n{beside}"),
        )
        .start();
        let shown = shown(&server);
        assert!(
            shown.contains("OCSP Response Status: successful"),
            "{beside}: {shown}"
        );
        assert!(shown.contains("Cert Status: good"), "{beside}: {shown}");
    }
    let asked = authority.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 4, "each has a store of its own");
    let server = options(&authority, "handshake_first: true", "ocsp: false").start();
    assert!(shown(&server).contains("OCSP response: no response sent"));
}

#[test]
fn what_a_responder_said_is_remembered_over_a_restart() {
    let authority = Authority::new();
    authority.sign("server", 2, "plain");
    authority.say(&[(2, "V")]);
    let beside = "ocsp { mode: always }\njetstream { store_dir: '@DIR@/store' }";
    let mut server = options(&authority, "handshake_first: true", beside).start();
    assert!(shown(&server).contains("Cert Status: good"));
    server.stop();
    authority.silent.store(true, Ordering::SeqCst);
    server.start_again();
    assert!(shown(&server).contains("Cert Status: good"));
    assert_eq!(authority.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_does_not_start_with_a_certificate_that_is_revoked_or_unknown_to_all() {
    let authority = Authority::new();
    authority.sign("server", 2, "must");
    authority.say(&[(2, "R")]);
    let refused = options(&authority, "", "ocsp { mode: must }").try_start();
    let refused = refused.err().unwrap();
    assert!(
        refused.contains("found existing OCSP status: revoked"),
        "{refused}"
    );
    // Without that word it starts, and whoever connects sees what is said of it.
    let server = options(&authority, "handshake_first: true", "").start();
    assert!(shown(&server).contains("Cert Status: revoked"));
    drop(server);
    let nobody = "ocsp { mode: always, url: 'http://127.0.0.1:1/' }";
    let refused = options(&authority, "", nobody).try_start().err().unwrap();
    assert!(
        refused.contains("bad OCSP status update for certificate"),
        "{refused}"
    );
}

/// Longer than anybody can reckon with.
const ENDLESS: &str = "ca_timeout: 9223372036854775807, allowed_clockskew: 9223372036854775807";

async fn admits(server: &Server, options: ConnectOptions) -> bool {
    let connected = tokio::time::timeout(PATIENCE, options.connect(server.url())).await;
    match connected.expect("an end") {
        // With TLS 1.3 a client learns only later that its certificate was not liked.
        Ok(client) => client.flush().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_revoked_certificates_are_not_let_in_and_others_are_told() {
    let authority = Authority::new();
    authority.sign("server", 2, "plain");
    authority.sign("good", 3, "plain");
    authority.sign("bad", 4, "plain");
    authority.say(&[(2, "V"), (3, "V"), (4, "R")]);
    let server = options(&authority, "verify: true, ocsp_peer: true", "").start();
    let admin = client(&authority, "admin", "good")
        .connect(server.url())
        .await;
    let admin = admin.expect("the certificate is good");
    let mut events = admin.subscribe("$SYS.SERVER.*.OCSP.PEER.>").await.unwrap();
    admin.flush().await.unwrap();
    assert!(!admits(&server, client(&authority, "a", "bad").max_reconnects(1)).await);
    let mut told = Vec::new();
    for _ in 0..2 {
        let message = tokio::time::timeout(PATIENCE, events.next()).await;
        let message = message.expect("nobody told").unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        told.push((message.subject.to_string(), event));
    }
    let (subject, invalid) = &told[0];
    assert!(subject.ends_with(".OCSP.PEER.LINK.INVALID"), "{subject}");
    assert_eq!(
        invalid["type"],
        "io.nats.server.advisory.v1.ocsp_peer_link_invalid"
    );
    assert_eq!(invalid["link"]["subject"], "CN=bad");
    assert_eq!(invalid["link"]["issuer"], "CN=ca");
    assert_eq!(invalid["reason"], "Invalid OCSP response status: revoked");
    let (subject, reject) = &told[1];
    assert!(subject.ends_with(".OCSP.PEER.CONN.REJECT"), "{subject}");
    assert_eq!(reject["kind"], "Client");
    assert_eq!(
        reject["peer"]["fingerprint"],
        invalid["peer"]["fingerprint"]
    );
    assert_eq!(reject["reason"], "client not OCSP valid");
    // Who is known is not asked about again.
    let before = authority.asked.load(Ordering::SeqCst);
    assert!(admits(&server, client(&authority, "a", "good")).await);
    assert_eq!(authority.asked.load(Ordering::SeqCst), before);
    let varz = http_get(server.monitor_address(), "/varz").unwrap().body;
    let varz: Value = serde_json::from_str(&varz).unwrap();
    assert_eq!(varz["tls_ocsp_peer_verify"], true);
    assert_eq!(
        varz["ocsp_peer_cache"]["cached_good_responses"], 1,
        "{varz}"
    );
    assert_eq!(varz["ocsp_peer_cache"]["cached_revoked_responses"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_strict_a_check_is_can_be_chosen() {
    let authority = Authority::new();
    authority.sign("server", 2, "plain");
    authority.sign("client", 3, "plain");
    for (states, silent, block, lets_in) in [
        (&[(3, "R")][..], false, "warn_only: true", true),
        (&[], false, "unknown_is_good: true", true),
        (&[], false, "unknown_is_good: false", false),
        (&[(3, "V")], true, "allow_when_ca_unreachable: true", true),
        (&[(3, "V")], true, "ca_timeout: 0.5", false),
        (&[(3, "V")], false, ENDLESS, true),
    ] {
        authority.say(states);
        authority.silent.store(silent, Ordering::SeqCst);
        let block = format!("verify: true, ocsp_peer {{ verify: true, {block} }}");
        let server = options(&authority, &block, "ocsp_cache: false").start();
        let client = client(&authority, "a", "client").max_reconnects(1);
        assert_eq!(admits(&server, client).await, lets_in, "{block}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_remembered_when_nobody_can_be_reached() {
    let authority = Authority::new();
    authority.sign("server", 2, "plain");
    authority.sign("client", 3, "plain");
    authority.say(&[(3, "R")]);
    let block = "verify: true, ocsp_peer { verify: true, allow_when_ca_unreachable: true }";
    let cache = "ocsp_cache { local_store: '@DIR@/rc', preserve_revoked: true, save_interval: 1 }";
    let mut server = options(&authority, block, cache).start();
    let client = || client(&authority, "a", "client").max_reconnects(1);
    assert!(!admits(&server, client()).await);
    server.stop();
    let kept = server.directory().join("rc/cache.json");
    eventually("it is written down", || {
        std::fs::read_to_string(&kept)
            .ok()
            .filter(|text| text.contains("revoked"))
    });
    authority.silent.store(true, Ordering::SeqCst);
    server.start_again();
    assert!(!admits(&server, client()).await);
}
