//! Having the cluster's state name a stream that was taken in on this server.
//!
//! # Invariant
//! An attempt of which nobody knows what became of it may yet be granted. What a later one is refused for does not change that: it may be refused because the earlier one
//! was granted. It is over when the meta group has applied something that was asked for after it: entries are logged in the order in which a leader is asked for them,
//! and what an earlier leader did not bring to the next one is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::meta::Command;
use super::super::meta::request::stream;
use super::super::registry::AccountStreams;
use super::super::types::{ApiError, ErrorCode, StreamConfig, Time};
use super::currency;
use super::kinds::RESTORED;
use super::landed::LandedStreams;
use super::maker::ClusterMaker;
use super::reports::Reporter;
use super::restores::NotDone;

/// How long the state is asked to name a stream that is here, and how long is waited in between.
const NAMING_TIMEOUT: Duration = Duration::from_secs(30);
const NAMING_PAUSE: Duration = Duration::from_millis(200);
/// How long nobody is asked before what became of the attempts is looked for, and before that is tried again.
const SETTLING_PAUSE: Duration = Duration::from_secs(1);

/// Have a stream be in the state that was taken in where this comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Name {
    pub account: String,
    pub config: StreamConfig,
    pub created: Time,
}

/// Why the state does not name a stream that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// Nobody was there to be asked: it never will.
    NotAsked(ApiError),
    /// It never will.
    Refused(ApiError),
    /// It may yet.
    Unknown,
}

impl Unnamed {
    /// What it means that the leader of the meta group decides so.
    fn of(error: ApiError) -> Self {
        if error.is(ErrorCode::ClusterNotLeader) {
            return Self::NotAsked(error);
        }
        match error.is(ErrorCode::ClusterNotAvail) {
            true => Self::Unknown,
            false => Self::Refused(error),
        }
    }
}

impl ClusterMaker {
    /// Asks until it is known whether the state names a stream that is here, or for as long as a client can be expected to wait.
    pub(super) fn have_named(
        &self,
        account: &AccountStreams,
        config: StreamConfig,
        created: Time,
    ) -> Result<(), Unnamed> {
        let name = Name {
            account: account.name.clone(),
            config,
            created,
        };
        let begun = Instant::now();
        let goes_on = || {
            std::thread::sleep(NAMING_PAUSE);
            begun.elapsed() < NAMING_TIMEOUT
        };
        ask_until_known(|| self.try_to_name(account, &name), goes_on)
    }

    fn try_to_name(&self, account: &AccountStreams, name: &Name) -> Result<(), Unnamed> {
        if self.machine.leads() {
            return self.name(account, name, &self.own).map_err(Unnamed::of);
        }
        let not_asked = || Unnamed::NotAsked(ErrorCode::ClusterNotAvail.into());
        let leader = self.machine.group().and_then(|group| group.leader());
        let leader = leader.ok_or_else(not_asked)?;
        self.ask(&leader.server, RESTORED, name)
            .map_err(|not_done| match not_done {
                NotDone::NotAsked => not_asked(),
                NotDone::Refused(error) => Unnamed::of(error),
                NotDone::Unknown => Unnamed::Unknown,
            })
    }

    /// Has the state name a stream that is on that server. On the leader of the meta group.
    pub(super) fn name(
        &self,
        account: &AccountStreams,
        name: &Name,
        home: &str,
    ) -> Result<(), ApiError> {
        let decided = self.decide(&account.name, Some(account.tiers()), |desk| {
            stream::restored(desk, &name.config, name.created, home)
        });
        decided.map(drop)
    }
}

impl ClusterMaker {
    /// Finds out what became of a stream whose naming was asked for, however long it takes.
    pub(super) fn settle(&self, account: &str, stream: &str, created: Time) {
        let settling = Settling {
            own: self.own.clone(),
            reporter: Arc::clone(&self.reporter),
            landed: Arc::clone(&self.landed),
            account: account.to_owned(),
            stream: stream.to_owned(),
            created,
        };
        self.runtime.spawn(settling.run());
    }
}

/// Waits for the meta group to say what became of a stream that was taken in.
struct Settling {
    own: String,
    reporter: Arc<Reporter>,
    landed: Arc<LandedStreams>,
    account: String,
    stream: String,
    created: Time,
}

