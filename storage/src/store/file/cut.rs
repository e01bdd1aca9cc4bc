//! A cut: all that a file store must remember besides its blocks, at one index of the log.
//!
//! ```text
//!  1  what it is: 1 whole, 2 only what changed since the cut before
//!  8  log index
//!  8  live messages, 8 their accounted bytes
//!  8  first sequence, 8 last sequence, 8 time of the last
//!  8  the next block number
//!     limits: one byte of flags (1 messages, 2 bytes, 4 age, 8 per subject, 16 discard new), then
//!     8 bytes for each of the first four, 0 when its flag is not set
//!  4  sealed blocks, each: 8 number, 4 generation, 8 first and 8 last sequence that count,
//!     8 length of the file, 4 records, 32 digest of its content
//!  1  whether there is an open block; if so: 8 number, 4 generation, 8 bytes written, 8 first and 8 last
//!     sequence that count
//!  4  files that are no longer needed, each: 8 number, 4 generation
//!  4  length of what follows: deleted sequences within blocks, a roaring treemap in its portable format
//!  4  expiries, each: 8 sequence, 1 kind (1 at a time, 2 never), 8 time
//!  4  messages that are in no block, each: 8 sequence, 8 time, 1 kind and 8 time of its expiry,
//!     4 bytes of subject, 4 of headers, 4 of payload, and those bytes
//!  4  length of the stream core's own state, and its bytes
//! ```
//!
//! All integers are little-endian. A part that only says what changed repeats everything but deletes and
//! expiries, of which it has the new ones.

use bytes::{Buf, BufMut, Bytes, TryGetError};
use roaring::RoaringTreemap;

use super::name::BlockName;
use crate::store::ledger::Totals;
use crate::store::{Discard, Expiry, Limits, NewMessage};

/// A message with all that a block or a cut needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub sequence: u64,
    pub time_ns: i64,
    pub expiry: Expiry,
    /// Subject, headers and payload, one after the other.
    pub body: Bytes,
    pub subject_bytes: u32,
    pub headers_bytes: u32,
}

impl Held {
    pub fn as_new(&self) -> NewMessage<'_> {
        let (subject, rest) = self
            .body
            .split_at_checked(self.subject_bytes as usize)
            .unwrap_or((&self.body, &[]));
        let (headers, payload) = rest
            .split_at_checked(self.headers_bytes as usize)
            .unwrap_or((rest, &[]));
        NewMessage {
            sequence: self.sequence,
            time_ns: self.time_ns,
            subject,
            headers,
            payload,
            expiry: self.expiry,
        }
    }
}

/// A sealed block as a cut lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedBlock {
    pub name: BlockName,
    pub first: u64,
    pub last: u64,
    pub file_length: u64,
    pub records: u32,
    pub digest: [u8; 32],
}

/// The open block as a cut lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedOpen {
    pub name: BlockName,
    pub written: u64,
    pub first: u64,
    pub last: u64,
}

/// How a cut relates to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    Changes,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    pub extent: Extent,
    pub index: u64,
    pub totals: Totals,
    pub next_number: u64,
    pub limits: Limits,
    pub sealed: Vec<ListedBlock>,
    pub open: Option<ListedOpen>,
    pub retired: Vec<BlockName>,
    pub dead: RoaringTreemap,
    pub expiries: Vec<(u64, Expiry)>,
    pub held: Vec<Held>,
    pub core: Bytes,
}

/// The bytes are not a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedCut;

impl From<TryGetError> for MalformedCut {
    fn from(_: TryGetError) -> Self {
        Self
    }
}

const WHOLE: u8 = 1;
const CHANGES: u8 = 2;

