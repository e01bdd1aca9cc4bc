//! Backups over the wire: a stream goes out as the reference's archive and comes back, as clients do it.

mod common;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use base64::Engine;
use common::Server;
use futures_util::StreamExt;
use nats_server::jetstream::archive::TarReader;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(server: &Server) -> Client {
    async_nats::connect(server.url()).await.expect("it listens")
}

async fn ask(client: &Client, subject: &str, body: &Value) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = client.request(subject.to_owned(), body.into()).await;
    let answer = answer.unwrap_or_else(|error| panic!("{subject}: {error}"));
    serde_json::from_slice(&answer.payload).expect("JSON")
}

async fn api(client: &Client, subject: &str, body: Value) -> Value {
    ask(client, &format!("$JS.API.{subject}"), &body).await
}

async fn next(subscriber: &mut Subscriber) -> Message {
    let message = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    message.expect("nothing came").expect("still subscribed")
}

/// Waits until the server has heard what this connection has asked of it.
async fn settle(client: &Client) {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    next(&mut echo).await;
}

/// A stream of some messages, gaps and headers, with a consumer that has come half way.
async fn fill(client: &Client, messages: u64) {
    let config = json!({"name": "S", "subjects": ["s.>"], "storage": "file", "allow_msg_ttl": true,
        "metadata": {"k": "v"}});
    assert_eq!(
        api(client, "STREAM.CREATE.S", config).await["error"],
        Value::Null
    );
    for number in 1..=messages {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("id-{number}").as_str());
        if number % 5 == 0 {
            headers.insert("Nats-TTL", "1h");
        }
        let subject = format!("s.{}", number % 7);
        let payload = vec![number as u8; (number as usize * 31) % 3000];
        let inbox = client.new_inbox();
        client
            .publish_with_reply_and_headers(subject, inbox, headers, payload.into())
            .await
            .unwrap();
    }
    settle(client).await;
    for seq in [3, 4, messages] {
        let gone = api(client, "STREAM.MSG.DELETE.S", json!({"seq": seq})).await;
        assert_eq!(gone["success"], true, "{gone}");
    }
    let config = json!({"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit",
        "deliver_policy": "all", "filter_subject": "s.1"}});
    let made = api(client, "CONSUMER.CREATE.S.C.s.1", config.clone()).await;
    assert_eq!(made["error"], Value::Null, "{made}");
    let inbox = client.new_inbox();
    let mut pulled = client.subscribe(inbox.clone()).await.unwrap();
    client
        .publish_with_reply(
            "$JS.API.CONSUMER.MSG.NEXT.S.C",
            inbox,
            r#"{"batch":6}"#.into(),
        )
        .await
        .unwrap();
    for number in 0..6 {
        let message = next(&mut pulled).await;
        // The third stays pending.
        if number != 2 {
            ask_ack(client, &message).await;
        }
    }
}

async fn ask_ack(client: &Client, message: &Message) {
    let reply = message.reply.clone().expect("it can be acknowledged");
    client.request(reply, "+ACK".into()).await.expect("it is");
}

/// What a stream and its consumer are, without what belongs to the moment.
async fn shown(client: &Client, consumer: bool) -> (Value, Value) {
    let details = json!({"deleted_details": true, "subjects_filter": ">"});
    let mut stream = api(client, "STREAM.INFO.S", details).await;
    let mut info = match consumer {
        true => api(client, "CONSUMER.INFO.S.C", Value::Null).await,
        false => Value::Null,
    };
    for value in [&mut stream, &mut info] {
        let Some(fields) = value.as_object_mut() else {
            continue;
        };
        fields.remove("ts");
        // A server without a name of its own has another one after each start.
        fields.remove("cluster");
        for place in ["delivered", "ack_floor"] {
            if let Some(place) = fields.get_mut(place).and_then(Value::as_object_mut) {
                place.remove("last_active");
            }
        }
    }
    (stream, info)
}

async fn all_messages(client: &Client, stream: &str, last: u64) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut seq = 0;
    while seq < last {
        let request = json!({"seq": seq + 1, "next_by_subj": ">"});
        let found = api(client, &format!("STREAM.MSG.GET.{stream}"), request).await;
        let Some(message) = found.get("message") else {
            break;
        };
        seq = message["seq"].as_u64().unwrap();
        messages.push(message.clone());
    }
    messages
}

