use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::broker::permissions::Permissions;
use crate::config::options::{Permissions as PermissionsConfig, SubjectPermission, WriteTimeout};

/// A socket that takes a set number of bytes and keeps them.
#[derive(Default)]
struct TestWire {
    taken: Arc<Mutex<Vec<u8>>>,
    room: Arc<Mutex<Option<usize>>>,
}

impl Wire for TestWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = self.room.lock();
        let mut written = 0;
        for slice in slices {
            let take = slice.len().min(room.unwrap_or(usize::MAX));
            self.taken.lock().extend_from_slice(&slice[..take]);
            written += take;
            if let Some(room) = room.as_mut() {
                *room -= take;
            }
        }
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(written)
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if *self.room.lock() == Some(0) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn shutdown(&self) {}
}

pub(super) struct TestClient {
    pub(super) client: Arc<Client>,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl TestClient {
    pub(super) fn new(id: u64) -> Self {
        Self::with_room(id, None, 1 << 20)
    }

    fn with_room(id: u64, room: Option<usize>, pending_bytes_max: usize) -> Self {
        let wire = TestWire {
            taken: Arc::default(),
            room: Arc::new(Mutex::new(room)),
        };
        let taken = Arc::clone(&wire.taken);
        let limits = OutboxLimits {
            pending_bytes_max,
            write_deadline: Duration::from_secs(60),
            write_timeout: WriteTimeout::Close,
        };
        let info = ClientInfo {
            id,
            account: GLOBAL_ACCOUNT.to_owned(),
            user: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            address: ([127, 0, 0, 1], 1).into(),
            started: SystemTime::UNIX_EPOCH,
            websocket: false,
            round_trip: RoundTrip::default(),
        };
        let client = Arc::new(Client::new(
            info,
            Outbox::new(Box::new(wire), limits),
            false,
        ));
        client.set_headers(true);
        Self { client, taken }
    }

    pub(super) fn subscribe(
        &self,
        account: &Arc<Account>,
        subject: &str,
        queue: Option<&str>,
        sid: &str,
    ) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::new(
            Bytes::copy_from_slice(subject.as_bytes()),
            queue.map(|queue| Bytes::copy_from_slice(queue.as_bytes())),
            Target::Client {
                client: Arc::clone(&self.client),
                sid: Bytes::copy_from_slice(sid.as_bytes()),
            },
            None,
        ));
        account.insert(&subscription).unwrap();
        subscription
    }

    pub(super) fn received(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.taken.lock())).unwrap()
    }
}

pub(super) fn message(subject: &'static str, payload: &'static [u8]) -> Outgoing {
    Outgoing {
        subject: Bytes::from_static(subject.as_bytes()),
        payload: Bytes::from_static(payload),
        ..Outgoing::default()
    }
}

#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<Vec<Inbound>>>,
    interest: Mutex<Vec<(u64, bool)>>,
}

impl InternalTarget for Recorder {
    fn deliver(&self, batch: Vec<Inbound>) {
        self.batches.lock().push(batch);
    }
}

impl InterestTarget for Recorder {
    fn interest_changed(&self, tag: u64, interested: bool) {
        self.interest.lock().push((tag, interested));
    }
}

#[tokio::test]
async fn a_message_reaches_every_plain_subscription_and_one_of_each_group() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let b = TestClient::new(2);
    a.subscribe(account, "x.*", None, "1");
    b.subscribe(account, "x.>", Some("q"), "2");
    b.subscribe(account, "x.y", Some("q"), "3");
    let mut cache = PublishCache::new();
    let counts = broker.publish(
        account,
        &[message("x.y", b"hi"), message("z", b"no")],
        &mut cache,
    );
    assert_eq!(counts, [2, 0]);
    assert_eq!(a.received(), "MSG x.y 1 2\r\nhi\r\n");
    let got = b.received();
    assert!(
        got == "MSG x.y 2 2\r\nhi\r\n" || got == "MSG x.y 3 2\r\nhi\r\n",
        "{got}"
    );
    assert_eq!(broker.traffic().snapshot().out_messages, 2);
}

