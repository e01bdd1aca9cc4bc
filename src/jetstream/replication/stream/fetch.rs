//! How a replica reaches another one for what it lacks, and who answers there.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use parking_lot::RwLock;
use raft::group::GroupNumber;

use super::request::{self, Request};
use crate::jetstream::shard::{ReplicaGone, ReplicaPort};

/// Bytes of records or of a manifest in one answer, unless a single record is longer: what one step of a shard reads.
pub(super) const SLICE_BYTES_MAX: u64 = 512 * 1024;

/// Which group's replica is asked for a slice, and of how many bytes, when a request is one for that.
pub(crate) fn slice_asked_for(asked: &[u8]) -> Option<(GroupNumber, u64)> {
    let (group, asked) = request::decode(asked).ok()?;
    match asked {
        Request::Piece { bytes_max, .. } | Request::Records { bytes_max, .. } => {
            Some((group, bytes_max.min(SLICE_BYTES_MAX)))
        }
        Request::Manifest { .. } | Request::Mark(_) => None,
    }
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// An answer on its way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;

/// Carries a request to another server, where [`Sources::answer`] answers it, and the answer back. Both are opaque on the way.
pub trait Fetch: Send + Sync + 'static {
    /// Asks the server of that name.
    fn fetch<'a>(&'a self, server: &'a str, request: Bytes) -> Fetching<'a>;
}

/// The replicas of this server that others may ask, by group.
#[derive(Default)]
pub(crate) struct Sources {
    replicas: RwLock<HashMap<GroupNumber, ReplicaPort>>,
}

impl Sources {
    /// The replica of that group may be asked from now on.
    pub(crate) fn add(&self, group: GroupNumber, replica: ReplicaPort) {
        self.replicas.write().insert(group, replica);
    }

    /// And no longer.
    pub(crate) fn remove(&self, group: GroupNumber) {
        self.replicas.write().remove(&group);
    }

    /// Answers what a replica elsewhere asks.
    pub(crate) async fn answer(&self, asked: Bytes) -> Bytes {
        request::answer(self.look_up(&asked).await)
    }

    async fn look_up(&self, asked: &[u8]) -> Result<Bytes, String> {
        let (group, asked) = request::decode(asked).map_err(|error| error.to_string())?;
        let replica = self.replicas.read().get(&group).cloned();
        let replica = replica.ok_or_else(|| format!("no replica of group {group} is here"))?;
        let gone = |error: ReplicaGone| error.to_string();
        let bounded = |bytes_max: u64| bytes_max.min(SLICE_BYTES_MAX) as usize;
        match asked {
            Request::Manifest { after, records_max } => {
                let prepared = replica.prepare_manifest(after, bounded(records_max)).await;
                let (number, length) = prepared
                    .map_err(gone)?
                    .ok_or("this replica is not whole itself")?;
                Ok(request::prepared(number, length))
            }
            Request::Piece {
                number,
                offset,
                bytes_max,
            } => {
                let piece = replica.manifest_piece(number, offset, bounded(bytes_max));
                let piece = piece.await.map_err(gone)?;
                piece.ok_or_else(|| format!("manifest {number} is not kept any more"))
            }
            Request::Records {
                from,
                upto,
                bytes_max,
            } => {
                let records = replica.records(from, upto, bounded(bytes_max));
                records.await.map_err(gone)?
            }
            Request::Mark(theirs) => {
                let known = replica.contrast(theirs).await.map_err(gone)?;
                Ok(request::recollection(known))
            }
        }
    }
}
