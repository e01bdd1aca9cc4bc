//! What a running JetStream can take up: whether there is one, and that it may hold more.

use super::{Apply, Found, NotReloadable, same};
use crate::config::bytes::readable_bytes;
use crate::config::options::{JetStreamOptions, StoreLimit};

impl Found {
    pub(super) fn jetstream(
        &mut self,
        old: &JetStreamOptions,
        new: &JetStreamOptions,
    ) -> Result<(), NotReloadable> {
        // Clients and other servers know it by its domain.
        same("JetStreamDomain", &old.domain, &new.domain)?;
        if old.enabled != new.enabled {
            self.add(Apply::JetStream, "JetStream".into());
            return Ok(());
        }
        if !new.enabled {
            return Ok(());
        }
        same_place(old, new)?;
        self.limit("max_mem_store", old.memory_max, new.memory_max)?;
        self.limit("max_file_store", old.file_max, new.file_max)?;
        same_manners(old, new)
    }

    /// A limit that is raised is taken up.
    fn limit(&mut self, name: &str, old: StoreLimit, new: StoreLimit) -> Result<(), NotReloadable> {
        match (old, new) {
            (old, new) if old == new => Ok(()),
            (StoreLimit::Bytes(old), StoreLimit::Bytes(new)) if new > old => {
                let told = format!("JetStream {name} = {}", readable_bytes(new));
                self.add(Apply::JetStream, told);
                Ok(())
            }
            (StoreLimit::Bytes(_), StoreLimit::Bytes(_)) => Err(NotReloadable::Block(
                "decreasing jetstream max memory and store",
            )),
            (StoreLimit::Bytes(_), StoreLimit::Dynamic) => {
                Err(NotReloadable::Block("jetstream max memory and max store"))
            }
            (StoreLimit::Dynamic, _) => Err(NotReloadable::Block(
                "jetstream dynamic max memory and store",
            )),
        }
    }
}

fn same_place(old: &JetStreamOptions, new: &JetStreamOptions) -> Result<(), NotReloadable> {
    match (&old.store_dir, &new.store_dir) {
        (old, new) if old == new => Ok(()),
        (_, None) => Err(NotReloadable::Block("jetstream storage dir")),
        _ => Err(NotReloadable::Block("jetstream storage directory")),
    }
}

/// What streams were begun with stays.
fn same_manners(old: &JetStreamOptions, new: &JetStreamOptions) -> Result<(), NotReloadable> {
    let JetStreamOptions {
        enabled: _,
        store_dir: _,
        memory_max: _,
        file_max: _,
        sync,
        encryption,
        domain: _,
        strict,
        buffered_bytes_max,
        buffered_messages_max,
        request_queue_max,
        catchup_bytes_max,
        disk_operations_max,
        unique_tag,
        // Looked at with every entry.
        meta_compaction: _,
        limits,
    } = old;
    same("SyncInterval", sync, &new.sync)?;
    if *encryption != new.encryption {
        return Err(NotReloadable::Block("JetStreamKey"));
    }
    same("NoJetStreamStrict", &!strict, &!new.strict)?;
    let (old, new_bytes) = (buffered_bytes_max, &new.buffered_bytes_max);
    same("StreamMaxBufferedSize", old, new_bytes)?;
    let (old, new_messages) = (buffered_messages_max, &new.buffered_messages_max);
    same("StreamMaxBufferedMsgs", old, new_messages)?;
    let (old, new_requests) = (request_queue_max, &new.request_queue_max);
    same("JetStreamRequestQueueLimit", old, new_requests)?;
    let (old, new_bytes) = (catchup_bytes_max, &new.catchup_bytes_max);
    same("JetStreamMaxCatchup", old, new_bytes)?;
    let (old, new_operations) = (disk_operations_max, &new.disk_operations_max);
    same("JetStreamConcurrentIOs", old, new_operations)?;
    same("JetStreamUniqueTag", unique_tag, &new.unique_tag)?;
    same("JetStreamLimits", limits, &new.limits)
}
