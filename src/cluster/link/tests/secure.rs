//! Links of an encrypted cluster.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::config::options::{PeerCertificate, TlsOptions};
use crate::tls::{KeyHash, MutualTls, key_hash};

/// A folder with an authority and a certificate for loopback.
fn certificates() -> (tempfile::TempDir, TlsOptions) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let host = "127.0.0.1".to_owned();
    let certificate = CertificateParams::new([host]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let options = TlsOptions {
        ca_file: path("ca.pem", authority.pem()),
        cert_file: path("own.pem", certificate.pem()),
        key_file: path("own.key", key.serialize_pem()),
        peer_certificate: PeerCertificate::Required,
        ..TlsOptions::default()
    };
    (folder, options)
}

/// What the listener of an encrypted cluster does with a link.
async fn listen_encrypted(listener: TcpListener, links: Arc<Links>, options: TlsOptions) {
    let tls = Arc::new(MutualTls::new(&options).unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (links, tls) = (Arc::clone(&links), Arc::clone(&tls));
        tokio::spawn(async move {
            let socket = tls.accept(stream, PATIENCE).await.unwrap();
            let (reader, writer) = socket.into_split();
            let info = b"INFO {\"tls_required\":true}\r\n";
            let written = writer.try_write(&[std::io::IoSlice::new(info)]).unwrap();
            assert_eq!(written, info.len());
            let mut socket = LinkSocket::tls_halves(reader, writer);
            let mut buffer = BytesMut::new();
            let line = socket.line(&mut buffer, 4096).await.unwrap();
            let (_stays, admission) = Admission::until_told();
            let _ = links.accept(socket, &line, buffer, admission).await;
        });
    }
}

#[tokio::test]
async fn an_encrypted_cluster_is_linked_over_tls() {
    let (_folder, options) = certificates();
    let a = Node::start(quick("a", 1)).await;
    let mut encrypted = meeting();
    encrypted.dialling.tls = Some(Arc::new(MutualTls::new(&options).unwrap()));
    a.links.meet(encrypted);
    let plain = Node::start(quick("c", 1)).await;
    let b = Node::start(quick("b", 1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listening = tokio::spawn(listen_encrypted(listener, Arc::clone(&b.links), options));
    plain.links.know(&[b.known_at(port)]);
    a.links.know(&[b.known_at(port)]);
    a.linked_with("b").await;
    let long = Bytes::from(vec![9; 3 << 20]);
    for _ in 0..3 {
        a.send("b", Channel::Bulk, long.clone());
        b.send("a", Channel::Bulk, long.clone());
    }
    until("all arrived", || {
        let arrived = |node: &Node| node.heard.frames.lock().len() == 3;
        arrived(&a) && arrived(&b)
    })
    .await;
    assert!(
        b.heard
            .from("a", Channel::Bulk)
            .iter()
            .all(|frame| *frame == long)
    );
    assert!(
        !plain.links.is_connected("b", Channel::Bulk),
        "it does not encrypt"
    );
    listening.abort();
}

#[tokio::test]
async fn a_link_that_was_dialled_ends_when_the_key_of_the_other_side_may_not_be_taken_any_more() {
    let (_folder, options) = certificates();
    let tls = Arc::new(MutualTls::new(&options).unwrap());
    let pinning = |pinned: &[KeyHash]| Meeting {
        dialling: Dialling {
            credentials: None,
            tls: Some(Arc::clone(&tls)),
            pinned_keys: Arc::new(pinned.iter().copied().collect()),
        },
        ..meeting()
    };
    let a = Node::start(quick("a", 1)).await;
    a.links.meet(pinning(&[]));
    let b = Node::start(quick("b", 1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listening = tokio::spawn(listen_encrypted(
        listener,
        Arc::clone(&b.links),
        options.clone(),
    ));
    a.links.know(&[b.known_at(port)]);
    a.linked_with("b").await;
    let certificate = std::fs::read(options.cert_file.as_ref().unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(&certificate).unwrap();
    let key = key_hash(&certificate).unwrap();
    let losses = || a.heard.losses.load(Ordering::Relaxed);
    a.links.meet(pinning(&[key]));
    assert!(a.links.is_connected("b", Channel::Control));
    assert_eq!(losses(), 0);
    a.links.meet(pinning(&[[7; 32]]));
    until("both links have ended", || losses() >= 2).await;
    listening.abort();
}
