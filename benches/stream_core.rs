//! What the stream core costs apart from storage: publishes decided, applied and acknowledged; deliveries and acks.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use nats_server::jetstream::core::{
    ConsumerAction, ConsumerCreate, Effects, Event, Publish, Step, StreamCore, StreamRequest, World,
};
use nats_server::jetstream::types::{AckPolicy, ConsumerConfig, StreamConfig};
use storage::store::{Limits, MemStore};

const NOW: i64 = 1_700_000_000_000_000_000;
/// Messages a shard finds in its inbox at once.
const BATCH: usize = 512;

struct Everybody;

impl World for Everybody {
    fn interested(&self, _subject: &[u8]) -> bool {
        true
    }

    fn is_heard(&self, _subject: &[u8], _group: &[u8]) -> bool {
        true
    }

    fn random(&self) -> u64 {
        4
    }
}

fn stream() -> (StreamCore, Effects) {
    let config = StreamConfig {
        name: "S".to_owned(),
        subjects: vec!["s.>".to_owned()],
        max_msgs: 100_000,
        duplicate_window: 120_000_000_000,
        ..StreamConfig::default()
    };
    let store = Box::new(MemStore::new(Limits::default()));
    let mut core = StreamCore::create(config, "", NOW, store).expect("creates");
    let mut effects = Effects::default();
    core.lead(1, &mut step(&mut effects));
    (core, effects)
}

fn step(effects: &mut Effects) -> Step<'_> {
    Step {
        now_ns: NOW,
        world: &Everybody,
        effects,
    }
}

/// Hands a batch in and applies it, as a shard over an instant log does.
fn round(core: &mut StreamCore, effects: &mut Effects, events: Vec<Event>) {
    for event in events {
        core.handle(event, &mut step(effects));
    }
    loop {
        let more = core.run(&mut step(effects));
        let entries = core.take_entries(NOW);
        let submitted = !entries.is_empty();
        for (index, entry) in entries {
            black_box(entry);
            core.committed(index, &mut step(effects)).expect("applies");
        }
        if !more && !submitted {
            return;
        }
    }
}

fn publishes(headers: &'static [u8]) -> Vec<Event> {
    let publish = |number: usize| {
        Event::Publish(Publish {
            subject: Bytes::from(format!("s.orders.{:08}", number % 16)),
            reply: Bytes::from_static(b"_INBOX.abcdefghijklmnop.0001"),
            headers: Bytes::from_static(headers),
            payload: Bytes::from_static(&[7; 128]),
        })
    };
    (0..BATCH).map(publish).collect()
}

fn publishing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream_core");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, headers) in [
        ("publish", &b""[..]),
        (
            "publish_with_headers",
            b"NATS/1.0\r\nTrace: 1\r\nNats-Expected-Stream: S\r\n\r\n",
        ),
    ] {
        let (mut core, mut effects) = stream();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || publishes(headers),
                |events| {
                    round(&mut core, &mut effects, events);
                    effects.outgoing.clear();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn delivering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream_core");
    group.throughput(Throughput::Elements(BATCH as u64));
    let (mut core, mut effects) = stream();
    let config = ConsumerConfig {
        name: "c".to_owned(),
        durable_name: "c".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30_000_000_000,
        max_ack_pending: -1,
        max_waiting: 512,
        ..ConsumerConfig::default()
    };
    let create = StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
        name: "c".to_owned(),
        config,
        action: ConsumerAction::Create,
        check_update: |_, _| Ok(()),
        consumers_max: -1,
    }));
    let create = Event::Request {
        token: 1,
        request: create,
    };
    round(&mut core, &mut effects, vec![create]);
    group.bench_function("publish_pull_ack", |bencher| {
        bencher.iter_batched(
            || publishes(b""),
            |mut events| {
                events.push(Event::Pull {
                    consumer: "c".to_owned(),
                    reply: Bytes::from_static(b"inbox"),
                    body: Bytes::from_static(b"512"),
                });
                round(&mut core, &mut effects, events);
                let acks: Vec<Event> = effects
                    .outgoing
                    .drain(..)
                    .filter(|outgoing| outgoing.reply.starts_with(b"$JS.ACK"))
                    .map(|outgoing| Event::Ack {
                        subject: outgoing.reply,
                        reply: Bytes::new(),
                        body: Bytes::new(),
                    })
                    .collect();
                assert_eq!(acks.len(), BATCH);
                round(&mut core, &mut effects, acks);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, publishing, delivering);
criterion_main!(benches);
