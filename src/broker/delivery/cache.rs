//! Matches found lately, so that a subject that is published to again is not looked up again.
//!
//! A table with one place for each hash: a newcomer takes the place of whoever stands there and uses
//! its memory again. Subjects that never come back (replies, above all) so cost no allocation and
//! cannot make the table grow beyond its limit.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::broker::account::Account;
use crate::broker::route::RouteMatches;
use crate::broker::subscription::Subscription;
use crate::subject::Matches;

/// Places of a new table.
const PLACES_MIN: usize = 8;
/// Places of the largest table.
const PLACES_MAX: usize = 512;

#[derive(Debug, Default)]
struct Place {
    subject: Vec<u8>,
    account: Option<Arc<Account>>,
    generation: u64,
    matches: Matches<Arc<Subscription>>,
    routes: RouteMatches,
    /// What leads into other accounts.
    exits: Vec<Arc<Subscription>>,
    /// How often it was of use since the account was told.
    hits: u64,
}

impl Place {
    /// Tells the account how often its matches were known here.
    fn tell_hits(&mut self) {
        let hits = std::mem::take(&mut self.hits);
        if let Some(account) = &self.account {
            account.statistics.hit(hits);
        }
    }

    /// Makes room for a subject of this account.
    fn take_over(&mut self, account: &Arc<Account>, subject: &[u8]) {
        if let Some(before) = self.account.take() {
            before.statistics.forgotten();
        }
        self.subject.clear();
        self.subject.extend_from_slice(subject);
        account.statistics.kept();
        self.account = Some(Arc::clone(account));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tell_hits();
        if let Some(account) = &self.account {
            account.statistics.forgotten();
        }
    }
}

/// What matches a subject.
pub(super) struct Found<'a> {
    /// Who listens here.
    pub(super) matches: &'a Matches<Arc<Subscription>>,
    /// Who listens on other servers.
    pub(super) routes: &'a RouteMatches,
    /// What leads into other accounts.
    pub(super) exits: &'a [Arc<Subscription>],
}

/// Matches by account and subject.
#[derive(Debug, Default)]
pub(super) struct MatchCache {
    places: Vec<Place>,
    hasher: RandomState,
    /// How many found their place taken by another since the table last grew.
    collisions: usize,
}

impl MatchCache {
    /// What matches the subject now.
    pub(super) fn find(&mut self, account: &Arc<Account>, subject: &[u8]) -> Found<'_> {
        if self.places.is_empty() || self.collisions > self.places.len() {
            self.grow();
        }
        let generation = account.generation();
        let at = self.hasher.hash_one(subject) as usize & (self.places.len() - 1);
        let place = &mut self.places[at];
        let is_same = place.subject == subject
            && place
                .account
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, account));
        if is_same && place.generation == generation {
            place.hits += 1;
        } else {
            place.tell_hits();
            if !is_same {
                self.collisions += usize::from(place.account.is_some());
                place.take_over(account, subject);
            }
            // The generation was read before the index is: what changes in between is seen later.
            place.generation = generation;
            account.matches(subject, &mut place.matches);
            let groups = place.matches.queues.iter();
            let members: usize = groups.map(|group| group.members.len()).sum();
            account
                .statistics
                .looked_up(place.matches.plain.len() + members);
            if account.remote_subscription_count() > 0 {
                place.routes.split_off(subject, &mut place.matches);
            } else {
                place.routes.clear();
            }
            place.exits.clear();
            if account.is_left() {
                let exits = &mut place.exits;
                exits.extend(place.matches.plain.extract_if(.., |found| found.is_exit()));
            }
        }
        Found {
            matches: &place.matches,
            routes: &place.routes,
            exits: &place.exits,
        }
    }

    fn grow(&mut self) {
        self.collisions = 0;
        let places = match self.places.len() {
            0 => PLACES_MIN,
            PLACES_MAX => return,
            places => places * 4,
        };
        let old = std::mem::take(&mut self.places);
        self.places.resize_with(places, Place::default);
        for place in old {
            let at = self.hasher.hash_one(&*place.subject) as usize & (places - 1);
            self.places[at] = place;
        }
    }
}

const _: () = assert!(PLACES_MIN.is_power_of_two() && PLACES_MIN * 4 * 4 * 4 == PLACES_MAX);
