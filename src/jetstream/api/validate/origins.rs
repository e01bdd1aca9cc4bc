//! Whether a stream can copy from where it is asked to, as far as that can be seen from here.

use std::collections::{HashMap, HashSet, VecDeque};

use super::stream::invalid;
use super::{Adjust, Rules};
use crate::jetstream::types::{ApiError, ErrorCode, ExternalStream, StreamConfig};
use crate::subject::{is_valid_literal, overlap};

/// Looks up a stream of the same account.
pub type FindStream<'a> = &'a dyn Fn(&str) -> Option<StreamConfig>;

/// Checks a configuration, which was already checked by itself, against the streams that it copies from.
pub fn check_origins(
    config: StreamConfig,
    find: FindStream<'_>,
    rules: &Rules<'_>,
) -> Result<StreamConfig, ApiError> {
    let mut config = config;
    let mut known = HashMap::new();
    let names = config.mirror.iter().chain(&config.sources);
    for source in names.filter(|source| source.external.is_none()) {
        if let Some(origin) = find(&source.name) {
            known.insert(source.name.clone(), origin);
        }
    }
    let is_larger = |origin: &StreamConfig| {
        config.max_msg_size > 0
            && origin.max_msg_size > 0
            && config.max_msg_size < origin.max_msg_size
    };
    let mirrored = config.mirror.as_ref().filter(|it| it.external.is_none());
    if let Some(origin) = mirrored.and_then(|mirror| known.get(&mirror.name)) {
        if is_larger(origin) {
            return Err(ErrorCode::MirrorMaxMessageSizeTooBig.into());
        }
        if rules.adjust == Adjust::Never && config.mirror_direct != origin.allow_direct {
            return Err(ErrorCode::Pedantic
                .with("origin stream has direct get set, mirror has it disabled"));
        }
        config.mirror_direct = origin.allow_direct;
    }
    for source in &config.sources {
        let origin = source.external.is_none().then(|| known.get(&source.name));
        if origin.flatten().is_some_and(is_larger) {
            return Err(ErrorCode::SourceMaxMessageSizeTooBig.into());
        }
    }
    check_prefixes(&config, &known)?;
    check_cycle(&config, find)?;
    Ok(config)
}

fn check_prefixes(
    config: &StreamConfig,
    known: &HashMap<String, StreamConfig>,
) -> Result<(), ApiError> {
    let externals = || {
        let sources = config.mirror.iter().chain(&config.sources);
        sources.filter_map(|source| source.external.as_ref())
    };
    let given = |prefix: fn(&ExternalStream) -> &str| {
        externals().map(prefix).filter(|prefix| !prefix.is_empty())
    };
    for prefix in given(|external| &external.deliver) {
        if !is_valid_literal(prefix) {
            return Err(ErrorCode::StreamInvalidExternalDeliverySubj.with(prefix));
        }
        for subject in known.values().flat_map(|origin| &origin.subjects) {
            if overlap(subject, format!("{prefix}.{subject}")) {
                return Err(ErrorCode::StreamExternalDelPrefixOverlaps
                    .with_all(&[("prefix", &prefix), ("subject", subject)]));
            }
        }
    }
    for prefix in given(|external| &external.api) {
        if !is_valid_literal(prefix) {
            return Err(invalid(&format!(
                "stream external api prefix {prefix:?} must be a valid subject without wildcards"
            )));
        }
        if overlap(prefix, "$JS.API") {
            return Err(ErrorCode::StreamExternalApiOverlap
                .with_all(&[("prefix", &prefix), ("subject", &"$JS.API")]));
        }
    }
    Ok(())
}

/// A stream must not copy from itself, by however many others.
fn check_cycle(config: &StreamConfig, find: FindStream<'_>) -> Result<(), ApiError> {
    let mut visited = HashSet::new();
    let mut next = VecDeque::from([config.clone()]);
    while let Some(stream) = next.pop_front() {
        visited.insert(stream.name.clone());
        let own = |name: &str| match name == config.name {
            true => Some(config.clone()),
            false => find(name),
        };
        for source in stream.sources.iter().filter(|it| it.external.is_none()) {
            let filter = &source.filter_subject;
            let mut subjects = stream.subjects.iter();
            let mut meets = || filter.is_empty() || subjects.any(|it| overlap(it, filter));
            if !visited.contains(&source.name) {
                next.extend(own(&source.name));
            } else if meets() {
                return Err(invalid("detected cycle"));
            }
        }
        if let Some(mirror) = stream.mirror.as_ref().filter(|it| it.external.is_none()) {
            if visited.contains(&mirror.name) {
                return Err(invalid("detected cycle"));
            }
            next.extend(own(&mirror.name));
        }
    }
    Ok(())
}
