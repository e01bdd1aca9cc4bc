//! The subject index: a radix tree from subjects to small values.
//!
//! Keys are any bytes, one may be the beginning of another. Filters are matched inside the tree
//! (`walk.rs`), so that a filter costs what it matches and not what there is.

use super::node::{Head, Kind, Nodes, PREFIX_BYTES_MAX, Prefix, Ref, Suffix};
use super::walk;
use crate::filter::Filter;

/// Names a subject of a tree, for as long as the subject is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectId(pub(super) Ref);

/// A map from subjects to values that iterates in byte order and matches filters.
#[derive(Debug)]
pub struct SubjectTree<V> {
    pub(super) nodes: Nodes<V>,
    pub(super) root: Ref,
    length: usize,
}

impl<V: Default> Default for SubjectTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Default> SubjectTree<V> {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            nodes: Nodes::default(),
            root: Ref::NONE,
            length: 0,
        }
    }

    /// How many subjects there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The value of a subject.
    pub fn get(&self, subject: &[u8]) -> Option<&V> {
        self.find(subject).map(|id| self.value(id))
    }

    /// The value behind an id.
    pub fn value(&self, id: SubjectId) -> &V {
        &self.nodes.leaf(id.0).value
    }

    /// The value behind an id.
    pub fn value_mut(&mut self, id: SubjectId) -> &mut V {
        &mut self.nodes.leaf_mut(id.0).value
    }

    /// The id of a subject.
    pub fn find(&self, subject: &[u8]) -> Option<SubjectId> {
        let mut at = self.root;
        let mut rest = subject;
        loop {
            if at.is_none() {
                return None;
            }
            if at.kind() == Kind::Leaf {
                return (self.nodes.leaf(at).suffix.as_bytes() == rest).then_some(SubjectId(at));
            }
            let head = self.nodes.head(at);
            rest = rest.strip_prefix(head.prefix.as_bytes())?;
            let Some((&byte, behind)) = rest.split_first() else {
                return (!head.end.is_none()).then_some(SubjectId(head.end));
            };
            at = self.nodes.child(at, byte);
            rest = behind;
        }
    }

    /// The id of a subject, which is added with a default value when it is new.
    pub fn insert(&mut self, subject: &[u8]) -> SubjectId {
        let mut parent = None;
        let mut at = self.root;
        let mut rest = subject;
        loop {
            if at.is_none() {
                let leaf = self.new_leaf(rest);
                self.link(parent, leaf);
                return SubjectId(leaf);
            }
            if at.kind() == Kind::Leaf {
                let suffix = self.nodes.leaf(at).suffix.as_bytes();
                if suffix == rest {
                    return SubjectId(at);
                }
                let shared = shared_length(suffix, rest);
                return self.split_leaf(parent, at, rest, shared);
            }
            let head = *self.nodes.head(at);
            let prefix = head.prefix.as_bytes();
            let shared = shared_length(prefix, rest);
            if shared < prefix.len() {
                return self.split_node(parent, at, head, rest, shared);
            }
            let Some((&byte, behind)) = rest.get(shared..).and_then(<[u8]>::split_first) else {
                if head.end.is_none() {
                    let leaf = self.new_leaf(&[]);
                    self.nodes.head_mut(at).end = leaf;
                    return SubjectId(leaf);
                }
                return SubjectId(head.end);
            };
            let child = self.nodes.child(at, byte);
            if child.is_none() {
                let leaf = self.new_leaf(behind);
                let moved = self.nodes.add_child(at, byte, leaf);
                self.link(parent, moved);
                return SubjectId(leaf);
            }
            parent = Some((at, byte));
            at = child;
            rest = behind;
        }
    }

    fn new_leaf(&mut self, rest: &[u8]) -> Ref {
        self.length += 1;
        self.nodes.new_leaf(rest)
    }

    fn link(&mut self, parent: Option<(Ref, u8)>, child: Ref) {
        match parent {
            None => self.root = child,
            Some((parent, byte)) => self.nodes.set_child(parent, byte, child),
        }
    }

    /// A chain of nodes for `shared`, as long as one node cannot hold it: its first and its last node.
    fn chain(&mut self, shared: &[u8]) -> (Ref, Ref) {
        let (here, behind) = shared
            .split_at_checked(PREFIX_BYTES_MAX)
            .unwrap_or((shared, &[]));
        let top = self.nodes.new_node(here);
        let Some((&byte, behind)) = behind.split_first() else {
            return (top, top);
        };
        let (next, bottom) = self.chain(behind);
        self.nodes.add_child(top, byte, next);
        (top, bottom)
    }

    /// Hangs `leaf` below the node of kind 4 at `at`, under the key that is left of it there.
    fn hang(&mut self, at: Ref, rest: &[u8], leaf: Ref) {
        let suffix = match rest.split_first() {
            None => {
                self.nodes.head_mut(at).end = leaf;
                &[]
            }
            Some((&byte, behind)) => {
                self.nodes.add_child(at, byte, leaf);
                behind
            }
        };
        self.nodes.leaf_mut(leaf).suffix = Suffix::new(suffix);
    }

    fn split_leaf(
        &mut self,
        parent: Option<(Ref, u8)>,
        leaf: Ref,
        rest: &[u8],
        shared: usize,
    ) -> SubjectId {
        let old = self.nodes.leaf(leaf).suffix.as_bytes().to_vec();
        let (common, behind) = rest.split_at_checked(shared).unwrap_or((rest, &[]));
        let (top, bottom) = self.chain(common);
        self.hang(bottom, old.get(shared..).unwrap_or_default(), leaf);
        let added = self.new_leaf(&[]);
        self.hang(bottom, behind, added);
        self.link(parent, top);
        SubjectId(added)
    }

    fn split_node(
        &mut self,
        parent: Option<(Ref, u8)>,
        node: Ref,
        head: Head,
        rest: &[u8],
        shared: usize,
    ) -> SubjectId {
        let (common, behind) = rest.split_at_checked(shared).unwrap_or((rest, &[]));
        let top = self.nodes.new_node(common);
        if let Some((&byte, left)) = head
            .prefix
            .as_bytes()
            .get(shared..)
            .and_then(<[u8]>::split_first)
        {
            self.nodes.head_mut(node).prefix = Prefix::new(left);
            self.nodes.add_child(top, byte, node);
        }
        let added = self.new_leaf(&[]);
        self.hang(top, behind, added);
        self.link(parent, top);
        SubjectId(added)
    }

    /// Removes a subject and returns its value.
    pub fn remove(&mut self, subject: &[u8]) -> Option<V> {
        let mut path: Vec<(Ref, u8)> = Vec::with_capacity(16);
        let mut at = self.root;
        let mut rest = subject;
        loop {
            if at.is_none() {
                return None;
            }
            if at.kind() == Kind::Leaf {
                if self.nodes.leaf(at).suffix.as_bytes() != rest {
                    return None;
                }
                break;
            }
            let head = self.nodes.head(at);
            rest = rest.strip_prefix(head.prefix.as_bytes())?;
            let Some((&byte, behind)) = rest.split_first() else {
                let end = head.end;
                if end.is_none() {
                    return None;
                }
                self.nodes.head_mut(at).end = Ref::NONE;
                self.tidy(at, &mut path);
                return Some(self.free_leaf(end));
            };
            path.push((at, byte));
            at = self.nodes.child(at, byte);
            rest = behind;
        }
        match path.pop() {
            None => self.root = Ref::NONE,
            Some((node, byte)) => {
                let moved = self.nodes.remove_child(node, byte);
                self.link(path.last().copied(), moved);
                self.tidy(moved, &mut path);
            }
        }
        Some(self.free_leaf(at))
    }

    fn free_leaf(&mut self, leaf: Ref) -> V {
        let value = std::mem::take(&mut self.nodes.leaf_mut(leaf).value);
        self.nodes.free(leaf);
        self.length -= 1;
        value
    }

    /// Folds nodes that no longer branch, from `node` upwards.
    fn tidy(&mut self, mut node: Ref, path: &mut Vec<(Ref, u8)>) {
        loop {
            let head = *self.nodes.head(node);
            let replacement = match (self.nodes.length(node), head.end.is_none()) {
                (0, true) => Ref::NONE,
                (0, false) => {
                    self.nodes.leaf_mut(head.end).suffix = Suffix::new(head.prefix.as_bytes());
                    head.end
                }
                (1, true) => match self.fold(node, &head) {
                    Some(folded) => folded,
                    None => return,
                },
                _ => return,
            };
            self.nodes.free(node);
            if replacement.is_none() {
                let Some((parent, byte)) = path.pop() else {
                    self.root = Ref::NONE;
                    return;
                };
                node = self.nodes.remove_child(parent, byte);
                self.link(path.last().copied(), node);
                continue;
            }
            self.link(path.last().copied(), replacement);
            // A leaf may now be all that a chain above leads to.
            match path.pop() {
                Some((parent, _)) if replacement.kind() == Kind::Leaf => node = parent,
                _ => return,
            }
        }
    }

    /// Joins a node with its only child, when one prefix can hold both.
    fn fold(&mut self, node: Ref, head: &Head) -> Option<Ref> {
        let (byte, child) = self.nodes.child_from(node, &mut 0)?;
        let mut joined = head.prefix.as_bytes().to_vec();
        joined.push(byte);
        if child.kind() == Kind::Leaf {
            joined.extend_from_slice(self.nodes.leaf(child).suffix.as_bytes());
            self.nodes.leaf_mut(child).suffix = Suffix::new(&joined);
            return Some(child);
        }
        joined.extend_from_slice(self.nodes.head(child).prefix.as_bytes());
        if joined.len() > PREFIX_BYTES_MAX {
            return None;
        }
        self.nodes.head_mut(child).prefix = Prefix::new(&joined);
        Some(child)
    }

    /// Calls `visit` for every subject that matches, once each and in byte order, until it returns `false`.
    pub fn matching(&self, filter: &Filter, mut visit: impl FnMut(&[u8], SubjectId, &V) -> bool) {
        if let [pattern] = filter.patterns()
            && pattern.is_literal()
        {
            if let Some(id) = self.find(pattern.as_bytes()) {
                visit(pattern.as_bytes(), id, self.value(id));
            }
            return;
        }
        walk::walk(self, filter, &mut visit);
    }

    /// Calls `visit` for every subject in byte order until it returns `false`.
    pub fn iterate(&self, mut visit: impl FnMut(&[u8], SubjectId, &V) -> bool) {
        walk::walk(self, &Filter::everything(), &mut visit);
    }
}

