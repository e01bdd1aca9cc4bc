//! Encrypted client connections.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use common::{Server, ServerOptions, Wire, http_get};
use futures_util::StreamExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const REFUSED: &str = "-ERR 'Secure Connection - TLS Required'\r\n";

/// A folder with an authority, and what it signed for a server and for a client.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text);
        write("ca.pem", authority.pem()).unwrap();
        for (name, host) in [("server", "127.0.0.1"), ("client", "client")] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([host.to_owned()]).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.not_after = rcgen::date_time_ymd(2100, 1, 1);
            params
                .distinguished_name
                .push(DnType::OrganizationName, "NATS");
            params.distinguished_name.push(DnType::CommonName, name);
            let pin = Sha256::digest(key.subject_public_key_info());
            let pin: String = pin.iter().map(|byte| format!("{byte:02x}")).collect();
            write(&format!("{name}.pin"), pin).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            write(&format!("{name}.pem"), certificate.pem()).unwrap();
            write(&format!("{name}.key"), key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server with this in its `tls` block and this beside it.
    fn server(&self, block: &str, beside: &str) -> Server {
        let folder = self.0.path().display();
        let config = format!(
            "tls {{ cert_file: '{folder}/server.pem', key_file: '{folder}/server.key', \
             ca_file: '{folder}/ca.pem'\n {block} }}\n{beside}"
        );
        ServerOptions::default()
            .config(&config)
            .monitoring()
            .start()
    }

    /// The hash of the key of a certificate.
    fn pin(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pin"))).unwrap()
    }

    /// With the client's certificate.
    fn known(&self) -> ConnectOptions {
        let (certificate, key) = (self.path("client.pem"), self.path("client.key"));
        self.options().add_client_certificate(certificate, key)
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions::new()
            .add_root_certificates(self.path("ca.pem"))
            .require_tls(true)
    }
}

async fn talks(client: &Client, messages: usize, bytes: usize) {
    let mut heard = client.subscribe("echo").await.unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; bytes]);
    for _ in 0..messages {
        client.publish("echo", payload.clone()).await.unwrap();
    }
    client.flush().await.unwrap();
    for _ in 0..messages {
        let message = tokio::time::timeout(PATIENCE, heard.next()).await.unwrap();
        assert_eq!(message.unwrap().payload, payload);
    }
}

#[tokio::test]
async fn messages_small_and_large_pass_encrypted() {
    let certificates = Certificates::new();
    let server = certificates.server("", "");
    let client = certificates.options().connect(server.url()).await.unwrap();
    assert!(client.server_info().tls_required);
    talks(&client, 1000, 16).await;
    talks(&client, 32, 1 << 20).await;
    let varz = http_get(server.monitor_address(), "/varz").unwrap().body;
    assert!(varz.contains("\"tls_required\": true"), "{varz}");
    assert!(varz.contains("\"auth_timeout\": 3"), "{varz}");
    let end = "\"tls_cert_not_after\": \"2100-01-01T00:00:00Z\"";
    assert!(varz.contains(end), "{varz}");
}

