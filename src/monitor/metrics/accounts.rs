//! The accounts that somebody is or was connected to.

use super::exposition::Exposition;
use super::family::{Budget, Column, counter, gauge};
use crate::broker::ConnectionTraffic;
use crate::monitor::endpoints::Monitor;

/// An account at one moment.
pub(super) struct AccountRow {
    labels: [String; 1],
    connections: usize,
    subscriptions: usize,
    remote_subscriptions: u64,
    traffic: ConnectionTraffic,
    slow_consumers: u64,
}

const ACCOUNT: &[&str] = &["account"];

pub(super) static OF_ACCOUNT: [Column<AccountRow>; 8] = [
    Column {
        family: gauge(
            "nats_account_connections",
            ACCOUNT,
            "Clients of the account that are connected.",
        ),
        value: |row| row.connections.into(),
    },
    Column {
        family: gauge(
            "nats_account_subscriptions",
            ACCOUNT,
            "Subscriptions in the account, of clients and of the server's own parts.",
        ),
        value: |row| row.subscriptions.into(),
    },
    Column {
        family: gauge(
            "nats_account_remote_subscriptions",
            ACCOUNT,
            "Subscriptions in the account that other servers have told of.",
        ),
        value: |row| row.remote_subscriptions.into(),
    },
    Column {
        family: counter(
            "nats_account_received_messages",
            ACCOUNT,
            "Messages from the account's clients.",
        ),
        value: |row| row.traffic.in_messages.into(),
    },
    Column {
        family: counter(
            "nats_account_received_bytes",
            ACCOUNT,
            "Their bytes, headers included.",
        )
        .bytes(),
        value: |row| row.traffic.in_bytes.into(),
    },
    Column {
        family: counter(
            "nats_account_sent_messages",
            ACCOUNT,
            "Messages to the account's clients.",
        ),
        value: |row| row.traffic.out_messages.into(),
    },
    Column {
        family: counter(
            "nats_account_sent_bytes",
            ACCOUNT,
            "Their bytes, headers included.",
        )
        .bytes(),
        value: |row| row.traffic.out_bytes.into(),
    },
    Column {
        family: counter(
            "nats_account_slow_consumers",
            ACCOUNT,
            "Clients of the account closed because they did not take their messages in time.",
        ),
        value: |row| row.slow_consumers.into(),
    },
];

/// Writes the accounts there is room for; how many are left out.
pub(super) fn write(out: &mut Exposition, monitor: &Monitor, budget: &mut Budget) -> usize {
    let mut accounts = monitor.server.accounts();
    accounts.sort_by(|one, other| one.name().cmp(other.name()));
    let left_out = budget.cut(&mut accounts, OF_ACCOUNT.len());
    let rows: Vec<_> = accounts
        .iter()
        .map(|account| AccountRow {
            labels: [account.name().to_owned()],
            connections: account.connection_count(),
            subscriptions: account.subscription_count(),
            remote_subscriptions: account.remote_subscription_count(),
            traffic: account.connection_traffic(),
            slow_consumers: account.slow_consumers(),
        })
        .collect();
    out.table(&OF_ACCOUNT, &rows, |row| &row.labels);
    left_out
}
