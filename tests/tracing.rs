//! Messages that ask for reports of their way (ADR-41), on one server and in a cluster.

mod common;

use std::time::Duration;

use common::{Server, ServerOptions, Wire, eventually, http_get};
use serde_json::{Value, json};

const CONFIG: &str = r#"
    server_name: tracing
    accounts {
      A {
        jetstream: enabled
        users: [
          {user: a, password: a}
          {user: limited, password: a, permissions: {
            publish: { deny: ["no.>"] }, subscribe: { deny: "in.secret" } }}
        ]
        mappings: { from: to }
        msg_trace: { dest: "reports.w3c", sampling: "100%" }
      }
      B { users: [ {user: b, password: b} ] }
    }
"#;

const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

fn start() -> Server {
    ServerOptions::default()
        .config(CONFIG)
        .jetstream()
        .monitoring()
        .start()
}

fn user(server: &Server, name: &str, more: &str) -> Wire {
    let password = &name[..1].replace('l', "a");
    Wire::ready(
        server.address(),
        &format!(
            r#"{{"user":"{name}","pass":"{password}","verbose":false,"headers":true,"no_responders":true,"protocol":1{more}}}"#
        ),
    )
}

fn publish(to: &mut Wire, subject: &str, reply: &str, headers: &str, payload: &str) {
    let block = format!("NATS/1.0\r\n{headers}\r\n");
    let reply = match reply {
        "" => String::new(),
        reply => format!("{reply} "),
    };
    to.send(format!(
        "HPUB {subject} {reply}{} {}\r\n{block}{payload}\r\n",
        block.len(),
        block.len() + payload.len()
    ));
}

/// The next report among what the listener reads.
#[track_caller]
fn report(listener: &mut Wire) -> Value {
    let text = listener.expect("\"events\":");
    let text = text + &listener.expect("]}\r\n");
    let start = text.find("{\"server\"").unwrap();
    serde_json::from_str(text[start..].trim_end()).unwrap()
}

fn events(report: &Value, kind: &str) -> Vec<Value> {
    let all = report["events"].as_array().unwrap();
    let of_kind = all.iter().filter(|event| event["type"] == kind);
    let mut found: Vec<Value> = of_kind.cloned().collect();
    for event in &mut found {
        let fields = event.as_object_mut().unwrap();
        assert!(fields["ts"].as_str().unwrap().ends_with('Z'));
        fields.remove("ts");
        fields.remove("type");
    }
    found
}

fn asks(more: &str) -> String {
    format!("Nats-Trace-Dest: reports.here\r\n{more}")
}

