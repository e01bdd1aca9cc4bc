use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::codec::log_id;
use crate::group::{Checkpoint, GroupNumber, Members};
use crate::types::{Command, Entry, LeaderId, Payload, Vote};

const ENVELOPE: Envelope = Envelope {
    group: GroupNumber(7),
    from: 0x1_0001,
    to: 0x2_0001,
    request: 9,
};

fn vote(committed: bool) -> Vote {
    Vote {
        leader_id: LeaderId {
            term: 3,
            voted_for: 0x1_0001,
        },
        committed,
    }
}

fn entries() -> Vec<Entry> {
    let members = Members::of_voters([(1, "s1".to_owned()), (2, "s2".to_owned())]);
    let payloads = [
        Payload::Blank,
        Payload::Normal(Command(Bytes::from_static(b"append this"))),
        Payload::Membership(members.to_membership().unwrap()),
    ];
    let entry = |(at, payload)| Entry {
        log_id: log_id(3, 11 + at as u64),
        payload,
    };
    payloads.into_iter().enumerate().map(entry).collect()
}

fn bodies() -> Vec<Body> {
    let call = |transfer| VoteCall {
        vote: vote(false),
        last: Some(log_id(2, 10)),
        transfer,
    };
    let answer = |granted| VoteAnswer {
        vote: vote(false),
        granted,
        last: None,
    };
    let append = |entries| Append {
        vote: vote(true),
        previous: Some(log_id(2, 10)),
        committed: None,
        entries,
    };
    let members = Members::of_voters([(1, "s1".to_owned())]);
    vec![
        Body::Vote(call(true)),
        Body::PreVote(call(false)),
        Body::Append(append(entries())),
        Body::Append(append(Vec::new())),
        Body::Transfer {
            leader: vote(true),
            to: 4,
            last: None,
        },
        Body::Manifest(ManifestOffer {
            vote: vote(true),
            checkpoint: Checkpoint::founding(5, members),
            content: Bytes::from_static(b"blocks"),
        }),
        Body::Quiet { term: 3, index: 12 },
        Body::Gone,
        Body::VoteAnswer(answer(true)),
        Body::PreVoteAnswer(answer(false)),
        Body::AppendAnswer(AppendAnswer::All),
        Body::AppendAnswer(AppendAnswer::UpTo(Some(log_id(3, 4)))),
        Body::AppendAnswer(AppendAnswer::Conflict),
        Body::AppendAnswer(AppendAnswer::HigherVote(vote(true))),
        Body::TransferAnswer { taken: true },
        Body::TransferAnswer { taken: false },
        Body::ManifestAnswer(vote(true)),
        Body::Refused(RefusedReason::NoSuchGroup),
        Body::Refused(RefusedReason::OtherNode),
        Body::Refused(RefusedReason::Failed),
    ]
}

fn frame_of(bodies: &[Body]) -> Bytes {
    let mut frame = BytesMut::new();
    begin_frame(&mut frame);
    put_liveness(&mut frame, 42);
    for body in bodies {
        put_message(&mut frame, &ENVELOPE, body);
    }
    frame.freeze()
}

#[test]
fn every_message_comes_back_as_it_was() {
    let bodies = bodies();
    let mut received = Messages::of(frame_of(&bodies));
    let first = received.next();
    assert!(matches!(first, Some(Ok(Received::Liveness { run: 42 }))));
    for body in &bodies {
        let Some(Ok(Received::OfGroup(envelope, found))) = received.next() else {
            panic!("{body:?} is missing");
        };
        assert_eq!(envelope, ENVELOPE);
        assert_eq!(format!("{found:?}"), format!("{body:?}"));
    }
    assert!(received.next().is_none());
}

#[test]
fn the_documented_bytes_are_the_bytes_written() {
    let mut frame = BytesMut::new();
    begin_frame(&mut frame);
    put_message(&mut frame, &ENVELOPE, &Body::Quiet { term: 3, index: 12 });
    let mut expected = vec![1, 49, 0, 0, 0, 7];
    expected.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([1, 0, 1, 0, 0, 0, 0, 0]);
    expected.extend([1, 0, 2, 0, 0, 0, 0, 0]);
    expected.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([12, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame, expected);
}

#[test]
fn a_message_that_cannot_be_read_costs_no_other() {
    let mut frame = BytesMut::from(&frame_of(&[])[..]);
    frame.extend_from_slice(&[1, 0, 0, 0, 99]);
    put_message(&mut frame, &ENVELOPE, &Body::TransferAnswer { taken: true });
    let received: Vec<_> = Messages::of(frame.freeze()).collect();
    assert!(matches!(
        &received[..],
        [Ok(_), Err(_), Ok(Received::OfGroup(..))]
    ));
}

#[test]
fn a_later_version_is_refused_by_name() {
    let mut received = Messages::of(Bytes::from_static(&[2, 1, 0, 0, 0, 1]));
    let error = received.next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of groups has version 2, this release reads up to 1"
    );
    assert!(received.next().is_none());
}

#[test]
fn a_small_command_does_not_keep_the_frame_it_came_in() {
    let entry = |bytes: usize| Entry {
        log_id: log_id(3, 1),
        payload: Payload::Normal(Command(Bytes::from(vec![1; bytes]))),
    };
    for (bytes, shared) in [(10, false), (10_000, true)] {
        let mut append = Append {
            vote: vote(true),
            previous: None,
            committed: None,
            entries: vec![entry(bytes)],
        };
        append.entries.push(entry(1000));
        let frame = frame_of(&[Body::Append(append)]);
        let range = frame.as_ptr_range();
        let last = Messages::of(frame).last();
        let Some(Ok(Received::OfGroup(_, Body::Append(append)))) = last else {
            panic!("an append comes back");
        };
        let Payload::Normal(command) = &append.entries[0].payload else {
            panic!("a command comes back");
        };
        assert_eq!(range.contains(&command.0.as_ptr()), shared);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in proptest::sample::select(vec![1u8, 2, 3, 4, 5, 6, 7, 8, 130, 131, 132, 133, 134, 255]),
    ) {
        let _ = Messages::of(Bytes::from(bytes.clone())).count();
        let mut frame = vec![1];
        frame.extend((bytes.len() as u32 + 1).to_le_bytes());
        frame.push(kind);
        frame.extend(bytes);
        let _ = Messages::of(Bytes::from(frame)).count();
    }

    #[test]
    fn a_changed_frame_never_panics(at in 0usize..900, value: u8) {
        let mut frame = frame_of(&bodies()).to_vec();
        if let Some(byte) = frame.get_mut(at) { *byte = value; }
        let _ = Messages::of(Bytes::from(frame)).count();
    }
}
