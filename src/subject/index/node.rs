//! The tree itself: levels of tokens and the nodes they lead to.

use memchr::memchr;

use super::literals::Literals;
use super::{Indexed, Matches, QueueGroup};

/// All tokens that may stand in one place.
#[derive(Debug)]
pub(super) struct Level<T> {
    literals: Literals<Node<T>>,
    any: Option<Box<Node<T>>>,
    tail: Option<Box<Node<T>>>,
}

/// The entries whose pattern ends here, and the tokens that may follow.
#[derive(Debug)]
pub(super) struct Node<T> {
    plain: Vec<T>,
    #[expect(
        clippy::box_collection,
        reason = "few nodes have any, and a node with none is smaller so"
    )]
    queues: Option<Box<Vec<QueueGroup<T>>>>,
    next: Option<Box<Level<T>>>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            literals: Literals::default(),
            any: None,
            tail: None,
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            queues: None,
            next: None,
        }
    }
}

/// The first token and what follows it, `None` behind the last.
fn split(subject: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'.', subject) {
        Some(dot) => (
            subject.get(..dot).unwrap_or_default(),
            subject.get(dot + 1..),
        ),
        None => (subject, None),
    }
}

impl<T> Level<T> {
    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.any.is_none() && self.tail.is_none()
    }
}

impl<T: Indexed> Level<T> {
    pub(super) fn insert(&mut self, pattern: &[u8], queue: Option<&[u8]>, entry: T) {
        let (token, rest) = split(pattern);
        let node = match token {
            b"*" => self.any.get_or_insert_default(),
            b">" => self.tail.get_or_insert_default(),
            _ => self.literals.get_or_insert_default(token),
        };
        match rest {
            Some(rest) => node.next.get_or_insert_default().insert(rest, queue, entry),
            None => node.add(queue, entry),
        }
    }

    pub(super) fn remove(&mut self, pattern: &[u8], queue: Option<&[u8]>, id: u64) -> bool {
        let (token, rest) = split(pattern);
        let node = match token {
            b"*" => self.any.as_deref_mut(),
            b">" => self.tail.as_deref_mut(),
            _ => self.literals.get_mut(token),
        };
        let Some(node) = node else { return false };
        let removed = match (rest, &mut node.next) {
            (None, _) => node.take(queue, id),
            (Some(rest), Some(level)) => {
                let removed = level.remove(rest, queue, id);
                if level.is_empty() {
                    node.next = None;
                }
                removed
            }
            (Some(_), None) => false,
        };
        if node.is_empty() {
            match token {
                b"*" => self.any = None,
                b">" => self.tail = None,
                _ => self.literals.remove(token),
            }
        }
        removed
    }

    pub(super) fn for_each(&self, seen: &mut impl FnMut(&T)) {
        let wild = [self.any.as_deref(), self.tail.as_deref()];
        for node in wild.into_iter().flatten().chain(self.literals.values()) {
            node.for_each_here(seen);
            if let Some(next) = &node.next {
                next.for_each(seen);
            }
        }
    }

    pub(super) fn holds(&self, pattern: &[u8], queue: Option<&[u8]>) -> bool {
        let (token, rest) = split(pattern);
        let node = match token {
            b"*" => self.any.as_deref(),
            b">" => self.tail.as_deref(),
            _ => self.literals.get(token),
        };
        let Some(node) = node else { return false };
        match (rest, &node.next, queue) {
            (Some(rest), Some(level), _) => level.holds(rest, queue),
            (Some(_), None, _) => false,
            (None, _, None) => !node.plain.is_empty(),
            (None, _, Some(name)) => position(node.groups(), name).is_some(),
        }
    }

    /// Shows every entry to `seen` whose pattern matches some subject that this pattern matches, too.
    pub(super) fn for_each_overlapping(&self, pattern: &[u8], seen: &mut impl FnMut(&T)) {
        let (token, rest) = split(pattern);
        if token == b">" {
            return self.for_each(seen);
        }
        if let Some(tail) = &self.tail {
            tail.for_each_here(seen);
        }
        let mut go_on = |node: &Node<T>| match (rest, &node.next) {
            (None, _) => node.for_each_here(seen),
            (Some(rest), Some(level)) => level.for_each_overlapping(rest, seen),
            (Some(_), None) => {}
        };
        self.any.as_deref().into_iter().for_each(&mut go_on);
        match token {
            b"*" => self.literals.values().for_each(go_on),
            _ => self.literals.get(token).into_iter().for_each(go_on),
        }
    }

