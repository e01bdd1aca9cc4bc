//! `$SYS.DEBUG.SUBSCRIBERS`: how many clients' subscriptions get what is published to a subject, here and on the other servers of the
//! cluster. They are asked with `$SYS.REQ.ACCOUNT.NSUBS`; who says nothing in time counts as having none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{Account, Subscription, Target};
use crate::subject::{Matches, has_wildcard, is_subset, is_valid_subject};

/// How long other servers may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Questions that may wait for other servers; more are answered with what is known here.
const UNDER_WAY_MAX: usize = 1024;

/// Whose subscriptions are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// A subject, or a pattern: then those of all subscriptions that it covers.
    subject: String,
    /// Only members of this queue group.
    queue: Option<Vec<u8>>,
}

/// What one server asks another.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Asked {
    acc: String,
    subject: String,
    /// In base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    queue: String,
}

impl Wanted {
    /// `subject` or `subject queue`.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?.trim();
        let (subject, queue) = match text.split_once(' ') {
            Some((subject, queue)) => (subject, Some(queue.trim().as_bytes().to_vec())),
            None => (text, None),
        };
        is_valid_subject(subject).then(|| Self {
            subject: subject.to_owned(),
            queue,
        })
    }

    /// What another server asks, and in which account.
    pub(super) fn of_server(payload: &[u8]) -> Option<(String, Self)> {
        let asked: Asked = serde_json::from_slice(payload).ok()?;
        let queue = STANDARD.decode(&asked.queue).ok()?;
        let wanted = Self {
            subject: asked.subject,
            queue: Some(queue).filter(|queue| !queue.is_empty()),
        };
        is_valid_subject(&wanted.subject).then_some((asked.acc, wanted))
    }

    /// The same as a question to other servers.
    pub(super) fn for_servers(&self, account: &Account) -> Vec<u8> {
        crate::jetstream::types::encode(&Asked {
            acc: account.name().to_owned(),
            subject: self.subject.clone(),
            queue: STANDARD.encode(self.queue.as_deref().unwrap_or_default()),
        })
    }

    /// How many of this server's clients' subscriptions there are.
    pub(super) fn count(&self, account: &Account) -> u64 {
        let counts = |subscription: &Subscription| {
            let is_clients = matches!(subscription.target, Target::Client { .. });
            let wanted = self.queue.as_deref();
            is_clients && (wanted.is_none() || subscription.queue.as_deref() == wanted)
        };
        if has_wildcard(&self.subject) {
            let all = account.subscriptions();
            let covered = all
                .iter()
                .filter(|one| counts(one) && is_subset(&one.subject, &self.subject));
            return covered.count() as u64;
        }
        let mut found = Matches::default();
        account.matches(self.subject.as_bytes(), &mut found);
        let of_groups = found.queues.iter().flat_map(|group| &group.members);
        let all = found.plain.iter().chain(of_groups);
        all.filter(|subscription| counts(subscription)).count() as u64
    }
}

/// A question that other servers have been asked.
struct UnderWay {
    account: Arc<Account>,
    reply: Bytes,
    sum: u64,
    missing: usize,
    until: Instant,
}

/// An answer that is ready.
pub(super) struct Counted {
    pub(super) account: Arc<Account>,
    pub(super) reply: Bytes,
    pub(super) sum: u64,
}

/// All questions that other servers have been asked.
#[derive(Default)]
pub(super) struct Counts {
    under_way: HashMap<u64, UnderWay>,
    last: u64,
}

impl Counts {
    /// Remembers a question that so many servers are asked: its number, unless there are too many.
    pub(super) fn begin(
        &mut self,
        account: &Arc<Account>,
        reply: &Bytes,
        own: u64,
        servers: usize,
    ) -> Option<u64> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        self.last += 1;
        let question = UnderWay {
            account: Arc::clone(account),
            reply: reply.clone(),
            sum: own,
            missing: servers,
            until: Instant::now() + PATIENCE,
        };
        self.under_way.insert(self.last, question);
        Some(self.last)
    }

    /// One server has answered; the whole answer, when it was the last.
    pub(super) fn answered(&mut self, number: u64, payload: &[u8]) -> Option<Counted> {
        let question = self.under_way.get_mut(&number)?;
        let count = std::str::from_utf8(payload).ok();
        let count = count.and_then(|text| text.trim().parse::<u64>().ok());
        question.sum = question.sum.saturating_add(count.unwrap_or(0));
        question.missing = question.missing.saturating_sub(1);
        if question.missing > 0 {
            return None;
        }
        self.under_way.remove(&number).map(UnderWay::into_counted)
    }

    /// When the next question has waited long enough.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.under_way.values().map(|question| question.until).min()
    }

    /// What has waited long enough, with what has been answered so far.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<Counted> {
        let ended: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, question)| question.until <= now)
            .map(|(number, _)| *number)
            .collect();
        let ended = ended.iter();
        ended
            .filter_map(|number| self.under_way.remove(number))
            .map(UnderWay::into_counted)
            .collect()
    }
}

impl UnderWay {
    fn into_counted(self) -> Counted {
        Counted {
            account: self.account,
            reply: self.reply,
            sum: self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_subject_and_perhaps_a_queue_group() {
        let wanted = |text: &str| Wanted::parse(text.as_bytes());
        let plain = wanted(" a.b\n").unwrap();
        assert_eq!((plain.subject.as_str(), plain.queue), ("a.b", None));
        let queue = wanted("a.> q").unwrap();
        assert_eq!(queue.queue.as_deref(), Some(&b"q"[..]));
        for nonsense in ["", "a..b", " ", "a\tb c"] {
            assert_eq!(wanted(nonsense), None, "{nonsense:?}");
        }
        assert!(Wanted::parse(b"\xff").is_none());
        let asked = br#"{"acc":"A","subject":"x","queue":"cQ=="}"#;
        let (account, wanted) = Wanted::of_server(asked).unwrap();
        assert_eq!((account.as_str(), wanted.subject.as_str()), ("A", "x"));
        assert_eq!(wanted.queue.as_deref(), Some(&b"q"[..]));
        assert!(Wanted::of_server(b"{\"queue\":\"!\"}").is_none());
        assert!(Wanted::of_server(b"[]").is_none());
    }
}
