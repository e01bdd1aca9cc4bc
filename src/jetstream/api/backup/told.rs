//! What others hear of backups.

use serde::Serialize;

use super::under_way::Claim;
use crate::broker::{Outgoing, PublishCache};
use crate::jetstream::advisory::{Client, typed};
use crate::jetstream::api::elsewhere::AskingClient;
use crate::jetstream::api::now;
use crate::jetstream::types::{StreamState, Time};

/// Who asked for it, as far as it is known.
type Asker<'a> = Option<&'a AskingClient>;

#[derive(Serialize)]
struct Event<'a> {
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a StreamState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    client: Option<Client<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
}

impl<'a> Event<'a> {
    fn new(claim: &'a Claim, asker: Asker<'a>) -> Self {
        Self {
            stream: claim.stream(),
            state: None,
            start: None,
            end: None,
            bytes: None,
            client: asker.map(|client| Client::new(&client.info, &client.server, &client.cluster)),
            domain: claim.domain(),
        }
    }

    fn tell(self, claim: &Claim, verb: &str, kind: &'static str) {
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.{verb}.{}", self.stream);
        if !claim.account.has_interest(&subject) {
            return;
        }
        let message = Outgoing {
            subject: subject.into(),
            payload: typed(kind, now(), self).into(),
            ..Outgoing::default()
        };
        claim.publish(message, &mut PublishCache::new());
    }
}

pub(super) fn snapshot_begun(claim: &Claim, asker: Asker<'_>, state: &StreamState) {
    let event = Event {
        state: Some(state),
        ..Event::new(claim, asker)
    };
    let kind = "io.nats.jetstream.advisory.v1.snapshot_create";
    event.tell(claim, "SNAPSHOT_CREATE", kind);
}

pub(super) fn snapshot_ended(claim: &Claim, asker: Asker<'_>, start: Time) {
    let event = Event {
        start: Some(start),
        end: Some(now()),
        ..Event::new(claim, asker)
    };
    let kind = "io.nats.jetstream.advisory.v1.snapshot_complete";
    event.tell(claim, "SNAPSHOT_COMPLETE", kind);
}

pub(super) fn restore_begun(claim: &Claim, asker: Asker<'_>) {
    let kind = "io.nats.jetstream.advisory.v1.restore_create";
    Event::new(claim, asker).tell(claim, "RESTORE_CREATE", kind);
}

pub(super) fn restore_ended(claim: &Claim, asker: Asker<'_>, start: Time, bytes: u64) {
    let event = Event {
        start: Some(start),
        end: Some(now()),
        bytes: Some(bytes),
        ..Event::new(claim, asker)
    };
    let kind = "io.nats.jetstream.advisory.v1.restore_complete";
    event.tell(claim, "RESTORE_COMPLETE", kind);
}
