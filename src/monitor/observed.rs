//! All that monitoring may know of the server.

use crate::broker::{Account, Client};
use crate::cluster::routes::RoutesView;
use crate::config::Options;
use crate::connection::ClosedClient;
use crate::jetstream::monitor::{GroupDetails, JetStreamInfo, Overview, Query, StreamFault};
use crate::jetstream::types::Time;
use crate::tls::ocsp::CacheFigures;
use std::sync::Arc;
use std::time::SystemTime;
use storage::engine::EngineFigures;

/// A server that can be looked at. Nothing here may take long, except where it says so.
pub trait Observed: Send + Sync + 'static {
    /// What does not change while the server runs.
    fn facts(&self) -> &Facts;
    /// The options it runs with now; a reload replaces those of the start.
    fn options(&self) -> Arc<Options> {
        Arc::new(self.facts().options.clone())
    }
    /// When those were read.
    fn options_since(&self) -> SystemTime {
        self.facts().started
    }
    /// The port for clients; 0 until it is open.
    fn client_port(&self) -> u16;
    /// The port that WebSocket clients connect to; 0 when there is none.
    fn websocket_port(&self) -> u16;
    /// What it has done so far.
    fn counters(&self) -> Counters;
    /// Its accounts, in no order.
    fn accounts(&self) -> Vec<Arc<Account>> {
        Vec::new()
    }
    /// The account of this name.
    fn account(&self, name: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts();
        accounts.into_iter().find(|account| account.name() == name)
    }
    /// Who is connected, in no order.
    fn clients(&self) -> Vec<Arc<Client>> {
        Vec::new()
    }
    /// Who was connected until lately, the oldest first.
    fn closed_clients(&self) -> Vec<Arc<ClosedClient>> {
        Vec::new()
    }
    /// What waits inside of it, by queue.
    fn queues(&self) -> Vec<QueueFigures> {
        Vec::new()
    }
    /// Its routes; `None` outside a cluster.
    fn routes(&self) -> Option<RoutesView> {
        None
    }
    /// The name of its cluster; empty outside of one.
    fn cluster_name(&self) -> String {
        String::new()
    }
    /// How the answers are used that tell whether clients' certificates have been revoked; `None` where nobody asks.
    fn ocsp_cache(&self) -> Option<CacheFigures> {
        None
    }
    /// When the certificates end that it shows.
    fn certificate_ends(&self) -> CertificateEnds {
        CertificateEnds::default()
    }
    /// Why clients cannot connect, if they cannot.
    fn not_ready(&self) -> Option<String>;
    /// Its streams; `None` while JetStream is off or not up.
    fn streams(&self) -> Option<Arc<dyn ObservedStreams>>;
}

/// What does not change while a server runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The server's id.
    pub server_id: String,
    /// The server's name.
    pub server_name: String,
    /// The options it started with.
    pub options: Options,
    /// The host for monitoring; empty without monitoring.
    pub monitor_host: String,
    /// The port for monitoring; 0 without monitoring.
    pub monitor_port: u16,
    /// When it started.
    pub started: SystemTime,
    /// Threads that serve clients.
    pub workers: usize,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Clients connected now.
    pub connections: u64,
    /// Clients ever connected.
    pub connections_total: u64,
    /// Ended connections that are still told of.
    pub closed_clients: u64,
    /// Subscriptions now, of clients and of the server's own parts.
    pub subscriptions: u64,
    /// Messages from clients.
    pub in_messages: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages to clients.
    pub out_messages: u64,
    /// Their bytes.
    pub out_bytes: u64,
    /// Clients closed because they did not keep up.
    pub slow_consumers: u64,
    /// Clients closed because they did not answer.
    pub stale_connections: u64,
    /// How often a publisher had to wait for its subscribers.
    pub stalled_clients: u64,
}

/// When the certificates end that a server shows; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateEnds {
    /// To clients.
    pub clients: Option<SystemTime>,
    /// To clients that speak WebSocket.
    pub websocket: Option<SystemTime>,
    /// To the other servers of the cluster.
    pub cluster: Option<SystemTime>,
}

/// A queue inside the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Its name.
    pub name: String,
    /// What waits.
    pub pending: u64,
    /// What has been taken out and is not done.
    pub in_progress: u64,
}

/// JetStream that can be looked at.
pub trait ObservedStreams: Send + Sync {
    /// The accounts that have it.
    fn account_names(&self) -> Vec<String> {
        Vec::new()
    }
    /// What `/varz` shows of it. May wait for streams.
    fn overview(&self) -> Overview;
    /// What `/jsz` shows of it. May wait for streams.
    fn info(&self, query: &Query, server_id: &str) -> JetStreamInfo;
    /// What is wrong with a stream that takes nothing any more, if there is one.
    fn fault(&self) -> Option<String>;
    /// Whether it has ended because nothing can be stored any more.
    fn is_disabled(&self) -> bool {
        false
    }

    /// What waits inside of it, by queue.
    fn queues(&self) -> Vec<QueueFigures> {
        Vec::new()
    }
    /// What the storage engine has done so far.
    fn engine_figures(&self) -> Option<EngineFigures> {
        None
    }
    /// Why the cluster's meta group cannot be relied on here, if that is so. May wait a moment.
    fn meta_fault(&self) -> Option<String> {
        None
    }
    /// The groups of a cluster that this server is part of, by name; `None` outside of a cluster.
    fn raft_groups(&self) -> Option<GroupDetails> {
        None
    }
    /// A stream that is to be here and is not as it is to be, on a server of a cluster.
    fn stream_fault(&self) -> Option<StreamFault> {
        None
    }
    /// Whether it is the JetStream of several servers.
    fn is_clustered(&self) -> bool {
        false
    }
    /// Whether this server leads the meta group, or is on its own.
    fn leads_meta(&self) -> bool {
        true
    }
}

/// A point in time as JSON has it.
pub fn json_time(time: SystemTime) -> Time {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
