//! A group's log in the journal that all groups and streams of a server share.
//!
//! - `state`: the log as it stands in memory, pure.
//! - `recover`: from a replay of the journal back to that state; damage told apart.
//! - `journal`: what a log needs of the journal, so that a simulated one will do.
//! - `completion`: who waits for which frames to be durable.
//! - `store`: [`GroupLog`], openraft's log storage over the three.
//! - `reader`: [`GroupLogReader`], what replication reads through.
//!
//! # Invariant
//! What has to be durable before what: a vote before it is answered; entries before `IOFlushed` completes; the purge
//! mark before the journal may recycle the entries below it. Votes, entries, truncations and marks of a group go through
//! one journal in the order openraft asked for them, so that a vote is never newer on disk than the entries it
//! was given on.

mod completion;
mod journal;
mod reader;
mod recover;
mod state;
mod store;

pub use journal::{InlineJournal, LogJournal};
pub use reader::GroupLogReader;
pub use recover::{
    OpenGroupError, StoredEntry, recover, recover_after, recover_from, stored_entries,
};
pub use state::{Held, LogImage};
pub use store::{GroupLog, LogFigures, LogView};
