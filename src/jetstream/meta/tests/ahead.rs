//! What the leader foresees.

use super::request::Decision;
use super::*;
use crate::jetstream::types::{ApiError, ErrorCode};

/// Creates a stream unless a different one has its name.
fn create_once(meta: &Meta, config: &StreamConfig) -> Result<Decision, ApiError> {
    match meta.stream("A", &config.name) {
        Some(stream) if stream.config() == config => Ok(Decision::Already(StreamRef {
            account: "A".to_owned(),
            stream: config.name.clone(),
            group: stream.group.number,
        })),
        Some(_) => Err(ErrorCode::StreamNameExist.into()),
        None => Ok(Decision::Propose(create(config, &["n1"]))),
    }
}

fn command(decision: &Decision) -> &Command {
    match decision {
        Decision::Propose(command) => command,
        Decision::Already(of) => panic!("{of:?} is there"),
    }
}

#[test]
fn two_requests_for_one_name_are_told_apart_before_either_is_applied() {
    let mut meta = cluster(3);
    let mut ahead = Ahead::of(&meta);
    let (first, ticket) = ahead
        .decide(|meta| create_once(meta, &config("S", 1)))
        .expect("created");
    let other = StreamConfig {
        description: "other".to_owned(),
        ..config("S", 1)
    };
    let refused = ahead.decide(|meta| create_once(meta, &other));
    assert_eq!(refused.expect_err("taken").err_code, 10058);
    let (same, nothing) = ahead
        .decide(|meta| create_once(meta, &config("S", 1)))
        .expect("there");
    assert!(matches!(same, Decision::Already(_)) && nothing.is_none());
    assert_eq!(ahead.in_flight(), 1);
    run(&mut meta, command(&first));
    ahead.ended(ticket.expect("proposed"), true, &meta);
    assert_eq!(ahead.in_flight(), 0);
    assert_eq!(ahead.foreseen(), &meta);
}

#[test]
fn what_is_foreseen_is_what_happens() {
    let mut meta = cluster(3);
    let mut ahead = Ahead::of(&meta);
    let mut proposed = Vec::new();
    for name in ["S", "T", "U"] {
        let config = config(name, 1);
        let (decision, ticket) = ahead
            .decide(|meta| create_once(meta, &config))
            .expect("created");
        proposed.push((command(&decision).clone(), ticket.expect("proposed")));
    }
    let update = {
        let stream = ahead.foreseen().stream("A", "S").expect("it will be there");
        Command::MembersReplace {
            of: StreamRef {
                account: "A".to_owned(),
                stream: "S".to_owned(),
                group: stream.group.number,
            },
            revision: stream.revision,
            members: elsewhere(ChangeKind::Move, &["n2"]),
        }
    };
    let ticket = ahead.foresee(&update);
    proposed.push((update, ticket));
    let foreseen = ahead.foreseen().clone();
    for (command, ticket) in proposed {
        run(&mut meta, &command);
        ahead.ended(ticket, true, &meta);
    }
    assert_eq!(meta, foreseen);
    assert_eq!(ahead.foreseen(), &meta);
}

#[test]
fn what_was_not_committed_is_not_foreseen_any_more_and_the_rest_is() {
    let mut meta = cluster(3);
    let mut ahead = Ahead::of(&meta);
    let mut decide = |name: &str| {
        let config = config(name, 1);
        let decided = ahead.decide(|meta| create_once(meta, &config));
        let (decision, ticket) = decided.expect("created");
        (command(&decision).clone(), ticket.expect("proposed"))
    };
    let (applied, first) = decide("S");
    let (_, lost) = decide("T");
    let (_, _open) = decide("U");
    run(&mut meta, &applied);
    ahead.ended(first, true, &meta);
    ahead.ended(lost, false, &meta);
    let there = |name| ahead.foreseen().stream("A", name).is_some();
    assert!(there("S") && !there("T") && there("U"));
    assert_eq!(ahead.in_flight(), 1);
}
