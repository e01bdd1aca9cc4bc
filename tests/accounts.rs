//! Accounts: spaces of subjects of their own, with users, limits and streams of their own.

mod common;

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, ErrorCode, stream};
use common::{Server, ServerOptions, Wire, connect_as, http_get, next_subject, round_trip};
use serde_json::Value;

const ACCOUNTS: &str = r#"
    jetstream { store_dir: "@DIR@/store" }
    accounts {
      A {
        jetstream: { max_mem: 1MB, max_file: 2MB, max_streams: 2, max_consumers: 1 }
        users: [ {user: a, password: a}, {nkey: @NKEY@} ]
        default_permissions: { publish: { deny: "secret" } }
      }
      B {
        jetstream: enabled
        users: [ {user: b, password: b} ]
      }
      C {
        limits { max_connections: 2, max_subscriptions: 1, max_payload: 10 }
        users: [ {user: c, password: c} ]
      }
      SYS { users: [ {user: admin, password: admin} ] }
    }
    system_account: SYS
    no_auth_user: b
"#;

fn server() -> Server {
    server_that_knows(&nkeys::KeyPair::new_user())
}

fn server_that_knows(key: &nkeys::KeyPair) -> Server {
    let config = ACCOUNTS.replace("@NKEY@", &key.public_key());
    ServerOptions::default()
        .config(&config)
        .monitoring()
        .start()
}

