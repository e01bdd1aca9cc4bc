//! Core messaging with a stock client.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use common::{Server, Wire};
use futures_util::StreamExt;

const PATIENCE: Duration = Duration::from_secs(10);

async fn client(server: &Server) -> Client {
    async_nats::connect(server.url())
        .await
        .expect("the server takes clients")
}

/// Returns when the server has taken all that the client has said so far; the client's own flush only empties its buffer.
async fn round_trip(client: &Client) {
    let error = client.request("nobody.is.here", "".into()).await;
    assert!(error.is_err());
}

async fn next(subscriber: &mut Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .expect("a message comes")
        .expect("the subscription goes on")
}

/// Waits for `count` messages and returns their payloads.
async fn payloads(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    for _ in 0..count {
        let message = next(subscriber).await;
        payloads.push(String::from_utf8(message.payload.to_vec()).expect("text"));
    }
    payloads
}

#[tokio::test]
async fn a_message_reaches_every_subscription_that_matches() {
    let server = Server::core();
    let client = client(&server).await;
    let mut literal = client.subscribe("orders.new").await.unwrap();
    let mut one_token = client.subscribe("orders.*").await.unwrap();
    let mut tail = client.subscribe("orders.>").await.unwrap();
    let mut other = client.subscribe("invoices.>").await.unwrap();
    client.publish("orders.new", "a".into()).await.unwrap();
    client.publish("orders.new.eu", "b".into()).await.unwrap();
    client.publish("invoices.1", "c".into()).await.unwrap();
    assert_eq!(payloads(&mut literal, 1).await, ["a"]);
    assert_eq!(payloads(&mut one_token, 1).await, ["a"]);
    assert_eq!(payloads(&mut tail, 2).await, ["a", "b"]);
    assert_eq!(payloads(&mut other, 1).await, ["c"]);
}

#[tokio::test]
async fn messages_of_one_publisher_arrive_in_order() {
    let server = Server::core();
    let publisher = client(&server).await;
    let receiver = client(&server).await;
    let mut subscriber = receiver.subscribe("count").await.unwrap();
    round_trip(&receiver).await;
    for number in 0..10_000 {
        let payload = format!("{number}");
        publisher.publish("count", payload.into()).await.unwrap();
    }
    round_trip(&publisher).await;
    let expected: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&mut subscriber, 10_000).await, expected);
}

#[tokio::test]
async fn each_message_goes_to_one_member_of_each_queue_group() {
    let server = Server::core();
    let first = client(&server).await;
    let second = client(&server).await;
    let mut members = Vec::new();
    for (client, group) in [(&first, "a"), (&second, "a"), (&first, "b")] {
        let queue = group.to_owned();
        members.push(client.queue_subscribe("work", queue).await.unwrap());
    }
    round_trip(&first).await;
    round_trip(&second).await;
    for number in 0..200 {
        let payload = format!("{number}");
        first.publish("work", payload.into()).await.unwrap();
    }
    // Both groups together have seen all when the mark behind the last message has come through each connection.
    let all: BTreeSet<String> = (0..200).map(|number| number.to_string()).collect();
    let alone: BTreeSet<String> = payloads(&mut members[2], 200).await.into_iter().collect();
    assert_eq!(alone, all);
    let [one, two, _] = &mut members[..] else {
        unreachable!()
    };
    let mut shared = Vec::new();
    while shared.len() < 200 {
        let message = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                message = one.next() => message,
                message = two.next() => message,
            }
        });
        let message = message.await.expect("a message comes").expect("goes on");
        shared.push(String::from_utf8(message.payload.to_vec()).unwrap());
    }
    assert_eq!(shared.into_iter().collect::<BTreeSet<_>>(), all);
}

#[tokio::test]
async fn both_members_of_a_queue_group_get_a_share() {
    let server = Server::core();
    let mut members = [0, 0];
    let mut wire = Wire::ready(server.address(), r#"{"verbose":false}"#);
    wire.send("SUB work g 1\r\nSUB work g 2\r\n");
    wire.send("PUB work 1\r\nx\r\n".repeat(400));
    for line in wire.round_trip().lines() {
        match line {
            "MSG work 1 1" => members[0] += 1,
            "MSG work 2 1" => members[1] += 1,
            _ => {}
        }
    }
    assert_eq!(members[0] + members[1], 400);
    // With equal chances, fewer than 100 of 400 for one of them is next to impossible.
    assert!(members.iter().all(|&count| count > 100), "{members:?}");
}

#[tokio::test]
async fn headers_travel_with_their_message() {
    let server = Server::core();
    let client = client(&server).await;
    let mut subscriber = client.subscribe("h").await.unwrap();
    let mut headers = HeaderMap::new();
    headers.append("Kind", "first");
    headers.append("Kind", "second");
    headers.insert("Other", "x");
    client
        .publish_with_headers("h", headers.clone(), "body".into())
        .await
        .unwrap();
    let message = next(&mut subscriber).await;
    assert_eq!(message.headers, Some(headers));
    assert_eq!(&message.payload[..], b"body");
}

#[tokio::test]
async fn a_client_that_does_not_take_headers_gets_the_payload_alone() {
    let server = Server::core();
    let mut plain = Wire::ready(server.address(), r#"{"verbose":false,"headers":false}"#);
    plain.send("SUB h 1\r\n");
    plain.round_trip();
    let mut sender = Wire::ready(server.address(), r#"{"verbose":false,"headers":true}"#);
    sender.send("HPUB h 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\n");
    sender.round_trip();
    assert_eq!(plain.expect("hi\r\n"), "MSG h 1 2\r\nhi\r\n");
}

#[tokio::test]
async fn a_request_gets_the_answer_of_a_responder() {
    let server = Server::core();
    let responder = client(&server).await;
    let mut requests = responder.subscribe("double").await.unwrap();
    round_trip(&responder).await;
    let answering = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let number: u64 = std::str::from_utf8(&request.payload)
                .unwrap()
                .parse()
                .unwrap();
            let reply = request.reply.expect("a request has a reply subject");
            let answer = format!("{}", number * 2);
            responder.publish(reply, answer.into()).await.unwrap();
        }
    });
    let client = client(&server).await;
    for number in 0..100u64 {
        let answer = client
            .request("double", format!("{number}").into())
            .await
            .unwrap();
        assert_eq!(answer.payload, format!("{}", number * 2));
    }
    answering.abort();
}

