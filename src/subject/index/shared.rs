//! An index that is read while it changes: readers never wait, and never keep a writer from the next change for longer than one look takes.
//!
//! There are two copies. Readers use the current one; a writer changes the other, puts it in the place of the current one, and then changes
//! that one in the same way, at once if nobody is reading it any more, otherwise before the next change.
//!
//! # Invariant
//! Both copies hold the same entries, but for the changes in `behind`, which the spare copy still lacks.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Indexed, InvalidSubject, Matches, SubjectIndex};

/// What knows by itself where it belongs in an index.
pub trait Listening: Indexed {
    /// The pattern it listens on.
    fn pattern(&self) -> &[u8];
    /// Its queue group.
    fn queue(&self) -> Option<&[u8]>;
}

/// Entries by the pattern they listen on, for many readers at a time.
#[derive(Debug)]
pub struct SharedIndex<T> {
    current: ArcSwap<SubjectIndex<T>>,
    writer: Mutex<Writer<T>>,
}

#[derive(Debug)]
struct Writer<T> {
    spare: Arc<SubjectIndex<T>>,
    behind: Vec<Change<T>>,
}

#[derive(Debug)]
enum Change<T> {
    Insert(T),
    Remove(T),
}

impl<T> Default for SharedIndex<T> {
    fn default() -> Self {
        Self {
            current: ArcSwap::default(),
            writer: Mutex::new(Writer {
                spare: Arc::default(),
                behind: Vec::new(),
            }),
        }
    }
}

impl<T: Listening> SharedIndex<T> {
    /// Looks at the index as it is now. What changes meanwhile is not seen; a writer may have to wait for `look` to end, so that it must be short
    /// and change nothing itself.
    pub fn read<R>(&self, look: impl FnOnce(&SubjectIndex<T>) -> R) -> R {
        look(&self.current.load())
    }

    /// Collects all that matches a subject.
    pub fn matches(&self, subject: &[u8], found: &mut Matches<T>) {
        self.current.load().matches(subject, found);
    }

    /// Adds an entry.
    pub fn insert(&self, entry: &T) -> Result<(), InvalidSubject> {
        let mut writer = self.writer.lock();
        let spare = writer.catch_up();
        spare.insert(entry.pattern(), entry.queue(), entry.clone())?;
        self.publish(&mut writer, [Change::Insert(entry.clone())]);
        Ok(())
    }

    /// Removes entries as one change, and says how many of them were there; `removed` is shown each of these, before readers miss it.
    pub fn remove_all(&self, entries: &[T], mut removed: impl FnMut(&T)) -> usize {
        let mut writer = self.writer.lock();
        let spare = writer.catch_up();
        let mut gone = Vec::new();
        for entry in entries {
            if spare.remove(entry.pattern(), entry.queue(), entry.id()) {
                removed(entry);
                gone.push(Change::Remove(entry.clone()));
            }
        }
        let count = gone.len();
        if count > 0 {
            self.publish(&mut writer, gone);
        }
        count
    }

    /// Lets readers see the changed copy, and changes the other one if nobody reads it.
    fn publish(&self, writer: &mut Writer<T>, changes: impl IntoIterator<Item = Change<T>>) {
        let changed = std::mem::take(&mut writer.spare);
        writer.spare = self.current.swap(changed);
        writer.behind.extend(changes);
        if let Some(spare) = Arc::get_mut(&mut writer.spare) {
            apply(spare, &mut writer.behind);
        }
    }
}

impl<T: Listening> Writer<T> {
    /// The spare copy with everything that the current one has, as soon as its last reader has left it.
    fn catch_up(&mut self) -> &mut SubjectIndex<T> {
        while Arc::get_mut(&mut self.spare).is_none() {
            std::thread::yield_now();
        }
        let Self { spare, behind } = self;
        let spare =
            Arc::get_mut(spare).unwrap_or_else(|| unreachable!("nobody comes to the spare copy"));
        apply(spare, behind);
        spare
    }
}

/// Makes changes that another copy has taken already.
fn apply<T: Listening>(index: &mut SubjectIndex<T>, changes: &mut Vec<Change<T>>) {
    for change in changes.drain(..) {
        match change {
            Change::Insert(entry) => {
                let inserted = index.insert(entry.pattern(), entry.queue(), entry.clone());
                debug_assert!(inserted.is_ok(), "the other copy has taken it");
            }
            Change::Remove(entry) => {
                let removed = index.remove(entry.pattern(), entry.queue(), entry.id());
                debug_assert!(removed, "the other copy had it");
            }
        }
    }
    // What a large change needed is not kept.
    changes.shrink_to(16);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Clone)]
    struct Entry(Arc<(u64, String)>);

    impl Indexed for Entry {
        fn id(&self) -> u64 {
            self.0.0
        }
    }

    impl Listening for Entry {
        fn pattern(&self) -> &[u8] {
            self.0.1.as_bytes()
        }

        fn queue(&self) -> Option<&[u8]> {
            None
        }
    }

    fn entry(id: u64, pattern: &str) -> Entry {
        Entry(Arc::new((id, pattern.to_owned())))
    }

    /// Whether it was there.
    fn remove(index: &SharedIndex<Entry>, entry: &Entry) -> bool {
        index.remove_all(std::slice::from_ref(entry), |_| {}) == 1
    }

    fn found(index: &SharedIndex<Entry>, subject: &str) -> Vec<u64> {
        let mut found = Matches::default();
        index.matches(subject.as_bytes(), &mut found);
        found.plain.iter().map(Indexed::id).collect()
    }

    #[test]
    fn a_change_is_seen_by_whoever_looks_next_and_not_by_who_looks_already() {
        let index = SharedIndex::default();
        index.insert(&entry(1, "a.*")).unwrap();
        index.read(|before| {
            index.insert(&entry(2, "a.b")).unwrap();
            assert_eq!(before.len(), 1);
            assert_eq!(found(&index, "a.b").len(), 2);
        });
        assert!(index.insert(&entry(3, "a..b")).is_err());
        assert_eq!(index.read(SubjectIndex::len), 2);
        assert!(remove(&index, &entry(2, "a.b")));
        assert!(!remove(&index, &entry(2, "a.b")));
        assert_eq!(found(&index, "a.b"), [1]);
    }

    #[test]
    fn what_is_removed_is_kept_by_neither_copy() {
        let index = SharedIndex::default();
        let entries: Vec<Entry> = (0..100)
            .map(|id| entry(id, &format!("a.{}", id % 7)))
            .collect();
        for entry in &entries {
            index.insert(entry).unwrap();
        }
        let mut shown = 0;
        assert_eq!(index.remove_all(&entries[10..], |_| shown += 1), 90);
        assert_eq!(shown, 90);
        assert_eq!(index.remove_all(&entries, |_| {}), 10);
        assert!(entries.iter().all(|entry| Arc::strong_count(&entry.0) == 1));
        assert!(index.read(SubjectIndex::is_empty));
    }

    #[test]
    fn readers_always_see_one_whole_state() {
        let index = SharedIndex::default();
        let (one, other) = (entry(1, "a.*"), entry(2, "*.b"));
        index.insert(&one).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let seen = found(&index, "a.b");
                        assert!(!seen.is_empty() && seen.len() <= 2, "{seen:?}");
                    }
                });
            }
            for _ in 0..2_000 {
                index.insert(&other).unwrap();
                assert!(remove(&index, &one));
                index.insert(&one).unwrap();
                assert!(remove(&index, &other));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(found(&index, "a.b"), [1]);
    }
}
