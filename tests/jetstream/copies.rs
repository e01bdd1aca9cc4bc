//! Mirrors and sources as clients see them.

use async_nats::jetstream::Context;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::common::{Server, eventually_async};
use super::{client, connect, plain, publish};

pub async fn api(client: &async_nats::Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let reply = client
        .request(format!("$JS.API.{subject}"), payload.into())
        .await
        .expect("the API answers");
    serde_json::from_slice(&reply.payload).expect("JSON")
}

async fn create(client: &async_nats::Client, config: Value) -> Value {
    let name = config["name"].as_str().expect("a name").to_owned();
    let created = api(client, &format!("STREAM.CREATE.{name}"), config).await;
    assert!(created["error"].is_null(), "{created}");
    created
}

async fn info(client: &async_nats::Client, name: &str) -> Value {
    api(client, &format!("STREAM.INFO.{name}"), Value::Null).await
}

async fn holds(client: &async_nats::Client, name: &str, messages: u64) -> Value {
    eventually_async("the stream has copied", async || {
        let info = info(client, name).await;
        (info["state"]["messages"] == messages).then_some(info)
    })
    .await
}

async fn fill(context: &Context, subject: &str, messages: u64) {
    for number in 1..=messages {
        publish(context, subject, number.to_string()).await;
    }
}

#[tokio::test]
async fn a_mirror_follows_its_origin_over_restarts_and_becomes_a_stream_of_its_own() {
    let mut server = Server::jetstream();
    {
        let (context, client) = (connect(&server).await, client(&server).await);
        context.create_stream(plain("O")).await.expect("created");
        fill(&context, "o.a", 50).await;
        create(&client, json!({"name": "M", "mirror": {"name": "O"}})).await;
        let shown = holds(&client, "M", 50).await;
        assert_eq!(shown["mirror"]["name"], "O", "{shown}");
        assert_eq!(shown["mirror"]["lag"], 0, "{shown}");
        let consumers = api(&client, "CONSUMER.NAMES.O", Value::Null).await;
        assert_eq!(consumers["total"], 0, "what copies is hidden: {consumers}");
        let removed = json!({"seq": 7});
        api(&client, "STREAM.MSG.DELETE.O", removed).await;
        fill(&context, "o.b", 10).await;
        holds(&client, "M", 60).await;
    }
    server.kill();
    server.start_again();
    let (context, client) = (connect(&server).await, client(&server).await);
    fill(&context, "o.c", 5).await;
    let shown = holds(&client, "M", 65).await;
    assert_eq!(shown["state"]["last_seq"], 65);
    for sequence in [1, 50, 60, 65] {
        let get = json!({"seq": sequence});
        let original = api(&client, "STREAM.MSG.GET.O", get.clone()).await;
        let copy = api(&client, "STREAM.MSG.GET.M", get).await;
        assert_eq!(original["message"], copy["message"]);
    }
    let changed = json!({"name": "M", "mirror": {"name": "X"}});
    let refused = api(&client, "STREAM.UPDATE.M", changed).await;
    assert_eq!(refused["error"]["err_code"], 10055, "{refused}");
    let promoted = json!({"name": "M", "subjects": ["m.>"]});
    let promoted = api(&client, "STREAM.UPDATE.M", promoted).await;
    assert!(promoted["error"].is_null(), "{promoted}");
    assert_eq!(publish(&context, "m.a", "own").await, 66);
    fill(&context, "o.d", 3).await;
    let shown = info(&client, "M").await;
    assert!(shown["mirror"].is_null(), "{shown}");
    assert_eq!(shown["state"]["messages"], 66);
}

