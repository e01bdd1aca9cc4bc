//! Clients over WebSocket: the upgrade, frames, compression, credentials in cookies, refusals, the end.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use common::{Server, ServerOptions, http_get};
use flate2::{Compress, Compression, FlushCompress};
use nats_server::websocket::{Control, Decoder, Limits};

const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

fn server(block: &str) -> (Server, SocketAddr) {
    let config = format!("websocket {{ listen: \"127.0.0.1:-1\", no_tls: true\n{block} }}\n");
    let server = ServerOptions::default()
        .config(&config)
        .monitoring()
        .start();
    let address = address_of(&server);
    (server, address)
}

fn address_of(server: &Server) -> SocketAddr {
    let line = server.wait_for_log("Listening for websocket clients on ws://");
    let (_, port) = line.rsplit_once(':').expect("it names a port");
    let port: u16 = port.trim().parse().expect("a port");
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    heard: BytesMut,
    controls: Vec<Control>,
    response: String,
}

fn request(headers: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

impl Peer {
    /// Upgrades, with further headers.
    fn connect(address: SocketAddr, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the port is open");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout can be set");
        stream
            .write_all(request(headers).as_bytes())
            .expect("the request is taken");
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer comes");
            response.push(byte[0]);
        }
        let response = String::from_utf8(response).expect("headers are text");
        let compression = response.contains("permessage-deflate");
        Self {
            stream,
            decoder: Decoder::new(Limits {
                compressed_bytes_max: 1 << 20,
                compression,
                masked: false,
            }),
            heard: BytesMut::new(),
            controls: Vec::new(),
            response,
        }
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                let length = u16::try_from(length).expect("short enough here");
                frame.extend_from_slice(&length.to_be_bytes());
            }
        }
        frame.extend_from_slice(&KEY);
        let masked = payload.iter().zip(KEY.iter().cycle());
        frame.extend(masked.map(|(byte, key)| byte ^ key));
        self.stream.write_all(&frame).expect("it is taken");
    }

    fn say(&mut self, text: &str) {
        self.frame(0x82, text.as_bytes());
    }

    /// Reads until `so`; false at the end.
    fn read_until(&mut self, so: impl Fn(&Self) -> bool) -> bool {
        while !so(self) {
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap_or(0);
            if count == 0 {
                return false;
            }
            self.decoder
                .feed(&bytes[..count], &mut self.heard, &mut self.controls)
                .expect("the server keeps to the protocol");
        }
        true
    }

    #[track_caller]
    fn hears(&mut self, text: &str) {
        let found = self.read_until(|peer| String::from_utf8_lossy(&peer.heard).contains(text));
        let heard = String::from_utf8_lossy(&self.heard).into_owned();
        assert!(found, "{text:?} in {heard:?}");
        self.heard.clear();
    }

    #[track_caller]
    fn is_closed_with(&mut self, status: u16) {
        self.read_until(|peer| matches!(peer.controls.last(), Some(Control::Close(_))));
        assert_eq!(self.controls.last(), Some(&Control::Close(status)));
    }
}

#[test]
fn a_client_over_websocket_and_one_without_hear_each_other() {
    let (server, address) = server("headers { X-From: here }");
    let mut peer = Peer::connect(address, "");
    assert!(peer.response.starts_with("HTTP/1.1 101 "));
    assert!(peer.response.contains("X-From: here\r\n"));
    peer.hears("INFO {");
    peer.say("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPING\r\n");
    peer.hears("PONG\r\n");
    let mut plain = common::Wire::connect(server.address());
    plain.send("CONNECT {\"verbose\":false}\r\nSUB b 1\r\nPUB a 5\r\nhello\r\n");
    peer.hears("MSG a 1 5\r\nhello\r\n");
    // An operation in several frames, with a ping between them.
    peer.frame(0x02, b"PUB b 5\r\nwo");
    peer.frame(0x89, b"still there?");
    peer.frame(0x80, b"rld\r\n");
    plain.expect("MSG b 1 5\r\nworld\r\n");
    peer.read_until(|peer| !peer.controls.is_empty());
    assert_eq!(peer.controls, [Control::Pong]);
    peer.frame(0x88, &1000u16.to_be_bytes());
    peer.is_closed_with(1000);
    let varz = http_get(server.monitor_address(), "/varz")
        .expect("it answers")
        .body;
    let port = format!("\"port\": {}", address.port());
    assert!(
        varz.contains(&port) && varz.contains("\"no_tls\": true"),
        "{varz}"
    );
}

