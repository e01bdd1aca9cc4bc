//! Every decoder and parser on bytes that nobody wrote: the stored corpus, what our encoders write today, and mutations of both.
//!
//! `FUZZ_ROUNDS` says how many mutations each target gets, `FUZZ_TARGET` names the only one to run, `FUZZ_SEED` where the
//! mutations begin. An input on which a target panics is written to `tests/fuzz/corpus/TARGET/`, where every later run
//! begins with it. `tests/fuzz/guided` runs the same targets under libFuzzer.

mod corpus;
mod mutation;

use std::panic::catch_unwind;

use corpus::{Sample, load, store};
use mutation::Mutator;
use raft::codec::{decode_entry, decode_mark, decode_vote, encode_entry, encode_mark, log_id};
use raft::types::{Command, Entry, Payload};
use storage::fuzz::Target;

/// Mutations of each target in a run of all tests.
const ROUNDS: u64 = 1_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

const RAFT: Target = Target {
    name: "raft_log",
    run: |input| {
        let _ = decode_vote(input);
        let _ = decode_mark(input);
        let bytes = bytes::Bytes::copy_from_slice(input);
        if let Ok(entry) = decode_entry(1, &bytes) {
            assert!(decode_entry(1, &encode_entry(&entry)).is_ok());
        }
    },
    seeds: || {
        let entry = |payload| Entry {
            log_id: log_id(1, 1),
            payload,
        };
        let command = Command(bytes::Bytes::from_static(b"command"));
        vec![
            encode_entry(&entry(Payload::Blank)).to_vec(),
            encode_entry(&entry(Payload::Normal(command))).to_vec(),
            encode_mark(Some(&log_id(3, 4))).to_vec(),
            encode_mark(None).to_vec(),
        ]
    },
};

fn targets() -> Vec<Target> {
    let mut targets = storage::fuzz::targets();
    targets.extend(nats_server::fuzz::targets());
    targets.push(RAFT);
    let wanted = std::env::var("FUZZ_TARGET").ok();
    targets.retain(|target| wanted.as_deref().is_none_or(|wanted| wanted == target.name));
    targets
}

/// Runs one input; an input that breaks the target is kept.
fn run(target: &Target, sample: &Sample) {
    if catch_unwind(|| (target.run)(&sample.bytes)).is_err() {
        let path = store(target.name, &sample.bytes);
        panic!(
            "{} panics on {}, kept as {}",
            target.name,
            sample.origin,
            path.display()
        );
    }
}

fn samples(target: &Target) -> Vec<Sample> {
    let fresh = (target.seeds)().into_iter().enumerate();
    let mut samples: Vec<Sample> = fresh
        .map(|(at, bytes)| Sample {
            origin: format!("what encoder {at} writes"),
            bytes,
        })
        .collect();
    samples.extend(load(target.name));
    samples
}

#[test]
fn no_target_breaks_on_its_corpus() {
    for target in targets() {
        let samples = samples(&target);
        assert!(!samples.is_empty(), "{} has no inputs", target.name);
        for sample in &samples {
            run(&target, sample);
        }
    }
}

#[test]
fn no_target_breaks_on_mutations_of_its_corpus() {
    let rounds = number("FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let first = number("FUZZ_SEED").unwrap_or(1);
    for target in targets() {
        let samples = samples(&target);
        for seed in first..first + rounds {
            let bytes = Mutator::new(seed).mutate(&samples);
            let origin = format!("the mutation of FUZZ_SEED={seed}");
            run(&target, &Sample { origin, bytes });
        }
    }
}

#[test]
fn every_target_has_a_name_of_its_own() {
    let targets = targets();
    let names: std::collections::BTreeSet<&str> =
        targets.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), targets.len());
}

#[test]
fn a_seed_gives_the_same_mutation_again() {
    let samples = samples(&RAFT);
    let mutations = |seed| Mutator::new(seed).mutate(&samples);
    assert_eq!(mutations(7), mutations(7));
    assert!((1..50).any(|seed| mutations(seed) != mutations(seed + 1)));
}