struct Taken {
    answer: Value,
    archive: Vec<u8>,
    /// Chunks that wanted an acknowledgement.
    chunks: usize,
    /// What ended it.
    end: Message,
}

/// Takes a backup as the stock tools do: they listen only after the answer, on a subject that a wildcard of theirs
/// matches all along, and acknowledge every chunk that asks for it.
async fn take(client: &Client, request: Value) -> Taken {
    let inbox = client.new_inbox();
    let _answers = client.subscribe(format!("{inbox}.*")).await.unwrap();
    let deliver = format!("{inbox}.backup");
    let mut request = request;
    request["deliver_subject"] = deliver.clone().into();
    let answer = api(client, "STREAM.SNAPSHOT.S", request).await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let mut chunks = client.subscribe(deliver).await.unwrap();
    let (mut archive, mut count) = (Vec::new(), 0);
    loop {
        let chunk = next(&mut chunks).await;
        if chunk.payload.is_empty() {
            return Taken {
                answer,
                archive,
                chunks: count,
                end: chunk,
            };
        }
        archive.extend_from_slice(&chunk.payload);
        if let Some(reply) = chunk.reply {
            count += 1;
            let expected = format!(".{}.{count}", chunk.payload.len());
            assert!(reply.starts_with("$JS.SNAPSHOT.ACK.S."), "{reply}");
            assert!(reply.ends_with(&expected), "{reply}");
            client.publish(reply, "".into()).await.unwrap();
        }
    }
}

/// Gives a backup back; what the server says at the end.
async fn give(client: &Client, stream: &str, config: &Value, archive: &[u8]) -> Value {
    let request = json!({"config": config, "state": {}});
    let answer = api(client, &format!("STREAM.RESTORE.{stream}"), request).await;
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let subject = answer["deliver_subject"].as_str().unwrap().to_owned();
    assert!(subject.starts_with(&format!("$JS.SNAPSHOT.RESTORE.{stream}.")));
    for chunk in archive.chunks(32 << 10) {
        let reply = client.request(subject.clone(), chunk.to_vec().into()).await;
        let reply = reply.expect("every chunk is answered");
        if !reply.payload.is_empty() {
            return serde_json::from_slice(&reply.payload).unwrap();
        }
    }
    ask(client, &subject, &Value::Null).await
}

#[tokio::test]
async fn a_stream_comes_back_from_its_backup_with_its_consumers() {
    let mut server = Server::jetstream();
    let client = connect(&server).await;
    fill(&client, 3000).await;
    let before = shown(&client, true).await;
    let messages = all_messages(&client, "S", 3000).await;
    assert_eq!(messages.len(), 2997);
    let taken = take(&client, json!({"chunk_size": 4096, "window_size": 16384})).await;
    assert_eq!(
        taken.answer["type"],
        "io.nats.jetstream.api.v1.stream_snapshot_response"
    );
    assert_eq!(taken.answer["state"]["messages"], 2997);
    assert_eq!(taken.answer["config"]["metadata"]["k"], "v");
    assert!(taken.chunks > 4, "{} chunks", taken.chunks);
    let status = taken.end.status.map(|status| status.as_u16());
    assert_eq!(status, Some(204));

    let refused = api(
        &client,
        "STREAM.RESTORE.S",
        json!({"config": {"name": "S"}}),
    )
    .await;
    assert_eq!(refused["error"]["err_code"], 10130);
    api(&client, "STREAM.DELETE.S", Value::Null).await;
    let restored = give(&client, "S", &taken.answer["config"], &taken.archive).await;
    assert_eq!(
        restored["type"],
        "io.nats.jetstream.api.v1.stream_create_response"
    );
    assert_eq!(restored["state"]["messages"], 2997, "{restored}");
    assert_eq!(shown(&client, true).await, before);
    assert_eq!(all_messages(&client, "S", 3000).await, messages);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "id-2999");
    let again = client.request_with_headers("s.1".to_owned(), headers, "".into());
    let again: Value = serde_json::from_slice(&again.await.unwrap().payload).unwrap();
    assert_eq!(again["duplicate"], true, "ids are remembered: {again}");

    // Nothing of that rests on memory.
    server.kill();
    server.start_again();
    let client = connect(&server).await;
    assert_eq!(shown(&client, true).await, before);
    assert_eq!(all_messages(&client, "S", 3000).await, messages);
    let ack = ask(&client, "s.1", &Value::Null).await;
    assert_eq!(ack["seq"], 3001);
}

