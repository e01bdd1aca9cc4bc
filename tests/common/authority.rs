//! An authority that signs certificates and says whether they have been revoked. The openssl program does the work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

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
pub struct Authority {
    folder: Arc<TempDir>,
    port: u16,
    /// How often the responder was asked.
    pub asked: Arc<AtomicUsize>,
    /// While this is set, it does not answer.
    pub silent: Arc<AtomicBool>,
}

impl Authority {
    /// One that has signed nothing yet.
    pub fn new() -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, silent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let extensions = format!(
            "[bare]\nsubjectAltName=IP:127.0.0.1\n\
             [plain]\nsubjectAltName=IP:127.0.0.1\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/\n\
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

    /// A file of it: `ca.pem`, and `NAME.pem` and `NAME.key` of what it has signed.
    pub fn path(&self, name: &str) -> PathBuf {
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

    /// Where its responder listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Signs a certificate for the loopback address: `plain`, one that `must` be shown with a proof, or a `bare` one that names no
    /// responder.
    pub fn sign(&self, name: &str, serial: u32, section: &str) {
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

    /// What the authority says of a certificate now, to be shown with it.
    pub fn proof(&self, name: &str) -> Vec<u8> {
        let folder = self.folder.path();
        openssl(
            folder,
            &format!("ocsp -issuer ca.pem -cert {name}.pem -reqout {name}.question"),
        );
        openssl(
            folder,
            &format!(
                "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin {name}.question -respout {name}.proof -nmin 10"
            ),
        );
        std::fs::read(self.path(&format!("{name}.proof"))).unwrap()
    }

    /// What the authority says of its certificates from now on: `V` is good, `R` revoked.
    pub fn say(&self, states: &[(u32, &str)]) {
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
