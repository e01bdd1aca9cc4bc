//! A client as the library has it, of a user whose password is its name.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use futures_util::StreamExt;

use super::Server;

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects as a user whose password is its name.
pub async fn connect_as(server: &Server, user: &str) -> Client {
    ConnectOptions::with_user_and_password(user.into(), user.into())
        .connect(server.url())
        .await
        .expect("the user is known")
}

/// Returns when the server has seen all that the client said before.
pub async fn round_trip(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    next_subject(&mut echo).await;
}

/// The subject of the next message.
pub async fn next_subject(subscriber: &mut Subscriber) -> String {
    let message = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    let message = message.expect("nothing came").expect("still subscribed");
    message.subject.to_string()
}
