//! What a running server tells of itself over HTTP.

mod common;

use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, http_get};
use serde_json::{Value, json};

const CONFIG: &str = r#"
    max_closed_clients: 3
    accounts {
      A { users: [ {user: a, password: a}, {user: b, password: b} ] }
      B { users: [ {user: c, password: c} ] }
      SYS { users: [ {user: admin, password: admin} ] }
    }
    system_account: SYS
"#;

fn server() -> Server {
    ServerOptions::default().config(CONFIG).monitoring().start()
}

fn look(server: &Server, path: &str) -> Value {
    let answer = http_get(server.monitor_address(), path).expect("monitoring answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn log_in(server: &Server, user: &str, name: &str) -> Wire {
    Wire::ready(
        server.address(),
        &format!(
            r#"{{"user":"{user}","pass":"{user}","name":"{name}","lang":"test","version":"1.2"}}"#
        ),
    )
}

fn names(connz: &Value) -> Vec<&str> {
    let connections = connz["connections"].as_array().expect("a list");
    let names = connections.iter();
    names
        .map(|one| one["name"].as_str().unwrap_or(""))
        .collect()
}

#[test]
fn connections_are_shown_with_what_they_did() {
    let server = server();
    let mut one = log_in(&server, "a", "one");
    let mut two = log_in(&server, "b", "two");
    one.send("SUB jobs.> workers 7\r\nSUB news 8\r\nUNSUB 8 5\r\n");
    one.round_trip();
    two.send("PUB jobs.x 5\r\nhello\r\n");
    two.round_trip();
    one.expect("hello");
    let all = look(&server, "/connz?subs=detail&auth=1");
    assert_eq!(all["num_connections"], 2);
    assert_eq!(all["limit"], 1024);
    assert_eq!(names(&all), ["one", "two"]);
    let [one_shown, two_shown] = [&all["connections"][0], &all["connections"][1]];
    let cid = &one_shown["cid"];
    assert_eq!(one_shown["kind"], "Client");
    assert_eq!(one_shown["type"], "nats");
    assert_eq!(one_shown["lang"], "test");
    assert_eq!(one_shown["version"], "1.2");
    assert_eq!(one_shown["authorized_user"], "a");
    assert_eq!(one_shown["account"], "A");
    assert_eq!(one_shown["name_tag"], "A");
    assert_eq!(one_shown["subscriptions"], 2);
    assert_eq!(one_shown["out_msgs"], 1);
    assert_eq!(one_shown["out_bytes"], 5);
    assert_eq!(two_shown["in_msgs"], 1);
    assert!(two_shown["last_activity"].as_str() > two_shown["start"].as_str());
    assert_eq!(
        one_shown["subscriptions_list_detail"],
        json!([
            {"subject": "jobs.>", "qgroup": "workers", "sid": "7", "msgs": 1, "cid": cid},
            {"subject": "news", "sid": "8", "msgs": 0, "max": 5, "cid": cid},
        ])
    );
    let plain = look(&server, "/connz?subs=1");
    let first = &plain["connections"][0];
    assert_eq!(first["subscriptions_list"], json!(["jobs.>", "news"]));
    assert!(first.get("authorized_user").is_none());
    let page = look(&server, "/connz?limit=1&offset=1");
    assert_eq!(names(&page), ["two"]);
    assert_eq!(page["total"], 2);
}

#[test]
fn connections_are_sorted_and_found() {
    let server = server();
    let mut one = log_in(&server, "a", "one");
    let mut two = log_in(&server, "b", "two");
    let mut three = log_in(&server, "c", "three");
    one.send("SUB a.* 1\r\nSUB b 2\r\n");
    one.round_trip();
    two.send("PUB a.x 10\r\n0123456789\r\n");
    two.round_trip();
    three.send("PUB z 0\r\n\r\nPUB z 0\r\n\r\n");
    three.round_trip();
    for (path, found) in [
        ("/connz?sort=subs&limit=1", vec!["one"]),
        ("/connz?sort=msgs_to&limit=1", vec!["one"]),
        ("/connz?sort=bytes_to&limit=1", vec!["one"]),
        ("/connz?sort=msgs_from&limit=2", vec!["three", "two"]),
        ("/connz?sort=bytes_from&limit=1", vec!["two"]),
        ("/connz?sort=uptime", vec!["three", "two", "one"]),
        ("/connz?sort=start", vec!["one", "two", "three"]),
        ("/connz?user=b", vec!["two"]),
        ("/connz?acc=B", vec!["three"]),
        ("/connz?acc=A&filter_subject=a.b", vec!["one"]),
        ("/connz?acc=A&filter_subject=x", vec![]),
        ("/connz?mqtt_client=x", vec![]),
        ("/connz?cid=99", vec![]),
    ] {
        assert_eq!(names(&look(&server, path)), found, "{path}");
    }
    let cid = look(&server, "/connz?user=c")["connections"][0]["cid"].clone();
    let path = format!("/connz?cid={cid}");
    assert_eq!(names(&look(&server, &path)), ["three"]);
}

#[test]
fn connections_that_ended_are_remembered_with_the_reason_and_the_oldest_is_forgotten() {
    let server = server();
    for name in ["one", "two", "three"] {
        let mut wire = log_in(&server, "a", name);
        wire.send("SUB x q 4\r\n");
        wire.round_trip();
        drop(wire);
        // One after another, so that their order is known.
        eventually("it has ended", || {
            let ended = look(&server, "/connz?state=closed&sort=stop");
            names(&ended).contains(&name).then_some(())
        });
    }
    let mut liar = Wire::connect(server.address());
    liar.send("CONNECT {\"user\":\"a\",\"pass\":\"wrong\"}\r\n");
    liar.expect_closed();
    let closed = eventually("four have ended", || {
        let closed = look(&server, "/connz?state=closed&sort=stop&subs=detail&auth=1");
        (closed["connections"][0]["reason"] == "Authentication Failure").then_some(closed)
    });
    assert_eq!(names(&closed), ["", "three", "two"]);
    assert_eq!(closed["total"], 3);
    let last = &closed["connections"][1];
    assert_eq!(last["reason"], "Client Closed");
    assert_eq!(last["subscriptions"], 1);
    assert_eq!(last["account"], "A");
    assert_eq!(last["subscriptions_list_detail"][0]["qgroup"], "q");
    assert!(last["stop"].as_str() >= last["start"].as_str());
    let sorted = look(&server, "/connz?state=closed&sort=reason");
    assert_eq!(sorted["connections"][0]["reason"], "Authentication Failure");
    let _open = log_in(&server, "b", "open");
    let both = look(&server, "/connz?state=any");
    assert_eq!(names(&both), ["two", "three", "", "open"]);
    assert_eq!(
        names(&look(&server, "/connz?state=all&acc=A&user=b")),
        ["open"]
    );
}

#[test]
fn the_index_of_subscriptions_is_shown_and_searched() {
    let server = server();
    let mut one = log_in(&server, "a", "one");
    one.send("SUB jobs.> q 1\r\nSUB jobs.x 2\r\nSUB other 3\r\nUNSUB 3\r\n");
    one.send("PUB jobs.x 0\r\n\r\nPUB jobs.x 0\r\n\r\n");
    one.round_trip();
    let found = look(&server, "/subsz?subs=1&acc=A&test=jobs.x");
    assert_eq!(found["total"], 2);
    let list = found["subscriptions_list"].as_array().unwrap();
    assert_eq!(list[0]["subject"], "jobs.>");
    assert_eq!(list[0]["account"], "A");
    assert_eq!(list[0]["account_tag"], "A");
    assert_eq!(list[0]["msgs"], 2);
    assert_eq!(list[1]["sid"], "2");
    // The figures are about all that is in the account's index, found or not.
    assert!(found["num_inserts"].as_u64().unwrap() >= 3);
    assert!(found["num_removes"].as_u64().unwrap() >= 1);
    assert_eq!(found["max_fanout"], 2);
    assert!(found["num_matches"].as_u64().unwrap() >= 1);
    let page = look(&server, "/subscriptionsz?subs=1&acc=A&offset=1&limit=1");
    assert_eq!(page["subscriptions_list"].as_array().unwrap().len(), 1);
    assert!(look(&server, "/subsz").get("subscriptions_list").is_none());
    let requests = &look(&server, "/varz")["http_req_stats"];
    assert_eq!(requests["/subsz"], 3);
}

#[test]
fn accounts_are_named_and_described() {
    let server = server();
    let mut one = log_in(&server, "a", "one");
    one.send("SUB x 1\r\nPUB x 2\r\nhi\r\n");
    one.round_trip();
    let all = look(&server, "/accountz");
    assert_eq!(all["system_account"], "SYS");
    assert_eq!(all["accounts"], json!(["$G", "A", "B", "SYS"]));
    let detail = &look(&server, "/accountz?acc=A")["account_detail"];
    assert_eq!(detail["account_name"], "A");
    assert_eq!(detail["complete"], true);
    assert_eq!(detail["client_connections"], 1);
    assert_eq!(detail["jetstream_enabled"], false);
    assert_eq!(detail["imports"].as_array().unwrap().len(), 4);
    assert!(detail["sublist_stats"]["num_inserts"].as_u64().unwrap() > 0);
    let system = &look(&server, "/accountz?acc=SYS")["account_detail"];
    assert_eq!(system["is_system"], true);
    assert_eq!(system["imports"].as_array().unwrap().len(), 1);
    assert_eq!(system["exports"].as_array().unwrap().len(), 4);
    let used = look(&server, "/accstatz");
    let used = used["account_statz"].as_array().unwrap();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0]["acc"], "A");
    assert_eq!(used[0]["received"]["bytes"], 2);
    assert_eq!(used[0]["sent"]["msgs"], 1);
    let unused = look(&server, "/accstatz?unused=1");
    assert_eq!(unused["account_statz"].as_array().unwrap().len(), 4);
}

