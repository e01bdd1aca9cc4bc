//! The state machine of a stream's group: hands everything on to the stream's shard, and waits for it where the group has to.

use std::sync::Arc;

use bytes::Bytes;
use raft::group::{
    Applied, GroupNumber, Machine, MachineFailed, Manifest, ManifestWork, Role, Work,
};

use super::fetch::Fetch;
use super::install::Install;
pub use super::install::Pace;
use crate::jetstream::shard::ReplicaPort;

/// What a manifest holds on its way through the group: only who asks for more knows what there is by then.
const MANIFEST: &[u8] = &[1];

/// A replica as its group sees it.
pub(crate) struct StreamMachine {
    group: GroupNumber,
    replica: ReplicaPort,
    fetch: Arc<dyn Fetch>,
    pace: Pace,
}

impl StreamMachine {
    /// Of a replica on its shard. States are fetched through `fetch`, no faster than the pace.
    pub(crate) fn new(
        group: GroupNumber,
        replica: ReplicaPort,
        fetch: Arc<dyn Fetch>,
        pace: Pace,
    ) -> Self {
        Self {
            group,
            replica,
            fetch,
            pace,
        }
    }
}

fn ended() -> MachineFailed {
    MachineFailed("the stream has ended on this server".to_owned())
}

impl Machine for StreamMachine {
    fn apply(&self, batch: Vec<Applied>) -> Work<'_> {
        // Handed over before anything is awaited: roles that are told later come later.
        let taken = self.replica.committed(batch);
        Box::pin(async move { taken.await.unwrap_or_else(|_| Err(ended())) })
    }

    fn role(&self, role: Role) {
        self.replica.role(role);
    }

    fn manifest(&self) -> ManifestWork<'_> {
        Box::pin(async move {
            let position = self.replica.position().await.map_err(|_| ended())?;
            let checkpoint = position.ok_or_else(|| {
                MachineFailed("this replica is being given a state itself".to_owned())
            })?;
            let content = Bytes::from_static(MANIFEST);
            Ok(Manifest {
                checkpoint,
                content,
            })
        })
    }

    fn install(&self, manifest: Manifest, from: &str) -> Work<'_> {
        let from = from.to_owned();
        Box::pin(async move {
            if manifest.content != MANIFEST {
                return Err(MachineFailed("a manifest of a later version".to_owned()));
            }
            let install = Install {
                group: self.group,
                replica: &self.replica,
                fetch: self.fetch.as_ref(),
                server: &from,
                pace: self.pace,
            };
            let installed = install.run(manifest.checkpoint.at).await;
            installed.map_err(|error| MachineFailed(error.to_string()))
        })
    }
}
