//! Push consumers: delivered as it comes, shared by a queue, in order, with heartbeats and flow control.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::stream::Stream;

use super::common::{Server, Wire, eventually_async};
use super::{connect, plain, publish};

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
