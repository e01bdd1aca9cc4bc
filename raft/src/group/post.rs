//! What goes to other servers: messages of all groups gathered into frames per peer, and requests that wait for an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::options::{Channel, Outbound};
use super::spec::GroupNumber;
use crate::types::NodeId;
use crate::wire::{Body, Envelope, begin_frame, put_liveness, put_message};

/// The frames being filled, one per peer and channel.
pub(super) struct Post {
    outbound: Arc<dyn Outbound>,
    frame_bytes_max: usize,
    peers: Mutex<Peers>,
    filled: Notify,
}

#[derive(Default)]
struct Peers {
    lanes: HashMap<String, [BytesMut; 2]>,
    /// Peers with something in a lane, in the order in which that came about.
    filled: Vec<String>,
}

impl Post {
    pub fn new(outbound: Arc<dyn Outbound>, frame_bytes_max: usize) -> Self {
        Self {
            outbound,
            frame_bytes_max,
            peers: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Adds a message to the frame that goes to that server next.
    pub fn send(&self, to: &str, channel: Channel, envelope: &Envelope, body: &Body) {
        self.put(to, channel, |frame| put_message(frame, envelope, body));
    }

    /// Tells that server that this one lives, in its `run`.
    pub fn send_liveness(&self, to: &str, run: u64) {
        self.put(to, Channel::Control, |frame| put_liveness(frame, run));
    }

    fn put(&self, to: &str, channel: Channel, put: impl FnOnce(&mut BytesMut)) {
        let mut peers = self.peers.lock();
        let Peers { lanes, filled } = &mut *peers;
        if !lanes.contains_key(to) {
            lanes.insert(to.to_owned(), Default::default());
        }
        let Some(lanes) = lanes.get_mut(to) else {
            return;
        };
        let was_empty = lanes.iter().all(BytesMut::is_empty);
        let [control, bulk] = lanes;
        let lane = match channel {
            Channel::Control => control,
            Channel::Bulk => bulk,
        };
        if lane.is_empty() {
            begin_frame(lane);
        }
        put(lane);
        if lane.len() >= self.frame_bytes_max {
            // Under the lock, so that frames leave in the order in which they were filled.
            self.outbound.send(to, channel, lane.split().freeze());
        } else if was_empty {
            filled.push(to.to_owned());
            self.filled.notify_one();
        }
    }

    /// Hands over what was gathered, whenever the runtime has run what was ready to run: all that is said meanwhile leaves in one frame.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.filled.notified().await;
            tokio::task::yield_now().await;
            self.flush();
        }
    }

    fn flush(&self) {
        let mut peers = self.peers.lock();
        let Peers { lanes, filled } = &mut *peers;
        for peer in filled.drain(..) {
            let Some([control, bulk]) = lanes.get_mut(&peer) else {
                continue;
            };
            for (channel, lane) in [(Channel::Control, control), (Channel::Bulk, bulk)] {
                if !lane.is_empty() {
                    self.outbound.send(&peer, channel, lane.split().freeze());
                }
            }
        }
    }
}

/// Requests that wait for their answers.
#[derive(Default)]
pub(super) struct Calls {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    group: GroupNumber,
    node: NodeId,
    server: String,
    answer: oneshot::Sender<Body>,
}

/// A request under way. Forgotten when dropped.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    pub request: u64,
    pub answer: oneshot::Receiver<Body>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.request);
    }
}

impl Calls {
    /// Begins a request to a node of a group, on that server.
    pub fn begin(&self, group: GroupNumber, node: NodeId, server: &str) -> Call<'_> {
        // 0 is for messages without an answer.
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting {
            group,
            node,
            server: server.to_owned(),
            answer: sender,
        };
        self.waiting.lock().insert(request, waiting);
        Call {
            calls: self,
            request,
            answer,
        }
    }

    /// An answer came from that server. One that nobody waits for is late, and dropped.
    pub fn answered(&self, from: &str, envelope: &Envelope, body: Body) {
        let mut waiting = self.waiting.lock();
        let expected = waiting.get(&envelope.request).is_some_and(|waiting| {
            waiting.group == envelope.group
                && waiting.node == envelope.from
                && waiting.server == from
        });
        if expected && let Some(waiting) = waiting.remove(&envelope.request) {
            // Whoever asked may have gone.
            let _ = waiting.answer.send(body);
        }
    }

    /// What was asked of that server will not be answered.
    pub fn fail(&self, server: &str) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, waiting| waiting.server != server);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Messages, Received};

    #[derive(Default)]
    struct Sent(Mutex<Vec<(String, Channel, Bytes)>>);

    impl Outbound for Sent {
        fn send(&self, to: &str, channel: Channel, frame: Bytes) {
            self.0.lock().push((to.to_owned(), channel, frame));
        }
    }

    fn envelope(request: u64) -> Envelope {
        Envelope {
            group: GroupNumber(1),
            from: 2,
            to: 3,
            request,
        }
    }

    #[test]
    fn what_is_said_between_two_flushes_leaves_in_one_frame_per_peer() {
        let sent = Arc::new(Sent::default());
        let post = Post::new(sent.clone(), 1 << 20);
        let body = Body::TransferAnswer { taken: true };
        for request in 0..5 {
            post.send("b", Channel::Control, &envelope(request), &body);
            post.send("a", Channel::Control, &envelope(request), &body);
        }
        post.send("a", Channel::Bulk, &envelope(9), &body);
        post.flush();
        post.flush();
        let sent = sent.0.lock();
        let frames: Vec<_> = sent
            .iter()
            .map(|(to, channel, frame)| {
                (to.as_str(), *channel, Messages::of(frame.clone()).count())
            })
            .collect();
        let (control, bulk) = (Channel::Control, Channel::Bulk);
        assert_eq!(
            frames,
            [("b", control, 5), ("a", control, 5), ("a", bulk, 1)]
        );
    }

    #[test]
    fn a_full_frame_does_not_wait_for_the_flush() {
        let sent = Arc::new(Sent::default());
        let post = Post::new(sent.clone(), 64);
        let body = Body::Quiet { term: 1, index: 2 };
        for request in 0..4 {
            post.send("a", Channel::Control, &envelope(request), &body);
        }
        let requests: Vec<u64> = sent
            .0
            .lock()
            .iter()
            .flat_map(|(_, _, frame)| Messages::of(frame.clone()))
            .map(|message| match message {
                Ok(Received::OfGroup(envelope, _)) => envelope.request,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(requests, [0, 1, 2, 3]);
    }

    #[test]
    fn only_the_node_that_was_asked_answers() {
        let calls = Calls::default();
        let mut call = calls.begin(GroupNumber(1), 2, "b");
        let answer = || Body::TransferAnswer { taken: true };
        let request = call.request;
        calls.answered("c", &envelope(request), answer());
        calls.answered(
            "b",
            &Envelope {
                from: 7,
                ..envelope(request)
            },
            answer(),
        );
        assert!(call.answer.try_recv().is_err());
        calls.answered("b", &envelope(request), answer());
        assert!(call.answer.try_recv().is_ok());
        drop(call);
        let mut lost = calls.begin(GroupNumber(1), 2, "b");
        calls.fail("b");
        assert_eq!(
            lost.answer.try_recv().err(),
            Some(oneshot::error::TryRecvError::Closed)
        );
    }
}