fn login(user: &str) -> String {
    format!(r#"{{"verbose":false,"user":"{user}","pass":"{user}"}}"#)
}

#[tokio::test]
async fn what_is_said_in_an_account_is_heard_in_no_other() {
    let server = server();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    // Who does not say who it is belongs to somebody as well.
    let nobody = async_nats::connect(server.url()).await.unwrap();
    let mut in_a = a.subscribe("news.>").await.unwrap();
    let mut in_b = b.subscribe("news.>").await.unwrap();
    let mut of_nobody = nobody.subscribe("news.>").await.unwrap();
    for client in [&a, &b, &nobody] {
        round_trip(client).await;
    }
    a.publish("news.a", "a".into()).await.unwrap();
    a.flush().await.unwrap();
    b.publish("news.b", "b".into()).await.unwrap();
    b.flush().await.unwrap();
    assert_eq!(next_subject(&mut in_a).await, "news.a");
    assert_eq!(next_subject(&mut in_b).await, "news.b");
    assert_eq!(next_subject(&mut of_nobody).await, "news.b");
}

#[tokio::test]
async fn a_user_with_a_key_is_in_its_account_with_its_default_permissions() {
    let key = nkeys::KeyPair::new_user();
    let server = server_that_knows(&key);
    let keyed = ConnectOptions::with_nkey(key.seed().unwrap())
        .connect(server.url())
        .await
        .expect("the key is known");
    let listener = connect_as(&server, "a").await;
    let mut heard = listener.subscribe("*").await.unwrap();
    round_trip(&listener).await;
    keyed.publish("secret", "x".into()).await.unwrap();
    keyed.publish("open", "x".into()).await.unwrap();
    keyed.flush().await.unwrap();
    assert_eq!(next_subject(&mut heard).await, "open");
    let stranger = ConnectOptions::with_nkey(nkeys::KeyPair::new_user().seed().unwrap());
    stranger
        .connect(server.url())
        .await
        .expect_err("nobody knows this key");
}

#[test]
fn an_account_gives_its_connections_no_more_than_it_may() {
    let server = server();
    let first = Wire::ready(server.address(), &login("c"));
    let mut second = Wire::ready(server.address(), &login("c"));
    let mut third = Wire::connect(server.address());
    third.send(format!("CONNECT {}\r\nPING\r\n", login("c")));
    let last = third.expect_closed();
    assert!(
        last.ends_with("-ERR 'maximum account active connections exceeded'\r\n"),
        "{last}"
    );
    second.send("SUB a 1\r\nSUB b 2\r\n");
    assert_eq!(
        second.round_trip(),
        "-ERR 'maximum subscriptions exceeded'\r\n"
    );
    second.send("PUB a 11\r\nxxxxxxxxxxx\r\n");
    assert_eq!(
        second.expect_closed(),
        "-ERR 'Maximum Payload Violation'\r\n"
    );
    drop(first);
}

#[test]
fn a_client_learns_its_account_and_what_it_may_send() {
    let server = server();
    let mut wire = Wire::connect(server.address());
    let greeting = wire.expect("\r\n");
    // Somebody logs in with a key, so everybody gets something to sign; and nobody has to log in.
    assert!(greeting.contains(r#""nonce":""#), "{greeting}");
    assert!(!greeting.contains("auth_required"), "{greeting}");
    let options = r#"{"verbose":false,"protocol":1,"user":"c","pass":"c"}"#;
    wire.send(format!("CONNECT {options}\r\nPING\r\n"));
    let info = wire.expect(r#""remote_account":"C""#);
    assert!(info.contains(r#""max_payload":10,"#), "{info}");
    let mut admin = Wire::connect(server.address());
    let options = r#"{"verbose":false,"protocol":1,"user":"admin","pass":"admin"}"#;
    admin.send(format!("CONNECT {options}\r\nPING\r\n"));
    admin.expect(r#""remote_account":"SYS","acc_is_sys":true"#);
}

fn refusal(error: &async_nats::jetstream::context::CreateStreamError) -> ErrorCode {
    match error.kind() {
        jetstream::context::CreateStreamErrorKind::JetStream(error) => error.error_code(),
        other => panic!("{other:?}"),
    }
}

fn stream_of(name: &str, max_bytes: i64) -> stream::Config {
    stream::Config {
        name: name.into(),
        subjects: vec![format!("{name}.>")],
        max_bytes,
        ..stream::Config::default()
    }
}

#[tokio::test]
async fn streams_of_two_accounts_may_have_one_name_and_do_not_meet_even_after_a_restart() {
    let mut server = server();
    for user in ["a", "b"] {
        let context = jetstream::new(connect_as(&server, user).await);
        context.create_stream(stream_of("S", -1)).await.unwrap();
        let payload = format!("of {user}").into();
        context
            .publish("S.x", payload)
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let answer = http_get(server.monitor_address(), "/jsz?streams=true").unwrap();
    let seen: Value = serde_json::from_str(&answer.body).unwrap();
    let accounts = seen["account_details"].as_array().unwrap();
    let names: Vec<_> = accounts.iter().map(|account| &account["name"]).collect();
    assert_eq!(names, ["A", "B"]);
    assert_eq!(seen["streams"], 2);
    server.kill();
    server.start_again();
    for user in ["a", "b"] {
        let context = jetstream::new(connect_as(&server, user).await);
        let stream = context.get_stream("S").await.unwrap();
        let message = stream.get_raw_message(1).await.unwrap();
        assert_eq!(message.payload, format!("of {user}"));
    }
}

#[tokio::test]
async fn the_streams_of_an_account_take_no_more_than_it_may_use() {
    let server = server();
    let context = jetstream::new(connect_as(&server, "a").await);
    let error = context
        .create_stream(stream_of("L", 3 << 20))
        .await
        .unwrap_err();
    assert_eq!(refusal(&error), ErrorCode::STORAGE_RESOURCES_EXCEEDED);
    context
        .create_stream(stream_of("S", 1 << 20))
        .await
        .unwrap();
    context.create_stream(stream_of("T", -1)).await.unwrap();
    let error = context.create_stream(stream_of("U", -1)).await.unwrap_err();
    assert_eq!(refusal(&error), ErrorCode::MAXIMUM_STREAMS_LIMIT);
    let account = context.query_account().await.unwrap();
    assert_eq!(account.limits.max_streams, Some(2));
    assert_eq!(account.limits.max_consumers, Some(1));
    // The other account is not concerned.
    let other = jetstream::new(connect_as(&server, "b").await);
    other.create_stream(stream_of("L", 3 << 20)).await.unwrap();
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_so() {
    let server = server();
    for user in ["c", "admin"] {
        let client = connect_as(&server, user).await;
        let answer = client.request("$JS.API.INFO", "".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(
            answer["type"],
            "io.nats.jetstream.api.v1.account_info_response"
        );
        assert_eq!(answer["error"]["err_code"], 10039);
        assert_eq!(
            answer["error"]["description"],
            "JetStream not enabled for account"
        );
        let names = client.request("$JS.API.STREAM.NAMES", "".into());
        let names: Value = serde_json::from_slice(&names.await.unwrap().payload).unwrap();
        assert_eq!(names["error"]["err_code"], 10039);
    }
}

#[tokio::test]
async fn with_users_for_the_system_account_alone_everybody_else_goes_on_as_before() {
    let server = ServerOptions::default()
        .config("accounts { $SYS { users: [ {user: admin, password: admin} ] } }")
        .jetstream()
        .start();
    let anybody = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(anybody);
    context.create_stream(stream_of("S", -1)).await.unwrap();
    let mut admin = Wire::connect(server.address());
    let options = r#"{"verbose":false,"protocol":1,"user":"admin","pass":"admin"}"#;
    admin.send(format!("CONNECT {options}\r\nPING\r\n"));
    admin.expect(r#""remote_account":"$SYS","acc_is_sys":true"#);
}

#[test]
fn what_is_not_built_of_accounts_is_refused_by_name_and_place() {
    for (text, reason) in [
        (
            "accounts {\n A {\n  exports: [ {service: s, latency: l} ]\n }\n}",
            "\"latency\" is not supported",
        ),
        ("system_account: NONE", "account \"NONE\" is missing"),
        ("accounts { $G {} }", "is a Reserved Account"),
    ] {
        let started = ServerOptions::default().config(text).try_start();
        let Err(said) = started else {
            panic!("{text}: it started");
        };
        assert!(said.contains(reason), "{text}: {said}");
    }
}
