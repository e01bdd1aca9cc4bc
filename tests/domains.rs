//! JetStream domains: an API that is reached under the subjects of a domain, too, and accounts that have none of their own.

mod common;

use std::time::Duration;

use async_nats::jetstream::stream::{Config, External, Source};
use async_nats::{Client, jetstream};
use common::{ServerOptions, connect_as, eventually_async, http_get, round_trip};
use futures_util::StreamExt;
use serde_json::{Value, json};

const HUB: &str = r#"
    server_name: hub1
    jetstream { store_dir: "@DIR@/store", domain: hub }
    accounts {
      A {
        jetstream: enabled
        users: [ {user: a, password: a} ]
        exports: [
          {service: "$JS.hub.API.>"}, {service: "$JS.FC.>"}, {stream: "copies.>"}
        ]
      }
      B {
        jetstream: enabled
        users: [ {user: b, password: b} ]
        imports: [
          {service: {account: A, subject: "$JS.hub.API.>"}, to: "of.a.>"}
          {service: {account: A, subject: "$JS.FC.>"}}
          {stream: {account: A, subject: "copies.>"}}
        ]
      }
      C { users: [ {user: c, password: c} ] }
      D {
        users: [ {user: d, password: d} ]
        imports: [ {service: {account: A, subject: "$JS.hub.API.>"}} ]
      }
      $SYS { users: [ {user: s, password: s} ] }
    }
    default_js_domain { D: hub }
"#;