#[tokio::test]
async fn consumers_are_left_out_when_asked_and_a_small_backup_is_one_piece() {
    let server = Server::jetstream();
    let client = connect(&server).await;
    fill(&client, 60).await;
    let taken = take(&client, json!({"no_consumers": true})).await;
    assert_eq!(taken.chunks, 0);
    assert_eq!(taken.end.status, None, "nothing was acknowledged");
    api(&client, "STREAM.DELETE.S", Value::Null).await;
    let restored = give(&client, "S", &taken.answer["config"], &taken.archive).await;
    assert_eq!(restored["state"]["consumer_count"], 0, "{restored}");
    assert_eq!(
        restored["state"]["last_seq"], 60,
        "a deleted last one counts"
    );
}

#[tokio::test]
async fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let server = Server::jetstream();
    let client = connect(&server).await;
    fill(&client, 500).await;
    let taken = take(&client, json!({})).await;
    api(&client, "STREAM.DELETE.S", Value::Null).await;
    let config = &taken.answer["config"];
    let mut flipped = taken.archive.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let cut = &taken.archive[..middle];
    for (archive, reason) in [
        (&flipped[..], "S2 stream"),
        (cut, "restore failed"),
        (b"text", "restore failed"),
    ] {
        let answer = give(&client, "S", config, archive).await;
        assert_eq!(answer["error"]["err_code"], 10062, "{answer}");
        let text = answer["error"]["description"].as_str().unwrap();
        assert!(text.contains(reason), "{text}");
        let gone = api(&client, "STREAM.INFO.S", Value::Null).await;
        assert_eq!(gone["error"]["err_code"], 10059);
    }
    let answer = give(&client, "S", config, &taken.archive).await;
    assert_eq!(answer["error"], Value::Null, "the whole one is taken");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_references_errors() {
    let server = Server::jetstream();
    let client = connect(&server).await;
    let code = async |subject: &str, body: Value| {
        api(&client, subject, body).await["error"]["err_code"].clone()
    };
    let memory = json!({"name": "M", "subjects": ["m"], "storage": "memory"});
    api(&client, "STREAM.CREATE.M", memory).await;
    assert_eq!(code("STREAM.SNAPSHOT.M", Value::Null).await, 10003);
    assert_eq!(
        code("STREAM.SNAPSHOT.X", json!({"deliver_subject": "d"})).await,
        10059
    );
    assert_eq!(
        code("STREAM.SNAPSHOT.M", json!({"deliver_subject": "d.*"})).await,
        10015
    );
    assert_eq!(
        code("STREAM.SNAPSHOT.M", json!({"deliver_subject": "d"})).await,
        10064
    );
    assert_eq!(code("STREAM.RESTORE.R", Value::Null).await, 10003);
    let other = json!({"config": {"name": "Q"}});
    assert_eq!(code("STREAM.RESTORE.R", other).await, 10056);
    let overlap = json!({"config": {"name": "R", "subjects": ["m"]}});
    assert_eq!(code("STREAM.RESTORE.R", overlap).await, 10065);
}

/// Overwrites a byte in the middle of every block file below a directory; how many there were.
fn damage_blocks(directory: &Path) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            damaged += damage_blocks(&path);
        } else if path.extension().is_some_and(|end| end == "block") {
            let mut bytes = std::fs::read(&path).expect("a file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("it can be written");
            damaged += 1;
        }
    }
    damaged
}

