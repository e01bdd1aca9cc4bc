//! What a user may publish and subscribe to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::options::{
    Permissions as PermissionsConfig, ResponsePermission, SubjectPermission,
};
use crate::subject::{self, Indexed, InvalidSubject, SubjectIndex};

/// How many noted replies are kept before the used and the old ones are looked for.
const RESPONSES_BEFORE_PRUNE: usize = 4096;
/// A user's permissions, ready to be asked.
#[derive(Debug)]
pub struct Permissions {
    publish_allow: Option<SubjectIndex<Rule>>,
    publish_deny: SubjectIndex<Rule>,
    subscribe_allow: Vec<SubscribeRule>,
    subscribe_deny: Arc<DenyFilter>,
    responses: Option<ResponsePermission>,
}

/// What a user may not see although a pattern it listens on covers it.
#[derive(Debug, Default)]
pub struct DenyFilter {
    rules: Vec<SubscribeRule>,
}

#[derive(Debug, Clone)]
struct Rule(u64);

impl Indexed for Rule {
    fn id(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Clone)]
struct SubscribeRule {
    pattern: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

impl SubscribeRule {
    fn parse(text: &str) -> Result<Self, InvalidSubject> {
        let mut words = text.split_ascii_whitespace();
        let pattern = words.next().ok_or(InvalidSubject)?;
        let queue = words.next();
        if words.next().is_some() || !subject::is_valid_subject(pattern) {
            return Err(InvalidSubject);
        }
        Ok(Self {
            pattern: pattern.as_bytes().into(),
            queue: queue.map(|queue| queue.as_bytes().into()),
        })
    }

    fn parse_all(texts: &[String]) -> Result<Vec<Self>, InvalidSubject> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn names_queue(&self, queue: &[u8]) -> bool {
        self.queue
            .as_deref()
            .is_some_and(|pattern| subject::subject_matches(queue, pattern))
    }
}

fn index_of(patterns: &[String]) -> Result<SubjectIndex<Rule>, InvalidSubject> {
    let mut index = SubjectIndex::default();
    for (id, pattern) in patterns.iter().enumerate() {
        // A queue group has no meaning for publishing; the pattern before it counts.
        let pattern = pattern.split_ascii_whitespace().next().unwrap_or_default();
        index.insert(pattern.as_bytes(), None, Rule(id as u64))?;
    }
    Ok(index)
}

impl Permissions {
    /// Prepares what the configuration states.
    pub fn new(config: &PermissionsConfig) -> Result<Self, InvalidSubject> {
        let publish: SubjectPermission = config.publish.clone().unwrap_or_default();
        let subscribe: SubjectPermission = config.subscribe.clone().unwrap_or_default();
        // Who may only answer may publish nothing else.
        let allow = match (&publish.allow, config.responses) {
            (None, Some(_)) => Some(Vec::new()),
            (allow, _) => allow.clone(),
        };
        Ok(Self {
            publish_allow: allow.as_deref().map(index_of).transpose()?,
            publish_deny: index_of(&publish.deny)?,
            subscribe_allow: SubscribeRule::parse_all(subscribe.allow.as_deref().unwrap_or(&[]))?,
            subscribe_deny: Arc::new(DenyFilter {
                rules: SubscribeRule::parse_all(&subscribe.deny)?,
            }),
            responses: config.responses,
        })
    }

    /// Whether the user may publish to a literal subject, replies to whoever asked aside.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        self.publish_allow
            .as_ref()
            .is_none_or(|allow| allow.has_match(subject))
            && !self.publish_deny.has_match(subject)
    }

    /// Whether publishing is restricted at all.
    pub fn restricts_publishing(&self) -> bool {
        self.publish_allow.is_some() || !self.publish_deny.is_empty()
    }

    /// Whether the user may subscribe.
    pub fn may_subscribe(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        self.is_subscribe_allowed(pattern, queue) && !self.subscribe_deny.covers(pattern, queue)
    }

    fn is_subscribe_allowed(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        if self.subscribe_allow.is_empty() {
            return true;
        }
        let covering = self
            .subscribe_allow
            .iter()
            .filter(|rule| subject::is_subset(pattern, &rule.pattern));
        // A rule that names a queue group decides for members of groups; otherwise a plain rule does.
        let mut plain = false;
        let mut named = None;
        for rule in covering {
            match (&rule.queue, queue) {
                (None, _) => plain = true,
                (Some(_), Some(queue)) => {
                    named = Some(named.unwrap_or(false) || rule.names_queue(queue));
                }
                (Some(_), None) => {}
            }
        }
        named.unwrap_or(plain)
    }

    /// What must be held back from a subscription that is allowed but reaches into what is denied.
    pub fn filter_for(&self, pattern: &[u8], queue: Option<&[u8]>) -> Option<Arc<DenyFilter>> {
        let reaches = (queue.is_some() || subject::has_wildcard(pattern))
            && self
                .subscribe_deny
                .rules
                .iter()
                .any(|rule| subject::overlap(pattern, &rule.pattern));
        reaches.then(|| Arc::clone(&self.subscribe_deny))
    }