#[tokio::test]
async fn sources_are_gathered_filtered_and_renamed_once_each() {
    let mut server = Server::jetstream();
    let config = json!({"name": "ALL", "subjects": ["own"], "sources": [
        {"name": "A", "filter_subject": "a.x"},
        {"name": "B", "subject_transforms": [{"src": "b.*", "dest": "from.b.{{wildcard(1)}}"}]},
    ]});
    {
        let (context, client) = (connect(&server).await, client(&server).await);
        for name in ["A", "B"] {
            context.create_stream(plain(name)).await.expect("created");
        }
        fill(&context, "a.x", 20).await;
        fill(&context, "a.y", 20).await;
        fill(&context, "b.z", 20).await;
        create(&client, config).await;
        publish(&context, "own", "mine").await;
        let shown = holds(&client, "ALL", 41).await;
        let sources = shown["sources"].as_array().expect("sources");
        assert_eq!(sources[0]["filter_subject"], "a.x");
        assert_eq!(sources[1]["subject_transforms"][0]["src"], "b.*");
    }
    server.kill();
    server.start_again();
    let (context, client) = (connect(&server).await, client(&server).await);
    fill(&context, "a.x", 1).await;
    fill(&context, "b.z", 1).await;
    holds(&client, "ALL", 43).await;
    let last = json!({"last_by_subj": "from.b.z"});
    let last = api(&client, "STREAM.MSG.GET.ALL", last).await;
    let headers = last["message"]["hdrs"].as_str().expect("headers");
    use base64::Engine;
    let headers = base64::engine::general_purpose::STANDARD.decode(headers);
    let headers = String::from_utf8(headers.expect("base64")).expect("text");
    assert_eq!(
        headers,
        "NATS/1.0\r\nNats-Stream-Source: B 21 b.* from.b.{{wildcard(1)}} b.z\r\n\r\n"
    );
    let subjects = json!({"subjects_filter": ">"});
    let shown = api(&client, "STREAM.INFO.ALL", subjects).await;
    let subjects = &shown["state"]["subjects"];
    assert_eq!(subjects["a.x"], 21, "{subjects}");
    assert_eq!(subjects["from.b.z"], 21, "{subjects}");
}

#[tokio::test]
async fn a_mirror_answers_direct_gets_for_its_origin() {
    let server = Server::jetstream();
    let (context, client) = (connect(&server).await, client(&server).await);
    let origin = json!({"name": "O", "subjects": ["o.>"], "allow_direct": true});
    create(&client, origin).await;
    fill(&context, "o.a", 5).await;
    let mirror = create(&client, json!({"name": "M", "mirror": {"name": "O"}})).await;
    assert_eq!(mirror["config"]["mirror_direct"], true, "{mirror}");
    holds(&client, "M", 5).await;
    let from = eventually_async("the mirror answers", async || {
        let get = client.request("$JS.API.DIRECT.GET.O.o.a", "".into()).await;
        let headers = get.expect("an answer").headers.expect("headers");
        let from = headers.get("Nats-Stream")?.to_string();
        (from == "M").then_some(from)
    })
    .await;
    assert_eq!(from, "M");
}

#[tokio::test]
async fn a_work_queue_is_emptied_through_a_consumer_made_beforehand() {
    let server = Server::jetstream();
    let (context, client) = (connect(&server).await, client(&server).await);
    let queue = json!({"name": "Q", "subjects": ["q.>"], "retention": "workqueue"});
    create(&client, queue).await;
    let consumer = json!({"stream_name": "Q", "config": {
        "durable_name": "D", "deliver_subject": "deliver.d",
        "ack_policy": "flow_control", "max_ack_pending": 100,
    }});
    let made = api(&client, "CONSUMER.DURABLE.CREATE.Q.D", consumer).await;
    assert_eq!(made["config"]["flow_control"], true, "{made}");
    assert_eq!(made["config"]["idle_heartbeat"], 1_000_000_000, "{made}");
    fill(&context, "q.a", 20).await;
    let source = json!({"name": "Q", "consumer": {"name": "D", "deliver_subject": "deliver.d"}});
    create(&client, json!({"name": "C", "sources": [source]})).await;
    holds(&client, "C", 20).await;
    holds(&client, "Q", 0).await;
    fill(&context, "q.b", 5).await;
    holds(&client, "C", 25).await;
    holds(&client, "Q", 0).await;
}

async fn consumer_names(client: &async_nats::Client, stream: &str) -> Vec<String> {
    let listed = api(client, &format!("CONSUMER.NAMES.{stream}"), Value::Null).await;
    serde_json::from_value(listed["consumers"].clone()).expect("names")
}

