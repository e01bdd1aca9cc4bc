//! What the servers of a cluster send to each other.

use super::Target;
use crate::protocol::route::info::{RouteConnect, RouteInfo};
use crate::protocol::route::parser::{ParsedRoute, RouteOp, RouteRules, parse};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "route_protocol",
        run: operations,
        seeds: conversations,
    },
    Target {
        name: "route_greeting",
        run: greeting,
        seeds: greetings,
    },
];

fn conversations() -> Vec<Vec<u8>> {
    [
        &b"INFO {\"server_id\":\"N\"}\r\nCONNECT {\"name\":\"N\"}\r\nPING\r\nPONG\r\n-ERR 'x'\r\n"
            [..],
        b"RS+ ACME orders.*\r\nRS+ ACME orders.> workers 2\r\nRS- ACME orders.> workers\r\n",
        b"RMSG ACME a 5\r\nhello\r\nRMSG ACME a r 0\r\n\r\nRMSG ACME a + r q1 q2 1\r\nx\r\n",
        b"HMSG ACME a | q1 12 14\r\nNATS/1.0\r\n\r\nhi\r\nLMSG O ACME a 0 0\r\n\r\nLINK {}\r\n",
        b"LS+ O ACME a\r\nA+ ACME\r\nA- ACME\r\n+OK\r\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Whole, and one by one: the answers must be the same.
fn operations(input: &[u8]) {
    for names_account in [true, false] {
        let rules = RouteRules {
            line_bytes_max: 4096,
            payload_bytes_max: 1 << 20,
            names_account,
        };
        let mut rest = input;
        while let Ok(ParsedRoute::Complete { op, consumed }) = parse(rest, &rules) {
            assert!(0 < consumed && consumed <= rest.len());
            let alone = rest.get(..consumed).unwrap_or_default();
            assert_eq!(
                parse(alone, &rules),
                Ok(ParsedRoute::Complete { op, consumed })
            );
            if let RouteOp::Message(message) = op {
                assert!(message.queues.iter().all(|queue| !queue.is_empty()));
            }
            rest = rest.get(consumed..).unwrap_or_default();
        }
    }
}

fn greetings() -> Vec<Vec<u8>> {
    [
        &br#"{"server_id":"N","server_name":"a","port":1,"cluster":"c","connect_urls":["x:1"],"route_pool_size":3,"compression":"accept","export":{"allow":["a.>"]}}"#[..],
        br#"{"echo":true,"user":"u","pass":"p","name":"N","cluster":"c","cluster_dynamic":true,"lnoc":true}"#,
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn greeting(input: &[u8]) {
    if let Ok(info) = serde_json::from_slice::<RouteInfo>(input) {
        let text = serde_json::to_vec(&info).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<RouteInfo>(&text).ok(), Some(info));
    }
    let _ = serde_json::from_slice::<RouteConnect>(input);
}
