//! Mirrors and sources as clients see them.

use async_nats::jetstream::Context;
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
}
