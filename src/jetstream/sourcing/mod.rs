//! Mirrors and sources: what a stream's leader does to copy from other streams.
//!
//! - [`Sourcing`]: all of a stream's origins.
//! - `origin`: one of them: asks for a consumer, follows what it delivers, and begins again when something is missing.
//! - `wire`: the requests, answers and messages that this takes.
//!
//! An origin is reached by subjects alone, so that it does not matter on which server it is. What it delivers becomes events for the
//! stream's core, with the origin's sequences; where to begin after a restart the core knows from what is stored.
//!
//! # Invariant
//! Nothing here does I/O or reads a clock: time and messages are handed in, and what is to be done comes out as [`Doings`].

mod origin;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use storage::store::State;

use super::core::Event;
use super::core::sources::SourcePositions;
use super::types::{StreamConfig, StreamSource, StreamSourceInfo};
use origin::Origin;

/// What an origin listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ear {
    /// Answers to its requests.
    Answers,
    /// What its consumer delivers.
    Messages,
}

/// Something that is to be listened to, or no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listen {
    /// By which origin.
    pub(crate) origin: u64,
    /// With which ear.
    pub(crate) ear: Ear,
    /// To which subject; nothing ends what was listened to before.
    pub(crate) subject: Option<String>,
}

/// A request or an answer that is to be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Under which subject.
    pub(crate) subject: String,
    /// Where the answer goes; empty for nowhere.
    pub(crate) reply: String,
    /// The level of the API that the answering server must have; nothing for any.
    pub(crate) level: Option<&'static str>,
    /// What it says.
    pub(crate) body: Bytes,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    /// What to publish.
    pub(crate) requests: Vec<Request>,
    /// What to listen to.
    pub(crate) listens: Vec<Listen>,
    /// What the core decides about, in order.
    pub(crate) events: Vec<Event>,
}

/// A message for an origin.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) subject: Bytes,
    pub(crate) reply: Bytes,
    pub(crate) headers: Bytes,
    pub(crate) payload: Bytes,
}

/// What is stored already.
pub(crate) struct Ground<'a> {
    /// Of the stream.
    pub(crate) state: State,
    /// Its last sequence, with what is in flight.
    pub(crate) last_sequence: u64,
    /// Of each source.
    pub(crate) positions: &'a SourcePositions,
}

/// What time it is, and a number nobody can guess.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    /// In nanoseconds since the epoch.
    pub(crate) ns: i64,
    /// Another one at every step.
    pub(crate) random: u64,
}

/// A stream's mirror or sources, while it is led here.
pub(crate) struct Sourcing {
    config: Arc<StreamConfig>,
    account: String,
    domain: String,
    origins: Vec<Origin>,
    origin_last: u64,
}

impl Sourcing {
    /// Of a stream that copies from nowhere yet; [`Sourcing::configure`] says from where.
    pub(crate) fn new(account: &str, domain: &str) -> Self {
        Self {
            config: Arc::default(),
            account: account.to_owned(),
            domain: domain.to_owned(),
            origins: Vec::new(),
            origin_last: 0,
        }
    }

    /// Whether a configuration asks for any of this.
    pub(crate) fn is_wanted(config: &StreamConfig) -> bool {
        config.mirror.is_some() || !config.sources.is_empty()
    }

    /// Whether it copies as this configuration says.
    pub(crate) fn is_configured(&self, config: &Arc<StreamConfig>) -> bool {
        Arc::ptr_eq(&self.config, config)
    }