#[tokio::test]
async fn a_stream_that_has_lost_messages_is_not_backed_up_as_if_it_were_whole() {
    let mut server = Server::jetstream();
    let client = connect(&server).await;
    let config = json!({"name": "S", "subjects": ["s.>"]});
    api(&client, "STREAM.CREATE.S", config).await;
    for number in 0..4_000 {
        let publish = client.publish(format!("s.{number}"), vec![7; 1_000].into());
        publish.await.unwrap();
    }
    let state = api(&client, "STREAM.INFO.S", Value::Null).await;
    assert_eq!(state["state"]["messages"], 4_000);
    drop(client);
    server.stop();
    assert_ne!(damage_blocks(&server.store_directory()), 0);
    server.start_again();

    let client = connect(&server).await;
    let state = api(&client, "STREAM.INFO.S", Value::Null).await;
    assert_eq!(state["state"]["messages"], 4_000, "{state}");
    let listed = |state: &Value| {
        let lost: Vec<u64> =
            serde_json::from_value(state["state"]["lost"]["msgs"].clone()).unwrap();
        assert!(
            state["state"]["lost"]["bytes"].as_u64() > Some(1_000),
            "{state}"
        );
        lost
    };
    // A few of them, and all for who asks.
    let few = listed(&state);
    let query = json!({"deleted_details": true});
    let state = api(&client, "STREAM.INFO.S", query.clone()).await;
    let lost = listed(&state);
    assert!(!lost.is_empty() && lost.starts_with(&few), "{lost:?}");
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    for sequence in [1, first - 1, first, last, last + 1, 4_000] {
        let get = json!({"seq": sequence});
        let found = api(&client, "STREAM.MSG.GET.S", get).await;
        let is_lost = lost.contains(&sequence);
        assert_eq!(found["error"].is_object(), is_lost, "{sequence}: {found}");
    }
    // The same after another start.
    server.stop();
    server.start_again();
    let client = connect(&server).await;
    let state = api(&client, "STREAM.INFO.S", query).await;
    assert_eq!(listed(&state), lost);
    let request = json!({"deliver_subject": "d", "jsck": true});
    let answer = api(&client, "STREAM.SNAPSHOT.S", request).await;
    assert_eq!(answer["error"]["err_code"], 10064, "{answer}");
    let description = answer["error"]["description"].as_str().unwrap();
    assert!(description.contains("bad messages"), "{description}");
}

#[tokio::test]
async fn a_client_that_goes_or_falls_silent_ends_its_backup() {
    let server = Server::jetstream();
    let client = connect(&server).await;
    fill(&client, 200).await;
    let inbox = client.new_inbox();
    let mut chunks = client.subscribe(inbox.clone()).await.unwrap();
    let request = json!({"deliver_subject": inbox, "chunk_size": 1024, "window_size": 1024});
    api(&client, "STREAM.SNAPSHOT.S", request.clone()).await;
    assert!(!next(&mut chunks).await.payload.is_empty());
    let busy = api(&client, "STREAM.SNAPSHOT.S", request).await;
    assert_eq!(
        busy["error"]["description"],
        "snapshot failed: snapshot in progress"
    );
    let end = next(&mut chunks).await;
    assert!(end.payload.is_empty());
    assert_eq!(end.status.map(|status| status.as_u16()), Some(408));
    assert_eq!(end.description.as_deref(), Some("No Flow Response"));

    let config = json!({"config": {"name": "T", "subjects": ["t"]}});
    let answer = api(&client, "STREAM.RESTORE.T", config.clone()).await;
    let subject = answer["deliver_subject"].as_str().unwrap().to_owned();
    server.wait_for_log("restore for stream '$G > T' is stalled");
    let nobody = client.request(subject, "".into()).await;
    assert!(nobody.is_err(), "nobody listens there any more");
}

