//! Which servers are connected, over which connections, and whether one more has its place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::admission::Shown;
use super::compression::SharedLevel;
use super::options::{RouteOptions, pool_index};
use crate::broker::{Client, RouteSink};
use crate::config::options::RouteUrl;
use crate::protocol::route::RouteInfo;
use crate::protocol::route::info::SubjectRules;

/// A connection that has its place.
pub(super) struct Connection {
    pub id: u64,
    pub sink: Arc<RouteSink>,
    /// What the other server said of itself.
    pub remote: Arc<RouteInfo>,
    /// What it lets through now.
    pub rules: ArcSwap<PeerRules>,
    pub account: Option<String>,
    pub index: usize,
    pub solicited: bool,
    /// Whether its address stands in the configuration.
    pub configured: AtomicBool,
    /// Where it is dialled, by this connection or when this one ends.
    pub url: Mutex<Option<RouteUrl>>,
    /// What the other side has shown when it came.
    pub shown: Shown,
    pub address: SocketAddr,
    pub started: SystemTime,
    pub level: Option<Arc<SharedLevel>>,
    pub compression: &'static str,
    /// Whether the other side has answered a ping: it took us, too.
    pub proven: watch::Sender<bool>,
    /// Whether it is over, its socket too.
    pub ended: watch::Sender<bool>,
    /// Accounts that the other server tells of elsewhere from now on.
    pub forgotten: Mutex<Vec<String>>,
    pub subscriptions: AtomicU64,
    /// The other server lets its clients go.
    pub leaving: AtomicBool,
    /// When something came last, in milliseconds since 1970.
    pub heard_ms: AtomicU64,
}

/// Which interest another server passes on, and which it takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PeerRules {
    pub import: Option<SubjectRules>,
    pub export: Option<SubjectRules>,
}

impl PeerRules {
    pub fn of(info: &RouteInfo) -> Self {
        Self {
            import: info.import.clone(),
            export: info.export.clone(),
        }
    }
}

impl Connection {
    pub fn client(&self) -> &Arc<Client> {
        &self.sink.client
    }
}

/// All connections with one server.
struct Remote {
    /// It knows of no pools: one connection carries everything.
    single: bool,
    pool: Vec<Option<Arc<Connection>>>,
    accounts: HashMap<String, Arc<Connection>>,
}

impl Remote {
    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.pool.iter().flatten().chain(self.accounts.values())
    }
}

/// Where interest for one server goes.
#[derive(Clone)]
pub(super) struct Sinks {
    pub server_id: String,
    single: bool,
    pool: Vec<Option<Arc<Connection>>>,
    accounts: HashMap<String, Arc<Connection>>,
}

impl Sinks {
    /// The connection that an account's interest goes over.
    pub fn of_account(&self, options: &RouteOptions, account: &str) -> Option<&Arc<Connection>> {
        if self.single {
            return self.pool.first()?.as_ref();
        }
        if options.has_own_route(account) {
            return self.accounts.get(account);
        }
        let index = pool_index(options.pool_size(), account);
        self.pool.get(index)?.as_ref()
    }

    /// A connection that is no account's own, or any.
    pub fn any(&self) -> Option<&Arc<Connection>> {
        let pool = self.pool.iter().flatten();
        pool.chain(self.accounts.values()).next()
    }

    pub fn own_route(&self, account: &str) -> Option<&Arc<Connection>> {
        self.accounts.get(account)
    }
}

/// Why a connection has no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error("Duplicate Route")]
    Duplicate,
    #[error("Not possible to have a dedicated route for account {0:?} between those servers")]
    NotPossible(String),
    #[error("No route for account {0:?}")]
    NoAccountRoute(String),
    #[error("Invalid route pool index: {index} - pool size is {size}")]
    Index { index: i64, size: usize },
}

/// A place for a connection.
pub(super) struct Place {
    pub index: usize,
    /// Whether lines on it name the account.
    pub names_account: bool,
    /// The connection that stood there and has to go.
    pub replaced: Option<Arc<Connection>>,
}

/// All servers by the id of their run.
#[derive(Default)]
pub(super) struct Table {
    remotes: HashMap<String, Remote>,
}

