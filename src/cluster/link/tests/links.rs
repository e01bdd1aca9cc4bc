//! How links come to be, break, and come back.

use super::*;

#[tokio::test]
async fn two_servers_have_one_connection_per_channel_that_the_lesser_name_dialled() {
    let (a, b) = pair().await;
    for channel in [Channel::Control, Channel::Bulk] {
        let (there, here) = (a.statistics("b", channel), b.statistics("a", channel));
        assert_eq!((there.connections, here.connections), (1, 1));
        assert!(there.connected_since.is_some());
        a.send("b", channel, "to b");
        b.send("a", channel, "to a");
        until("both heard of each other", || {
            b.heard.from("a", channel) == ["to b"] && a.heard.from("b", channel) == ["to a"]
        })
        .await;
    }
    until("the round trip is known", || {
        a.statistics("b", Channel::Control).round_trip.is_some()
    })
    .await;
    let names: Vec<_> = a.links.connected();
    assert_eq!(names, [Arc::<str>::from("b")]);
    assert_eq!(a.links.statistics()[0].server_id.as_deref(), Some("Nb1"));
}

#[tokio::test]
async fn dials_that_cross_leave_one_connection() {
    for _ in 0..10 {
        let (a, b) = pair_with(|options| options.timing.other_dials_within = Duration::ZERO).await;
        // Whatever was dialled twice is sorted out by the time that frames pass in both directions for a while.
        let mut sent = 0;
        let settled = || {
            let connected =
                |node: &Node, other| node.statistics(other, Channel::Control).connections;
            (connected(&a, "b"), connected(&b, "a"))
        };
        let mut before = settled();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            sent += 1;
            a.send("b", Channel::Control, format!("{sent}"));
            let now = settled();
            if now == before {
                break;
            }
            before = now;
            assert!(sent < 20, "connections keep replacing each other");
        }
        until("the last frame arrives", || {
            b.heard.from("a", Channel::Control).last() == Some(&Bytes::from(format!("{sent}")))
        })
        .await;
        assert!(before.0 <= 3 && before.1 <= 3, "{before:?}");
    }
}

#[tokio::test]
async fn the_greater_name_dials_when_only_it_knows_where() {
    let (a, b) = (
        Node::start(quick("a", 1)).await,
        Node::start(quick("b", 1)).await,
    );
    b.links.know(&[a.known()]);
    a.linked_with("b").await;
    b.linked_with("a").await;
    a.send("b", Channel::Control, "x");
    until("it arrives", || {
        b.heard.from("a", Channel::Control).len() == 1
    })
    .await;
}

#[tokio::test]
async fn three_servers_hear_each_other_by_name() {
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(quick(name, 1)).await);
    }
    let known: Vec<_> = nodes.iter().map(Node::known).collect();
    for node in &nodes {
        // Its own name is among them, as a router would tell it.
        node.links.know(&known);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.linked_with(&other.name).await;
            let said = format!("{} to {}", node.name, other.name);
            node.send(&other.name, Channel::Control, said.clone());
            until("it arrives from whom it came", || {
                other.heard.from(&node.name, Channel::Control) == [said.clone()]
            })
            .await;
        }
        assert_eq!(node.links.connected().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_starts_anew_is_linked_again_and_the_loss_is_told() {
    for restarted in ["a", "b"] {
        let (a, b) = pair().await;
        let (old, stays) = if restarted == "a" { (a, b) } else { (b, a) };
        let port = old.port;
        let mut changes = stays.links.changes();
        changes.borrow_and_update();
        old.stop();
        soon(changes.changed()).await.unwrap();
        until("the loss is told", || {
            stays.heard.losses.load(Ordering::Relaxed) > 0
        })
        .await;
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let new = Node::start_on(quick(restarted, 2), listener);
        new.links.know(&[stays.known()]);
        new.linked_with(&stays.name).await;
        stays.linked_with(restarted).await;
        stays.send(restarted, Channel::Control, "again");
        until("it arrives", || {
            new.heard.from(&stays.name, Channel::Control) == ["again"]
        })
        .await;
        let run = format!("N{restarted}2");
        assert_eq!(stays.links.statistics()[0].server_id, Some(run));
    }
}

#[tokio::test]
async fn a_connection_that_swallows_everything_is_given_up_and_made_anew() {
    let (a, b) = (
        Node::start(quick("a", 1)).await,
        Node::start(quick("b", 1)).await,
    );
    let proxy = Proxy::before(b.port).await;
    a.links.know(&[b.known_at(proxy.port)]);
    a.linked_with("b").await;
    proxy.swallow(true);
    let lost = |node: &Node| node.heard.losses.load(Ordering::Relaxed) > 0;
    until("both sides find out", || lost(&a) && lost(&b)).await;
    proxy.swallow(false);
    a.linked_with("b").await;
    until("frames pass again", || {
        a.send("b", Channel::Control, "x");
        !b.heard.from("a", Channel::Control).is_empty()
    })
    .await;
}

#[tokio::test]
async fn after_a_loss_order_holds_and_nothing_comes_twice() {
    let (a, b) = (
        Node::start(quick("a", 1)).await,
        Node::start(quick("b", 1)).await,
    );
    let proxy = Proxy::before(b.port).await;
    a.links.know(&[b.known_at(proxy.port)]);
    b.links.know(&[a.known()]);
    a.linked_with("b").await;
    for number in 0_u32..40_000 {
        a.send("b", Channel::Control, number.to_le_bytes().to_vec());
        if number % 2000 == 1999 {
            proxy.cut();
        }
        if number % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    a.linked_with("b").await;
    let last = u32::MAX.to_le_bytes().to_vec();
    until("the last one arrives", || {
        a.send("b", Channel::Control, last.clone());
        b.heard
            .from("a", Channel::Control)
            .last()
            .map(|f| f.to_vec())
            == Some(last.clone())
    })
    .await;
    let numbers: Vec<u32> = b
        .heard
        .from("a", Channel::Control)
        .iter()
        .map(|frame| u32::from_le_bytes(frame[..4].try_into().unwrap()))
        .filter(|number| *number != u32::MAX)
        .collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]));
    assert!(numbers.len() > 1000, "most arrive: {}", numbers.len());
    assert!(a.statistics("b", Channel::Control).connections > 2);
}

#[tokio::test]
async fn a_server_that_left_is_not_dialled_until_it_is_known_again() {
    let (a, b) = (
        Node::start(quick("a", 1)).await,
        Node::start(quick("b", 1)).await,
    );
    a.links.know(&[b.known()]);
    a.linked_with("b").await;
    a.links.know(&[]);
    assert!(a.links.is_connected("b", Channel::Control), "it stands");
    let known = b.known();
    b.stop();
    until("it is gone", || {
        !a.links.is_connected("b", Channel::Control)
    })
    .await;
    a.send("b", Channel::Control, "nobody");
    assert_eq!(a.statistics("b", Channel::Control).frames_dropped, 1);
    let listener = TcpListener::bind(("127.0.0.1", known.addresses[0].port));
    let again = Node::start_on(quick("b", 2), listener.await.unwrap());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!a.links.is_connected("b", Channel::Control));
    a.links.know(&[again.known()]);
    a.linked_with("b").await;
}
