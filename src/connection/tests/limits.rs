//! What a connection may use, how it falls behind, and how it ends.

use std::time::Duration;

use tokio::time::timeout;

use super::peer::{PATIENCE, Server};
use crate::broker::{CloseReason, Outgoing, PublishCache};

#[tokio::test]
async fn ended_subscriptions_are_forgotten() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    for sid in 0..1000 {
        peer.say(format!("SUB m {sid}\r\nUNSUB {sid} 1\r\nPUB m 0\r\n\r\n"))
            .await;
        peer.hears(&format!("MSG m {sid} 0\r\n\r\n")).await;
    }
    let client = server.clients.all().remove(0);
    assert!(client.subscription_count() <= 64);
}

#[tokio::test]
async fn an_ended_connection_leaves_no_subscription_behind() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\nSUB b.> q 2\r\n").await;
    peer.is_in_silence().await;
    assert_eq!(server.clients.broker.subscription_count(), 2);
    drop(peer);
    server
        .clients
        .close_all(CloseReason::ServerShutdown, PATIENCE)
        .await;
    assert_eq!(server.clients.broker.subscription_count(), 0);
    assert_eq!(server.clients.connected_count(), 0);
}

#[tokio::test]
async fn closing_the_server_sends_what_still_waits() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\n").await;
    peer.is_in_silence().await;
    let broker = &server.clients.broker;
    let outgoing = Outgoing {
        subject: "a".into(),
        payload: vec![b'x'; 300_000].into(),
        ..Outgoing::default()
    };
    let messages = vec![outgoing; 10];
    broker.publish(broker.global(), &messages, &mut PublishCache::new());
    let (_, ()) = tokio::join!(
        server
            .clients
            .close_all(CloseReason::ServerShutdown, PATIENCE),
        async {
            for _ in 0..10 {
                peer.hears(&format!("MSG a 1 300000\r\n{}\r\n", "x".repeat(300_000)))
                    .await;
            }
            peer.is_closed_with("").await;
        }
    );
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_its_publisher_goes_on() {
    let server = Server::with(|options| options.limits.pending_bytes_max = 1 << 20).await;
    let mut slow = server.quiet().await;
    slow.say("SUB a 1\r\n").await;
    slow.is_in_silence().await;
    let mut fast = server.quiet().await;
    let burst = format!("PUB a 1000\r\n{}\r\n", "x".repeat(1000)).repeat(1000);
    while server.clients.broker.traffic().snapshot().slow_consumers == 0 {
        fast.say(&burst).await;
        fast.is_in_silence().await;
    }
    fast.is_in_silence().await;
    timeout(PATIENCE, async {
        while server.clients.connected_count() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(server.clients.broker.subscription_count(), 0);
}

#[tokio::test]
async fn a_publisher_waits_a_little_for_a_receiver_that_falls_behind() {
    let server = Server::with(|options| options.limits.pending_bytes_max = 1 << 20).await;
    let mut slow = server.quiet().await;
    slow.say("SUB a 1\r\n").await;
    slow.is_in_silence().await;
    let mut fast = server.quiet().await;
    let burst = format!("PUB a 1000\r\n{}\r\n", "x".repeat(1000)).repeat(100);
    while server.clients.broker.traffic().snapshot().slow_consumers == 0 {
        fast.say(&burst).await;
        fast.is_in_silence().await;
    }
    assert!(server.clients.broker.traffic().snapshot().stalled_clients > 0);
}

#[tokio::test]
async fn receivers_that_fall_behind_miss_messages_when_publishers_must_not_wait() {
    let server = Server::with(|options| {
        options.limits.pending_bytes_max = 1 << 20;
        options.no_fast_producer_stall = true;
    })
    .await;
    let mut slow = server.quiet().await;
    slow.say("SUB a 1\r\n").await;
    slow.is_in_silence().await;
    let mut fast = server.quiet().await;
    let burst = format!("PUB a 1000\r\n{}\r\n", "x".repeat(1000)).repeat(100);
    let sent = |server: &Server| {
        let traffic = server.clients.broker.traffic().snapshot();
        (traffic.in_messages, traffic.out_messages)
    };
    while sent(&server).0 == sent(&server).1 {
        fast.say(&burst).await;
        fast.is_in_silence().await;
    }
    let traffic = server.clients.broker.traffic().snapshot();
    assert_eq!((traffic.slow_consumers, traffic.stalled_clients), (0, 0));
    assert_eq!(server.clients.connected_count(), 2);
}

#[tokio::test]
async fn the_server_admits_no_more_than_it_may() {
    let server = Server::with(|options| options.limits.connections_max = Some(1)).await;
    let _first = server.quiet().await;
    let mut second = server.peer().await;
    second
        .is_closed_with("-ERR 'maximum connections exceeded'\r\n")
        .await;
}

#[tokio::test]
async fn a_client_holds_no_more_subscriptions_than_it_may() {
    let server = Server::with(|options| {
        options.limits.subscriptions_max = Some(2);
        options.limits.subscription_tokens_max = Some(3);
    })
    .await;
    let mut peer = server.quiet().await;
    peer.say("SUB a.b.c.d 1\r\n").await;
    peer.hears("-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n")
        .await;
    peer.say("SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n").await;
    peer.hears("-ERR 'maximum subscriptions exceeded'\r\n")
        .await;
    peer.say("UNSUB 1\r\nSUB c 3\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_pings_is_stale() {
    let server = Server::with(|options| {
        options.timing.ping_interval = Duration::from_secs(4);
    })
    .await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"verbose\":false}\r\n").await;
    peer.is_closed_with("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n")
        .await;
    assert_eq!(
        server.clients.broker.traffic().snapshot().stale_connections,
        1
    );
}
