//! `index.db`: what the reference knew of a stream's blocks when it last wrote it down.
//!
//! Limits remove messages without a trace in the blocks, so that only this file tells of some records that they are dead. It is a hint all the
//! same: it counts when it belongs to the blocks that are there.

use super::bytes::{NumberError, Scan};
use super::hash::{SUM_BYTES, Sums};

const MAGIC: u8 = 11;
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
/// In front of a set of sequences.
const SET_MAGIC: [u8; 2] = [22, 2];
/// Sequences in one node of a set.
const NODE_SEQUENCES: u64 = 2048;
const NODE_WORDS: usize = 32;

/// Why it is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is not what was written.
    #[error("it fails its checksum")]
    Checksum,
    /// It is of another version.
    #[error("it is of an unknown version")]
    Version,
    /// It cannot be read.
    #[error(transparent)]
    Number(#[from] NumberError),
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Live messages.
    pub messages: u64,
    /// Their accounted bytes.
    pub bytes: u64,
    /// The first live sequence.
    pub first_sequence: u64,
    /// The last sequence ever used.
    pub last_sequence: u64,
    /// Time of the last message.
    pub last_time_ns: i64,
    /// The blocks, in order.
    pub blocks: Vec<IndexedBlock>,
    /// The last block's number.
    pub last_block: u64,
    /// The checksum of the last record in it.
    pub last_sum: [u8; SUM_BYTES],
}

/// What it says of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedBlock {
    /// Its number.
    pub number: u64,
    /// Its first live sequence.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// Between them, what is not live.
    deleted: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    base: u64,
    words: [u64; NODE_WORDS],
}

impl IndexedBlock {
    /// The sequences between its first and last that are not live, in no order.
    pub fn deleted(&self) -> impl Iterator<Item = u64> {
        self.deleted.iter().flat_map(|node| {
            let words = node.words.iter().enumerate();
            words.flat_map(move |(at, word)| {
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| node.base.saturating_add(at as u64 * 64 + bit))
            })
        })
    }
}

impl Index {
    /// Reads a plain one.
    pub fn read(bytes: &[u8], stream: &str) -> Result<Self, IndexError> {
        let (content, sum) = bytes
            .split_last_chunk::<SUM_BYTES>()
            .ok_or(NumberError::Short)?;
        if Sums::named(stream).sum(&[content]) != *sum {
            return Err(IndexError::Checksum);
        }
        Self::read_content(content)
    }

    /// Reads what its checksum is of.
    pub fn read_content(content: &[u8]) -> Result<Self, IndexError> {
        let mut scan = Scan(content);
        let [magic, version] = scan.chunk()?;
        if magic != MAGIC || !VERSIONS.contains(&version) {
            return Err(IndexError::Version);
        }
        let messages = scan.number()?;
        let bytes = scan.number()?;
        let first_sequence = scan.number()?;
        let _first_time = scan.signed()?;
        let last_sequence = scan.number()?;
        let last_time_ns = scan.signed()?;
        // Counts are not believed: everything counted takes bytes that must be there.
        for _ in 0..scan.number()? {
            let length = usize::try_from(scan.number()?);
            scan.take(length.map_err(|_| NumberError::Short)?)?;
            let total = scan.number()?;
            scan.number()?;
            if version >= 4 || total > 1 {
                scan.number()?;
            }
        }
        let mut blocks = Vec::new();
        for _ in 0..scan.number()? {
            blocks.push(read_block(&mut scan, version)?);
        }
        Ok(Self {
            messages,
            bytes,
            first_sequence,
            last_sequence,
            last_time_ns,
            blocks,
            last_block: scan.number()?,
            last_sum: scan.chunk()?,
        })
    }
}

fn read_block(scan: &mut Scan<'_>, version: u8) -> Result<IndexedBlock, NumberError> {
    let number = scan.number()?;
    let _bytes = scan.number()?;
    let first = scan.number()?;
    let _first_time = scan.signed()?;
    let last = scan.number()?;
    let _last_time = scan.signed()?;
    let deleted = scan.number()?;
    for _ in 2..=version.min(3) {
        // How many of its messages have a time to live, and how many a schedule.
        scan.number()?;
    }
    let deleted = match deleted {
        0 => Vec::new(),
        _ => read_set(scan)?,
    };
    Ok(IndexedBlock {
        number,
        first,
        last,
        deleted,
    })
}

fn read_set(scan: &mut Scan<'_>) -> Result<Vec<Node>, NumberError> {
    if scan.chunk()? != SET_MAGIC {
        return Err(NumberError::Range("the kind of a set of sequences"));
    }
    let nodes = u32::from_le_bytes(scan.chunk()?);
    let _elements = u32::from_le_bytes(scan.chunk()?);
    let mut set = Vec::new();
    for _ in 0..nodes {
        let base = u64::from_le_bytes(scan.chunk()?);
        if !base.is_multiple_of(NODE_SEQUENCES) {
            return Err(NumberError::Range("the place of a set of sequences"));
        }
        let mut words = [0; NODE_WORDS];
        for word in &mut words {
            *word = u64::from_le_bytes(scan.chunk()?);
        }
        let _height: [u8; 2] = scan.chunk()?;
        set.push(Node { base, words });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::super::bytes::{put_number, put_signed};
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![MAGIC, 4];
        for number in [3, 300, 2] {
            put_number(&mut bytes, number);
        }
        put_signed(&mut bytes, 1_000);
        put_number(&mut bytes, 6);
        put_signed(&mut bytes, 2_000);
        put_number(&mut bytes, 1);
        put_number(&mut bytes, 3);
        bytes.extend_from_slice(b"a.b");
        for number in [3, 1, 1] {
            put_number(&mut bytes, number);
        }
        put_number(&mut bytes, 1);
        for number in [1, 300, 2] {
            put_number(&mut bytes, number);
        }
        put_signed(&mut bytes, 0);
        put_number(&mut bytes, 6);
        put_signed(&mut bytes, 1_000);
        for number in [2, 0, 0] {
            put_number(&mut bytes, number);
        }
        bytes.extend_from_slice(&SET_MAGIC);
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&2u32.to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&(0b11_0000u64 >> 1).to_le_bytes());
        bytes.extend_from_slice(&[0; 31 * 8 + 2]);
        put_number(&mut bytes, 1);
        bytes.extend_from_slice(b"checksum");
        bytes
    }

    #[test]
    fn totals_blocks_and_what_is_deleted_are_read() {
        let mut whole = sample();
        let sum = Sums::named("S").sum(&[&whole]);
        whole.extend_from_slice(&sum);
        let index = Index::read(&whole, "S").expect("it reads");
        assert_eq!((index.messages, index.bytes), (3, 300));
        assert_eq!((index.first_sequence, index.last_sequence), (2, 6));
        assert_eq!(index.last_sum, *b"checksum");
        let deleted: Vec<u64> = index.blocks[0].deleted().collect();
        assert_eq!(deleted, [3, 4]);
        assert_eq!(Index::read(&whole, "T"), Err(IndexError::Checksum));
        for cut in 0..sample().len() {
            assert!(Index::read_content(&sample()[..cut]).is_err(), "{cut}");
        }
    }
}