impl Table {
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        let remotes = self.remotes.values();
        remotes.flat_map(Remote::connections).cloned().collect()
    }

    pub fn sinks(&self) -> Vec<Sinks> {
        let remotes = self.remotes.iter();
        remotes
            .map(|(server_id, remote)| Sinks {
                server_id: server_id.clone(),
                single: remote.single,
                pool: remote.pool.clone(),
                accounts: remote.accounts.clone(),
            })
            .collect()
    }

    pub fn knows(&self, server_id: &str) -> bool {
        self.remotes.contains_key(server_id)
    }

    /// Whether a connection of the pool with that server is there.
    pub fn has_pool(&self, server_id: &str) -> bool {
        let known = self.remotes.get(server_id);
        known.is_some_and(|remote| remote.pool.iter().any(Option::is_some))
    }

    /// Whether a server is there and has all the connections that it is to have, of its pool or for an account.
    pub fn is_complete(&self, server_id: &str, account: Option<&str>) -> bool {
        self.remotes
            .get(server_id)
            .is_some_and(|remote| match account {
                Some(_) if remote.single => true,
                Some(account) => remote.accounts.contains_key(account),
                None => !remote.pool.is_empty() && remote.pool.iter().all(Option::is_some),
            })
    }

    /// Looks for a place; it is taken by [`Table::add`] under the same lock.
    pub fn place(
        &self,
        options: &RouteOptions,
        own_id: &str,
        info: &RouteInfo,
        account: Option<&str>,
        solicited: bool,
    ) -> Result<Place, NoPlace> {
        let single = info.route_pool_size <= 0 || options.cluster.pool_size.is_none();
        let known = self.remotes.get(&info.server_id);
        if let Some(account) = account {
            if single {
                return Err(NoPlace::NotPossible(account.to_owned()));
            }
            if !options.has_own_route(account) {
                return Err(NoPlace::NoAccountRoute(account.to_owned()));
            }
            let taken = known.and_then(|remote| remote.accounts.get(account));
            return Ok(Place {
                index: 0,
                names_account: false,
                replaced: replaceable(taken, own_id, info, solicited)?,
            });
        }
        let size = effective_size(options, info);
        let index = if single {
            0
        } else if solicited {
            let pool = known.map_or(&[][..], |remote| &remote.pool);
            (0..size)
                .find(|index| pool.get(*index).is_none_or(Option::is_none))
                .ok_or(NoPlace::Duplicate)?
        } else {
            usize::try_from(info.route_pool_idx)
                .ok()
                .filter(|index| *index < size)
                .ok_or(NoPlace::Index {
                    index: info.route_pool_idx,
                    size,
                })?
        };
        let taken = known.and_then(|remote| remote.pool.get(index)?.as_ref());
        Ok(Place {
            index,
            names_account: true,
            replaced: replaceable(taken, own_id, info, solicited)?,
        })
    }

    /// Puts a connection into the place that was found for it. Whether it is the first of the pool with that server.
    pub fn add(&mut self, options: &RouteOptions, connection: &Arc<Connection>) -> bool {
        let info = &connection.remote;
        let single = info.route_pool_size <= 0 || options.cluster.pool_size.is_none();
        let size = match single {
            true => 1,
            false => effective_size(options, info),
        };
        let remote = self
            .remotes
            .entry(info.server_id.clone())
            .or_insert_with(|| Remote {
                single,
                pool: Vec::new(),
                accounts: HashMap::new(),
            });
        if let Some(account) = &connection.account {
            remote
                .accounts
                .insert(account.clone(), Arc::clone(connection));
            return false;
        }
        let is_first = remote.pool.iter().all(Option::is_none);
        if is_first && remote.accounts.is_empty() {
            // Nothing is left of what it was before.
            remote.single = single;
            remote.pool.clear();
        }
        if remote.pool.len() < size {
            remote.pool.resize(size, None);
        }
        if let Some(place) = remote.pool.get_mut(connection.index) {
            *place = Some(Arc::clone(connection));
        }
        is_first
    }

    /// Takes all connections that are no account's own out, to make place for others.
    pub fn empty_pools(&mut self) -> Vec<Arc<Connection>> {
        let remotes = self.remotes.values_mut();
        remotes
            .flat_map(|remote| std::mem::take(&mut remote.pool))
            .flatten()
            .collect()
    }

    /// Takes an account's own connections out.
    pub fn empty_account(&mut self, account: &str) -> Vec<Arc<Connection>> {
        let remotes = self.remotes.values_mut();
        remotes
            .filter_map(|remote| remote.accounts.remove(account))
            .collect()
    }

    /// A configured server is this one: its connections count as dialled there.
    pub fn note_configured(&self, server_id: &str, account: Option<&str>, url: &RouteUrl) {
        let Some(remote) = self.remotes.get(server_id) else {
            return;
        };
        for connection in remote.connections() {
            if connection.account.as_deref() == account
                && !connection.configured.swap(true, Ordering::Relaxed)
            {
                *connection.url.lock() = Some(url.clone());
            }
        }
    }

    /// Takes a connection out, if it still has its place. Whether that was the last with that server.
    pub fn remove(&mut self, connection: &Connection) -> bool {
        let server_id = &connection.remote.server_id;
        let Some(remote) = self.remotes.get_mut(server_id) else {
            return false;
        };
        match &connection.account {
            Some(account) => {
                let is_there = |known: &Arc<Connection>| known.id == connection.id;
                if remote.accounts.get(account).is_some_and(is_there) {
                    remote.accounts.remove(account);
                }
            }
            None => {
                if let Some(place) = remote.pool.get_mut(connection.index)
                    && place
                        .as_ref()
                        .is_some_and(|known| known.id == connection.id)
                {
                    *place = None;
                }
            }
        }
        let is_gone = remote.connections().next().is_none();
        if is_gone {
            self.remotes.remove(server_id);
        }
        is_gone
    }
}

fn effective_size(options: &RouteOptions, info: &RouteInfo) -> usize {
    let theirs = usize::try_from(info.route_pool_size).unwrap_or(0);
    let most = crate::config::options::cluster::POOL_SIZE_MAX as usize;
    options.pool_size().max(theirs.min(most))
}

/// Where two servers dial each other at once, the connection stays that the lesser id dialled.
fn replaceable(
    taken: Option<&Arc<Connection>>,
    own_id: &str,
    info: &RouteInfo,
    solicited: bool,
) -> Result<Option<Arc<Connection>>, NoPlace> {
    let Some(taken) = taken else {
        return Ok(None);
    };
    let crossing = !solicited && taken.solicited && !*taken.proven.borrow();
    let theirs_stays = info.server_id.as_str() < own_id;
    match crossing && theirs_stays {
        true => Ok(Some(Arc::clone(taken))),
        false => Err(NoPlace::Duplicate),
    }
}

impl Connection {
    /// The other side has answered.
    pub fn prove(&self) {
        self.proven
            .send_if_modified(|proven| !std::mem::replace(proven, true));
    }

    pub fn subscription_count(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }
}
