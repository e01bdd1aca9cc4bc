//! Which streams take nothing any more, and why: what the server's health is judged by.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The streams of all shards that are offline, by slot.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    offline: Mutex<BTreeMap<u64, String>>,
}

impl Faults {
    /// A stream has gone offline.
    pub(super) fn note(&self, slot: u64, reason: String) {
        self.offline.lock().entry(slot).or_insert(reason);
    }

    /// A stream is gone, and its fault with it.
    pub(super) fn forget(&self, slot: u64) {
        self.offline.lock().remove(&slot);
    }

    /// The oldest stream's fault.
    pub(crate) fn first(&self) -> Option<String> {
        self.offline.lock().values().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::Faults;

    #[test]
    fn the_first_reason_stays_until_the_stream_is_gone() {
        let faults = Faults::default();
        assert_eq!(faults.first(), None);
        faults.note(2, "b".into());
        faults.note(1, "a".into());
        faults.note(1, "later".into());
        assert_eq!(faults.first().as_deref(), Some("a"));
        faults.forget(1);
        assert_eq!(faults.first().as_deref(), Some("b"));
    }
}
