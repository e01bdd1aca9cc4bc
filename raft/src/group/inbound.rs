//! What comes from other servers: frames taken apart, requests answered, answers given to those who wait.

use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::applier::Snapshot;
use super::hub::Hub;
use super::machine::{MachineFailed, Manifest};
use super::options::Channel;
use super::replica::{Core, Replica};
use crate::types::{NodeId, Types};
use crate::wire::{
    Append, AppendAnswer, Body, Envelope, ManifestOffer, Messages, Received, RefusedReason,
    VoteAnswer, VoteCall,
};

/// Takes a frame apart. Runs on the runtime of the groups.
pub(super) fn take(hub: &Arc<Hub>, from: &Arc<str>, frame: Bytes) {
    let mut run = None;
    for message in Messages::of(frame) {
        match message {
            Ok(Received::Liveness { run: theirs }) => run = Some(theirs),
            Ok(Received::OfGroup(envelope, body)) if body.is_answer() => {
                hub.calls.answered(from, &envelope, body);
            }
            Ok(Received::OfGroup(envelope, body)) => request(hub, from, envelope, body),
            Err(error) => tracing::warn!(from = %from, %error, "a message cannot be read"),
        }
    }
    hub.heard(from, run);
}

fn request(hub: &Arc<Hub>, from: &Arc<str>, envelope: Envelope, body: Body) {
    let replica = match hub.replica(envelope.group) {
        Some(replica) if replica.node() == envelope.to => replica,
        found => {
            let reason = match found {
                Some(_) => RefusedReason::OtherNode,
                None => RefusedReason::NoSuchGroup,
            };
            answer(hub, from, &envelope, &Body::Refused(reason));
            return;
        }
    };
    let (hub, from) = (Arc::clone(hub), Arc::clone(from));
    let handle = hub.runtime.clone();
    handle.spawn(async move {
        let done = replica.handle(&from, &envelope, body).await;
        if let Some(done) = done {
            answer(&hub, &from, &envelope, &done);
        }
    });
}

fn answer(hub: &Hub, to: &str, request: &Envelope, body: &Body) {
    if request.request == 0 {
        return;
    }
    let envelope = Envelope {
        from: request.to,
        to: request.from,
        ..*request
    };
    hub.post.send(to, Channel::Control, &envelope, body);
}

impl Replica {
    /// Does what another replica asks. `None` when there is nothing to answer.
    async fn handle(self: Arc<Self>, from: &str, envelope: &Envelope, body: Body) -> Option<Body> {
        let Some(core) = self.core() else {
            return Some(Body::Refused(RefusedReason::NoSuchGroup));
        };
        let failed = Some(Body::Refused(RefusedReason::Failed));
        match body {
            Body::Quiet { term, index } => {
                self.told_to_rest(envelope.from, term, index);
                None
            }
            Body::Gone => {
                self.leader_is_lost(from);
                None
            }
            Body::PreVote(call) => self.pre_vote(core, call).await.or(failed),
            Body::Vote(call) => {
                self.wake();
                let voted = core.vote(vote_request(call)).await;
                voted.ok().map(vote_answer).map(Body::VoteAnswer).or(failed)
            }
            Body::Append(append) => {
                self.wake();
                append_to(core, append).await.or(failed)
            }
            Body::Transfer { leader, to, last } => {
                self.wake();
                let request = TransferLeaderRequest::new(leader, to, last);
                let handled = core.handle_transfer_leader(request).await;
                let taken = handled.ok().map(|taken| taken.is_ok());
                taken.map(|taken| Body::TransferAnswer { taken }).or(failed)
            }
            Body::Manifest(offer) => {
                self.wake();
                self.fetch(core, from, envelope, offer).await
            }
            Body::VoteAnswer(_)
            | Body::PreVoteAnswer(_)
            | Body::AppendAnswer(_)
            | Body::TransferAnswer { .. }
            | Body::ManifestAnswer(_)
            | Body::Refused(_) => None,
        }
    }

