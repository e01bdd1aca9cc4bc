//! What travels between replicas when entries are not enough: a manifest of the state, and records.
//!
//! ```text
//! manifest: version u8 | first, last sequence number | last time i64 | messages, bytes number
//!           core (a snapshot) blob | records that come with it blob | count of runs number, each: gap number, length number
//! records:  version u8 | from number | covered up to number | count number, each:
//!           sequence number, time i64, expiry u8 (0 by age, 1 at a time i64, 2 never), subject blob, headers blob, payload blob
//!           crc32 u32 of all before
//! ```
//!
//! Runs are the live sequences in ascending order: so many that are not live since the one before (or since the first sequence), then so
//! many that are.

use bytes::Bytes;
use storage::store::{Expiry, Message, NewMessage, State};

use super::codec::{DecodeError, Reader, Writer};
use super::{BeginError, StreamCore};

const VERSION: u8 = 1;

mod expiry {
    pub(super) const BY_AGE: u8 = 0;
    pub(super) const AT: u8 = 1;
    pub(super) const NEVER: u8 = 2;
}

/// The state of a replica at one entry: everything but the messages themselves, and which those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    pub(crate) last_time_ns: i64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// What the core's snapshot says.
    pub(crate) core: Bytes,
    /// The newest records, when they are few enough to come along; empty otherwise.
    pub(crate) records: Bytes,
    /// The live sequences: first and last of each run.
    pub(crate) live: Vec<(u64, u64)>,
}

impl Manifest {
    /// Of a store with these totals and live sequences.
    pub(crate) fn new(state: &State, core: Bytes, records: Bytes, live: Vec<(u64, u64)>) -> Self {
        Self {
            first_sequence: state.first_sequence,
            last_sequence: state.last_sequence,
            last_time_ns: state.last_time_ns,
            messages: state.messages,
            bytes: state.bytes,
            core,
            records,
            live,
        }
    }

    /// The core's snapshot.
    pub fn core(&self) -> &[u8] {
        &self.core
    }

    /// What the group of the replica keeps with the state.
    pub fn group(&self) -> Result<Bytes, BeginError> {
        StreamCore::group_of(&self.core)
    }

    /// How many messages the state holds.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many live sequences there are up to and including one.
    pub(crate) fn live_upto(&self, sequence: u64) -> u64 {
        let runs = self.live.iter().take_while(|run| run.0 <= sequence);
        runs.map(|(first, last)| (*last).min(sequence) - first + 1)
            .sum()
    }

    /// The first run that ends at or after a sequence.
    pub(crate) fn run_at(&self, sequence: u64) -> Option<(u64, u64)> {
        let at = self.live.partition_point(|run| run.1 < sequence);
        self.live.get(at).copied()
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        writer.number(self.first_sequence);
        writer.number(self.last_sequence);
        writer.i64(self.last_time_ns);
        writer.number(self.messages);
        writer.number(self.bytes);
        writer.blob(&self.core);
        writer.blob(&self.records);
        writer.number(self.live.len() as u64);
        let mut next = self.first_sequence;
        for (first, last) in &self.live {
            writer.number(first.saturating_sub(next));
            writer.number(last - first + 1);
            next = last + 1;
        }
        Bytes::from(writer.bytes)
    }

    /// Reads what [`Manifest::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let range = |what| DecodeError::Range { what };
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let mut manifest = Self {
            first_sequence: reader.number()?,
            last_sequence: reader.number()?,
            last_time_ns: reader.i64()?,
            messages: reader.number()?,
            bytes: reader.number()?,
            core: Bytes::copy_from_slice(reader.blob()?),
            records: Bytes::copy_from_slice(reader.blob()?),
            live: Vec::new(),
        };
        let mut next = manifest.first_sequence;
        let mut messages = 0u64;
        // The count is not believed: every run takes bytes that must be there.
        for _ in 0..reader.number()? {
            let first = next.checked_add(reader.number()?).ok_or(range("run"))?;
            let length = reader.number()?;
            let end = first.checked_add(length).ok_or(range("run"))?;
            if length == 0 || end - 1 > manifest.last_sequence {
                return Err(range("run"));
            }
            messages += length;
            manifest.live.push((first, end - 1));
            next = end;
        }
        if messages != manifest.messages || !reader.is_empty() {
            return Err(range("count of messages"));
        }
        Ok(manifest)
    }
}

/// Records being written.
#[derive(Debug)]
pub(crate) struct RecordsWriter {
    from: u64,
    writer: Writer,
    count: u64,
}

