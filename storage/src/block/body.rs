//! The plain body of a chunk: built record by record, and read back.

use std::hash::BuildHasher;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashTable;

use super::format::chunk::{CHUNK_BYTES_TARGET, SEQUENCE_SPAN_MAX};
use super::format::record::{self, Base, RawRecord};
use super::packed::{Packed, pack, packed_bytes, width_of};
use super::varint::Malformed;
use crate::store::{Expiry, Message, NewMessage};

/// A message as a block holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The message.
    pub message: Message,
    /// When it dies by itself.
    pub expiry: Expiry,
}

impl Record {
    /// The same, to be written once more.
    pub fn as_new(&self) -> NewMessage<'_> {
        NewMessage {
            sequence: self.message.sequence,
            time_ns: self.message.time_ns,
            subject: &self.message.subject,
            headers: &self.message.headers,
            payload: &self.message.payload,
            expiry: self.expiry,
        }
    }
}

/// What a chunk's header says of its plain body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyFacts {
    pub records: u32,
    pub subjects: u32,
    pub dictionary_at: u32,
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub base_time_ns: i64,
    pub last_time_ns: i64,
}

/// Collects records until a chunk is full.
pub(super) struct BodyBuilder {
    stream: u64,
    body: Vec<u8>,
    texts: Vec<u8>,
    ends: Vec<u32>,
    numbers: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    last_subject: u32,
    facts: BodyFacts,
}

impl BodyBuilder {
    pub fn new(stream: u64) -> Self {
        Self {
            stream,
            body: Vec::with_capacity(CHUNK_BYTES_TARGET),
            texts: Vec::new(),
            ends: Vec::new(),
            numbers: HashTable::new(),
            hasher: foldhash::fast::FixedState::default(),
            last_subject: 0,
            facts: EMPTY,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.facts.records == 0
    }

    /// An upper bound of the plain body's length if it were finished now.
    pub fn plain_length(&self) -> usize {
        self.body.len() + self.texts.len() + dictionary_overhead(self.ends.len())
    }

    /// Whether `message` may be added. An empty chunk takes any message.
    pub fn has_room_for(&self, message: &NewMessage<'_>) -> bool {
        if self.is_empty() {
            return true;
        }
        let subjects = self.ends.len() + 1;
        let length = self.body.len()
            + record::record_bytes_max(message)
            + self.texts.len()
            + message.subject.len()
            + dictionary_overhead(subjects);
        length <= CHUNK_BYTES_TARGET
            && message.sequence - self.facts.first_sequence < SEQUENCE_SPAN_MAX
    }

    /// Adds a message whose sequence is above those before it, after [`Self::has_room_for`] agreed.
    pub fn push(&mut self, message: &NewMessage<'_>) {
        if self.is_empty() {
            self.facts.first_sequence = message.sequence;
            self.facts.base_time_ns = message.time_ns;
            self.facts.last_time_ns = message.time_ns;
        }
        let subject = self.number_of(message.subject);
        let base = self.facts.base(self.stream);
        record::encode(&mut self.body, base, subject, message);
        self.facts.records += 1;
        self.facts.last_sequence = message.sequence;
        self.facts.last_time_ns = self.facts.last_time_ns.max(message.time_ns);
    }

    /// The finished body; the builder is empty again.
    pub fn finish(&mut self) -> (BodyFacts, Vec<u8>) {
        let mut facts = std::mem::replace(&mut self.facts, EMPTY);
        let mut body = Vec::with_capacity(CHUNK_BYTES_TARGET);
        std::mem::swap(&mut body, &mut self.body);
        facts.dictionary_at = body.len() as u32;
        facts.subjects = self.ends.len() as u32;
        let width = width_of(self.texts.len() as u64);
        body.push(width);
        pack(&mut body, width, self.ends.drain(..).map(u64::from));
        body.append(&mut self.texts);
        self.numbers.clear();
        self.last_subject = 0;
        (facts, body)
    }

    /// The number of a subject in the dictionary, which takes it in when it is new.
    fn number_of(&mut self, subject: &[u8]) -> u32 {
        let (texts, ends) = (&self.texts, &self.ends);
        let text = |number: u32| {
            let number = number as usize;
            let start = number
                .checked_sub(1)
                .and_then(|before| ends.get(before).copied())
                .unwrap_or_default();
            let end = ends.get(number).copied().unwrap_or_default();
            texts.get(start as usize..end as usize)
        };
        if !ends.is_empty() && text(self.last_subject) == Some(subject) {
            return self.last_subject;
        }
        let hash = self.hasher.hash_one(subject);
        let known = self
            .numbers
            .find(hash, |&number| text(number) == Some(subject));
        self.last_subject = match known {
            Some(&number) => number,
            None => {
                let number = ends.len() as u32;
                let rehash = |&number: &u32| self.hasher.hash_one(text(number).unwrap_or_default());
                self.numbers.insert_unique(hash, number, rehash);
                self.texts.extend_from_slice(subject);
                self.ends.push(self.texts.len() as u32);
                number
            }
        };
        self.last_subject
    }
}

const EMPTY: BodyFacts = BodyFacts {
    records: 0,
    subjects: 0,
    dictionary_at: 0,
    first_sequence: 0,
    last_sequence: 0,
    base_time_ns: 0,
    last_time_ns: 0,
};

/// What a dictionary takes beside its texts.
fn dictionary_overhead(subjects: usize) -> usize {
    1 + packed_bytes(subjects, 32)
}

impl BodyFacts {
    pub fn base(&self, stream: u64) -> Base {
        Base {
            stream,
            first_sequence: self.first_sequence,
            time_ns: self.base_time_ns,
        }
    }

