//! How much of what replicas elsewhere asked for may be on its way to them at a time.
//!
//! A replica asks for one slice after the other: with its next question, what it was sent before has arrived. Where too much is on its way to all of them together, an
//! answer waits for others to arrive, in the order in which it was asked for, and no longer than whoever asks waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raft::group::GroupNumber;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What a replica does not ask on from within this time has arrived, or never will.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// The replica that asks: on which server, and of which group.
type Asker = (Arc<str>, GroupNumber);

/// What is on its way.
pub(crate) struct Outstanding {
    bytes_max: u32,
    /// A permit for each byte. Those who wait get theirs in turn, so that one who needs many is not passed by for ever by those who need few.
    room: Arc<Semaphore>,
    sent: Mutex<HashMap<Asker, Sent>>,
}

struct Sent {
    _room: OwnedSemaphorePermit,
    at: Instant,
}

/// Too much was on its way to others for as long as could be waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is on its way to other replicas")]
pub(crate) struct Crowded;

impl Outstanding {
    /// At most so many bytes; one slice is sent in any case.
    pub fn new(bytes_max: u64) -> Self {
        // More than can be counted here is never on its way.
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX).max(1);
        let permits = usize::try_from(bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            bytes_max,
            room: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            sent: Mutex::default(),
        }
    }

    /// A replica asks for so many bytes at most: what it was sent before has arrived. Ready when they may be sent, or when it does not wait any more.
    pub async fn admit(&self, asker: Asker, bytes: u64, within: Duration) -> Result<(), Crowded> {
        self.sent.lock().remove(&asker);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = bytes.clamp(1, self.bytes_max);
        let deadline = Instant::now() + within;
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        tokio::pin!(room);
        loop {
            // What is forgotten is told by nobody.
            let forgotten = self.forget().min(deadline);
            tokio::select! {
                biased;
                room = &mut room => {
                    // It is never closed.
                    let _room = room.map_err(|_| Crowded)?;
                    let at = Instant::now();
                    self.sent.lock().insert(asker, Sent { _room, at });
                    return Ok(());
                }
                () = tokio::time::sleep_until(forgotten) => if Instant::now() >= deadline {
                    return Err(Crowded);
                }
            }
        }
    }

    /// Forgets what was sent long ago, and says when there may be more of that.
    fn forget(&self) -> Instant {
        let mut sent = self.sent.lock();
        let now = Instant::now();
        sent.retain(|_, sent| now - sent.at < FORGOTTEN_AFTER);
        let oldest = sent.values().map(|sent| sent.at).min();
        oldest.unwrap_or(now) + FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn asker(server: &str) -> Asker {
        (Arc::from(server), GroupNumber(1))
    }

    async fn is_admitted(outstanding: &Outstanding, server: &str, bytes: u64) -> bool {
        let admitted = outstanding.admit(asker(server), bytes, PATIENCE).await;
        admitted.is_ok()
    }

    /// Asks in a task of its own, which has begun to wait when this returns.
    async fn waits(outstanding: &Arc<Outstanding>, server: &str, bytes: u64) -> Waits {
        let (outstanding, asker) = (Arc::clone(outstanding), asker(server));
        let patience = Duration::from_secs(60);
        let asked = async move { outstanding.admit(asker, bytes, patience).await };
        let asked = tokio::spawn(asked);
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        asked
    }

    type Waits = tokio::task::JoinHandle<Result<(), Crowded>>;

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
        let waiting = waits(&outstanding, "b", 30).await;
        assert!(is_admitted(&outstanding, "a", 10).await);
        waiting.await.unwrap().expect("it is admitted");
        assert!(!is_admitted(&outstanding, "c", 80).await);
        let waiting = waits(&outstanding, "c", 80).await;
        waiting.await.unwrap().expect("the others are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_much_is_not_passed_by_those_who_need_little() {
        let outstanding = Arc::new(Outstanding::new(100));
        assert!(is_admitted(&outstanding, "a", 60).await);
        let much = waits(&outstanding, "b", 80).await;
        // There would be room for it, and it comes later.
        let little = waits(&outstanding, "c", 20).await;
        assert!(!is_admitted(&outstanding, "d", 1).await);
        outstanding.sent.lock().remove(&asker("a"));
        much.await.unwrap().expect("it is its turn");
        little.await.unwrap().expect("there is room beside it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_any_more_stands_in_nobodys_way() {
        let outstanding = Outstanding::new(100);
        let begun = Instant::now();
        assert!(is_admitted(&outstanding, "a", 60).await);
        assert!(!is_admitted(&outstanding, "b", 80).await);
        assert_eq!(begun.elapsed().as_millis(), PATIENCE.as_millis());
        assert!(is_admitted(&outstanding, "c", 40).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_that_is_larger_than_all_is_sent_alone() {
        let outstanding = Outstanding::new(10);
        assert!(is_admitted(&outstanding, "a", 500).await);
        assert!(!is_admitted(&outstanding, "b", 1).await);
        assert!(is_admitted(&outstanding, "a", 500).await);
        assert!(!is_admitted(&outstanding, "b", 1).await);
    }
}
