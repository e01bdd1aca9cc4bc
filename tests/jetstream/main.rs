//! JetStream as clients see it: a stock client library against the real binary.

#[path = "../common/mod.rs"]
mod common;

mod advisories;
mod consumers;
mod durability;
mod key_value;
mod objects;
mod streams;

use async_nats::jetstream::{self, Context};

use common::Server;

/// A JetStream client; its errors end the test.
async fn connect(server: &Server) -> Context {
    jetstream::new(client(server).await)
}

async fn client(server: &Server) -> async_nats::Client {
    async_nats::connect(server.url())
        .await
        .expect("the server accepts clients")
}

/// Publishes and waits for the ack; says the sequence.
async fn publish(context: &Context, subject: &str, payload: impl Into<String>) -> u64 {
    let ack = context
        .publish(subject.to_owned(), payload.into().into())
        .await
        .expect("the connection is up");
    ack.await.expect("an ack").sequence
}
