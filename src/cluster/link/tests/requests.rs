//! Questions and answers.

use super::super::frame::{Frame, Status};
use super::*;

const ECHO: RequestKind = RequestKind(1);
const HOLD: RequestKind = RequestKind(2);
const STREAM: RequestKind = RequestKind(3);

fn echo(node: &Node) {
    let handler = |request: Request| match request.body.as_ref() {
        b"refuse" => request.responder.refuse("not today"),
        b"drop" => drop(request),
        _ => {
            let answer = [request.from.as_bytes(), b": ", &request.body].concat();
            request.responder.answer(answer.into());
        }
    };
    node.links.handle(ECHO, Arc::new(handler));
}

/// Keeps the requests without answering them.
fn hold(node: &Node) -> Arc<Mutex<Vec<Request>>> {
    let held = Arc::<Mutex<Vec<Request>>>::default();
    let keep = Arc::clone(&held);
    let handler = move |request| keep.lock().push(request);
    node.links.handle(HOLD, Arc::new(handler));
    held
}

async fn ask(
    node: &Node,
    to: &str,
    kind: RequestKind,
    body: &'static str,
) -> Result<Bytes, LinkError> {
    let asked = node
        .links
        .request(to, Channel::Control, kind, body.into(), PATIENCE);
    soon(asked).await
}

#[tokio::test]
async fn a_request_is_answered_refused_or_told_that_nobody_answers() {
    let (a, b) = pair().await;
    echo(&b);
    let nobody = ask(&a, "c", ECHO, "x").await;
    assert_eq!(nobody, Err(LinkError::NotConnected));
    assert_eq!(ask(&a, "b", ECHO, "x").await, Ok("a: x".into()));
    let refused = Err(LinkError::Refused("not today".to_owned()));
    assert_eq!(ask(&a, "b", ECHO, "refuse").await, refused);
    assert_eq!(ask(&a, "b", ECHO, "drop").await, Err(LinkError::Dropped));
    assert_eq!(ask(&a, "b", HOLD, "x").await, Err(LinkError::NoHandler));
    assert_eq!(ask(&b, "a", ECHO, "x").await, Err(LinkError::NoHandler));
}

