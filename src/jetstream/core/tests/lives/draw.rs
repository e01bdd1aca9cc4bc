//! Configurations at random: every option of streams and consumers, as long as the API would take them together.

use super::super::simulation::Dice;
use super::super::{SECOND, durable, stream};
use crate::jetstream::api::validate::{Adjust, Rules, check_consumer, check_stream, check_update};
use crate::jetstream::limits::{AccountLimits, ServerLimits};
use crate::jetstream::types::{
    AckPolicy, ConsumerConfig, DeliverPolicy, Discard, PriorityPolicy, ReplayPolicy, Retention,
    Storage, StoreCompression, StreamConfig, StreamSource, Time,
};

/// Subjects that are published to.
pub(super) const SUBJECTS: [&str; 4] = ["s.a", "s.b", "s.c.1", "s.c.2"];
/// The priority group of consumers that have one.
pub(super) const GROUP: &str = "g";
/// The stream that is copied from.
pub(super) const ORIGIN: &str = "O";

fn one<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.below(of.len() as u64) as usize]
}

fn with_rules<T>(check: impl FnOnce(&Rules<'_>) -> T) -> T {
    let (server, account) = (ServerLimits::default(), AccountLimits::default());
    check(&Rules {
        server: &server,
        account: &account,
        adjust: Adjust::Freely,
    })
}

/// A stream that the API would take.
pub(super) fn a_stream(dice: &mut Dice) -> StreamConfig {
    loop {
        let config = any_stream(dice);
        if let Ok(config) = with_rules(|rules| check_stream(config, rules)) {
            return config;
        }
    }
}

/// What a stream becomes that is to be changed so, if the API lets it.
pub(super) fn updated(old: &StreamConfig, new: StreamConfig) -> Option<StreamConfig> {
    let new = with_rules(|rules| check_stream(new, rules)).ok()?;
    check_update(old, new).ok()
}

fn any_stream(dice: &mut Dice) -> StreamConfig {
    let retention = one(
        dice,
        &[
            Retention::Limits,
            Retention::Limits,
            Retention::Workqueue,
            Retention::Interest,
        ],
    );
    let mut rarely = |share: u64| dice.below(share) == 0;
    let allow_msg_counter = rarely(10);
    let plain = !allow_msg_counter;
    let mut config = StreamConfig {
        retention,
        allow_msg_counter,
        allow_atomic: rarely(2),
        allow_batched: rarely(2),
        allow_rollup_hdrs: rarely(2),
        allow_msg_ttl: plain && rarely(2),
        allow_msg_schedules: plain && rarely(3),
        allow_direct: rarely(2),
        deny_delete: rarely(8),
        deny_purge: rarely(8),
        discard_new_per_subject: rarely(3),
        ..stream("S", &["s.>"])
    };
    if config.allow_msg_ttl && rarely(3) {
        config.subject_delete_marker_ttl = 3 * SECOND;
        config.allow_rollup_hdrs = true;
        config.deny_purge = false;
    }
    if plain && rarely(6) {
        config.sources = vec![StreamSource {
            name: ORIGIN.to_owned(),
            ..StreamSource::default()
        }];
    }
    config.discard = one(dice, &[Discard::Old, Discard::Old, Discard::New]);
    config.discard_new_per_subject &= config.discard == Discard::New;
    config.max_msgs = one(dice, &[-1, -1, 5, 30]);
    config.max_bytes = one(dice, &[-1, -1, 1500, 6000]);
    config.max_msgs_per_subject = one(dice, &[-1, -1, 1, 3]);
    config.max_age = one(dice, &[0, 0, 20 * SECOND, 90 * SECOND]);
    config.max_msg_size = one(dice, &[-1, -1, 300]);
    config.duplicate_window = one(dice, &[0, 2 * SECOND, 20 * SECOND]);
    config.first_seq = one(dice, &[0, 0, 0, 100]);
    config.compression = one(dice, &[StoreCompression::None, StoreCompression::S2]);
    config.storage = match dice.below(6) {
        0 => Storage::Memory,
        _ => Storage::File,
    };
    config
}

/// A consumer of that name that the API would take. In a work queue the filter keeps it apart from the others.
pub(super) fn a_consumer(
    dice: &mut Dice,
    stream: &StreamConfig,
    name: &str,
    filter: &str,
    now_ns: i64,
) -> ConsumerConfig {
    loop {
        let config = any_consumer(dice, stream, name, filter, now_ns);
        if let Ok(config) = with_rules(|rules| check_consumer(config, stream, rules)) {
            return config;
        }
    }
}

fn any_consumer(
    dice: &mut Dice,
    stream: &StreamConfig,
    name: &str,
    filter: &str,
    now_ns: i64,
) -> ConsumerConfig {
    let is_push = dice.below(3) == 0;
    let is_queue = stream.retention == Retention::Workqueue;
    let policies = [
        AckPolicy::Explicit,
        AckPolicy::Explicit,
        AckPolicy::Explicit,
        AckPolicy::All,
        AckPolicy::None,
        AckPolicy::FlowControl,
    ];
    let ack_policy = one(dice, &policies);
    let backoff = match dice.below(4) {
        0 => vec![SECOND, 3 * SECOND],
        _ => Vec::new(),
    };
    let deliver = [
        DeliverPolicy::All,
        DeliverPolicy::All,
        DeliverPolicy::Last,
        DeliverPolicy::New,
        DeliverPolicy::LastPerSubject,
        DeliverPolicy::ByStartSequence,
        DeliverPolicy::ByStartTime,
    ];
    let deliver_policy = match is_queue {
        true => DeliverPolicy::All,
        false => one(dice, &deliver),
    };
    let priorities = [
        PriorityPolicy::None,
        PriorityPolicy::None,
        PriorityPolicy::Overflow,
        PriorityPolicy::PinnedClient,
        PriorityPolicy::Prioritized,
    ];
    let priority_policy = match is_push {
        true => PriorityPolicy::None,
        false => one(dice, &priorities),
    };
    let mut config = ConsumerConfig {
        ack_policy,
        deliver_policy,
        priority_policy,
        filter_subject: filter.to_owned(),
        ack_wait: one(dice, &[5 * SECOND, 30 * SECOND]),
        max_deliver: one(dice, &[-1, -1, 1, 3]),
        max_ack_pending: one(dice, &[1, 5, 1000]),
        max_waiting: one(dice, &[0, 3, 512]),
        max_batch: one(dice, &[0, 0, 5]),
        headers_only: dice.below(5) == 0,
        replay_policy: one(
            dice,
            &[
                ReplayPolicy::Instant,
                ReplayPolicy::Instant,
                ReplayPolicy::Instant,
                ReplayPolicy::Original,
            ],
        ),
        sample_freq: one(dice, &["", "", "50%"]).to_owned(),
        backoff,
        ..durable(name)
    };
    match deliver_policy {
        DeliverPolicy::ByStartSequence => config.opt_start_seq = 1 + dice.below(20),
        DeliverPolicy::ByStartTime => {
            let ago = dice.below(30) as i64 * SECOND;
            config.opt_start_time = Some(Time::from_nanoseconds(now_ns - ago));
        }
        DeliverPolicy::LastPerSubject if filter.is_empty() => {
            config.filter_subject = "s.>".to_owned();
        }
        _ => {}
    }
    if priority_policy != PriorityPolicy::None {
        config.priority_groups = vec![GROUP.to_owned()];
        if priority_policy == PriorityPolicy::PinnedClient {
            config.priority_timeout = 4 * SECOND;
        }
    }
    if is_push {
        config.deliver_subject = format!("push.{name}");
        config.max_waiting = 0;
        config.max_batch = 0;
        if dice.below(3) == 0 {
            config.flow_control = true;
            config.idle_heartbeat = SECOND;
        }
        if ack_policy == AckPolicy::FlowControl {
            config.ack_wait = 0;
            config.backoff = Vec::new();
            config.max_deliver = -1;
        }
    }
    if matches!(ack_policy, AckPolicy::None) {
        config.ack_wait = 0;
        config.backoff = Vec::new();
        config.max_ack_pending = 0;
    }
    config
}