    /// Where the text of a subject stands in the body.
    pub fn subject(&self, body: &[u8], number: u32) -> Result<Range<usize>, Malformed> {
        if number >= self.subjects {
            return Err(Malformed);
        }
        let dictionary = body.get(self.dictionary_at as usize..).ok_or(Malformed)?;
        let (&width, rest) = dictionary.split_first().ok_or(Malformed)?;
        let count = self.subjects as usize;
        let ends = Packed::new(rest, width, count).ok_or(Malformed)?;
        let texts_at = self.dictionary_at as usize + 1 + packed_bytes(count, width);
        let start = match number {
            0 => 0,
            number => ends.get(number as usize - 1) as usize,
        };
        let end = ends.get(number as usize) as usize;
        let (start, end) = (
            texts_at.checked_add(start).ok_or(Malformed)?,
            texts_at.checked_add(end).ok_or(Malformed)?,
        );
        (start <= end && end <= body.len())
            .then_some(start..end)
            .ok_or(Malformed)
    }
}

/// A chunk's plain body.
pub(super) struct Body<'a> {
    pub facts: BodyFacts,
    pub stream: u64,
    pub holder: Holder<'a>,
    /// Where in the holder the body is.
    pub range: Range<usize>,
}

/// What a body is a part of. A map is only borrowed: counting its users up and down would be a good part of a read.
pub(super) enum Holder<'a> {
    /// The mapped file.
    Mapped(&'a Bytes),
    /// The opened and unpacked chunk alone.
    Unpacked(Bytes),
}

impl Holder<'_> {
    #[inline]
    fn bytes(&self) -> &Bytes {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Unpacked(bytes) => bytes,
        }
    }
}

impl Body<'_> {
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.holder
            .bytes()
            .get(self.range.clone())
            .unwrap_or_default()
    }

    /// The parts of the record at `offset`, after its checksum held.
    #[inline]
    pub fn checked(&self, offset: usize) -> Result<(RawRecord, Range<usize>), Malformed> {
        let bytes = self.bytes();
        let raw = RawRecord::decode(bytes, offset, self.facts.base(self.stream))?;
        let subject = self.facts.subject(bytes, raw.subject)?;
        let text = bytes.get(subject.clone()).unwrap_or_default();
        if raw.is_intact(bytes, self.stream, text) {
            Ok((raw, subject))
        } else {
            Err(Malformed)
        }
    }

    /// The record at `offset`, sharing the holder's memory.
    #[inline]
    pub fn record(&self, offset: usize) -> Result<Record, Malformed> {
        let (raw, subject) = self.checked(offset)?;
        Ok(Record {
            message: Message {
                sequence: raw.sequence,
                time_ns: raw.time_ns,
                subject: self.part(subject),
                headers: self.part(raw.headers),
                payload: self.part(raw.payload),
            },
            expiry: raw.expiry,
        })
    }

    fn part(&self, part: Range<usize>) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        let at = self.range.start;
        self.holder.bytes().slice(at + part.start..at + part.end)
    }

    /// Walks over all records in order, with their offsets, without checking them. Ends after the first that makes no sense.
    pub fn walk(&self) -> impl Iterator<Item = Result<(u32, RawRecord), Malformed>> + '_ {
        let mut at = Some(0);
        let records = self
            .bytes()
            .get(..self.facts.dictionary_at as usize)
            .unwrap_or_default();
        (0..self.facts.records).map_while(move |_| {
            let offset = at?;
            let raw = RawRecord::decode(records, offset, self.facts.base(self.stream));
            at = raw.as_ref().ok().map(RawRecord::end);
            Some(raw.map(|raw| (offset as u32, raw)))
        })
    }
}
