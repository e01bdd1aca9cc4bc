//! What opens the ports, and what is said of each.

use super::files::reachable_hosts;
use super::listen::{display_address, listen};
use super::start::{Server, StartError};
use super::version::{API_LEVEL, COMMIT, REFERENCE_VERSION, TOOLCHAIN};
use crate::cluster::routes::{ClientUrls, Routes};
use crate::config::Options;
use crate::connection::{Clients, TlsTerms};
use crate::monitor::observed::Observed;
use crate::protocol::ServerInfo;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

impl Server {
    /// Says that clients may come, and prepares for them.
    pub(super) fn open(
        &self,
        listener: &TcpListener,
        tls: Option<TlsTerms>,
    ) -> Result<Arc<Clients>, StartError> {
        let address = listener.local_addr().map_err(StartError::Listener)?;
        self.client_port.store(address.port(), Ordering::Release);
        let options = &self.facts.options;
        let info = ServerInfo {
            server_id: self.facts.server_id.clone(),
            server_name: self.facts.server_name.clone(),
            version: REFERENCE_VERSION.to_owned(),
            git_commit: COMMIT.to_owned(),
            go: TOOLCHAIN.to_owned(),
            host: options.host.clone(),
            port: address.port(),
            jetstream: self.jetstream().is_some(),
            domain: options.jetstream.domain.clone(),
            api_lvl: API_LEVEL,
            xkey: self.curve_public_key.clone(),
            cluster: self
                .routes
                .as_ref()
                .map_or(String::new(), Routes::cluster_name),
            ..ServerInfo::default()
        };
        let clients = Clients::new(Arc::clone(&self.broker), options, tls, info)?;
        let _ = self.clients.set(Arc::clone(&clients));
        tracing::info!(
            "Listening for client connections on {}",
            display_address(&options.host, address.port())
        );
        match (&options.tls, options.allow_non_tls) {
            (Some(_), false) => tracing::info!("TLS required for client connections"),
            (Some(_), true) => tracing::info!("TLS available for client connections"),
            (None, _) => {}
        }
        Ok(clients)
    }

    /// Dials the other servers of the cluster, and opens the port where they dial.
    pub(super) fn open_routes(
        &self,
        clients: &Arc<Clients>,
    ) -> Result<Option<TcpListener>, StartError> {
        let options = &self.facts.options;
        let (Some(routes), Some(port)) = (&self.routes, options.cluster.port) else {
            return Ok(None);
        };
        let host = &options.cluster.host;
        let listener = listen(host, port).map_err(StartError::RoutePort)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let port = listener.local_addr().map_err(StartError::Listener)?.port();
        tracing::info!("Cluster name is {}", routes.cluster_name());
        if options.cluster.name.is_none() {
            tracing::warn!("Cluster name was dynamically generated, consider setting one");
        }
        tracing::info!(
            "Listening for route connections on {}",
            display_address(host, port)
        );
        routes.start(&self.broker, clients, port, self.client_urls(options));
        Ok(Some(listener))
    }

    /// Where clients are told that they can connect.
    pub(super) fn client_urls(&self, options: &Options) -> ClientUrls {
        let urls = |host: &str, port: u16| -> Vec<String> {
            let hosts = reachable_hosts(host);
            hosts
                .iter()
                .map(|host| display_address(host, port))
                .collect()
        };
        let plain = match &options.client_advertise {
            Some((host, port)) => {
                vec![display_address(host, port.unwrap_or(self.client_port()))]
            }
            None => urls(&options.host, self.client_port()),
        };
        let websocket = match options.websocket.as_ref().filter(|own| own.is_enabled()) {
            None => Vec::new(),
            Some(own) => match &own.advertise {
                Some((host, port)) => {
                    vec![display_address(host, port.unwrap_or(self.websocket_port()))]
                }
                None => urls(
                    own.host.as_deref().unwrap_or(&options.host),
                    self.websocket_port(),
                ),
            },
        };
        ClientUrls { plain, websocket }
    }

    /// The port for WebSocket, when there is to be one.
    pub(super) fn open_websocket(&self) -> Result<Option<TcpListener>, StartError> {
        let options = &self.facts.options;
        let own = options.websocket.as_ref().filter(|own| own.is_enabled());
        let Some(own) = own else {
            return Ok(None);
        };
        let host = own.host.as_deref().unwrap_or(&options.host);
        let listener = listen(host, own.port).map_err(StartError::WebSocket)?;
        let listener = TcpListener::from_std(listener).map_err(StartError::Listener)?;
        let address = listener.local_addr().map_err(StartError::Listener)?;
        self.websocket_port.store(address.port(), Ordering::Release);
        let scheme = if own.tls.is_some() { "wss" } else { "ws" };
        tracing::info!(
            "Listening for websocket clients on {scheme}://{}",
            display_address(host, address.port())
        );
        if own.tls.is_none() {
            tracing::warn!("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!");
        }
        Ok(Some(listener))
    }
}
