//! Accounts that get JetStream, or lose it, while the server runs.
//!
//! What is here of the streams of an account without it stays. A stream with one replica is parked. A replica rests: it goes on as a member of its group, so that the others can
//! count on it and what it has is never behind, and is a stream to nobody. Whatever follows from the state and does not need the account is done meanwhile: replicas
//! are begun, and those that were released are removed.

use super::super::super::limits::AccountTiers;
use super::super::super::meta::{Action, Form, Meta, StreamRef};
use super::{Follower, Here, Kind, found_in};

impl Follower {
    /// An account has JetStream no more. Waits for shards.
    pub fn take_from(&self, name: &str) {
        let mut here = self.here.lock();
        if let Some(account) = self.accounts.get(name) {
            // Found anew in the state when it comes back.
            for (_, stream) in here.unsupported.iter().filter(|(of, _)| of == name) {
                account.set_online(stream);
            }
        }
        let Some(account) = self.accounts.disable(name) else {
            return;
        };
        here.unsupported.retain(|(of, _)| of != name);
        here.elsewhere.retain(|(of, _), _| of != name);
        self.replicated.rest(name);
        let offline = self.streams.park_all(&account);
        self.accounts.unlist(name, offline);
        let holdings = here.holdings.values_mut();
        for holding in holdings.filter(|holding| holding.account == name) {
            if !matches!(holding.kind, Kind::Plain(_)) {
                continue;
            }
            self.view.set_here(name, &holding.stream, false);
            let is_parked = self.streams.parked_since(name, &holding.stream).is_some();
            holding.kind = match is_parked {
                true => Kind::Parked,
                false => Kind::Offline,
            };
        }
    }

    /// An account has JetStream from now on, with all that is here of it.
    pub fn give_to(&self, name: &str, limits: AccountTiers) {
        let mut here = self.here.lock();
        let account = self.accounts.enable(name, limits);
        for stream in self.streams.run_parked(name) {
            account.insert(stream);
        }
        self.replicated.wake(name);
        let Here {
            holdings,
            unmatched,
            ..
        } = &mut *here;
        unmatched.extend(found_in(&account));
        let holdings = holdings.values_mut();
        for holding in holdings.filter(|holding| holding.account == name) {
            unmatched.remove(&holding.key());
            match &holding.kind {
                Kind::Parked => {
                    holding.kind = match account.get(&holding.stream) {
                        Some(stream) => Kind::Plain(stream),
                        None => Kind::Offline,
                    };
                    let runs = matches!(holding.kind, Kind::Plain(_));
                    self.view.set_here(name, &holding.stream, runs);
                }
                Kind::Replica(stream) => account.insert(std::sync::Arc::clone(stream)),
                _ => {}
            }
        }
        self.show_what_is_elsewhere(&self.reporter.machine.meta(), &mut here);
        drop(here);
        self.looks_again.notify_one();
    }

    /// Whether something can be done although the account that it concerns may have no JetStream.
    pub(super) fn is_possible(&self, meta: &Meta, action: &Action, here: &Here) -> bool {
        let is_without = |of: &StreamRef| self.accounts.get(&of.account).is_none();
        match action {
            Action::Start { of, form, .. } => *form == Form::Raft || !is_without(of),
            Action::Convert { of, form, .. } if is_without(of) => {
                let held = here.holdings.get(&of.group);
                let runs_alone = held.is_some_and(|held| held.form == Form::Plain);
                *form == Form::Raft && !runs_alone && meta.stream_of(of).is_some()
            }
            // Told when the account has JetStream again: then it is led here, or somewhere.
            Action::Configure { of, .. } => !is_without(of),
            _ => true,
        }
    }
}