impl Cut {
    pub fn encode(&self) -> Vec<u8> {
        let held: usize = self.held.iter().map(|held| held.body.len() + 37).sum();
        let dead = self.dead.serialized_size();
        let lists = self.sealed.len() * 72 + self.expiries.len() * 17;
        let mut out = Vec::with_capacity(256 + held + dead + lists + self.core.len());
        out.put_u8(match self.extent {
            Extent::Whole => WHOLE,
            Extent::Changes => CHANGES,
        });
        out.put_u64_le(self.index);
        out.put_u64_le(self.totals.messages);
        out.put_u64_le(self.totals.bytes);
        out.put_u64_le(self.totals.first_sequence);
        out.put_u64_le(self.totals.last_sequence);
        out.put_i64_le(self.totals.last_time_ns);
        out.put_u64_le(self.next_number);
        put_limits(&mut out, &self.limits);
        out.put_u32_le(self.sealed.len() as u32);
        for block in &self.sealed {
            put_name(&mut out, block.name);
            out.put_u64_le(block.first);
            out.put_u64_le(block.last);
            out.put_u64_le(block.file_length);
            out.put_u32_le(block.records);
            out.put_slice(&block.digest);
        }
        match &self.open {
            None => out.put_u8(0),
            Some(open) => {
                out.put_u8(1);
                put_name(&mut out, open.name);
                out.put_u64_le(open.written);
                out.put_u64_le(open.first);
                out.put_u64_le(open.last);
            }
        }
        out.put_u32_le(self.retired.len() as u32);
        for name in &self.retired {
            put_name(&mut out, *name);
        }
        out.put_u32_le(dead as u32);
        // Writing to a vector does not fail.
        let _ = self.dead.serialize_into(&mut out);
        out.put_u32_le(self.expiries.len() as u32);
        for (sequence, expiry) in &self.expiries {
            out.put_u64_le(*sequence);
            put_expiry(&mut out, *expiry);
        }
        out.put_u32_le(self.held.len() as u32);
        for held in &self.held {
            out.put_u64_le(held.sequence);
            out.put_i64_le(held.time_ns);
            put_expiry(&mut out, held.expiry);
            let payload = held.body.len() as u32 - held.subject_bytes - held.headers_bytes;
            out.put_u32_le(held.subject_bytes);
            out.put_u32_le(held.headers_bytes);
            out.put_u32_le(payload);
            out.put_slice(&held.body);
        }
        out.put_u32_le(self.core.len() as u32);
        out.put_slice(&self.core);
        out
    }

    pub fn decode(mut bytes: Bytes) -> Result<Self, MalformedCut> {
        let from = &mut bytes;
        let extent = match from.try_get_u8()? {
            WHOLE => Extent::Whole,
            CHANGES => Extent::Changes,
            _ => return Err(MalformedCut),
        };
        let index = from.try_get_u64_le()?;
        let totals = Totals {
            messages: from.try_get_u64_le()?,
            bytes: from.try_get_u64_le()?,
            first_sequence: from.try_get_u64_le()?,
            last_sequence: from.try_get_u64_le()?,
            last_time_ns: from.try_get_i64_le()?,
        };
        let next_number = from.try_get_u64_le()?;
        let limits = get_limits(from)?;
        let sealed = get_list(from, 72, |from| {
            let mut block = ListedBlock {
                name: get_name(from)?,
                first: from.try_get_u64_le()?,
                last: from.try_get_u64_le()?,
                file_length: from.try_get_u64_le()?,
                records: from.try_get_u32_le()?,
                digest: [0; 32],
            };
            from.try_copy_to_slice(&mut block.digest)?;
            Ok(block)
        })?;
        let open = match from.try_get_u8()? {
            0 => None,
            1 => Some(ListedOpen {
                name: get_name(from)?,
                written: from.try_get_u64_le()?,
                first: from.try_get_u64_le()?,
                last: from.try_get_u64_le()?,
            }),
            _ => return Err(MalformedCut),
        };
        let retired = get_list(from, 12, get_name)?;
        let dead = get_bytes(from)?;
        let dead =
            RoaringTreemap::deserialize_from(&mut dead.as_ref()).map_err(|_| MalformedCut)?;
        let expiries = get_list(from, 17, |from| {
            Ok((from.try_get_u64_le()?, get_expiry(from)?))
        })?;
        let held = get_list(from, 37, get_held)?;
        let core = get_bytes(from)?;
        if from.has_remaining() {
            return Err(MalformedCut);
        }
        Ok(Self {
            extent,
            index,
            totals,
            next_number,
            limits,
            sealed,
            open,
            retired,
            dead,
            expiries,
            held,
            core,
        })
    }

    /// Puts a cut that only says what changed on top of this one.
    pub fn follow(&mut self, later: Self) {
        let earlier = std::mem::replace(self, later);
        if self.extent == Extent::Changes {
            self.extent = Extent::Whole;
            self.dead |= earlier.dead;
            let mut expiries = earlier.expiries;
            expiries.append(&mut self.expiries);
            self.expiries = expiries;
        }
    }
}

