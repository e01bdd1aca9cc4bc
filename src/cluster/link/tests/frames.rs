//! Frames under pressure.

use super::*;

#[tokio::test]
async fn frames_that_are_sent_together_arrive_together_and_in_order() {
    let (a, b) = pair().await;
    let expected: Vec<Bytes> = (0..3000)
        .map(|number: usize| Bytes::from(vec![u8::try_from(number % 251).unwrap(); number % 700]))
        .collect();
    for frame in &expected {
        a.send("b", Channel::Control, frame.clone());
    }
    until("all arrived", || {
        b.heard.frames.lock().len() == expected.len()
    })
    .await;
    assert_eq!(b.heard.from("a", Channel::Control), expected);
    let (sent, received) = (
        a.statistics("b", Channel::Control),
        b.statistics("a", Channel::Control),
    );
    assert!(sent.frames_sent >= 3000 && received.frames_received >= 3000);
    assert!(received.bytes_received >= expected.iter().map(|f| f.len() as u64).sum());
    assert_eq!(sent.frames_dropped, 0);
}

#[tokio::test]
async fn long_frames_pass_up_to_the_limit() {
    let (a, b) = pair_with(|options| options.limits.frame_bytes_max = 4 << 20).await;
    let long = Bytes::from(vec![7; (4 << 20) - 1]);
    a.send("b", Channel::Bulk, long.clone());
    until("it arrived", || b.heard.from("a", Channel::Bulk).len() == 1).await;
    assert_eq!(b.heard.from("a", Channel::Bulk)[0], long);
    a.send("b", Channel::Bulk, vec![7; 4 << 20]);
    assert_eq!(a.statistics("b", Channel::Bulk).frames_dropped, 1);
    a.send("b", Channel::Bulk, "short");
    until("the link stands", || {
        b.heard.from("a", Channel::Bulk).len() == 2
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody_and_is_given_up() {
    let mut options = quick("a", 1);
    options.limits.control_queue_bytes_max = 1 << 20;
    options.timing.silent_after = PATIENCE;
    options.timing.stalled_after = Duration::from_millis(300);
    let a = Node::start(options).await;
    let mut slow = RawPeer::linked(a.port, "slow", "control").await;
    let frame = Bytes::from(vec![0; 64 * 1024]);
    // More than the system holds by itself.
    for _ in 0..1000 {
        let begun = std::time::Instant::now();
        a.send("slow", Channel::Control, frame.clone());
        assert!(begun.elapsed() < Duration::from_secs(1), "a send waited");
        tokio::task::yield_now().await;
    }
    let statistics = a.statistics("slow", Channel::Control);
    assert!(statistics.frames_dropped > 500, "{statistics:?}");
    until("it is given up", || {
        !a.links.is_connected("slow", Channel::Control)
    })
    .await;
    assert_eq!(a.heard.losses.load(Ordering::Relaxed), 1);
    slow.closed().await;
}

#[tokio::test]
async fn what_is_no_frame_ends_the_link() {
    let a = Node::start(quick("a", 1)).await;
    let broken: [&[u8]; 4] = [
        &[0xff, 0xff, 0xff, 0xff, 1],
        &[0, 0, 0, 0],
        &[1, 0, 0, 0, 99],
        &[2, 0, 0, 0, 7, 1],
    ];
    for bytes in broken {
        let mut peer = RawPeer::linked(a.port, "odd", "control").await;
        peer.stream.write_all(bytes).await.unwrap();
        peer.closed().await;
        until("the link is gone", || {
            !a.links.is_connected("odd", Channel::Control)
        })
        .await;
    }
}

#[tokio::test]
async fn what_an_older_connection_still_holds_is_not_handed_on() {
    let a = Node::start(quick("a", 1)).await;
    let mut old = RawPeer::linked(a.port, "twice", "control").await;
    old.say(super::super::frame::Frame::Raft("old".into()))
        .await;
    until("it arrives", || a.heard.frames.lock().len() == 1).await;
    let mut new = RawPeer::linked(a.port, "twice", "control").await;
    old.say(super::super::frame::Frame::Raft("late".into()))
        .await;
    new.say(super::super::frame::Frame::Raft("new".into()))
        .await;
    until("the new one arrives", || a.heard.frames.lock().len() == 2).await;
    old.closed().await;
    let heard = a.heard.from("twice", Channel::Control);
    assert_eq!(heard, ["old", "new"]);
    assert_eq!(a.heard.losses.load(Ordering::Relaxed), 1);
}
