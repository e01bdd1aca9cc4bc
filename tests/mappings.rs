//! What is published to one subject and goes to another, as the configuration says.

mod common;

use common::{Server, ServerOptions, Wire, connect_as, next_subject, round_trip};

const CONFIG: &str = r#"
    mappings {
      "old.*.*": "new.{{wildcard(2)}}.$1"
      "part.*": "part.{{partition(3,1)}}.$1"
      split: [ {dest: "half.a", weight: 50%}, {destination: "half.b", weight: 50} ]
      lossy: {dest: lossy, weight: 0}
      "geo.*": [ {dest: "east.$1", weight: 100, cluster: east}, {dest: "any.$1", weight: 100} ]
    }
    accounts {
      A {
        users: [ {user: a, password: a, permissions: { publish: ["to.>", "_INBOX.>"] }} ]
        mappings: { in: "to.b", bad: "no.b" }
      }
      B { users: [ {user: b, password: b} ] }
    }
    authorization { users: [ {user: g, password: g} ] }
"#;

fn server() -> Server {
    ServerOptions::default().config(CONFIG).start()
}

#[tokio::test]
async fn what_is_published_goes_where_the_mapping_says() {
    let server = server();
    let client = connect_as(&server, "g").await;
    let mut all = client.subscribe(">").await.unwrap();
    round_trip(&client).await;
    next_subject(&mut all).await;
    let large = bytes::Bytes::from(vec![b'x'; 100_000]);
    for (from, to) in [
        ("old.x.y", "new.y.x"),
        ("part.foo", "part.0.foo"),
        ("geo.x", "any.x"),
        ("other", "other"),
    ] {
        client.publish(from, "small".into()).await.unwrap();
        client.publish(from, large.clone()).await.unwrap();
        assert_eq!(next_subject(&mut all).await, to);
        assert_eq!(next_subject(&mut all).await, to);
    }
}

#[tokio::test]
async fn weights_share_out_and_may_lose_messages() {
    let server = server();
    let client = connect_as(&server, "g").await;
    let mut all = client.subscribe(">").await.unwrap();
    round_trip(&client).await;
    next_subject(&mut all).await;
    for _ in 0..500 {
        client.publish("split", "".into()).await.unwrap();
        client.publish("lossy", "".into()).await.unwrap();
    }
    client.publish("end", "".into()).await.unwrap();
    let mut counts = [0; 2];
    loop {
        match next_subject(&mut all).await.as_str() {
            "half.a" => counts[0] += 1,
            "half.b" => counts[1] += 1,
            "end" => break,
            other => panic!("{other} was to be lost"),
        }
    }
    assert_eq!(counts[0] + counts[1], 500);
    // One in 10^9 runs is further off than this.
    assert!(
        counts.iter().all(|count| (180..=320).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn permissions_and_no_responders_are_about_where_it_goes() {
    let server = server();
    let mut wire = Wire::connect(server.address());
    wire.expect("\r\n");
    wire.send(
        "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"a\",\"headers\":true,\"no_responders\":true}\r\n\
         SUB _INBOX.x 1\r\nPUB in _INBOX.x 0\r\n\r\nPUB bad 0\r\n\r\n",
    );
    let heard = wire.expect("Permissions Violation for Publish to \"no.b\"");
    assert!(heard.contains("Nats-Subject: to.b"), "{heard}");
}

#[tokio::test]
async fn an_account_is_not_touched_by_the_mappings_of_another() {
    let server = server();
    let (a, b) = (
        connect_as(&server, "a").await,
        connect_as(&server, "b").await,
    );
    let mut in_a = a.subscribe(">").await.unwrap();
    let mut in_b = b.subscribe(">").await.unwrap();
    round_trip(&b).await;
    next_subject(&mut in_b).await;
    a.flush().await.unwrap();
    a.publish("in", "".into()).await.unwrap();
    b.publish("in", "".into()).await.unwrap();
    assert_eq!(next_subject(&mut in_a).await, "to.b");
    assert_eq!(next_subject(&mut in_b).await, "in");
}
