use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::broker::tests::{TestClient, message};
use crate::broker::{Message, Origin, Outgoing, Owner, PublishCache};
use crate::config::Options;
use crate::config::parser::Process;

/// A broker whose accounts share what this configuration says.
pub(super) fn broker(text: &str) -> Broker {
    let broker = Broker::new();
    share(&broker, text);
    broker
}

fn share(broker: &Broker, text: &str) {
    let options = Options::from_text(&format!("accounts {{ {text} }}"), &Process)
        .unwrap_or_else(|error| panic!("{error}"));
    for account in &options.accounts {
        let known = broker.ensure_account(&account.name);
        known.set_mappings(account.mappings.clone());
    }
    let names = ServerNames {
        server: "S".into(),
        cluster: "C".into(),
    };
    broker.set_names(names);
    broker.share(&options.accounts);
}

pub(super) fn account(broker: &Broker, name: &str) -> Arc<Account> {
    broker.account(name).expect("an account")
}

pub(super) fn publish(broker: &Broker, name: &str, outgoing: Outgoing) -> u32 {
    let account = account(broker, name);
    broker.publish(&account, &[outgoing], &mut PublishCache::new())[0]
}

fn request(subject: &'static str, reply: &'static str, payload: &'static [u8]) -> Outgoing {
    Outgoing {
        reply: Bytes::from_static(reply.as_bytes()),
        ..message(subject, payload)
    }
}

/// The reply subject of the first message of what a client received.
fn reply_of(received: &str) -> String {
    let line = received.lines().next().expect("a line");
    let words: Vec<&str> = line.split(' ').collect();
    words[3].to_owned()
}

pub(super) fn answer(reply: &str, payload: &'static [u8]) -> Outgoing {
    Outgoing {
        subject: Bytes::copy_from_slice(reply.as_bytes()),
        payload: Bytes::from_static(payload),
        ..Outgoing::default()
    }
}

const STREAMS: &str = r#"
    A { exports [{stream: "s.>"}] }
    B { imports [{stream: {account: A, subject: "s.>"}, prefix: "a"}] }"#;

#[tokio::test]
async fn imported_streams_are_heard_under_their_name_here_and_as_narrowly_as_they_are_asked_for() {
    let broker = broker(STREAMS);
    let b = account(&broker, "B");
    let all = TestClient::new(1);
    let one = TestClient::new(2);
    let other = TestClient::new(3);
    all.subscribe(&b, "a.s.>", None, "1");
    let narrow = one.subscribe(&b, "*.s.x", None, "1");
    other.subscribe(&b, "s.>", None, "1");
    assert_eq!(publish(&broker, "A", message("s.x", b"1")), 2);
    assert_eq!(publish(&broker, "A", message("s.y.z", b"2")), 1);
    assert_eq!(
        all.received(),
        "MSG a.s.x 1 1\r\n1\r\nMSG a.s.y.z 1 1\r\n2\r\n"
    );
    assert_eq!(one.received(), "MSG a.s.x 1 1\r\n1\r\n");
    assert_eq!(other.received(), "");
    // What is published in the importing account stays there.
    assert_eq!(publish(&broker, "B", message("a.s.x", b"3")), 2);
    let a = account(&broker, "A");
    assert_eq!(a.subscription_count(), 2);
    b.remove(&narrow);
    assert_eq!(a.subscription_count(), 1);
}

#[tokio::test]
async fn an_imported_stream_counts_towards_the_end_of_its_subscription() {
    let broker = broker(STREAMS);
    let b = account(&broker, "B");
    let client = TestClient::new(1);
    let subscription = client.subscribe(&b, "a.s.>", None, "1");
    assert!(subscription.end_after(2));
    assert_eq!(publish(&broker, "B", message("a.s.x", b"1")), 1);
    assert_eq!(publish(&broker, "A", message("s.x", b"2")), 1);
    assert_eq!(publish(&broker, "A", message("s.x", b"3")), 0);
    assert!(subscription.is_closed());
    assert_eq!(account(&broker, "A").subscription_count(), 0);
    assert_eq!(b.subscription_count(), 0);
}

