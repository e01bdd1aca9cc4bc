//! Makes this server hold what the meta layer says that it is to hold, and know of everything else.
//!
//! What is to be done follows from the state and from what is here (`meta::reconcile`); this room does it, one thing after another.
//!
//! - `found`: what a start found, and what of it nothing in the state explains.
//! - `held`: replicas that are here: how they begin, change and end.
//! - `repair`: replicas that are of no use any more, and how others take their places.
//! - `accounts`: those that get JetStream, or lose it.
//! - `elsewhere`: streams that are not here, as the API knows them.
//!
//! # Invariant
//! A stream is removed only when the state names it as released. One that nobody assigned is set aside, with all that it holds, and not before this server knows the state
//! as it is. Until then nothing is begun either: a replica that was here before under the same id would have forgotten its votes.

mod accounts;
mod elsewhere;
mod found;
mod held;
mod repair;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use raft::group::GroupNumber;
use raft::types::NodeId;
use storage::engine::Recovered;
use storage::store::FileStore;
use tokio::sync::Notify;

use super::super::accounts::Accounts;
use super::super::meta::{
    Action, Command, Condition, Form, Held, Holdings, Meta, Past, Start, StreamAssignment,
    StreamRef, reconcile,
};
use super::super::registry::{AccountStreams, Stream};
use super::super::shard::{Aside, Streams};
use super::super::types::{ApiError, ErrorCode};
use super::landed::LandedStreams;
use super::repairs::Repairs;
use super::replicated::{Lost, Replicated};
use super::reports::Reporter;
use super::view::View;
use crate::cluster::link::Links;

/// How long something that failed is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// How long something that cannot be done yet is left alone.
const EARLY_PAUSE: Duration = Duration::from_millis(50);

/// Follows the meta layer's state on one server.
pub(super) struct Follower {
    own: String,
    accounts: Arc<Accounts>,
    streams: Arc<Streams>,
    links: Arc<Links>,
    pub view: Arc<View>,
    pub replicated: Arc<Replicated>,
    reporter: Arc<Reporter>,
    pub landed: Arc<LandedStreams>,
    pub runtime: tokio::runtime::Handle,
    /// Replicas here that are of no use any more.
    pub repairs: Arc<Repairs>,
    here: Mutex<Here>,
    /// Reports that are on their way.
    told: Arc<Mutex<HashSet<Vec<u8>>>>,
    /// Something else than the state has changed.
    pub looks_again: Notify,
}

/// What a follower is made of.
pub(super) struct FollowerParts {
    pub own: String,
    pub accounts: Arc<Accounts>,
    pub streams: Arc<Streams>,
    pub links: Arc<Links>,
    pub view: Arc<View>,
    pub replicated: Arc<Replicated>,
    pub reporter: Arc<Reporter>,
    pub runtime: tokio::runtime::Handle,
    /// What came out of backups here and is not in the state yet.
    pub landed: Arc<LandedStreams>,
    pub repairs: Arc<Repairs>,
    /// Replicas that a start found.
    pub replicas: Vec<Recovered<FileStore>>,
    /// What was set aside in earlier runs.
    pub aside: Vec<Aside>,
}

/// What is on this server.
struct Here {
    holdings: BTreeMap<GroupNumber, Holding>,
    /// Streams with one replica that a start found, and whose group is not known yet: by account and name.
    unmatched: BTreeSet<(String, String)>,
    /// Replicas whose group is not known, because the catalog was damaged.
    nameless: Vec<Recovered<FileStore>>,
    /// Streams that are elsewhere, as the API knows them here.
    elsewhere: HashMap<(String, String), Elsewhere>,
    /// Streams that this version cannot run, by account and name.
    unsupported: BTreeSet<(String, String)>,
    aside: Vec<Aside>,
    /// Present once the state is known as it is.
    past: Option<Past>,
    /// Groups that are left alone for a while.
    pauses: HashMap<GroupNumber, Instant>,
}

struct Elsewhere {
    group: GroupNumber,
    revision: u64,
    stream: Arc<Stream>,
}

/// A replica that this server has.
struct Holding {
    account: String,
    stream: String,
    node: NodeId,
    form: Form,
    revision: u64,
    kind: Kind,
}

enum Kind {
    /// It runs, with a plain log.
    Plain(Arc<Stream>),
    /// The same, while its account has no JetStream.
    Parked,
    /// It runs, in its group; while its account has no JetStream, it rests.
    Replica(Arc<Stream>),
    /// It is in storage, and does not run.
    Found(Box<Recovered<FileStore>>),
    /// What it must not forget is lost; what is left of it is in storage, if anything is.
    Lost(Lost),
    /// It cannot run in this process any more.
    Offline,
}

