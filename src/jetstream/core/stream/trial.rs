//! What would become of a message, for those who only want to know.

use bytes::Bytes;

use super::judge::{Case, Obstacle};
use super::publish::FAST_BATCH_SUFFIX;
use super::{Step, StreamCore};
use crate::jetstream::core::headers::PublishHeaders;
use crate::jetstream::core::request::Publish;
use crate::jetstream::types::{ApiError, ErrorCode};

/// What would become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The subject under which it is stored.
    pub subject: Bytes,
    /// No consumer wants it, so it is not stored.
    pub is_unwanted: bool,
    /// Why it is refused.
    pub refusal: Option<String>,
}

impl StreamCore {
    /// Judges a message and does nothing. A message of a batch is not judged: that depends on what else is in it.
    pub fn trial(&self, publish: &Publish, step: &Step<'_>) -> Trial {
        let mut publish = publish.clone();
        publish.subject = self.stored_subject(publish.subject, step.world);
        let found = PublishHeaders::parse(&publish.headers);
        let in_batch = found.batch_id.is_some() || publish.reply.ends_with(FAST_BATCH_SUFFIX);
        let case = Case::alone(&publish, &found, step.now_ns);
        let refusal = match in_batch {
            true => None,
            false => match self.judge(&case) {
                // What depends on messages in flight is not known before they are durable.
                Ok(_) | Err(Obstacle::Park) => None,
                Err(Obstacle::Duplicate(_)) => Some("msgid is duplicate".to_owned()),
                Err(Obstacle::Refuse(error)) => Some(self.in_a_report(&error, &case)),
            },
        };
        Trial {
            is_unwanted: refusal.is_none() && !self.is_wanted(&publish.subject),
            refusal,
            subject: publish.subject,
        }
    }

    /// Reports have words of their own for some refusals.
    fn in_a_report(&self, error: &ApiError, case: &Case<'_>) -> String {
        let found = case.found;
        let text = |bytes: Option<&[u8]>| {
            let bytes = bytes.unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        // The description ends with what was found instead.
        let last = error.description.rsplit(": ").next().unwrap_or_default();
        if error.is(ErrorCode::StreamWrongLastSequence) {
            let subject = self.check_expected_on_subject(case).is_err();
            let (what, expected) = match subject {
                true => (" by subject", found.expected_last_subject_sequence),
                false => ("", found.expected_last_sequence),
            };
            return format!("last sequence{what} mismatch: {} vs {last}", text(expected));
        }
        if error.is(ErrorCode::StreamWrongLastMsgId) {
            let expected = text(found.expected_last_id);
            return format!("last msgid mismatch: {expected:?} vs {last:?}");
        }
        let plain = [
            (ErrorCode::StreamNotMatch, "expected stream does not match"),
            (ErrorCode::MessageTtlDisabled, "message TTL disabled"),
            (
                ErrorCode::StreamMessageExceedsMaximum,
                "maximum payload exceeded",
            ),
        ];
        let known = plain.iter().find(|(code, _)| error.is(*code));
        known.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
    }
}