#[tokio::test]
async fn a_group_has_members_in_several_accounts() {
    let broker = broker(STREAMS);
    let (a, b) = (TestClient::new(1), TestClient::new(2));
    a.subscribe(&account(&broker, "A"), "s.x", Some("q"), "1");
    b.subscribe(&account(&broker, "B"), "a.s.x", Some("q"), "1");
    for _ in 0..64 {
        assert_eq!(publish(&broker, "A", message("s.x", b"m")), 1);
    }
    let (of_a, of_b) = (a.received(), b.received());
    assert!(of_a.contains("MSG s.x 1") && of_b.contains("MSG a.s.x 1"));
    let count = of_a.matches("MSG").count() + of_b.matches("MSG").count();
    assert_eq!(count, 64);
}

#[tokio::test]
async fn another_configuration_moves_the_shadows() {
    let broker = broker(STREAMS);
    let client = TestClient::new(1);
    client.subscribe(&account(&broker, "B"), ">", None, "1");
    share(
        &broker,
        r#"A { exports [{stream: "s.>"}, {stream: "t"}] }
           B { imports [{stream: {account: A, subject: "s.>"}, prefix: "b"}, {stream: {account: A, subject: "t"}}] }"#,
    );
    assert_eq!(publish(&broker, "A", message("s.x", b"1")), 1);
    assert_eq!(publish(&broker, "A", message("t", b"2")), 1);
    assert_eq!(
        client.received(),
        "MSG b.s.x 1 1\r\n1\r\nMSG t 1 1\r\n2\r\n"
    );
    share(&broker, "A {}, B {}");
    assert_eq!(publish(&broker, "A", message("s.x", b"1")), 0);
    assert_eq!(account(&broker, "A").subscription_count(), 0);
}

const SERVICES: &str = r#"
    A { exports [
          {service: "one.*"}
          {service: "many", response_type: stream, response_threshold: "10s"}
        ] }
    B { imports [
          {service: {account: A, subject: "one.*"}, to: "ask.*"}
          {service: {account: A, subject: "many"}}
        ] }"#;

#[tokio::test]
async fn a_question_is_answered_once_and_its_way_back_is_closed() {
    let broker = broker(SERVICES);
    let (a, b) = (account(&broker, "A"), account(&broker, "B"));
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    asks.subscribe(&b, "inbox", None, "9");
    // Nobody answers yet, and nothing is kept of the question.
    assert_eq!(publish(&broker, "B", request("ask.x", "inbox", b"?")), 0);
    assert!(a.pending_replies().is_empty());
    answers.subscribe(&a, "one.*", None, "1");
    assert_eq!(publish(&broker, "B", request("ask.x", "inbox", b"?")), 1);
    let received = answers.received();
    let reply = reply_of(&received);
    assert!(received.starts_with("HMSG one.x 1 _R_."), "{received}");
    assert!(
        received.ends_with("Nats-Request-Info: {\"acc\":\"B\"}\r\n\r\n?\r\n"),
        "{received}"
    );
    assert!(a.has_interest(&reply));
    assert_eq!(publish(&broker, "A", answer(&reply, b"!")), 1);
    assert_eq!(asks.received(), "MSG inbox 9 1\r\n!\r\n");
    assert_eq!(publish(&broker, "A", answer(&reply, b"again")), 0);
    assert!(a.pending_replies().is_empty() && !a.has_interest(&reply));
    // Without a reply subject there is nothing to keep.
    assert_eq!(publish(&broker, "B", message("ask.y", b"tell")), 1);
    assert!(answers.received().starts_with("HMSG one.y 1 "));
    assert!(a.pending_replies().is_empty());
}

