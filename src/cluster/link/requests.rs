//! Questions to another server, and answers to its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use raft::group::Channel;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::frame::{Frame, Status};
use super::queue::NotQueued;
use super::session::Session;
use super::slices::{Incoming, Outgoing, SliceSender};

/// Bytes of an answer or a request beside its body, at most.
const FIELDS_BYTES_MAX: usize = 64;

/// What a request is about; who asks and who handles agree on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKind(pub u16);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no link to that server. It was not asked.
    #[error("no link to the server")]
    NotConnected,
    /// Too much waits to be sent. It was not asked.
    #[error("too much waits to be sent to the server")]
    Full,
    /// Too many questions to that server are open. It was not asked.
    #[error("too many requests to the server are open")]
    Busy,
    /// The request is longer than a link carries. It was not asked.
    #[error("a request of {bytes} bytes, where {max} are the most")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// What is carried.
        max: usize,
    },
    /// No answer came in time. What was asked for may have been done.
    #[error("no answer in time")]
    TimedOut,
    /// The link broke. What was asked for may have been done.
    #[error("the link broke before an answer came")]
    Lost,
    /// It is not done; with the peer's words.
    #[error("{0}")]
    Refused(String),
    /// The peer has nobody who handles such requests.
    #[error("the server does not know such requests")]
    NoHandler,
    /// The peer handles too many requests.
    #[error("the server is busy")]
    PeerBusy,
    /// The peer's handler gave up.
    #[error("the server gave no answer")]
    Dropped,
    /// The answer is longer than a link carries.
    #[error("the answer is longer than a link carries")]
    AnswerTooLong,
}

impl LinkError {
    /// Whether what was asked for may have been done, or may be yet.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::TimedOut | Self::Lost | Self::Dropped | Self::AnswerTooLong => true,
            Self::NotConnected
            | Self::Full
            | Self::Busy
            | Self::TooLong { .. }
            | Self::Refused(_)
            | Self::NoHandler
            | Self::PeerBusy => false,
        }
    }
}

/// A request of a peer.
pub struct Request {
    /// The name of the peer.
    pub from: Arc<str>,
    /// The channel it came over.
    pub channel: Channel,
    /// What it wants.
    pub body: Bytes,
    /// Nobody waits for an answer after this; for slices, that is how long the next one is waited for.
    pub deadline: Instant,
    /// Takes the answer.
    pub responder: Responder,
}

/// Handles the requests of a kind.
pub trait Handler: Send + Sync + 'static {
    /// A request has come, in order with all that comes over its channel. Called by the task that reads the link: hands on and does not block.
    fn handle(&self, request: Request);
}

impl<F: Fn(Request) + Send + Sync + 'static> Handler for F {
    fn handle(&self, request: Request) {
        self(request);
    }
}

/// The peer broke the rules; the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misbehaved {
    #[error("more slices than there was room for")]
    Window,
}

/// Questions without an answer yet.
pub(super) struct Asked {
    max: usize,
    next_id: AtomicU64,
    /// `None` once the connection has ended.
    open: Mutex<Option<HashMap<u64, Waiting>>>,
}

enum Waiting {
    One(oneshot::Sender<Result<Bytes, LinkError>>),
    Slices(Incoming),
}

