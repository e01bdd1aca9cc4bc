//! What a server says of itself in the system account when its JetStream ends while the server goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::advisory::cluster::{
    SERVER_OUT_OF_STORAGE, SERVER_REMOVED, ServerOutOfStorage, ServerRemoved,
};
use super::api::handler::Server;
use super::runtime::Backend;
use super::shard::OutageCause;

/// What tells this run of the server from others.
pub(super) struct Run {
    pub server_id: String,
}

impl Run {
    /// Answers no requests any more once nothing can be stored, and says so.
    pub fn end_at_outage(self: &Arc<Self>, server: &Arc<Server>, backend: &Arc<dyn Backend>) {
        let (server, voice) = (Arc::downgrade(server), Arc::downgrade(backend));
        let run = Arc::clone(self);
        backend.on_outage(Box::new(move |outage| {
            let (Some(server), Some(voice)) = (server.upgrade(), voice.upgrade()) else {
                return;
            };
            let is_known = server.is_disabled.swap(true, Ordering::AcqRel);
            if is_known || outage.cause != OutageCause::NoSpace {
                return;
            }
            let advisory = ServerOutOfStorage {
                server: &server.name,
                server_id: &run.server_id,
                stream: &outage.stream,
                cluster: &server.cluster,
                domain: &server.domain,
            };
            voice.tell_system(SERVER_OUT_OF_STORAGE, advisory.payload((server.now)()));
        }));
    }

    /// As in the reference, the server that was removed says so itself: nobody else knows under which id it runs. Of one that does not run nobody is told.
    pub fn tell_of_removal(&self, server: &Server, voice: &dyn Backend) {
        let removed = ServerRemoved {
            server: &server.name,
            server_id: &self.server_id,
            cluster: &server.cluster,
            domain: &server.domain,
        };
        voice.tell_system(SERVER_REMOVED, removed.payload((server.now)()));
    }
}