#[tokio::test]
async fn others_hear_of_backups() {
    let server = Server::jetstream();
    let client = connect(&server).await;
    fill(&client, 60).await;
    let mut told = client
        .subscribe("$JS.EVENT.ADVISORY.STREAM.*.S")
        .await
        .unwrap();
    settle(&client).await;
    let taken = take(&client, json!({})).await;
    let mut hear = async |verb: &str, kind: &str| {
        let message = next(&mut told).await;
        assert_eq!(
            message.subject.as_str(),
            format!("$JS.EVENT.ADVISORY.STREAM.{verb}.S")
        );
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(
            event["type"],
            format!("io.nats.jetstream.advisory.v1.{kind}")
        );
        assert_eq!(event["stream"], "S");
        event
    };
    let begun = hear("SNAPSHOT_CREATE", "snapshot_create").await;
    assert_eq!(begun["state"]["messages"], 57);
    assert_eq!(begun["client"]["acc"], "$G");
    let ended = hear("SNAPSHOT_COMPLETE", "snapshot_complete").await;
    assert!(ended["start"].as_str() <= ended["end"].as_str());
    api(&client, "STREAM.DELETE.S", Value::Null).await;
    hear("DELETED", "stream_action").await;
    give(&client, "S", &taken.answer["config"], &taken.archive).await;
    hear("RESTORE_CREATE", "restore_create").await;
    hear("CREATED", "stream_action").await;
    let ended = hear("RESTORE_COMPLETE", "restore_complete").await;
    assert_eq!(ended["bytes"], taken.archive.len());
}

/// A backup that the reference made: its `backup.json` and its archive.
fn fixture(name: &str) -> Option<(Value, Vec<u8>)> {
    let packed = std::fs::read(fixtures().join(format!("backup-{name}.tar.gz"))).ok()?;
    let mut tar = TarReader::new(flate2::read::GzDecoder::new(&packed[..]));
    let (mut about, mut archive) = (Value::Null, Vec::new());
    while let Some(entry) = tar.next_entry().expect("the fixture is a tar") {
        if entry.name.ends_with("backup.json") {
            let mut text = Vec::new();
            tar.read_to_end(&mut text).expect("it is whole");
            about = serde_json::from_slice(&text).expect("JSON");
        } else if entry.name.ends_with("stream.tar.s2") {
            tar.read_to_end(&mut archive).expect("it is whole");
        }
    }
    Some((about, archive))
}

fn fixtures() -> std::path::PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures");
    std::env::var_os("FIXTURES_DIR").map_or_else(|| beside.into(), Into::into)
}

#[tokio::test]
async fn backups_of_the_reference_are_restored_message_by_message() {
    let expected = std::fs::File::open(fixtures().join("store-plain.expected.json.gz"));
    let Ok(expected) = expected else {
        println!("skipped: the reference's backups are not on this machine");
        return;
    };
    let expected: Value =
        serde_json::from_reader(flate2::read::GzDecoder::new(expected)).expect("JSON");
    let server = Server::jetstream();
    let client = connect(&server).await;
    for name in ["ORDERS", "KV_cfg", "WORK", "BLOCKS"] {
        let (about, archive) = fixture(name).expect("it is there with the others");
        let restored = give(&client, name, &about["config"], &archive).await;
        assert_eq!(restored["error"], Value::Null, "{name}: {restored}");
        let info = &expected["streams"][name];
        let last = info["state"]["last_seq"].as_u64().unwrap();
        assert_eq!(restored["created"], info["created"], "{name}");
        let theirs = expected["messages"].as_array().unwrap();
        let mut theirs = theirs.iter().filter(|message| message["stream"] == name);
        for ours in all_messages(&client, name, last).await {
            let mut theirs = theirs.next().expect("not more than there were").clone();
            theirs.as_object_mut().unwrap().remove("stream");
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(theirs.next(), None, "{name}: not fewer than there were");
    }
    for (consumer, info) in expected["consumers"].as_object().unwrap() {
        let ours = api(&client, &format!("CONSUMER.INFO.{consumer}"), Value::Null).await;
        for key in ["created", "config", "num_ack_pending", "num_pending"] {
            assert_eq!(ours[key], info[key], "{consumer}: {key}");
        }
    }
    let decode = base64::engine::general_purpose::STANDARD;
    let message = api(&client, "STREAM.MSG.GET.KV_cfg", json!({"seq": 1002})).await;
    let headers = decode
        .decode(message["message"]["hdrs"].as_str().unwrap())
        .unwrap();
    assert!(headers.starts_with(b"NATS/1.0\r\nKV-Operation"));
}
