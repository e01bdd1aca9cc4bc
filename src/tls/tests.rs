//! Real sockets on loopback, certificates made for the test.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::options::{PeerCertificate, TlsOptions, TlsVersion};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with an authority and certificates that it has signed.
struct Certificates {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The options of a side that shows a certificate for this host.
    fn for_host(&self, host: &str) -> TlsOptions {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([host.to_owned()])
            .unwrap()
            .signed_by(&key, &self.authority)
            .unwrap();
        let (cert_file, key_file) = (
            self.path(&format!("{host}.pem")),
            self.path(&format!("{host}.key")),
        );
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        TlsOptions {
            cert_file: Some(cert_file),
            key_file: Some(key_file),
            ..self.authority_only()
        }
    }

    fn authority_only(&self) -> TlsOptions {
        TlsOptions {
            ca_file: Some(self.path("ca.pem")),
            ..TlsOptions::default()
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
    (here.unwrap(), there.unwrap().0)
}

/// What becomes of both sides of a handshake.
async fn shake(
    server: &TlsOptions,
    client: &TlsOptions,
    host: &str,
) -> (
    Result<TlsSocket, HandshakeError>,
    Result<TlsSocket, HandshakeError>,
) {
    let (server, client) = (
        server_config(server).unwrap(),
        client_config(client).unwrap(),
    );
    let (here, there) = pair().await;
    tokio::join!(
        accept(there, server, PATIENCE),
        connect(here, client, host, PATIENCE)
    )
}

/// Reads until the other side has said this much.
async fn hear(reader: &mut TlsReader, bytes: usize) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    while buffer.len() < bytes {
        let read = tokio::time::timeout(PATIENCE, reader.read_buf(&mut buffer)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "the other side has ended");
    }
    buffer.to_vec()
}

async fn say_all(writer: &TlsWriter, mut bytes: &[u8]) {
    loop {
        let written = match bytes.is_empty() {
            false => writer.try_write(&[IoSlice::new(bytes)]),
            true => writer.try_flush().map(|()| 0),
        };
        match written {
            Ok(_) if bytes.is_empty() => return,
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let writable = std::future::poll_fn(|context| writer.poll_writable(context));
                tokio::time::timeout(PATIENCE, writable)
                    .await
                    .unwrap()
                    .unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn both_sides_say_at_once_more_than_the_sockets_hold_and_everything_arrives() {
    let certificates = Certificates::new();
    for min_version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let server = TlsOptions {
            min_version,
            ..certificates.for_host("localhost")
        };
        let (here, there) = shake(&server, &certificates.authority_only(), "localhost").await;
        let (mut here_reader, here_writer) = here.unwrap().into_split();
        let (mut there_reader, there_writer) = there.unwrap().into_split();
        let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
        let count = bytes.len();
        let (one, other, (), ()) = tokio::join!(
            hear(&mut here_reader, count),
            hear(&mut there_reader, count),
            say_all(&here_writer, &bytes),
            say_all(&there_writer, &bytes),
        );
        assert!(one == bytes && other == bytes);
        here_writer.shutdown();
        let mut rest = BytesMut::new();
        assert_eq!(there_reader.read_buf(&mut rest).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused_where_one_is_required() {
    let certificates = Certificates::new();
    let server = TlsOptions {
        peer_certificate: PeerCertificate::Required,
        min_version: TlsVersion::Tls12,
        ..certificates.for_host("localhost")
    };
    let (server_side, _) = shake(&server, &certificates.authority_only(), "localhost").await;
    assert!(
        matches!(server_side, Err(HandshakeError::Failed(_))),
        "{server_side:?}"
    );
    let client = certificates.for_host("client");
    let (server_side, client_side) = shake(&server, &client, "localhost").await;
    server_side.unwrap();
    client_side.unwrap();
    let elsewhere = Certificates::new();
    let stranger = TlsOptions {
        ca_file: server.ca_file.clone(),
        ..elsewhere.for_host("client")
    };
    let (server_side, _) = shake(&server, &stranger, "localhost").await;
    assert!(
        matches!(server_side, Err(HandshakeError::Failed(_))),
        "{server_side:?}"
    );
}

#[tokio::test]
async fn a_server_with_another_name_or_another_authority_is_refused() {
    let certificates = Certificates::new();
    let server = certificates.for_host("localhost");
    let (_, client_side) = shake(&server, &certificates.authority_only(), "127.0.0.1").await;
    assert!(
        matches!(client_side, Err(HandshakeError::Failed(_))),
        "{client_side:?}"
    );
    let other = Certificates::new();
    let (_, client_side) = shake(&server, &other.authority_only(), "localhost").await;
    assert!(
        matches!(client_side, Err(HandshakeError::Failed(_))),
        "{client_side:?}"
    );
    let by_address = certificates.for_host("127.0.0.1");
    let (_, client_side) = shake(&by_address, &certificates.authority_only(), "127.0.0.1").await;
    client_side.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_ends_with_its_time() {
    let certificates = Certificates::new();
    let config = server_config(&certificates.for_host("localhost")).unwrap();
    let (_here, there) = pair().await;
    let result = accept(there, config, Duration::from_millis(20)).await;
    assert!(matches!(result, Err(HandshakeError::Timeout)), "{result:?}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let certificates = Certificates::new();
    let good = certificates.for_host("localhost");
    let said = |options: &TlsOptions| server_config(options).unwrap_err().to_string();
    let written = |name: &str, text: &str| {
        std::fs::write(certificates.path(name), text).unwrap();
        Some(certificates.path(name))
    };
    let names = |text: String, path: &Option<PathBuf>| {
        let path = path
            .as_deref()
            .unwrap_or(Path::new(""))
            .display()
            .to_string();
        assert!(text.contains(&path), "{text}");
    };
    let missing = Some(certificates.path("missing.pem"));
    names(
        said(&TlsOptions {
            cert_file: missing.clone(),
            ..good.clone()
        }),
        &missing,
    );
    names(
        said(&TlsOptions {
            key_file: missing.clone(),
            ..good.clone()
        }),
        &missing,
    );
    let nonsense = written("nonsense.pem", "no certificate");
    names(
        said(&TlsOptions {
            cert_file: nonsense.clone(),
            ..good.clone()
        }),
        &nonsense,
    );
    names(
        said(&TlsOptions {
            key_file: nonsense.clone(),
            ..good.clone()
        }),
        &nonsense,
    );
    let verifying = TlsOptions {
        peer_certificate: PeerCertificate::Required,
        ca_file: nonsense.clone(),
        ..good.clone()
    };
    names(said(&verifying), &nonsense);
    let other_key = certificates.for_host("other").key_file;
    names(
        said(&TlsOptions {
            key_file: other_key.clone(),
            ..good
        }),
        &other_key,
    );
    assert!(matches!(
        server_config(&certificates.authority_only()),
        Err(TlsError::NoCertificate)
    ));
}

#[test]
fn a_server_is_judged_anew_at_each_dial() {
    let certificates = Certificates::new();
    let options = certificates.for_host("127.0.0.1");
    let (dialling, listening) = (
        client_config(&options).unwrap(),
        server_config(&options).unwrap(),
    );
    for _ in 0..3 {
        let name = "127.0.0.1".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&dialling), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&listening)).unwrap();
        // Twice more than it takes: what would let a session go on comes last.
        for _ in 0..6 {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            let mut rest = flight.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            let mut rest = flight.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
