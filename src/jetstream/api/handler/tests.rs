use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::jetstream::core::{ConsumerAction, StreamRequest};
use crate::jetstream::limits::{AccountLimits, AccountTiers};
use crate::jetstream::registry::{Found, StreamPort};
use crate::jetstream::types::{ConsumerInfo, SequenceInfo, Storage, StreamInfo, StreamState};

/// A stream that keeps its configuration and consumers and holds no messages.
struct Hollow {
    config: StdMutex<StreamConfig>,
    consumers: StdMutex<Vec<ConsumerInfo>>,
}

impl Hollow {
    fn info(&self) -> StreamReply {
        let consumer_count = self.consumers.lock().expect("lock").len() as u64;
        StreamReply::Info {
            info: Box::new(StreamInfo {
                config: self.config.lock().expect("lock").clone(),
                created: Time::from_nanoseconds(0),
                state: StreamState {
                    consumer_count,
                    ..StreamState::default()
                },
                domain: String::new(),
                cluster: None,
                mirror: None,
                sources: Vec::new(),
                alternates: Vec::new(),
                ts: Time::ZERO,
            }),
            subjects_total: 0,
        }
    }

    fn reply(&self, request: StreamRequest) -> StreamReply {
        let mut consumers = self.consumers.lock().expect("lock");
        match request {
            StreamRequest::Info(_) => {
                drop(consumers);
                self.info()
            }
            StreamRequest::Update(config) => {
                *self.config.lock().expect("lock") = *config;
                drop(consumers);
                self.info()
            }
            StreamRequest::ConsumerInfo { name } => {
                match consumers.iter().find(|info| info.name == name) {
                    Some(info) => StreamReply::Consumer(Box::new(info.clone())),
                    None => StreamReply::Refused(ErrorCode::ConsumerNotFound.into()),
                }
            }
            StreamRequest::ConsumerCreate(create) => {
                if let Some(info) = consumers.iter_mut().find(|info| info.name == create.name) {
                    let mut config = create.config;
                    if create.action == ConsumerAction::Create {
                        config.take_stored_metadata(&info.config);
                        if config != info.config {
                            return StreamReply::Refused(ErrorCode::ConsumerAlreadyExists.into());
                        }
                    }
                    if let Err(error) = (create.check_update)(&info.config, &config) {
                        return StreamReply::Refused(error);
                    }
                    info.config = config;
                    return StreamReply::ConsumerCreated {
                        info: Box::new(info.clone()),
                        created: false,
                    };
                }
                if create.action == ConsumerAction::Update {
                    return StreamReply::Refused(ErrorCode::ConsumerDoesNotExist.into());
                }
                let info = ConsumerInfo {
                    stream_name: self.config.lock().expect("lock").name.clone(),
                    name: create.name,
                    created: Time::from_nanoseconds(0),
                    config: create.config,
                    delivered: SequenceInfo::default(),
                    ack_floor: SequenceInfo::default(),
                    num_ack_pending: 0,
                    num_redelivered: 0,
                    num_waiting: 0,
                    num_pending: 0,
                    cluster: None,
                    push_bound: false,
                    paused: false,
                    pause_remaining: 0,
                    ts: Time::ZERO,
                    priority_groups: Vec::new(),
                };
                consumers.push(info.clone());
                StreamReply::ConsumerCreated {
                    info: Box::new(info),
                    created: true,
                }
            }
            StreamRequest::ConsumerInfos { .. } => StreamReply::ConsumerInfos {
                total: consumers.len(),
                infos: consumers.clone(),
            },
            StreamRequest::ConsumerDelete { name } => {
                consumers.retain(|info| info.name != name);
                StreamReply::Done
            }
            _ => StreamReply::Refused(ErrorCode::NoMessageFound.into()),
        }
    }
}

impl StreamPort for Hollow {
    fn ask(&self, request: StreamRequest, answer: Box<dyn FnOnce(StreamReply) + Send>) {
        answer(self.reply(request));
    }
}

struct Maker {
    unreserved: u64,
}

impl StreamMaker for Maker {
    fn create(
        &self,
        _account: &AccountStreams,
        config: StreamConfig,
        _created: Time,
    ) -> Result<Arc<Stream>, ApiError> {
        let port = Hollow {
            config: StdMutex::new(config.clone()),
            consumers: StdMutex::default(),
        };
        Ok(Arc::new(Stream::new(config, Box::new(port))))
    }

