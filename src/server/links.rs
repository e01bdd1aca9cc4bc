//! The links of a server whose JetStream is one of several: whom routes know, links reach.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::version::REFERENCE_VERSION;
use crate::cluster::link::{Address, KnownPeer, LinkLimits, LinkOptions, LinkTiming, Links};
use crate::cluster::routes::Routes;
use crate::cluster::{PeerAddress, ToLinks};
use crate::config::Options;
use crate::jetstream::ClusterSetup;

/// Links over the cluster port, as long as the routes know of servers that take them. Must be called within the runtime.
pub(super) fn start(
    routes: &Routes,
    options: &Options,
    server_name: &str,
    server_id: &str,
) -> ClusterSetup {
    let meeting = routes.meeting();
    let name = meeting.cluster.clone();
    let links = Links::new(
        LinkOptions {
            server_name: server_name.to_owned(),
            server_id: server_id.to_owned(),
            version: REFERENCE_VERSION.to_owned(),
            // The port for routes has looked at them already.
            authorize: Arc::new(|_| true),
            limits: LinkLimits::default(),
            timing: LinkTiming::default(),
        },
        meeting,
        Handle::current(),
    );
    let links = Arc::new(links);
    routes.take_links(Arc::new(ToLinks(Arc::clone(&links))));
    follow(routes, &links);
    ClusterSetup {
        name,
        links,
        expected: expected_servers(options),
        tags: options.server_tags.clone(),
        unique_tag: options.jetstream.unique_tag.clone(),
        compaction: options.jetstream.meta_compaction,
        catchup_bytes_max: options.jetstream.catchup_bytes_max,
        runtime: Handle::current(),
    }
}

/// Tells the links of every server that the routes meet, until they are closed: routes outlast them where JetStream ends.
fn follow(routes: &Routes, links: &Arc<Links>) {
    let (mut peers, mut closed) = (routes.peers(), links.closed());
    let links = Arc::downgrade(links);
    tokio::spawn(async move {
        let following = async {
            loop {
                let known: Vec<KnownPeer> = peers
                    .borrow_and_update()
                    .iter()
                    .filter(|peer| peer.links)
                    .map(known_peer)
                    .collect();
                let Some(links) = links.upgrade() else {
                    return;
                };
                links.know(&known);
                drop(links);
                if peers.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = following => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    });
}

fn known_peer(peer: &PeerAddress) -> KnownPeer {
    let address = |(host, port): &(String, u16)| Address {
        host: host.clone(),
        port: *port,
        credentials: None,
    };
    KnownPeer {
        server_name: peer.server_name.clone(),
        addresses: peer.addresses.iter().map(address).collect(),
    }
}

/// How many servers the cluster has when it begins: those that are dialled, and this one. A list that is the same on all servers names this one too.
fn expected_servers(options: &Options) -> usize {
    let cluster = &options.cluster;
    let own = cluster.port.map(crate::config::options::Port::bind);
    let is_own = |host: &str, port: u16| {
        let reachable = super::files::reachable_hosts(&cluster.host);
        own == Some(port) && (host == cluster.host || reachable.iter().any(|own| own == host))
    };
    let mut others: Vec<(&str, u16)> = cluster
        .routes
        .iter()
        .map(|route| (route.host.as_str(), route.port))
        .filter(|(host, port)| !is_own(host, *port))
        .collect();
    others.sort_unstable();
    others.dedup();
    others.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::routes::{self, RouteOptions};
    use crate::config::options::{Port, cluster::RouteUrl};

    #[tokio::test]
    async fn nothing_is_left_of_links_that_are_closed_while_routes_go_on() {
        let mut options = Options::default();
        options.cluster.port = Some(Port::Fixed(6222));
        let route_options = RouteOptions::new(&options).unwrap().unwrap();
        let text = str::to_owned;
        let identity = routes::Identity {
            server_id: text("N1"),
            server_name: text("s1"),
            version: text("1"),
            built_with: text("1"),
            jetstream: true,
            domain: String::new(),
        };
        let routes = Routes::new(route_options, identity);
        let setup = start(&routes, &options, "s1", "N1");
        // Until the routes are followed.
        tokio::task::yield_now().await;
        let links = Arc::downgrade(&setup.links);
        let mut closed = setup.links.closed();
        routes.refuse_links();
        setup.links.close();
        drop(setup);
        assert_eq!(links.strong_count(), 0);
        // Whoever follows the routes lets go of what all links share.
        let gone = async { while closed.changed().await.is_ok() {} };
        let at_most = std::time::Duration::from_secs(30);
        tokio::time::timeout(at_most, gone).await.unwrap();
    }

    #[test]
    fn a_server_counts_itself_once() {
        let route = |host: &str, port| RouteUrl {
            host: host.to_owned(),
            port,
            user: None,
            password: None,
        };
        let mut options = Options::default();
        options.cluster.host = "127.0.0.1".to_owned();
        options.cluster.port = Some(Port::Fixed(6222));
        assert_eq!(expected_servers(&options), 1);
        let others = vec![route("127.0.0.1", 6223), route("127.0.0.1", 6224)];
        options.cluster.routes = others.clone();
        assert_eq!(expected_servers(&options), 3);
        options.cluster.routes.push(route("127.0.0.1", 6222));
        options.cluster.routes.extend(others);
        assert_eq!(expected_servers(&options), 3);
    }
}
