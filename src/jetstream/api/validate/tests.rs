use super::*;
use crate::jetstream::types::{
    ApiError, ConsumerConfig, ErrorCode, StreamConfig, Strictness, decode,
};

const SERVER: ServerLimits = ServerLimits {
    max_request_batch: 0,
    max_ack_pending: 0,
    max_ha_assets: 0,
    duplicate_window_ns: 0,
    max_batch_inflight_per_stream: 0,
    max_batch_inflight_total: 0,
    max_batch_size: 0,
    batch_timeout_ns: 0,
};

fn rules<'a>(account: &'a AccountLimits, adjust: Adjust) -> Rules<'a> {
    Rules {
        server: &SERVER,
        account,
        adjust,
    }
}

fn stream(body: &str) -> StreamConfig {
    decode(body.as_bytes(), Strictness::Strict).expect("a valid request")
}

fn consumer(body: &str) -> ConsumerConfig {
    decode(body.as_bytes(), Strictness::Strict).expect("a valid request")
}

fn checked(body: &str) -> Result<StreamConfig, ApiError> {
    check_stream(
        stream(body),
        &rules(&AccountLimits::default(), Adjust::Freely),
    )
}

fn refused(body: &str) -> (u16, String) {
    let error = checked(body).expect_err(body);
    (error.err_code, error.description.into_owned())
}

