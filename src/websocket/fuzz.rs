//! What a peer sends before and after the upgrade, for fuzzers.

use bytes::BytesMut;

use super::encoder::{Encoder, Shape};
use super::{Decoder, Limits, Terms, Upgrade};
use crate::fuzz::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "websocket_frames",
        run: frames,
        seeds: frame_seeds,
    },
    Target {
        name: "websocket_upgrade",
        run: upgrade,
        seeds: upgrade_seeds,
    },
];

const LIMITS: Limits = Limits {
    compressed_bytes_max: 64 * 1024,
    compression: true,
    masked: false,
};

/// However the input is cut, the same comes of it.
fn frames(input: &[u8]) {
    let decode = |at_a_time: usize| {
        let mut decoder = Decoder::new(LIMITS);
        let (mut out, mut controls) = (BytesMut::new(), Vec::new());
        for part in input.chunks(at_a_time) {
            if let Err(violation) = decoder.feed(part, &mut out, &mut controls) {
                return (Some(violation), controls, None);
            }
        }
        (None, controls, Some(out))
    };
    let whole = decode(input.len().max(1));
    for at_a_time in [1, 3] {
        assert_eq!(decode(at_a_time), whole);
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for flags in 0..4 {
        let mut encoder = Encoder::new(Shape {
            compression: flags & 1 != 0,
            browser: flags & 2 != 0,
            whole_when_compressed: false,
        });
        let mut out = BytesMut::new();
        encoder.encode(b"CONNECT {}\r\nPING\r\n", &mut out);
        super::control_frame(&mut out, true, b"there?");
        encoder.encode(&b"PUB subject 5\r\nhello\r\n".repeat(20), &mut out);
        super::close_frame(&mut out, 1000, "Client Closed");
        seeds.push(out.to_vec());
    }
    seeds
}

fn upgrade(input: &[u8]) {
    let _ = Upgrade::parse(input, &Terms::default());
}

fn upgrade_seeds() -> Vec<Vec<u8>> {
    let request = "GET / HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://localhost\r\n\
        Cookie: jwt=a; user=b\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    vec![request.into()]
}