/// Why something was not done.
enum NotDone {
    /// Something else has to happen first.
    Early,
    Failed(ApiError),
}

impl From<ApiError> for NotDone {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Holding {
    fn held(&self) -> Held {
        Held {
            node: self.node,
            form: self.form,
            condition: match self.kind {
                Kind::Plain(_) | Kind::Parked | Kind::Replica(_) | Kind::Offline => {
                    Condition::Running
                }
                Kind::Found(_) => Condition::Stopped,
                Kind::Lost(_) => Condition::Lost,
            },
            revision: self.revision,
            account: self.account.clone(),
            stream: self.stream.clone(),
            // Consumers live in the logs of their streams.
            consumers: BTreeMap::new(),
        }
    }

    fn key(&self) -> (String, String) {
        (self.account.clone(), self.stream.clone())
    }
}

/// The streams of an account that run or could not be brought back.
fn found_in(account: &AccountStreams) -> impl Iterator<Item = (String, String)> {
    let running = account.all().into_iter().map(|stream| stream.name.clone());
    let names = running.chain(account.all_offline().into_keys());
    names.map(|name| (account.name.clone(), name))
}

impl Follower {
    /// With what a start found: streams with one replica are in their accounts, and run.
    pub fn new(parts: FollowerParts) -> Arc<Self> {
        let mut unmatched = BTreeSet::new();
        for account in parts.accounts.all() {
            unmatched.extend(found_in(&account));
        }
        unmatched.extend(parts.streams.all_parked());
        let (mut holdings, mut nameless) = (BTreeMap::new(), Vec::new());
        for found in parts.replicas {
            let replica = found.form.replica();
            let Some(replica) = replica.filter(|replica| replica.group != 0) else {
                nameless.push(found);
                continue;
            };
            let holding = Holding {
                account: found.account.clone(),
                stream: found.name.clone(),
                node: replica.node,
                form: Form::Raft,
                revision: 0,
                kind: Kind::Found(Box::new(found)),
            };
            holdings.insert(GroupNumber(replica.group), holding);
        }
        parts.view.forget(holdings.keys().copied());
        Arc::new(Self {
            own: parts.own,
            accounts: parts.accounts,
            streams: parts.streams,
            links: parts.links,
            view: parts.view,
            replicated: parts.replicated,
            reporter: parts.reporter,
            landed: parts.landed,
            runtime: parts.runtime,
            repairs: parts.repairs,
            here: Mutex::new(Here {
                holdings,
                unmatched,
                nameless,
                elsewhere: HashMap::new(),
                unsupported: BTreeSet::new(),
                aside: parts.aside,
                past: None,
                pauses: HashMap::new(),
            }),
            told: Arc::default(),
            looks_again: Notify::new(),
        })
    }

    pub fn own(&self) -> &str {
        &self.own
    }

    /// Does what has to be done to be as the state says; `current` when that is the state as it is. Waits for shards and disks. Says whether something is left to do
    /// that no change of the state will bring up again.
    pub fn follow(&self, meta: &Meta, current: bool) -> bool {
        let mut here = self.here.lock();
        if current && here.past.is_none() {
            here.past = Some(Past::of(meta));
        }
        self.match_found(meta, &mut here);
        self.take_up_landed(meta, &mut here);
        if current {
            self.set_strays_aside(&mut here);
            self.note_what_is_aside(meta, &here);
        }
        let holdings: Holdings = here
            .holdings
            .iter()
            .map(|(number, holding)| (*number, holding.held()))
            .collect();
        let unknown = Past::default();
        let past = here.past.as_ref().unwrap_or(&unknown);
        let mut actions = reconcile(meta, &self.own, &holdings, past);
        if !current {
            actions.retain(may_be_early);
        }
        actions.retain(|action| self.is_possible(meta, action, &here));
        // A name must be free before another stream takes it.
        actions.sort_by_key(|action| {
            !matches!(action, Action::Delete { .. } | Action::SetAside { .. })
        });
        let mut left = false;
        let begun = Instant::now();
        here.pauses.retain(|_, until| *until > begun);
        for action in actions {
            let group = group_of(&action);
            if here.pauses.contains_key(&group) {
                left = true;
                continue;
            }
            match self.carry_out(meta, action, &mut here) {
                Ok(again) => left |= again,
                Err(not_done) => {
                    left = true;
                    let pause = match not_done {
                        NotDone::Early => EARLY_PAUSE,
                        NotDone::Failed(error) => {
                            tracing::error!(
                                "JetStream group {group} is not as it is to be on this server: {}",
                                error.description
                            );
                            FAILED_PAUSE
                        }
                    };
                    here.pauses.insert(group, Instant::now() + pause);
                }
            }
        }
        self.show_what_is_elsewhere(meta, &mut here);
        left || !self.told.lock().is_empty()
    }

