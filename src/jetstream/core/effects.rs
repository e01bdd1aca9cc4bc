//! What a step of the core wants done: plain values for the shell to carry out, in order.

use bytes::{Bytes, BytesMut};

use super::request::{Outgoing, StreamReply};

/// What the leader's shell knows of the world outside. Only decisions ask it, never the application of an entry.
pub trait World {
    /// Whether anybody listens on a literal subject of the stream's account.
    fn interested(&self, subject: &[u8]) -> bool;
    /// Whether anybody hears what is delivered to a subject: who has subscribed to it by its name, in that queue group where one is
    /// named.
    fn is_heard(&self, subject: &[u8], group: &[u8]) -> bool;
    /// A number nobody can guess.
    fn random(&self) -> u64;
}

/// Something the operator or a client may want to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advisory {
    /// A consumer was created.
    ConsumerCreated {
        /// Its name.
        consumer: String,
    },
    /// A consumer was removed.
    ConsumerDeleted {
        /// Its name.
        consumer: String,
    },
    /// A consumer was paused or resumed.
    ConsumerPaused {
        /// Its name.
        consumer: String,
        /// Until when, `None` when it was resumed.
        until_ns: Option<i64>,
    },
    /// A message was delivered as often as it may.
    DeliveriesExceeded {
        /// By this consumer.
        consumer: String,
        /// Which message.
        stream_sequence: u64,
        /// How often.
        deliveries: u64,
    },
    /// A client wants a message again.
    Naked {
        /// From this consumer.
        consumer: String,
        /// Which delivery.
        consumer_sequence: u64,
        /// Which message.
        stream_sequence: u64,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// A message will not be delivered again.
    Terminated {
        /// By this consumer.
        consumer: String,
        /// Which delivery.
        consumer_sequence: u64,
        /// Which message.
        stream_sequence: u64,
        /// How often it was delivered.
        deliveries: u64,
        /// Why.
        reason: String,
    },
    /// A message was acknowledged: one of those that are sampled.
    Acknowledged {
        /// To this consumer.
        consumer: String,
        /// Which delivery.
        consumer_sequence: u64,
        /// Which message.
        stream_sequence: u64,
        /// How often it was delivered.
        deliveries: u64,
        /// How long after its delivery.
        ack_time_ns: i64,
    },
    /// A client was pinned.
    Pinned {
        /// To this consumer.
        consumer: String,
        /// In this group.
        group: String,
        /// Under this id.
        id: String,
    },
    /// A client is no longer pinned.
    Unpinned {
        /// To this consumer.
        consumer: String,
        /// In this group.
        group: String,
        /// Why: `admin` or `timeout`.
        reason: &'static str,
    },
    /// A batch was not committed.
    BatchAbandoned {
        /// Its id.
        batch: String,
        /// Why.
        reason: &'static str,
    },
    /// A message cannot be read and was passed over.
    Damaged {
        /// By this consumer.
        consumer: String,
        /// Which message.
        stream_sequence: u64,
        /// What failed.
        reason: String,
    },
}

/// A consumer the shell shall know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerChange {
    /// It exists, perhaps with another deliver subject than before.
    Present {
        /// Its id within the stream.
        id: u64,
        /// Its name.
        name: String,
        /// Whose interest to watch; empty for a pull consumer.
        deliver_subject: Bytes,
        /// The queue group on the deliver subject, empty for none.
        deliver_group: Bytes,
    },
    /// It is gone.
    Absent {
        /// Its id within the stream.
        id: u64,
        /// Its name.
        name: String,
    },
}

/// What a step wants done, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to send.
    pub outgoing: Vec<Outgoing>,
    /// Answers to requests, by the token they came with.
    pub replies: Vec<(u64, StreamReply)>,
    /// What happened.
    pub advisories: Vec<Advisory>,
    /// Consumers that came, changed or went.
    pub consumers: Vec<ConsumerChange>,
    /// Messages of sources that could not be taken: by which attempt, and the origin's sequence.
    pub(crate) refused: Vec<(u64, u64)>,
    /// Whether what was in flight is lost, and with it what sources and mirrors had brought.
    pub(crate) lost: bool,
    /// Whether the stream has another configuration now.
    pub reconfigured: bool,
    /// One buffer that many small payloads and subjects share.
    pub(crate) scratch: BytesMut,
}

impl Effects {
    /// Writes a small value into the shared buffer.
    pub(crate) fn small(&mut self, write: impl FnOnce(&mut BytesMut)) -> Bytes {
        if self.scratch.capacity() < 256 {
            self.scratch.reserve(16 * 1024);
        }
        write(&mut self.scratch);
        self.scratch.split().freeze()
    }

    /// What became of messages that were copied: whether those in flight are lost, and which were refused.
    pub(crate) fn take_copying(&mut self) -> (bool, Vec<(u64, u64)>) {
        let lost = std::mem::take(&mut self.lost);
        (lost, std::mem::take(&mut self.refused))
    }

    /// Sends an empty message.
    pub(crate) fn confirm(&mut self, to: Bytes) {
        self.outgoing.push(Outgoing {
            subject: to.clone(),
            to,
            ..Outgoing::default()
        });
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
            && self.replies.is_empty()
            && self.advisories.is_empty()
            && self.consumers.is_empty()
    }
}

/// Appends a decimal number.
pub(crate) fn push_number(into: &mut BytesMut, value: impl itoa::Integer) {
    into.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
