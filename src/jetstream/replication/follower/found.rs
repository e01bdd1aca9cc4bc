//! What a start found: it belongs to a group, or is set aside.

use std::sync::Arc;

use raft::group::GroupNumber;

use super::super::super::api::now;
use super::super::super::meta::{Command, Form, Meta, ORPHANS_MAX};
use super::super::super::shard::{Aside, UNEXPLAINED};
use super::super::super::types::Time;
use super::super::replicated::Lost;
use super::{Follower, Here, Holding, Kind};

impl Follower {
    /// Finds the groups of streams that a start found: those they are assigned to, or were released from.
    pub(super) fn match_found(&self, meta: &Meta, here: &mut Here) {
        let unmatched = std::mem::take(&mut here.unmatched);
        for (account, name) in unmatched {
            match self.matched(meta, &account, &name) {
                Some((group, holding)) if !here.holdings.contains_key(&group) => {
                    let plain = matches!(holding.kind, Kind::Plain(_));
                    self.view.set_here(&account, &name, plain);
                    here.holdings.insert(group, holding);
                }
                _ => {
                    here.unmatched.insert((account, name));
                }
            }
        }
        for found in std::mem::take(&mut here.nameless) {
            let assigned = meta.stream(&found.account, &found.name);
            let member = assigned.and_then(|stream| {
                let member = stream.group.member_on(&self.own)?;
                Some((stream.group.number, member.node))
            });
            match member.filter(|(group, _)| !here.holdings.contains_key(group)) {
                Some((group, node)) => {
                    let holding = Holding {
                        account: found.account,
                        stream: found.name,
                        node,
                        form: Form::Raft,
                        revision: 0,
                        kind: Kind::Lost(Lost::damaged(found.id)),
                    };
                    here.holdings.insert(group, holding);
                }
                None => here.nameless.push(found),
            }
        }
    }

    fn matched(&self, meta: &Meta, account: &str, name: &str) -> Option<(GroupNumber, Holding)> {
        let found = self.accounts.get(account).map(|streams| streams.get(name));
        let (kind, created) = match found {
            Some(Some(found)) => (Kind::Plain(Arc::clone(&found)), found.created()),
            Some(None) => (Kind::Offline, None),
            None => (
                Kind::Parked,
                Some(self.streams.parked_since(account, name)?),
            ),
        };
        let is_it = |other| created.is_none_or(|created| created == other);
        let holding = |node, revision| Holding {
            account: account.to_owned(),
            stream: name.to_owned(),
            node,
            form: Form::Plain,
            revision,
            kind,
        };
        let assigned = meta.stream(account, name);
        if let Some(stream) = assigned.filter(|stream| is_it(stream.created)) {
            let member = stream.group.member_on(&self.own)?;
            let node = match stream.group.form {
                Form::Plain => member.node,
                // An id from before the group: none that it has now.
                Form::Raft => 0,
            };
            return Some((stream.group.number, holding(node, 0)));
        }
        let mut released = meta.released().iter();
        let ((group, node), _) = released.find(|(_, released)| {
            let named = released.account == account && released.stream == name;
            named && released.server == self.own && created == Some(released.created)
        })?;
        Some((*group, holding(*node, 0)))
    }

    /// What a start found and nothing in the state explains.
    pub(super) fn set_strays_aside(&self, here: &mut Here) {
        for (account, name) in std::mem::take(&mut here.unmatched) {
            let Some(streams) = self.accounts.get(&account) else {
                let parked = self.streams.forget_parked(&account, &name);
                let aside = parked
                    .and_then(|(id, _)| self.streams.set_aside(id, &account, &name, UNEXPLAINED));
                here.aside.extend(aside);
                continue;
            };
            let aside = match streams.get(&name) {
                Some(stream) => {
                    let aside = self.streams.set_stream_aside(&streams, &stream);
                    streams.remove_exactly(&stream);
                    aside
                }
                None => {
                    let aside = self.streams.set_offline_aside(&streams, &name);
                    streams.remove(&name);
                    aside
                }
            };
            here.aside.extend(aside);
        }
        for found in std::mem::take(&mut here.nameless) {
            let aside = self
                .streams
                .set_aside(found.id, &found.account, &found.name, UNEXPLAINED);
            here.aside.extend(aside);
        }
    }

    /// Has the state name all that was set aside here, and nothing that is not there any more.
    pub(super) fn note_what_is_aside(&self, meta: &Meta, here: &Here) {
        let key = |aside: &Aside| (self.own.clone(), aside.place.clone());
        // A full list takes no more: what is not on it stands in this server's log.
        let has_room = meta.orphans().len() < ORPHANS_MAX;
        for aside in here.aside.iter().filter(|_| has_room) {
            if !meta.orphans().contains_key(&key(aside)) {
                let note = |since| Command::OrphanNote {
                    server: self.own.clone(),
                    place: aside.place.clone(),
                    account: aside.account.clone(),
                    stream: aside.stream.clone(),
                    reason: aside.reason.clone(),
                    since,
                };
                // The same note at another time is no other one.
                self.tell_once(note(Time::ZERO).encode(), note(now()));
            }
        }
        let noted = meta.orphans().keys().filter(|(on, _)| *on == self.own);
        for (_, place) in noted {
            if !here.aside.iter().any(|aside| aside.place == *place) {
                self.tell(Command::OrphanGone {
                    server: self.own.clone(),
                    place: place.clone(),
                });
            }
        }
    }
}
