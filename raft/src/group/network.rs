//! Requests of one replica to another, as openraft makes them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use super::applier::{Described, Snapshot};
use super::hub::Hub;
use super::options::Channel;
use super::spec::GroupNumber;
use crate::types::{NodeId, Peer, Types, Vote};
use crate::wire::{Append, AppendAnswer, Body, Envelope, ManifestOffer, VoteAnswer, VoteCall};

/// A manifest is offered again when nothing was heard for so long: the offer or its answer may be lost.
const MANIFEST_REPEAT: Duration = Duration::from_secs(5);

pub(super) struct Network {
    pub hub: Arc<Hub>,
    pub group: GroupNumber,
    pub node: NodeId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, peer: &Peer) -> Client {
        Client {
            hub: Arc::clone(&self.hub),
            group: self.group,
            from: self.node,
            to: target,
            server: peer.server.clone(),
        }
    }
}

/// Talks to one other replica.
pub(super) struct Client {
    hub: Arc<Hub>,
    group: GroupNumber,
    from: NodeId,
    to: NodeId,
    server: String,
}

impl Client {
    fn envelope(&self, request: u64) -> Envelope {
        Envelope {
            group: self.group,
            from: self.from,
            to: self.to,
            request,
        }
    }

    fn unreachable(&self, why: &str) -> Unreachable<Types> {
        Unreachable::from_string(format!("{} of group {}: {why}", self.server, self.group))
    }

    async fn ask(&self, action: RPCTypes, body: &Body) -> Result<Body, RPCError<Types>> {
        if self.hub.is_lost(&self.server) {
            return Err(self.unreachable("not heard of").into());
        }
        let mut call = self.hub.calls.begin(self.group, self.to, &self.server);
        let envelope = self.envelope(call.request);
        self.hub
            .post
            .send(&self.server, Channel::Control, &envelope, body);
        let timeout = self.hub.options.timing.request_timeout;
        match tokio::time::timeout(timeout, &mut call.answer).await {
            Ok(Ok(Body::Refused(reason))) => {
                Err(self.unreachable(&format!("refused: {reason:?}")).into())
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.unreachable("gone before it answered").into()),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.from,
                target: self.to,
                timeout,
            })),
        }
    }

    fn unexpected(&self, answer: &Body) -> RPCError<Types> {
        let server = &self.server;
        RPCError::Network(NetworkError::from_string(format!(
            "{server} answers with something else: {answer:?}"
        )))
    }
}

fn vote_call(rpc: VoteRequest<Types>) -> VoteCall {
    VoteCall {
        vote: rpc.vote,
        last: rpc.last_log_id,
        transfer: rpc.leadership_transfer,
    }
}

fn vote_response(answer: VoteAnswer) -> VoteResponse<Types> {
    VoteResponse::new(answer.vote, answer.last, answer.granted)
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Described;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let append = Body::Append(Append {
            vote: rpc.vote,
            previous: rpc.prev_log_id,
            committed: rpc.leader_commit,
            entries: rpc.entries,
        });
        match self.ask(RPCTypes::AppendEntries, &append).await? {
            Body::AppendAnswer(AppendAnswer::All) => Ok(AppendEntriesResponse::Success),
            Body::AppendAnswer(AppendAnswer::UpTo(last)) => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            Body::AppendAnswer(AppendAnswer::Conflict) => Ok(AppendEntriesResponse::Conflict),
            Body::AppendAnswer(AppendAnswer::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self
            .ask(RPCTypes::Vote, &Body::Vote(vote_call(rpc)))
            .await?
        {
            Body::VoteAnswer(answer) => Ok(vote_response(answer)),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self
            .ask(RPCTypes::Vote, &Body::PreVote(vote_call(rpc)))
            .await?
        {
            Body::PreVoteAnswer(answer) => Ok(vote_response(answer)),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Some(manifest) = snapshot.snapshot else {
            return Err(self.unreachable("there is no manifest yet").into());
        };
        let offer = Body::Manifest(ManifestOffer {
            vote,
            checkpoint: manifest.checkpoint,
            content: manifest.content,
        });
        let mut cancel = pin!(cancel);
        let mut call = self.hub.calls.begin(self.group, self.to, &self.server);
        let envelope = self.envelope(call.request);
        loop {
            if self.hub.is_lost(&self.server) {
                return Err(self.unreachable("not heard of").into());
            }
            self.hub
                .post
                .send(&self.server, Channel::Bulk, &envelope, &offer);
            tokio::select! {
                biased;
                closed = &mut cancel => return Err(closed.into()),
                answer = &mut call.answer => return match answer {
                    Ok(Body::ManifestAnswer(vote)) => Ok(SnapshotResponse::new(vote)),
                    Ok(other) => Err(self.unreachable(&format!("{other:?}")).into()),
                    Err(_) => Err(self.unreachable("gone before it answered").into()),
                },
                () = tokio::time::sleep(MANIFEST_REPEAT) => {}
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let from_leader = *rpc.from_leader();
        let body = Body::Transfer {
            leader: from_leader,
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().copied(),
        };
        match self.ask(RPCTypes::TransferLeader, &body).await? {
            Body::TransferAnswer { taken: true } => Ok(Ok(())),
            Body::TransferAnswer { taken: false } => Ok(Err(TransferLeaderError::VoteChanged {
                expected: from_leader,
                actual: from_leader,
            })),
            other => Err(self.unexpected(&other)),
        }
    }
}
