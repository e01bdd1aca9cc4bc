//! Streams that arrive with their messages: from a backup, or from another server's store.

use bytes::Bytes;
use storage::filter::Filter;
use storage::store::{ChangeError, Expiry, ReadError, Store};
use thiserror::Error;

use super::StreamCore;
use super::judge::parse_ttl;
use super::publish::NEVER;
use super::schedules::first_firing;
use super::start::starting_progress;
use crate::jetstream::core::consumer::{Consumer, Progress};
use crate::jetstream::core::headers::{self, PublishHeaders, ScheduleHeaders};
use crate::jetstream::core::sources::SOURCE_HEADER;
use crate::jetstream::types::{ConsumerConfig, StreamConfig};

const SECOND_NS: i64 = 1_000_000_000;

/// A consumer that arrives with its stream.
#[derive(Debug, Clone)]
pub struct ArrivedConsumer {
    /// Its name.
    pub name: String,
    /// When it was created, in nanoseconds since the epoch.
    pub created_ns: i64,
    /// Its configuration.
    pub config: ConsumerConfig,
    /// How far it has come; a new one when nothing is known of that.
    pub progress: Option<Progress>,
}

/// A stream that could not be taken up.
#[derive(Debug, Clone, Error)]
pub enum ArrivalError {
    /// Its store takes no changes.
    #[error("its store takes no changes: {0}")]
    Change(#[from] ChangeError),
    /// Its store cannot be read.
    #[error("its store cannot be read: {0}")]
    Read(#[from] ReadError),
}

impl StreamCore {
    /// When a message of that stream dies by itself, by what its headers say.
    pub fn arrival_expiry(config: &StreamConfig, headers: &[u8], time_ns: i64) -> Expiry {
        if headers.is_empty() || !config.allow_msg_ttl {
            return Expiry::ByAge;
        }
        let found = PublishHeaders::parse(headers);
        // What it does not say well counts for nothing.
        match found.ttl.and_then(parse_ttl) {
            Some(-1) => Expiry::Never,
            Some(seconds @ 1..) => {
                let ttl_ns = seconds.saturating_mul(SECOND_NS);
                Expiry::At(time_ns.saturating_add(ttl_ns).min(NEVER - 1))
            }
            _ => Expiry::ByAge,
        }
    }

    /// A stream whose messages are in its store already. The limits of the configuration apply to them from here on, and the message ids of
    /// those that are within the duplicate window are remembered.
    pub fn arrive(
        config: StreamConfig,
        domain: &str,
        created_ns: i64,
        store: Box<dyn Store>,
        consumers: Vec<ArrivedConsumer>,
        now_ns: i64,
    ) -> Result<Self, ArrivalError> {
        let mut core = Self::create(config, domain, created_ns, store)?;
        core.remember_ids(now_ns)?;
        core.find_schedules_and_positions(now_ns)?;
        for arrived in consumers {
            let progress = match arrived.progress {
                Some(progress) => core.resumed(&arrived.config, progress),
                None => starting_progress(&core.config, &arrived.config, core.store.as_ref()),
            };
            core.consumer_id_last += 1;
            let id = core.consumer_id_last;
            core.names.insert(arrived.name.clone(), id);
            let consumer = Consumer::new(
                id,
                arrived.name,
                arrived.created_ns,
                arrived.config,
                progress,
            );
            core.consumers.insert(id, consumer);
        }
        core.applied_ns = now_ns;
        Ok(core)
    }

    /// The snapshot of a stream that has arrived, as of its first log entry.
    pub fn arrived(&mut self, index: u64) -> Bytes {
        self.birth(index)
    }

    /// A consumer that has delivered nothing of the last messages by subject begins with those that there are now.
    fn resumed(&self, config: &ConsumerConfig, progress: Progress) -> Progress {
        let fresh = starting_progress(&self.config, config, self.store.as_ref());
        let resume = match progress.delivered.consumer {
            0 => fresh.resume,
            _ => 0,
        };
        Progress { resume, ..progress }
    }

    /// A schedule that repeats goes on from now; one that fires once and is late fires at once. Sources go on behind the last message that is
    /// here of each.
    fn find_schedules_and_positions(&mut self, now_ns: i64) -> Result<(), ReadError> {
        let has_schedules = self.config.allow_msg_schedules;
        if !has_schedules && self.config.sources.is_empty() {
            return Ok(());
        }
        let everything = Filter::everything();
        let mut next = 0;
        while let Some(message) = self.store.next(next, &everything)? {
            next = message.sequence + 1;
            if let Some(source) = headers::get(&message.headers, SOURCE_HEADER) {
                self.positions.note(source, &self.config.sources);
            }
            if !has_schedules {
                continue;
            }
            let said = ScheduleHeaders::parse(&message.headers);
            let firing = first_firing(&said, message.time_ns);
            let firing = match firing {
                Ok(Some(late)) if late.repeats && late.at_ns < now_ns => {
                    first_firing(&said, now_ns)
                }
                firing => firing,
            };
            match firing {
                Ok(Some(firing)) => {
                    let subject = &message.subject;
                    self.schedules.set(subject, message.sequence, firing.at_ns);
                }
                _ if said.scheduler.is_none() => self.schedules.remove_subject(&message.subject),
                _ => {}
            }
        }
        Ok(())
    }

    fn remember_ids(&mut self, now_ns: i64) -> Result<(), ReadError> {
        let everything = Filter::everything();
        let window_ns = self.config.duplicate_window;
        let begin_ns = now_ns.saturating_sub(window_ns);
        let mut next = match window_ns {
            ..=0 => None,
            _ => self.store.sequence_at(begin_ns),
        };
        while let Some(from) = next {
            let Some(message) = self.store.next(from, &everything)? else {
                break;
            };
            let found = PublishHeaders::parse(&message.headers);
            if let Some(id) = found.id {
                self.dedupe.add(id, message.sequence, message.time_ns);
            }
            next = message.sequence.checked_add(1);
        }
        let last_sequence = self.store.state().last_sequence;
        if let Some(last) = self.store.load(last_sequence)? {
            let found = PublishHeaders::parse(&last.headers);
            self.last_id = Box::from(found.id.unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use storage::store::{Limits, MemStore, NewMessage};

    use super::*;
    use crate::jetstream::core::Place;

    fn store() -> Box<dyn Store> {
        let mut store = MemStore::new(Limits::default());
        for sequence in 1..=4 {
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: id-{sequence}\r\n\r\n");
            let message = NewMessage {
                sequence,
                time_ns: sequence as i64 * 100 * SECOND_NS,
                subject: b"a",
                headers: headers.as_bytes(),
                payload: b"",
                expiry: Expiry::ByAge,
            };
            store.append(&message, &mut ()).expect("memory takes it");
        }
        Box::new(store)
    }

    #[test]
    fn limits_apply_ids_are_remembered_and_consumers_are_where_they_were() {
        let config = StreamConfig {
            name: "S".to_owned(),
            subjects: vec!["a".to_owned()],
            max_msgs: 3,
            max_bytes: -1,
            max_msgs_per_subject: -1,
            duplicate_window: 120 * SECOND_NS,
            ..StreamConfig::default()
        };
        let progress = Progress {
            delivered: Place {
                consumer: 9,
                stream: 3,
            },
            ..Progress::default()
        };
        let consumer = |name: &str, progress| ArrivedConsumer {
            name: name.to_owned(),
            created_ns: 1,
            config: ConsumerConfig::default(),
            progress,
        };
        let consumers = vec![consumer("C", Some(progress.clone())), consumer("N", None)];
        let now_ns = 410 * SECOND_NS;
        let mut core = StreamCore::arrive(config, "", 7, store(), consumers, now_ns)
            .expect("the stream arrives");
        assert_eq!(core.store().state().messages, 3);
        assert_eq!(core.dedupe.find(b"id-4", now_ns), Some(4));
        assert_eq!(core.dedupe.find(b"id-2", now_ns), None);
        assert_eq!(&*core.last_id, b"id-4");
        assert_eq!(core.consumers[&1].progress, progress);
        assert_eq!(core.consumers[&2].progress.delivered.stream, 1);
        let snapshot = core.arrived(1);
        let again = StreamCore::restore(&snapshot, "", store()).expect("it reads");
        assert_eq!((again.applied_index(), again.consumer_count()), (1, 2));
    }

    #[test]
    fn schedules_and_the_positions_of_sources_are_found_in_the_messages() {
        let source = crate::jetstream::types::StreamSource {
            name: "O".to_owned(),
            ..Default::default()
        };
        let config = StreamConfig {
            name: "S".to_owned(),
            max_msgs: -1,
            max_bytes: -1,
            max_msgs_per_subject: -1,
            allow_msg_schedules: true,
            sources: vec![source.clone()],
            ..StreamConfig::default()
        };
        let mut store = MemStore::new(Limits::default());
        for (sequence, header) in [
            (1, "Nats-Stream-Source: O 41 > > o.a"),
            (2, "Nats-Schedule: @every 10s\r\nNats-Schedule-Target: t"),
        ] {
            let headers = format!("NATS/1.0\r\n{header}\r\n\r\n");
            let message = NewMessage {
                sequence,
                time_ns: SECOND_NS,
                subject: b"a",
                headers: headers.as_bytes(),
                payload: b"",
                expiry: Expiry::ByAge,
            };
            store.append(&message, &mut ()).expect("memory takes it");
        }
        let now_ns = 1_000 * SECOND_NS;
        let core = StreamCore::arrive(config, "", 7, Box::new(store), Vec::new(), now_ns)
            .expect("the stream arrives");
        assert_eq!(core.positions.of(&source), Some(41));
        assert!(!core.schedules.is_empty());
        assert!(core.schedules.due(now_ns, 9).is_empty(), "not at once");
    }

    #[test]
    fn a_time_to_live_counts_where_it_is_allowed() {
        let mut config = StreamConfig::default();
        let headers = b"NATS/1.0\r\nNats-TTL: 10s\r\n\r\n";
        let expiry = |config: &StreamConfig, headers: &[u8]| {
            StreamCore::arrival_expiry(config, headers, 5 * SECOND_NS)
        };
        assert_eq!(expiry(&config, headers), Expiry::ByAge);
        config.allow_msg_ttl = true;
        assert_eq!(expiry(&config, headers), Expiry::At(15 * SECOND_NS));
        let never = b"NATS/1.0\r\nNats-TTL: never\r\n\r\n";
        assert_eq!(expiry(&config, never), Expiry::Never);
        assert_eq!(expiry(&config, b""), Expiry::ByAge);
    }
}
