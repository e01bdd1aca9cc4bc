//! What clients and monitoring see of a JetStream cluster.

mod common;

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use common::{
    HttpAnswer, Members, Server, ServerOptions, eventually, eventually_async, free_ports, http_get,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// How long a request may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn asked(server: &Server, path: &str) -> HttpAnswer {
    http_get(server.monitor_address(), path).expect("monitoring answers")
}

fn asked_json(server: &Server, path: &str) -> Value {
    let answer = asked(server, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Three servers that have a meta leader that all of them know.
fn trio() -> Vec<Server> {
    let names = |at| format!("n{}", at - 1);
    let servers = Members::of("trio").named(names).start_healthy::<3>();
    for server in &servers {
        eventually("it knows all servers", || {
            let jsz = asked_json(server, "/jsz");
            (jsz["meta_cluster"]["cluster_size"] == 3).then_some(())
        });
    }
    servers
}

async fn connect(server: &Server) -> (async_nats::Client, jetstream::Context) {
    let client = async_nats::ConnectOptions::new()
        .request_timeout(Some(PATIENCE))
        .connect(server.url())
        .await
        .expect("the server accepts clients");
    let mut context = jetstream::new(client.clone());
    context.set_timeout(PATIENCE);
    (client, context)
}

async fn api(client: &async_nats::Client, subject: &str, body: Value) -> Value {
    let payload = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let answer = client
        .request(format!("$JS.API.{subject}"), payload.into())
        .await
        .expect("an answer");
    serde_json::from_slice(&answer.payload).expect("JSON")
}

/// Three servers on which streams can be placed: all have said what they have room for.
async fn placing_trio() -> Vec<Server> {
    let servers = tokio::task::spawn_blocking(trio)
        .await
        .expect("three servers");
    let (client, _) = connect(&servers[0]).await;
    let config = json!({"name": "FIRST", "num_replicas": 3});
    eventually_async("a stream is placed on all servers", async || {
        let created = api(&client, "STREAM.CREATE.FIRST", config.clone()).await;
        created["error"].is_null().then_some(())
    })
    .await;
    let deleted = api(&client, "STREAM.DELETE.FIRST", Value::Null).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    servers
}

/// The names of a section's replicas, all of which have to be as they are when all is well.
fn sound_replicas(cluster: &Value) -> Option<Vec<String>> {
    let replicas = cluster["replicas"].as_array()?;
    let sound = replicas.iter().all(|replica| {
        replica["current"] == true
            && replica["offline"].is_null()
            && replica["lag"].is_null()
            && replica["active"].is_i64()
            && replica["peer"].as_str().is_some_and(|peer| peer.len() == 8)
    });
    let names = replicas.iter().map(|replica| replica["name"].as_str());
    let names: Option<Vec<&str>> = names.collect();
    sound.then(|| {
        names
            .unwrap_or_default()
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    })
}

/// The section of a replicated stream or its consumer: who leads, and the two others.
#[track_caller]
fn check_replicated(shown: &Value) {
    let cluster = &shown["cluster"];
    let Some(leader) = cluster["leader"].as_str() else {
        panic!("no leader: {shown}");
    };
    assert_eq!(cluster["name"], "trio", "{cluster}");
    let group = cluster["raft_group"].as_str().expect("a group");
    assert!(group.starts_with("S-R3F-"), "{cluster}");
    assert!(
        cluster["leader_since"]
            .as_str()
            .expect("a time")
            .starts_with("20"),
        "{cluster}"
    );
    let others: Vec<&str> = ["n0", "n1", "n2"]
        .into_iter()
        .filter(|name| *name != leader)
        .collect();
    let replicas = cluster["replicas"].as_array().expect("replicas");
    let names: Vec<&str> = replicas
        .iter()
        .filter_map(|replica| replica["name"].as_str())
        .collect();
    assert_eq!(names, others, "{cluster}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicated_streams_and_their_consumers_show_who_holds_copies() {
    let servers = placing_trio().await;
    for (at, server) in servers.iter().enumerate() {
        // Whoever is asked, and whoever leads: all show the same.
        let (client, context) = connect(server).await;
        let name = format!("S{at}");
        let config = json!({"name": name, "subjects": [format!("s{at}.>")], "num_replicas": 3});
        let created = api(&client, &format!("STREAM.CREATE.{name}"), config.clone()).await;
        check_replicated(&created);
        let updated = api(&client, &format!("STREAM.UPDATE.{name}"), config).await;
        check_replicated(&updated);
        let ack = context
            .publish(format!("s{at}.x"), "1".into())
            .await
            .expect("sent");
        ack.await.expect("an ack");
        let info = eventually_async("all replicas are current", async || {
            let info = api(&client, &format!("STREAM.INFO.{name}"), Value::Null).await;
            sound_replicas(&info["cluster"]).map(|_| info)
        })
        .await;
        check_replicated(&info);
        let stream = context.get_stream(&name).await.expect("the stream");
        let seen = stream.cached_info().cluster.clone().expect("a cluster");
        assert_eq!(seen.leader.as_deref(), info["cluster"]["leader"].as_str());
        assert_eq!(seen.replicas.len(), 2);
        let consumer = stream
            .create_consumer(consumer::pull::Config {
                durable_name: Some("C".to_owned()),
                ..consumer::pull::Config::default()
            })
            .await
            .expect("a consumer");
        let made = consumer.cached_info().cluster.clone().expect("a cluster");
        assert_eq!(made.replicas.len(), 2);
        for subject in ["CONSUMER.INFO", "CONSUMER.LIST"] {
            let shown = match subject {
                "CONSUMER.INFO" => api(&client, &format!("{subject}.{name}.C"), Value::Null).await,
                _ => api(&client, &format!("{subject}.{name}"), Value::Null).await["consumers"][0]
                    .clone(),
            };
            check_replicated(&shown);
            assert_eq!(shown["cluster"]["leader"], info["cluster"]["leader"]);
        }
    }
    let (client, _) = connect(&servers[0]).await;
    let listed = api(&client, "STREAM.LIST", Value::Null).await;
    let listed = listed["streams"].as_array().expect("streams");
    assert_eq!(listed.len(), 3);
    for stream in listed {
        check_replicated(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_one_replica_shows_the_server_that_has_it() {
    let servers = placing_trio().await;
    for (at, server) in servers.iter().enumerate() {
        let (client, context) = connect(server).await;
        let name = format!("S{at}");
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("s{at}.>")],
            ..stream::Config::default()
        };
        let created = context.create_stream(config).await.expect("a stream");
        let created = created.cached_info().cluster.clone().expect("a cluster");
        let leader = created.leader.expect("a leader");
        let expected = json!({"name": "trio", "leader": leader});
        for subject in [format!("STREAM.INFO.{name}"), "STREAM.LIST".to_owned()] {
            let shown = api(&client, &subject, Value::Null).await;
            let cluster = match shown["streams"].as_array() {
                None => shown["cluster"].clone(),
                Some(streams) => {
                    let found = streams
                        .iter()
                        .find(|stream| stream["config"]["name"] == *name);
                    found.expect("it is listed")["cluster"].clone()
                }
            };
            assert_eq!(cluster, expected, "{subject}");
        }
        let consumer = json!({"stream_name": name, "config": {"name": "C", "durable_name": "C"}});
        let made = api(&client, &format!("CONSUMER.CREATE.{name}.C"), consumer).await;
        assert_eq!(made["cluster"], expected, "{made}");
        // Monitoring shows a stream where it is, and only there.
        for server in &servers {
            let jsz = asked_json(server, "/jsz?streams=true");
            let name_of_server = asked_json(server, "/varz")["server_name"].clone();
            let streams = jsz["account_details"][0]["stream_detail"].as_array();
            let found =
                streams.and_then(|streams| streams.iter().find(|found| found["name"] == *name));
            assert_eq!(found.is_some(), name_of_server == *leader, "{jsz}");
            if let Some(found) = found {
                assert_eq!(found["cluster"], expected);
            }
        }
    }
}

#[test]
fn monitoring_shows_the_meta_group_and_its_loss() {
    let mut servers = trio();
    let seen: Vec<Value> = servers
        .iter()
        .map(|server| asked_json(server, "/jsz")["meta_cluster"].clone())
        .collect();
    let leader = seen[0]["leader"].as_str().expect("a leader").to_owned();
    for (at, (server, meta)) in servers.iter().zip(&seen).enumerate() {
        assert_eq!(meta["name"], "trio");
        assert_eq!(meta["leader"], *leader, "all agree");
        assert_eq!(meta["peer"].as_str().map(str::len), Some(8));
        let leads = format!("n{at}") == leader;
        assert_eq!(meta["replicas"].is_array(), leads, "{meta}");
        if leads {
            let names = eventually("all are current", || {
                sound_replicas(&asked_json(server, "/jsz")["meta_cluster"])
            });
            assert_eq!(names.len(), 2);
        }
        let varz = asked_json(server, "/varz");
        assert_eq!(varz["jetstream"]["meta"]["leader"], *leader);
        assert_eq!(varz["jetstream"]["meta"]["cluster_size"], 3);
        let only = asked(server, "/jsz?leader-only=true");
        assert_eq!(only.status, if leads { 200 } else { 400 }, "{}", only.body);
        for path in [
            "/healthz?js-meta-only=true",
            "/healthz?js-enabled-only=true",
        ] {
            assert_eq!(asked(server, path).status, 200, "{path}");
        }
    }
    let mut rest = servers.split_off(1);
    for server in &mut rest {
        server.kill();
    }
    let left = &servers[0];
    let lost = r#"{"status":"unavailable","error":"JetStream has not established contact with a meta leader"}"#;
    for path in ["/healthz", "/healthz?js-meta-only=true"] {
        eventually("the loss is told", || {
            let answer = asked(left, path);
            (answer.status == 503 && answer.body == lost).then_some(())
        });
    }
    // The server itself is well.
    for path in [
        "/healthz?js-enabled-only=true",
        "/healthz?js-server-only=true",
    ] {
        assert_eq!(asked(left, path).status, 200, "{path}");
    }
    let meta = asked_json(left, "/jsz")["meta_cluster"].clone();
    assert!(meta["leader"].is_null() && meta["peer"].is_null(), "{meta}");
    assert_eq!(meta["cluster_size"], 3);
    rest[0].start_again();
    for server in [left, &rest[0]] {
        eventually("two of three are a majority", || {
            (asked(server, "/healthz").status == 200).then_some(())
        });
    }
}

/// A group that goes well, key by key as the reference shows it.
#[track_caller]
fn check_group(group: &Value) {
    let leads = group["state"] == "LEADER";
    assert!(leads || group["state"] == "FOLLOWER", "{group}");
    let mut keys: Vec<&str> = group
        .as_object()
        .expect("a group")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let mut wanted = vec![
        "applied",
        "committed",
        "ever_had_leader",
        "id",
        "ipq_apply_len",
        "ipq_entry_len",
        "ipq_proposal_len",
        "ipq_resp_len",
        "leader",
        "peers",
        "pindex",
        "pterm",
        "quorum_needed",
        "size",
        "state",
        "system_account",
        "term",
        "traffic_account",
        "voted_for",
        "wal",
    ];
    if leads {
        wanted.push("leader_since");
        assert_eq!(group["leader"], group["id"], "{group}");
    }
    wanted.sort_unstable();
    assert_eq!(keys, wanted, "{group}");
    // All that was logged is committed in the term of whoever leads, and everybody has voted for that server.
    assert_eq!(group["voted_for"], group["leader"], "{group}");
    assert_eq!(group["pterm"], group["term"], "{group}");
    assert_eq!(group["traffic_account"], "$SYS", "{group}");
    assert_eq!(group["system_account"], true, "{group}");
    let wal = &group["wal"];
    let count = |key: &str| wal[key].as_u64().expect("a count");
    assert_eq!(wal["last_seq"], group["pindex"], "{group}");
    assert_eq!(
        count("first_seq") + count("messages"),
        count("last_seq") + 1,
        "{group}"
    );
    // No entry has fewer bytes than its head.
    assert!(count("bytes") >= 10 * count("messages"), "{group}");
    assert_eq!(wal["first_ts"], "0001-01-01T00:00:00Z", "{group}");
    assert_eq!(wal["last_ts"], "0001-01-01T00:00:00Z", "{group}");
    assert_eq!(wal["consumer_count"], 0, "{group}");
    let peers = group["peers"].as_object().expect("peers");
    assert!(
        peers.values().all(|peer| peer["last_seen"].is_string()),
        "{group}"
    );
    let told = |peer: &Value| peer["last_replicated_index"].is_u64();
    assert!(peers.values().all(|peer| told(peer) == leads), "{group}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_listed_among_its_mirrors() {
    let servers = placing_trio().await;
    let (client, _) = connect(&servers[0]).await;
    let make = async |config: Value| {
        let name = config["name"].as_str().expect("a name").to_owned();
        let made = api(&client, &format!("STREAM.CREATE.{name}"), config).await;
        assert!(made["error"].is_null(), "{made}");
        assert!(made["alternates"].is_null(), "{made}");
    };
    make(json!({"name": "S", "subjects": ["s"], "num_replicas": 3})).await;
    make(json!({"name": "OTHER", "sources": [{"name": "S"}]})).await;
    let alone = api(&client, "STREAM.INFO.S", Value::Null).await;
    assert!(alone["alternates"].is_null(), "{alone}");
    make(json!({"name": "M", "mirror": {"name": "S"}})).await;
    make(json!({"name": "A", "mirror": {"name": "S"}, "num_replicas": 3})).await;
    let here = |name: &str| json!({"name": name, "cluster": "trio"});
    for server in &servers {
        let (client, _) = connect(server).await;
        let info = api(&client, "STREAM.INFO.S", Value::Null).await;
        assert_eq!(
            info["alternates"],
            json!([here("S"), here("A"), here("M")]),
            "{info}"
        );
        for name in ["A", "M", "OTHER"] {
            let info = api(&client, &format!("STREAM.INFO.{name}"), Value::Null).await;
            assert!(info["error"].is_null(), "{info}");
            assert!(info["alternates"].is_null(), "{info}");
        }
        let listed = api(&client, "STREAM.LIST", Value::Null).await;
        let streams = listed["streams"].as_array().expect("streams");
        assert_eq!(streams.len(), 4, "{listed}");
        assert!(
            streams.iter().all(|one| one["alternates"].is_null()),
            "{listed}"
        );
    }
    let deleted = api(&client, "STREAM.DELETE.M", Value::Null).await;
    assert_eq!(deleted["success"], true, "{deleted}");
    eventually_async("it is not listed any more", async || {
        let info = api(&client, "STREAM.INFO.S", Value::Null).await;
        (info["alternates"] == json!([here("S"), here("A")])).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring_shows_groups_and_says_which_stream_is_not_current() {
    let mut servers = placing_trio().await;
    let (client, _) = connect(&servers[0]).await;
    let config = json!({"name": "S", "subjects": ["s.>"], "num_replicas": 3});
    let made = api(&client, "STREAM.CREATE.S", config).await;
    assert!(made["error"].is_null(), "{made}");
    let consumer =
        json!({"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}});
    let made = api(&client, "CONSUMER.DURABLE.CREATE.S.C", consumer).await;
    assert!(made["error"].is_null(), "{made}");
    let leader = eventually_async("somebody leads", async || {
        let info = api(&client, "STREAM.INFO.S", Value::Null).await;
        info["cluster"]["leader"].as_str().map(str::to_owned)
    })
    .await;
    for (at, server) in servers.iter().enumerate() {
        let name = format!("n{at}");
        let detail = eventually("the stream is here with its consumer", || {
            let jsz = asked_json(server, "/jsz?consumers=true&raft=true");
            let detail = jsz["account_details"][0]["stream_detail"][0].clone();
            let leads = u64::from(name == leader);
            let led = |key: &str| jsz[key].as_u64().unwrap_or(0);
            (detail["consumer_detail"].is_array()
                && led("streams_leader") == leads
                && led("consumers_leader") == leads)
                .then_some(detail)
        });
        let group = detail["stream_raft_group"].as_str().expect("a group");
        assert!(group.starts_with("S-R3F-"), "{detail}");
        let of_consumer = json!([{"name": "C", "raft_group": group}]);
        assert_eq!(detail["consumer_raft_groups"], of_consumer);
        let plain = asked_json(server, "/jsz?consumers=true");
        assert!(plain["streams_leader"].is_null(), "{plain}");
        let detail = &plain["account_details"][0]["stream_detail"][0];
        assert!(detail["stream_raft_group"].is_null(), "{detail}");

        let groups = asked_json(server, "/raftz");
        let groups = groups["$SYS"].as_object().expect("groups");
        assert_eq!(groups.keys().collect::<Vec<_>>(), ["_meta_"]);
        check_group(&groups["_meta_"]);
        let groups = asked_json(server, "/raftz?acc=$G");
        let groups = groups["$G"].as_object().expect("groups");
        assert_eq!(groups.keys().collect::<Vec<_>>(), [group]);
        check_group(&groups[group]);
        let of_stream = &groups[group];
        let state = if name == leader { "LEADER" } else { "FOLLOWER" };
        assert_eq!(of_stream["state"], state, "{of_stream}");
        assert_eq!(of_stream["size"], 3);
        assert_eq!(of_stream["quorum_needed"], 2);
        assert_eq!(of_stream["leader"].as_str().map(str::len), Some(8));
        assert!(of_stream["term"].as_u64() >= Some(1), "{of_stream}");
        assert!(of_stream["applied"].as_u64() >= Some(1), "{of_stream}");
        let peers = of_stream["peers"].as_object().expect("peers");
        assert_eq!(peers.len(), 2);
        assert!(
            peers.values().all(|peer| peer["known"] == true),
            "{peers:?}"
        );
        let one = asked_json(server, &format!("/raftz?acc=$G&group={group}"));
        assert_eq!(one["$G"].as_object().map(serde_json::Map::len), Some(1));
        let of_others = asked(server, &format!("/raftz?group={group}"));
        assert_eq!(of_others.status, 404);
        let none = asked(server, "/raftz?group=NONE");
        assert_eq!(none.status, 404);
        assert_eq!(none.body, "No Raft nodes returned, check supplied filters");
        assert_eq!(asked(server, "/healthz").status, 200);
    }

    // A stream that lost its majority is told of where it still has a replica; the meta group goes on with the two others.
    let on = json!({"name": "T", "subjects": ["t"], "num_replicas": 2});
    let made = api(&client, "STREAM.CREATE.T", on).await;
    assert!(made["error"].is_null(), "{made}");
    let holders = eventually_async("the stream has a leader", async || {
        let info = api(&client, "STREAM.INFO.T", Value::Null).await;
        let other = info["cluster"]["replicas"][0]["name"].as_str()?.to_owned();
        Some([info["cluster"]["leader"].as_str()?.to_owned(), other])
    })
    .await;
    let number = |name: &str| name[1..].parse::<usize>().expect("a number");
    // Not the one that the client is connected to.
    let (gone, left) = match holders[0].as_str() {
        "n0" => (number(&holders[1]), number(&holders[0])),
        _ => (number(&holders[0]), number(&holders[1])),
    };
    servers[gone].kill();
    eventually("the loss is told", || {
        let answer = asked(&servers[left], "/healthz?details=true");
        let told: Value = serde_json::from_str(&answer.body).ok()?;
        let error = &told["errors"][0];
        (answer.status == 503
            && error["type"] == "STREAM"
            && error["account"] == "$G"
            && error["stream"] == "T"
            && error["error"] == "JetStream stream '$G > T' is not current: group node unhealthy")
            .then_some(())
    });
    servers[gone].start_again();
    for server in &servers {
        eventually("all is well again", || {
            (asked(server, "/healthz").status == 200).then_some(())
        });
    }
}

#[test]
fn a_server_alone_has_no_groups_to_show() {
    let server = ServerOptions::default().jetstream().monitoring().start();
    let answer = asked(&server, "/raftz");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "No Raft nodes registered")
    );
}

#[tokio::test]
async fn subscribers_are_counted_on_all_servers() {
    let servers = tokio::task::spawn_blocking(trio)
        .await
        .expect("three servers");
    let mut held = Vec::new();
    let mut clients = Vec::new();
    for server in &servers {
        let (client, _) = connect(server).await;
        held.push(client.subscribe("counted").await.expect("a subscription"));
        client.flush().await.expect("the server answers");
        clients.push(client);
    }
    for client in &clients {
        eventually_async("all are counted", async || {
            let answer = client.request("$SYS.DEBUG.SUBSCRIBERS", "counted".into());
            let answer = answer.await.expect("an answer");
            (&answer.payload[..] == b"3").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn servers_tell_the_others_of_their_routes_and_of_who_comes_and_goes() {
    let ports: [u16; 2] = free_ports();
    let system = "accounts { SYS { users: [{user: admin, password: admin}] }, A { users: [{user: a, password: a}] } }\n\
                  system_account: SYS\nno_auth_user: a\nlame_duck_duration: '30s'\nlame_duck_grace_period: '0s'";
    let start = |name: &str, port: u16| {
        let routes = ports.map(|port| format!("nats-route://127.0.0.1:{port}"));
        let config = format!(
            "server_name: {name}\n{system}\n\
             cluster {{ name: duo, listen: '127.0.0.1:{port}', routes: ['{}'] }}",
            routes.join("','")
        );
        ServerOptions::default()
            .config(&config)
            .monitoring()
            .start()
    };
    let first = start("n0", ports[0]);
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(first.url()).await.expect("the user is known");
    let mut figures = admin
        .subscribe("$SYS.SERVER.*.STATSZ")
        .await
        .expect("a subscription");
    let mut ends = admin
        .subscribe("$SYS.SERVER.*.LAMEDUCK")
        .await
        .expect("a subscription");
    admin.flush().await.expect("the server answers");
    // By now figures come seldom: what comes soon after the other server comes because of it.
    let second = start("n1", ports[1]);
    let statsz = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = figures.next().await.expect("still subscribed");
            let statsz: Value = serde_json::from_slice(&message.payload).expect("JSON");
            if statsz["server"]["name"] == "n0" && statsz["statsz"]["active_servers"] == 2 {
                break statsz;
            }
        }
    });
    let statsz = statsz.await.expect("figures with the other server");
    let routes = statsz["statsz"]["routes"].as_array().expect("routes");
    assert!(routes.iter().any(|route| route["name"] == "n1"), "{statsz}");

    let listener = async_nats::connect(second.url())
        .await
        .expect("a connection");
    let _held = listener
        .subscribe("far.away")
        .await
        .expect("a subscription");
    listener.flush().await.expect("the server answers");
    for (subs, list) in [
        ("1", "subscriptions_list"),
        ("detail", "subscriptions_list_detail"),
    ] {
        eventually("the other server's subscription is listed", || {
            let routez = asked(&first, &format!("/routez?subs={subs}")).body;
            (routez.contains(list) && routez.contains("far.away")).then_some(())
        });
    }
    second.signal(rustix::process::Signal::USR2);
    let end = tokio::time::timeout(PATIENCE, ends.next()).await;
    let end = end.expect("nobody told").expect("still subscribed");
    let end: Value = serde_json::from_slice(&end.payload).expect("JSON");
    assert_eq!(end["name"], "n1");
}