fn put_name(out: &mut Vec<u8>, name: BlockName) {
    out.put_u64_le(name.number);
    out.put_u32_le(name.generation);
}

fn get_name(from: &mut Bytes) -> Result<BlockName, MalformedCut> {
    Ok(BlockName {
        number: from.try_get_u64_le()?,
        generation: from.try_get_u32_le()?,
    })
}

fn put_expiry(out: &mut Vec<u8>, expiry: Expiry) {
    let (kind, time_ns) = match expiry {
        Expiry::ByAge => (0, 0),
        Expiry::At(time_ns) => (1, time_ns),
        Expiry::Never => (2, 0),
    };
    out.put_u8(kind);
    out.put_i64_le(time_ns);
}

fn get_expiry(from: &mut Bytes) -> Result<Expiry, MalformedCut> {
    let kind = from.try_get_u8()?;
    let time_ns = from.try_get_i64_le()?;
    match kind {
        0 => Ok(Expiry::ByAge),
        1 => Ok(Expiry::At(time_ns)),
        2 => Ok(Expiry::Never),
        _ => Err(MalformedCut),
    }
}

fn put_limits(out: &mut Vec<u8>, limits: &Limits) {
    let mut flags = u8::from(limits.messages_max.is_some());
    flags |= u8::from(limits.bytes_max.is_some()) << 1;
    flags |= u8::from(limits.age_max_ns.is_some()) << 2;
    flags |= u8::from(limits.per_subject_max.is_some()) << 3;
    flags |= u8::from(limits.discard == Discard::New) << 4;
    out.put_u8(flags);
    out.put_u64_le(limits.messages_max.unwrap_or_default());
    out.put_u64_le(limits.bytes_max.unwrap_or_default());
    out.put_i64_le(limits.age_max_ns.unwrap_or_default());
    out.put_u64_le(limits.per_subject_max.unwrap_or_default());
}

fn get_limits(from: &mut Bytes) -> Result<Limits, MalformedCut> {
    let flags = from.try_get_u8()?;
    if flags > 31 {
        return Err(MalformedCut);
    }
    let set = |bit: u8| flags & bit != 0;
    let messages_max = from.try_get_u64_le()?;
    let bytes_max = from.try_get_u64_le()?;
    let age_max_ns = from.try_get_i64_le()?;
    let per_subject_max = from.try_get_u64_le()?;
    Ok(Limits {
        messages_max: set(1).then_some(messages_max),
        bytes_max: set(2).then_some(bytes_max),
        age_max_ns: set(4).then_some(age_max_ns),
        per_subject_max: set(8).then_some(per_subject_max),
        discard: if set(16) { Discard::New } else { Discard::Old },
    })
}

fn get_bytes(from: &mut Bytes) -> Result<Bytes, MalformedCut> {
    let length = from.try_get_u32_le()? as usize;
    if length > from.remaining() {
        return Err(MalformedCut);
    }
    Ok(from.split_to(length))
}

/// A list whose items take at least `item_bytes_min`, so that a wrong count cannot make it balloon.
fn get_list<T>(
    from: &mut Bytes,
    item_bytes_min: usize,
    get: impl Fn(&mut Bytes) -> Result<T, MalformedCut>,
) -> Result<Vec<T>, MalformedCut> {
    let count = from.try_get_u32_le()? as usize;
    if count > from.remaining() / item_bytes_min {
        return Err(MalformedCut);
    }
    (0..count).map(|_| get(from)).collect()
}

