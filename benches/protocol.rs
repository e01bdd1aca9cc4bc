//! What parsing costs: a full read buffer of publishes, per message.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nats_server::protocol::{Parsed, Rules, parse};

const READ_BYTES: usize = 64 * 1024;

fn buffer_of(payload_bytes: usize) -> (Vec<u8>, u64) {
    let mut message = format!("PUB orders.eu.new.4711 {payload_bytes}\r\n").into_bytes();
    message.resize(message.len() + payload_bytes, b'x');
    message.extend_from_slice(b"\r\n");
    let messages = READ_BYTES / message.len();
    (message.repeat(messages), messages as u64)
}

fn parse_all(mut input: &[u8], rules: &Rules) -> u64 {
    let mut messages = 0;
    while let Ok(Parsed::Complete { op, consumed }) = parse(input, rules) {
        black_box(op);
        messages += 1;
        input = &input[consumed..];
    }
    messages
}

fn parsing(criterion: &mut Criterion) {
    let rules = Rules {
        control_line_bytes_max: 4096,
        payload_bytes_max: 1024 * 1024,
        headers: true,
    };
    let mut group = criterion.benchmark_group("parse");
    for payload_bytes in [16, 128, 1024] {
        let (buffer, messages) = buffer_of(payload_bytes);
        assert_eq!(parse_all(&buffer, &rules), messages);
        group.throughput(Throughput::Elements(messages));
        group.bench_function(format!("PUB of {payload_bytes} B"), |bencher| {
            bencher.iter(|| parse_all(black_box(&buffer), &rules));
        });
    }
    group.finish();
}

criterion_group!(benches, parsing);
criterion_main!(benches);
