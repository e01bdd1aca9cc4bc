//! `SUB` and `UNSUB`: what a client listens on.

use std::sync::Arc;

use bytes::Bytes;

use super::session::Session;
use crate::broker::{Subscription, Target};
use crate::protocol::quote::quoted;
use crate::subject;

/// The queue group of the server's own parts.
const SYSTEM_QUEUE: &[u8] = b"_sys_";
/// Ended subscriptions are not looked for below this many.
const SWEEP_MIN: usize = 64;

impl Session {
    pub(super) fn subscribe(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        self.trace.subscribe(subject, queue, sid);
        if queue == Some(SYSTEM_QUEUE) || !self.may_subscribe(subject, queue) {
            return self.report_violation(subscription_violation(subject, queue));
        }
        let tokens_max = self.terms.options.subscription_tokens_max;
        if tokens_max.is_some_and(|max| max > 0 && token_count(subject) > usize::from(max)) {
            return self.report_violation(format!(
                "Permissions Violation for Subscription to {}, too many tokens",
                quoted(subject)
            ));
        }
        if self.is_at_subscription_limit() {
            return self.send_error("maximum subscriptions exceeded");
        }
        let is_known = self
            .client
            .subscriptions()
            .get(sid)
            .is_some_and(|known| !known.is_closed());
        if !is_known && !self.add(subject, queue, sid) {
            return self.send_error("Invalid Subject");
        }
        self.send_ok_when_verbose();
    }

    fn may_subscribe(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        self.permissions
            .as_ref()
            .is_none_or(|permissions| permissions.may_subscribe(subject, queue))
    }

    /// Whether there is no room for another subscription, after ended ones are forgotten.
    fn is_at_subscription_limit(&mut self) -> bool {
        let Some(max) = self.subscriptions_max else {
            return false;
        };
        let is_full = |session: &Self| session.client.subscriptions().len() as u64 >= max;
        is_full(self) && {
            self.forget_ended();
            is_full(self)
        }
    }

    /// Adds a subscription; `false` when the subject is malformed.
    fn add(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) -> bool {
        // One allocation holds all three texts.
        let queue_bytes = queue.unwrap_or_default();
        let texts = Bytes::from([subject, sid, queue_bytes].concat());
        let deny = self
            .permissions
            .as_ref()
            .and_then(|permissions| permissions.filter_for(subject, queue));
        let subscription = Arc::new(Subscription::new(
            texts.slice(..subject.len()),
            queue.map(|_| texts.slice(subject.len() + sid.len()..)),
            Target::Client {
                client: Arc::clone(&self.client),
                sid: texts.slice(subject.len()..subject.len() + sid.len()),
            },
            deny,
        ));
        if self.account.insert(&subscription).is_err() {
            return false;
        }
        let held = {
            let mut subscriptions = self.client.subscriptions();
            subscriptions.insert(sid.into(), subscription);
            subscriptions.len()
        };
        if held >= self.sweep_at.max(SWEEP_MIN) {
            self.forget_ended();
        }
        self.interest_changed = true;
        true
    }

    pub(super) fn unsubscribe(&mut self, sid: &[u8], max: u64) {
        self.trace.unsubscribe(sid, max);
        let ended = {
            let mut subscriptions = self.client.subscriptions();
            let ends = |found: &Arc<Subscription>| max == 0 || !found.end_after(max);
            match subscriptions.get(sid).is_some_and(ends) {
                true => subscriptions.remove(sid),
                false => None,
            }
        };
        if let Some(subscription) = ended {
            self.account.remove(&subscription);
            self.interest_changed = true;
        }
        self.send_ok_when_verbose();
    }

    pub(super) fn end_all_subscriptions(&mut self) {
        // Taken out first: removal tells others, which must not happen under the lock.
        let ended = std::mem::take(&mut *self.client.subscriptions());
        let ended: Vec<Arc<Subscription>> = ended
            .into_values()
            .filter(|subscription| !subscription.is_closed())
            .collect();
        self.account.remove_all(&ended);
    }

    /// Forgets subscriptions that ended by reaching their last delivery, which happens elsewhere.
    fn forget_ended(&mut self) {
        let mut subscriptions = self.client.subscriptions();
        subscriptions.retain(|_, subscription| !subscription.is_closed());
        let held = subscriptions.len();
        drop(subscriptions);
        self.sweep_at = held * 2;
    }
}

/// Counts empty tokens too: the limit comes before the grammar.
fn token_count(subject: &[u8]) -> usize {
    subject::tokens(subject).count()
}

fn subscription_violation(subject: &[u8], queue: Option<&[u8]>) -> String {
    let mut text = format!(
        "Permissions Violation for Subscription to {}",
        quoted(subject)
    );
    if let Some(queue) = queue {
        text.push_str(" using queue ");
        text.push_str(&quoted(queue));
    }
    text
}
