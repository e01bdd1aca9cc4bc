//! The same random requests to the reference and to ours, and what they answer differently.
//!
//! A seed decides a scenario: streams and consumers with configurations drawn from all fields, publishes with all headers, pulls,
//! acks, gets, purges, and looks at the state of everything between them. What both did is compared without times and made-up
//! names; a difference is printed with its seed and its step, and the scenario ends where what follows could not be compared.
//! `accepted.rs` lists the differences that stay, each with its reason.
//!
//! `DIFFERENTIAL_REFERENCE` is the path of the reference's binary; without it nothing is compared. `DIFFERENTIAL_SEEDS` says how
//! many seeds (40), `DIFFERENTIAL_FIRST` which is the first (0), `DIFFERENTIAL_STEPS` how many steps each (60), and
//! `DIFFERENTIAL_TRACE` prints all of them.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the recordings compare more kinds of documents")]
#[path = "../golden/compare.rs"]
mod compare;
#[allow(dead_code, reason = "the recordings cut more at once")]
#[path = "../golden/frames.rs"]
mod frames;

mod accepted;
mod draw;
mod fields;
mod judge;
mod pair;
mod scenario;
mod session;
mod step;

use std::collections::BTreeMap;
use std::path::PathBuf;

use pair::Pair;
use scenario::Scenario;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn the_same_requests_are_answered_as_by_the_reference() {
    let Some(reference) = std::env::var_os("DIFFERENTIAL_REFERENCE").map(PathBuf::from) else {
        println!("skipped: DIFFERENTIAL_REFERENCE names no server to compare with");
        return;
    };
    let first = number("DIFFERENTIAL_FIRST", 0);
    let seeds = number("DIFFERENTIAL_SEEDS", 40);
    let steps = number("DIFFERENTIAL_STEPS", 60);
    let trace = std::env::var_os("DIFFERENTIAL_TRACE").is_some();
    let mut pair = Pair::start(&reference);
    let mut found: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut compared = 0;
    for seed in first..first + seeds {
        let mut scenario = Scenario::new(seed);
        pair.begin(&scenario.all_streams());
        for number in 0..steps {
            let step = scenario.next(pair.deliveries());
            let known = scenario.known();
            let outcome = pair.step(&step, &known, !scenario.counts_copying());
            compared += 1;
            if trace {
                println!("seed {seed} step {number}  {step}");
                for message in &outcome.reference {
                    println!("    {message:?}");
                }
                if !outcome.differences.is_empty() {
                    for message in &outcome.ours {
                        println!("    ours: {message:?}");
                    }
                }
            }
            if !outcome.differences.is_empty() {
                println!("seed {seed} step {number}  {step}");
            }
            for line in &outcome.differences {
                println!("    {line}");
                let signature = judge::signature(step.kind(), line);
                let place = format!("seed {seed} step {number}");
                found.entry(signature).or_insert((0, place)).0 += 1;
            }
            if !outcome.goes_on {
                break;
            }
            scenario.learn(&step, &outcome.reference);
        }
        pair.begin(&scenario.all_streams());
    }
    println!("{compared} steps of {seeds} seeds compared");
    let mut sorted: Vec<_> = found.iter().collect();
    sorted.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    for (signature, (count, place)) in &sorted {
        println!("{count:5}  {place}  {signature}");
    }
    assert!(found.is_empty(), "{} kinds of differences", found.len());
}
