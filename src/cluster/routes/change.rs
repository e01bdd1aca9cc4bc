//! Taking up other options while connections are there.
//!
//! # Invariant
//! Options change with the table locked, and a connection enters the table only on the options that it came on: nobody slips in on
//! credentials, certificates or a pool that do not hold any more.

use std::sync::Arc;
use std::time::Duration;

use super::admission::Shown;
use super::compression::{Level, is_negotiated};
use super::dial;
use super::gossip;
use super::handle::{ClientUrls, Routes};
use super::options::RouteOptions;
use super::shared::{ClusterName, Core, write};
use super::table::Connection;
use crate::broker::outbox::FlushBy;
use crate::broker::{Account, CloseReason};
use crate::config::options::Compression;
use crate::protocol::route::{RouteInfo, encode};

/// How long other servers may take to confirm that accounts get connections of their own.
const CONFIRMATION_MAX: Duration = Duration::from_secs(2);
/// The first version of the protocol on routes in which options may change while a connection lives.
const LATER_INFO_PROTOCOL: i64 = 1;

/// Accounts that are getting connections of their own.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// What names the request to the other servers.
    pub request: String,
    /// How many have confirmed it.
    pub confirmed: usize,
    /// Whether connections for them have to wait.
    pub is_pending: bool,
}

impl Routes {
    /// Takes up other options, all of them at once: connections that they do not allow are closed, the others change.
    /// Checks passwords of other servers: not for a connection's thread.
    pub fn change(&self, options: RouteOptions, client_urls: ClientUrls) {
        let core = &self.core;
        core.client_urls.store(Some(Arc::new(client_urls)));
        let before = core.options.load_full();
        if !before.is_like(&options) {
            Change {
                core,
                before,
                after: Arc::new(options),
            }
            .take_up();
        }
        gossip::update_clients(core);
        core.reviews.send_modify(|count| *count += 1);
    }
}

struct Change<'a> {
    core: &'a Arc<Core>,
    before: Arc<RouteOptions>,
    after: Arc<RouteOptions>,
}

