//! What is asked of a stream, and what it answers: plain values, no JSON, no broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::store::Message;

use super::stream::StreamOutline;
use crate::jetstream::types::{ApiError, ConsumerConfig, ConsumerInfo, StreamConfig, StreamInfo};

/// A management request. Everything is answered with exactly one [`StreamReply`]; answers rest on durable state only.
#[derive(Debug, Clone)]
pub enum StreamRequest {
    /// Configuration and state.
    Info(InfoQuery),
    /// Take this configuration. The caller has checked that the change is allowed.
    Update(Box<StreamConfig>),
    /// Remove messages.
    Purge(PurgeQuery),
    /// Read one message.
    Get(MessageQuery),
    /// Remove one message.
    Delete {
        /// Which one.
        sequence: u64,
        /// Overwrite its bytes on disk as well.
        erase: bool,
    },
    /// Create a consumer, or update one that exists.
    ConsumerCreate(Box<ConsumerCreate>),
    /// Remove a consumer.
    ConsumerDelete {
        /// Its name.
        name: String,
    },
    /// One consumer's configuration and state.
    ConsumerInfo {
        /// Its name.
        name: String,
    },
    /// The names of all consumers, sorted; direct ones are hidden.
    ConsumerNames,
    /// Configuration and state of consumers in name order; direct ones are hidden.
    ConsumerInfos {
        /// How many to leave out.
        offset: usize,
        /// How many to answer at most.
        limit: usize,
    },
    /// How many consumers there are, direct ones too.
    ConsumerCounts,
    /// Stop deliveries until a time, or resume them.
    ConsumerPause {
        /// Its name.
        name: String,
        /// Nanoseconds since the epoch; `None` or a past time resumes.
        until_ns: Option<i64>,
    },
    /// Move a consumer back or forth; sequence 0 is its ack floor.
    ConsumerReset {
        /// Its name.
        name: String,
        /// The next stream sequence it shall deliver.
        sequence: u64,
    },
    /// Everything about the stream but its messages, at this moment.
    Outline,
    /// Messages in order, as many as have room, at least one.
    Messages {
        /// The first sequence to look at.
        from: u64,
        /// The last one.
        upto: u64,
        /// How many bytes of them.
        bytes_max: usize,
    },
    /// Release the client that is pinned.
    ConsumerUnpin {
        /// Its name.
        name: String,
        /// The priority group.
        group: String,
    },
}

impl StreamRequest {
    /// Whether it changes nothing, so that any replica that is current can answer.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Info(_)
                | Self::Get(_)
                | Self::ConsumerInfo { .. }
                | Self::ConsumerNames
                | Self::ConsumerCounts
                | Self::Outline
                | Self::Messages { .. }
                | Self::ConsumerInfos { .. }
        )
    }
}

/// What [`StreamRequest::Info`] asks for beyond the totals.
#[derive(Debug, Clone, Default)]
pub struct InfoQuery {
    /// List the subjects that match, with their counts.
    pub subjects_filter: Option<String>,
    /// Leave out this many of the subjects.
    pub subjects_offset: usize,
    /// List at most this many subjects.
    pub subjects_limit: usize,
    /// List the deleted sequences.
    pub deleted_details: bool,
}

/// What [`StreamRequest::Purge`] removes: what matches the filter, below a sequence or all but the newest `keep`.
#[derive(Debug, Clone, Default)]
pub struct PurgeQuery {
    /// Only these subjects; empty is every subject.
    pub filter: String,
    /// Only sequences below this one; 0 is no bound.
    pub below_sequence: u64,
    /// How many of the newest stay.
    pub keep: u64,
}

/// Which message [`StreamRequest::Get`] is about.
#[derive(Debug, Clone)]
pub enum MessageQuery {
    /// The one with this sequence.
    Sequence(u64),
    /// The newest whose subject matches (wildcards allowed).
    LastBySubject(String),
    /// The first at or after a sequence whose subject matches.
    NextBySubject {
        /// Where to start.
        sequence: u64,
        /// What to match.
        subject: String,
    },
    /// The first at or after a time, optionally of matching subjects.
    AtTime {
        /// Nanoseconds since the epoch.
        time_ns: i64,
        /// What to match; empty is every subject.
        subject: String,
    },
}

/// What a consumer creation request wants to happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConsumerAction {
    /// Create it, or update it when it exists.
    #[default]
    CreateOrUpdate,
    /// Create it; an existing one must be configured the same.
    Create,
    /// Update it; it must exist.
    Update,
}

