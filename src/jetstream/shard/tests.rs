//! A shard with a broker on one side and a log of our own on the other.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use storage::disk::{DiskError, DiskErrorKind};
use storage::journal::{Commit, CommitSink, FrameKind, JournalError, Location, Owner};
use storage::store::{Limits, MemStore, Store};

use super::Shards;
use super::faults::{Outage, OutageCause};
use super::inbox::WaitingMax;
use super::port::Port;
use crate::broker::{
    Account, Broker, Inbound, InternalSubscription, InternalTarget, Outgoing, PublishCache,
};
use crate::jetstream::core::{AckForm, AckNames};
use crate::jetstream::core::{
    ConsumerAction, ConsumerCreate, StreamCore, StreamReply, StreamRequest,
};
use crate::jetstream::intake;
use crate::jetstream::log::{Checkpoint, Entry, InstantLog, Log, LogError, Pressure};
use crate::jetstream::types::{AckPolicy, ConsumerConfig, StreamConfig};

mod offers;

const WAITING_MAX: WaitingMax = WaitingMax {
    messages: 100_000,
    bytes: 1 << 30,
};
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A log that commits when it is told to.
#[derive(Default)]
pub(super) struct HeldLog {
    entries: Mutex<Vec<(Entry, Arc<dyn CommitSink>)>>,
    submitted: Mutex<Option<Sender<usize>>>,
    refuses: Mutex<bool>,
    opened: Mutex<bool>,
}

impl HeldLog {
    pub(super) fn new() -> (Arc<Self>, Receiver<usize>) {
        let (sender, receiver) = channel();
        let log = Self::default();
        *log.submitted.lock() = Some(sender);
        (Arc::new(log), receiver)
    }

    /// From now on everything is durable at once, so that a stop has nothing to wait for.
    pub(super) fn open(&self) {
        *self.opened.lock() = true;
        self.commit();
    }

    /// Waits until something was submitted.
    pub(super) fn wait_for_entries(&self) {
        let begun = std::time::Instant::now();
        while self.entries.lock().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "nothing was submitted");
            std::thread::yield_now();
        }
    }

    /// Makes all that was submitted durable.
    fn commit(&self) {
        for (entry, sink) in std::mem::take(&mut *self.entries.lock()) {
            sink.committed(&[Commit {
                owner: Owner(entry.stream),
                index: entry.index,
                kind: FrameKind::Entry,
                token: entry.token,
                location: Location {
                    segment: 0,
                    commit_at: 0,
                    frame_at: 0,
                },
            }]);
        }
    }

    fn fail(&self) {
        self.fail_with(&JournalError::Closed);
    }

    fn fail_with(&self, error: &JournalError) {
        for (_, sink) in std::mem::take(&mut *self.entries.lock()) {
            sink.failed(error);
        }
    }
}

impl Log for HeldLog {
    fn submit(&self, entries: Vec<Entry>, sink: &Arc<dyn CommitSink>) -> Result<(), LogError> {
        if *self.refuses.lock() {
            return Err(LogError("the journal is broken".to_owned()));
        }
        let count = entries.len();
        let held = entries.into_iter().map(|entry| (entry, Arc::clone(sink)));
        self.entries.lock().extend(held);
        if let Some(submitted) = &*self.submitted.lock() {
            let _ = submitted.send(count);
        }
        if *self.opened.lock() {
            self.commit();
        }
        Ok(())
    }

    fn checkpoint(
        &self,
        _stream: u64,
        _store: &mut dyn Any,
        _index: u64,
        _core: Bytes,
    ) -> Result<Checkpoint, LogError> {
        Ok(Checkpoint::Begun)
    }

    fn pressure(&self) -> Pressure {
        Pressure::None
    }

    fn has_room(&self) -> bool {
        true
    }

    fn wait_until_idle(&self) {}
}

/// Passes on what it receives.
struct Ear(Mutex<Sender<Inbound>>);