#[tokio::test]
async fn many_requests_are_open_at_once_and_each_gets_its_own_answer() {
    let (a, b) = pair().await;
    echo(&b);
    let asking = (0..500).map(|number| {
        let links = Arc::clone(&a.links);
        tokio::spawn(async move {
            let body = Bytes::from(number.to_string());
            let asked = links.request("b", Channel::Control, ECHO, body, PATIENCE);
            assert_eq!(asked.await, Ok(Bytes::from(format!("a: {number}"))));
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        soon(asking).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_whose_time_is_up_is_withdrawn() {
    let (a, b) = pair().await;
    let held = hold(&b);
    let body = Bytes::from_static(b"x");
    let at_most = Duration::from_millis(100);
    let asked = a.links.request("b", Channel::Control, HOLD, body, at_most);
    assert_eq!(soon(asked).await, Err(LinkError::TimedOut));
    until("the peer knows", || {
        held.lock()
            .iter()
            .any(|request| request.responder.is_cancelled())
    })
    .await;
    let late = held.lock().pop().unwrap();
    assert!(late.deadline <= std::time::Instant::now());
    late.responder.answer("too late".into());
}

#[tokio::test]
async fn a_request_that_is_open_when_the_link_breaks_is_lost() {
    let (a, b) = pair().await;
    let held = hold(&b);
    let links = Arc::clone(&a.links);
    let asking = tokio::spawn(async move {
        let body = Bytes::from_static(b"x");
        links
            .request("b", Channel::Control, HOLD, body, PATIENCE)
            .await
    });
    until("it is held", || held.lock().len() == 1).await;
    b.links.close();
    assert_eq!(soon(asking).await.unwrap(), Err(LinkError::Lost));
    assert!(held.lock()[0].responder.is_cancelled());
}

#[tokio::test]
async fn no_more_requests_are_open_than_the_limits_allow() {
    let mut options = quick("a", 1);
    options.limits.asked_max = 2;
    let a = Node::start(options).await;
    let mut options = quick("b", 1);
    options.limits.answering_max = 1;
    let b = Node::start(options).await;
    a.links.know(&[b.known()]);
    a.linked_with("b").await;
    let held = hold(&b);
    let asking = |body: &'static str| {
        let links = Arc::clone(&a.links);
        let body = Bytes::from(body);
        tokio::spawn(async move {
            links
                .request("b", Channel::Control, HOLD, body, PATIENCE)
                .await
        })
    };
    let one = asking("1");
    until("it is held", || held.lock().len() == 1).await;
    assert_eq!(ask(&a, "b", HOLD, "2").await, Err(LinkError::PeerBusy));
    let three = tokio::spawn({
        let links = Arc::clone(&a.links);
        async move {
            let ask = |_| links.request("b", Channel::Bulk, HOLD, Bytes::new(), PATIENCE);
            futures_util::future::join_all((0..3).map(ask)).await
        }
    });
    until("two more are held", || held.lock().len() >= 2).await;
    for request in std::mem::take(&mut *held.lock()) {
        request.responder.answer("done".into());
    }
    assert_eq!(soon(one).await.unwrap(), Ok("done".into()));
    let three = soon(three).await.unwrap();
    assert_eq!(three[2], Err(LinkError::Busy));
}

#[tokio::test]
async fn what_is_longer_than_a_frame_is_refused_on_either_side() {
    let (a, b) = pair_with(|options| options.limits.frame_bytes_max = 4096).await;
    let long = |request: Request| request.responder.answer(vec![0; 5000].into());
    b.links.handle(HOLD, Arc::new(long));
    assert_eq!(ask(&a, "b", HOLD, "x").await, Err(LinkError::AnswerTooLong));
    let body = Bytes::from(vec![0; 4096]);
    let asked = a.links.request("b", Channel::Control, HOLD, body, PATIENCE);
    let (bytes, max) = (4096, 4096);
    assert_eq!(soon(asked).await, Err(LinkError::TooLong { bytes, max }));
}

/// Answers with so many bytes as the request says, and counts what was handed over.
fn streams(node: &Node) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let handler = move |request: Request| {
        let counter = Arc::clone(&counter);
        let Ok(wanted) = String::from_utf8_lossy(&request.body).parse::<usize>() else {
            return request.responder.refuse("no number");
        };
        let Ok(mut slices) = request.responder.into_slices() else {
            return;
        };
        tokio::spawn(async move {
            for begin in (0..wanted).step_by(100_000) {
                let bytes = (begin..wanted.min(begin + 100_000)).map(|at| (at % 251) as u8);
                let bytes: Bytes = bytes.collect::<Vec<u8>>().into();
                let length = bytes.len();
                if slices.send(bytes).await.is_err() {
                    return;
                }
                counter.fetch_add(length, Ordering::Relaxed);
            }
            slices.finish().await;
        });
    };
    node.links.handle(STREAM, Arc::new(handler));
    sent
}

fn ask_for(node: &Node, bytes: usize) -> Slices {
    let body = Bytes::from(bytes.to_string());
    node.links
        .request_slices("b", STREAM, body, PATIENCE)
        .unwrap()
}

async fn collect(slices: &mut Slices) -> Result<Vec<u8>, LinkError> {
    let mut all = Vec::new();
    while let Some(slice) = soon(slices.next()).await? {
        all.extend_from_slice(&slice);
    }
    Ok(all)
}

#[tokio::test]
async fn an_answer_in_slices_arrives_whole_and_no_faster_than_it_is_taken() {
    let (a, b) = pair_with(|options| options.limits.window_bytes = 500_000).await;
    let sent = streams(&b);
    let mut slices = ask_for(&a, 5_000_000);
    until("the window is full", || {
        sent.load(Ordering::Relaxed) >= 400_000
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(sent.load(Ordering::Relaxed) <= 500_000);
    let all = collect(&mut slices).await.unwrap();
    assert_eq!(all.len(), 5_000_000);
    assert!(
        all.iter()
            .enumerate()
            .all(|(at, byte)| *byte == (at % 251) as u8)
    );
    let mut none = ask_for(&a, 0);
    assert_eq!(collect(&mut none).await, Ok(Vec::new()));
}

#[tokio::test]
async fn who_asks_for_one_answer_gets_no_slices_and_a_refusal_ends_them() {
    let (a, b) = pair().await;
    streams(&b);
    assert_eq!(ask(&a, "b", STREAM, "10").await, Err(LinkError::Dropped));
    let body = Bytes::from_static(b"many");
    let mut refused = a.links.request_slices("b", STREAM, body, PATIENCE).unwrap();
    let expected = Err(LinkError::Refused("no number".to_owned()));
    assert_eq!(collect(&mut refused).await, expected);
}

#[tokio::test]
async fn slices_that_nobody_takes_any_more_are_not_made_any_more() {
    let (a, b) = pair_with(|options| options.limits.window_bytes = 300_000).await;
    let sent = streams(&b);
    let mut slices = ask_for(&a, 1_000_000_000);
    soon(slices.next()).await.unwrap();
    drop(slices);
    let mut before = usize::MAX;
    let begun = std::time::Instant::now();
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < PATIENCE);
    }
    assert!(before < 10_000_000);
    let mut cut = ask_for(&a, 1_000_000_000);
    soon(cut.next()).await.unwrap();
    b.links.close();
    assert_eq!(collect(&mut cut).await, Err(LinkError::Lost));
}

#[tokio::test]
async fn slices_are_held_to_the_rate() {
    let (a, b) = pair_with(|options| {
        options.limits.slices_bytes_per_second = Some(2_000_000);
    })
    .await;
    streams(&b);
    let begun = std::time::Instant::now();
    let all = collect(&mut ask_for(&a, 1_000_000)).await.unwrap();
    assert_eq!(all.len(), 1_000_000);
    assert!(
        begun.elapsed() >= Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_peer_that_sends_more_slices_than_there_is_room_for_is_given_up() {
    let mut options = quick("a", 1);
    options.limits.window_bytes = 10_000;
    let a = Node::start(options).await;
    let mut peer = RawPeer::linked(a.port, "b", "bulk").await;
    until("it stands", || a.links.is_connected("b", Channel::Bulk)).await;
    let mut slices = ask_for(&a, 1);
    let Frame::Request { id, .. } = peer.frame().await else {
        panic!("a request comes first");
    };
    for _ in 0..3 {
        let body = Bytes::from(vec![0; 4000]);
        peer.say(Frame::Slice { id, body }).await;
    }
    peer.closed().await;
    assert_eq!(collect(&mut slices).await, Err(LinkError::Lost));
}

#[tokio::test]
async fn answers_and_credit_that_belong_to_nothing_are_passed_over() {
    let a = Node::start(quick("a", 1)).await;
    echo(&a);
    let mut peer = RawPeer::linked(a.port, "b", "control").await;
    let (id, body) = (77, Bytes::new());
    peer.say(Frame::Answer {
        id,
        status: Status::Done,
        body: body.clone(),
    })
    .await;
    peer.say(Frame::Slice { id, body }).await;
    peer.say(Frame::Credit {
        id,
        bytes: u32::MAX,
    })
    .await;
    peer.say(Frame::Cancel { id }).await;
    peer.say(Frame::Pong(u64::MAX)).await;
    let (kind, deadline_ms, window_bytes) = (ECHO.0, u32::MAX, u32::MAX);
    let body = Bytes::from_static(b"x");
    peer.say(Frame::Request {
        id,
        kind,
        deadline_ms,
        window_bytes,
        body,
    })
    .await;
    let answer = Frame::Answer {
        id,
        status: Status::Done,
        body: "b: x".into(),
    };
    assert_eq!(peer.frame().await, answer);
}
