//! Peers that mean harm or are broken: what they cost is bounded in memory and in time, and others are served meanwhile.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Server, ServerOptions, Wire, eventually, http_get, open_descriptors, resident_bytes};
use rcgen::generate_simple_self_signed;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// What a server may take on top for any of these peers; what they ask for is many times as much.
const GROWTH_MAX: u64 = 64 * MIB;
/// Other clients wait no longer than this, also on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
const GREETED: &str = "INFO ";

fn start(config: &str) -> Server {
    ServerOptions::default().config(config).monitoring().start()
}

/// Looks at a server while something is done to it.
struct Watch<'a> {
    server: &'a Server,
    before: u64,
    other: Wire,
}

impl<'a> Watch<'a> {
    fn new(server: &'a Server, connect: &str) -> Self {
        let other = Wire::ready(server.address(), connect);
        Self {
            server,
            before: resident_bytes(server),
            other,
        }
    }

    #[track_caller]
    fn check(&mut self) {
        let asked = Instant::now();
        self.other
            .send("SUB mine 1\r\nPUB mine 2\r\nok\r\nUNSUB 1\r\n");
        let heard = self.other.round_trip();
        assert!(heard.contains("MSG mine 1 2\r\nok\r\n"), "{heard}");
        let waited = asked.elapsed();
        assert!(waited < SERVED_WITHIN, "another client waited {waited:?}");
        let grown = resident_bytes(self.server).saturating_sub(self.before);
        assert!(grown < GROWTH_MAX, "grown by {} MiB", grown / MIB);
    }
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Waits until the server has closed the connection; what it said before.
#[track_caller]
fn closed(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        // What was still on its way to the server when it closed makes it a reset.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn closed_for(server: &Server) -> Vec<String> {
    let answer = http_get(server.monitor_address(), "/connz?state=closed&limit=10000").unwrap();
    let value: Value = serde_json::from_str(&answer.body).unwrap();
    let connections = value["connections"].as_array().unwrap();
    let reasons = connections
        .iter()
        .map(|one| one["reason"].as_str().unwrap());
    reasons.map(str::to_owned).collect()
}

#[test]
fn who_dribbles_its_introduction_is_closed_in_time() {
    let server = start("authorization { user: u, password: p, timeout: 2 }");
    let mut watch = Watch::new(&server, r#"{"user":"u","pass":"p","verbose":false}"#);
    let mut slow: Vec<TcpStream> = (0..200).map(|_| dial(server.address())).collect();
    let introduction = b"CONNECT {\"user\":\"u\",\"pass\":\"p\"}\r\n";
    let started = Instant::now();
    // One byte a round: the line would be whole long after the time is over.
    for byte in introduction.iter().take(12) {
        for stream in &mut slow {
            let _ = stream.write_all(&[*byte]);
        }
        watch.check();
        std::thread::sleep(Duration::from_millis(100));
    }
    for stream in &mut slow {
        assert!(closed(stream).contains("Authentication Timeout"));
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    watch.check();
    assert!(closed_for(&server).contains(&"Authentication Timeout".to_owned()));
}

#[test]
fn lines_without_an_end_and_lengths_of_gigabytes_are_refused_when_they_are_read() {
    let server = start("");
    let mut watch = Watch::new(&server, r#"{"verbose":false,"headers":true}"#);
    let begin = "CONNECT {\"headers\":true,\"verbose\":false}\r\n";
    for line in [
        "PUB a 4294967295\r\n",
        "PUB a 99999999999999999999\r\n",
        "HPUB a 4294967295 4294967295\r\n",
        "HPUB a 12 4294967295\r\n",
        "HPUB a 4294967295 12\r\n",
        "PUB a -4294967295\r\n",
    ] {
        let mut stream = dial(server.address());
        stream.write_all(begin.as_bytes()).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        assert!(closed(&mut stream).starts_with(GREETED), "{line}");
    }
    for verb in ["PUB ", "SUB ", "CONNECT ", "-ERR ", "UNSUB "] {
        let mut stream = dial(server.address());
        let endless = vec![b'a'; 64 * 1024];
        stream.write_all(begin.as_bytes()).unwrap();
        let _ = stream.write_all(verb.as_bytes());
        // The end comes long before so much was taken.
        let taken = (0..4096).take_while(|_| stream.write_all(&endless).is_ok());
        assert!(taken.count() < 4096, "{verb}");
        watch.check();
    }
    // An end of a subscription after more messages than there will ever be is harmless.
    let mut patient = Wire::ready(server.address(), "{}");
    patient.send("SUB a 1\r\nUNSUB 1 18446744073709551615\r\nUNSUB 1 4294967296\r\n");
    patient.round_trip();
    watch.check();
}

#[test]
fn a_flood_of_subscriptions_ends_at_the_limit() {
    let server = start("max_subscriptions: 5000");
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    let mut flood = Wire::ready(server.address(), r#"{"verbose":false}"#);
    for batch in 0..30 {
        let lines: String = (0..5000)
            .map(|at| format!("SUB flood.{batch}.{at}.{} {batch}{at}\r\n", "x".repeat(64)))
            .collect();
        flood.send(lines);
        flood.round_trip();
        if batch % 10 == 0 {
            watch.check();
        }
    }
    watch.check();
    drop(flood);
    // And nothing is left of them.
    eventually("the subscriptions are gone", || {
        let answer = http_get(server.monitor_address(), "/subsz").unwrap();
        let value: Value = serde_json::from_str(&answer.body).unwrap();
        (value["num_subscriptions"].as_u64()? < 1000).then_some(())
    });
}

#[test]
fn who_never_reads_is_closed_at_its_limit_and_holds_up_nobody_for_long() {
    let server = start("max_pending: 4MB, write_deadline: '2s', max_payload: 1MB");
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    let mut deaf: Vec<TcpStream> = (0..4).map(|_| dial(server.address())).collect();
    for stream in &mut deaf {
        stream
            .write_all(b"CONNECT {\"verbose\":false}\r\nSUB big 1\r\nPING\r\n")
            .unwrap();
    }
    let mut publisher = Wire::ready(server.address(), r#"{"verbose":false}"#);
    let message = format!("PUB big 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    for round in 0..60 {
        publisher.send(&message);
        publisher.round_trip();
        if round % 10 == 0 {
            watch.check();
        }
    }
    eventually("all that never read are closed", || {
        let reasons = closed_for(&server);
        let slow = reasons
            .iter()
            .filter(|why| why.starts_with("Slow Consumer"));
        (slow.count() == deaf.len()).then_some(())
    });
    watch.check();
}

#[test]
fn a_handshake_that_is_begun_and_not_ended_is_given_up() {
    let folder = TempDir::new().unwrap();
    let made = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(
        folder.path().join("key.pem"),
        made.signing_key.serialize_pem(),
    )
    .unwrap();
    let server = start(&format!(
        "tls {{ cert_file: '{0}/cert.pem', key_file: '{0}/key.pem', timeout: 2 }}\nallow_non_tls: true",
        folder.path().display()
    ));
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    // The head of a record with a ClientHello that announces the most a record may hold.
    let begun = [
        0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0x00, 0x3f, 0xfc, 0x03, 0x03,
    ];
    let mut half: Vec<TcpStream> = (0..200).map(|_| dial(server.address())).collect();
    for stream in &mut half {
        stream.write_all(&begun).unwrap();
    }
    watch.check();
    let started = Instant::now();
    for stream in &mut half {
        closed(stream);
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    watch.check();
    assert!(closed_for(&server).contains(&"TLS Handshake Failure".to_owned()));
    // What is no handshake at all ends at once.
    let mut stream = dial(server.address());
    stream
        .write_all(&[&[0x16, 0x03, 0x01, 0xff, 0xff][..], &[0xff; 65_000]].concat())
        .unwrap();
    closed(&mut stream);
    watch.check();
}

#[test]
fn a_websocket_that_is_opened_and_stalls_is_given_up_and_frames_are_bounded() {
    let server = start(
        "websocket { listen: '127.0.0.1:-1', no_tls: true, handshake_timeout: '2s', compression: true }\nmax_payload: 64KB",
    );
    let line = server.wait_for_log("Listening for websocket clients on ws://");
    let port: u16 = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    let mut stalled: Vec<TcpStream> = (0..200).map(|_| dial(address)).collect();
    for stream in &mut stalled {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: web")
            .unwrap();
    }
    watch.check();
    for stream in &mut stalled {
        closed(stream);
    }
    // A request without an end.
    let mut endless = dial(address);
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let header = format!("X: {}\r\n", "x".repeat(60_000));
    let taken = (0..1000).take_while(|_| endless.write_all(header.as_bytes()).is_ok());
    assert!(taken.count() < 1000);
    watch.check();
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n";
    // Frames of 2^63 bytes and of 4 GiB, and one that unpacks to far more than it may.
    let head = |first: u8, length: u64| {
        let mut frame = vec![first, 0xff];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame
    };
    let bomb = {
        let mut deflate =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        deflate.write_all(&vec![b'a'; 256 << 20]).unwrap();
        let packed = deflate.finish().unwrap();
        let mut frame = head(0xc2, packed.len() as u64);
        frame.extend_from_slice(&packed);
        frame
    };
    for frame in [
        head(0x82, 1 << 63),
        head(0x82, 1 << 32),
        head(0xc2, 1 << 32),
        bomb,
    ] {
        let mut stream = dial(address);
        stream.write_all(upgrade.as_bytes()).unwrap();
        let _ = stream.write_all(&frame);
        let filler = vec![b'a'; 1 << 20];
        let taken = (0..256).take_while(|_| stream.write_all(&filler).is_ok());
        assert!(taken.count() < 256, "{:x?}", &frame[..14]);
        watch.check();
    }
}

#[test]
fn a_proxy_that_says_half_or_too_much_is_given_up() {
    let server = start("proxy_protocol: true");
    let mut halves: Vec<(TcpStream, &[u8])> = [
        &b"PROXY TCP4 127.0.0.1"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"",
    ]
    .into_iter()
    .map(|said| (dial(server.address()), said))
    .collect();
    let before = resident_bytes(&server);
    for (stream, said) in &mut halves {
        stream.write_all(said).unwrap();
    }
    let mut endless = dial(server.address());
    let _ = endless.write_all(b"PROXY ");
    let filler = vec![b'a'; 64 * 1024];
    let taken = (0..1000).take_while(|_| endless.write_all(&filler).is_ok());
    assert!(taken.count() < 1000);
    let started = Instant::now();
    for (stream, _) in &mut halves {
        closed(stream);
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    assert!(resident_bytes(&server).saturating_sub(before) < GROWTH_MAX);
    let mut good = dial(server.address());
    good.write_all(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nCONNECT {}\r\nPING\r\n")
        .unwrap();
    let mut said = String::new();
    let mut byte = [0];
    while !said.ends_with("PONG\r\n") && good.read(&mut byte).unwrap() == 1 {
        said.push(char::from(byte[0]));
    }
    assert!(
        said.contains(GREETED) && said.ends_with("PONG\r\n"),
        "{said}"
    );
}

#[test]
fn the_port_for_routes_believes_no_length() {
    let server = start("cluster { name: c, listen: '127.0.0.1:-1', authorization { timeout: 2 } }");
    let line = server.wait_for_log("Listening for route connections on");
    let port: u16 = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    for begin in [
        "INFO {",
        "CONNECT {",
        "LINK {",
        "RMSG $G a 4294967295\r\n",
        "\x16\x03\x01",
    ] {
        let mut stream = dial(address);
        let _ = stream.write_all(begin.as_bytes());
        let filler = vec![b'a'; 1 << 20];
        let taken = (0..256).take_while(|_| stream.write_all(&filler).is_ok());
        assert!(taken.count() < 256, "{begin}");
        watch.check();
    }
    // Who has introduced itself as a server has a limit as well.
    let mut stream = dial(address);
    let info = r#"{"server_id":"X","server_name":"x","proto":2,"cluster":"c","headers":true,"max_payload":1048576,"host":"127.0.0.1","port":1,"version":"2.14.5"}"#;
    let connect = r#"{"verbose":false,"pedantic":false,"name":"X","cluster":"c","headers":true}"#;
    stream
        .write_all(
            format!("CONNECT {connect}\r\nINFO {info}\r\nRMSG $G a 4294967295\r\n").as_bytes(),
        )
        .unwrap();
    closed(&mut stream);
    let stalled = dial(address);
    let started = Instant::now();
    closed(&mut { stalled });
    assert!(started.elapsed() < Duration::from_secs(15));
    watch.check();
}

#[test]
fn a_flood_of_requests_to_the_api_is_dropped_and_told_of() {
    let config = "jetstream { store_dir: '@DIR@/store', request_queue_limit: 50 }";
    let server = start(config);
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    let mut listener = Wire::ready(server.address(), r#"{"verbose":false}"#);
    listener.send("SUB $JS.EVENT.ADVISORY.API.LIMIT_REACHED 1\r\n");
    listener.round_trip();
    let mut flood = Wire::ready(server.address(), r#"{"verbose":false}"#);
    flood.send("SUB _INBOX.> 1\r\n");
    flood.send("PUB $JS.API.STREAM.NAMES _INBOX.1 0\r\n\r\n".repeat(5000));
    let told = listener.expect("api_limit_reached") + &listener.expect("\r\n");
    let start = told.find('{').unwrap();
    let event: Value = serde_json::from_str(told[start..].trim_end()).unwrap();
    assert!(event["dropped"].as_u64().unwrap() >= 50, "{event}");
    watch.check();
    // Whoever asks later is answered.
    flood.round_trip();
    eventually("the API answers again", || {
        flood.take();
        flood.send("PUB $JS.API.STREAM.NAMES _INBOX.later 0\r\n\r\n");
        flood
            .read_until(Duration::from_millis(500), |bytes, _| {
                String::from_utf8_lossy(bytes).contains("_INBOX.later")
            })
            .then_some(())
    });
}

#[test]
fn when_no_descriptor_is_left_the_server_waits_and_admits_again() {
    let server = start("");
    let mut watch = Watch::new(&server, r#"{"verbose":false}"#);
    let pid = i32::try_from(server.process_id()).unwrap();
    let limit = |left: usize| {
        let most = (open_descriptors(&server) + left) as u64;
        let limit = Rlimit {
            current: Some(most),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Pid::from_raw(pid), Resource::Nofile, limit).unwrap()
    };
    let before = limit(3);
    let mut crowd: Vec<TcpStream> = (0..20).map(|_| dial(server.address())).collect();
    // Each pause is twice as long as the one before.
    for pause in ["sleeping 10ms", "sleeping 20ms", "sleeping 40ms"] {
        let line = server.wait_for_log(pause);
        assert!(line.contains("Temporary client accept error"), "{line}");
    }
    watch.check();
    crowd.truncate(2);
    prlimit(Pid::from_raw(pid), Resource::Nofile, before).unwrap();
    let mut late = Wire::ready(server.address(), r#"{"verbose":false}"#);
    late.round_trip();
    watch.check();
}
