//! What clients send.

use super::Target;
use crate::protocol::trace::{DESTINATION, DISABLED, TraceRequest};
use crate::protocol::{ConnectRequest, Parsed, Rules, headers, parse, parser};
use crate::subject;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "client_protocol",
        run: operations,
        seeds: conversations,
    },
    Target {
        name: "connect_request",
        run: connect_request,
        seeds: connect_requests,
    },
    Target {
        name: "header_block",
        run: header_block,
        seeds: header_blocks,
    },
    Target {
        name: "trace_request",
        run: trace_request,
        seeds: trace_requests,
    },
    Target {
        name: "proxy_header",
        run: |input| {
            let _ = crate::protocol::proxy::Header::parse(input);
        },
        seeds: proxy_headers,
    },
    Target {
        name: "subject",
        run: subjects,
        seeds: subject_pairs,
    },
];

const RULES: Rules = Rules {
    control_line_bytes_max: 4096,
    payload_bytes_max: 1 << 20,
    headers: true,
};

fn conversations() -> Vec<Vec<u8>> {
    [
        &b"CONNECT {\"verbose\":false,\"headers\":true}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'x'\r\n"[..],
        b"SUB orders.* 1\r\nSUB orders.> workers 2\r\nUNSUB 1 10\r\nUNSUB 2\r\n",
        b"PUB orders.1 5\r\nhello\r\nPUB orders.1 _INBOX.1 0\r\n\r\nping\n",
        b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHPUB a b 22 22\r\nNATS/1.0\r\nA: bcdef\r\n\r\n\r\n",
        b"INFO {}\r\nPub\ta\t1\r\nx\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Whole, and byte by byte: the answers must be the same.
fn operations(input: &[u8]) {
    if let Some(begun) = parser::begun(input) {
        assert!(begun.subject.len() + begun.headers.len() < input.len());
    }
    let mut rest = input;
    while let Ok(Parsed::Complete { op, consumed }) = parse(rest, &RULES) {
        assert!(0 < consumed && consumed <= rest.len());
        let alone = rest.get(..consumed).unwrap_or_default();
        assert_eq!(
            parse(alone, &RULES),
            Ok(Parsed::Complete { op, consumed }),
            "what follows does not matter"
        );
        rest = rest.get(consumed..).unwrap_or_default();
    }
}

fn connect_requests() -> Vec<Vec<u8>> {
    [
        &br#"{"verbose":true,"pedantic":true,"echo":false,"headers":true,"no_responders":true,"protocol":1}"#[..],
        br#"{"user":"a","pass":"b","auth_token":"c","name":"n","lang":"l","version":"1","nkey":"U","sig":"s","jwt":"j"}"#,
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn connect_request(input: &[u8]) {
    if let Ok(request) = ConnectRequest::parse(input) {
        let _ = (request.is_verbose(), request.protocol_level());
        let mut merged = request.clone();
        merged.update(request);
    }
}

fn header_blocks() -> Vec<Vec<u8>> {
    [
        &b"NATS/1.0\r\n\r\n"[..],
        b"NATS/1.0 503 No Responders\r\nNats-Subject: a\r\n\r\n",
        b"NATS/1.0\r\nNats-Msg-Id: 1\r\nNats-Expected-Stream:S\r\nA:\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn header_block(input: &[u8]) {
    let _ = headers::status(input);
    let _ = headers::get(input, "Nats-Msg-Id");
    for (name, value) in headers::iter(input) {
        assert!(name.len() + value.len() <= input.len());
    }
    let changes: [fn(&mut Vec<u8>); 5] = [
        |block| headers::append(block, "A", b"b"),
        |block| headers::set(block, "Nats-Msg-Id", b"2"),
        |block| headers::remove(block, "Nats-Msg-Id"),
        |block| headers::remove_prefixed(block, "Nats-"),
        headers::remove_status,
    ];
    for change in changes {
        change(&mut input.to_vec());
    }
}

fn trace_requests() -> Vec<Vec<u8>> {
    [
        &b"NATS/1.0\r\nNats-Trace-Dest: a.b\r\nNats-Trace-Only: on\r\nNats-Trace-Hop: 1.2\r\n\r\n"[..],
        b"NATS/1.0\r\nTraceParent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nA: 1\r\nA: 2\r\n\r\n",
        b"NATS/1.0\r\ntraceparent: 0-0-0-01\r\nNats-Trace-Dest: trace disabled\r\n\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// What asks once does not ask any more when that is disabled.
fn trace_request(input: &[u8]) {
    if let Some(request) = TraceRequest::find(input) {
        let _ = request.is_only();
        assert!(!request.headers.is_empty());
        let disabled = crate::broker::message_trace::disabled(input);
        // Behind a line that is none, nobody reads on.
        let first = headers::iter(&disabled).find(|(name, _)| *name == DESTINATION.as_bytes());
        if first.is_some_and(|(_, value)| value == DISABLED.as_bytes()) {
            assert_eq!(TraceRequest::find(&disabled), None);
        }
    }
}

fn proxy_headers() -> Vec<Vec<u8>> {
    [
        &b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 4222\r\nPING\r\n"[..],
        b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x04\xd2\x10\x7e",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn subject_pairs() -> Vec<Vec<u8>> {
    [
        &b"orders.eu.1 orders.*.1"[..],
        b"a.b a.>",
        b"> *.*",
        "ü.ß ü.>".as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// A subject, a blank and a pattern: what matches must be contained.
fn subjects(input: &[u8]) {
    let mut halves = input.splitn(2, |byte| *byte == b' ');
    let (Some(literal), Some(pattern)) = (halves.next(), halves.next()) else {
        return;
    };
    let _ = subject::has_wildcard(pattern);
    let _ = subject::subject_matches(literal, pattern);
}
