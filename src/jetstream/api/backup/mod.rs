//! Backups of streams on their way to clients, and from clients.
//!
//! - `under_way`: what goes on at a time, and its threads.
//! - `snapshot`: a stream as an archive; `chunks`: the archive in messages, as fast as the client takes them.
//! - `restore`: an archive becomes a stream; `feed`: the archive out of messages.
//! - `told`: what others hear of it.
//!
//! # Invariant
//! Each of them has a thread of its own, which waits for clients and disks; nobody else waits for it. Of a stream there is never more in memory than a
//! block of records and what is on its way to the client or from it.

mod chunks;
mod feed;
mod restore;
mod snapshot;
mod told;
mod under_way;

use std::sync::Arc;

use super::elsewhere::AskingClient;
use super::handler::Server;
use crate::jetstream::registry::AccountStreams;

pub(crate) use restore::{deliver_subject, restore, restore_here};
pub(crate) use snapshot::snapshot;
pub(crate) use under_way::Backups;

/// A request that was answered.
pub(crate) struct Answered {
    pub server: Arc<Server>,
    pub account: Arc<AccountStreams>,
    /// Who asked, as far as it is known.
    pub client: Option<Box<AskingClient>>,
}

/// What is to be done once a request is answered.
pub(crate) type FollowUp = Box<dyn FnOnce(Answered) + Send>;