    /// An empty book of replies for a client of this user.
    pub fn new_responses(&self) -> Option<ResponsePermits> {
        self.responses.map(ResponsePermits::new)
    }
}

impl DenyFilter {
    /// Whether a subscription of this queue group may not see what is published to the subject.
    pub fn denies(&self, subject: &[u8], queue: Option<&[u8]>) -> bool {
        self.covers(subject, queue)
    }

    fn covers(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        self.rules.iter().any(|rule| {
            subject::is_subset(pattern, &rule.pattern)
                && (rule.queue.is_none() || queue.is_some_and(|queue| rule.names_queue(queue)))
        })
    }
}

/// The replies a client was asked for and may still publish.
#[derive(Debug)]
pub struct ResponsePermits {
    limits: ResponsePermission,
    asked: Mutex<HashMap<Box<[u8]>, Asked>>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    answers: u64,
}

impl ResponsePermits {
    fn new(limits: ResponsePermission) -> Self {
        Self {
            limits,
            asked: Mutex::default(),
        }
    }

    /// The client was asked and may answer here.
    pub fn note(&self, reply: &[u8]) {
        let mut asked = self.asked.lock();
        if asked.len() >= RESPONSES_BEFORE_PRUNE {
            asked.retain(|_, asked| self.is_open(asked));
            if asked.len() >= RESPONSES_BEFORE_PRUNE
                && let Some(oldest) = asked
                    .iter()
                    .min_by_key(|(_, asked)| asked.at)
                    .map(|(reply, _)| reply.clone())
            {
                asked.remove(&oldest);
            }
        }
        asked.insert(
            reply.into(),
            Asked {
                at: Instant::now(),
                answers: 0,
            },
        );
    }

    /// Whether the client may answer here once more; counts the answer.
    pub fn take(&self, reply: &[u8]) -> bool {
        let mut asked = self.asked.lock();
        let Some(entry) = asked.get_mut(reply) else {
            return false;
        };
        if !self.is_open(entry) {
            asked.remove(reply);
            return false;
        }
        entry.answers += 1;
        true
    }

    fn is_open(&self, asked: &Asked) -> bool {
        let limits = &self.limits;
        limits.replies_max.is_none_or(|max| asked.answers < max)
            && limits.expires.is_none_or(|ttl| asked.at.elapsed() <= ttl)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|p| (*p).to_owned()).collect()
    }

    fn user_a() -> Permissions {
        Permissions::new(&PermissionsConfig {
            publish: Some(SubjectPermission {
                allow: Some(list(&["ok.>", "req"])),
                deny: list(&["ok.no"]),
            }),
            subscribe: Some(SubjectPermission {
                allow: Some(list(&["ok.>", "_INBOX.>", "q.* g1"])),
                deny: list(&["ok.secret"]),
            }),
            responses: None,
        })
        .unwrap()
    }

    #[test]
    fn what_is_denied_is_denied_although_allowed() {
        let user = user_a();
        assert!(user.may_publish(b"ok.x") && user.may_publish(b"req"));
        assert!(!user.may_publish(b"ok.no") && !user.may_publish(b"other"));
        assert!(user.may_subscribe(b"ok.x", None) && user.may_subscribe(b"ok.>", None));
        assert!(!user.may_subscribe(b"ok.secret", None) && !user.may_subscribe(b">", None));
    }

    #[test]
    fn rules_with_a_queue_group_speak_of_that_group_only() {
        let user = user_a();
        assert!(user.may_subscribe(b"q.1", Some(b"g1")));
        assert!(!user.may_subscribe(b"q.1", Some(b"g2")));
        assert!(!user.may_subscribe(b"q.1", None));
    }

    #[test]
    fn a_wildcard_over_something_denied_is_filtered() {
        let user = user_a();
        let filter = user.filter_for(b"ok.>", None).unwrap();
        assert!(filter.denies(b"ok.secret", None) && !filter.denies(b"ok.x", None));
        assert!(user.filter_for(b"ok.x", None).is_none());
    }

    #[test]
    fn who_may_only_respond_publishes_one_answer_to_each_question() {
        let user = Permissions::new(&PermissionsConfig {
            responses: Some(ResponsePermission {
                replies_max: Some(1),
                expires: Some(Duration::from_secs(120)),
            }),
            ..Default::default()
        })
        .unwrap();
        assert!(!user.may_publish(b"_INBOX.x"));
        let permits = user.new_responses().unwrap();
        assert!(!permits.take(b"_INBOX.x"));
        permits.note(b"_INBOX.x");
        assert!(permits.take(b"_INBOX.x") && !permits.take(b"_INBOX.x"));
    }
}