/// A consumer to create or update.
#[derive(Debug, Clone)]
pub struct ConsumerCreate {
    /// Its name, given or generated.
    pub name: String,
    /// What it is to do, defaults filled in and checked against everything but the stream's other consumers.
    pub config: ConsumerConfig,
    /// What may happen.
    pub action: ConsumerAction,
    /// Whether an existing consumer may change from the first configuration to the second.
    pub check_update: fn(&ConsumerConfig, &ConsumerConfig) -> Result<(), ApiError>,
    /// How many consumers the account allows on this stream; negative is no limit.
    pub consumers_max: i64,
}

/// The answer to a [`StreamRequest`].
#[derive(Debug, Clone)]
pub enum StreamReply {
    /// It was refused.
    Refused(ApiError),
    /// To [`StreamRequest::Info`] and [`StreamRequest::Update`].
    Info {
        /// The stream.
        info: Box<StreamInfo>,
        /// How many subjects match in all, when they were asked for.
        subjects_total: usize,
    },
    /// To [`StreamRequest::Purge`]: how many messages went.
    Purged(u64),
    /// To [`StreamRequest::Get`].
    Message(Message),
    /// To [`StreamRequest::Delete`] and [`StreamRequest::ConsumerDelete`].
    Done,
    /// To [`StreamRequest::ConsumerInfo`] and [`StreamRequest::ConsumerUnpin`].
    Consumer(Box<ConsumerInfo>),
    /// To [`StreamRequest::ConsumerCreate`].
    ConsumerCreated {
        /// The consumer.
        info: Box<ConsumerInfo>,
        /// Whether it did not exist before.
        created: bool,
    },
    /// To [`StreamRequest::Outline`].
    Outline(Box<StreamOutline>),
    /// To [`StreamRequest::Messages`].
    Messages {
        /// Those there are.
        messages: Vec<Message>,
        /// Everything live up to here is among them.
        covered: u64,
    },
    /// To [`StreamRequest::ConsumerNames`].
    ConsumerNames(Vec<String>),
    /// To [`StreamRequest::ConsumerInfos`].
    ConsumerInfos {
        /// The page asked for.
        infos: Vec<ConsumerInfo>,
        /// How many there are in all.
        total: usize,
    },
    /// To [`StreamRequest::ConsumerCounts`]: by how many replicas they count as.
    ConsumerCounts(BTreeMap<usize, u64>),
    /// To [`StreamRequest::ConsumerPause`].
    Paused {
        /// Until when, if still to come.
        until_ns: Option<i64>,
        /// How long that is, in nanoseconds.
        remaining_ns: i64,
    },
    /// To [`StreamRequest::ConsumerReset`].
    Reset {
        /// The consumer.
        info: Box<ConsumerInfo>,
        /// The next stream sequence it delivers.
        sequence: u64,
    },
}

/// A direct get: answered straight to the requester as messages, not as JSON.
#[derive(Debug, Clone)]
pub enum DirectQuery {
    /// One message.
    One {
        /// Which one.
        query: MessageQuery,
        /// Leave out every header.
        no_headers: bool,
    },
    /// Up to `batch` messages from a position on, then an end marker.
    Batch {
        /// The first sequence to look at.
        sequence: u64,
        /// Or the first time to look at.
        time_ns: Option<i64>,
        /// What to match; empty is every subject.
        subject: String,
        /// How many at most; 0 is no bound.
        batch: u64,
        /// How many bytes at most; 0 is the server's bound.
        bytes_max: u64,
    },
    /// The newest message of every subject that matches, then an end marker.
    LastOfEach {
        /// What to match.
        subjects: Vec<String>,
        /// Not beyond this sequence; 0 is no bound.
        upto_sequence: u64,
        /// Not beyond this time.
        upto_time_ns: Option<i64>,
        /// Only from this sequence on; 0 is no bound.
        from_sequence: u64,
        /// How many at most; 0 is no bound.
        batch: u64,
        /// How many bytes at most; 0 is the server's bound.
        bytes_max: u64,
    },
}

/// A message as the core receives it for storing.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// Its subject.
    pub subject: Bytes,
    /// Where the ack goes; empty for none.
    pub reply: Bytes,
    /// Its header block, empty for none.
    pub headers: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

/// A message that leaves the stream core.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Whose interest decides where it goes.
    pub to: Bytes,
    /// The subject its receivers read; the same as `to` unless it is a delivery.
    pub subject: Bytes,
    /// Its reply subject; empty for none.
    pub reply: Bytes,
    /// Its header block; empty for none.
    pub headers: Bytes,
    /// Its payload.
    pub payload: Bytes,
}
