//! What monitoring may see of the server.

use super::start::Server;
use crate::broker::{Account, Client};
use crate::cluster::routes::{Routes, RoutesView};
use crate::config::Options;
use crate::connection::ClosedClient;
use crate::monitor::observed::{
    CertificateEnds, Counters, Facts, Observed, ObservedStreams, QueueFigures,
};
use crate::tls::ocsp::CacheFigures;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

impl Observed for Server {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn options(&self) -> Arc<Options> {
        Server::options(self)
    }

    fn options_since(&self) -> SystemTime {
        self.loaded.load().since
    }

    fn websocket_port(&self) -> u16 {
        self.websocket_port.load(Ordering::Acquire)
    }

    fn client_port(&self) -> u16 {
        self.client_port.load(Ordering::Acquire)
    }

    fn counters(&self) -> Counters {
        let traffic = self.broker.traffic().snapshot();
        let clients = self.clients.get();
        Counters {
            connections: clients.map_or(0, |clients| clients.connected_count() as u64),
            connections_total: clients.map_or(0, |clients| clients.admitted_count()),
            closed_clients: clients.map_or(0, |clients| clients.closed_count() as u64),
            subscriptions: self.broker.subscription_count() as u64,
            in_messages: traffic.in_messages,
            in_bytes: traffic.in_bytes,
            out_messages: traffic.out_messages,
            out_bytes: traffic.out_bytes,
            slow_consumers: traffic.slow_consumers,
            stale_connections: traffic.stale_connections,
            stalled_clients: traffic.stalled_clients,
        }
    }

    fn accounts(&self) -> Vec<Arc<Account>> {
        let mut accounts = self.broker.accounts();
        if !self.facts.options.has_system_account() {
            accounts.retain(|account| !Arc::ptr_eq(account, self.broker.system()));
        }
        accounts
    }

    fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.broker.account(name)
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        self.clients
            .get()
            .map_or(Vec::new(), |clients| clients.all())
    }

    fn closed_clients(&self) -> Vec<Arc<ClosedClient>> {
        let clients = self.clients.get();
        clients.map_or(Vec::new(), |clients| clients.closed())
    }

    fn queues(&self) -> Vec<QueueFigures> {
        let of_system = self.system.get().map(|system| system.queue());
        let of_streams = self
            .jetstream()
            .map(|jetstream| ObservedStreams::queues(&*jetstream));
        of_system
            .into_iter()
            .chain(of_streams.into_iter().flatten())
            .collect()
    }

    fn routes(&self) -> Option<RoutesView> {
        self.routes.as_ref().map(Routes::view)
    }

    fn cluster_name(&self) -> String {
        let routes = self.routes.as_ref();
        let clustered = routes.filter(|_| self.facts.options.cluster.port.is_some());
        clustered.map_or(String::new(), Routes::cluster_name)
    }

    fn ocsp_cache(&self) -> Option<CacheFigures> {
        self.clients.get()?.ocsp_cache()
    }

    fn certificate_ends(&self) -> CertificateEnds {
        self.loaded.load().certificates
    }

    fn not_ready(&self) -> Option<String> {
        match self.ready.load(Ordering::Acquire) {
            true => None,
            false => Some("failed to be ready for connections".into()),
        }
    }

    fn streams(&self) -> Option<Arc<dyn ObservedStreams>> {
        Some(self.jetstream()? as Arc<dyn ObservedStreams>)
    }
}
