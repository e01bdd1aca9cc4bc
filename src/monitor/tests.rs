use super::endpoints::{Monitor, respond};
use super::observed::{Counters, Facts, Observed, ObservedStreams};
use crate::config::Options;
use crate::config::options::{MonitorOptions, Port};
use crate::jetstream::monitor::{JetStreamInfo, Overview, Query};
use crate::jetstream::types::Time;
use axum::body::to_bytes;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::SystemTime;

/// A server that is whatever the test says.
struct Fake {
    facts: Facts,
    not_ready: Option<String>,
    streams: Option<Arc<FakeStreams>>,
}

#[derive(Default)]
struct FakeStreams {
    fault: Option<String>,
    is_disabled: bool,
    asked: Mutex<Vec<Query>>,
}

impl ObservedStreams for FakeStreams {
    fn overview(&self) -> Overview {
        unreachable!("only asked by tests of a whole server")
    }

    fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo {
        self.asked.lock().push(query.clone());
        JetStreamInfo::disabled(server_id, Time::ZERO)
    }

    fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    fn is_disabled(&self) -> bool {
        self.is_disabled
    }
}

impl Observed for Fake {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn websocket_port(&self) -> u16 {
        0
    }

    fn client_port(&self) -> u16 {
        4222
    }

    fn counters(&self) -> Counters {
        Counters {
            connections: 3,
            in_messages: 7,
            ..Counters::default()
        }
    }

    fn not_ready(&self) -> Option<String> {
        self.not_ready.clone()
    }

    fn streams(&self) -> Option<Arc<dyn ObservedStreams>> {
        let streams = self.streams.clone()?;
        Some(streams)
    }
}

fn fake() -> Fake {
    Fake {
        facts: Facts {
            server_id: "NID".into(),
            server_name: "name".into(),
            options: Options::default(),
            monitor_host: "127.0.0.1".into(),
            monitor_port: 8222,
            started: SystemTime::now(),
            workers: 2,
        },
        not_ready: None,
        streams: None,
    }
}

async fn ask(fake: Fake, paths: &[&str]) -> (StatusCode, String) {
    let monitor = Arc::new(Monitor::new(Arc::new(fake)));
    let mut last = None;
    for path in paths {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let response = respond(Arc::clone(&monitor), path, query).await;
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        last = Some((status, String::from_utf8(body.to_vec()).unwrap()));
    }
    last.unwrap()
}

