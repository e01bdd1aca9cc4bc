//! What clients say to each other, and what they are told.

use super::peer::{QUIET_CONNECT, Server};

#[tokio::test]
async fn what_is_published_comes_back_to_who_subscribed() {
    let server = Server::start().await;
    let mut a = server.quiet().await;
    a.say("SUB a 1\r\nPUB a 2\r\nhi\r\n").await;
    a.hears("MSG a 1 2\r\nhi\r\n").await;
    let mut b = server.quiet().await;
    b.say("HPUB a r 12 14\r\nNATS/1.0\r\n\r\nyo\r\n").await;
    a.hears("HMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nyo\r\n").await;
    a.is_in_silence().await;
    b.is_in_silence().await;
    let traffic = server.clients.broker.traffic().snapshot();
    assert_eq!((traffic.in_messages, traffic.in_bytes), (2, 16));
    assert_eq!((traffic.out_messages, traffic.out_bytes), (2, 16));
}

#[tokio::test]
async fn verbose_clients_hear_ok_before_the_message_they_caused() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    peer.say("CONNECT {\"protocol\":1}\r\n").await;
    peer.hears("+OK\r\n").await;
    peer.greeted().await;
    peer.say("SUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 1\r\nUNSUB 77\r\n")
        .await;
    peer.hears("+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\n+OK\r\n+OK\r\n")
        .await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn clients_without_authorization_need_not_introduce_themselves() {
    let server = Server::start().await;
    let mut peer = server.peer().await;
    peer.say("PING\r\nSUB a 1\r\nPUB a 1\r\nx\r\n").await;
    peer.hears("PONG\r\n+OK\r\n+OK\r\nMSG a 1 1\r\nx\r\n").await;
}

#[tokio::test]
async fn a_large_payload_arrives_whole_however_it_is_cut() {
    let server = Server::start().await;
    let mut a = server.quiet().await;
    let mut b = server.quiet().await;
    b.say("SUB big 7\r\n").await;
    b.is_in_silence().await;
    a.say("SUB big 8\r\n").await;
    let payload: String = (0..1_000_000)
        .map(|at| char::from(b'a' + (at % 26) as u8))
        .collect();
    let message = format!("PUB big {}\r\n{payload}\r\nPING\r\n", payload.len());
    for piece in message.as_bytes().chunks(77_777) {
        a.say(piece).await;
    }
    b.hears(&format!("MSG big 7 {}\r\n{payload}\r\n", payload.len()))
        .await;
    a.hears(&format!(
        "MSG big 8 {}\r\n{payload}\r\nPONG\r\n",
        payload.len()
    ))
    .await;
    for size in [4000, 4096, 4097, 5000, 20_000] {
        let payload = &payload[..size];
        a.say(format!("PUB big {size}\r\n{payload}\r\n")).await;
        b.hears(&format!("MSG big 7 {size}\r\n{payload}\r\n")).await;
        a.hears(&format!("MSG big 8 {size}\r\n{payload}\r\n")).await;
    }
}

#[tokio::test]
async fn nobody_listening_is_told_only_to_who_listens_for_the_reply() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("PUB nobody _INBOX.zz 1\r\nx\r\n").await;
    peer.is_in_silence().await;
    peer.say("SUB _INBOX.a 1\r\nPUB nobody _INBOX.a 1\r\nx\r\n")
        .await;
    peer.hears("HMSG _INBOX.a 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n")
        .await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn subscriptions_end_after_the_deliveries_they_asked_for() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB m 1\r\nUNSUB 1 2\r\nPUB m 1\r\na\r\nPUB m 1\r\nb\r\nPUB m 1\r\nc\r\n")
        .await;
    peer.hears("MSG m 1 1\r\na\r\nMSG m 1 1\r\nb\r\n").await;
    peer.is_in_silence().await;
    peer.say("SUB m 1\r\nPUB m 1\r\na\r\nUNSUB 1 1\r\nPUB m 1\r\nb\r\n")
        .await;
    peer.hears("MSG m 1 1\r\na\r\n").await;
    peer.is_in_silence().await;
    assert_eq!(server.clients.broker.subscription_count(), 0);
}