#[test]
fn clients_are_told_where_else_they_can_come_by_their_own_way() {
    let member = |name: &str, routes: &str, advertise: &str| {
        ServerOptions::default()
            .config(&format!(
                "server_name: {name}\n\
                 websocket {{ listen: \"127.0.0.1:-1\", no_tls: true, {advertise} }}\n\
                 cluster {{ name: web, listen: \"127.0.0.1:-1\", routes: [{routes}] }}\n"
            ))
            .start()
    };
    let one = member("one", "", "");
    let listens = one.wait_for_log("Listening for route connections on ");
    let (_, port) = listens.rsplit_once(':').expect("it names a port");
    let mut peer = Peer::connect(address_of(&one), "");
    peer.say("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    peer.hears("PONG\r\n");
    let route = format!("\"nats-route://127.0.0.1:{}\"", port.trim());
    let two = member("two", &route, "advertise: \"page.example:9\"");
    peer.hears("\"page.example:9\"");
    let mut plain = common::Wire::connect(one.address());
    let told = plain.expect("\r\n");
    assert!(told.contains(&two.address().to_string()), "{told}");
    assert!(!told.contains("page.example"), "{told}");
}

#[test]
fn compression_is_agreed_on_where_it_is_switched_on() {
    let (_server, address) = server("compression: true");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut peer = Peer::connect(address, offer);
    assert!(
        peer.response
            .contains("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    );
    peer.hears("INFO {");
    peer.say("CONNECT {\"verbose\":false}\r\nSUB a 1\r\n");
    let payload = "x".repeat(10_000);
    let text = format!("PUB a {}\r\n{payload}\r\n", payload.len());
    let mut compressed = Vec::with_capacity(text.len() + 100);
    Compress::new(Compression::fast(), false)
        .compress_vec(text.as_bytes(), &mut compressed, FlushCompress::Sync)
        .expect("it is compressed");
    compressed.truncate(compressed.len() - 4);
    peer.frame(0xc2, &compressed);
    peer.hears(&format!("MSG a 1 10000\r\n{payload}\r\n"));
    let (_server, address) = server("");
    let peer = Peer::connect(address, offer);
    assert!(!peer.response.contains("permessage-deflate"));
}

#[test]
fn credentials_come_from_connect_or_from_cookies() {
    let (_server, address) =
        server("authorization { user: w, password: secret }\nuser_cookie: u\npass_cookie: p");
    let cookies = "Cookie: u=w; p=secret\r\n";
    let mut peer = Peer::connect(address, cookies);
    peer.hears("\"auth_required\":true");
    peer.say("CONNECT {\"verbose\":false}\r\nPING\r\n");
    peer.hears("PONG\r\n");
    let mut peer = Peer::connect(address, "");
    peer.say("CONNECT {\"user\":\"w\",\"pass\":\"secret\",\"verbose\":false}\r\nPING\r\n");
    peer.hears("PONG\r\n");
    let mut peer = Peer::connect(address, "Cookie: u=w; p=wrong\r\n");
    peer.say("CONNECT {\"verbose\":false}\r\nPING\r\n");
    peer.hears("-ERR 'Authorization Violation'");
    peer.is_closed_with(1008);
}

#[test]
fn who_comes_without_credentials_is_the_user_that_the_listener_names() {
    let config = "websocket { listen: \"127.0.0.1:-1\", no_tls: true, no_auth_user: web }\n\
        no_auth_user: plain\n\
        accounts {\n\
          W { users: [ {user: web, password: x} ] }\n\
          P { users: [ {user: plain, password: x} ] }\n\
        }\n";
    let server = ServerOptions::default().config(config).start();
    let mut peer = Peer::connect(address_of(&server), "");
    peer.say("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    peer.hears("\"remote_account\":\"W\"");
    let mut wire = common::Wire::connect(server.address());
    wire.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    wire.expect("\"remote_account\":\"P\"");
}

#[test]
fn a_user_connects_only_in_the_ways_it_may() {
    let config = "websocket { listen: \"127.0.0.1:-1\", no_tls: true }\n\
        authorization { users: [\n\
          { user: web, password: x, allowed_connection_types: [WEBSOCKET] }\n\
          { user: plain, password: x, allowed_connection_types: [STANDARD] }\n\
        ] }\n";
    let server = ServerOptions::default().config(config).start();
    let address = address_of(&server);
    for (user, answer) in [("web", "PONG"), ("plain", "-ERR 'Authorization Violation'")] {
        let mut peer = Peer::connect(address, "");
        peer.say(&format!(
            "CONNECT {{\"user\":\"{user}\",\"pass\":\"x\",\"verbose\":false}}\r\nPING\r\n"
        ));
        peer.hears(answer);
    }
    for (user, answer) in [("plain", "PONG"), ("web", "-ERR 'Authorization Violation'")] {
        let mut wire = common::Wire::connect(server.address());
        wire.send(format!(
            "CONNECT {{\"user\":\"{user}\",\"pass\":\"x\",\"verbose\":false}}\r\nPING\r\n"
        ));
        wire.expect(answer);
    }
}

#[test]
fn what_is_no_upgrade_is_refused_with_its_status() {
    let (_server, address) = server("same_origin: true");
    let port = address.port();
    let ask = |text: String| {
        let mut stream = TcpStream::connect(address).expect("the port is open");
        stream.write_all(text.as_bytes()).expect("it is taken");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let cases = [
        (request("").replace("GET", "POST"), "405"),
        (request("").replace("Version: 13", "Version: 12"), "400"),
        (request("").replace("GET / ", "GET /mqtt "), "404"),
        (request("Origin: http://elsewhere\r\n"), "403"),
        (request("") + "early", "400"),
        ("no HTTP at all\r\n\r\n".to_owned(), "400"),
    ];
    for (text, status) in cases {
        let answer = ask(text);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let own = request(&format!("Origin: http://127.0.0.1:{port}\r\n"));
    let own = own.replace("Host: 127.0.0.1", &format!("Host: 127.0.0.1:{port}"));
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.write_all(own.as_bytes()).expect("it is taken");
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("an answer comes");
    assert_eq!(&start, b"HTTP/1.1 101");
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_with_a_status() {
    let (mut server, address) = server("");
    let mut peer = Peer::connect(address, "");
    peer.hears("INFO {");
    // A frame without a mask.
    peer.stream
        .write_all(&[0x82, 1, b'x'])
        .expect("it is taken");
    peer.is_closed_with(1002);
    let mut peer = Peer::connect(address, "");
    peer.hears("INFO {");
    peer.say("CONNECT {\"verbose\":false}\r\nPUB a 2000000\r\n");
    peer.hears("-ERR 'Maximum Payload Violation'");
    peer.is_closed_with(1009);
    let mut peer = Peer::connect(address, "");
    peer.hears("INFO {");
    peer.say("CONNECT {\"verbose\":false}\r\nPING\r\n");
    peer.hears("PONG");
    assert!(server.stop().success());
    peer.is_closed_with(1001);
}