#[tokio::test]
async fn cached_matches_follow_subscriptions_that_come_and_go() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let mut cache = PublishCache::new();
    assert_eq!(
        broker.publish(account, &[message("x", b"")], &mut cache),
        [0]
    );
    let subscription = a.subscribe(account, "x", None, "1");
    assert_eq!(
        broker.publish(account, &[message("x", b"")], &mut cache),
        [1]
    );
    account.remove(&subscription);
    assert_eq!(
        broker.publish(account, &[message("x", b"")], &mut cache),
        [0]
    );
    assert_eq!(account.subscription_count(), 0);
}

#[tokio::test]
async fn accounts_do_not_hear_each_other() {
    let broker = Broker::new();
    let a = TestClient::new(1);
    a.subscribe(broker.global(), "x", None, "1");
    let other = broker.ensure_account("OTHER");
    let mut cache = PublishCache::new();
    assert_eq!(
        broker.publish(broker.global(), &[message("x", b"")], &mut cache),
        [1]
    );
    assert_eq!(
        broker.publish(&other, &[message("x", b"")], &mut cache),
        [0]
    );
    assert_eq!(
        broker.publish(broker.global(), &[message("x", b"")], &mut cache),
        [1]
    );
}

#[tokio::test]
async fn a_subscription_ends_exactly_after_its_last_delivery() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let subscription = a.subscribe(account, "x", None, "1");
    assert!(subscription.end_after(2));
    let mut cache = PublishCache::new();
    let three = [message("x", b"1"), message("x", b"2"), message("x", b"3")];
    assert_eq!(broker.publish(account, &three, &mut cache), [1, 1, 0]);
    assert_eq!(a.received(), "MSG x 1 1\r\n1\r\nMSG x 1 1\r\n2\r\n");
    assert_eq!(account.subscription_count(), 0);
}

#[tokio::test]
async fn headers_are_stripped_for_those_who_do_not_know_them() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let b = TestClient::new(2);
    b.client.set_headers(false);
    a.subscribe(account, "x", None, "1");
    b.subscribe(account, "x", None, "1");
    for payload in [vec![b'p'; 2], vec![b'p'; 10_000]] {
        let outgoing = Outgoing {
            subject: Bytes::from_static(b"x"),
            reply: Bytes::from_static(b"r"),
            headers: Bytes::from_static(b"NATS/1.0\r\nA: b\r\n\r\n"),
            payload: payload.clone().into(),
            ..Outgoing::default()
        };
        broker.publish(account, &[outgoing], &mut PublishCache::new());
        let text = String::from_utf8(payload.clone()).unwrap();
        let size = payload.len();
        assert_eq!(
            a.received(),
            format!(
                "HMSG x 1 r 18 {}\r\nNATS/1.0\r\nA: b\r\n\r\n{text}\r\n",
                size + 18
            )
        );
        assert_eq!(b.received(), format!("MSG x 1 r {size}\r\n{text}\r\n"));
    }
}

/// Keeps what it is told of local interest.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl InterestSink for Told {
    fn interest_is(&self, account: &Account, subject: &[u8], queue: Option<&[u8]>, count: u32) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let queue = queue.map_or("-".into(), text);
        let line = format!("{} {} {queue} {count}", account.name(), text(subject));
        self.0.lock().push(line);
    }
}

pub(super) fn route_subscription(
    sink: &Arc<RouteSink>,
    subject: &str,
    queue: Option<&str>,
) -> Subscription {
    Subscription::new(
        Bytes::copy_from_slice(subject.as_bytes()),
        queue.map(|queue| Bytes::copy_from_slice(queue.as_bytes())),
        Target::Route {
            sink: Arc::clone(sink),
            weight: Weight::new(1),
        },
        None,
    )
}

#[tokio::test]
async fn other_servers_are_told_of_the_first_and_the_last_and_of_each_member_of_a_group() {
    let told = Arc::new(Told::default());
    let broker = Broker::telling(Arc::clone(&told) as Arc<dyn InterestSink>);
    let account = broker.global();
    let reader = TestClient::new(1);
    let subscriptions = [
        reader.subscribe(account, "a", None, "1"),
        reader.subscribe(account, "a", None, "2"),
        reader.subscribe(account, "a", Some("q"), "3"),
        reader.subscribe(account, "a", Some("q"), "4"),
    ];
    let recorder = Arc::new(Recorder::default());
    let here = account.subscribe_here("b", None, recorder, 0).unwrap();
    let mut known = Vec::new();
    account.tell_local_interest(|all| {
        known.extend(all.map(|(_, queue, count)| (queue.is_some(), count)));
    });
    known.sort_unstable();
    assert_eq!(known, [(false, 2), (true, 2)]);
    for subscription in &subscriptions {
        account.remove(subscription);
    }
    drop(here);
    let heard = told.0.lock().join(",");
    assert_eq!(
        heard,
        "$G a - 1,$G a q 1,$G a q 2,$G a - 0,$G a q 1,$G a q 0"
    );
}

