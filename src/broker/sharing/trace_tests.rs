//! Traced messages that leave their account.

use std::sync::Arc;

use parking_lot::Mutex;

use super::tests::{account, answer, broker, publish};
use crate::broker::message_trace::{
    Asked, ConnectionKind, Ingress, MessageTrace, TraceReport, TraceSink, TraceStep,
};
use crate::broker::permissions::Permissions;
use crate::broker::tests::{TestClient, route_subscription};
use crate::broker::{Broker, Delivery, Message, Owner, RouteSink, Subscription, Target};
use crate::config::options::{Permissions as PermissionsConfig, SubjectPermission};
use crate::protocol::trace::TraceRequest;

/// Keeps what is reported.
#[derive(Default)]
struct Reports(Mutex<Vec<TraceReport>>);

impl TraceSink for Reports {
    fn report(&self, report: TraceReport) {
        self.0.lock().push(report);
    }
}

/// Publishes a message that asks for a report: to how many it went, and what was reported of it.
fn traced(
    broker: &Broker,
    name: &str,
    subject: &str,
    reply: &str,
    more: &str,
) -> (u32, Vec<TraceStep>) {
    let (account, publisher) = (account(broker, name), TestClient::new(99));
    let block = format!("NATS/1.0\r\nNats-Trace-Dest: reports\r\n{more}\r\n");
    let request = TraceRequest::find(block.as_bytes()).expect("it asks");
    let reports = Arc::new(Reports::default());
    let sink: Arc<dyn TraceSink> = reports.clone();
    let ingress = Ingress {
        kind: ConnectionKind::Client,
        client: &publisher.client,
        name: "",
        account: &account,
        subject: subject.as_bytes(),
        message_bytes: block.len(),
    };
    let asked = MessageTrace::begin(request, ingress, Some(&sink), |_| true, || 0, None);
    let Asked::Traced(trace) = asked else {
        panic!("{asked:?}");
    };
    let message = Message {
        subject: subject.as_bytes(),
        reply: reply.as_bytes(),
        headers: block.as_bytes(),
        payload: b"",
        owner: Owner::Buffer,
        trace: Some(&trace),
    };
    let mut delivery = Delivery::default();
    let count = delivery.publish(&account, &message, None, broker.traffic());
    delivery.hand_over(broker.traffic());
    drop(trace);
    let report = reports.0.lock().pop().expect("a report");
    let steps = report.steps.into_iter().skip(1);
    (count, steps.map(|(_, step)| step).collect())
}

const ONLY: &str = "Nats-Trace-Only: 1\r\n";

fn importing(allows: bool) -> Broker {
    broker(&format!(
        r#"A {{ exports [{{stream: "s"}}, {{service: "ask", allow_trace: {allows}}}] }}
           B {{ imports [{{stream: {{account: A, subject: "s"}}, allow_trace: {allows}}}
                         {{service: {{account: A, subject: "ask"}}, to: "question"}}] }}"#
    ))
}

/// The accounts of those that it went out to or passed over, and why.
fn egress(steps: &[TraceStep]) -> Vec<(Option<&str>, Option<&'static str>)> {
    let out = steps.iter().filter_map(|step| match step {
        TraceStep::Egress { account, error, .. } => Some((account.as_deref(), *error)),
        _ => None,
    });
    out.collect()
}

#[tokio::test]
async fn why_somebody_of_another_account_gets_nothing_is_told_where_that_is_allowed() {
    for allows in [true, false] {
        let broker = importing(allows);
        let b = account(&broker, "B");
        let hears = TestClient::new(1);
        let permissions = Permissions::new(&PermissionsConfig {
            subscribe: Some(SubjectPermission {
                deny: vec!["s".into()],
                ..SubjectPermission::default()
            }),
            ..PermissionsConfig::default()
        });
        let permissions = permissions.expect("permissions");
        let denied = Arc::new(Subscription::new(
            "*".into(),
            None,
            Target::Client {
                client: Arc::clone(&hears.client),
                sid: "1".into(),
            },
            permissions.filter_for(b"*", None),
        ));
        b.insert(&denied).expect("a pattern");
        let (count, steps) = traced(&broker, "A", "s", "", "");
        assert_eq!(count, 0);
        let told = [(
            Some("B"),
            Some("Not delivered because subscription denies this subject"),
        )];
        assert_eq!(egress(&steps), told[..usize::from(allows)]);
    }
}

