//! A bounded cache of what had to be opened, unpacked or worked out: chunk bodies, footers of encrypted blocks, wide filters.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::index::query::{Growing, Matching};
use super::index::sealed::SealedIndex;
use crate::filter::Filter;

/// What is cached of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Chunk(u32),
    Index,
    Filter(Filter),
}

/// A cached value.
#[derive(Debug, Clone)]
pub(super) enum Cached {
    Chunk(Bytes),
    Index(Arc<SealedIndex>),
    Matching(Arc<Matching>),
    Growing(Arc<Growing>),
}

impl Part {
    fn bytes(&self) -> usize {
        match self {
            Self::Chunk(_) | Self::Index => 0,
            // Once in the table and once in the order.
            Self::Filter(filter) => {
                let patterns = filter.patterns().iter();
                2 * patterns
                    .map(|pattern| 64 + pattern.as_bytes().len())
                    .sum::<usize>()
            }
        }
    }
}

impl Cached {
    fn bytes(&self, part: &Part) -> usize {
        ENTRY_OVERHEAD_BYTES
            + part.bytes()
            + match self {
                Self::Chunk(body) => body.len(),
                Self::Index(index) => index.heap_bytes() + index.packed_bytes(),
                Self::Matching(matching) => matching.heap_bytes(),
                Self::Growing(growing) => growing.heap_bytes(),
            }
    }
}

const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Which open block a cached part belongs to: never the same for two values of a block, so that nothing stale is ever found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BlockTicket(u64);

impl BlockTicket {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Shared by all blocks of a server; safe to use from any thread.
///
/// Entries that were used since the hand last passed get a second chance, so that one scan over cold data does not push out
/// what is asked for again and again.
pub struct BlockCache {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<(BlockTicket, Part), Entry>,
    order: VecDeque<(BlockTicket, Part)>,
    bytes: usize,
    hits: u64,
    misses: u64,
}

/// How a cache is used, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Bytes held.
    pub bytes: usize,
    /// Bytes that may be held.
    pub bytes_max: usize,
    /// How often what was asked for was there.
    pub hits: u64,
    /// How often it was not.
    pub misses: u64,
}

struct Entry {
    value: Cached,
    used: bool,
}

impl BlockCache {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            bytes_max,
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// How it is used.
    pub fn figures(&self) -> CacheFigures {
        let inner = self.inner.lock();
        CacheFigures {
            bytes: inner.bytes,
            bytes_max: self.bytes_max,
            hits: inner.hits,
            misses: inner.misses,
        }
    }

    pub(super) fn get(&self, ticket: BlockTicket, part: &Part) -> Option<Cached> {
        let mut inner = self.inner.lock();
        let key = (ticket, part.clone());
        let inner = &mut *inner;
        let Some(entry) = inner.entries.get_mut(&key) else {
            inner.misses += 1;
            return None;
        };
        inner.hits += 1;
        entry.used = true;
        Some(entry.value.clone())
    }

    pub(super) fn insert(&self, ticket: BlockTicket, part: Part, value: Cached) {
        let bytes = value.bytes(&part);
        if bytes > self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let key = (ticket, part);
        let entry = Entry { value, used: false };
        match inner.entries.insert(key.clone(), entry) {
            Some(before) => inner.bytes -= before.value.bytes(&key.1),
            None => inner.order.push_back(key),
        }
        inner.bytes += bytes;
        while inner.bytes > self.bytes_max {
            let Some(key) = inner.order.pop_front() else {
                return;
            };
            match inner.entries.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    inner.order.push_back(key);
                }
                _ => {
                    if let Some(entry) = inner.entries.remove(&key) {
                        inner.bytes -= entry.value.bytes(&key.1);
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "BlockCache({} of {} bytes)",
            self.bytes(),
            self.bytes_max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(length: usize) -> Cached {
        Cached::Chunk(Bytes::from(vec![1; length]))
    }

    #[test]
    fn it_never_holds_more_than_its_limit_and_keeps_what_is_used() {
        let cache = BlockCache::new(10_000);
        let ticket = BlockTicket::new();
        cache.insert(ticket, Part::Chunk(0), body(1000));
        for number in 1..100 {
            assert!(cache.get(ticket, &Part::Chunk(0)).is_some(), "{number}");
            cache.insert(ticket, Part::Chunk(number), body(1000));
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.get(ticket, &Part::Chunk(1)).is_none());
        assert!(cache.get(ticket, &Part::Chunk(99)).is_some());
        cache.insert(ticket, Part::Chunk(100), body(10_001));
        assert!(cache.get(ticket, &Part::Chunk(100)).is_none());
        assert!(cache.get(BlockTicket::new(), &Part::Chunk(99)).is_none());
        let figures = cache.figures();
        assert_eq!((figures.hits, figures.misses), (100, 3));
        assert_eq!((figures.bytes, figures.bytes_max), (cache.bytes(), 10_000));
    }
}