#[test]
fn an_account_shows_where_it_maps_to() {
    const MAPPINGS: &str = r#"accounts { A {
        users [{user: a, password: a}]
        mappings {
            foo: bar
            "b.*": [
                {destination: "c.$1", weight: 20%}
                {destination: "d.{{wildcard(1)}}", weight: 30%}
                {destination: "e.{{wildcard(1)}}", weight: 50%, cluster: EU}
            ]
        }
    } }"#;
    let server = ServerOptions::default()
        .config(MAPPINGS)
        .monitoring()
        .start();
    let detail = &look(&server, "/accountz?acc=A")["account_detail"];
    // As 2.14.5 shows it: weights are summed up, and what they leave stays where it was.
    let expected = json!({
        "foo": [{"subject": "bar", "weight": 100}],
        "b.*": [
            {"subject": "c.$1", "weight": 20},
            {"subject": "d.{{wildcard(1)}}", "weight": 50},
            {"subject": "b.$1", "weight": 100},
            {"subject": "e.{{wildcard(1)}}", "weight": 50, "cluster": "EU"},
            {"subject": "b.$1", "weight": 100, "cluster": "EU"},
        ],
    });
    assert_eq!(detail["mappings"], expected);
}

#[test]
fn the_page_lists_what_answers() {
    let server = server();
    let page = http_get(server.monitor_address(), "/").unwrap().body;
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() >= 10, "{page}");
    for link in links {
        let answer = http_get(server.monitor_address(), link).unwrap();
        // A server alone has no groups.
        let status = if link == "/raftz" { 404 } else { 200 };
        assert_eq!(answer.status, status, "{link}");
    }
}

