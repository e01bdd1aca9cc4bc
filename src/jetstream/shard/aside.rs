//! Streams that are kept under another name and never run: nobody knows what they are for, and nothing of them is removed.

use storage::engine::{Recovered, StreamId};
use storage::store::FileStore;

use super::Streams;
use crate::jetstream::registry::{AccountStreams, Stream};

/// What stands between the name that a stream had and its number. No stream's name has a space.
const MARK: &str = " set aside ";
/// Why, where nothing more is known.
pub(crate) const UNEXPLAINED: &str = "no assignment explains it";

/// A stream that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    /// What it is called in storage: the name of its directory.
    pub place: String,
    /// The account that it says it is of.
    pub account: String,
    /// The name that it had.
    pub stream: String,
    /// Why it was set aside.
    pub reason: String,
}

impl Aside {
    fn of(id: StreamId, account: &str, stream: &str, reason: &str) -> Self {
        Self {
            place: id.directory_name(),
            account: account.to_owned(),
            stream: stream.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl Streams {
    /// Of what a start found, what was set aside before.
    pub(super) fn part_asides(
        &self,
        found: Vec<Recovered<FileStore>>,
    ) -> (Vec<Recovered<FileStore>>, Vec<Aside>) {
        let mut asides = Vec::new();
        let mut others = Vec::new();
        for found in found {
            let Some((name, _)) = found.name.split_once(MARK) else {
                others.push(found);
                continue;
            };
            tracing::warn!(
                "JetStream stream '{} > {name}' is set aside as {}",
                found.account,
                found.id
            );
            self.engine().set_offline(found.id);
            // Why that was is in the state of the meta group, since the run that did it.
            asides.push(Aside::of(found.id, &found.account, name, UNEXPLAINED));
        }
        (others, asides)
    }

    /// Keeps a stream that does not run under another name. Says what it is called then, unless that failed.
    pub(crate) fn set_aside(
        &self,
        id: StreamId,
        account: &str,
        name: &str,
        reason: &str,
    ) -> Option<Aside> {
        self.engine().set_offline(id);
        match self.engine().rename(id, &format!("{name}{MARK}{id}")) {
            Ok(()) => {
                tracing::error!(
                    "JetStream stream '{account} > {name}' on this server is set aside as {id}, nothing of it is removed: {reason}"
                );
                Some(Aside::of(id, account, name, reason))
            }
            Err(error) => {
                tracing::error!(
                    "JetStream stream '{account} > {name}' could not be set aside: {error}"
                );
                None
            }
        }
    }

    /// Takes a stream with one replica off its shard, and keeps all that it holds under another name.
    pub(crate) fn set_stream_aside(
        &self,
        account: &AccountStreams,
        stream: &Stream,
    ) -> Option<Aside> {
        let id = self.let_go(account, stream)?;
        self.set_aside(id, &account.name, &stream.name, UNEXPLAINED)
    }

    /// The same for one that could not be brought back.
    pub(crate) fn set_offline_aside(&self, account: &AccountStreams, name: &str) -> Option<Aside> {
        let id = self.forget_offline(&account.name, name)?;
        self.set_aside(id, &account.name, name, UNEXPLAINED)
    }
}
