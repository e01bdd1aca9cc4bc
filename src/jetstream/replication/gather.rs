//! Answers that no server has alone: each gives its share, within a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use raft::group::Channel;

use super::super::api::elsewhere::Carried;
use super::super::api::handler::Answer;
use super::super::types::ErrorCode;
use super::carry::encode_request;
use super::kinds::GATHER;
use super::router::Directory;
use crate::cluster::link::Links;

/// Asks all servers for their share of an answer, and makes one of those that come in time.
pub(super) async fn from_all(
    links: Arc<Links>,
    directory: Arc<dyn Directory>,
    carried: Carried,
    within: Duration,
) -> Result<Answer, ErrorCode> {
    let body = encode_request(&carried).map_err(|_| ErrorCode::ClusterNotAvail)?;
    let sharers = directory.sharers();
    let asking = sharers.iter().map(|server| {
        let body = body.clone();
        links.request(server, Channel::Control, GATHER, body, within)
    });
    let (own_directory, own_carried) = (Arc::clone(&directory), carried.clone());
    // Asks shards, which no task of a connection's runtime may wait for.
    let own = tokio::task::spawn_blocking(move || own_directory.share(&own_carried));
    let (own, others) = tokio::join!(own, join_all(asking));
    let own: Bytes = own.map_err(|_| ErrorCode::ClusterNotAvail)?;
    let silent = others.iter().filter(|share| share.is_err()).count();
    let mut shares = vec![own];
    shares.extend(others.into_iter().flatten());
    let merging = move || directory.merge(&carried, shares, silent);
    let merged = tokio::task::spawn_blocking(merging).await;
    merged.map_err(|_| ErrorCode::ClusterNotAvail)
}