impl Asked {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            next_id: AtomicU64::new(1),
            open: Mutex::new(Some(HashMap::new())),
        }
    }

    fn begin(&self, waiting: Waiting) -> Result<u64, LinkError> {
        let mut open = self.open.lock();
        let open = open.as_mut().ok_or(LinkError::NotConnected)?;
        if open.len() >= self.max {
            return Err(LinkError::Busy);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        open.insert(id, waiting);
        Ok(id)
    }

    /// Nobody waits any more; true when the answer had not come.
    fn forget(&self, id: u64) -> bool {
        let mut open = self.open.lock();
        open.as_mut().is_some_and(|open| open.remove(&id).is_some())
    }

    /// An answer came. One that nobody waits for any more is passed over.
    pub fn answered(&self, id: u64, status: Status, body: Bytes) {
        let waiting = {
            let mut open = self.open.lock();
            open.as_mut().and_then(|open| open.remove(&id))
        };
        let answer = match status {
            Status::Done => Ok(body),
            Status::Refused => Err(LinkError::Refused(
                String::from_utf8_lossy(&body).into_owned(),
            )),
            Status::NoHandler => Err(LinkError::NoHandler),
            Status::Busy => Err(LinkError::PeerBusy),
            Status::Dropped => Err(LinkError::Dropped),
            Status::TooLong => Err(LinkError::AnswerTooLong),
        };
        match waiting {
            // Whoever gave up waiting a moment ago does not need it.
            Some(Waiting::One(sender)) => drop(sender.send(answer)),
            Some(Waiting::Slices(incoming)) => incoming.end(answer.map(drop)),
            None => {}
        }
    }

    /// A slice of an answer came.
    pub fn slice(&self, id: u64, body: Bytes) -> Result<(), Misbehaved> {
        let open = self.open.lock();
        let waiting = open.as_ref().and_then(|open| open.get(&id));
        match waiting {
            Some(Waiting::Slices(incoming)) if !incoming.slice(body) => Err(Misbehaved::Window),
            _ => Ok(()),
        }
    }

    /// The connection has ended.
    pub fn fail_all(&self) {
        let open = self.open.lock().take();
        for (_, waiting) in open.into_iter().flatten() {
            match waiting {
                Waiting::One(sender) => drop(sender.send(Err(LinkError::Lost))),
                Waiting::Slices(incoming) => incoming.end(Err(LinkError::Lost)),
            }
        }
    }
}

/// Requests of the peer that are being handled.
pub(super) struct Answering {
    max: usize,
    open: Mutex<HashMap<u64, Arc<Outgoing>>>,
}

impl Answering {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            open: Mutex::default(),
        }
    }

    fn begin(&self, id: u64, window_bytes: u32) -> Option<Arc<Outgoing>> {
        let mut open = self.open.lock();
        if open.len() >= self.max || open.contains_key(&id) {
            return None;
        }
        let outgoing = Arc::new(Outgoing::new(window_bytes));
        open.insert(id, Arc::clone(&outgoing));
        Some(outgoing)
    }

    fn done(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// The peer takes so many bytes more.
    pub fn credit(&self, id: u64, bytes: u32) {
        let outgoing = self.open.lock().get(&id).cloned();
        if let Some(outgoing) = outgoing {
            outgoing.credit(bytes);
        }
    }

    /// The peer does not wait any more.
    pub fn cancel(&self, id: u64) {
        let outgoing = self.open.lock().remove(&id);
        if let Some(outgoing) = outgoing {
            outgoing.cancel();
        }
    }

    /// The connection has ended.
    pub fn cancel_all(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        for outgoing in open.into_values() {
            outgoing.cancel();
        }
    }
}

/// A question that is withdrawn when nobody waits for it any more.
pub(super) struct Open {
    session: Arc<Session>,
    id: u64,
}

impl Open {
    /// Lets the peer send so many bytes of slices more.
    pub fn credit(&self, bytes: u32) {
        let credit = Frame::Credit { id: self.id, bytes };
        // A connection that takes no credit any more has ended.
        let _ = self.session.queue.push_short(credit);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.session.asked.forget(self.id) {
            let cancel = Frame::Cancel { id: self.id };
            let _ = self.session.queue.push_short(cancel);
        }
    }
}

/// What is asked.
pub(super) struct Question {
    pub kind: RequestKind,
    pub body: Bytes,
    pub deadline: Duration,
}

