//! What happens to streams is told to those who listen.

use async_nats::jetstream::stream::Config;
use futures_util::StreamExt;
use serde_json::Value;

use super::common::Server;
use super::{client, connect};

#[tokio::test]
async fn creating_and_deleting_a_stream_is_reported() {
    let server = Server::jetstream();
    let listener = client(&server).await;
    let mut events = listener
        .subscribe("$JS.EVENT.ADVISORY.STREAM.>")
        .await
        .expect("subscribed");
    listener.flush().await.expect("flushed");
    let context = connect(&server).await;
    let config = Config {
        name: "S".to_owned(),
        ..Config::default()
    };
    context.create_stream(config).await.expect("created");
    context.delete_stream("S").await.expect("deleted");
    for (verb, action) in [("CREATED", "create"), ("DELETED", "delete")] {
        let event = events.next().await.expect("an advisory");
        assert_eq!(
            event.subject.as_str(),
            format!("$JS.EVENT.ADVISORY.STREAM.{verb}.S")
        );
        let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
        assert_eq!(event["type"], "io.nats.jetstream.advisory.v1.stream_action");
        assert_eq!(
            (&event["stream"], &event["action"]),
            (&"S".into(), &action.into())
        );
    }
}

#[tokio::test]
async fn every_api_request_is_reported_with_its_answer() {
    let server = Server::jetstream();
    let listener = client(&server).await;
    let mut audits = listener
        .subscribe("$JS.EVENT.ADVISORY.API")
        .await
        .expect("subscribed");
    listener.flush().await.expect("flushed");
    let reply = client(&server)
        .await
        .request("$JS.API.STREAM.INFO.NOPE", "".into())
        .await
        .expect("an answer");
    let audit = audits.next().await.expect("an audit");
    let audit: Value = serde_json::from_slice(&audit.payload).expect("JSON");
    assert_eq!(audit["type"], "io.nats.jetstream.advisory.v1.api_audit");
    assert_eq!(audit["subject"], "$JS.API.STREAM.INFO.NOPE");
    assert_eq!(
        audit["response"].as_str().map(str::as_bytes),
        Some(reply.payload.as_ref())
    );
    assert_eq!(audit["client"]["kind"], "Client");
    assert_eq!(audit["client"]["client_type"], "nats");
    let round_trip = audit["client"]["rtt"].as_u64().expect("it is known");
    assert!(round_trip > 0 && round_trip < 60_000_000_000, "{audit}");
    assert_eq!(audit["client"].get("cluster"), None, "it is in none");
}
