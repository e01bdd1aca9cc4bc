//! What changes on a connection while it lives: options here, rules over there, accounts that get connections of their own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::gossip;
use super::options::RouteOptions;
use super::session::{Work, rules};
use super::table::PeerRules;
use crate::broker::permissions::Permissions;
use crate::config::options::{Permissions as PermissionsConfig, SubjectPermission};
use crate::protocol::route::info::SubjectRules;
use crate::protocol::route::{RouteInfo, encode};
use crate::subject::InvalidSubject;

impl Work {
    /// Takes up what the operator has changed: interest that may not be asked for any more is let go, and the other server is told
    /// what it may ask for now.
    pub(super) fn review_options(&mut self) {
        let forgotten = std::mem::take(&mut *self.connection.forgotten.lock());
        for account in forgotten {
            self.interest.forget(|name| name == account);
        }
        let options = self.core.options.load_full();
        if Arc::ptr_eq(&options, &self.options) {
            return;
        }
        let before = std::mem::replace(&mut self.options, options);
        self.rules = rules(&self.options, &self.connection);
        self.forget_moved(|account| !before.has_own_route(account));
        let (old, new) = (&before.cluster, &self.options.cluster);
        if old.import != new.import || old.export != new.export {
            self.review_interest(&before);
            let connection = &self.connection;
            let level = connection.level.as_ref().map(|level| level.get());
            let account = connection.account.as_deref();
            let info = self.core.info(account, level, connection.index, 0);
            let mut text = Vec::new();
            encode::json(&mut text, "INFO", &info);
            // After the interest: what the other server asks for because of it is judged anew.
            self.say(&text);
        }
    }

    fn review_interest(&mut self, before: &RouteOptions) {
        let had_rules = before.permissions.is_some();
        let has_rules = self.options.permissions.is_some();
        let mut interest = std::mem::take(&mut self.interest);
        interest.renew(|told, subscription| {
            if !self.options.takes(told) {
                return None;
            }
            // What is denied within a pattern is part of its subscription.
            Some(match had_rules || has_rules {
                true => self.subscription(told),
                false => Arc::clone(subscription),
            })
        });
        self.interest = interest;
    }

    /// Accounts that have connections of their own are told of there: what was told here is over.
    fn forget_moved(&mut self, moved: impl Fn(&str) -> bool) {
        let connection = &self.connection;
        if connection.account.is_some() || connection.remote.route_pool_size <= 0 {
            return;
        }
        let options = &self.options;
        self.interest
            .forget(|account| options.has_own_route(account) && moved(account));
        self.note_interest();
    }

    /// The other server says something of itself, or of another one.
    pub(super) fn info(&mut self, info: RouteInfo) {
        if !info.route_acc_add_reqid.is_empty() {
            self.account_moves(info);
            return;
        }
        let remote = &self.connection.remote;
        if !info.gateway.is_empty() {
            tracing::error!(
                "Received information about gateway {:?} from {}, but gateways are not built",
                info.gateway,
                remote.server_id
            );
            return;
        }
        if info.server_id != remote.server_id {
            gossip::heard_of(&self.core, &info, &self.connection);
            return;
        }
        if info.ldm {
            for connection in self.core.table.lock().connections() {
                if connection.remote.server_id == info.server_id {
                    connection.leaving.store(true, Ordering::Relaxed);
                }
            }
            gossip::update_clients(&self.core);
        } else {
            self.peer_rules(PeerRules::of(&info));
        }
    }

    /// The other server gives an account connections of its own, or answers that it knows that this one does.
    fn account_moves(&mut self, info: RouteInfo) {
        if info.route_account.is_empty() {
            // Nothing more comes about those accounts on this connection.
            self.forget_moved(|_| true);
            self.core.moved.send_if_modified(|moved| {
                let is_awaited = moved.request == info.route_acc_add_reqid;
                moved.confirmed += usize::from(is_awaited);
                is_awaited
            });
            return;
        }
        self.interest
            .forget(|account| account == info.route_account);
        self.note_interest();
        let remote = &self.connection.remote;
        let own_size = i64::try_from(self.options.pool_size()).unwrap_or(i64::MAX);
        if remote.route_pool_size != own_size {
            // It may have told of the account on another connection than the one that is ours for it.
            for other in self.core.table.lock().connections() {
                if other.remote.server_id == remote.server_id && other.account.is_none() {
                    other.forgotten.lock().push(info.route_account.clone());
                }
            }
            self.core.reviews.send_modify(|count| *count += 1);
        }
        let answer = RouteInfo {
            route_account: String::new(),
            ..info
        };
        let mut text = Vec::new();
        encode::json(&mut text, "INFO", &answer);
        self.say(&text);
    }

    /// The other server lets other subjects through: what it ignored until now is told again.
    fn peer_rules(&self, now: PeerRules) {
        let before = self.connection.rules.load_full();
        if *before == now {
            return;
        }
        let takes = (takes(before.export.as_ref()), takes(now.export.as_ref()));
        self.connection.rules.store(Arc::new(now));
        let (Ok(before), Ok(now)) = takes else {
            tracing::debug!("Permissions of another server name no subjects");
            return;
        };
        let remote = &self.connection.remote.server_id;
        if let Some(sinks) = self.core.sinks_of(remote) {
            let may = |rules: &Permissions, subject: &[u8]| rules.may_subscribe(subject, None);
            self.core
                .tell_interest(&self.connection, &sinks, |subject| {
                    may(&now, subject) && !may(&before, subject)
                });
        }
    }
}

/// What a server with these rules takes.
fn takes(export: Option<&SubjectRules>) -> Result<Permissions, InvalidSubject> {
    let subscribe = export.map(|rules| SubjectPermission {
        allow: Some(rules.allow.clone()).filter(|allow| !allow.is_empty()),
        deny: rules.deny.clone(),
    });
    Permissions::new(&PermissionsConfig {
        publish: None,
        subscribe,
        responses: None,
    })
}
