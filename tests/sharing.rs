//! What accounts take from each other: streams that they listen to, and services that they ask.

mod common;

use std::time::Duration;

use async_nats::{Client, Subscriber, jetstream};
use common::{Server, ServerOptions, Wire, connect_as, eventually_async, http_get, round_trip};
use futures_util::StreamExt;
use rustix::process::Signal;

const SHARING: &str = r#"
    accounts {
      A {
        users: [ {user: a, password: a} ]
        exports: [
          {stream: "news.>"}
          {service: "help.*"}
          {service: "list", response_type: stream, response_threshold: "30s"}
          {service: "private", accounts: [C]}
        ]
      }
      B {
        users: [ {user: b, password: b} ]
        imports: [
          {stream: {account: A, subject: "news.>"}, prefix: "of.a"}
          {service: {account: A, subject: "help.*"}, to: "support.*", share: true}
          {service: {account: A, subject: "list"}}
        ]
      }
      C { users: [ {user: c, password: c} ] }
    }
"#;

async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    let next = tokio::time::timeout(Duration::from_secs(20), subscriber.next());
    next.await.expect("a message in time").expect("a message")
}

async fn answer_everything(client: &Client, subject: &'static str) {
    let mut questions = client.subscribe(subject).await.expect("subscribed");
    round_trip(client).await;
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let Some(reply) = question.reply {
                let answer = format!("{} {:?}", question.subject, question.headers);
                let _ = client.publish(reply, answer.into()).await;
            }
        }
    });
}

/// The subject of the next message that is none of the inboxes of a round trip.
async fn next_but_inboxes(subscriber: &mut Subscriber) -> String {
    loop {
        let message = next(subscriber).await;
        if !message.subject.starts_with("_INBOX.") {
            return message.subject.into_string();
        }
    }
}

#[tokio::test]
async fn a_stream_of_another_account_is_heard_under_its_name_here() {
    let server = ServerOptions::default().config(SHARING).start();
    let (a, b, c) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
        connect_as(&server, "c").await,
    );
    let mut heard = b.subscribe("of.a.news.*").await.expect("subscribed");
    let mut all = b.subscribe(">").await.expect("subscribed");
    let mut unheard = c.subscribe(">").await.expect("subscribed");
    for client in [&b, &c] {
        round_trip(client).await;
    }
    a.publish("news.x", "1".into()).await.expect("published");
    a.flush().await.expect("flushed");
    assert_eq!(next(&mut heard).await.subject.as_str(), "of.a.news.x");
    assert_eq!(next_but_inboxes(&mut all).await, "of.a.news.x");
    c.publish("end", "".into()).await.expect("published");
    assert_eq!(next_but_inboxes(&mut unheard).await, "end");
}

