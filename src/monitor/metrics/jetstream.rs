//! JetStream as a whole, its streams and their consumers.

use super::exposition::Exposition;
use super::family::{Budget, Column, Family, counter, families_of, gauge};
use crate::jetstream::monitor::{JetStreamInfo, Query, StreamDetail};
use crate::jetstream::types::StreamState;
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::ObservedStreams;
use serde_json::Value;

/// A stream at one moment.
struct StreamRow {
    labels: [String; 2],
    state: StreamState,
    leads: bool,
    replicas_behind: usize,
}

/// A consumer at one moment.
struct ConsumerRow {
    labels: [String; 3],
    pending: u64,
    ack_pending: u64,
    redelivered: u64,
    waiting: u64,
    delivered: u64,
    delivered_seq: u64,
    ack_floor_seq: u64,
    lag: u64,
}

/// JetStream at one moment.
struct WholeRow {
    info: JetStreamInfo,
    leads_meta: bool,
    is_healthy: bool,
}

const NONE: &[&str] = &[];
const STREAM: &[&str] = &["account", "stream"];
const CONSUMER: &[&str] = &["account", "stream", "consumer"];

static OF_WHOLE: [Column<WholeRow>; 13] = [
    Column {
        family: gauge(
            "nats_jetstream_memory_bytes",
            NONE,
            "Bytes in memory streams.",
        )
        .bytes(),
        value: |row| row.info.stats.memory.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_storage_bytes",
            NONE,
            "Bytes in file streams.",
        )
        .bytes(),
        value: |row| row.info.stats.storage.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_memory_max_bytes",
            NONE,
            "Bytes that memory streams may hold.",
        )
        .bytes(),
        value: |row| {
            row.info
                .config
                .as_ref()
                .map_or(0, |config| config.max_memory)
                .into()
        },
    },
    Column {
        family: gauge(
            "nats_jetstream_storage_max_bytes",
            NONE,
            "Bytes that file streams may hold.",
        )
        .bytes(),
        value: |row| {
            row.info
                .config
                .as_ref()
                .map_or(0, |config| config.max_storage)
                .into()
        },
    },
    Column {
        family: gauge("nats_jetstream_accounts", NONE, "Accounts with JetStream."),
        value: |row| row.info.total.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_streams",
            NONE,
            "Streams that this server has a copy of.",
        ),
        value: |row| row.info.streams.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumers",
            NONE,
            "Consumers of these streams.",
        ),
        value: |row| row.info.consumers.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_messages",
            NONE,
            "Messages in these streams.",
        ),
        value: |row| row.info.messages.into(),
    },
    Column {
        family: counter(
            "nats_jetstream_api_requests",
            NONE,
            "Requests of the API that were answered.",
        ),
        value: |row| row.info.stats.api.total.into(),
    },
    Column {
        family: counter(
            "nats_jetstream_api_errors",
            NONE,
            "Of these, with an error.",
        ),
        value: |row| row.info.stats.api.errors.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_api_inflight",
            NONE,
            "Requests of the API that wait for an answer.",
        ),
        value: |row| row.info.stats.api.inflight.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_meta_leader",
            NONE,
            "1 where the cluster's meta group is led from, and on a server of its own.",
        ),
        value: |row| row.leads_meta.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_healthy",
            NONE,
            "0 while a stream takes nothing more, or the meta group cannot be relied on.",
        ),
        value: |row| row.is_healthy.into(),
    },
];

static OF_STREAM: [Column<StreamRow>; 9] = [
    Column {
        family: gauge(
            "nats_jetstream_stream_messages",
            STREAM,
            "Messages in the stream.",
        ),
        value: |row| row.state.messages.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_bytes",
            STREAM,
            "Their accounted bytes.",
        )
        .bytes(),
        value: |row| row.state.bytes.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_first_seq",
            STREAM,
            "The lowest sequence in the stream.",
        ),
        value: |row| row.state.first_seq.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_last_seq",
            STREAM,
            "The highest sequence ever used.",
        ),
        value: |row| row.state.last_seq.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_deleted",
            STREAM,
            "Sequences between the two that hold no message.",
        ),
        value: |row| row.state.num_deleted.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_subjects",
            STREAM,
            "Distinct subjects in the stream.",
        ),
        value: |row| row.state.num_subjects.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_consumers",
            STREAM,
            "Consumers of the stream.",
        ),
        value: |row| row.state.consumer_count.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_leader",
            STREAM,
            "1 where the stream is led from.",
        ),
        value: |row| row.leads.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_stream_replicas_behind",
            STREAM,
            "Other copies that lack something, as far as this server knows.",
        ),
        value: |row| row.replicas_behind.into(),
    },
];