impl InternalTarget for Ear {
    fn deliver(&self, batch: Vec<Inbound>) {
        let sender = self.0.lock();
        for inbound in batch {
            let _ = sender.send(inbound);
        }
    }
}

pub(super) struct Scene {
    broker: Arc<Broker>,
    account: Arc<Account>,
    pub(super) shards: Shards,
    port: Port,
    pub(super) inbox: Receiver<Inbound>,
    held: Option<Arc<HeldLog>>,
    _subscriptions: Vec<InternalSubscription>,
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".to_owned(),
        subjects: vec!["s.>".to_owned()],
        duplicate_window: 120_000_000_000,
        ..StreamConfig::default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.open();
        }
    }
}

fn held() -> (Scene, Arc<HeldLog>, Receiver<usize>) {
    let (log, submitted) = HeldLog::new();
    let mut scene = scene(Arc::clone(&log) as Arc<dyn Log>);
    scene.held = Some(Arc::clone(&log));
    (scene, log, submitted)
}

pub(super) fn scene(log: Arc<dyn Log>) -> Scene {
    scene_over(Box::new(MemStore::new(Limits::default())), log)
}

pub(super) fn scene_over(store: Box<dyn Store>, log: Arc<dyn Log>) -> Scene {
    let broker = Arc::new(Broker::new());
    let account = Arc::clone(broker.global());
    let shards = Shards::start(1, &broker, WAITING_MAX).expect("starts");
    let core = StreamCore::create(config(), "", 0, store).expect("creates");
    let port = shards.adopt(core, Arc::clone(&account), log, 7);
    let (sender, inbox) = channel();
    let ear: Arc<dyn InternalTarget> = Arc::new(Ear(Mutex::new(sender)));
    let mut subscriptions: Vec<InternalSubscription> = intake::patterns(
        &config(),
        &AckNames::new("", "$G", &config().name, AckForm::Short),
    )
    .into_iter()
    .map(|(pattern, purpose)| {
        let target: Arc<dyn InternalTarget> = Arc::new(port.clone());
        account
            .subscribe(&pattern, None, target, purpose as u64)
            .expect("subscribes")
    })
    .collect();
    subscriptions.push(
        account
            .subscribe("reply.>", None, ear, 0)
            .expect("subscribes"),
    );
    Scene {
        broker,
        account,
        shards,
        port,
        inbox,
        held: None,
        _subscriptions: subscriptions,
    }
}

