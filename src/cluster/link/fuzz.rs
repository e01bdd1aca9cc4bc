//! What other servers send over a link.

use bytes::{Bytes, BytesMut};
use storage::fuzz::Target;

use super::frame::{Frame, Status};
use super::hello::Hello;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "link_frames",
        run: frames,
        seeds: conversations,
    },
    Target {
        name: "link_hello",
        run: hello,
        seeds: hellos,
    },
];

const FRAME_BYTES_MAX: usize = 1 << 20;

fn conversations() -> Vec<Vec<u8>> {
    let body = Bytes::from_static(b"body");
    let frames = [
        Frame::Raft(body.clone()),
        Frame::Request {
            id: 1,
            kind: 2,
            deadline_ms: 1000,
            window_bytes: 65536,
            body: body.clone(),
        },
        Frame::Answer {
            id: 1,
            status: Status::Refused,
            body: body.clone(),
        },
        Frame::Slice { id: 1, body },
        Frame::Credit { id: 1, bytes: 4 },
        Frame::Cancel { id: 1 },
        Frame::Ping(1),
        Frame::Pong(1),
    ];
    let each: Vec<Vec<u8>> = frames.into_iter().map(written).collect();
    let mut seeds = vec![each.concat()];
    seeds.extend(each);
    seeds
}

fn written(frame: Frame) -> Vec<u8> {
    let encoded = frame.encode();
    [encoded.head(), &encoded.body].concat()
}

/// What is read as a frame is written as the same bytes.
fn frames(input: &[u8]) {
    let mut buffer = BytesMut::from(input);
    let mut rest = input;
    while let Ok(Some(frame)) = Frame::decode(&mut buffer, FRAME_BYTES_MAX) {
        let bytes = written(frame);
        assert!(rest.starts_with(&bytes));
        rest = rest.get(bytes.len()..).unwrap_or_default();
    }
}

fn hellos() -> Vec<Vec<u8>> {
    [
        &br#"LINK {"link":1,"server_name":"a","server_id":"N","cluster":"c","channel":"bulk","version":"1","user":"u","pass":"p"}"#[..],
        br#"LINK {"link":1,"server_name":"a","server_id":"N","cluster":"c","channel":"control"}"#,
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn hello(input: &[u8]) {
    if let Ok(hello) = Hello::parse(input) {
        let line = hello.line();
        let again = Hello::parse(line.strip_suffix(b"\r\n").unwrap_or(&line));
        assert_eq!(again, Ok(hello));
    }
}
