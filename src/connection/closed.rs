//! Connections that have ended, for those who ask why.
//!
//! # Invariant
//! What is kept is bounded twice: in connections, the oldest of which is forgotten for a new one, and in subscriptions of
//! all of them together. A connection that finds no room for its subscriptions is kept without them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::broker::{Carrier, Client, ClientInfo, CloseReason, ConnectionTraffic, Subscription};

/// Subscriptions that are kept of all ended connections together.
const SUBSCRIPTIONS_MAX: usize = 64 * 1024;

/// A connection as it was when it ended.
#[derive(Debug, Clone)]
pub struct ClosedClient {
    /// Who it was.
    pub info: Arc<ClientInfo>,
    /// How it had come.
    pub carrier: Carrier,
    /// What passed through it.
    pub traffic: ConnectionTraffic,
    /// How often it was held up for a slow receiver.
    pub stalls: u64,
    /// The last measured round trip in microseconds, 0 when there was none.
    pub round_trip_us: u64,
    /// When it last said or heard something.
    pub last_activity: SystemTime,
    /// When it ended.
    pub stopped: SystemTime,
    /// Why.
    pub reason: CloseReason,
    /// How many subscriptions it held.
    pub subscription_count: u64,
    /// What it listened on; empty when there was no room for that.
    pub subscriptions: Vec<HeldSubscription>,
}

/// What a connection listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSubscription {
    /// The pattern.
    pub subject: Bytes,
    /// The queue group.
    pub queue: Option<Bytes>,
    /// The client's own name for it.
    pub sid: Bytes,
    /// How many messages it was given.
    pub delivered: u64,
    /// How many messages would have ended it; 0 for no end.
    pub max: u64,
}

impl HeldSubscription {
    /// What is known of a subscription that its client calls by this name.
    pub fn of(subscription: &Subscription, sid: &[u8]) -> Self {
        Self {
            subject: subscription.subject.clone(),
            queue: subscription.queue.clone(),
            sid: Bytes::copy_from_slice(sid),
            delivered: subscription.delivered(),
            max: subscription.max(),
        }
    }

    /// All that a client listens on now, the oldest first.
    pub fn all_of(client: &Client) -> Vec<Self> {
        let mut held: Vec<_> = client
            .subscriptions()
            .iter()
            .filter(|(_, subscription)| !subscription.is_closed())
            .map(|(sid, subscription)| (subscription.id, Self::of(subscription, sid)))
            .collect();
        held.sort_unstable_by_key(|(id, _)| *id);
        held.into_iter()
            .map(|(_, subscription)| subscription)
            .collect()
    }
}

/// The connections that ended last.
#[derive(Debug)]
pub struct ClosedClients {
    clients_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    clients: VecDeque<Arc<ClosedClient>>,
    subscriptions: usize,
}

impl ClosedClients {
    /// Keeps this many.
    pub fn new(clients_max: usize) -> Self {
        Self {
            clients_max,
            ring: Mutex::default(),
        }
    }

    /// Keeps a connection that has just ended.
    pub fn note(&self, mut client: ClosedClient) {
        let mut ring = self.ring.lock();
        while ring.clients.len() >= self.clients_max {
            let Some(oldest) = ring.clients.pop_front() else {
                return;
            };
            ring.subscriptions -= oldest.subscriptions.len();
        }
        if ring.subscriptions + client.subscriptions.len() > SUBSCRIPTIONS_MAX {
            client.subscriptions = Vec::new();
        }
        ring.subscriptions += client.subscriptions.len();
        ring.clients.push_back(Arc::new(client));
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.ring.lock().clients.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are kept, the oldest first.
    pub fn all(&self) -> Vec<Arc<ClosedClient>> {
        self.ring.lock().clients.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::RoundTrip;

    fn client(id: u64, subscriptions: usize) -> ClosedClient {
        let info = ClientInfo {
            id,
            account: "$G".into(),
            user: String::new(),
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            address: ([127, 0, 0, 1], 1).into(),
            started: SystemTime::UNIX_EPOCH,
            websocket: false,
            round_trip: RoundTrip::default(),
        };
        let subscription = HeldSubscription {
            subject: Bytes::from_static(b"a"),
            queue: None,
            sid: Bytes::from_static(b"1"),
            delivered: 0,
            max: 0,
        };
        ClosedClient {
            info: Arc::new(info),
            carrier: Carrier::default(),
            traffic: ConnectionTraffic::default(),
            stalls: 0,
            round_trip_us: 0,
            last_activity: SystemTime::UNIX_EPOCH,
            stopped: SystemTime::UNIX_EPOCH,
            reason: CloseReason::ClientClosed,
            subscription_count: subscriptions as u64,
            subscriptions: vec![subscription; subscriptions],
        }
    }

    #[test]
    fn the_oldest_makes_room_for_the_newest() {
        let closed = ClosedClients::new(2);
        for id in 1..=3 {
            closed.note(client(id, 1));
        }
        let ids: Vec<u64> = closed.all().iter().map(|client| client.info.id).collect();
        assert_eq!(ids, [2, 3]);
        let none = ClosedClients::new(0);
        none.note(client(1, 1));
        assert!(none.all().is_empty());
    }

    #[test]
    fn subscriptions_are_left_out_when_there_are_too_many_of_all_and_kept_again_when_there_is_room()
    {
        let closed = ClosedClients::new(2);
        for (id, subscriptions) in [(1, SUBSCRIPTIONS_MAX), (2, 1), (3, 1)] {
            closed.note(client(id, subscriptions));
        }
        let kept: Vec<(u64, usize)> = closed
            .all()
            .iter()
            .map(|client| (client.subscription_count, client.subscriptions.len()))
            .collect();
        assert_eq!(kept, [(1, 0), (1, 1)]);
    }
}
