//! Streams on three servers, as publishers and consumers see them: what holds of one server holds of three, also when another one leads.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::Message as Delivered;
use async_nats::{Client, ConnectOptions, HeaderMap, Message, StatusCode};
use common::{Members, Server, eventually_async, healthy};
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// Servers `s1` to `s3` of one cluster.
fn start_three() -> Vec<Server> {
    let tags = |at| format!("server_tags: ['at:s{at}', all]");
    Members::of("trio").each(tags).start_healthy::<3>()
}

/// Three servers, and a client of the first.
async fn three() -> (Vec<Server>, Client) {
    let servers = tokio::task::spawn_blocking(start_three);
    let servers = servers.await.expect("three servers");
    let client = connect(&servers[0]).await;
    (servers, client)
}

async fn connect(server: &Server) -> Client {
    let options = ConnectOptions::new().request_timeout(Some(PATIENCE));
    options.connect(server.url()).await.expect("it listens")
}

/// The answer of somebody who can give one: while nobody leads, nobody may answer.
async fn api(client: &Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    eventually_async("the request is answered", async || {
        let asked = client.request(format!("$JS.API.{subject}"), payload.clone().into());
        let answer = tokio::time::timeout(Duration::from_secs(3), asked).await;
        serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()
    })
    .await
}

/// Asks until it is done.
async fn done(client: &Client, subject: &str, body: Value) -> Value {
    eventually_async("it is done", async || {
        let answer = api(client, subject, body.clone()).await;
        answer["error"].is_null().then_some(answer)
    })
    .await
}

async fn create(client: &Client, config: Value) {
    let name = config["name"].as_str().expect("a name");
    done(client, &format!("STREAM.CREATE.{name}"), config.clone()).await;
}

/// Makes a consumer with explicit acks that redelivers after so many milliseconds.
async fn create_consumer(client: &Client, stream: &str, name: &str, ack_wait_ms: u64) {
    let config = json!({"durable_name": name, "ack_policy": "explicit", "ack_wait": ack_wait_ms * 1_000_000});
    let body = json!({"stream_name": stream, "config": config});
    let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
    done(client, &subject, body).await;
}

/// Lets a server lead a stream, and waits until all replicas are current.
async fn led_by(client: &Client, stream: &str, server: &str) {
    eventually_async("the server leads, and all are current", async || {
        let info = api(client, &format!("STREAM.INFO.{stream}"), Value::Null).await;
        let cluster = &info["cluster"];
        if cluster["leader"] != server {
            let body = json!({"placement": {"preferred": server}});
            api(client, &format!("STREAM.LEADER.STEPDOWN.{stream}"), body).await;
            return None;
        }
        let replicas = cluster["replicas"].as_array()?;
        let current = replicas.iter().filter(|one| one["current"] == true);
        (current.count() == 2).then_some(())
    })
    .await;
}

/// The same for a consumer, which may be led by another server than its stream.
async fn consumer_led_by(client: &Client, stream: &str, consumer: &str, server: &str) {
    eventually_async("the server leads the consumer", async || {
        let subject = format!("CONSUMER.INFO.{stream}.{consumer}");
        let info = api(client, &subject, Value::Null).await;
        if info["cluster"]["leader"] == server {
            return Some(());
        }
        let body = json!({"placement": {"preferred": server}});
        let subject = format!("CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}");
        api(client, &subject, body).await;
        None
    })
    .await;
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, *value);
    }
    headers
}

