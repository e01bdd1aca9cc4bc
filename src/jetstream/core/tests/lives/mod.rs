//! Lives of a stream on one server, from a seed: every option of streams and consumers at random, a storage engine on a simulated disk, and ends of the server at
//! any moment. After every step the stream must be what a plain model says, and clients must have got what they were promised.
//!
//! - `draw`: configurations at random; `host`: the server; `model`: what the stream must hold; `viewer`: a consumer as its clients see it; `life`: what they do.
//!
//! `LIFE_SEEDS=100000 cargo test -p nats-server --lib core::tests::lives` runs that many, `LIFE_FIRST` says from which on; `LIFE_SEED=7 … -- --nocapture` runs that one
//! and says what happens. Everything follows from the seed.

mod draw;
mod host;
mod life;
mod model;
mod viewer;

use std::time::Instant;

use host::Museum;
use life::Life;

use crate::jetstream::core::museum::{self as pieces, Piece};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Names the seed in whose life something panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

fn lives(seed: u64, museum: Museum, talks: bool) -> Result<(), String> {
    let _named = Named(seed);
    if museum == Museum::ForgetsIds {
        pieces::open(Piece::ForgottenIds);
    }
    let mut life = Life::new(seed, museum);
    life.talks = talks;
    life.live()
}

#[test]
fn every_option_keeps_its_promises_in_every_life() {
    if let Some(seed) = number("LIFE_SEED") {
        let lived = lives(seed, Museum::Closed, true);
        assert_eq!(lived, Ok(()), "seed {seed}");
        return;
    }
    let first = number("LIFE_FIRST").unwrap_or(1);
    let count = number("LIFE_SEEDS").unwrap_or(150);
    let begun = Instant::now();
    let mut broken = Vec::new();
    for seed in first..first + count {
        if let Err(found) = lives(seed, Museum::Closed, false) {
            println!("seed {seed}: {found}");
            broken.push(seed);
            if broken.len() == 20 {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:.1} lives a second", count as f64 / seconds);
    assert!(broken.is_empty(), "seeds {broken:?}");
}

/// Whether one of a number of lives finds it.
fn is_found(museum: Museum) -> bool {
    (1..=number("LIFE_MUSEUM_SEEDS").unwrap_or(2000)).any(|seed| {
        let lived = lives(seed, museum, false);
        if let Err(found) = &lived {
            println!("seed {seed}: {found}");
        }
        lived.is_err()
    })
}

#[test]
fn acknowledging_and_delivering_before_the_sync_is_found() {
    assert!(is_found(Museum::AppliesEarly));
}

#[test]
fn ending_the_log_at_the_first_bad_checksum_is_found() {
    assert!(is_found(Museum::CutsAtDamage));
}

#[test]
fn forgetting_the_ids_of_messages_is_found() {
    assert!(is_found(Museum::ForgetsIds));
}
