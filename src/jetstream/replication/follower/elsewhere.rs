//! Streams that are not here, as the API knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::group::GroupNumber;

use super::super::super::core::Unsupported;
use super::super::super::meta::{Form, Meta, StreamAssignment};
use super::super::super::registry::{AccountStreams, Stream};
use super::super::ask::RemotePort;
use super::{Elsewhere, Follower, Here, Holding, Kind};

impl Follower {
    pub(super) fn remote(&self, account: &AccountStreams, assignment: &StreamAssignment) -> Stream {
        let port = RemotePort {
            account: account.name.clone(),
            stream: assignment.config().name.clone(),
            links: Arc::clone(&self.links),
            view: Arc::downgrade(&self.view),
            runtime: self.runtime.clone(),
        };
        Stream::new(assignment.config().clone(), Box::new(port))
    }

    /// Lets the API know of all streams that are not here, and of no other ones.
    pub(super) fn show_what_is_elsewhere(&self, meta: &Meta, here: &mut Here) {
        let Here {
            holdings,
            unmatched,
            elsewhere,
            unsupported,
            ..
        } = here;
        elsewhere.retain(|(account, name), shown| {
            let assigned = meta.stream(account, name);
            let stays = assigned.is_some_and(|stream| {
                stream.group.number == shown.group && stream.stored.unsupported.is_none()
            });
            if !stays && let Some(account) = self.accounts.get(account) {
                account.remove_exactly(&shown.stream);
            }
            stays
        });
        self.show_unsupported(meta, holdings, unsupported);
        for (of, assignment) in meta.all_streams() {
            let runs =
                |holding: &Holding| matches!(holding.kind, Kind::Plain(_) | Kind::Replica(_));
            if holdings.get(&of.group).is_some_and(runs) {
                continue;
            }
            let key = (of.account.clone(), of.stream.clone());
            let Some(account) = self.accounts.get(&of.account) else {
                continue;
            };
            // What is here under that name is told apart first.
            if unmatched.contains(&key) || assignment.stored.unsupported.is_some() {
                continue;
            }
            // A stream whose only replica cannot run here is offline.
            if assignment.group.form == Form::Plain
                && account.offline(&of.stream).is_some()
                && holdings.contains_key(&of.group)
            {
                continue;
            }
            match elsewhere.get_mut(&key) {
                Some(shown) if shown.revision == assignment.revision => {}
                Some(shown) => {
                    shown.stream.set_config(assignment.config().clone());
                    shown.revision = assignment.revision;
                }
                None => {
                    let stream = Arc::new(self.remote(&account, assignment));
                    account.insert(Arc::clone(&stream));
                    let shown = Elsewhere {
                        group: of.group,
                        revision: assignment.revision,
                        stream,
                    };
                    elsewhere.insert(key, shown);
                }
            }
        }
    }

    /// Names a stream as offline whose replica here has stopped at what a later version wrote into the stream's log.
    pub fn show_stopped(&self, group: GroupNumber, unsupported: Unsupported) {
        let meta = self.reporter.machine.meta();
        let Some((of, _)) = meta.all_streams().find(|(of, _)| of.group == group) else {
            return;
        };
        if let Some(account) = self.accounts.get(&of.account)
            && account.offline(&of.stream).is_none()
        {
            let Unsupported { reason, consumers } = unsupported;
            account.set_unsupported(&of.stream, reason, consumers);
        }
    }

    /// Names the streams that this version cannot run as offline, wherever they are, and those that are gone no more.
    fn show_unsupported(
        &self,
        meta: &Meta,
        holdings: &BTreeMap<GroupNumber, Holding>,
        shown: &mut BTreeSet<(String, String)>,
    ) {
        shown.retain(|(account, name)| {
            let assigned = meta.stream(account, name);
            let stays = assigned.is_some_and(|stream| stream.stored.unsupported.is_some());
            if !stays && let Some(account) = self.accounts.get(account) {
                account.set_online(name);
                let here = assigned.and_then(|stream| holdings.get(&stream.group.number));
                if let Some(Kind::Plain(stream) | Kind::Replica(stream)) =
                    here.map(|holding| &holding.kind)
                {
                    account.insert(Arc::clone(stream));
                }
            }
            stays
        });
        for (of, assignment) in meta.all_streams() {
            let Some(reason) = &assignment.stored.unsupported else {
                continue;
            };
            if let Some(account) = self.accounts.get(&of.account) {
                account.set_offline(&of.stream, reason.clone());
                shown.insert((of.account, of.stream));
            }
        }
    }
}
