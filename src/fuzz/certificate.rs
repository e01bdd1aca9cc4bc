//! Certificates, as far as they say who a peer is.

use super::Target;
use crate::tls::identity::read_anything;
use crate::tls::ocsp;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "certificate",
        run: read_anything,
        seeds: certificates,
    },
    Target {
        name: "ocsp_answer",
        run: |input| {
            ocsp::answer::read_anything(input);
            ocsp::fetch::read_anything(input);
        },
        seeds: answers,
    },
];

/// What a responder says when it says nothing, and how it comes over HTTP.
fn answers() -> Vec<Vec<u8>> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    let refused = vec![0x30, 0x03, 0x0a, 0x01, 0x06];
    vec![refused, head.to_vec()]
}

/// The frame of a certificate with a subject and other names, as short as it can be.
fn certificates() -> Vec<Vec<u8>> {
    let value = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or(0x7f);
        [&[tag, 0x81, length], content].concat()
    };
    let attribute = [value(0x06, &[0x55, 4, 3]), value(0x0c, b"n")].concat();
    let subject = value(0x30, &value(0x31, &value(0x30, &attribute)));
    let names = value(0x30, &[value(0x81, b"a@b"), value(0x82, b"h")].concat());
    let extension = [value(0x06, &[0x55, 0x1d, 0x11]), value(0x04, &names)].concat();
    let extensions = value(0xa3, &value(0x30, &value(0x30, &extension)));
    let empty = value(0x30, b"");
    let fields = [
        value(0x02, b"1"),
        empty.clone(),
        empty.clone(),
        empty.clone(),
        subject,
        empty,
        extensions,
    ];
    vec![value(0x30, &value(0x30, &fields.concat()))]
}
