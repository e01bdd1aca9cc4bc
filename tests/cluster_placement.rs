//! Three servers of one cluster, with tags: where streams are put.

mod common;

use async_nats::Client;
use common::{Members, Server, eventually_async};
use serde_json::{Value, json};

/// Servers `s1`, `s2` and `s3` with these tags, which know each other and have said what they have room for.
fn three_servers(tags: [&str; 3], jetstream: &str) -> Vec<Server> {
    let jetstream = format!("max_file: 1G, {jetstream}");
    let members = Members::of("tri").jetstream(&jetstream);
    let tagged = members.each(|at| format!("server_tags: [{}]", tags[at - 1]));
    tagged.start_healthy::<3>()
}

async fn connect(server: &Server) -> Client {
    async_nats::connect(server.url()).await.expect("it listens")
}

async fn create(client: &Client, config: Value) -> Value {
    let name = config["name"].as_str().expect("a name");
    let subject = format!("$JS.API.STREAM.CREATE.{name}");
    let asked = client.request(subject, config.to_string().into());
    let answer = asked.await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// The servers that a stream is on, in order of their names.
async fn places(client: &Client, config: Value) -> Vec<String> {
    let created = create(client, config.clone()).await;
    assert!(created["error"].is_null(), "{created}");
    let name = config["name"].as_str().expect("a name");
    let subject = format!("$JS.API.STREAM.INFO.{name}");
    let replicas = usize::try_from(config["num_replicas"].as_u64().unwrap_or(1)).unwrap();
    eventually_async("all replicas are shown", async || {
        let asked = client.request(subject.clone(), "".into()).await.ok()?;
        let info: Value = serde_json::from_slice(&asked.payload).ok()?;
        let mut places = vec![info["cluster"]["leader"].as_str()?.to_owned()];
        let others = info["cluster"]["replicas"].as_array().cloned();
        for other in others.unwrap_or_default() {
            places.push(other["name"].as_str()?.to_owned());
        }
        places.sort();
        (places.len() == replicas).then_some(places)
    })
    .await
}

async fn refusal(client: &Client, config: Value) -> String {
    let refused = create(client, config).await;
    assert_eq!(refused["error"]["err_code"], 10005, "{refused}");
    let text = refused["error"]["description"].as_str();
    text.expect("a text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_put_where_the_tags_are_as_soon_as_servers_are_healthy() {
    let tags = ["'cloud:aws', ssd", "'Cloud:AWS', hdd", "'cloud:gcp', ssd"];
    let servers = three_servers(tags, "");
    let client = connect(&servers[1]).await;
    let on_all = json!({"name": "ALL", "num_replicas": 3});
    assert_eq!(places(&client, on_all).await, ["s1", "s2", "s3"]);
    let tagged = |name: &str, replicas: u64, tags: &[&str]| json!({"name": name, "num_replicas": replicas, "placement": {"tags": tags}});
    let gcp = tagged("GCP", 1, &["cloud:gcp"]);
    assert_eq!(places(&client, gcp).await, ["s3"]);
    let aws = tagged("AWS", 2, &["CLOUD:aws"]);
    assert_eq!(places(&client, aws).await, ["s1", "s2"]);
    let not_ssd = tagged("NOT", 1, &["!ssd"]);
    assert_eq!(places(&client, not_ssd).await, ["s2"]);
    let both = tagged("BOTH", 1, &["cloud:aws", "ssd"]);
    assert_eq!(places(&client, both).await, ["s1"]);

    let missing = refusal(&client, tagged("M", 1, &["cloud:azure"])).await;
    let text = "no suitable peers for placement, tags not matched ['cloud:azure']";
    assert_eq!(missing, text);
    let excluded = refusal(&client, tagged("E", 1, &["!ssd", "!hdd"])).await;
    let text = "no suitable peers for placement, tags excluded ['hdd', 'ssd']";
    assert_eq!(excluded, text);
    let too_few = refusal(&client, tagged("F", 3, &["ssd"])).await;
    let text = "no suitable peers for placement, tags not matched ['ssd']";
    assert_eq!(too_few, text);
    let elsewhere = json!({"name": "X", "placement": {"cluster": "other"}});
    assert!(
        refusal(&client, elsewhere)
            .await
            .starts_with("no suitable peers")
    );
    let large = json!({"name": "L", "num_replicas": 3, "max_bytes": 2_000_000_000});
    let text = "no suitable peers for placement, insufficient storage";
    assert_eq!(refusal(&client, large).await, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_kept_apart_and_servers_with_too_many_are_left_alone() {
    let tags = ["'az:1'", "'az:1'", "'az:2'"];
    let servers = three_servers(tags, "unique_tag: 'az:', limits { max_ha_assets: 1 }");
    let client = connect(&servers[0]).await;
    let apart = json!({"name": "TWO", "num_replicas": 2});
    let two = places(&client, apart).await;
    assert!(two.contains(&"s3".to_owned()), "{two:?}");
    let three = refusal(&client, json!({"name": "THREE", "num_replicas": 3})).await;
    let text = "no suitable peers for placement, server tag not unique";
    assert_eq!(three, text);
    let more = json!({"name": "MORE", "num_replicas": 2});
    assert!(places(&client, more).await.contains(&"s3".to_owned()));
    let full = refusal(&client, json!({"name": "FULL", "num_replicas": 2})).await;
    assert!(full.contains("miscellaneous issue"), "{full}");
    // What is not replicated is not counted.
    let one = json!({"name": "ONE", "placement": {"tags": ["az:1"]}});
    places(&client, one).await;
}
