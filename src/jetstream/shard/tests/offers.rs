//! Work that is offered to who brings it.

use std::sync::mpsc::TryRecvError;
use std::thread;

use super::*;
use crate::broker::Offer;
use crate::jetstream::core::InfoQuery;
use crate::jetstream::intake::Purpose;

fn published(scene: &Scene, subject: &'static str) -> Inbound {
    Inbound {
        account: Arc::clone(&scene.account),
        tag: Purpose::Publish as u64,
        subject: Bytes::from_static(subject.as_bytes()),
        reply: Bytes::from_static(b"reply.1"),
        headers: Bytes::new(),
        payload: Bytes::from_static(b"x"),
        client: None,
        trace: None,
    }
}

fn offered(scene: &Scene, subject: &'static str) -> Offer {
    let batch = vec![published(scene, subject)];
    let offer = scene.port.deliver_offering(batch);
    offer.expect("there was nothing before")
}

/// Waits until the shard's thread has done all that came, the taking in of the stream too.
fn rest(scene: &Scene) {
    scene.ask(StreamRequest::Info(InfoQuery::default()));
    let (bench, _) = scene.port.offers.as_ref().expect("it has a thread");
    while !bench.is_free() {
        thread::yield_now();
    }
}

fn settled() -> (Scene, Arc<HeldLog>, Receiver<usize>) {
    let (scene, log, submitted) = held();
    rest(&scene);
    (scene, log, submitted)
}

#[test]
fn who_brings_a_little_does_it() {
    let (scene, log, submitted) = settled();
    let offer = offered(&scene, "s.a");
    assert_eq!(submitted.try_recv(), Err(TryRecvError::Empty));
    offer.take();
    assert_eq!(submitted.try_recv(), Ok(1), "it is done when that returns");
    log.commit();
    assert_eq!(scene.heard(), r#"{"stream":"S","seq":1}"#);
}

#[test]
fn what_is_durable_at_once_is_also_acknowledged_by_who_brought_it() {
    let scene = scene(Arc::new(InstantLog));
    rest(&scene);
    for sequence in 1..=3 {
        offered(&scene, "s.a").take();
        let acknowledged = scene.inbox.try_recv().expect("it is when that returns");
        assert_eq!(
            acknowledged.payload,
            format!(r#"{{"stream":"S","seq":{sequence}}}"#)
        );
    }
}

#[test]
fn what_is_not_taken_is_left_to_the_thread() {
    let (scene, log, submitted) = settled();
    drop(offered(&scene, "s.a"));
    assert_eq!(submitted.recv_timeout(PATIENCE), Ok(1));
    // Also when something else stands beside it.
    let offer = offered(&scene, "s.b");
    let info = scene.start(StreamRequest::Info(InfoQuery::default()));
    offer.take();
    assert_eq!(submitted.recv_timeout(PATIENCE), Ok(1));
    log.commit();
    assert!(info.recv_timeout(PATIENCE).is_ok());
}

#[test]
fn much_is_the_threads() {
    let (scene, _log, submitted) = settled();
    let batch = (0..5).map(|_| published(&scene, "s.a")).collect();
    assert!(scene.port.deliver_offering(batch).is_none());
    // The thread decides them together.
    assert_eq!(submitted.recv_timeout(PATIENCE), Ok(1));
}

#[test]
fn what_has_to_be_searched_for_is_the_threads() {
    let (scene, log, submitted) = settled();
    offered(&scene, "s.a").take();
    assert_eq!(submitted.try_recv(), Ok(1));
    log.commit();
    scene.heard();
    rest(&scene);
    let get = |question: &'static str| {
        let mut inbound = published(&scene, "$JS.API.DIRECT.GET.S");
        inbound.tag = Purpose::Direct as u64;
        inbound.payload = Bytes::from_static(question.as_bytes());
        scene.port.deliver_offering(vec![inbound])
    };
    get(r#"{"seq":1}"#).expect("it is little").take();
    let found = scene
        .inbox
        .try_recv()
        .expect("it is answered when that returns");
    assert_eq!(found.payload, "x");
    get(r#"{"next_by_subj":"s.*","seq":1}"#)
        .expect("it looks little")
        .take();
    assert!(scene.heard().ends_with('x'));
}

#[test]
fn who_is_at_work_does_what_comes_meanwhile() {
    let (scene, log, submitted) = settled();
    let first = offered(&scene, "s.a");
    thread::scope(|scope| {
        // Whoever submits waits here.
        let gate = log.entries.lock();
        let at_work = scope.spawn(move || first.take());
        while scene.port.inbox.len() > 0 {
            thread::yield_now();
        }
        offered(&scene, "s.b").take();
        assert_eq!(submitted.try_recv(), Err(TryRecvError::Empty));
        drop(gate);
        at_work.join().expect("it works");
    });
    let done: Vec<usize> = submitted.try_iter().collect();
    assert_eq!(done, [1, 1], "both are done when the first one returns");
}

#[test]
fn nothing_is_forgotten_however_it_is_brought() {
    const EACH: usize = 2000;
    let scene = scene(Arc::new(InstantLog));
    scene.ask(StreamRequest::Info(InfoQuery::default()));
    thread::scope(|scope| {
        for number in 0..3 {
            let scene = &scene;
            let port = scene.port.clone();
            let message = published(scene, "s.a");
            scope.spawn(move || {
                for at in 0..EACH {
                    let offer = port.deliver_offering(vec![message.clone()]);
                    if (at + number) % 5 > 0
                        && let Some(offer) = offer
                    {
                        offer.take();
                    }
                }
            });
        }
    });
    for _ in 0..3 * EACH {
        scene.heard();
    }
}