    /// Takes another configuration. Origins that stay go on.
    pub(crate) fn configure(
        &mut self,
        config: &Arc<StreamConfig>,
        ground: &Ground<'_>,
        now: Now,
        doings: &mut Doings,
    ) {
        let before = std::mem::take(&mut self.origins);
        let (mut kept, mut gone) = (before, Vec::new());
        let wanted: Vec<(&StreamSource, bool)> = match &config.mirror {
            Some(mirror) => vec![(mirror, true)],
            None => config
                .sources
                .iter()
                .map(|source| (source, false))
                .collect(),
        };
        kept.retain_mut(|origin| {
            let stays = wanted.contains(&(origin.source(), origin.is_mirror()));
            if !stays {
                gone.push(std::mem::replace(origin, Origin::nowhere()));
            }
            stays
        });
        let copier = wire::Copier {
            stream: &config.name,
            account: &self.account,
            domain: &self.domain,
        };
        let names = |sources: &[(&StreamSource, bool)]| -> Vec<String> {
            let all: Vec<&StreamSource> = sources.iter().map(|(source, _)| *source).collect();
            let named = sources
                .iter()
                .map(|(source, is_mirror)| copier.consumer(source, *is_mirror, &all));
            named.collect()
        };
        let wanted_names = names(&wanted);
        for mut origin in gone {
            origin.end(doings);
            // One that is only followed in another way goes on with its consumer.
            if !wanted_names
                .iter()
                .any(|name| name == origin.consumer_name())
            {
                origin.leave(doings);
            }
        }
        for ((source, is_mirror), name) in wanted.into_iter().zip(wanted_names) {
            let at = kept
                .iter()
                .position(|origin| origin.source() == source && origin.is_mirror() == is_mirror);
            let origin = match at {
                Some(at) => kept.swap_remove(at),
                None => {
                    self.origin_last += 1;
                    let source = (source.clone(), is_mirror);
                    Origin::new(self.origin_last, source, name, ground, now)
                }
            };
            self.origins.push(origin);
        }
        self.config = Arc::clone(config);
    }

    /// A message for an origin. The core must see the events that it leads to before the next one is handed in.
    pub(crate) fn take(
        &mut self,
        origin: u64,
        ear: Ear,
        heard: Heard,
        now: Now,
        doings: &mut Doings,
    ) {
        let found = self.origins.iter_mut().find(|one| one.id() == origin);
        if let Some(origin) = found {
            match ear {
                Ear::Answers => origin.answered(&heard, now, doings),
                Ear::Messages => origin.delivered(heard, now, doings),
            }
        }
    }

    /// The core could not take a message of an attempt: it is asked for again.
    pub(crate) fn refused(&mut self, attempt: u64, sequence: u64, now: Now, doings: &mut Doings) {
        let mut origins = self.origins.iter_mut();
        if let Some(origin) = origins.find(|origin| origin.attempt() == attempt) {
            origin.go_back(sequence.saturating_sub(1), now, doings);
        }
    }

    /// What was in flight is lost: every origin goes back to what is stored.
    pub(crate) fn lost(&mut self, ground: &Ground<'_>, now: Now, doings: &mut Doings) {
        for origin in &mut self.origins {
            let position = origin.position(ground);
            origin.go_back(position, now, doings);
        }
    }

    /// The clock has moved on.
    pub(crate) fn tick(&mut self, ground: &Ground<'_>, now: Now, doings: &mut Doings) {
        let copier = wire::Copier {
            stream: &self.config.name,
            account: &self.account,
            domain: &self.domain,
        };
        for origin in &mut self.origins {
            origin.tick(&copier, ground, now, doings);
        }
    }

    /// When [`Sourcing::tick`] next has something to do.
    pub(crate) fn next_deadline_ns(&self) -> Option<i64> {
        self.origins.iter().map(Origin::deadline_ns).min()
    }

    /// Ends all of it for good: nobody will go on with it.
    pub(crate) fn leave(&mut self, doings: &mut Doings) {
        for origin in &mut self.origins {
            origin.end(doings);
            origin.leave(doings);
        }
        self.origins.clear();
    }

    /// Ends all of it here; another server may go on with it.
    pub(crate) fn end(&mut self, doings: &mut Doings) {
        for origin in &mut self.origins {
            origin.end(doings);
        }
        self.origins.clear();
    }

    /// The origin whose direct gets a mirror may answer by now.
    pub(crate) fn answers_for(&self) -> Option<&str> {
        let origin = self.origins.first().filter(|origin| origin.is_mirror())?;
        let caught_up = self.config.mirror_direct && origin.is_caught_up();
        caught_up.then_some(origin.source().name.as_str())
    }

    /// How far the mirror has come.
    pub(crate) fn mirror_info(&self, now_ns: i64) -> Option<StreamSourceInfo> {
        let mut origins = self.origins.iter();
        let mirror = origins.find(|origin| origin.is_mirror())?;
        Some(mirror.info(now_ns))
    }

    /// How far the sources have come.
    pub(crate) fn source_infos(&self, now_ns: i64) -> Vec<StreamSourceInfo> {
        let sources = self.origins.iter().filter(|origin| !origin.is_mirror());
        sources.map(|origin| origin.info(now_ns)).collect()
    }
}
