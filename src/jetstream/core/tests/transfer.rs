//! What a replica that lacks a state is given: it ends equal, whatever it had before and whatever happens meanwhile.

use std::sync::Arc;

use storage::store::{Limits, MemStore};

use super::simulation::Dice;
use super::{Bench, SECOND, START, durable, stream};
use crate::jetstream::core::{
    AckForm, BatchLimits, BatchQuota, LogPlace, Manifest, PurgeQuery, ReceiveError, ReceivingNeeds,
    StreamCore, StreamRequest, StreamTerms,
};
use crate::jetstream::types::StreamConfig;

fn config() -> StreamConfig {
    StreamConfig {
        allow_msg_ttl: true,
        max_age: 3600 * SECOND,
        ..stream("S", &["s.>"])
    }
}

fn newborn() -> StreamCore {
    let store = Box::new(MemStore::new(Limits::default()));
    StreamCore::create(config(), "", START, store).expect("creates")
}

/// A stream with some thousand messages, gaps, expiries and a consumer.
fn grown(seed: u64) -> Bench {
    let mut bench = Bench::new(config());
    bench.consumer(durable("c"));
    let mut dice = Dice(seed);
    for number in 0..400 + dice.below(400) {
        change(&mut bench, &mut dice, number);
    }
    bench
}

fn change(bench: &mut Bench, dice: &mut Dice, number: u64) {
    let last = bench.core.store().state().last_sequence;
    match dice.below(20) {
        0..2 if last > 0 => {
            bench.ask(StreamRequest::Delete {
                sequence: 1 + dice.below(last),
                erase: false,
            });
        }
        2 if last > 0 && dice.below(10) == 0 => {
            bench.ask(StreamRequest::Purge(PurgeQuery {
                below_sequence: 1 + dice.below(last),
                ..PurgeQuery::default()
            }));
        }
        3 if dice.below(30) == 0 => {
            bench.ask(StreamRequest::Purge(PurgeQuery {
                below_sequence: last + 10,
                ..PurgeQuery::default()
            }));
        }
        4 => {
            let messages = bench.pull("c", r#"{"batch":3,"no_wait":true}"#);
            for message in messages.iter().filter(|one| !one.reply.is_empty()) {
                bench.ack(message, "");
            }
        }
        5 => bench.pass(SECOND / 10),
        kind => {
            let headers: &[(&str, &str)] = match kind {
                6 => &[("Nats-TTL", "never")],
                7 => &[("Nats-TTL", "2000s")],
                8 => &[("Nats-Msg-Id", "one")],
                _ => &[],
            };
            bench.publish_with("s.a", headers, &format!("payload {number}"));
        }
    }
    bench.effects = Default::default();
}

/// Applies what the other applied, up to an index.
fn follow(core: &mut StreamCore, bench: &mut Bench, upto: usize) {
    let entries: Vec<_> = bench.log.iter().take(upto).cloned().collect();
    for (index, entry) in entries {
        let at = LogPlace {
            index,
            term: Some(1),
        };
        bench.step(|_, step| core.take_committed(at, &entry, step).expect("applies"));
    }
}

fn assert_equal(core: &StreamCore, bench: &Bench) {
    let (here, there) = (core.store(), bench.core.store());
    assert_eq!(here.state(), there.state());
    assert_eq!(here.limits(), there.limits());
    assert_eq!(core.snapshot(), bench.core.snapshot());
    for sequence in 0..=there.state().last_sequence {
        let load = |core: &StreamCore| core.store().load(sequence).expect("reads");
        assert_eq!(load(core), load(&bench.core), "{sequence}");
        assert_eq!(here.expiry(sequence), there.expiry(sequence), "{sequence}");
    }
}

/// One round; the sender goes on living between two requests when it is to.
fn round(
    core: &mut StreamCore,
    sender: &mut Bench,
    busy: Option<&mut Dice>,
    enclosed: usize,
) -> Result<(), ReceiveError> {
    let mut busy = busy;
    let after = core.store().state().last_sequence;
    let sent = sender.core.manifest(after, enclosed).encode();
    let manifest = Manifest::decode(&sent).expect("reads back");
    let mut receiving = core.begin_receiving(manifest, false)?;
    core.receive_enclosed(&receiving)?;
    loop {
        match core.go_on_receiving(&mut receiving)? {
            ReceivingNeeds::Time => {}
            ReceivingNeeds::Nothing => return core.finish_receiving(&receiving),
            ReceivingNeeds::Records(from, upto) => {
                let records = sender.core.records(from, upto, 2000).expect("reads");
                core.receive(&receiving, &records)?;
                if let Some(dice) = busy.as_deref_mut() {
                    change(sender, dice, 0);
                }
            }
        }
    }
}

#[test]
fn whatever_it_had_a_replica_ends_equal_and_goes_on_from_there() {
    for seed in 0..30 {
        let mut sender = grown(seed);
        let mut dice = Dice(seed ^ 77);
        let had = dice.below(sender.log.len() as u64 + 1) as usize;
        let mut core = newborn();
        follow(&mut core, &mut sender, had);
        round(&mut core, &mut sender, None, 0).expect("nothing changes meanwhile");
        assert_equal(&core, &sender);
        let before = sender.log.len();
        for number in 0..100 {
            change(&mut sender, &mut dice, number);
        }
        for (index, entry) in &sender.log[before..] {
            core.replay(*index, entry).expect("applies");
        }
        assert_equal(&core, &sender);
    }
}

#[test]
fn a_replica_that_was_given_a_state_keeps_to_its_own_servers_settings() {
    let mut sender = grown(1);
    let mut core = newborn();
    let limits = BatchLimits {
        messages_max: Some(7),
        ..BatchLimits::default()
    };
    let terms = StreamTerms {
        batches: Arc::new(BatchQuota::new(limits)),
        ack_form: AckForm::Long,
    };
    core.keep_to(terms, "A");
    let patterns = core.ack_names().ack_patterns();
    assert!(patterns.iter().any(|pattern| pattern.contains(".S.")));
    round(&mut core, &mut sender, None, 0).expect("nothing changes meanwhile");
    assert_equal(&core, &sender);
    assert_eq!(core.ack_names().ack_patterns(), patterns);
    assert_eq!(core.batch_messages_max(), 7);
}

#[test]
fn a_sender_that_goes_on_living_is_caught_up_with() {
    for seed in 0..30 {
        let mut sender = grown(seed);
        let mut dice = Dice(seed ^ 99);
        let mut core = newborn();
        let mut rounds = 0;
        loop {
            rounds += 1;
            match round(&mut core, &mut sender, Some(&mut dice), 100_000) {
                // Records that come with the manifest are those of its moment.
                Ok(()) => break,
                Err(ReceiveError::Outdated) => assert!(rounds < 50, "seed {seed}"),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        round(&mut core, &mut sender, None, 0).expect("at rest");
        assert_equal(&core, &sender);
    }
}

#[test]
fn what_cannot_be_relied_upon_is_received_anew() {
    let mut sender = grown(5);
    let mut core = newborn();
    let upto = sender.log.len();
    follow(&mut core, &mut sender, upto);
    // Something has gone here that is there.
    let state = core.store().state();
    let middle = (state.first_sequence + state.last_sequence) / 2;
    let everything = storage::filter::Filter::everything();
    let victim = core
        .store()
        .next_sequence(middle, &everything)
        .expect("live");
    core.store_mut()
        .delete(victim, storage::store::Deletion::Unlink, &mut ())
        .expect("deletes");
    round(&mut core, &mut sender, None, 0).expect("nothing changes meanwhile");
    assert_equal(&core, &sender);
}
