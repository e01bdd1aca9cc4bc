//! What the stream must hold, by rules that are written down a second time, and as plainly as can be.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{Accounting, Message, Store};

use crate::jetstream::types::{Discard, Storage, StreamConfig};

const SECOND: i64 = 1_000_000_000;

/// The value of a header.
pub(super) fn header(block: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(block).into_owned();
    let line = text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found == name).then(|| value.trim().to_owned())
    });
    line.filter(|value| !value.is_empty())
}

/// A limit, where there is one.
fn limit(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stored,
    Duplicate(u64),
    Refused,
}

/// A publish, as far as the rules look at it.
#[derive(Debug, Clone, Default)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) payload: String,
    pub(super) id: Option<String>,
    pub(super) expected_last: Option<u64>,
    pub(super) expected_on_subject: Option<u64>,
    pub(super) rollup: Option<&'static str>,
    pub(super) ttl: Option<&'static str>,
    pub(super) increment: Option<i64>,
    pub(super) schedule: bool,
}

impl Letter {
    pub(super) fn block(&self) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, value: String| {
            lines.push_str(&format!("{name}: {value}\r\n"));
        };
        if let Some(id) = &self.id {
            line("Nats-Msg-Id", id.clone());
        }
        if let Some(sequence) = self.expected_last {
            line("Nats-Expected-Last-Sequence", sequence.to_string());
        }
        if let Some(sequence) = self.expected_on_subject {
            let name = "Nats-Expected-Last-Subject-Sequence";
            line(name, sequence.to_string());
        }
        if let Some(rollup) = self.rollup {
            line("Nats-Rollup", rollup.to_owned());
        }
        if let Some(ttl) = self.ttl {
            line("Nats-TTL", ttl.to_owned());
        }
        if let Some(by) = self.increment {
            line("Nats-Incr", format!("{by:+}"));
        }
        if self.schedule {
            line("Nats-Schedule", "@every 2s".to_owned());
            line("Nats-Schedule-Target", "s.made".to_owned());
        }
        match lines.is_empty() {
            true => String::new(),
            false => format!("NATS/1.0\r\n{lines}\r\n"),
        }
    }
}

/// What is added to a schedule.
const ROLLUP_LINE: &str = "Nats-Rollup: sub\r\n";

impl Letter {
    /// The bytes of the header block that is stored.
    fn headers_length(&self) -> usize {
        let added = if self.schedule { ROLLUP_LINE.len() } else { 0 };
        self.block().len() + added
    }
}

pub(super) struct Model {
    pub(super) config: StreamConfig,
    /// By sequence: what must be there, but for what may be gone.
    pub(super) live: BTreeMap<u64, Message>,
    /// What may be gone: a consumer is done with it, or may not be.
    pub(super) unsure: BTreeSet<u64>,
    /// Everything that was ever there.
    pub(super) history: BTreeMap<u64, Message>,
    pub(super) last: u64,
    /// When each id was stored, and where.
    ids: HashMap<String, (u64, i64)>,
}

impl Model {
    pub(super) fn new(config: StreamConfig) -> Self {
        Self {
            last: config.first_seq.saturating_sub(1),
            config,
            live: BTreeMap::new(),
            unsure: BTreeSet::new(),
            history: BTreeMap::new(),
            ids: HashMap::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.size_of(self.live.values())
    }

    fn accounting(&self) -> Accounting {
        match self.config.storage {
            Storage::File => Accounting::File,
            Storage::Memory => Accounting::Memory,
        }
    }

    fn size_of<'a>(&self, messages: impl Iterator<Item = &'a Message>) -> u64 {
        let accounting = self.accounting();
        let size = |message: &Message| {
            let (subject, headers) = (message.subject.len(), message.headers.len());
            accounting.bytes(subject, headers, message.payload.len())
        };
        messages.map(size).sum()
    }

    fn on<'a>(&'a self, subject: &'a [u8]) -> impl DoubleEndedIterator<Item = u64> + 'a {
        let live = self.live.iter();
        live.filter(move |(_, message)| message.subject == subject)
            .map(|(sequence, _)| *sequence)
    }

    pub(super) fn last_on(&self, subject: &str) -> u64 {
        self.on(subject.as_bytes()).next_back().unwrap_or(0)
    }

    /// What a counter has come to.
    pub(super) fn value_on(&self, subject: &str) -> i64 {
        let last = self.live.get(&self.last_on(subject));
        let text = last.map(|message| String::from_utf8_lossy(&message.payload).into_owned());
        let digits = text
            .as_deref()
            .and_then(|text| text.split('"').nth(3)?.parse().ok());
        digits.unwrap_or(0)
    }

    /// Whether the stream keeps within limits of any kind.
    pub(super) fn is_limited(&self) -> bool {
        let config = &self.config;
        let limits = [
            config.max_msgs,
            config.max_bytes,
            config.max_msgs_per_subject,
        ];
        limits.into_iter().any(|value| limit(value).is_some()) || config.max_age > 0
    }

