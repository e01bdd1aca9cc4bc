//! Certificates that may have been revoked: proofs that are shown with the server's own, and checks of clients'.
//! The openssl program is the authority.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::ConnectOptions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Server, ServerOptions, eventually, http_get};
use futures_util::StreamExt;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {complaint}");
}

/// An authority with a responder that answers while this lives.
struct Authority {
    folder: Arc<TempDir>,
    port: u16,
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Authority {
    fn new() -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, silent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let extensions = format!(
            "[plain]\nsubjectAltName=IP:127.0.0.1\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/\n\
             [must]\nsubjectAltName=IP:127.0.0.1\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/\ntlsfeature=status_request\n"
        );
        std::fs::write(folder.path().join("ext.cnf"), extensions).unwrap();
        std::fs::write(folder.path().join("index.txt"), "").unwrap();
        openssl(
            folder.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=ca \
             -config /dev/null -addext basicConstraints=critical,CA:true",
        );
        let authority = Self {
            folder,
            port,
            asked,
            silent,
        };
        authority.answer_on(listener);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Answers each question by hand of openssl. Ends when the folder is only held here.
    fn answer_on(&self, listener: TcpListener) {
        let folder = Arc::downgrade(&self.folder);
        let (asked, silent) = (Arc::clone(&self.asked), Arc::clone(&self.silent));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), Some(folder)) = (stream, folder.upgrade()) else {
                    return;
                };
                asked.fetch_add(1, Ordering::SeqCst);
                if silent.load(Ordering::SeqCst) {
                    continue;
                }
                let Some(question) = question(&stream) else {
                    continue;
                };
                let folder = folder.path();
                std::fs::write(folder.join("question.der"), question).unwrap();
                openssl(
                    folder,
                    "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin question.der -respout answer.der -nmin 10",
                );
                let answer = std::fs::read(folder.join("answer.der")).unwrap();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {}\r\n\r\n",
                    answer.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&answer);
            }
        });
    }

    fn sign(&self, name: &str, serial: u32, section: &str) {
        let folder = self.folder.path();
        openssl(
            folder,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} -config /dev/null"
            ),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial {serial} -days 20 -out {name}.pem -extfile ext.cnf -extensions {section}"
            ),
        );
    }

    /// What the authority says of its certificates from now on: `V` is good, `R` revoked.
    fn say(&self, states: &[(u32, &str)]) {
        let line = |(serial, state): &(u32, &str)| match *state {
            "R" => {
                format!("R\t351231000000Z\t250101000000Z\t{serial:02X}\tunknown\t/CN={serial}\n")
            }
            _ => format!("V\t351231000000Z\t\t{serial:02X}\tunknown\t/CN={serial}\n"),
        };
        let index: String = states.iter().map(line).collect();
        std::fs::write(self.path("index.new"), index).unwrap();
        std::fs::rename(self.path("index.new"), self.path("index.txt")).unwrap();
    }

    fn options(&self, block: &str, beside: &str) -> ServerOptions {
        let folder = self.folder.path().display();
        let config = format!(
            "tls {{ cert_file: '{folder}/server.pem', key_file: '{folder}/server.key', ca_file: '{folder}/ca.pem', timeout: 30\n {block} }}\n\
             accounts {{ A {{ users: [{{user: a, password: a}}] }}, SYS {{ users: [{{user: admin, password: admin}}] }} }}\n\
             system_account: SYS\n{beside}"
        );
        ServerOptions::default().config(&config).monitoring()
    }

    fn client(&self, user: &str, name: &str) -> ConnectOptions {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        ConnectOptions::with_user_and_password(user.into(), user.into())
            .add_root_certificates(self.path("ca.pem"))
            .require_tls(true)
            .add_client_certificate(self.path(&certificate), self.path(&key))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Wakes the responder, which finds that it is over.
        let port = self.port;
        self.folder = Arc::new(TempDir::new().unwrap());
        let _ = TcpStream::connect(("127.0.0.1", port));
    }
}

/// The question in a request, in its path or its body.
fn question(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1)?;
    if first.starts_with("GET") {
        let text = path
            .trim_start_matches('/')
            .replace("%2B", "+")
            .replace("%2F", "/")
            .replace("%3D", "=");
        return STANDARD.decode(text).ok();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
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
        let server = authority
            .options("handshake_first: true", &format!("{store}\n{beside}"))
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
    let server = authority
        .options("handshake_first: true", "ocsp: false")
        .start();
    assert!(shown(&server).contains("OCSP response: no response sent"));
}

#[test]
fn what_a_responder_said_is_remembered_over_a_restart() {
    let authority = Authority::new();
    authority.sign("server", 2, "plain");
    authority.say(&[(2, "V")]);
    let beside = "ocsp { mode: always }\njetstream { store_dir: '@DIR@/store' }";
    let mut server = authority.options("handshake_first: true", beside).start();
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
    let refused = authority.options("", "ocsp { mode: must }").try_start();
    let refused = refused.err().unwrap();
    assert!(
        refused.contains("found existing OCSP status: revoked"),
        "{refused}"
    );
    // Without that word it starts, and whoever connects sees what is said of it.
    let server = authority.options("handshake_first: true", "").start();
    assert!(shown(&server).contains("Cert Status: revoked"));
    drop(server);
    let nobody = "ocsp { mode: always, url: 'http://127.0.0.1:1/' }";
    let refused = authority.options("", nobody).try_start().err().unwrap();
    assert!(
        refused.contains("bad OCSP status update for certificate"),
        "{refused}"
    );
}

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
    let server = authority
        .options("verify: true, ocsp_peer: true", "")
        .start();
    let admin = authority
        .client("admin", "good")
        .connect(server.url())
        .await;
    let admin = admin.expect("the certificate is good");
    let mut events = admin.subscribe("$SYS.SERVER.*.OCSP.PEER.>").await.unwrap();
    admin.flush().await.unwrap();
    assert!(!admits(&server, authority.client("a", "bad").max_reconnects(1)).await);
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
    assert!(admits(&server, authority.client("a", "good")).await);
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
    ] {
        authority.say(states);
        authority.silent.store(silent, Ordering::SeqCst);
        let block = format!("verify: true, ocsp_peer {{ verify: true, {block} }}");
        let server = authority.options(&block, "ocsp_cache: false").start();
        let client = authority.client("a", "client").max_reconnects(1);
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
    let mut server = authority.options(block, cache).start();
    let client = || authority.client("a", "client").max_reconnects(1);
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