#[tokio::test]
async fn another_server_gets_a_message_once_with_the_groups_that_have_nobody_here() {
    let broker = Broker::new();
    let account = broker.global();
    let (route, reader) = (TestClient::new(1), TestClient::new(2));
    let sink = Arc::new(RouteSink {
        client: Arc::clone(&route.client),
        names_account: true,
        traces: true,
    });
    for (subject, queue) in [
        ("a.*", None),
        ("a.b", None),
        ("a.b", Some("here")),
        ("a.>", Some("there")),
    ] {
        let subscription = Arc::new(route_subscription(&sink, subject, queue));
        account.insert(&subscription).unwrap();
    }
    reader.subscribe(account, "a.b", Some("here"), "1");
    assert_eq!(account.subscription_count(), 1);
    let asked = Outgoing {
        reply: Bytes::from_static(b"r"),
        ..message("a.b", b"x")
    };
    let shown = Outgoing {
        to: Bytes::from_static(b"a.b"),
        reply: Bytes::from_static(b"$JS.ACK.1"),
        ..message("orders", b"x")
    };
    let mut cache = PublishCache::new();
    assert_eq!(broker.publish(account, &[asked, shown], &mut cache), [2, 2]);
    assert_eq!(
        route.received(),
        "RMSG $G a.b + r there 1\r\nx\r\nRMSG $G a.b + $JS.ACK.1@orders there 1\r\nx\r\n"
    );
    assert!(reader.received().starts_with("MSG a.b 1 r 1\r\nx\r\n"));
    // What comes from a server goes to those who listen here, and to no server.
    let mut delivery = Delivery::default();
    let reply = b"$JS.ACK.s.c.1.2.3.4.5@orders.new";
    let came = Message {
        subject: b"a.b",
        reply,
        headers: b"",
        payload: b"y",
        owner: Owner::Buffer,
        trace: None,
    };
    let queues = crate::protocol::route::Queues::new(b"other here");
    let delivered = delivery.publish_routed(account, &came, queues, broker.traffic());
    delivery.hand_over(broker.traffic());
    assert_eq!(delivered, 1);
    assert_eq!(
        reader.received(),
        "MSG orders.new 1 $JS.ACK.s.c.1.2.3.4.5 1\r\ny\r\n"
    );
    assert_eq!(route.received(), "");
}

#[tokio::test]
async fn what_is_sent_to_other_listeners_keeps_its_own_subject() {
    let broker = Broker::new();
    let account = broker.global();
    let (reader, bystander) = (TestClient::new(1), TestClient::new(2));
    reader.subscribe(account, "inbox.*", None, "1");
    bystander.subscribe(account, "orders.new", None, "1");
    let outgoing = Outgoing {
        to: Bytes::from_static(b"inbox.7"),
        ..message("orders.new", b"x")
    };
    broker.publish(account, &[outgoing], &mut PublishCache::new());
    assert_eq!(reader.received(), "MSG orders.new 1 1\r\nx\r\n");
    assert_eq!(bystander.received(), "");
}

#[tokio::test]
async fn an_internal_target_gets_one_batch_with_the_tags_of_its_subscriptions() {
    let broker = Broker::new();
    let account = broker.global();
    let target = Arc::new(Recorder::default());
    let first = account
        .subscribe(
            "s.>",
            None,
            Arc::clone(&target) as Arc<dyn InternalTarget>,
            7,
        )
        .unwrap();
    let _second = account
        .subscribe(
            "s.a",
            None,
            Arc::clone(&target) as Arc<dyn InternalTarget>,
            8,
        )
        .unwrap();
    let mut cache = PublishCache::new();
    broker.publish(
        account,
        &[message("s.a", b"1"), message("s.b", b"2")],
        &mut cache,
    );
    let batches = std::mem::take(&mut *target.batches.lock());
    assert_eq!(batches.len(), 1);
    let mut seen: Vec<(u64, Bytes)> = batches[0]
        .iter()
        .map(|m| (m.tag, m.subject.clone()))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [(7, "s.a".into()), (7, "s.b".into()), (8, "s.a".into())]
    );
    drop(first);
    assert_eq!(
        broker.publish(account, &[message("s.b", b"")], &mut cache),
        [0]
    );
}

