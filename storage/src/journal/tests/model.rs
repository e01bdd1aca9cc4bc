//! Any sequence of appends, truncates, marks, releases and restarts leaves what a plain map would hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Entries {
        owner: u64,
        count: u64,
    },
    Truncate {
        owner: u64,
        back: u64,
    },
    Mark {
        owner: u64,
        kind: FrameKind,
        length: usize,
    },
    Release {
        owner: u64,
        behind: u64,
    },
    Forget {
        owner: u64,
    },
    Restart {
        kill: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = 1..4u64;
    let kinds = prop_oneof![
        Just(FrameKind::Vote),
        Just(FrameKind::Committed),
        Just(FrameKind::Purged),
        Just(FrameKind::Carry)
    ];
    let step = prop_oneof![
        8 => (owner.clone(), 1..30u64).prop_map(|(owner, count)| Step::Entries { owner, count }),
        2 => (owner.clone(), 0..20u64).prop_map(|(owner, back)| Step::Truncate { owner, back }),
        3 => (owner.clone(), kinds, 0..9000usize)
            .prop_map(|(owner, kind, length)| Step::Mark { owner, kind, length }),
        3 => (owner.clone(), 0..10u64).prop_map(|(owner, behind)| Step::Release { owner, behind }),
        1 => owner.prop_map(|owner| Step::Forget { owner }),
        1 => any::<bool>().prop_map(|kill| Step::Restart { kill }),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Default)]
struct Model {
    /// First that is not released, and next.
    logs: BTreeMap<u64, (u64, u64)>,
    marks: BTreeMap<(u64, FrameKind), Bytes>,
}

impl Model {
    fn check(&self, replay: &Replay) {
        assert!(replay.damage.is_empty(), "{:?}", replay.damage);
        for (&owner, &(first, next)) in &self.logs {
            let kept = indexes(replay, owner);
            // What was released may still be there; what was not released must.
            let needed: Vec<u64> = (first..next).collect();
            assert!(
                kept.ends_with(&needed),
                "{kept:?} does not end with {needed:?}"
            );
            let gapless = kept.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(gapless, "{kept:?}");
        }
        for (&(owner, kind), payload) in &self.marks {
            let owner = &replay.owners[&Owner(owner)];
            let mark = match kind {
                FrameKind::Vote => &owner.vote,
                FrameKind::Committed => &owner.committed,
                FrameKind::Purged => &owner.purged,
                _ => &owner.carry,
            };
            assert_eq!(&mark.as_ref().unwrap().payload, payload);
        }
    }
}

fn run(steps: &[Step], options: &JournalOptions) {
    let disk = SimDisk::new(1);
    let mut model = Model::default();
    let (mut core, _) = open(&disk, options.clone());
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Entries { owner, count } => {
                let (_, next) = model.logs.entry(owner).or_insert((1, 1));
                let (_, sink) = Recorder::new();
                for _ in 0..count {
                    let payload = content(owner, *next);
                    core.stage(&frame(owner, *next, FrameKind::Entry, payload), 0, &sink)
                        .unwrap();
                    *next += 1;
                }
                core.commit().unwrap();
            }
            Step::Truncate { owner, back } => {
                let (first, next) = model.logs.entry(owner).or_insert((1, 1));
                *next = next.saturating_sub(back).max(*first);
                append(&mut core, frame(owner, *next, FrameKind::Truncate, "")).unwrap();
            }
            Step::Mark {
                owner,
                kind,
                length,
            } => {
                let payload = Bytes::from(vec![number as u8; length]);
                model.marks.insert((owner, kind), payload.clone());
                append(&mut core, frame(owner, 7, kind, payload)).unwrap();
            }
            Step::Release { owner, behind } => {
                let (first, next) = model.logs.entry(owner).or_insert((1, 1));
                *first = next.saturating_sub(behind).max(*first);
                core.release(Owner(owner), *first - 1);
            }
            Step::Forget { owner } => {
                if let Some((first, next)) = model.logs.get_mut(&owner) {
                    *first = *next;
                }
                model.marks.retain(|(of, _), _| *of != owner);
                core.forget(Owner(owner));
            }
            Step::Restart { kill } => {
                match kill {
                    true => drop(core),
                    false => core.close().unwrap(),
                }
                disk.crash();
                let (reopened, replay) = open(&disk, options.clone());
                core = reopened;
                assert!(replay.torn.is_none());
                assert_eq!(replay.clean, !kill);
                model.check(&replay);
                // A release is not remembered; after a restart owners say again what they have.
                for (&owner, &(first, _)) in &model.logs {
                    core.release(Owner(owner), first - 1);
                }
            }
        }
    }
    drop(core);
    disk.crash();
    model.check(&open(&disk, options.clone()).1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_replayed_as_it_was(steps in steps()) {
        run(&steps, &options());
    }
}
