//! A subscription as monitoring shows it, among those of its connection or of its account.

use crate::broker::{Subscription, Target};
use crate::connection::HeldSubscription;
use serde::Serialize;

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionDetail {
    #[serde(skip_serializing_if = "String::is_empty")]
    account: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    account_tag: String,
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    qgroup: String,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    cid: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl SubscriptionDetail {
    /// One among those of its connection.
    pub(super) fn of_connection(held: &HeldSubscription, cid: u64) -> Self {
        Self {
            account: String::new(),
            account_tag: String::new(),
            subject: text(&held.subject),
            qgroup: held.queue.as_deref().map_or(String::new(), text),
            sid: text(&held.sid),
            msgs: held.delivered,
            max: held.max,
            cid,
        }
    }

    /// One of this account. Those of the server's own parts have a number of their own and no connection.
    pub(super) fn of_account(subscription: &Subscription, account: &str) -> Self {
        // The connection of a shadow is its caster's.
        let caster = match &subscription.target {
            Target::Shadow(shadow) => shadow.of(),
            _ => subscription,
        };
        let (sid, cid) = match &caster.target {
            Target::Client { client, sid } => (text(sid), client.id),
            Target::Internal { .. } | Target::Shadow(_) | Target::Service(_) | Target::Replies => {
                (subscription.id.to_string(), 0)
            }
            Target::Route { sink, .. } => (subscription.id.to_string(), sink.client.id),
        };
        Self {
            account: account.to_owned(),
            account_tag: account.to_owned(),
            subject: text(&subscription.subject),
            qgroup: subscription.queue.as_deref().map_or(String::new(), text),
            sid,
            msgs: caster.delivered(),
            max: caster.max(),
            cid,
        }
    }

    /// The same without its account.
    pub(super) fn without_account(self) -> Self {
        Self {
            account: String::new(),
            account_tag: String::new(),
            ..self
        }
    }

    /// The pattern.
    pub(super) fn into_subject(self) -> String {
        self.subject
    }
}

/// How much of subscriptions is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// How many there are.
    #[default]
    Count,
    /// Their patterns.
    Subjects,
    /// All that is known of them.
    Details,
}

impl Listed {
    /// What two switches ask for; details win.
    pub fn switched(subjects: bool, details: bool) -> Self {
        match (subjects, details) {
            (_, true) => Self::Details,
            (true, false) => Self::Subjects,
            (false, false) => Self::Count,
        }
    }
}

/// A list of subscriptions, one of which is in the answer at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lists {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubscriptionDetail>,
}

impl Lists {
    /// As much of these as is to be shown.
    pub(super) fn new(
        listed: Listed,
        details: impl IntoIterator<Item = SubscriptionDetail>,
    ) -> Self {
        let details = details.into_iter();
        match listed {
            Listed::Count => Self::default(),
            Listed::Subjects => Self {
                subscriptions_list: details.map(SubscriptionDetail::into_subject).collect(),
                ..Self::default()
            },
            Listed::Details => Self {
                subscriptions_list_detail: details.collect(),
                ..Self::default()
            },
        }
    }
}