    /// Whether a vote would be granted. In a quiet group nobody holds a lease; what stands for it is that the leader's server is heard of.
    async fn pre_vote(self: &Arc<Self>, core: &Core, call: VoteCall) -> Option<Body> {
        let rests = self.is_quiet() && self.leader_lives();
        // Whoever asks hears of no leader. One that leads tells it so by what wakes all. One that follows finds out whether there still is one where
        // it believes: that server lives, but the replica there may have ended, and the word of that been lost.
        self.wake();
        if rests {
            return Some(Body::PreVoteAnswer(VoteAnswer {
                vote: self.server()?.vote,
                granted: false,
                last: None,
            }));
        }
        let voted = core.pre_vote(vote_request(call)).await.ok()?;
        Some(Body::PreVoteAnswer(vote_answer(voted)))
    }

    /// Lets the state machine fetch what the manifest describes, and then tells Raft that it stands there. In this order, so that elections and
    /// heartbeats do not wait for the data, and so that the log is never shorter on disk than what the state needs.
    async fn fetch(
        &self,
        core: &Core,
        from: &str,
        envelope: &Envelope,
        offer: ManifestOffer,
    ) -> Option<Body> {
        let key = (envelope.from, envelope.request);
        let known = self.server()?.vote;
        if known > offer.vote {
            return Some(Body::ManifestAnswer(known));
        }
        // Before it takes the place of the one that is being fetched: what cannot be read must not break that off.
        let meta = match offer.checkpoint.to_meta() {
            Ok(meta) => meta,
            Err(error) => {
                tracing::warn!(from, %error, "a manifest cannot be read");
                return Some(Body::Refused(RefusedReason::Failed));
            }
        };
        if self.fetching.send_replace(Some(key)) == Some(key) {
            // Offered again while it is fetched: the answer comes.
            return None;
        }
        let manifest = Manifest {
            checkpoint: offer.checkpoint,
            content: offer.content,
        };
        let installed = self.install(key, manifest, from).await?;
        self.end_fetching(key);
        if let Err(error) = installed {
            tracing::warn!(from, group = %self.number, %error, "a manifest was not installed");
            return Some(Body::Refused(RefusedReason::Failed));
        }
        let snapshot = Snapshot {
            meta,
            snapshot: None,
        };
        let told = core.install_full_snapshot(offer.vote, snapshot).await;
        Some(match told {
            Ok(response) => Body::ManifestAnswer(response.vote),
            Err(_) => Body::Refused(RefusedReason::Failed),
        })
    }
}

impl Replica {
    /// One fetch at a time: nobody waits any more for the answer to an earlier offer, and the next one goes on with what that has brought. `None` for one that
    /// was broken off so.
    async fn install(
        &self,
        key: (NodeId, u64),
        manifest: Manifest,
        from: &str,
    ) -> Option<Result<(), MachineFailed>> {
        let mut newest = self.fetching.subscribe();
        let overtaken = async {
            // The sender is the replica's own.
            let _ = newest.wait_for(|newest| *newest != Some(key)).await;
        };
        let installed = async {
            let _turn = self.installing.lock().await;
            self.machine.install(manifest, from).await
        };
        tokio::select! {
            biased;
            () = overtaken => None,
            installed = installed => Some(installed),
        }
    }

    fn end_fetching(&self, key: (NodeId, u64)) {
        let is_ours = |fetching: &mut Option<(NodeId, u64)>| {
            fetching.take_if(|fetching| *fetching == key).is_some()
        };
        self.fetching.send_if_modified(is_ours);
    }
}

fn vote_request(call: VoteCall) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(call.vote, call.last);
    request.leadership_transfer = call.transfer;
    request
}

fn vote_answer(response: VoteResponse<Types>) -> VoteAnswer {
    VoteAnswer {
        vote: response.vote,
        granted: response.vote_granted,
        last: response.last_log_id,
    }
}

async fn append_to(core: &Core, append: Append) -> Option<Body> {
    let request = AppendEntriesRequest {
        vote: append.vote,
        prev_log_id: append.previous,
        entries: append.entries,
        leader_commit: append.committed,
    };
    let answer = match core.append_entries(request).await.ok()? {
        AppendEntriesResponse::Success => AppendAnswer::All,
        AppendEntriesResponse::PartialSuccess(last) => AppendAnswer::UpTo(last),
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote(vote),
    };
    Some(Body::AppendAnswer(answer))
}