#[tokio::test]
async fn what_is_only_traced_counts_as_delivered_to_those_whose_account_is_not_looked_into() {
    let broker = importing(false);
    let hears = TestClient::new(1);
    hears.subscribe(&account(&broker, "B"), "s", None, "1");
    hears.subscribe(&account(&broker, "B"), "s", Some("q"), "2");
    let (count, steps) = traced(&broker, "A", "s", "", ONLY);
    assert_eq!(count, 2);
    let left = TraceStep::StreamExport {
        account: "B".into(),
        to: "s".into(),
    };
    assert_eq!(steps, [left.clone(), left]);
    assert_eq!(hears.received(), "");
}

#[tokio::test]
async fn reports_on_a_question_have_a_way_back_only_where_the_service_allows_them() {
    for allows in [true, false] {
        let broker = importing(allows);
        let (a, b) = (account(&broker, "A"), account(&broker, "B"));
        let (asks, answers) = (TestClient::new(1), TestClient::new(2));
        asks.subscribe(&b, "reports", None, "9");
        answers.subscribe(&a, "ask", None, "1");
        let (count, steps) = traced(&broker, "B", "question", "", "");
        assert_eq!(count, 1);
        assert_eq!(egress(&steps).len(), usize::from(allows));
        let read = answers.received();
        let named = match allows {
            true => "Nats-Trace-Dest: _R_.",
            false => "Nats-Trace-Dest: trace disabled\r\n",
        };
        assert!(read.contains(named), "{read}");
        // It went to no other server that could report.
        assert!(a.pending_replies().is_empty());
    }
}

#[tokio::test]
async fn reports_of_other_servers_come_back_to_whoever_asked_as_many_as_there_are() {
    let broker = broker(
        r#"A { exports [{service: "a", allow_trace: true}] }
           B { exports [{service: "b", allow_trace: true}]
               imports [{service: {account: A, subject: "a"}, to: "b"}] }
           C { imports [{service: {account: B, subject: "b"}, to: "c"}] }"#,
    );
    let (asks, answers, other) = (TestClient::new(1), TestClient::new(2), TestClient::new(3));
    asks.subscribe(&account(&broker, "C"), "reports", None, "9");
    answers.subscribe(&account(&broker, "A"), "a", None, "1");
    let sink = RouteSink {
        client: Arc::clone(&other.client),
        names_account: true,
        traces: true,
    };
    let remote = Arc::new(route_subscription(&Arc::new(sink), "a", None));
    account(&broker, "A").insert(&remote).expect("a pattern");
    let (count, _) = traced(&broker, "C", "c", "", "");
    assert_eq!(count, 2);
    let sent = other.received();
    let way = sent.split("Nats-Trace-Dest: ").nth(1).expect("a way back");
    let way = way.lines().next().expect("a line");
    assert!(way.starts_with("_R_."), "{sent}");
    for report in [&b"1"[..], b"2"] {
        assert_eq!(publish(&broker, "A", answer(way, report)), 1);
    }
    assert_eq!(
        asks.received(),
        "MSG reports 9 1\r\n1\r\nMSG reports 9 1\r\n2\r\n"
    );
}

#[tokio::test]
async fn an_answer_is_not_followed_to_whoever_asked() {
    let broker = importing(true);
    let (asks, answers) = (TestClient::new(1), TestClient::new(2));
    asks.subscribe(&account(&broker, "B"), "inbox", None, "9");
    answers.subscribe(&account(&broker, "A"), "ask", None, "1");
    traced(&broker, "B", "question", "inbox", "");
    let read = answers.received();
    let way = read.split(' ').nth(3).expect("a reply subject").to_owned();
    let led = TraceStep::ServiceImport {
        account: "B".into(),
        from: way.clone(),
        to: "inbox".into(),
    };
    // What is only traced does not use the way up.
    for (more, count) in [(ONLY, 1), ("", 1), ("", 0)] {
        let (delivered, steps) = traced(&broker, "A", &way, "", more);
        assert_eq!(delivered, count);
        assert_eq!(steps, vec![led.clone(); count as usize]);
    }
    let heard = asks.received();
    assert_eq!(heard.matches("HMSG inbox").count(), 1, "{heard}");
    assert!(heard.contains("Nats-Trace-Dest: trace disabled"), "{heard}");
}
