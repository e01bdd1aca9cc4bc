//! Whole servers' JetStream in one process, linked over loopback. Clients' messages do not pass between them: only the API does.

mod later_versions;

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use storage::engine::EngineOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::broker::{Broker, GLOBAL_ACCOUNT, Inbound, InternalTarget, Outgoing, PublishCache};
use crate::cluster::link::testing::{Neighbour, until};
use crate::config::options::MetaCompaction;
use crate::jetstream::core::AckForm;
use crate::jetstream::limits::{AccountLimits, AccountTiers, ServerLimits};
use crate::jetstream::meta::Command;
use crate::jetstream::monitor::Settings;
use crate::jetstream::types::{StreamConfig, Time};
use crate::jetstream::{JetStream, Setup, WaitingMax};

const PATIENCE: Duration = Duration::from_secs(60);

/// Hears answers.
struct Ear(StdMutex<mpsc::Sender<Bytes>>);

impl InternalTarget for Ear {
    fn deliver(&self, batch: Vec<Inbound>) {
        let sender = self.0.lock().unwrap();
        for message in batch {
            let _ = sender.send(message.payload);
        }
    }
}

struct Server {
    neighbour: Neighbour,
    broker: Arc<Broker>,
    jetstream: Arc<JetStream>,
}

fn setup(name: &str, directory: &Path) -> Setup {
    Setup {
        server_name: name.to_owned(),
        server_id: String::new(),
        settings: Settings {
            max_memory: 1 << 30,
            max_storage: 1 << 30,
            store_dir: directory.to_owned(),
            sync_interval: 0,
            sync_always: true,
            domain: String::new(),
            compress_ok: true,
            unique_tag: String::new(),
            strict: false,
        },
        limits: ServerLimits::default(),
        ack_form: AckForm::Short,
        accounts: vec![(
            GLOBAL_ACCOUNT.to_owned(),
            AccountTiers::of_all(AccountLimits::UNLIMITED),
        )],
        accounts_without: Vec::new(),
        requests_max: 1000,
        waiting: WaitingMax {
            messages: 1000,
            bytes: 1 << 20,
        },
    }
}

