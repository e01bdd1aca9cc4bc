//! Clients that come through a proxy are known by where they are, not by where the proxy is.

mod common;

use common::{ServerOptions, Wire, http_get};
use serde_json::Value;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n";

#[test]
fn the_header_says_where_a_client_is() {
    let server = ServerOptions::default()
        .config("proxy_protocol: true")
        .monitoring()
        .start();
    let binary = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 9, 192, 0, 2, 2, 4, 210, 16, 126],
    ]
    .concat();
    for (header, ip) in [
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 4222\r\n".to_vec(),
            "192.0.2.1",
        ),
        (binary, "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (Vec::new(), "127.0.0.1"),
    ] {
        let mut wire = Wire::connect(server.address());
        let info = wire.expect("\r\n");
        assert!(!info.contains("client_ip"), "{info}");
        // In pieces, as a network may cut it.
        for byte in &header {
            wire.send([*byte]);
        }
        wire.send(CONNECT);
        wire.expect("PONG\r\n");
        let info: Value = serde_json::from_str(&wire.expect("\r\n")["INFO ".len()..]).unwrap();
        assert_eq!(info["client_ip"], ip);
        let connz = http_get(server.monitor_address(), "/connz").unwrap().body;
        let connz: Value = serde_json::from_str(&connz).unwrap();
        let ips = connz["connections"].as_array().unwrap().iter();
        assert!(ips.clone().any(|client| client["ip"] == ip), "{connz}");
    }
}

#[test]
fn a_header_that_is_wrong_ends_the_connection() {
    let server = ServerOptions::default()
        .config("proxy_protocol: true")
        .start();
    for header in [
        b"PROXY TCP4 ::1 ::1 1 2\r\n".as_slice(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ] {
        let mut wire = Wire::connect(server.address());
        wire.expect("\r\n");
        wire.send(header);
        assert_eq!(wire.expect_closed(), "");
    }
    server.wait_for_log("Error reading PROXY protocol header");
}