    fn update(
        &self,
        _account: &AccountStreams,
        stream: &Stream,
        config: StreamConfig,
    ) -> Result<StreamInfo, ApiError> {
        match stream.ask(StreamRequest::Update(Box::new(config.clone()))) {
            StreamReply::Info { info, .. } => {
                stream.set_config(config);
                Ok(*info)
            }
            other => Err(unexpected(other)),
        }
    }

    fn remove(&self, _account: &AccountStreams, _stream: &Stream) -> Result<(), ApiError> {
        Ok(())
    }

    fn remove_offline(&self, _account: &AccountStreams, _name: &str) -> Result<(), ApiError> {
        Ok(())
    }

    fn unreserved(&self, _storage: Storage) -> u64 {
        self.unreserved
    }

    fn has_interest(&self, _account: &AccountStreams, _subject: &str) -> bool {
        false
    }

    fn land(
        &self,
        _account: &AccountStreams,
        _meta: StreamMeta,
    ) -> Result<(Landing, StreamBuilder), ApiError> {
        Err(ErrorCode::StreamRestore.into())
    }

    fn take_up(
        &self,
        _account: &AccountStreams,
        _landing: Landing,
        _core: StreamCore,
    ) -> Result<Arc<Stream>, ApiError> {
        Err(ErrorCode::StreamRestore.into())
    }
}

struct Api {
    server: Server,
    account: AccountStreams,
}

impl Api {
    fn new(limits: AccountLimits) -> Self {
        Self {
            server: Server {
                steward: None,
                name: "golden".to_owned(),
                cluster: String::new(),
                domain: String::new(),
                strictness: Strictness::Strict,
                limits: ServerLimits::default(),
                maker: Arc::new(Maker {
                    unreserved: u64::MAX,
                }),
                backups: Backups::new(&Arc::new(crate::broker::Broker::new()), ""),
                cluster_infos: None,
                is_disabled: AtomicBool::new(false),
                now: || Time::from_nanoseconds(1_000_000_000),
            },
            account: AccountStreams::new("$G", AccountTiers::of_all(limits)),
        }
    }

    fn ask_with(&self, subject: &str, body: &str, required_level: &str) -> (String, Outcome) {
        let context = Context {
            server: &self.server,
            account: &self.account,
            required_level: required_level.as_bytes(),
            client: None,
            body: body.as_bytes(),
        };
        let subject = format!("$JS.API.{subject}");
        let operation = Operation::parse(&subject).expect("an operation");
        let answer = handle(&context, operation).answer;
        (
            String::from_utf8(answer.payload).expect("text"),
            answer.outcome,
        )
    }

    fn ask(&self, subject: &str, body: &str) -> String {
        self.ask_with(subject, body, "").0
    }

    fn error(&self, subject: &str, body: &str) -> u64 {
        let reply: Value = serde_json::from_str(&self.ask(subject, body)).expect("JSON");
        reply["error"]["err_code"].as_u64().unwrap_or(0)
    }
}

fn unlimited() -> Api {
    Api::new(AccountLimits::default())
}

#[test]
fn where_nothing_can_be_stored_jetstream_is_off() {
    let api = Api::new(AccountLimits::default());
    api.server.is_disabled.store(true, Ordering::Release);
    for subject in [
        "INFO",
        "STREAM.NAMES",
        "STREAM.CREATE.S",
        "CONSUMER.INFO.S.C",
    ] {
        let answer: Value = serde_json::from_str(&api.ask(subject, "")).expect("JSON");
        assert_eq!(answer["error"]["err_code"], 10076, "{subject}");
        assert_eq!(answer["error"]["code"], 503, "{subject}");
    }
}

#[test]
fn a_created_stream_is_shown_byte_for_byte_as_recorded() {
    let api = unlimited();
    let created = r#"{"type":"io.nats.jetstream.api.v1.stream_create_response","config":{"name":"S1","subjects":["s1.\u003e"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,"duplicate_window":120000000000,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false,"metadata":{"_nats.level":"4","_nats.req.level":"0","_nats.ver":"2.14.5"}},"created":"1970-01-01T00:00:00Z","state":{"messages":0,"bytes":0,"first_seq":0,"first_ts":"0001-01-01T00:00:00Z","last_seq":0,"last_ts":"0001-01-01T00:00:00Z","consumer_count":0},"ts":"1970-01-01T00:00:01Z","did_create":true}"#;
    let body = r#"{"name": "S1", "subjects": ["s1.>"]}"#;
    assert_eq!(api.ask("STREAM.CREATE.S1", body), created);
    // The same again changes nothing.
    assert_eq!(api.ask("STREAM.CREATE.S1", body), created);
}