    /// What has to become of a publish. `is_wanted` says that there is somebody for it, or need not be.
    pub(super) fn judge(&self, letter: &Letter, now_ns: i64, is_wanted: bool) -> Fate {
        let config = &self.config;
        let expects_wrongly = letter.expected_last.is_some_and(|last| last != self.last)
            || letter
                .expected_on_subject
                .is_some_and(|last| last != self.last_on(&letter.subject));
        let mortal = letter.ttl.is_some() && !config.allow_msg_ttl;
        let is_conditional = letter.expected_last.is_some() || letter.expected_on_subject.is_some();
        let counts = letter.increment.is_some() != config.allow_msg_counter
            || letter.increment.is_some() && is_conditional;
        let plans = letter.schedule && !config.allow_msg_schedules;
        if expects_wrongly || mortal || counts || plans {
            return Fate::Refused;
        }
        let seen = letter.id.as_ref().and_then(|id| self.ids.get(id));
        if let Some((sequence, stored_ns)) = seen
            && now_ns - stored_ns < config.duplicate_window
        {
            return Fate::Duplicate(*sequence);
        }
        let may_roll = config.allow_rollup_hdrs && !config.deny_purge;
        let length = letter.headers_length() + letter.payload.len();
        let too_large = limit(config.max_msg_size.into()).is_some_and(|max| length as u64 > max);
        if letter.rollup.is_some() && !may_roll || too_large {
            return Fate::Refused;
        }
        match config.discard == Discard::New && is_wanted && !self.has_room(letter) {
            true => Fate::Refused,
            false => Fate::Stored,
        }
    }

    fn has_room(&self, letter: &Letter) -> bool {
        let config = &self.config;
        let on_subject = self.on(letter.subject.as_bytes()).count() as u64;
        let is_full = limit(config.max_msgs_per_subject).is_some_and(|max| on_subject >= max);
        let rolls_up = letter.rollup.is_some() || letter.schedule;
        if is_full && config.discard_new_per_subject && !rolls_up {
            return false;
        }
        let headers = letter.headers_length();
        let new = self
            .accounting()
            .bytes(letter.subject.len(), headers, letter.payload.len());
        let messages = self.live.len() as u64;
        let too_many = limit(config.max_msgs).is_some_and(|max| messages >= max);
        let too_much = limit(config.max_bytes).is_some_and(|max| self.bytes() + new > max);
        // The oldest on the subject makes room.
        is_full || !(too_many || too_much)
    }

    /// A message was stored: what must leave for it leaves.
    pub(super) fn stored(&mut self, message: Message) {
        let sequence = message.sequence;
        self.last = sequence;
        if let Some(id) = header(&message.headers, "Nats-Msg-Id") {
            self.ids.insert(id, (sequence, message.time_ns));
        }
        let subject = message.subject.clone();
        self.history.insert(sequence, message.clone());
        // A schedule takes the place of the one before it.
        let is_schedule = header(&message.headers, "Nats-Schedule").is_some();
        let rollup = header(&message.headers, "Nats-Rollup");
        self.live.insert(sequence, message);
        self.keep_within_limits();
        // What it takes the place of goes when it is there.
        match rollup.as_deref().or(is_schedule.then_some("sub")) {
            Some("all") => self.live.retain(|at, _| *at == sequence),
            Some("sub") => self
                .live
                .retain(|at, held| *at == sequence || held.subject != subject),
            _ => {}
        }
    }

    /// A sequence was used, and nothing was stored.
    pub(super) fn skipped(&mut self, letter: &Letter, sequence: u64, now_ns: i64) {
        self.last = sequence;
        match letter.rollup.or(letter.schedule.then_some("sub")) {
            Some("all") => self.live.clear(),
            Some("sub") => self.live.retain(|_, held| held.subject != letter.subject),
            _ => {}
        }
        if let Some(id) = &letter.id {
            self.ids.insert(id.clone(), (sequence, now_ns));
        }
    }

    fn keep_within_limits(&mut self) {
        self.keep_newest();
        self.keep_within_totals();
    }

    /// Other limits hold.
    pub(super) fn apply_limits(&mut self) {
        self.keep_within_totals();
        self.keep_newest();
    }

    fn keep_newest(&mut self) {
        if let Some(max) = limit(self.config.max_msgs_per_subject) {
            let subjects: BTreeSet<Bytes> = self
                .live
                .values()
                .map(|message| message.subject.clone())
                .collect();
            for subject in subjects {
                let on: Vec<u64> = self.on(&subject).collect();
                let surplus = on.len().saturating_sub(max as usize);
                for sequence in &on[..surplus] {
                    self.live.remove(sequence);
                }
            }
        }
    }

    fn keep_within_totals(&mut self) {
        if self.config.discard == Discard::New {
            return;
        }
        let messages_max = limit(self.config.max_msgs).unwrap_or(u64::MAX);
        let bytes_max = limit(self.config.max_bytes).unwrap_or(u64::MAX);
        while self.live.len() as u64 > messages_max || self.bytes() > bytes_max {
            self.live.pop_first();
        }
    }

