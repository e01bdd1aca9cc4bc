//! JetStream as clients see it: a stock client library against the real binary.

#[path = "../common/mod.rs"]
mod common;

mod advisories;
mod batches;
mod consumers;
mod copies;
mod durability;
mod key_value;
mod management;
mod objects;
mod publishing;
mod pulls;
mod pushes;
mod restarts;
mod retention;
mod settings;
mod streams;

use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};

use common::Server;

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A JetStream client; its errors end the test.
async fn connect(server: &Server) -> Context {
    jetstream::new(client(server).await)
}

async fn client(server: &Server) -> async_nats::Client {
    async_nats::connect(server.url())
        .await
        .expect("the server accepts clients")
}

/// The number that an environment variable gives.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Publishes and waits for the ack; says the sequence.
async fn publish(context: &Context, subject: &str, payload: impl Into<String>) -> u64 {
    let ack = context
        .publish(subject.to_owned(), payload.into().into())
        .await
        .expect("the connection is up");
    ack.await.expect("an ack").sequence
}

/// A stream over `name.>` with nothing else set.
fn plain(name: &str) -> stream::Config {
    stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{}.>", name.to_lowercase())],
        ..stream::Config::default()
    }
}

/// A message's payload as text.
fn text(payload: &[u8]) -> &str {
    std::str::from_utf8(payload).expect("text")
}