#[test]
fn stream_requests_are_refused_in_the_recorded_order() {
    let api = unlimited();
    api.ask(
        "STREAM.CREATE.S1",
        r#"{"name": "S1", "subjects": ["s1.>"]}"#,
    );
    for (subject, body, code) in [
        (
            "STREAM.CREATE.S1",
            r#"{"name": "S1", "subjects": ["other.>"]}"#,
            10058,
        ),
        ("STREAM.CREATE.S2", r#"{"name": "S1"}"#, 10056),
        ("STREAM.CREATE.S2", "not json", 10025),
        ("STREAM.CREATE.S2", "", 10056),
        ("STREAM.CREATE.S2", r#"{"name": "S2", "unknown": 1}"#, 10025),
        (
            "STREAM.CREATE.S2",
            r#"{"name": "S2", "subjects": ["s1.x"]}"#,
            10065,
        ),
        (
            "STREAM.CREATE.S2",
            r#"{"name": "S2", "num_replicas": 3}"#,
            10074,
        ),
        (
            "STREAM.CREATE.S2",
            r#"{"name": "S2", "retention": "bogus"}"#,
            10025,
        ),
        (
            "STREAM.CREATE.S2",
            r#"{"name": "S2", "sealed": true}"#,
            10052,
        ),
        (
            "STREAM.CREATE.S2",
            r#"{"name": "S2", "mirror": {"name": "S1"}, "subjects": ["x"]}"#,
            10034,
        ),
        ("STREAM.CREATE.S/2", r#"{"name": "S/2"}"#, 10128),
        ("STREAM.INFO.NOPE", "", 10059),
        ("STREAM.DELETE.NOPE", "", 10059),
        ("STREAM.DELETE.S1", r#"{"x":1}"#, 10038),
        ("STREAM.PURGE.NOPE", "", 10059),
        ("STREAM.PURGE.S1", r#"{"seq": 5, "keep": 1}"#, 10003),
        ("STREAM.UPDATE.NOPE", r#"{"name": "NOPE"}"#, 10059),
        (
            "STREAM.UPDATE.S1",
            r#"{"name": "S1", "storage": "memory"}"#,
            10052,
        ),
        ("STREAM.MSG.GET.S1", "{}", 10003),
        ("STREAM.MSG.GET.S1", "", 10003),
        (
            "STREAM.MSG.GET.S1",
            r#"{"seq":1,"last_by_subj":"a"}"#,
            10003,
        ),
        ("STREAM.MSG.DELETE.S1", "{}", 10003),
        ("STREAM.SNAPSHOT.NOPE", r#"{"deliver_subject": "x"}"#, 10059),
        ("STREAM.SNAPSHOT.S1", "", 10003),
        ("STREAM.SNAPSHOT.S1", r#"{"deliver_subject": "x.*"}"#, 10015),
        (
            "STREAM.RESTORE.S1",
            r#"{"config": {"name": "S1"}, "state": {}}"#,
            10130,
        ),
        ("STREAM.LEADER.STEPDOWN.S1", "", 10010),
        ("STREAM.PEER.REMOVE.S1", r#"{"peer": "x"}"#, 10010),
        ("CONSUMER.LEADER.STEPDOWN.S1.C", "", 10010),
    ] {
        assert_eq!(api.error(subject, body), code, "{subject} {body}");
    }
}

#[test]
fn consumer_requests_are_refused_in_the_recorded_order() {
    let api = unlimited();
    api.ask(
        "STREAM.CREATE.S1",
        r#"{"name": "S1", "subjects": ["s1.>"]}"#,
    );
    for (subject, body, code) in [
        (
            "CONSUMER.CREATE.NOPE",
            r#"{"stream_name": "NOPE", "config": {}}"#,
            10059,
        ),
        (
            "CONSUMER.CREATE.S1",
            r#"{"stream_name": "S2", "config": {}}"#,
            10056,
        ),
        ("CONSUMER.CREATE.S1", "", 10056),
        (
            "CONSUMER.CREATE.S1",
            r#"{"stream_name": "S1", "config": {"durable_name": "D"}}"#,
            10020,
        ),
        (
            "CONSUMER.CREATE.S1.C",
            r#"{"stream_name": "S1", "config": {"durable_name": "D"}}"#,
            10017,
        ),
        (
            "CONSUMER.DURABLE.CREATE.S1.D",
            r#"{"stream_name": "S1", "config": {}}"#,
            10018,
        ),
        (
            "CONSUMER.DURABLE.CREATE.S1.D",
            r#"{"stream_name": "S1", "config": {"durable_name": "E"}}"#,
            10017,
        ),
        (
            "CONSUMER.CREATE.S1.C3.s1.a",
            r#"{"stream_name": "S1", "config": {"name": "C3", "filter_subject": "s1.b"}}"#,
            10131,
        ),
        (
            "CONSUMER.CREATE.S1.C3.s1.a",
            r#"{"stream_name": "S1", "config": {"name": "C3", "filter_subjects": ["s1.b"]}}"#,
            10137,
        ),
        (
            "CONSUMER.CREATE.S1.C/3",
            r#"{"stream_name": "S1", "config": {}}"#,
            10127,
        ),
        (
            "CONSUMER.CREATE.S1.C",
            r#"{"stream_name": "S1", "config": {"num_replicas": 3}}"#,
            10074,
        ),
        (
            "CONSUMER.CREATE.S1.C",
            r#"{"stream_name": "S1", "action": "update", "config": {}}"#,
            10149,
        ),
        (
            "CONSUMER.CREATE.S1.C",
            r#"{"stream_name": "S1", "action": "bogus", "config": {}}"#,
            10025,
        ),
        ("CONSUMER.INFO.S1.NOPE", "", 10014),
        ("CONSUMER.INFO.NOPE.NOPE", "", 10059),
        ("CONSUMER.INFO.S1.NOPE", "x", 10038),
        ("CONSUMER.UNPIN.S1.C", r#"{"group": ""}"#, 10025),
        ("CONSUMER.UNPIN.S1.C", r#"{"group": "a b"}"#, 10162),
    ] {
        assert_eq!(api.error(subject, body), code, "{subject} {body}");
    }
}

#[test]
fn the_subject_names_the_consumer() {
    let api = unlimited();
    api.ask(
        "STREAM.CREATE.S1",
        r#"{"name": "S1", "subjects": ["s1.>"]}"#,
    );
    assert_eq!(
        api.ask(
            "CONSUMER.CREATE.S1.C2.s1.a",
            r#"{"stream_name": "S1", "config": {"name": "OTHER", "ack_policy": "explicit", "filter_subject": "s1.a"}}"#
        ),
        r#"{"type":"io.nats.jetstream.api.v1.consumer_create_response","stream_name":"S1","name":"C2","created":"1970-01-01T00:00:00Z","config":{"name":"C2","deliver_policy":"all","ack_policy":"explicit","ack_wait":30000000000,"max_deliver":-1,"filter_subject":"s1.a","replay_policy":"instant","max_waiting":512,"max_ack_pending":1000,"inactive_threshold":5000000000,"num_replicas":0,"metadata":{"_nats.level":"4","_nats.req.level":"0","_nats.ver":"2.14.5"}},"delivered":{"consumer_seq":0,"stream_seq":0},"ack_floor":{"consumer_seq":0,"stream_seq":0},"num_ack_pending":0,"num_redelivered":0,"num_waiting":0,"num_pending":0,"ts":"1970-01-01T00:00:01Z"}"#
    );
    let durable = api.ask(
        "CONSUMER.DURABLE.CREATE.S1.D1",
        r#"{"stream_name": "S1", "config": {"durable_name": "D1", "ack_policy": "all"}}"#,
    );
    assert!(
        durable.contains(r#""config":{"durable_name":"D1","name":"D1","#),
        "{durable}"
    );
    assert!(!durable.contains("inactive_threshold"), "{durable}");
    // Who becomes durable is given what others have once more.
    let body = r#"{"stream_name":"S1","config":{"durable_name":"C2","ack_policy":"explicit"}}"#;
    for given in [true, false] {
        let durable = api.ask("CONSUMER.DURABLE.CREATE.S1.C2", body);
        let threshold = durable.contains(r#""inactive_threshold":5000000000"#);
        assert_eq!(threshold, given, "{durable}");
    }
}

#[test]
fn pages_count_the_whole_and_show_a_part() {
    let api = unlimited();
    for name in ["S3", "S1", "S2"] {
        api.ask(
            &format!("STREAM.CREATE.{name}"),
            &format!(r#"{{"name": "{name}"}}"#),
        );
    }
    let names = r#"{"type":"io.nats.jetstream.api.v1.stream_names_response","#;
    assert_eq!(
        api.ask("STREAM.NAMES", r#"{"offset": 1}"#),
        format!(r#"{names}"total":3,"offset":1,"limit":1024,"streams":["S2","S3"]}}"#)
    );
    assert_eq!(
        api.ask("STREAM.NAMES", r#"{"subject": "S2"}"#),
        format!(r#"{names}"total":1,"offset":0,"limit":1024,"streams":["S2"]}}"#)
    );
    assert_eq!(
        api.ask("STREAM.NAMES", r#"{"offset": 9}"#),
        format!(r#"{names}"total":3,"offset":3,"limit":1024,"streams":null}}"#)
    );
    let list = api.ask("STREAM.LIST", "");
    // In lists the metadata is shown as it is stored.
    assert!(
        list.contains(r#""metadata":{"_nats.req.level":"0"}"#),
        "{list}"
    );
    assert!(!list.contains("_nats.ver"), "{list}");
}

#[test]
fn what_an_account_may_hold_is_set_aside_at_creation() {
    let api = Api::new(AccountLimits {
        max_streams: 3,
        max_storage: 1000,
        ..AccountLimits::default()
    });
    for (name, bytes, code) in [
        ("A", 600, 0),
        ("B", 500, 10047),
        ("B", 400, 0),
        ("C", -1, 10047),
    ] {
        let body = format!(r#"{{"name": "{name}", "max_bytes": {bytes}}}"#);
        assert_eq!(
            api.error(&format!("STREAM.CREATE.{name}"), &body),
            code,
            "{body}"
        );
    }
    // Only the increase counts.
    let body = r#"{"name": "B", "max_bytes": 401}"#;
    assert_eq!(api.error("STREAM.UPDATE.B", body), 10047);
    let body = r#"{"name": "B", "max_bytes": 100}"#;
    assert_eq!(api.error("STREAM.UPDATE.B", body), 0);
    let memory = r#"{"name": "M", "storage": "memory"}"#;
    assert_eq!(api.error("STREAM.CREATE.M", memory), 0);
    assert_eq!(
        api.error("STREAM.CREATE.N", r#"{"name": "N", "storage": "memory"}"#),
        10027
    );
}

#[test]
fn a_higher_api_level_than_ours_is_refused() {
    let api = unlimited();
    for subject in ["INFO", "STREAM.NAMES", "STREAM.INFO.S", "CONSUMER.NAMES.S"] {
        let (reply, outcome) = api.ask_with(subject, "", "5");
        assert!(reply.contains(r#""err_code":10185"#), "{reply}");
        assert_eq!(outcome, Outcome::Refused);
        let (reply, _) = api.ask_with(subject, "", "4");
        assert!(!reply.contains("10185"), "{reply}");
    }
}

#[test]
fn a_tightened_consumer_limit_names_who_is_in_the_way() {
    let api = unlimited();
    api.ask("STREAM.CREATE.S", r#"{"name": "S"}"#);
    let consumer = r#"{"stream_name": "S", "config": {"ack_policy": "explicit"}}"#;
    api.ask("CONSUMER.CREATE.S.C", consumer);
    let reply = api.ask(
        "STREAM.UPDATE.S",
        r#"{"name": "S", "consumer_limits": {"max_ack_pending": 5}}"#,
    );
    assert!(reply.contains("10069"), "{reply}");
    assert!(
        reply.contains("change to limits violates consumers: C"),
        "{reply}"
    );
}

#[test]
fn a_stream_that_could_not_be_brought_back_is_named_and_can_be_deleted() {
    let api = unlimited();
    api.ask("STREAM.CREATE.A", r#"{"name": "A"}"#);
    api.account.found(Found::Offline {
        name: "B".to_owned(),
        reason: "damaged".to_owned(),
        consumers: BTreeMap::new(),
    });
    for (subject, body) in [
        ("STREAM.INFO.B", ""),
        ("STREAM.CREATE.B", r#"{"name": "B"}"#),
        ("STREAM.PURGE.B", ""),
        ("CONSUMER.NAMES.B", ""),
    ] {
        let reply = api.ask(subject, body);
        assert!(reply.contains("10194"), "{reply}");
        assert!(reply.contains("stream is offline: damaged"), "{reply}");
    }
    assert!(
        api.ask("STREAM.NAMES", "")
            .contains(r#""streams":["A","B"]"#)
    );
    let list = api.ask("STREAM.LIST", "");
    assert!(list.contains(r#""total":2"#), "{list}");
    assert!(
        list.contains(r#""missing":["B"],"offline":{"B":"damaged"}"#),
        "{list}"
    );
    assert_eq!(api.error("STREAM.DELETE.B", ""), 0);
    assert_eq!(api.error("STREAM.INFO.B", ""), 10059);
}

#[test]
fn consumers_that_a_later_version_has_written_are_named_with_what_they_need() {
    let api = unlimited();
    let reason = "unsupported - required API level: 9, current API level: 4";
    api.account.found(Found::Offline {
        name: "S".to_owned(),
        reason: "stopped - unsupported consumer \"C\"".to_owned(),
        consumers: BTreeMap::from([("C".to_owned(), reason.to_owned())]),
    });
    assert_eq!(api.error("STREAM.INFO.S", ""), 10194);
    let info = api.ask("CONSUMER.INFO.S.C", "");
    assert!(info.contains("10195"), "{info}");
    assert!(
        info.contains(&format!("consumer is offline: {reason}")),
        "{info}"
    );
    assert_eq!(api.error("CONSUMER.INFO.S.other", ""), 10014);
    let names = api.ask("CONSUMER.NAMES.S", "");
    assert!(names.contains(r#""consumers":["C"]"#), "{names}");
    let list = api.ask("CONSUMER.LIST.S", "");
    let named = format!(r#""consumers":[],"missing":["C"],"offline":{{"C":"{reason}"}}"#);
    assert!(list.contains(&named), "{list}");
    let create = r#"{"stream_name":"S","config":{"name":"D"}}"#;
    assert_eq!(api.error("CONSUMER.CREATE.S.D", create), 10194);
    assert_eq!(api.error("STREAM.DELETE.S", ""), 0);
    assert_eq!(api.error("CONSUMER.LIST.S", ""), 10059);
}

/// Bodies that are nearly what a request expects.
fn nearly_json() -> impl Strategy<Value = String> {
    let keys = prop::sample::select(vec![
        "name",
        "subjects",
        "config",
        "stream_name",
        "filter_subject",
        "seq",
        "batch",
        "mirror",
        "sources",
        "max_age",
        "pedantic",
        "group",
        "offset",
        "consumer_limits",
        "metadata",
        "start_time",
        "backoff",
        "priority_groups",
        "durable_name",
        "deliver_subject",
    ]);
    let leaves = prop::sample::select(vec![
        "null",
        "0",
        "-1",
        "9223372036854775807",
        "18446744073709551616",
        "1e400",
        "true",
        "\"\"",
        "\"S\"",
        "\"a.>\"",
        "\"\\u0000\"",
        "[]",
        "{}",
        "[\"a\",\"a.b\"]",
        "\"0001-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:59Z\"",
        "{\"name\":\"S\"}",
        "[{\"name\":\"S\"},{\"name\":\"S\"}]",
    ]);
    let object = prop::collection::vec((keys, leaves), 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    });
    prop_oneof![object, ".{0,64}", Just(String::new())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(128)
    ))]

    #[test]
    fn whatever_is_asked_is_answered_with_json(
        verb in prop::sample::select(vec![
            "INFO", "STREAM.CREATE.S", "STREAM.UPDATE.S", "STREAM.INFO.S", "STREAM.DELETE.S",
            "STREAM.PURGE.S", "STREAM.NAMES", "STREAM.LIST", "STREAM.MSG.GET.S",
            "STREAM.MSG.DELETE.S", "STREAM.SNAPSHOT.S", "STREAM.RESTORE.S", "CONSUMER.CREATE.S",
            "CONSUMER.CREATE.S.C", "CONSUMER.CREATE.S.C.a", "CONSUMER.DURABLE.CREATE.S.C",
            "CONSUMER.INFO.S.C", "CONSUMER.DELETE.S.C", "CONSUMER.NAMES.S", "CONSUMER.LIST.S",
            "CONSUMER.PAUSE.S.C", "CONSUMER.RESET.S.C", "CONSUMER.UNPIN.S.C",
        ]),
        bodies in prop::collection::vec(nearly_json(), 1..4),
    ) {
        let api = unlimited();
        api.ask("STREAM.CREATE.S", r#"{"name": "S"}"#);
        for body in bodies {
            let reply: Value = serde_json::from_str(&api.ask(verb, &body)).expect("JSON");
            prop_assert!(reply["type"].is_string());
        }
    }
}