impl Settling {
    async fn run(self) {
        let (account, stream) = (&self.account, &self.stream);
        loop {
            tokio::time::sleep(SETTLING_PAUSE).await;
            if !self.landed.holds(account, stream, self.created) {
                // The state has come to name it.
                return;
            }
            if let Some(at) = self.entry_after().await {
                return self.landed.decide(account, stream, self.created, at);
            }
        }
    }

    /// An entry of the meta group that comes after all that was asked for before. `None` when there is nobody who could log one.
    async fn entry_after(&self) -> Option<u64> {
        let machine = &self.reporter.machine;
        let known = machine.meta().peers().get(&self.own)?.profile.clone();
        // What the state says already: it changes nothing, and takes its turn all the same.
        let barrier = Command::PeerPut {
            profile: known,
            renew: false,
        };
        self.reporter.report(&barrier).await.ok()?;
        currency::goal(machine, &self.reporter.links).await
    }
}

/// Asks until an answer settles it; `goes_on` waits a while, and says whether there is time to ask again.
fn ask_until_known(
    mut ask: impl FnMut() -> Result<(), Unnamed>,
    mut goes_on: impl FnMut() -> bool,
) -> Result<(), Unnamed> {
    let mut may_be_so = false;
    loop {
        let unnamed = match ask() {
            Ok(()) => return Ok(()),
            Err(Unnamed::Refused(error)) if !may_be_so => return Err(Unnamed::Refused(error)),
            Err(unnamed) => unnamed,
        };
        may_be_so |= unnamed == Unnamed::Unknown;
        if !goes_on() {
            return Err(match may_be_so {
                true => Unnamed::Unknown,
                false => unnamed,
            });
        }
    }
}

#[cfg(test)]
impl ClusterMaker {
    /// Takes in a stream that nobody has asked the state to name, and finds out what became of it.
    pub(super) fn land_in_doubt(&self, account: &AccountStreams, config: StreamConfig) {
        use super::super::api::handler::StreamMaker;
        use super::super::api::now;
        use super::super::archive::StreamMeta;
        use super::landed::Landed;

        let (name, created) = (config.name.clone(), now());
        let Ok((landing, builder)) = self.land(account, StreamMeta { created, config }) else {
            panic!("there is room");
        };
        let (mut core, _) = builder.finish(created.nanoseconds()).expect("it is built");
        let id = landing.finish(&mut core).expect("it is durable");
        let kept = self
            .landed
            .put(&account.name, Box::new(Landed { core, id }));
        assert!(kept.is_ok(), "the name is free");
        self.settle(&account.name, &name, created);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Unnamed {
        Unnamed::of(ErrorCode::StreamNameExistRestoreFailed.into())
    }

    fn not_asked() -> Unnamed {
        Unnamed::of(ErrorCode::ClusterNotLeader.into())
    }

    /// What is known after these answers, when there is no time for more.
    fn after(answers: &[Result<(), Unnamed>]) -> (Result<(), Unnamed>, usize) {
        let mut asked = 0;
        let mut answers = answers.iter().cloned().peekable();
        let answers = std::cell::RefCell::new(&mut answers);
        let ask = || {
            asked += 1;
            answers.borrow_mut().next().expect("an answer")
        };
        let known = ask_until_known(ask, || answers.borrow_mut().peek().is_some());
        (known, asked)
    }

    #[test]
    fn a_refusal_settles_it_where_nothing_was_asked_for_before() {
        assert_eq!(after(&[Err(refused()), Ok(())]), (Err(refused()), 1));
        let answers = [Err(not_asked()), Err(refused()), Ok(())];
        assert_eq!(after(&answers), (Err(refused()), 2));
        assert_eq!(after(&[Err(not_asked())]), (Err(not_asked()), 1));
    }

    #[test]
    fn what_may_have_been_granted_is_unknown_whatever_a_later_attempt_is_refused_for() {
        let unknown = || Err(Unnamed::of(ErrorCode::ClusterNotAvail.into()));
        assert_eq!(after(&[unknown(), Err(refused())]), (unknown(), 2));
        assert_eq!(after(&[unknown(), Err(not_asked())]), (unknown(), 2));
        assert_eq!(after(&[unknown(), Err(refused()), Ok(())]), (Ok(()), 3));
    }
}
