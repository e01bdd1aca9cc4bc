//! What a later version has written keeps a stream from running, and is left as it is.

use std::collections::BTreeMap;

use storage::store::{Limits, MemStore};

use super::*;
use crate::jetstream::core::{LogPlace, RecoverError, Unsupported};
use crate::jetstream::types::{API_LEVEL, REQUIRED_LEVEL};

fn recover(snapshot: &[u8], entries: &[(u64, Bytes)]) -> Result<StreamCore, RecoverError> {
    let store = Box::new(MemStore::new(Limits::default()));
    StreamCore::recover(snapshot, entries.to_vec(), "", store)
}

#[track_caller]
fn refusal(snapshot: &[u8], entries: &[(u64, Bytes)]) -> Unsupported {
    match recover(snapshot, entries) {
        Err(RecoverError::Unsupported(unsupported)) => unsupported,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it runs"),
    }
}

fn needs(level: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(REQUIRED_LEVEL.to_owned(), level.to_owned())])
}

fn too_high(level: &str) -> String {
    format!("unsupported - required API level: {level}, current API level: {API_LEVEL}")
}

#[test]
fn a_stream_that_needs_a_higher_level_does_not_run() {
    let with = |level: &str| StreamConfig {
        metadata: needs(level),
        ..stream("S", &["s"])
    };
    let level = API_LEVEL.to_string();
    let supported = Bench::new(with(&level)).core.snapshot();
    assert!(recover(&supported, &[]).is_ok());
    let snapshot = Bench::new(with("9")).core.snapshot();
    assert_eq!(refusal(&snapshot, &[]).reason, too_high("9"));
    // The same where it is the first entry of a stream that was just born.
    let born = [(1, snapshot)];
    assert_eq!(refusal(&[], &born).reason, too_high("9"));
    // Or where a later entry says so.
    let mut bench = Bench::new(with(&level));
    let before = bench.core.snapshot();
    let config = with("9");
    bench.request(StreamRequest::Update(Box::new(config)));
    assert_eq!(refusal(&before, &bench.log).reason, too_high("9"));
}

#[test]
fn a_configuration_that_names_what_nobody_knows_yet_is_not_half_kept() {
    let bench = Bench::new(StreamConfig {
        allow_atomic: true,
        ..stream("S", &["s"])
    });
    let mut snapshot = bench.core.snapshot().to_vec();
    let (known, unknown) = (b"allow_atomic", b"allow_cosmic");
    let at = snapshot
        .windows(known.len())
        .position(|bytes| bytes == known);
    let at = at.expect("it is named");
    snapshot[at..at + unknown.len()].copy_from_slice(unknown);
    let reason = refusal(&snapshot, &[]).reason;
    assert!(
        reason.starts_with("unsupported - config error: "),
        "{reason}"
    );
    assert!(reason.contains("allow_cosmic"), "{reason}");
}

#[test]
fn a_consumer_that_cannot_be_kept_to_stops_its_stream() {
    let mut bench = Bench::new(stream("S", &["s"]));
    let before = bench.core.snapshot();
    bench.consumer(durable("fine"));
    assert!(recover(&before, &bench.log).is_ok());
    bench.consumer(ConsumerConfig {
        metadata: needs("77"),
        ..durable("later")
    });
    let expected = Unsupported {
        reason: "stopped - unsupported consumer \"later\"".to_owned(),
        consumers: BTreeMap::from([("later".to_owned(), too_high("77"))]),
    };
    assert_eq!(refusal(&before, &bench.log), expected);
    assert_eq!(refusal(&bench.core.snapshot(), &[]), expected);
}

#[test]
fn a_replica_stops_before_what_its_group_has_of_a_later_version() {
    let store = || Box::new(MemStore::new(Limits::default()));
    let mut later = Bench::new(stream("S", &["s"]));
    later.publish("s", "one");
    later.consumer(ConsumerConfig {
        metadata: needs("77"),
        ..durable("later")
    });
    let mut replica = Bench::new(stream("S", &["s"]));
    replica.core.follow(&mut replica.effects);
    let mut taken = Vec::new();
    for (index, entry) in later.log.clone() {
        let at = LogPlace {
            index,
            term: Some(1),
        };
        let result = replica.step(|core, step| core.take_committed(at, &entry, step));
        taken.push(result.map_err(|error| error.to_string()));
    }
    assert_eq!(taken[0], Ok(()));
    assert_eq!(taken[1], Err("entry 2 is of a later version".to_owned()));
    assert_eq!(replica.core.consumer_count(), 0);
    let expected = BTreeMap::from([("later".to_owned(), too_high("77"))]);
    let found = replica.core.unsupported().expect("it stopped");
    assert_eq!(found.consumers, expected);
    // The same where the state has it: after a start, or as another replica gives it.
    let restored = StreamCore::restore(&later.core.snapshot(), "", store()).expect("reads");
    let found = restored.unsupported().expect("it is found");
    assert_eq!(found.reason, "stopped - unsupported consumer \"later\"");
    assert_eq!(found.consumers, expected);
}
