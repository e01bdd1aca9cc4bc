//! A backup, written message by message.

use std::io::{self, Write};

use storage::store::Message;

use super::frame::FrameWriter;
use super::hash::Sums;
use super::meta::{ConsumerMeta, StreamMeta};
use super::record::{Record, RecordKind, write_record};
use super::tar::TarWriter;
use super::write_consumer_state;
use crate::jetstream::core::{ArrivedConsumer, Progress};
use crate::jetstream::types::Time;

/// Bytes of records in one block: a tar says a file's length in front of it, so that they are gathered before.
const BLOCK_BYTES: usize = 4 << 20;

/// Why a backup could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nobody takes it.
    #[error(transparent)]
    Sink(#[from] io::Error),
    /// A message comes that is not after the one before.
    #[error("sequence {0} does not follow")]
    Order(u64),
}

/// A backup that is being written.
pub struct ArchiveWriter<W: Write> {
    tar: TarWriter<FrameWriter<W>>,
    stream: String,
    block: Vec<u8>,
    block_number: u64,
    last: u64,
    now_ns: i64,
}

impl<W: Write> ArchiveWriter<W> {
    /// Of a stream, at a time.
    pub fn begin(sink: W, meta: &StreamMeta, now_ns: i64) -> Result<Self, WriteError> {
        let seconds = u64::try_from(now_ns / 1_000_000_000).unwrap_or_default();
        let mut tar = TarWriter::new(FrameWriter::new(sink), seconds);
        let bytes = meta.write();
        tar.file("meta.inf", &bytes)?;
        let sum = Sums::named(&meta.config.name).text(&bytes);
        tar.file("meta.sum", sum.as_bytes())?;
        Ok(Self {
            tar,
            stream: meta.config.name.clone(),
            block: Vec::new(),
            block_number: 1,
            last: 0,
            now_ns,
        })
    }

    /// Writes the next message.
    pub fn message(&mut self, message: &Message) -> Result<(), WriteError> {
        self.record(&Record {
            kind: RecordKind::Message,
            sequence: message.sequence,
            time_ns: message.time_ns,
            subject: &message.subject,
            headers: &message.headers,
            payload: &message.payload,
        })
    }

    /// All messages are written; the stream has used sequences up to this one.
    pub fn end_messages(&mut self, last: u64, last_time_ns: i64) -> Result<(), WriteError> {
        if last > self.last {
            self.record(&Record {
                kind: RecordKind::Erased,
                sequence: last,
                time_ns: last_time_ns,
                subject: b"",
                headers: b"",
                payload: b"",
            })?;
        }
        self.end_block()
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), WriteError> {
        if record.sequence <= self.last {
            return Err(WriteError::Order(record.sequence));
        }
        self.last = record.sequence;
        let sums = Sums::of_block(&self.stream, self.block_number);
        write_record(&mut self.block, &sums, record);
        match self.block.len() >= BLOCK_BYTES {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    fn end_block(&mut self) -> Result<(), WriteError> {
        if !self.block.is_empty() {
            let name = format!("msgs/{}.blk", self.block_number);
            self.tar.file(&name, &self.block)?;
            self.block_number += 1;
            self.block.clear();
        }
        Ok(())
    }

    /// Writes those of a stream's consumers that are kept on disk, after the messages. How many these are.
    pub fn consumers(&mut self, consumers: &[ArrivedConsumer]) -> Result<usize, WriteError> {
        let fresh = Progress::default();
        let mut written = 0;
        for consumer in consumers {
            if consumer.config.mem_storage || consumer.config.direct {
                continue;
            }
            let meta = ConsumerMeta {
                created: Time::from_nanoseconds(consumer.created_ns),
                name: consumer.name.clone(),
                config: consumer.config.clone(),
            };
            self.consumer(&meta, consumer.progress.as_ref().unwrap_or(&fresh))?;
            written += 1;
        }
        Ok(written)
    }

    /// Writes a consumer, after the messages.
    pub fn consumer(&mut self, meta: &ConsumerMeta, progress: &Progress) -> Result<(), WriteError> {
        let path = |file: &str| format!("obs/{}/{file}", meta.name);
        let bytes = meta.write();
        self.tar.file(&path("meta.inf"), &bytes)?;
        let sum = Sums::of_consumer(&self.stream, &meta.name).text(&bytes);
        self.tar.file(&path("meta.sum"), sum.as_bytes())?;
        let state = write_consumer_state(progress, self.now_ns);
        self.tar.file(&path("o.dat"), &state)?;
        Ok(())
    }

    /// Ends it and gives the sink back.
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(self.tar.finish()?.finish()?)
    }
}
