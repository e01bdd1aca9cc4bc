//! What a later version has written into the state of the meta group, or into the log of a stream.

use std::collections::BTreeMap;

use super::*;
use crate::jetstream::core::{ConsumerAction, ConsumerCreate, StreamRequest};
use crate::jetstream::registry::StreamPort;
use crate::jetstream::types::{ConsumerConfig, REQUIRED_LEVEL};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_later_version_configured_is_offline_and_named_everywhere_until_it_is_gone() {
    let directories = directories();
    let servers = three(&directories).await;
    create(&servers[0], "S1").await;
    for (name, on) in [("LATER", &["a"][..]), ("LATER3", &["a", "b", "c"])] {
        let config = json!({
            "name": name, "subjects": [name], "num_replicas": on.len(), "storage": "file",
            "retention": "limits", "from_later": {"x": 1},
        });
        let command = Command::StreamCreate {
            account: GLOBAL_ACCOUNT.to_owned(),
            stream: name.to_owned(),
            config: config.to_string().into_bytes(),
            created: Time::from_nanoseconds(1),
            group_name: "S-R1F-later".to_owned(),
            cluster: "cluster".to_owned(),
            servers: on.iter().map(|&server| server.to_owned()).collect(),
            preferred: String::new(),
        };
        propose(&servers, &command).await;
    }
    for server in &servers {
        for name in ["LATER", "LATER3"] {
            let info = await_info(server, name, |info| info["error"]["err_code"] == 10194).await;
            let text = info["error"]["description"].as_str().unwrap();
            assert!(text.starts_with("stream is offline: unsupported"), "{text}");
            assert!(text.contains("from_later"), "{text}");
        }
        let list = server.ask("STREAM.LIST", Value::Null).await;
        assert_eq!(list["total"], 3, "{list}");
        assert_eq!(list["missing"], json!(["LATER", "LATER3"]), "{list}");
        let reason = list["offline"]["LATER3"].as_str().unwrap();
        assert!(reason.contains("from_later"), "{list}");
        let names = server.ask("STREAM.NAMES", Value::Null).await;
        assert_eq!(names["streams"], json!(["LATER", "LATER3", "S1"]));
    }
    for name in ["LATER", "LATER3"] {
        let deleted = servers[1]
            .ask(&format!("STREAM.DELETE.{name}"), Value::Null)
            .await;
        assert_eq!(deleted["success"], true, "{deleted}");
    }
    for server in &servers {
        await_info(server, "LATER3", |info| info["error"]["err_code"] == 10059).await;
        let begun = std::time::Instant::now();
        loop {
            let list = server.ask("STREAM.LIST", Value::Null).await;
            if list["total"] == 1 && list["offline"].is_null() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{list}");
        }
    }
    stop(servers).await;
}

/// Has whoever leads a stream's group log a consumer as a later version would, past the API of this one.
async fn log_later_consumer(servers: &[Server], stream: &str, name: &str) {
    let config = ConsumerConfig {
        name: name.to_owned(),
        durable_name: name.to_owned(),
        metadata: BTreeMap::from([(REQUIRED_LEVEL.to_owned(), "77".to_owned())]),
        ..ConsumerConfig::default()
    };
    let begun = std::time::Instant::now();
    loop {
        for server in servers {
            let cluster = server.jetstream.cluster().expect("it is part of one");
            let Some(replica) = cluster.replica(stream) else {
                continue;
            };
            if replica.status().unsupported.is_some() {
                return;
            }
            let create = ConsumerCreate {
                name: name.to_owned(),
                config: config.clone(),
                action: ConsumerAction::Create,
                check_update: |_, _| Ok(()),
                consumers_max: -1,
            };
            let request = StreamRequest::ConsumerCreate(Box::new(create));
            // A leader stops at it; the others refuse.
            replica.port.port.ask(request, Box::new(|_| ()));
        }
        assert!(begun.elapsed() < PATIENCE, "nobody takes it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a server gives an answer that is as it should be.
async fn await_answer(server: &Server, subject: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let answer = server.ask(subject, Value::Null).await;
        if is_it(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{subject}: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn check_that_its_consumer_keeps_it_offline(servers: &[Server]) {
    for server in servers {
        let is_offline = |answer: &Value| answer["error"]["err_code"] == 10194;
        let info = await_answer(server, "STREAM.INFO.R2", is_offline).await;
        let text = "stream is offline: stopped - unsupported consumer \"later\"";
        assert_eq!(info["error"]["description"], text);
        let info = server.ask("CONSUMER.INFO.R2.later", Value::Null).await;
        assert_eq!(info["error"]["err_code"], 10195, "{info}");
        let text = info["error"]["description"].as_str().unwrap();
        let reason = "unsupported - required API level: 77, current API level: 4";
        assert_eq!(text, format!("consumer is offline: {reason}"));
        let list = server.ask("CONSUMER.LIST.R2", Value::Null).await;
        assert_eq!(list["missing"], json!(["later"]), "{list}");
        assert_eq!(list["offline"], json!({ "later": reason }));
        let names = server.ask("CONSUMER.NAMES.R2", Value::Null).await;
        assert_eq!(names["consumers"], json!(["later"]));
        let is_named = |list: &Value| list["offline"]["R2"].is_string();
        let list = await_answer(server, "STREAM.LIST", is_named).await;
        assert_eq!(list["missing"], json!(["R2"]), "{list}");
        let names = server.ask("STREAM.NAMES", Value::Null).await;
        assert_eq!(names["streams"], json!(["R2"]), "{names}");
        assert_eq!(server.jetstream.fault(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_of_a_later_version_stops_the_replicas_of_its_stream_and_is_named_everywhere() {
    let directories = directories();
    let mut servers = three(&directories).await;
    let config = json!({ "name": "R2", "subjects": ["r2"], "num_replicas": 2 });
    let is_made = |answer: &Value| answer.get("error").is_none();
    let begun = std::time::Instant::now();
    while !is_made(&servers[0].ask("STREAM.CREATE.R2", config.clone()).await) {
        assert!(begun.elapsed() < PATIENCE);
    }
    log_later_consumer(&servers, "R2", "later").await;
    check_that_its_consumer_keeps_it_offline(&servers).await;
    stop(servers).await;
    servers = three(&directories).await;
    check_that_its_consumer_keeps_it_offline(&servers).await;
    let deleted = servers[1].ask("STREAM.DELETE.R2", Value::Null).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    for server in &servers {
        await_info(server, "R2", |info| info["error"]["err_code"] == 10059).await;
    }
    let begun = std::time::Instant::now();
    while !is_made(&servers[0].ask("STREAM.CREATE.R2", config.clone()).await) {
        assert!(begun.elapsed() < PATIENCE);
    }
    for server in &servers {
        await_info(server, "R2", is_made).await;
    }
    stop(servers).await;
}