impl Change<'_> {
    fn take_up(&self) {
        let (core, before, after) = (self.core, &self.before, &self.after);
        let (added, removed) = (
            missing(&after.accounts, &before.accounts),
            missing(&before.accounts, &after.accounts),
        );
        let has_other_pool = before.cluster.pool_size != after.cluster.pool_size;
        if self.changes_permissions() {
            core.permissions_before.store(Some(Arc::clone(before)));
        }
        if !added.is_empty() {
            core.moved.send_replace(Moved {
                request: super::shared::made_up_name(),
                confirmed: 0,
                is_pending: true,
            });
        }
        let left = {
            let mut table = core.table.lock();
            core.options.store(Arc::clone(after));
            let mut left: Vec<_> = removed
                .iter()
                .flat_map(|account| table.empty_account(account))
                .collect();
            if has_other_pool {
                left.extend(table.empty_pools());
            }
            core.sinks.store(Arc::new(table.sinks()));
            left
        };
        for connection in &left {
            close(connection, CloseReason::RouteRemoved);
        }
        self.rename();
        self.review_connections();
        self.review_links();
        self.tell_changed_permissions();
        core.permissions_before.store(None);
        core.reviews.send_modify(|count| *count += 1);
        dial::stop_unwanted(core, after);
        if !removed.is_empty() && !has_other_pool {
            self.bring_back(left, removed);
        }
        self.move_out(added);
    }

    fn changes_permissions(&self) -> bool {
        let (before, after) = (&self.before.cluster, &self.after.cluster);
        before.import != after.import || before.export != after.export
    }

    /// Another name; who is connected stays.
    fn rename(&self) {
        let Some(name) = &self.after.cluster.name else {
            return;
        };
        if *name == self.core.name.load().name {
            return;
        }
        tracing::info!("Cluster name updated to {name}");
        self.core.name.store(Arc::new(ClusterName {
            name: name.clone(),
            dynamic: false,
        }));
        if let Some(clients) = self.core.clients.get() {
            clients.rename_cluster(name);
        }
    }

    /// Closes what does not fit any more, and changes the rest.
    fn review_connections(&self) {
        let connections = self.core.table.lock().connections();
        let (before, after) = (&self.before.cluster, &self.after.cluster);
        let gone = missing(&before.routes, &after.routes);
        let level = (before.compression != after.compression).then_some(&after.compression);
        for url in &gone {
            tracing::info!("Removed route {}:{}", url.host, url.port);
        }
        for connection in connections {
            let dialled = connection.url.lock().clone();
            let objection = self.objection(&connection.shown);
            if objection == Some(CloseReason::AuthenticationFailure) {
                write(
                    &connection,
                    b"-ERR 'Authorization Violation'\r\n",
                    FlushBy::Caller,
                );
            }
            if let Some(reason) = objection {
                close(&connection, reason);
            } else if dialled.is_some_and(|url| gone.contains(&url))
                || (self.changes_permissions() && connection.remote.proto < LATER_INFO_PROTOCOL)
            {
                close(&connection, CloseReason::RouteRemoved);
            } else if level.is_some_and(|mode| !compresses_as(&connection, mode)) {
                close(&connection, CloseReason::ClientClosed);
            } else {
                let outbox = connection.client().outbox();
                outbox.set_write_deadline(self.after.write_deadline);
            }
        }
    }

    /// Closes links that other servers have dialled and would not be let in for any more. Those that we have dialled are looked at where links are.
    fn review_links(&self) {
        let links = &self.core.admitted_links;
        links.turn_out(|shown| self.objection(shown).is_none());
    }

    /// Why a server that has shown this would not be let in any more. What has not changed is not looked at again.
    fn objection(&self, shown: &Shown) -> Option<CloseReason> {
        let (before, after) = (&self.before, &self.after);
        let came_in = shown
            .came
            .as_ref()
            .filter(|_| before.admits_otherwise_than(after));
        if came_in.is_some_and(|came| !after.lets_in_server(came)) {
            return Some(CloseReason::AuthenticationFailure);
        }
        let is_unpinned =
            before.pinned_keys() != after.pinned_keys() && !after.takes_key(shown.key.as_ref());
        is_unpinned.then_some(CloseReason::TlsHandshakeFailure)
    }

    /// Tells the other servers of interest that they may know of now, and takes back what they may not.
    fn tell_changed_permissions(&self) {
        if !self.changes_permissions() {
            return;
        }
        for account in self.accounts() {
            account.tell_local_interest(|all| {
                let sinks = self.core.sinks.load();
                let mut changed = Vec::new();
                for (subject, queue, count) in all {
                    let was = self.before.passes_on(subject);
                    let is = self.after.passes_on(subject);
                    if was != is {
                        changed.push((subject, queue, if is { count } else { 0 }));
                    }
                }
                for connection in sinks
                    .iter()
                    .filter_map(|sinks| sinks.of_account(&self.after, account.name()))
                {
                    let names = connection.sink.names_account.then(|| account.name());
                    let mut text = Vec::new();
                    for (subject, queue, count) in &changed {
                        match count {
                            0 => encode::unsubscribe(&mut text, names, subject, *queue),
                            count => {
                                let queue = queue.map(|queue| (queue, *count));
                                encode::subscribe(&mut text, names, subject, queue);
                            }
                        }
                    }
                    write(connection, &text, FlushBy::Task);
                }
            });
        }
    }

    fn accounts(&self) -> Vec<Arc<Account>> {
        let broker = self.core.broker.get();
        broker.map_or_else(Vec::new, |broker| broker.accounts())
    }

    /// Accounts without connections of their own any more go over the pool, once theirs have ended: until then others would send
    /// everything twice.
    fn bring_back(&self, left: Vec<Arc<Connection>>, accounts: Vec<String>) {
        let core = Arc::clone(self.core);
        self.spawn(async move {
            let mut changes = core.changes.subscribe();
            let has_ended = |connection: &Arc<Connection>| *connection.ended.borrow();
            while !left.iter().all(has_ended) && changes.changed().await.is_ok() {}
            let Some(broker) = core.broker.get() else {
                return;
            };
            for account in accounts.iter().filter_map(|name| broker.account(name)) {
                let options = core.options.load_full();
                for sinks in core.sinks.load_full().iter() {
                    if let Some(connection) = sinks.of_account(&options, account.name()) {
                        core.tell_interest_of(&account, connection, sinks, |_| true);
                    }
                }
            }
        });
    }

    /// Accounts that get connections of their own: each server is told on the connection that they go over until now, and
    /// forgets what it knew from there. The connections are dialled when all have confirmed it, since nothing may be sent twice.
    fn move_out(&self, added: Vec<String>) {
        let core = Arc::clone(self.core);
        let request = core.moved.borrow().request.clone();
        let mut told = 0;
        for account in self.accounts() {
            if !added.iter().any(|name| name == account.name()) {
                continue;
            }
            let info = RouteInfo {
                route_pool_size: self.after.cluster.pool_size.map_or(0, i64::from),
                route_account: account.name().to_owned(),
                route_acc_add_reqid: request.clone(),
                ..RouteInfo::default()
            };
            let mut text = Vec::new();
            encode::json(&mut text, "INFO", &info);
            // With its interest locked: what was told of it before is told, and nothing is told here after this.
            account.tell_local_interest(|_| {
                for sinks in core.sinks.load().iter() {
                    let way = sinks.of_account(&self.before, account.name());
                    if let Some(connection) = way.filter(|way| way.remote.route_pool_size > 0) {
                        write(connection, &text, FlushBy::Task);
                        told += 1;
                    }
                }
            });
        }
        self.spawn(async move {
            if told > 0 {
                let mut moved = core.moved.subscribe();
                let all = moved.wait_for(|moved| moved.confirmed >= told || moved.request != request);
                if tokio::time::timeout(CONFIRMATION_MAX, all).await.is_err() {
                    tracing::warn!(
                        "Timed out waiting for confirmation from all routes regarding per-account routes changes"
                    );
                }
            }
            core.moved.send_if_modified(|moved| {
                let is_ours = moved.request == request;
                moved.is_pending &= !is_ours;
                is_ours
            });
            dial::keep_configured(&core);
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.core.runtime.get() {
            runtime.spawn(task);
        }
    }
}

fn close(connection: &Connection, reason: CloseReason) {
    connection.client().outbox().close(reason);
}

/// What is in the one and not in the other.
fn missing<T: PartialEq + Clone>(one: &[T], other: &[T]) -> Vec<T> {
    let is_missing = |part: &&T| !other.contains(part);
    one.iter().filter(is_missing).cloned().collect()
}

/// Whether a connection can go on with another mode; it changes to it. One that has to be negotiated needs another connection.
fn compresses_as(connection: &Connection, mode: &Compression) -> bool {
    let Some(level) = &connection.level else {
        return connection.compression == "not supported" || !is_negotiated(mode);
    };
    let round_trip = Duration::from_micros(connection.client().round_trip_us());
    level.set(match mode {
        Compression::NotSupported | Compression::Off | Compression::Accept => return false,
        Compression::Fast => Level::Fast,
        Compression::Better => Level::Better,
        Compression::Best => Level::Best,
        Compression::Auto(thresholds) => Level::for_round_trip(round_trip, thresholds),
    });
    true
}
