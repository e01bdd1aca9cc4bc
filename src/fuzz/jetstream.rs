//! What JetStream is asked, and what its streams read back from the log.

use bytes::Bytes;
use storage::store::{Expiry, Limits, MemStore};

use super::Target;
use crate::jetstream::api::route::Operation;
use crate::jetstream::core::entry::{EntryHeader, EntryWriter, MessageOp, Op, Rollup, Scheduler};
use crate::jetstream::core::{
    AckKind, AckSubject, Manifest, PullRequest, ReceivingNeeds, StreamCore,
};
use crate::jetstream::replication;
use crate::jetstream::types::{ConsumerConfig, StreamConfig, Strictness, decode};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "stream_log",
        run: stream_log,
        seeds: stream_logs,
    },
    Target {
        name: "core_snapshot",
        run: core_snapshot,
        seeds: core_snapshots,
    },
    Target {
        name: "replica_manifest",
        run: replica_manifest,
        seeds: replica_manifests,
    },
    Target {
        name: "replica_records",
        run: replica_records,
        seeds: replica_record_batches,
    },
    Target {
        name: "replica_request",
        run: replica_request,
        seeds: replication::stream::request_samples,
    },
    Target {
        name: "stream_config",
        run: stream_config,
        seeds: stream_configs,
    },
    Target {
        name: "consumer_config",
        run: consumer_config,
        seeds: consumer_configs,
    },
    Target {
        name: "consumer_messages",
        run: consumer_messages,
        seeds: consumer_message_bodies,
    },
];

fn config() -> StreamConfig {
    StreamConfig {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        duplicate_window: 120_000_000_000,
        ..StreamConfig::default()
    }
}

fn store() -> Box<MemStore> {
    Box::new(MemStore::new(Limits::default()))
}

fn message<'a>(number: u64, id: &'a [u8]) -> Op<'a> {
    Op::Message(MessageOp {
        subject: b"orders.1",
        headers: b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n",
        payload: b"payload",
        id,
        expiry: match number % 3 {
            0 => Expiry::At(1 << 60),
            _ => Expiry::ByAge,
        },
        rollup: match number % 4 {
            3 => Rollup::Subject,
            _ => Rollup::None,
        },
        schedule_ns: number.is_multiple_of(5).then_some(1 << 61),
        scheduler: match number % 7 {
            1 => Some(Scheduler {
                subject: b"orders.2",
                next_ns: Some(1 << 62),
            }),
            2 => Some(Scheduler {
                subject: b"orders.3",
                next_ns: None,
            }),
            _ => None,
        },
    })
}

/// Entries that change a stream in every way there is, each with its length before it.
fn stream_logs() -> Vec<Vec<u8>> {
    let json = br#"{"durable_name":"worker","ack_policy":"explicit","deliver_policy":"all"}"#;
    let config = serde_json::to_vec(&config()).unwrap_or_default();
    let batches: [&[Op<'_>]; 6] = [
        &[message(1, b"1"), message(2, b"2"), message(3, b"3")],
        &[Op::ConsumerCreate {
            id: 1,
            name: "worker",
            json,
        }],
        &[
            Op::Reserved {
                id: 1,
                consumer_sequence: 1000,
            },
            Op::Delivered {
                id: 1,
                consumer_sequence: 1,
                stream_sequence: 3,
                deliveries: 1,
            },
            Op::Touched {
                id: 1,
                stream_sequence: 3,
                time_ns: 5,
            },
            Op::Acked {
                id: 1,
                consumer_sequence: 1,
                stream_sequence: 3,
            },
        ],
        &[
            message(4, b""),
            Op::Delete {
                sequence: 2,
                erase: true,
            },
            Op::Expire { removals_max: 10 },
        ],
        &[
            Op::Config { json: &config },
            Op::Exhausted {
                id: 1,
                stream_sequence: 4,
                deliveries: 3,
            },
            Op::Reset {
                id: 1,
                stream_sequence: 2,
            },
            Op::ConsumerUpdate { id: 1, json },
        ],
        &[
            Op::Purge {
                filter: "orders.*",
                below_sequence: 4,
                keep: 0,
            },
            Op::ConsumerDelete { id: 1 },
        ],
    ];
    let mut log = Vec::new();
    let (mut base_sequence, mut base_index) = (0, 0);
    for ops in batches {
        let mut writer = EntryWriter::new();
        let mut messages = 0;
        for op in ops {
            writer.push(op);
            messages += u64::from(matches!(op, Op::Message(_)));
        }
        let entry = writer.finish(EntryHeader {
            term: 1,
            time_ns: 1_700_000_000_000_000_000,
            base_sequence,
            base_index,
            ordinal: 1,
        });
        base_index += 1;
        base_sequence += messages;
        log.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        log.extend_from_slice(&entry);
    }
    vec![log]
}

fn replay(mut input: &[u8]) -> Option<StreamCore> {
    let mut core = StreamCore::create(config(), "", 1, store()).ok()?;
    let mut index = 0;
    while let Some((length, rest)) = input.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
        let (entry, rest) = rest.split_at(length);
        index += 1;
        // A stream whose log cannot be read goes offline.
        core.replay(index, &Bytes::copy_from_slice(entry)).ok()?;
        input = rest;
    }
    Some(core)
}

fn stream_log(input: &[u8]) {
    if let Some(core) = replay(input) {
        let again = StreamCore::restore(&core.snapshot(), "", store());
        assert!(again.is_ok(), "a snapshot restores");
    }
}

fn grown() -> StreamCore {
    let log = stream_logs().swap_remove(0);
    replay(&log).unwrap_or_else(|| unreachable!("our own log is read"))
}

