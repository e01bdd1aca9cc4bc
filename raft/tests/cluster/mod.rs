//! Several servers in one process: groups over journals, a network that can be cut, and a state machine that remembers.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod server;
pub mod store;

use std::time::Duration;

use bytes::Bytes;
use raft::group::{Group, Outcome};

/// Nothing that is waited for takes longer, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = tokio::time::Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Proposes and waits for the outcome.
pub async fn propose(group: &Group, command: impl Into<Bytes>, timeout: Duration) -> Outcome {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    group.propose(command.into(), timeout, move |outcome| {
        let _ = sender.send(outcome);
    });
    receiver.await.expect("every proposal is answered")
}
