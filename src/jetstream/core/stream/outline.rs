//! A stream as others take it along: all of it but the messages, and the messages bit by bit.

use storage::filter::Filter;
use storage::store::{ReadError, State};

use super::{ArrivedConsumer, StreamCore};
use crate::jetstream::core::request::{InfoQuery, StreamReply};
use crate::jetstream::types::{ConsumerConfig, ErrorCode, StreamConfig, StreamState};

/// Messages that are read at one time, however small they are.
const MESSAGES_MAX: usize = 4096;

/// A stream without its messages, at a moment.
#[derive(Debug, Clone)]
pub struct StreamOutline {
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was created, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Its totals.
    pub state: State,
    /// The same as clients see them.
    pub shown: StreamState,
    /// Its consumers, each with how far it has come.
    pub consumers: Vec<ArrivedConsumer>,
}

impl StreamCore {
    /// What it is at this moment. What a leader has delivered counts before it is logged: a delivery cannot be taken back.
    pub fn outline(&self, now_ns: i64) -> StreamOutline {
        let (info, _) = self.info(&InfoQuery::default(), now_ns);
        let consumers = self.consumers.values().map(|consumer| {
            let live = consumer.live.as_deref();
            let progress = live.map_or(&consumer.progress, |live| &live.progress);
            ArrivedConsumer {
                name: consumer.name.clone(),
                created_ns: consumer.created_ns,
                config: ConsumerConfig::clone(&consumer.config),
                progress: Some(progress.clone()),
            }
        });
        StreamOutline {
            config: StreamConfig::clone(&self.config),
            created_ns: self.created_ns,
            state: self.store.state(),
            shown: info.state,
            consumers: consumers.collect(),
        }
    }

    /// The configurations of all consumers, with their names.
    pub fn consumer_configs(&self) -> impl Iterator<Item = (&str, &ConsumerConfig)> {
        self.consumers
            .values()
            .map(|consumer| (consumer.name.as_str(), consumer.config.as_ref()))
    }

    pub(super) fn messages(&self, from: u64, upto: u64, bytes_max: usize) -> StreamReply {
        match self.read_messages(from, upto, bytes_max) {
            Ok(reply) => reply,
            Err(error) => StreamReply::Refused(ErrorCode::StreamStoreFailed.with(error)),
        }
    }

    fn read_messages(
        &self,
        from: u64,
        upto: u64,
        bytes_max: usize,
    ) -> Result<StreamReply, ReadError> {
        let everything = Filter::everything();
        let (mut messages, mut bytes, mut next) = (Vec::new(), 0, from);
        while bytes < bytes_max && messages.len() < MESSAGES_MAX {
            let message = self.store.next(next, &everything)?;
            let Some(message) = message.filter(|message| message.sequence <= upto) else {
                let covered = upto;
                return Ok(StreamReply::Messages { messages, covered });
            };
            next = message.sequence + 1;
            bytes += message.subject.len() + message.headers.len() + message.payload.len();
            messages.push(message);
        }
        let covered = next.saturating_sub(1);
        Ok(StreamReply::Messages { messages, covered })
    }
}
