use proptest::prelude::*;

use super::super::relation::{overlap, subject_matches};
use super::*;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Indexed for Entry {
    fn id(&self) -> u64 {
        self.0
    }
}

fn ids(index: &SubjectIndex<Entry>, subject: &str) -> Vec<u64> {
    let mut found = Matches::default();
    index.matches(subject.as_bytes(), &mut found);
    let mut ids: Vec<u64> = found.plain.iter().map(|entry| entry.0).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn literals_and_wildcards_match() {
    let mut index = SubjectIndex::default();
    for (id, pattern) in ["a.*", "a.>", ">", "*.b", "a.b", "a.b.c"]
        .iter()
        .enumerate()
    {
        index
            .insert(pattern.as_bytes(), None, Entry(id as u64))
            .unwrap();
    }
    assert_eq!(ids(&index, "a.b"), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&index, "a.b.c"), [1, 2, 5]);
    assert_eq!(ids(&index, "a"), [2]);
    assert_eq!(ids(&index, "a..b"), [] as [u64; 0]);
    assert_eq!(ids(&index, ""), [] as [u64; 0]);
}

#[test]
fn malformed_patterns_are_refused() {
    let mut index = SubjectIndex::default();
    for pattern in ["", "a..b", ".a", "a.", "a.>.b"] {
        assert_eq!(
            index.insert(pattern.as_bytes(), None, Entry(1)),
            Err(InvalidSubject)
        );
    }
    assert!(index.is_empty());
}

#[test]
fn members_of_one_group_come_together_whatever_their_pattern() {
    let mut index = SubjectIndex::default();
    index.insert(b"a.b", Some(b"q"), Entry(1)).unwrap();
    index.insert(b"a.*", Some(b"q"), Entry(2)).unwrap();
    index.insert(b"a.>", Some(b"r"), Entry(3)).unwrap();
    let mut found = Matches::default();
    index.matches(b"a.b", &mut found);
    assert!(found.plain.is_empty());
    let mut groups: Vec<(&[u8], usize)> = found
        .queues
        .iter()
        .map(|group| (&*group.name, group.members.len()))
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, [(&b"q"[..], 2), (b"r", 1)]);
    assert!(index.holds(b"a.b", Some(b"q")) && index.holds(b"a.*", Some(b"q")));
    assert!(!index.holds(b"a.b", None) && !index.holds(b"a.b", Some(b"r")));
    assert!(!index.holds(b"a", None) && !index.holds(b"a.b.c", Some(b"q")));
}

#[test]
fn the_longest_pattern_is_kept_and_a_longer_one_is_refused() {
    let mut index = SubjectIndex::default();
    let longest = vec!["a"; TOKENS_MAX].join(".");
    index.insert(longest.as_bytes(), None, Entry(1)).unwrap();
    assert_eq!(ids(&index, &longest), [1]);
    let longer = format!("{longest}.a");
    assert_eq!(
        index.insert(longer.as_bytes(), None, Entry(2)),
        Err(InvalidSubject)
    );
    index.insert(b"a.a.>", None, Entry(3)).unwrap();
    assert_eq!(ids(&index, &["a"; 1_000_000].join(".")), [3]);
    assert!(index.remove(longest.as_bytes(), None, 1));
    assert!(index.remove(b"a.a.>", None, 3));
    assert!(index.root_is_empty());
}

impl SubjectIndex<Entry> {
    fn root_is_empty(&self) -> bool {
        self.count == 0 && format!("{:?}", self.root) == format!("{:?}", Level::<Entry>::default())
    }
}

#[derive(Debug, Clone)]
enum Change {
    Insert(String, Option<String>),
    Remove(usize),
}

fn pattern() -> impl Strategy<Value = String> {
    (
        prop::collection::vec("[abc*]", 0..4),
        prop::option::of(Just(">".to_owned())),
    )
        .prop_map(|(mut tokens, tail)| {
            tokens.extend(tail);
            if tokens.is_empty() {
                tokens.push("a".to_owned());
            }
            tokens.join(".")
        })
}

