//! JetStream coming up and going down, at the start, at the end, and by a reload in between.

use std::sync::Arc;

use super::links;
use super::start::{Server, StartError};
use super::streams::{self, StreamAccounts, StreamsError};
use crate::config::Options;
use crate::config::options::StoreLimit;
use crate::jetstream::{ClusterSetup, JetStream};

impl Server {
    /// JetStream, when it is on.
    pub(super) fn jetstream(&self) -> Option<Arc<JetStream>> {
        self.jetstream.load_full()
    }

    /// Brings the streams back, on a thread where that may take as long as it takes.
    pub(super) async fn start_jetstream(self: &Arc<Self>) -> Result<(), StartError> {
        if self.facts.options.jetstream().is_none() {
            return Ok(());
        }
        let server = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || server.bring_up(&server.facts.options));
        match started.await {
            Ok(started) => Ok(started?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Brings the streams back. May take long.
    fn bring_up(&self, options: &Options) -> Result<(), StreamsError> {
        let named = (&*self.facts.server_name, &*self.facts.server_id);
        let cluster = self.link(options);
        let jetstream = streams::start(options, named, &self.broker, cluster)?;
        let jetstream = Arc::new(jetstream);
        end_when_removed(&jetstream);
        self.jetstream.store(Some(jetstream));
        Ok(())
    }

    /// Links with the servers whose JetStream is one with this one's, in a cluster.
    fn link(&self, options: &Options) -> Option<ClusterSetup> {
        let routes = self.routes.as_ref()?;
        options.cluster.port?;
        let _within = self.runtime.enter();
        let (name, id) = (&self.facts.server_name, &self.facts.server_id);
        let cluster = links::start(routes, options, name, id);
        self.links.store(Some(Arc::clone(&cluster.links)));
        Some(cluster)
    }

    /// Takes up what a reload says of JetStream: whether there is one, for whom, and how much it may hold. Waits for shards and disks.
    pub(super) fn change_jetstream(&self, options: &Options, accounts: &StreamAccounts) {
        let wanted = self.jetstream().filter(|_| options.jetstream().is_some());
        if wanted.as_ref().is_some_and(|ended| ended.is_removed()) {
            // Somebody wanted it to go; a reload that is about something else does not overrule that.
            tracing::warn!("JetStream stays off: our server was removed from the cluster");
            return;
        }
        let runs = wanted.filter(|running| !running.is_disabled());
        if let Some(jetstream) = runs {
            let bytes = |limit| match limit {
                StoreLimit::Bytes(bytes) => Some(bytes),
                StoreLimit::Dynamic => None,
            };
            let jetstream_options = &options.jetstream;
            let memory = bytes(jetstream_options.memory_max);
            jetstream.set_server_limits(memory, bytes(jetstream_options.file_max));
            jetstream.set_tags(&options.server_tags);
            jetstream.set_meta_compaction(jetstream_options.meta_compaction);
            jetstream.set_accounts(&accounts.with, &accounts.without);
            return;
        }
        if let Some(jetstream) = self.jetstream() {
            // Other servers should not have to find out.
            jetstream.hand_leads_over();
            self.take_down();
        }
        if options.jetstream().is_some() {
            tracing::info!("Restarting JetStream");
            if let Err(error) = self.bring_up(options) {
                tracing::warn!("Can't start JetStream: {error}");
                self.unlink();
            }
        }
        self.tell_of_jetstream();
    }

    /// Says to whoever connects from now on whether there is JetStream.
    fn tell_of_jetstream(&self) {
        let is_on = self.jetstream().is_some();
        if let Some(clients) = self.clients() {
            clients.tell_later(|info| info.jetstream = is_on);
        }
        if let Some(routes) = &self.routes {
            routes.set_jetstream(is_on);
        }
    }

    /// Stops the streams; what they hold is checkpointed when this returns.
    fn take_down(&self) {
        if let Some(jetstream) = self.jetstream.swap(None) {
            jetstream.shutdown();
        }
        self.unlink();
    }

    fn unlink(&self) {
        if let Some(routes) = &self.routes {
            routes.refuse_links();
        }
        if let Some(links) = self.links.swap(None) {
            links.close();
        }
    }

    /// Has other servers lead what this one leads.
    pub(super) async fn hand_leads_over(&self) {
        if let Some(jetstream) = self.jetstream() {
            // Waits for other servers, which no connection's thread may do.
            let _ = tokio::task::spawn_blocking(move || jetstream.hand_leads_over()).await;
        }
    }

    /// Stops the streams for good; what they hold is checkpointed when this returns.
    pub(super) async fn stop_jetstream(self: &Arc<Self>) {
        let server = Arc::clone(self);
        // Waits for disks, which no connection's thread may do.
        let stopped = tokio::task::spawn_blocking(move || {
            // A reload that is under way comes to its end, and none begins it again.
            let _reloading = server.reloading.lock();
            if let Some(jetstream) = server.jetstream() {
                jetstream.shutdown();
            }
            if let Some(links) = server.links.load_full() {
                links.close();
            }
        });
        let _ = stopped.await;
    }
}

/// Ends JetStream when this server is removed from its cluster.
fn end_when_removed(jetstream: &Arc<JetStream>) {
    let weak = Arc::downgrade(jetstream);
    jetstream.on_removal(move || {
        let weak = weak.clone();
        // On a thread of its own: it waits for the runtime that this is told on.
        let ending = std::thread::Builder::new().name("jetstream end".to_owned());
        let ended = ending.spawn(move || {
            if let Some(jetstream) = weak.upgrade() {
                jetstream.end_removed();
            }
        });
        if let Err(error) = ended {
            tracing::error!("JetStream cannot be ended: {error}");
        }
    });
}
