//! The end of a run: everything is healed, and the replicas have to come to be equal.

use std::hash::Hasher;
use std::time::Duration;

use bytes::Bytes;
use raft::group::GroupNumber;
use storage::filter::Filter;
use storage::store::Message;
use tokio::time::Instant;

use super::{Found, Run, Server, World};
use crate::jetstream::types::Retention;

/// After the trouble everybody agrees within this time.
const RECOVERY: Duration = Duration::from_secs(60);

impl World {
    /// Everything is well again.
    pub(super) async fn heal(&mut self) -> Result<(), Found> {
        for (_, at) in std::mem::take(&mut self.thaws) {
            self.surroundings.network.thaw(&self.servers[at].name);
        }
        self.surroundings.network.heal();
        self.weather(0, 2);
        for at in 0..self.servers.len() {
            self.start(at).await?;
        }
        self.see_to_the_hurt(true).await?;
        for at in 0..self.servers.len() {
            self.start(at).await?;
        }
        Ok(())
    }

    /// All agree within a time, and the queue is worked off.
    pub(super) async fn recover(&mut self) -> Result<(), Found> {
        let healed = Instant::now();
        let mut last = None;
        while healed.elapsed() < RECOVERY {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.look().await?;
            self.see_to_the_hurt(true).await?;
            for at in 0..self.servers.len() {
                // Seeing to a disk ends its server.
                self.start(at).await?;
            }
            self.check()?;
            if healed.elapsed() < Duration::from_secs(5) {
                self.work();
                continue;
            }
            last = self.what_is_missing().await;
            if last.is_none() {
                return Ok(());
            }
        }
        let missing = last.unwrap_or_default();
        Err(Found(format!("no agreement after the trouble: {missing}")))
    }

    /// What keeps this from being the end.
    async fn what_is_missing(&mut self) -> Option<String> {
        for clients in &mut self.clients {
            let group = clients.group;
            let leads = |server: &&Server| server.term_led(group).is_some();
            let Some(leader) = self.servers.iter().find(leads) else {
                return Some(format!("nobody leads group {group}"));
            };
            clients.make_consumers(leader);
            clients.pull(leader, &mut self.random, 64);
            clients.ack_all(leader);
        }
        if let Some(desk) = self.desks.iter().find(|desk| !desk.is_settled()) {
            return Some(format!("the members of group {} change", desk.group));
        }
        for (desk, clients) in self.desks.iter().zip(&self.clients) {
            let state = clients.oracle.core.store().state();
            if clients.config.retention == Retention::Workqueue && state.messages > 0 {
                return Some(format!("{} messages are in the queue", state.messages));
            }
            for at in desk.members.values() {
                let status = self.servers[*at].status(desk.group);
                let index = status.map_or(0, |status| status.position.at.index);
                let wanted = clients.oracle.core.applied_index();
                if index != wanted {
                    return Some(format!(
                        "{} is at {index} of {wanted}",
                        self.servers[*at].name
                    ));
                }
            }
        }
        None
    }

    /// What must be so in the end.
    pub(super) async fn end(mut self) -> Result<Run, Found> {
        for number in 0..self.clients.len() {
            self.equal(number).await?;
            self.clients[number].check()?;
        }
        let mut terms = 0;
        for desk in &self.desks {
            terms += self.leaders(desk.group).len() as u64;
            for server in &self.servers {
                terms += server.term_led(desk.group).unwrap_or(0);
            }
        }
        let acknowledged = self.clients.iter().map(|one| one.acknowledged.len());
        let run = Run {
            servers: self.servers.len(),
            acknowledged: acknowledged.sum(),
            delivered: self.clients.iter().map(|one| one.delivered).sum(),
            crashes: self.crashes,
            hurts: self.hurts,
            wiped: self.wiped,
            moved: self.moved,
            terms,
            trace: self.trace.finish(),
        };
        for server in &mut self.servers {
            server.power_off().await;
        }
        Ok(run)
    }

    /// Every replica holds what the oracle holds, record by record.
    async fn equal(&mut self, number: usize) -> Result<(), Found> {
        let begun = Instant::now();
        let group = self.desks[number].group;
        loop {
            self.check()?;
            let mut contents = Vec::new();
            for at in self.desks[number].members.values() {
                contents.push((
                    self.servers[*at].name.clone(),
                    self.content(*at, group).await?,
                ));
            }
            self.check()?;
            let oracle = &mut self.clients[number].oracle;
            oracle.core.set_group(Bytes::new());
            let wanted = Content::of(&oracle.core);
            if contents.iter().all(|(_, held)| held.index == wanted.index) {
                for (name, held) in contents {
                    if held != wanted {
                        return Err(Found(format!("{name} holds {held:?} and not {wanted:?}")));
                    }
                }
                return Ok(());
            }
            if begun.elapsed() > RECOVERY {
                return Err(Found("the replicas do not come to rest".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn content(&self, at: usize, group: GroupNumber) -> Result<Content, Found> {
        let replica = self.servers[at]
            .replica(group)
            .ok_or("no replica".to_owned())?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        replica.port.look(move |core| {
            // What a group keeps with the state is not the same everywhere.
            core.set_group(Bytes::new());
            let _ = sender.send(Content::of(core));
        });
        receiver.await.map_err(|_| Found("no shard".to_owned()))
    }
}

/// What a replica holds.
#[derive(Debug, PartialEq)]
struct Content {
    index: u64,
    records: Vec<Message>,
    core: Bytes,
    digest: u64,
}

impl Content {
    fn of(core: &crate::jetstream::core::StreamCore) -> Self {
        let (store, everything) = (core.store(), Filter::everything());
        let mut records = Vec::new();
        let mut next = 0;
        while let Ok(Some(message)) = store.next(next, &everything) {
            next = message.sequence + 1;
            records.push(message);
        }
        Self {
            index: core.applied_index(),
            records,
            core: core.snapshot(),
            digest: core.digest().digest,
        }
    }
}