fn sorted(mut ids: Vec<u64>) -> Vec<u64> {
    ids.sort_unstable();
    ids
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (pattern(), prop::option::of("[pq]")).prop_map(|(p, q)| Change::Insert(p, q)),
        2 => any::<usize>().prop_map(Change::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_index_agrees_with_a_plain_list(
        changes in prop::collection::vec(change(), 1..60),
        subjects in prop::collection::vec("[abc](\\.[abc]){0,4}", 1..8),
        patterns in prop::collection::vec(pattern(), 1..8),
    ) {
        let mut index = SubjectIndex::default();
        let mut model: Vec<(u64, String, Option<String>)> = Vec::new();
        for (id, change) in changes.into_iter().enumerate() {
            let id = id as u64;
            match change {
                Change::Insert(pattern, queue) => {
                    index
                        .insert(pattern.as_bytes(), queue.as_deref().map(str::as_bytes), Entry(id))
                        .unwrap();
                    model.push((id, pattern, queue));
                }
                Change::Remove(_) if model.is_empty() => {}
                Change::Remove(at) => {
                    let (id, pattern, queue) = model.swap_remove(at % model.len());
                    let queue = queue.as_deref().map(str::as_bytes);
                    prop_assert!(index.remove(pattern.as_bytes(), queue, id));
                    prop_assert!(!index.remove(pattern.as_bytes(), queue, id));
                }
            }
            prop_assert_eq!(index.len(), model.len());
            for subject in &subjects {
                let expected: Vec<_> = model
                    .iter()
                    .filter(|(_, pattern, _)| subject_matches(subject, pattern))
                    .collect();
                let mut plain: Vec<u64> = expected
                    .iter()
                    .filter(|(_, _, queue)| queue.is_none())
                    .map(|(id, ..)| *id)
                    .collect();
                plain.sort_unstable();
                prop_assert_eq!(ids(&index, subject), plain);
                let mut found = Matches::default();
                index.matches(subject.as_bytes(), &mut found);
                for name in ["p", "q"] {
                    let mut members: Vec<u64> = expected
                        .iter()
                        .filter(|(_, _, queue)| queue.as_deref() == Some(name))
                        .map(|(id, ..)| *id)
                        .collect();
                    members.sort_unstable();
                    let mut have: Vec<u64> = found
                        .queues
                        .iter()
                        .filter(|group| &*group.name == name.as_bytes())
                        .flat_map(|group| group.members.iter().map(|entry| entry.0))
                        .collect();
                    have.sort_unstable();
                    prop_assert_eq!(have, members);
                }
                prop_assert_eq!(index.has_match(subject.as_bytes()), !expected.is_empty());
            }
        }
        for asked in &patterns {
            let expected: Vec<u64> = model
                .iter()
                .filter(|(_, pattern, _)| overlap(asked, pattern))
                .map(|(id, ..)| *id)
                .collect();
            let mut shown = Vec::new();
            index.for_each_overlapping(asked.as_bytes(), &mut |entry| shown.push(entry.0));
            shown.sort_unstable();
            prop_assert_eq!(shown, sorted(expected));
        }
        for (id, pattern, queue) in model {
            index.remove(pattern.as_bytes(), queue.as_deref().map(str::as_bytes), id);
        }
        prop_assert!(index.root_is_empty());
    }
}

#[test]
fn every_entry_is_shown_once() {
    let mut index = SubjectIndex::default();
    let patterns = ["a", "a.*", "a.>", ">", "*.b", "a.b.c"];
    for (id, pattern) in patterns.iter().enumerate() {
        let queue = (id % 2 == 0).then_some(b"q".as_slice());
        index
            .insert(pattern.as_bytes(), queue, Entry(id as u64))
            .unwrap();
    }
    let mut seen = Vec::new();
    index.for_each(&mut |entry| seen.push(entry.0));
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}
