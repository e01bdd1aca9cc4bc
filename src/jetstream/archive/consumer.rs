//! `o.dat`: how far a consumer has come.
//!
//! ```text
//! 22, 2 | floor: delivery, sequence | delivered: delivery, sequence | count of pending
//! if there are any: a time in seconds, signed; each: sequence - floor, delivery - floor, that time - its time in seconds, signed
//! count of redelivered, each: sequence - floor, how often beyond the first time
//! ```
//!
//! Version 1 says no delivery of what is pending, counts times from the earliest one, and what was delivered from the floor on.

use std::collections::BTreeMap;

use super::bytes::{NumberError, Scan, put_number, put_signed};
use crate::jetstream::core::{Pending, Place, Progress};

const MAGIC: u8 = 22;
const VERSION: u8 = 2;
/// Above this there are marks, not sequences.
const SEQUENCE_MAX: u64 = i64::MAX as u64;
const SECOND_NS: i64 = 1_000_000_000;

/// Why it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerStateError {
    /// It is of another kind or version.
    #[error("it is of an unknown version")]
    Version,
    /// It cannot be read.
    #[error(transparent)]
    Number(#[from] NumberError),
}

/// Reads the state of a consumer.
pub fn read_consumer_state(bytes: &[u8]) -> Result<Progress, ConsumerStateError> {
    let mut scan = Scan(bytes);
    let [magic, version] = scan.chunk()?;
    if magic != MAGIC || !(1..=VERSION).contains(&version) {
        return Err(ConsumerStateError::Version);
    }
    let mut place = || -> Result<Place, NumberError> {
        Ok(Place {
            consumer: scan.number()?,
            stream: scan.number()?,
        })
    };
    let floor = place()?;
    let mut delivered = place()?;
    let above = |base: u64, more: u64| {
        let sum = base.checked_add(more);
        sum.ok_or(NumberError::Range("a sequence of more than 64 bits"))
    };
    if version == 1 {
        // The first that is delivered is counted there when something was.
        let one_less = |base: u64| u64::from(base > 1);
        delivered.consumer =
            above(floor.consumer, delivered.consumer)?.saturating_sub(one_less(floor.consumer));
        delivered.stream =
            above(floor.stream, delivered.stream)?.saturating_sub(one_less(floor.stream));
    }
    let mut pending = BTreeMap::new();
    // Counts are not believed: everything counted takes bytes that must be there.
    let count = scan.number()?;
    if count > 0 {
        let base = scan.signed()?;
        for _ in 0..count {
            let stream = above(floor.stream, scan.number()?)?;
            let consumer_sequence = match version {
                1 => 0,
                // Written as a difference that may be below zero.
                _ => floor.consumer.wrapping_add(scan.number()?),
            };
            let offset = scan.signed()?;
            let seconds = match version {
                1 => base.saturating_add(offset),
                _ => base.saturating_sub(offset),
            };
            let time_ns = seconds.saturating_mul(SECOND_NS);
            pending.insert(
                stream,
                Pending {
                    consumer_sequence,
                    time_ns,
                },
            );
        }
    }
    let mut redelivered = BTreeMap::new();
    for _ in 0..scan.number()? {
        let stream = above(floor.stream, scan.number()?)?;
        redelivered.insert(stream, scan.number()?);
    }
    // What is settled is not pending, and what is settled was delivered.
    pending.remove(&floor.stream);
    redelivered.remove(&floor.stream);
    delivered.stream = delivered.stream.max(floor.stream);
    delivered.consumer = delivered.consumer.max(floor.consumer);
    let highest = pending.last_key_value().map_or(0, |(stream, _)| *stream);
    let furthest = delivered.stream.max(delivered.consumer);
    if highest > delivered.stream || furthest > SEQUENCE_MAX {
        return Err(NumberError::Range("a sequence that was never delivered").into());
    }
    Ok(Progress {
        delivered,
        floor,
        pending,
        redelivered,
        ..Progress::default()
    })
}

/// Writes the state of a consumer at a time.
pub fn write_consumer_state(progress: &Progress, now_ns: i64) -> Vec<u8> {
    let mut bytes = vec![MAGIC, VERSION];
    let Progress {
        delivered, floor, ..
    } = progress;
    for number in [
        floor.consumer,
        floor.stream,
        delivered.consumer,
        delivered.stream,
    ] {
        put_number(&mut bytes, number);
    }
    // What lies at the floor or below cannot be said, and is settled.
    let above = |sequence: &u64| sequence.checked_sub(floor.stream).filter(|more| *more > 0);
    let pending: Vec<_> = (progress.pending.iter())
        .filter_map(|(sequence, pending)| Some((above(sequence)?, pending)))
        .collect();
    put_number(&mut bytes, pending.len() as u64);
    let now = now_ns.div_euclid(SECOND_NS);
    if !pending.is_empty() {
        put_signed(&mut bytes, now);
    }
    for (more, pending) in pending {
        put_number(&mut bytes, more);
        let delivery = pending.consumer_sequence.saturating_sub(floor.consumer);
        put_number(&mut bytes, delivery);
        put_signed(&mut bytes, now - pending.time_ns.div_euclid(SECOND_NS));
    }
    let redelivered: Vec<_> = (progress.redelivered.iter())
        .filter_map(|(sequence, times)| Some((above(sequence)?, *times)))
        .collect();
    put_number(&mut bytes, redelivered.len() as u64);
    for (more, times) in redelivered {
        put_number(&mut bytes, more);
        put_number(&mut bytes, times);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut progress = Progress {
            delivered: Place {
                consumer: 12,
                stream: 20,
            },
            floor: Place {
                consumer: 3,
                stream: 7,
            },
            ..Progress::default()
        };
        for (sequence, delivery) in [(9, 5), (20, 12)] {
            let pending = Pending {
                consumer_sequence: delivery,
                time_ns: 50 * SECOND_NS,
            };
            progress.pending.insert(sequence, pending);
        }
        progress.redelivered.insert(9, 2);
        progress
    }

    #[test]
    fn progress_comes_back() {
        let bytes = write_consumer_state(&progress(), 60 * SECOND_NS);
        assert_eq!(read_consumer_state(&bytes), Ok(progress()));
        for cut in 0..bytes.len() {
            assert!(read_consumer_state(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn an_untouched_consumer_is_eight_bytes() {
        let bytes = [22, 2, 0, 0, 0, 0, 0, 0];
        assert_eq!(read_consumer_state(&bytes), Ok(Progress::default()));
        assert_eq!(write_consumer_state(&Progress::default(), 5), bytes);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |bytes: &[u8]| read_consumer_state(bytes).is_err();
        assert!(refused(&[22, 3, 0, 0, 0, 0, 0, 0]));
        assert!(refused(&[22, 2, 0, 0, 1, 1, 1, 2, 2, 1, 2, 0]), "pending");
        let mut far = vec![22, 2, 0, 0];
        put_number(&mut far, u64::MAX);
        far.extend([1, 0, 0]);
        assert!(refused(&far), "no delivery could follow");
    }
}
