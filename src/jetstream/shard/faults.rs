//! Which streams take nothing any more, and whether anything can be stored at all: what the server's health is judged by.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use storage::disk::DiskErrorKind;
use storage::journal::JournalError;

/// Why nothing can be stored on this server any more. JetStream ends then, and the rest of the server goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageCause {
    /// The disk is full.
    NoSpace,
    /// The server may not write to its own files.
    PermissionDenied,
}

impl OutageCause {
    /// The cause, where an error of the log is one that ends JetStream and not the streams in it alone.
    pub(super) fn of(error: &JournalError) -> Option<Self> {
        let JournalError::Failed(error) = error else {
            return None;
        };
        match error.kind {
            DiskErrorKind::Full => Some(Self::NoSpace),
            DiskErrorKind::PermissionDenied => Some(Self::PermissionDenied),
            _ => None,
        }
    }
}

/// That nothing can be stored any more, and which stream found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    pub cause: OutageCause,
    pub stream: String,
}

type OutageListener = Box<dyn Fn(&Outage) + Send + Sync>;

/// The streams of all shards that are offline, by slot.
#[derive(Default)]
pub(crate) struct Faults {
    offline: Mutex<BTreeMap<u64, String>>,
    outage: OnceLock<Outage>,
    outage_listener: OnceLock<OutageListener>,
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

    /// A stream's fault.
    pub(super) fn of(&self, slot: u64) -> Option<String> {
        self.offline.lock().get(&slot).cloned()
    }

    /// The oldest stream's fault.
    pub(crate) fn first(&self) -> Option<String> {
        self.offline.lock().values().next().cloned()
    }

    /// Nothing can be stored any more. The first to say so is heard.
    pub(super) fn give_out(&self, outage: Outage) {
        if self.outage.set(outage).is_ok()
            && let (Some(outage), Some(listener)) = (self.outage.get(), self.outage_listener.get())
        {
            listener(outage);
        }
    }

    /// Whom to tell, on a shard's thread, that nothing can be stored any more. Set once, before there are streams.
    pub(super) fn on_outage(&self, listener: impl Fn(&Outage) + Send + Sync + 'static) {
        let _ = self.outage_listener.set(Box::new(listener));
    }

    /// That nothing can be stored any more, when that is so.
    pub(crate) fn outage(&self) -> Option<&Outage> {
        self.outage.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use storage::disk::DiskError;

    use super::*;

    #[test]
    fn the_first_reason_stays_until_the_stream_is_gone() {
        let faults = Faults::default();
        assert_eq!(faults.first(), None);
        faults.note(2, "b".into());
        faults.note(1, "a".into());
        faults.note(1, "later".into());
        assert_eq!(faults.first().as_deref(), Some("a"));
        assert_eq!(faults.of(2).as_deref(), Some("b"));
        faults.forget(1);
        assert_eq!(faults.first().as_deref(), Some("b"));
    }

    #[test]
    fn an_outage_is_heard_once() {
        let faults = Faults::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        faults.on_outage(move |outage| hears.lock().push(outage.clone()));
        let outage = |stream: &str| Outage {
            cause: OutageCause::NoSpace,
            stream: stream.to_owned(),
        };
        faults.give_out(outage("first"));
        faults.give_out(outage("second"));
        assert_eq!(*heard.lock(), [outage("first")]);
        assert_eq!(faults.outage(), Some(&outage("first")));
    }

    #[test]
    fn a_full_disk_is_an_outage_and_a_broken_one_is_not() {
        let failed = |kind| {
            JournalError::Failed(DiskError {
                operation: "write",
                path: "journal".into(),
                kind,
            })
        };
        let causes = [
            DiskErrorKind::Full,
            DiskErrorKind::PermissionDenied,
            DiskErrorKind::Io("it burns".to_owned()),
        ]
        .map(|kind| OutageCause::of(&failed(kind)));
        assert_eq!(
            causes,
            [
                Some(OutageCause::NoSpace),
                Some(OutageCause::PermissionDenied),
                None
            ]
        );
        assert_eq!(OutageCause::of(&JournalError::Closed), None);
    }
}