#[test]
fn a_client_that_does_not_keep_up_is_counted_with_its_account() {
    let server = ServerOptions::default()
        .config(&format!(
            "{CONFIG}\nmax_pending: 1000000\nmax_payload: 1000000"
        ))
        .monitoring()
        .start();
    let mut slow = log_in(&server, "a", "slow");
    slow.send("SUB x 1\r\n");
    slow.round_trip();
    let mut fast = log_in(&server, "a", "fast");
    let payload = "x".repeat(900_000);
    let message = format!("PUB x {}\r\n{payload}\r\n", payload.len());
    for _ in 0..40 {
        fast.send(&message);
    }
    fast.settle(Duration::from_millis(50));
    let statz = eventually("the slow one is gone", || {
        let statz = look(&server, "/accstatz?unused=1");
        let accounts = statz["account_statz"].as_array().unwrap().clone();
        let account = accounts.into_iter().find(|one| one["acc"] == "A")?;
        (account["slow_consumers"] == 1).then_some(account)
    });
    assert_eq!(statz["conns"], 1);
    let closed = look(&server, "/connz?state=closed");
    let reason = closed["connections"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("Slow Consumer"), "{reason}");
}

/// The value of a series.
fn metric(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("{series} is missing in\n{text}"));
    value.parse().expect("a number")
}