#[tokio::test]
async fn varz_has_every_key_of_the_reference_in_its_order() {
    let (status, body) = ask(fake(), &["/", "/varz", "/varz"]).await;
    assert_eq!(status, StatusCode::OK);
    let value: Value = serde_json::from_str(&body).unwrap();
    let keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = "server_id server_name version proto git_commit go host port max_connections ping_interval ping_max http_host \
        http_port http_base_path https_port auth_timeout max_control_line max_payload max_pending cluster gateway leaf \
        mqtt websocket jetstream tls_timeout write_deadline start now uptime mem cores gomaxprocs cpu connections \
        total_connections routes remotes leafnodes in_msgs in_bytes in_client_msgs in_client_bytes out_msgs out_bytes \
        out_client_msgs out_client_bytes slow_consumers stale_connections stalled_clients subscriptions http_req_stats \
        config_load_time config_digest feature_flags system_account slow_consumer_stats stale_connection_stats \
        disk_io_wait_stats";
    assert_eq!(keys, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(value["auth_timeout"].to_string(), "2");
    assert_eq!(value["ping_interval"], 120_000_000_000u64);
    assert_eq!(value["jetstream"], serde_json::json!({}));
    assert_eq!(value["connections"], 3);
    assert_eq!(value["in_client_msgs"], 7);
    assert_eq!(
        value["http_req_stats"],
        serde_json::json!({"/": 1, "/varz": 2})
    );
    assert!(value["mem"].as_u64().unwrap() > 1 << 20);
    assert!(body.starts_with("{\n  \"server_id\": \"NID\",\n"));
}

#[tokio::test]
async fn health_is_what_it_is_asked_about() {
    let with_streams = |fault: Option<&str>| {
        let mut fake = fake();
        fake.facts.options.jetstream.enabled = true;
        fake.streams = Some(Arc::new(FakeStreams {
            fault: fault.map(str::to_owned),
            ..FakeStreams::default()
        }));
        fake
    };
    let disabled = || {
        let mut fake = with_streams(None);
        fake.streams = Some(Arc::new(FakeStreams {
            is_disabled: true,
            ..FakeStreams::default()
        }));
        fake
    };
    let starting = || {
        let mut fake = fake();
        fake.not_ready = Some("failed to be ready for connections".into());
        fake
    };
    let without_streams = || {
        let mut fake = fake();
        fake.facts.options.jetstream.enabled = true;
        fake
    };
    let table = [
        (fake(), "/healthz", 200, r#"{"status":"ok"}"#),
        (
            disabled(),
            "/healthz?js-enabled-only=true",
            503,
            r#"{"status":"unavailable","error":"JetStream not enabled"}"#,
        ),
        (
            fake(),
            "/healthz?js-enabled-only=true",
            200,
            r#"{"status":"ok"}"#,
        ),
        (fake(), "/healthz?details=1", 200, r#"{"status":"ok"}"#),
        (
            fake(),
            "/healthz?stream=S",
            400,
            r#"{"status":"error","error":"\"account\" must not be empty when checking stream health"}"#,
        ),
        (
            fake(),
            "/healthz?account=A&consumer=C",
            400,
            r#"{"status":"error","error":"\"stream\" must not be empty when checking consumer health"}"#,
        ),
        (
            fake(),
            "/healthz?details=x",
            400,
            "Error decoding boolean for 'details': strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            starting(),
            "/healthz",
            500,
            r#"{"status":"error","error":"failed to be ready for connections"}"#,
        ),
        (
            without_streams(),
            "/healthz",
            503,
            r#"{"status":"unavailable","error":"JetStream not enabled"}"#,
        ),
        (
            without_streams(),
            "/healthz?js-server-only=1",
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            without_streams(),
            "/healthz?details=true",
            503,
            r#"{"status":"error","errors":[{"type":"JETSTREAM","error":"JetStream not enabled"}]}"#,
        ),
        (with_streams(None), "/healthz", 200, r#"{"status":"ok"}"#),
        (
            with_streams(Some("disk gone")),
            "/healthz?js-enabled-only=1",
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            with_streams(Some("disk gone")),
            "/healthz",
            503,
            r#"{"status":"unavailable","error":"disk gone"}"#,
        ),
        (
            with_streams(None),
            "/healthz?account=A",
            404,
            r#"{"status":"unavailable","error":"JetStream account \"A\" not found"}"#,
        ),
        (
            with_streams(None),
            "/healthz?account=A&details=1",
            404,
            r#"{"status":"error","errors":[{"type":"ACCOUNT","account":"A","error":"JetStream account \"A\" not found"}]}"#,
        ),
    ];
    for (fake, path, status, body) in table {
        let answer = ask(fake, &[path]).await;
        assert_eq!(
            answer,
            (StatusCode::from_u16(status).unwrap(), body.to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_the_references_words() {
    let bad_boolean = |name: &str| {
        format!(
            "Error decoding boolean for '{name}': strconv.ParseBool: parsing \"x\": invalid syntax"
        )
    };
    let table = [
        ("/connz?sort=bogus", "invalid sorting option: bogus".into()),
        (
            "/connz?sort=stop",
            "sort by stop only valid on closed connections".into(),
        ),
        (
            "/connz?sort=reason&state=any",
            "sort by reason only valid on closed connections".into(),
        ),
        ("/connz?state=bogus", "Error decoding state for bogus".into()),
        (
            "/connz?filter_subject=a",
            "filter by subject only valid with account filtering".into(),
        ),
        ("/connz?auth=x", bad_boolean("auth")),
        ("/connz?subs=x", bad_boolean("subs")),
        (
            "/connz?cid=-1",
            "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"-1\": invalid syntax".into(),
        ),
        (
            "/connz?limit=99999999999999999999",
            "Error decoding int for 'limit': strconv.Atoi: parsing \"99999999999999999999\": value out of range".into(),
        ),
        ("/subsz?subs=x", bad_boolean("subs")),
        (
            "/subsz?test=a.*",
            "invalid test subject, must be valid publish subject: a.*".into(),
        ),
        ("/accountz?acc=A", "Account A does not exist".into()),
        ("/accstatz?unused=x", bad_boolean("unused")),
        ("/routez?subs=x", bad_boolean("subs")),
        ("/gatewayz?accs=x", bad_boolean("accs")),
        ("/leafz?subs=x", bad_boolean("subs")),
    ];
    for (path, text) in table {
        let answer = ask(fake(), &[path]).await;
        assert_eq!(answer, (StatusCode::BAD_REQUEST, text), "{path}");
    }
}

#[tokio::test]
async fn connections_of_an_account_that_does_not_exist_are_not_even_an_empty_list() {
    let (status, body) = ask(fake(), &["/connz?acc=NOPE"]).await;
    let value: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(value["server_id"], "");
    assert_eq!(value["connections"], Value::Null);
    let (_, body) = ask(fake(), &["/connz"]).await;
    let value: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(value["connections"], serde_json::json!([]));
}

#[tokio::test]
async fn jsz_passes_on_what_it_is_asked_for() {
    let streams = Arc::new(FakeStreams::default());
    let mut asked = fake();
    asked.streams = Some(Arc::clone(&streams));
    let path = "/jsz?acc=%24G&streams=true&consumers=1&config=T&offset=2&limit=5&direct-consumers=1&raft=1&stream-leader-only=1";
    assert_eq!(ask(asked, &[path]).await.0, StatusCode::OK);
    let query = Query {
        account: Some("$G".into()),
        accounts: false,
        streams: true,
        consumers: true,
        direct_consumers: true,
        config: true,
        stream_leader_only: true,
        groups: true,
        offset: 2,
        limit: 5,
    };
    assert_eq!(*streams.asked.lock(), [query]);
    let (status, body) = ask(fake(), &["/jsz"]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\"disabled\": true"));
    assert_eq!(
        ask(fake(), &["/jsz?limit=x"]).await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_server_on_its_own_has_no_routes_gateways_and_leaf_nodes() {
    for (path, count, list, empty) in [
        (
            "/routez",
            Some("num_routes"),
            "routes",
            serde_json::json!([]),
        ),
        ("/leafz", Some("leafnodes"), "leafs", serde_json::json!([])),
        (
            "/gatewayz",
            None,
            "outbound_gateways",
            serde_json::json!({}),
        ),
    ] {
        let (status, body) = ask(fake(), &[path]).await;
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(value["server_id"], "NID");
        assert_eq!(value[list], empty);
        assert!(count.is_none_or(|count| value[count] == 0));
    }
}

#[tokio::test]
async fn unknown_paths_are_not_found_and_the_base_path_stands_before_all() {
    for path in ["/nope", "/varz/", "/expvarz", "//"] {
        assert_eq!(
            ask(fake(), &[path]).await,
            (StatusCode::NOT_FOUND, "404 page not found\n".into())
        );
    }
    let based = || {
        let mut fake = fake();
        fake.facts.options.monitor = Some(MonitorOptions {
            host: None,
            port: Port::Random,
            https_port: Port::Fixed(0),
            base_path: "/nats".into(),
        });
        fake
    };
    assert_eq!(ask(based(), &["/nats/varz"]).await.0, StatusCode::OK);
    assert_eq!(ask(based(), &["/varz"]).await.0, StatusCode::NOT_FOUND);
    let (_, page) = ask(based(), &["/nats"]).await;
    for link in ["/nats/varz", "/nats/jsz", "/nats/healthz"] {
        assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    }
}