async fn ask(client: &Client, subject: &str, body: &str) -> Value {
    let answer = client.request(subject.to_owned(), body.to_owned().into());
    let answer = answer.await.expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

async fn next(subscriber: &mut async_nats::Subscriber) -> Value {
    let message = tokio::time::timeout(Duration::from_secs(20), subscriber.next()).await;
    let message = message.expect("in time").expect("a message");
    serde_json::from_slice(&message.payload).expect("JSON")
}

#[tokio::test]
async fn the_api_is_reached_under_the_domain_and_names_it() {
    let server = ServerOptions::default().config(HUB).monitoring().start();
    let client = connect_as(&server, "a").await;
    let mut created = client
        .subscribe("$JS.EVENT.ADVISORY.STREAM.CREATED.*")
        .await
        .expect("subscribed");
    let mut audits = client
        .subscribe("$JS.EVENT.ADVISORY.API")
        .await
        .expect("subscribed");
    round_trip(&client).await;
    assert_eq!(client.server_info().domain.as_deref(), Some("hub"));

    let hub = jetstream::with_domain(client.clone(), "hub");
    let stream = hub
        .create_stream(Config {
            name: "S".into(),
            subjects: vec!["s.>".into()],
            allow_direct: true,
            ..Config::default()
        })
        .await
        .expect("created");
    let ack = client.request("s.1", "x".into()).await.expect("stored");
    assert_eq!(
        ack.payload.as_ref(),
        br#"{"stream":"S","domain":"hub","seq":1}"#
    );
    let consumer = stream
        .create_consumer(jetstream::consumer::pull::Config::default())
        .await
        .expect("created");
    let mut messages = consumer.fetch().messages().await.expect("asked");
    let message = messages.next().await.expect("one").expect("sound");
    message.ack().await.expect("acknowledged");
    assert_eq!(stream.direct_get(1).await.expect("it is there").sequence, 1);
    assert_eq!(ask(&client, "$JS.hub.API.INFO", "").await["domain"], "hub");
    assert_eq!(next(&mut created).await["domain"], "hub");
    let audit = next(&mut audits).await;
    assert_eq!(
        (&audit["domain"], &audit["subject"]),
        (&json!("hub"), &json!("$JS.API.STREAM.CREATE.S"))
    );

    let bucket = jetstream::kv::Config {
        bucket: "K".into(),
        ..Default::default()
    };
    hub.create_key_value(bucket).await.expect("created");
    let put = client.request("$JS.hub.API.$KV.K.key", "v".into()).await;
    let put: Value = serde_json::from_slice(&put.expect("an answer").payload).expect("JSON");
    assert_eq!(
        (&put["stream"], &put["seq"]),
        (&json!("KV_K"), &json!(1)),
        "{put}"
    );

    let other = client.request("$JS.other.API.INFO", "".into()).await;
    let other = other.expect_err("nobody is there");
    assert!(other.to_string().contains("no responders"), "{other}");

    for path in ["/varz", "/jsz"] {
        let body = http_get(server.monitor_address(), path).expect("served");
        let document: Value = serde_json::from_str(&body.body).expect("JSON");
        let config = match path {
            "/varz" => &document["jetstream"]["config"],
            _ => &document["config"],
        };
        assert_eq!(config["domain"], "hub", "{path}");
    }
    let admin = connect_as(&server, "s").await;
    let told = ask(&admin, "$SYS.REQ.SERVER.PING.STATSZ", r#"{"domain":"hub"}"#).await;
    assert_eq!(told["server"]["domain"], "hub");
}

#[tokio::test]
async fn a_stream_of_a_domain_is_copied_into_another_account() {
    let server = ServerOptions::default().config(HUB).start();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let origin = Config {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        ..Config::default()
    };
    let made = jetstream::new(a.clone()).create_stream(origin).await;
    made.expect("created");
    for number in 0..10 {
        let stored = a.request("s.x", format!("{number}").into()).await;
        stored.expect("stored");
    }
    let source = Source {
        name: "S".into(),
        external: Some(External {
            api_prefix: "of.a".into(),
            delivery_prefix: Some("copies.b".into()),
        }),
        ..Source::default()
    };
    let here = jetstream::new(b.clone());
    let copy = Config {
        name: "M".into(),
        mirror: Some(source),
        ..Config::default()
    };
    let mut copy = here.create_stream(copy).await.expect("created");
    eventually_async("all is copied", async || {
        let info = copy.info().await.expect("told");
        (info.state.messages == 10).then_some(())
    })
    .await;
    let shown = ask(&b, "$JS.API.STREAM.INFO.M", "").await;
    let external = json!({"api": "of.a", "deliver": "copies.b"});
    assert_eq!(
        (&shown["mirror"]["external"], &shown["mirror"]["lag"]),
        (&external, &json!(0)),
        "{shown}"
    );
    // Nobody but the server needs to know who copies.
    let names = ask(&a, "$JS.API.CONSUMER.NAMES.S", "").await;
    assert_eq!(names["consumers"], json!([]), "{names}");
}

#[tokio::test]
async fn an_account_without_jetstream_is_told_so_or_led_to_its_default_domain() {
    let server = ServerOptions::default().config(HUB).start();
    let (a, c, d) = (
        connect_as(&server, "a").await,
        connect_as(&server, "c").await,
        connect_as(&server, "d").await,
    );
    for subject in ["INFO", "STREAM.LIST", "STREAM.INFO.S", "CONSUMER.LIST.S"] {
        for prefix in ["$JS.API", "$JS.hub.API"] {
            let answer = ask(&c, &format!("{prefix}.{subject}"), "").await;
            assert_eq!(answer["error"]["err_code"], 10039, "{subject}: {answer}");
        }
    }
    let direct = c.request("$JS.API.DIRECT.GET.S", "".into()).await;
    let direct = direct.expect_err("nobody is there");
    assert!(direct.to_string().contains("no responders"), "{direct}");

    let origin = Config {
        name: "S".into(),
        subjects: vec!["s".into()],
        ..Config::default()
    };
    let made = jetstream::new(a).create_stream(origin).await;
    made.expect("created");
    let info = ask(&d, "$JS.API.INFO", "").await;
    assert_eq!(
        (&info["streams"], &info["domain"]),
        (&json!(1), &json!("hub")),
        "{info}"
    );
    let there = jetstream::new(d);
    there.get_stream("S").await.expect("it is that of the hub");
}

#[test]
fn domains_that_cannot_be_are_refused() {
    for (config, why) in [
        (
            "jetstream { domain: \"a.b\" }",
            "invalid domain name: may not contain ., * or >",
        ),
        ("jetstream { domain: \"a b\" }", "is not a valid subject"),
        (
            "accounts { A { jetstream: enabled, users: [{user: a, password: a}] } }\ndefault_js_domain { A: hub }",
            "with enabled JetStream",
        ),
        (
            "default_js_domain { A: hub }",
            "references non existing account \"A\"",
        ),
        (
            "accounts { $SYS { users: [{user: s, password: s}] } }\ndefault_js_domain { $SYS: hub }",
            "system account \"$SYS\" can not be in default_js_domain",
        ),
    ] {
        let Err(reason) = ServerOptions::default().config(config).try_start() else {
            panic!("{config} was taken");
        };
        assert!(reason.contains(why), "{config}: {reason}");
    }
}