    /// When a message dies by itself.
    fn dies_ns(&self, message: &Message) -> i64 {
        let by_age = match self.config.max_age {
            0 => i64::MAX,
            age => message.time_ns.saturating_add(age),
        };
        match header(&message.headers, "Nats-TTL").as_deref() {
            Some(_) if !self.config.allow_msg_ttl => by_age,
            Some("never") => i64::MAX,
            Some(text) => {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                let seconds: i64 = digits.parse().expect("seconds");
                by_age.min(message.time_ns.saturating_add(seconds * SECOND))
            }
            None => by_age,
        }
    }

    /// What is dead by now is gone. Says on which subjects nothing is left that had something, and that did not end with a marker.
    pub(super) fn pass(&mut self, now_ns: i64) {
        let dead: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, message)| self.dies_ns(message) <= now_ns)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in dead {
            self.live.remove(&sequence);
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) {
        self.live.remove(&sequence);
        self.unsure.remove(&sequence);
    }

    /// A purge; says how many must have gone.
    pub(super) fn purge(&mut self, filter: &str, below: u64, keep: u64) -> u64 {
        let matches = |message: &Message| match filter {
            "" => true,
            filter => Filter::new([filter.as_bytes()]).matches(&message.subject),
        };
        let matching: Vec<u64> = self
            .live
            .values()
            .filter(|message| matches(message))
            .map(|message| message.sequence)
            .collect();
        let surplus = matching.len().saturating_sub(keep as usize);
        let gone = matching[..surplus]
            .iter()
            .copied()
            .filter(|sequence| below == 0 || *sequence < below);
        let gone: Vec<u64> = gone.collect();
        for sequence in &gone {
            self.remove(*sequence);
        }
        if filter.is_empty() && keep == 0 && below > self.last {
            self.last = below - 1;
        }
        gone.len() as u64
    }

    /// Takes what may be gone for gone, where it is.
    pub(super) fn look(&mut self, store: &dyn Store) {
        let gone = self.unsure.iter().copied();
        let gone = gone.filter(|sequence| !is_live(store, *sequence));
        for sequence in gone.collect::<Vec<u64>>() {
            self.remove(sequence);
        }
    }

    /// Takes the store for right.
    pub(super) fn believe(&mut self, store: &dyn Store) {
        self.live = everything(store);
        let live = &self.live;
        self.unsure.retain(|sequence| live.contains_key(sequence));
        self.last = store.state().last_sequence;
        for (sequence, message) in &self.live {
            self.history.insert(*sequence, message.clone());
        }
    }

    /// Says how the store differs from what it must hold.
    pub(super) fn compare(&self, store: &dyn Store) -> Result<(), String> {
        let held = everything(store);
        for (sequence, message) in &self.live {
            match held.get(sequence) {
                Some(held) if held == message => {}
                None if self.unsure.contains(sequence) => {}
                found => return Err(format!("{message:?} must be there, and is {found:?}")),
            }
        }
        if let Some(surplus) = held
            .keys()
            .find(|sequence| !self.live.contains_key(sequence))
        {
            return Err(format!("{:?} must not be there", held[surplus]));
        }
        self.compare_totals(store, &held)
    }

    fn compare_totals(
        &self,
        store: &dyn Store,
        held: &BTreeMap<u64, Message>,
    ) -> Result<(), String> {
        let state = store.state();
        let subjects: BTreeSet<&Bytes> = held.values().map(|message| &message.subject).collect();
        let first = held.keys().next().copied().unwrap_or(self.last + 1);
        let span = held.keys().next_back().map_or(0, |last| last + 1 - first);
        let bytes = self.size_of(held.values());
        let found = (
            state.messages,
            state.bytes,
            state.subjects,
            state.last_sequence,
        );
        let wanted = (held.len() as u64, bytes, subjects.len() as u64, self.last);
        if found != wanted {
            return Err(format!("the state is {state:?} and not {wanted:?}"));
        }
        if !held.is_empty() && (state.first_sequence != first || span < state.messages) {
            return Err(format!("the state is {state:?}, and the first is {first}"));
        }
        for subject in subjects {
            let on: Vec<u64> = held
                .values()
                .filter(|message| message.subject == *subject)
                .map(|message| message.sequence)
                .collect();
            let known = store.subject(subject);
            let is_so = known.is_some_and(|known| {
                (known.messages, Some(&known.last_sequence)) == (on.len() as u64, on.last())
            });
            if !is_so {
                return Err(format!("{subject:?} is known as {known:?}, and has {on:?}"));
            }
        }
        Ok(())
    }
}

pub(super) fn is_live(store: &dyn Store, sequence: u64) -> bool {
    store.load(sequence).expect("the disk is well").is_some()
}

/// All messages of a store.
fn everything(store: &dyn Store) -> BTreeMap<u64, Message> {
    let filter = Filter::everything();
    let mut held = BTreeMap::new();
    let mut next = 0;
    while let Some(message) = store.next(next, &filter).expect("the disk is well") {
        next = message.sequence + 1;
        held.insert(message.sequence, message);
    }
    held
}