#[tokio::test]
async fn a_service_of_another_account_answers_and_learns_who_asks() {
    let server = ServerOptions::default().config(SHARING).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    // Nobody answers: that is said at once.
    let refused = b.request("support.x", "?".into()).await;
    let refused = refused.expect_err("nobody listens");
    assert_eq!(refused.kind(), async_nats::RequestErrorKind::NoResponders);
    answer_everything(&a, "help.*").await;
    for size in [1, 100_000] {
        let question = vec![b'?'; size].into();
        let answer = b.request("support.x", question).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(answer.starts_with("help.x "), "{answer}");
        assert!(answer.contains("Nats-Request-Info"), "{answer}");
        assert!(answer.contains(r#"\"acc\":\"B\""#), "{answer}");
        assert!(answer.contains(r#"\"user\":\"b\""#), "{answer}");
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_in_pieces_until_an_empty_one() {
    let server = ServerOptions::default().config(SHARING).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let mut questions = a.subscribe("list").await.expect("subscribed");
    round_trip(&a).await;
    let mut answers = b.subscribe("inbox").await.expect("subscribed");
    b.publish_with_reply("list", "inbox", "?".into())
        .await
        .expect("asked");
    let reply = next(&mut questions).await.reply.expect("a reply");
    assert!(reply.starts_with("_R_."), "{reply}");
    for piece in ["1", "2", "", "after the end"] {
        a.publish(reply.clone(), piece.into())
            .await
            .expect("answered");
    }
    round_trip(&a).await;
    b.publish("inbox", "own".into()).await.expect("published");
    for piece in ["1", "2", "", "own"] {
        assert_eq!(next(&mut answers).await.payload, piece);
    }
}

#[tokio::test]
async fn a_reload_takes_up_what_accounts_share_now() {
    let mut server = ServerOptions::default().config(SHARING).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let mut heard = b.subscribe("*.news.>").await.expect("subscribed");
    let mut before = b.subscribe("of.a.news.*").await.expect("subscribed");
    answer_everything(&a, "help.*").await;
    let changed = SHARING
        .replace("of.a", "moved")
        .replace("support.*", "desk.*");
    server.write_config(&changed);
    server.signal(Signal::HUP);
    server.wait_for_log("Reloaded server configuration");
    b.request("desk.x", "?".into()).await.expect("an answer");
    let refused = b.request("support.x", "?".into()).await.expect_err("gone");
    assert_eq!(refused.kind(), async_nats::RequestErrorKind::NoResponders);
    a.publish("news.x", "1".into()).await.expect("published");
    assert_eq!(next(&mut heard).await.subject.as_str(), "moved.news.x");
    // Nothing comes under the earlier name but what is published here.
    b.publish("of.a.news.own", "".into())
        .await
        .expect("published");
    assert_eq!(next(&mut before).await.subject.as_str(), "of.a.news.own");
}

#[test]
fn imports_that_nobody_exports_do_not_start() {
    let text = SHARING.replace(r#"subject: "list""#, r#"subject: "private""#);
    let refusal = ServerOptions::default().config(&text).try_start();
    let refusal = refusal.err().expect("not started");
    let reason = "Error adding service import \"private\": service import not authorized";
    assert!(refusal.contains(reason), "{refusal}");
}

const STREAMS: &str = r#"
    jetstream { store_dir: "@DIR@/store" }
    accounts {
      A {
        jetstream: enabled
        users: [ {user: a, password: a} ]
        exports: [
          {service: "$JS.API.CONSUMER.>", response_type: stream}
          {service: "$JS.ACK.>"}
          {service: "$JS.FC.>"}
          {stream: "deliver.>"}
        ]
      }
      B {
        jetstream: enabled
        users: [ {user: b, password: b} ]
        imports: [
          {service: {account: A, subject: "$JS.API.CONSUMER.>"}, to: "a.API.CONSUMER.>"}
          {service: {account: A, subject: "$JS.ACK.>"}}
          {service: {account: A, subject: "$JS.FC.>"}}
          {stream: {account: A, subject: "deliver.>"}}
        ]
      }
    }
"#;

async fn stream_of_a(server: &Server, messages: usize) -> (Client, jetstream::stream::Stream) {
    let a = connect_as(server, "a").await;
    let context = jetstream::new(a.clone());
    let config = jetstream::stream::Config {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        ..Default::default()
    };
    let stream = context.create_stream(config).await.expect("created");
    for at in 0..messages {
        let ack = context.publish(format!("s.{at}"), format!("{at}").into());
        ack.await.expect("published").await.expect("stored");
    }
    (a, stream)
}

#[tokio::test]
async fn a_stream_of_another_account_is_mirrored_through_imports() {
    let server = ServerOptions::default().config(STREAMS).start();
    let (_a, _) = stream_of_a(&server, 50).await;
    let b = jetstream::new(connect_as(&server, "b").await);
    let config = jetstream::stream::Config {
        name: "M".into(),
        mirror: Some(jetstream::stream::Source {
            name: "S".into(),
            external: Some(jetstream::stream::External {
                api_prefix: "a.API".into(),
                delivery_prefix: Some("deliver".into()),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut mirror = b.create_stream(config).await.expect("created");
    eventually_async("the mirror has all", async || {
        let info = mirror.info().await.ok()?;
        (info.state.messages == 50).then_some(())
    })
    .await;
    let last = mirror.get_raw_message(50).await.expect("stored");
    assert_eq!(
        (last.subject.as_str(), &last.payload[..]),
        ("s.49", &b"49"[..])
    );
    let info = mirror
        .info()
        .await
        .expect("info")
        .mirror
        .clone()
        .expect("a mirror");
    assert_eq!(info.lag, 0);
}

#[tokio::test]
async fn a_consumer_of_another_account_is_pulled_from_and_acknowledged_through_imports() {
    let server = ServerOptions::default().config(STREAMS).start();
    let (_a, stream) = stream_of_a(&server, 3).await;
    let config = jetstream::consumer::pull::Config {
        durable_name: Some("C".into()),
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await.expect("created");
    let b = connect_as(&server, "b").await;
    let mut inbox = b.subscribe("inbox").await.expect("subscribed");
    let pull = |body: &'static str| {
        b.publish_with_reply("a.API.CONSUMER.MSG.NEXT.S.C", "inbox", body.into())
    };
    pull(r#"{"batch":3,"expires":5000000000}"#)
        .await
        .expect("asked");
    for at in 0..3 {
        let message = next(&mut inbox).await;
        assert_eq!(message.subject.as_str(), format!("s.{at}"));
        let ack = message.reply.expect("an ack subject");
        assert!(ack.starts_with("$JS.ACK.S.C."), "{ack}");
        // An ack that asks for an answer comes back from the other account.
        b.request(ack, "+ACK".into()).await.expect("acknowledged");
    }
    let info = consumer.info().await.expect("info");
    assert_eq!((info.ack_floor.stream_sequence, info.num_pending), (3, 0));
    pull(r#"{"no_wait":true}"#).await.expect("asked");
    let status = next(&mut inbox).await.status;
    assert_eq!(status.map(|status| status.as_u16()), Some(404));
}

#[tokio::test]
async fn a_push_consumer_delivers_into_an_account_that_imports_its_subject() {
    let server = ServerOptions::default().config(STREAMS).start();
    let (_a, stream) = stream_of_a(&server, 2).await;
    let config = jetstream::consumer::push::Config {
        deliver_subject: "deliver.here".into(),
        durable_name: Some("P".into()),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("created");
    let b = connect_as(&server, "b").await;
    let mut heard = b.subscribe("deliver.here").await.expect("subscribed");
    for at in 0..2 {
        let message = next(&mut heard).await;
        assert_eq!(message.subject.as_str(), format!("s.{at}"));
        let ack = message.reply.expect("an ack subject");
        b.request(ack, "+ACK".into()).await.expect("acknowledged");
    }
}

/// Two servers of a cluster, each with this configuration.
fn pair() -> (Server, Server) {
    let ports: [u16; 2] = common::free_ports();
    let start = |own: usize| {
        let routes = ports
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .join(", ");
        let config = format!(
            "{SHARING}\ncluster {{ name: C, listen: \"127.0.0.1:{}\", routes: [{routes}] }}",
            ports[own]
        );
        ServerOptions::default().config(&config).start()
    };
    (start(0), start(1))
}

#[tokio::test]
async fn accounts_share_across_the_servers_of_a_cluster() {
    let (one, two) = pair();
    let (a, b) = (connect_as(&one, "a").await, connect_as(&two, "b").await);
    answer_everything(&a, "help.*").await;
    let mut heard = b.subscribe("of.a.>").await.expect("subscribed");
    // Interest needs a moment to reach the other server.
    let answer = eventually_async("an answer from the other server", async || {
        b.request("support.x", "?".into()).await.ok()
    })
    .await;
    assert!(answer.payload.starts_with(b"help.x"));
    let arrived = eventually_async("the stream is heard", async || {
        a.publish("news.x", "1".into()).await.ok()?;
        a.flush().await.ok()?;
        let next = tokio::time::timeout(Duration::from_millis(500), heard.next());
        next.await.ok().flatten()
    })
    .await;
    assert_eq!(arrived.subject.as_str(), "of.a.news.x");
}

#[test]
fn a_question_has_one_listener_of_each_group_and_no_reply_subject_that_a_client_may_name() {
    let server = ServerOptions::default().config(SHARING).start();
    let options = |user: &str| {
        format!(r#"{{"verbose":false,"headers":true,"user":"{user}","pass":"{user}"}}"#)
    };
    let mut a = Wire::ready(server.address(), &options("a"));
    let mut b = Wire::ready(server.address(), &options("b"));
    a.send("SUB help.* workers 1\r\nSUB help.* workers 2\r\n");
    a.round_trip();
    b.send("SUB inbox 1\r\nPUB support.x inbox 1\r\n?\r\nPUB support.y _R_.x 1\r\n?\r\n");
    b.expect("Permissions Violation for Publish with Reply of");
    let received = a.expect("\r\n?\r\n");
    assert_eq!(received.matches("HMSG help.x ").count(), 1, "{received}");
    assert!(!received.contains("help.y"), "{received}");
}

#[tokio::test]
async fn accountz_shows_what_is_shared_and_which_answers_are_waited_for() {
    let server = ServerOptions::default()
        .config(SHARING)
        .monitoring()
        .start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let mut questions = a.subscribe("list").await.expect("subscribed");
    let _inbox = b.subscribe("inbox").await.expect("subscribed");
    for client in [&a, &b] {
        round_trip(client).await;
    }
    b.publish_with_reply("list", "inbox", "?".into())
        .await
        .expect("asked");
    let reply = next(&mut questions).await.reply.expect("a reply");
    let look = |account: &str| {
        let answer = http_get(
            server.monitor_address(),
            &format!("/accountz?acc={account}"),
        );
        let body = answer.expect("an answer").body;
        let all: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        all["account_detail"].clone()
    };
    let (of_a, of_b) = (look("A"), look("B"));
    let exports = of_a["exports"].as_array().expect("exports");
    assert_eq!(exports.len(), 4);
    let list = exports.iter().find(|export| export["subject"] == "list");
    assert_eq!(
        list.map(|list| &list["response_type"]),
        Some(&"Streamed".into())
    );
    let private = exports.iter().find(|export| export["subject"] == "private");
    assert_eq!(private.expect("exported")["approved_accounts"][0], "C");
    let imports = of_b["imports"].as_array().expect("imports");
    let of = |kind: &str, local: &str| {
        imports
            .iter()
            .any(|import| import["type"] == kind && import["local_subject"] == local)
    };
    assert!(
        of("stream", "of.a.news.>") && of("service", "support.*"),
        "{imports:?}"
    );
    let waited = &of_a["responses"][reply.as_str()];
    assert_eq!(
        (&waited["subject"], &waited["account"]),
        (&"inbox".into(), &"B".into())
    );
}

#[tokio::test]
async fn messages_of_a_batch_reach_a_stream_of_another_account_and_its_acks_come_back() {
    let config = r#"
        jetstream { store_dir: "@DIR@/store" }
        accounts {
          A {
            jetstream: enabled
            users: [ {user: a, password: a} ]
            exports: [ {service: "s.>"} ]
          }
          B {
            users: [ {user: b, password: b} ]
            imports: [ {service: {account: A, subject: "s.>"}, to: "of.a.>"} ]
          }
        }"#;
    let server = ServerOptions::default().config(config).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let stream = r#"{"name":"S","subjects":["s.>"],"allow_batched":true,"allow_atomic":true}"#;
    let made = a.request("$JS.API.STREAM.CREATE.S", stream.into()).await;
    let made = made.expect("an answer").payload;
    assert!(
        !String::from_utf8_lossy(&made).contains("error"),
        "{made:?}"
    );
    let mut acks = b.subscribe("inbox.>").await.expect("subscribed");
    for said in ["1.0", "2.1", "4.2"] {
        let reply = format!("inbox.id.9.ok.{said}.$FI");
        b.publish_with_reply("of.a.x", reply, said.into())
            .await
            .expect("published");
    }
    // The last one comes after a gap: two things are said of it.
    for (said, told) in [
        ("1.0", r#"{"type":"ack","seq":0,"msgs":9}"#),
        ("4.2", r#"{"type":"gap","last_seq":3,"seq":4}"#),
        ("4.2", r#"{"stream":"S","seq":3,"batch":"id","count":4}"#),
    ] {
        let ack = next(&mut acks).await;
        assert_eq!(ack.subject.as_str(), format!("inbox.id.9.ok.{said}.$FI"));
        assert_eq!(String::from_utf8_lossy(&ack.payload), told);
    }
    for at in ["1", "2"] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", "atomic");
        headers.insert("Nats-Batch-Sequence", at);
        if at == "2" {
            headers.insert("Nats-Batch-Commit", "1");
        }
        b.publish_with_reply_and_headers("of.a.y", format!("inbox.{at}"), headers, at.into())
            .await
            .expect("published");
    }
    let last = loop {
        let ack = next(&mut acks).await;
        if ack.subject.as_str() == "inbox.2" {
            break ack;
        }
    };
    assert_eq!(
        String::from_utf8_lossy(&last.payload),
        r#"{"stream":"S","seq":5,"batch":"atomic","count":2}"#
    );
}

#[tokio::test]
async fn who_asks_is_told_to_be_in_a_cluster_by_the_name_that_it_has_now() {
    let config = |name: &str| {
        format!("server_name: s\n{SHARING}\ncluster {{ name: {name}, listen: '127.0.0.1:-1' }}")
    };
    let mut server = ServerOptions::default().config(&config("before")).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    answer_everything(&a, "help.*").await;
    server.write_config(&config("after"));
    server.signal(Signal::HUP);
    server.wait_for_log("Reloaded server configuration");
    let answer = b.request("support.x", "?".into()).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains(r#"\"cluster\":\"after\""#), "{answer}");
}
