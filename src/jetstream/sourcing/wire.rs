//! What is said to an origin's server, and what comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::jetstream::core::sources;
use crate::jetstream::types::{
    AckPolicy, ApiError, ConsumerConfig, DeliverPolicy, SequenceInfo, StreamSource, Strictness,
    Time, decode, encode, name_hash,
};

/// How often an origin's consumer says that it is there.
const HEARTBEAT_NS: i64 = 1_000_000_000;
/// How long an origin's consumer lives when nobody listens to it.
const INACTIVE_NS: i64 = 10_000_000_000;
/// Longer than anybody waits: nothing is delivered twice.
const ACK_WAIT_NS: i64 = 22 * 3600 * 1_000_000_000;

/// Who copies.
pub(super) struct Copier<'a> {
    pub(super) stream: &'a str,
    pub(super) account: &'a str,
    /// The domain of its server; empty for none.
    pub(super) domain: &'a str,
}

impl Copier<'_> {
    /// What the consumer of one of its origins is called: always the same, so that it is found again. An origin that is named more than once has a
    /// consumer for each way in which it is followed.
    pub(super) fn consumer(
        &self,
        source: &StreamSource,
        is_mirror: bool,
        all: &[&StreamSource],
    ) -> String {
        let mut id = format!("{} {}", self.stream, self.account);
        if !self.domain.is_empty() {
            id = format!("{id} {}", self.domain);
        }
        let mut hash = name_hash(&id);
        let kind = if is_mirror { "MIRROR" } else { "SRC" };
        if !is_mirror {
            // The reference takes the hash of the hash.
            id = String::from_utf8_lossy(&hash).into_owned();
            if all.iter().filter(|one| one.name == source.name).count() > 1 {
                id = format!("{id} {}", sources::index_name(source));
            }
            hash = name_hash(&id);
        }
        format!("JS_{kind}_{}", String::from_utf8_lossy(&hash))
    }
}

/// A consumer as it is asked for.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) deliver_subject: &'a str,
    pub(super) start: Start,
    /// Whether it is to be renewed under its name.
    pub(super) renews: bool,
}

/// The level of the API from which on consumers are renewed.
pub(super) const RENEWAL_LEVEL: &str = "4";

/// Where an origin's consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    All,
    Sequence(u64),
    Time(Time),
}

#[derive(Serialize)]
struct CreateRequest<'a> {
    stream_name: &'a str,
    config: &'a ConsumerConfig,
}

/// The subject and the body of a request for a consumer.
pub(super) fn create_request(
    source: &StreamSource,
    copier: &Copier<'_>,
    is_mirror: bool,
    wanted: &Wanted<'_>,
) -> (String, Bytes) {
    let Wanted {
        name,
        deliver_subject,
        start,
        renews,
    } = *wanted;
    let (kind, mut filters) = (if is_mirror { "mirror" } else { "src" }, Vec::new());
    filters.extend((!source.filter_subject.is_empty()).then(|| source.filter_subject.clone()));
    let transforms = source.subject_transforms.iter();
    filters.extend(transforms.map(|transform| match transform.src.as_str() {
        "" => ">".to_owned(),
        src => src.to_owned(),
    }));
    let mut metadata = BTreeMap::from([
        (format!("_nats.{kind}.stream"), copier.stream.to_owned()),
        (format!("_nats.{kind}.acc"), copier.account.to_owned()),
    ]);
    if !copier.domain.is_empty() {
        metadata.insert(format!("_nats.{kind}.domain"), copier.domain.to_owned());
    }
    let mut config = ConsumerConfig {
        name: name.to_owned(),
        deliver_subject: deliver_subject.to_owned(),
        ack_policy: AckPolicy::None,
        ack_wait: ACK_WAIT_NS,
        max_deliver: 1,
        idle_heartbeat: HEARTBEAT_NS,
        flow_control: true,
        direct: true,
        sourcing: renews,
        inactive_threshold: INACTIVE_NS,
        metadata,
        ..ConsumerConfig::default()
    };
    match start {
        Start::All => config.deliver_policy = DeliverPolicy::All,
        Start::Sequence(sequence) => {
            config.deliver_policy = DeliverPolicy::ByStartSequence;
            config.opt_start_seq = sequence;
        }
        Start::Time(time) => {
            config.deliver_policy = DeliverPolicy::ByStartTime;
            config.opt_start_time = Some(time);
        }
    }
    let stream = &source.name;
    let subject = match filters.as_slice() {
        [filter] => {
            config.filter_subject.clone_from(filter);
            format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{filter}")
        }
        _ => {
            config.filter_subjects = filters;
            format!("$JS.API.CONSUMER.CREATE.{stream}")
        }
    };
    let request = CreateRequest {
        stream_name: stream,
        config: &config,
    };
    (api_subject(source, &subject), Bytes::from(encode(&request)))
}

/// A subject of the API as the origin's account or domain has it.
pub(super) fn api_subject(source: &StreamSource, subject: &str) -> String {
    match &source.external {
        Some(external) if !external.api.is_empty() => subject
            .replacen("$JS.API", &external.api, 1)
            .replace("..", "."),
        _ => subject.to_owned(),
    }
}

/// Where an origin's consumer is to deliver to.
pub(super) fn deliver_subject(source: &StreamSource, is_mirror: bool, unique: &str) -> String {
    let kind = if is_mirror { "M" } else { "S" };
    match &source.external {
        Some(external) if !external.deliver.is_empty() => {
            format!("{}.{kind}.{unique}", external.deliver).replace("..", ".")
        }
        _ => format!("$JS.{kind}.{unique}"),
    }
}

/// The answer to a request for a consumer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CreateAnswer {
    pub(super) error: Option<ApiError>,
    pub(super) name: String,
    pub(super) config: Option<AnswerConfig>,
    pub(super) delivered: SequenceInfo,
    pub(super) num_pending: u64,
}

/// What of the consumer's configuration matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnswerConfig {
    pub(super) deliver_subject: String,
    pub(super) ack_policy: AckPolicy,
}

/// Reads an answer.
pub(super) fn read_answer(body: &[u8]) -> Result<CreateAnswer, String> {
    decode(body, Strictness::Lenient).map_err(|error| error.to_string())
}
