//! The system account: what the server says of itself, and what it answers when it is asked.

mod common;

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subscriber};
use common::{Server, ServerOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};

const CONFIG: &str = r#"
    server_name: lonely
    jetstream { store_dir: "@DIR@/store" }
    accounts {
      A {
        jetstream: enabled
        users: [ {user: a, password: a, permissions: { publish: { deny: "secret" }, subscribe: [">", "x q"] }} ]
      }
      SYS { users: [ {user: admin, password: admin} ] }
    }
    system_account: SYS
"#;
const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> Server {
    ServerOptions::default().config(CONFIG).start()
}

async fn connect(server: &Server, user: &str) -> Client {
    ConnectOptions::with_user_and_password(user.into(), user.into())
        .name("tester")
        .connect(server.url())
        .await
        .expect("the user is known")
}

async fn ask(client: &Client, subject: &str, body: &str) -> Value {
    let answer = client
        .request(subject.to_owned(), body.to_owned().into())
        .await
        .unwrap_or_else(|error| panic!("{subject} {body}: {error}"));
    serde_json::from_slice(&answer.payload).unwrap()
}

async fn listen(client: &Client, subject: &str) -> Subscriber {
    let subscriber = client.subscribe(subject.to_owned()).await.unwrap();
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    next(&mut echo).await;
    subscriber
}

async fn next(subscriber: &mut Subscriber) -> (String, Value) {
    let message = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    let message = message.expect("nothing came").expect("still subscribed");
    let payload = serde_json::from_slice(&message.payload).unwrap_or_default();
    (message.subject.to_string(), payload)
}

#[tokio::test]
async fn a_server_answers_for_itself_and_when_all_are_asked() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let identity = ask(&admin, "$SYS.REQ.SERVER.PING.IDZ", "").await;
    assert_eq!(identity["name"], "lonely");
    let id = identity["id"].as_str().unwrap().to_owned();
    for to in ["PING", id.as_str()] {
        let varz = ask(&admin, &format!("$SYS.REQ.SERVER.{to}.VARZ"), "").await;
        assert_eq!(varz["data"]["server_id"], id);
        assert_eq!(varz["data"]["system_account"], "SYS");
        let envelope = &varz["server"];
        assert_eq!(envelope["name"], "lonely");
        assert_eq!(envelope["id"], id);
        assert_eq!(envelope["jetstream"], true);
        let jsz = ask(
            &admin,
            &format!("$SYS.REQ.SERVER.{to}.JSZ"),
            r#"{"accounts":true}"#,
        )
        .await;
        assert_eq!(jsz["data"]["account_details"][0]["name"], "A");
        let health = ask(&admin, &format!("$SYS.REQ.SERVER.{to}.HEALTHZ"), "").await;
        assert_eq!(health["data"], json!({"status": "ok", "status_code": 200}));
        let statsz = ask(&admin, &format!("$SYS.REQ.SERVER.{to}.STATSZ"), "").await;
        assert_eq!(statsz["statsz"]["connections"], 1);
        assert_eq!(statsz["statsz"]["active_accounts"], 1);
    }
    let old = ask(&admin, "$SYS.REQ.SERVER.PING", "").await;
    assert_eq!(old["server"]["id"], id);
    assert!(old["server"]["seq"].as_u64().unwrap() > 1);
}