#[test]
fn a_report_says_who_got_the_message_and_who_did_not() {
    let server = start();
    let mut publisher = user(&server, "a", r#","echo":false,"name":"pub""#);
    let mut reader = user(&server, "limited", r#","name":"sub""#);
    publisher.send("SUB in.> 1\r\n");
    publisher.send("SUB reports.> 9\r\n");
    publisher.round_trip();
    reader.send("SUB in.* 1\r\nSUB in.a group 2\r\n");
    reader.round_trip();
    publish(&mut publisher, "in.a", "", &asks("Other: 1\r\n"), "payload");
    let told = report(&mut publisher);
    assert_eq!(told["server"]["name"], "tracing");
    assert_eq!(
        told["request"]["header"],
        json!({"Nats-Trace-Dest": ["reports.here"], "Other": ["1"]})
    );
    assert_eq!(told["request"]["msgsize"], 60);
    assert!(told.get("hops").is_none());
    assert_eq!(
        events(&told, "in"),
        [json!({"kind": 0, "cid": 1, "name": "pub", "acc": "A", "subj": "in.a"})]
    );
    let out = events(&told, "eg");
    assert_eq!(out.len(), 3, "{out:?}");
    let own = json!({"kind": 0, "cid": 1, "name": "pub", "sub": "in.>",
        "error": "Not delivered because of no echo"});
    let plain = json!({"kind": 0, "cid": 2, "name": "sub", "sub": "in.*"});
    let queue = json!({"kind": 0, "cid": 2, "name": "sub", "sub": "in.a", "queue": "group"});
    for event in [own, plain, queue] {
        assert!(out.contains(&event), "{event} is not among {out:?}");
    }
    let read = reader.round_trip();
    assert!(read.contains("payload") && read.contains("Nats-Trace-Dest: reports.here"));

    publish(&mut publisher, "in.secret", "", &asks(""), "x");
    let denied = events(&report(&mut publisher), "eg");
    let denied = denied.iter().find(|event| event["cid"] == 2).unwrap();
    assert_eq!(
        denied["error"],
        "Not delivered because subscription denies this subject"
    );
}

#[test]
fn what_is_only_traced_is_delivered_to_nobody_and_stored_nowhere() {
    let server = start();
    let mut client = user(&server, "a", "");
    client.send("SUB reports.> 9\r\nSUB to 1\r\nUNSUB 1 2\r\nSUB _INBOX.> 2\r\n");
    let create = r#"{"name":"S","subjects":["s.*"],"retention":"interest"}"#;
    client.send(format!(
        "PUB $JS.API.STREAM.CREATE.S _INBOX.c {}\r\n{create}\r\n",
        create.len()
    ));
    client.expect("did_create");
    for value in ["true", "1", "On"] {
        let only = asks(&format!("Nats-Trace-Only: {value}\r\n"));
        publish(&mut client, "from", "", &only, "x");
        let told = report(&mut client);
        assert_eq!(events(&told, "sm"), [json!({"to": "to"})]);
        assert_eq!(events(&told, "in")[0]["subj"], "from");
        assert_eq!(events(&told, "eg").len(), 1);
        assert!(!client.round_trip().contains("MSG to"));
    }
    let only = asks("Nats-Trace-Only: 1\r\n");
    publish(&mut client, "s.a", "_INBOX.a", &only, "x");
    assert_eq!(
        events(&report(&mut client), "js"),
        [json!({"stream": "S", "subject": "s.a", "nointerest": true})]
    );
    let wrong = asks("Nats-Trace-Only: 1\r\nNats-Expected-Last-Sequence: 7\r\n");
    publish(&mut client, "s.a", "_INBOX.a", &wrong, "x");
    let refused = events(&report(&mut client), "js");
    assert_eq!(refused[0]["error"], "last sequence mismatch: 7 vs 0");
    // A request to a service is not made either.
    publish(
        &mut client,
        "$JS.API.STREAM.DELETE.S",
        "_INBOX.d",
        &only,
        "",
    );
    let asked = events(&report(&mut client), "si");
    assert_eq!(asked[0]["to"], "$JS.API.STREAM.DELETE.S");
    client.send("PUB $JS.API.STREAM.INFO.S _INBOX.i 0\r\n\r\n");
    client.expect("\"messages\":0");
    assert!(!client.round_trip().contains("_INBOX.a"));
}

#[test]
fn what_a_stream_keeps_of_a_traced_message_is_not_traced_again() {
    let server = start();
    let mut client = user(&server, "a", "");
    client.send("SUB reports.> 9\r\nSUB _INBOX.> 2\r\n");
    let create = r#"{"name":"S","subjects":["s.*"],"allow_direct":true,"subject_transform":{"src":"s.*","dest":"kept.$1"}}"#;
    client.send(format!(
        "PUB $JS.API.STREAM.CREATE.S _INBOX.c {}\r\n{create}\r\n",
        create.len()
    ));
    client.expect("did_create");
    for headers in [asks(""), SAMPLED.to_owned()] {
        publish(&mut client, "s.a", "_INBOX.p", &headers, "x");
        let told = report(&mut client);
        assert_eq!(
            events(&told, "js"),
            [json!({"stream": "S", "subject": "kept.a"})]
        );
    }
    client.expect("\"seq\":2");
    client.send("PUB $JS.API.DIRECT.GET.S.kept.a _INBOX.g 0\r\n\r\n");
    let kept = client.expect("Nats-Sequence: 2");
    assert!(kept.contains("Nats-Trace-Dest: trace disabled"), "{kept}");
}

#[test]
fn a_context_that_is_sampled_is_reported_where_the_account_says() {
    let server = start();
    let mut client = user(&server, "a", "");
    let mut other = user(&server, "b", "");
    client.send("SUB reports.w3c 9\r\nSUB in 1\r\n");
    client.round_trip();
    // Neither the flags nor an account without a destination ask for anything.
    publish(
        &mut client,
        "in",
        "",
        &SAMPLED.replace("-01\r", "-00\r"),
        "x",
    );
    publish(&mut other, "in", "", SAMPLED, "x");
    other.round_trip();
    publish(
        &mut client,
        "in",
        "",
        &SAMPLED.replace("traceparent", "TraceParent"),
        "x",
    );
    let told = report(&mut client);
    let name = told["request"]["header"].as_object().unwrap().keys().next();
    assert_eq!(name.unwrap(), "TraceParent");
    assert_eq!(events(&told, "eg").len(), 1);
    assert!(!client.round_trip().contains("\"events\""));
}

#[test]
fn who_may_not_publish_where_the_report_goes_is_told_and_nothing_is_delivered() {
    let server = start();
    let mut client = user(&server, "limited", "");
    client.send("SUB in 1\r\nSUB no.> 2\r\nSUB reports.> 3\r\n");
    client.round_trip();
    publish(&mut client, "in", "", "Nats-Trace-Dest: no.report\r\n", "x");
    let said = client.expect("Permissions Violation for Publish to \"no.report\"");
    assert!(!said.contains("MSG in"));
    // What may not be published is reported as that.
    publish(&mut client, "no.x", "", &asks(""), "x");
    let told = report(&mut client);
    assert_eq!(
        events(&told, "in")[0]["error"],
        "Permissions Violation for Publish to \"no.x\""
    );
    assert!(events(&told, "eg").is_empty());
    // Destinations that are no subjects are not traced, and only-traced messages then go nowhere.
    for dest in ["a.*", "a b", "a..b"] {
        let headers = format!("Nats-Trace-Dest: {dest}\r\nNats-Trace-Only: 1\r\n");
        publish(&mut client, "in", "", &headers, "dropped");
    }
    publish(
        &mut client,
        "in",
        "",
        "Nats-Trace-Dest: a b\r\n",
        "delivered",
    );
    let read = client.expect("delivered");
    assert!(!read.contains("dropped"), "{read}");
}

#[test]
fn a_message_that_is_too_large_is_reported_before_its_connection_ends() {
    let server = start();
    let mut listener = user(&server, "a", "");
    listener.send("SUB reports.> 9\r\n");
    listener.round_trip();
    let mut client = user(&server, "a", "");
    let block = format!("NATS/1.0\r\n{}\r\n", asks(""));
    client.send(format!("HPUB in {} 9000000\r\n{block}", block.len()));
    client.expect_closed();
    let told = report(&mut listener);
    let came = &events(&told, "in")[0];
    assert_eq!(came["error"], "maximum payload exceeded");
    assert_eq!(told["request"]["msgsize"], 9_000_000);
}

#[test]
fn reports_are_compressed_for_those_who_can_read_that() {
    let server = start();
    let mut client = user(&server, "a", "");
    client.send("SUB reports.> 9\r\n");
    client.round_trip();
    publish(
        &mut client,
        "in",
        "",
        &asks("Accept-Encoding: gzip\r\n"),
        "x",
    );
    client.expect("Content-Encoding: gzip");
}

/// Publishes until the listener has heard of it, and takes what it heard.
#[track_caller]
fn gets_around(from: &mut Wire, to: &mut Wire, subject: &str) {
    eventually("interest gets around", || {
        from.send(format!("PUB {subject} 5\r\nready\r\n"));
        let heard = |bytes: &[u8], _| bytes.ends_with(b"ready\r\n");
        to.read_until(Duration::from_millis(100), heard)
            .then_some(())
    });
    from.round_trip();
    to.settle(Duration::from_millis(300));
    to.take();
}

#[test]
fn every_server_on_the_way_reports_its_part() {
    let member = |name: &str, seed: Option<u16>| {
        let routes = seed.map_or(String::new(), |port| {
            format!("'nats-route://127.0.0.1:{port}'")
        });
        let text = CONFIG.replace("server_name: tracing", &format!("server_name: {name}"));
        let text = text.replace("jetstream: enabled", "");
        ServerOptions::default()
            .config(&format!(
                "{text}\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{routes}] }}"
            ))
            .monitoring()
            .start()
    };
    let one = member("one", None);
    let line = one.wait_for_log("Listening for route connections on");
    let port = line.rsplit(':').next().unwrap().trim().parse().unwrap();
    let two = member("two", Some(port));
    for server in [&one, &two] {
        eventually("the routes stand", || {
            let answer = http_get(server.monitor_address(), "/routez").unwrap();
            let routes: Value = serde_json::from_str(&answer.body).unwrap();
            (routes["num_routes"] == 4).then_some(())
        });
    }
    let mut publisher = user(&one, "a", "");
    let mut reader = user(&two, "a", "");
    publisher.send("SUB reports.> 9\r\n");
    reader.send("SUB in 1\r\nSUB reports.> 9\r\n");
    publisher.round_trip();
    reader.round_trip();
    gets_around(&mut publisher, &mut reader, "in");
    gets_around(&mut reader, &mut publisher, "reports.ready");
    publish(&mut publisher, "in", "", &asks(""), "x");
    let mut told = [report(&mut publisher), report(&mut publisher)];
    told.sort_by_key(|told| told["server"]["name"].as_str().unwrap().to_owned());
    let [first, second] = &told;
    assert_eq!(first["hops"], 1);
    let out = events(first, "eg");
    assert_eq!(
        (&out[0]["kind"], &out[0]["name"], &out[0]["hop"]),
        (&json!(1), &json!("two"), &json!("1"))
    );
    assert_eq!(second["request"]["header"]["Nats-Trace-Hop"], json!(["1"]));
    let came = &events(second, "in")[0];
    assert_eq!((&came["kind"], &came["name"]), (&json!(1), &json!("one")));
    assert_eq!(events(second, "eg")[0]["sub"], "in");
    // What is only traced goes to the other server, and to nobody there.
    reader.take();
    publish(
        &mut publisher,
        "in",
        "",
        &asks("Nats-Trace-Only: 1\r\n"),
        "only",
    );
    reader.expect("\"events\"");
    reader.round_trip();
    assert!(!reader.take_text().contains("only\r\n"));
}

#[test]
fn reports_on_what_leaves_an_account_come_back_to_whoever_asked_for_them() {
    const ACCOUNTS: &str = r#"
        accounts {
          A {
            users: [ {user: a, password: a} ]
            exports: [ {service: ask, allow_trace: true}, {service: closed}, {stream: news} ]
          }
          B {
            users: [ {user: b, password: b} ]
            imports: [
              {service: {account: A, subject: ask}, to: question}
              {service: {account: A, subject: closed}}
              {stream: {account: A, subject: news}, to: heard, allow_trace: true}
            ]
          }
        }"#;
    let member = |name: &str, seed: Option<u16>| {
        let routes = seed.map_or(String::new(), |port| {
            format!("'nats-route://127.0.0.1:{port}'")
        });
        ServerOptions::default()
            .config(&format!(
                "server_name: {name}\n{ACCOUNTS}\ncluster {{ name: c, listen: '127.0.0.1:-1', routes: [{routes}] }}"
            ))
            .start()
    };
    let one = member("one", None);
    let line = one.wait_for_log("Listening for route connections on");
    let two = member(
        "two",
        Some(line.rsplit(':').next().unwrap().trim().parse().unwrap()),
    );
    let (mut requester, mut answers) = (user(&one, "b", ""), user(&two, "a", ""));
    requester.send("SUB reports.> 9\r\n");
    answers.send("SUB ask 1\r\nSUB closed 2\r\nSUB reports.> 3\r\n");
    answers.round_trip();
    for subject in ["question", "closed"] {
        gets_around(&mut requester, &mut answers, subject);
    }
    publish(&mut requester, "question", "", &asks(""), "x");
    let mut told = [report(&mut requester), report(&mut requester)];
    told.sort_by_key(|told| told["server"]["name"].as_str().unwrap().to_owned());
    let [first, second] = &told;
    assert_eq!(
        events(first, "si"),
        [json!({"acc": "A", "from": "question", "to": "ask"})]
    );
    let out = &events(first, "eg")[0];
    assert_eq!((&out["kind"], &out["hop"]), (&json!(1), &json!("1")));
    let came = &events(second, "in")[0];
    assert_eq!((&came["acc"], &came["subj"]), (&json!("A"), &json!("ask")));
    assert_eq!(events(second, "eg")[0]["sub"], "ask");
    // The account that answers sees where they go, and gets none of them.
    let read = answers.round_trip();
    assert!(read.contains("Nats-Trace-Dest: _R_."), "{read}");
    assert!(!read.contains("\"events\""), "{read}");
    // Where nothing is allowed the report ends at the import.
    publish(&mut requester, "closed", "", &asks(""), "x");
    let told = report(&mut requester);
    assert_eq!(events(&told, "si").len(), 1);
    assert!(events(&told, "eg").is_empty());
    answers.expect("Nats-Trace-Dest: trace disabled");

    // A stream tells of those who hear it in another account.
    let mut hears = user(&one, "b", "");
    hears.send("SUB heard 1\r\n");
    hears.round_trip();
    let mut speaks = user(&one, "a", "");
    speaks.send("SUB reports.> 9\r\n");
    speaks.round_trip();
    publish(&mut speaks, "news", "", &asks(""), "x");
    let told = report(&mut speaks);
    assert_eq!(events(&told, "se"), [json!({"acc": "B", "to": "heard"})]);
    assert_eq!(events(&told, "eg")[0]["acc"], "B");
    hears.expect("HMSG heard 1 ");
}
