//! The answer is read back by the grammar of OpenMetrics 1.0, as far as it is used here.

use super::family::{Family, Kind};
use super::{families, list, text};
use crate::broker::Broker;
use crate::cluster::routes::{RouteView, RoutesView};
use crate::config::Options;
use crate::jetstream::monitor::{
    AccountDetail, JetStreamInfo, JetStreamStats, Overview, Query, StreamDetail,
};
use crate::jetstream::types::{ClusterInfo, StreamState, Time};
use crate::monitor::endpoints::Monitor;
use crate::monitor::observed::{Counters, Facts, Observed, ObservedStreams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use storage::engine::EngineFigures;
use storage::journal::JournalMeter;

/// A server with a stream and a consumer whose names are as bad as names can be.
struct Fake {
    facts: Facts,
    broker: Broker,
}

struct FakeStreams;

const BAD_NAME: &str = "a \"b\" \\ c\nd{}=,";

impl ObservedStreams for FakeStreams {
    fn overview(&self) -> Overview {
        unreachable!("metrics do not ask for it")
    }

    fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        let consumer = json!({
            "name": BAD_NAME, "num_pending": 7, "num_ack_pending": 2, "num_redelivered": 1,
            "num_waiting": 3, "delivered": {"consumer_seq": 9, "stream_seq": 5},
            "ack_floor": {"consumer_seq": 3, "stream_seq": 3},
        });
        let stream = |name: &str| StreamDetail {
            name: name.to_owned(),
            created: Time::ZERO,
            cluster: ClusterInfo {
                leader: "name".into(),
                ..ClusterInfo::default()
            },
            config: None,
            state: StreamState {
                messages: 4,
                last_seq: 12,
                ..StreamState::default()
            },
            consumer_detail: match query.consumers {
                true => vec![consumer.clone()],
                false => Vec::new(),
            },
            direct_consumer_detail: Vec::new(),
            mirror: None,
            sources: Vec::new(),
            group: String::new(),
            consumer_groups: Vec::new(),
        };
        JetStreamInfo {
            streams: 2,
            consumers: 2,
            account_details: vec![AccountDetail {
                name: "$G".into(),
                id: "$G".into(),
                stats: JetStreamStats::default(),
                stream_detail: vec![stream("z"), stream(BAD_NAME)],
            }],
            ..JetStreamInfo::disabled(server_id, Time::ZERO)
        }
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn engine_figures(&self) -> Option<EngineFigures> {
        Some(EngineFigures {
            journal: JournalMeter::default().figures(),
            staged_bytes: 1,
            cache: Default::default(),
            disk_waits: Default::default(),
        })
    }
}

impl Observed for Fake {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn client_port(&self) -> u16 {
        4222
    }

    fn websocket_port(&self) -> u16 {
        0
    }

    fn counters(&self) -> Counters {
        Counters {
            connections: 3,
            ..Counters::default()
        }
    }

    fn accounts(&self) -> Vec<Arc<crate::broker::Account>> {
        self.broker.accounts()
    }

    fn routes(&self) -> Option<RoutesView> {
        Some(RoutesView {
            cluster_name: "C".into(),
            port: 1,
            remotes: 1,
            urls: Vec::new(),
            websocket_urls: Vec::new(),
            routes: vec![RouteView {
                id: 1,
                client_id: 2,
                remote_id: "N".into(),
                remote_name: "other".into(),
                solicited: false,
                configured: false,
                ip: "127.0.0.1".into(),
                port: 1,
                started: SystemTime::UNIX_EPOCH,
                heard: SystemTime::UNIX_EPOCH,
                round_trip: Duration::from_micros(1500),
                import: None,
                export: None,
                pending_bytes: 0,
                in_messages: 1,
                out_messages: 1,
                in_bytes: 1,
                out_bytes: 1,
                subscriptions: 1,
                account: String::new(),
                compression: "off".into(),
            }],
            import: None,
            export: None,
            connect_urls: Vec::new(),
        })
    }

    fn not_ready(&self) -> Option<String> {
        None
    }

    fn streams(&self) -> Option<Arc<dyn ObservedStreams>> {
        Some(Arc::new(FakeStreams))
    }
}

fn monitor(series_max: usize) -> Monitor {
    let mut options = Options::default();
    options.limits.metric_series_max = series_max;
    let facts = Facts {
        server_id: "NID".into(),
        server_name: "name".into(),
        options,
        monitor_host: String::new(),
        monitor_port: 0,
        started: SystemTime::now(),
        workers: 2,
    };
    let monitor = Monitor::new(Arc::new(Fake {
        facts,
        broker: Broker::new(),
    }));
    monitor.count("/metrics");
    monitor
}

/// A metric as it was read back.
#[derive(Debug, Default)]
struct Read {
    kind: String,
    unit: String,
    help: String,
    samples: Vec<Sample>,
}

type Labels = Vec<(String, String)>;

#[derive(Debug)]
struct Sample {
    name: String,
    labels: Labels,
    value: f64,
}

/// Reads an exposition; panics where it breaks the grammar.
fn parse(text: &str) -> BTreeMap<String, Read> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut all: BTreeMap<String, Read> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let (word, rest) = metadata.split_once(' ').expect("a word and a name");
            let (name, value) = rest.split_once(' ').expect("a name and a value");
            if name != current {
                assert!(!all.contains_key(name), "{name} is not in one piece");
                current = name.to_owned();
            }
            let family = all.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "metadata after samples: {line}");
            let place = match word {
                "TYPE" => &mut family.kind,
                "UNIT" => &mut family.unit,
                "HELP" => &mut family.help,
                other => panic!("{other}"),
            };
            assert!(place.is_empty(), "twice: {line}");
            value.clone_into(place);
            continue;
        }
        let sample = sample(line);
        let family = all.get_mut(&current).expect("metadata comes first");
        let suffix = sample.name.strip_prefix(&*current).expect("its own family");
        let allowed: &[&str] = match family.kind.as_str() {
            "gauge" => &[""],
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{other}"),
        };
        assert!(allowed.contains(&suffix), "{line}");
        family.samples.push(sample);
    }
    all
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label's value");
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after);
            labels.push((label.to_owned(), value));
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None => break rest = after.strip_prefix('}').expect("the labels end"),
            };
        }
    }
    let value = rest.strip_prefix(' ').expect("one space");
    assert!(!value.contains(' '), "{line}");
    Sample {
        name: name.to_owned(),
        labels,
        value: value.parse().unwrap_or_else(|_| panic!("{line}")),
    }
}