#[tokio::test]
async fn what_goes_once_it_is_confirmed_goes_when_its_mirror_has_it() {
    let mut server = Server::jetstream();
    let name = {
        let (context, client) = (connect(&server).await, client(&server).await);
        let queue = json!({"name": "Q", "subjects": ["q.>"], "retention": "workqueue"});
        create(&client, queue).await;
        fill(&context, "q.a", 20).await;
        create(&client, json!({"name": "M", "mirror": {"name": "Q"}})).await;
        holds(&client, "M", 20).await;
        holds(&client, "Q", 0).await;
        let names = consumer_names(&client, "Q").await;
        assert!(
            names[0].starts_with("JS_MIRROR_") && names.len() == 1,
            "{names:?}"
        );
        let shown = api(
            &client,
            &format!("CONSUMER.INFO.Q.{}", names[0]),
            Value::Null,
        )
        .await;
        let config = &shown["config"];
        assert_eq!(config["ack_policy"], "flow_control", "{shown}");
        assert_eq!(config["durable_name"], names[0].as_str(), "{shown}");
        assert_eq!(config["sourcing"], true, "{shown}");
        // It takes the whole queue and leaves room for others.
        let worker = json!({"stream_name": "Q", "config": {
            "durable_name": "W", "ack_policy": "explicit", "filter_subject": "q.w",
        }});
        let made = api(&client, "CONSUMER.DURABLE.CREATE.Q.W", worker).await;
        assert!(made["error"].is_null(), "{made}");
        api(&client, "CONSUMER.DELETE.Q.W", Value::Null).await;
        names[0].clone()
    };
    server.kill();
    server.start_again();
    let (context, client) = (connect(&server).await, client(&server).await);
    fill(&context, "q.b", 5).await;
    let mirror = holds(&client, "M", 25).await;
    assert_eq!(mirror["state"]["last_seq"], 25);
    holds(&client, "Q", 0).await;
    assert_eq!(consumer_names(&client, "Q").await, [name]);
    // Nobody goes on with it, and nothing waits for it.
    api(&client, "STREAM.DELETE.M", Value::Null).await;
    eventually_async("the consumer is gone", async || {
        consumer_names(&client, "Q").await.is_empty().then_some(())
    })
    .await;
}