fn replica_manifests() -> Vec<Vec<u8>> {
    vec![grown().manifest(0, 1 << 16).encode().to_vec()]
}

/// Whatever a peer describes, a replica takes it over or refuses it.
fn replica_manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::decode(input) else {
        return;
    };
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
    let mut core = grown();
    let Ok(mut receiving) = core.begin_receiving(manifest, false) else {
        return;
    };
    let _ = core.receive_enclosed(&receiving);
    while let Ok(ReceivingNeeds::Time) = core.go_on_receiving(&mut receiving) {}
    let _ = core.finish_receiving(&receiving);
}

fn replica_record_batches() -> Vec<Vec<u8>> {
    let records = grown().records(1, u64::MAX, 1 << 16);
    records.into_iter().map(|bytes| bytes.to_vec()).collect()
}

/// Records of any content do not harm a replica that waits for some.
fn replica_records(input: &[u8]) {
    let (Ok(mut core), sender) = (StreamCore::create(config(), "", 1, store()), grown()) else {
        return;
    };
    let Ok(mut receiving) = core.begin_receiving(sender.manifest(0, 0), false) else {
        return;
    };
    let _ = core.go_on_receiving(&mut receiving);
    let _ = core.receive(&receiving, input);
    // As it would be without its checksum in the way.
    if let Some(body) = input.len().checked_sub(4).and_then(|end| input.get(..end)) {
        let mut sealed = body.to_vec();
        sealed.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        let _ = core.receive(&receiving, &sealed);
    }
    let _ = core.finish_receiving(&receiving);
}

fn replica_request(input: &[u8]) {
    replication::stream::read_request(input);
}

fn core_snapshots() -> Vec<Vec<u8>> {
    let logs = stream_logs();
    let cores = logs.iter().filter_map(|log| replay(log));
    cores.map(|core| core.snapshot().to_vec()).collect()
}

fn core_snapshot(input: &[u8]) {
    let _ = StreamCore::config_of(input);
    let _ = StreamCore::begin(&Bytes::copy_from_slice(input), "", store());
    if let Ok(core) = StreamCore::restore(input, "", store()) {
        let _ = core.snapshot();
    }
}

fn stream_configs() -> Vec<Vec<u8>> {
    let rich = br#"{"name":"S","subjects":["a.>","b"],"retention":"workqueue","max_consumers":-1,"max_msgs":10,
        "max_bytes":1024,"discard":"new","max_age":1000000000,"max_msgs_per_subject":5,"storage":"memory",
        "num_replicas":3,"duplicate_window":0,"placement":{"cluster":"c","tags":["x"]},"allow_direct":true,
        "mirror":{"name":"O","filter_subject":"a"},"sources":[{"name":"P"}],"metadata":{"k":"v"}}"#;
    let config = serde_json::to_vec(&config()).unwrap_or_default();
    vec![config, rich.to_vec()]
}

fn stream_config(input: &[u8]) {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let Ok(config) = decode::<StreamConfig>(input, strictness) else {
            continue;
        };
        let json = serde_json::to_vec(&config).unwrap_or_default();
        let again = decode::<StreamConfig>(&json, Strictness::Lenient);
        assert!(again.is_ok(), "what was read reads back: {again:?}");
    }
}

fn consumer_configs() -> Vec<Vec<u8>> {
    let rich = br#"{"durable_name":"d","deliver_subject":"x","deliver_group":"g","ack_policy":"all","ack_wait":30000000000,
        "max_deliver":5,"backoff":[1,2,3],"filter_subjects":["a","b.*"],"replay_policy":"original","sample_freq":"50%",
        "rate_limit_bps":1,"max_ack_pending":-1,"idle_heartbeat":5,"flow_control":true,"deliver_policy":"by_start_time",
        "opt_start_time":"2024-01-01T00:00:00Z","priority_policy":"overflow","priority_groups":["p"],"pause_until":"2030-01-01T00:00:00Z"}"#;
    vec![rich.to_vec()]
}

fn consumer_config(input: &[u8]) {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let Ok(config) = decode::<ConsumerConfig>(input, strictness) else {
            continue;
        };
        let json = serde_json::to_vec(&config).unwrap_or_default();
        let again = decode::<ConsumerConfig>(&json, Strictness::Lenient);
        assert!(again.is_ok(), "what was read reads back: {again:?}");
    }
}

fn consumer_message_bodies() -> Vec<Vec<u8>> {
    [
        &b"+ACK"[..],
        b"-NAK {\"delay\": 5000000000}",
        b"-NAK 1h2m3.5s",
        b"+NXT {\"batch\":10,\"expires\":1000000000,\"no_wait\":true,\"max_bytes\":10,\"idle_heartbeat\":5}",
        b"+TERM because",
        b"{\"batch\":1,\"group\":\"g\",\"min_pending\":4,\"id\":\"x\",\"priority\":3}",
        b"$JS.ACK.S.C.1.2.3.1700000000000000000.4",
        b"$JS.ACK._.HASH.S.C.1.2.3.1700000000000000000.4.x",
        b"$JS.API.CONSUMER.CREATE.S.C.a.b",
        b"$JS.API.STREAM.MSG.GET.S",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Acks, pull requests and the subjects of either.
fn consumer_messages(input: &[u8]) {
    let _ = AckKind::parse(input);
    let _ = AckSubject::parse(input);
    let _ = PullRequest::parse(input);
    if let Ok(subject) = std::str::from_utf8(input) {
        let _ = Operation::parse(subject);
    }
}