/// A quoted text without its escapes, and what follows it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                other => panic!("{other:?} is no escape"),
            }),
            character => value.push(character),
        }
    }
    panic!("a quote is missing")
}

#[test]
fn the_answer_is_openmetrics_and_every_metric_of_the_list_is_in_it() {
    let read = parse(&text(&monitor(1000)));
    let listed: BTreeSet<&str> = families().iter().map(|family| family.name).collect();
    let found: BTreeSet<&str> = read.keys().map(String::as_str).collect();
    assert_eq!(found, listed);
    for family in families() {
        let Family {
            name, unit, labels, ..
        } = family;
        let read = &read[*name];
        assert!(is_name(name) && !read.help.is_empty(), "{name}");
        assert!(
            read.help.ends_with('.') && !read.help.contains('|'),
            "{name}"
        );
        assert_eq!((&*read.kind, &*read.unit), (family.kind.word(), *unit));
        assert!(
            unit.is_empty() || name.ends_with(&format!("_{unit}")),
            "{name}"
        );
        assert!(
            !name.ends_with("_total") && !name.ends_with("_info"),
            "{name}"
        );
        assert!(!read.samples.is_empty(), "{name}");
        let mut seen = BTreeSet::new();
        for sample in &read.samples {
            let names = sample.labels.iter().map(|(name, _)| name.as_str());
            let own: Vec<_> = names.filter(|name| *name != "le").collect();
            assert_eq!(own, *labels, "{name}");
            assert!(sample.value >= 0.0, "{name}");
            assert!(seen.insert((&sample.name, &sample.labels)), "{name} twice");
        }
        if family.kind == Kind::Histogram {
            let buckets: Vec<&Sample> = read
                .samples
                .iter()
                .filter(|sample| sample.name.ends_with("_bucket"))
                .collect();
            assert!(buckets.is_sorted_by(|one, next| one.value <= next.value));
            let last = buckets.last().unwrap();
            assert_eq!(last.labels, [("le".to_owned(), "+Inf".to_owned())]);
        }
    }
}

#[test]
fn what_stands_in_names_comes_back_as_it_was() {
    let read = parse(&text(&monitor(1000)));
    let value = |name: &str, labels: &[&str]| {
        let found = read[name].samples.iter().find(|sample| {
            let values = sample.labels.iter().map(|(_, value)| value.as_str());
            values.eq(labels.iter().copied())
        });
        found.unwrap_or_else(|| panic!("{name} {labels:?}")).value
    };
    let consumer = ["$G", BAD_NAME, BAD_NAME];
    assert_eq!(value("nats_jetstream_stream_messages", &consumer[..2]), 4.0);
    assert_eq!(value("nats_jetstream_stream_leader", &consumer[..2]), 1.0);
    assert_eq!(value("nats_jetstream_consumer_pending", &consumer), 7.0);
    assert_eq!(value("nats_jetstream_consumer_lag", &consumer), 7.0);
    assert_eq!(value("nats_connections", &[]), 3.0);
    assert_eq!(
        value("nats_route_round_trip_seconds", &["other", "", "1"]),
        0.0015
    );
}

#[test]
fn what_there_is_no_room_for_is_left_out_whole_and_counted() {
    let count = |read: &BTreeMap<String, Read>, name: &str| {
        read.get(name).map_or(0, |family| family.samples.len())
    };
    // Two accounts of 8 series each, then one stream of 9.
    let read = parse(&text(&monitor(16 + 9 + 1)));
    assert_eq!(count(&read, "nats_account_connections"), 2);
    assert_eq!(count(&read, "nats_jetstream_stream_messages"), 1);
    assert_eq!(count(&read, "nats_jetstream_stream_bytes"), 1);
    assert_eq!(count(&read, "nats_jetstream_consumer_pending"), 0);
    let left_out: Vec<f64> = read["nats_metrics_left_out"]
        .samples
        .iter()
        .map(|sample| sample.value)
        .collect();
    assert_eq!(left_out, [0.0, 1.0, 2.0]);
    let none = parse(&text(&monitor(0)));
    assert_eq!(count(&none, "nats_account_connections"), 0);
    assert_eq!(none["nats_connections"].samples.len(), 1);
}

#[test]
fn the_documentation_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let documented = std::fs::read_to_string(path).unwrap();
    assert!(
        documented.contains(&list()),
        "docs/metrics.md does not hold this list:\n{}",
        list()
    );
}