/// The ack subject of the next message; heartbeats and flow control are passed over.
async fn delivery(heard: &mut async_nats::Subscriber) -> String {
    loop {
        let message = heard.next().await.expect("a message");
        match message.reply {
            Some(reply) if reply.starts_with("$JS.ACK.") => return reply.to_string(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn other_servers_get_consumers_that_are_not_the_streams_own() {
    let server = Server::jetstream();
    let (context, client) = (connect(&server).await, client(&server).await);
    create(
        &client,
        json!({"name": "S", "subjects": ["s.>"], "max_consumers": 1}),
    )
    .await;
    let queue =
        json!({"name": "Q", "subjects": ["q.>"], "retention": "interest", "max_consumers": 1});
    create(&client, queue).await;
    let wanted = |stream: &str, to: &str, sourcing: bool| {
        json!({"stream_name": stream, "config": {
            "name": "JS_SRC_x", "deliver_subject": to, "ack_policy": "none", "max_deliver": 1,
            "ack_wait": 79_200_000_000_000u64, "idle_heartbeat": 1_000_000_000, "flow_control": true,
            "direct": true, "sourcing": sourcing, "inactive_threshold": 10_000_000_000u64,
        }})
    };
    let create_subject = |stream: &str| format!("CONSUMER.CREATE.{stream}.JS_SRC_x");
    for attempt in 0..2 {
        let made = api(
            &client,
            &create_subject("S"),
            wanted("S", &format!("d{attempt}"), true),
        )
        .await;
        let name = made["name"].as_str().expect("a name");
        assert!(name.starts_with("JS_SRC_x-"), "{made}");
        assert_eq!(made["config"]["direct"], true, "{made}");
    }
    let plain_one = api(&client, &create_subject("S"), wanted("S", "d2", false)).await;
    assert_eq!(plain_one["name"], "JS_SRC_x", "{plain_one}");
    assert!(consumer_names(&client, "S").await.is_empty());
    let listed = api(&client, "CONSUMER.LIST.S", Value::Null).await;
    assert_eq!(listed["total"], 0, "{listed}");
    // Neither they nor those that confirm are counted.
    for stream in ["S", "Q"] {
        let own = json!({"stream_name": stream, "config": {"durable_name": "own", "ack_policy": "explicit"}});
        let made = api(
            &client,
            &format!("CONSUMER.DURABLE.CREATE.{stream}.own"),
            own,
        )
        .await;
        assert!(made["error"].is_null(), "{made}");
    }
    let mut heard = client.subscribe("d0").await.expect("subscribes");
    let made = api(&client, &create_subject("Q"), wanted("Q", "d0", true)).await;
    assert_eq!(made["config"]["durable_name"], "JS_SRC_x", "{made}");
    assert!(made["config"]["direct"].is_null(), "{made}");
    fill(&context, "q.a", 3).await;
    for sequence in 1..=3 {
        let reply = delivery(&mut heard).await;
        assert!(
            reply.contains(&format!(".1.{sequence}.{sequence}.")),
            "{reply}"
        );
    }
    heard.unsubscribe().await.expect("unsubscribes");
    client.flush().await.expect("flushes");
    // Renewed, it begins again after what was confirmed, which is nothing.
    let mut heard = client.subscribe("d1").await.expect("subscribes");
    let mut other = wanted("Q", "d1", true);
    other["config"]["deliver_policy"] = json!("by_start_sequence");
    other["config"]["opt_start_seq"] = json!(3);
    let made = eventually_async("nobody listens where it delivered before", async || {
        let made = api(&client, &create_subject("Q"), other.clone()).await;
        made["error"].is_null().then_some(made)
    })
    .await;
    assert_eq!(made["config"]["deliver_policy"], "all", "{made}");
    let reply = delivery(&mut heard).await;
    assert!(reply.starts_with("$JS.ACK.Q.JS_SRC_x.1.1.1."), "{reply}");
    assert_eq!(consumer_names(&client, "Q").await, ["JS_SRC_x", "own"]);
}

#[tokio::test]
async fn what_a_stream_cannot_copy_from_is_refused() {
    let server = Server::jetstream();
    let client = client(&server).await;
    let large = json!({"name": "LARGE", "subjects": ["l.>"], "max_msg_size": 100});
    create(&client, large).await;
    let source = json!({"name": "TWO", "sources": [{"name": "LARGE"}]});
    create(&client, source).await;
    for (config, code) in [
        (
            json!({"name": "X", "max_msg_size": 10, "mirror": {"name": "LARGE"}}),
            10030,
        ),
        (
            json!({"name": "X", "max_msg_size": 10, "sources": [{"name": "LARGE"}]}),
            10046,
        ),
        (json!({"name": "X", "sources": [{"name": "X"}]}), 10052),
        (json!({"name": "X", "mirror": {"name": "X"}}), 10052),
        (
            json!({"name": "X", "sources": [{"name": "R", "external": {"api": "$JS.API", "deliver": ""}}]}),
            10021,
        ),
        (
            json!({"name": "X", "mirror": {"name": "R", "external": {"api": "r.API", "deliver": "d.*"}}}),
            10024,
        ),
        (
            json!({"name": "X", "sources": [{"name": "LARGE"}, {"name": "R", "external": {"api": "r.API", "deliver": "l"}}]}),
            10022,
        ),
        (
            json!({"name": "X", "sources": [{"name": "R", "subject_transforms": [{"src": "a.>", "dest": "b.>"}, {"src": "a.*", "dest": "c.{{wildcard(1)}}"}]}]}),
            10147,
        ),
        (
            json!({"name": "X", "mirror": {"name": "R", "subject_transforms": [{"src": "a.>", "dest": "b.>"}, {"src": "a.*", "dest": "c.{{wildcard(1)}}"}]}}),
            10152,
        ),
        (
            json!({"name": "X", "sources": [{"name": "R", "filter_subject": "a", "subject_transforms": [{"src": "a", "dest": "b"}]}]}),
            10144,
        ),
        (
            json!({"name": "X", "mirror": {"name": "R", "filter_subject": "a", "subject_transforms": [{"src": "a", "dest": "b"}]}}),
            10150,
        ),
        (
            json!({"name": "X", "sources": [{"name": "R"}, {"name": "R"}]}),
            10140,
        ),
        (
            json!({"name": "X", "mirror": {"name": "LARGE"}, "subjects": ["x"]}),
            10034,
        ),
        (
            json!({"name": "X", "sources": [{"name": "R", "subject_transforms": [{"src": "a.*", "dest": "b.{{nothing(1)}}"}]}]}),
            10146,
        ),
    ] {
        let refused = api(&client, "STREAM.CREATE.X", config).await;
        assert_eq!(refused["error"]["err_code"], code, "{refused}");
    }
    let cycle = json!({"name": "LARGE", "subjects": ["l.>"], "max_msg_size": 100, "sources": [{"name": "TWO"}]});
    let refused = api(&client, "STREAM.UPDATE.LARGE", cycle).await;
    assert_eq!(refused["error"]["description"], "detected cycle");
    create(
        &client,
        json!({"name": "LATE", "mirror": {"name": "NOT_YET"}}),
    )
    .await;
    let shown = eventually_async("the mirror says why", async || {
        let shown = info(&client, "LATE").await;
        (!shown["mirror"]["error"].is_null()).then_some(shown)
    })
    .await;
    assert_eq!(shown["mirror"]["error"]["err_code"], 10059, "{shown}");
    assert_eq!(shown["mirror"]["active"], -1, "{shown}");
    let filtered =
        json!({"name": "FILTERED", "sources": [{"name": "LARGE", "filter_subject": "l.a"}]});
    create(&client, filtered).await;
    let shown = eventually_async("the source is in use", async || {
        let shown = info(&client, "FILTERED").await;
        shown["sources"][0]["error"].is_null().then_some(shown)
    })
    .await;
    let source = &shown["sources"][0];
    assert_eq!(source["name"], "LARGE", "{shown}");
    assert_eq!(source["filter_subject"], "l.a", "{shown}");
    assert!(
        source["lag"].is_u64() && source["active"].is_i64(),
        "{shown}"
    );
}
