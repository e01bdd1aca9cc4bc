//! From another replica's manifest to an equal replica.
//!
//! The other one goes on living meanwhile. A round fetches what its manifest counts; when messages have left the stream before they were fetched, the next round
//! begins with a newer manifest and finds most of it here. The last records may come along with the manifest itself, so that a round can succeed
//! however fast the stream changes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use raft::group::{GroupNumber, Position};
use tokio::time::Instant;

use super::fetch::{Fetch, FetchError, SLICE_BYTES_MAX};
use super::request::{self, Request};
use crate::jetstream::core::{Manifest, ReceivingNeeds};
use crate::jetstream::shard::{ReplicaGone, ReplicaPort};

/// Rounds after which the leader has to offer its state anew.
const ROUNDS_MAX: usize = 100;
/// How often one request is repeated, and how long is waited before.
const BACKOFF: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];
/// The longest manifest that is believed.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why a replica could not be made equal. What is here stays, and the next attempt goes on from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InstallError {
    /// The other server does not answer, or does not want to.
    #[error("server '{server}' does not give the state: {reason}")]
    Fetch { server: String, reason: String },
    /// What it sent is not usable.
    #[error("what server '{server}' sent is not usable: {reason}")]
    Unusable { server: String, reason: String },
    /// Its state is older than what was promised.
    #[error("server '{server}' has an older state than was promised")]
    Older { server: String },
    /// The stream changes faster than it can be fetched.
    #[error("the stream changes faster than it can be fetched")]
    TooFast,
    /// The replica here has ended.
    #[error(transparent)]
    Gone(#[from] ReplicaGone),
}

/// How fast states are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second at most.
    pub bytes_per_second: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            bytes_per_second: 128 * 1024 * 1024,
        }
    }
}

/// One attempt to make a replica equal to the one on a server.
pub(super) struct Install<'a> {
    pub(super) group: GroupNumber,
    pub(super) replica: &'a ReplicaPort,
    pub(super) fetch: &'a dyn Fetch,
    pub(super) server: &'a str,
    pub(super) pace: Pace,
}

impl Install<'_> {
    /// Fetches and takes over a state that is not older than promised. Durable when it returns.
    pub(super) async fn run(&self, promised: Position) -> Result<(), InstallError> {
        for _ in 0..ROUNDS_MAX {
            if let Some(durable) = self.round(promised).await? {
                return durable.await.map_err(|_| ReplicaGone.into());
            }
        }
        Err(InstallError::TooFast)
    }

    async fn round(
        &self,
        promised: Position,
    ) -> Result<Option<tokio::sync::oneshot::Receiver<()>>, InstallError> {
        let manifest = self.fetch_manifest().await?;
        self.check(&manifest, promised)?;
        self.usable(self.replica.begin_receiving(manifest).await?)?;
        loop {
            match self.usable(self.replica.go_on_receiving().await?)? {
                ReceivingNeeds::Time => {}
                ReceivingNeeds::Nothing => break,
                ReceivingNeeds::Records(from, upto) => {
                    let bytes_max = SLICE_BYTES_MAX;
                    let request = Request::Records {
                        from,
                        upto,
                        bytes_max,
                    };
                    let records = self.ask(request).await?;
                    let received = self.usable(self.replica.receive(records).await?)?;
                    if received < from {
                        return Err(self.unusable("records that do not follow"));
                    }
                }
            }
        }
        let (finished, durable) = self.replica.finish_receiving().await?;
        Ok(self.usable(finished)?.then_some(durable))
    }

    async fn fetch_manifest(&self) -> Result<Manifest, InstallError> {
        let after = self.replica.last_sequence().await?;
        let records_max = SLICE_BYTES_MAX;
        let prepared = self.ask(Request::Manifest { after, records_max }).await?;
        let prepared = request::read_prepared(&prepared);
        let (number, length) = prepared.map_err(|error| self.unusable(error))?;
        if length > MANIFEST_BYTES_MAX {
            return Err(self.unusable(format!("a manifest of {length} bytes")));
        }
        let mut whole = BytesMut::new();
        while (whole.len() as u64) < length {
            let piece = Request::Piece {
                number,
                offset: whole.len() as u64,
                bytes_max: SLICE_BYTES_MAX,
            };
            let piece = self.ask(piece).await?;
            if piece.is_empty() || whole.len() as u64 + piece.len() as u64 > length {
                return Err(self.unusable("pieces that make no manifest"));
            }
            whole.extend_from_slice(&piece);
        }
        Manifest::decode(&whole).map_err(|error| self.unusable(error))
    }

    /// An older state would take back what the group relies upon.
    fn check(&self, manifest: &Manifest, promised: Position) -> Result<(), InstallError> {
        let stands_at = manifest.group().map_err(|error| self.unusable(error))?;
        let stands_at = raft::group::Checkpoint::decode(&stands_at);
        let stands_at = stands_at.map_err(|error| self.unusable(error))?;
        match stands_at.at.index < promised.index {
            true => Err(InstallError::Older {
                server: self.server.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Asks until there is an answer, for a while, and keeps to the pace.
    async fn ask(&self, request: Request) -> Result<Bytes, InstallError> {
        let asked = Instant::now();
        let request = request::encode(self.group, request);
        let mut backoff = BACKOFF.iter();
        loop {
            let answer = self.fetch.fetch(self.server, request.clone()).await;
            let answer =
                answer.and_then(|answer| request::read_answer(&answer).map_err(FetchError));
            match (answer, backoff.next()) {
                (Ok(answer), _) => {
                    let nanoseconds = answer.len() as u128 * 1_000_000_000
                        / u128::from(self.pace.bytes_per_second.max(1));
                    let share = Duration::from_nanos(nanoseconds.min(10_000_000_000) as u64);
                    tokio::time::sleep_until(asked + share).await;
                    return Ok(answer);
                }
                (Err(_), Some(wait)) => tokio::time::sleep(*wait).await,
                (Err(error), None) => {
                    return Err(InstallError::Fetch {
                        server: self.server.to_owned(),
                        reason: error.0,
                    });
                }
            }
        }
    }

    fn usable<T>(&self, result: Result<T, String>) -> Result<T, InstallError> {
        result.map_err(|reason| self.unusable(reason))
    }

    fn unusable(&self, reason: impl ToString) -> InstallError {
        InstallError::Unusable {
            server: self.server.to_owned(),
            reason: reason.to_string(),
        }
    }
}
