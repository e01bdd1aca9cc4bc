//! How much of what replicas elsewhere asked for may be on its way to them at a time.
//!
//! A replica asks for one slice after the other: with its next question, what it was sent before has arrived. Where too much is on its way to all of them together, an
//! answer waits for another one to arrive.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::GroupNumber;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a replica does not ask on from within this time has arrived, or never will.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// The replica that asks: on which server, and of which group.
type Asker = (Arc<str>, GroupNumber);

/// What is on its way.
pub(crate) struct Outstanding {
    bytes_max: u64,
    sent: Mutex<HashMap<Asker, Sent>>,
    arrived: Notify,
}

struct Sent {
    bytes: u64,
    at: Instant,
}

impl Outstanding {
    /// At most so many bytes; one slice is sent in any case.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            sent: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// A replica asks for so many bytes at most: what it was sent before has arrived. Ready when they may be sent.
    pub async fn admit(&self, asker: Asker, bytes: u64) {
        if self.sent.lock().remove(&asker).is_some() {
            self.arrived.notify_waiters();
        }
        loop {
            let arrived = self.arrived.notified();
            if self.has_room(&asker, bytes) {
                return;
            }
            // What is forgotten is told by nobody.
            let _ = tokio::time::timeout(FORGOTTEN_AFTER, arrived).await;
        }
    }

    fn has_room(&self, asker: &Asker, bytes: u64) -> bool {
        let mut sent = self.sent.lock();
        let now = Instant::now();
        sent.retain(|_, sent| now - sent.at < FORGOTTEN_AFTER);
        let under_way: u64 = sent.values().map(|sent| sent.bytes).sum();
        if under_way > 0 && under_way.saturating_add(bytes) > self.bytes_max {
            return false;
        }
        sent.insert(asker.clone(), Sent { bytes, at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(server: &str) -> Asker {
        (Arc::from(server), GroupNumber(1))
    }

    async fn is_admitted(outstanding: &Outstanding, server: &str, bytes: u64) -> bool {
        let admitted = outstanding.admit(asker(server), bytes);
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, admitted).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_on_its_way_than_there_may_be() {
        let outstanding = Outstanding::new(100);
        assert!(is_admitted(&outstanding, "a", 60).await);
        assert!(!is_admitted(&outstanding, "b", 60).await);
        assert!(is_admitted(&outstanding, "b", 40).await);
        assert!(
            is_admitted(&outstanding, "a", 60).await,
            "the first arrived"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_on_when_something_arrives_or_is_forgotten() {
        let outstanding = Arc::new(Outstanding::new(100));
        assert!(is_admitted(&outstanding, "a", 100).await);
        let waiting = Arc::clone(&outstanding);
        let waiting = tokio::spawn(async move { waiting.admit(asker("b"), 30).await });
        assert!(is_admitted(&outstanding, "a", 10).await);
        waiting.await.expect("it is admitted");
        assert!(!is_admitted(&outstanding, "c", 80).await);
        outstanding.admit(asker("c"), 80).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_that_is_larger_than_all_is_sent_alone() {
        let outstanding = Outstanding::new(10);
        assert!(is_admitted(&outstanding, "a", 500).await);
        assert!(!is_admitted(&outstanding, "b", 1).await);
        assert!(is_admitted(&outstanding, "a", 500).await);
    }
}