#[tokio::test]
async fn a_receiver_over_its_limit_is_closed_and_the_others_go_on() {
    let broker = Broker::new();
    let account = broker.global();
    let slow = TestClient::with_room(1, Some(0), 1000);
    let fast = TestClient::new(2);
    slow.subscribe(account, "x", None, "1");
    fast.subscribe(account, "x", None, "1");
    let mut cache = PublishCache::new();
    for _ in 0..100 {
        broker.publish(account, &[message("x", b"0123456789")], &mut cache);
    }
    assert_eq!(
        slow.client.outbox().closed(),
        Some(CloseReason::SlowConsumerPendingBytes)
    );
    assert_eq!(slow.client.outbox().pending_bytes(), 0);
    assert_eq!(fast.received().matches("MSG x 1 10\r\n").count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_takes_nothing_until_the_deadline_is_closed() {
    let broker = Broker::new();
    let account = broker.global();
    let slow = TestClient::with_room(1, Some(5), 1 << 20);
    slow.subscribe(account, "x", None, "1");
    broker.publish(
        account,
        &[message("x", b"0123456789")],
        &mut PublishCache::new(),
    );
    assert_eq!(slow.received(), "MSG x");
    assert_eq!(
        slow.client.outbox().wait_for_close().await,
        CloseReason::SlowConsumerWriteDeadline
    );
}

/// A socket that takes a few bytes now and then, until it takes no more.
struct TrickleWire {
    room: Mutex<usize>,
    left: Mutex<usize>,
    pause: Mutex<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl TrickleWire {
    const EVERY: Duration = Duration::from_secs(40);
    const BYTES: usize = 4;

    fn new(bytes: usize) -> Self {
        Self {
            room: Mutex::new(0),
            left: Mutex::new(bytes),
            pause: Mutex::new(Box::pin(tokio::time::sleep(Self::EVERY))),
        }
    }
}

impl Wire for TrickleWire {
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let waiting: usize = slices.iter().map(|slice| slice.len()).sum();
        match std::mem::take(&mut *self.room.lock()).min(waiting) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pause = self.pause.lock();
        std::task::ready!(pause.as_mut().poll(context));
        *pause = Box::pin(tokio::time::sleep(Self::EVERY));
        // Registers it with the timer.
        let _ = pause.as_mut().poll(context);
        let mut left = self.left.lock();
        if *left == 0 {
            return Poll::Pending;
        }
        let taken = Self::BYTES.min(*left);
        *left -= taken;
        *self.room.lock() = taken;
        Poll::Ready(Ok(()))
    }

    fn shutdown(&self) {}
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_and_may_retry_is_kept_for_as_long_as_it_takes_anything() {
    let broker = Broker::new();
    let account = broker.global();
    let started = tokio::time::Instant::now();
    let mut ends = Vec::new();
    for (id, policy, bytes) in [(1, WriteTimeout::Close, 1000), (2, WriteTimeout::Retry, 20)] {
        let mut slow = TestClient::new(id);
        let limits = OutboxLimits {
            pending_bytes_max: 1 << 20,
            write_deadline: Duration::from_secs(60),
            write_timeout: policy,
        };
        let info = ClientInfo::clone(&slow.client.info());
        let outbox = Outbox::new(Box::new(TrickleWire::new(bytes)), limits);
        slow.client = Arc::new(Client::new(info, outbox, false));
        slow.subscribe(account, "x", None, "1");
        broker.publish(
            account,
            &[message("x", &[b'x'; 200])],
            &mut PublishCache::new(),
        );
        let reason = slow.client.outbox().wait_for_close().await;
        assert_eq!(reason, CloseReason::SlowConsumerWriteDeadline);
        ends.push(started.elapsed().as_secs());
    }
    // The first is closed at its deadline, the other when it took nothing for a whole one.
    assert_eq!(ends[0], 60);
    assert!((240..=360).contains(&(ends[1] - ends[0])), "{ends:?}");
}

#[tokio::test]
async fn interest_is_reported_when_it_appears_and_when_it_goes() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let target = Arc::new(Recorder::default());
    let watch = |subject, queue, tag| {
        account.watch_interest(
            subject,
            queue,
            Arc::clone(&target) as Arc<dyn InterestTarget>,
            tag,
        )
    };
    let plain = watch("d.x", None, 1);
    let _group = watch("d.x", Some("q"), 2);
    assert!(!plain.interested_at_start());
    // Who looks on through a wildcard is not who it is meant for.
    let wide = a.subscribe(account, "d.*", None, "1");
    assert!(account.has_interest("d.x") && !account.is_subscribed(b"d.x", None));
    let first = a.subscribe(account, "d.x", None, "2");
    let second = a.subscribe(account, "d.x", None, "3");
    let member = a.subscribe(account, "d.x", Some("q"), "4");
    account.remove(&wide);
    account.remove(&first);
    account.remove(&second);
    account.remove(&member);
    assert_eq!(
        *target.interest.lock(),
        [(1, true), (2, true), (1, false), (2, false)]
    );
    drop(plain);
    a.subscribe(account, "d.x", None, "5");
    assert_eq!(target.interest.lock().len(), 4);
}

#[tokio::test]
async fn what_a_user_may_not_see_is_held_back_from_its_wildcards() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    let permissions = Permissions::new(&PermissionsConfig {
        subscribe: Some(SubjectPermission {
            allow: None,
            deny: vec!["ok.secret".to_owned()],
        }),
        ..Default::default()
    })
    .unwrap();
    let subscription = Arc::new(Subscription::new(
        Bytes::from_static(b"ok.>"),
        None,
        Target::Client {
            client: Arc::clone(&a.client),
            sid: Bytes::from_static(b"1"),
        },
        permissions.filter_for(b"ok.>", None),
    ));
    account.insert(&subscription).unwrap();
    let mut cache = PublishCache::new();
    let both = [message("ok.secret", b"s"), message("ok.x", b"x")];
    assert_eq!(broker.publish(account, &both, &mut cache), [0, 1]);
    assert_eq!(a.received(), "MSG ok.x 1 1\r\nx\r\n");
}

#[tokio::test]
async fn a_large_fan_out_is_handed_over_before_it_piles_up() {
    let broker = Broker::new();
    let account = broker.global();
    let everybody: Vec<TestClient> = (0..1000).map(TestClient::new).collect();
    for client in &everybody {
        client.subscribe(account, "x", None, "1");
    }
    let payload = [b'p'; 4000];
    let message = Message {
        subject: b"x",
        reply: b"",
        headers: b"",
        payload: &payload,
        owner: Owner::Buffer,
        trace: None,
    };
    let mut delivery = Delivery::default();
    assert_eq!(
        delivery.publish(account, &message, None, broker.traffic()),
        1000
    );
    let handed_over = || {
        everybody
            .iter()
            .filter(|test| test.client.outbox().counted_out().0 == 1)
            .count()
    };
    assert!(handed_over() >= 700, "{}", handed_over());
    delivery.hand_over(broker.traffic());
    assert_eq!(handed_over(), 1000);
    while everybody
        .iter()
        .any(|test| test.client.outbox().pending_bytes() > 0)
    {
        tokio::task::yield_now().await;
    }
    assert!(everybody.iter().all(|test| test.received().len() > 4000));
}

#[tokio::test]
async fn many_publishers_together_never_deliver_more_than_was_asked_for() {
    let broker = Broker::new();
    let account = broker.global();
    let a = TestClient::new(1);
    assert!(a.subscribe(account, "x", None, "1").end_after(1000));
    let delivered: u32 = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut cache = PublishCache::new();
                    let messages = vec![message("x", b"1"); 10];
                    (0..100)
                        .map(|_| {
                            broker
                                .publish(account, &messages, &mut cache)
                                .iter()
                                .sum::<u32>()
                        })
                        .sum::<u32>()
                })
            })
            .collect();
        publishers
            .into_iter()
            .map(|publisher| publisher.join().unwrap())
            .sum()
    });
    assert_eq!(delivered, 1000);
    assert_eq!(a.received(), "MSG x 1 1\r\n1\r\n".repeat(1000));
    assert_eq!(account.subscription_count(), 0);
}
