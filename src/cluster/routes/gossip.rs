//! Telling servers of each other, clients of servers, and links of addresses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::dial;
use super::handshake::Aim;
use super::shared::{Core, write};
use super::table::Connection;
use crate::broker::outbox::FlushBy;
use crate::cluster::PeerAddress;
use crate::config::options::RouteUrl;
use crate::config::options::cluster::parse_route;
use crate::protocol::route::info::{GOSSIP_DEFAULT, GOSSIP_DISABLED, GOSSIP_OVERRIDE};
use crate::protocol::route::{RouteInfo, encode};

/// More addresses of clients than this are not told.
const CONNECT_URLS_MAX: usize = 4096;

/// Tells all other servers of a new one, so that they dial it.
pub(super) fn tell_others(core: &Core, connection: &Connection, aim: Option<&Aim>) {
    let info = &connection.remote;
    // Who heard of it tells nobody: whoever told has told all, unless the word says otherwise.
    let heard_of = aim.is_some_and(|aim| !aim.configured && aim.gossip_mode != GOSSIP_OVERRIDE);
    if heard_of || info.gossip_mode == GOSSIP_DISABLED {
        return;
    }
    let we_configured = aim.is_some_and(|aim| aim.configured);
    for remote in core.sinks.load().iter() {
        if remote.server_id == info.server_id {
            continue;
        }
        let own_route = connection
            .account
            .as_deref()
            .and_then(|account| remote.own_route(account));
        let Some(way) = own_route.or_else(|| remote.any()) else {
            continue;
        };
        if connection.account.is_some() && way.remote.route_pool_size <= 0 {
            continue;
        }
        let accepted = aim.is_none();
        let mode = if we_configured || (accepted && way.configured.load(Ordering::Relaxed)) {
            GOSSIP_OVERRIDE
        } else if accepted {
            GOSSIP_DISABLED
        } else {
            GOSSIP_DEFAULT
        };
        let told = RouteInfo {
            gossip_mode: mode,
            route_account: connection.account.clone().unwrap_or_default(),
            route_pool_idx: 0,
            ..RouteInfo::clone(info)
        };
        let mut text = Vec::new();
        encode::json(&mut text, "INFO", &told);
        write(way, &text, FlushBy::Task);
    }
}

/// Another server told of one: it is dialled, unless it is known.
pub(super) fn heard_of(core: &Arc<Core>, info: &RouteInfo, teller: &Connection) {
    if info.server_id == core.identity.server_id {
        return;
    }
    let options = core.options.load_full();
    let account = Some(info.route_account.clone()).filter(|account| !account.is_empty());
    if account
        .as_deref()
        .is_some_and(|account| !options.has_own_route(account))
        || core
            .table
            .lock()
            .is_complete(&info.server_id, account.as_deref())
    {
        return;
    }
    if account.is_none() && core.table.lock().has_pool(&info.server_id) {
        return;
    }
    let Ok(mut url) = parse_route(&info.ip) else {
        tracing::error!("Error parsing URL from INFO: {:?}", info.ip);
        return;
    };
    let is_configured = |route: &RouteUrl| {
        let same = |host: &str| route.host.eq_ignore_ascii_case(host);
        route.port == info.port && (same(&info.host) || same(&url.host))
    };
    if options.cluster.routes.iter().any(is_configured) {
        return;
    }
    if info.auth_required {
        url.user = options.cluster.user.clone();
        url.password = options.cluster.password.clone();
    }
    let mut accounts = vec![account.clone()];
    if account.is_none() && teller.remote.route_pool_size <= 0 {
        // Who knows of no pools tells of no account's route either.
        accounts.extend(options.accounts.iter().cloned().map(Some));
    }
    for account in accounts {
        let aim = Aim {
            url: url.clone(),
            configured: false,
            account: account.clone(),
            gossip_mode: info.gossip_mode,
        };
        dial::keep_unless_kept(core, aim, info.server_id.clone());
    }
}

/// The first connection with a server stands.
pub(super) fn server_came(core: &Core, info: &RouteInfo) {
    update_clients(core);
    let addresses = [parse_route(&info.ip).ok(), listener(info)];
    let known = PeerAddress {
        server_name: info.server_name.clone(),
        server_id: info.server_id.clone(),
        addresses: addresses
            .into_iter()
            .flatten()
            .map(|url| (url.host, url.port))
            .collect(),
        tls: info.tls_required,
        links: info.links > 0,
        connected: true,
    };
    core.peers.send_modify(|peers| {
        peers.retain(|peer| peer.server_name != known.server_name);
        peers.push(known);
    });
}

/// Where a server says that it listens, when that is a place and not every place.
fn listener(info: &RouteInfo) -> Option<RouteUrl> {
    let everywhere = matches!(info.host.as_str(), "" | "0.0.0.0" | "::");
    (!everywhere && info.port > 0).then(|| RouteUrl {
        host: info.host.clone(),
        port: info.port,
        user: None,
        password: None,
    })
}

/// The last connection with a server has gone.
pub(super) fn server_went(core: &Core, info: &RouteInfo) {
    update_clients(core);
    core.peers.send_if_modified(|peers| {
        let of_run = |peer: &&mut PeerAddress| peer.server_id == info.server_id;
        match peers.iter_mut().find(of_run) {
            Some(peer) => std::mem::replace(&mut peer.connected, false),
            None => false,
        }
    });
}

/// Tells clients where else they can connect, when that has changed.
pub(super) fn update_clients(core: &Core) {
    let (Some(clients), Some(own)) = (core.clients.get(), core.client_urls.load_full()) else {
        return;
    };
    if core.options.load().cluster.no_advertise || *core.stop.borrow() {
        return;
    }
    // The table is looked at where nobody else can change what is told meanwhile: the last who looks tells the latest.
    clients.announce(|info| {
        let (mut plain, mut websocket) = (own.plain.clone(), own.websocket.clone());
        for connection in core.table.lock().connections() {
            if !connection.leaving.load(Ordering::Relaxed) {
                plain.extend(connection.remote.connect_urls.iter().cloned());
                websocket.extend(connection.remote.ws_connect_urls.iter().cloned());
            }
        }
        for urls in [&mut plain, &mut websocket] {
            urls.sort();
            urls.dedup();
            urls.truncate(CONNECT_URLS_MAX);
        }
        info.connect_urls = plain;
        info.websocket_urls = websocket;
    });
}