#[tokio::test]
async fn a_streamed_answer_ends_with_an_empty_message_or_when_nobody_hears_it() {
    let broker = broker(SERVICES);
    let (a, b) = (account(&broker, "A"), account(&broker, "B"));
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    answers.subscribe(&a, "many", Some("workers"), "1");
    for last in [&b""[..], &b"unheard"[..]] {
        let inbox = asks.subscribe(&b, "inbox", None, "9");
        assert_eq!(publish(&broker, "B", request("many", "inbox", b"?")), 1);
        let reply = reply_of(&answers.received());
        assert_eq!(publish(&broker, "A", answer(&reply, b"1")), 1);
        assert_eq!(publish(&broker, "A", answer(&reply, b"2")), 1);
        assert_eq!(a.pending_replies().len(), 1);
        if !last.is_empty() {
            b.remove(&inbox);
            assert!(!a.has_interest(&reply));
        }
        publish(&broker, "A", answer(&reply, last));
        assert!(a.pending_replies().is_empty());
        b.remove(&inbox);
    }
    let received = asks.received();
    assert_eq!(received.matches("MSG inbox 9").count(), 5, "{received}");
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_let_through() {
    let broker = broker(
        r#"A { exports [{service: "s", response_threshold: "1ms"}] }
           B { imports [{service: {account: A, subject: "s"}}] }"#,
    );
    let (a, b) = (account(&broker, "A"), account(&broker, "B"));
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    asks.subscribe(&b, "inbox", None, "9");
    answers.subscribe(&a, "s", None, "1");
    assert_eq!(publish(&broker, "B", request("s", "inbox", b"?")), 1);
    let reply = reply_of(&answers.received());
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(publish(&broker, "A", answer(&reply, b"!")), 0);
    assert_eq!(publish(&broker, "B", request("s", "inbox", b"?")), 1);
    std::thread::sleep(Duration::from_millis(2));
    broker.expire_replies();
    assert!(a.pending_replies().is_empty());
}

#[tokio::test]
async fn questions_go_through_several_accounts_and_answers_come_back_through_all() {
    let broker = broker(
        r#"A { exports [{service: "a"}], mappings { a: "mapped" } }
           B { exports [{service: "b"}], imports [{service: {account: A, subject: "a"}, to: "b", share: true}] }
           C { imports [{service: {account: B, subject: "b"}, to: "c"}] }"#,
    );
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    asks.subscribe(&account(&broker, "C"), "inbox", None, "9");
    answers.subscribe(&account(&broker, "A"), "mapped", None, "1");
    assert_eq!(publish(&broker, "C", request("c", "inbox", b"?")), 1);
    let received = answers.received();
    // Who asks was not shared at first; where it is was, on the way.
    let info = r#"{"acc":"C","svc":"B","server":"S","cluster":"C"}"#;
    assert!(received.contains(info), "{received}");
    assert_eq!(publish(&broker, "A", answer(&reply_of(&received), b"!")), 1);
    assert_eq!(asks.received(), "MSG inbox 9 1\r\n!\r\n");
}

#[tokio::test]
async fn who_asks_is_told_in_full_when_the_import_shares_it() {
    let broker = broker(
        r#"A { exports [{service: "s"}] }
           B { imports [{service: {account: A, subject: "s"}, share: true}] }"#,
    );
    let b = account(&broker, "B");
    let (asks, answers) = (TestClient::new(7), TestClient::new(2));
    answers.subscribe(&account(&broker, "A"), "s", None, "1");
    let info = asks.client.info();
    let origin = Origin {
        client: &asks.client,
        info: &info,
        echo: true,
        passes_over_pressed: false,
    };
    let forged = b"NATS/1.0\r\nNats-Request-Info: {}\r\nKeep: this\r\n\r\n";
    // As a large message comes: all of it in one frame.
    let frame = Bytes::from([&b"s"[..], forged, &[b'x'; 8192], b"\r\n"].concat());
    let message = Message {
        subject: &frame[..1],
        reply: b"",
        headers: &frame[1..=forged.len()],
        payload: &frame[1 + forged.len()..frame.len() - 2],
        owner: Owner::Frame(&frame),
        trace: None,
    };
    let mut delivery = crate::broker::Delivery::default();
    assert_eq!(
        delivery.publish(&b, &message, Some(&origin), broker.traffic()),
        1
    );
    delivery.hand_over(broker.traffic());
    let received = answers.received();
    let head = received.split("xxxx").next().unwrap_or_default();
    assert!(head.contains("Keep: this\r\n"), "{head}");
    assert_eq!(head.matches("Nats-Request-Info").count(), 1, "{head}");
    for part in [
        r#"{"start":"1970-01-01T00:00:00Z","host":"127.0.0.1","id":7,"acc":"B","#,
        r#""server":"S","cluster":"C","kind":"Client","client_type":"nats"}"#,
    ] {
        assert!(head.contains(part), "{head}");
    }
    assert_eq!(received.matches('x').count(), 8192);
}

#[tokio::test]
async fn what_is_asked_from_another_account_is_no_stream_for_a_third() {
    let broker = broker(
        r#"A { exports [{service: "s"}, {stream: "s"}] }
           B { imports [{service: {account: A, subject: "s"}}] }
           C { imports [{stream: {account: A, subject: "s"}}] }"#,
    );
    let hears = TestClient::new(1);
    hears.subscribe(&account(&broker, "C"), "s", None, "1");
    assert_eq!(publish(&broker, "A", message("s", b"own")), 1);
    assert_eq!(publish(&broker, "B", message("s", b"asked")), 0);
    assert_eq!(hears.received(), "MSG s 1 3\r\nown\r\n");
}

#[tokio::test]
async fn services_that_change_places_are_never_asked_both() {
    // Many, so that taking them up takes its time.
    const SERVICES: usize = 64;
    let config = |moved: usize| {
        let export = |at| format!(r#"{{service: "x{at}"}}"#);
        let import = |at| {
            let local = (at + moved) % SERVICES;
            format!(r#"{{service: {{account: A, subject: "x{at}"}}, to: "local{local}"}}"#)
        };
        let exports: Vec<_> = (0..SERVICES).map(export).collect();
        let imports: Vec<_> = (0..SERVICES).map(import).collect();
        let (exports, imports) = (exports.join(", "), imports.join(", "));
        format!("A {{ exports [{exports}] }}, B {{ imports [{imports}] }}")
    };
    let broker = broker(&config(0));
    let answers = TestClient::new(1);
    answers.subscribe(&account(&broker, "A"), ">", None, "1");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(publish(&broker, "B", message("local0", b"?")));
            }
            most
        });
        for moved in 0..50 {
            share(&broker, &config(moved));
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(asking.join().expect("it asks"), 1);
    });
}

