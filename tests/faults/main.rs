//! Servers of a cluster that are killed, frozen, cut off and brought back under load: writes go on, nothing acknowledged is missing, and all replicas hold the same.
//!
//! `FAULTS_SECONDS=600 FAULTS_SEED=7 cargo test --test faults` runs longer; `NATS_SERVER_UNDER_TEST` names another server binary to run the same
//! against, as a control.

#[path = "../common/mod.rs"]
mod common;
mod load;
mod network;
mod servers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt;
use load::{Acknowledged, Load};
use network::Network;
use servers::{Cut, Servers, State};

const STREAM: &str = "FAULTS";
const WRITERS: usize = 4;
/// A write is acknowledged again within this time after a fault. The goal is two seconds; a machine that is busy with other tests gets more.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How long the next replica may take to lead.
const LEAD_PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// SplitMix64: which fault comes next follows from the seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

async fn create(context: &jetstream::Context, replicas: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let created = context.create_stream(stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["faults.>".to_owned()],
            num_replicas: replicas,
            duplicate_window: Duration::from_secs(300),
            ..Default::default()
        });
        match created.await {
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "no stream: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One fault and its mending; says how long no write was acknowledged.
async fn fault(
    servers: &mut Servers,
    context: &jetstream::Context,
    load: &Load,
    dice: &mut Dice,
) -> Duration {
    let leader = servers.leader(context, STREAM).await;
    let any = dice.below(servers.servers.len());
    // Most often the leader, since that is what hurts.
    let at = match (leader, dice.below(3)) {
        (Some(leader), 0 | 1) => leader,
        _ => any,
    };
    // Without a network of their own, wires cannot be cut.
    match dice.below(if servers.network.is_some() { 6 } else { 2 }) {
        0 => servers.kill(at),
        1 => servers.freeze(at),
        2 => servers.cut_off(at, Cut::All),
        3 => servers.cut_off(at, Cut::Mute),
        4 => servers.cut_off(at, Cut::Deaf),
        _ => servers.cut_off(at, Cut::OneWire),
    }
    let (state, begun) = (servers.states[at], Instant::now());
    let pause = load.next_ack(PAUSE_MAX).await;
    let pause = pause
        .unwrap_or_else(|| panic!("no write for {PAUSE_MAX:?} after s{} is {state:?}", at + 1));
    if number("FAULTS_SHOWN", 0) > 0 {
        println!(
            "s{} {state:?} leader {leader:?}: ack after {pause:?}, {:?}",
            at + 1,
            begun.elapsed()
        );
    }
    tokio::time::sleep(Duration::from_millis(dice.below(1500) as u64)).await;
    servers.mend(at);
    pause
}

/// Everything that the stream holds, as its leader tells it.
async fn content(context: &jetstream::Context) -> BTreeMap<u64, String> {
    let stream = context.get_stream(STREAM).await.expect("it is there");
    let count = stream.cached_info().state.messages as usize;
    let ordered = consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(ordered).await.expect("a consumer");
    let messages = consumer.messages().await.expect("messages come");
    let read = messages.take(count).map(|message| {
        let message = message.expect("a message");
        let sequence = message.info().expect("it says where it stood");
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        (sequence.stream_sequence, text)
    });
    read.collect().await
}

/// Makes each server lead in turn and compares what it holds.
async fn compare_replicas(
    servers: &Servers,
    context: &jetstream::Context,
) -> BTreeMap<u64, String> {
    let mut first: Option<BTreeMap<u64, String>> = None;
    let mut deadline = Instant::now() + LEAD_PATIENCE;
    let mut seen = vec![false; servers.servers.len()];
    while seen.iter().any(|seen| !seen) && Instant::now() < deadline {
        let info = servers.settled(context, STREAM).await;
        let cluster = info.cluster.expect("it has replicas");
        let leader = cluster.leader.expect("it is settled");
        let at: usize = leader[1..].parse().expect("our names");
        if !std::mem::replace(&mut seen[at - 1], true) {
            let content = content(context).await;
            match &first {
                None => first = Some(content),
                Some(first) => assert!(*first == content, "{leader} holds something else"),
            }
            deadline = Instant::now() + LEAD_PATIENCE;
        }
        let members = cluster.replicas.iter().map(|peer| peer.name.clone());
        let mut members = members.chain([leader]);
        let next = members.find(|name| !seen[name[1..].parse::<usize>().expect("our names") - 1]);
        let Some(next) = next else { break };
        let preferred = format!(r#"{{"placement":{{"preferred":"{next}"}}}}"#);
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
        let client = context.client();
        let asked = client.request(subject, preferred.into());
        let _ = tokio::time::timeout(Duration::from_secs(5), asked).await;
    }
    assert!(seen.iter().all(|seen| *seen), "not all led: {seen:?}");
    first.expect("somebody leads")
}

fn check(acknowledged: &Acknowledged, content: &BTreeMap<u64, String>) {
    assert_eq!(acknowledged.contradictions, Vec::<String>::new());
    for (sequence, payload) in &acknowledged.payloads {
        assert_eq!(
            content.get(sequence),
            Some(payload),
            "acknowledged as {sequence}"
        );
    }
    // Nothing is there twice: whoever was not answered sent the same id again.
    let mut payloads: Vec<&String> = content.values().collect();
    let all = payloads.len();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!(payloads.len(), all, "a duplicate was stored");
}

async fn run(mut servers: Servers, replicas: usize) {
    let seconds = number("FAULTS_SECONDS", 12);
    let mut dice = Dice(number("FAULTS_SEED", 1));
    let context = {
        let mut context = jetstream::new(servers.client(0).await);
        context.set_timeout(Duration::from_secs(5));
        context
    };
    create(&context, replicas).await;
    let mut clients = Vec::new();
    for writer in 0..WRITERS {
        clients.push(servers.client(writer).await);
    }
    let load = Load::start(clients);
    load.next_ack(PAUSE_MAX).await.expect("the first ack");
    let begun = Instant::now();
    let mut pauses = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) {
        pauses.push(fault(&mut servers, &context, &load, &mut dice).await);
        assert!(servers.states.iter().all(|state| *state == State::Running));
        servers.settled(&context, STREAM).await;
    }
    let acknowledged = load.stop().await;
    let content = compare_replicas(&servers, &context).await;
    check(&acknowledged, &content);
    pauses.sort_unstable();
    println!(
        "{} faults on {} servers, {} acknowledged, first ack after a fault: median {:?}, longest {:?}",
        pauses.len(),
        servers.running(),
        acknowledged.payloads.len(),
        pauses[pauses.len() / 2],
        pauses.last().expect("there was one")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_lose_nothing_that_was_acknowledged_and_stay_equal() {
    run(Servers::start(3), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_servers_lose_nothing_that_was_acknowledged_and_stay_equal() {
    run(Servers::start(5), 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_cut_off_from_each_other_lose_nothing_and_stay_equal() {
    match Network::new(3) {
        Ok(network) => run(Servers::start_in(network, 3), 3).await,
        Err(reason) => println!("skipped, there is no network to cut: {reason}"),
    }
}