#[test]
fn who_does_not_encrypt_is_refused() {
    let certificates = Certificates::new();
    let server = certificates.server("timeout: 0.3", "");
    let mut wire = Wire::connect(server.address());
    let info = wire.expect("\r\n");
    assert!(info.contains(r#""tls_required":true"#), "{info}");
    wire.send("CONNECT {}\r\nPING\r\n");
    assert_eq!(wire.expect_closed(), REFUSED);
    let mut silent = Wire::connect(server.address());
    silent.expect("\r\n");
    assert_eq!(silent.expect_closed(), REFUSED);
    server.wait_for_log("TLS handshake timeout");
}

#[tokio::test]
async fn where_it_is_asked_for_a_client_shows_a_certificate() {
    let certificates = Certificates::new();
    let server = certificates.server("verify: true", "");
    certificates
        .options()
        .connect(server.url())
        .await
        .expect_err("it has no certificate");
    let options = certificates.options().add_client_certificate(
        certificates.path("client.pem"),
        certificates.path("client.key"),
    );
    let client = options.connect(server.url()).await.unwrap();
    assert!(client.server_info().tls_required);
    talks(&client, 1, 16).await;
    server.wait_for_log("TLS handshake error");
}

/// Who the server takes the client for.
async fn user_of(client: &Client) -> String {
    let answer = client
        .request("$SYS.REQ.USER.INFO", "".into())
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    answer["data"]["user"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn a_client_is_the_user_that_its_certificate_names() {
    let certificates = Certificates::new();
    for user in ["client", "CN=client,O=NATS", "o=NATS, cn=client"] {
        let users = format!(
            "authorization {{ users: [ {{user: other, password: x}}, {{user: '{user}', permissions: {{subscribe: '_INBOX.>'}}}} ] }}"
        );
        let server = certificates.server("verify_and_map: true", &users);
        // What it says of itself does not matter.
        let options = certificates.known();
        let client = options.connect(server.url()).await.unwrap();
        assert_eq!(user_of(&client).await, user);
    }
    let strangers = "authorization { users: [ {user: stranger, password: ''} ] }";
    let server = certificates.server("verify_and_map: true", strangers);
    let refused = certificates.known().connect(server.url()).await;
    refused.expect_err("the certificate names no user");
    server.wait_for_log("authentication error");
}

#[tokio::test]
async fn a_pinned_key_is_needed_whoever_signed_the_certificate() {
    let certificates = Certificates::new();
    let block = |name: &str| format!("verify: true, pinned_certs: [{}]", certificates.pin(name));
    let server = certificates.server(&block("client"), "");
    let client = certificates.known().connect(server.url()).await.unwrap();
    talks(&client, 1, 16).await;
    let other = certificates.server(&block("server"), "");
    let refused = certificates.known().connect(other.url()).await;
    refused.expect_err("its key is not pinned");
    other.wait_for_log("TLS handshake error");
}

#[tokio::test]
async fn no_more_handshakes_begin_in_a_second_than_may() {
    let certificates = Certificates::new();
    let server = certificates.server("connection_rate_limit: 2", "");
    let mut refused = 0;
    for _ in 0..4 {
        let mut wire = Wire::connect(server.address());
        wire.expect("\r\n");
        // The first byte of a handshake.
        wire.send([0x16]);
        let throttled = b"Connection throttling is active. Please try again later.";
        refused += usize::from(wire.read_until(Duration::from_millis(300), |heard, _| {
            heard
                .windows(throttled.len())
                .any(|window| window == throttled)
        }));
    }
    assert!(refused >= 1, "all four began");
}

#[tokio::test]
async fn named_ciphers_and_curves_are_spoken_and_several_certificates_may_be_shown() {
    let certificates = Certificates::new();
    let folder = certificates.0.path().display();
    let config = format!(
        "tls {{ certs: [ {{cert_file: '{folder}/client.pem', key_file: '{folder}/client.key'}}, \
         {{cert_file: '{folder}/server.pem', key_file: '{folder}/server.key'}} ], min_version: '1.2', \
         cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], curve_preferences: [CurveP384] }}"
    );
    let server = ServerOptions::default().config(&config).start();
    // By its address nobody is named, and then the first certificate is shown.
    let first = certificates.options().connect(server.url()).await;
    first.expect_err("that is the certificate of another host");
    let mut wire = Wire::connect(server.address());
    assert!(wire.expect("\r\n").contains(r#""tls_required":true"#));
    // The other way round it is the right one, and client and server agree on the curve that is named.
    let swapped = config
        .replace("/client.", "/other.")
        .replace("/server.", "/client.")
        .replace("/other.", "/server.");
    let server = ServerOptions::default().config(&swapped).start();
    let client = certificates.options().connect(server.url()).await.unwrap();
    talks(&client, 1, 16).await;
}

#[tokio::test]
async fn clients_may_do_without_where_that_is_allowed() {
    let certificates = Certificates::new();
    let server = certificates.server("", "allow_non_tls: true");
    let mut wire = Wire::connect(server.address());
    let info = wire.expect("\r\n");
    assert!(info.contains(r#""tls_available":true"#), "{info}");
    assert!(!info.contains("tls_required"), "{info}");
    wire.send("CONNECT {\"verbose\":false}\r\n");
    wire.round_trip();
    let client = certificates.options().connect(server.url()).await.unwrap();
    talks(&client, 1, 16).await;
}

#[tokio::test]
async fn with_the_handshake_first_nothing_is_said_in_plain_text() {
    let certificates = Certificates::new();
    let server = certificates.server("handshake_first: true", "");
    let first = certificates.options().tls_first();
    let client = first.connect(server.url()).await.unwrap();
    talks(&client, 1, 16).await;
    let mut wire = Wire::connect(server.address());
    wire.send("CONNECT {}\r\n");
    assert_eq!(wire.expect_closed(), REFUSED);
}

#[tokio::test]
async fn a_server_that_waits_for_the_handshake_a_while_serves_both_kinds_of_clients() {
    let certificates = Certificates::new();
    let server = certificates.server("handshake_first: 200ms", "");
    let first = certificates.options().tls_first();
    talks(&first.connect(server.url()).await.unwrap(), 1, 16).await;
    let later = certificates.options();
    talks(&later.connect(server.url()).await.unwrap(), 1, 16).await;
}

#[tokio::test]
async fn users_log_in_over_encrypted_connections() {
    let certificates = Certificates::new();
    let beside = "accounts { A { users: [{user: a, password: a}] } }";
    let server = certificates.server("", beside);
    let with = |password: &str| {
        certificates
            .options()
            .user_and_password("a".into(), password.into())
            .connect(server.url())
    };
    with("wrong").await.expect_err("the password is wrong");
    talks(&with("a").await.unwrap(), 1, 16).await;
}

#[tokio::test]
async fn the_command_line_asks_for_tls_too() {
    let certificates = Certificates::new();
    let path = |name: &str| certificates.path(name).display().to_string();
    let server = ServerOptions::default()
        .arguments(["--tls".to_owned(), "--tlscert".into(), path("server.pem")])
        .arguments(["--tlskey".to_owned(), path("server.key")])
        .start();
    let client = certificates.options().connect(server.url()).await.unwrap();
    talks(&client, 1, 16).await;
    let missing = ServerOptions::default().arguments(["--tls"]).try_start();
    let Err(said) = missing else {
        panic!("it started without a certificate");
    };
    assert!(
        said.contains("TLS Server certificate must be present and valid"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let config = "tls { cert_file: '@DIR@/none.pem', key_file: '@DIR@/none.key' }";
    let Err(said) = ServerOptions::default().config(config).try_start() else {
        panic!("it started without a certificate");
    };
    assert!(
        said.contains("none.key") || said.contains("none.pem"),
        "{said}"
    );
}

#[test]
fn certificates_of_all_listeners_are_looked_at_without_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.conf");
    let tls = "tls { cert_file: none.pem, key_file: none.key }";
    for text in [
        tls.to_owned(),
        format!("websocket {{ listen: '127.0.0.1:-1', {tls} }}"),
        format!("cluster {{ listen: '127.0.0.1:-1', {tls} }}"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_nats-server"))
            .args(["-t", "-c"])
            .arg(&file)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}: {said}");
        assert!(said.contains("none.key"), "{text}: {said}");
    }
}

/// Asks an encrypted monitoring port; its certificate must be for this host.
async fn https_get(
    port: u16,
    authority: PathBuf,
    host: &str,
    path: &str,
) -> Result<String, String> {
    use nats_server::tls::{TlsStream, client_config, connect};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let options = nats_server::config::options::TlsOptions {
        ca_file: Some(authority),
        ..Default::default()
    };
    let config = client_config(&options).unwrap();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    let socket = connect(tcp.unwrap(), config, host, PATIENCE).await;
    let mut stream = TlsStream::new(socket.map_err(|error| error.to_string())?);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer")
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn monitoring_is_encrypted_with_the_certificate_for_clients() {
    let certificates = Certificates::new();
    let folder = certificates.0.path().display().to_string();
    // Clients must show certificates, who looks at monitoring need not.
    let config = |name: &str, timeout: &str| {
        format!(
            "https: '127.0.0.1:-1'\ntls {{ cert_file: '{folder}/{name}.pem', key_file: '{folder}/{name}.key', \
             ca_file: '{folder}/ca.pem', verify: true, timeout: {timeout} }}"
        )
    };
    let mut server = ServerOptions::default()
        .config(&config("server", "600"))
        .start();
    let line = server.wait_for_log("Starting https monitor on 127.0.0.1:");
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let authority = certificates.path("ca.pem");
    // Somebody who connects and says nothing holds nobody up.
    let _silent = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let varz = https_get(port, authority.clone(), "127.0.0.1", "/varz").await;
    let varz = varz.unwrap();
    assert!(varz.starts_with("HTTP/1.1 200 OK"), "{varz}");
    assert!(varz.contains(&format!("\"https_port\": {port}")), "{varz}");
    assert!(varz.contains("\"http_port\": 0"), "{varz}");
    // Large answers and small ones.
    for _ in 0..20 {
        let answer = https_get(port, authority.clone(), "127.0.0.1", "/metrics").await;
        assert!(answer.unwrap().contains("# EOF"));
    }
    assert!(http_get(([127, 0, 0, 1], port).into(), "/varz").is_err());
    https_get(port, authority.clone(), "client", "/varz")
        .await
        .expect_err("the certificate is for another host");

    server.write_config(&config("client", "3"));
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_log("Reloaded server configuration");
    let answer = https_get(port, authority, "client", "/healthz").await;
    assert!(answer.unwrap().contains("{\"status\":\"ok\"}"));
    // From now on a handshake may take that long and no longer.
    let mut silent = Wire::connect(([127, 0, 0, 1], port).into());
    silent.expect_closed();
}