/// What a publish is answered.
async fn publish(client: &Client, subject: &str, pairs: &[(&str, &str)], payload: &str) -> Value {
    let asked = client.request_with_headers(
        subject.to_owned(),
        headers(pairs),
        payload.to_owned().into(),
    );
    let answer = asked.await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// Publishes until somebody who leads has stored it.
async fn stored(client: &Client, subject: &str, pairs: &[(&str, &str)], payload: &str) -> Value {
    eventually_async("the message is stored", async || {
        let asked = client.request_with_headers(
            subject.to_owned(),
            headers(pairs),
            payload.to_owned().into(),
        );
        let answer = tokio::time::timeout(Duration::from_secs(3), asked).await;
        let answer: Value = serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()?;
        answer["error"].is_null().then_some(answer)
    })
    .await
}

/// A pull request, and where its answers come.
async fn pull(
    client: &Client,
    stream: &str,
    consumer: &str,
    body: Value,
) -> async_nats::Subscriber {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.expect("subscribed");
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    client
        .publish_with_reply(subject, inbox, body.to_string().into())
        .await
        .expect("sent");
    client.flush().await.expect("flushed");
    answers
}

async fn next(answers: &mut async_nats::Subscriber) -> Message {
    let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
    answer.expect("nothing came").expect("still subscribed")
}

/// The next message of a consumer, asked for again while nobody who leads hears it: its sequence in the stream, how often it was delivered, and itself.
async fn fetch(client: &Client, stream: &str, consumer: &str) -> (u64, i64, Message) {
    eventually_async("a message comes", async || {
        let body = json!({"batch": 1, "expires": 1_000_000_000});
        let mut answers = pull(client, stream, consumer, body).await;
        let answer = tokio::time::timeout(Duration::from_secs(2), answers.next()).await;
        let message = answer.ok()??;
        if message.status.is_some() {
            return None;
        }
        let context = async_nats::jetstream::new(client.clone());
        let delivered = Delivered {
            message: message.clone(),
            context,
        };
        let info = delivered.info().expect("an ack subject");
        Some((info.stream_sequence, info.delivered, message.clone()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_is_confirmed_when_a_majority_has_it_and_what_was_delivered_is_known_to_the_next_leader()
 {
    let (mut servers, client) = three().await;
    let config = json!({"name": "S", "subjects": ["s"], "num_replicas": 3});
    create(&client, config).await;
    create_consumer(&client, "S", "C", 3000).await;
    led_by(&client, "S", "s1").await;
    consumer_led_by(&client, "S", "C", "s1").await;
    for _ in 0..2 {
        stored(&client, "s", &[], "hello").await;
    }
    let (first, delivered, message) = fetch(&client, "S", "C").await;
    assert_eq!((first, delivered), (1, 1));
    let ack = message.reply.expect("it can be acknowledged");
    let (second, delivered, _) = fetch(&client, "S", "C").await;
    assert_eq!((second, delivered), (2, 1));

    // The leader is alone: whatever it knows, it confirms nothing.
    for server in &servers[1..] {
        server.signal(Signal::STOP);
    }
    let asked = client.request(ack.clone(), "+ACK".into());
    let early = tokio::time::timeout(Duration::from_millis(1500), asked).await;
    for server in &servers[1..] {
        server.signal(Signal::CONT);
    }
    assert!(early.is_err(), "an ack that nobody else has is confirmed");
    eventually_async("the ack is confirmed", async || {
        let asked = client.request(ack.clone(), "+ACK".into());
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        answer.ok()?.ok()
    })
    .await;

    led_by(&client, "S", "s1").await;
    let far = connect(&servers[1]).await;
    servers[0].kill();
    let (again, delivered, message) = fetch(&far, "S", "C").await;
    assert_eq!(again, 2, "the first was acknowledged");
    assert!(delivered > 1, "the second was delivered before");
    far.publish(message.reply.expect("a reply"), "+ACK".into())
        .await
        .expect("sent");
    eventually_async("all is acknowledged", async || {
        let info = api(&far, "CONSUMER.INFO.S.C", Value::Null).await;
        (info["ack_floor"]["stream_seq"] == 2 && info["num_ack_pending"] == 0).then_some(())
    })
    .await;
}

/// How far a consumer is, once somebody says so: its deliveries and the messages that it has before it.
async fn progress(client: &Client, stream: &str, consumer: &str) -> (u64, u64, u64) {
    let subject = format!("CONSUMER.INFO.{stream}.{consumer}");
    let info = done(client, &subject, Value::Null).await;
    let number = |value: &Value| value.as_u64().expect("a number");
    (
        number(&info["delivered"]["consumer_seq"]),
        number(&info["num_ack_pending"]),
        number(&info["num_pending"]),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_in_memory_begins_once_more_when_its_only_server_does_and_goes_on_where_there_are_others()
 {
    let (mut servers, client) = three().await;
    for (stream, replicas) in [("ONE", 1), ("THREE", 3)] {
        let subject = stream.to_lowercase();
        let placement = json!({"tags": match replicas { 1 => ["at:s2"], _ => ["all"] }});
        let config = json!({"name": stream, "subjects": [subject], "num_replicas": replicas, "placement": placement});
        create(&client, config).await;
        for (name, in_memory) in [("disk", false), ("memory", true)] {
            let config =
                json!({"durable_name": name, "ack_policy": "explicit", "mem_storage": in_memory});
            let body = json!({"stream_name": stream, "config": config});
            let made = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
            let made = done(&client, &made, body).await;
            assert_eq!(made["config"]["mem_storage"] == true, in_memory, "{made}");
        }
        stored(&client, &subject, &[], "1").await;
        stored(&client, &subject, &[], "2").await;
    }
    led_by(&client, "THREE", "s2").await;
    for stream in ["ONE", "THREE"] {
        for name in ["disk", "memory"] {
            let (_, _, message) = fetch(&client, stream, name).await;
            let ack = message.reply.expect("it can be acknowledged");
            let acked = client.request(ack, "+ACK".into());
            acked.await.expect("it is confirmed");
            assert_eq!(progress(&client, stream, name).await, (1, 0, 1));
        }
    }
    servers[1].kill();
    servers[1].start_again();
    assert_eq!(progress(&client, "ONE", "memory").await, (0, 0, 2));
    assert_eq!(progress(&client, "ONE", "disk").await, (1, 0, 1));
    assert_eq!(progress(&client, "THREE", "memory").await, (1, 0, 1));
    let (sequence, delivered, _) = fetch(&client, "ONE", "memory").await;
    assert_eq!((sequence, delivered), (1, 1));
}

/// Waits until a consumer is that far.
async fn comes_to(client: &Client, stream: &str, consumer: &str, wanted: (u64, u64, u64)) {
    eventually_async("the consumer is that far", async || {
        (progress(client, stream, consumer).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_in_memory_begin_once_more_when_all_servers_have_started_again_and_not_before() {
    let (mut servers, client) = three().await;
    create(
        &client,
        json!({"name": "S", "subjects": ["s"], "num_replicas": 3}),
    )
    .await;
    for (name, in_memory) in [("disk", false), ("memory", true)] {
        let config = json!({"durable_name": name, "ack_policy": "explicit", "mem_storage": in_memory, "num_replicas": 3});
        let body = json!({"stream_name": "S", "config": config});
        done(&client, &format!("CONSUMER.DURABLE.CREATE.S.{name}"), body).await;
    }
    stored(&client, "s", &[], "1").await;
    stored(&client, "s", &[], "2").await;
    for name in ["disk", "memory"] {
        let (_, _, message) = fetch(&client, "S", name).await;
        let ack = message.reply.expect("it can be acknowledged");
        client
            .request(ack, "+ACK".into())
            .await
            .expect("it is confirmed");
        comes_to(&client, "S", name, (1, 0, 1)).await;
    }
    // One after the other: somebody always has it.
    for (at, server) in servers.iter_mut().enumerate() {
        server.kill();
        server.start_again();
        let client = connect(server).await;
        let leader = format!("s{}", (at + 1) % 3 + 1);
        led_by(&client, "S", &leader).await;
        consumer_led_by(&client, "S", "memory", &leader).await;
        comes_to(&client, "S", "memory", (1, 0, 1)).await;
    }
    for server in &mut servers {
        server.kill();
    }
    for server in &mut servers {
        server.start_again();
    }
    let client = connect(&servers[0]).await;
    comes_to(&client, "S", "memory", (0, 0, 2)).await;
    assert_eq!(progress(&client, "S", "disk").await, (1, 0, 1));
    let (sequence, delivered, _) = fetch(&client, "S", "memory").await;
    assert_eq!((sequence, delivered), (1, 1));
    drop(servers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_again_and_again_still_leads_and_takes_messages() {
    let (mut servers, client) = three().await;
    let config = json!({"name": "S", "subjects": ["s"], "num_replicas": 3});
    create(&client, config).await;
    stored(&client, "s", &[], "first").await;
    for _ in 0..6 {
        servers[2].kill();
        servers[2].start_again();
        healthy(&servers[2]);
        stored(&client, "s", &[], "more").await;
    }
    led_by(&client, "S", "s3").await;
    assert_eq!(stored(&client, "s", &[], "last").await["seq"], 8);
    drop(servers);
}

/// Publishes a message of a fast batch, under its place in it and what it is to it.
async fn publish_fast(client: &Client, inbox: &str, at: u64, operation: u8) {
    let reply = format!("{inbox}.batch.2.fail.{at}.{operation}.$FI");
    let sent = client.publish_with_reply("f", reply, "x".into()).await;
    sent.expect("it is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_goes_on_with_a_fast_batch() {
    let (servers, client) = three().await;
    let config = json!({"name": "F", "subjects": ["f"], "num_replicas": 3, "allow_batched": true});
    create(&client, config).await;
    led_by(&client, "F", "s1").await;
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(format!("{inbox}.>"))
        .await
        .expect("it is heard");
    let mut heard = async || {
        let answer = next(&mut answers).await;
        let subject = answer.subject.to_string();
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        (subject, answer)
    };
    publish_fast(&client, &inbox, 1, 0).await;
    let (_, opened) = heard().await;
    assert_eq!(opened, json!({"type": "ack", "seq": 0, "msgs": 2}));
    for at in [2, 3] {
        publish_fast(&client, &inbox, at, 1).await;
    }
    assert_eq!(heard().await.1["seq"], 2);
    eventually_async("all replicas have what there is", async || {
        let info = api(&client, "STREAM.INFO.F", Value::Null).await;
        let replicas = info["cluster"]["replicas"].as_array()?.clone();
        let are_current = replicas.iter().all(|one| one["current"] == true);
        (info["state"]["messages"] == 3 && are_current).then_some(())
    })
    .await;
    led_by(&client, "F", "s2").await;
    // Whoever leads now says how far it is, where the last message wanted its ack.
    let (subject, told) = heard().await;
    assert!(subject.ends_with(".fail.3.1.$FI"), "{subject}: {told}");
    assert_eq!(told, json!({"type": "ack", "seq": 3, "msgs": 2}));
    publish_fast(&client, &inbox, 4, 1).await;
    publish_fast(&client, &inbox, 5, 2).await;
    let ended = eventually_async("the batch is stored", async || {
        let (_, answer) = heard().await;
        answer["stream"].is_string().then_some(answer)
    })
    .await;
    assert_eq!(
        (&ended["batch"], &ended["count"]),
        (&json!("batch"), &json!(5))
    );
    assert_eq!(ended["seq"], 5);
    drop(servers);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_messages_hears_why_there_will_be_none() {
    let (mut servers, client) = three().await;
    let config = json!({"name": "S", "subjects": ["s"], "num_replicas": 3});
    create(&client, config).await;
    create_consumer(&client, "S", "C", 30_000).await;
    led_by(&client, "S", "s2").await;
    consumer_led_by(&client, "S", "C", "s2").await;
    let body = json!({"batch": 5, "expires": 60_000_000_000_u64});
    let mut answers = pull(&client, "S", "C", body.clone()).await;
    consumer_led_by(&client, "S", "C", "s1").await;
    let told = next(&mut answers).await;
    let expected = (
        Some(StatusCode::from_u16(409).unwrap()),
        Some("Leadership Change"),
    );
    assert_eq!((told.status, told.description.as_deref()), expected);

    let mut answers = pull(&client, "S", "C", body.clone()).await;
    eventually_async("the request waits", async || {
        let info = api(&client, "CONSUMER.INFO.S.C", Value::Null).await;
        (info["num_waiting"] == 1).then_some(())
    })
    .await;
    done(&client, "CONSUMER.DELETE.S.C", Value::Null).await;
    let told = next(&mut answers).await;
    assert_eq!(told.description.as_deref(), Some("Consumer Deleted"));

    create_consumer(&client, "S", "D", 30_000).await;
    led_by(&client, "S", "s3").await;
    consumer_led_by(&client, "S", "D", "s3").await;
    let mut answers = pull(&client, "S", "D", body).await;
    eventually_async("the request waits", async || {
        let info = api(&client, "CONSUMER.INFO.S.D", Value::Null).await;
        (info["num_waiting"] == 1).then_some(())
    })
    .await;
    servers[2].stop();
    let told = next(&mut answers).await;
    assert_eq!(told.description.as_deref(), Some("Server Shutdown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_decided_of_batches_counters_lifetimes_and_schedules_the_next_one_goes_on_with()
 {
    let (mut servers, client) = three().await;
    let config = json!({
        "name": "S", "subjects": ["s.>"], "num_replicas": 3, "first_seq": 100,
        "allow_msg_ttl": true, "allow_atomic": true, "allow_msg_schedules": true, "allow_rollup_hdrs": true,
    });
    create(&client, config).await;
    let config = json!({"name": "N", "subjects": ["n.>"], "num_replicas": 3, "allow_msg_counter": true, "allow_direct": true});
    create(&client, config).await;
    led_by(&client, "S", "s1").await;
    led_by(&client, "N", "s1").await;

    assert_eq!(stored(&client, "s.first", &[], "first").await["seq"], 100);
    for number in ["1", "2"] {
        let pairs = [("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", number)];
        client
            .publish_with_headers("s.batch", headers(&pairs), number.into())
            .await
            .expect("sent");
    }
    let last = [
        ("Nats-Batch-Id", "b"),
        ("Nats-Batch-Sequence", "3"),
        ("Nats-Batch-Commit", "1"),
    ];
    let ack = publish(&client, "s.batch", &last, "3").await;
    assert_eq!(
        (&ack["seq"], &ack["count"]),
        (&json!(103), &json!(3)),
        "{ack}"
    );
    let ack = publish(&client, "s.ttl", &[("Nats-TTL", "2s")], "soon gone").await;
    assert_eq!(ack["seq"], 104, "{ack}");
    let at = SystemTime::now() + Duration::from_secs(3);
    let at = at
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(at.cast_signed()).expect("a time");
    let at = at.format(&time::format_description::well_known::Rfc3339);
    let at = format!("@at {}", at.expect("it is written"));
    let plan = [
        ("Nats-Schedule", at.as_str()),
        ("Nats-Schedule-Target", "s.target"),
    ];
    let ack = publish(&client, "s.plan", &plan, "later").await;
    assert_eq!(ack["seq"], 105, "{ack}");
    for (increment, value) in [("+5", "5"), ("+7", "12")] {
        let ack = publish(&client, "n.x", &[("Nats-Incr", increment)], "").await;
        assert_eq!(ack["val"], value, "{ack}");
    }

    let far = connect(&servers[1]).await;
    servers[0].kill();
    let ack = stored(&far, "n.x", &[("Nats-Incr", "-2")], "").await;
    assert_eq!(ack["val"], "10", "{ack}");
    // What the first leader promised for later happens under the next one, and on the others alike.
    let subjects = json!({"subjects_filter": ">"});
    eventually_async("the one is gone and the other there", async || {
        let info = api(&far, "STREAM.INFO.S", subjects.clone()).await;
        let there = &info["state"]["subjects"];
        (there["s.ttl"].is_null() && there["s.target"] == 1).then_some(())
    })
    .await;
    let info = api(&far, "STREAM.INFO.S", subjects).await;
    let state = &info["state"];
    assert_eq!(state["first_seq"], 100, "{info}");
    assert_eq!(
        state["subjects"],
        json!({"s.first": 1, "s.batch": 3, "s.target": 1})
    );
    servers[0].start_again();
    led_by(&far, "S", "s1").await;
    let info = api(&far, "STREAM.INFO.S", json!({"subjects_filter": ">"})).await;
    for field in ["messages", "bytes", "first_seq", "last_seq", "subjects"] {
        assert_eq!(info["state"][field], state[field], "{field}");
    }
    led_by(&far, "N", "s1").await;
    let got = api(&far, "STREAM.MSG.GET.N", json!({"last_by_subj": "n.x"})).await;
    // {"val":"10"}
    assert_eq!(got["message"]["data"], "eyJ2YWwiOiIxMCJ9", "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_checked_first_depends_on_whether_a_stream_is_replicated() {
    let (_servers, client) = three().await;
    for (name, replicas) in [("ONE", 1), ("THREE", 3)] {
        let config = json!({
            "name": name, "subjects": [name.to_lowercase()], "num_replicas": replicas, "max_msg_size": 200,
        });
        create(&client, config).await;
        let subject = name.to_lowercase();
        for id in ["a", "b"] {
            stored(&client, &subject, &[("Nats-Msg-Id", id)], "hello").await;
        }
    }
    let long = "x".repeat(300);
    let last = "Nats-Expected-Last-Sequence";
    let on_subject = "Nats-Expected-Last-Subject-Sequence";
    let stream = "Nats-Expected-Stream";
    let rollup = "Nats-Rollup";
    let id = "Nats-Msg-Id";
    let expected_id = "Nats-Expected-Last-Msg-Id";
    let ttl = "Nats-TTL";
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    // Two reasons at once, and which of them is told: of one replica, and of three. 0 is for a duplicate.
    let cases: [(Pairs<'_>, &str, u64, u64); 9] = [
        (&[(id, "a"), (last, "1")], "", 10071, 0),
        (&[(id, "a"), (on_subject, "1")], "", 10071, 0),
        (&[(stream, "OTHER")], &long, 10060, 10054),
        (&[(id, "a"), (ttl, "1s")], "", 10166, 10166),
        (&[(stream, "OTHER"), (ttl, "1s")], "", 10060, 10060),
        (&[(last, "1"), (rollup, "sub")], "", 10071, 10071),
        (&[(expected_id, "a"), (rollup, "sub")], "", 10070, 10111),
        (&[(id, "a"), (expected_id, "a")], "", 0, 0),
        (&[(id, "a")], &long, 0, 10054),
    ];
    for (at, (pairs, payload, one, three)) in cases.into_iter().enumerate() {
        for (subject, code) in [("one", one), ("three", three)] {
            let answer = publish(&client, subject, pairs, payload).await;
            match code {
                0 => assert_eq!(
                    answer["duplicate"], true,
                    "case {at} on {subject}: {answer}"
                ),
                code => assert_eq!(
                    answer["error"]["err_code"], code,
                    "case {at} on {subject}: {answer}"
                ),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_replicas_and_placements_that_cannot_be_are_refused() {
    let (_servers, client) = three().await;
    let config = json!({"name": "S", "subjects": ["s"], "num_replicas": 3});
    create(&client, config).await;
    let config =
        json!({"name": "I", "subjects": ["i"], "num_replicas": 3, "retention": "interest"});
    create(&client, config).await;

    for (replicas, code) in [(6, 10052), (5, 10005), (-1, 10133)] {
        let config = json!({"name": "T", "subjects": ["t"], "num_replicas": replicas});
        let refused = api(&client, "STREAM.CREATE.T", config).await;
        assert_eq!(refused["error"]["err_code"], code, "{replicas}: {refused}");
    }
    for placement in [
        json!({"tags": ["all", "at:s1"]}),
        json!({"tags": ["all", "!at:s2"]}),
        json!({"cluster": "other"}),
    ] {
        let config =
            json!({"name": "T", "subjects": ["t"], "num_replicas": 3, "placement": placement});
        let refused = api(&client, "STREAM.CREATE.T", config).await;
        assert_eq!(refused["error"]["err_code"], 10005, "{refused}");
    }
    let config = json!({"name": "T", "subjects": ["t"], "num_replicas": 2, "placement": {"tags": ["all", "!at:s2"]}});
    create(&client, config).await;
    let info = api(&client, "STREAM.INFO.T", Value::Null).await;
    let names = [
        &info["cluster"]["leader"],
        &info["cluster"]["replicas"][0]["name"],
    ];
    let mut names = names.map(|name| name.as_str().unwrap_or_default());
    names.sort_unstable();
    assert_eq!(names, ["s1", "s3"], "{info}");

    let ask = async |stream: &str, replicas: i64| {
        let config =
            json!({"durable_name": "C", "ack_policy": "explicit", "num_replicas": replicas});
        let body = json!({"stream_name": stream, "config": config});
        let subject = format!("CONSUMER.DURABLE.CREATE.{stream}.C");
        eventually_async("it is answered", async || {
            let answer = api(&client, &subject, body.clone()).await;
            (answer["error"]["err_code"] != 10008).then_some(answer)
        })
        .await
    };
    for (stream, replicas, code) in [
        ("S", 5, 10126),
        ("S", 6, 10126),
        ("S", -1, 10133),
        ("I", 1, 10134),
    ] {
        let refused = ask(stream, replicas).await;
        assert_eq!(
            refused["error"]["err_code"], code,
            "{stream} {replicas}: {refused}"
        );
    }
    for (stream, replicas, servers) in [("S", 0, 2), ("I", 3, 2)] {
        let made = ask(stream, replicas).await;
        assert!(made["error"].is_null(), "{made}");
        assert_eq!(made["config"]["num_replicas"], replicas, "{made}");
        let info = eventually_async("it is led", async || {
            let info = api(&client, &format!("CONSUMER.INFO.{stream}.C"), Value::Null).await;
            info["cluster"]["leader"].is_string().then_some(info)
        })
        .await;
        let others = info["cluster"]["replicas"].as_array().map(Vec::len);
        assert_eq!(others, Some(servers), "{info}");
    }
}