    /// Shows every node that matches to `seen` until it answers `true`; whether it did.
    pub(super) fn visit(&self, subject: &[u8], seen: &mut impl FnMut(&Node<T>) -> bool) -> bool {
        let (token, rest) = split(subject);
        if let Some(tail) = &self.tail
            && tail.holds_entries()
            && seen(tail)
        {
            return true;
        }
        for node in [self.any.as_deref(), self.literals.get(token)]
            .into_iter()
            .flatten()
        {
            let found = match (rest, &node.next) {
                (Some(rest), Some(level)) => level.visit(rest, seen),
                (Some(_), None) => false,
                (None, _) => node.holds_entries() && seen(node),
            };
            if found {
                return true;
            }
        }
        false
    }
}

impl<T> Node<T> {
    fn holds_entries(&self) -> bool {
        !self.plain.is_empty() || self.queues.is_some()
    }

    fn groups(&self) -> &[QueueGroup<T>] {
        self.queues.as_deref().map_or(&[], Vec::as_slice)
    }

    fn for_each_here(&self, seen: &mut impl FnMut(&T)) {
        self.plain.iter().for_each(&mut *seen);
        let members = self.groups().iter().flat_map(|group| &group.members);
        members.for_each(seen);
    }

    fn is_empty(&self) -> bool {
        !self.holds_entries() && self.next.is_none()
    }
}

impl<T: Indexed> Node<T> {
    fn add(&mut self, queue: Option<&[u8]>, entry: T) {
        let Some(name) = queue else {
            return push(&mut self.plain, entry);
        };
        let groups = self.queues.get_or_insert_default();
        match position(groups, name) {
            Some(group) => push(&mut group_at(groups, group).members, entry),
            None => {
                if groups.is_empty() {
                    groups.reserve_exact(1);
                }
                groups.push(QueueGroup {
                    name: name.into(),
                    members: vec![entry],
                });
            }
        }
    }

    fn take(&mut self, queue: Option<&[u8]>, id: u64) -> bool {
        let Some(name) = queue else {
            return pull(&mut self.plain, id);
        };
        let Some(groups) = &mut self.queues else {
            return false;
        };
        let Some(group) = position(groups, name) else {
            return false;
        };
        let members = &mut group_at(groups, group).members;
        let removed = pull(members, id);
        if members.is_empty() {
            groups.swap_remove(group);
            if groups.is_empty() {
                self.queues = None;
            }
        }
        removed
    }

    pub(super) fn collect(&self, found: &mut Matches<T>) {
        found.plain.extend_from_slice(&self.plain);
        for group in self.groups() {
            match position(&found.queues, &group.name) {
                Some(known) => group_at(&mut found.queues, known)
                    .members
                    .extend_from_slice(&group.members),
                None => found.queues.push(group.clone()),
            }
        }
    }
}

fn position<T>(groups: &[QueueGroup<T>], name: &[u8]) -> Option<usize> {
    groups.iter().position(|group| &*group.name == name)
}

#[expect(
    clippy::indexing_slicing,
    reason = "the position was found in this very list"
)]
fn group_at<T>(groups: &mut [QueueGroup<T>], at: usize) -> &mut QueueGroup<T> {
    &mut groups[at]
}

/// Keeps the list ordered by id, so that an entry is found again without a scan. Ids are given out in
/// rising order, so this nearly always appends.
fn push<T: Indexed>(entries: &mut Vec<T>, entry: T) {
    if entries.is_empty() {
        // Most patterns have one entry.
        entries.reserve_exact(1);
    }
    let at = entries.partition_point(|known| known.id() < entry.id());
    entries.insert(at, entry);
}

fn pull<T: Indexed>(entries: &mut Vec<T>, id: u64) -> bool {
    match entries.binary_search_by_key(&id, Indexed::id) {
        Ok(at) => {
            entries.remove(at);
            if entries.len() * 4 < entries.capacity() {
                entries.shrink_to(entries.len() * 2);
            }
            true
        }
        Err(_) => false,
    }
}
