//! Push consumers: delivered as it comes, shared by a queue, in order, with heartbeats and flow control.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull, push};
use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;

use super::common::{Server, ServerOptions, Wire, eventually_async, http_get};
use super::{client, connect, plain, publish};

async fn ten(server: &Server) -> Stream {
    let context = connect(server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    for number in 0..10 {
        publish(&context, "s.a", &number.to_string()).await;
    }
    stream
}

fn to(subject: &str) -> push::Config {
    push::Config {
        durable_name: Some("p".to_owned()),
        deliver_subject: subject.to_owned(),
        ack_policy: AckPolicy::Explicit,
        ..push::Config::default()
    }
}

#[tokio::test]
async fn the_members_of_a_deliver_group_share_the_messages() {
    let server = Server::jetstream();
    let mut first = Wire::ready(server.address(), r#"{"verbose":false}"#);
    first.send("SUB here group 1\r\n");
    first.round_trip();
    let mut second = Wire::ready(server.address(), r#"{"verbose":false}"#);
    second.send("SUB here group 1\r\n");
    second.round_trip();
    let stream = ten(&server).await;
    let config = push::Config {
        deliver_group: Some("group".to_owned()),
        ..to("here")
    };
    stream.create_consumer(config).await.unwrap();
    eventually_async("every message has gone to one of them", async || {
        let count = |wire: &mut Wire| {
            wire.settle(Duration::from_millis(20));
            String::from_utf8_lossy(wire.received())
                .matches("MSG s.a")
                .count()
        };
        (count(&mut first) + count(&mut second) == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_looks_on_through_a_wildcard_sets_no_consumer_going() {
    let server = Server::jetstream();
    let mut onlooker = Wire::ready(server.address(), r#"{"verbose":false}"#);
    onlooker.send("SUB deliver.* 1\r\n");
    onlooker.round_trip();
    let stream = ten(&server).await;
    stream.create_consumer(to("deliver.here")).await.unwrap();
    let info = stream.consumer_info("p").await.unwrap();
    assert!(!info.push_bound && info.delivered.consumer_sequence == 0);
    let mut listener = Wire::ready(server.address(), r#"{"verbose":false}"#);
    listener.send("SUB deliver.here 1\r\n");
    listener.expect("$JS.ACK.S.p.1.10.10.");
    onlooker.expect("$JS.ACK.S.p.1.10.10.");
    // None came before somebody listened.
    let info = stream.consumer_info("p").await.unwrap();
    assert_eq!(info.delivered.consumer_sequence, 10);
}

#[tokio::test]
async fn who_is_in_no_deliver_group_sets_its_consumer_not_going() {
    let server = Server::jetstream();
    let mut alone = Wire::ready(server.address(), r#"{"verbose":false}"#);
    alone.send("SUB here 1\r\n");
    alone.round_trip();
    let stream = ten(&server).await;
    let config = push::Config {
        deliver_group: Some("group".to_owned()),
        ..to("here")
    };
    stream.create_consumer(config).await.unwrap();
    let info = stream.consumer_info("p").await.unwrap();
    assert!(!info.push_bound && info.delivered.consumer_sequence == 0);
    let mut member = Wire::ready(server.address(), r#"{"verbose":false}"#);
    member.send("SUB here group 1\r\n");
    member.expect("$JS.ACK.S.p.1.10.10.");
    assert!(stream.consumer_info("p").await.unwrap().push_bound);
}

#[tokio::test]
async fn an_idle_consumer_beats() {
    let server = Server::jetstream();
    let mut listener = Wire::ready(server.address(), r#"{"verbose":false,"headers":true}"#);
    listener.send("SUB here 1\r\n");
    listener.round_trip();
    let stream = ten(&server).await;
    let config = push::Config {
        idle_heartbeat: Duration::from_millis(200),
        ..to("here")
    };
    stream.create_consumer(config).await.unwrap();
    listener.expect(
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 10\r\nNats-Last-Stream: 10\r\n",
    );
}

#[tokio::test]
async fn two_push_consumers_may_not_have_one_name_in_use() {
    let server = Server::jetstream();
    let stream = ten(&server).await;
    let consumer = stream.create_consumer(to("here")).await.unwrap();
    let _messages = consumer.messages().await.unwrap();
    eventually_async("it is bound", async || {
        let info = stream.consumer_info("p").await.unwrap();
        info.push_bound.then_some(())
    })
    .await;
    assert!(stream.create_consumer(to("elsewhere")).await.is_err());
}

/// The long form of what acks and flow control answers begin with, for the global account outside of any domain.
const LONG: &str = "_.szMpdrwD.";

#[tokio::test]
async fn acks_are_heard_in_both_forms_and_written_in_the_one_that_is_asked_for() {
    for long in [true, false] {
        let server = ServerOptions::default()
            .jetstream()
            .monitoring()
            .config(&format!("feature_flags {{ js_ack_fc_v2: {long} }}"))
            .start();
        assert!(server.log().contains("Feature flags:"), "{}", server.log());
        let stream = ten(&server).await;
        let config = pull::Config {
            durable_name: Some("C".to_owned()),
            ..pull::Config::default()
        };
        let mut consumer = stream.create_consumer(config).await.unwrap();
        let messages = consumer.fetch().max_messages(2).messages().await.unwrap();
        let messages: Vec<_> = messages.try_collect().await.unwrap();
        let subject = messages[0].reply.clone().expect("an ack subject");
        let written = if long { LONG } else { "" };
        assert!(
            subject.starts_with(&format!("$JS.ACK.{written}S.C.1.1.1.")),
            "{subject}"
        );
        assert_eq!(messages[0].info().unwrap().consumer_sequence, 1);
        messages[0].double_ack().await.unwrap();
        // The other form of the second one's.
        let other = messages[1]
            .reply
            .clone()
            .expect("an ack subject")
            .to_string();
        let other = match long {
            true => other.replace(LONG, ""),
            false => other.replace("$JS.ACK.", &format!("$JS.ACK.{LONG}")),
        };
        let client = client(&server).await;
        client.request(other.clone(), "+ACK".into()).await.unwrap();
        assert_eq!(consumer.info().await.unwrap().num_ack_pending, 0);
        // An ack is for one account.
        let foreign = format!(
            "$JS.ACK._.abcdefgh.{}",
            other.rsplit("S.C.").next().unwrap()
        );
        let nobody = client.request(foreign, "+ACK".into()).await;
        assert!(nobody.is_err());
        let varz = http_get(server.monitor_address(), "/varz").unwrap();
        let varz: serde_json::Value = serde_json::from_str(&varz.body).unwrap();
        assert_eq!(varz["feature_flags"]["js_ack_fc_v2"], long);
    }
}

#[tokio::test]
async fn flow_control_is_answered_in_the_form_in_which_it_was_asked() {
    let server = ServerOptions::default()
        .jetstream()
        .config("feature_flags { js_ack_fc_v2: true }")
        .start();
    let context = connect(&server).await;
    let stream = context.create_stream(plain("S")).await.unwrap();
    let mut listener = Wire::ready(server.address(), r#"{"verbose":false}"#);
    listener.send("SUB here 1\r\n");
    listener.round_trip();
    let config = push::Config {
        flow_control: true,
        idle_heartbeat: Duration::from_secs(5),
        ack_policy: AckPolicy::None,
        ..to("here")
    };
    stream.create_consumer(config).await.unwrap();
    for _ in 0..6 {
        publish(&context, "s.a", &"x".repeat(700 << 10)).await;
    }
    let asked = format!("$JS.FC.{LONG}S.p.");
    listener.expect(&asked);
    let subject = format!("{asked}{}", listener.expect(" ").trim());
    listener.send(format!("PUB {subject} 0\r\n\r\n"));
    // More than the window holds.
    listener.expect(&format!("$JS.ACK.{LONG}S.p.1.6.6."));
}