fn get_held(from: &mut Bytes) -> Result<Held, MalformedCut> {
    let sequence = from.try_get_u64_le()?;
    let time_ns = from.try_get_i64_le()?;
    let expiry = get_expiry(from)?;
    let subject_bytes = from.try_get_u32_le()?;
    let headers_bytes = from.try_get_u32_le()?;
    let payload_bytes = from.try_get_u32_le()?;
    let length = u64::from(subject_bytes) + u64::from(headers_bytes) + u64::from(payload_bytes);
    if length > from.remaining() as u64 {
        return Err(MalformedCut);
    }
    Ok(Held {
        sequence,
        time_ns,
        expiry,
        body: from.split_to(length as usize),
        subject_bytes,
        headers_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> Cut {
        Cut {
            extent: Extent::Whole,
            index: 77,
            totals: Totals {
                messages: 3,
                bytes: 120,
                first_sequence: 5,
                last_sequence: 9,
                last_time_ns: 1234,
            },
            next_number: 4,
            limits: Limits {
                age_max_ns: Some(5),
                discard: Discard::New,
                ..Limits::default()
            },
            sealed: vec![ListedBlock {
                name: BlockName {
                    number: 1,
                    generation: 2,
                },
                first: 1,
                last: 6,
                file_length: 9000,
                records: 6,
                digest: [7; 32],
            }],
            open: Some(ListedOpen {
                name: BlockName {
                    number: 3,
                    generation: 0,
                },
                written: 4096,
                first: 7,
                last: 8,
            }),
            retired: vec![BlockName {
                number: 2,
                generation: 1,
            }],
            dead: [2, 3, 1 << 40].into_iter().collect(),
            expiries: vec![(5, Expiry::Never), (6, Expiry::At(99))],
            held: vec![Held {
                sequence: 9,
                time_ns: 1234,
                expiry: Expiry::At(8),
                body: Bytes::from_static(b"subjectHpayload"),
                subject_bytes: 7,
                headers_bytes: 1,
            }],
            core: Bytes::from_static(b"core"),
        }
    }

    /// The bytes in hexadecimal that begin each line behind `heading` in docs/format.md.
    fn documented(heading: &str) -> Vec<u8> {
        let document = include_str!("../../../../docs/format.md");
        let (_, rest) = document.split_once(heading).unwrap();
        let lines = rest.lines().skip(1).skip_while(|line| line.is_empty());
        let lines = lines.take_while(|line| line.starts_with("    "));
        lines
            .flat_map(|line| {
                let bytes = line.trim_start().split(' ');
                bytes.map_while(|byte| match byte.len() {
                    2 => u8::from_str_radix(byte, 16).ok(),
                    _ => None,
                })
            })
            .collect()
    }

    #[test]
    fn the_cut_in_the_document_is_the_cut_we_write() {
        let cut = Cut {
            extent: Extent::Whole,
            index: 5,
            totals: Totals {
                messages: 1,
                bytes: 33,
                first_sequence: 3,
                last_sequence: 3,
                last_time_ns: 100,
            },
            next_number: 1,
            limits: Limits {
                bytes_max: Some(4096),
                ..Limits::default()
            },
            sealed: Vec::new(),
            open: None,
            retired: Vec::new(),
            dead: RoaringTreemap::new(),
            expiries: vec![(3, Expiry::Never)],
            held: vec![Held {
                sequence: 3,
                time_ns: 100,
                expiry: Expiry::Never,
                body: Bytes::from_static(b"ahi"),
                subject_bytes: 1,
                headers_bytes: 0,
            }],
            core: Bytes::from_static(b"core"),
        };
        let heading = "A whole cut at log index 5";
        assert_eq!(documented(heading), cut.encode());
    }

    #[test]
    fn a_cut_comes_back_as_it_was() {
        let cut = cut();
        assert_eq!(Cut::decode(cut.encode().into()), Ok(cut));
    }

    #[test]
    fn a_shortened_or_changed_cut_is_an_error_or_another_cut_and_never_a_panic() {
        let bytes = cut().encode();
        for length in 0..bytes.len() {
            let shortened = Bytes::copy_from_slice(&bytes[..length]);
            assert_eq!(Cut::decode(shortened), Err(MalformedCut));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let _ = Cut::decode(changed.into());
            }
        }
    }

    #[test]
    fn changes_add_deletes_and_expiries_and_replace_the_rest() {
        let mut whole = cut();
        let later = Cut {
            extent: Extent::Changes,
            index: 80,
            dead: [9].into_iter().collect(),
            expiries: vec![(7, Expiry::Never)],
            held: Vec::new(),
            ..cut()
        };
        whole.follow(later);
        assert_eq!(whole.extent, Extent::Whole);
        assert_eq!(whole.index, 80);
        assert_eq!(whole.dead.len(), 4);
        assert_eq!(whole.expiries.len(), 3);
        assert!(whole.held.is_empty());
    }
}