#[tokio::test]
async fn the_first_subscription_of_a_sid_stands() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB x 1\r\nSUB y 1\r\nPUB x 1\r\na\r\nPUB y 1\r\nb\r\n")
        .await;
    peer.hears("MSG x 1 1\r\na\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test]
async fn clients_that_want_no_echo_hear_only_others() {
    let server = Server::start().await;
    let mut a = server.peer().await;
    a.say("CONNECT {\"verbose\":false,\"echo\":false,\"protocol\":1}\r\n")
        .await;
    a.greeted().await;
    a.say("SUB e 1\r\nPUB e 1\r\nx\r\n").await;
    a.is_in_silence().await;
    let mut b = server.quiet().await;
    b.say("PUB e 1\r\ny\r\n").await;
    a.hears("MSG e 1 1\r\ny\r\n").await;
}

#[tokio::test]
async fn violations_close_with_their_words_or_without_any() {
    let server = Server::start().await;
    let unknown = "-ERR 'Unknown Protocol Operation'\r\n";
    let long = format!("SUB {} 1\r\n", "a".repeat(5000));
    for (said, heard) in [
        ("FOO bar\r\n", unknown),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", unknown),
        ("UNSUB\r\n", unknown),
        ("MSG a 1 1\r\nx\r\n", unknown),
        ("RS+ $G a\r\n", unknown),
        ("LS+ a\r\n", unknown),
        ("A+ $G\r\n", unknown),
        ("PUB a 1\r\nxx\r\nPING\r\n", unknown),
        ("PUB a 1048577\r\n", "-ERR 'Maximum Payload Violation'\r\n"),
        (&long, "-ERR 'maximum control line exceeded'\r\n"),
        ("HPUB h 14 12\r\nNATS/1.0\r\n\r\n\r\n", ""),
        ("PUB a\r\nx\r\n", ""),
        ("PUB a abc\r\nx\r\n", ""),
        ("PUB a -1\r\n", ""),
        ("PUB a 99999999999999\r\n", ""),
        ("SUB a\r\n", ""),
        ("SUB a b c d\r\n", ""),
        ("-ERR 'x'\r\n", ""),
        ("CONNECT {nope}\r\nPING\r\n", ""),
    ] {
        let mut peer = server.quiet().await;
        peer.say(said).await;
        peer.is_closed_with(heard).await;
    }
    for (said, heard) in [
        (
            "CONNECT {\"protocol\":7}\r\nPING\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        (
            "CONNECT {\"verbose\":false,\"no_responders\":true,\"headers\":false}\r\nPING\r\n",
            "-ERR 'no responders requires headers support'\r\n",
        ),
        (
            "CONNECT {\"verbose\":false}\r\nHPUB h 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            "",
        ),
    ] {
        let mut peer = server.peer().await;
        peer.say(said).await;
        peer.is_closed_with(heard).await;
    }
}

#[tokio::test]
async fn bad_subjects_are_refused_and_the_connection_stays() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    for subject in ["a..b", ".a", "a.", "a.>.b"] {
        peer.say(format!("SUB {subject} 1\r\n")).await;
        peer.hears("-ERR 'Invalid Subject'\r\n").await;
    }
    peer.say("SUB a*b 5\r\nPUB a..b 1\r\nx\r\nPUB a.* 1\r\nx\r\n")
        .await;
    peer.is_in_silence().await;
    peer.say("CONNECT {\"pedantic\":true}\r\nPUB a.* 1\r\nx\r\n")
        .await;
    peer.hears("-ERR 'Invalid Publish Subject'\r\n").await;
    for reply in ["$JS.ACK.x", "_GR_.x", "_R_.x"] {
        peer.say(format!("PUB a {reply} 1\r\nx\r\n")).await;
        peer.hears(&format!(
            "-ERR 'Permissions Violation for Publish with Reply of \"{reply}\"'\r\n"
        ))
        .await;
    }
    peer.is_in_silence().await;
}

#[tokio::test]
async fn a_second_connect_starts_over_without_a_second_info() {
    let server = Server::start().await;
    let mut peer = server.quiet().await;
    peer.say("SUB a 1\r\n").await;
    peer.say(QUIET_CONNECT).await;
    peer.say("PUB a 1\r\nx\r\n").await;
    peer.is_in_silence().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn messages_of_one_publisher_stay_in_order_for_everybody() {
    const PUBLISHERS: usize = 4;
    const MESSAGES: usize = 2000;
    let server = Server::start().await;
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let mut listener = server.quiet().await;
        listener.say("SUB order.* 1\r\n").await;
        listener.is_in_silence().await;
        listeners.push(tokio::spawn(async move {
            let mut next = [0; PUBLISHERS];
            while next != [MESSAGES; PUBLISHERS] {
                let line = listener.line().await;
                let publisher: usize = line["MSG order.".len()..][..1].parse().unwrap();
                let number: usize = listener.line().await.trim_end().parse().unwrap();
                assert_eq!(number, next[publisher]);
                next[publisher] += 1;
            }
        }));
    }
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let mut peer = server.quiet().await;
        publishers.push(tokio::spawn(async move {
            for batch in 0..MESSAGES / 100 {
                let ops: String = (batch * 100..(batch + 1) * 100)
                    .map(|n| n.to_string())
                    .map(|n| format!("PUB order.{publisher} {}\r\n{n}\r\n", n.len()))
                    .collect();
                peer.say(ops).await;
            }
            peer.is_in_silence().await;
        }));
    }
    for task in publishers.into_iter().chain(listeners) {
        task.await.unwrap();
    }
}