fn shared_length(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn listed(tree: &SubjectTree<u64>, filter: &Filter) -> Vec<(Vec<u8>, u64)> {
        let mut found = Vec::new();
        tree.matching(filter, |subject, _, value| {
            found.push((subject.to_vec(), *value));
            true
        });
        found
    }

    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-c]{0,2}",
            2 => "[0-9a-f]{2}",
            1 => "[a-z]{18,40}",
            1 => Just("*".to_string()),
            1 => Just(">".to_string()),
        ]
    }

    fn subject() -> impl Strategy<Value = String> {
        proptest::collection::vec(token(), 1..4).prop_map(|tokens| tokens.join("."))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>(), subject()), 1..120),
            filters in proptest::collection::vec(proptest::collection::vec(subject(), 1..3), 1..6),
        ) {
            let mut tree = SubjectTree::new();
            let mut map = BTreeMap::new();
            for (at, (add, pick, subject)) in steps.iter().enumerate() {
                if *add || map.is_empty() {
                    let id = tree.insert(subject.as_bytes());
                    *tree.value_mut(id) = at as u64;
                    map.insert(subject.clone().into_bytes(), at as u64);
                } else {
                    let keys: Vec<Vec<u8>> = map.keys().cloned().collect();
                    let key = pick.get(&keys);
                    prop_assert_eq!(tree.remove(key), map.remove(key));
                    prop_assert_eq!(tree.remove(key), None);
                }
                prop_assert_eq!(tree.len(), map.len());
            }
            for (key, value) in &map {
                prop_assert_eq!(tree.get(key), Some(value));
            }
            let all: Vec<_> = map.clone().into_iter().collect();
            prop_assert_eq!(listed(&tree, &Filter::everything()), all.clone());
            for patterns in filters {
                let filter = Filter::new(patterns.iter().map(String::as_bytes));
                let expected: Vec<_> = all.iter().filter(|(key, _)| filter.matches(key)).cloned().collect();
                prop_assert_eq!(listed(&tree, &filter), expected, "{:?}", filter);
            }
            for (key, value) in &all {
                prop_assert_eq!(tree.remove(key), Some(*value));
            }
            prop_assert!(tree.root.is_none());
        }
    }

    #[test]
    fn wide_nodes_grow_and_shrink_through_every_kind() {
        let mut tree = SubjectTree::new();
        let keys: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![b'x', byte, b'y']).collect();
        for (at, key) in keys.iter().enumerate() {
            let id = tree.insert(key);
            *tree.value_mut(id) = at as u64;
        }
        assert_eq!(listed(&tree, &Filter::everything()).len(), 256);
        for (at, key) in keys.iter().enumerate() {
            assert_eq!(tree.remove(key), Some(at as u64));
            assert_eq!(tree.len(), 255 - at);
            assert_eq!(listed(&tree, &Filter::everything()).len(), 255 - at);
        }
    }
}
