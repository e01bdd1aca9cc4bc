//! A connection looks at what has changed around it: who it is now, what it may do, and what it may use.

use std::sync::Arc;

use super::authentication::{HashCheck, Login, Verdict};
use super::session::{Session, Stage};
use super::trace::Trace;
use crate::broker::{CloseReason, Subscription, Target};
use crate::protocol::quote::quoted;
use tokio::time::Instant;

impl Session {
    /// Takes up new terms, when there are any. A slow comparison may have to be made before the client can stay.
    pub(super) fn review(&mut self) -> Result<Option<HashCheck>, CloseReason> {
        let terms = self.clients.terms();
        if Arc::ptr_eq(&terms, &self.terms) {
            return Ok(None);
        }
        self.terms = terms;
        self.entrance = self.terms.entrance(self.entrance.kind).clone();
        let options = &self.terms.options;
        self.client
            .outbox()
            .set_write_deadline(options.write_deadline);
        self.client.set_traced(options.trace);
        self.trace = Trace::new(options, &self.client);
        let (interval, most) = (self.entrance.ping_interval, options.pings_outstanding_max);
        self.pings.change(interval, most, Instant::now());
        self.deadline_changed = true;
        self.apply_limits();
        match self.stage {
            // It is looked at when it says who it is.
            Stage::Authenticating { .. } => Ok(None),
            Stage::Anonymous if !self.entrance.authenticator.is_required() => Ok(None),
            Stage::Anonymous | Stage::Connected => self.prove_again(),
        }
    }

    /// Whether the client is still who it was.
    fn prove_again(&mut self) -> Result<Option<HashCheck>, CloseReason> {
        match self.entrance.authenticator.check(&self.credentials()) {
            Verdict::Granted(login) => self.stay(login).map(|()| None),
            Verdict::Hash(check) => {
                self.is_under_review = true;
                Ok(Some(check))
            }
            // Who is gone is let go without a word, as the reference does.
            Verdict::Refused if !self.entrance.authenticator.knows(&self.request) => {
                Err(CloseReason::ClientClosed)
            }
            Verdict::Refused => Err(self.refuse_login()),
        }
    }

    /// The client is who it was; what it may do may be different.
    pub(super) fn stay(&mut self, login: Login) -> Result<(), CloseReason> {
        self.is_under_review = false;
        if !login.may_come_by(self.entrance.kind) {
            return Err(self.refuse_login());
        }
        if !Arc::ptr_eq(&login.account, &self.account) {
            // It will find itself in its new account when it comes again.
            return Err(CloseReason::ClientClosed);
        }
        self.apply_limits();
        self.take_permissions(&login);
        self.login = Some(login);
        self.check_subscriptions();
        let most = self.subscriptions_max;
        if most.is_some_and(|most| self.client.subscription_count() > most) {
            self.send_error("maximum subscriptions exceeded");
            return Err(CloseReason::MaxSubscriptionsExceeded);
        }
        Ok(())
    }

    /// Ends the subscriptions that the client may not have any more, and filters the others as it may hear them now.
    fn check_subscriptions(&mut self) {
        let all: Vec<(Box<[u8]>, Arc<Subscription>)> = self
            .client
            .subscriptions()
            .iter()
            .map(|(sid, subscription)| (sid.clone(), Arc::clone(subscription)))
            .collect();
        for (sid, subscription) in all {
            let (subject, queue) = (&*subscription.subject, subscription.queue.as_deref());
            let permissions = self.permissions.as_ref();
            if permissions.is_some_and(|permissions| !permissions.may_subscribe(subject, queue)) {
                self.account.remove(&subscription);
                self.client.subscriptions().remove(&sid);
                self.tell_of_removal(subject, queue, &sid);
                continue;
            }
            let deny = permissions.and_then(|permissions| permissions.filter_for(subject, queue));
            if deny.is_none() && subscription.deny.is_none() || subscription.is_closed() {
                continue;
            }
            let Target::Client { client, sid: name } = &subscription.target else {
                continue;
            };
            let target = Target::Client {
                client: Arc::clone(client),
                sid: name.clone(),
            };
            let filtered = Arc::new(subscription.with_deny(target, deny));
            if self.account.insert(&filtered).is_ok() {
                self.account.remove(&subscription);
                self.client.subscriptions().insert(sid, filtered);
            }
        }
    }

    fn tell_of_removal(&mut self, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let using = match queue {
            Some(queue) => format!(" using queue {}", quoted(queue)),
            None => String::new(),
        };
        let (subject, sid) = (quoted(subject), quoted(sid));
        self.send_error(&format!(
            "Permissions Violation for Subscription to {subject}{using} (sid {sid})"
        ));
        tracing::info!(
            "Removed sub {subject}{using} (sid {sid}) for {:?} - not authorized",
            self.info.user
        );
    }
}