#[test]
fn the_first_broken_rule_of_a_stream_decides_the_error() {
    for (body, code, text) in [
        (
            r#"{"name":"a.b"}"#,
            10052,
            "stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ),
        (
            r#"{"num_replicas":9,"max_age":1,"name":"S"}"#,
            10052,
            "maximum replicas is 5",
        ),
        (
            r#"{"num_replicas":-1,"name":"S"}"#,
            10133,
            "replicas count cannot be negative",
        ),
        (
            r#"{"name":"S","max_age":-1}"#,
            10052,
            "max age can not be negative",
        ),
        (
            r#"{"name":"S","max_age":1,"duplicate_window":1}"#,
            10052,
            "max age needs to be >= 100ms",
        ),
        (
            r#"{"name":"S","duplicate_window":1}"#,
            10052,
            "duplicates window needs to be >= 100ms",
        ),
        (
            r#"{"name":"S","max_age":10000000000,"duplicate_window":100000000000}"#,
            10052,
            "duplicates window can not be larger then max age",
        ),
        (
            r#"{"name":"S","deny_purge":true,"allow_rollup_hdrs":true,"discard_new_per_subject":true}"#,
            10052,
            "roll-ups require the purge permission",
        ),
        (
            r#"{"name":"S","allow_msg_counter":true,"allow_msg_ttl":true}"#,
            10052,
            "counter stream cannot use message TTLs",
        ),
        (
            r#"{"name":"S","discard_new_per_subject":true}"#,
            10052,
            "discard new per subject requires discard new policy to be set",
        ),
        (
            r#"{"name":"S","discard":"new","discard_new_per_subject":true}"#,
            10052,
            "discard new per subject requires max msgs per subject > 0",
        ),
        (
            r#"{"name":"S","subject_delete_marker_ttl":1}"#,
            10052,
            "subject delete marker TTL must be at least 1 second",
        ),
        (
            r#"{"name":"S","storage":"memory","persist_mode":"async"}"#,
            10052,
            "async persist mode is only supported on file storage",
        ),
        (
            r#"{"name":"S","mirror":{"name":"M"},"first_seq":2}"#,
            10143,
            "stream mirrors can not have first sequence configured",
        ),
        (
            r#"{"name":"S","mirror":{"name":"M"},"subjects":["x"]}"#,
            10034,
            "stream mirrors can not contain subjects",
        ),
        (
            r#"{"name":"S","sources":[{"name":"A"},{"name":"A"}]}"#,
            10140,
            "duplicate source configuration detected",
        ),
        (
            r#"{"name":"S","subjects":["a b"]}"#,
            10052,
            "invalid subject",
        ),
        (
            r#"{"name":"S","subjects":["a","a"]}"#,
            10052,
            "subject \"a\" overlaps with \"a\"",
        ),
        (
            r#"{"name":"S","subjects":["a.>","a.b"]}"#,
            10052,
            "subject \"a.>\" overlaps with \"a.b\"",
        ),
        (
            r#"{"name":"S","subjects":[">"]}"#,
            10052,
            "capturing all subjects requires no-ack to be true",
        ),
        (
            r#"{"name":"S","subjects":["$JS.API.>"]}"#,
            10052,
            "subjects that overlap with jetstream api require no-ack to be true",
        ),
        (
            r#"{"name":"S","subjects":["$SYS.SERVER.>"]}"#,
            10052,
            "subjects that overlap with system api require no-ack to be true",
        ),
    ] {
        assert_eq!(refused(body), (code, text.to_owned()), "{body}");
    }
}

#[test]
fn the_server_may_record_its_own_events() {
    for body in [
        r#"{"name":"S","subjects":["$JS.EVENT.ADVISORY.>","$SYS.ACCOUNT.X.>"]}"#,
        r#"{"name":"S","subjects":[">"],"no_ack":true}"#,
    ] {
        checked(body).expect(body);
    }
}

#[test]
fn a_republish_without_a_destination_publishes_nothing_and_is_valid() {
    let config =
        checked(r#"{"name":"S","subjects":["s.>"],"republish":{"src":"s.a"}}"#).expect("valid");
    let republish = config.republish.expect("is kept");
    assert_eq!(
        (republish.src.as_str(), republish.dest.as_str()),
        ("s.a", "")
    );
}

#[test]
fn what_is_left_open_gets_the_defaults() {
    let config = checked(r#"{"name":"S","max_msgs":-7,"max_age":60000000000}"#).expect("valid");
    assert_eq!(config.subjects, ["S"]);
    assert_eq!(
        (
            config.max_msgs,
            config.max_bytes,
            config.max_msg_size,
            config.max_consumers
        ),
        (-1, -1, -1, -1)
    );
    assert_eq!(config.duplicate_window, 60_000_000_000);
    assert_eq!(config.num_replicas, 1);
}

#[test]
fn a_pedantic_request_is_refused_instead_of_adjusted() {
    let account = AccountLimits::default();
    for (body, text) in [
        (
            r#"{"name":"S","max_msgs":-7}"#,
            "pedantic mode: max_msgs must be set to -1",
        ),
        (
            r#"{"name":"S","max_age":60000000000}"#,
            "pedantic mode: duplicate window cannot be bigger than max age",
        ),
    ] {
        let error = check_stream(stream(body), &rules(&account, Adjust::Never)).expect_err(body);
        assert_eq!((error.err_code, error.description.as_ref()), (10157, text));
    }
    check_stream(stream(r#"{"name":"S"}"#), &rules(&account, Adjust::Never))
        .expect("nothing to adjust");
}

#[test]
fn an_account_may_demand_and_cap_the_bytes_of_a_stream() {
    let account = AccountLimits {
        max_bytes_required: true,
        storage_max_stream_bytes: 100,
        ..AccountLimits::default()
    };
    let rules = rules(&account, Adjust::Freely);
    for (body, code) in [
        (r#"{"name":"S"}"#, ErrorCode::StreamMaxBytesRequired),
        (
            r#"{"name":"S","max_bytes":101}"#,
            ErrorCode::StreamMaxStreamBytesExceeded,
        ),
    ] {
        assert!(check_stream(stream(body), &rules).expect_err(body).is(code));
    }
    check_stream(stream(r#"{"name":"S","max_bytes":100}"#), &rules).expect("fits");
}

#[test]
fn a_stream_changes_only_in_what_may_change() {
    let old = checked(r#"{"name":"S","deny_delete":true,"allow_msg_ttl":true}"#).expect("valid");
    for (body, text) in [
        (
            r#"{"name":"T"}"#,
            "stream configuration name must match original",
        ),
        (
            r#"{"name":"S","storage":"memory"}"#,
            "stream configuration update can not change storage type",
        ),
        (
            r#"{"name":"S","retention":"workqueue"}"#,
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            r#"{"name":"S"}"#,
            "stream configuration update can not cancel deny message deletes",
        ),
        (
            r#"{"name":"S","deny_delete":true}"#,
            "message TTL status can not be disabled",
        ),
    ] {
        let new = checked(body).expect("valid by itself");
        assert_eq!(check_update(&old, new).expect_err(body).description, text);
    }
    let new = checked(r#"{"name":"S","deny_delete":true,"allow_msg_ttl":true,"subjects":["b"],"retention":"interest"}"#)
        .expect("valid by itself");
    check_update(&old, new).expect("all of this may change");
}

#[test]
fn sealing_closes_everything() {
    let old =
        checked(r#"{"name":"S","max_age":60000000000,"allow_rollup_hdrs":true}"#).expect("valid");
    let new =
        checked(r#"{"name":"S","sealed":true,"max_age":60000000000,"allow_rollup_hdrs":true}"#)
            .expect("valid");
    let sealed = check_update(&old, new).expect("may be sealed");
    assert_eq!(sealed.max_age, 0);
    assert!(sealed.deny_delete && sealed.deny_purge && !sealed.allow_rollup_hdrs);
    assert_eq!(sealed.discard, crate::jetstream::types::Discard::New);
    let open = checked(r#"{"name":"S","deny_delete":true,"deny_purge":true}"#).expect("valid");
    assert_eq!(
        check_update(&sealed, open)
            .expect_err("one way")
            .description,
        "stream configuration update can not unseal a sealed stream"
    );
}

fn consumer_refused(stream_body: &str, body: &str) -> (u16, String) {
    let account = AccountLimits::default();
    let rules = rules(&account, Adjust::Freely);
    let parent = checked(stream_body).expect(stream_body);
    let error = check_consumer(consumer(body), &parent, &rules).expect_err(body);
    (error.err_code, error.description.into_owned())
}

#[test]
fn the_first_broken_rule_of_a_consumer_decides_the_error() {
    let parent = r#"{"name":"S1","subjects":["s1.>"],"consumer_limits":{"max_ack_pending":5000,"inactive_threshold":60000000000}}"#;
    for (body, code, text) in [
        (
            r#"{"name":"a.b"}"#,
            10052,
            "consumer name can not contain '.', '*', '>', '\\', '/'",
        ),
        (
            r#"{"num_replicas":3}"#,
            10126,
            "consumer config replica count exceeds parent stream",
        ),
        (
            r#"{"backoff":[-1],"ack_wait":-1}"#,
            10184,
            "consumer backoff needs to be positive",
        ),
        (
            r#"{"ack_wait":-1}"#,
            10183,
            "consumer ack wait needs to be positive",
        ),
        (
            r#"{"ack_policy":"flow_control"}"#,
            10218,
            "flow control ack policy requires a push based consumer",
        ),
        (
            r#"{"backoff":[1000000000,2000000000],"max_deliver":1,"ack_policy":"explicit"}"#,
            10116,
            "max deliver is required to be > length of backoff values",
        ),
        (
            r#"{"deliver_subject":"s1.>"}"#,
            10079,
            "consumer deliver subject has wildcards",
        ),
        (
            r#"{"deliver_subject":"s1.x"}"#,
            10081,
            "consumer deliver subject forms a cycle",
        ),
        (
            r#"{"deliver_subject":"x","max_waiting":1}"#,
            10080,
            "consumer in push mode can not set max waiting",
        ),
        (
            r#"{"deliver_subject":"x","ack_policy":"none","max_ack_pending":5}"#,
            10082,
            "consumer requires ack policy for max ack pending",
        ),
        (
            r#"{"deliver_subject":"x","ack_policy":"explicit","idle_heartbeat":1}"#,
            10083,
            "consumer idle heartbeat needs to be >= 100ms",
        ),
        (
            r#"{"rate_limit_bps":1}"#,
            10086,
            "consumer in pull mode can not have rate limit set",
        ),
        (
            r#"{"idle_heartbeat":1000000000}"#,
            10088,
            "consumer idle heartbeat requires a push based consumer",
        ),
        (
            r#"{"flow_control":true}"#,
            10089,
            "consumer flow control requires a push based consumer",
        ),
        (
            r#"{"max_expires":1}"#,
            10115,
            "consumer max request expires needs to be >= 1ms",
        ),
        (
            r#"{"max_ack_pending":5001}"#,
            10121,
            "consumer max ack pending exceeds system limit of 5000",
        ),
        (
            r#"{"inactive_threshold":61000000000}"#,
            10153,
            "consumer inactive threshold exceeds system limit of 1m0s",
        ),
        (
            r#"{"direct":true}"#,
            10090,
            "consumer direct requires a push based consumer",
        ),
        (
            r#"{"filter_subject":"s1.a","filter_subjects":["s1.b"]}"#,
            10136,
            "consumer cannot have both FilterSubject and FilterSubjects specified",
        ),
        (
            r#"{"filter_subjects":["s1.a",""]}"#,
            10139,
            "consumer filter in FilterSubjects cannot be empty",
        ),
        (
            r#"{"filter_subjects":["s1.a","s1.>"]}"#,
            10138,
            "consumer subject filters cannot overlap",
        ),
        (r#"{"filter_subject":"s1..a"}"#, 10052, "invalid subject"),
        (
            r#"{"deliver_policy":"by_start_sequence"}"#,
            10094,
            "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
        ),
        (
            r#"{"opt_start_seq":1}"#,
            10094,
            "consumer delivery policy is deliver all, but optional start sequence is also set",
        ),
        (
            r#"{"deliver_policy":"last_per_subject"}"#,
            10094,
            "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
        ),
        (
            r#"{"durable_name":"A","name":"B"}"#,
            10132,
            "Consumer Durable and Name have to be equal if both are provided",
        ),
        (
            r#"{"priority_groups":["g"]}"#,
            10196,
            "consumer can not have priority groups when policy is none",
        ),
        (
            r#"{"priority_policy":"overflow"}"#,
            10159,
            "Setting PriorityPolicy requires at least one PriorityGroup to be set",
        ),
        (
            r#"{"priority_policy":"overflow","priority_groups":["a b"]}"#,
            10162,
            "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
        ),
    ] {
        assert_eq!(
            consumer_refused(parent, body),
            (code, text.to_owned()),
            "{body}"
        );
    }
    // Here the limits of the stream must not stand in the way.
    let free = r#"{"name":"S1","subjects":["s1.>"]}"#;
    assert_eq!(
        consumer_refused(free, r#"{"flow_control":true,"deliver_subject":"x"}"#).0,
        10108
    );
    let queue = r#"{"name":"W","retention":"workqueue"}"#;
    assert_eq!(consumer_refused(queue, r#"{"ack_policy":"none"}"#).0, 10084);
}

#[test]
fn a_consumer_that_says_nothing_pulls_with_the_defaults() {
    let account = AccountLimits::default();
    let parent = checked(r#"{"name":"S"}"#).expect("valid");
    let config = check_consumer(
        consumer(r#"{"ack_policy":"explicit","max_deliver":-9,"max_batch":-1}"#),
        &parent,
        &rules(&account, Adjust::Freely),
    )
    .expect("valid");
    assert_eq!(
        (
            config.ack_wait,
            config.max_deliver,
            config.max_waiting,
            config.max_ack_pending
        ),
        (30_000_000_000, -1, 512, 1000)
    );
    assert_eq!(config.max_batch, 0);
}

#[test]
fn a_stream_lends_its_consumers_what_they_do_not_say() {
    let account = AccountLimits::default();
    let parent = checked(
        r#"{"name":"S","consumer_limits":{"inactive_threshold":60000000000,"max_ack_pending":5}}"#,
    )
    .expect("valid");
    let lent = |body: &str| {
        let config = check_consumer(consumer(body), &parent, &rules(&account, Adjust::Freely));
        let config = config.expect("valid");
        (config.inactive_threshold, config.max_ack_pending)
    };
    assert_eq!(
        lent(r#"{"ack_policy":"explicit"}"#),
        (60_000_000_000, 5),
        "what is not said"
    );
    let own = r#"{"ack_policy":"explicit","inactive_threshold":1000000000,"max_ack_pending":2}"#;
    assert_eq!(lent(own), (1_000_000_000, 2), "what is said");
    assert_eq!(
        consumer_refused(
            r#"{"name":"S","consumer_limits":{"max_ack_pending":5}}"#,
            r#"{"ack_policy":"explicit","max_ack_pending":6}"#
        )
        .0,
        10121
    );
}

#[test]
fn the_first_pause_of_a_backoff_is_how_long_an_ack_may_take() {
    let account = AccountLimits::default();
    let parent = checked(r#"{"name":"S"}"#).expect("valid");
    let said = |ack_wait: &str, adjust| {
        let body = format!(
            r#"{{"ack_policy":"explicit","max_deliver":3,"backoff":[2000000000,5000000000]{ack_wait}}}"#
        );
        check_consumer(consumer(&body), &parent, &rules(&account, adjust))
            .map(|config| config.ack_wait)
    };
    for ack_wait in ["", r#","ack_wait":2000000000"#, r#","ack_wait":9000000000"#] {
        assert_eq!(
            said(ack_wait, Adjust::Freely),
            Ok(2_000_000_000),
            "{ack_wait}"
        );
    }
    assert_eq!(
        said(r#","ack_wait":2000000000"#, Adjust::Never),
        Ok(2_000_000_000)
    );
    assert!(said(r#","ack_wait":9000000000"#, Adjust::Never).is_err());
}

#[test]
fn a_consumer_changes_only_in_what_may_change() {
    let old = consumer(r#"{"ack_policy":"explicit","max_waiting":512,"max_deliver":-1}"#);
    for (body, text) in [
        (r#"{"ack_policy":"none"}"#, "ack policy can not be updated"),
        (
            r#"{"ack_policy":"explicit","deliver_policy":"new"}"#,
            "deliver policy can not be updated",
        ),
        (
            r#"{"ack_policy":"explicit","deliver_subject":"x"}"#,
            "can not update pull consumer to push based",
        ),
        (
            r#"{"ack_policy":"explicit","max_waiting":1}"#,
            "max waiting can not be updated",
        ),
    ] {
        let error = check_consumer_update(&old, &consumer(body)).expect_err(body);
        assert_eq!((error.err_code, error.description.as_ref()), (10012, text));
    }
    let new = consumer(
        r#"{"ack_policy":"explicit","max_waiting":512,"max_deliver":5,"filter_subject":"b","ack_wait":7}"#,
    );
    check_consumer_update(&old, &new).expect("all of this may change");
}

#[test]
fn placement_may_not_name_a_server() {
    assert_eq!(
        refused(r#"{"name":"S","placement":{"preferred":"one"}}"#),
        (
            10052,
            "preferred server not permitted in placement".to_owned()
        )
    );
    let config = checked(r#"{"name":"S","placement":{}}"#).expect("says nothing");
    assert!(config.placement.is_none());
}

#[test]
fn texts_of_consumers_are_bounded() {
    let long = "x".repeat(4097);
    let parent = r#"{"name":"S"}"#;
    assert_eq!(
        consumer_refused(parent, &format!(r#"{{"description":"{long}"}}"#)),
        (
            10107,
            "consumer description is too long, maximum allowed is 4096".to_owned()
        )
    );
    let big = "x".repeat(128 * 1024);
    assert_eq!(
        consumer_refused(parent, &format!(r#"{{"metadata":{{"k":"{big}"}}}}"#)),
        (
            10135,
            "consumer metadata exceeds maximum size of 128KB".to_owned()
        )
    );
    let name = "x".repeat(256);
    assert_eq!(
        consumer_refused(parent, &format!(r#"{{"name":"{name}"}}"#)).0,
        10102
    );
}
