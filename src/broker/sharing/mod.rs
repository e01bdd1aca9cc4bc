//! What accounts take from each other: streams that they listen to, and services that they ask.
//!
//! In reading order:
//! - `stream`: an imported stream. Whoever subscribes to it gets a second subscription, its shadow, in the account that exports.
//! - `service`: an imported service: a subscription of the importing account that leads into the other one.
//! - `replies`: where answers go. The asked account sees a reply subject of its own, `_R_.…`, and answers come back through it.
//! - `request_info`: what the asked account is told of who asks.
//!
//! How a message crosses is in [`super::delivery`].
//!
//! # Invariant
//! An account that imports and exports nothing pays one flag for it per looked up subject, and one per subscription.

mod replies;
mod request_info;
mod service;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::account::Account;
use super::{Broker, Subscription};
use crate::config::options::AccountOptions;

pub use replies::PendingReply;
pub(super) use replies::{Awaited, Opened, Replies, is_of_fast_batch};
pub use request_info::ServerNames;
pub(super) use request_info::{Asker, REQUEST_INFO};
pub use service::ServiceImport;
pub use stream::Shadow;

/// What an account takes from others, and the answers that are on their way through it.
#[derive(Default)]
pub(super) struct Sharing {
    /// Whether it ever imported a stream; read by whoever subscribes.
    imports_streams: AtomicBool,
    streams: Mutex<stream::Streams>,
    services: Mutex<Vec<Arc<Subscription>>>,
    /// Whether any subscription of the index ever led out of the account; read by whoever looks up a subject.
    is_left: AtomicBool,
    replies: OnceLock<Replies>,
}

impl Account {
    /// Whether a subscription here may lead into another account.
    pub(super) fn is_left(&self) -> bool {
        self.sharing.is_left.load(Ordering::Acquire)
    }

    /// Adds a subscription that leads into another account.
    fn insert_exit(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        self.sharing.is_left.store(true, Ordering::Release);
        // Patterns were checked with the configuration, and those of replies are made here.
        let inserted = self.insert_alone(subscription);
        debug_assert!(inserted.is_ok(), "{subscription:?}");
    }
}

impl Broker {
    /// Takes up what these accounts import; those that are not named import nothing any more. All of them exist.
    pub fn share(&self, accounts: &[AccountOptions]) {
        for account in self.accounts() {
            let options = accounts.iter().find(|one| one.name == account.name());
            let (streams, services) = match options {
                Some(options) => (&*options.imports.streams, &*options.imports.services),
                None => (&[][..], &[][..]),
            };
            account.import_streams(streams, |name| self.account(name));
            account.import_services(services, self);
        }
    }
}