    /// Reports to the leader of the meta group, once at a time.
    fn tell(&self, command: Command) {
        self.tell_once(command.encode(), command);
    }

    /// The same of a report that is known by those bytes while it is on its way.
    fn tell_once(&self, bytes: Vec<u8>, command: Command) {
        if !self.told.lock().insert(bytes.clone()) {
            return;
        }
        let (reporter, told) = (Arc::clone(&self.reporter), Arc::clone(&self.told));
        self.runtime.spawn(async move {
            if let Err(reason) = reporter.report(&command).await {
                tracing::debug!("The meta group did not take a report: {reason}");
                tokio::time::sleep(FAILED_PAUSE).await;
            }
            told.lock().remove(&bytes);
        });
    }

    fn account(&self, of: &StreamRef) -> Result<Arc<AccountStreams>, NotDone> {
        let account = self.accounts.get(&of.account);
        account.ok_or_else(|| NotDone::Failed(ErrorCode::NotEnabledForAccount.into()))
    }

    /// Does one thing. Says whether it has to be looked at again.
    fn carry_out(&self, meta: &Meta, action: Action, here: &mut Here) -> Result<bool, NotDone> {
        match action {
            Action::Start { of, node, how, .. } => {
                let assignment = assigned(meta, &of)?;
                self.start(&of, assignment, node, &how, here)
            }
            Action::Convert {
                of,
                node,
                form,
                how,
                ..
            } => {
                let assignment = assigned(meta, &of)?;
                let account = self.accounts.get(&of.account);
                self.convert(account.as_ref(), &of, assignment, (node, form), &how, here)
            }
            Action::Configure { of, revision } => {
                let assignment = assigned(meta, &of)?;
                self.take_config(&of, assignment, revision, here)?;
                Ok(false)
            }
            Action::Delete { group, .. } => {
                self.delete(meta, group, here)?;
                // What is gone is reported next.
                Ok(true)
            }
            Action::ReportGone { group, node } => {
                self.tell(Command::ReplicaGone { group, node });
                Ok(true)
            }
            Action::ReportLost { of, node } => {
                self.tell(Command::MemberLost { of, node });
                Ok(true)
            }
            Action::SetAside { group, reason } => {
                tracing::error!("{reason}: it is set aside, nothing of it is removed");
                if let Some(holding) = here.holdings.remove(&group) {
                    here.aside.extend(self.put_aside(group, holding, &reason));
                }
                Ok(true)
            }
            // It is shown as offline here, as it is where it has no replica.
            Action::Offline { .. } => Ok(false),
            // Consumers live in the logs of their streams.
            Action::PutConsumer { .. } | Action::DeleteConsumer { .. } => Ok(false),
        }
    }
}

fn assigned<'a>(meta: &'a Meta, of: &StreamRef) -> Result<&'a StreamAssignment, NotDone> {
    let stream = meta.stream_of(of).map(|stream| &**stream);
    stream.ok_or_else(|| NotDone::Failed(ErrorCode::StreamNotFound.into()))
}

/// What is right on a state that was committed, although there may be a later one.
fn may_be_early(action: &Action) -> bool {
    matches!(
        action,
        Action::Start {
            how: Start::Again,
            ..
        } | Action::Delete { .. }
            | Action::Configure { .. }
    )
}

fn group_of(action: &Action) -> GroupNumber {
    match action {
        Action::Start { of, .. }
        | Action::Convert { of, .. }
        | Action::Configure { of, .. }
        | Action::PutConsumer { of, .. }
        | Action::DeleteConsumer { of, .. }
        | Action::ReportLost { of, .. }
        | Action::Offline { of, .. } => of.group,
        Action::Delete { group, .. }
        | Action::ReportGone { group, .. }
        | Action::SetAside { group, .. } => *group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_begun_or_set_aside_on_a_state_that_may_be_old() {
        let of = StreamRef {
            account: "A".to_owned(),
            stream: "S".to_owned(),
            group: GroupNumber(1),
        };
        let start = |how| Action::Start {
            of: of.clone(),
            node: 1,
            form: Form::Raft,
            how,
        };
        assert!(may_be_early(&start(Start::Again)));
        assert!(!may_be_early(&start(Start::Joiner)));
        assert!(!may_be_early(&start(Start::New)));
        let aside = Action::SetAside {
            group: GroupNumber(1),
            reason: String::new(),
        };
        assert!(!may_be_early(&aside));
        let lost = Action::ReportLost {
            of: of.clone(),
            node: 1,
        };
        assert!(!may_be_early(&lost));
        assert_eq!(group_of(&lost), GroupNumber(1));
    }
}
