//! The example in docs/format.md, byte by byte.

use super::*;

/// The bytes of the example in docs/format.md.
fn documented_block() -> Bytes {
    let document = include_str!("../../../../docs/format.md");
    let (_, example) = document.split_once("### An example").unwrap();
    let mut file = Vec::new();
    let lines = example
        .lines()
        .skip_while(|line| !line.starts_with("    #"));
    for line in lines.take_while(|line| line.starts_with("    ")) {
        let Some((at, bytes)) = line.trim().split_once(": ") else {
            continue;
        };
        file.resize(usize::from_str_radix(at, 16).unwrap(), 0);
        file.extend(
            bytes
                .split(' ')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap()),
        );
    }
    file.into()
}

#[test]
fn the_block_in_the_document_is_the_block_we_write_and_read() {
    let first = Owned {
        sequence: 1,
        time_ns: 1_700_000_000_000_000_000,
        subject: b"a.b".to_vec(),
        headers: Vec::new(),
        payload: b"hello".to_vec(),
        expiry: Expiry::ByAge,
    };
    let second = Owned {
        sequence: 2,
        time_ns: first.time_ns + 300,
        subject: b"a.c".to_vec(),
        headers: b"NATS/1.0\r\nA: b\r\n\r\n".to_vec(),
        payload: b"world".to_vec(),
        expiry: Expiry::ByAge,
    };
    let messages = [first, second];
    let identity = BlockIdentity {
        number: 0,
        ..identity(Compression::None, None)
    };
    let file = documented_block();
    agree(&sealed(file.clone()), &messages);
    assert!(
        verify(
            &file,
            None,
            Depth::Records(BlockKeys::default()),
            &mut |_| {}
        )
        .unwrap()
        .is_empty()
    );
    let entropy = SeededEntropy::new(1);
    let written = encode_block(identity, None, &entropy, messages.iter().map(Owned::as_new));
    assert_eq!(written.unwrap(), file);
}