static OF_CONSUMER: [Column<ConsumerRow>; 8] = [
    Column {
        family: gauge(
            "nats_jetstream_consumer_pending",
            CONSUMER,
            "Messages that the consumer has still to deliver.",
        ),
        value: |row| row.pending.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_ack_pending",
            CONSUMER,
            "Messages that are delivered and not acknowledged.",
        ),
        value: |row| row.ack_pending.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_lag",
            CONSUMER,
            "How far the last delivered sequence is behind the stream's last, whether the consumer wants what lies between or not.",
        ),
        value: |row| row.lag.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_redelivered",
            CONSUMER,
            "Messages that were delivered more than once and are not acknowledged.",
        ),
        value: |row| row.redelivered.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_waiting",
            CONSUMER,
            "Pull requests that wait for messages.",
        ),
        value: |row| row.waiting.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_delivered",
            CONSUMER,
            "Deliveries, repeated ones included.",
        ),
        value: |row| row.delivered.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_delivered_stream_seq",
            CONSUMER,
            "The highest sequence of the stream that was delivered.",
        ),
        value: |row| row.delivered_seq.into(),
    },
    Column {
        family: gauge(
            "nats_jetstream_consumer_ack_floor_stream_seq",
            CONSUMER,
            "Everything up to this sequence of the stream is acknowledged.",
        ),
        value: |row| row.ack_floor_seq.into(),
    },
];

/// Every metric of these tables.
pub(super) fn families() -> Vec<&'static Family> {
    families_of(&OF_WHOLE)
        .chain(families_of(&OF_STREAM))
        .chain(families_of(&OF_CONSUMER))
        .collect()
}

/// Writes what there is room for; how many streams and how many consumers are left out. May wait for streams.
pub(super) fn write(
    out: &mut Exposition,
    monitor: &Monitor,
    streams: &dyn ObservedStreams,
    budget: &mut Budget,
) -> (usize, usize) {
    let facts = monitor.server.facts();
    // Consumers are many, and asking for them is dear: only when some of them can be shown.
    let ask = |consumers: bool| {
        let query = Query {
            streams: true,
            consumers,
            direct_consumers: consumers,
            limit: usize::MAX,
            ..Query::default()
        };
        streams.info(&query, &facts.server_id)
    };
    let mut info = ask(false);
    let series_of_streams = info.streams * OF_STREAM.len();
    let has_room = budget.rows(1) >= series_of_streams + OF_CONSUMER.len();
    let consumers_in_all = usize::try_from(info.consumers).unwrap_or(usize::MAX);
    if consumers_in_all > 0 && has_room {
        info = ask(true);
    }
    let details = std::mem::take(&mut info.account_details);
    let whole = WholeRow {
        info,
        leads_meta: streams.leads_meta(),
        is_healthy: streams.fault().is_none() && streams.meta_fault().is_none(),
    };
    out.table(&OF_WHOLE, &[whole], |_| NONE);

    let mut shown = Vec::new();
    let mut consumers = Vec::new();
    for account in &details {
        for stream in &account.stream_detail {
            shown.push(stream_row(&account.name, stream, &facts.server_name));
            consumers.extend(consumer_rows(&account.name, stream));
        }
    }
    shown.sort_by(|one, other| one.labels.cmp(&other.labels));
    let streams_left_out = budget.cut(&mut shown, OF_STREAM.len());
    out.table(&OF_STREAM, &shown, |row| &row.labels);
    consumers.sort_by(|one, other| one.labels.cmp(&other.labels));
    budget.cut(&mut consumers, OF_CONSUMER.len());
    out.table(&OF_CONSUMER, &consumers, |row| &row.labels);
    let consumers_left_out = consumers_in_all.saturating_sub(consumers.len());
    (streams_left_out, consumers_left_out)
}

fn stream_row(account: &str, stream: &StreamDetail, server_name: &str) -> StreamRow {
    let replicas = stream.cluster.replicas.iter();
    StreamRow {
        labels: [account.to_owned(), stream.name.clone()],
        state: stream.state.clone(),
        leads: stream.cluster.leader == server_name,
        replicas_behind: replicas.filter(|replica| !replica.current).count(),
    }
}

fn consumer_rows(account: &str, stream: &StreamDetail) -> impl Iterator<Item = ConsumerRow> {
    let all = stream
        .consumer_detail
        .iter()
        .chain(&stream.direct_consumer_detail);
    all.map(move |consumer| {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let delivered_seq = number(&consumer["delivered"]["stream_seq"]);
        ConsumerRow {
            labels: [
                account.to_owned(),
                stream.name.clone(),
                consumer["name"].as_str().unwrap_or_default().to_owned(),
            ],
            pending: number(&consumer["num_pending"]),
            ack_pending: number(&consumer["num_ack_pending"]),
            redelivered: number(&consumer["num_redelivered"]),
            waiting: number(&consumer["num_waiting"]),
            delivered: number(&consumer["delivered"]["consumer_seq"]),
            delivered_seq,
            ack_floor_seq: number(&consumer["ack_floor"]["stream_seq"]),
            lag: stream.state.last_seq.saturating_sub(delivered_seq),
        }
    })
}
