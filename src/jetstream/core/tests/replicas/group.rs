//! Three cores, and a Raft that does what its seed says: commits, loses, repeats and reorders leadership, but never breaks its promises.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use storage::store::{Limits, MemStore, Message};

use super::super::simulation::Dice;
use super::super::{START, TestWorld};
use crate::jetstream::core::{
    Effects, Event, LogPlace, Outgoing, Publish, Step, StreamCore, StreamReply, StreamRequest,
};
use crate::jetstream::types::StreamConfig;

/// One place in the committed log.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    term: u64,
    /// `None` for what the group logs itself.
    entry: Option<Bytes>,
}

pub(super) struct Replica {
    pub(super) core: StreamCore,
    world: TestWorld,
    pub(super) effects: Effects,
    /// The term that it believes to lead in.
    leads: Option<u64>,
}

/// A stream on three replicas.
pub(super) struct Group {
    pub(super) replicas: Vec<Replica>,
    config: StreamConfig,
    pub(super) log: Vec<Committed>,
    pub(super) term: u64,
    /// Which replica leads in the newest term.
    pub(super) leader: usize,
    /// What the leader proposed and is not committed yet, in order.
    proposals: VecDeque<Bytes>,
    pub(super) now: i64,
    token: u64,
}

fn newborn(config: &StreamConfig) -> StreamCore {
    let store = Box::new(MemStore::new(Limits::default()));
    StreamCore::create(config.clone(), "", START, store).expect("creates")
}

impl Replica {
    fn new(core: StreamCore) -> Self {
        Self {
            core,
            world: TestWorld::default(),
            effects: Effects::default(),
            leads: None,
        }
    }

    pub(super) fn step<R>(
        &mut self,
        now: i64,
        act: impl FnOnce(&mut StreamCore, &mut Step<'_>) -> R,
    ) -> R {
        let mut step = Step {
            now_ns: now,
            world: &self.world,
            effects: &mut self.effects,
        };
        act(&mut self.core, &mut step)
    }

    fn take(&mut self, index: u64, committed: &Committed, now: i64) {
        let at = LogPlace {
            index,
            term: Some(committed.term),
        };
        match &committed.entry {
            Some(entry) => self.step(now, |core, step| {
                core.take_committed(at, entry, step).expect("applies");
            }),
            None => self.core.pass(index),
        }
    }
}

impl Group {
    pub(super) fn new(config: StreamConfig) -> Self {
        let replicas = (0..3).map(|_| Replica::new(newborn(&config))).collect();
        let mut group = Self {
            replicas,
            config,
            log: Vec::new(),
            term: 0,
            leader: 0,
            proposals: VecDeque::new(),
            now: START,
            token: 0,
        };
        group.elect(0);
        group
    }

    /// Applies what is committed on one replica, up to so many entries.
    pub(super) fn apply(&mut self, at: usize, most: u64) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        for _ in 0..most {
            let index = replica.core.applied_index() + 1;
            let Some(committed) = self.log.get(index as usize - 1) else {
                return;
            };
            replica.take(index, committed, now);
            if replica.leads.is_some() {
                self.collect_proposals(at);
                return self.apply(at, most - 1);
            }
        }
    }

    /// Another replica, or the same one, leads in a new term, once it has applied all that was committed before.
    pub(super) fn elect(&mut self, at: usize) {
        self.term += 1;
        self.proposals.clear();
        self.log.push(Committed {
            term: self.term,
            entry: None,
        });
        self.leader = at;
        self.learn(at);
        self.apply(at, u64::MAX);
        let (term, now) = (self.term, self.now);
        let replica = &mut self.replicas[at];
        replica.leads = Some(term);
        replica.step(now, |core, step| core.lead(term, step));
        self.settle(at);
    }

    /// A replica finds out that it does not lead any more.
    pub(super) fn learn(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if replica.leads.take().is_some() {
            replica.core.follow(&mut replica.effects);
        }
    }

    /// A replica that still believes to lead, although another one does.
    pub(super) fn stale(&self) -> Option<usize> {
        (0..3).find(|at| *at != self.leader && self.replicas[*at].leads.is_some())
    }

    /// The leader's proposals are committed, so many of them; others may be lost on the way or be written twice.
    pub(super) fn commit(&mut self, dice: &mut Dice) {
        let most = dice.below(self.proposals.len() as u64 + 1);
        for _ in 0..most {
            let Some(entry) = self.proposals.pop_front() else {
                break;
            };
            match dice.below(20) {
                0 => continue,
                1 => self.write(entry.clone()),
                _ => {}
            }
            self.write(entry);
        }
        self.apply(self.leader, u64::MAX);
        self.propose_again();
    }

    fn write(&mut self, entry: Bytes) {
        self.log.push(Committed {
            term: self.term,
            entry: Some(entry),
        });
    }