impl Session {
    /// Asks, and waits for the answer.
    pub async fn ask(self: Arc<Self>, question: Question) -> Result<Bytes, LinkError> {
        let (sender, receiver) = oneshot::channel();
        let deadline = question.deadline;
        let _open = self.send_question(Waiting::One(sender), question, 0)?;
        match timeout(deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LinkError::Lost),
            Err(_) => Err(LinkError::TimedOut),
        }
    }

    /// Asks for an answer in slices.
    pub fn ask_for_slices(
        self: Arc<Self>,
        incoming: Incoming,
        question: Question,
        window_bytes: u32,
    ) -> Result<Open, LinkError> {
        self.send_question(Waiting::Slices(incoming), question, window_bytes)
    }

    fn send_question(
        self: Arc<Self>,
        waiting: Waiting,
        question: Question,
        window_bytes: u32,
    ) -> Result<Open, LinkError> {
        let (bytes, max) = (
            question.body.len(),
            self.core.options.limits.frame_bytes_max,
        );
        if bytes.saturating_add(FIELDS_BYTES_MAX) > max {
            return Err(LinkError::TooLong { bytes, max });
        }
        let id = self.asked.begin(waiting)?;
        let asked = self.queue.push(Frame::Request {
            id,
            kind: question.kind.0,
            deadline_ms: u32::try_from(question.deadline.as_millis()).unwrap_or(u32::MAX),
            window_bytes,
            body: question.body,
        });
        if let Err(error) = asked {
            self.asked.forget(id);
            return Err(match error {
                NotQueued::Full => LinkError::Full,
                NotQueued::Closed => LinkError::NotConnected,
            });
        }
        Ok(Open { session: self, id })
    }

    /// A request of the peer came.
    pub fn requested(
        self: &Arc<Self>,
        id: u64,
        kind: u16,
        deadline_ms: u32,
        window_bytes: u32,
        body: Bytes,
    ) {
        let handler = self.core.handler(RequestKind(kind));
        let Some(handler) = handler else {
            return self.short_answer(id, Status::NoHandler);
        };
        let Some(outgoing) = self.answering.begin(id, window_bytes) else {
            return self.short_answer(id, Status::Busy);
        };
        handler.handle(Request {
            from: Arc::clone(&self.peer.name),
            channel: self.channel,
            body,
            deadline: Instant::now() + Duration::from_millis(deadline_ms.into()),
            responder: Responder {
                session: Arc::clone(self),
                id,
                outgoing: Some(outgoing),
            },
        });
    }

    fn short_answer(&self, id: u64, status: Status) {
        let answer = Frame::Answer {
            id,
            status,
            body: Bytes::new(),
        };
        // When not even this fits, the asker's time runs out.
        let _ = self.queue.push_short(answer);
    }

    /// A request of the peer is about to be answered.
    pub fn answering_done(&self, id: u64) {
        self.answering.done(id);
    }

    /// Answers a request of the peer.
    pub fn answer(&self, id: u64, status: Status, body: Bytes) {
        self.answering.done(id);
        let max = self.core.options.limits.frame_bytes_max;
        if body.len().saturating_add(FIELDS_BYTES_MAX) > max {
            return self.short_answer(id, Status::TooLong);
        }
        let queued = self.queue.push(Frame::Answer { id, status, body });
        if queued == Err(NotQueued::Full) {
            self.short_answer(id, Status::Busy);
        }
    }
}

/// Takes the answer to a request. Without one the peer is told that there is none.
pub struct Responder {
    session: Arc<Session>,
    id: u64,
    /// `None` once answered.
    outgoing: Option<Arc<Outgoing>>,
}

impl Responder {
    /// Answers.
    pub fn answer(mut self, body: Bytes) {
        self.close(Status::Done, body);
    }

    /// Says that it is not done, and why.
    pub fn refuse(mut self, reason: impl Into<String>) {
        self.close(Status::Refused, Bytes::from(reason.into()));
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.outgoing
            .as_ref()
            .is_none_or(|outgoing| outgoing.is_cancelled())
    }

    /// Answers in slices; gives the responder back when the peer wants one answer.
    pub fn into_slices(mut self) -> Result<SliceSender, Self> {
        let wanted = self.outgoing.as_ref().is_some_and(|o| o.has_window());
        if !wanted {
            return Err(self);
        }
        match self.outgoing.take() {
            Some(outgoing) => Ok(SliceSender::new(
                Arc::clone(&self.session),
                self.id,
                outgoing,
            )),
            None => Err(self),
        }
    }

    fn close(&mut self, status: Status, body: Bytes) {
        if let Some(outgoing) = self.outgoing.take()
            && !outgoing.is_cancelled()
        {
            self.session.answer(self.id, status, body);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.close(Status::Dropped, Bytes::new());
    }
}
