//! A group of three through everything that can go wrong, from seeds.
//!
//! `SIMULATION_SEEDS=1000 cargo test -p raft --test simulated` runs more of them; `SIMULATION_SEED=7` runs that one and says how it went.

mod cluster;
mod simulation;

use simulation::run::Museum;
use simulation::simulate;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> std::ops::Range<u64> {
    match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("SIMULATION_SEEDS").unwrap_or(12) + 1,
    }
}

#[test]
fn no_trouble_loses_what_was_acknowledged_or_lets_replicas_differ() {
    let mut committed = 0;
    for seed in seeds() {
        match simulate(seed, Museum::Closed) {
            Ok(run) => {
                committed += run.committed;
                if number("SIMULATION_SEED").is_some() {
                    println!("seed {seed}: {run:?}");
                }
            }
            Err(found) => panic!("seed {seed}: {}", found.0),
        }
    }
    assert!(committed > 0, "nothing was committed at all");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = simulate(3, Museum::Closed);
    assert_eq!(first, simulate(3, Museum::Closed));
    let runs = [4, 5].map(|seed| simulate(seed, Museum::Closed).expect("a sound run").trace);
    assert_ne!(runs[0], runs[1]);
}

/// Whether one of a number of seeds finds it.
fn is_found(museum: Museum) -> bool {
    (1..=40).any(|seed| simulate(seed, museum).is_err())
}

#[test]
fn acknowledging_before_the_sync_is_found() {
    assert!(is_found(Museum::AckBeforeSync));
}

#[test]
fn voting_again_after_losing_the_disk_is_found() {
    assert!(is_found(Museum::VoteAfterAmnesia));
}