impl Server {
    async fn start(name: &str, expected: usize, directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let neighbour = Neighbour::start(name, listener);
        let broker = Arc::new(Broker::new());
        let setup = setup(name, directory);
        let storage = EngineOptions::new(directory);
        let cluster = ClusterSetup {
            name: "cluster".to_owned(),
            links: Arc::clone(&neighbour.links),
            expected,
            tags: Vec::new(),
            unique_tag: String::new(),
            compaction: MetaCompaction::default(),
            catchup_bytes_max: 1 << 20,
            runtime: tokio::runtime::Handle::current(),
        };
        let in_broker = Arc::clone(&broker);
        let starting = tokio::task::spawn_blocking(move || {
            let begun = std::time::Instant::now();
            loop {
                let (setup, storage) = (setup.clone(), storage.clone());
                match JetStream::start_in_cluster(setup, &in_broker, storage, cluster.clone()) {
                    Ok(jetstream) => return jetstream,
                    // The last tasks of an earlier run in this process let go of the store a moment later.
                    Err(error) if begun.elapsed() < PATIENCE => {
                        assert!(error.to_string().contains("in use"), "{error}");
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let jetstream = Arc::new(starting.await.unwrap());
        Self {
            neighbour,
            broker,
            jetstream,
        }
    }

    async fn stop(self) {
        let jetstream = self.jetstream;
        tokio::task::spawn_blocking(move || jetstream.shutdown())
            .await
            .unwrap();
    }

    /// What a client of this server is answered.
    async fn ask(&self, subject: &str, body: Value) -> Value {
        let broker = Arc::clone(&self.broker);
        let subject = format!("$JS.API.{subject}");
        let asked = tokio::task::spawn_blocking(move || {
            let (sender, receiver) = mpsc::channel();
            let account = broker.ensure_account(GLOBAL_ACCOUNT);
            let ear: Arc<dyn InternalTarget> = Arc::new(Ear(StdMutex::new(sender)));
            let _heard = account.subscribe("_INBOX.1", None, ear, 0).unwrap();
            let payload = match body {
                Value::Null => Bytes::new(),
                body => Bytes::from(body.to_string()),
            };
            let request = Outgoing {
                subject: Bytes::from(subject),
                reply: Bytes::from_static(b"_INBOX.1"),
                payload,
                ..Outgoing::default()
            };
            broker.publish(&account, &[request], &mut PublishCache::new());
            let answer = receiver.recv_timeout(PATIENCE).expect("an answer comes");
            serde_json::from_slice(&answer).unwrap()
        });
        asked.await.unwrap()
    }

    fn publish(&self, subject: &'static str, payload: &'static str) {
        let account = self.broker.ensure_account(GLOBAL_ACCOUNT);
        let message = Outgoing {
            subject: Bytes::from_static(subject.as_bytes()),
            payload: Bytes::from_static(payload.as_bytes()),
            ..Outgoing::default()
        };
        self.broker
            .publish(&account, &[message], &mut PublishCache::new());
    }
}

fn introduce(servers: &[&Server]) {
    let known: Vec<_> = servers.iter().map(|s| s.neighbour.known()).collect();
    for server in servers {
        server.neighbour.links.know(&known);
    }
}

async fn ready(servers: &[&Server]) {
    until("there is a meta leader that all know", || {
        let leaders: Vec<_> = servers.iter().map(|s| s.jetstream.meta_leader()).collect();
        leaders
            .iter()
            .all(|leader| leader.is_some() && *leader == leaders[0])
            && servers.iter().all(|server| server.jetstream.is_ready())
    })
    .await;
}

fn directories<const COUNT: usize>() -> [TempDir; COUNT] {
    std::array::from_fn(|_| tempfile::tempdir().unwrap())
}

async fn three(directories: &[TempDir; 3]) -> [Server; 3] {
    let [a, b, c] = ["a", "b", "c"];
    let servers = [
        Server::start(a, 3, directories[0].path()).await,
        Server::start(b, 3, directories[1].path()).await,
        Server::start(c, 3, directories[2].path()).await,
    ];
    introduce(&[&servers[0], &servers[1], &servers[2]]);
    ready(&[&servers[0], &servers[1], &servers[2]]).await;
    servers
}

/// Creates a stream, however long it takes until the servers know each other well enough to place it.
async fn create(server: &Server, name: &str) -> Value {
    let config = json!({ "name": name, "subjects": [format!("{name}.>")] });
    let begun = std::time::Instant::now();
    loop {
        let answer = server
            .ask(&format!("STREAM.CREATE.{name}"), config.clone())
            .await;
        if answer.get("error").is_none() {
            return answer;
        }
        let leader = server.jetstream.meta_leader();
        assert!(begun.elapsed() < PATIENCE, "{name}: {answer}, {leader:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stop(servers: impl IntoIterator<Item = Server>) {
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_are_created_shown_listed_changed_and_removed_from_any_server() {
    let directories = directories();
    let servers = three(&directories).await;
    for (at, name) in ["S1", "S2", "S3", "S4", "S5", "S6"].into_iter().enumerate() {
        let created = create(&servers[at % 3], name).await;
        assert_eq!(created["config"]["name"], name);
        assert_eq!(created["did_create"], true);
    }
    let mut held = Vec::new();
    for server in &servers {
        held.push(server.jetstream.stats().reserved_storage);
        let names = server.ask("STREAM.NAMES", Value::Null).await;
        assert_eq!(
            names["streams"],
            json!(["S1", "S2", "S3", "S4", "S5", "S6"])
        );
        let list = server.ask("STREAM.LIST", Value::Null).await;
        assert_eq!(list["total"], 6, "{list}");
        let listed: Vec<_> = list["streams"].as_array().unwrap().iter().collect();
        assert_eq!(listed.len(), 6, "{list}");
        assert_eq!(listed[5]["config"]["name"], "S6");
        for name in ["S1", "S2", "S3"] {
            let info = server
                .ask(&format!("STREAM.INFO.{name}"), Value::Null)
                .await;
            assert_eq!(info["config"]["name"], name, "{info}");
        }
        let account = server.ask("INFO", Value::Null).await;
        assert_eq!(account["streams"], 6, "{account}");
        let none = server.ask("STREAM.INFO.NONE", Value::Null).await;
        assert_eq!(none["error"]["err_code"], 10059, "{none}");
    }
    let again = create(&servers[1], "S1").await;
    assert_eq!(again["config"]["name"], "S1");
    let other = json!({ "name": "S1", "subjects": ["other"] });
    let refused = servers[2].ask("STREAM.CREATE.S1", other).await;
    assert_eq!(refused["error"]["err_code"], 10058, "{refused}");
    let overlapping = json!({ "name": "S7", "subjects": ["S1.x"] });
    let refused = servers[2].ask("STREAM.CREATE.S7", overlapping).await;
    assert_eq!(refused["error"]["err_code"], 10065, "{refused}");

    let changed = json!({ "name": "S2", "subjects": ["S2.>", "more"], "max_msgs": 5 });
    let updated = servers[0].ask("STREAM.UPDATE.S2", changed).await;
    assert_eq!(updated["config"]["max_msgs"], 5, "{updated}");
    for server in &servers {
        let info = server.ask("STREAM.INFO.S2", Value::Null).await;
        assert_eq!(info["config"]["subjects"], json!(["S2.>", "more"]));
    }
    let consumer =
        json!({ "stream_name": "S2", "config": { "durable_name": "C", "ack_policy": "explicit" } });
    let made = servers[1].ask("CONSUMER.CREATE.S2.C", consumer).await;
    assert_eq!(made["name"], "C", "{made}");
    for server in &servers {
        let names = server.ask("CONSUMER.NAMES.S2", Value::Null).await;
        assert_eq!(names["consumers"], json!(["C"]), "{names}");
    }
    let removed = servers[2].ask("STREAM.DELETE.S1", Value::Null).await;
    assert_eq!(removed["success"], true, "{removed}");
    for server in &servers {
        let names = server.ask("STREAM.NAMES", Value::Null).await;
        assert_eq!(names["total"], 5, "{names}");
    }
    let back = create(&servers[0], "S1").await;
    assert_eq!(back["state"]["messages"], 0);
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_is_on_one_server_and_streams_are_spread_over_all() {
    let directories = directories();
    let servers = three(&directories).await;
    for name in ["S1", "S2", "S3"] {
        create(&servers[0], name).await;
    }
    for name in ["S1.x", "S2.x", "S3.x"] {
        for server in &servers {
            server.publish(name, "hello");
        }
    }
    for name in ["S1", "S2", "S3"] {
        let begun = std::time::Instant::now();
        loop {
            let info = servers[2]
                .ask(&format!("STREAM.INFO.{name}"), Value::Null)
                .await;
            if info["state"]["messages"] == 1 {
                break;
            }
            // The message that the stream's own server was given: others do not have it.
            assert!(begun.elapsed() < PATIENCE, "{info}");
        }
    }
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_majority_nothing_is_created_and_with_one_again_it_is() {
    let directories = directories();
    let [a, b, c] = three(&directories).await;
    create(&a, "S1").await;
    b.stop().await;
    c.stop().await;
    until("the leader is missed", || {
        a.jetstream.meta_leader().is_none()
    })
    .await;
    let config = json!({ "name": "S2", "subjects": ["S2"] });
    let refused = a.ask("STREAM.CREATE.S2", config).await;
    assert_eq!(refused["error"]["err_code"], 10008, "{refused}");
    let b = Server::start("b", 3, directories[1].path()).await;
    let c = Server::start("c", 3, directories[2].path()).await;
    introduce(&[&a, &b, &c]);
    ready(&[&a, &b, &c]).await;
    create(&c, "S2").await;
    let names = b.ask("STREAM.NAMES", Value::Null).await;
    assert_eq!(names["streams"], json!(["S1", "S2"]), "{names}");
    stop([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_servers_start_again_with_all_that_they_had() {
    let directories = directories();
    let servers = three(&directories).await;
    for name in ["S1", "S2", "S3"] {
        create(&servers[0], name).await;
    }
    stop(servers).await;
    let servers = three(&directories).await;
    let names = servers[1].ask("STREAM.NAMES", Value::Null).await;
    assert_eq!(names["streams"], json!(["S1", "S2", "S3"]), "{names}");
    for name in ["S1", "S2", "S3"] {
        let info = servers[2]
            .ask(&format!("STREAM.INFO.{name}"), Value::Null)
            .await;
        assert_eq!(info["config"]["name"], name, "{info}");
    }
    create(&servers[2], "S4").await;
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_lost_everything_joins_again_and_a_fourth_one_joins() {
    let directories = directories();
    let [a, b, c] = three(&directories).await;
    create(&a, "S1").await;
    c.stop().await;
    let empty = tempfile::tempdir().unwrap();
    let c = Server::start("c", 3, empty.path()).await;
    introduce(&[&a, &b, &c]);
    ready(&[&a, &b, &c]).await;
    let names = c.ask("STREAM.NAMES", Value::Null).await;
    assert_eq!(names["streams"], json!(["S1"]), "{names}");
    let more = tempfile::tempdir().unwrap();
    let d = Server::start("d", 3, more.path()).await;
    introduce(&[&a, &b, &c, &d]);
    ready(&[&a, &b, &c, &d]).await;
    create(&d, "S2").await;
    // Four of four are voters: two may not be missed any more, one may.
    a.stop().await;
    ready(&[&b, &c, &d]).await;
    create(&b, "S3").await;
    stop([b, c, d]).await;
}

/// Waits until the stream's info is so, asked of that server.
async fn await_info(server: &Server, name: &str, so: impl Fn(&Value) -> bool) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let info = server
            .ask(&format!("STREAM.INFO.{name}"), Value::Null)
            .await;
        if so(&info) {
            return info;
        }
        assert!(begun.elapsed() < PATIENCE, "{info}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_with_three_replicas_outlives_its_leader() {
    let directories = directories();
    let [a, b, c] = three(&directories).await;
    create_replicated(&a).await;
    // Only the leader listens; here its clients' messages reach nobody else.
    publish_until(&[&a, &b, &c], 1).await;
    for server in [&a, &b, &c] {
        await_info(server, "R3", |info| messages(info) >= 1).await;
    }
    let info = await_info(&b, "R3", |info| info["cluster"]["leader"].is_string()).await;
    let leader = info["cluster"]["leader"].as_str().unwrap().to_owned();
    let (leads, others): (Vec<_>, Vec<_>) = [a, b, c]
        .into_iter()
        .partition(|server| server.neighbour.known().server_name == leader);
    stop(leads).await;
    let info = await_info(&others[0], "R3", |info| messages(info) >= 1).await;
    assert_ne!(info["cluster"]["leader"], leader);
    let both = [&others[0], &others[1]];
    publish_until(&both, messages(&info) + 1).await;
    stop(others).await;
}

fn messages(info: &Value) -> u64 {
    info["state"]["messages"].as_u64().unwrap_or(0)
}

/// Publishes on all servers until the stream has so many messages.
async fn publish_until(servers: &[&Server], count: u64) {
    let begun = std::time::Instant::now();
    loop {
        for server in servers {
            server.publish("r3", "hello");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let info = servers[0].ask("STREAM.INFO.R3", Value::Null).await;
        if messages(&info) >= count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{info}");
    }
}

/// Has whoever leads the meta group propose a command.
async fn propose(servers: &[Server], command: &Command) {
    let begun = std::time::Instant::now();
    loop {
        for server in servers {
            let cluster = server.jetstream.cluster().expect("it is part of one");
            if cluster.propose(command).await {
                return;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nobody proposes {command:?}");
    }
}

async fn create_replicated(server: &Server) {
    let config = json!({ "name": "R3", "subjects": ["r3"], "num_replicas": 3 });
    let begun = std::time::Instant::now();
    loop {
        let answer = server.ask("STREAM.CREATE.R3", config.clone()).await;
        if answer.get("error").is_none() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The replica of the stream on a server.
fn replica(server: &Server) -> super::stream::replica::StreamReplica {
    let cluster = server.jetstream.cluster().expect("a cluster");
    cluster.replica("R3").expect("a replica")
}

/// Lets the replicas of those servers that are chosen hold something else than the others, and waits until they are replaced.
async fn differ_and_heal(leads: bool) {
    let directories = directories();
    let servers = three(&directories).await;
    create_replicated(&servers[0]).await;
    let all: Vec<&Server> = servers.iter().collect();
    publish_until(&all, 3).await;
    let is_leader = |server: &&Server| {
        let role = replica(server).status().role;
        matches!(role, raft::group::Role::Leader { .. })
    };
    let wrong = *all
        .iter()
        .find(|server| is_leader(server) == leads)
        .expect("one of each");
    let before = replica(wrong);
    let begun = std::time::Instant::now();
    while before.status().position.at.index < 3 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    before.port.look(|core| {
        let gone = core
            .store_mut()
            .delete(1, storage::store::Deletion::Unlink, &mut ());
        assert!(gone.expect("deletes"));
    });
    let name = wrong.neighbour.known().server_name;
    let cluster = wrong.jetstream.cluster().expect("a cluster");
    let begun = std::time::Instant::now();
    let mut told = None;
    loop {
        for server in &servers {
            server.publish("r3", "hello");
        }
        // Before the third replica has been heard nobody can say who is wrong.
        told = wrong.jetstream.fault().or(told);
        let now = cluster.replica("R3");
        let node = |replica: &super::stream::replica::StreamReplica| replica.group.myself().node;
        let is_new = now.as_ref().is_some_and(|now| node(now) != node(&before));
        if is_new && cluster.fault().is_none() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it is not replaced: {told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = told.expect("the server said that it is not well");
    assert!(told.contains("differs"), "{told}");
    until("what it held is noted", || {
        let orphans = cluster.orphans();
        let mut own = orphans.iter().filter(|(server, _)| *server == name);
        own.any(|(_, reason)| reason.contains("differs from the majority"))
    })
    .await;
    // It holds the first message again, and all that came since.
    until("all are equal", || {
        let statuses = all.iter().map(|server| replica(server).status());
        let digests: Vec<_> = statuses.map(|status| status.digest).collect();
        digests.iter().all(|digest| *digest == digests[0])
    })
    .await;
    for server in &all {
        assert_eq!(replica(server).status().spoilt, None);
        assert_eq!(server.jetstream.fault(), None);
    }
    stop(servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_that_differs_from_the_majority_is_set_aside_and_replaced() {
    differ_and_heal(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_differs_from_the_majority_is_set_aside_and_replaced() {
    differ_and_heal(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restored_stream_that_the_state_never_came_to_name_is_set_aside_and_its_name_is_free() {
    let directories = directories();
    let servers = three(&directories).await;
    for round in 1..=2 {
        // On the leader and on one that follows, and twice under one name.
        for server in &servers {
            let cluster = server.jetstream.cluster().expect("a cluster");
            let landing = {
                let cluster = Arc::clone(cluster);
                move || {
                    let name = "S".to_owned();
                    let config = StreamConfig {
                        name,
                        ..StreamConfig::default()
                    };
                    cluster.land_in_doubt(GLOBAL_ACCOUNT, config);
                }
            };
            tokio::task::spawn_blocking(landing).await.unwrap();
            let name = server.neighbour.known().server_name;
            until("it is noted that it was set aside", || {
                let orphans = cluster.orphans();
                let own = orphans.iter().filter(|(on, _)| *on == name);
                own.count() == round
            })
            .await;
        }
    }
    let orphans = servers[0].jetstream.cluster().unwrap().orphans();
    let reasons = orphans.iter().map(|(_, reason)| reason.as_str());
    assert!(
        reasons
            .clone()
            .all(|reason| reason.starts_with("it was restored"))
    );
    create(&servers[0], "S").await;
    stop(servers).await;
}