#[tokio::test]
async fn a_server_that_is_not_meant_keeps_silent_and_nonsense_is_refused() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let mut answers = listen(&admin, "answers.>").await;
    for (name, body) in [
        ("other", r#"{"server_name":"another"}"#),
        ("exact", r#"{"server_name":"lone","exact_match":true}"#),
        ("cluster", r#"{"cluster":"c"}"#),
        ("tags", r#"{"tags":["t"]}"#),
        ("nonsense", "{"),
        ("part", r#"{"server_name":"lone"}"#),
    ] {
        let subject = "$SYS.REQ.SERVER.PING.VARZ";
        let reply = format!("answers.{name}");
        admin
            .publish_with_reply(subject, reply, body.into())
            .await
            .unwrap();
    }
    let (subject, refused) = next(&mut answers).await;
    assert_eq!(subject, "answers.nonsense");
    assert_eq!(refused["error"]["code"], 400);
    let (subject, answer) = next(&mut answers).await;
    assert_eq!(subject, "answers.part");
    assert_eq!(answer["data"]["server_name"], "lonely");
}

#[tokio::test]
async fn nobody_outside_the_system_account_can_ask() {
    let server = server();
    let client = connect(&server, "a").await;
    client
        .request("$SYS.REQ.SERVER.PING.VARZ", "".into())
        .await
        .expect_err("nobody listens in this account");
}

#[tokio::test]
async fn a_client_learns_who_it_is() {
    let server = server();
    let client = connect(&server, "a").await;
    let info = ask(&client, "$SYS.REQ.USER.INFO", "").await;
    assert_eq!(
        info["data"],
        json!({
            "user": "a", "account": "A", "account_name": "A",
            "permissions": {"publish": {"deny": ["secret"]}, "subscribe": {"allow": [">", "x q"]}}
        })
    );
    let admin = connect(&server, "admin").await;
    let info = ask(&admin, "$SYS.REQ.USER.INFO", "").await;
    assert_eq!(
        info["data"],
        json!({"user": "admin", "account": "SYS", "account_name": "SYS"})
    );
}

#[tokio::test]
async fn who_comes_and_goes_is_told_with_what_it_said() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let mut of_a = listen(&admin, "$SYS.ACCOUNT.A.>").await;
    let client = connect(&server, "a").await;
    let (subject, event) = next(&mut of_a).await;
    assert_eq!(subject, "$SYS.ACCOUNT.A.CONNECT");
    assert_eq!(event["type"], "io.nats.server.advisory.v1.client_connect");
    assert_eq!(event["server"]["name"], "lonely");
    let who = &event["client"];
    for (key, value) in [
        ("acc", "A"),
        ("user", "a"),
        ("name", "tester"),
        ("lang", "rust"),
        ("kind", "Client"),
        ("client_type", "nats"),
    ] {
        assert_eq!(who[key], value, "{key}");
    }
    let (subject, event) = next(&mut of_a).await;
    assert_eq!(subject, "$SYS.ACCOUNT.A.SERVER.CONNS");
    assert_eq!(event["conns"], 1);
    assert_eq!(event["acc"], "A");
    client.publish("x", "abc".into()).await.unwrap();
    client.drain().await.unwrap();
    let (subject, event) = next(&mut of_a).await;
    assert_eq!(subject, "$SYS.ACCOUNT.A.DISCONNECT");
    assert_eq!(event["reason"], "Client Closed");
    assert_eq!(event["sent"], json!({"msgs": 1, "bytes": 3}));
    assert!(event["client"]["stop"].is_string());
    let (subject, event) = next(&mut of_a).await;
    assert_eq!(subject, "$SYS.ACCOUNT.A.SERVER.CONNS");
    assert_eq!(event["conns"], 0);
    assert_eq!(event["received"]["msgs"], 1);
}

#[tokio::test]
async fn who_is_turned_away_is_told() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let mut refusals = listen(&admin, "$SYS.SERVER.*.CLIENT.AUTH.ERR").await;
    ConnectOptions::with_user_and_password("a".into(), "wrong".into())
        .connect(server.url())
        .await
        .expect_err("the password is wrong");
    let (_, event) = next(&mut refusals).await;
    assert_eq!(
        event["type"],
        "io.nats.server.advisory.v1.client_disconnect"
    );
    assert_eq!(event["reason"], "Authentication Failure");
}

#[tokio::test]
async fn figures_are_sent_again_and_again_and_the_end_is_told() {
    let mut server = server();
    let admin = connect(&server, "admin").await;
    let mut said = listen(&admin, "$SYS.SERVER.*.STATSZ").await;
    let (_, figures) = next(&mut said).await;
    let jetstream = &figures["statsz"]["jetstream"];
    assert!(jetstream["stats"].is_object());
    assert!(jetstream["config"]["max_storage"].is_u64());
    assert!(jetstream["config"].get("store_dir").is_none());
    let mut last_words = listen(&admin, "$SYS.SERVER.*.SHUTDOWN").await;
    server.stop();
    let (_, last) = next(&mut last_words).await;
    assert_eq!(last["name"], "lonely");
}

#[tokio::test]
async fn an_account_is_shown_to_who_asks_for_it() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let _client = connect(&server, "a").await;
    let statz = ask(&admin, "$SYS.REQ.ACCOUNT.A.STATZ", "").await;
    assert_eq!(statz["data"]["account_statz"][0]["conns"], 1);
    let all = ask(&admin, "$SYS.REQ.ACCOUNT.PING.STATZ", "").await;
    assert_eq!(all["data"]["account_statz"].as_array().unwrap().len(), 2);
    let conns = ask(&admin, "$SYS.REQ.ACCOUNT.A.CONNS", "").await;
    assert_eq!(conns["total_conns"], 1);
    let jsz = ask(&admin, "$SYS.REQ.ACCOUNT.A.JSZ", "").await;
    assert_eq!(jsz["data"]["name"], "A");
    let none = ask(&admin, "$SYS.REQ.ACCOUNT.SYS.JSZ", "").await;
    assert_eq!(none["error"]["code"], 500);
}

#[tokio::test]
async fn the_documents_of_monitoring_are_given_with_their_options() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let _client = connect(&server, "a").await;
    let ping = |service: &str| format!("$SYS.REQ.SERVER.PING.{service}");
    let connz = ask(&admin, &ping("CONNZ"), r#"{"auth":true,"acc":"A"}"#).await;
    assert_eq!(connz["data"]["connections"][0]["authorized_user"], "a");
    let closed = ask(&admin, &ping("CONNZ"), r#"{"state":1}"#).await;
    assert_eq!(closed["data"]["num_connections"], 0);
    let bad = ask(&admin, &ping("CONNZ"), r#"{"sort":"bogus"}"#).await;
    assert_eq!(bad["error"]["code"], 500);
    assert_eq!(bad["error"]["description"], "invalid sorting option: bogus");
    let subsz = ask(
        &admin,
        &ping("SUBSZ"),
        r#"{"subscriptions":true,"limit":1}"#,
    )
    .await;
    let list = subsz["data"]["subscriptions_list"].as_array().unwrap();
    assert_eq!(list.len(), 1);
    let accountz = ask(&admin, &ping("ACCOUNTZ"), r#"{"account":"A"}"#).await;
    assert_eq!(
        accountz["data"]["account_detail"]["jetstream_enabled"],
        true
    );
    for (service, key) in [
        ("LEAFZ", "leafs"),
        ("GATEWAYZ", "inbound_gateways"),
        ("ROUTEZ", "routes"),
    ] {
        let answer = ask(&admin, &ping(service), "").await;
        assert!(answer["data"].get(key).is_some(), "{service}");
    }
    let about = |service: &str| format!("$SYS.REQ.ACCOUNT.A.{service}");
    let subsz = ask(&admin, &about("SUBSZ"), "").await;
    let list = subsz["data"]["subscriptions_list"].as_array().unwrap();
    assert!(!list.is_empty() && list.iter().all(|one| one["account"] == "A"));
    let connz = ask(&admin, &about("CONNZ"), "").await;
    assert_eq!(connz["data"]["total"], 1);
    let info = ask(&admin, &about("INFO"), "").await;
    assert_eq!(info["data"]["account_name"], "A");
    let nobody = ask(&admin, "$SYS.REQ.ACCOUNT.A.LEAFZ", "").await;
    assert_eq!(nobody["data"]["leafnodes"], 0);
}

#[tokio::test]
async fn the_clients_of_an_account_see_their_own_account_and_no_other() {
    let server = server();
    let _admin = connect(&server, "admin").await;
    let client = connect(&server, "a").await;
    for subject in ["$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ"] {
        let connz = ask(&client, subject, r#"{"acc":"SYS"}"#).await;
        assert_eq!(connz["data"]["total"], 1, "{subject}");
        assert_eq!(connz["data"]["connections"][0]["name"], "tester");
    }
    let statz = ask(&client, "$SYS.REQ.ACCOUNT.PING.STATZ", "").await;
    let accounts = statz["data"]["account_statz"].as_array().unwrap();
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0]["acc"], "A");
}

#[tokio::test]
async fn insides_are_shown_to_who_asks_for_them() {
    let server = server();
    let admin = connect(&server, "admin").await;
    let variables = ask(&admin, "$SYS.REQ.SERVER.PING.EXPVARZ", "").await;
    assert!(variables["data"]["memstats"]["Alloc"].as_u64().unwrap() > 0);
    assert!(variables["data"]["cmdline"][0].is_string());
    let subject = "$SYS.REQ.SERVER.PING.IPQUEUESZ";
    let all = ask(&admin, subject, r#"{"all":true}"#).await;
    for queue in ["System account", "JetStream API", "shard 0"] {
        assert!(all["data"][queue]["pending"].is_u64(), "{queue}: {all}");
    }
    let some = ask(&admin, subject, r#"{"all":true,"filter":"shard"}"#).await;
    assert!(some["data"]["JetStream API"].is_null(), "{some}");
    assert!(some["data"]["shard 0"].is_object(), "{some}");

    let groups = ask(&admin, "$SYS.REQ.SERVER.PING.RAFTZ", "").await;
    assert!(groups["server"]["name"].is_string(), "{groups}");
    assert!(groups["error"].is_null(), "{groups}");

    let subject = "$SYS.REQ.SERVER.PING.PROFILEZ";
    for (body, reason) in [
        ("", "Profile name not specified"),
        (r#"{"name":"heap"}"#, "Profile \"heap\" not found"),
        (
            r#"{"name":"cpu","duration":16000000000}"#,
            "Duration 16s should be between 0s and 15s",
        ),
    ] {
        let refused = ask(&admin, subject, body).await;
        assert_eq!(refused["data"]["error"], reason, "{refused}");
        assert!(refused["data"]["profile"].is_null());
    }
    let taken = ask(&admin, subject, r#"{"name":"cpu","duration":200000000}"#).await;
    assert_eq!(taken["data"]["error"], "");
    // A gzip stream, in base64.
    let profile = taken["data"]["profile"].as_str().unwrap();
    assert!(profile.starts_with("H4sI"), "{profile}");
}

#[tokio::test]
async fn tags_and_metadata_are_told_and_asked_for() {
    let about = "server_tags: [\"az:1\", \"SSD\"], server_metadata { owner: x }";
    let mut server = ServerOptions::default()
        .config(&format!("{about}\n{CONFIG}"))
        .start();
    let admin = connect(&server, "admin").await;
    let varz = ask(
        &admin,
        "$SYS.REQ.SERVER.PING.VARZ",
        r#"{"tags":["ssd","az:1"]}"#,
    )
    .await;
    for place in [&varz["server"], &varz["data"]] {
        assert_eq!(place["tags"], json!(["az:1", "ssd"]));
        assert_eq!(place["metadata"], json!({"owner": "x"}));
    }
    server.write_config(&format!("server_tags: hdd\n{CONFIG}"));
    ask(
        &admin,
        &format!(
            "$SYS.REQ.SERVER.{}.RELOAD",
            varz["server"]["id"].as_str().unwrap()
        ),
        "",
    )
    .await;
    let varz = ask(&admin, "$SYS.REQ.SERVER.PING.VARZ", r#"{"tags":["hdd"]}"#).await;
    assert_eq!(varz["data"]["tags"], json!(["hdd"]));
    assert!(varz["data"]["metadata"].is_null());
}

#[tokio::test]
async fn subscribers_are_counted_for_who_asks() {
    let server = server();
    let client = connect(&server, "a").await;
    let mut held = Vec::new();
    for subject in ["orders.new", "orders.*", "orders.>", "other"] {
        held.push(client.subscribe(subject).await.unwrap());
    }
    for _ in 0..2 {
        let of_group = client.queue_subscribe("orders.new", "q".into()).await;
        held.push(of_group.unwrap());
    }
    // Another account's are not counted.
    let admin = connect(&server, "admin").await;
    held.push(admin.subscribe("orders.new").await.unwrap());
    admin.flush().await.unwrap();
    for (asked, count) in [
        ("orders.new", 5),
        ("orders.new q", 2),
        ("orders.*", 4),
        ("orders.x", 2),
        ("nothing", 0),
        ("a..b", 0),
        ("", 0),
    ] {
        let answer = ask(&client, "$SYS.DEBUG.SUBSCRIBERS", asked).await;
        assert_eq!(answer, json!(count), "{asked}");
    }
    let asked = json!({"acc": "A", "subject": "orders.new"}).to_string();
    let answer = ask(&admin, "$SYS.REQ.ACCOUNT.NSUBS", &asked).await;
    assert_eq!(answer, json!(5));
}

#[tokio::test]
async fn a_server_without_an_account_of_its_own_tells_nothing() {
    let server = ServerOptions::default()
        .config("no_system_account: true\naccounts { A { users: [ {user: a, password: a} ] } }")
        .monitoring()
        .start();
    let client = connect(&server, "a").await;
    client
        .request("$SYS.REQ.USER.INFO", "".into())
        .await
        .expect_err("nobody listens");
    let answer = common::http_get(server.monitor_address(), "/varz").unwrap();
    assert!(!answer.body.contains("system_account"), "{}", answer.body);
    let answer = common::http_get(server.monitor_address(), "/accountz").unwrap();
    assert!(!answer.body.contains("$SYS"), "{}", answer.body);
}