#[tokio::test]
async fn a_request_that_nobody_serves_is_told_so_at_once() {
    let server = Server::core();
    let client = client(&server).await;
    let error = client.request("nobody", "".into()).await.unwrap_err();
    assert_eq!(
        error.kind(),
        async_nats::client::RequestErrorKind::NoResponders
    );
}

#[tokio::test]
async fn without_echo_a_client_does_not_hear_itself() {
    let server = Server::core();
    let deaf = ConnectOptions::new()
        .no_echo()
        .connect(server.url())
        .await
        .unwrap();
    let other = client(&server).await;
    let mut own = deaf.subscribe("e").await.unwrap();
    let mut others = other.subscribe("e").await.unwrap();
    round_trip(&other).await;
    deaf.publish("e", "mine".into()).await.unwrap();
    assert_eq!(payloads(&mut others, 1).await, ["mine"]);
    other.publish("e", "theirs".into()).await.unwrap();
    assert_eq!(payloads(&mut own, 1).await, ["theirs"]);
}

#[tokio::test]
async fn a_subscription_ends_after_the_messages_it_asked_for() {
    let server = Server::core();
    let client = client(&server).await;
    let mut subscriber = client.subscribe("few").await.unwrap();
    subscriber.unsubscribe_after(3).await.unwrap();
    for number in 0..10 {
        let payload = format!("{number}");
        client.publish("few", payload.into()).await.unwrap();
    }
    assert_eq!(payloads(&mut subscriber, 3).await, ["0", "1", "2"]);
    assert!(subscriber.next().await.is_none());
}

#[tokio::test]
async fn an_auto_unsubscribe_across_connections_counts_what_was_delivered() {
    let server = Server::core();
    let mut receiver = Wire::ready(server.address(), r#"{"verbose":false}"#);
    receiver.send("SUB few 1\r\nUNSUB 1 2\r\n");
    receiver.round_trip();
    let mut sender = Wire::ready(server.address(), r#"{"verbose":false}"#);
    sender.send("PUB few 1\r\na\r\nPUB few 1\r\nb\r\nPUB few 1\r\nc\r\n");
    sender.round_trip();
    receiver.expect("b\r\n");
    assert_eq!(receiver.round_trip(), "");
}

#[tokio::test]
async fn draining_delivers_what_was_on_its_way() {
    let server = Server::core();
    let receiver = client(&server).await;
    let sender = client(&server).await;
    let mut subscriber = receiver.subscribe("last").await.unwrap();
    round_trip(&receiver).await;
    for _ in 0..1_000 {
        sender.publish("last", "x".into()).await.unwrap();
    }
    round_trip(&sender).await;
    receiver.drain().await.unwrap();
    let mut count = 0;
    while let Ok(Some(_)) = tokio::time::timeout(PATIENCE, subscriber.next()).await {
        count += 1;
    }
    assert_eq!(count, 1_000);
}

#[tokio::test]
async fn large_and_empty_payloads_arrive_whole() {
    let server = Server::core();
    let client = client(&server).await;
    let mut subscriber = client.subscribe("size").await.unwrap();
    for size in [0, 1, 4_095, 4_096, 65_537, 1024 * 1024] {
        let payload: Vec<u8> = (0..size).map(|place| (place % 251) as u8).collect();
        client
            .publish("size", payload.clone().into())
            .await
            .unwrap();
        assert!(
            next(&mut subscriber).await.payload == payload,
            "{size} bytes"
        );
    }
}

#[tokio::test]
async fn what_a_closed_client_subscribed_to_is_forgotten() {
    let server = Server::core();
    let mut gone = Wire::ready(server.address(), r#"{"verbose":false}"#);
    gone.send("SUB service 1\r\n");
    gone.round_trip();
    drop(gone);
    let client = client(&server).await;
    common::eventually_async("nobody serves any more", async || {
        let error = client.request("service", "".into()).await.unwrap_err();
        (error.kind() == async_nats::client::RequestErrorKind::NoResponders).then_some(())
    })
    .await;
}