impl RecordsWriter {
    /// Of live records at or after a sequence.
    pub(crate) fn new(from: u64) -> Self {
        Self {
            from,
            writer: Writer::default(),
            count: 0,
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.writer.bytes.len()
    }

    pub(crate) fn push(&mut self, message: &Message, expiry: Expiry) {
        let writer = &mut self.writer;
        writer.number(message.sequence);
        writer.i64(message.time_ns);
        match expiry {
            Expiry::ByAge => writer.u8(expiry::BY_AGE),
            Expiry::At(time_ns) => {
                writer.u8(expiry::AT);
                writer.i64(time_ns);
            }
            Expiry::Never => writer.u8(expiry::NEVER),
        }
        writer.blob(&message.subject);
        writer.blob(&message.headers);
        writer.blob(&message.payload);
        self.count += 1;
    }

    /// Everything live up to `covered` is in them.
    pub(crate) fn finish(self, covered: u64) -> Bytes {
        let mut all = Writer::default();
        all.bytes.reserve(self.writer.bytes.len() + 32);
        all.u8(VERSION);
        all.number(self.from);
        all.number(covered);
        all.number(self.count);
        all.bytes.extend_from_slice(&self.writer.bytes);
        let crc = crc32fast::hash(&all.bytes);
        all.bytes.extend_from_slice(&crc.to_le_bytes());
        Bytes::from(all.bytes)
    }
}

/// Records being read.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    reader: Reader<'a>,
    left: u64,
    /// Everything live from here on is in them.
    pub(crate) from: u64,
    /// Up to here.
    pub(crate) covered: u64,
}

impl<'a> Records<'a> {
    /// Checks them and reads what they begin with.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(DecodeError::Short(bytes.len()));
        };
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Range { what: "crc" });
        }
        let mut reader = Reader::new(body);
        version(&mut reader)?;
        Ok(Self {
            from: reader.number()?,
            covered: reader.number()?,
            left: reader.number()?,
            reader,
        })
    }

    pub(crate) fn next(&mut self) -> Result<Option<NewMessage<'a>>, DecodeError> {
        if self.left == 0 {
            return match self.reader.is_empty() {
                true => Ok(None),
                false => Err(DecodeError::Range { what: "records" }),
            };
        }
        self.left -= 1;
        let reader = &mut self.reader;
        Ok(Some(NewMessage {
            sequence: reader.number()?,
            time_ns: reader.i64()?,
            expiry: match reader.u8()? {
                expiry::BY_AGE => Expiry::ByAge,
                expiry::AT => Expiry::At(reader.i64()?),
                expiry::NEVER => Expiry::Never,
                _ => return Err(DecodeError::Range { what: "expiry" }),
            },
            subject: reader.blob()?,
            headers: reader.blob()?,
            payload: reader.blob()?,
        }))
    }
}

fn version(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(DecodeError::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        Manifest {
            first_sequence: 3,
            last_sequence: 12,
            last_time_ns: 99,
            messages: 5,
            bytes: 500,
            core: Bytes::from_static(b"core"),
            records: Bytes::new(),
            live: vec![(3, 4), (7, 7), (9, 10)],
        }
    }

    fn records() -> Bytes {
        let mut writer = RecordsWriter::new(3);
        for (sequence, expiry) in [(3, Expiry::ByAge), (4, Expiry::At(7)), (7, Expiry::Never)] {
            let message = Message {
                sequence,
                time_ns: 5,
                subject: Bytes::from_static(b"a"),
                headers: Bytes::new(),
                payload: Bytes::from_static(b"hello"),
            };
            writer.push(&message, expiry);
        }
        writer.finish(8)
    }

    #[test]
    fn a_manifest_reads_back_as_written_and_knows_its_runs() {
        let manifest = sample();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(manifest.live_upto(2), 0);
        assert_eq!(manifest.live_upto(9), 4);
        assert_eq!(manifest.live_upto(100), 5);
        assert_eq!(manifest.run_at(5), Some((7, 7)));
        assert_eq!(manifest.run_at(10), Some((9, 10)));
        assert_eq!(manifest.run_at(11), None);
    }

    #[test]
    fn records_read_back_as_written_and_a_flipped_bit_is_found() {
        let bytes = records();
        let mut reader = Records::new(&bytes).expect("reads");
        assert_eq!(reader.covered, 8);
        let mut read = Vec::new();
        while let Some(record) = reader.next().expect("reads") {
            read.push((record.sequence, record.expiry));
        }
        let expected = [(3, Expiry::ByAge), (4, Expiry::At(7)), (7, Expiry::Never)];
        assert_eq!(read, expected);
        let mut flipped = bytes.to_vec();
        flipped[10] ^= 1;
        assert!(Records::new(&flipped).is_err());
    }

    #[test]
    fn runs_that_cannot_be_are_refused() {
        let mut manifest = sample();
        manifest.last_sequence = 9;
        assert!(Manifest::decode(&manifest.encode()).is_err());
        let mut manifest = sample();
        manifest.messages = 6;
        assert!(Manifest::decode(&manifest.encode()).is_err());
        let whole = sample().encode();
        for cut in 0..whole.len() {
            assert!(Manifest::decode(&whole[..cut]).is_err(), "{cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::decode(&bytes);
            let mut body = bytes.clone();
            body.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            if let Ok(mut records) = Records::new(&body) {
                while let Ok(Some(_)) = records.next() {}
            }
        }
    }
}