    /// When no proposal is open and some entries are still in flight, nobody knows what became of them.
    pub(super) fn propose_again(&mut self) {
        if self.proposals.is_empty() {
            let open = self.replicas[self.leader].core.in_flight();
            self.proposals.extend(open.into_iter().map(|one| one.1));
        }
    }

    /// What the old leader had proposed is committed in part, also by the next one, under the next term.
    pub(super) fn depose(&mut self, next: usize, dice: &mut Dice) {
        let orphans: Vec<Bytes> = self.proposals.drain(..).collect();
        let kept = dice.below(orphans.len() as u64 + 1) as usize;
        for entry in orphans.iter().take(kept) {
            self.write(entry.clone());
        }
        if dice.below(2) == 0 {
            self.learn(self.leader);
        }
        self.elect(next);
        if dice.below(4) == 0 {
            // Held back by its proposer, and logged only now.
            for entry in orphans.into_iter().skip(kept) {
                self.write(entry);
            }
        }
    }

    /// A replica starts again from an older state than it had, and is given again what it had applied.
    pub(super) fn restart(&mut self, at: usize, dice: &mut Dice) {
        let applied = self.replicas[at].core.applied_index();
        let checkpoint = dice.below(applied + 1);
        let mut replica = Replica::new(newborn(&self.config));
        for index in 1..=checkpoint {
            replica.take(index, &self.log[index as usize - 1], self.now);
        }
        assert!(replica.effects.is_empty(), "a follower sends nothing");
        for index in checkpoint.saturating_sub(10).max(1)..=applied {
            replica.take(index, &self.log[index as usize - 1], self.now);
        }
        let before = &self.replicas[at].core;
        assert_eq!(replica.core.snapshot(), before.snapshot());
        self.replicas[at] = replica;
    }

    /// Every message that was ever stored, by a replica that applies the whole log.
    pub(super) fn history(&self) -> BTreeMap<u64, Message> {
        let mut replica = Replica::new(newborn(&self.config));
        let mut history = BTreeMap::new();
        for (at, committed) in self.log.iter().enumerate() {
            let before = replica.core.store().state().last_sequence;
            replica.take(at as u64 + 1, committed, self.now);
            let store = replica.core.store();
            for sequence in before + 1..=store.state().last_sequence {
                let message = store.load(sequence).expect("memory is readable");
                history.extend(message.map(|message| (sequence, message)));
            }
        }
        history
    }

    pub(super) fn event(&mut self, at: usize, event: Event) {
        let now = self.now;
        self.replicas[at].step(now, |core, step| core.handle(event, step));
        self.settle(at);
    }

    pub(super) fn settle(&mut self, at: usize) {
        let now = self.now;
        while self.replicas[at].step(now, |core, step| core.run(step)) {}
        self.collect_proposals(at);
    }

    fn collect_proposals(&mut self, at: usize) {
        let entries = self.replicas[at].core.take_entries(self.now);
        if at == self.leader {
            self.proposals.extend(entries.into_iter().map(|one| one.1));
        }
    }

    pub(super) fn pass_time(&mut self, nanoseconds: i64) {
        self.now += nanoseconds;
        let now = self.now;
        for at in 0..3 {
            self.replicas[at].step(now, |core, step| core.tick(step));
            self.settle(at);
        }
    }

    pub(super) fn publish(&mut self, at: usize, reply: &str, publish: Publish) {
        let publish = Publish {
            reply: Bytes::copy_from_slice(reply.as_bytes()),
            ..publish
        };
        self.event(at, Event::Publish(publish));
    }

    pub(super) fn ask(&mut self, at: usize, request: StreamRequest) -> u64 {
        self.token += 1;
        let token = self.token;
        self.event(at, Event::Request { token, request });
        token
    }

    /// What every replica has sent since the last look.
    pub(super) fn sent(&mut self) -> Vec<Outgoing> {
        let replicas = self.replicas.iter_mut();
        replicas
            .flat_map(|replica| std::mem::take(&mut replica.effects.outgoing))
            .collect()
    }

    pub(super) fn replies(&mut self) -> Vec<(u64, StreamReply)> {
        let replicas = self.replicas.iter_mut();
        replicas
            .flat_map(|replica| std::mem::take(&mut replica.effects.replies))
            .collect()
    }

    /// Commits everything that is open, and applies it everywhere.
    pub(super) fn come_to_rest(&mut self) {
        for at in 0..3 {
            if at != self.leader {
                self.learn(at);
            }
        }
        loop {
            self.settle(self.leader);
            self.propose_again();
            if self.proposals.is_empty() {
                break;
            }
            for entry in std::mem::take(&mut self.proposals) {
                self.write(entry);
            }
            self.apply(self.leader, u64::MAX);
        }
        for at in 0..3 {
            self.apply(at, u64::MAX);
        }
    }
}
