//! tokio's watch channel, but for the order in which receivers wake: as they began to wait.
//!
//! tokio spreads receivers over several lists and draws the list at random, from a source that counts on through the process. A simulation needs the
//! same order every time.

use std::sync::Arc;

use openraft::async_runtime::watch::{RecvError, SendError};
use openraft::async_runtime::{Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use tokio::sync::{Notify, watch};

/// See the module.
#[derive(Debug)]
pub struct OrderedWatch;

/// The side that changes the value.
pub struct Sender<T>(Arc<Sending<T>>);

/// A side that follows it.
pub struct Receiver<T> {
    value: watch::Receiver<T>,
    waiting: Arc<Notify>,
}

struct Sending<T> {
    // In this order: receivers that wake for the end find the channel closed.
    value: watch::Sender<T>,
    waiting: WakesWhenDropped,
}

struct WakesWhenDropped(Arc<Notify>);

impl Drop for WakesWhenDropped {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            waiting: Arc::clone(&self.waiting),
        }
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (value, receiver) = watch::channel(init);
        let waiting = Arc::new(Notify::new());
        let sending = Sending {
            value,
            waiting: WakesWhenDropped(Arc::clone(&waiting)),
        };
        let receiver = Receiver {
            value: receiver,
            waiting,
        };
        (Sender(Arc::new(sending)), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        let sent = self.0.value.send(value);
        self.0.waiting.0.notify_waiters();
        sent.map_err(|unsent| SendError(unsent.0))
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.0.value.send_if_modified(modify);
        if modified {
            self.0.waiting.0.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.value.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver {
            value: self.0.value.subscribe(),
            waiting: Arc::clone(&self.0.waiting.0),
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut woken = std::pin::pin!(self.waiting.notified());
            // In line before the look, so that no change falls between the two.
            woken.as_mut().enable();
            match self.value.has_changed() {
                Ok(true) => break,
                Ok(false) => woken.await,
                // What was sent last is seen before the end, as in tokio's channel, which does not wait here.
                Err(_) => return self.value.changed().await.map_err(|_| RecvError(())),
            }
        }
        self.value.mark_unchanged();
        Ok(())
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.value.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_sent_last_is_seen_before_the_end() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        assert!(sender.send(1).is_ok());
        drop(sender);
        assert!(receiver.changed().await.is_ok());
        assert_eq!(*receiver.borrow_watched(), 1);
        assert!(receiver.changed().await.is_err());
    }
}
