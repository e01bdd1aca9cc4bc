//! Entries as they are read. Every length is checked against what is there.

use storage::store::Expiry;

use super::super::codec::{DecodeError, Reader};
use super::{EntryHeader, MessageOp, Op, Rollup, Scheduler, VERSION, flag, kind};

/// An entry being read.
#[derive(Debug, Clone)]
pub(crate) struct EntryReader<'a> {
    reader: Reader<'a>,
    header: EntryHeader,
}

impl<'a> EntryReader<'a> {
    /// Reads the header.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let header = EntryHeader {
            term: reader.u64()?,
            time_ns: reader.i64()?,
            base_sequence: reader.u64()?,
            base_index: reader.u64()?,
            ordinal: reader.u64()?,
        };
        Ok(Self { reader, header })
    }

    /// What it starts with.
    pub(crate) fn header(&self) -> EntryHeader {
        self.header
    }

    /// The next operation, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Op<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        read_op(&mut self.reader).map(Some)
    }
}

fn read_op<'a>(reader: &mut Reader<'a>) -> Result<Op<'a>, DecodeError> {
    Ok(match reader.u8()? {
        kind::MESSAGE => Op::Message(read_message(reader)?),
        kind::MIRRORED => Op::Mirrored {
            sequence: reader.number()?,
            time_ns: reader.i64()?,
            message: read_message(reader)?,
        },
        kind::SKIP => Op::Skip {
            last_sequence: reader.number()?,
        },
        kind::DELETE => Op::Delete {
            sequence: reader.number()?,
            erase: reader.u8()? != 0,
        },
        kind::PURGE => Op::Purge {
            filter: reader.text()?,
            below_sequence: reader.number()?,
            keep: reader.number()?,
        },
        kind::EXPIRE => Op::Expire {
            removals_max: reader.number()?,
        },
        kind::CONFIG => Op::Config {
            json: reader.blob()?,
        },
        kind::CONSUMER_CREATE => Op::ConsumerCreate {
            id: reader.number()?,
            name: reader.text()?,
            json: reader.blob()?,
        },
        kind::CONSUMER_UPDATE => Op::ConsumerUpdate {
            id: reader.number()?,
            json: reader.blob()?,
        },
        kind::CONSUMER_DELETE => Op::ConsumerDelete {
            id: reader.number()?,
        },
        kind::DELIVERED => Op::Delivered {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
            stream_sequence: reader.number()?,
            deliveries: reader.number()?,
        },
        kind::ACKED => Op::Acked {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
            stream_sequence: reader.number()?,
        },
        kind::EXHAUSTED => Op::Exhausted {
            id: reader.number()?,
            stream_sequence: reader.number()?,
            deliveries: reader.number()?,
        },
        kind::TOUCHED => Op::Touched {
            id: reader.number()?,
            stream_sequence: reader.number()?,
            time_ns: reader.i64()?,
        },
        kind::RESERVED => Op::Reserved {
            id: reader.number()?,
            consumer_sequence: reader.number()?,
        },
        kind::RESET => Op::Reset {
            id: reader.number()?,
            stream_sequence: reader.number()?,
        },
        kind::CONSUMER_LOST => Op::ConsumerLost {
            id: reader.number()?,
        },
        kind::CONSUMER_RESTARTED => Op::ConsumerRestarted {
            id: reader.number()?,
        },
        kind::UNSCHEDULED => Op::Unscheduled {
            sequence: reader.number()?,
        },
        kind::FAST_MESSAGE => Op::FastMessage {
            reply: reader.blob()?,
        },
        kind::FAST_PASSED => Op::FastPassed {
            sequence: reader.number()?,
            reply: reader.blob()?,
        },
        kind::FAST_END => Op::FastEnd { id: reader.text()? },
        kind::COMPARE => Op::Compare {
            index: reader.number()?,
            digest: reader.u64()?,
        },
        _ => return Err(DecodeError::Range { what: "operation" }),
    })
}

fn read_message<'a>(reader: &mut Reader<'a>) -> Result<MessageOp<'a>, DecodeError> {
    let flags = reader.u8()?;
    let subject = reader.blob()?;
    let headers = reader.blob()?;
    let payload = reader.blob()?;
    let id = if flags & flag::ID != 0 {
        reader.blob()?
    } else {
        &[]
    };
    let expiry = match flags & (flag::EXPIRES | flag::NEVER_EXPIRES) {
        0 => Expiry::ByAge,
        flag::EXPIRES => Expiry::At(reader.i64()?),
        flag::NEVER_EXPIRES => Expiry::Never,
        _ => return Err(DecodeError::Range { what: "expiry" }),
    };
    let rollup = match flags & (flag::ROLLUP_SUBJECT | flag::ROLLUP_EVERYTHING) {
        0 => Rollup::None,
        flag::ROLLUP_SUBJECT => Rollup::Subject,
        flag::ROLLUP_EVERYTHING => Rollup::Everything,
        _ => return Err(DecodeError::Range { what: "rollup" }),
    };
    let schedule_ns = match flags & flag::SCHEDULE {
        0 => None,
        _ => Some(reader.i64()?),
    };
    let scheduler = match flags & (flag::SCHEDULER | flag::SCHEDULER_ENDS) {
        0 => None,
        flag::SCHEDULER => Some(Scheduler {
            subject: reader.blob()?,
            next_ns: Some(reader.i64()?),
        }),
        flag::SCHEDULER_ENDS => Some(Scheduler {
            subject: reader.blob()?,
            next_ns: None,
        }),
        _ => return Err(DecodeError::Range { what: "scheduler" }),
    };
    Ok(MessageOp {
        subject,
        headers,
        payload,
        id,
        expiry,
        rollup,
        schedule_ns,
        scheduler,
    })
}
