//! What a peer shows of itself, for fuzzers.

use super::certificate::ShownCertificate;
use crate::fuzz::Target;

pub(crate) const TARGETS: &[Target] = &[Target {
    name: "peer_certificate",
    run: |input| {
        let shown = ShownCertificate::of(input);
        assert_eq!(shown, ShownCertificate::of(input));
    },
    seeds: outlines,
}];

/// One element of DER that is shorter than 128 bytes.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(0x7f);
    [&[tag, length], content].concat()
}

/// The outline of a certificate: of the third version with a name, and of the first without.
fn outlines() -> Vec<Vec<u8>> {
    let common_name = element(0x06, &[0x55, 4, 3]);
    let value = element(0x0c, b"a, b");
    let attribute = element(0x30, &[common_name, value].concat());
    let name = element(0x30, &element(0x31, &attribute));
    let empty = element(0x30, &[]);
    let version = element(0xa0, &element(0x02, &[2]));
    let serial = element(0x02, &[1]);
    let rest = |subject: &[u8]| {
        let parts = [&serial, &empty, &empty, &empty]
            .map(Vec::as_slice)
            .concat();
        [&parts, subject, &empty].concat()
    };
    let third = [version.clone(), rest(&name)].concat();
    [third, rest(&empty)]
        .map(|outline| element(0x30, &element(0x30, &outline)))
        .into()
}