impl Scene {
    pub(super) fn publish(&self, subjects: &[&'static str]) {
        let messages: Vec<Outgoing> = subjects
            .iter()
            .enumerate()
            .map(|(at, subject)| Outgoing {
                subject: Bytes::from_static(subject.as_bytes()),
                reply: Bytes::from(format!("reply.{at}")),
                payload: Bytes::from_static(b"x"),
                ..Outgoing::default()
            })
            .collect();
        self.send(&messages);
    }

    pub(super) fn send(&self, messages: &[Outgoing]) {
        self.broker
            .publish(&self.account, messages, &mut PublishCache::new());
    }

    pub(super) fn heard(&self) -> String {
        let inbound = self.inbox.recv_timeout(PATIENCE).expect("something comes");
        let headers = String::from_utf8_lossy(&inbound.headers).into_owned();
        format!("{headers}{}", String::from_utf8_lossy(&inbound.payload))
    }

    fn start(&self, request: StreamRequest) -> Receiver<StreamReply> {
        let (sender, receiver) = channel();
        let answer = Box::new(move |reply| {
            let _ = sender.send(reply);
        });
        self.port.request(request, answer);
        receiver
    }

    fn ask(&self, request: StreamRequest) -> StreamReply {
        self.start(request)
            .recv_timeout(PATIENCE)
            .expect("an answer")
    }

    fn create(&self, config: ConsumerConfig) -> StreamRequest {
        StreamRequest::ConsumerCreate(Box::new(ConsumerCreate {
            name: config.name.clone(),
            config,
            action: ConsumerAction::Create,
            check_update: |_, _| Ok(()),
            consumers_max: -1,
        }))
    }
}

fn durable() -> ConsumerConfig {
    ConsumerConfig {
        name: "c".to_owned(),
        durable_name: "c".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ..ConsumerConfig::default()
    }
}

#[test]
fn what_is_published_to_its_subjects_is_stored_and_acknowledged() {
    let scene = scene(Arc::new(InstantLog));
    scene.publish(&["s.a", "s.b", "other"]);
    assert_eq!(scene.heard(), r#"{"stream":"S","seq":1}"#);
    assert_eq!(scene.heard(), r#"{"stream":"S","seq":2}"#);
    match scene.ask(StreamRequest::Info(Default::default())) {
        StreamReply::Info { info, .. } => assert_eq!(info.state.messages, 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_one_entry_and_no_ack_leaves_before_it_is_durable() {
    let (scene, log, submitted) = held();
    scene.publish(&["s.a"; 100]);
    assert_eq!(submitted.recv_timeout(PATIENCE), Ok(1));
    // The shard has sent all that it had to send before this answer.
    let info = scene.start(StreamRequest::Info(Default::default()));
    assert!(scene.inbox.try_recv().is_err());
    assert!(info.try_recv().is_err());
    log.commit();
    for sequence in 1..=100 {
        assert_eq!(
            scene.heard(),
            format!(r#"{{"stream":"S","seq":{sequence}}}"#)
        );
    }
    assert!(info.recv_timeout(PATIENCE).is_ok());
}

#[test]
fn a_failed_log_takes_the_stream_offline_and_says_so() {
    let (scene, log, submitted) = held();
    scene.publish(&["s.a"]);
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    log.fail();
    match scene.ask(StreamRequest::Info(Default::default())) {
        StreamReply::Refused(error) => assert_eq!((error.code, error.err_code), (503, 10077)),
        other => panic!("{other:?}"),
    }
    scene.publish(&["s.a"]);
    assert!(scene.heard().contains(r#""err_code":10077"#));
}

#[test]
fn a_stream_that_fails_while_it_leaves_stays_where_it_is_offline() {
    let (scene, log, submitted) = held();
    let leave = || {
        let (sender, receiver) = channel();
        scene.port.surrender_to(Box::new(move |surrendered| {
            let _ = sender.send(surrendered.storage);
        }));
        receiver
    };
    scene.publish(&["s.a"]);
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    let leaving = leave();
    log.fail();
    let is_gone = Err(RecvTimeoutError::Disconnected);
    assert_eq!(leaving.recv_timeout(PATIENCE), is_gone);
    assert_eq!(leave().recv_timeout(PATIENCE), is_gone);
    assert!(scene.port.fault().is_some());
    match scene.ask(StreamRequest::Info(Default::default())) {
        StreamReply::Refused(error) => assert_eq!(error.err_code, 10077),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_is_told_of_with_the_stream_that_found_out() {
    let (scene, log, submitted) = held();
    scene.publish(&["s.a"]);
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    log.fail_with(&JournalError::Failed(DiskError {
        operation: "write",
        path: "journal".into(),
        kind: DiskErrorKind::Full,
    }));
    let info = scene.ask(StreamRequest::Info(Default::default()));
    assert!(matches!(info, StreamReply::Refused(_)), "{info:?}");
    let outage = Outage {
        cause: OutageCause::NoSpace,
        stream: "S".to_owned(),
    };
    assert_eq!(scene.port.faults.outage(), Some(&outage));
}

#[test]
fn a_log_that_refuses_takes_the_stream_offline() {
    let (scene, log, _submitted) = held();
    *log.refuses.lock() = true;
    scene.publish(&["s.a"]);
    let info = scene.ask(StreamRequest::Info(Default::default()));
    assert!(matches!(info, StreamReply::Refused(_)), "{info:?}");
    scene.publish(&["s.a"]);
    assert!(scene.heard().contains("the journal is broken"));
}

#[test]
fn a_consumer_is_heard_where_there_is_one() {
    let scene = scene(Arc::new(InstantLog));
    let subject = intake::pull_subject("S", "c");
    assert!(!scene.account.has_interest(&subject));
    scene.ask(scene.create(durable()));
    assert!(scene.account.has_interest(&subject));
    scene.publish(&["s.a"]);
    assert_eq!(scene.heard(), r#"{"stream":"S","seq":1}"#);
    scene.send(&[Outgoing {
        subject: Bytes::from(subject.clone()),
        reply: Bytes::from_static(b"reply.pull"),
        payload: Bytes::from_static(b"1"),
        ..Outgoing::default()
    }]);
    let message = scene.inbox.recv_timeout(PATIENCE).expect("comes");
    assert_eq!(message.subject, "s.a");
    assert!(message.reply.starts_with(b"$JS.ACK.S.c.1.1.1."));
    scene.ask(StreamRequest::ConsumerDelete {
        name: "c".to_owned(),
    });
    assert!(!scene.account.has_interest(&subject));
}

#[test]
fn a_push_consumer_delivers_as_soon_as_somebody_listens() {
    let scene = scene(Arc::new(InstantLog));
    scene.publish(&["s.a"]);
    scene.heard();
    scene.ask(scene.create(ConsumerConfig {
        deliver_subject: "push.here".to_owned(),
        ..durable()
    }));
    let (sender, heard) = channel();
    let ear: Arc<dyn InternalTarget> = Arc::new(Ear(Mutex::new(sender)));
    let _listening = scene
        .account
        .subscribe("push.here", None, ear, 0)
        .expect("subscribes");
    let message = heard.recv_timeout(PATIENCE).expect("comes");
    assert_eq!(message.subject, "s.a");
}

#[test]
fn a_stop_waits_for_the_log_and_says_goodbye() {
    let (scene, log, submitted) = held();
    let created = scene.start(scene.create(durable()));
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    log.commit();
    created.recv_timeout(PATIENCE).expect("is created");
    scene.send(&[Outgoing {
        subject: Bytes::from(intake::pull_subject("S", "c")),
        reply: Bytes::from_static(b"reply.pull"),
        payload: Bytes::from_static(b"3"),
        ..Outgoing::default()
    }]);
    scene.publish(&["s.a"]);
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    std::thread::scope(|threads| {
        let stopping = threads.spawn(|| scene.shards.stop());
        // Whatever is submitted until the end becomes durable.
        while !stopping.is_finished() {
            log.commit();
            std::thread::yield_now();
        }
    });
    let heard: Vec<String> = std::iter::from_fn(|| scene.inbox.try_recv().ok())
        .map(|inbound| {
            let headers = String::from_utf8_lossy(&inbound.headers).into_owned();
            format!("{headers}{}", String::from_utf8_lossy(&inbound.payload))
        })
        .collect();
    assert!(
        heard.contains(&r#"{"stream":"S","seq":1}"#.to_owned()),
        "{heard:?}"
    );
    let goodbye = "NATS/1.0 409 Server Shutdown\r\nNats-Pending-Messages: ";
    assert!(
        heard.iter().any(|one| one.starts_with(goodbye)),
        "{heard:?}"
    );
    // Nobody waits for one that has ended.
    let late = scene.start(StreamRequest::ConsumerNames);
    let late = late.recv_timeout(PATIENCE);
    assert!(matches!(late, Err(RecvTimeoutError::Disconnected)));
}

#[test]
fn a_queue_that_is_full_answers_too_many_requests() {
    let (scene, _log, submitted) = held();
    scene.publish(&["s.a"]);
    submitted.recv_timeout(PATIENCE).expect("is submitted");
    scene.port.gauge.admit(1_000_000, 0);
    scene.publish(&["s.b"]);
    let refusal = scene.heard();
    assert_eq!(
        refusal,
        "NATS/1.0 429 Too Many Requests\r\n\r\n{\"error\":{\"code\":429,\"err_code\":10167,\"description\":\"too many requests\"},\"stream\":\"S\",\"seq\":0}"
    );
}
