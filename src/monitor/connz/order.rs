//! What comes first among connections.

use super::Connection;
use crate::broker::ConnectionTraffic;
use std::time::{Duration, SystemTime};

/// What connections are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The oldest first.
    Id,
    /// Most subscriptions first.
    Subscriptions,
    /// Most waiting bytes first.
    Pending,
    /// Who was sent most messages first.
    MessagesTo,
    /// Who sent most messages first.
    MessagesFrom,
    /// Who was sent most bytes first.
    BytesTo,
    /// Who sent most bytes first.
    BytesFrom,
    /// Who was active last first.
    LastActivity,
    /// Who has been silent longest first.
    Idle,
    /// Who has been there for the shortest time first.
    Uptime,
    /// Who went last first.
    Stop,
    /// By the words for why they went.
    Reason,
    /// The longest round trip first.
    RoundTrip,
}

impl Order {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "cid" | "start" => Self::Id,
            "subs" => Self::Subscriptions,
            "pending" => Self::Pending,
            "msgs_to" => Self::MessagesTo,
            "msgs_from" => Self::MessagesFrom,
            "bytes_to" => Self::BytesTo,
            "bytes_from" => Self::BytesFrom,
            "last" => Self::LastActivity,
            "idle" => Self::Idle,
            "uptime" => Self::Uptime,
            "stop" => Self::Stop,
            "reason" => Self::Reason,
            "rtt" => Self::RoundTrip,
            _ => return None,
        })
    }

    /// Sorts; where nothing else decides, the oldest comes first.
    pub(super) fn sort(self, connections: &mut [Connection], now: SystemTime) {
        connections
            .sort_by_cached_key(|connection| (self.rank(connection, now), connection.info().id));
    }

    /// What is smaller comes first.
    fn rank(self, connection: &Connection, now: SystemTime) -> Rank {
        let most_first = |value: u64| Rank::Number(-i128::from(value));
        let late_first = |time: SystemTime| Rank::Number(-nanoseconds(time));
        match self {
            Self::Id => Rank::Number(0),
            Self::Subscriptions => most_first(connection.subscription_count()),
            Self::Pending => most_first(connection.pending_bytes()),
            Self::MessagesTo => most_first(connection.traffic().out_messages),
            Self::MessagesFrom => most_first(connection.traffic().in_messages),
            Self::BytesTo => most_first(connection.traffic().out_bytes),
            Self::BytesFrom => most_first(connection.traffic().in_bytes),
            Self::LastActivity => late_first(connection.last_activity()),
            Self::Idle => Rank::Number(nanoseconds(connection.last_activity())),
            Self::Uptime => Rank::Number(
                nanoseconds(connection.stopped().unwrap_or(now))
                    - nanoseconds(connection.info().started),
            ),
            Self::Stop => late_first(connection.stopped().unwrap_or(now)),
            Self::Reason => Rank::Word(connection.reason()),
            Self::RoundTrip => most_first(connection.round_trip_us()),
        }
    }
}

/// What two connections are compared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i128),
    Word(String),
}

fn nanoseconds(time: SystemTime) -> i128 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// What there is to know of a connection without a closer look.
impl Connection {
    pub(super) fn traffic(&self) -> ConnectionTraffic {
        match self {
            Self::Open(client) => ConnectionTraffic::of(client),
            Self::Closed(closed) => closed.traffic,
        }
    }

    pub(super) fn subscription_count(&self) -> u64 {
        match self {
            Self::Open(client) => client.subscription_count(),
            Self::Closed(closed) => closed.subscription_count,
        }
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        match self {
            Self::Open(client) => client.outbox().pending_bytes() as u64,
            Self::Closed(_) => 0,
        }
    }

    pub(super) fn last_activity(&self) -> SystemTime {
        match self {
            Self::Open(client) => client.last_activity(),
            Self::Closed(closed) => closed.last_activity,
        }
    }

    pub(super) fn stopped(&self) -> Option<SystemTime> {
        match self {
            Self::Open(_) => None,
            Self::Closed(closed) => Some(closed.stopped),
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Open(_) => String::new(),
            Self::Closed(closed) => closed.reason.to_string(),
        }
    }

    pub(super) fn round_trip_us(&self) -> u64 {
        match self {
            Self::Open(client) => client.round_trip_us(),
            Self::Closed(closed) => closed.round_trip_us,
        }
    }

    pub(super) fn stalls(&self) -> u64 {
        match self {
            Self::Open(client) => client.stalls(),
            Self::Closed(closed) => closed.stalls,
        }
    }
}
