//! Counters: subjects whose last message holds a sum.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::StreamCore;
use super::judge::{Case, Obstacle, refuse};
use crate::jetstream::core::decimal::Decimal;
use crate::jetstream::core::headers;
use crate::jetstream::types::{ErrorCode, encode};

const INCREMENT: &str = "Nats-Incr";
const SOURCES: &str = "Nats-Counter-Sources";

/// What other streams have contributed to a counter: by stream, then by subject.
type Sources = BTreeMap<String, BTreeMap<String, String>>;

/// A counter at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter {
    total: Decimal,
    sources: Sources,
}

/// A message that counts, as it is stored.
pub(super) struct Counted {
    pub(super) counter: Counter,
    pub(super) headers: Bytes,
    pub(super) payload: Bytes,
    pub(super) value: Box<str>,
}

impl StreamCore {
    pub(super) fn check_increment(&self, case: &Case<'_>) -> Result<(), Obstacle> {
        let found = case.found;
        let Some(increment) = found.increment else {
            return Ok(());
        };
        if Decimal::parse(increment).is_none() {
            return Err(refuse(ErrorCode::MessageIncrInvalid));
        }
        if case.is_sourced {
            return Ok(());
        }
        if !self.config.allow_msg_counter {
            return Err(refuse(ErrorCode::MessageIncrDisabled));
        }
        if !case.publish.payload.is_empty() {
            return Err(refuse(ErrorCode::MessageIncrPayload));
        }
        let incompatible = [
            found.rollup,
            found.expected_stream,
            found.expected_last_id,
            found.expected_last_subject_sequence_subject,
            found.expected_last_sequence,
            found.expected_last_subject_sequence,
        ];
        if incompatible.iter().any(Option::is_some) {
            return Err(refuse(ErrorCode::MessageIncrInvalid));
        }
        Ok(())
    }

    /// What a counter comes to with this message.
    pub(super) fn count(&self, case: &Case<'_>) -> Result<Option<Counted>, Obstacle> {
        if !self.config.allow_msg_counter {
            return Ok(None);
        }
        let Some(increment) = case.found.increment.and_then(Decimal::parse) else {
            return Err(refuse(ErrorCode::MessageIncrMissing));
        };
        let subject = &case.publish.subject;
        let mut counter = match case.staged.and_then(|staged| staged.counter(subject)) {
            Some(counter) => counter.clone(),
            None => self.counter(subject)?,
        };
        let mut block = case.publish.headers.clone();
        let increment = match case.found.source {
            Some(source) => {
                let source = String::from_utf8_lossy(source);
                let grown = counter.contributed(&source, subject, &case.publish.payload)?;
                let text = grown.to_string();
                block = Bytes::from(headers::set(&block, INCREMENT, text.as_bytes()));
                grown
            }
            None => increment,
        };
        counter.total = counter.total.add(&increment);
        if !counter.sources.is_empty() {
            let sources = encode(&counter.sources);
            block = Bytes::from(headers::set(&block, SOURCES, &sources));
        }
        let value = counter.total.to_string().into_boxed_str();
        Ok(Some(Counted {
            counter,
            headers: block,
            payload: Bytes::from(format!("{{\"val\":\"{value}\"}}")),
            value,
        }))
    }

    /// What a counter is, with nothing in flight.
    fn counter(&self, subject: &[u8]) -> Result<Counter, Obstacle> {
        if self.lead.as_deref().is_some_and(|lead| !lead.is_settled()) {
            return Err(Obstacle::Park);
        }
        let Some(last) = self.store.last_on(subject).map_err(|_| broken())? else {
            return Ok(Counter::default());
        };
        let sources = match headers::get(&last.headers, SOURCES) {
            Some(sources) if !sources.is_empty() => {
                serde_json::from_slice(sources).map_err(|_| broken())?
            }
            _ => Sources::default(),
        };
        Ok(Counter {
            total: value_of(&last.payload).ok_or_else(broken)?,
            sources,
        })
    }
}

impl Counter {
    /// Another stream's counter stands at what its message says; by how much it has grown since it was last heard of.
    fn contributed(
        &mut self,
        source: &str,
        subject: &[u8],
        payload: &[u8],
    ) -> Result<Decimal, Obstacle> {
        let mut fields = source.split(' ');
        let stream = fields.next().unwrap_or_default();
        let subject = match fields.nth(3) {
            Some(original) => original.to_owned(),
            None => String::from_utf8_lossy(subject).into_owned(),
        };
        let value = value_of(payload).ok_or_else(broken)?;
        let of_stream = self.sources.entry(stream.to_owned()).or_default();
        let before = of_stream.insert(subject, value.to_string());
        let before = before.and_then(|before| Decimal::parse(before.as_bytes()));
        Ok(value.subtract(&before.unwrap_or_default()))
    }
}

fn broken() -> Obstacle {
    refuse(ErrorCode::MessageCounterBroken)
}

/// Reads `{"val":"5"}`.
fn value_of(payload: &[u8]) -> Option<Decimal> {
    #[derive(serde::Deserialize)]
    struct Value {
        val: String,
    }
    let value: Value = serde_json::from_slice(payload).ok()?;
    Decimal::parse(value.val.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_a_number_in_a_string() {
        let read = |payload: &[u8]| value_of(payload).map(|value| value.to_string());
        assert_eq!(read(br#"{"val":"-7"}"#).as_deref(), Some("-7"));
        assert_eq!(read(br#"{"val":7}"#), None);
        assert_eq!(read(b"7"), None);
    }

    #[test]
    fn a_source_contributes_what_it_has_grown_by() {
        let mut counter = Counter::default();
        let mut grown = |value: &str| {
            let payload = format!("{{\"val\":\"{value}\"}}");
            let by = counter.contributed("ORIGIN 7 > > c.x", b"c.y", payload.as_bytes());
            by.ok().map(|by| by.to_string())
        };
        assert_eq!(grown("5").as_deref(), Some("5"));
        assert_eq!(grown("12").as_deref(), Some("7"));
        assert_eq!(grown("10").as_deref(), Some("-2"));
        assert_eq!(
            encode(&counter.sources),
            br#"{"ORIGIN":{"c.x":"10"}}"#.to_vec()
        );
    }
}