#[tokio::test]
async fn the_account_of_the_server_is_told_where_those_are_who_ask_by_the_name_that_holds_then() {
    let text = r#"A { exports [{service: "s"}] }
        SYS { exports [{service: "s"}] }
        B { imports [{service: {account: A, subject: "s"}, to: "a"}
                     {service: {account: SYS, subject: "s"}, to: "sys"}] }
        C { imports [{service: {account: A, subject: "s"}, to: "a", share: true}] }"#;
    let broker = Broker::new().with_system_account("SYS");
    share(&broker, text);
    let answers = TestClient::new(1);
    answers.subscribe(&account(&broker, "A"), "s", None, "1");
    answers.subscribe(&account(&broker, "SYS"), "s", None, "1");
    let told = |name: &str, subject: &'static str| {
        assert_eq!(publish(&broker, name, message(subject, b"?")), 1);
        let received = answers.received();
        let info = received.split("Nats-Request-Info: ").nth(1).expect("told");
        info.lines().next().expect("a line").to_owned()
    };
    assert_eq!(told("B", "a"), r#"{"acc":"B"}"#);
    let placed = r#"{"acc":"B","server":"S","cluster":"C"}"#;
    assert_eq!(told("B", "sys"), placed);
    broker.set_cluster_name("D");
    // Also where nothing is imported anew.
    let placed = r#"{"acc":"C","server":"S","cluster":"D"}"#;
    assert_eq!(told("C", "a"), placed);
}

#[tokio::test]
async fn a_message_of_a_fast_batch_is_known_as_one_behind_an_import_and_hears_all_that_is_said_of_it()
 {
    let broker = broker(SERVICES);
    let (a, b) = (account(&broker, "A"), account(&broker, "B"));
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    asks.subscribe(&b, "inbox.>", None, "9");
    answers.subscribe(&a, "one.*", None, "1");
    let reply = "inbox.id.10.ok.1.0.$FI";
    assert_eq!(publish(&broker, "B", request("ask.x", reply, b"?")), 1);
    let received = answers.received();
    let way = reply_of(&received);
    assert!(way.starts_with("_R_.") && way.ends_with(".id.10.ok.1.0.$FI"));
    let info = format!(r#"Nats-Request-Info: {{"acc":"B","reply":"{reply}"}}"#);
    assert!(received.contains(&info), "{received}");
    assert!(a.has_interest(&way));
    for _ in 0..2 {
        assert_eq!(publish(&broker, "A", answer(&way, b"!")), 1);
    }
    let heard = format!("MSG {reply} 9 1\r\n!\r\n");
    assert_eq!(asks.received(), [&*heard, &heard].concat());
}