#[test]
fn metrics_tell_of_the_journal_of_streams_and_of_consumers() {
    let server = ServerOptions::default().jetstream().monitoring().start();
    let mut wire = Wire::ready(server.address(), "{}");
    wire.send("SUB reply.> 1\r\n");
    // What comes from a stream bears its own subject.
    let mut request = |subject: &str, body: &str, answered: &str| {
        wire.send(format!(
            "PUB {subject} reply.x {}\r\n{body}\r\n",
            body.len()
        ));
        wire.expect(answered);
        wire.round_trip();
        wire.take();
    };
    request(
        "$JS.API.STREAM.CREATE.S",
        r#"{"name":"S","subjects":["s.>"]}"#,
        "MSG reply.x",
    );
    request(
        "$JS.API.CONSUMER.DURABLE.CREATE.S.C",
        r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}"#,
        "MSG reply.x",
    );
    for _ in 0..5 {
        request("s.x", "hello", "MSG reply.x");
    }
    request("$JS.API.CONSUMER.MSG.NEXT.S.C", "1", "MSG s.x");
    let answer = http_get(server.monitor_address(), "/metrics").unwrap();
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.headers.to_ascii_lowercase().contains(content_type));
    let text = &answer.body;
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(metric(text, "nats_connections"), 1.0);
    assert!(metric(text, "nats_received_messages_total") >= 8.0);
    assert!(metric(text, "process_open_fds") > 3.0);
    let stream = r#"{account="$G",stream="S"}"#;
    assert_eq!(
        metric(text, &format!("nats_jetstream_stream_messages{stream}")),
        5.0
    );
    assert_eq!(
        metric(text, &format!("nats_jetstream_stream_leader{stream}")),
        1.0
    );
    let consumer = r#"{account="$G",stream="S",consumer="C"}"#;
    let of_consumer =
        |name: &str| metric(text, &format!("nats_jetstream_consumer_{name}{consumer}"));
    assert_eq!(of_consumer("pending"), 4.0);
    assert_eq!(of_consumer("ack_pending"), 1.0);
    assert_eq!(of_consumer("lag"), 4.0);
    // Each message was acknowledged before the next came: so many commits, and syncs, at least.
    assert!(metric(text, "nats_journal_commits_total") >= 5.0);
    assert!(metric(text, "nats_journal_frames_total") >= 5.0);
    assert!(metric(text, "nats_journal_written_bytes_total") >= 5.0 * 4096.0);
    assert!(metric(text, "nats_journal_sync_seconds_count") >= 5.0);
    assert!(metric(text, "nats_journal_sync_seconds_sum") > 0.0);
    let all = metric(text, r#"nats_journal_sync_seconds_bucket{le="+Inf"}"#);
    assert_eq!(all, metric(text, "nats_journal_sync_seconds_count"));
}

#[test]
fn metrics_are_cut_where_the_configuration_says() {
    let server = ServerOptions::default()
        .config(&format!("{CONFIG}\nmax_metric_series: 8"))
        .monitoring()
        .start();
    let text = http_get(server.monitor_address(), "/metrics").unwrap().body;
    assert_eq!(
        metric(&text, r#"nats_metrics_left_out{kind="account"}"#),
        3.0
    );
    assert_eq!(metric(&text, "nats_metrics_series_max"), 8.0);
    assert_eq!(
        metric(&text, r#"nats_account_connections{account="$G"}"#),
        0.0
    );
}
