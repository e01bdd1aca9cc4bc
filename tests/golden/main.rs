//! Replays what the reference was recorded to answer, and compares.
//!
//! The recordings live beside the repository in `../shared/golden` (or where `GOLDEN_DIR` points); their README states
//! what is compared by shape only. `not_yet.txt` lists the steps that are not expected to match yet. A step that is not
//! listed and differs fails the test, and so does a listed step that matches: the list only shrinks.
//! `GOLDEN_SHRINK=1` takes the lines that match now out of the list.

#[path = "../common/mod.rs"]
mod common;

mod api;
mod compare;
mod frames;
mod not_yet;
mod raw;
mod recording;

use not_yet::NotYet;
use recording::{Recording, Script};

/// What became of one step.
pub struct Outcome {
    /// `file:line`, the line counted from 1 in the recording.
    pub id: String,
    /// What the step is about, for people.
    pub title: String,
    /// What differs, one line each; empty when all is as recorded.
    pub differences: Vec<String>,
}

fn replay(name: &str) {
    let Some(recording) = Recording::load(name) else {
        println!(
            "skipped: there are no recordings at {:?}",
            recording::folder()
        );
        return;
    };
    let not_yet = NotYet::load();
    let expected_to_match = |id: &str| !not_yet.contains(id);
    let outcomes = match &recording.script {
        Script::Raw(connections) => raw::replay(&recording, connections, &expected_to_match),
        Script::Api(steps) => api::replay(&recording, steps, &expected_to_match),
    };
    not_yet.judge(name, &outcomes);
}

#[test]
fn the_client_protocol_answers_as_recorded() {
    replay("client-protocol");
}

#[test]
fn permissions_answer_as_recorded() {
    replay("client-permissions");
}

#[test]
fn the_jetstream_api_answers_as_recorded() {
    replay("jetstream-api");
}
