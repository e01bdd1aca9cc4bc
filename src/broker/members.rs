//! The connections of an account: how many it may have, what each may use, and what passed through them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::account::Account;
use super::client::Client;
use super::close::CloseReason;

/// What an account allows its connections; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at one time; 0 admits nobody.
    pub connections_max: Option<u64>,
    /// Subscriptions of one connection; 0 is none at all.
    pub subscriptions_max: Option<u64>,
    /// Bytes of headers and payload of one message.
    pub payload_bytes_max: Option<usize>,
}

/// An account has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("maximum account active connections exceeded")]
pub struct AccountFull;

/// What passed through connections: messages, and bytes with headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionTraffic {
    /// Messages the clients published.
    pub in_messages: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages the clients were sent.
    pub out_messages: u64,
    /// Their bytes.
    pub out_bytes: u64,
}

impl ConnectionTraffic {
    /// What passed through one connection.
    pub fn of(client: &Client) -> Self {
        let (in_messages, in_bytes) = client.counted_in();
        let (out_messages, out_bytes) = client.outbox().counted_out();
        Self {
            in_messages,
            in_bytes,
            out_messages,
            out_bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.in_messages += other.in_messages;
        self.in_bytes += other.in_bytes;
        self.out_messages += other.out_messages;
        self.out_bytes += other.out_bytes;
    }
}

/// Who is connected to an account.
#[derive(Debug, Default)]
pub(super) struct Members {
    limits: RwLock<ConnectionLimits>,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    clients: HashMap<u64, Arc<Client>>,
    /// What passed through connections that are gone.
    departed: ConnectionTraffic,
    /// How many of them went because they did not keep up.
    slow_consumers: u64,
}

/// A connection's place in an account; it is free again when this is dropped.
#[must_use = "the place is free again when this is dropped"]
#[derive(Debug)]
pub struct Membership {
    account: Arc<Account>,
    client: Arc<Client>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut present = self.account.members.present.lock();
        present.clients.remove(&self.client.id);
        present.departed.add(ConnectionTraffic::of(&self.client));
        let reason = self.client.outbox().closed();
        present.slow_consumers += u64::from(reason.is_some_and(CloseReason::is_slow_consumer));
    }
}

impl Account {
    /// Says what the account allows its connections; those that are there already keep what they have.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        *self.members.limits.write() = limits;
    }

    /// What the account allows its connections.
    pub fn limits(&self) -> ConnectionLimits {
        *self.members.limits.read()
    }

    /// Takes a place for a connection.
    pub fn join(self: &Arc<Self>, client: &Arc<Client>) -> Result<Membership, AccountFull> {
        let most = self.limits().connections_max;
        let mut present = self.members.present.lock();
        if most.is_some_and(|most| present.clients.len() as u64 >= most) {
            return Err(AccountFull);
        }
        present.clients.insert(client.id, Arc::clone(client));
        Ok(Membership {
            account: Arc::clone(self),
            client: Arc::clone(client),
        })
    }

    /// How many connections there are.
    pub fn connection_count(&self) -> usize {
        self.members.present.lock().clients.len()
    }

    /// Who is connected, in no order.
    pub fn connections(&self) -> Vec<Arc<Client>> {
        let present = self.members.present.lock();
        present.clients.values().cloned().collect()
    }

    /// How many connections were closed because they did not keep up.
    pub fn slow_consumers(&self) -> u64 {
        self.members.present.lock().slow_consumers
    }

    /// What passed through all connections there ever were.
    pub fn connection_traffic(&self) -> ConnectionTraffic {
        let present = self.members.present.lock();
        let mut total = present.departed;
        for client in present.clients.values() {
            total.add(ConnectionTraffic::of(client));
        }
        total
    }
}
